"""Hyper-parameters of the toy."""

import dataclasses
import typing

from tfi2i.config import (
    Hyperparameters,
    averaging,
    check_below_1,
    check_choices,
    check_not_negative,
    check_positive,
    option,
)


@dataclasses.dataclass(frozen=True)
class Toy(Hyperparameters):
    """No paper: as small as a method can be that has one of everything."""

    toy_width: int = option(8, "channels of every network")
    norm: str = option("batch", "normalisation in the generators", ("batch", "none"))
    dropout: bool = option(True, "dropout 0.5 in the generators")
    lambda_cycle: float = option(10.0, "weight of the cycle, where there is a way back")
    pool_size: int = option(50, "images in the history that discriminators learn from; 0: none")
    ema_momentum: float = averaging(0.9)
    learning_rate: float = option(1e-3, "Adam's learning rate, all networks")
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")
    weight_decay: float = option(0.0, "L2 added to the gradient of all weights before Adam")

    recipe: typing.ClassVar = {
        "resize": (18, 18), "resize_mode": "exact", "resize_filter": "bicubic", "crop": (16, 16),
        "flip": 0.5, "flip_first": False,
        "batch_size": 1, "epochs": 1, "lr_schedule": "linear", "decay_fraction": 0.5,
    }  # fmt: skip

    def __post_init__(self):
        check_choices(self)
        check_positive(self, "toy_width", "learning_rate")
        check_not_negative(self, "lambda_cycle", "pool_size", "weight_decay")
        check_below_1(self, "ema_momentum")


@dataclasses.dataclass(frozen=True)
class OneWayToy(Toy):
    """The toy that translates A to B and not back."""
