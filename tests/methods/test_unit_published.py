"""UNIT's published checkpoints: what the official codes computed with them, their names, and writing them."""

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
)
from tfi2i import settings
from tfi2i.conversion import torch_files
from tfi2i.methods.unit import published
from tfi2i.methods.unit.model import UNIT

# What the official codes computed


def test_the_official_code_of_2018(official):
    golden = np.load(CHECKPOINTS / "unit_2018.npz")
    model, _ = official("unit_2018")
    c = model.run.model
    assert (c.unit_variant, c.discriminator_layers, c.discriminator_scales) == ("2018", 2, 2)
    assert model.checkpoint_step == 300
    for d, other in ("ab", "ba"):
        y = translated(model, golden[d], f"{d}2{other}")
        np.testing.assert_allclose(sparse(y), golden[f"{d}{other}"], atol=1e-4)
        for scale, judged in enumerate(model.judge(golden[d], d)):
            np.testing.assert_allclose(judged, golden[f"judged_{d}/{scale}"], atol=1e-4)


@pytest.mark.parametrize("kind, norm, judge", [
    ("COCOResGen", "instance", "multiscale"), ("COCOResGen2", "none", "shared"),
])  # fmt: skip
def test_the_official_code_of_the_paper(kind, norm, judge, official):
    golden = np.load(CHECKPOINTS / "unit.npz")
    model, _ = official(f"unit_{kind}")
    c = model.run.model
    assert (c.unit_variant, c.norm, c.discriminator, c.shared_blocks) == ("paper", norm, judge, 1)
    official = {"multiscale": "COCOMsDis", "shared": "COCOSharedDis"}[judge]
    for d, other in ("ab", "ba"):
        y = translated(model, golden[d], f"{d}2{other}")
        np.testing.assert_allclose(sparse(y), golden[f"{kind}/{d}{other}"], atol=1e-4)
        for scale, judged in enumerate(model.judge(golden[d], d)):
            expected = golden[f"{official}/{d}/{scale}"].reshape(judged.shape)
            np.testing.assert_allclose(judged, expected, atol=1e-4)


@pytest.mark.parametrize("name, told", [
    ("unit_2018", {}), ("unit_COCOResGen", {"norm": "instance"}), ("unit_COCOResGen2", {}),
])  # fmt: skip
def test_what_is_written_is_official(name, told, official, tmp_path):
    """Without the statistics that tell the norm of the paper's model."""
    _, run = official(name)
    check_written_is_official(run, name, published, tmp_path / "out", **told)


# Names and shapes


@nothing_drawn()
def test_full_width_2018():
    model = built(UNIT, unit_variant="2018")
    shapes = {part: {k: p.shape for k, p in places.items()} for part, places in published.layout(model).items()}
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


@nothing_drawn()
def test_full_width_of_the_paper():
    model = built(UNIT, discriminator_layers=6)
    shapes = {part: {k: p.shape for k, p in places.items()} for part, places in published.layout(model).items()}
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


CONFIGURATIONS = [
    {}, {"norm": "instance"}, {"shared_blocks": 0}, {"shared_blocks": 4}, {"discriminator": "shared"},
    {"discriminator": "multiscale", "discriminator_layers": 2}, {"channels_b": 1},
    {"unit_variant": "2018"}, {"unit_variant": "2018", "discriminator_layers": 2, "discriminator_scales": 1},
]  # fmt: skip


@pytest.mark.parametrize("options", CONFIGURATIONS)
@nothing_drawn()
def test_every_configuration_is_told_by_its_names_and_shapes(options):
    model = built(UNIT, **{"generator_width": 2, "discriminator_width": 3} | options)
    content = states(model, published)
    if options.get("norm") == "instance":
        content["gen"]["encode_A.1.model.1.running_mean"] = np.zeros(4, np.float32)
    files = {n.rsplit(".", 1)[0]: state for n, state in published.files_of(content).items()}
    told = check_told_by_names_and_shapes(model, published, files)
    assert settings.resolve("unit", told.options).model == model.config


def test_the_norm_of_a_paper_model_without_statistics_is_asked_for(tmp_path):
    message = "statistics that say --norm=instance"
    refused(CHECKPOINTS / "unit_COCOResGen.zip", tmp_path, message, norm="none")
    torch_files.save(tmp_path / "x.pkl", states(built(UNIT, generator_width=1), published)["gen"])
    said = []
    first = converted(tmp_path / "x.pkl", tmp_path / "run", log=said.append)
    assert first.run.model.norm == "none" and "if pictures look wrong, --norm=instance" in "\n".join(said)
    assert converted(tmp_path / "x.pkl", tmp_path / "again", norm="instance").run.model.norm == "instance"
