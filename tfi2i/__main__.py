"""The command `tfi2i`: every command of this package under one name."""

import difflib
import importlib
import importlib.metadata
import platform
import sys

from tfi2i import __version__, command

# Name → module and what it does, in the order in which they are used.
COMMANDS = {
    "presets": ("tfi2i.presets", "list the configurations that come installed"),
    "doctor": ("tfi2i.commands.doctor", "look at pictures and machine, and say what training will cost"),
    "train": (
        "tfi2i.commands.train",
        "learn to translate between two folders of pictures, or go on with a stopped run",
    ),
    "translate": ("tfi2i.commands.translate", "translate pictures with a trained model"),
    "evaluate": ("tfi2i.commands.evaluate", "measure and show how good translations are"),
    "export": ("tfi2i.export.__main__", "make files for TF Serving, phones and browsers, each compared with the model"),
    "convert": ("tfi2i.commands.convert", "take over a published checkpoint, or write one"),
    "pack": ("tfi2i.commands.pack", "write a trained model as one archive to hand on"),
    "distill": ("tfi2i.commands.distill", "make a small network for phones that has learned from a trained model"),
    "adapt": ("tfi2i.commands.adapt", "learn to recognise digits without labels (domain adaptation)"),
}
_SHOWN = ("tensorflow", "keras", "numpy", "ai-edge-litert")


def usage():
    """The text of `tfi2i --help`."""
    lines = ["usage: tfi2i COMMAND [--flag=value ...]", ""]
    lines += [f"  {name:10} {text}" for name, (_, text) in COMMANDS.items()]
    lines += [f"  {'version':10} versions of this package and of what it stands on", ""]
    lines += ["'tfi2i COMMAND --help' explains one. Begin with a picture in minutes, or with your own:", ""]
    lines += ["  tfi2i train --preset=quickstart --run_dir=runs/quickstart"]
    lines += ["  tfi2i train --preset=cyclegan/own_small --a=photos --b=paintings --run_dir=runs/mine"]
    return "\n".join(lines)


def version():
    """The text of `tfi2i version`."""
    lines = [f"tfi2i {__version__}", f"Python {platform.python_version()} on {platform.platform()}"]
    for name in _SHOWN:
        try:
            lines.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{name} is not installed")
    return "\n".join(lines)


def run():
    """Console entry point."""
    name, arguments = (sys.argv[1] if len(sys.argv) > 1 else None), sys.argv[2:]
    if name in ("-h", "--help", "help"):
        print(usage())
    elif name in ("version", "--version"):
        print(version())
    elif name in COMMANDS:
        sys.argv = [f"tfi2i {name}", *arguments]
        importlib.import_module(COMMANDS[name][0]).run()
    elif name is None:
        print(usage(), file=sys.stderr)
        sys.exit(command.USAGE)
    else:
        near = difflib.get_close_matches(name, [*COMMANDS, "version"], n=1)
        hint = f"did you mean 'tfi2i {near[0]}'?" if near else f"expected one of {', '.join(COMMANDS)}, version"
        command.fail(f"'{name}' is not a command of tfi2i: {hint}", command.USAGE)


if __name__ == "__main__":
    run()
