"""DRIT's published checkpoints: what the official code computed with them, their names, and writing them."""

import numpy as np
import pytest
import tensorflow as tf

from tests.drawing import nothing_drawn
from tests.published import (
    CHECKPOINTS,
    built,
    check_told_by_names_and_shapes,
    check_written_is_official,
    refused,
    sparse,
    states,
)
from tfi2i import settings
from tfi2i.conversion import torch_files
from tfi2i.methods.drit import published
from tfi2i.methods.drit.model import DRIT

VARIANTS = ("concat", "feature_wise")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_official_code(official, variant):
    golden = np.load(CHECKPOINTS / f"drit_{variant}.npz")
    model, _ = official(f"drit_{variant}")
    c = model.run.model
    assert (model.run.method, c.drit_variant, c.generator_width, c.style_size) == ("drit", variant, 2, 3)
    assert (c.discriminator_scales, c.content_discriminator_layers) == (2, 1)
    assert model.checkpoint_step == 61500
    for d, other in ("ab", "ba"):
        y = model.generate(golden[d], f"{d}2{other}", golden["style"])
        np.testing.assert_allclose(sparse(y), golden[f"{d}{other}"], atol=1e-4)
        np.testing.assert_allclose(model.encode_style(golden[d], f"{other}2{d}"), golden[f"style_{d}"], atol=1e-4)
        judged = model.networks[f"discriminator_{d}2"](tf.tile(golden[d], (1, 2, 2, 1)))
        for scale, logits in enumerate(judged):
            np.testing.assert_allclose(logits, golden[f"judged_{d}/{scale}"], atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_written_is_official(official, variant, tmp_path):
    _, run = official(f"drit_{variant}")
    check_written_is_official(run, f"drit_{variant}", published, tmp_path / "out")


@nothing_drawn()
def test_full_width():
    shapes = {part: {k: p.shape for k, p in ps.items()} for part, ps in published.layout(built(DRIT)).items()}
    assert shapes["gen"]["decA2.0.model.0.weight"] == (272, 136, 3, 3)
    assert shapes["gen"]["decA2.0.model.1.weight"] == (136, 1, 1) and shapes["gen"]["decB4.0.weight"] == (80, 3, 1, 1)
    assert shapes["enc_a"]["fcVar_B.0.weight"] == (8, 256)
    assert shapes["enc_c"]["convA.5.model.5.weight"] == (256, 256, 3, 3)
    assert shapes["disContent"]["model.2.model.1.weight"] == (256, 256, 7, 7)
    assert shapes["disA2"]["Diss.2.3.model.1.weight"] == (512, 256, 4, 4) and "Diss.2.4.bias" in shapes["disB"]


SMALL = {"generator_width": 2, "discriminator_width": 3}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"style_size": 3, "drit_variant": "feature_wise", "mlp_width": 5},
        {"channels_b": 1, "content_discriminator_layers": 2},
        {"discriminator_scales": 1, "discriminator_layers": 3},
    ],
)
@nothing_drawn()
def test_every_configuration_is_told_by_its_names_and_shapes(options):
    model = built(DRIT, **SMALL | options)
    files = {n.rsplit(".", 1)[0]: content for n, content in published.files_of(states(model, published)).items()}
    told = check_told_by_names_and_shapes(model, published, files)
    assert settings.resolve("drit", told.options).model == model.config


@nothing_drawn()
def test_files_that_are_refused(tmp_path):
    good = published.files_of(states(built(DRIT, **SMALL), published))["00000.pth"]
    wide = published.files_of(states(built(DRIT, **SMALL | {"generator_width": 3}), published))["00000.pth"]
    spectral = {k.replace("weight", "weight_orig"): v for k, v in good["disA"].items()}
    for i, (content, message) in enumerate((
        (good | {"disA": spectral}, r"disA has spectral norm .*which tfi2i's DRIT does not have"),
        (good | {"gen": wide["gen"]}, r"gen: decA1.0.model.1.weight is \(20, 20, 3, 3\), expected \(16, 16, 3, 3\)"),
    )):  # fmt: skip
        torch_files.save(tmp_path / f"{i}.pth", content)
        refused(tmp_path / f"{i}.pth", tmp_path, message)
