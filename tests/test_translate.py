"""Translating files: what comes out has the name, size, depth and transparency of what went in."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest

import tfi2i
from tfi2i import config, settings, tiling, translation
from tfi2i.config import UserError
from tfi2i.data import images
from tfi2i.methods.sizes import Sizes


class Negative:
    """Stands in for a model: the translation is the negative, so every answer is known."""

    name = "negative"
    value_range = (-1.0, 1.0)
    sizes = Sizes(multiple=4, minimum=4)
    style_size = None

    def __init__(self, channels_a=3, channels_b=3, crop=(16, 12)):
        self.channels_a, self.channels_b = channels_a, channels_b
        self.run = types.SimpleNamespace(data=config.Data(background=(255, 255, 255), crop=crop))
        self.shapes = []

    def resolve_direction(self, direction):
        return direction or "a2b"

    def channels_of(self, domain):
        return {"a": self.channels_a, "b": self.channels_b}[domain]

    def translate(self, x, direction="a2b", batch_size=1):
        self.shapes.append(x.shape)
        y = -x if x.dtype == np.float32 else np.iinfo(x.dtype).max - x
        into = self.channels_of(direction[-1])
        return y if y.shape[-1] == into else np.repeat(y[..., :1], into, axis=-1)


def noise(h, w, c=3, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (h, w, c), dtype, endpoint=True)


def save(path, pixels, alpha=None):
    images.write_image(path, pixels, alpha)
    return pixels


def run(input, output, model=None, **options):
    return translation.translate_files(model or Negative(), str(input), str(output), active=False, **options)


def test_directions_by_the_names_of_folders(run_dir, tmp_path):
    """A loaded model knows them, as the commands do."""
    run = shutil.copytree(run_dir, tmp_path / "run")
    chosen = settings.Run.from_json((run / "config.json").read_text())
    data = dataclasses.replace(chosen.data, data=None, a="x/photos", b="x/paintings")
    (run / "config.json").write_text(dataclasses.replace(chosen, data=data).to_json())
    model, picture = tfi2i.load(run), np.zeros((8, 8, 3), np.uint8)
    np.testing.assert_array_equal(model.translate(picture, "paintings2photos"), model.translate(picture, "b2a"))
    expected = "direction='AtoB': expected one of a2b, b2a, photos2paintings, paintings2photos"
    with pytest.raises(UserError, match=expected):
        model.translate(picture, "AtoB")
    with pytest.raises(UserError, match="nowhere.png: No such file"):
        model.translate(tmp_path / "nowhere.png")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run directory with a tiny CycleGAN, untrained, checkpoint of step 7."""
    from tfi2i import checkpoints

    folder = tmp_path_factory.mktemp("translate") / "run"
    folder.mkdir()
    chosen = settings.resolve(
        "cyclegan",
        {
            "generator": "resnet_6blocks",
            "generator_width": 4,
            "discriminator_width": 4,
            "data": "emoji",
            "crop": (64, 64),
        },
    )
    model = checkpoints.build(chosen)
    model.compile()
    model.build_for_training((1, 8, 8, 3), (1, 8, 8, 3))
    model.build_optimizers()
    (folder / "config.json").write_text(chosen.to_json())
    checkpoints.save(folder, model, 7, 3)
    return folder


def command(*flags, module="tfi2i.translate"):
    # Without GPUs: test machines with several test processes would have each take all of a GPU's memory.
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, flags)], capture_output=True, text=True, env=environment, timeout=120
    )


# ------------------------------------------------------------------------------------------- names and folders


def test_names_and_subfolders_are_kept(tmp_path):
    names = ["a.png", "b.bmp", "deep/er/a.png", "deep/c.tif", "photo.final.webp", "d.jpg"]
    for name in names:
        save(tmp_path / "in" / name, noise(8, 8))
    (tmp_path / "in" / "notes.txt").write_text("no image")
    written, failed = run(tmp_path / "in", tmp_path / "out")
    assert not failed
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in written) == sorted(names)
    assert sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file()) == sorted(written)


def test_extension_changes_only_where_the_format_cannot_hold_the_picture(tmp_path, capsys):
    save(tmp_path / "in" / "a.gif", noise(8, 8))
    save(tmp_path / "in" / "b.gif", noise(8, 8))
    save(tmp_path / "in" / "b.png", noise(8, 8, seed=1))
    save(tmp_path / "in" / "c.pgm", noise(8, 8, 1))
    save(tmp_path / "in" / "c.gif", noise(8, 8))
    translation.translate_files(Negative(), tmp_path / "in", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a.png", "b.gif.png", "b.png", "c.pgm.png", "c.png",
    ]  # fmt: skip
    expected = 255 - images.read_image(tmp_path / "in" / "b.png")
    np.testing.assert_array_equal(images.read_image(tmp_path / "out" / "b.png"), expected)
    assert "'.gif' cannot hold some of these pictures: written as .png" in capsys.readouterr().out


def test_glob_keeps_folders_below_its_first_wildcard(tmp_path):
    for name in ("x/1.png", "x/y/2.png", "x/3.bmp"):
        save(tmp_path / name, noise(4, 4))
    written, _ = run(tmp_path / "x" / "**" / "*.png", tmp_path / "out")
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in written) == ["1.png", "y/2.png"]


def test_one_file_goes_to_a_file_or_into_a_folder(tmp_path):
    pixels = save(tmp_path / "in.png", noise(6, 7))
    assert run(tmp_path / "in.png", tmp_path / "deep" / "result.tif")[0] == [tmp_path / "deep" / "result.tif"]
    assert run(tmp_path / "in.png", tmp_path / "folder")[0] == [tmp_path / "folder" / "in.png"]
    for path in ("deep/result.tif", "folder/in.png"):
        np.testing.assert_array_equal(images.read_image(tmp_path / path), 255 - pixels)


def test_inputs_are_never_overwritten(tmp_path):
    before = save(tmp_path / "in" / "a.png", noise(4, 4))
    save(tmp_path / "in" / "b.gif", noise(4, 4))
    for input, output in (
        (tmp_path / "in", tmp_path / "in"),
        (tmp_path / "in" / "a.png", tmp_path / "in" / "a.png"),
        (tmp_path / "in" / "a.png", tmp_path / "in"),
        (tmp_path / "in" / "*.png", tmp_path / "in" / ".." / "in"),
    ):
        with pytest.raises(UserError, match="would overwrite"):
            run(input, output)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "in")
    with pytest.raises(UserError, match="would overwrite"):
        run(link, tmp_path / "in")
    np.testing.assert_array_equal(images.read_image(tmp_path / "in" / "a.png"), before)


def test_results_inside_the_input_folder_are_no_inputs_of_the_next_call(tmp_path):
    save(tmp_path / "a.png", noise(4, 4))
    for overwrite in (False, True):
        written, _ = run(tmp_path, tmp_path / "out", overwrite=overwrite)
        assert written == [tmp_path / "out" / "a.png"]


def test_an_output_around_the_input_leaves_no_input_out(tmp_path, monkeypatch):
    save(tmp_path / "photos" / "raw" / "a.png", noise(4, 4))
    monkeypatch.chdir(tmp_path)
    assert run("photos/raw", "photos")[0] == [pathlib.Path("photos/a.png")]
    written, failed = run("photos", ".")
    assert not failed and sorted(map(str, written)) == ["a.png", "raw/a.png"]


def test_files_that_are_there_are_replaced_only_when_asked(tmp_path):
    """Domain B's own pictures have the names that translations of domain A's would get."""
    own = {}
    for name in ("1.png", "2.jpg", "3.png"):
        save(tmp_path / "testA" / name, noise(4, 4))
        save(tmp_path / "testB" / name, noise(4, 4, seed=1))
        own[name] = (tmp_path / "testB" / name).read_bytes()
    (tmp_path / "testB" / "3.png").unlink()
    model = Negative()
    with pytest.raises(UserError, match="results of 2 of 3 images are there already, .*1.png for one: add --overwrite"):
        run(tmp_path / "testA", tmp_path / "testB", model)
    with pytest.raises(UserError, match="add --overwrite"):
        run(tmp_path / "testA" / "1.png", tmp_path / "testB" / "1.png", model)
    assert not model.shapes and not (tmp_path / "testB" / "3.png").exists()
    assert all((tmp_path / "testB" / name).read_bytes() == own[name] for name in ("1.png", "2.jpg"))
    written, _ = run(tmp_path / "testA", tmp_path / "testB", overwrite=True)
    assert len(written) == 3 and (tmp_path / "testB" / "1.png").read_bytes() != own["1.png"]
    # A picture that its format cannot hold becomes a .png, which may be there too.
    save(tmp_path / "in" / "1.gif", noise(4, 4))
    with pytest.raises(UserError, match="testB/1.png for one"):
        run(tmp_path / "in", tmp_path / "testB")
    # What is named is written under that name alone.
    assert run(tmp_path / "testA" / "1.png", tmp_path / "testA" / "1.bmp")[0] == [tmp_path / "testA" / "1.bmp"]


def test_impossible_outputs_and_inputs_are_refused(tmp_path):
    save(tmp_path / "in" / "a.png", noise(4, 4))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not one file: give a folder"):
        run(tmp_path / "in", tmp_path / "out.png")
    with pytest.raises(UserError, match="is a file: expected a folder"):
        run(tmp_path / "in", tmp_path / "file")
    with pytest.raises(UserError, match="does not exist"):
        run(tmp_path / "missing", tmp_path / "out")
    with pytest.raises(UserError, match="--tile=10: expected a positive multiple of 4, such as 12"):
        run(tmp_path / "in", tmp_path / "out", fit="tile", tile=10, overlap=2)


# ---------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("fit", ["pad", "resize", "tile"])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (37, 53), (40, 64)])
def test_original_size_comes_out(tmp_path, fit, size):
    pixels = save(tmp_path / "x.png", noise(*size))
    run(tmp_path / "x.png", tmp_path / "out", fit=fit, tile=16, overlap=4)
    result = images.read_image(tmp_path / "out" / "x.png")
    assert result.shape == pixels.shape
    if fit != "resize":
        np.testing.assert_array_equal(result, 255 - pixels)


def test_resize_gives_the_network_the_size_or_the_crop_of_the_training(tmp_path):
    for size in ((1, 1), (9, 10), (16, 12)):
        save(tmp_path / "in" / f"{size[0]}.png", noise(*size))
    for size, seen in ((None, (16, 12)), ((8, 20), (8, 20))):
        model = Negative()
        written, _ = run(tmp_path / "in", tmp_path / "out", model, fit="resize", size=size, overwrite=True)
        assert [s[1:3] for s in model.shapes] == [seen] * 3
        assert [images.read_image(p).shape[:2] for p in written] == [(1, 1), (16, 12), (9, 10)]
    expected = 255 - images.read_image(tmp_path / "in" / "16.png")
    run(tmp_path / "in", tmp_path / "out", fit="resize", overwrite=True)
    np.testing.assert_array_equal(images.read_image(tmp_path / "out" / "16.png"), expected)
    message = "--size=9,2, but the networks take multiples of 4, at least 4: give --size=8,4 or --fit=pad"
    with pytest.raises(UserError, match=message):
        run(tmp_path / "in", tmp_path / "out", fit="resize", size=(9, 2))
    with pytest.raises(UserError, match="give --size=N"):
        run(tmp_path / "in", tmp_path / "out", Negative(crop=None), fit="resize")


def test_networks_of_one_size_get_every_image_at_that_size(tmp_path):
    class Fixed(Negative):
        sizes = Sizes(fixed=(8, 8))

    for size in ((1, 1), (8, 8), (30, 20)):
        save(tmp_path / "in" / f"{size[0]}.png", noise(*size))
    model = Fixed()
    written, failed = run(tmp_path / "in", tmp_path / "out", model)
    assert not failed and model.shapes == [(1, 8, 8, 3)] * 3
    assert [images.read_image(p).shape[:2] for p in written] == [(1, 1), (30, 20), (8, 8)]
    run(tmp_path / "in" / "30.png", tmp_path / "tiled", model, fit="tile", tile=8, overlap=4)
    assert set(model.shapes) == {(1, 8, 8, 3), (8, 8, 3)}
    for options, message in (
        ({"fit": "pad"}, "--fit=pad: the networks take 8,8 only: use --fit=resize"),
        ({"size": (12, 12)}, "--size=12,12, but the networks take 8,8 only: give --size=8,8$"),
        ({"fit": "tile", "tile": 16}, "--tile=16: the networks take 8,8 only"),
    ):
        with pytest.raises(UserError, match=message):
            run(tmp_path / "in", tmp_path / "out", model, **options)


def test_size_is_what_the_network_sees_and_keep_size_what_is_written(tmp_path):
    pixels = save(tmp_path / "x.png", noise(30, 20))
    for keep_size, expected in ((True, (30, 20)), (False, (12, 8))):
        model = Negative()
        run(tmp_path / "x.png", tmp_path / "out", model, size=(12, 8), keep_size=keep_size, overwrite=True)
        assert model.shapes == [(1, 12, 8, 3)]
        assert images.read_image(tmp_path / "out" / "x.png").shape == (*expected, 3)
    np.testing.assert_array_equal(images.read_image(tmp_path / "out" / "x.png"), 255 - images.resize(pixels, (12, 8)))


@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("fit", ["pad", "tile"])
def test_16_bits_stay_exact(tmp_path, extension, fit):
    pixels = save(tmp_path / f"x.{extension}", noise(21, 18, dtype=np.uint16))
    run(tmp_path, tmp_path / "out", fit=fit, tile=8, overlap=4)
    result = images.read_image(tmp_path / "out" / f"x.{extension}")
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, 65535 - pixels)


def test_16_bits_do_not_go_into_an_8_bit_file_unasked(tmp_path):
    save(tmp_path / "x.png", noise(4, 4, dtype=np.uint16))
    written, failed = run(tmp_path / "x.png", tmp_path / "out.jpg")
    assert not written and "8 bits" in failed[0][1]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_kept_and_the_background_translated(tmp_path, dtype):
    top = np.iinfo(dtype).max
    pixels, alpha = np.zeros((6, 5, 3), dtype), np.full((6, 5), top, dtype)
    alpha[0] = 0
    save(tmp_path / "x.png", pixels, alpha)
    run(tmp_path / "x.png", tmp_path / "out")
    result, kept = images.read_image(tmp_path / "out" / "x.png", keep_alpha=True)
    np.testing.assert_array_equal(kept, alpha)
    # White, the background, was behind the transparent row; its negative is black.
    assert (result[0] == 0).all() and (result[1:] == top).all()


def test_alpha_is_left_out_of_a_file_that_cannot_hold_it(tmp_path):
    save(tmp_path / "x.png", noise(4, 4), noise(4, 4, 1)[..., 0])
    written, failed = run(tmp_path / "x.png", tmp_path / "out.bmp")
    assert written and not failed and images.read_image(tmp_path / "out.bmp").shape == (4, 4, 3)


@pytest.mark.parametrize("direction, channels", [("a2b", 3), ("b2a", 1)])
def test_channels_follow_the_domains(tmp_path, direction, channels):
    save(tmp_path / "grey.png", noise(4, 4, 1))
    save(tmp_path / "colour.png", noise(4, 4, 3))
    model = Negative(channels_a=1, channels_b=3)
    written, failed = run(tmp_path, tmp_path / "out", model, direction=direction)
    assert not failed and {s[-1] for s in model.shapes} == {4 - channels}
    assert {images.read_image(p).shape[-1] for p in written} == {channels}


def test_side_by_side(tmp_path):
    pixels, alpha = noise(4, 6), noise(4, 6, 1)[..., 0]
    alpha[:] = 255
    alpha[0, 0] = 254
    save(tmp_path / "x.png", pixels, alpha)
    run(tmp_path / "x.png", tmp_path / "out", side_by_side=True)
    result, kept = images.read_image(tmp_path / "out" / "x.png", keep_alpha=True)
    np.testing.assert_array_equal(result[1:, :6], pixels[1:])
    np.testing.assert_array_equal(result[1:, 6:], 255 - pixels[1:])
    np.testing.assert_array_equal(kept, np.hstack([alpha, alpha]))


def test_batches_hold_consecutive_images_of_equal_size(tmp_path):
    pixels = [save(tmp_path / f"{i}.png", noise(*s, seed=i)) for i, s in enumerate([(4, 4)] * 5 + [(8, 4)] * 2)]
    model = Negative()
    written, _ = run(tmp_path, tmp_path / "out", model, batch_size=3)
    assert [s[0] for s in model.shapes] == [3, 2, 2]
    for path, x in zip(written, pixels):
        np.testing.assert_array_equal(images.read_image(path), 255 - x)


# ---------------------------------------------------------------------------------------------------- failures


def test_a_broken_file_is_reported_and_the_rest_done(tmp_path):
    for name in "abcd":
        save(tmp_path / f"{name}.png", noise(8, 8))
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
    (tmp_path / "c.png").write_bytes(b"")
    written, failed = run(tmp_path, tmp_path / "out", batch_size=4)
    assert [p.name for p in written] == ["a.png", "d.png"]
    assert [p.name for p, _ in failed] == ["b.png", "c.png"] and "empty" in failed[1][1]


def test_memory_that_runs_out_names_the_way_out(tmp_path):
    class Huge(Negative):
        def translate(self, x, *args, **kwargs):
            if x.shape[1] > 4:
                raise MemoryError
            return super().translate(x, *args, **kwargs)

    save(tmp_path / "a.png", noise(8, 8))
    save(tmp_path / "b.png", noise(4, 4))
    written, failed = run(tmp_path, tmp_path / "out", Huge())
    assert [p.name for p in written] == ["b.png"] and "--fit=tile" in failed[0][1]


def test_a_result_that_cannot_be_written_is_reported(tmp_path):
    save(tmp_path / "in" / "sub" / "a.png", noise(4, 4))
    save(tmp_path / "in" / "b.png", noise(4, 4))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("a file where a folder is needed")
    written, failed = run(tmp_path / "in", tmp_path / "out")
    assert [p.name for p in written] == ["b.png"] and [p.name for p, _ in failed] == ["a.png"]


# --------------------------------------------------------------------------------------------------- heatmaps


class Attentive(Negative):
    """Stands in for U-GAT-IT: it looks at everything."""

    def check_heatmaps(self, discriminators=False):
        pass

    def heatmaps(self, pixels, direction="a2b", discriminators=False):
        names = ("generator", "global", "local") if discriminators else ("generator",)
        return {name: np.ones((*pixels.shape[:2], 1), np.float32) for name in names}


def test_heatmaps_are_files_of_their_own(tmp_path):
    for i, name in enumerate(("x.jpg", "x.png", "y.png", "y_attention.png", "z.png", "z_attention.gif")):
        save(tmp_path / "in" / name, noise(4, 4, seed=i))
    written, failed = run(tmp_path / "in", tmp_path / "out", Attentive(), heatmaps=True)
    assert not failed and len(set(written)) == 6
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "x.jpg", "x.png", "x.png_attention.png", "x_attention.png", "y.png", "y.png_attention.png", "y_attention.png",
        "y_attention_attention.png", "z.png", "z_attention.gif.png", "z_attention.png", "z_attention_attention.png",
    ]  # fmt: skip
    expected = 255 - images.read_image(tmp_path / "in" / "y_attention.png")
    np.testing.assert_array_equal(images.read_image(tmp_path / "out" / "y_attention.png"), expected)
    save(tmp_path / "in" / "y.png_attention.png", noise(4, 4))
    with pytest.raises(UserError, match="the heatmap of .*in/y.png would be .*, which another picture's is"):
        run(tmp_path / "in", tmp_path / "other", Attentive(), heatmaps=True)


@pytest.mark.parametrize("name", ["x_attention.png", "x_attention_local.png"])
def test_heatmaps_replace_nothing_unasked(tmp_path, name):
    save(tmp_path / "in" / "x.png", noise(4, 4))
    save(tmp_path / "out" / name, noise(4, 4))
    with pytest.raises(UserError, match=f"{name} for one: add --overwrite"):
        run(tmp_path / "in", tmp_path / "out", Attentive(), discriminator_heatmaps=True)
    written, _ = run(tmp_path / "in", tmp_path / "out", Attentive(), discriminator_heatmaps=True, overwrite=True)
    assert written and len(list((tmp_path / "out").iterdir())) == 4
    save(tmp_path / "a" / "a" / "x.png", noise(4, 4))
    save(tmp_path / "a" / name, noise(4, 4))
    with pytest.raises(UserError, match=f"x.png would overwrite .*{name}"):
        run(tmp_path / "a", tmp_path, Attentive(), discriminator_heatmaps=True, overwrite=True)


def test_a_heatmap_that_fails_is_reported_and_the_rest_done(tmp_path, monkeypatch):
    for name in "ab":
        save(tmp_path / "in" / f"{name}.png", noise(4, 4))
    write = images.write_image

    def full(path, *args):
        if path.name == "a_attention.png":
            raise OSError(28, "No space left on device")
        write(path, *args)

    monkeypatch.setattr(images, "write_image", full)
    written, failed = run(tmp_path / "in", tmp_path / "out", Attentive(), heatmaps=True)
    assert [p.name for p in written] == ["b.png"]
    assert [(p.name, "No space left" in reason) for p, reason in failed] == [("a.png", True)]


def test_networks_without_attention_are_refused_before_anything_is_written(tmp_path):
    class Blind(Attentive):
        def check_heatmaps(self, discriminators=False):
            if discriminators:
                raise UserError("discriminators without attention")

    save(tmp_path / "x.png", noise(4, 4))
    with pytest.raises(UserError, match="discriminators without attention"):
        run(tmp_path / "x.png", tmp_path / "out", Blind(), discriminator_heatmaps=True)
    assert run(tmp_path / "x.png", tmp_path / "out", Blind(), heatmaps=True)[0]


# ----------------------------------------------------------------------------------------------------- command


def test_names_that_are_not_utf_8_are_printed_escaped(tmp_path):
    code = (
        "from absl import flags\n"
        "from tfi2i import command, progress\n"
        "name = b'caf\\xe9.png'.decode(errors='surrogateescape')\n"
        "def main(_):\n"
        "    bar = progress.Progress(1, 'images')\n"
        "    bar.note('failed: ' + name)\n"
        "    bar.update(1, name)\n"
        "    command.fail(name)\n"
        "command.run(main)\n"
    )
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout == "failed: caf\\udce9.png\n1/1 images | caf\\udce9.png\n"
    assert done.stderr == "error: caf\\udce9.png\n"


def test_help_is_instant_and_loads_no_tensorflow():
    code = (
        "import sys; sys.argv = ['translate', '--help']\n"
        "from tfi2i.commands import translate as t\n"
        "try: t.run()\n"
        "finally: print('TENSORFLOW' if 'tensorflow' in sys.modules else 'LIGHT')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("LIGHT\n"), done.stdout + done.stderr
    shown = command("--help").stdout
    for flag in ("--input", "--output", "--direction", "--fit", "--[no]side_by_side", "--checkpoint"):
        assert flag in shown, flag


def test_a_mistyped_path_does_not_wait_for_tensorflow(tmp_path):
    code = (
        f"import sys; sys.argv = ['translate', '--run_dir=x', '--input={tmp_path}/none', '--output={tmp_path}/out']\n"
        "from tfi2i.commands import translate as t\n"
        "try: t.run()\n"
        "finally: print('TENSORFLOW' if 'tensorflow' in sys.modules else 'LIGHT')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "LIGHT\n" and "none does not exist" in done.stderr


def test_command_translates_with_a_trained_model(tmp_path, run_dir):
    pixels = save(tmp_path / "in" / "a.png", noise(37, 53))
    (tmp_path / "in" / "broken.png").write_text("not an image")
    save(tmp_path / "in" / "z.png", noise(1, 1))
    done = command(f"--run_dir={run_dir}", f"--input={tmp_path}/in", f"--output={tmp_path}/out", "--direction=b2a")
    assert done.returncode == 1, done.stderr
    assert "translated 2 of 3 images b2a with step 7" in done.stdout
    assert "1 failed" in done.stderr and "broken.png" in done.stderr and "Traceback" not in done.stderr
    import tfi2i

    expected = tfi2i.load(run_dir).translate(pixels, direction="b2a")
    result = images.read_image(tmp_path / "out" / "a.png").astype(int)
    assert np.abs(result - expected).max() <= 1 and result.std() > 0
    assert images.read_image(tmp_path / "out" / "z.png").shape == (1, 1, 3)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--input=nowhere.png"], "error: nowhere.png does not exist"),
        (["--output=r.mp4"], "error: --output=r.mp4: films are not read or written: take the frames out, as pictures"),
        (["--output=r.avif"], "error: --output=r.avif: pictures are not written as .avif: use .bmp, .gif"),
        (["--output=gs://bucket/out"], "error: --output=gs://bucket/out is a URL: copy it to this machine"),
        (["--size=12,ab"], "error: --size=12,ab: '12,ab' is not a size"),
        (["--run_dir=tests"], "error: tests is not a run directory"),
        (["stray"], "error: 'stray' is not a flag"),
    ],
)
def test_mistakes_are_one_line(tmp_path, run_dir, flags, message):
    save(tmp_path / "a.png", noise(4, 4))
    done = command(f"--run_dir={run_dir}", f"--input={tmp_path}/a.png", f"--output={tmp_path}/out", *flags)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error")][0].startswith(message)


def test_tiles_of_a_trained_model_end_where_the_image_does(run_dir):
    import tfi2i

    model = tfi2i.load(run_dir)
    whole = noise(30, 46)[None]
    expected = model.translate(whole)
    one = translation.translate_fitted(model, whole, fit="tile", tile=64, overlap=16)
    assert np.abs(one.astype(int) - expected).max() <= 1
    tiled = translation.translate_fitted(model, whole, fit="tile", tile=16, overlap=8)
    assert tiled.shape == expected.shape and tiled.dtype == np.uint8


# ------------------------------------------------------------------------------------------------------ tiling


def test_tile_starts_by_hand():
    assert tiling.tile_starts(16, 16, 4, 1) == [0]
    assert tiling.tile_starts(5, 16, 4, 1) == [0]
    assert tiling.tile_starts(17, 16, 4, 1) == [0, 1]
    assert tiling.tile_starts(28, 16, 4, 1) == [0, 12]
    assert tiling.tile_starts(30, 16, 4, 1) == [0, 12, 14]
    assert tiling.tile_starts(30, 16, 4, 8) == [0, 8, 16]  # 30 is padded to 32


@pytest.mark.parametrize("multiple", [1, 4, 8])
@pytest.mark.parametrize("overlap", [0, 3, 8])
@pytest.mark.parametrize("size", [(1, 1), (16, 17), (7, 50), (33, 64), (41, 39)])
def test_tiles_of_an_identity_are_the_image(size, overlap, multiple):
    shapes = []

    def identity(x):
        shapes.append(x.shape)
        return x.astype(np.float32)

    for dtype in (np.uint8, np.uint16):
        image = noise(*size, dtype=dtype)
        result = tiling.translate_tiled(identity, image, 16, overlap, multiple)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, image)
    if max(size) > 16:
        assert all(h % multiple == 0 and w % multiple == 0 and max(h, w) <= 16 for h, w, _ in shapes)


def test_tiles_blend_without_a_seam():
    """Tiles that come back as 0 and 200 in turn: no step between neighbouring pixels exceeds the ramp's slope."""
    values = iter(np.tile([0.0, 200.0], 50))
    result = tiling.translate_tiled(lambda x: np.full(x.shape, next(values)), np.zeros((64, 300, 1)), 64, 32, 1)
    steps = np.abs(np.diff(result[0, :, 0]))
    # sin² over 32 pixels rises by at most π/2/32 of the difference a pixel.
    assert 0 < steps.max() <= 200 * np.pi / 2 / 32 * 1.01
    assert result.min() == 0 and result.max() == pytest.approx(200, abs=0.2)
    hard = iter(np.tile([0.0, 200.0], 50))
    hard = tiling.translate_tiled(lambda x: np.full(x.shape, next(hard)), np.zeros((64, 300, 1)), 64, 0, 1)
    assert np.abs(np.diff(hard[0, :, 0])).max() == 200


def test_what_a_tile_shows_at_its_edge_does_not_count():
    """A function that spoils the outermost 2 pixels of what it sees spoils the image's border and little else."""

    def spoil(x):
        y = x.astype(np.float32)
        y[:2] = y[-2:] = y[:, :2] = y[:, -2:] = 255
        return y

    result = tiling.translate_tiled(spoil, np.zeros((96, 96, 1), np.uint8), 48, 24, 4)
    assert (result[0] == 255).all() and result[4:-4, 4:-4].max() <= 6


@pytest.mark.parametrize("tile, overlap, multiple", [(0, 0, 1), (10, 2, 4), (16, 9, 1), (16, -1, 1), (16, 4, 16)])
def test_impossible_tiles_are_refused(tile, overlap, multiple):
    with pytest.raises(ValueError, match="tile="):
        tiling.translate_tiled(lambda x: x, np.zeros((40, 40, 3)), tile, overlap, multiple)
