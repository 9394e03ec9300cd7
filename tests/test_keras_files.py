"""Keras' files of CycleGANs: whole ones become run directories, damaged and hostile ones one clear error."""

import io
import json
import pathlib
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.damage import damaged
from tests.marks import thorough
from tests.published import refused, shapes_alone
from tfi2i import checkpoints, config, settings
from tfi2i.config import UserError
from tfi2i.conversion import exchange, hdf5, keras_files
from tfi2i.layers import addons
from tfi2i.methods.cyclegan import published_keras
from tfi2i.methods.cyclegan.model import CycleGAN
from tfi2i.translation import translate_files

CHECKPOINTS = pathlib.Path(__file__).parent / "golden" / "checkpoints"
GOLDEN = np.load(CHECKPOINTS / "cyclegan_keras.npz")
FILES = {
    "whole.h5": ("whole_h5", "horse2zebra.h5"), "functions.h5": ("functions_h5", "horse2zebra.h5"),
    "weights.h5": ("weights_h5", "horse2zebra.h5"), "classed.h5": ("classed", "horse2zebra.weights.h5"),
    "model.h5": ("model_h5", "cyclegan.h5"), "unet.h5": ("unet_h5", "facades.h5"),
    "whole.keras": ("whole_keras", "horse2zebra.keras"),
}  # fmt: skip


def quiet(*args, **kwargs):
    return exchange.convert(*args, log=lambda _: None, **kwargs)


def unpacked(name, folder):
    with zipfile.ZipFile(CHECKPOINTS / f"cyclegan_keras_{name}.zip") as packed:
        packed.extractall(folder)
    return folder / f"cyclegan_keras_{name}"


def content(name):
    """The bytes of one of `FILES`."""
    archive, member = FILES[name]
    with zipfile.ZipFile(CHECKPOINTS / f"cyclegan_keras_{archive}.zip") as packed:
        return packed.read(f"cyclegan_keras_{archive}/{member}")


def load(data, name="file.h5"):
    return keras_files.load(io.BytesIO(data), name)


def numbers(saved):
    return {(path, n): a.numpy() for path, arrays in saved.layers for n, a in arrays.items()}


# What Keras 2 with tensorflow-addons computed


NAMES = {
    "generator_a2b": ("G_A2B", "generator_G"), "generator_b2a": ("G_B2A", "generator_F"),
    "discriminator_a": ("D_A", "discriminator_X"), "discriminator_b": ("D_B", "discriminator_Y"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["checkpoint", "weights", "model_h5"])
def test_whole_cyclegans(name, tmp_path):
    recorded = "checkpoint" if name == "checkpoint" else "weights"
    model = quiet(unpacked(name, tmp_path), tmp_path / "run")
    c = model.run.model
    assert (c.cyclegan_variant, c.norm, c.norm_epsilon) == ("tensorflow", "instance", 1e-3)
    assert c.generator == ("resnet_9blocks" if name == "checkpoint" else "resnet_6blocks")
    for ours, theirs in NAMES.items():
        expected = GOLDEN[f"{recorded}/{theirs[recorded == 'weights']}"]
        np.testing.assert_allclose(model.networks[ours](GOLDEN["input"]), expected, atol=2e-5, err_msg=ours)


@pytest.mark.parametrize("name", ["whole_h5", "functions_h5", "weights_h5", "classed", "whole_keras", "saved_model"])
def test_single_generators(name, tmp_path):
    """As people save them; only whole models say the size of their pictures."""
    said = []
    model = exchange.convert(unpacked(name, tmp_path), tmp_path / "run", direction="b2a", log=said.append)
    np.testing.assert_allclose(model.translate(GOLDEN["input"], "b2a"), GOLDEN["alone/generator_G"], atol=2e-5)
    assert model.directions == ("b2a",)
    own = "not known: what layers of the class ReflectionPadding2D do: what its name says, is assumed"
    assert (own in said) == (name in ("whole_h5", "whole_keras"))
    whole = name in ("whole_h5", "functions_h5", "whole_keras")
    assert model.run.data.crop == ((16, 16) if whole else (256, 256))
    assert any("not known: how the layers of" in line for line in said) != whole


def test_the_tutorial(tmp_path):
    said = []
    model = exchange.convert(unpacked("tutorial", tmp_path), tmp_path / "run", log=said.append)
    c = model.run.model
    assert (c.generator, c.norm, c.norm_epsilon, c.dropout) == ("unet_256", "instance", 1e-5, True)
    x = np.tile(GOLDEN["tile"], (1, 8, 8, 1))
    for direction, name in (("a2b", "generator_g"), ("b2a", "generator_f")):
        translated = model.translate(x, direction)[:, ::7, ::7]
        np.testing.assert_allclose(translated, GOLDEN[f"unet/{name}"], atol=2e-5)
    text = "\n".join(said)
    assert "discriminator_x has other layers than discriminators here, and is left out" in text
    assert "not there: discriminator_a, discriminator_b; --init_from starts them anew" in text


def test_a_whole_unet_with_batch_norm(tmp_path):
    model = quiet(unpacked("unet_h5", tmp_path), tmp_path / "run")
    assert (model.run.model.generator, model.run.model.norm) == ("unet_128", "batch")
    x = np.tile(GOLDEN["tile"], (1, 4, 4, 1))
    np.testing.assert_allclose(model.translate(x)[:, ::7, ::7], GOLDEN["unet/paired"], atol=2e-5)


def test_what_a_user_does(tmp_path):
    """Converts, translates a picture, and exports a file, which is verified."""
    from tfi2i.export import export

    source = unpacked("whole_h5", tmp_path) / "horse2zebra.h5"
    model = quiet(source, tmp_path / "run")
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    tf.io.write_file(str(tmp_path / "in.png"), tf.io.encode_png(picture))
    written, failed = translate_files(model, tmp_path / "in.png", tmp_path / "out.png", "a2b", active=False)
    assert written and not failed
    report = export(
        model,
        tmp_path / "export",
        "a2b",
        ("float32",),
        size=(16, 16),
        data=config.Data(data="emoji"),
        verification_images=2,
        log=lambda _: None,
    )
    assert report["passed"]


def test_training_starts_from_all_four_networks(tmp_path):
    quiet(unpacked("weights", tmp_path), tmp_path / "run", size=(16, 16))
    first = checkpoints.load(tmp_path / "run")
    chosen = settings.resolve("cyclegan", settings.differing(first.run))
    assert chosen == first.run
    model = checkpoints.build(chosen)
    checkpoints.initialise(model, tmp_path / "run")
    for name, network in first.networks.items():
        for ours, old in zip(model.networks[name].weights, network.weights, strict=True):
            np.testing.assert_array_equal(ours, old)


def test_archives_of_files(tmp_path):
    message = "cyclegan_keras_tutorial.zip holds a checkpoint of TensorFlow: unpack it, and give the folder"
    refused(CHECKPOINTS / "cyclegan_keras_tutorial.zip", tmp_path, message)
    model = quiet(CHECKPOINTS / "cyclegan_keras_whole_keras.zip", tmp_path / "run")
    np.testing.assert_allclose(model.translate(GOLDEN["input"]), GOLDEN["alone/generator_G"], atol=2e-5)


def test_one_file_for_each_generator(tmp_path):
    for name in ("G_A2B", "G_B2A"):
        (tmp_path / f"{name}.h5").write_bytes(content("whole.h5"))
    (tmp_path / "chosen.yml").write_text("not looked at")
    assert quiet(tmp_path, tmp_path / "run").directions == ("a2b", "b2a")
    (tmp_path / "G_A2B.h5").rename(tmp_path / "generator_F.h5")
    with pytest.raises(UserError, match="generator_F is a second G_B2A: give the file of one"):
        quiet(tmp_path, tmp_path / "again")


# Files of Keras 3


@keras.saving.register_keras_serializable(package="mine")
class ReflectionPadding2D(keras.layers.Layer):
    def __init__(self, padding=(1, 1), **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, x):
        h, w = self.padding
        return keras.ops.pad(x, ((0, 0), (h, h), (w, w), (0, 0)), mode="reflect")


def resnet(norm=addons.InstanceNormalization, blocks=6):
    x = inputs = keras.Input((16, 16, 3))

    def conv(x, filters, side, **kwargs):
        return norm()(keras.layers.Conv2D(filters, side, use_bias=False, **kwargs)(x))

    x = keras.layers.ReLU()(conv(ReflectionPadding2D((3, 3))(x), 1, 7))
    for width in (2, 4):
        x = keras.layers.ReLU()(conv(x, width, 3, strides=2, padding="same"))
    for _ in range(blocks):
        y = keras.layers.ReLU()(conv(ReflectionPadding2D()(x), 4, 3))
        x = keras.layers.Add()([x, conv(ReflectionPadding2D()(y), 4, 3)])
    for width in (2, 1):
        x = keras.layers.Conv2DTranspose(width, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(norm()(x))
    x = keras.layers.Conv2D(3, 7, activation="tanh")(ReflectionPadding2D((3, 3))(x))
    return keras.Model(inputs, x)


@pytest.mark.parametrize("norm", ["addons", "group", thorough("batch")])
def test_files_of_keras_3(norm, tmp_path):
    kind = {
        "addons": lambda: addons.InstanceNormalization(epsilon=0.25),
        "group": lambda: keras.layers.GroupNormalization(groups=-1, epsilon=0.25),
        "batch": lambda: keras.layers.BatchNormalization(epsilon=0.25),
    }[norm]
    keras.utils.set_random_seed(1)
    model = resnet(kind)
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    converted = quiet(tmp_path / "m.keras", tmp_path / "run")
    assert converted.run.model.norm_epsilon == 0.25
    np.testing.assert_allclose(converted.generator_a2b(GOLDEN["input"]), model(GOLDEN["input"]), atol=1e-5)
    weights = quiet(tmp_path / "m.weights.h5", tmp_path / "weights")
    for ours, same in zip(weights.generator_a2b.weights, converted.generator_a2b.weights, strict=True):
        np.testing.assert_array_equal(ours, same)


class Pair(keras.Model):
    """Two networks as the example of keras.io holds them."""

    def __init__(self, first, second):
        super().__init__()
        self.gen_G, self.gen_F = first, second


@pytest.mark.parametrize("kind", [thorough("checkpoint"), "weights"])
def test_several_networks_of_keras_3(kind, tmp_path):
    keras.utils.set_random_seed(2)
    pair = Pair(resnet(), resnet())
    if kind == "checkpoint":
        optimizer = keras.optimizers.Adam()
        optimizer.build(pair.trainable_variables)  # whose names for them are the shorter ones
        tf.train.Checkpoint(model=pair, optimizer=optimizer).save(str(tmp_path / "ckpt"))
        source = tmp_path / "ckpt-1.index"
    else:
        source = tmp_path / "pair.weights.h5"
        pair.built = True
        pair.save_weights(source)
    model = quiet(source, tmp_path / "run")
    for ours, theirs in ((model.generator_a2b, pair.gen_G), (model.generator_b2a, pair.gen_F)):
        np.testing.assert_allclose(ours(GOLDEN["input"]), theirs(GOLDEN["input"]), atol=1e-5)


# Names and shapes


def as_checkpoint(model):
    """Shapes as an object-based checkpoint has them, with an optimizer's."""
    names = {"G_A2B": "gen_G", "G_B2A": "gen_F", "D_A": "disc_X", "D_B": "disc_Y"}
    state = {
        f"{names[part]}/{key}": place.theirs()
        for part, places in published_keras.layout(model).items() for key, place in places.items()
    }  # fmt: skip
    slots = {f"{k}/.OPTIMIZER_SLOT/opt/m": v for k, v in state.items()}
    return shapes_alone(state | slots | {"opt/learning_rate": np.zeros(())})


@pytest.mark.parametrize("options", [
    {}, {"generator": "resnet_6blocks", "norm": "batch"}, {"norm": "none"}, {"discriminator_layers": 2},
    {"channels_a": 1, "lambda_identity": 0.0},
])  # fmt: skip
def test_every_configuration_is_told_by_its_names_and_shapes(options):
    model = CycleGAN(cyclegan_variant="tensorflow", **{"generator_width": 2, "discriminator_width": 3} | options)
    model.build((None, None, None, model.channels_a))
    found = published_keras.recognise({"ckpt-1": as_checkpoint(model)})
    assert settings.resolve("cyclegan", found.options).model == model.config
    assert found.channels == {"a": model.channels_a, "b": model.channels_b} and found.directions == ("a2b", "b2a")
    layout = published_keras.layout(model)
    assert {p: set(s) for p, s in found.states.items()} == {p: set(places) for p, places in layout.items()}
    named = {id(p.variable) for places in layout.values() for p in places.values()}
    assert named == {id(v) for network in model.networks.values() for v in network.variables}


def test_full_width(monkeypatch):
    monkeypatch.setattr("tfi2i.layers.network.initializer", lambda *_: "zeros")
    model = CycleGAN(cyclegan_variant="tensorflow")
    model.build((None, None, None, 3))
    shapes = {part: {k: p.shape for k, p in places.items()} for part, places in published_keras.layout(model).items()}
    kernels = [(7, 7, 3, 64), (3, 3, 64, 128), (3, 3, 128, 256), *[(3, 3, 256, 256)] * 18, (3, 3, 128, 256),
               (3, 3, 64, 128), (7, 7, 64, 3)]  # fmt: skip
    expected = {f"layer_with_weights-{2 * i}/kernel": shape for i, shape in enumerate(kernels)}
    outputs = [shape[2] if i in (21, 22) else shape[3] for i, shape in enumerate(kernels[:-1])]
    for i, n in enumerate(outputs):
        expected |= {f"layer_with_weights-{2 * i + 1}/{v}": (n,) for v in ("gamma", "beta")}
    assert shapes["G_A2B"] == shapes["G_B2A"] == expected | {"layer_with_weights-46/bias": (3,)}
    # The data file of the example's model on its hub has 45.6 MB.
    assert sum(map(np.prod, shapes["G_A2B"].values())) == 11_383_427
    kernels = [(4, 4, 3, 64), (4, 4, 64, 128), (4, 4, 128, 256), (4, 4, 256, 512), (4, 4, 512, 1)]
    found = [v for k, v in shapes["D_B"].items() if k.endswith("kernel")]
    assert found == kernels and sum("bias" in k for k in shapes["D_B"]) == 2


# The reader of HDF5


def written(**options):
    """A file of h5py's, as a function fills it."""

    def make(fill):
        file = io.BytesIO()
        with h5py.File(file, "w", **options) as h5:
            fill(h5)
        return file.getvalue()

    return make


def test_hdf5_by_hand():
    def fill(h5):
        group = h5.create_group("b/c")
        group["x"] = np.float32([[1, 2, 3], [4, 5, 6]])
        group["half"] = np.float16([0.5])
        group["big"] = np.array(7, ">f8")
        h5.attrs["text"], h5.attrs["many"] = "é" * 70_000, [b"ab", b"c"]
        h5.attrs["long"], h5.attrs["none"], h5.attrs["number"] = ["x", "yz"], [], 3
        for i in range(100):
            h5.create_group(f"n{i}")

    root = hdf5.File(io.BytesIO(written()(fill))).root
    assert root.attributes == {"text": "é" * 70_000, "many": ["ab", "c"], "long": ["x", "yz"], "none": []}
    assert set(root.entries) == {"b", *(f"n{i}" for i in range(100))} and "b/c/x" in root and "b/d/x" not in root
    np.testing.assert_array_equal(root["b/c/x"].tensor().numpy(), [[1, 2, 3], [4, 5, 6]])
    assert root["b/c/half"].tensor().numpy() == 0.5 and root["b"]["c/big"].tensor().numpy() == 7


@pytest.mark.parametrize("name", [n for n in FILES if n.endswith(".h5")])
def test_hdf5_is_what_the_library_reads(name):
    root = hdf5.File(io.BytesIO(content(name))).root
    with h5py.File(io.BytesIO(content(name))) as h5:
        found = []
        h5.visititems(lambda path, item: found.append((path, item[()])) if isinstance(item, h5py.Dataset) else None)
        assert len(found) > 30
        for path, value in found:
            np.testing.assert_array_equal(root[path].tensor().numpy(), value)


def chained(h5, **arrays):
    """Weights of one layer, as Keras has them."""
    h5.attrs["layer_names"] = ["conv"]
    group = h5.create_group("conv")
    group.attrs["weight_names"] = ["kernel:0"]
    group.create_dataset("kernel:0", **arrays)


def external(h5):
    h5.attrs["layer_names"] = ["conv"]
    h5["conv"] = h5py.ExternalLink("/etc/passwd", "/conv")


def soft(h5):
    h5.attrs["layer_names"] = ["conv"]
    h5["conv"] = h5py.SoftLink("/other")


def virtual(h5):
    layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(4,))
    h5.attrs["layer_names"] = ["conv"]
    group = h5.create_group("conv")
    group.attrs["weight_names"] = ["kernel:0"]
    group.create_virtual_dataset("kernel:0", layout)


HOSTILE = {
    "external link": (external, "a group of a newer form"),
    "soft link": (soft, "is a link to somewhere else"),
    "virtual array": (virtual, "does not lie in one piece"),
    "array in another file": (
        lambda h5: chained(h5, shape=(4,), dtype="f4", external=[("/etc/passwd", 0, 16)]), "or in another file",
    ),
    "compressed array": (lambda h5: chained(h5, data=np.zeros(10**6, "f4"), compression="gzip"), "is compressed"),
    "huge array that is not there": (lambda h5: chained(h5, shape=(10**6, 10**6), dtype="f4", chunks=(9, 9)), "piece"),
    "array without room": (lambda h5: chained(h5, shape=(10**6, 10**6), dtype="f4"), "ends before byte|has 0 bytes"),
    "array of objects": (lambda h5: chained(h5, data=["a"]), "not of floating-point numbers"),
    "array of whole numbers": (lambda h5: chained(h5, data=[1]), "not of floating-point numbers"),
    "a group for an array": (lambda h5: (chained(h5, data=[1.0]), h5["conv"].attrs.modify("weight_names", ["x"]),
                                         h5["conv"].create_group("x")), "a group, or something without numbers"),
    "names that are not there": (lambda h5: h5.attrs.update(layer_names=["x"]), "it has no x"),
    "other HDF5": (lambda h5: h5.create_dataset("x", data=[1.0]), "it is HDF5, but not of Keras"),
    "deep configuration": (lambda h5: h5.attrs.update(model_config="[" * 10**5), "cannot be read"),
    "configuration of nothing": (lambda h5: h5.attrs.update(model_config='{"class_name": "X"}'), "is of X, expected"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_hdf5_is_refused(kind, tmp_path):
    fill, message = HOSTILE[kind]
    (tmp_path / "x.h5").write_bytes(written()(fill))
    refused(tmp_path / "x.h5", tmp_path, f"x.h5.*({message})")


def test_hdf5_of_a_newer_form_is_refused(tmp_path):
    (tmp_path / "x.h5").write_bytes(written(libver="latest")(lambda h5: chained(h5, data=[1.0])))
    refused(tmp_path / "x.h5", tmp_path, "x.h5.* a superblock of version 3, expected 0")
    (tmp_path / "x.h5").write_bytes(written(track_order=True)(lambda h5: chained(h5, data=[1.0])))
    refused(tmp_path / "x.h5", tmp_path, "x.h5.* an object of a newer form of HDF5 than Keras writes")


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_load_or_are_refused(name):
    """Any truncation and any flipped bits: never another error than `UserError`."""
    whole, refusals = content(name), 0
    numbers(load(whole))
    for file in damaged(whole, 200):
        try:
            saved = load(file)
            numbers(saved)
            published_keras.recognise({"x": saved})
        except UserError:
            refusals += 1
    assert refusals > 50


@pytest.mark.parametrize("cut", [4, 100, 5000, -1])
@pytest.mark.parametrize("name", ["whole.h5", "weights.h5", "whole.keras"])
def test_truncated_files_are_refused(name, cut, tmp_path):
    path = tmp_path / f"x.{name.rpartition('.')[2]}"
    path.write_bytes(content(name)[:cut])
    refused(path, tmp_path, "x.(h5|keras)")


def archived(members, **kwargs):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **kwargs) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def test_hostile_archives_are_refused(tmp_path):
    with zipfile.ZipFile(io.BytesIO(content("whole.keras"))) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    path = tmp_path / "x.keras"
    path.write_bytes(archived(members, compression=zipfile.ZIP_DEFLATED))
    refused(path, tmp_path, "x.keras: its config.json is compressed or encrypted")
    for name, data, message in (
        ("config.json", b"[]", "its configuration is of list"),
        ("model.weights.h5", b"x" * 99, "not begin as HDF5"),
        ("config.json", b"{", "cannot be read"),
        ("config.json", b"[" * 10**6, "cannot be read"),
    ):
        path.write_bytes(archived(members | {name: data}))
        refused(path, tmp_path, f"x.keras.*({message})")


# Whole models that compute something else


def changed(change, name="whole.h5"):
    """One of `FILES` after `change` of its list of layers."""
    file = io.BytesIO(content(name))
    with h5py.File(file, "r+") as h5:
        model = json.loads(h5.attrs["model_config"])
        layers = model["config"]["layers"]
        change(layers)
        model["config"]["output_layers"] = [[layers[-1]["config"]["name"], 0, 0]]
        h5.attrs["model_config"] = json.dumps(model)
    return file.getvalue()


def of(layers, kind):
    return [layer for layer in layers if layer["class_name"].endswith(kind)]


def set_options(kind, number, **options):
    return lambda layers: of(layers, kind)[number]["config"].update(options)


def set_class(kind, number, name, **options):
    return lambda layers: of(layers, kind)[number].update(class_name=name, **options)


def connect(layers):
    """The first sum takes the block's own input twice."""
    nodes = of(layers, "Add")[0]["inbound_nodes"][0]
    nodes[1] = nodes[0]


def two_inputs(layers):
    layers.insert(1, json.loads(json.dumps(layers[0]).replace("input_", "other_input_")))


def pad_by_default(layers):
    """tf.pad without a mode pads by zeros."""
    layer = of(layers, "Padding2D")[1]
    del layer["config"]["padding"]
    layer["class_name"], layer["config"]["function"] = "TFOpLambda", "compat.v1.pad"
    layer["inbound_nodes"] = [[*layer["inbound_nodes"][0][0][:3], {"paddings": [[0, 0], [1, 1], [1, 1], [0, 0]]}]]


def slope(layers):
    layer = of(layers, "Activation")[0]
    layer["class_name"] = "LeakyReLU"
    layer["config"]["alpha"] = 0.2


def groups(layers):
    layer = of(layers, "InstanceNormalization")[2]
    layer["class_name"] = "GroupNormalization"
    layer["config"]["groups"] = 2


OTHERS = {
    "a stride padded otherwise": (set_options("Conv2D", 1, padding="valid"), "step 4 is 'Conv2D 3, stride 2, valid'"),
    "dilation": (set_options("Conv2D", 4, dilation_rate=[2, 2]), "stride 1, valid, dilation_rate"),
    "padding by zeros": (set_class("Padding2D", 0, "ZeroPadding2D"), "step 0 is 'ZeroPadding2D' of the input"),
    "padding by repetition": (set_options("Padding2D", 2, mode="SYMMETRIC"), "is 'padding, SYMMETRIC'"),
    "another amount of padding": (set_options("Padding2D", 1, padding=[2, 2]), "'reflection 2' of step .*reflection 1"),
    "a slope": (slope, "'leaky relu 0.2' of step"),
    "another activation": (set_options("Activation", 3, activation="elu"), "'elu' of step .* has 'relu' of step"),
    "no tanh": (lambda layers: layers.pop(), "is missing, where tfi2i's resnet_6blocks has 'tanh'"),
    "groups of channels": (groups, "a norm takes 8 channels in 2 groups, and tfi2i's each by itself"),
    "norms of other axes": (set_options("InstanceNormalization", 2, axis=1), "norm of axis 1"),
    "different epsilons": (set_options("InstanceNormalization", 2, epsilon=0.1), r"different epsilons, \[0.001, 0.1\]"),
    "another connection": (connect, "'add' of step 9 and 9, where .* 'add' of step 9 and 16"),
    "a layer used twice": (lambda layers: of(layers, "Add")[0]["inbound_nodes"].append([]), "is used 2 times"),
    "padding by default": (pad_by_default, "'padding, CONSTANT' of step"),
    "padding that does not say how": (set_class("Padding2D", 0, "Pad"), "step 0 is 'Pad' of the input"),
    "two inputs": (two_inputs, "it has several inputs"),
    "a layer of nobody": (set_class("Activation", 0, "Sharpen"), "'Sharpen' of step"),
    "a name that is not there": (lambda layers: layers[3]["inbound_nodes"][0][0].__setitem__(0, "x"), "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_other_models_are_refused(kind, tmp_path):
    change, message = OTHERS[kind]
    (tmp_path / "x.h5").write_bytes(changed(change))
    refused(tmp_path / "x.h5", tmp_path, message)


def test_another_output_is_refused(tmp_path):
    model = resnet()
    model = keras.Model(model.input, [model.layers[-3].output, model.output])
    model.save(tmp_path / "x.keras")
    refused(tmp_path / "x.keras", tmp_path, "x: it gives something else than what its last layer makes")


def test_another_epsilon_is_taken_over(tmp_path):
    def change(layers):
        for layer in of(layers, "InstanceNormalization"):
            layer["config"]["epsilon"] = 0.5

    (tmp_path / "x.h5").write_bytes(changed(change))
    assert quiet(tmp_path / "x.h5", tmp_path / "run").run.model.norm_epsilon == 0.5


@pytest.mark.parametrize("kind", ["h5", "keras"])
def test_the_code_of_a_lambda_is_not_run(kind, tmp_path):
    """Keras would take this function apart and put it together again when it loads the file."""
    harm = str(tmp_path / "harm")
    model = resnet()
    harms = keras.layers.Lambda(lambda x: pathlib.Path(harm).write_text("ran") and x, output_shape=(16, 16, 3))
    x = harms(model.output)
    path = tmp_path / f"x.{kind}"
    keras.Model(model.input, x).save(path)
    refused(path, tmp_path, "its layer lambda.* is a Lambda: code in the file, which is not run")
    assert not pathlib.Path(harm).exists()


# Weights that are of something else


@pytest.mark.parametrize("change, message", [
    (lambda s: {k: v for k, v in s.items() if "-6/" not in k}, "23 convolutions, expected 6 and two"),
    (lambda s: {k: v for k, v in s.items() if "-7/gamma" not in k}, r"lacks 1 arrays \(layer_with_weights-7/gamma"),
    (lambda s: s | {k.replace("kernel", "bias"): np.zeros(v.shape[3]) for k, v in s.items() if "kernel" in k},
     "has 23 that do not belong there"),
    (lambda s: s | {k: v[:1, :1] for k, v in s.items() if "-0/kernel" in k}, "begins with a convolution of 1x1"),
    (lambda s: s | {k: np.full(v.shape, np.nan) for k, v in s.items() if "-9/beta" in k}, "9/beta holds numbers"),
    (lambda s: {k.replace("layer_with_weights-", "conv"): v for k, v in s.items()}, "no checkpoint that is known"),
    (lambda s: {k.replace("G/", "disc_X/"): np.ones((4, 4, 3, 1)) for k, v in s.items() if "kernel" in k}, "alone"),
])  # fmt: skip
def test_checkpoints_of_other_networks(change, message, tmp_path):
    model = CycleGAN(cyclegan_variant="tensorflow", generator_width=1)
    model.build((None, None, None, 3))
    arrays = {k: p.theirs() for k, p in published_keras.layout(model)["G_A2B"].items()}
    save_checkpoint(tmp_path, change({f"G/{k}": v for k, v in arrays.items()}))
    refused(tmp_path / "x.index", tmp_path, message)


def save_checkpoint(folder, arrays):
    """A checkpoint with the names that an object-based one would have."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        names = [f"{k}/.ATTRIBUTES/VARIABLE_VALUE" for k in arrays]
        values = [tf.constant(np.asarray(v, np.float32)) for v in arrays.values()]
        session.run(
            tf.raw_ops.SaveV2(
                prefix=str(folder / "x"), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values
            )
        )


def test_damaged_checkpoints_are_refused(tmp_path):
    source = unpacked("checkpoint", tmp_path)
    data = next(source.glob("*.data*"))
    whole = data.read_bytes()
    for broken in (whole[:1000], whole[:20000] + b"xxxx" + whole[20004:]):
        data.write_bytes(broken)
        refused(source, tmp_path, "ckpt-6.index cannot be read as a checkpoint")
    data.write_bytes(whole)
    index = source / "ckpt-6.index"
    index.write_bytes(index.read_bytes()[:-100])
    refused(source, tmp_path, "ckpt-6.index cannot be read as a checkpoint")
    index.unlink()
    refused(source, tmp_path, "holds nothing named as checkpoints are")
