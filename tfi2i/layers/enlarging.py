"""Maps made larger by repeating their pixels."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfi2i")
class Enlarge(keras.layers.Layer):
    """Makes a map larger by a whole number: every pixel becomes a square of `factor` × `factor` equal ones.

    It computes what `keras.layers.UpSampling2D(factor)` does, by two concatenations instead of two repetitions. These
    have a third of the operations, none of whose gradients transposes integers, and LiteRT's delegates know them all.
    Rows come before columns as in Keras, so that gradients are added up in the same order.

    Args:
        factor: int, 1 or more.
        **kwargs: those of any Keras layer.

    Call: [N, H, W, C] → [N, factor H, factor W, C].

    Raises:
        ValueError: `factor` is no such number.
    """

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(factor, int) or factor < 1:
            raise ValueError(f"factor={factor}: expected an integer, 1 or more")
        self.factor = factor
        self.input_spec = keras.InputSpec(ndim=4)

    def build(self, input_shape):
        self.built = True

    def call(self, x):
        s = self.factor
        _, h, w, c = ops.shape(x)
        # A row, repeated, is as many rows; a pixel's channels, repeated, are those of as many pixels.
        tall = ops.reshape(ops.concatenate([x] * s, axis=2), (-1, s * h, w, c))
        return ops.reshape(ops.concatenate([tall] * s, axis=3), (-1, s * h, s * w, c))

    def compute_output_shape(self, input_shape):
        n, *sides, c = input_shape
        return (n, *(side and side * self.factor for side in sides), c)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}
