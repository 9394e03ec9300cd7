"""Blocks whose inner maps are computed again: the same results, gradients and state, and fewer maps kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context  # nothing public shows what became of a graph

from tests.test_alike import Block, Blocks, learned
from tfi2i import layers


class OneByOne(Blocks):
    def call(self, x, gain=None, training=False):
        for block in self.blocks:
            x = layers.remat(block, x, gain, training=training)
        return x


class Square(keras.layers.Layer):
    """(w x)², so that d/dx = 2 w² x and d/dw = 2 w x²; counts how often it is called."""

    def build(self, input_shape):
        self.w = self.add_weight(shape=(), initializer="ones", name="w")
        self.calls, self.built = 0, True

    def call(self, x):
        self.calls += 1
        return keras.ops.square(self.w * x)


def square(**kwargs):
    block = Square(dtype="float32", **kwargs)
    block.build(None)
    return block


def plainly(state_mapping):
    return layers.StepScope(state_mapping)


def again(state_mapping):
    return layers.StepScope(state_mapping, remat=True)


def once_and_again(state_mapping):
    return layers.TracedOnce(state_mapping, remat=True)


def test_gradients_by_hand_and_a_second_computation():
    block = square()
    x, w = tf.constant(3.0), tf.constant(2.0)
    with tf.GradientTape() as tape:
        tape.watch([x, w])
        with again([(block.w, w)]):
            y = layers.remat(block, x, training=True)
    assert (float(y), block.calls) == (36.0, 1)
    assert [float(g) for g in tape.gradient(y, [x, w])] == [24.0, 36.0]
    assert block.calls == 2


def test_a_part_of_several_layers_by_hand():
    first, second = square(), square()
    x, v, w = tf.constant(1.0), tf.constant(2.0), tf.constant(3.0)
    with tf.GradientTape() as tape:
        tape.watch([x, v, w])
        with again([(first.w, v), (second.w, w)]):
            y = layers.rectified(x, first, second, training=True)  # w² v⁴ x⁴
    assert float(y) == 144.0
    assert [float(g) for g in tape.gradient(y, [x, v, w])] == [576.0, 288.0, 96.0]
    assert (first.calls, second.calls) == (2, 2)


def test_gradients_of_gradients_by_hand():
    block = square()
    x, w = tf.constant(3.0), tf.constant(2.0)
    with tf.GradientTape() as outer:
        outer.watch([x, w])
        with tf.GradientTape() as inner, again([(block.w, w)]):
            inner.watch(x)
            y = layers.remat(block, x, training=True)
        slope = inner.gradient(y, x)  # 2 w² x
    assert [float(g) for g in outer.gradient(slope, [x, w])] == [8.0, 24.0]


@pytest.mark.parametrize("kind", [Blocks, OneByOne])
@pytest.mark.parametrize("scope", [again, once_and_again])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("mixed_bfloat16", 1e-2)])
def test_results_gradients_and_state_are_those_of_plain_calls(kind, scope, dtype, tolerance):
    network = kind(dtype=dtype)
    network.build((None, 2, 2, 3))
    results = [learned(network, s)[1] for s in (scope, plainly)]
    for twice, once in zip(*results, strict=True):
        assert twice.dtype == once.dtype
        twice, once = (tf.cast(x, tf.float32).numpy() for x in (twice, once))
        np.testing.assert_allclose(twice, once, rtol=0, atol=tolerance * np.abs(once).max())


def products(scope, xla):
    """How many matrix products three blocks and their gradients have after all optimizations of TensorFlow, or XLA."""
    blocks = [Block(name=f"block_{i}", dtype="float32") for i in range(3)]
    for block in blocks:
        block.build((None, 8, 8, 3))

    @tf.function(autograph=False, jit_compile=xla or None)
    def phase(x):
        pairs = [(v, tf.convert_to_tensor(v.value)) for block in blocks for v in block.variables]
        learned = [x, *(value for v, value in pairs if v.trainable)]
        with tf.GradientTape() as tape:
            tape.watch(learned)
            y = x
            with scope(pairs):
                for block in blocks:
                    y = layers.remat(block, y, training=True)
            loss = tf.reduce_sum(y**2)
        return tape.gradient(loss, learned)

    x = tf.random.stateless_normal((2, 8, 8, 3), (1, 2))
    if xla:
        return phase.experimental_get_compiler_ir(x)(stage="optimized_hlo").count(" dot(")
    context.enable_run_metadata()
    phase(x)
    found = context.export_run_metadata()
    context.disable_run_metadata()
    return [n.op for f in found.function_graphs for n in f.post_optimization_graph.node].count("MatMul")


@pytest.mark.parametrize("xla", [False, True])
def test_compilers_leave_the_second_computation(xla):
    """What the first computation made would otherwise be kept after all."""
    assert products(again, xla) == products(plainly, xla) + 3


def test_outside_a_step_it_is_a_call():
    block = square()
    with tf.GradientTape() as tape:
        y = layers.remat(block, tf.constant(3.0), training=True)
    assert (float(y), float(tape.gradient(y, block.w.value)), block.calls) == (9.0, 18.0, 1)


def in_a_step(part, *layers_of):
    """What `remat` makes of a function of `layers_of`, all of which are built, in the scope of a step."""
    values = [(v, tf.convert_to_tensor(v.value)) for layer in layers_of for v in layer.variables]
    with again(values):
        return layers.remat(part, tf.constant(3.0), training=True, of=layers_of[:1])


def test_parts_that_would_lose_gradients_are_refused():
    first, second = square(), square(name="forgotten")
    with pytest.raises(ValueError, match="a part reads forgotten/w, which none of the layers `of` it has"):
        in_a_step(lambda x, training: second(first(x)), first, second)
    with pytest.raises(ValueError, match="a part gives tuple: expected one tensor"):
        in_a_step(lambda x, training: (first(x), x), first)
    with pytest.raises(ValueError, match="a part that is a function: expected the layers `of` it"):
        layers.remat(lambda x, training: first(x), tf.constant(3.0), training=True)


def test_state_keeps_its_precision():
    """In mixed precision weights are cast where they are read; a state is given back as it was."""

    class Counter(keras.layers.Layer):
        def build(self, input_shape):
            self.state = self.add_weight(shape=(), initializer="zeros", trainable=False, name="state")
            self.built = True

        def call(self, x):
            return x

    counter = Counter(dtype="mixed_bfloat16")
    counter.build(None)
    third = tf.constant(1 / 3)
    with again([(counter.state, third)]) as scope:
        layers.remat(counter, tf.constant(1.0, tf.bfloat16), training=True)
    assert scope.get_current_value(counter.state).dtype == "float32"
    assert scope.get_current_value(counter.state) == third


def test_layers_of_another_dtype_are_refused():
    network = OneByOne(dtype="float32")
    network.build((None, 2, 2, 3))
    network.blocks[0].norm.dtype_policy = "mixed_bfloat16"
    with pytest.raises(ValueError, match="block_1 computes in bfloat16 and float32: expected one dtype"):
        learned(network, again)
