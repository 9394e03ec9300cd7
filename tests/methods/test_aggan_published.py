"""AGGAN's published checkpoints: what the official code computed with them, their names, and other codes' files."""

import numpy as np
import pytest
import tensorflow as tf

from tests.drawing import nothing_drawn
from tests.published import CHECKPOINTS, built, check_told_by_names_and_shapes, converted, refused, sparse, unpacked
from tfi2i import settings
from tfi2i.config import UserError
from tfi2i.conversion import exchange
from tfi2i.methods.aggan import published
from tfi2i.methods.aggan.model import AGGAN


def test_the_official_code(tmp_path):
    golden, said = np.load(CHECKPOINTS / "aggan.npz"), []
    model = converted(unpacked("aggan.zip", tmp_path), tmp_path / "run", log=said.append)
    c = model.run.model
    assert (c.generator_width, c.discriminator_width, c.residual_blocks, model.directions) == (1, 2, 9, ("a2b", "b2a"))
    for direction in model.directions:
        x = golden[direction[0]]
        y, mask = (v.numpy() for v in model.blend(x, direction))
        np.testing.assert_allclose(sparse(y), golden[direction.replace("2", "")], atol=1e-5)
        np.testing.assert_allclose(sparse(mask), golden[f"mask_{direction[0]}"], atol=1e-5)
    for domain in "ab":
        judged = model.networks[f"discriminator_{domain}"](golden[domain])
        np.testing.assert_allclose(sparse(judged), golden[f"d_{domain.upper()}"], atol=1e-5)
    text = "\n".join(said)
    assert "99 epochs" in text and "not known: which domain is which" in text and "left out" not in text
    with pytest.raises(UserError, match="--export=pytorch: the published code is for TensorFlow 1"):
        exchange.export(tmp_path / "run", tmp_path / "out")


def official(model):
    """dict of the official code's name → array, of a whole model, without the norms that it does not use."""
    layout = published.layout(model, tensorflow=True)
    return {f"Model/{part}/{key}": place.theirs() for part, own in layout.items() for key, place in own.items()}


@nothing_drawn()
def test_full_width():
    shapes = {name: array.shape for name, array in official(built(AGGAN)).items()}
    expected = {
        "g_A/c1/Conv/weights": (7, 7, 3, 32), "g_B/c3/Conv/weights": (3, 3, 64, 128),
        "g_A/r9/c2/instance_norm/scale": (128,), "g_A/c4/Conv2d_transpose/weights": (3, 3, 64, 128),
        "g_A/c5/Conv2d_transpose/biases": (32,), "g_A/c6/Conv/weights": (7, 7, 32, 3),
        "g_A_ae/c1/Conv/weights": (7, 7, 3, 32), "g_B_ae/r1/c1/Conv/weights": (3, 3, 64, 64),
        "g_A_ae/c4/Conv/weights": (1, 1, 64, 64), "g_A_ae/c5/Conv/weights": (1, 1, 64, 32),
        "g_A_ae/c6/Conv/weights": (1, 1, 32, 1), "d_A/c1/instance_norm/offset": (64,),
        "d_B/c4/Conv/weights": (4, 4, 256, 512), "d_B/c5/Conv/biases": (1,),
    }  # fmt: skip
    assert {k: shapes[f"Model/{k}"] for k in expected} == expected
    assert len(shapes) == 288 - 2 * 6


@nothing_drawn()
def test_a_configuration_is_told_by_its_names_and_shapes():
    model = built(AGGAN, generator_width=2, discriminator_width=3, residual_blocks=2, channels_a=1, channels_b=1)
    told = check_told_by_names_and_shapes(model, _OneName, {"AGGAN-7": official(model)})
    assert settings.resolve("aggan", told.options).model == model.config


class _OneName:
    """`published` as the shared checks call it: its one layout."""

    recognise = staticmethod(published.recognise)

    @staticmethod
    def layout(model):
        return published.layout(model, tensorflow=True)


def written(folder, arrays):
    """A checkpoint of TensorFlow 1 with these arrays."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        stored = [tf.compat.v1.Variable(v, name=k) for k, v in arrays.items()]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(stored).save(session, str(folder / "AGGAN"), 5, write_meta_graph=False)
    return folder


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s | {"Model/d_A/c1/Conv_1/weights": np.ones((4, 4, 3, 1), np.float32)}, "June 2018"),
        (lambda s: {k: v for k, v in s.items() if "g_A_ae/r1/c1/instance_norm" not in k}, "June 2018"),
        (lambda s: {k: v for k, v in s.items() if "/d_B/" not in k}, "Model/d_B/… are missing"),
        (
            lambda s: s | {"Model/g_A_ae/c4/Conv/weights": np.zeros((3, 3, 2, 2), np.float32)},
            r"g_A_ae: c4/Conv/weights is \(3, 3, 2, 2\), expected \(1, 1, 2, 2\)",
        ),
        (lambda s: {k: v for k, v in s.items() if "g_B/r1/c2/Conv/biases" not in k}, "g_B lacks 1 arrays"),
    ],
)
def test_other_networks(change, message, tmp_path):
    with nothing_drawn():
        arrays = official(built(AGGAN, generator_width=1, discriminator_width=1, residual_blocks=1))
    refused(written(tmp_path, change(arrays)), tmp_path, message)
