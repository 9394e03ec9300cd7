"""pix2pix against hand-made answers and the official PyTorch code's."""

import dataclasses
import functools
import pathlib
import unittest.mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import torch_names
from tests.drawing import nothing_drawn
from tfi2i import layers, settings
from tfi2i.config import UserError
from tfi2i.methods import fitting
from tfi2i.methods.cyclegan import published as cyclegan_published
from tfi2i.methods.pix2pix import published
from tfi2i.methods.pix2pix.model import Pix2Pix, feature_matching, halved
from tfi2i.training import loop

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
# A small model for tests of all methods, and the side of its training images.
TINY = {"generator": "unet_64", "generator_width": 2, "discriminator_width": 4, "discriminator_layers": 2}
SIDE = 64
# Batch norm takes statistics over a batch.
SAMPLEWISE = {"norm": "instance"}
# Dropout draws its masks within a phase.
WITHOUT_DRAWS = {"dropout": False}
RESNET = {"generator": "resnet_6blocks", "generator_width": 2, "discriminator_width": 2, "discriminator_layers": 1}


def built(**options):
    model = Pix2Pix(**{**TINY, **options})
    model.build((None, None, None, model.channels_a))
    return model


def pictures(n=2, side=SIDE, channels=3, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, side, side, channels)).astype("float32")


def masked(self, x, seeds=None):
    """In the place of dropout, as in tools/golden: 1 where row + column + channel is even, times 2."""
    if seeds is None:
        return x
    _, h, w, c = x.shape
    kept = (np.arange(h)[:, None, None] + np.arange(w)[:, None] + np.arange(c)) % 2 == 0
    return x * (2.0 * kept).astype("float32")


@pytest.fixture
def golden_masks(monkeypatch):
    monkeypatch.setattr(layers.Dropout, "call", masked)


# Networks


@pytest.mark.parametrize(
    "options, of_generator, of_discriminator",
    [
        ({}, 54_413_955, 2_768_705),
        ({"generator": "unet_128", "norm": "instance"}, 41_825_667, 2_767_809),
        ({"pix2pix_variant": "cyclegan_tables"}, 11_388_675, 2_769_601),
        ({"pix2pix_variant": "cyclegan_tables", "generator": "resnet_6blocks"}, 7_845_123, 2_769_601),
        ({"discriminator": "pixel", "generator_width": 1}, None, 9_024),
        ({"discriminator_layers": 5, "generator_width": 1}, None, 11_159_361),
    ],
)
@nothing_drawn()
def test_parameters(options, of_generator, of_discriminator):
    model = Pix2Pix(**options)
    model.build((None, None, None, 3))
    counts = [sum(int(np.prod(v.shape)) for v in n.trainable_variables) for n in model.networks.values()]
    assert counts[0] == (of_generator or counts[0]) and counts[1] == of_discriminator


@pytest.mark.parametrize("kind, size", [("unet_128", "128x128"), ("unet_256", "256x512")])
def test_networks_are_the_official_ones_as_these_are_tested(kind, size, golden_masks):
    """Dropout on, and batch norm by the picture's own statistics: two pictures at once as one by one."""
    file = np.load(GOLDEN / f"pix2pix_{kind.replace('_', '')}.npz")
    options = {"generator": kind, "generator_width": 1, "discriminator_width": 1}
    model = built(channels_a=1, channels_b=2, **options)
    torch_names.load_recorded(model.generator, cyclegan_published.unet(model.generator), file, "weights")
    y = model.generators["a2b"](tf.constant(file[f"input/{size}"]))
    np.testing.assert_allclose(y[:, ::3, ::3], file[f"output/{size}"], atol=1e-4)


@pytest.mark.parametrize(
    "variant, levels",
    [("pytorch", [5, 6, 7]), ("paper", [6, 7, 8])],  # counted from 1, the outermost; 8 is the innermost
)
@nothing_drawn()
def test_dropout_is_shifted_by_a_level(variant, levels):
    model = Pix2Pix(pix2pix_variant=variant, generator_width=1, discriminator_width=1)
    block, found = model.generator.outermost, []
    while block:
        found += [int(block.name.rpartition("_")[2])] * (block.drop is not None)
        assert (block.down_norm is None) == (block.place in ("outermost", "innermost"))
        block = block.inner
    assert found == levels


def test_impossible_configurations():
    for options, message in (
        ({"generator": "unet_512"}, "--generator=unet_512: expected one of unet_256, unet_128"),
        ({"lambda_gan": 0.0, "lambda_l1": 0.0}, "are both 0: nothing is left to learn"),
        ({"gan_loss": "wgan-gp"}, "--gan_loss=wgan-gp: expected one of vanilla, lsgan"),
        ({"lambda_l1": -1.0}, "--lambda_l1=-1.0: expected 0 or more"),
        ({"lambda_gan": 0.0, "lambda_features": 10.0}, "--lambda_features=10.0 compares maps .*: give --lambda_gan=1"),
    ):
        with pytest.raises(UserError, match=message):
            Pix2Pix(**options)
    with pytest.raises(UserError, match="--crop=96,96 does not fit pix2pix's networks, .*: give --crop=128,128"):
        built().check_crop(96, 96)


def test_variants_are_defaults():
    for variant, expected in (
        ("pytorch", ("unet_256", "batch", True, "vanilla", 100, 0, "linear", "bicubic", 0.5)),
        ("paper", ("unet_256", "batch", True, "vanilla", 100, 0, "constant", "bilinear", 1)),
        ("cyclegan_tables", ("resnet_9blocks", "instance", False, "lsgan", 10, 50, "linear_torch7", "bilinear", 1)),
    ):
        run = settings.resolve("pix2pix", {"pix2pix_variant": variant})
        c, model = run.model, Pix2Pix(pix2pix_variant=variant, generator_width=1, discriminator_width=1)
        seen = (c.generator, c.norm, c.dropout, c.gan_loss, c.lambda_l1, c.pool_size, run.training.lr_schedule)
        assert (*seen, run.data.resize_filter, model.discriminator_weight) == expected
        assert run.data.paired and (run.data.resize, run.data.crop) == ((286, 286), (256, 256))
        given = settings.resolve("pix2pix", {"pix2pix_variant": variant, "dropout": not c.dropout, "pool_size": 7})
        assert (given.model.dropout, given.model.pool_size) == (not c.dropout, 7)


# Losses and steps


def losses_of(model, a, b):
    """The losses of a step that is not taken: phases compute and change nothing."""
    with unittest.mock.patch.object(model, "phase", lambda compute, role, **inputs: compute(**inputs)):
        losses = model.learn(tf.constant(a), tf.constant(b), indices=tf.range(a.shape[0]))
    return {name: float(loss) for name, loss in losses.items()}


@pytest.mark.parametrize(
    "variant, weight, gan, real, fake",
    [
        ("pytorch", 100, np.log1p(np.exp(-0.5)), 0.5 * np.log1p(np.exp(-0.5)), 0.5 * np.log1p(np.exp(0.5))),
        ("paper", 100, np.log1p(np.exp(-0.5)), np.log1p(np.exp(-0.5)), np.log1p(np.exp(0.5))),
        ("cyclegan_tables", 10, 0.25, 0.25, 0.25),
    ],
)
def test_constant_images_give_losses_known_by_hand(variant, weight, gan, real, fake):
    """Zero weights: the generator answers 0 everywhere, the discriminator its last bias."""
    model = built(pix2pix_variant=variant, pool_size=0, **(RESNET if variant == "cyclegan_tables" else {}))
    for v in model.trainable_variables:
        v.assign(tf.zeros(v.shape))
    model.discriminators[0].last.bias.assign([0.5])
    a, b = np.full((1, SIDE, SIDE, 3), 0.5, "float32"), np.full((1, SIDE, SIDE, 3), -0.25, "float32")
    assert losses_of(model, a, b) == pytest.approx(
        {"gan_a2b": gan, "l1_b": 0.25 * weight, "discriminator_b": real + fake}
    )


STEPS = np.load(GOLDEN / "pix2pix_steps.npz")
REAL_A, REAL_B = (STEPS[f"real_{domain}"] for domain in "AB")


def official(optimizer=None, **options):
    """The golden model, ready for `train_step`."""
    kept = {"generator": "unet_128", "generator_width": 1, "discriminator_width": 2, "discriminator_layers": 3}
    model = Pix2Pix(**{**kept, **options})
    model.compile(**{f"{role}_optimizer": optimizer and optimizer() for role in model.roles})
    model.build_for_training((None, 128, 128, 3), (None, 128, 128, 3))
    model.build_optimizers()
    for part, places in published.layout(model).items():
        network = {"G": model.generator, "D": model.discriminators[0]}[part]
        torch_names.load_recorded(network, places, STEPS, f"weights/{part}")
    return model


def in_their_order(losses, weight=0.5):
    """G_GAN, G_L1, D_real + D_fake of ours; theirs has the last two apart."""
    names = ("gan", "l1", "discriminator")
    ours = {n: float(v) for n in names for k, v in losses.items() if k.startswith(n)}
    return [ours["gan"], ours["l1"], ours["discriminator"] / weight]


def theirs(key):
    losses = dict(zip(map(str, STEPS["loss_names"]), STEPS[key]))
    return [losses["G_GAN"], losses["G_L1"], losses["D_real"] + losses["D_fake"]]


def test_two_steps(golden_masks):
    """Losses, gradients, weights and running statistics; the generator's loss is that of the updated discriminator."""
    model = official()
    gradients = torch_names.watch_gradients(model)
    parts = {"G": model.generator, "D": model.discriminators[0]}
    for k, samples in ((1, slice(2)), (2, slice(1))):
        gradients.clear()
        losses = model.train_step((tf.constant(REAL_A[samples]), tf.constant(REAL_B[samples])))
        np.testing.assert_allclose(in_their_order(losses), theirs(f"losses{k}"), rtol=2e-5)
        for part, places in published.layout(model).items():
            if k == 1:
                for variable, gradient, key in torch_names.recorded(places, STEPS, "gradients1/" + part):
                    scale = np.abs(gradient).max()
                    ours = gradients[id(variable)]
                    np.testing.assert_allclose(ours, gradient, rtol=0, atol=1e-4 * scale + 1e-7, err_msg=key)
            recorded = torch_names.recorded(places, STEPS, f"after{k}/{part}")
            assert len(recorded) == len(parts[part].variables)
            for variable, weights, key in recorded:
                # A step moves a weight by up to 2e-4.
                np.testing.assert_allclose(variable.numpy(), weights, rtol=1e-5, atol=4e-6, err_msg=f"{part} {key}")


@pytest.mark.parametrize(
    "key, options, n", [("losses/lsgan", {"gan_loss": "lsgan"}, 2), ("losses/BtoA", {"direction": "b2a"}, 1)]
)
def test_losses_of_a_step(key, options, n, golden_masks):
    model = official(**options)
    losses = model.train_step((tf.constant(REAL_A[:n]), tf.constant(REAL_B[:n])))
    np.testing.assert_allclose(in_their_order(losses), theirs(key), rtol=2e-5)
    suffix = "a" if options.get("direction") == "b2a" else "b"
    assert f"l1_{suffix}" in losses and model.discriminators[0].name == f"discriminator_{suffix}"


def test_weight_0_drops_the_term_and_without_the_input_it_judges_pictures_alone():
    a, b = pictures(), pictures(seed=1)
    assert losses_of(built(lambda_gan=0.0), a, b).keys() == {"l1_b"}
    assert losses_of(built(lambda_l1=0.0), a, b).keys() == {"gan_a2b", "discriminator_b"}
    alone = built(conditional=False, channels_a=1)
    assert alone.discriminators[0].first.kernel.shape[2] == 3
    assert losses_of(alone, a[..., :1], b).keys() == {"gan_a2b", "l1_b", "discriminator_b"}


def test_halves_and_features_by_hand():
    x = tf.reshape(tf.range(16.0), (1, 4, 4, 1))
    # At the edges the mean of the pixels that there are.
    np.testing.assert_allclose(halved(x)[0, :, :, 0], [[2.5, 4.0], [8.5, 10.0]], rtol=1e-6)
    np.testing.assert_allclose(halved(tf.ones((2, 5, 7, 3))), np.ones((2, 3, 4, 3)), rtol=1e-6)
    fake = [[tf.fill((1, 2, 2, 1), 3.0), tf.fill((1, 1, 1, 1), 1.0), tf.zeros((1, 1, 1, 1))]] * 2
    real = [[tf.fill((1, 2, 2, 1), 1.0), tf.fill((1, 1, 1, 1), 1.5), tf.fill((1, 1, 1, 1), 9.0)]] * 2
    assert float(feature_matching(fake, real)) == 4 / 2 * (2 + 0.5)  # the logits do not count


def test_discriminators_at_several_sizes():
    model = built(discriminator="multiscale", discriminator_scales=3, lambda_features=10.0, norm="instance")
    assert [*model.networks][1:] == ["discriminator_b", "discriminator_b_1", "discriminator_b_2"]
    assert model.sizes.crop_minimum == max(64, 4 * model.discriminators[0].size_minimum)
    shapes = [maps[-1].shape[1:3] for maps in model.judge(tf.zeros((1, SIDE, SIDE, 6)))]
    assert shapes == [(14, 14), (6, 6), (2, 2)] and len(model.judge(tf.zeros((1, SIDE, SIDE, 6)))[0]) == 4
    a, b = pictures(seed=5), pictures(seed=6)
    losses = losses_of(model, a, b)
    assert losses.keys() == {"gan_a2b", "l1_b", "features_b", "discriminator_b"} and losses["features_b"] > 0
    for v in model.trainable_variables:
        v.assign(tf.zeros(v.shape))
    for discriminator in model.discriminators:
        discriminator.last.bias.assign([0.5])
    losses = losses_of(model, a, b)
    one = np.log1p(np.exp(-0.5))
    expected = {"gan_a2b": 3 * one, "features_b": 0, "discriminator_b": 1.5 * (one + np.log1p(np.exp(0.5)))}
    assert {n: losses[n] for n in expected} == pytest.approx(expected)
    model.compile()
    model.build_for_training(a.shape, b.shape)
    model.build_optimizers()
    assert np.isfinite([float(v) for v in model.train_step((tf.constant(a), tf.constant(b))).values()]).all()


def test_the_history_holds_pairs():
    """Whatever comes back for a translation has its input beside it."""
    model = built(pix2pix_variant="cyclegan_tables", pool_size=1, seed=3, **RESNET)
    model.compile(**{f"{role}_optimizer": keras.optimizers.SGD(0.0) for role in model.roles})
    a, b = pictures(4), pictures(4, seed=1)
    model.build_for_training((1, *a.shape[1:]), (1, *b.shape[1:]))
    model.build_optimizers()
    seen, judged = [], model.discriminator_phase
    model.discriminator_phase = lambda real, fake: (seen.append(fake.numpy()), judged(real, fake))[1]
    made = [model.generator(x[None], training=True).numpy()[0] for x in a]
    for k in range(4):
        model.train_step((tf.constant(a[k : k + 1]), tf.constant(b[k : k + 1])))
    inputs = [next(i for i in range(4) if np.array_equal(x[0, ..., :3], a[i])) for x in seen]
    assert inputs != [0, 1, 2, 3]
    for i, x in zip(inputs, seen):
        np.testing.assert_allclose(x[0, ..., 3:], made[i], atol=1e-5)


def test_what_is_computed_before_the_phases_changes_nothing():
    """The generator is asked twice in a step, and its moving statistics move once."""
    model = built(dropout=False)
    model.compile(**{f"{role}_optimizer": keras.optimizers.SGD(0.0) for role in model.roles})
    a, b = tf.constant(pictures(seed=2)), tf.constant(pictures(seed=3))
    model.build_for_training(a.shape, b.shape)
    model.build_optimizers()
    twin = built(dropout=False)
    twin.set_weights(model.get_weights())
    twin.generator(a, training=True)
    model.train_step((a, b))
    for ours, expected in zip(model.generator.non_trainable_variables, twin.generator.non_trainable_variables):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_fit_keeps_pairs_together():
    model, a = built(), pictures(6)
    model.compile()
    data, _ = fitting.as_dataset(model, a, -a, batch_size=2, shuffle=True)
    seen = [(x.numpy(), y.numpy()) for x, y in data]
    assert all((x == -y).all() for x, y in seen) and len({x.tobytes() for b, _ in seen for x in b}) == 6
    with pytest.raises(ValueError, match="6 and 5 images: pix2pix learns from pairs"):
        fitting.as_dataset(model, a, a[:5], batch_size=1)


# Translation


@functools.cache
def still(**options):
    """A model whose weights say something, for tests that do not change it."""
    model = built(**options)
    for v in model.generator.trainable_variables:
        if v.name == "kernel":
            v.assign(v * 30)
    return model


def with_flags(model, **flags):
    return unittest.mock.patch.object(model, "config", dataclasses.replace(model.config, **flags))


def test_one_picture_has_one_translation_and_another_seed_another():
    model, x = still(), np.random.default_rng(0).integers(0, 256, (3, SIDE, 2 * SIDE, 3), np.uint8)
    y = model.translate(x)
    np.testing.assert_array_equal(model.translate(x, batch_size=1), y)
    together = model.translate(x, batch_size=3).astype(int)
    assert np.abs(together - y).max() <= 1
    results = [y]
    for flags in ({"dropout_seed": 1}, {"test_dropout": False}):
        with with_flags(model, **flags):
            results.append(model.to_pixels(model.generate(model.to_float(tf.constant(x)))).numpy())
    distances = [np.abs(results[i].astype(int) - results[j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(distances) > 1, distances


def test_masks_are_those_of_the_dropout_seed_alone():
    one, other = still(), built(seed=7)
    other.set_weights(one.get_weights())
    x = np.zeros((SIDE, SIDE, 3), np.uint8)
    np.testing.assert_array_equal(one.translate(x), other.translate(x))
    drops = [layer for layer in one._flatten_layers() if isinstance(layer, layers.Dropout)]
    assert len({layer.index for layer in drops}) == len(drops) == 1


def test_statistics_are_the_pictures_own_or_those_of_training():
    x = pictures(2)
    model, average = still(dropout=False), built(dropout=False, test_norm="average")
    average.set_weights(model.get_weights())
    for norm in (layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)):
        assert norm.per_image != ("discriminator" in norm.path)
    both = model(x).numpy()
    np.testing.assert_allclose(both, np.concatenate([model(x[:1]), model(x[1:])]), atol=1e-5)
    np.testing.assert_allclose(both[:1], model.generator(x[:1], training=True), atol=1e-4)  # of a batch of one
    assert np.abs(average(x) - both).max() > 0.01


def test_the_other_direction_is_refused_in_words():
    model = built(direction="b2a", channels_a=1)
    assert model.directions == ("b2a",) and [*model.networks] == ["generator_b2a", "discriminator_a"]
    assert model.translate(np.zeros((30, 70, 3), np.uint8), "b2a").shape == (30, 70, 1)
    with pytest.raises(UserError, match="--direction=a2b: this model translates b2a only"):
        model.translate(np.zeros((64, 64, 1), np.uint8), "a2b")
    a, b = pictures(channels=1), pictures()
    shown = model.pictures(a, b)
    assert [*shown] == ["B", "B to A", "A"] and shown["B"] is b and shown["A"] is a


def test_how_it_translates_may_change_afterwards_and_what_it_learned_may_not(tmp_path):
    before, after, other = (
        settings.resolve("pix2pix", {**TINY, "data": "emoji", **more})
        for more in ({}, {"test_dropout": False, "test_norm": "average", "dropout_seed": 3}, {"lambda_l1": 3.0})
    )
    stored = {"run": before}
    loop._compare(stored, after, tmp_path)
    with pytest.raises(UserError, match="--lambda_l1 was 100.0, is 3.0"):
        loop._compare(stored, other, tmp_path)


def test_a_note_says_that_dropout_is_on():
    assert "--dropout_seed=5: one picture always has one" in built(dropout_seed=5).translation_note
    assert built(test_dropout=False).translation_note is built(dropout=False).translation_note is None
