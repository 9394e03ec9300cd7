"""Convolution whose input channels are scaled by a style and whose output channels are scaled to unit variance."""

import keras
from keras import ops

from tfi2i.layers.convolution import Conv2D


@keras.saving.register_keras_serializable(package="tfi2i")
class ModulatedConv2D(Conv2D):
    """(conv(x s) + b) d, with d_o = 1 / sqrt(Σ_i s_i² Σ W_io² + 1e-6) for a scale s of each sample and input channel.

    In StyleGAN2 the bias is added after the demodulation d; here it is added before, so d scales it too. d is computed
    in float32.

    Args:
        filters, kernel_size, strides, pad, pad_mode: as for `tfi2i.layers.Conv2D`.
        **kwargs: as for `tfi2i.layers.Conv2D`, without `groups` and `activation`.

    Call: x [N, H, W, C] and scale [N, C], both floating point → the shape of `tfi2i.layers.Conv2D`.

    Raises:
        ValueError: an argument is not one of those described.

    Source: Karras et al., arXiv 1912.04958, section 2.2; the order of the bias as in the code of UVCGAN v2.
    """

    def __init__(self, filters, kernel_size, strides=1, pad=0, pad_mode="zeros", **kwargs):
        super().__init__(filters, kernel_size, strides, pad, pad_mode, **kwargs)
        if self.groups != 1:
            raise ValueError(f"groups={self.groups}: expected 1")
        if self.activation is not keras.activations.linear:
            raise ValueError(f"activation={kwargs['activation']}: expected None; apply it to the layer's output")

    def build(self, x_shape, scale_shape=None):
        super().build(x_shape)

    def call(self, x, scale):
        y = super().call(x * ops.cast(scale, x.dtype)[:, None, None, :])
        energy = ops.sum(ops.square(ops.cast(self.kernel, "float32")), axis=(0, 1))
        variance = ops.matmul(ops.square(ops.cast(scale, "float32")), energy)
        return y * ops.cast(ops.rsqrt(variance + 1e-6), y.dtype)[:, None, None, :]
