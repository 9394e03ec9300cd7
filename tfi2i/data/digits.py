"""Sets of handwritten digits for domain adaptation, from where people have them, and the stream of their batches.

What --source and --target name, and --source_format and --target_format call it:

  tfds      tfds:mnist, tfds:svhn_cropped …: data that TFDS has prepared
  optdigits the word alone: scikit-learn's 1,797 digits of 8x8 pixels (pip install scikit-learn)
  npz       .npz with x_train, y_train, x_test, y_test (as Keras' mnist.npz), or x and y
  hdf5      .h5, .hdf5 with groups train and test of data and target (as USPS on Kaggle)
  libsvm    .libsvm, .bz2 or no ending: one line a digit, as usps.bz2 on the LIBSVM page, labels 1 to 10 for 0 to 9
  idx       folder with train-images-idx3-ubyte[.gz] and the like, as MNIST is published
  mat       .mat with X [32, 32, 3, N] and y, as SVHN is published, where 10 is the label of the digit 0

All become squares: of 32x32 pixels, or what else is the `side` of the method's class of data. SVHN's label of the digit
0 is 0 from TFDS, which changes it itself.
"""

import bz2
import dataclasses
import gzip
import hashlib
import pathlib
import zipfile
import zlib

import numpy as np
import tensorflow as tf

from tfi2i.config import Data, UserError
from tfi2i.data import images, sources
from tfi2i.levels import to_range

CLASSES = 10
_SUFFIXES = {
    ".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5", ".libsvm": "libsvm", ".bz2": "libsvm", ".txt": "libsvm",
    ".t": "libsvm", "": "libsvm", ".mat": "mat",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class DigitSet:
    """Digits of one domain and split.

    Attributes:
        images: uint8 [N, side, side, C].
        labels: int32 [N], 0 to 9.
        description: one line for the log.
    """

    images: np.ndarray
    labels: np.ndarray
    description: str

    def __len__(self):
        return len(self.images)

    @property
    def fingerprint(self):
        """SHA-256, in hexadecimal digits, of images and labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images))
        digest.update(np.ascontiguousarray(self.labels))
        return digest.hexdigest()


def open_domains(data, split="train"):
    """The pair of `DigitSet` source and target of one split, 'train' or 'test', with the channels that `data` names.

    Raises:
        UserError: nothing named, not there, of another form, not prepared.
    """
    source, target = (open_domain(data, domain, split) for domain in ("source", "target"))
    if split == "train" and data.target_inverted:
        both, labels = np.concatenate([target.images, 255 - target.images]), np.tile(target.labels, 2)
        target = DigitSet(both, labels, f"{target.description} and their inverted copies")
    return source, target


def open_domain(data, domain, split, channels=None):
    """One `DigitSet`.

    Where the data have no test part, `data.test_fraction` of them is held out, by a permutation that is always the
    same.

    Args:
        data: `tfi2i.methods.unit.config.Digits`.
        domain: "source" or "target".
        split: "train" or "test".
        channels: 1 or 3; None: the domain's own of `data`.
    """
    where = getattr(data, domain)
    if not where:
        raise UserError(f"--{domain} is missing: name digits, e.g. --{domain}=optdigits or --{domain}=mnist.npz")
    elsewhere = getattr(data, f"{domain}_test")
    parts = _read(where, domain, data)
    if elsewhere and split == "test":
        parts = _read(elsewhere, domain, data, f"--{domain}_test")
        parts.setdefault("test", parts.get("train"))
        where = elsewhere
    elif "test" not in parts and not elsewhere:
        x, y = parts["train"]
        order, held = np.random.default_rng(0).permutation(len(x)), round(len(x) * data.test_fraction)
        kept = {"test": np.sort(order[:held]), "train": np.sort(order[held:])}
        parts = {name: (x[chosen], y[chosen]) for name, chosen in kept.items()}
    if not len(parts.get(split, ((),))[0]):
        raise UserError(f"--{domain}={where} has no {split} part: it has {', '.join(parts)}")
    x, y = parts[split]
    if y.min() < 0 or y.max() >= CLASSES:
        raise UserError(f"--{domain}={where} has labels from {y.min()} to {y.max()}: expected 0 to {CLASSES - 1}")
    channels = channels or {"source": data.channels_a, "target": data.channels_b}[domain]
    x = _to_channels(resize(x, data.side, data.resize_filter), channels)
    return DigitSet(x, y.astype(np.int32), f"{len(x)} digits, {where}, {split}")


def resize(x, side, filter="nearest"):
    """uint8 [N, H, W, C] → [N, side, side, C]; `filter` nearest (pixel ⌊i H / side⌋) or bilinear (antialiased)."""
    if filter == "nearest":
        rows, columns = (np.arange(side) * n // side for n in x.shape[1:3])
        return x[:, rows][:, :, columns]
    parts = [tf.image.resize(x[i : i + 1024], (side, side), antialias=True) for i in range(0, len(x), 1024)]
    return np.concatenate([np.rint(part).astype(np.uint8) for part in parts])


def _to_channels(x, channels):
    n, h, w, c = x.shape
    return x if c == channels else images.to_channels(x.reshape(n * h, w, c), channels).reshape(n, h, w, channels)


# --------------------------------------------------------------------------------------------- formats


def _read(where, domain, data, flag=None):
    """dict of 'train' and, where there is one, 'test' → (uint8 [N, H, W, C], integer labels [N])."""
    flag = flag or f"--{domain}"
    form = getattr(data, f"{domain}_format") or _format(where)
    if form == "tfds":
        return _read_tfds(where.removeprefix("tfds:"), getattr(data, f"{domain}_split"), data)
    if form == "optdigits":
        return _read_optdigits()
    path = pathlib.Path(where)
    if not path.exists():
        raise UserError(f"{flag}={where} does not exist: expected tfds:NAME, optdigits, or a file or folder of digits")
    readers = {"npz": _read_npz, "hdf5": _read_hdf5, "libsvm": _read_libsvm, "idx": _read_idx, "mat": _read_mat}
    try:
        if form not in readers:
            raise ValueError(f"its name tells no format: give --{domain}_format, one of {', '.join(readers)}")
        parts = readers[form](path)
        for name, (x, y) in parts.items():
            if x.ndim != 4 or x.shape[-1] not in (1, 3) or 0 in x.shape or y.shape != x.shape[:1]:
                raise ValueError(f"its {name} part has images {x.shape} and labels {y.shape}")
    except UserError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{flag}={where} cannot be read as {form or 'digits'}: {error}") from error
    return parts


def _format(where):
    if where == "optdigits":
        return where
    if where.startswith("tfds:"):
        return "tfds"
    path = pathlib.Path(where)
    return "idx" if path.is_dir() else _SUFFIXES.get(path.suffix.lower())


def _pixels(x):
    """[N, H, W], [N, H, W, C] or rows of square grey images [N, H H] → uint8 [N, H, W, C].

    Floats are taken as [-1, 1] where one is negative, else as [0, 1] where none is above 1, else as [0, 255].
    """
    x = np.asarray(x)
    if x.ndim == 2:
        side = round(x.shape[1] ** 0.5)
        if side * side != x.shape[1]:
            raise ValueError(f"rows of {x.shape[1]} values are no square images")
        x = x.reshape(-1, side, side)
    if x.ndim == 3:
        x = x[..., None]
    if x.dtype == np.uint8 or not x.size:
        return x
    x = x.astype(np.float32)
    low, high = float(x.min()), float(x.max())
    if not (-1 <= low and high <= (1 if low < 0 else 255)):
        raise ValueError(f"pixels from {low:g} to {high:g}: expected uint8, or floats in [-1, 1], [0, 1] or [0, 255]")
    x = (x + 1) * 127.5 if low < 0 else x * 255 if high <= 1 else x
    return np.rint(x).astype(np.uint8)


def _labels(y):
    y = np.asarray(y).reshape(-1)
    if not np.array_equal(y, np.rint(y)):
        raise ValueError("its labels are no whole numbers")
    return y.astype(np.int64)


def _read_npz(path):
    with np.load(path) as file:
        if {"x_train", "y_train"} <= set(file.files):
            parts = [p for p in ("train", "test") if f"x_{p}" in file.files]
            return {p: (_pixels(file[f"x_{p}"]), _labels(file[f"y_{p}"])) for p in parts}
        if {"x", "y"} <= set(file.files):
            return {"train": (_pixels(file["x"]), _labels(file["y"]))}
        raise ValueError(f"it holds {', '.join(file.files)}, expected x_train, y_train, x_test, y_test or x, y")


def _read_hdf5(path):
    import h5py

    with h5py.File(path) as file:
        if "train" not in file:
            raise ValueError(f"it holds {', '.join(file)}, expected groups train and test")
        parts = [p for p in ("train", "test") if p in file]
        return {p: (_pixels(file[p]["data"][:]), _labels(file[p]["target"][:])) for p in parts}


def _read_libsvm(path):
    """Lines 'label 1:v 2:v …', values in [-1, 1], zeros perhaps left out."""
    opener = bz2.open if path.suffix == ".bz2" else open
    labels, rows = [], []
    with opener(path, "rt", encoding="ascii") as file:
        for number, line in enumerate(file, 1):
            try:
                label, *pairs = line.split()
                labels.append(float(label) - 1)
                rows.append({int(i): float(v) for i, v in (pair.split(":") for pair in pairs)})
            except ValueError as error:
                raise ValueError(f"line {number} is not 'label 1:value 2:value …'") from error
    if not rows:
        raise ValueError("it has no lines")
    x = np.zeros((len(rows), max(max(row, default=1) for row in rows)), np.float32)
    for values, row in zip(x, rows):
        values[np.fromiter(row, int) - 1] = list(row.values())
    return {"train": (_pixels(np.concatenate([x, np.full_like(x[:1], -1)]))[:-1], _labels(labels))}


def _read_idx(folder):
    parts = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        files = [
            next((p for s in ("", ".gz") if (p := folder / f"{prefix}-{kind}-ubyte{s}").is_file()), None)
            for kind in ("images-idx3", "labels-idx1")
        ]
        if all(files):
            parts[part] = _pixels(_idx(files[0])), _labels(_idx(files[1]))
    if "train" not in parts:
        raise ValueError("it holds no train-images-idx3-ubyte and train-labels-idx1-ubyte (or .gz)")
    return parts


def _idx(path):
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        content = file.read()
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} does not begin as an idx file of bytes does")
    sizes = np.frombuffer(content, ">i4", content[3], 4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    if values.size != np.prod(sizes):
        raise ValueError(f"{path.name} has {values.size} values, its head says {' x '.join(map(str, sizes))}")
    return values.reshape(sizes)


def _read_mat(path):
    try:
        import scipy.io
    except ImportError:
        raise UserError(f"{path} needs SciPy: pip install scipy") from None
    content = scipy.io.loadmat(path)
    if not {"X", "y"} <= set(content):
        raise ValueError("it holds no X and y")
    return {"train": (_pixels(np.moveaxis(content["X"], -1, 0)), _labels(content["y"]) % CLASSES)}


def _read_optdigits():
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("optdigits come with scikit-learn: pip install scikit-learn") from None
    digits = load_digits()
    return {"train": (_pixels(digits.images / 16), _labels(digits.target))}


def _read_tfds(name, split, data):
    import tensorflow_datasets as tfds

    try:
        builder = sources.prepared_builder(tfds, Data(tfds=name, tfds_dir=data.tfds_dir, download=data.download))
    except UserError as error:
        raise UserError(str(error).replace("--tfds=", "tfds:")) from error
    available = builder.info.splits
    if split not in available:
        raise UserError(f"tfds:{name} has no split {split}: it has {', '.join(available)}")
    parts = {}
    for part, wanted in (("train", split), ("test", "test")):
        if wanted in available:
            shape = (available[wanted].num_examples, *builder.info.features["image"].shape)
            x, y = np.empty(shape, np.uint8), np.empty(shape[:1], np.int64)
            for i, example in enumerate(tfds.as_numpy(builder.as_dataset(split=wanted))):
                x[i], y[i] = example["image"], example["label"]
            parts[part] = x, y
    return parts


# ---------------------------------------------------------------------------------------------- batches


class TrainingStream:
    """Batches of (A, B, labels of A), seekable and equal for every number of hosts and replicas.

    Sample k of a domain with n digits is digit k mod n of that domain's permutation number k // n.

    Attributes:
        bad_files, crops: empty; as `pipeline.TrainingStream` has them.
        shapes: the pair of shapes [side, side, C].
    """

    def __init__(self, source, target, data, *, value_range, seed, batch_size):
        """Arguments as of `pipeline.TrainingStream`, `source` and `target` being `DigitSet`s."""
        self._sets, self._range, self._seed, self._batch_size = (source, target), value_range, seed, batch_size
        self.bad_files, self.crops = [], []
        self.shapes = (source.images.shape[1:], target.images.shape[1:])

    def dataset(self, start_step=0, context=None):
        """Batches from `start_step` on, without an end: `tf.data.Dataset` of float32, float32, int32.

        Args:
            start_step: the step whose batch comes first.
            context: None, or the `tf.distribute.InputContext`: then this host's part, a batch per replica.
        """
        hosts = context.num_input_pipelines if context else 1
        replicas = context.num_replicas_in_sync if context else 1
        host = context.input_pipeline_id if context else 0
        size = self._batch_size // replicas
        here = replicas // hosts
        with tf.device("CPU"):
            pixels = [tf.constant(s.images) for s in self._sets]
            labels = tf.constant(self._sets[0].labels)

        def load(j):
            first = j // here * self._batch_size + (host * here + j % here) * size
            chosen = [self._chosen(domain, first, size) for domain in range(2)]
            a, b = (
                tf.ensure_shape(to_range(tf.cast(tf.gather(x, i), tf.float32), self._range), (size, *s))
                for x, i, s in zip(pixels, chosen, self.shapes)
            )
            return a, b, tf.ensure_shape(tf.gather(labels, chosen[0]), (size,))

        dataset = tf.data.Dataset.range(start_step * here, np.iinfo(np.int64).max)
        return dataset.map(load, num_parallel_calls=2, deterministic=True).prefetch(2)

    def names(self, step):
        """Positions of the digits of the global batch of `step`: (list of A, list of B)."""
        chosen = (self._chosen(domain, step * self._batch_size, self._batch_size) for domain in range(2))
        return tuple(i.numpy().tolist() for i in chosen)

    def raise_error(self):
        """Nothing: all that can be wrong with digits is found when they are opened."""

    def _chosen(self, domain, first, count):
        k, n = first + tf.range(count, dtype=tf.int64), len(self._sets[domain])
        seeds = tf.stack([tf.fill([count], np.int64(self._seed)), k // n, tf.fill([count], np.int64(domain))], axis=1)
        with tf.device("CPU"):  # the operation has no other kernel
            # Not tf.random.experimental.index_shuffle, which in TF 2.21 takes no seed for each index.
            return tf.raw_ops.RandomIndexShuffle(index=k % n, seed=seeds, max_index=np.int64(n - 1), rounds=4)


def examples(data, count, value_range):
    """The same held-out digits for every picture of a run: (source, target), float32 [count, side, side, C]."""
    shown = []
    for digits in open_domains(data, "test"):
        chosen = np.unique(np.linspace(0, len(digits) - 1, count).astype(int))
        shown.append(digits.images[chosen].astype(np.float32))
    n = min(map(len, shown))
    return tuple(tf.constant(to_range(x[:n], value_range)) for x in shown)
