"""AGGAN: Mejjati, Richardt, Tompkin, Cosker, Kim, arXiv 1806.02311; layers as in the authors' TensorFlow code.

A CycleGAN that says where it translates. An attention network for each domain makes a mask; the mask's part of the
image is what the generator made of it, and the rest is the image itself.

Names: `generator_a2b` is the paper's F_S→T and the code's g_A, `attention_a` A_S and g_A_ae, `discriminator_b` D_T and
d_B, with A for the paper's S. A suffix names the domain of the images that a loss looks at: `cycle_a` compares A with
its way there and back. The paper's τ is `mask_threshold`.

Training has two stages. At `switch_epoch` three things change at once: the attention networks are frozen, the
discriminators see an image where its mask reaches the threshold and 0 elsewhere, and their norms are left out. A
translation is always blended with the soft mask.

The attention networks end in three 1×1 convolutions, as in the released weights, where the paper has 3×3, 3×3 and 7×7:
in the code the kernels' sizes stand where others belong.

Departures: images of A and B are drawn independently, with crops and flips of their own (the code pairs the files once,
in the order of a list, and crops and flips both alike); resizing is antialiased; and the factors and offsets of the
discriminators' norms stay as they are once these are left out, where Adam's momentum moves the code's on.
"""

import functools

import keras
from keras import ops

from tfi2i import layers, optim
from tfi2i.config import DIRECTIONS, UserError
from tfi2i.methods.aggan import config
from tfi2i.methods.attention import AttentiveTranslator
from tfi2i.methods.losses import adversarial_loss, l1
from tfi2i.methods.memory import ImagePool
from tfi2i.methods.sizes import Sizes

# ---------------------------------------------------------------------------------------------------------------------
# Networks


class _Network(layers.Network):
    """Convolutions have biases, norms a factor and an offset for each channel."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs | {"init": "truncated_normal", "init_gain": 0.02})

    def norm(self):
        named = self.next_layer("norm")
        around_1 = keras.initializers.TruncatedNormal(1.0, self.init_gain, seed=self.layer_seed)
        return layers.InstanceNormalization(center=True, scale=True, gamma_initializer=around_1, **named)


class ResidualBlock(_Network):
    """relu(x + IN(conv3(relu(IN(conv3(x))))))."""

    def __init__(self, width, pad_mode, **kwargs):
        super().__init__(**kwargs)
        self.conv_1, self.norm_1 = self.conv(width, 3, pad=1, pad_mode=pad_mode), self.norm()
        self.conv_2, self.norm_2 = self.conv(width, 3, pad=1, pad_mode=pad_mode), self.norm()
        self.stack = [self.conv_1, self.norm_1, self.conv_2, self.norm_2]

    def call(self, x, training=False):
        y = ops.relu(self.norm_1(self.conv_1(x), training=training))
        return ops.relu(x + self.norm_2(self.conv_2(y), training=training))


class Attention(_Network):
    """c7s2-w, c3s2-2w, R2w, c1-2w, c1-w, c1-1, sigmoid, enlarged: [N, H, W, C] → mask, float32 [N, H, W, 1] in [0, 1].

    H and W are multiples of 4, at least 8. The code enlarges twofold before each of the first two 1×1 convolutions.
    Copies of a pixel stay equal in these and their norms, so that enlarging at the end gives the same mask.
    """

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.down = [
            (self.conv(width, 7, 2, pad=3, pad_mode="reflect"), self.norm()),
            (self.conv(2 * width, 3, 2, pad="same"), self.norm()),
        ]
        self.block = ResidualBlock(2 * width, "reflect", **self.next_network("block"))
        self.mix = [(self.conv(filters, 1), self.norm()) for filters in (2 * width, width)]
        self.last = self.conv(1, 1)
        self.enlarge = layers.Enlarge(4, **self.next_layer("enlarge") | {"dtype": "float32"})
        before, after = ([layer for pair in pairs for layer in pair] for pairs in (self.down, self.mix))
        self.stack = [*before, self.block, *after, self.last, self.enlarge]

    def call(self, x, training=False):
        for conv, norm in self.down:
            x = layers.rectified(x, conv, norm, training=training)
        x = layers.remat(self.block, x, training=training)
        for conv, norm in self.mix:
            x = layers.rectified(x, conv, norm, training=training)
        return self.enlarge(ops.sigmoid(ops.cast(self.last(x), "float32")))


class Generator(_Network):
    """c7s1-w, d2w, d4w, `blocks` × R4w, u2w, uw, c7s1-channels, tanh: [N, H, W, C] → [N, H, W, channels].

    H and W are multiples of 4. All padding is by zeros.
    """

    def __init__(self, channels, width, blocks, **kwargs):
        super().__init__(**kwargs)
        self.head, self.head_norm = self.conv(width, 7, pad=3), self.norm()
        self.down = [(self.conv(width * m, 3, 2, pad="same"), self.norm()) for m in (2, 4)]
        self.blocks = [ResidualBlock(4 * width, "zeros", **self.next_network("block")) for _ in range(blocks)]
        # Cut as TensorFlow's "same" cuts.
        self.up = [(self.conv_transpose(width * m, 3, output_pad=-1), self.norm()) for m in (2, 1)]
        self.tail = self.conv(channels, 7, pad=3)
        downs, ups = ([layer for pair in pairs for layer in pair] for pairs in (self.down, self.up))
        self.stack = [self.head, self.head_norm, *downs, *self.blocks, *ups, self.tail]

    def call(self, x, training=False):
        x = layers.rectified(x, self.head, self.head_norm, training=training)
        for conv, norm in self.down:
            x = layers.rectified(x, conv, norm, training=training)
        for block in self.blocks:
            x = layers.remat(block, x, training=training)
        for conv, norm in self.up:
            x = layers.rectified(x, conv, norm, training=training)
        return ops.tanh(ops.cast(self.tail(x), "float32"))


class Discriminator(_Network):
    """Five 4×4 convolutions, padded by 2, three of stride 2: [N, H, W, C] → logits float32 [N, H/8 + 3, W/8 + 3, 1].

    `normalized`: whether the norms behind all but the last are used. LeakyReLU 0.2.
    """

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        sizes = [(width, 2), (2 * width, 2), (4 * width, 2), (8 * width, 1)]
        self.inner = [(self.conv(filters, 4, strides, pad=2), self.norm()) for filters, strides in sizes]
        self.last = self.conv(1, 4, pad=2)
        self.stack = [*[layer for pair in self.inner for layer in pair], self.last]

    def call(self, x, normalized=True, training=False):
        for conv, norm in self.inner:
            x = conv(x)
            x = layers.leaky_relu(norm(x, training=training) if normalized else x, 0.2)
        return ops.cast(self.last(x), "float32")

    def learned(self, normalized):
        """The weights that learn with or without the norms."""
        if normalized:
            return self.trainable_variables
        return [v for conv in (*[conv for conv, _ in self.inner], self.last) for v in conv.trainable_variables]


# ---------------------------------------------------------------------------------------------------------------------
# The model and its losses (paper: section 3)


def foreground(x, mask, threshold):
    """x [N, H, W, C] where mask [N, H, W, 1] is at least the threshold, else 0. No gradient reaches the mask."""
    return x * ops.cast(mask >= threshold, x.dtype)


@keras.saving.register_keras_serializable(package="tfi2i")
class AGGAN(AttentiveTranslator):
    """Generators, attention networks and discriminators, one of each a domain. Hyper-parameters: `config.AGGAN`.

    `fit`, which knows no epochs of a whole training, stays in the first stage.

    Example:

        model = tfi2i.AGGAN(residual_blocks=6)
        model.compile()
        model.fit(dataset)                      # batches (A, B), float32 in [-1, 1]
        pictures, masks = model.translate(photos, return_heatmap=True)
    """

    config_class = config.AGGAN
    sizes = Sizes(multiple=4, minimum=8, crop_minimum=8)
    advice = {
        "silent discriminator": "try --pool_size=50, a smaller --discriminator_width, or more images",
        "unchanged": "its masks are black, as happens with some seeds: start again with another --seed, or lower "
        "--lambda_a and --lambda_b",
        "blank": "start again with a lower --learning_rate or another --seed",
        "inverted": "start again with another --seed",
    }

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="aggan", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c = self.config
        if channels_a != channels_b:
            raise UserError(
                f"--channels_a={channels_a} --channels_b={channels_b}: aggan keeps a part of its input, so that both "
                "domains need the same number of channels"
            )

        def named(name):
            return {"seed": seed, "dtype": self.dtype_policy, "name": name}

        shape = (channels_a, c.generator_width, c.residual_blocks)
        self.generator_a2b = Generator(*shape, **named("generator_a2b"))
        self.generator_b2a = Generator(*shape, **named("generator_b2a"))
        self.attention_a = Attention(c.generator_width, **named("attention_a"))
        self.attention_b = Attention(c.generator_width, **named("attention_b"))
        self.discriminator_a = Discriminator(c.discriminator_width, **named("discriminator_a"))
        self.discriminator_b = Discriminator(c.discriminator_width, **named("discriminator_b"))
        self.pool_a = ImagePool(c.pool_size, seed, name="pool_a")
        self.pool_b = ImagePool(c.pool_size, seed, name="pool_b")

    @property
    def networks(self):
        names = ("generator_a2b", "generator_b2a", "attention_a", "attention_b", "discriminator_a", "discriminator_b")
        return {n: getattr(self, n) for n in names}

    @property
    def generators(self):
        def translate(x, direction, training=False):
            return self.blend(x, direction, training)[0]

        return {direction: functools.partial(translate, direction=direction) for direction in DIRECTIONS}

    def blend(self, x, direction, training=False):
        """The translation and its mask: m G(x) + (1 - m) x, m = A(x).

        Args:
            x: float32 [N, H, W, C], H and W multiples of 4.
            direction: "a2b" or "b2a".

        Returns:
            (float32 [N, H, W, C], mask float32 [N, H, W, 1] from 0 to 1).
        """
        mask = self.networks[f"attention_{direction[0]}"](x, training=training)
        made = self.networks[f"generator_{direction}"](x, training=training)
        return mask * made + (1 - mask) * x, mask

    def updates_per_step(self, role):
        return 2

    def published_optimizer(self, role, learning_rate=None):
        c = self.config
        return optim.AlternatingAdam(
            learning_rate or self.learning_rate(role),
            1 + self.roles.index(role),
            beta_1=c.beta_1,
            beta_2=c.beta_2,
            coupled_weight_decay=c.weight_decay,
            name=f"{role}_adam",
        )

    def build_for_training(self, shape_a, shape_b):
        super().build_for_training(shape_a, shape_b)
        for pool, shape in ((self.pool_a, shape_a), (self.pool_b, shape_b)):
            if not pool.built:
                pool.build((*shape[:-1], shape[-1] + 1))  # of images with their masks

    def stage(self, step):
        """ "foreground" from `switch_epoch` on, where the length of an epoch is known."""
        if self.steps_per_epoch is None or step < self.config.switch_epoch * self.steps_per_epoch:
            return None
        return "foreground"

    def learn(self, a, b, indices, stage=None):
        first = stage != "foreground"
        losses = {}
        # Each of the four phases sees what those before it have learned.
        for direction, x, y in (("a2b", a, b), ("b2a", b, a)):
            source, to = direction[0], direction[-1]
            learned = list(self.networks[f"generator_{direction}"].trainable_variables)
            if first:
                learned += self.networks[f"attention_{source}"].trainable_variables
            compute = functools.partial(self.generator_phase, direction, first)
            g_losses, made = self.phase(compute, "generator", learned=learned, x=x, y=y)
            pool = {"a": self.pool_a, "b": self.pool_b}[to]
            fake = pool.query(ops.concatenate([made["fake"], made["mask"]], axis=-1), self.step.value, indices)
            learned = self.networks[f"discriminator_{to}"].learned(normalized=first)
            compute = functools.partial(self.discriminator_phase, to, first)
            d_losses, _ = self.phase(
                compute, "discriminator", learned=learned, real=y, real_mask=made["real_mask"], fake=fake
            )
            # Both generators' phases have both cycles: those before any update are reported.
            losses |= {name: loss for name, loss in (g_losses | d_losses).items() if name not in losses}
        return losses

    def judge(self, domain, first, x, mask):
        """What a discriminator says in the first or second stage of images with their masks."""
        x = x if first else foreground(x, mask, self.config.mask_threshold)
        return self.networks[f"discriminator_{domain}"](x, normalized=first, training=True)

    def generator_phase(self, direction, first, x, y):
        """(D(x') - 1)² + λ ‖x'' - x‖₁ + λ ‖y'' - y‖₁, x' the translation of x and x'' its way back.

        x' has the mask of x before the discriminator.
        """
        c, source, to = self.config, direction[0], direction[-1]
        fake_x, real_mask = self.blend(y, direction[::-1], training=True)
        made, masks = self.blend(ops.concatenate([x, fake_x]), direction, training=True)
        (fake_y, back_y), (mask, _) = ops.split(made, 2), ops.split(masks, 2)
        back_x, _ = self.blend(fake_y, direction[::-1], training=True)
        losses = {f"gan_{direction}": adversarial_loss(self.judge(to, first, fake_y, mask), True, "lsgan")}
        cycles = {source: l1(back_x, x), to: l1(back_y, y)}
        for domain, weight in (("a", c.lambda_a), ("b", c.lambda_b)):
            if weight:
                losses[f"cycle_{domain}"] = weight * cycles[domain]
        return losses, {"fake": fake_y, "mask": mask, "real_mask": real_mask}

    def discriminator_phase(self, domain, first, real, real_mask, fake):
        """½ ((D(real) - 1)² + D(fake)²); fakes [N, H, W, C + 1] come from the pool with the masks of their sources."""
        images = ops.concatenate([real, fake[..., :-1]])
        masks = ops.concatenate([real_mask, fake[..., -1:]])
        judged_real, judged_fake = ops.split(self.judge(domain, first, images, masks), 2)
        loss = adversarial_loss(judged_real, True, "lsgan") + adversarial_loss(judged_fake, False, "lsgan")
        return {f"discriminator_{domain}": 0.5 * loss}, {}

    # === Masks for people to look at ===

    def attention(self, x, direction="a2b"):
        """The masks of images [N, H, W, C] of any size: float32 [N, H, W, 1]; 1 is translated, 0 is kept."""

        def look(x):
            with self.averaged():
                return self.networks[f"attention_{direction[0]}"](x)

        return self.generate(x, direction, network=look)

    def check_heatmaps(self, discriminators=False):
        if discriminators:
            raise UserError(f"--discriminator_heatmaps: {self.name}'s discriminators have no attention: use --heatmaps")
