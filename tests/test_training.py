"""The loop around the steps: refusals, damage, interruption, what is written."""

import dataclasses
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

import tfi2i
from tests.toy import command as toy_command
from tests.toy.model import Toy
from tfi2i import checkpoints, machine, run_directory, settings
from tfi2i.config import UserError
from tfi2i.data import images, pipeline
from tfi2i.training import loop, strategies, summaries
from tfi2i.training.validation import Validation

pytestmark = pytest.mark.usefixtures("toy")

TINY = {
    "toy_width": 4, "pool_size": 2, "precision": "float32", "save_every": 1, "sample_every": 100, "log_every": 1,
}  # fmt: skip


def configured(method="one_way_toy", **given):
    """One direction, which is traced in a third of the time, unless a test looks at both."""
    return settings.resolve(method, {"data": "emoji", **TINY, **given})


def lines(run_dir, event):
    text = (pathlib.Path(run_dir) / "log.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["event"] == event]


@pytest.fixture(scope="module")
def finished(toy, tmp_path_factory):
    """A run of three steps; copy it before changing it."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    loop.train(configured(steps=3, keep=2), folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_a_run_directory_holds_what_the_readme_says(finished):
    names = {p.name for p in finished.iterdir()}
    assert {"config.json", "flags.txt", "log.jsonl", "samples", "train", "checkpoints"} <= names
    assert checkpoints.steps(finished) == [2, 3]  # --keep=2
    assert [line["step"] for line in lines(finished, "step")] == [1, 2, 3]
    assert (finished / "samples" / "00000003.png").is_file()
    scalars = set()
    for path in (finished / "train").iterdir():
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            scalars |= {v.tag for v in tf.compat.v1.Event.FromString(record).summary.value}
    assert {"loss/gan_a2b", "loss/discriminator_b", "run/images_per_second", "samples"} <= scalars


def test_flags_file_gives_the_same_configuration(finished):
    text = (finished / "flags.txt").read_text()
    command = [*toy_command("tfi2i.train"), f"--flagfile={finished}/flags.txt", "--run_dir=x", "--print_config"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert settings.Run.from_json(shown) == run_directory.read(finished), text


@pytest.mark.parametrize("batch_size, noted", [(1, False), (2, True)])
def test_another_batch_than_the_published_one_is_noted(tmp_path, capsys, batch_size, noted):
    loop.train(configured(steps=1, batch_size=batch_size), tmp_path / "run")
    out = capsys.readouterr().out
    assert ("note: published results use batch 1; 2 may need" in out) == noted
    assert f"global batch {batch_size}, on {machine.devices()}, float32, XLA off" in out.splitlines()[0]
    assert "pictures of 128 px (median of 32 headers) are resized to 18 px and cropped to 16 px" in out


def test_finished_run_has_nothing_to_do(run, capsys):
    before = sorted(p.stat().st_mtime_ns for p in run.rglob("state.*"))
    model = loop.train(configured(steps=3, keep=2), run)
    out = capsys.readouterr().out
    assert "finished at step 3" in out and f"--init_from={run} --run_dir=NEW" in out and "--steps" not in out
    stored = tf.train.load_checkpoint(str(run / "checkpoints" / "00000003" / "state"))
    kinds, networks, everything = stored.get_variable_to_dtype_map(), 0, 0
    for name, shape in stored.get_variable_to_shape_map().items():
        if name.endswith("/.ATTRIBUTES/VARIABLE_VALUE"):
            everything += np.prod(shape, dtype=int) * kinds[name].size
            networks += np.prod(shape, dtype=int) * kinds[name].size * name.startswith("networks/")
    assert checkpoints.sizes(model) == (networks, everything)
    assert before == sorted(p.stat().st_mtime_ns for p in run.rglob("state.*"))


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"lambda_cycle": 5.0}, "--lambda_cycle was 10.0, is 5.0"),
        ({"crop": (12, 12)}, "--crop was .*16.*is .*12"),
        ({"steps": 5}, "--steps was 3, is 5"),  # a linear schedule would have had other rates
        ({"precision": "mixed_bfloat16"}, "--precision was float32"),
        ({"seed": 1}, "--seed was 0, is 1"),
    ],
)
def test_another_configuration_is_refused(run, changed, message):
    with pytest.raises(UserError, match=message):
        loop.train(configured(**{"steps": 3, "keep": 2, **changed}), run)


def test_what_may_change_on_resume(run):
    shutil.rmtree(run / "checkpoints" / "00000003")
    loop.train(configured(steps=3, keep=1, log_every=5, xla="off", strategy="mirrored"), run)
    assert checkpoints.steps(run) == [3]


def test_changed_files_are_refused_unless_accepted(run, tmp_path):
    data = tmp_path / "data"
    for name in ("trainA", "trainB"):
        (data / name).mkdir(parents=True)
        for i in range(3):
            images.write_image(data / name / f"{i}.png", np.full((18, 18, 3), 40 * i, np.uint8))
    own = tmp_path / "own"
    loop.train(configured(data=str(data), steps=1, lr_schedule="constant"), own)
    images.write_image(data / "trainA" / "3.png", np.zeros((18, 18, 3), np.uint8))
    more = {"data": str(data), "steps": 2, "lr_schedule": "constant"}
    with pytest.raises(UserError, match="domain A .*--accept_changed_data"):
        loop.train(configured(**more), own)
    loop.train(configured(**more, accept_changed_data=True), own)
    assert checkpoints.steps(own) == [1, 2]


def test_another_frozen_network_is_refused_unless_accepted(run):
    path = run / "config.json"
    stored = json.loads(path.read_text())
    assert len(stored["fingerprints"].pop("network perception")) == 64
    given = {"steps": 3, "keep": 2}
    path.write_text(json.dumps(stored))
    loop.train(configured(**given), run)  # as of version 0.1, which did not record it
    assert json.loads(path.read_text())["fingerprints"].keys() == {"a", "b", "network perception"}
    stored["fingerprints"]["network perception"] = "of others"
    path.write_text(json.dumps(stored))
    with pytest.raises(UserError, match="^the network perception is not the one that .*--accept_changed_data"):
        loop.train(configured(**given), run)
    loop.train(configured(**given, accept_changed_data=True), run)


def two_folders(root, count=4):
    for name in ("photos", "paintings"):
        for i in range(count):
            images.write_image(root / name / f"{i}.png", np.full((18, 18, 3), 40 * i, np.uint8))
    return {"a": "photos", "b": "paintings"}


@pytest.fixture
def eagerly():
    """Steps are not traced, which takes most of the time of a few."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`")
def test_a_run_goes_on_where_its_pictures_are_now(tmp_path, monkeypatch, capsys, eagerly):
    """Also where the paths that are stored are relative, as version 0.1 wrote them."""
    here, there, run = tmp_path / "here", tmp_path / "there", tmp_path / "run"
    given = two_folders(here) | {"data": None, "lr_schedule": "constant", "holdout": 0.25}
    monkeypatch.chdir(here)
    loop.train(configured(**given, steps=1), run)
    # SHA-256 of "0", "1", "2", "3" begin with 5f, 6b, d4, 4e, of 256: none is below a quarter, and the least is 3.
    held_out = [f"{here}/photos/3.png", f"{here}/paintings/3.png"]
    assert (run / "held_out.txt").read_text().splitlines() == held_out
    assert "2 pictures are held out for the test: " in capsys.readouterr().out
    stored = json.loads((run / "config.json").read_text())
    assert (stored["data"]["a"], stored["data"]["b"]) == (f"{here}/photos", f"{here}/paintings")

    here.rename(there)
    monkeypatch.chdir(tmp_path)
    stored["data"] |= {"a": "photos", "b": "paintings"}
    (run / "config.json").write_text(json.dumps(stored))
    moved = given | {"a": "there/photos", "b": str(there / "paintings")}
    loop.train(configured(**moved, steps=2), run)
    assert checkpoints.steps(run) == [1, 2] and run_directory.read(run).data.a == f"{there}/photos"
    assert (run / "held_out.txt").read_text().startswith(f"{there}/photos/3.png\n")

    with pytest.raises(UserError, match="--holdout was 0.25, is 0.3"):
        loop.train(configured(**moved | {"holdout": 0.3}, steps=3), run)
    images.write_image(there / "photos" / "0.png", np.arange(18 * 18 * 3, dtype=np.uint8).reshape(18, 18, 3))
    copied = shutil.copytree(there, tmp_path / "copied")
    match = rf"domain A are not those the run in .* started with \(--a={there}/photos --b={there}/paintings\): put them"
    with pytest.raises(UserError, match=match):
        loop.train(configured(**given | {n: str(copied / given[n]) for n in "ab"}, steps=3), run)


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not a run directory"):
        loop.train(configured(steps=1), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def damage_flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, pathlib.Path.unlink])
def test_damaged_checkpoint_is_noticed_and_the_one_before_is_used(run, damage, caplog):
    damage(run / "checkpoints" / "00000003" / "state.data-00000-of-00001")
    assert checkpoints.newest_good(run).name == "00000002"
    assert "00000003 is damaged" in caplog.text
    again = loop.train(configured(steps=3, keep=2), run)
    assert int(again.step.numpy()) == 3
    assert checkpoints.newest_good(run).name == "00000003"


def test_all_checkpoints_damaged(run):
    for step in checkpoints.steps(run):
        damage_flip(run / "checkpoints" / f"{step:08d}" / "state.index")
    with pytest.raises(UserError, match="all 2 checkpoints .* damaged"):
        loop.train(configured(steps=3, keep=2), run)


def test_unfinished_checkpoint_is_no_checkpoint(run):
    shutil.copytree(run / "checkpoints" / "00000003", run / "checkpoints" / "00000009.tmp")
    assert checkpoints.steps(run) == [2, 3]


def test_full_disk_leaves_the_last_good_checkpoint(run, monkeypatch):
    shutil.rmtree(run / "checkpoints" / "00000003")

    def full(self, path):
        pathlib.Path(path + ".data-00000-of-00001").write_bytes(b"half")
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.train.Checkpoint, "write", full)
    with pytest.raises(UserError, match="No space left on device; the last good one is step 2"):
        loop.train(configured(steps=3, keep=2), run)
    assert checkpoints.steps(run) == [2] and checkpoints.newest_good(run).name == "00000002"
    assert not list(run.glob("checkpoints/*.tmp"))


def test_loss_that_is_not_finite_stops_with_the_files_and_keeps_what_was(tmp_path, monkeypatch):
    sample = pipeline.TrainingStream.sample
    monkeypatch.setattr(
        pipeline.TrainingStream, "sample", lambda self, domain, k: sample(self, domain, k) * (np.nan if k == 2 else 1)
    )
    match = r"step 3: .*gan_a2b is nan.* Batch: A \['.*\.png'\], B .*The last checkpoint is step 2"
    with pytest.raises(FloatingPointError, match=match):
        loop.train(configured(steps=5), tmp_path / "run")
    assert checkpoints.steps(tmp_path / "run") == [1, 2]
    assert lines(tmp_path / "run", "stopped")[0]["step"] == 3


def test_bad_files_are_counted(tmp_path):
    data = tmp_path / "data"
    for name in ("trainA", "trainB"):
        (data / name).mkdir(parents=True)
        for i in range(3):
            images.write_image(data / name / f"{i}.png", np.full((18, 18, 3), 40 * i, np.uint8))
    (data / "trainA" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n half a header")
    loop.train(configured(data=str(data), steps=4), tmp_path / "run")
    assert lines(tmp_path / "run", "step")[-1]["bad_files"] == 1
    with pytest.raises(UserError, match="max_bad_files=0"):
        loop.train(configured(data=str(data), steps=4, max_bad_files=0), tmp_path / "strict")


def test_sigterm_saves_and_the_same_command_goes_on(tmp_path):
    run_dir = tmp_path / "run"
    given = [f"--{k}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in TINY.items()]
    command = [*toy_command("tfi2i.train"), "--method=one_way_toy", "--data=emoji", *given, "--save_every=1000000"]
    command += ["--steps=1000000", f"--run_dir={run_dir}", "--lr_schedule=constant"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:  # plain lines appear as steps are done
        if "/1000000 steps" in line:
            process.send_signal(signal.SIGTERM)
            break
    out = process.stdout.read()
    assert process.wait() == 128 + signal.SIGTERM, out
    (step,) = checkpoints.steps(run_dir)
    assert f"stopped at step {step}" in out
    command[command.index("--steps=1000000")] = f"--steps={step + 1}"
    # Fewer steps than planned is another configuration; more is not, with a constant rate.
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1 and "error: " in refused.stderr and "--steps was" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_an_exception_for_python(run, monkeypatch, number):
    shutil.rmtree(run / "checkpoints" / "00000003")
    shutil.rmtree(run / "checkpoints" / "00000002")
    losses = summaries.Summaries.losses
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    # Comes in the middle of step 2.
    monkeypatch.setattr(
        summaries.Summaries,
        "losses",
        lambda self, step, *a, **k: (losses(self, step, *a, **k), step == 2 and signal.raise_signal(number)),
    )
    with pytest.raises(KeyboardInterrupt) as stop:
        loop.train(configured(steps=3, keep=2, save_every=1000), run)
    assert (stop.value.signal, stop.value.step) == (number, 2)
    assert checkpoints.steps(run) == [2]
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]


def test_max_hours_ends_at_a_checkpoint_and_the_same_command_goes_on(finished, tmp_path, capsys):
    with pytest.raises(loop.Interrupted) as stop:
        loop.train(configured(steps=3, max_hours=1e-9, save_every=1000), tmp_path / "run")
    assert (stop.value.status, stop.value.step) == (75, 1) and checkpoints.steps(tmp_path / "run") == [1]
    assert "stopped at step 1 after --max_hours=1e-09; the same command goes on" in capsys.readouterr().out
    model = loop.train(configured(steps=3, max_hours=1.0), tmp_path / "run")
    assert checkpoints.steps(tmp_path / "run")[-1] == 3
    for name, network in tfi2i.load(finished).networks.items():
        for expected, found in zip(network.weights, model.networks[name].weights, strict=True):
            np.testing.assert_array_equal(found, expected, err_msg=found.path)


def test_the_price_is_said_before_it_is_paid(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loop.price, "is_long", lambda seconds, left: True)
    monkeypatch.setattr(loop.price.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=0))
    loop.train(configured(steps=24, save_every=1000), tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(lines) if " a step: 3 steps take " in line)  # after 20 of them
    assert lines[first + 1].startswith("checkpoints will take ")
    assert "more than a day on a CPU" in lines[first + 2]
    assert lines.index(f"warning: {lines[first + 1]}") < first and "that is too little" in lines[first + 1]


def test_a_dry_run_says_what_a_run_would_cost_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loop.train(configured(steps=90), tmp_path / "new" / "run", dry_run=True)
    out = capsys.readouterr().out
    assert "--toy_width=4" in out and "are resized to 18 px and cropped to 16 px" in out
    assert " a step: 90 steps take " in out and "checkpoints will take " in out and "nothing was written" in out
    assert not list(tmp_path.iterdir())


def test_a_dry_run_fails_where_the_run_would(run):
    held = os.open(run / ".lock", os.O_RDWR)
    shutil.rmtree(run / "checkpoints" / "00000003")
    before = sorted(run.rglob("*"))
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="in use by another"):
            loop.train(configured(steps=3, keep=2), run, dry_run=True)
    finally:
        os.close(held)
    with pytest.raises(UserError, match="--seed was 0, is 1"):
        loop.train(configured(steps=3, keep=2, seed=1), run, dry_run=True)
    assert sorted(run.rglob("*")) == before


# ------------------------------------------------------------------------------------------------------ evaluation

BOTH = ("a2b", "b2a")


def evaluated(run_dir):
    """Step → mean L1 of both directions, of the log."""
    return {e["step"]: (e["a2b"]["l1"] + e["b2a"]["l1"]) / 2 for e in lines(run_dir, "eval")}


@pytest.fixture(scope="module")
def validated(toy, tmp_path_factory):
    """A run of three steps that translates both ways, measured after each step."""
    folder = tmp_path_factory.mktemp("runs") / "validated"
    more = {"eval_every": 1, "eval_metrics": "psnr,l1", "best_metric": "l1", "eval_images": 3}
    loop.train(configured("toy", steps=3, keep=9, **more), folder)
    return folder, more


def test_the_best_step_is_kept(validated):
    folder, _ = validated
    found = evaluated(folder)
    assert list(found) == [1, 2, 3] and len(set(found.values())) == 3
    first = lines(folder, "eval")[0]
    assert first["a2b"]["n"] == 3 and {"psnr", "psnr_error", "l1_std"} <= first["a2b"].keys()
    best = min(found, key=found.get)
    manifest = json.loads((folder / "best" / "manifest.json").read_text())
    assert (manifest["step"], manifest["metric"]) == (best, "l1")
    assert manifest["value"] == pytest.approx(found[best])
    kept, same = checkpoints.load(folder, "best"), checkpoints.load(folder, best)
    assert kept.checkpoint_step == best
    for name, network in kept.networks.items():
        for a, b in zip(network.weights, same.networks[name].weights):
            np.testing.assert_array_equal(a, b)
    # Networks alone: no optimizer.
    assert not [n for n, _ in tf.train.list_variables(str(folder / "best" / "state")) if n.startswith("training")]
    scalars = set()
    for path in (folder / "train").iterdir():
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            scalars |= {v.tag for v in tf.compat.v1.Event.FromString(record).summary.value}
    assert {"eval_a2b/l1", "eval_b2a/psnr"} <= scalars


def test_a_resumed_run_remembers_its_best(validated, tmp_path):
    folder, more = validated
    run = shutil.copytree(folder, tmp_path / "run")
    manifest = json.loads((run / "best" / "manifest.json").read_text())
    (run / "best" / "manifest.json").write_text(json.dumps(manifest | {"value": 0.001, "step": 77}))
    shutil.rmtree(run / "checkpoints" / "00000003")
    loop.train(configured("toy", steps=3, keep=9, **more), run)
    assert checkpoints.best(run)["step"] == 77  # nothing was better
    # As a kill between two renames leaves it.
    (run / "best").rename(run / "best.old")
    assert checkpoints.best(run)["step"] == 77 and not (run / "best.old").exists()
    assert evaluated(run) == evaluated(folder)
    with open(next((run / "best").glob("state.data*")), "ab") as file:
        file.write(b"x")
    assert checkpoints.best(run) is None
    with pytest.raises(UserError, match="best is damaged"):
        checkpoints.load(run, "best")


def test_evaluation_does_not_change_what_is_learned(validated, tmp_path):
    loop.train(configured("toy", steps=3), tmp_path / "without")
    a, b = (checkpoints.load(folder, 3).networks for folder in (validated[0], tmp_path / "without"))
    for name, network in a.items():
        assert all(np.array_equal(x, y) for x, y in zip(network.weights, b[name].weights))


def test_which_value_is_best():
    run = configured(steps=1, eval_every=1, eval_metrics="l1,ssim")
    lower = Validation(run, BOTH)
    assert (lower.metric, lower.split) == ("l1", "val")
    assert [lower.is_best(v) for v in (5, 6, 5, 4)] == [True, False, False, True]
    higher = Validation(configured(steps=1, eval_every=1, eval_metrics="l1,ssim", best_metric="ssim"), BOTH)
    assert [higher.is_best(v) for v in (0.5, 0.4, 0.5, 0.6)] == [True, False, False, True]
    assert Validation(run, BOTH, {"metric": "l1", "value": 3}).is_best(4) is False
    assert Validation(run, BOTH, {"metric": "psnr", "value": 3}).is_best(4)


def test_realism_decides_where_it_is_asked_to(monkeypatch, tmp_path):
    from tests.test_evaluate import Constant, Levels

    monkeypatch.setattr("tfi2i.metrics.features.FeatureNetwork", Levels)
    monkeypatch.setattr("tfi2i.metrics.features.default_cache", lambda: tmp_path)
    validation = Validation(configured(steps=1, eval_every=1, eval_metrics="kid,precision_recall", eval_images=8), BOTH)
    results, value = validation.measure(Constant())
    assert value == np.mean([results[d]["kid_levels"] for d in ("a2b", "b2a")])
    assert results["a2b"]["n_fake"] == results["a2b"]["n_real"] == 8 and "recall_levels" in results["b2a"]


def test_evaluation_takes_the_test_images_where_there_are_no_others(tmp_path):
    for name in ("trainA", "trainB", "testA", "testB"):
        for i in range(2):
            images.write_image(tmp_path / name / f"{i}.png", np.full((18, 18, 3), 40 * i, np.uint8))
    given = {"data": str(tmp_path), "steps": 1, "eval_every": 1, "eval_metrics": "l1"}
    assert Validation(configured(**given), BOTH).split == "test"
    few = "--eval_every=1 measures the test images: --metrics=precision_recall needs at least 4 images.* --eval_every=0"
    with pytest.raises(UserError, match=few):
        Validation(configured(**given | {"eval_metrics": "precision_recall"}), BOTH)
    for i in range(2):
        (tmp_path / "testB" / f"{i}.png").rename(tmp_path / "testB" / f"b{i}.png")
    with pytest.raises(UserError, match="--best_metric=l1 needs pairs, .* an unchanged input is best: choose kid"):
        Validation(configured(**given), BOTH)
    with pytest.raises(UserError, match="--eval_metrics=il2,cycle has nothing that can decide on best/"):
        configured(**given | {"eval_metrics": "il2,cycle"})
    shutil.rmtree(tmp_path / "testA"), shutil.rmtree(tmp_path / "testB")
    with pytest.raises(UserError, match="--eval_every needs held-out images"):
        Validation(configured(**given), BOTH)


def test_validation_of_one_direction(monkeypatch, tmp_path):
    from tests.test_evaluate import Constant, Levels

    monkeypatch.setattr("tfi2i.metrics.features.FeatureNetwork", Levels)
    monkeypatch.setattr("tfi2i.metrics.features.default_cache", lambda: tmp_path / "cache")
    for name in ("trainA", "trainB", "valA", "testA", "testB"):
        for i in range(2):
            images.write_image(tmp_path / name / f"{i}.png", np.full((18, 18, 3), 40 * i, np.uint8))
    given = {"data": str(tmp_path), "steps": 1, "eval_every": 1}
    # KID compares with real images of B, which only the test split has.
    validation = Validation(configured(**given, eval_metrics="kid,cycle"), ("a2b",))
    model = Constant()
    model.directions = ("a2b",)
    results, value = validation.measure(model)
    assert validation.split == "test" and list(results) == ["a2b"] and value == results["a2b"]["kid_levels"]
    shutil.rmtree(tmp_path / "testB")
    with pytest.raises(UserError, match="--eval_every needs held-out images"):
        Validation(configured(**given, eval_metrics="kid"), ("a2b",))


def test_a_checkpoint_that_is_not_there(finished):
    for asked in ("best", "1", "first"):
        with pytest.raises(UserError, match=f"--checkpoint={asked}: .* has 2, 3"):
            checkpoints.load(finished, asked)
    assert checkpoints.load(finished, "2").checkpoint_step == checkpoints.load(finished, 2).checkpoint_step == 2


def test_a_run_without_its_pictures_is_told_how_it_goes_on(run):
    with pytest.raises(UserError) as refused:
        loop.train(settings.resolve("one_way_toy", TINY), run)
    assert f": tfi2i train --flagfile={run}/flags.txt --run_dir={run}" in str(refused.value)


def test_a_start_that_is_not_there_does_not_wait_for_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "build", None)
    with pytest.raises(UserError, match=f"{tmp_path}/none is not a run directory"):
        loop.train(configured(steps=1, init_from=f"{tmp_path}/none"), tmp_path / "run")


def test_a_refused_run_leaves_nothing_behind(tmp_path):
    given = {"data": str(tmp_path / "data"), "steps": 1, "eval_every": 1}
    for name in ("trainA", "trainB"):
        for i in range(2):
            images.write_image(tmp_path / "data" / name / f"{i}.png", np.full((18, 18, 3), 40 * i, np.uint8))
    for _ in range(2):  # the second time it is not in use by the first
        with pytest.raises(UserError, match="--eval_every needs held-out images"):
            loop.train(configured(**given), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_processes_cannot_share_a_run(run):
    held = os.open(run / ".lock", os.O_RDWR)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="in use by another"):
            loop.train(configured(steps=3, keep=2), run)
    finally:
        os.close(held)


def test_batches_must_fit_the_replicas(tmp_path):
    with pytest.raises(UserError, match="multiple of 2"):
        loop.train(configured(steps=1, strategy="mirrored", replicas=2), tmp_path / "run")


def test_float16_is_for_one_replica(tmp_path):
    with pytest.raises(UserError, match="use mixed_bfloat16"):
        more = {"strategy": "mirrored", "replicas": 2, "precision": "mixed_float16", "batch_size": 2}
        loop.train(configured(steps=1, **more), tmp_path / "run")


def test_crop_must_fit_the_networks(tmp_path):
    with pytest.raises(UserError, match="multiples of 2"):
        loop.train(configured(steps=1, crop=(17, 17)), tmp_path / "run")
    with pytest.raises(UserError, match="need 8 pixels a side: make it larger, or take"):
        loop.train(configured(steps=1, crop=(6, 6)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_init_from_starts_there_and_a_constant_rate_may_go_on_for_longer(finished, tmp_path):
    tuned = configured(steps=1, lr_schedule="constant", learning_rate=1e-9, init_from=str(finished))
    start = tfi2i.load(finished).networks["generator_a2b"].trainable_variables
    trained = loop.train(tuned, tmp_path / "tuned").networks["generator_a2b"].trainable_variables
    for x, y in zip(trained, start, strict=True):
        np.testing.assert_allclose(x.numpy(), y.numpy(), atol=1e-8)
    longer = dataclasses.replace(tuned, training=dataclasses.replace(tuned.training, steps=2))
    assert int(loop.train(longer, tmp_path / "tuned").step.numpy()) == 2


def test_init_from_another_architecture_is_refused(finished, tmp_path):
    with pytest.raises(UserError, match="holds other networks: --toy_width was 4, is 8; --norm was batch, is none"):
        loop.train(configured(steps=1, toy_width=8, norm="none", init_from=str(finished)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    grey = checkpoints.build(configured(channels_b=1))
    with pytest.raises(UserError, match="other networks: --channels_b was 3, is 1"):
        checkpoints.initialise(grey, finished)
    with pytest.raises(UserError, match="was trained with --method=one_way_toy, this is another method"):
        checkpoints.initialise(checkpoints.build(configured("toy")), finished)


def test_what_is_logged_takes_no_memory(finished, tmp_path):
    """TensorFlow would keep each number of Python that it makes a tensor of until the process ends."""
    numbers = [int(1e6), *(1e6 / n for n in (3, 7, 9, 11))]
    step, loss, watched, rate, kid = numbers
    pictures = tf.zeros((1, 16, 16, 3))
    shown, model = summaries.Summaries(tmp_path, 0), tfi2i.load(finished)
    before = [sys.getrefcount(number) for number in numbers]
    shown.losses(step, {"cycle_a": loss}, {"sigma": watched}, images_per_second=rate)
    shown.evaluation(step, {"a2b": {"kid": kid, "fid": None}})
    shown.samples(step, model, pictures, pictures)
    shown.close()
    assert [sys.getrefcount(number) for number in numbers] == before
    (path,) = (tmp_path / "train").iterdir()
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    events = [event for event in map(tf.compat.v1.Event.FromString, records) if event.summary.value]
    assert {event.step for event in events} == {step}
    written = {v.tag: tf.make_ndarray(v.tensor) for event in events for v in event.summary.value}
    del written["samples"]
    expected = {"loss/cycle_a": loss, "watched/sigma": watched, "run/images_per_second": rate, "eval_a2b/kid": kid}
    assert written == {tag: np.float32(number) for tag, number in expected.items()}


def test_cut_log_keeps_what_was_and_drops_a_torn_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "step", "step": 1}\n{"event": "step", "step": 2}\n{"event": "st')
    summaries.cut_log(path, 1)
    assert path.read_text() == '{"event": "step", "step": 1}\n'


def test_cut_events(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    with writer.as_default():
        for step in range(5):
            tf.summary.scalar("x", step, step=step)
    writer.close()
    summaries.cut_events(tmp_path, 2)
    (path,) = tmp_path.glob("*tfevents*")
    kept = [tf.compat.v1.Event.FromString(r) for r in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    assert [e.step for e in kept if e.summary.value] == [0, 1, 2]


def test_alarms():
    alarms = summaries.Alarms()
    assert not alarms.losses({"discriminator_a": 0.001}) and not alarms.losses({"discriminator_a": 0.001})
    assert "discriminator_a" in alarms.losses({"discriminator_a": 0.001})[0]
    assert not alarms.losses({"discriminator_a": 0.001})  # once
    draw = np.random.default_rng(0)
    x = draw.uniform(-1, 1, (2, 8, 8, 3)).astype("float32")
    assert "returns its input" in alarms.pictures(x, x + 1e-4, "A to B")[0]
    assert "is blank" in alarms.pictures(x, np.full_like(x, 0.999), "A to B")[0]
    assert "inverts colours" in alarms.pictures(x, -x, "A to B")[0]
    assert not alarms.pictures(x, 0.5 * x + 0.2 * draw.normal(size=x.shape), "B to A")
    assert not alarms.pictures(x, x.mean(-1, keepdims=True), "B to A")


@pytest.fixture
def gpu(monkeypatch):
    """A function that makes TensorFlow tell of one GPU, with what is given as its details."""

    def pretend(**details):
        there = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [there])
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)

    return pretend


@pytest.mark.parametrize(
    "details, precision",
    [
        ({"device_name": "NVIDIA A100", "compute_capability": (8, 0)}, "mixed_bfloat16"),
        ({"device_name": "NVIDIA H100", "compute_capability": (9, 0)}, "mixed_bfloat16"),
        ({"device_name": "NVIDIA T4", "compute_capability": (7, 5)}, "float32"),
        ({}, "float32"),  # of another maker
    ],
)
def test_auto_on_gpus(gpu, details, precision):
    gpu(**details)
    assert strategies.resolve_precision("auto") == precision
    assert strategies.resolve_xla("auto") and not strategies.resolve_xla("off")
    assert machine.devices() == f"1 GPU {details.get('device_name', 'of an unknown kind')}"


def test_the_first_line_says_what_tf32_is_on_gpus(gpu):
    assert strategies.arithmetic("float32", False) == "float32, XLA off"
    gpu()
    enabled = tf.config.experimental.tensor_float_32_execution_enabled()
    try:
        for on in (False, True):
            tf.config.experimental.enable_tensor_float_32_execution(on)
            said = strategies.arithmetic("mixed_bfloat16", True)
            assert said == f"mixed_bfloat16, XLA on, TF32 {'on' if on else 'off'}"
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(enabled)


@pytest.fixture
def uncompilable(monkeypatch):
    """The toy's second phase has an operation that XLA lacks, and `--xla=auto` means on, as it does with GPUs."""
    compute = Toy.discriminator_phase

    def with_text(self, **inputs):
        losses, features = compute(self, **inputs)
        # Values of text; gradients as they were.
        texts = {n: tf.strings.to_number(tf.strings.as_string(v)) for n, v in losses.items()}
        return {n: v + tf.stop_gradient(texts[n] - v) for n, v in losses.items()}, features

    monkeypatch.setattr(Toy, "discriminator_phase", with_text)
    monkeypatch.setattr(strategies, "resolve_xla", lambda name: name != "off")


@pytest.mark.parametrize(
    "given", [{}, pytest.param({"strategy": "mirrored", "replicas": 2, "batch_size": 2}, marks=pytest.mark.thorough)]
)
def test_xla_auto_survives_a_step_that_does_not_compile(given, uncompilable, tmp_path):
    """The first phase was compiled and has moved the generator before the second one fails."""
    models = [loop.train(configured(steps=1, xla=xla, **given), tmp_path / xla) for xla in ("off", "auto")]
    for plain, survived in zip(*(model.variables for model in models), strict=True):
        np.testing.assert_array_equal(plain.numpy(), survived.numpy(), err_msg=plain.path)
    (warning,) = [line["message"] for line in lines(tmp_path / "auto", "warning")]
    assert re.fullmatch(r"the first step fails with XLA, and is taken without it: .*AsString.*", warning)
    assert lines(tmp_path / "auto", "environment") == [{"event": "environment", "step": 1, "xla": False}]
    assert models[1].step.numpy() == 1 and not models[1].xla


@pytest.mark.thorough
def test_xla_on_is_an_error_where_a_step_does_not_compile(uncompilable, tmp_path):
    with pytest.raises(tf.errors.InvalidArgumentError, match="AsString"):
        loop.train(configured(steps=1, xla="on"), tmp_path / "run")


def test_a_step_that_does_not_fit_into_memory_says_what_to_give(monkeypatch, tmp_path):
    def step(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape [1]")

    monkeypatch.setattr(strategies, "distributed_step", lambda *_: step)
    start, crop = (
        "step 1 needs more memory than the device has: give ",
        "a smaller --crop than 16,16 in a new --run_dir",
    )
    cases = [
        ({"batch_size": 2}, "--remat, with which this run can go on, or --accumulate=2 in a new --run_dir, or " + crop),
        ({"remat": True}, crop),
        ({"remat": True, "batch_size": 6, "accumulate": 2}, f"--accumulate=3 in a new --run_dir, or {crop}"),
    ]
    for i, (given, expected) in enumerate(cases):
        with pytest.raises(UserError, match=f"^{start}{expected}$"):
            loop.train(configured(steps=1, **given), tmp_path / str(i))


def test_durations():
    for given, expected in (({"steps": 7}, 7), ({"epochs": 2.0}, 10), ({"images": 12}, 6)):
        training = dataclasses.replace(configured(steps=1).training, **{"steps": None, "batch_size": 2, **given})
        assert training.total_steps(8, 11) == (expected, 5)


def test_on_two_cores_two_operations_compute_side_by_side(monkeypatch):
    asked = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", asked.append)
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 0)
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    for cores, expected in ((1, []), (2, [1]), (3, []), (8, [])):
        asked.clear()
        monkeypatch.setattr(machine, "cores", lambda cores=cores: cores)
        strategies.make_strategy("one_device", side_by_side=True)
        assert asked == expected and strategies.threads() == cores
    asked.clear()
    monkeypatch.setattr(machine, "cores", lambda: 2)
    strategies.make_strategy("one_device", side_by_side=False)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    strategies.make_strategy("one_device", side_by_side=True)
    assert asked == [] and strategies.threads() == 3
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "two")
    assert strategies.threads() == 2
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS")
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 2)  # as a script may have set
    strategies.make_strategy("one_device", side_by_side=True)
    assert asked == [] and strategies.threads() == 2


def test_graphs_are_rewritten_for_gpus_alone(monkeypatch):
    """Grappler's rewriting takes more than half of a first step on CPUs, and gains nothing there."""
    asked = []
    monkeypatch.setattr(tf.config.optimizer, "set_experimental_options", asked.append)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, enable: None)
    monkeypatch.setattr(tf.distribute, "OneDeviceStrategy", lambda device: device)
    for gpus, device in (([], "/cpu:0"), (["one"], "/gpu:0")):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None, gpus=gpus: gpus)
        assert strategies.make_strategy("one_device") == device
    assert [options["disable_meta_optimizer"] for options in asked] == [True, False]


def test_strategies(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert strategies.make_strategy("auto").num_replicas_in_sync == 1
    assert strategies.make_strategy("mirrored", 2).num_replicas_in_sync == 2
    for name in ("one_device", "multi_worker"):
        with pytest.raises(UserError, match=f"--replicas=2 is for --strategy=mirrored, this is {name}"):
            strategies.make_strategy(name, 2)
    with monkeypatch.context() as patch:
        patch.setenv("TF_CONFIG", "{}")
        with pytest.raises(UserError, match="this is multi_worker, which TF_CONFIG chose"):
            strategies.make_strategy("auto", 2)
    with pytest.raises(UserError, match="TF_CONFIG"):
        strategies.make_strategy("multi_worker")
    assert strategies.is_chief(strategies.make_strategy("one_device"))
    assert strategies.resolve_precision("float32") == "float32"
    assert strategies.resolve_precision("auto") in ("float32", "mixed_bfloat16")
    assert strategies.resolve_xla("on") and not strategies.resolve_xla("off")
