"""SimGAN against hand-made answers and the official networks' steps."""

import functools
import pathlib
import types
import unittest.mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import torch_names
from tests.drawing import nothing_drawn
from tfi2i import archive, optim, run_directory, settings
from tfi2i.config import UserError
from tfi2i.methods.perceptual import PerceptualFeatures
from tfi2i.methods.simgan.model import SimGAN
from tfi2i.training import loop
from tools.golden import made_weights

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
# A small model for tests of all methods, and the side of its training images.
TINY = {
    "generator": "resnet_6blocks", "generator_width": 2, "discriminator_width": 4, "discriminator_layers": 2,
    "pool_size": 3,
}  # fmt: skip
SIDE = 16


def built(**options):
    model = SimGAN(**{**TINY, **options})
    model.build((None, None, None, model.channels_a))
    return model


def ready(model, shape, rate=None):
    """The model, ready for `train_step`; with a rate the optimizers are SGD."""
    optimizers = {f"{role}_optimizer": rate if rate is None else keras.optimizers.SGD(rate) for role in model.roles}
    model.compile(**optimizers)
    model.build_for_training(shape, shape)
    model.build_optimizers()
    return model


def pictures(n=1, side=SIDE, channels=3, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(-1, 1, (n, side, side, channels)).astype("float32"))


def losses_of(model, a, b):
    """The losses of a step that is not taken."""
    return {name: float(loss) for name, loss in model.test_step((a, b)).items()}


# Networks and configuration


@pytest.mark.parametrize(
    "options, of_generator", [({}, 11_388_675), ({"generator": "resnet_6blocks", "direction": "b2a"}, 7_845_123)]
)
@nothing_drawn()
def test_parameters(options, of_generator):
    model = SimGAN(**options)
    model.build((None, None, None, 3))
    counts = [sum(int(np.prod(v.shape)) for v in n.trainable_variables) for n in model.networks.values()]
    assert counts == [of_generator, 2_766_529]


def test_the_learning_rate_falls_in_the_second_half():
    run = settings.resolve("simgan", {"data": "emoji"})
    assert (run.model.pool_size, run.training.epochs) == (50, 200)
    assert (run.data.resize, run.data.crop, run.data.resize_filter) == ((286, 286), (256, 256), "bilinear")
    kind, steps = run.training.lr_schedule, 200 * 3
    schedule = optim.Schedule(2e-4, kind, steps, steps_per_epoch=3, decay_fraction=run.training.decay_fraction)
    assert float(schedule(150 * 3 - 1)) == pytest.approx(2e-4 * 0.51)  # in the 150th epoch


def test_the_flags_of_a_run_leave_the_weight_of_another_content_its_default():
    given = {"data": "emoji", "content": "vgg"}
    assert "lambda_content" not in settings.differing(settings.resolve("simgan", given))
    assert settings.differing(settings.resolve("simgan", given | {"lambda_content": 10.0}))["lambda_content"] == 10


@pytest.mark.parametrize("init, deviation", [("normal", 1.0), ("kaiming", 0.02)])
def test_the_gain_of_other_initialisers_leaves_the_norms_factors_near_1(init, deviation):
    model = built(init=init, init_gain=1.0, generator_width=16, discriminator_width=16)
    factors = np.concatenate([v.numpy() for v in model.trainable_variables if v.name == "gamma"])
    assert factors.std() == pytest.approx(deviation, rel=0.2)


def test_impossible_configurations():
    for options, message in (
        ({"generator": "unet_256"}, "--generator=unet_256: expected one of resnet_9blocks, resnet_6blocks"),
        ({"content": "pixels"}, "--content=pixels: expected one of pixel, vgg; did you mean pixel"),
        ({"lambda_content": -1.0}, "--lambda_content=-1.0: expected 0 or more"),
        (
            {"content": "vgg", "channels_a": 1, "channels_b": 1},
            "--content=vgg compares colour images: set --channels_a",
        ),
        ({"content": "vgg", "vgg_size": 7}, "--vgg_size=7: features of VGG16 .* give --vgg_size=8 or more, or 0"),
        ({"channels_a": 1}, "A has 1 and B 3 channels: make --channels_a and --channels_b equal"),
    ):
        with pytest.raises(UserError, match=message):
            SimGAN(**options)
    with pytest.raises(UserError, match="--crop=8,8 is too small .*, which need 12 pixels .*--discriminator_layers"):
        built().check_crop(8, 8)


def test_one_direction_of_grey_pictures():
    model = built(direction="b2a", channels_a=1, channels_b=1)
    assert model.directions == ("b2a",) and [*model.networks] == ["generator_b2a", "discriminator_a"]
    with pytest.raises(UserError, match="--direction=a2b: this model translates b2a only"):
        model.translate(np.zeros((16, 16, 1), np.uint8), "a2b")
    a, b = pictures(channels=1), pictures(channels=1, seed=1)
    losses = losses_of(model, a, b)
    assert losses.keys() == {"gan_b2a", "content_b", "discriminator_a"}
    translated = model.generator(b, training=True)
    assert losses["content_b"] == pytest.approx(10 * np.abs(translated - b).mean(), rel=1e-5)


# Losses and steps


@pytest.mark.parametrize("kind, gan, both", [("lsgan", 0.25, 0.25), ("vanilla", 0.474077, 0.724077)])
def test_constant_images_give_losses_known_by_hand(kind, gan, both):
    """Zero weights: the generator answers 0 everywhere, the discriminator its last bias."""
    model = built(gan_loss=kind, lambda_content=4.0)
    for v in model.trainable_variables:
        v.assign(tf.zeros(v.shape))
    model.discriminator.last.bias.assign([0.5])
    for shift in (0.0, -0.25):
        a = tf.fill((1, SIDE, SIDE, 3), shift)
        expected = {"gan_a2b": gan, "content_a": 4 * abs(shift), "discriminator_b": both}
        assert losses_of(model, a, pictures()) == pytest.approx(expected, rel=1e-5)


def test_without_content_it_is_a_plain_gan():
    assert losses_of(built(lambda_content=0.0), pictures(), pictures(seed=1)).keys() == {"gan_a2b", "discriminator_b"}


def test_the_history_does_not_reach_the_generator():
    """Its gradient is that of its own translation, whatever picture the discriminator was shown."""
    gradients, judged = [], []
    model = ready(built(), (1, SIDE, SIDE, 3), rate=0.0)
    seen = torch_names.watch_gradients(model)
    for seed in (5, 6):
        model.pool.query = lambda *_, seed=seed: pictures(seed=seed)
        judged.append(float(model.train_step((pictures(), pictures(seed=1)))["discriminator_b"]))
        gradients.append([seen[id(v)] for v in model.generator.trainable_variables])
    assert judged[0] != judged[1]
    for one, other in zip(*gradients):
        np.testing.assert_array_equal(one, other)


STEPS = np.load(GOLDEN / "simgan_steps.npz")


def of_network(network, prefix):
    """[(variable, array of the golden file, its name)], without biases before a norm: only rounding moves these."""
    arrays = torch_names.in_our_order(STEPS, prefix)
    known = [(v, array, key) for v, (key, array) in zip(network.variables, arrays, strict=True)]
    normed = [v.name == "gamma" for v in network.variables[1:]] + [False]
    return [found for found, before_norm in zip(known, normed) if not before_norm]


def test_two_steps():
    """Losses, gradients and weights; the generator is judged by the updated discriminator, which saw the history."""
    model = built(generator_width=1, discriminator_width=2, discriminator_layers=3)
    parts = {"G": model.generator, "D": model.discriminator}
    for part, network in parts.items():
        torch_names.load(network, STEPS, f"weights/{part}")
    ready(model, (1, 32, 32, 3))
    shown = []
    model.pool.query = lambda fake, *_: shown.append(fake) or shown[0]
    gradients = torch_names.watch_gradients(model)
    for k in (1, 2):
        gradients.clear()
        a, b = (tf.constant(STEPS[f"real_{domain}"][k - 1 : k]) for domain in "AB")
        losses = model.train_step((a, b))
        ours = [float(losses[name]) for name in ("gan_a2b", "content_a", "discriminator_b")]
        np.testing.assert_allclose(ours, STEPS[f"losses{k}"], rtol=2e-5)
        for part, network in parts.items():
            if k == 1:
                for variable, gradient, key in of_network(network, f"gradients1/{part}"):
                    scale, ours = np.abs(gradient).max(), gradients[id(variable)]
                    np.testing.assert_allclose(ours, gradient, rtol=0, atol=1e-4 * scale + 1e-7, err_msg=key)
            for variable, weights, key in of_network(network, f"after{k}/{part}"):
                # A step moves a weight by up to 2e-4.
                np.testing.assert_allclose(variable, weights, rtol=1e-5, atol=4e-6, err_msg=f"{part} {key}")
    np.testing.assert_allclose(shown[0], STEPS["fake1"], atol=1e-5)


# Features of VGG16 as content

CONTENT = np.load(GOLDEN / "simgan_content.npz")


@functools.cache
def with_features():
    """A model that looks at features at 48 pixels, VGG16 having the weights of the golden files."""
    with nothing_drawn():
        model = built(content="vgg", lambda_content=10.0, vgg_size=48)
        model.features.build((None, None, None, 3))
    # Where the convolutions are in a list of convolutions, activations and pools.
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19)
    shapes = {}
    for i, conv in zip(places, model.features.convs, strict=True):
        h, w, channels, filters = conv.kernel.shape
        shapes |= {f"{i}.weight": (filters, channels, h, w), f"{i}.bias": (filters,)}
    made = made_weights.state(shapes)
    for i, conv in zip(places, model.features.convs):
        conv.set_weights([made[f"{i}.weight"].transpose(2, 3, 1, 0), made[f"{i}.bias"]])
    return model


def content_of(model, fake, source):
    """The content loss of given translations."""
    with unittest.mock.patch.object(model, "generator", lambda x, training: fake):
        losses, _ = model.generator_phase(source)
    return losses["content_a"]


def test_feature_loss_and_its_gradient_are_the_official_networks():
    model, fake = with_features(), tf.constant(CONTENT["fake"])
    features = model.described(fake)
    np.testing.assert_allclose(features[:, ::3, ::3], CONTENT["features"], atol=1e-4 * CONTENT["features"].max())
    with tf.GradientTape() as tape:
        tape.watch(fake)
        loss = content_of(model, fake, tf.constant(CONTENT["source"]))
    np.testing.assert_allclose(loss, CONTENT["loss"], rtol=1e-5)
    gradient, scale = tape.gradient(loss, fake), np.abs(CONTENT["gradient"]).max()
    np.testing.assert_allclose(gradient, CONTENT["gradient"], rtol=0, atol=1e-3 * scale)
    assert content_of(model, fake, fake) == 0


def test_feature_gradient_is_what_a_small_change_of_the_pixels_does():
    """The authors' code divides by 127.5 where it should multiply."""
    model, source = with_features(), pictures(side=24, seed=1)
    fake = tf.Variable(pictures(side=24))
    with tf.GradientTape() as tape:
        loss = content_of(model, fake, source)
    gradient = tape.gradient(loss, fake)
    step = 1e-3 * gradient / tf.norm(gradient)
    difference = content_of(model, fake + step, source) - content_of(model, fake - step, source)
    assert float(difference) / 2e-3 == pytest.approx(float(tf.norm(gradient)), rel=0.02)


@pytest.mark.thorough
def test_xla_compiles_the_feature_gradient():
    model, source, fake = with_features(), pictures(side=32, seed=1), pictures(side=32)

    def gradient(fake):
        return tf.gradients(content_of(model, fake, source), fake)[0]

    plain, compiled = (tf.function(gradient, jit_compile=jit)(fake).numpy() for jit in (None, True))
    np.testing.assert_allclose(compiled, plain, rtol=0, atol=1e-4 * np.abs(plain).max())


@nothing_drawn()
def test_features_at_the_published_size():
    model = built(content="vgg")
    assert model.lambda_content == 0.3 and SimGAN(**TINY).lambda_content == 10
    model.features.build((None, None, None, 3))
    assert model.features.count_params() == 5_275_456 and [*model.frozen] == ["features"]
    assert not {v.path for v in model.features.variables} & {v.path for v in model.trainable_variables}
    shape = tf.TensorSpec((None, 128, 128, 3))
    assert tf.function(model.described).get_concrete_function(shape).output_shapes == (None, 28, 28, 512)


def test_features_without_weights_stop_the_run_before_it_learns(tmp_path):
    with pytest.raises(UserError, match="--content=vgg needs the weights of VGG16: --vgg_weights=.*--content=pixel"):
        ready(built(content="vgg", vgg_weights=str(tmp_path / "missing.h5")), (1, SIDE, SIDE, 3))


def test_the_file_of_vgg_may_move(tmp_path, monkeypatch):
    given = {**TINY, "data": "emoji", "content": "vgg"}
    here, there = (settings.resolve("simgan", given | {"vgg_weights": name}) for name in ("vgg.h5", "there/vgg.h5"))
    monkeypatch.chdir(tmp_path)
    run_directory.write(tmp_path, here, fingerprints={})
    stored = {"run": run_directory.read(tmp_path), "fingerprints": {"network features": "1"}}
    assert stored["run"].model.vgg_weights == f"{tmp_path}/vgg.h5"
    assert f"--vgg_weights={tmp_path}/vgg.h5" in (tmp_path / "flags.txt").read_text()
    loop._compare(stored, there, tmp_path)
    loop._compare_files(stored, there, {"network features": "1"}, tmp_path)
    with pytest.raises(UserError, match=f"network features is not .*--vgg_weights={tmp_path}/vgg.h5.: put it back"):
        loop._compare_files(stored, there, {"network features": "2"}, tmp_path)
    assert archive._without_paths(here).model.vgg_weights is None


@pytest.fixture
def first_convolution(monkeypatch):
    """Models that look at features look at those of the first convolution: its kernel [3, 3, 3, 64] and bias."""
    weights = [np.random.default_rng(0).normal(0, 0.1, s).astype("float32") for s in ((3, 3, 3, 64), (64,))]
    vgg = types.SimpleNamespace(get_layer=lambda name: types.SimpleNamespace(get_weights=lambda: weights))

    def small(architecture, layer, **kwargs):
        return PerceptualFeatures(architecture, "block1_conv1", **kwargs)

    monkeypatch.setattr("tfi2i.methods.simgan.model.PerceptualFeatures", small)
    monkeypatch.setattr(keras.applications, "VGG16", lambda **kwargs: vgg)
    return weights


@pytest.mark.parametrize("state", ["ready to learn", "evaluated", "new"])
def test_a_keras_file_opens_without_the_file_of_vgg(state, first_convolution, tmp_path, monkeypatch):
    model = SimGAN(**TINY, content="vgg", vgg_size=0)
    if state == "ready to learn":
        ready(model, (1, SIDE, SIDE, 3))
    elif state == "evaluated":
        model.compile(run_eagerly=True)
        model.evaluate(pictures(), pictures(seed=1), verbose=0)
    model.save(tmp_path / "model.keras")

    def missing(**kwargs):
        raise FileNotFoundError("no such file")

    monkeypatch.setattr(keras.applications, "VGG16", missing)
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(pictures()), model(pictures()))
    if state == "new":
        with pytest.raises(UserError, match="needs the weights of VGG16"):
            again.prepare_frozen()
        return
    again.prepare_frozen()
    for ours, theirs in zip(again.features.get_weights(), first_convolution, strict=True):
        np.testing.assert_array_equal(ours, theirs)
