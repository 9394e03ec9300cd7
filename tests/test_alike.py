"""Blocks that are alike are traced once, and compute what they compute one by one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfi2i import layers


class Block(layers.Network):
    """x + gain BN(dense(x)): weights that are cast in mixed precision and others, and a state."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = self.dense(3)
        self.norm = layers.BatchNormalization(**self.next_layer("norm"))
        self.stack = [self.first, self.norm]

    def call(self, x, gain=None, training=False):
        y = self.norm(self.first(x), training=training)
        return x + (y if gain is None else y * keras.ops.cast(gain, y.dtype))


class Blocks(layers.Network):
    def __init__(self, count=3, **kwargs):
        super().__init__(init_gain=0.5, **kwargs)
        self.blocks = [Block(**self.next_network("block")) for _ in range(count)]
        self.stack = self.blocks

    def call(self, x, gain=None, training=False):
        return layers.in_turn(self.blocks, x, gain, training=training)


@pytest.fixture
def network():
    built = Blocks(dtype="float32")
    built.build((None, 2, 2, 3))
    return built


def learned(network, scope_class):
    """One traced phase: (graph, [result, gradients of x, gain and all weights, new state])."""
    draw = np.random.default_rng(0)
    inputs = [tf.constant(draw.normal(size=shape), tf.float32) for shape in ((4, 2, 2, 3), (4, 1, 1, 3))]

    @tf.function(autograph=False)
    def phase(x, gain):
        values = [tf.convert_to_tensor(v.value) for v in network.variables]
        watched = [x, gain, *(value for v, value in zip(network.variables, values) if v.trainable)]
        with tf.GradientTape() as tape:
            tape.watch(watched)
            with scope_class(list(zip(network.variables, values))) as scope:
                # Twice, as the generators of a step; with another size the blocks are another function.
                y = network(network(x, gain, training=True), gain, training=True)
                y = tf.concat([y, network(y[:2], training=True)], axis=0)
            loss = tf.reduce_sum(tf.square(tf.cast(y, tf.float32)))
        gradients = tape.gradient(loss, watched)
        return [y, *gradients, *(scope.get_current_value(v) for v in network.non_trainable_variables)]

    return phase.get_concrete_function(*inputs).graph, phase(*inputs)


def calls(graph):
    return [op.get_attr("f").name for op in graph.get_operations() if op.type.endswith("PartitionedCall")]


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("mixed_bfloat16", 1e-2)])
def test_results_gradients_and_state_are_those_of_one_by_one(dtype, tolerance):
    network = Blocks(dtype=dtype)
    network.build((None, 2, 2, 3))
    results = [learned(network, scope)[1] for scope in (layers.TracedOnce, keras.StatelessScope)]
    for once, each in zip(*results, strict=True):
        assert once.dtype == each.dtype
        once, each = (tf.cast(x, tf.float32).numpy() for x in (once, each))
        np.testing.assert_allclose(once, each, rtol=0, atol=tolerance * np.abs(each).max())


def test_all_blocks_call_one_function_and_one_gradient_for_each_signature(network):
    found = calls(learned(network, layers.TracedOnce)[0])
    assert len(found) == 2 * 3 * len(network.blocks)  # forward and backward, three calls of the network
    assert len(set(found)) == 2 * 2  # forward and backward, two sizes


def test_the_runtime_keeps_the_function(network):
    graph, _ = learned(network, layers.TracedOnce)
    functions = {f.signature.name: f for f in graph.as_graph_def().library.function}
    assert all(functions[name].attr["_noinline"].b for name in calls(graph))


def test_files_that_are_exported_hold_no_calls(network):
    @tf.function(autograph=False)
    def translate(x):
        return network(x)

    graph = translate.get_concrete_function(tf.TensorSpec((1, 2, 2, 3))).graph
    assert not calls(graph)


def test_averages_are_computed_with_in_a_phase(network):
    """A scope within that of the phase gives other values, which a function of the phase's would not see."""

    class Ones(keras.StatelessScope):
        def get_current_value(self, variable):
            return tf.ones(variable.shape)

    @tf.function(autograph=False)
    def phase(x):
        with layers.TracedOnce([(v, tf.convert_to_tensor(v.value)) for v in network.variables]), Ones():
            return network(x)

    with Ones():
        expected = network(tf.ones((1, 2, 2, 3)))
    np.testing.assert_allclose(phase(tf.ones((1, 2, 2, 3))), expected, rtol=1e-6)


def test_no_block_gives_what_it_takes():
    network = Blocks(count=0)
    with layers.TracedOnce([]):
        np.testing.assert_array_equal(network(tf.ones((1, 2, 2, 3))), np.ones((1, 2, 2, 3)))


def test_layers_of_another_dtype_are_refused(network):
    network.blocks[0].norm.dtype_policy = "mixed_bfloat16"
    with pytest.raises(ValueError, match="block_1 computes in bfloat16 and float32: expected one dtype"):
        learned(network, layers.TracedOnce)
