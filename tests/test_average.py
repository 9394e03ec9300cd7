"""Averages of the generators' weights: what is averaged, what translates with it, and where a run starts from it."""

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfi2i
from tests.methods.test_cyclegan import TINY
from tfi2i import checkpoints, layers, optim, run_directory, settings
from tfi2i.config import UserError
from tfi2i.conversion import exchange, sources
from tfi2i.methods import METHODS
from tfi2i.methods.cyclegan import published
from tfi2i.methods.cyclegan.model import CycleGAN

as_numpy = keras.ops.convert_to_numpy


class Network(keras.layers.Layer):
    """Weight, running mean, counter, unit vector: one of each kind of variable."""

    def build(self, input_shape):
        self.weight = self.add_weight(shape=(), initializer="ones", name="weight")
        self.mean = self.add_weight(shape=(), initializer="zeros", trainable=False, aggregation="mean", name="mean")
        alike = {"trainable": False, "aggregation": "only_first_replica"}
        self.count = self.add_weight(shape=(), initializer="zeros", dtype="int64", name="count", **alike)
        self.spectral = layers.SpectralNormalization(name="spectral")
        self.spectral.build((1, 2))
        self.built = True

    def call(self, x):
        self.mean.assign(self.mean + 100)
        return self.weight * x + self.mean


def test_average_by_hand():
    network = Network(name="network")
    network.build((None, 1))
    average = optim.Average(network, 0.75, name="average")
    average.build()
    assert [v.path for v, _ in average.pairs] == ["network/weight", "network/mean"]
    assert len(average.variables) == 2 and not average.trainable_variables
    for weight, mean, expected in ((3.0, 4.0, [1.5, 1.0]), (3.0, 4.0, [1.875, 1.75]), (-1.0, 0.0, [1.15625, 1.3125])):
        network.weight.assign(weight)
        network.mean.assign(mean)
        average.update()
        assert [float(v) for v in average.averages] == expected
    with optim.AveragedScope([average]):
        assert float(network(tf.constant(2.0))) == 2 * 1.15625 + 1.3125 + 100
    assert [float(network.weight), float(network.mean)] == [-1, 0]
    # The scope around gives the values of averages, and of what has none; not of weights that have an average.
    around = [(average.averages[0], 7.0), (network.mean, 100.0), (network.count, 5)]
    with keras.StatelessScope(around), optim.AveragedScope([average]):
        assert [float(v) for v in (network.weight, network.mean, network.count)] == [7, 1.3125, 5]
    average.restart()
    assert [float(v) for v in average.averages] == [-1, 0]
    average.averages[0].assign(5.0)
    average.replace()
    assert float(network.weight) == 5


def with_averages(method, **kwargs):
    """A tiny model of a method whose averages are other than its weights, and one without averages that has them."""
    tiny = importlib.import_module(f"tests.methods.test_{method}").TINY | kwargs
    model, plain = (METHODS[method].model_class(**tiny, ema_momentum=momentum) for momentum in (0.5, 0.0))
    for built in (model, plain):
        built.build((None, None, None, 3))
    values = {}
    for i, (v, a) in enumerate(pair for average in model.averages.values() for pair in average.pairs):
        a.assign(np.random.default_rng(i).normal(0, 0.1, a.shape).astype(np.float32) + a)
        values[v.path] = a
    for v in plain.variables:
        if v.path in values:
            v.assign(values[v.path])
    return model, plain


def test_a_young_average_follows_faster():
    """Step 0: at most 1/10 of the old average; step 8: 9/18; step 998: no longer less than the momentum of 3/4."""
    network = Network(name="network")
    network.build((None, 1))
    average = optim.Average(network, 0.75, warm_up=True, name="average")
    average.build()
    network.weight.assign(11.0)
    for step, expected in ((0, 10.0), (8, 10.5), (998, 10.625)):
        average.update(step)
        assert float(average.averages[0]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "method, generators", [("cyclegan", 2), ("unit", 6), ("ugatit", 2), ("uvcgan", 2), ("aggan", 4)]
)
def test_averages_translate_and_weights_learn(method, generators):
    model, plain = with_averages(method)
    learned = {n for n in model.networks if not n.startswith("discriminator")}
    assert len(learned) == generators and {*model.averages} == {f"{n}_average" for n in learned}
    own = {v.path for v in model.variables} - {v.path for v in plain.variables}
    assert not plain.averages and own == {v.path for average in model.averages.values() for v in average.variables}
    assert [v.path for v in model.weights_of("generator")] == [v.path for v in plain.weights_of("generator")]
    x = np.random.default_rng(0).uniform(*model.value_range, (1, 16, 20, 3)).astype(np.float32)
    for direction in ("a2b", "b2a"):
        np.testing.assert_array_equal(model.generate(x, direction), plain.generate(x, direction))
    if method in ("ugatit", "aggan"):
        np.testing.assert_array_equal(model.heatmaps(x)["generator"], plain.heatmaps(x)["generator"])
    for average in model.averages.values():
        average.restart()
    assert np.abs(model.generate(x) - plain.generate(x)).max() > 1e-3


def state(model):
    optimizers = [v for role in model.roles for v in model.optimizer_of(role).variables]
    return {v.path: as_numpy(v) for v in [*model.variables, *optimizers]}


def test_training_is_that_without_averages():
    draw, states = np.random.default_rng(0), []
    batch = [tf.constant(draw.uniform(-1, 1, (1, 16, 16, 3)), tf.float32) for _ in "ab"]
    tf.config.run_functions_eagerly(True)
    try:
        for momentum in (0.0, 0.75):
            model = CycleGAN(**TINY, ema_momentum=momentum)
            model.compile()
            model.build_for_training((1, 16, 16, 3), (1, 16, 16, 3))
            model.build_optimizers()
            before = state(model)
            model.train_step(batch)
            states.append(state(model))
    finally:
        tf.config.run_functions_eagerly(False)
    off, on = states
    for path, value in off.items():
        np.testing.assert_array_equal(on[path], value, err_msg=path)
    for average in model.averages.values():
        for v, a in average.pairs:
            np.testing.assert_allclose(on[a.path], 0.75 * before[v.path] + 0.25 * on[v.path], atol=1e-7)


def written(folder, model, **more):
    """A run directory of a model."""
    given = {"data": "emoji", **TINY, "ema_momentum": model.config.ema_momentum}
    checkpoints.save(folder, model, 1, keep=1)
    run_directory.write(folder, settings.resolve("cyclegan", given), **more)
    return folder


def assert_equal(parts, others):
    for name, part in parts.items():
        for ours, theirs in zip(part.variables, others[name].variables, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def test_a_run_keeps_weights_and_averages(tmp_path):
    model, _ = with_averages("cyclegan")
    loaded = tfi2i.load(written(tmp_path / "run", model))
    assert_equal(model.networks | model.averages, loaded.networks | loaded.averages)


def test_fine_tuning_starts_weights_from_weights_and_averages_from_averages(tmp_path):
    averaged, plain = with_averages("cyclegan", seed=3)
    runs = {0.5: written(tmp_path / "averaged", averaged), 0.0: written(tmp_path / "plain", plain)}
    for momentum in (0.9, 0.0):
        for source, theirs in ((averaged, runs[0.5]), (plain, runs[0.0])):
            model = CycleGAN(**TINY, ema_momentum=momentum)
            model.build((None, None, None, 3))
            checkpoints.initialise(model, theirs)
            assert_equal(model.networks, source.networks)
            if source.averages:
                assert_equal(model.averages, source.averages)
            else:
                for v, a in (pair for average in model.averages.values() for pair in average.pairs):
                    np.testing.assert_array_equal(v, a)
    other = CycleGAN(**TINY | {"generator_width": 6})
    other.build((None, None, None, 3))
    with pytest.raises(UserError, match="holds other networks: --generator_width was 4, is 6"):
        checkpoints.initialise(other, runs[0.5])


def test_the_official_code_gets_the_averages_as_its_generators(tmp_path):
    model, plain = with_averages("cyclegan")
    said = []
    for name, source in (("averaged", model), ("plain", plain)):
        exchange.export(written(tmp_path / name, source), tmp_path / f"{name}_out", log=said.append)
    assert sum("_average is written as generator_" in line for line in said) == 2
    ours, theirs = (sources.read(tmp_path / f"{n}_out", published.FILE_NAMES)[0] for n in ("averaged", "plain"))
    assert ours.keys() == theirs.keys() and len(ours) == 4
    for part, arrays in ours.items():
        for key, array in arrays.items():
            np.testing.assert_array_equal(array.numpy(), theirs[part][key].numpy(), err_msg=f"{part} {key}")


@pytest.mark.parametrize("method", ["cyclegan", "unit", "ugatit", "uvcgan2"])
@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_a_momentum_is_below_1(method, momentum):
    with pytest.raises(UserError, match=f"--ema_momentum={momentum}: expected 0 or more and less than 1"):
        settings.resolve(method, {"ema_momentum": momentum})


def test_pretraining_has_no_averages():
    with pytest.raises(UserError, match="--ema_momentum is not a flag of --method=uvcgan2 --task=pretrain"):
        settings.resolve("uvcgan2", {"task": "pretrain", "ema_momentum": 0.9})
