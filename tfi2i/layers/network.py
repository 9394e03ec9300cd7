"""What the methods' networks have in common: how their layers are named, seeded, typed and built."""

import zlib

import keras

from tfi2i.layers.convolution import Conv2D, Conv2DTranspose, initializer


def derived_seed(seed, *names):
    """A seed of its own for what these names, one within the other, call: a pure function of all of them, 31 bits."""
    return zlib.crc32("/".join(map(str, (seed, *names))).encode()) & 0x7FFFFFFF


class Network(keras.layers.Layer):
    """A network that makes its layers itself, each with its own seed and the network's dtype policy.

    A subclass makes its layers in `__init__`, and sets `stack` to those that follow each other, for `build`.

    Args:
        seed: an int. Seeds of the layers derive from it, the network's name and their own names.
        init: initialiser of all kernels, see `tfi2i.layers.initializer`.
        init_gain: its scale.
    """

    def __init__(self, seed=0, init="normal", init_gain=0.02, **kwargs):
        super().__init__(**kwargs)
        self.seed, self.init, self.init_gain = seed, init, init_gain
        self._layer_count, self._last_name = 0, None

    def next_layer(self, name):
        """Arguments of the next layer: its numbered name and its dtype policy."""
        self._layer_count += 1
        self._last_name = f"{name}_{self._layer_count}"
        return {"dtype": self.dtype_policy, "name": self._last_name}

    def next_network(self, name):
        """Arguments of the next layer where it is a network itself: `next_layer`'s, its seed and the initialiser."""
        named = self.next_layer(name)
        return {"seed": self.layer_seed, "init": self.init, "init_gain": self.init_gain, **named}

    @property
    def layer_seed(self):
        """Seed of the layer that `next_layer` named last."""
        return derived_seed(self.seed, self.name, self._last_name)

    def conv(self, filters, kernel, strides=1, pad=0, pad_mode="zeros", **kwargs):
        """The next convolution, see `tfi2i.layers.Conv2D`; `pad` "same": zeros, as TensorFlow and Keras pad."""
        named = self.next_layer("conv")
        start = initializer(self.init, self.init_gain, self.layer_seed)
        if pad == "same":
            return keras.layers.Conv2D(
                filters, kernel, strides, padding="same", kernel_initializer=start, **named, **kwargs
            )
        return Conv2D(filters, kernel, strides, pad, pad_mode, kernel_initializer=start, **named, **kwargs)

    def conv_transpose(self, filters, kernel, strides=2, pad=0, output_pad=0, **kwargs):
        """The next transposed convolution, see `tfi2i.layers.Conv2DTranspose`."""
        named = self.next_layer("conv")
        start = initializer(self.init, self.init_gain, self.layer_seed)
        return Conv2DTranspose(filters, kernel, strides, pad, output_pad, kernel_initializer=start, **named, **kwargs)

    def dense(self, units, **kwargs):
        """The next dense layer."""
        named = self.next_layer("dense")
        start = initializer(self.init, self.init_gain, self.layer_seed)
        return keras.layers.Dense(units, kernel_initializer=start, **named, **kwargs)

    def build(self, input_shape):
        shape = input_shape
        for layer in self.stack:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self.built = True

    def compute_output_shape(self, input_shape):
        for layer in self.stack:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape
