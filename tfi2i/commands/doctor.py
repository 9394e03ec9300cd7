"""Looks at pictures and machine before hours are spent: what is there, what is wrong with it, what training costs here.

  tfi2i doctor                                                   the machine alone
  tfi2i doctor --a=photos --b=paintings --preset=cyclegan/own_small
  tfi2i doctor --data=pictures --method=unit --crop=128 --noprice

It takes the flags of tfi2i train, reads every picture once, takes three steps of each kind for the price, and changes
nothing. The last lines say what to do.
"""

import itertools
import os

from absl import flags

from tfi2i import command, command_line, machine, settings
from tfi2i.config import IMAGES


def define_flags(values):
    """Declares the flags of this command in `values`."""
    command_line.define_train_flags(values)
    command_line.define_preset(values)
    flags.DEFINE_bool(
        "price",
        True,
        "take three steps of each kind and say what the whole training costs here, as train --dry_run",
        flag_values=values,
    )


def main(_):
    run = settings.resolve(flags.FLAGS.method, command_line.given_flags(flags.FLAGS))
    machine.import_tensorflow()
    from tfi2i.data.examine import examine_data
    from tfi2i.machine_report import examine_machine
    from tfi2i.training import loop

    print("The machine:")
    print("\n".join(f"  {line}" for line in examine_machine()), flush=True)
    data = run.data
    if not any(getattr(data, name) for name in IMAGES):
        print(
            "\nWhat to do:\n- Give --a=FOLDER and --b=FOLDER, --ab=FOLDER or --data=FOLDER, to have the pictures "
            "looked at too."
        )
        return
    facts, advice = examine_data(data)
    print("\nThe pictures:")
    print("\n".join(f"  {line}" for line in facts), flush=True)
    if flags.FLAGS.price:
        print("\nThe price:", flush=True)
        loop.train(run, _new_run_dir(), dry_run=True)
    print("\nWhat to do:")
    print("\n".join(f"- {line}" for line in advice or ["Nothing: these pictures can be trained on."]))


def _new_run_dir():
    """Where a run could go that does not exist yet."""
    names = (f"runs/mine{n or ''}" for n in itertools.count())
    return next(name for name in names if not os.path.exists(name))


def run():
    """Console entry point."""
    define_flags(flags.FLAGS)
    command.run(main)


if __name__ == "__main__":
    run()
