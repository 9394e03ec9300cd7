"""One line in the table makes a method: the commands train, resume, translate, evaluate and export the toy."""

import json
import pathlib
import subprocess
import types

import numpy as np
import pytest
import tensorflow as tf

import tfi2i
from tests.own_flags import call
from tests.toy import command as toy_command
from tests.toy.model import OneWayToy, Toy
from tfi2i import config, export, settings, translation
from tfi2i import pictures as shared_pictures
from tfi2i.commands import evaluate as evaluate_command
from tfi2i.config import UserError
from tfi2i.data import images
from tfi2i.methods.cyclegan.model import CycleGAN
from tfi2i.methods.translator import Translator
from tfi2i.training import loop

TINY = {"pool_size": 3}
SIDE = 16
SAMPLEWISE = {"norm": "none"}
WITHOUT_DRAWS = {"dropout": False}

EMOJI = pathlib.Path(tfi2i.__file__).parent / "data" / "emoji"
# What each command is given beside --run_dir.
TRAIN = ["--method=toy", "--data=emoji", "--batch_size=2", "--lr_schedule=constant", "--save_every=1", "--keep=5"]
TRAIN += ["--log_every=1", "--sample_every=1", "--toy_width=6"]
FORMATS = ["--formats=saved_model,float32", "--min_psnr=20", "--calibration_images=4", "--verification_images=4"]


def run(command, *arguments):
    done = subprocess.run([*toy_command(command), *arguments], capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def succeed(*arguments):
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(*arguments):
    """The one sentence of a command that fails."""
    done = run(*arguments)
    assert done.returncode in (1, 2)  # after the work has begun, or before
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def logged(run_dir, event):
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps that was resumed for a third."""
    run_dir = tmp_path_factory.mktemp("runs") / "toy"
    succeed("tfi2i.train", *TRAIN, "--steps=2", f"--run_dir={run_dir}")
    assert "resumed at step 2" in succeed("tfi2i.train", *TRAIN, "--steps=3", f"--run_dir={run_dir}")
    return run_dir


def test_it_is_trained_and_resumed(trained):
    assert [line["step"] for line in logged(trained, "step")] == [1, 2, 3]
    assert {"cycle_a", "style_b", "features_a", "perceptual_b", "discriminator_a"} <= logged(trained, "step")[-1].keys()
    assert json.loads((trained / "config.json").read_text())["model"]["toy_width"] == 6
    assert "--toy_width=6" in (trained / "flags.txt").read_text().splitlines()
    assert sorted(p.name for p in (trained / "samples").iterdir()) == ["00000001.png", "00000002.png", "00000003.png"]


def test_help_shows_its_flags():
    assert "--toy_width: channels of every network" in run("tfi2i.train", "--method=toy", "--help").stdout


def test_its_flags_are_refused_with_another_method(tmp_path):
    said = refusal("tfi2i.train", "--method=cyclegan", "--toy_width=6", "--data=emoji", f"--run_dir={tmp_path}")
    assert said.startswith("error: --toy_width is not a flag of --method=cyclegan")


def test_it_translates(trained, tmp_path):
    arguments = [f"--run_dir={trained}", f"--input={EMOJI}/valB", f"--output={tmp_path}", "--batch_size=64"]
    assert "translated 64 of 64 images b2a" in succeed("tfi2i.translate", *arguments, "--direction=b2a")
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in (EMOJI / "valB").iterdir()}
    assert all(images.read_image(p).shape == (128, 128, 3) for p in tmp_path.iterdir())


def test_it_is_evaluated(trained):
    succeed("tfi2i.evaluate", f"--run_dir={trained}", "--limit=8")
    measured = json.loads((trained / "evaluate.json").read_text())["directions"]
    assert {d: values["model"]["n"] for d, values in measured.items()} == {"a2b": 8, "b2a": 8}


def test_it_is_exported(trained, tmp_path):
    output = tmp_path / "exported"
    succeed("tfi2i.export.__main__", f"--run_dir={trained}", f"--output={output}", *FORMATS)
    report = json.loads((output / "report.json").read_text())
    assert report["passed"] and report["method"] == "toy" and set(report["formats"]) == {"saved_model", "float32"}


# ------------------------------------------------------------------------------------------------- one direction alone


@pytest.fixture(scope="module")
def one_way(toy, tmp_path_factory):
    """The run directory of a model that translates A to B alone, measured after each of its two steps."""
    run_dir = tmp_path_factory.mktemp("runs") / "one_way"
    given = {"data": "emoji", "batch_size": 2, "steps": 2, "save_every": 1, "log_every": 1}
    given |= {"eval_every": 1, "eval_metrics": "l1", "eval_images": 4}
    loop.train(settings.resolve("one_way_toy", TINY | given), run_dir)
    return run_dir


def test_one_way_is_trained_measured_and_shown(one_way):
    assert [line["step"] for line in logged(one_way, "step")] == [1, 2]
    evals = logged(one_way, "eval")
    assert [set(line) for line in evals] == [{"event", "step", "a2b"}] * 2
    best = json.loads((one_way / "best" / "manifest.json").read_text())
    assert best["value"] == min(line["a2b"]["l1"] for line in evals)
    assert (one_way / "samples" / "00000002.png").is_file()
    x = np.zeros((1, SIDE, SIDE, 3), "float32")
    assert [*tfi2i.load(one_way).pictures(x, x)] == ["A", "A to B", "A to B, seed 1", "A to B, seed 2", "B"]


def test_one_way_is_evaluated(one_way):
    succeed("tfi2i.evaluate", f"--run_dir={one_way}", "--limit=8", "--checkpoint=best")
    assert json.loads((one_way / "evaluate.json").read_text())["directions"].keys() == {"a2b"}
    with pytest.raises(UserError, match=f"^--direction=b2a: {one_way} translates a2b only$"):
        call(evaluate_command, f"--run_dir={one_way}", "--direction=b2a")


def test_one_way_translates(one_way, tmp_path):
    model = tfi2i.load(one_way)
    written, failed = translation.translate_files(model, EMOJI / "valA", tmp_path / "out", batch_size=64, active=False)
    assert len(written) == 64 and not failed
    with pytest.raises(UserError, match="^--direction=b2a: this model translates a2b only$"):
        translation.translate_files(model, EMOJI / "valB", tmp_path / "back", direction="b2a", active=False)
    assert not (tmp_path / "back").exists()


def test_one_way_is_exported(one_way, tmp_path):
    model = tfi2i.load(one_way)
    floors = dict.fromkeys(export.FLOORS, 20)
    few = {"calibration_images": 4, "verification_images": 4, "floors": floors, "log": lambda text: None}
    report = export.export(model, tmp_path / "out", formats=("float32",), **few)
    assert report["passed"] and report["direction"] == "a2b"
    with pytest.raises(UserError, match="^--direction=b2a: this model translates a2b only$"):
        export.export(model, tmp_path / "back", direction="b2a", **few)
    assert not (tmp_path / "back").exists()


# -------------------------------------------------------------------------------------------------------------- stages


class StagedToy(OneWayToy):
    """Its discriminator learns in every second step alone."""

    def stage(self, step):
        return "both" if step % 2 else "generator"

    def learn(self, a, b, indices, stage):
        return super().learn(a, b, indices) if stage == "both" else self.learn_generators(a, b, indices)[0]


def test_what_is_learned_may_differ_from_step_to_step(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.toy.model.OneWayToy", StagedToy)
    given = TINY | {"data": "emoji", "batch_size": 2, "steps": 4, "log_every": 1, "save_every": 3}
    loop.train(settings.resolve("one_way_toy", given), tmp_path / "run")
    learned = ["discriminator_b" in line for line in logged(tmp_path / "run", "step")]
    assert learned == [False, True, False, True]
    with pytest.raises(ValueError, match="learns in stages, which fit does not know"):
        tfi2i.load(tmp_path / "run").fit(np.zeros((2, SIDE, SIDE, 3), "float32"))


def test_a_dry_run_takes_steps_of_each_kind(toy, tmp_path, monkeypatch, capsys):
    taken = []

    class Told(StagedToy):
        def stage(self, step):
            return "both" if step >= 600 else "generator"

        def learn(self, a, b, indices, stage):
            tf.py_function(lambda: taken.append(stage), [], [])
            return super().learn(a, b, indices, stage)

    monkeypatch.setattr("tests.toy.model.OneWayToy", Told)
    given = TINY | {"data": "emoji", "batch_size": 2, "steps": 800, "xla": "off"}
    loop.train(settings.resolve("one_way_toy", given), tmp_path / "run", dry_run=True)
    assert taken == 3 * ["generator"] + 3 * ["both"]
    said = capsys.readouterr().out
    assert " a step: 800 steps take " in said and "of another kind" not in said


# -------------------------------------------------------------------------------------------------------------- styles


@pytest.fixture(scope="module")
def model():
    model = Toy(**TINY)
    model.build((None, None, None, 3))
    return model


def pictures(count, seed=0, size=(6, 10)):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)


def assert_alike(x, y):
    """Equal but for a level where rounding decides: batches of other sizes are computed in another order."""
    np.testing.assert_allclose(x.astype(int), y, atol=1)


def test_without_a_style_it_is_drawn_with_seed_0(model):
    x = pictures(3)
    plain = model.translate(x)
    np.testing.assert_array_equal(plain, model.translate(x, seed=0))
    assert (plain != model.translate(x, seed=1)).any() and (plain != model.translate(x, style=[2.0, -1.0])).any()


def test_a_list_has_the_styles_of_an_array(model):
    x = pictures(2)
    for given in ({"seed": 1}, {"style": [[2.0, -1.0], [0.0, 1.0]]}):
        for one, other in zip(model.translate([*x], **given), model.translate(x, **given), strict=True):
            assert_alike(one, other)


def test_one_style_for_all_or_one_for_each(model):
    x, styles = pictures(3), np.random.default_rng(1).normal(size=(3, 2))
    each = model.translate(x, "b2a", batch_size=2, style=styles)
    for i in range(3):
        assert_alike(model.translate(x[i], "b2a", style=styles[i]), each[i])
        assert_alike(model.translate(x, "b2a", style=styles[i : i + 1])[i], each[i])
    assert_alike(model.translate(x[0], "b2a", style=styles[:1]), each[0])


def test_reference_images_give_their_style(model):
    x, references = pictures(2), pictures(2, seed=1, size=(8, 4))
    floats = model.to_float(tf.constant(references))
    styles = model.encode_style(floats, "b2a").numpy()
    assert np.abs(styles[0] - styles[1]).max() > 1e-3
    expected = model.translate(x, "b2a", style=styles)
    assert_alike(model.translate(x, "b2a", reference=references), expected)
    assert_alike(model.translate(x[1], "b2a", reference=references[1]), expected[1])
    assert_alike(model.translate(x, "b2a", reference=references[0])[0], expected[0])
    for deep in (references.astype(np.uint16) * 257, floats.numpy()):
        assert_alike(model.translate(x, "b2a", reference=deep), expected)


def test_styles_are_drawn_by_seed_and_name_alone(model):
    drawn = model.draw_styles(1, ["a.png", "b.png", "a.png", *range(3)])
    assert drawn.dtype == np.float32 and len(np.unique(drawn, axis=0)) == 5
    np.testing.assert_array_equal(drawn[0], drawn[2])
    np.testing.assert_array_equal(model.draw_styles(1, ["b.png"])[0], drawn[1])
    np.testing.assert_array_equal(model.draw_styles(1, [2])[0], drawn[5])
    assert (model.draw_styles(2, ["a.png"]) != drawn[0]).all() and model.draw_styles(1, []).shape == (0, 2)
    many = model.draw_styles(0, range(500))
    assert abs(many.mean()) < 0.1 and many.std() == pytest.approx(1, abs=0.1)


def test_a_file_has_the_style_of_its_name(model, tmp_path):
    x = pictures(1)[0]
    images.write_image(tmp_path / "a.png", x)
    expected = model.translate(x, style=model.draw_styles(3, ["a.png"]))
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(model.translate(path, seed=3), expected)


def test_seed_draws_a_style_for_each_image(model):
    x = np.repeat(pictures(1), 3, axis=0)
    drawn = model.translate(x, seed=5)
    assert (drawn[0] != drawn[1]).any() and (drawn[1] != drawn[2]).any()
    np.testing.assert_array_equal(drawn, model.translate(x, seed=5))
    assert_alike(model.translate(x, batch_size=3, seed=5), drawn)
    assert_alike(model.translate(x[:2], seed=5), drawn[:2])
    assert (model.translate(x, seed=6) != drawn).any()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"style": [0, 0], "seed": 1}, "style and seed all say what style to take: give one of them"),
        ({"style": [0, 0, 0]}, r"style of shape \(3,\): expected \[3, 2\], one for each image, or \[2\] for all"),
        ({"style": np.zeros((2, 2))}, r"style of shape \(2, 2\): expected \[3, 2\]"),
        ({"style": 1.0}, r"style of shape \(\): expected"),
        ({"reference": pictures(2)}, r"2 reference images: expected 3, one for each image, or one for all"),
        ({"reference": pictures(1)[..., :1]}, r"images of shape \(1, 6, 10, 1\): expected \[N, H, W, 3\]"),
        ({"reference": np.full((4, 4, 3), 2.0, np.float32)}, r"range is \[-1, 1\]"),
    ],
)
def test_styles_that_cannot_be_taken(model, given, message):
    with pytest.raises(ValueError, match=message):
        model.translate(pictures(3), **given)


@pytest.mark.parametrize("given", [{"style": [0.0, 0.0]}, {"reference": pictures(1)}, {"seed": 1}])
def test_a_method_without_styles_says_so(given):
    with pytest.raises(ValueError, match=f"{[*given][0]}=…: cyclegan takes no style, it has one translation"):
        CycleGAN(generator_width=2, discriminator_width=2).translate(pictures(1), **given)


def test_a_method_without_an_encoder_takes_no_reference(model, monkeypatch):
    monkeypatch.setattr(Toy, "encode_style", Translator.encode_style)
    with pytest.raises(ValueError, match="toy takes no reference image"):
        model.translate(pictures(1), reference=pictures(1))


def test_calling_the_model_takes_the_mean_style(model):
    x = np.random.default_rng(0).uniform(-1, 1, (2, 4, 6, 3)).astype("float32")
    zeros = np.zeros((2, 2), "float32")
    np.testing.assert_allclose(model(x), model.generators["a2b"](x, style=zeros), atol=1e-6)
    # In training batch norm takes the statistics of the batch.
    assert np.abs(model(x, training=True) - model(x)).max() > 1e-3


# ----------------------------------------------------------------------------------------------------- files and styles


@pytest.fixture(scope="module")
def styled(model):
    """The model, as if it had been loaded from a run."""
    model.run = types.SimpleNamespace(data=config.Data(crop=(16, 16)))
    return model


def files_of(folder, count=3):
    """Pictures of one size in a new folder: dict of name → uint8 [H, W, C]."""
    folder.mkdir()
    found = {f"{i}.png": x for i, x in enumerate(pictures(count))}
    for name, x in found.items():
        images.write_image(folder / name, x)
    return found


def translated(model, input, output, **options):
    """Files that are written: dict of name → pixels."""
    written, failed = translation.translate_files(model, input, output, active=False, **options)
    assert not failed
    return {path.name: images.read_image(path) for path in written}


@pytest.mark.parametrize("options", [{"batch_size": 2}, {"fit": "tile", "tile": 8, "overlap": 2}])
def test_files_have_the_styles_of_their_names(styled, options, tmp_path):
    photos = tmp_path / "photos"
    found = files_of(photos)
    plain = translated(styled, photos, tmp_path / "out", style_seed=5, **options)
    one = translated(styled, photos / "1.png", tmp_path / "one", style_seed=5, **options)
    assert_alike(one["1.png"], plain["1.png"])
    other = translated(styled, photos, tmp_path / "other", style_seed=6, **options)
    assert all((other[name] != plain[name]).any() for name in found)
    if "fit" not in options:
        for name, x in found.items():
            assert_alike(plain[name], styled.translate(x, style=styled.draw_styles(5, [name])))
        without = translated(styled, photos, tmp_path / "without")
        assert_alike(without["2.png"], styled.translate(found["2.png"], style=styled.draw_styles(0, ["2.png"])))


def test_all_files_take_the_style_of_the_reference(styled, tmp_path):
    photos = tmp_path / "photos"
    found, reference = files_of(photos), pictures(1, seed=1, size=(8, 4))[0]
    images.write_image(tmp_path / "r.png", reference)
    options = {"direction": "b2a", "reference": tmp_path / "r.png"}
    results = translated(styled, photos, tmp_path / "out", **options)
    for name, x in found.items():
        assert_alike(results[name], styled.translate(x, "b2a", reference=reference))
    # Where pictures are brought to another size, so is the reference.
    results = translated(styled, photos, tmp_path / "small", size=(6, 6), keep_size=False, **options)
    x, seen = (images.resize(p, (6, 6)) for p in (found["0.png"], reference))
    assert_alike(results["0.png"], styled.translate(x, "b2a", reference=seen))


def test_samples_are_a_grid_whose_pictures_have_the_styles_of_their_seeds(styled, tmp_path, monkeypatch):
    photos, shown = tmp_path / "photos", []
    found, grid = files_of(photos, 2), shared_pictures.grid
    monkeypatch.setattr(shared_pictures, "grid", lambda *given: shown.append(given) or grid(*given))
    results = translated(styled, photos, tmp_path / "out", samples=3, style_seed=4, batch_size=2)
    assert [titles for _, titles in shown] == [["input", "seed 4", "seed 5", "seed 6"]] * 2
    for (drawn, _), (name, x) in zip(shown, found.items()):
        np.testing.assert_array_equal(drawn[0], x)
        for seed, y in zip((4, 5, 6), drawn[1:]):
            assert_alike(y, translated(styled, photos / name, tmp_path / f"{name[0]}_{seed}", style_seed=seed)[name])
        assert results[name].shape[1] > 2 * 96 and results[name].shape[0] > 2 * 96  # two by two


@pytest.mark.parametrize(
    "options, message",
    [
        ({"reference": "missing.png"}, "--reference=missing.png is not there"),
        ({"reference": "photos/broken.png"}, "--reference=.*broken.png cannot be read: "),
        ({"reference": "photos/0.png", "style_seed": 1}, "--reference and --style_seed both say what style to take"),
        ({"reference": "photos/0.png", "samples": 2}, "--samples are translations with many styles"),
        ({"samples": 2, "side_by_side": True}, "the grid shows the input too"),
    ],
)
def test_flags_about_styles_that_cannot_be(styled, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files_of(tmp_path / "photos", 1)
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=message):
        translation.translate_files(styled, tmp_path / "photos" / "0.png", tmp_path / "out", active=False, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{"style_seed": 0}, {"reference": "photos/0.png"}, {"samples": 2}])
def test_flags_about_styles_of_a_method_without(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files_of(tmp_path / "photos", 1)
    plain = CycleGAN(generator_width=2, discriminator_width=2)
    plain.run = types.SimpleNamespace(data=config.Data(crop=(16, 16)))
    with pytest.raises(UserError, match=f"--{[*options][0]}: cyclegan takes no style, it has one translation"):
        translation.translate_files(plain, tmp_path / "photos" / "0.png", tmp_path / "out", active=False, **options)
