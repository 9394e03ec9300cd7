"""Hyper-parameters of BiGAN."""

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
class BiGAN(Hyperparameters):
    """Donahue et al., Adversarial Feature Learning, arXiv 1605.09782; Dumoulin et al., ALI, arXiv 1606.00704.

    Here with a picture of the other domain in the place of the latent vector, as CycleGAN's authors ran it (arXiv
    1703.10593, section 5.1.2). Defaults are those of that paper's section 4 and appendix 7, and of its Torch7 code.
    """

    residual_blocks: int = option(9, "residual blocks of the generators")
    generator_width: int = option(64, "channels after the generator's first layer (ngf)", known_as=("ngf",))
    upsample: str = option(
        "transposed",
        "how the ResNet generators enlarge their maps: by transposed convolutions, or by nearest-neighbour upsampling "
        "and a convolution, which leaves no checkerboard",
        ("transposed", "resize_conv"),
    )
    discriminator_layers: int = option(
        3, "stride-2 convolutions of the PatchGAN; with 3, each of its answers is about 70x70 pixels"
    )
    discriminator_width: int = option(64, "channels after the discriminator's first layer (ndf)", known_as=("ndf",))
    init_gain: float = option(0.02, "standard deviation of initial kernels, and of the norms' factors around 1")
    gan_loss: str = option(
        "lsgan",
        "adversarial loss. lsgan: as CycleGAN's authors ran it; vanilla: cross-entropy, as BiGAN and ALI have it",
        ("lsgan", "vanilla"),
    )
    pool_size: int = option(
        50, "pairs of a picture and its translation in each history that the discriminator learns from; 0: no history"
    )
    ema_momentum: float = averaging()
    learning_rate: float = option(2e-4, "Adam's learning rate, all networks", known_as=("lr",))
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")
    weight_decay: float = option(0.0, "L2 added to the gradient of all weights before Adam, as torch.optim.Adam does")

    recipe: typing.ClassVar = {
        "resize": (286, 286), "resize_mode": "exact", "resize_filter": "bilinear", "crop": (256, 256),
        "flip": 0.5, "flip_first": False,
        "batch_size": 1, "epochs": 200, "lr_schedule": "linear_torch7", "decay_fraction": 0.5,
    }  # fmt: skip

    def __post_init__(self):
        check_choices(self)
        check_positive(self, "generator_width", "discriminator_width", "discriminator_layers", "learning_rate")
        check_not_negative(self, "residual_blocks", "pool_size", "init_gain", "weight_decay")
        check_below_1(self, "ema_momentum")
