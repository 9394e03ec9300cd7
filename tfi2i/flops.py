"""Floating-point operations, counted in the graph of a traced function."""

import math

import tensorflow as tf


def cost(model, direction, height, width):
    """What a model's generator is, and what it computes for one picture.

    Args:
        model: a built `Translator`.
        direction: one of its directions.
        height, width: of the picture. Networks that do not take that size see it padded, or resized to their own.

    Returns:
        (multiply-accumulates, parameters), two ints.
    """
    sizes = model.sizes
    size = sizes.fixed or [max(-(-side // sizes.multiple) * sizes.multiple, sizes.minimum) for side in (height, width)]
    x = tf.TensorSpec((1, *size, model.channels_of(direction[0])), tf.float32)
    generator = tf.function(model.styled_generator(direction), autograph=False).get_concrete_function(x)
    return count_flops(generator) // 2, sum(v.shape.num_elements() for v in generator.variables)


def count_flops(function):
    """Floating-point operations of the convolutions and matrix products in one call, gradients and replicas included.

    A multiplication and the addition after it are two operations. Zeros of an operation's own padding count, what
    norms, activations and optimizers do does not: it is less than a hundredth in these networks.

    Args:
        function: a `tf.types.experimental.ConcreteFunction`, traced with shapes that are fully known.

    Returns:
        int.

    Raises:
        ValueError: a shape is unknown, or a loop of unknown length holds such an operation.
    """
    return _flops_of_graph(function.graph)


def _flops_of_graph(graph):
    return sum(_flops_of_operation(operation) for operation in _needed(graph))


def _needed(graph):
    """The operations that run: what outputs and state depend on.

    A gradient function makes the gradients of all its inputs, also of those that nobody asked for.
    """
    stateful = [o for o in graph.get_operations() if o.op_def.is_stateful and o.type != "Placeholder"]
    waiting = [*(x.op for x in graph.outputs), *graph.control_outputs, *stateful]
    needed = set()
    while waiting:
        operation = waiting.pop()
        if operation not in needed:
            needed.add(operation)
            waiting += [*(x.op for x in operation.inputs), *operation.control_inputs]
    return needed


def _flops_of_operation(operation):
    kind = operation.type
    if kind in ("PartitionedCall", "StatefulPartitionedCall"):
        return _flops_of_attribute(operation, "f")
    if kind in ("If", "StatelessIf"):
        return max(_flops_of_attribute(operation, branch) for branch in ("then_branch", "else_branch"))
    if kind in ("Case", "StatelessCase"):
        return max(_flops_of_name(operation.graph, f.name) for f in operation.get_attr("branches"))
    if kind in ("While", "StatelessWhile"):
        if _flops_of_attribute(operation, "body"):
            raise ValueError(f"{operation.name} repeats convolutions or matrix products an unknown number of times")
        return 0
    if kind in ("Conv2D", "DepthwiseConv2dNative"):
        return _convolution(operation, kernel=_shape(operation.inputs[1]), narrow=operation.outputs[0])
    if kind in ("Conv2DBackpropInput", "DepthwiseConv2dNativeBackpropInput"):
        return _convolution(operation, kernel=_shape(operation.inputs[1]), narrow=operation.inputs[2])
    if kind in ("Conv2DBackpropFilter", "DepthwiseConv2dNativeBackpropFilter"):
        return _convolution(operation, kernel=_shape(operation.outputs[0]), narrow=operation.inputs[2])
    if kind == "MatMul":
        rows, columns = _shape(operation.inputs[0])
        inner = rows if operation.get_attr("transpose_a") else columns
        return 2 * math.prod(_shape(operation.outputs[0])) * inner
    if kind in ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        *_, rows, columns = _shape(operation.inputs[0])
        return 2 * math.prod(_shape(operation.outputs[0])) * (rows if operation.get_attr("adj_x") else columns)
    if kind == "Einsum":
        equation = operation.get_attr("equation").decode()
        terms = equation.split("->")[0].split(",")
        if len(terms) == 2 and "." not in equation:
            sizes = {letter: n for t, x in zip(terms, operation.inputs) for letter, n in zip(t, _shape(x))}
            return 2 * math.prod(sizes.values())
    return 0


def _convolution(operation, kernel, narrow):
    """`narrow` is the map on the side of the output channels, one kernel for each of its values.

    It is the result of a convolution, and what is fed to its two gradients and to a transposed convolution.
    """
    height, width, channels, _ = kernel
    per_value = height * width * (1 if operation.type.startswith("Depthwise") else channels)
    return 2 * math.prod(_shape(narrow)) * per_value


def _shape(tensor):
    if not tensor.shape.is_fully_defined():
        raise ValueError(f"{tensor.name} has the shape {tensor.shape}: trace the function with known shapes")
    return tensor.shape.as_list()


def _flops_of_attribute(operation, attribute):
    return _flops_of_name(operation.graph, operation.get_attr(attribute).name)


def _flops_of_name(graph, name):
    # There is no public way from a call to the graph that it calls.
    return _flops_of_graph(graph._get_function(name).graph)
