"""CartoonGAN: Chen, Lai, Liu, CVPR 2018; what the paper leaves open as in the first author's Torch7 code.

Photos become cartoons by one generator. Its discriminator learns that cartoons are real, and that two things are not:
translations, and cartoons whose edges are blurred away (section 3.2.1), so that it asks for clear edges. The content
loss keeps what the photo shows. At the beginning the generator learns from that alone, to reconstruct (section 3.3).

Names: with --direction=a2b, `generator_a2b` is the paper's G and `discriminator_b` its D; with b2a the letters are
exchanged. `gan_a2b` is the generator's part of L_adv, `discriminator_b` the discriminator's, `perceptual_a2b` is
ω L_con, with ω = `lambda_vgg`; `smoothed` are the paper's e.

The code's gradient of the content loss is 127.5² times too small: its preprocessing of VGG's input divides by 127.5 on
the way back where it had to multiply. All released models were trained so, and --content_gradient=official does it too.
The code sets all biases of convolutions to 0 in each step: here they are 0 and learn nothing, and those of released
files, which are below 1e-6, stay as they are.

Departures: the code's generator learns from what the discriminator said before its update, of an older batch where the
pool gave one; here the updated discriminator is asked again. The code's pool holds 50 whole batches; here it holds
--pool_size pictures. The code takes ⌈photos / batch⌉ steps for an epoch. The networks see red, green, blue, where the
code has the opposite order: `published` exchanges the channels.
"""

import keras
import tensorflow as tf
from keras import ops

from tfi2i import layers, optim
from tfi2i.config import UserError
from tfi2i.data import edges
from tfi2i.methods.cartoongan import config
from tfi2i.methods.losses import adversarial_loss, l1
from tfi2i.methods.memory import ImagePool
from tfi2i.methods.perceptual import PerceptualFeatures
from tfi2i.methods.sizes import Sizes
from tfi2i.methods.translator import Translator

# ---------------------------------------------------------------------------------------------------------------------
# Networks (figure 2; numbers as in the code)


class _Network(layers.Network):
    """Kernels N(0, 0.02), biases 0; instance norms with an offset, 0, and a factor, U(0, 1)."""

    def conv(self, filters, kernel, strides=1, reflect=False):
        return super().conv(filters, kernel, strides, kernel // 2, "reflect" if reflect else "zeros")

    def norm(self):
        named = self.next_layer("norm")
        start = keras.initializers.RandomUniform(0.0, 1.0, seed=self.layer_seed)
        return layers.InstanceNormalization(center=True, scale=True, gamma_initializer=start, **named)

    @property
    def learned(self):
        """What a step changes: all but the biases of convolutions."""
        return [v for v in self.trainable_variables if not v.path.endswith("bias")]


class ResidualBlock(_Network):
    """x + IN(conv3(relu(IN(conv3(x))))), reflection padding."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.conv_1, self.norm_1 = self.conv(width, 3, reflect=True), self.norm()
        self.conv_2, self.norm_2 = self.conv(width, 3, reflect=True), self.norm()
        self.stack = [self.conv_1, self.norm_1, self.conv_2, self.norm_2]

    def call(self, x, training=False):
        y = ops.relu(self.norm_1(self.conv_1(x), training=training))
        return x + self.norm_2(self.conv_2(y), training=training)


class Generator(_Network):
    """[N, H, W, C] → [N, H, W, C'] in [-1, 1], H and W multiples of 4.

    7×7 to `width` channels; twice 3×3 of stride 2, which doubles them, and 3×3; `blocks` residual blocks; twice
    transposed 3×3 and 3×3; 7×7, tanh. IN and ReLU behind the first 7×7 and every 3×3 of stride 1; nothing between the
    convolutions of a pair. Reflection at the 7×7 and in the blocks, zeros elsewhere.
    """

    def __init__(self, channels, width, blocks, **kwargs):
        super().__init__(**kwargs)
        self.head, self.head_norm = self.conv(width, 7, reflect=True), self.norm()
        self.down = []
        for m in (2, 4):
            self.down.append((self.conv(width * m, 3, 2), self.conv(width * m, 3), self.norm()))
        self.blocks = [ResidualBlock(4 * width, **self.next_network("block")) for _ in range(blocks)]
        self.up = []
        for m in (2, 1):
            enlarge = self.conv_transpose(width * m, 3, pad=1, output_pad=1)
            self.up.append((enlarge, self.conv(width * m, 3), self.norm()))
        self.tail = self.conv(channels, 7, reflect=True)
        down, up = ([layer for three in part for layer in three] for part in (self.down, self.up))
        self.stack = [self.head, self.head_norm, *down, *self.blocks, *up, self.tail]

    def call(self, x, training=False):
        x = layers.rectified(x, self.head, self.head_norm, training=training)
        for resize, conv, norm in self.down:
            x = layers.rectified(x, resize, conv, norm, training=training)
        for block in self.blocks:
            x = layers.remat(block, x, training=training)
        for resize, conv, norm in self.up:
            x = layers.rectified(x, resize, conv, norm, training=training)
        return ops.tanh(ops.cast(self.tail(x), "float32"))


class Discriminator(_Network):
    """Seven 3×3, two of stride 2, LeakyReLU 0.2: [N, H, W, C] → float32 [N, ⌈H/4⌉, ⌈W/4⌉, 1].

    IN behind the third, the fifth and the sixth.
    """

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        plan = ((1, 1, False), (2, 2, False), (4, 1, True), (4, 2, False), (8, 1, True), (8, 1, True))
        self.inner = [
            (self.conv(width * m, 3, strides), self.norm() if normed else None) for m, strides, normed in plan
        ]
        self.last = self.conv(1, 3)
        self.stack = [*[layer for pair in self.inner for layer in pair if layer], self.last]

    def call(self, x, training=False):
        for conv, norm in self.inner:
            x = conv(x)
            x = layers.leaky_relu(norm(x, training=training) if norm else x, 0.2)
        return ops.cast(self.last(x), "float32")


# ---------------------------------------------------------------------------------------------------------------------
# How it learns (the code)


@keras.saving.register_keras_serializable(package="tfi2i")
class InitialSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of the initialisation, then that of the adversarial training, as if this began at its step 0.

    Args:
        initial: schedule of the first `steps` steps.
        steps: their number.
        later: schedule of all others.
    """

    def __init__(self, initial, steps, later):
        self.initial, self.steps, self.later = initial, steps, later

    def __call__(self, step):
        first = ops.cast(step, "int64") < self.steps
        return ops.where(first, self.initial(step), self.later(ops.maximum(ops.cast(step, "int64") - self.steps, 0)))

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {"initial": serialize(self.initial), "steps": self.steps, "later": serialize(self.later)}

    @classmethod
    def from_config(cls, config):
        parts = {name: keras.saving.deserialize_keras_object(config[name]) for name in ("initial", "later")}
        return cls(steps=config["steps"], **parts)


# ---------------------------------------------------------------------------------------------------------------------
# The model (section 3)

# What the gradient of the content loss is multiplied by.
_GRADIENT = {"official": 127.5**-2, "true": 1.0}


@keras.saving.register_keras_serializable(package="tfi2i")
class CartoonGAN(Translator):
    """A generator that turns photos into cartoons, and a discriminator. Hyper-parameters: `config.CartoonGAN`.

    Example:

        model = tfi2i.CartoonGAN(generator_width=32)
        model.compile()
        model.fit(dataset)                      # batches (photos, cartoons), float32 in [-1, 1]
        cartoons = model.translate(photos)      # uint8 in, uint8 out

    `fit` learns without the initialisation, and with the batch's own cartoons as the smoothed ones; `tfi2i.train` has
    both as published.
    """

    config_class = config.CartoonGAN
    advice = {
        "silent discriminator": "try a higher --lambda_vgg, a smaller --discriminator_width, or more cartoons",
        "unchanged": "lower --lambda_vgg, or train longer: the published rate is small",
        "blank": "start again with a lower --initial_learning_rate, or a higher --lambda_vgg",
    }

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="cartoongan", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c = self.config
        self.source, self.target = c.direction[0], c.direction[-1]
        shared = {"seed": seed, "dtype": self.dtype_policy}
        shape = (self.channels_of(self.target), c.generator_width, c.residual_blocks)
        self.generator = Generator(*shape, name=f"generator_{c.direction}", **shared)
        self.discriminator = Discriminator(c.discriminator_width, name=f"discriminator_{self.target}", **shared)
        self.sizes = Sizes(multiple=4, minimum=8, crop_minimum=8)
        self.pool = ImagePool(c.pool_size, seed, name=f"pool_{self.target}")
        self.perceptual = None
        if c.lambda_vgg:
            if {channels_a, channels_b} != {3}:
                raise UserError("--lambda_vgg compares colour images: set --channels_a=3 and --channels_b=3")
            layer = {"vgg19": "block4_conv4", "vgg16": "block4_conv3"}[c.vgg]
            named = {"dtype": self.dtype_policy, "name": "perceptual"}
            self.perceptual = PerceptualFeatures(c.vgg, layer, activation=False, **named)
            self.perceptual.check_side(c.vgg_size, "--vgg_size")

    @property
    def networks(self):
        return {network.name: network for network in (self.generator, self.discriminator)}

    @property
    def frozen(self):
        return {"perceptual": self.perceptual} if self.perceptual else {}

    @property
    def generators(self):
        return {self.config.direction: self.generator}

    def build_for_training(self, *shapes):
        super().build_for_training(*shapes)
        if not self.pool.built:
            self.pool.build(shapes["ab".index(self.target)])

    def prepare_frozen(self):
        if self.perceptual:
            self.perceptual.prepare(
                self.config.vgg_weights, "--vgg_weights", "--lambda_vgg", "--lambda_vgg=0 --initial_fraction=0"
            )

    # === Two phases ===

    @property
    def initial_steps(self):
        """How many steps the initialisation takes; 0 where the length of the training is not known."""
        return round(self.config.initial_fraction * (self.total_steps or 0))

    def stage(self, step):
        """ "initialisation" at the beginning."""
        return "initialisation" if step < self.initial_steps else None

    def published_optimizer(self, role, learning_rate=None):
        if self.initial_steps and isinstance(learning_rate, optim.Schedule):
            learning_rate = self.schedule(role, learning_rate)
        c = self.config
        return optim.UncorrectedAdam(
            learning_rate or self.learning_rate(role),
            c.beta_1,
            c.beta_2,
            coupled_weight_decay=c.weight_decay,
            name=f"{role}_adam",
        )

    def schedule(self, role, whole):
        """The schedule of a role; `whole` is an `optim.Schedule` as if there were no initialisation."""
        later = whole.get_config()
        later["total_steps"] = max(1, whole.total_steps - self.initial_steps)
        if role == "discriminator":  # it takes no step before
            return optim.Schedule(**later)
        initial = optim.Schedule(
            self.config.initial_learning_rate, "linear_torch7", self.initial_steps, whole.steps_per_epoch
        )
        return InitialSchedule(initial, self.initial_steps, optim.Schedule(**later))

    # === One step ===

    def learn(self, a, b, smoothed=None, *, indices, stage=None):
        photos, cartoons = (a, b) if self.config.direction == "a2b" else (b, a)
        if stage == "initialisation":
            losses, _ = self.phase(self.content_phase, "generator", learned=self.generator.learned, photos=photos)
            return losses
        losses = {}
        if self.config.lambda_gan:
            if smoothed is None:
                smoothed = self.to_float(edges.smooth_edges(self.to_pixels(cartoons)))
            _, made = self.phase(self.translation, None, photos=photos)
            fake = self.pool.query(made["fake"], self.step.value, indices)
            images = {"cartoons": cartoons, "smoothed": smoothed, "fake": fake}
            learned = self.discriminator.learned
            losses, _ = self.phase(self.discriminator_phase, "discriminator", learned=learned, **images)
        g_losses, _ = self.phase(self.generator_phase, "generator", learned=self.generator.learned, photos=photos)
        return g_losses | losses

    def translation(self, photos):
        """What the discriminator is shown of the generator before either learns."""
        return {}, {"fake": self.generator(photos, training=True)}

    def content_loss(self, fake, photos):
        """ω ‖VGG(G(p)) - VGG(p)‖₁, a mean (equation 3); its gradient as `content_gradient` says."""
        factor = _GRADIENT[self.config.content_gradient]
        # The value is that of `fake` itself.
        fake = factor * fake + ops.stop_gradient((1 - factor) * fake)
        return self.config.lambda_vgg * l1(self.features(fake), self.features(photos))

    def features(self, x):
        """conv4_4 of pictures that are enlarged, or reduced, to `vgg_size`: float32 [N, h, w, 512]."""
        if size := self.config.vgg_size:
            # Corners of both grids coincide, as in Torch7; nothing is antialiased. Unlike the antialiased one, this
            # operation has a gradient under XLA.
            x = tf.compat.v1.image.resize_bilinear(x, (size, size), align_corners=True)
        return self.perceptual(x)

    def content_phase(self, photos):
        """ω L_con alone."""
        fake = self.generator(photos, training=True)
        return {f"perceptual_{self.config.direction}": self.content_loss(fake, photos)}, {}

    def discriminator_phase(self, cartoons, smoothed, fake):
        """L(D(cartoons), 1) + L(D(smoothed), 0) + L(D(fake), 0) (equation 2)."""
        judged = ops.split(self.discriminator(ops.concatenate([cartoons, smoothed, fake]), training=True), 3)
        kinds = zip(judged, (True, False, False))
        return {f"discriminator_{self.target}": sum(adversarial_loss(x, r, self.config.gan_loss) for x, r in kinds)}, {}

    def generator_phase(self, photos):
        """λ_gan L(D(G(p)), 1) + ω L_con (equation 1), D being the updated discriminator."""
        c, losses = self.config, {}
        fake = self.generator(photos, training=True)
        if c.lambda_gan:
            judged = self.discriminator(fake, training=True)
            losses[f"gan_{c.direction}"] = c.lambda_gan * adversarial_loss(judged, True, c.gan_loss)
        if c.lambda_vgg:
            losses[f"perceptual_{c.direction}"] = self.content_loss(fake, photos)
        return losses, {}
