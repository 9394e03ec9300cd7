"""What the tensors of a float LiteRT file hold on real images, and the ranges that quantization gives them."""

import dataclasses
import warnings

import numpy as np
from ai_edge_litert import interpreter
from ai_edge_litert import schema_py_generated as schema

from tfi2i import machine

from .graph import Graph

# Operators that move numbers without changing them.
MOVING = (
    "RESHAPE",
    "TRANSPOSE",
    "STRIDED_SLICE",
    "CONCATENATION",
    "SPLIT",
    "PAD",
    "MAX_POOL_2D",
    "GATHER",
)
_BINS = 4096
# Of ranges of 16 bits. Other images and other styles go beyond what the calibration images reach.
_HEADROOM = 1.25


@dataclasses.dataclass
class Values:
    """Of one tensor, over all images.

    Attributes:
        low, high: float64 [C], extremes of each channel, the last axis.
        total, squares: float64 [C], sums of the values and of their squares.
        count: how many values of each channel there were.
        histogram: int64 [4096], how many values of all channels lay in equal steps from the lowest to the highest; None
            if they have not been counted.
    """

    low: np.ndarray
    high: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    count: int
    histogram: np.ndarray = None

    def scaled(self, factor, shift=0.0):
        """The same of (x + shift) · factor, not counted."""
        low, high = (self.low + shift) * factor, (self.high + shift) * factor
        squares = (self.squares + 2 * shift * self.total + self.count * shift**2) * factor**2
        total = (self.total + self.count * shift) * factor
        return Values(low, high, total, squares, self.count)


def observe(file, images):
    """Runs a float file on images.

    Args:
        file: bytes of a float32 LiteRT file.
        images: iterable of what its inputs take: float32 [1, H, W, C], or (that, style float32 [1, style_size]).

    Returns:
        dict of tensor's name → `Values`, of the float tensors that are computed; without histograms.
    """
    seen = {}
    for name, x in _run(file, images):
        exact = x.astype(np.float64)
        new = Values(x.min(0), x.max(0), exact.sum(0), np.square(exact).sum(0), len(x))
        old = seen.get(name)
        if old:
            new.low, new.high = np.minimum(old.low, new.low), np.maximum(old.high, new.high)
            for sums in ("total", "squares", "count"):
                setattr(new, sums, getattr(old, sums) + getattr(new, sums))
        seen[name] = new
    return seen


def count(file, images, values):
    """Gives `values`, of that file and of these images, their histograms."""
    for name, x in _run(file, images):
        seen = values[name]
        low, high = seen.low.min(), seen.high.max()
        bins = (x.reshape(-1) - np.float32(low)) * np.float32(_BINS / max(high - low, 1e-20))
        counted = np.bincount(np.clip(bins, 0, _BINS - 1).astype(np.int32), minlength=_BINS)
        seen.histogram = counted if seen.histogram is None else seen.histogram + counted


def outputs(file, images):
    """What a float file gives for each of the images that `observe` takes: list of float32 [1, H, W, C]."""
    run = interpreter.Interpreter(model_content=file, num_threads=machine.cores())
    run.allocate_tensors()
    (result,) = run.get_output_details()
    found = []
    for given in images:
        for source, x in zip(run.get_input_details(), given if isinstance(given, tuple) else (given,), strict=True):
            run.set_tensor(source["index"], x)
        run.invoke()
        found.append(run.get_tensor(result["index"]))
    return found


def _run(file, images):
    """Yields (tensor's name, float32 [n, C]) of all float tensors that are computed, image by image."""
    graph = Graph(file)
    computed = {t: graph.name(t) for t in (*graph.inputs, *graph.producer) if graph.is_float(t)}
    # Without the CPU delegate, which would keep tensors to itself.
    with warnings.catch_warnings(action="ignore"):
        run = interpreter.Interpreter(
            model_content=file, experimental_preserve_all_tensors=True, num_threads=machine.cores()
        )
    run.allocate_tensors()
    for given in images:
        for tensor, x in zip(graph.inputs, given if isinstance(given, tuple) else (given,), strict=True):
            run.set_tensor(tensor, x)
        run.invoke()
        for tensor, name in computed.items():
            x = run.get_tensor(tensor)
            yield name, x.reshape(-1, x.shape[-1] if x.ndim else 1)


def limits(file, values, bits, known=None):
    """The range that each tensor is quantized in.

    With 8 bits, the range with the least mean squared error: clipping a few far values leaves smaller steps for all
    others. What only a tanh, a sigmoid or a ReLU reads is judged behind it, so that clipping what saturates it costs
    nothing. With 16 bits steps are small everywhere, and nothing is clipped. Tensors between which values only move
    have one range, because operators that move integers do not rescale them. So have a map and the same less its mean:
    the difference of levels is a level, and only the mean is rounded.

    Args:
        file: bytes of a float32 LiteRT file.
        values: of that file, by `observe`, for 8 bits with the histograms of `count`.
        bits: 8 or 16.
        known: dict of tensor's name → (low, high), for those whose range is not to be found out.

    Returns:
        dict of tensor's name → (low, high), floats, low <= 0 <= high.
    """
    graph = Graph(file)
    found = {}
    for group in _moved_together(graph):
        names = [graph.name(t) for t in group]
        of_known = [known[name] for name in names if name in known] if known else []
        if of_known:
            found |= dict.fromkeys(names, of_known[0])
            continue
        seen = [values[name] for name in names if name in values]
        low, high = min(0.0, *(s.low.min() for s in seen)), max(0.0, *(s.high.max() for s in seen))
        if low == high:
            # Always 0, as behind a ReLU that is closed: a scale near 0 would be refused beside the other operands'.
            high = 1.0
        elif bits == 8:
            low, high = _least_error(seen, low, high, _behind(graph, group))
        elif bits == 16:
            low, high = _HEADROOM * low, _HEADROOM * high
        found |= dict.fromkeys(names, (low, high))
    return found


def _moved_together(graph):
    """Lists of tensors that hold the same numbers, in other places or shapes."""
    group = {t: [t] for t in (*graph.inputs, *graph.producer) if graph.is_float(t)}
    for operator in graph.operators:
        moved = operator.inputs if graph.operation(operator) in MOVING else []
        if graph.operation(operator) == "MAXIMUM":
            moved = operator.inputs[1:]  # these are brought to the result's range anyway
        elif graph.operation(operator) == "SUB" and _is_mean(graph, *operator.inputs):
            moved = operator.inputs[:1]
        for t in moved:
            mine, theirs = group.get(operator.outputs[0]), group.get(t)
            if mine is not None and theirs is not None and mine is not theirs:
                mine += theirs
                group |= dict.fromkeys(theirs, mine)
    return list({id(g): g for g in group.values()}.values())


def _is_mean(graph, tensor, mean):
    """Whether the second tensor holds means of the first one."""
    operator = graph.producer.get(mean)
    return operator is not None and graph.operation(operator) == "MEAN" and operator.inputs[0] == tensor


def _behind(graph, group):
    """The function that alone reads these tensors; the identity if it has no flat or flatter part."""
    readers = [o for t in group for o in graph.consumers[t] if graph.operation(o) not in MOVING]
    kinds = {graph.operation(o) for o in readers}
    if kinds == {"TANH"}:
        return np.tanh
    if kinds == {"LOGISTIC"}:
        return lambda x: 1 / (1 + np.exp(-x))
    if kinds == {"ADD"} and len(readers) == 1 and (offset := graph.constant(readers[0].inputs[1])) is not None:
        if readers[0].builtinOptions.fusedActivationFunction == schema.ActivationFunctionType.RELU:
            return lambda x: np.maximum(x, -offset.max())
    slope = None
    if kinds == {"LEAKY_RELU"} and len(readers) == 1:
        slope = readers[0].builtinOptions.alpha
    if kinds == {"MUL", "MAXIMUM"} and len(readers) == 2:  # a leaky ReLU, spelled out
        constant = next(graph.constant(o.inputs[1]) for o in readers if graph.operation(o) == "MUL")
        slope = constant.item() if constant is not None and constant.size == 1 else None
    if slope is not None:
        return lambda x: np.maximum(x, slope * x)
    return lambda x: x


def _least_error(seen, low, high, behind):
    """(low, high) of 256 levels with the least error of `behind`; one end is moved inwards, then the other, twice."""
    middles, counts = [], []
    for values in seen:
        edges = np.linspace(values.low.min(), values.high.max(), _BINS + 1)
        filled = values.histogram > 0
        middles.append(((edges[1:] + edges[:-1]) / 2)[filled])
        counts.append(values.histogram[filled])
    x, weight = np.concatenate(middles), np.concatenate(counts) / np.sum(np.concatenate(counts))
    truth = behind(x)

    def error(low, high):
        scale = max(high - low, 1e-30) / 255
        zero = np.rint(-low / scale)
        levels = np.clip(np.rint(x / scale) + zero, 0, 255)
        return np.sum(weight * np.square(behind((levels - zero) * scale) - truth))

    best = error(low, high)
    for _ in range(2):
        for end in (0, 1):
            start = (low, high)
            for fraction in np.linspace(1.0, 0.2, 41):
                tried = [*start]
                tried[end] *= fraction
                if (least := error(*tried)) < best:
                    best, (low, high) = least, tried
    return low, high
