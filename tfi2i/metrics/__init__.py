"""The table of metrics: what can be measured, and how its values are written and compared. No TensorFlow."""

import dataclasses

from tfi2i.config import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Column:
    """A value that a metric measures, as people read it: a column of a table, an axis of a plot.

    Attributes:
        heading: its title.
        decimals: how many are written.
        factor: what a value is multiplied by before it is written.
        unit: what is written behind it, with the space before it.
        higher_is_better: False where lower is better.
    """

    heading: str
    decimals: int = 2
    factor: int = 1
    unit: str = ""
    higher_is_better: bool = False

    def text(self, value, spread=None):
        """A value for people to read, with ± `spread` where there is one: 0.0306, 0.0037 → '3.06 ± 0.37'."""
        text = f"{self.factor * value:.{self.decimals}f}"
        if spread is not None:
            text += f" ± {self.factor * spread:.{self.decimals}f}"
        return text + self.unit


@dataclasses.dataclass(frozen=True)
class Metric:
    """Something that can be asked for by `--metrics`.

    Attributes:
        compared_with: what the translations are compared with. "real": the real images of their domain, set with set.
            "truth": each with the other image of its pair or, in data without pairs, with its input. "input": each
            with its input. "labels": the label maps of the inputs. "samples": translations of one input with different
            styles with each other.
        columns: dict of the name of each measured value → `Column`. In reports the names of values of features end in
            the feature network's name: `fid_inception_2015`.
        of_features: whether a feature network is needed.
        needs_input: whether the images that were translated are needed, besides the translations.
        least_images: how many real images, and how many translations, are needed where sets are compared.
    """

    compared_with: str
    columns: dict
    of_features: bool = False
    needs_input: bool = False
    least_images: int = 1


METRICS = {
    "fid": Metric("real", {"fid": Column("Fréchet")}, of_features=True, least_images=2),
    "kid": Metric("real", {"kid": Column("KID ×100", factor=100)}, of_features=True, least_images=2),
    "mean_kid": Metric(
        "real", {"mean_kid": Column("mean KID ×100", factor=100)}, of_features=True, needs_input=True, least_images=2
    ),
    "precision_recall": Metric(
        "real",
        {
            "precision": Column("precision", higher_is_better=True),
            "recall": Column("recall", higher_is_better=True),
        },
        of_features=True,
        least_images=4,  # an image and three neighbours
    ),
    "diversity": Metric("samples", {"diversity": Column("diversity", 3, higher_is_better=True)}, of_features=True),
    "l1": Metric("truth", {"l1": Column("L1 (of 255)")}),
    "l2": Metric("truth", {"l2": Column("L2")}),
    "pixel_accuracy": Metric(
        "truth",
        {
            "pixel_accuracy": Column("pixels within 16", 1, 100, " %", higher_is_better=True),
            "channel_accuracy": Column("channels within 16", 1, 100, " %", higher_is_better=True),
        },
    ),
    "psnr": Metric("truth", {"psnr": Column("PSNR", 1, unit=" dB", higher_is_better=True)}),
    "mean_psnr": Metric("truth", {"mean_psnr": Column("mean PSNR", 1, unit=" dB", higher_is_better=True)}),
    "ssim": Metric("truth", {"ssim": Column("SSIM", 3, higher_is_better=True)}),
    "lpips_like": Metric("truth", {"lpips_like": Column("LPIPS-like", 3)}, of_features=True),
    "il2": Metric("input", {"il2": Column("I-L2")}, of_features=True, needs_input=True),
    "cycle": Metric("input", {"cycle": Column("cycle L1")}, needs_input=True),
    "fcn_score": Metric(
        "labels",
        {
            "per_pixel_accuracy": Column("per-pixel acc.", 3, higher_is_better=True),
            "per_class_accuracy": Column("per-class acc.", 3, higher_is_better=True),
            "class_iou": Column("class IoU", 3, higher_is_better=True),
        },
        needs_input=True,
    ),
}


# Forms of tables for papers and spreadsheets, see `tables.table` → the extension of the file.
TABLE_FORMS = {"md": ".md", "csv": ".csv", "latex": ".tex"}


def columns(*compared_with):
    """dict of name → `Column` of all values that are compared with one of those, in the table's order; none: of all."""
    chosen = [m for m in METRICS.values() if not compared_with or m.compared_with in compared_with]
    return {name: column for metric in chosen for name, column in metric.columns.items()}


def metric_of(column):
    """The `Metric` that measures the value of that name."""
    return next(metric for metric in METRICS.values() if column in metric.columns)


# ------------------------------------------------------------------------------------------- evaluation during training


def eval_metrics(training):
    """The metrics that a run measures while it trains, in the order that they were given in.

    Args:
        training: a `config.Training`.
    """
    return tuple(name.strip().lower() for name in training.eval_metrics.split(","))


def best_metrics(training):
    """The values that may decide which step of a run is the best; without --best_metric the first one does.

    Closeness to the input may not: a model that returns its input would be the best. Nor may diversity: noise has it.

    Args:
        training: a `config.Training`.
    """
    able = [METRICS[name] for name in eval_metrics(training) if METRICS[name].compared_with not in ("input", "samples")]
    return tuple(name for metric in able for name in metric.columns)


def check_training(training):
    """Checks --eval_metrics and --best_metric.

    Args:
        training: a `config.Training`.

    Raises:
        UserError: a metric that is unknown or cannot be measured while training, or that cannot decide which step is
            the best.
    """
    # Label maps are given to `tfi2i.evaluate` only.
    able = [name for name, metric in METRICS.items() if metric.compared_with != "labels"]
    unknown = [name for name in eval_metrics(training) if name not in able]
    if unknown:
        raise UserError(
            f"--eval_metrics={training.eval_metrics}: '{unknown[0]}' is none of {', '.join(able)}"
            f"{did_you_mean(unknown[0], able)}"
        )
    if training.eval_every and not best_metrics(training):
        raise UserError(
            f"--eval_metrics={training.eval_metrics} has nothing that can decide on best/: a model that returns its "
            "input is the closest to it. Add kid"
        )
    if training.best_metric and training.best_metric.lower() not in best_metrics(training):
        raise UserError(
            f"--best_metric={training.best_metric}: expected one of {', '.join(best_metrics(training))}, which "
            f"--eval_metrics={training.eval_metrics} measures"
        )
