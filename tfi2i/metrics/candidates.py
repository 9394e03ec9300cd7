"""Candidates: ways of translating that are measured beside each other. Models, pictures made elsewhere, baselines."""

import dataclasses
import pathlib
import typing

import numpy as np

from tfi2i.config import DIRECTIONS, UserError
from tfi2i.data import images, sources
from tfi2i.metrics.held_out import as_8_bits, read_image
from tfi2i.metrics.pairs import match_names

# Training images per domain that the colour moments are taken from.
_MOMENT_IMAGES = 256


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way of translating that is measured.

    Attributes:
        translate: function of inputs uint8 [N, H, W, C], direction and list of names → uint8 [N, H, W, C']. With
            `styled` it takes seed=… too, which chooses the styles.
        directions: those that it can translate.
        cycles: whether it can translate its own results back.
        unchanged: whether its results are its inputs, whose features are known already.
        baseline: whether it is there for comparison only; what is expensive is not measured of it.
        styled: whether an input has many translations, with different styles.
    """

    translate: typing.Callable
    directions: tuple = DIRECTIONS
    cycles: bool = False
    unchanged: bool = False
    baseline: bool = False
    styled: bool = False


def of_model(model, batch_size=8, mean_style=False):
    """The `Candidate` of a `Translator`: networks that take one size get it, and results come back at the inputs'.

    Where the method takes a style, each image has its own, and the way back, whose style would be another one, is not
    measured. `mean_style` gives all images the mean style, zeros, which a student learns.
    """
    from tfi2i.translation import translate_fitted

    def translate(inputs, direction, names, seed=0):
        # By name, so that a batch of another size has the same styles.
        given = {}
        if model.style_size is not None:
            given["style"] = np.zeros(model.style_size) if mean_style else model.draw_styles(seed, names)
        if not model.sizes.fixed or inputs.shape[1:3] == tuple(model.sizes.fixed):
            return model.translate(inputs, direction, batch_size=batch_size, **given)
        filter = model.run.data.resize_filter or "bicubic"
        results = translate_fitted(model, inputs, direction, filter=filter, batch_size=batch_size, **given)
        return np.stack([images.resize(r, inputs.shape[1:3], filter) for r in results])

    directions = tuple(model.directions)
    styled = model.style_size is not None and not mean_style
    cycles = set(directions) == set(DIRECTIONS) and model.style_size is None
    return Candidate(translate, directions, cycles=cycles, styled=styled)


# ------------------------------------------------------------------------------------------------------------ pictures


def direction_folders(folder, directions=DIRECTIONS):
    """Where translations that something else has made are: FOLDER/a2b and FOLDER/b2a, or FOLDER for one direction.

    Args:
        folder: path.
        directions: which to look for.

    Returns:
        dict of direction → path, of those that are there.

    Raises:
        UserError: none of them is.
    """
    root = pathlib.Path(folder)
    folders = {direction: root / direction for direction in directions if (root / direction).is_dir()}
    if not folders and len(directions) == 1 and root.is_dir():
        return {directions[0]: root}
    if not folders:
        raise UserError(
            f"{folder} has no folder a2b or b2a: expected the translations there, or in it and --direction=a2b"
        )
    return folders


def of_pictures(folders, domains):
    """The `Candidate` of translations that something else has made.

    Pictures belong to the inputs of their name, see `pairs.match_names`, and are brought to the inputs' size.

    Args:
        folders: dict of direction → path, see `direction_folders`.
        domains: {"a": …, "b": …} of `sources.Source`.
    """
    paths = {}
    for direction, folder in folders.items():
        inputs, pictures = domains[direction[0]].names, images.find_images(folder)
        names = [path.relative_to(folder).as_posix() for path in pictures]
        paths[direction] = {inputs[i]: pictures[j] for i, j in match_names(inputs, names)}

    def translate(inputs, direction, names):
        lacking = [name for name in names if name not in paths[direction]]
        if lacking:
            raise UserError(
                f"{folders[direction]} has no {direction} picture of the name of {lacking[0]}, an image of this split"
            )
        target, results = domains[direction[2]], []
        for pixels, name in zip(inputs, names):
            try:
                result = as_8_bits(images.read_image(paths[direction][name], target.background))
            except images.BadImage as error:
                raise UserError(str(error)) from error
            results.append(images.resize(images.to_channels(result, target.channels), pixels.shape[:2]))
        return np.stack(results)

    return Candidate(translate, tuple(folders))


# ----------------------------------------------------------------------------------------------------------- baselines


def baselines(data, channels):
    """Two candidates that know nothing of the content; the first needs training images.

    Args:
        data: `config.Data`.
        channels: {"a": …, "b": …}.

    Returns:
        dict of name → `Candidate`.
    """
    made, moments = {}, training_moments(data)
    if moments:
        made["match_moments"] = Candidate(
            lambda x, direction, _: match_moments(x, moments[direction[0]], moments[direction[2]]), baseline=True
        )
    made["do_nothing"] = Candidate(
        lambda x, direction, _: np.stack([images.to_channels(pixels, channels[direction[2]]) for pixels in x]),
        unchanged=channels["a"] == channels["b"],
        baseline=True,
    )
    return made


def training_moments(data):
    """Colours of both training sets: {"a": (mean [C], std [C]), "b": …} in levels; None without training data."""
    try:
        domains = sources.open_domains(data, "train")
    except UserError:
        return None
    moments = {}
    for domain, source in zip("ab", domains):
        chosen = np.unique(np.linspace(0, len(source) - 1, _MOMENT_IMAGES).astype(int))
        readable = [x for x in (read_image(source, i, data) for i in chosen) if x is not None]
        if not readable:
            return None
        # Each image counts the same, whatever its size.
        mean = np.mean([x.mean((0, 1)) for x in readable], axis=0)
        square = np.mean([np.square(x, dtype=np.float64).mean((0, 1)) for x in readable], axis=0)
        moments[domain] = mean, np.sqrt(np.maximum(square - mean**2, 0))
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
