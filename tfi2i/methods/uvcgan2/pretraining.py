"""Pre-training of UVCGAN's generators (v1: arXiv 2203.02557, section 3.3; v2: arXiv 2303.16280, section 4.2)."""

import dataclasses

import keras
import tensorflow as tf

from tfi2i import layers, optim
from tfi2i.config import UserError
from tfi2i.methods.losses import l1
from tfi2i.methods.sizes import Sizes
from tfi2i.methods.translator import Translator
from tfi2i.methods.uvcgan2 import config
from tfi2i.methods.uvcgan2.model import UVCGAN2, make_generator


@keras.saving.register_keras_serializable(package="tfi2i")
class Inpainting(Translator):
    """One generator that restores images of both domains of which patches are black.

    The loss is L1 over all pixels, also those that were left. `UVCGAN2.start_from` takes its weights.
    Hyper-parameters: `config.Inpainting`.
    """

    config_class = config.Inpainting
    value_range = (0.0, 1.0)
    roles = ("generator",)

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="inpainting", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c = self.config
        if channels_a != channels_b:
            raise UserError(
                f"--task=pretrain teaches one generator both domains, but A has {channels_a} and B {channels_b} "
                "channels: make them equal"
            )
        stride = 2**c.generator_levels
        self.sizes = Sizes(multiple=stride, minimum=stride, crop_minimum=stride)
        self.generator = make_generator(c, channels_a, seed=seed, dtype=self.dtype_policy, name="generator")

    @classmethod
    def from_config(cls, config):
        # .keras files of version 0.1 have all hyper-parameters of v2.
        own = {field.name for field in dataclasses.fields(cls.config_class)}
        others = {field.name for field in dataclasses.fields(UVCGAN2.config_class)} - own
        return super().from_config({k: v for k, v in config.items() if k not in others})

    @property
    def networks(self):
        return {"generator": self.generator}

    @property
    def generators(self):
        return {"a2b": self.generator, "b2a": self.generator}

    def input_shape_of(self, name):
        return (None, None, None, self.channels_a)

    def published_optimizer(self, role, learning_rate=None):
        c = self.config
        rate = learning_rate or c.learning_rate
        return optim.Adam(rate, c.beta_1, c.beta_2, weight_decay=c.weight_decay, name=f"{role}_adam")

    def learn(self, a, b, indices):
        seeds = layers.sample_seeds(self.seed, self.step.value, indices, "mask")
        kept = {"kept_a": self.draw_kept(seeds, a.shape), "kept_b": self.draw_kept(seeds + 1, b.shape)}
        losses, _ = self.phase(self.reconstruct, "generator", a=a, b=b, **kept)
        return losses

    def reconstruct(self, a, b, kept_a, kept_b):
        """‖G(a kept_a) - a‖₁ + ‖G(b kept_b) - b‖₁, means over all pixels."""
        losses = {}
        for domain, x, kept in (("a", a, kept_a), ("b", b, kept_b)):
            losses[f"inpainting_{domain}"] = l1(self.generator(x * kept, training=True), x)
        return losses, {}

    def draw_kept(self, seeds, shape):
        """float32 [N, H, W, 1] for images of `shape`: square patches of 0, with `mask_fraction`'s probability, or 1."""
        c = self.config
        h, w = (-(-side // c.mask_patch) for side in shape[1:3])
        # Not within a phase, where XLA would draw others.
        kept = tf.cast(layers.uniform(seeds, (h, w)) >= c.mask_fraction, tf.float32)
        kept = tf.repeat(tf.repeat(kept, c.mask_patch, axis=1), c.mask_patch, axis=2)
        return kept[:, : shape[1], : shape[2], None]

    def pictures(self, a, b):
        shown = {}
        for i, (domain, x) in enumerate((("A", a), ("B", b))):
            seeds = layers.sample_seeds(self.seed, 0, tf.range(x.shape[0]), "mask of pictures")
            masked = x * self.draw_kept(seeds + i, x.shape)
            shown |= {domain: x, f"{domain} masked": masked, f"{domain} restored": self.generate(masked)}
        return shown


@keras.saving.register_keras_serializable(package="tfi2i")
class UVCGANInpainting(Inpainting):
    """Pre-training for v1, `UVCGAN`. Hyper-parameters: `config.UVCGANInpainting`."""

    config_class = config.UVCGANInpainting
