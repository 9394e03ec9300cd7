"""U-GAT-IT against hand-made answers and the official PyTorch code's."""

import dataclasses
import functools
import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfi2i.export import litert, verify

from tests import torch_names
from tfi2i import layers, pictures, settings
from tfi2i.config import UserError
from tfi2i.data import images
from tfi2i.methods.cyclegan.model import CycleGAN
from tfi2i.methods.ugatit import model as ugatit
from tfi2i.methods.ugatit import published
from tfi2i.methods.ugatit.model import UGATIT, Discriminator, Generator
from tfi2i.optim import Schedule
from tfi2i.translation import translate_files

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
NETWORKS = {
    "genA2B": "generator_a2b", "genB2A": "generator_b2a", "disGA": "discriminator_a_global",
    "disGB": "discriminator_b_global", "disLA": "discriminator_a_local", "disLB": "discriminator_b_local",
}  # fmt: skip
# A model that is quickly built and traced, see tests/test_conformance.py.
TINY = {
    # A tenth of the published losses: at first features are tiny, and what LIN makes of them has gradients that leave
    # float16 at the scale of 64 that a test asks for.
    "light": True, "generator_width": 4, "residual_blocks": 1, "discriminator_width": 4, "local_layers": 3,
    "global_layers": 3, "lambda_gan": 0.1, "lambda_cycle": 1.0, "lambda_identity": 1.0, "lambda_cam": 100.0,
}  # fmt: skip
SIDE = 16
# What the official code's steps were recorded with.
RECORDED = {
    "ugatit_variant": "pytorch", "light": True, "generator_width": 2, "residual_blocks": 1, "discriminator_width": 2,
    "local_layers": 3, "global_layers": 4,
}  # fmt: skip


@functools.cache
def built(**options):
    """A small model for the tests that leave its weights as they are."""
    model = UGATIT(**TINY | options)
    model.build((None, None, None, 3))
    return model


def ready(**options):
    """A small model with optimizers, ready for `train_step`."""
    model = UGATIT(**options)
    model.compile()
    shapes = [(1, SIDE, SIDE, channels) for channels in (model.channels_a, model.channels_b)]
    model.build_for_training(*shapes)
    model.build_optimizers()
    return model


def noise():
    """A batch of each domain, of one image."""
    return tuple(tf.random.stateless_uniform((2, 1, SIDE, SIDE, 3), (0, 0), -1, 1))


def places(network):
    """dict of the official code's name → where it stands in ours."""
    return (published.discriminator if isinstance(network, Discriminator) else published.generator)(network)


# Networks


def assert_answers(results, file, prefix):
    for ours, name in zip(results, ("output", "cam", "heat"), strict=True):
        np.testing.assert_allclose(ours, file[f"{prefix}/{name}"], rtol=1e-4, atol=1e-4, err_msg=f"{prefix} {name}")


@pytest.mark.parametrize("mode", ["full", "light"])
def test_generator_is_the_official_one(mode):
    file = np.load(GOLDEN / f"ugatit_generator_{mode}.npz")
    c = json.loads(str(file["config"]))
    size = (c["img_size"],) * 2
    network = Generator(3, c["ngf"], c["n_blocks"], c["light"], size, "adalin", True, variant="pytorch")
    network.build((None, None, None, 3))
    torch_names.load_recorded(network, places(network), file, "weights")
    for key in file.files:
        if key.endswith("/input"):
            size = key.split("/")[0]
            for training in (False, True):
                assert_answers(network(file[key], training=training, attention=True), file, size)
            np.testing.assert_array_equal(network(file[key]), network(file[key], attention=True)[0])


@pytest.mark.parametrize("kind", ["local", "global"])
def test_discriminator_is_the_official_one(kind):
    """Twice in training, where the power iterations move on, then with their result."""
    file = np.load(GOLDEN / f"ugatit_discriminator_{kind}.npz")
    c = json.loads(str(file["config"]))
    network = Discriminator(c["n_layers"], c["ndf"], True, variant="pytorch")
    network.build((None, None, None, 3))
    torch_names.load_recorded(network, places(network), file, "weights")
    for prefix in ("train1", "train2"):
        assert_answers(network(file["input"], training=True), file, prefix)
    for variable, array, key in torch_names.recorded(places(network), file, "after"):
        np.testing.assert_allclose(variable.numpy(), array, atol=2e-6, err_msg=key)
    assert_answers(network(file["input"]), file, "eval")


# Losses and steps


def their_losses(values):
    """The official order of calls: 16 of the discriminators, then 8 + 2 + 2 + 4 of the generators."""
    d, adversarial, cycle, identity, cam = np.split(values, np.cumsum([16, 8, 2, 2]))
    return {
        "discriminator_a": d[:8].sum(), "discriminator_b": d[8:].sum(),
        "gan_b2a": adversarial[:4].sum(), "gan_a2b": adversarial[4:].sum(),
        "cycle_a": 10 * cycle[0], "cycle_b": 10 * cycle[1],
        "identity_a": 10 * identity[0], "identity_b": 10 * identity[1],
        "cam_b2a": 1000 * cam[:2].sum(), "cam_a2b": 1000 * cam[2:].sum(),
    }  # fmt: skip


def test_two_steps():
    """Losses, gradients, weights and spectral vectors of one D and one G step, and losses of the next."""
    file = np.load(GOLDEN / "ugatit_steps.npz")
    model = ready(**RECORDED)
    places_of = {theirs: places(model.networks[ours]) for theirs, ours in NETWORKS.items()}
    for theirs, ours in NETWORKS.items():
        torch_names.load_recorded(model.networks[ours], places_of[theirs], file, f"weights/{theirs}")
    gradients = torch_names.watch_gradients(model)
    for k in (1, 2):
        a, b = tf.split(tf.constant(file["images"][k - 1]), 2)
        losses = {name: float(v) for name, v in model.train_step((a, b)).items()}
        assert losses == pytest.approx(their_losses(file[f"losses{k}"]), rel=1e-5 if k == 1 else 1e-4)
        if k == 2:
            break
        for theirs in NETWORKS:
            for variable, array, key in torch_names.recorded(places_of[theirs], file, f"gradients1/{theirs}"):
                atol = 1e-4 * np.abs(array).max()
                np.testing.assert_allclose(gradients[id(variable)], array, rtol=0, atol=atol, err_msg=f"{theirs} {key}")
        for theirs in ("genA2B", "disGA", "disLA"):
            for variable, array, key in torch_names.recorded(places_of[theirs], file, f"after1/{theirs}"):
                # A first step moves by 1e-4 against the gradient's sign: chance, where the gradient is rounding.
                gradient = np.abs(gradients.get(id(variable), np.ones(array.shape)))
                sure = (gradient == 0) | (gradient > 1e-3 * gradient.max())
                assert sure.mean() > 0.8
                np.testing.assert_allclose(variable.numpy()[sure], array[sure], rtol=0, atol=3e-6, err_msg=key)


# Counts, sizes, starting values


@pytest.mark.parametrize(
    "variant, generator, global_, local",
    [("pytorch", 10_589_888, 53_130_176, 3_290_560), ("tensorflow", 10_600_388, 53_128_130, 3_290_050)],
)
def test_parameters(monkeypatch, variant, generator, global_, local):
    for module in (layers, layers.network, layers.spectral):
        monkeypatch.setattr(module, "initializer", lambda *_: "zeros")
    model = UGATIT(light=True, ugatit_variant=variant)
    expected = {"generator_a2b": generator, "discriminator_b_global": global_, "discriminator_b_local": local}
    for name, count in expected.items():
        network = model.networks[name]
        network.build((None, None, None, 3))
        assert sum(int(np.prod(v.shape)) for v in network.trainable_variables) == count, name
    # Full, the first dense layer takes 64 x 64 x 256 features instead of 256.
    full = UGATIT(ugatit_variant=variant).generator_a2b
    whole = {"pytorch": 278_959_808, "tensorflow": 278_970_308}[variant]
    assert generator + (full.features - 256) * 256 == whole


@pytest.mark.parametrize(
    "variant, layer_count, features, answers",
    [("pytorch", 5, 31, 30), ("pytorch", 7, 7, 6), ("tensorflow", 5, 32, 32), ("paper", 7, 8, 8)],
)
def test_discriminator_sizes(variant, layer_count, features, answers):
    network = Discriminator(layer_count, 1, True, variant=variant)
    logits, cam, heat = network(np.zeros((1, 256, 256, 3), np.float32))
    assert logits.shape == (1, answers, answers, 1) and cam.shape == (1, 2) and heat.shape == (1, features, features, 1)
    least = network.size_minimum
    assert 1 in network(np.zeros((1, least, 2 * least, 3), np.float32))[0].shape[1:2] or variant != "pytorch"
    with pytest.raises(Exception, match="not enough of them to mirror"):
        network(np.zeros((1, least - 2 ** (layer_count - 2), least, 3), np.float32))


@pytest.mark.parametrize("variant, rho, effective", [("paper", 1, 1), ("tensorflow", 1, 0.9), ("pytorch", 0.9, 0.9)])
def test_where_weights_start(variant, rho, effective):
    model = UGATIT(**TINY | {"generator_width": 16}, ugatit_variant=variant)
    model.build((None, None, None, 3))
    network = model.generator_a2b
    inner = [norm for block in network.decoder for norm in (block.norm_1, block.norm_2)]
    outer = network.up[2::3]
    for norms, start, used in ((inner, rho, effective), (outer, 0, 0)):
        for norm in norms:
            assert norm.rho.numpy() == pytest.approx(start)
            assert norm.effective_rho().numpy() == pytest.approx(used, abs=1e-6)
    assert [float(v) for v in model.monitored().values()] == pytest.approx(2 * [effective, effective, 0, 0])
    kernel = network.encoder[0].conv_1.kernel.numpy()
    fan_in = np.prod(kernel.shape[:3])
    spread = fan_in**-0.5 / 3**0.5 if variant == "pytorch" else 0.02
    assert kernel.std() == pytest.approx(spread, rel=0.02) and abs(kernel.mean()) < spread / 50
    assert (np.abs(kernel).max() <= fan_in**-0.5) == (variant == "pytorch")
    biases = [v for v in model.trainable_variables if "bias" in v.path]
    drawn = [np.abs(v.numpy()).max() > 0 for v in biases]
    assert all(drawn) if variant == "pytorch" else not any(drawn)


@pytest.mark.parametrize("variant", ["paper", "pytorch"])
def test_weight_decay(variant):
    """A step without gradients: the official PyTorch code shrinks everything, the TensorFlow code kernels only."""
    model = ready(**TINY, ugatit_variant=variant, weight_decay=0.1)
    for role in ("generator", "discriminator"):
        weights = model.weights_of(role)
        before = [v.numpy() for v in weights]
        model.optimizer_of(role).apply([tf.zeros(v.shape) for v in weights], weights)
        for v, old in zip(weights, before):
            moved = (v.numpy() != old).any()
            assert moved == (bool(old.any()) and (variant == "pytorch" or v.name == "kernel")), v.path


# By hand


def test_least_squares_adds_map_and_cam():
    judged = (tf.fill((2, 3, 3, 1), 3.0), tf.constant([[0.0, 2.0], [0.0, 2.0]]), None)
    assert float(ugatit.least_squares(judged, 1.0)) == 4 + 1
    assert float(ugatit.least_squares(judged, 0.0)) == 9 + 2
    assert float(ugatit.least_squares((judged[0], None, None), 1.0)) == 4


def test_classification_of_source_and_target():
    source, target = tf.constant([[0.0, 2.0]]), tf.constant([[-1.0, -1.0]])
    expected = (np.log(2) + np.log1p(np.exp(-2))) / 2 + np.log1p(np.exp(-1))
    assert float(ugatit.classification_loss(source, target)) == pytest.approx(expected)
    assert float(ugatit.classification_loss(-20 * tf.ones((1, 2)), 20 * tf.ones((1, 2)))) == pytest.approx(40)


@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_attention_by_hand(shared, spectral):
    """Two channels, weights (3, 4), of norm 5: the average pool is (1, 0), the maximum pool (2, 1)."""
    layer = ugatit.ClassActivation(shared, spectral, "normal", 0.02, 0)
    layer.build((None, 1, 2, 2))
    for kernel in layer.kernels:
        kernel.assign([[3.0], [4.0]])
    bias = 0.5 if shared else 0.0
    if shared:
        layer.bias.assign([bias])
    x = tf.constant([[[[0.0, 1.0], [2.0, -1.0]]]])
    logits, maps = layer(x, training=True)
    norm = 5.0 if spectral else 1.0
    np.testing.assert_allclose(logits, [[3 / norm + bias, 10 / norm + bias]], rtol=1e-6)
    # The PyTorch code makes the map with the raw weights.
    w = np.array([3.0, 4.0]) / norm + bias if shared else np.array([3.0, 4.0])
    np.testing.assert_allclose(maps, np.concatenate([x * w, x * w], -1), rtol=1e-6)


@pytest.mark.parametrize("light", [False, True])
def test_style_sees_every_feature_or_their_mean(light):
    network = (built() if light else built(light=False, image_size=(16, 24))).generator_a2b
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 16)).astype(np.float32)
    shuffled = x.reshape(1, 24, 16)[:, np.random.default_rng(1).permutation(24)].reshape(x.shape)
    one, other = (network.gamma_and_beta(v)[0].numpy() for v in (x, shuffled))
    assert np.allclose(one, other, rtol=1e-4, atol=1e-9) == light
    first = network.style[0].kernel.shape
    assert tuple(first) == ((16, 16) if light else (24 * 16, 16))


def test_full_mode_takes_one_size():
    model = built(light=False, image_size=(16, 24))
    assert model.sizes.fixed == (16, 24) and built().sizes.fixed is None
    model.check_crop(16, 24)
    with pytest.raises(UserError, match=r"--crop=24,24: .* built for 16,24 alone.*give --light, or --crop=16,24"):
        model.check_crop(24, 24)
    with pytest.raises(UserError, match="crops of no fixed size"):
        model.check_crop(None, None)
    with pytest.raises(UserError, match="multiples of 4"):
        UGATIT(light=False, image_size=(18, 16))
    run = settings.resolve("ugatit", {"crop": (64, 64), "data": "emoji"})
    assert run.model.image_size == (64, 64) and settings.Run.from_json(run.to_json()) == run


def test_defaults_are_the_papers():
    run = settings.resolve("ugatit", {"data": "emoji"})
    m, t, d = run.model, run.training, run.data
    assert (m.lambda_gan, m.lambda_cycle, m.lambda_identity, m.lambda_cam) == (1, 10, 10, 1000)
    assert (m.learning_rate, m.beta_1, m.beta_2, m.weight_decay) == (1e-4, 0.5, 0.999, 1e-4)
    assert (t.steps, t.batch_size, d.flip, d.resize, d.crop) == (1_000_000, 1, 0.5, (286, 286), (256, 256))
    assert not m.light and m.image_size == (256, 256)
    rate = Schedule(m.learning_rate, t.lr_schedule, t.steps, 1, t.decay_fraction)
    # The official code lowers the rate before step 500,001 first, by 1e-4 / 500,000.
    found = [float(rate(s)) for s in (0, 499_999, 500_000, 749_999, 999_999)]
    assert found == pytest.approx([1e-4, 1e-4, 1e-4 * (1 - 2e-6), 0.5e-4, 0], rel=1e-6)


# Variants


@pytest.mark.parametrize(
    "options, dropped",
    [
        ({"lambda_identity": 0.0}, {"identity_a", "identity_b"}),
        ({"lambda_cycle": 0.0}, {"cycle_a", "cycle_b"}),
        ({"lambda_cam": 0.0}, {"cam_a2b", "cam_b2a"}),
        ({"lambda_cam": 0.0, "lambda_identity": 0.0}, {"cam_a2b", "cam_b2a", "identity_a", "identity_b"}),
        ({"cam_generator": False}, {"cam_a2b", "cam_b2a"}),
        ({"lambda_gan": 0.0}, {"gan_a2b", "gan_b2a", "discriminator_a", "discriminator_b"}),
    ],
    ids=lambda o: "-".join(o) if isinstance(o, dict) else "",
)
def test_weight_0_drops_the_term(monkeypatch, options, dropped):
    model = built() if options.get("cam_generator", True) else built(**options)
    monkeypatch.setattr(model, "config", dataclasses.replace(model.config, **options))
    monkeypatch.setattr(model, "phase", lambda compute, role, **inputs: compute(**inputs))  # without gradients
    losses = model.train_step(noise())
    assert set(losses) == set(their_losses(np.zeros(32))) - dropped
    assert np.isfinite([float(v) for v in losses.values()]).all()


@pytest.mark.parametrize("norm, mixed", [("in", 0), ("ln", 0), ("adain", 0), ("gn", 0), ("adalin", 4)])
def test_decoder_norms_learn(norm, mixed):
    more = {"cam_discriminator": False} if norm == "in" else {"lambda_gan": 0.0} if norm != "adalin" else {}
    model = ready(**TINY | more, decoder_norm=norm)
    network = model.generator_a2b
    assert len(network.norms_with_rho()) == mixed and len(model.monitored()) == 2 * mixed
    assert bool(network.style) == (norm in ("adain", "adalin"))
    learned = [
        v for role in model.roles if role == "generator" or "lambda_gan" not in more for v in model.weights_of(role)
    ]
    before = {v.path: v.numpy() for v in learned}
    losses = model.train_step(noise())
    assert np.isfinite([float(v) for v in losses.values()]).all()
    for v in learned:
        if v.name.startswith("kernel"):
            assert (v.numpy() != before[v.path]).any(), v.path


def test_unequal_channels():
    with pytest.raises(UserError, match=r"--lambda_identity=1.0 .* A has 1 and B 3 channels"):
        UGATIT(channels_a=1, **TINY)
    model = UGATIT(channels_a=1, **TINY | {"lambda_identity": 0.0, "lambda_cam": 0.0})
    model.phase = lambda compute, role, **inputs: compute(**inputs)  # without gradients
    losses = model.train_step((tf.zeros((1, SIDE, SIDE, 1)), tf.zeros((1, SIDE, SIDE, 3))))
    assert np.isfinite([float(v) for v in losses.values()]).all()


def test_model_survives_serialization():
    model = ready(**TINY | {"lambda_cam": 3.0}, ugatit_variant="tensorflow", image_size=(24, 16))
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(model))))
    assert again.config == model.config and again.get_config() == model.get_config()
    assert again.generator_optimizer.decay_kernels_only
    assert [v.shape for v in again.variables] == [v.shape for v in model.variables]


# Attention


def test_heatmaps():
    model = built()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 21, 30, 3), np.uint8)
    result, heat = model.translate(pixels, return_heatmap=True)
    np.testing.assert_array_equal(result, model.translate(pixels))
    assert heat.shape == (2, 21, 30, 1) and heat.dtype == np.float32
    assert (heat.min((1, 2, 3)) >= 0).all() and (heat.max((1, 2, 3)) <= 1).all() and heat.std() > 0.05
    # A float image has the same map as its pixels, one image that of a batch, a multiple of 4 needs no padding.
    x = model.to_float(tf.constant(pixels)).numpy()
    np.testing.assert_allclose(model.translate(x[1], return_heatmap=True)[1], heat[1], atol=1e-5)
    raw = model.generator_a2b(x[:1, :20, :28], attention=True)[2].numpy()
    heat = model.heatmaps(pixels[0, :20, :28])["generator"]
    big = tf.image.resize(raw, (20, 28))[0].numpy()
    np.testing.assert_allclose(heat, (big - big.min()) / (big.max() - big.min()), atol=1e-5)
    maps = model.heatmaps(pixels, "b2a", discriminators=True)
    assert {n: v.shape for n, v in maps.items()} == dict.fromkeys(("generator", "global", "local"), (2, 21, 30, 1))
    with pytest.raises(UserError, match="global discriminator needs images of 6 pixels"):
        model.heatmaps(pixels[:, :5], discriminators=True)
    with pytest.raises(UserError, match="trained with --nocam_generator"):
        UGATIT(**TINY, cam_generator=False).heatmaps(pixels)


def test_heatmaps_of_networks_with_one_size():
    model = built(light=False, image_size=(16, 24))
    pixels = np.random.default_rng(0).integers(0, 256, (19, 31, 3), np.uint8)
    result, heat = model.translate(pixels, return_heatmap=True)
    assert result.shape == pixels.shape and heat.shape == (19, 31, 1)
    assert heat.min() >= 0 and heat.max() <= 1 and heat.std() > 0.05


def test_samples_show_the_attention():
    model = built()
    a, b = tf.random.stateless_uniform((2, 2, 16, 20, 3), (0, 0), -1, 1)
    shown = model.pictures(a, b)
    assert list(shown)[:3] == ["A", "attention A", "A to B"] and "attention B" in shown and len(shown) == 10
    expected = pictures.overlay(model.to_pixels(a).numpy(), model.attention(a).numpy())
    np.testing.assert_array_equal(model.to_pixels(shown["attention A"]), expected)


def test_constant_attention_is_0():
    np.testing.assert_array_equal(ugatit.stretched(tf.fill((1, 2, 2, 1), 7.0)), np.zeros((1, 2, 2, 1)))


def test_overlay_goes_from_blue_to_red():
    pixels = np.zeros((1, 1, 3, 1), np.uint8)
    page = pictures.overlay(pixels, np.array([0, 0.5, 1], np.float32).reshape(1, 1, 3, 1))
    assert page.tolist() == [[[[0, 0, 64], [64, 128, 64], [64, 0, 0]]]]
    bright = pictures.overlay(pixels.astype(np.uint16) + 65535, np.zeros((1, 1, 3, 1)))
    assert bright[0, 0, 0].tolist() == [128, 128, 191]


def test_files_with_heatmaps(tmp_path, monkeypatch):
    model = built()
    monkeypatch.setattr(model, "run", settings.resolve("ugatit", {"data": "emoji"}), raising=False)
    images.write_image(tmp_path / "x.png", np.random.default_rng(0).integers(0, 256, (20, 17, 3), np.uint8))
    arguments = {"input": str(tmp_path / "x.png"), "output": str(tmp_path / "out"), "active": False}
    written, failed = translate_files(model, **arguments, discriminator_heatmaps=True)
    assert not failed and [p.name for p in written] == ["x.png"]
    names = {"x.png", "x_attention.png", "x_attention_global.png", "x_attention_local.png"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names
    assert all(images.read_image(tmp_path / "out" / n).shape == (20, 17, 3) for n in names)
    with pytest.raises(UserError, match="within a whole picture"):
        translate_files(model, **arguments, heatmaps=True, fit="tile", tile=8, overlap=4)
    other = CycleGAN(generator_width=2, discriminator_width=2)
    with pytest.raises(UserError, match="cyclegan has no attention"):
        translate_files(other, **arguments, heatmaps=True)


def test_full_mode_exports():
    """The dense layer over the whole map in a LiteRT file, at the one size that it takes."""
    model = built(light=False, image_size=(16, 24))
    file = litert.convert(model, "a2b", (16, 24))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3), np.uint8)
    result = verify.LiteRT(file)(pixels.astype(np.float32))
    assert np.abs(result - model.translate(pixels)).max() <= 0.51
