"""Hyper-parameters of UVCGAN v2 and v1, and of their pre-training."""

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
    option,
)


@dataclasses.dataclass(frozen=True)
class Generator(Hyperparameters):
    """The generator's part, which training and pre-training share."""

    generator_width: int = option(48, "channels of the UNet's first level, doubled in each further one")
    generator_levels: int = option(4, "levels of the UNet; sides are multiples of 2 ** levels")
    norm: str = option("none", "normalisation before the UNet's unmodulated convolutions", ("none", "instance"))
    style: bool = option(True, "a style token in the transformer modulates the decoder's convolutions")
    vit_width: int = option(384, "channels of the transformer's tokens, and of their position codes")
    vit_heads: int = option(6, "heads of the transformer's attention")
    vit_blocks: int = option(12, "blocks of the transformer")
    vit_ffn_width: int = option(1536, "channels inside the transformer's feed-forward networks")
    # Narrow networks die of the published N(0, 0.02): without norms, each convolution shrinks what it passes on.
    init: str = option(
        "normal", "initialiser of all kernels but the heads'", ("normal", "xavier", "kaiming", "orthogonal")
    )
    init_gain: float = option(0.02, "standard deviation of normal, gain of xavier and orthogonal")

    def __post_init__(self):
        check_choices(self)
        check_positive(self, "generator_width", "generator_levels", "vit_width", "vit_heads", "vit_ffn_width")
        check_not_negative(self, "vit_blocks", "init_gain")
        if self.vit_width % self.vit_heads:
            raise UserError(
                f"--vit_heads={self.vit_heads} cannot share --vit_width={self.vit_width} equally: make the width a "
                "multiple of the heads"
            )


@dataclasses.dataclass(frozen=True)
class UVCGAN2(Generator):
    """Torbunov et al., UVCGAN v2 (first: Rethinking CycleGAN), arXiv 2303.16280. Images are in [0, 1].

    Defaults are those of the authors' training script for CelebA, and the paper's consistency loss, which their
    scripts leave out. Head, weights and rates differ by data set: configs/uvcgan2.
    """

    discriminator: str = option(
        "n_layers",
        "trunk of the discriminators: n_layers: PatchGAN of --discriminator_layers; pixel: 1x1 convolutions",
        ("n_layers", "pixel"),
    )
    discriminator_layers: int = option(3, "stride-2 convolutions of the PatchGAN")
    discriminator_width: int = option(64, "channels after the discriminator's first layer (ndf)")
    discriminator_head: str = option(
        "bsd",
        "how samples are judged beside others: bsd: their standard deviation is a further channel; bn: batch norm; "
        "none: each by itself",
        ("bsd", "bn", "none"),
    )
    cache_size: int = option(3, "features of earlier samples that a head sees too, of each kind; 0: none")
    spectral_norm: bool = option(True, "spectral norm on the discriminators' convolutions, heads bsd and bn left out")
    gan_loss: str = option("lsgan", "adversarial loss", ("lsgan", "vanilla"))
    lambda_gan: float = option(1.0, "weight of the generators' adversarial loss; 0 leaves the discriminators out")
    lambda_a: float = option(10.0, "weight of the forward cycle A to B to A")
    lambda_b: float = option(10.0, "weight of the backward cycle B to A to B")
    lambda_identity: float = option(0.5, "weight of the identity loss, relative to --lambda_a and --lambda_b")
    # The paper's table could not be opened; the weight is a recollection of its variant with consistency loss.
    lambda_consistency: float = option(
        0.2, "weight of the difference of an image and its translation when both are small; 0: as in the scripts"
    )
    consistency_relative: bool = option(
        True, "take --lambda_consistency relative to --lambda_a and --lambda_b, as the code does, not as it is"
    )
    consistency_size: int = option(32, "side in pixels of the small images that the consistency loss compares")
    consistency_resize: str = option(
        "area",
        "how the consistency loss shrinks images: area: mean over the area; bilinear: between the nearest pixels, as "
        "in torchvision 0.13",
        ("area", "bilinear"),
    )
    lambda_gp: float = option(0.01, "weight of the gradient penalty; 0: none")
    gp_form: str = option(
        "uvcgan2",
        "formula of the gradient penalty: uvcgan2: (|gradient of the logits' mean| - center)^2, one mixing factor a "
        "batch; uvcgan: (|gradient of the logits' sum| - center)^2 / center^2, one mixing factor for each sample",
        ("uvcgan2", "uvcgan"),
    )
    gp_at: str = option(
        "mixed",
        "where the gradient penalty is taken: mixed: between real and translated images; real or fake: at one of them",
        ("mixed", "real", "fake"),
    )
    gp_center: float = option(0.0, "norm of the gradient that the gradient penalty leaves unpunished")
    pool_size: int = option(0, "translations in the history that discriminators learn from; 0: none")
    ema_momentum: float = averaging(0.9999)
    learning_rate: float = option(1e-4, "Adam's learning rate of the generators", known_as=("lr",))
    discriminator_learning_rate: float = option(1e-4, "Adam's learning rate of the discriminators")
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.99, "Adam's decay of the second moment")
    weight_decay: float = option(
        0.0,
        "L2 added to the gradient of all weights before Adam, as in torch.optim.Adam",
    )
    ema_from_scratch: bool = option(
        False,
        "with --pretrained: start the averages from the initial weights, not the pre-trained ones, as the code does; "
        "their pictures stay grey for long",
    )

    recipe: typing.ClassVar = {
        "resize": (256, 256), "resize_mode": "short_side", "resize_filter": "bilinear", "crop": (256, 256),
        "flip": 0.5, "flip_first": True,
        "batch_size": 1, "steps": 1_000_000, "lr_schedule": "constant", "decay_fraction": 0.5,
    }  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        check_positive(
            self,
            "discriminator_layers",
            "discriminator_width",
            "consistency_size",
            "learning_rate",
            "discriminator_learning_rate",
        )
        check_not_negative(
            self,
            "cache_size",
            "lambda_gan",
            "lambda_a",
            "lambda_b",
            "lambda_identity",
            "lambda_consistency",
            "lambda_gp",
            "gp_center",
            "pool_size",
            "weight_decay",
        )
        check_below_1(self, "ema_momentum")
        if self.lambda_gp and self.gp_form == "uvcgan" and not self.gp_center:
            raise UserError("--gp_form=uvcgan divides by --gp_center, which is 0: give e.g. --gp_center=100")
        if not (self.lambda_gan or self.lambda_a or self.lambda_b):
            raise UserError("--lambda_gan, --lambda_a and --lambda_b are all 0: nothing is left to learn")


def _of_uvcgan2(name, default):
    """A field of `UVCGAN2` with another default."""
    return option(default, **UVCGAN2.__dataclass_fields__[name].metadata)


@dataclasses.dataclass(frozen=True)
class UVCGAN(UVCGAN2):
    """Torbunov et al., UVCGAN, arXiv 2203.02557: v2 without style, heads, spectral norm, averages and consistency."""

    norm: str = _of_uvcgan2("norm", "instance")
    style: bool = _of_uvcgan2("style", False)
    discriminator_head: str = _of_uvcgan2("discriminator_head", "none")
    spectral_norm: bool = _of_uvcgan2("spectral_norm", False)
    lambda_consistency: float = _of_uvcgan2("lambda_consistency", 0.0)
    lambda_gp: float = _of_uvcgan2("lambda_gp", 0.1)
    gp_form: str = _of_uvcgan2("gp_form", "uvcgan")
    gp_center: float = _of_uvcgan2("gp_center", 100.0)
    pool_size: int = _of_uvcgan2("pool_size", 50)
    ema_momentum: float = _of_uvcgan2("ema_momentum", 0.0)

    # The code's rate falls once in 2000 steps, which it calls an epoch.
    recipe: typing.ClassVar = UVCGAN2.recipe | {"lr_schedule": "linear_steps"}


@dataclasses.dataclass(frozen=True)
class Inpainting(Generator):
    """Pre-training of a generator for v2 (--task=pretrain): it fills in masked patches of both domains' images."""

    mask_patch: int = option(32, "side of the square patches that are masked or kept, pixels")
    mask_fraction: float = option(0.4, "probability of masking a patch")
    # The code's rate is 5e-3 for 512 images a step; here are 32, 16 of each domain.
    learning_rate: float = option(3.125e-4, "AdamW's learning rate")
    beta_1: float = option(0.9, "AdamW's decay of the first moment")
    beta_2: float = option(0.99, "AdamW's decay of the second moment")
    weight_decay: float = option(0.05, "decay of all weights, decoupled from the gradient, as in torch.optim.AdamW")

    instead: typing.ClassVar = "it learned to fill in masked patches, and tfi2i train --pretrained=RUN starts from it"
    recipe: typing.ClassVar = UVCGAN2.recipe | {
        "batch_size": 16, "steps": 512_000, "lr_schedule": "cosine_restarts", "rotate": 10.0, "jitter": 0.2,
    }  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "learning_rate", "mask_patch")
        check_not_negative(self, "weight_decay")
        if not 0 <= self.mask_fraction <= 1:
            raise UserError(f"--mask_fraction={self.mask_fraction}: expected a probability from 0 to 1")


@dataclasses.dataclass(frozen=True)
class UVCGANInpainting(Inpainting):
    """Pre-training of a generator for v1 (--task=pretrain): 64 images a step, 32 of each domain."""

    norm: str = _of_uvcgan2("norm", "instance")
    style: bool = _of_uvcgan2("style", False)
    learning_rate: float = option(6.25e-4, "AdamW's learning rate")

    recipe: typing.ClassVar = Inpainting.recipe | {
        "batch_size": 32, "steps": 255_488, "lr_restart_steps": 51_200,
    }  # fmt: skip
