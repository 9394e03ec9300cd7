"""The four methods on the bundled drawings, for equal time on one core and with several seeds: the README's table.

  python -m benchmarks.methods --output=runs/methods --seeds=0,1,2

Trains what is not trained yet (ten minutes a run on one idle core; broken off, the same command goes on), measures
every run on the test pairs, and prints means over seeds with the lowest and the highest value. --methods takes some of
them, so that two processes can share the work; --measure_only trains nothing.
"""

import json
import pathlib
import subprocess
import sys

from absl import flags

from tfi2i import command
from tfi2i.config import UserError
from tfi2i.metrics import report

# Method → flagfiles and steps, trained one after the other: about ten minutes in all on one core of an AMD EPYC with
# AVX512-BF16. A run starts from the one before it.
METHODS = {
    "CycleGAN": [("configs/quickstart.flags", 3500)],
    "UNIT": [("configs/unit/emoji.flags", 3900)],
    "UNIT 2018": [("configs/unit/emoji_2018.flags", 2650)],
    "U-GAT-IT light": [("configs/ugatit/emoji.flags", 2700)],
    "UVCGAN v2": [("configs/uvcgan2/emoji_pretrain.flags", 1500), ("configs/uvcgan2/emoji.flags", 2500)],
}
# Metric → what it is multiplied with, and how it is written.
METRICS = {"kid": (100, "{:.2f}"), "l1": (1, "{:.1f}"), "pixel_accuracy": (100, "{:.1f}")}
DIRECTIONS = ("a2b", "b2a")


def define_flags():
    """Declares the flags of this command."""
    flags.DEFINE_string("output", "runs/methods", "folder of the run directories")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds to train with")
    flags.DEFINE_list("methods", list(METHODS), f"which methods, of {', '.join(METHODS)}")
    flags.DEFINE_bool("measure_only", False, "train nothing; leave out what is not trained to its end")


def run_dir(root, method, seed):
    """Where the last flagfile of a method is trained."""
    return root / f"{method.lower().replace(' ', '_').replace('-', '')}_{seed}"


def is_trained(run, steps):
    """Whether a run directory holds the checkpoint of its last step."""
    return (run / "checkpoints" / f"{steps:08d}").is_dir()


def train(root, method, seed):
    """Trains all flagfiles of a method that are not trained to their end."""
    *before, (flagfile, steps) = METHODS[method]
    target, start = run_dir(root, method, seed), []
    for number, (earlier, count) in enumerate(before):
        run = target.with_name(f"{target.name}_pretrain{number or ''}")
        if not is_trained(run, count):
            _python("tfi2i.train", f"--flagfile={earlier}", f"--steps={count}", f"--seed={seed}", f"--run_dir={run}")
        start = [f"--pretrained={run}"]
    if not is_trained(target, steps):
        given = [f"--flagfile={flagfile}", f"--steps={steps}", f"--seed={seed}", f"--run_dir={target}"]
        _python("tfi2i.train", *given, *start)


def measure(run):
    """direction → measured values of a run's last step on the test pairs."""
    _python("tfi2i.evaluate", f"--run_dir={run}", f"--metrics={','.join(METRICS)}")
    return json.loads((run / "metrics.json").read_text())["directions"]


def table(results):
    """Markdown: a row for each method.

    Args:
        results: method → list of `measure`, one of each seed.
    """
    heads = [f"{d}: {head}" for d in DIRECTIONS for head in ("KID x100", "L1", "% right")]
    lines = [f"| | seeds | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]

    def row(name, of_seeds, key):
        cells = [name, str(len(of_seeds))]
        for direction in DIRECTIONS:
            for metric, (factor, form) in METRICS.items():
                values = [of_seed[direction][key] for of_seed in of_seeds]
                values = [factor * v[report.find(v, metric)] for v in values]
                low, mean, high = (form.format(v) for v in (min(values), sum(values) / len(values), max(values)))
                cells.append(mean if low == high else f"{mean} ({low} to {high})")
        lines.append("| " + " | ".join(cells) + " |")

    for method, of_seeds in results.items():
        row(method, of_seeds, "model")
    # Methods differ in how they resize, and so a little in what doing nothing gives.
    for key in ("match_moments", "do_nothing"):
        row(f"{report.NAMES[key]}, as {next(iter(results))} resizes", next(iter(results.values()))[:1], key)
    return "\n".join(lines)


def _python(module, *arguments):
    shown = f"python -m {module} {' '.join(arguments)}"
    print(shown, flush=True)
    code = subprocess.run([sys.executable, "-m", module, *arguments]).returncode
    if code:
        raise UserError(f"{shown} ended with status {code}")


def main(_):
    values = flags.FLAGS
    root = pathlib.Path(values.output)
    unknown = [m for m in values.methods if m not in METHODS]
    if unknown:
        raise UserError(f"--methods={','.join(values.methods)}: {unknown[0]} is none of {', '.join(METHODS)}")
    results = {}
    for seed in values.seeds:
        for method in values.methods:
            if not values.measure_only:
                train(root, method, seed)
            run = run_dir(root, method, seed)
            if is_trained(run, METHODS[method][-1][1]):
                results.setdefault(method, []).append(measure(run))
    if not results:
        raise UserError(f"--output={root} has no run that is trained to its end")
    print(table({m: results[m] for m in METHODS if m in results}))


if __name__ == "__main__":
    define_flags()
    command.run(main)
