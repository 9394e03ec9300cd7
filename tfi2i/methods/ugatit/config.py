"""Hyper-parameters of U-GAT-IT."""

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


@dataclasses.dataclass(frozen=True)
class UGATIT(Hyperparameters):
    """Kim, Kim, Kang, Lee, U-GAT-IT, arXiv 1907.10830.

    Defaults are the paper's (section 5.2 of the text, appendix B for the networks). Numbers of layers and widths are
    those that both of the authors' codes use.
    """

    ugatit_variant: str = option(
        "paper",
        "paper: the TensorFlow code's networks, which made the published figures, as the paper describes them; "
        "pytorch, tensorflow: the authors' two codes to the letter, which are different networks",
        ("paper", "pytorch", "tensorflow"),
    )
    light: bool = option(
        False,
        "compute gamma and beta from pooled features: 10.6 instead of 279 million weights in a generator, and "
        "images of any size",
    )
    image_size: Size = option((256, 256), "without --light: the one size, N or H,W, that the networks take")
    generator_width: int = option(64, "channels after the generator's first layer (ch)", known_as=("ch",))
    residual_blocks: int = option(4, "residual blocks in the encoder, and as many in the decoder (n_res)")
    decoder_norm: str = option(
        "adalin",
        "normalisation in the decoder (table 1): adalin: AdaLIN, then LIN; adain: AdaIN, then instance norm; in, ln, "
        "gn: instance, layer or group norm throughout, without a style of the image",
        ("adalin", "in", "ln", "adain", "gn"),
    )
    cam_generator: bool = option(True, "attention by an auxiliary classifier in the generators (table 1)")
    cam_discriminator: bool = option(True, "attention by an auxiliary classifier in the discriminators (table 1)")
    discriminator_width: int = option(64, "channels after the discriminator's first layer (ch)")
    local_layers: int = option(5, "convolutions of the local discriminators, 1x1 not counted; 5 sees 70x70 pixels")
    global_layers: int = option(7, "convolutions of the global discriminators; 7 sees 286x286 pixels")
    lambda_gan: float = option(1.0, "weight of the adversarial losses, of generators and discriminators")
    lambda_cycle: float = option(10.0, "weight of the cycles, L1")
    lambda_identity: float = option(10.0, "weight of the identity losses, L1")
    lambda_cam: float = option(1000.0, "weight of the generators' classification of source against target domain")
    ema_momentum: float = averaging()
    learning_rate: float = option(1e-4, "Adam's learning rate, all networks", known_as=("lr",))
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")
    weight_decay: float = option(
        1e-4, "L2 added to the gradients before Adam: of all weights with --ugatit_variant=pytorch, else of kernels"
    )

    follows: typing.ClassVar = {"image_size": "crop"}
    recipe: typing.ClassVar = {
        "resize": (286, 286), "resize_mode": "exact", "resize_filter": "bilinear", "crop": (256, 256),
        "flip": 0.5, "flip_first": True,
        "batch_size": 1, "steps": 1_000_000, "lr_schedule": "linear_steps_zero_last", "decay_fraction": 0.5,
    }  # fmt: skip

    def __post_init__(self):
        check_choices(self)
        object.__setattr__(self, "image_size", parse_size(self.image_size))  # JSON has no tuples
        check_positive(self, "generator_width", "discriminator_width", "learning_rate")
        check_not_negative(
            self, "residual_blocks", "lambda_gan", "lambda_cycle", "lambda_identity", "lambda_cam", "weight_decay"
        )
        check_below_1(self, "ema_momentum")
        for name in ("local_layers", "global_layers"):
            if getattr(self, name) < 3:
                raise UserError(f"--{name}={getattr(self, name)}: expected 3 or more (strided, inner, last)")
        if not (self.lambda_gan or self.lambda_cycle or self.lambda_identity):
            raise UserError("--lambda_gan, --lambda_cycle and --lambda_identity are all 0: nothing is left to learn")
