"""A student: a small network that learns one direction of a trained model, its teacher, from the teacher's pictures.

It is made for phones. Nothing in it normalises, because norms are what 8-bit integers and the compilers of NPUs hold
worst; nothing is larger than half the picture; and it is built from convolutions, additions and moves of memory alone.
At the end of its training weights and maps are rounded to 8 bits.

Names: `generator_a2b` is the student's network, `l1_b` and `l2_b` compare its translation with the teacher's, `gan_a2b`
and `discriminator_b` are the two sides of the adversarial loss. Its discriminator is its own and tells the student's
pictures from the teacher's. It is not the teacher's discriminator: a converted teacher often has none, and those of the
methods differ in what they take.

Sources: distillation of a generator by the difference of its pictures, as in GAN Compression (Li et al., arXiv
2003.08936, equation 2); depthwise separable convolutions (Howard et al., arXiv 1704.04861); branches that begin small
instead of norms (Zhang et al., arXiv 1901.09321).
"""

import keras
import tensorflow as tf
from keras import ops

from tfi2i import layers
from tfi2i.methods.losses import adversarial_loss, l1
from tfi2i.methods.sizes import Sizes
from tfi2i.methods.student import config
from tfi2i.methods.translator import Translator

# Largest random changes of a picture at --affine=1: radians, logarithm of the factor, part of the side.
_TURN, _SCALING, _SHIFT = 0.26, 0.18, 0.1


class _Network(layers.Network):
    """Convolutions that can be rounded to 8 bits, padded by zeros as "same", drawn from N(0, gain / fan in)."""

    def convolution(self, filters, kernel, strides=1, activation=None, gain=1.0):
        named = self.next_layer("conv")
        start = keras.initializers.VarianceScaling(gain, "fan_in", "untruncated_normal", seed=self.layer_seed)
        return layers.QuantizableConv2D(
            filters, kernel, strides, "same", activation=activation, kernel_initializer=start, **named
        )

    def depthwise(self, kernel=3):
        named = self.next_layer("depthwise")
        # Keras would count all channels as inputs of each.
        start = keras.initializers.RandomNormal(stddev=1 / kernel, seed=self.layer_seed)
        return layers.QuantizableDepthwiseConv2D(kernel, padding="same", depthwise_initializer=start, **named)


class Block(_Network):
    """relu(x + conv1(dw3(relu(conv1(dw3(x)))))), all of `width` channels; of `blocks` the sum must not grow."""

    def __init__(self, width, blocks, **kwargs):
        super().__init__(**kwargs)
        self.depthwise_1 = self.depthwise()
        self.conv_1 = self.convolution(width, 1, activation="relu", gain=2.0)
        self.depthwise_2 = self.depthwise()
        self.conv_2 = self.convolution(width, 1, gain=2.0 / blocks)
        self.stack = [self.depthwise_1, self.conv_1, self.depthwise_2, self.conv_2]

    def call(self, x, quantized=False):
        y = x
        for layer in self.stack:
            y = layer(y, quantized=quantized)
        y = ops.relu(x + y)
        return layers.fake_quantize(y, axis=(1, 2, 3)) if quantized else y


class Generator(_Network):
    """c5s2-h, c3s2-w, `blocks` × Bw, up to h, + c5s2-h's map, up: [N, H, W, C] → [N, H, W, channels].

    H and W are multiples of 4. h is a third of the width w. "up" is a convolution to four times the channels, which
    become twice the rows and columns.
    """

    def __init__(self, channels, width, blocks, **kwargs):
        super().__init__(**kwargs)
        self.channels, self.half = channels, half_width(width)
        self.down_1 = self.convolution(self.half, 5, 2, "relu", gain=2.0)
        self.down_2 = self.convolution(width, 3, 2, "relu", gain=2.0)
        self.blocks = [Block(width, blocks, **self.next_network("block")) for _ in range(blocks)]
        self.up_1 = self.convolution(4 * self.half, 1)
        self.up_2 = self.convolution(4 * channels, 3, gain=0.25)
        self.stack = [self.down_1, self.down_2, *self.blocks, self.up_1]

    def build(self, input_shape):
        super().build(input_shape)
        self.up_2.build((None, None, None, self.half))

    def call(self, x, training=False, quantized=False):
        outer = self.down_1(x, quantized=quantized)
        y = self.down_2(outer, quantized=quantized)
        for block in self.blocks:
            y = layers.remat(block, y, training=training, quantized=quantized)
        y = self.up_1(y, quantized=quantized)
        y = ops.relu(layers.depth_to_space(y) + outer)
        y = self.up_2(layers.fake_quantize(y, axis=(1, 2, 3)) if quantized else y, quantized=quantized)
        y = ops.cast(y, "float32")
        clipped = ops.clip(y, -1.0, 1.0)
        # While it learns, the gradient leads back from outside, where that of clip alone is 0.
        return layers.depth_to_space(y + ops.stop_gradient(clipped - y) if training else clipped)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.channels)


class Discriminator(layers.Network):
    """c4s2-w, c4s2-2w, c4s2-4w, c3s1-1, spectrally normalised: [N, H, W, C] → logits [N, H/8, W/8, 1]."""

    def __init__(self, width, **kwargs):
        super().__init__(init="kaiming", **kwargs)
        sizes = [(width, 4, 2), (2 * width, 4, 2), (4 * width, 4, 2), (1, 3, 1)]
        self.stack = []
        for filters, kernel, strides in sizes:
            named = self.next_layer("conv")
            self.stack.append(
                layers.SpectralConv2D(filters, kernel, strides, (1, 1), "zeros", seed=self.layer_seed, **named)
            )

    def call(self, x):
        *inner, last = self.stack
        for layer in inner:
            x = layers.leaky_relu(layer(x, training=True), 0.2)
        return ops.cast(last(x, training=True), "float32")


def half_width(width):
    """Channels at half the size of a generator of that width: a third of it, in whole eights."""
    return -(-width // 24) * 8


@keras.saving.register_keras_serializable(package="tfi2i")
class Student(Translator):
    """One generator that learns what a teacher, any trained `Translator`, makes of pictures.

    Hyper-parameters: `config.Student`. It translates without its teacher; to learn it needs `learn_from`.
    """

    config_class = config.Student
    averages_warm_up = True
    side_by_side = False
    sizes = Sizes(multiple=4, minimum=8, crop_minimum=32)
    advice = {
        "blank": "start again with a lower --learning_rate or --lambda_gan",
        "silent discriminator": "try a lower --lambda_gan or --discriminator_width",
    }

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="student", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c = self.config
        if c.student_width is None or c.student_blocks is None:
            raise ValueError("a student needs student_width and student_blocks: `tfi2i distill` finds them")
        named = {"seed": seed, "dtype": self.dtype_policy, "name": f"generator_{c.direction}"}
        self.generator = Generator(self.channels_of(c.direction[-1]), c.student_width, c.student_blocks, **named)
        self.discriminator = None
        if c.lambda_gan:
            named["name"] = f"discriminator_{c.direction[-1]}"
            self.discriminator = Discriminator(c.discriminator_width, **named)
        else:
            self.roles = ("generator",)
        self._taught = None

    @property
    def networks(self):
        return {n.name: n for n in (self.generator, self.discriminator) if n is not None}

    @property
    def generators(self):
        return {self.config.direction: self.generator}

    def learn_from(self, teacher):
        """Sets whose translations it learns from.

        Args:
            teacher: a built `Translator` that has this direction, with the channels of both domains.
        """
        direction, (low, high) = self.config.direction, teacher.value_range

        def taught(x):
            y = teacher.generate((x + 1) * ((high - low) / 2) + low, direction)
            return (tf.cast(y, tf.float32) - low) * (2 / (high - low)) - 1

        self._taught = taught  # a closure, where Keras looks for no weights

    def pictures(self, a, b):
        """Those of the domain translated from alone: the other one may stand for it, see `config.Pictures`."""
        source, to = (letter.upper() for letter in self.config.direction.split("2"))
        x = {"A": a, "B": b}[source]
        return {source: x, f"{source} to {to}": self.generate(x, self.config.direction)}

    def stage(self, step):
        """ "quantized" in the last part of the duration, where that is known."""
        if self.total_steps is None or step < (1 - self.config.quantized_fraction) * self.total_steps:
            return None
        return "quantized"

    def learn(self, a, b, indices, stage=None):
        if self._taught is None:
            raise ValueError("a student learns from a teacher: call learn_from(teacher) before")
        x = self.varied({"a": a, "b": b}[self.config.direction[0]], indices)
        taught = tf.stop_gradient(self._taught(x))
        phase = self.quantized_phase if stage == "quantized" else self.generator_phase
        losses, made = self.phase(phase, "generator", x=x, taught=taught)
        if self.discriminator:
            losses |= self.phase(self.discriminator_phase, "discriminator", taught=taught, **made)[0]
        return losses

    def generator_phase(self, x, taught, quantized=False):
        """λ_l1 ‖S(x) - T(x)‖₁ + λ_l2 ‖S(x) - T(x)‖₂² + λ_gan L(D(S(x)), 1); S is the student, T the teacher."""
        c, to = self.config, self.config.direction[-1]
        y = self.generator(x, training=True, quantized=quantized)
        losses = {f"l1_{to}": c.lambda_l1 * l1(y, taught), f"l2_{to}": c.lambda_l2 * ops.mean(ops.square(y - taught))}
        if self.discriminator:
            losses[f"gan_{c.direction}"] = c.lambda_gan * adversarial_loss(self.discriminator(y), True, "lsgan")
        return losses, {"fake": y}

    def quantized_phase(self, x, taught):
        """The same, rounded to 8 bits."""
        return self.generator_phase(x, taught, quantized=True)

    def discriminator_phase(self, taught, fake):
        """½ (L(D(T(x)), 1) + L(D(S(x)), 0))."""
        judged_real, judged_fake = ops.split(self.discriminator(ops.concatenate([taught, fake])), 2)
        loss = adversarial_loss(judged_real, True, "lsgan") + adversarial_loss(judged_fake, False, "lsgan")
        return {f"discriminator_{self.config.direction[-1]}": 0.5 * loss}, {}

    def varied(self, x, indices):
        """Pictures turned, scaled and shifted, mirrored at the edges, and with exchanged channels.

        Args:
            x: float32 [N, H, W, C].
            indices: int32 [N], as of `learn`.
        """
        c, (n, height, width, channels) = self.config, x.shape

        def draws(purpose, shape):
            return layers.uniform(layers.sample_seeds(self.seed, self.step.value, indices, purpose), shape)

        if c.affine:
            turn, scaling, down, right = tf.unstack(c.affine * (2 * draws("affine", (4,)) - 1), axis=1)
            cosine, sine = (f(_TURN * turn) * tf.exp(_SCALING * scaling) for f in (tf.cos, tf.sin))
            # The centre of the picture stays where it is, but for the shift: output (x, y) shows input (x', y').
            middle_x, middle_y, zero = (width - 1) / 2, (height - 1) / 2, tf.zeros((n,))
            shift_x = middle_x - cosine * middle_x + sine * middle_y + _SHIFT * width * right
            shift_y = middle_y - sine * middle_x - cosine * middle_y + _SHIFT * height * down
            rows = tf.stack([cosine, -sine, shift_x, sine, cosine, shift_y, zero, zero], axis=1)
            x = tf.raw_ops.ImageProjectiveTransformV3(
                images=x, transforms=rows, output_shape=(height, width), fill_value=0.0, interpolation="BILINEAR",
                fill_mode="REFLECT",
            )  # fmt: skip
        if c.permute_colours and channels == 3:
            chosen = draws("colours", (4,))
            order = tf.argsort(tf.where(chosen[:, :1] < c.permute_colours, chosen[:, 1:], 0.0), axis=1, stable=True)
            x = tf.matmul(x, tf.one_hot(order, 3, axis=1)[:, None])
        return x
