"""Exports what draws pairs of images from noise, for methods that have a `latent_size`.

Such a method translates by a search for the noise that generates a picture, hundreds of passes forward and backward,
which no file holds. Its files draw pairs:

    signature "sample": {"z": float32 [N, latent_size], draws from N(0, 1)} → {"images_a": [N, H, W, C], "images_b":
    [N, H, W, C']}, pixels 0 to 255: uint8 of the SavedModel, float32 and not rounded of LiteRT files.
"""

import importlib.metadata
import json
import textwrap

import keras
import numpy as np
import tensorflow as tf

import tfi2i
from tfi2i import checkpoints, files, pictures
from tfi2i.config import DIRECTIONS, UserError
from tfi2i.data import images
from tfi2i.levels import to_levels

from . import SAMPLE, image_bytes, quantization, verify

# Formats whose scales need no pictures to be set by.
FORMATS = ("saved_model", "float32", "float16", "dynamic")
_DRAWN, _SHOWN = 64, 8


def check_direction(model, direction):
    """Refuses a direction of a method that translates by a search, and pairs of one that draws none.

    Raises:
        UserError: this cannot be exported.
    """
    if model.latent_size is not None and direction in DIRECTIONS:
        raise UserError(
            f"--direction={direction}: {model.name} translates by a search for the noise that generates a picture, "
            f"which no file holds: export what draws pairs, with --direction={SAMPLE}, and translate with "
            "tfi2i translate"
        )
    if model.latent_size is not None and direction != SAMPLE:
        raise UserError(f"--direction={direction}: expected {SAMPLE}, which is all that {model.name} exports")
    if model.latent_size is None and direction == SAMPLE:
        raise UserError(
            f"--direction={SAMPLE}: {model.name} draws no pairs from noise: give one of {', '.join(model.directions)}"
        )


def check(model, formats):
    """Refuses formats that need pictures, and a model that does not compute in float32.

    Raises:
        UserError: this cannot be exported.
    """
    wrong = [kind for kind in formats if kind not in FORMATS]
    if wrong or not formats:
        raise UserError(
            f"--formats={','.join(formats)}: of what draws pairs there are {', '.join(FORMATS)}; the scales of the "
            "others are set by pictures, and this takes none"
        )
    if model.dtype_policy.compute_dtype != "float32":
        raise UserError(f"the model computes in {model.dtype_policy.compute_dtype}: load it with tfi2i.load")


def write(model, folder, formats, version, floors, log):
    """Writes what draws pairs, and compares the files with the model.

    VERSION/ is the SavedModel, KIND.tflite are the LiteRT files; README.md says how to call them, model.json what they
    take, report.json how close they are, and report.png shows what they draw.

    Args:
        model: a built `Translator` with a `latent_size` that computes in float32.
        folder: where to write, a `pathlib.Path`.
        formats: some of `FORMATS`.
        version: number of the SavedModel's folder.
        floors: dict of format → (least PSNR in dB of all images pooled, of the worst image).
        log: function that is told lines of text.

    Returns:
        dict, the content of report.json.
    """
    kinds = [kind for kind in formats if kind != "saved_model"]
    float32 = convert(model) if kinds else None
    for kind in kinds:
        file = float32 if kind == "float32" else quantization.quantize(float32, kind)
        (folder / f"{kind}.tflite").write_bytes(file)
    if "saved_model" in formats:
        write_saved_model(model, folder / str(version))
    report = _verify(model, folder, formats, version, floors)
    _describe(model, folder, formats, version, report)
    for kind, result in report["formats"].items():
        log(f"{kind}: PSNR in dB {_decibels(result)}, of the worst image {_decibels(result['worst'])}")
    return report


def _pixels(model, z):
    """Pairs as float32 pixels, 0 to 255: dict of "images_a" and "images_b"."""
    pair = model.draw_pairs(z)
    return {f"images_{domain}": to_levels(x, model.value_range) for domain, x in zip("ab", pair)}


def write_saved_model(model, folder):
    """Writes the SavedModel into `folder`, which is named by its version."""

    def sample(z):
        return {name: image_bytes.levels(x, tf.uint8) for name, x in _pixels(model, z).items()}

    archive = keras.export.ExportArchive()
    noise = tf.TensorSpec([None, model.latent_size], tf.float32, name="z")
    archive.add_endpoint(SAMPLE, sample, input_signature=[noise])
    archive.write_out(str(folder), verbose=False)


def convert(model):
    """The float32 LiteRT file, as bytes; it takes one draw, or with a resized input several."""
    from . import litert

    noise = tf.TensorSpec([1, model.latent_size], tf.float32, name="z")
    return litert.from_function(lambda z: _pixels(model, z), [noise], SAMPLE)


def _verify(model, folder, formats, version, floors):
    """The report on the files in `folder`; writes report.png."""
    noise = model.draw_latents(0, _DRAWN)
    report = {"method": model.name, "direction": SAMPLE, "pairs": _DRAWN, "passed": True, "formats": {}}
    candidates = {}
    for kind in formats:
        if kind == "saved_model":
            candidates[kind] = tf.saved_model.load(str(folder / str(version))).signatures[SAMPLE]
        else:
            candidates[kind] = verify.signature_runner(folder / f"{kind}.tflite", verify.threads())
    scores = {kind: verify.Score() for kind in formats}
    shown = []
    for i, z in enumerate(noise):
        expected = {name: x.numpy() for name, x in _pixels(model, tf.constant(z[None])).items()}
        for kind, run in candidates.items():
            drawn = run(z=tf.constant(z[None]) if kind == "saved_model" else z[None])
            for name, reference in expected.items():
                scores[kind].add(f"{name} of draw {i}", reference, np.asarray(drawn[name]))
        shown.append([np.rint(np.clip(x[0], 0, 255)).astype(np.uint8) for x in expected.values()])
    for kind, score in scores.items():
        path = folder / (str(version) if kind == "saved_model" else f"{kind}.tflite")
        faults = verify.floor_faults(kind, score, None, floors[kind])
        pooled, worst = floors[kind]
        size = sum(f.stat().st_size for f in ([path] if path.is_file() else path.rglob("*")) if f.is_file())
        result = {**score.summary(), "floor": pooled, "worst_floor": worst, "bytes": size, "faults": faults}
        report["formats"][kind] = result
        report["passed"] &= not faults
    columns = [np.stack(column) for column in zip(*shown[:_SHOWN])]
    images.write_image(folder / "report.png", pictures.page(columns, ["drawn A", "drawn B"]))
    return report


def _describe(model, folder, formats, version, report):
    """Writes report.json, model.json and README.md."""
    written = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "report.png")
    shapes = {f"images_{d}": [None, *model.sizes.fixed, model.channels_of(d)] for d in "ab"}
    sidecar = {
        "method": model.name,
        "direction": SAMPLE,
        "checkpoint_step": getattr(model, "checkpoint_step", None),
        "signature": SAMPLE,
        "z": {"shape": [None, model.latent_size], "dtype": "float32", "drawn_from": "N(0, 1)"},
        "returns": {name: {"shape": shape, "range": [0, 255]} for name, shape in shapes.items()},
        "licenses": getattr(model, "licenses", None),
        "sha256": {str(p.relative_to(folder)): checkpoints.sha256(p) for p in written},
        "versions": {"tfi2i": tfi2i.__version__}
        | {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "ai-edge-litert")},
    }
    for name, content in (("report.json", report), ("model.json", sidecar)):
        files.write_text(folder / name, json.dumps(content, indent=2) + "\n")
    rows = []
    for kind, result in report["formats"].items():
        file = version if kind == "saved_model" else f"{kind}.tflite"
        rows.append(f"| `{file}` | {result['bytes'] / 2**20:.2f} | {_decibels(result)} |")
    files.write_text(
        folder / "README.md",
        _README.format(
            method=model.name,
            size=model.latent_size,
            pairs=report["pairs"],
            rows="\n".join(rows),
            example=_of_saved_model(model, version) if "saved_model" in formats else _of_litert(model, formats[0]),
        ),
    )


def _decibels(result):
    return "exact" if result["psnr"] is None else f"{result['psnr']:.1f}"


_README = """\
# {method}: pairs from noise

These files draw pairs of images, one of each domain, from {size} numbers that are drawn from N(0, 1). They translate no
pictures: {method} does that by a search, `tfi2i translate`. Pixels come out as levels from 0 to 255, uint8 of the
SavedModel, float32 and not rounded of LiteRT files.

`tfi2i export` compared each file with the model on {pairs} pairs:

| file | MiB | PSNR dB |
|---|---|---|
{rows}

![Pairs that the model draws](report.png)

```python
{example}
```
"""


def _of_saved_model(model, version):
    return textwrap.dedent(f"""\
        import tensorflow as tf

        sample = tf.saved_model.load("{version}").signatures["{SAMPLE}"]
        pairs = sample(z=tf.random.normal([4, {model.latent_size}]))
        images_a, images_b = pairs["images_a"].numpy(), pairs["images_b"].numpy()""")


def _of_litert(model, kind):
    return textwrap.dedent(f"""\
        import numpy as np
        from ai_edge_litert.interpreter import Interpreter

        sample = Interpreter("{kind}.tflite").get_signature_runner("{SAMPLE}")
        pair = sample(z=np.random.normal(size=(1, {model.latent_size})).astype("float32"))
        image_a, image_b = pair["images_a"][0], pair["images_b"][0]""")
