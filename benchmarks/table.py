"""What a training step of every method costs, and with the authors' code at hand, how that compares.

  python -m benchmarks.table --output=runs/table.jsonl
  python -m benchmarks.table --output=runs/table.jsonl --official=CHECKOUTS --official_python=TORCH/bin/python

Each measurement is a process of its own: `benchmarks.train_step` here, and with --official `benchmarks/official.py`,
once as it is and once with the networks compiled by torch.compile. They take turns, --rounds times; a ratio is of the
two measurements of one round, and the table has the median over rounds. CHECKOUTS has a folder or a link for each row,
such as CHECKOUTS/cyclegan and CHECKOUTS/unit_2018, at the commit that the recorder in tools/golden names. These columns
stay empty for rows without one, and for rows and precisions that ROWS and PRECISIONS of `benchmarks/official.py` do not
have: only code in PyTorch whose step a recorder can call is run.

Measurements are added to --output as they come, so that the same command goes on after any end, and tries again what
failed. CartoonGAN needs the weights of VGG19, which Keras downloads. A whole table takes hours; --rows, --sizes,
--batches and --precisions take parts of it. Leave the machine alone meanwhile.
"""

import json
import pathlib
import statistics
import subprocess
import sys

from absl import flags

from benchmarks import official
from tfi2i import command
from tfi2i.config import UserError
from tfi2i.methods import trained_by

# Further rows: variants that cost something else.
VARIANTS = {"unit_2018": ("--method=unit", "--unit_variant=2018"), "ugatit_light": ("--method=ugatit", "--light")}
ROWS = {name: (f"--method={name}",) for name in trained_by("train")} | VARIANTS
OURS, OFFICIAL, COMPILED = "ours", "official", "official, compiled"


def define_flags(values):
    """Declares the flags of this command."""
    flags.DEFINE_list("rows", list(ROWS), f"which of {', '.join(ROWS)}", flag_values=values)
    flags.DEFINE_list("sizes", ["128", "256"], "sides of the images", flag_values=values)
    flags.DEFINE_list("batches", ["1", "4"], "batch sizes", flag_values=values)
    flags.DEFINE_list("precisions", ["float32", "mixed_bfloat16"], "precisions", flag_values=values)
    flags.DEFINE_integer("rounds", 1, "how often everything is measured", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("repeats", 5, "steps to time in each process", lower_bound=1, flag_values=values)
    flags.DEFINE_string("output", "runs/table.jsonl", "file of the measurements", flag_values=values)
    flags.DEFINE_string("official", None, "folder of checkouts of the authors' code", flag_values=values)
    flags.DEFINE_string(
        "official_python", None, "Python with torch, numpy, Pillow and absl-py, for --official", flag_values=values
    )
    flags.DEFINE_bool("compiled", True, "with --official, measure torch.compile too", flag_values=values)


def main(_):
    """Measures what is not in --output yet, prints the table."""
    values = flags.FLAGS
    check_rows(values.rows)
    if bool(values.official) != bool(values.official_python):
        raise UserError("--official and --official_python belong together: give both or neither")
    output = pathlib.Path(values.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    found = read(output)
    for turn in range(values.rounds):
        for case in cases(values):
            for who, line in commands(case, values):
                key = (*case, who, turn)
                if "error" in found.get(key, {"error": "not measured"}):
                    found[key] = measured(line)
                    with output.open("a", encoding="utf-8") as file:
                        file.write(json.dumps([key, found[key]]) + "\n")
    print(table(found, cases(values)))
    for key, value in found.items():
        if "error" in value:
            print(f"{' '.join(map(str, key[:-1]))}: {value['error']}")


def check_rows(rows):
    """Raises `UserError`: one of these is no row."""
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        raise UserError(f"--rows={','.join(rows)}: {unknown[0]} is none of {', '.join(ROWS)}")


def flags_of(row, size):
    """The flags of `tfi2i train` for a row, with images of this side; a U-Net brings its size down to one pixel."""
    return [*ROWS[row], *([f"--generator=unet_{size}"] if row == "pix2pix" else [])]


def cases(values):
    """Tuples (row, side, batch size, precision)."""
    return [
        (row, int(size), int(batch), precision)
        for row in values.rows
        for size in values.sizes
        for batch in values.batches
        for precision in values.precisions
    ]


def commands(case, values):
    """List of (who, command line) that measure a case in one round."""
    row, size, batch, precision = case
    same = [f"--size={size}", f"--batch={batch}", f"--precision={precision}", f"--repeats={values.repeats}"]
    lines = [(OURS, [sys.executable, "-m", "benchmarks.train_step", *flags_of(row, size), *same, "--json"])]
    checkout = pathlib.Path(values.official or "", row)
    known = row in official.ROWS and precision in official.PRECISIONS
    if not values.official or not known or not checkout.is_dir():
        return lines
    program = str(pathlib.Path(__file__).with_name("official.py"))
    theirs = [values.official_python, program, f"--method={row}", f"--checkout={checkout}", *same]
    return [*lines, (OFFICIAL, theirs), *([(COMPILED, [*theirs, "--compile"])] if values.compiled else [])]


def measured(line):
    """What a command prints as its last line; {"error": …} where it failed."""
    print(" ".join(line), file=sys.stderr, flush=True)
    done = subprocess.run(line, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {"error": said[-1][:300] if said else f"ended with status {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def read(path):
    """dict of (row, side, batch size, precision, who, round) → measurement, of an earlier run of the command."""
    if not path.is_file():
        return {}
    return {tuple(key): value for key, value in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def table(found, cases):
    """Markdown: a line for each case.

    Args:
        found: as of `read`.
        cases: as of the function of that name.
    """
    whose = [who for who in (OFFICIAL, COMPILED) if any(key[-2] == who for key in found)]
    heads = ["method", "px", "batch", "precision", "s a step", "images/s", "share of peak", "first step, s", "GiB"]
    heads += [f"{who}: {what}" for who in whose for what in ("s a step", "times ours", "GiB")]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for case in cases:
        rounds = {
            who: {k[-1]: v for k, v in found.items() if k[:-1] == (*case, who) and "error" not in v}
            for who in (OURS, *whose)
        }
        ours = rounds[OURS]
        if ours:
            seconds = _median(ours, lambda v: v["ms"] / 1e3)
            share = _median(ours, lambda v: 1e3 * v["gflop"] / v["ms"] / v["peak"])
            first, memory = (_median(ours, lambda v, name=name: v[name]) for name in ("first", "memory"))
            cells = [f"{seconds:.3g}", f"{case[2] / seconds:.3g}", f"{share:.0%}", f"{first:.1f}", f"{memory:.2f}"]
        else:
            cells = ["–"] * 5
        for who in whose:
            pairs = [rounds[who][i]["ms"] / ours[i]["ms"] for i in ours if i in rounds[who]]
            if not pairs:
                cells += ["–"] * 3
                continue
            spread = f" ({min(pairs):.2f} to {max(pairs):.2f})" if len(pairs) > 1 else ""
            memory = _median(rounds[who], lambda v: v["memory"])
            cells += [f"{_median(rounds[who], lambda v: v['ms'] / 1e3):.3g}"]
            cells += [f"{statistics.median(pairs):.2f}{spread}", f"{memory:.2f}"]
        lines.append(f"| {' | '.join([*map(str, case), *cells])} |")
    return "\n".join(lines)


def _median(measurements, of):
    return statistics.median(map(of, measurements.values()))


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    command.run(main)
