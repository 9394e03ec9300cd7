"""Published checkpoints become run directories, and back."""

import itertools
import json
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf

import tfi2i
from tfi2i import config, convert
from tfi2i.config import UserError
from tfi2i.conversion import Place, cyclegan, fill, sources, torch_files, ugatit, unit, uvcgan2
from tfi2i.data import images
from tfi2i.methods import uvcgan2 as methods_uvcgan2
from tfi2i.methods.cyclegan import CycleGAN
from tfi2i.methods.ugatit import UGATIT
from tfi2i.methods.unit import UNIT
from tfi2i.methods.uvcgan2 import UVCGAN, UVCGAN2
from tfi2i.training import checkpoints, loop
from tfi2i.translate import translate_files

CHECKPOINTS = pathlib.Path(__file__).parent / "golden" / "checkpoints"
MODULES = {"cyclegan": cyclegan, "unit": unit, "ugatit": ugatit}
ROOT = pathlib.Path(__file__).resolve().parent.parent


def quiet(*args, **kwargs):
    return convert.convert(*args, log=lambda _: None, **kwargs)


def unpacked(archive, folder):
    with zipfile.ZipFile(CHECKPOINTS / archive) as packed:
        packed.extractall(folder)
    return folder / pathlib.Path(archive).stem


def states(model, module):
    return {part: {k: p.theirs() for k, p in places.items()} for part, places in module.layout(model).items()}


def small(**options):
    model = CycleGAN(**{"generator_width": 1, "discriminator_width": 1, "generator": "resnet_6blocks"} | options)
    model.build((None, None, None, model.channels_a))
    return model


def generator_file(path, model=None, part="G_A", change=lambda state: state):
    torch_files.save(path, change(states(model or small(), cyclegan)[part]))
    return path


def sparse(x):
    return np.asarray(x)[:, ::3, ::3]


# What the official codes computed


@pytest.mark.parametrize("name, direction", [("released", "a2b"), ("dropout", "b2a"), ("unet", "a2b")])
def test_single_generators_of_the_official_cyclegan(name, direction, tmp_path):
    golden = np.load(CHECKPOINTS / "cyclegan.npz")
    model = quiet(CHECKPOINTS / f"cyclegan_{name}.zip", tmp_path / "run")
    x = golden["input/unet" if name == "unet" else "input"]
    np.testing.assert_allclose(sparse(model.translate(x, direction)), golden[f"output/{name}"], atol=1e-4)
    assert model.directions == (direction,)
    expected = {"released": "resnet_9blocks", "dropout": "resnet_6blocks", "unet": "unet_128"}[name]
    c = model.run.model
    assert (c.generator, c.norm, c.dropout) == (expected, "instance", name == "dropout")


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_whole_models_of_the_official_cyclegan(kind, tmp_path):
    golden = np.load(CHECKPOINTS / "cyclegan.npz")
    source = CHECKPOINTS / "cyclegan_batch.zip" if kind == "zip" else unpacked("cyclegan_batch.zip", tmp_path)
    model = quiet(source, tmp_path / "run")
    networks = {
        "G_A": model.generator_a2b, "G_B": model.generator_b2a,
        "D_A": model.discriminator_b, "D_B": model.discriminator_a,
    }  # fmt: skip
    for part, network in networks.items():
        np.testing.assert_allclose(sparse(network(golden["input"])), golden[f"output/{part}"], atol=1e-4, err_msg=part)
    assert model.run.model.norm == "batch"


def test_the_official_unit_of_2018(tmp_path):
    golden = np.load(CHECKPOINTS / "unit_2018.npz")
    model = quiet(CHECKPOINTS / "unit_2018.zip", tmp_path / "run")
    c = model.run.model
    assert (c.unit_variant, c.discriminator_layers, c.discriminator_scales) == ("2018", 2, 2)
    assert model.checkpoint_step == 300
    for d, other in ("ab", "ba"):
        translated = model.translate(golden[d], f"{d}2{other}")
        np.testing.assert_allclose(sparse(translated), golden[f"{d}{other}"], atol=1e-4)
        for scale, judged in enumerate(model.judge(golden[d], d)):
            np.testing.assert_allclose(judged, golden[f"judged_{d}/{scale}"], atol=1e-4)


@pytest.mark.parametrize("kind, norm, judge", [
    ("COCOResGen", "instance", "multiscale"), ("COCOResGen2", "none", "shared"),
])  # fmt: skip
def test_the_official_unit_of_the_paper(kind, norm, judge, tmp_path):
    golden = np.load(CHECKPOINTS / "unit.npz")
    model = quiet(CHECKPOINTS / f"unit_{kind}.zip", tmp_path / "run")
    c = model.run.model
    assert (c.unit_variant, c.norm, c.discriminator, c.shared_blocks) == ("paper", norm, judge, 1)
    official = {"multiscale": "COCOMsDis", "shared": "COCOSharedDis"}[judge]
    for d, other in ("ab", "ba"):
        translated = model.translate(golden[d], f"{d}2{other}")
        np.testing.assert_allclose(sparse(translated), golden[f"{kind}/{d}{other}"], atol=1e-4)
        for scale, judged in enumerate(model.judge(golden[d], d)):
            expected = golden[f"{official}/{d}/{scale}"].reshape(judged.shape)
            np.testing.assert_allclose(judged, expected, atol=1e-4)


@pytest.mark.parametrize("mode", ["full", "light"])
def test_the_official_ugatit(mode, tmp_path):
    golden = np.load(CHECKPOINTS / "ugatit.npz")
    model = quiet(CHECKPOINTS / f"ugatit_{mode}.zip", tmp_path / "run")
    c = model.run.model
    assert (c.ugatit_variant, c.light, c.residual_blocks, model.checkpoint_step) == ("pytorch", mode == "light", 1, 500)
    assert model.fixed_size == (None if c.light else (16, 16))
    for name, direction in (("genA2B", "a2b"), ("genB2A", "b2a")):
        translated = model.translate(golden[direction[0].upper()], direction)
        np.testing.assert_allclose(translated, golden[f"{mode}/{name}"], atol=1e-4)
    if mode == "full":
        assert model.run.data.crop == (16, 16) and (c.local_layers, c.global_layers) == (3, 4)
        for name, network in (("disGA", model.discriminator_a_global), ("disLB", model.discriminator_b_local)):
            judged = network(golden[name[4]])[0]
            np.testing.assert_allclose(judged, golden[f"full/{name}"], atol=1e-4)


@pytest.mark.parametrize("kind", ["uvcgan2", "uvcgan"])
def test_the_official_uvcgan(kind, tmp_path):
    golden = np.load(CHECKPOINTS / "uvcgan.npz")
    model = quiet(CHECKPOINTS / f"{kind}.zip", tmp_path / "run", size=(24, 24))
    c, second = model.run.model, kind == "uvcgan2"
    assert (model.run.method, c.generator_levels, c.vit_width, c.vit_blocks) == (kind, 2, 12, 1)
    assert (c.discriminator_layers, c.discriminator_head) == ((2, "bn") if second else (3, "none"))
    assert checkpoints.origin_of(tmp_path / "run")["missing"] == []
    for ends in ("ab", "ba"):
        x, direction = golden[ends[0]], f"{ends[0]}2{ends[1]}"
        generated = model.networks[f"generator_{direction}"](x)
        np.testing.assert_allclose(sparse(generated), golden[f"{kind}/gen_{ends}"], atol=1e-4)
        translated = golden[f"{kind}/avg_gen_{ends}"] if second else sparse(generated)
        np.testing.assert_allclose(sparse(model.translate(x, direction)), translated, atol=1e-4)
    for d in "ab":
        judged, _ = model.networks[f"discriminator_{d}"](golden[d])
        np.testing.assert_allclose(judged, golden[f"{kind}/disc_{d}"], atol=1e-4)
    # What is written for the official code has all that its own files have, positions included.
    files, _, _ = sources.read(CHECKPOINTS / f"{kind}.zip", None)
    for path in convert.export(tmp_path / "run", tmp_path / "back", log=lambda _: None):
        written, official = torch_files.load(open(path, "rb"), path.name), files[path.stem]
        assert {k.replace("model.11", "shrink_conv") for k in written} == {
            k.replace("model.11", "shrink_conv") for k in official if "num_batches" not in k
        }
        for key in written.keys() & official.keys():
            if "running" not in key:
                np.testing.assert_array_equal(written[key].numpy(), official[key].numpy(), err_msg=key)


# Names and shapes


def test_a_place_by_hand():
    v = tf.Variable(np.zeros((2, 1, 3, 4), np.float32))
    place = Place(v, (2, 3, 1, 0))
    assert place.shape == (4, 3, 2, 1)
    theirs = np.arange(24, dtype=np.float32).reshape(4, 3, 2, 1)
    v.assign(place.ours(theirs))
    # Row 1 of the kernel for input 2 and output 3 is theirs at (3, 2, 1, 0): 3 · 6 + 2 · 2 + 1.
    assert float(v[1, 0, 2, 3]) == theirs[3, 2, 1, 0] == 23
    np.testing.assert_array_equal(place.theirs(), theirs)
    # A flattened map, channels first there and last here.
    v = tf.Variable(np.zeros((2 * 1 * 3, 5), np.float32))
    place = Place(v, (2, 3, 1, 0), view=(5, 3, 2, 1), shape=(5, 6))
    theirs = np.arange(30, dtype=np.float32).reshape(5, 6)
    v.assign(place.ours(theirs))
    # Output 4 of row 1, channel 2: here feature 1 · 3 + 2, there 2 · 2 + 1.
    assert float(v[5, 4]) == theirs[4, 5]
    np.testing.assert_array_equal(place.theirs(), theirs)


@pytest.fixture
def no_drawing(monkeypatch):
    """Weights of full-size networks are zeros: quick, and enough to have shapes."""
    monkeypatch.setattr("tfi2i.layers.network.initializer", lambda *_: "zeros")


def test_full_width_resnet_9(no_drawing):
    model = CycleGAN()
    model.build((None, None, None, 3))
    shapes = {part: {k: p.shape for k, p in places.items()} for part, places in cyclegan.layout(model).items()}
    expected = {
        "model.1": (64, 3, 7, 7), "model.4": (128, 64, 3, 3), "model.7": (256, 128, 3, 3),
        "model.19": (256, 128, 3, 3), "model.22": (128, 64, 3, 3), "model.26": (3, 64, 7, 7),
    }  # fmt: skip
    expected |= {f"model.{i}.conv_block.{j}": (256, 256, 3, 3) for i in range(10, 19) for j in (1, 5)}
    biases = {k: (v[0] if k not in ("model.19", "model.22") else v[1],) for k, v in expected.items()}
    expected = {f"{k}.weight": v for k, v in expected.items()} | {f"{k}.bias": v for k, v in biases.items()}
    assert shapes["G_A"] == shapes["G_B"] == expected
    judge = {0: (64, 3, 4, 4), 2: (128, 64, 4, 4), 5: (256, 128, 4, 4), 8: (512, 256, 4, 4), 11: (1, 512, 4, 4)}
    expected = {f"model.{i}.weight": v for i, v in judge.items()} | {f"model.{i}.bias": v[:1] for i, v in judge.items()}
    assert shapes["D_A"] == shapes["D_B"] == expected


def test_full_width_unit_2018(no_drawing):
    model = UNIT(unit_variant="2018")
    model.build((None, None, None, 3))
    shapes = {part: {k: p.shape for k, p in places.items()} for part, places in unit.layout(model).items()}
    gen = {
        "enc.model.0.conv": (64, 3, 7, 7), "enc.model.1.conv": (128, 64, 4, 4), "enc.model.2.conv": (256, 128, 4, 4),
        "dec.model.2.conv": (128, 256, 5, 5), "dec.model.4.conv": (64, 128, 5, 5), "dec.model.5.conv": (3, 64, 7, 7),
    }  # fmt: skip
    for part in ("enc.model.3", "dec.model.0"):
        gen |= {f"{part}.model.{i}.model.{j}.conv": (256, 256, 3, 3) for i in range(4) for j in (0, 1)}
    expected = {f"{k}.weight": v for k, v in gen.items()} | {f"{k}.bias": v[:1] for k, v in gen.items()}
    for i, n in ((2, 128), (4, 64)):
        expected |= {f"dec.model.{i}.norm.gamma": (n,), f"dec.model.{i}.norm.beta": (n,)}
    assert shapes["gen_a"] == shapes["gen_b"] == expected
    convs = [(64, 3, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4)]
    judge = {f"cnns.{s}.{i}.conv": shape for s in range(3) for i, shape in enumerate(convs)}
    judge |= {f"cnns.{s}.4": (1, 512, 1, 1) for s in range(3)}
    expected = {f"{k}.weight": v for k, v in judge.items()} | {f"{k}.bias": v[:1] for k, v in judge.items()}
    assert shapes["dis_a"] == shapes["dis_b"] == expected


def test_full_width_unit_of_the_paper(no_drawing):
    model = UNIT(discriminator_layers=6)
    model.build((None, None, None, 3))
    shapes = {part: {k: p.shape for k, p in places.items()} for part, places in unit.layout(model).items()}
    gen = {"enc_shared.0.model.0": (256, 256, 3, 3), "dec_shared.0.model.3": (256, 256, 3, 3)}
    for d in "AB":
        gen |= {f"encode_{d}.0.model.0": (64, 3, 7, 7), f"encode_{d}.2.model.0": (256, 128, 3, 3)}
        gen |= {f"encode_{d}.5.model.3": (256, 256, 3, 3), f"decode_{d}.2.model.0": (256, 256, 3, 3)}
        gen |= {f"decode_{d}.3.model.0": (256, 128, 3, 3), f"decode_{d}.4.model.0": (128, 64, 3, 3)}
        gen |= {f"decode_{d}.5": (64, 3, 1, 1)}
    assert {f"{k}.weight": v for k, v in gen.items()}.items() <= shapes["gen"].items()
    assert sum(map(np.prod, shapes["gen"].values())) == 18_017_286
    assert sum(map(np.prod, shapes["dis"].values())) == 2 * 25_149_057
    assert shapes["dis"]["model_B.5.model.0.weight"] == (2048, 1024, 3, 3)
    assert shapes["dis"]["model_B.6.weight"] == (1, 2048, 1, 1)


def test_full_width_ugatit(no_drawing):
    model = UGATIT(ugatit_variant="pytorch", light=True)
    for network in (model.generator_a2b, model.discriminator_a_global, model.discriminator_a_local):
        network.build((None, None, None, 3))
    gen, dis, local = (
        {k: p.shape for k, p in places.items()}
        for places in (
            ugatit.generator(model.generator_a2b),
            ugatit.discriminator(model.discriminator_a_global),
            ugatit.discriminator(model.discriminator_a_local),
        )
    )
    expected = {"gap_fc.weight": (1, 256), "gmp_fc.weight": (1, 256), "conv1x1.weight": (256, 512, 1, 1)}
    expected |= {"conv1x1.bias": (256,), "UpBlock2.2.weight": (128, 256, 3, 3), "UpBlock2.7.weight": (64, 128, 3, 3)}
    expected |= {f"{n}.weight": (256, 256) for n in ("FC.0", "FC.2", "gamma", "beta")}
    expected |= {f"UpBlock1_{i}.conv{j}.weight": (256, 256, 3, 3) for i in range(1, 5) for j in (1, 2)}
    expected |= {f"UpBlock1_{i}.norm{j}.rho": (1, 256, 1, 1) for i in range(1, 5) for j in (1, 2)}
    expected |= {f"DownBlock.{i}.conv_block.{j}.weight": (256, 256, 3, 3) for i in range(12, 16) for j in (1, 5)}
    expected |= {f"UpBlock2.{i}.{n}": (1, c, 1, 1) for i, c in ((3, 128), (8, 64)) for n in ("rho", "gamma", "beta")}
    expected |= {"DownBlock.1.weight": (64, 3, 7, 7), "DownBlock.5.weight": (128, 64, 3, 3)}
    assert gen == expected | {"DownBlock.9.weight": (256, 128, 3, 3), "UpBlock2.11.weight": (3, 64, 7, 7)}
    for shapes, strided in ((local, 3), (dis, 5)):
        expected, c = {}, 64 * 2**strided
        for i in range(strided + 1):
            out, taken = 64 * 2**i, 3 if i == 0 else 64 * 2 ** (i - 1)
            key = f"model.{3 * i + 1}"
            expected |= {f"{key}.bias": (out,), f"{key}.weight_orig": (out, taken, 4, 4)}
            expected |= {f"{key}.weight_u": (out,), f"{key}.weight_v": (16 * taken,)}
        for name in ("gap", "gmp"):
            expected |= {f"{name}_fc.weight_{n}": s for n, s in (("orig", (1, c)), ("u", (1,)), ("v", (c,)))}
        expected |= {f"conv.weight_{n}": s for n, s in (("orig", (1, c, 4, 4)), ("u", (1,)), ("v", (16 * c,)))}
        assert shapes == expected | {"conv1x1.weight": (c, 2 * c, 1, 1), "conv1x1.bias": (c,)}


def test_full_mode_of_ugatit_is_for_one_size(tmp_path):
    """The dense layer says how many pixels a map has, not how they lie."""
    options = {"generator_width": 1, "residual_blocks": 1, "discriminator_width": 1, "image_size": (16, 64)}
    model = UGATIT(ugatit_variant="pytorch", local_layers=3, global_layers=3, **options)
    model.build((None, None, None, 3))
    content = states(model, ugatit)
    shapes = {part: shapes_alone(state) for part, state in content.items()}
    assert ugatit.recognise({"x": shapes}).options["image_size"] == (32, 32)
    torch_files.save(tmp_path / "x.pt", content)
    refused(tmp_path / "x.pt", tmp_path, "maps of 64 pixels, .* give the --size=H,W", size=(16, 16))
    converted = quiet(tmp_path / "x.pt", tmp_path / "run", size=(16, 64))
    x = np.random.default_rng(0).uniform(-1, 1, (1, 16, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(converted.translate(x), model.translate(x), atol=1e-6)


@pytest.mark.parametrize("light", [True, False])
def test_checkpoints_of_tensorflow_1(light, tmp_path):
    """Names and shapes as the TensorFlow code gives them, with its optimizer's; no such file has been tried."""
    options = {"generator_width": 1, "residual_blocks": 4, "discriminator_width": 1}
    options |= {} if light else {"image_size": (16, 16)}
    model = UGATIT(ugatit_variant="tensorflow", light=light, local_layers=3, global_layers=4, **options)
    model.build((None, None, None, 3))
    scopes = {
        "genA2B": "generator_B", "genB2A": "generator_A", "disGA": "discriminator_A/global",
        "disGB": "discriminator_B/global", "disLA": "discriminator_A/local", "disLB": "discriminator_B/local",
    }  # fmt: skip
    layout = ugatit.layout(model, tensorflow=True)
    arrays = {f"{scopes[part]}/{k}": p.theirs() for part, places in layout.items() for k, p in places.items()}
    expected = {
        "generator_B/conv_1/conv2d/kernel": (3, 3, 2, 4), "generator_A/resblock_3/res2/instance_norm/gamma": (4,),
        "generator_B/CAM_logit/kernel": (4, 1), "generator_B/conv_1x1/conv2d/kernel": (1, 1, 8, 4),
        "generator_B/MLP/linear_0/dense/kernel": (4 if light else 64, 4), "generator_B/MLP/beta/dense/bias": (4,),
        "generator_B/adaptive_resblock0/res1/instance_layer_norm/rho": (4,), "generator_B/layer_ins_norm_1/rho": (1,),
        "generator_B/up_conv_0/conv2d/kernel": (3, 3, 4, 2), "generator_B/G_logit/conv2d/bias": (3,),
        "discriminator_A/global/conv_1/u": (1, 2), "discriminator_B/local/conv_last/kernel": (4, 4, 1, 2),
        "discriminator_A/local/CAM_logit/u": (1, 1), "discriminator_A/local/D_logit/bias": (1,),
    }  # fmt: skip
    assert {k: arrays[k].shape for k in expected} == expected
    generator = [k for k in arrays if k.startswith("generator_B/")]
    assert sum(arrays[k].size for k in generator) == model.generator_a2b.count_params()
    arrays |= {f"{k}/Adam": v * 0 for k, v in arrays.items()} | {"beta1_power": np.float32(0.5)}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        stored = [tf.compat.v1.Variable(v, name=k) for k, v in arrays.items()]
        session.run(tf.compat.v1.global_variables_initializer())
        for step in (100, 2000):
            tf.compat.v1.train.Saver(stored).save(session, str(tmp_path / "tf" / "UGATIT.model"), global_step=step)
    converted = quiet(tmp_path / "tf", tmp_path / "run")
    assert converted.checkpoint_step == 2000 and converted.run.model == model.config
    x = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(converted.translate(x), model.translate(x))
    named = {id(p.variable) for places in layout.values() for p in places.values()}
    for name, network in model.networks.items():
        for v, theirs in zip(network.variables, converted.networks[name].variables):
            assert v.name == "v" or id(v) in named
            if v.name != "v":
                np.testing.assert_array_equal(theirs, v)
    data = next((tmp_path / "tf").glob("*2000.data*"))
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(UserError, match="UGATIT.model-2000.index cannot be read as a checkpoint"):
        quiet(tmp_path / "tf" / "UGATIT.model-2000.index", tmp_path / "again")


CYCLEGANS = [
    {"generator": g, "norm": n} for g in ("resnet_6blocks", "resnet_9blocks", "unet_128", "unet_256")
    for n in ("instance", "batch", "none")
]  # fmt: skip
CYCLEGANS += [
    {"dropout": True, "norm": "batch"}, {"discriminator": "pixel"}, {"discriminator": "pixel", "norm": "batch"},
    {"discriminator_layers": 1}, {"discriminator_layers": 5}, {"channels_a": 1, "lambda_identity": 0.0},
]  # fmt: skip
UNITS = [
    {}, {"norm": "instance"}, {"shared_blocks": 0}, {"shared_blocks": 4}, {"discriminator": "shared"},
    {"discriminator": "multiscale", "discriminator_layers": 2}, {"channels_b": 1},
    {"unit_variant": "2018"}, {"unit_variant": "2018", "discriminator_layers": 2, "discriminator_scales": 1},
]  # fmt: skip


def shapes_alone(state):
    def unread():
        raise AssertionError("a configuration is told by names and shapes")

    return {k: torch_files.Tensor(tuple(v.shape), "<f4", unread, 0, ()) for k, v in state.items()}


UGATITS = [
    {"light": True}, {"image_size": (32, 32)}, {"light": True, "local_layers": 3, "residual_blocks": 0},
    {"light": True, "channels_b": 1, "lambda_identity": 0.0, "lambda_cam": 0.0},
]  # fmt: skip


@pytest.mark.parametrize(
    "method, options",
    [("cyclegan", o) for o in CYCLEGANS] + [("unit", o) for o in UNITS] + [("ugatit", o) for o in UGATITS],
)
def test_every_configuration_is_told_by_its_names_and_shapes(method, options):
    narrow = {"generator_width": 2, "discriminator_width": 3}
    if method == "ugatit":
        narrow |= {"ugatit_variant": "pytorch", "global_layers": 4}
    model = {"cyclegan": CycleGAN, "unit": UNIT, "ugatit": UGATIT}[method](**narrow | options)
    model.build((None, None, None, model.channels_a))
    module, content = MODULES[method], states(model, MODULES[method])
    if options.get("norm") == "instance" and method == "unit":
        content["gen"]["encode_A.1.model.1.running_mean"] = np.zeros(4, np.float32)
    made = {n.rsplit(".", 1)[0]: c for n, c in module.files_of(content).items()}
    files = {n: {k: shapes_alone(v) if isinstance(v, dict) else v for k, v in c.items()} for n, c in made.items()}
    files = {n: c if any(isinstance(v, dict) for v in c.values()) else shapes_alone(c) for n, c in files.items()}
    found = module.recognise(files)
    assert found.method == method and found.directions == ("a2b", "b2a")
    assert found.channels == (model.channels_a, model.channels_b)
    assert config.resolve(method, found.options).model == model.config
    layout = module.layout(model)
    assert {p: set(s) - {"encode_A.1.model.1.running_mean"} for p, s in found.states.items()} == {
        p: set(places) for p, places in layout.items()
    }
    variables = {id(v) for net in model.networks.values() for v in net.variables}
    assert {id(p.variable) for places in layout.values() for p in places.values()} == variables


# Run directories


def test_a_run_directory_describes_itself(tmp_path):
    quiet(CHECKPOINTS / "cyclegan_released.zip", tmp_path / "run", size=(128, 64))
    assert {p.name for p in tmp_path.iterdir()} == {"run"}
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"config.json", "flags.txt", "checkpoints"}
    origin = checkpoints.origin_of(tmp_path / "run")
    assert origin["source"] == "cyclegan_released.zip" and origin["directions"] == ["a2b"]
    assert origin["missing"] == ["generator_b2a", "discriminator_a", "discriminator_b"]
    assert len(origin["sha256"]["latest_net_G.pth"]) == 64
    command = [sys.executable, "-m", "tfi2i.train", f"--flagfile={tmp_path}/run/flags.txt", "--run_dir=x", "--dry_run"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    settings = checkpoints.read_config(tmp_path / "run")
    assert config.Run.from_json(shown) == settings
    assert settings.data.crop == (128, 64) and settings.model.generator_width == 1


def test_flags_of_a_variant_that_are_another_ones_defaults(tmp_path):
    """5 layers are the paper model's default and not that of 2018."""
    settings = config.resolve("unit", {"unit_variant": "2018", "discriminator_layers": 5})
    given = config.differing(settings)
    assert config.resolve("unit", given) == settings and given["discriminator_layers"] == 5


def test_a_single_generator_translates_one_way_only(tmp_path):
    run = tmp_path / "run"
    quiet(CHECKPOINTS / "cyclegan_released.zip", run, direction="b2a")
    model = tfi2i.load(run)
    assert model.directions == ("b2a",)
    picture = np.zeros((16, 16, 3), np.uint8)
    assert model.translate(picture, "b2a").shape == picture.shape
    for other in (lambda: model.translate(picture, "a2b"), lambda: model(np.zeros((1, 16, 16, 3), np.float32))):
        with pytest.raises(UserError, match="--direction=a2b: this model was converted .* b2a alone"):
            other()
    images.write_image(tmp_path / "in.png", picture)
    written, failed = translate_files(model, tmp_path / "in.png", tmp_path / "out.png", "b2a", active=False)
    assert written and not failed
    from tfi2i.export import export

    with pytest.raises(UserError, match="--direction=a2b: this model was converted"):
        export(model, tmp_path / "export", "a2b", size=(16, 16), data=config.Data(data="emoji"))
    report = export(
        model,
        tmp_path / "export",
        "b2a",
        ("saved_model", "float32"),
        size=(16, 16),
        data=config.Data(data="emoji"),
        verification_images=2,
        log=lambda _: None,
    )
    assert report["passed"]


TINY = {
    "data": "emoji", "generator": "resnet_6blocks", "generator_width": 1, "discriminator_width": 1,
    "discriminator_layers": 1, "resize": (18, 18), "crop": (16, 16), "precision": "float32", "pool_size": 0, "steps": 1,
}  # fmt: skip


def test_training_goes_on_from_both_generators_and_new_discriminators(tmp_path):
    model = small(discriminator_layers=1)
    for part in ("G_A", "G_B"):
        generator_file(tmp_path / f"latest_net_{part}.pth", model, part)
    quiet(tmp_path, tmp_path / "run")
    settings = config.resolve("cyclegan", {**TINY, "init_from": str(tmp_path / "run"), "learning_rate": 1e-9})
    trained = loop.train(settings, tmp_path / "tuned")
    for name in ("generator_a2b", "generator_b2a"):
        for ours, old in zip(trained.networks[name].weights, model.networks[name].weights, strict=True):
            np.testing.assert_allclose(ours, old, atol=1e-6)
    np.testing.assert_array_less(0, np.abs(trained.discriminator_a.first.kernel).max())


def test_a_single_generator_refuses_training(tmp_path):
    quiet(generator_file(tmp_path / "photo.pth"), tmp_path / "run")
    settings = config.resolve("cyclegan", {**TINY, "init_from": str(tmp_path / "run")})
    with pytest.raises(UserError, match="photo.pth, which holds the generator a2b alone: training needs both"):
        loop.train(settings, tmp_path / "tuned")


def test_a_converted_run_is_not_resumed(tmp_path):
    quiet(generator_file(tmp_path / "photo.pth"), tmp_path / "run")
    with pytest.raises(UserError, match="converted from photo.pth .* --init_from="):
        loop.train(config.resolve("cyclegan", TINY), tmp_path / "run")


# What files come as


def test_prefixes_of_data_parallel_are_taken_off(tmp_path):
    model = small()
    path = generator_file(tmp_path / "x.pth", model, change=lambda s: {f"module.{k}": v for k, v in s.items()})
    converted = quiet(path, tmp_path / "run")
    for ours, old in zip(converted.generator_a2b.weights, model.generator_a2b.weights, strict=True):
        np.testing.assert_array_equal(ours, old)


def test_statistics_say_nothing_about_instance_norm(tmp_path):
    """Of any block, with the counter that PyTorch 0.4.1 added."""
    extra = {f"model.{i}.{n}": np.ones(1, np.float32) for i in (2, 5) for n in ("running_mean", "running_var")}
    path = generator_file(tmp_path / "x.pth", change=lambda s: s | extra | {"model.2.num_batches_tracked": np.int64(3)})
    said = []
    model = convert.convert(path, tmp_path / "run", log=said.append)
    assert model.run.model.norm == "instance" and "left out: 5 statistics" in "\n".join(said)


def test_what_is_found_and_what_is_not_known_is_said(tmp_path):
    said = []
    convert.convert(generator_file(tmp_path / "cat.pth"), tmp_path / "run", log=said.append)
    text = "\n".join(said)
    assert "--generator=resnet_6blocks --generator_width=1 --norm=instance" in text
    assert "not there: generator_b2a, discriminator_a, discriminator_b" in text
    assert "translates and exports a2b only" in text
    assert "not known: which way it translates" in text and "not known: the size of the pictures" in text


def test_the_norm_of_a_paper_model_without_statistics_is_asked_for(tmp_path):
    model = UNIT(generator_width=1)
    model.build((None, None, None, 3))
    torch_files.save(tmp_path / "x.pkl", states(model, unit)["gen"])
    said = []
    first = convert.convert(tmp_path / "x.pkl", tmp_path / "run", log=said.append)
    assert first.run.model.norm == "none" and "if pictures look wrong, --norm=instance" in "\n".join(said)
    assert quiet(tmp_path / "x.pkl", tmp_path / "again", norm="instance").run.model.norm == "instance"
    with pytest.raises(UserError, match="statistics that say --norm=instance"):
        quiet(CHECKPOINTS / "unit_COCOResGen.zip", tmp_path / "other", norm="none")


@pytest.mark.parametrize("epoch, expected", [(None, 3), ("20", 2), ("iter_900", 4)])
def test_the_latest_of_several_epochs(epoch, expected, tmp_path):
    for i, name in enumerate(("5", "20", "latest", "iter_900"), 1):
        fixed = {"model.1.bias": np.full(1, i, np.float32)}
        generator_file(tmp_path / f"{name}_net_G_A.pth", change=lambda s, f=fixed: s | f)
    (tmp_path / "optimizer.pth").write_bytes(b"not looked at")
    said = []
    model = convert.convert(tmp_path, tmp_path / "run", epoch=epoch, log=said.append)
    assert model.generator_a2b.head.bias.numpy() == [expected]
    assert f"epoch {epoch or 'latest'}, --epoch takes another (" in said[0]


def test_without_a_latest_the_last_epoch(tmp_path):
    for step in (100, 20000, 3000):
        generator_file(tmp_path / f"{step}_net_G_A.pth")
    files, _, note = sources.read(tmp_path)
    assert list(files) == ["20000_net_G_A"] and "epoch 20000" in note
    with pytest.raises(UserError, match="--epoch=7: .* has 100, 3000, 20000"):
        sources.read(tmp_path, "7")


# What is refused


def refused(source, tmp_path, message, **kwargs):
    before = {p for p in tmp_path.rglob("*")}
    with pytest.raises(UserError, match=message):
        quiet(source, tmp_path / "run", **kwargs)
    assert {p for p in tmp_path.rglob("*")} == before


def test_broken_numbers(tmp_path):
    for value in (np.nan, np.inf):
        bad = {"model.4.weight": np.full((2, 1, 3, 3), value, np.float32)}
        path = generator_file(tmp_path / "x.pth", change=lambda s, b=bad: s | b)
        refused(path, tmp_path, "G_A: model.4.weight holds numbers that are not finite")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: {k: v for k, v in s.items() if k != "model.7.bias"}, r"lacks 1 arrays \(model.7.bias, …\)"),
        (lambda s: s | {"model.99.weight": np.zeros((1, 1, 3, 3), np.float32)}, "1 that do not belong there"),
        (lambda s: s | {"model.7.weight": np.zeros((9, 2, 3, 3), np.float32)}, r"is \(9, 2, 3, 3\), expected"),
        (lambda s: s | {"model.1.weight": np.zeros((10**4, 3, 7, 7), np.float32)}, r"model.10.conv_block.1"),
        (lambda s: {k: v for k, v in s.items() if ".15." not in k}, "5 residual blocks, expected 6 or 9"),
        (lambda s: s | {"model.2.weight": np.ones(1, np.float32)}, "learned scales beside"),
        (lambda s: {k.replace("block.1", "block.0"): v for k, v in s.items()}, "padded with zeros"),
        (lambda s: {f"other.{k}": v for k, v in s.items()}, "no checkpoint that is known: .* other.model.1.weight"),
    ],
)
def test_other_networks(change, message, tmp_path):
    path = generator_file(tmp_path / "x.pth", change=change)
    refused(path, tmp_path, message)


def test_sources_that_are_nothing(tmp_path):
    refused(tmp_path / "nowhere", tmp_path, "--source=.*nowhere does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path, "holds nothing named as checkpoints are .it has no .pth")
    (tmp_path / "text.pth").write_text("hello")
    refused(tmp_path / "text.pth", tmp_path, "text.pth is not a file of torch.save")
    whole = generator_file(tmp_path / "x.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[:-1000])
    refused(tmp_path / "cut.pth", tmp_path, "cut.pth cannot be read")
    judge = generator_file(tmp_path / "latest_net_D_A.pth", part="D_A")
    refused(judge, tmp_path, "discriminators alone, nothing that translates")
    refused(generator_file(tmp_path / "x.pth"), tmp_path, "--method=unit, but .* of cyclegan", method="unit")
    refused(CHECKPOINTS / "cyclegan_batch.zip", tmp_path, "translates a2b and b2a, by its files", direction="a2b")
    torch_files.save(tmp_path / "munit.pt", {d: {"enc_style.x": np.zeros(1, np.float32)} for d in "ab"})
    refused(tmp_path / "munit.pt", tmp_path, "a generator of MUNIT")


def test_folders_that_only_look_like_checkpoints_of_tensorflow(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    refused(tmp_path / "saved", tmp_path, "is a SavedModel without .*variables.index: give the folder with all")
    (tmp_path / "x.index").mkdir()
    refused(tmp_path / "x.index", tmp_path, "x.index holds nothing named as checkpoints are")
    (tmp_path / "around").mkdir()
    (tmp_path / "x.index").rename(tmp_path / "around" / "x.index")
    refused(tmp_path / "around", tmp_path, "around holds nothing named as checkpoints are")


@pytest.mark.parametrize("levels", [0, 10**4])
def test_a_file_that_holds_itself_or_a_deep_nest(levels, tmp_path):
    start, end = b"\x80\x02" + b"}U\x05inner" * levels, b"s" * levels + b"."
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", start + b"}q\x00U\x05innerh\x00s" + end)
        archive.writestr("x/version", "3")
    refused(tmp_path / "x.pth", tmp_path, "no checkpoint that is known: it holds something with inner")


def test_the_current_folder_is_refused_before_the_work(tmp_path, monkeypatch):
    source = generator_file(tmp_path / "x.pth")
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.setattr(sources, "read", None)
    with pytest.raises(UserError, match="--run_dir=. is the folder that you are in"):
        quiet(source, ".")


def test_a_folder_that_is_taken(tmp_path):
    source = generator_file(tmp_path / "x.pth")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    refused(source, tmp_path, "--run_dir=.* is there already")
    (tmp_path / "run" / "mine.txt").unlink()
    (tmp_path / "run.tmp").mkdir()
    (tmp_path / "run.tmp" / "mine.txt").write_text("keep")
    assert quiet(source, tmp_path / "run").directions == ("a2b",)
    assert (tmp_path / "run.tmp" / "mine.txt").is_file()


def test_a_folder_that_is_taken_meanwhile(tmp_path, monkeypatch):
    def disturb(*_):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "mine.txt").write_text("keep")
        return ""

    source = generator_file(tmp_path / "x.pth")
    monkeypatch.setattr(config, "flags_text", disturb)
    with pytest.raises(UserError, match="--run_dir=.*run cannot be written: .*not empty"):
        quiet(source, tmp_path / "run")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "x.pth"]
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_networks_of_different_models(tmp_path):
    generator_file(tmp_path / "latest_net_G_A.pth")
    generator_file(tmp_path / "latest_net_G_B.pth", small(generator_width=2), "G_B")
    refused(tmp_path, tmp_path, "G_A has --generator_width=1, but the others 2")


def test_hostile_archives(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../latest_net_G.pth", b"")
    refused(path, tmp_path, r"its member '../latest_net_G.pth' points outside of the archive")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/latest_net_G.pth", bytes(10**7))
    refused(path, tmp_path, r"'m/latest_net_G.pth' unpacks \d+ to 10000000 bytes")
    damaged = bytearray((CHECKPOINTS / "cyclegan_released.zip").read_bytes())
    damaged[2000] ^= 255
    path.write_bytes(damaged)
    refused(path, tmp_path, "x.zip: its member .* cannot be read|latest_net_G.pth cannot be read")


def test_fill_gives_nothing_when_something_is_wrong():
    v = tf.Variable([1.0])
    state = {"a": torch_files.Tensor((1,), "<f4", lambda: np.float32([np.nan]).tobytes(), 0, (1,))}
    with pytest.raises(UserError, match="not finite"):
        fill({"a": Place(v)}, state, "G_A")
    assert v.numpy() == [1]


# And back


@pytest.mark.parametrize(
    "name",
    [
        "cyclegan_batch",
        "cyclegan_dropout",
        "cyclegan_unet",
        "unit_2018",
        "unit_COCOResGen",
        "ugatit_full",
        "ugatit_light",
    ],
)
def test_round_trip_is_exact(name, tmp_path):
    run = tmp_path / "run"
    quiet(CHECKPOINTS / f"{name}.zip", run)
    paths = convert.export(run, tmp_path / "back", log=lambda _: None)
    for path in paths:
        assert torch_files.load(open(path, "rb"), path.name)
    extra = {"norm": "instance"} if name == "unit_COCOResGen" else {}
    again = quiet(tmp_path / "back", tmp_path / "again", **extra)
    first = tfi2i.load(run)
    missing = checkpoints.origin_of(run)["missing"]
    assert checkpoints.origin_of(tmp_path / "again")["missing"] == missing
    for n in first.networks.keys() - set(missing):
        for ours, old in zip(again.networks[n].weights, first.networks[n].weights, strict=True):
            np.testing.assert_array_equal(ours, old)
    convert.export(tmp_path / "again", tmp_path / "twice", log=lambda _: None)
    for path in paths:
        assert (tmp_path / "twice" / path.name).read_bytes() == path.read_bytes()


def test_export_of_one_generator(tmp_path):
    quiet(CHECKPOINTS / "cyclegan_batch.zip", tmp_path / "run")
    (path,) = convert.export(tmp_path / "run", tmp_path / "out", direction="b2a", log=lambda _: None)
    assert path.name == "latest_net_G_B.pth"
    with pytest.raises(UserError, match="has latest_net_G_B.pth already"):
        convert.export(tmp_path / "run", tmp_path / "out", direction="b2a")


def test_an_export_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    run, settings = tmp_path / "run", config.resolve("cyclegan", TINY)
    checkpoints.save(run, checkpoints.build(settings), 0, 1)
    (run / "config.json").write_text(settings.to_json())

    def breaking(function, stop):
        calls = itertools.count()

        def second(path, *args):
            if next(calls):
                path.touch()
                raise stop
            return function(path, *args)

        return second

    for owner, name in ((torch_files, "save"), (pathlib.Path, "replace")):
        for stop, expected in ((OSError(28, "disk is full"), UserError), (KeyboardInterrupt(), KeyboardInterrupt)):
            with monkeypatch.context() as patch, pytest.raises(expected):
                patch.setattr(owner, name, breaking(getattr(owner, name), stop))
                convert.export(run, tmp_path / "out", log=lambda _: None)
            assert not list((tmp_path / "out").iterdir())
    assert len(convert.export(run, tmp_path / "out", log=lambda _: None)) == 4


def test_export_of_what_the_official_code_has_not(tmp_path):
    resized = {**TINY, "upsample": "resize_conv"}
    wide = {"generator_width": 1, "residual_width": 8, "discriminator_width": 1}
    for method, options, message in (
        ("cyclegan", resized, "--upsample=resize_conv is not in the published code"),
        ("cyclegan", {**TINY, "cyclegan_variant": "tensorflow"}, "--cyclegan_variant=tensorflow is not in the publi"),
        ("unit", wide, "the official code has no such encoder_a, encoder_b"),
    ):
        run, settings = tmp_path / method, config.resolve(method, options)
        checkpoints.save(run, checkpoints.build(settings), 0, 1)
        (run / "config.json").write_text(settings.to_json())
        with pytest.raises(UserError, match=message):
            convert.export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path):
    def call(*arguments):
        command = [sys.executable, "-m", "tfi2i.convert", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        return done.returncode, done.stdout, done.stderr

    run, out = tmp_path / "run", tmp_path / "out"
    code, said, _ = call(f"--source={CHECKPOINTS}/cyclegan_released.zip", f"--run_dir={run}", "--size=64")
    assert code == 0 and "found: --generator=resnet_9blocks" in said and f"written to {run}" in said
    assert json.loads((run / "config.json").read_text())["data"]["crop"] == [64, 64]
    assert call("--export=pytorch", f"--run_dir={run}", f"--output={out}")[0] == 0
    assert (out / "latest_net_G_A.pth").is_file()
    code, _, error = call("--export=pytorch", f"--run_dir={run}", "--source=x", "--output=y")
    assert code == 1 and error == "error: --source goes without --export\n"


# UVCGAN: names against what the official code's golden files have

UVCGANS = [
    (UVCGAN2, {}), (UVCGAN2, {"discriminator_head": "bn"}), (UVCGAN, {}),
    (UVCGAN2, {"generator_levels": 3, "discriminator_layers": 2}),
    (UVCGAN2, {"channels_a": 1, "lambda_identity": 0.0, "lambda_consistency": 0.0}),
]  # fmt: skip
SMALL_UVCGAN = {
    "generator_width": 2, "vit_width": 12, "vit_blocks": 2, "vit_ffn_width": 20, "discriminator_width": 2,
}  # fmt: skip


def uvcgan_run(folder, kind, **options):
    """A run directory with random weights, averages other than the generators."""
    settings = config.resolve(kind, {**SMALL_UVCGAN, "crop": (32, 32), **options})
    model = checkpoints.build(settings)
    for i, v in enumerate(v for network in model.networks.values() for v in network.variables):
        v.assign(np.random.default_rng(i).normal(0, 0.1, v.shape).astype(np.float32))
    checkpoints.save(folder, model, 7, 1)
    (folder / "config.json").write_text(settings.to_json())
    return model


@pytest.mark.parametrize("kind, options", UVCGANS)
def test_every_uvcgan_is_told_by_its_names_and_shapes(kind, options):
    model = kind(**SMALL_UVCGAN | options)
    model.build((None, None, None, model.channels_a))
    content = states(model, uvcgan2)
    found = uvcgan2.recognise({f"net_{part}": shapes_alone(state) for part, state in content.items()})
    assert config.resolve(found.method, found.options).model == model.config
    assert found.channels == (model.channels_a, model.channels_b) and not found.facts
    assert {p: set(s) for p, s in found.states.items()} == {p: set(s) for p, s in content.items()}
    named = {id(p.variable) for places in uvcgan2.layout(model).values() for p in places.values()}
    assert named == {id(v) for network in model.networks.values() for v in network.variables}


@pytest.mark.parametrize("kind", ["uvcgan2", "uvcgan"])
def test_round_trip_of_uvcgan_is_exact(kind, tmp_path):
    model = uvcgan_run(tmp_path / "run", kind)
    paths = convert.export(tmp_path / "run", tmp_path / "out", log=lambda _: None)
    averages = ["avg_gen_ab", "avg_gen_ba"] if kind == "uvcgan2" else []
    parts = ["gen_ab", "gen_ba", *averages, "disc_a", "disc_b"]
    assert sorted(p.name for p in paths) == sorted(f"net_{part}.pth" for part in parts)
    again = quiet(tmp_path / "out", tmp_path / "again")
    assert again.run.method == kind
    for name, network in model.networks.items():
        for ours, old in zip(again.networks[name].variables, network.variables, strict=True):
            np.testing.assert_array_equal(ours, old)


def test_an_average_alone_translates_with_itself(tmp_path):
    """As the mirrored file of CelebA-HQ; without discriminators and the other direction."""
    model = uvcgan_run(tmp_path / "run", "uvcgan2")
    convert.export(tmp_path / "run", tmp_path / "out", log=lambda _: None)
    (tmp_path / "out" / "net_avg_gen_ba.pth").rename(tmp_path / "celeba_hq_gen_m2f_avg.pt")
    said = []
    alone = convert.convert(tmp_path / "celeba_hq_gen_m2f_avg.pt", tmp_path / "alone", direction="b2a", log=said.append)
    assert alone.directions == ("b2a",)
    x = np.random.default_rng(0).uniform(0, 1, (1, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(alone.translate(x, "b2a"), model.translate(x, "b2a"))
    assert "avg_gen_ba is not there: it starts as gen_ba" in "\n".join(said)
    for name in ("gen_ab", "gen_ba", "disc_a", "disc_b"):
        (tmp_path / "out" / f"net_{name}.pth").unlink()
    averaged = quiet(tmp_path / "out", tmp_path / "averaged")
    np.testing.assert_array_equal(averaged.translate(x), model.translate(x))


@pytest.mark.parametrize("part", ["modnet", "unet"])
def test_official_generators_of_uvcgan(part):
    golden = np.load(CHECKPOINTS.parent / f"uvcgan2_generator_{part}.npz")
    modulated = part == "modnet"
    network = methods_uvcgan2.Generator(3, 1, 4, "none" if modulated else "instance", modulated, (8, 2, 2, 12))
    network.build((None, None, None, 3))
    places = uvcgan2.generator(network)
    names = {n.removeprefix("weights/") for n in golden.files if n.startswith("weights/")}
    assert {n for n in names - set(places)} == {n for n in names if n.endswith(("x_const", "y_const"))}
    for key, place in places.items():
        assert place.shape == golden[f"weights/{key}"].shape
        place.variable.assign(place.ours(golden[f"weights/{key}"]))
    output = network(tf.constant(golden["input/32"]))
    np.testing.assert_allclose(output[:, ::3, ::3], golden["output/32"], atol=1e-5)


@pytest.mark.parametrize("kind", ["bsd", "bn", "v1"])
def test_official_discriminators_of_uvcgan(kind):
    golden = np.load(CHECKPOINTS.parent / "uvcgan2_discriminator.npz")
    options = {"spectral_norm": False, "discriminator_head": "none"} if kind == "v1" else {"discriminator_head": kind}
    model = UVCGAN2(**SMALL_UVCGAN | options)
    model.build((None, None, None, 3))
    prefix = f"weights/{kind}/"
    stored = [n for n in golden.files if n.startswith(prefix)]
    names = {n.removeprefix(prefix).replace("shrink_conv", "model.11"): n for n in stored}
    places = uvcgan2.discriminator(model.discriminator_a)
    assert {n for n in set(names) ^ set(places) if "running" not in n and "num_batches" not in n} == set()
    for name in set(places) & set(names):
        assert places[name].shape == golden[names[name]].shape, name
