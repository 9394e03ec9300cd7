"""VGG features against Keras' own networks."""

import importlib
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.drawing import nothing_drawn
from tfi2i.config import UserError
from tfi2i.methods import METHODS
from tfi2i.methods.perceptual import PerceptualFeatures

# What the errors name.
FLAGS = ("--vgg_weights", "--lambda_vgg", "--lambda_vgg=0")


@pytest.fixture(scope="module")
def vgg19(tmp_path_factory):
    """Keras' VGG19 without top, its weights drawn, and a file of them."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg19.weights.h5"
    vgg = keras.applications.VGG19(include_top=False, weights=None)
    vgg.save_weights(path)
    return vgg, str(path)


def test_features_are_those_of_keras(vgg19):
    vgg, path = vgg19
    x = np.random.default_rng(0).uniform(0, 1, (2, 32, 48, 3)).astype("float32")
    # On levels, blue first, less the means of ImageNet's colours.
    caffe = 255 * x[..., ::-1] - np.array([103.939, 116.779, 123.680], "float32")
    before = vgg.get_layer("block4_conv3")
    behind = keras.Model(vgg.input, before.output)(caffe).numpy()
    last = vgg.get_layer("block4_conv4")
    linear = tf.nn.conv2d(behind, last.kernel, 1, "SAME") + last.bias
    features = PerceptualFeatures("vgg19", "block4_conv4", activation=False, value_range=(0.0, 1.0))
    features.prepare(path, *FLAGS)
    assert features.count_params() == 10_585_152 and not features.trainable_variables
    y = features(x)
    assert y.shape == (2, 4, 6, 512) and y.numpy().min() < 0
    np.testing.assert_allclose(y, linear, atol=1e-4 * np.abs(linear).max())
    features.activation = True
    np.testing.assert_allclose(features(x), tf.nn.relu(linear), atol=1e-4 * np.abs(linear).max())


def test_the_range_is_the_method_s(vgg19):
    x = np.random.default_rng(0).uniform(0, 1, (1, 8, 8, 3)).astype("float32")
    results = []
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        features = PerceptualFeatures("vgg19", "block1_conv2", value_range=(low, high))
        features.prepare(vgg19[1], *FLAGS)
        results.append(features(x * (high - low) + low).numpy())
    np.testing.assert_allclose(*results, atol=1e-3)


def test_a_last_convolution_has_no_pool_behind_it_and_prepared_weights_stay(vgg19):
    features = PerceptualFeatures("vgg19", "block2_conv2")
    assert features(np.zeros((1, 8, 8, 3), "float32")).shape == (1, 4, 4, 128)  # which draws weights
    features.prepare(vgg19[1], *FLAGS)
    np.testing.assert_array_equal(features.convs[0].kernel, vgg19[0].get_layer("block1_conv1").kernel)
    features.convs[0].bias.assign(np.ones(64))
    features.prepare(vgg19[1], *FLAGS)
    assert features.convs[0].bias.numpy().all()


WITH_FEATURES = {
    "simgan": {"content": "vgg"},
    "cartoongan": {"lambda_vgg": 1.0},
    "munit": {"lambda_vgg": 1.0},
    "unit": {"unit_variant": "2018", "lambda_vgg": 1.0},
}


@pytest.mark.parametrize("method", WITH_FEATURES)
@nothing_drawn()
def test_evaluation_before_training_wants_the_weights(method, tmp_path):
    small = importlib.import_module(f"tests.methods.test_{method}")
    given = small.TINY | WITH_FEATURES[method] | {"vgg_weights": str(tmp_path / "missing.h5")}
    model = METHODS[method].model_class(**given)
    model.compile()
    x = np.zeros((1, 32, 32, 3), "float32")
    with pytest.raises(UserError, match="VGG1[69]: --vgg_weights=.*missing.h5 cannot be read"):
        model.evaluate(x, x)
    assert not any(network.built for network in model.frozen.values())


@pytest.fixture
def first_convolution(monkeypatch):
    """Models look at the features of the first convolution. A list of its kernel [3, 3, 3, 64] and bias, drawn."""
    draw = np.random.default_rng(0)
    weights = [draw.normal(0, 0.1, shape).astype("float32") for shape in ((3, 3, 3, 64), (64,))]
    vgg = types.SimpleNamespace(get_layer=lambda name: types.SimpleNamespace(get_weights=lambda: weights))

    def small(architecture, layer, **kwargs):
        return PerceptualFeatures(architecture, "block1_conv1", **kwargs)

    for module in ("perceptual", "simgan.model", "cartoongan.model"):
        monkeypatch.setattr(f"tfi2i.methods.{module}.PerceptualFeatures", small)
    for name in ("VGG16", "VGG19"):
        monkeypatch.setattr(keras.applications, name, lambda **kwargs: vgg)
    return weights


@pytest.mark.parametrize("method", ["simgan", "cartoongan", "unit"])
def test_files_of_keras_hold_the_features(method, first_convolution, tmp_path, monkeypatch):
    small = importlib.import_module(f"tests.methods.test_{method}")
    shape, given = (1, small.SIDE, small.SIDE, 3), small.TINY | WITH_FEATURES[method]
    x = np.random.default_rng(1).uniform(-1, 1, shape).astype("float32")

    def ready(seed):
        model = METHODS[method].model_class(**given, seed=seed)
        model.build_for_training(shape, shape)
        return model

    model = ready(0)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    drawn = [w.copy() for w in first_convolution]
    for w in first_convolution:
        w[...] = 0  # other weights of VGG from here on
    filled = ready(1)
    filled.load_weights(tmp_path / "model.weights.h5")

    def missing(**kwargs):
        raise FileNotFoundError("no such file")

    for name in ("VGG16", "VGG19"):
        monkeypatch.setattr(keras.applications, name, missing)
    for loaded in (filled, keras.saving.load_model(tmp_path / "model.keras")):
        loaded.prepare_frozen()
        np.testing.assert_array_equal(loaded(x), model(x))
        (features,) = loaded.frozen.values()
        for ours, theirs in zip(features.get_weights(), drawn, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    # A model that only translates takes the networks alone.
    bare = METHODS[method].model_class(**given, seed=2)
    bare.build((None, None, None, 3))
    bare.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(bare(x), model(x))


@pytest.mark.parametrize("content", [None, b"not a weights file", "of another network"])
def test_missing_weights_stop_the_run(content, tmp_path, vgg19):
    path, features = tmp_path / "vgg.h5", PerceptualFeatures("vgg16", "block5_conv3")
    if content == "of another network":
        path = vgg19[1]
    elif content:
        path.write_bytes(content)
    with pytest.raises(UserError, match="VGG16: --vgg_weights=.* cannot be read.*vgg16_weights.*--lambda_vgg=0"):
        features.prepare(str(path), *FLAGS)
    assert not features.built


def test_a_failed_download_stops_the_run(monkeypatch):
    def no_network(**kwargs):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "VGG19", no_network)
    with pytest.raises(UserError, match="VGG19: Keras could not download them .URL fetch failure.*--vgg_weights=FILE"):
        PerceptualFeatures("vgg19", "block4_conv4").prepare(None, *FLAGS)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("vgg11", "block1_conv1"), "architecture='vgg11': expected one of vgg16, vgg19"),
        (("vgg16", "block4_conv4"), "layer='block4_conv4': expected one of block1_conv1, .*block5_conv3$"),
    ],
)
def test_what_no_vgg_has(arguments, message):
    with pytest.raises(ValueError, match=message):
        PerceptualFeatures(*arguments)
