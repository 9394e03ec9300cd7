"""What a run directory is: its files, who may write to it, and how directories of earlier versions are read.

  config.json        the configuration, fingerprints of the training files, and the `format` of the directory
  held_out.txt       paths of the images that --holdout keeps for the test, one a line
  flags.txt          the flags that start the same run again
  checkpoints/STEP/  whole training states, see `tfi2i.checkpoints`
  best/              the networks of the step that evaluation liked best
  log.jsonl          one line an event; train/ has the same for TensorBoard
  samples/           pictures
  .lock              held by the process that trains

No TensorFlow is imported here.
"""

import dataclasses
import fcntl
import json
import logging
import os
import pathlib
import re

from tfi2i import __version__, command_line, files, settings
from tfi2i.config import DIRECTIONS, UserError, did_you_mean
from tfi2i.methods import METHODS

# Rises with every change of what `description` has to translate.
FORMAT = 1


def config_path(run_dir):
    """RUN/config.json."""
    return pathlib.Path(run_dir) / "config.json"


def checkpoint_folder(run_dir, step):
    """RUN/checkpoints/STEP, or RUN/best for the step "best"."""
    if step == "best":
        return pathlib.Path(run_dir) / "best"
    return pathlib.Path(run_dir) / "checkpoints" / f"{int(step):08d}"


def steps(run_dir):
    """Steps of the checkpoints in a run directory, oldest first; unfinished ones are left out."""
    folder = pathlib.Path(run_dir) / "checkpoints"
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit()) if folder.is_dir() else []


def description(run_dir):
    """What config.json says, in the present format: the dict of a `settings.Run` and, beside it,

    `format`, `tfi2i` (the version that wrote it), `fingerprints` of the training files where the run was trained here,
    and `converted` where `tfi2i.convert` made it: `source`, the name of the published file or folder; `sha256` of each
    file; `directions` that it translates; and `missing`, the networks that it did not have. What `tfi2i.pack` wrote
    has `packed`, true, and `licenses`, a dict of `weights` and `data`.

    Raises:
        UserError: not a run directory, or one of a later version.
    """
    path = config_path(run_dir)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format", 0) > FORMAT:
            raise UserError(
                f"{run_dir} was written by tfi2i {content.get('tfi2i')}, this is {__version__}: install that version"
            )
        return _of_0_1(content) if "format" not in content else content
    except OSError:
        lacks = (
            "has no config.json" if os.path.isdir(run_dir) else "is a file" if os.path.exists(run_dir) else "is missing"
        )
        raise UserError(f"{run_dir} is not a run directory: it {lacks}{_near(path.parent)}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read: {error}") from error


def _near(folder):
    """The run directories that may have been meant: that around a folder, those within, or one of nearly its name."""
    if config_path(folder.parent).is_file():
        return f"; {folder.parent} is one"
    within = sorted(config.parent.name for config in folder.glob("*/config.json"))
    if within:
        return f"; it holds {', '.join(within[:5])}{' and more' if len(within) > 5 else ''}"
    beside = [config.parent.name for config in folder.parent.glob("*/config.json")]
    return did_you_mean(folder.name, beside, f"{folder.parent}{os.sep}")


def read(run_dir):
    """The `settings.Run` of a run directory.

    Raises:
        UserError: not a run directory, or one of another version.
    """
    try:
        return settings.Run.from_json(json.dumps(description(run_dir)))
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{config_path(run_dir)} cannot be read: {error}") from error


def direction(text, *run_dirs, canonical=DIRECTIONS):
    """The direction that a --direction names.

    Args:
        text: one of `canonical`, or names of domains such as "photos2paintings", the folders of --a and --b.
        *run_dirs: the run directories that it is for.
        canonical: what it may be in all runs.

    Returns:
        one of `canonical`.

    Raises:
        UserError: it names none, or not the same one in all runs.
    """
    if text in canonical:
        return text
    known = [domain_names(read(path).data) for path in run_dirs]
    found = {names.get(text) for names in known}
    if len(found) == 1 and None not in found:
        return found.pop()
    if len(found) > 1:
        raise UserError(f"--direction={text} is not the same in all runs: give a2b or b2a")
    expected = [*canonical, *(known[0] if known else ())]
    near = {_plain(name): name for name in expected}.get(_plain(text))
    hint = f"; did you mean --direction={near}?" if near else ""
    raise UserError(f"--direction={text}: expected one of {', '.join(expected)}{hint}")


def domain_names(data):
    """dict of "photos2paintings" → "a2b", and of the way back, for a run of --a=photos and --b=paintings; or {}.

    Args:
        data: the data of a `settings.Run`.
    """
    folders = [getattr(data, name, None) for name in ("a", "b")]
    if not all(folders):
        return {}
    from tfi2i.data import images

    a, b = (images.root(os.path.abspath(folder)).name for folder in folders)
    if data.swap_domains:
        a, b = b, a
    return {} if a == b else {f"{a}2{b}": "a2b", f"{b}2{a}": "b2a"}


def _plain(direction):
    """'AtoB', 'A2B', 'a_to_b' → 'a2b'."""
    return re.sub(r"[\W_]", "", direction.lower()).replace("to", "2")


def write(folder, run, **more):
    """Writes config.json and flags.txt into a folder.

    Args:
        folder: a run directory, or one that becomes one.
        run: a `settings.Run`.
        **more: `fingerprints`, `converted`, `packed` or `licenses`, see `description`.

    Raises:
        OSError: they cannot be written.
    """
    run = dataclasses.replace(run, data=run.data.absolute(), model=run.model.absolute())
    content = {"format": FORMAT, "tfi2i": __version__, **json.loads(run.to_json()), **more}
    files.write_text(config_path(folder), json.dumps(content, indent=2) + "\n")
    flags = command_line.flags_text(run.method, settings.differing(run))
    files.write_text(pathlib.Path(folder) / "flags.txt", flags)


def is_new(folder):
    """Whether a run can start in a folder: it is not there, or empty but for what a killed start leaves."""
    folder = pathlib.Path(folder)
    return not folder.exists() or (
        folder.is_dir() and all(p.name == ".lock" or p.name.startswith(files.PARTIAL) for p in folder.iterdir())
    )


def nearest_folder(path):
    """The path itself if it exists, else the nearest of its parents that does."""
    path = pathlib.Path(path).absolute()
    return next(p for p in (path, *path.parents) if p.exists())


def check_lock(folder):
    """Refuses what `lock` would refuse, as far as that can be known without writing anything.

    Raises:
        UserError: as `lock`.
    """
    nearest = nearest_folder(folder)
    if not nearest.is_dir():
        raise UserError(f"--run_dir={folder} cannot be written: {nearest} is a file")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"--run_dir={folder} cannot be written: no permission to write in {nearest}")
    if (pathlib.Path(folder) / ".lock").exists():
        os.close(lock(folder))


def lock(folder):
    """Makes a run directory and takes its lock.

    Returns:
        a file descriptor; closing it, or the end of the process, lets the lock go.

    Raises:
        UserError: it cannot be made, or another process trains there.
    """
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise UserError(f"--run_dir={folder} cannot be written: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"--run_dir={folder} is in use by another training process") from None
    except OSError as error:  # NFS and Lustre may have no locks
        logging.warning("%s cannot be locked (%s): do not train there twice at the same time", folder, error.strerror)
    return descriptor


def _of_0_1(content):
    """The present form of what version 0.1 wrote into config.json.

    Pre-training had all hyper-parameters of its method, most without effect, and its method those of pre-training.
    """
    method = METHODS[content["method"]]
    if method.pretraining:
        fields = {t: {*settings.field_names(method.of_task(t).config_class)} for t in ("translate", "pretrain")}
        moved = set.union(*fields.values()) - fields[content["training"]["task"]]
        content = content | {"model": {n: v for n, v in content["model"].items() if n not in moved}}
    return content | {"format": FORMAT}
