"""The page of --formats=web: what is written; and, marked `web` for `make test-web`, what it does in Chromium."""

import base64
import functools
import hashlib
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image
from tfi2i.export import __main__ as export_command
from tfi2i.export import export, verify, web

import tfi2i
from tests.own_flags import call
from tfi2i import tiling
from tfi2i.config import Data, UserError
from tfi2i.methods.sizes import Sizes, cut, pad

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "export" / "templates" / "web"
HERE = pathlib.Path(__file__).parent / "web"
SIDE, OVERLAP = 128, 16
# A device in software, as Chromium brings it.
WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]


@pytest.fixture(scope="module")
def model():
    """A CycleGAN with norms, so that what a tile becomes depends on all of it.

    Its weights are drawn as published. With larger ones, rounding alone takes the equalised copy of so small a network
    below the 90 dB that exports ask for.
    """
    small = {"residual_blocks": 1, "generator_width": 4, "discriminator_width": 4}
    model = tfi2i.CycleGAN(generator="resnet_6blocks", **small)
    model.build((None, None, None, 3))
    return model


def write(model, folder, litert_js, **arguments):
    """Exports quickly; returns the report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "latencies", functools.partial(verify.latencies, seconds=0))
        patch.setattr(verify, "alone", lambda *_: {})
        few = {"size": 16, "verification_images": 1, "calibration_images": 2, "floors": {"gpu": 40, "dynamic": 15}}
        usual = {"formats": ("web",), "data": Data(data="emoji"), "log": lambda _: None}
        return export(model, folder, litert_js=litert_js, **few | usual | arguments)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder that passes for LiteRT.js, and its archive."""
    folder = tmp_path / "package"
    for name in web._SHA256:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    (folder / "README.md").write_text("not needed")
    archive = tmp_path / "litertjs-core-2.5.3.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, "package")
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in web._SHA256}
    monkeypatch.setattr(web, "_SHA256", sums)
    monkeypatch.setattr(web, "_ARCHIVE", hashlib.sha256(archive.read_bytes()).hexdigest())
    return folder, archive


# ------------------------------------------------------------------------------------- what is written


def test_the_page_is_made_of_the_verified_files(model, package, tmp_path):
    out = tmp_path / "out"
    report = write(model, out, package[1], formats=("int8", "web"), floors={"gpu": 40, "dynamic": 15, "int8": 15})
    assert list(report["formats"]) == ["int8", "gpu", "dynamic"]
    assert report["web"] == {"webgpu": "gpu.tflite", "wasm": "dynamic.tflite"}
    files = {p.relative_to(out / "web").as_posix() for p in (out / "web").rglob("*") if p.is_file()}
    library = {f"litert_js/{name}" for name in web._SHA256}
    assert files == library | {"gpu.tflite", "dynamic.tflite", "model.json"} | {p.name for p in PAGE.iterdir()}
    sidecar = json.loads((out / "web" / "model.json").read_text())
    assert sidecar == json.loads((out / "model.json").read_text())
    assert sidecar["web"] == report["web"] | {
        "fit": "tile", "overlap": 2, "background": [255, 255, 255], "litert_js": web.PACKAGE,
    }  # fmt: skip
    for name in files - {"model.json"}:
        content = (out / "web" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == sidecar["sha256"][f"web/{name}"], name
    for name in ("gpu.tflite", "dynamic.tflite"):
        assert sidecar["sha256"][f"web/{name}"] == sidecar["sha256"][name]
    assert "python3 -m http.server --directory web" in (out / "README.md").read_text()


def test_overwriting_replaces_the_page_or_takes_it_away(model, package, tmp_path):
    out = tmp_path / "out"
    write(model, out, package[0])
    (out / "web" / "index.html").write_text("changed by hand")
    write(model, out, package[0], overwrite=True)
    assert (out / "web" / "index.html").read_text() == (PAGE / "index.html").read_text()
    write(model, out, None, formats=("dynamic",), overwrite=True)
    assert not (out / "web").exists() and json.loads((out / "model.json").read_text())["web"] is None
    (out / "web").mkdir()
    (out / "web" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds a folder web that is of no export: move it away"):
        write(model, out, package[0], overwrite=True)
    write(model, out, None, formats=("float32",), overwrite=True)
    assert (out / "web" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "given, message",
    [
        ({"litert_js": None}, "--formats=web needs LiteRT.js: download it with 'npm pack @litertjs/core@2.5.3', and"),
        ({"formats": ("gpu",)}, "--litert_js=.* is for the page of web, which --formats does not have: add web"),
        ({"io": "int8"}, "--io=int8: LiteRT.js does not take int8 pixels"),
        ({"litert_js": "/nowhere.tgz"}, "--litert_js=/nowhere.tgz does not exist: download it"),
        ({"litert_js": str(ROOT / "LICENSE")}, "LICENSE is not @litertjs/core@2.5.3: its SHA-256 is .*, expected .*;"),
        ({"litert_js": str(PAGE)}, "templates/web is not @litertjs/core@2.5.3: it has no package.json; download it"),
    ],
)
def test_errors_come_before_the_work(model, package, tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        write(model, tmp_path / "out", **{"litert_js": package[0]} | given)
    assert not (tmp_path / "out").exists()


def test_a_style_has_no_control_on_the_page(model, package, tmp_path, monkeypatch):
    monkeypatch.setattr(type(model), "style_size", 8)
    with pytest.raises(UserError, match="cyclegan takes a style, which the page cannot choose"):
        write(model, tmp_path / "out", package[0])
    assert not (tmp_path / "out").exists()


def test_another_version_or_a_changed_file_is_refused(package):
    folder, archive = package
    assert web.read_litert_js(folder) == web.read_litert_js(archive)
    name = "wasm/litert_wasm_internal.wasm"
    (folder / name).write_text("changed")
    with pytest.raises(UserError, match=f"the SHA-256 of {name} is {hashlib.sha256(b'changed').hexdigest()}, expected"):
        web.read_litert_js(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"it has no {name}"):
        web.read_litert_js(folder)
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(UserError, match="its SHA-256 is"):
        web.read_litert_js(archive)


def test_the_command_passes_the_library_on(monkeypatch):
    given = {}
    monkeypatch.setattr("tfi2i.load", lambda *_, **__: type("Model", (), {"checkpoint_step": 1}), raising=False)
    monkeypatch.setattr("tfi2i.export.exporter.export", lambda *_, **arguments: given.update(arguments))
    call(export_command, "--run_dir=run", "--output=out", "--formats=web", "--litert_js=core.tgz")
    assert given["formats"] == ("web",) and given["litert_js"] == "core.tgz"


def test_the_page_of_the_documentation_names_the_version():
    text = (ROOT / "docs" / "how-to" / "browser.md").read_text()
    assert set(re.findall(r"npm pack (\S+)", text)) == {web.PACKAGE} and web._ARCHIVE in text


def test_the_licence_goes_along():
    assert (PAGE / "LICENSE.txt").read_text() == (ROOT / "LICENSE").read_text()


def test_the_page_names_no_other_host_and_allows_only_its_own_inline_script():
    text = "".join(path.read_text() for path in PAGE.iterdir() if path.name != "LICENSE.txt")
    assert set(re.findall(r"https?://([\w.:]+)", text)) == {"localhost:8000", "www.w3.org"}  # SVG's name, not a request
    (script,) = re.findall(r'<script type="importmap">(.*?)</script>', text)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert re.findall(r"'sha256-(.*?)'", text) == [allowed]


# --------------------------------------------------------------------------- the tiles, computed by node


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Function of a name in tiles.js and arguments; what node makes of it."""
    module = tmp_path_factory.mktemp("node") / "tiles.mjs"  # the name tells every node that it is a module
    shutil.copy(PAGE / "tiles.js", module)

    def call(name, *arguments):
        command = ["node", HERE / "tiles.mjs", module, name, json.dumps(arguments)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    return call


@pytest.mark.web
def test_tiles_by_hand(tiles):
    assert tiles("tileStarts", 10, 4, 1) == [0, 3, 6]
    assert tiles("tileStarts", 11, 4, 1) == [0, 3, 6, 7]
    assert tiles("tileStarts", 4, 4, 1) == tiles("tileStarts", 3, 4, 1) == [0]
    # sin²(45°) where two tiles share one pixel: a half each.
    assert tiles("tileWeights", [0, 3], 7, 4, 1) == [[1, 1, 1, pytest.approx(0.5)], [pytest.approx(0.5), 1, 1, 1]]
    assert tiles("mirrored", 3, 6) == {"before": 1, "source": [1, 0, 1, 2, 1, 0]}
    assert tiles("toTensor", [255, 0, 0, 255, 1, 2, 3, 255], 2, [0], [1, 0], 3, "Uint8Array") == [1, 2, 3, 255, 0, 0]
    file = {"height": 4, "width": 4, "overlap": 1}
    assert tiles("sizeChoices", {"height": 8, "width": 16}, file) == [
        {"height": 8, "width": 16, "tiles": 15, "whole": False},
        {"height": 4, "width": 8, "tiles": 3, "whole": False},
        {"height": 2, "width": 4, "tiles": 1, "whole": False},
        {"height": 4, "width": 4, "tiles": 1, "whole": True},
    ]
    assert tiles("sizeChoices", {"height": 4, "width": 4}, file) == [
        {"height": 4, "width": 4, "tiles": 1, "whole": False}
    ]


@pytest.mark.web
@pytest.mark.parametrize("length, tile, overlap", [(10, 4, 0), (10, 4, 2), (100, 32, 8), (33, 32, 8), (7, 16, 4)])
def test_tiles_begin_and_weigh_as_in_python(tiles, length, tile, overlap):
    starts = tiling.tile_starts(length, tile, overlap, 1)
    assert tiles("tileStarts", length, tile, overlap) == starts
    weights = tiling._weights(starts, length, tile, overlap)
    np.testing.assert_allclose(tiles("tileWeights", starts, length, tile, overlap), weights, atol=1e-6)


@pytest.mark.web
@pytest.mark.parametrize("length, padded", [(1, 5), (2, 9), (5, 8), (30, 64), (64, 64)])
def test_smaller_pictures_are_mirrored_as_in_python(tiles, length, padded):
    before, source = Sizes(multiple=padded).reflected(length)
    assert tiles("mirrored", length, padded) == {"before": int(before), "source": source.numpy().tolist()}


@pytest.mark.web
def test_grey_is_pillows(tiles):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 4), np.uint8)
    grey = np.asarray(Image.fromarray(pixels[..., :3]).convert("L"))
    output = tiles("toTensor", pixels.ravel().tolist(), 5, list(range(6)), list(range(5)), 1, "Float32Array")
    assert output == grey.ravel().tolist()


@pytest.mark.web
@pytest.mark.parametrize("size", [(13, 29), (8, 8), (8, 17)])
@pytest.mark.parametrize("channels_out", [1, 3])
def test_a_picture_in_tiles_is_what_python_makes_of_it(tiles, size, channels_out):
    rgba = np.random.default_rng(0).integers(0, 256, (*size, 4), np.uint8)
    channels = 3 if channels_out == 3 else 1
    file = {"height": 8, "width": 8, "overlap": 2, "channels": channels, "channelsOut": channels_out}

    def network(tile):
        return (255 - tile) / 2 + (np.arange(tile.size) % 97).reshape(tile.shape)

    picture = rgba[..., :3] if channels == 3 else np.asarray(Image.fromarray(rgba[..., :3]).convert("L"))[..., None]
    expected = tiling.translate_tiled(network, picture.astype(np.float32), tile=8, overlap=2)
    given = {"height": size[0], "width": size[1]}, file | {"Numbers": "Float32Array"}, rgba.ravel().tolist()
    output = np.reshape(tiles("translate", *given), (*size, 4))
    assert np.abs(output[..., :3] - expected).max() <= 0.5 + 1e-3 and (output[..., 3] == 255).all()
    given[1]["stopsAfter"] = 1
    assert tiles("translate", *given) is False


# ----------------------------------------------------------------------------------- the page in Chromium


@pytest.fixture(scope="module")
def page(model, tmp_path_factory):
    """The folder of the page, and its model.json."""
    if "LITERT_JS" not in os.environ or "CHROMIUM" not in os.environ:
        pytest.fail("these tests need Chromium and LiteRT.js: run 'make test-web'")
    folder = tmp_path_factory.mktemp("web") / "out"
    write(model, folder, os.environ["LITERT_JS"], size=SIDE)
    return folder / "web"


@pytest.fixture(scope="module")
def serve():
    """Function that serves a folder, with the headers of isolation or without them; returns the address."""
    servers = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        headers_sent = {}

        def end_headers(self):
            for name, value in self.headers_sent.items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *_):
            pass

    def start(folder, isolated=True):
        lines = re.findall(r"^  (Cross-.*): (.*)$", (folder / "_headers").read_text(), re.MULTILINE)
        handler = type("Handler", (Handler,), {"headers_sent": dict(lines) if isolated else {}})
        assert len(lines) == 2
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def visit(url, steps=(), flags=()):
    """What the page says first and after every step, see web/visit.mjs; no script failed, no other host was asked."""
    asked = {"url": url, "chromium": os.environ["CHROMIUM"], "flags": [*flags], "steps": [*steps]}
    command = ["node", HERE / "visit.mjs", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == [] and found["elsewhere"] == []
    return found["came"]


def photo(height, width):
    """uint8 [H, W, 3], smooth, every channel differs."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9) + np.cos(y / 7), np.sin((x + y) / 13), np.cos(x / 21 - y / 5)], -1)
    return (127.5 + 60 * waves).astype(np.uint8)


def by_keras(model, pixels):
    """What Keras makes of a picture in the page's tiles: float32 levels [H, W, 3], not rounded."""

    def network(tile):
        return (model.translate(tile[None] / np.float32(127.5) - 1, "a2b")[0] + 1) * np.float32(127.5)

    return tiling.translate_tiled(network, pixels.astype(np.float32), SIDE, OVERLAP)


def by_file(page, pixels):
    """The same of the file that the page runs on the CPU, by LiteRT."""
    file = verify.LiteRT(page / web.files()["wasm"])
    network = lambda tile: file(tile[None].astype(np.uint8))[0].astype(np.float32)  # noqa: E731
    return tiling.translate_tiled(network, pixels.astype(np.float32), SIDE, OVERLAP)


def psnr(output, expected):
    score = verify.Score()
    score.add("the page", expected[None], output[None])
    return score.psnr


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.web
def test_a_dropped_picture_is_what_keras_makes_of_it(model, page, serve, tmp_path):
    exact, tiled = photo(SIDE, SIDE), photo(300, 220)
    Image.fromarray(exact).save(tmp_path / "exact.png")
    Image.fromarray(tiled).save(tmp_path / "tiled.png")
    steps = [
        {"drop": str(tmp_path / "exact.png"), "save": str(tmp_path / "gpu.png")},
        {"drop": str(tmp_path / "tiled.png"), "save": str(tmp_path / "gpu_tiled.png")},
        {"accelerator": "wasm", "save": str(tmp_path / "cpu_tiled.png")},
        {"paste": str(tmp_path / "exact.png"), "save": str(tmp_path / "cpu.png")},
    ]
    first, gpu, gpu_tiled, cpu_tiled, cpu = visit(serve(page), steps, WEBGPU)
    assert first["state"] == "ready" and first["notes"] == "" and first["facts"] == "Ready on the GPU (WebGPU)"
    assert "cyclegan, a2b" in first["about"] and "weights not stated" in first["about"]
    assert re.fullmatch(r"GPU \(WebGPU\): [\d.]+ ms", gpu["facts"])
    assert re.fullmatch(r"GPU \(WebGPU\): 6 tiles, [\d.]+ ms each, [\d.]+ m?s in all", gpu_tiled["facts"])
    assert re.fullmatch(r"CPU \(WebAssembly, \d+ threads?\): 6 tiles, .*", cpu_tiled["facts"])
    assert cpu["facts"].startswith("CPU") and gpu["sizes"] == ["128 × 128, at once"]
    for pixels, name in ((exact, ""), (tiled, "_tiled")):
        of_gpu, of_cpu = (read(tmp_path / f"{processor}{name}.png") for processor in ("gpu", "cpu"))
        keras, file = by_keras(model, pixels), by_file(page, pixels)
        assert psnr(of_gpu, keras) > 50
        # Random weights are far harder to quantize than trained ones: as close as the file itself is.
        assert psnr(of_cpu, keras) > psnr(np.rint(file).astype(np.uint8), keras) - 1 > 15
        assert psnr(of_cpu, file) > 40


@pytest.mark.web
def test_without_isolation_and_webgpu_the_page_says_so_and_goes_on(page, serve, tmp_path):
    pixels = photo(80, 180)
    alpha = np.full((80, 180, 1), 255, np.uint8)
    alpha[:20] = 0
    Image.fromarray(np.concatenate([pixels, alpha], -1)).save(tmp_path / "small.png")
    pixels[:20] = 255  # the background of the training
    step = {"put": str(tmp_path / "small.png"), "save": str(tmp_path / "out.png")}
    first, after = visit(serve(page, isolated=False), [step], ["--disable-gpu"])
    assert "one thread, because the server does not send the headers that _headers lists" in first["notes"]
    assert "The page runs on the CPU: WebGPU finds no GPU" in first["notes"]
    assert after["facts"].startswith("CPU (WebAssembly, 1 thread): 2 tiles")
    output = read(tmp_path / "out.png")
    assert output.shape == pixels.shape
    # Lower than a tile, so it is mirrored above and below; the first columns are of the first tile alone.
    sizes, columns = Sizes(multiple=SIDE), np.s_[:, : 180 - SIDE]
    tile = pad(pixels[None, :, :SIDE], sizes).numpy()[0]
    expected = cut(by_file(page, tile)[None], (80, SIDE), sizes)[0]
    # Activations are scaled to 8 bits as they come, so the last bit of a norm may change them everywhere.
    assert psnr(output[columns], expected[columns]) > 40


@pytest.mark.web
def test_a_broken_picture_is_an_error_in_words_and_the_next_one_works(page, serve, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    Image.fromarray(photo(SIDE, SIDE)).save(tmp_path / "whole.png")
    steps = [{"drop": str(tmp_path / f"{name}.png")} for name in ("broken", "whole", "broken")]
    _, broken, whole, again = visit(serve(page), steps)
    assert broken["message"] == "broken.png cannot be read as a picture. Give a JPEG, PNG or WebP file."
    assert whole["state"] == "done" and whole["message"] == ""
    assert again["message"] == broken["message"]


@pytest.mark.web
def test_a_photo_of_12_megapixels_that_is_turned(page, serve, tmp_path):
    """A phone stores it on its side, and a tag says so; a corner of it is compared."""
    upright = np.tile(photo(400, 300), (10, 10, 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.fromarray(np.rot90(upright)).save(tmp_path / "photo.jpg", exif=exif, quality=95, subsampling=0)
    step = {"put": str(tmp_path / "photo.jpg"), "save": str(tmp_path / "out.png")}
    _, after = visit(serve(page), [step])
    assert after["sizes"][0] == "3000 × 4000, 972 tiles"
    assert after["sizes"][-2:] == ["94 × 125, at once", "128 × 128, the whole picture at once"]
    output = read(tmp_path / "out.png")
    assert output.shape == upright.shape
    side = SIDE + 4 * (SIDE - OVERLAP)  # tiles of this corner begin where those of the photo do
    with Image.open(tmp_path / "photo.jpg") as turned:
        corner = np.rot90(np.asarray(turned), -1)[:side, :side]
    inner = np.s_[: side - OVERLAP, : side - OVERLAP]
    assert psnr(output[inner], by_file(page, corner)[inner]) > 35


@pytest.mark.web
def test_the_camera_and_the_whole_picture(page, serve, tmp_path):
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    steps = [{"camera": True}, {"whole": True, "save": str(tmp_path / "whole.png")}]
    _, camera, whole = visit(serve(page), steps, fake)
    assert camera["state"] == whole["state"] == "done"
    height, width = read(tmp_path / "whole.png").shape[:2]
    assert camera["sizes"][0].startswith(f"{width} × {height}, ") and len(camera["sizes"]) > 2
    assert re.fullmatch(r"CPU \(.*\): [\d.]+ ms", whole["facts"])


@pytest.mark.web
def test_the_cpu_goes_on_where_the_gpu_fails(page, serve, tmp_path):
    shutil.copytree(page, tmp_path / "web")
    (tmp_path / "web" / "gpu.tflite").write_bytes(b"no model")
    Image.fromarray(photo(SIDE, SIDE)).save(tmp_path / "x.png")
    first, after = visit(serve(tmp_path / "web"), [{"put": str(tmp_path / "x.png")}], WEBGPU)
    assert first["notes"].startswith("The page runs on the CPU: the GPU failed, ")
    assert after["state"] == "done" and after["facts"].startswith("CPU")


@pytest.mark.web
def test_what_is_missing_is_said(page, serve, tmp_path):
    shutil.copytree(page, tmp_path / "web")
    (tmp_path / "web" / "dynamic.tflite").unlink()
    (first,) = visit(serve(tmp_path / "web"))
    assert first["state"] == "failed"
    assert first["message"] == "The model cannot be loaded: dynamic.tflite is missing on the server (status 404)."
    (tmp_path / "web" / "litert_js" / "wasm" / "litert_wasm_threaded_internal.js").unlink()
    (first,) = visit(serve(tmp_path / "web"))
    assert "litert_wasm_threaded_internal.js is missing on the server." in first["message"]


@pytest.mark.web
def test_a_page_that_is_opened_as_a_file_says_what_to_do(page):
    (first,) = visit((page / "index.html").as_uri())
    assert first["state"] == "closed" and first["closed"]
