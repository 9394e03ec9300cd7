"""Trains a method on two folders of images, and resumes a run that was stopped.

  tfi2i train --preset=cyclegan/horse2zebra --run_dir=runs/horse2zebra
  tfi2i train --preset=cyclegan/own_small --a=photos --b=paintings --run_dir=runs/mine
  tfi2i train --method=cyclegan --data=my_photos --epochs=50 --run_dir=runs/mine --dry_run

The same command resumes. Flags that a preset or flagfile sets can be given again after it: the later one wins.
--dry_run says what the run will cost, and fails where the run would.

Exit status: 0: trained to the end; 1: failed, see the error; 2: refused by its flags; 75: stopped after --max_hours
with a checkpoint, and the same command goes on; 130, 143: the same after Ctrl-C, SIGTERM.
"""

import dataclasses
import os
import time

from absl import flags

from tfi2i import command, command_line, machine, run_directory, settings
from tfi2i.config import UserError, local_path
from tfi2i.methods import METHODS


def define_flags(values):
    """Declares the flags of this command in `values`."""
    command_line.define_train_flags(values)
    command_line.define_preset(values)
    command_line.define_run_flags(values)
    flags.DEFINE_integer(
        "pretrain_steps",
        None,
        "with methods that have a pre-training: pre-train for this many steps in RUN_DIR-pretrain first, and start the "
        "generators from there",
        lower_bound=1,
        flag_values=values,
    )


def work(values):
    """Trains; returns the model, or None where the configuration is only printed."""
    method, run_dir = values.method, values.run_dir
    if method in METHODS and METHODS[method].command != "train":
        raise UserError(f"--method={method} has a command of its own: tfi2i {METHODS[method].command}")
    given, own, first = command_line.given_flags(values), {}, None
    if values.pretrain_steps:
        given, own = settings.split_pretraining(method, given)
    run = settings.resolve(method, given)
    if values.pretrain_steps:
        before = f"{local_path(run_dir, 'run_dir').rstrip(os.sep)}-pretrain"
        first = _pretraining(run, values.pretrain_steps, own)
        run = settings.resolve(method, given | {"pretrained": before})
    if values.print_config:
        print(run.to_json())
        return None
    machine.import_tensorflow()
    from tfi2i.training import loop
    from tfi2i.training.stopping import Interrupted

    if not first or run_directory.steps(before)[-1:] == [first.training.steps]:
        return loop.train(run, run_dir, values.dry_run)
    print(f"first the pre-training, in {before}", flush=True)
    began = time.monotonic()
    try:
        loop.train(first, before, values.dry_run)
    except Interrupted as stop:
        stop.model = None  # which is not the one that was asked for
        raise
    if values.dry_run:
        print("then the translation, timed before there is a pre-training, of which it warns", flush=True)
        run = settings.resolve(method, given)
    elif run.training.max_hours:
        left = max(1e-3, run.training.max_hours - (time.monotonic() - began) / 3600)
        run = dataclasses.replace(run, training=dataclasses.replace(run.training, max_hours=left))
    return loop.train(run, run_dir, values.dry_run)


def main(_):
    work(flags.FLAGS)


def _pretraining(run, steps, own):
    for name in ("pretrained", "init_from"):
        if getattr(run.training, name):
            raise UserError(f"--pretrain_steps and --{name} both say where to start from: give one of them")
    if run.training.task == "pretrain":
        raise UserError("--pretrain_steps is for a translation: leave --task=pretrain out, or give --steps")
    return settings.pretraining(run, steps, own)


def run():
    """Console entry point."""
    define_flags(flags.FLAGS)
    command.run(main)


if __name__ == "__main__":
    run()
