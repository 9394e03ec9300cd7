"""Measures runs and folders, and writes what people look at: tables, figures as JSON, pictures, galleries and studies.

This is what `tfi2i.evaluate` does; arguments are named as its flags.
"""

import dataclasses
import json
import pathlib

from tfi2i import checkpoints, config, files, run_directory
from tfi2i.config import DIRECTIONS, IMAGES, UserError, local_path
from tfi2i.data import images, pipeline, sources
from tfi2i.metrics import TABLE_FORMS, candidates, evaluation, gallery, held_out, report, tables
from tfi2i.metrics import study as study_page
from tfi2i.metrics.protocols import make_protocol

# What two folders are compared by where nothing else is asked for.
_OF_FOLDERS = ("fid", "kid", "precision_recall")


def evaluate_run(
    run_dir, checkpoint=None, data=None, output=None, direction="both", batch_size=8, table=None, **options
):
    """Measures a run at one checkpoint or at every kept one.

    Prints a table, and writes a picture of inputs, translations, truths and back-translations, plots beside it, and the
    figures to metrics.json (evaluate.json without `metrics`) in the picture's folder.

    Args:
        run_dir: a run directory.
        checkpoint: as in `checkpoints.load`, or "all".
        data: folder with testA and testB to take instead of the run's own data; for one direction a folder of
            pictures of the domain that is translated; the pair of the folders of --a and --b; None: the run's own.
        output: path of the picture; None: RUN/evaluate.png.
        direction: "a2b", "b2a", or "both", which is what the run translates.
        batch_size: images that go through the network at once.
        table: a key of `TABLE_FORMS`: prints the table in that form, and writes it beside the figures.
        **options: what is measured and how, see `protocols.make_protocol`.

    Returns:
        dict, the figures as they are written.

    Raises:
        UserError: there is no such run or checkpoint, or it cannot be measured so.
    """
    every = checkpoint == "all"
    run_dir = pathlib.Path(local_path(run_dir, "run_dir"))
    output = _picture_path(output or run_dir / "evaluate.png")
    asked = run_directory.steps(run_dir) if every else [checkpoint]
    if every and not asked:
        checkpoints.find(run_dir)  # says that there are none
    protocol, by_step = make_protocol(**options), {}
    _check_translate([run_dir])
    for checkpoint in asked:
        model = checkpoints.load(run_dir, checkpoint)
        directions = [d for d in _directions(direction) if d in model.directions]
        if not directions:
            raise UserError(f"--direction={direction}: {run_dir} translates {model.directions[0]} only")
        prepared = protocol.prepare(_data(model.run.data, data, directions))
        of_run = {"model": candidates.of_model(model, batch_size)}
        if checkpoint == asked[-1]:
            of_run |= _teacher(model, batch_size)
            of_run |= candidates.baselines(prepared, {"a": model.channels_a, "b": model.channels_b})
        results, examples = evaluation.evaluate(of_run, prepared, protocol, directions, batch_size)
        step, first = model.checkpoint_step, next(iter(examples.values()))[0]
        counts = {d: values["model"]["n"] for d, values in results.items()}
        n = " and ".join(map(str, dict.fromkeys(counts.values())))
        h, w = first["input"].shape[:2]
        kind = "images" if first["truth"] is None else "pairs"
        print(f"{run_dir}, step {step}: {n} {protocol.split} {kind} of {h}x{w} pixels")
        _print_table(results, protocol, table)
        by_step[step] = results

    figures = {"split": protocol.split, "data": _origin(prepared), kind: counts}
    figures |= {"size": [h, w], "preparation": pipeline.eval_preparation(prepared), "checkpoint_step": step}
    if protocol.metrics:
        figures["protocol"] = protocol.report()
    figures |= {"directions": results} | ({"steps": by_step} if every else {})
    path = output.with_name("metrics.json" if protocol.metrics else "evaluate.json")
    _write_figures(path, figures, results, protocol, table)
    title = [f"{model.run.method}, step {step}, {n} {protocol.split} {kind}"]
    for d, values in results.items():
        if "l1" in values["model"]:
            l1, unchanged = values["model"]["l1"], values["do_nothing"]["l1"]
            title.append(f"{tables.in_words(d)}: L1 {l1:.1f} (doing nothing: {unchanged:.1f})")
    images.write_image(output, report.picture(model, examples, title))
    print(f"numbers in {path}, picture in {output}")
    plots = {f"{d}_plot": report.trade_off(results, d, protocol) for d in results}
    plots |= {"checkpoints": report.over_checkpoints(by_step, protocol)} if every else {}
    for name, plot in plots.items():
        if plot is not None:
            plot_path = output.with_name(f"{output.stem}_{name}.png")
            images.write_image(plot_path, plot)
            print(f"plot in {plot_path}")
    return figures


def evaluate_folders(real, fake, source=None, output=None, batch_size=8, table=None, **options):
    """Measures a folder of translations against a folder of real images.

    Prints a table, and writes a picture of examples and, beside it, the figures to metrics.json.

    Args:
        real, fake, source: see `evaluation.compare_folders`.
        output: path of the picture; None: evaluate.png.
        batch_size: images that are measured at once.
        table: as in `evaluate_run`.
        **options: what is measured and how, see `protocols.make_protocol`; `split` has no effect.

    Returns:
        dict, the figures as they are written.

    Raises:
        UserError: see `evaluation.compare_folders`.
    """
    output = _picture_path(output or "evaluate.png")
    if not options.get("metrics") and not options.get("protocol"):
        options["metrics"] = _OF_FOLDERS
    protocol = dataclasses.replace(make_protocol(**options), split=None)
    results, examples = evaluation.compare_folders(real, fake, protocol, source, batch_size)
    print(f"{fake} against {real}")
    _print_table(results, protocol, table)
    figures = {"real": str(real), "fake": str(fake), "source": source and str(source), **protocol.preparation}
    figures |= {"protocol": protocol.report(), "results": results["a2b"]["fake"]}
    path = output.with_name("metrics.json")
    _write_figures(path, figures, results, protocol, table)
    images.write_image(output, report.picture(None, examples, [f"{fake} against {real}"]))
    print(f"numbers in {path}, picture in {output}")
    return figures


def compare(
    run_dir=(),
    folder=None,
    checkpoint=None,
    data=None,
    output="comparison",
    direction="both",
    rows=24,
    batch_size=8,
    table=None,
    **options,
):
    """Measures several runs and folders on the same images, prints a table, and writes a gallery with the figures.

    Runs that differ by nothing but their seed share a row of the table: means ± their sample standard deviation.

    Args:
        run_dir: run directories.
        folder: dict of name → folder of translations of the same images, in FOLDER/a2b and FOLDER/b2a.
        checkpoint: of all runs, as in `checkpoints.load`.
        data: as in `evaluate_run`; None: the data of the first run.
        output: folder of the gallery.
        direction: "a2b", "b2a", or "both", which is what any of them translates.
        rows: images of each direction in the gallery.
        batch_size: images that go through a network at once.
        table: as in `evaluate_run`.
        **options: what is measured and how, see `protocols.make_protocol`.

    Returns:
        dict, the figures as they are written to OUTPUT/metrics.json.

    Raises:
        UserError: they cannot be compared, or the output is a folder of something else.
    """
    output, folder = pathlib.Path(output), folder or {}
    gallery.check(output, "--output")
    protocol = make_protocol(**options)
    models, pictures, directions, prepared = _open(run_dir, folder, checkpoint, data, direction, protocol)
    domains = held_out.open_domains(prepared, protocol.split, held_out.needed_domains(protocol, directions))
    compared = _candidates(models, pictures, domains, batch_size)
    compared |= candidates.baselines(prepared, {"a": prepared.channels_a, "b": prepared.channels_b})
    results, examples = evaluation.evaluate(
        compared, prepared, protocol, directions, batch_size, domains=domains, rows=rows
    )
    seeds = _of_seeds(models, checkpoint)
    together = tables.over_seeds(results, seeds)
    _print_table(together, protocol, table)
    figures = {"split": protocol.split, "data": _origin(prepared), "preparation": pipeline.eval_preparation(prepared)}
    figures |= {"folders": {n: str(p) for n, p in folder.items()}}
    figures |= {"runs": {name: model.run_dir for name, model in models.items()}}
    figures |= {"checkpoint_steps": {name: model.checkpoint_step for name, model in models.items()}}
    figures |= {"protocol": protocol.report(), "directions": results}
    if seeds:
        of_seeds = {d: {name: values[name] for name in seeds if name in values} for d, values in together.items()}
        figures["over_seeds"] = {"runs": seeds, "directions": of_seeds}
    title = f"{len(models) + len(folder)} candidates on {_origin(prepared)}, {protocol.split}"
    gallery.write(output, title, together, examples, protocol, figures, table)
    print(f"gallery in {output / 'index.html'}, numbers in {output / 'metrics.json'}")
    return figures


def write_study(
    study,
    run_dir=(),
    folder=None,
    checkpoint=None,
    data=None,
    direction="both",
    rows=24,
    study_examples=0,
    domain_names=None,
    batch_size=8,
    **options,
):
    """Writes the page of a blind study of several runs and folders, and its key beside it.

    Args:
        study: folder of the page.
        run_dir, folder, checkpoint, data, direction, rows, batch_size: as in `compare`.
        study_examples: real images of the target domain to show.
        domain_names: what A and B are called there; None: domain A and domain B.
        **options: see `protocols.make_protocol`. Nothing is measured: metrics have no effect.

    Raises:
        UserError: fewer than two of them translate a direction, or the folder holds something else.
    """
    output, folder = pathlib.Path(study), folder or {}
    gallery.check(output, "--study")
    names = list(domain_names or ["domain A", "domain B"])
    if len(names) != 2:
        raise UserError(f"--domain_names={','.join(names)}: expected two names, of A and of B")
    protocol = make_protocol(**options | {"metrics": None})
    models, pictures, directions, prepared = _open(run_dir, folder, checkpoint, data, direction, protocol)
    needed = {d[0] for d in directions} | {d[2] for d in directions if study_examples}
    domains = held_out.open_domains(prepared, protocol.split, needed)
    compared = _candidates(models, pictures, domains, batch_size)
    examples, real = {}, {}
    for d in study_page.directions(compared, directions):
        source, target = domains[d[0]], domains[d[2]]
        examples[d] = study_page.translations(compared, source, prepared, d, min(protocol.limit or rows, rows))
        chosen = pipeline.eval_images(target, prepared, range(min(study_examples, len(target))))
        real[d] = [held_out.as_8_bits(pixels) for _, pixels in chosen]
    study_page.write(output, examples, real, dict(zip("ab", names)), protocol.seed)
    print(f"study in {output / 'index.html'}; keep {study_page.key_path(output)} from the participants")
    print(f"then: tfi2i evaluate --study={output} --answers=answers1.json,answers2.json")


# ------------------------------------------------------------------------------------------------- what is compared


def _check_translate(run_dirs):
    """Raises `UserError`: one of the runs translates no pictures. What is no run is refused when it is loaded."""
    for run_dir in run_dirs:
        if run_directory.config_path(run_dir).is_file():
            run_directory.read(run_dir).check_translates(f"--run_dir={run_dir}")


def _open(run_dir, folder, checkpoint, data, direction, protocol):
    """Opens runs and folders that are compared.

    Args:
        run_dir, folder, checkpoint, data, direction: as in `compare`.
        protocol: a `Protocol`.

    Returns:
        (models, pictures, directions, prepared): name → `Translator`; name → dict of direction → folder; the directions
        that any of them translates; and the `config.Data` of the images.
    """
    _check_translate(run_dir)
    models = {pathlib.Path(run).resolve().name: checkpoints.load(run, checkpoint) for run in run_dir}
    reserved = {*tables.NAMES, *tables.NAMES.values()}
    for name in (*models, *folder):
        if name in reserved:
            raise UserError(f"'{name}' is a name of this command's own: rename the run directory, or the --folder")
    if len(models) < len(run_dir) or set(models) & set(folder):
        raise UserError("two of the runs and folders have one name: rename a run directory, or the NAME of a --folder")
    if not models and not data:
        raise UserError("--folder alone does not say what was translated: give --data=FOLDER with testA and testB")
    asked = _directions(direction)
    pictures = {name: candidates.direction_folders(path, asked) for name, path in folder.items()}
    translated = {d for model in models.values() for d in model.directions} | {d for p in pictures.values() for d in p}
    directions = [d for d in asked if d in translated]
    if not directions:
        raise UserError(f"--direction={direction}: {', '.join(models)} translate {' and '.join(translated)} only")
    own = next(iter(models.values())).run.data if models else config.Data()
    prepared = protocol.prepare(_data(own, data, directions))
    for name, model in models.items():
        _check_alike(next(iter(models)), name, protocol.prepare(own), protocol.prepare(model.run.data))
        if (model.channels_a, model.channels_b) != (prepared.channels_a, prepared.channels_b):
            raise UserError(
                f"{name} translates {model.channels_a} to {model.channels_b} channels, the images have "
                f"{prepared.channels_a} and {prepared.channels_b}: runs of other channels cannot be compared"
            )
    return models, pictures, directions, prepared


def _teacher(model, batch_size):
    """What a student is shown beside: dict of "teacher" → `Candidate`; {} for other models, and without its folder."""
    run_dir = getattr(model.run.model, "teacher", None)
    if not run_dir:
        return {}
    try:
        teacher = checkpoints.load(run_dir, model.run.model.teacher_checkpoint)
    except UserError as error:
        print(f"without the teacher: {error}")
        return {}
    return {"teacher": candidates.of_model(teacher, batch_size, mean_style=True)}


def _check_alike(first, name, prepared, own):
    """Refuses runs that see the images otherwise: as the first one sees them, the others would be measured unfairly.

    Args:
        first, name: of the runs.
        prepared: `config.Data` of the first one, prepared by the protocol.
        own: that of the other one.
    """
    fixed = [n for n in ("background", "swap_domains") if getattr(own, n) != getattr(prepared, n)]
    if fixed:
        raise UserError(f"{first} and {name} differ in --{fixed[0]}: they see other images and cannot be compared")
    both = pipeline.eval_preparation(prepared), pipeline.eval_preparation(own)
    if both[0] != both[1]:
        differing = [n for n in both[0] if both[0][n] != both[1][n]]
        seen = [" ".join(f"--{n}={config.as_text(side[n])}" for n in differing) for side in both]
        size = config.as_text(prepared.crop or prepared.resize or (256, 256))
        raise UserError(
            f"{first} and {name} prepare pictures differently, {seen[0]} against {seen[1]}: give --size={size} (and "
            "--filter=bicubic, bilinear or lanczos), to which the pictures are then brought for all"
        )


def _of_seeds(models, checkpoint):
    """Runs that differ by their seed only: dict of a name for all of them → names, two or more."""
    groups = {}
    for name, model in models.items():
        training = dataclasses.replace(model.run.training, seed=0)
        # The best steps of several seeds belong together, others only if they are equal.
        step = "best" if checkpoint == "best" else model.checkpoint_step
        groups.setdefault((dataclasses.replace(model.run, training=training).to_json(), step), []).append(name)
    groups = [g for g in groups.values() if len({models[name].run.training.seed for name in g}) == len(g) > 1]
    return {f"{names[0]} … {names[-1]}, {len(names)} seeds": names for names in groups}


def _candidates(models, pictures, domains, batch_size):
    compared = {name: candidates.of_model(model, batch_size) for name, model in models.items()}
    return compared | {name: candidates.of_pictures(p, domains) for name, p in pictures.items()}


def _data(own, folder, directions):
    """The `config.Data` of the images to measure on: those of `folder`, or of two, where given, or a run's own."""
    if not folder:
        sources.check_found(own)
        return own
    if isinstance(folder, tuple):
        return own.in_folders(*folder)
    if sources.has_layout(folder):
        return own.in_folder(folder)
    if own.ab:
        return own.in_folder_of_halves(folder)
    if len(directions) > 1:
        raise UserError(
            f"--data={folder} has no testA and testB: to take its pictures for those of one domain, add "
            "--direction=a2b or --direction=b2a"
        )
    return own.of_one_domain(directions[0][0], folder, holdout=1.0)


def _origin(data):
    return " and ".join(getattr(data, name) for name in IMAGES if getattr(data, name))


def _directions(direction):
    return DIRECTIONS if direction == "both" else (direction,)


# ------------------------------------------------------------------------------------------------------------- files


def _picture_path(output):
    """A path to write a picture to, looked at before the work begins."""
    output = pathlib.Path(local_path(output, "output"))
    files.check_writable(output, "output")
    if output.suffix.lower() not in images.EXTENSIONS:
        raise UserError(
            f"--output={output}: expected the name of an image, such as {output}.png. A folder is written where "
            "several runs or folders are compared: repeat --run_dir or --folder for each of them"
        )
    return output


def _print_table(results, protocol, form):
    print(tables.table(results, protocol, form))
    if form == "csv":  # a file of its own form has no room for notes
        print("\n".join(["", *tables.notes(results, protocol)]))


def _write_figures(path, figures, results, protocol, form):
    """Writes a JSON file and, where a form is asked for, the table beside it."""
    files.write_text(path, json.dumps(figures, indent=2, allow_nan=False) + "\n")
    if form:
        files.write_text(path.with_suffix(TABLE_FORMS[form]), tables.table(results, protocol, form) + "\n")
