"""CycleGAN's published checkpoints: what the official code computed with them, their names, and writing them."""

import numpy as np
import pytest

from tests.drawing import nothing_drawn
from tests.published import (
    CHECKPOINTS,
    built,
    check_told_by_names_and_shapes,
    check_written_is_official,
    converted,
    refused,
    sparse,
    states,
    translated,
    unpacked,
)
from tfi2i import settings
from tfi2i.conversion import torch_files
from tfi2i.methods.cyclegan import published
from tfi2i.methods.cyclegan.model import CycleGAN

# What the official code computed


@pytest.mark.parametrize("name, direction", [("released", "a2b"), ("dropout", "b2a"), ("unet", "a2b")])
def test_single_generators_of_the_official_code(name, direction, official):
    golden = np.load(CHECKPOINTS / "cyclegan.npz")
    model, _ = official(f"cyclegan_{name}")
    x = golden["input/unet" if name == "unet" else "input"]
    np.testing.assert_allclose(sparse(translated(model, x, direction)), golden[f"output/{name}"], atol=1e-4)
    assert model.directions == (direction,)
    expected = {"released": "resnet_9blocks", "dropout": "resnet_6blocks", "unet": "unet_128"}[name]
    c = model.run.model
    assert (c.generator, c.norm, c.dropout) == (expected, "instance", name == "dropout")


def test_whole_models_of_the_official_code(official):
    golden = np.load(CHECKPOINTS / "cyclegan.npz")
    model, _ = official("cyclegan_batch")
    networks = {
        "G_A": model.generator_a2b, "G_B": model.generator_b2a,
        "D_A": model.discriminator_b, "D_B": model.discriminator_a,
    }  # fmt: skip
    for part, network in networks.items():
        np.testing.assert_allclose(sparse(network(golden["input"])), golden[f"output/{part}"], atol=1e-4, err_msg=part)
    assert model.run.model.norm == "batch"


def test_a_folder_is_read_as_its_archive(official, tmp_path):
    model = converted(unpacked("cyclegan_batch.zip", tmp_path), tmp_path / "run")
    first, _ = official("cyclegan_batch")
    for name, network in model.networks.items():
        for ours, same in zip(network.weights, first.networks[name].weights, strict=True):
            np.testing.assert_array_equal(ours, same)


@pytest.mark.parametrize("name, direction", [("batch", None), ("dropout", "b2a"), ("unet", "a2b")])
def test_what_is_written_is_official(name, direction, official, tmp_path):
    _, run = official(f"cyclegan_{name}")
    check_written_is_official(run, f"cyclegan_{name}", published, tmp_path / "out", direction=direction)


# Names and shapes


@nothing_drawn()
def test_full_width():
    model = built(CycleGAN)
    shapes = {part: {k: p.shape for k, p in places.items()} for part, places in published.layout(model).items()}
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


CONFIGURATIONS = [
    *({"generator": g, "norm": n} for g in ("resnet_6blocks", "unet_128") for n in ("instance", "batch", "none")),
    {"generator": "resnet_9blocks"}, {"generator": "unet_256"}, {"residual_blocks": 2},
    {"dropout": True, "norm": "batch"}, {"discriminator": "pixel"}, {"discriminator": "pixel", "norm": "batch"},
    {"discriminator_layers": 1}, {"discriminator_layers": 5}, {"channels_a": 1, "lambda_identity": 0.0},
]  # fmt: skip


@pytest.mark.parametrize("options", CONFIGURATIONS)
@nothing_drawn()
def test_every_configuration_is_told_by_its_names_and_shapes(options):
    model = built(CycleGAN, **{"generator_width": 2, "discriminator_width": 3, "residual_blocks": 1} | usual(options))
    files = {n.removesuffix(".pth"): state for n, state in published.files_of(states(model, published)).items()}
    told = check_told_by_names_and_shapes(model, published, files)
    assert settings.resolve("cyclegan", told.options).model == model.config


def usual(options):
    """With as many residual blocks as the generator has by its name."""
    return options if "generator" not in options else {"residual_blocks": None} | options


# What else is in files, and what is missing


def small(**options):
    return built(CycleGAN, **{"generator_width": 1, "discriminator_width": 1, "residual_blocks": 1} | options)


def generator_file(path, model=None, part="G_A", change=lambda state: state):
    """Writes one network of a small model, or of `model`, as the official code would."""
    torch_files.save(path, change(states(model or small(), published)[part]))
    return path


def test_statistics_say_nothing_about_instance_norm(tmp_path):
    """Of any block, with the counter that PyTorch 0.4.1 added."""
    extra = {f"model.{i}.{n}": np.ones(1, np.float32) for i in (2, 5) for n in ("running_mean", "running_var")}
    path = generator_file(tmp_path / "x.pth", change=lambda s: s | extra | {"model.2.num_batches_tracked": np.int64(3)})
    said = []
    model = converted(path, tmp_path / "run", log=said.append)
    assert model.run.model.norm == "instance" and "left out: 5 statistics" in "\n".join(said)


def test_what_is_found_and_what_is_not_known_is_said(tmp_path):
    said = []
    converted(generator_file(tmp_path / "cat.pth"), tmp_path / "run", log=said.append)
    text = "\n".join(said)
    assert "--generator=resnet_9blocks --residual_blocks=1 --generator_width=1 --norm=instance" in text
    assert "not there: generator_b2a, discriminator_a, discriminator_b" in text
    assert "translates and exports a2b only" in text
    assert "not known: which way it translates" in text and "not known: the size of the pictures" in text


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: {k: v for k, v in s.items() if k != "model.7.bias"}, r"lacks 1 arrays \(model.7.bias, …\)"),
        (lambda s: s | {"model.99.weight": np.zeros((1, 1, 3, 3), np.float32)}, "1 that do not belong there"),
        (lambda s: s | {"model.7.weight": np.zeros((9, 2, 3, 3), np.float32)}, r"is \(9, 2, 3, 3\), expected"),
        (lambda s: s | {"model.1.weight": np.zeros((10**4, 3, 7, 7), np.float32)}, r"model.10.conv_block.1"),
        (lambda s: {k: v for k, v in s.items() if ".10." not in k}, "model.10.conv_block.1.weight is missing"),
        (lambda s: s | {"model.2.weight": np.ones(1, np.float32)}, "learned scales beside"),
        (lambda s: {k.replace("block.1", "block.0"): v for k, v in s.items()}, "padded with zeros"),
        (lambda s: {f"other.{k}": v for k, v in s.items()}, "no checkpoint that is known: .* other.model.1.weight"),
    ],
)
def test_other_networks(change, message, tmp_path):
    path = generator_file(tmp_path / "x.pth", change=change)
    refused(path, tmp_path, message)


def test_networks_of_different_models(tmp_path):
    generator_file(tmp_path / "latest_net_G_A.pth")
    generator_file(tmp_path / "latest_net_G_B.pth", small(generator_width=2), "G_B")
    refused(tmp_path, tmp_path, "G_A has --generator_width=1, but the others 2")
