"""UNIT: Liu, Breuel, Kautz, arXiv 1703.00848; the paper's model, and the authors' model of 2018.

Two variational autoencoders, one a domain. An image x_a has a code z_a = μ_a + noise, μ_a = E_a(x_a), which G_a decodes
to a reconstruction and G_b to a translation. In the paper's model the deep layers of both encoders, and those of both
decoders, are the same: images that belong together share a code. The model of 2018 has no shared layers, other
networks and a least-squares loss at three sizes.

Names: a suffix names the domain of the images that a loss or network looks at: `reconstruction_a` compares A with
G_a(z_a), `cycle_a` with the way there and back, `kl_cycle_a` is about the code of A's translation, which E_b reads.

Departures: reductions are means over all elements, as in both released codes, where the paper sums; so KL is mean(μ²),
without the half. The final layer of the discriminators is 1×1 as released, where the paper's table has 2×2.
"""

import keras
from keras import ops

from tfi2i import layers
from tfi2i.config import UserError
from tfi2i.methods import perceptual
from tfi2i.methods.losses import adversarial_loss, l1
from tfi2i.methods.sizes import Sizes
from tfi2i.methods.translator import Translator
from tfi2i.methods.unit import config

# ---------------------------------------------------------------------------------------------------------------------
# The paper's networks (appendix; what it leaves open as in the code of October 2017)

# torch.nn.LeakyReLU's default, which the code leaves as it is.
_SLOPE = 0.01


class _Network(layers.Network):
    """Kernels N(0, 0.02), biases U(±1/√fan_in) as PyTorch leaves them, zero padding."""

    def conv(self, channels, filters, kernel, strides=1, **kwargs):
        layer = super().conv(filters, kernel, strides, pad=kernel // 2, **kwargs)
        layer.bias_initializer = layers.bias_initializer("torch", channels * kernel**2, self.layer_seed)
        return layer

    def conv_transpose(self, channels, filters, kernel):
        layer = super().conv_transpose(filters, kernel, pad=1, output_pad=1)
        # PyTorch takes a transposed convolution's output channels for its fan in.
        layer.bias_initializer = layers.bias_initializer("torch", filters * kernel**2, self.layer_seed)
        return layer

    def norm(self):
        return layers.InstanceNormalization(**self.next_layer("norm"))


class ResidualBlock(_Network):
    """x + dropout(IN(conv3(relu(IN(conv3(x)))))); a 1×1 convolution brings x to another width."""

    def __init__(self, channels, width, dropout, **kwargs):
        super().__init__(**kwargs)
        self.conv_1, self.norm_1 = self.conv(channels, width, 3), self.norm()
        self.conv_2, self.norm_2 = self.conv(width, width, 3), self.norm()
        self.drop = None
        if dropout:
            named = self.next_layer("dropout")
            self.drop = layers.Dropout(0.5, index=self.layer_seed, **named)
        self.project = self.conv(channels, width, 1) if channels != width else None
        self.stack = [self.conv_1, self.norm_1, self.conv_2, self.norm_2]

    def build(self, input_shape):
        super().build(input_shape)
        if self.project:
            self.project.build(input_shape)

    def call(self, x, training=False, seeds=None):
        y = ops.relu(self.norm_1(self.conv_1(x), training=training))
        y = self.norm_2(self.conv_2(y), training=training)
        if self.drop and training:
            y = self.drop(y, seeds)
        return (self.project(x) if self.project else x) + y


class ResidualBlocks(_Network):
    """`count` residual blocks: [N, H, W, channels] → [N, H, W, width]."""

    def __init__(self, count, channels, width, dropout, **kwargs):
        super().__init__(**kwargs)
        self.stack = []
        for _ in range(count):
            self.stack.append(ResidualBlock(channels, width, dropout, **self.next_network("block")))
            channels = width

    def call(self, x, training=False, seeds=None):
        for block in self.stack:
            x = layers.remat(block, x, training=training, seeds=seeds)
        return x


class Encoder(_Network):
    """The part of an encoder that is one domain's own: [N, H, W, C] → [N, H/4, W/4, code], float32 where it ends.

    7×7 to `width` channels, two 3×3 of stride 2 to 4 `width`, each with LeakyReLU; `blocks` residual blocks. `norm`
    "instance" puts IN and ReLU after the strided convolutions (the code's animal models).
    """

    def __init__(self, channels, width, blocks, residual_width, norm, dropout, **kwargs):
        super().__init__(**kwargs)
        self.normed = norm == "instance"
        self.head = self.conv(channels, width, 7)
        self.down = [self.conv(width * m, width * m * 2, 3, 2) for m in (1, 2)]
        self.down_norms = [self.norm() for _ in self.down] if self.normed else []
        self.blocks = ResidualBlocks(blocks, width * 4, residual_width, dropout, **self.next_network("blocks"))
        self.stack = [self.head, *self.down, self.blocks]

    def build(self, input_shape):
        super().build(input_shape)
        for norm, conv in zip(self.down_norms, self.down):
            norm.build((*input_shape[:-1], conv.filters))

    def call(self, x, training=False, seeds=None):
        x = layers.leaky_relu(self.head(x), _SLOPE)
        for i, conv in enumerate(self.down):
            if self.normed:
                x = layers.rectified(x, conv, self.down_norms[i], training=training)
            else:
                x = layers.leaky_relu(conv(x), _SLOPE)
        return self.blocks(x, training=training, seeds=seeds)


class Decoder(_Network):
    """The part of a decoder that is one domain's own: [N, h, w, code] → [N, 4h, 4w, C] in [-1, 1].

    `blocks` residual blocks, two transposed 3×3 that halve the channels, 1×1, tanh.
    """

    def __init__(self, channels, blocks, residual_width, norm, dropout, **kwargs):
        super().__init__(**kwargs)
        self.normed = norm == "instance"
        self.blocks = ResidualBlocks(blocks, residual_width, residual_width, dropout, **self.next_network("blocks"))
        self.up = [self.conv_transpose(residual_width // m, residual_width // m // 2, 3) for m in (1, 2)]
        self.up_norms = [self.norm() for _ in self.up] if self.normed else []
        self.tail = self.conv(residual_width // 4, channels, 1)
        self.stack = [self.blocks, *self.up, self.tail]

    def build(self, input_shape):
        super().build(input_shape)
        for norm, conv in zip(self.up_norms, self.up):
            norm.build((*input_shape[:-1], conv.filters))

    def call(self, x, training=False, seeds=None):
        x = self.blocks(x, training=training, seeds=seeds)
        for i, conv in enumerate(self.up):
            if self.normed:
                x = layers.rectified(x, conv, self.up_norms[i], training=training)
            else:
                x = layers.leaky_relu(conv(x), _SLOPE)
        return ops.tanh(ops.cast(self.tail(x), "float32"))


class Discriminator(_Network):
    """Convolutions of stride 2 that double the channels, LeakyReLU, 1×1: [N, H, W, C] → list of one [N, h, w, 1].

    `kernels` has one kernel size a layer; `ends` False leaves the last layer out: features for another part to judge.
    """

    def __init__(self, channels, width, kernels, ends=True, **kwargs):
        super().__init__(**kwargs)
        self.ends = ends
        self.inner = []
        for i, kernel in enumerate(kernels):
            self.inner.append(self.conv(channels, width * 2**i, kernel, 2))
            channels = width * 2**i
        self.last = self.conv(channels, 1, 1) if ends else None
        self.stack = [*self.inner, self.last] if ends else self.inner

    def call(self, x):
        for conv in self.inner:
            x = layers.leaky_relu(conv(x), _SLOPE)
        return [ops.cast(self.last(x), "float32")] if self.ends else x


class MultiscaleDiscriminator(_Network):
    """Stacks at `scales` sizes, each a blurred half of the one before: [N, H, W, C] → list of [N, h, w, 1]."""

    def __init__(self, channels, width, layer_count, scales, **kwargs):
        super().__init__(**kwargs)
        self.scales = [
            Discriminator(channels, width, [3] * layer_count, **self.next_network("scale")) for _ in range(scales)
        ]

    def build(self, input_shape):
        for scale in self.scales:
            scale.build(input_shape)
        self.built = True

    def call(self, x):
        judged = self.scales[0](x)
        for scale in self.scales[1:]:
            x = blur_and_halve(x)
            judged += scale(x)
        return judged


def blur_and_halve(x):
    """[N, H, W, C] → [N, ⌈H/2⌉, ⌈W/2⌉, C]: (¼, ½, ¼) both ways, edges repeated, every second pixel."""
    channels = x.shape[-1]
    line = ops.convert_to_tensor([0.25, 0.5, 0.25], dtype=x.dtype)
    kernel = ops.tile(ops.reshape(line[:, None] * line[None, :], (3, 3, 1, 1)), (1, 1, channels, 1))
    x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
    return ops.depthwise_conv(x, kernel, strides=2, padding="valid")


# ---------------------------------------------------------------------------------------------------------------------
# The networks of 2018


class ResidualBlock2018(layers.Network):
    """x + IN(conv3(relu(IN(conv3(x))))), reflection padding."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.conv_1 = self.conv(width, 3, pad=1, pad_mode="reflect")
        self.norm_1 = layers.InstanceNormalization(**self.next_layer("norm"))
        self.conv_2 = self.conv(width, 3, pad=1, pad_mode="reflect")
        self.norm_2 = layers.InstanceNormalization(**self.next_layer("norm"))
        self.stack = [self.conv_1, self.norm_1, self.conv_2, self.norm_2]

    def call(self, x, training=False):
        y = ops.relu(self.norm_1(self.conv_1(x), training=training))
        return x + self.norm_2(self.conv_2(y), training=training)


class Encoder2018(layers.Network):
    """7×7, two 4×4 of stride 2, four residual blocks, IN, ReLU: [N, H, W, C] → [N, H/4, W/4, 4 width]."""

    def __init__(self, width, **kwargs):
        super().__init__(init="kaiming", **kwargs)
        self.convs = [self.conv(width, 7, pad=3, pad_mode="reflect")]
        self.convs += [self.conv(width * m, 4, 2, pad=1, pad_mode="reflect") for m in (2, 4)]
        self.norms = [layers.InstanceNormalization(**self.next_layer("norm")) for _ in self.convs]
        self.blocks = [ResidualBlock2018(width * 4, **self.next_network("block")) for _ in range(4)]
        self.stack = [*[layer for pair in zip(self.convs, self.norms) for layer in pair], *self.blocks]

    def call(self, x, training=False, seeds=None):
        for conv, norm in zip(self.convs, self.norms):
            x = layers.rectified(x, conv, norm, training=training)
        for block in self.blocks:
            x = layers.remat(block, x, training=training)
        return x


class Decoder2018(layers.Network):
    """Four residual blocks, twice (nearest × 2, 5×5, LN, ReLU), 7×7, tanh: [N, h, w, 4 width] → [N, 4h, 4w, C].

    LN is `tfi2i.layers.SampleNormalization`.
    """

    def __init__(self, channels, width, **kwargs):
        super().__init__(init="kaiming", **kwargs)
        self.blocks = [ResidualBlock2018(width * 4, **self.next_network("block")) for _ in range(4)]
        self.enlarge = [layers.Enlarge(2, **self.next_layer("enlarge")) for _ in range(2)]
        self.convs = [self.conv(width * m, 5, pad=2, pad_mode="reflect") for m in (2, 1)]
        self.norms = [self.norm(), self.norm()]
        self.tail = self.conv(channels, 7, pad=3, pad_mode="reflect")
        ups = [layer for three in zip(self.enlarge, self.convs, self.norms) for layer in three]
        self.stack = [*self.blocks, *ups, self.tail]

    def norm(self):
        named = self.next_layer("norm")
        return layers.SampleNormalization(seed=self.layer_seed, **named)

    def call(self, x, training=False, seeds=None):
        for block in self.blocks:
            x = layers.remat(block, x, training=training)
        for enlarge, conv, norm in zip(self.enlarge, self.convs, self.norms):
            x = layers.rectified(x, enlarge, conv, norm, training=training)
        return ops.tanh(ops.cast(self.tail(x), "float32"))


class Discriminator2018(layers.Network):
    """At `scales` sizes, convolutions of stride 2, LeakyReLU, 1×1: [N, H, W, C] → list of [N, h, w, 1].

    The next size is the average of 3×3 pixels, every second one, pixels outside the image not counted.
    """

    def __init__(self, width, layer_count, scales, kernel=4, slope=0.2, **kwargs):
        super().__init__(**kwargs)
        self.slope = slope
        self.pool = keras.layers.AveragePooling2D(3, 2, **self.next_layer("pool"))
        self.inner, self.last = [], []
        for _ in range(scales):
            for i in range(layer_count):
                self.inner.append(self.conv(width * 2**i, kernel, 2, pad=1, pad_mode="reflect"))
            self.last.append(self.conv(1, 1))
        self.layer_count = layer_count

    def build(self, input_shape):
        for s, last in enumerate(self.last):
            shape = input_shape
            for conv in (*self._scale(s), last):
                conv.build(shape)
                shape = conv.compute_output_shape(shape)
        self.built = True

    def _scale(self, s):
        return self.inner[s * self.layer_count : (s + 1) * self.layer_count]

    def call(self, x):
        judged = []
        for s, last in enumerate(self.last):
            y = x
            for conv in self._scale(s):
                y = layers.leaky_relu(conv(y), self.slope)
            judged.append(ops.cast(last(y), "float32"))
            if s + 1 < len(self.last):
                x = self.halve(x)
        return judged

    def halve(self, x):
        """[N, H, W, C] → [N, ⌈H/2⌉, ⌈W/2⌉, C]."""
        around = ((0, 0), (1, 1), (1, 1), (0, 0))
        inside = ops.ones((1, *ops.shape(x)[1:3], 1), dtype=x.dtype)
        return self.pool(ops.pad(x, around)) / self.pool(ops.pad(inside, around))


# ---------------------------------------------------------------------------------------------------------------------
# The model (paper: section 3; losses: equations 3 to 12)


@keras.saving.register_keras_serializable(package="tfi2i")
class UNIT(Translator):
    """Two autoencoders with a shared latent space, two discriminators. Hyper-parameters: `config.UNIT`.

    Example:

        model = tfi2i.UNIT(generator_width=32)
        model.compile()
        model.fit(dataset)                      # batches (A, B), float32 in [-1, 1]
        pictures = model.translate(photos)      # uint8 in, uint8 out
    """

    config_class = config.UNIT
    advice = {
        "silent discriminator": "try a smaller --discriminator_width, fewer --discriminator_layers, or more images",
        "unchanged": "lower --lambda_cycle and --lambda_reconstruction, or train on smaller crops",
        "blank": "start again with a lower --learning_rate or another --seed",
        "inverted": "raise --lambda_cycle, or start again with another --seed",
        "small crop": ", or give fewer --discriminator_layers or --discriminator_scales",
    }

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="unit", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        make = self._make_2018 if self.config.unit_variant == "2018" else self._make_paper
        self._names = []
        for name, (kind, arguments) in make():
            network = kind(*arguments, seed=seed, dtype=self.dtype_policy, name=name)
            setattr(self, name, network)
            self._names.append(name)
        c = self.config
        # The codes' maps are padded by reflection or convolved 3×3.
        minimum = 8
        # In 2018 the last strided convolution at the smallest scale pads two pixels by reflection.
        crop = 2 ** (c.discriminator_layers + c.discriminator_scales - 1) if c.unit_variant == "2018" else minimum
        self.sizes = Sizes(multiple=4, minimum=minimum, crop_minimum=crop)
        self.perceptual = None
        if c.lambda_vgg:
            if {channels_a, channels_b} != {3}:
                raise UserError("--lambda_vgg compares colour images: set --channels_a=3 and --channels_b=3")
            self.perceptual = perceptual.domain_invariant_features(dtype=self.dtype_policy, name="perceptual")

    def _make_paper(self):
        c = self.config
        own, channels = 4 - c.shared_blocks, {"a": self.channels_a, "b": self.channels_b}
        inner = (c.residual_width, c.norm, c.dropout)
        # A shared part takes what the private one gives: `residual_width` channels, or the convolutions' without any.
        between = c.residual_width if own else 4 * c.generator_width
        for d in "ab":
            yield f"encoder_{d}", (Encoder, (channels[d], c.generator_width, own, *inner))
        if c.shared_blocks:
            yield "encoder_shared", (ResidualBlocks, (c.shared_blocks, between, c.residual_width, c.dropout))
            yield "decoder_shared", (ResidualBlocks, (c.shared_blocks, c.residual_width, c.residual_width, c.dropout))
        for d in "ab":
            yield f"decoder_{d}", (Decoder, (channels[d], own, *inner))
        width, count = c.discriminator_width, c.discriminator_layers
        kind, arguments = {
            "stack": (Discriminator, (width, [3] * count)),
            "shared": (Discriminator, (width, [7, 3], False)),
            "multiscale": (MultiscaleDiscriminator, (width, count, c.discriminator_scales)),
        }[c.discriminator]
        for d in "ab":
            yield f"discriminator_{d}", (kind, (channels[d], *arguments))
        if c.discriminator == "shared":
            yield "discriminator_shared", (Discriminator, (2 * width, 4 * width, [3] * (count - 2)))

    def _make_2018(self):
        c = self.config
        for d in "ab":
            yield f"encoder_{d}", (Encoder2018, (c.generator_width,))
        for d, channels in (("a", self.channels_a), ("b", self.channels_b)):
            yield f"decoder_{d}", (Decoder2018, (channels, c.generator_width))
        for d in "ab":
            arguments = (c.discriminator_width, c.discriminator_layers, c.discriminator_scales)
            yield f"discriminator_{d}", (Discriminator2018, arguments)

    @property
    def networks(self):
        return {name: getattr(self, name) for name in self._names}

    @property
    def frozen(self):
        return {"perceptual": self.perceptual} if self.perceptual else {}

    @property
    def generators(self):
        def a2b(x, training=False):
            return self.decode(self.encode(x, "a", training), "b", training)

        def b2a(x, training=False):
            return self.decode(self.encode(x, "b", training), "a", training)

        return {"a2b": a2b, "b2a": b2a}

    def input_shape_of(self, name):
        c = self.config
        channels = {
            "encoder_shared": c.residual_width if c.shared_blocks < 4 else 4 * c.generator_width,
            "decoder_shared": c.residual_width,
            "decoder_a": c.residual_width,
            "decoder_b": c.residual_width,
            "discriminator_shared": 2 * c.discriminator_width,
        }
        return (None, None, None, channels[name]) if name in channels else super().input_shape_of(name)

    def prepare_frozen(self):
        if self.perceptual:
            self.perceptual.prepare(self.config.vgg_weights, "--vgg_weights", "--lambda_vgg", "--lambda_vgg=0")

    # === Codes ===

    def encode(self, x, domain, training=False, seeds=None):
        """The mean μ of the codes: images [N, H, W, C] of `domain` ("a" or "b") → float32 [N, H/4, W/4, code]."""
        h = self.networks[f"encoder_{domain}"](x, training=training, seeds=seeds)
        if self.config.shared_blocks:
            h = self.encoder_shared(h, training=training, seeds=seeds)
        return ops.cast(h, "float32")

    def decode(self, z, domain, training=False, seeds=None):
        """Images of `domain` with the codes `z`: float32 [N, h, w, code] → float32 [N, 4h, 4w, C] in [-1, 1]."""
        if self.config.shared_blocks:
            z = self.decoder_shared(z, training=training, seeds=seeds)
        return self.networks[f"decoder_{domain}"](z, training=training, seeds=seeds)

    def judge(self, x, domain):
        """The discriminator's logits at every scale, a list of float32 [N, h, w, 1]."""
        judged = self.networks[f"discriminator_{domain}"](x)
        return self.discriminator_shared(judged) if self.config.discriminator == "shared" else judged

    # === One step ===

    def learn(self, a, b, indices):
        def draw(purpose):
            """Noise of the codes of A, of B, of A's and of B's translation, and the seeds of dropout."""
            n, h, w, _ = a.shape
            shape = (h // 4, w // 4, self.config.residual_width)
            of = {"noise_a": "a", "noise_b": "b", "noise_ab": "a to b", "noise_ba": "b to a"}
            seeds = {
                k: layers.sample_seeds(self.seed, self.step.value, indices, f"{purpose} {v}") for k, v in of.items()
            }
            noise = {k: layers.normal(v, shape) for k, v in seeds.items()}
            return {**noise, "seeds": layers.sample_seeds(self.seed, self.step.value, indices, f"{purpose} dropout")}

        # The discriminators learn first, from translations of their own noise.
        losses = {}
        if self.config.lambda_gan:
            noise = draw("discriminator")
            del noise["noise_ab"], noise["noise_ba"]
            losses, _ = self.phase(self.discriminator_phase, "discriminator", a=a, b=b, **noise)
        g_losses, _ = self.phase(self.generator_phase, "generator", a=a, b=b, **draw("generator"))
        return g_losses | losses

    def discriminator_phase(self, a, b, noise_a, noise_b, seeds):
        """λ0 (L(D(real), 1) + L(D(translation), 0)) for each domain and scale."""
        c = self.config
        z_a = self.encode(a, "a", True, seeds) + noise_a
        z_b = self.encode(b, "b", True, seeds + 1) + noise_b
        fake_b = self.decode(z_a, "b", True, seeds + 2)
        fake_a = self.decode(z_b, "a", True, seeds + 3)
        losses = {}
        for domain, real, fake in (("a", a, fake_a), ("b", b, fake_b)):
            loss = 0.0
            for judged in self.judge(ops.concatenate([real, fake]), domain):
                judged_real, judged_fake = ops.split(judged, 2)
                loss += adversarial_loss(judged_real, True, c.gan_loss)
                loss += adversarial_loss(judged_fake, False, c.gan_loss)
            losses[f"discriminator_{domain}"] = c.lambda_gan * loss
        return losses, {}

    def generator_phase(self, a, b, noise_a, noise_b, noise_ab, noise_ba, seeds):
        """The weighted sum of equations 5, 6, 8 and the adversarial losses, for both domains.

        Within one domain and across domains the same noisy code is decoded. `noise_ab` is that of the code which E_b
        reads from A's translation, `noise_ba` of the code which E_a reads from B's.
        """
        c = self.config
        mean_a, mean_b = self.encode(a, "a", True, seeds), self.encode(b, "b", True, seeds + 1)
        z_a, z_b = mean_a + noise_a, mean_b + noise_b
        same_a, fake_a = self._decode_both(z_a, z_b, "a", seeds + 2)
        same_b, fake_b = self._decode_both(z_b, z_a, "b", seeds + 4)
        losses = {}
        if c.lambda_gan:
            for name, fake, domain in (("gan_a2b", fake_b, "b"), ("gan_b2a", fake_a, "a")):
                scales = [adversarial_loss(judged, True, c.gan_loss) for judged in self.judge(fake, domain)]
                losses[name] = c.lambda_gan * sum(scales)
        if c.lambda_reconstruction:
            losses["reconstruction_a"] = c.lambda_reconstruction * l1(same_a, a)
            losses["reconstruction_b"] = c.lambda_reconstruction * l1(same_b, b)
        if c.lambda_kl:
            losses["kl_a"] = c.lambda_kl * self.kl(mean_a, z_a)
            losses["kl_b"] = c.lambda_kl * self.kl(mean_b, z_b)
        if c.lambda_cycle or c.lambda_kl_cycle:
            mean_ab, mean_ba = self.encode(fake_b, "b", True, seeds + 6), self.encode(fake_a, "a", True, seeds + 7)
            z_ab, z_ba = mean_ab + noise_ab, mean_ba + noise_ba
            if c.lambda_kl_cycle:
                losses["kl_cycle_a"] = c.lambda_kl_cycle * self.kl(mean_ab, z_ab)
                losses["kl_cycle_b"] = c.lambda_kl_cycle * self.kl(mean_ba, z_ba)
            if c.lambda_cycle:
                losses["cycle_a"] = c.lambda_cycle * l1(self.decode(z_ab, "a", True, seeds + 8), a)
                losses["cycle_b"] = c.lambda_cycle * l1(self.decode(z_ba, "b", True, seeds + 9), b)
        if self.perceptual:
            for name, source, fake in (("perceptual_a2b", a, fake_b), ("perceptual_b2a", b, fake_a)):
                losses[name] = c.lambda_vgg * perceptual.domain_invariant_loss(self.perceptual, source, fake)
        return losses, {}

    def _decode_both(self, z_same, z_other, domain, seeds):
        """Reconstruction and translation into one domain, in one call: nothing in a decoder mixes samples."""
        if not self.config.lambda_reconstruction:
            return None, self.decode(z_other, domain, True, seeds)
        seeds = ops.concatenate([seeds, seeds + 1])
        return ops.split(self.decode(ops.concatenate([z_same, z_other]), domain, True, seeds), 2)

    def kl(self, mean, code):
        """KL(N(mean, 1) ‖ N(0, 1)) up to its factor: mean of squares over all elements."""
        return ops.mean(ops.square(code if self.config.kl_of == "code" else mean))
