"""Networks whose features realism is measured on. Numbers of different networks are different measures.

efficientnet_lite0     EfficientNet-Lite0, 1280 features of 224 px; weights: a package that is installed with tfi2i
inception_2015         Inception V3 of 2015, that of FID and KID, 2048 features of 299 px; weights: see `published`.
                       Resizing "original": TensorFlow 1's bilinear; "pytorch_fid": PyTorch's, with its scale
inception_torchvision  torchvision's Inception V3, that of I-L2; weights: see `published`.
                       Resizing "original": Pillow's bilinear on 8 bits
inception_keras        Keras' Inception V3; weights: a file, or downloaded by Keras

Resizing "clean" is that of clean-fid (Parmar et al., arXiv 2104.11222): Pillow's antialiased bicubic filter on float32
channels, cut to 0 … 255, not rounded.
"""

import concurrent.futures
import functools
import hashlib
import logging
import os
import pathlib
import zipfile

import numpy as np

from tfi2i import files
from tfi2i.config import UserError
from tfi2i.data import images
from tfi2i.metrics import published

# What resizing of a network's own there is, besides "clean": in words.
_RESIZES = {
    ("inception_2015", "original"): "TensorFlow 1's bilinear, not antialiased",
    ("inception_2015", "pytorch_fid"): "PyTorch's bilinear, not antialiased, pixels as 2 x / 255 - 1: pytorch-fid's",
    ("inception_torchvision", "original"): "Pillow's bilinear, antialiased, rounded to 8 bits",
}
_KERAS_WEIGHTS = (
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
    "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
_KERAS_MD5 = "bcbd6486424b2319ff4ef7d526e38f63"
# Layers of Keras' Inception V3 that have the last map of each size.
_KERAS_MAPS = ("mixed2", "mixed7", "mixed10")


class FeatureNetwork:
    """A network with its weights and its way of resizing.

    Args:
        name: one of `protocols.NETWORKS`.
        weights: path of a file; None: the package's for efficientnet_lite0, Keras' download for inception_keras, what
            `published.download` has fetched for the others.
        resize: "clean", "original" or "pytorch_fid".

    Attributes:
        name, resize: as given.
        sha256: of the file of weights, hexadecimal.
        weights: that file's name.
        standard: whether the file is the published one; None where that one's hash is not known.
        size: side of the square that the network sees.
        filter: the resizing in words.

    Raises:
        UserError: no weights, or not of this network.
    """

    def __init__(self, name="efficientnet_lite0", weights=None, resize="clean"):
        import tensorflow as tf

        self.name, self.resize = name, resize
        if resize != "clean" and (name, resize) not in _RESIZES:
            raise UserError(f"--feature_resize={resize} is not for {name}: give clean, or another --network")
        model, path, known = {
            "efficientnet_lite0": _efficientnet,
            "inception_2015": _inception_2015,
            "inception_torchvision": _inception_torchvision,
            "inception_keras": _inception_keras,
        }[name](weights)
        self.size = model.input_shape[1]
        self.weights = pathlib.Path(path).name
        with open(path, "rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            algorithm, digits = known or ("sha256", "")
            self.standard = hashlib.file_digest(file, algorithm).hexdigest().startswith(digits) if known else None
        self.filter = _RESIZES.get((name, resize), "Pillow's bicubic, antialiased, as clean-fid")
        signature = [tf.TensorSpec((None, self.size, self.size, 3), tf.float32)]
        self._features = tf.function(lambda x: model(x, training=False)[0], signature)
        self._maps = tf.function(lambda x: model(x, training=False)[1:], signature)

    @property
    def protocol(self):
        """What tells numbers of this network from others: a dict for metrics.json."""
        return {
            "network": self.name, "weights": self.weights, "weights_sha256": self.sha256,
            "weights_are_standard": self.standard, "size": self.size, "resize": self.filter,
        }  # fmt: skip

    def prepare(self, pixels):
        """uint8 [H, W, 1 or 3] → float32 [size, size, 3] in levels from 0 to 255; grey becomes three equal channels."""
        pixels = images.to_channels(pixels, 3)
        size = (self.size, self.size)
        if self.resize == "clean":
            resized = images.resize_float(pixels, size, "bicubic")
            return np.clip(resized, 0, 255, out=resized)
        if self.name == "inception_torchvision":
            return images.resize(pixels, size, "bilinear").astype(np.float32)
        import tensorflow as tf

        resize = functools.partial(tf.raw_ops.ResizeBilinear, images=pixels[None], size=size)
        if self.resize == "pytorch_fid":
            # The network's (x - 128) / 128 makes 2 x / 255 - 1 of it.
            return resize(half_pixel_centers=True)[0].numpy() * np.float32(256 / 255)
        return resize(half_pixel_centers=False)[0].numpy()

    def features(self, pictures):
        """The pooled features of images.

        Args:
            pictures: sequence of uint8 [H, W, C], sizes may differ.

        Returns:
            float32 [n, d].
        """
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            prepared = list(pool.map(self.prepare, pictures))
        return self.of_prepared(np.stack(prepared))

    def of_prepared(self, batch):
        """float32 [n, size, size, 3], as `prepare` makes them → the pooled features, float32 [n, d]."""
        return self._features(batch).numpy()

    def extract(self, read, n, batch_size=32, on_batch=lambda done: None):
        """The pooled features of many images; the next ones are read while the network works.

        Args:
            read: function of a position below `n` → uint8 [H, W, C], or None for an image to be left out. It is called
                from several threads.
            n: how many there are.
            batch_size: images that go through the network at once.
            on_batch: called with the number of images that are done.

        Returns:
            (features float32 [m, d], positions of the m images that could be read).
        """
        features, positions = [], []

        def load(i):
            pixels = read(i)
            return None if pixels is None else self.prepare(pixels)

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            starts = range(0, n, batch_size)

            def submit(start):
                return [(i, pool.submit(load, i)) for i in range(start, min(start + batch_size, n))]

            ahead = submit(0)
            for start in starts:
                batch, ahead = ahead, submit(start + batch_size)
                loaded = [(i, future.result()) for i, future in batch]
                loaded = [(i, x) for i, x in loaded if x is not None]
                if loaded:
                    positions += [i for i, _ in loaded]
                    features.append(self.of_prepared(np.stack([x for _, x in loaded])))
                on_batch(min(start + batch_size, n))
        return (np.concatenate(features) if features else np.zeros((0, 0), np.float32)), positions

    def perceptual_distance(self, x, y):
        """Distance of images in the network's maps: what LPIPS is without its learned weights, so not LPIPS.

        Every map is divided by its length over the channels, pixel by pixel; the squared differences are summed over
        channels, averaged over pixels and over the maps (Zhang et al., arXiv 1801.03924, equation 1, with w = 1).

        Args:
            x, y: sequences of uint8 [H, W, C] of equal length.

        Returns:
            float64 [n], 0 for equal images.
        """
        both = [self._maps(np.stack([self.prepare(p) for p in pictures])) for pictures in (x, y)]
        total = 0
        for a, b in zip(*both):
            a, b = (np.asarray(m, np.float64) for m in (a, b))
            a, b = (m / (np.linalg.norm(m, axis=-1, keepdims=True) + 1e-10) for m in (a, b))
            total += np.square(a - b).sum(-1).mean((1, 2))
        return total / len(both[0])


def cached(network, key, compute, folder=None):
    """Features of a set of images, from a file where they have been computed before.

    Args:
        network: a `FeatureNetwork`; its weights, resizing and name are part of the file's name.
        key: text or bytes that stands for the images: their content and how they are prepared.
        compute: function without arguments → (features, positions), as `FeatureNetwork.extract`.
        folder: where the files are; None: `default_cache()`; "": nothing is kept.

    Returns:
        (features float32 [m, d], list of positions).
    """
    if folder == "":
        return compute()
    key = key if isinstance(key, bytes) else key.encode()
    own = f"{network.name}\n{network.sha256}\n{network.filter}\n".encode()
    path = pathlib.Path(folder or default_cache()) / f"{network.name}-{hashlib.sha256(own + key).hexdigest()[:32]}.npz"
    try:
        with np.load(path) as stored:
            return stored["features"], stored["positions"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there, or a file that was not written to its end: made anew
    features, positions = compute()
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(beside, "wb") as file:
                np.savez(file, features=features, positions=np.array(positions, np.int64))
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        # A full or read-only disk costs time, not the result.
        logging.warning("features are not kept for the next time: %s", error)
    return features, positions


def default_cache():
    """The folder for features in the user's cache folder."""
    return files.user_cache("features")


def _efficientnet(path):
    from tfi2i.metrics import efficientnet

    path = path or efficientnet.weights_path()
    network = efficientnet.EfficientNetLite0()
    network.load(path)
    return network.model, path, ("sha256", efficientnet.SHA256)


def _inception_2015(path):
    from tfi2i.metrics import inception

    path = path or _fetched(
        "inception_2015",
        ", or classify_image_graph_def.pb out of "
        "http://download.tensorflow.org/models/image/imagenet/inception-2015-12-05.tgz",
    )
    network = inception.Inception()
    network.load(path)
    # No hash of the frozen graph could be looked at where this was written.
    known = None if str(path).endswith(".pb") else ("sha256", published.FILES["inception_2015"].sha256)
    return network.model, path, known


def _inception_torchvision(path):
    from tfi2i.metrics import inception

    path = path or _fetched("inception_torchvision")
    network = inception.Inception(torchvision=True)
    network.load(path)
    return network.model, path, ("sha256", published.FILES["inception_torchvision"].sha256)


def _fetched(network, other=""):
    """Path of a network's file that was fetched before; `other` says what else could be given."""
    path = published.cached(network)
    if not path:
        raise UserError(
            f"--network={network} needs weights that are not here: add --download_weights, or give "
            f"--network_weights=FILE, the file {published.FILES[network].url}{other}"
        )
    return path


def _inception_keras(path):
    import keras

    try:
        # Keras' own address, hash and place, so that one download serves both.
        path = path or keras.utils.get_file(
            _KERAS_WEIGHTS.rpartition("/")[2],
            _KERAS_WEIGHTS,
            cache_subdir="models",
            file_hash=_KERAS_MD5,
        )
        model = keras.applications.InceptionV3(include_top=False, weights=str(path), input_shape=(299, 299, 3))
    except Exception as error:
        raise UserError(
            "--network=inception_keras needs the weights of Keras' InceptionV3: "
            + (f"--network_weights={path} cannot be read" if path else "Keras could not download them")
            + f" ({str(error).splitlines()[0]}). Give --network_weights=FILE, the "
            f"file {_KERAS_WEIGHTS}"
        ) from error
    pixels = keras.Input((299, 299, 3))
    to_maps = keras.Model(model.input, [model.get_layer(name).output for name in _KERAS_MAPS])
    maps = to_maps(keras.layers.Rescaling(1 / 127.5, -1.0)(pixels))
    network = keras.Model(pixels, [keras.layers.GlobalAveragePooling2D()(maps[-1]), *maps])
    return network, path, ("md5", _KERAS_MD5)
