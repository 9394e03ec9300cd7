"""What the methods share whose generators show where they look: maps for people, beside translations and in samples."""

from keras import ops

from tfi2i.methods.translator import Translator
from tfi2i.pictures import overlay


class AttentiveTranslator(Translator):
    """Base of these methods: a `Translator` that also defines `attention`."""

    def attention(self, x, direction="a2b"):
        """Where the generator looks in images [N, H, W, C] of any size: float32 [N, H, W, 1], each map from 0 to 1."""
        raise NotImplementedError

    @property
    def has_attention(self):
        """Whether the networks were made with the attention that `attention` shows."""
        return True

    def discriminator_attention(self, x, domain):
        """Where the discriminators of domain "a" or "b" look in images: dict of network → map as of `attention`."""
        raise NotImplementedError

    def check_heatmaps(self, discriminators=False):
        raise NotImplementedError

    def heatmaps(self, images, direction=None, discriminators=False):
        """Where the networks look, from 0 to 1 in every map.

        Args:
            images: as `translate` takes them, but for a list.
            direction: "a2b" or "b2a"; None: the first of `directions`.
            discriminators: also where the other domain's discriminators look in the translations.

        Returns:
            dict of "generator" and names of discriminators → float32 array [N, H, W, 1], or [H, W, 1] for one image.

        Raises:
            UserError: networks without attention, or images too small for the discriminators.
        """
        self.check_heatmaps(discriminators)
        direction = self.resolve_direction(direction)
        images = self._pixels(images, direction[0])
        batch = ops.convert_to_tensor(images if images.ndim == 4 else images[None])
        x = batch if images.dtype.kind == "f" else self.to_float(batch)
        maps = {"generator": self.attention(x, direction)}
        if discriminators:
            maps |= self.discriminator_attention(self.generate(x, direction), direction[-1])
        arrays = {name: ops.convert_to_numpy(heat) for name, heat in maps.items()}
        return arrays if images.ndim == 4 else {name: heat[0] for name, heat in arrays.items()}

    def translate(self, images, direction=None, batch_size=1, return_heatmap=False, **style):
        """As `Translator.translate`; with `return_heatmap` also where the generator looks, see `heatmaps`."""
        result = super().translate(images, direction, batch_size, **style)
        if not return_heatmap:
            return result
        return result, self.heatmaps(images, direction)["generator"]

    def pictures(self, a, b):
        shown = {}
        for title, x in super().pictures(a, b).items():
            shown[title] = x
            if title in ("A", "B") and self.has_attention:
                heat = self.attention(x, "a2b" if title == "A" else "b2a")
                page = overlay(ops.convert_to_numpy(self.to_pixels(x)), ops.convert_to_numpy(heat))
                shown[f"attention {title}"] = self.to_float(ops.convert_to_tensor(page))
        return shown
