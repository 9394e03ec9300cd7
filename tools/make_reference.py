"""Writes the reference of commands and presets, `docs/reference/commands.md` and `presets.md`.

    python tools/make_reference.py

The texts are those of --help and of the presets' headers: change them there, then write the pages again. A test
compares the pages with what this tool would write. No TensorFlow is imported.
"""

import importlib
import itertools
import pathlib
import re
import sys
import textwrap

from absl import flags

from tfi2i import presets
from tfi2i.__main__ import COMMANDS
from tfi2i.methods import trained_by

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "docs" / "reference"

_COMMANDS = """# Commands and their flags

This page lists every command of `tfi2i` with all its flags and their defaults, as `tfi2i COMMAND --help` prints them.
It is written by `python tools/make_reference.py` from the flags themselves.

- Flags are written `--name=value`. A flag `--[no]name` is switched on by `--name` and off by `--noname`.
- `--preset=NAME` and `--flagfile=FILE` read many flags. When a flag is given twice, the later one counts.
- A size is `N` for a square, or `H,W` for height and width, in pixels.

| command | what it does |
|---|---|
{commands}
| `tfi2i version` | print the versions of this package and of the packages that it depends on |
{sections}

## Next

- [Presets](presets.md) lists the flagfiles that come installed.
- [Exit codes](exit_codes.md) says what the status of a command means.
- [The run directory](run_directory.md) says what training writes.
"""
_PRESETS = """# Presets

A preset is a file of flags that comes installed. This page lists all of them: what each one learns, which data it
needs, what it costs, and which result to expect. It is written by `python tools/make_reference.py` from the headers of
the files. The files also name the source of every number: `tfi2i presets NAME` prints one.

Flags that you give after `--preset=NAME` win over those of the preset.
{sections}

## Next

- [Choose size, time and GPU](../how-to/size_time_gpu.md) helps to make a preset cheaper.
- [Commands and their flags](commands.md) explains the flags that a preset sets.
"""
# The parts of a preset's header that a reader needs before it is used; the files have the others.
_PARTS = ("Start", "Data", "Steps", "Duration", "Cost", "Expect", "Larger")
_KINDS = {"int": "integer", "float": "number", "comma separated list of strings": "list with commas"}
_FLAG = re.compile(r"--(?:\[no\])?\w+(?:=[^\s,;:()]*[^\s,;:().])?(?![\w=])")


def pages():
    """dict of path → the text that the page should have."""
    return {FOLDER / "commands.md": commands_page(), FOLDER / "presets.md": presets_page()}


def commands_page():
    """The text of commands.md."""
    lines, sections = [], []
    for name, (path, text) in COMMANDS.items():
        module = importlib.import_module(path)
        lines.append(f"| [`tfi2i {name}`](#tfi2i-{name}) | {_cell(text)} |")
        sections += ["", f"## tfi2i {name}", "", *_prose(module.__doc__), *_flags_of(name, module)]
    return _COMMANDS.format(commands="\n".join(lines), sections="\n".join(sections))


def _flags_of(name, module):
    """The tables of one command's flags."""
    if not hasattr(module, "define_flags"):
        return []
    if len(trained_by(name)) > 1:
        return _flags_of_methods(name, module)
    own, trained = _rows(module), _rows(importlib.import_module(COMMANDS["train"][0]))
    if sum(trained.get(flag) == row for flag, row in own.items()) < len(own) / 2:
        return ["", *_table(own)]
    absent = ", ".join(f"`--{flag}`" for flag in trained if flag not in own)
    more = {flag: row for flag, row in own.items() if trained.get(flag) != row}
    return [
        "",
        "Its flags are those of [tfi2i train](#tfi2i-train) and the following. It does not take",
        f"{absent}.",
        "",
        *_table(more),
    ]


def _flags_of_methods(name, module):
    """The tables of training: what is the same with every method, then the rest of each."""
    tables = {}
    for method, row in trained_by(name).items():
        tables[f"--method={method}"] = _rows(module, f"--method={method}")
        if row.pretraining:
            words = f"--method={method}", "--task=pretrain"
            tables[" ".join(words)] = _rows(module, *words)
    first = next(iter(tables.values()))
    shared = {flag: row for flag, row in first.items() if all(t.get(flag) == row for t in tables.values())}
    lines = ["", "### Flags of every method", "", *_table(shared)]
    for words, rows in tables.items():
        lines += ["", f"### `{words}`", "", "The other flags and their defaults here:", ""]
        lines += _table({flag: row for flag, row in rows.items() if flag not in shared})
    return lines


def _rows(module, *arguments):
    """dict of flag → its row in a table, of the flags that --help of a command shows after these arguments."""
    values, argv = flags.FlagValues(), sys.argv
    sys.argv = ["tfi2i", *arguments]
    try:
        module.define_flags(values)
        shown = values.get_key_flags_for_module(module.__name__)
        return {flag.name: _row(flag) for flag in sorted(shown, key=lambda flag: flag.name)}
    finally:
        sys.argv = argv


def _row(flag):
    """One row: the flag, what it takes, its default, what it is for."""
    choices, text = re.match(r"(?:<([^>]*)>: )?(.*)", flag.help, re.DOTALL).groups()
    said = re.search(r" (?:\(default: ([^()]+)\)|\[([^\[\]]+)\]$)", text)
    default = flag.default
    if default in (None, []):
        default = next(filter(None, said.groups())) if said else ""
        text = text[: said.start()] + text[said.end() :] if said else text
    required = any("other than None" in str(check.message) for check in flag.validators)
    default = "required" if required else {"True": "on", "False": "off"}.get(str(default), default)
    default = ",".join(map(str, default)) if isinstance(default, (list, tuple)) else str(default)
    values = choices.split("|") if choices else getattr(flag.parser, "enum_values", None)
    if flag.boolean:
        takes = ""
    elif values:
        takes = ", ".join(f"`{value}`" for value in values)
    else:
        takes = _KINDS.get(flag.flag_type()) or flag.parser.syntactic_help.partition(": ")[2] or "text"
    name = f"`--[no]{flag.name}`" if flag.boolean else f"`--{flag.name}`"
    return f"| {name} | {takes} | {_cell(default)} | {_cell(text)} |"


def _table(rows):
    return ["| flag | takes | default | what it does |", "|---|---|---|---|", *rows.values()]


def _cell(text):
    """Text for a cell of a table: flags as code, and nothing that Markdown takes for markup."""
    return _escaped(" ".join(text.split())).replace("|", "\\|")


def _wrapped(text):
    """A paragraph of Markdown in lines of 120."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _escaped(text):
    pieces, end = [], 0
    for found in _FLAG.finditer(text):
        pieces += [_plain(text[end : found.start()]), f"`{found[0]}`"]
        end = found.end()
    return "".join([*pieces, _plain(text[end:])])


def _plain(text):
    return re.sub(r"(\*|<|(?<![^\s(])_|\^)", r"\\\1", text)


def _prose(text):
    """The docstring of a command: paragraphs, and what is indented as code."""
    lines = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        rows = paragraph.splitlines()
        if not rows[0].startswith("  "):
            lines += ["", _wrapped(_escaped(" ".join(rows)))]
            continue
        if not rows[0].startswith("  tfi2i "):
            lines += ["", "```text", *(row.removeprefix("  ") for row in rows), "```"]
            continue
        commands = []
        for row in rows:
            if row.startswith("   "):
                commands[-1] += " \\"  # the docstring has it in two lines for its width
            indent = "    " if row.startswith("   ") else ""
            commands.append(indent + re.sub(r"(\S) {2,}(\S)", r"\1  # \2", row.strip()))
        lines += ["", "```bash", *commands, "```"]
    return lines[1:]


def presets_page():
    """The text of presets.md."""
    groups = {}
    for name in sorted(presets.names(), key=lambda name: ("/" in name, name)):
        groups.setdefault(name.rpartition("/")[0], []).append(name)
    sections = []
    for group, names in groups.items():
        sections += ["", f"## {group}" if group else "## To begin with", "", "| preset | what it is |", "|---|---|"]
        sections += [f"| [`{n}`](#{re.sub('[^a-z0-9_-]', '', n)}) | {_cell(_signs(presets.title(n)))} |" for n in names]
        for name in names:
            sections += ["", f"### `{name}`", "", *_preset(name)]
    return _PRESETS.format(sections="\n".join(sections))


def _preset(name):
    """The command and the parts of one preset's header."""
    lines = presets.path(name).read_text(encoding="utf-8").splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    command, _, *header = [line.removeprefix("#").removeprefix(" ") for line in lines[:end]]
    parts = {}
    for line in header:
        label, text = re.match(r"(?:([A-Z][\w ]*):\s*)?(.*)", line).groups()
        if label:
            part = parts.setdefault(label, [])
        if parts:
            part.append(_signs(text))
    found = ["```bash", command, "```"]
    for label in _PARTS:
        if label in parts:
            found += _part(label, parts[label])
    return [*found, "", f"[The file](../../configs/{name}.flags)"]


def _part(label, rows):
    """One part of a header: prose as a paragraph, columns as they stand."""
    found, label = [], f"**{label}.** "
    for columns, group in itertools.groupby(rows, lambda row: bool(re.search(r"\S {3,}\S", row))):
        if columns:
            found += ["", "```text", *textwrap.dedent("\n".join(group)).splitlines(), "```"]
        else:
            found += ["", _wrapped(label + _escaped(" ".join(" ".join(group).split())))]
            label = ""
    return found


def _signs(text):
    """The ASCII of flagfiles with the signs that it stands for."""
    return text.replace("<->", "↔").replace("->", "→").replace("+-", "±")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(f"written {path}")
