"""Which sizes of images networks take, and how images of any other size meet them."""

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes that a model's networks take, in pixels.

    Attributes:
        multiple: sides must be multiples of this, the networks' total stride.
        minimum: sides must be at least this, so that the innermost map is large enough for its own padding.
        fixed: (height, width) where the networks take no other, as dense layers over a whole map do; or None.
        crop_minimum: sides of training crops must be at least this, so that discriminators have something to say.
    """

    multiple: int = 1
    minimum: int = 1
    fixed: tuple | None = None
    crop_minimum: int = 1

    def fit(self, height, width):
        """Whether the networks take images of this size as they are."""
        if self.fixed:
            return (height, width) == tuple(self.fixed)
        return all(side >= self.minimum and side % self.multiple == 0 for side in (height, width))

    def nearest(self, size):
        """The (height, width) nearest to `size` that the networks take."""
        if self.fixed:
            return tuple(self.fixed)
        m = self.multiple
        return tuple(max(round(side / m), -(-self.minimum // m)) * m for side in size)

    def reflected(self, length):
        """How a side of `length` pixels is padded: mirrored without repeating the edge, to the next `multiple`.

        Args:
            length: int, or int32 scalar tensor.

        Returns:
            (before, source): how many rows are added before the first, an int32 scalar; and for every row of the padded
            map the row that it shows, int32 [padded length]. The index runs back and forth, so that a map can be padded
            by more than its own length.
        """
        padded = tf.maximum(-(-length // self.multiple) * self.multiple, self.minimum)
        before = (padded - length) // 2
        period = tf.maximum(2 * (length - 1), 1)
        position = tf.math.floormod(tf.range(padded) - before, period)
        return before, tf.minimum(position, period - position)

    def __str__(self):
        if self.fixed:
            return f"{self.fixed[0]},{self.fixed[1]} only"
        return f"multiples of {self.multiple}, at least {self.minimum}"


def padded(network, x, sizes):
    """`network` on images of any size: padded by reflection as `Sizes.reflected` says, and cut back.

    Args:
        network: callable [N, H, W, C] → [N, H, W, C'] on sizes that fit.
        x: float tensor [N, h, w, C].
        sizes: a `Sizes` that is not fixed.

    Returns:
        tensor [N, h, w, C'].
    """
    # The sides are read exactly as in `pad`, so that TensorFlow merges both computations.
    return cut(network(pad(x, sizes)), (tf.shape(x)[1], tf.shape(x)[2]), sizes)


def pad(x, sizes):
    """[N, h, w, C] → [N, H, W, C], by reflection to the next size that fits."""
    _, rows = sizes.reflected(tf.shape(x)[1])
    _, columns = sizes.reflected(tf.shape(x)[2])
    return tf.gather(tf.gather(x, rows, axis=1), columns, axis=2)


def cut(y, size, sizes):
    """Takes from [N, H, W, C] what `pad` has added to images of `size` = (h, w): [N, h, w, C]."""
    h, w = size[0], size[1]
    top, _ = sizes.reflected(h)
    left, _ = sizes.reflected(w)
    channels = -1 if y.shape[-1] is None else y.shape[-1]  # -1 would hide the number from TensorFlow's static shapes
    return tf.slice(y, (0, top, left, 0), (-1, h, w, channels))


def resized(network, x, size, value_range, filter="bicubic"):
    """`network` on images of any size: resized to `size` and back, antialiased, within `value_range`.

    Args:
        network: callable [N, *size, C] → [N, *size, C'].
        x: float tensor [N, h, w, C] in `value_range`.
        size: (height, width) that the network sees.
        value_range: (low, high), where filters that overshoot are cut off.
        filter: "bicubic", "bilinear" or "lanczos", Pillow's.

    Returns:
        float32 tensor [N, h, w, C'] in `value_range`.
    """
    y = network(resize(x, size, value_range, filter))
    return resize(y, tf.shape(x)[1:3], value_range, filter)


def resize(x, size, value_range, filter="bicubic"):
    """One of the two steps of `resized`: float [N, h, w, C] → float32 [N, *size, C]."""
    filter = {"lanczos": "lanczos3"}.get(filter, filter)
    return tf.clip_by_value(tf.image.resize(x, size, filter, antialias=True), *value_range)
