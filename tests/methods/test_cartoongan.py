"""CartoonGAN against hand-made answers and what the official code, or its formulas in PyTorch, computed."""

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
from tfi2i import config, optim
from tfi2i.data.edges import smooth_edges
from tfi2i.methods.cartoongan import config as cartoongan_config
from tfi2i.methods.cartoongan import published
from tfi2i.methods.cartoongan.model import CartoonGAN
from tfi2i.methods.perceptual import PerceptualFeatures

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"

# A small model for tests of all methods, and the side of its training images. There are no weights of VGG for it.
TINY = {"generator_width": 4, "residual_blocks": 1, "discriminator_width": 4, "pool_size": 2}
TINY |= {"lambda_vgg": 0.0, "initial_fraction": 0.0}
SIDE = 16
SMALL = TINY | {"generator_width": 2, "discriminator_width": 2, "pool_size": 0}


def built(**options):
    model = CartoonGAN(**{**SMALL, **options})
    model.build((None, None, None, model.channels_a))
    return model


def ready(optimizer=None, perceptual=None, **options):
    """A small model with optimizers, ready for `train_step`, with `perceptual` instead of VGG."""
    model = CartoonGAN(**{**SMALL, **options})
    model.perceptual = perceptual
    model.compile(**{f"{role}_optimizer": optimizer and optimizer() for role in model.roles})
    model.build_for_training((1, 16, 16, model.channels_a), (1, 16, 16, model.channels_b))
    model.build_optimizers()
    return model


class Plain(keras.layers.Layer):
    """In the place of VGG: the pictures as they are."""

    def call(self, x):
        return x

    def prepare(self, *args):
        self.built = True


def with_options(model, **options):
    """Context in which the model has other hyper-parameters, which its networks do not depend on."""
    return unittest.mock.patch.object(model, "config", dataclasses.replace(model.config, **options))


def images(n=1, side=16, seed=0):
    draw = np.random.default_rng(seed)
    return tf.constant(draw.uniform(-1, 1, (n, side, side, 3)).astype("float32"))


# Networks


@nothing_drawn()
def test_parameters_and_sizes():
    model = built(generator_width=64, residual_blocks=8, discriminator_width=32)
    assert model.generator.count_params() == 11_129_667 and model.discriminator.count_params() == 1_129_665
    small = built()
    for side, expected in ((65, 68), (66, 68), (67, 68), (68, 68)):
        assert small.generator(np.zeros((1, side, 64, 3), "float32")).shape == (1, expected, 64, 3)
        assert small.generate(tf.zeros((1, side, 64, 3))).shape == (1, side, 64, 3)
    assert small.discriminator(np.zeros((1, 96, 128, 3), "float32")).shape == (1, 24, 32, 1)


def test_one_affine_change_of_all_colours_changes_nothing():
    """The first convolution sees a reflected picture, and a norm follows."""
    model, x = built(), images(seed=1)
    np.testing.assert_allclose(model.generator(x * 127.5 + 127.5), model.generator(x), atol=1e-4)


def test_initial_weights():
    model = built(generator_width=32, discriminator_width=32)
    for network in model.networks.values():
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.Conv2D) and layer.kernel.numpy().size > 2_000:
                assert layer.kernel.numpy().std() == pytest.approx(0.02, rel=0.05), layer.name
                assert not layer.bias.numpy().any()
    factors = np.concatenate([v.numpy() for v in model.trainable_variables if v.path.endswith("gamma")])
    assert 0 <= factors.min() and factors.max() <= 1 and factors.std() == pytest.approx(12**-0.5, rel=0.1)


# Losses by hand


@pytest.mark.parametrize("says, of_discriminator, of_generator", [(0.0, 1.0, 1.0), (0.5, 0.75, 0.25)])
def test_a_discriminator_that_always_says_the_same(says, of_discriminator, of_generator):
    model = built()
    model.discriminator.last.kernel.assign(tf.zeros_like(model.discriminator.last.kernel))
    model.discriminator.last.bias.assign([says])
    x = images()
    losses, _ = model.discriminator_phase(x, x, x)
    assert float(losses["discriminator_b"]) == pytest.approx(of_discriminator)
    losses, _ = model.generator_phase(x)
    assert {k: float(v) for k, v in losses.items()} == {"gan_a2b": pytest.approx(of_generator)}


def test_smoothed_cartoons_and_translations_are_what_is_not_real():
    model = built()
    model.discriminator.call = lambda x, training: x[..., :1]
    one, two, three = (tf.fill((1, 8, 8, 3), value) for value in (0.25, 0.5, 0.75))
    losses, _ = model.discriminator_phase(cartoons=one, smoothed=two, fake=three)
    assert float(losses["discriminator_b"]) == pytest.approx(0.75**2 + 0.5**2 + 0.75**2)


def test_the_content_loss_is_l1_and_its_official_gradient_too_small():
    model = ready(lambda_vgg=10.0, vgg_size=0, perceptual=Plain())
    fake, photos = tf.Variable(images(seed=1)), images(seed=2)
    gradients = {}
    for kind in ("official", "true"):
        with with_options(model, content_gradient=kind), tf.GradientTape() as tape:
            loss = model.content_loss(fake, photos)
        assert float(loss) == pytest.approx(10 * np.abs(fake - photos).mean(), rel=1e-5)
        gradients[kind] = tape.gradient(loss, fake).numpy()
    np.testing.assert_allclose(gradients["official"] * 16256.25, gradients["true"], rtol=1e-5)
    np.testing.assert_allclose(gradients["true"], 10 * np.sign(fake - photos) / fake.numpy().size, rtol=1e-5)


def test_vgg_sees_pictures_whose_corners_stay():
    model = ready(lambda_vgg=1.0, vgg_size=10, perceptual=Plain())
    ramp = np.broadcast_to(np.linspace(0, 1, 4, dtype="float32")[:, None, None], (1, 4, 4, 3))
    rows = model.features(tf.constant(ramp))[0, :, 0, 0]
    np.testing.assert_allclose(rows, np.linspace(0, 1, 10), atol=1e-6)


# Steps


def test_the_initialisation_learns_from_the_content_alone():
    model = ready(lambda_vgg=1.0, vgg_size=0, initial_fraction=0.5, perceptual=Plain())
    model.total_steps = 4
    assert [model.stage(step) for step in range(4)] == ["initialisation", "initialisation", None, None]
    before = [v.numpy() for v in model.discriminator.trainable_variables]
    x = images(2, seed=1), images(2, seed=2), images(2, seed=3)
    losses = model.train_step(x, model.stage(0))
    assert set(losses) == {"perceptual_a2b"}
    assert int(model.generator_optimizer.iterations) == 1 and int(model.discriminator_optimizer.iterations) == 0
    for v, old in zip(model.discriminator.trainable_variables, before):
        np.testing.assert_array_equal(v.numpy(), old)
    # The moments stay, and the count goes on.
    moment = model.generator_optimizer._momentums[0].numpy()
    assert moment.any()
    assert set(model.train_step(x, model.stage(2))) == {"perceptual_a2b", "gan_a2b", "discriminator_b"}
    assert int(model.generator_optimizer.iterations) == 2 and int(model.discriminator_optimizer.iterations) == 1


def test_rates_are_published():
    """220 epochs of one step: 20 of the initialisation, and 200."""
    model = CartoonGAN(**SMALL | {"lambda_vgg": 10.0, "initial_fraction": 1 / 11})
    model.total_steps, model.steps_per_epoch = 220, 1
    whole = optim.Schedule(model.learning_rate("generator"), "linear_torch7", 220, 1, 0.5)
    of_generator, of_discriminator = (model.published_optimizer(role, whole)._learning_rate for role in model.roles)
    of_generator = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(of_generator))
    expected = {1: 2e-4, 11: 2e-4, 12: 1.8e-4, 20: 2e-5, 21: 1e-5, 121: 1e-5, 122: 9.9e-6, 220: 1e-7}
    for epoch, rate in expected.items():
        assert float(of_generator(epoch - 1)) == pytest.approx(rate, rel=1e-4)
        if epoch > 20:
            assert float(of_discriminator(epoch - 21)) == pytest.approx(rate, rel=1e-4)


def test_the_direction_says_what_is_smoothed():
    for direction, target in (("a2b", 1), ("b2a", 0)):
        model = ready(direction=direction)
        assert model.config.stream == {"smoothed": direction[-1]}
        seen = []
        model.phase = lambda compute, role, learned=None, **inputs: seen.append(inputs) or ({}, {"fake": images()})
        batch = [images(seed=1), images(seed=2)]
        model.train_step(batch)
        shown = next(inputs for inputs in seen if "cartoons" in inputs)
        np.testing.assert_array_equal(shown["cartoons"], batch[target])
        # Without pictures of their own, the batch's are smoothed.
        expected = smooth_edges(model.to_pixels(batch[target]))
        np.testing.assert_allclose(shown["smoothed"], model.to_float(expected), atol=1e-6)
        np.testing.assert_array_equal(seen[0]["photos"], batch[1 - target])
        seen.clear()
        model.train_step((*batch, images(seed=3)))
        np.testing.assert_array_equal(seen[1]["smoothed"], images(seed=3))


def test_biases_learn_nothing():
    model = ready(optimizer=lambda: keras.optimizers.SGD(1.0))
    model.train_step((images(), images(seed=1)))
    biases = [v for v in model.trainable_variables if v.path.endswith("bias")]
    assert len(biases) == 1 + 4 + 2 + 4 + 1 + 7 and not any(v.numpy().any() for v in biases)


# Configuration


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lambda_vgg": 0.0}, "--initial_fraction=0.0909 .*--lambda_vgg=0 leaves out: give --initial_fraction=0 too"),
        ({"lambda_gan": 0.0, "lambda_vgg": 0.0}, "both 0: nothing is left to learn"),
        ({"initial_fraction": 1.5}, "--initial_fraction=1.5: expected 0 to 1"),
        ({"vgg": "vgg11"}, "--vgg=vgg11: expected one of vgg19, vgg16"),
        ({"vgg_size": -1}, "--vgg_size=-1: expected 0 or more"),
    ],
)
def test_impossible_configurations(options, message):
    with pytest.raises(config.UserError, match=message):
        cartoongan_config.CartoonGAN(**options)


def test_vgg_wants_colour_and_weights(tmp_path):
    with pytest.raises(config.UserError, match="--channels_a=3"):
        CartoonGAN(channels_b=1)
    with pytest.raises(config.UserError, match="--vgg_size=7: features of VGG19 .* give --vgg_size=8 or more, or 0"):
        CartoonGAN(**SMALL | {"lambda_vgg": 1.0, "vgg_size": 7})
    model = CartoonGAN(**SMALL | {"lambda_vgg": 1.0, "vgg_weights": str(tmp_path / "vgg.h5")})
    with pytest.raises(
        config.UserError, match="VGG19: --vgg_weights=.* cannot be read.*--lambda_vgg=0 --initial_fraction=0$"
    ):
        model.build_for_training((1, 16, 16, 3), (1, 16, 16, 3))
    assert model.perceptual.conv_names[-1] == "block4_conv4" and not model.perceptual.activation
    # When the adversarial part begins follows from the duration.
    assert not cartoongan_config.CartoonGAN().open_ended and model.config.open_ended


# What the official code, or its formulas, computed (tests/golden/README.md)


@functools.cache
def golden(name):
    return np.load(GOLDEN / f"cartoongan_{name}.npz")


def take(network, places, file, prefix):
    torch_names.load_recorded(network, places, file, prefix)


def test_official_generator():
    file, model = golden("generator"), built(residual_blocks=8)
    take(model.generator, published.layout(model)["G"], file, "weights")
    sizes = [name.split("/")[1] for name in file.files if name.startswith("input/")]
    assert len(sizes) == 3
    for size in sizes:  # blue first there
        y = model.generator(file[f"input/{size}"][..., ::-1])
        np.testing.assert_allclose(y, file[f"output/{size}"][..., ::-1], atol=1e-4)


def assert_gradients(learned, gradients, theirs):
    """Compares gradients with all of theirs in one vector; `learned` has each variable and how theirs become ours."""
    for variable, ours in learned:
        shape = tuple(variable.shape)
        part, theirs = np.split(theirs, [np.prod(shape)])
        expected = ours(part.reshape([shape[i] for i in (3, 2, 0, 1)] if len(shape) == 4 else shape))
        found = gradients[id(variable)]
        assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected), variable.path
    assert not theirs.size


def test_a_step_of_the_initialisation_and_two_behind_it():
    file = golden("steps")
    vgg = PerceptualFeatures("vgg19", "block1_conv1", activation=False)
    vgg.build((None, None, None, 3))
    vgg.convs[0].set_weights([file["weights/vgg/weight"].transpose(2, 3, 1, 0), file["weights/vgg/bias"]])
    vgg.prepared = True
    model = ready(residual_blocks=8, lambda_vgg=10.0, vgg_size=20, perceptual=vgg)
    places = published.layout(model)["G"]
    take(model.generator, places, file, "weights/G")
    torch_names.load(model.discriminator, file, "weights/D")
    gradients = torch_names.watch_gradients(model)
    batch = {name: tf.constant(file[name][..., ::-1]) for name in ("photos", "cartoons", "smoothed")}
    for k, stage in ((1, "initialisation"), (2, None), (3, None)):
        model.generator_optimizer.learning_rate = 2e-4 if stage else 1e-5
        losses = model.train_step(tuple(batch.values()), stage)
        names = ["perceptual_a2b"] if stage else ["discriminator_b", "gan_a2b", "perceptual_a2b"]
        np.testing.assert_allclose([losses[n] for n in names], file[f"losses{k}"], rtol=2e-5)
        weights = [p for key, p in places.items() if not key.endswith("bias")]
        assert_gradients([(place.variable, place.ours) for place in weights], gradients, file[f"gradients{k}/G"])
        if not stage:
            learned = [
                (v, lambda x: x.transpose(2, 3, 1, 0) if x.ndim == 4 else x) for v in model.discriminator.learned
            ]
            assert_gradients(learned, gradients, file[f"gradients{k}/D"])
    for key, place in places.items():
        after = place.ours(file[f"after/G/{key}"])
        np.testing.assert_allclose(place.variable.numpy(), after, rtol=0, atol=4e-6, err_msg=key)
    for (key, after), v in zip(torch_names.in_our_order(file, "after/D"), model.discriminator.variables, strict=True):
        np.testing.assert_allclose(v.numpy(), after, rtol=0, atol=1e-6, err_msg=key)


def test_torch7_adds_epsilon_to_what_is_not_corrected():
    weight = keras.Variable([1.0])
    adam = optim.UncorrectedAdam(0.1, 0.5, 0.999)
    adam.build([weight])
    adam.apply([tf.constant([1e-8])], [weight])
    step = 0.1 * 0.001**0.5 / 0.5 * 0.5e-8 / (0.001**0.5 * 1e-8 + 1e-8)
    assert float(weight.numpy()[0]) == pytest.approx(1 - step, abs=1e-7)
