"""U-GAT-IT: Kim, Kim, Kang, Lee, arXiv 1907.10830; layers as in the authors' two codes.

Names: `generator_a2b` is the paper's G_s→t; a discriminator's name says the domain it judges and how much of a picture
one of its answers sees: `discriminator_b_local`, `discriminator_b_global`. A suffix of a loss names the domain whose
images it compares: `cycle_a` compares A with its way there and back, `identity_b` B with generator_a2b(B).

`--ugatit_variant` chooses between three networks:

- tensorflow: every convolution and dense layer has a bias; instance norm in the encoder has gamma and beta; the two
  pools share one CAM weight, whose bias is added to the attention map too; the discriminators' last convolutions keep
  the map's size; ρ of AdaLIN starts at 1, and 0.1 is subtracted from it before use; N(0, 0.02); weight decay of
  kernels.
- pytorch: biases in the discriminators and behind the attention only; no affine instance norm; two CAM weights, and in
  the discriminators the map is made with the raw, the classification with the spectrally normalised one; maps shrink
  by a pixel in each of the last two convolutions; ρ starts at 0.9; unbiased variances in AdaLIN and LIN; torch's
  initialisation; weight decay of everything.
- paper, the default: as tensorflow without the 0.1. The published figures come from the TensorFlow code, and what the
  paper says of its initialisation (ρ 1 and 0, N(0, 0.02), biases 0) is true of that code only; the 0.1 is not in the
  paper.

Departures: both phases of a step see the same images (the TensorFlow code draws new ones for each), and the
discriminators judge real before translated images (there, in no order). The style network is always 4 widths wide,
which the TensorFlow code's is with its 4 blocks. The printed least-squares losses have their labels exchanged, by the
authors' word; here as in both codes: 1 is real.
"""

import keras
from keras import ops

from tfi2i import layers
from tfi2i.config import UserError
from tfi2i.methods.attention import AttentiveTranslator
from tfi2i.methods.losses import l1
from tfi2i.methods.sizes import Sizes
from tfi2i.methods.translator import translate_and_keep
from tfi2i.methods.ugatit import config

# ---------------------------------------------------------------------------------------------------------------------
# Networks (paper: section 2.1, appendix B)


class _Network(layers.Network):
    """What the variants do differently in all networks."""

    def __init__(self, variant, **kwargs):
        torch = variant == "pytorch"
        super().__init__(**kwargs | {"init": "torch" if torch else "normal", "init_gain": 0.02})
        self.variant, self.torch = variant, torch

    def conv(self, *args, **kwargs):
        """The next convolution of a generator: padded by reflection, with a bias or not."""
        return super().conv(*args, pad_mode="reflect", use_bias=not self.torch, **kwargs)

    def mix(self, channels):
        """The 1×1 convolution of the two attended maps; it has a bias in every variant."""
        named = self.next_layer("mix")
        return layers.Conv2D(
            channels,
            1,
            kernel_initializer=layers.initializer(self.init, self.init_gain, self.layer_seed),
            bias_initializer=layers.bias_initializer(self.init, 2 * channels, self.layer_seed),
            **named,
        )

    def activation(self, spectral=False):
        named = self.next_layer("cam")
        return ClassActivation(not self.torch, spectral, self.init, self.init_gain, self.layer_seed, **named)

    def instance_norm(self):
        return layers.InstanceNormalization(center=not self.torch, scale=not self.torch, **self.next_layer("norm"))


class ClassActivation(keras.layers.Layer):
    """Classifies a map [N, H, W, C] by its pooled features and weighs its channels with the classifier's weights.

    Args:
        shared: one weight with a bias for both pools, else two weights without.
        spectral: the classification uses spectrally normalised weights; so does the map if `shared`.
        init, init_gain, seed: of the weights.

    Returns:
        (logits float32 [N, 2]: average pool, maximum pool; map [N, H, W, 2 C] in the same order).
    """

    def __init__(self, shared, spectral, init, init_gain, seed, **kwargs):
        super().__init__(**kwargs)
        self.shared = shared
        self.init, self.init_gain, self.seed = init, init_gain, seed
        names = ("kernel",) if shared else ("kernel_average", "kernel_maximum")
        self.names = names
        self.spectral = [
            layers.SpectralNormalization(layers.derived_seed(seed, name), name=f"spectral_{name}")
            for name in names
            if spectral
        ]

    def build(self, input_shape):
        shape = (input_shape[-1], 1)
        self.kernels = []
        for name in self.names:
            start = layers.initializer(self.init, self.init_gain, layers.derived_seed(self.seed, name))
            self.kernels.append(self.add_weight(shape=shape, initializer=start, name=name, autocast=False))
        self.bias = 0.0
        if self.shared:
            self.bias = self.add_weight(shape=(1,), initializer="zeros", name="bias", autocast=False)
        for spectral in self.spectral:
            spectral.build(shape)
        self.built = True

    def call(self, x, training=False):
        raw = [ops.convert_to_tensor(k) for k in self.kernels]
        used = [s(k, training=training) for s, k in zip(self.spectral, raw)] or raw
        weights = [k + self.bias for k in used] if self.shared else raw
        if self.shared:
            used, weights = used * 2, weights * 2
        y = ops.cast(x, "float32")
        pools = (ops.mean(y, axis=(1, 2)), ops.max(y, axis=(1, 2)))
        logits = [ops.matmul(pool, k) + self.bias for pool, k in zip(pools, used)]
        maps = [x * ops.cast(w[:, 0], x.dtype) for w in weights]
        return ops.concatenate(logits, axis=-1), ops.concatenate(maps, axis=-1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 2), (*input_shape[:-1], 2 * input_shape[-1])


class ResidualBlock(_Network):
    """x + IN(conv3(relu(IN(conv3(x))))); no activation after the sum."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.conv_1, self.norm_1 = self.conv(width, 3, pad=1), self.instance_norm()
        self.conv_2, self.norm_2 = self.conv(width, 3, pad=1), self.instance_norm()
        self.stack = [self.conv_1, self.norm_1, self.conv_2, self.norm_2]

    def call(self, x, training=False):
        y = ops.relu(self.norm_1(self.conv_1(x), training=training))
        return x + self.norm_2(self.conv_2(y), training=training)


class AdaptiveBlock(_Network):
    """x + N(conv3(relu(N(conv3(x))))), N being AdaLIN or another norm of the decoder: (x, gamma, beta) → x's shape."""

    def __init__(self, width, norm, **kwargs):
        super().__init__(**kwargs)
        self.conv_1, self.norm_1 = self.conv(width, 3, pad=1), norm(**self.next_layer("norm"))
        self.conv_2, self.norm_2 = self.conv(width, 3, pad=1), norm(**self.next_layer("norm"))
        self.stack = [self.conv_1, self.norm_1, self.conv_2, self.norm_2]

    def call(self, x, gamma=None, beta=None):
        y = ops.relu(self.norm_1(self.conv_1(x), gamma, beta))
        return x + self.norm_2(self.conv_2(y), gamma, beta)


class Generator(_Network):
    """Encoder, attention, decoder: [N, H, W, C] → float32 [N, H, W, channels] in [-1, 1].

    c7s1-w, d2w, d4w, `blocks` × R4w; CAM, 1×1; gamma and beta from two dense layers, of all features of `image_size`
    or, light, of the pooled ones; `blocks` × R4w with AdaLIN; twice: nearest ×2, c3, LIN; c7s1-channels, tanh.

    H and W are multiples of 4, at least 8.

    Call with `attention=True` for (images, CAM logits [N, 2], attention float32 [N, H/4, W/4, 1]: the sum of all
    features behind the 1×1 convolution); logits and attention are None without CAM.
    """

    def __init__(self, channels, width, blocks, light, image_size, decoder_norm, cam, **kwargs):
        super().__init__(**kwargs)
        self.light, self.image_size = light, image_size
        self.features = 4 * width * (1 if light else (image_size[0] // 4) * (image_size[1] // 4))
        inner = {"variant": self.variant}

        self.down = [self.conv(width, 7, pad=3), self.instance_norm()]
        for m in (2, 4):
            self.down += [self.conv(width * m, 3, 2, pad=1), self.instance_norm()]
        self.encoder = [ResidualBlock(4 * width, **inner, **self.next_network("block")) for _ in range(blocks)]
        self.cam = self.activation() if cam else None
        self.mixed = self.mix(4 * width) if cam else None
        adaptive = decoder_norm in ("adalin", "adain")
        self.style = [self.dense(4 * width, use_bias=not self.torch) for _ in range(4)] if adaptive else []

        kind = {"adalin": "lin", "adain": "in"}.get(decoder_norm, decoder_norm)

        def norm(**named):
            return layers.LayerInstanceNormalization(
                kind,
                adaptive,
                rho=0.9 if self.torch else 1.0,
                smoothing=0.1 if self.variant == "tensorflow" else 0.0,
                unbiased=self.torch,
                **named,
            )

        self.decoder = [AdaptiveBlock(4 * width, norm, **inner, **self.next_network("block")) for _ in range(blocks)]
        self.up = []
        for m in (2, 1):
            self.up.append(layers.Enlarge(2, **self.next_layer("enlarge")))
            self.up.append(self.conv(width * m, 3, pad=1))
            self.up.append(layers.LayerInstanceNormalization(kind, unbiased=self.torch, **self.next_layer("norm")))
        self.tail = self.conv(channels, 7, pad=3)

    def build(self, input_shape):
        def through(stack, shape):
            for layer in stack:
                layer.build(shape)
                shape = layer.compute_output_shape(shape)
            return shape

        shape = through([*self.down, *self.encoder], input_shape)
        if self.cam:
            through([self.mixed], through([self.cam], shape)[1])
        if self.style:
            first, *others = self.style
            first.build((None, self.features))
            for layer in others:
                layer.build((None, shape[-1]))
        through([*self.decoder, *self.up, self.tail], shape)
        self.built = True

    def call(self, x, training=False, attention=False):
        for conv, norm in zip(self.down[::2], self.down[1::2]):
            x = layers.rectified(x, conv, norm, training=training)
        x = layers.in_turn(self.encoder, x, training=training)
        logits, heat = None, None
        if self.cam:
            logits, x = self.cam(x, training=training)
            x = ops.relu(self.mixed(x))
            heat = ops.sum(ops.cast(x, "float32"), axis=-1, keepdims=True)
        gamma, beta = self.gamma_and_beta(x) if self.style else (None, None)
        x = layers.in_turn(self.decoder, x, gamma, beta, training=training)
        for enlarge, conv, norm in zip(self.up[::3], self.up[1::3], self.up[2::3]):
            x = layers.rectified(x, enlarge, conv, norm, training=training)
        y = ops.tanh(ops.cast(self.tail(x), "float32"))
        return (y, logits, heat) if attention else y

    def gamma_and_beta(self, x):
        """The decoder's style, [N, 4 width] each."""
        first, second, gamma, beta = self.style
        x = ops.mean(x, axis=(1, 2)) if self.light else ops.reshape(x, (-1, self.features))
        x = ops.relu(second(ops.relu(first(x))))
        return gamma(x), beta(x)

    def norms_with_rho(self):
        """The AdaLIN and LIN layers, from the inside outwards."""
        inner = [norm for block in self.decoder for norm in (block.norm_1, block.norm_2)]
        return [norm for norm in [*inner, *self.up[2::3]] if norm.rho is not None]

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.tail.filters)


class Discriminator(_Network):
    """`layer_count` convolutions with spectral norm, LeakyReLU 0.2, and attention before the last.

    Call: [N, H, W, C] → (logits float32 [N, h, w, 1], CAM logits [N, 2], attention float32 [N, h', w', 1]), the last
    two None without CAM. All but the last two convolutions halve the map.
    """

    def __init__(self, layer_count, width, cam, **kwargs):
        super().__init__(**kwargs)
        strided = layer_count - 2
        # Reflection of one pixel needs two, and with the PyTorch code's padding the map has lost one by then.
        self.size_minimum = 3 * 2**strided
        # The TensorFlow code keeps the size of a map at stride 1, at the cost of symmetry.
        same = (1, 1) if self.torch else (1, 2)
        self.convs = [self.spectral(width * 2**i, 2, (1, 1)) for i in range(strided)]
        self.convs.append(self.spectral(width * 2**strided, 1, same))
        self.cam = self.activation(spectral=True) if cam else None
        self.mixed = self.mix(width * 2**strided) if cam else None
        self.last = self.spectral(1, 1, same, use_bias=not self.torch)

    def spectral(self, filters, strides, pad, use_bias=True):
        named = self.next_layer("conv")
        start = {"init": self.init, "init_gain": self.init_gain, "seed": self.layer_seed}
        return layers.SpectralConv2D(filters, 4, strides, pad, "reflect", use_bias, **start, **named)

    def build(self, input_shape):
        shape = input_shape
        for conv in self.convs:
            conv.build(shape)
            shape = conv.compute_output_shape(shape)
        if self.cam:
            self.cam.build(shape)
            self.mixed.build(self.cam.compute_output_shape(shape)[1])
        self.last.build(shape)
        self.built = True

    def call(self, x, training=False):
        for conv in self.convs:
            x = layers.leaky_relu(conv(x, training=training), 0.2)
        logits, heat = None, None
        if self.cam:
            logits, x = self.cam(x, training=training)
            x = layers.leaky_relu(self.mixed(x), 0.2)
            heat = ops.sum(ops.cast(x, "float32"), axis=-1, keepdims=True)
        return ops.cast(self.last(x, training=training), "float32"), logits, heat


# ---------------------------------------------------------------------------------------------------------------------
# Losses (paper: section 2.2)


def least_squares(judged, target):
    """mean (D - target)² of the map's logits, plus mean (C - target)² where there are CAM logits C."""
    map_logits, cam_logits, _ = judged
    loss = ops.mean(ops.square(map_logits - target))
    return loss if cam_logits is None else loss + ops.mean(ops.square(cam_logits - target))


def classification_loss(source, target):
    """Cross-entropy of a generator's CAM logits [N, 2]: 1 for images to translate, 0 for those already there."""
    return ops.mean(ops.softplus(-source)) + ops.mean(ops.softplus(target))


# ---------------------------------------------------------------------------------------------------------------------
# Attention for people to look at


def enlarged(heat, x):
    """A map [N, h, w, 1] at the size of the images x [N, H, W, C]."""
    return ops.image.resize(heat, ops.shape(x)[1:3], interpolation="bilinear", data_format="channels_last")


def stretched(heat):
    """Each map [H, W, 1] of a batch from 0 to 1; one that is constant all 0."""
    low, high = (f(heat, axis=(1, 2, 3), keepdims=True) for f in (ops.min, ops.max))
    return (heat - low) / ops.maximum(high - low, 1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# The model


@keras.saving.register_keras_serializable(package="tfi2i")
class UGATIT(AttentiveTranslator):
    """Two generators with attention, a local and a global discriminator a domain. Hyper-parameters: `config.UGATIT`.

    Example:

        model = tfi2i.UGATIT(light=True, generator_width=32)
        model.compile()
        model.fit(dataset)                      # batches (A, B), float32 in [-1, 1]
        pictures, attention = model.translate(photos, return_heatmap=True)
    """

    config_class = config.UGATIT
    advice = {
        "silent discriminator": "try a smaller --discriminator_width, fewer --global_layers and --local_layers, or "
        "more images",
        "unchanged": "lower --lambda_identity or --lambda_cycle, or train on smaller crops",
        "blank": "start again with a lower --learning_rate or another --seed",
        "inverted": "raise --lambda_identity, or start again with another --seed",
        "small crop": ", or give fewer --global_layers",
    }

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="ugatit", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c = self.config
        own_domain = [n for n in ("lambda_identity", "lambda_cam") if getattr(c, n)]
        if own_domain and channels_a != channels_b:
            raise UserError(
                f"--{own_domain[0]}={getattr(c, own_domain[0])} feeds each generator its own output domain, but A has "
                f"{channels_a} and B {channels_b} channels: set --lambda_identity=0 --lambda_cam=0 or make the "
                "channels equal"
            )
        size = c.image_size
        if not c.light and any(n % 4 or n < 8 for n in size):
            raise UserError(f"--image_size={size[0]},{size[1]}: height and width must be multiples of 4, at least 8")
        self.decay_kernels_only = c.ugatit_variant != "pytorch"
        shared = {"variant": c.ugatit_variant, "seed": seed, "dtype": self.dtype_policy}

        def generator(channels, name):
            return Generator(
                channels,
                c.generator_width,
                c.residual_blocks,
                c.light,
                size,
                c.decoder_norm,
                c.cam_generator,
                name=name,
                **shared,
            )

        def discriminator(layer_count, name):
            return Discriminator(layer_count, c.discriminator_width, c.cam_discriminator, name=name, **shared)

        self.generator_a2b = generator(channels_b, "generator_a2b")
        self.generator_b2a = generator(channels_a, "generator_b2a")
        self.discriminator_a_global = discriminator(c.global_layers, "discriminator_a_global")
        self.discriminator_b_global = discriminator(c.global_layers, "discriminator_b_global")
        self.discriminator_a_local = discriminator(c.local_layers, "discriminator_a_local")
        self.discriminator_b_local = discriminator(c.local_layers, "discriminator_b_local")
        judges = (self.discriminator_a_global, self.discriminator_a_local)
        crop = max(8, *(d.size_minimum for d in judges))
        self.sizes = Sizes(multiple=4, minimum=8, fixed=None if c.light else size, crop_minimum=crop)

    @property
    def networks(self):
        judges = [f"discriminator_{domain}_{kind}" for kind in ("global", "local") for domain in "ab"]
        return {n: getattr(self, n) for n in ("generator_a2b", "generator_b2a", *judges)}

    @property
    def generators(self):
        return {"a2b": self.generator_a2b, "b2a": self.generator_b2a}

    def judges(self, domain):
        """The global and the local discriminator of domain "a" or "b"."""
        return [self.networks[f"discriminator_{domain}_{kind}"] for kind in ("global", "local")]

    def learn(self, a, b, indices):
        losses = {}
        if self.config.lambda_gan:
            losses, _ = self.phase(self.discriminator_phase, "discriminator", a=a, b=b)
        g_losses, _ = self.phase(self.generator_phase, "generator", a=a, b=b)
        return g_losses | losses

    def discriminator_phase(self, a, b):
        """Σ over global, local, map and CAM of (D(real) - 1)² + D(fake)²; no halving."""
        fakes = {"a": self.generator_b2a(b, training=True), "b": self.generator_a2b(a, training=True)}
        losses = {}
        for domain, real in (("a", a), ("b", b)):
            total = 0.0
            for judge in self.judges(domain):
                # One call each: spectral norm takes a step of its power iteration with every call.
                judged_real, judged_fake = judge(real, training=True), judge(fakes[domain], training=True)
                total += least_squares(judged_real, 1.0) + least_squares(judged_fake, 0.0)
            losses[f"discriminator_{domain}"] = self.config.lambda_gan * total
        return losses, {}

    def generator_phase(self, a, b):
        """Adversarial (equation 3), cycle (4), identity (5) and CAM (6) losses of both directions, with weights."""
        c = self.config

        def a2b(x):
            return self.generator_a2b(x, training=True, attention=True)

        def b2a(x):
            return self.generator_b2a(x, training=True, attention=True)

        keep = bool(c.lambda_identity or (c.lambda_cam and c.cam_generator))
        made_b, kept_b = translate_and_keep(a2b, (a,), (b,), keep)  # each: images, CAM logits, attention
        made_a, kept_a = translate_and_keep(b2a, (b,), (a,), keep)
        fake_b, fake_a = made_b[0], made_a[0]
        losses = {}
        if c.lambda_gan:
            for name, domain, fake in (("gan_a2b", "b", fake_b), ("gan_b2a", "a", fake_a)):
                judged = [judge(fake, training=True) for judge in self.judges(domain)]
                losses[name] = c.lambda_gan * sum(least_squares(j, 1.0) for j in judged)
        if c.lambda_cycle:
            losses["cycle_a"] = c.lambda_cycle * l1(self.generator_b2a(fake_b, training=True), a)
            losses["cycle_b"] = c.lambda_cycle * l1(self.generator_a2b(fake_a, training=True), b)
        if c.lambda_identity:
            losses["identity_a"] = c.lambda_identity * l1(kept_a[0], a)
            losses["identity_b"] = c.lambda_identity * l1(kept_b[0], b)
        if c.lambda_cam and c.cam_generator:
            losses["cam_a2b"] = c.lambda_cam * classification_loss(made_b[1], kept_b[1])
            losses["cam_b2a"] = c.lambda_cam * classification_loss(made_a[1], kept_a[1])
        return losses, {}

    def attention(self, x, direction="a2b"):
        """Where the generator looks in images [N, H, W, C] of any size: float32 [N, H, W, 1], each map from 0 to 1."""

        def look(x):
            with self.averaged():
                return stretched(enlarged(self.generators[direction](x, attention=True)[2], x))

        return stretched(self.generate(x, direction, network=look))

    @property
    def has_attention(self):
        return self.config.cam_generator

    def check_heatmaps(self, discriminators=False):
        for name in ("cam_generator", *["cam_discriminator"] * discriminators):
            if not getattr(self.config, name):
                raise UserError(f"--heatmaps: trained with --no{name}: these networks have no attention to show")

    def check_crop(self, height, width):
        if self.sizes.fixed and (height, width) != self.sizes.fixed:
            size = ",".join(map(str, self.sizes.fixed))
            seen = "crops of no fixed size" if height is None else f"--crop={height},{width}"
            raise UserError(
                f"{seen}: without --light the generators are built for {size} alone, because a dense layer takes all "
                f"features of that map; give --light, or --crop={size}, or leave --image_size to follow the crop"
            )
        super().check_crop(height, width)

    def discriminator_attention(self, x, domain):
        maps = {}
        for kind, judge in zip(("global", "local"), self.judges(domain)):
            if min(x.shape[1:3]) < judge.size_minimum:
                raise UserError(
                    f"the {kind} discriminator needs images of {judge.size_minimum} pixels a side, these have "
                    f"{x.shape[1]} x {x.shape[2]}: give --size, or leave its heatmap out"
                )
            maps[kind] = stretched(enlarged(judge(x)[2], x))
        return maps

    def monitored(self):
        """Mean ρ of every AdaLIN and LIN, as used: the paper's reading of texture (1) against shape (0)."""
        return {
            f"rho_{direction}_{i}": ops.mean(norm.effective_rho())
            for direction, generator in self.generators.items()
            for i, norm in enumerate(generator.norms_with_rho(), 1)
        }
