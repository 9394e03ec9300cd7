"""What a student's size costs: students of several sizes of one teacher, as a table and a figure.

The figure in docs/how-to/students.md is of this command:

  python -m benchmarks.students --teacher=runs/quickstart --direction=a2b --output=runs/students

It distills what is not distilled yet (broken off, the same command goes on), measures every student and the teacher on
the test pairs, exports the students in full int8 and measures these files too, prints a table in Markdown and writes
OUTPUT/students_DIRECTION.png. --measure_only trains nothing; it measures and exports again what is trained.

Files are timed on one thread, in turns with the teacher's float32 file, by the processor time that they use: other work
on the machine hardly changes it.
"""

import functools
import json
import pathlib
import statistics
import time

from absl import flags

from benchmarks.common import python
from tfi2i import command, machine, run_directory
from tfi2i.config import DIRECTIONS, UserError
from tfi2i.metrics import tables

METRICS = ("l1", "kid")
PICTURES = 6


def define_flags(values):
    """Declares the flags of this command."""
    flags.DEFINE_string("teacher", "runs/quickstart", "run directory of the teacher", flag_values=values)
    flags.DEFINE_enum("direction", "a2b", DIRECTIONS, "the teacher's direction", flag_values=values)
    flags.DEFINE_list(
        "student_macs", ["0.01", "0.02", "0.05", "0.1", "0.2"], "sizes, as of tfi2i distill", flag_values=values
    )
    flags.DEFINE_integer("steps", 1500, "steps of each student", flag_values=values)
    flags.DEFINE_string("output", "runs/students", "folder of the run directories", flag_values=values)
    flags.DEFINE_bool("measure_only", False, "train nothing; leave out what is not trained", flag_values=values)


def distill(values, run_dir, macs):
    """Distills a student that is not trained to its end."""
    if run_directory.steps(run_dir)[-1:] != [values.steps] and not values.measure_only:
        flags_of = [f"--teacher={values.teacher}", f"--direction={values.direction}", f"--student_macs={macs}"]
        python("tfi2i.distill", *flags_of, f"--steps={values.steps}", f"--run_dir={run_dir}")


def measure(run_dir):
    """Measured values of a student and its teacher on the test images: dict of "model" and "teacher"."""
    python("tfi2i.evaluate", f"--run_dir={run_dir}", f"--metrics={','.join(METRICS)}")
    (of_direction,) = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))["directions"].values()
    return of_direction


def export(run_dir):
    """Exports a student into RUN_files; the path of its int8_full file."""
    folder = run_dir.with_name(f"{run_dir.name}_files")
    # The table shows how close int8_full is; a floor would end the command before it.
    flags_of = [f"--output={folder}", "--formats=float32,int8_full", "--min_psnr=int8_full:0/0", "--overwrite"]
    python("tfi2i.export", f"--run_dir={run_dir}", *flags_of)
    return folder / "int8_full.tflite"


def l1_of_file(file, data, direction):
    """Mean absolute difference, in levels, of a file's translations from the truths of the test pairs.

    Args:
        file: function of uint8 [1, H, W, C], as `verify.LiteRT`.
        data: `config.Data` with test pairs.
        direction: "a2b" or "b2a".
    """
    import numpy as np

    from tfi2i.data import pipeline
    from tfi2i.metrics.pairs import find_pairs

    domains = data.open_domains("test")
    source, target = domains if direction == "a2b" else domains[::-1]
    inputs, truths = zip(*find_pairs(source, target))
    shown = (pipeline.eval_images(of, data, chosen) for of, chosen in ((source, inputs), (target, truths)))
    differences = [file(x[None])[0] - y.astype(float) for (_, x), (_, y) in zip(*shown, strict=True)]
    return float(np.abs(differences).mean())


def processor_times(files, image, repeats=50):
    """Median seconds of processor time for one image; the files take turns.

    Args:
        files: dict of name → function of uint8 [1, H, W, C] that computes on one thread.
        image: uint8 [H, W, C].

    Returns:
        dict of name → seconds.
    """
    times = {name: [] for name in files}
    for file in files.values():
        file(image[None])
    for _ in range(repeats):
        for name, file in files.items():
            start = time.process_time()
            file(image[None])
            times[name].append(time.process_time() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def table(rows):
    """Markdown: a line for each row.

    Args:
        rows: list of dict of "name"; "macs" and "parameters", counts; "l1", in levels, "kid", × 100, and "kid_std", its
            standard deviation over subsets; "file_l1", the L1 of the int8_full file (None: not measured); and "time", a
            part of the time of the teacher's float32 file.
    """
    columns = ["", "million multiply-accumulates", "parameters", "L1 of 255", "KID × 100"]
    columns += ["L1 of int8_full", "its time, the teacher's float32 = 1"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = [row["name"], f"{row['macs'] / 1e6:.4g}", f"{row['parameters']:,}", f"{row['l1']:.2f}"]
        cells += [f"{row['kid']:.2f} ± {row['kid_std']:.2f}"]
        cells += ["" if row["file_l1"] is None else f"{row['file_l1']:.2f}", f"{row['time']:.2g}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(rows, pictures):
    """L1 and KID over multiply-accumulates, and pictures of each row.

    Args:
        rows: as of `table`; the last one is the teacher.
        pictures: dict of title → list of uint8 [H, W, C], inputs first.

    Returns:
        uint8 [H, W, 3].
    """
    import matplotlib
    import numpy as np

    from tfi2i.pictures import page, stack

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(1, 2, figsize=(9, 3), dpi=100, layout="constrained")
    *students, teacher = rows
    for axis, (key, label) in zip(axes, (("l1", "L1 of 255"), ("kid", "KID × 100"))):
        axis.plot([r["macs"] / 1e6 for r in students], [r[key] for r in students], "o-", label="students")
        axis.plot(teacher["macs"] / 1e6, teacher[key], "s", color="black", label="teacher")
        axis.axhline(teacher[key], color="black", linewidth=0.5, linestyle=":")
        axis.set(xscale="log", xlabel="million multiply-accumulates for one picture", ylabel=label)
        # matplotlib's own labels overlap within one power of ten.
        axis.set_xticks([r["macs"] / 1e6 for r in rows], [f"{r['macs'] / 1e6:.4g}" for r in rows])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    drawn.canvas.draw()
    plot = np.asarray(drawn.canvas.buffer_rgba())[..., :3].copy()
    pyplot.close(drawn)
    return stack([plot, page([np.stack(shown) for shown in pictures.values()], list(pictures))])


def _described(name, model, direction, measured):
    from tfi2i import flops

    macs, parameters = flops.cost(model, direction, *model.run.data.crop)
    l1, kid = (tables.key_of(measured, metric) for metric in METRICS)
    means = {"l1": measured[l1], "kid": 100 * measured[kid], "kid_std": 100 * measured[f"{kid}_std"]}
    return {"name": name, "macs": macs, "parameters": parameters} | means


def main(_):
    values = flags.FLAGS
    root, direction = pathlib.Path(values.output), values.direction
    students = {macs: root / f"{direction}_{macs}" for macs in values.student_macs}
    for macs, run_dir in students.items():
        distill(values, run_dir, macs)
    students = {macs: run for macs, run in students.items() if run_directory.steps(run)[-1:] == [values.steps]}
    if not students:
        raise UserError(f"--output={root} has no student of {values.steps} steps")
    measured = {macs: measure(run) for macs, run in students.items()}
    exported = {macs: export(run) for macs, run in students.items()}
    machine.import_tensorflow()
    import numpy as np
    from tfi2i.export import convert, verify, with_pixels

    from tfi2i import checkpoints
    from tfi2i.data import images, pipeline

    models = {f"{float(macs):g} of the work": checkpoints.load(run) for macs, run in students.items()}
    rows = [_described(n, m, direction, measured[macs]["model"]) for (n, m), macs in zip(models.items(), students)]
    teacher = checkpoints.load(values.teacher)
    rows.append(_described("teacher", teacher, direction, next(iter(measured.values()))["teacher"]))
    source = teacher.run.data.open_domains("test")["ab".index(direction[0])]
    chosen = np.linspace(0, len(source) - 1, PICTURES).astype(int)
    inputs = [image for _, image in pipeline.eval_images(source, teacher.run.data, chosen)]
    files = {name: verify.LiteRT(path, 1) for name, path in zip(models, exported.values())}
    float32 = with_pixels(convert(teacher, direction, teacher.run.data.crop), "uint8")
    style = np.zeros((1, teacher.style_size), np.float32) if teacher.style_size else None
    timed = files | {"teacher": functools.partial(verify.LiteRT(float32, 1), style=style)}
    times = processor_times(timed, inputs[0])
    for row in rows:
        file = files.get(row["name"])
        row["file_l1"] = file and l1_of_file(file, teacher.run.data, direction)
        row["time"] = times[row["name"]] / times["teacher"]
    pictures = {"input": inputs}
    for name, model in (*models.items(), ("teacher", teacher)):
        pictures[name] = [model.translate(image, direction) for image in inputs]
    print(table(rows))
    path = root / f"students_{direction}.png"
    images.write_image(path, figure(rows, pictures))
    print(f"figure in {path}")


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    command.run(main)
