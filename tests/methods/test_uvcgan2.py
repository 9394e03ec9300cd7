"""UVCGAN v2 and its pre-training against hand-made answers and what the official code computed."""

import dataclasses
import functools
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import interpreter
from ai_edge_litert.tools import flatbuffer_utils
from tfi2i.export import litert

import tfi2i
from tests import torch_names
from tests.marks import thorough
from tfi2i import UVCGAN2, layers, settings
from tfi2i.config import UserError
from tfi2i.methods.uvcgan2 import config as uvcgan2_config
from tfi2i.methods.uvcgan2 import model as uvcgan2
from tfi2i.methods.uvcgan2 import published
from tfi2i.methods.uvcgan2.pretraining import Inpainting
from tfi2i.optim import Schedule
from tfi2i.training import loop, strategies

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
# A model that is quickly built and traced, see tests/test_conformance.py.
TINY = {
    "generator_width": 4, "generator_levels": 2, "vit_width": 8, "vit_heads": 2, "vit_blocks": 1, "vit_ffn_width": 8,
    "discriminator_width": 4, "discriminator_layers": 2, "consistency_size": 8,
    # What ReZero holds back hardly moves in a few steps at the published rate.
    "learning_rate": 1e-2,
}  # fmt: skip
SIDE = 16
SAMPLEWISE = {"discriminator_head": "none"}
# What the official code's steps were recorded with.
RECORDED = {
    "generator_width": 2, "generator_levels": 2, "vit_width": 4, "vit_heads": 2, "vit_blocks": 1, "vit_ffn_width": 6,
    "discriminator_width": 2, "discriminator_layers": 2, "consistency_size": 8, "consistency_resize": "bilinear",
    "lambda_b": 5.0, "lambda_gp": 1.0, "ema_momentum": 0.75, "learning_rate": 1e-3, "discriminator_learning_rate": 1e-3,
}  # fmt: skip


def ready(n=1, side=SIDE, **options):
    """A model with optimizers, ready for `train_step` on batches of `n` images."""
    model = UVCGAN2(**options)
    model.compile()
    model.build_for_training((n, side, side, 3), (n, side, side, 3))
    model.build_optimizers()
    return model


def images(side=SIDE, n=1, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(0, 1, (n, side, side, 3)).astype("float32"))


def shake(layer, seed=0, scale=0.3):
    """Random values for all variables, so that nothing hides behind a factor that starts at 0."""
    draw = np.random.default_rng(seed)
    for v in layer.variables:
        if v.dtype == "float32":
            v.assign(draw.normal(0, scale, v.shape))


# Networks


def test_a_litert_file_has_no_operation_on_constants_alone():
    """LiteRT 2.3.0 takes such operations on a GPU and reads their results as zeros."""
    # The converter computes small constants by itself; the position code of this one has 64 x 96 values.
    model = UVCGAN2(**TINY | {"vit_width": 96})
    model.build((None, None, None, 3))
    file = litert.convert(model, "a2b", (32, 32))
    content = flatbuffer_utils.read_model_from_bytearray(bytearray(file))
    (graph,) = content.subgraphs
    constants = {i for i, tensor in enumerate(graph.tensors) if content.buffers[tensor.buffer].data is not None}
    names = [flatbuffer_utils.opcode_to_name(content, o.opcodeIndex) for o in graph.operators]
    assert "CONV_2D" in names
    assert [name for name, o in zip(names, graph.operators) if constants >= {*o.inputs} - {-1}] == []


def test_a_litert_file_of_a_mirrored_width_takes_no_other():
    """18 columns are mirrored to 20; in [0, 1] there is one constant a side, and columns that are gathered hide it."""
    model = UVCGAN2(**TINY)
    model.build((None, None, None, 3))
    file = litert.convert(model, "a2b", (16, 18))
    for shape in ((1, 16, 18, 3), (2, 16, 18, 3)):
        run = interpreter.Interpreter(model_content=file)
        run.resize_tensor_input(run.get_input_details()[0]["index"], shape)
        run.allocate_tensors()
    for height, width in ((16, 16), (16, 20), (16, 36), (32, 18), (20, 18)):
        run = interpreter.Interpreter(model_content=file)
        run.resize_tensor_input(run.get_input_details()[0]["index"], (1, height, width, 3))
        with pytest.raises((RuntimeError, ValueError)):
            run.allocate_tensors()


def test_parameters(monkeypatch):
    zeros = lambda *_: "zeros"  # noqa: E731  quick, and enough to be counted
    monkeypatch.setattr("tfi2i.layers.network.initializer", zeros)
    monkeypatch.setattr("tfi2i.layers.spectral.initializer", zeros)
    monkeypatch.setattr("tfi2i.layers.SpectralNormalization.warm_up", lambda *_: None)

    def count(layer, shape=(None, None, None, 3)):
        layer.build(shape)
        return sum(int(np.prod(v.shape)) for v in layer.trainable_variables)

    model = UVCGAN2()
    assert count(model.generator_a2b) == 32_192_231
    assert count(model.discriminator_a) == 5_125_569
    assert count(UVCGAN2(discriminator_head="bn").discriminator_b) == 5_121_985


def test_any_multiple_of_the_levels_goes_square_or_not():
    model = UVCGAN2(**TINY)
    for h, w in ((4, 4), (8, 20), (28, 12)):
        y = model.generators["a2b"](tf.zeros((2, h, w, 3)))
        assert y.shape == (2, h, w, 3) and y.dtype == tf.float32
    sizes = UVCGAN2(**TINY | {"generator_levels": 4}).sizes
    assert (sizes.multiple, sizes.minimum, sizes.crop_minimum) == (16, 16, 16)


def test_positions_are_rows_then_columns_from_minus_1_to_1():
    np.testing.assert_allclose(
        uvcgan2._positions(2, 3), [[-1, -1], [-1, 0], [-1, 1], [1, -1], [1, 0], [1, 1]], atol=1e-7
    )
    np.testing.assert_allclose(uvcgan2._positions(1, 1), [[-1, -1]])


def test_new_generator_is_its_unet_and_answers_grey():
    model = UVCGAN2(**TINY)
    x = images(8)
    assert np.abs(model.generator_a2b(x).numpy() - 0.5).max() < 1e-3
    block = layers.TransformerBlock(4, 2, 8)
    tokens = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32"))
    np.testing.assert_array_equal(block(tokens), tokens)


def test_modulated_convolution_is_its_formula():
    layer = layers.ModulatedConv2D(5, 3, pad=1)
    x, scale = images(6, 2), tf.constant([[1.0, 2.0, -0.5], [0.0, 1.0, 3.0]])
    layer.build(x.shape)
    shake(layer)
    kernel, bias = layer.kernel.numpy(), layer.bias.numpy()
    y = tf.nn.conv2d(x * scale[:, None, None], kernel, 1, "SAME") + bias
    # Equal to a convolution with the scaled kernel of unit norm, but for the bias, which is scaled along.
    norm = np.sqrt((np.square(kernel)[None] * np.square(scale)[:, None, None, :, None]).sum((1, 2, 3)) + 1e-6)
    np.testing.assert_allclose(layer(x, scale), y / norm[:, None, None], rtol=1e-5, atol=1e-6)


def test_attention_equals_keras_own():
    ours = layers.attention.SelfAttention(6, 2)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 6)).astype("float32"))
    ours(x)
    shake(ours)
    theirs = keras.layers.MultiHeadAttention(2, 3)
    theirs.build(x.shape, x.shape)
    kernel, bias = (v.numpy() for v in ours.project.weights)
    parts = [
        w for k, b in zip(np.split(kernel, 3, -1), np.split(bias, 3)) for w in (k.reshape(6, 2, 3), b.reshape(2, 3))
    ]
    out_kernel, out_bias = (v.numpy() for v in ours.join.weights)
    theirs.set_weights([*parts, out_kernel.reshape(2, 3, 6), out_bias])
    np.testing.assert_allclose(ours(x), theirs(x, x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("init", ["normal", "kaiming"])
def test_initial_weights(init):
    model = UVCGAN2(
        generator_width=16,
        generator_levels=2,
        vit_width=64,
        vit_blocks=1,
        vit_heads=4,
        discriminator_width=16,
        init=init,
    )
    model.build((None, None, None, 3))
    for name, network in model.networks.items():
        for layer in network._flatten_layers():
            kernel = getattr(layer, "kernel", None)
            if kernel is None or kernel.numpy().size < 2_000:
                continue
            expected = 0.02 if init == "normal" else (2 / np.prod(kernel.shape[:-1])) ** 0.5
            bias = layer.bias.numpy()
            if ".head" in layer.path or "/head_" in layer.path:
                expected = (3 * np.prod(kernel.shape[:3])) ** -0.5
                assert np.abs(bias).max() <= 3**0.5 * expected and bias.any()
            elif kernel.shape == (64, 192):
                expected = (2 / (64 + 192)) ** 0.5
            assert kernel.numpy().std() == pytest.approx(expected, rel=0.06), (name, layer.path)
    assert model.generator_a2b.bottleneck.token.numpy().std() == pytest.approx(1, rel=0.25)


def test_any_seed_builds():
    UVCGAN2(seed=2**31 - 1, **TINY).build((None, None, None, 3))


def test_discriminator_sizes():
    def judge(side=32, **options):
        network = UVCGAN2(**TINY | {"discriminator_layers": 3} | options).discriminator_a
        return [y.shape[1:] for y in network(tf.zeros((1, side, side, 3)))]

    assert judge(64) == [(7, 7, 1), (7, 7, 32)]
    assert judge(64, discriminator_head="none") == [(6, 6, 1), (7, 7, 32)]
    assert judge(discriminator="pixel") == [(32, 32, 1), (32, 32, 8)]
    assert judge(discriminator="pixel", discriminator_head="none", spectral_norm=False)[0] == (32, 32, 1)


# Heads and caches


def head(kind, channels=2):
    network = uvcgan2.BatchHead(kind, channels)
    network.build((None, None, None, channels))
    shake(network)
    return network


def test_deviation_of_one_sample_is_the_root_of_epsilon():
    network, seen = head("bsd"), []
    inner = network.inner
    network.inner = lambda y: (seen.append(y), inner(y))[1]
    x = tf.constant(np.random.default_rng(0).normal(size=(1, 3, 3, 2)).astype("float32"))
    network(x)
    np.testing.assert_allclose(seen[-1][..., 2], np.full((1, 3, 3), 1e-3), rtol=1e-6)
    # Two samples, ±1 around their mean at every place.
    network(tf.concat([x, x + 2], axis=0))
    np.testing.assert_allclose(seen[-1][..., 2], np.ones((2, 3, 3)), rtol=1e-5)


def test_batch_norm_of_the_head_is_float32_in_mixed_precision():
    x, seen = tf.cast(tf.random.stateless_normal((2, 3, 4, 2), (0, 1)), "bfloat16"), []
    for dtype in ("float32", "mixed_bfloat16"):
        network = uvcgan2.BatchHead("bn", 2, dtype=dtype)
        network.build((None, None, None, 2))
        network.gamma.assign([1.001, 1.002])  # which bfloat16 does not know
        network.inner = lambda y: (seen.append(y), tf.zeros_like(y))[1]
        network(x)
    assert seen[1].dtype == "float32"
    np.testing.assert_array_equal(*seen)


@pytest.mark.parametrize("kind", ["bsd", "bn"])
def test_cached_samples_count_as_samples_of_the_batch_where_filled(kind):
    network = head(kind)
    draw = np.random.default_rng(1)
    x, old = (tf.constant(draw.normal(size=(n, 3, 4, 2)).astype("float32")) for n in (2, 3))
    for filled in ([0, 0, 0], [0, 0, 1], [1, 1, 1]):
        kept = tf.boolean_mask(old, np.array(filled, bool))
        expected = network(tf.concat([x, kept], axis=0))[:2]
        result = network(x, (old, tf.constant(filled, tf.float32)))
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(network(x) - expected).max() > 1e-3


def test_cache_keeps_the_newest():
    cache = uvcgan2.FeatureCache(3)
    cache.build((None, 1, 1, 1))
    stored, number = [], 1.0
    for n in (1, 1, 2, 5, 1, 3):
        new = [number + i for i in range(n)]
        cache.push(tf.reshape(tf.constant(new), (-1, 1, 1, 1)), tf.range(n))
        stored, number = (stored + new)[-3:], number + n
        features, filled = (x.numpy().ravel() for x in cache.read())
        np.testing.assert_array_equal(features[filled == 1], stored)
        assert list(filled) == sorted(filled)


def test_switches_without_caches():
    assert not UVCGAN2(**TINY, cache_size=0).caches
    assert not UVCGAN2(**TINY, discriminator_head="none").caches
    assert len(UVCGAN2(**TINY, discriminator_head="bn").caches) == 4


# Losses


def zeroed(**options):
    """Zero weights: generators answer 0.5; discriminators answer their last bias, 0.25 (A) and 0.5 (B)."""
    model = UVCGAN2(**TINY | options, discriminator_head="none", spectral_norm=False)
    model.build((None, None, None, 3))
    for v in model.trainable_variables:
        v.assign(tf.zeros(v.shape))
    for network, bias in ((model.discriminator_a, 0.25), (model.discriminator_b, 0.5)):
        network.last.bias.assign([bias])
    return model


def test_constant_images_give_losses_known_by_hand():
    weights = {"lambda_gan": 2.0, "lambda_a": 3.0, "lambda_b": 5.0, "lambda_identity": 7.0, "lambda_consistency": 11.0}
    model = zeroed(**weights)
    a, b = tf.fill((1, 16, 16, 3), 0.6), tf.fill((1, 16, 16, 3), 0.25)
    losses, _ = model.generator_phase(a, b, {})
    assert {k: float(v) for k, v in losses.items()} == pytest.approx({
        "gan_a2b": 2 * 0.5**2, "gan_b2a": 2 * 0.75**2, "cycle_a": 3 * 0.1, "cycle_b": 5 * 0.25,
        "identity_a": 3 * 7 * 0.1, "identity_b": 5 * 7 * 0.25,
        "consistency_a": 3 * 11 * 0.1, "consistency_b": 5 * 11 * 0.25,
    }, rel=1e-5)  # fmt: skip
    model.config = dataclasses.replace(model.config, consistency_relative=False)
    losses, _ = model.generator_phase(a, b, {})
    assert float(losses["consistency_a"]) == pytest.approx(11 * 0.1, rel=1e-5)
    losses, _ = model.discriminator_phase(a, b, b, a, tf.constant([0.25]), tf.constant([0.5]), {})
    assert {k: float(v) for k, v in losses.items()} == pytest.approx({
        "discriminator_a": 0.5 * (0.75**2 + 0.25**2), "discriminator_b": 0.5 * (0.5**2 + 0.5**2),
        "penalty_a": 0, "penalty_b": 0,
    })  # fmt: skip


def linear_pixel():
    """Discriminators of 1×1 convolutions without norm: D(x) = 3 x₀ at every pixel where x₀ > 0."""
    parts = {"discriminator": "pixel", "discriminator_head": "none", "spectral_norm": False, "lambda_gp": 2.0}
    model = UVCGAN2(**TINY, **parts)
    for network in (model.discriminator_a, model.discriminator_b):
        network.build((None, None, None, 3))
        for v in network.trainable_variables:
            v.assign(tf.zeros(v.shape))
        for conv, weight in zip((*network.trunk, network.last), (3.0, 1.0, 1.0)):
            conv.kernel.assign(np.eye(*conv.kernel.shape[2:])[None, None] * weight)
    return model


def test_penalties_by_hand(monkeypatch):
    monkeypatch.setattr(layers.InstanceNormalization, "call", lambda self, x, training=False: x)
    a, b = images(4, 2), images(4, 2, seed=1)
    alpha = tf.constant([0.25, 0.5])
    model = linear_pixel()

    def penalty(domain, **options):
        model.config = dataclasses.replace(model.config, **options)
        losses, _ = model.discriminator_phase(a, b, b, a, alpha, alpha, {})
        return float(losses[f"penalty_{domain}"])

    # The gradient of the mean over 16 pixels is 3/16 at each, its square summed over 16 pixels 9/16.
    assert penalty("a") == pytest.approx(2 * 9 / 16, rel=1e-5)
    assert penalty("b", gp_center=1.0) == pytest.approx(2 * (0.75 - 1) ** 2, rel=1e-5)
    # v1: the gradient of the sum has length 3 · 4.
    assert penalty("b", gp_form="uvcgan", gp_center=10.0) == pytest.approx(2 * (12 - 10) ** 2 / 100, rel=1e-5)


@pytest.mark.parametrize("form", ["uvcgan2", "uvcgan"])
def test_one_mixing_factor_a_batch_in_v2_one_a_sample_in_v1(form):
    model = UVCGAN2(**TINY, gp_form=form, gp_center=1.0, cache_size=0, ema_momentum=0.0)
    seen = []

    def phase(compute, role, remembered, **inputs):
        seen.append(inputs)
        return {}, {"fake_a": inputs["a"], "fake_b": inputs["b"]}

    model.phase = phase
    for _ in range(2):
        model.train_step((images(n=3), images(n=3, seed=1)))
    drawn = np.array([x[f"alpha_{d}"] for x in seen for d in "ab" if "alpha_a" in x])
    assert drawn.shape == (4, 3) and len(set(drawn[:, 0])) == 4
    assert (len(set(drawn[0])) == 1) == (form == "uvcgan2")


def test_shrinking():
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 16, 8, 3)).astype("float32"))
    area = uvcgan2.shrink(x, 2, "area")
    np.testing.assert_allclose(area, x.numpy().reshape(2, 2, 8, 2, 4, 3).mean((2, 4)), atol=1e-6)
    middle = x.numpy().reshape(2, 2, 8, 2, 4, 3)[:, :, 3:5, :, 1:3].mean((2, 4))
    np.testing.assert_allclose(uvcgan2.shrink(x, 2, "bilinear"), middle, atol=1e-6)
    np.testing.assert_allclose(uvcgan2.shrink(x, 3, "bilinear"), tf.image.resize(x, (3, 3), "bilinear"), atol=1e-5)
    np.testing.assert_array_equal(uvcgan2.shrink(x, 32, "area"), x)
    # 8 columns in 3: cells of 2 2/3.
    row = uvcgan2.shrink(tf.reshape(tf.range(8.0), (1, 1, 8, 1)), 3, "area").numpy().ravel()
    np.testing.assert_allclose(row, [(0 + 1 + 2 * 2 / 3) * 3 / 8, 3.5, (7 + 6 + 5 * 2 / 3) * 3 / 8], rtol=1e-6)


def test_the_wrong_range_is_noticed():
    model = UVCGAN2(**TINY)
    assert model.value_range == (0.0, 1.0)
    y = model.generator_a2b(images() * 100)
    assert 0 <= float(tf.reduce_min(y)) and float(tf.reduce_max(y)) <= 1
    with pytest.raises(ValueError, match=r"this method's range is \[0, 1\]"):
        model.translate(images().numpy() * 2 - 1)
    np.testing.assert_array_equal(model.to_float(tf.constant([0, 255], tf.uint8)), [0, 1])
    np.testing.assert_array_equal(model.to_pixels(tf.constant([0.0, 0.5, 1.0])), [0, 128, 255])


# Steps


@pytest.fixture(scope="module")
def two_steps():
    """A model that took two steps, and its variables before them and after each: dicts of path → array."""
    # So slow that the discriminators stand still, but for what spectral norm moves.
    model = ready(n=2, **TINY, ema_momentum=0.75, discriminator_learning_rate=1e-12)
    states = []
    for seed in range(3):
        states.append({v.path: keras.ops.convert_to_numpy(v) for v in model.variables})
        assert len(states[-1]) == len(model.variables)
        if seed < 2:
            model.train_step((images(n=2, seed=seed), images(n=2, seed=seed + 5)))
    return model, states


def test_step_moves_averages_towards_the_new_generators(two_steps):
    model, states = two_steps
    average = model.averages["generator_a2b_average"]
    pairs = [(a.path, v.path) for a, v in zip(average.averages, model.generator_a2b.variables, strict=True)]
    for averaged, online in pairs:
        np.testing.assert_array_equal(states[0][averaged], states[0][online])
        for before, after in zip(states, states[1:]):
            expected = 0.75 * before[averaged] + 0.25 * after[online]
            np.testing.assert_allclose(after[averaged], expected, rtol=1e-5, atol=1e-7)
    assert not average.trainable_variables
    assert not any("average" in v.path for v in model.weights_of("generator"))


def test_averages_translate(two_steps):
    model, _ = two_steps
    other = uvcgan2.make_generator(model.config, 3)
    other.build((None, None, None, 3))
    for v, value in zip(other.variables, model.averages["generator_a2b_average"].averages, strict=True):
        v.assign(value)
    x = images(seed=9)
    np.testing.assert_allclose(model(x), other(x), rtol=1e-6)
    assert np.abs(model(x) - model.generator_a2b(x)).max() > 1e-4


def test_without_averages_the_generators_translate():
    model = UVCGAN2(**TINY, ema_momentum=0.0)
    model.build((None, None, None, 3))
    assert not model.averages and not any("average" in v.path for v in model.variables)
    np.testing.assert_array_equal(model(images()), model.generator_a2b(images()))


def test_rates_of_both_optimizers():
    model = UVCGAN2(**TINY | {"learning_rate": 5e-5, "discriminator_learning_rate": 2e-4})
    model.compile()
    assert float(model.generator_optimizer.learning_rate) == pytest.approx(5e-5)
    assert float(model.discriminator_optimizer.learning_rate) == pytest.approx(2e-4)


def test_four_power_iterations_a_step(two_steps):
    model, states = two_steps
    conv = model.discriminator_b.trunk[1]
    w = states[0][conv.kernel.path].reshape(-1, conv.filters)
    v = states[0][conv.spectral.v.path]
    for _ in range(4):  # the generators' pass, penalty, real, translated
        u = v @ w / np.linalg.norm(v @ w)
        v = w @ u / np.linalg.norm(w @ u)
    np.testing.assert_allclose(states[1][conv.spectral.u.path], u, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(states[1][conv.spectral.v.path], v, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("xla", [False, True])
def test_transformer_blocks_are_traced_once_unless_xla_compiles_the_step(xla, monkeypatch):
    function_of, asked = layers.TracedOnce.function_of, []
    monkeypatch.setattr(layers.TracedOnce, "function_of", lambda *known: asked.append(known[1]) or function_of(*known))
    model = ready(**TINY)
    model.switch_xla(xla)
    tf.function(model.train_step, autograph=False).get_concrete_function((images(), images()))
    blocks = [g.bottleneck.blocks[0] for g in (model.generator_a2b, model.generator_b2a)]
    # One call translates and keeps, the other brings the translation back.
    assert sorted(map(id, asked)) == ([] if xla else sorted(2 * [*map(id, blocks)]))


def test_caches_hold_what_the_discriminators_step_saw(two_steps):
    model, (_, first, second) = two_steps
    for state, count in ((first, 2), (second, 3)):
        assert [int(state[c.count.path]) for c in model.caches.values()] == [count] * 4
    features = {n: first[c.features.path][1:] for n, c in model.caches.items()}
    assert all(np.abs(x).max() > 0 for x in features.values())
    assert np.abs(features["real_b"] - features["fake_b"]).max() > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {"discriminator_head": "bn", "gp_at": "real"},
        {"discriminator": "pixel", "discriminator_head": "bn", "gp_at": "fake", "consistency_resize": "bilinear"},
        {"style": False, "norm": "instance", "gan_loss": "vanilla", "lambda_gp": 0.0, "pool_size": 2},
        {"lambda_gan": 0.0, "lambda_identity": 0.0, "lambda_consistency": 0.0, "norm": "instance"},
        {"gp_form": "uvcgan", "gp_center": 100.0, "ema_momentum": 0.0, "vit_blocks": 0},
    ],
)
def test_options_learn(options):
    model = ready(n=2, **TINY | {"generator_levels": 1} | options)
    losses = model.train_step((images(n=2), images(n=2, seed=5)))
    assert all(np.isfinite(float(v)) for v in losses.values())
    assert any("discriminator" in n for n in losses) == bool(model.config.lambda_gan)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"vit_width": 10, "vit_heads": 3}, "--vit_heads=3 cannot share --vit_width=10"),
        ({"gp_form": "uvcgan"}, "--gp_center"),
        ({"ema_momentum": 1.0}, "--ema_momentum=1.0"),
        ({"lambda_gan": 0.0, "lambda_a": 0.0, "lambda_b": 0.0}, "nothing is left to learn"),
        ({"discriminator_head": "idt"}, "expected one of bsd, bn, none"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UserError, match=message):
        uvcgan2_config.UVCGAN2(**options)


def test_different_channels_need_both_comparisons_off():
    with pytest.raises(UserError, match="--lambda_identity=0.5"):
        UVCGAN2(channels_b=1)
    with pytest.raises(UserError, match="--lambda_consistency=0.2"):
        UVCGAN2(channels_b=1, lambda_identity=0.0)
    model = UVCGAN2(channels_b=1, lambda_identity=0.0, lambda_consistency=0.0, **TINY)
    assert model.generate(images()).shape == (1, SIDE, SIDE, 1)


# What the official code computed (tests/golden/README.md)


def golden(name):
    return np.load(GOLDEN / f"uvcgan2_{name}.npz")


def test_official_generator():
    file = golden("generator_modnet")
    network = uvcgan2.Generator(3, 1, 4, "none", True, (8, 2, 2, 12))
    network.build((None, None, None, 3))
    torch_names.load_recorded(network, published.generator(network), file, "weights")
    for side in (32, 48):
        y = network(tf.constant(file[f"input/{side}"]))
        np.testing.assert_allclose(y[:, ::3, ::3], file[f"output/{side}"], atol=1e-5)


@functools.cache
def of_head(kind):
    """A model of which only discriminator A is built, as wide and deep as the recorded one."""
    model = UVCGAN2(**TINY | {"discriminator_width": 2, "discriminator_layers": 3}, discriminator_head=kind)
    model.discriminator_a.build((None, None, None, 3))
    return model


def official_discriminator(kind, file):
    """Discriminator A of `of_head(kind)` with the recorded weights, which calls move."""
    network = of_head(kind).discriminator_a
    torch_names.load_recorded(network, published.discriminator(network), file, f"weights/{kind}")
    return network


def official_cache(file, kind, filled, name="real"):
    mask = tf.constant([0.0] * (3 - filled) + [1.0] * filled)
    return tf.constant(file[f"cache/{kind}/{name}"]), mask


@pytest.mark.parametrize("filled", [0, 1, 3])
@pytest.mark.parametrize("kind", ["bsd", "bn"])
def test_official_discriminators_with_cold_and_warm_caches(kind, filled):
    file = golden("discriminator")
    network = official_discriminator(kind, file)
    logits, features = network(tf.constant(file["real"]), official_cache(file, kind, filled))
    np.testing.assert_allclose(logits, file[f"logits/{kind}/{filled}"], atol=1e-5)
    np.testing.assert_allclose(features, file[f"features/{kind}"], atol=1e-5)
    for variable, array, key in torch_names.recorded(
        published.discriminator(network), file, f"after/{kind}", f"weights/{kind}"
    ):
        np.testing.assert_allclose(variable, array, atol=2e-6, err_msg=key)
    if not filled:
        alone, _ = official_discriminator(kind, file)(tf.constant(file["real"]))
        np.testing.assert_allclose(alone, logits, atol=1e-6)


@pytest.mark.parametrize("filled", [0, 3])
@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize("kind", ["bsd", "bn"])
def test_official_penalties(kind, center, filled):
    file = golden("discriminator")
    model, network = of_head(kind), official_discriminator(kind, file)
    model.config = dataclasses.replace(model.config, gp_center=center)
    alpha, cache = float(file["alpha"][0]), None
    if filled:
        real, fake = (official_cache(file, kind, 3, name) for name in ("real", "fake"))
        cache = alpha * real[0] + (1 - alpha) * fake[0], real[1]
    with tf.GradientTape() as tape:
        penalty = model._penalty(network, tf.constant(alpha * file["real"] + (1 - alpha) * file["fake"]), cache)
    np.testing.assert_allclose(penalty, file[f"penalty/{kind}/{center}/{filled}"], rtol=1e-4)
    if (center, filled) == (1, 3):
        kernels = {k: p for k, p in published.discriminator(network).items() if k.endswith("original")}
        recorded = torch_names.recorded(kernels, file, f"penalty_gradients/{kind}")
        assert len(recorded) == len(kernels)
        gradients = tape.gradient(penalty, [v.value for v, _, _ in recorded])
        for (_, array, key), gradient in zip(recorded, gradients):
            assert np.linalg.norm(gradient - array) <= 1e-4 * np.linalg.norm(array), key


# Our loss → theirs; weights are included in both.
LOSSES = {
    "gan_a2b": "gen_ab", "gan_b2a": "gen_ba", "cycle_a": "cycle_a", "cycle_b": "cycle_b", "identity_a": "idt_a",
    "identity_b": "idt_b", "consistency_a": "consist_a", "consistency_b": "consist_b", "discriminator_a": "disc_a",
    "discriminator_b": "disc_b", "penalty_a": "gp_a", "penalty_b": "gp_b",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["bsd", thorough("bn")])
def test_three_official_steps(kind, monkeypatch):
    """Losses of steps with an empty cache, one, two samples in it; what the first one does to the weights."""
    file = golden("steps")
    model = ready(side=32, **RECORDED, discriminator_head=kind)
    networks = {"gen_ab": "generator_a2b", "gen_ba": "generator_b2a"} | {
        f"disc_{d}": f"discriminator_{d}" for d in "ab"
    }
    places = published.layout(model)
    for net, ours in networks.items():
        first = "weights_bn" if kind == "bn" and ours.startswith("discriminator") else "weights"
        torch_names.load_recorded(model.networks[ours], places[net], file, f"{first}/{net}", f"weights/{net}")
    for average in model.averages.values():
        average.restart()
    alpha = iter(file["alpha"])
    monkeypatch.setattr(layers, "uniform", lambda seeds: tf.constant([next(alpha)]))
    gradients = torch_names.watch_gradients(model)
    for k in (1, 2, 3):
        losses = model.train_step([tf.constant(file[f"real_{d}"][k - 1 : k]) for d in "ab"])
        theirs = dict(zip(map(str, file["loss_names"]), file[f"losses{k}/{kind}"]))
        assert {LOSSES[n] for n in losses} == set(theirs)
        for name, value in losses.items():
            np.testing.assert_allclose(
                value, theirs[LOSSES[name]], rtol=2e-5 if k == 1 else 1e-3, err_msg=f"{k} {name}"
            )
        if (k, kind) == (1, "bsd"):
            for net in networks:
                recorded = torch_names.recorded(places[net], file, f"gradients1/{net}")
                ours, array = (
                    np.concatenate([x.ravel() for x in x])
                    for x in zip(*[(gradients[id(v)], g) for v, g, _ in recorded])
                )
                assert np.linalg.norm(ours - array) <= 1e-4 * np.linalg.norm(array), net
            for net in ("gen_ab", "disc_b"):
                for variable, array, key in torch_names.recorded(places[net], file, f"after1/{net}"):
                    # Biases of the attention's keys and before a norm have gradient 0 but for rounding.
                    if key.endswith(("in_proj_bias", "body.model.2.bias", "body.model.5.bias")):
                        continue
                    np.testing.assert_allclose(variable, array, rtol=0, atol=2e-5, err_msg=f"{net} {key}")
            averages = torch_names.recorded(places["avg_gen_ab"], file, "average1")
            assert len(averages) == 1
            np.testing.assert_allclose(averages[0][0], averages[0][1], atol=1e-5)


# Pre-training


GENERATORS = ("generator_a2b", "generator_b2a", "generator_a2b_average", "generator_b2a_average")
FIRST = {n: v for n, v in TINY.items() if n.startswith(("generator", "vit"))} | {"mask_patch": 4}


def pretraining(n=2, **options):
    """A pre-training with its optimizer, ready for `train_step`."""
    model = Inpainting(**FIRST | {"learning_rate": 1e-3} | options)
    model.compile()
    model.build_for_training((n, SIDE, SIDE, 3), (n, SIDE, SIDE, 3))
    model.build_optimizers()
    return model


def test_masks_blacken_patches():
    seeds = layers.sample_seeds(0, 0, tf.range(8), "mask")
    kept = Inpainting(**FIRST).draw_kept(seeds, (8, 16, 16, 3)).numpy()
    assert kept.shape == (8, 16, 16, 1) and set(np.unique(kept)) == {0.0, 1.0}
    patches = kept.reshape(8, 4, 4, 4, 4).transpose(0, 1, 3, 2, 4).reshape(128, -1)
    assert (patches.std(1) == 0).all()
    assert (patches.mean(1) == 0).mean() == pytest.approx(0.4, abs=0.1)
    assert not np.array_equal(kept[0], kept[1])
    # A size that is no multiple of the patch; all and none.
    assert Inpainting(mask_patch=5).draw_kept(seeds, (8, 16, 12, 3)).shape == (8, 16, 12, 1)
    assert not Inpainting(mask_fraction=1.0).draw_kept(seeds, (8, 4, 4, 3)).numpy().any()
    assert Inpainting(mask_fraction=0.0).draw_kept(seeds, (8, 4, 4, 3)).numpy().all()


def test_masks_belong_to_steps_domains_and_positions_in_the_global_batch():
    model, seen = Inpainting(**FIRST), []
    model.phase = lambda compute, role, **inputs: (seen.append(inputs), ({}, {}))[1]
    model.learn(images(n=4), images(n=4), indices=tf.range(4))
    model.learn(images(n=2), images(n=2), indices=tf.range(2, 4))
    model.step.assign(1)
    model.learn(images(n=4), images(n=4), indices=tf.range(4))
    every, half, later = seen
    for name in ("kept_a", "kept_b"):
        np.testing.assert_array_equal(every[name][2:], half[name])
        assert not np.array_equal(every[name], later[name])
    assert not np.array_equal(every["kept_a"], every["kept_b"])


def test_restoring_is_learned_over_all_pixels_of_both_domains():
    model, seen = Inpainting(**FIRST), []
    model.build((None, None, None, 3))
    for v in model.trainable_variables:
        v.assign(tf.zeros(v.shape))
    generator = model.generator
    object.__setattr__(model, "generator", lambda x, training: (seen.append(x), generator(x, training=training))[1])
    a, b, kept = tf.fill((2, 8, 8, 3), 0.75), tf.fill((2, 8, 8, 3), 0.1), tf.zeros((2, 8, 8, 1))
    losses, _ = model.reconstruct(a, b, kept, 1 - kept)
    assert {k: float(v) for k, v in losses.items()} == pytest.approx({"inpainting_a": 0.25, "inpainting_b": 0.4})
    np.testing.assert_array_equal(seen, [tf.zeros_like(a), b])


def test_weight_decay_is_adamw():
    """A weight without a gradient shrinks by rate times decay, and by nothing else."""
    model = pretraining(weight_decay=0.5, learning_rate=0.1)
    optimizer, weights = model.generator_optimizer, model.weights_of("generator")
    before = [v.numpy() for v in weights]
    optimizer.apply([tf.zeros(v.shape) for v in weights], weights)
    for v, start in zip(weights, before):
        np.testing.assert_allclose(v, start * 0.95, rtol=1e-6)


def run_settings(**given):
    """A whole run of UVCGAN v2 on the bundled sample, or of its pre-training."""
    own = FIRST if given.get("task") == "pretrain" else TINY
    shared = {"data": "emoji", "resize": (SIDE + 2,) * 2, "crop": (SIDE,) * 2, "batch_size": 2, "precision": "float32"}
    return settings.resolve("uvcgan2", {**own, **shared, "save_every": 2, "log_every": 1, **given})


def assert_equal_weights(network, other):
    for v, w in zip(network.variables, other.variables, strict=True):
        np.testing.assert_array_equal(v, w, err_msg=v.path)


@pytest.fixture
def eagerly():
    """Steps run as they are written: one step is not worth a trace."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.usefixtures("eagerly")
def test_pretraining_starts_a_translation(tmp_path):
    small = {"generator_levels": 1, "steps": 1}
    loop.train(run_settings(**small, task="pretrain"), tmp_path / "first")
    pretrained = tfi2i.load(tmp_path / "first")
    assert isinstance(pretrained, Inpainting)
    assert pretrained.generate(tf.zeros((1, 20, 13, 3))).shape == (1, 20, 13, 3)

    # At a rate that moves nothing, the run's generators are still the pre-trained ones.
    still = {"learning_rate": 1e-12, "lambda_gan": 0.0, "pretrained": str(tmp_path / "first")}
    translated = loop.train(run_settings(**small, **still), tmp_path / "second")
    for name in GENERATORS:
        for v, w in zip(
            (translated.networks | translated.averages)[name].variables, pretrained.generator.variables, strict=True
        ):
            np.testing.assert_allclose(v, w, atol=1e-9)


def test_both_generators_and_their_averages_start_from_the_pretrained_one():
    pretrained, model = Inpainting(**FIRST), UVCGAN2(**TINY, ema_from_scratch=True)
    for built in (pretrained, model):
        built.build((None, None, None, 3))
    shake(pretrained.generator)
    before = [v.numpy() for v in model.averages["generator_b2a_average"].variables]
    model.start_from(pretrained)
    for v, w in zip(model.averages["generator_b2a_average"].variables, before, strict=True):
        np.testing.assert_array_equal(v, w)
    model.config = dataclasses.replace(model.config, ema_from_scratch=False)
    model.start_from(pretrained)
    for name in GENERATORS:
        assert_equal_weights((model.networks | model.averages)[name], pretrained.generator)
    with pytest.raises(UserError, match="a run of --task=pretrain"):
        model.start_from(model)
    other = UVCGAN2(**TINY | {"vit_blocks": 2})
    other.generator_a2b.build((None, None, None, 3))
    with pytest.raises(UserError, match="holds another generator: --vit_blocks was 1, is 2. Give"):
        other.start_from(pretrained)


@pytest.mark.thorough
def test_pretraining_resumes_bit_for_bit(tmp_path):
    run = run_settings(task="pretrain", steps=4)
    whole = loop.train(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "00000004")
    again = loop.train(run, tmp_path / "run")
    assert_equal_weights(whole, again)
    assert_equal_weights(whole.generator_optimizer, again.generator_optimizer)


@pytest.mark.thorough
def test_pretraining_on_two_replicas_equals_one():
    data = images(n=4, seed=1), images(n=4, seed=2)
    results = []
    for replicas in (1, 2):
        strategy = tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(replicas)])
        with strategy.scope():
            model = pretraining(n=4 // replicas)
        step = strategies.distributed_step(strategy, model)

        def part(context, size=4 // replicas):
            i = context.replica_id_in_sync_group * size
            return tuple(x[i : i + size] for x in data)

        losses, _ = step(strategy.experimental_distribute_values_from_function(part))
        results.append((losses(), [v.numpy() for v in model.trainable_variables]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)


def test_pretraining_has_a_recipe_of_its_own():
    run = settings.resolve("uvcgan2", {"task": "pretrain"})
    assert (run.training.batch_size, run.training.steps, run.training.lr_schedule) == (16, 512_000, "cosine_restarts")
    assert (run.model.learning_rate, run.model.beta_1, run.model.weight_decay) == (3.125e-4, 0.9, 0.05)
    assert (run.data.rotate, run.data.jitter) == (10, 0.2)
    assert settings.resolve("uvcgan2", {"task": "pretrain", "batch_size": 32}).training.batch_size == 32
    for one in (run, settings.resolve("uvcgan2", {"pretrained": "runs/x", "lambda_gp": 1.0})):
        assert settings.resolve(one.method, settings.differing(one)) == one
    for given in ({"task": "pretrain"}, {"pretrained": "runs/x"}):
        with pytest.raises(UserError, match=r"pre-training \(uvcgan2, uvcgan\), not for --method=unit"):
            settings.resolve("unit", given)
    with pytest.raises(UserError, match="--pretrained starts a translation"):
        settings.resolve("uvcgan2", {"task": "pretrain", "pretrained": "runs/x"})
    with pytest.raises(UserError, match="--init_from and --pretrained"):
        settings.resolve("uvcgan2", {"init_from": "runs/y", "pretrained": "runs/x"})
    with pytest.raises(UserError, match="--mask_fraction=1.5"):
        uvcgan2_config.Inpainting(mask_fraction=1.5)
    with pytest.raises(UserError, match="--lambda_gp is not a flag of --method=uvcgan2 --task=pretrain"):
        settings.resolve("uvcgan2", {"task": "pretrain", "lambda_gp": 1.0})
    with pytest.raises(UserError, match="--mask_patch is not a flag of --method=uvcgan2; "):
        settings.resolve("uvcgan2", {"mask_patch": 8})


def test_restarting_cosine():
    schedule = Schedule(2.0, "cosine_restarts", 1000, lr_restart_steps=100)
    for step, expected in ((0, 1), (50, 0.500005), (100, 1), (250, 0.500005), (99, 2.57e-4)):
        assert float(schedule.multiplier(step)) == pytest.approx(expected, rel=1e-2 if step == 99 else 1e-5)
    assert float(schedule(0)) == 2
