"""What `fit` and `evaluate` of a model take: made a data set of (A, B) batches of one shape, in the model's range."""

import itertools

import keras
import numpy as np
import tensorflow as tf


def as_dataset(model, x, y=None, batch_size=None, shuffle=False, training=True):
    """Makes a data set of batches that a model can learn from or be measured on.

    Args:
        model: a `Translator`.
        x: two arrays (A, B) [N, H, W, C]; A alone with B in `y`; or a `tf.data.Dataset`, `keras.utils.PyDataset` or
            generator of (A, B) batches. Pixels are uint8, uint16, or floats in `model.value_range`.
        y: B, where `x` is A.
        batch_size: of arrays, over all replicas; None: the least that replicas and `accumulate` take, mostly 1.
        shuffle: whether arrays, each by itself or as pairs where the model learns from these, and the batches of a
            PyDataset are shuffled for each epoch.
        training: True: each epoch leaves out a different remainder of arrays. False: a remainder raises `ValueError`.

    Returns:
        (data set, [shape of A's batches, shape of B's]).

    Raises:
        ValueError: it is something else, or the model cannot take these images.
    """
    parts = model.distribute_strategy.num_replicas_in_sync * (model.accumulate if training else 1)
    if y is not None or isinstance(x, (tuple, list)):
        x = (x, y) if y is not None else x
        if len(x) != 2:
            raise ValueError(f"{len(x)} arrays: expected two, the images of domain A and those of domain B")
        data = _of_arrays(model, [np.asarray(images) for images in x], batch_size or parts, shuffle, training)
    elif isinstance(x, np.ndarray) or tf.is_tensor(x):
        raise ValueError("one array: expected two, the images of domain A and those of domain B, as in fit(a, b)")
    elif batch_size is not None:
        raise ValueError(f"batch_size={batch_size} is for arrays: {type(x).__name__} gives batches itself")
    elif isinstance(x, tf.data.Dataset):
        _check_specs(x.element_spec)
        for batch in x.take(1):
            _check(model, [images.numpy() for images in batch])
        data = x
    elif isinstance(x, keras.utils.PyDataset) and x.num_batches is not None:
        data = _of_pydataset(model, x, shuffle)
    elif hasattr(x, "__next__") or isinstance(x, keras.utils.PyDataset):
        batches = iter(x) if hasattr(x, "__next__") else (x[i] for i in itertools.count())
        first = next(batches, None)
        batches = itertools.chain([first], batches)
        data = _generated(model, first, lambda: batches)  # epochs share it
    else:
        raise ValueError(
            f"{type(x).__name__}: expected two arrays (A, B), or a data set or generator of (A, B) batches: "
            "translation learns from two domains"
        )
    data = data.map(lambda a, b: (_in_range(model, a), _in_range(model, b)), tf.data.AUTOTUNE)
    shapes = [tuple(spec.shape) for spec in data.element_spec]
    if shapes[0][0] % parts:
        raise ValueError(
            f"batches of {shapes[0][0]} images: replicas and accumulate={model.accumulate} divide each batch, so that "
            f"its size must be a multiple of {parts}"
        )
    return data.prefetch(tf.data.AUTOTUNE), shapes


def split(x, y, fraction):
    """Splits two arrays into those to learn from and those to validate with.

    Args:
        x, y: as of `as_dataset`, arrays only.
        fraction: part of each array, at its end, to validate with.

    Returns:
        (A, B, (A, B) to validate with).

    Raises:
        ValueError: they are no two arrays, or one part of them would be empty.
    """
    arrays = (x, y) if y is not None else x
    if not isinstance(arrays, (tuple, list)) or len(arrays) != 2:
        raise ValueError("validation_split is for two arrays (A, B): give validation_data")
    arrays = [np.asarray(images) for images in arrays]
    kept = [len(images) - int(len(images) * fraction) for images in arrays]
    if not all(0 < n < len(images) for n, images in zip(kept, arrays)):
        lengths = " and ".join(str(len(images)) for images in arrays)
        raise ValueError(f"validation_split={fraction} of {lengths} images leaves a part without any")
    return *(x[:n] for x, n in zip(arrays, kept)), tuple(x[n:] for x, n in zip(arrays, kept))


def _of_arrays(model, arrays, batch_size, shuffle, training):
    _check(model, arrays)
    length = max(map(len, arrays))
    steps, rest = divmod(length, batch_size)
    if not min(map(len, arrays)) or not steps or rest and not training:
        raise ValueError(
            f"{' and '.join(str(len(images)) for images in arrays)} images in batches of {batch_size}: "
            + (f"{rest} would be left out" if steps and rest and not training else "there is no whole batch")
            + "; choose another batch_size"
        )

    def batches(images, count):
        domain = tf.data.Dataset.from_tensor_slices(images)
        domain = domain.shuffle(count) if shuffle else domain
        return domain.repeat().batch(batch_size, drop_remainder=True)

    if getattr(model.config_class.data_class, "paired", False):
        if len(arrays[0]) != len(arrays[1]):
            raise ValueError(f"{len(arrays[0])} and {len(arrays[1])} images: {model.name} learns from pairs")
        return batches(tuple(arrays), length).take(steps)
    return tf.data.Dataset.zip(*(batches(images, len(images)) for images in arrays)).take(steps)


def _of_pydataset(model, batches, shuffle):
    first, last = batches[0], batches[len(batches) - 1]
    shapes = [[np.shape(images) for images in batch] for batch in (first, last)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"batches of shapes {shapes[0]} and, at the end, {shapes[1]}: leave the remainder out")

    def epoch():
        order = np.random.permutation(len(batches)) if shuffle else range(len(batches))
        yield from (batches[i] for i in order)
        batches.on_epoch_end()

    return _generated(model, first, epoch).apply(tf.data.experimental.assert_cardinality(len(batches)))


def _generated(model, first, batches):
    """A data set of the batches that a function's generator gives, which are all like the `first`."""
    if not isinstance(first, (tuple, list)) or len(first) != 2:
        raise ValueError(f"batches of type {type(first).__name__}: expected (A, B)")
    first = [np.asarray(images) for images in first]
    _check(model, first)
    signature = tuple(tf.TensorSpec(images.shape, images.dtype) for images in first)
    return tf.data.Dataset.from_generator(
        lambda: (tuple(map(np.asarray, batch)) for batch in batches()), output_signature=signature
    )


def _check_specs(specs):
    if not isinstance(specs, tuple) or len(specs) != 2 or not all(isinstance(spec, tf.TensorSpec) for spec in specs):
        raise ValueError("the data set does not give pairs of batches (A, B): use tf.data.Dataset.zip(a, b)")
    if any(spec.shape.rank is None or None in tuple(spec.shape) for spec in specs):
        raise ValueError(
            f"batches of shapes {[str(spec.shape) for spec in specs]}: expected one static shape; use .batch(n, "
            "drop_remainder=True), and images of one size"
        )


def _check(model, arrays):
    """Raises `ValueError`: images of A and B that the model cannot learn from."""
    for images, domain in zip(arrays, "ab"):
        model.check_images(images, images.shape, domain)
        if images.ndim != 4:
            raise ValueError(f"images of shape {images.shape}: expected [N, H, W, {model.channels_of(domain)}]")
    sizes = [images.shape[1:3] for images in arrays]
    if sizes[0] != sizes[1]:
        (h, w), (other_h, other_w) = sizes
        raise ValueError(f"images of {h}x{w} pixels in A and of {other_h}x{other_w} in B: expected one size")
    if not model.sizes.fit(*sizes[0]):
        h, w = sizes[0]
        raise ValueError(f"images of {h}x{w} pixels: the networks take {model.sizes}")


def _in_range(model, x):
    return tf.cast(x, tf.float32) if x.dtype.is_floating else model.to_float(x)


class EpochMeans(keras.callbacks.Callback):
    """Makes `fit` and `evaluate` report means over an epoch. Of a model with a step of its own Keras reports the last
    batch.

    Attributes:
        measured: dict of loss name → mean over the batches of the last `evaluate`.
    """

    async_safe = True  # Keras need not wait for the device after every batch, but does before an epoch ends

    def on_epoch_begin(self, epoch, logs=None):
        self._learned = []

    def on_train_batch_end(self, batch, logs=None):
        self._learned.append(dict(logs))

    def on_epoch_end(self, epoch, logs=None):
        logs.update(_means(self._learned))

    def on_test_begin(self, logs=None):
        self._measured = []

    def on_test_batch_end(self, batch, logs=None):
        self._measured.append(dict(logs))

    @property
    def measured(self):
        return _means(self._measured)


def _means(batches):
    return {name: float(np.mean([float(logs[name]) for logs in batches])) for name in batches[0]} if batches else {}
