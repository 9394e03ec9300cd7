"""Spectral normalisation as PyTorch computes it, in both of its forms.

`keras.layers.SpectralNormalization` overwrites the kernel and passes no gradient through σ. Here the raw kernel stays,
and its gradient comes through kernel and σ.
"""

import math

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfi2i.layers.convolution import (
    bias_initializer,
    checked_pad_mode,
    convolve,
    initializer,
    number_or_pair,
)


@keras.saving.register_keras_serializable(package="tfi2i")
class SpectralNormalization(keras.layers.Layer):
    """kernel / σ with σ = vᵀ W u, an estimate of the largest singular value of the kernel as a matrix W.

    The input is a kernel, not a batch; W has a row for each input of the kernel and a column for each output. The layer
    owns u and v. In training, one power iteration moves them before each use, and the gradient takes them as constants;
    otherwise they stay. The layer computes in float32, whatever its `dtype`.

    Args:
        seed: int, seeds the random directions at which u and v start.
        u_first: bool. False: v moves before u, as in torch.nn.utils.spectral_norm. True: u moves before v, as in
            torch.nn.utils.parametrizations.spectral_norm; call `warm_up` once with the kernel's first value.
        **kwargs: those of any Keras layer.

    Call: kernel float32 [..., outputs] → float32, the same shape.

    Source: Miyato et al., arXiv 1802.05957, algorithm 1.
    """

    def __init__(self, seed=0, u_first=False, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.seed = seed
        self.u_first = u_first

    def build(self, kernel_shape):
        self.u = self._direction("u", kernel_shape[-1], (self.seed, 0))
        self.v = self._direction("v", math.prod(kernel_shape[:-1]), (self.seed, 1))
        self.built = True

    def _direction(self, name, length, seed):
        vector = np.random.default_rng(seed).normal(size=length)
        return self.add_weight(
            name=name,
            shape=(length,),
            initializer=keras.initializers.Constant(vector / np.linalg.norm(vector)),
            trainable=False,
            aggregation="only_first_replica",
        )

    def call(self, kernel, training=False):
        # Both parts of this use's gradient meet here. Otherwise those of all uses would wait for each other in memory.
        kernel = tf.identity(kernel)
        w = ops.reshape(kernel, (-1, kernel.shape[-1]))
        u, v = ops.convert_to_tensor(self.u), ops.convert_to_tensor(self.v)
        if training:
            u, v = self._iterate(ops.stop_gradient(w), u, v)
            self.u.assign(u)
            self.v.assign(v)
        sigma = ops.sum(v * ops.matmul(w, u))
        # The gradient of kernel / sigma would compute three more arrays of the kernel's size.
        return kernel * (1 / sigma)

    def compute_output_shape(self, kernel_shape):
        return kernel_shape

    def warm_up(self, kernel, iterations=15):
        """Moves u and v towards the singular vectors of a kernel.

        Args:
            kernel: float32 tensor or variable, of the shape that the layer is built for.
            iterations: int, number of power iterations.
        """
        w = ops.reshape(ops.convert_to_tensor(kernel), (-1, kernel.shape[-1]))
        u, v = ops.convert_to_tensor(self.u), ops.convert_to_tensor(self.v)
        for _ in range(iterations):
            u, v = self._iterate(w, u, v)
        self.u.assign(u)
        self.v.assign(v)

    def _iterate(self, w, u, v):
        if self.u_first:
            u = _unit(ops.matmul(v, w))
            return u, _unit(ops.matmul(w, u))
        v = _unit(ops.matmul(w, u))
        return _unit(ops.matmul(v, w)), v

    def get_config(self):
        return {**super().get_config(), "seed": self.seed, "u_first": self.u_first}


@keras.saving.register_keras_serializable(package="tfi2i")
class SpectralConv2D(keras.layers.Layer):
    """Convolution with a spectrally normalised kernel, after padding.

    Args:
        filters: int, output channels.
        kernel_size: int or (height, width), of the kernel in pixels.
        strides: int or (rows, columns), step between windows in pixels.
        pad: int, pixels added on each of the four sides; or (pixels added above and on the left, pixels added below and
            on the right). With `pad_mode` "reflect" they must be fewer than the input's height and width.
        pad_mode: "reflect" (mirrored without repeating the edge) or "zeros".
        use_bias: bool, whether a bias is added.
        init, init_gain: initialiser of the kernel and its scale, see `tfi2i.layers.initializer`.
        seed: int, seeds kernel, bias, u and v.
        u_first: bool, the order of `SpectralNormalization`. True also warms u and v up when the layer is built.
        **kwargs: those of any Keras layer.

    Call: [N, H, W, C] → [N, (H + sum(pad) - k) // s + 1, (W + sum(pad) - k) // s + 1, filters] for kernel side k and
    stride s.

    Raises:
        ValueError: an argument is not one of those described.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        pad=(0, 0),
        pad_mode="reflect",
        use_bias=True,
        init="normal",
        init_gain=0.02,
        seed=0,
        u_first=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = number_or_pair(kernel_size, "kernel_size", minimum=1)
        self.strides = number_or_pair(strides, "strides", minimum=1)
        self.pad = number_or_pair(pad, "pad", minimum=0)
        self.pad_mode = checked_pad_mode(pad_mode)
        self.use_bias = use_bias
        self.init = init
        self.init_gain = init_gain
        self.seed = seed
        self.u_first = u_first
        self.spectral = SpectralNormalization(seed, u_first, name="spectral")

    def build(self, input_shape):
        kernel_shape = (*self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(
            name="kernel",
            shape=kernel_shape,
            initializer=initializer(self.init, self.init_gain, self.seed),
            # In mixed precision, σ is that of the float32 kernel.
            autocast=False,
        )
        self.bias = None
        if self.use_bias:
            bias = bias_initializer(self.init, math.prod(kernel_shape[:3]), self.seed)
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer=bias)
        self.spectral.build(kernel_shape)
        if self.u_first:
            self.spectral.warm_up(self.kernel)
        self.built = True

    def call(self, x, training=False):
        kernel = ops.cast(self.spectral(ops.convert_to_tensor(self.kernel), training=training), self.compute_dtype)
        bias = None if self.bias is None else tf.convert_to_tensor(self.bias)
        return convolve(x, kernel, bias, self.strides, self.pad, self.pad_mode)

    def compute_output_shape(self, input_shape):
        n, *sides, _ = input_shape
        padded = [side and side + sum(self.pad) for side in sides]
        windows = [p and (p - k) // s + 1 for p, k, s in zip(padded, self.kernel_size, self.strides)]
        return (n, *windows, self.filters)

    def get_config(self):
        names = (
            "filters",
            "kernel_size",
            "strides",
            "pad",
            "pad_mode",
            "use_bias",
            "init",
            "init_gain",
            "seed",
            "u_first",
        )
        return {**super().get_config(), **{n: getattr(self, n) for n in names}}


def _unit(x):
    return x / ops.maximum(ops.norm(x), 1e-12)
