"""What is shipped: the bundled drawings, the licences, the list of packages."""

import pathlib
import re
import runpy

import numpy as np
import pytest
import setuptools
from PIL import Image

import tfi2i

ROOT = pathlib.Path(__file__).resolve().parent.parent
EMOJI = ROOT / "tfi2i" / "data" / "emoji"
COUNTS = {
    "trainA": 429, "trainB": 429, "partnersA": 429, "partnersB": 429, "valA": 64, "valB": 64, "testA": 176,
    "testB": 176,
}  # fmt: skip


def names(folder):
    return {path.name for path in (EMOJI / folder).iterdir()}


def pixels(path):
    with Image.open(path) as image:
        assert image.size == (128, 128) and "transparency" not in image.info, path
        return np.asarray(image.convert("RGB"))


def test_emoji_folders_hold_what_the_readme_says():
    assert {folder: len(names(folder)) for folder in COUNTS} == COUNTS
    readme = (EMOJI / "README.md").read_text()
    for folder, count in COUNTS.items():
        assert re.search(rf"`{folder}`.*\b{count}\b", readme), folder


def test_emoji_splits_share_no_drawing():
    assert names("valA") == names("valB") and names("testA") == names("testB")
    seen = [names(folder) for folder in ("trainA", "trainB", "valA", "testA")]
    assert len(set.union(*seen)) == sum(map(len, seen)) == 1098
    assert names("partnersA") == names("trainB") and names("partnersB") == names("trainA")


def test_emoji_is_small_and_attributed():
    assert sum(path.stat().st_size for path in EMOJI.rglob("*") if path.is_file()) <= 4e6
    assert "Attribution-ShareAlike 4.0" in (EMOJI / "LICENSE.txt").read_text()
    assert "openmoji.org" in (EMOJI / "README.md").read_text()


@pytest.mark.parametrize("split", ["val", "test"])
def test_emoji_pairs_match_pixel_for_pixel(split):
    """Ink of the line drawing is ink of the colour drawing: a shift by two pixels would fail."""
    shares, unmoved = [], []
    for path in sorted((EMOJI / f"{split}B").iterdir()):
        line, colour = pixels(path), pixels(EMOJI / f"{split}A" / path.name)
        assert (line == line[..., :1]).all(), f"{path.name} has a colour"
        ink = line[..., 0] < 64
        shares.append((colour[ink] < 128).all(-1).mean())
        unmoved.append((np.roll(colour, 2, axis=1)[ink] < 128).all(-1).mean())
    assert np.mean(shares) > 0.95 > 0.75 > np.mean(unmoved)


def test_emoji_lines_differ_from_colours():
    difference = [
        np.abs(pixels(path).astype(int) - pixels(EMOJI / "testB" / path.name))
        for path in sorted((EMOJI / "testA").iterdir())
    ]
    # The two numbers of the README, which every translation is compared with.
    assert np.mean(difference) == pytest.approx(18.8, abs=0.05)
    assert (np.max(difference, axis=-1) <= 16).mean() == pytest.approx(0.808, abs=0.0005)


@pytest.fixture
def distribution(monkeypatch):
    """What setup.py gives `setuptools.setup`."""
    given = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", given.update)
    runpy.run_path(str(ROOT / "setup.py"))
    return given


def test_the_version_is_the_packages(distribution):
    assert distribution["version"] == tfi2i.__version__


def test_setup_lists_every_folder_with_python_files(distribution):
    folders = {path.parent for path in (ROOT / "tfi2i").rglob("*.py")}
    expected = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(distribution["packages"]) == expected | {"tfi2i.configs", "tfi2i.export"}
    assert len(distribution["packages"]) == len(set(distribution["packages"]))
    assert distribution["package_dir"] == {"tfi2i.configs": "configs", "tfi2i.export": "export"}


def test_setup_lists_the_templates(distribution):
    patterns = distribution["package_data"]["tfi2i"]
    listed = {path for pattern in patterns for path in (ROOT / "tfi2i").glob(pattern)}
    assert {"page.html", "gallery.html", "study.html"} <= {path.name for path in listed}
    assert {path for path in (ROOT / "tfi2i").rglob("*.html")} <= listed
    listed = {
        path for pattern in distribution["package_data"]["tfi2i.export"] for path in (ROOT / "export").glob(pattern)
    }
    assert {path for path in (ROOT / "export" / "templates").rglob("*") if path.is_file()} <= listed
    assert {"README.md.jinja", "index.html", "_headers"} <= {path.name for path in listed}


def test_setup_licences_exist(distribution):
    assert distribution["license_expression"] == "Apache-2.0 AND CC-BY-SA-4.0"
    assert all((ROOT / path).is_file() for path in distribution["license_files"])


def test_requirements_are_pinned_without_index_addresses():
    for name in ("runtime.txt", "test.txt"):
        for line in (ROOT / "requirements" / name).read_text().splitlines():
            assert line.startswith("#") or line == "-r runtime.txt" or re.fullmatch(r"[\w.-]+==[\w.]+", line), (
                f"{name}: {line!r} is no NAME==VERSION"
            )


def test_every_requirement_of_setup_is_pinned(distribution):
    def key(text):
        return re.sub("[-_.]+", "-", re.match(r"[\w.-]+", text)[0]).lower()

    runtime = (ROOT / "requirements" / "runtime.txt").read_text().splitlines()
    test = (ROOT / "requirements" / "test.txt").read_text().splitlines()
    pinned = {key(line) for line in runtime if "==" in line}
    assert {key(line) for line in distribution["install_requires"]} <= pinned
    pinned |= {key(line) for line in test if "==" in line}
    assert {key(line) for line in distribution["extras_require"]["test"]} <= pinned
