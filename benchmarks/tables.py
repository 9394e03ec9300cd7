"""The table in which a paper compares its method with others, on the bundled drawings and for equal time.

The tables and pictures in docs/explanation/tables.md are of these commands:

  python -m benchmarks.tables --table=cyclegan --output=runs/table_cyclegan
  python -m benchmarks.tables --table=ugatit --output=runs/table_ugatit
  python -m benchmarks.tables --table=ugatit --a=sneakers --b=boots --output=runs/table_shoes

A row is a method. Each gets the same processor time of one core, --minutes, from which the command derives the steps:
it times the first ones. A method that learns one direction is trained for both, each in half of that time. All rows
have the same preparation of the pictures, in training and when they are measured on the test pictures.

The command writes OUTPUT/table.md, OUTPUT/pictures.png and, of --table=ugatit, the page of a blind study,
OUTPUT/study. It trains what is not trained yet: broken off, the same command goes on. --measure_only trains nothing and
leaves out rows that are not trained to their end; --rows takes some of the rows.

--a and --b are folders of two domains to take instead of the drawings, a tenth of which is kept for the test. Their
pictures are no pairs: only KID is measured, and methods that learn from pairs are left out.

"Feature loss + GAN" and CartoonGAN need weights of VGG16, which Keras downloads where --vgg_weights names no file.
"""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

from absl import flags

from benchmarks.common import python
from tfi2i import command, files, machine, presets, run_directory, settings
from tfi2i.config import DIRECTIONS, UserError
from tfi2i.methods import METHODS
from tfi2i.metrics import columns, tables

SIDE, FILTER = 64, "bicubic"
PREPARATION = (f"--resize={SIDE}", f"--crop={SIDE}", "--resize_mode=exact", f"--resize_filter={FILTER}", "--flip=0.5")
PICTURES = 5  # of each direction
STUDY_PICTURES = 12


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        name: the paper's.
        flags: of tfi2i train.
        paper: direction → the paper's figures, as many as the table has headings.
        vgg: whether a loss needs weights of VGG16.
    """

    name: str
    flags: str
    paper: dict = dataclasses.field(default_factory=dict)
    vgg: bool = False

    @property
    def given(self):
        """The flags, with presets replaced by their lines."""
        return presets.expand(self.flags.split())

    @property
    def config_class(self):
        """The hyper-parameters of the method."""
        method = next(flag.partition("=")[2] for flag in self.given if flag.startswith("--method="))
        return METHODS[method].config_class

    @property
    def parts(self):
        """What is trained for the row: a dict of the name of a run → its flags."""
        key = re.sub(r"\W+", "_", self.name.lower().replace("+", "and")).strip("_")
        if "direction" not in settings.field_names(self.config_class):
            return {key: self.flags.split()}
        return {f"{key}_{d}": [*self.flags.split(), f"--direction={d}"] for d in DIRECTIONS}


@dataclasses.dataclass(frozen=True)
class Table:
    """A paper's comparison.

    Args:
        metrics: what is measured of pairs, as of tfi2i evaluate.
        headings: direction → headings of the paper's figures.
        source: what these figures are.
        rows: tuple of `Row`.
        study: whether there is a blind study.
    """

    metrics: tuple
    headings: dict
    source: str
    rows: tuple
    study: bool = False


def fcn(photos_to_labels, labels_to_photos):
    """FCN scores of both directions. The photos of Cityscapes are domain A, its label maps B."""
    return {"a2b": (photos_to_labels,), "b2a": (labels_to_photos,)}


def kid(there, back):
    """KID × 100 of both directions, as many as the table has headings."""
    return {"a2b": tuple(there.split(", ")), "b2a": tuple(back.split(", "))}


# The papers use no identity loss for such tasks. Its weight is relative to those of the cycles.
_CYCLEGAN = "--preset=cyclegan/emoji --lambda_identity=0"
TABLES = {
    "cyclegan": Table(
        metrics=("l1", "pixel_accuracy", "kid"),
        headings={"a2b": ("paper: photos → labels",), "b2a": ("paper: labels → photos",)},
        source="The paper's figures are FCN scores on Cityscapes: per-pixel accuracy / per-class accuracy / class IoU, "
        "higher is better (arXiv 1703.10593, tables 2 to 5). Here are other pictures, measures and networks: compare "
        "the order of the rows, not the figures.",
        rows=(
            Row("CycleGAN", _CYCLEGAN, fcn("0.58 / 0.22 / 0.16", "0.52 / 0.17 / 0.11")),
            Row(
                "cycle alone", "--preset=cyclegan/ablation_cycle_only", fcn("0.10 / 0.05 / 0.02", "0.22 / 0.07 / 0.02")
            ),
            Row("GAN alone", "--preset=cyclegan/ablation_gan_only", fcn("0.53 / 0.11 / 0.07", "0.51 / 0.11 / 0.08")),
            Row(
                "GAN + forward cycle",
                "--preset=cyclegan/ablation_gan_forward",
                fcn("0.49 / 0.11 / 0.07", "0.55 / 0.18 / 0.12"),
            ),
            Row(
                "GAN + backward cycle",
                "--preset=cyclegan/ablation_gan_backward",
                fcn("0.01 / 0.06 / 0.01", "0.39 / 0.14 / 0.06"),
            ),
            Row("CoGAN", "--preset=cogan/emoji", fcn("0.45 / 0.11 / 0.08", "0.40 / 0.10 / 0.06")),
            Row("BiGAN/ALI", "--preset=bigan/emoji", fcn("0.41 / 0.13 / 0.07", "0.19 / 0.06 / 0.02")),
            Row("SimGAN", "--preset=simgan/emoji", fcn("0.47 / 0.11 / 0.07", "0.20 / 0.10 / 0.04")),
            Row(
                "Feature loss + GAN",
                "--preset=simgan/emoji_vgg",
                fcn("0.50 / 0.10 / 0.06", "0.06 / 0.04 / 0.01"),
                vgg=True,
            ),
            Row("pix2pix (paired)", "--preset=pix2pix/emoji", fcn("0.85 / 0.40 / 0.32", "0.71 / 0.25 / 0.18")),
        ),
    ),
    "ugatit": Table(
        metrics=("kid",),
        headings={
            "a2b": ("selfie → anime", "horse → zebra", "cat → dog", "photo → portrait", "photo → vangogh"),
            "b2a": ("anime → selfie", "zebra → horse", "dog → cat", "portrait → photo", "vangogh → photo"),
        },
        source="The paper's figures are KID × 100 of five other pairs of domains, on features of Inception (arXiv "
        "1907.10830, table 3), most likely its first author's mean of the distances to the target and to the source. "
        "Compare the order of the rows, not the figures.",
        rows=(
            Row(
                "U-GAT-IT light",
                "--preset=ugatit/emoji",
                kid(
                    "11.61 ± 0.57, 7.06 ± 0.80, 7.07 ± 0.65, 1.79 ± 0.34, 4.28 ± 0.33",
                    "11.52 ± 0.57, 7.47 ± 0.71, 8.15 ± 0.66, 1.69 ± 0.53, 5.61 ± 0.32",
                ),
            ),
            Row(
                "CycleGAN",
                "--preset=cyclegan/emoji",
                kid(
                    "13.08 ± 0.49, 8.05 ± 0.72, 8.92 ± 0.69, 1.84 ± 0.34, 5.46 ± 0.33",
                    "11.84 ± 0.74, 8.00 ± 0.66, 9.94 ± 0.36, 1.82 ± 0.36, 4.68 ± 0.36",
                ),
            ),
            Row(
                "UNIT",
                "--preset=unit/emoji",
                kid(
                    "14.71 ± 0.59, 10.44 ± 0.67, 8.15 ± 0.48, 1.20 ± 0.31, 4.26 ± 0.29",
                    "26.32 ± 0.92, 14.93 ± 0.75, 9.81 ± 0.34, 1.42 ± 0.24, 9.72 ± 0.33",
                ),
            ),
            Row(
                "MUNIT",
                "--preset=munit/emoji",
                kid(
                    "13.85 ± 0.41, 11.41 ± 0.83, 10.13 ± 0.27, 4.75 ± 0.52, 13.08 ± 0.34",
                    "13.94 ± 0.72, 16.47 ± 1.04, 10.39 ± 0.25, 3.30 ± 0.47, 9.53 ± 0.35",
                ),
            ),
            Row(
                "DRIT",
                "--preset=drit/emoji",
                kid(
                    "15.08 ± 0.62, 9.79 ± 0.62, 10.92 ± 0.33, 5.85 ± 0.54, 12.65 ± 0.35",
                    "14.85 ± 0.60, 10.98 ± 0.55, 10.86 ± 0.24, 4.76 ± 0.72, 7.72 ± 0.34",
                ),
            ),
            Row(
                "AGGAN",
                "--preset=aggan/emoji",
                kid(
                    "14.63 ± 0.55, 7.58 ± 0.71, 9.84 ± 0.79, 2.33 ± 0.36, 6.95 ± 0.33",
                    "12.72 ± 1.03, 8.80 ± 0.66, 9.45 ± 0.64, 2.19 ± 0.40, 5.85 ± 0.31",
                ),
            ),
            Row(
                "CartoonGAN",
                "--preset=cartoongan/emoji",
                kid("15.85 ± 0.69, –, –, –, –", "–, –, –, –, –"),
                vgg=True,
            ),
        ),
        study=True,
    ),
}


def define_flags(values):
    """Declares the flags of this command."""
    flags.DEFINE_enum("table", "cyclegan", list(TABLES), "whose comparison", flag_values=values)
    flags.DEFINE_string("output", None, "folder of the run directories", required=True, flag_values=values)
    flags.DEFINE_float("minutes", 10, "processor time of a row's training", lower_bound=0, flag_values=values)
    flags.DEFINE_list("seeds", ["0"], "seeds to train with, one after the other", flag_values=values)
    flags.DEFINE_list("rows", None, "names of the rows to take (default: all)", flag_values=values)
    flags.DEFINE_string("a", None, "with --b: folder of domain A instead of the drawings", flag_values=values)
    flags.DEFINE_string("b", None, "with --a: folder of domain B", flag_values=values)
    flags.DEFINE_string(
        "vgg_weights",
        None,
        "file of Keras' VGG16 weights without top (.h5) for losses of features; by default Keras downloads them",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "measure_only", False, "train nothing; leave out what is not trained to its end", flag_values=values
    )


class Trainings:
    """The runs of a table in a folder.

    Args:
        root: path of the folder.
        minutes: processor time of a row.
        data: flags of tfi2i train that name the pictures; none: the presets'.
        vgg_weights: path of a file for rows that need it; None: Keras downloads it.

    Raises:
        UserError: the folder has runs of other minutes or pictures.
    """

    def __init__(self, root, minutes, data, vgg_weights=None):
        self.root, self._data, self._vgg_weights = root, list(data), vgg_weights
        self._path, of_this = root / "steps.json", {"minutes": minutes, "data": self._data}
        self._kept = of_this | {"steps": {}}
        if self._path.is_file():
            self._kept = json.loads(self._path.read_text(encoding="utf-8"))
            for name, value in of_this.items():
                if self._kept[name] != value:
                    raise UserError(
                        f"--output={root} has runs of {name} {self._kept[name]}, asked for is {value}: give another "
                        "--output"
                    )

    def check(self, row):
        """Raises `UserError`: the folder has runs of the row's name, of another table, with other flags."""
        for part, own in row.parts.items():
            given = presets.expand(own)
            # Earlier versions kept none.
            differing = {*self._kept["steps"].get(part, {}).get("flags", given)} ^ {*given}
            if differing:
                raise UserError(
                    f"--output={self.root} has a run of {row.name} with other flags ({', '.join(sorted(differing))}): "
                    "give another --output"
                )

    def run_dir(self, part, seed):
        """Where a part of a row is trained."""
        return self.root / f"{part}_{seed}"

    def steps(self, part):
        """How many steps a part of a row has, or None: not timed yet."""
        return self._kept["steps"].get(part, {}).get("steps")

    def milliseconds(self, part):
        """Of processor time of one step, a list: of each stage."""
        return self._kept["steps"][part]["milliseconds"]

    def is_trained(self, part, seed):
        """Whether a run directory holds the checkpoint of its last step."""
        steps = self.steps(part)
        return bool(steps) and run_directory.checkpoint_folder(self.run_dir(part, seed), steps).is_dir()

    def train(self, row, seed):
        """Trains what is not trained to its end of a row; times its steps where they are not known."""
        for part, own in row.parts.items():
            given = [*own, *PREPARATION, *self._data]
            if row.vgg and self._vgg_weights:
                given.append(f"--vgg_weights={self._vgg_weights}")
            if not self.steps(part):
                minutes = self._kept["minutes"] / len(row.parts)
                asked = [sys.executable, "-m", "benchmarks.duration", *given, f"--minutes={minutes}"]
                done = subprocess.run(asked, stdout=subprocess.PIPE, text=True)
                if done.returncode:
                    raise UserError(f"python {' '.join(asked[1:])} ended with status {done.returncode}")
                # Keras says on standard output what it downloads.
                measured = json.loads(done.stdout.splitlines()[-1])
                self._kept["steps"][part] = measured | {"flags": presets.expand(own)}
                self.root.mkdir(parents=True, exist_ok=True)
                files.write_text(self._path, json.dumps(self._kept, indent=1) + "\n")
            if not self.is_trained(part, seed):
                given += [f"--steps={self.steps(part)}", f"--seed={seed}"]
                python("tfi2i.train", *given, f"--run_dir={self.run_dir(part, seed)}")

    def measure(self, row, seed, metrics):
        """Measured values of a row's runs on the test pictures: direction → candidate → values, see `tfi2i.evaluate`.

        None where a part of the row is not trained to its end.
        """
        if not all(self.is_trained(part, seed) for part in row.parts):
            return None
        directions = {}
        for part in row.parts:
            run = self.run_dir(part, seed)
            path = run / "metrics.json"
            if not path.is_file():
                more = ["--nopairs"] if self._data else []
                python(
                    "tfi2i.evaluate",
                    f"--run_dir={run}",
                    f"--metrics={','.join(metrics)}",
                    f"--size={SIDE}",
                    f"--filter={FILTER}",
                    *more,
                )
            directions |= json.loads(path.read_text(encoding="utf-8"))["directions"]
        return directions


def markdown(table, results, steps):
    """The table: for each direction a line of each row, and of the two baselines.

    Args:
        table: `Table`.
        results: row's name → list of `Trainings.measure`, one of each seed.
        steps: row's name → text.

    Returns:
        str.
    """
    lines = []
    for direction in DIRECTIONS:
        of_rows = {name: [seed[direction] for seed in seeds if direction in seed] for name, seeds in results.items()}
        of_rows = {name: seeds for name, seeds in of_rows.items() if seeds}
        if not of_rows:
            continue
        first = next(iter(of_rows.values()))[0]
        measured = [name for name in table.metrics if tables.key_of(first["model"], name)]
        heads = [tables.heading(name, [first["model"]]) for name in measured]
        paper = table.headings[direction]
        lines += ["", f"| {tables.in_words(direction)} | seeds | steps | {' | '.join((*heads, *paper))} |"]
        lines += ["|---" * (3 + len(heads) + len(paper)) + "|"]
        for row in table.rows:
            if row.name in of_rows:
                seeds = of_rows[row.name]
                cells = _cells([seed["model"] for seed in seeds], measured)
                cells = [
                    row.name,
                    str(len(seeds)),
                    steps[row.name],
                    *cells,
                    *row.paper.get(direction, ["–"] * len(paper)),
                ]
                lines.append(f"| {' | '.join(cells)} |")
        for baseline in ("match_moments", "do_nothing"):
            if baseline in first:
                cells = [tables.NAMES[baseline], "", "", *_cells([first[baseline]], measured), *[""] * len(paper)]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", table.source])[1:] + "\n"


def _cells(of_seeds, names):
    """A mean for each metric, ± the standard deviation over seeds; of one seed, KID has that over its subsets."""
    if len(of_seeds) > 1:
        together = {"d": {str(i): values for i, values in enumerate(of_seeds)}}
        (mean,) = tables.over_seeds(together, {"mean": list(together["d"])})["d"].values()
    else:
        (mean,) = of_seeds
    cells = []
    for name in names:
        key = tables.key_of(mean, name)
        spread = tables.spread_of(mean, key) if len(of_seeds) > 1 or name == "kid" else None
        cells.append(columns()[name].text(mean[key], spread))
    return cells


def pictures(table, trainings, rows, seed):
    """Test pictures of both directions beside each other, and under them their translations by each row.

    Args:
        table: `Table`.
        trainings: `Trainings`.
        rows: those that are trained.
        seed: of the runs.

    Returns:
        uint8 [H, W, 3].
    """
    from tfi2i import checkpoints
    from tfi2i.metrics import candidates, held_out, pairs, protocols, study

    models = {part: checkpoints.load(trainings.run_dir(part, seed)) for row in rows for part in row.parts}
    by_part = {part: candidates.of_model(model) for part, model in models.items()}
    protocol = protocols.make_protocol(metrics=table.metrics, size=f"{SIDE}", filter=FILTER)
    data = protocol.prepare(next(iter(models.values())).run.data)
    domains = held_out.open_domains(data, "test")
    shown = {}
    for d in DIRECTIONS:
        row_of = {row.name: p for row in rows for p in row.parts if d in by_part[p].directions}
        able = {name: by_part[part] for name, part in row_of.items()}
        source, target = domains[d[0]], domains[d[2]]
        examples = study.translations(able, source, data, d, PICTURES)
        columns_ = {"input": [example["input"] for example in examples]}
        partners = {} if data.a else {source.names[i]: j for i, j in pairs.find_pairs(source, target)}
        if partners:
            positions = [partners[example["name"]] for example in examples]
            columns_["truth"] = [held_out.as_8_bits(held_out.read_image(target, j, data)) for j in positions]
        for name in able:
            columns_[name] = [example["results"][name] for example in examples]
        shown[d] = columns_
    return sheet(shown)


def sheet(shown):
    """Lays out pictures: a line for each name, and a block of columns for each direction.

    Args:
        shown: direction → name → list of uint8 [S, S, 1 or 3].

    Returns:
        uint8 [H, W, 3].
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    names = list(dict.fromkeys(name for of_names in shown.values() for name in of_names))
    font, margin, gap, top = ImageFont.load_default(15), 6, 24, 28
    side = SIDE + margin
    left = margin * 2 + int(max(font.getlength(name) for name in names))
    counts = [len(next(iter(of_names.values()))) for of_names in shown.values()]
    page = Image.new("RGB", (left + sum(counts) * side + gap * (len(counts) - 1), top + len(names) * side), "white")
    draw, x = ImageDraw.Draw(page), left
    for (direction, of_names), count in zip(shown.items(), counts):
        draw.text((x + count * side / 2, top / 2), tables.in_words(direction), "black", font, "mm")
        for name, images in of_names.items():
            for i, image in enumerate(images):
                image = np.broadcast_to(image, (*image.shape[:2], 3))
                at = (x + i * side, top + names.index(name) * side)
                page.paste(Image.fromarray(np.ascontiguousarray(image)), at)
                box = (at[0] - 1, at[1] - 1, at[0] + image.shape[1], at[1] + image.shape[0])
                draw.rectangle(box, outline=(220, 220, 220))
        x += count * side + gap
    for i, name in enumerate(names):
        draw.text((margin, top + i * side + SIDE / 2), name, "black", font, "lm")
    return np.asarray(page)


def chosen_rows(table, names, unpaired):
    """The rows of a table that were asked for.

    Args:
        table: `Table`.
        names: of rows; None: all.
        unpaired: leave out those that learn from pairs, and say so.

    Raises:
        UserError: an unknown name, or no row is left.
    """
    known = {row.name: row for row in table.rows}
    for name in names or ():
        if name not in known:
            raise UserError(f"--rows={','.join(names)}: '{name}' is none of {', '.join(known)}")
    rows = [known[name] for name in names or known]
    paired = [row.name for row in rows if unpaired and row.config_class.data_class.paired]
    if len(paired) == len(rows):
        raise UserError(
            f"--rows={','.join(paired)}: no row is left, because all of them learn from pairs, which --a and --b are "
            "not: name other rows"
        )
    if paired:
        print(f"{', '.join(paired)}: left out, it learns from pairs, which --a and --b are not")
    return [row for row in rows if row.name not in paired]


def chosen_seeds(given):
    """The integers that --seeds names. Raises `UserError`: some are none, or one comes twice."""
    asked = f"--seeds={','.join(given)}"
    try:
        seeds = [int(seed) for seed in given]
    except ValueError:
        raise UserError(f"{asked}: expected integers with commas between them") from None
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"{asked}: expected one seed or several different ones")
    return seeds


def pin():
    """Keeps this process, and those that it starts, on one core: TensorFlow then computes with one thread."""
    if not hasattr(os, "sched_setaffinity"):
        raise UserError("this command gives each training one core, which only Linux can do: run it there")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main(_):
    values = flags.FLAGS
    table, root = TABLES[values.table], pathlib.Path(values.output)
    if bool(values.a) != bool(values.b):
        raise UserError("--a and --b go together: give both folders, or none for the bundled drawings")
    data = [f"--a={os.path.abspath(values.a)}", f"--b={os.path.abspath(values.b)}"] if values.a else []
    rows, seeds = chosen_rows(table, values.rows, unpaired=bool(data)), chosen_seeds(values.seeds)
    trainings = Trainings(root, values.minutes, data, values.vgg_weights)
    for row in rows:
        trainings.check(row)
    metrics = ("kid",) if data else table.metrics
    pin()
    results = {}
    for seed in seeds:
        for row in rows:
            if not values.measure_only:
                trainings.train(row, seed)
            measured = trainings.measure(row, seed, metrics)
            if measured:
                results.setdefault(row.name, []).append(measured)
    if not results:
        raise UserError(f"--output={root} has no row that is trained to its end: leave --measure_only out")
    trained = [row for row in rows if row.name in results]
    steps = {row.name: " + ".join(f"{trainings.steps(part):,}" for part in row.parts) for row in trained}
    text = markdown(table, results, steps)
    files.write_text(root / "table.md", text)
    print(text)
    if table.study and len(trained) > 1:
        runs = [f"--run_dir={trainings.run_dir(part, seeds[0])}" for row in trained for part in row.parts]
        more = (f"--size={SIDE}", f"--filter={FILTER}", f"--rows={STUDY_PICTURES}")
        python("tfi2i.evaluate", f"--study={root / 'study'}", *runs, *more)
    machine.import_tensorflow()
    from tfi2i.data import images

    images.write_image(root / "pictures.png", pictures(table, trainings, trained, seeds[0]))
    print(f"table in {root / 'table.md'}, pictures in {root / 'pictures.png'}")


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    command.run(main)
