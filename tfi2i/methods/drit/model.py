"""DRIT and DRIT++: Lee et al., arXiv 1808.00948 and 1905.01270; what the papers leave open as in the authors' code.

An image of domain A has a content, a map whose meaning both domains share, and a style, a few numbers that the paper
calls its attribute. A decoder of B makes a translation of a content of A and a style of B. Contents shall not tell
which domain they are of: the last layers of both encoders are the same, and a discriminator of contents tries to tell
them apart. In the cross-cycle an image of A and one of B exchange their styles, and exchange them back.

Names: a suffix names the domain of the images that a loss or network looks at, or the way of a translation.
`reconstruction_a` compares A with the decoding of its own content and style, `cycle_a` with what the cross-cycle makes
of it, `style_a` a drawn style with the one that A's encoder sees in the translation into A. discriminator_a judges the
cross-cycle's translations into A, discriminator_a2 those with drawn styles. `kl_content_a` is about A's content,
`kl_style_a` about A's style.

Departures from the paper, as in the code:
- The distance from N(0, 1) is taken of contents too, and noise is added to contents in training.
- The reconstruction of drawn styles does not train the style encoders.
- The discriminator of contents has no norm: the code's test for it is never true.

Departures from the code:
- Both updates of encoders and decoders have a forward pass of their own, the second with the weights that the first has
  left. The code keeps one pass for both. PyTorch 0.4 then mixed old activations with new weights; PyTorch refuses now.
- One step in `content_iterations` is a full one, whatever the epoch; in the code the last two of an epoch are, too.
- The losses are means over images. The code sums the style's distance from N(0, 1) over the batch and takes one
  quotient of a batch for mode seeking, which for the one translated image of its batches is the same.
- The style of a reference is the mean of its distribution, where the code draws from it.
"""

import math

import keras
from keras import ops

from tfi2i import layers
from tfi2i.config import UserError
from tfi2i.methods.drit import config
from tfi2i.methods.losses import adversarial_loss, l1
from tfi2i.methods.munit.model import StyleEncoder as _StyleEncoder
from tfi2i.methods.sizes import Sizes, pad
from tfi2i.methods.translator import Translator
from tfi2i.methods.unit.model import UNIT, Discriminator2018, ResidualBlock2018

# ---------------------------------------------------------------------------------------------------------------------
# Networks (as in the code)

# torch.nn.LeakyReLU's default, which the code leaves as it is everywhere but in the style encoders.
_SLOPE = 0.01
# The last layer of the style encoders that looks around a pixel sees an eighth of the side, and needs two pixels.
_STYLE_SIZES = Sizes(minimum=16)
_CONTENT_LEARNING_RATE = 1 / 2.5
_CONTENT_CLIPNORM = 5.0


def _start_bias(network, layer, fan_in):
    """Makes a layer's bias start at U(±1/√fan in), as PyTorch leaves it; the code draws the kernels alone."""
    seed = layers.derived_seed(network.seed, network.name, layer.name)
    layer.bias_initializer = layers.bias_initializer("torch", fan_in, seed)


def _start_biases(network, convs, channels):
    """The same for a chain of convolutions, `channels` being those of its input."""
    for conv in convs:
        # PyTorch takes a transposed convolution's output channels for its fan in.
        inputs = conv.filters if isinstance(conv, layers.Conv2DTranspose) else channels
        _start_bias(network, conv, inputs * math.prod(conv.kernel_size))
        channels = conv.filters


def _dense(network, inputs, units):
    """The next dense layer of a network, as PyTorch starts it."""
    layer = network.dense(units)
    layer.kernel_initializer = layers.initializer("torch", 0.0, network.layer_seed)
    _start_bias(network, layer, inputs)
    return layer


def _with_style(x, style):
    """[N, h, w, C] and [N, S] → [N, h, w, C + S]: the style at every pixel."""
    _, h, w, _ = ops.shape(x)
    # A sum, because BROADCAST_TO of LiteRT would keep the number of images for which a file was made.
    style = ops.cast(style, x.dtype)[:, None, None, :] + ops.zeros((1, h, w, 1), x.dtype)
    return ops.concatenate([x, style], axis=-1)


class ResidualBlock(ResidualBlock2018):
    """x + IN(conv3(relu(IN(conv3(x))))), reflection padding: [N, H, W, width] → the same shape."""

    def __init__(self, width, **kwargs):
        super().__init__(width, **kwargs)
        _start_biases(self, (self.conv_1, self.conv_2), width)


class ContentEncoder(layers.Network):
    """The part of a content encoder that is one domain's own: [N, H, W, C] → [N, H/4, W/4, 4 width].

    7×7 and LeakyReLU without a norm, twice (3×3 of stride 2, IN, ReLU), three residual blocks.
    """

    def __init__(self, channels, width, **kwargs):
        super().__init__(**kwargs)
        self.head = self.conv(width, 7, pad=3, pad_mode="reflect")
        self.down = [self.conv(width * m, 3, 2, pad=1, pad_mode="reflect") for m in (2, 4)]
        self.norms = [layers.InstanceNormalization(**self.next_layer("norm")) for _ in self.down]
        self.blocks = [ResidualBlock(4 * width, **self.next_network("block")) for _ in range(3)]
        _start_biases(self, (self.head, *self.down), channels)
        self.stack = [self.head, *[layer for pair in zip(self.down, self.norms) for layer in pair], *self.blocks]

    def call(self, x, training=False):
        x = layers.leaky_relu(self.head(x), _SLOPE)
        for conv, norm in zip(self.down, self.norms):
            x = layers.rectified(x, conv, norm, training=training)
        for block in self.blocks:
            x = layers.remat(block, x, training=training)
        return x


class StyleEncoder(_StyleEncoder):
    """The style encoder of `feature_wise`, layer for layer MUNIT's: [N, H, W, C] → float32 [N, style_size]."""

    def __init__(self, channels, width, style_size, **kwargs):
        super().__init__(width, style_size, init="normal", **kwargs)
        _start_biases(self, (*self.convs, self.last), channels)


class ShrinkingBlock(layers.Network):
    """Half the side: conv3(lrelu(conv3(lrelu(x)))) averaged over 2×2 pixels, plus 1×1 of x averaged so.

    [N, H, W, channels] → [N, ⌊H/2⌋, ⌊W/2⌋, width], LeakyReLU 0.2, reflection padding.
    """

    def __init__(self, channels, width, **kwargs):
        super().__init__(**kwargs)
        self.conv_1 = self.conv(channels, 3, pad=1, pad_mode="reflect")
        self.conv_2 = self.conv(width, 3, pad=1, pad_mode="reflect")
        self.shortcut = self.conv(width, 1)
        self.pool = keras.layers.AveragePooling2D(2, **self.next_layer("pool"))
        _start_biases(self, (self.conv_1, self.conv_2), channels)
        _start_biases(self, (self.shortcut,), channels)
        self.stack = [self.conv_1, self.conv_2, self.pool]

    def build(self, input_shape):
        super().build(input_shape)
        self.shortcut.build(input_shape)

    def call(self, x):
        y = self.conv_1(layers.leaky_relu(x, 0.2))
        return self.pool(self.conv_2(layers.leaky_relu(y, 0.2))) + self.shortcut(self.pool(x))


class VariationalStyleEncoder(layers.Network):
    """The style encoder of `concat`: [N, H, W, C] → (mean, log of the variance), float32 [N, style_size] each.

    4×4 of stride 2, three shrinking blocks, LeakyReLU 0.2, mean over the image, two dense layers.
    """

    def __init__(self, channels, width, style_size, **kwargs):
        super().__init__(**kwargs)
        self.head = self.conv(width, 4, 2, pad=1, pad_mode="reflect")
        self.blocks = [ShrinkingBlock(width * m, width * (m + 1), **self.next_network("block")) for m in (1, 2, 3)]
        self.mean, self.log_variance = (_dense(self, 4 * width, style_size) for _ in range(2))
        _start_biases(self, (self.head,), channels)
        self.stack = [self.head, *self.blocks]

    def build(self, input_shape):
        super().build(input_shape)
        for dense in (self.mean, self.log_variance):
            dense.build((None, self.blocks[-1].conv_2.filters))

    def call(self, x, training=False):
        x = self.head(x)
        for block in self.blocks:
            x = layers.remat(block, x, training=training)
        x = ops.mean(layers.leaky_relu(x, 0.2), axis=(1, 2))
        return ops.cast(self.mean(x), "float32"), ops.cast(self.log_variance(x), "float32")


class _Decoder(layers.Network):
    """What both decoders end with."""

    def make_ups(self, channels, width, added):
        """Twice (transposed 3×3 of stride 2, LN, ReLU), 1×1, tanh; each layer takes `added` channels of style more."""
        self.ups, self.norms = [], []
        for _ in range(2):
            up = self.conv_transpose((width + added) // 2, 3, pad=1, output_pad=1)
            _start_biases(self, (up,), width + added)
            self.ups.append(up)
            self.norms.append(layers.LayerInstanceNormalization("ln", **self.next_layer("norm")))
            width = up.filters
        self.tail = self.conv(channels, 1)
        _start_bias(self, self.tail, channels)  # a transposed convolution in the code
        self.added = added

    def build_ups(self, shape):
        for up, norm in zip(self.ups, self.norms):
            shape = (*shape[:-1], shape[-1] + self.added)
            up.build(shape)
            shape = up.compute_output_shape(shape)
            norm.build(shape)
        self.tail.build((*shape[:-1], shape[-1] + self.added))
        self.built = True

    def enlarged(self, x, style, training):
        for up, norm in zip(self.ups, self.norms):
            x = layers.rectified(_with_style(x, style) if self.added else x, up, norm, training=training)
        return ops.tanh(ops.cast(self.tail(_with_style(x, style) if self.added else x), "float32"))


class ConcatDecoder(_Decoder):
    """The part of a decoder of `concat` that is one domain's own.

    [N, h, w, 4 width] and style [N, style_size] → [N, 4h, 4w, C] in [-1, 1]. The style is part of the channels of three
    residual blocks, and joins those of every later layer.
    """

    def __init__(self, channels, width, style_size, **kwargs):
        super().__init__(**kwargs)
        inner = 4 * width + style_size
        self.blocks = [ResidualBlock(inner, **self.next_network("block")) for _ in range(3)]
        self.make_ups(channels, inner, style_size)

    def build(self, input_shape):
        shape = (*input_shape[:-1], self.blocks[0].conv_1.filters)
        for block in self.blocks:
            block.build(shape)
        self.build_ups(shape)

    def call(self, x, style, training=False):
        x = _with_style(x, style)
        for block in self.blocks:
            x = layers.remat(block, x, training=training)
        return self.enlarged(x, style, training)


class MixingBlock(layers.Network):
    """x + mix(IN(conv3(mix(IN(conv3(x))))): [N, H, W, width] and [N, width], the style's features → the first shape.

    mix: relu(1×1(relu(1×1(features and the style's features)))), 2 width channels inside.
    """

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.convs, self.norms, self.mixes = [], [], []
        for _ in range(2):
            conv = self.conv(width, 3, pad=1, pad_mode="reflect")
            _start_biases(self, (conv,), width)
            mix = [self.conv(2 * width, 1), self.conv(width, 1)]
            _start_biases(self, mix, 2 * width)
            self.convs.append(conv)
            self.norms.append(layers.InstanceNormalization(**self.next_layer("norm")))
            self.mixes.append(mix)

    def build(self, input_shape):
        doubled = (*input_shape[:-1], 2 * input_shape[-1])
        for conv, norm, mix in zip(self.convs, self.norms, self.mixes):
            conv.build(input_shape)
            norm.build(input_shape)
            for layer in mix:
                layer.build(doubled)
        self.built = True

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x, features, training=False):
        y = x
        for conv, norm, (first, second) in zip(self.convs, self.norms, self.mixes):
            y = _with_style(norm(conv(y), training=training), features)
            y = ops.relu(second(ops.relu(first(y))))
        return x + y


class FeatureWiseDecoder(_Decoder):
    """A decoder of `feature_wise`: [N, h, w, 4 width] and style [N, style_size] → [N, 4h, 4w, C] in [-1, 1].

    Three dense layers make the features that four mixing blocks take of the style.
    """

    def __init__(self, channels, width, style_size, mlp_width, **kwargs):
        super().__init__(**kwargs)
        inner = 4 * width
        self.blocks = [MixingBlock(inner, **self.next_network("block")) for _ in range(4)]
        self.sizes = (style_size, mlp_width, mlp_width, inner * len(self.blocks))
        self.mlp = [_dense(self, *pair) for pair in zip(self.sizes, self.sizes[1:])]
        self.make_ups(channels, inner, 0)

    def build(self, input_shape):
        for block in self.blocks:
            block.build(input_shape)
        for dense, units in zip(self.mlp, self.sizes):
            dense.build((None, units))
        self.build_ups(input_shape)

    def call(self, x, style, training=False):
        first, second, last = self.mlp
        features = last(ops.relu(second(ops.relu(first(style)))))
        for block, own in zip(self.blocks, ops.split(features, len(self.blocks), axis=-1)):
            x = layers.remat(block, x, own, training=training)
        return self.enlarged(x, style, training)


class Discriminator(Discriminator2018):
    """Stacks of 4×4 convolutions at several sizes, or one of 3×3: [N, H, W, C] → list of float32 [N, h, w, 1]."""

    def __init__(self, channels, width, layer_count, scales, **kwargs):
        super().__init__(width, layer_count, scales, kernel=3 if scales == 1 else 4, slope=_SLOPE, **kwargs)
        for s, last in enumerate(self.last):
            _start_biases(self, (*self._scale(s), last), channels)


class ContentDiscriminator(layers.Network):
    """Which domain a content is of: [N, h, w, width] → logits float32 [N, h', w', 1].

    `layer_count` 7×7 convolutions of stride 2 with reflection padding of 1, 4×4 without padding, 1×1; LeakyReLU.
    """

    def __init__(self, width, layer_count, **kwargs):
        super().__init__(**kwargs)
        self.inner = [self.conv(width, 7, 2, pad=1, pad_mode="reflect") for _ in range(layer_count)]
        self.inner.append(self.conv(width, 4))
        self.last = self.conv(1, 1)
        self.stack = [*self.inner, self.last]
        _start_biases(self, self.stack, width)

    @staticmethod
    def least(layer_count):
        """The least side of a content that it takes."""
        side = 4
        for _ in range(layer_count):
            side = 2 * (side - 1) + 5
        return side

    def call(self, x):
        for conv in self.inner:
            x = layers.leaky_relu(conv(x), _SLOPE)
        return ops.cast(self.last(x), "float32")


# ---------------------------------------------------------------------------------------------------------------------
# The model (section 3)


@keras.saving.register_keras_serializable(package="tfi2i")
class DRIT(Translator):
    """Encoders of content and style, decoders, four discriminators of images and one of contents.

    Hyper-parameters: `config.DRIT`. `fit`, which knows no epochs of a whole training, takes full steps alone, so that
    the discriminator of contents learns less than by `tfi2i.train`.

    Example:

        model = tfi2i.DRIT(drit_variant="feature_wise")
        model.compile()
        model.fit(dataset)                                          # batches (A, B), float32 in [-1, 1]
        pictures = model.translate(photos, seed=1)                  # uint8 in, uint8 out; a style for each
        pictures = model.translate(photos, reference="painting.png")
    """

    config_class = config.DRIT
    roles = ("generator", "style_encoder", "discriminator", "content_discriminator")
    advice = UNIT.advice | {
        "unchanged": "lower --lambda_cycle and --lambda_reconstruction",
        "small crop": ", or give fewer --content_discriminator_layers (2 take 100 pixels, 1 takes 44), or leave the "
        "discriminator of contents out by --lambda_content_gan=0; below 64 pixels also fewer --discriminator_scales",
    }

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="drit", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c = self.config
        self.style_size, width = c.style_size, 4 * c.generator_width
        concat = c.drit_variant == "concat"
        self._names = []

        def make(kind, name, *arguments):
            network = kind(*arguments, seed=seed, dtype=self.dtype_policy, name=name)
            setattr(self, name, network)
            self._names.append(name)

        make(ResidualBlock, "content_encoder_shared", width)
        for d in "ab":
            make(ContentEncoder, f"content_encoder_{d}", self.channels_of(d), c.generator_width)
        for d in "ab":
            kind = VariationalStyleEncoder if concat else StyleEncoder
            make(kind, f"style_encoder_{d}", self.channels_of(d), c.generator_width, c.style_size)
        if concat:
            make(ResidualBlock, "decoder_shared", width)
        for d in "ab":
            shape = (self.channels_of(d), c.generator_width, c.style_size)
            if concat:
                make(ConcatDecoder, f"decoder_{d}", *shape)
            else:
                make(FeatureWiseDecoder, f"decoder_{d}", *shape, c.mlp_width)
        for name in ("a", "a2", "b", "b2"):
            shape = (c.discriminator_width, c.discriminator_layers, c.discriminator_scales)
            make(Discriminator, f"discriminator_{name}", self.channels_of(name[0]), *shape)
        make(ContentDiscriminator, "content_discriminator", width, c.content_discriminator_layers)
        # The last strided convolution at the smallest scale pads by reflection, for which it needs two pixels.
        judged = 2 ** (c.discriminator_layers + c.discriminator_scales - 1)
        if c.discriminator_scales == 1:  # 3×3, whose maps are rounded up
            judged = 2 ** (c.discriminator_layers - 1) + 1
        content = 4 * ContentDiscriminator.least(c.content_discriminator_layers) if c.lambda_content_gan else 0
        # The contents' maps are padded by reflection.
        self.sizes = Sizes(multiple=4, minimum=8, crop_minimum=max(_STYLE_SIZES.minimum, judged, content))

    @property
    def networks(self):
        return {name: getattr(self, name) for name in self._names}

    @property
    def generators(self):
        def a2b(x, style, training=False):
            return self.decode(self.content_of(x, "a", training=training), style, "b", training)

        def b2a(x, style, training=False):
            return self.decode(self.content_of(x, "b", training=training), style, "a", training)

        return {"a2b": a2b, "b2a": b2a}

    def input_shape_of(self, name):
        if name.startswith("decoder") or name.endswith("shared") or name == "content_discriminator":
            return (None, None, None, 4 * self.config.generator_width)
        return super().input_shape_of(f"network_{name.rstrip('2')[-1]}")

    def build_for_training(self, shape_a, shape_b):
        super().build_for_training(shape_a, shape_b)
        self._translated(shape_a[0])

    def learning_rate(self, role):
        return self.config.learning_rate * (_CONTENT_LEARNING_RATE if role == "content_discriminator" else 1)

    def published_optimizer(self, role, learning_rate=None):
        optimizer = super().published_optimizer(role, learning_rate)
        if role == "content_discriminator":
            optimizer.global_clipnorm = _CONTENT_CLIPNORM
        return optimizer

    def updates_per_step(self, role):
        if role == "content_discriminator" or not self.config.lambda_content_gan:
            return 2 if role == "generator" else 1
        return (2 if role == "generator" else 1) / self.config.content_iterations

    # === Contents and styles ===

    def content_of(self, x, domain, noise=None, training=False):
        """The contents of images [N, H, W, C] of `domain` ("a" or "b"): float32 [N, H/4, W/4, 4 generator_width].

        `noise`, of that shape, is added.
        """
        own = self.networks[f"content_encoder_{domain}"](x, training=training)
        content = ops.cast(self.content_encoder_shared(own, training=training), "float32")
        return content if noise is None else content + noise

    def style_of(self, x, domain):
        """The styles of images [N, H, W, C] of `domain`, from 16 pixels a side.

        Returns:
            (mean, log of the variance), float32 [N, style_size]; the second is None with `feature_wise`.
        """
        seen = self.networks[f"style_encoder_{domain}"](x)
        return seen if self.config.drit_variant == "concat" else (seen, None)

    def encode_style(self, images, direction):
        return self.style_of(pad(images, _STYLE_SIZES), direction[-1])[0]

    def decode(self, content, style, domain, training=False):
        """Images of `domain`: contents [N, h, w, C], styles [N, style_size] → float32 [N, 4h, 4w, C'] in [-1, 1]."""
        if self.config.drit_variant == "concat":
            content = self.decoder_shared(content, training=training)
        return self.networks[f"decoder_{domain}"](content, style, training=training)

    # === One step ===

    def stage(self, step):
        """ "contents", in which the discriminator of contents learns alone, where a step is not a full one."""
        if self.steps_per_epoch is None or not self.config.lambda_content_gan:
            return None
        return None if (step + 1) % self.config.content_iterations == 0 else "contents"

    def _translated(self, count):
        """How many of a batch of `count` images on a replica are translated."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        if not self.config.split_batch or count * replicas == 1:
            return count
        if count % 2 or count // 2 % self.accumulate:
            raise UserError(
                f"--batch_size={count * replicas}, replicas: {replicas}, --accumulate={self.accumulate}: one half of a "
                "replica's images is translated and the other shown to discriminators, so that the batch must be a "
                f"multiple of {2 * replicas * self.accumulate}: give such a --batch_size, or --nosplit_batch"
            )
        return count // 2

    def learn(self, a, b, indices, stage=None):
        c, count = self.config, self._translated(a.shape[0])
        a, real_a = a[:count], a[-count:]
        b, real_b = b[:count], b[-count:]

        def draw(purpose, *shape):
            seeds = layers.sample_seeds(self.seed, self.step.value, indices[:count], purpose)
            return layers.normal(seeds, shape)

        def noise(purpose):
            sides = {"a": a.shape[1:3], "b": b.shape[1:3]}
            shapes = {d: (*(s // 4 for s in sides[d]), 4 * c.generator_width) for d in "ab"}
            return {f"noise_{d}": draw(f"{purpose} {d}", *shapes[d]) for d in "ab"}

        first = {"a": a, "b": b, **noise("content")}
        losses = {}
        if stage == "contents":
            return self.phase(self.content_discriminator_phase, "content_discriminator", **first)[0]
        if c.drit_variant == "concat":
            first |= {f"epsilon_{d}": draw(f"style of an image {d}", c.style_size) for d in "ab"}
        drawn = {"style": draw("style", c.style_size)}
        if c.lambda_mode_seeking:
            drawn["style_2"] = draw("second style", c.style_size)
        if c.lambda_gan:
            losses |= self.phase(
                self.discriminator_phase, "discriminator", real_a=real_a, real_b=real_b, **first, **drawn
            )[0]
        contents = {name: first[name] for name in ("a", "b", "noise_a", "noise_b")}
        if c.lambda_content_gan:
            losses |= self.phase(self.content_discriminator_phase, "content_discriminator", **contents)[0]
        back = {f"back_{name}": x for name, x in noise("content of a translation").items()}
        if c.drit_variant == "concat":
            back |= {f"back_epsilon_{d}": draw(f"style of a translation {d}", c.style_size) for d in "ab"}
        g_losses, _ = self.phase(self.cross_cycle_phase, ("generator", "style_encoder"), **first, **back)
        if c.lambda_gan or c.lambda_style or c.lambda_mode_seeking:
            g_losses |= self.phase(self.drawn_style_phase, "generator", **contents, **drawn)[0]
        return g_losses | losses

    def content_discriminator_phase(self, a, b, noise_a, noise_b):
        """L(D(content of b), 1) + L(D(content of a), 0), L being cross-entropy."""
        content_a, content_b = self.content_of(a, "a", noise_a, True), self.content_of(b, "b", noise_b, True)
        loss = adversarial_loss(self.content_discriminator(content_b), True, "vanilla")
        return {
            "content_discriminator": loss + adversarial_loss(self.content_discriminator(content_a), False, "vanilla")
        }, {}

    def discriminator_phase(
        self, a, b, real_a, real_b, noise_a, noise_b, style, style_2=None, epsilon_a=None, epsilon_b=None
    ):
        """λ_gan (L(D(real), 1) + L(D(translation), 0)), summed over the scales, for each domain and kind of style.

        With mode seeking there are two drawn styles, and each is judged beside the real images.
        """
        contents = {"a": self.content_of(a, "a", noise_a, True), "b": self.content_of(b, "b", noise_b, True)}
        own = {"a": self._sampled(a, "a", epsilon_a)[0], "b": self._sampled(b, "b", epsilon_b)[0]}
        drawn = [style] if style_2 is None else [style, style_2]
        losses = {}
        for source, to, real, further in (("b", "a", a, real_a), ("a", "b", b, real_b)):
            fake, *fakes = self._decoded([contents[source]] * (1 + len(drawn)), [own[to], *drawn], to)
            losses[f"discriminator_{to}"] = self._judged(f"discriminator_{to}", real, [fake])
            losses[f"discriminator_{to}2"] = self._judged(f"discriminator_{to}2", further, fakes)
        return losses, {}

    def cross_cycle_phase(
        self, a, b, noise_a, noise_b, back_noise_a, back_noise_b,
        epsilon_a=None, epsilon_b=None, back_epsilon_a=None, back_epsilon_b=None,
    ):  # fmt: skip
        """All that the images' own styles are part of: the first of the two updates of encoders and decoders."""
        c, images = self.config, {"a": a, "b": b}
        contents = {"a": self.content_of(a, "a", noise_a, True), "b": self.content_of(b, "b", noise_b, True)}
        styles, losses = {}, {}
        for d, epsilon in (("a", epsilon_a), ("b", epsilon_b)):
            styles[d], distance = self._sampled(images[d], d, epsilon)
            if c.lambda_kl:
                losses[f"kl_style_{d}"] = c.lambda_kl * distance
                losses[f"kl_content_{d}"] = c.lambda_kl * ops.mean(ops.square(contents[d]))
            if c.lambda_content_gan:
                judged = self.content_discriminator(contents[d])
                # Cross-entropy with a half: the discriminator shall not know.
                both = [adversarial_loss(judged, real, "vanilla") for real in (True, False)]
                losses[f"gan_content_{d}"] = c.lambda_content_gan * 0.5 * sum(both)
        fakes = {}
        for source, to in ("ba", "ab"):
            # Nothing in a decoder mixes samples: one call for the translation and the reconstruction.
            fakes[to], same = self._decoded([contents[source], contents[to]], [styles[to]] * 2, to)
            if c.lambda_gan:
                losses[f"gan_{source}2{to}"] = c.lambda_gan * self._fooled(f"discriminator_{to}", fakes[to])
            if c.lambda_reconstruction:
                losses[f"reconstruction_{to}"] = c.lambda_reconstruction * l1(same, images[to])
        if c.lambda_cycle:
            noises, epsilons = {"a": back_noise_a, "b": back_noise_b}, {"a": back_epsilon_a, "b": back_epsilon_b}
            for d, other in ("ab", "ba"):
                # d's content went into the other's domain, and its style into the translation of the other image.
                content = self.content_of(fakes[other], other, noises[d], True)
                style, _ = self._sampled(fakes[d], d, epsilons[d])
                losses[f"cycle_{d}"] = c.lambda_cycle * l1(self.decode(content, style, d, True), images[d])
        return losses, {}

    def drawn_style_phase(self, a, b, noise_a, noise_b, style, style_2=None):
        """All that drawn styles are part of: the second update, which style encoders take no part in."""
        c = self.config
        contents = {"a": self.content_of(a, "a", noise_a, True), "b": self.content_of(b, "b", noise_b, True)}
        drawn, losses = [style] if style_2 is None else [style, style_2], {}
        for source, to in ("ab", "ba"):
            fakes = self._decoded([contents[source]] * len(drawn), drawn, to)
            if c.lambda_gan:
                fooled = sum(self._fooled(f"discriminator_{to}2", fake) for fake in fakes)
                losses[f"gan_drawn_{source}2{to}"] = c.lambda_gan * fooled
            if c.lambda_style:
                losses[f"style_{to}"] = c.lambda_style * l1(self.style_of(fakes[0], to)[0], style)
            if style_2 is not None:
                seeking = c.lambda_mode_seeking * mode_seeking(*fakes, style, style_2)
                losses[f"mode_seeking_{source}2{to}"] = seeking
        return losses, {}

    def _sampled(self, x, domain, epsilon):
        """(styles [N, style_size] of images, their distance from N(0, 1), a mean over the images)."""
        mean, log_variance = self.style_of(x, domain)
        if log_variance is None:
            return mean, ops.mean(ops.square(mean))
        distance = -0.5 * (1 + log_variance - ops.square(mean) - ops.exp(log_variance))
        return mean + epsilon * ops.exp(log_variance / 2), ops.mean(ops.sum(distance, axis=-1))

    def _decoded(self, contents, styles, domain):
        """list of images of `domain`, of lists of contents and styles, by one call."""
        images = self.decode(ops.concatenate(contents), ops.concatenate(styles), domain, True)
        return ops.split(images, len(contents))

    def _judged(self, name, real, fakes):
        """λ_gan Σ (L(D(real), 1) + L(D(fake), 0)) over the scales and fakes."""
        loss = 0.0
        for judged in self.networks[name](ops.concatenate([real, *fakes])):
            judged_real, *judged_fakes = ops.split(judged, 1 + len(fakes))
            for judged_fake in judged_fakes:
                loss += adversarial_loss(judged_real, True, "vanilla")
                loss += adversarial_loss(judged_fake, False, "vanilla")
        return self.config.lambda_gan * loss

    def _fooled(self, name, fake):
        """Σ L(D(fake), 1) over the scales."""
        return sum(adversarial_loss(judged, True, "vanilla") for judged in self.networks[name](fake))


def mode_seeking(x, y, style_x, style_y):
    """1 / (|x - y| / |style_x - style_y| + 1e-5), mean distances of each sample; mean over the samples.

    Args:
        x, y: float32 [N, H, W, C], translations of the same contents.
        style_x, style_y: float32 [N, S], their styles.

    Returns:
        float32 scalar. Source: Mao et al., Mode Seeking Generative Adversarial Networks, arXiv 1903.05628.
    """
    pictures = ops.mean(ops.abs(x - y), axis=(1, 2, 3))
    styles = ops.mean(ops.abs(style_x - style_y), axis=-1)
    return ops.mean(1 / (pictures / styles + 1e-5))
