"""absl flags from dataclasses: one definition per name, with the default None for "not given".

A flag that several methods have is one flag. `--help` shows the flags of the method that the command line names, with
that method's texts, defaults and choices.
"""

import dataclasses
import shlex
import sys
import textwrap
import types
import typing

from absl import flags

from tfi2i import presets
from tfi2i.config import Size, Training, UserError, as_text, parse_size
from tfi2i.methods import METHODS, trained_by

# Flags that this module declares for a command are the command's own, for --help.
flags.disclaim_key_flags()


def define_train_flags(values, arguments=None, command="train"):
    """Declares `--method` and the fields of all methods that a command trains, of their data, and of `Training`.

    Args:
        values: where they are declared, an `absl.flags.FlagValues`.
        arguments: the command line, whose `--method` and `--task` decide which flags `--help` shows; None: sys.argv.
        command: "train" or "adapt"; the first of its methods is the default.
    """
    able = trained_by(command)
    first = next(iter(able))
    flags.DEFINE_string(
        "method",
        first,
        f"one of {', '.join(able)}; --method=NAME --help shows the flags of that one",
        flag_values=values,
    )
    asked = _asked(sys.argv if arguments is None else arguments)
    shown = able.get(asked.get("method"), able[first])
    shown = shown.of_task(asked.get("task", "translate")) or shown
    _define(values, shown.config_class, [row.config_class for row in _rows(able)])


def define_only_method(values, command):
    """Declares the fields of the one method that a command such as "distill" trains."""
    (method,) = trained_by(command).values()
    _define(values, method.config_class)


def define_run_flags(values):
    """Declares the flags that every command that trains has beside the configuration."""
    flags.DEFINE_string(
        "run_dir",
        None,
        "folder of the run: configuration, checkpoints, samples, logs",
        required=True,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "dry_run",
        False,
        "open the data, build the model, take three steps of each kind, print what the run will cost; write nothing",
        flag_values=values,
    )
    flags.DEFINE_bool("print_config", False, "print the resolved configuration as JSON and stop", flag_values=values)


def given_flags(values):
    """The flags of the dataclasses that the user set, as a dict of name to value."""
    names = {field.name for field in _fields()} & set(values)
    return {n: values[n].value for n in sorted(names) if values[n].value is not None}


def of_preset(name):
    """The flags of the dataclasses that a preset sets, as `given_flags` gives them."""
    values = flags.FlagValues()
    define_train_flags(values, [])
    values(["tfi2i", *presets.expand([f"--preset={name}"])])
    return given_flags(values)


def known_elsewhere():
    """dict of name in one of the well-known codes → flag of this package."""
    return {name: field.name for field in _fields() for name in field.metadata["known_as"]}


def is_of_training(name):
    """Whether `tfi2i train` has a flag of this name, for some method."""
    return name in {field.name for field in _fields()}


def flags_text(method, given):
    """A flagfile that gives the same run again.

    Args:
        method: a name in `methods.METHODS`.
        given: dict of flag name to value.
    """
    lines = [f"--method={method}"] if len(trained_by(METHODS[method].command)) > 1 else []
    for name, value in given.items():
        if isinstance(value, bool):
            lines.append(f"--{name}" if value else f"--no{name}")
        else:
            lines.append(f"--{name}={as_text(value)}")
    return "\n".join(lines) + "\n"


def command(method, given, run_dir):
    """The command that starts a run, in one line for a shell.

    Args:
        method: a name in `methods.METHODS`.
        given: dict of flag name to value.
        run_dir: value of --run_dir.
    """
    words = [*flags_text(method, given).splitlines(), f"--run_dir={run_dir}"]
    return shlex.join(["tfi2i", METHODS[method].command, *words])


def every_flag(run):
    """All flags of a `settings.Run` that have a value, those at their default too, as a paragraph for people."""
    values = {}
    for part in (run.model, run.data, run.training):
        values |= {n: v for n, v in dataclasses.asdict(part).items() if v is not None}
    return textwrap.fill(shlex.join(flags_text(run.method, values).splitlines()), 120, break_on_hyphens=False)


def _rows(table):
    """The methods of a table and their pre-trainings."""
    return [row.of_task(task) for row in table.values() for task in ("translate", "pretrain") if row.of_task(task)]


def _fields():
    """The fields of what all methods are trained with."""
    kinds = [row.config_class for row in _rows(METHODS)]
    parts = dict.fromkeys([Training, *kinds, *(kind.data_class for kind in kinds)])
    return [field for kind in parts for field in dataclasses.fields(kind)]


def define_preset(values):
    """Declares `--preset`, which `command.run` replaces by its lines before flags are parsed."""
    flags.DEFINE_string(
        "preset",
        None,
        "start from the flags of an installed preset, e.g. cyclegan/horse2zebra: see 'tfi2i presets'",
        flag_values=values,
    )


def _asked(arguments):
    """dict of `method` and `task` as the arguments, with the flagfiles and presets that they name, give them."""
    try:
        arguments = presets.expand(list(arguments))
    except UserError:  # the command says so when it parses them
        pass
    asked = {}
    for before, argument in zip(["", *arguments], arguments):
        for name in ("method", "task"):
            if argument.lstrip("-").startswith(f"{name}="):
                asked[name] = argument.partition("=")[2]
            elif before.lstrip("-") == name and before.startswith("-"):
                asked[name] = argument
    return asked


def _define(values, shown, others=()):
    """Declares the fields of what methods are trained with.

    Args:
        values: where they are declared.
        shown: the `Hyperparameters` whose flags `--help` shows.
        others: those of further methods, whose own flags only `--helpfull` shows.
    """
    declared = {}
    for method in (shown, *others):
        for kind in (method, method.data_class, Training):
            for field in dataclasses.fields(kind):
                declared.setdefault(field.name, (field, method))
    for field, method in declared.values():
        _define_one(values, field, _help(field, method), None if method is shown else __name__)


def _help(field, method):
    """A field's choices and text, with its default in brackets: the method's recipe or variants before the field's own.

    Choices are checked by the dataclass: a flag that several methods have takes other ones with each.
    """
    name = field.name
    default = method.recipe.get(name, field.default)
    of_variants = {variant: as_text(values[name]) for variant, values in method.variants.items() if name in values}
    if name in method.follows:
        default = f"--{method.follows[name]}"
    elif len(of_variants) == len(method.variants) and len(set(of_variants.values())) == 1:
        (default,) = set(of_variants.values())
    elif of_variants:
        default = ", ".join(f"{variant}: {value}" for variant, value in of_variants.items())
    choices = field.metadata["choices"]
    choices = f"<{'|'.join(map(str, choices))}>: " if choices else ""
    return choices + field.metadata["help"] + ("" if default is None else f" [{as_text(default)}]")


def _define_one(values, field, help, module_name):
    """Declares one flag as of the module of that name; None: of the command that is being defined."""
    hint, where = field.type, {"module_name": module_name}
    if isinstance(hint, types.UnionType):
        hint = next(t for t in typing.get_args(hint) if t is not type(None))
    if hint is bool:
        flags.DEFINE_bool(field.name, None, help, **where, flag_values=values)
    elif hint is int:
        flags.DEFINE_integer(field.name, None, help, **where, flag_values=values)
    elif hint is float:
        flags.DEFINE_float(field.name, None, help, **where, flag_values=values)
    elif hint is str:
        flags.DEFINE_string(field.name, None, help, **where, flag_values=values)
    elif hint == Size:
        flags.DEFINE(_SizeParser(), field.name, None, help, serializer=_TupleSerializer(), **where, flag_values=values)
    else:
        flags.DEFINE(
            _ColourParser(), field.name, None, help, serializer=_TupleSerializer(), **where, flag_values=values
        )


class _SizeParser(flags.ArgumentParser):
    syntactic_help = "a size: N or H,W"

    def parse(self, argument):
        return parse_size(argument)

    def flag_type(self):
        return "N or H,W"


class _ColourParser(flags.ArgumentParser):
    syntactic_help = "a colour: R,G,B"

    def parse(self, argument):
        return tuple(int(p) for p in argument.split(",")) if isinstance(argument, str) else tuple(argument)

    def flag_type(self):
        return "R,G,B"


class _TupleSerializer(flags.ArgumentSerializer):
    def serialize(self, value):
        return as_text(value)
