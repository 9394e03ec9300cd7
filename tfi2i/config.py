"""The ground floor: errors, fields that are flags, checks, and what all runs share.

Three frozen dataclasses describe a run: `Data` (which images, brought to which size), `Training` (how long, on what)
and one of the method, a `Hyperparameters` in `tfi2i.methods.NAME.config`. Every field is one absl flag of the same
name, see `tfi2i.command_line`; `tfi2i.settings` puts the three together.

Nothing here imports TensorFlow, so that `--help` answers at once.
"""

import dataclasses
import difflib
import math
import os
import re
import typing

# From domain A to domain B, and back.
DIRECTIONS = ("a2b", "b2a")


class UserError(ValueError):
    """Something the user can fix. Commands print it as one line, without a traceback."""


def option(default, help, choices=None, known_as=()):
    """A dataclass field that is also a flag.

    Args:
        default: the field's.
        help: the flag's text.
        choices: the values it may take, or None: any.
        known_as: what the well-known codes call it, for "did you mean".
    """
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "known_as": known_as})


def averaging(default=0.0):
    """The field `ema_momentum` of a method that can average the weights of its generators.

    `check_below_1` checks it, and `Translator` does the rest.
    """
    return option(default, "momentum of the averaged generators that are used for translation; 0: no averaging")


def one_way(help):
    """The field `direction` of a method that learns one direction; `Translator` translates no other then."""
    return option("a2b", help, DIRECTIONS)


Size = tuple[int, int]


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


def local_path(path, flag):
    """A path on this machine, `~` being home.

    Args:
        path: str or path-like, or None.
        flag: its name, for the error.

    Returns:
        str; None for None.

    Raises:
        UserError: a URL. Runs need locks and renames, which object stores do not have.
    """
    if path is None:
        return None
    path = os.fspath(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        raise UserError(f"--{flag}={path} is a URL: copy it to this machine, or mount it, and give the path there")
    return os.path.expanduser(path)


def check_paths(config, *names):
    """Makes fields of these names local paths, see `local_path`."""
    for name in names:
        object.__setattr__(config, name, local_path(getattr(config, name), name))


def _absolute(config, *names):
    """A configuration whose fields of these names are absolute paths; the sample's name and URLs are none."""
    paths = {n: getattr(config, n) for n in names}
    paths = {n: os.path.abspath(p) for n, p in paths.items() if p and p != "emoji" and "://" not in p}
    return dataclasses.replace(config, **paths)


def as_text(value):
    """A flag's value as it is written on the command line."""
    return ",".join(str(v) for v in value) if isinstance(value, (tuple, list)) else str(value)


# Flags that name the images, and those that only go with some of these.
IMAGES = ("data", "a", "b", "ab", "tfds", "csv")
OF_IMAGES = (*IMAGES, "holdout", "csv_folder", "domain_a", "domain_b")
# Flags that say how long to train.
DURATIONS = ("steps", "epochs", "images")


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images a run reads and how they become training crops."""

    data: str | None = option(
        None,
        "folder with trainA, trainB (and testA, testB); or with train (and val, test) of pictures that show A and B "
        "side by side; or 'emoji', the bundled sample",
        known_as=("dataroot", "dataset", "data_dir", "dataset_path"),
    )
    a: str | None = option(
        None, "with --b, instead of --data: folder of the pictures of domain A, with its sub-folders; or a pattern"
    )
    b: str | None = option(None, "with --a: folder of the pictures of domain B, with its sub-folders; or a pattern")
    ab: str | None = option(
        None,
        "instead of --a and --b: folder of pictures whose left half is of domain A and whose right half is of B, with "
        "its sub-folders; or a pattern",
    )
    holdout: float | None = option(
        None,
        "with --a and --b, or --ab: share of the pictures that are kept for the test, chosen by their names alone "
        "(default: 0.1); 0: none",
    )
    tfds: str | None = option(None, "TFDS data set instead of a folder, e.g. cycle_gan/horse2zebra")
    tfds_dir: str | None = option(None, "where TFDS keeps prepared data (default: TFDS' own)")
    download: bool = option(False, "let TFDS download and prepare the data set when it is not there")
    csv: str | None = option(None, "CSV file with one row per image: a path column, then attributes or labels")
    csv_folder: str | None = option(None, "folder that the paths in --csv are relative to (default: the file's own)")
    domain_a: str | None = option(
        None, "with --tfds or --csv of one labelled set: rule for domain A, e.g. attributes/Eyeglasses, label=3, !Male"
    )
    domain_b: str | None = option(
        None, "with --tfds or --csv of one labelled set: rule for domain B, e.g. !attributes/Eyeglasses"
    )
    swap_domains: bool = option(False, "exchange domains A and B after reading")
    channels_a: int = option(3, "channels of domain A: 1 (grey) or 3", choices=(1, 3), known_as=("input_nc",))
    channels_b: int = option(3, "channels of domain B: 1 (grey) or 3", choices=(1, 3), known_as=("output_nc",))
    background: tuple[int, int, int] = option((255, 255, 255), "colour R,G,B (0-255) put behind transparent pixels")
    resize: Size | None = option(
        None,
        "size before the crop: N or H,W; with --resize_mode=short_side, N for the shorter side",
        known_as=("load_size", "loadsize"),
    )
    resize_mode: str | None = option(
        None,
        "how --resize is applied: exact: to that size whatever the aspect; short_side: to that length of the shorter "
        "side, keeping the aspect; none: not at all",
        ("exact", "short_side", "none"),
        known_as=("preprocess",),
    )
    resize_filter: str | None = option(None, "antialiased filter, as Pillow's", ("bicubic", "bilinear", "lanczos"))
    crop: Size | None = option(
        None,
        "size of the random crop that the networks see: N or H,W",
        known_as=("crop_size", "finesize", "img_size"),
    )
    flip: float | None = option(None, "probability of a horizontal flip", known_as=("no_flip",))
    flip_first: bool | None = option(None, "flip before resize and crop (True) or last (False)")
    rotate: float = option(0.0, "rotate by up to this many degrees before the crop, black outside")
    jitter: float = option(0.0, "change brightness, contrast, saturation and hue by up to this part")
    max_bad_files: int = option(10, "stop when more files than this cannot be read")
    cache_gib: float = option(2.0, "keep decoded images in memory while they take no more than this, in GiB; 0: never")
    accept_changed_data: bool = option(False, "resume although the list of training files has changed")

    # Whether a method learns from pairs: of both domains the same pictures, in one order, cropped and flipped alike.
    paired: typing.ClassVar[bool] = False

    def __post_init__(self):
        check_choices(self)
        check_paths(self, "data", "a", "b", "ab", "csv", "csv_folder")
        own = next((n for n in ("a", "b", "ab") if getattr(self, n)), None)
        given = [n for n in ("data", own, "tfds", "csv") if n and getattr(self, n)]
        if self.ab and (self.a or self.b):
            given = ["a" if self.a else "b", "ab"]
        if len(given) > 1:
            raise UserError(
                f"--{given[0]} and --{given[1]} both name the images: give one of --data, --ab, --tfds, --csv, or --a "
                "and --b"
            )
        if own and self.holdout is None:
            object.__setattr__(self, "holdout", 0.1)
        if self.holdout is not None and not own:
            raise UserError(
                f"--holdout={self.holdout} is for --a and --b, or --ab: the other forms of data say themselves which "
                "images are for the test"
            )
        if self.holdout is not None and not 0 <= self.holdout <= 1:
            raise UserError(f"--holdout={self.holdout}: expected a share from 0 to 1, such as 0.1")
        if self.csv and not (self.domain_a and self.domain_b):
            raise UserError("--csv needs --domain_a and --domain_b: the rules that split its rows into two domains")
        if bool(self.domain_a) != bool(self.domain_b):
            raise UserError("--domain_a and --domain_b go together: one rule for each domain")
        if len(self.background) != 3 or not all(0 <= c <= 255 for c in self.background):
            raise UserError(f"--background={self.background}: expected three numbers from 0 to 255, e.g. 255,255,255")
        if self.flip is not None and not 0 <= self.flip <= 1:
            raise UserError(f"--flip={self.flip}: expected a probability from 0 to 1")
        check_not_negative(self, "rotate")
        if not 0 <= self.jitter <= 0.5:
            raise UserError(f"--jitter={self.jitter}: expected 0 to 0.5, half a turn of the hue")
        if self.max_bad_files < 0:
            raise UserError(f"--max_bad_files={self.max_bad_files}: expected 0 or more")
        if self.resize and self.crop and self.resize_mode == "exact":
            if self.crop[0] > self.resize[0] or self.crop[1] > self.resize[1]:
                raise UserError(
                    f"--crop={as_text(self.crop)} does not fit into --resize={as_text(self.resize)}: "
                    "make the crop smaller or the resize larger"
                )

    @property
    def named(self):
        """Whether a flag says where the pictures are."""
        return any(getattr(self, name) for name in IMAGES)

    def absolute(self):
        """The same with absolute paths, which mean the same wherever a command is started."""
        return _absolute(self, "data", "a", "b", "ab", "csv", "csv_folder", "tfds_dir")

    def in_folder(self, folder):
        """The same preparation of the images of another folder, which has one of the layouts of --data."""
        return dataclasses.replace(self, **dict.fromkeys(OF_IMAGES) | {"data": folder})

    def in_folder_of_halves(self, folder):
        """The same preparation of the pictures of a folder that show both domains side by side, split as --ab's."""
        return dataclasses.replace(self.in_folder(None), ab=folder, holdout=self.holdout)

    def in_folders(self, a, b):
        """The same preparation of the images of two folders, split as in training: those of --a and --b now."""
        return dataclasses.replace(self.in_folder(None), a=a, b=b, holdout=self.holdout)

    def of_one_domain(self, letter, folder, holdout):
        """The same preparation of the images of a folder of domain 'a' or 'b', and none of the other one."""
        other = dataclasses.replace(self.in_folder(None), swap_domains=False)
        return dataclasses.replace(other, **{letter: folder}, holdout=holdout)

    def held_out(self):
        """The paths of the images that --holdout keeps for the test: see `tfi2i.data.sources.held_out`."""
        from tfi2i.data import sources

        return sources.held_out(self)

    def open_domains(self, split="train"):
        """The images of both domains of one split: see `tfi2i.data.sources.open_domains`."""
        from tfi2i.data import sources

        return sources.open_domains(self, split, self.paired)

    def training_stream(self, a, b, **how):
        """The training batches of two opened domains: see `tfi2i.data.pipeline.TrainingStream`."""
        from tfi2i.data import pipeline

        return pipeline.TrainingStream(a, b, self, **how)

    def examples(self, count, value_range):
        """The images that samples/ shows: see `tfi2i.data.pipeline.examples`."""
        from tfi2i.data import pipeline

        return pipeline.examples(self, count, value_range)


@dataclasses.dataclass(frozen=True)
class PairedData(Data):
    """Pairs of images: the `data_class` of a method that learns from pairs."""

    paired: typing.ClassVar[bool] = True


class Hyperparameters:
    """Base of the methods' configurations: frozen dataclasses whose fields are `option`s.

    A field whose default differs between a method's variants is None, and named in `variants`.
    """

    # What the method's published runs have for the flags of `Data` and `Training`.
    recipe: typing.ClassVar[dict] = {}
    # Value of the field NAME_variant → what that variant has for any flag.
    variants: typing.ClassVar[dict] = {}
    # Own flag → shared flag whose value it takes where it is not given itself.
    follows: typing.ClassVar[dict] = {}
    # Own flags whose values a published file cannot always say, and `tfi2i.convert` can be told.
    told: typing.ClassVar[tuple] = ()
    # Own flags that training does not look at: how the trained model translates. They may change on resume.
    of_translation: typing.ClassVar[tuple] = ()
    # Own flags that name files or folders of this machine. These may have moved when a run is resumed.
    paths: typing.ClassVar[tuple] = ()
    # What the model learns from.
    data_class: typing.ClassVar[type] = Data
    # Whether the defaults of the data come from elsewhere, so that flags.txt must say them all.
    data_in_full: typing.ClassVar[bool] = False
    # Whether a run may become longer when it is resumed, if its schedule of learning rates allows it.
    open_ended: typing.ClassVar[bool] = True
    # Of a model that translates no pictures: what it learned instead, as the end of an error's sentence. None: it
    # translates.
    instead: typing.ClassVar[str | None] = None

    def absolute(self):
        """The same with absolute paths, which mean the same wherever a command is started."""
        return _absolute(self, *self.paths)

    @property
    def stream(self):
        """dict of what `training_stream` of the data is asked for beyond (A, B)."""
        return {}


# `optim.schedules.Schedule` says what they are, and computes them.
LR_SCHEDULES = (
    "linear", "linear_zero_last", "linear_later", "linear_torch7", "linear_steps", "linear_steps_zero_last",
    "step", "halving", "cosine", "cosine_restarts", "constant",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Training:
    """How long, on what, and what is written on the way."""

    task: str = option(
        "translate",
        "translate: learn to translate; pretrain: prepare the networks for that, with the methods that have a "
        "pre-training",
        ("translate", "pretrain"),
    )
    batch_size: int | None = option(
        None, "images per domain in one step, over all replicas and hosts (global)", known_as=("batchsize", "bs")
    )
    accumulate: int = option(
        1,
        "compute the step in this many parts and add up the gradients, to save memory; statistics over samples, as of "
        "batch norm, are taken over a part",
    )
    remat: bool = option(
        False,
        "compute maps within the generators again for their gradients, instead of keeping them: less memory, longer "
        "steps",
    )
    steps: int | None = option(
        None,
        "duration in steps; give one of --steps, --epochs, --images",
        known_as=("iteration", "iterations", "max_iter"),
    )
    epochs: float | None = option(
        None, "duration in epochs of max(|A|, |B|) / batch_size steps", known_as=("n_epochs", "niter", "num_epochs")
    )
    images: int | None = option(None, "duration in images per domain")
    max_hours: float | None = option(
        None,
        "stop with a checkpoint and exit status 75 after this many hours; the command, given again, goes on from there",
    )
    lr_schedule: str | None = option(
        None,
        "multiplier of the learning rate in epoch e = 1, 2, … with n constant and d decaying epochs. "
        "linear: 1-max(0,e-n)/(d+1); linear_zero_last: 1-max(0,e+1-n)/(d+1), the last epoch at 0; "
        "linear_later: 1-max(0,e-1-n)/(d+1); linear_torch7: 1-max(0,e-1-n)/d; "
        "linear_steps: as linear, moved every step; "
        "linear_steps_zero_last: as linear_steps, a step earlier, the last step at 0; "
        "step: 0.1^floor((e-1)/lr_step_epochs); halving: 0.5^floor(steps/lr_halving_steps); "
        "cosine: (1+cos(pi (e-1)/N))/2; cosine_restarts: 1e-5+(1-1e-5)(1+cos(pi s/lr_restart_steps))/2 in step s of "
        "a cycle; constant: 1",
        LR_SCHEDULES,
        known_as=("lr_policy",),
    )
    decay_fraction: float | None = option(None, "part of the duration, at its end, in which a linear schedule decays")
    lr_step_epochs: int = option(
        50, "epochs between the tenfold drops of --lr_schedule=step", known_as=("lr_decay_iters",)
    )
    lr_halving_steps: int = option(100_000, "steps between the halvings of --lr_schedule=halving")
    lr_restart_steps: int = option(102_400, "steps of one cycle of --lr_schedule=cosine_restarts")
    seed: int = option(0, "seeds weights, data order, augmentation, image pool and noise", known_as=("manual_seed",))
    precision: str = option(
        "auto",
        "auto: mixed_bfloat16 where the hardware has it, else float32",
        ("auto", "float32", "mixed_bfloat16", "mixed_float16"),
        known_as=("amp", "fp16"),
    )
    strategy: str = option(
        "auto",
        "auto: all GPUs of this machine, or TF_CONFIG's workers when set",
        ("auto", "one_device", "mirrored", "multi_worker"),
    )
    replicas: int | None = option(
        None,
        "with --strategy=mirrored: take this many GPUs, or without any split the CPU into this many",
        known_as=("num_gpus", "ngpu"),
    )
    xla: str = option("auto", "compile the step with XLA; auto: on GPUs, not on CPUs", ("auto", "on", "off"))
    init_from: str | None = option(None, "start from the networks of this run directory (fine-tuning)")
    pretrained: str | None = option(None, "start the generators from this run directory of --task=pretrain")
    save_every: int = option(
        1000, "steps between checkpoints", known_as=("save_freq", "save_epoch_freq", "snapshot_save_iter")
    )
    keep: int = option(3, "checkpoints to keep")
    log_every: int = option(50, "steps between lines in log.jsonl and TensorBoard", known_as=("print_freq", "log_iter"))
    sample_every: int = option(500, "steps between pictures in samples/", known_as=("display_freq", "image_save_iter"))
    eval_every: int | None = option(
        None,
        "steps between evaluations on the val images (without them the test images), whose best is kept in best/; "
        "0: none",
    )
    eval_metrics: str = option(
        "kid",
        "metrics that --eval_every measures, on features of EfficientNet-Lite0: a list such as kid,l1 of those that "
        "--metrics of tfi2i evaluate takes, without fcn_score",
    )
    eval_images: int = option(500, "images per domain of an evaluation, evenly spread, where there are more")
    best_metric: str | None = option(
        None,
        "which of --eval_metrics decides on best/, by its mean over both directions; precision or recall for "
        "precision_recall (default: the first)",
    )

    def __post_init__(self):
        check_choices(self)
        check_paths(self, "init_from", "pretrained")
        given = [n for n in ("steps", "epochs", "images") if getattr(self, n) is not None]
        if len(given) > 1:
            both = " and ".join(f"--{n}={getattr(self, n)}" for n in given)
            raise UserError(f"{both} contradict: give exactly one of --steps, --epochs, --images")
        counts = ("accumulate", "keep", "save_every", "log_every", "sample_every", "lr_step_epochs", "lr_halving_steps")
        counts += ("lr_restart_steps",)
        for name in (*given, *counts):
            if getattr(self, name) <= 0:
                raise UserError(f"--{name}={getattr(self, name)}: expected more than 0")
        if self.eval_every is not None:
            check_not_negative(self, "eval_every")
        for name in ("batch_size", "replicas", "eval_images"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"--{name}={getattr(self, name)}: expected 1 or more")
        if self.max_hours is not None and not self.max_hours > 0:
            raise UserError(f"--max_hours={self.max_hours}: expected more than 0")
        if self.batch_size and self.batch_size % self.accumulate:
            raise UserError(
                f"--batch_size={self.batch_size} cannot be split into --accumulate={self.accumulate} equal parts: give "
                f"--batch_size={self.accumulate * math.ceil(self.batch_size / self.accumulate)}, or leave --accumulate "
                "out"
            )
        starts = [n for n in ("init_from", "pretrained") if getattr(self, n)]
        if len(starts) > 1:
            raise UserError("--init_from and --pretrained both say where to start from: give one of them")
        if self.task == "pretrain" and self.pretrained:
            raise UserError("--pretrained starts a translation: leave --task=pretrain out, or use --init_from")
        if self.decay_fraction is not None and not 0 <= self.decay_fraction <= 1:
            raise UserError(f"--decay_fraction={self.decay_fraction}: expected 0 to 1")

    def total_steps(self, size_a, size_b):
        """The duration in steps for domains of `size_a` and `size_b` images, and the steps of one epoch."""
        per_epoch = max(1, max(size_a, size_b) // self.batch_size)
        if self.steps is not None:
            return self.steps, per_epoch
        if self.images is not None:
            return max(1, self.images // self.batch_size), per_epoch
        return max(1, round(self.epochs * per_epoch)), per_epoch


def did_you_mean(value, choices, prefix=""):
    """ "; did you mean …?" of the choice that is most like a value, whatever their case; "" where none is."""
    by_case = {c.lower(): c for c in map(str, choices)}
    near = difflib.get_close_matches(str(value).lower(), by_case, n=1)
    return f"; did you mean {prefix}{by_case[near[0]]}?" if near else ""


def fill(config, values):
    """Puts `values`, a dict of field name to value, where a frozen `config` has None."""
    for field in dataclasses.fields(config):
        if field.name in values and getattr(config, field.name) is None:
            object.__setattr__(config, field.name, values[field.name])


def differences(before, now, names=None):
    """ "--width was 64, is 32" of fields of two configurations, as a list.

    Args:
        before, now: dataclasses.
        names: of the fields that count; None: all of `now`.
    """
    names = names or [f.name for f in dataclasses.fields(now)]
    pairs = [(name, getattr(before, name, None), getattr(now, name)) for name in names]
    return [f"--{name} was {as_text(a)}, is {as_text(b)}" for name, a, b in pairs if a != b]


def check_choices(config):
    """Raises `UserError`: a field has a value that is none of its choices."""
    for field in dataclasses.fields(config):
        choices, value = field.metadata["choices"], getattr(config, field.name)
        if choices and value is not None and value not in choices:
            hint = did_you_mean(value, choices)
            raise UserError(f"--{field.name}={value}: expected one of {', '.join(map(str, choices))}{hint}")


def check_positive(config, *names):
    """Raises `UserError`: a field of these names is not more than 0."""
    for name in names:
        if not getattr(config, name) > 0:
            raise UserError(f"--{name}={getattr(config, name)}: expected more than 0")


def check_not_negative(config, *names):
    """Raises `UserError`: a field of these names is less than 0."""
    for name in names:
        if not getattr(config, name) >= 0:
            raise UserError(f"--{name}={getattr(config, name)}: expected 0 or more")


def check_below_1(config, *names):
    """Raises `UserError`: a field of these names is less than 0, or 1 or more."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise UserError(f"--{name}={getattr(config, name)}: expected 0 or more and less than 1")
