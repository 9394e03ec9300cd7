"""Evaluation on pairs, with models whose numbers are known, and once as a command."""

import json
import types

import numpy as np
import pytest

from tests.test_translate import command, run_dir  # noqa: F401  (a fixture)
from tfi2i import config, evaluate
from tfi2i.config import UserError
from tfi2i.data import images


class Constant:
    """Stands in for a model: adds 10 to go from A to B, and subtracts 10."""

    channels_a = channels_b = 3
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


def run(folder, model=None, **options):
    return evaluate.evaluate(model or Constant(), config.Data(data=str(folder)), active=False, **options)


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
    assert "equal" in evaluate.table(results)
    json.dumps(results, allow_nan=False)


def test_examples_include_best_and_worst_and_stay_the_same(folder):
    _, examples = run(folder)
    assert [e["rank"] for e in examples] == ["", "", "", "best", "worst"]
    assert examples[-1]["name"].endswith("4.png") and examples[-1]["l1"] == {"a2b": 20, "b2a": 20}
    assert (examples[-1]["a2b"] == 210).all() and (examples[-1]["b"] == 230).all()
    assert [e["name"] for e in run(folder, batch_size=2)[1]] == [e["name"] for e in examples]


def test_no_more_examples_are_kept_than_shown(folder, monkeypatch):
    monkeypatch.setattr(evaluate, "_ROWS", 1)
    for batch_size in (1, 8):
        ranks = [e["rank"] for e in run(folder, batch_size=batch_size)[1]]
        assert ranks in (["best", "worst"], ["", "best", "worst"])


def test_a_single_pair(folder):
    results, examples = run(folder, limit=1)
    assert results["a2b"]["model"]["n"] == 1 and [e["rank"] for e in examples] == ["best"]
    assert evaluate.picture(Constant(), examples, "one").ndim == 3


def test_moments_of_the_training_sets(folder):
    moments = evaluate.training_moments(config.Data(data=str(folder)))
    np.testing.assert_allclose(moments["a"], [[30] * 3, [10] * 3])
    np.testing.assert_allclose(moments["b"], [[40] * 3, [10] * 3])


def test_match_moments_by_hand():
    x = np.array([[[[90, 100, 110]]]], np.uint8)
    source, target = (np.full(3, 100.0), np.full(3, 10.0)), (np.full(3, 50.0), np.array([20.0, 20.0, 200.0]))
    np.testing.assert_array_equal(evaluate.match_moments(x, source, target), [[[[30, 50, 250]]]])
    # To grey by the mean of the channels, which is 0 standard deviations here.
    assert evaluate.match_moments(x, source, (np.array([7.0]), np.array([3.0]))).tolist() == [[[[7]]]]


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
    results, examples = evaluate.evaluate(Grey(), data, active=False)
    assert [results[d][m]["l1"] for d in results for m in results[d]] == [0] * 6
    assert evaluate.picture(Grey(), examples, "grey").shape[-1] == 3


def test_names_that_match():
    assert evaluate.match_names(["testA/x.png", "testA/y.png"], ["testB/y.jpg", "testB/z.jpg"]) == [(1, 0)]
    assert evaluate.match_names(["test/A/1_A.jpg", "test/A/2_A.jpg"], ["test/B/1_B.jpg", "test/B/2_B.jpg"]) == [
        (0, 0), (1, 1),
    ]  # fmt: skip
    assert evaluate.match_names(["testA/s/x.png", "testA/x.png"], ["testB/s/x.png", "testB/x.png"]) == [(0, 0), (1, 1)]
    assert evaluate.match_names(["a.png"], ["b.png"]) == []
    # The exact name comes first: plan_A is the plan of flat A here, not the side of a pair.
    assert evaluate.match_names(["plan_A.png", "plan.png"], ["plan.png", "plan_A.png"]) == [(0, 1), (1, 0)]
    assert evaluate.match_names(["plan_A.png", "plan.png"], ["plan.png", "x.png"]) == [(1, 0)]


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
        evaluate.match_names(names_a, names_b)
    assert evaluate.match_names([*names_a, "z.png"], ["z.png"]) == [(len(names_a), 0)]


def test_no_pairs_are_an_error(folder):
    for path in (folder / "testB").iterdir():
        path.rename(path.with_name(f"other{path.name}"))
    with pytest.raises(UserError, match="test images are no pairs: none of 5 names in A .*0.png, .*otherB?0.png"):
        run(folder)
    with pytest.raises(UserError, match="no val images"):
        run(folder, split="val")


def test_pairs_must_have_one_size(folder):
    images.write_image(folder / "testB" / "1.png", np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(UserError, match="pairs must match"):
        run(folder)


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
    page = evaluate.picture(Constant(), examples, "shapes")
    assert page.dtype == np.uint8 and page.shape[1] > 8 * 256 and (page[0] == 255).all()


def test_command_on_the_bundled_sample(run_dir, tmp_path):  # noqa: F811
    done = command(
        f"--run_dir={run_dir}", "--split=val", "--limit=3", f"--output={tmp_path}/page.png", module="tfi2i.evaluate"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((run_dir / "evaluate.json").read_text())
    assert report["pairs"] == 3 and report["checkpoint_step"] == 7 and report["size"] == [64, 64]
    for direction in ("a2b", "b2a"):
        assert f"\n{direction}  this model         3" in done.stdout
        assert report["directions"][direction]["do_nothing"]["l1"] > 0
    assert images.read_image(tmp_path / "page.png").shape[1] > 8 * 128

    done = command(f"--run_dir={run_dir}", "--output=page", module="tfi2i.evaluate")
    assert done.returncode == 1 and "error: --output=page: expected the name of an image" in done.stderr


def test_help_names_the_flags():
    shown = command("--help", module="tfi2i.evaluate").stdout
    assert all(f"--{flag}" in shown for flag in ("split", "data", "output", "limit", "checkpoint"))
