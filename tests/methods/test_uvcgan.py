"""UVCGAN v1: v2 with parts switched off; against what the official code computed. The parts: test_uvcgan2."""

import pathlib

import numpy as np
import tensorflow as tf

from tests import torch_names
from tfi2i import UVCGAN, UVCGAN2, settings
from tfi2i.methods import METHODS
from tfi2i.methods.uvcgan2 import config, published
from tfi2i.methods.uvcgan2.model import Generator

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
# A model that is quickly built and traced, see tests/test_conformance.py.
TINY = {
    "generator_width": 4, "generator_levels": 2, "vit_width": 8, "vit_heads": 2, "vit_blocks": 1, "vit_ffn_width": 8,
    "discriminator_width": 4, "discriminator_layers": 2, "pool_size": 3,
    # What ReZero holds back hardly moves in a few steps at the published rate.
    "learning_rate": 1e-2,
}  # fmt: skip
SIDE = 16


def test_v1_is_v2_with_other_defaults():
    changed = {k: v for k, v in vars(config.UVCGAN()).items() if v != getattr(config.UVCGAN2(), k)}
    assert config.UVCGAN2(**changed) == config.UVCGAN2(**vars(config.UVCGAN()))
    assert changed == {
        "norm": "instance", "style": False, "discriminator_head": "none", "spectral_norm": False, "gp_form": "uvcgan",
        "lambda_gp": 0.1, "gp_center": 100.0, "pool_size": 50, "ema_momentum": 0.0, "lambda_consistency": 0.0,
    }  # fmt: skip
    x = tf.random.stateless_uniform((1, SIDE, SIDE, 3), (0, 0))
    np.testing.assert_array_equal(UVCGAN(**TINY).generate(x), UVCGAN2(**changed | TINY).generate(x))


def test_parameters(monkeypatch):
    monkeypatch.setattr("tfi2i.layers.network.initializer", lambda *_: "zeros")  # quick, and enough to be counted
    model = UVCGAN()
    for network, count in ((model.generator_b2a, 31_360_239), (model.discriminator_b, 2_764_737)):
        network.build((None, None, None, 3))
        assert sum(int(np.prod(v.shape)) for v in network.trainable_variables) == count, network.name


def test_parts_of_v2_are_off():
    model = UVCGAN(seed=2**31 - 1, **TINY)
    model.build((None, None, None, 3))
    assert set(model.networks) == {"generator_a2b", "generator_b2a", "discriminator_a", "discriminator_b"}
    assert model.generators == {"a2b": model.generator_a2b, "b2a": model.generator_b2a}
    assert not model.caches
    assert not any(part in v.path for v in model.variables for part in ("style", "spectral"))


def test_official_generator():
    file = np.load(GOLDEN / "uvcgan2_generator_unet.npz")
    network = Generator(3, 1, 4, "instance", False, (8, 2, 2, 12))
    network.build((None, None, None, 3))
    torch_names.load_recorded(network, published.generator(network), file, "weights")
    for side in (32, 48):
        y = network(tf.constant(file[f"input/{side}"]))
        np.testing.assert_allclose(y[:, ::3, ::3], file[f"output/{side}"], atol=1e-5)


def test_official_discriminator_and_penalty():
    file = np.load(GOLDEN / "uvcgan2_discriminator.npz")
    model = UVCGAN(**TINY | {"discriminator_width": 2, "discriminator_layers": 3, "gp_center": 10.0})
    network = model.discriminator_a
    network.build((None, None, None, 3))
    # The last layer has another name in the v1 that the code of v2 builds.
    places = {key.replace("model.11", "shrink_conv"): p for key, p in published.discriminator(network).items()}
    torch_names.load_recorded(network, places, file, "weights/v1")
    real, fake = (tf.constant(file[k]) for k in ("real", "fake"))
    np.testing.assert_allclose(network(real)[0], file["logits/v1"], atol=1e-5)
    alpha = file["alpha/v1"].reshape(-1, 1, 1, 1)
    penalty = 0.1 * model._penalty(network, alpha * real + (1 - alpha) * fake, None)
    np.testing.assert_allclose(penalty, file["penalty/v1"], rtol=1e-5)


def test_pretraining_has_a_recipe_of_its_own():
    run = settings.resolve("uvcgan", {"task": "pretrain"})
    assert (run.training.batch_size, run.training.steps, run.training.lr_restart_steps) == (32, 255_488, 51_200)
    assert (run.model.learning_rate, run.model.beta_1, run.model.weight_decay) == (6.25e-4, 0.9, 0.05)
    assert settings.resolve("uvcgan", settings.differing(run)) == run


def test_generators_start_from_the_pretrained_one():
    model = UVCGAN(**TINY)
    pretrained = (
        METHODS["uvcgan"]
        .of_task("pretrain")
        .model_class(**{n: v for n, v in TINY.items() if n.startswith(("generator", "vit"))}, seed=1)
    )
    for built in (model, pretrained):
        built.build((None, None, None, 3))
    model.start_from(pretrained)
    for generator in model.generators.values():
        for v, w in zip(generator.variables, pretrained.generator.variables, strict=True):
            np.testing.assert_array_equal(v, w, err_msg=v.path)
