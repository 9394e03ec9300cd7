"""What can be set, with defaults, sources and checks; the command line is derived from here.

Three frozen dataclasses describe a run: `Data` (which images, brought to which size), `Training` (how long, on what)
and one class per method with that method's hyper-parameters. Every field is one absl flag of the same name. A field
whose default differs between methods is None here and named in the method's `recipe`. `tfi2i.adapt` has a command
line of its own: `Digits` instead of `Data`, and `Adaptation`.

This module knows no TensorFlow, so `--help` answers at once.
"""

import dataclasses
import difflib
import json
import types
import typing

from absl import flags


class UserError(ValueError):
    """Something the user can fix. Commands print it as one line, without a traceback."""


def option(default, help, choices=None):
    """A dataclass field that is also a flag: `help` is its text, `choices` the values it may take."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


Size = tuple[int, int]
# What `tfi2i.metrics.evaluation` can measure: sets of images by their features; image by image; against the inputs;
# and, only after training, against label maps.
REALISM = ("fid", "kid", "mean_kid", "precision_recall")
PIXELS = ("l1", "l2", "psnr", "mean_psnr", "ssim", "pixel_accuracy", "lpips_like")
TO_INPUT = ("il2", "cycle")
METRICS = REALISM + PIXELS + TO_INPUT
ON_LABELS = ("fcn_score",)


def parse_size(text):
    """'256' or '256,512' (height, width) → (256, 256) or (256, 512).

    Raises:
        ValueError: `text` is not one or two positive integers.
    """
    if not isinstance(text, str):
        text = ",".join(str(t) for t in text) if isinstance(text, (tuple, list)) else str(text)
    parts = text.replace("x", ",").split(",")
    if len(parts) > 2 or not all(p.strip().isdigit() and int(p) > 0 for p in parts):
        raise ValueError(f"'{text}' is not a size: give N for a square or H,W (height, width), in pixels")
    numbers = tuple(int(p) for p in parts)
    return numbers if len(numbers) == 2 else numbers * 2


def size_flag(text):
    """`parse_size` of a command's --size, or None where it was not given.

    Raises:
        UserError: it is no size.
    """
    try:
        return parse_size(text) if text else None
    except ValueError as error:
        raise UserError(f"--size={text}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images a run reads and how they become training crops."""

    data: str | None = option(None, "folder with trainA, trainB (and testA, testB), or 'emoji', the bundled sample")
    tfds: str | None = option(None, "TFDS data set instead of a folder, e.g. cycle_gan/horse2zebra")
    tfds_dir: str | None = option(None, "where TFDS keeps prepared data (default: TFDS' own)")
    download: bool = option(False, "let TFDS download and prepare the data set when it is not there")
    csv: str | None = option(None, "CSV file with one row per image: a path column, then attributes or labels")
    csv_folder: str | None = option(None, "folder that the paths in --csv are relative to (default: the file's own)")
    domain_a: str | None = option(
        None, "with --tfds or --csv of one labelled set: rule for domain A, e.g. attributes/Eyeglasses, label=3, !Male"
    )
    domain_b: str | None = option(None, "the same for domain B")
    swap_domains: bool = option(False, "exchange A and B after reading")
    channels_a: int = option(3, "channels of domain A: 1 (grey) or 3", choices=(1, 3))
    channels_b: int = option(3, "channels of domain B: 1 (grey) or 3", choices=(1, 3))
    background: tuple[int, int, int] = option((255, 255, 255), "R,G,B (0-255) put behind transparent pixels")
    resize: Size | None = option(None, "size before the crop: N or H,W; for short_side the length of that side")
    resize_mode: str | None = option(
        None,
        "exact: to --resize whatever the aspect; short_side: keep the aspect; none",
        ("exact", "short_side", "none"),
    )
    resize_filter: str | None = option(None, "antialiased filter, as Pillow's", ("bicubic", "bilinear", "lanczos"))
    crop: Size | None = option(None, "size of the random crop that the networks see: N or H,W")
    flip: float | None = option(None, "probability of a horizontal flip")
    flip_first: bool | None = option(None, "flip before resize and crop (True) or last (False)")
    rotate: float = option(0.0, "rotate by up to this many degrees before the crop, black outside")
    jitter: float = option(0.0, "change brightness, contrast, saturation and hue by up to this part")
    max_bad_files: int = option(10, "stop when more files than this cannot be read")
    cache_gib: float = option(2.0, "keep decoded images in memory while they take no more than this, in GiB; 0: never")
    accept_changed_data: bool = option(False, "resume although the list of training files has changed")

    def __post_init__(self):
        _check_choices(self)
        given = [n for n in ("data", "tfds", "csv") if getattr(self, n)]
        if len(given) > 1:
            raise UserError(f"--{given[0]} and --{given[1]} both name the images: give one of --data, --tfds, --csv")
        if self.csv and not (self.domain_a and self.domain_b):
            raise UserError("--csv needs --domain_a and --domain_b: the rules that split its rows into two domains")
        if bool(self.domain_a) != bool(self.domain_b):
            raise UserError("--domain_a and --domain_b go together: one rule for each domain")
        if len(self.background) != 3 or not all(0 <= c <= 255 for c in self.background):
            raise UserError(f"--background={self.background}: expected three numbers from 0 to 255, e.g. 255,255,255")
        if self.flip is not None and not 0 <= self.flip <= 1:
            raise UserError(f"--flip={self.flip}: expected a probability from 0 to 1")
        _check_not_negative(self, "rotate")
        if not 0 <= self.jitter <= 0.5:
            raise UserError(f"--jitter={self.jitter}: expected 0 to 0.5, half a turn of the hue")
        if self.max_bad_files < 0:
            raise UserError(f"--max_bad_files={self.max_bad_files}: expected 0 or more")
        if self.resize and self.crop and self.resize_mode == "exact":
            if self.crop[0] > self.resize[0] or self.crop[1] > self.resize[1]:
                raise UserError(
                    f"--crop={_text(self.crop)} does not fit into --resize={_text(self.resize)}: "
                    "make the crop smaller or the resize larger"
                )


@dataclasses.dataclass(frozen=True)
class Training:
    """How long, on what, and what is written on the way."""

    task: str = option(
        "translate",
        "translate: learn to translate; pretrain: teach one generator to fill in masked patches of both domains' "
        "images, for --pretrained (uvcgan2, uvcgan)",
        ("translate", "pretrain"),
    )
    batch_size: int | None = option(None, "images per domain in one step, over all replicas and hosts (global)")
    accumulate: int = option(
        1,
        "compute the step in this many parts and add up the gradients, to save memory; what takes statistics over "
        "samples (--norm=batch, heads bsd and bn) takes them over a part",
    )
    steps: int | None = option(None, "duration in steps; give one of --steps, --epochs, --images")
    epochs: float | None = option(None, "duration in epochs of max(|A|, |B|) / batch_size steps")
    images: int | None = option(None, "duration in images per domain")
    lr_schedule: str | None = option(
        None,
        "multiplier of the learning rate in epoch e = 1, 2, … with n constant and d decaying epochs. "
        "linear: 1-max(0,e-n)/(d+1); linear_zero_last: 1-max(0,e+1-n)/(d+1), the last epoch at 0; "
        "linear_torch7: 1-max(0,e-1-n)/d; linear_steps: as linear, moved every step; "
        "linear_steps_zero_last: the same a step earlier, the last step at 0; "
        "step: 0.1^floor((e-1)/lr_step_epochs); halving: 0.5^floor(steps/lr_halving_steps); "
        "cosine: (1+cos(pi (e-1)/N))/2; cosine_restarts: 1e-5+(1-1e-5)(1+cos(pi s/lr_restart_steps))/2 in step s of "
        "a cycle; constant: 1",
        (
            "linear",
            "linear_zero_last",
            "linear_torch7",
            "linear_steps",
            "linear_steps_zero_last",
            "step",
            "halving",
            "cosine",
            "cosine_restarts",
            "constant",
        ),
    )
    decay_fraction: float | None = option(None, "part of the duration, at its end, in which a linear schedule decays")
    lr_step_epochs: int = option(50, "epochs between the tenfold drops of --lr_schedule=step")
    lr_halving_steps: int = option(100_000, "steps between the halvings of --lr_schedule=halving")
    lr_restart_steps: int = option(102_400, "steps of one cycle of --lr_schedule=cosine_restarts")
    seed: int = option(0, "seeds weights, data order, augmentation, image pool and noise")
    precision: str = option(
        "auto",
        "auto: mixed_bfloat16 where the hardware has it, else float32",
        ("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    )
    strategy: str = option(
        "auto",
        "auto: all GPUs of this machine, or TF_CONFIG's workers when set",
        ("auto", "one_device", "mirrored", "multi_worker"),
    )
    replicas: int | None = option(
        None, "with --strategy=mirrored: take this many GPUs, or without any split the CPU into this many"
    )
    xla: str = option("auto", "compile the step with XLA; auto: on GPUs, not on CPUs", ("auto", "on", "off"))
    init_from: str | None = option(None, "start from the networks of this run directory (fine-tuning)")
    pretrained: str | None = option(None, "start both generators from this run directory of --task=pretrain")
    save_every: int = option(1000, "steps between checkpoints")
    keep: int = option(3, "checkpoints to keep")
    log_every: int = option(50, "steps between lines in log.jsonl and TensorBoard")
    sample_every: int = option(500, "steps between pictures in samples/")
    eval_every: int | None = option(
        None, "steps between evaluations on the val images (without them the test images), whose best is kept in best/"
    )
    eval_metrics: str = option(
        "kid", f"what --eval_every measures, on features of EfficientNet-Lite0: {', '.join(METRICS)}"
    )
    eval_images: int = option(500, "images per domain of an evaluation, evenly spread, where there are more")
    best_metric: str | None = option(
        None,
        "which of --eval_metrics decides on best/, mean of both directions (default: the first; of "
        "precision_recall either)",
    )

    def __post_init__(self):
        _check_choices(self)
        unknown = [m for m in self.eval_metrics.split(",") if m not in METRICS]
        if unknown:
            raise UserError(f"--eval_metrics={self.eval_metrics}: '{unknown[0]}' is none of {', '.join(METRICS)}")
        if self.eval_every and not self.best_metrics:
            raise UserError(
                f"--eval_metrics={self.eval_metrics} has nothing that can decide on best/: who changes nothing is "
                "closest to the input. Add kid"
            )
        if self.best_metric and self.best_metric not in self.best_metrics:
            raise UserError(f"--best_metric={self.best_metric}: expected one of {', '.join(self.best_metrics)}")
        if self.eval_every and self.task == "pretrain":
            raise UserError("--eval_every measures translations: --task=pretrain has none")
        given = [n for n in ("steps", "epochs", "images") if getattr(self, n) is not None]
        if len(given) > 1:
            both = " and ".join(f"--{n}={getattr(self, n)}" for n in given)
            raise UserError(f"{both} contradict: give exactly one of --steps, --epochs, --images")
        counts = ("accumulate", "keep", "save_every", "log_every", "sample_every", "lr_step_epochs", "lr_halving_steps")
        counts += ("lr_restart_steps",)
        for name in (*given, *counts):
            if getattr(self, name) <= 0:
                raise UserError(f"--{name}={getattr(self, name)}: expected more than 0")
        for name in ("batch_size", "replicas", "eval_every", "eval_images"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"--{name}={getattr(self, name)}: expected 1 or more")
        if self.batch_size and self.batch_size % self.accumulate:
            raise UserError(
                f"--batch_size={self.batch_size} cannot be split into --accumulate={self.accumulate} equal parts"
            )
        starts = [n for n in ("init_from", "pretrained") if getattr(self, n)]
        if len(starts) > 1:
            raise UserError("--init_from and --pretrained both say where to start from: give one of them")
        if self.task == "pretrain" and self.pretrained:
            raise UserError("--pretrained starts a translation: leave --task=pretrain out, or use --init_from")
        if self.decay_fraction is not None and not 0 <= self.decay_fraction <= 1:
            raise UserError(f"--decay_fraction={self.decay_fraction}: expected 0 to 1")

    @property
    def best_metrics(self):
        """What may decide on best/: the measured metrics, precision and recall each for itself.

        Closeness to the input may not: who changes nothing is the best at it.
        """
        found = self.eval_metrics.replace("precision_recall", "precision,recall").split(",")
        return tuple(m for m in found if m not in TO_INPUT)

    def total_steps(self, size_a, size_b):
        """The duration in steps for domains of `size_a` and `size_b` images, and the steps of one epoch."""
        per_epoch = max(1, max(size_a, size_b) // self.batch_size)
        if self.steps is not None:
            return self.steps, per_epoch
        if self.images is not None:
            return max(1, self.images // self.batch_size), per_epoch
        return max(1, round(self.epochs * per_epoch)), per_epoch


@dataclasses.dataclass(frozen=True)
class CycleGAN:
    """Zhu et al., Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, arXiv 1703.10593.

    Defaults are those of the authors' PyTorch code (model `cycle_gan`), which follow the paper's section 4 and
    appendix 7 but for the identity loss, which the paper uses for paintings only and the code everywhere.
    """

    cyclegan_variant: str = option(
        "pytorch",
        "pytorch: the layers of the authors' code; tensorflow: of codes in TensorFlow, to use weights that are theirs",
        ("pytorch", "tensorflow"),
    )
    generator: str = option(
        "resnet_9blocks", "generator network (7.2)", ("resnet_9blocks", "resnet_6blocks", "unet_256", "unet_128")
    )
    generator_width: int = option(64, "channels after the generator's first layer (ngf)")
    upsample: str = option(
        "transposed",
        "transposed convolutions, or nearest upsampling and a convolution (no checkerboard)",
        ("transposed", "resize_conv"),
    )
    discriminator: str = option(
        "n_layers", "PatchGAN of --discriminator_layers, or 1x1 convolutions per pixel", ("n_layers", "pixel")
    )
    discriminator_layers: int = option(3, "stride-2 convolutions of the PatchGAN; 3 sees 70x70 pixels (7.2)")
    discriminator_width: int = option(64, "channels after the discriminator's first layer (ndf)")
    norm: str = option("instance", "normalisation in all networks", ("instance", "batch", "none"))
    norm_epsilon: float | None = option(None, "added to the variances of the norms")
    dropout: bool = option(False, "dropout 0.5 in the generators (pix2pix has it, CycleGAN does not)")
    init: str = option("normal", "initialiser of all kernels", ("normal", "xavier", "kaiming", "orthogonal"))
    init_gain: float = option(0.02, "standard deviation of normal, gain of xavier and orthogonal")
    gan_loss: str = option("lsgan", "adversarial loss", ("lsgan", "vanilla", "wgan-gp"))
    lambda_gan: float = option(1.0, "weight of the generators' adversarial loss; 0 leaves the discriminators out")
    lambda_a: float = option(10.0, "weight of the forward cycle A to B to A (4)")
    lambda_b: float = option(10.0, "weight of the backward cycle B to A to B")
    lambda_identity: float = option(0.5, "identity loss, relative to lambda_a and lambda_b (5.2)")
    lambda_gp: float = option(10.0, "weight of wgan-gp's gradient penalty")
    pool_size: int = option(50, "images in the history that discriminators learn from (4); 0: none")
    learning_rate: float = option(2e-4, "Adam's learning rate, all networks (4)")
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
        _check_choices(self)
        _fill(self, self.variants[self.cyclegan_variant])
        _check_positive(self, "generator_width", "discriminator_width", "discriminator_layers", "learning_rate")
        _check_positive(self, "norm_epsilon")
        _check_not_negative(
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
        if self.upsample == "resize_conv" and self.generator.startswith("unet"):
            raise UserError(
                f"--upsample=resize_conv is for the ResNet generators, --generator={self.generator} has none: "
                "use --generator=resnet_9blocks or leave --upsample out"
            )
        if not (self.lambda_gan or self.lambda_a or self.lambda_b):
            raise UserError("--lambda_gan, --lambda_a and --lambda_b are all 0: nothing is left to learn")


@dataclasses.dataclass(frozen=True)
class UNIT:
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
        None, "channels of the residual blocks; default 4 generator_width, as released; the paper's table has 512"
    )
    shared_blocks: int | None = option(
        None, "of the 4 residual blocks of the encoders, and of the decoders, how many both domains share (0-4)"
    )
    norm: str = option(
        "none",
        "after the encoders' and decoders' resampling convolutions; instance goes with ReLU",
        ("none", "instance"),
    )
    dropout: bool = option(False, "dropout 0.5 at the end of every residual block (the authors' street scenes)")
    discriminator: str | None = option(
        None,
        "stack: convolutions of stride 2; shared: the same, all but the first two shared by both domains; "
        "multiscale: stacks at --discriminator_scales sizes",
        ("stack", "shared", "multiscale"),
    )
    discriminator_layers: int | None = option(None, "convolutions of stride 2 in a discriminator")
    discriminator_scales: int = option(3, "sizes at which --discriminator=multiscale looks, each half the one before")
    discriminator_width: int = option(64, "channels after the discriminator's first layer (ndf)")
    gan_loss: str | None = option(None, "adversarial loss", ("lsgan", "vanilla"))
    lambda_gan: float | None = option(None, "weight of the adversarial loss, both sides (lambda 0)")
    lambda_kl: float | None = option(None, "weight of the codes' distance from N(0, 1) (lambda 1)")
    lambda_reconstruction: float | None = option(None, "weight of the reconstructions (lambda 2)")
    lambda_kl_cycle: float | None = option(None, "weight of the translations' codes' distance from N(0, 1) (lambda 3)")
    lambda_cycle: float | None = option(None, "weight of the cycle reconstructions (lambda 4)")
    kl_of: str = option(
        "mean", "whose distance: the code's mean (the paper) or the code with its noise (released)", ("mean", "code")
    )
    lambda_vgg: float = option(0.0, "2018: weight of the domain-invariant perceptual loss")
    vgg_weights: str | None = option(
        None, "2018: file of Keras' VGG16 weights without top (.h5); without it, Keras downloads them"
    )
    learning_rate: float = option(1e-4, "Adam's learning rate, all networks")
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")
    weight_decay: float = option(1e-4, "L2 added to the gradient of all weights before Adam, as torch.optim.Adam does")

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
        _check_choices(self)
        _fill(self, self.variants[self.unit_variant])
        if self.residual_width is None:
            object.__setattr__(self, "residual_width", 4 * self.generator_width)
        _check_positive(
            self,
            "generator_width",
            "residual_width",
            "discriminator_width",
            "discriminator_layers",
            "discriminator_scales",
            "learning_rate",
        )
        lambdas = ("lambda_gan", "lambda_kl", "lambda_reconstruction", "lambda_kl_cycle", "lambda_cycle", "lambda_vgg")
        _check_not_negative(self, *lambdas, "weight_decay")
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
class UGATIT:
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
        False, "gamma and beta from pooled features: 10.6 instead of 279 million weights a generator, and any size"
    )
    image_size: Size = option((256, 256), "without --light: the one size, N or H,W, that the networks take [--crop]")
    generator_width: int = option(64, "channels after the generator's first layer (ch)")
    residual_blocks: int = option(4, "residual blocks in the encoder, and as many in the decoder (n_res)")
    decoder_norm: str = option(
        "adalin",
        "normalisation in the decoder (table 1): adalin with LIN behind it; adain with instance norm; or one of "
        "instance, layer and group norm throughout, which take no style from the image",
        ("adalin", "in", "ln", "adain", "gn"),
    )
    cam_generator: bool = option(True, "attention by an auxiliary classifier in the generators (table 1)")
    cam_discriminator: bool = option(True, "the same in the discriminators")
    discriminator_width: int = option(64, "channels after the discriminator's first layer (ch)")
    local_layers: int = option(5, "convolutions of the local discriminators, 1x1 not counted; 5 sees 70x70 pixels")
    global_layers: int = option(7, "convolutions of the global discriminators; 7 sees 286x286 pixels")
    lambda_gan: float = option(1.0, "weight of the adversarial losses, of generators and discriminators")
    lambda_cycle: float = option(10.0, "weight of the cycles, L1")
    lambda_identity: float = option(10.0, "weight of the identity losses, L1")
    lambda_cam: float = option(1000.0, "weight of the generators' classification of source against target domain")
    learning_rate: float = option(1e-4, "Adam's learning rate, all networks")
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.999, "Adam's decay of the second moment")
    weight_decay: float = option(
        1e-4, "L2 added to the gradients before Adam; of all weights with --ugatit_variant=pytorch, else of kernels"
    )

    recipe: typing.ClassVar = {
        "resize": (286, 286), "resize_mode": "exact", "resize_filter": "bilinear", "crop": (256, 256),
        "flip": 0.5, "flip_first": True,
        "batch_size": 1, "steps": 1_000_000, "lr_schedule": "linear_steps_zero_last", "decay_fraction": 0.5,
    }  # fmt: skip

    def __post_init__(self):
        _check_choices(self)
        object.__setattr__(self, "image_size", parse_size(self.image_size))  # JSON has no tuples
        _check_positive(self, "generator_width", "discriminator_width", "learning_rate")
        _check_not_negative(
            self, "residual_blocks", "lambda_gan", "lambda_cycle", "lambda_identity", "lambda_cam", "weight_decay"
        )
        for name in ("local_layers", "global_layers"):
            if getattr(self, name) < 3:
                raise UserError(f"--{name}={getattr(self, name)}: expected 3 or more (strided, inner, last)")
        if not (self.lambda_gan or self.lambda_cycle or self.lambda_identity):
            raise UserError("--lambda_gan, --lambda_cycle and --lambda_identity are all 0: nothing is left to learn")


@dataclasses.dataclass(frozen=True)
class UVCGAN2:
    """Torbunov et al., UVCGAN v2 (first: Rethinking CycleGAN), arXiv 2303.16280. Images are in [0, 1].

    Defaults are those of the authors' training script for CelebA, and the paper's consistency loss, which their
    scripts leave out. Head, weights and rates differ by data set: configs/uvcgan2.
    """

    generator_width: int = option(48, "channels of the UNet's first level, doubled in each further one")
    generator_levels: int = option(4, "levels of the UNet; sides are multiples of 2 ** levels")
    norm: str = option("none", "before the convolutions of the UNet that are not modulated", ("none", "instance"))
    style: bool = option(True, "a style token in the transformer modulates the decoder's convolutions")
    vit_width: int = option(384, "channels of the transformer's tokens, and of their position codes")
    vit_heads: int = option(6, "heads of its attention")
    vit_blocks: int = option(12, "its blocks")
    vit_ffn_width: int = option(1536, "channels inside its feed-forward networks")
    discriminator: str = option(
        "n_layers", "trunk: PatchGAN of --discriminator_layers, or 1x1 convolutions per pixel", ("n_layers", "pixel")
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
    # Narrow networks die of the published N(0, 0.02): without norms, each convolution shrinks what it passes on.
    init: str = option(
        "normal", "initialiser of all kernels but the heads'", ("normal", "xavier", "kaiming", "orthogonal")
    )
    init_gain: float = option(0.02, "standard deviation of normal, gain of xavier and orthogonal")
    lambda_gan: float = option(1.0, "weight of the generators' adversarial loss; 0 leaves the discriminators out")
    lambda_a: float = option(10.0, "weight of the forward cycle A to B to A")
    lambda_b: float = option(10.0, "weight of the backward cycle B to A to B")
    lambda_identity: float = option(0.5, "identity loss, relative to lambda_a and lambda_b")
    # The paper's table could not be opened; the weight is a recollection of its variant with consistency loss.
    lambda_consistency: float = option(
        0.2, "weight of the difference of an image and its translation when both are small; 0: as in the scripts"
    )
    consistency_relative: bool = option(
        True, "lambda_consistency is relative to lambda_a and lambda_b, as in the code; else the weight itself"
    )
    consistency_size: int = option(32, "side in pixels of those small images")
    consistency_resize: str = option(
        "area",
        "how they are made: mean of the area, or between the nearest pixels as torchvision 0.13 does",
        ("area", "bilinear"),
    )
    lambda_gp: float = option(0.01, "weight of the gradient penalty; 0: none")
    gp_form: str = option(
        "uvcgan2",
        "uvcgan2: (|gradient of the logits' mean| - center)^2, one mixing factor a batch; "
        "uvcgan: of their sum, divided by center^2, a factor for each sample",
        ("uvcgan2", "uvcgan"),
    )
    gp_at: str = option(
        "mixed", "where it is taken: between real and translated images, or at one", ("mixed", "real", "fake")
    )
    gp_center: float = option(0.0, "length of the gradient that costs nothing")
    pool_size: int = option(0, "translations in the history that discriminators learn from; 0: none")
    ema_momentum: float = option(
        0.9999, "of the moving averages of the generators, which translate; 0: the generators themselves do"
    )
    learning_rate: float = option(1e-4, "Adam's learning rate of the generators")
    discriminator_learning_rate: float = option(1e-4, "the same of the discriminators")
    beta_1: float = option(0.5, "Adam's decay of the first moment")
    beta_2: float = option(0.99, "Adam's decay of the second moment")
    weight_decay: float = option(
        0.0,
        "L2 added to the gradient of all weights before Adam, as torch.optim.Adam does; "
        "in pre-training all weights shrink beside the step instead, as torch.optim.AdamW does",
    )
    mask_patch: int = option(32, "--task=pretrain: side of the square patches that are masked or kept, pixels")
    mask_fraction: float = option(0.4, "--task=pretrain: probability of masking a patch")
    ema_from_scratch: bool = option(
        False,
        "with --pretrained: averages start from the initial weights all the same, as in the code, which leaves their "
        "pictures grey for long",
    )

    recipe: typing.ClassVar = {
        "resize": (256, 256), "resize_mode": "short_side", "resize_filter": "bilinear", "crop": (256, 256),
        "flip": 0.5, "flip_first": True,
        "batch_size": 1, "steps": 1_000_000, "lr_schedule": "constant", "decay_fraction": 0.5,
    }  # fmt: skip
    # What --task=pretrain has otherwise: 32 images a step, 16 of each domain. The code's rate is 5e-3 of 512 images.
    pretraining: typing.ClassVar = {
        "batch_size": 16, "steps": 512_000, "lr_schedule": "cosine_restarts", "learning_rate": 3.125e-4,
        "beta_1": 0.9, "weight_decay": 0.05, "rotate": 10.0, "jitter": 0.2,
    }  # fmt: skip

    def __post_init__(self):
        _check_choices(self)
        _check_positive(
            self,
            "generator_width",
            "generator_levels",
            "vit_width",
            "vit_heads",
            "vit_ffn_width",
            "discriminator_layers",
            "discriminator_width",
            "consistency_size",
            "learning_rate",
            "discriminator_learning_rate",
            "mask_patch",
        )
        _check_not_negative(
            self,
            "vit_blocks",
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
            "init_gain",
        )
        if self.vit_width % self.vit_heads:
            raise UserError(
                f"--vit_heads={self.vit_heads} cannot share --vit_width={self.vit_width} equally: make the width a "
                "multiple of the heads"
            )
        if not 0 <= self.mask_fraction <= 1:
            raise UserError(f"--mask_fraction={self.mask_fraction}: expected a probability from 0 to 1")
        if not 0 <= self.ema_momentum < 1:
            raise UserError(f"--ema_momentum={self.ema_momentum}: expected 0 or more and less than 1")
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
    pretraining: typing.ClassVar = UVCGAN2.pretraining | {
        "batch_size": 32, "steps": 255_488, "learning_rate": 6.25e-4, "lr_restart_steps": 51_200,
    }  # fmt: skip


METHODS = {"cyclegan": CycleGAN, "unit": UNIT, "ugatit": UGATIT, "uvcgan2": UVCGAN2, "uvcgan": UVCGAN}


@dataclasses.dataclass(frozen=True)
class Digits:
    """Two sets of digits, A the labelled source and B the target without labels; formats in `tfi2i.data.digits`."""

    source: str | None = option(None, "labelled digits: tfds:NAME, optdigits, or a file or folder, see --help")
    target: str | None = option(None, "the same for the digits whose labels are not used")
    source_test: str | None = option(None, "where the source's test digits are, when not in --source")
    target_test: str | None = option(None, "the same for the target")
    source_format: str | None = option(
        None,
        "format of --source and --source_test (default: by the name)",
        ("tfds", "optdigits", "npz", "hdf5", "libsvm", "idx", "mat"),
    )
    target_format: str | None = option(
        None,
        "the same for the target",
        ("tfds", "optdigits", "npz", "hdf5", "libsvm", "idx", "mat"),
    )
    source_split: str = option("train", "with tfds: split to learn from, e.g. extra")
    target_split: str = option("train", "the same for the target")
    test_fraction: float = option(0.2, "held out for the test where the data have no test part; always the same")
    tfds_dir: str | None = option(None, "where TFDS keeps prepared data (default: TFDS' own)")
    download: bool = option(False, "let TFDS download and prepare a data set when it is not there")
    channels_a: int = option(1, "channels of the source: 1 (grey) or 3", choices=(1, 3))
    channels_b: int = option(1, "channels of the target: 1 (grey) or 3", choices=(1, 3))
    resize_filter: str = option(
        "nearest", "how digits are brought to 32x32; nearest as in the code", ("nearest", "bilinear")
    )
    target_inverted: bool = option(False, "learn from intensity-inverted copies of the target's digits too")
    accept_changed_data: bool = option(False, "resume although the training digits have changed")

    def __post_init__(self):
        _check_choices(self)
        if not 0 < self.test_fraction < 1:
            raise UserError(f"--test_fraction={self.test_fraction}: expected more than 0 and less than 1")


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """Liu, Breuel, Kautz, Unsupervised Image-to-Image Translation Networks, arXiv 1703.00848: domain adaptation.

    Defaults are those of the authors' code for SVHN to MNIST (branch version_02), but for the feature distance.
    """

    baseline: bool = option(False, "only the classifier, on the source alone: what adaptation is compared with")
    generator_width: int = option(96, "channels after the encoders' first layer")
    discriminator_width: int = option(64, "channels after the discriminators' first layer")
    dropout: bool = option(True, "dropout 0.1, 0.3, 0.5, 0.5 in the discriminators; too much for narrow ones")
    equal_start: bool = option(
        False, "start the target's own layers with the weights of the source's; a departure that saves time"
    )
    coordinates: bool = option(True, "give the encoders each pixel's row and column as two more channels")
    feature_distance: str = option(
        "l1",
        "between the top features of a translated pair: l1 as in the paper, l2 (squared) as in the code",
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

    recipe: typing.ClassVar = {"batch_size": 64, "steps": 200_000, "lr_schedule": "constant", "decay_fraction": 0.0}

    def __post_init__(self):
        _check_choices(self)
        _check_positive(self, "generator_width", "discriminator_width", "learning_rate")
        _check_not_negative(
            self, "lambda_gan", "lambda_class", "lambda_feature", "lambda_kl", "lambda_reconstruction", "weight_decay"
        )


# What `tfi2i.adapt` runs, and not `tfi2i.train`.
ADAPTATION = {"adaptation": Adaptation}
_DURATIONS = ("steps", "epochs", "images")


@dataclasses.dataclass(frozen=True)
class Run:
    """A whole, resolved configuration: what `config.json` of a run directory holds."""

    method: str
    model: CycleGAN | UNIT | UGATIT | UVCGAN2 | Adaptation
    data: Data | Digits
    training: Training

    def to_json(self):
        """The configuration as a JSON text, readable back by `Run.from_json`."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text):
        """Reads `to_json`'s text back."""
        values = json.loads(text)
        tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in values["data"].items()}
        return cls(
            method=values["method"],
            model=(METHODS | ADAPTATION)[values["method"]](**values["model"]),
            data=_data_kind(values["method"])(**tuples),
            training=Training(**values["training"]),
        )


def resolve(method, given):
    """Puts the flags that were given over the method's recipe and the general defaults.

    Args:
        method: a name in `METHODS`, or "adaptation".
        given: dict of flag name to value, only flags that the user set.

    Returns:
        A `Run` without None where the method's recipe says something.

    Raises:
        UserError: an unknown method, a flag of another method, contradictory or impossible values.
    """
    if method not in METHODS | ADAPTATION:
        near = difflib.get_close_matches(str(method), METHODS, n=1)
        hint = f"; did you mean --method={near[0]}?" if near else ""
        raise UserError(f"--method={method} is not known: expected one of {', '.join(METHODS)}{hint}")
    kind, data_kind = (METHODS | ADAPTATION)[method], _data_kind(method)
    own, data, training = (_names(c) for c in (kind, data_kind, Training))
    for name in given:
        if name not in own and name not in data and name not in training:
            raise UserError(f"--{name} is not a flag of --method={method}; its own are: --{', --'.join(own)}")
    values = kind.recipe | _variant(kind, given)
    if given.get("task") == "pretrain" or given.get("pretrained"):
        if not hasattr(kind, "pretraining"):
            flag = "--pretrained" if given.get("pretrained") else "--task=pretrain"
            able = ", ".join(n for n, k in METHODS.items() if hasattr(k, "pretraining"))
            raise UserError(f"{flag} is for methods that have a pre-training ({able}), not for --method={method}")
        values |= kind.pretraining if given.get("task") == "pretrain" else {}
    if any(n in given for n in _DURATIONS):
        values = {n: v for n, v in values.items() if n not in _DURATIONS}
    if "crop" in given and "resize" not in given and values["resize_mode"] == "exact":
        # Keeps the published margin (286 for 256), so that `--crop=128` alone means what it says.
        published, crop = values["resize"], parse_size(given["crop"])
        values["resize"] = tuple(round(c * r / p) for c, r, p in zip(crop, published, values["crop"]))
    values |= given
    if "image_size" in own and values.get("crop"):
        values.setdefault("image_size", values["crop"])
    return Run(
        method=method,
        model=kind(**{k: values[k] for k in own if k in values}),
        data=data_kind(**{k: values[k] for k in data if k in values}),
        training=Training(**{k: values[k] for k in training if k in values}),
    )


def _variant(kind, given):
    """What the variant that `given` asks for, or the default one, says of flags; {} for a method without variants."""
    for field in dataclasses.fields(kind):
        if field.name.endswith("_variant"):
            return _variants(kind).get(given.get(field.name, field.default), {})
    return {}


def define_flags():
    """Declares `--method` and one flag per field of `Data`, `Training` and the methods. Default None: not given."""
    flags.DEFINE_string("method", "cyclegan", f"one of: {', '.join(METHODS)}")
    _define_fields(Data, METHODS)


def define_adaptation_flags():
    """The same for `tfi2i.adapt`: the fields of `Digits`, `Training` and `Adaptation`."""
    _define_fields(Digits, ADAPTATION)


def given_flags():
    """The flags of `define_flags` or `define_adaptation_flags` that the user set, as a dict of name to value."""
    kinds = (Data, Digits, Training, *METHODS.values(), *ADAPTATION.values())
    names = {f.name for kind in kinds for f in dataclasses.fields(kind)}
    return {n: flags.FLAGS[n].value for n in sorted(names & set(flags.FLAGS)) if flags.FLAGS[n].value is not None}


def differing(settings):
    """The flags, as a dict of name to value, that make `resolve` give `settings`: those that are not at their default.

    Args:
        settings: a `Run`.
    """
    variants = {n: getattr(settings.model, n) for n in _names(type(settings.model)) if n.endswith("_variant")}
    default = resolve(settings.method, {**variants, "task": settings.training.task})
    given = {n: v for n, v in variants.items() if v != getattr(resolve(settings.method, {}).model, n)}
    for part in ("model", "data", "training"):
        for name, value in dataclasses.asdict(getattr(settings, part)).items():
            if value is not None and value != getattr(getattr(default, part), name):
                given[name] = value
    if settings.training.task != "translate":
        given["task"] = settings.training.task
    if "crop" in given:
        given["resize"] = settings.data.resize  # which would follow the crop otherwise
    return given


def flags_text(method, given):
    """A flagfile that gives the same run again.

    Args:
        method: a name in `METHODS`, or "adaptation", whose command has no `--method`.
        given: dict of flag name to value.
    """
    lines = [f"--method={method}"] if method in METHODS else []
    for name, value in given.items():
        if isinstance(value, bool):
            lines.append(f"--{name}" if value else f"--no{name}")
        else:
            lines.append(f"--{name}={_text(value)}")
    return "\n".join(lines) + "\n"


def _data_kind(method):
    return Data if method in METHODS else Digits


def _define_fields(data_kind, methods):
    owners = {}
    for kind in (data_kind, Training, *methods.values()):
        for field in dataclasses.fields(kind):
            owners.setdefault(field.name, []).append((kind, field))
    for name, uses in owners.items():
        kind, field = uses[0]
        _define(name, field, uses, _help(kind, field, uses, methods))


def _help(kind, field, uses, methods):
    default = field.default
    if kind in methods.values():
        defaults = []
        for method, own in methods.items():
            for used_by, used in uses:
                if used_by is own:
                    by_variant = {v: values[used.name] for v, values in _variants(own).items() if used.name in values}
                    text = "/".join(_text(v) for v in by_variant.values()) or _text(used.default)
                    defaults.append(f"{method}: {text}")
        texts = dict.fromkeys(used.metadata["help"] for _, used in uses)
        return f"{' | '.join(texts)} [{', '.join(defaults)}]"
    published = {}
    for method, own in methods.items():
        said = [v[field.name] for v in (own.recipe, *_variants(own).values()) if field.name in v]
        if said:
            published[method] = "/".join(map(_text, said))
    if published:
        return f"{field.metadata['help']} [{', '.join(f'{n}: {v}' for n, v in published.items())}]"
    return field.metadata["help"] + ("" if default is None else f" [{_text(default)}]")


def _define(name, field, uses, help):
    hint = field.type
    if isinstance(hint, types.UnionType):
        hint = next(t for t in typing.get_args(hint) if t is not type(None))
    # One flag for all methods that have a field of this name; each method's class checks its own choices.
    choices = [f.metadata["choices"] for _, f in uses]
    choices = list(dict.fromkeys(c for own in choices for c in own)) if all(choices) else None
    if hint is bool:
        flags.DEFINE_bool(name, None, help)
    elif choices and hint is str:
        flags.DEFINE_enum(name, None, choices, help)
    elif hint is int:
        flags.DEFINE_integer(name, None, help)
    elif hint is float:
        flags.DEFINE_float(name, None, help)
    elif hint is str:
        flags.DEFINE_string(name, None, help)
    elif name == "background":
        flags.DEFINE(_ColourParser(), name, None, help, serializer=_TupleSerializer())
    else:
        flags.DEFINE(_SizeParser(), name, None, help, serializer=_TupleSerializer())


class _SizeParser(flags.ArgumentParser):
    syntactic_help = "a size: N or H,W"

    def parse(self, argument):
        return parse_size(argument)

    def flag_type(self):
        return "N or H,W"


class _ColourParser(flags.ArgumentParser):
    syntactic_help = "a colour: R,G,B"

    def parse(self, argument):
        return tuple(int(p) for p in argument.split(",")) if isinstance(argument, str) else tuple(argument)

    def flag_type(self):
        return "R,G,B"


class _TupleSerializer(flags.ArgumentSerializer):
    def serialize(self, value):
        return _text(value)


def _text(value):
    return ",".join(str(v) for v in value) if isinstance(value, (tuple, list)) else str(value)


def _variants(kind):
    return getattr(kind, "variants", {})


def _fill(config, values):
    """Puts `values` where a frozen `config` has None."""
    for field in dataclasses.fields(config):
        if field.name in values and getattr(config, field.name) is None:
            object.__setattr__(config, field.name, values[field.name])


def _names(kind):
    return [f.name for f in dataclasses.fields(kind)]


def _check_choices(config):
    for field in dataclasses.fields(config):
        choices, value = field.metadata["choices"], getattr(config, field.name)
        if choices and value is not None and value not in choices:
            raise UserError(f"--{field.name}={value}: expected one of {', '.join(map(str, choices))}")


def _check_positive(config, *names):
    for name in names:
        if not getattr(config, name) > 0:
            raise UserError(f"--{name}={getattr(config, name)}: expected more than 0")


def _check_not_negative(config, *names):
    for name in names:
        if not getattr(config, name) >= 0:
            raise UserError(f"--{name}={getattr(config, name)}: expected 0 or more")
