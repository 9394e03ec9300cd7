"""What `tfi2i.metrics.evaluation` has measured, as pictures: plots, and pages of examples."""

import math
import pathlib

import numpy as np

from tfi2i.data import images
from tfi2i.metrics import columns
from tfi2i.metrics.tables import NAMES, heading, in_words, key_of, spread_of


def trade_off(results, direction, protocol=None):
    """A plot of realism against faithfulness, a point for each candidate; None where one of them was not measured.

    Realism is KID or else Fréchet distance, faithfulness L1 to the truth, or else I-L2 or L1 to the input: for all of
    them less is better, and none is enough.

    Args:
        results: as `evaluation.evaluate` returns them.
        direction: "a2b" or "b2a".
        protocol: the `Protocol`, for the axes' titles.

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
    factor, points = columns()[realism].factor, {}
    for candidate, own in measured.items():
        x, y = key_of(own, near), key_of(own, realism)
        if x and y:
            points[NAMES.get(candidate, candidate)] = [(own[x], factor * own[y], factor * (spread_of(own, y) or 0))]
    axes = {"l1": "L1 to the truth (of 255)", "input_l1": "L1 to the input (of 255)"}
    network = protocol and protocol.network
    x_label = axes.get(key_of(values, near)) or heading(near, [values], network)
    return pictures.plot(points, x_label, heading(realism, [values], network), in_words(direction))


def over_checkpoints(steps, protocol=None):
    """Plots of every measured value over the steps of a training, directions in one plot.

    Args:
        steps: dict of step → results as `evaluation.evaluate` returns them, of the candidate "model".
        protocol: the `Protocol`, for the axes' titles.

    Returns:
        uint8 [H, W, 3].
    """
    from tfi2i import pictures

    plots = []
    for name, column in (columns("truth", "input", "labels") | columns("real", "samples")).items():
        series, measured = {}, []
        for step, results in steps.items():
            for direction, candidates in results.items():
                values = candidates.get("model", {})
                key = key_of(values, name)
                if key and values[key] is not None:
                    measured.append(values)
                    spread = spread_of(values, key)
                    point = (step, column.factor * values[key], spread and column.factor * spread)
                    series.setdefault(direction, []).append(point)
        if series:
            title = heading(name, measured, protocol and protocol.network)
            plots.append(pictures.plot(series, "step", title + column.unit, join=True))
    across = min(3, len(plots))
    blank = np.full_like(plots[0], 255)
    plots += [blank] * (-len(plots) % across)
    return np.concatenate([np.concatenate(plots[i : i + across], 1) for i in range(0, len(plots), across)])


def picture(model, examples, title):
    """A page of examples, directions beside each other: input, translation, truth where there is one, the way back.

    Args:
        model: a `Translator`, for the way back, or None.
        examples: as `evaluation.evaluate` returns them.
        title: list of texts above all, on one line if that is not wider than the page.

    Returns:
        uint8 [H, W, 3].
    """
    from PIL import Image, ImageDraw

    from tfi2i import pictures

    halves = []
    for direction, shown in examples.items():
        if not shown:
            continue
        x, y = direction[0].upper(), direction[2].upper()
        results = [next(iter(e["results"].values())) for e in shown]
        of_page = {f"{x}, input": [e["input"] for e in shown], in_words(direction): results}
        if "teacher" in shown[0]["results"]:
            of_page["its teacher"] = [e["results"]["teacher"] for e in shown]
        of_page[f"{y}, truth"] = [e["truth"] for e in shown]
        if model is not None and direction[::-1] in model.directions and model.style_size is None:
            of_page[f"back to {x}"] = [model.translate(r, direction[::-1]) for r in results]
        to = "L1" if shown[0]["truth"] is not None else "L1 to input"
        labels = [label(e) if e["l1"] is None else f"{label(e)}   {to} {e['l1']:.1f}" for e in shown]
        halves.append(page(of_page, labels))
    gap, line, margin, letters = 24, 22, 8, pictures.font(15)
    width = sum(h.shape[1] for h in halves) + gap * (len(halves) - 1)
    lines = ["   |   ".join(title)]
    if letters.getlength(lines[0]) + 2 * margin > width:
        lines = title
        width = max(width, *(math.ceil(letters.getlength(text)) + 2 * margin for text in lines))
    head = line * len(lines) + 12
    sheet = Image.new("RGB", (width, max(h.shape[0] for h in halves) + head), "white")
    for i, text in enumerate(lines):
        ImageDraw.Draw(sheet).text((margin, 6 + line * (i + 0.5)), text, fill="black", font=letters, anchor="lm")
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
