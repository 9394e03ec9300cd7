"""Segmentation scores on Cityscapes, "FCN score" of photographs and "classification performance" of label pictures.

As in section 5.1 of CycleGAN (arXiv 1703.10593) and the code of pix2pix that both papers used
(scripts/eval_cityscapes): photographs are segmented by FCN-8s (Long et al., arXiv 1411.4038) and compared with the
label maps that the labels are from. The published network was trained on images of 256 pixels a side that had been
enlarged to 1024 x 2048, the size of the label maps: full photographs are not its input.
"""

import hashlib
import mmap
import pathlib
import re

import numpy as np

from tfi2i.config import UserError
from tfi2i.data import images
from tfi2i.metrics import METRICS
from tfi2i.metrics.pairs import without_side

# Of the 19 classes, in the order of the train ids: name, id in label maps, colour in label pictures.
CLASSES = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
VOID = 255
SCORES = tuple(METRICS["fcn_score"].columns)
_MEAN_BGR = (72.78044, 83.21195, 73.45286)
_BLOCKS = (("1_1", "1_2"), ("2_1", "2_2"), ("3_1", "3_2", "3_3"), ("4_1", "4_2", "4_3"), ("5_1", "5_2", "5_3"))
_HEAD = ("fc6_cs", "fc7_cs", "score_fr", "upscore2", "score_pool4", "upscore_pool4", "score_pool3", "upscore8")
_WITHOUT_BIAS = ("upscore2", "upscore_pool4", "upscore8")
# Less agreement of a picture of labels with its label map than this, and the two do not belong together.
_AGREEMENT = 0.5
_WEIGHTS_URL = (
    "http://people.eecs.berkeley.edu/~tinghuiz/projects/pix2pix/fcn-8s-cityscapes/fcn-8s-cityscapes.caffemodel"
)


class FCN8s:
    """FCN-8s with VGG-16, as fcn-8s-cityscapes.caffemodel has it; widths are the file's.

    Args:
        path: the file of weights.

    Attributes:
        sha256: of that file, hexadecimal.
        weights: its name.

    Raises:
        UserError: it cannot be read, or is another network.
    """

    def __init__(self, path):
        import tensorflow as tf

        self.weights = pathlib.Path(path).name
        blobs = read_caffemodel(path)
        with open(path, "rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        convolutions = [f"conv{name}" for block in _BLOCKS for name in block]
        self._kernels, self._biases = {}, {}
        for name in (*convolutions, *_HEAD):
            arrays = blobs.get(name, [])
            wanted = 1 if name in _WITHOUT_BIAS else 2
            if len(arrays) != wanted or arrays[0].ndim != 4 or (wanted == 2 and arrays[1].size != len(arrays[0])):
                raise UserError(
                    f"{path} is not FCN-8s for Cityscapes: layer {name} has arrays of shape "
                    f"{[array.shape for array in arrays]}. Expected fcn-8s-cityscapes.caffemodel of pix2pix"
                )
            # (out, in, h, w) → (h, w, in, out); of transposed convolutions (in, out, h, w) → (h, w, out, in).
            self._kernels[name] = tf.constant(arrays[0].transpose(2, 3, 1, 0))
            if wanted == 2:
                self._biases[name] = tf.constant(arrays[1].ravel())
        self._classes = tf.function(
            lambda x: tf.argmax(self.scores(x), -1, tf.int32), [tf.TensorSpec((1, None, None, 3), tf.float32)]
        )

    def scores(self, pixels):
        """float32 [1, H, W, 3], RGB in levels from 0 to 255 → scores of 20 classes [1, H, W, 20]; the last is void."""
        import tensorflow as tf

        x, maps = tf.reverse(pixels, [-1]) - _MEAN_BGR, []
        # The published way to keep small images alive through five pools; what it adds is cut off below.
        x = tf.pad(x, [[0, 0], [100, 100], [100, 100], [0, 0]])
        for block in _BLOCKS:
            for name in block:
                x = tf.nn.relu(self._convolve(x, f"conv{name}", "VALID" if name == "1_1" else "SAME"))
            x = tf.nn.max_pool2d(x, 2, 2, "SAME")  # windows over the edge count, as in Caffe
            maps.append(x)
        for name in ("fc6_cs", "fc7_cs"):
            x = tf.nn.relu(self._convolve(x, name))
        x = self._upsample(self._convolve(x, "score_fr"), "upscore2", 2)
        x += _cut(self._convolve(maps[3], "score_pool4"), x, 5)
        x = self._upsample(x, "upscore_pool4", 2)
        x += _cut(self._convolve(maps[2], "score_pool3"), x, 9)
        return _cut(self._upsample(x, "upscore8", 8), pixels, 31)

    def segment(self, pixels):
        """uint8 [H, W, 3] → the class of each pixel, uint8 [H, W]: a train id, or 19 for void."""
        return self._classes(pixels[None].astype(np.float32))[0].numpy().astype(np.uint8)

    def _convolve(self, x, name, padding="VALID"):
        import tensorflow as tf

        return tf.nn.conv2d(x, self._kernels[name], 1, padding) + self._biases[name]

    def _upsample(self, x, name, factor):
        import tensorflow as tf

        kernel = self._kernels[name]
        n, h, w, _ = tf.unstack(tf.shape(x))
        side = kernel.shape[0]
        size = [n, (h - 1) * factor + side, (w - 1) * factor + side, kernel.shape[2]]
        return tf.nn.conv2d_transpose(x, kernel, size, factor, "VALID")


def _cut(x, like, offset):
    import tensorflow as tf

    h, w = tf.shape(like)[1], tf.shape(like)[2]
    return x[:, offset : offset + h, offset : offset + w]


def nearest_class(pixels):
    """The class whose colour is nearest in RGB: uint8 [H, W, 3] → uint8 [H, W], a train id."""
    pixels = pixels.astype(np.int32)
    distances = [np.square(pixels - colour).sum(-1) for _, _, colour in CLASSES]
    return np.argmin(distances, 0).astype(np.uint8)


# -------------------------------------------------------------------------------------------------------- label maps


class LabelMaps:
    """The label maps of a folder.

    Cityscapes' own gtFine/val, of which the files *_labelIds.png are taken, or any folder of grey pictures of train ids
    (0 to 18; more: void). They belong to the images of their name, where _leftImg8bit, _gtFine… and a final _A or _B
    are not compared. Images that have numbers for names, as the data set of CycleGAN has them, belong to the maps in
    alphabetical order.

    Args:
        folder: path.
        names: of the images that will be asked for.

    Raises:
        UserError: images without a map.
    """

    def __init__(self, folder, names):
        paths = images.find_images(folder)
        own = [p for p in paths if p.name.endswith("_labelIds.png")]
        self._by_id = bool(own)
        paths = own or [p for p in paths if p.name.endswith("_labelTrainIds.png")] or paths
        paths = {_stem(p.name): p for p in paths}
        stems = {name: _stem(name) for name in names}
        numbers = {name: int(stem) for name, stem in stems.items() if stem.isdecimal()}
        if all(stem in paths for stem in stems.values()):
            self._paths = {name: paths[stem] for name, stem in stems.items()}
        elif len(numbers) == len(names) == len(paths) and max(numbers.values()) - min(numbers.values()) < len(paths):
            ordered, first = sorted(paths.values()), min(numbers.values())
            self._paths = {name: ordered[number - first] for name, number in numbers.items()}
        else:
            lacking = next(name for name, stem in stems.items() if stem not in paths)
            raise UserError(
                f"{folder} has no label map of the name of {lacking}: expected one for each of {len(names)} images, or "
                f"as many as images where these are numbered; there are {len(paths)}"
            )

    def read(self, name):
        """The train ids of an image: uint8 [H, W], `VOID` where nothing counts.

        Raises:
            UserError: it cannot be read.
        """
        try:
            pixels = images.read_image(self._paths[name])
        except images.BadImage as error:
            raise UserError(str(error)) from error
        if pixels.shape[-1] != 1 or pixels.dtype != np.uint8:
            raise UserError(f"{self._paths[name]} is no label map: expected a grey picture of 8 bits, a class a pixel")
        table = np.full(256, VOID, np.uint8)
        for train_id, (_, label_id, _) in enumerate(CLASSES):
            table[label_id if self._by_id else train_id] = train_id
        return table[pixels[..., 0]]

    def check(self, name, picture):
        """Compares a map with the picture of the same labels, to find out when the two are not of one image.

        Args:
            name: of the image.
            picture: uint8 [H, W, 3], colours of the classes.

        Raises:
            UserError: most pixels disagree.
        """
        labels = self.read(name)
        counts = labels != VOID
        agree = (_enlarged(nearest_class(picture), labels.shape) == labels)[counts].mean() if counts.any() else 1.0
        if agree < _AGREEMENT:
            raise UserError(
                f"{self._paths[name]} is not the label map of {name}: its classes are those of the picture's colours "
                f"at {agree:.0%} of the pixels. Expected Cityscapes' colours in domain --label_domain, and maps "
                "of the same images"
            )


def _stem(name):
    return without_side(re.sub(r"(_leftImg8bit|_gtFine_[A-Za-z]+)+$", "", pathlib.PurePosixPath(name).stem))


def _enlarged(classes, size):
    """[H, W] at another size, each pixel the one below its centre."""
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, classes.shape))
    return classes[rows[:, None], columns]


# ------------------------------------------------------------------------------------------------------------- scores


class Segmentation:
    """What a protocol needs for segmentation scores.

    Args:
        weights: path of FCN-8s' weights; None: only label pictures can be scored.
        labels: folder of label maps, see `LabelMaps`.
        label_domain: "a" or "b", whose images are pictures of labels.
    """

    def __init__(self, weights, labels, label_domain="b"):
        self.network = FCN8s(weights) if weights else None
        self._folder, self.label_domain = labels, label_domain
        self._maps = {}

    @property
    def protocol(self):
        """A dict for metrics.json."""
        protocol = {"labels": str(self._folder), "label_domain": self.label_domain}
        if self.network:
            protocol |= {"segmentation_weights": self.network.weights, "segmentation_sha256": self.network.sha256}
        return protocol

    def open(self, direction, names):
        """Finds the label maps of the inputs of a direction.

        Raises:
            UserError: they are not there, or photographs are to be segmented and there is no network.
        """
        if direction[2] != self.label_domain and not self.network:
            raise UserError(
                f"--metrics=fcn_score of {direction} segments photographs: give --segmentation_weights=FILE, "
                f"pix2pix' file {_WEIGHTS_URL}, leave that direction out with --direction={direction[::-1]}, or give "
                "--label_domain where the other domain has the labels"
            )
        self._maps[direction] = LabelMaps(self._folder, names)

    def check(self, direction, name, source, truth):
        """Compares a label map with the picture of labels that belongs to it, see `LabelMaps.check`.

        Args:
            direction, name: of the input.
            source, truth: the pair, uint8 [H, W, C]; the truth or None.
        """
        picture = source if direction[0] == self.label_domain else truth
        if picture is not None:
            self._maps[direction].check(name, images.to_channels(picture, 3))

    def confusion(self, direction, name, result):
        """Counts the pixels of a translation by their class in the label map and in the translation.

        Args:
            direction, name: of the input.
            result: uint8 [H, W, C], the translation at any size.

        Returns:
            int64 [19, 20], see `confusion`.
        """
        labels, result = self._maps[direction].read(name), images.to_channels(result, 3)
        if direction[2] == self.label_domain:
            classes = _enlarged(nearest_class(result), labels.shape)
        else:
            classes = self.network.segment(images.resize(result, labels.shape, "bilinear"))
        return confusion(labels, classes)


def confusion(labels, classes):
    """Pixels by true class (rows) and class in the translation (columns; the last is void): int64 [19, 20].

    Args:
        labels: uint8 [H, W], train ids; all above 18 are left out.
        classes: uint8 [H, W], 0 to 19.
    """
    n, counted = len(CLASSES), labels < len(CLASSES)
    cells = labels[counted].astype(np.int64) * (n + 1) + classes[counted]
    return np.bincount(cells, minlength=n * (n + 1)).reshape(n, n + 1)


def scores(counts):
    """The three scores of a sum of `confusion`, as published.

    A class that no label map has counts as 0 in the two means, so images that do not show all 19 cannot reach 1. What
    the network calls void is wrong; the published code's bins make it a pixel of the next class, taken for road, and
    leave an image with such a pixel of a bicycle out altogether.

    Returns:
        dict of `SCORES`, 0 to 1: share of pixels that are right; mean over classes of the share of the class' pixels
        that are right; mean over classes of intersection over union.
    """
    right, true, assigned = np.diag(counts), counts.sum(1), counts.sum(0)[:-1]
    per_pixel, per_class = right.sum() / max(counts.sum(), 1), right / np.maximum(true, 1)
    iou = right / np.maximum(true + assigned - right, 1)
    return {name: float(np.mean(value)) for name, value in zip(SCORES, (per_pixel, per_class, iou))}


def with_errors(counts, draws=200):
    """`scores` of many images, with their standard errors.

    Args:
        counts: sequence of `confusion`, one of each image.
        draws: how often images are drawn anew, with replacement.

    Returns:
        dict of `SCORES`, and of each its `…_error`, the deviation over draws.
    """
    counts, rng = np.stack(counts), np.random.default_rng(0)
    drawn = [scores(counts[rng.integers(0, len(counts), len(counts))].sum(0)) for _ in range(draws)]
    errors = {f"{name}_error": float(np.std([d[name] for d in drawn])) for name in SCORES}
    return scores(counts.sum(0)) | errors


# --------------------------------------------------------------------------------------------------------- caffemodel


def read_caffemodel(path):
    """The arrays of a file of Caffe (a NetParameter of caffe.proto; of both its generations of layers).

    Args:
        path: the file; it is mapped, not read into memory.

    Returns:
        dict of layer's name → list of float32 arrays.

    Raises:
        UserError: it cannot be read, or is not such a file.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _layers(mapped)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a whole file of Caffe: {error}. Expected a .caffemodel") from error


# Field of NetParameter → of the layers in it, the fields of their names and arrays.
_LAYERS = {100: (1, 7), 2: (4, 6)}


def _layers(buffer):
    arrays = {}
    for number, layer in _fields(buffer, slice(0, len(buffer)), dict.fromkeys(_LAYERS, slice)):
        name_field, blob_field = _LAYERS[number]
        name, blobs = "", []
        for field, value in _fields(buffer, layer, {name_field: slice, blob_field: slice}):
            if field == name_field:
                name = buffer[value].decode()
            else:
                blobs.append(_blob(buffer, value))
        if blobs:
            arrays[name] = blobs
    return arrays


def _blob(buffer, where):
    """A BlobProto: float data in field 5, its shape in field 7 or, of old files, in fields 1 to 4."""
    parts, shape, old = [], None, {}
    kinds = dict.fromkeys((1, 2, 3, 4), int) | {5: (slice, bytes), 7: slice}
    for field, value in _fields(buffer, where, kinds):
        if field == 5:
            parts.append(buffer[value] if isinstance(value, slice) else value)
        elif field == 7:
            shape = [n for _, dim in _fields(buffer, value, {1: (slice, int)}) for n in _integers(buffer, dim)]
        else:
            old[field] = value
    if shape is None:
        shape = [old.get(field, 1) for field in (1, 2, 3, 4)]
    return np.frombuffer(b"".join(parts), "<f4").reshape(shape)


def _integers(buffer, value):
    """Integers of a repeated field, packed or not."""
    if isinstance(value, int):
        return [value]
    integers, at = [], value.start
    while at < value.stop:
        number, at = _varint(buffer, at)
        integers.append(number)
    return integers


def _fields(buffer, where, kinds):
    """Those fields of a message of protocol buffers that `kinds` has, number → type: int, bytes (4 or 8), or the slice
    of what is nested."""
    at = where.start
    while at < where.stop:
        key, at = _varint(buffer, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(buffer, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, at = buffer[at : at + size], at + size
        elif wire == 2:
            size, at = _varint(buffer, at)
            value, at = slice(at, at + size), at + size
        else:
            raise ValueError(f"field {number} at byte {at} is of no known kind")
        if at > where.stop:
            raise ValueError(f"field {number} ends at byte {at}, what it is part of at {where.stop}")
        if number in kinds:
            if not isinstance(value, kinds[number]):
                raise ValueError(f"field {number} at byte {at} is of another kind")
            yield number, value


def _varint(buffer, at):
    value = shift = 0
    while True:
        byte = buffer[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError(f"a number of more than 64 bits at byte {at}")
