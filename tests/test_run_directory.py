"""What a run directory is, and what is refused before one is made."""

import errno
import fcntl
import json
import os
import pathlib
import subprocess
import sys

import pytest

import tfi2i
from tests.own_flags import call
from tfi2i import checkpoints, command_line, run_directory, settings
from tfi2i.commands import distill, evaluate, translate
from tfi2i.config import Data, Training, UserError, local_path
from tfi2i.methods import METHODS
from tfi2i.training import loop
from tfi2i.translation import translate_files


@pytest.mark.parametrize("method, task", [
    (name, task) for name, row in METHODS.items() for task in ("translate", "pretrain") if row.of_task(task)
])  # fmt: skip
def test_what_is_written_is_read(tmp_path, method, task):
    run = settings.resolve(method, {"task": task, "seed": 3})
    run_directory.write(tmp_path, run, fingerprints={"a": "1", "b": "2"})
    assert run_directory.read(tmp_path) == run
    described = run_directory.description(tmp_path)
    assert described["format"] == run_directory.FORMAT and described["fingerprints"] == {"a": "1", "b": "2"}
    assert described["tfi2i"] == tfi2i.__version__


WITHOUT_TRANSLATIONS = {
    "adaptation": ({"source": "optdigits", "target": "optdigits"}, "it learned to classify digits; at the end"),
    "cogan_adaptation": ({"source": "optdigits", "target": "optdigits"}, "it learned to classify digits; at the end"),
    "uvcgan2": ({"task": "pretrain"}, "it learned to fill in masked patches, and tfi2i train --pretrained=RUN starts"),
}


@pytest.mark.parametrize("method", WITHOUT_TRANSLATIONS)
def test_a_run_that_translates_nothing_says_what_it_is_for_before_any_work(tmp_path, method, monkeypatch):
    given, purpose = WITHOUT_TRANSLATIONS[method]
    run_directory.write(tmp_path / "run", settings.resolve(method, given))
    monkeypatch.setattr(checkpoints, "load", lambda *args: pytest.fail("work began"))
    (tmp_path / "in.png").touch()
    run, paths = tmp_path / "run", (f"--input={tmp_path}/in.png", f"--output={tmp_path}/out.png")
    for command, flag, more in (
        (translate, "--run_dir", paths),
        (evaluate, "--run_dir", ()),
        (evaluate, "--run_dir", (f"--run_dir={run}", f"--study={tmp_path}/study")),
        (distill, "--teacher", (f"--run_dir={tmp_path}/student",)),
    ):
        with pytest.raises(UserError, match=f"^{flag}={run} translates no pictures: {purpose}"):
            call(command, f"{flag}={run}", *more)


def test_paths_are_absolute_where_they_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"csv": "lists/x.csv", "csv_folder": "photos", "domain_a": "x", "domain_b": "!x", "tfds_dir": "gs://bucket"}
    run_directory.write("run", settings.resolve("cyclegan", given))
    data = run_directory.read("run").data
    assert (data.csv, data.csv_folder) == (f"{tmp_path}/lists/x.csv", f"{tmp_path}/photos")
    assert data.tfds_dir == "gs://bucket"  # which TFDS reads
    run_directory.write("run", settings.resolve("cyclegan", {"a": "photos", "b": "art/*.png", "tfds_dir": "x"}))
    data = run_directory.read("run").data
    assert (data.a, data.b, data.tfds_dir) == (f"{tmp_path}/photos", f"{tmp_path}/art/*.png", f"{tmp_path}/x")
    assert f"--a={tmp_path}/photos\n" in (tmp_path / "run" / "flags.txt").read_text()
    run_directory.write("run", settings.resolve("cyclegan", {"data": "emoji"}))
    assert run_directory.read("run").data.data == "emoji"
    digits = settings.resolve("adaptation", {"source": "optdigits", "target": "tfds:mnist"})
    run_directory.write("run", digits)
    assert run_directory.read("run") == digits


def test_directions_by_the_names_of_folders(tmp_path):
    runs = {}
    for name, given in {
        "named": {"a": "x/photos", "b": "art/Paintings/*.png"},
        "turned": {"a": "x/photos", "b": "art/Paintings", "swap_domains": True},
        "alike": {"a": "x/photos", "b": "y/photos"},
        "emoji": {"data": "emoji"},
    }.items():
        runs[name] = tmp_path / name
        run_directory.write(runs[name], settings.resolve("cyclegan", given))
    named, turned, alike, emoji = runs.values()
    assert run_directory.direction("photos2Paintings", named) == "a2b"
    assert run_directory.direction("Paintings2photos", named) == "b2a"
    assert run_directory.direction("Paintings2photos", turned) == "a2b"
    assert run_directory.direction("b2a", alike) == "b2a" and run_directory.direction("a2b") == "a2b"
    both = ("both", "a2b", "b2a")
    assert run_directory.direction("both", named, emoji, canonical=both) == "both"
    assert run_directory.direction("photos2Paintings", named, named, canonical=both) == "a2b"

    def fails(message, *arguments, **canonical):
        with pytest.raises(UserError, match=message):
            run_directory.direction(*arguments, **canonical)

    fails(r"--direction=AtoB: expected one of a2b, b2a; did you mean --direction=a2b\?", "AtoB", emoji)
    fails(r"did you mean --direction=b2a\?", "B_to_A")
    fails(
        r"expected one of a2b, b2a, photos2Paintings, Paintings2photos; did you mean --direction=Paintings2photos\?",
        "paintings_to_photos",
        named,
    )
    fails("--direction=both: expected one of a2b, b2a, photos2Paintings, Paintings2photos$", "both", named)
    fails("--direction=photos2photos: expected one of a2b, b2a$", "photos2photos", alike)
    fails("is not the same in all runs: give a2b or b2a", "photos2Paintings", named, turned)
    fails("is not the same in all runs", "photos2Paintings", named, emoji)


def test_a_run_of_this_format_stays_readable(tmp_path):
    """tests/golden/config_0_2.json was written by `tfi2i train --preset=cyclegan/emoji` when the format was new."""
    stored = pathlib.Path(__file__).parent / "golden" / "config_0_2.json"
    run_directory.config_path(tmp_path).write_bytes(stored.read_bytes())
    flags = command_line.of_preset("cyclegan/emoji") | {"precision": "mixed_bfloat16"}  # that of the machine
    assert run_directory.read(tmp_path) == settings.resolve("cyclegan", flags)


def test_directories_of_other_versions(tmp_path):
    path = run_directory.config_path(tmp_path)
    run_directory.write(tmp_path, settings.resolve("uvcgan2", {}))
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"format": run_directory.FORMAT + 1, "tfi2i": "9.9"}))
    with pytest.raises(UserError, match="written by tfi2i 9.9, this is .*: install that version"):
        run_directory.read(tmp_path)
    # Version 0.1 wrote no format, and the hyper-parameters of pre-training into every run of its method.
    del content["format"]
    content["model"] |= {"mask_patch": 32, "mask_fraction": 0.4}
    path.write_text(json.dumps(content))
    assert run_directory.read(tmp_path) == settings.resolve("uvcgan2", {})
    path.write_text(json.dumps(content | {"model": content["model"] | {"no_such_field": 1}}))
    with pytest.raises(UserError, match="config.json cannot be read: .*no_such_field"):
        run_directory.read(tmp_path)
    path.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        run_directory.read(tmp_path)


def test_a_lock_is_held_by_one(tmp_path):
    first = run_directory.lock(tmp_path / "run")
    with pytest.raises(UserError, match="in use by another training process"):
        run_directory.lock(tmp_path / "run")
    os.close(first)
    os.close(run_directory.lock(tmp_path / "run"))


def test_what_a_lock_would_refuse_is_known_without_one(tmp_path, monkeypatch):
    run_directory.check_lock(tmp_path / "new" / "run")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written: .*file is a file"):
        run_directory.check_lock(tmp_path / "file" / "run")
    held = run_directory.lock(tmp_path / "run")
    with pytest.raises(UserError, match="in use by another training process"):
        run_directory.check_lock(tmp_path / "run")
    os.close(held)
    run_directory.check_lock(tmp_path / "run")
    monkeypatch.setattr(run_directory.os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UserError, match=f"no permission to write in {tmp_path}"):
        run_directory.check_lock(tmp_path / "new" / "run")


def test_file_systems_without_locks_are_no_reason_to_refuse(tmp_path, monkeypatch, caplog):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    os.close(run_directory.lock(tmp_path / "run"))
    assert "cannot be locked (No locks available): do not train there twice" in caplog.text


def test_home_is_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert Data(data="~/photos").data == f"{tmp_path}/photos"
    assert Training(init_from="~/runs/x").init_from == f"{tmp_path}/runs/x"
    assert METHODS["unit"].config_class(vgg_weights="~/vgg.h5", unit_variant="2018").vgg_weights == f"{tmp_path}/vgg.h5"
    with pytest.raises(UserError, match=f"{tmp_path}/runs/x is not a run directory"):
        tfi2i.load("~/runs/x")
    assert not (tmp_path / "~").exists()


def test_the_run_that_was_meant_is_named(tmp_path):
    for name in ("mine", "other"):
        run_directory.write(tmp_path / name, settings.resolve("cyclegan", {"data": "emoji"}), fingerprints={})
    said = {
        "mien": f"is missing; did you mean {tmp_path}/mine?",
        "mine/best": f"is missing; {tmp_path}/mine is one",
        "": "has no config.json; it holds mine, other",
        "xyzzy": "is missing",
        "mine/flags.txt": f"is a file; {tmp_path}/mine is one",
    }
    for given, words in said.items():
        with pytest.raises(UserError) as refused:
            run_directory.read(tmp_path / given)
        assert str(refused.value).endswith(f" is not a run directory: it {words}")


@pytest.mark.parametrize("refused", [
    lambda: loop.train(settings.resolve("cyclegan", {"data": "emoji"}), "gs://bucket/run"),
    lambda: tfi2i.load("s3://bucket/run"),
    lambda: Data(data="https://example.org/photos"),
    lambda: translate_files(None, "file:///photos", "out"),
    lambda: translate_files(None, "photos", "gs://bucket/out"),
])  # fmt: skip
def test_urls_are_refused_before_any_folder_is_made(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is a URL: copy it to this machine, or mount it"):
        refused()
    assert list(tmp_path.iterdir()) == []


def test_names_that_look_like_urls_are_none():
    for path in ("a:b", "tfds:mnist", "./x", "C:/x", "weird:/name"):
        assert local_path(path, "data") == path


def test_a_locale_that_is_not_utf_8(tmp_path):
    """The paths that a run has written are those that were given, whatever the terminal's encoding."""
    folder = tmp_path / "Zürich"
    code = (
        "import sys; from tfi2i import run_directory, settings\n"
        "run = settings.resolve('cyclegan', {'data': sys.argv[1] + '/photos'})\n"
        "run_directory.write(sys.argv[1], run)\n"
        "assert run_directory.read(sys.argv[1]) == run\n"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, str(folder)], env=environment, check=True)
    assert f"--data={folder}/photos" in (folder / "flags.txt").read_text(encoding="utf-8")


def test_windows_is_told_what_to_do():
    code = "import sys; sys.platform = 'win32'\ntry:\n    import tfi2i\nexcept ImportError as e:\n    print(e)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "tfi2i runs on Linux, macOS and WSL2, and this is Python for Windows: install it within WSL2\n"
