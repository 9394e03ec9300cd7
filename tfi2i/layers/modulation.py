"""Convolution whose input channels a style scales, and whose output channels get unit variance again."""

import keras
from keras import ops

from tfi2i.layers.convolution import Conv2D


@keras.saving.register_keras_serializable(package="tfi2i")
class ModulatedConv2D(Conv2D):
    """(conv(x s) + b) d, with d_o = 1 / sqrt(Σ_i s_i² Σ W_io² + 1e-6) for a scale s of each sample and input channel.

    Unlike StyleGAN2's, the bias is added before the demodulation d, which scales it too. d is computed in float32.

    Call: x [N, H, W, C] and scale [N, C], float32.

    Source: Karras et al., arXiv 1912.04958, section 2.2; the order of the bias as in the code of UVCGAN v2.
    """

    def call(self, x, scale):
        y = super().call(x * ops.cast(scale, x.dtype)[:, None, None, :])
        energy = ops.sum(ops.square(ops.cast(self.kernel, "float32")), axis=(0, 1))
        variance = ops.matmul(ops.square(ops.cast(scale, "float32")), energy)
        return y * ops.cast(ops.rsqrt(variance + 1e-6), y.dtype)[:, None, None, :]
