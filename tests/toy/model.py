"""The toy: what every method may have, once and as short as it can be; an example of how a method is written.

Names: `generator_a2b` translates A to B, `discriminator_b` and `encoder_b` look at images of domain B. `gan_a2b` is the
generator's side of the adversarial loss, `discriminator_b` the discriminator's; `cycle_a` compares A with its way there
and back, `style_b` the style that a translation was made with and the one that is seen in it, `features_b` a
translation and recent images of B as the discriminator sees them, `perceptual_a` an image of A and its translation.
"""

import keras
from keras import ops

from tests.toy import config
from tfi2i import layers
from tfi2i.methods.losses import adversarial_loss, l1
from tfi2i.methods.memory import FeatureCache, ImagePool
from tfi2i.methods.sizes import Sizes
from tfi2i.methods.translator import Translator


class Generator(layers.Network):
    """Half the size and back: x [N, H, W, C], style [N, S] → [N, H, W, channels]."""

    def __init__(self, channels, style_size, width, norm, dropout, **kwargs):
        super().__init__(**kwargs)
        self.style_size = style_size
        self.down = self.conv(width, 4, 2, pad=1)
        self.norm = (layers.BatchNormalization if norm == "batch" else keras.layers.Identity)(**self.next_layer("norm"))
        self.drop = layers.Dropout(0.5 if dropout else 0.0, **self.next_layer("dropout"))
        self.shift = self.dense(width)
        self.up = self.conv_transpose(channels, 4, pad=1)
        self.stack = [self.down, self.norm, self.up]

    def build(self, input_shape):
        super().build(input_shape)
        self.shift.build((None, self.style_size))

    def call(self, x, style, seeds=None, training=False):
        x = self.drop(ops.relu(self.norm(self.down(x), training=training)), seeds)
        return ops.tanh(ops.cast(self.up(x + self.shift(style)[:, None, None, :]), "float32"))


class Discriminator(layers.Network):
    """Spectrally normalised: [N, H, W, C] → logits [N, H/2, W/2, 1], mean features [N, width]."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        named = self.next_layer("conv")
        self.first = layers.SpectralConv2D(width, 4, 2, (1, 1), "zeros", seed=self.layer_seed, **named)
        self.last = self.conv(1, 3, pad=1)
        self.stack = [self.first, self.last]

    def call(self, x):
        features = ops.leaky_relu(self.first(x, training=True), 0.2)
        return ops.cast(self.last(features), "float32"), ops.mean(ops.cast(features, "float32"), axis=(1, 2))


class Encoder(layers.Network):
    """A few numbers that describe an image: [N, H, W, C] → [N, units]."""

    def __init__(self, width, units, **kwargs):
        super().__init__(**kwargs)
        self.first, self.last = self.conv(width, 4, 2, pad=1), self.conv(units, 1)
        self.stack = [self.first, self.last]

    def call(self, x):
        return ops.mean(ops.cast(self.last(ops.relu(self.first(x))), "float32"), axis=(1, 2))


@keras.saving.register_keras_serializable(package="tests")
class Toy(Translator):
    """For each direction a generator, a discriminator and a style encoder of the domain translated to.

    Hyper-parameters: `config.Toy`.
    """

    config_class = config.Toy
    sizes = Sizes(multiple=2, minimum=4, crop_minimum=8)
    style_size = 2
    advice = {"blank": "start again with a larger --toy_width", "small crop": ", or take another method"}

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="toy", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c = self.config

        def named(name):
            return {"seed": seed, "dtype": self.dtype_policy, "name": name, "init": "torch"}

        self.learning = {}  # by direction
        self.discriminators, self.encoders, self.pools, self.caches = {}, {}, {}, {}  # by the domain that they look at
        for direction in self.directions:
            to = direction[-1]
            options = (self.channels_of(to), self.style_size, c.toy_width, c.norm, c.dropout)
            self.learning[direction] = Generator(*options, **named(f"generator_{direction}"))
            self.discriminators[to] = Discriminator(c.toy_width, **named(f"discriminator_{to}"))
            self.encoders[to] = Encoder(c.toy_width, self.style_size, **named(f"encoder_{to}"))
            self.pools[to] = ImagePool(c.pool_size, seed, name=f"pool_{to}")
            self.caches[to] = FeatureCache(4, name=f"cache_{to}")
        # Stands for a network that has learned elsewhere; it looks at grey images, which both domains can be.
        self.perception = Encoder(c.toy_width, c.toy_width, trainable=False, **named("perception"))
        self.perception.build((None, None, None, 1))

    @property
    def networks(self):
        groups = (self.learning, self.discriminators, self.encoders)
        return {network.name: network for group in groups for network in group.values()}

    @property
    def frozen(self):
        return {"perception": self.perception}

    @property
    def generators(self):
        return self.learning

    def encode_style(self, images, direction):
        return self.encoders[direction[-1]](images)

    def build_for_training(self, shape_a, shape_b):
        super().build_for_training(shape_a, shape_b)
        for domain, pool in self.pools.items():
            if not pool.built:
                pool.build({"a": shape_a, "b": shape_b}[domain])
                self.caches[domain].build((None, self.config.toy_width))

    def learn(self, a, b, indices):
        losses, fakes = self.learn_generators(a, b, indices)
        # The discriminators learn from the images that the generators made before their own update.
        fakes = {f"fake_{d}": pool.query(fakes[d], self.step.value, indices) for d, pool in self.pools.items()}
        d_losses, features = self.phase(self.discriminator_phase, "discriminator", a=a, b=b, **fakes)
        for domain, cache in self.caches.items():
            cache.push(features[domain], indices)
        return losses | d_losses

    def learn_generators(self, a, b, indices):
        def seeds(purpose):
            return layers.sample_seeds(self.seed, self.step.value, indices, purpose)

        # Drawn here and not within a phase, where XLA would draw others.
        styles = {f"style_{d}": layers.normal(seeds(f"style {d}"), (self.style_size,)) for d in self.directions}
        recent = {"recent": {domain: cache.read() for domain, cache in self.caches.items()}}
        drawn = styles | {"seeds": seeds("dropout")}
        return self.phase(self.generator_phase, "generator", recent, a=a, b=b, **drawn)

    def generator_phase(self, a, b, seeds, recent, **styles):
        """L_gan + ‖E(G(x, s)) - s‖₁ + features + perceptual + λ_cycle ‖F(G(x, s), E(x)) - x‖₁, for each direction."""
        losses, fakes = {}, {}
        for direction in self.directions:
            source, to, back = direction[0], direction[-1], direction[::-1]
            x, style = {"a": a, "b": b}[source], styles[f"style_{direction}"]
            fakes[to] = fake = self.learning[direction](x, style, seeds, training=True)
            logits, features = self.discriminators[to](fake)
            losses[f"gan_{direction}"] = adversarial_loss(logits, True, "lsgan")
            losses[f"style_{to}"] = l1(self.encoders[to](fake), style)
            losses[f"features_{to}"] = l1(features, _mean(*recent[to]))
            losses[f"perceptual_{source}"] = l1(self.perception(_grey(fake)), self.perception(_grey(x)))
            if back in self.directions:
                restored = self.learning[back](fake, self.encoders[source](x), seeds + 1, training=True)
                losses[f"cycle_{source}"] = self.config.lambda_cycle * l1(restored, x)
        return losses, fakes

    def discriminator_phase(self, a, b, **fakes):
        """½ (L(D(real), 1) + L(D(fake), 0)) for each domain translated to; real features are for the caches."""
        losses, features = {}, {}
        for domain, discriminator in self.discriminators.items():
            judged_real, features[domain] = discriminator({"a": a, "b": b}[domain])
            judged_fake, _ = discriminator(fakes[f"fake_{domain}"])
            loss = adversarial_loss(judged_real, True, "lsgan") + adversarial_loss(judged_fake, False, "lsgan")
            losses[f"discriminator_{domain}"] = 0.5 * loss
        return losses, features


def _mean(features, filled):
    """Mean of the features [S, F] that are filled, float32 [S] of 0 and 1."""
    return ops.sum(features * filled[:, None], axis=0) / ops.maximum(ops.sum(filled), 1.0)


def _grey(x):
    return ops.mean(x, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable(package="tests")
class OneWayToy(Toy):
    """The toy that translates A to B and not back: domain A needs no discriminator, and nothing learns a way back."""

    config_class = config.OneWayToy
    directions = ("a2b",)

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="oneway", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
