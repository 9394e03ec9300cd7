"""The pages of the reference that are written from the flags and the presets."""

import pathlib
import runpy

import pytest
from absl import flags

from tfi2i import presets
from tfi2i.__main__ import COMMANDS

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(ROOT / "tools" / "make_reference.py"))


@pytest.fixture(scope="module")
def written(tool):
    declared = set(flags.FLAGS)
    pages = tool["pages"]()
    assert set(flags.FLAGS) == declared
    return pages


def test_the_reference_is_what_the_flags_and_presets_say(written):
    for path, text in written.items():
        there = path.read_text(encoding="utf-8")
        assert there == text, f"{path.name} is old: python tools/make_reference.py"


def test_the_reference_has_every_command_and_preset(written):
    commands, configurations = written.values()
    for name in COMMANDS:
        assert f"\n## tfi2i {name}\n" in commands
    for name in presets.names():
        assert f"\n### `{name}`\n" in configurations
    assert "| `--[no]light` |  | off | compute gamma" in commands
    assert "| `--run_dir` | text | required | folder of the run" in commands
    assert "| `--unit_variant` | `paper`, `2018` | paper | paper: shared latent space" in commands


def test_a_row_says_what_a_flag_takes_and_its_default(tool):
    values = flags.FlagValues()
    flags.DEFINE_string("fit", None, "<pad|tile>: how --size is met | or *not* [pad]", flag_values=values)
    flags.DEFINE_integer("rows", 24, "rows, see --fit=pad.", flag_values=values)
    flags.DEFINE_bool("keep", None, "keep it (default: by method)", flag_values=values)
    assert tool["_row"](values["fit"]) == "| `--fit` | `pad`, `tile` | pad | how `--size` is met \\| or \\*not\\* |"
    assert tool["_row"](values["rows"]) == "| `--rows` | integer | 24 | rows, see `--fit=pad`. |"
    assert tool["_row"](values["keep"]) == "| `--[no]keep` |  | by method | keep it |"
