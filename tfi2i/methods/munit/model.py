"""MUNIT: Huang, Liu, Belongie, Kautz, arXiv 1804.04732; what the paper leaves open as in the authors' code.

Two autoencoders, one a domain. An image x_a has a content c_a = E^c_a(x_a), a map that both domains share in meaning,
and a style s_a = E^s_a(x_a), a few numbers. G_b translates x_a: it decodes c_a with a style s_b, which is drawn from
N(0, 1) or taken from an image of B. So one image has many translations.

Names: a suffix names the domain of the images that a loss or network looks at. `reconstruction_a` compares A with
G_a(c_a, s_a), `content_a` c_a with the content of A's translation, `style_a` the style that a translation into A was
made with and the one that E^s_a sees in it, `cycle_a` A with its way there and back, which keeps A's own style.

Departures from the paper, as in the code: decoders have layer norm behind their residual blocks, where instance norm
would take the style away; the perceptual loss is on relu5_3 of VGG16 with three max-pools.
"""

import keras
from keras import ops

from tfi2i import layers
from tfi2i.config import UserError
from tfi2i.methods import perceptual
from tfi2i.methods.losses import adversarial_loss, l1
from tfi2i.methods.munit import config
from tfi2i.methods.sizes import Sizes, pad
from tfi2i.methods.translator import Translator
from tfi2i.methods.unit.model import UNIT

# The authors' UNIT of 2018 has the same content encoders and discriminators.
from tfi2i.methods.unit.model import Discriminator2018 as Discriminator
from tfi2i.methods.unit.model import Encoder2018 as ContentEncoder

# ---------------------------------------------------------------------------------------------------------------------
# Networks (as in the code)

_BLOCKS = 4
# The style encoder's last map has a sixteenth of the side, and reflection needs two pixels before.
_STYLE_SIZES = Sizes(minimum=16)


class StyleEncoder(layers.Network):
    """7×7, four 4×4 of stride 2 without norm, ReLU, mean over the image, 1×1: [N, H, W, C] → float32 [N, style_size].

    A norm would take away the means and variances that are a large part of the style.
    """

    def __init__(self, width, style_size, init="kaiming", **kwargs):
        super().__init__(init=init, **kwargs)
        self.convs = [self.conv(width, 7, pad=3, pad_mode="reflect")]
        self.convs += [self.conv(width * m, 4, 2, pad=1, pad_mode="reflect") for m in (2, 4, 4, 4)]
        self.last = self.conv(style_size, 1)
        self.stack = [*self.convs, self.last]

    def call(self, x):
        for conv in self.convs:
            x = ops.relu(conv(x))
        x = self.last(ops.mean(x, axis=(1, 2), keepdims=True))
        return ops.squeeze(ops.cast(x, "float32"), axis=(1, 2))


class AdaptiveBlock(layers.Network):
    """x + AdaIN(conv3(relu(AdaIN(conv3(x))))), reflection padding.

    AdaIN is instance norm times a factor plus an offset, [N, width] each; the factor is used as it is, without "1 +".
    """

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.conv_1, self.norm_1 = self.conv(width, 3, pad=1, pad_mode="reflect"), self.norm()
        self.conv_2, self.norm_2 = self.conv(width, 3, pad=1, pad_mode="reflect"), self.norm()
        self.stack = [self.conv_1, self.norm_1, self.conv_2, self.norm_2]

    def norm(self):
        return layers.LayerInstanceNormalization("in", adaptive=True, **self.next_layer("norm"))

    def call(self, x, offset_1, factor_1, offset_2, factor_2):
        y = ops.relu(self.norm_1(self.conv_1(x), factor_1, offset_1))
        return x + self.norm_2(self.conv_2(y), factor_2, offset_2)


class Decoder(layers.Network):
    """Content [N, h, w, 4 width] and style [N, style_size] → images [N, 4h, 4w, C] in [-1, 1].

    Four residual blocks with AdaIN, whose parameters an MLP makes of the style; twice (nearest × 2, 5×5, LN, ReLU),
    7×7, tanh. LN is `tfi2i.layers.SampleNormalization`.
    """

    def __init__(self, channels, width, style_size, mlp_width, **kwargs):
        super().__init__(init="kaiming", **kwargs)
        self.style_size = style_size
        # Of each AdaIN the offset and then the factor.
        self.vectors = 4 * _BLOCKS
        self.mlp = [self.dense(units) for units in (mlp_width, mlp_width, self.vectors * 4 * width)]
        self.blocks = [AdaptiveBlock(4 * width, **self.next_network("block")) for _ in range(_BLOCKS)]
        self.enlarge = [layers.Enlarge(2, **self.next_layer("enlarge")) for _ in range(2)]
        self.convs = [self.conv(width * m, 5, pad=2, pad_mode="reflect") for m in (2, 1)]
        self.norms = [self.norm() for _ in self.convs]
        self.tail = self.conv(channels, 7, pad=3, pad_mode="reflect")
        ups = [layer for three in zip(self.enlarge, self.convs, self.norms) for layer in three]
        self.stack = [*self.blocks, *ups, self.tail]

    def norm(self):
        named = self.next_layer("norm")
        return layers.SampleNormalization(seed=self.layer_seed, **named)

    def build(self, input_shape):
        units = self.style_size
        for layer in self.mlp:
            layer.build((None, units))
            units = layer.units
        super().build(input_shape)

    def call(self, content, style, training=False):
        x, vectors = content, self.offsets_and_factors(style)
        for i, block in enumerate(self.blocks):
            x = layers.remat(block, x, *vectors[4 * i : 4 * i + 4], training=training)
        for enlarge, conv, norm in zip(self.enlarge, self.convs, self.norms):
            x = layers.rectified(x, enlarge, conv, norm, training=training)
        return ops.tanh(ops.cast(self.tail(x), "float32"))

    def offsets_and_factors(self, style):
        """What the norms take in turn, a list of [N, 4 width]."""
        first, second, last = self.mlp
        x = ops.relu(second(ops.relu(first(style))))
        # A product for each instead of slices of one: exported files can then scale the channels of each norm.
        kernels = ops.split(ops.convert_to_tensor(last.kernel), self.vectors, axis=1)
        biases = ops.split(ops.convert_to_tensor(last.bias), self.vectors)
        return [ops.matmul(x, kernel) + bias for kernel, bias in zip(kernels, biases)]


# ---------------------------------------------------------------------------------------------------------------------
# The model (section 3)


@keras.saving.register_keras_serializable(package="tfi2i")
class MUNIT(Translator):
    """Two autoencoders with a content and a style, two discriminators. Hyper-parameters: `config.MUNIT`.

    Example:

        model = tfi2i.MUNIT(generator_width=32, lambda_cycle=10.0)
        model.compile()
        model.fit(dataset)                                          # batches (A, B), float32 in [-1, 1]
        pictures = model.translate(photos, seed=1)                  # uint8 in, uint8 out; a style for each
        pictures = model.translate(photos, reference="painting.png")
    """

    config_class = config.MUNIT
    advice = UNIT.advice  # the same losses and discriminators fail in the same ways

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="munit", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c = self.config
        self.style_size = c.style_size

        def make(kind, name, *arguments):
            network = kind(*arguments, seed=seed, dtype=self.dtype_policy, name=name)
            setattr(self, name, network)
            self._names.append(name)

        self._names = []
        for d in "ab":
            make(ContentEncoder, f"content_encoder_{d}", c.generator_width)
            make(StyleEncoder, f"style_encoder_{d}", c.generator_width, c.style_size)
            make(Decoder, f"decoder_{d}", self.channels_of(d), c.generator_width, c.style_size, c.mlp_width)
        for d in "ab":
            shape = (c.discriminator_width, c.discriminator_layers, c.discriminator_scales)
            make(Discriminator, f"discriminator_{d}", *shape)
        # The last strided convolution at the smallest scale pads two pixels by reflection.
        judged = 2 ** (c.discriminator_layers + c.discriminator_scales - 1)
        # The contents' maps are padded by reflection.
        self.sizes = Sizes(multiple=4, minimum=8, crop_minimum=max(_STYLE_SIZES.minimum, judged))
        self.perceptual = None
        if c.lambda_vgg:
            if {channels_a, channels_b} != {3}:
                raise UserError("--lambda_vgg compares colour images: set --channels_a=3 and --channels_b=3")
            self.perceptual = perceptual.domain_invariant_features(dtype=self.dtype_policy, name="perceptual")

    @property
    def networks(self):
        return {name: getattr(self, name) for name in self._names}

    @property
    def frozen(self):
        return {"perceptual": self.perceptual} if self.perceptual else {}

    @property
    def generators(self):
        def a2b(x, style, training=False):
            return self.decode(self.content_of(x, "a", training), style, "b")

        def b2a(x, style, training=False):
            return self.decode(self.content_of(x, "b", training), style, "a")

        return {"a2b": a2b, "b2a": b2a}

    def input_shape_of(self, name):
        channels = 4 * self.config.generator_width if name.startswith("decoder") else self.channels_of(name[-1])
        return (None, None, None, channels)

    def prepare_frozen(self):
        if self.perceptual:
            self.perceptual.prepare(self.config.vgg_weights, "--vgg_weights", "--lambda_vgg", "--lambda_vgg=0")

    # === Contents and styles ===

    def content_of(self, x, domain, training=False):
        """The contents of images [N, H, W, C] of `domain` ("a" or "b"): float32 [N, H/4, W/4, 4 generator_width]."""
        return ops.cast(self.networks[f"content_encoder_{domain}"](x, training=training), "float32")

    def style_of(self, x, domain):
        """The styles of images [N, H, W, C] of `domain`, from 16 pixels a side: float32 [N, style_size]."""
        return self.networks[f"style_encoder_{domain}"](x)

    def encode_style(self, images, direction):
        return self.style_of(pad(images, _STYLE_SIZES), direction[-1])

    def decode(self, content, style, domain):
        """Images of `domain`: contents [N, h, w, C], styles [N, style_size] → float32 [N, 4h, 4w, C'] in [-1, 1]."""
        return self.networks[f"decoder_{domain}"](content, style)

    # === One step ===

    def learn(self, a, b, indices):
        def draw(purpose):
            """The random styles that translations into A and into B are made with."""
            seeds = {d: layers.sample_seeds(self.seed, self.step.value, indices, f"{purpose} style {d}") for d in "ab"}
            return {f"style_{d}": layers.normal(seeds[d], (self.style_size,)) for d in "ab"}

        # The discriminators learn first, from translations with styles of their own.
        losses = {}
        if self.config.lambda_gan:
            losses, _ = self.phase(self.discriminator_phase, "discriminator", a=a, b=b, **draw("discriminator"))
        g_losses, _ = self.phase(self.generator_phase, "generator", a=a, b=b, **draw("generator"))
        return g_losses | losses

    def discriminator_phase(self, a, b, style_a, style_b):
        """λ_gan (L(D(real), 1) + L(D(translation), 0)) for each domain, summed over the scales."""
        c = self.config
        fake_a = self.decode(self.content_of(b, "b", True), style_a, "a")
        fake_b = self.decode(self.content_of(a, "a", True), style_b, "b")
        losses = {}
        for domain, real, fake in (("a", a, fake_a), ("b", b, fake_b)):
            loss = 0.0
            for judged in self.networks[f"discriminator_{domain}"](ops.concatenate([real, fake])):
                judged_real, judged_fake = ops.split(judged, 2)
                loss += adversarial_loss(judged_real, True, c.gan_loss)
                loss += adversarial_loss(judged_fake, False, c.gan_loss)
            losses[f"discriminator_{domain}"] = c.lambda_gan * loss
        return losses, {}

    def generator_phase(self, a, b, style_a, style_b):
        """The weighted sum of equations 1 to 4, for both domains, and of the optional cycle and perceptual losses.

        `style_a` and `style_b` are drawn. Gradients of the content loss flow through both of its sides, as in the code.
        """
        c, images, drawn = self.config, {"a": a, "b": b}, {"a": style_a, "b": style_b}
        contents = {d: self.content_of(images[d], d, True) for d in "ab"}
        styles = {d: self.style_of(images[d], d) for d in "ab"}
        same, fakes = {}, {}
        for to, source in ("ab", "ba"):
            # Nothing in a decoder mixes samples: one call for the reconstruction and the translation.
            both = self.decode(
                ops.concatenate([contents[to], contents[source]]), ops.concatenate([styles[to], drawn[to]]), to
            )
            same[to], fakes[to] = ops.split(both, 2)
        losses = {}
        if c.lambda_gan:
            for source, to in ("ab", "ba"):
                scales = self.networks[f"discriminator_{to}"](fakes[to])
                losses[f"gan_{source}2{to}"] = c.lambda_gan * sum(
                    adversarial_loss(judged, True, c.gan_loss) for judged in scales
                )
        if c.lambda_reconstruction:
            losses |= {f"reconstruction_{d}": c.lambda_reconstruction * l1(same[d], images[d]) for d in "ab"}
        if c.lambda_style:
            losses |= {f"style_{d}": c.lambda_style * l1(self.style_of(fakes[d], d), drawn[d]) for d in "ab"}
        if c.lambda_content or c.lambda_cycle:
            for source, to in ("ab", "ba"):
                seen = self.content_of(fakes[to], to, True)
                if c.lambda_content:
                    losses[f"content_{source}"] = c.lambda_content * l1(seen, contents[source])
                if c.lambda_cycle:
                    back = self.decode(seen, styles[source], source)
                    losses[f"cycle_{source}"] = c.lambda_cycle * l1(back, images[source])
        if self.perceptual:
            for source, to in ("ab", "ba"):
                loss = perceptual.domain_invariant_loss(self.perceptual, images[source], fakes[to])
                losses[f"perceptual_{source}2{to}"] = c.lambda_vgg * loss
        return losses, {}
