"""Presets: the flagfiles that come installed, one for each published data set and some for own pictures.

  tfi2i presets                             lists them
  tfi2i presets cyclegan                    lists those of one method
  tfi2i presets cyclegan/horse2zebra        prints one: its flags, where they are from, what it costs
  tfi2i train --preset=cyclegan/horse2zebra --run_dir=runs/horse2zebra

Flags after --preset win over the preset's.
"""

import difflib
import importlib.resources
import pathlib
import textwrap

from tfi2i.config import DURATIONS, IMAGES, OF_IMAGES, UserError, did_you_mean

META = ("flagfile", "preset")
_COMMAND_LINE = float("inf")
# Flags that say one thing in several ways → what is dropped with them where another way is taken.
_REPLACED = ((DURATIONS, DURATIONS), (IMAGES, (*OF_IMAGES, "swap_domains", "tfds_dir", "download")))


def folder():
    """The folder of the installed presets."""
    return pathlib.Path(str(importlib.resources.files("tfi2i.configs")))


def names():
    """The names of all presets, e.g. "cyclegan/horse2zebra", sorted."""
    return sorted(p.relative_to(folder()).with_suffix("").as_posix() for p in folder().rglob("*.flags"))


def path(name):
    """The flagfile of a preset.

    Raises:
        UserError: there is no preset of that name.
    """
    known = names()
    if name not in known:
        same = [n for n in known if n.rpartition("/")[2] == name]
        near = same or difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "'tfi2i presets' lists them"
        raise UserError(f"--preset={name}: there is no such preset; {hint}")
    return folder() / f"{name}.flags"


def title(name):
    """What a preset is for: the first paragraph of its header after the command."""
    lines = path(name).read_text(encoding="utf-8").splitlines()
    paragraphs = "\n".join(line.lstrip("# ") for line in lines if line.startswith("#")).split("\n\n")
    return " ".join(paragraphs[1].split())


def expand(arguments, within=()):
    """Puts the lines of flagfiles and presets in the places of --flagfile=FILE and --preset=NAME.

    Args:
        arguments: list of str, a command line without the command.
        within: the files that are being read.

    Returns:
        list of str, without --flagfile and --preset.

    Raises:
        UserError: a file that is not there, is no text, or contains itself.
    """
    found, origins, rest = [], [], iter(arguments)
    for argument in rest:
        name, equals, value = argument.lstrip("-").partition("=")
        if argument == "--":
            return [*_replaced(found, origins), argument, *rest]
        if not argument.startswith("-") or name not in META:
            found.append(argument)
            origins.append(_COMMAND_LINE)
            continue
        if not equals:
            value = next(rest, "")
        file = path(value) if name == "preset" else pathlib.Path(value).expanduser()
        if file in within:
            raise UserError(f"--{name}={value} contains itself: take that line out of {within[-1]}")
        lines = expand(_lines(file, f"--{name}={value}"), (*within, file))
        origins += [len(found)] * len(lines)
        found += lines
    return _replaced(found, origins)


def _replaced(words, origins):
    """Drops flags of files that a later file or the command line replaces under another name: --steps of a preset where
    --epochs is given, or --data where --a and --b are.

    Args:
        words: list of str.
        origins: for each word where it came from: a number that grows from file to file, or `_COMMAND_LINE`.
    """
    names = [word.lstrip("-").partition("=")[0] if word.startswith("-") else None for word in words]
    gone = set()
    for says, belongs in _REPLACED:
        said = {o: {name for name, origin in zip(names, origins) if name in says and origin == o} for o in set(origins)}
        last = max((origin for origin in said if said[origin]), default=None)
        for origin in said:
            if said[origin] and said[origin].isdisjoint(said[last]):
                gone |= {i for i, name in enumerate(names) if name in belongs and origins[i] == origin}
    return [word for i, word in enumerate(words) if i not in gone]


def _lines(file, given):
    """The lines of a flagfile that are neither empty nor comments, which begin with # or //."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        same = [n for n in names() if n == file.with_suffix("").as_posix().rpartition("configs/")[2]]
        hint = f"it comes installed as --preset={same[0]}" if same else "'tfi2i presets' lists what comes installed"
        raise UserError(f"{given} is not there; {hint}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{given} is no text in UTF-8: save it as such") from error
    except OSError as error:
        raise UserError(f"{given} cannot be read: {error.strerror}") from error
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(("#", "//"))]


def main(arguments):
    for name in arguments:
        if name in names():
            print(path(name).read_text(encoding="utf-8"), end="")
            return
    chosen = [n for n in names() if not arguments or n.partition("/")[0] in arguments]
    if not chosen:
        methods = sorted({n.partition("/")[0] for n in names()})
        near = "/" not in arguments[0] and did_you_mean(arguments[0], methods)
        if near:
            raise UserError(f"{arguments[0]}: there is no such preset, nor a method{near}")
        path(arguments[0])
    width = max(map(len, chosen))
    # Those to begin with come first.
    for name in sorted(chosen, key=lambda n: ("/" in n, "/own" not in n, n)):
        print(f"{name:{width}}  {textwrap.shorten(title(name), 110 - width, placeholder=' ...')}")


def run():
    """Console entry point."""
    from tfi2i import command

    command.run(main, positional=True)


if __name__ == "__main__":
    run()
