"""8-bit and 16-bit files of a float32 LiteRT file."""

import contextlib
import functools
import io
import math
import re
import warnings

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfi2i.config import UserError
from tfi2i.progress import Progress

from . import ranges, segments
from .equalise import equalise
from .graph import Graph

# Kinds that are made of an equalised file with the help of calibration images.
CALIBRATED = ("dynamic", "int8", "int8_full", "int16x8", "gpu")
# Those of them that need histograms, or extremes.
COUNTED = ("int8", "int8_full", "int16x8")
# What LiteRT's GPU accelerator takes of floats, as LiteRT 2 lists it in tflite/delegates/gpu/common/model_builder.cc;
# but for a few that no network of ours can have.
_GPU = (
    *("ABS", "ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CONCATENATION", "CONV_2D", "COS", "DEPTHWISE_CONV_2D"),
    *("DEPTH_TO_SPACE", "DIV", "ELU", "EXP", "FLOOR", "FULLY_CONNECTED", "GATHER", "GELU", "HARD_SWISH", "LEAKY_RELU"),
    *("LOG", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NEG", "PACK", "PAD"),
    *("PADV2", "POW", "PRELU", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE"),
    *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SIGN", "SIN", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH"),
    *("SPLIT", "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TILE"),
    *("TRANSPOSE", "TRANSPOSE_CONV", "UNPACK"),
)
# The longest side of the windows that a "gpu" file takes means in.
_WINDOW = 4
# What "int8_full" can compute in 16 bits: norms and additions.
_OF_NORMS = ("MEAN", "SUB", "MUL", "RSQRT", "ADD")
# What can be computed more exactly than the rest.
LAYERS = ("CONV_2D", "FULLY_CONNECTED")
# Output channels that a CPU computes at a time. Three colours take as long as this many channels: the last convolution
# of U-GAT-IT, 7 x 7, has 4 % of the multiplications, and in float took 14 % of the time of the float32 file.
_GROUP = 16
# dB that are close enough for layers that could be computed more exactly.
_ENOUGH = 50.0
# The ends of a style in integers, in standard deviations of N(0, 1). What lies outside is cut off.
STYLE = 4.0
# The largest finite number of 16-bit floats.
LARGEST_HALF = 65504.0


def calibrate(file, images, again=None):
    """Equalises a float32 file, and learns on real images what its tensors hold.

    Args:
        file: bytes of `litert.convert`.
        images: iterable of float32 pixels [1, H, W, C], 0 to 255, of the domain that is translated; for a file that
            takes a style of pairs (pixels, style float32 [1, style_size]).
        again: the same images a second time; needed for the kinds in `COUNTED`.

    Returns:
        (bytes of a file that computes the same, the values of its tensors): what `quantize` takes.
    """
    file, values = equalise(file, ranges.observe(file, images))
    if again is not None:
        ranges.count(file, again, values)
    return file, values


def spared_layers(file, values, images, static=True, show=False):
    """The layers that "dynamic" and "int8" compute more exactly than the others, because they lose most.

    One layer can lose more than all others together: the last convolution that enlarges the map of a trained UNIT cost
    8 dB. Each convolution and each dense layer is judged by the squared error of a file in which it alone is computed
    as "dynamic" does it. If the sum of all these leaves less than `_ENOUGH` dB, those with more than a tenth of it stay
    in float, the worst first, as long as they have at most a tenth of the multiplications, where output
    channels count in groups of `_GROUP`. They stay there only if that takes a fifth of its error from "dynamic". The
    convolutions that "int8" gives fixed scales are then judged by 8 bits of input and output. The worst are dynamic, so
    that the others cause at most half of the error that is left, or leave `_ENOUGH` dB.

    Args:
        file: bytes of a float32 file, of `calibrate`.
        values: of that file, with histograms where `static` is set.
        images: a few of those that `calibrate` takes.
        static: whether to judge fixed scales too.
        show: whether a bar says how many layers are judged.

    Returns:
        dict of the name of what a layer writes → "float" or "dynamic".
    """
    expected = ranges.outputs(file, images)
    error = functools.partial(_error, expected, images=images)
    products = _multiplications(Graph(file))
    costs, progress = {}, Progress(len(products), "layers judged", active=show)
    for done, name in enumerate(products, 1):
        costs[name] = error(_with_one_dynamic(file, name))
        progress.update(done)
    progress.close()
    spared = dict.fromkeys(_worst(costs, products, sum(costs.values()) / 10), "float")
    if spared:
        # Errors are not independent: what helps one by one may not help together.
        usual, better = (error(quantize(file, "dynamic", spared=s)) for s in (None, spared))
        spared = spared if better < 0.8 * usual else {}
    if static and (inner := inner_convolutions(file, spared)):
        limits = ranges.limits(file, values, 8)
        fixed = {name: error(_rounded(file, name, limits)) for name in inner}
        rest = sum(c for name, c in costs.items() if name not in spared)
        allowed = max(rest / 2, _enough() - rest)
        for name in sorted(fixed, key=fixed.get):
            allowed -= fixed[name]
            if allowed < 0:
                spared[name] = "dynamic"
    return spared


def segmented_convolutions(file, values, images):
    """The convolutions that "int8_full" computes in segments, because 8 bits of what they write lose most.

    Each of `segments.candidates` is judged by the squared error that 8 bits of its output alone cause. If the sum of
    all these leaves less than `_ENOUGH` dB, those with more than a quarter of it are computed in segments, the worst
    first, as long as they have at most a tenth of the multiplications. They and the convolutions that read them then
    have up to three times as many.

    Args:
        file: bytes of a float32 file, of `calibrate`.
        values: of that file, with histograms.
        images: a few of those that `calibrate` takes.

    Returns:
        list of the names of what these convolutions write.
    """
    expected, limits, costs = ranges.outputs(file, images), ranges.limits(file, values, 8), {}
    for name in segments.candidates(file):
        graph = Graph(file)
        _round_behind(graph, name, limits[name])
        costs[name] = _error(expected, graph.to_bytes(), images)
    return _worst(costs, _multiplications(Graph(file)), sum(costs.values()) / 4)


def _enough():
    """The mean squared error of `_ENOUGH` dB."""
    return 255**2 / 10 ** (_ENOUGH / 10)


def _worst(costs, products, most):
    """Names of the layers that cost more than `most`, the worst first, of at most a tenth of the multiplications.

    None where all costs together are no more than `_ENOUGH` dB allows.
    """
    chosen = []
    if sum(costs.values()) > _enough():
        for name in sorted(costs, key=costs.get, reverse=True):
            share = sum(products[n] for n in (*chosen, name)) / sum(products.values())
            if costs[name] > most and share <= 0.1:
                chosen.append(name)
    return chosen


def _error(expected, file, images):
    """The mean squared error of a float file's pixels."""
    return np.mean([np.square(x - y).mean() for x, y in zip(expected, ranges.outputs(file, images))])


def _multiplications(graph):
    """dict of the name of what a convolution or a dense layer writes → how many are computed for it."""
    found = {}
    for operator in graph.operators:
        if graph.operation(operator) in LAYERS:
            *places, channels = graph.shape(operator.outputs[0])
            computed = -(-channels // _GROUP) * _GROUP
            each = math.prod(graph.shape(operator.inputs[1])[1:])
            found[graph.name(operator.outputs[0])] = math.prod(places[1:]) * computed * each
    return found


def _with_one_dynamic(file, name):
    """A float file in which one layer is computed as "dynamic" does it."""
    from ai_edge_quantizer import qtyping, recipe_manager

    recipe = recipe_manager.RecipeManager()
    recipe.add_dynamic_config(_only(name), qtyping.TFLOperationName.ALL_SUPPORTED, 8)
    return _quantized(file, recipe)


def _rounded(file, name, limits):
    """A float file in which a convolution takes and gives the 256 levels of its tensors' limits (low, high)."""
    graph = Graph(file)
    position, operator = _round_behind(graph, name, limits[name])
    source = operator.inputs[0]
    graph.replace_input(operator, 0, _round(graph, position, source, limits[graph.name(source)]))
    return graph.to_bytes()


def _round_behind(graph, name, limits):
    """Rounds the tensor of a name behind the operator that writes it; returns (its position, that operator)."""
    position, operator = next((i, o) for i, o in enumerate(graph.operators) if graph.name(o.outputs[0]) == name)
    (written,) = operator.outputs
    rounded = _round(graph, position + 1, written, limits)
    for reader in graph.consumers[written]:
        graph.exchange_input(reader, written, rounded)
    return position, operator


def _round(graph, position, tensor, limits):
    """Rounds a tensor by two new operators from `position` on; returns what they give."""
    low, high = limits
    scale = max(high - low, 1e-20) / 255
    levels = graph.add_pixels(tensor, schema.TensorType.INT8, f"{graph.name(tensor)}/levels")
    rounded = graph.add_tensor(tensor, "rounded")
    graph.tensors[levels].quantization.scale = [scale]
    graph.tensors[levels].quantization.zeroPoint = [round(-128 - low / scale)]
    graph.insert(position, "QUANTIZE", [tensor], levels)
    graph.insert(position + 1, "DEQUANTIZE", [levels], rounded)
    return rounded


def quantize(file, kind, values=None, norm_bits=8, spared=None, segmented=()):
    """Makes a smaller file of a float32 one.

    Args:
        file: bytes of a float32 LiteRT file, of `calibrate` or, for "float16", of `litert.convert`.
        kind: what is no longer float32:
            "float16": weights; CPUs compute with them in 32 bits.
            "gpu": as float16, with norms that a GPU may compute in 16 bits.
            "dynamic": weights, in 8 bits; activations are scaled as they come.
            "int8": inner convolutions as a whole; the outer ones are dynamic, norms float.
            "int8_full": everything, in 8 bits.
            "int16x8": everything, activations in 16 bits and weights in 8.
        values: those of `calibrate`, for the kinds in `COUNTED`.
        norm_bits: 8, or 16: "int8_full" computes norms and additions in 16 bits.
        spared: of `spared_layers`, for "dynamic" and "int8"; those in float have weights of 16 bits.
        segmented: of `segmented_convolutions`, for "int8_full".

    Returns:
        bytes, with the same signature. Images are float32 pixels; of "int8_full" int8, pixel - 128; of "int16x8" int16,
        pixels at the input and what the output's scale says. A style is float32; of these two what its scale says.
    """
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager

    operation, spared = qtyping.TFLOperationName, spared or {}
    recipe = recipe_manager.RecipeManager()
    limits = {}
    if kind != "float16" and kind not in CALIBRATED:
        raise UserError(f"kind={kind!r}: expected float16, {', '.join(CALIBRATED)}")
    if kind in COUNTED and values is None:
        raise UserError(f"{kind} needs the values of calibrate(file, images, again)")
    half = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    if kind in ("float16", "gpu"):
        file = _with_short_sums(file) if kind == "gpu" else file
        recipe.add_quantization_config(".*", operation.ALL_SUPPORTED, half, quantizer.AlgorithmName.FLOAT_CASTING)
    elif kind in ("dynamic", "int8"):
        recipe.add_dynamic_config(".*", operation.ALL_SUPPORTED, 8)
        # XNNPACK has no depthwise convolution with scales that come with the map. Their weights are few.
        keep = quantizer.AlgorithmName.NO_QUANTIZE
        recipe.add_quantization_config(".*", operation.DEPTHWISE_CONV_2D, algorithm_key=keep)
        if kind == "int8":
            for name in inner_convolutions(file, spared):
                recipe.add_static_config(_only(name), operation.CONV_2D, activation_num_bits=8, weight_num_bits=8)
            limits = ranges.limits(file, values, 8)
        for name in (name for name, how in spared.items() if how == "float"):
            for layer in LAYERS:
                casting = quantizer.AlgorithmName.FLOAT_CASTING
                recipe.add_quantization_config(_only(name), getattr(operation, layer), half, casting)
    else:
        if kind == "int16x8":
            file, values = _without_large_biases(*equalise(file, values, "deviation"))
        else:
            file = segments.split(file, values, segmented)
        file, pixels = _with_whole_levels(file, kind)
        bits = 16 if kind == "int16x8" else 8
        recipe.add_static_config(".*", operation.ALL_SUPPORTED, activation_num_bits=bits, weight_num_bits=8)
        if norm_bits == 16:
            for name in _OF_NORMS:
                recipe.add_static_config(".*", getattr(operation, name), activation_num_bits=16, weight_num_bits=8)
            for name in pixels:  # but not the mapping at the ends
                for op in (operation.MUL, operation.ADD):
                    recipe.add_static_config(_only(name), op, activation_num_bits=8, weight_num_bits=8)
        known = pixels | dict.fromkeys(segmented if kind == "int8_full" else (), segments.RANGE)
        limits = ranges.limits(file, values, bits, known)
        if norm_bits == 16 and kind == "int8_full":
            wide = ranges.limits(file, values, 16, pixels)
            limits |= {name: wide[name] for name in _inside_norms(file, pixels)}
    graph = Graph(file)
    ranks = {graph.name(t): len(graph.shape(t)) for t in range(len(graph.tensors))}
    scales = {
        name: {key: np.full([1] * ranks[name], x, np.float32) for key, x in (("min", low), ("max", high))}
        for name, (low, high) in limits.items()
        if name in ranks
    }
    file = _quantized(file, recipe, scales)
    return _with_one_size(file) if kind in ("int8_full", "int16x8") else file


def _quantized(file, recipe, scales=None):
    from ai_edge_quantizer import quantizer

    with _quiet():
        job = quantizer.Quantizer(file, recipe.get_quantization_recipe())
        return bytes(job.quantize(scales or None).quantized_model)


def _inside_norms(file, pixels):
    """Names of the tensors that only operations in `_OF_NORMS` write and read, but for those of the pixels' mapping."""
    graph = Graph(file)

    def inside(operator):
        return graph.operation(operator) in _OF_NORMS and graph.name(operator.outputs[0]) not in pixels

    return [
        graph.name(tensor)
        for tensor, operator in graph.producer.items()
        if inside(operator) and all(map(inside, graph.consumers[tensor]))
    ]


def _with_short_sums(file):
    """The float file whose means over the image are taken in steps, each of at most 16 values where sides divide.

    A GPU may add up in float16, where a sum of ones stands still at 2,048, and one above 65,504 is infinite. The values
    themselves are 32 at most, about, after the equalisation. All GPUs and XNNPACK have AVERAGE_POOL_2D.
    """
    graph = Graph(file)
    for operator in list(graph.operators):
        if graph.operation(operator) == "RSQRT":
            # An epsilon that float16 has: smaller ones would leave 0 / 0 of a flat image.
            added = graph.producer[operator.inputs[0]]
            for i, values in enumerate(map(graph.constant, added.inputs)):
                if graph.operation(added) == "ADD" and values is not None:
                    graph.set_input(added, i, np.maximum(values, np.float32(2**-14)))
        if graph.operation(operator) != "MEAN":
            continue
        source, axes = operator.inputs
        (result,) = operator.outputs
        _, height, width, channels = [*graph.shape(source), 0, 0][:4]
        rank = len(graph.shape(source))
        over = {int(axis) % rank for axis in graph.constant(axes).reshape(-1)}
        if rank != 4 or not over >= {1, 2} or 0 in over or not operator.builtinOptions.keepDims:
            continue
        while height * width > 1:
            window = [next((n for n in range(_WINDOW, 1, -1) if side % n == 0), side) for side in (height, width)]
            if max(window) > _WINDOW:  # a prime: rows, and then columns
                window = [window[0], 1] if window[0] > 1 else window
            height, width = height // window[0], width // window[1]
            last = height * width == 1 and 3 not in over
            pooled = result if last else graph.add_tensor(source, f"mean {height} {width}")
            graph.tensors[pooled].shape = [1, height, width, channels]
            graph.insert_before(operator, "AVERAGE_POOL_2D", [source], pooled, window)
            source = pooled
        if 3 in over:
            graph.replace_input(operator, 0, source)
        else:
            graph.operators.remove(operator)
    return graph.to_bytes()


def largest(file, values):
    """What 16-bit floats have to hold where a GPU computes the "gpu" file of a float32 one.

    Args:
        file: bytes of the float32 file, of `calibrate`.
        values: of that file.

    Returns:
        dict of "value", the largest magnitude of any tensor; "tensor", the name of that one; "sum", what no sum that a
        mean is divided from exceeds: over the image 16 of the largest values, over channels the sum itself.
    """
    graph = Graph(file)
    magnitudes = {name: float(max(-seen.low.min(), seen.high.max())) for name, seen in values.items()}
    sums = [0.0]
    for operator in graph.operators:
        if graph.operation(operator) == "MEAN":
            source, result = operator.inputs[0], operator.outputs[0]
            channels = graph.shape(source)[-1] // graph.shape(result)[-1]
            if math.prod(graph.shape(source)) > channels * math.prod(graph.shape(result)):
                sums.append(_WINDOW**2 * magnitudes[graph.name(source)])
            if channels > 1:
                sums.append(channels * magnitudes[graph.name(result)])
    top = max(magnitudes, key=magnitudes.get)
    return {"value": magnitudes[top], "tensor": top, "sum": max(sums)}


def check(file, kind):
    """Raises `UserError` where a float32 file has operations that the kind has no form of, or that no GPU takes."""
    if kind == "gpu":
        graph = Graph(file)
        refused = sorted({graph.operation(o) for o in graph.operators} - {*_GPU})
        if refused:
            raise UserError(
                f"--formats=gpu: the networks of this model need {', '.join(refused)}, which LiteRT's GPU accelerator "
                "does not take: leave gpu out"
            )
    if kind not in ("int8_full", "int16x8"):
        return
    from ai_edge_quantizer import default_policy

    bits = 16 if kind == "int16x8" else 8
    known = {
        operation.value
        for operation, configs in default_policy.DEFAULT_CONFIG_CHECK_POLICY.items()
        if any(c.activation_tensor_config and c.activation_tensor_config.num_bits == bits for c in configs)
    }
    graph = Graph(file)
    _spell_out(graph)
    missing = sorted({graph.operation(o) for o in graph.operators if graph.is_float(o.outputs[0])} - known)
    if missing:
        raise UserError(
            f"--formats={kind}: the networks of this model need {', '.join(missing)}, which there is no {bits}-bit "
            f"form of: leave {kind} out; dynamic and int8 keep such operations in float32"
        )


def _with_whole_levels(file, kind):
    """The float file whose ends are levels that integers can be, and the ranges of its pixels.

    The mapping of pixels to the networks' range becomes part of the first convolution, which then reads whole levels.
    An 8-bit tanh counts in steps of 1/128, a sigmoid in 1/256: their integers are pixels as they are, if white is 256
    instead of 255, which moves no value by more than a level.
    """
    graph = Graph(file)
    (source, *style), (result,) = graph.inputs, graph.outputs
    _fold_mapping(graph)
    _spell_out(graph)
    graph.unshare()
    pixels = {graph.name(t): (-STYLE, STYLE) for t in style}
    pixels |= {graph.name(source): (0.0, 255.0), graph.name(result): (0.0, 255.0)}
    if kind == "int16x8":
        # A scale of 1: each level is an integer.
        pixels[graph.name(source)] = (-32767.0, 32767.0)
    for operator in graph.operators:
        # Otherwise 16-bit additions are refused where all scales are powers of two and the sum has a smaller one.
        if hasattr(operator.builtinOptions, "potScaleInt16"):
            operator.builtinOptions.potScaleInt16 = False
    if kind == "int16x8":
        return graph.to_bytes(), pixels
    mapping = [graph.producer[result]]
    if graph.operation(mapping[0]) == "ADD":
        pixels[graph.name(mapping[0].inputs[0])] = (-128.0, 127.0)
        mapping.append(graph.producer[mapping[0].inputs[0]])
    before = graph.producer[mapping[-1].inputs[0]]
    while graph.operation(before) in ranges.MOVING:
        before = graph.producer[before.inputs[0]]
    if graph.operation(before) in ("TANH", "LOGISTIC"):
        for operator in mapping:
            graph.set_input(operator, 1, graph.constant(operator.inputs[1]) * np.float32(256 / 255))
    return graph.to_bytes(), pixels


def _without_large_biases(file, values):
    """A float file and its values, where a bias that 32 bits cannot hold in steps of a 16-bit product is added alone.

    Such a step is one of the weights times one of the input: both are tiny in a layer that says 1 + α (W s + b) with a
    small α.
    """
    graph, values = Graph(file), dict(values)
    for operator in list(graph.operators):
        if graph.operation(operator) not in ("CONV_2D", "FULLY_CONNECTED") or len(operator.inputs) < 3:
            continue
        (source, kernel, bias), (result,) = operator.inputs, operator.outputs
        weights, offsets = graph.constant(kernel), graph.constant(bias) if bias >= 0 else None
        linear = operator.builtinOptions.fusedActivationFunction == schema.ActivationFunctionType.NONE
        if weights is None or offsets is None or not linear:
            continue
        seen = values[graph.name(source)]
        steps = np.abs(weights).reshape(len(weights), -1).max(1) / 127 * max(-seen.low.min(), seen.high.max()) / 32767
        if np.any(np.abs(offsets) >= 2.0**31 * steps) and offsets.any():
            product = graph.add_tensor(result, "without bias")
            values[graph.name(product)] = values[graph.name(result)].scaled(1.0, -offsets.astype(np.float64))
            operator.outputs = [product]
            graph.set_input(operator, 2, np.zeros_like(offsets))
            position = next(i for i, o in enumerate(graph.operators) if o is operator)
            graph.set_input(graph.insert(position + 1, "ADD", [product], result), 1, offsets)
    return graph.to_bytes(), values


def _with_one_size(file):
    """The file of integers whose tensors cannot be allocated for another height or width.

    The mapping of pixels would see to that if it were not part of the first convolution. Zeros for each pixel do
    instead, added to the levels, which stay as they are.
    """
    graph = Graph(file)
    source = graph.inputs[0]
    readers = graph.consumers[source]
    if graph.operation(readers[0]) == "MUL":
        return file
    levels = graph.add_tensor(source, "of one size")
    for reader in readers:
        graph.exchange_input(reader, source, levels)
    quantization = graph.tensors[source].quantization
    dtype = np.int8 if graph.tensors[source].type == schema.TensorType.INT8 else np.int16
    zeros = np.full((1, *graph.shape(source)[1:3], 1), quantization.zeroPoint[0], dtype)
    guard = graph.insert(0, "ADD", [source], levels)
    graph.set_input(guard, 1, zeros)
    for tensor in (levels, guard.inputs[1]):
        graph.tensors[tensor].quantization = quantization
    guard.builtinOptions.potScaleInt16 = False
    return graph.to_bytes()


def _spell_out(graph):
    """Writes operators that the quantizer does not know by those that it does."""
    for operator in list(graph.operators):
        (result,) = operator.outputs[:1]
        if graph.operation(operator) == "NEG":
            product = graph.insert_before(operator, "MUL", operator.inputs, result)
            graph.set_input(product, 1, np.float32([-1]))
        elif graph.operation(operator) == "LEAKY_RELU":
            less = graph.add_tensor(result, "less")
            product = graph.insert_before(operator, "MUL", operator.inputs, less)
            graph.set_input(product, 1, np.float32([operator.builtinOptions.alpha]))
            graph.insert_before(operator, "MAXIMUM", [*operator.inputs, less], result)
        else:
            continue
        graph.operators.remove(operator)


def _fold_mapping(graph):
    """Where only convolutions without padding of their own read the mapped pixels, they take the pixels themselves."""
    source = graph.inputs[0]
    first = graph.consumers[source]
    if len(first) != 1 or graph.operation(first[0]) != "MUL":
        return
    (mapped,) = first[0].outputs
    offset, mapping = np.zeros((1, 1, 1, 1), np.float32), first
    after = graph.consumers[mapped]
    if len(after) == 1 and graph.operation(after[0]) == "ADD" and graph.constant(after[0].inputs[1]) is not None:
        mapping = [*first, after[0]]
        (mapped,) = after[0].outputs
        offset = graph.constant(after[0].inputs[1])
    readers, seen = [], [mapped]
    while seen:
        for operator in graph.consumers[seen.pop()]:
            if graph.operation(operator) in ("STRIDED_SLICE", "CONCATENATION"):
                seen += [t for t in operator.outputs if t not in seen]
            else:
                readers.append(operator)
    if any(graph.operation(o) != "CONV_2D" or o.builtinOptions.padding != schema.Padding.VALID for o in readers):
        return
    factor = graph.constant(first[0].inputs[1])
    # A column and a row of equal numbers, or of one for each channel.
    factor, offset = (
        np.broadcast_to(v, (1, *np.shape(v)[1:3], graph.shape(source)[3]))[0, 0, 0] for v in (factor, offset)
    )
    for operator in {id(o): o for o in readers}.values():
        weights = graph.constant(operator.inputs[1]).astype(np.float64)
        bias = np.einsum("ohwi,i->o", weights, offset)
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            bias = bias + graph.constant(operator.inputs[2])
        graph.set_input(operator, 1, (weights * factor).astype(np.float32))
        graph.set_input(operator, 2, bias.astype(np.float32))
    for operator in graph.consumers[mapped]:
        graph.exchange_input(operator, mapped, source)
    for operator in mapping:
        graph.operators.remove(operator)


def inner_convolutions(file, spared=()):
    """The convolutions that "int8" gives fixed scales, because they lose least by them.

    Their maps, before and behind, are at most a quarter as high as the image that the networks see, which may be
    mirrored to a multiple, and no residual sum, where errors stay, takes their outputs as they are.

    Args:
        file: bytes of a float32 LiteRT file.
        spared: names of convolutions to leave out, such as those of `spared_layers`.

    Returns:
        list of the names of what they write; empty where "int8" is the same as "dynamic".
    """
    graph = Graph(file)
    heights = {}  # name → (of the map before, of the map behind)
    for operator in graph.operators:
        if graph.operation(operator) == "CONV_2D":
            (written,) = operator.outputs
            before = graph.shape(written)[1] * operator.builtinOptions.strideH
            heights[written] = before, _height_behind(graph, written)
    height = max([graph.shape(graph.inputs[0])[1], *(before for before, _ in heights.values())])
    return [
        graph.name(written)
        for written, around in heights.items()
        if 4 * max(around) <= height
        and graph.name(written) not in spared
        and "ADD" not in {graph.operation(reader) for reader in graph.consumers[written]}
    ]


def _height_behind(graph, tensor):
    """Of the map once its channels have been moved into pixels."""
    height = graph.shape(tensor)[1]
    for operator in graph.consumers[tensor]:
        if graph.operation(operator) in ("DEPTH_TO_SPACE", "RESHAPE", "TRANSPOSE"):
            height = max(height, _height_behind(graph, operator.outputs[0]))
    return height


def _only(name):
    # The quantizer joins the names of an operator's outputs by semicolons.
    return f"^{re.escape(name)};?$"


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
