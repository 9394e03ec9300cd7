"""Hyper-parameters of CoGAN, and of the digits that its domain adaptation learns from."""

import dataclasses
import typing

from tfi2i.config import (
    Hyperparameters,
    Size,
    UserError,
    averaging,
    check_below_1,
    check_choices,
    check_not_negative,
    check_positive,
    option,
    parse_size,
)
from tfi2i.methods.unit.config import Digits

SIDES = (16, 32, 64, 128, 256)


@dataclasses.dataclass(frozen=True)
class Coupled(Hyperparameters):
    """What coupled generators of images and of digits have in common."""

    latent_size: int = option(100, "length of the noise z that the generators draw a pair of images from")
    inversion_steps: int = option(
        500, "steps of the search for the noise that generates an image, by which a trained model translates"
    )
    inversion_starts: int = option(
        8, "number of searches for each picture, each from different noise; the closest result is used"
    )
    inversion_rate: float = option(
        0.1, "Adam's learning rate in the search, which falls to 0 in equal steps; 0.05 to 0.1 are usual"
    )
    inversion_distance: str = option(
        "l2",
        "the difference that the search minimises: mean squared (l2) or mean absolute (l1) difference",
        ("l2", "l1"),
    )
    learning_rate: float = option(2e-4, "Adam's learning rate, both networks", known_as=("lr",))
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")

    of_translation: typing.ClassVar = ("inversion_steps", "inversion_starts", "inversion_rate", "inversion_distance")

    def __post_init__(self):
        check_choices(self)
        check_positive(self, "latent_size", "inversion_steps", "inversion_starts", "inversion_rate", "learning_rate")


@dataclasses.dataclass(frozen=True)
class CoGAN(Coupled):
    """Liu, Tuzel, Coupled Generative Adversarial Networks, arXiv 1606.07536, for images of one square size.

    The paper's networks for pairs of colour images were not released. These are our choice: the authors' later network
    for faces of one domain, coupled.
    """

    image_size: Size = option((128, 128), "the one size of images: a square of 16, 32, 64, 128 or 256 pixels a side")
    generator_width: int = option(
        1024, "channels after the generator's first layer, a map of 4x4; each layer halves it"
    )
    discriminator_width: int = option(32, "channels after the discriminator's first layer; each layer doubles it")
    norm: str = option("batch", "normalisation in the networks", ("batch", "none"))
    dropout: bool = option(True, "dropout 0.1 to 0.5 in the discriminator, from its third layer on")
    ema_momentum: float = averaging()
    weight_decay: float = option(1e-4, "L2 added to the gradient of all weights before Adam, as torch.optim.Adam does")

    follows: typing.ClassVar = {"image_size": "crop"}
    recipe: typing.ClassVar = {
        "resize": (132, 132), "resize_mode": "exact", "resize_filter": "bilinear", "crop": (128, 128),
        "flip": 0.5, "flip_first": False,
        "batch_size": 128, "steps": 100_000, "lr_schedule": "constant", "decay_fraction": 0.0,
    }  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "image_size", parse_size(self.image_size))  # JSON has no tuples
        check_positive(self, "generator_width", "discriminator_width")
        check_not_negative(self, "weight_decay")
        check_below_1(self, "ema_momentum")
        height, width = self.image_size
        if height != width or height not in SIDES:
            raise UserError(
                f"--image_size={height},{width}: the generators draw squares of {', '.join(map(str, SIDES))} pixels a "
                "side: give --crop=64, for example, which --image_size follows"
            )
        halvings = (height // 4).bit_length() - 1
        if self.generator_width % 2**halvings:
            raise UserError(
                f"--generator_width={self.generator_width}: it is halved {halvings} times for images of {height} "
                f"pixels, so expected a multiple of {2**halvings}"
            )


@dataclasses.dataclass(frozen=True)
class SmallDigits(Digits):
    """The digits at MNIST's own size."""

    side: typing.ClassVar[int] = 28


@dataclasses.dataclass(frozen=True)
class CoGANAdaptation(Coupled):
    """Liu, Tuzel, Coupled Generative Adversarial Networks, arXiv 1606.07536: domain adaptation of MNIST and USPS.

    Defaults are those of the authors' PyTorch code.
    """

    baseline: bool = option(False, "learn only to classify, and only the source: what adaptation is compared with")
    generator_width: int = option(1024, "channels after the generators' first layer, three times halved")
    discriminator_width: int = option(
        20, "channels after the discriminators' first layer, an even number; 2.5 and 25 times as many follow"
    )
    lambda_class: float = option(10.0, "weight of the classification loss on the source's labels")
    lambda_feature: float = option(0.01, "weight of the squared distance between the features of a pair, summed")
    weight_decay: float = option(5e-4, "L2 added to the gradient of all weights before Adam, as torch.optim.Adam does")

    data_class: typing.ClassVar = SmallDigits
    instead: typing.ClassVar = "it learned to classify digits; at the end of training metrics.json says how well"
    recipe: typing.ClassVar = {"batch_size": 64, "steps": 10_000, "lr_schedule": "constant", "decay_fraction": 0.0}

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "generator_width", "discriminator_width")
        check_not_negative(self, "lambda_class", "lambda_feature", "weight_decay")
        for name, multiple in (("generator_width", 8), ("discriminator_width", 2)):
            if getattr(self, name) % multiple:
                raise UserError(f"--{name}={getattr(self, name)}: expected a multiple of {multiple}")
