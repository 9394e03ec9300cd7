"""DRIT against hand-made answers and what the official code computed."""

import functools
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import torch_names
from tests.drawing import nothing_drawn
from tfi2i import config
from tfi2i.methods.drit import config as drit_config
from tfi2i.methods.drit import model as drit
from tfi2i.methods.drit import published
from tfi2i.methods.drit.model import DRIT
from tfi2i.optim import Adam, Schedule

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"

# A small model for tests of all methods, and the side of its training images.
TINY = {"generator_width": 2, "style_size": 3, "discriminator_width": 2, "discriminator_layers": 2}
TINY |= {"discriminator_scales": 2, "content_discriminator_layers": 0}
SIDE = 16
# Of two images one is translated, and the other shown to the discriminators alone.
SAMPLEWISE = {"split_batch": False}
VARIANTS = ("concat", "feature_wise")


def built(**options):
    model = DRIT(**{**TINY, **options})
    model.build((None, None, None, model.channels_a))
    return model


def images(side=16, n=1, channels=3, seed=0):
    draw = np.random.default_rng(seed)
    return tf.constant(draw.uniform(-1, 1, (n, side, side, channels)).astype("float32"))


# Networks


@pytest.mark.parametrize(
    "variant, total, decoder", [("concat", 65_039_315, 4_192_275), ("feature_wise", 75_462_691, 8_573_187)]
)
@nothing_drawn()
def test_parameters(variant, total, decoder):
    model = DRIT(drit_variant=variant)
    model.build((None, None, None, 3))
    counts = {name: network.count_params() for name, network in model.networks.items()}
    assert counts["content_encoder_a"] == 3_918_976 and counts["content_encoder_shared"] == 1_180_160
    assert counts["style_encoder_b"] == (1_344_080 if variant == "concat" else 2_764_936)
    assert counts["decoder_a"] == decoder and counts["content_discriminator"] == 10_683_649
    assert counts["discriminator_b2"] == 8_271_171 and sum(counts.values()) == total
    single = DRIT(drit_variant=variant, discriminator_scales=1)
    single.discriminator_a.build((None, None, None, 3))
    assert single.discriminator_a.count_params() == 25_149_057


@pytest.mark.parametrize("variant", VARIANTS)
def test_sizes_of_contents_styles_and_images(variant):
    model = DRIT(channels_b=1, drit_variant=variant, **TINY)
    x = images(24)[:, :, :16]
    content = model.content_of(x, "a")
    assert content.shape == (1, 6, 4, 8) and model.style_of(x, "a")[0].shape == (1, 3)
    assert model.decode(content, tf.zeros((1, 3)), "b").shape == (1, 24, 16, 1)
    assert model.generators["b2a"](x[..., :1], tf.zeros((1, 3))).shape == (1, 24, 16, 3)
    assert model.encode_style(images(16)[:, :3, :5], "b2a").shape == (1, 3)


@pytest.mark.parametrize("layers, least", [(0, 4), (1, 11), (2, 25), (3, 53)])
def test_least_contents(layers, least):
    judge = drit.ContentDiscriminator(2, layers, name="judge")
    judge.build((None, None, None, 2))
    assert judge.least(layers) == least
    assert judge(tf.zeros((1, least, least, 2))).shape == (1, 1, 1, 1)


def test_too_small_crops():
    model = DRIT()
    model.check_crop(212, 216)
    with pytest.raises(
        config.UserError, match="need 212 pixels.*--content_discriminator_layers .2 take 100.*content_gan=0"
    ):
        model.check_crop(208, 208)
    DRIT(content_discriminator_layers=2).check_crop(100, 100)
    DRIT(content_discriminator_layers=1, discriminator_scales=2).check_crop(44, 44)
    DRIT(lambda_content_gan=0.0).check_crop(64, 64)


def test_layer_norm_by_hand():
    decoder = drit.FeatureWiseDecoder(3, 1, 2, 4, name="decoder")
    norm = decoder.norms[0]
    norm.build((None, 2, 2, 2))
    y = norm(np.arange(1, 9, dtype="float32").reshape(1, 2, 2, 2))
    expected = np.float32([-1.5275, -1.0911, -0.6547, -0.2182, 0.2182, 0.6547, 1.0911, 1.5275])
    np.testing.assert_allclose(np.ravel(y), expected, atol=1e-4)


def test_initial_weights():
    model = built(generator_width=16, discriminator_width=16)
    for name, network in model.networks.items():
        for layer in network._flatten_layers():
            if isinstance(layer, (keras.layers.Conv2D, keras.layers.Conv2DTranspose)):
                kernel, bias = layer.kernel.numpy(), layer.bias.numpy()
                assert kernel.size < 2_000 or kernel.std() == pytest.approx(0.02, rel=0.05), (name, layer.name)
                fan_in = kernel.size / kernel.shape[-1]
                if layer.name == getattr(getattr(network, "tail", None), "name", None):
                    fan_in = len(bias)  # a transposed convolution in the code
                assert 0 < np.abs(bias).max() <= fan_in**-0.5, (name, layer.name)
                assert bias.size < 16 or np.abs(bias).max() > 0.6 * fan_in**-0.5, (name, layer.name)
    dense = model.style_encoder_a.mean
    assert np.abs(dense.kernel.numpy()).max() == pytest.approx(64**-0.5, rel=0.05)


# Losses by hand


def test_mode_seeking_by_hand():
    x, y = tf.zeros((2, 1, 1, 1)), tf.constant([[[[0.5]]], [[[2.0]]]])
    style_x, style_y = tf.constant([[0.0, 0.0], [0.0, 0.0]]), tf.constant([[1.0, 1.0], [0.0, 2.0]])
    assert float(drit.mode_seeking(x, y, style_x, style_y)) == pytest.approx((2.0 + 0.5) / 2, rel=1e-4)


def test_constant_networks_give_the_losses_known_by_hand():
    weights = {"gan": 2.0, "content_gan": 3.0, "reconstruction": 5.0, "cycle": 7.0, "style": 11.0, "kl": 13.0}
    model = built(**{f"lambda_{name}": weight for name, weight in weights.items()})
    for v in model.trainable_variables:
        v.assign(tf.zeros(v.shape))
    # Every image, content and logit is 0, styles have mean 2 and variance 1.
    for d in "ab":
        model.networks[f"style_encoder_{d}"].mean.bias.assign([2.0] * 3)
    a, b = tf.fill((1, 16, 16, 3), 0.5), tf.fill((1, 16, 16, 3), -0.25)
    noise = {"noise_a": tf.ones((1, 4, 4, 8)), "noise_b": tf.zeros((1, 4, 4, 8))}
    still = {f"{k}epsilon_{d}": tf.zeros((1, 3)) for k in ("", "back_") for d in "ab"}
    back = {f"back_{name}": x for name, x in noise.items()}
    losses, _ = model.cross_cycle_phase(a, b, **noise, **back, **still)
    half = np.log(2)  # cross-entropy of a logit of 0
    assert {k: float(v) for k, v in losses.items()} == pytest.approx({
        "gan_a2b": 2 * 2 * half, "gan_b2a": 2 * 2 * half, "gan_content_a": 3 * half, "gan_content_b": 3 * half,
        "reconstruction_a": 5 * 0.5, "reconstruction_b": 5 * 0.25, "cycle_a": 7 * 0.5, "cycle_b": 7 * 0.25,
        "kl_style_a": 13 * 3 * 0.5 * 4, "kl_style_b": 13 * 3 * 0.5 * 4, "kl_content_a": 13, "kl_content_b": 0,
    })  # fmt: skip
    drawn = {"style": tf.constant([[1.0, 2.0, 6.0]]), "style_2": tf.constant([[0.0, 0.0, 0.0]])}
    losses, _ = model.drawn_style_phase(a, b, **noise, **drawn)
    assert {k: float(v) for k, v in losses.items()} == pytest.approx({
        "gan_drawn_a2b": 2 * 2 * 2 * half, "gan_drawn_b2a": 2 * 2 * 2 * half, "style_a": 11 * 5 / 3,
        "style_b": 11 * 5 / 3, "mode_seeking_a2b": 1e5, "mode_seeking_b2a": 1e5,
    })  # fmt: skip
    losses, _ = model.content_discriminator_phase(a, b, **noise)
    assert float(losses["content_discriminator"]) == pytest.approx(2 * half)
    own = {name: x for name, x in still.items() if not name.startswith("back")}
    losses, _ = model.discriminator_phase(a, b, a, b, **noise, **drawn, **own)
    once, twice = 2 * 2 * 2 * half, 2 * 2 * 2 * 2 * half
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(
        {"discriminator_a": once, "discriminator_a2": twice, "discriminator_b": once, "discriminator_b2": twice}
    )


# Steps


def ready(n=2, optimizer=None, **options):
    model = DRIT(**{**TINY, **options})
    model.compile(**{f"{role}_optimizer": optimizer and optimizer() for role in model.roles})
    model.build_for_training((n, 16, 16, 3), (n, 16, 16, 3))
    model.build_optimizers()
    return model


def watched(model):
    """list that each phase of the model's next steps adds (roles, inputs) to; nothing learns."""
    seen = []
    model.phase = lambda compute, role, **inputs: seen.append((role, inputs)) or ({}, {})
    return seen


def test_order_and_roles_of_a_full_step():
    model = ready()
    a, b = images(n=2, seed=1), images(n=2, seed=2)
    seen = watched(model)
    model.train_step((a, b))
    roles = ["discriminator", "content_discriminator", ("generator", "style_encoder"), "generator"]
    assert [role for role, _ in seen] == roles
    judged, _, cycle, drawn = (inputs for _, inputs in seen)
    np.testing.assert_array_equal(judged["a"], a[:1])
    np.testing.assert_array_equal(judged["real_b"], b[1:])
    for name in ("noise_a", "noise_b", "epsilon_a"):  # one draw for all phases
        np.testing.assert_array_equal(judged[name], cycle[name])
    np.testing.assert_array_equal(judged["style_2"], drawn["style_2"])
    assert all((cycle["noise_a"] != other).numpy().any() for other in (cycle["noise_b"], cycle["back_noise_a"]))
    seen.clear()
    model.train_step((a, b), "contents")
    assert [(role, [*inputs]) for role, inputs in seen] == [("content_discriminator", ["a", "b", "noise_a", "noise_b"])]


def test_counters_after_a_full_step():
    model = ready()
    model.train_step((images(n=2), images(n=2, seed=1)))
    model.train_step((images(n=2), images(n=2, seed=1)), "contents")
    assert {role: int(model.optimizer_of(role).iterations) for role in model.roles} == {
        "generator": 2, "style_encoder": 1, "discriminator": 1, "content_discriminator": 2
    }  # fmt: skip


def test_stages():
    model = built()
    assert model.stage(0) is None  # as in `fit`, which knows no epochs
    model.steps_per_epoch = 616
    full = [step for step in range(616) if model.stage(step) is None]
    assert full == list(range(2, 616, 3)) and len(full) == 205
    without = built(lambda_content_gan=0.0)
    without.steps_per_epoch = 616
    assert without.stage(0) is None


def test_rates():
    """Published: 1200 epochs, half of them constant; a generator has two updates in three steps."""
    model = built()
    rate = {
        r: Schedule(1.0, "linear_later", 3600, 3, 0.5, updates_per_step=model.updates_per_step(r)) for r in model.roles
    }
    for epoch, expected in ((599, 1.0), (601, 0.998336), (900, 0.500832), (1199, 0.003328)):
        assert float(rate["discriminator"](epoch)) == pytest.approx(expected, abs=1e-6)
        assert float(rate["content_discriminator"](3 * epoch)) == pytest.approx(expected, abs=1e-6)
        for update in (0, 1):
            assert float(rate["generator"](2 * epoch + update)) == pytest.approx(expected, abs=1e-6)
    assert model.learning_rate("generator") == 1e-4 and model.learning_rate("content_discriminator") == 4e-5
    assert model.published_optimizer("content_discriminator").global_clipnorm == 5
    assert model.published_optimizer("discriminator").global_clipnorm is None


def test_gradients_are_clipped_after_their_sum_over_replicas():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    with strategy.scope():
        weight, optimizer = keras.Variable([0.0, 0.0]), Adam(1.0, global_clipnorm=5.0)
        optimizer.build([weight])

    def step():
        first = tf.distribute.get_replica_context().replica_id_in_sync_group == 0
        gradient = [60.0, 0.0] if first else [0.0, 80.0]
        optimizer.apply([tf.constant(gradient)], [weight])

    strategy.run(step)
    np.testing.assert_allclose(optimizer._momentums[0].numpy(), [0.1 * 3, 0.1 * 4], rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"drit_variant": "feature_wise"}, {"lambda_mode_seeking": 0.0, "lambda_content_gan": 0.0, "channels_b": 1}],
)
def test_variants_learn(options):
    model = DRIT(**{**TINY, **options})
    model.compile()
    channels = model.channels_b
    model.build_for_training((2, 16, 16, 3), (2, 16, 16, channels))
    model.build_optimizers()
    before = {n: [v.numpy() for v in net.trainable_variables] for n, net in model.networks.items()}
    losses = model.train_step((images(n=2), images(n=2, channels=channels)))
    assert all(np.isfinite(v) for v in losses.values())
    for name, network in model.networks.items():
        moved = any((v.numpy() != old).any() for v, old in zip(network.trainable_variables, before[name]))
        assert moved != (name == "content_discriminator" and not model.config.lambda_content_gan), name


# Configuration


@pytest.mark.parametrize(
    "options, message",
    [
        ({"drit_variant": "concatenate"}, "--drit_variant=concatenate: expected one of concat, feature_wise"),
        ({"style_size": 0}, "--style_size=0: expected more than 0"),
        ({"content_iterations": 0}, "--content_iterations=0: expected more than 0"),
        (
            {f"lambda_{name}": 0.0 for name in ("gan", "content_gan", "reconstruction", "cycle", "kl")},
            "--lambda_gan, .*--lambda_kl are all 0: the first of the two updates .* give one of them a weight",
        ),
    ],
)
def test_impossible_configurations(options, message):
    with pytest.raises(config.UserError, match=message):
        drit_config.DRIT(**options)


def test_batches_that_cannot_be_halved():
    with pytest.raises(config.UserError, match="--batch_size=3, replicas: 1, .*multiple of 2: .*--nosplit_batch"):
        ready(3)
    ready(1)
    ready(3, split_batch=False)


def test_a_replicas_part_of_one_image_is_no_batch_of_one():
    with tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]).scope():
        model = DRIT(**TINY)
    assert model._translated(2) == 1
    with pytest.raises(config.UserError, match="--batch_size=2, replicas: 2, .*multiple of 4: .*--nosplit_batch"):
        model._translated(1)


def test_a_style_of_the_wrong_length():
    with pytest.raises(ValueError, match=r"style of shape \(8,\): expected \[1, 3\]"):
        built().translate(np.zeros((16, 16, 3), np.uint8), style=np.zeros(8))


# What the official code computed (tests/golden/README.md)


@functools.cache
def golden(variant):
    return np.load(GOLDEN / f"drit_{variant}.npz")


DISCRIMINATORS = {
    "disA_loss": "discriminator_a", "disA2_loss": "discriminator_a2", "disB_loss": "discriminator_b",
    "disB2_loss": "discriminator_b2", "disContent_loss": "content_discriminator",
}  # fmt: skip
FIRST = {
    "gan_loss_a": "gan_b2a", "gan_loss_b": "gan_a2b", "gan_loss_acontent": "gan_content_a",
    "gan_loss_bcontent": "gan_content_b", "kl_loss_za_a": "kl_style_a", "kl_loss_za_b": "kl_style_b",
    "kl_loss_zc_a": "kl_content_a", "kl_loss_zc_b": "kl_content_b", "l1_recon_A_loss": "cycle_a",
    "l1_recon_B_loss": "cycle_b", "l1_recon_AA_loss": "reconstruction_a", "l1_recon_BB_loss": "reconstruction_b",
}  # fmt: skip
SECOND = {
    "l1_recon_z_loss_a": "style_a", "l1_recon_z_loss_b": "style_b", "gan2_loss_a": "gan_drawn_b2a",
    "gan2_loss_b": "gan_drawn_a2b", "lz_AB": "mode_seeking_a2b", "lz_BA": "mode_seeking_b2a",
}  # fmt: skip


def before_norm(key):
    """Whether KEY is a bias whose true gradient is 0: an instance norm follows."""
    return key.endswith("bias") and (
        key.startswith(("conv_share", "dec_share", "decA1.", "decB1.")) and ".model." in key
        or key.startswith("conv") and key[4] in "AB" and key[6] != "0"
        or ".conv1.0." in key or ".conv2.0." in key
    )  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_official_step(variant):
    file = golden(variant)
    model = DRIT(
        drit_variant=variant, generator_width=2, style_size=3, mlp_width=4, discriminator_width=2,
        discriminator_scales=2, content_discriminator_layers=1,
    )  # fmt: skip
    model.compile()
    model.build_for_training((2, 44, 44, 3), (2, 44, 44, 3))
    model.build_optimizers()
    layout = published.layout(model)
    for part, places in layout.items():
        for key, place in places.items():
            place.variable.assign(place.ours(file[f"weights/{part}/{key}"]))
    real = {d: tf.constant(file[f"real_{d}"]) for d in "ab"}
    noise = {name.removeprefix("noise/"): tf.constant(file[name]) for name in file.files if name.startswith("noise/")}
    if variant == "feature_wise":
        noise = {name: x for name, x in noise.items() if "epsilon" not in name}

    def given(*kinds):
        return {"a": real["a"][:1], "b": real["b"][:1]} | {n: x for n, x in noise.items() if n.startswith(kinds)}

    def check(kind, names, losses):
        theirs = dict(zip(map(str, file[f"names/{kind}"]), file[f"losses/{kind}"]))
        assert {names[n] for n in theirs} == set(losses)
        for n, value in theirs.items():
            np.testing.assert_allclose(losses[names[n]], value, rtol=5e-5, atol=1e-6, err_msg=n)

    gradients = torch_names.watch_gradients(model)

    def check_gradients(update):
        for part in ("enc_c", "enc_a", "gen")[::update]:
            kept = {key: place for key, place in layout[part].items() if not before_norm(key)}
            ours = np.concatenate([gradients[id(p.variable)].ravel() for p in kept.values()])
            theirs = [p.ours(file[f"gradients{update}/{part}/{key}"]).ravel() for key, p in kept.items()]
            theirs = np.concatenate(theirs)
            assert np.linalg.norm(ours - theirs) <= 2e-5 * np.linalg.norm(theirs), (update, part)

    further = {"real_a": real["a"][1:], "real_b": real["b"][1:]}
    losses, _ = model.phase(model.discriminator_phase, "discriminator", **further, **given("noise", "epsilon", "style"))
    losses |= model.phase(model.content_discriminator_phase, "content_discriminator", **given("noise"))[0]
    check("discriminators", DISCRIMINATORS, losses)
    roles = ("generator", "style_encoder")
    losses, _ = model.phase(model.cross_cycle_phase, roles, **given("noise", "epsilon", "back"))
    check("1", FIRST, losses)
    check_gradients(1)
    losses, _ = model.phase(model.drawn_style_phase, "generator", **given("noise", "style"))
    check("2", SECOND, losses)
    check_gradients(2)
    for part, places in layout.items():
        kept = {key: place for key, place in places.items() if not before_norm(key)}
        after = [np.abs(p.variable.numpy() - p.ours(file[f"after/{part}/{key}"])).ravel() for key, p in kept.items()]
        # A step moves a weight by up to 1e-4 whatever its gradient; where that is nearly 0, its sign is rounding.
        assert (np.concatenate(after) > 1e-5).mean() < 0.0005, part
