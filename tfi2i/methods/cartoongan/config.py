"""Hyper-parameters of CartoonGAN."""

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
    one_way,
    option,
)


@dataclasses.dataclass(frozen=True)
class CartoonGAN(Hyperparameters):
    """Chen, Lai, Liu, CartoonGAN: Generative Adversarial Networks for Photo Cartoonization, CVPR 2018.

    Defaults are those of the first author's Torch7 code.
    """

    direction: str = one_way("which way to learn to translate")
    generator_width: int = option(64, "channels after the generator's first layer (ngf)", known_as=("ngf",))
    residual_blocks: int = option(8, "residual blocks of the generator")
    discriminator_width: int = option(32, "channels after the discriminator's first layer (ndf)", known_as=("ndf",))
    gan_loss: str = option("lsgan", "adversarial loss", ("lsgan", "vanilla"))
    lambda_gan: float = option(1.0, "weight of the generator's adversarial loss")
    lambda_vgg: float = option(
        10.0,
        "weight of the content loss (omega, section 3.2): the difference between VGG features of translation and photo",
        known_as=("content_weight",),
    )
    vgg: str = option(
        "vgg19",
        "network of the content loss. vgg19: its conv4_4, as published; vgg16: its conv4_3, a departure for those who "
        "have no other weights",
        ("vgg19", "vgg16"),
    )
    vgg_weights: str | None = option(
        None,
        "file of the weights of Keras' VGG network without top (.h5) for --lambda_vgg; by default Keras downloads them",
    )
    vgg_size: int = option(
        224, "side in pixels of the square that pictures are brought to before the VGG network; 0: their own size"
    )
    content_gradient: str = option(
        "official",
        "official: the gradient of the content loss is divided by 127.5^2, as it is in the authors' code; true: the "
        "exact gradient of the logged loss, which needs a --lambda_vgg of 0.001 to 0.1, because with 10 translations "
        "stay photos",
        ("official", "true"),
    )
    initial_fraction: float = option(
        1 / 11,
        "part of the duration, at its beginning, in which the generator learns from the content loss alone (section "
        "3.3); by default 20 of 220 epochs",
    )
    initial_learning_rate: float = option(
        2e-4,
        "Adam's learning rate during the initialisation; it is constant in the first half and falls to 0, epoch by "
        "epoch, in the second, and --lr_schedule does not change it",
    )
    pool_size: int = option(50, "translations in the history that the discriminator learns from; 0: no history")
    ema_momentum: float = averaging()
    learning_rate: float = option(
        1e-5, "Adam's learning rate of both networks after the initialisation", known_as=("lr",)
    )
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")
    weight_decay: float = option(0.0, "L2 added to the gradient of all weights before Adam, as torch.optim.Adam does")

    paths: typing.ClassVar = ("vgg_weights",)
    recipe: typing.ClassVar = {
        "resize": (256, 256), "resize_mode": "exact", "resize_filter": "bilinear", "crop": (256, 256),
        "flip": 0.5, "flip_first": False, "batch_size": 8, "epochs": 220, "lr_schedule": "linear_torch7",
        "decay_fraction": 0.5,
    }  # fmt: skip

    def __post_init__(self):
        check_choices(self)
        check_paths(self, *self.paths)
        check_positive(self, "generator_width", "residual_blocks", "discriminator_width", "learning_rate")
        check_positive(self, "initial_learning_rate")
        check_not_negative(self, "lambda_gan", "lambda_vgg", "vgg_size", "pool_size", "weight_decay")
        check_below_1(self, "ema_momentum")
        if not 0 <= self.initial_fraction <= 1:
            raise UserError(f"--initial_fraction={self.initial_fraction}: expected 0 to 1")
        if not (self.lambda_gan or self.lambda_vgg):
            raise UserError("--lambda_gan and --lambda_vgg are both 0: nothing is left to learn")
        if self.initial_fraction and not self.lambda_vgg:
            raise UserError(
                f"--initial_fraction={self.initial_fraction:.3g} learns from the content loss alone, which "
                "--lambda_vgg=0 leaves out: give --initial_fraction=0 too"
            )

    @property
    def open_ended(self):
        """Not with an initialisation: when that ends follows from the duration."""
        return not self.initial_fraction

    @property
    def stream(self):
        return {"smoothed": self.direction[-1]}
