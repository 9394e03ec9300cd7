"""CycleGAN: Zhu, Park, Isola, Efros, arXiv 1703.10593; layers as in the authors' PyTorch code.

Names: `generator_a2b` is the paper's G and the code's G_A, `generator_b2a` is F and G_B. A suffix names the domain of
the images that a loss or discriminator looks at: `discriminator_b` judges domain B (the code calls it D_A), `cycle_a`
compares A with its way there and back, `identity_b` compares B with generator_a2b(B) (the code's idt_A).

`--cyclegan_variant` chooses between two sets of layers:

- pytorch, the default: those of the authors' code.
- tensorflow: those of what was written in TensorFlow, for the weights that people have. In the ResNet generators, as in
  LynnHo/CycleGAN-Tensorflow-2 and the example of keras.io, convolutions of stride 2 are padded as "same", which puts
  them a pixel beside PyTorch's; so are all of the discriminators. Instance norms have a factor and an offset for each
  channel, and a larger epsilon; no convolution before a norm has a bias, nor where --norm=none. The U-Net is that of
  TensorFlow's tutorials: a norm at the bottom too, slopes of 0.3, and each skip carries what its level's activation let
  through instead of rectifying it once more.

Departures: convolutions before an instance norm keep their biases, as in the code, although these cannot change the
output; the factors of batch norms start at N(1, init_gain²) with --init=normal alone, and at N(1, 0.02²) otherwise,
where the code takes the gain of any initialiser for their deviation; the gradient penalty of wgan-gp is applied, beside
the halved critic loss (the code has it and never calls it); an epoch's images of B are a permutation, as those of A
(the code draws them with replacement).
"""

import keras
from keras import ops

from tfi2i import layers
from tfi2i.config import UserError
from tfi2i.methods.cyclegan import config
from tfi2i.methods.losses import adversarial_loss, gradient_penalty, l1
from tfi2i.methods.memory import ImagePool
from tfi2i.methods.sizes import Sizes
from tfi2i.methods.translator import Translator, translate_and_keep

# ---------------------------------------------------------------------------------------------------------------------
# Networks (paper: appendix 7.2)


class _Network(layers.Network):
    """What the variants and norms do differently in all networks.

    With PyTorch's instance norm inner convolutions have biases; with batch norm, none and TensorFlow's they do not.
    `affine`: instance norms have a factor and an offset for each channel, as TensorFlow's do; the factors start around
    1, as in the authors' Torch7 code. `batch_norm`: further arguments of batch norms. Factors that are drawn deviate
    by `init_gain` with the initialiser "normal", and by 0.02 with others, whose gain is no deviation.
    """

    def __init__(self, norm, dropout, epsilon=1e-5, variant="pytorch", affine=False, batch_norm=None, **kwargs):
        super().__init__(**kwargs)
        self.norm_kind, self.epsilon = norm, epsilon
        self.variant, self.tensorflow = variant, variant == "tensorflow"
        self.affine = affine or self.tensorflow
        self.batch_norm = batch_norm or {}
        self.dropout_on = dropout
        self.inner_bias = norm == "instance" and not self.tensorflow

    def conv(self, *args, bias=None, **kwargs):
        return super().conv(*args, use_bias=self.inner_bias if bias is None else bias, **kwargs)

    def conv_transpose(self, *args, bias=None, **kwargs):
        return super().conv_transpose(*args, use_bias=self.inner_bias if bias is None else bias, **kwargs)

    def norm(self):
        named, epsilon = self.next_layer("norm"), self.epsilon
        deviation = self.init_gain if self.init == "normal" else 0.02
        if self.norm_kind == "instance":
            learned = {"center": self.affine, "scale": self.affine}
            if self.affine and not self.tensorflow:
                start = keras.initializers.RandomNormal(1.0, deviation, seed=self.layer_seed)
                learned["gamma_initializer"] = start
            return layers.InstanceNormalization(epsilon=epsilon, **learned, **named)
        if self.norm_kind == "batch":
            momentum = {"momentum": 0.99} if self.tensorflow else {}
            drawn = {"gain": deviation, "seed": self.layer_seed}
            return layers.BatchNormalization(epsilon=epsilon, **momentum | self.batch_norm, **drawn, **named)
        return keras.layers.Identity(**named)

    @property
    def shared(self):
        """What the networks that are part of this one have in common with it."""
        norms = {"norm": self.norm_kind, "epsilon": self.epsilon, "affine": self.affine, "batch_norm": self.batch_norm}
        return norms | {"variant": self.variant}

    def dropout(self):
        if not self.dropout_on:
            return None
        named = self.next_layer("dropout")
        return layers.Dropout(0.5, index=self.layer_seed, **named)


class ResnetBlock(_Network):
    """x + IN(conv3(relu(IN(conv3(x))))), reflection padding; no activation after the sum."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.conv_1, self.norm_1 = self.conv(width, 3, pad=1, pad_mode="reflect"), self.norm()
        self.drop = self.dropout()
        self.conv_2, self.norm_2 = self.conv(width, 3, pad=1, pad_mode="reflect"), self.norm()
        self.stack = [self.conv_1, self.norm_1, self.conv_2, self.norm_2]

    def call(self, x, training=False, seeds=None):
        y = ops.relu(self.norm_1(self.conv_1(x), training=training))
        if self.drop:
            y = self.drop(y, seeds)
        return x + self.norm_2(self.conv_2(y), training=training)

    def compute_output_shape(self, input_shape):
        return input_shape


class ResnetGenerator(_Network):
    """c7s1-w, d2w, d4w, `blocks` × R4w, u2w, uw, c7s1-channels, tanh: [N, H, W, C] → [N, H, W, channels].

    H and W are multiples of 4, at least 8. `upsample`: "transposed" as published, or "resize_conv": nearest, then a
    3×3 convolution.
    """

    def __init__(self, channels, width, blocks, upsample, **kwargs):
        super().__init__(**kwargs)
        self.upsample = upsample
        self.head, self.head_norm = self.conv(width, 7, pad=3, pad_mode="reflect"), self.norm()
        pad = "same" if self.tensorflow else 1
        self.down = [(self.conv(width * m, 3, 2, pad), self.norm()) for m in (2, 4)]
        inner = self.shared | {"dropout": self.dropout_on}
        self.blocks = [ResnetBlock(width * 4, **inner, **self.next_network("block")) for _ in range(blocks)]
        if upsample == "transposed":
            cut = {"pad": 0, "output_pad": -1} if self.tensorflow else {"pad": 1, "output_pad": 1}
            self.up = [(self.conv_transpose(width * m, 3, **cut), self.norm()) for m in (2, 1)]
            before = [[], []]
        else:
            self.enlarge = [layers.Enlarge(2, **self.next_layer("enlarge")) for _ in range(2)]
            self.up = [(self.conv(width * m, 3, pad=1, pad_mode="reflect"), self.norm()) for m in (2, 1)]
            before = [[e] for e in self.enlarge]
        self.tail = self.conv(channels, 7, pad=3, pad_mode="reflect", bias=True)
        ups = [layer for e, pair in zip(before, self.up) for layer in (*e, *pair)]
        downs = [layer for pair in self.down for layer in pair]
        self.stack = [self.head, self.head_norm, *downs, *self.blocks, *ups, self.tail]

    def call(self, x, training=False, seeds=None):
        x = layers.rectified(x, self.head, self.head_norm, training=training)
        for conv, norm in self.down:
            x = layers.rectified(x, conv, norm, training=training)
        for block in self.blocks:
            x = layers.remat(block, x, training=training, seeds=seeds)
        for i, (conv, norm) in enumerate(self.up):
            before = [self.enlarge[i]] if self.upsample == "resize_conv" else []
            x = layers.rectified(x, *before, conv, norm, training=training)
        return ops.tanh(ops.cast(self.tail(x), "float32"))


class UnetBlock(_Network):
    """One level of the U-Net: down, `inner`, up, concatenated with its input; `place` outermost, middle, innermost.

    LeakyReLU 0.2 before every down convolution but the outermost, ReLU before every up convolution. TensorFlow's:
    LeakyReLU 0.3; the input is concatenated after it, and ReLU is behind every up convolution but the outermost.
    """

    def __init__(self, channels, width, inner, place, **kwargs):
        super().__init__(**kwargs)
        self.place = place
        self.down = self.conv(width, 4, 2, 1)
        self.down_norm = self.norm() if place == "middle" or place == "innermost" and self.tensorflow else None
        self.inner = inner
        self.up = self.conv_transpose(channels, 4, pad=1, bias=True if place == "outermost" else None)
        self.up_norm = self.norm() if place != "outermost" else None
        self.drop = self.dropout()

    def build(self, input_shape):
        self.down.build(input_shape)
        shape = self.down.compute_output_shape(input_shape)
        if self.down_norm:
            self.down_norm.build(shape)
        if self.inner:
            self.inner.build(shape)
            shape = self.inner.compute_output_shape(shape)
        self.up.build(shape)
        if self.up_norm:
            self.up_norm.build(self.up.compute_output_shape(shape))
        self.built = True

    def call(self, x, training=False, seeds=None):
        slope = 0.3 if self.tensorflow else 0.2
        activated = x if self.place == "outermost" else layers.leaky_relu(x, slope)
        down, up = (tuple(filter(None, pair)) for pair in ((self.down, self.down_norm), (self.up, self.up_norm)))
        y = layers.remat(self.shrink, activated, training=training, of=down)
        if self.inner:
            y = self.inner(y, training=training, seeds=seeds)
        elif self.tensorflow:
            y = layers.leaky_relu(y, slope)
        y = layers.remat(self.enlarge, y, training=training, of=up, seeds=seeds)
        if self.place == "outermost":
            return y
        return ops.concatenate([ops.relu(y), activated] if self.tensorflow else [x, y], axis=-1)

    def shrink(self, x, training):
        """The way down, to half the side."""
        y = self.down(x)
        return self.down_norm(y, training=training) if self.down_norm else y

    def enlarge(self, y, training, seeds):
        """The way up, to twice the side."""
        y = self.up(y if self.tensorflow else ops.relu(y))
        if self.up_norm:
            y = self.up_norm(y, training=training)
        return self.drop(y, seeds) if self.drop else y

    def compute_output_shape(self, input_shape):
        n, h, w, c = input_shape
        return (n, h, w, self.up.filters + (0 if self.place == "outermost" else c))


class UnetGenerator(_Network):
    """pix2pix' U-Net with `downs` halvings: [N, H, W, C] → [N, H, W, channels]; H, W multiples of 2 ** downs.

    Dropout is in the levels of 8 times the width but the innermost; with `innermost_dropout` in the three innermost.
    Seeds switch it on.
    """

    def __init__(self, channels, width, downs, innermost_dropout=False, **kwargs):
        super().__init__(**kwargs)

        def level(i, *args, dropout=False):
            named = self.next_network("level") | {"name": f"level_{i}"}  # counted from the outermost inwards
            return UnetBlock(*args, dropout=dropout, **named, **self.shared)

        # (channels out, channels after the down convolution), from the innermost outwards.
        block = level(downs, width * 8, width * 8, None, "innermost", dropout=self.dropout_on and innermost_dropout)
        for i in range(downs - 5):
            dropout = self.dropout_on and not (innermost_dropout and i >= 2)
            block = level(downs - 1 - i, width * 8, width * 8, block, "middle", dropout=dropout)
        for i, m in zip((4, 3, 2), (4, 2, 1)):
            block = level(i, width * m, width * m * 2, block, "middle")
        self.outermost = level(1, channels, width, block, "outermost")
        self.stack = [self.outermost]

    def call(self, x, training=False, seeds=None):
        return ops.tanh(ops.cast(self.outermost(x, training=training, seeds=seeds), "float32"))


class Discriminator(_Network):
    """PatchGAN of `layer_count` stride-2 convolutions, or the 1×1 pixel network: [N, H, W, C] → [N, h, w, 1] logits.

    The 3-layer PatchGAN sees 70×70 pixels and maps 256×256 to 30×30, TensorFlow's to 32×32. With `features` the result
    is the list of the maps after each convolution, of which the last are the logits.
    """

    def __init__(self, kind, layer_count, width, **kwargs):
        super().__init__(dropout=False, **kwargs)
        if kind == "pixel":
            plan = [(width, 1), (width * 2, 1)]
            kernel, pad = 1, 0
            self.size_minimum = 1
        else:
            plan = [(width * min(2**i, 8), 2) for i in range(layer_count)]
            plan += [(width * min(2**layer_count, 8), 1)]
            kernel, pad = 4, "same" if self.tensorflow else 1
            # One logit needs 3 rows before the two last convolutions, and every stride doubles that; padded as "same",
            # norms need 2 to have a variance.
            self.size_minimum = (2 if self.tensorflow else 3) * 2**layer_count
        self.first = self.conv(plan[0][0], kernel, plan[0][1], pad, bias=True)
        self.inner = [(self.conv(filters, kernel, strides, pad), self.norm()) for filters, strides in plan[1:]]
        # The published pixel network ends like its inner layers: a bias with instance norm only.
        self.last = self.conv(1, kernel, 1, pad, bias=None if kind == "pixel" else True)
        self.stack = [self.first, *[layer for pair in self.inner for layer in pair], self.last]

    def call(self, x, training=False, features=False):
        maps = [layers.leaky_relu(self.first(x), 0.2)]
        for conv, norm in self.inner:
            maps.append(layers.leaky_relu(norm(conv(maps[-1]), training=training), 0.2))
        logits = ops.cast(self.last(maps[-1]), "float32")
        return [*maps, logits] if features else logits


# ---------------------------------------------------------------------------------------------------------------------
# The model and its losses (paper: sections 3.1, 3.2, 4, 5.2)


@keras.saving.register_keras_serializable(package="tfi2i")
class CycleGAN(Translator):
    """Two generators, two discriminators, cycle consistency. Hyper-parameters: `config.CycleGAN`.

    Example:

        model = tfi2i.CycleGAN(generator="resnet_6blocks", generator_width=32)
        model.compile()
        model.fit(dataset)                      # batches (A, B), float32 in [-1, 1]
        pictures = model.translate(photos)      # uint8 in, uint8 out
    """

    config_class = config.CycleGAN
    advice = {
        "silent discriminator": "try --pool_size=50, a smaller --discriminator_width or --discriminator_layers, or "
        "more images",
        "unchanged": "lower --lambda_identity or --lambda_a/--lambda_b, or train on smaller crops",
        "blank": "start again with a lower --learning_rate or another --init",
        "inverted": "raise --lambda_identity, or start again with another --seed",
        "small crop": ", or give fewer --discriminator_layers",
    }

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="cyclegan", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c = self.config
        if c.lambda_identity and (c.lambda_a or c.lambda_b) and channels_a != channels_b:
            raise UserError(
                f"--lambda_identity={c.lambda_identity} feeds each generator its own output domain, but A has "
                f"{channels_a} and B {channels_b} channels: set --lambda_identity=0 or make the channels equal"
            )
        # Samples that share a call see the same arithmetic as alone, unless statistics are taken over the batch.
        self.batches_mix = c.norm == "batch"
        shared = {"norm": c.norm, "epsilon": c.norm_epsilon, "variant": c.cyclegan_variant}
        shared |= {"init": c.init, "init_gain": c.init_gain, "seed": seed, "dtype": self.dtype_policy}

        def generator(channels, name):
            shared_g = shared | {"dropout": c.dropout, "name": name}
            if c.generator.startswith("unet"):
                downs, innermost = {"unet_256": 8, "unet_128": 7}[c.generator], c.cyclegan_variant == "tensorflow"
                return UnetGenerator(channels, c.generator_width, downs, innermost, **shared_g)
            blocks = c.residual_blocks or {"resnet_9blocks": 9, "resnet_6blocks": 6}[c.generator]
            return ResnetGenerator(channels, c.generator_width, blocks, c.upsample, **shared_g)

        def discriminator(name):
            shared_d = shared | {"name": name}
            return Discriminator(c.discriminator, c.discriminator_layers, c.discriminator_width, **shared_d)

        self.generator_a2b = generator(channels_b, "generator_a2b")
        self.generator_b2a = generator(channels_a, "generator_b2a")
        self.discriminator_a = discriminator("discriminator_a")
        self.discriminator_b = discriminator("discriminator_b")
        multiple = {"unet_256": 256, "unet_128": 128}.get(c.generator, 4)
        minimum = max(8, multiple)
        self.sizes = Sizes(multiple, minimum, crop_minimum=max(minimum, self.discriminator_a.size_minimum))
        self.pool_a = ImagePool(c.pool_size, seed, name="pool_a")
        self.pool_b = ImagePool(c.pool_size, seed, name="pool_b")

    @property
    def networks(self):
        names = ("generator_a2b", "generator_b2a", "discriminator_a", "discriminator_b")
        return {n: getattr(self, n) for n in names}

    @property
    def generators(self):
        return {"a2b": self.generator_a2b, "b2a": self.generator_b2a}

    def build_for_training(self, shape_a, shape_b):
        super().build_for_training(shape_a, shape_b)
        for pool, shape in ((self.pool_a, shape_a), (self.pool_b, shape_b)):
            if not pool.built:
                pool.build(shape)

    def learn(self, a, b, indices):
        seeds = layers.sample_seeds(self.seed, self.step.value, indices, "dropout")
        losses, fakes = self.phase(self.generator_phase, "generator", a=a, b=b, seeds=seeds)
        if self.config.lambda_gan == 0:
            return losses
        # The discriminators learn from the images that the generators made before their own update.
        fake_a = self.pool_a.query(fakes["fake_a"], self.step.value, indices)
        fake_b = self.pool_b.query(fakes["fake_b"], self.step.value, indices)
        seeds = layers.sample_seeds(self.seed, self.step.value, indices, "gradient penalty")
        d_losses, _ = self.phase(
            self.discriminator_phase, "discriminator", a=a, b=b, fake_a=fake_a, fake_b=fake_b, seeds=seeds
        )
        return losses | d_losses

    def generator_phase(self, a, b, seeds):
        """λ_gan adversarial + λ_a ‖F(G(a)) - a‖₁ + λ_b ‖G(F(b)) - b‖₁ + identity (equations 1-3, section 5.2)."""
        c = self.config
        identity_a, identity_b = c.lambda_a * c.lambda_identity, c.lambda_b * c.lambda_identity

        def a2b(x, seeds):
            return self.generator_a2b(x, training=True, seeds=seeds)

        def b2a(x, seeds):
            return self.generator_b2a(x, training=True, seeds=seeds)

        other = seeds + 1
        fake_b, same_b = translate_and_keep(a2b, (a, seeds), (b, other), bool(identity_b), self.batches_mix)
        fake_a, same_a = translate_and_keep(b2a, (b, seeds), (a, other), bool(identity_a), self.batches_mix)
        losses = {}
        if c.lambda_gan:
            judged_b = self.discriminator_b(fake_b, training=True)
            judged_a = self.discriminator_a(fake_a, training=True)
            losses["gan_a2b"] = c.lambda_gan * adversarial_loss(judged_b, True, c.gan_loss)
            losses["gan_b2a"] = c.lambda_gan * adversarial_loss(judged_a, True, c.gan_loss)
        if c.lambda_a:
            losses["cycle_a"] = c.lambda_a * l1(b2a(fake_b, seeds + 2), a)
        if c.lambda_b:
            losses["cycle_b"] = c.lambda_b * l1(a2b(fake_a, seeds + 2), b)
        if identity_a:
            losses["identity_a"] = identity_a * l1(same_a, a)
        if identity_b:
            losses["identity_b"] = identity_b * l1(same_b, b)
        return losses, {"fake_a": fake_a, "fake_b": fake_b}

    def discriminator_phase(self, a, b, fake_a, fake_b, seeds):
        """½ (L(D(real), 1) + L(D(fake), 0)) for each domain, fakes from the pool."""
        c = self.config
        losses = {}
        for i, (domain, real, fake) in enumerate((("a", a, fake_a), ("b", b, fake_b))):
            discriminator = self.networks[f"discriminator_{domain}"]
            if self.batches_mix:
                judged_real, judged_fake = discriminator(real, training=True), discriminator(fake, training=True)
            else:
                judged_real, judged_fake = ops.split(discriminator(ops.concatenate([real, fake]), training=True), 2)
            loss = adversarial_loss(judged_real, True, c.gan_loss) + adversarial_loss(judged_fake, False, c.gan_loss)
            losses[f"discriminator_{domain}"] = 0.5 * loss
            if c.gan_loss == "wgan-gp" and c.lambda_gp:
                alpha = ops.reshape(layers.uniform(seeds + i), (-1, 1, 1, 1))
                mixed = alpha * real + (1 - alpha) * fake
                penalty = gradient_penalty(lambda x, d=discriminator: d(x, training=True), mixed)
                losses[f"penalty_{domain}"] = c.lambda_gp * penalty
        return losses, {}
