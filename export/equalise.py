"""Rescales the channels of a float LiteRT file, exactly, so that 8 bits lose less.

In 8 bits a whole activation shares one scale: channels whose values are small beside another's keep only a few of the
256 levels. Many of these differences can be removed without a change of what the file computes. The convolution before
an instance norm may write its channels at any scale and offset, because the norm takes both out again; a ReLU lets a
factor through; and the next convolution's weights take the inverse factor.

What is free follows from the operations themselves. The logarithm of the factor of each tensor's channels is a linear
combination of unknown vectors. Convolutions, dense layers and constants bring unknowns in; every other operation says
how the combinations of its inputs and its output belong together:

    ADD, SUB, MAXIMUM                 those of the inputs are equal
    CONCATENATION of rows or columns  the same
    CONCATENATION of channels         none; only a convolution can take what is joined
    MUL, DIV                          they are added, subtracted
    RSQRT                             times -1/2
    MEAN over the image               none changes
    MEAN over the channels            all channels have one factor
    TANH, SOFTMAX, …, and both ends   the factor is 1

The unknowns that remain are free. For the norms of our layers that leaves, as tests/test_equalise.py derives:

    instance norm                     a factor and an offset for each channel of the convolution before it
    with gamma and beta, and AdaIN    besides, a factor for each channel of what it writes
    LIN, AdaLIN, layer, sample norm   one common factor before, one for each channel behind gamma and beta
    batch norm                        is part of the convolution: as without a norm
    no norm, modulation               a factor for each channel wherever a ReLU or nothing is between

Source: Nagel et al., arXiv 1906.04721, section 4, for convolutions without norms.
"""

import fractions
import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Graph
from .ranges import MOVING

# Nothing is scaled up by more than this beside the strongest channel: what is nearly constant stays so.
_LARGEST_RATIO = 100.0
# Where the channels' peaks come to lie: squares of it, and a norm's epsilon, are far from the ends of float16.
_PEAK = 32.0
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# A factor above 0 passes these as it is.
_PASSING = (
    "RELU",
    "LEAKY_RELU",
    "ABS",
    "NEG",
    "RESIZE_NEAREST_NEIGHBOR",
    "RESIZE_BILINEAR",
    "MAX_POOL_2D",
    "AVERAGE_POOL_2D",
)
_REDUCING = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")
_RESHAPING = ("RESHAPE", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "SQUEEZE", "EXPAND_DIMS")
_LINEAR = (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)


def equalise(file, values, measure="peak"):
    """The same file with channels of more equal peaks.

    Args:
        file: bytes of a float32 LiteRT file.
        values: of that file, by `ranges.observe`.
        measure: what becomes equal, "peak" or "deviation" (root mean square). In 16 bits a step is small beside every
            channel, but RSQRT looks its results up in a table that wants all variances alike: deviations are better.

    Returns:
        (bytes of the new file, its values: what `observe` would give for it).
    """
    graph = Graph(file)
    values = values | _own_styles(graph, values)
    shifts = _shifts(graph, values)
    factors = _Factors(graph)
    measured = {}
    computed = {t: graph.name(t) for t in factors.combinations}
    for tensor, name in computed.items():
        # Not parts of maps: an edge may be white in all images.
        moved = tensor in graph.producer and graph.operation(graph.producer[tensor]) in MOVING
        if math.prod(graph.shape(tensor)[1:-1]) > 1 and not moved:
            seen = values[name].scaled(1.0, shifts.get(tensor, 0.0))
            rms = np.sqrt(seen.squares / seen.count)
            measured[tensor] = np.maximum(seen.high, -seen.low) if measure == "peak" else rms
    factors.choose(measured)
    for operator in graph.operators:
        factors.apply(operator, shifts)
    new = {
        name: values[name].scaled(factors.of(t, len(values[name].low)), shifts.get(t, 0.0))
        for t, name in computed.items()
    }
    return graph.to_bytes(), new


def _own_styles(graph, values):
    """Gives each operator that shares gamma or beta with others a product of it with ones; returns the values of these.

    All AdaLIN norms of U-GAT-IT's decoder take the same two. The maps behind these norms could only be rescaled alike,
    but a block's inner map and the sum that all blocks add to have different peaks. The ones become their factors.
    """
    new = {}
    for style in [*graph.producer]:
        if len(graph.shape(style)) < 2 or math.prod(graph.shape(style)[1:-1]) > 1:
            continue
        sharing = [o for o in graph.consumers[style] if _joins_styles(graph, o)]
        for reader in sharing if len(sharing) > 1 else ():
            own = graph.add_tensor(style, f"for {graph.name(reader.outputs[0])}")
            product = graph.insert_before(reader, "MUL", [style], own)
            graph.set_input(product, 1, np.ones(graph.shape(style)[-1], np.float32))
            graph.exchange_input(reader, style, own)
            new[graph.name(own)] = values[graph.name(style)]
    return new


def _joins_styles(graph, operator):
    """Whether it adds or multiplies two different tensors that are no constants."""
    operands = {*operator.inputs}
    computed = all(graph.constant(t) is None for t in operands)
    return graph.operation(operator) in ("ADD", "MUL") and len(operands) == 2 and computed


def _shifts(graph, values):
    """dict of tensor → float64 [C], what is added to its channels, where a norm takes it out again."""
    shifts = {}
    for operator in graph.operators:
        linear = getattr(operator.builtinOptions, "fusedActivationFunction", None) == schema.ActivationFunctionType.NONE
        if graph.operation(operator) in ("CONV_2D", "DEPTHWISE_CONV_2D") and linear:
            carriers = _carriers(graph, operator.outputs[0])
            if carriers:
                normalised = values[graph.name(carriers[-1])]
                mean = normalised.total / normalised.count
                shifts |= {t: np.resize(-mean, graph.shape(t)[-1]) for t in carriers}
    return shifts


def _carriers(graph, tensor):
    """The tensors that carry an offset of this one's channels until a norm takes it out; empty where none does.

    The last one is the norm's input. Its means carry the offset too, and stand before it.
    """
    means, others = [], []
    for operator in graph.consumers[tensor]:
        over_the_image = graph.operation(operator) == "MEAN" and {*graph.constant(operator.inputs[1]).flat} == {1, 2}
        (means if over_the_image else others).append(operator)
    if not means:
        moved = len(others) == 1 and graph.operation(others[0]) in (
            "RESHAPE",
            "DEPTH_TO_SPACE",
            "TRANSPOSE",
            "STRIDED_SLICE",
        )
        if not moved or not channels_stay(graph, others[0]):
            return []
        rest = _carriers(graph, others[0].outputs[0])
        return [tensor, *rest] if rest else []
    mean = means[0].outputs[0]
    taken_out = len(means) == 1 and all(graph.operation(o) == "SUB" and [*o.inputs] == [tensor, mean] for o in others)
    same = {id(o) for o in graph.consumers[mean]} == {id(o) for o in others}
    return [mean, tensor] if taken_out and same else []


def channels_stay(graph, operator):
    """Whether channel c of what it takes is channel c of what it gives, modulo the smaller number of channels."""
    before, after = graph.shape(operator.inputs[0]), graph.shape(operator.outputs[0])
    operation = graph.operation(operator)
    if operation == "TRANSPOSE":
        return graph.constant(operator.inputs[1])[-1] == len(before) - 1
    if operation in _RESHAPING:
        return bool(before and after) and (before[-1] % after[-1] == 0 or after[-1] % before[-1] == 0)
    if operation == "STRIDED_SLICE":
        options, (begin, _, step) = operator.builtinOptions, map(graph.constant, operator.inputs[1:])
        whole = len(before) == len(after) and begin[-1] == 0 and step[-1] == 1
        return whole and before[-1] == after[-1] and not (options.newAxisMask or options.shrinkAxisMask)
    if operation == "PAD" or operation == "MIRROR_PAD":
        return not graph.constant(operator.inputs[1])[-1].any()
    return before[-1:] == after[-1:]


class _Factors:
    """The system of equations, and its solution.

    A combination is a dict of unknown → coefficient, for the logarithms of a tensor's factors. An unknown of length L
    belongs to channel c by its entry c mod L.
    """

    def __init__(self, graph):
        self.graph = graph
        self.length, self.solved, self.values = [], {}, {}
        self.combinations = {}  # of tensors that are computed
        self.own = {}  # (operator's id, position) → of a constant
        self.constants = set()  # the unknowns of these
        self.parts = {}  # an unknown that is no more than others in a row → [(combination, length), …]
        self.rows = []  # the tensors of each such row
        self.common = {}  # unknown → the peak that its channels are brought to, where that is not `_PEAK`
        for tensor in graph.inputs:
            self.combinations[tensor] = {}
        for operator in graph.operators:
            if any(graph.is_float(t) for t in operator.outputs):
                given = self._relate(operator)
                for tensor in operator.outputs:
                    self.combinations[tensor] = given
        for tensor in graph.outputs:
            self._pin(self.combinations[tensor])

    def _unknown(self, length):
        self.length.append(length)
        return {len(self.length) - 1: fractions.Fraction(1)}

    def _relate(self, operator):
        """Adds the equations of an operator; returns the combination of what it gives."""
        graph, operation = self.graph, self.graph.operation(operator)
        lengths = {(graph.shape(t) or (1,))[-1] for t in operator.outputs}
        length = max(lengths)
        activation = getattr(operator.builtinOptions, "fusedActivationFunction", schema.ActivationFunctionType.NONE)
        taken = [self._taken(operator, i) for i, t in enumerate(operator.inputs) if t >= 0 and graph.is_float(t)]
        if activation not in _LINEAR or len(lengths) > 1:
            return self._pin(*taken)
        if operation in _WEIGHTED and graph.constant(operator.inputs[1]) is not None:
            inputs, of_kernel = (graph.shape(t)[-1] for t in operator.inputs[:2])
            grouped = operation == "CONV_2D" and of_kernel != inputs
            return self._pin(*taken) if grouped else self._unknown(length)
        if operation in ("ADD", "SUB", "MAXIMUM", "MINIMUM"):
            self._equate(*taken)
            return taken[0]
        if operation == "MUL":
            return _sum((taken[0], 1), (taken[-1], 1))
        if operation == "DIV":
            return _sum((taken[0], 1), (taken[1], -1))
        if operation in ("SQRT", "RSQRT"):
            return _sum((taken[0], fractions.Fraction(1 if operation == "SQRT" else -1, 2)))
        if operation in _PASSING:
            return taken[0]
        if operation in _REDUCING:
            rank = len(graph.shape(operator.inputs[0]))
            if rank - 1 not in graph.constant(operator.inputs[1]).reshape(-1) % rank:
                return taken[0]
            common = self._unknown(1)
            self._equate(taken[0], common)
            return common
        if operation == "CONCATENATION" and operator.builtinOptions.axis % len(graph.shape(operator.outputs[0])) != (
            len(graph.shape(operator.outputs[0])) - 1
        ):
            self._equate(*taken)
            return taken[0]
        if operation == "CONCATENATION" and all(t == operator.inputs[0] for t in operator.inputs):
            return taken[0]  # a map that is doubled
        if operation == "CONCATENATION":
            joined = self._unknown(length)
            self.parts[next(iter(joined))] = [(c, graph.shape(t)[-1]) for c, t in zip(taken, operator.inputs)]
            self.rows.append([*operator.inputs])
            return joined
        moving = ("TRANSPOSE", "STRIDED_SLICE", "PAD", "MIRROR_PAD", *_RESHAPING)
        if operation in moving and channels_stay(graph, operator):
            fold = math.gcd(graph.shape(operator.inputs[0])[-1], length)
            if fold < max(graph.shape(operator.inputs[0])[-1], length):
                folded = self._unknown(fold)
                self._equate(taken[0], folded)
            return taken[0]
        return self._pin(*taken)

    def _taken(self, operator, position):
        tensor = operator.inputs[position]
        if tensor in self.combinations:
            return self.combinations[tensor]
        # A constant. Where the other operand has more channels, it can have as many.
        operands = [t for t in (*operator.inputs, *operator.outputs) if t >= 0 and self.graph.is_float(t)]
        lasts = [self.graph.shape(t)[-1] if self.graph.shape(t) else 1 for t in (tensor, *operands)]
        own = self._unknown(lasts[0] if lasts[0] > 1 else max(lasts))
        self.own[id(operator), position] = own
        self.constants |= {*own}
        return own

    def _pin(self, *combinations):
        for combination in combinations:
            self._equate(combination, {})
        return {}

    def _equate(self, *combinations):
        for other in combinations[1:]:
            rest = self._reduced(_sum((combinations[0], 1), (other, -1)))
            while joined := [unknown for unknown in rest if unknown in self.parts]:
                # Only what reads the row as a whole, a convolution, leaves its parts free.
                for unknown in joined:
                    self._pin(*(part for part, _ in self.parts.pop(unknown)))
                    self.solved[unknown] = {}
                rest = self._reduced(rest)
            if not rest:
                continue
            # Of those, the one that counts once: a norm's epsilon, not the channels whose squares it is added to. Then
            # a constant's: only the factors of what is computed matter.
            longest = max(rest, key=lambda u: (self.length[u], -abs(rest[u]), u in self.constants))
            if all(self.length[longest] % self.length[u] == 0 for u in rest):
                factor = -1 / rest.pop(longest)
                self.solved[longest] = _sum((rest, factor))
            else:
                self.solved |= {unknown: {} for unknown in rest}

    def _reduced(self, combination):
        """The same in unknowns that are not solved."""
        while any(u in self.solved for u in combination):
            combination = _sum(*((self.solved.get(u, {u: fractions.Fraction(1)}), c) for u, c in combination.items()))
        return combination

    def choose(self, peaks):
        """Gives each unknown that is left the values that bring the peaks of its tensors to `_PEAK`.

        Each channel is best scaled up to the same peak: the error behind the next convolution is the step of the tensor
        divided by the channel's factor. With standard deviations instead of peaks, a trained UNIT was 4 dB farther from
        its model in 8 bits.

        Channels that are joined to others whose factor is 1, such as a style's, are brought to the peak of those. The
        weights that read larger ones would be smaller, and 8 bits could not hold them beside the style's.

        Args:
            peaks: dict of tensor → float64 [C], the largest magnitudes before.
        """
        for row in self.rows:
            given = {tensor: self._reduced(self.combinations.get(tensor, {})) for tensor in row}
            fixed = [peaks[tensor].max() for tensor in row if tensor in peaks and not given[tensor]]
            if fixed and max(fixed):
                self.common |= dict.fromkeys((u for unknowns in given.values() for u in unknowns), max(fixed))
        while wanted := self._wanted(peaks):
            self.values |= wanted

    def _wanted(self, peaks):
        """dict of unknown → its values, where a tensor has no other unknown that is open."""
        wanted = {}
        for tensor, of_channels in peaks.items():
            combination = self._reduced(self.combinations.get(tensor, {}))
            open_ = {u: c for u, c in combination.items() if u not in self.values and u not in self.parts}
            if [*open_.values()] == [1] and not any(u in self.parts for u in combination):
                (unknown,) = open_
                of_channels = of_channels * self._factor(combination, len(of_channels))
                if len(of_channels) % self.length[unknown] == 0:
                    wanted.setdefault(unknown, []).append(of_channels.reshape(-1, self.length[unknown]))
        return {
            unknown: self._values(peaks, self.common.get(unknown, _PEAK))
            for unknown, peaks in wanted.items()
            if any(p.any() for p in peaks)
        }

    def _values(self, peaks, common):
        """float64 [L]: the logarithms that bring the tensors' channels [n, L], root mean square, to the common peak.

        Squared errors add up, so the sums of residual blocks count by how far they reach. With the mean of logarithms
        over tensors, 8 bits of a trained U-GAT-IT lost 0.7 dB more, and 1.8 in the worst image.

        One factor for all channels makes them no more equal. It brings the largest one there, because the squares of
        these channels are added up, and must be far from the end of float16.
        """
        largest = max(of_tensor.max() for of_tensor in peaks)
        if peaks[0].shape[1] == 1:
            return np.log([common / largest])
        floor = largest / _LARGEST_RATIO
        return np.log(common / np.maximum(np.sqrt(np.square(np.concatenate(peaks)).mean(0)), floor))

    def _factor(self, combination, length):
        logs = np.zeros(length)
        for unknown, coefficient in self._reduced(combination).items():
            if unknown in self.parts:
                row = np.concatenate([np.log(self._factor(*part)) for part in self.parts[unknown]])
            else:
                row = self.values.get(unknown, 0.0)
            logs += float(coefficient) * np.resize(row, length)
        return np.exp(logs)

    def of(self, tensor, length):
        """float64 [length]: what the tensor's channels are multiplied by."""
        return self._factor(self.combinations.get(tensor, {}), length)

    def apply(self, operator, shifts):
        """Changes the operator's constants."""
        graph = self.graph
        if graph.operation(operator) in _WEIGHTED and graph.constant(operator.inputs[1]) is not None:
            self._apply_to_weights(operator, shifts)
            return
        for position in range(len(operator.inputs)):
            own = self.own.get((id(operator), position))
            if own is None or graph.constant(operator.inputs[position]) is None:
                continue
            values = graph.constant(operator.inputs[position])
            factor = self._factor(own, max(self.length[u] for u in own))
            if np.all(factor == 1):
                continue
            if values.ndim and values.shape[-1] != 1 and values.shape[-1] % len(factor) == 0:
                factor = np.resize(factor, values.shape[-1])
            graph.set_input(operator, position, (values * factor).astype(np.float32))

    def _apply_to_weights(self, operator, shifts):
        graph, (source, kernel, *bias) = self.graph, operator.inputs
        (written,) = operator.outputs
        weights = graph.constant(kernel).astype(np.float64)
        outputs = graph.shape(written)[-1]
        after = self.of(written, outputs)
        if graph.operation(operator) == "DEPTHWISE_CONV_2D":
            inputs = graph.shape(source)[-1]
            weights *= after / np.repeat(self.of(source, inputs), outputs // inputs)
        else:
            before = self.of(source, weights.shape[-1])
            weights *= after.reshape(-1, *[1] * (weights.ndim - 1)) / before
        shift = shifts.get(written, np.zeros(outputs))
        offsets = graph.constant(bias[0]) if bias and bias[0] >= 0 else np.zeros(outputs)
        graph.set_input(operator, 1, weights.astype(np.float32))
        graph.set_input(operator, 2, ((offsets + shift) * after).astype(np.float32))


def _sum(*terms):
    """Of (combination, factor)."""
    total = {}
    for combination, factor in terms:
        for unknown, coefficient in combination.items():
            total[unknown] = total.get(unknown, 0) + coefficient * factor
    return {unknown: c for unknown, c in total.items() if c}
