"""Convolutions whose outputs are computed in segments, because 8 bits hold their whole range too coarsely.

Where a network has no norm, the outputs of a convolution can reach far. One that enlarges the map of a trained UNIT
lost more in 8 bits than all other tensors together. With a ReLU of slope a for negative values behind it, it is a sum:

    max(x, a x) = min(relu(x), t) + relu(x - t) - a relu(-x)

Each part is the convolution itself with another bias or sign. With t half of the largest x, the first two have steps of
half the size, and those of the third count a times. The next convolution adds up all three in 32 bits, because its
weights are linear. So all activations are integers of 8 bits, and hold one bit more.

Each part is the ReLU6 of a multiple. The float file therefore computes the same, up to the largest x that was observed.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .equalise import channels_stay
from .graph import Graph

# The range of what a convolution in segments writes.
RANGE = (0.0, 6.0)
# The part of negative values has weights of at least this share of the others', so that 8 bits hold both.
_SMALLEST_WEIGHTS = 1 / 8
_MOVING = ("RESHAPE", "TRANSPOSE", "STRIDED_SLICE", "PAD", "CONCATENATION")
_ACTIVATIONS = schema.ActivationFunctionType


def candidates(file):
    """Names of what those convolutions write that can be computed in segments.

    A ReLU, leaky or not, is behind them, and only convolutions read its result, which may be moved or padded before.
    """
    graph = Graph(file)
    return [graph.name(o.outputs[0]) for o in graph.operators if _Chain(graph, o).complete]


def split(file, values, names):
    """Computes some convolutions of a float file in segments.

    Args:
        file: bytes of a float32 LiteRT file.
        values: of that file, by `ranges.observe`.
        names: some of `candidates`.

    Returns:
        bytes of a file that computes the same. What the named convolutions write lies in `RANGE`.
    """
    graph = Graph(file)
    for operator in graph.operators[:]:
        if graph.name(operator.outputs[0]) in names:
            seen = values[graph.name(operator.outputs[0])]
            _split(graph, operator, max(0.0, -seen.low.min()), max(1e-20, seen.high.max()))
    return graph.to_bytes()


class _Chain:
    """What lies between a convolution and those that read it.

    Attributes:
        slope: of its ReLU for negative values; None without a ReLU.
        activation: the operator of that; None where it is part of the convolution.
        tensors: those that hold what the convolution writes, and the same behind the ReLU.
        moving: the operators that move or pad these.
        readers: the convolutions behind them.
        complete: whether there is all this and nothing else.
    """

    def __init__(self, graph, operator):
        self.slope, self.activation, self.tensors, self.moving, self.readers = None, None, [], [], []
        self.complete = _is_plain(graph, operator)
        if not self.complete:
            return
        fused = operator.builtinOptions.fusedActivationFunction
        self.slope = 0.0 if fused == _ACTIVATIONS.RELU else None
        self.complete = fused in (_ACTIVATIONS.NONE, _ACTIVATIONS.RELU)
        self._follow(graph, operator.outputs[0])
        computed = {t for o in self.moving for t in o.inputs if graph.constant(t) is None}
        self.complete &= self.slope is not None and bool(self.readers) and computed <= {*self.tensors}
        # Each pixel's parts stand behind one another, so no operator may divide or join pixels that readers know.
        channels = {graph.shape(o.inputs[0])[-1] for o in self.readers}
        self.complete &= len(channels) == 1 and not any(graph.shape(t)[-1] % max(channels) for t in self.tensors)

    def _follow(self, graph, tensor):
        self.tensors.append(tensor)
        self.complete &= tensor not in graph.outputs
        readers = graph.consumers[tensor]
        for reader in {id(o): o for o in readers}.values():
            operation = graph.operation(reader)
            if self.slope is None and len(readers) > 1:
                self.complete = False
            elif self.slope is None and operation in ("RELU", "LEAKY_RELU"):
                self.slope = reader.builtinOptions.alpha if operation == "LEAKY_RELU" else 0.0
                self.activation = reader
                self._follow(graph, reader.outputs[0])
            elif operation in _MOVING and channels_stay(graph, reader):
                self.moving.append(reader)
                if reader.outputs[0] not in self.tensors:
                    self._follow(graph, reader.outputs[0])
            elif self.slope is not None and _is_plain(graph, reader):
                self.readers.append(reader)
            else:
                self.complete = False


def _is_plain(graph, operator):
    """Whether it is a convolution without groups, of constant weights."""
    if graph.operation(operator) != "CONV_2D" or graph.constant(operator.inputs[1]) is None:
        return False
    return graph.shape(operator.inputs[1])[-1] == graph.shape(operator.inputs[0])[-1]


def _split(graph, operator, below, above):
    """Computes a convolution, whose outputs lie between -below and above, in segments."""
    chain = _Chain(graph, operator)
    half = above / 2
    # Of each part: the factor of the outputs, what is added to them before, and the factor that takes the first one out
    # again.
    parts = [(6 / half, 0.0, half / 6), (6 / half, -half, half / 6)]
    if chain.slope and below:
        largest = min(6 / below, 6 / half * chain.slope / _SMALLEST_WEIGHTS)
        parts.append((-largest, 0.0, -chain.slope / largest))
    channels = graph.shape(chain.readers[0].inputs[0])[-1]

    weights = graph.constant(operator.inputs[1])
    bias = graph.constant(operator.inputs[2]) if len(operator.inputs) > 2 and operator.inputs[2] >= 0 else 0.0
    bias = np.broadcast_to(bias, len(weights))
    # A transposed convolution writes the channels of several pixels in a row, and the parts of each pixel go together.
    weights, bias = (v.reshape(-1, 1, channels, *v.shape[1:]) for v in (weights, bias))
    weights = np.concatenate([weights * factor for factor, _, _ in parts], 1)
    bias = np.concatenate([(bias + shift) * factor for factor, shift, _ in parts], 1)
    graph.set_input(operator, 1, weights.reshape(-1, *weights.shape[3:]).astype(np.float32))
    graph.set_input(operator, 2, bias.reshape(-1).astype(np.float32))
    operator.builtinOptions.fusedActivationFunction = _ACTIVATIONS.RELU6

    for moved in chain.moving:
        position = {"RESHAPE": 1, "STRIDED_SLICE": 2}.get(graph.operation(moved))
        if position:
            constant = graph.constant(moved.inputs[position]).copy()
            constant[-1] *= len(parts)
            graph.set_input(moved, position, constant)
    for tensor in chain.tensors:
        *rest, last = graph.shape(tensor)
        graph.tensors[tensor].shape = [*rest, len(parts) * last]
        graph.tensors[tensor].shapeSignature = None
    for reader in chain.readers:
        weights = graph.constant(reader.inputs[1])
        weights = np.concatenate([weights * factor for _, _, factor in parts], -1)
        graph.set_input(reader, 1, weights.astype(np.float32))
    if chain.activation:
        (before,), (behind,) = chain.activation.inputs, chain.activation.outputs
        for reader in graph.consumers[behind]:
            graph.exchange_input(reader, behind, before)
        graph.consumers[before] = graph.consumers[behind]
        graph.operators.remove(chain.activation)
