"""A page that translates pictures in a browser: static files of ours, two LiteRT files of the export, and LiteRT.js.

The page is `templates/web`. It reads all constants from the export's model.json. LiteRT.js is no Python package, so the
user gives what `npm pack` downloads, and its files are known by their SHA-256.
"""

import hashlib
import pathlib
import shutil
import tarfile

from tfi2i.config import UserError, local_path
from tfi2i.files import reason

# Which format runs where: floats on a GPU; on a CPU 8-bit weights, which are as fast there as "int8", and closer.
FILES = {"webgpu": "gpu", "wasm": "dynamic"}
PACKAGE = "@litertjs/core@2.5.3"
_ARCHIVE = "a97660833e9e7e1063c95e12016718881240b14f7438728a2f62785e912d30fd"
# What the page loads of the package. A browser takes one of the three builds: with threads, without them, or without
# relaxed SIMD. The fourth build is for models that a GPU takes in part, and "gpu" files are taken whole.
_SHA256 = {
    "package.json": "1ba6b1c4b25c061cf97876e4846be92f8dfe312d2f78d82ee3ee92ab45c80987",
    "dist/index.js": "e7daccc3a31eef890848a737ccb863ded5f046a6b40c3fdc0556495adeb5d9b3",
    "wasm/litert_wasm_compat_internal.js": "4d8f894b7883654fd6e8439730aa41e79ceaab7d19184fc4f1f0b0f1a2a2c8a5",
    "wasm/litert_wasm_compat_internal.wasm": "5255c8ad06eabdbd2522cdebf6b22fc10faf74625c23a49b9e072570cd1fa41c",
    "wasm/litert_wasm_internal.js": "68efb69f770e3f76aff36a377de629ca496c131b86ac0f0f4b592a1543a898eb",
    "wasm/litert_wasm_internal.wasm": "7280cf4471774867e385e6c3cd53e2b45e2975b80fea338fff4ef359b0865614",
    "wasm/litert_wasm_threaded_internal.js": "92fe7a720c6deedaa1194c011c79a005ea4f6fc98f533b661cf7900760ab4849",
    "wasm/litert_wasm_threaded_internal.wasm": "b5e54eca10f043497edf9a02186332707cae260c550d7ea22b2cae55669596cf",
}
_HINT = f"download it with 'npm pack {PACKAGE}', and give --litert_js the .tgz file or the unpacked folder"
_TEMPLATES = pathlib.Path(__file__).parent / "templates" / "web"


def resolve(model, formats, io, litert_js):
    """What an export with these formats writes.

    Args:
        model: the `Translator`.
        formats: names of formats; "web" may be one.
        io: type of the pixels of the LiteRT files.
        litert_js: path for `read_litert_js`, or None.

    Returns:
        (formats without "web", but with the files that it needs; what `read_litert_js` returns, or None without "web").

    Raises:
        UserError: LiteRT.js is missing, cannot be used or is not needed, or does not take such pixels; the model takes
            a style, for which the page has no control.
    """
    if "web" not in formats:
        if litert_js:
            raise UserError(f"--litert_js={litert_js} is for the page of web, which --formats does not have: add web")
        return formats, None
    if model.style_size:
        raise UserError(
            f"--formats=web: {model.name} takes a style, which the page cannot choose; for a page of your own export "
            "--formats=gpu,dynamic, whose files have the style as their second input"
        )
    if not litert_js:
        raise UserError(f"--formats=web needs LiteRT.js: {_HINT}")
    if io == "int8":
        raise UserError("--io=int8: LiteRT.js does not take int8 pixels; leave --io out for --formats=web")
    others = (kind for kind in formats if kind != "web")
    return tuple(dict.fromkeys([*others, *FILES.values()])), read_litert_js(litert_js)


def read_litert_js(path):
    """What the page needs of LiteRT.js, each file checked.

    Args:
        path: the .tgz file of `npm pack`, or a folder with its content.

    Returns:
        dict of the path within the package → bytes.

    Raises:
        UserError: there is no such package, or another version of it, or a file is missing or was changed.
    """
    path = pathlib.Path(local_path(path, "litert_js"))
    if not path.exists():
        raise UserError(f"--litert_js={path} does not exist: {_HINT}")
    try:
        return _read_folder(path) if path.is_dir() else _read_archive(path)
    except OSError as error:
        raise UserError(f"--litert_js={path} cannot be read: {reason(error)}") from error


def _read_archive(path):
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != _ARCHIVE:
        raise UserError(f"--litert_js={path} is not {PACKAGE}: its SHA-256 is {found}, expected {_ARCHIVE}; {_HINT}")
    with tarfile.open(path) as archive:
        return {name: archive.extractfile(f"package/{name}").read() for name in _SHA256}


def _read_folder(path):
    content = {}
    for name, expected in _SHA256.items():
        if not (path / name).is_file():
            raise UserError(f"--litert_js={path} is not {PACKAGE}: it has no {name}; {_HINT}")
        content[name] = (path / name).read_bytes()
        found = hashlib.sha256(content[name]).hexdigest()
        if found != expected:
            raise UserError(
                f"--litert_js={path} is not {PACKAGE}: the SHA-256 of {name} is {found}, expected {expected}; {_HINT}"
            )
    return content


def files():
    """dict of accelerator, as LiteRT.js calls it, → name of the file that the page runs there."""
    return {accelerator: f"{kind}.tflite" for accelerator, kind in FILES.items()}


def describe(size, fit, background):
    """What the page has to know beyond the files' ends: "web" of model.json.

    Args:
        size: (height, width) of the LiteRT files' images.
        fit: "pad" or "resize", the rule of the export.
        background: (R, G, B), 0 to 255, behind transparent pixels.
    """
    return {
        **files(),
        # A larger picture goes through in tiles, or as a whole that is resized and brought back.
        "fit": "resize" if fit == "resize" else "tile",
        "overlap": min(size) // 8,  # the part that `tfi2i translate` has by default
        "background": list(background),
        "litert_js": PACKAGE,
    }


def write(folder, litert_js):
    """Writes FOLDER/web, all but the model.json that the page reads.

    Args:
        folder: of an export, which holds the files in `FILES`.
        litert_js: of `read_litert_js`.

    Raises:
        OSError: it cannot be written.
    """
    page = folder / "web"
    shutil.copytree(_TEMPLATES, page)
    for kind in FILES.values():
        shutil.copy(folder / f"{kind}.tflite", page)
    for name, content in litert_js.items():
        target = page / "litert_js" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
