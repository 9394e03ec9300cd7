"""Hyper-parameters of a student."""

import dataclasses
import os
import typing

from tfi2i.config import (
    Data,
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
class Pictures(Data):
    """As those of any run, but that the domain translated from is enough: the teacher says what should be drawn."""

    more_pictures: str | None = option(
        None, "folder of further pictures of the domain translated from, with its sub-folders, to learn from as well"
    )

    def __post_init__(self):
        super().__post_init__()
        check_paths(self, "more_pictures")

    def absolute(self):
        """The same with absolute paths."""
        more = self.more_pictures and os.path.abspath(self.more_pictures)
        return dataclasses.replace(super().absolute(), more_pictures=more)

    def only_domain(self):
        """ "A" or "B" where one of --a and --b is all that names pictures, else None."""
        if bool(self.a) == bool(self.b):
            return None
        return "A" if bool(self.a) != self.swap_domains else "B"

    def open_domains(self, split="train"):
        """As `Data.open_domains`; an only domain stands for the other one too, which the student does not look at."""
        from tfi2i.data import sources

        only = self.only_domain()
        pair = (sources.open_domain(self, only, split),) * 2 if only else super().open_domains(split)
        if self.more_pictures and split == "train":
            more = sources.open_folder(self.more_pictures)
            pair = tuple(sources.joined(source, more) for source in pair)
        return pair


@dataclasses.dataclass(frozen=True)
class Student(Hyperparameters):
    """No paper: a small network without norms that learns one direction of a trained model from its translations."""

    teacher: str | None = option(None, "run directory of the trained model to learn from")
    teacher_checkpoint: str | None = option(
        None, "step of a kept checkpoint of --teacher, or best (default: the newest)"
    )
    direction: str = one_way("which of the teacher's directions to learn (default: its first)")
    student_macs: float = option(
        0.05,
        "multiply-accumulates of the student for one picture, at most: up to 1 as a part of the teacher's, above 1 as "
        "their number, such as 30e6",
    )
    student_width: int | None = option(
        None, "channels at a quarter of the size (default: as many as --student_macs allows)"
    )
    student_blocks: int | None = option(
        None,
        "residual blocks at a quarter of the size; each sees 16 pixels further "
        "(default: a 32nd of the crop's shorter side, from 3 to 8)",
    )
    affine: float = option(
        1.0,
        "strength of random turns (15 degrees), scalings (1.2 times) and shifts (a tenth of the side) of the pictures "
        "that teacher and student see; 0: none",
    )
    permute_colours: float = option(
        0.5, "share of the pictures whose colour channels are exchanged at random; 0 for photographs of a narrow kind"
    )
    lambda_l1: float = option(1.0, "weight of the mean absolute difference from the teacher's translation")
    lambda_l2: float = option(0.5, "weight of the mean squared difference from the teacher's translation")
    lambda_gan: float = option(
        0.0,
        "weight of an adversarial loss, with a small PatchGAN that learns to tell the student's pictures from the "
        "teacher's; 0: none. It keeps textures, which the differences alone average out",
    )
    discriminator_width: int = option(32, "channels after the PatchGAN's first layer")
    quantized_fraction: float = option(
        0.15, "part of the duration, at its end, in which weights and maps are rounded to 8 bits while it learns"
    )
    ema_momentum: float = averaging(0.998)
    learning_rate: float = option(2e-3, "Adam's learning rate", known_as=("lr",))
    beta_1: float = option(0.9, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")
    weight_decay: float = option(0.0, "L2 added to the gradient of all weights before Adam")

    data_class: typing.ClassVar = Pictures
    paths: typing.ClassVar = ("teacher",)
    # The pictures and their preparation are the teacher's: `tfi2i.commands.distill`.
    data_in_full: typing.ClassVar = True
    # When the rounding to 8 bits begins follows from the duration.
    open_ended: typing.ClassVar = False
    recipe: typing.ClassVar = {
        "resize": (256, 256), "resize_mode": "exact", "resize_filter": "bicubic", "crop": (256, 256),
        "flip": 0.5, "flip_first": False,
        "batch_size": 16, "steps": 3000, "lr_schedule": "linear_steps", "decay_fraction": 1.0,
        "save_every": 500, "sample_every": 500,
    }  # fmt: skip

    def __post_init__(self):
        check_choices(self)
        check_paths(self, *self.paths)
        check_positive(self, "student_macs", "discriminator_width", "learning_rate")
        check_not_negative(self, "affine", "lambda_l1", "lambda_l2", "lambda_gan", "weight_decay")
        check_below_1(self, "ema_momentum")
        check_positive(self, *(n for n in ("student_width", "student_blocks") if getattr(self, n) is not None))
        for name in ("permute_colours", "quantized_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"--{name}={getattr(self, name)}: expected 0 to 1")
        if not (self.lambda_l1 or self.lambda_l2):
            raise UserError("--lambda_l1 and --lambda_l2 are both 0: nothing is left to learn")
