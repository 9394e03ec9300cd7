"""Evaluation on pairs, with models whose numbers are known, and once as a command."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest
from absl import flags

from tests.own_flags import call
from tests.test_translate import command, run_dir  # noqa: F401  (a fixture)
from tfi2i import config, pictures, settings
from tfi2i.commands import evaluate
from tfi2i.config import UserError
from tfi2i.data import images, sources
from tfi2i.methods.sizes import Sizes
from tfi2i.metrics import candidates, evaluation, gallery, held_out, pages, pairs, realism, report, study, tables
from tfi2i.metrics.pairs import match_names
from tfi2i.metrics.protocols import PRESETS, Protocol, make_protocol


class Constant:
    """Stands in for a model: adds 10 to go from A to B, and subtracts 10."""

    channels_a = channels_b = 3
    directions, sizes, style_size = ("a2b", "b2a"), Sizes(), None
    run = types.SimpleNamespace(method="constant")

    def translate(self, x, direction="a2b", batch_size=1):
        return x + np.uint8(10) if direction == "a2b" else x - np.uint8(10)


@pytest.fixture
def folder(tmp_path):
    """A data set of levels: a pair (k, k + 10) in 4 of 5 test pairs, and (200, 230) in the fifth."""
    for split, n in (("train", 2), ("test", 5)):
        for i in range(n):
            level = 200 if i == 4 else 20 * i + 20
            b = 230 if i == 4 else level + 10
            images.write_image(tmp_path / f"{split}A" / f"{i}.png", np.full((8, 8, 3), level, np.uint8))
            images.write_image(tmp_path / f"{split}B" / f"{i}.png", np.full((8, 8, 3), b, np.uint8))
    return tmp_path


def run(folder, model=None, *, data=None, batch_size=8, rows=6, active=False, **options):
    model, data = model or Constant(), data or config.Data(data=str(folder))
    compared = {"model": candidates.of_model(model, batch_size)}
    compared |= candidates.baselines(data, {"a": model.channels_a, "b": model.channels_b})
    protocol = Protocol(**options)
    return evaluation.evaluate(compared, data, protocol, batch_size=batch_size, active=active, rows=rows)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_numbers_by_hand(folder, batch_size):
    results, _ = run(folder, batch_size=batch_size)
    for direction in ("a2b", "b2a"):
        model, nothing = results[direction]["model"], results[direction]["do_nothing"]
        # Off by 0, 0, 0, 0 and 20; doing nothing is off by 10, 10, 10, 10 and 30.
        assert (model["n"], model["l1"], model["l1_std"], model["pixel_accuracy"]) == (5, 4, 8, 0.8)
        assert model["psnr"] == pytest.approx(10 * np.log10(255**2 / 80))
        assert (nothing["l1"], nothing["pixel_accuracy"]) == (14, 0.8)
        assert list(results[direction]) == ["model", "match_moments", "do_nothing"]


def test_a_model_without_error(folder):
    for domain in "AB":
        (folder / f"test{domain}" / "4.png").unlink()
    results, _ = run(folder)
    assert results["a2b"]["model"]["psnr"] is None and results["a2b"]["model"]["l1"] == 0
    assert "equal" in tables.table(results)
    json.dumps(results, allow_nan=False)


def test_examples_include_best_and_worst_and_stay_the_same(folder):
    _, examples = run(folder)
    for shown in examples.values():
        assert [e["rank"] for e in shown] == ["", "", "", "best", "worst"]
        assert shown[-1]["name"].endswith("4.png") and shown[-1]["l1"] == 20
    worst = examples["a2b"][-1]
    assert (worst["input"] == 200).all() and (worst["results"]["model"] == 210).all() and (worst["truth"] == 230).all()
    assert list(worst["results"]) == ["model", "match_moments", "do_nothing"]
    again = run(folder, batch_size=2)[1]
    assert [e["name"] for e in again["a2b"]] == [e["name"] for e in examples["a2b"]]


def test_without_pairs_no_example_is_called_good_or_bad(folder):
    for shown in run(folder, metrics=("l1",), pairs=False)[1].values():
        assert [e["rank"] for e in shown[-2:]] == ["least changed", "most changed"]
        assert shown[-2]["l1"] <= shown[-1]["l1"] and shown[-1]["truth"] is None


def test_no_more_examples_are_kept_than_shown(folder):
    for batch_size in (1, 8):
        ranks = [e["rank"] for e in run(folder, batch_size=batch_size, rows=1)[1]["b2a"]]
        assert ranks in (["best", "worst"], ["", "best", "worst"])


def test_a_single_pair(folder):
    results, examples = run(folder, limit=1)
    assert results["a2b"]["model"]["n"] == 1 and [e["rank"] for e in examples["a2b"]] == ["best"]
    page, lines = (report.picture(Constant(), examples, title) for title in (["one"], ["one", "two " * 60]))
    # What is wider than the page has lines of its own, whole; nothing else moves.
    assert lines.shape[0] == page.shape[0] + 22 and lines.shape[1] > page.shape[1]
    np.testing.assert_array_equal(lines[56:, : page.shape[1]], page[34:])
    assert (lines[:, -8:] == 255).all()


def test_moments_of_the_training_sets(folder):
    moments = candidates.training_moments(config.Data(data=str(folder)))
    np.testing.assert_allclose(moments["a"], [[30] * 3, [10] * 3])
    np.testing.assert_allclose(moments["b"], [[40] * 3, [10] * 3])


def test_match_moments_by_hand():
    x = np.array([[[[90, 100, 110]]]], np.uint8)
    source, target = (np.full(3, 100.0), np.full(3, 10.0)), (np.full(3, 50.0), np.array([20.0, 20.0, 200.0]))
    np.testing.assert_array_equal(candidates.match_moments(x, source, target), [[[[30, 50, 250]]]])
    # To grey by the mean of the channels, which is 0 standard deviations here.
    assert candidates.match_moments(x, source, (np.array([7.0]), np.array([3.0]))).tolist() == [[[[7]]]]


def test_16_bit_and_grey_images_are_compared_as_8_bits(tmp_path):
    for split in ("trainA", "testA"):
        for i in range(2):
            images.write_image(tmp_path / split / f"{i}.png", np.full((4, 4, 3), 200 * 257, np.uint16))
    for split in ("trainB", "testB"):
        for i in range(2):
            images.write_image(tmp_path / split / f"{i}.png", np.full((4, 4, 1), 200, np.uint8))

    class Grey(Constant):
        channels_b = 1

        def translate(self, x, direction="a2b", batch_size=1):
            return images.to_channels(x[0], 1)[None].repeat(len(x), 0) if direction == "a2b" else x.repeat(3, -1)

    data = config.Data(data=str(tmp_path), channels_b=1)
    results, examples = run(tmp_path, Grey(), data=data)
    assert [results[d][m]["l1"] for d in results for m in results[d]] == [0] * 6
    assert report.picture(Grey(), examples, ["grey"]).shape[-1] == 3


def test_names_that_match():
    assert match_names(["testA/x.png", "testA/y.png"], ["testB/y.jpg", "testB/z.jpg"]) == [(1, 0)]
    assert match_names(["test/A/1_A.jpg", "test/A/2_A.jpg"], ["test/B/1_B.jpg", "test/B/2_B.jpg"]) == [
        (0, 0), (1, 1),
    ]  # fmt: skip
    assert match_names(["testA/s/x.png", "testA/x.png"], ["testB/s/x.png", "testB/x.png"]) == [(0, 0), (1, 1)]
    assert match_names(["a.png"], ["b.png"]) == []
    # As macOS and Linux spell the same name.
    assert match_names(["Zu\u0308rich.png", "b.png"], ["a.png", "Z\u00fcrich.png"]) == [(0, 1)]
    # The exact name comes first: plan_A is the plan of flat A here, not the side of a pair.
    assert match_names(["plan_A.png", "plan.png"], ["plan.png", "plan_A.png"]) == [(0, 1), (1, 0)]
    assert match_names(["plan_A.png", "plan.png"], ["plan.png", "x.png"]) == [(1, 0)]


@pytest.mark.parametrize(
    "names_a, names_b",
    [
        (["x.png", "x.jpg"], ["x.png", "y.png"]),
        (["x.png", "y.png"], ["x.png", "x.jpg"]),
        (["x_A.png", "x-A.png"], ["x_B.png"]),
    ],
)
def test_names_that_could_be_either_of_two_are_refused(names_a, names_b):
    with pytest.raises(UserError, match="are both called 'x'"):
        match_names(names_a, names_b)
    assert match_names([*names_a, "z.png"], ["z.png"]) == [(len(names_a), 0)]


def test_names_of_tfds_are_no_pairs():
    """Ids of examples hold the split and the shard, and count: alike for all of a split, or in both domains."""
    ids = [f"celeb_a-test.tfrecord-00000-of-00016__{i}" for i in range(4)]
    assert match_names(ids[:2], ids[2:]) == []
    assert match_names(ids, [f"fakes/{ids[2]}.png"]) == [(2, 0)]
    a, b = (sources.Source([f"{split}/0"], [None], [1], "", named=False) for split in ("testA", "testB"))
    assert pairs.find_pairs(a, b) == []


def test_images_of_one_name_need_not_be_pairs(folder):
    found = run(folder, metrics=("l1",), pairs=False)[0]["a2b"]["model"]
    assert (found["n"], found["input_l1"]) == (5, 10) and "l1" not in found
    with pytest.raises(UserError, match="^--nopairs leaves no truth to compare with"):
        run(folder, pairs=False)


@pytest.mark.parametrize(
    "metrics, options, message",
    [
        (("kid",), {"limit": 1}, "--metrics=kid needs at least 2 images on either side, here are 1 real ones and 1"),
        (("precision_recall",), {"limit": 3}, "--metrics=precision_recall needs at least 4 images"),
        (("kid",), {"kid_subset_size": 6}, "--kid_subset_size=6: expected at most 5"),
        (("ssim",), {}, r"--metrics=ssim needs 11 pixels a side, images are \(8, 8\): give --size=N"),
    ],
)
def test_what_cannot_be_measured_is_said_before_it_is_tried(folder, metrics, options, message):
    with pytest.raises(UserError, match=message):
        run(folder, metrics=metrics, **{"network": Levels(), "feature_cache": "", **options})


@pytest.mark.parametrize("kind, doubtful", [(config.Data, True), (config.PairedData, False)])
def test_equal_names_in_two_folders_may_be_no_pairs(folder, kind, doubtful, capsys):
    data = kind(a=str(folder / "testA"), b=str(folder / "testB"), holdout=0.4, resize=(8, 8), crop=(8, 8))
    run(folder, data=data, metrics=("l1",), active=True)
    said = "3 pairs of equal names among 3 and 3 test images; add --nopairs if the names are equal by coincidence\n"
    assert capsys.readouterr().out.startswith(said) == doubtful


def test_no_pairs_are_an_error(folder):
    for path in (folder / "testB").iterdir():
        path.rename(path.with_name(f"other{path.name}"))
    with pytest.raises(UserError, match="test images are no pairs: none of 5 names in A .*0.png, .*otherB?0.png"):
        run(folder)
    with pytest.raises(UserError, match="no val images"):
        run(folder, split="val")


def test_pairs_must_have_one_size(folder):
    images.write_image(folder / "testB" / "1.png", np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(UserError, match="pairs must match pixel by pixel. Give --size=N .* or --nopairs"):
        run(folder)
    # What needs no truth takes all of them.
    found = run(folder, metrics=("cycle",))[0]["a2b"]["model"]
    assert (found["n"], found["cycle"]) == (5, 0)


def test_a_broken_file_leaves_its_pair_out(folder):
    (folder / "testB" / "2.png").write_bytes(b"")
    results, _ = run(folder)
    assert results["a2b"]["model"]["n"] == 4


def test_pictures_of_many_shapes_make_one_page(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for i, shape in enumerate([(300, 100, 3), (16, 40, 3), (500, 500, 3)]):
            for domain in "AB":
                x = rng.integers(0, 200, shape, np.uint8)
                images.write_image(tmp_path / f"{split}{domain}" / f"{i}.png", x)
    _, examples = run(tmp_path)
    page = report.picture(Constant(), examples, ["shapes"])
    assert page.dtype == np.uint8 and page.shape[1] > 8 * 256 and (page[0] == 255).all()


# --------------------------------------------------------------------------------- without pairs, and with features


class Levels:
    """Stands in for a network: the mean level of the red and the green channel is all it sees."""

    name, sha256, filter, standard, size, weights = "levels", "0", "none", True, 8, "none"
    protocol = {"network": "levels"}
    calls = 0

    def features(self, pictures):
        self.calls += 1
        return np.stack([p.astype(np.float32).mean((0, 1))[:2] for p in pictures])

    def extract(self, read, n, batch_size=32, on_batch=lambda done: None):
        found = [(i, read(i)) for i in range(n)]
        kept = [i for i, p in found if p is not None]
        return self.features([p for _, p in found if p is not None]), kept

    def perceptual_distance(self, x, y):
        return np.abs(self.features(x) - self.features(y)).mean(1)


@pytest.fixture
def unpaired(folder, tmp_path):
    """The same images, those of B under names of their own."""
    for path in (folder / "testB").iterdir():
        path.rename(path.with_name(f"b{path.name}"))
    return folder


def measured(folder, *metrics, model=None, **options):
    options = {"network": Levels(), "feature_cache": "", "kid_subset_size": 4} | options
    return run(folder, model, metrics=metrics, **options)


def test_realism_by_hand(unpaired):
    """A: 20 … 80, 200. B: 30 … 90, 230. The model's are 20 short in the last of B."""
    results, _ = measured(unpaired, "fid", "kid", "precision_recall")
    fake, real = np.array([30.0, 50, 70, 90, 210]), np.array([30.0, 50, 70, 90, 230])
    found = results["a2b"]["model"]
    # Both features are equal: in two dimensions everything is doubled.
    expected = 2 * ((fake.mean() - real.mean()) ** 2 + (fake.std(ddof=1) - real.std(ddof=1)) ** 2)
    assert found["fid_levels"] == pytest.approx(expected)
    assert (found["n"], found["n_fake"], found["n_real"], found["kid_subset_size"]) == (5, 5, 5, 4)
    assert found["recall_levels"] == found["precision_levels"] == 1 and found["precision_levels_error"] == 0
    assert found["fid_levels_error"] is None  # five images are too few to say
    assert found["kid_levels_std"] > 0 and results["a2b"]["do_nothing"]["fid_levels"] > expected
    assert set(results["a2b"]) == {"model", "match_moments", "do_nothing"}


def test_without_pairs_images_are_compared_with_their_inputs(unpaired):
    results, examples = measured(unpaired, "l1", "psnr", "il2", "cycle", "lpips_like", "l2")
    found, nothing = results["a2b"]["model"], results["a2b"]["do_nothing"]
    assert (found["n"], found["input_l1"], found["cycle"], found["input_lpips_like_levels"]) == (5, 10, 0, 10)
    assert found["il2_levels"] == pytest.approx(10 * np.sqrt(2)) and "l1" not in found
    assert found["input_l2"] == pytest.approx(10 * np.sqrt(8 * 8 * 3) / 255)
    assert nothing["input_psnr"] is None and nothing["il2_levels"] == 0 and "cycle" not in nothing
    assert examples["a2b"][0]["truth"] is None and examples["b2a"][0]["l1"] == 10
    text = tables.table(results, Protocol(("l1",), network=Levels()))
    assert "L1 (of 255) to input" in text and "Features: levels" in text
    assert "alone proves nothing: an unchanged input scores perfectly" in text
    assert report.picture(Constant(), examples, ["unpaired"]).ndim == 3


class Styled(Constant):
    """Stands in for a model with a style: adds ten times the seed that its style was drawn with."""

    style_size = 1

    def draw_styles(self, seed, names):
        assert all(isinstance(name, str) for name in names)
        return np.full((len(names), 1), seed, np.float32)

    def translate(self, x, direction="a2b", batch_size=1, style=None):
        return x + np.uint8(10 * style[:, None, None])


def test_diversity_is_the_distance_of_translations_with_different_styles(unpaired):
    results, _ = measured(unpaired, "diversity", "l1", model=Styled())
    found, nothing = results["a2b"]["model"], results["a2b"]["do_nothing"]
    # Seeds 0 and 1, and 2 and 3, differ by 10 levels; what else is measured has seed 0.
    assert (found["n"], found["diversity_levels"], found["input_l1"]) == (5, 10, 0)
    assert "diversity_levels" not in nothing
    text = tables.table(results, Protocol(("diversity", "l1"), network=Levels()))
    assert "diversity, levels" in text and "10.000 ± 0.000" in text and "Noise has diversity too" in text


def test_diversity_needs_a_style(unpaired):
    with pytest.raises(UserError, match="--metrics=diversity needs a model that takes a style"):
        measured(unpaired, "diversity", "l1")


def test_images_without_a_partner_count_for_realism_alone(folder):
    images.write_image(folder / "testA" / "alone.png", np.full((8, 8, 3), 7, np.uint8))
    found = measured(folder, "l1", "kid", "il2")[0]["a2b"]["model"]
    assert (found["n"], found["n_fake"], found["n_real"], found["l1"]) == (5, 6, 5, 4)
    assert found["il2_levels"] == pytest.approx(10 * np.sqrt(2)) and "input_l1" not in found


def test_images_are_read_ahead_in_order_and_not_all_at_once():
    begun = []
    ahead = held_out.read_ahead(lambda i: begun.append(i) or -i, iter(range(50)), 3)
    assert [next(ahead) for _ in range(2)] == [0, -1] and len(begun) <= 5
    assert list(ahead) == [-i for i in range(2, 50)]


def test_mean_kid_mixes_the_distance_to_the_inputs_in():
    rng = np.random.default_rng(0)
    real, fake, source = (rng.normal(size=(6, 3)) + k for k in (0, 1, 2))
    protocol = Protocol(("mean_kid",), network=Levels(), kid_subset_size=3, kid_subsets=5)
    found = evaluation.compare_sets(real, fake, protocol, source)
    kid = [realism.kernel_distance(x, fake, 3, 5).mean() for x in (real, source)]
    assert found["mean_kid_levels"] == pytest.approx((0.02 * kid[0] + 0.98 * kid[1]) / 2)


def test_psnr_has_an_error(folder):
    results, _ = run(folder)
    squared = np.array([0, 0, 0, 0, 400])
    relative = squared.std(ddof=1) / np.sqrt(5) / squared.mean()
    assert results["a2b"]["model"]["psnr_error"] == pytest.approx(10 / np.log(10) * relative)
    assert results["a2b"]["model"]["channel_accuracy"] == 0.8


def test_mean_psnr_is_of_each_image_and_at_most_100(folder):
    found = measured(folder, "mean_psnr")[0]["a2b"]["model"]
    last = 10 * np.log10(255**2 / 400)  # the others have no error
    assert found["mean_psnr"] == pytest.approx((4 * 100 + last) / 5) and "psnr" not in found


def test_features_of_real_images_are_kept(unpaired, tmp_path):
    network, cache = Levels(), tmp_path / "cache"
    first = measured(unpaired, "kid", network=network, feature_cache=cache)[0]
    calls = network.calls
    assert measured(unpaired, "kid", network=network, feature_cache=cache)[0] == first
    # Of two directions: the model's and the matched colours'; doing nothing has those of the inputs.
    assert network.calls == calls + 4 and calls == 4 + 2
    images.write_image(unpaired / "testB" / "b0.png", np.full((8, 8, 3), 31, np.uint8))
    assert measured(unpaired, "kid", network=network, feature_cache=cache)[0]["a2b"] != first["a2b"]
    limited = measured(unpaired, "kid", network=network, feature_cache=cache, limit=4)[0]["a2b"]["model"]
    assert (limited["n_real"], limited["n_fake"]) == (4, 4)


def test_unknown_metrics_are_refused():
    with pytest.raises(UserError, match="--metrics=l1,fdi: fdi is none of fid, kid.*; did you mean fid"):
        Protocol(("l1", "fdi"))


# ------------------------------------------------------------------------------------------------------- one direction


class OneWay(Constant):
    """Stands in for a model that translates A to B alone."""

    directions = ("a2b",)
    checkpoint_step, run_dir = 7, "one way"

    def __init__(self, data):
        self.run = dataclasses.replace(settings.resolve("cyclegan", {}), data=data)

    def translate(self, x, direction="a2b", batch_size=1):
        assert direction == "a2b"
        return super().translate(x)


@pytest.fixture
def one_way(unpaired, monkeypatch):
    """The data set of `unpaired` without test images of B, and a run that a `OneWay` comes from."""
    shutil.rmtree(unpaired / "testB")
    data = config.Data(data=str(unpaired))
    monkeypatch.setattr("tfi2i.checkpoints.load", lambda *_: OneWay(data))
    monkeypatch.setattr("tfi2i.run_directory.steps", lambda *_: [7])
    return unpaired


def test_one_direction_is_measured_without_images_of_the_other_domain(one_way, with_levels, tmp_path, capsys):
    given = {"metrics": ["l1", "il2", "cycle"], "feature_cache": ""}
    (tmp_path / "run").mkdir()
    figures = pages.evaluate_run(tmp_path / "run", "all", **given)
    assert list(figures["directions"]) == ["a2b"] and figures["images"] == {"a2b": 5}
    found = figures["directions"]["a2b"]["model"]
    assert found["input_l1"] == 10 and found["il2_levels"] == pytest.approx(10 * np.sqrt(2)) and "cycle" not in found
    assert images.read_image(tmp_path / "run" / "evaluate.png").ndim == 3 and "b2a" not in capsys.readouterr().out
    figures = pages.compare(["x", "y"], output=tmp_path / "gallery", **given)
    assert list(figures["directions"]["a2b"]) == ["x", "y", "match_moments", "do_nothing"]
    assert {p.name for p in (tmp_path / "gallery").glob("*.png")} == {"a2b.png"}
    pages.write_study(tmp_path / "study", ["x", "y"], rows=2)
    questions = json.loads(study.key_path(tmp_path / "study").read_text())["questions"].values()
    assert [q["direction"] for q in questions] == ["a2b", "a2b"]


def test_one_direction_needs_images_that_it_is_compared_with(one_way, with_levels, tmp_path):
    for metrics in (["kid"], None):
        with pytest.raises(UserError, match="no folder for domain B: expected testB"):
            pages.evaluate_run(tmp_path, metrics=metrics, feature_cache="")
    with pytest.raises(UserError, match="no folder for domain B: expected testB"):
        pages.write_study(tmp_path / "study", ["x", "y"], study_examples=1)
    with pytest.raises(UserError, match="--metrics=cycle needs a model that translates both ways"):
        pages.evaluate_run(tmp_path, metrics=["cycle"])
    shutil.rmtree(one_way / "testA")
    with pytest.raises(UserError, match="no test images [^;]*$"):
        pages.evaluate_run(tmp_path, metrics=["l1"])
    for domain in "AB":
        shutil.copytree(one_way / f"train{domain}", one_way / f"val{domain}")
    with pytest.raises(UserError, match="no test images .*valA, valB; --split=val measures the val images$"):
        pages.evaluate_run(tmp_path, metrics=["l1"])


def test_any_folder_of_pictures_is_measured_without_the_other_domain(one_way, with_levels, tmp_path, monkeypatch):
    plain = one_way / "testA"
    given = {"data": str(plain), "output": tmp_path / "page.png", "feature_cache": ""}
    figures = pages.evaluate_run(tmp_path, metrics=["l1", "il2"], **given)
    assert figures["images"] == {"a2b": 5} and figures["data"] == str(plain)
    assert figures["directions"]["a2b"]["model"]["input_l1"] == 10
    for metrics in (None, ["kid"]):
        with pytest.raises(UserError, match="testA has images of one domain, and those of B are needed too; --metrics"):
            pages.evaluate_run(tmp_path, metrics=metrics, **given)
    monkeypatch.setattr(OneWay, "directions", ("a2b", "b2a"))
    with pytest.raises(UserError, match="--data=.*testA has no testA and testB: .*add --direction=a2b or --direction="):
        pages.evaluate_run(tmp_path, metrics=["l1"], **given)


def test_pictures_that_moved_are_split_as_in_training(one_way, with_levels, tmp_path, monkeypatch):
    # SHA-256 of "4" begins with 4b, of 256, and is the only one below 0.3. B has "0" and "1", and that of "0" is less.
    own = config.Data(a="/nowhere/photos", b="/nowhere/paintings", holdout=0.3)
    monkeypatch.setattr("tfi2i.checkpoints.load", lambda *_: OneWay(own))
    given = {"metrics": ["l1"], "output": tmp_path / "page.png", "feature_cache": ""}
    with pytest.raises(UserError, match="not found here: give --a=FOLDER and --b=FOLDER"):
        pages.evaluate_run(tmp_path, **given)
    a, b = str(one_way / "testA"), str(one_way / "trainB")
    figures = pages.evaluate_run(tmp_path, data=(a, b), **given)
    assert sources.open_domains(own.in_folders(a, b), "test")[0].names == ["0.png", "4.png"]
    assert figures["pairs"] == {"a2b": 1} and figures["data"] == f"{a} and {b}"


def test_a_run_whose_data_is_not_here(tmp_path, monkeypatch):
    monkeypatch.setattr("tfi2i.checkpoints.load", lambda *_: OneWay(config.Data(data="/nowhere/photos")))
    with pytest.raises(UserError, match="trained on --data=/nowhere/photos, not found here: give --data=FOLDER"):
        pages.evaluate_run(tmp_path)
    with pytest.raises(UserError, match="trained on --data=/nowhere/photos, not found here: give --data=FOLDER"):
        pages.compare(["x", "y"], output=tmp_path / "gallery")


def test_directions_that_nothing_translates(one_way, unpaired, tmp_path):
    with pytest.raises(UserError, match="--direction=b2a: .* translates a2b only"):
        pages.evaluate_run(tmp_path, direction="b2a")
    with pytest.raises(UserError, match="--direction=b2a: x, y translate a2b only"):
        pages.compare(["x", "y"], output=tmp_path / "gallery", direction="b2a")
    # The baselines translate both, but are of no interest alone.
    candidate = {"model": candidates.of_model(OneWay(None))} | candidates.baselines(config.Data(), {"a": 3, "b": 3})
    results, examples = evaluation.evaluate(candidate, config.Data(data=str(unpaired)), Protocol(("l1",)), active=False)
    assert list(results) == list(examples) == ["a2b"]


# ---------------------------------------------------------------------------------------------------------- folders


def test_two_folders(folder):
    """B's images against A's, as if they were translations: 10, 10, 10, 10 and 30 apart."""
    protocol = Protocol(("l1", "fid"), network=Levels(), feature_cache="")
    results, examples = evaluation.compare_folders(folder / "testA", folder / "testB", protocol=protocol, active=False)
    found = results["a2b"]["fake"]
    assert (found["n"], found["l1"], found["n_real"]) == (5, 14, 5) and found["fid_levels"] > 0
    assert examples["a2b"][-1]["l1"] == 30 and examples["a2b"][-1]["input"] is None
    assert report.picture(None, examples, ["folders"]).ndim == 3
    same = evaluation.compare_folders(folder / "testA", folder / "testA", protocol=protocol, active=False)[0]
    assert same["a2b"]["fake"]["fid_levels"] == pytest.approx(0, abs=1e-9)


def test_sets_of_images_may_have_any_sizes(folder):
    images.write_image(folder / "testB" / "1.png", np.full((9, 30, 3), 50, np.uint8))
    protocol = Protocol(("fid",), network=Levels(), feature_cache="")
    results, examples = evaluation.compare_folders(folder / "testA", folder / "testB", protocol=protocol, active=False)
    assert results["a2b"]["fake"]["n_fake"] == 5
    assert [e["truth"] is None for e in examples["a2b"] if e["name"] == "1.png"] == [True]
    assert report.picture(None, examples, ["sizes"]).ndim == 3


def test_two_folders_and_what_was_translated(unpaired):
    preparation = {"resize": (16, 16), "resize_mode": "exact", "crop": (16, 16)}
    protocol = Protocol(("il2", "l1"), network=Levels(), feature_cache="", preparation=preparation)
    results, examples = evaluation.compare_folders(
        unpaired / "testB",
        unpaired / "testA",
        protocol,
        unpaired / "testA",
        active=False,
    )
    assert results["a2b"]["fake"]["il2_levels"] == 0 and results["a2b"]["fake"]["input_l1"] == 0
    assert examples["a2b"][0]["input"].shape == (16, 16, 3)


def test_folders_that_cannot_be_compared(unpaired):
    a, b = unpaired / "testA", unpaired / "testB"

    def refused(*metrics):
        protocol = Protocol(metrics, network=Levels(), feature_cache="")
        return evaluation.compare_folders(a, b, protocol=protocol, active=False)

    with pytest.raises(UserError, match="no two images of .* have the same name"):
        refused("l1")
    with pytest.raises(UserError, match="--metrics=il2 needs .* --source"):
        refused("il2")
    images.write_image(b / "0.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(UserError, match="pairs must match"):
        refused("l1")


def test_a_folder_as_a_candidate_lacks_pictures(unpaired):
    domains = dict(zip("ab", sources.open_domains(config.Data(data=str(unpaired)), "test")))
    for name in ("testA/0.png", "testA/1.png"):
        images.write_image(unpaired / "out" / "a2b" / name, np.full((16, 16, 1), 9, np.uint8))
    candidate = candidates.of_pictures(candidates.direction_folders(unpaired / "out"), domains)
    assert candidate.directions == ("a2b",)
    made = candidate.translate(np.zeros((1, 8, 8, 3), np.uint8), "a2b", ["testA/1.png"])
    assert made.shape == (1, 8, 8, 3) and (made == 9).all()
    with pytest.raises(UserError, match="has no a2b picture of the name of testA/2.png"):
        candidate.translate(np.zeros((1, 8, 8, 3), np.uint8), "a2b", ["testA/2.png"])
    with pytest.raises(UserError, match="has no folder a2b or b2a"):
        candidates.direction_folders(unpaired / "trainA")
    assert candidates.direction_folders(unpaired / "trainA", ("b2a",)) == {"b2a": unpaired / "trainA"}


# ---------------------------------------------------------------------------------------------------------- command


def test_command_on_the_bundled_sample(run_dir, tmp_path):  # noqa: F811
    done = command(
        f"--run_dir={run_dir}", "--split=val", "--limit=3", f"--output={tmp_path}/page.png", module="tfi2i.evaluate"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "evaluate.json").read_text())
    assert report["pairs"] == {"a2b": 3, "b2a": 3} and report["checkpoint_step"] == 7 and report["size"] == [64, 64]
    for direction in ("a2b", "b2a"):
        assert f"\n{direction}  this model         3" in done.stdout
        assert report["directions"][direction]["do_nothing"]["l1"] > 0
    assert images.read_image(tmp_path / "page.png").shape[1] > 8 * 128


def test_several_runs_are_several_flags(run_dir):  # noqa: F811
    with pytest.raises(UserError, match="^--output=page: expected the name of an image.*repeat --run_dir"):
        call(evaluate, f"--run_dir={run_dir}", "--output=page")


def values(**given):
    """The command's flags with their defaults, but for those given."""
    own = flags.FlagValues()
    evaluate.define_flags(own)
    own.mark_as_parsed()
    for name, value in given.items():
        setattr(own, name, value)
    return own


@pytest.fixture
def with_levels(monkeypatch):
    monkeypatch.setattr("tfi2i.metrics.features.FeatureNetwork", lambda *_: Levels())
    monkeypatch.setattr("tfi2i.metrics.features.default_cache", lambda: None)


def test_metrics_of_a_run(run_dir, tmp_path, with_levels, capsys):  # noqa: F811
    asked = ["kid", "ssim", "il2", "cycle"]
    given = {"split": "val", "limit": 4, "metrics": asked, "feature_cache": str(tmp_path)}
    figures = pages.evaluate_run(run_dir, output=tmp_path / "page.png", **given)
    written = json.loads((tmp_path / "metrics.json").read_text())
    found = written["directions"]["a2b"]["model"]
    assert {"kid_levels", "ssim", "il2_levels", "cycle", "n_real"} <= found.keys() and "l1" not in found
    assert written["protocol"]["network"] == "levels" and written["protocol"]["seed"] == 2020
    assert written["protocol"]["metrics"] == ["kid", "ssim", "il2", "cycle"]
    assert (written["pairs"]["a2b"], found["kid_subset_size"], found["n_fake"]) == (4, 2, 4)
    assert figures["directions"] == written["directions"]
    assert "KID: 100 subsets of 2 images, seed 2020" in capsys.readouterr().out
    assert images.read_image(tmp_path / "page.png").shape[1] > 8 * 96


def test_one_direction_of_a_run(run_dir, tmp_path):  # noqa: F811
    pages.evaluate_run(run_dir, output=tmp_path / "page.png", split="val", limit=2, direction="b2a")
    written = json.loads((tmp_path / "evaluate.json").read_text())
    assert list(written["directions"]) == ["b2a"] and written["pairs"] == {"b2a": 2}


FILTERS = ((None, None), ("64", None), ("64", "bilinear"))


def test_a_protocol_sets_what_was_not_given(monkeypatch):
    networks = []
    monkeypatch.setattr("tfi2i.metrics.features.FeatureNetwork", lambda *given: networks.append(given) or Levels())
    protocol = make_protocol("egsde_fid", seed=1)
    assert (protocol.split, protocol.names, protocol.seed, protocol.preset) == ("val", ("fid",), 1, "egsde_fid")
    assert networks == [("inception_2015", None, "pytorch_fid")] and "AFHQ val" in protocol.report()["note"]
    assert protocol.preparation == {}  # images as they are
    protocol = make_protocol("egsde_fid", split="test", network="efficientnet_lite0", feature_resize="clean")
    assert protocol.split == "test" and networks[1] == ("efficientnet_lite0", None, "clean")
    assert make_protocol("egsde").preparation["crop"] == (256, 256)
    assert make_protocol("egsde", size="64").preparation["crop"] == (64, 64)
    filters = [make_protocol("uvcgan2_afhq", size=s, filter=f).preparation["resize_filter"] for s, f in FILTERS]
    assert filters == ["lanczos", "lanczos", "bilinear"]
    with pytest.raises(UserError, match="--filter=bilinear .* give --size"):
        make_protocol("uvcgan2_afhq", filter="bilinear")
    assert make_protocol() == Protocol()
    with pytest.raises(UserError, match="--protocol=egsd: expected one of uvcgan2_celeba, "):
        make_protocol("egsd")


@pytest.mark.parametrize("name", PRESETS)
def test_protocols_can_be_measured(name):
    preset = PRESETS[name]
    config.Data(**preset.data)
    given = values(**preset.flags)  # all are flags, of values that these take
    Protocol(tuple(given.metrics))
    assert preset.note


def test_a_protocol_brings_images_to_its_size(run_dir, tmp_path, with_levels):  # noqa: F811
    given = {"protocol": "cyclegan_cityscapes", "metrics": ["l1"], "limit": 2}
    pages.evaluate_run(run_dir, output=tmp_path / "page.png", **given)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["size"] == [128, 128] and written["protocol"]["preset"] == "cyclegan_cityscapes"
    assert "nearest one" in written["protocol"]["note"]


def test_every_checkpoint(run_dir, tmp_path, with_levels):  # noqa: F811
    run = shutil.copytree(run_dir, tmp_path / "run")
    shutil.copytree(run / "checkpoints" / "00000007", run / "checkpoints" / "00000009")
    manifest = run / "checkpoints" / "00000009" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"step": 7', '"step": 9'))
    given = {"split": "val", "limit": 4, "metrics": ["kid", "l1"], "feature_cache": ""}
    pages.evaluate_run(run, "all", output=tmp_path / "page.png", **given)
    steps = json.loads((tmp_path / "metrics.json").read_text())["steps"]
    assert list(steps) == ["7", "9"] and list(steps["7"]["a2b"]) == ["model"]
    assert steps["7"]["a2b"]["model"] == steps["9"]["a2b"]["model"]
    assert {p.name for p in tmp_path.glob("page*.png")} == {
        "page.png", "page_a2b_plot.png", "page_b2a_plot.png", "page_checkpoints.png",
    }  # fmt: skip
    assert images.read_image(tmp_path / "page_checkpoints.png").shape == (360, 2 * 480, 3)  # L1 and KID


def test_realism_against_faithfulness():
    def plotted(**values):
        return report.trade_off({"a2b": {"model": values, "do_nothing": values}}, "a2b")

    assert plotted(l1=3.0, n=2) is None and plotted(kid_levels=1.0) is None
    plots = [plotted(kid_levels=0.1, kid_levels_std=0.01, **{key: 3.0}) for key in ("l1", "input_l1", "il2_x")]
    assert len({p.tobytes() for p in plots}) == 3  # the axes say what they are
    assert plots[0].shape == (360, 480, 3)


def test_a_plot_marks_its_points_where_they_are():
    """Two points in opposite corners, above the legend; a name may have a sign of matplotlib's own."""
    image = pictures.plot({"one": [(0, 0, None)], "$two": [(10, 5, 0.5)]}, "x", "y", "title")
    assert image.shape == (360, 480, 3) and image.dtype == np.uint8 and (image[0, 0] == 255).all()
    for colour, left, low in ((pictures._COLOURS[0], True, True), (pictures._COLOURS[1], False, False)):
        rows, columns = np.nonzero((image[:280] == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(-1))
        assert len(rows) > 20 and (columns < 240).all() == left and (rows > 180).all() == low
    names = [pictures.plot({name: [(0, 0, None)]}, "x", "y") for name in ("one", "_one", "")]
    assert len({p.tobytes() for p in names}) == 3  # what matplotlib takes for a name to hide is a name here
    joined = [pictures.plot({"one": [(0, 0, None), (9, 9, None)]}, "x", "y", join=join) for join in (True, False)]
    assert (joined[0] != joined[1]).sum() > 1000


def test_names_of_files_need_not_be_english():
    blank = np.zeros((1, 96, 96, 3), np.uint8)
    titles, labels = ([pictures.page([blank], [x], [y]) for x, y in pairs] for pairs in (("üa", "éa"), ("aü", "aé")))
    for first, second in (titles, labels):
        assert (first != second).any()  # not the same box for each letter


def test_matplotlib_is_imported_quietly_and_only_to_draw(tmp_path):
    code = """
        import sys
        from tfi2i import pictures
        assert "matplotlib" not in sys.modules
        pictures.font(12), pictures.plot({"\u9a6c": [(0, 0, None)]}, "x", "y")
    """
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "XDG_CONFIG_HOME": "/dev/null"}
    code, given = textwrap.dedent(code), os.environ | nowhere
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=given)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_metrics_of_folders(folder, tmp_path, with_levels):
    output = tmp_path / "out" / "page.png"
    pages.evaluate_folders(folder / "testA", folder / "testB", output=output, feature_cache=str(tmp_path))
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {"fid_levels", "kid_levels", "precision_levels", "recall_levels"} <= written["results"].keys()
    assert written["protocol"]["split"] is None and output.is_file()


def made_by_others(run_dir, folder):  # noqa: F811
    """Inputs of the run's test set, darkened, as someone else's translations from A to B."""
    side = sources.open_domain(config.Data(data="emoji"), "A", "val")
    for i, name in enumerate(side.names):
        images.write_image(folder / "a2b" / name, side.read(i) // 2)


def test_a_comparison(run_dir, tmp_path, with_levels, monkeypatch, capsys):  # noqa: F811
    made_by_others(run_dir, tmp_path / "others")
    output = tmp_path / "comparison"
    given = values(
        run_dir=[str(run_dir)],
        folder=[f"dark={tmp_path}/others"],
        split="val",
        limit=5,
        rows=2,
        metrics=["l1", "kid"],
        feature_cache="",
        output=str(output),
    )
    monkeypatch.setattr(evaluate.flags, "FLAGS", given)
    evaluate.main([])
    written = json.loads((output / "metrics.json").read_text())
    assert list(written["directions"]["a2b"]) == [run_dir.name, "dark", "match_moments", "do_nothing"]
    assert "dark" not in written["directions"]["b2a"] and written["checkpoint_steps"] == {run_dir.name: 7}
    page = (output / "index.html").read_text()
    assert page.count("<tr>") >= 2 * (1 + 3) and ">dark</th>" in page and "KID ×100, levels" in page
    shown = re.findall(r'src="([^"]+)"', page)
    assert shown and all((output / path).is_file() for path in shown)
    # input, truth, the run, the others, two baselines
    shown = [path for path in shown if path.startswith("images/")]
    assert {path.split("_")[-1] for path in shown if "/a2b/" in path} == {f"{k}.png" for k in range(6)}
    assert images.read_image(output / "a2b.png").shape[1] > 6 * 96
    assert 'src="b2a_plot.png"' in page and (output / "b2a_plot.png").is_file()
    inputs = images.read_image(output / "images" / "a2b" / "000_0.png").astype(int)
    dark = images.read_image(output / "images" / "a2b" / "000_3.png")
    assert np.abs(inputs // 2 - dark).mean() < 2
    # A second time replaces it; a folder of something else is left alone.
    given.rows = 1
    evaluate.main([])
    assert len(list((output / "images" / "a2b").iterdir())) < len({path for path in shown if "/a2b/" in path})
    given.output = str(tmp_path / "others")
    with pytest.raises(UserError, match="--output=.*others exists and is no page of this command"):
        evaluate.main([])
    assert not list(tmp_path.glob(".tfi2i*"))


class Adding(OneWay):
    """Stands in for a model of some run: adds `level`."""

    def __init__(self, data, level=0, seed=0, step=7):
        super().__init__(data)
        self.run = dataclasses.replace(self.run, training=dataclasses.replace(self.run.training, seed=seed))
        self._level, self.checkpoint_step = level, step

    def translate(self, x, direction="a2b", batch_size=1):
        return x + np.uint8(self._level)


@pytest.fixture
def compared(folder, tmp_path, monkeypatch):
    """Compares runs, given as dict of name → `Adding`, on the pairs of `folder`; returns the figures."""

    def compare(models, **given):
        monkeypatch.setattr("tfi2i.checkpoints.load", lambda run, _: models[run])
        return pages.compare(list(models), output=tmp_path / "gallery", metrics=["l1"], **given)

    return compare


def test_runs_are_compared_with_one_preparation(folder, compared):
    """A picture of 8 px: 16 px by two filters differ, so that the order of the runs would matter."""
    rng = np.random.default_rng(0)
    for domain in "AB":
        images.write_image(folder / f"test{domain}" / "0.png", rng.integers(0, 200, (8, 8, 3), np.uint8))
    size = {"resize": (16, 16), "crop": (16, 16), "resize_mode": "exact"}
    x, y = (config.Data(data=str(folder), resize_filter=f, **size) for f in ("bicubic", "bilinear"))
    for models, seen in (
        ({"x": Adding(x), "y": Adding(y)}, "x and y .* --resize_filter=bicubic against --resize_filter=bilinear"),
        ({"y": Adding(y), "x": Adding(x)}, "y and x .* --resize_filter=bilinear against --resize_filter=bicubic"),
    ):
        with pytest.raises(UserError, match=f"{seen}: give --size=16,16 "):
            compared(models)
    smaller = dataclasses.replace(y, crop=(8, 8))
    with pytest.raises(UserError, match="--resize_filter=bicubic --crop=16,16 against .*bilinear --crop=8,8"):
        compared({"x": Adding(x), "y": Adding(smaller)})
    found = [
        compared(models, size="16", filter="lanczos")
        for models in ({"x": Adding(x), "y": Adding(smaller)}, {"y": Adding(smaller), "x": Adding(x)})
    ]
    of_x, of_y = ([f["directions"]["a2b"][name]["l1"] for f in found] for name in "xy")
    assert of_x[0] == of_x[1] == of_y[0] == of_y[1]
    expected = {"resize": None, "resize_mode": "exact", "resize_filter": "lanczos", "crop": (16, 16)}
    assert found[0]["preparation"] == expected
    # What comes out equal is no difference, and bicubic is what --size alone means.
    same = compared({"x": Adding(x), "y": Adding(dataclasses.replace(x, resize=(20, 20)))})
    assert same["directions"] == compared({"y": Adding(y), "x": Adding(x)}, size="16")["directions"] | {}
    for change in ({"background": (0, 0, 0)}, {"swap_domains": True}):
        with pytest.raises(UserError, match=f"x and y differ in --{next(iter(change))}"):
            compared({"x": Adding(x), "y": Adding(dataclasses.replace(x, **change))}, size="16")


def test_networks_of_one_size_get_it_by_their_runs_filter():
    class Fixed(Constant):
        sizes = Sizes(fixed=(4, 4))
        run = types.SimpleNamespace(data=config.Data(resize_filter="lanczos"))

    x = np.random.default_rng(0).integers(0, 200, (1, 8, 8, 3), np.uint8)
    expected = images.resize(images.resize(x[0], (4, 4), "lanczos") + np.uint8(10), (8, 8), "lanczos")
    np.testing.assert_array_equal(candidates.of_model(Fixed()).translate(x, "a2b", ["x"])[0], expected)


def test_runs_of_several_seeds_share_a_row(folder, compared, tmp_path, capsys):
    """Adding 10, 12 and 17 to the first four pairs, which are 10 apart, and to one that is 30 apart."""
    data = config.Data(data=str(folder))
    models = {f"m_{seed}": Adding(data, level, seed) for seed, level in enumerate((10, 12, 17))}
    others = {
        "later": Adding(data, 10, 3, step=8),
        "twice_1": Adding(data, 5, 3, step=9),
        "twice_2": Adding(data, 5, 3, 9),
    }
    figures = compared(models | others, table="csv")
    group = "m_0 … m_2, 3 seeds"
    assert figures["over_seeds"]["runs"] == {group: list(models)}
    # L1 is 4, (8 + 18) / 5 and (28 + 13) / 5.
    assert [figures["directions"]["a2b"][name]["l1"] for name in models] == pytest.approx([4, 5.2, 8.2])
    mean = figures["over_seeds"]["directions"]["a2b"][group]
    assert mean["l1"] == pytest.approx(5.8) and mean["l1_std"] == pytest.approx(((1.8**2 + 0.6**2 + 2.4**2) / 2) ** 0.5)
    assert f'a2b,"{group}",3,5,5.8,2.16333' in (tmp_path / "gallery" / "metrics.csv").read_text()
    assert "sample standard deviation" in capsys.readouterr().out
    page = (tmp_path / "gallery" / "index.html").read_text()
    assert f"{group} " in page and all(f"<th>{name}</th>" for name in models)
    rows = [line.split(",")[-5] for line in (tmp_path / "gallery" / "metrics.csv").read_text().splitlines()[2:5]]
    assert rows == ["later", "twice_1", "twice_2"]
    best = {name: Adding(data, 10, seed, step=seed) for seed, name in enumerate(("x", "y"))}
    assert list(compared(best, checkpoint="best")["over_seeds"]["runs"]) == ["x … y, 2 seeds"]
    assert "over_seeds" not in compared(best)


def test_names_are_text_in_a_gallery(folder, tmp_path, compared):
    for domain in "AB":
        images.write_image(folder / f"test{domain}" / "<b>&.png", np.zeros((8, 8, 3), np.uint8))
    compared({'<i>"x': Adding(config.Data(data=str(folder)))}, rows=9)
    page = (tmp_path / "gallery" / "index.html").read_text()
    assert "&lt;b&gt;&amp;" in page and "&lt;i&gt;&#34;x" in page and "<b>" not in page and "<i>" not in page


def test_a_comparison_of_folders_alone(folder, tmp_path, with_levels):
    for name in ("one", "two"):
        for i in range(5):
            images.write_image(tmp_path / name / f"{i}.png", np.full((8, 8, 3), 10 * i, np.uint8))
    named = {name: str(tmp_path / name) for name in ("one", "two")}
    given = {"data": str(folder), "direction": "a2b", "size": "16"}
    pages.compare(folder=named, output=tmp_path / "out", **given)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(written["directions"]) == ["a2b"]
    assert written["directions"]["a2b"]["one"] == written["directions"]["a2b"]["two"]
    for change, message in (
        ({"folder": {"do nothing": named["one"]}}, "'do nothing' is a name of this command's own"),
        ({"data": None}, "give --data=FOLDER"),
    ):
        with pytest.raises(UserError, match=message):
            pages.compare(**{"folder": named, "output": tmp_path / "new", **given} | change)


def test_folders_have_names_of_their_own(run_dir, tmp_path):  # noqa: F811
    assert evaluate.named_folders(["one=a=b", "two=c"]) == {"one": "a=b", "two": "c"}
    for texts, message in (
        (["one"], "--folder=one: expected NAME=FOLDER"),
        (["a=b", "a=c"], "two folders have one name"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate.named_folders(texts)
    for run_dirs, folders in (([run_dir, run_dir], {}), ([run_dir], {run_dir.name: tmp_path})):
        with pytest.raises(UserError, match="two of the runs and folders have one name"):
            pages.compare(run_dirs, folders, output=tmp_path / "new")


# -------------------------------------------------------------------------------------------- folders that are replaced


def test_a_page_replaces_only_a_page(tmp_path):
    folder = tmp_path / "page"

    def write():
        with gallery.replaced(folder, "--study") as partial:
            assert partial.parent.parent == tmp_path and partial.parent.name.startswith(".tfi2i-")
            (partial / "index.html").write_text(gallery.page("gallery.html", title="title", table="", directions=[]))

    (tmp_path / "page.tmp").mkdir()
    (tmp_path / "page.tmp" / "mine.txt").touch()  # a name that anybody may have chosen
    folder.mkdir()
    write()
    write()
    for name in ("metrics.json", "a2b.png", "b2a_plot.png", "images/q000_1.png", "images/a2b/000_0.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    entries = sorted(folder.rglob("*"))
    for name in ("thesis.txt", "images/answers.json"):
        (folder / name).touch()
        with pytest.raises(UserError, match=f"--study={folder} is replaced as a whole, and {name} in it"):
            write()
        (folder / name).unlink()
    with pytest.raises(ZeroDivisionError), gallery.replaced(folder, "--study") as partial:
        (partial / "metrics.json").write_text(str(1 / 0))
    with pytest.raises(UserError, match="late.txt in it"), gallery.replaced(folder, "--study"):
        (folder / "late.txt").touch()
    (folder / "late.txt").unlink()
    assert sorted(folder.rglob("*")) == entries and not list(tmp_path.glob(".tfi2i*"))
    write()
    assert [p.name for p in folder.iterdir()] == ["index.html"]
    (folder / "index.html").write_text("<!doctype html><title>mine</title>")
    for given in (folder, folder / "index.html"):
        with pytest.raises(UserError, match=f"--output={given} exists and is no page"):
            gallery.check(given, "--output")
    assert (tmp_path / "page.tmp" / "mine.txt").is_file() and not list(tmp_path.glob(".tfi2i*"))


def test_a_page_can_be_read_by_others_and_be_behind_a_link(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with gallery.replaced(tmp_path / "link", "--output") as partial:
        (partial / "index.html").touch()
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target" / "index.html").is_file()
    assert (tmp_path / "target").stat().st_mode == (tmp_path / "plain").stat().st_mode


# ------------------------------------------------------------------------------------------------------------- study


@pytest.fixture
def two_folders(folder, tmp_path):
    """Arguments for the candidates "one" and "two", whose pictures are all of level 1 and all of level 2."""
    for level, name in ((1, "one"), (2, "two")):
        for i in range(5):
            images.write_image(tmp_path / name / f"{i}.png", np.full((8, 8, 3), level, np.uint8))
    return {"folder": {n: tmp_path / n for n in ("one", "two")}, "data": str(folder), "direction": "a2b"}


@pytest.fixture
def asked(two_folders, tmp_path):
    """A study of `two_folders`."""
    more = {"rows": 4, "study_examples": 2, "domain_names": ["horses", "ze<bras"]}
    pages.write_study(tmp_path / "study", **two_folders, **more)
    return tmp_path / "study"


def test_a_study_is_blind(asked):
    page = (asked / "index.html").read_text()
    key = json.loads(study.key_path(asked).read_text())
    assert page.count('<section class="question"') == len(key["questions"]) == 4
    assert "ze&lt;bras" in page and "ze<bras" not in page and "horses" not in page
    names = [p.name for p in (asked / "images").iterdir()]
    assert not any("one" in n or "two" in n for n in names) and not re.search(r"\b(one|two)\b", page)
    assert all((asked / path).is_file() for path in re.findall(r'src="([^"]+)"', page))
    assert sum(n.startswith("real_a2b") for n in names) == 2 and not (asked / "key.json").exists()
    for identity, question in key["questions"].items():
        assert sorted(question["methods"]) == ["one", "two"]
        for i, method in enumerate(question["methods"]):
            level = {"one": 1, "two": 2}[method]
            assert (images.read_image(asked / "images" / f"{identity}_{i}.png") == level).all()
    assert len({tuple(q["methods"]) for q in key["questions"].values()}) == 2  # not always the same first


@pytest.mark.parametrize("rows, limit, n", [(1, None, 1), (3, 4, 3), (4, 2, 2), (9, 9, 5)])
def test_a_study_translates_what_it_shows(two_folders, tmp_path, monkeypatch, rows, limit, n):
    translated = []

    def of_pictures(*given, original=candidates.of_pictures):
        candidate = original(*given)

        def translate(inputs, direction, names):
            translated.extend(names)
            return candidate.translate(inputs, direction, names)

        return candidates.Candidate(translate, candidate.directions)

    monkeypatch.setattr(candidates, "of_pictures", of_pictures)
    pages.write_study(tmp_path / "study", **two_folders, rows=rows, limit=limit)
    questions = json.loads(study.key_path(tmp_path / "study").read_text())["questions"].values()
    assert sorted(translated) == sorted(2 * [q["name"] for q in questions]) and len(translated) == 2 * n


def test_a_study_needs_neither_pairs_nor_pictures_of_one_size(two_folders, folder, tmp_path):
    """Of B one picture has a partner, of another size; of A one is larger than the others and one is broken."""
    for i in (0, 1, 2, 4):
        (folder / "testB" / f"{i}.png").rename(folder / "testB" / f"b{i}.png")
    images.write_image(folder / "testB" / "3.png", np.zeros((9, 5, 3), np.uint8))
    images.write_image(folder / "testA" / "1.png", np.zeros((12, 8, 3), np.uint8))
    (folder / "testA" / "2.png").write_bytes(b"")
    pages.write_study(tmp_path / "study", **two_folders)
    key = json.loads(study.key_path(tmp_path / "study").read_text())
    assert sorted(q["name"][-5:] for q in key["questions"].values()) == ["0.png", "1.png", "3.png", "4.png"]


def test_a_study_of_something_else_is_another_study(two_folders, folder, tmp_path):
    def identity(**given):
        pages.write_study(tmp_path / "study", **two_folders | given)
        return json.loads(study.key_path(tmp_path / "study").read_text())["study"]

    first = identity()
    assert re.fullmatch("[0-9a-f]{16}", first) and identity() == first
    assert f'data-study="{first}"' in (tmp_path / "study" / "index.html").read_text()
    other_name = {"one": tmp_path / "one", "three": tmp_path / "two"}
    found = [first, identity(folder=other_name), identity(seed=1), identity(study_examples=1), identity(rows=4)]
    for path in (tmp_path / "two" / "4.png", folder / "testA" / "0.png"):
        images.write_image(path, np.full((8, 8, 3), 77, np.uint8))
        found.append(identity())
    assert len(set(found)) == 7


def test_a_study_leaves_the_folders_of_others_alone(asked, two_folders):
    earlier = study.key_path(asked).read_text()
    (asked / "answers.json").touch()
    with pytest.raises(UserError, match="--study=.*study is replaced as a whole, and answers.json in it"):
        pages.write_study(asked, **two_folders, rows=1)
    assert (asked / "answers.json").is_file() and study.key_path(asked).read_text() == earlier
    (asked / "answers.json").unlink()
    pages.write_study(asked, **two_folders, rows=1)
    assert study.key_path(asked).read_text() != earlier
    assert {p.name for p in asked.iterdir()} == {"index.html", "images"}
    assert not [p for p in asked.parent.iterdir() if "tmp" in p.name or p.name.startswith(".")]


def test_real_examples_of_a_study_are_written_once(two_folders, tmp_path, monkeypatch):
    written, write_image = [], images.write_image
    monkeypatch.setattr(images, "write_image", lambda path, *given: written.append(path) or write_image(path, *given))
    pages.write_study(tmp_path / "study", **two_folders, study_examples=2)
    # Five questions of an input and two translations, and what all of them show.
    assert len(written) == len(set(written)) == 5 * 3 + 2


def test_answers_are_counted(asked, tmp_path, capsys):
    key = json.loads(study.key_path(asked).read_text())
    files = []
    for person in range(3):
        # All prefer "two", but the last person once.
        choices = {i: q["methods"].index("two") for i, q in key["questions"].items()}
        if person == 2:
            choices["q001"] = 1 - choices["q001"]
        files.append(tmp_path / f"answers{person}.json")
        files[-1].write_text(json.dumps({"study": key["study"], "answers": choices}))
    counted = study.count(asked, files)["a2b"]
    assert (counted["two"]["chosen"], counted["one"]["chosen"], counted["two"]["n"]) == (11, 1, 12)
    assert counted["two"]["share"] == pytest.approx(11 / 12)
    assert study.count_study(asked, files)["a2b"] == counted and "11 of 12" in capsys.readouterr().out
    written = json.loads((tmp_path / "study.results.json").read_text())
    assert written["directions"]["a2b"]["one"]["n"] == 12 and written["answers"] == list(map(str, files))
    files[0].write_text(json.dumps({"study": "other", "answers": {}}))
    with pytest.raises(UserError, match="belongs to another study"):
        study.count(asked, files)
    files[0].write_text(json.dumps({"study": key["study"], "answers": {"q000": 2}}))
    with pytest.raises(UserError, match="q000 has the answer 2"):
        study.count(asked, files)
    files[0].write_text("[]")
    with pytest.raises(UserError, match="cannot be read as a part of a study"):
        study.count(asked, files)
    with pytest.raises(UserError, match="none.json cannot be read: No such file"):
        study.count(asked, [tmp_path / "none.json"])


def test_wilsons_interval():
    """Newcombe (1998), table 1: 81 of 263 and 0 of 20."""
    assert study.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert study.wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert study.wilson(0, 0) == (0, 1)


def test_a_study_needs_two_folders(folder, tmp_path):
    images.write_image(tmp_path / "one" / "0.png", np.zeros((8, 8, 3), np.uint8))  # of five: none is translated before
    given = {"folder": {"one": tmp_path / "one"}, "data": str(folder), "direction": "a2b"}
    with pytest.raises(UserError, match="at least two runs or folders"):
        pages.write_study(tmp_path / "study", **given)
    with pytest.raises(UserError, match="expected two names"):
        pages.write_study(tmp_path / "study", **given, domain_names=["x"])
    assert not (tmp_path / "study").exists() and not study.key_path(tmp_path / "study").exists()


def test_directions_that_a_study_can_ask_about():
    both, one = candidates.Candidate(None), candidates.Candidate(None, ("a2b",))
    assert study.directions({"x": both, "y": both}, ("a2b", "b2a")) == ["a2b", "b2a"]
    assert study.directions({"x": one, "y": one}, ("a2b", "b2a")) == ["a2b"]
    with pytest.raises(UserError, match="at least two runs or folders, fewer translate b2a: give"):
        study.directions({"x": one, "y": both}, ("a2b", "b2a"))
    with pytest.raises(UserError, match="fewer translate b2a"):
        study.directions({"x": one, "y": one}, ("b2a",))


@pytest.mark.parametrize(
    "given, message",
    [
        ({"answers": ["x"]}, "give --study"),
        ({}, "give --run_dir=RUN .*, or --real"),
        ({"real": "x"}, "go together"),
        ({"real": "x", "fake": "y", "run_dir": ["z"]}, "give --run_dir"),
        ({"source": "x", "run_dir": ["z"]}, "go together"),
        ({"real": "x", "fake": "y", "split": "val"}, "--split has no effect with --real"),
        ({"real": "x", "fake": "y", "a": "x", "b": "y"}, "--a has no effect with --real"),
        ({"run_dir": ["z"], "a": "x"}, "give --data=FOLDER, or both --a=FOLDER and --b=FOLDER"),
        ({"run_dir": ["z"], "data": "d", "a": "x", "b": "y"}, "give --data=FOLDER, or both --a=FOLDER and --b"),
        ({"run_dir": ["a,b"]}, "--run_dir=a,b is no run directory: repeat .* as in --run_dir=a --run_dir=b"),
    ],
)
def test_what_is_measured_must_be_said_once(monkeypatch, given, message):
    monkeypatch.setattr(evaluate.flags, "FLAGS", values(**given))
    with pytest.raises(UserError, match=message):
        evaluate.main([])


@pytest.mark.parametrize(
    "given, called, arguments",
    [
        ({"run_dir": ["x"]}, "evaluate_run", ["x", None, None, None, "both", 8]),
        ({"run_dir": ["x"], "metrics": ["kid"], "size": "64"}, "evaluate_run", {"metrics": ["kid"], "size": "64"}),
        ({"run_dir": ["x"], "protocol": "egsde", "seed": 7}, "evaluate_run", {"protocol": "egsde", "seed": 7}),
        ({"run_dir": ["x", "y"], "limit": 3}, "compare", {"run_dir": ["x", "y"], "output": "comparison", "limit": 3}),
        ({"folder": ["n=f"], "data": "emoji"}, "compare", {"folder": {"n": "f"}, "data": "emoji", "run_dir": []}),
        ({"run_dir": ["x"], "table": "csv"}, "evaluate_run", {"table": "csv"}),
        ({"real": "x", "fake": "y", "network": "inception_2015"}, "evaluate_folders", {"network": "inception_2015"}),
        ({"run_dir": ["x"], "study": "s", "rows": 3}, "write_study", {"rows": 3, "domain_names": None}),
    ],
)
def test_flags_become_arguments(monkeypatch, given, called, arguments):
    """One call, with what was given; of how to measure, with nothing else: a protocol has values of its own."""
    calls = []
    for name in ("evaluate_run", "evaluate_folders", "compare", "write_study"):
        monkeypatch.setattr(pages, name, lambda *a, name=name, **k: calls.append((name, list(a), k)))
    monkeypatch.setattr(evaluate.flags, "FLAGS", values(**given))
    evaluate.main([])
    ((name, positional, keywords),) = calls
    assert name == called
    if isinstance(arguments, list):
        assert (positional, keywords) == (arguments, {})
    else:
        assert arguments.items() <= keywords.items()
        assert {n: v for n, v in keywords.items() if n in evaluate._PROTOCOL}.items() <= given.items()


def test_help_names_the_flags():
    shown = command("--help", module="tfi2i.evaluate").stdout
    assert all(f"--{flag}" in shown for flag in ("split", "data", "output", "limit", "checkpoint"))
