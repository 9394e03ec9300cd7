"""The float32 LiteRT file, of fixed size, of which `quantization` makes all others.

It takes and gives float pixels, 0 to 255, and maps them to the networks' range itself. `with_pixels` then makes it take
and give integers by quantization with scale 1: exact at the input, rounded and clipped at the output. So a uint8 file
is a float file with two operations more, and both can be measured.

Some operations are written differently here, with the same result, so that delegates and the quantizer know them all.
XNNPACK, the CPU delegate, knows no MIRROR_PAD: each one cuts the graph in two (15 parts and 1.7 times the time, on a
ResNet of 6 blocks, 32 wide, at 64 px), so mirrored edges are slices and a concatenation. It knows no transposed
convolution with dynamic-range weights, so that is a convolution to all output phases at once, which is no slower in
float32 either. Some NPUs know no DEPTH_TO_SPACE, so phases and enlarged maps become pixels by RESHAPE and TRANSPOSE or
CONCATENATION; and no SQUARED_DIFFERENCE, so that is a SUB and a MUL. None of this costs time in float32.
"""

import contextlib
import tempfile

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from tfi2i import layers

from . import samples
from .graph import Graph

SIGNATURE = "translate"


def convert(model, direction, size):
    """Converts one direction to a float32 file.

    Args:
        model: a built `Translator` that computes in float32.
        direction: "a2b" or "b2a".
        size: (height, width) of the images; mirrored to a multiple of the networks' inside, and for
            networks of a fixed size that one. Tensors of another size cannot be allocated.

    Returns:
        bytes. The signature "translate" is {"images": float32 [1, H, W, C]} → {"images": float32
        [1, H, W, C']}, pixels from 0 to 255. Where the method takes a style, the second input is {"style": float32
        [1, style_size]}.

    Raises:
        UserError: the method translates by a search, see `samples`.
    """
    samples.check_direction(model, direction)
    channels = model.channels_of(direction[0])
    # Known now: the file has neither the computation of the rows nor a needless gathering of all.
    (top, rows), (left, columns) = ([n.numpy() for n in model.sizes.reflected(side)] for side in size)

    def generate(x, style):
        x = x if len(rows) == size[0] else tf.gather(x, rows, axis=1)
        x = x if len(columns) == size[1] else tf.gather(x, columns, axis=2)
        y = model.styled_generator(direction, style)(x)
        return y if y.shape[1:3] == size else y[:, top : top + size[0], left : left + size[1]]

    # One multiplication and one addition at either end; where black is 0, only the first. A column and a row of
    # constants, not one number: tensors of another height or width, at which mirrored edges, enlarged maps and cuts
    # would lie in wrong places, cannot be allocated.
    low, high = model.value_range
    column, row = np.ones((1, size[0], 1, 1), np.float32), np.ones((1, 1, size[1], 1), np.float32)
    step = (high - low) / 255

    def translate(images, style=None):
        if not low:
            # Columns that are gathered would hide another width from the row at the end.
            first = column * step if len(columns) == size[1] else column * row * step
            return {"images": generate(images * first, style) * (row / step)}
        y = generate(images * (column * step) + row * low, style)
        return {"images": y * (column / step) + row * (-low / step)}

    specs = [tf.TensorSpec([1, *size, channels], tf.float32, name="images")]
    if model.style_size is not None:
        specs.append(tf.TensorSpec([1, model.style_size], tf.float32, name="style"))
    return from_function(translate, specs, SIGNATURE)


def from_function(function, specs, signature):
    """The float32 file of a function of a model's networks.

    Args:
        function: takes tensors and returns a dict of tensors.
        specs: the `tf.TensorSpec` of each argument, with a first dimension of 1.
        signature: name of the file's signature.

    Returns:
        bytes.
    """
    archive = keras.export.ExportArchive()
    with tempfile.TemporaryDirectory(prefix="tfi2i-") as folder:
        with _delegated_forms():
            archive.add_endpoint(signature, function, input_signature=specs)
            archive.write_out(folder, verbose=False)
        return rewritten(tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[signature]).convert())


def rewritten(file):
    """The converter's file in operations that NPUs and the quantizer know, and for any number of images."""
    graph = Graph(file)
    _with_images_first(graph)
    _with_products(graph)
    _with_factors_in_weights(graph)
    _with_any_batch(graph)
    return graph.to_bytes()


def _with_images_first(graph):
    """Puts the images before the style, for all that knows inputs by their number."""
    for signature in graph.model.signatureDefs:  # none where a network was converted by itself
        signature.inputs = sorted(signature.inputs, key=lambda end: end.name != b"images")
        graph.inputs = graph.subgraph.inputs = [end.tensorIndex for end in signature.inputs]


def _with_products(graph):
    """Writes SQUARED_DIFFERENCE and SQUARE, which NPUs do not take and the quantizer does not know, as products.

    (x - m)² is the product of a difference with itself, and a norm needs that difference anyway.
    """
    differences = {}
    for operator in list(graph.operators):
        operation, key = graph.operation(operator), tuple(operator.inputs)
        if operation == "SQUARE":
            graph.insert_before(operator, "MUL", [*key, *key], operator.outputs[0])
            graph.operators.remove(operator)
        elif operation == "SQUARED_DIFFERENCE":
            (square,) = operator.outputs
            if key not in differences:
                differences[key] = graph.add_tensor(square, "difference")
                graph.insert_before(operator, "SUB", key, differences[key])
            graph.insert_before(operator, "MUL", [differences[key]] * 2, square)
            graph.operators.remove(operator)
        elif operation == "SUB" and operator.builtinOptions.fusedActivationFunction == 0:
            (difference,) = operator.outputs
            if key in differences:
                for reader in graph.consumers[difference]:
                    graph.exchange_input(reader, difference, differences[key])
                graph.operators.remove(operator)
            differences.setdefault(key, difference)


def _with_factors_in_weights(graph):
    """Multiplies into a convolution's weights the constant factors of the channels that it reads.

    The map may be in the row several times, with other factors: U-GAT-IT's attention reads it twice. What is left is a
    convolution of the map itself, which has less to multiply, and in 8 bits nothing to round on the way.
    """

    def factor_of(tensor):
        operator = graph.producer.get(tensor)
        if operator is None or graph.operation(operator) != "MUL" or operator.builtinOptions.fusedActivationFunction:
            return tensor, None
        for source, constant in (operator.inputs, operator.inputs[::-1]):
            factor = graph.constant(constant)
            of_channels = factor is not None and factor.shape[-1:] == (factor.size,)
            if of_channels and graph.shape(source) == graph.shape(tensor):
                return source, factor.reshape(-1)
        return tensor, None

    for operator in graph.operators:
        if graph.operation(operator) != "CONV_2D" or graph.constant(operator.inputs[1]) is None:
            continue
        row = graph.producer.get(operator.inputs[0])
        joined = row is not None and graph.operation(row) == "CONCATENATION"
        joined = joined and row.builtinOptions.axis in (-1, 3) and not row.builtinOptions.fusedActivationFunction
        sources, factors = zip(*map(factor_of, row.inputs if joined else operator.inputs[:1]))
        weights = graph.constant(operator.inputs[1])
        grouped = weights.shape[-1] != graph.shape(operator.inputs[0])[-1]
        if len({*sources}) > 1 or sources[0] == operator.inputs[0] or grouped:
            continue
        parts = np.split(weights, len(sources), -1)
        weights = sum(part if factor is None else part * factor for part, factor in zip(parts, factors))
        graph.set_input(operator, 1, weights)
        graph.replace_input(operator, 0, sources[0])
    graph.remove_unread()


def _with_any_batch(graph):
    """Lets several images be translated at once: the converter writes the 1 of one image into shapes and slices."""
    for operator in list(graph.operators):
        operation = graph.operation(operator)
        if operation == "RESHAPE" and -1 not in graph.constant(operator.inputs[1]):
            shape = graph.constant(operator.inputs[1])
            if shape[0] != 1:  # tokens of all images in a row, for a dense layer
                readers = graph.consumers[operator.outputs[0]]
                if {graph.operation(reader) for reader in readers} != {"FULLY_CONNECTED"}:
                    continue
                for reader in readers:
                    reader.builtinOptions.keepNumDims = True
                for tensor in (operator.outputs[0], *(reader.outputs[0] for reader in readers)):
                    graph.tensors[tensor].shape = [1, *graph.shape(tensor)]
                shape = [1, *shape]
            graph.set_input(operator, 1, np.int32([-1, *shape[1:]]))
        elif operation == "SLICE":
            source, begin = operator.inputs[0], graph.constant(operator.inputs[1])
            end = begin + np.asarray(graph.shape(operator.outputs[0]), begin.dtype)
            cut = graph.insert_before(operator, "STRIDED_SLICE", [source], operator.outputs[0])
            for position, values in enumerate((begin, end, np.ones_like(begin)), 1):
                graph.set_input(cut, position, values)
            cut.builtinOptions.beginMask = cut.builtinOptions.endMask = 1  # all images
            graph.operators.remove(operator)


def with_pixels(file, io):
    """The same file with pixels of another type at both ends.

    Args:
        file: bytes of a file whose first input and whose output are pixels, in float32, int8 or int16.
        io: "float32" or "uint8", levels from 0 to 255; "int8", levels less 128; "int16" of a file that has it already.
            Integers are rounded and clipped. A style is float32, but with "int8" and "int16" what the file computes
            with, so that integers alone are at its ends.

    Returns:
        bytes.
    """
    graph = Graph(file)
    outer = getattr(schema.TensorType, io.upper())
    _with_end(graph, graph.inputs, 0, outer)
    _with_end(graph, graph.outputs, 0, outer)
    for position in range(1, len(graph.inputs)):
        if io not in ("int8", "int16"):
            _with_end(graph, graph.inputs, position, schema.TensorType.FLOAT32)
    return graph.to_bytes()


def _with_end(graph, tensors, position, outer):
    """Gives one of a graph's inputs or outputs, `tensors`, another type."""
    (signature,), is_input = graph.model.signatureDefs, tensors is graph.inputs
    inner = tensors[position]
    types = [outer, graph.tensors[inner].type]
    if outer == types[1]:
        return
    if types == [schema.TensorType.UINT8, schema.TensorType.INT16]:
        types.insert(1, schema.TensorType.INT8)  # QUANTIZE knows no way between these two
    name = "style" if position else "input" if is_input else "output"
    chain = [graph.add_pixels(inner, dtype, f"{name}_{i}") for i, dtype in enumerate(types[:-1])]
    end = next(end for end in (signature.inputs if is_input else signature.outputs) if end.tensorIndex == inner)
    end.tensorIndex = tensors[position] = chain[0]
    chain.append(inner)
    for i, (source, target) in enumerate(zip(chain, chain[1:]) if is_input else zip(chain[:0:-1], chain[-2::-1])):
        conversion = "DEQUANTIZE" if graph.is_float(target) else "QUANTIZE"
        graph.insert(i if is_input else len(graph.operators), conversion, [source], target)


def operations(file):
    """dict of operation name → count in a file's bytes, most frequent first."""
    graph = Graph(file)
    names = [graph.operation(operator) for operator in graph.operators]
    counts = {name: names.count(name) for name in names}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def tensor_types(file):
    """dict of type → how many of the tensors that the operators of a file read and write have it."""
    graph = Graph(file)
    used = {t for o in graph.operators for t in (*o.inputs, *o.outputs) if t >= 0}
    names = [flatbuffer_utils.type_to_name(graph.tensors[t].type).lower() for t in used]
    return {name: names.count(name) for name in sorted(set(names))}


@contextlib.contextmanager
def _delegated_forms():
    """While open, our layers compute with operations that the delegates know; same results."""
    forms = {
        layers.Conv2D: _conv,
        layers.Conv2DTranspose: _conv_transpose,
        layers.Dropout: _dropout,
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
    """`layers.Conv2D` on a static size.

    In one step, whatever the layer prefers: sums of parts of the kernel would be rounded to 8 bits one by one.
    """
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


def _dropout(layer, x, seeds=None):
    """`layers.Dropout` on a static size, whose masks are constants."""
    if seeds is None:
        return x
    known = tf.get_static_value(seeds)
    with tf.init_scope():
        kept = layer.kept(known, x.shape[1:]).numpy()
    return x * (kept / np.float32(1 - layer.rate))


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
    y = _phases_to_pixels(y, s)
    rows, columns = layer._length(h, 0), layer._length(w, 1)
    y = y[:, layer.pad : layer.pad + rows, layer.pad : layer.pad + columns]
    return y if layer.activation is None else layer.activation(y)


def _phases_to_pixels(x, s):
    """[N, H, W, s s C] → [N, s H, s W, C]: `tf.nn.depth_to_space` by operations that every delegate knows."""
    _, h, w, phases = x.shape
    x = tf.transpose(tf.reshape(x, (-1, w, s, phases // s)), (0, 2, 1, 3))
    return tf.reshape(x, (-1, s * h, s * w, phases // (s * s)))
