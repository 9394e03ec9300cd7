"""What version 0.1 wrote goes on as version 0.1 took it on: runs, `.keras` files and flagfiles.

tests/golden/README.md describes the recordings. Steps run eagerly here, on one device and without XLA, which takes half
the time of tracing them. The answers were computed in the same way: the machine that recorded them meets them bit for
bit, as `pytest -s` says. Elsewhere convolutions round differently, so each comparison says how far that can lead.
"""

import contextlib
import functools
import json
import pathlib
import tarfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfi2i
from tests.marks import thorough
from tests.test_configs import resolver
from tfi2i import command_line, run_directory
from tfi2i.training import loop

GOLDEN = pathlib.Path(__file__).parent / "golden" / "runs_0.1"
RUNS = ("cyclegan", "unit", "unit_2018", "ugatit", "uvcgan2", "uvcgan", "pretraining", "adaptation")
# The class that a user names before `keras.models.load_model`.
KERAS_FILES = {"cyclegan": "CycleGAN", "unit": "UNIT", "ugatit": "UGATIT", "uvcgan2": "UVCGAN2", "uvcgan": "UVCGAN"}
CONFIGS = json.loads((GOLDEN / "configs.json").read_text())
STEPS = 3
# In the first step losses differ by rounding alone, of which the log's six digits are up to 1e-5. From then on GANs
# amplify it: other instruction sets and numbers of threads were about 1e-5 apart in the third step.
ROUNDING, AMPLIFIED = 2e-5, 2e-3
as_numpy = keras.ops.convert_to_numpy
pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`")


@pytest.fixture
def eagerly():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def unpacked(name, folder):
    """The recording's folder, with `run/` and for some `model.keras`, and its arrays by name."""
    with tarfile.open(GOLDEN / f"{name}.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    with np.load(folder / "answers.npz") as file:
        return folder, {key: file[key] for key in file.files}


def below(prefix, answers):
    return {key.removeprefix(f"{prefix}/"): value for key, value in answers.items() if key.startswith(f"{prefix}/")}


def state(model):
    """Every variable of a model and its optimizers, by path."""
    found = {v.path: as_numpy(v) for v in model.variables}
    for role in model.roles:
        found |= {f"{role} {v.path}": as_numpy(v) for v in model.optimizer_of(role).variables}
    return found


def resolve(name, *arguments):
    """The `settings.Run` of a command line of `tfi2i train` or `tfi2i.adapt`."""
    adapt = functools.partial(command_line.define_train_flags, command="adapt")
    define = adapt if name == "adaptation" else command_line.define_train_flags
    with contextlib.contextmanager(resolver)(define) as resolved:
        return resolved(*arguments)


@pytest.mark.parametrize("name", [n if n == "cyclegan" else thorough(n) for n in RUNS])
def test_a_resumed_run_comes_to_the_same_state(name, tmp_path, eagerly):
    folder, answers = unpacked(name, tmp_path)
    run_dir = folder / "run"
    earlier = (run_dir / "log.jsonl").read_text()
    model = loop.train(resolve(name, f"--flagfile={run_dir}/flags.txt", f"--steps={2 * STEPS}"), run_dir)

    log = (run_dir / "log.jsonl").read_text()
    assert log.startswith(earlier)
    lines = [line for line in map(json.loads, log[len(earlier) :].splitlines()) if line["event"] == "step"]
    # U-GAT-IT's log also has weights, rho; they are compared as weights below.
    expected = {key: values for key, values in below("log", answers).items() if not key.startswith("rho_")}
    assert {"step", "learning_rate"} < expected.keys()
    for key, values in expected.items():
        found = [line[key] for line in lines]
        np.testing.assert_allclose(found[:1], values[:1], ROUNDING, err_msg=f"{key}, first step")
        np.testing.assert_allclose(found, values, AMPLIFIED, err_msg=key)

    found, after = state(model), below("after", answers)
    if name == "pretraining":
        # Version 0.1 had a second optimizer there, which had nothing to learn.
        assert after.pop("discriminator discriminator_adam/iteration") == 0
    exact = all(np.array_equal(found.get(path), value) for path, value in after.items())
    print(f"{name}: {'bit for bit' if exact else 'within tolerance'}")
    assert_close_state(found, below("before", answers), after, expected["learning_rate"].max())


def assert_close_state(found, before, after, rate):
    """Compares variables with those `after` three steps from `before`, by the measure of how far they went.

    Every absolute tolerance is for biases that a norm removes again. Their gradients are rounding errors, and Adam
    moves them by about the whole rate in a direction that these decide.
    """
    assert found.keys() == after.keys()
    for path, expected in after.items():
        value = found[path]
        assert value.dtype == expected.dtype and value.shape == expected.shape, path
        if expected.dtype.kind == "i":  # counts of steps and of images in pools
            np.testing.assert_array_equal(value, expected, err_msg=path)
            continue
        difference = np.linalg.norm(value - expected)
        if path.endswith(("_momentum", "_velocity")):
            role, kind = path.partition(" ")[0], path.rpartition("_")[2]
            gradients = [v for p, v in after.items() if p.startswith(f"{role} ") and p.endswith(kind)]
            scale = np.sqrt if kind == "velocity" else np.asarray  # a mean of squares
            difference = np.linalg.norm(scale(value) - scale(expected))
            own = np.linalg.norm(scale(expected))
            every = np.linalg.norm([np.linalg.norm(scale(v)) for v in gradients])
            assert difference <= 0.01 * own + 1e-6 * every, path
        elif path.endswith("kernel"):
            assert difference <= 0.01 * np.linalg.norm(expected - before[path]), path
        else:
            # Three rates a step are nearly twice what was seen. Running statistics follow the biases by a tenth a step.
            steps = 1 if "moving_" in path else 3 * STEPS
            assert np.abs(value - expected).max() <= 0.01 * np.abs(expected - before[path]).max() + steps * rate, path


@pytest.mark.parametrize("name", RUNS)
def test_a_run_loads_with_its_weights_and_translates(name, tmp_path, eagerly):
    folder, answers = unpacked(name, tmp_path)
    model = tfi2i.load(folder / "run")
    assert model.checkpoint_step == STEPS
    before = below("before", answers)
    for part in (model.networks | model.averages).values():
        for v in part.variables:
            np.testing.assert_array_equal(as_numpy(v), before[v.path], err_msg=v.path)
    for direction, expected in below("translated", answers).items():
        result = model.translate(answers["pixels"], direction)
        assert result.shape == expected.shape and result.dtype == np.uint8
        assert np.abs(result.astype(int) - expected).max() <= 1  # rounding may cross the half


@pytest.mark.parametrize("name", [n if n == "cyclegan" else thorough(n) for n in KERAS_FILES])
def test_a_keras_file_loads_predicts_and_learns_on(name, tmp_path, eagerly):
    folder, answers = unpacked(name, tmp_path)
    kind, given = getattr(tfi2i, KERAS_FILES[name]), below("keras", answers)
    model = keras.models.load_model(folder / "model.keras")
    assert isinstance(model, kind)
    before, found = below("before", answers), state(model)
    assert found.keys() == before.keys()
    for path, expected in before.items():
        np.testing.assert_array_equal(found[path], expected, err_msg=path)
    np.testing.assert_allclose(model.predict(given["shown"], verbose=0), given["predicted"], atol=1e-5)
    expected = below("losses", given)
    assert bool(expected) == (name in ("cyclegan", "uvcgan2"))
    for i in range(2 if expected else 0):
        losses = model.train_step((tf.constant(given["learned_a"][i]), tf.constant(given["learned_b"][i])))
        assert losses.keys() == expected.keys()
        for key, value in losses.items():
            tolerance = AMPLIFIED if i else ROUNDING
            np.testing.assert_allclose(value, expected[key][i], tolerance, err_msg=f"{key}, step {i + 1}")


# Version 0.1 had a template instead of presets for pictures of the user's own.
@pytest.mark.parametrize("file", [f for f in CONFIGS["flagfiles"] if f != "configs/cyclegan/folder.flags"])
def test_a_flagfile_resolves_to_the_same_run(file, tmp_path):
    own = CONFIGS["flagfiles"][file]
    whole = dict(CONFIGS["methods"][own["method"]])
    for part in ("model", "data", "training"):
        whole[part] = whole[part] | own[part]
    # As the run directory that version 0.1 would have begun with this file.
    (tmp_path / "config.json").write_text(json.dumps(whole | {"fingerprints": {}, "tfi2i": "0.1.0"}))
    assert resolve(own["method"], f"--flagfile={file}") == run_directory.read(tmp_path)
