"""CoGAN's digits: networks, a step against the authors' code, whole runs."""

import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import torch_names
from tests.own_flags import call
from tfi2i import export, settings
from tfi2i.commands import adapt, translate
from tfi2i.config import UserError
from tfi2i.data import images
from tfi2i.methods.cogan.adaptation import CoGANAdaptation

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
TINY = {"generator_width": 8, "discriminator_width": 2, "latent_size": 6, "inversion_steps": 2, "inversion_starts": 2}
# What the code's order of losses is called here.
LOSSES = ("discriminator", "class", "feature", "gan")


def ready(**given):
    model = CoGANAdaptation(**{**TINY, **given})
    model.compile()
    model.build_for_training((3, 28, 28, 1), (3, 28, 28, 1))
    model.build_optimizers()
    return model


def pairs(network, file, prefix, trainable=False):
    """[(variable, array, KEY)] of a network; `trainable` leaves running statistics out."""
    named = torch_names.in_our_order(file, prefix, trainable)
    variables = [v for v in network.variables if not trainable or v.trainable]
    return [(v, x.reshape(v.shape), key) for v, (key, x) in zip(variables, named, strict=True)]


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "cogan_step.npz")


def recorded(golden):
    model = ready()
    for network, prefix in ((model.generator, "weights/gen"), (model.discriminator, "weights/dis")):
        for variable, array, _ in pairs(network, golden, prefix):
            variable.assign(array)
    return model


def test_parameter_counts_are_the_published_ones():
    model = CoGANAdaptation()
    model.build((None, 28, 28, 1))
    counts = [sum(int(np.prod(v.shape)) for v in n.trainable_variables) for n in model.networks.values()]
    assert counts == [7_842_694, 432_603]


def test_networks_are_the_published_ones(golden):
    model = recorded(golden)
    for domain, x in zip("ab", model.generator(golden["noise/dis"])):
        np.testing.assert_allclose(x, golden[f"generated/{domain}"], atol=1e-5)
    judge, real = model.discriminator, [golden["real_a"], golden["real_b"]]
    features = judge.features(*real)
    for domain, found in zip("ab", keras.ops.split(features, 2)):
        np.testing.assert_allclose(found, golden[f"features/{domain}"], atol=1e-5)
    np.testing.assert_allclose(judge.real(features), golden["logits"], atol=1e-5)
    for domain, x in zip("ab", real):
        np.testing.assert_allclose(model.digit_logits(x, domain), golden[f"digits/{domain}"], atol=1e-5)


def test_a_step_is_the_published_one(golden, monkeypatch):
    model = recorded(golden)
    noise = iter([golden["noise/dis"], golden["noise/gen"]])
    monkeypatch.setattr("tfi2i.layers.batch_draws", lambda *_: tf.constant(next(noise)))
    gradients = torch_names.watch_gradients(model)
    batch = [tf.constant(golden[name]) for name in ("real_a", "real_b", "labels")]
    losses = model.train_step(batch)
    np.testing.assert_allclose([float(losses[name]) for name in LOSSES], golden["losses"], rtol=1e-5)
    for network, name in ((model.generator, "gen"), (model.discriminator, "dis")):
        for variable, expected, key in pairs(network, golden, f"gradients/{name}", trainable=True):
            np.testing.assert_allclose(gradients[id(variable)], expected, rtol=1e-3, atol=2e-6, err_msg=key)
        for variable, expected, key in pairs(network, golden, f"after/{name}"):
            # Behind a batch norm a bias has no gradient but rounding, which Adam makes a whole step of.
            idle = name == "gen" and key.endswith(".bias") and not key.startswith("dconv4")
            np.testing.assert_allclose(variable, expected, atol=5e-4 if idle else 1e-5, err_msg=key)


def test_domains_may_have_other_channels():
    model = CoGANAdaptation(1, 3, **TINY)
    model.build((None, 28, 28, 1))
    a, b = model.draw_pairs(model.draw_latents(0, 2))
    assert (a.shape, b.shape) == ((2, 28, 28, 1), (2, 28, 28, 3)) and model.digit_logits(b, "b").shape == (2, 10)


def test_first_weights_are_drawn_as_published():
    judge = CoGANAdaptation().discriminator
    judge.build((None, 28, 28, 1))
    kernel = keras.ops.convert_to_numpy(judge.shared[0].kernel)
    limit = np.sqrt(2) * np.sqrt(6 / (25 * (20 + 50)))
    assert 0.98 * limit < np.abs(kernel).max() <= limit
    assert (keras.ops.convert_to_numpy(judge.logits.bias) == np.float32(0.1)).all()


def test_the_baseline_sees_both_domains_as_the_source(tmp_path):
    model, x = ready(baseline=True), np.random.default_rng(0).uniform(0, 1, (3, 28, 28, 1)).astype("float32")
    np.testing.assert_array_equal(model.classify(x, "b"), model.classify(x, "a"))
    losses = model.train_step([tf.constant(x), tf.constant(x), tf.constant([1, 2, 3])])
    assert list(losses) == ["class"] and list(model.networks) == ["discriminator"]
    with pytest.raises(ValueError, match="classifier alone"):
        model.translate(x)
    with pytest.raises(ValueError, match="draws no pairs"):
        model.draw_pairs(tf.zeros((1, 6)))
    model.run = settings.resolve("cogan_adaptation", {**TINY, "source": "optdigits", "target": "optdigits"})
    with pytest.raises(UserError, match="translates no pictures: it learned to classify digits"):
        export.export(model, tmp_path / "files")


def digits(path, seed):
    draw = np.random.default_rng(seed)
    np.savez(path, x=draw.integers(0, 256, (20, 16, 16), "uint8"), y=draw.integers(0, 10, 20))
    return path


def test_a_run_of_the_command(tmp_path):
    given = [f"--{name}={value}" for name, value in TINY.items()] + [
        "--steps=1",
        "--sample_every=1000",
        "--batch_size=3",
        "--precision=float32",
    ]
    given += [f"--{d}={digits(tmp_path / f'{d}.npz', i)}" for i, d in enumerate(("source", "target"))]
    call(adapt, "--method=cogan_adaptation", f"--run_dir={tmp_path}/run", *given)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["step"] == 1 and metrics["target_digits"] == 4 and "translated_accuracy" not in metrics
    assert "--method=cogan_adaptation" in (tmp_path / "run" / "flags.txt").read_text()
    images.write_image(tmp_path / "digit.png", np.zeros((28, 28, 1), "uint8"))
    paths = [f"--{name}={tmp_path / path}" for name, path in (("input", "digit.png"), ("output", "out.png"))]
    with pytest.raises(UserError, match="translates no pictures: it learned to classify digits"):
        call(translate, f"--run_dir={tmp_path}/run", *paths)


def test_what_cannot_be_is_refused():
    with pytest.raises(
        UserError, match="--method=cogan adapts no digits: expected one of adaptation, cogan_adaptation"
    ):
        call(adapt, "--method=cogan", "--run_dir=x")
    with pytest.raises(UserError, match="--generator_width=12: expected a multiple of 8"):
        CoGANAdaptation.config_class(generator_width=12)
