import dataclasses
import hashlib
import os

import numpy as np
import pytest

from tfi2i.config import Data, UserError
from tfi2i.data import images, sources

LAYOUTS = [
    ("trainA", "trainB", "testA", "testB"),
    ("train_A", "train_B", "test_A", "test_B"),
    ("TRAINA", "trainb", "Test-A", "testB"),
    ("train/A", "train/B", "test/A", "test/B"),
    ("train/horse_A", "train/zebra_B", "test/horse_A", "test/zebra_B"),
]


def write(folder, *names, value=0):
    for i, name in enumerate(names):
        images.write_image(folder / name, np.full((4, 6, 3), value + i, np.uint8))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout[0])
def test_folder_layouts(tmp_path, layout):
    for value, folder in enumerate(layout):
        write(tmp_path / folder, "x.png", "y.png", value=10 * value)
    data = Data(data=str(tmp_path))
    for split, (a, b) in (("train", layout[:2]), ("test", layout[2:])):
        source_a, source_b = sources.open_domains(data, split)
        assert source_a.names == [f"{a}/x.png", f"{a}/y.png"]
        assert source_b.names == [f"{b}/x.png", f"{b}/y.png"]
        assert source_b.read(1).max() == 10 * layout.index(b) + 1
        assert source_a.image_size(0) == (4, 6)
    with pytest.raises(sources.MissingSplit, match="has no val images"):
        sources.open_domains(data, "val")


def test_swap_channels_background_and_fingerprint(tmp_path):
    write(tmp_path / "trainA", "x.png", "y.png")
    write(tmp_path / "trainB", "z.png", "w.png", value=50)
    images.write_image(tmp_path / "trainB/w.png", np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8))
    data = Data(data=str(tmp_path), swap_domains=True, channels_a=1, background=(5, 5, 5))
    a, b = sources.open_domains(data)
    assert a.names == ["trainB/w.png", "trainB/z.png"] and len(a) == 2
    assert a.read(0).tolist() == [[[5]]] and a.read(1).shape == (4, 6, 1) and b.read(0).shape == (4, 6, 3)
    sizes = [(tmp_path / name).stat().st_size for name in a.names]
    text = f"trainB/w.png\t{sizes[0]}\ntrainB/z.png\t{sizes[1]}\n"
    assert a.fingerprint == hashlib.sha256(text.encode()).hexdigest()
    assert a.fingerprint != b.fingerprint
    assert "2 images" in a.description


def test_one_domain_asks_nothing_of_the_other(tmp_path, tfds_dir):
    write(tmp_path / "testB", "z.png")
    data = Data(data=str(tmp_path), channels_b=1)
    assert sources.open_domain(data, "B", "test").read(0).shape == (4, 6, 1)
    with pytest.raises(sources.MissingSplit, match="no test images .testA."):
        sources.open_domain(data, "A", "test")
    swapped = sources.open_domain(dataclasses.replace(data, swap_domains=True), "A", "test")
    assert swapped.names == ["testB/z.png"] and swapped.channels == 3
    csv = write_csv(tmp_path, FACES)
    listed = Data(csv=csv, domain_a="label=cow", domain_b="label=cat")
    assert sources.open_domain(listed, "B", "train").names == ["a.png", "d.png"]
    with pytest.raises(UserError, match="--domain_a='label=cow' matches none"):
        sources.open_domain(listed, "A", "train")
    prepared = Data(tfds="cycle_gan/horse2zebra", tfds_dir=str(tfds_dir))
    a, b = sources.open_domains(prepared)
    assert sources.open_domain(prepared, "B", "train").names == b.names


def test_an_empty_folder_of_held_out_images_is_as_good_as_none(tmp_path):
    write(tmp_path / "trainA", "x.png", "y.png")
    write(tmp_path / "testA", "x.png")
    (tmp_path / "testB").mkdir()
    (tmp_path / "trainB").mkdir()
    data = Data(data=str(tmp_path))
    with pytest.raises(sources.MissingSplit, match="testB has no images"):
        sources.open_domains(data, "test")
    assert len(sources.open_domain(data, "A", "test")) == 1
    with pytest.raises(UserError, match="trainB has no images") as refused:  # to learn from, it is needed
        sources.open_domains(data)
    assert not isinstance(refused.value, sources.MissingSplit)


def test_the_bundled_sample_is_there():
    a, b = sources.open_domains(Data(data="emoji"))
    assert len(a) > 100 and len(b) > 100
    assert a.read(0).shape[-1] == 3
    for split in ("val", "test"):
        a, b = sources.open_domains(Data(data="emoji"), split)
        assert [n.split("/")[1] for n in a.names] == [n.split("/")[1] for n in b.names]


def test_folder_errors(tmp_path):
    def fails(message, **data):
        with pytest.raises(UserError, match=message):
            sources.open_domains(Data(**data))

    root = str(tmp_path)
    fails("nothing to read: give --a=FOLDER and --b=FOLDER, --data=FOLDER")
    fails("does not exist: expected a folder with trainA", data=f"{root}/none")
    sources.check_named(data="emoji", a=None, b=f"{root}/*.png")
    with pytest.raises(UserError, match="^--b=.*none does not exist: expected a folder of pictures$"):
        sources.check_named(a=str(root), b=f"{root}/none")
    fails("no folder for domain A: expected trainA, train_A or train/A; it holds no folders", data=root)
    write(tmp_path / "trainA", "x.png", "y.png")
    fails("no folder for domain B.*it holds trainA$", data=root)
    (tmp_path / "zebras").mkdir()
    named = f"--a={root}/trainA --b={root}/zebras"
    fails(f"it holds trainA, zebras; two folders of any names are given as {named}", data=root)
    (tmp_path / "zebras").rmdir()
    (tmp_path / "trainB").mkdir()
    fails("trainB has no images", data=root)
    write(tmp_path / "trainB", "x.png")
    fails(r"domain B has only one image \(trainB/x.png\): at least 2", data=root)
    fails(r"domain A has only one image \(trainB/x.png\): at least 2", data=root, swap_domains=True)
    write(tmp_path / "train/B", "x.png")
    fails("train/B and trainB|trainB and train/B", data=root)
    fails("is a file", data=f"{root}/trainA/x.png")


def test_open_folder_takes_a_folder(tmp_path):
    write(tmp_path / "in", "sub/x.png", "y.png")
    assert sources.open_folder(str(tmp_path / "in")).names == ["sub/x.png", "y.png"]
    for path, seen in (("in/*.png", "does not exist"), ("in/y.png", "is a file"), ("none", "does not exist")):
        with pytest.raises(UserError, match=f"{seen}: expected a folder of images, not a pattern"):
            sources.open_folder(str(tmp_path / path))


def test_names_that_are_not_utf_8_have_a_fingerprint(tmp_path):
    write(tmp_path / "in", "x.png")
    encoded = (tmp_path / "in" / "x.png").read_bytes()
    (tmp_path / "in" / "x.png").rename(os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xe9.png"))
    source = sources.open_folder(str(tmp_path / "in"))
    assert source.fingerprint == hashlib.sha256(b"\xe9.png\t%d\n" % len(encoded)).hexdigest()
    os.unlink(source.items[0])
    assert source.content_hash([0]) == hashlib.sha256(hashlib.sha256(b"\xe9.png").digest()).hexdigest()


def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(sources.os, "scandir", refuse)
    with pytest.raises(UserError, match=f"cannot read the folder {tmp_path}: Permission denied"):
        sources.open_domains(Data(data=str(tmp_path)))


# ---------------------------------------------------------------------------------- a folder for each domain

# The first digits of SHA-256 of "9", "8", "4", "3" are 19, 2c, 4b, 4e; of "2", "6", "5" d4, e7, ef: of 256.
DIGITS = [f"{i}.png" for i in range(10)]


def own(folder, **given):
    return Data(**{"a": str(folder / "photos"), "b": str(folder / "paintings"), **given})


def sides(data):
    """The names of (training A, training B, test A, test B)."""
    return [source.names for split in ("train", "test") for source in sources.open_domains(data, split)]


def test_two_folders_are_split_by_the_hash_of_names(tmp_path):
    write(tmp_path / "photos", *DIGITS)
    write(tmp_path / "paintings", *(f"{i}_B.png" for i in range(10)), value=50)
    train_a, train_b, test_a, test_b = sides(own(tmp_path, holdout=0.25))
    assert test_a == ["8.png", "9.png"] and test_b == ["8_B.png", "9_B.png"]
    assert train_a == [f"{i}.png" for i in range(8)] and train_b == [f"{i}_B.png" for i in range(8)]
    assert [s.read(1).max() for s in sources.open_domains(own(tmp_path, holdout=0.25), "test")] == [9, 59]
    assert sides(own(tmp_path))[2] == ["9.png"]  # a tenth
    swapped = own(tmp_path, swap_domains=True)
    assert sides(swapped)[2] == ["9_B.png"] and sources.held_out(swapped) == [
        str(tmp_path / "paintings/9_B.png"), str(tmp_path / "photos/9.png"),
    ]  # fmt: skip
    # More pictures, in sub-folders too, leave all others where they were.
    write(tmp_path / "photos", "sub/x.png", "y.png", "z.png")
    more = sides(own(tmp_path, holdout=0.25))
    assert set(train_a) < set(more[0]) and set(test_a) <= set(more[2]) and more[1] == train_b
    with pytest.raises(sources.MissingSplit, match="no val images: those that --holdout keeps are the test images"):
        sources.open_domains(own(tmp_path), "val")
    none = own(tmp_path, holdout=0.0)
    assert len(sources.open_domains(none)[0]) == 13 and sources.held_out(none) == []
    with pytest.raises(sources.MissingSplit, match="no test images: --holdout=0.0 keeps none"):
        sources.open_domains(none, "test")


def test_few_pictures_hold_one_out_and_pairs_stay_together(tmp_path):
    write(tmp_path / "photos", "2.png", "5.png", "6.png")  # the least, of 2, is 0.83
    write(tmp_path / "paintings", "sub/9.png", "2.png", "6.png", "5.png", value=50)
    train_a, train_b, test_a, test_b = sides(own(tmp_path))
    assert test_a == ["2.png"] and test_b == ["2.png", "sub/9.png"] and train_a == train_b == ["5.png", "6.png"]
    with pytest.raises(UserError, match="only one image .5.png. beside those that --holdout=0.99 keeps: .*--holdout=0"):
        sources.open_domains(own(tmp_path, holdout=0.99))


def test_spellings_of_accents_fall_on_one_side():
    assert sources.split_by_name([["9.png"]], 0.5) == set()  # one alone is there to learn from
    assert len(sources.split_by_name([["caf\u00e9.png"], ["cafe\u0301.jpg", "caf\u00e9_B.gif"]], 1.0)) == 1


def test_patterns_name_a_domain(tmp_path):
    write(tmp_path / "photos", "x/1.png", "x/9.png", "y/2.jpg", "y/3.png", "y/5.png")
    write(tmp_path / "paintings", *DIGITS, value=50)
    train_a, _, test_a, _ = sides(own(tmp_path, a=f"{tmp_path}/photos/**/*.png", holdout=0.3))
    assert sorted(train_a + test_a) == ["x/1.png", "x/9.png", "y/3.png", "y/5.png"]


def test_what_two_folders_may_not_be(tmp_path):
    write(tmp_path / "photos", *DIGITS)
    write(tmp_path / "paintings", *DIGITS)
    write(tmp_path / "known/trainA", "0.png")
    write(tmp_path / "split/train", "0.png")
    write(tmp_path / "split/test", "0.png")
    (tmp_path / "none").mkdir()

    def fails(message, **given):
        with pytest.raises(UserError, match=message):
            sources.open_domains(own(tmp_path, **given))

    fails("no images of domain B: give --a=FOLDER and --b=FOLDER", b=None)
    fails("--b=.*/nowhere does not exist: expected a folder", b=f"{tmp_path}/nowhere")
    fails("--b=.*0.png is a file: expected a folder", b=f"{tmp_path}/photos/0.png")
    fails("none has no images", b=f"{tmp_path}/none")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    fails("both hold .*photos/0.png: give two folders that share no pictures", b=str(tmp_path / "link"))
    fails("--a=.*known holds folders such as trainA and trainB: give --data=", a=str(tmp_path / "known"))
    fails("--a=.*split holds the folders test, train, and --holdout would mix them", a=str(tmp_path / "split"))
    with pytest.raises(sources.MissingSplit, match="has images of one domain, and those of B are needed too"):
        sources.open_domains(own(tmp_path, b=None), "test")
    assert sources.open_domain(own(tmp_path, b=None), "A", "test").names == ["9.png"]


def test_empty_files_and_links_to_nothing_are_no_images(tmp_path, caplog):
    write(tmp_path / "trainA", "x.png", "y.png")
    write(tmp_path / "trainB", "x.png", "y.png")
    (tmp_path / "trainA" / "a.png").touch()
    (tmp_path / "trainA" / "b.png").symlink_to(tmp_path / "gone.png")
    for _ in range(2):  # said once
        a, _ = sources.open_domains(Data(data=str(tmp_path)))
        assert a.names == ["trainA/x.png", "trainA/y.png"]
    assert caplog.text.count("2 left out in") == 1 and "trainA/a.png, for one" in caplog.text
    for name in ("x", "y"):
        (tmp_path / "trainA" / f"{name}.png").write_bytes(b"")
    with pytest.raises(UserError, match="trainA has no images: 4 left out"):
        sources.open_domains(Data(data=str(tmp_path)))


def test_data_of_a_run_that_is_not_here(tmp_path):
    def fails(message, **given):
        with pytest.raises(UserError, match=message):
            sources.check_found(Data(**given))

    fails("trained on --data=/nowhere/photos, not found here: give --data=FOLDER", data="/nowhere/photos")
    fails(
        "trained on --a=/nowhere/a and --b=/nowhere/b/.*, not found here: give --a=FOLDER and --b=FOLDER",
        a="/nowhere/a",
        b="/nowhere/b/*.png",
    )
    fails("trained on --csv=/nowhere/x.csv, not found here", csv="/nowhere/x.csv", domain_a="x", domain_b="!x")
    fails("the run says nothing of its images: give --data=FOLDER")
    for given in ({"data": "emoji"}, {"data": str(tmp_path)}, {"a": str(tmp_path), "b": f"{tmp_path}/*"}):
        sources.check_found(Data(**given))
    sources.check_found(Data(tfds="faces"))  # which says itself what it lacks


# ------------------------------------------------------------------------------------------------- CSV


def write_csv(tmp_path, text):
    write(tmp_path, *(f"{c}.png" for c in "abcdef"))
    (tmp_path / "list.csv").write_text(text)
    return str(tmp_path / "list.csv")


FACES = "image_id,Male,label\na.png,1,cat\nb.png,-1,dog\nc.png,true,bird\nd.png,0,cat\n"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("Male", ["a.png", "c.png"]),
        ("!Male", ["b.png", "d.png"]),
        ("label=cat", ["a.png", "d.png"]),
        ("label=dog|bird", ["b.png", "c.png"]),
        ("!label=cat", ["b.png", "c.png"]),
    ],
)
def test_csv_rules(tmp_path, rule, expected):
    csv = write_csv(tmp_path, FACES)
    a, b = sources.open_domains(Data(csv=csv, domain_a=rule, domain_b="!" + rule if rule[0] != "!" else rule[1:]))
    assert a.names == expected
    assert sorted(a.names + b.names) == ["a.png", "b.png", "c.png", "d.png"]
    assert a.read(0).shape == (4, 6, 3)


def test_csv_split_column_and_folder(tmp_path):
    csv = write_csv(
        tmp_path,
        "name,x,split\na.png,1,train\nb.png,1,train\nc.png,0,train\nd.png,0,train\ne.png,1,test\nf.png,0,test\n",
    )
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "list.csv"
    moved.write_text((tmp_path / "list.csv").read_text())
    rules = {"domain_a": "x", "domain_b": "!x"}
    a, b = sources.open_domains(Data(csv=csv, **rules), "test")
    assert (a.names, b.names) == (["e.png"], ["f.png"])
    with pytest.raises(sources.MissingSplit, match="no rows for val"):
        sources.open_domains(Data(csv=csv, **rules), "val")
    with pytest.raises(UserError, match="none of the files.*give the folder.*--csv_folder"):
        sources.open_domains(Data(csv=str(moved), **rules))
    a, b = sources.open_domains(Data(csv=str(moved), csv_folder=str(tmp_path), **rules))
    assert a.names == ["a.png", "b.png"]


def test_csv_errors(tmp_path):
    def fails(message, text=FACES, a="Male", b="!Male"):
        with pytest.raises(UserError, match=message):
            sources.open_domains(Data(csv=write_csv(tmp_path, text), domain_a=a, domain_b=b))

    fails("the rule 'Glasses' names 'Glasses', which is not there: expected one of Male, label", a="Glasses")
    fails("--domain_b='label=cow' matches none of 4 images: values of label are bird, cat, dog", b="label=cow")
    fails("expected a header, a path column and at least one attribute", text="image_id\na.png\n")
    fails("row 2 does not have the header's 3 columns", text="image_id,Male,label\na.png,1,cat\nb.png,1\n")
    fails("lists a.png twice", text=FACES + "a.png,1,cat\n")
    with pytest.raises(UserError, match="--csv=.*none.csv does not exist: expected a table"):
        sources.open_domains(Data(csv=str(tmp_path / "none.csv"), domain_a="x", domain_b="!x"))


FACES_IN = {
    "commas": FACES,
    "semicolons": FACES.replace(",", ";"),
    "tabs": FACES.replace(",", "\t"),
    "Windows' ends of lines": FACES.replace("\n", "\r\n"),
    "CelebA's": "4\n" + FACES.replace("image_id,", "").replace(",", "  "),
    "CelebA's with a path column": "4\r\n" + FACES.replace(",", " ").replace("\n", "\r\n"),
}


@pytest.mark.parametrize("form", FACES_IN)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_as_programs_write_it(tmp_path, form, encoding):
    csv = write_csv(tmp_path, FACES)
    with open(csv, "w", encoding=encoding, newline="") as file:
        file.write(FACES_IN[form])
    a, b = sources.open_domains(Data(csv=csv, domain_a="Male", domain_b="label=dog|cat"))
    assert a.names == ["a.png", "c.png"] and b.names == ["a.png", "b.png", "d.png"]


def test_csv_that_seems_to_be_something_else(tmp_path):
    csv = tmp_path / "list.csv"

    def fails(message, content):
        csv.write_bytes(content)
        with pytest.raises(UserError, match=message):
            sources.open_domains(Data(csv=str(csv), domain_a="Male", domain_b="!Male"))

    fails("list.csv is a spreadsheet, not a text: save it as CSV", b"PK\x03\x04...")
    fails("list.csv is not UTF-8 .*: save it as CSV in UTF-8", b"path,Gr\xf6\xdfe\na.png,1\n")
    fails("the first line, a.png,1, names an image: put a header above it, such as path,label", b"a.png,1\nb.png,0\n")
    fails("expected a header", b"")
    fails("expected a header", b"12\n")
    fails("row 2 does not have the header's 2 columns", b"2\nMale\na.png 1\nb.png 1 1\n")


# ------------------------------------------------------------------------------------------------ TFDS


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """Two prepared data sets: the real cycle_gan builder on own files, and a labelled one with attributes."""
    tfds = pytest.importorskip("tensorflow_datasets")
    own, prepared = tmp_path_factory.mktemp("own"), tmp_path_factory.mktemp("prepared")
    for value, split in enumerate(("trainA", "trainB", "testA", "testB")):
        write(own / "horse2zebra" / split, *(f"{i}.jpg" for i in range(3)), value=60 * value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds.download.DownloadManager, "download_and_extract", lambda *_: own)
        tfds.builder("cycle_gan/horse2zebra", data_dir=prepared).download_and_prepare()

    class Faces(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = "faces"

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                        "label": tfds.features.ClassLabel(names=["cat", "dog", "bird"]),
                        "attributes": {"Eyeglasses": np.bool_},
                    }
                )
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(6), "test": self._generate_examples(2)}

        def _generate_examples(self, n):
            for i in range(n):
                image = np.full((5, 7, 3), 10 * i, np.uint8)
                yield i, {"image": image, "label": i % 3, "attributes": {"Eyeglasses": i % 2 == 0}}

    for file_format in ("tfrecord", "array_record"):
        Faces(data_dir=prepared / file_format, file_format=file_format).download_and_prepare()
    return prepared


def test_tfds_with_four_splits(tfds_dir):
    data = Data(tfds="cycle_gan/horse2zebra", tfds_dir=str(tfds_dir))
    a, b = sources.open_domains(data)
    assert len(a) == len(b) == 3 and len(set(a.names)) == 3
    assert sorted(round(a.read(i).mean()) for i in range(3)) == [0, 1, 2]
    assert sorted(round(b.read(i).mean()) for i in range(3)) == [60, 61, 62]
    again = sources.open_domains(data)[0]
    assert again.names == a.names and again.fingerprint == a.fingerprint
    assert a.image_size(0) == (4, 6)
    a, b = sources.open_domains(data, "test")
    assert sorted(round(a.read(i).mean()) for i in range(3)) == [120, 121, 122]
    with pytest.raises(sources.MissingSplit, match="no split valA and valB: it has .*testA"):
        sources.open_domains(data, "val")


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("attributes/Eyeglasses", [0, 20, 40]),
        ("!attributes/Eyeglasses", [10, 30, 50]),
        ("label=1", [10, 40]),
        ("label=cat|dog", [0, 10, 30, 40]),
    ],
)
def test_tfds_split_by_rule(tfds_dir, file_format, rule, expected):
    other = rule[1:] if rule[0] == "!" else "!" + rule
    a, b = sources.open_domains(Data(tfds="faces", tfds_dir=str(tfds_dir / file_format), domain_a=rule, domain_b=other))
    values = [sorted(int(s.read(i)[0, 0, 0]) for i in range(len(s))) for s in (a, b)]
    assert values == [expected, [v for v in range(0, 60, 10) if v not in expected]]
    assert not set(a.names) & set(b.names)


def test_tfds_errors_come_without_the_network(tfds_dir, monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("reached for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    def fails(message, **data):
        with pytest.raises(UserError, match=message) as caught:
            sources.open_domains(Data(**data))
        assert len(str(caught.value).splitlines()) == 1

    folder = str(tfds_dir)
    fails("is not prepared in .*: add --download, or run: tfds build", tfds="cycle_gan/maps", tfds_dir=folder)
    fails("--tfds=no_such_set cannot be opened", tfds="no_such_set", tfds_dir=folder)
    fails("would be looked up on the network", tfds="huggingface:mnist", tfds_dir=folder)
    faces = {"tfds": "faces", "tfds_dir": f"{folder}/tfrecord"}
    fails("no split trainA and trainB: it has .*split one labelled set with --domain_a and --domain_b", **faces)
    fails(
        "'age', which is not there: expected one of .*attributes/Eyeglasses", **faces, domain_a="age", domain_b="!age"
    )
    fails(
        "--domain_a='label=cow' matches none of 6 images: values of label are bird, cat, dog",
        **faces,
        domain_a="label=cow",
        domain_b="label=cat",
    )
