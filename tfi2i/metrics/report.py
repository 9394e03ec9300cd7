"""What `tfi2i.metrics.evaluation` has measured, for people: tables and pages of pictures."""

import pathlib

import numpy as np

from tfi2i.config import PIXELS
from tfi2i.data import images

NAMES = {"model": "this model", "match_moments": "match colours", "do_nothing": "do nothing", "truth": "the truth"}
# Metric → heading, and how a value with its spread is written.
_FAITHFULNESS = {
    "l1": ("L1 (of 255)", "{:.2f}", 1),
    "l2": ("L2", "{:.2f}", 1),
    "pixel_accuracy": ("pixels within 16", "{:.1f}", 100),
    "channel_accuracy": ("channels within 16", "{:.1f}", 100),
    "psnr": ("PSNR", "{:.1f}", 1),
    "mean_psnr": ("mean PSNR", "{:.1f}", 1),
    "ssim": ("SSIM", "{:.3f}", 1),
    "lpips_like": ("LPIPS-like", "{:.3f}", 1),
    "il2": ("I-L2", "{:.2f}", 1),
    "cycle": ("cycle L1", "{:.2f}", 1),
    "per_pixel_accuracy": ("per-pixel acc.", "{:.3f}", 1),
    "per_class_accuracy": ("per-class acc.", "{:.3f}", 1),
    "class_iou": ("class IoU", "{:.3f}", 1),
}
_REALISM = {
    "fid": ("Fréchet", "{:.2f}", 1),
    "kid": ("KID x100", "{:.2f}", 100),
    "mean_kid": ("mean KID x100", "{:.2f}", 100),
    "precision": ("precision", "{:.2f}", 1),
    "recall": ("recall", "{:.2f}", 1),
}
_STANDARD = {
    True: "",
    False: " (NOT the published file of this network)",
    None: " (the published file's is not known, so it could not be compared)",
}
_UNITS = {"pixel_accuracy": " %", "channel_accuracy": " %", "psnr": " dB", "mean_psnr": " dB"}


def spread_of(values, key):
    """The ± of a measured value: `key`_std or `key`_error, or None."""
    return values.get(f"{key}_std", values.get(f"{key}_error"))


def find(values, metric):
    """The key of a metric in measured values: with a network behind its name, with "input_" before it, or None."""
    for key in values:
        name = key.removeprefix("input_")
        if name == metric or (name.startswith(f"{metric}_") and not name.endswith(("_std", "_error", "_size"))):
            return key
    return None


def table(results, protocol=None):
    """The results of `evaluation.evaluate` as lines of text.

    Args:
        results: direction → method → measured values.
        protocol: the `Protocol`, for the lines below.
    """
    lines = []
    for columns, count in ((_FAITHFULNESS, "n"), (_REALISM, "n_fake")):
        measured = [v for methods in results.values() for v in methods.values()]
        present = [m for m in columns if any(find(v, m) for v in measured)]
        if not present:
            continue
        to_input = any((find(v, m) or "").startswith("input_") for v in measured for m in present)
        network = protocol.network if protocol else None
        heads = []
        for metric in present:
            head = columns[metric][0]
            if metric == "fid" and network and network.name == "inception_2015" and network.standard:
                head = "FID"
            heads.append(head + (" to input" if to_input and metric in PIXELS + ("channel_accuracy",) else ""))
        rows = [["", "", "n", *heads]]
        for direction, methods in results.items():
            for method, values in methods.items():
                n = values.get(count, values.get("n"))
                n = f"{n} / {values['n_real']}" if count == "n_fake" and count in values else str(n)
                rows.append([direction, NAMES.get(method, method), n, *(_cell(values, m, columns) for m in present)])
        lines += [*_aligned(rows), ""]
    lines += _notes(results, protocol)
    return "\n".join(lines)


def _cell(values, metric, columns):
    key = find(values, metric)
    if key is None:
        return "-"
    if values[key] is None:
        return "equal"
    _, form, factor = columns[metric]
    spread = spread_of(values, key)
    text = form.format(factor * values[key])
    if spread is not None:
        text += " ± " + form.format(factor * spread)
    return text + _UNITS.get(metric, "")


def _aligned(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    widths[0], widths[1], widths[2] = 4, max(widths[1], 14), max(widths[2], 5)
    lines = []
    for row in rows:
        cells = [f"{row[0]:{widths[0]}}", f"{row[1]:{widths[1]}}", f"{row[2]:>{widths[2]}}"]
        cells += [f" {cell:>{width}}" for cell, width in zip(row[3:], widths[3:])]
        lines.append(" ".join(cells).rstrip())
    return lines


def _notes(results, protocol):
    measured = [v for methods in results.values() for v in methods.values()]
    lines = []
    if any(find(v, m) for v in measured for m in _FAITHFULNESS):
        note = "mean ± standard deviation over images"
        if any(find(v, "psnr") for v in measured):
            note += "; PSNR from the squared error of all images together ± standard error"
        lines.append(note)
    if any(k.startswith(("input_", "il2", "cycle")) for v in measured for k in v):
        lines.append(
            "closeness to the input (to input, I-L2, cycle) is no quality by itself, doing nothing has all of it: read "
            "it beside realism"
        )
    if any(find(v, "class_iou") for v in measured):
        lines.append(
            "accuracies and IoU of classes: of all pixels together ± standard error (images drawn anew); classes that "
            "no label map shows count as 0"
        )
    if protocol and protocol.network:
        network = protocol.network
        lines.append(
            f"features of {network.name}, {network.size} px, {network.filter}; weights {network.weights}, SHA-256 "
            f"{network.sha256}" + _STANDARD[network.standard]
        )
    if any(find(v, m) for v in measured for m in _REALISM):
        lines.append(
            "n: translations / real images. ± of Fréchet: jackknife; of KID: over subsets; of precision and recall: "
            "binomial. Comparable only with the same network, resizing and n"
        )
        sizes = sorted({v["kid_subset_size"] for v in measured if "kid_subset_size" in v})
        if sizes:
            lines.append(f"KID: {protocol.kid_subsets} subsets of {', '.join(map(str, sizes))}, seed {protocol.seed}")
    return lines


# --------------------------------------------------------------------------------------------------------- pictures


def trade_off(results, direction):
    """A plot of realism against faithfulness, a point for each method; None where one of them was not measured.

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
    realism = next((m for m in ("kid", "fid") if find(values, m)), None)
    near = "l1" if "l1" in values else next((m for m in ("il2", "l1") if find(values, m)), None)
    if not (realism and near):
        return None
    points = {}
    for name, own in measured.items():
        x, y = find(own, near), find(own, realism)
        if x and y:
            factor = _REALISM[realism][2]
            points[NAMES.get(name, name)] = [(own[x], factor * own[y], factor * (spread_of(own, y) or 0))]
    where = {"l1": "L1 to the truth (of 255)", "input_l1": "L1 to the input (of 255)"}
    x_label = where.get(find(values, near), f"{_FAITHFULNESS[near][0]} to the input")
    title = f"{direction[0].upper()} to {direction[2].upper()}"
    return pictures.plot(points, x_label, _REALISM[realism][0], title)


def over_checkpoints(steps):
    """Plots of every measured value over the steps of a training, directions in one plot.

    Args:
        steps: dict of step → results as `evaluation.evaluate` returns them, of the method "model".

    Returns:
        uint8 [H, W, 3].
    """
    from tfi2i import pictures

    plots = []
    for metric, (head, _, factor) in (_FAITHFULNESS | _REALISM).items():
        series = {}
        for step, results in steps.items():
            for direction, methods in results.items():
                key = find(methods.get("model", {}), metric)
                if key and methods["model"][key] is not None:
                    value, spread = methods["model"][key], spread_of(methods["model"], key)
                    series.setdefault(direction, []).append((step, factor * value, spread and factor * spread))
        if series:
            plots.append(pictures.plot(series, "step", head + _UNITS.get(metric, ""), join=True))
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

    from tfi2i import pictures

    halves = []
    for direction, shown in examples.items():
        if not shown:
            continue
        x, y = direction[0].upper(), direction[2].upper()
        results = [next(iter(e["results"].values())) for e in shown]
        columns = {f"{x}, input": [e["input"] for e in shown], f"{x} to {y}": results}
        columns[f"{y}, truth"] = [e["truth"] for e in shown]
        if model is not None and direction[::-1] in getattr(model, "directions", examples):
            columns[f"back to {x}"] = [model.translate(r, direction[::-1]) for r in results]
        columns = {title: c for title, c in columns.items() if any(image is not None for image in c)}
        side = min(256, max(max(r.shape[:2]) for r in results))
        blank = np.full((side, side, 3), 255, np.uint8)
        cells = [np.stack([blank if i is None else thumbnail(i, side) for i in c]) for c in columns.values()]
        labels = [f"{e['rank']} {pathlib.PurePosixPath(e['name']).stem[:36]}".strip() for e in shown]
        labels = [n if e["l1"] is None else f"{n}   L1 {e['l1']:.1f}" for n, e in zip(labels, shown)]
        halves.append(pictures.page(cells, list(columns), labels))
    gap, head = 24, 34
    height = max(h.shape[0] for h in halves) + head
    sheet = Image.new("RGB", (sum(h.shape[1] for h in halves) + gap * (len(halves) - 1), height), "white")
    ImageDraw.Draw(sheet).text((8, head / 2), title, fill="black", font=ImageFont.load_default(16), anchor="lm")
    left = 0
    for half in halves:
        sheet.paste(Image.fromarray(half), (left, head))
        left += half.shape[1] + gap
    return np.asarray(sheet)


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
