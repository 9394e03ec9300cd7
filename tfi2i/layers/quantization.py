"""Convolutions that learn under the rounding that 8-bit integers will bring, and what such files can compute."""

import keras
from keras import ops


def fake_quantize(x, axis):
    """Rounds a map to what 8-bit integers can hold; the gradient passes as if nothing had been rounded.

    Args:
        x: float tensor.
        axis: tuple of the axes whose values share a scale and a zero point, which hold the least, the largest and 0.

    Returns:
        Tensor of the shape and dtype of `x`.

    Source: Jacob et al., arXiv 1712.05877, section 3. Their range is a moving average over batches; here each sample
    has its own, so that parts of a batch, on replicas for one, are rounded as the whole is.
    """
    y = ops.cast(x, "float32")
    low = ops.minimum(ops.min(y, axis=axis, keepdims=True), 0.0)
    high = ops.maximum(ops.max(y, axis=axis, keepdims=True), 0.0)
    scale = ops.maximum(high - low, 1e-8) / 255
    zero = ops.round(low / scale)
    return _straight_through(x, scale * (ops.clip(ops.round(y / scale) - zero, 0, 255) + zero))


def fake_quantize_kernel(kernel, axis):
    """Rounds a kernel to what 8-bit integers without a zero point can hold; the gradient passes unchanged.

    Args:
        kernel: float tensor.
        axis: tuple of the axes whose values share a scale: all but that of the output channels.

    Returns:
        Tensor of the shape and dtype of `kernel`.
    """
    y = ops.cast(kernel, "float32")
    scale = ops.maximum(ops.max(ops.abs(y), axis=axis, keepdims=True), 1e-8) / 127
    return _straight_through(kernel, scale * ops.round(y / scale))


def _straight_through(x, rounded):
    return x + ops.stop_gradient(ops.cast(rounded, x.dtype) - x)


def _finished(layer, y):
    """What a convolution's result becomes: with bias and activation, rounded for each sample."""
    y = y if layer.bias is None else y + layer.bias
    return fake_quantize(layer.activation(y), axis=(1, 2, 3))


@keras.saving.register_keras_serializable(package="tfi2i")
class QuantizableConv2D(keras.layers.Conv2D):
    """As `keras.layers.Conv2D`, channels last; call(x, quantized=True) rounds its kernel and its result to 8 bits."""

    def call(self, x, quantized=False):
        if not quantized:
            return super().call(x)
        return _finished(self, self.convolution_op(x, fake_quantize_kernel(self.kernel, axis=(0, 1, 2))))


@keras.saving.register_keras_serializable(package="tfi2i")
class QuantizableDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """As `keras.layers.DepthwiseConv2D`, channels last; call(x, quantized=True) rounds its kernel and its result."""

    def call(self, x, quantized=False):
        if not quantized:
            return super().call(x)
        kernel = fake_quantize_kernel(self.kernel, axis=(0, 1))
        return _finished(self, ops.depthwise_conv(x, kernel, self.strides, self.padding, None, self.dilation_rate))


def depth_to_space(x):
    """[N, H, W, 4 C] → [N, 2 H, 2 W, C] as `tf.nn.depth_to_space`, by operations that phones' chips have.

    The four groups of channels become the pixels above left, above right, below left and below right.
    """
    n, h, w, channels = ops.shape(x)
    c = channels // 4
    rows = [ops.reshape(x[..., i * 2 * c : (i + 1) * 2 * c], (n, h, 2 * w, c)) for i in range(2)]
    return ops.reshape(ops.concatenate(rows, axis=2), (n, 2 * h, 2 * w, c))
