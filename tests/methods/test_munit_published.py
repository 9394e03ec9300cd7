"""MUNIT's published checkpoints: what the official code computed with them, their names, and writing them."""

import numpy as np
import pytest

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
from tfi2i.conversion import as_published, torch_files
from tfi2i.methods.munit import published
from tfi2i.methods.munit.model import MUNIT
from tfi2i.methods.unit import published as unit_published
from tfi2i.methods.unit.model import UNIT


def test_the_official_code(official):
    golden = np.load(CHECKPOINTS / "munit.npz")
    model, _ = official("munit")
    c = model.run.model
    assert (model.run.method, c.style_size, c.mlp_width, c.discriminator_layers) == ("munit", 3, 4, 2)
    assert model.checkpoint_step == 300
    for d, other in ("ab", "ba"):
        y = model.generate(golden[d], f"{d}2{other}", golden["style"])
        np.testing.assert_allclose(sparse(y), golden[f"{d}{other}"], atol=1e-4)
        np.testing.assert_allclose(model.style_of(golden[d], d), golden[f"style_{d}"], atol=1e-5)
        for scale, judged in enumerate(model.networks[f"discriminator_{d}"](golden[d])):
            np.testing.assert_allclose(judged, golden[f"judged_{d}/{scale}"], atol=1e-4)


def test_what_is_written_is_official(official, tmp_path):
    model, run = official("munit")
    check_written_is_official(run, "munit", published, tmp_path / "out")
    # The official code loads strictly, so what it keeps without reading it is written too.
    with open(tmp_path / "out" / "gen_00000000.pt", "rb") as file:
        written = torch_files.load(file, "gen")["b"]
        for j in (0, 1):
            key = f"dec.model.0.model.3.model.{j}.norm.running"
            np.testing.assert_array_equal(written[f"{key}_mean"].numpy(), np.zeros(4))
            np.testing.assert_array_equal(written[f"{key}_var"].numpy(), np.ones(4))


@nothing_drawn()
def test_full_width():
    shapes = {part: {k: p.shape for k, p in ps.items()} for part, ps in published.layout(built(MUNIT)).items()}
    gen = {f"enc_{kind}.model.0.conv": (64, 3, 7, 7) for kind in ("style", "content")}
    gen |= {f"enc_{kind}.model.1.conv": (128, 64, 4, 4) for kind in ("style", "content")}
    gen |= {f"enc_{kind}.model.2.conv": (256, 128, 4, 4) for kind in ("style", "content")}
    gen |= {f"enc_style.model.{i}.conv": (256, 256, 4, 4) for i in (3, 4)} | {"enc_style.model.6": (8, 256, 1, 1)}
    for part in ("enc_content.model.3", "dec.model.0"):
        gen |= {f"{part}.model.{i}.model.{j}.conv": (256, 256, 3, 3) for i in range(4) for j in (0, 1)}
    gen |= {"dec.model.2.conv": (128, 256, 5, 5), "dec.model.4.conv": (64, 128, 5, 5)}
    gen |= {"dec.model.5.conv": (3, 64, 7, 7)}
    gen |= {"mlp.model.0.fc": (256, 8), "mlp.model.1.fc": (256, 256), "mlp.model.2.fc": (4096, 256)}
    expected = {f"{k}.weight": v for k, v in gen.items()} | {f"{k}.bias": v[:1] for k, v in gen.items()}
    for i, n in ((2, 128), (4, 64)):
        expected |= {f"dec.model.{i}.norm.gamma": (n,), f"dec.model.{i}.norm.beta": (n,)}
    assert shapes["gen_a"] == shapes["gen_b"] == expected
    assert shapes["dis_a"]["cnns.2.3.conv.weight"] == (512, 256, 4, 4) and len(shapes["dis_b"]) == 30


SMALL = {"generator_width": 2, "discriminator_width": 3}


@pytest.mark.parametrize(
    "options", [{}, {"style_size": 3, "mlp_width": 5}, {"channels_b": 1}, {"discriminator_scales": 1}]
)
@nothing_drawn()
def test_every_configuration_is_told_by_its_names_and_shapes(options):
    model = built(MUNIT, **SMALL | options)
    files = {n.rsplit(".", 1)[0]: state for n, state in published.files_of(states(model, published)).items()}
    told = check_told_by_names_and_shapes(model, published, files)
    assert settings.resolve("munit", told.options).model == model.config


@nothing_drawn()
def test_files_that_are_not_of_one_model_are_refused(tmp_path):
    of_munit = published.files_of(states(built(MUNIT, **SMALL), published))
    small = built(UNIT, unit_variant="2018", **SMALL)
    of_unit = unit_published.files_of({p: as_published(ps) for p, ps in unit_published.layout(small).items()})
    wider = published.files_of(states(built(MUNIT, **SMALL | {"generator_width": 3}), published))
    gen, dis = "gen_00000000.pt", "dis_00000000.pt"
    assert of_unit[dis]["a"].keys() == of_munit[dis]["a"].keys()
    for i, (files, message) in enumerate((
        ({gen: of_munit[gen], "unit_gen_00000000.pt": of_unit[gen]}, "no part of a MUNIT"),
        ({gen: of_munit[gen], "x_gen_00000000.pt": of_munit[gen]}, "is a second gen"),
        ({gen: {"a": of_munit[gen]["a"], "b": wider[gen]["b"]}}, "gen_b has --generator_width=3, gen_a 2"),
        ({dis: of_munit[dis]}, "discriminators alone, nothing that translates"),
    )):  # fmt: skip
        folder = tmp_path / str(i)
        folder.mkdir()
        for name, content in files.items():
            torch_files.save(folder / name, content)
        refused(folder, tmp_path, message)
