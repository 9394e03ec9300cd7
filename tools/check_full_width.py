"""Compares official PyTorch networks of the published widths with what tfi2i.convert and tfi2i.export make of them.

    python tools/check_full_width.py --method=uvcgan2 --folder=FOLDER --checkout=CHECKOUT
    python tools/check_full_width.py --method=uvcgan2 --folder=FOLDER

The first writes a checkpoint of random weights as the official code does, and its answers to two random images of
256x256. It needs what tools/make_golden.py does: an environment with torch, and the official code's checkout. The
second needs tfi2i and no torch: it converts and exports, as a user would, and prints the largest differences, in the
units of the method's range. What the SavedModel gives is read from PNG files of 16 bits, half a step of which is
1.5e-5 (of a range of 2).
"""

import functools
import pathlib
import shutil
import subprocess
import sys

import numpy as np
from absl import app, flags

SIDE = 256
DIRECTIONS = ("a2b", "b2a")
LIMITS = {"Keras": 1e-4, "SavedModel": 1e-4, "float32 LiteRT": 1e-3}


def cyclegan(checkout, folder, kind):
    from golden import common, cyclegan

    (networks,) = common.import_official(checkout, cyclegan.OFFICIAL, cyclegan.COMMIT, ["models.networks"])
    nets = [cyclegan.generator(networks, input_nc=3, output_nc=3, ngf=64, netG=kind, norm="instance")]
    nets.append(common.randomize(networks.define_G(3, 3, 64, kind, "instance"), np.random.default_rng(2)))
    for part, net in zip(("G_A", "G_B"), nets, strict=True):
        save(common.with_statistics(net.eval(), np.random.default_rng(3)), folder / f"latest_net_{part}.pth")
    return nets


def unit_2018(checkout, folder):
    from unittest import mock

    from golden import common, unit_2018

    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in unit_2018.ABSENT}):
        (networks,) = common.import_official(checkout, unit_2018.OFFICIAL, unit_2018.COMMIT, ["networks"])
    config = unit_2018.generator_config(dim=64)
    a, b = (unit_2018.randomize(networks.VAEGen(3, config), seed) for seed in (1, 2))
    rng = np.random.default_rng(3)
    content = {"a": common.with_statistics(a, rng), "b": common.with_statistics(b, rng)}
    save(content, folder / "gen_01000000.pt")
    return [lambda x: b.decode(a.enc(x)), lambda x: a.decode(b.enc(x))]


def unit(checkout, folder, kind):
    import types
    from unittest import mock

    from golden import common, unit

    with mock.patch.dict(sys.modules, {"cv2": types.SimpleNamespace()}):
        modules = ["trainers.cocogan_nets"]
        (networks,) = common.import_official(checkout, unit.OFFICIAL, unit.COMMIT, modules, "src")
    net = getattr(networks, kind)(unit.generator_config(name=kind, ch=64))
    net = common.randomize(net, np.random.default_rng(1)).eval()
    save(common.with_statistics(net, np.random.default_rng(2)), folder / "animals_gen_00500000.pkl")
    return [lambda x: net.forward_a2b(x)[0], lambda x: net.forward_b2a(x)[0]]


def ugatit(checkout, folder, light):
    """Both generators; without the discriminators, of which the converter says that they are not there."""
    from golden import ugatit

    networks, _ = ugatit.official_modules(checkout)
    config = dict(input_nc=3, output_nc=3, ngf=64, n_blocks=4, img_size=SIDE, light=light)
    nets = [ugatit.randomize(networks.ResnetGenerator(**config), np.random.default_rng(i)).eval() for i in (1, 2)]
    content = {name: net.state_dict() for name, net in zip(ugatit.NAMES[:2], nets, strict=True)}
    save(content, folder / "photos_params_1000000.pt")
    return [lambda x, net=net: net(x)[0] for net in nets]


def uvcgan(checkout, folder, version):
    """v1 from the code of v2, which has its networks too; of v2 the generators and their averages, which translate."""
    from golden import uvcgan2

    _, generator, *_ = uvcgan2.import_official(checkout)
    widths = [48, 96, 192, 384]
    config = dict(features=384, n_heads=6, n_blocks=12, ffn_features=1536, embed_features=384, activ="gelu")
    config |= dict(norm="layer", activ_output="sigmoid", input_shape=(3, SIDE, SIDE), output_shape=(3, SIDE, SIDE))
    if version == 1:
        name = "vit-unet"
        config |= dict(unet_features_list=widths, unet_activ="leakyrelu", unet_norm="instance")
    else:
        name = "vit-modnet"
        config |= dict(modnet_features_list=widths, modnet_activ="leakyrelu")
    seeds, nets = iter(range(1, 5)), []
    for part in ("gen",) if version == 1 else ("gen", "avg_gen"):
        nets = []
        for ends in ("ab", "ba"):
            net = uvcgan2.randomize(generator.select_generator(name, **config), np.random.default_rng(next(seeds)))
            # LeakyReLU halves the variance, and without norms the picture would fade.
            for weight in net.parameters():
                weight.data *= 2**0.5 if weight.ndim == 4 else 1
            save(net.state_dict(), folder / f"net_{part}_{ends}.pth")
            nets.append(net.eval())
    return nets


# Method → what writes its checkpoint into a folder and returns the official translations of [1, 3, H, W], both ways.
METHODS = {
    "cyclegan": functools.partial(cyclegan, kind="resnet_9blocks"),
    "cyclegan_unet": functools.partial(cyclegan, kind="unet_256"),
    "unit_2018": unit_2018,
    "unit": functools.partial(unit, kind="COCOResGen"),
    "unit_2": functools.partial(unit, kind="COCOResGen2"),
    "ugatit": functools.partial(ugatit, light=False),
    "ugatit_light": functools.partial(ugatit, light=True),
    "uvcgan": functools.partial(uvcgan, version=1),
    "uvcgan2": functools.partial(uvcgan, version=2),
}

FLAGS = flags.FLAGS
flags.DEFINE_enum("method", None, list(METHODS), "whose network to check", required=True)
flags.DEFINE_string("folder", None, "where checkpoint, answers and all that is made of them go", required=True)
flags.DEFINE_string("checkout", None, "folder of the official PyTorch code: write checkpoint and answers [compare]")
flags.DEFINE_list("formats", ["saved_model", "float32"], "what to export; LiteRT of the full U-GAT-IT wants 10 GiB")


def save(content, path):
    import torch

    torch.save(content, path)
    print(f"{path.name:40s}{path.stat().st_size / 2**20:8.1f} MiB")


def low(method):
    """The lower end of the range of a method's floats; the upper one is 1."""
    return 0 if method.startswith("uvcgan") else -1


def write(method, checkout, folder):
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
    arrays, official = {"pixels": pixels}, METHODS[method](checkout, folder / "checkpoint")
    images = (pixels / 255 * (1 - low(method)) + low(method)).astype(np.float32)
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
    start, scale = low(method), 1 - low(method)
    pixels = answers["pixels"]
    model = tfi2i.load(run)
    if tuple(model.value_range) != (start, 1):
        raise ValueError(f"range {model.value_range}, expected {start} to 1.")
    images = (pixels / 255 * scale + start).astype(np.float32)
    found = {f"Keras {d}": [model.translate(x[None], d) for x in images] for d in DIRECTIONS}
    del model
    if "saved_model" in FLAGS.formats:
        served = tf.saved_model.load(str(exported / "1"))
        found["SavedModel a2b"] = [by_saved_model(x[None]) * scale + start for x in pixels]
    if "float32" in FLAGS.formats:
        lite = LiteRT(exported / "float32.tflite", 1)
        found["float32 LiteRT a2b"] = [lite(x[None]) / 255 * scale + start for x in pixels]
    good = True
    for name, outputs in found.items():
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
        write(FLAGS.method, pathlib.Path(FLAGS.checkout).resolve(), folder)
    elif not compare(FLAGS.method, folder):
        sys.exit("not within the limits")


if __name__ == "__main__":
    app.run(main)
