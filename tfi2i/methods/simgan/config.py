"""Hyper-parameters of SimGAN."""

import dataclasses
import typing

from tfi2i.config import (
    Hyperparameters,
    averaging,
    check_below_1,
    check_choices,
    check_not_negative,
    check_paths,
    check_positive,
    fill,
    one_way,
    option,
)

# Of pixels the default of the authors' code. Features pull on a translation as strongly with 0.3: measured, see
# docs/methods/simgan.md.
_LAMBDA_CONTENT = {"pixel": 10.0, "vgg": 0.3}


@dataclasses.dataclass(frozen=True)
class SimGAN(Hyperparameters):
    """Shrivastava et al., Learning from Simulated and Unsupervised Images through Adversarial Training, 1612.07828.

    As CycleGAN's authors ran it for the rows "SimGAN" and "Feature loss + GAN" of their tables (arXiv 1703.10593,
    section 5.1.2): with CycleGAN's networks and settings. Defaults are those of their Torch7 code (model `content_gan`)
    and, for the learning rate, of their paper.
    """

    content: str = option(
        "pixel",
        "what a translation keeps of its input. pixel: the pixels, which is SimGAN; vgg: features of VGG16 (relu4_2), "
        'which is "feature loss + GAN"',
        ("pixel", "vgg"),
    )
    vgg_weights: str | None = option(
        None, "file of Keras' VGG16 weights without top (.h5) for --content=vgg; by default Keras downloads them"
    )
    vgg_size: int = option(
        224, "side in pixels of the square that pictures are resized to for --content=vgg; 0: their own size"
    )
    direction: str = one_way("which way to learn to translate")
    generator: str = option(
        "resnet_9blocks",
        "generator network (CycleGAN's appendix 7.2)",
        ("resnet_9blocks", "resnet_6blocks"),
        known_as=("netg",),
    )
    generator_width: int = option(64, "channels after the generator's first layer (ngf)", known_as=("ngf",))
    upsample: str = option(
        "transposed",
        "how the generator enlarges its maps: by transposed convolutions, or by nearest-neighbour upsampling and a "
        "convolution, which leaves no checkerboard",
        ("transposed", "resize_conv"),
    )
    discriminator_layers: int = option(
        3, "stride-2 convolutions of the PatchGAN; with 3, each of its answers is about 70x70 pixels"
    )
    discriminator_width: int = option(64, "channels after the discriminator's first layer (ndf)", known_as=("ndf",))
    init: str = option("normal", "initialiser of all kernels", ("normal", "xavier", "kaiming", "orthogonal"))
    init_gain: float = option(0.02, "standard deviation of --init=normal, gain of --init=xavier and --init=orthogonal")
    gan_loss: str = option("lsgan", "adversarial loss", ("lsgan", "vanilla"))
    lambda_content: float | None = option(
        None,
        "weight of the mean absolute difference between a translation and its input, or of their features (default: "
        "10 for pixel, 0.3 for vgg)",
    )
    pool_size: int = option(50, "images in the history that the discriminator learns from; 0: no history")
    ema_momentum: float = averaging()
    learning_rate: float = option(2e-4, "Adam's learning rate, both networks", known_as=("lr",))
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")
    weight_decay: float = option(0.0, "L2 added to the gradient of all weights before Adam, as torch.optim.Adam does")

    paths: typing.ClassVar = ("vgg_weights",)
    recipe: typing.ClassVar = {
        "resize": (286, 286), "resize_mode": "exact", "resize_filter": "bilinear", "crop": (256, 256),
        "flip": 0.5, "flip_first": False,
        "batch_size": 1, "epochs": 200, "lr_schedule": "linear_torch7", "decay_fraction": 0.5,
    }  # fmt: skip

    def __post_init__(self):
        check_choices(self)
        check_paths(self, *self.paths)
        fill(self, {"lambda_content": _LAMBDA_CONTENT[self.content]})
        check_positive(self, "generator_width", "discriminator_width", "discriminator_layers", "learning_rate")
        check_below_1(self, "ema_momentum")
        check_not_negative(self, "lambda_content", "vgg_size", "pool_size", "init_gain", "weight_decay")
