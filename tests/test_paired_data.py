"""Pairs of pictures: in two folders, or side by side in one picture; which belong together, and how they are drawn."""

import json
import logging

import numpy as np
import pytest
from PIL import Image
from tfi2i.export import exporter

from tests.own_flags import call
from tfi2i import settings
from tfi2i.commands import doctor
from tfi2i.config import Data, PairedData, UserError
from tfi2i.data import images, pipeline, sources
from tfi2i.metrics import held_out, pages
from tfi2i.metrics.pairs import find_pairs

JITTERED = {"resize": (10, 12), "resize_mode": "exact", "crop": (8, 8), "flip": 0.5, "flip_first": False}


def picture(value, height=10, width=12):
    """A picture of its own, with a structure that crops and flips move."""
    return np.random.default_rng(value).integers(0, 256, (height, width, 3), np.uint8)


def write(folder, *names, size=(10, 12), first=0):
    for i, name in enumerate(names):
        images.write_image(folder / name, picture(first + i, *size))


def write_halves(folder, count, first=0):
    """Pictures whose right half is the negative of the left one."""
    for i in range(count):
        half = picture(first + i)
        images.write_image(folder / f"{i}.png", np.concatenate([half, 255 - half], axis=1))


def stream(data, batch_size=1, seed=0):
    pair = data.open_domains()
    return pipeline.TrainingStream(*pair, data, value_range=(0, 255), seed=seed, batch_size=batch_size)


def drawn(stream, count):
    return [tuple(x.numpy() for x in pair) for pair in stream.dataset().take(count)]


# Which belong together


def test_measuring_needs_no_partners(tmp_path):
    """Figures such as KID compare all pictures of both domains, whatever the method learned from."""
    for letter, names in (("A", ("x.png", "y.png")), ("B", ("y.png", "z.png", "w.png"))):
        write(tmp_path / f"test{letter}", *names)
    data = PairedData(data=str(tmp_path))
    assert [len(source) for source in held_out.open_domains(data, "test").values()] == [2, 3]
    assert [source.names for source in data.open_domains("test")] == [["testA/y.png"], ["testB/y.png"]]


def test_halves_that_moved_are_halves_where_they_are_now(tmp_path):
    write_halves(tmp_path / "moved", 8)
    own = PairedData(ab="/nowhere", holdout=0.4)
    data = own.in_folder_of_halves(str(tmp_path / "moved"))
    a, b = data.open_domains("test")
    assert 1 <= len(a) < 8 and a.half == 0 and b.half == 1
    assert pages._data(own, str(tmp_path / "moved"), ("a2b",)) == data == exporter.pictures(own, data.ab, "a2b")


def test_partners_are_found_by_their_names_and_the_others_left_out(tmp_path, caplog):
    write(tmp_path / "a", "x_A.png", "sub/y.jpg", "z.png", "alone.png")
    write(tmp_path / "b", "z.png", "x_B.png", "sub/y.png", "lonely.png")
    data = PairedData(a=str(tmp_path / "a"), b=str(tmp_path / "b"), holdout=0.0)
    images._said.clear()
    with caplog.at_level(logging.WARNING):
        a, b = data.open_domains()
    assert list(zip(a.names, b.names)) == [("sub/y.jpg", "sub/y.png"), ("x_A.png", "x_B.png"), ("z.png", "z.png")]
    assert "2 pictures without a partner are left out: A alone.png, B lonely.png" in caplog.text
    assert [len(s) for s in Data(a=data.a, b=data.b, holdout=0.0).open_domains()] == [4, 4]
    strict = PairedData(a=data.a, b=data.b, holdout=0.0, max_bad_files=1)
    with pytest.raises(UserError, match="2 pictures have no partner .* --max_bad_files=1: A alone.png, B lonely.png"):
        strict.open_domains()


def test_no_partner_at_all(tmp_path):
    write(tmp_path / "trainA", "x.png", "y.png")
    write(tmp_path / "trainB", "1.png", "2.png")
    with pytest.raises(UserError, match=r"none of the 2 pictures of A \(trainA/x.png, …\) has the name of one .* --ab"):
        PairedData(data=str(tmp_path)).open_domains()


def test_the_sample_has_partners_for_pairs_alone():
    a, b = PairedData(data="emoji").open_domains()
    assert a.names == b.names and len(a) == 858
    unpaired = Data(data="emoji").open_domains()
    assert [len(s) for s in unpaired] == [429, 429] and not find_pairs(*unpaired)
    assert [len(s) for s in PairedData(data="emoji").open_domains("test")] == [176, 176]


# Side by side


def test_a_folder_of_train_and_val_is_cut_in_the_middle(tmp_path):
    write_halves(tmp_path / "train", 3)
    write_halves(tmp_path / "val", 2, first=7)
    for kind in (Data, PairedData):
        a, b = kind(data=str(tmp_path)).open_domains()
        assert a.names == b.names == [f"train/{i}.png" for i in range(3)]
        assert a.image_size(0) == b.image_size(0) == (10, 12)
        np.testing.assert_array_equal(a.read(1), picture(1))
        np.testing.assert_array_equal(b.read(1), 255 - picture(1))
        assert len(find_pairs(a, b)) == 3
        assert a.content_hash([0]) != b.content_hash([0]) and a.fingerprint == b.fingerprint
        b, a = kind(data=str(tmp_path), swap_domains=True).open_domains("val")
        np.testing.assert_array_equal(b.read(0), 255 - picture(7))
        with pytest.raises(sources.MissingSplit, match="has no test images .*: it holds train, val$"):
            kind(data=str(tmp_path)).open_domains("test")
    assert sources.has_layout(str(tmp_path)) and not sources.has_layout(str(tmp_path / "val"))
    domain = held_out.open_domains(Data(data=str(tmp_path), channels_b=1), "val", "b")["b"]
    assert domain.read(0).shape == (10, 12, 1)


def test_halves_of_one_picture_belong_together_whatever_its_name(tmp_path):
    write_halves(tmp_path / "train", 2)
    images.write_image(tmp_path / "train" / "1.bmp", np.concatenate([picture(9)] * 2, axis=1))
    a, b = PairedData(data=str(tmp_path)).open_domains()
    assert a.names == b.names == ["train/0.png", "train/1.bmp", "train/1.png"]


def test_folders_of_classes_are_not_taken_for_pairs(tmp_path):
    write(tmp_path / "train" / "cats", "x.png")
    write(tmp_path / "train" / "dogs", "x.png")
    with pytest.raises(UserError, match="has no folder for domain A: expected trainA, train_A or train/A"):
        Data(data=str(tmp_path)).open_domains()


def test_one_folder_of_halves_is_split_by_names(tmp_path):
    write_halves(tmp_path / "pairs", 12)
    data = PairedData(ab=str(tmp_path / "pairs"))
    assert data.holdout == 0.1
    (a, b), (test, _) = data.open_domains(), data.open_domains("test")
    assert a.names == b.names and {*a.names}.isdisjoint(test.names) and len(a) + len(test) == 12
    assert sources.held_out(data) == [str(tmp_path / "pairs" / name) for name in test.names]
    assert settings.Run.from_json(settings.resolve("pix2pix", {"ab": "pairs"}).to_json()).data.ab == "pairs"
    np.testing.assert_array_equal(b.read(0), 255 - a.read(0))


@pytest.mark.parametrize(
    "given, message",
    [
        ({"ab": "x", "a": "y", "b": "z"}, "--a and --ab both name the images"),
        ({"ab": "x", "data": "y"}, "--data and --ab both name the images"),
    ],
)
def test_sources_that_contradict(given, message):
    with pytest.raises(UserError, match=message):
        Data(**given)


def test_halves_of_an_odd_width(tmp_path):
    write_halves(tmp_path / "train", 3)
    write(tmp_path / "train", "odd.png", size=(10, 25))
    with pytest.raises(
        UserError, match="train/odd.png is 25 pixels wide, an odd number, .*: bring it to an even width"
    ):
        stream(PairedData(data=str(tmp_path), **JITTERED))


def test_doctor_looks_at_halves(tmp_path, capsys):
    write_halves(tmp_path / "train", 3)
    write_halves(tmp_path / "test", 2, first=7)
    write(tmp_path / "train", "odd.png", size=(10, 25))
    call(doctor, f"--data={tmp_path}", "--noprice")
    said = capsys.readouterr().out
    assert said.count("10x12") == 6 and "an odd number" in said


# How they are drawn


@pytest.mark.parametrize("first", [False, True])
def test_partners_are_cropped_and_flipped_alike(tmp_path, first):
    write_halves(tmp_path / "train", 4)
    data = PairedData(data=str(tmp_path), **JITTERED | {"flip_first": first, "rotate": 5.0})
    seen = drawn(stream(data, batch_size=2), 8)
    inside = [(a + b)[(a != 0) | (b != 0)] for a, b in seen]  # rotated corners are black in both
    assert all(np.allclose(x, 255, atol=1e-3) for x in inside)
    assert len({a[i].tobytes() for a, _ in seen for i in range(2)}) > 8
    other = drawn(stream(Data(**{**JITTERED, "data": str(tmp_path)}), batch_size=2), 8)
    assert not all(np.allclose(a + b, 255, atol=1e-3) for a, b in other)


def test_every_epoch_shows_every_pair_once_from_any_step_on(tmp_path):
    write_halves(tmp_path / "train", 5)
    data = PairedData(data=str(tmp_path), **JITTERED)
    made = stream(data)
    names = [made.names(step) for step in range(10)]
    assert all(a == b for a, b in names)
    assert sorted(a[0] for a, _ in names[:5]) == sorted(a[0] for a, _ in names[5:]) != [a[0] for a, _ in names[:5]]
    tail = [pair for pair in stream(data).dataset(start_step=3).take(2)]
    for expected, seen in zip(drawn(made, 5)[3:], tail):
        np.testing.assert_array_equal(expected[1], seen[1])


@pytest.mark.parametrize("broken", ["trainA", "trainB"])
@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_a_pair_with_a_broken_file_is_replaced_by_the_next(tmp_path, broken, cache_gib):
    for i in range(4):
        for letter in "AB":
            path = tmp_path / f"train{letter}" / f"{i}.png"
            images.write_image(path, np.full((8, 8, 3), i, np.uint8))
    (tmp_path / broken / "2.png").write_bytes(b"\x89PNG broken")
    made = stream(PairedData(data=str(tmp_path), resize=(8, 8), resize_mode="exact", crop=(8, 8), cache_gib=cache_gib))
    seen = drawn(made, 12)
    assert all((a == b).all() for a, b in seen) and {int(a[0, 0, 0, 0]) for a, _ in seen} == {0, 1, 3}
    assert [path for path, _ in made.bad_files] == [f"{broken}/2.png"]


@pytest.mark.parametrize(
    "size, resizing, fits",
    [
        ((20, 24), {"resize": (10, 12), "resize_mode": "exact"}, True),
        ((20, 24), {"resize": (9, 9), "resize_mode": "short_side"}, True),
        ((20, 24), {"resize_mode": "none"}, False),
        ((12, 10), {"resize": (10, 12), "resize_mode": "exact"}, False),
    ],
)
def test_partners_have_one_frame(tmp_path, size, resizing, fits):
    write(tmp_path / "trainA", "x.png", "y.png")
    write(tmp_path / "trainB", "x.png", "y.png", size=size)
    data = PairedData(data=str(tmp_path), crop=(8, 8), **resizing)
    if fits:
        assert drawn(stream(data), 1)[0][1].shape == (1, 8, 8, 3)
        return
    message = f"trainA/x.png is 10x12 and trainB/x.png is {size[0]}x{size[1]} .*: partners must show the same scene"
    with pytest.raises(UserError, match=message):
        stream(data)


def test_samples_show_partners(tmp_path):
    write_halves(tmp_path / "train", 3)
    write_halves(tmp_path / "test", 5, first=9)
    (tmp_path / "test" / "0.png").write_bytes(b"broken")
    data = PairedData(data=str(tmp_path), **JITTERED)
    a, b = pipeline.examples(data, 4, (0, 1))
    assert a.shape == (3, 8, 8, 3)
    np.testing.assert_allclose(a + b, 1, atol=2 / 255)


def test_what_the_stream_makes_of_halves_is_said(tmp_path):
    write_halves(tmp_path / "train", 3)
    paired = stream(PairedData(data=str(tmp_path), **JITTERED)).crops
    assert paired[0] == f"every picture in {tmp_path}/train shows A and B side by side and is cut in the middle"
    assert (
        stream(Data(data=str(tmp_path), **JITTERED)).crops[0].endswith("does not learn from pairs and mixes the halves")
    )


def test_a_run_says_where_its_pairs_are(tmp_path):
    """config.json has the folder, and data that has moved is missed in words."""
    run = settings.resolve("pix2pix", {"ab": str(tmp_path / "pairs")})
    assert json.loads(run.to_json())["data"]["holdout"] == 0.1
    with pytest.raises(UserError, match="trained on --ab=.*pairs, not found here"):
        sources.check_found(run.data)


def test_a_grey_and_a_deep_picture_side_by_side(tmp_path):
    path = tmp_path / "train" / "x.png"
    path.parent.mkdir()
    Image.fromarray(np.arange(8, dtype=np.uint16).reshape(1, 8) * 8000).save(path)
    a, b = sources._open(Data(data=str(tmp_path), channels_a=1, channels_b=1), "train", "AB")
    assert a.read(0).dtype == np.uint16 and a.read(0)[0, :, 0].tolist() == [0, 8000, 16000, 24000]
    assert b.read(0)[0, :, 0].tolist() == [32000, 40000, 48000, 56000]
