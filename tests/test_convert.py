"""Published checkpoints become run directories, and back: what all methods share, on CycleGAN's files.

What only one method's files can get wrong stands in tests/methods/test_NAME_published.py.
"""

import itertools
import json
import pathlib
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from tests.drawing import nothing_drawn
from tests.methods.test_cyclegan_published import generator_file, small
from tests.own_flags import call
from tests.published import CHECKPOINTS, converted, refused
from tfi2i import checkpoints, config, run_directory, settings
from tfi2i.commands import convert
from tfi2i.config import UserError
from tfi2i.conversion import Place, exchange, fill, sources, torch_files
from tfi2i.data import images
from tfi2i.methods import METHODS
from tfi2i.methods.cyclegan import published
from tfi2i.training import loop
from tfi2i.translation import translate_files

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Flags of a run like `small`.
TINY = {
    "data": "emoji", "residual_blocks": 1, "generator_width": 1, "discriminator_width": 1,
    "discriminator_layers": 1, "resize": (18, 18), "crop": (16, 16), "precision": "float32", "pool_size": 0, "steps": 1,
}  # fmt: skip


def untrained(folder, method="cyclegan", **options):
    """Makes a run directory of a new model."""
    run = settings.resolve(method, TINY | options if method == "cyclegan" else options)
    with nothing_drawn():
        checkpoints.save(folder, checkpoints.build(run), 0, 1)
    run_directory.write(folder, run)
    return folder


def test_a_place_by_hand():
    v = tf.Variable(np.zeros((2, 1, 3, 4), np.float32))
    place = Place(v, (2, 3, 1, 0))
    assert place.shape == (4, 3, 2, 1)
    theirs = np.arange(24, dtype=np.float32).reshape(4, 3, 2, 1)
    v.assign(place.ours(theirs))
    # Row 1 of the kernel for input 2 and output 3 is theirs at (3, 2, 1, 0): 3 · 6 + 2 · 2 + 1.
    assert float(v[1, 0, 2, 3]) == theirs[3, 2, 1, 0] == 23
    np.testing.assert_array_equal(place.theirs(), theirs)
    # A flattened map, channels first there and last here.
    v = tf.Variable(np.zeros((2 * 1 * 3, 5), np.float32))
    place = Place(v, (2, 3, 1, 0), view=(5, 3, 2, 1), shape=(5, 6))
    theirs = np.arange(30, dtype=np.float32).reshape(5, 6)
    v.assign(place.ours(theirs))
    # Output 4 of row 1, channel 2: here feature 1 · 3 + 2, there 2 · 2 + 1.
    assert float(v[5, 4]) == theirs[4, 5]
    np.testing.assert_array_equal(place.theirs(), theirs)


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.published])
def test_modules_of_published_checkpoints_have_what_the_command_asks_for(method):
    module = METHODS[method].published_module
    assert all("(?P<epoch>" in pattern for pattern in module.FILE_NAMES)
    assert module.recognise({"notes": {"text": "nothing"}}, {}) is None
    # A checkpoint of TensorFlow is one model, whatever its name, and is not written.
    assert callable(module.layout) and hasattr(module, "files_of") == bool(module.FILE_NAMES)


# Run directories


def test_a_run_directory_describes_itself(tmp_path):
    converted(CHECKPOINTS / "cyclegan_released.zip", tmp_path / "run", size=(128, 64))
    assert {p.name for p in tmp_path.iterdir()} == {"run"}
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"config.json", "flags.txt", "checkpoints"}
    origin = run_directory.description(tmp_path / "run").get("converted")
    assert origin["source"] == "cyclegan_released.zip" and origin["directions"] == ["a2b"]
    assert origin["missing"] == ["generator_b2a", "discriminator_a", "discriminator_b"]
    assert len(origin["sha256"]["latest_net_G.pth"]) == 64
    command = [
        sys.executable,
        "-m",
        "tfi2i.train",
        f"--flagfile={tmp_path}/run/flags.txt",
        "--run_dir=x",
        "--print_config",
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    chosen = run_directory.read(tmp_path / "run")
    assert settings.Run.from_json(shown) == chosen
    assert chosen.data.crop == (128, 64) and chosen.model.generator_width == 1


def test_a_single_generator_translates_one_way_only(tmp_path):
    from tfi2i.export import export

    model = converted(CHECKPOINTS / "cyclegan_released.zip", tmp_path / "run", direction="b2a")
    assert model.directions == ("b2a",)
    picture = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(UserError, match="--direction=a2b: this model translates b2a only"):
        model.translate(picture, "a2b")
    x = np.linspace(-1, 1, 16 * 16 * 3, dtype=np.float32).reshape(1, 16, 16, 3)
    np.testing.assert_allclose(model(x), model.translate(x, "b2a"), atol=1e-6)
    images.write_image(tmp_path / "in.png", picture)
    written, failed = translate_files(model, tmp_path / "in.png", tmp_path / "out.png", "b2a", active=False)
    assert written and not failed
    with pytest.raises(UserError, match="--direction=a2b: this model translates b2a only"):
        export(model, tmp_path / "export", "a2b", size=(16, 16), data=config.Data(data="emoji"))


def test_training_goes_on_from_both_generators_and_new_discriminators(tmp_path):
    model = small(discriminator_layers=1)
    for part in ("G_A", "G_B"):
        generator_file(tmp_path / f"latest_net_{part}.pth", model, part)
    converted(tmp_path, tmp_path / "run")
    tuned = small(discriminator_layers=1, seed=5)
    drawn = tuned.discriminator_a.first.kernel.numpy()
    checkpoints.initialise(tuned, tmp_path / "run")
    for name in ("generator_a2b", "generator_b2a"):
        for ours, old in zip(tuned.networks[name].weights, model.networks[name].weights, strict=True):
            np.testing.assert_array_equal(ours, old)
    np.testing.assert_array_equal(tuned.discriminator_a.first.kernel, drawn)


def test_a_single_generator_refuses_training(tmp_path):
    converted(generator_file(tmp_path / "photo.pth"), tmp_path / "run")
    with pytest.raises(UserError, match="photo.pth, which holds the generator a2b alone: training needs that of b2a"):
        checkpoints.initialise(small(), tmp_path / "run")


def test_a_converted_run_is_not_resumed(tmp_path):
    converted(generator_file(tmp_path / "photo.pth"), tmp_path / "run")
    with pytest.raises(UserError, match="converted from photo.pth .* --init_from="):
        loop.train(settings.resolve("cyclegan", TINY), tmp_path / "run")


# What files come as


def test_prefixes_of_data_parallel_are_taken_off(tmp_path):
    model = small()
    path = generator_file(tmp_path / "x.pth", model, change=lambda s: {f"module.{k}": v for k, v in s.items()})
    again = converted(path, tmp_path / "run")
    for ours, old in zip(again.generator_a2b.weights, model.generator_a2b.weights, strict=True):
        np.testing.assert_array_equal(ours, old)


@pytest.mark.parametrize("name", [n for n, method in METHODS.items() if method.published])
def test_the_help_names_each_published_method(name):
    assert re.search(rf"\b{name.rstrip('2')}", convert.__doc__.lower().replace("-", ""))


def test_the_latest_of_several_epochs(tmp_path):
    for i, name in enumerate(("5", "20", "latest", "iter_900"), 1):
        fixed = {"model.1.bias": np.full(1, i, np.float32)}
        generator_file(tmp_path / f"{name}_net_G_A.pth", change=lambda s, f=fixed: s | f)
    (tmp_path / "optimizer.pth").write_bytes(b"not looked at")
    for epoch, expected in ((None, 3), ("20", 2), ("iter_900", 4)):
        files, _, note = sources.read(tmp_path, published.FILE_NAMES, epoch)
        ((_, state),) = files.items()
        assert state["model.1.bias"].numpy() == [expected]
        assert f"epoch {epoch or 'latest'}, --epoch takes another (" in note
    said = []
    model = converted(tmp_path, tmp_path / "run", epoch="20", log=said.append)
    assert model.generator_a2b.head.bias.numpy() == [2] and "epoch 20, --epoch takes another (" in said[0]


def test_without_a_latest_the_last_epoch(tmp_path):
    for step in (100, 20000, 3000):
        generator_file(tmp_path / f"{step}_net_G_A.pth")
    files, _, note = sources.read(tmp_path, published.FILE_NAMES)
    assert list(files) == ["20000_net_G_A"] and "epoch 20000" in note
    with pytest.raises(UserError, match="--epoch=7: .* has 100, 3000, 20000"):
        sources.read(tmp_path, published.FILE_NAMES, "7")


# What is refused


def test_broken_numbers(tmp_path):
    for value in (np.nan, np.inf):
        bad = {"model.4.weight": np.full((2, 1, 3, 3), value, np.float32)}
        path = generator_file(tmp_path / "x.pth", change=lambda s, b=bad: s | b)
        refused(path, tmp_path, "G_A: model.4.weight holds numbers that are not finite")


def test_sources_that_are_nothing(tmp_path):
    refused(tmp_path / "nowhere", tmp_path, "--source=.*nowhere does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path, "holds nothing named as checkpoints are .it has no .pth")
    (tmp_path / "text.pth").write_text("hello")
    refused(tmp_path / "text.pth", tmp_path, "text.pth is not a file of torch.save")
    whole = generator_file(tmp_path / "x.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[:-1000])
    refused(tmp_path / "cut.pth", tmp_path, "cut.pth cannot be read")
    judge = generator_file(tmp_path / "latest_net_D_A.pth", part="D_A")
    refused(judge, tmp_path, "discriminators alone, nothing that translates")
    refused(generator_file(tmp_path / "x.pth"), tmp_path, "--method=unit, but .* of cyclegan", method="unit")
    refused(CHECKPOINTS / "cyclegan_batch.zip", tmp_path, "translates a2b and b2a, by its files", direction="a2b")


def test_folders_that_only_look_like_checkpoints_of_tensorflow(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    refused(tmp_path / "saved", tmp_path, "is a SavedModel without .*variables.index: give the folder with all")
    (tmp_path / "x.index").mkdir()
    refused(tmp_path / "x.index", tmp_path, "x.index holds nothing named as checkpoints are")
    (tmp_path / "around").mkdir()
    (tmp_path / "x.index").rename(tmp_path / "around" / "x.index")
    refused(tmp_path / "around", tmp_path, "around holds nothing named as checkpoints are")


@pytest.mark.parametrize("levels", [0, 10**4])
def test_a_file_that_holds_itself_or_a_deep_nest(levels, tmp_path):
    start, end = b"\x80\x02" + b"}U\x05inner" * levels, b"s" * levels + b"."
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", start + b"}q\x00U\x05innerh\x00s" + end)
        archive.writestr("x/version", "3")
    refused(tmp_path / "x.pth", tmp_path, "no checkpoint that is known: it holds something with inner")


def test_the_current_folder_can_be_filled(tmp_path, monkeypatch):
    source = generator_file(tmp_path / "x.pth")
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    assert converted(source, ".").directions == ("a2b",)
    assert sorted(p.name for p in pathlib.Path().iterdir()) == ["checkpoints", "config.json", "flags.txt"]


def test_a_folder_that_is_taken(tmp_path):
    source = generator_file(tmp_path / "x.pth")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    refused(source, tmp_path, "--run_dir=.* is there already")
    (tmp_path / "run" / "mine.txt").unlink()
    (tmp_path / "run.tmp").mkdir()
    (tmp_path / "run.tmp" / "mine.txt").write_text("keep")
    assert converted(source, tmp_path / "run").directions == ("a2b",)
    assert (tmp_path / "run.tmp" / "mine.txt").is_file()


def test_a_folder_that_is_taken_meanwhile(tmp_path, monkeypatch):
    def disturb(*_, **__):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "mine.txt").write_text("keep")

    source = generator_file(tmp_path / "x.pth")
    monkeypatch.setattr(run_directory, "write", disturb)
    with pytest.raises(UserError, match="--run_dir=.*run is no longer empty"):
        converted(source, tmp_path / "run")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "x.pth"]
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_hostile_archives(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../latest_net_G.pth", b"")
    refused(path, tmp_path, r"its member '../latest_net_G.pth' points outside of the archive")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/latest_net_G.pth", bytes(10**7))
    refused(path, tmp_path, r"'m/latest_net_G.pth' unpacks \d+ to 10000000 bytes")
    damaged = bytearray((CHECKPOINTS / "cyclegan_released.zip").read_bytes())
    damaged[2000] ^= 255
    path.write_bytes(damaged)
    refused(path, tmp_path, "x.zip: its member .* cannot be read|latest_net_G.pth cannot be read")


def test_fill_gives_nothing_when_something_is_wrong():
    v = tf.Variable([1.0])
    state = {"a": torch_files.Tensor((1,), "<f4", lambda: np.float32([np.nan]).tobytes(), 0, (1,))}
    with pytest.raises(UserError, match="not finite"):
        fill({"a": Place(v)}, state, "G_A")
    assert v.numpy() == [1]


# And back


def test_export_of_one_generator(tmp_path):
    run = untrained(tmp_path / "run")
    (path,) = exchange.export(run, tmp_path / "out", direction="b2a", log=lambda _: None)
    assert path.name == "latest_net_G_B.pth"
    with pytest.raises(UserError, match="has latest_net_G_B.pth already"):
        exchange.export(run, tmp_path / "out", direction="b2a")


def test_an_export_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    run = untrained(tmp_path / "run")
    model = checkpoints.load(run)
    monkeypatch.setattr(checkpoints, "load", lambda *_: model)

    def breaking(function, stop):
        calls = itertools.count()

        def second(path, *args):
            if next(calls):
                path.touch()
                raise stop
            return function(path, *args)

        return second

    for owner, name in ((torch_files, "save"), (pathlib.Path, "replace")):
        for stop, expected in ((OSError(28, "disk is full"), UserError), (KeyboardInterrupt(), KeyboardInterrupt)):
            with monkeypatch.context() as patch, pytest.raises(expected):
                patch.setattr(owner, name, breaking(getattr(owner, name), stop))
                exchange.export(run, tmp_path / "out", log=lambda _: None)
            assert not list((tmp_path / "out").iterdir())
    assert len(exchange.export(run, tmp_path / "out", log=lambda _: None)) == 4


def test_export_of_what_the_official_code_has_not(tmp_path):
    wide = {"generator_width": 1, "residual_width": 8, "discriminator_width": 1}
    for method, options, message in (
        ("cyclegan", {"upsample": "resize_conv"}, "--upsample=resize_conv is not in the published code"),
        ("cyclegan", {"cyclegan_variant": "tensorflow"}, "--cyclegan_variant=tensorflow is not in the published code"),
        ("unit", wide, "the official code has no such encoder_a, encoder_b"),
    ):
        run = untrained(tmp_path / message, method, **options)
        with pytest.raises(UserError, match=message):
            exchange.export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    command = [sys.executable, "-m", "tfi2i.convert", f"--source={CHECKPOINTS}/cyclegan_released.zip", "--size=64"]
    done = subprocess.run([*command, f"--run_dir={run}"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0 and not done.stderr
    assert "found: --generator=resnet_9blocks" in done.stdout and f"written to {run}" in done.stdout
    assert json.loads((run / "config.json").read_text())["data"]["crop"] == [64, 64]
    call(convert, "--export=pytorch", f"--run_dir={run}", f"--output={out}")
    assert [p.name for p in out.iterdir()] == ["latest_net_G_A.pth"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--export=pytorch", "--source=x", "--output=y"], "--source goes without --export"),
        (["--export=pytorch", "--norm=none", "--output=y"], "--norm goes without --export"),
        (["--source=x", "--output=y"], "--output goes with --export"),
        (["--export=pytorch"], "--export=pytorch needs --output=FOLDER"),
        ([], "give --source=FILE, or --export=pytorch"),
        (["--source=x", "--size=big"], "--size=big: 'big' is not a size"),
    ],
)
def test_flags_that_contradict_each_other(arguments, message):
    with pytest.raises(UserError, match=message):
        call(convert, "--run_dir=x", *arguments)


def test_a_run_directory_is_no_checkpoint(tmp_path):
    run = untrained(tmp_path / "mine", "cyclegan", generator_width=1, discriminator_width=1)
    with pytest.raises(UserError, match="is a run directory already: translate, evaluate and export take it"):
        exchange.convert(run, tmp_path / "again")
