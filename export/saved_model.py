"""The SavedModel: pixels in, pixels out, any size, with the size rule and the decoding in the graph.

Signatures:
    serving_default: {"images": uint8 [N, H, W, C]} → {"images": uint8 [N, H, W, C']}.
    image_bytes: {"image_bytes": string [N], encoded images of mixed sizes} → {"image_bytes": PNG files [N] of the same
        sizes, "errors": string [N]}. A picture that cannot be translated has an empty file and a sentence in `errors`;
        the others are translated. TF Serving sends outputs whose names end in `_bytes` as base64.

Where the method takes a style, both have a second input "style", float32 [N, style_size] or [1, style_size] for all
pictures, and there is a third signature:

    reference_bytes: {"image_bytes": string [N], "reference_bytes": string [N], encoded pictures of the domain that is
        translated to} → the outputs of image_bytes.

All raise InvalidArgumentError, which TF Serving passes on, on an input of another rank or without a picture.
"""

import functools
import math
import pathlib

import keras
import numpy as np
import tensorflow as tf

from tfi2i.levels import to_levels, to_range
from tfi2i.methods import sizes

from . import image_bytes, samples

# Numbers in a weight up to which it is a constant of the graph: biases, and what norms, styles and positions have.
_CONSTANT = 4096


class _ConstantScope(keras.StatelessScope):
    """While open, graphs hold small weights as constants.

    TensorFlow then computes with them once, when it loads the graph, instead of at every call, and a call hands fewer
    variables over. Kernels stay variables: each signature has constants of its own, and a graph at most 2 GB.

    Args:
        variables: list of `keras.Variable`.
    """

    def __init__(self, variables):
        super().__init__()
        small = [v for v in variables if math.prod(v.shape) <= _CONSTANT]
        self._values = {id(v): np.asarray(v.value) for v in small}

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        if value is None and id(variable) in self._values:
            value = tf.constant(self._values[id(variable)])
        return value


def in_pixels(model, generate):
    """`generate`, which works in the float range of `model`, as a function of pixels.

    Args:
        model: a `Translator`.
        generate: function of float32 [N, H, W, C] to float32 [N, H, W, C'] in `model.value_range`, and of a style.

    Returns:
        the same of float32 pixels, 0 to 255, not rounded.
    """

    def translate(pixels, *style):
        return to_levels(generate(to_range(pixels, model.value_range), *style), model.value_range)

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
        function of float32 [N, H, W, C] and, where the method takes a style, of float32 [N, style_size], to float32
        [N, H, W, C'] in `model.value_range`.
    """
    if fit == "pad":
        # With autograph, which ExportArchive turns off.
        return tf.function(lambda x, *style: model.generate(x, direction, *style))
    return lambda x, *style: model.generate_resized(x, direction, size, filter, *style)


def write_saved_model(
    model, folder, direction, fit="pad", size=None, background=(255, 255, 255), filter="bicubic", max_side=None
):
    """Writes the SavedModel.

    Args:
        model: a built `Translator` that computes in float32.
        folder: where to; TF Serving wants its name to be a number.
        direction, fit, size, filter: as in `any_size`.
        background: R, G, B (0-255) that `image_bytes` puts behind transparent pixels.
        max_side: pixels; `image_bytes` refuses pictures with a longer side. None: it takes any.

    Raises:
        UserError: the method translates by a search, see `samples`.
    """
    samples.check_direction(model, direction)
    channels = model.channels_of(direction[0])
    translate = in_pixels(model, any_size(model, direction, fit, size, filter))
    steps = image_bytes.fit_of(model, direction, fit, size, filter)
    shared = {"value_range": model.value_range, "background": background, "max_side": max_side}
    translate_files = functools.partial(image_bytes.translate, fit=steps, channels=channels, **shared)

    def images(images, style=None):
        images = image_bytes.checked(images, 4, f"images: expected uint8 [N, H, W, {channels}], N, H and W 1 or more")
        images = tf.ensure_shape(images, [None, None, None, channels])
        given = () if style is None else (style_of_each(style, tf.shape(images)[0]),)
        return {"images": image_bytes.levels(translate(tf.cast(images, tf.float32), *given), tf.uint8)}

    def files(image_bytes, style=None):
        files, errors = translate_files(image_bytes, style=style)
        return {"image_bytes": files, "errors": errors}

    def style_of_each(style, count):
        return tf.broadcast_to(style, [count, model.style_size])

    archive = keras.export.ExportArchive()
    pixels = tf.TensorSpec([None, None, None, channels], tf.uint8, name="images")
    encoded = tf.TensorSpec([None], tf.string, name="image_bytes")
    style = [] if model.style_size is None else [tf.TensorSpec([None, model.style_size], tf.float32, name="style")]
    # Nobody trains what is served: gradients of the layers' own making are left out.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    with _ConstantScope(model.variables):
        archive.add_endpoint("serving_default", images, input_signature=[pixels, *style])
        archive.add_endpoint("image_bytes", files, input_signature=[encoded, *style])
        if style:
            archive.add_endpoint(
                "reference_bytes",
                _by_reference(model, direction, translate_files, shared, size if fit == "resize" else None, filter),
                input_signature=[encoded, tf.TensorSpec([None], tf.string, name="reference_bytes")],
            )
        archive.write_out(str(folder), options=options, verbose=False)


def _by_reference(model, direction, translate_files, shared, size, filter):
    """What the signature "reference_bytes" computes.

    Args:
        model, direction, filter: as of `write_saved_model`.
        translate_files: `image_bytes.translate`, but for the pictures and the style.
        shared: its arguments that are those of `image_bytes.encode_styles` too.
        size: (height, width) that references are brought to, as pictures are; None: they are seen as they are.
    """

    def prepare(x):
        return sizes.resize(x, size, model.value_range, filter) if size else x

    def encode(x):
        with model.averaged():
            return model.encode_style(x, direction)

    encode_styles = functools.partial(
        image_bytes.encode_styles,
        encode=tf.function(encode),
        prepare=prepare,
        style_size=model.style_size,
        channels=model.channels_of(direction[-1]),
        **shared,
    )

    def files(image_bytes, reference_bytes):
        styles, missing = encode_styles(reference_bytes)
        files, errors = translate_files(image_bytes, style=styles)
        without = tf.logical_and(errors == "", missing != "")
        errors = tf.where(without, tf.strings.join(["its reference: ", missing]), errors)
        return {"image_bytes": tf.where(without, "", files), "errors": errors}

    return files


def write_warmup(folder, image, png, name="tfi2i", style=None):
    """Writes requests that TF Serving runs when it loads the model, one per signature.

    Args:
        folder: of the SavedModel.
        image: uint8 [H, W, C], a typical input.
        png: the same as a file's bytes.
        name: of the model; TF Serving puts its own in its place.
        style: float32 [style_size], where the method takes one.

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
            if style is not None:
                request.inputs["style"].CopyFrom(tf.make_tensor_proto(style[None]))
            log = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString())
    return path
