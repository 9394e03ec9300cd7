"""Domain adaptation with UNIT: Liu, Breuel, Kautz, arXiv 1703.00848, section 4; layers as in the authors' code.

Digits of two domains share a code: A, the source, has labels, B, the target, has none. A classifier on the features of
the two coupled discriminators learns from A and is used on B; that both domains' features mean the same comes from the
layers that they share, from judging translations, and from comparing the features of a translated pair.

The code is the branch version_02 (SVHN to MNIST); for MNIST and USPS none was released, and the same networks serve
here with one channel each: CoGAN's smaller ones, which the paper's table compares with, belong to another method.

`equal_start`, which is not theirs, gives B's own layers the first weights of A's: a translation then starts as a
reconstruction, and both domains' features as one, which narrow networks and short runs need.

Departures: the distance between the features of a pair is the paper's L1 (`feature_distance="l2"`: the code's squared
L2), under the code's weight, since the paper names none; as in both, only the discriminators learn from it. A short
last batch does not occur.
"""

import functools

import keras
import tensorflow as tf
from keras import ops

from tfi2i import layers
from tfi2i.config import UserError
from tfi2i.data.digits import CLASSES
from tfi2i.methods.digits import DigitClassifier
from tfi2i.methods.losses import cross_entropy
from tfi2i.methods.sizes import Sizes
from tfi2i.methods.unit import config

SIDE = config.Digits.side
_DROPOUT = (0.1, 0.3, 0.5, 0.5)

# ---------------------------------------------------------------------------------------------------------------------
# Networks


class Block(layers.Network):
    """(Transposed) convolution, batch norm with an offset and no factor, LeakyReLU 0.01.

    The offset is the code's bias after a batch norm without parameters.
    """

    def __init__(self, filters, kernel, strides=1, pad=0, transposed=False, **kwargs):
        super().__init__(**kwargs)
        convolution = self.conv_transpose if transposed else self.conv
        self.convolution = convolution(filters, kernel, strides, pad)
        named = self.next_layer("norm")
        self.norm = layers.BatchNormalization(scale=False, offset=0.002, seed=self.layer_seed, **named)
        self.stack = [self.convolution, self.norm]

    def call(self, x, training=False):
        return layers.leaky_relu(self.norm(self.convolution(x), training=training), 0.01)


class Generator(layers.Network):
    """Two coupled variational autoencoders: [N, 32, 32, C] ↔ a code [N, 1, 1, 8 `width`].

    Only the first layer of the encoder and the last two of the decoder are each domain's own.

    Args:
        channels: (of domain A, of domain B).
        width: channels after the first layer.
        coordinates: give the encoders each pixel's row and column, (i - 16) / 16, behind the colours.
    """

    def __init__(self, channels, width, coordinates, **kwargs):
        super().__init__(**kwargs)
        self.channels, self.coordinates = channels, coordinates

        def block(filters, *args, **kwargs):
            return Block(filters, *args, **self.next_network("block"), **kwargs)

        def code(filters):
            layer = self.conv(filters, 1)
            seed = layers.derived_seed(self.layer_seed, "bias")
            layer.bias_initializer = keras.initializers.RandomNormal(0.0, 0.002, seed=seed)
            return layer

        up = functools.partial(block, transposed=True)
        self.enter_a, self.enter_b = block(width, 5, 2, 2), block(width, 5, 2, 2)
        self.encoder = [block(width * 2, 5, 2, 2), block(width * 4, 8), block(width * 8, 1)]
        self.mean, self.deviation = code(width * 8), code(width * 8)
        self.decoder = [up(width * 8, 4, 2), up(width * 4, 4, 2, 1), up(width * 2, 4, 2, 1)]
        self.leave_a, self.leave_b = up(width, 4, 2, 1), up(width, 4, 2, 1)
        self.paint_a, self.paint_b = (self.conv_transpose(c, 1, 1) for c in channels)

    def build(self, input_shape):
        width = self.enter_a.convolution.filters
        extra = 2 if self.coordinates else 0
        for enter, channels in zip((self.enter_a, self.enter_b), self.channels):
            enter.build((None, SIDE, SIDE, channels + extra))
        shape = (None, SIDE // 2, SIDE // 2, width)
        for block in self.encoder:
            block.build(shape)
            shape = block.compute_output_shape(shape)
        self.mean.build(shape)
        self.deviation.build(shape)
        for block in self.decoder:
            block.build(shape)
            shape = block.compute_output_shape(shape)
        for leave, paint in ((self.leave_a, self.paint_a), (self.leave_b, self.paint_b)):
            leave.build(shape)
            paint.build((None, SIDE, SIDE, width))
        self.built = True

    def encode(self, a=None, b=None, training=False):
        """Mean and standard deviation of the code, float32 [N, 1, 1, C]; of A before B, where both are given."""
        given = [(self.enter_a, a), (self.enter_b, b)]
        x = _joined([enter(self.locate(x), training=training) for enter, x in given if x is not None])
        for block in self.encoder:
            x = layers.remat(block, x, training=training)
        return ops.cast(self.mean(x), "float32"), ops.softplus(ops.cast(self.deviation(x), "float32"))

    def decode(self, z, domains="ab", training=False):
        """The images of the code `z` in each of the `domains`: a list of float32 [N, 32, 32, C] in [-1, 1]."""
        for block in self.decoder:
            z = layers.remat(block, z, training=training)
        painters = {"a": (self.leave_a, self.paint_a), "b": (self.leave_b, self.paint_b)}
        return [
            ops.tanh(ops.cast(paint(leave(z, training=training)), "float32"))
            for leave, paint in map(painters.get, domains)
        ]

    def locate(self, x):
        if not self.coordinates:
            return x
        line = (ops.arange(SIDE, dtype="float32") - SIDE // 2) / (SIDE // 2)
        row, column = ops.meshgrid(line, line, indexing="ij")
        place = ops.broadcast_to(ops.stack([row, column], axis=-1), (ops.shape(x)[0], SIDE, SIDE, 2))
        return ops.concatenate([x, ops.cast(place, x.dtype)], axis=-1)


class Discriminator(layers.Network):
    """Two coupled discriminators with the classifier on top: [N, 32, 32, C] → 2 logits (1 is real), or 10.

    Only the first layer is each domain's own.

    Args:
        channels: (of domain A, of domain B).
        width: channels after the first layer.
    """

    def __init__(self, channels, width, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels

        def conv(filters, kernel, pad=0):
            named = self.next_layer("conv")
            # torch's xavier_uniform_ with the gain √2 of a ReLU.
            start = keras.initializers.VarianceScaling(2.0, "fan_avg", "uniform", seed=self.layer_seed)
            bias = keras.initializers.Constant(0.1)
            return layers.Conv2D(filters, kernel, pad=pad, kernel_initializer=start, bias_initializer=bias, **named)

        self.enter_a, self.enter_b = conv(width, 5, 2), conv(width, 5, 2)
        self.shared = [conv(width * m, 5, 2) for m in (2, 4, 8)]
        self.judge = conv(2, 2)
        self.classifier = conv(CLASSES, 2)

    def build(self, input_shape):
        width = self.enter_a.filters
        for enter, channels in zip((self.enter_a, self.enter_b), self.channels):
            enter.build((None, SIDE, SIDE, channels))
        for layer, factor in zip(self.shared, (1, 2, 4)):
            layer.build((None, None, None, width * factor))
        for layer in (self.judge, self.classifier):
            layer.build((None, 2, 2, width * 8))
        self.built = True

    def features(self, a=None, b=None, drop=None):
        """The top features [N, 2, 2, 8 `width`]; of A before B, where both are given.

        Args:
            a: images of domain A; `b` of domain B.
            drop: function of (features, rate, number of the layer) that drops some, or None.
        """

        def below(layer, x):
            return ops.max_pool(ops.relu(layer(x)), 2, 2)

        x = _joined([below(enter, x) for enter, x in ((self.enter_a, a), (self.enter_b, b)) if x is not None])
        x = drop(x, _DROPOUT[0], 0) if drop else x
        for i, layer in enumerate(self.shared, 1):
            x = below(layer, x)
            x = drop(x, _DROPOUT[i], i) if drop else x
        return x

    def real(self, features):
        """Logits [N, 2] of fake and real."""
        return ops.cast(self.judge(features)[:, 0, 0], "float32")

    def digit(self, features):
        """Logits [N, 10] of the digits."""
        return ops.cast(self.classifier(features)[:, 0, 0], "float32")


def _joined(parts):
    return parts[0] if len(parts) == 1 else ops.concatenate(parts)


# ---------------------------------------------------------------------------------------------------------------------
# Losses


def divergence(mean, deviation):
    """Mean over samples of Σ (μ² + σ² - log σ²): the code's form, without ½ and -1, which is 2 KL + a constant."""
    variance = ops.square(deviation)
    return ops.mean(ops.sum(ops.square(mean) + variance - ops.log(variance + 1e-20), axis=(1, 2, 3)))


def distance(x, y, kind="l2"):
    """Mean over samples of Σ |x - y| (l1) or Σ (x - y)² (l2)."""
    difference = ops.cast(x, "float32") - ops.cast(y, "float32")
    each = ops.abs(difference) if kind == "l1" else ops.square(difference)
    return ops.mean(ops.sum(each, axis=(1, 2, 3)))


# ---------------------------------------------------------------------------------------------------------------------
# The model


@keras.saving.register_keras_serializable(package="tfi2i")
class Adaptation(DigitClassifier):
    """Coupled autoencoders and discriminators of digits, 32×32. Hyper-parameters: `config.Adaptation`.

    Learns from batches (A, B, labels of A); `classify` gives the digits of either domain.

    With `baseline` there is only the classifier, through domain A's own first layer for both domains: B's own would
    never have learned. B's images then need the channels of A.
    """

    config_class = config.Adaptation
    sizes = Sizes(fixed=(SIDE, SIDE))

    def __init__(self, channels_a=1, channels_b=1, seed=0, name="adaptation", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c, channels = self.config, (channels_a, channels_b)
        if c.equal_start and channels_a != channels_b:
            raise UserError(
                f"--equal_start copies layers, but the source has {channels_a} and the target {channels_b} channels: "
                "leave it out, or make --channels_a and --channels_b equal"
            )
        named = {"dtype": self.dtype_policy}
        if not c.baseline:
            self.generator = Generator(channels, c.generator_width, c.coordinates, seed=seed, name="generator", **named)
        self.discriminator = Discriminator(channels, c.discriminator_width, seed=seed, name="discriminator", **named)

    @property
    def roles(self):
        return ("discriminator",) if self.config.baseline else ("generator", "discriminator")

    @property
    def networks(self):
        return {role: getattr(self, role) for role in self.roles}

    def build(self, input_shape):
        if self.built:
            return
        super().build(input_shape)
        if self.config.equal_start:
            for network in self.networks.values():
                for name in ("enter", "leave", "paint"):
                    if hasattr(network, f"{name}_a"):
                        own = [getattr(network, f"{name}_{domain}").variables for domain in "ab"]
                        for a, b in zip(*own, strict=True):
                            b.assign(a)

    def input_shape_of(self, name):
        return (None, SIDE, SIDE, self.channels_a)

    @property
    def generators(self):
        def through(source, target):
            def translate(x, training=False):
                mean, _ = self.generator.encode(**{source: x}, training=training)
                return self.generator.decode(mean, target, training=training)[0]

            return translate

        return {f"{s}2{t}": through(s, t) for s in "ab" for t in "ab"}

    def generate(self, x, direction="a2b", style=None):
        if self.config.baseline:
            raise ValueError("the baseline is a classifier alone and translates nothing")
        if x.shape[1:3] != (SIDE, SIDE):
            raise ValueError(f"images of shape {x.shape}: these networks take {SIDE}x{SIDE} pixels, resize them")
        return self.generators[direction](x)

    def pictures(self, a, b):
        if self.config.baseline:
            return {"source": a, "target": b}
        source = {"source": a, "rebuilt": self.generate(a, "a2a"), "as target": self.generate(a, "a2b")}
        return source | {"target": b, "rebuilt ": self.generate(b, "b2b"), "as source": self.generate(b, "b2a")}

    def learn(self, a, b, labels, indices):
        batch_size = a.shape[0] * tf.distribute.get_replica_context().num_replicas_in_sync

        def phase(compute, role, **inputs):
            seeds = layers.batch_seeds(self.seed, self.step.value, indices, role)
            return self.phase(functools.partial(compute, batch_size), role, seeds=seeds, **inputs)[0]

        losses = phase(self.discriminator_phase, "discriminator", a=a, b=b, labels=labels)
        if not self.config.baseline:
            # Everything is computed anew, with new noise, by the discriminators as they are now.
            losses |= phase(self.generator_phase, "generator", a=a, b=b)
        return losses

    def translations(self, a, b, noise):
        """Images of the noisy code μ + σ ε in both domains, `noise` ε being [2N, 1, 1, C].

        Returns:
            dict of `aa`, `ba`, `ab`, `bb` (from, to), [N, 32, 32, C], and of `mean` and `deviation`.
        """
        mean, deviation = self.generator.encode(a, b, training=True)
        to_a, to_b = self.generator.decode(mean + deviation * noise, training=True)
        (aa, ba), (ab, bb) = ops.split(to_a, 2), ops.split(to_b, 2)
        return {"aa": aa, "ba": ba, "ab": ab, "bb": bb, "mean": mean, "deviation": deviation}

    def noise(self, seeds, batch_size):
        code = self.config.generator_width * 8
        draws = layers.batch_draws(tf.random.stateless_normal, seeds, batch_size, (2, 1, 1, code))
        return ops.reshape(ops.transpose(draws, (1, 0, 2, 3, 4)), (-1, 1, 1, code))

    def dropout(self, seeds, batch_size, index):
        """Function for `Discriminator.features`, or None; `index` keeps the masks of a phase apart."""
        if not self.config.dropout:
            return None

        def drop(x, rate, layer):
            number = 1 + index * len(_DROPOUT) + layer  # 0 is the code's noise
            return layers.batch_dropout(x, rate, seeds, batch_size, number)

        return drop

    def discriminator_phase(self, batch_size, a, b, labels, seeds):
        """λ_gan [CE(real, 1) + ½ (CE(translated, 0) + CE(rebuilt, 0))] + λ_class CE(class) + λ_feature distance."""
        c, judge = self.config, self.discriminator
        logits = judge.digit(judge.features(a, drop=self.dropout(seeds, batch_size, 0)))
        losses = {"class": c.lambda_class * cross_entropy(logits, labels)}
        if c.baseline:
            return losses, {}
        made = self.translations(a, b, self.noise(seeds, batch_size))
        if c.lambda_gan:
            in_a, in_b = ops.concatenate([a, made["ba"], made["aa"]]), ops.concatenate([b, made["ab"], made["bb"]])
            logits = judge.real(judge.features(in_a, in_b, self.dropout(seeds, batch_size, 1)))
            real_a, to_a, same_a, real_b, to_b, same_b = ops.split(logits, 6)
            real, translated, rebuilt = (
                cross_entropy(ops.concatenate(pair), label)
                for pair, label in (((real_a, real_b), 1), ((to_a, to_b), 0), ((same_a, same_b), 0))
            )
            losses["discriminator"] = c.lambda_gan * (real + 0.5 * (translated + rebuilt))
        if c.lambda_feature:
            to_a, to_b = ops.concatenate([made["aa"], made["ba"]]), ops.concatenate([made["ab"], made["bb"]])
            in_a, in_b = ops.split(judge.features(to_a, to_b), 2)
            # Both halves hold N pairs each, so this is the sum of two means over N.
            losses["feature"] = c.lambda_feature * 2 * distance(in_a, in_b, c.feature_distance)
        return losses, {}

    def generator_phase(self, batch_size, a, b, seeds):
        """λ_gan [CE(translated, 1) + CE(rebuilt, 1)] + 2 λ_kl Σ(μ² + σ² - log σ²) + λ_reconstruction ‖x - x̂‖²."""
        c, judge = self.config, self.discriminator
        made = self.translations(a, b, self.noise(seeds, batch_size))
        losses = {
            "kl": c.lambda_kl * 2 * divergence(made["mean"], made["deviation"]),
            "reconstruction_a": c.lambda_reconstruction * distance(made["aa"], a),
            "reconstruction_b": c.lambda_reconstruction * distance(made["bb"], b),
        }
        if c.lambda_gan:
            in_a, in_b = ops.concatenate([made["ba"], made["aa"]]), ops.concatenate([made["ab"], made["bb"]])
            logits = judge.real(judge.features(in_a, in_b, self.dropout(seeds, batch_size, 0)))
            # Of equally many samples, so the mean over all is the mean of both means.
            losses["gan"] = c.lambda_gan * 2 * cross_entropy(logits, 1)
        return losses, {}

    def digit_logits(self, x, domain):
        return self.discriminator.digit(self.discriminator.features(**{domain: x}))
