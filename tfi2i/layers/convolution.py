"""Convolutions padded as PyTorch pads them; TF's 'same' puts a stride-2 kernel one pixel off (see Conv2D)."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfi2i")
class Conv2D(keras.layers.Conv2D):
    """Convolution after padding `pad` pixels on all four sides.

    Keras' padding="same" pads (0, 1) for an even input, kernel 3 and stride 2, where PyTorch pads (1, 1): the whole
    map is shifted by a pixel and published weights give other pictures.

    Args:
        filters: output channels.
        kernel_size: side of the square kernel, pixels.
        strides: step between windows, pixels.
        pad: pixels added on each side; fewer than the input's sides when `pad_mode` is "reflect".
        pad_mode: "zeros" or "reflect" (mirrored without repeating the edge).

    Shapes: [N, H, W, C] becomes [N, (H + 2 pad - k) // s + 1, (W + 2 pad - k) // s + 1, filters].
    """

    def __init__(self, filters, kernel_size, strides=1, pad=0, pad_mode="zeros", **kwargs):
        kwargs.pop("padding", None)
        super().__init__(filters, kernel_size, strides=strides, padding="valid", **kwargs)
        if pad_mode not in ("zeros", "reflect"):
            raise ValueError(f"pad_mode='{pad_mode}': expected 'zeros' or 'reflect'")
        self.pad = pad
        self.pad_mode = pad_mode

    def call(self, x):
        if self.pad:
            mode = "constant" if self.pad_mode == "zeros" else "reflect"
            x = ops.pad(x, ((0, 0), (self.pad, self.pad), (self.pad, self.pad), (0, 0)), mode=mode)
        return super().call(x)

    def compute_output_shape(self, input_shape):
        n, h, w, c = input_shape
        grow = 2 * self.pad
        return super().compute_output_shape((n, h and h + grow, w and w + grow, c))

    def get_config(self):
        return {**super().get_config(), "pad": self.pad, "pad_mode": self.pad_mode}


@keras.saving.register_keras_serializable(package="tfi2i")
class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """Transposed convolution with PyTorch's `padding` and `output_padding`.

    Computed without padding and cut to [pad : pad + H_out], H_out = (H - 1) s - 2 pad + k + output_pad; Keras' own
    "same" keeps other rows of the same result.

    Args:
        filters: output channels.
        kernel_size: side of the square kernel, pixels.
        strides: factor of enlargement.
        pad: rows and columns cut on each side.
        output_pad: rows and columns of the far side that are kept all the same; negative: cut beyond `pad`. Keras'
            "same" of kernel 3 and stride 2 is pad 0 and output_pad -1.
    """

    def __init__(self, filters, kernel_size, strides=2, pad=0, output_pad=0, **kwargs):
        kwargs.pop("padding", None)
        super().__init__(filters, kernel_size, strides=strides, padding="valid", **kwargs)
        self.pad = pad
        self.output_pad = output_pad

    def call(self, x):
        n, h, w, _ = ops.shape(x)
        start, shape = (0, self.pad, self.pad, 0), (n, self._length(h, 0), self._length(w, 1), self.filters)
        # Not y[:, pad:…]: its gradient is many times slower than a padding, which ops.slice has.
        return ops.slice(super().call(x), start, shape)

    def compute_output_shape(self, input_shape):
        n, h, w, _ = input_shape
        return (n, h and self._length(h, 0), w and self._length(w, 1), self.filters)

    def _length(self, length, axis):
        return (length - 1) * self.strides[axis] - 2 * self.pad + self.kernel_size[axis] + self.output_pad

    def get_config(self):
        return {**super().get_config(), "pad": self.pad, "output_pad": self.output_pad}


def initializer(name, gain, seed):
    """Kernel initialiser of the published code, by name.

    Args:
        name: "normal" N(0, gain), "xavier" (Glorot normal, variance times gain²), "kaiming" (He normal, fan in, gain
            ignored), "orthogonal" (times gain) or "torch" (torch.nn's default, U(±1/√fan in), gain ignored).
        gain: the `init_gain` flag.
        seed: an int, different for every kernel.
    """
    if name == "normal":
        return keras.initializers.RandomNormal(stddev=gain, seed=seed)
    if name == "xavier":
        return keras.initializers.VarianceScaling(gain**2, "fan_avg", "untruncated_normal", seed=seed)
    if name == "kaiming":
        return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal", seed=seed)
    if name == "orthogonal":
        return keras.initializers.Orthogonal(gain=gain, seed=seed)
    if name == "torch":
        return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed)
    raise ValueError(f"init='{name}': expected normal, xavier, kaiming, orthogonal or torch")


def bias_initializer(init, fan_in, seed):
    """Initialiser of the biases that go with kernels of `initializer(init, …)`.

    torch.nn's default draws them as it draws kernels, all other published codes start at 0.
    """
    if init != "torch":
        return "zeros"
    return keras.initializers.RandomUniform(-(fan_in**-0.5), fan_in**-0.5, seed=seed + 500)
