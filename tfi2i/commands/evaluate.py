"""Measures translations on held-out images: how close they are to the truth or the input, and how real.

  tfi2i evaluate --run_dir=runs/quickstart
  tfi2i evaluate --run_dir=runs/mine --metrics=kid,precision_recall,il2,cycle --split=val --limit=100
  tfi2i evaluate --run_dir=runs/cyclegan --run_dir=runs/unit --folder=CUT=outputs/cut --metrics=kid,l1
  tfi2i evaluate --real=photos/testB --fake=outputs --metrics=fid,kid --network=inception_2015
                           --network_weights=pt_inception-2015-12-05-6726825d.pth

Without --metrics it measures L1, pixel accuracy and PSNR of pairs, which are images of the same name in both domains.
It prints a table with two baselines that know nothing of the content, and writes the picture --output of inputs,
translations, truths and back-translations, by default RUN/evaluate.png. The figures go beside that picture, to
evaluate.json, or with --metrics to metrics.json together with the protocol; with --table the table goes there too, for
a paper or a spreadsheet.

Several runs and folders give one table and a gallery, with a row for each input and a column for each of them. Runs
that prepare pictures differently are compared at one --size; runs that differ by their seed only share a row of means.
"""

import pathlib

from absl import flags

from tfi2i import command, machine, run_directory
from tfi2i.config import DIRECTIONS, UserError
from tfi2i.metrics import METRICS, TABLE_FORMS
from tfi2i.metrics.protocols import DEFAULT_METRICS, NETWORKS, PRESETS, RESIZES

# Flags that say what is measured and how: arguments of `protocols.make_protocol`.
_PROTOCOL = (
    "protocol", "metrics", "split", "limit", "size", "pairs", "network", "network_weights", "feature_resize",
    "feature_cache", "kid_subset_size", "kid_subsets", "seed", "labels", "segmentation_weights", "label_domain",
    "filter", "download_weights",
)  # fmt: skip
# Flags that have no effect with --real and --fake.
_OF_RUNS = ("data", "a", "b", "split", "checkpoint", "direction", "study")


def define_flags(values):
    """Declares the flags of this command in `values`."""
    flags.DEFINE_multi_string(
        "run_dir", None, "run directory of a trained model; given several times they are compared", flag_values=values
    )
    flags.DEFINE_multi_string(
        "folder",
        None,
        "NAME=FOLDER: also measure translations of the same images that were made elsewhere, in FOLDER/a2b and "
        "FOLDER/b2a under the images' names; may be given several times",
        flag_values=values,
    )
    flags.DEFINE_string(
        "checkpoint", None, "step of a kept checkpoint, best, or all (default: the newest)", flag_values=values
    )
    flags.DEFINE_enum(
        "split", "test", ("test", "val"), "which held-out images; report on test, tune on val", flag_values=values
    )
    flags.DEFINE_string(
        "data",
        None,
        "folder with testA and testB to take instead of the run's own data; or with --direction a folder of pictures "
        "of the domain that is translated, for metrics that need no others",
        flag_values=values,
    )
    flags.DEFINE_string(
        "a",
        None,
        "with --b: where the pictures of a run of --a and --b are now, split as in training",
        flag_values=values,
    )
    flags.DEFINE_string(
        "b",
        None,
        "with --a: where the pictures of a run of --a and --b are now, split as in training",
        flag_values=values,
    )
    flags.DEFINE_string(
        "output",
        None,
        "picture to write (default: RUN/evaluate.png, or evaluate.png); for a comparison a folder (comparison)",
        flag_values=values,
    )
    flags.DEFINE_string(
        "direction",
        "both",
        "directions to measure: both, a2b, b2a, or by the folders of --a and --b, photos2paintings",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "rows",
        24,
        "images of each direction in the gallery of a comparison, or study",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "study",
        None,
        "folder for a page that asks people which of several translations they prefer",
        flag_values=values,
    )
    flags.DEFINE_list(
        "answers", None, "with --study: files that participants have saved, to be counted", flag_values=values
    )
    flags.DEFINE_list(
        "domain_names", None, "with --study: what A and B are called there, e.g. horses,zebras", flag_values=values
    )
    flags.DEFINE_integer(
        "study_examples", 0, "with --study: real images of the target domain to show", lower_bound=0, flag_values=values
    )
    flags.DEFINE_integer(
        "limit", None, "evaluate no more pairs or images than this, evenly spread", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "batch_size", 8, "images that go through the network at once", lower_bound=1, flag_values=values
    )
    flags.DEFINE_list(
        "metrics",
        None,
        f"what to measure, in any case: {', '.join(METRICS)} (default: {','.join(DEFAULT_METRICS)} of pairs)",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "network",
        "efficientnet_lite0",
        list(NETWORKS),
        "network whose features are compared; only inception_2015 gives published FID and KID",
        flag_values=values,
    )
    flags.DEFINE_string(
        "network_weights", None, "file with the weights of --network, where they are not installed", flag_values=values
    )
    flags.DEFINE_bool(
        "download_weights",
        False,
        "fetch the published weights of --network once, check their SHA-256 and keep them in ~/.cache/tfi2i/weights",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "feature_resize",
        "clean",
        RESIZES,
        "how images are resized for --network: antialiased as in clean-fid, as the network's first code did, or as "
        "pytorch-fid does",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "kid_subset_size",
        None,
        "images of each subset of KID (default: 100, at most half of the smaller set)",
        lower_bound=2,
        flag_values=values,
    )
    flags.DEFINE_integer("kid_subsets", 100, "subsets of KID", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "seed", 2020, "seed of the draw of KID's subsets, and of the orders of a study", flag_values=values
    )
    flags.DEFINE_string(
        "feature_cache", None, "folder that keeps features; empty: none (default: in ~/.cache)", flag_values=values
    )
    flags.DEFINE_bool(
        "pairs",
        True,
        "images with equal names are pairs; use --nopairs if the names match by coincidence",
        flag_values=values,
    )
    flags.DEFINE_string(
        "labels", None, "with fcn_score: folder of label maps, Cityscapes' gtFine/val or train ids", flag_values=values
    )
    flags.DEFINE_string(
        "segmentation_weights", None, "with fcn_score: fcn-8s-cityscapes.caffemodel of pix2pix", flag_values=values
    )
    flags.DEFINE_enum(
        "label_domain", "b", ("a", "b"), "with fcn_score: whose images are pictures of labels", flag_values=values
    )
    flags.DEFINE_enum(
        "protocol",
        None,
        list(PRESETS),
        "split, sizes, network and metrics that a paper's figures were made with; flags given beside it win",
        flag_values=values,
    )
    flags.DEFINE_string(
        "real", None, "folder of real images, to compare --fake with instead of a run", flag_values=values
    )
    flags.DEFINE_string("fake", None, "folder of translations, of any origin", flag_values=values)
    flags.DEFINE_string(
        "source", None, "with --real and --fake: folder of the images that were translated", flag_values=values
    )
    flags.DEFINE_string(
        "size", None, "bring all images to N or H,W first, instead of the run's size", flag_values=values
    )
    flags.DEFINE_enum(
        "filter",
        None,
        ("bicubic", "bilinear", "lanczos"),
        "with --size: the antialiased filter (default: bicubic)",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "table",
        None,
        list(TABLE_FORMS),
        "print the table in this form, and write it beside the JSON file",
        flag_values=values,
    )


def check(values):
    """Raises `UserError`: flags that do not say what is to be done, or say it twice.

    Args:
        values: the flags, `flags.FLAGS`.
    """
    if values.answers and not values.study:
        raise UserError("--answers belong to a study: give --study=FOLDER")
    if values.answers:
        return
    for path in values.run_dir or []:
        if "," in path and not pathlib.Path(path).exists():
            each = " ".join(f"--run_dir={part}" for part in path.split(","))
            raise UserError(f"--run_dir={path} is no run directory: repeat the flag for each run, as in {each}")
    if bool(values.real) != bool(values.fake) or values.source and not values.real:
        raise UserError(
            "--real and --fake go together: a folder of real images and one of translations; --source with them"
        )
    if values.data and (values.a or values.b) or bool(values.a) != bool(values.b):
        raise UserError("give --data=FOLDER, or both --a=FOLDER and --b=FOLDER")
    given = [name for name in _OF_RUNS if not values[name].using_default_value]
    if values.real and given:
        raise UserError(f"--{given[0]} has no effect with --real and --fake: leave it out")
    if bool(values.real) == bool(values.run_dir or values.folder):
        raise UserError(
            "give --run_dir=RUN (several are compared), --folder=NAME=FOLDER, or --real=FOLDER and --fake=FOLDER"
        )


def named_folders(texts):
    """The values of --folder, "NAME=FOLDER", as a dict of name → folder."""
    folders = {}
    for text in texts or []:
        name, _, folder = text.partition("=")
        if not (name and folder):
            raise UserError(f"--folder={text}: expected NAME=FOLDER")
        if name in folders:
            raise UserError(f"--folder={text}: two folders have one name, give each its own")
        folders[name] = folder
    return folders


def work(values):
    """Measures, prints and writes; returns the figures as they are written, or None of a study."""
    check(values)
    if values.answers:
        from tfi2i.metrics import study

        return study.count_study(values.study, values.answers)
    if values.protocol:
        print(f"protocol {values.protocol}: {PRESETS[values.protocol].note}")
    direction = run_directory.direction(values.direction, *(values.run_dir or ()), canonical=("both", *DIRECTIONS))
    protocol = {name: values[name].value for name in _PROTOCOL if not values[name].using_default_value}
    data = (values.a, values.b) if values.a else values.data
    compared = {
        "run_dir": values.run_dir or [],
        "folder": named_folders(values.folder),
        "checkpoint": values.checkpoint,
        "data": data,
        "direction": direction,
        "rows": values.rows,
        "batch_size": values.batch_size,
    }
    table = {"table": values.table} if values.table else {}
    from tfi2i.data import sources

    sources.check_named(data=values.data, a=values.a, b=values.b)  # which need not wait for TensorFlow
    machine.import_tensorflow()
    from tfi2i.metrics import pages

    if values.real:
        folders = {"real": values.real, "fake": values.fake, "source": values.source}
        return pages.evaluate_folders(
            **folders, output=values.output, batch_size=values.batch_size, **table, **protocol
        )
    if values.study:
        more = {"study_examples": values.study_examples, "domain_names": values.domain_names}
        return pages.write_study(values.study, **compared, **more, **protocol)
    if values.folder or len(values.run_dir) > 1:
        return pages.compare(**compared, output=values.output or "comparison", **table, **protocol)
    (run_dir,) = values.run_dir
    return pages.evaluate_run(
        run_dir, values.checkpoint, data, values.output, direction, values.batch_size, **table, **protocol
    )


def main(_):
    work(flags.FLAGS)


def run():
    """Console entry point."""
    define_flags(flags.FLAGS)
    command.run(main)


if __name__ == "__main__":
    run()
