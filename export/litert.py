"""LiteRT files of fixed size: float32, and three that are smaller or faster, from one graph.

The graph takes and gives float pixels, 0 to 255, and maps them to the networks' range itself, as its
ends stay float in every kind. `with_uint8_pixels` then makes it take and give uint8 by quantization
with scale 1 and zero point 0: exact at the input, rounded and clipped at the output. So a uint8 file
is a float file with two operations more, and both can be measured.

Two operations of our layers are written differently here, with the same result. XNNPACK, the CPU
delegate, knows no MIRROR_PAD: each one cuts the graph in two (15 parts and 1.7 times the time, on a
ResNet of 6 blocks, 32 wide, at 64 px), so mirrored edges are slices and a concatenation. And it
knows no transposed convolution with dynamic-range weights, so that is a convolution to all output
phases at once and DEPTH_TO_SPACE, which is no slower in float32 either.
"""

import contextlib
import io
import itertools
import re
import tempfile
import warnings

import keras
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from tfi2i import layers

from .saved_model import in_pixels

_USUAL_ENLARGE = keras.layers.UpSampling2D.call
SIGNATURE = "translate"


def convert(model, direction, size, kinds=("float32",)):
    """Converts one direction to float files.

    Args:
        model: a built `Translator` that computes in float32.
        direction: "a2b" or "b2a".
        size: (height, width) of the images; mirrored to a multiple of the networks' inside, and for
            networks of a fixed size that one.
        kinds: "float32", and "float16" for constants stored in 16 bits and computed with in 32.

    Returns:
        dict of kind → the file's bytes. Their signature "translate" is {"images": float32
        [1, H, W, C]} → {"images": float32 [1, H, W, C']}, pixels from 0 to 255.
    """
    channels = model.channels_of(direction[0])
    network = model.styled_generator(direction)
    # Known now: the file has neither the computation of the rows nor a needless gathering of all.
    (top, rows), (left, columns) = ([n.numpy() for n in model.sizes.reflected(side)] for side in size)

    def generate(x):
        x = x if len(rows) == size[0] else tf.gather(x, rows, axis=1)
        x = x if len(columns) == size[1] else tf.gather(x, columns, axis=2)
        y = network(x)
        return y if y.shape[1:3] == size else y[:, top : top + size[0], left : left + size[1]]

    translate = in_pixels(model, generate)
    archive = keras.export.ExportArchive()
    spec = tf.TensorSpec([1, *size, channels], tf.float32, name="images")
    with tempfile.TemporaryDirectory(prefix="tfi2i-") as folder:
        with _delegated_forms():
            archive.add_endpoint(SIGNATURE, lambda images: {"images": translate(images)}, input_signature=[spec])
            archive.write_out(folder, verbose=False)

        files = {}
        for kind in kinds:
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
            if kind == "float16":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
                converter.target_spec.supported_types = [tf.float16]
            files[kind] = bytes(converter.convert())
    return files


def quantize(file, kind, calibration=()):
    """Makes an 8-bit file of a float32 one.

    "dynamic" has 8-bit weights per channel and scales activations as they come. "int8" does that
    with the scales of `calibration`, for convolutions only: the statistics of the norms lose their
    meaning in 8 bits, and the last convolution, whose error is the picture's, stays dynamic (1 to 2
    dB better on a trained CycleGAN, at no cost in time).

    Args:
        file: bytes of `convert`'s float32 file.
        kind: "dynamic" or "int8".
        calibration: for "int8": iterable of float32 pixels [1, H, W, C], 0 to 255, real images of
            the domain that is translated.

    Returns:
        bytes, with the same signature.
    """
    from ai_edge_quantizer import quantizer, recipe_manager
    from ai_edge_quantizer.qtyping import TFLOperationName as Operation

    recipe = recipe_manager.RecipeManager()
    recipe.add_dynamic_config(".*", Operation.ALL_SUPPORTED, 8)
    if kind == "int8":
        recipe.add_static_config(".*", Operation.CONV_2D, activation_num_bits=8, weight_num_bits=8)
        last = f"^{re.escape(_last_convolution(file))};?$"
        recipe.add_dynamic_config(last, Operation.CONV_2D, 8)
    with _quiet():
        job = quantizer.Quantizer(file, recipe.get_quantization_recipe())
    scales, calibration = None, iter(calibration)
    # A few at a time, with the same result as at once, so that who gives the images sees how far it is.
    while images := [{"images": x} for x in itertools.islice(calibration, 10)]:
        with _quiet():
            scales = job.calibrate({SIGNATURE: images}, scales)
    with _quiet():
        return bytes(job.quantize(scales).quantized_model)


def with_uint8_pixels(file):
    """The same file with uint8 images at both ends: scale 1, zero point 0.

    Args:
        file: bytes of a file whose one input and output are float pixels, 0 to 255.

    Returns:
        bytes.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(file))
    graph = model.subgraphs[0]
    signature = model.signatureDefs[0]
    ends = (
        (graph.inputs, signature.inputs, schema.BuiltinOperator.DEQUANTIZE),
        (graph.outputs, signature.outputs, schema.BuiltinOperator.QUANTIZE),
    )
    for tensors, names, builtin in ends:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = 2
        model.operatorCodes.append(code)
        outer = schema.TensorT()
        outer.name = names[0].name + b"_pixels"
        outer.type = schema.TensorType.UINT8
        outer.shape, outer.hasRank = graph.tensors[tensors[0]].shape, True
        outer.quantization = schema.QuantizationParametersT()
        outer.quantization.scale, outer.quantization.zeroPoint = [1.0], [0]
        graph.tensors.append(outer)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(model.operatorCodes) - 1
        inner, new = tensors[0], len(graph.tensors) - 1
        if builtin == schema.BuiltinOperator.DEQUANTIZE:
            operator.inputs, operator.outputs = [new], [inner]
            graph.operators.insert(0, operator)
        else:
            operator.inputs, operator.outputs = [inner], [new]
            graph.operators.append(operator)
        tensors[0] = names[0].tensorIndex = new
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def operations(file):
    """dict of operation name → count in a file's bytes, most frequent first."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(file))
    names = [flatbuffer_utils.opcode_to_name(model, o.opcodeIndex) for o in _operators(model)]
    counts = {name: names.count(name) for name in names}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _operators(model):
    return [operator for graph in model.subgraphs for operator in graph.operators]


def _last_convolution(file):
    """Name of the tensor that the last CONV_2D in order of execution writes."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(file))
    convolutions = [
        operator
        for operator in model.subgraphs[0].operators
        if flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex) == "CONV_2D"
    ]
    return model.subgraphs[0].tensors[convolutions[-1].outputs[0]].name.decode()


@contextlib.contextmanager
def _delegated_forms():
    """While open, our layers compute with operations that the delegates know; same results."""
    forms = {
        layers.Conv2D: _conv,
        layers.Conv2DTranspose: _conv_transpose,
        keras.layers.UpSampling2D: _enlarge,
    }
    usual = {layer: layer.call for layer in forms}
    for layer, form in forms.items():
        layer.call = form
    try:
        yield
    finally:
        for layer, call in usual.items():
            layer.call = call


def _conv(layer, x):
    """`layers.Conv2D` on a static size."""
    pad = layer.pad
    if pad and layer.pad_mode == "reflect":
        x = _mirror(_mirror(x, pad, axis=1), pad, axis=2)
    elif pad:
        x = tf.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return keras.layers.Conv2D.call(layer, x)


def _mirror(x, pad, axis):
    def line(i):
        return x[:, i : i + 1] if axis == 1 else x[:, :, i : i + 1]

    n = x.shape[axis]
    # A block a side: XNNPACK concatenates at most five tensors.
    before = [line(i) for i in range(pad, 0, -1)]
    after = [line(n - 2 - i) for i in range(pad)]
    return tf.concat([tf.concat(before, axis), x, tf.concat(after, axis)], axis)


def _enlarge(layer, x):
    """Nearest `keras.layers.UpSampling2D`, whose REPEATs the delegate does not know either."""
    (s, columns), nearest = layer.size, layer.interpolation == "nearest"
    if s != columns or not nearest:
        return _USUAL_ENLARGE(layer, x)
    return tf.nn.depth_to_space(tf.concat([x] * (s * s), axis=-1), s)


def _conv_transpose(layer, x):
    """`layers.Conv2DTranspose` on a static size.

    Row s m + a of the transposed convolution is the sum over t of w[a + s t] x[m - t]: for every
    phase a < s a convolution with ceil(k / s) taps, and all phases are one convolution.
    """
    (s, _), (k, _) = layer.strides, layer.kernel_size
    taps, outputs = -(-k // s), layer.filters
    _, h, w, inputs = x.shape
    kernel = tf.convert_to_tensor(layer.kernel)  # [k, k, outputs, inputs]
    more = taps * s - k
    kernel = tf.pad(kernel, ((0, more), (0, more), (0, 0), (0, 0)))
    kernel = tf.reshape(kernel, (taps, s, taps, s, outputs, inputs))
    kernel = tf.transpose(tf.reverse(kernel, [0, 2]), (0, 2, 5, 1, 3, 4))
    kernel = tf.reshape(kernel, (taps, taps, inputs, s * s * outputs))
    edge = (taps - 1, taps - 1)
    y = tf.nn.conv2d(tf.pad(x, ((0, 0), edge, edge, (0, 0))), kernel, 1, "VALID")
    if layer.bias is not None:
        y = y + tf.tile(tf.convert_to_tensor(layer.bias), [s * s])
    y = tf.nn.depth_to_space(y, s)
    rows, columns = layer._length(h, 0), layer._length(w, 1)
    y = y[:, layer.pad : layer.pad + rows, layer.pad : layer.pad + columns]
    return y if layer.activation is None else layer.activation(y)


@contextlib.contextmanager
def _quiet():
    """Keeps the quantizer's progress bars, totals and warnings to itself."""
    nowhere = io.StringIO()
    with (
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield
