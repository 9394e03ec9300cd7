"""Domain adaptation: networks, losses, steps, whole runs; its digits are in tests/test_digits.py."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfi2i import checkpoints, layers, run_directory, settings
from tfi2i.commands import adapt
from tfi2i.config import UserError
from tfi2i.data import digits
from tfi2i.methods.unit.adaptation import Adaptation, cross_entropy, distance, divergence
from tfi2i.methods.unit.config import Digits
from tfi2i.training import loop

# A small model for tests of all methods, the side of its training images, and what leaves each sample to itself.
TINY = {"generator_width": 2, "discriminator_width": 4}
SIDE = 32
SAMPLEWISE = {"baseline": True}
as_numpy = keras.ops.convert_to_numpy


def count(network):
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


def build(channels_a=1, channels_b=1, **given):
    model = Adaptation(channels_a, channels_b, **{**TINY, **given})
    model.build((None, 32, 32, channels_a))
    return model


def batch(n=4, channels=(1, 1), seed=0):
    draw = np.random.default_rng(seed)
    a, b = (draw.uniform(-1, 1, (n, 32, 32, c)).astype("float32") for c in channels)
    return a, b, draw.integers(0, 10, n).astype("int32")


# Networks


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, 22_606_468),
        pytest.param({"generator_width": 64}, 10_053_380, marks=pytest.mark.thorough),
        pytest.param({"coordinates": False}, 22_596_868, marks=pytest.mark.thorough),
    ],
)
def test_parameter_counts_are_the_published_ones(given, expected):
    model = Adaptation(3, 1, **given)
    model.build((None, 32, 32, 3))
    assert count(model.generator) == expected
    assert count(model.discriminator) == 4_332_812


def test_what_is_shared_is_one_variable_and_what_is_not_is_two():
    model = build()
    x = batch()[0]
    judge, generator = model.discriminator, model.generator
    before = as_numpy(judge.features(b=x)), as_numpy(generator.encode(b=x)[0])
    judge.shared[2].bias.assign_add(np.ones(32))
    generator.mean.bias.assign_add(np.ones(16))
    after = as_numpy(judge.features(b=x)), as_numpy(generator.encode(b=x)[0])
    assert np.abs(after[0] - before[0]).max() > 0.5 and np.abs(after[1] - before[1]).min() > 0.9
    assert judge.enter_a.kernel is not judge.enter_b.kernel
    judge.enter_a.kernel.assign(judge.enter_a.kernel * 2)
    np.testing.assert_array_equal(as_numpy(judge.features(b=x)), after[0])
    generator.paint_a.kernel.assign(generator.paint_a.kernel * 2)
    z = np.zeros((1, 1, 1, 16), "float32")
    one, other = generator.decode(z, "ab")
    assert np.abs(as_numpy(one) - as_numpy(other)).max() > 0
    np.testing.assert_array_equal(as_numpy(generator.decode(z, "b")[0]), as_numpy(other))


def test_equal_start_makes_both_domains_one_at_first():
    x, z = batch()[0], np.random.default_rng(0).normal(size=(2, 1, 1, 16)).astype("float32")
    for equal in (True, False):
        model = build(equal_start=equal)
        pairs = [
            (model.generator.encode(x)[0], model.generator.encode(b=x)[0]),
            model.generator.decode(z),
            (model.discriminator.features(x), model.discriminator.features(b=x)),
        ]
        assert {np.array_equal(*map(as_numpy, pair)) for pair in pairs} == {equal}
    assert model.generator.enter_a.convolution.kernel is not model.generator.enter_b.convolution.kernel
    with pytest.raises(UserError, match="the source has 3 and the target 1 channels"):
        build(3, 1, equal_start=True)


def test_coordinates_are_rows_then_columns():
    x = as_numpy(build().generator.locate(np.full((2, 32, 32, 1), 7.0, "float32")))
    assert x.shape == (2, 32, 32, 3) and (x[..., 0] == 7).all()
    np.testing.assert_array_equal(x[1, :, 5, 1], (np.arange(32) - 16) / 16)
    np.testing.assert_array_equal(x[1, 5, :, 2], (np.arange(32) - 16) / 16)


def test_both_domains_at_once_are_each_alone():
    model = build(3, 1)
    a, b, _ = batch(channels=(3, 1))
    for both, parts in (
        (model.generator.encode(a, b)[0], (model.generator.encode(a)[0], model.generator.encode(b=b)[0])),
        (model.discriminator.features(a, b), (model.discriminator.features(a), model.discriminator.features(b=b))),
    ):
        np.testing.assert_allclose(as_numpy(both), np.concatenate([as_numpy(p) for p in parts]), rtol=1e-4, atol=1e-5)
    assert model.generate(a, "a2b").shape == (4, 32, 32, 1) and model.generate(b, "b2a").shape == (4, 32, 32, 3)
    with pytest.raises(ValueError, match="classifier alone"):
        build(baseline=True).generate(a)
    with pytest.raises(ValueError, match="take 32x32 pixels"):
        model.generate(np.zeros((1, 28, 28, 1)))


def test_first_weights_are_drawn_as_published():
    model = build(generator_width=16, discriminator_width=16)
    generator, judge = model.generator, model.discriminator
    assert as_numpy(generator.encoder[1].convolution.kernel).std() == pytest.approx(0.02, rel=0.03)
    assert as_numpy(generator.mean.bias).std() == pytest.approx(0.002, rel=0.3)
    assert as_numpy(generator.encoder[2].norm.beta).std() == pytest.approx(0.002, rel=0.3)
    kernel = as_numpy(judge.shared[0].kernel)
    limit = np.sqrt(2) * np.sqrt(6 / (25 * (16 + 32)))
    assert 0.98 * limit < np.abs(kernel).max() <= limit and kernel.std() == pytest.approx(limit / 3**0.5, rel=0.03)
    assert (as_numpy(judge.judge.bias) == np.float32(0.1)).all()


# Losses


def test_losses_by_hand():
    assert float(cross_entropy(np.zeros((3, 10), "float32"), 1)) == pytest.approx(np.log(10))
    logits = np.array([[0, np.log(3)], [np.log(3), 0]], "float32")  # softmax 1/4, 3/4 and 3/4, 1/4
    assert float(cross_entropy(logits, np.array([1, 1]))) == pytest.approx(-(np.log(0.75) + np.log(0.25)) / 2)
    mean, deviation = np.full((2, 1, 1, 3), 2.0, "float32"), np.full((2, 1, 1, 3), 0.5, "float32")
    assert float(divergence(mean, deviation)) == pytest.approx(3 * (4 + 0.25 - np.log(0.25)))
    x, y = np.full((5, 2, 2, 3), 1.0, "float32"), np.full((5, 2, 2, 3), -2.0, "float32")
    assert float(distance(x, y, "l1")) == 12 * 3 and float(distance(x, y)) == 12 * 9


class Constant:
    """Stands for both networks: logits, codes and images known beforehand."""

    features_of = staticmethod(lambda x: np.mean(x, axis=(1, 2), keepdims=True))

    def features(self, a=None, b=None, drop=None):
        return keras.ops.concatenate([self.features_of(x) for x in (a, b) if x is not None])

    def real(self, features):
        x = keras.ops.reshape(features, (-1, 1))
        return keras.ops.concatenate([keras.ops.zeros_like(x), x], axis=1)

    def digit(self, features):
        return keras.ops.zeros((features.shape[0], 10))


def test_phases_weigh_their_losses_as_published(monkeypatch):
    """Images of one colour, whose mean is the discriminator's logit of 'real': all sums can be done by hand."""
    model = build(feature_distance="l2", lambda_feature=1e-2)
    colours = {"aa": 0.1, "ba": 0.2, "ab": 0.4, "bb": 0.8}
    made = {k: keras.ops.full((2, 32, 32, 1), v) for k, v in colours.items()}
    made |= {"mean": keras.ops.ones((4, 1, 1, 16)), "deviation": keras.ops.ones((4, 1, 1, 16))}
    monkeypatch.setattr(model, "translations", lambda *_: made)
    monkeypatch.setattr(model, "discriminator", Constant())
    Constant.features_of = staticmethod(lambda x: keras.ops.mean(x, axis=(1, 2), keepdims=True))
    a, b = keras.ops.full((2, 32, 32, 1), 0.6), keras.ops.full((2, 32, 32, 1), -0.6)
    inputs = {"a": a, "b": b, "seeds": layers.batch_seeds(0, 0, tf.range(2), "x")}

    def ce(logit, real):
        return np.log1p(np.exp(-logit if real else logit))

    losses, _ = model.discriminator_phase(2, **inputs, labels=np.array([1, 2]))
    real = (ce(0.6, True) + ce(-0.6, True)) / 2
    fake = 0.5 * ((ce(0.2, False) + ce(0.4, False)) / 2 + (ce(0.1, False) + ce(0.8, False)) / 2)
    expected = {
        "class": 10 * np.log(10),
        "discriminator": real + fake,
        "feature": 1e-2 * ((0.4 - 0.1) ** 2 + (0.2 - 0.8) ** 2),
    }
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(expected, rel=1e-5)
    losses, _ = model.generator_phase(2, **inputs)
    expected = {
        "kl": 1e-4 * 2 * 16 * 2,
        "reconstruction_a": 1e-3 * 1024 * 0.25,
        "reconstruction_b": 1e-3 * 1024 * 1.4**2,
        "gan": (ce(0.2, True) + ce(0.4, True)) / 2 + (ce(0.1, True) + ce(0.8, True)) / 2,
    }
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(expected, rel=1e-5)
    model.config = dataclasses.replace(model.config, feature_distance="l1")
    losses, _ = model.discriminator_phase(2, **inputs, labels=np.array([1, 2]))
    assert float(losses["feature"]) == pytest.approx(1e-2 * (0.3 + 0.6), rel=1e-5)


def test_translations_are_named_from_and_to(monkeypatch):
    class Plain:
        def encode(self, a, b, training):
            return keras.ops.concatenate([a, b]), 3 * keras.ops.ones((4, 1, 1, 1))

        def decode(self, z, training):
            return [z + 0.1, z + 0.2]

    model = build()
    monkeypatch.setattr(model, "generator", Plain())
    a, b, noise = (keras.ops.full((n, 1, 1, 1), v) for n, v in ((2, 10.0), (2, 20.0), (4, 100.0)))
    made = model.translations(a, b, noise)
    means = {k: float(keras.ops.mean(made[k])) for k in ("aa", "ba", "ab", "bb")}
    assert means == pytest.approx({"aa": 310.1, "ba": 320.1, "ab": 310.2, "bb": 320.2})


# Steps


def learn(model, data, strategy=None):
    strategy = strategy or tf.distribute.OneDeviceStrategy("/cpu:0")
    replicas = strategy.num_replicas_in_sync
    step = tf.function(lambda x: strategy.run(model.train_step, args=(x,)), autograph=False)
    history = []
    for whole in data:
        size = len(whole[0]) // replicas

        def part(context, whole=whole, size=size):
            i = context.replica_id_in_sync_group * size
            return tuple(tf.constant(x[i : i + size]) for x in whole)

        losses = step(strategy.experimental_distribute_values_from_function(part))
        history.append({k: float(strategy.reduce("mean", v, axis=None)) for k, v in losses.items()})
    return history


def compiled(strategy=None, n=4, **given):
    with (strategy or tf.distribute.OneDeviceStrategy("/cpu:0")).scope():
        model = build(**given)
        model.compile()
        model.build_for_training((n, 32, 32, 1), (n, 32, 32, 1))
        model.build_optimizers()
    return model


def tensors(arrays):
    return tuple(map(tf.constant, arrays))


def test_a_step_moves_every_weight_of_its_own_networks():
    model, fresh = compiled(), build()
    assert all(np.isfinite(v) for v in model.train_step(tensors(batch())).values())
    for name in ("generator", "discriminator"):
        for new, old in zip(model.networks[name].trainable_variables, fresh.networks[name].trainable_variables):
            assert np.abs(as_numpy(new) - as_numpy(old)).max() > 0, new.path
    assert model.discriminator_optimizer.coupled_weight_decay == 5e-4
    assert float(model.generator_optimizer.learning_rate) == pytest.approx(2e-4)


def test_generator_learns_from_the_discriminators_after_their_update():
    model = compiled()
    before, seen, phase = as_numpy(model.discriminator.judge.bias), [], model.phase

    def watched(compute, role, **inputs):
        seen.append((role, as_numpy(model.discriminator.judge.bias)))
        return phase(compute, role, **inputs) if role == "discriminator" else ({}, {})

    model.phase = watched
    model.train_step(tensors(batch()))
    assert [role for role, _ in seen] == ["discriminator", "generator"]
    assert (seen[0][1] == before).all() and (seen[1][1] != before).all()


def test_two_replicas_draw_as_one():
    """Batch statistics are each replica's own, so only what has none is compared: the classifier of the baseline."""
    data = [batch(seed=i) for i in range(2)]
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    two = learn(compiled(strategy, 2, **SAMPLEWISE), data, strategy)
    one = compiled(**SAMPLEWISE)
    for found, arrays in zip(two, data):
        assert {k: float(v) for k, v in one.train_step(tensors(arrays)).items()} == pytest.approx(found, rel=1e-4)


@pytest.mark.thorough
def test_two_replicas_stay_equal():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    whole = compiled(strategy, 2)
    learn(whole, [batch(seed=i) for i in range(2)], strategy)
    for variable in whole.variables + whole.generator_optimizer.variables + whole.discriminator_optimizer.variables:
        copies = [v.numpy() for v in variable.value.values]
        np.testing.assert_array_equal(copies[0], copies[1], err_msg=variable.path)
    for variable in whole.non_trainable_variables:
        assert variable.aggregation != "none", variable.path


def test_accumulated_parts_equal_the_whole_batch():
    """Parts have batch statistics of their own, so what is compared has none: the classifier of the baseline."""
    whole, parts = compiled(**SAMPLEWISE), compiled(**SAMPLEWISE)
    parts.accumulate = 2
    losses, found = (model.train_step(tensors(batch())) for model in (whole, parts))
    assert float(losses["class"]) == pytest.approx(float(found["class"]), rel=1e-4)
    for x, y in zip(whole.discriminator_optimizer.variables, parts.discriminator_optimizer.variables, strict=True):
        np.testing.assert_allclose(as_numpy(x), as_numpy(y), rtol=1e-3, atol=1e-6, err_msg=x.path)


def test_xla_equals_plain():
    """Without dropout and noise, for which XLA draws other numbers from the same seeds."""
    plain, fast = compiled(dropout=False, **SAMPLEWISE), compiled(dropout=False, **SAMPLEWISE)
    fast.xla = True
    losses, found = (model.train_step(tensors(batch())) for model in (plain, fast))
    assert float(losses["class"]) == pytest.approx(float(found["class"]), rel=1e-4)


def test_draws_of_a_part_are_rows_of_the_whole():
    seeds = layers.batch_seeds(3, 7, tf.range(6), "x")
    whole = layers.batch_draws(tf.random.stateless_uniform, seeds, 6, (2, 3)).numpy()
    part = layers.batch_draws(tf.random.stateless_uniform, seeds[2:5], 6, (2, 3)).numpy()
    np.testing.assert_array_equal(part, whole[2:5])
    others = [layers.batch_seeds(3, 8, tf.range(6), "x"), layers.batch_seeds(3, 7, tf.range(6), "y")]
    draws = [layers.batch_draws(tf.random.stateless_uniform, s, 6, (2, 3)).numpy() for s in others]
    draws += [whole, layers.batch_draws(tf.random.stateless_uniform, seeds, 6, (2, 3), 1).numpy()]
    assert len({d.tobytes() for d in draws}) == 4


def test_dropout_drops_its_rate_and_keeps_the_mean():
    model = build()
    drop = model.dropout(layers.batch_seeds(0, 0, tf.range(4), "x"), 4, 0)
    y = as_numpy(drop(keras.ops.ones((8, 16, 16, 8)), 0.3, 1))
    assert set(np.unique(y)) == {0, np.float32(1 / 0.7)}
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.02)
    assert not np.array_equal(y[:4], y[4:])


def test_model_learns_to_classify():
    """Digit d is a bright row d: a few steps of the baseline are enough."""
    y = np.arange(40) % 10
    x = np.full((40, 32, 32, 1), -1, "float32")
    for image, digit in zip(x, y):
        image[3 * digit : 3 * digit + 3] = 1
    model = compiled(n=40, baseline=True, learning_rate=3e-3, discriminator_width=8)
    learn(model, [(x, x, y.astype("int32"))] * 30)
    assert model.accuracy(x, y, "a") == model.accuracy(x, y, "b") == 1
    assert model.classify(((x + 1) * 127.5).astype("uint8")).tolist() == y.tolist()


# Runs


def configured(path, **given):
    return settings.resolve("adaptation", {
        "source": path, "target": path, **TINY, "batch_size": 4, "steps": 4, "precision": "float32",
        "save_every": 2, "log_every": 1, "sample_every": 4, **given,
    })  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Path of 20 digits that are noise."""
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, x=np.random.default_rng(0).integers(0, 256, (20, 16, 16), "uint8"), y=np.arange(20) % 10)
    return str(path)


@pytest.fixture(scope="module")
def baseline_run(data, tmp_path_factory):
    """A finished run of the baseline, which tests do not change, and its model."""
    path = tmp_path_factory.mktemp("baseline") / "run"
    return path, loop.train(configured(data, baseline=True, channels_a=3), path)


def assert_resumed(whole, run, again):
    """`again`, resumed in a copy of its run directory, has the weights and the state of the unbroken run."""
    for x, y in zip(
        *[m.variables + [v for r in m.roles for v in m.optimizer_of(r).variables] for m in (whole, again)], strict=True
    ):
        np.testing.assert_array_equal(as_numpy(x), as_numpy(y), err_msg=x.path)
    assert (run / "samples" / "00000004.png").is_file()
    loaded, x = checkpoints.load(run), batch(channels=(whole.channels_a, 1))[0]
    np.testing.assert_array_equal(loaded.classify(x, "a"), whole.classify(x, "a"))


def broken(run, path):
    """A copy of a finished run as it was when its step 2 was saved."""
    shutil.copytree(run, path)
    shutil.rmtree(path / "checkpoints" / "00000004")
    return path


def test_stopped_and_resumed_is_an_unbroken_run(data, baseline_run, tmp_path):
    run, whole = baseline_run
    again = loop.train(configured(data, baseline=True, channels_a=3), broken(run, tmp_path / "broken"))
    assert_resumed(whole, run, again)


@pytest.mark.thorough
def test_stopped_and_resumed_on_two_replicas_is_an_unbroken_run(data, tmp_path):
    more = {"strategy": "mirrored", "replicas": 2}
    whole = loop.train(configured(data, **more), tmp_path / "whole")
    again = loop.train(configured(data, **more), broken(tmp_path / "whole", tmp_path / "broken"))
    assert_resumed(whole, tmp_path / "whole", again)


def assert_metrics(run, shown, metrics, digits_of_target):
    assert json.loads((run / "metrics.json").read_text()) == metrics
    test, loaded = digits.open_domain(digits_of_target, "target", "test"), checkpoints.load(run)
    assert metrics["target_digits"] == 4
    assert metrics["target_accuracy"] == (loaded.classify(test.images, "b") == test.labels).mean()
    assert "target: " in shown


def test_command_ends_with_the_accuracy_of_the_last_weights(data, tmp_path, capsys):
    run, chosen = tmp_path / "run", configured(data, steps=2, channels_a=3)
    metrics = adapt.adapt(chosen, run)
    assert metrics["step"] == 2 and not metrics["baseline"] and 0 <= metrics["translated_accuracy"] <= 1
    assert_metrics(run, capsys.readouterr().out, metrics, Digits(target=data))


def test_finished_baseline_is_measured(data, baseline_run, tmp_path, capsys):
    run = shutil.copytree(baseline_run[0], tmp_path / "run")
    metrics = adapt.adapt(configured(data, baseline=True, channels_a=3), run)
    assert metrics["step"] == 4 and metrics["baseline"] and "translated_accuracy" not in metrics
    assert_metrics(run, capsys.readouterr().out, metrics, Digits(target=data, channels_b=3))  # as the source has


def test_metrics_are_whole_or_as_they_were(data, tmp_path, monkeypatch):
    trained = types.SimpleNamespace(
        step=tf.constant(1), distribute_strategy=tf.distribute.get_strategy(), accuracy=lambda *_: 0.5
    )
    monkeypatch.setattr(loop, "train", lambda *_: trained)
    (tmp_path / "run").mkdir()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    before = adapt.adapt(configured(data, baseline=True, steps=1), tmp_path / "run")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        adapt.adapt(configured(data, baseline=True, steps=1), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == before


def test_command_line(data, baseline_run, tmp_path):
    flags = [f"--source={data}", f"--target={data}", "--generator_width=2", "--discriminator_width=4"]
    command = [sys.executable, "-m", "tfi2i.adapt", *flags, "--run_dir=x", "--print_config", "--feature_distance=l2"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    run = settings.Run.from_json(shown)
    assert run == settings.resolve("adaptation", {
        "source": data, "target": data, "generator_width": 2, "discriminator_width": 4, "feature_distance": "l2",
    })  # fmt: skip
    assert (run.training.steps, run.training.batch_size, run.model.lambda_class) == (200_000, 64, 10)
    run, _ = baseline_run
    command = [sys.executable, "-m", "tfi2i.adapt", f"--flagfile={run}/flags.txt", "--run_dir=x", "--print_config"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert settings.Run.from_json(shown) == run_directory.read(run)
    refused = subprocess.run(
        [sys.executable, "-m", "tfi2i.train", "--method=adaptation", "--run_dir=x"], capture_output=True, text=True
    )
    assert refused.returncode == 2 and "tfi2i adapt" in refused.stderr


def test_help_loads_no_tensorflow():
    code = (
        "import runpy, sys\nsys.argv = ['adapt', '--help']\n"
        "try:\n    runpy.run_module('tfi2i.adapt', run_name='__main__')\n"
        "finally:\n    print('heavy:', sorted({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "heavy: []" in done.stdout, done.stderr
    for word in ("--source", "--feature_distance", "[200000]", "--[no]baseline"):
        assert word in done.stdout, word
