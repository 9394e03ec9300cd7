"""Layers against answers computable by hand, and against the layer test of Keras."""

import contextlib
import functools
import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src import testing

from tfi2i import layers, optim
from tfi2i.layers import addons, convolution
from tfi2i.layers.convolution import convolve, pad_image


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# Activations


ACTIVATIONS = {
    "leaky_relu": (lambda x: layers.leaky_relu(x, 0.25), lambda x: tf.where(x > 0, x, 0.25 * x)),
    "gelu": (layers.gelu, lambda x: 0.5 * x * (1 + tf.math.erf(x / 2**0.5))),
}


def slopes(activation, x):
    """(result, slope, slope of the slope) of an activation, within a training step and its two tapes."""
    with layers.StepScope(), tf.GradientTape() as second:
        second.watch(x)
        with tf.GradientTape() as first:
            first.watch(x)
            y = activation(x)
        slope = first.gradient(y, x)
    return y, slope, second.gradient(slope, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def test_leaky_relu_by_hand():
    found = slopes(ACTIVATIONS["leaky_relu"][0], tf.constant([-2.0, 0.0, 3.0]))
    np.testing.assert_array_equal(found, [[-0.5, 0, 3], [0.25, 0.25, 1], [0, 0, 0]])


def test_gelu_by_hand():
    # Φ(1) = 0.841345 and φ(1) = 0.241971: 1 Φ(1), Φ(1) + φ(1), 2 φ(1) - φ(1).
    found = slopes(layers.gelu, tf.constant([0.0, 1.0]))
    np.testing.assert_allclose(found, [[0, 0.841345], [0.5, 1.083316], [0.797885, 0.241971]], rtol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_differentiate_as_tensorflow_does(rng, name):
    ours, theirs = ACTIVATIONS[name]
    x = tf.constant(rng.normal(size=40), tf.float32)
    expected = slopes(theirs, x)
    for computed in (slopes, tf.function(slopes)):
        for value, right in zip(computed(ours, x), expected):
            np.testing.assert_allclose(value, right, rtol=1e-5, atol=1e-6)
        y, slope, _ = computed(ours, tf.cast(x, tf.bfloat16))
        assert y.dtype == slope.dtype == tf.bfloat16
        np.testing.assert_allclose(tf.cast(slope, tf.float32), expected[1], atol=0.02)


@pytest.mark.parametrize("name, kept", [("leaky_relu", "LeakyRelu"), ("gelu", "Placeholder")])
def test_gradients_of_activations_read_one_map(name, kept):
    def learn(x):
        with layers.StepScope(), tf.GradientTape() as tape:
            tape.watch(x)
            y = ACTIVATIONS[name][0](x)
        with tf.name_scope("backward"):
            return tape.gradient(y, x)

    operations = tf.function(learn).get_concrete_function(tf.TensorSpec((3,))).graph.get_operations()
    backward = [op for op in operations if "backward" in op.name]
    read = {x.op for op in backward for x in op.inputs if x.op not in backward and x.op.type != "Const"}
    assert {op.type for op in read} - {"Fill"} == {kept}  # what is filled with ones is the upstream gradient


def test_a_leaky_relu_that_hides_the_sign_is_refused():
    with pytest.raises(ValueError, match="negative_slope=-0.5: expected 0 or more"):
        layers.leaky_relu(tf.ones(1), -0.5)


def test_gradients_of_our_own_are_not_in_graphs_that_only_translate():
    def types(scope):
        with scope:
            graph = tf.function(ACTIVATIONS["leaky_relu"][0]).get_concrete_function(tf.TensorSpec((3,))).graph
        return {op.type for op in graph.get_operations()}

    assert "IdentityN" in types(layers.StepScope())
    for scope in (contextlib.nullcontext(), optim.AveragedScope([])):  # averages translate in a scope of theirs
        assert types(scope) == {"Placeholder", "LeakyRelu", "Identity"}


# Instance normalisation


@pytest.mark.parametrize("training", [False, True])
def test_instance_norm_of_a_constant_is_zero(training):
    y = layers.InstanceNormalization()(np.full((2, 3, 4, 5), 7, np.float32), training=training)
    np.testing.assert_array_equal(y, np.zeros((2, 3, 4, 5)))


@pytest.mark.parametrize("training", [False, True])
def test_instance_norm_by_hand(training):
    # Sample 0: mean 4, biased variance 5; sample 1 is 0 but for one 4: mean 1, variance 3.
    x = np.array([[[1, 3], [5, 7]], [[0, 0], [0, 4]]], np.float32)[..., None]
    y = layers.InstanceNormalization(epsilon=4.0)(x, training=training)
    expected = [[[-3 / 3, -1 / 3], [1 / 3, 3 / 3]], [[-1 / 7**0.5, -1 / 7**0.5], [-1 / 7**0.5, 3 / 7**0.5]]]
    np.testing.assert_allclose(y[..., 0], expected, atol=1e-6)


@pytest.mark.parametrize("n", [1, 3, 9])
def test_instance_norm_fused_is_moments(rng, n):
    """Outputs and gradients; 9 samples are more than are fused."""
    x = tf.constant(rng.normal(0.5, 2, (n, 6, 5, 4)), tf.float32)
    weigh = tf.constant(rng.normal(size=x.shape), tf.float32)
    norm = layers.InstanceNormalization(center=True, scale=True)
    norm.build(x.shape)
    norm.set_weights([rng.normal(1, 0.5, 4), rng.normal(0, 1, 4)])
    results = []
    for training in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = norm(x, training=training)
            loss = tf.reduce_sum(y * weigh)
        results.append([y, *tape.gradient(loss, [x, *norm.trainable_variables])])
    for fused, moments in zip(*results):
        np.testing.assert_allclose(fused, moments, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_instance_norm_statistics_are_float32(rng, training):
    """Around 100 bfloat16 has steps of 1/2: a mean in bfloat16 would be off by up to a quarter of the deviation."""
    x = 100 + rng.integers(-2, 3, (1, 8, 8, 16)) / 2
    expected = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    norm = layers.InstanceNormalization(dtype="mixed_bfloat16")
    y = norm(tf.constant(x, tf.bfloat16), training=training)
    assert y.dtype == "bfloat16"
    np.testing.assert_allclose(np.asarray(y, np.float32), expected, atol=0.01)


def test_instance_norm_affine(rng):
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    norm = layers.InstanceNormalization(center=True, scale=True)
    norm.build(x.shape)
    np.testing.assert_array_equal(norm(x), layers.InstanceNormalization()(x))
    norm.set_weights([np.array([0.5, 1, 1]), np.array([2, 2, 0])])
    y = norm(x).numpy()
    np.testing.assert_allclose(y.mean((1, 2)), [[2, 2, 0]] * 2, atol=1e-5)
    np.testing.assert_allclose(y.std((1, 2)), [[0.5, 1, 1]] * 2, atol=1e-4)
    assert not layers.InstanceNormalization().weights


# Batch normalisation


def test_batch_norm_by_hand():
    x = np.array([1, 3, 5, 7], np.float32).reshape(2, 1, 2, 1)  # mean 4, variance 5 biased, 20/3 unbiased
    norm = layers.BatchNormalization(epsilon=4.0, gain=0.0)
    np.testing.assert_allclose(np.ravel(norm(x, training=True)), [-1, -1 / 3, 1 / 3, 1], atol=1e-6)
    np.testing.assert_allclose(norm.moving_mean, [0.1 * 4])
    np.testing.assert_allclose(norm.moving_variance, [0.9 + 0.1 * 20 / 3], rtol=1e-6)
    expected = (x - 0.4) / np.sqrt(0.9 + 2 / 3 + 4)
    np.testing.assert_allclose(norm(x), expected, atol=1e-6)
    np.testing.assert_allclose(norm.moving_mean, [0.4])  # inference moves nothing


def test_batch_norm_starts_as_published():
    norm = layers.BatchNormalization(gain=0.02)
    norm.build((None, None, None, 10000))
    gamma, beta, mean, variance = norm.get_weights()
    assert gamma.mean() == pytest.approx(1, abs=1e-3) and gamma.std() == pytest.approx(0.02, rel=0.03)
    assert not beta.any() and not mean.any() and (variance == 1).all()
    assert len(norm.trainable_variables) == 2


# Convolutions


def delta(size, row, column):
    kernel = np.zeros((size, size, 1, 1), np.float32)
    kernel[row, column] = 1
    return kernel


def apply(layer, x, kernel):
    x = np.asarray(x, np.float32)[None, :, :, None]
    layer.build(x.shape)
    layer.set_weights([kernel])
    y = layer(x)
    assert y.shape == layer.compute_output_shape(x.shape)
    return y[0, :, :, 0].numpy()


def test_conv_stride_2_pads_both_sides():
    """A kernel's centre looks at rows 0, 2, …; TF's 'same' would look at 1, 3, …."""
    x = np.arange(16).reshape(4, 4)
    conv = layers.Conv2D(1, 3, strides=2, pad=1, use_bias=False)
    np.testing.assert_array_equal(apply(conv, x, delta(3, 1, 1)), x[::2, ::2])
    conv = layers.Conv2D(1, 3, strides=2, pad=1, use_bias=False)
    np.testing.assert_array_equal(apply(conv, x, delta(3, 0, 0)), [[0, 0], [0, x[1, 1]]])


def test_conv_kernel_4_stride_1_loses_a_row():
    x = np.arange(25).reshape(5, 5)
    conv = layers.Conv2D(1, 4, pad=1, use_bias=False)
    np.testing.assert_array_equal(apply(conv, x, delta(4, 1, 1)), x[:4, :4])


def test_conv_reflects_without_the_edge():
    x = np.arange(9).reshape(3, 3)
    conv = layers.Conv2D(1, 3, pad=1, pad_mode="reflect", use_bias=False)
    np.testing.assert_array_equal(apply(conv, x, delta(3, 0, 0)), [[4, 3, 4], [1, 0, 1], [4, 3, 4]])


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("pad", [(1, 1), (0, 2), (3, 3)])
def test_reflection_is_that_of_tensorflow_with_its_gradients(pad, known):
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 4, 5, 3)), tf.float32)

    def derivatives(padded, x):
        with tf.GradientTape(persistent=True) as second:
            second.watch(x)
            with tf.GradientTape() as first:
                first.watch(x)
                y = padded(x)
                loss = tf.reduce_sum(y**3)
            slope = first.gradient(loss, x)
        return y, slope, second.gradient(slope, x)

    def compute(padded):
        signature = [tf.TensorSpec((2, 4, 5, 3) if known else (None, None, None, 3))]
        with layers.StepScope():
            return tf.function(functools.partial(derivatives, padded), signature)(x)

    theirs = compute(lambda x: tf.pad(x, ((0, 0), pad, pad, (0, 0)), "REFLECT"))
    for ours, expected in zip(compute(lambda x: pad_image(x, pad, "reflect")), theirs):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_images_of_known_size_in_any_number_are_reflected_without_a_look_at_their_shape():
    pad = tf.function(lambda x: pad_image(x, (1, 1), "reflect"))
    graph = pad.get_concrete_function(tf.TensorSpec((None, 4, 5, 3))).graph
    assert not [op.name for op in graph.get_operations() if op.type == "Shape"]


def test_tokens_of_unknown_number_are_multiplied_as_one_matrix():
    """A product with three axes would compute the number of rows, by "Prod"."""
    block = layers.TransformerBlock(4, 2, 8)
    block.build((None, None, 4))
    graph = tf.function(block).get_concrete_function(tf.TensorSpec((None, None, 4))).graph
    kinds = [op.type for op in graph.get_operations()]
    assert kinds.count("MatMul") == 4
    assert "Prod" not in kinds


def test_a_map_that_is_too_small_for_its_reflection():
    with pytest.raises(ValueError, match="a map of 3×5 pixels has not enough of them to mirror 3 at an edge"):
        layers.Conv2D(1, 7, pad=3, pad_mode="reflect")(np.zeros((1, 3, 5, 1), np.float32))


@pytest.mark.parametrize(
    "size, window, stride, pad, copies",
    [
        ((6, 5), 3, 1, 1, False),
        ((6, 5), 7, 1, 3, False),
        ((None, None), 3, 1, 1, False),
        ((6, 8), 4, 2, 1, False),
        ((2, 2), 4, 2, 1, False),
        ((6, 8), 3, 2, 1, True),  # "SAME" pads 0 pixels before and 1 after
        ((6, 5), 4, 2, 1, True),
        ((None, None), 4, 2, 1, True),
        ((6, 5), 4, 1, 1, True),
        ((6, 5), 1, 1, 1, True),
        ((6, 5), 3, 1, 0, False),
        ((6, 8), 4, 2, 0, False),
        ((None, None), 3, 1, 0, False),
        ((6, 5), (3, 5), 1, 1, True),
    ],
)
def test_zeros_are_padded_without_a_copy_where_tensorflow_pads_alike(rng, size, window, stride, pad, copies):
    x = tf.constant(rng.normal(size=(2, *(side or 7 for side in size), 5)), tf.float32)
    conv = layers.Conv2D(6, window, stride, pad=pad, bias_initializer="ones")
    conv.build(x.shape)
    called = tf.function(conv).get_concrete_function(tf.TensorSpec((None, *size, 5)))
    assert ("Pad" in {op.type for op in called.graph.get_operations()}) == copies
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    np.testing.assert_allclose(called(x), tf.nn.conv2d(padded, conv.kernel.value, stride, "VALID") + 1, atol=1e-5)


def test_conv_with_few_filters_is_the_usual_one_with_its_gradients():
    draw = np.random.default_rng(0)
    x = tf.constant(draw.normal(size=(2, 9, 8, 16)), tf.float32)
    conv = layers.Conv2D(3, (7, 5), pad=1)
    conv.build(x.shape)
    conv.set_weights([draw.normal(size=w.shape) for w in conv.get_weights()])
    kernel, bias = conv.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours = conv(x)
        padded = tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        theirs = tf.nn.conv2d(padded, kernel.value, 1, "VALID") + bias.value
        losses = [tf.reduce_sum(y**2) for y in (ours, theirs)]
    assert ours.shape == theirs.shape == conv.compute_output_shape(x.shape)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    of = [x, kernel.value, bias.value]
    for gradient, expected in zip(*(tape.gradient(loss, of) for loss in losses)):
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=0.02)


def with_gradients(compute, *shapes, dtype):
    """A convolution of an image and weights of these shapes, and the gradients of a sum of half of it, in a step.

    All are whole numbers so small that they are exact in bfloat16, and so are their products.
    """
    draw = np.random.default_rng(0)
    given = [tf.Variable(draw.integers(-1, 2, shape), dtype=dtype) for shape in shapes]
    with layers.StepScope(), tf.GradientTape() as tape:
        y = compute(*(v.value() for v in given))
        # Not tf.reduce_sum(y * …), whose sum is rounded.
        loss = tf.reduce_sum(tf.cast(y * draw.integers(0, 2, y.shape), tf.float32))
    return y, *tape.gradient(loss, given)


@pytest.mark.parametrize("strides, dtype", [((1, 1), "bfloat16"), ((2, 1), "bfloat16"), ((2, 1), "float32")])
def test_large_conv_is_the_usual_one_with_its_gradients(strides, dtype):
    shapes = ((2, 7, 6, 64), (3, 2, 64, 128), (128,))
    ours = with_gradients(lambda *of: convolve(*of, strides), *shapes, dtype=dtype)
    usual = with_gradients(
        lambda x, kernel, bias: tf.nn.conv2d(x, kernel, strides, "VALID") + bias, *shapes, dtype=dtype
    )
    for value, expected in zip(ours, usual, strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(
    "strides, dtype, options",
    [
        ((1, 1), "bfloat16", {}),
        ((2, 1), "bfloat16", {"activation": "relu"}),
        ((3, 2), "float32", {"activation": "relu"}),
        ((2, 1), "float16", {"use_bias": False}),
        ((1, 1), "bfloat16", {"dilation_rate": 2}),
    ],
)
def test_large_transposed_conv_is_the_usual_one_with_its_gradients(strides, dtype, options):
    shapes = ((2, 4, 3, 128), (3, 2, 64, 128), (64,))
    up = layers.Conv2DTranspose(64, (3, 2), strides, pad=1, dtype=dtype, **options)
    usual = keras.layers.Conv2DTranspose(64, (3, 2), strides, dtype=dtype, **options)

    def of(layer, x, kernel, bias):
        layer.build(x.shape)
        given = [(layer.kernel, kernel)] + ([(layer.bias, bias)] if layer.use_bias else [])
        with layers.StepScope(given):
            return layer(x) + (0 if layer.use_bias else bias)

    ours = with_gradients(functools.partial(of, up), *shapes, dtype=dtype)
    theirs = with_gradients(lambda *given: of(usual, *given)[:, 1:-1, 1:-1], *shapes, dtype=dtype)
    for value, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(value, expected)


def reads_patches(layer, shape, dtype="float32", scope=layers.StepScope):
    """Whether the gradient of a layer's kernel gathers patches of an image of this shape."""
    if not layer.built:
        layer.build(shape)

    @tf.function
    def learn(x):
        with scope(), tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(layer(x), tf.float32))
        return tape.gradient(loss, layer.kernel.value)

    graph = learn.get_concrete_function(tf.TensorSpec(shape, dtype)).graph
    return "GatherV2" in {op.type for op in graph.get_operations()}


@pytest.mark.parametrize(
    "layer, channels, read",
    [
        (layers.Conv2D(128, 3, 2, pad=1), 64, True),
        (layers.Conv2DTranspose(64, 3, 2, pad=1), 128, True),
        (layers.Conv2D(128, 3, pad=1, dtype="bfloat16"), 64, True),
        (layers.Conv2D(128, 3, 2, pad=1, dtype="float16"), 64, True),
        (layers.Conv2DTranspose(64, 4, 2, pad=1, dtype="bfloat16"), 128, True),
        (layers.Conv2D(128, 3, pad=1), 64, False),
        (layers.Conv2D(128, 4, 2, pad=1), 64, False),
        (layers.Conv2DTranspose(64, 4, 2, pad=1), 128, False),
        (layers.Conv2D(64, 3, 2, pad=1), 64, False),
        (layers.Conv2DTranspose(32, 3, 2, pad=1), 128, False),
    ],
)
def test_gradients_of_kernels_that_come_from_patches(layer, channels, read):
    """On a machine without GPUs, those that oneDNN computes slowly; of images in any number, but of a known size."""
    dtype = layer.compute_dtype
    assert reads_patches(layer, (None, 8, 8, channels), dtype) == read
    assert not reads_patches(layer, (1, None, 8, channels), dtype)
    assert not reads_patches(layer, (1, 8, 8, channels), dtype, scope=contextlib.nullcontext)


def test_patches_that_would_take_too_much_memory(monkeypatch):
    """Of 3 images, 4·4 patches of 3·3 pixels of 64 channels of 4 bytes."""
    monkeypatch.setattr(convolution, "_PATCHES", 3 * 16 * 9 * 64 * 4)
    for layer, size, channels in ((layers.Conv2D(128, 3, 2, pad=1), 8, 64), (layers.Conv2DTranspose(64, 3, 2), 4, 128)):
        assert reads_patches(layer, (3, size, size, channels))
        assert not reads_patches(layer, (4, size, size, channels))


def test_nothing_stands_between_a_large_conv_and_its_bias():
    conv = layers.Conv2D(128, 3, pad=1, dtype="bfloat16")
    conv.build((None, 6, 5, 64))
    with layers.StepScope():
        graph = tf.function(conv).get_concrete_function(tf.TensorSpec((1, 6, 5, 64), tf.bfloat16)).graph
    (added,) = (op for op in graph.get_operations() if op.type == "BiasAdd")
    assert added.inputs[0].op.type == "Conv2D"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_large_conv_in_bfloat16_learns_traced_and_not(policy):
    conv = layers.Conv2D(128, 3, dtype=policy)
    conv.build((None, None, None, 64))
    x = tf.constant(np.random.default_rng(0).normal(size=(1, 5, 4, 64)), tf.float32)

    def learn():
        with layers.StepScope(), tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(conv(x), tf.float32) ** 2)
        return tape.gradient(loss, conv.kernel.value)

    expected = learn()
    assert expected.dtype == conv.kernel.value.dtype and np.any(expected)
    np.testing.assert_allclose(*(tf.cast(g, tf.float32) for g in (tf.function(learn)(), expected)), rtol=0.02, atol=0.5)


def test_transposed_conv_kernel_3_drops_the_first_row_and_column():
    x = np.array([[1, 2], [3, 4]])
    up = layers.Conv2DTranspose(1, 3, 2, pad=1, output_pad=1, use_bias=False)
    # Each pixel's kernel starts at twice its position; the centre lands one further, the cut takes it back.
    expected = np.zeros((4, 4))
    expected[::2, ::2] = x
    np.testing.assert_array_equal(apply(up, x, delta(3, 1, 1)), expected)
    up = layers.Conv2DTranspose(1, 3, 2, pad=1, output_pad=1, use_bias=False)
    np.testing.assert_array_equal(apply(up, x, delta(3, 2, 2)), np.pad(expected, ((1, 0), (1, 0)))[:4, :4])


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_enlarged_maps_repeat_their_pixels(rng, factor):
    x = rng.normal(size=(2, 3, 5, 4)).astype("float32")
    expected = x.repeat(factor, axis=1).repeat(factor, axis=2)
    np.testing.assert_array_equal(layers.Enlarge(factor)(x), expected)
    any_size = tf.function(layers.Enlarge(factor), input_signature=[tf.TensorSpec((None, None, None, 4))])
    np.testing.assert_array_equal(any_size(x), expected)


def test_transposed_conv_sizes():
    x = np.array([[1, 2], [3, 4]])
    up = layers.Conv2DTranspose(1, 3, 2, pad=1, use_bias=False)
    np.testing.assert_array_equal(apply(up, x, delta(3, 1, 1)), [[1, 0, 2], [0, 0, 0], [3, 0, 4]])
    up = layers.Conv2DTranspose(1, 2, 1, dilation_rate=2, use_bias=False)
    np.testing.assert_array_equal(
        apply(up, x, delta(2, 1, 1)), [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 2], [0, 0, 3, 4]]
    )
    up = layers.Conv2DTranspose(1, 4, 2, pad=1, use_bias=False)
    np.testing.assert_array_equal(apply(up, x, np.ones((4, 4, 1, 1))), [
        [1, 3, 3, 2],
        [4, 10, 10, 6],
        [4, 10, 10, 6],
        [3, 7, 7, 4],
    ])  # fmt: skip


# Initialisers


@pytest.mark.parametrize("shape", [(3, 3, 64, 128), (4, 4, 96, 48)])
@pytest.mark.parametrize(
    "name, deviation",
    [
        ("normal", lambda fan_in, fan_out: 0.5),
        ("xavier", lambda fan_in, fan_out: 0.5 * (2 / (fan_in + fan_out)) ** 0.5),
        ("kaiming", lambda fan_in, fan_out: (2 / fan_in) ** 0.5),
    ],
)
def test_initializers_draw_normal_numbers(name, deviation, shape):
    kernel = np.asarray(layers.initializer(name, 0.5, 1)(shape))
    expected = deviation(np.prod(shape[:3]), np.prod(shape[:2]) * shape[3])
    assert kernel.std() == pytest.approx(expected, rel=0.02)
    assert abs(kernel.mean()) < 0.02 * expected
    # Not truncated: 4.6 % of a normal distribution lie beyond two deviations.
    assert (np.abs(kernel) > 2 * expected).mean() == pytest.approx(0.0455, rel=0.1)


def test_a_truncated_normal_initializer_draws_again_beyond_two_deviations():
    kernel = np.asarray(layers.initializer("truncated_normal", 0.5, 1)((3, 3, 64, 128)))
    assert np.abs(kernel).max() <= 1 and kernel.std() == pytest.approx(0.5 * 0.88, rel=0.01)


def test_orthogonal_initializer():
    kernel = np.asarray(layers.initializer("orthogonal", 0.5, 1)((3, 3, 8, 16))).reshape(-1, 16)
    np.testing.assert_allclose(kernel.T @ kernel, 0.25 * np.eye(16), atol=1e-5)


def test_initializers_depend_on_their_seed():
    draws = [np.asarray(layers.initializer("normal", 1.0, seed)((2, 2, 4, 4))) for seed in (1, 1, 2)]
    assert (draws[0] == draws[1]).all() and (draws[0] != draws[2]).all()


def test_initializer_refuses_an_unknown_name():
    with pytest.raises(ValueError, match="init='lecun': expected normal, truncated_normal, xavier, .* or torch"):
        layers.initializer("lecun", 1.0, 0)


# Random draws


def test_seeds_are_a_function_of_seed_step_index_and_purpose():
    def seeds(seed=3, step=5, indices=(0, 1, 2, 3), purpose="noise"):
        return layers.sample_seeds(seed, tf.constant(step, tf.int64), tf.constant(indices), purpose).numpy()

    first = seeds()
    assert first.shape == (4, 2) and len(np.unique(first, axis=0)) == 4
    np.testing.assert_array_equal(first, seeds())
    # Two replicas, each with its half of the batch, draw what one would.
    np.testing.assert_array_equal(first, np.concatenate([seeds(indices=(0, 1)), seeds(indices=(2, 3))]))
    for other in (seeds(seed=4), seeds(step=6), seeds(purpose="pool"), seeds(indices=(4, 5, 6, 7))):
        assert not (first == other).all(1).any()
    in_graph = tf.function(lambda step: layers.sample_seeds(3, step, tf.range(4), "noise"))
    np.testing.assert_array_equal(first, in_graph(tf.constant(5, tf.int64)))


def test_uniform_draws_look_uniform():
    draws = layers.uniform(layers.sample_seeds(0, 7, tf.range(200), "test"), (50,)).numpy()
    assert draws.shape == (200, 50) and draws.min() >= 0 and draws.max() < 1
    np.testing.assert_allclose(np.histogram(draws, 10, (0, 1))[0], 1000, atol=150)
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.04  # neighbours are strangers


def test_dropout_keeps_half_and_doubles_it():
    x = np.ones((3, 20, 20, 8), np.float32)
    drop = layers.Dropout(0.5, index=1)
    np.testing.assert_array_equal(drop(x), x)  # no seeds, no dropout
    seeds = layers.sample_seeds(0, 0, tf.range(3), "dropout")
    y = drop(x, seeds).numpy()
    assert set(np.unique(y)) == {0, 2} and y.mean() == pytest.approx(1, abs=0.05)
    np.testing.assert_array_equal(y, drop(x, seeds))
    np.testing.assert_array_equal(y[1:2], drop(x[1:2], seeds[1:2]))  # alone as in a batch
    assert (y[0] != y[1]).any() and (y != layers.Dropout(0.5, index=2)(x, seeds).numpy()).any()


# 8 bits


def test_fake_quantization_by_hand():
    # A map from -1 to 4: the scale is 5/255, and 0 is one of the levels.
    x = tf.constant([[-1.0, 0.0, 0.015, 4.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layers.fake_quantize(x, axis=(1,))
    np.testing.assert_allclose(y, [[-1, 0, 5 / 255, 4]], atol=1e-6)
    np.testing.assert_array_equal(tape.gradient(y, x), np.ones((1, 4)))
    np.testing.assert_array_equal(layers.fake_quantize(tf.zeros((2, 2)), axis=(1,)), np.zeros((2, 2)))
    # Kernels: the largest of each output channel, whatever its sign, is level 127.
    kernel = tf.constant([[2.54, -1.27], [1.011, 0.006]])
    np.testing.assert_allclose(layers.fake_quantize_kernel(kernel, axis=(0,)), [[2.54, -1.27], [1.02, 0.01]], atol=1e-6)


def test_depth_to_space_is_that_of_tensorflow(rng):
    x = rng.normal(size=(2, 3, 5, 12)).astype("float32")
    np.testing.assert_array_equal(layers.depth_to_space(x), tf.nn.depth_to_space(x, 2))


@pytest.mark.parametrize("bias, dilation", [(True, 1), (False, 2)])
@pytest.mark.parametrize("kind, axes", [("Conv2D", (0, 1, 2)), ("DepthwiseConv2D", (0, 1))])
def test_quantizable_layers_round_kernel_and_result(rng, kind, axes, bias, dilation):
    x = rng.normal(size=(2, 6, 6, 4)).astype("float32")
    arguments = {"filters": 3} if kind == "Conv2D" else {}
    arguments |= {"use_bias": bias, "dilation_rate": dilation}
    ours = getattr(layers, f"Quantizable{kind}")(kernel_size=3, padding="same", activation="relu", **arguments)
    keras_layer = getattr(keras.layers, kind)(kernel_size=3, padding="same", activation="relu", **arguments)
    ours.build(x.shape), keras_layer.build(x.shape)
    keras_layer.set_weights(ours.get_weights())
    np.testing.assert_array_equal(ours(x), keras_layer(x))
    kernel = np.asarray(layers.fake_quantize_kernel(ours.kernel, axis=axes))
    keras_layer.set_weights([kernel, *ours.get_weights()[1:]])
    expected = layers.fake_quantize(keras_layer(x), axis=(1, 2, 3))
    np.testing.assert_allclose(ours(x, quantized=True), expected, atol=1e-6)


# Keras

MAP = (2, 8, 6, 4)
TOKENS = (2, 5, 4)
SEEDS = np.array([[1, 2], [3, 4]], np.int32)

# Every public layer: class, arguments, shape of the input or of each input by name, shape of the output.
PUBLIC_LAYERS = [
    (layers.Conv2D, {"filters": 3, "kernel_size": (4, 3), "strides": (2, 1), "pad": 1}, MAP, (2, 4, 6, 3)),
    (layers.Conv2D, {"filters": 3, "kernel_size": 7, "pad": 3, "pad_mode": "reflect"}, MAP, (2, 8, 6, 3)),
    (layers.Conv2DTranspose, {"filters": 3, "kernel_size": 3, "pad": 1, "output_pad": 1}, MAP, (2, 16, 12, 3)),
    (
        layers.ModulatedConv2D,
        {"filters": 3, "kernel_size": 3, "pad": 1, "kernel_initializer": layers.initializer("xavier", 2, 3)},
        {"x_shape": MAP, "scale_shape": (2, 4)},
        (2, 8, 6, 3),
    ),
    (layers.Enlarge, {"factor": 3}, MAP, (2, 24, 18, 4)),
    (layers.QuantizableConv2D, {"filters": 3, "kernel_size": 3, "padding": "same"}, MAP, (2, 8, 6, 3)),
    (layers.QuantizableDepthwiseConv2D, {"kernel_size": 3, "padding": "same"}, MAP, MAP),
    (layers.InstanceNormalization, {}, MAP, MAP),
    (
        layers.InstanceNormalization,
        {"epsilon": 0.1, "center": True, "scale": True, "gamma_initializer": keras.initializers.Constant(3.0)},
        MAP,
        MAP,
    ),
    (layers.BatchNormalization, {"epsilon": 0.1, "momentum": 0.8, "gain": 0.3, "offset": 0.2, "seed": 4}, MAP, MAP),
    (layers.BatchNormalization, {"scale": False}, MAP, MAP),
    (layers.SampleNormalization, {"epsilon": 0.1, "seed": 4}, MAP, MAP),
    (layers.LayerInstanceNormalization, {"rho": 0.5, "smoothing": 0.1, "unbiased": True, "epsilon": 0.1}, MAP, MAP),
    (
        layers.LayerInstanceNormalization,
        {"kind": "in", "adaptive": True},
        {"x_shape": MAP, "gamma_shape": (2, 4), "beta_shape": (2, 4)},
        MAP,
    ),
    (layers.Dropout, {"rate": 0.25, "index": 3}, MAP, MAP),
    (layers.SpectralNormalization, {"seed": 3, "u_first": True}, (3, 3, 4, 5), (3, 3, 4, 5)),
    (layers.SpectralConv2D, {"filters": 3, "kernel_size": (4, 3), "strides": (2, 1), "pad": 1}, MAP, (2, 4, 6, 3)),
    (
        layers.SpectralConv2D,
        {"filters": 3, "kernel_size": 4, "pad": (1, 2), "pad_mode": "zeros", "init": "torch", "u_first": True},
        MAP,
        (2, 8, 6, 3),
    ),
    (layers.SelfAttention, {"width": 4, "heads": 2, "seed": 3, "init": "xavier"}, TOKENS, TOKENS),
    (layers.TransformerBlock, {"width": 4, "heads": 2, "ffn_width": 8, "init_gain": 0.1}, TOKENS, TOKENS),
    (addons.GroupNormalization, {"groups": 2, "beta_regularizer": "l2"}, MAP, MAP),
    (addons.InstanceNormalization, {"epsilon": 0.1, "center": False}, MAP, MAP),
    (addons.SpectralNormalization, {"layer": keras.layers.Conv2D(3, 3)}, MAP, (2, 6, 4, 3)),
]
each_public_layer = pytest.mark.parametrize(
    "layer_class, arguments, input_shape, output_shape",
    PUBLIC_LAYERS,
    ids=[f"{layer_class.__name__}-{i}" for i, (layer_class, *_) in enumerate(PUBLIC_LAYERS)],
)


def test_the_table_has_every_public_layer():
    modules = [importlib.import_module(m.name) for m in pkgutil.iter_modules(layers.__path__, "tfi2i.layers.")]
    public = {
        value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, keras.layers.Layer)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        # A base class, such as `Network`, computes nothing by itself.
        and value.call is not keras.layers.Layer.call
    }
    assert public == {layer_class for layer_class, *_ in PUBLIC_LAYERS}


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed", "ignore:The model does not have any trainable weights")
@each_public_layer
def test_layers_pass_the_layer_test_of_keras(layer_class, arguments, input_shape, output_shape):
    """Configuration, symbolic and eager calls, one step of `fit`, mixed precision.

    The step of `fit` that this test takes knows one input; `test_layers_train_and_load_in_a_model` takes one with all.
    """
    # Not a subclass: `setUp` would clear Keras' global state under the tests that follow.
    testing.TestCase().run_layer_test(
        layer_class,
        arguments,
        input_shape=input_shape,
        call_kwargs={"seeds": SEEDS} if layer_class is layers.Dropout else None,
        expected_output_shape=output_shape,
        run_training_check=not isinstance(input_shape, dict),
    )


@each_public_layer
def test_layers_train_and_load_in_a_model(tmp_path, layer_class, arguments, input_shape, output_shape):
    """A functional model of unknown batch size, height and width. A kernel's size is known."""
    shapes = list(input_shape.values()) if isinstance(input_shape, dict) else [input_shape]
    known = layer_class is layers.SpectralNormalization
    inputs = [keras.Input(batch_shape=s if known else (*[None] * (len(s) - 1), s[-1])) for s in shapes]
    model = keras.Model(inputs, layer_class(**arguments)(*inputs))
    rng = np.random.default_rng(0)
    x = [rng.normal(size=shape).astype("float32") for shape in shapes]
    if model.trainable_variables:
        before = [v.numpy() for v in model.trainable_variables]
        model.compile("sgd", "mse")
        model.train_on_batch(x, rng.normal(size=output_shape))
        assert any((v.numpy() != old).any() for v, old in zip(model.trainable_variables, before))
    y = model(x)
    assert y.shape == output_shape
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(x), y)


@pytest.mark.parametrize("policy", ["float64", "bfloat16", "mixed_bfloat16"])
@each_public_layer
def test_layers_compute_in_their_dtype(layer_class, arguments, input_shape, output_shape, policy):
    layer = layer_class(**arguments, dtype=policy)
    shapes = input_shape.values() if isinstance(input_shape, dict) else [input_shape]
    x = [tf.ones(shape, layer.compute_dtype) for shape in shapes]
    for training in [{}, {"training": True}] if "training" in inspect.signature(layer.call).parameters else [{}]:
        y = layer(*x, **training)
        assert y.dtype == layer.compute_dtype and np.isfinite(np.asarray(y, "float32")).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: layers.Conv2D(1, 3, pad=(1, 2)), r"pad=\(1, 2\): expected an integer, 0 or more"),
        (lambda: layers.Conv2D(1, 3, padding="same"), "padding='same': expected 'valid'"),
        (lambda: layers.Conv2D(1, 3, data_format="channels_first"), "expected 'channels_last'"),
        (lambda: layers.Conv2D(1, 3, pad_mode="same"), "pad_mode='same': expected 'zeros' or 'reflect'"),
        (lambda: layers.SpectralConv2D(1, 3, pad_mode="same"), "pad_mode='same': expected 'zeros' or 'reflect'"),
        (lambda: layers.SpectralConv2D(1, (3, 0)), r"kernel_size=\(3, 0\): expected one or two integers, 1 or more"),
        (lambda: layers.SpectralConv2D(1, 3, pad=(1, 1, 1)), r"pad=\(1, 1, 1\): expected one or two integers"),
        (lambda: layers.SpectralConv2D(1, 3, strides=0.5), "strides=0.5: expected one or two integers, 1 or more"),
        (lambda: layers.Conv2DTranspose(1, 3, pad=-1), "pad=-1: expected an integer, 0 or more"),
        (lambda: layers.Conv2DTranspose(1, 3, output_pad=1), "output_pad=1: expected at most pad=0"),
        (lambda: layers.Conv2DTranspose(1, 3, output_padding=1), "expected None; see `output_pad`"),
        (lambda: layers.ModulatedConv2D(2, 3, groups=2), "groups=2: expected 1"),
        (lambda: layers.ModulatedConv2D(1, 3, activation="tanh"), "activation=tanh: expected None"),
        (lambda: layers.SelfAttention(6, 4), "width=6: expected a multiple of heads=4"),
        (lambda: layers.Dropout(1.0), "rate=1.0: expected 0 or more, and less than 1"),
        (lambda: layers.LayerInstanceNormalization("bn"), "kind='bn': expected lin, in, ln or gn"),
        (lambda: layers.LayerInstanceNormalization(adaptive=True)(tf.ones(MAP)), "True: expected gamma and beta"),
        (lambda: layers.LayerInstanceNormalization()(tf.ones(MAP), *[tf.ones((2, 4))] * 2), "False: expected x alone"),
        (lambda: layers.InstanceNormalization()(tf.ones((2, 5, 4))), "expected ndim=4, found ndim=3"),
        (lambda: layers.Enlarge((2, 2)), r"factor=\(2, 2\): expected an integer, 1 or more"),
        (lambda: layers.Enlarge(0), "factor=0"),
    ],
)
def test_layers_refuse_what_they_cannot_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# LIN, AdaLIN, group norm


def mixed_norm(x, rho, groups, unbiased, epsilon=1e-5):
    """The formula, in numpy: rho of instance norm, the rest of norms over groups of channels."""
    x = x.astype(np.float64)
    n, h, w, c = x.shape
    own = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True, ddof=unbiased) + epsilon)
    parts = x.reshape(n, h, w, groups, c // groups)
    axes = (1, 2, 4)
    joint = (parts - parts.mean(axes, keepdims=True)) / np.sqrt(parts.var(axes, keepdims=True, ddof=unbiased) + epsilon)
    return rho * own + (1 - rho) * joint.reshape(x.shape)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("kind, groups", [("lin", 1), ("in", 4), ("ln", 1), ("gn", 2)])
def test_mixed_norm_is_its_formula(kind, groups, unbiased):
    draw = np.random.default_rng(0)
    x = (draw.normal(size=(2, 3, 5, 4)) * [1, 2, 3, 4] + [0, 5, -2, 1]).astype(np.float32)
    gamma, beta, rho = draw.uniform(0.2, 0.8, (3, 4)).astype(np.float32)
    layer = layers.LayerInstanceNormalization(kind, unbiased=unbiased)
    layer.build(x.shape)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    if kind == "lin":
        assert not layer.rho.numpy().any()
        layer.rho.assign(rho)
    share = {"lin": rho, "in": 1.0}.get(kind, 0.0)
    expected = mixed_norm(x, share, groups, unbiased) * gamma + beta
    np.testing.assert_allclose(layer(x), expected, atol=2e-6)
    # The same with gamma and beta of each sample from outside.
    given = layers.LayerInstanceNormalization(kind, adaptive=True, rho=0.9, smoothing=0.1, unbiased=unbiased)
    given.build(x.shape)
    share = {"lin": 0.8, "in": 1.0}.get(kind, 0.0)
    expected = mixed_norm(x, share, groups, unbiased)
    style = np.stack([gamma, 2 * gamma]), np.stack([beta, -beta])
    expected = expected * style[0][:, None, None] + style[1][:, None, None]
    np.testing.assert_allclose(given(x, *style), expected, atol=2e-6)
    assert len(given.weights) == (kind == "lin")


def test_mixed_norm_by_hand():
    """Channels (1, 3) and (5, 7): own means 2 and 6, variances 1; together 4 and 5."""
    x = np.array([1, 5, 3, 7], np.float32).reshape(1, 1, 2, 2)
    layer = layers.LayerInstanceNormalization(rho=0.25, epsilon=0.0)
    layer.build(x.shape)
    expected = 0.25 * np.array([-1, -1, 1, 1]) + 0.75 * np.array([-3, 1, -1, 3]) / 5**0.5
    np.testing.assert_allclose(layer(x).numpy().ravel(), expected, rtol=1e-6)


def test_mixed_norm_keeps_float32_statistics():
    x = np.random.default_rng(0).normal(100, 1, (1, 64, 64, 4)).astype(np.float32)
    exact = layers.LayerInstanceNormalization(rho=0.5)
    half = layers.LayerInstanceNormalization(rho=0.5, dtype="mixed_bfloat16")
    rounded = tf.cast(x, tf.bfloat16)
    result = half(rounded)
    assert result.dtype == tf.bfloat16 and half.rho.dtype == "float32"
    # Differs by the rounding of the result alone.
    np.testing.assert_allclose(tf.cast(result, tf.float32), exact(tf.cast(rounded, tf.float32)), rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(layers.InstanceNormalization, center=True, scale=True),
        layers.SampleNormalization,
        layers.BatchNormalization,
        layers.LayerInstanceNormalization,
        functools.partial(addons.GroupNormalization, groups=2),
        lambda dtype: layers.TransformerBlock(4, 2, 8, dtype=dtype).attend_norm,
    ],
    ids=["instance", "sample", "batch", "mixed", "group", "layer"],
)
def test_norms_round_their_result_alone(make, rng):
    """Their factors and offsets, and statistics, stay float32 where the rest computes in bfloat16."""
    x = tf.cast(rng.normal(5, 1, (2, 6, 6, 4)), tf.bfloat16)
    exact, half = make(dtype="float32"), make(dtype="mixed_bfloat16")
    for norm in (exact, half):
        norm.build(x.shape)
    # bfloat16 knows no number between 1 and 1 + 2⁻⁷.
    weights = [np.linspace(1, 1 + 2**-7, w.size).reshape(w.shape) for w in exact.get_weights()]
    exact.set_weights(weights)
    half.set_weights(weights)
    np.testing.assert_array_equal(half(x), tf.cast(exact(tf.cast(x, tf.float32)), tf.bfloat16))


@pytest.mark.parametrize("replicas, scaled", [(1, False), (1, True), (2, False)])  # loss scaling: one replica only
def test_rho_stays_within_0_and_1(replicas, scaled):
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(replicas)])
    with strategy.scope():
        layer = layers.LayerInstanceNormalization(rho=0.5)
        layer.build((None, None, None, 3))
        optimizer = optim.Adam(0.7)
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer
        optimizer.build([layer.rho])
    gradient = tf.constant([1.0, -1.0, 0.0])
    strategy.run(lambda: optimizer.apply([gradient], [layer.rho]))
    copies = [v.numpy() for v in strategy.experimental_local_results(layer.rho.value)]
    assert len(copies) == replicas
    for copy in copies:
        np.testing.assert_allclose(copy, [0, 1, 0.5])


# Spectral norm


def test_spectral_norm_finds_the_largest_singular_value():
    kernel = np.random.default_rng(0).normal(size=(2, 2, 3, 5)).astype(np.float32)
    layer = layers.SpectralNormalization(seed=3)
    layer.build(kernel.shape)
    assert all(np.linalg.norm(v.numpy()) == pytest.approx(1) for v in layer.weights)
    before = [v.numpy() for v in layer.weights]
    layer(kernel)
    np.testing.assert_array_equal(layer.u, before[0])  # moved by training only
    for _ in range(100):
        result = layer(kernel, training=True)
    largest = np.linalg.svd(kernel.reshape(12, 5))[1][0]
    np.testing.assert_allclose(result, kernel / largest, rtol=1e-5)
    np.testing.assert_allclose(layer(kernel), kernel / largest, rtol=1e-5)
    assert not layer.trainable_variables and all(v.aggregation == "only_first_replica" for v in layer.weights)


def test_spectral_norm_of_one_column_by_hand():
    """w / ‖w‖; the gradient of its first component is (1 - ŵ₁², -ŵ₁ ŵ₂) / ‖w‖."""
    layer = layers.SpectralNormalization()
    w = tf.Variable([[3.0], [4.0]])
    layer.build(w.shape)
    with tf.GradientTape() as tape:
        y = layer(tf.convert_to_tensor(w), training=True)
        first = y[0]
    np.testing.assert_allclose(y, [[0.6], [0.8]], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(first, w), [[0.64 / 5], [-0.48 / 5]], rtol=1e-5)


def test_spectral_convolution():
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 2)).astype(np.float32)
    layer = layers.SpectralConv2D(3, 4, 1, (1, 2), seed=1)
    y = layer(x, training=True)
    assert y.shape == (1, 5, 6, 3) == layer.compute_output_shape(x.shape)
    padded = np.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)), mode="reflect")
    kernel = layer.spectral(layer.kernel.value)
    np.testing.assert_allclose(y, tf.nn.conv2d(padded, kernel, 1, "VALID"), atol=1e-5)


def test_spectral_convolution_takes_a_number_or_a_pair():
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 2)).astype(np.float32)
    number, pair = layers.SpectralConv2D(3, 3, 2, 1), layers.SpectralConv2D(3, (3, 3), [2, 2], (1, 1))
    np.testing.assert_array_equal(number(x), pair(x))
    layer = layers.SpectralConv2D(3, (2, 4), (1, 2), (0, 1), "zeros")
    y = layer(x)
    assert layer.kernel.shape == (2, 4, 2, 3) and y.shape == (1, 5, 2, 3) == layer.compute_output_shape(x.shape)
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    expected = tf.nn.conv2d(padded, layer.spectral(layer.kernel.value), (1, 2), "VALID")
    np.testing.assert_allclose(y, expected, atol=1e-5)
