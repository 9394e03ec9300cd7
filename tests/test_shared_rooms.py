"""Shared rooms know no method: what a user may do with a method's own flags, the method says."""

import dataclasses
import pathlib
import re

from tests.toy import ROWS
from tfi2i.config import Data, Training
from tfi2i.methods import METHODS, trained_by

ROOT = pathlib.Path(__file__).resolve().parent.parent


def own_flags():
    """Fields that some methods have, but neither every run nor, as the learning rate, every method."""
    rows = [row.of_task(task) for row in (METHODS | ROWS).values() for task in ("translate", "pretrain")]
    fields = [{f.name for f in dataclasses.fields(row.config_class)} for row in rows if row]
    shared = {f.name for part in (Data, Training) for f in dataclasses.fields(part)} | set.intersection(*fields)
    # --direction belongs to every command that reads a run.
    return set.union(*fields) - shared - {"direction"}


def shared_rooms():
    """The Python files of the library but for the methods' folders and the commands that train one method alone."""
    folders = {ROOT / pathlib.Path(*row.package.split(".")) for row in METHODS.values()}
    alone = {row.command for row in METHODS.values() if len(trained_by(row.command)) == 1}
    commands = {ROOT / "tfi2i" / "commands" / f"{command}.py" for command in alone}
    files = [*(ROOT / "tfi2i").rglob("*.py"), *(ROOT / "export").rglob("*.py")]
    return [f for f in files if folders.isdisjoint(f.parents) and f not in commands]


def test_shared_rooms_name_no_flag_of_a_method():
    own, files = own_flags(), shared_rooms()
    assert {"pool_size", "ema_momentum", "toy_width"} <= own and not {"learning_rate", "crop", "seed"} & own
    assert ROOT / "tfi2i" / "training" / "summaries.py" in files
    found = [
        f"{path.relative_to(ROOT)}:{number}: --{flag}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for flag in re.findall(r"--(\w+)", line)
        if flag in own or flag.removeprefix("no") in own
    ]
    assert not found
