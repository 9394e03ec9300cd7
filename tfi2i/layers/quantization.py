"""Convolutions that learn under the rounding that 8-bit integers will bring, and what such files can compute."""

import keras
from keras import ops


def fake_quantize(x, axis=None):
    """Rounds to what 8-bit integers can hold; the gradient passes as if nothing had been rounded.

    Args:
        x: float tensor: a map, or a kernel whose output channels are its last axis.
        axis: None: one scale and zero point for all values, from the least to the largest and 0, as of a map. A tuple
            of axes: one scale for all values along them and no zero point, as of a kernel.

    Returns:
        Tensor of the shape and dtype of `x`.

    Source: Jacob et al., arXiv 1712.05877, section 3, with the range of each batch instead of a moving average.
    """
    y = ops.cast(x, "float32")
    if axis is None:
        low, high = ops.minimum(ops.min(y), 0.0), ops.maximum(ops.max(y), 0.0)
        scale = ops.maximum(high - low, 1e-8) / 255
        zero = ops.round(low / scale)
        rounded = scale * (ops.clip(ops.round(y / scale) - zero, 0, 255) + zero)
    else:
        scale = ops.maximum(ops.max(ops.abs(y), axis=axis, keepdims=True), 1e-8) / 127
        rounded = scale * ops.round(y / scale)
    return x + ops.stop_gradient(ops.cast(rounded, x.dtype) - x)


@keras.saving.register_keras_serializable(package="tfi2i")
class QuantizableConv2D(keras.layers.Conv2D):
    """As `keras.layers.Conv2D`; call(x, quantized=True) rounds its kernel and its result by `fake_quantize`."""

    def call(self, x, quantized=False):
        if not quantized:
            return super().call(x)
        y = self.convolution_op(x, fake_quantize(self.kernel, axis=(0, 1, 2))) + self.bias
        return fake_quantize(self.activation(y))


@keras.saving.register_keras_serializable(package="tfi2i")
class QuantizableDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """As `keras.layers.DepthwiseConv2D`; call(x, quantized=True) rounds its kernel and its result."""

    def call(self, x, quantized=False):
        if not quantized:
            return super().call(x)
        kernel = fake_quantize(self.kernel, axis=(0, 1))
        y = ops.depthwise_conv(x, kernel, self.strides, self.padding) + self.bias
        return fake_quantize(self.activation(y))


def depth_to_space(x):
    """[N, H, W, 4 C] → [N, 2 H, 2 W, C] as `tf.nn.depth_to_space`, by operations that phones' chips have.

    The four groups of channels become the pixels above left, above right, below left and below right.
    """
    n, h, w, channels = ops.shape(x)
    c = channels // 4
    rows = [ops.reshape(x[..., i * 2 * c : (i + 1) * 2 * c], (n, h, 2 * w, c)) for i in range(2)]
    return ops.reshape(ops.concatenate(rows, axis=2), (n, 2 * h, 2 * w, c))
