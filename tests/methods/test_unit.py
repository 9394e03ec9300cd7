"""UNIT against hand-made answers and what the official codes computed."""

import dataclasses
import functools
import pathlib
import re
import unittest.mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import torch_names
from tfi2i import config, layers
from tfi2i.methods import perceptual
from tfi2i.methods.unit import config as unit_config
from tfi2i.methods.unit import model as unit
from tfi2i.methods.unit import published
from tfi2i.methods.unit.model import UNIT
from tfi2i.optim import Schedule

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"

# A small model for tests of all methods, and the side of its training images.
TINY = {"generator_width": 4, "discriminator_width": 4, "discriminator_layers": 3}
SIDE = 16
SMALL = {"generator_width": 2, "discriminator_width": 2, "discriminator_layers": 3}
SMALL_2018 = {"unit_variant": "2018", "generator_width": 2, "discriminator_width": 2, "discriminator_layers": 2}
VARIANTS = {"paper": SMALL, "2018": SMALL_2018}


def built(**options):
    model = UNIT(**options)
    model.build((None, None, None, model.channels_a))
    return model


def ready(side=16, optimizer=None, **options):
    """A small model with optimizers, ready for `train_step`; of an optimizer each role gets its own copy."""
    model = UNIT(**options)
    model.compile(**{f"{role}_optimizer": optimizer and optimizer() for role in model.roles})
    model.build_for_training((1, side, side, model.channels_a), (1, side, side, model.channels_b))
    model.build_optimizers()
    return model


def plain_descent():
    """An optimizer without slots, for steps that are compared with nothing: a model is ready sooner with it."""
    return keras.optimizers.SGD(1.0)


def images(side=16, n=1, channels=3, seed=0):
    draw = np.random.default_rng(seed)
    return tf.constant(draw.uniform(-1, 1, (n, side, side, channels)).astype("float32"))


@functools.cache
def still(variant):
    """A small model for tests that do not change its weights."""
    return built(**VARIANTS[variant])


def with_options(model, **options):
    """Context in which the model has other hyper-parameters, which its networks do not depend on."""
    return unittest.mock.patch.object(model, "config", dataclasses.replace(model.config, **options))


def noise(n=1, side=4, code=8, seed=0, names=("noise_a", "noise_b", "noise_ab", "noise_ba")):
    """Arguments of the phases: noise of the codes, and seeds of dropout."""
    draw = np.random.default_rng(seed)
    arrays = {name: tf.constant(draw.normal(size=(n, side, side, code)).astype("float32")) for name in names}
    return {**arrays, "seeds": layers.sample_seeds(seed, 0, tf.range(n), "dropout")}


# Networks


@pytest.fixture
def no_drawing(monkeypatch):
    """Weights of full-size networks are zeros: quick, and enough to be counted."""
    monkeypatch.setattr("tfi2i.layers.network.initializer", lambda *_: "zeros")


def count(model, part):
    model.build((None, None, None, 3))
    return sum(n.count_params() for name, n in model.networks.items() if name.startswith("discriminator") == part)


@pytest.mark.parametrize(
    "options, generators, discriminators",
    [
        ({}, 18_017_286, 2 * 6_271_617),
        ({"discriminator": "shared", "discriminator_layers": 6}, 18_017_286, 25_240_065),
        ({"unit_variant": "2018"}, 22_280_966, 16_542_342),
        pytest.param({"discriminator_layers": 6}, 18_017_286, 2 * 25_149_057, marks=pytest.mark.thorough),
        pytest.param(
            {"discriminator": "multiscale", "discriminator_layers": 4},
            18_017_286,
            9_308_934,
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_parameters(options, generators, discriminators, no_drawing):
    model = UNIT(**options)
    assert count(model, False) == generators
    assert count(model, True) == discriminators


def test_the_papers_table_has_512_channels_in_its_residual_blocks(no_drawing):
    model = UNIT(residual_width=512)
    # Encoder: three convolutions to 256 channels, a block with a projection, two blocks; one shared.
    block = 2 * (512 * 512 * 9 + 512)
    first = (256 * 512 * 9 + 512) + (512 * 512 * 9 + 512) + (256 * 512 + 512)
    encoder = 9_472 + 73_856 + 295_168 + first + 2 * block
    # Decoder: three blocks, transposed convolutions to 256 and 128 channels, 1×1.
    decoder = 3 * block + (512 * 256 * 9 + 256) + (256 * 128 * 9 + 128) + 128 * 3 + 3
    assert count(model, False) == 2 * encoder + 2 * block + 2 * decoder


@pytest.mark.parametrize("shared", [0, 4])
def test_sharing_moves_blocks_and_changes_no_size(shared):
    model = built(shared_blocks=shared, **SMALL)
    names = set(model.networks)
    assert ("encoder_shared" in names) == ("decoder_shared" in names) == (shared > 0)
    blocks = [len(model.encoder_a.blocks.stack), len(model.decoder_b.blocks.stack)]
    assert blocks == [4 - shared] * 2
    own, per_block = still("paper"), 2 * (8 * 8 * 9 + 8)
    assert count(own, False) - count(model, False) == 2 * (shared - own.config.shared_blocks) * per_block
    x = images()
    assert model.encode(x, "a").shape == (1, 4, 4, 8)
    assert model.generators["a2b"](x).shape == x.shape


@pytest.mark.parametrize("variant", VARIANTS)
def test_code_and_picture_sizes(variant):
    model = UNIT(channels_b=1, **VARIANTS[variant])
    x = images(16)[:, :, :12]
    assert model.encode(x, "a").shape == (1, 4, 3, 8)
    assert model.generators["a2b"](x).shape == (1, 16, 12, 1)
    assert model.generators["b2a"](x[..., :1]).shape == (1, 16, 12, 3)


def test_discriminator_sizes():
    paper = UNIT(discriminator_layers=5, discriminator_width=1, generator_width=2)
    assert [y.shape for y in paper.judge(images(64), "a")] == [(1, 2, 2, 1)]
    shared = UNIT(discriminator="shared", discriminator_layers=4, discriminator_width=1, generator_width=2)
    assert [y.shape for y in shared.judge(images(64), "b")] == [(1, 4, 4, 1)]
    scales = UNIT(discriminator="multiscale", discriminator_layers=4, discriminator_width=1, generator_width=2)
    assert [y.shape[1] for y in scales.judge(images(64), "a")] == [4, 2, 1]
    later = UNIT(unit_variant="2018", discriminator_width=1, generator_width=2)
    assert [y.shape[1] for y in later.judge(images(256), "a")] == [16, 8, 4]
    assert later.sizes.crop_minimum == 64
    assert [y.shape[1] for y in later.judge(images(64), "a")] == [4, 2, 1]


def test_layer_norm_of_2018():
    # Eight numbers with mean 3.5 and Σ(x - mean)² = 42: the unbiased deviation is √6, the biased one √5.25.
    layer = layers.SampleNormalization(epsilon=0.5)
    layer.build((None, 2, 2, 2))
    layer.gamma.assign([1.0, 2.0])
    layer.beta.assign([0.0, 1.0])
    x = np.arange(8, dtype="float32").reshape(1, 2, 2, 2)
    expected = (x - 3.5) / (np.sqrt(6) + 0.5) * [1, 2] + [0, 1]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-6)
    twice = np.concatenate([x, 10 * x])  # each sample by itself
    np.testing.assert_allclose(layer(twice)[:1], expected, rtol=1e-6)


def test_blur_and_halve():
    np.testing.assert_allclose(unit.blur_and_halve(tf.ones((1, 5, 4, 2))), np.ones((1, 3, 2, 2)))
    x = np.zeros((1, 4, 4, 1), "float32")
    x[0, 2, 2] = x[0, 0, 0] = 16
    # The corner counts for itself and, repeated, for the edge: (¼ + ½)².
    np.testing.assert_allclose(unit.blur_and_halve(tf.constant(x))[0, :, :, 0], [[9, 0], [0, 4]])


def test_average_leaves_the_outside_out():
    network = unit.Discriminator2018(1, 1, 2)
    np.testing.assert_allclose(network.halve(tf.ones((1, 5, 4, 1))), np.ones((1, 3, 2, 1)))
    x = np.zeros((1, 4, 4, 1), "float32")
    x[0, 0, 0] = 36
    np.testing.assert_allclose(network.halve(tf.constant(x))[0, :, :, 0], [[9, 0], [0, 0]])


def test_initial_weights_of_the_paper():
    model = built(generator_width=16, discriminator_width=16)
    for name, network in model.networks.items():
        for layer in network._flatten_layers():
            if isinstance(layer, (keras.layers.Conv2D, keras.layers.Conv2DTranspose)):
                kernel, bias = layer.kernel.numpy(), layer.bias.numpy()
                if kernel.size > 2_000:
                    assert kernel.std() == pytest.approx(0.02, rel=0.05), name
                # PyTorch takes the output channels for a transposed convolution's fan in; they stand third here too.
                bound = np.prod(kernel.shape[:3]) ** -0.5
                assert np.abs(bias).max() <= bound and bias.any()
    start = model.encoder_a.head.bias.numpy()
    assert not np.array_equal(start, model.encoder_b.head.bias.numpy())


def test_initial_weights_of_2018():
    model = built(unit_variant="2018", generator_width=16, discriminator_width=16)
    for name, network in model.networks.items():
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.Conv2D):
                kernel = layer.kernel.numpy()
                expected = 0.02 if name.startswith("discriminator") else (2 / np.prod(kernel.shape[:3])) ** 0.5
                if kernel.size > 2_000:
                    assert kernel.std() == pytest.approx(expected, rel=0.05), name
                assert not layer.bias.numpy().any()
    gamma = np.concatenate([layer.gamma.numpy() for d in (model.decoder_a, model.decoder_b) for layer in d.norms])
    assert gamma.min() >= 0 and gamma.max() <= 1 and gamma.std() == pytest.approx(12**-0.5, rel=0.2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_largest_seed_builds(variant):
    built(seed=2**31 - 1, **VARIANTS[variant])


def test_dropout_layers_share_no_mask_and_rest_at_inference():
    model = UNIT(dropout=True, **SMALL)
    drops = [layer for layer in model._flatten_layers() if isinstance(layer, layers.Dropout)]
    assert len(drops) == 14 == len({layer.index for layer in drops})
    x, seeds = images(), noise()["seeds"]
    one, two = (model.encode(x, "a", True, seeds + i).numpy() for i in (0, 1))
    assert np.abs(one - two).max() > 1e-3
    np.testing.assert_array_equal(one, model.encode(x, "a", True, seeds))
    np.testing.assert_array_equal(model.encode(x, "a"), model.encode(x, "a"))


# Losses by hand


def zeroed(**options):
    """Zero weights: codes are 0 and images 0; discriminators answer their last bias, 0.25 (A) and 0.5 (B)."""
    model = built(**options)
    for v in model.trainable_variables:
        v.assign(tf.zeros(v.shape))
    for network, bias in ((model.discriminator_a, 0.25), (model.discriminator_b, 0.5)):
        for last in np.atleast_1d(network.last):
            last.bias.assign([bias])
    return model


def softplus(x):
    return float(np.log1p(np.exp(x)))


def test_constant_images_give_the_papers_losses_known_by_hand():
    weights = {"lambda_gan": 2, "lambda_kl": 3, "lambda_reconstruction": 5, "lambda_kl_cycle": 7, "lambda_cycle": 11}
    model = zeroed(**SMALL, **weights)
    a, b = tf.fill((1, 16, 16, 3), 0.5), tf.fill((1, 16, 16, 3), -0.25)
    losses, _ = model.generator_phase(a, b, **noise())
    assert {k: float(v) for k, v in losses.items()} == pytest.approx({
        "gan_a2b": 2 * softplus(-0.5), "gan_b2a": 2 * softplus(-0.25),
        "reconstruction_a": 5 * 0.5, "reconstruction_b": 5 * 0.25, "kl_a": 0, "kl_b": 0,
        "kl_cycle_a": 0, "kl_cycle_b": 0, "cycle_a": 11 * 0.5, "cycle_b": 11 * 0.25,
    })  # fmt: skip
    losses, _ = model.discriminator_phase(a, b, **noise(names=("noise_a", "noise_b")))
    assert {k: float(v) for k, v in losses.items()} == pytest.approx({
        "discriminator_a": 2 * (softplus(-0.25) + softplus(0.25)),
        "discriminator_b": 2 * (softplus(-0.5) + softplus(0.5)),
    })  # fmt: skip


def test_constant_images_give_the_losses_of_2018_known_by_hand():
    model = zeroed(**SMALL_2018, lambda_gan=2.0, lambda_reconstruction=5.0, lambda_cycle=11.0)
    a, b = tf.fill((1, 16, 16, 3), 0.5), tf.fill((1, 16, 16, 3), -0.25)
    losses, _ = model.generator_phase(a, b, **noise())
    # Least squares, summed over three scales.
    expected = {"gan_a2b": 2 * 3 * 0.5**2, "gan_b2a": 2 * 3 * 0.75**2, "reconstruction_a": 2.5, "cycle_b": 11 * 0.25}
    assert {k: float(losses[k]) for k in expected} == pytest.approx(expected)
    losses, _ = model.discriminator_phase(a, b, **noise(names=("noise_a", "noise_b")))
    expected = {"discriminator_a": 2 * 3 * (0.75**2 + 0.25**2), "discriminator_b": 2 * 3 * (0.5**2 + 0.5**2)}
    assert {k: float(losses[k]) for k in expected} == pytest.approx(expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_kl_is_about_the_mean_or_about_the_noisy_code(variant):
    model, a, b, given = still(variant), images(seed=1), images(seed=2), noise(seed=3)
    losses, _ = model.generator_phase(a, b, **given)
    mean = model.encode(a, "a")
    c = model.config
    assert float(losses["kl_a"]) == pytest.approx(c.lambda_kl * float(tf.reduce_mean(mean**2)), rel=1e-5)
    fake_b = model.decode(mean + given["noise_a"], "b")
    again = model.encode(fake_b, "b")
    assert float(losses["kl_cycle_a"]) == pytest.approx(c.lambda_kl_cycle * float(tf.reduce_mean(again**2)), rel=1e-4)
    cycle = model.decode(again + given["noise_ab"], "a")
    assert float(losses["cycle_a"]) == pytest.approx(c.lambda_cycle * float(tf.reduce_mean(abs(cycle - a))), rel=1e-5)
    if variant == "paper":
        with with_options(model, kl_of="code"):
            losses, _ = model.generator_phase(a, b, **given)
        code = mean + given["noise_a"]
        assert float(losses["kl_a"]) == pytest.approx(0.1 * float(tf.reduce_mean(code**2)), rel=1e-5)


def test_weights_of_0_leave_their_streams_out():
    model, a, b, given = still("paper"), images(seed=1), images(seed=2), noise(seed=3)
    full, _ = model.generator_phase(a, b, **given)
    for kinds in (("gan", "kl_cycle"), ("reconstruction", "cycle"), ("kl", "kl_cycle", "cycle")):
        with with_options(model, **{f"lambda_{kind}": 0.0 for kind in kinds}):
            part, _ = model.generator_phase(a, b, **given)
        gone = {n for n in full if n.rsplit("_", 1)[0] in kinds}
        assert len(gone) == 2 * len(kinds) and set(full) - set(part) == gone
        for name in part:
            np.testing.assert_allclose(part[name], full[name], rtol=1e-5, err_msg=f"without {kinds}: {name}")


# Steps


def test_discriminators_learn_first_and_generators_from_the_new_ones():
    model = ready(optimizer=plain_descent, **SMALL)
    a, b = images(seed=1), images(seed=2)
    before, seen, phase = model.discriminator_b.last.bias.numpy(), [], model.phase

    def watched(compute, role, **inputs):
        seen.append((role, model.discriminator_b.last.bias.numpy()))
        return phase(compute, role, **inputs) if role == "discriminator" else ({}, {})

    model.phase = watched
    model.learn(a, b, tf.range(1))
    assert [role for role, _ in seen] == ["discriminator", "generator"]
    assert (seen[0][1] == before).all() and (seen[1][1] != before).all()


def test_noise_differs_by_step_sample_and_purpose_and_repeats():
    def inputs_of(*batches):
        """What the phases of some steps get."""
        model, given = UNIT(**SMALL), []
        model.phase = lambda compute, role, **inputs: (given.append(inputs), ({}, {}))[1]
        for batch in batches:
            model.train_step(batch)
        return given

    a, b = images(n=2), images(n=2, seed=1)
    drawn = inputs_of((a, b), (a, b))
    arrays = [x[k].numpy() for x in drawn for k in x if k.startswith("noise")]
    rows = [row for array in arrays for row in array]
    assert len(arrays) == 2 * (2 + 4)
    for i, x in enumerate(rows):
        assert not any(np.array_equal(x, y) for y in rows[:i])
    assert np.mean(np.square(rows)) == pytest.approx(1, abs=0.1)
    second = inputs_of((a[1:], b[1:]))  # alone it is sample 0
    np.testing.assert_array_equal(second[0]["noise_a"][0], drawn[0]["noise_a"][0])


@pytest.mark.parametrize(
    "options",
    [
        {**SMALL, "shared_blocks": 0, "discriminator": "shared", "lambda_reconstruction": 0.0},
        {**SMALL, "shared_blocks": 4, "residual_width": 12, "discriminator": "multiscale", "discriminator_scales": 2},
        {**SMALL, "norm": "instance", "dropout": True, "kl_of": "code", "lambda_gan": 0.0},
        {**SMALL, "lambda_cycle": 0.0, "lambda_kl_cycle": 0.0},
        {**SMALL_2018, "gan_loss": "vanilla"},
    ],
    ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items() if k not in SMALL),
)
def test_variants_learn(options):
    model = ready(optimizer=plain_descent, channels_b=1, **options)
    before = {n: [v.numpy() for v in net.trainable_variables] for n, net in model.networks.items()}
    losses = model.train_step((images(), images(channels=1)))
    assert all(np.isfinite(v) for v in losses.values())
    for name, network in model.networks.items():
        still = name.startswith("discriminator") and not model.config.lambda_gan
        moved = any((v.numpy() != old).any() for v, old in zip(network.trainable_variables, before[name]))
        assert moved != still, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_translation_decodes_the_mean(variant):
    model, x = still(variant), images()
    np.testing.assert_array_equal(model(x), model.decode(model.encode(x, "a"), "b"))
    np.testing.assert_array_equal(model(x), model(x))


# Perceptual loss


def test_perceptual_features_have_no_fourth_pool(tmp_path):
    keras.utils.set_random_seed(0)
    vgg, path = keras.applications.VGG16(include_top=False, weights=None), tmp_path / "vgg.weights.h5"
    vgg.save_weights(path)
    model = UNIT(lambda_vgg=2.0, vgg_weights=str(path), **SMALL_2018)
    model.build_for_training((1, 16, 16, 3), (1, 16, 16, 3))
    network = model.perceptual
    assert network.count_params() == 14_714_688 and not network.trainable_variables
    assert model.frozen == {"perceptual": network} and "perceptual" not in model.networks
    x = images(32)
    assert network(x).shape == (1, 4, 4, 512)
    # Keras' own network up to relu4_3, then its last three convolutions without the pool between.
    caffe = (x[..., ::-1] + 1) * 127.5 - np.array([103.939, 116.779, 123.680], "float32")
    y = keras.Model(vgg.input, vgg.get_layer("block4_conv3").output)(caffe)
    for name in ("block5_conv1", "block5_conv2", "block5_conv3"):
        y = vgg.get_layer(name)(y)
    y = (y - y.numpy().mean((1, 2), keepdims=True)) / np.sqrt(y.numpy().var((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(network(x), y, atol=1e-3)


# Configuration


@pytest.mark.parametrize(
    "options, message",
    [
        ({"shared_blocks": 5}, "--shared_blocks=5: .* expected 0-4"),
        ({"unit_variant": "2017"}, "--unit_variant=2017: expected one of paper, 2018"),
        ({"unit_variant": "2018", "shared_blocks": 1}, "--shared_blocks=1 is not part of --unit_variant=2018"),
        ({"unit_variant": "2018", "discriminator": "stack"}, "--discriminator=stack is not part of"),
        ({"lambda_vgg": 1.0}, "--lambda_vgg is part of --unit_variant=2018"),
        ({"discriminator": "shared", "discriminator_layers": 2}, "needs 3 or more"),
        ({"lambda_kl": -1.0}, "--lambda_kl=-1.0: expected 0 or more"),
        (
            dict.fromkeys(("lambda_gan", "lambda_kl", "lambda_reconstruction", "lambda_kl_cycle", "lambda_cycle"), 0.0),
            "are all 0",
        ),
    ],
)
def test_impossible_configurations(options, message):
    with pytest.raises(config.UserError, match=message):
        unit_config.UNIT(**options)


def test_perceptual_loss_wants_colour():
    with pytest.raises(config.UserError, match="--channels_a=3"):
        UNIT(channels_a=1, lambda_vgg=1.0, **SMALL_2018)


# What the official codes computed (tests/golden/README.md)


@functools.cache
def golden(name):
    return np.load(GOLDEN / f"unit_{name}.npz")


def places(model, file, prefix):
    """[(variable, array, name, whether a norm takes its effect away)] for the arrays `prefix/…` of a golden file."""
    parts = published.layout(model)
    arrays = {n.removeprefix(prefix + "/"): n for n in file.files if n.startswith(prefix + "/")}
    net = prefix.split("/")[-1]
    known = parts[net] if net in parts else parts["gen"] | parts["dis"]
    assert arrays, prefix
    return [
        (known[key].variable, known[key].ours(file[name]), name, before_norm(model, key, arrays))
        for key, name in arrays.items()
    ]


def before_norm(model, key, keys):
    """Whether KEY is a bias whose true gradient is 0 because a norm follows (tests/golden/README.md)."""
    if not key.endswith(".bias"):
        return False
    if model.config.unit_variant == "2018":
        # With one channel, the layer norm takes it away too.
        alone = model.config.generator_width == 1 and key.startswith("dec.model.4.")
        return key.startswith(("enc.", "dec.model.0.")) or alone
    resampling = re.match(r"encode_[AB]\.[12]\.|decode_[AB]\.[34]\.", key) and model.config.norm == "instance"
    return bool(resampling) or key.rsplit(".model.", 1)[0] + ".model.3.bias" in keys


def take(model, file, prefix="weights"):
    for variable, array, name, _ in places(model, file, prefix):
        assert variable.shape == array.shape, name
        variable.assign(array)


def sparse(x):
    return np.asarray(x)[:, ::3, ::3]


@pytest.mark.parametrize("kind", ["COCOResGen2", "COCOResGen"])
def test_codes_and_translations_of_the_official_paper_model(kind):
    file = golden("paper_generator")
    model = built(generator_width=2, discriminator_width=1, norm="instance" if kind == "COCOResGen" else "none")
    take(model, file)
    sizes = {name.split("/")[2] for name in file.files if name.startswith(f"code/{kind}/")}
    assert len(sizes) == (1 if kind == "COCOResGen" else 3)
    for size in sizes:
        codes = {d: model.encode(file[f"input/{size}/{d}"], d) for d in "ab"}
        for d in "ab":
            np.testing.assert_allclose(codes[d], file[f"code/{kind}/{size}/{d}"], atol=1e-4)
            for to in "ab":
                expected = file[f"output/{kind}/{size}/x_{d}{to}"]
                np.testing.assert_allclose(sparse(model.decode(codes[d], to)), expected, atol=1e-4)


JUDGES = {
    "COCODis": {"discriminator": "stack", "discriminator_layers": 3},
    "COCOSharedDis": {"discriminator": "shared", "discriminator_layers": 4},
    "COCOMsDis": {"discriminator": "multiscale", "discriminator_layers": 2},
}


@pytest.mark.parametrize("kind", JUDGES)
def test_official_discriminators_of_the_paper_model(kind):
    file = golden(f"paper_{kind.lower()}")
    model = built(generator_width=2, discriminator_width=2, **JUDGES[kind])
    take(model, file)
    for name in file.files:
        if name.startswith("input/"):
            size, domain = name.split("/")[1:]
            for i, judged in enumerate(model.judge(file[name], domain)):
                np.testing.assert_allclose(judged, file[f"output/{size}/{domain}/{i}"], atol=1e-4, err_msg=name)
        if name.startswith("downsampled/"):
            np.testing.assert_allclose(
                unit.blur_and_halve(file[name.replace("downsampled", "input")]), file[name], atol=1e-6
            )


PAPER_LOSSES = {
    "gen_ad_loss_a": ("gan_b2a", 10), "gen_ad_loss_b": ("gan_a2b", 10),
    "gen_ll_loss_a": ("reconstruction_a", 100), "gen_ll_loss_b": ("reconstruction_b", 100),
    "gen_ll_loss_aba": ("cycle_a", 100), "gen_ll_loss_bab": ("cycle_b", 100),
    "gen_enc_aba_loss": ("kl_cycle_a", 0.1), "gen_enc_bab_loss": ("kl_cycle_b", 0.1),
}  # fmt: skip


def official_paper(make, judge="COCODis"):
    """The golden model; `make` makes it."""
    model = make(generator_width=1, discriminator_width=2, kl_of="code", **JUDGES[judge])
    take(model, golden("paper_model"), "weights/gen")
    if judge == "COCODis":
        take(model, golden("paper_model"), "weights/dis")
    else:
        take(model, golden(f"paper_{judge.lower()}"))
    return model


@functools.cache
def still_paper(judge):
    """The golden model for tests that do not change its weights."""
    return official_paper(built, judge)


def paper_inputs(file, samples):
    """What the two phases get: the official noise under our names."""
    a, b = (tf.constant(file[f"real_{d}"][samples]) for d in "ab")
    seeds = layers.sample_seeds(0, 0, tf.range(len(a)), "dropout")
    noise = {
        n: tf.constant(file[f"noise/{n}"][samples]) for n in ("dis/a", "dis/b", "gen/a", "gen/b", "gen/aba", "gen/bab")
    }
    discriminator = {"noise_a": noise["dis/a"], "noise_b": noise["dis/b"]}
    generator = {
        "noise_a": noise["gen/a"], "noise_b": noise["gen/b"],
        "noise_ab": noise["gen/aba"], "noise_ba": noise["gen/bab"],
    }  # fmt: skip
    shared = {"a": a, "b": b, "seeds": seeds}
    return shared | discriminator, shared | generator


def assert_paper_losses(ours, file, key):
    names = [str(n) for n in golden("paper_model")["gen_loss_names"]]
    theirs = dict(zip(names, file[key]))
    for name, (mine, weight) in PAPER_LOSSES.items():
        np.testing.assert_allclose(ours[mine], weight * theirs[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(ours["kl_a"] + ours["kl_b"], 0.1 * 2 * theirs["gen_enc_loss"], rtol=1e-5)
    np.testing.assert_allclose(sum(ours.values()), theirs["gen_total_loss"], rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("judge", JUDGES)
def test_losses_of_the_official_paper_model(judge, n):
    model, file = still_paper(judge), golden("paper_model")
    for_judges, for_generators = paper_inputs(file, slice(0, n))
    losses, _ = model.discriminator_phase(**for_judges)
    np.testing.assert_allclose(sum(losses.values()), file[f"dis_loss/{judge}/batch{n}"], rtol=1e-5)
    parts = 10 * file[f"dis_cross_entropies/{judge}/batch{n}"].sum(0)  # real a, real b, translation in A, in B
    np.testing.assert_allclose(losses["discriminator_a"], parts[0] + parts[2], rtol=1e-5)
    np.testing.assert_allclose(losses["discriminator_b"], parts[1] + parts[3], rtol=1e-5)
    losses, _ = model.generator_phase(**for_generators)
    assert_paper_losses(losses, file, f"gen_losses/{judge}/batch{n}")


def assert_gradients_and_weights(model, gradients, file, nets):
    for net in nets:
        seen = [p for p in places(model, file, f"gradients1/{net}") if not p[3]]
        ours, theirs = (
            np.concatenate([x.ravel() for x in both]) for both in zip(*[(gradients[id(v)], g) for v, g, *_ in seen])
        )
        # Theirs in float32 are up to 2.3e-5 from theirs in float64 (tests/golden/README.md); ours round elsewhere.
        assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs), net
        for variable, array, name, normed in places(model, file, f"after1/{net}"):
            if not normed:
                # A step moves a weight by up to 1e-4.
                np.testing.assert_allclose(variable.numpy(), array, rtol=0, atol=2e-6, err_msg=name)


def test_two_official_steps_of_the_paper_model():
    """Losses, gradients, weights after one D and one G step, and the losses of the next."""
    model, file, steps = official_paper(ready), golden("paper_model"), golden("paper_steps")
    gradients = torch_names.watch_gradients(model)
    for k in (1, 2):
        for_judges, for_generators = paper_inputs(file, slice(k - 1, k))
        losses, _ = model.phase(model.discriminator_phase, "discriminator", **for_judges)
        np.testing.assert_allclose(sum(losses.values()), steps[f"dis_loss{k}"], rtol=2e-5)
        losses, _ = model.phase(model.generator_phase, "generator", **for_generators)
        if k == 1:
            assert_paper_losses(losses, steps, "gen_losses1")
            assert_gradients_and_weights(model, gradients, steps, ("gen", "dis"))
        else:
            np.testing.assert_allclose(sum(losses.values()), steps["gen_losses2"][-1], rtol=2e-5)


def test_official_generators_of_2018():
    file = golden("2018_generator")
    model = built(unit_variant="2018", generator_width=2, discriminator_width=1)
    for variable, array, *_ in places(model, Renamed(file, "gen_a"), "weights/gen_a"):
        variable.assign(array)
    for name in file.files:
        if name.startswith("input/"):
            size = name.split("/")[1]
            code = model.encode(file[name], "a")
            np.testing.assert_allclose(code, file[f"code/{size}"], atol=1e-4)
            output = model.decode(tf.constant(file[f"code/{size}"]), "a")
            np.testing.assert_allclose(sparse(output), file[f"output/{size}"], atol=1e-4)


class Renamed:
    """A golden file of one network as if it were a part of a model's: weights/KEY → weights/NET/KEY."""

    def __init__(self, file, net):
        self.names = {n.replace("weights/", f"weights/{net}/"): n for n in file.files}
        self.files, self.file = list(self.names), file

    def __getitem__(self, name):
        return self.file[self.names[name]]


def test_official_discriminators_of_2018():
    file = golden("2018_discriminator")
    model = built(unit_variant="2018", generator_width=2, discriminator_width=2)
    take(model, Renamed(file, "dis_b"), "weights/dis_b")
    for name in file.files:
        if name.startswith("input/"):
            judged = model.judge(file[name], "b")
            assert len(judged) == 3
            for i, y in enumerate(judged):
                np.testing.assert_allclose(y, file[f"output/{name.split('/')[1]}/{i}"], atol=1e-4)


@pytest.mark.parametrize("case", ["normal", "small", "constant"])
def test_official_layer_norm(case):
    file = golden("2018_layer_norm")
    layer = layers.SampleNormalization()
    layer.build((None, 2, 2, 2))
    layer.gamma.assign(file["weights/gamma"])
    layer.beta.assign(file["weights/beta"])
    x = tf.constant(file[f"input/{case}"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        total = tf.reduce_sum(y * file["probe"])
    np.testing.assert_allclose(y, file[f"output/{case}"], rtol=1e-5, atol=1e-5)
    if case != "constant":
        expected = file[f"gradient/{case}"]
        np.testing.assert_allclose(tape.gradient(total, x), expected, atol=1e-4 * np.abs(expected).max())


LOSSES_2018 = {
    "adv_a": "gan_b2a", "adv_b": "gan_a2b", "recon_x_a": "reconstruction_a", "recon_x_b": "reconstruction_b",
    "recon_kl_a": "kl_a", "recon_kl_b": "kl_b", "cyc_x_a": "cycle_a", "cyc_x_b": "cycle_b",
    "recon_kl_cyc_aba": "kl_cycle_a", "recon_kl_cyc_bab": "kl_cycle_b",
    "vgg_a": "perceptual_b2a", "vgg_b": "perceptual_a2b",
}  # fmt: skip
WEIGHTS_2018 = {"gan": 1, "reconstruction": 10, "kl": 0.01, "kl_cycle": 0.01, "cycle": 10, "perceptual": 1}


def official_2018(make, **options):
    """The golden model; `make` makes it."""
    small = {"generator_width": 1, "discriminator_width": 2, "discriminator_layers": 2, "discriminator_scales": 2}
    model = make(unit_variant="2018", **small, **options)
    for net in ("gen_a", "gen_b", "dis_a", "dis_b"):
        take(model, golden("2018_model"), f"weights/{net}")
    return model


@functools.cache
def still_2018():
    """The golden model for tests that do not change its weights."""
    return official_2018(built)


def inputs_2018(file, samples):
    a, b = (tf.constant(file[f"real_{d}"][samples]) for d in "ab")
    shared = {"a": a, "b": b, "seeds": layers.sample_seeds(0, 0, tf.range(len(a)), "dropout")}
    noise = {n: tf.constant(file[f"noise/{n}"][samples]) for n in ("dis/n_a", "dis/n_b", "gen/n_a", "gen/n_b")}
    again = {n: tf.constant(file[f"noise/gen/{n}"][samples]) for n in ("n_a_recon", "n_b_recon")}
    for_judges = shared | {"noise_a": noise["dis/n_a"], "noise_b": noise["dis/n_b"]}
    for_generators = shared | {
        "noise_a": noise["gen/n_a"], "noise_b": noise["gen/n_b"],
        # n_a_recon is of the code of A that E_b reads from A's translation.
        "noise_ab": again["n_a_recon"], "noise_ba": again["n_b_recon"],
    }  # fmt: skip
    return for_judges, for_generators


def assert_losses_2018(ours, file, key):
    names = [str(n).removeprefix("loss_gen_") for n in golden("2018_model")["gen_loss_names"]]
    theirs = dict(zip(names, file[key]))
    for name, mine in LOSSES_2018.items():
        if mine in ours:
            weight = WEIGHTS_2018[mine.rsplit("_", 1)[0]]
            np.testing.assert_allclose(ours[mine], weight * theirs[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(sum(ours.values()), theirs["total"], rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("mode, kind", [("lsgan", "lsgan"), ("nsgan", "vanilla")])
def test_losses_of_the_official_model_of_2018(mode, kind, n):
    model, file = still_2018(), golden("2018_model")
    for_judges, for_generators = inputs_2018(file, slice(0, n))
    with with_options(model, gan_loss=kind):
        judged, _ = model.discriminator_phase(**for_judges)
        losses, _ = model.generator_phase(**for_generators)
    expected = file[f"dis_losses/{mode}/batch{n}"]
    np.testing.assert_allclose([judged["discriminator_a"], judged["discriminator_b"]], expected[:2], rtol=1e-5)
    assert_losses_2018(losses, file, f"gen_losses/{mode}/batch{n}")


def test_perceptual_loss_of_the_official_model(monkeypatch):
    network = official_vgg()
    monkeypatch.setattr(perceptual, "domain_invariant_features", lambda **kwargs: network)
    model, file = official_2018(built, lambda_vgg=1.0), golden("2018_model")
    _, inputs = inputs_2018(file, slice(0, 1))
    losses, _ = model.generator_phase(**inputs)
    assert {"perceptual_a2b", "perceptual_b2a"} < set(losses)
    assert_losses_2018(losses, file, "gen_losses/vgg/batch1")


def test_two_official_steps_of_2018():
    model, file, steps = official_2018(ready), golden("2018_model"), golden("2018_steps")
    gradients = torch_names.watch_gradients(model)
    for k in (1, 2):
        for_judges, for_generators = inputs_2018(file, slice(k - 1, k))
        losses, _ = model.phase(model.discriminator_phase, "discriminator", **for_judges)
        np.testing.assert_allclose(sum(losses.values()), steps[f"dis_losses{k}"][-1], rtol=2e-5)
        losses, _ = model.phase(model.generator_phase, "generator", **for_generators)
        if k == 1:
            assert_losses_2018(losses, steps, "gen_losses1")
            assert_gradients_and_weights(model, gradients, steps, ("gen_a", "gen_b", "dis_a", "dis_b"))
        else:
            np.testing.assert_allclose(sum(losses.values()), steps["gen_losses2"][-1], rtol=2e-5)


def test_official_rate_of_2018():
    file = golden("2018_schedule")
    schedule = Schedule(1e-4, "halving", 1_000_000)
    rates = [float(schedule(int(n) - 1)) for n in file["iteration"]]
    np.testing.assert_allclose(rates, file["rate"], rtol=1e-6)


def formula(s, count):
    """u(s, i) of tests/golden/README.md: numbers in [-½, ½) that any machine computes alike."""
    with np.errstate(over="ignore"):
        x = np.arange(count, dtype=np.uint32) + np.uint32(s) * np.uint32(1 << 24)
        x = (x ^ x >> np.uint32(16)) * np.uint32(0x85EBCA6B)
        x = (x ^ x >> np.uint32(13)) * np.uint32(0xC2B2AE35)
        x = x ^ x >> np.uint32(16)
    return x / 2.0**32 - 0.5


@functools.cache
def official_vgg():
    """The network of the golden files, at its full width."""
    network = perceptual.domain_invariant_features()
    network.build((None, None, None, 3))
    for s, conv in enumerate(network.convs):
        h, w, fan, out = conv.kernel.shape
        weights = (24 / (9 * fan)) ** 0.5 * formula(s, h * w * fan * out).reshape(out, fan, h, w)
        conv.set_weights(
            [weights.transpose(2, 3, 1, 0).astype("float32"), (0.25 * formula(s + 100, out)).astype("float32")]
        )
    return network


def test_official_perceptual_features():
    file, network = golden("2018_vgg"), official_vgg()
    np.testing.assert_allclose(
        network.convs[0].kernel.numpy()[..., 0].transpose(2, 0, 1), file["first_weights"], rtol=1e-6
    )
    image, target = tf.constant(file["image"]), tf.constant(file["target"])
    for name, x in (("image", image), ("target", target)):
        np.testing.assert_allclose(network(x)[..., ::8], file[f"normalized/{name}"], atol=1e-3)
    with tf.GradientTape() as tape:
        tape.watch(image)
        loss = tf.reduce_mean((network(image) - network(target)) ** 2)
    assert float(loss) == pytest.approx(float(file["loss"]), rel=1e-4)
    gradient, expected = sparse(tape.gradient(loss, image)), file["gradient"]
    assert np.linalg.norm(gradient - expected) <= 1e-3 * np.linalg.norm(expected)
