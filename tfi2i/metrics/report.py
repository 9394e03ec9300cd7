"""What `tfi2i.metrics.evaluation` has measured, for people: tables, plots, and pages of examples."""

import pathlib

import numpy as np

from tfi2i.data import images
from tfi2i.metrics import columns

NAMES = {"model": "this model", "match_moments": "match colours", "do_nothing": "do nothing", "truth": "the truth"}
_STANDARD = {
    True: "",
    False: " This is NOT the published file of this network.",
    None: " The published file's hash is not known, so this file could not be compared with it.",
}


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


def table(results, protocol=None):
    """The results of `evaluation.evaluate` as lines of text.

    Args:
        results: direction → candidate → measured values.
        protocol: the `Protocol`, for the lines below.
    """
    measured = [values for candidates in results.values() for values in candidates.values()]
    network = protocol.network if protocol else None
    lines = []
    for of_table, count in ((columns("truth", "input", "labels"), "n"), (columns("real"), "n_fake")):
        present = {name: column for name, column in of_table.items() if any(key_of(v, name) for v in measured)}
        if not present:
            continue
        rows = [["", "", "n", *(_heading(name, column, measured, network) for name, column in present.items())]]
        for direction, candidates in results.items():
            for candidate, values in candidates.items():
                n = values.get(count, values.get("n"))
                n = f"{n} / {values['n_real']}" if count == "n_fake" and count in values else str(n)
                cells = [_cell(values, name, column) for name, column in present.items()]
                rows.append([direction, NAMES.get(candidate, candidate), n, *cells])
        lines += [*_aligned(rows), ""]
    lines += _notes(measured, protocol)
    return "\n".join(lines)


def _heading(name, column, measured, network):
    if name == "fid" and network and network.name == "inception_2015" and network.standard:
        return "FID"
    to_input = any((key_of(values, name) or "").startswith("input_") for values in measured)
    return f"{column.heading} to input" if to_input else column.heading


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


def _notes(measured, protocol):
    """Sentences that say what the figures of a table are."""

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
    return lines


# --------------------------------------------------------------------------------------------------------- pictures


def trade_off(results, direction):
    """A plot of realism against faithfulness, a point for each candidate; None where one of them was not measured.

    Realism is KID or else Fréchet distance, faithfulness L1 to the truth, or else I-L2 or L1 to the input: for all of
    them less is better, and none is enough.

    Args:
        results: as `evaluation.evaluate` returns them.
        direction: "a2b" or "b2a".

    Returns:
        uint8 [H, W, 3] or None.
    """
    from tfi2i import pictures

    measured = results[direction]
    values = next(iter(measured.values()))
    realism = next((name for name in ("kid", "fid") if key_of(values, name)), None)
    near = "l1" if "l1" in values else next((name for name in ("il2", "l1") if key_of(values, name)), None)
    if not (realism and near):
        return None
    columns_near, columns_real = columns("truth", "input"), columns("real")
    factor, points = columns_real[realism].factor, {}
    for candidate, own in measured.items():
        x, y = key_of(own, near), key_of(own, realism)
        if x and y:
            points[NAMES.get(candidate, candidate)] = [(own[x], factor * own[y], factor * (spread_of(own, y) or 0))]
    axes = {"l1": "L1 to the truth (of 255)", "input_l1": "L1 to the input (of 255)"}
    x_label = axes.get(key_of(values, near), f"{columns_near[near].heading} to the input")
    return pictures.plot(points, x_label, columns_real[realism].heading, in_words(direction))


def over_checkpoints(steps):
    """Plots of every measured value over the steps of a training, directions in one plot.

    Args:
        steps: dict of step → results as `evaluation.evaluate` returns them, of the candidate "model".

    Returns:
        uint8 [H, W, 3].
    """
    from tfi2i import pictures

    plots = []
    for name, column in (columns("truth", "input", "labels") | columns("real")).items():
        series, to_input = {}, ""
        for step, results in steps.items():
            for direction, candidates in results.items():
                values = candidates.get("model", {})
                key = key_of(values, name)
                if key and values[key] is not None:
                    to_input = " to input" if key.startswith("input_") else ""
                    spread = spread_of(values, key)
                    point = (step, column.factor * values[key], spread and column.factor * spread)
                    series.setdefault(direction, []).append(point)
        if series:
            plots.append(pictures.plot(series, "step", column.heading + to_input + column.unit, join=True))
    across = min(3, len(plots))
    blank = np.full_like(plots[0], 255)
    plots += [blank] * (-len(plots) % across)
    return np.concatenate([np.concatenate(plots[i : i + across], 1) for i in range(0, len(plots), across)])


def picture(model, examples, title):
    """A page of examples, directions beside each other: input, translation, truth where there is one, the way back.

    Args:
        model: a `Translator`, for the way back, or None.
        examples: as `evaluation.evaluate` returns them.
        title: text above all.

    Returns:
        uint8 [H, W, 3].
    """
    from PIL import Image, ImageDraw, ImageFont

    halves = []
    for direction, shown in examples.items():
        if not shown:
            continue
        x, y = direction[0].upper(), direction[2].upper()
        results = [next(iter(e["results"].values())) for e in shown]
        of_page = {f"{x}, input": [e["input"] for e in shown], in_words(direction): results}
        of_page[f"{y}, truth"] = [e["truth"] for e in shown]
        if model is not None and direction[::-1] in model.directions:
            of_page[f"back to {x}"] = [model.translate(r, direction[::-1]) for r in results]
        labels = [label(e) if e["l1"] is None else f"{label(e)}   L1 {e['l1']:.1f}" for e in shown]
        halves.append(page(of_page, labels))
    gap, head = 24, 34
    height = max(h.shape[0] for h in halves) + head
    sheet = Image.new("RGB", (sum(h.shape[1] for h in halves) + gap * (len(halves) - 1), height), "white")
    ImageDraw.Draw(sheet).text((8, head / 2), title, fill="black", font=ImageFont.load_default(16), anchor="lm")
    left = 0
    for half in halves:
        sheet.paste(Image.fromarray(half), (left, head))
        left += half.shape[1] + gap
    return np.asarray(sheet)


def page(of_page, labels):
    """A row for each example, a column for each kind of image.

    Args:
        of_page: title → list of images uint8 [H, W, C], one of each example, or None; a column of None alone is left
            out.
        labels: text under each row.

    Returns:
        uint8 [H', W', 3].
    """
    from tfi2i import pictures

    of_page = present_columns(of_page)
    side = min(256, max(max(x.shape[:2]) for shown in of_page.values() for x in shown if x is not None))
    blank = np.full((side, side, 3), 255, np.uint8)
    cells = [np.stack([blank if x is None else thumbnail(x, side) for x in shown]) for shown in of_page.values()]
    return pictures.page(cells, list(of_page), labels)


def present_columns(of_page):
    """Those of title → list of images, or None, that have an image."""
    return {title: shown for title, shown in of_page.items() if any(x is not None for x in shown)}


def label(example):
    """What a row is called: 'best 0012'."""
    return f"{example['rank']} {pathlib.PurePosixPath(example['name']).stem[:36]}".strip()


def thumbnail(image, side):
    """RGB on a white square of `side`; larger images are made smaller to fit."""
    image = images.to_channels(image, 3)
    h, w = image.shape[:2]
    if max(h, w) > side:
        h, w = max(1, h * side // max(h, w)), max(1, w * side // max(h, w))
        image = images.resize(image, (h, w))
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - h) // 2, (side - w) // 2
    square[top : top + h, left : left + w] = image
    return square
