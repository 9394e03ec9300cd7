"""UVCGAN v2: Torbunov et al., arXiv 2303.16280, and its predecessor UVCGAN, arXiv 2203.02557; layers as in their code.

A CycleGAN whose generators are UNets with a vision transformer at the bottom. In v2 a learned style token joins the
image's tokens, and its output modulates the decoder. The discriminators judge a sample beside those of earlier steps,
whose features are kept. A gradient penalty and spectral norm hold the discriminators back. Averages of the generators
translate. v1 is this model with these parts off, another gradient penalty and an image pool.

Images are in [0, 1] here. Names: `generator_a2b` is the code's gen_ab; a suffix names the domain of the images that a
loss or discriminator looks at, so `consistency_a` compares A with its translation.

Departures: positions are normalised by the map's own height and width, so that any multiple of 2 ** levels goes; the
code builds them for one size and confuses the axes of maps that are not square. The head's batch norm keeps no running
statistics, which nothing reads.
"""

import dataclasses
import functools

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfi2i import layers
from tfi2i.config import UserError, differences
from tfi2i.methods.losses import adversarial_loss, gradient_penalty, l1
from tfi2i.methods.memory import FeatureCache, ImagePool
from tfi2i.methods.sizes import Sizes
from tfi2i.methods.translator import Translator, translate_and_keep
from tfi2i.methods.uvcgan2 import config

# torch.nn.LeakyReLU's default, which the code leaves as it is in the generators and heads.
_SLOPE = 0.01

# ---------------------------------------------------------------------------------------------------------------------
# Generator (v1: section 3.1; v2: section 3.1)


class UNetBlock(layers.Network):
    """Twice norm, conv3, LeakyReLU: [N, H, W, C] → [N, H, W, last of `widths`]; `norm` "instance" or "none"."""

    def __init__(self, widths, norm, **kwargs):
        super().__init__(**kwargs)
        kind = layers.InstanceNormalization if norm == "instance" else keras.layers.Identity
        self.norms = [kind(**self.next_layer("norm")) for _ in widths]
        self.convs = [self.conv(width, 3, pad=1) for width in widths]
        self.stack = [layer for pair in zip(self.norms, self.convs) for layer in pair]

    def call(self, x, training=False):
        for norm, conv in zip(self.norms, self.convs):
            x = layers.leaky_relu(conv(norm(x, training=training)), _SLOPE)
        return x


class Style(layers.Network):
    """Scales around 1: [N, S] → 1 + α (W S + b), float32 [N, units]; α is learned and starts at 0.

    The sum is float32: in bfloat16 the scale would be exactly 1 until its small part has grown to 0.4 %.
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.affine = self.dense(units)

    def build(self, input_shape):
        self.affine.build(input_shape)
        self.alpha = self.add_weight(shape=(), initializer="zeros", name="re_alpha", autocast=False)
        self.built = True

    def call(self, style):
        return 1 + ops.convert_to_tensor(self.alpha) * ops.cast(self.affine(style), "float32")


class ModulatedBlock(layers.Network):
    """Twice a 3×3 convolution modulated by the style, LeakyReLU: [N, H, W, C] → [N, H, W, last of `widths`]."""

    def __init__(self, channels, widths, **kwargs):
        super().__init__(**kwargs)
        self.styles, self.convs = [], []
        for before, width in zip((channels, *widths), widths):
            self.styles.append(Style(before, **self.next_network("style")))
            named = self.next_layer("conv")
            start = layers.initializer(self.init, self.init_gain, self.layer_seed)
            self.convs.append(layers.ModulatedConv2D(width, 3, pad=1, kernel_initializer=start, **named))
        self.stack = self.convs

    def build(self, input_shape, style_width):
        super().build(input_shape)
        for style in self.styles:
            style.build((None, style_width))

    def call(self, x, style):
        for scale, conv in zip(self.styles, self.convs):
            x = layers.leaky_relu(conv(x, scale(style)), _SLOPE)
        return x


class PixelwiseViT(layers.Network):
    """Transformer on the pixels of a map: [N, h, w, C] → ([N, h, w, C], style [N, width] or None).

    Each pixel's token is joined with a learned code of its position, sin(W (row, column) + b), both from -1 to 1
    (Anokhin et al., arXiv 2011.13775). With `style` one more learned token is appended, and returned.
    """

    def __init__(self, channels, width, heads, blocks, ffn_width, style, **kwargs):
        super().__init__(**kwargs)
        self.width, self.style = width, style
        self.position, self.mix = self.dense(width), self.dense(width)
        self.blocks = [
            layers.TransformerBlock(width, heads, ffn_width, **self.next_network("block")) for _ in range(blocks)
        ]
        self.out = self.dense(channels)

    def build(self, input_shape):
        self.position.build((None, 2))
        self.mix.build((None, None, self.width + input_shape[-1]))
        for layer in (*self.blocks, self.out):
            layer.build((None, None, self.width))
        if self.style:
            start = keras.initializers.RandomNormal(stddev=1.0, seed=self.layer_seed)
            self.token = self.add_weight(shape=(1, 1, self.width), initializer=start, name="style_token")
        self.built = True

    def call(self, x, training=False):
        _, h, w, channels = ops.shape(x)
        tokens = ops.reshape(x, (-1, channels))
        code = ops.sin(ops.cast(self.position(_positions(h, w)), "float32"))
        # `mix` of [code, tokens]. What no image changes is added, not appended: a LiteRT file then takes any batch.
        kernel = ops.convert_to_tensor(self.mix.kernel)
        known = ops.matmul(ops.cast(code, tokens.dtype), kernel[: self.width]) + ops.convert_to_tensor(self.mix.bias)
        # Not [None]: that stays an operation in LiteRT files, whose result on constants GPUs read as zeros.
        known = ops.expand_dims(known, 0)
        tokens = ops.reshape(ops.matmul(tokens, kernel[self.width :]), (-1, h * w, self.width))
        if self.style:
            token = ops.cast(ops.convert_to_tensor(self.token), tokens.dtype)
            known = ops.concatenate([known, token], axis=1)
            tokens = ops.pad(tokens, ((0, 0), (0, 1), (0, 0)))
        tokens = tokens + known
        tokens = layers.in_turn(self.blocks, tokens, training=training)
        style = None
        if self.style:
            # ops.slice: its gradient is a padding.
            n = ops.shape(tokens)[0]
            style = ops.reshape(ops.slice(tokens, (0, h * w, 0), (n, 1, self.width)), (-1, self.width))
            tokens = ops.slice(tokens, (0, 0, 0), (n, h * w, self.width))
        return ops.reshape(self.out(ops.reshape(tokens, (-1, self.width))), (-1, h, w, channels)), style


def _positions(h, w):
    """(row, column) of every pixel of a map, row by row, each from -1 to 1: float32 [h w, 2]."""
    rows = 2 * ops.cast(ops.arange(h), "float32") / ops.cast(ops.maximum(h - 1, 1), "float32") - 1
    columns = 2 * ops.cast(ops.arange(w), "float32") / ops.cast(ops.maximum(w - 1, 1), "float32") - 1
    grid = ops.meshgrid(rows, columns, indexing="ij")
    return ops.reshape(ops.stack(grid, axis=-1), (-1, 2))


class Generator(layers.Network):
    """UNet around a `PixelwiseViT`: [N, H, W, C] → [N, H, W, channels] in [0, 1]; H, W multiples of 2 ** levels.

    Level i has 2 ** i `width` channels: two convolutions, whose result skips to the decoder, and a 2×2 of stride 2.
    On the way up: nearest × 2, conv3, the skip appended, two convolutions, modulated by the ViT's style if it has one.
    """

    def __init__(self, channels, width, levels, norm, style, vit, **kwargs):
        super().__init__(**kwargs)
        widths = [width * 2**i for i in range(levels)]
        self.head = self.conv(width, 3, pad=1)
        self.encoder, self.down = [], []
        for w in widths:
            self.encoder.append(UNetBlock((w, w), norm, **self.next_network("encoder")))
            self.down.append(self.conv(w, 2, 2))
        self.bottleneck = PixelwiseViT(widths[-1], *vit, style, **self.next_network("bottleneck"))
        self.enlarge, self.up, self.decoder = [], [], []
        for i in reversed(range(levels)):
            self.enlarge.append(layers.Enlarge(2, **self.next_layer("enlarge")))
            self.up.append(self.conv(widths[i], 3, pad=1))
            pair = (widths[i], widths[max(i - 1, 0)])
            inner = self.next_network("decoder")
            self.decoder.append(
                ModulatedBlock(2 * widths[i], pair, **inner) if style else UNetBlock(pair, norm, **inner)
            )
        self.tail = self.conv(channels, 1)
        self.style = style

    def build(self, input_shape):
        self.head.build(input_shape)
        shape = self.head.compute_output_shape(input_shape)
        for block, down in zip(self.encoder, self.down):
            block.build(shape)
            shape = block.compute_output_shape(shape)
            down.build(shape)
            shape = (*shape[:1], None, None, shape[-1])
        self.bottleneck.build(shape)
        for up, block in zip(self.up, self.decoder):
            up.build(shape)
            joined = (*shape[:3], 2 * up.filters)
            block.build(joined, self.bottleneck.width) if self.style else block.build(joined)
            shape = block.compute_output_shape(joined)
        self.tail.build(shape)
        self.built = True

    def call(self, x, training=False):
        x = layers.leaky_relu(self.head(x), _SLOPE)
        skips = []
        for block, down in zip(self.encoder, self.down):
            skips.append(layers.remat(block, x, training=training))
            x = down(skips[-1])
        x, style = self.bottleneck(x, training=training)
        for enlarge, up, block in zip(self.enlarge, self.up, self.decoder):
            level = (enlarge, up, block)
            decode = functools.partial(self.decode, level)
            x = layers.remat(decode, x, skips.pop(), style, training=training, of=level)
        return ops.sigmoid(ops.cast(self.tail(x), "float32"))

    def decode(self, level, x, skip, style, training):
        """One level on the way up: the map of the level below, and what the encoder left here."""
        enlarge, up, block = level
        x = ops.concatenate([up(enlarge(x)), skip], axis=-1)
        return block(x, style) if self.style else block(x, training=training)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.tail.filters)


def make_generator(c, channels, **kwargs):
    """The generator that a configuration describes."""
    vit = (c.vit_width, c.vit_heads, c.vit_blocks, c.vit_ffn_width)
    start = {"init": c.init, "init_gain": c.init_gain}
    return Generator(channels, c.generator_width, c.generator_levels, c.norm, c.style, vit, **start, **kwargs)


# ---------------------------------------------------------------------------------------------------------------------
# Discriminator (v2: section 3.2)


class Discriminator(layers.Network):
    """A PatchGAN's or pixel network's trunk and a head: [N, H, W, C] → (logits [N, h, w, 1], features [N, h, w, F]).

    Args:
        kind: "n_layers": `layer_count` 4×4 convolutions of stride 2 and one of stride 1; "pixel": two 1×1. Instance
            norm and LeakyReLU 0.2 after all, the first without norm.
        layer_count: see `kind`; 3 sees 70×70 pixels with the head "none".
        width: channels after the first layer, at most eight times as many after the last.
        head: "bsd" or "bn", a `BatchHead`; "none": one more convolution, to logits, as in CycleGAN.
        spectral: whether the trunk's convolutions, and that of the head "none", are spectrally normalised.
    """

    def __init__(self, kind, layer_count, width, head, spectral, **kwargs):
        super().__init__(**kwargs)
        self.spectral = spectral
        if kind == "pixel":
            plan, kernel, pad = [(width, 1), (2 * width, 1)], 1, 0
            self.size_minimum = 1
        else:
            plan, kernel, pad = [(width * min(2**i, 8), 2) for i in range(layer_count)], 4, 1
            plan += [(width * min(2**layer_count, 8), 1)]
            # One logit needs 3 rows before the two last convolutions, and every stride doubles that.
            self.size_minimum = 3 * 2**layer_count
        self.trunk = [self.spectral_conv(filters, kernel, strides, pad) for filters, strides in plan]
        self.norms = [layers.InstanceNormalization(**self.next_layer("norm")) for _ in plan[1:]]
        self.head = None if head == "none" else BatchHead(head, plan[-1][0], **self.next_network("head"))
        self.last = self.spectral_conv(1, kernel, 1, pad) if head == "none" else None
        self.stack = [self.trunk[0], *[layer for pair in zip(self.trunk[1:], self.norms) for layer in pair]]

    def spectral_conv(self, filters, kernel, strides, pad):
        if not self.spectral:
            return self.conv(filters, kernel, strides, pad)
        named = self.next_layer("conv")
        start = {"init": self.init, "init_gain": self.init_gain, "seed": self.layer_seed}
        return layers.SpectralConv2D(filters, kernel, strides, (pad, pad), "zeros", u_first=True, **start, **named)

    def build(self, input_shape):
        super().build(input_shape)
        (self.head or self.last).build(self.feature_shape(input_shape))

    def feature_shape(self, input_shape):
        """Shape of the trunk's features for images of `input_shape`."""
        return super().compute_output_shape(input_shape)

    def call(self, x, cache=None):
        """`cache`: features of other samples [S, h, w, F] and which of them count, float32 [S] of 0 and 1."""
        extra = {"training": True} if self.spectral else {}
        x = layers.leaky_relu(self.trunk[0](x, **extra), 0.2)
        for conv, norm in zip(self.trunk[1:], self.norms):
            x = layers.leaky_relu(norm(conv(x, **extra), training=True), 0.2)
        logits = self.head(x, cache) if self.head else self.last(x, **extra)
        return ops.cast(logits, "float32"), ops.cast(x, "float32")


class BatchHead(layers.Network):
    """Logits of features, in sight of what else is in the batch and in a cache: [N, h, w, F] → [N, h, w, 1].

    "bsd": the standard deviation over samples, averaged over pixels and channels, is one more channel (Karras et al.,
    arXiv 1710.10196, section 3); "bn": batch norm. Both include the cached samples and are computed in float32. Then
    conv3, LeakyReLU 0.01, conv3. Kernels and biases start as PyTorch's, without spectral norm, as in the code.
    """

    def __init__(self, kind, channels, **kwargs):
        super().__init__(**kwargs | {"init": "torch"})
        self.kind = kind
        before = channels + (kind == "bsd")
        self.inner = self._conv(before, channels)
        self.last = self._conv(channels, 1)
        self.stack = [self.inner, self.last]

    def _conv(self, channels, filters):
        layer = self.conv(filters, 3, pad=1)
        layer.bias_initializer = layers.bias_initializer("torch", 9 * channels, self.layer_seed)
        return layer

    def build(self, input_shape):
        channels = input_shape[-1]
        if self.kind == "bn":
            per_channel = {"shape": (channels,), "autocast": False}
            self.gamma = self.add_weight(initializer="ones", name="gamma", **per_channel)
            self.beta = self.add_weight(initializer="zeros", name="beta", **per_channel)
        super().build((*input_shape[:-1], channels + (self.kind == "bsd")))

    def call(self, x, cache=None):
        y, weight = ops.cast(x, "float32"), ops.ones((x.shape[0],))
        samples = y
        if cache is not None:
            features, filled = cache
            samples = ops.concatenate([y, ops.cast(features, "float32")])
            weight = ops.concatenate([weight, ops.cast(filled, "float32")])
        if self.kind == "bn":
            weight = ops.broadcast_to(weight[:, None, None], samples.shape[:3])
        mean = _average(samples, weight)
        variance = _average(ops.square(samples - mean), weight)
        if self.kind == "bsd":
            deviation = ops.sqrt(variance + 1e-6)
            spread = _average(deviation, ops.ones_like(deviation))
            y = ops.concatenate([y, ops.broadcast_to(spread, (*y.shape[:3], 1))], axis=-1)
        else:
            factor = ops.cast(self.gamma, "float32") * ops.rsqrt(variance + 1e-5)
            y = (y - mean) * factor + ops.cast(self.beta, "float32")
        return self.last(layers.leaky_relu(self.inner(y), _SLOPE))


def _average(x, weight):
    """Weighted mean of `x` over its first axes, which are all that `weight` has.

    A product of matrices: the gradient of a sum repeats it, and the gradient of that, which the gradient penalty needs,
    computes with shapes in every step.
    """
    return ops.tensordot(weight / ops.sum(weight), x, weight.ndim)


# ---------------------------------------------------------------------------------------------------------------------
# The model and its losses


def shrink(x, size, kind):
    """Brings [N, H, W, C] to at most [N, size, size, C], by products of matrices, which have a gradient under XLA.

    Args:
        x: images.
        size: side; a side that is shorter stays as it is.
        kind: "area": means of equal cells. "bilinear": between the nearest pixels, without antialiasing, as
            torchvision 0.13 resizes tensors; from 256 to 32 that is the mean of the middle 2×2 of each 8×8 pixels.
    """
    rows, columns = (_shrinking(side, min(size, side), kind) for side in x.shape[1:3])
    return ops.einsum("jw,niwc->nijc", columns, ops.einsum("ih,nhwc->niwc", rows, x))


def _shrinking(before, after, kind):
    """float32 matrix [after, before] whose rows add up to 1."""
    edges = np.arange(after + 1) * before / after
    if kind == "area":
        pixels = np.arange(before)
        inside = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        matrix = np.maximum(inside, 0) * after / before
    else:
        middles = np.clip((edges[1:] + edges[:-1] - 1) / 2, 0, before - 1)
        matrix = np.maximum(1 - np.abs(middles[:, None] - np.arange(before)), 0)
    return matrix.astype("float32")


@keras.saving.register_keras_serializable(package="tfi2i")
class UVCGAN2(Translator):
    """CycleGAN of ViT-UNets with style, batch-aware discriminators. Hyper-parameters: `config.UVCGAN2`.

    Example:

        model = tfi2i.UVCGAN2(generator_width=16, vit_blocks=4, vit_width=128)
        model.compile()
        model.fit(dataset)                      # batches (A, B), float32 in [0, 1]
        pictures = model.translate(photos)      # uint8 in, uint8 out
    """

    config_class = config.UVCGAN2
    value_range = (0.0, 1.0)
    advice = {
        "silent discriminator": "try --pool_size=50, a smaller --discriminator_width, or more images",
        "unchanged": "lower --lambda_identity, or train on smaller crops",
        "blank": "start again after pre-training (--pretrained), with a lower --learning_rate, or another --init",
        "inverted": "raise --lambda_identity, or start again with another --seed",
        "small crop": ", or give fewer --discriminator_layers",
        "no pre-training": "generators without norms often paint one colour for every input within 100 steps, and stay "
        "so",
    }

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="uvcgan2", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c = self.config
        if channels_a != channels_b:
            for weight in ("lambda_identity", "lambda_consistency"):
                if getattr(c, weight):
                    raise UserError(
                        f"--{weight}={getattr(c, weight)} compares images of A and B, but A has {channels_a} and B "
                        f"{channels_b} channels: set --{weight}=0 or make the channels equal"
                    )

        def named(name):
            return {"seed": seed, "dtype": self.dtype_policy, "name": name}

        def discriminator(name):
            kind = (c.discriminator, c.discriminator_layers, c.discriminator_width)
            start = {"init": c.init, "init_gain": c.init_gain}
            return Discriminator(*kind, c.discriminator_head, c.spectral_norm, **start, **named(name))

        self.generator_a2b = make_generator(c, channels_b, **named("generator_a2b"))
        self.generator_b2a = make_generator(c, channels_a, **named("generator_b2a"))
        self.discriminator_a = discriminator("discriminator_a")
        self.discriminator_b = discriminator("discriminator_b")
        stride = 2**c.generator_levels
        self.sizes = Sizes(stride, stride, crop_minimum=max(stride, self.discriminator_a.size_minimum))
        self.pool_a = ImagePool(c.pool_size, seed, name="pool_a")
        self.pool_b = ImagePool(c.pool_size, seed, name="pool_b")
        # What a discriminator saw of real and translated images is kept apart.
        self.caches = {}
        if c.discriminator_head != "none" and c.cache_size:
            names = ("real_a", "real_b", "fake_a", "fake_b")
            self.caches = {n: FeatureCache(c.cache_size, name=f"cache_{n}") for n in names}

    @classmethod
    def from_config(cls, config):
        # .keras files of version 0.1 have the hyper-parameters of pre-training too.
        return super().from_config({k: v for k, v in config.items() if k not in ("mask_patch", "mask_fraction")})

    @property
    def networks(self):
        names = ("generator_a2b", "generator_b2a", "discriminator_a", "discriminator_b")
        return {n: getattr(self, n) for n in names}

    @property
    def generators(self):
        """The averages, where there are any: `.keras` files of version 0.1 have them under this name."""
        return {
            direction: self.averages.get(f"generator_{direction}_average", self.networks[f"generator_{direction}"])
            for direction in self.directions
        }

    def build_for_training(self, shape_a, shape_b):
        super().build_for_training(shape_a, shape_b)
        for domain, shape, pool in (("a", shape_a, self.pool_a), ("b", shape_b, self.pool_b)):
            if None in shape and (self.caches or self.config.lambda_consistency):
                raise UserError(
                    "images of different sizes: the discriminators' caches and the consistency loss need one size; "
                    "set --crop"
                )
            if not pool.built:
                pool.build(shape)
            for kind in ("real", "fake"):
                cache = self.caches.get(f"{kind}_{domain}")
                if cache is not None and not cache.built:
                    cache.build(self.networks[f"discriminator_{domain}"].feature_shape(shape))

    def learning_rate(self, role):
        return self.config.learning_rate if role == "generator" else self.config.discriminator_learning_rate

    def start_from(self, pretrained):
        """Both generators, and their averages, take the weights of a `pretraining.Inpainting` model's generator.

        Raises:
            UserError: another kind of model, or a generator of another size.
        """
        if not isinstance(pretrained.config, config.Inpainting):
            raise UserError("--pretrained takes a run of --task=pretrain; --init_from starts from any other")
        theirs = pretrained.generator.variables
        for generator in (self.generator_a2b, self.generator_b2a):
            ours = generator.variables
            if [v.shape for v in ours] != [v.shape for v in theirs]:
                shared = [field.name for field in dataclasses.fields(config.Generator)]
                differ = differences(pretrained.config, self.config, shared)
                differ += [
                    f"images had {pretrained.channels_a} channels, have {channels}"
                    for channels in {self.channels_a, self.channels_b} - {pretrained.channels_a}
                ]
                raise UserError(
                    f"--pretrained holds another generator: {'; '.join(differ)}. Give both runs the same of these"
                )
            for v, w in zip(ours, theirs):
                v.assign(ops.convert_to_numpy(w))
        if not self.config.ema_from_scratch:
            for average in self.averages.values():
                average.restart()

    # === One step ===

    def learn(self, a, b, indices):
        c = self.config
        remembered = {"caches": {name: cache.read() for name, cache in self.caches.items()}}
        losses, fakes = self.phase(self.generator_phase, "generator", remembered, a=a, b=b)
        if c.lambda_gan:
            # The discriminators learn from the images that the generators made before their own update.
            fake_a = self.pool_a.query(fakes["fake_a"], self.step.value, indices)
            fake_b = self.pool_b.query(fakes["fake_b"], self.step.value, indices)
            # v2 draws one mixing factor for the whole batch, v1 one for each sample. Here, because XLA draws others.
            drawn = indices if c.gp_form == "uvcgan" else tf.zeros_like(indices)
            seeds = layers.sample_seeds(self.seed, self.step.value, drawn, "gradient penalty")
            mixing = {"alpha_b": layers.uniform(seeds), "alpha_a": layers.uniform(seeds + 1)}
            d_losses, features = self.phase(
                self.discriminator_phase, "discriminator", remembered, a=a, b=b, fake_a=fake_a, fake_b=fake_b, **mixing
            )
            for name, cache in self.caches.items():
                cache.push(features[name], indices)
            losses |= d_losses
        return losses

    def generator_phase(self, a, b, caches):
        """L_gan + λ_a cycle + λ_a λ_identity identity + consistency, for both directions."""
        c = self.config
        keep = bool(c.lambda_identity)
        a2b, b2a = (functools.partial(g, training=True) for g in (self.generator_a2b, self.generator_b2a))
        fake_b, same_b = translate_and_keep(a2b, (a,), (b,), keep)
        fake_a, same_a = translate_and_keep(b2a, (b,), (a,), keep)
        losses = {}
        if c.lambda_gan:
            judged_b, _ = self.discriminator_b(fake_b, caches.get("fake_b"))
            judged_a, _ = self.discriminator_a(fake_a, caches.get("fake_a"))
            losses["gan_a2b"] = c.lambda_gan * adversarial_loss(judged_b, True, c.gan_loss)
            losses["gan_b2a"] = c.lambda_gan * adversarial_loss(judged_a, True, c.gan_loss)
        if c.lambda_a:
            losses["cycle_a"] = c.lambda_a * l1(b2a(fake_b), a)
        if c.lambda_b:
            losses["cycle_b"] = c.lambda_b * l1(a2b(fake_a), b)
        if c.lambda_identity:
            losses["identity_a"] = c.lambda_a * c.lambda_identity * l1(same_a, a)
            losses["identity_b"] = c.lambda_b * c.lambda_identity * l1(same_b, b)
        if c.lambda_consistency:
            for domain, cycle, source, fake in (("a", c.lambda_a, a, fake_b), ("b", c.lambda_b, b, fake_a)):
                weight = c.lambda_consistency * (cycle if c.consistency_relative else 1.0)
                small = [shrink(x, c.consistency_size, c.consistency_resize) for x in (fake, source)]
                losses[f"consistency_{domain}"] = weight * l1(*small)
        return losses, {"fake_a": fake_a, "fake_b": fake_b}

    def discriminator_phase(self, a, b, fake_a, fake_b, alpha_a, alpha_b, caches):
        """½ (L(D(real), 1) + L(D(fake), 0)) + gradient penalty, for each domain; its outputs are for the caches.

        The penalty looks between the images, at `alpha` [N] times the real one and the rest of the translated one.
        Penalty, real and fake are three passes in this order, as spectral norm iterates once in each.
        """
        c = self.config
        losses, features = {}, {}
        for domain, real, fake, alpha in (("b", b, fake_b, alpha_b), ("a", a, fake_a, alpha_a)):
            discriminator = self.networks[f"discriminator_{domain}"]
            cached_real, cached_fake = caches.get(f"real_{domain}"), caches.get(f"fake_{domain}")
            if c.lambda_gp:
                alpha = ops.reshape(alpha, (-1, 1, 1, 1))
                if c.gp_at != "mixed":
                    alpha = ops.full_like(alpha, c.gp_at == "real")
                point, cached = alpha * real + (1 - alpha) * fake, None
                if cached_real:
                    (features_real, filled), (features_fake, _) = cached_real, cached_fake
                    cached = (alpha[:1] * features_real + (1 - alpha[:1]) * features_fake, filled)
                losses[f"penalty_{domain}"] = c.lambda_gp * self._penalty(discriminator, point, cached)
            judged_real, features[f"real_{domain}"] = discriminator(real, cached_real)
            judged_fake, features[f"fake_{domain}"] = discriminator(fake, cached_fake)
            loss = adversarial_loss(judged_real, True, c.gan_loss) + adversarial_loss(judged_fake, False, c.gan_loss)
            losses[f"discriminator_{domain}"] = 0.5 * loss
        return losses, features

    def _penalty(self, discriminator, point, cached):
        """v2: mean (‖∇ mean of the map‖ - centre)²; v1: mean (‖∇ sum of the map‖ - centre)² / centre²."""
        c = self.config
        if c.gp_form == "uvcgan":
            return gradient_penalty(lambda x: discriminator(x, cached)[0], point, c.gp_center) / c.gp_center**2
        return gradient_penalty(lambda x: ops.mean(discriminator(x, cached)[0], axis=(1, 2, 3)), point, c.gp_center)


@keras.saving.register_keras_serializable(package="tfi2i")
class UVCGAN(UVCGAN2):
    """UVCGAN v1, made of the parts of v2. Hyper-parameters: `config.UVCGAN`."""

    config_class = config.UVCGAN

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="uvcgan", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
