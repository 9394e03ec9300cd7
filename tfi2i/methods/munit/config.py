"""Hyper-parameters of MUNIT."""

import dataclasses
import typing

from tfi2i.config import (
    Hyperparameters,
    UserError,
    averaging,
    check_below_1,
    check_choices,
    check_not_negative,
    check_paths,
    check_positive,
    option,
)


@dataclasses.dataclass(frozen=True)
class MUNIT(Hyperparameters):
    """Huang, Liu, Belongie, Kautz, Multimodal Unsupervised Image-to-Image Translation, arXiv 1804.04732.

    Defaults are those of the authors' code for edges and shoes; --lambda_cycle=10 is its setting for Yosemite.
    """

    generator_width: int = option(64, "channels after the first layer of encoders, and before the last of decoders")
    style_size: int = option(8, "numbers in a style")
    mlp_width: int = option(256, "units of the two hidden layers that turn a style into the parameters of AdaIN")
    discriminator_layers: int = option(4, "convolutions of stride 2 in a discriminator")
    discriminator_scales: int = option(3, "number of sizes at which discriminators look, each half of the one before")
    discriminator_width: int = option(64, "channels after the discriminator's first layer")
    gan_loss: str = option("lsgan", "adversarial loss", ("lsgan", "vanilla"))
    lambda_gan: float = option(1.0, "weight of the adversarial losses of generators and discriminators")
    lambda_reconstruction: float = option(10.0, "weight of the reconstruction of images (lambda x)")
    lambda_style: float = option(1.0, "weight of the reconstruction of styles (lambda s)")
    lambda_content: float = option(1.0, "weight of the reconstruction of contents (lambda c)")
    lambda_cycle: float = option(
        0.0,
        "weight of the style-augmented cycle (section 4); 10 where translations keep every detail, as from summer "
        "to winter, 0 where shapes change",
    )
    lambda_vgg: float = option(0.0, "weight of the domain-invariant perceptual loss, for crops of 512 pixels and more")
    vgg_weights: str | None = option(
        None, "file of Keras' VGG16 weights without top (.h5) for --lambda_vgg; by default Keras downloads them"
    )
    ema_momentum: float = averaging()
    learning_rate: float = option(1e-4, "Adam's learning rate, all networks", known_as=("lr",))
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")
    weight_decay: float = option(1e-4, "L2 added to the gradient of all weights before Adam, as torch.optim.Adam does")

    paths: typing.ClassVar = ("vgg_weights",)
    recipe: typing.ClassVar = {
        "resize": (256, 256), "resize_mode": "short_side", "resize_filter": "bilinear", "crop": (256, 256),
        "flip": 0.5, "flip_first": True, "batch_size": 1, "steps": 1_000_000, "lr_schedule": "halving",
        "decay_fraction": 0.5,
    }  # fmt: skip

    def __post_init__(self):
        check_choices(self)
        check_paths(self, *self.paths)
        check_positive(
            self,
            "generator_width",
            "style_size",
            "mlp_width",
            "discriminator_layers",
            "discriminator_scales",
            "discriminator_width",
            "learning_rate",
        )
        lambdas = [f.name for f in dataclasses.fields(self) if f.name.startswith("lambda_")]
        check_not_negative(self, *lambdas, "weight_decay")
        check_below_1(self, "ema_momentum")
        if not any(getattr(self, name) for name in lambdas):
            raise UserError(f"--{', --'.join(lambdas)} are all 0: nothing is left to learn")
