"""CartoonGAN's released generators: what the official code computed with such files, their names, and writing them."""

import re

import numpy as np
import pytest

from tests.drawing import nothing_drawn
from tests.published import CHECKPOINTS, built, check_written_is_official, converted, refused, unpacked
from tfi2i.config import UserError
from tfi2i.conversion import sources, torch_files
from tfi2i.methods.cartoongan import published
from tfi2i.methods.cartoongan.model import CartoonGAN


def state():
    """The arrays of the golden file, by name."""
    files, *_ = sources.read(CHECKPOINTS / "cartoongan.zip", published.FILE_NAMES)
    return files["Hayao_net_G_float"]


def written(folder, arrays):
    """A folder with a .npy file for each array."""
    folder.mkdir()
    for key, array in arrays.items():
        np.save(folder / f"{key}.npy", array)
    return folder


def test_the_official_code(official):
    golden = np.load(CHECKPOINTS / "cartoongan.npz")
    model, run = official("cartoongan")
    assert model.directions == ("a2b",) and model.config.generator_width == 2
    y = model.generate(golden["input"][..., ::-1], "a2b")  # blue first there
    np.testing.assert_allclose(y, golden["output"][..., ::-1], atol=1e-4)


def test_the_same_arrays_as_a_folder(official, tmp_path):
    model, _ = official("cartoongan")
    folder = written(tmp_path / "hayao", {key: tensor.numpy() for key, tensor in state().items()})
    lines = []
    other = converted(folder, tmp_path / "run", direction="b2a", log=lines.append)
    assert other.directions == ("b2a",) and "94 arrays" in lines[0]
    for ours, theirs in zip(other.generator.variables, model.generator.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_what_is_written_is_official(official, tmp_path):
    _, run = official("cartoongan")
    check_written_is_official(run, "cartoongan", published, tmp_path / "out")
    assert (tmp_path / "out" / "CartoonGAN_net_G_float.pth").is_file()


@nothing_drawn()
def test_full_width():
    (layout,) = published.layout(built(CartoonGAN)).values()
    assert len(layout) == 94
    assert {key: layout[key].shape for key in ("conv01_1.weight", "deconv01_1.weight", "deconv03_1.weight")} == {
        "conv01_1.weight": (64, 3, 7, 7), "deconv01_1.weight": (256, 128, 3, 3), "deconv03_1.weight": (3, 64, 7, 7),
    }  # fmt: skip
    norms = {f"in{i:02}_{j}" for i in range(4, 12) for j in (1, 2)} | {f"in{i:02}_1" for i in (1, 2, 3, 12, 13)}
    assert {key.removesuffix(".scale") for key in layout if key.endswith("scale")} == norms


@pytest.mark.parametrize(
    "change, message",
    [
        ({"conv11_1.weight": None, "conv11_2.weight": None}, "has 7 residual blocks, expected 8"),
        ({"conv03_2.weight": np.zeros((4, 4, 3, 3), "float32")}, "conv03_2.weight is .*expected .8, 8, 3, 3."),
        ({"in12_1.shift": None}, "lacks 1 arrays .in12_1.shift"),
        (
            {"in12_1.shift": np.zeros(4, "int64")},
            "in12_1.shift.npy cannot be read as an array of NumPy: expected numbers",
        ),
    ],
)
def test_what_is_not_a_released_generator(change, message, tmp_path):
    arrays = {key: tensor.numpy() for key, tensor in state().items()} | change
    folder = written(tmp_path / "style", {key: x for key, x in arrays.items() if x is not None})
    refused(folder, tmp_path, message)


def test_a_broken_array_is_named(tmp_path):
    folder = written(tmp_path / "style", {key: tensor.numpy() for key, tensor in state().items()})
    (folder / "in12_1.shift.npy").write_bytes(b"broken")
    refused(folder, tmp_path, re.escape(str(folder / "in12_1.shift.npy")) + " cannot be read as an array of NumPy")


def test_styles_of_one_folder_are_told_apart(tmp_path):
    folder = unpacked("cartoongan.zip", tmp_path)
    torch_files.save(folder / "Hosoda_net_G_float.pth", {key: t.numpy() * 2 for key, t in state().items()})
    one, two = (sources.read(folder, published.FILE_NAMES, style)[0] for style in ("Hayao", "Hosoda"))
    assert [*one] == ["Hayao_net_G_float"] and [*two] == ["Hosoda_net_G_float"]
    with pytest.raises(UserError, match="holds several models: give one of --epoch=Hayao, Hosoda"):
        sources.read(folder, published.FILE_NAMES)


@nothing_drawn()
def test_a_discriminator_is_left_out(tmp_path):
    """A trained run has one, the published code has none."""
    from tfi2i import checkpoints, run_directory, settings
    from tfi2i.conversion import exchange

    run = settings.resolve("cartoongan", {"generator_width": 2, "discriminator_width": 2, "crop": (16, 16)})
    checkpoints.save(tmp_path / "run", checkpoints.build(run, "float32"), 0, keep=1)
    run_directory.write(tmp_path / "run", run)
    lines = []
    paths = exchange.export(tmp_path / "run", tmp_path / "out", log=lines.append)
    assert [path.name for path in paths] == ["CartoonGAN_net_G_float.pth"] and "discriminator_b is left out" in lines[0]
