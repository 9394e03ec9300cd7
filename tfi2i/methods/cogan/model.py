"""CoGAN: Liu, Tuzel, Coupled Generative Adversarial Networks, arXiv 1606.07536; its networks for images are our choice.

Two generators draw a pair of images from one noise z. They share all layers but the last ones, so that both images of a
pair have the same content; two discriminators share all layers but the first ones. There is no encoder: an image is
translated by a search for the noise that generates it, which the other generator then renders.

Names: here `generator` (paper: g1 and g2 together), `discriminator` (f1 and f2), A and B (domains 1 and 2), z (z).

What is published and what is ours:
- The losses and the order of a step are the authors' PyTorch code of 2017: the discriminators first, then the
  generators with new noise; cross-entropy of two classes.
- The paper shows pairs of faces and of photos with depth; their networks were not released. The authors' repository
  has a later network for faces of one domain (128 pixels). `Generator` and `Discriminator` are that network, coupled by
  us: the generators share all but their last two layers, the discriminators all but their first two. Other sizes have
  more or fewer layers of its kind.
- Its Caffe code updates each network in every other iteration. Here both learn in each step.
- The paper translates by a search with L-BFGS and no code of it was released. Here it is Adam, from several starts that
  are the same for every image, with a learning rate that falls to 0, and with the moving averages of batch norm.
- CycleGAN's tables have a row CoGAN, for which nobody published how it was widened to such images, nor how its authors
  searched: this is no reproduction of that row.
"""

import functools

import keras
import tensorflow as tf
from keras import ops

from tfi2i import layers
from tfi2i.config import DIRECTIONS
from tfi2i.methods.cogan import config
from tfi2i.methods.losses import cross_entropy
from tfi2i.methods.sizes import Sizes
from tfi2i.methods.translator import Translator

# Rates from the third convolution of the discriminator on, and of its last hidden layer.
_DROPOUT, _LAST_DROPOUT = (0.1, 0.3, 0.3, 0.5, 0.5), 0.5

# ---------------------------------------------------------------------------------------------------------------------
# Networks


class Block(layers.Network):
    """(Transposed) convolution, batch norm with an offset and no factor, PReLU with a slope for each channel."""

    def __init__(self, filters, kernel, strides=1, pad=0, transposed=False, norm="batch", **kwargs):
        super().__init__(**kwargs)
        convolution = self.conv_transpose if transposed else self.conv
        self.convolution = convolution(filters, kernel, strides, pad, use_bias=norm == "none")
        named = self.next_layer("norm")
        kind = functools.partial(layers.BatchNormalization, scale=False) if norm == "batch" else keras.layers.Identity
        self.norm = kind(**named)
        self.slope = keras.layers.PReLU(
            keras.initializers.Constant(0.25), shared_axes=(1, 2), **self.next_layer("slope")
        )
        self.stack = [self.convolution, self.norm, self.slope]

    def call(self, x, training=False):
        return self.slope(self.norm(self.convolution(x), training=training))


class Generator(layers.Network):
    """Two coupled generators: noise [N, Z] → a pair of images [N, side, side, C] in [-1, 1].

    Args:
        channels: (of domain A, of domain B).
        side: of the images, 4 times a power of 2.
        width: channels of the first map, which has 4×4 pixels.
        norm: "batch" or "none".
    """

    def __init__(self, channels, side, width, norm, **kwargs):
        super().__init__(**kwargs)

        def up(filters, kernel=4, strides=2, pad=1):
            return Block(filters, kernel, strides, pad, True, norm, **self.next_network("block"))

        widths = [width >> i for i in range(1, (side // 4).bit_length())]
        # A transposed convolution of 1×1 pixels is a dense layer.
        self.shared = [up(width, 4, 1, 0), *map(up, widths[:-1])]
        self.leave_a, self.leave_b = up(widths[-1]), up(widths[-1])
        self.paint_a, self.paint_b = (self.conv(c, 3, 1, 1) for c in channels)

    def build(self, input_shape):
        shape = (None, 1, 1, input_shape[-1])
        for block in self.shared:
            block.build(shape)
            shape = block.compute_output_shape(shape)
        for leave, paint in ((self.leave_a, self.paint_a), (self.leave_b, self.paint_b)):
            leave.build(shape)
            paint.build(leave.compute_output_shape(shape))
        self.built = True

    def call(self, z, domains="ab", training=False):
        """The images of z in each of the `domains`: a list of float32 [N, side, side, C]."""
        x = ops.reshape(ops.cast(z, self.compute_dtype), (-1, 1, 1, z.shape[-1]))
        for block in self.shared:
            x = layers.remat(block, x, training=training)
        own = {"a": (self.leave_a, self.paint_a), "b": (self.leave_b, self.paint_b)}
        return [
            ops.tanh(ops.cast(paint(layers.remat(leave, x, training=training)), "float32"))
            for leave, paint in map(own.get, domains)
        ]


class Discriminator(layers.Network):
    """Two coupled discriminators: [N, side, side, C] of each domain → logits of fake and real, [2 N, 2], A's first.

    Args:
        channels: (of domain A, of domain B).
        side: of the images, 4 times a power of 2.
        width: channels after the first layer.
        norm: "batch" or "none".
    """

    def __init__(self, channels, side, width, norm, **kwargs):
        super().__init__(**kwargs)
        self.channels, self.side = channels, side
        depth = side.bit_length() - 2

        def down(i, strides=2):
            kernel, pad = (5, 2) if i < 3 else (3, 1)
            return Block(width << i, kernel, strides, pad, norm=norm, **self.next_network("block"))

        self.enter_a, self.enter_b = ([down(0), down(1)] for _ in "ab")
        # The last one is a dense layer of the 2×2 pixels that are left.
        last = Block(width << depth, 2, norm=norm, **self.next_network("block"))
        self.shared = [*map(down, range(2, depth)), last]
        self.rates = [*_DROPOUT[: depth - 2], _LAST_DROPOUT]
        self.logits = self.conv(2, 1)

    def build(self, input_shape):
        for enter, channels in zip((self.enter_a, self.enter_b), self.channels):
            shape = (None, self.side, self.side, channels)
            for block in enter:
                block.build(shape)
                shape = block.compute_output_shape(shape)
        for block in [*self.shared, self.logits]:
            block.build(shape)
            shape = block.compute_output_shape(shape)
        self.built = True

    def call(self, a, b, drop=None):
        """`drop`: function of (maps, rate, number of the layer) that sets some values to 0, or None."""
        joined = []
        for x, enter in ((a, self.enter_a), (b, self.enter_b)):
            for block in enter:
                x = block(x, training=True)
            joined.append(x)
        x = ops.concatenate(joined)
        for i, (block, rate) in enumerate(zip(self.shared, self.rates, strict=True)):
            x = block(x, training=True)
            x = drop(x, rate, i) if drop else x
        return ops.cast(self.logits(x)[:, 0, 0], "float32")


# ---------------------------------------------------------------------------------------------------------------------
# Losses


def distances(x, y, kind):
    """Mean over the pixels and channels of each sample of (x - y)² (l2) or |x - y| (l1): [N, H, W, C] → [N]."""
    difference = x - y
    return ops.mean(ops.square(difference) if kind == "l2" else ops.abs(difference), axis=(1, 2, 3))


# ---------------------------------------------------------------------------------------------------------------------
# Models


class CoupledGAN(Translator):
    """A `generator` of pairs, a list of images for noise z and `domains`; translation by a search for z.

    A subclass makes `generator` and `discriminator`, and says in `judge` how the latter sees a batch.
    """

    @property
    def latent_size(self):
        return self.config.latent_size

    @property
    def networks(self):
        return {"generator": self.generator, "discriminator": self.discriminator}

    def input_shape_of(self, name):
        return (None, self.latent_size) if name == "generator" else (None, *self.sizes.fixed, self.channels_a)

    @property
    def generators(self):
        # The search always uses the inference statistics, whatever `training` says.
        return {d: lambda x, training=False, d=d: self.search(x, d[0], d[-1])["images"] for d in DIRECTIONS}

    @property
    def translation_note(self):
        c = self.config
        return (
            f"An image is translated by a search of {c.inversion_steps} steps from {c.inversion_starts} starts for the "
            "noise that generates it, and the translation is no better than what the search finds."
        )

    def draw_pairs(self, z):
        if self.latent_size is None:
            return super().draw_pairs(z)
        if len(z.shape) != 2 or z.shape[1] != self.latent_size:
            raise ValueError(f"z of shape {tuple(z.shape)}: expected [N, {self.latent_size}]")
        with self.averaged():
            return tuple(self.generator(z))

    def draw_latents(self, seed, count):
        """Noise from N(0, 1), float32 array [count, Z]; each row depends on `seed` and its number alone."""
        seeds = layers.sample_seeds(seed, 0, tf.range(count), "latent")
        return layers.normal(seeds, (self.latent_size,)).numpy()

    def starts(self):
        """The noise that every search starts from, float32 [starts, Z]: equal for all images, models and seeds."""
        return tf.random.stateless_normal((self.config.inversion_starts, self.latent_size), (0, 0))

    def search(self, x, domain, to):
        """z* = argmin over z of d(g_domain(z), x) by Adam (Kingma and Ba), and the image of z* in another domain.

        Args:
            x: float32 [N, side, side, C] in `value_range`, of `domain`, "a" or "b".
            to: the domain to draw z* in.

        Returns:
            dict of `z`, float32 [N, Z]; `rebuilt`, g_domain(z*); `images`, g_to(z*); `error`, d of each, [N].
        """
        c, (b1, b2) = self.config, (0.9, 0.999)
        starts = self.starts()
        n, count = tf.shape(x)[0], starts.shape[0]
        wanted = tf.repeat(x, count, axis=0)

        def errors(z):
            (y,) = self.generator(z, domains=domain)
            return distances(y, wanted, c.inversion_distance)

        def step(i, z, m, v):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(z)
                total = tf.reduce_sum(errors(z))
            g, t = tape.gradient(total, z), tf.cast(i + 1, tf.float32)
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * tf.square(g)
            rate = c.inversion_rate * (1 - (t - 1) / c.inversion_steps)
            z -= rate * (m / (1 - b1**t)) / (tf.sqrt(v / (1 - b2**t)) + 1e-8)
            return i + 1, z, m, v

        z = tf.tile(starts, (n, 1))
        state = (0, z, tf.zeros_like(z), tf.zeros_like(z))
        _, z, _, _ = tf.while_loop(lambda i, *_: i < c.inversion_steps, step, state, parallel_iterations=1)
        found = tf.reshape(errors(z), (n, count))
        best = tf.argmin(found, axis=1, output_type=tf.int32)
        z = tf.gather(z, tf.range(n) * count + best)
        rebuilt, images = self.generator(z, domains=domain + to)
        return {"z": z, "rebuilt": rebuilt, "images": images, "error": tf.reduce_min(found, axis=1)}

    @tf.function(reduce_retracing=True, autograph=False)
    def _search_traced(self, x, domain, to):
        with self.averaged():
            return self.search(x, domain, to)

    def invert(self, images, direction=None):
        """What `translate` does, with all that the search finds.

        Args:
            images: float32 [N, side, side, C] in `value_range`, or uint8, of the domain translated from.
            direction: "a2b" or "b2a"; None: "a2b".

        Returns:
            dict of numpy arrays: `z`, float32 [N, Z], the noise found; `rebuilt`, what it generates in the images' own
            domain, and `images`, in the other one, float32 in `value_range`; `error`, float32 [N], the distance
            (`inversion_distance`) of `rebuilt` from the images: where it is large, the translation means little.
        """
        direction = self.resolve_direction(direction)
        x = tf.convert_to_tensor(images)
        self.check_images(x.numpy(), x.shape, direction[0])
        if tuple(x.shape[1:3]) != self.sizes.fixed:
            raise ValueError(f"images of shape {x.shape}: expected {self.sizes}; translate brings any size to it")
        x = tf.cast(x, tf.float32) if x.dtype.is_floating else self.to_float(x)
        return {name: value.numpy() for name, value in self._search_traced(x, direction[0], direction[-1]).items()}

    def pictures(self, a, b):
        """Of both domains images, what the search rebuilds them as, and their translations; and pairs from noise."""
        shown = {}
        for domain, x, to in (("a", a, "b"), ("b", b, "a")):
            found = self._search_traced(x, domain, to)
            title = domain.upper()
            shown |= {title: x, f"{title} rebuilt": found["rebuilt"], f"{title} to {to.upper()}": found["images"]}
        pair = self.draw_pairs(self.draw_latents(0, len(a)))
        return shown | {"drawn A": pair[0], "drawn B": pair[1]}

    # -----------------------------------------------------------------------------------------------------------------
    # One step

    def play(self, a, b, indices, **labels):
        """Both phases of a step, each with noise of its own; `labels` are further arguments of the discriminator's."""
        batch_size = a.shape[0] * tf.distribute.get_replica_context().num_replicas_in_sync

        def phase(compute, role, **inputs):
            seeds = layers.batch_seeds(self.seed, self.step.value, indices, role)
            z = layers.batch_draws(tf.random.stateless_normal, seeds, batch_size, (self.latent_size,))
            return self.phase(functools.partial(compute, batch_size), role, a=a, b=b, z=z, seeds=seeds, **inputs)[0]

        judged = phase(self.discriminator_phase, "discriminator", **labels)
        return phase(self.generator_phase, "generator") | judged


@keras.saving.register_keras_serializable(package="tfi2i")
class CoGAN(CoupledGAN):
    """Coupled generators and discriminators of images of one square size.

    Hyper-parameters: `config.CoGAN`.

    Example:

        model = tfi2i.CoGAN(image_size=(64, 64))
        model.compile()
        model.fit(photos, drawings)                   # batches of 64×64 pixels, float32 in [-1, 1]
        pairs = model.draw_pairs(model.draw_latents(0, 8))
        drawings = model.translate(photos)            # by a search: minutes on a CPU
    """

    config_class = config.CoGAN
    advice = {
        "silent discriminator": "try a smaller --discriminator_width, or more images",
        "blank": "start again with a lower --learning_rate",
    }

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="cogan", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c, channels = self.config, (channels_a, channels_b)
        self.sizes = Sizes(fixed=c.image_size)
        side, named = c.image_size[0], {"seed": seed, "dtype": self.dtype_policy}
        self.generator = Generator(channels, side, c.generator_width, c.norm, name="generator", **named)
        self.discriminator = Discriminator(channels, side, c.discriminator_width, c.norm, name="discriminator", **named)

    def learn(self, a, b, indices):
        return self.play(a, b, indices)

    def judge(self, batch_size, a, b, z, seeds):
        """The discriminator's logits of real images, and of pairs that it is shown in the same batch, each [2 N, 2]."""

        def drop(x, rate, layer):
            return layers.batch_dropout(x, rate, seeds, batch_size, 1 + layer)  # 0 is the noise

        in_a, in_b = (ops.concatenate(both) for both in zip((a, b), self.generator(z, training=True)))
        logits = self.discriminator(in_a, in_b, drop=drop if self.config.dropout else None)
        real_a, fake_a, real_b, fake_b = ops.split(logits, 4)
        return ops.concatenate([real_a, real_b]), ops.concatenate([fake_a, fake_b])

    def discriminator_phase(self, batch_size, a, b, z, seeds):
        """CE(f(x), 1) + CE(f(g(z)), 0), each a mean over both domains."""
        real, fake = self.judge(batch_size, a, b, z, seeds)
        return {"discriminator": cross_entropy(real, 1) + cross_entropy(fake, 0)}, {}

    def generator_phase(self, batch_size, a, b, z, seeds):
        """CE(f(g(z)), 1)."""
        _, fake = self.judge(batch_size, a, b, z, seeds)
        return {"gan": cross_entropy(fake, 1)}, {}
