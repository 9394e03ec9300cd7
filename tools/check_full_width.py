"""Compares official PyTorch networks of the published widths with what tfi2i.convert and tfi2i.export make of them.

    python tools/check_full_width.py --method=uvcgan2 --network=v2 --folder=FOLDER --checkout=CHECKOUT
    python tools/check_full_width.py --method=uvcgan2 --folder=FOLDER

The first writes a checkpoint of random weights as the official code does, and its answers to two random images of
256x256; --network is one of FULL_WIDTH in tools/golden/METHOD.py. It needs what tools/make_golden.py does: an
environment with torch, and the official code's checkout. The second needs tfi2i and no torch: it converts and exports,
as a user would, and prints the largest differences, in the units of the method's range. What the SavedModel gives is
read from PNG files of 16 bits, half a step of which is 1.5e-5 (of a range of 2).
"""

import importlib
import pathlib
import shutil
import subprocess
import sys

import numpy as np
from absl import app, flags

SIDE = 256
DIRECTIONS = ("a2b", "b2a")
LIMITS = {"Keras": 1e-4, "SavedModel": 1e-4, "float32 LiteRT": 1e-3}


FLAGS = flags.FLAGS
flags.DEFINE_string("method", None, "whose network to check: a module of tools/golden with FULL_WIDTH", required=True)
flags.DEFINE_string("network", None, "which of its networks to write [the first]")
flags.DEFINE_string("folder", None, "where checkpoint, answers and all that is made of them go", required=True)
flags.DEFINE_string("checkout", None, "folder of the official PyTorch code: write checkpoint and answers [compare]")
flags.DEFINE_list("formats", ["saved_model", "float32"], "what to export; LiteRT of the full U-GAT-IT wants 10 GiB")


def write(method, network, checkout, folder):
    """Writes a checkpoint and the official answers.

    Args:
        method: a module of tools/golden, whose FULL_WIDTH has functions (checkout, folder) that write a checkpoint into
            `folder` and return the official translations of [1, 3, H, W], both ways.
        network: a name in FULL_WIDTH, or None.
        checkout: folder of the official code.
        folder: where all goes.
    """
    import torch
    from golden.common import to_numpy, to_torch
    from PIL import Image

    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, numpy {np.__version__}")
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    for path in (folder / "checkpoint", folder / "pictures" / "testA"):
        path.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "pictures" / "testA" / f"{i}.png")
    recorder = importlib.import_module(f"golden.{method}")
    network = network or next(iter(recorder.FULL_WIDTH))
    if network not in recorder.FULL_WIDTH:
        raise app.UsageError(f"--network={network}: {method} has {', '.join(recorder.FULL_WIDTH)}.")
    arrays = {"pixels": pixels, "low": np.float32(recorder.LOW)}
    official = recorder.FULL_WIDTH[network](checkout, folder / "checkpoint")
    images = (pixels / 255 * (1 - recorder.LOW) + recorder.LOW).astype(np.float32)
    with torch.no_grad():
        for direction, translate in zip(DIRECTIONS, official, strict=True):
            arrays[direction] = np.concatenate([to_numpy(translate(to_torch(x[None]))) for x in images])
            print(f"{direction}: deviation {arrays[direction].std():.3f}")
    np.savez(folder / "answers.npz", **arrays)


def make(command, *arguments):
    subprocess.run([sys.executable, "-m", f"tfi2i.{command}", *arguments], check=True)


def compare(method, folder):
    """Prints the table; returns whether all is within the limits."""
    run, exported = folder / "run", folder / "exported"
    for path in (run, exported):
        shutil.rmtree(path, ignore_errors=True)
    make("convert", f"--source={folder / 'checkpoint'}", f"--run_dir={run}")
    make(
        "export",
        f"--run_dir={run}",
        f"--output={exported}",
        f"--data={folder / 'pictures'}",
        f"--size={SIDE}",
        f"--formats={','.join(FLAGS.formats)}",
        "--io=float32",
    )

    import tensorflow as tf
    from tfi2i.export.verify import LiteRT

    import tfi2i

    def by_saved_model(x):
        deep = tf.io.encode_png(x[0].astype(np.uint16) * 257)
        png = served.signatures["image_bytes"](image_bytes=deep[None])["image_bytes"][0]
        return tf.io.decode_png(png, dtype=tf.uint16)[None].numpy() / 65535

    answers = np.load(folder / "answers.npz")
    start = float(answers["low"])
    pixels, scale = answers["pixels"], 1 - start
    model = tfi2i.load(run)
    if tuple(model.value_range) != (start, 1):
        raise ValueError(f"range {model.value_range}, expected {start} to 1.")
    images = (pixels / 255 * scale + start).astype(np.float32)
    translated = {f"Keras {d}": [model.translate(x[None], d) for x in images] for d in DIRECTIONS}
    del model
    if "saved_model" in FLAGS.formats:
        served = tf.saved_model.load(str(exported / "1"))
        translated["SavedModel a2b"] = [by_saved_model(x[None]) * scale + start for x in pixels]
    if "float32" in FLAGS.formats:
        lite = LiteRT(exported / "float32.tflite", 1)
        translated["float32 LiteRT a2b"] = [lite(x[None]) / 255 * scale + start for x in pixels]
    good = True
    for name, outputs in translated.items():
        what, direction = name.rsplit(" ", 1)
        worst = np.max(np.abs(np.concatenate(outputs).astype(np.float64) - answers[direction]))
        good &= bool(worst <= LIMITS[what])
        print(f"{method:16s}{name:24s}{worst:10.2e}   limit {LIMITS[what]:.0e}")
    return good


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}: use --method=NAME --folder=FOLDER.")
    folder = pathlib.Path(FLAGS.folder).resolve()
    if FLAGS.checkout:
        write(FLAGS.method, FLAGS.network, pathlib.Path(FLAGS.checkout).resolve(), folder)
    elif not compare(FLAGS.method, folder):
        sys.exit("not within the limits")


if __name__ == "__main__":
    app.run(main)
