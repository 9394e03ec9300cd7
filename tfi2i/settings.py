"""A whole run's configuration: flags over the method's recipe over the defaults, and its JSON.

No TensorFlow is imported here.
"""

import dataclasses
import json

from tfi2i.config import DURATIONS, Data, Hyperparameters, Training, UserError, did_you_mean, parse_size
from tfi2i.methods import METHODS, trained_by
from tfi2i.metrics import check_training

# Of `Training`: what a run and its pre-training share.
_OF_BOTH = (
    "seed", "precision", "strategy", "replicas", "xla", "remat", "max_hours", "save_every", "keep", "log_every",
    "sample_every",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Run:
    """A whole, resolved configuration: what `config.json` of a run directory holds.

    Attributes:
        method: a name in `methods.METHODS`.
        model: hyper-parameters of the method, or of its pre-training.
        data: what it learns from; of the method's `data_class`.
        training: how long, on what.
    """

    method: str
    model: Hyperparameters
    data: Data
    training: Training

    def to_json(self):
        """The configuration as a JSON text, readable back by `Run.from_json`."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def check_translates(self, run="this run"):
        """Raises `UserError`: what is trained translates no pictures, such as a classifier or a pre-training.

        Args:
            run: what the error calls the run, such as "--run_dir=runs/mine".
        """
        if self.model.instead:
            raise UserError(f"{run} translates no pictures: {self.model.instead}")

    @classmethod
    def from_json(cls, text):
        """Reads `to_json`'s text back.

        Raises:
            ValueError, KeyError, TypeError: the text is something else.
        """
        values = json.loads(text)
        kind = _config_class(values["method"], values["training"]["task"])
        # JSON has no tuples.
        data = {k: tuple(v) if isinstance(v, list) else v for k, v in values["data"].items()}
        return cls(
            method=values["method"],
            model=kind(**values["model"]),
            data=kind.data_class(**data),
            training=Training(**values["training"]),
        )


def resolve(method, given):
    """Puts the flags that were given over the method's recipe and the general defaults.

    Args:
        method: a name in `methods.METHODS`.
        given: dict of flag name to value, only flags that the user set.

    Returns:
        A `Run` without None where the method's recipe says something.

    Raises:
        UserError: an unknown method, a flag of another method, contradictory or impossible values.
    """
    kind = _config_class(method, given.get("task") or "translate")
    if given.get("pretrained") and not METHODS[method].pretraining:
        raise _no_pretraining("--pretrained", method)
    own, data, training = (field_names(c) for c in (kind, kind.data_class, Training))
    for name in given:
        if name not in own and name not in data and name not in training:
            whose = f"--method={method}" + (" --task=pretrain" if given.get("task") == "pretrain" else "")
            owners = [n for n, row in trained_by("train").items() if name in field_names(row.config_class)]
            belongs = f", it belongs to --method={', '.join(owners)}" if owners else ""
            raise UserError(f"--{name} is not a flag of {whose}{belongs}; its own are: --{', --'.join(own)}")
    values = kind.recipe | _of_variant(kind, given)
    if any(n in given for n in DURATIONS):
        values = {n: v for n, v in values.items() if n not in DURATIONS}
    if "crop" in given and "resize" not in given and values["resize_mode"] == "exact":
        # Keeps the published margin (286 for 256), so that `--crop=128` alone means what it says.
        published, crop = values["resize"], parse_size(given["crop"])
        values["resize"] = tuple(round(c * r / p) for c, r, p in zip(crop, published, values["crop"]))
    values |= given
    for name, followed in kind.follows.items():
        if values.get(followed):
            values.setdefault(name, values[followed])
    run = Run(
        method=method,
        model=kind(**{k: values[k] for k in own if k in values}),
        data=kind.data_class(**{k: values[k] for k in data if k in values}),
        training=Training(**{k: values[k] for k in training if k in values}),
    )
    check_training(run.training)
    if run.training.eval_every and kind.instead:
        raise UserError(
            f"--eval_every measures translations of pictures, and {kind.__name__} is not trained to make any: leave "
            "--eval_every out"
        )
    return run


def split_pretraining(method, given):
    """The flags of a translation, and those that only its method's pre-training has, of a dict of both.

    Raises:
        UserError: an unknown method, or one without pre-training.
    """
    if not METHODS.get(method) or not METHODS[method].pretraining:
        _config_class(method, "translate")
        raise _no_pretraining("--pretrain_steps", method)
    before, after = (field_names(_config_class(method, task)) for task in ("pretrain", "translate"))
    own = {name: value for name, value in given.items() if name in before and name not in after}
    return {name: value for name, value in given.items() if name not in own}, own


def pretraining(run, steps=None, own=None):
    """The pre-training that a run can start from: the same data and generator, otherwise as published.

    Args:
        run: a `Run` of the task "translate".
        steps: duration in steps; None: the published one.
        own: dict of flag name to value of flags that the translation does not have.

    Returns:
        A `Run` of the task "pretrain".
    """
    kind = _config_class(run.method, "pretrain")
    # What both configurations inherit describes what the pre-training hands over.
    shared = next(c for c in kind.__mro__ if isinstance(run.model, c))
    kept = {*field_names(shared), *field_names(kind.data_class), *_OF_BOTH}
    given = {name: value for name, value in differing(run).items() if name in kept} | (own or {})
    given["task"] = "pretrain"
    if steps:
        given["steps"] = steps
        cycle = kind.recipe.get("lr_restart_steps", Training.lr_restart_steps)
        given["lr_restart_steps"] = min(cycle, steps)  # a short pre-training too comes down to the lowest rate
    return resolve(run.method, given)


def differing(run):
    """The flags, as a dict of name to value, that make `resolve` give `run`: those that are not at their default.

    Args:
        run: a `Run`.
    """
    task = {} if run.training.task == "translate" else {"task": run.training.task}
    variants = {n: getattr(run.model, n) for n in field_names(type(run.model)) if n.endswith("_variant")}
    usual = resolve(run.method, task).model
    default = resolve(run.method, task | variants)
    given = {n: v for n, v in variants.items() if v != getattr(usual, n)}
    for part in ("model", "data", "training"):
        for name, value in dataclasses.asdict(getattr(run, part)).items():
            in_full = part == "data" and run.model.data_in_full
            if value is not None and (in_full or value != getattr(getattr(default, part), name)):
                given[name] = value
    if "crop" in given:
        given["resize"] = run.data.resize  # which would follow the crop otherwise
    return given | task


def field_names(kind):
    """Names of the fields of a dataclass, in their order."""
    return [f.name for f in dataclasses.fields(kind)]


def _config_class(method, task):
    """The `Hyperparameters` of what a method trains for a task."""
    if method not in METHODS:
        able = trained_by("train")
        hint = did_you_mean(method, able, "--method=")
        raise UserError(f"--method={method} is not known: expected one of {', '.join(able)}{hint}")
    trained = METHODS[method].of_task(task)
    if trained is None:
        raise _no_pretraining(f"--task={task}", method)
    return trained.config_class


def _no_pretraining(flag, method):
    able = ", ".join(name for name, row in METHODS.items() if row.pretraining)
    return UserError(f"{flag} is for methods that have a pre-training ({able}), not for --method={method}")


def _of_variant(kind, given):
    """What the variant that `given` asks for, or the default one, has for flags; {} for a method without variants."""
    for field in dataclasses.fields(kind):
        if field.name.endswith("_variant"):
            return kind.variants.get(given.get(field.name, field.default), {})
    return {}
