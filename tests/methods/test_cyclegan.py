"""CycleGAN against hand-made answers and the official PyTorch code's."""

import dataclasses
import functools
import json
import pathlib
import unittest.mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import torch_names
from tfi2i import layers, settings
from tfi2i.config import UserError
from tfi2i.methods.cyclegan import model as cyclegan
from tfi2i.methods.cyclegan.model import CycleGAN
from tfi2i.methods.losses import adversarial_loss, gradient_penalty, l1
from tfi2i.methods.memory import ImagePool, replay

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
# The official names: its G_A is our generator_a2b, and its D_A judges domain B.
NETWORKS = {
    "G_A": "generator_a2b", "G_B": "generator_b2a", "D_A": "discriminator_b", "D_B": "discriminator_a",
}  # fmt: skip
LOSSES = {
    "G_A": "gan_a2b", "G_B": "gan_b2a", "cycle_A": "cycle_a", "cycle_B": "cycle_b",
    "idt_A": "identity_b", "idt_B": "identity_a", "D_A": "discriminator_b", "D_B": "discriminator_a",
}  # fmt: skip
# A small model for tests of all methods, and the side of its training images.
TINY = {
    "residual_blocks": 1, "generator_width": 4, "discriminator_width": 4, "discriminator_layers": 2, "pool_size": 3,
}  # fmt: skip
SIDE = 16
SMALL = {"residual_blocks": 1, "generator_width": 2, "discriminator_width": 2}
UNET = {"generator": "unet_128", "residual_blocks": None}


# Networks


def generator(kind, width, norm, channels=3, dropout=False, upsample="transposed"):
    shared = {"norm": norm, "init": "normal", "init_gain": 0.02, "dropout": dropout, "seed": 1}
    if kind.startswith("unet"):
        return cyclegan.UnetGenerator(channels, width, {"unet_256": 8, "unet_128": 7}[kind], **shared)
    blocks = {"resnet_9blocks": 9, "resnet_6blocks": 6, "resnet": 1}[kind]
    return cyclegan.ResnetGenerator(channels, width, blocks, upsample, **shared)


def discriminator(kind, layer_count, width, norm):
    return cyclegan.Discriminator(kind, layer_count, width, norm=norm, init="normal", init_gain=0.02, seed=2)


def parameters(network):
    network.build((None, None, None, 3))
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


@pytest.fixture
def no_drawing(monkeypatch):
    """Weights of full-size networks are zeros: quick, and enough to be counted."""
    monkeypatch.setattr(layers, "initializer", lambda *_: "zeros")


@pytest.mark.parametrize(
    "kind, norm, expected",
    [
        ("resnet_9blocks", "batch", 11_383_427),
        ("resnet_6blocks", "instance", 7_837_699),
        ("unet_256", "instance", 54_409_603),
        ("unet_128", "batch", 41_828_995),
        pytest.param("resnet_9blocks", "instance", 11_378_179, marks=pytest.mark.thorough),
        pytest.param("resnet_6blocks", "batch", 7_841_411, marks=pytest.mark.thorough),
        pytest.param("unet_256", "batch", 54_413_955, marks=pytest.mark.thorough),
        pytest.param("unet_128", "instance", 41_825_667, marks=pytest.mark.thorough),
    ],
)
def test_generator_parameters(no_drawing, kind, norm, expected):
    assert parameters(generator(kind, 64, norm)) == expected


@pytest.mark.parametrize(
    "kind, layer_count, norm, expected",
    [
        ("n_layers", 3, "instance", 2_764_737),
        ("n_layers", 3, "batch", 2_765_633),
        ("n_layers", 1, "instance", 136_385),
        ("n_layers", 2, "instance", 662_977),
        ("n_layers", 4, "instance", 6_959_553),
        ("n_layers", 5, "instance", 11_154_369),
        ("pixel", 3, "instance", 8_705),
        ("pixel", 3, "batch", 8_832),
    ],
)
def test_discriminator_parameters(no_drawing, kind, layer_count, norm, expected):
    assert parameters(discriminator(kind, layer_count, 64, norm)) == expected


def test_default_parameters(no_drawing):
    model = CycleGAN()
    model.build((None, None, None, 3))
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == 28_285_832


@pytest.mark.parametrize("size, expected", [(128, 14), (256, 30), (286, 33), (360, 43)])
def test_discriminator_sizes(size, expected):
    network = discriminator("n_layers", 3, 1, "instance")
    assert network(np.zeros((1, size, size, 3), np.float32)).shape == (1, expected, expected, 1)


def test_tensorflow_pads_the_far_side():
    """A kernel that is 1 in its corner takes the pixels 2i, where PyTorch's takes 2i - 1, and puts them there again."""
    x = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    before = np.pad(x, ((0,), (1,), (1,), (0,)))[:, :8:2, :8:2]
    for variant, taken in (("tensorflow", x[:, ::2, ::2]), ("pytorch", before)):
        network = cyclegan.ResnetGenerator(1, 1, 1, "transposed", norm="none", dropout=False, variant=variant)
        network.build((None, None, None, 1))
        (down, _), (up, _) = network.down[0], network.up[1]
        down.kernel.assign(np.eye(9)[0].reshape(3, 3, 1, 1).repeat(2, -1))
        up.kernel.assign(np.eye(9)[0].reshape(3, 3, 1, 1).repeat(2, -1))
        np.testing.assert_array_equal(down(x)[..., :1], taken)
        y = up(down(x)) / 2
        assert y.shape == x.shape
        if variant == "tensorflow":
            np.testing.assert_array_equal(y[:, ::2, ::2], taken)
            assert np.sum(y) == np.sum(taken)


def test_tensorflow_has_factors_and_offsets_and_no_inner_biases():
    model = built(cyclegan_variant="tensorflow")
    for name, network in model.networks.items():
        names = [v.path.split("/")[-1] for v in network.trainable_variables]
        generates = name.startswith("generator")
        assert names.count("gamma") == names.count("beta") == (7 if generates else 3)
        assert names.count("bias") == (1 if generates else 2)
    assert model.generator_a2b.head_norm.epsilon == 1e-3
    finer = CycleGAN(cyclegan_variant="tensorflow", norm_epsilon=1e-5, **SMALL)
    assert finer.discriminator_a.inner[0][1].epsilon == 1e-5


FILES = [path.stem for path in sorted(GOLDEN.glob("cyclegan_*_*.npz")) if path.stem != "cyclegan_gradient_penalty"]


@pytest.mark.parametrize("name", FILES)
def test_networks_are_the_official_ones(name):
    file = np.load(GOLDEN / f"{name}.npz")
    c = json.loads(str(file["config"]))
    if "netG" in c:
        network = generator(c["netG"], c["ngf"], c["norm"], c["output_nc"])
    else:
        network = discriminator("pixel" if c["netD"] == "pixel" else "n_layers", c["n_layers_D"], c["ndf"], c["norm"])
    network.build((None, None, None, c["input_nc"]))
    torch_names.load(network, file)
    s = c.get("output_stride", 1)
    sizes = [key.split("/")[1] for key in file.files if key.startswith("input/")]
    for size in sizes:  # in the file's order, for the running statistics
        y = network(file[f"input/{size}"], training=True)
        np.testing.assert_allclose(y[:, ::s, ::s], file[f"output/{size}"], atol=1e-4)
    after = {k: v for k, v in torch_names.in_our_order(file, "weights_after")}
    running = [v.numpy() for v in network.non_trainable_variables]
    np.testing.assert_equal(len(running), len(after))
    for ours, theirs in zip(running, after.values()):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for size in sizes:
        y = network(file[f"input/{size}"])
        expected = file[f"output_eval/{size}" if after else f"output/{size}"]
        np.testing.assert_allclose(y[:, ::s, ::s], expected, atol=1e-4)


def test_resize_conv_has_the_transposed_ones_sizes():
    network = generator("resnet", 2, "instance", upsample="resize_conv")
    x = np.random.default_rng(0).uniform(-1, 1, (1, 16, 24, 3)).astype(np.float32)
    assert network(x).shape == x.shape
    transposed = generator("resnet", 2, "instance")
    assert transposed(x).shape == x.shape
    # The same kernels, (in, out) exchanged.
    assert network.count_params() == transposed.count_params()
    assert not any(isinstance(layer, layers.Conv2DTranspose) for layer in network._flatten_layers())


@pytest.mark.parametrize("kind, size", [("resnet", 16), ("unet_128", 128)])
def test_dropout_is_a_function_of_the_samples_seeds(kind, size):
    network = generator(kind, 1, "instance", dropout=True)
    x = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    network.build(x.shape)
    for v in network.trainable_variables:  # the published start is too small to see anything
        v.assign(v * 20)
    seeds = layers.sample_seeds(0, 5, tf.range(2), "dropout")
    y = network(x, training=True, seeds=seeds).numpy()
    np.testing.assert_array_equal(y, network(x, training=True, seeds=seeds))
    np.testing.assert_allclose(y[1:], network(x[1:], training=True, seeds=seeds[1:]), atol=1e-5)
    assert np.abs(y - network(x, training=True, seeds=seeds + 1)).max() > 1e-3
    assert np.abs(network(x, seeds=seeds) - network(x)).max() > 1e-3  # seeds switch it on, and translation gives none


@pytest.mark.parametrize("kind, count", [("resnet_6blocks", 6), ("unet_128", 2)])
def test_dropout_layers_share_no_mask(kind, count):
    model = CycleGAN(generator=kind, generator_width=1, dropout=True)
    drops = [layer for layer in model._flatten_layers() if isinstance(layer, layers.Dropout)]
    assert len(drops) == 2 * count == len({layer.index for layer in drops})


@pytest.mark.parametrize("init", ["normal", "xavier", "kaiming", "orthogonal"])
def test_initial_weights(init):
    model = CycleGAN(generator_width=16, residual_blocks=2, discriminator_width=16, init=init, init_gain=0.5)
    model.build((None, None, None, 3))
    kernels = [v.numpy() for v in model.trainable_variables if v.name == "kernel"]
    others = [v.numpy() for v in model.trainable_variables if v.name != "kernel"]
    assert len(kernels) == len(others) == 2 * (10 + 5)
    assert not any(v.any() for v in others)
    for i, k in enumerate(kernels):
        assert not any(k.shape == other.shape and (k == other).all() for other in kernels[:i])  # each its own draw
        if k.size < 10_000:
            continue
        fan_in, fan_out = np.prod(k.shape[:3]), np.prod(k.shape[:2]) * k.shape[3]
        expected = {
            "normal": 0.5,
            "xavier": 0.5 * (2 / (fan_in + fan_out)) ** 0.5,
            "kaiming": (2 / fan_in) ** 0.5,
            "orthogonal": 0.5 * max(fan_in, k.shape[3]) ** -0.5,
        }[init]
        assert k.std() == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("init, deviation", [("normal", 1.0), ("orthogonal", 0.02)])
def test_the_gain_of_other_initialisers_leaves_batch_norms_near_1(init, deviation):
    model = built(norm="batch", init=init, init_gain=1.0, generator_width=16, discriminator_width=16)
    factors = np.concatenate([v.numpy() for v in model.trainable_variables if v.name == "gamma"])
    assert factors.std() == pytest.approx(deviation, rel=0.2)


def test_batch_norms_draw_their_own_gains():
    model = built(norm="batch")
    arrays = [v.numpy() for v in model.trainable_variables if v.name in ("gamma", "kernel")]
    starts = [tuple(v.ravel()[:2] - (v.ndim == 1)) for v in arrays]  # gains are about 1
    for i, start in enumerate(starts):
        assert not any(np.allclose(start, other, rtol=1e-3) for other in starts[:i])


def test_the_largest_seed_builds():
    built(seed=2**31 - 1, dropout=True, norm="batch")


@pytest.mark.parametrize(
    "options, count",
    [({}, 9), ({"generator": "resnet_6blocks"}, 6), ({"residual_blocks": 2}, 2)],
)
def test_residual_blocks(options, count):
    model = CycleGAN(generator_width=1, discriminator_width=1, **options)
    assert len(model.generator_a2b.blocks) == len(model.generator_b2a.blocks) == count
    assert CycleGAN.from_config(model.get_config()).config == model.config
    run = settings.resolve("cyclegan", options)
    assert settings.Run.from_json(run.to_json()) == run and settings.differing(run) == options


@pytest.mark.parametrize(
    "options, message",
    [
        ({"residual_blocks": 0}, "--residual_blocks=0: expected more than 0"),
        (
            {"residual_blocks": 1, "generator": "unet_128"},
            "--residual_blocks=1 is for the ResNet generators, --generator=unet_128 has none: .* or leave --resid",
        ),
    ],
)
def test_impossible_configurations(options, message):
    with pytest.raises(UserError, match=message):
        CycleGAN(**options)


# Losses by hand


@pytest.mark.parametrize(
    "kind, real, expected",
    [
        ("lsgan", True, 4),  # (3 - 1)²
        ("lsgan", False, 9),
        ("vanilla", True, np.log1p(np.exp(-3))),
        ("vanilla", False, np.log1p(np.exp(3))),
        ("wgan-gp", True, -3),
        ("wgan-gp", False, 3),
    ],
)
def test_adversarial_loss_of_constants(kind, real, expected):
    assert float(adversarial_loss(tf.fill((2, 3, 3, 1), 3.0), real, kind)) == pytest.approx(expected, rel=1e-6)


def test_l1_is_a_mean_over_everything():
    assert float(l1(tf.constant([[0.0, 4.0], [1.0, 1.0]]), tf.ones((2, 2)))) == 1


def test_gradient_penalty_of_a_linear_critic():
    slope = tf.constant([3.0, 4.0])  # gradient of norm 5 at every sample of 1 pixel and 2 channels
    x = tf.random.stateless_normal((4, 1, 1, 2), (0, 0))
    assert float(gradient_penalty(lambda x: tf.reduce_sum(x * slope, -1), x)) == pytest.approx(16, rel=1e-6)
    assert float(gradient_penalty(lambda x: tf.reduce_sum(x * slope, -1), x, center=0)) == pytest.approx(25, rel=1e-6)
    assert float(gradient_penalty(lambda x: 0 * x, x)) == pytest.approx(1)


def test_constant_images_give_losses_known_by_hand():
    """Zero weights: generators answer 0 everywhere, discriminators their last bias."""
    model = built(lambda_a=3.0, lambda_b=5.0, lambda_identity=2.0, pool_size=0)
    for v in model.trainable_variables:
        v.assign(tf.zeros(v.shape))
    model.discriminator_a.last.bias.assign([0.25])
    model.discriminator_b.last.bias.assign([0.5])
    a, b = tf.fill((1, 32, 32, 3), 0.5), tf.fill((1, 32, 32, 3), -0.25)
    assert losses_of(model, a, b) == pytest.approx({
        "gan_a2b": 0.25, "gan_b2a": 0.5625, "cycle_a": 3 * 0.5, "cycle_b": 5 * 0.25,
        "identity_a": 3 * 2 * 0.5, "identity_b": 5 * 2 * 0.25,
        "discriminator_a": 0.5 * (0.75**2 + 0.25**2), "discriminator_b": 0.5 * (0.5**2 + 0.5**2),
    })  # fmt: skip


# Losses and steps of the official model


def built(**options):
    model = CycleGAN(**SMALL | options)
    model.build((None, None, None, model.channels_a))
    return model


def ready(side=16, n=1, optimizer=None, **options):
    """A small model with optimizers, ready for `train_step`; of an optimizer each role gets its own copy."""
    model = CycleGAN(**SMALL | options)
    model.compile(**{f"{role}_optimizer": optimizer and optimizer() for role in model.roles})
    model.build_for_training((n, side, side, model.channels_a), (n, side, side, model.channels_b))
    model.build_optimizers()
    return model


def plain_descent():
    """An optimizer without slots, for steps that are compared with nothing: a model is ready sooner with it."""
    return keras.optimizers.SGD(1.0)


def losses_of(model, a, b):
    """The losses of a step that is not taken: phases compute and change nothing."""
    with unittest.mock.patch.object(model, "phase", lambda compute, role, **inputs: compute(**inputs)):
        losses = model.learn(a, b, indices=tf.range(a.shape[0]))
    return {name: float(loss) for name, loss in losses.items()}


GOLDEN_MODEL = np.load(GOLDEN / "cyclegan_model.npz")
# Arrays: a tensor would start TensorFlow before the workers of test_conformance are told of each other.
REAL_A, REAL_B = (GOLDEN_MODEL[f"real_{domain}"] for domain in "AB")


def official(model):
    """Gives a built model the weights of the golden one."""
    for theirs, ours in NETWORKS.items():
        torch_names.load(model.networks[ours], GOLDEN_MODEL, f"weights/{theirs}")
    return model


@functools.cache
def still():
    """The golden model, without a pool: for tests that change neither its weights nor its state."""
    return official(built(residual_blocks=6, pool_size=0))


@pytest.fixture
def configured(monkeypatch):
    """Function of hyper-parameters: the golden model with these, for one test."""

    def model(**options):
        monkeypatch.setattr(still(), "config", dataclasses.replace(still().config, **options))
        return still()

    return model


def in_their_order(losses):
    return [float(losses[LOSSES[str(name)]]) for name in GOLDEN_MODEL["loss_names"]]


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("mode", ["lsgan", "vanilla", "wgan-gp"])
def test_eight_losses(mode, n, configured):
    model = configured(gan_loss=mode, lambda_gp=0.0)  # the official code never applies the penalty
    losses = losses_of(model, REAL_A[:n], REAL_B[:n])
    assert set(losses) == set(LOSSES.values())
    expected = GOLDEN_MODEL[f"losses/{mode.replace('-', '')}/batch{n}"]
    np.testing.assert_allclose(in_their_order(losses), expected, rtol=1e-5, atol=1e-5)


def test_translations_of_the_official_model():
    model, a, b = still(), REAL_A[:1], REAL_B[:1]
    there, back = model.generator_a2b, model.generator_b2a
    ours = {
        "fake_B": there(a), "fake_A": back(b), "rec_A": back(there(a)), "rec_B": there(back(b)),
        "idt_A": there(b), "idt_B": back(a),
    }  # fmt: skip
    for name, image in ours.items():
        np.testing.assert_allclose(image, GOLDEN_MODEL[f"images/{name}"], atol=1e-4)
    np.testing.assert_array_equal(model(a), ours["fake_B"])


def test_two_steps():
    """Losses, gradients and weights after one G and one D step, then losses and weights after the next."""
    file = np.load(GOLDEN / "cyclegan_steps.npz")
    model = official(ready(side=32, residual_blocks=6))
    gradients = torch_names.watch_gradients(model)
    for k in (1, 2):
        gradients.clear()
        losses = model.train_step((REAL_A[k - 1 : k], REAL_B[k - 1 : k]))
        np.testing.assert_allclose(in_their_order(losses), file[f"losses{k}"], rtol=1e-5, atol=1e-5)
        for theirs, name in NETWORKS.items():
            variables = model.networks[name].trainable_variables
            if k == 1:
                expected = torch_names.in_our_order(file, f"gradients1/{theirs}")
                for v, (key, gradient) in zip(variables, expected, strict=True):
                    scale = np.abs(gradient).max()
                    atol = 1e-5 if torch_names.before_norm(key) else 1e-4 * scale
                    np.testing.assert_allclose(gradients[id(v)], gradient, rtol=0, atol=atol, err_msg=key)
            expected = torch_names.in_our_order(file, f"after{k}/{theirs}")
            for v, (key, weights) in zip(variables, expected, strict=True):
                if not torch_names.before_norm(key):
                    # A step moves a weight by up to 2e-4.
                    np.testing.assert_allclose(v.numpy(), weights, rtol=0, atol=2e-6, err_msg=f"{theirs} {key}")
    assert int(model.step) == 2


@pytest.mark.parametrize("kind", ["real", "fake", "mixed"])
def test_gradient_penalty_is_the_official_one(kind):
    file = np.load(GOLDEN / "cyclegan_gradient_penalty.npz")
    critic = discriminator("n_layers", 3, 2, "instance")
    critic.build((None, None, None, 3))
    torch_names.load(critic, file)
    alpha = {"real": 1.0, "fake": 0.0, "mixed": file["alpha"].reshape(-1, 1, 1, 1)}[kind]
    x = tf.constant(alpha * file["real"] + (1 - alpha) * file["fake"], tf.float32)
    with tf.GradientTape() as tape:
        penalty = 10 * gradient_penalty(lambda x: critic(x, training=True), x)
    assert float(penalty) == pytest.approx(float(file[f"penalty/{kind}"]), rel=1e-5)
    if kind == "mixed":
        weights = [v.value for v in critic.trainable_variables]
        gradients = tape.gradient(penalty, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        for gradient, (key, expected) in zip(gradients, torch_names.in_our_order(file, "gradients"), strict=True):
            np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3, err_msg=key)


def test_wgan_gp_adds_the_penalty(configured):
    model, a, b = configured(gan_loss="wgan-gp", lambda_gp=2.0), REAL_A, REAL_B
    seeds = layers.sample_seeds(0, 0, tf.range(2), "gradient penalty")
    losses, _ = model.discriminator_phase(a, b, b, a, seeds)
    alpha = tf.reshape(layers.uniform(seeds), (2, 1, 1, 1))
    expected = 2 * gradient_penalty(model.discriminator_a, alpha * a + (1 - alpha) * b)
    assert float(losses["penalty_a"]) == pytest.approx(float(expected), rel=1e-5)
    assert set(losses) == {"discriminator_a", "discriminator_b", "penalty_a", "penalty_b"}


# Variants


def test_batching_changes_nothing(monkeypatch):
    """One call for two inputs of a network equals two calls; batch norm, which mixes samples, gets two calls."""
    model, a, b = built(init_gain=0.2), REAL_A, REAL_B
    seeds = layers.sample_seeds(0, 0, tf.range(2), "test")
    results = []
    for mix in (False, True):
        monkeypatch.setattr(model, "batches_mix", mix)
        g, images = model.generator_phase(a, b, seeds)
        d, _ = model.discriminator_phase(a, b, b, a, seeds)
        results.append([*g.values(), *d.values(), *images.values()])
    for together, apart in zip(*results, strict=True):
        np.testing.assert_allclose(together, apart, atol=2e-6)
    assert CycleGAN(norm="batch", **SMALL).batches_mix and not CycleGAN(norm="none", **SMALL).batches_mix


ALL = set(LOSSES.values())


@pytest.mark.parametrize(
    "options, dropped",
    [
        ({"lambda_identity": 0.0}, {"identity_a", "identity_b"}),
        ({"lambda_a": 0.0}, {"cycle_a", "identity_a"}),
        ({"lambda_b": 0.0}, {"cycle_b", "identity_b"}),
        ({"lambda_a": 0.0, "lambda_b": 0.0}, {"cycle_a", "identity_a", "cycle_b", "identity_b"}),
        ({"lambda_gan": 0.0}, {"gan_a2b", "gan_b2a", "discriminator_a", "discriminator_b"}),
    ],
)
def test_weight_0_drops_the_term(options, dropped, configured):
    losses = losses_of(configured(**options), REAL_A[:1], REAL_B[:1])
    assert set(losses) == ALL - dropped
    whole = dict(zip(map(str, GOLDEN_MODEL["loss_names"]), GOLDEN_MODEL["losses/lsgan/batch1"]))
    for theirs, ours in LOSSES.items():
        if ours in losses:
            assert losses[ours] == pytest.approx(whole[theirs], abs=1e-5, rel=1e-5)


def test_weight_0_of_the_adversarial_loss_leaves_the_discriminators_as_they_are():
    model = ready(optimizer=plain_descent, lambda_gan=0.0)
    before = {k: [v.numpy() for v in network.trainable_variables] for k, network in model.networks.items()}
    model.train_step((REAL_A[:1, :16, :16], REAL_B[:1, :16, :16]))
    for name, network in model.networks.items():
        moved = torch_names.differences([v.numpy() for v in network.trainable_variables], before[name])
        assert (moved > 0) == name.startswith("generator"), name


def test_unequal_channels():
    with pytest.raises(UserError, match=r"--lambda_identity=0.5 .* A has 1 and B 3 channels: set --lambda_identity=0"):
        CycleGAN(channels_a=1, **SMALL)
    model = ready(32, optimizer=plain_descent, channels_a=1, lambda_identity=0.0)
    a, b = np.zeros((1, 32, 32, 1), np.float32), np.zeros((1, 32, 32, 3), np.float32)
    losses = model.train_step((tf.constant(a), tf.constant(b)))
    assert np.isfinite([float(v) for v in losses.values()]).all()
    assert model.generator_a2b(a).shape == (1, 32, 32, 3) and model.generator_b2a(b).shape == (1, 32, 32, 1)


@pytest.mark.parametrize(
    "options",
    [
        {**UNET, "generator_width": 1, "norm": "batch", "dropout": True},
        {"discriminator": "pixel", "norm": "none"},
        {"upsample": "resize_conv", "gan_loss": "wgan-gp", "discriminator_layers": 2, "dropout": True},
        {"cyclegan_variant": "tensorflow"},
        {**UNET, "cyclegan_variant": "tensorflow", "norm": "batch", "dropout": True},
    ],
    ids=lambda o: "-".join(str(v) for v in o.values() if v is not None),
)
def test_variants_learn(options):
    size = 128 if "unet_128" in options.values() else 16
    model = ready(size, 2, plain_descent, **options)
    before = [v.numpy() for v in model.trainable_variables]
    images = np.random.default_rng(0).uniform(-1, 1, (2, 2, size, size, 3)).astype(np.float32)
    losses = model.train_step(tuple(tf.constant(images)))
    assert np.isfinite([float(v) for v in losses.values()]).all()
    for variable, old in zip(model.trainable_variables, before):
        # Biases before a norm have no gradient but rounding.
        if variable.name == "kernel":
            assert (variable.numpy() != old).any(), variable.path


def test_model_survives_serialization():
    model = ready(norm="batch", dropout=True, lambda_a=4.0, pool_size=3)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(model))))
    assert again.config == model.config and again.get_config() == model.get_config()
    assert [v.shape for v in again.variables] == [v.shape for v in model.variables]


# Image pool


@pytest.mark.parametrize("n", [1, 2])
def test_pool_replays_the_official_one(n):
    file = np.load(GOLDEN / "image_pool.npz")
    size = int(file["pool_size"])
    images, count = tf.fill((size, 1), -1.0), tf.constant(0, tf.int64)
    step = tf.function(replay)
    out = []
    for k in range(200 // n):
        i = slice(k * n, k * n + n)
        new = tf.constant(file["ids_in"][i, None], tf.float32)
        images, count, back = step(images, count, new, tf.constant(file["uniform"][i] > 0.5), file["index"][i])
        out += back.numpy().ravel().tolist()
        np.testing.assert_array_equal(images.numpy().ravel(), file[f"stored/batch{n}"][k])
    np.testing.assert_array_equal(out, file[f"ids_out/batch{n}"])


def test_pool_statistics():
    """Full: half of the images come back from the pool, from all slots alike, and only those were stored."""
    pool = ImagePool(4, seed=1, name="pool_a")
    pool.build((None, 1))

    @tf.function
    def run(ids):
        back, stored = tf.TensorArray(tf.float32, 600), tf.TensorArray(tf.float32, 600)
        for k in tf.range(600):
            back = back.write(k, pool.query(ids[k], k, tf.range(2)))
            stored = stored.write(k, pool.images)
        return back.stack(), stored.stack()

    ids = np.arange(1200, dtype=np.float32)
    back, stored = (x.numpy() for x in run(tf.constant(ids.reshape(600, 2, 1))))
    back = back.ravel()
    slots = (np.diff(stored[..., 0], axis=0) != 0).sum(axis=0)
    np.testing.assert_array_equal(back[:4], ids[:4])  # filling: returned and stored
    assert (back != ids)[4:].mean() == pytest.approx(0.5, abs=0.05)
    assert (back <= ids).all()
    # Later images leave once: on arrival, unstored, or when another takes their slot.
    assert len(set(back)) == len(back) - 4
    np.testing.assert_allclose(slots / slots.sum(), 0.25, atol=0.05)


def test_pool_of_0_passes_on():
    pool = ImagePool(0)
    pool.build((None, 1))
    x = tf.ones((2, 1))
    assert pool.query(x, 0, tf.range(2)) is x and not pool.weights


def test_discriminators_learn_from_the_pool():
    """What goes in is the old generator's image; what comes out is judged."""
    model, a, b = ready(32, optimizer=plain_descent), REAL_A[:1], REAL_B[:1]
    fake_b, seen = model.generator_a2b(a, training=True), []
    model.pool_b.query = lambda x, step, indices: (seen.append(x), tf.zeros_like(x))[1]
    judge = model.discriminator_b
    real, fake = (adversarial_loss(judge(x), t, "lsgan") for x, t in ((b, True), (tf.zeros_like(b), False)))
    losses = model.train_step((a, b))
    np.testing.assert_allclose(seen[0], fake_b, atol=1e-5)
    assert np.abs(model.generator_a2b(a, training=True) - fake_b).max() > 1e-3
    assert float(losses["discriminator_b"]) == pytest.approx(float(0.5 * (real + fake)), rel=1e-5)


def test_running_statistics_move_within_phases():
    """A discriminator with batch norm sees three batches a step: generated, real, generated."""
    model = ready(32, optimizer=plain_descent, norm="batch")
    a, b = (tf.constant(x) for x in np.random.default_rng(0).uniform(-1, 1, (2, 1, 32, 32, 3)).astype(np.float32))
    twin = discriminator("n_layers", 3, 2, "batch")
    twin.build(a.shape)
    twin.set_weights(model.discriminator_b.get_weights())
    fake_b = model.generator_a2b(a, training=True)
    for x in (fake_b, b, fake_b):
        twin(x, training=True)
    model.train_step((a, b))
    ours, expected = ([v.numpy() for v in n.non_trainable_variables] for n in (model.discriminator_b, twin))
    assert torch_names.differences(ours, expected) < 1e-6
    assert torch_names.differences(ours, [v * 0 for v in ours]) > 0.1
