"""Flags of absl that only one test sees."""

import contextlib
import functools

import pytest
from absl import flags


@contextlib.contextmanager
def own_flags():
    """While open, flags that are defined go into a new `FlagValues`, which it yields and which is `flags.FLAGS`."""
    mine = flags.FlagValues()
    with pytest.MonkeyPatch.context() as patch:
        for name in (n for n in dir(flags) if n.startswith("DEFINE") and n != "DEFINE_flag"):
            patch.setattr(flags, name, functools.partial(getattr(flags, name), flag_values=mine))
        patch.setattr(flags, "FLAGS", mine)
        yield mine


def call(module, *arguments):
    """Runs a command's `main` in this process, without TensorFlow's start and without what `command.run` does.

    Args:
        module: has `define_flags` and `main`.
        *arguments: of the command line.
    """
    with own_flags() as mine:
        module.define_flags(mine)
        mine(["command", *map(str, arguments)])
        return module.main([])
