"""What equalisation may change in a float LiteRT file: derived for each norm, and the file computes the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import interpreter
from tfi2i.export import equalise, litert, ranges
from tfi2i.export.graph import Graph

from tfi2i import layers

CHANNELS = 4


def converted(network, channels=3, size=(8, 8)):
    """A float file of a function of [1, H, W, C], with the forms that an export has."""
    spec = tf.TensorSpec([1, *size, channels], tf.float32, name="images")
    with litert._delegated_forms():
        function = tf.function(network, input_signature=[spec], autograph=False).get_concrete_function()
    return litert.rewritten(tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module()).convert())


def of_unequal_channels(*built):
    """Draws the weights of layers, with the size 1, 1.5, 2.25, … for each channel that they write; returns them."""
    draw = np.random.default_rng(0)
    for layer in built:
        for weight in layer.trainable_variables:
            if weight.name == "rho":
                weight.assign(np.linspace(0.2, 0.8, weight.shape[0]))
            elif weight.name == "kernel":
                values = draw.normal(size=weight.shape) / np.sqrt(np.prod(weight.shape) / max(weight.shape[-2:]))
                axis = -2 if isinstance(layer, keras.layers.Conv2DTranspose) else -1
                sizes = 1.5 ** np.arange(weight.shape[axis])
                weight.assign(values * (sizes[:, None] if axis == -2 else sizes))
            else:  # positive, and of an offset small, so that no ReLU is closed for all pixels
                values = 1.5 ** np.arange(weight.shape[0]) * draw.uniform(0.5, 1, weight.shape)
                weight.assign(values * (0.1 if weight.name == "beta" else 1))
    return built


def results(file, images):
    run = interpreter.Interpreter(model_content=file)
    run.allocate_tensors()
    (source,), (result,) = run.get_input_details(), run.get_output_details()
    found = []
    for image in images:
        run.set_tensor(source["index"], image)
        run.invoke()
        found.append(run.get_tensor(result["index"]))
    return np.concatenate(found)


def free(factors, tensor):
    """How many factors of a tensor's channels can be chosen."""
    return max((factors.length[unknown] for unknown in factors._reduced(factors.combinations[tensor])), default=0)


def proved(network, **shape):
    """Equalises a network, asserts that it computes the same and that free channels become equal.

    Returns:
        (`Graph` before, its `_Factors`, the tensor that the first convolution writes, the one that the last reads).
    """
    file = converted(network, **shape)
    images = [np.random.default_rng(i).normal(size=Graph(file).shape(Graph(file).inputs[0])) for i in range(2)]
    images = [image.astype(np.float32) for image in images]
    equal, values = equalise.equalise(file, ranges.observe(file, images))
    before, after = results(file, images), results(equal, images)
    assert np.sqrt(np.mean((before - after) ** 2)) <= 10 ** (-110 / 20) * np.ptp(before)

    # The values are those of the new file.
    observed = ranges.observe(equal, images)
    for name, seen in values.items():
        largest = np.abs(observed[name].high).max() + np.abs(observed[name].low).max() + 1e-3
        np.testing.assert_allclose(seen.high, observed[name].high, atol=1e-4 * largest)
        np.testing.assert_allclose(seen.low, observed[name].low, atol=1e-4 * largest)

    # Where each channel has a factor of its own, all have a peak of 32, root mean square of the tensors that share it.
    # Where all channels share one, the largest has.
    graph = Graph(file)
    factors = equalise._Factors(graph)
    spreads, common = {}, {}
    for tensor, combination in factors.combinations.items():
        combination = factors._reduced(combination)
        moved = tensor in graph.producer and graph.operation(graph.producer[tensor]) in ranges.MOVING
        if [*combination.values()] == [1] and np.prod(graph.shape(tensor)[1:-1]) > 1 and not moved:
            (unknown,) = combination
            seen = observed[graph.name(tensor)]
            if factors.length[unknown] > 1:
                squares = np.maximum(seen.high, -seen.low).reshape(-1, factors.length[unknown]) ** 2
                spreads.setdefault(unknown, []).append(squares)
            else:
                common.setdefault(unknown, []).append(max(seen.high.max(), -seen.low.min()))
    for peaks in common.values():
        assert max(peaks) == pytest.approx(32, rel=1e-3)
    for squares in spreads.values():
        np.testing.assert_allclose(np.concatenate(squares).mean(0), 32**2, rtol=2e-3)
    convolutions = [o for o in graph.operators if graph.operation(o) in ("CONV_2D", "FULLY_CONNECTED")]
    return graph, factors, convolutions[0].outputs[0], convolutions[-1].inputs[0]


def conv(filters=CHANNELS, kernel=3, inputs=CHANNELS, **options):
    layer = layers.Conv2D(filters, kernel, pad=kernel // 2, **options)
    layer.build((1, 8, 8, inputs))
    return of_unequal_channels(layer)[0]


def norm(layer, **options):
    layer = layer(**options)
    layer.build((1, 8, 8, CHANNELS))
    return of_unequal_channels(layer)[0]


# -------------------------------------------------------------------------------------------------------------- by hand


def test_values_of_a_scaled_tensor():
    seen = ranges.Values(*map(np.float64, ([1.0], [3.0], [4.0], [10.0])), count=2)  # of 1 and 3
    new = seen.scaled(5.0, shift=-2.0)  # of -5 and 5
    assert (new.low, new.high, new.total, new.squares, new.count) == (-5, 5, 0, 50, 2)
    assert new.histogram is None


def test_a_convolution_before_an_instance_norm():
    """Of ±1, channels of mean 3 and -7 and spread 1 and 100: both get mean 0 and peak 32, and so does ε its part."""
    layer = layers.Conv2D(2, 1)
    layer.build((1, 8, 8, 1))
    layer.kernel.assign(np.float32([1, 100]).reshape(1, 1, 1, 2))
    layer.bias.assign([3, -7])
    normalise = layers.InstanceNormalization(epsilon=1e-5)
    file = converted(lambda x: normalise(layer(x)), channels=1)
    image = np.float32([1, -1]).reshape(1, 1, 2, 1).repeat(8, 1).repeat(4, 2)
    equal, _ = equalise.equalise(file, ranges.observe(file, [image]))
    graph = Graph(equal)
    (convolution,) = (o for o in graph.operators if graph.operation(o) == "CONV_2D")
    np.testing.assert_allclose(graph.constant(convolution.inputs[1]).reshape(-1), [32, 32], rtol=1e-5)
    np.testing.assert_allclose(graph.constant(convolution.inputs[2]), [0, 0], atol=1e-4)
    (root,) = (o for o in graph.operators if graph.operation(o) == "RSQRT")
    (epsilon,) = (c for c in map(graph.constant, graph.producer[root.inputs[0]].inputs) if c is not None)
    np.testing.assert_allclose(epsilon.reshape(-1), [1024 * 1e-5, 1024 * 1e-9], rtol=1e-5)
    np.testing.assert_allclose(results(equal, [image]), results(file, [image]), rtol=1e-5)


# ------------------------------------------------------------------------------------------------------ norm by norm


# Kind of norm → how many factors are free in what the convolution before it writes, and in what the next one reads.
# Where channels share a mean, they share a factor; where nothing scales the norm's result, that has none.
NORMS = {
    "none": (None, CHANNELS, CHANNELS),
    "instance": (lambda: norm(layers.InstanceNormalization), CHANNELS, 0),
    "instance with gamma and beta": (
        lambda: norm(layers.InstanceNormalization, center=True, scale=True), CHANNELS, CHANNELS
    ),
    "batch": (lambda: norm(layers.BatchNormalization), CHANNELS, CHANNELS),
    "LIN": (lambda: norm(layers.LayerInstanceNormalization, rho=0.5), 1, CHANNELS),
    "layer norm of the image": (lambda: norm(layers.LayerInstanceNormalization, kind="ln"), 1, CHANNELS),
    "layer norm of the channels": (lambda: norm(keras.layers.LayerNormalization), 1, CHANNELS),
    "sample": (lambda: norm(layers.SampleNormalization), 1, CHANNELS),
}  # fmt: skip


@pytest.mark.parametrize("kind", NORMS)
def test_what_is_free_around_a_norm(kind):
    make, before, behind = NORMS[kind]
    first, last = conv(inputs=3), conv(2)
    between = make() if make else lambda x: x
    _, factors, written, read = proved(lambda x: last(keras.ops.relu(between(first(x)))))
    assert (free(factors, written), free(factors, read)) == (before, behind)


@pytest.mark.parametrize("kind, before", [("lin", 1), ("in", CHANNELS)], ids=["AdaLIN", "AdaIN"])
def test_what_is_free_around_a_norm_with_gamma_and_beta_of_dense_layers(kind, before):
    first, last = conv(inputs=3), conv(2)
    dense = [keras.layers.Dense(CHANNELS) for _ in range(2)]
    for layer in dense:
        layer.build((1, 3))
    of_unequal_channels(*dense)
    adaptive = layers.LayerInstanceNormalization(kind, adaptive=True, rho=0.5)
    adaptive.build((1, 8, 8, CHANNELS))

    def network(x):
        gamma, beta = (layer(keras.ops.mean(x, (1, 2))) for layer in dense)
        return last(keras.ops.relu(adaptive(first(x), gamma, beta)))

    graph, factors, _, read = proved(network)
    (written,) = next(o for o in graph.operators if graph.operation(o) == "CONV_2D").outputs
    assert free(factors, written) == before
    assert free(factors, read) == CHANNELS


def test_norms_that_share_a_style_have_factors_of_their_own():
    """A block's inner map may be rescaled in another way than the sum that the block adds to."""
    first, inner, second, last = conv(inputs=3), conv(), conv(), conv(2)
    dense = keras.layers.Dense(CHANNELS)
    dense.build((1, 3))
    of_unequal_channels(dense)
    adaptive = [layers.LayerInstanceNormalization("in", adaptive=True) for _ in range(2)]
    for layer in adaptive:
        layer.build((1, 8, 8, CHANNELS))

    def network(x):
        style = dense(keras.ops.mean(x, (1, 2)))
        x = first(x)
        y = keras.ops.relu(adaptive[0](inner(x), style, style))
        return last(x + adaptive[1](second(y), style, style))

    file = converted(network)
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    equal, values = equalise.equalise(file, ranges.observe(file, [image]))
    np.testing.assert_allclose(results(equal, [image]), results(file, [image]), atol=1e-4)
    graph = Graph(equal)
    factors = equalise._Factors(graph)
    convolutions = [o for o in graph.operators if graph.operation(o) == "CONV_2D"]
    _, stream, inside, last_read = (factors._reduced(factors.combinations[o.inputs[0]]) for o in convolutions)
    assert stream == last_read != inside and all(factors.length[u] == CHANNELS for u in (*inside, *stream))
    assert {*ranges.observe(equal, [image])} == {*values}


def test_modulation_leaves_each_channel_a_factor():
    first, last = conv(inputs=3), conv(2)
    dense = keras.layers.Dense(CHANNELS)
    dense.build((1, 3))
    modulated = layers.ModulatedConv2D(CHANNELS, 3, pad=1)
    modulated.build((1, 8, 8, CHANNELS))
    of_unequal_channels(dense, modulated)

    def network(x):
        y = modulated(keras.ops.relu(first(x)), dense(keras.ops.mean(x, (1, 2))))
        return last(keras.ops.relu(y))

    graph, factors, _, read = proved(network)
    (written,) = next(o for o in graph.operators if graph.operation(o) == "CONV_2D").outputs
    assert free(factors, written) == free(factors, read) == CHANNELS


# -------------------------------------------------------------------------------------------------- other operations


def test_leaky_relu_lets_a_factor_through_and_tanh_does_not():
    first, last = conv(inputs=3), conv(2)
    _, factors, written, read = proved(lambda x: last(keras.ops.leaky_relu(first(x), 0.2)))
    assert free(factors, written) == free(factors, read) == CHANNELS
    _, factors, written, read = proved(lambda x: last(keras.ops.tanh(first(x))))
    assert free(factors, written) == free(factors, read) == 0


def test_all_that_write_to_a_residual_stream_share_its_factors():
    first, last = conv(inputs=3), conv(2)
    one, other = conv(), conv()

    def network(x):
        x = first(x)
        return last(x + other(keras.ops.relu(one(x))))

    graph, factors, written, read = proved(network)
    (inner,) = (o for o in graph.operators if graph.operation(o) == "ADD")
    combinations = [factors._reduced(factors.combinations[t]) for t in (*inner.inputs, written, read)]
    assert combinations == [combinations[0]] * 4 and free(factors, read) == CHANNELS


def test_doubled_maps_keep_their_channels_factors():
    first, last = conv(inputs=3), conv(2)
    double = layers.Enlarge(2)
    graph, factors, written, read = proved(lambda x: last(double(keras.ops.relu(first(x)))))
    assert {"CONCATENATION", "RESHAPE"} <= {graph.operation(o) for o in graph.operators}
    assert free(factors, written) == free(factors, read) == CHANNELS


def test_phases_of_a_transposed_convolution_share_their_channels_factors():
    last = conv(2, inputs=3)
    up = layers.Conv2DTranspose(3, 3, pad=1, output_pad=1)
    up.build((1, 8, 8, 5))
    of_unequal_channels(up)
    graph, factors, written, read = proved(lambda x: last(keras.ops.relu(up(x))), channels=5)
    assert "TRANSPOSE" in {graph.operation(o) for o in graph.operators}
    assert graph.shape(written)[-1] == 4 * 3 and free(factors, written) == free(factors, read) == 3


@pytest.mark.parametrize("added", [CHANNELS, 3])
def test_joined_channels_keep_factors_of_their_own(added):
    """The convolution that reads a skip takes both parts' factors; an addition cannot, and pins them."""
    first, inner, last = conv(inputs=3), conv(added), conv(2, inputs=CHANNELS + added)

    def skipped(x):
        x = keras.ops.relu(first(x))
        return last(keras.ops.concatenate([x, keras.ops.relu(inner(x))], -1))

    graph, factors, written, read = proved(skipped)
    (row,) = factors._reduced(factors.combinations[read])
    assert [length for _, length in factors.parts[row]] == [CHANNELS, added]
    parts = [factors._reduced(part) for part, _ in factors.parts[row]]
    assert parts[0] == factors._reduced(factors.combinations[written]) and parts[0] != parts[1]
    assert all(parts)

    graph, factors, written, read = proved(lambda x: keras.ops.tanh(skipped_and_added(x, first, inner)))
    assert free(factors, written) == 0


def skipped_and_added(x, first, inner):
    x = keras.ops.relu(first(x))
    joined = keras.ops.concatenate([x, keras.ops.relu(inner(x))], -1)
    return joined + keras.ops.sigmoid(joined)


@pytest.mark.parametrize("what", ["a fused ReLU before a norm", "reversed channels", "groups", "an edge of one value"])
def test_what_looks_free_and_is_not(what):
    first, last = conv(inputs=3), conv(2)
    grouped = layers.Conv2D(CHANNELS, 3, pad=1, groups=2)
    grouped.build((1, 8, 8, CHANNELS))
    normalise = layers.InstanceNormalization()

    def network(x):
        x = keras.ops.relu(first(x))
        if what == "a fused ReLU before a norm":
            x = normalise(x)
        elif what == "reversed channels":
            x = x[..., ::-1]
        elif what == "groups":
            x = grouped(x)
        elif what == "an edge of one value":
            x = tf.concat([0 * x[:, :1] + 1e-7, x[:, 1:]], 1)
        return last(x)

    file = converted(network)
    images = [np.random.default_rng(i).normal(size=(1, 8, 8, 3)).astype(np.float32) for i in range(3)]
    equal, _ = equalise.equalise(file, ranges.observe(file, images))
    expected = results(file, images)
    np.testing.assert_allclose(results(equal, images), expected, atol=1e-4 * np.abs(expected).max())


def test_channels_beside_fixed_ones_are_brought_to_the_peak_of_those():
    """A tanh, like a style, has no factor. Larger channels beside it would have weights that 8 bits cannot hold."""
    first, last = conv(inputs=3), conv(inputs=CHANNELS + 3)

    def network(x):
        return last(keras.ops.concatenate([keras.ops.relu(first(x)), keras.ops.tanh(x)], -1))

    file = converted(network)
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    equal, values = equalise.equalise(file, ranges.observe(file, [image]))
    graph = Graph(equal)
    free, fixed = next(o for o in graph.operators if graph.operation(o) == "CONCATENATION").inputs
    peak = max(values[graph.name(fixed)].high.max(), -values[graph.name(fixed)].low.min())
    np.testing.assert_allclose(values[graph.name(free)].high, peak, rtol=1e-5)
    np.testing.assert_allclose(results(equal, [image]), results(file, [image]), atol=1e-5)
