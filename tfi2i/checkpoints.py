"""Checkpoints that are whole or not there, and models out of run directories.

RUN/checkpoints/STEP/ holds `state.*`, a tf.train.Checkpoint of the model with its optimizers and image pools, and
`manifest.json`, the SHA-256 of each file. It is written to STEP.tmp, flushed and renamed. RUN/best/ is the same with
the networks alone, and what they measured in the manifest.
"""

import collections
import dataclasses
import hashlib
import json
import logging
import os
import shutil

import tensorflow as tf

from tfi2i import files, run_directory
from tfi2i.config import UserError, differences, local_path
from tfi2i.methods import METHODS
from tfi2i.run_directory import checkpoint_folder, steps


class OtherNetworks(UserError):
    """A checkpoint has other variables than the model that it is read into."""


def save(run_dir, model, step, keep, without=()):
    """Writes the whole training state and removes all but the newest `keep` checkpoints.

    Args:
        run_dir: a run directory.
        model: a built `Translator`.
        step: the checkpoint's number.
        keep: how many checkpoints to keep.
        without: names of networks that are left out.

    Raises:
        UserError: it could not be written (disk full, no permission); older checkpoints are untouched.
    """
    folder = checkpoint_folder(run_dir, step)
    _write(folder, _tracked(model, without), {"step": step}, run_dir)
    for old in steps(run_dir)[:-keep]:
        shutil.rmtree(folder.with_name(f"{old:08d}"), ignore_errors=True)


def save_networks(run_dir, model, step, without=()):
    """Writes the networks alone, which is what translating takes, as the checkpoint of a step.

    Args:
        run_dir: a run directory.
        model: a built `Translator`.
        step: the checkpoint's number.
        without: names of networks that are left out.

    Raises:
        UserError: they could not be written.
    """
    groups = {"networks": _tracked(model, without)["networks"]}
    _write(checkpoint_folder(run_dir, step), groups, {"step": step}, run_dir)


def save_best(run_dir, model, step, metric, value):
    """Writes the networks to RUN/best/ in place of those that are there.

    Args:
        run_dir: a run directory.
        model: a built `Translator`.
        step: which step it is.
        metric: name of what decided.
        value: what it was.

    Raises:
        UserError: it could not be written.
    """
    groups = {"networks": _tracked(model)["networks"]}
    _write(checkpoint_folder(run_dir, "best"), groups, {"step": step, "metric": metric, "value": value}, run_dir)


def best(run_dir):
    """What the manifest of RUN/best/ says: dict of `step`, `metric`, `value`, `sha256`; None without a whole one."""
    folder = _settled(checkpoint_folder(run_dir, "best"))
    return None if not folder.is_dir() or fault(folder) else _manifest(folder)


def _settled(folder):
    """`folder`, given back the content that a kill between the two renames of `_write` left under another name."""
    old = folder.with_suffix(".old")
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    return folder


def _write(folder, groups, manifest, run_dir):
    partial, old = folder.with_suffix(".tmp"), _settled(folder).with_suffix(".old")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        tf.train.Checkpoint(**groups).write(str(partial / "state"))
        hashes = {p.name: sha256(p) for p in sorted(partial.iterdir())}
        manifest = manifest | {"format": run_directory.FORMAT, "sha256": hashes}
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        for path in [*partial.iterdir(), partial]:
            _flush(path)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        _flush(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, tf.errors.OpError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        left = steps(run_dir)
        raise UserError(
            f"checkpoint {folder} could not be written: {files.reason(error)}; "
            + (f"the last good one is step {left[-1]}" if left else "there is no earlier one")
        )


def sizes(model):
    """Bytes that a model takes on the disk: (the networks alone, as in best/; a whole checkpoint).

    Args:
        model: a built and compiled `Translator`.
    """
    bytes_of = {
        group: sum(v.dtype.size * v.shape.num_elements() for v in variables.values())
        for group, variables in _tracked(model).items()
    }
    return bytes_of["networks"], sum(bytes_of.values())


def fingerprint(folder):
    """A hash of all that a checkpoint folder holds."""
    return hashlib.sha256(json.dumps(_manifest(folder)["sha256"], sort_keys=True).encode()).hexdigest()


def fault(folder):
    """What is wrong with a checkpoint folder, or None."""
    try:
        hashes = _manifest(folder)["sha256"]
    except (OSError, ValueError, KeyError) as error:
        return f"its manifest cannot be read ({error})"
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if sha256(folder / name) != expected:
            return f"{name} does not have the content that was written"
    return None


def _manifest(folder):
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def newest_good(run_dir):
    """Folder of the newest checkpoint that is whole, or None when there is none; warns of every damaged one.

    Raises:
        UserError: there are checkpoints and all are damaged.
    """
    kept = steps(run_dir)
    for step in reversed(kept):
        folder = checkpoint_folder(run_dir, step)
        problem = fault(folder)
        if problem is None:
            return folder
        logging.warning("checkpoint %s is damaged: %s; trying the one before", folder, problem)
    if kept:
        raise UserError(f"all {len(kept)} checkpoints in {run_dir}/checkpoints are damaged: start a new --run_dir")
    return None


def restore(folder, model):
    """Puts a checkpoint's whole training state into a built and compiled model.

    Raises:
        UserError: the checkpoint holds other variables.
    """
    _read(folder, _tracked(model), model.roles)


def restore_networks(folder, model, without=()):
    """Puts only the networks of a checkpoint into a built model, but for those that it was written `without`.

    Raises:
        UserError: the checkpoint's networks have other shapes or layers.
    """
    _read(folder, {"networks": _tracked(model, without)["networks"]}, model.roles)


def initialise(model, run_dir):
    """Puts the networks of a run directory into a built model that is to learn on (--init_from).

    Weights start from weights and averages from averages. Averages that only the model has start from its weights;
    those that only the run has are left out. Networks that a published checkpoint did not have keep their random
    weights.

    Raises:
        UserError: no checkpoint there, other networks, or one generator alone.
    """
    origin = run_directory.description(run_dir).get("converted")
    lacking = [d for d in model.directions if origin and d not in origin["directions"]]
    if lacking:
        raise UserError(
            f"--init_from={run_dir} was converted from {origin['source']}, which holds the generator "
            f"{origin['directions'][0]} alone: training needs that of {lacking[0]} too. It can be translated with and "
            "exported"
        )
    missing = [*origin["missing"]] if origin else []
    averaged = getattr(run_directory.read(run_dir).model, "ema_momentum", 0.0)
    try:
        if averaged and model.averages:
            restore_networks(find(run_dir), model, missing)
            return
        groups = {"networks": _tracked(model, [*missing, *model.averages])["networks"]}
        _read(find(run_dir), groups, model.roles, [f"networks/{model.name}.S{n}_average.S" for n in model.networks])
    except OtherNetworks as error:
        raise UserError(
            f"--init_from={run_dir} holds other networks: {_other_flags(run_dir, model) or error}"
        ) from error
    for average in model.averages.values():
        average.restart()


def _other_flags(run_dir, model):
    """What was given to a run other than to `model`, that can make its networks differ; "" where nothing was."""
    there = run_directory.read(run_dir)
    if type(there.model) is not type(model.config):
        pretraining = there.training.task == "pretrain"
        return f"it was trained with --method={there.method}" + (
            " --task=pretrain, and --pretrained starts from such a run" if pretraining else ", this is another method"
        )
    here = dataclasses.replace(there.data, channels_a=model.channels_a, channels_b=model.channels_b)
    differ = differences(there.model, model.config) + differences(there.data, here)
    if not differ:
        return ""
    return f"{'; '.join(differ)}. Give those that shape networks again, or all by --flagfile={run_dir}/flags.txt"


def _tracked(model, without=()):
    """All variables by name: those of the networks, and those that only training needs.

    Explicit, because TF's object graph does not see Keras layers that a layer keeps in a list.
    """
    paths = collections.Counter(v.path for v in model.variables)
    twice = [path for path, count in paths.items() if count > 1]
    if twice:  # one of them would be lost
        raise ValueError(f"{model.name} has several variables with the path {twice[0]}: build layers in build()")
    kept = model.networks | model.averages
    everything = {v.path for network in kept.values() for v in network.variables}
    networks = {v.path: v for n, network in kept.items() if n not in without for v in network.variables}
    frozen = {v.path for network in model.frozen.values() for v in network.variables}
    training = {v.path: v for v in model.variables if v.path not in everything | frozen}
    if model.compiled:
        for role in model.roles:
            training |= {f"{role} {v.path}": v for v in model.optimizer_of(role).variables}
    for group in (networks, training):
        for name in group:
            group[name] = group[name].value
    return {"networks": networks, "training": training}


def _read(folder, groups, roles, left_out=()):
    """Reads groups of variables; all that the checkpoint has of them, but for names that begin as one of `left_out`."""
    path = str(folder / "state")
    # In version 0.1 every model had these two optimizers, with or without weights of their own.
    idle = {"generator", "discriminator"} - {*roles} if "format" not in _manifest(folder) else {}
    idle = (*(f"training/{role} " for role in idle), *left_out)
    stored = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    for group, variables in groups.items():
        suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
        here = {f"{group}/{_escaped(name)}{suffix}": tuple(v.shape) for name, v in variables.items()}
        there = {name: tuple(shape) for name, shape in stored.items() if name.startswith(f"{group}/")}
        there = {name: shape for name, shape in there.items() if not name.startswith(idle)}
        if here != there:
            name = next(n for n in sorted({*here, *there}) if here.get(n) != there.get(n))
            raise OtherNetworks(
                f"checkpoint {folder} holds another {'network' if group == 'networks' else 'training state'}: "
                f"{name.removesuffix(suffix)} is {there.get(name, 'not there')}, expected {here.get(name, 'nothing')}"
            )
    tf.train.Checkpoint(**groups).read(path).expect_partial().assert_existing_objects_matched()


def _escaped(name):
    return name.replace(".", "..").replace("/", ".S")


def find(run_dir, checkpoint=None):
    """Folder of a whole checkpoint of a run directory.

    Args:
        run_dir: a run directory.
        checkpoint: its step, as a number or text, or "best"; None: the newest whole one.

    Raises:
        UserError: there is none, or the one asked for is damaged.
    """
    if checkpoint is None:
        folder = newest_good(run_dir)
        if folder is None:
            raise UserError(f"{run_dir} holds no checkpoint yet: train for at least --save_every steps")
        return folder
    named = checkpoint == "best" or str(checkpoint).isdigit()
    folder = _settled(checkpoint_folder(run_dir, checkpoint)) if named else None
    if not named or not folder.is_dir():
        have = [*map(str, steps(run_dir)), *(["best"] if checkpoint_folder(run_dir, "best").is_dir() else [])]
        raise UserError(f"--checkpoint={checkpoint}: {run_dir} has {', '.join(have) or 'none'}")
    problem = fault(folder)
    if problem:
        raise UserError(f"checkpoint {folder} is damaged: {problem}; give another --checkpoint")
    return folder


def build(run, dtype=None):
    """A new model with the configuration `run`, a `settings.Run`; its networks are built."""
    model = (
        METHODS[run.method]
        .of_task(run.training.task)
        .model_class(
            channels_a=run.data.channels_a,
            channels_b=run.data.channels_b,
            seed=run.training.seed,
            dtype=dtype,
            **dataclasses.asdict(run.model),
        )
    )
    model.build((None, None, None, run.data.channels_a))
    return model


def load(run_dir, checkpoint=None, dtype="float32"):
    """A trained model, ready to translate, from a run directory.

    Args:
        run_dir: what `--run_dir` was.
        checkpoint: step of a kept checkpoint, or "best", see --eval_every; None: the newest whole one.
        dtype: Keras dtype policy to compute in; float32 whatever the run trained in.

    Returns:
        A `Translator` with `.run` (its configuration), `.run_dir`, `.checkpoint_step` and `.licenses`, what
        `tfi2i.pack` was told, or None.

    Raises:
        UserError: no run directory, no checkpoint, or a damaged one.
    """
    run_dir = local_path(run_dir, "run_dir")
    run, described = run_directory.read(run_dir), run_directory.description(run_dir)
    origin = described.get("converted")
    folder = find(run_dir, checkpoint)
    model = build(run, dtype)
    restore_networks(folder, model, origin["missing"] if origin else ())
    if origin:
        model.directions = tuple(origin["directions"])
    model.run = run
    model.named_directions = run_directory.domain_names(run.data)
    model.run_dir = str(run_dir)
    model.licenses = described.get("licenses")
    model.checkpoint_step = _manifest(folder)["step"]
    return model


def sha256(path):
    """SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
