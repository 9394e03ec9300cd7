"""Ends training in rude ways, again and again, and looks whether anything is lost. Takes minutes to hours.

    python tools/long_life.py --what=kills --replicas=1     50 SIGKILLs at random instants, then to the end
    python tools/long_life.py --what=workers                of two processes, one is killed; then the other one
    python tools/long_life.py --what=disk                   the disk fills at a later write each time (root, Linux)

kills: every variable of the last checkpoint (weights, optimizers, pools) is compared bit for bit with that of a run
that nobody disturbed. workers: the process that is left must end by itself with one error line, and both go on from
the last checkpoint. disk: training ends with one error line, and the newest checkpoint is whole, or there is none. The
exit status is 1 where any of this does not hold.
"""

import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_enum("what", None, ["kills", "workers", "disk"], "which way", required=True)
flags.DEFINE_integer("kills", 50, "SIGKILLs")
flags.DEFINE_integer("replicas", 1, "with kills: replicas of the CPU")
flags.DEFINE_integer("steps", 400, "steps of the whole run")
flags.DEFINE_integer("seed", 0, "seeds the instants")
flags.DEFINE_string("folder", None, "where the runs go [a temporary folder]")

TINY = [
    "--data=emoji", "--resize=18", "--crop=16", "--generator=resnet_6blocks", "--generator_width=4",
    "--discriminator_width=4", "--discriminator_layers=1", "--pool_size=3", "--batch_size=2", "--precision=float32",
    "--sample_every=100", "--log_every=10", "--save_every=10", "--keep=2",
]  # fmt: skip


def start(run_dir, *more, environment=None, errors=None):
    command = [sys.executable, "-m", "tfi2i.train", *TINY, f"--run_dir={run_dir}", *more]
    return subprocess.Popen(
        command, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL, stderr=errors
    )


def variables(run_dir):
    """dict of name → array of the newest checkpoint; its description of objects, a string, is left out."""
    import tensorflow as tf

    newest = sorted((pathlib.Path(run_dir) / "checkpoints").iterdir())[-1]
    reader = tf.train.load_checkpoint(str(newest / "state"))
    numeric = [name for name, dtype in reader.get_variable_to_dtype_map().items() if dtype != tf.string]
    return {name: reader.get_tensor(name) for name in numeric}


def kills(folder):
    more = [f"--steps={FLAGS.steps}"]
    if FLAGS.replicas > 1:
        more += ["--strategy=mirrored", f"--replicas={FLAGS.replicas}"]
    began = time.monotonic()
    if start(folder / "whole", *more).wait():
        sys.exit("the undisturbed run failed")
    whole = time.monotonic() - began
    print(f"undisturbed: {whole:.0f} s")
    draw, early, done = random.Random(FLAGS.seed), 0, 0
    while done < FLAGS.kills:
        process = start(folder / "killed", *more)
        try:
            process.wait(timeout=draw.uniform(0, whole))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            done += 1
            continue
        if process.returncode:
            sys.exit(f"after {done} kills training ends with status {process.returncode}")
        early += 1  # finished: what follows is killed while it finds that there is nothing to do
        shutil.rmtree(sorted((folder / "killed" / "checkpoints").iterdir())[-1])
    if start(folder / "killed", *more).wait():
        sys.exit("the last start after all kills failed")
    one, other = variables(folder / "whole"), variables(folder / "killed")
    different = [name for name in one if not np.array_equal(one[name], other.get(name), equal_nan=True)]
    print(
        f"{done} kills ({early} times the run was finished, and its last checkpoint taken away), {len(one)} variables"
    )
    print(f"{len(different)} differ from the undisturbed run's {different[:3]}")
    return not different and one.keys() == other.keys()


def workers(folder):
    def both():
        ports = []
        for _ in range(2):
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                ports.append(f"127.0.0.1:{s.getsockname()[1]}")
        made = []
        for index in range(2):
            cluster = {"cluster": {"worker": ports}, "task": {"type": "worker", "index": index}}
            more = ["--steps=1000000", "--lr_schedule=constant", "--strategy=multi_worker"]
            with open(folder / f"errors{index}", "w") as errors:
                made.append(start(folder / "run", *more, environment={"TF_CONFIG": json.dumps(cluster)}, errors=errors))
        return made

    good, steps = True, []
    for victim in (0, 1):
        processes = both()
        last = steps[-1] if steps else -1
        while not any(s > last for s in _steps(folder / "run")):
            if any(p.poll() is not None for p in processes):
                sys.exit(f"a worker ended before a new checkpoint: {(folder / 'errors0').read_text()[-2000:]}")
            time.sleep(0.5)
        processes[victim].kill()
        killed = time.monotonic()
        try:
            status = processes[1 - victim].wait(timeout=600)
        except subprocess.TimeoutExpired:
            processes[1 - victim].kill()
            status, good = "none: it waits still, and was killed", False
        steps.append(_steps(folder / "run")[-1])
        print(f"worker {victim} killed; the other one ended after {time.monotonic() - killed:.0f} s, status {status}; "
              f"checkpoint {steps[-1]}")  # fmt: skip
        said = (folder / f"errors{1 - victim}").read_text()
        good &= "error: another worker has ended" in said and "Traceback" not in said
        print("  it said:", said.strip().splitlines()[-1:])
    return good and steps[1] > steps[0]


def _steps(run_dir):
    from tfi2i import run_directory

    return run_directory.steps(run_dir)


def disk(folder):
    from tfi2i import checkpoints

    good, size = True, 16
    while size < 100_000:
        place = folder / f"{size}k"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tfi2i", str(place)], check=True)
        try:
            with open(folder / "errors", "w") as errors:
                more = ["--steps=4", "--save_every=1", "--sample_every=1", "--log_every=1", "--keep=2"]
                more += ["--eval_every=2", "--eval_metrics=l1", "--eval_images=2"]
                status = start(place / "run", *more, errors=errors).wait()
            said = (folder / "errors").read_text()
            left = _steps(place / "run")
            whole = [s for s in left if checkpoints.fault(place / "run" / "checkpoints" / f"{s:08d}") is None]
            fine = whole == left and (status == 0 or "Traceback" not in said and "error: " in said)
            good &= fine
            print(f"{size:6d} KiB: status {status}, checkpoints {left}, {'fine' if fine else 'NOT FINE'}; "
                  f"{said.strip().splitlines()[-1][:140] if said.strip() else ''}")  # fmt: skip
        finally:
            subprocess.run(["umount", str(place)], check=True)
        if status == 0:
            return good
        size = int(size * 1.5)
    return False


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}: use --what=kills.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(FLAGS.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not {"kills": kills, "workers": workers, "disk": disk}[FLAGS.what](folder):
            sys.exit("something was lost")
    print("nothing was lost")


if __name__ == "__main__":
    app.run(main)
