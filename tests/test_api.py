"""The commands as functions: `tfi2i.train`, `distill`, `translate`, `evaluate`, `convert`."""

import ast
import importlib
import inspect
import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from absl import flags
from tfi2i.export import export

import tfi2i
from tests.published import CHECKPOINTS
from tests.test_conformance import described
from tfi2i import api, command, run_directory
from tfi2i.commands import evaluate, train
from tfi2i.config import UserError
from tfi2i.training import loop, stopping

pytestmark = pytest.mark.usefixtures("toy")
TINY = described("toy").TINY | {"crop": 16, "resize": 16, "data": "emoji", "log_every": 1, "precision": "float32"}


@pytest.mark.parametrize("name", ["train", "distill", "translate", "evaluate", "convert"])
def test_keywords_are_the_flags(name):
    values = flags.FlagValues()
    importlib.import_module(f"tfi2i.commands.{name}").define_flags(values)
    parameters = inspect.signature(getattr(api, name)).parameters
    named = {n: p.default for n, p in parameters.items() if p.kind != p.VAR_KEYWORD}
    for keyword, default in named.items():
        assert keyword in values, keyword
        if default not in (None, inspect.Parameter.empty):
            assert default == values[keyword].default, keyword
    if not any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
        assert named.keys() == set(values) - {"flagfile", "undefok"}
    documented = inspect.getdoc(getattr(api, name))
    for keyword in named:
        assert re.search(rf"\b{keyword}\b", documented.partition("Args:")[2]), keyword


def test_what_editors_see_is_what_there_is():
    """The imports under TYPE_CHECKING in `tfi2i/__init__.py` are the public names."""
    tree = ast.parse(pathlib.Path(tfi2i.__file__).read_text(encoding="utf-8"))
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    seen = {alias.name: node.module for node in guarded.body for alias in node.names}
    assert sorted(seen) == tfi2i.__all__
    for name, module in seen.items():
        assert getattr(importlib.import_module(module), name) is getattr(tfi2i, name), name
    assert (pathlib.Path(tfi2i.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize(
    "first", ["import tfi2i.train, tfi2i.translate", "from tfi2i import train", "import tfi2i.commands.train", "pass"]
)
def test_an_import_hides_no_function(first):
    code = (
        f"import sys, tfi2i\n{first}\nimport tfi2i.train, tfi2i.evaluate, tfi2i.convert, tfi2i.translate\n"
        "import tfi2i.distill, tfi2i.train\n"
        "from tfi2i import convert, distill, evaluate, train, translate\n"
        "assert [f.__name__ for f in (convert, distill, evaluate, train, translate)] == "
        "['convert', 'distill', 'evaluate', 'train', 'translate'], train\n"
        "assert callable(tfi2i.train) and 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tensorflow_starts_silently():
    code = "import tfi2i; tfi2i.CycleGAN; tfi2i.load"
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout + done.stderr == ""


def test_from_pictures_to_figures_and_on(tmp_path, capsys):
    model = tfi2i.train(tmp_path / "run", method="toy", steps=2, **TINY)
    assert int(model.step.numpy()) == 2 and run_directory.steps(tmp_path / "run") == [2]
    PIL.Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "in.png")
    (path,) = tfi2i.translate(tmp_path / "run", tmp_path / "in.png", tmp_path / "out", direction="b2a")
    assert path == tmp_path / "out" / "in.png"
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(path)), model.translate(tmp_path / "in.png", "b2a"))
    figures = tfi2i.evaluate(tmp_path / "run", limit=2, direction="a2b")
    assert figures["directions"]["a2b"]["model"]["n"] == 2
    chosen = {"formats": ["float32"], "verification_images": 2, "log": lambda _: None}
    report = export(str(tmp_path / "run"), tmp_path / "exported", size=16, **chosen)
    assert (tmp_path / "exported" / "float32.tflite").exists() and report["formats"].keys() == {"float32"}
    again = tfi2i.train(run_dir=str(tmp_path / "run"), method="toy", steps=2, **TINY)
    assert int(again.step.numpy()) == 2 and "nothing to do" in capsys.readouterr().out


def test_ctrl_c_saves_and_returns_the_model(tmp_path, monkeypatch):
    log = loop.Summaries.losses

    def interrupted(summaries, step, *args, **kwargs):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return log(summaries, step, *args, **kwargs)

    monkeypatch.setattr(loop.Summaries, "losses", interrupted)
    model = tfi2i.train(tmp_path / "run", method="toy", steps=1000, **TINY)
    assert int(model.step.numpy()) == 3 and run_directory.steps(tmp_path / "run") == [3]
    assert model.translate(np.zeros((16, 16, 3), np.uint8)).shape == (16, 16, 3)


def test_a_published_checkpoint(tmp_path):
    model = tfi2i.convert(CHECKPOINTS / "cyclegan_released.zip", tmp_path / "run", size=(16, 32), direction="a2b")
    assert model.directions == ("a2b",) and model.run.data.crop == (16, 32)
    paths = tfi2i.convert(run_dir=tmp_path / "run", export="pytorch", output=tmp_path / "out")
    assert [path.name for path in paths] == ["latest_net_G_A.pth"]


@pytest.mark.parametrize(
    "name, arguments, said",
    [
        ("train", {"run_dir": "x", "stepz": 3}, "--stepz is not a flag of this command; did you mean --steps?"),
        ("train", {"run_dir": "x", "lr": 3}, "did you mean --learning_rate?"),
        ("train", {"run_dir": "x", "method": "cyclegn"}, "did you mean --method=cyclegan"),
        ("train", {"run_dir": "x", "preset": "cyclegan/horse"}, "--preset=cyclegan/horse: there is no such preset"),
        ("train", {"run_dir": "x", "steps": "many"}, "--steps=many: expected"),
        ("train", {"run_dir": "x", "pool_size": 3, "method": "unit"}, "--pool_size is not a flag of --method=unit"),
        ("translate", {"run_dir": "x", "input": "none", "output": "y"}, "none does not exist"),
        ("translate", {"run_dir": "x", "input": "i", "output": "y", "fit": "pda"}, "--fit=pda: expected one of pad"),
        ("evaluate", {}, "give --run_dir=RUN"),
        ("evaluate", {"run_dir": "x", "metrics": ["fidd"]}, "fidd"),
        ("convert", {"run_dir": "x"}, "give --source=FILE"),
        ("convert", {"run_dir": "x", "source": "none.pth"}, "none.pth"),
    ],
)
def test_errors_are_the_commands_words(name, arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(said)):
        getattr(tfi2i, name)(**arguments)
    assert not list(tmp_path.iterdir())


def test_repeated_flags_presets_and_later_values():
    values = command.values_of(evaluate, {"run_dir": ["a", "b"], "folder": {"CUT": "c"}, "metrics": ["kid", "l1"]})
    assert values.run_dir == ["a", "b"] and values.folder == ["CUT=c"] and values.metrics == ["kid", "l1"]
    values = command.values_of(train, {"crop": 64, "run_dir": "x", "preset": "cyclegan/horse2zebra", "dry_run": True})
    assert values.crop == (64, 64) and values.tfds == "cycle_gan/horse2zebra" and values.dry_run is True
    several = {"run_dir": ("a", "b"), "domain_names": ["photos", 'Monet, "Claude"'], "limit": np.int64(3)}
    values = command.values_of(evaluate, several)
    assert values.run_dir == ["a", "b"] and values.domain_names == ["photos", 'Monet, "Claude"'] and values.limit == 3
    assert command.values_of(train, {"crop": np.array([64, 32]), "run_dir": "x"}).crop == (64, 32)


def test_defaults_are_not_given(monkeypatch):
    """What counts as given beside --protocol and --real is what the caller said, as on the command line."""
    called = {}
    monkeypatch.setattr("tfi2i.metrics.pages.evaluate_run", lambda *args, **kwargs: called.update(kwargs))
    monkeypatch.setattr("tfi2i.metrics.pages.evaluate_folders", lambda **kwargs: called.update(kwargs))
    tfi2i.evaluate("run", protocol="uvcgan2_celeba", limit=3)
    assert called == {"protocol": "uvcgan2_celeba", "limit": 3}
    with pytest.raises(UserError, match="--pretrain_steps is for methods"):
        tfi2i.train("run", preset="uvcgan2/own_small", method="cyclegan", data="emoji", pretrain_steps=3)
    called.clear()
    tfi2i.evaluate(real="x", fake="y", metrics=["kid"])
    assert called["metrics"] == ["kid"] and "network" not in called and called["real"] == "x"


def test_ctrl_c_in_a_pretraining_is_raised(tmp_path, monkeypatch):
    def interrupted(run, run_dir, dry_run=False):
        raise stopping.Interrupted(signal.SIGINT, 3, "the model of the pre-training")

    monkeypatch.setattr(loop, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tfi2i.train(tmp_path / "run", method="uvcgan2", data="emoji", pretrain_steps=5)
    assert tfi2i.train(tmp_path / "run", method="uvcgan2", data="emoji") == "the model of the pre-training"
