"""The apps' arithmetic, compiled for a desktop, against tfi2i, Pillow and LiteRT on the same numbers: `make test-apps`.

KOTLINC and SWIFTC name the compilers; a language without one is left out.
"""

import os
import pathlib
import subprocess

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from tfi2i.export import litert

import tfi2i
from tfi2i import tiling
from tfi2i.data import images

HERE = pathlib.Path(__file__).parent
KOTLIN = ("android/src/main/kotlin/tfi2i/translator/Pictures.kt", "android/desktop/Desktop.kt")
SWIFT = ("ios/Translator/Pictures.swift", "ios/desktop/main.swift")
LANGUAGES = [language for language in ("kotlin", "swift") if os.environ.get(f"{language.upper()}C")]
assert LANGUAGES, "there is no compiler to test with: make test-apps"


def kotlin(folder):
    compiler = os.environ["KOTLINC"]
    subprocess.run([compiler, "-Werror", "-include-runtime", "-d", folder / "app.jar", *KOTLIN], cwd=HERE, check=True)
    return ["java", "-cp", folder / "app.jar", "tfi2i.translator.DesktopKt"]


def swift(folder):
    command = [os.environ["SWIFTC"], "-O", "-warnings-as-errors", "-o", folder / "app", *SWIFT]
    subprocess.run(command, cwd=HERE, check=True)
    return [folder / "app"]


@pytest.fixture(scope="module", params=LANGUAGES)
def app(request, tmp_path_factory):
    """function of a name, arguments and an array to the bytes that the app's function answers; it has a `language`."""
    command = globals()[request.param](tmp_path_factory.mktemp(request.param))

    def call(name, *arguments, array=()):
        given = np.ascontiguousarray(array)
        done = subprocess.run([*command, name, *map(str, arguments)], input=given.tobytes(), capture_output=True)
        if done.returncode:
            raise RuntimeError(done.stderr.decode())
        return done.stdout

    call.language = request.param
    return call


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def sides(pixels):
    height, width, channels = pixels.shape
    return width, height, channels


def as_levels(answer, *shape):
    return np.frombuffer(answer, np.uint8).reshape(shape)


@pytest.mark.parametrize("app", [language for language in LANGUAGES if language == "kotlin"], indirect=True)
def test_pixels_of_android_known_by_hand(app):
    """Red; half transparent black, which is grey on white; green in grey is 0.587 of white."""
    argb = np.array([0xFFFF0000, 0x80000000, 0xFF00FF00], np.uint32)
    levels = as_levels(app("picture_of", 3, 1, 3, array=argb), 3, 3)
    assert levels.tolist() == [[255, 0, 0], [127, 127, 127], [0, 255, 0]]
    assert as_levels(app("picture_of", 3, 1, 1, array=argb), 3).tolist() == [76, 127, 150]
    back = np.frombuffer(app("argb_of", 3, 1, 3, array=levels), np.uint32)
    assert [hex(pixel) for pixel in back] == ["0xffff0000", "0xff7f7f7f", "0xff00ff00"]
    grey = np.frombuffer(app("argb_of", 2, 1, 1, array=np.uint8([1, 255])), np.uint32)
    assert [hex(pixel) for pixel in grey] == ["0xff010101", "0xffffffff"]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_of_the_phone_are_those_of_a_file(app, tmp_path, mode):
    """As `read_image` reads a PNG, and Pillow makes grey of it. On iOS, Core Graphics removes the transparency."""
    rgba = noise(16, 20, 4)
    if app.language == "swift":
        rgba[..., 3] = 255
    Image.fromarray(rgba).save(tmp_path / "x.png")
    channels = len(mode)
    expected = Image.fromarray(images.read_image(tmp_path / "x.png")).convert(mode)
    expected = np.asarray(expected).reshape(16, 20, channels)
    argb = (rgba.astype(np.uint32) << np.uint32([16, 8, 0, 24])).sum(-1, dtype=np.uint32)
    pixels = rgba if app.language == "swift" else argb
    assert np.array_equal(as_levels(app("picture_of", 20, 16, channels, array=pixels), 16, 20, channels), expected)


def test_a_picture_keeps_its_shape(app):
    for given, size in (((400, 300, 64, 64), (64, 48)), ((30, 40, 64, 64), (48, 64)), ((3000, 1, 64, 32), (64, 1))):
        assert tuple(np.frombuffer(app("fitted", *given), np.int32)) == size


@pytest.mark.parametrize("size", [(16, 20), (50, 60), (24, 31), (24, 10), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes_change_as_in_the_training(app, size, channels):
    picture = noise(24, 31, channels)
    resized = as_levels(app("resized", *sides(picture), size[1], size[0], array=picture), *size, channels)
    difference = np.abs(resized.astype(int) - images.resize(picture, size))
    # Pillow computes with integers.
    assert difference.max() <= 1 and np.mean(difference > 0) < 0.01


def marked(tile):
    """Something that depends on the place in a tile and on the opposite pixel, exact in float32."""
    y, x, c = np.indices(tile.shape)
    opposite = tile[::-1, ::-1, ::-1]
    return tile * np.float32(0.5) + opposite * np.float32(0.25) + ((3 * y + 5 * x + c) % 64).astype(np.float32)


@pytest.mark.parametrize("overlap", [0, 1, 4, 8])
@pytest.mark.parametrize("shape", [(16, 16, 3), (17, 16, 3), (16, 40, 1), (37, 61, 3)])
def test_tiles_blend_as_in_tfi2i(app, shape, overlap):
    picture = noise(*shape)
    expected = tiling.translate_tiled(marked, picture, tile=16, overlap=overlap)
    assert np.array_equal(as_levels(app("tiled", *sides(picture), 16, 16, overlap, array=picture), *shape), expected)


@pytest.mark.parametrize("shape", [(5, 7, 3), (3, 30, 3), (1, 1, 1), (40, 12, 1)])
def test_small_sides_are_mirrored(app, shape):
    """Tiles of the model's size, also where the picture is smaller: as the mirrored picture."""
    picture = noise(*shape)
    more = [(0, max(16 - side, 0)) for side in shape[:2]]
    whole = tiling.translate_tiled(marked, np.pad(picture, (*more, (0, 0)), mode="reflect"), tile=16, overlap=4)
    expected = whole[: shape[0], : shape[1]]
    assert np.array_equal(as_levels(app("tiled", *sides(picture), 16, 16, 4, array=picture), *shape), expected)


def test_tiles_need_not_be_square(app):
    """A tile of 16 x 8 is one of 16 x 16 where rows do not matter: all rows of the picture are alike."""
    picture = np.repeat(noise(1, 50, 1), 30, axis=0)
    answer = as_levels(app("tiled", *sides(picture), 16, 30, 4, array=picture), *picture.shape)
    row = tiling.translate_tiled(marked, np.repeat(picture[:1], 16, axis=0), tile=16, overlap=4)[0]
    assert np.array_equal(answer[0], row)


def test_a_wrong_overlap_is_refused(app):
    with pytest.raises(RuntimeError, match="overlap=9: expected 0 to 8, half of tile=16"):
        app("tiled", 20, 20, 1, 16, 16, 9, array=noise(20, 20, 1))


def test_a_wrong_type_is_refused(app):
    with pytest.raises(RuntimeError, match="pixels of type int16: export with --io=uint8, int8 or float32"):
        app("integers_of", "int16", 1, 0, array=noise(3))


@pytest.mark.parametrize("io", ["uint8", "int8", "float32"])
def test_the_ends_of_a_file(app, io):
    """What the app writes into a file and reads out of it is what the float file computes, rounded."""
    picture = noise(8, 12, 3)
    model = tfi2i.CycleGAN(generator="resnet_6blocks", generator_width=4, discriminator_width=4, init_gain=0.5)
    model.build((None, None, None, 3))
    graph = litert.convert(model, "a2b", (8, 12))
    runner = Interpreter(model_content=litert.with_pixels(graph, io)).get_signature_runner("translate")
    exact = Interpreter(model_content=graph).get_signature_runner("translate")
    exact = exact(images=picture[None].astype(np.float32))["images"][0]
    (end,) = runner.get_input_details().values()
    end = (io, *end["quantization"])
    taken = app("floats_of", array=picture) if io == "float32" else app("integers_of", *end, array=picture)
    given = runner(images=np.frombuffer(taken, io).reshape(1, 8, 12, 3))["images"][0]
    answer = given if io == "float32" else app("levels_of", *end, array=given)
    levels = np.frombuffer(answer, np.float32).reshape(8, 12, 3)
    assert np.array_equal(levels, exact if io == "float32" else np.rint(np.clip(exact, 0, 255)))
