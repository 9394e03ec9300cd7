"""Hyper-parameters of CycleGAN."""

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
class CycleGAN(Hyperparameters):
    """Zhu et al., Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, arXiv 1703.10593.

    Defaults are those of the authors' PyTorch code (model `cycle_gan`), which follow the paper's section 4 and
    appendix 7 but for the identity loss, which the paper uses for paintings only and the code everywhere.
    """

    cyclegan_variant: str = option(
        "pytorch",
        "pytorch: the layers of the authors' code; tensorflow: the layers of implementations in TensorFlow, for the "
        "weights that these made",
        ("pytorch", "tensorflow"),
    )
    generator: str = option(
        "resnet_9blocks",
        "generator network (appendix 7.2)",
        ("resnet_9blocks", "resnet_6blocks", "unet_256", "unet_128"),
        known_as=("netg",),
    )
    residual_blocks: int | None = option(
        None, "residual blocks of the ResNet generators; by default the 9 or 6 that --generator names"
    )
    generator_width: int = option(64, "channels after the generator's first layer (ngf)", known_as=("ngf",))
    upsample: str = option(
        "transposed",
        "how the ResNet generators enlarge their maps: by transposed convolutions, or by nearest-neighbour upsampling "
        "and a convolution, which leaves no checkerboard",
        ("transposed", "resize_conv"),
    )
    discriminator: str = option(
        "n_layers",
        "n_layers: a PatchGAN of --discriminator_layers; pixel: 1x1 convolutions, which judge each pixel by itself",
        ("n_layers", "pixel"),
        known_as=("netd",),
    )
    discriminator_layers: int = option(
        3, "stride-2 convolutions of the PatchGAN; with 3, each of its answers is about 70x70 pixels (appendix 7.2)"
    )
    discriminator_width: int = option(64, "channels after the discriminator's first layer (ndf)", known_as=("ndf",))
    norm: str = option("instance", "normalisation in all networks", ("instance", "batch", "none"))
    norm_epsilon: float | None = option(None, "epsilon of all norms, which is added to the variance")
    dropout: bool = option(False, "dropout 0.5 in the generators (pix2pix has it, CycleGAN does not)")
    init: str = option("normal", "initialiser of all kernels", ("normal", "xavier", "kaiming", "orthogonal"))
    init_gain: float = option(
        0.02,
        "standard deviation of --init=normal, of kernels and of the norms' factors around 1; gain of --init=xavier and "
        "--init=orthogonal",
    )
    gan_loss: str = option("lsgan", "adversarial loss", ("lsgan", "vanilla", "wgan-gp"))
    lambda_gan: float = option(1.0, "weight of the generators' adversarial loss; 0 leaves the discriminators out")
    lambda_a: float = option(10.0, "weight of the cycle from A to B and back to A (section 4)")
    lambda_b: float = option(10.0, "weight of the cycle from B to A and back to B (section 4)")
    lambda_identity: float = option(
        0.5,
        "weight of the identity loss, as a factor of --lambda_a and --lambda_b (section 5.2)",
        known_as=("lambda_idt",),
    )
    lambda_gp: float = option(10.0, "weight of the gradient penalty of --gan_loss=wgan-gp")
    pool_size: int = option(50, "images in the history that discriminators learn from (section 4); 0: no history")
    ema_momentum: float = averaging()
    learning_rate: float = option(2e-4, "Adam's learning rate, all networks (section 4)", known_as=("lr",))
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")
    weight_decay: float = option(0.0, "L2 added to the gradient of all weights before Adam, as torch.optim.Adam does")

    recipe: typing.ClassVar = {
        "resize": (286, 286), "resize_mode": "exact", "resize_filter": "bicubic", "crop": (256, 256),
        "flip": 0.5, "flip_first": False,
        "batch_size": 1, "epochs": 200, "lr_schedule": "linear", "decay_fraction": 0.5,
    }  # fmt: skip
    variants: typing.ClassVar = {"pytorch": {"norm_epsilon": 1e-5}, "tensorflow": {"norm_epsilon": 1e-3}}

    def __post_init__(self):
        check_choices(self)
        fill(self, self.variants[self.cyclegan_variant])
        check_positive(self, "generator_width", "discriminator_width", "discriminator_layers", "learning_rate")
        check_positive(self, "norm_epsilon")
        check_below_1(self, "ema_momentum")
        if self.residual_blocks is not None:
            check_positive(self, "residual_blocks")
        check_not_negative(
            self,
            "lambda_gan",
            "lambda_a",
            "lambda_b",
            "lambda_identity",
            "lambda_gp",
            "pool_size",
            "init_gain",
            "weight_decay",
        )
        if self.generator.startswith("unet"):
            for name, usual in (("residual_blocks", None), ("upsample", "transposed")):
                if getattr(self, name) != usual:
                    raise UserError(
                        f"--{name}={getattr(self, name)} is for the ResNet generators, --generator={self.generator} "
                        f"has none: use --generator=resnet_9blocks or leave --{name} out"
                    )
        if not (self.lambda_gan or self.lambda_a or self.lambda_b):
            raise UserError("--lambda_gan, --lambda_a and --lambda_b are all 0: nothing is left to learn")
