import importlib.util
import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from tfi2i.config import UserError
from tfi2i.data import images


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def pillow_bytes(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def tiff_bytes(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, metadata=None, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tif", ".TIFF", ".ppm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_return_what_was_written(tmp_path, extension, channels):
    pixels = noise(5, 7, channels)
    path = tmp_path / "made" / f"x{extension}"
    images.write_image(path, pixels)
    np.testing.assert_array_equal(images.read_image(path), pixels)
    assert images.image_size(path) == (5, 7)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_keep_a_flat_colour(format):
    encoded = pillow_bytes(
        Image.new("RGB", (16, 8), (200, 100, 50)), format, **({"quality": 100} if format != "GIF" else {})
    )
    pixels = images.read_image(encoded)
    assert pixels.shape == (8, 16, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - [200, 100, 50]).max() <= 2


def test_animated_gif_gives_the_first_frame():
    frames = [Image.new("L", (4, 4), v) for v in (10, 200)]
    encoded = pillow_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert set(images.read_image(encoded).ravel()) == {10}


def test_grey_stays_one_channel_and_bilevel_becomes_grey():
    assert images.read_image(pillow_bytes(Image.new("L", (4, 3), 7), "JPEG")).shape == (3, 4, 1)
    assert set(images.read_image(pillow_bytes(Image.new("1", (4, 3), 1), "PNG")).ravel()) == {255}


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(format):
    encoded = pillow_bytes(Image.new("RGB", (8, 8), (255, 0, 0)).convert("CMYK"), format)
    pixels = images.read_image(encoded)
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() <= 2


def test_palette_and_its_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(images.read_image(pillow_bytes(image, "PNG")), [[[255, 0, 0], [0, 255, 0]]])
    encoded = pillow_bytes(image, "PNG", transparency=1)
    np.testing.assert_array_equal(images.read_image(encoded, (9, 8, 7)), [[[255, 0, 0], [9, 8, 7]]])


def test_transparent_pixels_show_the_background_or_keep_their_alpha():
    rgba = np.array([[[100, 0, 0, 255], [100, 0, 0, 0], [100, 0, 0, 51]]], np.uint8)
    encoded = pillow_bytes(Image.fromarray(rgba), "PNG")
    # A fifth of 100 over four fifths of the background 50.
    np.testing.assert_array_equal(images.read_image(encoded, (50, 50, 50)), [[[100, 0, 0], [50, 50, 50], [60, 40, 40]]])
    pixels, alpha = images.read_image(encoded, keep_alpha=True)
    np.testing.assert_array_equal(pixels, rgba[..., :3])
    np.testing.assert_array_equal(alpha, [[255, 0, 51]])
    assert images.read_image(pillow_bytes(Image.new("L", (2, 2)), "PNG"), keep_alpha=True)[1] is None


def test_grey_with_alpha_stays_grey_on_a_grey_background_only():
    encoded = pillow_bytes(Image.merge("LA", [Image.new("L", (1, 1), 100), Image.new("L", (1, 1), 0)]), "PNG")
    assert images.read_image(encoded, (9, 9, 9)).tolist() == [[[9]]]
    assert images.read_image(encoded, (9, 8, 7)).tolist() == [[[9, 8, 7]]]


@pytest.mark.parametrize("extension", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_sixteen_bits_are_exact(tmp_path, extension, channels, with_alpha):
    pixels = noise(5, 7, channels, dtype=np.uint16)
    alpha = noise(5, 7, dtype=np.uint16) if with_alpha else None
    images.write_image(tmp_path / f"x{extension}", pixels, alpha)
    read, read_alpha = images.read_image(tmp_path / f"x{extension}", keep_alpha=True)
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, pixels)
    np.testing.assert_array_equal(read_alpha, alpha) if with_alpha else None
    assert (read_alpha is None) != with_alpha


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_with_separate_planes_and_inverted_grey(dtype):
    pixels = noise(5, 7, 3, dtype=dtype)
    planes = tiff_bytes(np.moveaxis(pixels, -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(images.read_image(planes), pixels)
    inverted = tiff_bytes(pixels[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(images.read_image(inverted)[..., 0], np.iinfo(dtype).max - pixels[..., 0])


@pytest.mark.parametrize("dtype", [np.float32, np.uint32, np.int16])
def test_other_tiff_is_refused(dtype):
    with pytest.raises(images.BadImage, match=f"{np.dtype(dtype)} pixels is not supported: expected uint8 or uint16"):
        images.read_image(tiff_bytes(np.zeros((4, 4), dtype)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "PNG16", "TIFF16"])
def test_orientation_is_applied(orientation, format):
    upright = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    # How a camera stores it: the inverse of what the tag asks for.
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
        6: np.rot90(upright), 7: np.rot90(upright, 2).T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    stored = np.ascontiguousarray(stored)
    if format == "TIFF16":
        encoded = tiff_bytes(stored.astype(np.uint16), extratags=[(274, "H", 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[274] = orientation
        image = Image.fromarray(stored.astype(np.uint16) if format == "PNG16" else stored)
        encoded = pillow_bytes(image, format.removesuffix("16"), exif=exif)
    pixels = images.read_image(encoded)
    np.testing.assert_array_equal(pixels[..., 0], upright)
    assert pixels.dtype == (np.uint16 if format.endswith("16") else np.uint8)
    assert images.image_size(encoded) == (2, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncated_files_are_errors_not_grey_areas(tmp_path, format):
    encoded = pillow_bytes(Image.fromarray(noise(40, 50, 3)), format)
    path = tmp_path / "cut"
    path.write_bytes(encoded[: len(encoded) * 2 // 3])
    with pytest.raises(images.BadImage, match="cut: ") as caught:
        images.read_image(path)
    assert caught.value.path == str(path) and caught.value.reason


@pytest.mark.parametrize("extension", [".png", ".tif"])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_truncated_sixteen_bit_files_are_errors(extension, share):
    encoded = images.encode_image(extension, noise(40, 50, 3, dtype=np.uint16))
    with pytest.raises(images.BadImage):
        images.read_image(encoded[: int(len(encoded) * share)])


def test_empty_missing_and_foreign_files(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(images.BadImage, match=r"empty.png: the file is empty"):
        images.read_image(tmp_path / "empty.png")
    with pytest.raises(images.BadImage, match=r"text.png: not an image"):
        images.read_image(tmp_path / "text.png")
    (tmp_path / "photo.HEIC").write_text("no picture")
    with pytest.raises(images.BadImage, match=r"photo.HEIC: not an image.*; convert .heic files to .jpg or .png"):
        images.read_image(tmp_path / "photo.HEIC")
    with pytest.raises(images.BadImage, match=r"none.png: No such file"):
        images.read_image(tmp_path / "none.png")
    with pytest.raises(images.BadImage, match="^x: not an image"):
        images.image_size(b"no picture", name="x")


def test_to_channels_is_pillows_luma():
    pixels = noise(20, 20, 3)
    np.testing.assert_array_equal(
        images.to_channels(pixels, 1)[..., 0], np.asarray(Image.fromarray(pixels).convert("L"))
    )
    white = np.full((1, 1, 3), 65535, np.uint16)
    assert images.to_channels(white, 1).tolist() == [[[65535]]]
    assert images.to_channels(np.array([[[7]]], np.uint8), 3).tolist() == [[[7, 7, 7]]]


@pytest.mark.parametrize("name", images.FILTERS)
@pytest.mark.parametrize("size", [(286, 143), (9, 70)])
def test_resize_equals_pillow(name, size):
    pixels = noise(33, 44, 3)
    expected = np.asarray(Image.fromarray(pixels).resize(size[::-1], images.FILTERS[name]))
    np.testing.assert_array_equal(images.resize(pixels, size, name), expected)
    np.testing.assert_array_equal(
        images.resize(pixels[..., :1], size, name)[..., 0],
        np.asarray(Image.fromarray(pixels[..., 0]).resize(size[::-1], images.FILTERS[name])),
    )


def test_resize_of_sixteen_bits_is_the_eight_bit_result_but_finer():
    # Smooth, as on noise Pillow also clips between its two passes over 8-bit pixels.
    pixels = np.add.outer(np.arange(33) * 3, np.arange(44) * 2).astype(np.uint8)[..., None]
    deep = images.resize(pixels.astype(np.uint16) * 257, (20, 30))
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - images.resize(pixels, (20, 30))).max() <= 1
    edge = np.tile(np.array([0, 65535], np.uint16), (8, 4))[..., None]
    assert images.resize(edge, (8, 80)).max() == 65535  # bicubic overshoots: clipped, not wrapped


def test_write_refuses_what_a_format_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="8 bits per channel, these pixels have 16: write .png or .tif"):
        images.write_image(tmp_path / "x.jpg", np.zeros((2, 2, 3), np.uint16))
    with pytest.raises(ValueError, match="no transparency"):
        images.write_image(tmp_path / "x.jpg", np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="cannot write images as '.xyz'"):
        images.write_image(tmp_path / "x.xyz", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="float32"):
        images.write_image(tmp_path / "x.png", np.zeros((2, 2, 3), np.float32))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("predictor", [1, 2])
def test_16_bit_tiff_with_lzw_says_what_to_do(predictor):
    pixels = noise(5, 7, dtype=np.uint16)
    encoded = pillow_bytes(Image.fromarray(pixels), "TIFF", compression="tiff_lzw", tiffinfo={317: predictor})
    if importlib.util.find_spec("imagecodecs"):
        np.testing.assert_array_equal(images.read_image(encoded)[..., 0], pixels)
    else:
        message = "16-bit TIFF compressed with LZW needs .*: pip install imagecodecs, or save it with deflate"
        with pytest.raises(images.BadImage, match=message):
            images.read_image(encoded)


def test_images_of_hundreds_of_megapixels_are_opened():
    """Pillow has its limit where it reads the header."""
    assert images.image_size(b"P5 30000 20000 255\n") == (20000, 30000)


def test_find_images(tmp_path):
    for name in ("b.JPG", "a.png", "sub/c.webp", ".hidden.png", "._a.png", "notes.txt", ".git/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [p.relative_to(tmp_path).as_posix() for p in images.find_images(tmp_path)]
    assert found == ["a.png", "b.JPG", "sub/c.webp"]
    assert [p.name for p in images.find_images(f"{tmp_path}/*.png")] == ["a.png"]
    assert [p.name for p in images.find_images(f"{tmp_path}/**/*.webp")] == ["c.webp"]
    assert images.find_images(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]


def test_links_in_circles_are_followed_once(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "a.png").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.png").touch()
    for link, to in (("self", "."), ("again", "."), ("sub/up", ".."), ("other", "../elsewhere")):
        (tmp_path / "in" / link).symlink_to(to)
    found = [p.relative_to(tmp_path / "in").as_posix() for p in images.find_images(tmp_path / "in")]
    assert found == ["other/b.png", "sub/a.png"]


def test_find_images_explains_what_is_wrong(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"has no images \(1 other files\)"):
        images.find_images(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        images.find_images(tmp_path / "none")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(images.os, "scandir", refuse)
    with pytest.raises(UserError, match="cannot read the folder .*: Permission denied"):
        images.find_images(tmp_path)


# Finding


def made(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("pattern, expected", [
    ("**/*.jpg", ["a.jpg", "x/b.jpg", "x/y/c.jpg"]), ("x/**/*.jpg", ["x/b.jpg", "x/y/c.jpg"]),
    ("**/y/*.jpg", ["x/y/c.jpg"]), ("**", ["a.jpg", "x/b.jpg", "x/d.PNG", "x/y/c.jpg"]),
    ("x/**", ["x/b.jpg", "x/d.PNG", "x/y/c.jpg"]),
    ("*/*.jpg", ["x/b.jpg"]), ("[ax]*/**/?.jpg", ["x/b.jpg", "x/y/c.jpg"]), ("**/*.PNG", ["x/d.PNG"]),
])  # fmt: skip
def test_patterns_go_round_no_circles(tmp_path, pattern, expected):
    made(tmp_path, "a.jpg", "x/b.jpg", "x/y/c.jpg", "x/d.PNG", "x/notes.txt", ".hidden/e.jpg")
    (tmp_path / "x" / "y" / "back").symlink_to(tmp_path / "x")
    found = images.find_images(f"{tmp_path}/{pattern}")
    assert [p.relative_to(tmp_path).as_posix() for p in found] == expected


def test_thumbnails_and_bins_of_disk_stations_are_no_pictures(tmp_path, caplog):
    made(
        tmp_path,
        "a.jpg",
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/b.jpg",
        "__MACOSX/._a.jpg",
        "x/@Recycle/c.jpg",
    )
    assert [p.name for p in images.find_images(tmp_path)] == ["a.jpg"]
    assert not caplog.text


def test_jpeg_by_all_its_names_and_what_is_left_out_is_counted(tmp_path, caplog):
    made(tmp_path, "a.jfif", "b.JPE", "c.heic", "d.heic", "e.avif", "f.txt")
    assert [p.name for p in images.find_images(tmp_path)] == ["a.jfif", "b.JPE"]
    assert "1 .avif, 2 .heic left out in the folder" in caplog.text
    images.write_image(tmp_path / "g.jfif", noise(4, 4, 3))
    assert (tmp_path / "g.jfif").read_bytes()[:2] == b"\xff\xd8"


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path):
    for name in ("x" * 251 + ".png", "写" * 82 + ".png"):
        images.write_image(tmp_path / name, noise(4, 4, 3))
        assert images.read_image(tmp_path / name).shape == (4, 4, 3)
