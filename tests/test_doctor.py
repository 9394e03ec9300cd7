"""What the doctor says of pictures whose faults are known."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from tfi2i.commands import doctor
from tfi2i.config import Data, UserError
from tfi2i.data import images
from tfi2i.data.examine import examine_data

DATA = Data(resize=(36, 36), resize_mode="exact", crop=(32, 32))


def picture(seed, height=40, width=40, channels=3):
    draw = np.random.default_rng(seed)
    return images.resize(draw.integers(60, 200, (5, 5, channels), dtype=np.uint8), (height, width))


def rows(facts):
    """The table as a dict of the row's name → the columns of A and B."""
    columns = [facts[0].index(" " + letter) + 1 for letter in "AB"]
    return {
        line[: columns[0]].strip(): (line[columns[0] : columns[1]].strip(), line[columns[1] :].strip())
        for line in facts[1:]
        if line
    }


@pytest.fixture
def sound(tmp_path):
    """120 pictures to train on and 5 to test with, in each domain; nothing is wrong with them."""
    for number, domain in enumerate("AB"):
        for i in range(125):
            folder = tmp_path / f"{'train' if i < 120 else 'test'}{domain}"
            images.write_image(folder / f"{i}.png", picture(1000 * number + i))
    return tmp_path


def examine(folder, **changed):
    return examine_data(dataclasses.replace(DATA, data=str(folder), **changed), active=False)


def test_nothing_is_wrong_with_sound_pictures(sound, monkeypatch, capsys):
    facts, advice = examine(sound)
    assert advice == []
    table = rows(facts)
    assert table["train pictures"] == ("120", "120") and table["test pictures"] == ("5", "5")
    assert table["median, height x width"] == ("40x40", "40x40") and table["RGB"] == ("125", "125")


def test_every_fault_is_found_and_comes_with_what_to_do(sound):
    a, test_a = sound / "trainA", sound / "testA"
    (a / "copy.png").write_bytes((a / "0.png").read_bytes())
    (test_a / "leak.png").write_bytes((a / "1.png").read_bytes())
    # Smaller and compressed: other bytes, and the same to look at.
    Image.open(a / "2.png").resize((32, 32)).save(test_a / "again.jpg", quality=85)
    (a / "torn.png").write_bytes((a / "3.png").read_bytes()[:-500])
    (a / "page.jpg").write_text("<html>")
    for name in ("x.heic", "y.HEIC", "notes.txt", "empty.png", ".hidden.png"):
        (a / name).write_text("" if name == "empty.png" else "?")
    images.write_image(a / "deep.png", picture(7).astype(np.uint16) * 257)
    images.write_image(a / "glass.png", picture(8), np.full((40, 40), 9, np.uint8))
    images.write_image(a / "small.png", picture(9, 31, 90))
    images.write_image(a / "tall.png", picture(10, 90, 31))
    facts, advice = examine(sound, max_bad_files=1)
    table = rows(facts)
    assert table["train pictures"] == ("125", "120") and table["test pictures"] == ("7", "5")
    assert table["smallest, height x width"] == ("32x32", "40x40")
    assert table["largest, height x width"] == ("90x31", "40x40")
    assert table["width / height"] == ("1.00 (0.34 to 2.90)", "1.00 (1.00 to 1.00)")
    assert table["RGB, 16 bits"] == table["RGB with alpha"] == ("1", "0")
    assert table["files left out"] == ("2 .heic, 1 .txt, 1 empty, 1 hidden", "0")
    assert table["unreadable"] == ("2", "0") and table["twice in one split"] == ("1", "0")
    assert table["held out and trained on"] == table["held out, looks trained on"] == ("1", "0")
    assert "  A trainA/page.jpg: not an image, or of an unknown format" in facts
    assert [line.partition(":")[0] for line in advice] == [
        "Convert the files left out of A (2 .heic) to .jpg or .png.",
        "Repair or remove the unreadable files of A (2)",
        "Remove copies from A (1)",
        "Remove what is both trained on and held out from A (1)",
        "Look at what is held out of A and looks like a training picture (1)",
        "Give a smaller --crop",
    ]
    assert advice[1].endswith("training stops at more than --max_bad_files=1.")
    assert "trainA/copy.png is trainA/0.png" in advice[2] and "testA/leak.png is trainA/1.png" in advice[3]
    assert "testA/again.jpg and trainA/2.png" in advice[4]
    assert "smaller than --crop=32,32 (2 of 125)" in advice[5]
    # Without resizing, training refuses what the crop does not fit into.
    assert "and training refuses them" in examine(sound, resize_mode="none", resize=None)[1][5]


def test_few_unequal_grey_squeezed_and_not_held_out(tmp_path):
    for i in range(3):
        images.write_image(tmp_path / "trainA" / f"{i}.png", picture(i, 40, 60, 1))
    for i in range(12):
        images.write_image(tmp_path / "trainB" / f"{i}.png", picture(50 + i))
    facts, advice = examine(tmp_path)
    assert "test pictures" not in rows(facts) and rows(facts)["grey"] == ("3", "0")
    assert [line.partition(":")[0] for line in advice] == [
        "Find more pictures of A",
        "Decide whether A may be squeezed",
        "Give --channels_a=1",
        "Find more pictures of B",
        "Balance the domains",
        "Hold some pictures out, which evaluate and export need",
    ]
    assert "width / height is 1.50 and becomes 1.00" in advice[1] and "12 and 3 training pictures" in advice[4]
    # Held out by name, which is A's and B's smallest hash at least.
    own = Data(a=str(tmp_path / "trainA"), b=str(tmp_path / "trainB"), resize_mode="short_side", channels_a=1)
    facts, advice = examine_data(own, active=False)
    counts = rows(facts)["train pictures"], rows(facts)["test pictures"]
    assert [int(x) + int(y) for x, y in zip(*counts)] == [3, 12] and all(int(n) for n in counts[1])
    assert [line.partition(":")[0] for line in advice] == [
        "Find more pictures of A", "Find more pictures of B", "Balance the domains",
    ]  # fmt: skip


def test_the_command_ends_with_what_to_do(sound, monkeypatch, capsys):
    from tests.own_flags import call

    monkeypatch.setattr(doctor.machine, "import_tensorflow", lambda: None)
    call(doctor, f"--data={sound}", "--crop=32", "--noprice")
    assert capsys.readouterr().out.endswith("\nWhat to do:\n- Nothing: these pictures can be trained on.\n")
    call(doctor)  # the machine alone
    assert capsys.readouterr().out.endswith(
        "\nWhat to do:\n- Give --a=FOLDER and --b=FOLDER, --ab=FOLDER or --data=FOLDER, to have the pictures looked "
        "at too.\n"
    )
    with pytest.raises(UserError, match="--data=.*nowhere does not exist"):
        call(doctor, f"--data={sound}/nowhere", "--noprice")
