"""pix2pix' published checkpoints: what the official code computed with them, their names, and writing them."""

import numpy as np
import pytest

from tests.drawing import nothing_drawn
from tests.methods.test_pix2pix import masked
from tests.published import (
    CHECKPOINTS,
    built,
    check_written_is_official,
    converted,
    refused,
    shapes_alone,
    sparse,
    states,
    translated,
    unpacked,
)
from tfi2i import checkpoints, layers, settings
from tfi2i.conversion import torch_files
from tfi2i.methods.cyclegan.model import CycleGAN
from tfi2i.methods.pix2pix import published
from tfi2i.methods.pix2pix.model import Pix2Pix

GOLDEN = np.load(CHECKPOINTS / "pix2pix.npz")


def test_a_whole_model_of_the_official_code(official, monkeypatch):
    model, run = official("pix2pix_whole")
    x = GOLDEN["128"]
    judged = np.concatenate([x, x[::-1]], axis=-1)
    np.testing.assert_allclose(sparse(model.discriminators[0](judged)), GOLDEN["whole/D"], atol=1e-4)
    monkeypatch.setattr(layers.Dropout, "call", masked)
    np.testing.assert_allclose(sparse(translated(model, x)), GOLDEN["whole/G"], atol=1e-4)
    assert (model.config.generator, model.config.norm, model.directions) == ("unet_128", "batch", ("a2b",))
    # It may be trained on, unlike CycleGAN's generator alone.
    fresh = checkpoints.build(model.run, "float32")
    checkpoints.initialise(fresh, run)
    np.testing.assert_array_equal(fresh.generator.outermost.down.kernel, model.generator.outermost.down.kernel)


def test_what_no_file_says_can_be_told(tmp_path):
    """As the code's --eval tests; and which way, which channels follow."""
    source, said = CHECKPOINTS / "pix2pix_whole.zip", []
    model = converted(source, tmp_path / "run", dropout=False, test_norm="average", direction="b2a", log=said.append)
    np.testing.assert_allclose(sparse(translated(model, GOLDEN["128"], "b2a")), GOLDEN["whole/average"], atol=1e-4)
    assert model.directions == ("b2a",) and [*model.networks] == ["generator_b2a", "discriminator_a"]
    text = "\n".join(said)
    assert "which way it translates" in text and "dropout" not in text.partition("not known")[2]
    assert "training needs both" not in text


def test_single_generators_of_the_official_code(official, monkeypatch):
    said = []
    model, _ = official("pix2pix_unet256", log=said.append)
    assert "not there: discriminator_b; --init_from starts them anew" in "\n".join(said)
    assert "not known: whether it was trained with dropout" in "\n".join(said)
    monkeypatch.setattr(model, "config", settings.resolve("pix2pix", {"dropout": False}).model)
    np.testing.assert_allclose(sparse(translated(model, GOLDEN["256"])), GOLDEN["unet256/G"], atol=1e-4)


def test_a_resnet_alone_is_cyclegans_unless_it_is_told(tmp_path, monkeypatch):
    source = CHECKPOINTS / "pix2pix_resnet.zip"
    assert converted(source, tmp_path / "cyclegan").run.method == "cyclegan"
    model = converted(source, tmp_path / "run", method="pix2pix")
    assert model.config.generator == "resnet_6blocks" and model.config.dropout
    monkeypatch.setattr(layers.Dropout, "call", masked)
    x = GOLDEN["128"][:, :32, :32]
    np.testing.assert_allclose(sparse(translated(model, x)), GOLDEN["resnet/G"], atol=1e-4)
    assert converted(CHECKPOINTS / "pix2pix_whole.zip", tmp_path / "unet", method="cyclegan").run.method == "cyclegan"


@pytest.mark.parametrize("name", ["whole", "unet256"])
def test_what_is_written_is_official(name, official, tmp_path):
    _, run = official(f"pix2pix_{name}")
    check_written_is_official(run, f"pix2pix_{name}", published, tmp_path / "out")


SMALL = {"generator": "unet_128", "generator_width": 1, "discriminator_width": 2}
CONFIGURATIONS = [
    {}, {"norm": "instance"}, {"norm": "none"}, {"generator": "unet_256"}, {"channels_a": 1},
    {"channels_b": 1, "direction": "b2a"}, {"discriminator": "pixel"}, {"discriminator_layers": 5},
    {"generator": "resnet_9blocks", "norm": "instance", "dropout": True},
]  # fmt: skip


@pytest.mark.parametrize("options", CONFIGURATIONS)
@nothing_drawn()
def test_every_configuration_is_told_by_its_names_and_shapes(options):
    model = built(Pix2Pix, **SMALL | options)
    files = {f"latest_net_{part}": shapes_alone(state) for part, state in states(model, published).items()}
    told = published.recognise(files, {"direction": model.config.direction})
    assert (told.channels, told.directions) == ({"a": model.channels_a, "b": model.channels_b}, model.directions)
    assert settings.resolve("pix2pix", told.options).model == model.config
    named = [id(p.variable) for places in published.layout(model).values() for p in places.values()]
    assert sorted(named) == sorted({id(v) for network in model.networks.values() for v in network.variables})


def test_other_networks(tmp_path):
    small = {"generator": "unet_128", "generator_width": 1, "discriminator_width": 1}
    folder = unpacked("pix2pix_whole.zip", tmp_path)
    (folder / "latest_net_G.pth").unlink()
    refused(folder, tmp_path, "latest_net_D: a discriminator alone, nothing that translates", method="pix2pix")
    state = states(built(Pix2Pix, channels_a=1, **small), published)["G"]
    torch_files.save(folder / "latest_net_G.pth", state)
    refused(folder, tmp_path, "D judges 6 channels, but G's input and output have 4")
    cyclegan = built(CycleGAN, residual_blocks=1, generator_width=1, discriminator_width=1)
    assert published.recognise({"latest_net_G_A": states(cyclegan, published.cyclegan)["G_A"]}, {}) is None


@nothing_drawn()
@pytest.mark.parametrize(
    "options, message",
    [
        ({"generator": "unet_64"}, "--generator=unet_64 is not in the published code"),
        ({"discriminator": "multiscale"}, "--discriminator=multiscale is not in the published code"),
        (
            {"pix2pix_variant": "cyclegan_tables", "generator": "resnet_6blocks"},
            "--pix2pix_variant=cyclegan_tables is not in the published code",
        ),
    ],
)
def test_networks_that_the_code_does_not_have(options, message):
    with pytest.raises(ValueError, match=message):
        published.layout(built(Pix2Pix, **SMALL | options))
