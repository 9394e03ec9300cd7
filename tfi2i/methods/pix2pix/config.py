"""Hyper-parameters of pix2pix."""

import dataclasses
import typing

from tfi2i.config import (
    Hyperparameters,
    PairedData,
    UserError,
    averaging,
    check_below_1,
    check_choices,
    check_not_negative,
    check_positive,
    fill,
    one_way,
    option,
)


@dataclasses.dataclass(frozen=True)
class Pix2Pix(Hyperparameters):
    """Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, arXiv 1611.07004.

    Three models share the name. `pytorch`: the authors' PyTorch code, which is what most people call pix2pix. `paper`:
    their Torch7 code, which the paper was made with. `cyclegan_tables`: what CycleGAN's authors ran for the row
    "pix2pix" of their tables. A default that differs between them is None here and named in `variants`.
    """

    pix2pix_variant: str = option(
        "pytorch",
        "pytorch: the authors' PyTorch code; paper: their Torch7 code; cyclegan_tables: what the row pix2pix in "
        "CycleGAN's tables was made with",
        ("pytorch", "paper", "cyclegan_tables"),
    )
    direction: str = one_way("which way to learn to translate")
    generator: str | None = option(
        None,
        "generator network: a U-Net for pictures of multiples of 256, 128 or 64 pixels, or one of CycleGAN's ResNets",
        ("unet_256", "unet_128", "unet_64", "resnet_9blocks", "resnet_6blocks"),
        known_as=("netg",),
    )
    generator_width: int = option(64, "channels after the generator's first layer (ngf)", known_as=("ngf",))
    dropout: bool | None = option(
        None, "dropout 0.5 in the generator, the only noise that it has (section 3.2)", known_as=("no_dropout",)
    )
    test_dropout: bool = option(
        True, "keep dropout on when a trained model translates, as published; the masks are those of --dropout_seed"
    )
    dropout_seed: int = option(0, "seed of the dropout masks when a trained model translates")
    test_norm: str = option(
        "image",
        "statistics of --norm=batch when a trained model translates. image: those of the picture itself, as "
        "published; average: moving averages of training, for models that were trained in large batches",
        ("image", "average"),
    )
    discriminator: str = option(
        "n_layers",
        "n_layers: a PatchGAN of --discriminator_layers; pixel: 1x1 convolutions, which judge each pixel by itself; "
        "multiscale: PatchGANs at --discriminator_scales sizes, as in pix2pixHD",
        ("n_layers", "pixel", "multiscale"),
        known_as=("netd",),
    )
    discriminator_scales: int = option(
        2, "number of sizes at which --discriminator=multiscale looks, each half of the one before"
    )
    discriminator_layers: int = option(
        3, "stride-2 convolutions of the PatchGAN; with 3, each of its answers is about 70x70 pixels (section 3.2)"
    )
    discriminator_width: int = option(64, "channels after the discriminator's first layer (ndf)", known_as=("ndf",))
    conditional: bool = option(True, "show the discriminator the input beside the picture that it judges (section 3.1)")
    norm: str | None = option(None, "normalisation in all networks", ("batch", "instance", "none"))
    init: str = option("normal", "initialiser of all kernels", ("normal", "xavier", "kaiming", "orthogonal"))
    init_gain: float = option(
        0.02,
        "standard deviation of --init=normal, of kernels and of the norms' factors around 1; gain of --init=xavier and "
        "--init=orthogonal",
    )
    gan_loss: str | None = option(None, "adversarial loss", ("vanilla", "lsgan"))
    lambda_gan: float = option(1.0, "weight of the generator's adversarial loss; 0 leaves the discriminator out")
    lambda_l1: float | None = option(None, "weight of the mean absolute difference from the truth (section 3.1)")
    lambda_features: float = option(
        0.0,
        "weight of the feature matching loss of pix2pixHD (there 10): the difference between the discriminator's inner "
        "maps of translation and truth",
        known_as=("lambda_feat",),
    )
    pool_size: int | None = option(
        None, "pairs of input and translation in the history that the discriminator learns from; 0: no history"
    )
    ema_momentum: float = averaging()
    learning_rate: float = option(2e-4, "Adam's learning rate, both networks (section 3.3)", known_as=("lr",))
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")
    weight_decay: float = option(0.0, "L2 added to the gradient of all weights before Adam, as torch.optim.Adam does")

    data_class: typing.ClassVar = PairedData
    # Dropout leaves no trace in the weights of a U-Net, and how a model was tested none in any.
    told: typing.ClassVar = ("dropout", "test_dropout", "test_norm")
    of_translation: typing.ClassVar = ("test_dropout", "dropout_seed", "test_norm")
    recipe: typing.ClassVar = {
        "resize": (286, 286), "resize_mode": "exact", "crop": (256, 256), "flip": 0.5, "flip_first": False,
        "batch_size": 1, "epochs": 200, "decay_fraction": 0.5,
    }  # fmt: skip
    variants: typing.ClassVar = {
        "pytorch": {
            "generator": "unet_256", "norm": "batch", "dropout": True, "gan_loss": "vanilla", "lambda_l1": 100.0,
            "pool_size": 0, "resize_filter": "bicubic", "lr_schedule": "linear",
        },
        "paper": {
            "generator": "unet_256", "norm": "batch", "dropout": True, "gan_loss": "vanilla", "lambda_l1": 100.0,
            "pool_size": 0, "resize_filter": "bilinear", "lr_schedule": "constant",
        },
        # CycleGAN's networks and settings, its paper says (section 5.1.2); the weight of L1 is the code's default, the
        # one used was not published.
        "cyclegan_tables": {
            "generator": "resnet_9blocks", "norm": "instance", "dropout": False, "gan_loss": "lsgan",
            "lambda_l1": 10.0, "pool_size": 50, "resize_filter": "bilinear", "lr_schedule": "linear_torch7",
        },
    }  # fmt: skip

    def __post_init__(self):
        check_choices(self)
        fill(self, self.variants[self.pix2pix_variant])
        check_positive(self, "generator_width", "discriminator_width", "discriminator_layers", "learning_rate")
        check_positive(self, "discriminator_scales")
        check_below_1(self, "ema_momentum")
        weights = ("lambda_gan", "lambda_l1", "lambda_features")
        check_not_negative(self, *weights, "pool_size", "init_gain", "weight_decay")
        if self.lambda_features and not self.lambda_gan:
            raise UserError(
                f"--lambda_features={self.lambda_features} compares maps of a discriminator, and --lambda_gan=0 leaves "
                "it out: give --lambda_gan=1"
            )
        if not (self.lambda_gan or self.lambda_l1):
            raise UserError("--lambda_gan and --lambda_l1 are both 0: nothing is left to learn")
