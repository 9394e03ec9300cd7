"""pix2pix: Isola, Zhu, Zhou, Efros, arXiv 1611.07004; layers as in the authors' PyTorch code.

Names: with --direction=a2b, `generator_a2b` is the paper's and the code's G and `discriminator_b` their D, which judges
pictures of B beside their inputs; with b2a the letters are exchanged. `gan_a2b` is the code's G_GAN, `l1_b` its G_L1
with its weight, `discriminator_b` half the sum of its D_real and D_fake. The networks are those of CycleGAN's code,
which is the same code.

`--pix2pix_variant` sets defaults, and three things that are no flags of their own:

- dropout is in the three innermost levels of the U-Net in the paper, and in the levels above the innermost in
  PyTorch's code;
- the discriminator's loss is halved in PyTorch's code alone;
- instance norms of cyclegan_tables have a factor and an offset for each channel.

Two parts are pix2pixHD's (Wang et al., arXiv 1711.11585, sections 3.2 and 3.3): discriminators at several sizes, and
feature matching. Its discriminators pad by 2, ours by 1.

Translation is as published: nothing is switched to an evaluation mode. Batch norm takes the statistics of the picture,
and dropout stays on. Here its masks are a function of --dropout_seed and of the size of the picture, the same for each
picture: a model and all files that are exported from it give one result for one picture.

Departures: Torch7's code computes the generator's adversarial gradient with what the discriminator said before its
update and with its weights after the update, where here, as in PyTorch's code, the updated discriminator is asked
again; its convolutions before a norm have biases that are reset to 0 in each step, and here, as in PyTorch's code, they
have none before batch norms and learn before instance norms, which take them away; its transposed channels and BGR
order change no result of a training from scratch.
"""

import functools

import keras
import tensorflow as tf
from keras import ops

from tfi2i import layers
from tfi2i.methods.cyclegan.model import Discriminator, ResnetGenerator, UnetGenerator
from tfi2i.methods.losses import adversarial_loss, l1
from tfi2i.methods.memory import ImagePool
from tfi2i.methods.pix2pix import config
from tfi2i.methods.sizes import Sizes
from tfi2i.methods.translator import Translator

# How often the U-Nets halve a picture.
DOWNS = {"unet_256": 8, "unet_128": 7, "unet_64": 6}


def halved(x):
    """Half the size: the mean of the 3×3 pixels around every second one, of those that there are; [N, H, W, C]."""
    around = ((0, 0), (1, 1), (1, 1), (0, 0))
    pool = functools.partial(ops.average_pool, pool_size=3, strides=2)
    return pool(ops.pad(x, around)) / pool(ops.pad(ops.ones_like(x[:1, ..., :1]), around))


def feature_matching(fake, real):
    """Mean over the sizes of 4 / M Σ ‖D_i(x, G(x)) - D_i(x, y)‖₁ over the M inner maps of each (pix2pixHD's code).

    Args:
        fake, real: as `Pix2Pix.judge` gives them; no gradient leads into `real`.

    Returns:
        float32 scalar.
    """
    total = 0.0
    for of_fake, of_real in zip(fake, real):
        inner = [(ops.cast(f, "float32"), ops.cast(r, "float32")) for f, r in zip(of_fake[:-1], of_real[:-1])]
        total += 4 / len(inner) * sum(l1(f, ops.stop_gradient(r)) for f, r in inner)
    return total / len(fake)


@keras.saving.register_keras_serializable(package="tfi2i")
class Pix2Pix(Translator):
    """A generator that learns one direction from pairs, and a discriminator that judges its pictures beside the inputs.

    Hyper-parameters: `config.Pix2Pix`.

    Example:

        model = tfi2i.Pix2Pix(direction="a2b", generator="unet_128")
        model.compile()
        model.fit(dataset)                      # batches (A, B) of pairs, float32 in [-1, 1]
        photos = model.translate(drawings)      # uint8 in, uint8 out
    """

    config_class = config.Pix2Pix
    advice = {
        "silent discriminator": "try a higher --lambda_l1, a smaller --discriminator_width or --discriminator_layers, "
        "or more pairs",
        "unchanged": "look whether partners differ: both domains may hold the same pictures",
        "blank": "start again with a lower --learning_rate or another --init",
        "small crop": ", or give fewer --discriminator_layers",
    }

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="pix2pix", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c = self.config
        self.source, self.target = c.direction[0], c.direction[-1]
        # Samples that share a call see the same arithmetic as alone, unless statistics are taken over the batch.
        self.batches_mix = c.norm == "batch"
        self.discriminator_weight = 0.5 if c.pix2pix_variant == "pytorch" else 1.0
        shared = {"norm": c.norm, "affine": c.pix2pix_variant == "cyclegan_tables", "seed": seed}
        shared |= {"init": c.init, "init_gain": c.init_gain, "dtype": self.dtype_policy}
        batch_norm = {"per_image": c.test_norm == "image"}
        shared_g = shared | {"dropout": c.dropout, "batch_norm": batch_norm, "name": f"generator_{c.direction}"}
        channels, width = self.channels_of(self.target), c.generator_width
        if c.generator in DOWNS:
            innermost = c.pix2pix_variant == "paper"
            self.generator = UnetGenerator(channels, width, DOWNS[c.generator], innermost, **shared_g)
        else:
            blocks = {"resnet_9blocks": 9, "resnet_6blocks": 6}[c.generator]
            self.generator = ResnetGenerator(channels, width, blocks, "transposed", **shared_g)
        # The masks of a trained model are those of --dropout_seed, whatever the seed of its training.
        drops = [layer for layer in self.generator._flatten_layers() if isinstance(layer, layers.Dropout)]
        for i, layer in enumerate(drops):
            layer.index = i
        several = c.discriminator == "multiscale"
        kind, scales = ("n_layers", c.discriminator_scales) if several else (c.discriminator, 1)
        # Of the whole picture, of half its size, of a quarter …
        self.discriminators = []
        for scale in range(scales):
            named = {"name": f"discriminator_{self.target}" + (f"_{scale}" if scale else "")}
            sizes = (c.discriminator_layers, c.discriminator_width)
            self.discriminators.append(Discriminator(kind, *sizes, **shared, **named))
        multiple = 2 ** DOWNS.get(c.generator, 2)
        minimum = max(8, multiple)
        least = self.discriminators[0].size_minimum * 2 ** (scales - 1)
        self.sizes = Sizes(multiple, minimum, crop_minimum=max(minimum, least))
        self.pool = ImagePool(c.pool_size, seed, name=f"pool_{self.target}")

    @property
    def networks(self):
        return {network.name: network for network in (self.generator, *self.discriminators)}

    @property
    def generators(self):
        return {self.config.direction: self._generate}

    def _generate(self, x, training=False):
        noisy = self.config.dropout and self.config.test_dropout and not training
        return self.generator(x, training=training, seeds=self.noise() if noisy else None)

    def noise(self):
        """The seeds of the masks that a trained model translates with: int32 [1, 2], as numpy."""
        with tf.init_scope():  # a constant in every graph
            return layers.sample_seeds(self.config.dropout_seed, 0, tf.range(1), "test dropout").numpy()

    @property
    def translation_note(self):
        if not (self.config.dropout and self.config.test_dropout):
            return None
        return (
            "Dropout stays on when this model translates, as published, with the masks of "
            f"--dropout_seed={self.config.dropout_seed}: one picture always has one translation."
        )

    def input_shape_of(self, name):
        if name == self.generator.name:
            return (None, None, None, self.channels_of(self.source))
        return (None, None, None, self._judged_channels())

    def _judged_channels(self):
        return self.channels_of(self.target) + (self.channels_of(self.source) if self.config.conditional else 0)

    def build_for_training(self, shape_a, shape_b):
        super().build_for_training(shape_a, shape_b)
        if not self.pool.built:
            self.pool.build((*shape_a[:-1], self._judged_channels()))

    def pictures(self, a, b):
        x, y = self.in_direction(a, b)
        made = self.generate(x, self.config.direction)
        source, target = self.source.upper(), self.target.upper()
        return {source: x, f"{source} to {target}": made, target: y}

    # -----------------------------------------------------------------------------------------------------------------
    # One step (section 3.3; in PyTorch's order, the discriminator first)

    def in_direction(self, a, b):
        """(inputs, truths) of a batch of pairs."""
        return (a, b) if self.config.direction == "a2b" else (b, a)

    def judged(self, x, y):
        """What the discriminator looks at: the input, then the picture of it; [N, H, W, C + C']."""
        return ops.concatenate([x, y], axis=-1) if self.config.conditional else y

    def judge(self, pairs):
        """For each size the maps of a discriminator, [N, h, w, F], of which the last are its logits."""
        maps = []
        for discriminator in self.discriminators:
            pairs = halved(pairs) if maps else pairs
            maps.append(discriminator(pairs, training=True, features=True))
        return maps

    def learn(self, a, b, indices):
        x, y = self.in_direction(a, b)
        seeds = layers.sample_seeds(self.seed, self.step.value, indices, "dropout")
        losses = {}
        if self.config.lambda_gan:
            _, made = self.phase(self.translation, None, x=x, seeds=seeds)
            fake = self.pool.query(made["judged"], self.step.value, indices)
            losses, _ = self.phase(self.discriminator_phase, "discriminator", real=self.judged(x, y), fake=fake)
        g_losses, _ = self.phase(self.generator_phase, "generator", x=x, y=y, seeds=seeds)
        return g_losses | losses

    def translation(self, x, seeds):
        """What the discriminator is shown of the generator before either learns."""
        fake = self.generator(x, training=True, seeds=seeds)
        return {}, {"judged": self.judged(x, fake)}

    def discriminator_phase(self, real, fake):
        """½ (L(D(x, y), 1) + L(D(x, G(x)), 0)), summed over the sizes; not halved but in PyTorch's code."""
        if self.batches_mix:
            logits = [[maps[-1] for maps in self.judge(pairs)] for pairs in (fake, real)]
        else:
            logits = zip(*(ops.split(maps[-1], 2) for maps in self.judge(ops.concatenate([fake, real]))))
        loss, kind = 0.0, self.config.gan_loss
        for judged_fake, judged_real in zip(*logits):
            loss += adversarial_loss(judged_fake, False, kind) + adversarial_loss(judged_real, True, kind)
        return {f"discriminator_{self.target}": self.discriminator_weight * loss}, {}

    def generator_phase(self, x, y, seeds):
        """λ_gan L(D(x, G(x)), 1) + λ_l1 ‖y - G(x)‖₁ (equation 4), D being the updated discriminator, + features."""
        c, losses = self.config, {}
        fake = self.generator(x, training=True, seeds=seeds)
        if c.lambda_gan:
            seen = self.judge(self.judged(x, fake))
            loss = sum(adversarial_loss(maps[-1], True, c.gan_loss) for maps in seen)
            losses[f"gan_{c.direction}"] = c.lambda_gan * loss
        if c.lambda_features:
            of_truth = self.judge(self.judged(x, y))
            losses[f"features_{self.target}"] = c.lambda_features * feature_matching(seen, of_truth)
        if c.lambda_l1:
            losses[f"l1_{self.target}"] = c.lambda_l1 * l1(fake, y)
        return losses, {}
