"""The commands as functions, for notebooks and programs.

Keyword arguments are named as the flags and take the values that the flags take, as Python values: numbers, tuples for
sizes, lists where a flag takes several. A call raises `UserError` where the command would print an
error, with the same message.

TensorFlow is imported by the first call that needs it.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pathlib
import signal
import typing

from tfi2i import command
from tfi2i.config import UserError

if typing.TYPE_CHECKING:
    from tfi2i.methods.translator import Translator

Path = str | os.PathLike
Size = int | tuple[int, int]


def train(
    run_dir: Path,
    *,
    method: str | None = None,
    preset: str | None = None,
    dry_run: bool = False,
    pretrain_steps: int | None = None,
    **flags,
) -> Translator:
    """Trains a model on two folders of pictures, or resumes a run that was stopped: `tfi2i train`.

        model = tfi2i.train("runs/mine", preset="cyclegan/own_small", a="photos", b="paintings")

    Ctrl-C stops it between two steps: a checkpoint is written and the model is returned. Call it again with the same
    arguments to resume. The same happens after `max_hours`.

    On one device the memory of a training is free again when the model is dropped; on several replicas TensorFlow keeps
    the traced steps until the process ends.

    Args:
        run_dir: folder of the run: configuration, checkpoints, samples, logs.
        method: "cyclegan" (the default), "pix2pix", "munit", "drit", "unit", "ugatit", "uvcgan", "uvcgan2", "aggan".
        preset: name of an installed configuration, over which the other arguments win; `tfi2i presets` lists them.
        dry_run: say what the run costs, and write nothing.
        pretrain_steps: with methods that have a pre-training: its steps, before the translation is learned.
        **flags: every flag of `tfi2i train --method=METHOD --help`, such as `data`, `a`, `b`, `steps`, `crop`.

    Returns:
        The trained model, a `keras.Model` with `translate`.

    Raises:
        UserError: flags, data or disk do not allow it.
        FloatingPointError: a loss is not finite.
    """
    named = {"run_dir": run_dir, "method": method, "preset": preset, "dry_run": dry_run}
    values = _values("train", named | {"pretrain_steps": pretrain_steps} | flags)
    from tfi2i.commands.train import work

    return _as_far_as_it_came(work, values)


def distill(
    teacher: Path,
    run_dir: Path,
    *,
    direction: str | None = None,
    student_macs: float | None = None,
    dry_run: bool = False,
    **flags,
) -> Translator:
    """Makes a small network for phones that has learned one direction of a trained model: `tfi2i distill`.

        student = tfi2i.distill("runs/mine", "runs/mine_student", student_macs=0.05)

    Ctrl-C stops it between two steps, as `train`, and the same call resumes.

    Args:
        teacher: run directory of the trained model.
        run_dir: folder of the student's run.
        direction: "a2b", "b2a", or by the names of the folders of `a` and `b`; None: the teacher's first.
        student_macs: multiply-accumulates of the student for one picture: up to 1 as a part of the teacher's, above 1
            as their number; None: 0.05.
        dry_run: say what the run costs, and write nothing.
        **flags: every flag of `tfi2i distill --help`, such as `steps`, `crop`, `data`.

    Returns:
        The student, a `keras.Model` with `translate`.

    Raises:
        UserError: the teacher, flags, data or disk do not allow it, or no student is that small.
    """
    named = {"teacher": teacher, "run_dir": run_dir, "direction": direction, "student_macs": student_macs}
    values = _values("distill", named | {"dry_run": dry_run} | flags)
    from tfi2i.commands.distill import work

    return _as_far_as_it_came(work, values)


def translate(
    run_dir: Path,
    input: Path,
    output: Path,
    *,
    direction: str | None = None,
    checkpoint: int | str | None = None,
    size: Size | None = None,
    fit: str | None = None,
    tile: int = 512,
    overlap: int = 64,
    keep_size: bool = True,
    side_by_side: bool = False,
    heatmaps: bool = False,
    discriminator_heatmaps: bool = False,
    metadata: str = "keep",
    style_seed: int | None = None,
    reference: Path | None = None,
    samples: int | None = None,
    batch_size: int = 1,
    overwrite: bool = False,
) -> list[pathlib.Path]:
    """Translates image files with a trained model: `tfi2i translate`. For arrays and pictures see `model.translate`.

        tfi2i.translate("runs/mine", "photos", "paintings", direction="a2b")

    Args:
        run_dir: run directory of the trained model.
        input: an image, a folder with its sub-folders, or a pattern.
        output: a folder; or an image file, when `input` is one file.
        direction: "a2b", "b2a", or by the names of the folders of `a` and `b`, "photos2paintings"; None: the first of
            the model's.
        checkpoint: step of a kept checkpoint, or "best"; None: the newest.
        size: resize to N or (height, width) before translating.
        fit: "pad", "resize" or "tile": how an image of any size meets the networks; None: by method.
        tile: with "tile": side of a tile in pixels.
        overlap: with "tile": pixels that neighbours share and blend.
        keep_size: bring results back to the size of the input after `size`.
        side_by_side: write input and result beside each other.
        heatmaps: also write where the generator looks.
        discriminator_heatmaps: also write where the discriminators look.
        metadata: "keep" what stays true, or "strip" all.
        style_seed: seed of the styles that are drawn, for methods that take a style; None: 0.
        reference: a picture of the domain translated to, whose style all translations take.
        samples: write a grid for each picture: the picture and this many translations with other styles.
        batch_size: consecutive images of equal size that are translated at once.
        overwrite: replace files that are there already.

    Returns:
        The paths of the files that were written.

    Raises:
        UserError: the arguments are wrong, or files could not be translated; all others are.
    """
    values = _values("translate", locals())
    from tfi2i.commands.translate import work

    _, _, (written, failed) = work(values)
    if failed:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in failed)
        raise UserError(f"{len(failed)} of {len(written) + len(failed)} images failed, the others are done: {reasons}")
    return written


def evaluate(
    run_dir: Path | list[Path] | None = None,
    *,
    folder: dict[str, Path] | None = None,
    checkpoint: int | str | None = None,
    split: str = "test",
    data: Path | None = None,
    a: Path | None = None,
    b: Path | None = None,
    output: Path | None = None,
    direction: str = "both",
    rows: int = 24,
    study: Path | None = None,
    answers: list[Path] | None = None,
    domain_names: list[str] | None = None,
    study_examples: int = 0,
    limit: int | None = None,
    batch_size: int = 8,
    metrics: list[str] | None = None,
    network: str = "efficientnet_lite0",
    network_weights: Path | None = None,
    download_weights: bool = False,
    feature_resize: str = "clean",
    kid_subset_size: int | None = None,
    kid_subsets: int = 100,
    seed: int = 2020,
    feature_cache: Path | None = None,
    pairs: bool = True,
    labels: Path | None = None,
    segmentation_weights: Path | None = None,
    label_domain: str = "b",
    protocol: str | None = None,
    real: Path | None = None,
    fake: Path | None = None,
    source: Path | None = None,
    size: Size | None = None,
    filter: str | None = None,
    table: str | None = None,
) -> dict:
    """Measures translations on held-out images, prints a table and writes pictures: `tfi2i evaluate`.

        figures = tfi2i.evaluate("runs/mine", metrics=["kid", "l1"])

    Args:
        run_dir: run directory of a trained model, or a list of some to compare.
        folder: dict of name → folder of translations that were made elsewhere.
        checkpoint: step of a kept checkpoint, "best" or "all"; None: the newest.
        split: "test" or "val".
        data, a, b: folders to take instead of the run's own data.
        output: picture to write, or for a comparison the folder.
        direction: "both", "a2b", "b2a", or by the names of the folders of `a` and `b`.
        rows: images of each direction in the gallery of a comparison, or study.
        study, answers, domain_names, study_examples: a page that asks people, and what they answered.
        limit: evaluate no more images than this.
        batch_size: images that go through the network at once.
        metrics: what to measure; None: L1, pixel accuracy and PSNR of pairs.
        network, network_weights, download_weights, feature_resize, feature_cache: the network that computes features
            for FID, KID and the like, its weights, how images are resized for it, where features are kept.
        kid_subset_size, kid_subsets, seed: size, number and seed of KID's random subsets.
        pairs: whether images with equal names are pairs.
        labels, segmentation_weights, label_domain: with the metric "fcn_score".
        protocol: what a paper's figures were made with.
        real, fake, source: folders to compare instead of a run.
        size, filter: bring all images to this size first, by this filter.
        table: "md", "csv" or "latex": print the table in this form.

    Returns:
        The figures, as they are written to JSON.

    Raises:
        UserError: the arguments are wrong, or the images cannot be measured so.
    """
    values = _values("evaluate", locals())
    from tfi2i.commands.evaluate import work

    return work(values)


def convert(source: Path | None = None, run_dir: Path | None = None, **flags) -> Translator | list[pathlib.Path]:
    """Makes a run directory of a published checkpoint, or with `export` the reverse: `tfi2i convert`.

        model = tfi2i.convert("latest_net_G_A.pth", "runs/old")
        tfi2i.convert(run_dir="runs/mine", export="pytorch", output="checkpoints/mine")

    Args:
        source: published checkpoint: a file, a folder, or a zip of a folder.
        run_dir: run directory to make, or with `export` to read.
        **flags: every other flag of `tfi2i convert --help`, such as `direction`, `epoch`, `size` and `norm`.

    Returns:
        The model; or with `export` the paths of the files.

    Raises:
        UserError: the checkpoint is not known or damaged, or a folder cannot be written.
    """
    values = _values("convert", {"source": source, "run_dir": run_dir} | flags)
    from tfi2i.commands.convert import work

    return work(values)


def _as_far_as_it_came(work, values):
    """The model of a training, which Ctrl-C or --max_hours may have stopped."""
    try:
        return work(values)
    except KeyboardInterrupt as stop:
        # SIGTERM asks the whole process to end; and a pre-training has no model to return.
        if getattr(stop, "model", None) is None or stop.signal == signal.SIGTERM:
            raise
        return stop.model


def _values(name, given):
    """The flags of a command, as `given`, a dict of keyword arguments, says; what is at its default is not given."""
    parameters = inspect.signature(globals()[name]).parameters
    usual = {n: parameter.default for n, parameter in parameters.items()}
    said = {n: v for n, v in given.items() if not (type(v) is type(usual.get(n)) and v == usual.get(n))}
    return command.values_of(importlib.import_module(f"tfi2i.commands.{name}"), said)
