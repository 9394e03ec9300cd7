"""Compares a trained model's translations with the truth, on held-out images that have one.

  python -m tfi2i.evaluate --run_dir=runs/quickstart
  python -m tfi2i.evaluate --run_dir=runs/facades --split=val --limit=100

Pairs are images of the same name in both domains. Prints a table beside two baselines that know nothing of the
content, writes it to RUN/evaluate.json, and writes a picture of inputs, translations, truths and back-translations.
"""

import dataclasses
import json
import os
import pathlib
import re

import numpy as np
from absl import flags

from tfi2i import command
from tfi2i.config import UserError

# Training images per domain that the colour moments are taken from.
_MOMENT_IMAGES = 256
_ROWS = 6


def define_flags():
    """Declares the flags of this command."""
    flags.DEFINE_string("run_dir", None, "run directory of the trained model", required=True)
    flags.DEFINE_integer("checkpoint", None, "step of a kept checkpoint (default: the newest)")
    flags.DEFINE_enum("split", "test", ("test", "val"), "which held-out images; report on test, tune on val")
    flags.DEFINE_string("data", None, "folder with testA and testB to take instead of the run's own data")
    flags.DEFINE_string("output", None, "picture to write (default: RUN/evaluate.png)")
    flags.DEFINE_integer("limit", None, "evaluate no more pairs than this, evenly spread", lower_bound=1)
    flags.DEFINE_integer("batch_size", 8, "images that go through the network at once", lower_bound=1)


def evaluate(model, data, split="test", limit=None, batch_size=8, active=True):
    """Measures both directions on held-out pairs.

    Images are prepared as by `pipeline.eval_images`: whole, at the size that was trained, in 8 bits.

    Args:
        model: a `Translator`.
        data: `config.Data`, where the images are.
        split: "test" or "val".
        limit: no more pairs than this, evenly spread; None: all.
        batch_size: images at once.
        active: False prints nothing.

    Returns:
        (results, examples). `results` maps direction → method ("model", "match_moments", "do_nothing") → dict of `n`,
        `l1` and `pixel_accuracy`, means over images, `l1_std` and `pixel_accuracy_std` over images, and `psnr` in dB
        from the squared error of all images together (None: no error). `examples` are a fixed random choice and the
        best and the worst pair by the sum of both L1: dicts of `name`, `rank` ("", "best" or "worst"), `a`, `b`,
        `a2b`, `b2a`, uint8 [H, W, C], and `l1`, direction → the model's distance.

    Raises:
        UserError: the split has no pairs, or none that can be read.
    """
    from tfi2i.data import images, sources
    from tfi2i.metrics.faithfulness import l1, pixel_accuracy, squared_error
    from tfi2i.progress import Progress

    sides = sources.open_domains(data, split)
    matches = match_names(*[s.names for s in sides])
    if not matches:
        raise UserError(
            f"the {split} images are no pairs: none of {len(sides[0])} names in A ({sides[0].names[0]}, …) is among "
            f"the {len(sides[1])} of B ({sides[1].names[0]}, …), so there is no truth to compare with"
        )
    if limit and limit < len(matches):
        matches = [matches[i] for i in np.linspace(0, len(matches) - 1, limit).astype(int)]
    elif active and len(matches) < max(map(len, sides)):
        print(f"{len(matches)} pairs among {len(sides[0])} and {len(sides[1])} {split} images, the rest has no partner")
    shown = set(np.random.default_rng(0).permutation(len(matches))[:_ROWS].tolist())
    moments = training_moments(data)
    channels = {"a": model.channels_a, "b": model.channels_b}
    errors, pairs, batch = {}, [], []
    progress = Progress(len(matches), "pairs", active=active)

    def flush():
        for x, y in ("ab", "ba"):
            inputs = np.stack([p[x] for p in batch])
            truth = np.stack([p[y] for p in batch])
            plain = np.stack([images.to_channels(p[x], channels[y]) for p in batch])
            results = {"model": model.translate(inputs, f"{x}2{y}", batch_size=batch_size)}
            if moments:
                results["match_moments"] = match_moments(inputs, moments[x], moments[y])
            results["do_nothing"] = plain
            for method, result in results.items():
                found = np.stack([f(result, truth) for f in (l1, pixel_accuracy, squared_error)])
                errors.setdefault(f"{x}2{y}", {}).setdefault(method, []).append(found)
            for p, result, distance in zip(batch, results["model"], l1(results["model"], truth)):
                p[f"{x}2{y}"] = result
                p["l1"][f"{x}2{y}"] = float(distance)
        # Of all pairs so far only those that may be shown are kept.
        pairs.extend(batch)
        pairs.sort(key=lambda p: sum(p["l1"].values()))
        pairs[1:-1] = [p for p in pairs[1:-1] if p["shown"]]

    for k, (i, j) in enumerate(matches):
        pair = [_prepared(side, index, data) for side, index in zip(sides, (i, j))]
        if pair[0] is None or pair[1] is None:
            continue
        if pair[0].shape[:2] != pair[1].shape[:2]:
            raise UserError(
                f"{sides[0].names[i]} is {pair[0].shape[:2]} in A and {pair[1].shape[:2]} in B: pairs must match "
                "pixel by pixel"
            )
        if batch and (len(batch) == batch_size or batch[0]["a"].shape != pair[0].shape):
            flush()
            batch.clear()
            progress.update(k)
        batch.append({"name": sides[0].names[i], "a": pair[0], "b": pair[1], "shown": k in shown, "l1": {}})
    if batch:
        flush()
        progress.update(len(matches))
    progress.close()
    if not pairs:
        raise UserError(f"none of the {len(matches)} {split} pairs can be read")
    best, worst = pairs[0], pairs[-1]
    others = sorted((p for p in pairs if p is not best and p is not worst), key=lambda p: p["name"])
    examples = [p | {"rank": ""} for p in others] + [best | {"rank": "best"}]
    examples += [worst | {"rank": "worst"}] if worst is not best else []
    return {d: {m: _summary(np.concatenate(e, axis=1)) for m, e in by.items()} for d, by in errors.items()}, examples


def match_names(names_a, names_b):
    """Positions (i, j) of images of the same name, in the order of `names_a`.

    Not compared: the folder that holds all of a domain, the extension, and, for images without a partner of exactly
    their name, a final _A or _B.

    Raises:
        UserError: two images of a domain have the name of one of the other.
    """

    def stems(names):
        paths = [pathlib.PurePosixPath(n) for n in names]
        root = os.path.commonpath([p.parent for p in paths])
        return {i: str(p.relative_to(root).with_suffix("")) for i, p in enumerate(paths)}

    def join(keys_a, keys_b):
        where = [{}, {}]
        for side, keys in zip(where, (keys_a, keys_b)):
            for i, key in keys.items():
                side.setdefault(key, []).append(i)
        common = [key for key in where[0] if key in where[1]]
        for key in common:
            for side, names in zip(where, (names_a, names_b)):
                if len(side[key]) > 1:
                    first, second = (names[i] for i in side[key][:2])
                    raise UserError(f"{first} and {second} are both called '{key}' where pairs are sought: rename one")
        return [(where[0][key][0], where[1][key][0]) for key in common]

    a, b = stems(names_a), stems(names_b)
    exact = join(a, b)
    taken = [{i for i, _ in exact}, {j for _, j in exact}]
    rest = [
        {i: re.sub(r"[-_ ][AB]$", "", key) for i, key in keys.items() if i not in used}
        for keys, used in zip((a, b), taken)
    ]
    return sorted(exact + join(*rest))


def training_moments(data):
    """Colours of both training sets: {"a": (mean [C], std [C]), "b": …} in levels; None without training data."""
    from tfi2i.data import sources

    try:
        sides = sources.open_domains(data, "train")
    except UserError:
        return None
    moments = {}
    for letter, side in zip("ab", sides):
        chosen = np.unique(np.linspace(0, len(side) - 1, _MOMENT_IMAGES).astype(int))
        found = [x for x in (_prepared(side, i, data) for i in chosen) if x is not None]
        if not found:
            return None
        # Each image counts the same, whatever its size.
        mean = np.mean([x.mean((0, 1)) for x in found], axis=0)
        square = np.mean([np.square(x, dtype=np.float64).mean((0, 1)) for x in found], axis=0)
        moments[letter] = mean, np.sqrt(np.maximum(square - mean**2, 0))
    return moments


def match_moments(x, source, target):
    """Translation that knows only colours: (x - mean) · std' / std + mean' per channel; colour to grey by their mean.

    Args:
        x: uint8 [N, H, W, C].
        source: (mean [C], std [C]) of the training set of x's domain.
        target: the same of the other domain; its number of channels is the result's.

    Returns:
        uint8 [N, H, W, C'].
    """
    x = (x - source[0]) / np.maximum(source[1], 1e-6)
    if x.shape[-1] != len(target[0]):
        x = x.mean(-1, keepdims=True)
    return np.clip(np.rint(x * target[1] + target[0]), 0, 255).astype(np.uint8)


def table(results):
    """The results as lines of text."""
    names = {"model": "this model", "match_moments": "match colours", "do_nothing": "do nothing"}
    lines = [f"{'':5}{'':15}{'n':>5}  {'L1 (of 255)':>15}  {'pixels within 16':>17}  {'PSNR':>8}"]
    for direction, methods in results.items():
        for method, r in methods.items():
            spread = f"{r['l1']:.2f} ± {r['l1_std']:.2f}"
            right = f"{100 * r['pixel_accuracy']:.1f} ± {100 * r['pixel_accuracy_std']:.1f} %"
            psnr = "equal" if r["psnr"] is None else f"{r['psnr']:.1f} dB"
            lines.append(f"{direction:5}{names[method]:15}{r['n']:5}  {spread:>15}  {right:>17}  {psnr:>8}")
    lines.append("mean ± standard deviation over images; PSNR from the squared error of all images together")
    return "\n".join(lines)


def picture(model, examples, title):
    """A page of examples, a→b on the left and b→a on the right: input, translation, truth, the way back.

    Args:
        model: a `Translator`, for the way back.
        examples: as `evaluate` returns them.
        title: text above all.

    Returns:
        uint8 [H, W, 3].
    """
    from PIL import Image, ImageDraw, ImageFont

    from tfi2i import pictures

    side = min(256, max(max(e["a"].shape[:2]) for e in examples))
    halves = []
    for x, y in ("ab", "ba"):
        rows, labels = [], []
        for e in examples:
            result = e[f"{x}2{y}"]
            back = model.translate(result, f"{y}2{x}")
            rows.append([_thumbnail(image, side) for image in (e[x], result, e[y], back)])
            name = f"{e['rank']} {pathlib.PurePosixPath(e['name']).stem[:36]}".strip()
            labels.append(f"{name}   L1 {e['l1'][f'{x}2{y}']:.1f}")
        X, Y = x.upper(), y.upper()
        columns = [np.stack(c) for c in zip(*rows)]
        halves.append(pictures.page(columns, [f"{X}, input", f"{X} to {Y}", f"{Y}, truth", f"back to {X}"], labels))
    gap, head = 24, 34
    height, width = halves[0].shape[0] + head, sum(h.shape[1] for h in halves) + gap
    sheet = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(sheet).text((8, head / 2), title, fill="black", font=ImageFont.load_default(16), anchor="lm")
    sheet.paste(Image.fromarray(halves[0]), (0, head))
    sheet.paste(Image.fromarray(halves[1]), (halves[0].shape[1] + gap, head))
    return np.asarray(sheet)


def _prepared(source, i, data):
    """Image `i` at evaluation's size in 8 bits, or None where it cannot be read."""
    from tfi2i.data import pipeline

    for _, pixels in pipeline.eval_images(source, data, [i]):
        return pixels if pixels.dtype == np.uint8 else np.rint(pixels / 257).astype(np.uint8)


def _summary(errors):
    from tfi2i.metrics import faithfulness

    l1, right, squared = errors
    return {
        "n": len(l1),
        "l1": float(l1.mean()),
        "l1_std": float(l1.std()),
        "pixel_accuracy": float(right.mean()),
        "pixel_accuracy_std": float(right.std()),
        "psnr": float(faithfulness.decibels(squared.mean())) if squared.any() else None,
    }


def _thumbnail(image, side):
    """RGB on a white square of `side`; larger images are made smaller to fit."""
    from tfi2i.data import images

    image = images.to_channels(image, 3)
    h, w = image.shape[:2]
    if max(h, w) > side:
        h, w = max(1, h * side // max(h, w)), max(1, w * side // max(h, w))
        image = images.resize(image, (h, w))
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - h) // 2, (side - w) // 2
    square[top : top + h, left : left + w] = image
    return square


def main(_):
    values = flags.FLAGS
    command.import_tensorflow()
    output = pathlib.Path(values.output or os.path.join(values.run_dir, "evaluate.png"))
    from tfi2i.data import images

    if output.suffix.lower() not in images.EXTENSIONS:
        raise UserError(f"--output={output}: expected the name of an image, such as {output}.png")
    from tfi2i.training import checkpoints

    model = checkpoints.load(values.run_dir, values.checkpoint)
    data = model.run.data
    if values.data:
        data = dataclasses.replace(data, data=values.data, tfds=None, csv=None, domain_a=None, domain_b=None)
    results, examples = evaluate(model, data, values.split, values.limit, values.batch_size)
    n, step = results["a2b"]["model"]["n"], model.checkpoint_step
    h, w = examples[0]["a"].shape[:2]
    print(f"{values.run_dir}, step {step}: {n} {values.split} pairs of {h}x{w} pixels")
    print(table(results))
    report = {"split": values.split, "data": values.data or data.data or data.tfds or data.csv, "pairs": n}
    report |= {"size": [h, w], "checkpoint_step": step, "directions": results}
    path = pathlib.Path(values.run_dir) / "evaluate.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    title = f"{model.run.method}, step {step}, {n} {values.split} pairs"
    for d, r in results.items():
        l1, nothing = r["model"]["l1"], r["do_nothing"]["l1"]
        title += f"   |   {d[0].upper()} to {d[2].upper()}: L1 {l1:.1f} (doing nothing: {nothing:.1f})"
    images.write_image(output, picture(model, examples, title))
    print(f"numbers in {path}, picture in {output}")


def run():
    """Console entry point."""
    define_flags()
    command.run(main)


if __name__ == "__main__":
    run()
