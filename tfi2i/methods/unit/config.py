"""Hyper-parameters of UNIT, of its domain adaptation, and the digits that this learns from."""

import dataclasses
import typing

from tfi2i.config import (
    Hyperparameters,
    UserError,
    averaging,
    check_below_1,
    check_choices,
    check_not_negative,
    check_paths,
    check_positive,
    fill,
    option,
)


@dataclasses.dataclass(frozen=True)
class UNIT(Hyperparameters):
    """Liu, Breuel, Kautz, Unsupervised Image-to-Image Translation Networks, arXiv 1703.00848.

    Two models share the name. `paper`: a latent space shared by weights, the NIPS 2017 paper with what it leaves open
    taken from the authors' code of October 2017. `2018`: the authors' later code, without shared weights. A default
    that differs between them is None here and named in `variants`.
    """

    unit_variant: str = option("paper", "paper: shared latent space; 2018: the authors' later model", ("paper", "2018"))
    generator_width: int = option(64, "channels after the generator's first layer (ngf)")
    # The table in the paper's appendix has 512, after a convolution of 256 channels: the first residual block then
    # cannot be a plain sum. The authors' code, whose weights people have, stays at 256, so that is the default.
    residual_width: int | None = option(
        None,
        "channels of the residual blocks; by default 4 times --generator_width, as in the released code, where the "
        "paper's table has 512",
    )
    shared_blocks: int | None = option(
        None, "how many of the 4 residual blocks of the encoders, and of the decoders, both domains share: 0 to 4"
    )
    norm: str = option(
        "none",
        "normalisation after the resampling convolutions of encoders and decoders; instance takes ReLU after it, none "
        "LeakyReLU",
        ("none", "instance"),
    )
    dropout: bool = option(False, "dropout 0.5 at the end of every residual block (the authors' street scenes)")
    discriminator: str | None = option(
        None,
        "stack: convolutions of stride 2; shared: a stack whose layers after the second are shared by both domains; "
        "multiscale: stacks at --discriminator_scales sizes",
        ("stack", "shared", "multiscale"),
    )
    discriminator_layers: int | None = option(None, "convolutions of stride 2 in a discriminator")
    discriminator_scales: int = option(
        3, "number of sizes at which --discriminator=multiscale looks, each half of the one before"
    )
    discriminator_width: int = option(64, "channels after the discriminator's first layer (ndf)")
    gan_loss: str | None = option(None, "adversarial loss", ("lsgan", "vanilla"))
    lambda_gan: float | None = option(
        None, "weight of the adversarial losses of generators and discriminators (lambda 0)"
    )
    lambda_kl: float | None = option(None, "weight of the codes' Kullback-Leibler distance from N(0, 1) (lambda 1)")
    lambda_reconstruction: float | None = option(None, "weight of the reconstruction losses (lambda 2)")
    lambda_kl_cycle: float | None = option(
        None, "weight of the Kullback-Leibler distance from N(0, 1) of the translations' codes (lambda 3)"
    )
    lambda_cycle: float | None = option(None, "weight of the cycle losses (lambda 4)")
    kl_of: str = option(
        "mean",
        "what enters the Kullback-Leibler distances. mean: the code's mean, as in the paper; code: the code with its "
        "noise, as in the released code",
        ("mean", "code"),
    )
    lambda_vgg: float = option(
        0.0, "weight of the domain-invariant perceptual loss, a part of --unit_variant=2018 alone"
    )
    vgg_weights: str | None = option(
        None, "file of Keras' VGG16 weights without top (.h5) for --lambda_vgg; by default Keras downloads them"
    )
    ema_momentum: float = averaging()
    learning_rate: float = option(1e-4, "Adam's learning rate, all networks", known_as=("lr",))
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")
    weight_decay: float = option(1e-4, "L2 added to the gradient of all weights before Adam, as torch.optim.Adam does")

    # The norm's only trace in a published file of the paper's model are statistics that later files leave out.
    told: typing.ClassVar = ("norm",)
    paths: typing.ClassVar = ("vgg_weights",)
    recipe: typing.ClassVar = {
        "resize": (256, 256), "resize_mode": "short_side", "resize_filter": "bilinear", "crop": (256, 256),
        "flip": 0.5, "flip_first": True, "batch_size": 1, "decay_fraction": 0.5,
    }  # fmt: skip
    variants: typing.ClassVar = {
        "paper": {
            "shared_blocks": 1, "discriminator": "stack", "discriminator_layers": 5, "gan_loss": "vanilla",
            "lambda_gan": 10.0, "lambda_kl": 0.1, "lambda_reconstruction": 100.0, "lambda_kl_cycle": 0.1,
            "lambda_cycle": 100.0, "steps": 500_000, "lr_schedule": "constant",
        },
        "2018": {
            "shared_blocks": 0, "discriminator": "multiscale", "discriminator_layers": 4, "gan_loss": "lsgan",
            "lambda_gan": 1.0, "lambda_kl": 0.01, "lambda_reconstruction": 10.0, "lambda_kl_cycle": 0.01,
            "lambda_cycle": 10.0, "steps": 1_000_000, "lr_schedule": "halving",
        },
    }  # fmt: skip

    def __post_init__(self):
        check_choices(self)
        check_paths(self, *self.paths)
        fill(self, self.variants[self.unit_variant])
        if self.residual_width is None:
            object.__setattr__(self, "residual_width", 4 * self.generator_width)
        check_positive(
            self,
            "generator_width",
            "residual_width",
            "discriminator_width",
            "discriminator_layers",
            "discriminator_scales",
            "learning_rate",
        )
        lambdas = ("lambda_gan", "lambda_kl", "lambda_reconstruction", "lambda_kl_cycle", "lambda_cycle", "lambda_vgg")
        check_not_negative(self, *lambdas, "weight_decay")
        check_below_1(self, "ema_momentum")
        if not any(getattr(self, name) for name in lambdas):
            raise UserError(f"--{', --'.join(lambdas)} are all 0: nothing is left to learn")
        if not 0 <= self.shared_blocks <= 4:
            raise UserError(f"--shared_blocks={self.shared_blocks}: the encoders have 4 residual blocks, expected 0-4")
        if self.discriminator == "shared" and self.discriminator_layers < 3:
            raise UserError(
                f"--discriminator_layers={self.discriminator_layers}: --discriminator=shared has two layers of its own "
                "for each domain and needs 3 or more"
            )
        if self.unit_variant == "2018":
            fixed = {
                "shared_blocks": 0, "residual_width": 4 * self.generator_width, "norm": "none", "dropout": False,
                "discriminator": "multiscale", "kl_of": "mean",
            }  # fmt: skip
            for name, value in fixed.items():
                if getattr(self, name) != value:
                    raise UserError(
                        f"--{name}={getattr(self, name)} is not part of --unit_variant=2018, which has {value}: "
                        "leave it out, or use --unit_variant=paper"
                    )
        elif self.lambda_vgg:
            raise UserError("--lambda_vgg is part of --unit_variant=2018: leave it out, or use that variant")


@dataclasses.dataclass(frozen=True)
class Digits:
    """Two sets of digits, A the labelled source and B the target without labels; formats in `tfi2i.data.digits`."""

    # Of all digits, in pixels.
    side: typing.ClassVar[int] = 32

    source: str | None = option(None, "labelled digits: tfds:NAME, optdigits, or a file or folder of digits")
    target: str | None = option(
        None, "digits whose labels are not used: tfds:NAME, optdigits, or a file or folder of digits"
    )
    source_test: str | None = option(None, "where the source's test digits are, when not in --source")
    target_test: str | None = option(None, "where the target's test digits are, when not in --target")
    source_format: str | None = option(
        None,
        "format of --source and --source_test (default: by the name)",
        ("tfds", "optdigits", "npz", "hdf5", "libsvm", "idx", "mat"),
    )
    target_format: str | None = option(
        None,
        "format of --target and --target_test (default: by the name)",
        ("tfds", "optdigits", "npz", "hdf5", "libsvm", "idx", "mat"),
    )
    source_split: str = option("train", "with tfds: the source's split to learn from, e.g. extra")
    target_split: str = option("train", "with tfds: the target's split to learn from")
    test_fraction: float = option(
        0.2, "fraction of the digits held out for the test where the data have no test part; the choice never changes"
    )
    tfds_dir: str | None = option(None, "where TFDS keeps prepared data (default: TFDS' own)")
    download: bool = option(False, "let TFDS download and prepare a data set when it is not there")
    channels_a: int = option(1, "channels of the source: 1 (grey) or 3", choices=(1, 3))
    channels_b: int = option(1, "channels of the target: 1 (grey) or 3", choices=(1, 3))
    resize_filter: str = option(
        "nearest",
        "how digits are brought to the networks' size; the published code of UNIT takes nearest",
        ("nearest", "bilinear"),
    )
    target_inverted: bool = option(False, "learn from intensity-inverted copies of the target's digits too")
    accept_changed_data: bool = option(False, "resume although the training digits have changed")

    def __post_init__(self):
        check_choices(self)
        check_paths(self, "source", "target", "source_test", "target_test")
        if not 0 < self.test_fraction < 1:
            raise UserError(f"--test_fraction={self.test_fraction}: expected more than 0 and less than 1")

    @property
    def named(self):
        """Whether a flag says where the digits are."""
        return bool(self.source or self.target)

    def absolute(self):
        """The same: what --source and --target name need not be paths."""
        return self

    def held_out(self):
        """No digit is held out but in the split for the test."""
        return []

    def open_domains(self, split="train"):
        """The digits of both domains of one split: see `tfi2i.data.digits.open_domains`."""
        from tfi2i.data import digits

        return digits.open_domains(self, split)

    def training_stream(self, a, b, **how):
        """The training batches of two sets of digits: see `tfi2i.data.digits.TrainingStream`."""
        from tfi2i.data import digits

        return digits.TrainingStream(a, b, self, **how)

    def examples(self, count, value_range):
        """The digits that samples/ shows: see `tfi2i.data.digits.examples`."""
        from tfi2i.data import digits

        return digits.examples(self, count, value_range)


@dataclasses.dataclass(frozen=True)
class Adaptation(Hyperparameters):
    """Liu, Breuel, Kautz, Unsupervised Image-to-Image Translation Networks, arXiv 1703.00848: domain adaptation.

    Defaults are those of the authors' code for SVHN to MNIST (branch version_02), except that of the feature distance.
    """

    baseline: bool = option(False, "learn only to classify, and only the source: what adaptation is compared with")
    generator_width: int = option(96, "channels after the encoders' first layer")
    discriminator_width: int = option(64, "channels after the discriminators' first layer")
    dropout: bool = option(True, "dropout 0.1, 0.3, 0.5, 0.5 in the discriminators; too much for narrow ones")
    equal_start: bool = option(
        False, "start the target's own layers with the weights of the source's; a departure that saves time"
    )
    coordinates: bool = option(True, "give the encoders each pixel's row and column as two more channels")
    feature_distance: str = option(
        "l1",
        "distance between the top features of a translated pair. l1: as in the paper; l2: squared, as in the code",
        ("l1", "l2"),
    )
    lambda_gan: float = option(1.0, "weight of the adversarial losses")
    lambda_class: float = option(10.0, "weight of the classification loss on the source's labels")
    lambda_feature: float = option(1e-4, "weight of the feature distance, summed over 512x2x2 features")
    lambda_kl: float = option(1e-4, "weight of the Kullback-Leibler term, summed over the code")
    lambda_reconstruction: float = option(1e-3, "weight of the squared reconstruction error, summed over pixels")
    learning_rate: float = option(2e-4, "Adam's learning rate, all networks")
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")
    weight_decay: float = option(5e-4, "L2 added to the gradient of all weights before Adam, as torch.optim.Adam does")

    data_class: typing.ClassVar = Digits
    instead: typing.ClassVar = "it learned to classify digits; at the end of training metrics.json says how well"
    recipe: typing.ClassVar = {"batch_size": 64, "steps": 200_000, "lr_schedule": "constant", "decay_fraction": 0.0}

    def __post_init__(self):
        check_choices(self)
        check_positive(self, "generator_width", "discriminator_width", "learning_rate")
        check_not_negative(
            self, "lambda_gan", "lambda_class", "lambda_feature", "lambda_kl", "lambda_reconstruction", "weight_decay"
        )
