"""Measures candidates on held-out images: how real their translations are, and how true to the input or the truth.

Realism compares sets: the translations with the real images of their domain. Faithfulness compares image with image:
with the truth where the data has pairs, that is images of the same name in both domains, else with the input. Closeness
to the input alone proves nothing: an unchanged input scores perfectly.
"""

import collections
import dataclasses

import numpy as np

from tfi2i import config
from tfi2i.config import DIRECTIONS, UserError
from tfi2i.data import sources
from tfi2i.data.images import to_channels
from tfi2i.metrics import METRICS, faithfulness, held_out, realism
from tfi2i.metrics.candidates import Candidate, of_pictures
from tfi2i.metrics.pairs import find_pairs
from tfi2i.metrics.protocols import Protocol
from tfi2i.metrics.segmentation import with_errors
from tfi2i.progress import Progress

# Pairs of styles that the diversity of each input is the mean of.
STYLE_PAIRS = 2
# What the examples with the least and with the greatest L1 are called: to the truth, and to the input without pairs.
BY_TRUTH, BY_INPUT = ("best", "worst"), ("least changed", "most changed")


def evaluate(
    candidates, data, protocol=Protocol(), directions=DIRECTIONS, batch_size=8, active=True, domains=None, rows=6
):
    """Measures candidates on the held-out images of a data set.

    Images are prepared as by `pipeline.eval_images`: whole, at the size that was trained, in 8 bits.

    Args:
        candidates: dict of name → `Candidate`; the first one decides which examples are the extremes by L1.
        data: `config.Data`, where the images are.
        protocol: a `Protocol`.
        directions: which to measure, of those that a candidate besides the baselines translates.
        batch_size: images that are translated at once.
        active: False prints nothing.
        domains: {"a": …, "b": …} of `sources.Source` instead of the split of `data`, which then says how images are
            prepared.
        rows: examples besides these two.

    Returns:
        (results, examples). `results` maps direction → candidate → measured values. With a truth, `n` images that have
        one, else all: `l1`, `l2` (length of the difference of an image, levels / 255), `pixel_accuracy`,
        `channel_accuracy`, `ssim`, `lpips_like_NETWORK`, means over images, each with its `…_std` over images; `psnr`
        in dB from the squared error of all images together (None: no error) with its standard error `psnr_error`, and
        `mean_psnr`, the mean of the images' own.
        `diversity_NETWORK`, of candidates that take a style, is the mean distance of two translations of an input.
        Without a truth the same names with `input_` before them, compared with the input. `il2_NETWORK` and `cycle`
        (L1 of the way back) with `_std` always are. `fid_NETWORK` with its standard error `…_error`, `kid_NETWORK`
        and `mean_kid_NETWORK` with `…_std` over subsets, `precision_NETWORK` and `recall_NETWORK` with `…_error`,
        of `n_real` and `n_fake` images. With fcn_score `segmentation.SCORES`, each with its standard error `…_error`,
        of all but the baselines; the pairs' truths are then a candidate too, "truth", that has only these.

        `examples` maps direction → list of a fixed random choice and the two extremes by L1, to the truth or else to
        the input: dicts of `name`, `rank` (one of `BY_TRUTH` or `BY_INPUT`, or ""), `input`, `truth` (or None), uint8
        [H, W, C], `results`, candidate → uint8, and `l1`.

    Raises:
        UserError: there is nothing to compare with, or nothing that can be read.
    """
    able = [candidate for candidate in candidates.values() if not candidate.baseline]
    directions = [d for d in directions if any(d in candidate.directions for candidate in able)]
    if protocol.names == ("cycle",) and not any(candidate.cycles for candidate in able):
        raise UserError("--metrics=cycle needs a model that translates both ways: add a metric such as kid")
    if "diversity" in protocol.names and not any(candidate.styled for candidate in able):
        raise UserError(
            "--metrics=diversity needs a model that takes a style; here each input has one translation: leave it out"
        )
    domains = domains or _open(data, protocol.split, held_out.needed_domains(protocol, directions))
    results, examples = {}, {}
    for direction in directions:
        task = _prepare(candidates, domains, data, protocol, direction, active, rows)
        if active and direction == directions[0]:
            _print_partners(task)
        measured, shown, count = {name: _Measured() for name in (*task.candidates, "truth")}, [], 0
        for batch in _batches(task, batch_size, active):
            _measure(task, batch, measured)
            shown, count = _examples(task, shown + batch), count + len(batch)
        if not count:
            kind = "pairs" if task.partners else "images"
            raise UserError(f"none of the {len(task.positions)} {protocol.split} {kind} can be read")
        results[direction] = {n: _summary(task, c, measured[n], count, active) for n, c in task.candidates.items()}
        confusions = measured["truth"].confusions
        if confusions:
            results[direction]["truth"] = {"n": len(confusions)} | with_errors(confusions)
        examples[direction] = _ranked(shown)
    return results, examples


def _open(data, split, needed):
    """`held_out.open_domains`, whose error names the other split where that one has images."""
    try:
        return held_out.open_domains(data, split, needed)
    except sources.MissingSplit as error:
        other = {"test": "val", "val": "test"}[split]
        try:
            held_out.open_domains(data, other, needed)
        except UserError:
            raise error from None
        raise sources.MissingSplit(f"{error}; --split={other} measures the {other} images") from error


def compare_folders(real, fake, protocol, source=None, batch_size=8, active=True):
    """Measures a folder of translations against one of real images; pairs are files of the same name.

    Args:
        real, fake: folders.
        protocol: a `Protocol`.
        source: folder of the images that were translated, or None; files of the same names as in `fake`.
        batch_size: images that are measured at once.
        active: False prints nothing.

    Returns:
        (results, examples) as `evaluate`, of the direction "a2b" and the candidate "fake".

    Raises:
        UserError: folders without images, or a metric that needs the source.
    """
    data = protocol.prepare(config.Data())
    domains = {"a": sources.open_folder(source or fake), "b": sources.open_folder(real)}
    if "cycle" in protocol.names:
        raise UserError("--metrics=cycle needs a model that translates back: give --run_dir")
    if source:
        candidate = of_pictures({"a2b": fake}, domains)
    else:
        lacking = [name for name in protocol.names if METRICS[name].needs_input]
        if lacking:
            raise UserError(f"--metrics={lacking[0]} needs the images that were translated: give --source=FOLDER")
        if protocol.compares_with("truth") and not (protocol.pairs and find_pairs(domains["a"], domains["b"])):
            raise UserError(
                f"no two images of {fake} and {real} have the same name, so there are no pairs to compare: give "
                "--source=FOLDER to compare with what was translated"
            )
        candidate = Candidate(lambda x, direction, names: x, ("a2b",), unchanged=True)
    results, examples = evaluate({"fake": candidate}, data, protocol, ("a2b",), batch_size, active, domains)
    if not source:
        examples = {d: [e | {"input": None} for e in shown] for d, shown in examples.items()}
    return results, examples


# ------------------------------------------------------------------------------------------------- before a translation


@dataclasses.dataclass(frozen=True)
class _Task:
    """One direction of `evaluate`: all that is known before anything is translated.

    Attributes:
        candidates: dict of name → `Candidate`, those that translate this direction.
        direction: "a2b" or "b2a".
        source, target: `sources.Source` of the inputs, and of the domain that they are translated to.
        data, protocol: as given.
        partners: dict of an input's position in `source` → its truth's position in `target`.
        needs_truth: whether results are compared with truths; else these are for people to look at.
        positions: of the inputs in `source`.
        shown: those of `positions` that are examples whatever is measured.
        real: float32 [m, d], features of the real images of `target`, where a metric compares with them.
        inputs: dict of position → float32 [d], features of the inputs, where a metric compares with them.
    """

    candidates: dict
    direction: str
    source: sources.Source
    target: sources.Source
    data: config.Data
    protocol: Protocol
    partners: dict
    needs_truth: bool
    positions: list
    shown: set
    real: np.ndarray | None
    inputs: dict

    @property
    def of_sets(self):
        """Whether any metric compares the translations with the real images, set with set."""
        return self.real is not None


def _prepare(candidates, domains, data, protocol, direction, active, rows):
    """Chooses the images of a direction and computes the features that translations are compared with: a `_Task`."""
    candidates = {name: c for name, c in candidates.items() if direction in c.directions}
    source, target = domains[direction[0]], domains[direction[2]]
    pairs = find_pairs(source, target) if protocol.pairs else []
    if not pairs and protocol.metrics is None:
        if not protocol.pairs:
            raise UserError("--nopairs leaves no truth to compare with: --metrics=kid,il2,cycle measures without")
        a, b = domains["a"], domains["b"]
        raise UserError(
            f"the {protocol.split} images are no pairs: none of {len(a)} names in A ({a.names[0]}, …) is among "
            f"the {len(b)} of B ({b.names[0]}, …), so there is no truth to compare with: --metrics=kid,il2,cycle "
            "measures without"
        )
    of_sets, needs_truth = protocol.compares_with("real"), bool(pairs) and protocol.compares_with("truth")
    partners = dict(pairs)
    eligible = list(partners) if needs_truth and not of_sets else list(range(len(source)))
    positions = held_out.evenly_spread(eligible, protocol.limit)
    real_positions = held_out.evenly_spread(list(range(len(target))), protocol.limit)
    protocol.check_counts(len(real_positions), len(positions))
    if protocol.segmentation:
        protocol.segmentation.open(direction, source.names)
    real, inputs = None, {}
    if of_sets:
        real, _ = held_out.image_features(target, real_positions, data, protocol, active)
    if {"il2", "mean_kid"} & set(protocol.names) or of_sets and any(c.unchanged for c in candidates.values()):
        features, readable = held_out.image_features(source, positions, data, protocol, active)
        inputs = dict(zip(readable, features))
    order = np.random.default_rng(0).permutation(len(positions))
    return _Task(
        candidates=candidates,
        direction=direction,
        source=source,
        target=target,
        data=data,
        protocol=protocol,
        partners=partners,
        needs_truth=needs_truth,
        positions=positions,
        shown={positions[k] for k in order[:rows]},
        real=real,
        inputs=inputs,
    )


def _print_partners(task):
    """Says which images are compared with a truth, where that is not sure: two folders may have names in common."""
    pairs, images = len(task.partners), (len(task.source), len(task.target))
    others = "; the other images have no partner" if pairs < max(images) and not task.protocol.limit else ""
    doubtful = task.data.a and not isinstance(task.data, config.PairedData)
    doubt = "; add --nopairs if the names are equal by coincidence" if doubtful else ""
    if task.needs_truth and (others or doubt):
        counted = f"{images[0]} and {images[1]} {task.protocol.split} images"
        print(f"{pairs} pairs of equal names among {counted}{others}{doubt}")


def _batches(task, batch_size, active):
    """The images of a task that can be read, as `_read` gives them, in lists of at most `batch_size` of one shape."""
    positions = task.positions
    only_sets = all(METRICS[name].compared_with == "real" for name in task.protocol.names)
    if only_sets and all(candidate.unchanged for candidate in task.candidates.values()):
        positions = [i for i in positions if i in task.shown]  # all features are known
    progress = Progress(len(positions), f"images {task.direction}", active=active)
    batch = []
    for k, image in enumerate(held_out.read_ahead(lambda i: _read(task, i), positions, 4 * batch_size)):
        if image is None:
            continue
        if batch and (len(batch) == batch_size or not _alike(batch[0], image)):
            yield batch
            batch = []
            progress.update(k)
        batch.append(image)
    if batch:
        yield batch
        progress.update(len(positions))
    progress.close()


def _read(task, i):
    """An input and its truth, as an example before it is translated; None where nothing can be measured on it."""
    pixels, truth = held_out.read_image(task.source, i, task.data), None
    if i in task.partners:
        truth = held_out.read_image(task.target, task.partners[i], task.data)
    if pixels is not None and truth is not None and pixels.shape[:2] != truth.shape[:2]:
        if task.needs_truth:
            x, y = task.direction[0].upper(), task.direction[2].upper()
            raise UserError(
                f"{task.source.names[i]} is {pixels.shape[:2]} in {x} and {truth.shape[:2]} in {y}: pairs must match "
                "pixel by pixel. Give --size=N to bring all to one size, or --nopairs if they are none"
            )
        truth = None
    if pixels is None or (truth is None and task.needs_truth and not task.of_sets):
        return None
    return {"name": task.source.names[i], "position": i, "input": pixels, "truth": truth, "results": {}, "l1": None}


def _alike(x, y):
    return x["input"].shape == y["input"].shape and (x["truth"] is None) == (y["truth"] is None)


# --------------------------------------------------------------------------------------------------------- translations


@dataclasses.dataclass
class _Measured:
    """What has been measured of a candidate, or of the truths, in one direction so far.

    Attributes:
        errors: key → list of float64 [n], one of each batch.
        features: list of float32 [n, d], one of each batch, of translations that are not their inputs.
        confusions: list of int64 [19, 20], one of each image, see `segmentation.confusion`.
    """

    errors: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    features: list = dataclasses.field(default_factory=list)
    confusions: list = dataclasses.field(default_factory=list)


def _measure(task, batch, measured):
    """Translates a batch with every candidate and adds what it measures to `measured`, name → `_Measured`."""
    protocol, direction = task.protocol, task.direction
    names, inputs = [image["name"] for image in batch], np.stack([image["input"] for image in batch])
    has_truth = batch[0]["truth"] is not None
    if has_truth:
        reference = np.stack([image["truth"] for image in batch])
    else:
        reference = np.stack([to_channels(x, task.target.channels) for x in inputs])
    # Where there are pairs, images without a partner count for realism and for closeness to the input alone.
    comparable = has_truth or not task.partners
    known_features = [task.inputs.get(image["position"]) for image in batch]
    if protocol.segmentation:
        for image in batch:
            protocol.segmentation.check(direction, image["name"], image["input"], image["truth"])

    for number, (name, candidate) in enumerate(task.candidates.items()):
        errors = measured[name].errors
        results = candidate.translate(inputs, direction, names)
        if comparable:
            for key, values in _pixel_errors(results, reference, protocol).items():
                errors[key if has_truth else f"input_{key}"].append(values)
        if task.of_sets and not candidate.unchanged or "il2" in protocol.names:
            features = np.stack(known_features) if candidate.unchanged else protocol.network.features(results)
            if not candidate.unchanged:
                measured[name].features.append(features)
            if "il2" in protocol.names:
                lengths = np.linalg.norm(features.astype(np.float64) - np.stack(known_features), axis=1)
                errors[f"il2_{protocol.network.name}"].append(lengths)
        if "diversity" in protocol.names and candidate.styled:
            distances = _diversity(candidate, inputs, direction, names, protocol.network)
            errors[f"diversity_{protocol.network.name}"].append(distances)
        if "cycle" in protocol.names and candidate.cycles:
            errors["cycle"].append(faithfulness.l1(candidate.translate(results, direction[::-1], names), inputs))
        if protocol.segmentation and not candidate.baseline:
            measured[name].confusions += _confusions(task, names, results)
        for image, result in zip(batch, results):
            image["results"][name] = result
        if number == 0 and comparable:
            for image, distance in zip(batch, faithfulness.l1(results, reference)):
                image["l1"] = float(distance)
    if protocol.segmentation and has_truth:
        measured["truth"].confusions += _confusions(task, names, reference)


def _pixel_errors(results, reference, protocol):
    """What the metrics give that compare image with image: dict of key → float64 [N], for uint8 [N, H, W, C]."""
    asked, errors = set(protocol.names), {}
    if "l1" in asked:
        errors["l1"] = faithfulness.l1(results, reference)
    if "l2" in asked:
        errors["l2"] = faithfulness.l2(results, reference)
    if {"psnr", "mean_psnr"} & asked:
        errors["squared_error"] = faithfulness.squared_error(results, reference)
    if "pixel_accuracy" in asked:
        errors["pixel_accuracy"] = faithfulness.pixel_accuracy(results, reference)
        errors["channel_accuracy"] = faithfulness.channel_accuracy(results, reference)
    if "ssim" in asked:
        if min(results.shape[1:3]) < faithfulness.SSIM_WINDOW:
            raise UserError(
                f"--metrics=ssim needs {faithfulness.SSIM_WINDOW} pixels a side, images are {results.shape[1:3]}: "
                "give --size=N, or leave ssim out"
            )
        errors["ssim"] = faithfulness.ssim(results, reference)
    if "lpips_like" in asked:
        errors[f"lpips_like_{protocol.network.name}"] = protocol.network.perceptual_distance(results, reference)
    return errors


def _diversity(candidate, inputs, direction, names, network):
    """The mean perceptual distance of two translations of each input with different styles: float64 [N]."""
    drawn = [candidate.translate(inputs, direction, names, seed=seed) for seed in range(2 * STYLE_PAIRS)]
    return np.mean([network.perceptual_distance(x, y) for x, y in zip(drawn[::2], drawn[1::2])], axis=0)


def _confusions(task, names, results):
    return [task.protocol.segmentation.confusion(task.direction, n, r) for n, r in zip(names, results)]


# ------------------------------------------------------------------------------------------------------------- examples


def _examples(task, images):
    """Of all images so far those that may be shown: the random choice, and the extremes by L1."""
    by_l1 = sorted((image for image in images if image["l1"] is not None), key=lambda image: image["l1"])
    extremes = {image["position"] for image in by_l1[:1] + by_l1[-1:]}
    return [image for image in images if image["position"] in task.shown | extremes]


def _ranked(images):
    """The examples in the order in which they are shown: by name, then the extremes by L1."""
    by_l1 = sorted((image for image in images if image["l1"] is not None), key=lambda image: image["l1"])
    # Without pairs L1 is the distance to the input, which says nothing about how good a translation is.
    least, most = BY_INPUT if by_l1 and by_l1[0]["truth"] is None else BY_TRUTH
    extremes = [image | {"rank": least} for image in by_l1[:1]] + [image | {"rank": most} for image in by_l1[1:][-1:]]
    positions = {image["position"] for image in extremes}
    others = [image | {"rank": ""} for image in images if image["position"] not in positions]
    return sorted(others, key=lambda image: image["name"]) + extremes


# -------------------------------------------------------------------------------------------------------------- figures


def _summary(task, candidate, measured, count, active):
    """The measured values of a candidate, see `evaluate`, of `count` images."""
    protocol, summary = task.protocol, {}
    errors = {key: np.concatenate(values) for key, values in measured.errors.items()}
    compared = [len(values) for key, values in errors.items() if key != "cycle" and not key.startswith("il2")]
    summary["n"] = compared[0] if compared else max(map(len, errors.values()), default=count)
    for key, values in errors.items():
        if key.endswith("squared_error"):
            summary |= _decibels(key.removesuffix("squared_error"), values, protocol)
        else:
            summary |= {key: float(values.mean()), f"{key}_std": float(values.std())}
    if task.of_sets:
        inputs = np.array(list(task.inputs.values()))
        fake = inputs if candidate.unchanged else np.concatenate(measured.features)
        summary |= compare_sets(task.real, fake, protocol, inputs, active)
        if not errors:
            summary["n"] = summary["n_fake"]
    if measured.confusions:
        summary |= with_errors(measured.confusions)
    return summary


def _decibels(prefix, squared_errors, protocol):
    """psnr and mean_psnr, where they are asked for, of the images' mean squared errors; `prefix` is put before keys."""
    decibels = {}
    if "psnr" in protocol.names:
        key, n, mean = f"{prefix}psnr", len(squared_errors), squared_errors.mean()
        decibels |= {key: None, f"{key}_error": None}
        if mean:
            decibels[key] = float(faithfulness.decibels(mean))
        if mean and n > 1:
            # The standard error of the mean, carried through the logarithm to first order.
            error = squared_errors.std(ddof=1) / np.sqrt(n)
            decibels[f"{key}_error"] = float(error / mean * 10 / np.log(10))
    if "mean_psnr" in protocol.names:
        # Of each image for itself, at most 100 dB, as EGSDE and others have it.
        values = faithfulness.decibels(squared_errors + 1e-10 * 255**2)
        decibels |= {f"{prefix}mean_psnr": float(values.mean()), f"{prefix}mean_psnr_std": float(values.std())}
    return decibels


def compare_sets(real, fake, protocol, inputs=None, active=False):
    """The metrics that the protocol asks for and that compare sets of images.

    Args:
        real, fake: features [n, d] and [m, d] of real images and of translations.
        protocol: a `Protocol`.
        inputs: features of the inputs, for mean_kid.
        active: False prints nothing.

    Returns:
        dict as in `evaluate`.
    """
    asked, network = protocol.names, protocol.network.name
    values = {"n_real": len(real), "n_fake": len(fake)}
    if "fid" in asked:
        values[f"fid_{network}"] = realism.frechet_distance(real, fake)
        # Seconds for each part where images are more than features, else nothing.
        slow = active and min(len(real), len(fake)) > real.shape[1]
        progress = Progress(realism.GROUPS, "parts of the Fréchet distance's error", active=slow)
        values[f"fid_{network}_error"] = realism.frechet_error(real, fake, progress.update)
        progress.close()

    def kernel_distances(x, y):
        size = protocol.kid_subset_size or realism.subset_size(len(x), len(y))
        values["kid_subset_size"] = size
        return realism.kernel_distance(x, y, size, protocol.kid_subsets, protocol.seed)

    if "kid" in asked:
        kid = kernel_distances(real, fake)
        values |= {f"kid_{network}": float(kid.mean()), f"kid_{network}_std": float(kid.std())}
    if "mean_kid" in asked:
        # What the published code of U-GAT-IT's first author calls mean KID; it mixes the distance to the inputs in.
        mixed = (0.02 * kernel_distances(real, fake) + 0.98 * kernel_distances(inputs, fake)) / 2
        values |= {f"mean_kid_{network}": float(mixed.mean()), f"mean_kid_{network}_std": float(mixed.std())}
    if "precision_recall" in asked:
        shares = realism.precision_recall(real, fake)
        for name, share, n in zip(("precision", "recall"), shares, (len(fake), len(real))):
            error = float(np.sqrt(share * (1 - share) / n))
            values |= {f"{name}_{network}": share, f"{name}_{network}_error": error}
    return values
