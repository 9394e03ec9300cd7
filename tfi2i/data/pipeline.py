"""The training stream: element k is a pure function of (seed, k, list of files), so any step can be started at."""

import atexit
import functools
import logging
import math
import threading
import time

import numpy as np
import tensorflow as tf

from tfi2i.config import UserError
from tfi2i.data import augment, edges, images, sources
from tfi2i.levels import to_range
from tfi2i.progress import Progress

_ORDER, _AUGMENT = range(2)  # purposes of random draws
_SMOOTHED = 2  # in the place of a domain, 0 (A) or 1 (B): the edge-smoothed pictures of one
_SQUEEZED = 1.02  # ratio of partners' aspects that counts as rounding
_PROBES = 16  # images per domain that are looked at before training, where one size comes out of all


class _Calls:
    """Counts the calls from tf.data's threads into Python, to end them before the interpreter does.

    An iterator that lives until the interpreter ends is destroyed while the GIL is held and waits for its threads; one
    that waits for the GIL to call Python then hangs the process (seen with TF 2.21). So at exit further calls fail at
    once, and the exit waits until the buffers are full of failures and no more calls come.
    """

    def __init__(self):
        self._lock, self._closed, self._begun, self._ended = threading.Lock(), False, 0, 0
        atexit.register(self._close)

    def __enter__(self):
        with self._lock:
            self._begun += 1
        if self._closed:
            self.__exit__()
            raise StopIteration

    def __exit__(self, *_):
        with self._lock:
            self._ended += 1

    def _close(self):
        self._closed, seen = True, 0
        while self._begun > seen or self._begun > self._ended:
            seen = self._begun
            time.sleep(0.25)


_calls = _Calls()


class TrainingStream:
    """Training batches of (A, B), seekable and equal for every number of hosts and replicas.

    Sample k of a domain with n images is image k mod n of that domain's permutation number k // n, resized, cropped
    and flipped by draws that depend on (seed, domain, k) alone. Step s consists of the samples s·B … s·B + B-1.
    A file that cannot be read is replaced by the next one of its permutation, with one warning.

    Of pairs there is one permutation, and both partners are cropped and flipped by the same draws. A pair with a file
    that cannot be read is replaced by the next pair.

    With `smoothed` a batch has a third part: pictures of one domain with their edges blurred. They are drawn
    independently of the other parts, smoothed after resizing, and cached as the others.

    Errors inside tf.data's threads reach the consumer as `tf.errors.OpError` without their type, so a loop does:

        try:
            batch = next(iterator)
        except tf.errors.OpError:
            stream.raise_error()
            raise

    Attributes:
        bad_files: list of (path, reason), each file once.
        error: None, or the `UserError` that stopped the stream.
        shapes: for each part of a batch the static shape [h, w, c] of an image, None where sizes differ between images.
        crops: how pictures become training crops, as lines for people.
    """

    def __init__(self, source_a, source_b, data, *, value_range, seed, batch_size, smoothed=None):
        """Prepares the stream, and checks the sizes of its images, see `check`.

        Args:
            source_a: `sources.Source` of domain A; `source_b` of domain B.
            data: `config.Data`.
            value_range: (low, high) of the float images, e.g. (-1, 1).
            seed: an integer; another one is another stream.
            batch_size: images per domain in one step, over all replicas and hosts.
            smoothed: "a" or "b": the domain of which batches have edge-smoothed pictures too, see `edges`; None: none.

        Raises:
            UserError: images smaller than the crop, of different sizes where nothing makes them equal, or partners of
                different shapes.
        """
        self._sources, self._data = (source_a, source_b), data
        self._range, self._seed, self._batch_size = value_range, seed % 2**64, batch_size
        self.bad_files, self.error = [], None
        self._bad, self._cache, self._lock = set(), {}, threading.Lock()
        sizes = [check(source, data) for source in self._sources]
        if data.paired:
            check_partners(source_a, source_b, data)
        self.crops = [*describe_halves(source_a, data), *describe_crops(sizes, data)]
        self.shapes = tuple(self._static_shape(*pair) for pair in zip(self._sources, sizes))
        self._smoothed = smoothed and "ab".index(smoothed)
        if smoothed:
            self.shapes += (self.shapes[self._smoothed],)
        self._caching = self._cache_fits(sizes)
        # Keyed by (domain, epoch); in a closure so that the cache goes with the stream.
        self._permutation = functools.lru_cache(maxsize=2 * len(self.shapes))(self._draw_permutation)

    def dataset(self, start_step=0, context=None):
        """Batches from `start_step` on, without an end.

        Args:
            start_step: the step whose batch comes first.
            context: None, or the `tf.distribute.InputContext` that `distribute_datasets_from_function` hands out: then
                a host's contiguous part of the global batch, as one batch per replica in their order. Replica r of R
                gets samples s·B + r·B/R … of step s.

        Returns:
            `tf.data.Dataset` of (A, B) or (A, B, smoothed), float32 [b, h, w, c] in `value_range`.

        Raises:
            UserError: the replicas cannot share the batch equally.
        """
        hosts = context.num_input_pipelines if context else 1
        replicas = context.num_replicas_in_sync if context else 1
        host = context.input_pipeline_id if context else 0
        if self._batch_size % replicas:
            raise UserError(
                f"--batch_size={self._batch_size} is the global one and cannot be shared equally by {replicas} replicas"
            )
        part = self._batch_size // hosts  # consecutive samples of this host in each step

        def load(j):
            k = j // part * self._batch_size + host * part + j % part
            parts = tf.numpy_function(self._load_parts, [k], (tf.float32,) * len(self.shapes), stateful=False)
            return tuple(tf.ensure_shape(x, shape) for x, shape in zip(parts, self.shapes))

        dataset = tf.data.Dataset.range(start_step * part, np.iinfo(np.int64).max)
        dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        dataset = dataset.batch(self._batch_size // replicas, drop_remainder=True)
        return dataset.prefetch(tf.data.AUTOTUNE)

    def names(self, step):
        """The names of the global batch of `step`, as far as bad files are known: a list of each part of the batch."""
        steps = range(step * self._batch_size, (step + 1) * self._batch_size)
        return tuple(
            [
                self._sources[self._shown(domain)].names[next(self._candidates(self._drawn_with(domain), k))]
                for k in steps
            ]
            for domain in range(len(self.shapes))
        )

    def raise_error(self):
        """Raises the error that stopped the stream, if one did."""
        if self.error:
            raise self.error

    def sample(self, domain, k):
        """Sample `k` of domain 0 (A) or 1 (B), or of the smoothed ones, 2: float32 [h, w, c] in `value_range`.

        Raises:
            UserError: too many bad files, or an image smaller than the crop.
        """
        data = self._data
        entropy = np.random.SeedSequence([self._seed, self._drawn_with(domain), k, _AUGMENT])
        draw = np.random.Generator(np.random.Philox(entropy))
        u_top, u_left, u_flip = draw.random(3)
        flipped = u_flip < (data.flip or 0)
        first = bool(data.flip_first)
        pixels, name = self._read(domain, k, mirrored=flipped and first)
        if data.rotate:
            pixels = augment.rotate(pixels, data.rotate * (2 * draw.random() - 1))
        if data.crop:
            h, w = pixels.shape[:2]
            _check_crop((h, w), data, name)
            top, left = int(u_top * (h - data.crop[0] + 1)), int(u_left * (w - data.crop[1] + 1))
            pixels = pixels[top : top + data.crop[0], left : left + data.crop[1]]
        elif None not in self.shapes[domain] and self.shapes[domain] != pixels.shape:
            raise _unequal([self.shapes[domain][:2], pixels.shape[:2]], name)
        if flipped and not first:
            pixels = pixels[:, ::-1]
        if data.jitter:
            return to_range(augment.jitter(scale(pixels, (0, 1)), data.jitter, draw.random(5)), self._range, peak=1)
        return scale(pixels, self._range)

    def _static_shape(self, source, sizes):
        h, w = _static_size(self._data)
        if h is None and self._batch_size > 1 and sizes:
            resized = {_resized_size(size, self._data) for size in sizes}
            if len(resized) > 1:
                raise _unequal(resized, source.description)
            h, w = resized.pop()
        return (h, w, source.channels)

    def _drawn_with(self, domain):
        """The domain whose draws another one takes: its own, or of pairs those of A."""
        return 0 if self._data.paired else domain

    def _shown(self, domain):
        """The domain whose files are read: of smoothed pictures that which they are of."""
        return self._smoothed if domain == _SMOOTHED else domain

    def _load_parts(self, k):
        with _calls:
            try:
                while True:
                    seen = len(self._bad)
                    parts = tuple(self.sample(domain, int(k)) for domain in range(len(self.shapes)))
                    if not self._data.paired or len(self._bad) == seen:
                        return parts
                    # A partner could not be read, and its pair was passed over by the second domain alone.
            except UserError as error:
                with self._lock:
                    self.error = self.error or error
                raise

    def _candidates(self, domain, k):
        """Indices of the file for sample k and of its replacements, known bad files left out."""
        shown = self._shown(domain)
        n = len(self._sources[shown])
        epoch, position = divmod(k, n)
        order = self._permutation(domain, epoch)
        for i in range(n):
            index = int(order[(position + i) % n])
            if (shown, index) not in self._bad:
                yield index
        which = "any pair" if self._data.paired else f"domain {'AB'[shown]}"
        raise UserError(f"none of the files of {which} can be read:\n{self._bad_list()}")

    def _draw_permutation(self, domain, epoch):
        n = len(self._sources[self._shown(domain)])
        seed = np.random.SeedSequence([self._seed, domain, epoch, _ORDER]).generate_state(2)
        with tf.device("CPU"):  # the operation has no other kernel
            order = tf.random.experimental.index_shuffle(tf.range(n, dtype=tf.int64), seed, np.int64(n - 1))
        return order.numpy()

    def _read(self, domain, k, mirrored):
        shown = self._shown(domain)
        for index in self._candidates(self._drawn_with(domain), k):
            key = (domain, index, mirrored)
            try:
                pixels = self._cache.get(key)
                if pixels is None:
                    pixels = self._sources[shown].read(index)
                    pixels = _resize(pixels[:, ::-1] if mirrored else pixels, self._data)
                    if domain == _SMOOTHED:
                        pixels = edges.smooth_edges(pixels[None])[0].numpy()
                    if self._caching:
                        self._cache[key] = pixels
                # Here too: another thread may have met the file that this sample passed over.
                self._check_bad_files()
                return pixels, self._sources[shown].names[index]
            except images.BadImage as bad:
                self._count(shown, index, bad)

    def _count(self, domain, index, bad):
        key = (self._drawn_with(domain), index)
        with self._lock:  # several threads may meet the same file
            if key not in self._bad:
                # Names are those within a folder, and both domains may have the same.
                path = f"{bad.path} of {'AB'[domain]}" if bad.path in self._sources[1 - domain].names else bad.path
                # In this order: who passes over a known bad file finds it counted.
                self.bad_files.append((path, bad.reason))
                self._bad.add(key)
                logging.warning("skipped an image that cannot be read: %s (%s)", path, bad.reason)
        self._check_bad_files()

    def _check_bad_files(self):
        if len(self.bad_files) > self._data.max_bad_files:
            raise UserError(
                f"{len(self.bad_files)} files cannot be read, more than --max_bad_files={self._data.max_bad_files}; "
                f"repair or remove them, or raise the limit:\n{self._bad_list()}"
            )

    def _bad_list(self):
        return "\n".join(f"  {path}: {reason}" for path, reason in self.bad_files)

    def _cache_fits(self, sizes):
        """Whether all images, decoded and resized, take at most `cache_gib`, judged by the first readable one."""
        total = 0
        for domain in range(len(self.shapes)):
            source, seen = self._sources[self._shown(domain)], sizes[self._shown(domain)]
            area = np.mean([np.prod(_resized_size(size, self._data)) for size in seen] or [0])
            try:
                depth = source.read(0).dtype.itemsize
            except images.BadImage:
                depth = 1
            total += len(source) * area * source.channels * depth
        if self._data.flip_first and self._data.flip:
            total *= 2  # an image and its mirror image
        return 0 < total <= self._data.cache_gib * 2**30


def check(source, data):
    """Looks at headers of `source`: of all images where the size after resizing is their own, else of a few.

    Returns:
        List of (height, width) before resizing, unreadable images left out.

    Raises:
        UserError: an image that the crop does not fit into, or sizes that `resize_mode` cannot take.
    """
    if data.resize_mode == "short_side" and data.resize and data.resize[0] != data.resize[1]:
        raise UserError(f"--resize={data.resize[0]},{data.resize[1]}: --resize_mode=short_side takes one number")
    probes = _PROBES if _static_resized_size(data) else len(source)
    sizes, progress, began = [], None, time.monotonic()
    for i in np.unique(np.linspace(0, len(source) - 1, probes).round().astype(int)):
        if progress is None and time.monotonic() - began > 2:
            progress = Progress(len(source), "image sizes looked at", start=i)
        if progress:
            progress.update(i + 1, source.description)
        try:
            size = source.image_size(i)
        except images.BadImage:
            continue  # it is counted when its turn comes
        if data.crop:
            _check_crop(_resized_size(size, data), data, source.names[i])
        sizes.append(size)
    if progress:
        progress.close()
    return sizes


def check_partners(a, b, data):
    """Looks at the headers of all pairs; unreadable ones are left out, they are counted when their turn comes.

    Args:
        a, b: `sources.Source` of as many images, whose partners have the same positions.
        data: `config.Data`.

    Raises:
        UserError: partners that are not of one size after resizing, or that are squeezed differently by it; pictures of
            both domains that have no two equal halves.
    """
    progress = Progress(len(a), "sizes of partners compared", active=len(a) > 1000)
    for i in range(len(a)):
        try:
            sizes = a.image_size(i), b.image_size(i)
        except images.BadImage:
            continue
        (height_a, width_a), (height_b, width_b) = sizes
        squeezed = height_a * width_b / (width_a * height_b)
        if len({_resized_size(size, data) for size in sizes}) > 1 or not 1 / _SQUEEZED < squeezed < _SQUEEZED:
            seen = " and ".join(f"{s.names[i]} is {h}x{w}" for s, (h, w) in zip((a, b), sizes))
            raise UserError(
                f"{seen} (height x width): partners must show the same scene in the same frame. Cut them alike; "
                "partners of one shape and different resolution need a --resize that brings them to one size"
            )
        progress.update(i + 1)
    progress.close()


def describe_halves(source, data):
    """Where each picture shows both domains side by side, a line that says so; else none."""
    if source.half is None:
        return []
    line = f"every picture in {source.folder} shows A and B side by side and is cut in the middle"
    return [line if data.paired else f"{line}; the method does not learn from pairs and mixes the halves"]


def describe_crops(sizes, data):
    """How pictures become training crops, and how much of a picture the networks see at a time.

    Args:
        sizes: for each domain a list of (height, width) of some of its pictures.
        data: `config.Data`.

    Returns:
        List of lines: one, or one for each domain where these differ; none where no picture can be read.
    """
    sizes = {domain: seen for domain, seen in zip("AB", sizes) if seen}
    medians = {domain: tuple(int(np.median(sides)) for sides in zip(*seen)) for domain, seen in sizes.items()}
    if len(set(medians.values())) > 1:
        return [f"pictures of {d} {_describe_crop(medians[d], len(sizes[d]), data)}" for d in medians]
    return [f"pictures {_describe_crop(whole, sum(map(len, sizes.values())), data)}" for whole in {*medians.values()}]


def _describe_crop(whole, count, data):
    resized = _resized_size(whole, data)
    crop = data.crop or resized
    share = math.prod(crop) / math.prod(resized)
    text = f"of {_in_words(whole)} (median of {count} header{'s' * (count > 1)})"
    if resized != whole:
        squeezed = resized[1] / resized[0] / (whole[1] / whole[0])
        verb = "enlarged" if math.prod(resized) > math.prod(whole) else "resized"
        text += f" are {verb} to {_in_words(resized)}"
        if not 0.95 < squeezed < 1.05:
            side, times = ("width", 1 / squeezed) if squeezed < 1 else ("height", squeezed)
            text += f" (their {side} is squeezed {times:.2g} times)"
        text += " and" if crop != resized else ""
    if crop == resized:
        return text + (" and" if resized != whole else " are") + " seen whole by the networks"
    text += f"{'' if resized != whole else ' are'} cropped to {_in_words(crop)}: the networks see {share:.0%} of a"
    text += " picture at a time"
    if share < 0.25 and crop[0] == crop[1]:
        larger = round(crop[0] * 1.125)  # about the published margin, 286 for 256
        mode = " --resize_mode=short_side" if data.resize_mode == "none" else ""
        text += f"; --crop={crop[0]}{mode} --resize={larger} shows nearly all of it, smaller"
    return text


def _in_words(size):
    return f"{size[0]} px" if size[0] == size[1] else f"{size[0]}x{size[1]} px (height x width)"


def eval_images(source, data, indices=None):
    """Images as evaluation and sample pictures show them: nothing random, all of the crop's size.

    With `resize_mode` exact the whole image becomes the crop's size, whatever its aspect, as in the published tests;
    with short_side it is scaled to cover the crop and its centre is taken; with none the centre is cut out. Without a
    crop it is only resized.

    Args:
        source: `sources.Source`.
        data: `config.Data`.
        indices: which images; None for all.

    Yields:
        (name, pixels [h, w, c] uint8 or uint16); an image that cannot be read is left out with a warning.
    """
    for i in range(len(source)) if indices is None else indices:
        try:
            yield source.names[i], _centre(source.read(i), data, source.names[i])
        except images.BadImage as bad:
            logging.warning("skipped an image that cannot be read: %s (%s)", bad.path, bad.reason)


def eval_preparation(data):
    """What decides how `eval_images` prepares images: two `config.Data` with equal ones give the same pictures.

    Args:
        data: `config.Data`.

    Returns:
        dict of `resize`, `resize_mode`, `resize_filter` and `crop`; what has no effect beside the others is None.
    """
    mode = (data.resize_mode or "exact") if data.resize else "none"
    return {
        "resize": None if data.crop or mode == "none" else data.resize,
        "resize_mode": mode,
        "resize_filter": None if mode == "none" else data.resize_filter or "bicubic",
        "crop": data.crop,
    }


def examples(data, count, value_range):
    """The same held-out images for every picture of a run; training images where there are no others.

    Args:
        data: `config.Data`.
        count: how many of each domain, at most.
        value_range: (low, high) of the float images.

    Returns:
        (A, B), float32 tensors [N, h, w, C]; partners side by side where `data` is paired.

    Raises:
        UserError: none of the chosen images can be read.
    """
    for split in ("val", "test", "train"):
        try:
            pair = data.open_domains(split)
        except sources.MissingSplit:
            continue
        chosen = [np.unique(np.linspace(0, len(source) - 1, count).astype(int)) for source in pair]
        shown = []
        for positions in zip(*chosen):
            both = [image for s, i in zip(pair, positions) for _, image in eval_images(s, data, [i])]
            if len(both) == 2 and [x.shape for x in both] == [x.shape for x in (shown or [both])[0]]:
                shown.append(both)
        if shown:
            return tuple(tf.constant(np.stack([scale(x, value_range) for x in domain])) for domain in zip(*shown))
    raise UserError("none of the images chosen for samples/ can be read")


def scale(image, value_range):
    """uint8 or uint16 pixels → float32 in `value_range` = (low, high)."""
    return to_range(image.astype(np.float32), value_range, np.iinfo(image.dtype).max)


def _unequal(sizes, where):
    seen = ", ".join(f"{h}x{w}" for h, w in sorted(sizes)[:3])
    return UserError(
        f"images of different sizes ({seen}; {where}) cannot form a batch: "
        "set --crop, or --resize with --resize_mode=exact, or --batch_size=1"
    )


def _static_size(data):
    return data.crop or _static_resized_size(data) or (None, None)


def _static_resized_size(data):
    """The size after resizing where it is the same for all images, else None."""
    return data.resize if data.resize_mode in (None, "exact") else None


def _resized_size(size, data):
    if not data.resize or data.resize_mode == "none":
        return tuple(size)
    if data.resize_mode == "short_side":
        return _short_side(size, data.resize[0])
    return data.resize


def _short_side(size, length):
    """The size with `length` as its shorter side; the longer one is rounded down, as torchvision does."""
    h, w = size
    return (length, length * w // h) if h <= w else (length * h // w, length)


def _resize(pixels, data):
    return images.resize(pixels, _resized_size(pixels.shape[:2], data), data.resize_filter or "bicubic")


def _centre(pixels, data, name):
    if not data.crop:
        return _resize(pixels, data)
    filter = data.resize_filter or "bicubic"
    h, w = data.crop
    if data.resize and data.resize_mode == "short_side":
        height, width = pixels.shape[:2]
        factor = max(h / height, w / width)
        pixels = images.resize(pixels, (max(h, round(height * factor)), max(w, round(width * factor))), filter)
    elif data.resize and data.resize_mode != "none":
        return images.resize(pixels, data.crop, filter)
    _check_crop(pixels.shape[:2], data, name)
    top, left = (pixels.shape[0] - h) // 2, (pixels.shape[1] - w) // 2
    return pixels[top : top + h, left : left + w]


def _check_crop(size, data, name):
    if size[0] < data.crop[0] or size[1] < data.crop[1]:
        after = " after resizing" if data.resize and data.resize_mode != "none" else ""
        raise UserError(
            f"{name} is {size[0]}x{size[1]} (height x width){after}, smaller than "
            f"--crop={data.crop[0]},{data.crop[1]}: use a smaller --crop, a larger --resize, or leave the image out"
        )
