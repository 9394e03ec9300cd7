"""Hyper-parameters of AGGAN."""

import dataclasses
import typing

from tfi2i.config import (
    Hyperparameters,
    UserError,
    averaging,
    check_below_1,
    check_not_negative,
    check_positive,
    option,
)


@dataclasses.dataclass(frozen=True)
class AGGAN(Hyperparameters):
    """Mejjati et al., Unsupervised Attention-guided Image-to-Image Translation, arXiv 1806.02311.

    Defaults are those of the authors' code, with its exp_01.json for horses and zebras.
    """

    generator_width: int = option(
        32, "channels after the first layer of generators and attention networks (ngf)", known_as=("ngf",)
    )
    residual_blocks: int = option(9, "residual blocks of the generators")
    discriminator_width: int = option(64, "channels after the discriminator's first layer (ndf)", known_as=("ndf",))
    switch_epoch: float = option(
        30.0,
        "epochs in which the attention networks learn and the discriminators see whole images; from then on attention "
        "is frozen, and the discriminators see what --mask_threshold leaves, without norms (section 3.2)",
        known_as=("switch",),
    )
    mask_threshold: float = option(
        0.1,
        "from --switch_epoch on: least value of the mask, 0 to 1, at which the discriminators see a pixel",
        known_as=("threshold", "threshold_fg"),
    )
    lambda_a: float = option(10.0, "weight of the cycle from A to B and back to A")
    lambda_b: float = option(10.0, "weight of the cycle from B to A and back to B")
    pool_size: int = option(50, "images in the history that discriminators learn from; 0: no history")
    ema_momentum: float = averaging()
    learning_rate: float = option(1e-4, "Adam's learning rate, all networks", known_as=("lr", "base_lr"))
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")
    weight_decay: float = option(0.0, "L2 added to the gradient of all weights before Adam")

    recipe: typing.ClassVar = {
        "resize": (286, 286), "resize_mode": "exact", "resize_filter": "bilinear", "crop": (256, 256),
        "flip": 0.5, "flip_first": False,
        "batch_size": 1, "epochs": 100, "lr_schedule": "linear_torch7", "decay_fraction": 0.5,
    }  # fmt: skip

    def __post_init__(self):
        check_positive(self, "generator_width", "discriminator_width", "learning_rate")
        check_not_negative(self, "residual_blocks", "switch_epoch", "lambda_a", "lambda_b", "pool_size", "weight_decay")
        check_below_1(self, "ema_momentum")
        if not 0 <= self.mask_threshold <= 1:
            raise UserError(f"--mask_threshold={self.mask_threshold}: expected 0 to 1, as the masks have")
