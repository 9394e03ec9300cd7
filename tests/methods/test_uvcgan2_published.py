"""UVCGAN's published checkpoints, v1 and v2: what the official codes computed, their names, and writing them."""

import functools
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.drawing import nothing_drawn
from tests.published import (
    CHECKPOINTS,
    GOLDEN,
    built,
    check_told_by_names_and_shapes,
    converted,
    sparse,
    states,
    translated,
)
from tfi2i import checkpoints, run_directory, settings
from tfi2i.conversion import exchange, sources, torch_files
from tfi2i.methods.uvcgan2 import published
from tfi2i.methods.uvcgan2.model import UVCGAN, UVCGAN2, Generator

# What the official codes computed


@pytest.mark.parametrize("kind", ["uvcgan2", "uvcgan"])
def test_the_official_codes(kind, official, tmp_path):
    golden = np.load(CHECKPOINTS / "uvcgan.npz")
    model, run = official(kind, size=(24, 24))
    c, second = model.run.model, kind == "uvcgan2"
    assert (model.run.method, c.generator_levels, c.vit_width, c.vit_blocks) == (kind, 2, 12, 1)
    assert (c.discriminator_layers, c.discriminator_head) == ((2, "bn") if second else (3, "none"))
    assert run_directory.description(run).get("converted")["missing"] == []
    for ends in ("ab", "ba"):
        x, direction = golden[ends[0]], f"{ends[0]}2{ends[1]}"
        generated = model.networks[f"generator_{direction}"](x)
        np.testing.assert_allclose(sparse(generated), golden[f"{kind}/gen_{ends}"], atol=1e-4)
        expected = golden[f"{kind}/avg_gen_{ends}"] if second else sparse(generated)
        np.testing.assert_allclose(sparse(translated(model, x, direction)), expected, atol=1e-4)
    for d in "ab":
        judged, _ = model.networks[f"discriminator_{d}"](golden[d])
        np.testing.assert_allclose(judged, golden[f"{kind}/disc_{d}"], atol=1e-4)
    # What is written for the official code has all that its own files have, positions included.
    files, _, _ = sources.read(CHECKPOINTS / f"{kind}.zip", published.FILE_NAMES)
    for path in exchange.export(run, tmp_path / "back", log=lambda _: None):
        written, official = torch_files.load(open(path, "rb"), path.name), files[path.stem]
        assert {k.replace("model.11", "shrink_conv") for k in written} == {
            k.replace("model.11", "shrink_conv") for k in official if "num_batches" not in k
        }
        for key in written.keys() & official.keys():
            if "running" not in key:
                np.testing.assert_array_equal(written[key].numpy(), official[key].numpy(), err_msg=key)


@pytest.mark.parametrize("part", ["modnet", "unet"])
def test_official_generators(part):
    golden = np.load(GOLDEN / f"uvcgan2_generator_{part}.npz")
    modulated = part == "modnet"
    network = Generator(3, 1, 4, "none" if modulated else "instance", modulated, (8, 2, 2, 12))
    network.build((None, None, None, 3))
    places = published.generator(network)
    names = {n.removeprefix("weights/") for n in golden.files if n.startswith("weights/")}
    assert {n for n in names - set(places)} == {n for n in names if n.endswith(("x_const", "y_const"))}
    for key, place in places.items():
        assert place.shape == golden[f"weights/{key}"].shape
        place.variable.assign(place.ours(golden[f"weights/{key}"]))
    output = network(tf.constant(golden["input/32"]))
    np.testing.assert_allclose(output[:, ::3, ::3], golden["output/32"], atol=1e-5)


@pytest.mark.parametrize("kind", ["bsd", "bn", "v1"])
def test_official_discriminators(kind):
    golden = np.load(GOLDEN / "uvcgan2_discriminator.npz")
    options = {"spectral_norm": False, "discriminator_head": "none"} if kind == "v1" else {"discriminator_head": kind}
    model = built(UVCGAN2, **SMALL | options)
    prefix = f"weights/{kind}/"
    stored = [n for n in golden.files if n.startswith(prefix)]
    names = {n.removeprefix(prefix).replace("shrink_conv", "model.11"): n for n in stored}
    places = published.discriminator(model.discriminator_a)
    assert {n for n in set(names) ^ set(places) if "running" not in n and "num_batches" not in n} == set()
    for name in set(places) & set(names):
        assert places[name].shape == golden[names[name]].shape, name


# Names and shapes

SMALL = {
    "generator_width": 2, "vit_width": 12, "vit_blocks": 2, "vit_ffn_width": 20, "discriminator_width": 2,
}  # fmt: skip


@pytest.mark.parametrize("kind, options", [
    (UVCGAN2, {}), (UVCGAN2, {"discriminator_head": "bn"}), (UVCGAN, {}),
    (UVCGAN2, {"generator_levels": 3, "discriminator_layers": 2}),
    (UVCGAN2, {"channels_a": 1, "lambda_identity": 0.0, "lambda_consistency": 0.0}),
])  # fmt: skip
@nothing_drawn()
def test_every_configuration_is_told_by_its_names_and_shapes(kind, options):
    model = built(kind, **SMALL | options)
    files = {n.removesuffix(".pth"): state for n, state in published.files_of(states(model, published)).items()}
    told = check_told_by_names_and_shapes(model, published, files)
    assert settings.resolve(told.method, told.options).model == model.config and not told.facts


# There and back


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A function of "uvcgan2" or "uvcgan" that gives a model with random weights, averages other than its generators,
    and the folder of what is written of it."""

    @functools.cache
    def make(method):
        folder = tmp_path_factory.mktemp(method)
        run = settings.resolve(method, {**SMALL, "crop": (32, 32)})
        model = checkpoints.build(run)
        for i, v in enumerate(v for part in (model.networks | model.averages).values() for v in part.variables):
            v.assign(np.random.default_rng(i).normal(0, 0.1, v.shape).astype(np.float32))
        checkpoints.save(folder / "run", model, 7, 1)
        run_directory.write(folder / "run", run)
        exchange.export(folder / "run", folder / "out", log=lambda _: None)
        return model, folder / "out"

    return make


@pytest.mark.parametrize("method", ["uvcgan2", "uvcgan"])
def test_round_trip_is_exact(method, runs, tmp_path):
    model, out = runs(method)
    averages = ["avg_gen_ab", "avg_gen_ba"] if method == "uvcgan2" else []
    parts = ["gen_ab", "gen_ba", *averages, "disc_a", "disc_b"]
    assert sorted(p.name for p in out.iterdir()) == sorted(f"net_{part}.pth" for part in parts)
    again = converted(out, tmp_path / "again")
    assert again.run.method == method
    kept = again.networks | again.averages
    for name, part in (model.networks | model.averages).items():
        for ours, old in zip(kept[name].variables, part.variables, strict=True):
            np.testing.assert_array_equal(ours, old)


def test_an_average_alone_translates_with_itself(runs, tmp_path):
    """As the mirrored file of CelebA-HQ; without discriminators and the other direction."""
    model, out = runs("uvcgan2")
    shutil.copy(out / "net_avg_gen_ba.pth", tmp_path / "celeba_hq_gen_m2f_avg.pt")
    said = []
    alone = converted(tmp_path / "celeba_hq_gen_m2f_avg.pt", tmp_path / "alone", direction="b2a", log=said.append)
    assert alone.directions == ("b2a",)
    x = np.random.default_rng(0).uniform(0, 1, (1, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(translated(alone, x, "b2a"), translated(model, x, "b2a"))
    assert "avg_gen_ba is not there: it starts as gen_ba" in "\n".join(said)
    (tmp_path / "averages").mkdir()
    shutil.copy(out / "net_avg_gen_ab.pth", tmp_path / "averages")
    averaged = converted(tmp_path / "averages", tmp_path / "averaged")
    np.testing.assert_array_equal(translated(averaged, x), translated(model, x))
