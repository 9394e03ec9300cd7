"""Compares CartoonGAN's released generators, converted, with figures and pictures of the authors' code.

    python tools/check_cartoongan.py --source=FOLDER --pictures=CHECKOUT

--source is a folder with released weights of any of the four styles: STYLE_net_G_float.pth, or folders STYLE with .npy
files. --pictures is a checkout of github.com/Yijunmaverick/CartoonGAN-Test-Pytorch-Torch at e0414a3, whose
test_output/in{1,2,3}_Hayao.png the Torch7 code made. Three checks, of which each prints lines:

- the output for a picture made by a formula, within 2e-4 of figures computed in PyTorch;
- with Hayao, at least 99.99 % of the published pictures' values, exactly;
- with Hayao, the float32 and int8 LiteRT files against the model, on the published inputs: at least 60 and 30 dB.
"""

import pathlib
import sys
import tempfile

import numpy as np
from absl import app, flags, logging

FLAGS = flags.FLAGS
flags.DEFINE_string("source", None, "folder of released weights", required=True)
flags.DEFINE_string("pictures", None, "checkout with the published pictures [leave these checks out]")

# Means of blue, green, red; standard deviation of all; blue, green, red at row 10, column 20.
FIGURES = {
    "hayao": (-0.41713, -0.21961, 0.01099, 0.51254, 0.06934, 0.33931, 0.17856),
    "hosoda": (0.00246, 0.12663, 0.15042, 0.52467, 0.31283, 0.75337, 0.33775),
    "paprika": (-0.53311, -0.32166, -0.04653, 0.63184, -0.07911, 0.41112, 0.23403),
    "shinkai": (0.14629, 0.00513, 0.14015, 0.59701, 0.88263, 0.87739, 0.65120),
}
LONGER_SIDE, LITERT_SIDE = 450, 256
FLOORS = {"float32": 60, "int8": 30}


def by_formula():
    """float32 [1, 64, 64, 3], red first."""
    y, x = np.meshgrid(np.arange(64.0), np.arange(64.0), indexing="ij")
    blue, green, red = np.sin(0.1 * x + 0.05 * y), np.cos(0.07 * x - 0.11 * y), np.sin(0.013 * x * y / 4)
    return np.stack([red, green, blue], -1)[None].astype(np.float32)


def figures(y):
    """What FIGURES holds, of an output [1, H, W, 3], red first."""
    bgr = y[0, ..., ::-1]
    return np.array([*bgr.mean((0, 1)), bgr.std(), *bgr[10, 20]])


def published_pictures(folder):
    """Yields (name, input as the Torch7 code resized it, float32 [1, h, w, 3] in [-1, 1]; its output, uint8)."""
    import tensorflow as tf
    from PIL import Image

    for name in ("in1", "in2", "in3"):
        pixels = np.asarray(Image.open(folder / "test_img" / f"{name}.png").convert("RGB"), np.float32)
        h, w = pixels.shape[:2]
        size = [side * LONGER_SIDE // max(h, w) for side in (h, w)]
        x = tf.compat.v1.image.resize_bilinear(pixels[None] / 255, size, align_corners=True)
        output = Image.open(folder / "test_output" / f"{name}_Hayao.png").convert("RGB")
        yield name, x * 2 - 1, np.asarray(output)


def litert(model, inputs):
    """dict of kind → dB of a LiteRT file against the model, on squares of `inputs`."""
    import tensorflow as tf
    from tfi2i.export import verify

    from tfi2i import export
    from tfi2i.metrics import faithfulness

    pixels = np.concatenate([tf.image.resize(x * 127.5 + 127.5, (LITERT_SIDE,) * 2) for x in inputs])
    pixels = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    float32 = export.convert(model, "a2b", (LITERT_SIDE,) * 2)
    given = [*pixels[:, None].astype(np.float32)]
    equalised, values = export.calibrate(float32, given, given)
    expected, found = model.translate(pixels), {}
    for kind, file in (("float32", float32), ("int8", export.quantize(equalised, "int8", values))):
        runner = verify.LiteRT(export.with_pixels(file, "uint8"))
        result = np.concatenate([runner(x[None]) for x in pixels])
        found[kind] = faithfulness.decibels(faithfulness.squared_error(result, expected).mean())
    return found


def main(_):
    logging.set_verbosity(logging.WARNING)
    source = pathlib.Path(FLAGS.source)
    styles = {p.name.split("_net_G")[0].lower(): p for p in sorted(source.iterdir())}
    styles = {style: path for style, path in styles.items() if style in FIGURES}
    if not styles:
        raise app.UsageError(f"--source={source} has none of {', '.join(FIGURES)}: expected Hayao_net_G_float.pth …")
    from tfi2i.conversion import exchange

    good = True

    def say(what, passed):
        nonlocal good
        good = good and passed
        print(f"{'good' if passed else 'WRONG'}: {what}", flush=True)

    for style, path in styles.items():
        with tempfile.TemporaryDirectory() as folder:
            model = exchange.convert(path, f"{folder}/run", method="cartoongan", log=lambda _: None)
        difference = np.abs(figures(model.generator(by_formula()).numpy()) - FIGURES[style]).max()
        say(f"{style}: figures differ by {difference:.1e}", difference <= 2e-4)
        if style != "hayao" or not FLAGS.pictures:
            continue
        inputs = []
        for name, x, expected in published_pictures(pathlib.Path(FLAGS.pictures)):
            inputs.append(x)
            y = model.generator(x).numpy()[0]
            if y.shape != expected.shape:
                say(f"{name}: {y.shape[:2]}, published {expected.shape[:2]}", False)
                continue
            equal = (np.floor(255 * np.clip((y + 1) / 2, 0, 1)) == expected).mean()
            say(f"{name}: {equal:.3%} of the published values", equal >= 0.9999)
        for kind, decibels in litert(model, inputs).items():
            say(f"LiteRT {kind}: {decibels:.1f} dB", decibels >= FLOORS[kind])
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    app.run(main)
