"""Hyper-parameters of DRIT."""

import dataclasses
import typing

from tfi2i.config import (
    Hyperparameters,
    UserError,
    averaging,
    check_below_1,
    check_choices,
    check_not_negative,
    check_positive,
    fill,
    option,
)


@dataclasses.dataclass(frozen=True)
class DRIT(Hyperparameters):
    """Lee, Tseng, Huang, Singh, Yang, Diverse Image-to-Image Translation via Disentangled Representations,
    arXiv 1808.00948, and with mode seeking DRIT++, arXiv 1905.01270.

    Defaults are those of the authors' code, which is DRIT++; --lambda_mode_seeking=0 is the first paper's model.
    """

    drit_variant: str = option(
        "concat",
        "how a style enters the decoder. concat: as further channels, for styles that keep shapes; feature_wise: mixed "
        "into the features of every residual block, for changes of shape such as cats and dogs",
        ("concat", "feature_wise"),
    )
    generator_width: int = option(64, "channels after the first layer of encoders, and before the last of decoders")
    style_size: int = option(8, "numbers in a style", known_as=("nz",))
    mlp_width: int = option(
        256, "with --drit_variant=feature_wise: units of the two hidden layers that turn a style into features"
    )
    discriminator_layers: int | None = option(
        None, "convolutions of stride 2 in a discriminator (default: 4, at one scale 6)"
    )
    discriminator_scales: int = option(
        3,
        "number of sizes at which discriminators look, each half of the one before; 1: a deeper stack of 3x3 "
        "convolutions",
        known_as=("dis_scale",),
    )
    discriminator_width: int = option(64, "channels after the discriminator's first layer")
    content_discriminator_layers: int = option(
        3,
        "7x7 convolutions of stride 2 in the discriminator of contents. 3 need crops of 212 pixels, 2 of 100, 1 of 44",
    )
    content_iterations: int = option(
        3,
        "one step in this many trains all networks; the others train the discriminator of contents alone",
        known_as=("d_iter",),
    )
    split_batch: bool = option(
        True,
        "the first half of a batch is translated, and the second half shows the discriminators of drawn styles further "
        "real images, as in the code; --nosplit_batch: every image is translated and judged, as a global batch of one "
        "always is",
    )
    lambda_gan: float = option(1.0, "weight of the adversarial losses of generators and discriminators")
    lambda_content_gan: float = option(
        1.0,
        "weight of the loss by which encoders hide the domain from the discriminator of contents; 0: no such "
        "discriminator",
    )
    lambda_reconstruction: float = option(10.0, "weight of the reconstruction of images")
    lambda_cycle: float = option(
        10.0, "weight of the cross-cycle: A and B exchange their styles, and exchange them back"
    )
    lambda_style: float = option(10.0, "weight of the reconstruction of drawn styles")
    lambda_kl: float = option(0.01, "weight of the distance of styles, and of contents, from N(0, 1)")
    lambda_mode_seeking: float = option(
        1.0,
        "weight of mode seeking, which rewards different pictures for different styles (DRIT++); 0: DRIT",
        known_as=("no_ms",),
    )
    ema_momentum: float = averaging()
    learning_rate: float = option(
        1e-4, "Adam's learning rate; the discriminator of contents has 0.4 times as much", known_as=("lr",)
    )
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")
    weight_decay: float = option(1e-4, "L2 added to the gradient of all weights before Adam, as torch.optim.Adam does")

    recipe: typing.ClassVar = {
        "resize": (256, 256), "resize_mode": "exact", "resize_filter": "bicubic", "crop": (216, 216),
        "flip": 0.5, "flip_first": False, "batch_size": 2, "epochs": 1200, "lr_schedule": "linear_later",
        "decay_fraction": 0.5,
    }  # fmt: skip

    def __post_init__(self):
        check_choices(self)
        fill(self, {"discriminator_layers": 6 if self.discriminator_scales == 1 else 4})
        check_positive(
            self,
            "generator_width",
            "style_size",
            "mlp_width",
            "discriminator_layers",
            "discriminator_scales",
            "discriminator_width",
            "content_iterations",
            "learning_rate",
        )
        lambdas = [f.name for f in dataclasses.fields(self) if f.name.startswith("lambda_")]
        check_not_negative(self, *lambdas, "content_discriminator_layers", "weight_decay")
        check_below_1(self, "ema_momentum")
        first = ("lambda_gan", "lambda_content_gan", "lambda_reconstruction", "lambda_cycle", "lambda_kl")
        if not any(getattr(self, name) for name in first):
            raise UserError(
                f"--{', --'.join(first)} are all 0: the first of the two updates of encoders and decoders then has no "
                "loss; give one of them a weight"
            )
