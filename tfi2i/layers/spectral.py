"""Spectral normalisation as PyTorch computes it, in both of its forms.

Keras' own overwrites the kernel and lets no gradient through σ; here the raw kernel is kept and learns through both.
"""

import keras
import numpy as np
from keras import ops

from tfi2i.layers.convolution import bias_initializer, initializer


@keras.saving.register_keras_serializable(package="tfi2i")
class SpectralNormalization(keras.layers.Layer):
    """kernel / σ with σ = vᵀ W u, an estimate of the largest singular value of W, the kernel as (inputs, outputs).

    In training, one power iteration moves u and v before each use; the gradient takes them as constants. Otherwise
    they are used as they are.

    Call: a float32 kernel [..., outputs]. Always computes in float32.

    Args:
        seed: seeds the start of u and v, random directions.
        u_first: False: v moves before u, as torch.nn.utils.spectral_norm has it. True: u moves before v, and `warm_up`
            is to be called once, as torch.nn.utils.parametrizations.spectral_norm has it.

    Source: Miyato et al., arXiv 1802.05957, algorithm 1.
    """

    def __init__(self, seed=0, u_first=False, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.seed = seed
        self.u_first = u_first

    def build(self, kernel_shape):
        sides = {"u": kernel_shape[-1], "v": int(np.prod(kernel_shape[:-1]))}
        for i, (name, length) in enumerate(sides.items()):
            direction = np.random.default_rng((self.seed, i)).normal(size=length)
            start = _fixed(direction / np.linalg.norm(direction))
            vector = self.add_weight(
                shape=(length,), initializer=start, trainable=False, name=name, aggregation="only_first_replica"
            )
            setattr(self, name, vector)
        self.built = True

    def call(self, kernel, training=False):
        w = ops.reshape(kernel, (-1, kernel.shape[-1]))
        u, v = ops.convert_to_tensor(self.u), ops.convert_to_tensor(self.v)
        if training:
            u, v = self._iterate(ops.stop_gradient(w), u, v)
            self.u.assign(u)
            self.v.assign(v)
        sigma = ops.sum(v * ops.matmul(w, u))
        return kernel / sigma

    def warm_up(self, kernel, iterations=15):
        """Moves u and v towards the singular vectors of the first kernel."""
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
        filters: output channels.
        kernel_size: side of the square kernel, pixels.
        strides: step between windows, pixels.
        pad: (pixels added above and on the left, below and on the right).
        pad_mode: "reflect" (mirrored without repeating the edge) or "zeros".
        use_bias: whether a bias is added.
        init, init_gain: see `tfi2i.layers.initializer`.
        seed: seeds kernel, bias, u and v.
        u_first: the order of `SpectralNormalization`; True also warms up.

    Shapes: [N, H, W, C] becomes [N, (H + sum(pad) - k) // s + 1, …, filters].
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
        self.kernel_size = kernel_size
        self.strides = strides
        self.pad = tuple(pad)
        self.pad_mode = pad_mode
        self.use_bias = use_bias
        self.init = init
        self.init_gain = init_gain
        self.seed = seed
        self.u_first = u_first
        self.spectral = SpectralNormalization(seed, u_first, name="spectral")

    def build(self, input_shape):
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        start = initializer(self.init, self.init_gain, self.seed)
        # Not cast in mixed precision: σ is of the float32 kernel.
        self.kernel = self.add_weight(shape=shape, initializer=start, name="kernel", autocast=False)
        start = bias_initializer(self.init, int(np.prod(shape[:3])), self.seed)
        self.bias = self.add_weight(shape=shape[3:], initializer=start, name="bias") if self.use_bias else None
        self.spectral.build(shape)
        if self.u_first:
            self.spectral.warm_up(self.kernel)
        self.built = True

    def call(self, x, training=False):
        kernel = ops.cast(self.spectral(ops.convert_to_tensor(self.kernel), training=training), self.compute_dtype)
        mode = "constant" if self.pad_mode == "zeros" else "reflect"
        y = ops.conv(ops.pad(x, ((0, 0), self.pad, self.pad, (0, 0)), mode=mode), kernel, self.strides, "valid")
        return y if self.bias is None else y + self.bias

    def compute_output_shape(self, input_shape):
        n, h, w, _ = input_shape
        sides = (side and (side + sum(self.pad) - self.kernel_size) // self.strides + 1 for side in (h, w))
        return (n, *sides, self.filters)

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


def _fixed(values):
    return lambda shape, dtype=None: ops.convert_to_tensor(values, dtype)
