"""Encoded pictures through a network, in the graph: many at once, broken ones among them.

A graph cannot catch what a decoder raises. `tf.data` can drop the elements whose function has raised, so pictures are
decoded by a dataset, in parallel, and those that are missing at its end are the broken ones.
"""

import dataclasses
import typing

import tensorflow as tf

from tfi2i.levels import to_levels, to_range
from tfi2i.methods import sizes

# Pictures that are decoded and encoded at the same time, where there are as many threads.
_PARALLEL = 8
# Pixels that go through the networks at once, 16 pictures of 256 x 256: more need memory and save no time.
_PIXELS_AT_ONCE = 1 << 20

UNREADABLE = "not a picture that can be read here: expected a whole file of JPEG, PNG, GIF, or BMP of 24 or 32 bits"


@dataclasses.dataclass(frozen=True)
class Fit:
    """How pictures of any size meet a network, in steps, so that pictures of different sizes can share a batch.

    Attributes:
        prepare: function of float32 [1, h, w, C] in the network's range to [1, H, W, C] of a size that it takes.
        network: function of float32 [N, H, W, C] and, where the method takes a style, of float32 [N, style_size], to
            [N, H, W, C'].
        restore: function of float32 [1, H, W, C'] and the (h, w) that the picture had, int32 [2], to [1, h, w, C'].
    """

    prepare: typing.Callable
    network: typing.Callable
    restore: typing.Callable


def fit_of(model, direction, fit="pad", size=None, filter="bicubic"):
    """The `Fit` of one direction of `model`; the arguments are those of `saved_model.any_size`."""
    # With autograph, which ExportArchive turns off.
    network = tf.function(lambda x, *style: model.styled_generator(direction, *style)(x))
    if fit == "pad" and not model.sizes.fixed:
        return Fit(lambda x: sizes.pad(x, model.sizes), network, lambda y, shape: sizes.cut(y, shape, model.sizes))
    low_high, size = model.value_range, size or model.sizes.fixed
    return Fit(
        lambda x: sizes.resize(x, size, low_high, filter),
        lambda x, *style: network(tf.ensure_shape(x, [None, *size, None]), *style),
        lambda y, shape: sizes.resize(y, shape, low_high, filter),
    )


def translate(contents, fit, value_range, channels, background=(255, 255, 255), max_side=None, style=None):
    """Translates encoded pictures of mixed sizes.

    Pictures that have one size once they are prepared go through the network together.

    Args:
        contents: string [N], the files.
        fit: a `Fit`.
        value_range: (low, high) of the network.
        channels: of the network's input.
        background: R, G, B, 0 to 255, put behind transparent pixels.
        max_side: pixels that no side of a picture may exceed; None: any.
        style: float32 [N, style_size], or [1, style_size] for all pictures, where the method takes a style.

    Returns:
        (string [N] of PNG files, string [N] of errors). A picture that cannot be translated has an empty file and a
        sentence, the others have a file and an empty error.

    Raises:
        tf.errors.InvalidArgumentError: when it is run, on anything but a list of at least one.
    """
    contents = checked(contents, 1, "image_bytes: expected a list of 1 or more encoded pictures, string [N]")
    count = tf.size(contents)
    reading = (value_range, channels, background, max_side)
    (index, shape, deep, inner, flat), errors = _read(contents, fit.prepare, *reading)
    readable = inner[:, 0] > 0
    if style is not None:
        style = tf.broadcast_to(style, [count, style.shape[-1]])

    # Pictures of one size are neighbours in this order, and those that go through no network stand before all others.
    height, width = tf.unstack(tf.cast(inner, tf.int64), axis=1)
    key = height * tf.int32.max + width
    order = tf.argsort(key, stable=True)
    key = tf.gather(key, order)

    def next_batch(start, files):
        h, w = tf.unstack(inner[order[start]])
        alike = tf.reduce_sum(tf.cast(tf.equal(key, key[start]), tf.int32)[start:])
        end = start + tf.minimum(alike, tf.maximum(1, _PIXELS_AT_ONCE // (h * w)))
        chosen = order[start:end]
        x = tf.reshape(tf.gather(flat, chosen).values, [end - start, h, w, channels])
        styles = () if style is None else (tf.gather(style, tf.gather(index, chosen)),)
        encoded = tf.map_fn(
            lambda one: _png(fit.restore(one[0][None], one[1])[0], one[2], value_range),
            (fit.network(x, *styles), tf.gather(shape, chosen), tf.gather(deep, chosen)),
            fn_output_signature=tf.string,
            parallel_iterations=_PARALLEL,
        )
        return end, tf.tensor_scatter_nd_update(files, tf.gather(index, chosen)[:, None], encoded)

    first = tf.reduce_sum(tf.cast(tf.logical_not(readable), tf.int32))
    _, files = tf.while_loop(
        lambda start, _: start < tf.size(order),
        next_batch,
        (first, tf.fill([count], "")),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])),
        parallel_iterations=1,
    )
    return files, errors


def encode_styles(contents, encode, prepare, style_size, value_range, channels, background, max_side=None):
    """The styles of encoded pictures of mixed sizes.

    Args:
        contents: string [N], the files.
        encode: function of float32 [1, H, W, C] in the network's range to float32 [1, style_size].
        prepare: function of float32 [1, h, w, C] in that range to [1, H, W, C] of the size to look at.
        style_size: numbers in a style.
        value_range, channels, background, max_side: as of `translate`.

    Returns:
        (float32 [N, style_size], string [N] of errors). A picture that cannot be read has zeros and a sentence.
    """
    contents = checked(contents, 1, "reference_bytes: expected a list of 1 or more encoded pictures, string [N]")
    (index, _, _, inner, flat), errors = _read(contents, prepare, value_range, channels, background, max_side)
    readable = tf.reshape(tf.where(inner[:, 0] > 0), [-1])

    def style_of(i):
        x = tf.reshape(flat[i], [1, inner[i, 0], inner[i, 1], channels])
        return tf.ensure_shape(encode(x)[0], [style_size])

    styles = tf.map_fn(style_of, readable, fn_output_signature=tf.TensorSpec([style_size], tf.float32))
    places = tf.gather(index, readable)[:, None]
    styles = tf.scatter_nd(places, styles, tf.stack([tf.size(contents), style_size]))
    return tf.ensure_shape(styles, [None, style_size]), errors


def _read(contents, prepare, value_range, channels, background, max_side):
    """Decodes pictures, in parallel.

    Returns:
        ((index, shape, deep, inner, flat) of those that can be decoded: which of `contents` each is, and `_prepared` of
        it; string [N] of errors).
    """
    count = tf.size(contents)

    def read(index, contents):
        shape, deep, inner, flat = _prepared(contents, prepare, value_range, channels, background, max_side)
        return index, tf.ensure_shape(shape, [2]), deep, tf.ensure_shape(inner, [2]), flat

    dataset = tf.data.Dataset.from_tensor_slices((tf.range(count), contents))
    dataset = dataset.map(read, num_parallel_calls=_PARALLEL).ignore_errors()
    # One that is always there, so that the batch is not empty.
    none = (-1, tf.zeros([2], tf.int32), False, tf.zeros([2], tf.int32), tf.zeros([0]))
    dataset = dataset.concatenate(tf.data.Dataset.from_tensors(none))
    batch = dataset.ragged_batch(tf.cast(count, tf.int64) + 1).get_single_element()
    index, shape, deep, inner, flat = (x[:-1] for x in batch)

    side = tf.strings.as_string(shape)
    too_large = f"larger than {max_side} pixels a side: its height is ", side[:, 0], ", its width is ", side[:, 1]
    errors = tf.where(inner[:, 0] > 0, "", tf.strings.join(too_large))
    errors = tf.tensor_scatter_nd_update(tf.fill([count], UNREADABLE), index[:, None], errors)
    return (index, shape, deep, inner, flat), errors


def checked(x, rank, message):
    """A signature's input, which raises InvalidArgumentError when it is run with another rank, or empty.

    Servers feed it without a look at the shape that the signature has.
    """
    x = tf.compat.v1.placeholder_with_default(x, None)  # without the static shape, which would answer
    fine = tf.logical_and(tf.equal(tf.rank(x), rank), tf.size(x) > 0)
    with tf.control_dependencies([tf.debugging.Assert(fine, [f"{message}; its shape is", tf.shape(x)], 9)]):
        x = tf.identity(x)
    return tf.ensure_shape(x, [None] * rank)


def _prepared(contents, prepare, value_range, channels, background, max_side):
    """One file as the network takes it.

    Returns:
        (its size, int32 [2]; bool, whether it has 16 bits; int32 [2], the size that the network sees, zeros for a
        picture that is too large; float32 [H · W · C], the network's input).
    """
    most = max_side or tf.int32.max

    def read():
        pixels, deep = decode(contents, channels, background)
        shape = tf.shape(pixels)[:2]
        # A frame of a GIF may be larger than its header says.
        fits = tf.debugging.Assert(tf.reduce_max(shape) <= most, [shape])
        with tf.control_dependencies([fits]):
            x = prepare(to_range(pixels[None], value_range))[0]
        return shape, deep, tf.shape(x)[:2], tf.reshape(x, [-1])

    shape = encoded_size(contents)
    nothing = False, tf.zeros([2], tf.int32), tf.zeros([0])
    return tf.cond(tf.reduce_max(shape) > most, lambda: (shape, *nothing), read)


def _png(y, deep, value_range):
    """float32 [H, W, C] in `value_range` → the bytes of a PNG, of 16 bits where `deep`."""
    pixels = to_levels(y, value_range)
    return tf.cond(
        deep,
        lambda: tf.io.encode_png(levels(pixels * 257, tf.uint16)),
        lambda: tf.io.encode_png(levels(pixels, tf.uint8)),
    )


def encoded_size(contents):
    """The size of an encoded picture by its header, before there are any pixels.

    Args:
        contents: string scalar, a JPEG, PNG, BMP or GIF.

    Returns:
        int32 [2], height and width, before EXIF turns it; zeros for any other format.

    Raises:
        tf.errors.InvalidArgumentError: a JPEG without a readable header.
    """
    header = tf.strings.join([_span(contents, 0, 26), b"\0" * 26])
    has_size = tf.equal(_span(contents, 12, 4), b"IHDR")

    def numbers(start, dtype, **order):
        """Height and width, which stand behind the width."""
        two = tf.io.decode_raw(tf.strings.substr(header, start, 2 * dtype.size), dtype, **order)
        return tf.cast(two[::-1], tf.int32)

    def png():
        sides = numbers(16, tf.int32, little_endian=False)
        return tf.where(sides < 0, tf.int32.max, sides)  # 32 bits, where the format has 31

    def bmp():
        return tf.abs(tf.maximum(numbers(18, tf.int32), -tf.int32.max))  # rows that begin at the top: below 0

    return tf.case(
        [
            (tf.logical_and(_is_png(contents), has_size), png),
            (tf.io.is_jpeg(contents), lambda: tf.io.extract_jpeg_shape(contents)[:2]),
            (tf.equal(_span(contents, 0, 2), b"BM"), bmp),
            (tf.equal(_span(contents, 0, 4), b"GIF8"), lambda: numbers(6, tf.uint16)),
        ],
        default=lambda: tf.zeros([2], tf.int32),
    )


def decode(contents, channels, background=(255, 255, 255)):
    """Decodes a JPEG, PNG, BMP or GIF (first frame) in the graph, as `data.images.read_image` does.

    Transparency of PNG is put on the background, 16-bit PNG keeps its 16 bits, the EXIF orientation
    of JPEG and PNG is applied. BMP has 24 or 32 bits. WebP and TIFF are refused.
    Colour profiles, which `read_image` applies to 8 bits, are not: TensorFlow has no such operation.

    Args:
        contents: string scalar, the file.
        channels: 1 or 3.
        background: R, G, B, 0 to 255.

    Returns:
        (float32 [H, W, channels], 0 to 255; bool scalar, whether the file has 16 bits).

    Raises:
        tf.errors.InvalidArgumentError: a file that cannot be decoded, or of another format.
    """
    # Bits per channel of a PNG are byte 24; bits per pixel of a BMP are byte 28.
    header = tf.cast(tf.io.decode_raw(_span(contents, 0, 29), tf.uint8), tf.int32)
    header = tf.pad(header, [[0, 29 - tf.shape(header)[0]]])
    is_png = _is_png(contents)
    deep = tf.logical_and(is_png, tf.equal(header[24], 16))

    def png(dtype, peak):
        rgba = tf.cast(tf.io.decode_png(contents, channels=4, dtype=dtype), tf.float32)
        alpha = rgba[..., 3:]
        # The alpha of a file without any is not scaled: 1, 3 and 15 with 1, 2 and 4 bits.
        opaque = tf.cast(tf.bitwise.left_shift(1, header[24]) - 1, tf.float32)
        share = tf.where(tf.reduce_all(tf.equal(alpha, opaque)), 1.0, alpha / peak)
        behind = tf.constant(background, tf.float32) * (peak / 255)
        return tf.round(rgba[..., :3] * share + behind * (1 - share)), peak

    def jpeg():
        # Exact inverse DCT, as Pillow's.
        return tf.cast(tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE"), tf.float32)

    def other():
        # TensorFlow would give the indices of a palette as pixels, and the pixels behind the transparency of WebP.
        is_bmp = tf.equal(_span(contents, 0, 2), b"BM")
        known = tf.where(
            is_bmp, tf.reduce_any(tf.equal(header[28], [24, 32])), tf.equal(_span(contents, 0, 4), b"GIF8")
        )
        check = tf.debugging.Assert(known, ["expected JPEG, PNG, GIF, or BMP of 24 or 32 bits per pixel"])
        with tf.control_dependencies([check]):
            pixels = tf.io.decode_image(contents, channels=3, expand_animations=False)
        return tf.cast(tf.ensure_shape(pixels, [None, None, 3]), tf.float32)

    def grey(pixels):
        if channels == 3:
            return pixels
        # ITU-R 601 in Pillow's integers; float32 would round the products of 16-bit pixels.
        luma = tf.reduce_sum(tf.cast(pixels, tf.int64) * [19595, 38470, 7471], -1, keepdims=True)
        return tf.cast(tf.bitwise.right_shift(luma + 0x8000, tf.constant(16, tf.int64)), tf.float32)

    def deep_png():
        pixels, peak = png(tf.uint16, 65535.0)
        return grey(pixels) * (255 / peak)

    pixels = tf.case(
        [
            (deep, deep_png),
            (is_png, lambda: grey(png(tf.uint8, 255.0)[0])),
            (tf.io.is_jpeg(contents), lambda: grey(jpeg())),
        ],
        default=lambda: grey(other()),
    )
    pixels = _orient(tf.ensure_shape(pixels, [None, None, channels]), _orientation(contents))
    return pixels, deep


def levels(pixels, dtype):
    """Float pixels rounded and cut off to an integer `dtype`."""
    return tf.cast(tf.round(tf.clip_by_value(pixels, 0.0, dtype.max)), dtype)


def _span(contents, start, count):
    """Up to `count` bytes from `start` on; fewer, or none, where the file ends."""
    return tf.strings.substr(contents, tf.minimum(start, tf.strings.length(contents)), count)


def _is_png(contents):
    return tf.equal(_span(contents, 0, 4), b"\x89PNG")


def _orientation(contents):
    """EXIF orientation, 1 to 8, of a JPEG or PNG: int32 scalar, 1 where there is none.

    TensorFlow cannot parse EXIF. The tag is twelve bytes of known form (number 0x0112, type 3,
    count 1, value), first looked for behind the marker that opens the EXIF block.
    """
    # EXIF stands before the pixels in JPEG, where other images may follow with theirs; in PNG also behind them.
    total, most = tf.strings.length(contents), 1 << 20
    late = tf.where(_is_png(contents), tf.maximum(total - most, most), total)
    head = tf.io.decode_raw(tf.strings.join([_span(contents, 0, most), _span(contents, late, most)]), tf.uint8)
    head = tf.concat([head, tf.zeros([16], tf.uint8)], 0)
    length = tf.shape(head)[0] - 16

    def find(pattern, start):
        """Position of the first `pattern` at or after `start`; `length` where there is none."""
        at = [tf.equal(head[i : length + i], byte) for i, byte in enumerate(pattern)]
        hits = tf.logical_and(tf.reduce_all(tf.stack(at), 0), tf.range(length) >= start)
        return tf.where(tf.reduce_any(hits), tf.argmax(hits, output_type=tf.int32), length)

    block = tf.minimum(find(b"Exif\0\0", 0), find(b"eXIf", 0))
    small = find(b"\x12\x01\x03\x00\x01\x00\x00\x00", block)  # little endian
    big = find(b"\x01\x12\x00\x03\x00\x00\x00\x01", block)
    value = tf.where(small < big, head[small + 8], head[big + 9])
    tagged = tf.logical_and(tf.minimum(small, big) < length, tf.logical_and(value >= 1, value <= 8))
    return tf.where(tagged, tf.cast(value, tf.int32), 1)


def _orient(pixels, orientation):
    turns = tf.constant([0, 0, 0, 2, 2, 3, 3, 1, 1])[orientation]
    mirrored = tf.reduce_any(tf.equal(orientation, [2, 4, 5, 7]))
    channels = pixels.shape[-1]
    pixels = tf.image.rot90(pixels, turns)
    pixels = tf.cond(mirrored, lambda: tf.reverse(pixels, [1]), lambda: pixels)
    return tf.ensure_shape(pixels, [None, None, channels])
