"""Files whose pixels are easily taken for something else: bands, transparency, profiles, stacks, depth, metadata."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tfi2i.export import image_bytes

from tests.test_images import noise, pillow_bytes, tiff_bytes
from tfi2i.data import images


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(images, "_said", set())


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bytes(pixels, *chunks):
    """A 16- or 8-bit PNG of [H, W, 1, 2, 3 or 4] with further chunks before its pixels."""
    h, w, channels = pixels.shape
    bits = 8 * pixels.dtype.itemsize
    head = struct.pack(">IIBBBBB", w, h, bits, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(f">u{pixels.dtype.itemsize}").tobytes() for row in pixels)
    inner = b"".join(chunk(kind, data) for kind, data in chunks)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + inner + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


# --------------------------------------------------------------------------------------- bands, transparency


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("bands, photometric, shown", [
    (4, "minisblack", [0, 1, 2]), (5, "minisblack", [0, 1, 2]), (8, "minisblack", [0, 1, 2]), (2, "minisblack", [0]),
    (4, "rgb", [0, 1, 2]), (6, "rgb", [0, 1, 2]),
])  # fmt: skip
def test_bands_are_no_transparency(dtype, planar, bands, photometric, shown, caplog):
    samples = noise(4, 6, bands, dtype=dtype)
    stored = np.moveaxis(samples, -1, 0) if planar == "separate" else samples
    extra = ["unspecified"] * (bands - (3 if photometric == "rgb" else 1))
    encoded = tiff_bytes(stored, photometric=photometric, planarconfig=planar, extrasamples=extra)
    for _ in range(2):
        pixels, alpha = images.read_image(encoded, keep_alpha=True, name="x.tif")
        assert alpha is None
        np.testing.assert_array_equal(pixels, samples[..., shown])
    assert images.image_size(encoded) == (4, 6)
    if bands > 2:
        assert caplog.text.count(f"x.tif has {bands} bands: the first three bands are read") == 1


def test_near_infrared_leaves_the_colours_alone():
    samples = np.full((2, 2, 4), [1000, 1000, 1000, 9000], np.uint16)
    encoded = tiff_bytes(samples, photometric="minisblack", extrasamples=["unspecified"] * 3)
    np.testing.assert_array_equal(images.read_image(encoded), 1000)


@pytest.mark.parametrize("dtype, peak", [(np.uint8, 255), (np.uint16, 65535)])
def test_premultiplied_transparency_is_divided_out(dtype, peak):
    """Colour 1/4 of white where half is covered: the colour was 1/2; over white (1/2 + 1) / 2 = 3/4."""
    samples = np.full((2, 3, 4), [peak // 4, peak // 4, peak // 4, peak // 2], dtype)
    for kind, expected in (("assocalpha", 0.75), ("unassalpha", 0.625)):
        encoded = tiff_bytes(samples, photometric="rgb", extrasamples=[kind])
        np.testing.assert_allclose(images.read_image(encoded) / peak, expected, atol=0.01, err_msg=kind)
    grey = tiff_bytes(samples[..., [0, 3]], photometric="minisblack", extrasamples=["assocalpha"])
    np.testing.assert_allclose(images.read_image(grey) / peak, 0.75, atol=0.01)


def test_transparency_may_stand_before_further_bands():
    samples = noise(3, 4, 5, dtype=np.uint16)
    encoded = tiff_bytes(samples, photometric="rgb", planarconfig="contig", extrasamples=["unassalpha", "unspecified"])
    pixels, alpha = images.read_image(encoded, keep_alpha=True)
    np.testing.assert_array_equal(pixels, samples[..., :3])
    np.testing.assert_array_equal(alpha, samples[..., 3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_of_a_png_is_transparent_here_and_in_the_saved_model(dtype, channels):
    pixels = noise(3, 5, channels, dtype=dtype)
    colour = struct.pack(f">{channels}H", *pixels[1, 2].tolist())
    encoded = png_bytes(pixels, (b"tRNS", colour))
    shown, alpha = images.read_image(encoded, keep_alpha=True)
    expected = np.where((pixels == pixels[1, 2]).all(-1), 0, np.iinfo(dtype).max)
    np.testing.assert_array_equal(alpha, expected)
    np.testing.assert_array_equal(images.to_channels(shown, 3), images.to_channels(pixels, 3))
    levels, _ = image_bytes.decode(encoded, 3, (255, 0, 10))
    read = images.to_channels(images.read_image(encoded, (255, 0, 10)), 3)
    np.testing.assert_allclose(levels, read / (np.iinfo(dtype).max / 255), atol=1e-3)


# ------------------------------------------------------------------------------------------ colour profiles

# Columns of primaries in XYZ (D50): sRGB's, and those of a wider set whose red and green are exchanged, so that a
# profile that is left out cannot be overlooked.
SRGB = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])


def icc_profile(primaries, gamma=2.2):
    def fixed(value):
        return struct.pack(">i", round(value * 65536))

    def xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78 + 1)
    tags = {b"desc": name, b"wtpt": xyz((0.9642, 1, 0.8249)), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    tags |= {key: xyz(primaries[:, i]) for i, key in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    table, data, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for key, value in tags.items():
        value += bytes(-len(value) % 4)
        table += key + struct.pack(">II", at + len(data), len(value))
        data += value
    head = struct.pack(">I4sI4s4s4s", at + len(data), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + bytes(12)
    head += b"acsp" + bytes(28) + b"".join(map(fixed, (0.9642, 1, 0.8249))) + bytes(48)
    return head + table + data


@pytest.mark.parametrize(
    "format, options", [("PNG", {}), ("JPEG", {"quality": 100}), ("TIFF", {}), ("WEBP", {"lossless": True})]
)
def test_pictures_with_a_colour_profile_come_out_in_srgb(format, options):
    image = Image.new("RGB", (8, 8), (200, 40, 90))
    swapped = icc_profile(SRGB[:, [1, 0, 2]])
    read = images.read_image(pillow_bytes(image, format, icc_profile=swapped, **options))
    # What the profile calls red is sRGB's green. Its gamma of 2.2 is nearly sRGB's curve.
    np.testing.assert_allclose(read[0, 0], (40, 200, 90), atol=6)
    for harmless in (icc_profile(SRGB), b"no profile", b""):
        read = images.read_image(pillow_bytes(image, format, icc_profile=harmless, **options))
        np.testing.assert_allclose(read[0, 0], (200, 40, 90), atol=6)


def test_transparency_survives_a_colour_profile():
    image = Image.new("RGBA", (4, 4), (200, 40, 90, 77))
    pixels, alpha = images.read_image(
        pillow_bytes(image, "PNG", icc_profile=icc_profile(SRGB[:, [1, 0, 2]])), keep_alpha=True
    )
    np.testing.assert_allclose(pixels[0, 0], (40, 200, 90), atol=6)
    assert (alpha == 77).all()


def test_a_profile_of_16_bits_is_said(caplog):
    pixels = noise(3, 4, 3, dtype=np.uint16)
    encoded = png_bytes(pixels, (b"iCCP", b"p\0\0" + zlib.compress(icc_profile(SRGB))))
    np.testing.assert_array_equal(images.read_image(encoded, name="x.png"), pixels)
    assert "x.png has a colour profile, which is not applied to 16 bits" in caplog.text


# ------------------------------------------------------------------------------------------ stacks and depth


def test_further_pages_and_frames_are_said_once_for_each_kind(caplog):
    frames = [Image.new("RGB", (4, 4), (v, 0, 0)) for v in (10, 200, 90)]
    for format in ("GIF", "WEBP", "PNG"):
        encoded = pillow_bytes(frames[0], format, save_all=True, append_images=frames[1:])
        for _ in range(2):
            images.read_image(encoded, name=f"x.{format}")
        assert caplog.text.count(f"x.{format} holds 3 frames, of which the first is read") == 1, format
    for dtype in (np.uint8, np.uint16):
        stack = noise(3, 6, 5, dtype=dtype)
        encoded = tiff_bytes(stack, photometric="minisblack")
        np.testing.assert_array_equal(images.read_image(encoded, name="stack.tif")[..., 0], stack[0])
    assert caplog.text.count("stack.tif holds 3 pages, of which the first is read") == 1


@pytest.mark.parametrize("extension, channels", [(".pgm", 1), (".ppm", 3), (".ppm", 1)])
def test_16_bits_of_pgm_and_ppm_are_exact(tmp_path, extension, channels):
    pixels = noise(5, 7, channels, dtype=np.uint16)
    path = tmp_path / f"x{extension}"
    images.write_image(path, pixels)
    np.testing.assert_array_equal(images.read_image(path), pixels)
    assert images.image_size(path) == (5, 7)


def test_pgm_with_comments_and_of_12_bits():
    encoded = b"P5 # a comment\n# another\n 2\t1 # and one\n4095\n" + struct.pack(">2H", 0, 4095)
    np.testing.assert_array_equal(images.read_image(encoded)[..., 0], [[0, 65535]])
    with pytest.raises(images.BadImage):
        images.read_image(encoded[:-1])


# --------------------------------------------------------------------------------------------- bad metadata


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind, data", [
    (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2_000_000))), (b"tEXt", b"Comment\0" + b"x" * 70_000_000),
    (b"iCCP", b"p\0\0" + zlib.compress(bytes(3_000_000))), (b"iCCP", b"no profile"), (b"eXIf", b"junk" * 9),
    (b"iTXt", b"\xff\xff"), (b"pHYs", b""),
])  # fmt: skip
def test_metadata_is_no_reason_to_refuse_pixels(dtype, kind, data):
    pixels = noise(3, 5, 3, dtype=dtype)
    np.testing.assert_array_equal(images.read_image(png_bytes(pixels, (kind, data))), pixels)


def test_junk_in_exif_is_upright():
    image = Image.new("RGB", (16, 8), (200, 100, 50))
    for junk in (
        b"Exif\0\0junk",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0",
    ):
        encoded = pillow_bytes(image, "JPEG", exif=junk)
        assert images.read_image(encoded).shape == (8, 16, 3)
        assert images.image_size(encoded) == (8, 16)


def test_formats_know_their_own_limits():
    long, short = np.zeros((1, 70_000, 3), np.uint8), np.zeros((1, 20_000, 3), np.uint8)
    assert not images.holds(".jpg", long) and images.holds(".JPG", short)
    assert not images.holds(".webp", short) and images.holds(".png", long) and images.holds(".tif", long)
    assert images.holds(".ppm", short.astype(np.uint16)) and not images.holds(".pgm", short)
