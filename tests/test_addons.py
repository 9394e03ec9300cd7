"""Models that were saved with tensorflow-addons, against what it computed."""

import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfi2i.layers import addons

GOLDEN = pathlib.Path(__file__).parent / "golden"
NORMS = {str(n).split("/")[0]: n for n in np.load(GOLDEN / "tfa_norms.npz").files}


def test_norms_by_hand():
    """Channels 0 and 1 together have mean 3 and variance 6; channel 0 alone 2 and 1, channel 1 alone 4 and 9."""
    x = np.array([[[[1, 1, 0, 0], [3, 7, 0, 0]]]], np.float32)
    y = addons.GroupNormalization(groups=2, epsilon=3.0)(x)
    np.testing.assert_allclose(y[0, 0], np.array([[-2, -2, 0, 0], [0, 4, 0, 0]]) / 3, atol=1e-6)
    y = addons.InstanceNormalization(epsilon=0.0, groups=1)(x[..., :2])
    np.testing.assert_allclose(y[0, 0], [[-1, -1], [1, 1]], atol=1e-6)


@pytest.mark.parametrize("case", NORMS)
def test_norms_of_tensorflow_addons(case):
    golden = np.load(GOLDEN / "tfa_norms.npz")
    config = json.loads(str(golden[f"{case}/config"]))
    kind = addons.InstanceNormalization if case.startswith("instance") else addons.GroupNormalization
    layer = kind.from_config(config)
    layer.build(golden[f"{case}/input"].shape)
    layer.set_weights([golden[f"{case}/{w.name}"] for w in layer.weights])
    np.testing.assert_allclose(layer(golden[f"{case}/input"]), golden[f"{case}/output"], atol=2e-6)
    again = kind.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_norms_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="axis=-2: expected -1, or 1 and more"):
        addons.GroupNormalization(axis=-2)
    with pytest.raises(ValueError, match="groups=4: expected a divisor of the 6 channels, or -1"):
        addons.GroupNormalization(groups=4).build((None, 3, 3, 6))


@pytest.mark.parametrize("case", ["conv", "dense"])
def test_spectral_norm_of_tensorflow_addons(case):
    """Two calls in training, which move u and the kernel, their gradients, and one call without."""
    golden = np.load(GOLDEN / "tfa_spectral.npz")
    inner = keras.layers.Conv2D(4, 3) if case == "conv" else keras.layers.Dense(3, use_bias=False)
    layer = addons.SpectralNormalization(inner, power_iterations=int(golden[f"{case}/power_iterations"]))
    x = tf.constant(golden[f"{case}/input"])
    layer.build(x.shape)
    names = {"kernel": inner.kernel, "sn_u": layer.vector_u} | ({"bias": inner.bias} if case == "conv" else {})
    for name, variable in names.items():
        variable.assign(golden[f"{case}/{name}"])
    for k in (1, 2):
        with tf.GradientTape() as tape:
            y = layer(x, training=True)
            loss = tf.reduce_sum(y**2)
        np.testing.assert_allclose(y, golden[f"{case}/train{k}/output"], atol=1e-5)
        np.testing.assert_allclose(
            tape.gradient(loss, inner.kernel.value), golden[f"{case}/train{k}/gradient"], rtol=1e-4, atol=1e-4
        )
        for name, variable in names.items():
            np.testing.assert_allclose(variable, golden[f"{case}/train{k}/{name}"], atol=1e-6, err_msg=name)
    np.testing.assert_allclose(layer(x), golden[f"{case}/inference"], atol=1e-5)


@pytest.mark.filterwarnings("ignore:Argument `alpha` is deprecated")
@pytest.mark.parametrize("name", ["tfa_model.h5", "tfa_model.keras"])
def test_whole_models_of_tensorflow_addons(name, tmp_path):
    """As docs/tensorflow_addons.md says; Keras 3 does not know the class that .keras files of Keras 2 name."""
    golden = np.load(GOLDEN / "tfa_model.npz")
    known = {"Functional": keras.Model} if name.endswith(".keras") else None
    model = keras.models.load_model(GOLDEN / name, custom_objects=known)
    np.testing.assert_allclose(model([golden["input"]]), golden["output"], atol=1e-6)
    model.save(tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    np.testing.assert_array_equal(again([golden["input"]]), model([golden["input"]]))
