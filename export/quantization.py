"""8-bit and 16-bit files of a float32 LiteRT file."""

import contextlib
import io
import re
import warnings

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfi2i.config import UserError

from . import ranges
from .equalise import equalise
from .graph import Graph

# Kinds that are made of an equalised file with the help of calibration images.
CALIBRATED = ("dynamic", "int8", "int8_full", "int16x8", "gpu")
# Those of them that need histograms, or extremes.
COUNTED = ("int8", "int8_full", "int16x8")


def calibrate(file, images, again=None):
    """Equalises a float32 file, and learns on real images what its tensors hold.

    Args:
        file: bytes of `litert.convert`.
        images: iterable of float32 pixels [1, H, W, C], 0 to 255, of the domain that is translated.
        again: the same images a second time; needed for the kinds in `COUNTED`.

    Returns:
        (bytes of a file that computes the same, the values of its tensors): what `quantize` takes.
    """
    file, values = equalise(file, ranges.observe(file, images))
    if again is not None:
        ranges.count(file, again, values)
    return file, values


def quantize(file, kind, values=None, norm_bits=8):
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

    Returns:
        bytes, with the same signature. Images are float32 pixels; of "int8_full" int8, pixel - 128; of "int16x8" int16,
        pixels at the input and what the output's scale says.
    """
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager

    operation = qtyping.TFLOperationName
    recipe = recipe_manager.RecipeManager()
    limits = {}
    if kind != "float16" and kind not in CALIBRATED:
        raise UserError(f"kind={kind!r}: expected float16, {', '.join(CALIBRATED)}")
    if kind in COUNTED and values is None:
        raise UserError(f"{kind} needs the values of calibrate(file, images, again)")
    if kind in ("float16", "gpu"):
        file = _with_short_sums(file) if kind == "gpu" else file
        half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        config = qtyping.OpQuantizationConfig(
            weight_tensor_config=half, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
        )
        recipe.add_quantization_config(".*", operation.ALL_SUPPORTED, config, quantizer.AlgorithmName.FLOAT_CASTING)
    elif kind in ("dynamic", "int8"):
        recipe.add_dynamic_config(".*", operation.ALL_SUPPORTED, 8)
        # XNNPACK has no depthwise convolution with scales that come with the map. Their weights are few.
        keep = quantizer.AlgorithmName.NO_QUANTIZE
        recipe.add_quantization_config(".*", operation.DEPTHWISE_CONV_2D, algorithm_key=keep)
        if kind == "int8":
            for name in _inner_convolutions(Graph(file)):
                recipe.add_static_config(_only(name), operation.CONV_2D, activation_num_bits=8, weight_num_bits=8)
            limits = ranges.limits(file, values, 8)
    else:
        if kind == "int16x8":
            file, values = equalise(file, values, "deviation")
        file, pixels = _with_whole_levels(file, kind)
        bits = 16 if kind == "int16x8" else 8
        recipe.add_static_config(".*", operation.ALL_SUPPORTED, activation_num_bits=bits, weight_num_bits=8)
        if norm_bits == 16:
            for name in ("MEAN", "SUB", "MUL", "RSQRT", "ADD"):
                recipe.add_static_config(".*", getattr(operation, name), activation_num_bits=16, weight_num_bits=8)
            for name in pixels:  # but not the mapping at the ends
                for op in (operation.MUL, operation.ADD):
                    recipe.add_static_config(_only(name), op, activation_num_bits=8, weight_num_bits=8)
        limits = ranges.limits(file, values, bits, pixels)
    graph = Graph(file)
    ranks = {graph.name(t): len(graph.shape(t)) for t in range(len(graph.tensors))}
    scales = {
        name: {key: np.full([1] * ranks[name], x, np.float32) for key, x in (("min", low), ("max", high))}
        for name, (low, high) in limits.items()
        if name in ranks
    }
    with _quiet():
        job = quantizer.Quantizer(file, recipe.get_quantization_recipe())
        return bytes(job.quantize(scales or None).quantized_model)


def _with_short_sums(file):
    """The float file whose means over the image are taken in steps, each of at most 16 values where sides divide.

    A GPU may add up in float16, where a sum of ones stands still at 2,048, and one above 65,504 is infinite. The values
    themselves are 32 at most, about, after the equalisation. All GPUs and XNNPACK have AVERAGE_POOL_2D.
    """
    graph = Graph(file)
    for operator in list(graph.operators):
        if graph.kind(operator) == "RSQRT":
            # An epsilon that float16 has: smaller ones would leave 0 / 0 of a flat image.
            added = graph.producer[operator.inputs[0]]
            for i, values in enumerate(map(graph.constant, added.inputs)):
                if graph.kind(added) == "ADD" and values is not None:
                    graph.set_input(added, i, np.maximum(values, np.float32(2**-14)))
        if graph.kind(operator) != "MEAN":
            continue
        source, axes = operator.inputs
        (result,) = operator.outputs
        _, height, width, channels = [*graph.shape(source), 0, 0][:4]
        rank = len(graph.shape(source))
        over = {int(axis) % rank for axis in graph.constant(axes).reshape(-1)}
        if rank != 4 or not over >= {1, 2} or 0 in over or not operator.builtinOptions.keepDims:
            continue
        while height * width > 1:
            window = [next((n for n in (4, 3, 2) if side % n == 0), side) for side in (height, width)]
            if max(window) > 4:  # a prime: rows, and then columns
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


def check(file, kind):
    """Raises `UserError` where a float32 file has operations that the kind has no integers for."""
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
    missing = sorted({graph.kind(o) for o in graph.operators if graph.is_float(o.outputs[0])} - known)
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
    (source,), (result,) = graph.inputs, graph.outputs
    _fold_mapping(graph)
    _spell_out(graph)
    graph.unshare()
    pixels = {graph.name(source): (0.0, 255.0), graph.name(result): (0.0, 255.0)}
    if kind == "int16x8":
        # A scale of 1: each level is an integer.
        pixels[graph.name(source)] = (-32767.0, 32767.0)
        for operator in graph.operators:
            if hasattr(operator.builtinOptions, "potScaleInt16"):
                operator.builtinOptions.potScaleInt16 = False
        return graph.to_bytes(), pixels
    mapping = [graph.producer[result]]
    if graph.kind(mapping[0]) == "ADD":
        pixels[graph.name(mapping[0].inputs[0])] = (-128.0, 127.0)
        mapping.append(graph.producer[mapping[0].inputs[0]])
    before = graph.producer[mapping[-1].inputs[0]]
    while graph.kind(before) in ranges.MOVING:
        before = graph.producer[before.inputs[0]]
    if graph.kind(before) in ("TANH", "LOGISTIC"):
        for operator in mapping:
            graph.set_input(operator, 1, graph.constant(operator.inputs[1]) * np.float32(256 / 255))
    return graph.to_bytes(), pixels


def _spell_out(graph):
    """Writes operators that the quantizer does not know by those that it does."""
    for operator in list(graph.operators):
        (result,) = operator.outputs[:1]
        if graph.kind(operator) == "NEG":
            product = graph.insert_before(operator, "MUL", operator.inputs, result)
            graph.set_input(product, 1, np.float32([-1]))
        elif graph.kind(operator) == "LEAKY_RELU":
            less = graph.add_tensor(result, "less")
            product = graph.insert_before(operator, "MUL", operator.inputs, less)
            graph.set_input(product, 1, np.float32([operator.builtinOptions.alpha]))
            graph.insert_before(operator, "MAXIMUM", [*operator.inputs, less], result)
        else:
            continue
        graph.operators.remove(operator)


def _fold_mapping(graph):
    """Where only convolutions without padding of their own read the mapped pixels, they take the pixels themselves."""
    (source,) = graph.inputs
    first = graph.consumers[source]
    if len(first) != 1 or graph.kind(first[0]) != "MUL":
        return
    (mapped,) = first[0].outputs
    offset, mapping = np.zeros((1, 1, 1, 1), np.float32), first
    after = graph.consumers[mapped]
    if len(after) == 1 and graph.kind(after[0]) == "ADD" and graph.constant(after[0].inputs[1]) is not None:
        mapping = [*first, after[0]]
        (mapped,) = after[0].outputs
        offset = graph.constant(after[0].inputs[1])
    readers, seen = [], [mapped]
    while seen:
        for operator in graph.consumers[seen.pop()]:
            if graph.kind(operator) in ("STRIDED_SLICE", "CONCATENATION"):
                seen += [t for t in operator.outputs if t not in seen]
            else:
                readers.append(operator)
    if any(graph.kind(o) != "CONV_2D" or o.builtinOptions.padding != schema.Padding.VALID for o in readers):
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
        operator.inputs = [source if t == mapped else t for t in operator.inputs]
    for operator in mapping:
        graph.operators.remove(operator)


def _inner_convolutions(graph):
    """Names of what the convolutions write that lose least by fixed scales.

    Their maps, before and behind, are at most a quarter as high as the image, and no residual sum, where errors stay,
    takes their outputs as they are.
    """
    height = graph.shape(graph.inputs[0])[1]
    for operator in graph.operators:
        if graph.kind(operator) == "CONV_2D":
            (written,) = operator.outputs
            before = graph.shape(written)[1] * operator.builtinOptions.strideH
            added = "ADD" in {graph.kind(reader) for reader in graph.consumers[written]}
            if not added and 4 * max(before, _height_behind(graph, written)) <= height:
                yield graph.name(written)


def _height_behind(graph, tensor):
    """Of the map once its channels have been moved into pixels."""
    height = graph.shape(tensor)[1]
    for operator in graph.consumers[tensor]:
        if graph.kind(operator) in ("DEPTH_TO_SPACE", "RESHAPE", "TRANSPOSE"):
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
