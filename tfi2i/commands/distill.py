"""Distills one direction of a trained model into a student: a small network for phones that has learned its pictures.

  tfi2i distill --teacher=runs/mine --direction=a2b --student_macs=0.05 --run_dir=runs/mine_student
  tfi2i distill --teacher=runs/mine --direction=photos2paintings --run_dir=runs/small --student_macs=0.02
  tfi2i distill --teacher=runs/published --direction=a2b --run_dir=runs/small --a=horses

The same command resumes. The student learns from the training pictures that the teacher has learned from, prepared as
there, turned, mirrored and recoloured, and from those of --more_pictures. --a alone names other pictures for a2b, and
--b alone for b2a; --data names those of both domains. --crop sets another size. The student needs no truth: what it
should draw is what its teacher draws. --student_macs says how much work one picture may be; the width of the network
follows from it.

Its run directory is one like any other: tfi2i translate, evaluate and export take it. evaluate measures the teacher
beside it.
"""

import dataclasses
import functools
import os

from absl import flags

from tfi2i import command, command_line, machine, run_directory, settings
from tfi2i.config import IMAGES, OF_IMAGES, Data, UserError, as_text, local_path, parse_size

# Widths that are tried: whole vectors of 8 channels.
_STEP, _WIDEST = 8, 1024


def define_flags(values):
    """Declares the flags of this command in `values`."""
    command_line.define_only_method(values, "distill")
    command_line.define_preset(values)
    command_line.define_run_flags(values)


def work(values):
    """Distills, or resumes; returns the student, or None where the configuration is only printed."""
    given, run_dir = command_line.given_flags(values), local_path(values.run_dir, "run_dir")
    if "teacher" not in given:
        raise UserError("--teacher is missing: run directory of the trained model to learn from, e.g. runs/mine")
    given["teacher"] = os.path.abspath(local_path(given["teacher"], "teacher"))
    if given["teacher"] == os.path.abspath(run_dir):
        raise UserError(f"--teacher and --run_dir are both {run_dir}: give the student a folder of its own")
    own_pictures = any(name in given for name in IMAGES)
    teacher = run_directory.read(given["teacher"])
    teacher.check_translates(f"--teacher={given['teacher']}")
    if "direction" in given:
        given["direction"] = run_directory.direction(given["direction"], given["teacher"])
    given = _of_teacher(teacher, given) | given
    run = settings.resolve("student", given)  # what is wrong in the flags is said before TensorFlow is imported
    if not any(given.get(name) for name in IMAGES):
        raise UserError(
            f"the teacher {given['teacher']} names no pictures: give --data=FOLDER, or for the domain translated from "
            "--a=FOLDER or --b=FOLDER"
        )
    machine.import_tensorflow()
    from tfi2i import checkpoints
    from tfi2i.data import sources
    from tfi2i.training import loop, strategies

    strategies.make_strategy(run.training.strategy, run.training.replicas)  # before TensorFlow computes anything
    # Pictures that are not there need not wait for the teacher.
    if not own_pictures:
        sources.check_found(run.data)
    run.data.open_domains()
    folder = _checkpoint(given, run_dir)
    given["teacher_checkpoint"] = "best" if folder.name == "best" else str(int(folder.name))
    model = checkpoints.load(given["teacher"], given["teacher_checkpoint"])
    _check(model, given)
    given.setdefault("direction", model.directions[0])
    _check_domain(run.data, given["direction"])
    given.setdefault("student_blocks", min(max(3, min(run.data.crop) // 32), 8))
    if "student_width" not in given:
        given["student_width"], said = _width(given, model, run.data.crop)
        if not values.print_config:
            print(said, flush=True)
    del model  # the teacher is loaded once more, at the precision of the training
    run = settings.resolve("student", given)
    if values.print_config:
        print(run.to_json())
        return None

    def prepare(student):
        dtype = student.dtype_policy.name
        student.learn_from(checkpoints.load(run.model.teacher, run.model.teacher_checkpoint, dtype))

    return loop.train(run, run_dir, values.dry_run, prepare, {"teacher": checkpoints.fingerprint(folder)})


def main(_):
    work(flags.FLAGS)


def _of_teacher(teacher, given):
    """The flags of the teacher's data; without its pictures where `given` names others.

    A crop that is given alone keeps the margin that the teacher's pictures have around theirs.
    """
    names = {f.name for f in dataclasses.fields(Data)}
    kept = {n: v for n, v in dataclasses.asdict(teacher.data).items() if n in names and v is not None}
    if any(name in given and kept.get(name) not in (given[name], os.path.abspath(given[name])) for name in IMAGES):
        kept = {n: v for n, v in kept.items() if n not in OF_IMAGES and n != "swap_domains"}
    if "crop" in given and "resize" not in given and kept.get("resize") and kept.get("crop"):
        crop = parse_size(given["crop"])
        kept["resize"] = tuple(round(c * r / p) for c, r, p in zip(crop, kept["resize"], kept["crop"]))
    return kept


def _checkpoint(given, run_dir):
    """The folder of the checkpoint that teaches: the one asked for, that of a resumed run, or the newest whole one."""
    from tfi2i import checkpoints

    asked = given.get("teacher_checkpoint")
    if asked is None and run_directory.config_path(run_dir).is_file():
        before = run_directory.read(run_dir).model
        if getattr(before, "teacher", None) == given["teacher"]:
            asked = before.teacher_checkpoint
    try:
        return checkpoints.find(given["teacher"], asked)
    except UserError as error:
        said = str(error).replace("--checkpoint", "--teacher_checkpoint")
        if asked != given.get("teacher_checkpoint"):  # a teacher that is trained on keeps its last checkpoints only
            said = said.removesuffix("; give another --teacher_checkpoint")
            which = "best/" if asked == "best" else f"step {asked}"
            said = f"the run in {run_dir} learns from {which} of its teacher ({said}): give a new --run_dir"
        raise UserError(said) from error


def _check(model, given):
    """Refuses what the teacher cannot teach.

    Raises:
        UserError: it translates by a search; a direction that it lacks, or other channels.
    """
    if model.latent_size is not None:
        raise UserError(
            f"--teacher={given['teacher']} translates by a search, hundreds of passes for each picture: a student "
            "cannot learn from it in reasonable time"
        )
    if given.get("direction", model.directions[0]) not in model.directions:
        raise UserError(
            f"--direction={given['direction']}: the teacher {given['teacher']} translates "
            f"{' and '.join(model.directions)} only"
        )
    for name in ("channels_a", "channels_b"):
        if given[name] != getattr(model, name):
            raise UserError(f"--{name}={given[name]}: the teacher has {getattr(model, name)}, and so has its student")


def _check_domain(data, direction):
    """Refuses pictures of the other domain alone."""
    only, needed = data.only_domain(), direction[0].upper()
    if only and only != needed:
        raise UserError(
            f"a student of {direction} learns from pictures of {needed}, and there are those of {only} alone: give "
            f"--{needed.lower()}=FOLDER"
        )


def _width(given, teacher, crop):
    """The most channels, in steps of 8, with which a student keeps to --student_macs, and a line that says so.

    Raises:
        UserError: no student is that small.
    """
    from tfi2i import flops
    from tfi2i.methods.student.model import Student

    run = settings.resolve("student", given | {"student_width": _STEP})
    direction, asked = run.model.direction, run.model.student_macs
    whole, _ = flops.cost(teacher, direction, *crop)
    most = asked * whole if asked <= 1 else asked

    @functools.cache
    def macs(width):
        hyperparameters = dataclasses.asdict(run.model) | {"student_width": width}
        student = Student(teacher.channels_a, teacher.channels_b, **hyperparameters)
        student.build((None, None, None, student.channels_of(direction[0])))
        return flops.cost(student, direction, *crop)[0]

    fitting, too_wide = 0, _WIDEST // _STEP + 1
    while too_wide - fitting > 1:
        middle = (fitting + too_wide) // 2
        fitting, too_wide = (middle, too_wide) if macs(_STEP * middle) <= most else (fitting, middle)
    picture = f"a picture of {crop[0]}x{crop[1]}"
    if not fitting:
        # Rounded to two digits it must still be enough.
        least = 1.05 * macs(_STEP)
        raise UserError(
            f"--student_macs={as_text(asked)} allows {most / 1e6:.3g} million multiply-accumulates for {picture}, and "
            f"the smallest student has {least / 1e6:.3g}: give {least:.2g} or more, or {least / whole:.2g} as a part "
            "of the teacher's"
        )
    width = _STEP * fitting
    return width, (
        f"a student with {width} channels and {run.model.student_blocks} blocks: {macs(width) / 1e6:.4g} million "
        f"multiply-accumulates for {picture}, the teacher has {whole / 1e6:.4g}"
    )


def run():
    """Console entry point."""
    define_flags(flags.FLAGS)
    command.run(main)


if __name__ == "__main__":
    run()
