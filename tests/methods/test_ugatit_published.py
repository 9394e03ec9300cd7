"""U-GAT-IT's published checkpoints: what the official code computed with them, their names, and writing them."""

import numpy as np
import pytest
import tensorflow as tf

from tests.drawing import nothing_drawn
from tests.marks import thorough
from tests.published import (
    CHECKPOINTS,
    built,
    check_told_by_names_and_shapes,
    check_written_is_official,
    converted,
    refused,
    shapes_alone,
    states,
    translated,
)
from tfi2i import settings
from tfi2i.conversion import torch_files
from tfi2i.methods.ugatit import published
from tfi2i.methods.ugatit.model import UGATIT

# What the official code computed


@pytest.mark.parametrize("mode", ["full", "light"])
def test_the_official_code(mode, official):
    golden = np.load(CHECKPOINTS / "ugatit.npz")
    model, _ = official(f"ugatit_{mode}")
    c = model.run.model
    assert (c.ugatit_variant, c.light, c.residual_blocks, model.checkpoint_step) == ("pytorch", mode == "light", 1, 500)
    assert model.sizes.fixed == (None if c.light else (16, 16))
    for name, direction in (("genA2B", "a2b"), ("genB2A", "b2a")):
        y = translated(model, golden[direction[0].upper()], direction)
        np.testing.assert_allclose(y, golden[f"{mode}/{name}"], atol=1e-4)
    if mode == "full":
        assert model.run.data.crop == (16, 16) and (c.local_layers, c.global_layers) == (3, 4)
        for name, network in (("disGA", model.discriminator_a_global), ("disLB", model.discriminator_b_local)):
            judged = network(golden[name[4]])[0]
            np.testing.assert_allclose(judged, golden[f"full/{name}"], atol=1e-4)


@pytest.mark.parametrize("mode", ["full", "light"])
def test_what_is_written_is_official(mode, official, tmp_path):
    _, run = official(f"ugatit_{mode}")
    check_written_is_official(run, f"ugatit_{mode}", published, tmp_path / "out")


# Names and shapes


@nothing_drawn()
def test_full_width():
    model = UGATIT(ugatit_variant="pytorch", light=True)
    for network in (model.generator_a2b, model.discriminator_a_global, model.discriminator_a_local):
        network.build((None, None, None, 3))
    gen, dis, local = (
        {k: p.shape for k, p in places.items()}
        for places in (
            published.generator(model.generator_a2b),
            published.discriminator(model.discriminator_a_global),
            published.discriminator(model.discriminator_a_local),
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


CONFIGURATIONS = [
    {"light": True}, {"image_size": (32, 32)}, {"light": True, "local_layers": 3, "residual_blocks": 0},
    {"light": True, "channels_b": 1, "lambda_identity": 0.0, "lambda_cam": 0.0},
]  # fmt: skip


@pytest.mark.parametrize("options", CONFIGURATIONS)
@nothing_drawn()
def test_every_configuration_is_told_by_its_names_and_shapes(options):
    narrow = {"ugatit_variant": "pytorch", "generator_width": 2, "discriminator_width": 3, "global_layers": 4}
    model = built(UGATIT, **narrow | options)
    files = {n.removesuffix(".pt"): parts for n, parts in published.files_of(states(model, published)).items()}
    told = check_told_by_names_and_shapes(model, published, files)
    assert settings.resolve("ugatit", told.options).model == model.config


def test_full_mode_is_for_one_size(tmp_path):
    """The dense layer says how many pixels a map has, not how they lie."""
    options = {"generator_width": 1, "residual_blocks": 1, "discriminator_width": 1, "image_size": (16, 64)}
    model = built(UGATIT, ugatit_variant="pytorch", local_layers=3, global_layers=3, **options)
    content = states(model, published)
    shapes = {part: shapes_alone(state) for part, state in content.items()}
    assert published.recognise({"x": shapes}, {}).options["image_size"] == (32, 32)
    torch_files.save(tmp_path / "x.pt", content)
    refused(tmp_path / "x.pt", tmp_path, "maps of 64 pixels, .* give the --size=H,W", size=(16, 16))
    again = converted(tmp_path / "x.pt", tmp_path / "run", size=(16, 64))
    x = np.random.default_rng(0).uniform(-1, 1, (1, 16, 64, 3)).astype(np.float32)
    np.testing.assert_array_equal(translated(again, x), translated(model, x))


@pytest.mark.parametrize("light", [True, thorough(False)])
def test_checkpoints_of_tensorflow_1(light, tmp_path):
    """Names and shapes as the TensorFlow code gives them, with its optimizer's; no such file has been tried."""
    options = {"generator_width": 1, "residual_blocks": 4, "discriminator_width": 1}
    options |= {} if light else {"image_size": (16, 16)}
    model = built(UGATIT, ugatit_variant="tensorflow", light=light, local_layers=3, global_layers=4, **options)
    scopes = {
        "genA2B": "generator_B", "genB2A": "generator_A", "disGA": "discriminator_A/global",
        "disGB": "discriminator_B/global", "disLA": "discriminator_A/local", "disLB": "discriminator_B/local",
    }  # fmt: skip
    layout = published.layout(model, tensorflow=True)
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
    again = converted(tmp_path / "tf", tmp_path / "run")
    assert again.checkpoint_step == 2000 and again.run.model == model.config
    x = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(translated(again, x), translated(model, x))
    named = {id(p.variable) for places in layout.values() for p in places.values()}
    for name, network in model.networks.items():
        for v, theirs in zip(network.variables, again.networks[name].variables):
            assert v.name == "v" or id(v) in named
            if v.name != "v":
                np.testing.assert_array_equal(theirs, v)
    data = next((tmp_path / "tf").glob("*2000.data*"))
    data.write_bytes(data.read_bytes()[:100])
    index = tmp_path / "tf" / "UGATIT.model-2000.index"
    refused(index, tmp_path / "tf", "UGATIT.model-2000.index cannot be read as a checkpoint")
