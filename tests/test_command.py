"""The command line: one name for all commands, presets, what is said about wrong flags, and exit statuses."""

import importlib
import subprocess
import sys

import pytest

from tests.own_flags import own_flags
from tfi2i import __main__ as tfi2i_command
from tfi2i import command, command_line, machine, presets
from tfi2i.config import UserError, did_you_mean


def start(*arguments, module="tfi2i"):
    return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)


def said(monkeypatch, capsys, *arguments):
    """What `tfi2i` prints and its exit status, in this process; commands end before their work."""
    monkeypatch.setattr(sys, "argv", ["tfi2i", *arguments])
    with own_flags(), pytest.raises(SystemExit) as end:
        tfi2i_command.run()
    out, error = capsys.readouterr()
    return end.value.code, out, error


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["train", "--help"], ["train", "-h", "--preset=unit/maps"]])
def test_help_is_no_failure(arguments):
    done = start(*arguments)
    assert done.returncode == 0 and not done.stderr
    assert ("usage: tfi2i COMMAND" in done.stdout) == (arguments[0] != "train")
    assert ("--shared_blocks" in done.stdout) == ("--preset=unit/maps" in arguments)


def test_every_command_has_help(monkeypatch, capsys):
    for name, (module, _) in tfi2i_command.COMMANDS.items():
        status, out, error = said(monkeypatch, capsys, name, "--help")
        assert not status and not error and out.startswith(sys.modules[module].__doc__)
    assert start("--help", module="tfi2i.train").stdout == start("train", "--help").stdout


def test_versions():
    done = start("version")
    assert done.returncode == 0 and done.stdout.startswith("tfi2i ") and "\ntensorflow 2." in done.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["trian"], "did you mean 'tfi2i train'?"),
        (["train"], "--run_dir is missing: folder of the run"),
        (["train", "--run_dir=x", "--batch_size=many"], "--batch_size=many: expected an integer"),
        (["train", "--run_dir=x", "--method=Unit", "--data=x"], "did you mean --method=unit?"),
        (["train", "--run_dir=x", "--data=x", "--light"], "not a flag of --method=cyclegan, it belongs to --method=u"),
        (["train", "--run_dir=x", "--data=x", "--lr_schedule=Linear"], "did you mean linear?"),
        (["train", "--run_dir=x", "--data=x", "--direction=b2a"], "to --method=pix2pix, simgan, cartoongan; its own"),
        (["train", "--run_dir=x", "data"], "'data' is not a flag: flags are written --name=value, and values with sp"),
        (["train", "--run_dir=x", "--remat=yes"], "--remat=yes: expected no value: write --remat, or --noremat"),
        (["evaluate", "--run_dir=x", "--data=nowhere"], "--data=nowhere does not exist: expected a folder of pictures"),
        (["export", "--run_dir=x", "--output=y", "--a=tests", "--b=nowhere"], "--b=nowhere does not exist"),
        (["export", "--run_dir=x", "--remat"], "--remat is a flag of tfi2i train, and not of this command"),
        (["evaluate", "--split=Test"], "--split=Test: expected one of test, val; did you mean test?"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_out_is_one_line_and_status_2(arguments, words, tmp_path):
    done = start(*arguments)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert words in done.stderr and not done.stdout


@pytest.mark.parametrize(
    "flag, words",
    [
        ("--lr=1", "did you mean --learning_rate?"),
        ("--learning-rate=1", "did you mean --learning_rate?"),
        ("--no_dropout", "did you mean --nodropout?"),
        ("--batchSize=1", "did you mean --batch_size?"),
        ("--lambda_A=1", "did you mean --lambda_a?"),
        ("--dataroot=x", "did you mean --data?"),
        ("--gpu_ids=0", "CUDA_VISIBLE_DEVICES"),
        ("--continue_train", "the same command"),
        ("--learning_rat=1", "did you mean --learning_rate?"),
        ("--xyzzy=1", "--help lists them"),
    ],
)
def test_flags_of_other_codes_lead_to_ours(flag, words, monkeypatch, capsys):
    status, out, error = said(monkeypatch, capsys, "train", "--run_dir=x", flag)
    assert status == command.USAGE and not out
    assert error.startswith(f"error: {flag.partition('=')[0]} is not a flag of this command") and words in error


def test_names_of_other_codes_are_no_flags_of_ours():
    ours = {field.name for field in command_line._fields()}
    assert not ours & set(command_line.known_elsewhere())


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["export"], "--run_dir is missing: did you mean --run_dir={run}?"),
        (["evaluate"], "'{run}' is not a flag; did you mean --run_dir={run}?"),
        (["distill", "--run_dir=x"], "'{run}' is not a flag; did you mean --teacher={run}?"),
        (["distill"], "--run_dir is missing: folder of the run"),  # a new one
    ],
)
def test_a_run_alone_is_asked_about(arguments, words, tmp_path, monkeypatch, capsys):
    (tmp_path / "config.json").touch()
    name, *others = arguments
    assert f"error: {words.format(run=tmp_path)}" in said(monkeypatch, capsys, name, str(tmp_path), *others)[2]


def test_a_pattern_that_the_shell_replaced(monkeypatch, capsys, tmp_path):
    names = [str(tmp_path / n) for n in ("b.png", "c.png")]
    for name in names:
        open(name, "w").close()
    arguments = ["translate", "--run_dir=x", f"--input={tmp_path}/a.png", "--output=y", *names]
    assert "in quotes" in said(monkeypatch, capsys, *arguments)[2]


def test_warnings_are_words(tmp_path):
    program = "import logging; from tfi2i import command\ncommand.run(lambda rest: logging.warning('3 %s', 'left out'))"
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run([sys.executable, tmp_path / "program.py"], capture_output=True, text=True, check=True)
    assert done.stderr == "warning: 3 left out\n"


def test_near_values_whatever_their_case():
    assert did_you_mean("Cosine", ("cosine", "linear")) == "; did you mean cosine?"
    assert did_you_mean("zzz", ("cosine", "linear")) == ""


# --------------------------------------------------------------------------------------------------------- presets


def test_presets_are_listed_and_shown(monkeypatch, capsys):
    status, out, _ = said(monkeypatch, capsys, "presets")
    listed = [line.split()[0] for line in out.splitlines()]
    assert not status and listed[0] == "quickstart" and sorted(listed) == presets.names()
    assert "Horses <-> zebras" in out
    _, out, _ = said(monkeypatch, capsys, "presets", "ugatit")
    assert {line.partition("/")[0] for line in out.splitlines()} == {"ugatit"}
    _, out, _ = said(monkeypatch, capsys, "presets", "quickstart")
    assert out == (presets.folder() / "quickstart.flags").read_text()
    status, _, error = said(monkeypatch, capsys, "presets", "cycelgan/maps")
    assert status and "did you mean cyclegan/maps" in error
    status, _, error = said(monkeypatch, capsys, "presets", "munti")
    assert status and error == "error: munti: there is no such preset, nor a method; did you mean munit?\n"


def test_flagfiles_and_presets_are_put_in_their_place(tmp_path):
    (tmp_path / "inner.flags").write_text("// also a comment\n--crop=8\n\n--resize\n9\n")
    outer = tmp_path / "outer.flags"
    outer.write_bytes(
        b"\xef\xbb\xbf# written on Windows\r\n--method=unit\r\n" + f"--flagfile={tmp_path}/inner.flags".encode()
    )
    expected = ["--seed=1", "--method=unit", "--crop=8", "--resize", "9", "--crop=7"]
    assert presets.expand(["--seed=1", f"--flagfile={outer}", "--crop=7"]) == expected
    assert presets.expand(["--flagfile", str(outer)]) == expected[1:-1]
    nested = presets.expand(["--preset=cyclegan/emoji"])
    assert nested[: len(presets.expand(["--preset=quickstart"]))] == presets.expand(["--preset=quickstart"])


def test_presets_and_flagfiles_that_are_not_there(tmp_path):
    for given, words in (
        ("--preset=horse2zebra", "did you mean .*cyclegan/horse2zebra or ugatit/horse2zebra"),
        ("--preset=nothing_like_it", "'tfi2i presets' lists"),
        ("--flagfile=configs/unit/maps.flags", None),
        (f"--flagfile={tmp_path}/configs/unit/maps.flags", "it comes installed as --preset=unit/maps"),
        (f"--flagfile={tmp_path}", "cannot be read"),
    ):
        if words is None:
            assert presets.expand([given])
            continue
        with pytest.raises(UserError, match=words):
            presets.expand([given])
    circle = tmp_path / "circle.flags"
    circle.write_text(f"--flagfile={circle}\n")
    with pytest.raises(UserError, match="contains itself"):
        presets.expand([f"--flagfile={circle}"])
    circle.write_bytes(b"\xff\xfe-\x00-\x00")
    with pytest.raises(UserError, match="UTF-8"):
        presets.expand([f"--flagfile={circle}"])


@pytest.mark.parametrize(
    "arguments", [["presets"], ["train", "--method=unit", "--data=emoji", "--run_dir=x", "--print_config"]]
)
def test_a_reader_that_goes_away_is_no_error(arguments):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "tfi2i", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141
    process.stderr.close()


def test_a_package_is_hidden_from_imports_for_a_while():
    with machine.hidden("numpy", "this_is_hidden"):
        import numpy  # noqa: F401  which is imported already

        with pytest.raises(ImportError):
            importlib.import_module("this_is_hidden")
    assert "this_is_hidden" not in sys.modules and "numpy" in sys.modules


def test_commands_import_keras_without_what_it_only_wraps():
    program = (
        "import sys; from tfi2i import command, machine\n"
        "def main(rest): machine.import_tensorflow(); print(sorted({'matplotlib', 'sklearn'} & {*sys.modules}))\n"
        "command.run(main)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
