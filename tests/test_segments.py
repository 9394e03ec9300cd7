"""Convolutions in segments: the parts are known by hand, and the file computes the same."""

import types

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tfi2i.export import exporter, litert, quantization, ranges, segments
from tfi2i.export.graph import Graph

from tests.test_equalise import conv, converted, norm, results
from tfi2i import layers


def image(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


def named(file, *positions):
    """Names of what these of a file's convolutions write."""
    graph = Graph(file)
    convolutions = [o for o in graph.operators if graph.operation(o) == "CONV_2D"]
    return [graph.name(convolutions[i].outputs[0]) for i in positions]


def test_the_segments_of_a_leaky_relu_by_hand():
    """Of x from -3 to 12 the half is 6: a convolution by 1 writes min(relu(x), 6), relu(x - 6) and relu(-x)."""
    one, last = (keras.layers.Conv2D(1, 1, kernel_initializer="ones") for _ in range(2))
    file = converted(lambda x: last(keras.ops.leaky_relu(one(x), 0.5)), channels=1)
    x = np.linspace(-3, 12, 64, dtype=np.float32).reshape(1, 8, 8, 1)
    names = segments.candidates(file)
    assert names == named(file, 0)
    parts = segments.split(file, ranges.observe(file, [x]), names)
    graph = Graph(parts)
    first, second = [o for o in graph.operators if graph.operation(o) == "CONV_2D"]
    assert first.builtinOptions.fusedActivationFunction == schema.ActivationFunctionType.RELU6
    # relu(-x) reaches 3, which becomes 6.
    np.testing.assert_allclose(graph.constant(first.inputs[1]).reshape(-1), [1, 1, -2])
    np.testing.assert_allclose(graph.constant(first.inputs[2]), [0, -6, 0])
    np.testing.assert_allclose(graph.constant(second.inputs[1]).reshape(-1), [1, 1, -0.25])
    np.testing.assert_allclose(results(parts, [x]), np.maximum(x, x / 2), atol=1e-6)
    # Values beyond those observed are cut off.
    np.testing.assert_allclose(results(parts, [x + 6]).max(), 12, atol=1e-6)


def padded(layer, x):
    return layer(keras.ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("between", ["nothing", "a mirrored edge", "zeros", "phases of a transposed convolution"])
def test_a_file_in_segments_computes_the_same(slope, between):
    first, last = conv(), conv(2, kernel=1)
    if between == "a mirrored edge":
        last = conv(2, pad_mode="reflect")
    elif between == "zeros":
        last = conv(2, pad_mode="zeros")
    elif between == "phases of a transposed convolution":
        first = layers.Conv2DTranspose(4, 3, pad=1, output_pad=1)
        first.build((1, 8, 8, 4))
        first.bias.assign([-0.5, 0.0, 0.5, 1.0])
    activation = keras.ops.relu if slope == 0 else lambda x: keras.ops.leaky_relu(x, slope)
    file = converted(lambda x: last(activation(first(x))), channels=4)
    x = image(8, 8, 4)
    (name,) = segments.candidates(file)
    parts = segments.split(file, ranges.observe(file, [x]), [name])
    expected = results(file, [x])
    np.testing.assert_allclose(results(parts, [x]), expected, atol=1e-5 * np.abs(expected).max())
    assert not {"RELU", "LEAKY_RELU"} & {*litert.operations(parts)}
    # Also where it is one of the integers: 6 is their largest.
    assert ranges.observe(parts, [x])[name].high.max() == pytest.approx(6, rel=1e-5)


@pytest.mark.parametrize(
    "what",
    ["a norm", "a sum", "a tanh", "groups", "groups before", "no activation", "the end", "joined pixels"],
)
def test_what_cannot_be_in_segments(what):
    first, last = conv(), conv(2)
    normalise = norm(layers.InstanceNormalization)
    grouped = layers.Conv2D(4, 3, pad=1, groups=2)
    grouped.build((1, 8, 8, 4))
    of_two = conv(2, inputs=8)

    def network(x):
        y = grouped(x) if what == "groups before" else first(x)
        if what == "a norm":
            y = normalise(y)
        if what == "a tanh":
            y = keras.ops.tanh(y)
        elif what != "no activation":
            y = keras.ops.leaky_relu(y, 0.2)
        if what == "a sum":
            y = x + y
        elif what == "groups":
            y = grouped(y)
        elif what == "joined pixels":
            return of_two(keras.ops.reshape(y, (1, 8, 4, 8)))
        return y if what == "the end" else last(y)

    file = converted(network, channels=4)
    assert named(file, 0)[0] not in segments.candidates(file)


def wide(far):
    """A file whose first convolution writes values that 8 bits hold badly where `far` is large, and images for it."""
    first, last = keras.layers.Conv2D(2, 1), keras.layers.Conv2D(3, 1)
    spread, middle = keras.layers.Conv2D(64, 5, padding="same"), keras.layers.Conv2D(3, 1)
    for layer, channels in ((middle, 64), (spread, 3), (first, 3), (last, 2)):
        layer.build((1, 8, 8, channels))
    first.kernel.assign(np.float32([[1, -1], [0, 0], [0, 0]]).reshape(1, 1, 3, 2))
    last.kernel.assign(np.full((1, 1, 2, 3), 50.0))
    spread.kernel.assign(np.eye(3, 64, dtype=np.float32) * np.float32(np.arange(25) == 12).reshape(5, 5, 1, 1))
    middle.kernel.assign(np.eye(64, 3, dtype=np.float32).reshape(1, 1, 64, 3))
    file = converted(lambda x: last(keras.ops.relu(first(middle(spread(x))))))
    images = [image(8, 8, 3, seed=i) for i in range(2)]
    images[0][0, 0, 0, 0] = far
    return file, images


@pytest.mark.parametrize("far, count", [(200.0, 1), (2.0, 0)])
def test_the_convolution_that_8_bits_hurt_is_computed_in_segments(far, count):
    file, images = wide(far)
    values = ranges.observe(file, images)
    ranges.count(file, images, values)
    chosen = quantization.segmented_convolutions(file, values, images)
    assert chosen == named(file, 2)[:count]
    full = quantization.quantize(file, "int8_full", values, segmented=named(file, 2))
    assert "float32" not in litert.tensor_types(full)
    graph = Graph(full)
    (written,) = [t for o in graph.operators for t in o.outputs if graph.name(t) in named(file, 2)]
    assert graph.shape(written)[-1] == 4 and graph.tensors[written].quantization.scale == pytest.approx([6 / 255])


def test_an_export_says_how_many_convolutions_are_in_segments():
    file, _ = wide(2.0)
    export = types.SimpleNamespace(equalised=file, spared={}, segmented=named(file, 2))
    result, float32 = {"processor_ratio": 1.2, "delegate_partitions": 1}, types.SimpleNamespace(partitions=1)
    segmented, slower = exporter._Export._notes(export, "int8_full", result, float32)
    assert segmented.startswith("int8_full computes 1 of 4 convolutions in segments of their range")
    assert slower.startswith("int8_full takes 1.20 times the processor time of float32: ")
    export.segmented = []
    assert exporter._Export._notes(export, "int8_full", result, float32) == [slower]
