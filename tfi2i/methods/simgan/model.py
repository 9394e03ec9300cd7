"""SimGAN (Shrivastava et al., arXiv 1612.07828) and "feature loss + GAN", as in CycleGAN's tables (arXiv 1703.10593).

What these rows are made of is in CycleGAN's section 5.1.2 and in its authors' Torch7 code, model `content_gan`.

Names: with --direction=a2b, `generator_a2b` is SimGAN's refiner R and the code's G_A, and `discriminator_b` its D_A,
which judges pictures of B; with b2a the letters are exchanged. `gan_a2b` is the code's errG. `content_a` is its
errCont, the self-regularisation loss of SimGAN's paper, with its weight: it compares a picture of A with its
translation. `discriminator_b` is the code's errD. The networks are CycleGAN's; VGG16 is `features`.

The code has four defects, which are departures here:

- The generator's adversarial gradient is that of its own translation, judged by the updated discriminator. The code
  takes that of the picture that came from the history, which is another one in about half of the steps.
- The learning rate falls in the second half, as the paper says. The code never lowers it: --lr_schedule=constant.
- The gradient of the feature loss is true. The code divides by 127.5 where its backward pass should multiply, so that
  the gradient is 127.5² = 16,256 times too small: --lambda_content=0.000615 has that size.
- That gradient passes the activations of the translation. In the code it passes those of the input.

And these are choices:

- --content=vgg has the weight 0.3, with which features pull on a translation as strongly as pixels do with 10.
- The discriminator's loss is halved, as the paper says. The code halves the number that it prints.
- Biases before a norm, which cannot change the output, stay as they are; the code sets them to 0 in each step.
- The discriminator pads its maps by 1 pixel, as PyTorch's code does; the code pads by 2.
- VGG16 is Keras', of ImageNet. The code names no weights, and its download script has VGG16 of Places365.
- An epoch's images of both domains are permutations.

The networks, losses and schedule of SimGAN's own paper, for grey pictures of eyes of 35×55 pixels, are not here.
"""

import keras
import tensorflow as tf
from keras import ops

from tfi2i.config import UserError
from tfi2i.methods.cyclegan.model import Discriminator, ResnetGenerator
from tfi2i.methods.losses import adversarial_loss, l1
from tfi2i.methods.memory import ImagePool
from tfi2i.methods.perceptual import PerceptualFeatures
from tfi2i.methods.simgan import config
from tfi2i.methods.sizes import Sizes
from tfi2i.methods.translator import Translator


def resized(x, side):
    """Bilinear, the corners on the corners, as Torch7's: float32 [N, H, W, C] → [N, side, side, C]."""
    return tf.raw_ops.ResizeBilinear(images=x, size=[side, side], align_corners=True)


@keras.saving.register_keras_serializable(package="tfi2i")
class SimGAN(Translator):
    """A generator that learns one direction without pairs, and a discriminator; translations stay near their inputs.

    Hyper-parameters: `config.SimGAN`.

    Example:

        model = tfi2i.SimGAN(direction="a2b", generator="resnet_6blocks")
        model.compile()
        model.fit(dataset)                      # batches (A, B), float32 in [-1, 1]
        pictures = model.translate(photos)      # uint8 in, uint8 out
    """

    config_class = config.SimGAN
    advice = {
        "silent discriminator": "try --pool_size=50, a smaller --discriminator_width or --discriminator_layers, or "
        "more images",
        "unchanged": "lower --lambda_content",
        "blank": "start again with a lower --learning_rate or another --init",
        "inverted": "raise --lambda_content, or start again with another --seed",
        "small crop": ", or give fewer --discriminator_layers",
    }

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="simgan", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c = self.config
        if channels_a != channels_b:
            raise UserError(
                f"--method=simgan compares a translation with its input, but A has {channels_a} and B {channels_b} "
                "channels: make --channels_a and --channels_b equal"
            )
        if c.content == "vgg" and channels_a != 3:
            raise UserError("--content=vgg compares colour images: set --channels_a=3 and --channels_b=3")
        self.source, self.target = c.direction[0], c.direction[-1]
        shared = {"norm": "instance", "affine": True, "init": c.init, "init_gain": c.init_gain}
        shared |= {"seed": seed, "dtype": self.dtype_policy}
        blocks = {"resnet_9blocks": 9, "resnet_6blocks": 6}[c.generator]
        sizes = (channels_b, c.generator_width, blocks, c.upsample)
        self.generator = ResnetGenerator(*sizes, dropout=False, name=f"generator_{c.direction}", **shared)
        sizes = ("n_layers", c.discriminator_layers, c.discriminator_width)
        self.discriminator = Discriminator(*sizes, name=f"discriminator_{self.target}", **shared)
        self.sizes = Sizes(multiple=4, minimum=8, crop_minimum=max(8, self.discriminator.size_minimum))
        self.pool = ImagePool(c.pool_size, seed, name=f"pool_{self.target}")
        self.lambda_content = config.LAMBDA_CONTENT[c.content] if c.lambda_content is None else c.lambda_content
        self.features = None
        if c.content == "vgg" and self.lambda_content:
            self.features = PerceptualFeatures("vgg16", "block4_conv2", dtype=self.dtype_policy, name="features")
            self.features.check_side(c.vgg_size, "--vgg_size")

    @property
    def networks(self):
        return {network.name: network for network in (self.generator, self.discriminator)}

    @property
    def frozen(self):
        return {"features": self.features} if self.features else {}

    @property
    def generators(self):
        return {self.config.direction: self.generator}

    def build_for_training(self, shape_a, shape_b):
        super().build_for_training(shape_a, shape_b)
        if not self.pool.built:
            self.pool.build({"a": shape_a, "b": shape_b}[self.source])

    def prepare_frozen(self):
        if self.features:
            self.features.prepare(self.config.vgg_weights, "--vgg_weights", "--content=vgg", "--content=pixel")

    # -----------------------------------------------------------------------------------------------------------------
    # One step (in the order of the authors' code, the discriminator first)

    def learn(self, a, b, indices):
        x, y = (a, b) if self.source == "a" else (b, a)
        _, made = self.phase(self.translation, None, x=x)
        fake = self.pool.query(made["fake"], self.step.value, indices)
        d_losses, _ = self.phase(self.discriminator_phase, "discriminator", real=y, fake=fake)
        losses, _ = self.phase(self.generator_phase, "generator", x=x)
        return losses | d_losses

    def translation(self, x):
        """What the discriminator is shown of the generator before either learns."""
        return {}, {"fake": self.generator(x, training=True)}

    def discriminator_phase(self, real, fake):
        """½ (L(D(y), 1) + L(D(G(x)), 0)), fakes from the history."""
        kind = self.config.gan_loss
        judged_real, judged_fake = ops.split(self.discriminator(ops.concatenate([real, fake]), training=True), 2)
        loss = adversarial_loss(judged_real, True, kind) + adversarial_loss(judged_fake, False, kind)
        return {f"discriminator_{self.target}": 0.5 * loss}, {}

    def generator_phase(self, x):
        """L(D(G(x)), 1) + λ ‖φ(G(x)) - φ(x)‖₁, D being the updated discriminator; a mean, not a sum."""
        c = self.config
        fake = self.generator(x, training=True)
        judged = self.discriminator(fake, training=True)
        losses = {f"gan_{c.direction}": adversarial_loss(judged, True, c.gan_loss)}
        if self.lambda_content:
            losses[f"content_{self.source}"] = self.lambda_content * l1(self.described(fake), self.described(x))
        return losses, {}

    def described(self, x):
        """φ: the pixels themselves, or relu4_2 of VGG16, [N, 28, 28, 512] of pictures at its 224 pixels."""
        if not self.features:
            return x
        return self.features(resized(x, self.config.vgg_size) if self.config.vgg_size else x)
