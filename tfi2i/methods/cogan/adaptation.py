"""Domain adaptation with CoGAN: Liu, Tuzel, arXiv 1606.07536; networks and step of the authors' PyTorch code.

Digits of two domains of 28×28 pixels, MNIST and USPS: A, the source, has labels, B, the target, has none. A
classifier on the features of the two coupled discriminators learns from A, through A's own first layer, and is used on
B through B's own. That both layers mean the same comes from judging generated pairs, and from comparing their features.

Names: here `enter_a`, `enter_b` (code: conv0_a, conv0_b), `shared` (conv1, conv2), `logits` (conv3), `classifier`
(conv_cl); `shared` of the generator (dconv0 to dconv3), `paint_a`, `paint_b` (dconv4_a, dconv4_b).

Departures: a short last batch does not occur, and the two domains are shuffled each by itself without an end. The code
reports the best of its tests on the target's test digits; `tfi2i adapt` reports the last weights'. Digits go from 0 to
1, as the generators' sigmoid does; a recent torchvision would leave the code's at 0 to 255.
"""

import functools

import keras
from keras import ops

from tfi2i import layers
from tfi2i.data.digits import CLASSES
from tfi2i.methods.cogan import config
from tfi2i.methods.cogan.model import CoupledGAN
from tfi2i.methods.digits import DigitClassifier
from tfi2i.methods.losses import cross_entropy
from tfi2i.methods.sizes import Sizes
from tfi2i.methods.unit.adaptation import distance

SIDE = config.SmallDigits.side

# ---------------------------------------------------------------------------------------------------------------------
# Networks


class DigitNetwork(layers.Network):
    """What both networks start from: kernels of torch's xavier_uniform_ with the gain √2 of a ReLU, biases of 0.1."""

    def started(self, kind, filters, kernel, **kwargs):
        named = self.next_layer("conv")
        start = keras.initializers.VarianceScaling(2.0, "fan_avg", "uniform", seed=self.layer_seed)
        bias = keras.initializers.Constant(0.1)
        return kind(filters, kernel, kernel_initializer=start, bias_initializer=bias, **kwargs, **named)

    def slope(self):
        """PReLU with one slope for all channels."""
        return keras.layers.PReLU(keras.initializers.Constant(0.25), shared_axes=(1, 2, 3), **self.next_layer("slope"))


class Generator(DigitNetwork):
    """Two coupled generators: noise [N, Z] → a pair of images [N, 28, 28, C] in [0, 1].

    Args:
        channels: (of domain A, of domain B).
        width: channels of the first map, of 4×4 pixels.
    """

    def __init__(self, channels, width, **kwargs):
        super().__init__(**kwargs)
        up = functools.partial(self.started, layers.Conv2DTranspose)
        self.shared = []
        for i, (kernel, strides, pad) in enumerate([(4, 1, 0), (3, 2, 1), (3, 2, 1), (3, 2, 1)]):
            norm = functools.partial(layers.BatchNormalization, scale=False, offset=None)
            self.shared += [
                up(width >> i, kernel, strides=strides, pad=pad),
                norm(**self.next_layer("norm")),
                self.slope(),
            ]
        self.paint_a, self.paint_b = (up(c, 6, strides=1, pad=1) for c in channels)

    def build(self, input_shape):
        shape = (None, 1, 1, input_shape[-1])
        for layer in self.shared:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self.paint_a.build(shape)
        self.paint_b.build(shape)
        self.built = True

    def call(self, z, domains="ab", training=False):
        """The images of z in each of the `domains`: a list of float32 [N, 28, 28, C]."""
        x = ops.reshape(ops.cast(z, self.compute_dtype), (-1, 1, 1, z.shape[-1]))
        for three in zip(self.shared[::3], self.shared[1::3], self.shared[2::3]):
            x = layers.remat(functools.partial(_enlarge, three), x, training=training, of=three)
        paint = {"a": self.paint_a, "b": self.paint_b}
        return [ops.sigmoid(ops.cast(paint[domain](x), "float32")) for domain in domains]


def _enlarge(three, x, training):
    up, norm, slope = three
    return slope(norm(up(x), training=training))


class Discriminator(DigitNetwork):
    """Two coupled discriminators with the classifier on top: [N, 28, 28, C] → 2 logits (1 is real), or 10.

    Nothing follows the first two convolutions but the maximum of 2×2 pixels.

    Args:
        channels: (of domain A, of domain B).
        width: channels after the first layer; 2.5 and 25 times as many follow.
    """

    def __init__(self, channels, width, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        conv = functools.partial(self.started, layers.Conv2D)
        self.enter_a, self.enter_b = conv(width, 5), conv(width, 5)
        self.shared = [conv(5 * width // 2, 5), conv(25 * width, 4)]
        self.last = self.slope()
        self.logits, self.classifier = conv(2, 1), conv(CLASSES, 1)

    def build(self, input_shape):
        width = self.enter_a.filters
        for enter, channels in zip((self.enter_a, self.enter_b), self.channels):
            enter.build((None, SIDE, SIDE, channels))
        self.shared[0].build((None, 12, 12, width))
        self.shared[1].build((None, 4, 4, 5 * width // 2))
        for layer in (self.last, self.logits, self.classifier):
            layer.build((None, 1, 1, 25 * width))
        self.built = True

    def features(self, a=None, b=None):
        """The top features [N, 1, 1, 25 `width`]; of A before B, where both are given."""
        given = [enter(x) for enter, x in ((self.enter_a, a), (self.enter_b, b)) if x is not None]
        x = ops.max_pool(ops.concatenate(given) if len(given) > 1 else given[0], 2, 2)
        return self.last(self.shared[1](ops.max_pool(self.shared[0](x), 2, 2)))

    def real(self, features):
        """Logits [N, 2] of fake and real."""
        return ops.cast(self.logits(features)[:, 0, 0], "float32")

    def digit(self, features):
        """Logits [N, 10] of the digits."""
        return ops.cast(self.classifier(features)[:, 0, 0], "float32")


# ---------------------------------------------------------------------------------------------------------------------
# The model


@keras.saving.register_keras_serializable(package="tfi2i")
class CoGANAdaptation(DigitClassifier, CoupledGAN):
    """Coupled generators and discriminators of digits, 28×28. Hyper-parameters: `config.CoGANAdaptation`.

    Learns from batches (A, B, labels of A); `classify` gives the digits of either domain.
    """

    config_class = config.CoGANAdaptation
    value_range = (0.0, 1.0)
    sizes = Sizes(fixed=(SIDE, SIDE))

    def __init__(self, channels_a=1, channels_b=1, seed=0, name="cogan_adaptation", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c, channels, named = self.config, (channels_a, channels_b), {"seed": seed, "dtype": self.dtype_policy}
        if not c.baseline:
            self.generator = Generator(channels, c.generator_width, name="generator", **named)
        self.discriminator = Discriminator(channels, c.discriminator_width, name="discriminator", **named)

    @property
    def roles(self):
        return ("discriminator",) if self.config.baseline else ("generator", "discriminator")

    @property
    def latent_size(self):
        return None if self.config.baseline else self.config.latent_size

    @property
    def networks(self):
        return {role: getattr(self, role) for role in self.roles}

    def search(self, x, domain, to):
        if self.config.baseline:
            raise ValueError("the baseline is a classifier alone and translates nothing")
        return super().search(x, domain, to)

    def pictures(self, a, b):
        return {"A": a, "B": b} if self.config.baseline else super().pictures(a, b)

    def digit_logits(self, x, domain):
        return self.discriminator.digit(self.discriminator.features(**{domain: x}))

    def learn(self, a, b, labels, indices):
        if self.config.baseline:
            return self.phase(self.baseline_phase, "discriminator", a=a, labels=labels)[0]
        return self.play(a, b, indices, labels=labels)

    def baseline_phase(self, a, labels):
        """λ_class CE(class)."""
        return {"class": self.config.lambda_class * cross_entropy(self.digit_logits(a, "a"), labels)}, {}

    def discriminator_phase(self, batch_size, a, b, z, seeds, labels):
        """CE(f(x), 1) + CE(f(g(z)), 0) + λ_class CE(class) + λ_feature ‖features of g_a(z) - of g_b(z)‖²."""
        c, judge = self.config, self.discriminator
        real, fake = judge.features(a, b), judge.features(*self.generator(z, training=True))
        of_a, _ = ops.split(real, 2)
        return {
            "discriminator": cross_entropy(judge.real(real), 1) + cross_entropy(judge.real(fake), 0),
            "class": c.lambda_class * cross_entropy(judge.digit(of_a), labels),
            "feature": c.lambda_feature * distance(*ops.split(fake, 2)),
        }, {}

    def generator_phase(self, batch_size, a, b, z, seeds):
        """CE(f(g(z)), 1)."""
        logits = self.discriminator.real(self.discriminator.features(*self.generator(z, training=True)))
        return {"gan": cross_entropy(logits, 1)}, {}
