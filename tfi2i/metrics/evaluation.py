"""Measures ways of translating on held-out images: how real the results are, and how true to the input or the truth.

Realism compares sets: the translations with the real images of the other domain. Faithfulness compares image with
image: with the truth where the data has pairs, that is images of the same name in both domains, else with the input.
Closeness to the input is no quality by itself: who returns the input has all of it.
"""

import collections
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import typing

import numpy as np

from tfi2i import config
from tfi2i.config import METRICS, ON_LABELS, PIXELS, REALISM, TO_INPUT, UserError
from tfi2i.data import images, pipeline, sources
from tfi2i.metrics import faithfulness, realism
from tfi2i.metrics.features import FeatureNetwork, cached
from tfi2i.metrics.segmentation import Segmentation, with_errors
from tfi2i.progress import Progress

DIRECTIONS = ("a2b", "b2a")
ON_PAIRS = ("l1", "pixel_accuracy", "psnr")
_WITH_NETWORK = (*REALISM, "lpips_like", "il2")
# Training images per domain that the colour moments are taken from.
_MOMENT_IMAGES = 256


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is measured and how: numbers of different protocols cannot be compared.

    Args:
        metrics: some of `config.METRICS` and `config.ON_LABELS`; None: those of `ON_PAIRS`, and no pairs are an error.
        split: "test" or "val"; None for folders.
        limit: no more images than this, evenly spread; None: all.
        network: a `FeatureNetwork`, where a metric needs one.
        kid_subset_size: images in each subset of KID; None: see `realism.subset_size`.
        kid_subsets: how many subsets.
        seed: of the subsets.
        feature_cache: folder of the features of real images, see `features.cached`.
        segmentation: a `Segmentation`, for fcn_score.
        pairs: whether images of one name in both domains are pairs.
    """

    metrics: tuple | None = None
    split: str | None = "test"
    limit: int | None = None
    network: FeatureNetwork | None = None
    kid_subset_size: int | None = None
    kid_subsets: int = 100
    seed: int = 2020
    feature_cache: str | None = None
    segmentation: Segmentation | None = None
    pairs: bool = True

    def __post_init__(self):
        known = METRICS + ON_LABELS
        unknown = [m for m in self.metrics or () if m not in known]
        if unknown:
            raise UserError(f"--metrics={','.join(self.metrics)}: {unknown[0]} is none of {', '.join(known)}")

    @property
    def names(self):
        """The metrics, in the order of `config.METRICS` and `config.ON_LABELS`."""
        return tuple(m for m in METRICS + ON_LABELS if m in (self.metrics or ON_PAIRS))

    def report(self):
        """A dict for metrics.json."""
        report = {"metrics": list(self.names), "split": self.split, "pairs": self.pairs, "limit": self.limit}
        if self.network:
            report |= self.network.protocol
        if {"kid", "mean_kid"} & set(self.names):
            report |= {
                "kid": "unbiased, kernel (x.y/d + 1)^3", "kid_subset_size": self.kid_subset_size or "automatic",
                "kid_subsets": self.kid_subsets, "seed": self.seed,
            }  # fmt: skip
        if self.segmentation:
            report |= self.segmentation.protocol
        return report


def needs_network(metrics):
    """Whether any of the metrics is of features."""
    return bool(set(metrics or ()) & set(_WITH_NETWORK))


def find_pairs(source, target, protocol):
    """Positions (i, j) of images of two `sources.Source` that belong together, see `match_names`."""
    if not (protocol.pairs and source.named and target.named):
        return []
    return match_names(source.names, target.names)


def check_counts(protocol, n_real, n_fake):
    """Raises `UserError`: fewer images than a metric needs."""
    least = {"fid": 2, "kid": 2, "mean_kid": 2, "precision_recall": realism.NEIGHBOURS + 1}
    for metric in protocol.names:
        if min(n_real, n_fake) < least.get(metric, 1):
            raise UserError(
                f"--metrics={metric} needs at least {least[metric]} images on either side, here are {n_real} real ones "
                f"and {n_fake} translations"
            )
    size = protocol.kid_subset_size
    if size and {"kid", "mean_kid"} & set(protocol.names) and size > min(n_real, n_fake):
        raise UserError(
            f"--kid_subset_size={size}: expected at most {min(n_real, n_fake)}, the images of the smaller set"
        )


# ------------------------------------------------------------------------------------------------------------ methods


@dataclasses.dataclass(frozen=True)
class Method:
    """A way of translating that is measured.

    Args:
        translate: function of inputs uint8 [N, H, W, C], direction and list of names → uint8 [N, H, W, C'].
        directions: which it knows.
        cycles: whether it can translate its own results back.
        unchanged: whether its results are its inputs, whose features are kept.
        baseline: whether it is there for comparison only; what is expensive is not measured of it.
    """

    translate: typing.Callable
    directions: tuple = DIRECTIONS
    cycles: bool = False
    unchanged: bool = False
    baseline: bool = False


def of_model(model, batch_size=8):
    """The `Method` of a `Translator`."""
    from tfi2i.translate import translate_fitted

    def translate(inputs, direction, names):
        fixed = getattr(model, "fixed_size", None)
        if not fixed or inputs.shape[1:3] == tuple(fixed):
            return model.translate(inputs, direction, batch_size=batch_size)
        results = translate_fitted(model, inputs, direction, batch_size=batch_size)
        return np.stack([images.resize(r, inputs.shape[1:3]) for r in results])

    directions = tuple(getattr(model, "directions", DIRECTIONS))
    return Method(translate, directions, cycles=set(directions) == set(DIRECTIONS))


def of_folder(folder, sides, directions=DIRECTIONS):
    """The `Method` of pictures that something else has made: FOLDER/a2b and FOLDER/b2a, or FOLDER for one direction.

    Pictures belong to the inputs of their name, see `match_names`, and are brought to the inputs' size.

    Args:
        folder: path.
        sides: {"a": …, "b": …}, the `sources.Source` of either domain.
        directions: which to look for.

    Raises:
        UserError: no such folder, or none for the directions.
    """
    root, found = pathlib.Path(folder), {}
    for direction in directions:
        within = root / direction
        if not within.is_dir() and len(directions) == 1:
            within = root
        if within.is_dir():
            paths = images.find_images(within)
            names = [p.relative_to(within).as_posix() for p in paths]
            own = sides[direction[0]].names
            found[direction] = {own[i]: paths[j] for i, j in match_names(own, names)}
    if not found:
        raise UserError(
            f"{folder} has no folder a2b or b2a: expected the translations there, or in it and --direction=a2b"
        )

    def translate(inputs, direction, names):
        lacking = [n for n in names if n not in found[direction]]
        if lacking:
            raise UserError(f"{root} has no {direction} picture of the name of {lacking[0]}, an image of this split")
        target, results = sides[direction[2]], []
        for pixels, name in zip(inputs, names):
            try:
                result = as_8_bits(images.read_image(found[direction][name], target.background))
            except images.BadImage as error:
                raise UserError(str(error)) from error
            results.append(images.resize(images.to_channels(result, target.channels), pixels.shape[:2]))
        return np.stack(results)

    return Method(translate, tuple(found))


def baselines(data, channels):
    """Two methods that know nothing of the content; the first needs training images.

    Args:
        data: `config.Data`.
        channels: {"a": …, "b": …}.

    Returns:
        dict of name → `Method`.
    """
    moments = training_moments(data)
    found = {}
    if moments:
        found["match_moments"] = Method(lambda x, d, _: match_moments(x, moments[d[0]], moments[d[2]]), baseline=True)
    found["do_nothing"] = Method(
        lambda x, d, _: np.stack([images.to_channels(p, channels[d[2]]) for p in x]),
        unchanged=channels["a"] == channels["b"],
        baseline=True,
    )
    return found


def training_moments(data):
    """Colours of both training sets: {"a": (mean [C], std [C]), "b": …} in levels; None without training data."""
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


def match_names(names_a, names_b):
    """Positions (i, j) of images of the same name, in the order of `names_a`.

    Not compared: the folder that holds all of a domain, an image's extension, and, for images without a partner of
    exactly their name, a final _A or _B.

    Raises:
        UserError: two images of a domain have the name of one of the other.
    """

    def stems(names):
        paths = [pathlib.PurePosixPath(n) for n in names]
        root = os.path.commonpath([p.parent for p in paths])
        paths = [p.relative_to(root) for p in paths]
        known = images.EXTENSIONS
        return {i: str(p.with_suffix("") if p.suffix.lower() in known else p) for i, p in enumerate(paths)}

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
                    raise UserError(
                        f"{first} and {second} are both called '{key}' where pairs are sought: rename one, or give "
                        "--nopairs"
                    )
        return [(where[0][key][0], where[1][key][0]) for key in common]

    a, b = stems(names_a), stems(names_b)
    exact = join(a, b)
    taken = [{i for i, _ in exact}, {j for _, j in exact}]
    rest = [
        {i: re.sub(r"[-_ ][AB]$", "", key) for i, key in keys.items() if i not in used}
        for keys, used in zip((a, b), taken)
    ]
    return sorted(exact + join(*rest))


# ----------------------------------------------------------------------------------------------------------- measuring


def evaluate(methods, data, protocol=Protocol(), directions=DIRECTIONS, batch_size=8, active=True, sides=None, rows=6):
    """Measures methods on the held-out images of a data set.

    Images are prepared as by `pipeline.eval_images`: whole, at the size that was trained, in 8 bits.

    Args:
        methods: dict of name → `Method`; the first one decides which examples are best and worst.
        data: `config.Data`, where the images are.
        protocol: a `Protocol`.
        directions: which to measure, of those that a method knows.
        batch_size: images that are translated at once.
        active: False prints nothing.
        sides: {"a": …, "b": …} of `sources.Source` instead of the split of `data`, which then says how images are
            prepared.
        rows: examples besides the best and the worst.

    Returns:
        (results, examples). `results` maps direction → method → measured values. With a truth, `n` images that have
        one, else all: `l1`, `l2` (length of the difference of an image, levels / 255), `pixel_accuracy`,
        `channel_accuracy`, `ssim`, `lpips_like_NETWORK`, means over images, each with its `…_std` over images; `psnr`
        in dB from the squared error of all images together (None: no error) with its standard error `psnr_error`, and
        `mean_psnr`, the mean of the images' own.
        Without a truth the same names with `input_` before them, compared with the input. `il2_NETWORK` and `cycle`
        (L1 of the way back) with `_std` always are. `fid_NETWORK` with its standard error `…_error`, `kid_NETWORK`
        and `mean_kid_NETWORK` with `…_std` over subsets, `precision_NETWORK` and `recall_NETWORK` with `…_error`,
        of `n_real` and `n_fake` images. With fcn_score `segmentation.SCORES`, each with its standard error `…_error`,
        of all but the baselines; the pairs' truths are then a method too, "truth", that has only these.

        `examples` maps direction → list of a fixed random choice and the best and the worst by L1 to the truth or
        else the input: dicts of `name`, `rank` ("", "best" or "worst"), `input`, `truth` (or None), uint8 [H, W, C],
        `results`, method → uint8, and `l1`.

    Raises:
        UserError: there is nothing to compare with, or nothing that can be read.
    """
    sides = sides or dict(zip("ab", sources.open_domains(data, protocol.split)))
    known = [d for d in directions if any(d in method.directions for method in methods.values())]
    results, examples = {}, {}
    for direction in known:
        measured = _Direction(methods, sides, data, protocol, direction, batch_size, active, rows)
        results[direction], examples[direction] = measured.results, measured.examples
    return results, examples


def evaluate_folders(
    real,
    fake,
    source=None,
    protocol=Protocol(("fid", "kid", "precision_recall"), split=None),
    preparation=None,
    batch_size=8,
    active=True,
):
    """Measures a folder of translations against one of real images; pairs are files of the same name.

    Args:
        real, fake: folders.
        source: folder of the images that were translated, or None; files of the same names as in `fake`.
        protocol: a `Protocol`, whose split is None.
        preparation: dict of fields of `config.Data` that say how images are resized and cut, see
            `pipeline.eval_images`; None: they are taken as they are.
        batch_size: images that are measured at once.
        active: False prints nothing.

    Returns:
        (results, examples) as `evaluate`, of the direction "a2b" and the method "fake".

    Raises:
        UserError: folders without images, or a metric that needs the source.
    """
    data = config.Data(**preparation or {})
    sides = {"a": sources.open_folder(source or fake), "b": sources.open_folder(real)}
    if source:
        method = of_folder(fake, sides, ("a2b",))
    else:
        lacking = [m for m in (*TO_INPUT, "mean_kid", "fcn_score") if m in protocol.names]
        if lacking:
            raise UserError(f"--metrics={lacking[0]} needs the images that were translated: give --source=FOLDER")
        method = Method(lambda x, direction, names: x, ("a2b",), unchanged=True)
    if "cycle" in protocol.names:
        raise UserError("--metrics=cycle needs a model that translates back: give --run_dir")
    if set(protocol.names) & set(PIXELS) and not source and not find_pairs(sides["a"], sides["b"], protocol):
        raise UserError(
            f"no two images of {fake} and {real} have the same name, so there are no pairs to compare: give "
            "--source=FOLDER to compare with what was translated"
        )
    results, examples = evaluate({"fake": method}, data, protocol, ("a2b",), batch_size, active, sides)
    if not source:
        examples = {d: [e | {"input": None} for e in shown] for d, shown in examples.items()}
    return results, examples


class _Direction:
    """One direction of `evaluate`."""

    def __init__(self, methods, sides, data, protocol, direction, batch_size, active, rows):
        self.methods = {name: m for name, m in methods.items() if direction in m.directions}
        self.data, self.protocol, self.direction, self._active = data, protocol, direction, active
        self.source, self.target = sides[direction[0]], sides[direction[2]]
        pairs = find_pairs(self.source, self.target, protocol)
        if not pairs and protocol.metrics is None:
            a, b = sides["a"], sides["b"]
            raise UserError(
                f"the {protocol.split} images are no pairs: none of {len(a)} names in A ({a.names[0]}, …) is among "
                f"the {len(b)} of B ({b.names[0]}, …), so there is no truth to compare with: "
                "--metrics=kid,il2,cycle measures without"
            )
        self.partner = dict(pairs)
        self.of_sets = bool(set(protocol.names) & set(REALISM))
        # Otherwise pairs are for people to look at.
        self._needs_truth = bool(pairs and set(protocol.names) & set(PIXELS))
        positions = list(self.partner) if self._needs_truth and not self.of_sets else list(range(len(self.source)))
        if protocol.limit and protocol.limit < len(positions):
            positions = _spread(positions, protocol.limit)
        elif active and direction == "a2b" and self._needs_truth and len(pairs) < max(map(len, sides.values())):
            print(
                f"{len(pairs)} pairs among {len(self.source)} and {len(self.target)} {protocol.split} images, the rest "
                "has no partner"
            )
        check_counts(protocol, min(len(self.target), protocol.limit or len(self.target)), len(positions))
        self.errors = {name: collections.defaultdict(list) for name in self.methods}
        self.features = {name: [] for name in self.methods}
        self.confusions = collections.defaultdict(list)
        self._segmentation = protocol.segmentation if "fcn_score" in protocol.names else None
        if self._segmentation:
            self._segmentation.open(direction, self.source.names)
        self.shown = set(np.random.default_rng(0).permutation(len(positions))[:rows].tolist())
        self._kept, self._inputs, self._count = [], {}, 0
        self._measure_real(positions, active)
        self._run(positions, batch_size, active)
        self.examples = self._ranked()
        self.results = {name: self._summary(name) for name in self.methods}
        if "truth" in self.confusions:
            counts = self.confusions["truth"]
            self.results["truth"] = {"n": len(counts)} | with_errors(counts)

    def _measure_real(self, positions, active):
        """Features of the real images: of the target for realism, of the inputs where they are compared with."""
        names = set(self.protocol.names)
        if self.of_sets:
            wanted = list(range(len(self.target)))
            if self.protocol.limit and self.protocol.limit < len(wanted):
                wanted = _spread(wanted, self.protocol.limit)
            found, _ = domain_features(self.target, wanted, self.data, self.protocol, active)
            self.real = found
        unchanged = self.of_sets and any(method.unchanged for method in self.methods.values())
        if names & {"il2", "mean_kid"} or unchanged:
            found, kept = domain_features(self.source, positions, self.data, self.protocol, active)
            self._inputs = dict(zip(kept, found))

    def _run(self, positions, batch_size, active):
        numbered = list(enumerate(positions))
        if set(self.protocol.names) <= set(REALISM) and all(m.unchanged for m in self.methods.values()):
            numbered = [(k, i) for k, i in numbered if k in self.shown]  # all features are there
        progress = Progress(len(numbered), f"images {self.direction}", active=active)
        batch = []
        for k, item in enumerate(_ahead(self._item, numbered, 4 * batch_size)):
            if item is None:
                continue
            if batch and (len(batch) == batch_size or not _alike(batch[0], item)):
                self._measure(batch)
                batch = []
                progress.update(k)
            batch.append(item)
        if batch:
            self._measure(batch)
            progress.update(len(numbered))
        progress.close()
        if not self._count:
            kind = "pairs" if self.partner else "images"
            raise UserError(f"none of the {len(positions)} {self.protocol.split} {kind} can be read")

    def _item(self, numbered):
        k, i = numbered
        pixels = _prepared(self.source, i, self.data)
        truth = None
        if i in self.partner:
            j = self.partner[i]
            truth = _prepared(self.target, j, self.data)
            fits = pixels is None or truth is None or pixels.shape[:2] == truth.shape[:2]
            if not fits and not self._needs_truth:
                truth = None
            elif not fits:
                x, y = self.direction[0].upper(), self.direction[2].upper()
                raise UserError(
                    f"{self.source.names[i]} is {pixels.shape[:2]} in {x} and {truth.shape[:2]} in {y}: pairs must "
                    "match pixel by pixel. Give --size=N to bring all to one size, or --nopairs if they are none"
                )
        if pixels is None or (truth is None and self._needs_truth and not self.of_sets):
            return None
        return {
            "name": self.source.names[i], "position": i, "shown": k in self.shown, "input": pixels, "truth": truth,
            "results": {}, "l1": None,
        }  # fmt: skip

    def _measure(self, batch):
        inputs, names = np.stack([item["input"] for item in batch]), [item["name"] for item in batch]
        has_truth = batch[0]["truth"] is not None
        if self._segmentation:
            for item in batch:
                self._segmentation.check(self.direction, item["name"], item["input"], item["truth"])
        channels = self.target.channels
        plain = np.stack([images.to_channels(x, channels) for x in inputs])
        reference = np.stack([item["truth"] for item in batch]) if has_truth else plain
        # Where there are pairs, images without a partner count for realism and for closeness to the input alone.
        compare = has_truth or not self.partner
        for number, (name, method) in enumerate(self.methods.items()):
            results = method.translate(inputs, self.direction, names)
            if compare:
                self._compare(self.errors[name], results, reference, "" if has_truth else "input_")
            self._compare_with_inputs(name, method, batch, inputs, results)
            self._compare_with_labels(name, names, results)
            for item, result, reached in zip(batch, results, faithfulness.l1(results, reference)):
                item["results"][name] = result
                if number == 0 and compare:
                    item["l1"] = float(reached)
        if has_truth:
            self._compare_with_labels("truth", names, reference)
        self._count += len(batch)
        # Of all items so far only those that may be shown are kept.
        self._kept += [item for item in batch if item["l1"] is not None or item["shown"]]
        self._kept.sort(key=lambda item: (item["l1"] is None, item["l1"]))
        ranked = [item for item in self._kept if item["l1"] is not None]
        ends = ranked[:1] + ranked[-1:]
        self._kept = [item for item in self._kept if item["shown"] or any(item is end for end in ends)]

    def _compare(self, errors, results, reference, prefix):
        wanted = self.protocol.names
        functions = {}
        if "l1" in wanted:
            functions["l1"] = faithfulness.l1
        if {"psnr", "mean_psnr", "l2"} & set(wanted):
            functions["squared_error"] = faithfulness.squared_error
        if "pixel_accuracy" in wanted:
            functions["pixel_accuracy"] = faithfulness.pixel_accuracy
            functions["channel_accuracy"] = faithfulness.channel_accuracy
        if "ssim" in wanted:
            if min(results.shape[1:3]) < faithfulness.SSIM_WINDOW:
                raise UserError(
                    f"--metrics=ssim needs {faithfulness.SSIM_WINDOW} pixels a side, images are {results.shape[1:3]}: "
                    "give --size=N, or leave ssim out"
                )
            functions["ssim"] = faithfulness.ssim
        if "lpips_like" in wanted:
            functions[f"lpips_like_{self.protocol.network.name}"] = self.protocol.network.perceptual_distance
        for key, function in functions.items():
            errors[prefix + key].append(function(results, reference))
        if "l2" in wanted:
            length = np.sqrt(errors[f"{prefix}squared_error"][-1] * np.prod(results.shape[1:])) / 255
            errors[f"{prefix}l2"].append(length)

    def _compare_with_inputs(self, name, method, batch, inputs, results):
        wanted, errors, network = self.protocol.names, self.errors[name], self.protocol.network
        if self.of_sets or "il2" in wanted:
            known = self._inputs and np.stack([self._inputs[item["position"]] for item in batch])
            found = known if method.unchanged else network.features(results)
            if self.of_sets and not method.unchanged:
                self.features[name].append(found)
            if "il2" in wanted:
                errors[f"il2_{network.name}"].append(np.linalg.norm(found.astype(np.float64) - known, axis=1))
        if "cycle" in wanted and method.cycles:
            back = method.translate(results, self.direction[::-1], [i["name"] for i in batch])
            errors["cycle"].append(faithfulness.l1(back, inputs))

    def _compare_with_labels(self, method, names, results):
        if self._segmentation and not (method in self.methods and self.methods[method].baseline):
            found = [self._segmentation.confusion(self.direction, n, r) for n, r in zip(names, results)]
            self.confusions[method] += found

    def _ranked(self):
        ranked = [item for item in self._kept if item["l1"] is not None]
        best, worst = ranked[0] if ranked else None, ranked[-1] if ranked else None
        others = sorted((i for i in self._kept if i is not best and i is not worst), key=lambda item: item["name"])
        found = [item | {"rank": ""} for item in others] + ([best | {"rank": "best"}] if ranked else [])
        return found + ([worst | {"rank": "worst"}] if worst is not best else [])

    def _summary(self, name):
        summary = {}
        errors = {key: np.concatenate(values) for key, values in self.errors[name].items() if values}
        compared = [len(v) for k, v in errors.items() if k not in ("cycle",) and not k.startswith("il2")]
        summary["n"] = compared[0] if compared else max(map(len, errors.values()), default=self._count)
        for key, values in errors.items():
            if key.endswith("squared_error"):
                prefix = key.removesuffix("squared_error")
                if "psnr" in self.protocol.names:
                    summary |= _psnr(prefix, values)
                if "mean_psnr" in self.protocol.names:
                    # Of each image for itself, at most 100 dB, as EGSDE and others have it.
                    decibels = faithfulness.decibels(values + 1e-10 * 255**2)
                    summary |= {f"{prefix}mean_psnr": float(decibels.mean())}
                    summary |= {f"{prefix}mean_psnr_std": float(decibels.std())}
                continue
            summary |= {key: float(values.mean()), f"{key}_std": float(values.std())}
        if self.of_sets:
            source = np.array(list(self._inputs.values()))
            fake = source if self.methods[name].unchanged else np.concatenate(self.features[name])
            summary |= compare_sets(self.real, fake, self.protocol, source, self._active)
            if not errors:
                summary["n"] = summary["n_fake"]
        if name in self.confusions:
            summary |= with_errors(self.confusions[name])
        return summary


def compare_sets(real, fake, protocol, source=None, active=False):
    """The metrics of `REALISM` that the protocol asks for.

    Args:
        real, fake: features [n, d] and [m, d] of real images and of translations.
        protocol: a `Protocol`.
        source: features of the inputs, for mean_kid.
        active: False prints nothing.

    Returns:
        dict as in `evaluate`.
    """
    wanted, network = protocol.names, protocol.network.name
    found = {"n_real": len(real), "n_fake": len(fake)}
    if "fid" in wanted:
        found[f"fid_{network}"] = realism.frechet_distance(real, fake)
        # Seconds for each part where images are more than features, else nothing.
        slow = active and min(len(real), len(fake)) > real.shape[1]
        progress = Progress(realism.GROUPS, "parts of the Fréchet distance's error", active=slow)
        found[f"fid_{network}_error"] = realism.frechet_error(real, fake, progress.update)
        progress.close()

    def kid(x, y):
        size = protocol.kid_subset_size or realism.subset_size(len(x), len(y))
        found["kid_subset_size"] = size
        return realism.kernel_distance(x, y, size, protocol.kid_subsets, protocol.seed)

    if "kid" in wanted:
        values = kid(real, fake)
        found |= {f"kid_{network}": float(values.mean()), f"kid_{network}_std": float(values.std())}
    if "mean_kid" in wanted:
        # What the published code of U-GAT-IT's first author calls mean KID; it mixes the distance to the inputs in.
        values = (0.02 * kid(real, fake) + 0.98 * kid(source, fake)) / 2
        found |= {f"mean_kid_{network}": float(values.mean()), f"mean_kid_{network}_std": float(values.std())}
    if "precision_recall" in wanted:
        for name, share, n in zip(
            ("precision", "recall"), realism.precision_recall(real, fake), (len(fake), len(real))
        ):
            error = float(np.sqrt(share * (1 - share) / n))
            found |= {f"{name}_{network}": share, f"{name}_{network}_error": error}
    return found


def domain_features(source, positions, data, protocol, active=True):
    """Features of images of one domain, as they are prepared for translation; kept for the next time.

    Args:
        source: a `sources.Source`.
        positions: which images.
        data: `config.Data`, how they are prepared.
        protocol: a `Protocol` with a network.
        active: False prints nothing.

    Returns:
        (features [m, d], positions of the m images that can be read).
    """
    preparation = [source.channels, source.background, data.resize, data.resize_mode, data.resize_filter, data.crop]
    key = f"{source.content_hash(positions)}\n{preparation}"

    def compute():
        progress = Progress(len(positions), f"real images, {protocol.network.name}", active=active)
        found, kept = protocol.network.extract(
            lambda k: _prepared(source, positions[k], data), len(positions), on_batch=progress.update
        )
        progress.close()
        return found, kept

    found, kept = cached(protocol.network, key, compute, protocol.feature_cache)
    return found, [positions[k] for k in kept]


def as_8_bits(pixels):
    """uint8 or uint16 → uint8."""
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels / 257).astype(np.uint8)


def _psnr(prefix, squared):
    """PSNR of the mean squared error, and its standard error to first order."""
    key, mean = f"{prefix}psnr", squared.mean()
    if not mean:
        return {key: None, f"{key}_error": None}
    error = squared.std(ddof=1) / np.sqrt(len(squared)) / mean * 10 / np.log(10) if len(squared) > 1 else None
    return {key: float(faithfulness.decibels(mean)), f"{key}_error": None if error is None else float(error)}


def _prepared(source, i, data):
    """Image `i` at evaluation's size in 8 bits, or None where it cannot be read."""
    for _, pixels in pipeline.eval_images(source, data, [i]):
        return as_8_bits(pixels)


def _ahead(function, items, count):
    """`map` that is up to `count` items ahead, in threads."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        waiting = collections.deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _spread(positions, limit):
    return [positions[k] for k in np.linspace(0, len(positions) - 1, limit).astype(int)]


def _alike(a, b):
    return a["input"].shape == b["input"].shape and (a["truth"] is None) == (b["truth"] is None)
