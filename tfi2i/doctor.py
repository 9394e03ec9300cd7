"""Looks at the pictures before hours are spent on them: what is there, what is wrong with it, and what to do.

  python -m tfi2i.doctor --a=photos --b=paintings
  python -m tfi2i.doctor --data=pictures --method=unit --crop=128

It takes the flags of tfi2i.train, reads every picture once, and changes nothing. The last lines say what to do.
"""

from absl import flags

from tfi2i import command, command_line, settings


def define_flags():
    """Declares the flags of this command."""
    command_line.define_train_flags()


def main(_):
    run = settings.resolve(flags.FLAGS.method, command_line.given_flags())
    command.import_tensorflow()
    from tfi2i.data.examine import examine_data

    facts, advice = examine_data(run.data)
    print("\n".join(facts))
    print("\nWhat to do:")
    print("\n".join(f"- {line}" for line in advice or ["Nothing: these pictures can be trained on."]))


def run():
    """Console entry point."""
    define_flags()
    command.run(main)


if __name__ == "__main__":
    run()
