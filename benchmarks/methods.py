"""All methods on the bundled drawings, for equal time on one core and with several seeds.

The table in docs/explanation/results.md is of this command:

  python -m benchmarks.methods --output=runs/methods --seeds=0,1,2

Every configs/METHOD/emoji*.flags is a row, trained after its emoji_pretrain.flags where there is one. Trains what is
not trained yet (ten minutes a run on one idle core; broken off, the same command goes on), measures every run on the
test pairs, and prints means over seeds with the lowest and the highest value. --rows takes some of them, so that two
processes can share the work; --measure_only trains nothing.
"""

import json
import pathlib
import subprocess
import sys

from absl import flags

from benchmarks.common import python
from tfi2i import command, run_directory
from tfi2i.config import DIRECTIONS, UserError
from tfi2i.methods import trained_by
from tfi2i.metrics import columns, tables

CONFIGS = pathlib.Path("configs")
# Steps that take about ten minutes in all on one core of an AMD EPYC with AVX512-BF16, where they are not the
# flagfile's own.
STEPS = {"unit/emoji": 3900, "unit/emoji_2018": 2650, "ugatit/emoji": 2700, "uvcgan2/emoji": 2500}
METRICS = ("kid", "l1", "pixel_accuracy")
# One preparation for all rows: methods differ in the filter that their own code resizes with.
PREPARATION = ("--size=64", "--filter=bicubic")


def rows():
    """Names of all rows, METHOD/FLAGFILE."""
    files = [path for method in trained_by("train") for path in sorted((CONFIGS / method).glob("emoji*.flags"))]
    return [f"{path.parent.name}/{path.stem}" for path in files if not path.stem.endswith("_pretrain")]


def define_flags(values):
    """Declares the flags of this command."""
    flags.DEFINE_string("output", "runs/methods", "folder of the run directories", flag_values=values)
    flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds to train with", flag_values=values)
    flags.DEFINE_list("rows", None, f"which of {', '.join(rows())} (default: all)", flag_values=values)
    flags.DEFINE_bool(
        "measure_only", False, "train nothing; leave out what is not trained to its end", flag_values=values
    )


def steps(row):
    """How many steps a flagfile is trained for."""
    if row in STEPS:
        return STEPS[row]
    command = [
        sys.executable,
        "-m",
        "tfi2i.train",
        f"--flagfile={CONFIGS / row}.flags",
        "--run_dir=-",
        "--print_config",
    ]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["training"]["steps"]


def run_dir(root, row, seed):
    """Where a flagfile is trained."""
    return root / f"{row.replace('/', '_')}_{seed}"


def is_trained(root, row, seed):
    """Whether a run directory holds the checkpoint of its last step."""
    return run_directory.checkpoint_folder(run_dir(root, row, seed), steps(row)).is_dir()


def train(root, row, seed):
    """Trains a flagfile that is not trained to its end, and before it the pre-training beside it."""
    before, start = f"{pathlib.PurePosixPath(row).parent}/emoji_pretrain", []
    if row != before and (CONFIGS / f"{before}.flags").is_file():
        train(root, before, seed)
        start = [f"--pretrained={run_dir(root, before, seed)}"]
    if not is_trained(root, row, seed):
        given = [f"--flagfile={CONFIGS / row}.flags", f"--steps={steps(row)}", f"--seed={seed}"]
        python("tfi2i.train", *given, *start, f"--run_dir={run_dir(root, row, seed)}")


def measure(run):
    """direction → measured values of a run's last step on the test pairs."""
    python("tfi2i.evaluate", f"--run_dir={run}", f"--metrics={','.join(METRICS)}", *PREPARATION)
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))["directions"]


def table(results):
    """Markdown: a line for each row.

    Args:
        results: row → list of `measure`, one of each seed.
    """
    measured = {name: columns()[name] for name in METRICS}
    every = [of_seed for of_seeds in results.values() for of_seed in of_seeds]
    by_direction = {d: values for of_seed in reversed(every) for d, values in of_seed.items()}
    first = [of_seed["model"] for of_seed in by_direction.values()]
    heads = [f"{d}: {tables.heading(name, first)}" for d in DIRECTIONS for name in measured]
    lines = [f"| | seeds | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]

    def line(name, of_seeds, key):
        cells = [name, str(len(of_seeds))]
        for direction in DIRECTIONS:
            for name, column in measured.items():
                values = [of_seed[direction][key] for of_seed in of_seeds if direction in of_seed]
                if not values:  # of a method that learns one direction
                    cells.append("–")
                    continue
                values = [v[tables.key_of(v, name)] for v in values]
                low, mean, high = map(column.text, (min(values), sum(values) / len(values), max(values)))
                cells.append(mean if low == high else f"{mean} ({low} to {high})")
        lines.append("| " + " | ".join(cells) + " |")

    for row, of_seeds in results.items():
        line(row, of_seeds, "model")
    for key in ("match_moments", "do_nothing"):
        line(tables.NAMES[key], [by_direction], key)
    return "\n".join(lines)


def main(_):
    values = flags.FLAGS
    root, chosen = pathlib.Path(values.output), values.rows or rows()
    unknown = [row for row in chosen if row not in rows()]
    if unknown:
        raise UserError(f"--rows={','.join(chosen)}: {unknown[0]} is none of {', '.join(rows())}")
    results = {}
    for seed in values.seeds:
        for row in chosen:
            if not values.measure_only:
                train(root, row, seed)
            if is_trained(root, row, seed):
                results.setdefault(row, []).append(measure(run_dir(root, row, seed)))
    if not results:
        raise UserError(f"--output={root} has no run that is trained to its end")
    print(table({row: results[row] for row in chosen if row in results}))


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    command.run(main)
