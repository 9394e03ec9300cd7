"""What stands beside the pixels: what is written again, and what is not."""

import io

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from tests.test_images import noise, pillow_bytes
from tests.test_translate import Negative
from tfi2i.data import images, metadata
from tfi2i.translation import translate_files


def exif_block():
    exif = Image.Exif()
    exif[0x0112], exif[271], exif[315] = 6, "a camera", "a person"
    exif.get_ifd(ExifTags.IFD.Exif).update({0x9003: "2026:01:02 03:04:05", 0xA001: 65535, 0xA002: 99, 0x927C: b"own"})
    exif[ExifTags.IFD.Exif] = exif.get_ifd(ExifTags.IFD.Exif)
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (52.0, 31.0, 12.0)})
    exif[ExifTags.IFD.GPSInfo] = exif.get_ifd(ExifTags.IFD.GPSInfo)
    return exif.tobytes()


def photograph(path):
    path.write_bytes(pillow_bytes(Image.fromarray(noise(8, 12, 3)), "JPEG", exif=exif_block(), dpi=(300, 300)))
    return path


@pytest.mark.parametrize("suffix, depth", [(".jpg", 8), (".png", 8), (".webp", 8), (".png", 16)])
def test_what_stays_true_is_written_again(tmp_path, suffix, depth):
    about = metadata.read(photograph(tmp_path / "x.jpg"))
    pixels = noise(12, 8, 3, dtype=np.uint8 if depth == 8 else np.uint16)
    images.write_image(tmp_path / f"y{suffix}", pixels, about=about)
    if suffix == ".png":
        np.testing.assert_array_equal(images.read_image(tmp_path / f"y{suffix}"), pixels)  # upright: no orientation
    with Image.open(tmp_path / f"y{suffix}") as image:
        exif = image.getexif()
        inner, place = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
        assert (exif[271], exif[315]) == ("a camera", "a person") and 0x0112 not in exif
        assert inner[0x9003] == "2026:01:02 03:04:05" and inner[0xA001] == 1
        assert not {0xA002, 0x927C} & set(inner)
        assert place[1] == "N" and [float(v) for v in place[2]] == [52, 31, 12]
        if suffix != ".webp":
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def georeferenced(path, pixels):
    tags = [(33550, "d", 3, (0.5, 0.5, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 100.0, 200.0, 0.0), True)]
    tags += [(34735, "H", 4, (1, 1, 0, 0), True), (42113, "s", 0, "-9999", True)]
    tifffile.imwrite(path, pixels, photometric="rgb", extratags=tags, metadata=None, resolution=(72, 72))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_place_on_the_map_is_kept_where_the_size_is(tmp_path, dtype):
    georeferenced(tmp_path / "x.tif", noise(8, 8, 3, dtype=dtype))
    for name, options, kept in (
        ("same", {}, True), ("smaller", {"size": (4, 4), "keep_size": False}, False),
        ("beside", {"side_by_side": True}, False), ("strip", {"metadata": "strip"}, False),
    ):  # fmt: skip
        translate_files(Negative(), tmp_path / "x.tif", tmp_path / f"{name}.tif", active=False, **options)
        with tifffile.TiffFile(tmp_path / f"{name}.tif") as tiff:
            tags = {tag.code: tag.value for tag in tiff.pages[0].tags}
        assert (33550 in tags) == (34735 in tags) == kept, name
        if kept:
            assert tags[33550] == (0.5, 0.5, 0.0) and tags[33922][3:5] == (100.0, 200.0)
        assert 42113 not in tags  # no-data values are those of the old pixels


def test_translate_keeps_or_strips(tmp_path):
    photograph(tmp_path / "x.jpg")
    for choice, count in (("keep", 1), ("strip", 0)):
        written, failed = translate_files(
            Negative(), tmp_path / "x.jpg", tmp_path / choice, metadata=choice, active=False
        )
        assert not failed
        with Image.open(written[0]) as image:
            assert image.size == (8, 12)  # turned upright
            assert bool(image.getexif()) == bool(count)


@pytest.mark.parametrize("block", [b"", b"Exif\0\0junk", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
def test_damaged_metadata_is_left_out(tmp_path, block):
    path = tmp_path / "x.jpg"
    path.write_bytes(pillow_bytes(Image.fromarray(noise(8, 12, 3)), "JPEG", exif=block))
    assert metadata.read(path).exif in (b"", metadata.read(path).exif)
    written, failed = translate_files(Negative(), path, tmp_path / "y.jpg", active=False)
    assert written and not failed
    Image.open(io.BytesIO(written[0].read_bytes())).load()
