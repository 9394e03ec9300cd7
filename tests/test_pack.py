"""Archives to hand on: the same translations, no path of the machine, licences that stay with the weights."""

import dataclasses
import shutil
import zipfile

import numpy as np
import pytest

import tfi2i
from tests.methods.test_cyclegan import TINY
from tfi2i import checkpoints, run_directory, settings
from tfi2i.archive import pack
from tfi2i.config import UserError
from tfi2i.training import loop


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory, and the configuration of its run."""
    folder = tmp_path_factory.mktemp("secret place") / "run"
    given = {"data": str(folder.parent / "photos"), "init_from": str(folder.parent / "before"), "steps": 2}
    run = settings.resolve("cyclegan", {**TINY, **given, "crop": (16, 16), "resize": (16, 16)})
    model = checkpoints.build(run)
    model.compile()
    model.build_for_training((1, 16, 16, 3), (1, 16, 16, 3))
    model.build_optimizers()
    checkpoints.save(folder, model, 2, keep=1)
    run_directory.write(folder, run, fingerprints={"a": "1", "b": "2"})
    return folder, run


def unpacked(archive, folder):
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
        assert {name.partition("/")[0] for name in content.namelist()} == {archive.stem}
    return folder / archive.stem


def test_it_translates_as_the_run_and_names_no_place(trained, tmp_path):
    folder, run = trained
    archive = pack(folder, tmp_path / "mine.zip", weights_license="CC-BY-4.0")
    there = unpacked(archive, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), "uint8")
    model, original = tfi2i.load(there), tfi2i.load(folder)
    np.testing.assert_array_equal(model.translate(pixels), original.translate(pixels))
    assert model.checkpoint_step == 2 and model.run.model == run.model
    assert model.licenses == {"weights": "CC-BY-4.0", "data": "not stated"}
    for path in (p for p in there.rglob("*") if p.is_file()):
        assert b"secret place" not in path.read_bytes(), path
    sizes = [sum(p.stat().st_size for p in f.rglob("*") if p.is_file()) for f in (there, folder)]
    assert sizes[0] < sizes[1] / 2
    # Packed again, it keeps what was said about licences.
    again = unpacked(pack(there, tmp_path / "again.zip", data_license="CC0"), tmp_path)
    assert tfi2i.load(again).licenses == {"weights": "CC-BY-4.0", "data": "CC0"}


def test_two_folders_are_forgotten_with_their_split(trained, tmp_path):
    folder, run = trained
    data = dataclasses.replace(run.data, data=None, a="/photos", b="/paintings", holdout=0.2)
    shutil.copytree(folder, tmp_path / "run")
    run_directory.write(tmp_path / "run", dataclasses.replace(run, data=data))
    there = unpacked(pack(tmp_path / "run", tmp_path / "mine.zip"), tmp_path)
    kept = tfi2i.load(there).run.data
    assert (kept.data, kept.a, kept.b, kept.holdout) == (None,) * 4 and kept.crop == (16, 16)


def test_it_is_a_start_but_cannot_be_resumed(trained, tmp_path):
    folder, run = trained
    there = unpacked(pack(folder, tmp_path / "mine.zip"), tmp_path)
    with pytest.raises(UserError, match=f"packed without the state of training.*--init_from={there}"):
        loop.train(settings.resolve("cyclegan", {**TINY, "data": "emoji"}), there)
    model = checkpoints.build(run)
    checkpoints.initialise(model, there)
    for x, y in zip(model.weights_of("generator"), tfi2i.load(folder).weights_of("generator"), strict=True):
        np.testing.assert_array_equal(x, y)


def test_what_is_refused(trained, tmp_path):
    folder, _ = trained
    pack(folder, tmp_path / "mine.zip")
    before = (tmp_path / "mine.zip").read_bytes()
    with pytest.raises(UserError, match="there already"):
        pack(folder, tmp_path / "mine.zip")
    with pytest.raises(UserError, match="expected the name of a .zip"):
        pack(folder, tmp_path / "mine.tar")
    assert (tmp_path / "mine.zip").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["mine.zip"]
    with pytest.raises(UserError, match="is not a run directory"):
        pack(tmp_path, tmp_path / "x.zip")
