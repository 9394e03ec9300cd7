"""MUNIT against hand-made answers and what the official code computed."""

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
from tfi2i import config
from tfi2i.methods import perceptual
from tfi2i.methods.munit import config as munit_config
from tfi2i.methods.munit import model as munit
from tfi2i.methods.munit import published
from tfi2i.methods.munit.model import MUNIT
from tfi2i.metrics import candidates

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"

# A small model for tests of all methods, and the side of its training images.
TINY = {"generator_width": 4, "mlp_width": 16, "style_size": 3}
TINY |= {"discriminator_width": 4, "discriminator_layers": 2, "discriminator_scales": 2}
SIDE = 16
# Each weight of the style's MLP changes a whole map, and 8 bits are few for that.
LITERT = {"int16x8": 20}
SMALL = {"generator_width": 2, "mlp_width": 4, "style_size": 3}
SMALL |= {"discriminator_width": 2, "discriminator_layers": 2, "discriminator_scales": 2}


def built(**options):
    model = MUNIT(**{**SMALL, **options})
    model.build((None, None, None, model.channels_a))
    return model


def ready(side=16, optimizer=None, **options):
    """A small model with optimizers, ready for `train_step`; of an optimizer each role gets its own copy."""
    model = MUNIT(**{**SMALL, **options})
    model.compile(**{f"{role}_optimizer": optimizer and optimizer() for role in model.roles})
    model.build_for_training((1, side, side, model.channels_a), (1, side, side, model.channels_b))
    model.build_optimizers()
    return model


@functools.cache
def still():
    """A small model for tests that do not change its weights."""
    return built(lambda_cycle=10.0)


def with_options(model, **options):
    """Context in which the model has other hyper-parameters, which its networks do not depend on."""
    return unittest.mock.patch.object(model, "config", dataclasses.replace(model.config, **options))


def images(side=16, n=1, channels=3, seed=0):
    draw = np.random.default_rng(seed)
    return tf.constant(draw.uniform(-1, 1, (n, side, side, channels)).astype("float32"))


def styles(n=1, size=3, seed=0):
    """Arguments of the phases."""
    draw = np.random.default_rng(seed)
    return {f"style_{d}": tf.constant(draw.normal(size=(n, size)).astype("float32")) for d in "ab"}


# Networks


@nothing_drawn()
def test_parameters():
    model = MUNIT()
    model.build((None, None, None, 3))
    counts = {name: network.count_params() for name, network in model.networks.items()}
    assert counts["content_encoder_a"] == 5_385_856 and counts["style_encoder_b"] == 2_764_936
    assert counts["decoder_a"] == 5_754_627 + 1_120_768  # and its MLP
    assert counts["discriminator_b"] == 8_271_171
    assert sum(counts.values()) == 46_594_716


def test_sizes_of_contents_styles_and_images():
    model = MUNIT(channels_b=1, **SMALL)
    x = images(24)[:, :, :16]
    content = model.content_of(x, "a")
    assert content.shape == (1, 6, 4, 8) and model.style_of(x, "a").shape == (1, 3)
    assert model.decode(content, tf.zeros((1, 3)), "b").shape == (1, 24, 16, 1)
    assert model.generators["b2a"](x[..., :1], tf.zeros((1, 3))).shape == (1, 24, 16, 3)
    assert MUNIT().sizes.crop_minimum == 64  # the authors' discriminators
    assert model.sizes.crop_minimum == 16
    # A reference may be of any size, and the style encoder needs 16 pixels.
    small = images(16)[:, :3, :5]
    assert model.encode_style(small, "b2a").shape == (1, 3)
    np.testing.assert_array_equal(model.encode_style(x, "b2a"), model.style_of(x, "a"))


def test_adain_by_hand():
    block = munit.AdaptiveBlock(1, dtype="float32", name="block")
    x = np.float32([1, 2, 3, 4]).reshape(1, 2, 2, 1)
    block.norm_1.build(x.shape)
    # Deviations -1.5 … 1.5 from the mean, biased variance 1.25; the factor is 3 and not 1 + 3.
    y = block.norm_1(x, np.float32([[3]]), np.float32([[0.5]]))
    np.testing.assert_allclose(np.ravel(y), [-3.5249, -0.8416, 1.8416, 4.5249], atol=1e-4)


def test_offsets_and_factors_are_cut_in_the_order_of_the_layers():
    decoder = munit.Decoder(3, 1, 2, 4, name="decoder")
    decoder.build((None, None, None, 4))
    last = decoder.mlp[-1]
    last.kernel.assign(tf.zeros(last.kernel.shape))
    last.bias.assign(np.arange(64, dtype="float32"))
    vectors = decoder.offsets_and_factors(np.ones((1, 2), "float32"))
    np.testing.assert_array_equal(np.concatenate(vectors, axis=1), [np.arange(64)])
    assert len(vectors) == 16  # two norms in each of four blocks
    seen = []
    for block in decoder.blocks:
        block.call = lambda x, *given, block=block: seen.append((block, given)) or x
    decoder(np.zeros((1, 4, 4, 4), "float32"), np.ones((1, 2), "float32"))
    assert [given[0][0, 0] for _, given in seen] == [0, 16, 32, 48]


def test_initial_weights():
    model = built(generator_width=16, discriminator_width=16, mlp_width=64)
    for name, network in model.networks.items():
        for layer in network._flatten_layers():
            if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
                kernel = layer.kernel.numpy()
                expected = 0.02 if name.startswith("discriminator") else (2 / np.prod(kernel.shape[:-1])) ** 0.5
                if kernel.size > 2_000:
                    assert kernel.std() == pytest.approx(expected, rel=0.05), (name, layer.name)
                assert not layer.bias.numpy().any()
    gamma = np.concatenate([layer.gamma.numpy() for d in (model.decoder_a, model.decoder_b) for layer in d.norms])
    assert gamma.min() >= 0 and gamma.max() <= 1 and gamma.std() == pytest.approx(12**-0.5, rel=0.2)


def test_the_style_changes_the_picture_and_no_statistics_of_the_content_do():
    model, x = still(), images(seed=3)
    one, two = (model.generators["a2b"](x, styles(seed=s)["style_b"]).numpy() for s in (0, 1))
    assert np.abs(one - two).max() > 1e-2
    # A sample of a batch is what it is alone.
    both = tf.concat([x, images(seed=4)], 0)
    pair = model.generators["a2b"](both, tf.concat([styles(seed=s)["style_b"] for s in (0, 1)], 0)).numpy()
    np.testing.assert_allclose(pair[0], one[0], atol=1e-5)


# Losses by hand


def test_constant_images_give_the_losses_known_by_hand():
    weights = {"gan": 2.0, "reconstruction": 3.0, "style": 5.0, "content": 7.0, "cycle": 11.0}
    model = built(**{f"lambda_{name}": weight for name, weight in weights.items()})
    # Zero weights: contents, styles and images are 0; discriminators answer their last bias, 0.25 (A) and 0.5 (B).
    for v in model.trainable_variables:
        v.assign(tf.zeros(v.shape))
    for network, bias in ((model.discriminator_a, 0.25), (model.discriminator_b, 0.5)):
        for last in network.last:
            last.bias.assign([bias])
    a, b = tf.fill((1, 16, 16, 3), 0.5), tf.fill((1, 16, 16, 3), -0.25)
    drawn = {"style_a": tf.constant([[1.0, -2.0, 3.0]]), "style_b": tf.constant([[0.0, 0.0, 6.0]])}
    losses, _ = model.generator_phase(a, b, **drawn)
    scales = 2
    assert {k: float(v) for k, v in losses.items()} == pytest.approx({
        "gan_a2b": 2 * scales * 0.5**2, "gan_b2a": 2 * scales * 0.75**2,
        "reconstruction_a": 3 * 0.5, "reconstruction_b": 3 * 0.25, "style_a": 5 * 2, "style_b": 5 * 2,
        "content_a": 0, "content_b": 0, "cycle_a": 11 * 0.5, "cycle_b": 11 * 0.25,
    })  # fmt: skip
    losses, _ = model.discriminator_phase(a, b, **drawn)
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(
        {"discriminator_a": 2 * scales * (0.75**2 + 0.25**2), "discriminator_b": 2 * scales * (0.5**2 + 0.5**2)}
    )


def test_weights_of_0_leave_their_streams_out():
    model, a, b, drawn = still(), images(seed=1), images(seed=2), styles(seed=3)
    full, _ = model.generator_phase(a, b, **drawn)
    assert len(full) == 10
    for kinds in (("gan", "cycle"), ("reconstruction", "content"), ("style", "content", "cycle")):
        with with_options(model, **{f"lambda_{kind}": 0.0 for kind in kinds}):
            part, _ = model.generator_phase(a, b, **drawn)
        gone = {n for n in full if n.rsplit("_", 1)[0] in kinds}
        assert len(gone) == 2 * len(kinds) and set(full) - set(part) == gone
        for name in part:
            np.testing.assert_allclose(part[name], full[name], rtol=1e-5, err_msg=f"without {kinds}: {name}")


def test_perceptual_loss_compares_a_translation_with_its_source(monkeypatch):
    monkeypatch.setattr(perceptual, "domain_invariant_features", lambda **kwargs: keras.layers.Identity())
    model, a, b, drawn = built(lambda_vgg=2.0), images(seed=1), images(seed=2), styles(seed=3)
    assert model.frozen and "perceptual" not in model.networks
    losses, _ = model.generator_phase(a, b, **drawn)
    fake_a = model.generators["b2a"](b, drawn["style_a"])
    expected = 2 * float(tf.reduce_mean((fake_a - b) ** 2))
    assert float(losses["perceptual_b2a"]) == pytest.approx(expected, rel=1e-4)


# Steps


def test_discriminators_learn_first_each_phase_from_styles_of_its_own():
    model = ready(optimizer=lambda: keras.optimizers.SGD(1.0))
    a, b = images(n=2, seed=1), images(n=2, seed=2)
    before, seen, phase = model.discriminator_b.last[0].bias.numpy(), [], model.phase

    def watched(compute, role, **inputs):
        seen.append((role, model.discriminator_b.last[0].bias.numpy(), inputs))
        return phase(compute, role, **inputs) if role == "discriminator" else ({}, {})

    model.phase = watched
    model.train_step((a, b))
    assert [role for role, *_ in seen] == ["discriminator", "generator"]
    assert (seen[0][1] == before).all() and (seen[1][1] != before).all()
    model.train_step((a, b))
    drawn = [row for *_, inputs in seen for d in "ab" for row in inputs[f"style_{d}"].numpy()]
    assert len({tuple(row) for row in drawn}) == len(drawn) == 2 * 2 * 2 * 2
    model.step.assign(0)
    model.train_step((a[1:], b[1:]))  # alone it is sample 0
    np.testing.assert_array_equal(seen[-1][2]["style_a"][0], seen[1][2]["style_a"][0])


@pytest.mark.parametrize("options", [{"gan_loss": "vanilla", "lambda_content": 0.0}, {"lambda_gan": 0.0}])
def test_variants_learn(options):
    model = ready(optimizer=lambda: keras.optimizers.SGD(1.0), channels_b=1, **options)
    before = {n: [v.numpy() for v in net.trainable_variables] for n, net in model.networks.items()}
    losses = model.train_step((images(), images(channels=1)))
    assert all(np.isfinite(v) for v in losses.values())
    for name, network in model.networks.items():
        stays = name.startswith("discriminator") and not model.config.lambda_gan
        moved = any((v.numpy() != old).any() for v, old in zip(network.trainable_variables, before[name]))
        assert moved != stays, name


# Configuration


@pytest.mark.parametrize(
    "options, message",
    [
        ({"style_size": 0}, "--style_size=0: expected more than 0"),
        ({"gan_loss": "hinge"}, "--gan_loss=hinge: expected one of lsgan, vanilla"),
        ({"lambda_style": -1.0}, "--lambda_style=-1.0: expected 0 or more"),
        (
            {f"lambda_{name}": 0.0 for name in ("gan", "reconstruction", "style", "content")},
            "--lambda_gan, .*--lambda_vgg are all 0: nothing is left to learn",
        ),
    ],
)
def test_impossible_configurations(options, message):
    with pytest.raises(config.UserError, match=message):
        munit_config.MUNIT(**options)


def test_perceptual_loss_wants_colour():
    with pytest.raises(config.UserError, match="--channels_a=3"):
        MUNIT(channels_a=1, lambda_vgg=1.0, **SMALL)


# What the official code computed (tests/golden/README.md)


@functools.cache
def golden(name):
    return np.load(GOLDEN / f"munit_{name}.npz")


def take(model, places, file, prefix="weights"):
    """Gives a part of the model its arrays of a golden file."""
    for key, place in places.items():
        place.variable.assign(place.ours(file[f"{prefix}/{key}"]))


def sparse(x):
    return np.asarray(x)[:, ::3, ::3]


def test_official_generators():
    file = golden("generator")
    model = built()
    take(model, published.layout(model)["gen_b"], file)
    sizes = [name.split("/")[1] for name in file.files if name.startswith("input/")]
    assert len(sizes) == 3
    for size in sizes:
        x = tf.constant(file[f"input/{size}"])
        content, style = model.content_of(x, "b"), model.style_of(x, "b")
        np.testing.assert_allclose(content, file[f"content/{size}"], atol=1e-4)
        np.testing.assert_allclose(style, file[f"style/{size}"], atol=1e-5)
        for kind, given in (("same", style), ("other", file[f"drawn/{size}"])):
            np.testing.assert_allclose(sparse(model.decode(content, given, "b")), file[f"{kind}/{size}"], atol=1e-4)


LOSSES = {
    "adv_a": ("gan_b2a", 1), "adv_b": ("gan_a2b", 1), "recon_x_a": ("reconstruction_a", 10),
    "recon_x_b": ("reconstruction_b", 10), "recon_s_a": ("style_a", 1), "recon_s_b": ("style_b", 1),
    "recon_c_a": ("content_a", 1), "recon_c_b": ("content_b", 1), "cycrecon_x_a": ("cycle_a", 10),
    "cycrecon_x_b": ("cycle_b", 10),
}  # fmt: skip


def official(make, **options):
    """The golden model; `make` makes it."""
    model = make(generator_width=1, **options)
    for part, places in published.layout(model).items():
        take(model, places, golden("model"), f"weights/{part}")
    return model


@functools.cache
def still_official():
    """The golden model for tests that do not change its weights."""
    return official(built)


def inputs(step, samples):
    file = golden("model")
    given = {d: tf.constant(file[f"real_{d}"][samples]) for d in "ab"}
    return given | {f"style_{d}": tf.constant(file[f"styles/{step}/{d}"][samples]) for d in "ab"}


def assert_losses(ours, theirs):
    names = [str(n).removeprefix("loss_gen_") for n in golden("model")["gen_loss_names"]]
    theirs = dict(zip(names, theirs))
    for name, (mine, weight) in LOSSES.items():
        if mine in ours:
            np.testing.assert_allclose(ours[mine], weight * theirs[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(sum(ours.values()), theirs["total"], rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("mode, kind", [("lsgan", "lsgan"), ("nsgan", "vanilla")])
def test_losses_of_the_official_model(mode, kind, n):
    model, file = still_official(), golden("model")
    with with_options(model, gan_loss=kind):
        judged, _ = model.discriminator_phase(**inputs("dis", slice(n)))
        losses, _ = model.generator_phase(**inputs("gen", slice(n)))
    expected = file[f"dis_losses/{mode}/batch{n}"]
    np.testing.assert_allclose([judged["discriminator_a"], judged["discriminator_b"]], expected[:2], rtol=1e-5)
    assert len(losses) == 8
    assert_losses(losses, file[f"gen_losses/{mode}/batch{n}"])


def test_cycle_of_the_official_model():
    model = still_official()
    with with_options(model, lambda_cycle=10.0):
        losses, _ = model.generator_phase(**inputs("gen", slice(1)))
    assert len(losses) == 10
    assert_losses(losses, golden("model")["gen_losses/cycle/batch1"])


def before_norm(key):
    """Whether KEY is a bias whose true gradient is 0: a norm follows. The last layer norm has one channel here."""
    return key.endswith("bias") and key.startswith(("enc_content.", "dec.model.0.", "dec.model.4."))


def test_two_official_steps():
    model, steps = official(ready, lambda_cycle=10.0), golden("steps")
    gradients = torch_names.watch_gradients(model)
    for k in (1, 2):
        losses, _ = model.phase(model.discriminator_phase, "discriminator", **inputs("dis", slice(k - 1, k)))
        np.testing.assert_allclose(sum(losses.values()), steps[f"dis_losses{k}"][-1], rtol=2e-5)
        losses, _ = model.phase(model.generator_phase, "generator", **inputs("gen", slice(k - 1, k)))
        np.testing.assert_allclose(sum(losses.values()), steps[f"gen_losses{k}"][-1], rtol=2e-5)
        for part, places in published.layout(model).items() if k == 1 else ():
            places = {key: place for key, place in places.items() if not before_norm(key)}
            ours = np.concatenate([gradients[id(p.variable)].ravel() for p in places.values()])
            theirs = [p.ours(steps[f"gradients1/{part}/{key}"]).ravel() for key, p in places.items()]
            theirs = np.concatenate(theirs)
            assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs), part
            for key, place in places.items():
                after = place.ours(steps[f"after1/{part}/{key}"])  # a step moves a weight by up to 1e-4
                np.testing.assert_allclose(place.variable.numpy(), after, rtol=0, atol=2e-6, err_msg=key)


@pytest.mark.thorough
def test_official_networks_of_the_published_width():
    """Weights made by a formula; figures of the official classes, in float32."""
    with nothing_drawn():
        model = MUNIT(lambda_cycle=10.0)
        model.build((None, None, None, 3))
    for part, first in (("gen_a", 0), ("gen_b", 1000), ("dis_a", 2000), ("dis_b", 3000)):
        for t, (key, place) in enumerate(published.layout(model)[part].items(), first):
            x = 43758.5453 * np.sin(12.9898 * np.arange(np.prod(place.shape), dtype=np.float64) + 78.233 * t)
            r = (2 * (x - np.floor(x)) - 1).reshape(place.shape)
            if key.endswith("gamma"):
                r = 1 + 0.1 * r
            else:
                r *= 0.1 if key.endswith(("bias", "beta")) else np.sqrt(6 / np.prod(place.shape[1:]))
            place.variable.assign(place.ours(r.astype(np.float32)))
    h, w, c = np.meshgrid(*map(np.arange, (64, 64, 3)), indexing="ij")
    a = np.sin(0.1 * h + 0.2 * w + c).astype(np.float32)[None]
    b = np.cos(0.15 * h - 0.1 * w + c).astype(np.float32)[None]
    style = np.linspace(-1, 1, 8, dtype=np.float32)[None]
    expected = [1.02455, -0.84961, -0.17718, 1.50774, -0.53753, -0.38057, 0.33255, 0.43978]
    np.testing.assert_allclose(model.style_of(a, "a")[0], expected, atol=1e-4)
    content = model.content_of(a, "a")
    y = model.decode(content, style, "a").numpy()
    np.testing.assert_allclose(y[0, 3, 5], [0.11968, 0.52765, 0.90120], atol=1e-4)
    losses, _ = model.generator_phase(*map(tf.constant, (a, b, style, -style)))
    names = ("gan_b2a", "gan_a2b", "style_a", "style_b", "content_a", "content_b", "cycle_a", "cycle_b")
    expected = [14.49207, 12.44861, 0.92630, 1.08749, 2.32648, 2.34552, 7.8725, 7.9026]
    np.testing.assert_allclose([losses[n] for n in names], expected, rtol=1e-4)
    assert float(sum(losses.values())) == pytest.approx(65.232, rel=1e-4)
    losses, _ = model.discriminator_phase(*map(tf.constant, (a, b, style, -style)))
    np.testing.assert_allclose(list(losses.values()), [21.16019, 17.42877], rtol=1e-4)


def test_a_student_is_measured_beside_what_it_learned():
    """The mean style for every picture; and with styles of its own a way back would have another style than A's."""
    model, x = still(), np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    teacher, own = candidates.of_model(model, mean_style=True), candidates.of_model(model)
    mean = model.translate(x, "a2b", style=np.zeros(3))
    np.testing.assert_array_equal(teacher.translate(x, "a2b", ["p", "q"]), mean)
    assert not np.array_equal(own.translate(x, "a2b", ["p", "q"]), mean)
    assert (teacher.styled, teacher.cycles) == (False, False) and (own.styled, own.cycles) == (True, False)
