"""Trains a method on two folders of images, and resumes a run that was stopped.

  python -m tfi2i.train --flagfile=configs/cyclegan/horse2zebra.flags --run_dir=runs/horse2zebra
  python -m tfi2i.train --method=cyclegan --data=my_photos --epochs=50 --run_dir=runs/mine

The same command resumes. Flags that a flagfile sets can be given again after it: the later one wins.
"""

from absl import flags

from tfi2i import command, command_line, settings
from tfi2i.config import UserError
from tfi2i.methods import METHODS


def define_flags():
    """Declares the flags of this command."""
    command_line.define_train_flags()
    command_line.define_preset()
    flags.DEFINE_string("run_dir", None, "folder of the run: configuration, checkpoints, samples, logs", required=True)
    flags.DEFINE_bool("dry_run", False, "print the resolved configuration as JSON and stop")


def main(_):
    method = flags.FLAGS.method
    if method in METHODS and METHODS[method].command != "train":
        raise UserError(f"--method={method} has a command of its own: python -m tfi2i.{METHODS[method].command}")
    run = settings.resolve(method, command_line.given_flags())
    if flags.FLAGS.dry_run:
        print(run.to_json())
        return
    command.import_tensorflow()
    from tfi2i.training import loop

    try:
        loop.train(run, flags.FLAGS.run_dir)
    except loop.Interrupted as stop:
        return 128 + stop.signal


def run():
    """Console entry point."""
    define_flags()
    command.run(main)


if __name__ == "__main__":
    run()
