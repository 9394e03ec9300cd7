"""Convolutions that are padded as PyTorch pads them, and their initialisers."""

import math

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfi2i.layers.scope import StepScope, open_scope, with_gradient

# Bytes that the patches of a convolution may take. Those of two convolutions can be in memory at once, or of more with
# more cores.
_PATCHES = 1 << 29


@keras.saving.register_keras_serializable(package="tfi2i")
class Conv2D(keras.layers.Conv2D):
    """Convolution after padding by `pad` pixels on all four sides.

    For an even input, kernel 3 and stride 2, Keras' padding="same" pads 0 pixels before and 1 after, where PyTorch pads
    1 and 1. This shifts the whole map by a pixel, and published weights give other pictures.

    The gradients that CPUs compute faster are those of `Translator.train_step`; elsewhere TensorFlow's own apply.

    Args:
        filters: int, output channels.
        kernel_size: int or (height, width), of the kernel in pixels.
        strides: int or (rows, columns), step between windows in pixels.
        pad: int, 0 or more: pixels added on each of the four sides. With `pad_mode` "reflect" it must be less than the
            input's height and width.
        pad_mode: "zeros" or "reflect" (mirrored without repeating the edge).
        **kwargs: as for `keras.layers.Conv2D`; `padding` can only be "valid", and channels are last.

    Call: [N, H, W, C] → [N, (H + 2 pad - k) // s + 1, (W + 2 pad - k) // s + 1, filters] for kernel side k, stride s.

    Raises:
        ValueError: an argument is not one of those described.
    """

    def __init__(self, filters, kernel_size, strides=1, pad=0, pad_mode="zeros", **kwargs):
        super().__init__(filters, kernel_size, strides=strides, **kwargs)
        _check_convolution(self, pad)
        self.pad = pad
        self.pad_mode = checked_pad_mode(pad_mode)

    def call(self, x):
        pad = (self.pad, self.pad)
        if self.groups > 1 or self.dilation_rate != (1, 1):
            return super().call(pad_image(x, pad, self.pad_mode))
        # Not ops.convert_to_tensor, which leaves a variable what it is: gradients of our own are of tensors.
        kernel, bias = (v if v is None else tf.convert_to_tensor(v) for v in (self.kernel, self.bias))
        y = convolve(x, kernel, bias, self.strides, pad, self.pad_mode)
        return y if self.activation is None else self.activation(y)

    def compute_output_shape(self, input_shape):
        n, h, w, c = input_shape
        padded = (n, h and h + 2 * self.pad, w and w + 2 * self.pad, c)
        return super().compute_output_shape(padded)

    def get_config(self):
        return {**super().get_config(), "pad": self.pad, "pad_mode": self.pad_mode}


@keras.saving.register_keras_serializable(package="tfi2i")
class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """Transposed convolution with PyTorch's `padding` and `output_padding`.

    The full result has (H - 1) s + k rows for kernel side k and stride s. Of these, `pad` rows are cut at the top and
    `pad` - `output_pad` at the bottom; columns likewise. Keras' padding="same" cuts other rows of this result: for
    kernel 3 and stride 2 it equals pad 0 and output_pad -1.

    Args:
        filters: int, output channels.
        kernel_size: int or (height, width), of the kernel in pixels.
        strides: int or (rows, columns), factor by which the map grows.
        pad: int, 0 or more: rows cut at the top and bottom, columns cut on the left and right.
        output_pad: int, at most `pad`: how many fewer rows are cut at the bottom and columns on the right; a negative
            number cuts more.
        **kwargs: as for `keras.layers.Conv2DTranspose`; `padding` can only be "valid", `output_padding` only None, and
            channels are last.

    Call: [N, H, W, C] → [N, (H - 1) s + k - 2 pad + output_pad, (W - 1) s + k - 2 pad + output_pad, filters].

    Raises:
        ValueError: an argument is not one of those described.
    """

    def __init__(self, filters, kernel_size, strides=2, pad=0, output_pad=0, **kwargs):
        super().__init__(filters, kernel_size, strides=strides, **kwargs)
        _check_convolution(self, pad)
        if self.output_padding is not None:
            raise ValueError(f"output_padding={self.output_padding}: expected None; see `output_pad`")
        if output_pad > pad:
            raise ValueError(f"output_pad={output_pad}: expected at most pad={pad}")
        self.pad = pad
        self.output_pad = output_pad

    def call(self, x):
        n, h, w, _ = ops.shape(x)
        corner, shape = (0, self.pad, self.pad, 0), (n, self._length(h, 0), self._length(w, 1), self.filters)
        if self.dilation_rate == (1, 1) and _prefers_patches(x.dtype, self.kernel.shape, self.strides, x.shape[:3]):
            y = _biased(_transposed_with_patches(x, tf.convert_to_tensor(self.kernel), self.strides), self.bias)
            y = y if self.activation is None else self.activation(y)
        else:
            y = super().call(x)
        # Not y[:, pad:…]: the gradient of ops.slice is a padding, which is many times faster than that of indexing.
        return ops.slice(y, corner, shape)

    def compute_output_shape(self, input_shape):
        n, h, w, _ = input_shape
        return (n, h and self._length(h, 0), w and self._length(w, 1), self.filters)

    def _length(self, length, axis):
        kernel = self.dilation_rate[axis] * (self.kernel_size[axis] - 1) + 1
        return (length - 1) * self.strides[axis] - 2 * self.pad + kernel + self.output_pad

    def get_config(self):
        return {**super().get_config(), "pad": self.pad, "output_pad": self.output_pad}


def number_or_pair(value, name, minimum):
    """Turns an argument that is one number or two into two numbers.

    Args:
        value: int, or a tuple or list of two ints.
        name: str, the argument's name for the error message.
        minimum: int, the smallest value allowed.

    Returns:
        tuple of two ints.

    Raises:
        ValueError: `value` is anything else.
    """
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(number, int) and number >= minimum for number in pair):
        raise ValueError(f"{name}={value}: expected one or two integers, {minimum} or more")
    return pair


def checked_pad_mode(mode):
    """Returns `mode`; raises a ValueError unless it is "zeros" or "reflect"."""
    if mode not in ("zeros", "reflect"):
        raise ValueError(f"pad_mode='{mode}': expected 'zeros' or 'reflect'")
    return mode


def pad_image(x, pad, mode):
    """Pads the height and width of a map.

    Args:
        x: tensor [N, H, W, C].
        pad: two ints, pixels added above and on the left, and pixels added below and on the right.
        mode: "zeros" or "reflect".

    Returns:
        Tensor [N, H + sum(pad), W + sum(pad), C].

    Raises:
        ValueError: a map of known size is too small for its reflection.
    """
    if not any(pad):
        return x
    around = ((0, 0), pad, pad, (0, 0))
    if mode == "zeros":
        return ops.pad(x, around)
    n, h, w, c = x.shape
    # The pixel that each pixel of the padded map shows, counted row by row; a constant where the size is known.
    if None not in (h, w):
        if max(pad) >= min(h, w):
            raise ValueError(f"a map of {h}×{w} pixels has not enough of them to mirror {max(pad)} at an edge")
        pixels = h * w
        shown = np.pad(np.arange(pixels, dtype=np.int32).reshape(h, w), pad, "reflect")
    else:
        size = tf.shape(x)[1:3]
        pixels = tf.reduce_prod(size)
        shown = tf.pad(tf.reshape(tf.range(pixels), size), (pad, pad), "REFLECT")

    @with_gradient
    def reflect(x):
        def gradient(upstream):
            if None not in x.shape and _only_cpus():
                return _fold(upstream, shown, x.shape, pad)
            return tf.raw_ops.MirrorPadGrad(input=upstream, paddings=around, mode="REFLECT")

        # On a CPU, TensorFlow's MirrorPad takes ten times as long as this copying of whole pixels.
        return tf.gather(tf.reshape(x, (-1 if n is None else n, pixels, c)), shown, axis=1), gradient

    return reflect(x)


def _fold(upstream, shown, shape, pad):
    """The gradient of a reflection: every pixel at the edges is added to the one that it shows.

    On a CPU this takes less than half the time of TensorFlow's MirrorPadGrad. Not for GPUs: they would add in an order
    that changes from run to run.
    """
    n, h, w, c = shape
    at_edge = np.pad(np.zeros((h, w), bool), pad, constant_values=True)
    edges = tf.gather(tf.reshape(upstream, (n, -1, c)), np.flatnonzero(at_edge).astype(np.int32), axis=1)
    targets = np.arange(n, dtype=np.int32)[:, None] * (h * w) + shown[at_edge]
    inner = tf.slice(upstream, (0, pad[0], pad[0], 0), shape)
    total = tf.tensor_scatter_nd_add(tf.reshape(inner, (-1, c)), targets.reshape(-1, 1), tf.reshape(edges, (-1, c)))
    return tf.reshape(total, shape)


def _only_cpus():
    return not tf.config.list_logical_devices("GPU")


def convolve(x, kernel, bias=None, strides=(1, 1), pad=(0, 0), pad_mode="zeros"):
    """A convolution after padding, in the form that CPUs compute fastest.

    Args:
        x: float tensor [N, H, W, C].
        kernel: tensor [rows, columns, C, filters] of the same dtype.
        bias: tensor [filters] of the same dtype, or None.
        strides: two ints, steps between windows in pixels.
        pad, pad_mode: as `pad` and `mode` of `pad_image`.

    Returns:
        Tensor [N, (H + sum(pad) - rows) // s + 1, (W + sum(pad) - columns) // s + 1, filters] for stride s.

    Raises:
        ValueError: as `pad_image`.
    """
    rows, columns, channels, filters = kernel.shape
    if filters <= 4 and rows > 2 and channels >= 16 and strides == (1, 1) and _only_cpus():
        return _biased(_convolve_by_rows(pad_image(x, pad, pad_mode), kernel), bias)
    axes = [*zip(x.shape[1:3], (rows, columns), strides)]
    made = [length and (length + sum(pad) - window) // stride + 1 for length, window, stride in axes]
    if _prefers_patches(x.dtype, kernel.shape, strides, (x.shape[0], *made)):
        return _convolve_with_patches(pad_image(x, pad, pad_mode), kernel, bias, strides)
    if pad_mode == "zeros" and all(_is_same(length, window, stride, pad) for length, window, stride in axes):
        # No copy of the map, which the gradient of the kernel would keep.
        return _biased(ops.conv(x, kernel, strides, "same"), bias)
    return _biased(ops.conv(pad_image(x, pad, pad_mode), kernel, strides, "valid"), bias)


def _biased(x, bias=None):
    return x if bias is None else tf.nn.bias_add(x, bias)


def _is_same(length, window, stride, pad):
    """Whether "SAME" pads an axis of `length` pixels (None: unknown) by the two numbers `pad`."""
    if length is None:
        if stride > 1:  # the padding depends on the length
            return False
        length = window  # with stride 1 every length is padded alike
    windows = -(-length // stride)
    total = max((windows - 1) * stride + window - length, 0)
    return (total // 2, total - total // 2) == pad


def _convolve_by_rows(x, kernel):
    """`convolve` of stride 1 in two steps: with each row of the kernel by itself, and their sum.

    Processors compute 16 filters at a time, and take as long for three, which make an image. In the first step, seven
    rows of three filters are 21; in the second, a convolution with ones and zeros adds them up at their places.
    """
    rows, columns, channels, filters = kernel.shape
    by_row = ops.reshape(ops.transpose(kernel, (1, 2, 0, 3)), (1, columns, channels, rows * filters))
    y = ops.conv(x, by_row, 1, "valid")
    add = np.eye(rows * filters, dtype=np.float32).reshape(rows * filters, rows, filters).transpose(1, 0, 2)[:, None]
    return ops.conv(y, ops.cast(add, y.dtype), 1, "valid")


def _prefers_patches(dtype, shape, strides, positions):
    """Whether a training step takes the gradient of a kernel from patches, because a CPU computes that faster.

    That is so with many filters: in bfloat16, where oneDNN's gradient of a kernel takes 1.4 times as long as the
    convolution itself, and in other dtypes with a stride above 1, where it takes up to four times as long on large
    maps. With the 4×4 kernels of discriminators both take as long in float32.

    Args:
        dtype: `tf.DType` of the map and the kernel.
        shape: (rows, columns, C, filters) of a convolution's kernel. That of a transposed convolution is the kernel of
            the convolution whose gradient it is: its C are what the layer calls filters.
        strides: two ints.
        positions: (N, H', W') of the convolution's result, which has a patch at each pixel; None where unknown.
    """
    if not isinstance(open_scope(), StepScope) or not _only_cpus() or None in positions[1:]:
        return False
    rows, columns, channels, filters = shape
    half = dtype == tf.bfloat16
    faster = filters >= 128 and channels >= 64 and (half or max(strides) > 1) and rows * columns <= (16 if half else 9)
    patches = math.prod(n or 1 for n in positions) * rows * columns * channels * dtype.size
    return faster and patches <= _PATCHES


def _convolve_with_patches(x, kernel, bias, strides):
    """`convolve` without padding, with the kernel's gradient as one product of matrices."""

    # The bias is added in here: TensorFlow fuses it with the convolution only if nothing stands between them.
    @tf.custom_gradient
    def convolution(x, kernel, *bias):
        def gradient(upstream):
            # Wait for `upstream`. Otherwise the patches of all layers would be in memory at once.
            with tf.control_dependencies([upstream]):
                of_kernel = _kernel_gradient(x, upstream, kernel.shape, strides)
            of_x = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(x), strides, "VALID")
            of_bias = [tf.raw_ops.BiasAddGrad(out_backprop=upstream) for _ in bias]
            return of_x, of_kernel, *of_bias

        return _biased(tf.nn.conv2d(x, kernel, strides, "VALID"), *bias), gradient

    return convolution(x, kernel, *([] if bias is None else [bias]))


def _transposed_with_patches(x, kernel, strides):
    """A transposed convolution without padding, with the kernel's gradient as one product of matrices.

    It is the gradient of a convolution. So the gradient of `x` is that convolution, and the kernel has the gradient
    that it has there, with `x` and `upstream` in each other's place.

    Args:
        x: float tensor [N, H, W, C], H and W known.
        kernel: tensor [rows, columns, filters, C] of the same dtype.
        strides: two ints.
    """
    n, *size, _ = ops.shape(x)
    h, w = ((length - 1) * s + k for length, s, k in zip(size, strides, kernel.shape))

    @tf.custom_gradient
    def convolution(x, kernel):
        def gradient(upstream):
            # Where N is unknown, the gradient of a slice has forgotten the other sizes too.
            upstream = tf.ensure_shape(upstream, (None, h, w, kernel.shape[2]))
            of_x = tf.nn.conv2d(upstream, kernel, strides, "VALID")
            return of_x, _kernel_gradient(upstream, x, kernel.shape, strides)

        return tf.nn.conv2d_transpose(x, kernel, (n, h, w, kernel.shape[2]), strides, "VALID"), gradient

    return convolution(x, kernel)


def _kernel_gradient(x, upstream, shape, strides):
    """The gradient of the kernel of a convolution without padding: patches ᵀ times upstream.

    Args:
        x: what the convolution saw, [N, H, W, C], H and W known.
        upstream: the gradient of its result, [N, H', W', filters].
        shape: of the kernel, (rows, columns, C, filters).
        strides: two ints.
    """
    _, h, w, channels = x.shape
    rows, columns, _, filters = shape
    down = np.arange(0, h - rows + 1, strides[0], dtype=np.int32)[:, None, None, None] + np.arange(rows)[:, None]
    across = np.arange(0, w - columns + 1, strides[1], dtype=np.int32)[:, None, None] + np.arange(columns)
    # The pixels of every patch, counted row by row: [H', W', rows, columns]. Added up in the graph, where it would be a
    # constant of many MiB.
    seen = tf.constant(down * w, tf.int32) + tf.constant(across, tf.int32)
    patches = tf.reshape(tf.gather(tf.reshape(x, (-1, h * w, channels)), seen, axis=1), (-1, rows * columns * channels))
    return tf.reshape(tf.matmul(patches, tf.reshape(upstream, (-1, filters)), transpose_a=True), shape)


def _check_convolution(layer, pad):
    """Refuses what the convolutions of Keras can do and these cannot."""
    if layer.padding != "valid":
        raise ValueError(f"padding='{layer.padding}': expected 'valid'; `pad` is the number of pixels")
    if layer.data_format != "channels_last":
        raise ValueError(f"data_format='{layer.data_format}': expected 'channels_last'")
    if not isinstance(pad, int) or pad < 0:
        raise ValueError(f"pad={pad}: expected an integer, 0 or more")


def initializer(name, gain, seed):
    """Kernel initialiser of the published code, by name.

    Args:
        name: "normal": N(0, gain²). "truncated_normal": the same, drawn again beyond 2 gain. "xavier": Glorot's normal
            distribution with its variance times gain². "kaiming": He's normal distribution by fan in; `gain` has no
            effect. "orthogonal": an orthogonal matrix times gain. "torch": U(-1/√fan in, 1/√fan in), the default of
            torch.nn; `gain` has no effect.
        gain: float above 0, the `init_gain` flag.
        seed: int, different for every kernel.

    Returns:
        A `keras.initializers.Initializer`.

    Raises:
        ValueError: `name` is none of these.
    """
    if name == "normal":
        return keras.initializers.RandomNormal(stddev=gain, seed=seed)
    if name == "truncated_normal":
        return keras.initializers.TruncatedNormal(stddev=gain, seed=seed)
    if name == "xavier":
        return keras.initializers.VarianceScaling(gain**2, "fan_avg", "untruncated_normal", seed=seed)
    if name == "kaiming":
        return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal", seed=seed)
    if name == "orthogonal":
        return keras.initializers.Orthogonal(gain=gain, seed=seed)
    if name == "torch":
        return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed)
    raise ValueError(f"init='{name}': expected normal, truncated_normal, xavier, kaiming, orthogonal or torch")


def bias_initializer(init, fan_in, seed):
    """Initialiser of the bias that belongs to a kernel of `initializer(init, …)`.

    torch.nn's default draws biases from the distribution of its kernels; all other published code starts them at 0.

    Args:
        init: str, the name of the kernel's initialiser.
        fan_in: int, input values of each output: kernel height × kernel width × input channels.
        seed: int, the seed of the kernel's initialiser.

    Returns:
        A `keras.initializers.Initializer`, or "zeros".
    """
    if init != "torch":
        return "zeros"
    limit = fan_in**-0.5
    return keras.initializers.RandomUniform(-limit, limit, seed=seed + 500)
