"""How the float LiteRT file is written: fewer operations, the same result."""

import keras
import numpy as np
import pytest
from tfi2i.export import litert
from tfi2i.export.graph import Graph

from tests.test_equalise import conv, converted, norm, results
from tfi2i import layers


def test_a_norm_computes_its_difference_once():
    """LIN needs x - mean for the variance and for the result, in either order."""
    normalise = norm(layers.LayerInstanceNormalization, rho=0.5)
    file = converted(normalise, channels=4)
    graph = Graph(file)
    maps = [o for o in graph.operators if graph.operation(o) == "SUB" and graph.shape(o.outputs[0])[1:3] == (8, 8)]
    assert len(maps) == 1
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 4)).astype(np.float32)
    np.testing.assert_allclose(results(file, [x]), normalise(x), atol=1e-5)


def test_gamma_multiplies_no_map():
    file = converted(norm(layers.InstanceNormalization, center=True, scale=True), channels=4)
    graph = Graph(file)
    maps = [o for o in graph.operators if graph.operation(o) == "MUL" and graph.shape(o.outputs[0])[1:3] == (8, 8)]
    assert len(maps) == 2  # the square, and the product with the factor


@pytest.mark.parametrize("factors", ["one", "the same twice", "two", "one number"])
def test_factors_of_channels_are_multiplied_into_the_weights(factors):
    """By hand: channels of 1 and 2 times factors, all added up by weights of 1."""
    one, other = np.float32([3, 5]), np.float32([10, 100])
    expected = {"one": 13, "the same twice": 26, "two": 13 + 210, "one number": 6}[factors]
    last = keras.layers.Conv2D(1, 1, kernel_initializer="ones")

    def network(x):
        if factors == "one number":
            return last(x * np.float32([[[[2]]]]))
        first = x * one
        if factors == "one":
            return last(first)
        return last(keras.ops.concatenate([first, first if factors == "the same twice" else x * other], -1))

    file = converted(network, channels=2)
    assert litert.operations(file) == {"CONV_2D": 1}
    x = np.broadcast_to(np.float32([1, 2]), (1, 8, 8, 2))
    np.testing.assert_allclose(results(file, [x]), expected)


@pytest.mark.parametrize("what", ["a column", "one channel becomes two", "another map beside it", "another reader"])
def test_factors_that_stay(what):
    last, column = conv(2, kernel=1, inputs=2), np.arange(1, 9, dtype=np.float32).reshape(1, 8, 1, 1)
    doubled = conv(2, kernel=1, inputs=4)

    def network(x):
        if what == "a column":
            return last(x * column)
        if what == "one channel becomes two":
            return last(x[..., :1] * np.float32([3, 5]))
        if what == "another map beside it":
            return doubled(keras.ops.concatenate([x * np.float32([3, 5]), keras.ops.abs(x)], -1))
        y = x * np.float32([3, 5])
        return last(y) + y

    file = converted(network, channels=2)
    assert "MUL" in litert.operations(file)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 2)).astype(np.float32)
    np.testing.assert_allclose(results(file, [x]), network(x), rtol=1e-5, atol=1e-5)
