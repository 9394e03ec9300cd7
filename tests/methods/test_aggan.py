"""AGGAN against hand-made answers and the official TensorFlow code's."""

import dataclasses
import functools
import json
import pathlib
import unittest.mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfi2i.export import verify

from tests.drawing import nothing_drawn
from tfi2i import export, pictures, settings
from tfi2i.config import UserError
from tfi2i.data import images
from tfi2i.methods.aggan import model as aggan
from tfi2i.methods.aggan import published
from tfi2i.methods.aggan.model import AGGAN
from tfi2i.metrics import faithfulness
from tfi2i.optim import Schedule
from tfi2i.translation import translate_files

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
# A small model for tests of all methods, and the side of its training images.
TINY = {"generator_width": 4, "residual_blocks": 1, "discriminator_width": 4, "pool_size": 3}
SIDE = 16


@functools.cache
def built(**options):
    """A small model for the tests that leave its weights as they are."""
    model = AGGAN(**TINY | options)
    model.build((None, None, None, model.channels_a))
    return model


def ready(shape=(1, SIDE, SIDE, 3), **options):
    """A small model with optimizers, ready for `train_step`."""
    model = AGGAN(**TINY | options)
    model.compile()
    model.build_for_training(shape, shape)
    model.build_optimizers()
    return model


def noise(count=1):
    """A batch of each domain."""
    return tuple(tf.random.stateless_uniform((2, count, SIDE, SIDE, 3), (0, 0), -1, 1))


def values(variables):
    return [v.numpy() for v in variables]


def unphased(model):
    """While open, phases compute their losses and nothing learns."""
    return unittest.mock.patch.object(model, "phase", lambda compute, role, learned, **inputs: compute(**inputs))


def losses_of(model, a, b, stage=None):
    """The losses of a step that is not taken."""
    with unphased(model):
        return {name: float(v) for name, v in model.learn(a, b, tf.range(a.shape[0]), stage).items()}


# By hand


def test_discriminators_see_the_foreground_alone():
    x = tf.reshape(tf.range(1.0, 7.0), (1, 1, 3, 2))
    mask = tf.constant([0.05, 0.1, 0.7], shape=(1, 1, 3, 1))
    with tf.GradientTape() as tape:
        tape.watch(mask)
        seen = aggan.foreground(x, mask, 0.1)
    np.testing.assert_array_equal(seen, [[[[0, 0], [3, 4], [5, 6]]]])
    np.testing.assert_array_equal(aggan.foreground(x, mask, 0.0), x)
    assert tape.gradient(seen, mask) is None


def constant_model(mask, value, judged):
    """Zero weights but for last biases: masks of logit `mask`, generators that paint tanh(`value`), logits `judged`."""
    model = AGGAN(**TINY | {"pool_size": 0}, lambda_a=3.0, lambda_b=5.0)
    model.build((None, None, None, 3))
    for v in model.trainable_variables:
        v.assign(tf.zeros(v.shape))
    for domain, direction in (("a", "a2b"), ("b", "b2a")):
        model.networks[f"attention_{domain}"].last.bias.assign([mask])
        model.networks[f"generator_{direction}"].tail.bias.assign([value] * 3)
        model.networks[f"discriminator_{domain}"].last.bias.assign([judged[domain]])
    return model


def test_constant_images_give_losses_known_by_hand():
    """Masks of 1/2 and black generators halve an image on its way there, and once more on its way back."""
    model = constant_model(0.0, 0.0, {"a": 0.25, "b": 0.5})
    a, b = tf.fill((1, SIDE, SIDE, 3), 0.5), tf.fill((1, SIDE, SIDE, 3), -0.25)
    np.testing.assert_allclose(model(a), np.full(a.shape, 0.25), atol=1e-7)
    for stage in (None, "foreground"):
        assert losses_of(model, a, b, stage) == pytest.approx({
            "gan_a2b": 0.25, "gan_b2a": 0.5625, "cycle_a": 3 * 0.375, "cycle_b": 5 * 0.1875,
            "discriminator_a": 0.5 * (0.75**2 + 0.25**2), "discriminator_b": 0.5 * (0.5**2 + 0.5**2),
        })  # fmt: skip


@pytest.mark.parametrize("mask, kept", [(-40.0, True), (40.0, False)])
def test_a_black_mask_keeps_the_input_to_the_last_digit(mask, kept):
    model = constant_model(mask, 0.5, {"a": 0.0, "b": 0.0})
    x = np.random.default_rng(0).uniform(-1, 1, (1, 18, 21, 3)).astype(np.float32)
    y, mask = model.generate(tf.constant(x)), model.attention(tf.constant(x))
    if kept:
        np.testing.assert_array_equal(y, x)
    else:
        np.testing.assert_allclose(y, np.full(x.shape, np.tanh(0.5)), atol=1e-6)
    np.testing.assert_allclose(mask, np.full((1, 18, 21, 1), 0.0 if kept else 1.0), atol=1e-9)


def test_masks_are_equal_in_blocks_of_4_pixels():
    x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)
    mask = built().attention_a(x).numpy()
    blocks = mask.reshape(2, 4, 4, 6, 4)
    assert (blocks == blocks[:, :, :1, :, :1]).all() and mask.std() > 0


# At full width, the numbers that the official code gives for weights and images by a formula


def by_formula(t, name, shape):
    """The array number t of the official names in order, float32: r from -1 to 1, with the scale of its kind."""
    r = 43758.5453 * np.sin(12.9898 * np.arange(np.prod(shape)) + 78.233 * t)
    r = (2 * (r - np.floor(r)) - 1).reshape(shape)
    if name.endswith("weights"):
        r *= np.sqrt(6 / (shape[0] * shape[1] * shape[3 if "transpose" in name else 2]))
    else:
        r = r * 0.1 + name.endswith("scale")
    return r.astype(np.float32)


def places_of(model):
    """dict of the official code's name → `Place`."""
    layout = published.layout(model, tensorflow=True)
    return {f"Model/{part}/{key}": place for part, own in layout.items() for key, place in own.items()}


@functools.cache
def full_width():
    """The model at the published widths with weights by formula."""
    with nothing_drawn():
        model = AGGAN(pool_size=0)
        model.build((None, None, None, 3))
    places = places_of(model)
    # The code makes norms behind the last convolutions and does not use them.
    unused = {f"Model/{part}/{last}/instance_norm/{n}" for part, last in published.UNUSED.items() for n in
              ("scale", "offset")}  # fmt: skip
    names = sorted(places.keys() | unused)
    assert len(names) == 288
    for t, name in enumerate(names):
        if name in places:
            places[name].variable.assign(places[name].ours(by_formula(t, name, places[name].shape)))
    h, w, c = np.meshgrid(np.arange(64), np.arange(64), np.arange(3), indexing="ij")
    return model, np.float32(np.sin(0.1 * h + 0.2 * w + c))[None], np.float32(np.cos(0.15 * h - 0.1 * w + c))[None]


def test_parameters():
    model, *_ = full_width()
    counts = {n: sum(int(np.prod(v.shape)) for v in net.trainable_variables) for n, net in model.networks.items()}
    of_kind = {"generator": 2_855_811, "attention": 104_001, "discriminator": 2_766_657}
    assert counts == {name: of_kind[name.split("_")[0]] for name in model.networks}
    convolutions = model.discriminator_a.learned(normalized=False)
    assert sum(int(np.prod(v.shape)) for v in convolutions) == 2_764_737


def test_translations_at_full_width():
    model, a, _ = full_width()
    made = model.generator_a2b(a)
    fake, mask = model.blend(a, "a2b")
    assert np.mean(mask) == pytest.approx(0.290299, abs=2e-6) and np.std(mask) == pytest.approx(0.145027, abs=2e-6)
    assert float(mask[0, 3, 5, 0]) == pytest.approx(0.389868, abs=2e-6)
    np.testing.assert_allclose(made[0, 3, 5], [-0.733415, -0.142463, -0.374653], atol=1e-5)
    np.testing.assert_allclose(fake[0, 3, 5], [0.301962, 0.399437, -0.242311], atol=5e-6)
    assert np.mean(fake) == pytest.approx(0.053366, abs=2e-6) and np.std(fake) == pytest.approx(0.540155, abs=2e-6)


@pytest.mark.parametrize(
    "threshold, stage, gan_b2a, gan_a2b, of_a, of_b, share",
    [
        (0.0, None, 1.839141, 2.985404, 1.329930, 2.047539, 1.0),
        (0.1, "foreground", 3.764765, 2.184512, 2.858962, 1.761752, 0.941406),
        (0.5, "foreground", 1.792969, 1.194317, 0.840056, 0.829100, 0.089844),
    ],
)
def test_losses_at_full_width(threshold, stage, gan_b2a, gan_a2b, of_a, of_b, share, monkeypatch):
    model, a, b = full_width()
    monkeypatch.setattr(model, "config", dataclasses.replace(model.config, mask_threshold=threshold))
    assert losses_of(model, tf.constant(a), tf.constant(b), stage) == pytest.approx({
        "gan_a2b": gan_a2b, "gan_b2a": gan_b2a, "cycle_a": 4.159633, "cycle_b": 4.194983,
        "discriminator_a": of_a, "discriminator_b": of_b,
    }, rel=3e-6)  # fmt: skip
    assert np.mean(model.attention_a(a) >= threshold) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("side, expected", [(256, 35), (64, 11), (8, 4)])
def test_discriminator_sizes(side, expected):
    network = aggan.Discriminator(1)
    assert network(np.zeros((1, side, side, 3), np.float32)).shape == (1, expected, expected, 1)


# Steps


def recorded(file, key):
    """dict of the official code's name → array, of one of the golden file's arrays of all variables."""
    variables = json.loads(str(file["variables"]))
    ends = np.cumsum([int(np.prod(shape)) for _, shape in variables])
    parts = np.split(file[key], ends[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(variables, parts, strict=True)}


def test_two_steps_through_the_switch():
    """Images, losses, gradients and weights of a step of each stage, one optimizer's powers of β throughout."""
    file = np.load(GOLDEN / "aggan_steps.npz")
    batches = file["images"][:, :, None]  # [step, domain, 1, H, W, C]
    shape = batches.shape[2:]
    rate = float(file["rate"])
    model = AGGAN(generator_width=1, discriminator_width=2, mask_threshold=float(file["threshold"]))
    # The rates that were recorded: 1, then 3/4.
    falling = Schedule(rate, "linear_torch7", 4, 1, 1.0, updates_per_step=2)
    model.compile(**{f"{role}_optimizer": model.published_optimizer(role, falling) for role in model.roles})
    model.build_for_training(shape, shape)
    model.build_optimizers()
    places, weights = places_of(model), recorded(file, "weights")
    assert len(weights) == 288
    for name, place in places.items():
        place.variable.assign(place.ours(weights[name]))

    a, b = batches[0]
    for name, image in {
        "mask_a": model.attention_a(a), "mask_b": model.attention_b(b),
        "fake_b": model.blend(a, "a2b")[0], "fake_a": model.blend(b, "b2a")[0],
        "cycle_a": model.blend(model.blend(a, "a2b")[0], "b2a")[0],
        "cycle_b": model.blend(model.blend(b, "b2a")[0], "a2b")[0],
    }.items():  # fmt: skip
        np.testing.assert_allclose(image, file[f"images/{name}"][..., : image.shape[-1]], atol=1e-5, err_msg=name)
    fake, mask = model.blend(a, "a2b")
    for stage, first in ((1, True), (2, False)):
        judged = {"real_a": model.judge("a", first, a, mask), "fake_b": model.judge("b", first, fake, mask)}
        for name, logits in judged.items():
            np.testing.assert_allclose(logits, file[f"judged{stage}/{name}"], atol=1e-5)

    def known(name):
        """Whether a weight's gradient is more than rounding: a bias before a norm has none."""
        norm = "/".join(name.split("/")[:-2]) + "/instance_norm/scale"
        return not (name.endswith("biases") and norm in places)

    for k, stage in enumerate((None, "foreground")):
        losses = model.train_step(tuple(map(tf.constant, batches[k])), stage)
        expected = {n: float(file[f"losses{k + 1}/{n}"]) for n in ("discriminator_a", "discriminator_b")}
        expected |= {f"gan_{d}": float(file[f"losses{k + 1}/gan_{d}/{d}"]) for d in ("a2b", "b2a")}
        expected |= {n: 10 * float(file[f"losses{k + 1}/{n}/a2b"]) for n in ("cycle_a", "cycle_b")}
        assert {n: float(v) for n, v in losses.items()} == pytest.approx(expected, rel=1e-5 if k == 0 else 2e-4)
        if k == 0:
            momenta = {v.path: v.numpy() for role in model.roles for v in model.optimizer_of(role).variables}
            gradients = recorded(file, "gradients1")
            for name in filter(known, places):
                role = "discriminator" if "/d_" in name else "generator"
                path = places[name].variable.path.replace("/", "_")
                theirs, ours = places[name].ours(gradients[name]), 2 * momenta[f"{role}_adam/{path}_momentum"]
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-4 * np.abs(theirs).max(), err_msg=name)
        after = recorded(file, f"after{k + 1}")
        for name in filter(known, places):
            # After the switch norms of the discriminators rest here, and are moved by momentum there.
            if not (stage and "/d_" in name and "instance_norm" in name):
                # A step moves a weight by about its rate, 1e-3.
                theirs, ours = places[name].ours(after[name]), places[name].variable.numpy()
                known_after = ~np.isnan(theirs)  # the others depend on rounding there
                np.testing.assert_allclose(
                    ours[known_after], theirs[known_after], rtol=0, atol=3e-5, err_msg=f"{k} {name}"
                )


def test_what_is_frozen_from_the_switch_on():
    model = ready()
    frozen = [*model.attention_a.variables, *model.attention_b.variables]
    frozen += [v for d in (model.discriminator_a, model.discriminator_b) for _, norm in d.inner for v in norm.variables]
    batch = noise()
    model.train_step(batch)  # leaves momentum behind
    before, others = values(frozen), values(model.trainable_variables)
    model.train_step(batch, "foreground")
    for v, old in zip(frozen, before):
        np.testing.assert_array_equal(v, old, err_msg=v.path)
    rest = {id(v) for v in frozen}
    for v, old in zip(model.trainable_variables, others):
        assert id(v) in rest or not v.path.endswith("kernel") or (v.numpy() != old).any(), v.path


def test_the_stage_is_that_of_the_epoch():
    model = AGGAN(**TINY, switch_epoch=2.5)
    assert model.stage(10**6) is None  # the length of an epoch is not known
    model.steps_per_epoch = 10
    assert [model.stage(step) for step in (0, 24, 25, 99)] == [None, None, "foreground", "foreground"]
    model = AGGAN(**TINY, switch_epoch=0)
    model.steps_per_epoch = 1
    assert model.stage(0) == "foreground"


def test_discriminators_learn_from_pairs_of_image_and_mask():
    """What goes into the pool is the image before the generator's update with its own mask; what comes out is judged
    with the mask that it was stored with."""
    model, (a, b) = ready(mask_threshold=0.6), noise()
    fake, mask = (x.numpy() for x in model.blend(a, "a2b", training=True))
    real_mask = model.attention_b(b)
    seen, stored = [], tf.concat([tf.ones_like(a), tf.fill((1, SIDE, SIDE, 1), 0.7)], axis=-1)
    model.pool_b.query = lambda x, step, indices: (seen.append(x), stored)[1]
    judge = model.discriminator_b
    shown_real, shown_fake = aggan.foreground(b, real_mask, 0.6), tf.ones_like(a)
    judged = [judge(x, normalized=False) for x in (shown_real, shown_fake)]
    expected = 0.5 * (np.mean((judged[0] - 1.0) ** 2) + np.mean(judged[1] ** 2))
    losses = model.train_step((a, b), "foreground")
    np.testing.assert_allclose(seen[0], np.concatenate([fake, mask], axis=-1), atol=1e-5)
    assert float(losses["discriminator_b"]) == pytest.approx(expected, rel=1e-5)


def test_where_weights_start():
    """Drawn from a normal distribution that is cut off at two deviations, factors of norms around 1."""
    model = AGGAN(**TINY | {"generator_width": 16})
    model.build((None, None, None, 3))
    for network in (model.generator_a2b, model.attention_a):
        kernel = next(v for v in network.variables if v.name == "kernel" and v.shape[-1] == 32).numpy()
        assert kernel.std() == pytest.approx(0.0176, rel=0.05) and np.abs(kernel).max() <= 0.04
    for v in model.trainable_variables:
        x = v.numpy()
        if v.name == "gamma":
            assert 0 < np.abs(x - 1).max() <= 0.0401
        elif v.name in ("beta", "bias"):
            assert not x.any()
    one, other = (net.head_norm.gamma.numpy() for net in (model.generator_a2b, model.generator_b2a))
    assert (one != other).any()


# Flags


def test_defaults_are_the_papers():
    run = settings.resolve("aggan", {"data": "emoji"})
    m, t, d = run.model, run.training, run.data
    assert (m.generator_width, m.residual_blocks, m.discriminator_width) == (32, 9, 64)
    assert (m.switch_epoch, m.mask_threshold, m.lambda_a, m.lambda_b, m.pool_size) == (30, 0.1, 10, 10, 50)
    assert (m.learning_rate, m.beta_1, m.beta_2, m.weight_decay) == (1e-4, 0.5, 0.999, 0)
    assert (t.batch_size, t.epochs, d.flip, d.resize, d.crop, d.resize_filter) == (
        1,
        100,
        0.5,
        (286, 286),
        (256, 256),
        "bilinear",
    )
    schedule = (t.lr_schedule, 100 * 7, 7, t.decay_fraction)
    rate = Schedule(m.learning_rate, *schedule, updates_per_step=2)
    # Of epoch 0, 49, 50, 51, 75 and 99, at the last update of their last step.
    found = [float(rate(14 * epoch + 13)) for epoch in (0, 49, 50, 51, 75, 99)]
    assert found == pytest.approx([1e-4, 1e-4, 1e-4, 9.8e-5, 5e-5, 2e-6], rel=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mask_threshold": 1.5}, "--mask_threshold=1.5: expected 0 to 1"),
        ({"switch_epoch": -1.0}, "--switch_epoch=-1.0: expected 0 or more"),
        ({"residual_blocks": -1}, "--residual_blocks=-1: expected 0 or more"),
        ({"generator_width": 0}, "--generator_width=0: expected more than 0"),
        ({"channels_a": 1}, "--channels_a=1 --channels_b=3: aggan keeps a part of its input"),
    ],
)
def test_impossible_configurations(options, message):
    with pytest.raises(UserError, match=message):
        AGGAN(**TINY | options)


def test_weight_0_drops_a_cycle(monkeypatch):
    model, (a, b) = built(pool_size=0), noise()
    whole = losses_of(model, a, b)
    monkeypatch.setattr(model, "config", dataclasses.replace(model.config, lambda_a=0.0))
    rest = losses_of(model, a, b)
    assert rest == pytest.approx({n: v for n, v in whole.items() if n != "cycle_a"})


def test_grey_images():
    model = built(channels_a=1, channels_b=1, pool_size=0)
    assert np.isfinite([*losses_of(model, *(x[..., :1] for x in noise())).values()]).all()
    assert model.generate(tf.zeros((1, 9, 9, 1))).shape == (1, 9, 9, 1)


def test_model_survives_serialization():
    model = ready(lambda_a=4.0, switch_epoch=7.0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert again.config == model.config and again.get_config() == model.get_config()
    assert [again.optimizer_of(role).turn for role in again.roles] == [1, 2]
    assert [v.shape for v in again.variables] == [v.shape for v in model.variables]


# Masks


def test_heatmaps_are_the_masks():
    model = built()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 21, 30, 3), np.uint8)
    result, heat = model.translate(pixels, "b2a", return_heatmap=True)
    np.testing.assert_array_equal(result, model.translate(pixels, "b2a"))
    assert heat.shape == (2, 21, 30, 1) and heat.dtype == np.float32
    x = model.to_float(tf.constant(pixels[:, :20, :28])).numpy()
    np.testing.assert_allclose(model.heatmaps(x, "b2a")["generator"], model.attention_b(x), atol=1e-6)
    with pytest.raises(UserError, match="--discriminator_heatmaps: aggan's discriminators have no attention"):
        model.heatmaps(pixels, discriminators=True)


def test_files_with_masks(tmp_path, monkeypatch):
    model = built()
    monkeypatch.setattr(model, "run", settings.resolve("aggan", {"data": "emoji"}), raising=False)
    source = np.random.default_rng(0).integers(0, 256, (20, 17, 3), np.uint8)
    images.write_image(tmp_path / "x.png", source)
    arguments = {"input": str(tmp_path / "x.png"), "output": str(tmp_path / "out"), "active": False}
    _, failed = translate_files(model, **arguments, heatmaps=True)
    assert not failed and {p.name for p in (tmp_path / "out").iterdir()} == {"x.png", "x_attention.png"}
    shown = images.read_image(tmp_path / "out" / "x_attention.png")
    np.testing.assert_array_equal(shown, pictures.overlay(source[None], model.heatmaps(source[None])["generator"])[0])
    # The same from the file's path.
    np.testing.assert_array_equal(model.heatmaps(tmp_path / "x.png")["generator"], model.heatmaps(source)["generator"])


def test_samples_show_the_masks():
    shown = built().pictures(*noise())
    assert list(shown)[:3] == ["A", "attention A", "A to B"] and "attention B" in shown


def test_16_bit_norms_of_files_in_which_three_parts_read_the_picture():
    """The mapping of pixels, which is no part of a convolution here, adds in 16 bits, by scales of powers of two."""
    model = built()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, SIDE, SIDE, 3), np.uint8)
    file = export.convert(model, "a2b", (SIDE, SIDE))
    equalised, seen = export.calibrate(file, pixels.astype(np.float32), pixels.astype(np.float32))
    runner = verify.LiteRT(export.with_pixels(export.quantize(equalised, "int8_full", seen, norm_bits=16), "uint8"))
    error = faithfulness.squared_error(runner(pixels[0]), model.translate(pixels[0])).mean()
    assert faithfulness.decibels(error) > 30
