"""The SavedModel: pixels in, pixels out, any size, with the size rule and the decoding in the graph.

Signatures:
    serving_default: {"images": uint8 [N, H, W, C]} → {"images": uint8 [N, H, W, C']}.
    image_bytes: {"image_bytes": string [N], encoded images of mixed sizes} → {"image_bytes": PNG
        files [N] of the same sizes}. TF Serving sends outputs whose names end in `_bytes` as base64.
"""

import pathlib

import keras
import tensorflow as tf

from tfi2i.levels import to_levels, to_range


def in_pixels(model, generate):
    """`generate`, which works in the float range of `model`, as a function of pixels.

    Args:
        model: a `Translator`.
        generate: function of float32 [N, H, W, C] to float32 [N, H, W, C'] in `model.value_range`.

    Returns:
        the same of float32 pixels, 0 to 255, not rounded.
    """

    def translate(pixels):
        return to_levels(generate(to_range(pixels, model.value_range)), model.value_range)

    return translate


def any_size(model, direction, fit="pad", size=None, filter="bicubic"):
    """One direction of `model` for images of any size.

    Args:
        model: a `Translator`.
        direction: "a2b" or "b2a".
        fit: "pad": mirrored at the edges to a multiple of the networks', and cut back. "resize":
            to `size`, antialiased, and back.
        size: (height, width) that the networks see with "resize".
        filter: of the resizing, "bicubic", "bilinear" or "lanczos".

    Returns:
        function of float32 [N, H, W, C] to float32 [N, H, W, C'] in `model.value_range`.
    """
    if fit == "pad":
        # With autograph, which ExportArchive turns off.
        return tf.function(lambda x: model.generate(x, direction))
    return lambda x: model.generate_resized(x, direction, size, filter)


def write_saved_model(model, folder, direction, fit="pad", size=None, background=(255, 255, 255), filter="bicubic"):
    """Writes the SavedModel.

    Args:
        model: a built `Translator` that computes in float32.
        folder: where to; TF Serving wants its name to be a number.
        direction, fit, size, filter: as in `any_size`.
        background: R, G, B (0-255) that `image_bytes` puts behind transparent pixels.
    """
    channels = model.channels_of(direction[0])
    translate = in_pixels(model, any_size(model, direction, fit, size, filter))

    def images(images):
        return {"images": _levels(translate(tf.cast(images, tf.float32)), tf.uint8)}

    def one(contents):
        pixels, deep = decode(contents, channels, background)
        y = translate(pixels[None])[0]
        return tf.cond(
            deep,
            lambda: tf.io.encode_png(_levels(y * 257, tf.uint16)),
            lambda: tf.io.encode_png(_levels(y, tf.uint8)),
        )

    def image_bytes(image_bytes):
        encoded = tf.map_fn(one, image_bytes, fn_output_signature=tf.string, parallel_iterations=1)
        return {"image_bytes": encoded}

    archive = keras.export.ExportArchive()
    pixels = tf.TensorSpec([None, None, None, channels], tf.uint8, name="images")
    archive.add_endpoint("serving_default", images, input_signature=[pixels])
    files = tf.TensorSpec([None], tf.string, name="image_bytes")
    archive.add_endpoint("image_bytes", image_bytes, input_signature=[files])
    archive.write_out(str(folder), verbose=False)


def write_warmup(folder, image, png, name="tfi2i"):
    """Writes requests that TF Serving runs when it loads the model, one per signature.

    Args:
        folder: of the SavedModel.
        image: uint8 [H, W, C], a typical input.
        png: the same as a file's bytes.
        name: of the model; TF Serving puts its own in its place.

    Returns:
        The path written, or None without the package tensorflow-serving-api.
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        return None
    path = pathlib.Path(folder) / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(exist_ok=True)
    inputs = {"serving_default": ("images", image[None]), "image_bytes": ("image_bytes", [png])}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, (key, value) in inputs.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = signature
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString())
    return path


def decode(contents, channels, background=(255, 255, 255)):
    """Decodes a JPEG, PNG, BMP or GIF (first frame) in the graph, as `data.images.read_image` does.

    Transparency of PNG is put on the background, 16-bit PNG keeps its 16 bits, the EXIF orientation
    of JPEG and PNG is applied. BMP has 24 or 32 bits; WebP and TIFF are not known to TensorFlow.
    Colour profiles, which `read_image` applies to 8 bits, are not: TensorFlow has no such operation.

    Args:
        contents: string scalar, the file.
        channels: 1 or 3.
        background: R, G, B, 0 to 255.

    Returns:
        (float32 [H, W, channels], 0 to 255; bool scalar, whether the file has 16 bits).

    Raises:
        tf.errors.InvalidArgumentError: a file that cannot be decoded, such as a BMP with a palette.
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
        # TensorFlow would give the indices of a palette as pixels.
        is_bmp = tf.equal(_span(contents, 0, 2), b"BM")
        bits = tf.where(is_bmp, header[28], 24)
        known = tf.logical_or(tf.equal(bits, 24), tf.equal(bits, 32))
        check = tf.debugging.Assert(known, ["BMP: expected 24 or 32 bits per pixel, this one has", bits])
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


def _levels(pixels, dtype):
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
