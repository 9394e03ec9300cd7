"""Every method in every situation. A new method adds one row to METHODS."""

import dataclasses
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfi2i.export import verify

import tfi2i
from tfi2i import config, export
from tfi2i.data import pipeline, sources
from tfi2i.methods import model_class
from tfi2i.methods.translator import DIRECTIONS
from tfi2i.metrics import faithfulness
from tfi2i.training import checkpoints, loop, strategies

# How to build each method small: hyper-parameters, side of its training images.
METHODS = {
    "cyclegan": (
        {"generator": "resnet_6blocks", "generator_width": 4, "discriminator_width": 4, "discriminator_layers": 2,
         "pool_size": 3},
        16,
    ),
    "unit": ({"generator_width": 4, "discriminator_width": 4, "discriminator_layers": 3}, 16),
    "ugatit": (
        # A tenth of the published losses: at first features are tiny, and what LIN makes of them has gradients that
        # leave float16 at the scale of 64 that a test asks for.
        {"light": True, "generator_width": 4, "residual_blocks": 1, "discriminator_width": 4, "local_layers": 3,
         "global_layers": 3, "lambda_gan": 0.1, "lambda_cycle": 1.0, "lambda_identity": 1.0, "lambda_cam": 100.0},
        16,
    ),
    "uvcgan2": (
        {"generator_width": 4, "generator_levels": 2, "vit_width": 8, "vit_heads": 2, "vit_blocks": 1,
         "vit_ffn_width": 8, "discriminator_width": 4, "discriminator_layers": 2, "consistency_size": 8,
         # What ReZero holds back hardly moves in a few steps at the published rate.
         "learning_rate": 1e-2},
        16,
    ),
    "uvcgan": (
        {"generator_width": 4, "generator_levels": 2, "vit_width": 8, "vit_heads": 2, "vit_blocks": 1,
         "vit_ffn_width": 8, "discriminator_width": 4, "discriminator_layers": 2, "pool_size": 3,
         "learning_rate": 1e-2},
        16,
    ),
}  # fmt: skip
# What leaves every sample to itself: only then are parts of a batch, on replicas or one after the other, the whole.
APART = {"uvcgan2": {"discriminator_head": "none"}}
# UVCGAN is UVCGAN v2 with parts switched off, the same code: here it takes its steps, the situations are those of its
# successor, networks and losses stand in tests/test_uvcgan2.py.
every_method = pytest.mark.parametrize("method", [m for m in METHODS if m != "uvcgan"])
STEPS = 3
as_numpy = keras.ops.convert_to_numpy


def build(method, **kwargs):
    hyperparameters, _ = METHODS[method]
    keras.utils.set_random_seed(0)
    return model_class(method)(**{**hyperparameters, **kwargs})


def batches(method, count=STEPS, batch_size=2, seed=0):
    side = METHODS[method][1]
    low, high = model_class(method).value_range
    draw = np.random.default_rng(seed)
    return [
        tuple(draw.uniform(low, high, (batch_size, side, side, 3)).astype("float32") for _ in "ab")
        for _ in range(count)
    ]


def learn(method, data, strategy=None, model=None, apart=False, **compiled):
    """Trains a model, a fresh one unless given, on `data`; returns it and the losses of every step.

    After the first step Adam's momentum is (1 - beta_1) times the gradient; it is kept as `model.first_gradients`.
    """
    strategy = strategy or tf.distribute.OneDeviceStrategy("/cpu:0")
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        if model is None:
            model = build(method, **(APART.get(method, {}) if apart else {}))
            model.compile(**compiled)
            shape = (len(data[0][0]) // replicas, *data[0][0].shape[1:])
            model.build_for_training(shape, shape)
            model.build_optimizers()

    step = getattr(model, "traced_step", None) or strategies.distributed_step(strategy, model)
    model.traced_step = step
    history = []
    for a, b in data:
        size = len(a) // replicas

        def part(context, a=a, b=b, size=size):
            i = context.replica_id_in_sync_group * size
            return tf.constant(a[i : i + size]), tf.constant(b[i : i + size])

        losses, _ = step(strategy.experimental_distribute_values_from_function(part))
        history.append(losses())
        if len(history) == 1:
            model.first_gradients = {n: v / 0.5 for n, v in state(model).items() if n.endswith("_momentum")}
    return model, history


@functools.cache
def plain(method, apart=False):
    """The run that others are compared with: one device, float32, no XLA."""
    return plain(method) if apart and method not in APART else learn(method, batches(method), apart=apart)


def assert_same_step(one, other):
    """Equal losses and gradients of the first step, about 1e-5 relative; GANs amplify rounding in later ones."""
    (model, history), (other_model, other_history) = one, other
    count = min(len(history), len(other_history))
    assert_close_losses(history[:1], other_history[:1], rtol=1e-5)
    assert_close_losses(history[:count], other_history[:count], rtol=5e-3)
    assert model.first_gradients.keys() == other_model.first_gradients.keys() and model.first_gradients
    for role in ("generator", "discriminator"):
        names = [n for n in model.first_gradients if f"{role}_adam" in n]
        x, y = (np.concatenate([m.first_gradients[n].ravel() for n in names]) for m in (model, other_model))
        # Two ways to write the same norm differ by 1.1e-5 here: rounding, amplified by 4x4 maps.
        assert np.linalg.norm(x - y) <= 2e-5 * np.linalg.norm(x), role


def state(model):
    """Every variable of the model and its optimizers, by path."""
    optimizers = model.generator_optimizer.variables + model.discriminator_optimizer.variables
    return {f"{i} {v.path}": as_numpy(v) for i, v in enumerate(model.variables + optimizers)}


def assert_equal_state(x, y):
    assert x.keys() == y.keys()
    for name in x:
        np.testing.assert_array_equal(x[name], y[name], err_msg=name)


def assert_close_losses(x, y, **tolerance):
    for before, after in zip(x, y, strict=True):
        assert before.keys() == after.keys()
        for name in before:
            np.testing.assert_allclose(before[name], after[name], err_msg=name, **tolerance)


def settings(method, **training):
    hyperparameters, side = METHODS[method]
    given = {"data": "emoji", "resize": (side + 2,) * 2, "crop": (side,) * 2, "batch_size": 2, "precision": "float32"}
    given |= {"save_every": 2, "sample_every": 1000, "log_every": 1}
    return config.resolve(method, {**hyperparameters, **given, **training})


@pytest.mark.parametrize("method", METHODS)
def test_steps_move_every_weight(method):
    model, history = plain(method)
    fresh = build(method)
    fresh.build((None, None, None, 3))
    assert all(np.isfinite(v) for losses in history for v in losses.values())
    for name, network in model.networks.items():
        for new, old in zip(network.trainable_variables, fresh.networks[name].trainable_variables, strict=True):
            if "bias" not in new.path:
                assert np.abs(as_numpy(new) - as_numpy(old)).max() > 0, new.path


@every_method
def test_stopped_and_resumed_is_an_unbroken_run(method, tmp_path):
    """On two replicas; on one, see the loss scale's test."""
    more = {"strategy": "mirrored", "replicas": 2}
    whole = loop.train(settings(method, steps=4, **more), tmp_path / "whole")
    # An interrupted run: what an unbroken one had on disk after step 2, and logs that went further.
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "whole", broken)
    shutil.rmtree(broken / "checkpoints" / "00000004")
    again = loop.train(settings(method, steps=4, **more), broken)
    assert_equal_state(state(whole), state(again))
    lines = [json.loads(line) for line in (broken / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "step"] == [1, 2, 3, 4]

    loaded = tfi2i.load(broken)
    assert loaded.checkpoint_step == 4
    for name, network in again.networks.items():
        for x, y in zip(network.variables, loaded.networks[name].variables, strict=True):
            np.testing.assert_array_equal(as_numpy(x), as_numpy(y), err_msg=x.path)


@every_method
def test_float16_resumes_with_its_loss_scale(method, tmp_path, monkeypatch):
    usual = keras.optimizers.LossScaleOptimizer

    class Growing(usual):
        """Doubles its scale after three steps without overflow; the step of the interruption is the second of them."""

        def __init__(self, inner_optimizer, **kwargs):
            super().__init__(inner_optimizer, initial_scale=64.0, dynamic_growth_steps=3, **kwargs)

    monkeypatch.setattr(keras.optimizers, "LossScaleOptimizer", Growing)
    chosen = settings(method, steps=4, precision="mixed_float16")
    whole = loop.train(chosen, tmp_path / "whole")
    assert float(whole.generator_optimizer.dynamic_scale.numpy()) == 128
    shutil.rmtree(tmp_path / "whole" / "checkpoints" / "00000004")
    assert_equal_state(state(whole), state(loop.train(chosen, tmp_path / "whole")))


@every_method
def test_two_replicas_equal_one(method):
    two = learn(method, batches(method), tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]), apart=True)
    assert_same_step(plain(method, apart=True), two)
    model = two[0]
    everything = model.variables + model.generator_optimizer.variables + model.discriminator_optimizer.variables
    for variable in everything:
        copies = [v.numpy() for v in variable.value.values]
        np.testing.assert_array_equal(copies[0], copies[1], err_msg=variable.path)
    # Without a broadcast at each step, copies stay equal only where every replica computes the same from all samples.
    alone = [v for v in model.non_trainable_variables if v.aggregation == "none"]
    allowed = ("pool_a/images", "pool_b/images", "/features", "_average/")
    assert all(any(part in v.path for part in allowed) for v in alone), [v.path for v in alone]


@pytest.mark.parametrize("method, replicas", [*((m, 2) for m in METHODS if m != "uvcgan"), *((m, 1) for m in APART)])
def test_xla_equals_plain(method, replicas):
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(replicas)])
    apart = replicas > 1
    assert_same_step(plain(method, apart), learn(method, batches(method, 1), strategy, apart=apart, xla=True))


@every_method
def test_accumulated_parts_equal_the_whole_batch(method):
    assert_same_step(plain(method, apart=True), learn(method, batches(method, 1), apart=True, accumulate=2))


@every_method
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(method, precision):
    model = build(method, dtype=precision)
    data = batches(method)
    model.compile()
    model.build_for_training(data[0][0].shape, data[0][0].shape)
    model.build_optimizers()
    model, history = learn(method, data[:1], model=model)
    _, exact = plain(method)
    assert all(v.dtype == "float32" for v in model.trainable_variables)
    assert_close_losses(history[:1], exact[:1], rtol=0.05, atol=0.02)
    scaled = isinstance(model.generator_optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == "mixed_float16")


@every_method
def test_fit_learns_as_the_loop_does(method, tmp_path):
    data = batches(method)
    _, expected = plain(method)
    model = build(method)
    model.compile()
    stack = [np.stack(x) for x in zip(*data)]
    dataset = tf.data.Dataset.from_tensor_slices(tuple(stack))
    saved = keras.callbacks.ModelCheckpoint(str(tmp_path / "w{epoch}.weights.h5"), save_weights_only=True)
    history = model.fit(dataset, epochs=1, verbose=0, callbacks=[saved, keras.callbacks.TerminateOnNaN()])
    assert int(model.step.numpy()) == STEPS
    for name, values in expected[-1].items():
        np.testing.assert_allclose(history.history[name][-1], values, rtol=1e-3)
    assert (tmp_path / "w1.weights.h5").is_file()


@every_method
def test_fit_on_two_replicas(method):
    with tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]).scope():
        model = build(method)
        model.compile()
    a, b = (np.concatenate(x) for x in zip(*batches(method)))
    model.fit(tf.data.Dataset.from_tensor_slices((a, b)).batch(2, drop_remainder=True), verbose=0)
    assert int(model.step.numpy()) == STEPS


@every_method
def test_keras_file_round_trip(method, tmp_path):
    data = batches(method)
    model, _ = learn(method, data[:2])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_equal_state(state(model), state(loaded))
    x = data[0][0]
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    _, expected = learn(method, data[2:], model=model)
    _, history = learn(method, data[2:], model=loaded)
    assert expected == history
    model.save_weights(tmp_path / "model.weights.h5")
    other = build(method, seed=1)
    other.compile()
    other.build_for_training(x.shape, x.shape)
    other.build_optimizers()
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(model.predict(x, verbose=0), other.predict(x, verbose=0))


@every_method
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (17, 30)])
@pytest.mark.parametrize("direction", ["a2b", "b2a"])
def test_any_size_any_pixels(method, size, direction):
    model = build(method)
    model.build((None, None, None, 3))
    draw = np.random.default_rng(0)
    for dtype in ("uint8", "uint16"):
        pixels = draw.integers(0, np.iinfo(dtype).max, (2, *size, 3), dtype)
        result = model.translate(pixels, direction)
        assert result.shape == pixels.shape and result.dtype == pixels.dtype
        np.testing.assert_array_equal(model.translate(pixels[0], direction), result[0])
    low, high = model.value_range
    x = np.full((*size, 3), high, "float32")
    assert model.translate(x, direction).dtype == np.float32
    with pytest.raises(ValueError, match="range"):
        model.translate(x * 3 + 1, direction)
    with pytest.raises(ValueError, match="expected"):
        model.translate(x[..., :2], direction)


def drawings(method, count, split="train"):
    """uint8 [count, side, side, 3], of domain A."""
    data = settings(method, steps=1).data
    source = sources.open_domains(data, split)[0]
    return np.stack([pixels for _, pixels in pipeline.eval_images(source, data, range(count))])


@every_method
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_saved_model_translates_pixels(method, direction, tmp_path):
    model, _ = plain(method)
    export.write_saved_model(model, tmp_path, direction)
    serve = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    pixels = drawings(method, 2, "test")
    for x in (pixels, np.ascontiguousarray(pixels[:, 1:, :-3])):
        result = serve(images=tf.constant(x))["images"].numpy()
        assert result.dtype == np.uint8
        difference = np.abs(result.astype(int) - model.translate(x, direction))
        assert difference.max() <= 1 and difference.mean() < 0.01


@functools.cache
def float_files(method, direction):
    side = METHODS[method][1]
    return export.convert(plain(method)[0], direction, (side, side), ("float32", "float16"))


# Least PSNR after rounding. Weights after three steps are far harder to quantize than trained ones.
LITERT = {"float32": 55, "float16": 45, "dynamic": 30, "int8": 22}


@every_method
@pytest.mark.parametrize("kind, direction", [*((kind, "a2b") for kind in LITERT), ("float32", "b2a")])
def test_litert_translates_pixels(method, kind, direction):
    model, _ = plain(method)
    files = float_files(method, direction)
    if kind in files:
        file = files[kind]
    else:
        file = export.quantize(files["float32"], kind, drawings(method, 4)[:, None].astype(np.float32))
        assert len(file) < len(files["float32"])
    runner = verify.LiteRT(export.with_uint8_pixels(file))
    for end in (runner.input, runner.output):
        assert end["dtype"] == np.uint8 and end["quantization"] == (1.0, 0)
    pixels = drawings(method, 3, "test")
    result = np.concatenate([runner(x[None]) for x in pixels])
    error = faithfulness.squared_error(result, model.translate(pixels, direction)).mean()
    assert faithfulness.decibels(error) >= LITERT[kind], faithfulness.decibels(error)


WORKER = """
    import json, sys
    from tests import test_conformance as t
    from tfi2i import config
    import tensorflow as tf
    run_dir, method, steps = sys.argv[1:]
    from tfi2i.training import loop
    own = t.APART.get(method, {})
    settings = t.settings(method, steps=int(steps), lr_schedule="constant", strategy="multi_worker", **own)
    try:
        model = loop.train(settings, run_dir)
    except loop.Interrupted as stop:
        print("STOPPED", stop.step)
        sys.exit(128 + stop.signal)
    print("SUM", json.dumps({k: float(abs(v.astype("float64")).sum()) for k, v in t.state(model).items()}))
"""


def two_workers(run_dir, method, steps, errors):
    """Starts two processes that train `run_dir` together; they write to the files errors/0 and errors/1."""
    errors.mkdir(exist_ok=True)
    ports = []
    sockets = [socket.socket() for _ in range(2)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
        ports.append(f"127.0.0.1:{s.getsockname()[1]}")
    for s in sockets:
        s.close()
    workers = []
    for index in range(2):
        cluster = {"cluster": {"worker": ports}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(cluster)}
        command = [sys.executable, "-c", textwrap.dedent(WORKER), str(run_dir), method, str(steps)]
        with open(errors / str(index), "w") as file:
            workers.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=file, text=True))
    return workers


@every_method
def test_two_processes_train_in_step_and_go_on_until_a_signal_to_one_of_them(method, tmp_path):
    def ended(workers, code):
        results = [w.communicate(timeout=300)[0] for w in workers]
        seen = [(tmp_path / "errors" / str(i)).read_text()[-3000:] for i in range(2)]
        assert [w.returncode for w in workers] == [code] * 2, seen
        return results

    results = ended(two_workers(tmp_path / "run", method, 2, tmp_path / "errors"), 0)
    first, second = (json.loads(out.split("SUM ")[1].splitlines()[0]) for out in results)
    assert first == second

    again = two_workers(tmp_path / "run", method, 1000000, tmp_path / "errors")
    for line in again[0].stdout:  # of the chief; plain lines appear as steps are done
        if "/1000000 steps" in line:
            break
    again[0 if method == "cyclegan" else 1].send_signal(signal.SIGTERM)  # to the chief, or to the other
    stopped = [int(out.split("STOPPED ")[1]) for out in ended(again, 128 + signal.SIGTERM)]
    assert stopped == [checkpoints.steps(tmp_path / "run")[-1]] * 2 and stopped[0] > 2

    # One process that takes the same batches.
    loop.train(settings(method, steps=3, lr_schedule="constant", **APART.get(method, {})), tmp_path / "alone")
    totals = {name.partition(" ")[2]: total for name, total in first.items()}
    kernels = [v for v in tfi2i.load(tmp_path / "alone", 2).variables if v.path.endswith("kernel")]
    for v in kernels:
        np.testing.assert_allclose(totals[v.path], np.abs(as_numpy(v).astype("float64")).sum(), rtol=1e-3)
    assert kernels
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("run", "alone")]
    steps = [[line for line in map(json.loads, log) if line["event"] == "step"] for log in logs]
    assert [line["step"] for line in steps[0]] == list(range(1, stopped[0] + 1))
    for i, tolerance in ((0, 1e-5), (2, 5e-3)):
        for name in model_losses(steps[1][i]):
            np.testing.assert_allclose(steps[0][i][name], steps[1][i][name], rtol=tolerance, err_msg=name)


def model_losses(line):
    return [n for n in line if n.split("_")[0] in ("gan", "cycle", "identity", "discriminator")]


def test_every_method_has_its_row():
    assert set(METHODS) == set(config.METHODS)
    for method, kind in config.METHODS.items():
        assert dataclasses.is_dataclass(kind) and model_class(method).config_class is kind
