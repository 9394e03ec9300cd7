"""What `tfi2i.metrics.evaluation` has measured, as tables for people, papers and spreadsheets."""

import csv
import io
import re
import statistics

from tfi2i.metrics import columns, metric_of
from tfi2i.metrics.protocols import NETWORKS

NAMES = {
    "model": "this model",
    "teacher": "its teacher",
    "match_moments": "match colours",
    "do_nothing": "do nothing",
    "truth": "the truth",
}
_STANDARD = {
    True: "",
    False: " This is NOT the published file of this network.",
    None: " The published file's hash is not known, so this file could not be compared with it.",
}
# Below so many images, on either side, a figure is printed with a warning of what is wrong with it.
_FEW = {
    "fid": (2000, "is too high by an amount that depends on their number: report KID instead"),
    "kid": (50, "depends much on which images they are: take more of them"),
}
_LATEX = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"×": r"$\times$", "±": r"$\pm$", "<": "$<$", ">": "$>$"}
)


def spread_of(values, key):
    """The ± of a measured value: `key`_std or `key`_error, or None."""
    return values.get(f"{key}_std", values.get(f"{key}_error"))


def key_of(values, column):
    """The key of a column among measured values, or None: with a network behind its name, or "input_" before it."""
    for key in values:
        name = key.removeprefix("input_")
        if name == column or (name.startswith(f"{column}_") and not name.endswith(("_std", "_error", "_size"))):
            return key
    return None


def in_words(direction):
    """'a2b' → 'A to B'."""
    return f"{direction[0]} to {direction[2]}".translate(str.maketrans("ab", "AB"))


def heading(name, measured, network=None):
    """The title of a column: what is measured, on the features of which network, and whether compared with the input.

    Args:
        name: of the column, see `metrics.columns`.
        measured: dicts of measured values, of which one at least has the column.
        network: the `features.FeatureNetwork`, or None.

    Returns:
        str, such as "KID ×100, EfficientNet-Lite0". Only the published network's Fréchet distance is called FID.
    """
    keys = [key for key in (key_of(values, name) for values in measured) if key]
    title = columns()[name].heading
    if name == "fid" and network and network.name == "inception_2015" and network.standard:
        title = "FID"
    if any(key.startswith("input_") for key in keys):
        title += " to input"
    if metric_of(name).of_features:
        of_features = keys[0].removeprefix("input_").removeprefix(f"{name}_")
        title += f", {NETWORKS.get(of_features, of_features)}"
    return title


def over_seeds(results, groups):
    """Puts one candidate in the place of those that differ by their seed only.

    Args:
        results: direction → candidate → measured values.
        groups: dict of a new candidate's name → names of those that it stands for, two or more.

    Returns:
        the same form. A new candidate has the mean of every value; its `…_std` is the sample standard deviation over
        the seeds, of which there are `seeds`.
    """
    group_of = {name: group for group, names in groups.items() for name in names}
    together = {}
    for direction, candidates in results.items():
        together[direction] = {}
        for name, values in candidates.items():
            group = group_of.get(name)
            if not group:
                together[direction][name] = values
            elif group not in together[direction]:
                together[direction][group] = _mean([candidates[n] for n in groups[group]])
    return together


def _mean(of_seeds):
    counts = ("n", "n_real", "n_fake", "kid_subset_size")
    mean = {"seeds": len(of_seeds)} | {key: value for key, value in of_seeds[0].items() if key in counts}
    for key in of_seeds[0]:
        if key not in counts and not key.endswith(("_std", "_error")):
            values = [values[key] for values in of_seeds]
            if None in values:  # PSNR without any error
                mean[key] = None
            else:
                mean |= {key: statistics.mean(values), f"{key}_std": statistics.stdev(values)}
    return mean


def table(results, protocol=None, form=None):
    """The results of `evaluation.evaluate` as text.

    Args:
        results: direction → candidate → measured values.
        protocol: the `Protocol`, for titles and the notes below.
        form: "md", "csv" or "latex"; None: aligned, for a terminal. All but CSV end with the notes.
    """
    if form == "csv":
        return _csv(results, protocol)
    sections = [
        _rows(results, protocol, *kind)
        for kind in ((("truth", "input", "labels"), "n"), (("real", "samples"), "n_fake"))
    ]
    lines = []
    for rows in filter(None, sections):
        lines += [*{None: _aligned, "md": _markdown, "latex": _latex}[form](rows), ""]
    if form == "latex":
        return "\n".join(
            ["% needs \\usepackage{booktabs}", *lines, *(f"% {note}" for note in notes(results, protocol))]
        )
    return "\n".join([*lines, *("\n\n" if form else "\n").join(notes(results, protocol)).splitlines()])


def _rows(results, protocol, compared_with, count):
    """A table of the columns that are compared with those: lists of cells, the first one of titles; or None."""
    measured = _measured(results)
    present = {n: column for n, column in columns(*compared_with).items() if any(key_of(v, n) for v in measured)}
    if not present:
        return None
    rows = [["", "", "n", *(heading(name, measured, protocol and protocol.network) for name in present)]]
    for direction, candidates in results.items():
        for candidate, values in candidates.items():
            n = values.get(count, values.get("n"))
            n = f"{n} / {values['n_real']}" if count == "n_fake" and count in values else str(n)
            cells = [_cell(values, name, column) for name, column in present.items()]
            rows.append([direction, NAMES.get(candidate, candidate), n, *cells])
    return rows


def _measured(results):
    return [values for candidates in results.values() for values in candidates.values()]


def _cell(values, name, column):
    key = key_of(values, name)
    if key is None:
        return "-"
    return "equal" if values[key] is None else column.text(values[key], spread_of(values, key))


def _aligned(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    widths[0], widths[1], widths[2] = 4, max(widths[1], 14), max(widths[2], 5)
    lines = []
    for row in rows:
        cells = [f"{row[0]:{widths[0]}}", f"{row[1]:{widths[1]}}", f"{row[2]:>{widths[2]}}"]
        cells += [f" {cell:>{width}}" for cell, width in zip(row[3:], widths[3:])]
        lines.append(" ".join(cells).rstrip())
    return lines


def _markdown(rows):
    rows = [[re.sub(r"([|<*`])", r"\\\1", cell) for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|---|---" + "|---:" * (len(rows[0]) - 2) + "|", *lines[1:]]


def _latex(rows):
    lines = [" & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in rows]
    across = "ll" + "r" * (len(rows[0]) - 2)
    begin, end = rf"\begin{{tabular}}{{{across}}}", r"\end{tabular}"
    return [begin, r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", end]


def _csv(results, protocol):
    """One table of all values, not rounded; the ± of a column is a column of its own."""
    measured, network = _measured(results), protocol and protocol.network
    counts = [n for n in ("seeds", "n", "n_fake", "n_real") if any(n in values for values in measured)]
    present = {n: column for n, column in columns().items() if any(key_of(values, n) for values in measured)}
    titles = [heading(name, measured, network) + column.unit for name, column in present.items()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["direction", "name", *counts, *(t for title in titles for t in (title, f"± {title}"))])
    for direction, candidates in results.items():
        for candidate, values in candidates.items():
            cells = [values.get(n) for n in counts]
            for name, column in present.items():
                key = key_of(values, name)
                pair = (values[key], spread_of(values, key)) if key else (None, None)
                cells += [None if x is None else f"{column.factor * x:.6g}" for x in pair]
            writer.writerow([direction, NAMES.get(candidate, candidate), *cells])
    return text.getvalue().rstrip("\n")


def notes(results, protocol):
    """Sentences that say what the figures of a table are, and which of them are of too few images: a list."""
    measured = _measured(results)

    def has(*names):
        return any(key_of(values, name) for values in measured for name in names)

    lines = []
    if has(*columns("truth", "input", "labels")):
        note = "Values are means over images ± their standard deviation."
        if has("psnr"):
            note += " PSNR is of the squared error of all images together ± its standard error."
        lines.append(note)
    if any(key.startswith(("input_", "il2", "cycle")) for values in measured for key in values):
        lines.append(
            "Closeness to the input (to input, I-L2, cycle) alone proves nothing: an unchanged input scores perfectly. "
            "Read it beside realism."
        )
    if has("diversity"):
        lines.append(
            "Diversity is the distance of two translations of one input with different styles in the network's maps, "
            "without LPIPS' learned weights: the mean over inputs ± their standard deviation. Noise has diversity too: "
            "read it beside realism."
        )
    if has("class_iou"):
        lines.append(
            "Accuracies and IoU of classes are of the pixels of all images together ± standard error (bootstrap over "
            "images). A class that no label map shows counts as 0."
        )
    if protocol and protocol.network:
        network = protocol.network
        lines.append(
            f"Features: {network.name}, {network.size} px, {network.filter}; weights {network.weights}, SHA-256 "
            f"{network.sha256}.{_STANDARD[network.standard]}"
        )
    if has(*columns("real")):
        lines.append(
            "n is the number of translations / of real images. ± is the standard error of the Fréchet distance "
            "(jackknife), the standard deviation of KID over its subsets, and the binomial standard error of precision "
            "and recall. Compare only figures of the same network, resizing and n."
        )
        sizes = sorted({values["kid_subset_size"] for values in measured if "kid_subset_size" in values})
        if sizes:
            sizes = ", ".join(map(str, sizes))
            lines.append(f"KID: {protocol.kid_subsets} subsets of {sizes} images, seed {protocol.seed}.")
    if any("seeds" in values for values in measured):
        lines.append("Rows of several seeds: means over the seeds ± their sample standard deviation.")
    for name, (enough, reason) in _FEW.items():
        n = min((min(v["n_real"], v["n_fake"]) for v in measured if key_of(v, name)), default=enough)
        if n < enough:
            title = heading(name, measured, protocol and protocol.network)
            lines.append(f"Warning: {title}, is measured on {n} images. Below {enough:,} it {reason}.")
    return lines
