"""BiGAN against hand-made answers and what CycleGAN's Torch7 code computes."""

import pathlib
import unittest.mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import torch_names
from tests.drawing import nothing_drawn
from tfi2i import optim, settings
from tfi2i.config import UserError
from tfi2i.methods.bigan.model import BiGAN

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "bigan_steps.npz")
# A small model for tests of all methods, and the side of its training images.
TINY = {
    "residual_blocks": 1, "generator_width": 4, "discriminator_width": 4, "discriminator_layers": 2, "pool_size": 3,
}  # fmt: skip
SIDE = 16
# The official names: G translates A to B, E back.
NETWORKS = {"G": "generator_a2b", "E": "generator_b2a", "D": "discriminator_ab"}


def built(**options):
    model = BiGAN(**{**TINY, **options})
    model.build((None, None, None, model.channels_a))
    return model


def ready(side=SIDE, optimizer=None, **options):
    """A model that can take its first step with batches of one."""
    model = built(**options)
    model.compile(**{f"{role}_optimizer": optimizer and optimizer() for role in model.roles})
    model.build_for_training((1, side, side, model.channels_a), (1, side, side, model.channels_b))
    model.build_optimizers()
    return model


def pictures(n=2, side=SIDE, channels=3, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(-1, 1, (n, side, side, channels)).astype("float32"))


def losses_of(model, a, b):
    """The losses of a step that is not taken: phases compute and change nothing. For models without a history."""
    with unittest.mock.patch.object(model, "phase", lambda compute, role, **inputs: compute(**inputs)):
        losses = model.learn(a, b, indices=tf.range(a.shape[0]))
    return {name: float(loss) for name, loss in losses.items()}


# Networks


@pytest.mark.parametrize("blocks, of_generator", [(6, 7_845_123), (9, 11_388_675)])
@nothing_drawn()
def test_parameters(blocks, of_generator):
    model = BiGAN(residual_blocks=blocks)
    model.build((None, None, None, 3))
    counts = {n: sum(int(np.prod(v.shape)) for v in x.trainable_variables) for n, x in model.networks.items()}
    assert counts == {"generator_a2b": of_generator, "generator_b2a": of_generator, "discriminator_ab": 2_769_601}


def test_the_discriminator_takes_the_channels_of_both_domains():
    model = built(channels_b=1, pool_size=0)
    assert model.discriminator.first.kernel.shape[2] == 4
    assert model.generate(tf.zeros((1, 9, 17, 3))).shape == (1, 9, 17, 1)
    assert model.generate(tf.zeros((1, 9, 17, 1)), "b2a").shape == (1, 9, 17, 3)
    assert losses_of(model, pictures(), pictures(channels=1)).keys() == {"gan_a2b", "gan_b2a", "discriminator_ab"}


def test_factors_of_norms_start_around_1():
    norms = [
        v for network in built(generator_width=16).networks.values() for v in network.variables if "gamma" in v.path
    ]
    values = np.concatenate([v.numpy() for v in norms])
    assert values.mean() == pytest.approx(1, abs=0.005) and values.std() == pytest.approx(0.02, rel=0.2)
    assert len({v.numpy()[:4].tobytes() for v in norms}) == len(norms)


# Losses and steps


@pytest.mark.parametrize(
    "answer, gan_loss, expected",
    [
        # Where the discriminator knows nothing, both generators are equally far from what they want.
        (0.5, "lsgan", {"gan_a2b": 0.25, "gan_b2a": 0.25, "discriminator_ab": 0.5}),
        # It says 1, "(a, G(a))", of every pair: E has what it wants, and it is wrong of E's pairs alone.
        (1.0, "lsgan", {"gan_a2b": 1, "gan_b2a": 0, "discriminator_ab": 1}),
        (0.0, "vanilla", {"gan_a2b": np.log(2), "gan_b2a": np.log(2), "discriminator_ab": 2 * np.log(2)}),
        (
            1.0,
            "vanilla",
            {"gan_a2b": np.log1p(np.e), "gan_b2a": np.log1p(1 / np.e), "discriminator_ab": 1 + 2 * np.log1p(1 / np.e)},
        ),
    ],
)
def test_a_constant_answer_gives_losses_known_by_hand(answer, gan_loss, expected):
    model = built(gan_loss=gan_loss, pool_size=0)
    last = model.discriminator.last
    last.kernel.assign(tf.zeros(last.kernel.shape))
    last.bias.assign([answer])
    assert losses_of(model, pictures(), pictures(seed=1)) == pytest.approx(expected)


def test_each_generators_loss_is_its_own():
    model, a, b = built(), pictures(), pictures(seed=1)
    with tf.GradientTape(persistent=True) as tape:
        losses, _ = model.generator_phase(a, b)
    for loss, own, other in (("gan_a2b", "a2b", "b2a"), ("gan_b2a", "b2a", "a2b")):
        of_own, of_other = (
            tape.gradient(losses[loss], [v.value for v in model.generators[d].trainable_variables])
            for d in (own, other)
        )
        assert all(np.any(g) for v, g in zip(model.generators[own].variables, of_own) if v.name == "kernel")
        assert not any(np.any(g) for g in of_other)


def test_exchanging_domains_generators_and_answers_changes_no_loss():
    """What is called real is a convention: 1 - D with exchanged halves is the same judge."""
    model, other = built(init_gain=0.2, pool_size=0), built(pool_size=0)
    a, b = pictures(), pictures(seed=1)
    other.generator_a2b.set_weights(model.generator_b2a.get_weights())
    other.generator_b2a.set_weights(model.generator_a2b.get_weights())
    first, *rest, kernel, bias = model.discriminator.get_weights()
    other.discriminator.set_weights([np.roll(first, 3, axis=2), *rest, -kernel, 1 - bias])
    one, exchanged = losses_of(model, a, b), losses_of(other, b, a)
    assert abs(one["gan_a2b"] - one["gan_b2a"]) > 1e-3
    expected = {"gan_a2b": one["gan_b2a"], "gan_b2a": one["gan_a2b"], "discriminator_ab": one["discriminator_ab"]}
    assert exchanged == pytest.approx(expected, rel=1e-5)


def official(**options):
    """The golden model; its Adam is Torch7's, which is Keras': epsilon is added before bias correction."""
    size = {"residual_blocks": 6, "generator_width": 2, "discriminator_width": 2, "discriminator_layers": 3}
    model = ready(32, lambda: keras.optimizers.Adam(2e-4, 0.5, 0.999, epsilon=1e-8), channels_b=1, **size, **options)
    for part, name in NETWORKS.items():
        torch_names.load(model.networks[name], GOLDEN, f"weights/{part}")
    return model


def in_their_order(losses):
    """errD, which is halved in the log alone, errG, errE."""
    return [float(losses["discriminator_ab"]) / 2, float(losses["gan_a2b"]), float(losses["gan_b2a"])]


def moves(network, variable):
    """Whether a variable is no bias that a norm makes needless, whose gradient is rounding."""
    ends = {id(v) for layer in (network.stack[0], network.stack[-1]) for v in layer.variables}
    if network.name.startswith("generator"):
        ends -= {id(network.head.bias)}
    return "bias" not in variable.path or id(variable) in ends


def test_two_steps():
    """Losses, gradients and weights; the generators learn against the updated discriminator, from their old outputs."""
    model, (a, b) = official(), (GOLDEN["real_A"], GOLDEN["real_B"])
    gradients = torch_names.watch_gradients(model)
    for k in (1, 2):
        gradients.clear()
        losses = model.train_step((tf.constant(a[k - 1 : k]), tf.constant(b[k - 1 : k])))
        np.testing.assert_allclose(in_their_order(losses), GOLDEN[f"losses{k}"], rtol=3e-5)
        for part, name in NETWORKS.items():
            network = model.networks[name]
            kind = "gradients1" if k == 1 else "after2"
            recorded = torch_names.in_our_order(GOLDEN, f"{kind}/{part}")
            for v, (key, expected) in zip(network.variables, recorded, strict=True):
                if moves(network, v) and k == 1:
                    atol = 1e-4 * np.abs(expected).max() + 1e-7
                    np.testing.assert_allclose(gradients[id(v)], expected, rtol=0, atol=atol, err_msg=f"{part} {key}")
                elif moves(network, v):
                    # A step moves a weight by up to 2e-4.
                    np.testing.assert_allclose(v.numpy(), expected, rtol=0, atol=4e-6, err_msg=f"{part} {key}")


def test_losses_of_a_batch():
    losses = official().train_step((tf.constant(GOLDEN["real_A"]), tf.constant(GOLDEN["real_B"])))
    np.testing.assert_allclose(in_their_order(losses), GOLDEN["losses/batch2"], rtol=3e-5)


def test_the_histories_hold_pairs():
    """Whatever comes back for a translation has its own input beside it, in A's or B's place."""
    model = ready(pool_size=1, seed=2)
    a, b = pictures(8), pictures(8, seed=1)
    seen = []

    def phase(compute, role, **inputs):
        """Translates, and lets nothing learn."""
        if role == "discriminator":
            seen.append((inputs["pairs_b"], inputs["pairs_a"]))
        return compute(**inputs) if role is None else ({}, {})

    made_b, made_a = model.generator_a2b(a, training=True), model.generator_b2a(b, training=True)
    with unittest.mock.patch.object(model, "phase", phase):
        for k in range(8):
            model.learn(a[k : k + 1], b[k : k + 1], indices=tf.range(1))
            model.step.assign_add(1)
    order = {}
    for kind, inputs, made, halves in ((0, a, made_b, (0, 3)), (1, b, made_a, (3, 0))):
        pairs = np.concatenate([pair[kind] for pair in seen])
        given, translated = (pairs[..., first : first + 3] for first in halves)
        order[kind] = [next(i for i in range(8) if np.array_equal(x, inputs[i])) for x in given]
        np.testing.assert_allclose(translated, tf.gather(made, order[kind]), atol=1e-5)
    # Old pairs come back, and of both histories by coins of their own.
    assert order[0] != [*range(8)] != order[1] and order[0] != order[1]


# Settings


def test_the_rate_falls_as_in_torch7():
    run = settings.resolve("bigan", {"data": "x"})
    rate = optim.Schedule(run.model.learning_rate, run.training.lr_schedule, 2000, 10, run.training.decay_fraction)
    rates = [float(rate(10 * (epoch - 1))) for epoch in (1, 101, 102, 200)]
    assert rates == pytest.approx([2e-4, 2e-4, 1.98e-4, 2e-6], rel=1e-4)
    assert (run.training.epochs, run.training.batch_size, run.data.crop) == (200, 1, (256, 256))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"gan_loss": "wgan-gp"}, "--gan_loss=wgan-gp: expected one of lsgan, vanilla"),
        ({"pool_size": -1}, "--pool_size=-1: expected 0 or more"),
        ({"discriminator_layers": 0}, "--discriminator_layers=0: expected more than 0"),
        ({"ema_momentum": 1.0}, "--ema_momentum=1.0: expected 0 or more and less than 1"),
    ],
)
def test_impossible_values(options, message):
    with pytest.raises(UserError, match=message):
        BiGAN(**options)


def test_pictures_that_make_no_pair():
    model = BiGAN(**TINY)
    with pytest.raises(UserError, match="images of 16x16 and 16x20: .* give A and B one size"):
        model.build_for_training((1, 16, 16, 3), (1, 16, 20, 3))
    with pytest.raises(UserError, match="--crop=8,8 is too small .* 12 pixels a side: make it larger, or give fewer"):
        model.check_crop(8, 8)
