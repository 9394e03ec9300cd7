"""Measures translations on held-out images: how true they are to the truth or the input, and how real.

  python -m tfi2i.evaluate --run_dir=runs/quickstart
  python -m tfi2i.evaluate --run_dir=runs/mine --metrics=kid,precision_recall,il2,cycle --split=val --limit=100
  python -m tfi2i.evaluate --run_dir=runs/cyclegan --run_dir=runs/unit --folder=CUT=outputs/cut --metrics=kid,l1
  python -m tfi2i.evaluate --real=photos/testB --fake=outputs --metrics=fid,kid --network=inception_2015
                           --network_weights=pt_inception-2015-12-05-6726825d.pth

Without --metrics: L1, pixel accuracy and PSNR of pairs, images of the same name in both domains. Prints a table beside
two baselines that know nothing of the content, writes it to RUN/evaluate.json (with --metrics RUN/metrics.json, which
has the protocol too), and writes a picture of inputs, translations, truths and back-translations. Several methods give
one table and a gallery, a row for each input and a column for each method.
"""

import dataclasses
import json
import os
import pathlib

from absl import flags

from tfi2i import command, config
from tfi2i.config import UserError
from tfi2i.metrics.protocols import PRESETS


def define_flags():
    """Declares the flags of this command."""
    flags.DEFINE_multi_string(
        "run_dir", None, "run directory of a trained model; given several times they are compared"
    )
    flags.DEFINE_multi_string(
        "folder",
        None,
        "NAME=FOLDER: compare with pictures that something else has made of the same images, in FOLDER/a2b and "
        "FOLDER/b2a, under the images' names; may be given several times",
    )
    flags.DEFINE_string("checkpoint", None, "step of a kept checkpoint, best, or all (default: the newest)")
    flags.DEFINE_enum("split", "test", ("test", "val"), "which held-out images; report on test, tune on val")
    flags.DEFINE_string("data", None, "folder with testA and testB to take instead of the run's own data")
    flags.DEFINE_string(
        "output",
        None,
        "picture to write (default: RUN/evaluate.png, or evaluate.png); for a comparison a folder (comparison)",
    )
    flags.DEFINE_enum("direction", "both", ("both", "a2b", "b2a"), "what to compare")
    flags.DEFINE_integer("rows", 24, "images of each direction in the gallery of a comparison, or study", lower_bound=1)
    flags.DEFINE_string("study", None, "write a page there that asks people which of several methods they prefer")
    flags.DEFINE_list("answers", None, "with --study: files that participants have saved, to be counted")
    flags.DEFINE_list("domain_names", None, "with --study: what A and B are called there, e.g. horses,zebras")
    flags.DEFINE_integer("study_examples", 0, "with --study: real images of the target domain to show", lower_bound=0)
    flags.DEFINE_integer("limit", None, "evaluate no more pairs or images than this, evenly spread", lower_bound=1)
    flags.DEFINE_integer("batch_size", 8, "images that go through the network at once", lower_bound=1)
    flags.DEFINE_list(
        "metrics",
        None,
        f"what to measure: {', '.join(config.METRICS + config.ON_LABELS)} (default: l1,pixel_accuracy,psnr of pairs)",
    )
    flags.DEFINE_enum(
        "network",
        "efficientnet_lite0",
        ("efficientnet_lite0", "inception_2015", "inception_torchvision", "inception_keras"),
        "whose features realism, lpips_like and il2 compare; only inception_2015 gives published FID and KID",
    )
    flags.DEFINE_string("network_weights", None, "file of that network's weights, where they are not installed")
    flags.DEFINE_enum(
        "feature_resize",
        "clean",
        ("clean", "original", "pytorch_fid"),
        "how images reach that network's size: antialiased as in clean-fid, as the network's first code did, or as "
        "pytorch-fid does",
    )
    flags.DEFINE_integer(
        "kid_subset_size",
        None,
        "images of each subset of KID (default: 100, at most half of the smaller set)",
        lower_bound=2,
    )
    flags.DEFINE_integer("kid_subsets", 100, "subsets of KID", lower_bound=1)
    flags.DEFINE_integer("seed", 2020, "of the draw of the subsets, and of the orders of a study")
    flags.DEFINE_string("feature_cache", None, "folder that keeps features; empty: none (default: in ~/.cache)")
    flags.DEFINE_bool("pairs", True, "images of one name in both domains are pairs; --nopairs: they are not")
    flags.DEFINE_string("labels", None, "with fcn_score: folder of label maps, Cityscapes' gtFine/val or train ids")
    flags.DEFINE_string("segmentation_weights", None, "with fcn_score: fcn-8s-cityscapes.caffemodel of pix2pix")
    flags.DEFINE_enum("label_domain", "b", ("a", "b"), "with fcn_score: whose images are pictures of labels")
    flags.DEFINE_enum(
        "protocol",
        None,
        list(PRESETS),
        "split, sizes, network and metrics that a paper's figures were made with; flags given beside it win",
    )
    flags.DEFINE_string("real", None, "folder of real images, to compare --fake with instead of a run")
    flags.DEFINE_string("fake", None, "folder of translations, of any origin")
    flags.DEFINE_string("source", None, "with --real and --fake: folder of the images that were translated")
    flags.DEFINE_string("size", None, "bring all images to N or H,W first, instead of the run's size")


def protocol_of(values):
    """The `evaluation.Protocol` that the flags ask for, with its network loaded."""
    from tfi2i.metrics import evaluation, features, segmentation

    metrics = tuple(values.metrics) if values.metrics else ("fid", "kid", "precision_recall") if values.real else None
    labelled = None
    if "fcn_score" in (metrics or ()):
        if not values.labels:
            raise UserError(
                "--metrics=fcn_score compares with label maps: give --labels=FOLDER, Cityscapes' gtFine/val"
            )
        labelled = segmentation.Segmentation(values.segmentation_weights, values.labels, values.label_domain)
    protocol = evaluation.Protocol(
        metrics,
        None if values.real else values.split,
        values.limit,
        None,
        values.kid_subset_size,
        values.kid_subsets,
        values.seed,
        values.feature_cache,
        labelled,
        values.pairs,
    )
    if not evaluation.needs_network(metrics):
        return protocol
    network = features.FeatureNetwork(values.network, values.network_weights, values.feature_resize)
    if network.standard is False:
        print(f"note: {network.weights} is not the published file of {network.name}: SHA-256 {network.sha256}")
    return dataclasses.replace(protocol, network=network)


def apply_preset(values):
    """Sets the flags that --protocol says and that were not given."""
    preset = PRESETS.get(values.protocol)
    for name, value in (preset.flags if preset else {}).items():
        if values[name].using_default_value:
            values[name].value = value
    if preset:
        print(f"protocol {values.protocol}: {preset.note}")


def preparation(values):
    """Fields of `config.Data` that --size or --protocol say: how images are resized and cut; {} where neither does."""
    size = config.size_flag(values.size)
    if size:
        return {"resize": size, "resize_mode": "exact", "crop": size}
    return dict(PRESETS[values.protocol].data) if values.protocol else {}


def described(protocol, values):
    """What metrics.json says of the protocol."""
    named = {"preset": values.protocol, "note": PRESETS[values.protocol].note} if values.protocol else {}
    return named | protocol.report()


def evaluate_run(values, output):
    """Measures a run directory, at one checkpoint or, with --checkpoint=all, at every kept one."""
    from tfi2i.data import images
    from tfi2i.metrics import evaluation, report
    from tfi2i.training import checkpoints

    run_dir = pathlib.Path(values.run_dir[0])
    every = values.checkpoint == "all"
    asked = checkpoints.steps(run_dir) if every else [values.checkpoint]
    if every and not asked:
        checkpoints.find(run_dir)  # says that there are none
    protocol, measured = None, {}
    for checkpoint in asked:
        model = checkpoints.load(run_dir, checkpoint)
        data = model.run.data
        if values.data:
            data = dataclasses.replace(data, data=values.data, tfds=None, csv=None, domain_a=None, domain_b=None)
        data = dataclasses.replace(data, **preparation(values))
        protocol = protocol or protocol_of(values)
        methods = {"model": evaluation.of_model(model, values.batch_size)}
        if checkpoint == asked[-1]:
            methods |= evaluation.baselines(data, {"a": model.channels_a, "b": model.channels_b})
        directions = [d for d in _directions(values) if d in methods["model"].directions]
        if not directions:
            known = methods["model"].directions[0]
            raise UserError(f"--direction={values.direction}: {run_dir} translates {known} only")
        results, examples = evaluation.evaluate(methods, data, protocol, directions, values.batch_size)
        step, first = model.checkpoint_step, next(iter(examples.values()))[0]
        counts = {d: r["model"]["n"] for d, r in results.items()}
        n = " and ".join(map(str, dict.fromkeys(counts.values())))
        h, w = first["input"].shape[:2]
        kind = "images" if first["truth"] is None else "pairs"
        print(f"{run_dir}, step {step}: {n} {values.split} {kind} of {h}x{w} pixels")
        print(report.table(results, protocol))
        measured[step] = results
    written = {"split": values.split, "data": values.data or data.data or data.tfds or data.csv, kind: counts}
    written |= {"size": [h, w], "checkpoint_step": step}
    if protocol.metrics:
        written["protocol"] = described(protocol, values)
    path = run_dir / ("metrics.json" if protocol.metrics else "evaluate.json")
    steps = {"steps": measured} if every else {}
    write_json(path, written | {"directions": results} | steps)
    title = f"{model.run.method}, step {step}, {n} {values.split} {kind}"
    for d, r in results.items():
        if "l1" in r["model"]:
            l1, nothing = r["model"]["l1"], r["do_nothing"]["l1"]
            title += f"   |   {d[0].upper()} to {d[2].upper()}: L1 {l1:.1f} (doing nothing: {nothing:.1f})"
    images.write_image(output, report.picture(model, examples, title))
    print(f"numbers in {path}, picture in {output}")
    plots = {f"{d}_plot": report.trade_off(results, d) for d in results}
    plots |= {"checkpoints": report.over_checkpoints(measured)} if every else {}
    for name, plot in plots.items():
        if plot is not None:
            images.write_image(output.with_name(f"{output.stem}_{name}.png"), plot)
            print(f"plot in {output.with_name(f'{output.stem}_{name}.png')}")


def open_methods(values):
    """The runs and folders that are to be compared, on the images of --data or else of the first run.

    Returns:
        (models, folders, methods, data, sides): name → `Translator`, name → path, name → `evaluation.Method`, and the
        images as `config.Data` and as `sources.Source` of "a" and "b".
    """
    from tfi2i.data import sources
    from tfi2i.metrics import evaluation
    from tfi2i.training import checkpoints

    runs = {_unused(pathlib.Path(run).resolve().name): run for run in values.run_dir or []}
    folders = dict(_named(text) for text in values.folder or [])
    twice = [n for n in runs if n in folders]
    if twice or len(runs) < len(values.run_dir or []) or len(folders) < len(values.folder or []):
        raise UserError("two of the methods have one name: rename a run directory, or the NAME of a --folder")
    models = {name: checkpoints.load(run, values.checkpoint) for name, run in runs.items()}
    if values.data:
        first = next(iter(models.values())).run.data if models else config.Data()
        named = {"data": values.data, "tfds": None, "csv": None, "domain_a": None, "domain_b": None}
        data = dataclasses.replace(first, **named)
    elif models:
        data = next(iter(models.values())).run.data
    else:
        raise UserError("--folder alone does not say what was translated: give --data=FOLDER with testA and testB")
    data = dataclasses.replace(data, **preparation(values))
    for name, model in models.items():
        if (model.channels_a, model.channels_b) != (data.channels_a, data.channels_b):
            raise UserError(
                f"{name} translates {model.channels_a} to {model.channels_b} channels, the images have "
                f"{data.channels_a} and {data.channels_b}: runs of other channels cannot be compared"
            )
    sides = dict(zip("ab", sources.open_domains(data, values.split)))
    methods = {name: evaluation.of_model(model, values.batch_size) for name, model in models.items()}
    methods |= {name: evaluation.of_folder(folder, sides, _directions(values)) for name, folder in folders.items()}
    return models, folders, methods, data, sides


def compare(values, output):
    """Measures several runs and folders on the same images; writes a gallery."""
    from tfi2i.metrics import evaluation, gallery, report

    gallery.check(output, "--output")
    protocol = protocol_of(values)
    models, folders, methods, data, sides = open_methods(values)
    methods |= evaluation.baselines(data, {"a": data.channels_a, "b": data.channels_b})
    results, examples = evaluation.evaluate(
        methods, data, protocol, _directions(values), values.batch_size, sides=sides, rows=values.rows
    )
    print(report.table(results, protocol))
    title = f"{len(models) + len(folders)} methods on {data.data or data.tfds or data.csv}, {values.split}"
    steps = {name: model.checkpoint_step for name, model in models.items()}
    written = {"split": values.split, "data": data.data or data.tfds or data.csv, "folders": folders}
    written |= {"runs": dict(zip(models, values.run_dir or [])), "checkpoint_steps": steps}
    written |= {"protocol": described(protocol, values), "directions": results}
    gallery.write(output, title, results, examples, protocol, {"metrics.json": written})
    print(f"gallery in {output / 'index.html'}, numbers in {output / 'metrics.json'}")


def write_study(values, output):
    """Writes the page of a blind study of several runs and folders."""
    from tfi2i.data import pipeline
    from tfi2i.metrics import evaluation, gallery, study

    gallery.check(output, "--study")
    _, _, methods, data, sides = open_methods(values)
    names = values.domain_names or ["domain A", "domain B"]
    if len(names) != 2:
        raise UserError(f"--domain_names={','.join(names)}: expected two names, of A and of B")
    rows = min(values.limit or values.rows, values.rows)
    examples, real = {}, {}
    for direction in study.directions(methods, _directions(values)):
        examples[direction] = study.translations(methods, sides[direction[0]], data, direction, rows)
        side = sides[direction[2]]
        count = min(values.study_examples, len(side))
        chosen = pipeline.eval_images(side, data, range(count))
        real[direction] = [evaluation.as_8_bits(pixels) for _, pixels in chosen]
    study.write(output, examples, real, dict(zip("ab", names)), values.seed)
    print(f"study in {output / 'index.html'}; keep {study.key_path(output)} from the participants")
    print(f"then: python -m tfi2i.evaluate --study={output} --answers=answers1.json,answers2.json")


def count_study(values, output):
    """Counts the answers of a study."""
    from tfi2i.metrics import study

    counted = study.count(output, values.answers)
    print(study.table(counted, len(values.answers)))
    path = output.with_name(f"{output.name}.results.json")
    write_json(path, {"answers": values.answers, "directions": counted})
    print(f"numbers in {path}")


def _directions(values):
    from tfi2i.metrics import evaluation

    return evaluation.DIRECTIONS if values.direction == "both" else (values.direction,)


def _named(text):
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise UserError(f"--folder={text}: expected NAME=FOLDER")
    return _unused(name), folder


def _unused(name):
    from tfi2i.metrics import report

    if name in report.NAMES or name in report.NAMES.values():
        raise UserError(f"a method cannot be called '{name}', as one of the baselines is")
    return name


def evaluate_folders(values, output):
    """Measures a folder of translations against a folder of real images."""
    from tfi2i.data import images
    from tfi2i.metrics import evaluation, report

    protocol = protocol_of(values)
    results, examples = evaluation.evaluate_folders(
        values.real, values.fake, values.source, protocol, preparation(values), values.batch_size
    )
    print(f"{values.fake} against {values.real}")
    print(report.table(results, protocol))
    path = output.with_name("metrics.json")
    sides = {"real": values.real, "fake": values.fake, "source": values.source, **preparation(values)}
    write_json(path, sides | {"protocol": described(protocol, values), "results": results["a2b"]["fake"]})
    images.write_image(output, report.picture(None, examples, f"{values.fake} against {values.real}"))
    print(f"numbers in {path}, picture in {output}")


def write_json(path, content):
    """Writes a file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    partial.rename(path)


def main(_):
    values = flags.FLAGS
    if values.answers and not values.study:
        raise UserError("--answers belong to a study: give --study=FOLDER")
    apply_preset(values)
    if values.answers:
        return count_study(values, pathlib.Path(values.study))
    if bool(values.real) != bool(values.fake) or values.source and not values.real:
        raise UserError(
            "--real and --fake go together: a folder of real images and one of translations; --source with them"
        )
    if values.real:
        given = [n for n in ("data", "split", "checkpoint", "direction", "study") if not values[n].using_default_value]
        given = [n for n in given if n not in (PRESETS[values.protocol].flags if values.protocol else ())]
        if given:
            raise UserError(f"--{given[0]} is of no account with --real and --fake: leave it out")
    if bool(values.real) == bool(values.run_dir or values.folder):
        raise UserError(
            "give --run_dir=RUN (several are compared), --folder=NAME=FOLDER, or --real=FOLDER and --fake=FOLDER"
        )
    if values.study and not values.real:
        command.import_tensorflow()
        return write_study(values, pathlib.Path(values.study))
    if len(values.run_dir or []) > 1 or values.folder:
        command.import_tensorflow()
        return compare(values, pathlib.Path(values.output or "comparison"))
    folder = values.run_dir[0] if values.run_dir else "."
    output = pathlib.Path(values.output or os.path.join(folder, "evaluate.png"))
    command.import_tensorflow()
    from tfi2i.data import images

    if output.suffix.lower() not in images.EXTENSIONS:
        raise UserError(f"--output={output}: expected the name of an image, such as {output}.png")
    (evaluate_folders if values.real else evaluate_run)(values, output)


def run():
    """Console entry point."""
    define_flags()
    command.run(main)


if __name__ == "__main__":
    run()
