"""How every command starts and fails.

Exit statuses: 0 done; 1 it failed; 2 the command line cannot be carried out, and nothing was begun; 130 Ctrl-C; 141 the
reader of the output went away. What training has beside these stands in `tfi2i.commands.train`.
"""

import errno
import logging as standard_logging
import os
import re
import sys

from absl import flags, logging

from tfi2i import machine, presets
from tfi2i.config import UserError, as_text, did_you_mean

FAILED, USAGE, INTERRUPTED, CLOSED = 1, 2, 130, 141

# Faults of disks and permissions, not of this program.
_OF_THE_MACHINE = (
    errno.EACCES, errno.EBUSY, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENAMETOOLONG, errno.ENOSPC, errno.EPERM,
    errno.EROFS, errno.ESTALE,
)  # fmt: skip

# Flags of the well-known codes → ours, or what to do instead. Those of training stand with the fields: `known_as`.
_ELSEWHERE = {
    **dict.fromkeys(("name", "checkpoints_dir", "checkpoint_dir", "logdir", "outdir"), "run_dir"),
    **dict.fromkeys(("results_dir", "result_dir", "output_dir"), "output"),
    **dict.fromkeys(("epoch", "which_epoch"), "checkpoint"),
    "which_direction": "direction",
    "model": "method",
    "num_test": "limit",
    "config": "flagfile",
    "gpu_ids": "all GPUs are used; CUDA_VISIBLE_DEVICES=0,1 chooses among them",
    "gpu": "all GPUs are used; CUDA_VISIBLE_DEVICES=0 chooses among them",
    "device": "GPUs are used where there are any; CUDA_VISIBLE_DEVICES= leaves the CPU",
    **dict.fromkeys(("continue_train", "resume"), "the same command with the same --run_dir goes on"),
    **dict.fromkeys(("num_threads", "num_workers"), "the number of reading threads is chosen by itself"),
    "phase": "tfi2i train learns, tfi2i translate translates",
}
_EXAMPLES = {"run_dir": "runs/mine", "input": "photos"}


class _Worded(standard_logging.Formatter):
    """ "warning: …", as commands print their own, in place of absl's date, thread and line of code."""

    def formatMessage(self, record):
        return f"{record.levelname.lower()}: {record.message}"


def run(main, positional=False):
    """Parses the command line and calls `main`; whatever goes wrong there is one line and an exit status.

    An exception for Ctrl-C that has a `status` has said what there is to say, and ends the command with that one.

    Args:
        main: function of the arguments that are no flags; a returned int is the exit status.
        positional: whether there may be such arguments.
    """
    # Names of files need not be UTF-8, and printing them must not end the work.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    machine.with_wrapped = False
    module = sys.modules[main.__module__]
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(_Worded())
    try:
        rest = _parse(sys.argv[1:], module)
        logging.set_verbosity(logging.WARNING)
        if rest and not positional:
            raise UserError(_no_flags(rest))
        status = main(rest)
        sys.stdout.flush()
        sys.exit(status)
    except BrokenPipeError:
        # The reader, `head` for one, has seen enough. What is still in the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED)
    except flags.Error as error:
        fail(_explained(error, module, flags.FLAGS, sys.argv[1:]), USAGE)
    except (UserError, FloatingPointError) as error:
        # Every command looks at its flags before it imports TensorFlow, and works after that.
        fail(str(error), FAILED if "tensorflow" in sys.modules else USAGE)
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        fail(f"{error.filename or 'a file'} cannot be read or written: {error.strerror}")
    except KeyboardInterrupt as stop:
        if not hasattr(stop, "status"):
            print("\nstopped", file=sys.stderr)
        sys.exit(getattr(stop, "status", INTERRUPTED))


def values_of(module, given):
    """The flags of a command as a call from Python gives them: parsed as a command line is, with its errors.

    Args:
        module: the command's, with `define_flags`.
        given: dict of flag name → value; None: not given. A flag that may be repeated takes a
            list or tuple, or a dict where its values are NAME=VALUE. The others win over those of `preset` and
            `flagfile`.

    Returns:
        `absl.flags.FlagValues`.

    Raises:
        UserError: the arguments are wrong.
    """
    values = flags.FlagValues()
    module.define_flags(values)
    words = []
    for name, value in sorted(given.items(), key=lambda item: item[0] not in presets.META):
        if name not in values and name not in presets.META:
            raise UserError(_unknown(name, list(values)))
        value = value.tolist() if hasattr(value, "tolist") else value  # numpy's
        if value is None:
            continue
        if isinstance(value, dict):
            value = [f"{key}={text}" for key, text in value.items()]
        several = isinstance(value, (list, tuple))
        if several and isinstance(values[name], flags.MultiFlag):
            words += [f"--{name}={one}" for one in value]
        elif several and isinstance(values[name].parser, flags.ListParser):
            words.append(f"--{name}={','.join(_quoted(str(one)) for one in value)}")
        else:
            words.append(f"--{name}={as_text(value)}")
    try:
        values(["tfi2i", *presets.expand(words)])
    except flags.Error as error:
        raise UserError(_explained(error, module, values)) from None
    return values


def _quoted(text):
    """A value of a list flag, which absl reads as a line of CSV."""
    doubled = text.replace('"', '""')
    return f'"{doubled}"' if set(text) & set(',"') else text


def fail(message, status=FAILED):
    """Prints `message` as an error and exits."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _parse(arguments, module):
    """Sets the flags; returns the arguments that are none. Prints the help of `module` and exits where it is asked for.

    Raises:
        flags.Error, UserError: the arguments are wrong.
    """
    asked = {a.lstrip("-") for a in arguments if a.startswith("-")} & {"h", "help", "helpshort", "helpfull"}
    if asked:
        # Of one module absl puts its name above, which says less than the docstring.
        own = flags.FLAGS.module_help(module).strip().partition(":")[2].lstrip("\n")
        print(f"{module.__doc__}\n{flags.FLAGS.get_help() if 'helpfull' in asked else own}")
        sys.exit(0)
    return flags.FLAGS([sys.argv[0], *presets.expand(arguments)])[1:]


def _no_flags(arguments):
    if len(arguments) > 1 and all(os.path.exists(a) for a in arguments):
        return (
            f"{arguments[0]} and {len(arguments) - 1} more are no flags: the shell has replaced a pattern by files; "
            "put it in quotes, as in --input='photos/*.jpg'"
        )
    name = _flag_of_runs(flags.FLAGS)
    if name and _is_run(arguments[0]):
        return f"'{arguments[0]}' is not a flag; did you mean --{name}={arguments[0]}?"
    return f"'{arguments[0]}' is not a flag: flags are written --name=value, and values with spaces in quotes"


def _flag_of_runs(values):
    """The flag that a run is meant for if it is given alone: --run_dir of distill is a new one. None: there is none."""
    return next((name for name in ("teacher", "run_dir") if name in values), None)


def _is_run(argument):
    from tfi2i import run_directory

    return os.path.isfile(run_directory.config_path(argument))  # Path.is_file raises of a word that is too long


def _explained(error, module, values, arguments=()):
    """What a user can do about an error of absl; `arguments` are those of the command line."""
    if isinstance(error, flags.UnrecognizedFlagError):
        own = values.get_key_flags_for_module(module)
        return _unknown(error.flagname, [f.name for f in own] + [f"no{f.name}" for f in own if f.boolean])
    missing = re.search(r"Flag --(\w+) must have a value other than None", str(error))
    if missing:
        name = missing[1]
        if name == _flag_of_runs(values) and (run := next(filter(_is_run, arguments), None)):
            return f"--{name} is missing: did you mean --{name}={run}?"
        example = f", e.g. --{name}={_EXAMPLES[name]}" if name in _EXAMPLES else ""
        return f"--{name} is missing: {values[name].help}{example}"
    illegal = re.match(r"flag --(\w+)=(.*?): ", str(error), re.DOTALL)
    if illegal:
        name, value = illegal.groups()
        choices = getattr(values[name].parser, "enum_values", None)
        if values[name].boolean:
            return f"--{name}={value}: expected no value: write --{name}, or --no{name}"
        if choices:
            return f"--{name}={value}: expected one of {', '.join(choices)}{did_you_mean(value, choices)}"
        expected = values[name].parser.syntactic_help
        if expected:
            return f"--{name}={value}: expected {expected}"
    return str(error)


def _unknown(name, known):
    from tfi2i import command_line

    plain = name.replace("-", "_")
    elsewhere = command_line.known_elsewhere() | _ELSEWHERE
    ours = plain if plain in known else elsewhere.get(plain, elsewhere.get(plain.lower()))
    if ours is None and command_line.is_of_training(plain):
        return f"--{name} is a flag of tfi2i train, and not of this command"
    if ours is None:
        return f"--{name} is not a flag of this command{did_you_mean(plain, known, '--') or '; --help lists them'}"
    if plain.startswith("no_") and f"no{ours}" in known:
        ours = f"no{ours}"
    if ours in known:
        return f"--{name} is not a flag of this command; did you mean --{ours}?"
    if ours.isidentifier():
        return f"--{name} is not a flag of this command; --help lists them"
    return f"--{name} is not a flag of this command: {ours}"
