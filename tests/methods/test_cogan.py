"""CoGAN: coupled networks, the search that translates, files that draw pairs."""

import functools
import json
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfi2i.export import samples

from tests.own_flags import call
from tfi2i import export
from tfi2i.commands import distill, translate
from tfi2i.config import UserError
from tfi2i.methods.cogan.model import CoGAN, distances
from tfi2i.methods.losses import cross_entropy

# A small model for tests of all methods, the side of its training images, and what leaves each sample to itself.
TINY = {"image_size": (16, 16), "generator_width": 8, "discriminator_width": 4, "latent_size": 6}
TINY |= {"inversion_steps": 2, "inversion_starts": 2}
SIDE = 16
SAMPLEWISE = {"norm": "none", "dropout": False}
WITHOUT_DRAWS = {"dropout": False}
as_numpy = keras.ops.convert_to_numpy


def built(**given):
    model = CoGAN(given.pop("channels_a", 3), given.pop("channels_b", 3), **{**TINY, **given})
    model.build((None, None, None, model.channels_a))
    return model


@functools.cache
def still():
    """A small model for tests that do not change its weights."""
    return built(inversion_steps=150, inversion_starts=3)


def noise(n=2, seed=0, size=6):
    return tf.constant(np.random.default_rng(seed).normal(size=(n, size)).astype("float32"))


# Networks


def test_parameter_counts_by_hand():
    """Of the faces' networks at 128 pixels: without biases before a batch norm, which are idle, and with the second
    domain's own layers."""
    model = CoGAN()
    model.build((None, 128, 128, 3))
    idle = 16384 + 512 + 256 + 128 + 64 + 32, 32 + 64 + 128 + 256 + 512 + 1024 + 2048
    own = 64 * 32 * 16 + 2 * 32 + 32 * 3 * 9 + 3, 3 * 32 * 25 + 2 * 32 + 32 * 64 * 25 + 2 * 64
    assert model.generator.count_params() - counted_means(model.generator) == 12_834_563 - idle[0] + own[0]
    assert model.discriminator.count_params() - counted_means(model.discriminator) == 14_856_450 - idle[1] + own[1]


def counted_means(network):
    return sum(int(np.prod(v.shape)) for v in network.non_trainable_variables)


@pytest.mark.parametrize("side", [16, 64, 128])
def test_images_of_every_size(side):
    model = built(image_size=(side, side), generator_width=32, discriminator_width=1, channels_b=1)
    a, b = model.draw_pairs(noise())
    assert a.shape == (2, side, side, 3) and b.shape == (2, side, side, 1)
    assert model.discriminator(a, b).shape == (4, 2)
    assert model.sizes.fixed == (side, side)


def test_what_is_shared_is_one_variable_and_what_is_not_is_two():
    model, z = built(), noise()
    a, b = map(as_numpy, model.draw_pairs(z))
    model.generator.leave_b.convolution.kernel.assign(model.generator.leave_b.convolution.kernel * 2)
    same, other = map(as_numpy, model.draw_pairs(z))
    np.testing.assert_array_equal(same, a)
    assert np.abs(other - b).max() > 0
    kernel = model.generator.shared[0].convolution.kernel
    kernel.assign(kernel * 2)
    both = map(as_numpy, model.draw_pairs(z))
    assert all(np.abs(x - y).max() > 0 for x, y in zip(both, (same, other)))
    # Of two alike domains, whose own layers are made equal, both images are one.
    for name in ("leave", "paint"):
        layers = [getattr(model.generator, f"{name}_{d}").variables for d in "ab"]
        for x, y in zip(*layers, strict=True):
            y.assign(x)
    np.testing.assert_array_equal(*map(as_numpy, model.draw_pairs(z)))


def test_gradients_of_shared_layers_are_sums_over_the_domains():
    model, z = built(), noise()
    kernel = model.generator.shared[0].convolution.kernel

    def gradient(domains):
        with tf.GradientTape() as tape:
            loss = sum(tf.reduce_sum(tf.square(y - 0.3)) for y in model.generator(z, domains=domains))
        return tape.gradient(loss, kernel.value).numpy()

    np.testing.assert_allclose(gradient("ab"), gradient("a") + gradient("b"), rtol=1e-3, atol=1e-4)


def test_averages_draw_and_search():
    model, z = built(ema_momentum=0.5), noise()
    a, _ = model.draw_pairs(z)
    for variable in model.generator.trainable_variables:
        variable.assign(variable * 0.5)
    np.testing.assert_array_equal(model.draw_pairs(z)[0], a)
    found = model.invert(a)
    np.testing.assert_allclose(model.draw_pairs(found["z"])[0], found["rebuilt"], atol=1e-5)


# Losses


def test_losses_by_hand():
    logits = tf.constant([[0.0, np.log(3)], [np.log(3), 0.0]], tf.float32)  # softmax 1/4, 3/4 and 3/4, 1/4
    assert float(cross_entropy(logits, 1)) == pytest.approx(-(np.log(0.75) + np.log(0.25)) / 2)
    x, y = np.full((2, 2, 2, 3), 0.5, "float32"), np.full((2, 2, 2, 3), -1.5, "float32")
    assert as_numpy(distances(x, y, "l2")).tolist() == [4, 4] and as_numpy(distances(x, y, "l1")).tolist() == [2, 2]


def test_phases_ask_for_what_is_real_in_both_domains(monkeypatch):
    """Images of one colour, whose mean is the logit of 'real': all sums can be done by hand."""
    model = built()

    class Constant:
        def __call__(self, z, training=False):
            return tf.fill((2, 16, 16, 3), 0.1), tf.fill((2, 16, 16, 3), 0.2)

    def judge(a, b, drop=None):
        x = tf.reduce_mean(tf.concat([a, b], 0), axis=(1, 2, 3))[:, None]
        return tf.concat([tf.zeros_like(x), x], axis=1)

    monkeypatch.setattr(model, "generator", Constant())
    monkeypatch.setattr(model, "discriminator", judge)
    a, b = tf.fill((2, 16, 16, 3), 0.6), tf.fill((2, 16, 16, 3), -0.6)

    def ce(logit, real):
        return np.log1p(np.exp(-logit if real else logit))

    losses, _ = model.discriminator_phase(2, a, b, None, None)
    expected = (ce(0.6, True) + ce(-0.6, True)) / 2 + (ce(0.1, False) + ce(0.2, False)) / 2
    assert float(losses["discriminator"]) == pytest.approx(expected, rel=1e-5)
    losses, _ = model.generator_phase(2, a, b, None, None)
    assert float(losses["gan"]) == pytest.approx((ce(0.1, True) + ce(0.2, True)) / 2, rel=1e-5)


def test_both_phases_have_noise_of_their_own(monkeypatch):
    model, seen = built(), {}

    def phase(compute, role, **inputs):
        seen[role] = inputs["z"].numpy()
        return {role: 0.0}, {}

    monkeypatch.setattr(model, "phase", phase)
    model.learn(tf.zeros((2, 16, 16, 3)), tf.zeros((2, 16, 16, 3)), tf.range(2))
    assert list(seen) == ["discriminator", "generator"] and seen["generator"].shape == (2, 6)
    assert np.abs(seen["generator"] - seen["discriminator"]).min() > 0


# The search


def test_the_search_finds_the_noise_of_generated_images():
    model = still()
    a, b = model.draw_pairs(noise(2, seed=3))
    found = model.invert(a, "a2b")
    assert found["error"].max() < 1e-6
    np.testing.assert_allclose(found["images"], b, atol=5e-3)
    np.testing.assert_allclose(found["rebuilt"], a, atol=5e-3)
    np.testing.assert_allclose(model.invert(b, "b2a")["images"], a, atol=5e-3)


def test_the_search_of_an_image_is_its_own_and_keeps_the_best_start():
    model = still()
    x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype("float32")
    both = model.invert(x)
    for i in range(2):
        alone = model.invert(x[i : i + 1])
        np.testing.assert_allclose(alone["error"][0], both["error"][i], rtol=1e-3)
    np.testing.assert_allclose(both["error"], distances(both["rebuilt"], x, "l2"), rtol=1e-5)
    # Of searches without steps the start that is nearest is left.
    starts = model.starts()
    target = model.draw_pairs(starts[1:2])[0].numpy()
    near = built(inversion_steps=1, inversion_starts=3, inversion_rate=1e-9)
    near.generator.set_weights(model.generator.get_weights())
    np.testing.assert_allclose(near.invert(target)["z"], starts[1:2], atol=1e-6)


def test_the_search_takes_images_of_the_networks_size_alone():
    with pytest.raises(ValueError, match="expected 16,16 only; translate brings any size to it"):
        still().invert(np.zeros((1, 20, 16, 3), "float32"))
    assert built().translate(np.zeros((20, 30, 3), "uint8")).shape == (20, 30, 3)


def test_the_distance_of_the_search_is_that_of_the_flag():
    x = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3)).astype("float32")
    for kind in ("l1", "l2"):
        found = built(inversion_distance=kind).invert(x)
        np.testing.assert_allclose(found["error"], distances(found["rebuilt"], x, kind), rtol=1e-5)


def test_pictures_show_what_the_search_rebuilds():
    x = np.zeros((2, 16, 16, 3), "float32")
    shown = built().pictures(x, x)
    assert list(shown) == ["A", "A rebuilt", "A to B", "B", "B rebuilt", "B to A", "drawn A", "drawn B"]


# Hyper-parameters


@pytest.mark.parametrize(
    "given, message",
    [
        ({"image_size": (64, 48)}, "--image_size=64,48: the generators draw squares of 16, 32, 64, 128, 256 pixels"),
        ({"image_size": (96, 96)}, "--image_size=96,96: the generators draw squares"),
        ({"generator_width": 20}, "--generator_width=20: it is halved 5 times for images of 128 pixels"),
        ({"inversion_steps": 0}, "--inversion_steps=0: expected more than 0"),
        ({"inversion_distance": "vgg"}, "--inversion_distance=vgg: expected one of l2, l1"),
    ],
)
def test_impossible_values_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        CoGAN.config_class(**given)


# Files


@pytest.fixture
def few_pairs(monkeypatch):
    monkeypatch.setattr(samples, "_DRAWN", 3)


def test_files_draw_the_pairs_of_the_model(tmp_path, few_pairs):
    model, lines, out = still(), [], tmp_path / "files"
    report = export.export(model, out, formats=list(export.USUAL), log=lines.append)
    assert report["passed"] and list(report["formats"]) == ["saved_model", "float32", "float16", "dynamic"]
    assert len(lines) == 4
    z = noise(2, seed=7)
    expected = [model.to_pixels(x).numpy().astype(int) for x in model.draw_pairs(z)]
    signature = tf.saved_model.load(str(out / "1")).signatures["sample"]
    drawn = signature(z=z)
    for name, images in zip(("images_a", "images_b"), expected):
        assert drawn[name].dtype == tf.uint8 and np.abs(drawn[name].numpy() - images).max() <= 1
    sidecar = json.loads((out / "model.json").read_text())
    assert sidecar["z"]["shape"] == [None, 6] and "float32.tflite" in sidecar["sha256"]
    assert 'signatures["sample"]' in (out / "README.md").read_text()


def test_files_of_pairs_are_added_and_replaced_as_others_are(tmp_path, few_pairs, monkeypatch):
    monkeypatch.setattr(samples, "write_saved_model", lambda model, folder: folder.mkdir())
    monkeypatch.setattr(samples, "_verify", lambda *_: {"pairs": 3, "passed": True, "formats": {}})
    monkeypatch.setattr("tfi2i.export.exporter._OF_A_VERSION", ("model.json", "report.json"))

    def quick(formats=("saved_model",), **given):
        monkeypatch.setattr(samples, "_describe", described(formats))
        export.export(still(), tmp_path / "out", formats=formats, log=lambda _: None, **given)

    def described(formats):
        def write(model, folder, *_):
            (folder / "report.json").write_text('{"passed": true, "formats": {}}')
            (folder / "model.json").write_text('{"sha256": {}, "versions": {"tfi2i": "0"}, "of": "%s"}' % formats[0])

        return write

    quick()
    quick()
    quick(model_version=7)
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.json")}
    assert names == {f"{v}{name}.json" for v in ("", "1/", "2/", "7/") for name in ("model", "report")}
    for given, message in (
        ({"model_version": 7}, "has a version 7 already"),
        ({"model_version": -4}, "--model_version=-4: expected 1 or more"),
        ({"formats": ("float32",)}, "holds an export: add --overwrite"),
    ):
        with pytest.raises(UserError, match=message):
            quick(**given)
    quick(("float32",), overwrite=True)
    assert "float32" in (tmp_path / "out" / "model.json").read_text()
    assert (tmp_path / "out" / "float32.tflite").is_file() and (tmp_path / "out" / "7").is_dir()


@pytest.mark.parametrize(
    "given, flags",
    [({"size": 16}, "--size"), ({"io": "int8"}, "--io"), ({"norm_bits": 16}, "--norm_bits")]
    + [({"data": "photos"}, "--data, or --a and --b"), ({"verification_images": 2}, "--verification_images")],
)
def test_arguments_about_pictures_are_refused(given, flags, tmp_path):
    with pytest.raises(UserError, match=f"leave out {flags}: what draws pairs takes no pictures"):
        export.export(still(), tmp_path / "files", **given)


def test_a_direction_is_not_exported(tmp_path):
    for write in (
        lambda: export.export(still(), tmp_path / "files", direction="a2b"),
        lambda: export.write_saved_model(still(), tmp_path, "a2b"),
        lambda: export.convert(still(), "b2a", (16, 16)),
    ):
        with pytest.raises(UserError, match="translates by a search .* with --direction=sample"):
            write()
    with pytest.raises(UserError, match="--direction=a2c: expected sample"):
        export.export(still(), tmp_path / "files", direction="a2c")
    with pytest.raises(UserError, match="--formats=int8: of what draws pairs there are saved_model, float32"):
        export.export(still(), tmp_path / "files", formats=("int8",))
    assert not list(tmp_path.iterdir())


def test_a_file_of_pairs_that_is_not_the_model_is_kept_aside(tmp_path, few_pairs):
    with pytest.raises(export.FloorError, match="dynamic: .* the floor is 200 dB.*; see .*files.failed/report.png"):
        export.export(still(), tmp_path / "files", formats=("dynamic",), floors={"dynamic": 200}, log=lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["files.failed"]
    assert (tmp_path / "files.failed" / "report.png").is_file()


def test_where_nothing_can_be_written_it_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="files cannot be written"):
        export.export(still(), tmp_path / "file" / "files", formats=("float32",), log=lambda _: None)


def test_it_teaches_no_student():
    with pytest.raises(UserError, match="--teacher=t translates by a search, .* a student cannot learn from it"):
        distill._check(still(), {"teacher": "t", "channels_a": 3, "channels_b": 3})


@pytest.mark.parametrize("shape", [(6,), (2, 5), (2, 6, 1)])
def test_noise_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"z of shape .*: expected \[N, 6\]"):
        still().draw_pairs(tf.zeros(shape))


def test_the_command_says_how_it_translates(monkeypatch, capsys):
    model = types.SimpleNamespace(checkpoint_step=5, translation_note=still().translation_note)
    monkeypatch.setattr(translate, "work", lambda _: (model, "a2b", (["y.png"], [])))
    call(translate, "--run_dir=runs/x", "--input=x.png", "--output=y.png")
    assert "\nnote: An image is translated by a search of 150 steps from 3 starts" in capsys.readouterr().out
