"""UVCGAN v2 and v1 against hand-made answers and what the official code computed."""

import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfi2i
from tests import torch_names
from tfi2i import UVCGAN, UVCGAN2, config, layers
from tfi2i.config import UserError
from tfi2i.methods import uvcgan2
from tfi2i.optim import Schedule
from tfi2i.training import loop, strategies

GOLDEN = pathlib.Path(__file__).parent / "golden"

SMALL = {
    "generator_width": 2, "generator_levels": 2, "vit_width": 4, "vit_heads": 2, "vit_blocks": 1, "vit_ffn_width": 4,
    "discriminator_width": 2, "discriminator_layers": 2, "consistency_size": 4,
}  # fmt: skip


def ready(side=16, n=1, kind=UVCGAN2, **options):
    """A small model with optimizers, ready for `train_step`."""
    model = kind(**{**SMALL, **options})
    model.compile()
    model.build_for_training((n, side, side, 3), (n, side, side, 3))
    model.build_optimizers()
    return model


def images(side=16, n=1, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(0, 1, (n, side, side, 3)).astype("float32"))


def shake(layer, seed=0, scale=0.3):
    """Random values for all variables, so that nothing hides behind a factor that starts at 0."""
    draw = np.random.default_rng(seed)
    for v in layer.variables:
        if v.dtype == "float32":
            v.assign(draw.normal(0, scale, v.shape))


# Networks


def test_parameters(monkeypatch):
    zeros = lambda *_: "zeros"  # noqa: E731  quick, and enough to be counted
    monkeypatch.setattr("tfi2i.layers.network.initializer", zeros)
    monkeypatch.setattr("tfi2i.layers.spectral.initializer", zeros)
    monkeypatch.setattr("tfi2i.layers.SpectralNormalization.warm_up", lambda *_: None)

    def count(layer, shape=(None, None, None, 3)):
        layer.build(shape)
        return sum(int(np.prod(v.shape)) for v in layer.trainable_variables)

    v2, bn, v1 = UVCGAN2(), UVCGAN2(discriminator_head="bn"), UVCGAN()
    assert count(v2.generator_a2b) == 32_192_231
    assert count(v2.discriminator_a) == 5_125_569
    assert count(bn.discriminator_b) == 5_121_985
    assert count(v1.generator_b2a) == 31_360_239
    assert count(v1.discriminator_b) == 2_764_737


def test_any_multiple_of_the_levels_goes_square_or_not():
    model = UVCGAN2(**SMALL)
    for h, w in ((4, 4), (8, 20), (28, 12)):
        y = model.generators["a2b"](tf.zeros((2, h, w, 3)))
        assert y.shape == (2, h, w, 3) and y.dtype == tf.float32
    assert UVCGAN2(**{**SMALL, "generator_levels": 4}).size_multiple == 16


def test_positions_are_rows_then_columns_from_minus_1_to_1():
    np.testing.assert_allclose(
        uvcgan2._positions(2, 3), [[-1, -1], [-1, 0], [-1, 1], [1, -1], [1, 0], [1, 1]], atol=1e-7
    )
    np.testing.assert_allclose(uvcgan2._positions(1, 1), [[-1, -1]])


def test_new_generator_is_its_unet_and_answers_grey():
    model = UVCGAN2(**SMALL)
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


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
@pytest.mark.parametrize("kind", [UVCGAN2, UVCGAN])
def test_any_seed_builds(kind, seed):
    kind(seed=seed, **SMALL).build((None, None, None, 3))


def test_discriminator_sizes():
    def judge(side=32, **options):
        network = UVCGAN2(**{**SMALL, "discriminator_layers": 3, **options}).discriminator_a
        return [y.shape[1:] for y in network(tf.zeros((1, side, side, 3)))]

    assert judge(64) == [(7, 7, 1), (7, 7, 16)]
    assert judge(64, discriminator_head="none") == [(6, 6, 1), (7, 7, 16)]
    assert judge(discriminator="pixel") == [(32, 32, 1), (32, 32, 4)]
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


def test_caches_hold_what_the_discriminators_step_saw():
    model = ready(n=2)
    a, b = images(n=2, seed=1), images(n=2, seed=2)
    model.train_step((a, b))
    assert [int(c.count) for c in model.caches.values()] == [2, 2, 2, 2]
    features = {n: c.features.numpy()[1:] for n, c in model.caches.items()}
    assert all(np.abs(x).max() > 0 for x in features.values())
    real, fake = (features[k] for k in ("real_b", "fake_b"))
    assert np.abs(real - fake).max() > 1e-3
    model.train_step((a, b))
    assert all(int(c.count) == 3 for c in model.caches.values())


def test_v1_and_other_switches_have_no_caches():
    assert not ready(kind=UVCGAN).caches
    assert not ready(cache_size=0).caches
    assert len(ready(discriminator_head="bn").caches) == 4


# Losses


def zeroed(**options):
    """Zero weights: generators answer 0.5; discriminators answer their last bias, 0.25 (A) and 0.5 (B)."""
    model = ready(discriminator_head="none", spectral_norm=False, **options)
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
    model = zeroed(lambda_consistency=11.0, consistency_relative=False)
    losses, _ = model.generator_phase(a, b, {})
    assert float(losses["consistency_a"]) == pytest.approx(11 * 0.1, rel=1e-5)
    losses, _ = model.discriminator_phase(a, b, b, a, tf.constant([0.25]), tf.constant([0.5]), {})
    assert {k: float(v) for k, v in losses.items()} == pytest.approx({
        "discriminator_a": 0.5 * (0.75**2 + 0.25**2), "discriminator_b": 0.5 * (0.5**2 + 0.5**2),
        "penalty_a": 0, "penalty_b": 0,
    })  # fmt: skip


def linear_pixel(**options):
    """Discriminators of 1×1 convolutions without norm: D(x) = 3 x₀ at every pixel where x₀ > 0."""
    model = ready(discriminator="pixel", discriminator_head="none", spectral_norm=False, lambda_gp=2.0, **options)
    for network in (model.discriminator_a, model.discriminator_b):
        for v in network.trainable_variables:
            v.assign(tf.zeros(v.shape))
        for conv, weight in zip((*network.trunk, network.last), (3.0, 1.0, 1.0)):
            conv.kernel.assign(np.eye(*conv.kernel.shape[2:])[None, None] * weight)
    return model


def test_penalties_by_hand(monkeypatch):
    monkeypatch.setattr(layers.InstanceNormalization, "call", lambda self, x, training=False: x)
    a, b = images(4, 2), images(4, 2, seed=1)
    alpha = tf.constant([0.25, 0.5])
    # The gradient of the mean over 16 pixels is 3/16 at each, its square summed over 16 pixels 9/16.
    losses, _ = linear_pixel().discriminator_phase(a, b, b, a, alpha, alpha, {})
    assert float(losses["penalty_a"]) == pytest.approx(2 * 9 / 16, rel=1e-5)
    losses, _ = linear_pixel(gp_center=1.0).discriminator_phase(a, b, b, a, alpha, alpha, {})
    assert float(losses["penalty_b"]) == pytest.approx(2 * (0.75 - 1) ** 2, rel=1e-5)
    # v1: the gradient of the sum has length 3 · 4.
    losses, _ = linear_pixel(gp_form="uvcgan", gp_center=10.0).discriminator_phase(a, b, b, a, alpha, alpha, {})
    assert float(losses["penalty_b"]) == pytest.approx(2 * (12 - 10) ** 2 / 100, rel=1e-5)


@pytest.mark.parametrize("form", ["uvcgan2", "uvcgan"])
def test_one_mixing_factor_a_batch_in_v2_one_a_sample_in_v1(form):
    model = ready(n=3, gp_form=form, gp_center=1.0)
    seen = []
    phase = model.phase
    model.phase = lambda *args, **inputs: (seen.append(inputs), phase(*args, **inputs))[1]
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
    model = UVCGAN2(**SMALL)
    assert model.value_range == (0.0, 1.0)
    assert 0 <= float(tf.reduce_min(model(images() * 100))) and float(tf.reduce_max(model(images() * 100))) <= 1
    with pytest.raises(ValueError, match=r"this method's range is \[0, 1\]"):
        model.translate(images().numpy() * 2 - 1)
    np.testing.assert_array_equal(model.to_float(tf.constant([0, 255], tf.uint8)), [0, 1])
    np.testing.assert_array_equal(model.to_pixels(tf.constant([0.0, 0.5, 1.0])), [0, 128, 255])


# Steps


def test_step_moves_averages_towards_the_new_generators():
    model = ready(ema_momentum=0.75, learning_rate=1e-2)
    online = model.generator_a2b.variables
    average = model.networks["generator_a2b_average"]
    before = [v.numpy() for v in online]
    for v, start in zip(average.variables, before, strict=True):
        np.testing.assert_array_equal(v, start)
    model.train_step((images(), images(seed=1)))
    for v, start, now in zip(average.variables, before, online, strict=True):
        np.testing.assert_allclose(v, 0.75 * start + 0.25 * now.numpy(), rtol=1e-5, atol=1e-7)
    x = images(seed=2)
    translated = model(x).numpy()
    for v, value in zip(online, average.variables):
        v.assign(value)
    np.testing.assert_allclose(translated, model.generator_a2b(x), rtol=1e-6)
    assert not average.trainable_variables
    assert not any("average" in v.path for v in model.weights_of("generator"))


def test_without_averages_the_generators_translate():
    model = ready(ema_momentum=0.0)
    assert set(model.networks) == {"generator_a2b", "generator_b2a", "discriminator_a", "discriminator_b"}
    assert model.generators["a2b"] is model.generator_a2b


def test_rates_of_both_optimizers():
    model = ready(learning_rate=5e-5, discriminator_learning_rate=2e-4)
    assert float(model.generator_optimizer.learning_rate) == pytest.approx(5e-5)
    assert float(model.discriminator_optimizer.learning_rate) == pytest.approx(2e-4)


def test_four_power_iterations_a_step():
    model = ready(discriminator_learning_rate=1e-12)
    conv = model.discriminator_b.trunk[1]
    w = conv.kernel.numpy().reshape(-1, conv.filters)
    v = conv.spectral.v.numpy()
    model.train_step((images(), images(seed=1)))
    for _ in range(4):  # the generators' pass, penalty, real, translated
        u = v @ w / np.linalg.norm(v @ w)
        v = w @ u / np.linalg.norm(w @ u)
    np.testing.assert_allclose(conv.spectral.u, u, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(conv.spectral.v, v, rtol=1e-5, atol=1e-7)


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
    model = ready(n=2, **options)
    step = tf.function(model.train_step, autograph=False)
    for i in range(2):
        losses = step((images(n=2, seed=i), images(n=2, seed=i + 5)))
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
        config.UVCGAN2(**options)


def test_different_channels_need_both_comparisons_off():
    with pytest.raises(UserError, match="--lambda_identity=0.5"):
        UVCGAN2(channels_b=1, **SMALL)
    with pytest.raises(UserError, match="--lambda_consistency=0.2"):
        UVCGAN2(channels_b=1, lambda_identity=0.0, **SMALL)
    model = UVCGAN2(channels_b=1, lambda_identity=0.0, lambda_consistency=0.0, **SMALL)
    assert model(images()).shape == (1, 16, 16, 1)


def test_v1_is_v2_with_other_defaults():
    changed = {k: v for k, v in vars(config.UVCGAN()).items() if v != getattr(config.UVCGAN2(), k)}
    assert config.UVCGAN2(**changed) == config.UVCGAN2(**vars(config.UVCGAN()))
    assert changed == {
        "norm": "instance", "style": False, "discriminator_head": "none", "spectral_norm": False, "gp_form": "uvcgan",
        "lambda_gp": 0.1, "gp_center": 100.0, "pool_size": 50, "ema_momentum": 0.0, "lambda_consistency": 0.0,
    }  # fmt: skip
    x, one, other = images(), UVCGAN(**SMALL), UVCGAN2(**{**changed, **SMALL})
    np.testing.assert_array_equal(one(x), other(x))


# What the official code computed (tests/golden/README.md)


def golden(name):
    return np.load(GOLDEN / f"uvcgan2_{name}.npz")


def both(key, layer):
    """[(torch's key, our variable)] of a layer with kernel or gamma, and bias."""
    weight, bias = (layer.gamma, layer.beta) if hasattr(layer, "gamma") else (layer.kernel, layer.bias)
    return [(f"{key}.weight", weight), (f"{key}.bias", bias)]


def generator_names(network):
    """[(torch's key, our variable)] of a generator."""
    part = "modnet" if network.style else "unet"
    names = both("net.layer_input.0", network.head) + both("net.layer_output", network.tail)
    for i, (encoder, down) in enumerate(zip(network.encoder, network.down)):
        level = f"net.{part}" + ".inner_module" * i
        names += both(f"{level}.conv.block.block.1", encoder.convs[0])
        names += both(f"{level}.conv.block.block.4", encoder.convs[1]) + both(f"{level}.conv.downsample", down)
        up, decoder = network.up[-1 - i], network.decoder[-1 - i]
        names += both(f"{level}.deconv.upsample.1", up)
        for j, conv in enumerate(decoder.convs):
            if network.style:
                names += both(f"{level}.deconv.block.conv_block{j + 1}.conv", conv)
                style = f"{level}.deconv.block.style_block{j + 1}"
                names += both(f"{style}.affine_mod", decoder.styles[j].affine)
                names.append((f"{style}.re_alpha", decoder.styles[j].alpha))
            else:
                names += both(f"{level}.deconv.block.block.{1 + 3 * j}", conv)
    vit, inner = network.bottleneck, f"{level}.inner_module"
    names += both(f"{inner}.trans_input.embed.projector", vit.position) + both(f"{inner}.trans_input.output", vit.mix)
    names += both(f"{inner}.trans_output", vit.out)
    if network.style:
        names.append((f"{inner}.extra_tokens", vit.token))
    for i, block in enumerate(vit.blocks):
        key = f"{inner}.encoder.encoder.{i}"
        names += both(f"{key}.norm1", block.attend_norm) + both(f"{key}.norm2", block.ffn_norm)
        names += both(f"{key}.ffn.net.0", block.widen) + both(f"{key}.ffn.net.2", block.narrow)
        project = block.attend.project
        names += [(f"{key}.atten.in_proj_weight", project.kernel), (f"{key}.atten.in_proj_bias", project.bias)]
        names += both(f"{key}.atten.out_proj", block.attend.join) + [(f"{key}.re_alpha", block.alpha)]
    assert {id(v) for _, v in names} == {id(v) for v in network.variables}
    return names


def discriminator_names(network):
    """The same of a discriminator."""
    names, body = [], "_body.model" if network.head else "model"
    for i, conv in enumerate(network.trunk):
        key = f"{body}.{3 * i - 1 if i else 0}"
        if network.spectral:
            weight = f"{key}.parametrizations.weight"
            names += [(f"{key}.bias", conv.bias), (f"{weight}.original", conv.kernel)]
            names += [(f"{weight}.0._u", conv.spectral.u), (f"{weight}.0._v", conv.spectral.v)]
        else:
            names += both(key, conv)
    if not network.head:
        names += both("shrink_conv", network.last)
    elif network.head.kind == "bsd":
        names += both("_head.net.1", network.head.inner) + both("_head.net.3", network.head.last)
    else:
        names += both("_head.norm", network.head)
        names += both("_head.net.0", network.head.inner) + both("_head.net.2", network.head.last)
    assert {id(v) for _, v in names} == {id(v) for v in network.variables}
    return names


def places(names, file, *prefixes, some=False):
    """[(variable, array as we lay it out, key)] of the arrays `prefix/KEY` of a golden file."""
    found = []
    for key, variable in names:
        path = next((f"{p}/{key}" for p in prefixes if f"{p}/{key}" in file.files), None)
        if path is None:
            assert some, key
            continue
        array, shape = file[path], tuple(variable.shape)
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif array.ndim == 2:
            array = array.T
        elif key.endswith("._v"):
            kernel = dict(names)[key.replace("0._v", "original")].shape
            array = array.reshape(kernel[2], *kernel[:2]).transpose(1, 2, 0)
        found.append((variable, array.reshape(shape), key))
    return found


def take(names, file, *prefixes):
    for variable, array, _ in places(names, file, *prefixes):
        variable.assign(array)


@pytest.mark.parametrize("kind", ["modnet", "unet"])
def test_official_generators(kind):
    file = golden(f"generator_{kind}")
    modulated = kind == "modnet"
    network = uvcgan2.Generator(3, 1, 4, "none" if modulated else "instance", modulated, (8, 2, 2, 12))
    network.build((None, None, None, 3))
    take(generator_names(network), file, "weights")
    for side in (32, 48):
        y = network(tf.constant(file[f"input/{side}"]))
        np.testing.assert_allclose(y[:, ::3, ::3], file[f"output/{side}"], atol=1e-5)


def official_discriminator(kind, file):
    """A model whose discriminator of A is that of the file."""
    form = {"spectral_norm": False, "discriminator_head": "none", "gp_form": "uvcgan", "gp_center": 10.0}
    options = form if kind == "v1" else {"discriminator_head": kind}
    model = ready(32, **{"discriminator_layers": 3, **options})
    take(discriminator_names(model.discriminator_a), file, f"weights/{kind}")
    return model


def official_cache(file, kind, filled, name="real"):
    mask = tf.constant([0.0] * (3 - filled) + [1.0] * filled)
    return tf.constant(file[f"cache/{kind}/{name}"]), mask


@pytest.mark.parametrize("filled", [0, 1, 3])
@pytest.mark.parametrize("kind", ["bsd", "bn"])
def test_official_discriminators_with_cold_and_warm_caches(kind, filled):
    file = golden("discriminator")
    network = official_discriminator(kind, file).discriminator_a
    logits, features = network(tf.constant(file["real"]), official_cache(file, kind, filled))
    np.testing.assert_allclose(logits, file[f"logits/{kind}/{filled}"], atol=1e-5)
    np.testing.assert_allclose(features, file[f"features/{kind}"], atol=1e-5)
    if not filled:
        alone, _ = official_discriminator(kind, file).discriminator_a(tf.constant(file["real"]))
        np.testing.assert_allclose(alone, logits, atol=1e-6)
    moved = places(discriminator_names(network), file, f"after/{kind}", f"weights/{kind}")
    for variable, array, key in moved:
        np.testing.assert_allclose(variable, array, atol=2e-6, err_msg=key)


@pytest.mark.parametrize("filled", [0, 3])
@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize("kind", ["bsd", "bn"])
def test_official_penalties(kind, center, filled):
    file = golden("discriminator")
    model = official_discriminator(kind, file)
    model.config = config.UVCGAN2(**{**vars(model.config), "gp_center": center})
    names = dict(discriminator_names(model.discriminator_a))
    alpha, cache = float(file["alpha"][0]), None
    if filled:
        real, fake = (official_cache(file, kind, 3, name) for name in ("real", "fake"))
        cache = alpha * real[0] + (1 - alpha) * fake[0], real[1]
    with tf.GradientTape() as tape:
        penalty = model._penalty(
            model.discriminator_a, tf.constant(alpha * file["real"] + (1 - alpha) * file["fake"]), cache
        )
    np.testing.assert_allclose(penalty, file[f"penalty/{kind}/{center}/{filled}"], rtol=1e-4)
    if (center, filled) == (1, 3):
        kernels = {k: v for k, v in names.items() if k.endswith("original")}
        found = tape.gradient(penalty, [v.value for v in kernels.values()])
        for (_, array, key), gradient in zip(places(kernels.items(), file, f"penalty_gradients/{kind}"), found):
            assert np.linalg.norm(gradient - array) <= 1e-4 * np.linalg.norm(array), key


def test_official_discriminator_and_penalty_of_v1():
    file = golden("discriminator")
    model = official_discriminator("v1", file)
    real, fake = (tf.constant(file[k]) for k in ("real", "fake"))
    np.testing.assert_allclose(model.discriminator_a(real)[0], file["logits/v1"], atol=1e-5)
    alpha = file["alpha/v1"].reshape(-1, 1, 1, 1)
    penalty = 0.1 * model._penalty(model.discriminator_a, alpha * real + (1 - alpha) * fake, None)
    np.testing.assert_allclose(penalty, file["penalty/v1"], rtol=1e-5)


# Our loss → theirs; weights are included in both.
LOSSES = {
    "gan_a2b": "gen_ab", "gan_b2a": "gen_ba", "cycle_a": "cycle_a", "cycle_b": "cycle_b", "identity_a": "idt_a",
    "identity_b": "idt_b", "consistency_a": "consist_a", "consistency_b": "consist_b", "discriminator_a": "disc_a",
    "discriminator_b": "disc_b", "penalty_a": "gp_a", "penalty_b": "gp_b",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["bsd", "bn"])
def test_three_official_steps(kind, monkeypatch):
    """Losses of steps with an empty cache, one, two samples in it; what the first one does to the weights."""
    file = golden("steps")
    model = ready(
        32,
        discriminator_head=kind,
        vit_ffn_width=6,
        lambda_b=5.0,
        lambda_gp=1.0,
        consistency_size=8,
        consistency_resize="bilinear",
        ema_momentum=0.75,
        learning_rate=1e-3,
        discriminator_learning_rate=1e-3,
    )
    nets = {"gen_ab": model.generator_a2b, "gen_ba": model.generator_b2a}
    names = {k: generator_names(v) for k, v in nets.items()}
    names |= {f"disc_{d}": discriminator_names(model.networks[f"discriminator_{d}"]) for d in "ab"}
    for net, pairs in names.items():
        take(pairs, file, *([f"weights_bn/{net}"] if kind == "bn" else []), f"weights/{net}")
    for average in model._averages.values():
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
            for net, pairs in names.items():
                found = places(pairs, file, f"gradients1/{net}", some=True)
                ours, array = (
                    np.concatenate([x.ravel() for x in x]) for x in zip(*[(gradients[id(v)], g) for v, g, _ in found])
                )
                assert np.linalg.norm(ours - array) <= 1e-4 * np.linalg.norm(array), net
            for net in ("gen_ab", "disc_b"):
                for variable, array, key in places(names[net], file, f"after1/{net}"):
                    # Biases of the attention's keys and before a norm have gradient 0 but for rounding.
                    if key.endswith(("in_proj_bias", "body.model.2.bias", "body.model.5.bias")):
                        continue
                    np.testing.assert_allclose(variable, array, rtol=0, atol=2e-5, err_msg=f"{net} {key}")
            key = "net.layer_input.0.weight"
            average = model.networks["generator_a2b_average"].averages[0]
            np.testing.assert_allclose(average, file[f"average1/{key}"].transpose(2, 3, 1, 0), atol=1e-5)


# Pre-training


def pretraining(n=2, **options):
    model = uvcgan2.Inpainting(**{**SMALL, "mask_patch": 4, "learning_rate": 1e-3, **options})
    model.compile()
    model.build_for_training((n, 16, 16, 3), (n, 16, 16, 3))
    model.build_optimizers()
    return model


def test_masks_blacken_patches():
    seeds = layers.sample_seeds(0, 0, tf.range(8), "mask")
    kept = pretraining().draw_kept(seeds, (8, 16, 16, 3)).numpy()
    assert kept.shape == (8, 16, 16, 1) and set(np.unique(kept)) == {0.0, 1.0}
    patches = kept.reshape(8, 4, 4, 4, 4).transpose(0, 1, 3, 2, 4).reshape(128, -1)
    assert (patches.std(1) == 0).all()
    assert (patches.mean(1) == 0).mean() == pytest.approx(0.4, abs=0.1)
    assert not np.array_equal(kept[0], kept[1])
    # A size that is no multiple of the patch; all and none.
    assert pretraining(mask_patch=5).draw_kept(seeds, (8, 16, 12, 3)).shape == (8, 16, 12, 1)
    assert not pretraining(mask_fraction=1.0).draw_kept(seeds, (8, 4, 4, 3)).numpy().any()
    assert pretraining(mask_fraction=0.0).draw_kept(seeds, (8, 4, 4, 3)).numpy().all()


def test_restoring_is_learned_over_all_pixels_of_both_domains():
    model, seen = pretraining(), []
    for v in model.trainable_variables:
        v.assign(tf.zeros(v.shape))
    generator = model.generator
    object.__setattr__(model, "generator", lambda x, training: (seen.append(x), generator(x, training=training))[1])
    a, b, kept = tf.fill((2, 16, 16, 3), 0.75), tf.fill((2, 16, 16, 3), 0.1), tf.zeros((2, 16, 16, 1))
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
    shared = {"data": "emoji", "resize": (18, 18), "crop": (16, 16), "batch_size": 2, "precision": "float32"}
    return config.resolve("uvcgan2", {**SMALL, **shared, "mask_patch": 4, "save_every": 2, "log_every": 1, **given})


def test_pretraining_runs_resumes_and_starts_a_translation(tmp_path):
    first = {"task": "pretrain", "steps": 4}
    whole = loop.train(run_settings(**first), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "00000004")
    again = loop.train(run_settings(**first), tmp_path / "broken")
    for v, w in zip(whole.variables + whole.generator_optimizer.variables, again.variables, strict=False):
        np.testing.assert_array_equal(v, w)
    pretrained = tfi2i.load(tmp_path / "whole")
    assert isinstance(pretrained, uvcgan2.Inpainting)
    assert pretrained.translate(np.zeros((20, 13, 3), np.uint8)).shape == (20, 13, 3)

    model, scratch = ready(), ready(ema_from_scratch=True)
    before = [v.numpy() for v in scratch.networks["generator_b2a_average"].variables]
    for kind in (model, scratch):
        kind.start_from(pretrained)
    names = ("generator_a2b", "generator_b2a", "generator_a2b_average", "generator_b2a_average")
    for name in names:
        for v, w in zip(model.networks[name].variables, pretrained.generator.variables, strict=True):
            np.testing.assert_array_equal(v, w, err_msg=name)
    for v, w in zip(scratch.networks["generator_b2a_average"].variables, before):
        np.testing.assert_array_equal(v, w)

    # At a rate that moves nothing, the run's generators are still the pre-trained ones.
    still = {"learning_rate": 1e-12, "steps": 1, "pretrained": str(tmp_path / "whole")}
    translated = loop.train(run_settings(**still), tmp_path / "translated")
    for name in names:
        for v, w in zip(translated.networks[name].variables, pretrained.generator.variables, strict=True):
            np.testing.assert_allclose(v, w, atol=1e-9)
    with pytest.raises(UserError, match="a run of --task=pretrain"):
        model.start_from(tfi2i.load(tmp_path / "translated"))
    with pytest.raises(UserError, match="holds another generator"):
        ready(vit_blocks=2).start_from(pretrained)


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
    run = config.resolve("uvcgan2", {"task": "pretrain"})
    assert (run.training.batch_size, run.training.steps, run.training.lr_schedule) == (16, 512_000, "cosine_restarts")
    assert (run.model.learning_rate, run.model.beta_1, run.model.weight_decay) == (3.125e-4, 0.9, 0.05)
    assert (run.data.rotate, run.data.jitter) == (10, 0.2)
    assert config.resolve("uvcgan2", {"task": "pretrain", "batch_size": 32}).training.batch_size == 32
    first = config.resolve("uvcgan", {"task": "pretrain"})
    assert (first.training.batch_size, first.training.lr_restart_steps) == (32, 51_200)
    assert first.model.learning_rate == 6.25e-4
    for one in (run, first, config.resolve("uvcgan2", {"pretrained": "runs/x", "lambda_gp": 1.0})):
        assert config.resolve(one.method, config.differing(one)) == one
    for given in ({"task": "pretrain"}, {"pretrained": "runs/x"}):
        with pytest.raises(UserError, match=r"pre-training \(uvcgan2, uvcgan\), not for --method=unit"):
            config.resolve("unit", given)
    with pytest.raises(UserError, match="--pretrained starts a translation"):
        config.resolve("uvcgan2", {"task": "pretrain", "pretrained": "runs/x"})
    with pytest.raises(UserError, match="--init_from and --pretrained"):
        config.resolve("uvcgan2", {"init_from": "runs/y", "pretrained": "runs/x"})
    with pytest.raises(UserError, match="--mask_fraction=1.5"):
        config.UVCGAN2(mask_fraction=1.5)


def test_restarting_cosine():
    schedule = Schedule(2.0, "cosine_restarts", 1000, lr_restart_steps=100)
    for step, expected in ((0, 1), (50, 0.500005), (100, 1), (250, 0.500005), (99, 2.57e-4)):
        assert float(schedule.multiplier(step)) == pytest.approx(expected, rel=1e-2 if step == 99 else 1e-5)
    assert float(schedule(0)) == 2
