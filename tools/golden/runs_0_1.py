"""Records what version 0.1 wrote and computed, for tests/test_version_0_1.py: later versions must go on from there.

It runs with version 0.1 alone, in a checkout of that version (commit 8fb433d) and that checkout's environment:

    cd CHECKOUT
    .venv/bin/python REPOSITORY/tools/golden/runs_0_1.py --output=REPOSITORY/tests/golden/runs_0.1

tests/golden/README.md says what the files hold. The networks are as narrow as possible, because training state does not
compress.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import tfi2i
from tfi2i import config
from tfi2i.training import loop

FLAGS = flags.FLAGS
flags.DEFINE_string("output", None, "folder for the archives and configs.json", required=True)
flags.DEFINE_multi_string("only", None, "record these runs alone, and no configs.json")

# A run stops after this many steps; the answers are of as many further ones.
STEPS = 3
COMMON = {"batch_size": 2, "lr_schedule": "constant", "seed": 7, "precision": "float32", "log_every": 1}
SMALL = COMMON | {"data": "emoji", "resize": (18, 18), "crop": (16, 16)}
VIT = {
    "generator_width": 1, "generator_levels": 1, "vit_width": 4, "vit_heads": 2, "vit_blocks": 1, "vit_ffn_width": 4,
    # ReZero and narrow layers hold changes back; a faster rate lets every weight move.
    "init": "kaiming", "learning_rate": 1e-3,
}  # fmt: skip
JUDGES = {"discriminator_width": 1, "discriminator_layers": 2}
# Name of the run: (method, flags). Every kind of state is in one of them: image pools, running statistics of batch
# norm (adaptation), vectors of spectral norm, averages of generators, caches of features, the rate of a schedule.
RUNS = {
    "cyclegan": (
        "cyclegan",
        SMALL | JUDGES | {"generator": "resnet_6blocks", "generator_width": 1, "pool_size": 3},
    ),
    "unit": (
        "unit",
        SMALL | {"generator_width": 1, "discriminator_width": 1, "discriminator_layers": 3, "lr_schedule": "halving",
                 "lr_halving_steps": 2},
    ),
    "unit_2018": (
        "unit",
        SMALL | {"unit_variant": "2018", "generator_width": 1, "discriminator_width": 1, "discriminator_layers": 2,
                 "discriminator_scales": 2},
    ),
    "ugatit": (
        "ugatit",
        SMALL | {"light": True, "generator_width": 1, "residual_blocks": 1, "discriminator_width": 1,
                 "local_layers": 3, "global_layers": 3},
    ),
    "uvcgan2": (
        "uvcgan2",
        SMALL | VIT | JUDGES | {"consistency_size": 8, "cache_size": 2, "pool_size": 2, "ema_momentum": 0.75},
    ),
    "uvcgan": ("uvcgan", SMALL | VIT | JUDGES | {"pool_size": 3}),
    "pretraining": (
        "uvcgan2",
        SMALL | VIT | {"task": "pretrain", "mask_patch": 4, "lr_schedule": "cosine_restarts", "lr_restart_steps": 4},
    ),
    "adaptation": (
        "adaptation",
        COMMON | {"source": "optdigits", "target": "optdigits", "target_inverted": True, "generator_width": 1,
                  "discriminator_width": 1},
    ),
}  # fmt: skip
KERAS_FILES = ("cyclegan", "unit", "ugatit", "uvcgan2", "uvcgan")
# Of these files the answers include two steps of learning, which is what takes time in the tests.
KERAS_STEPS = {"cyclegan": 2, "uvcgan2": 2}
# What a line of log.jsonl says of the machine.
OF_THE_MACHINE = ("event", "images_per_second", "peak_memory_gib")
as_numpy = keras.ops.convert_to_numpy


def state(model):
    """Every variable of a model and its optimizers, by path."""
    found = {v.path: as_numpy(v) for v in model.variables}
    for role in ("generator", "discriminator"):
        found |= {f"{role} {v.path}": as_numpy(v) for v in getattr(model, f"{role}_optimizer").variables}
    return found


def named(prefix, arrays):
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def record_run(name, output):
    """Writes NAME.tar.xz: a run that has stopped, a .keras file of its model, and what both do from there on."""
    method, given = RUNS[name]
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        run_dir, later = folder / "run", folder / "later"
        model = loop.train(config.resolve(method, given | {"steps": STEPS}), run_dir)
        shutil.rmtree(run_dir / "samples")
        shutil.rmtree(run_dir / "train")
        (run_dir / ".lock").unlink()
        answers = named("before", state(model))
        if name in KERAS_FILES:
            model.save(folder / "model.keras")

        # As the tests do, for which tracing takes too long: on one machine the answers are theirs bit for bit. Traced
        # steps differ by rounding alone.
        tf.config.run_functions_eagerly(True)
        answers |= translations(run_dir, draw)
        if name in KERAS_FILES:
            answers |= named("keras", answers_of_keras_file(folder / "model.keras", draw, KERAS_STEPS.get(name, 0)))
        shutil.copytree(run_dir, later)
        model = loop.train(config.resolve(method, given | {"steps": 2 * STEPS}), later)
        tf.config.run_functions_eagerly(False)
        lines = [json.loads(line) for line in (later / "log.jsonl").read_text().splitlines()]
        lines = [line for line in lines if line["event"] == "step"][-STEPS:]
        logged = [key for key in lines[0] if key not in OF_THE_MACHINE]
        answers |= named("log", {key: np.array([line[key] for line in lines]) for key in logged})
        answers |= named("after", state(model))
        # Not compressed, so that the archive's compression finds what the checkpoint holds too.
        np.savez(folder / "answers.npz", **answers)
        shutil.rmtree(later)
        pack(folder, output / f"{name}.tar.xz")


def translations(run_dir, draw):
    """Random pixels, uint8 [1, H, W, C], and what the run makes of them in both directions."""
    model = tfi2i.load(run_dir)
    side = 32 if model.run.method == "adaptation" else 16
    pixels = draw.integers(0, 256, (1, side, side, model.channels_a), np.uint8)
    return {"pixels": pixels} | named("translated", {d: model.translate(pixels, d) for d in ("a2b", "b2a")})


def answers_of_keras_file(path, draw, steps):
    """A prediction, and the losses of `steps` steps; of random images, float32 [N, H, W, C] and [step, N, H, W, C]."""
    model = keras.models.load_model(path)
    low, high = model.value_range

    def images(*shape):
        return (low + (high - low) / 8 * draw.integers(0, 9, (*shape, 16, 16, 3))).astype(np.float32)

    shown = images(1)
    answers = {"shown": shown, "predicted": model.predict(shown, verbose=0)}
    if steps:
        learned_a, learned_b = images(steps, 2), images(steps, 2)
        history = [model.train_step((tf.constant(a), tf.constant(b))) for a, b in zip(learned_a, learned_b)]
        losses = {key: np.array([float(step[key]) for step in history]) for key in history[0]}
        answers |= {"learned_a": learned_a, "learned_b": learned_b} | named("losses", losses)
    return answers


def pack(folder, archive):
    """Packs a folder's content without owners and times, which would be those of this machine."""

    def anonymous(member):
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for path in sorted(folder.iterdir()):
            packed.add(path, path.name, filter=anonymous)
    print(f"{archive.name:30s}{archive.stat().st_size / 1024:8.1f} KiB")


def record_configs(output):
    """Writes configs.json: of each method what its bare name resolves to, of each flagfile what is other than that."""
    root = pathlib.Path(tfi2i.__file__).resolve().parents[1]

    def resolved(command, *arguments):
        line = [sys.executable, "-m", f"tfi2i.{command}", "--run_dir=x", "--dry_run", *arguments]
        return json.loads(subprocess.run(line, cwd=root, capture_output=True, text=True, check=True).stdout)

    methods = {method: resolved("train", f"--method={method}") for method in config.METHODS}
    methods["adaptation"] = resolved("adapt")
    files = {}
    for path in sorted((root / "configs").rglob("*.flags")):
        file = path.relative_to(root).as_posix()
        command = "adapt" if "tfi2i.adapt " in path.read_text().partition("\n")[0] else "train"
        run = resolved(command, f"--flagfile={file}")
        files[file] = {"method": run["method"]}
        for part, default in methods[run["method"]].items():
            if part != "method":
                files[file][part] = {key: value for key, value in run[part].items() if value != default[key]}
    texts = []
    for title, entries in (("methods", methods), ("flagfiles", files)):
        rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
        texts.append(f'"{title}": {{\n{rows}\n}}')
    path = output / "configs.json"
    path.write_text("{\n" + ",\n".join(texts) + "\n}\n")
    print(f"{path.name:30s}{path.stat().st_size / 1024:8.1f} KiB")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}: use --output=FOLDER")
    if tfi2i.__version__ != "0.1.0":
        raise app.UsageError(f"this is tfi2i {tfi2i.__version__}: run it in a checkout of 0.1.0")
    output = pathlib.Path(FLAGS.output).resolve()
    output.mkdir(parents=True, exist_ok=True)
    for name in FLAGS.only or RUNS:
        record_run(name, output)
    if not FLAGS.only:
        record_configs(output)


if __name__ == "__main__":
    app.run(main)
