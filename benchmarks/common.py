"""What the benchmarks share: the machine's name, tables, clocks, and counted floating-point operations."""

import math
import platform
import statistics
import time

import tensorflow as tf

from tfi2i.machine import cores


def machine():
    """One line: processor, cores that this process may use, GPUs, TensorFlow's version."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    parts = [f"{name}, {cores()} cores"]
    for gpu in tf.config.list_physical_devices("GPU"):
        parts.append(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))
    return ", ".join([*parts, f"TensorFlow {tf.__version__}"])


def table(rows):
    """Rows of equal length as aligned text; the first column to the left, the others to the right."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    aligned = (
        [cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        for row in rows
    )
    return "\n".join("  ".join(row).rstrip() for row in aligned)


def milliseconds(call, repeats):
    """Times `call`, which must return only when its work is done.

    Returns:
        (median, minimum) of `repeats` calls in ms.
    """
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), min(times)


# ---------------------------------------------------------------------------------------------------------------------
# Floating-point operations


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


# ---------------------------------------------------------------------------------------------------------------------
# What the machine can do


def matmul_peak(dtype, size=2048, repeats=8):
    """GFLOP/s of the fastest of `repeats` products of two `size` × `size` matrices."""
    a = tf.cast(tf.random.stateless_uniform((size, size), (0, 1)), dtype)
    return _fastest(lambda: tf.reduce_sum(tf.matmul(a, a)), 2 * size**3, repeats)


def convolution_peak(dtype, batch=1, size=32, channels=256, repeats=8):
    """GFLOP/s of the fastest of `repeats` 3×3 convolutions [batch, size, size, channels] → the same, 'SAME' padding.

    With the defaults, the layer where a CycleGAN generator spends most of its time at 128 px.
    """
    x = tf.cast(tf.random.stateless_uniform((batch, size, size, channels), (0, 1)), dtype)
    w = tf.cast(tf.random.stateless_uniform((3, 3, channels, channels), (0, 2)), dtype)
    flops = 2 * batch * size**2 * 9 * channels**2
    return _fastest(lambda: tf.reduce_sum(tf.nn.conv2d(x, w, 1, "SAME")), flops, repeats)


def _fastest(product, flops, repeats):
    compiled = tf.function(product)
    call = lambda: compiled().numpy()  # noqa: E731
    call()
    return flops / (milliseconds(call, repeats)[1] * 1e6)
