"""Image files and arrays of any size through a model: what `tfi2i.translate` does, and how images meet the networks."""

import functools
import itertools
import os
import pathlib

import numpy as np

from tfi2i import pictures, tiling
from tfi2i.config import UserError, local_path
from tfi2i.data import images
from tfi2i.data.metadata import read as read_metadata
from tfi2i.levels import to_levels, to_range
from tfi2i.progress import Progress

# Megapixels; more than this at once takes a network many gigabytes.
_LARGE = 4
# Extensions of files that can hold any picture, and of those that can hold transparency.
_ANY = (".png", ".tif", ".tiff")
_TRANSPARENT = (*_ANY, ".webp")


def translate_files(
    model,
    input,
    output,
    direction=None,
    size=None,
    fit=None,
    tile=512,
    overlap=64,
    keep_size=True,
    side_by_side=False,
    batch_size=1,
    heatmaps=False,
    discriminator_heatmaps=False,
    overwrite=False,
    metadata="keep",
    style_seed=None,
    reference=None,
    samples=None,
    active=True,
):
    """Translates image files to image files.

    Args:
        model: a `Translator` from `tfi2i.load`; its `run.data` names background and resize filter.
        input: path of a file or folder, or a pattern.
        output: path of a folder or, for one input file, of an image.
        direction, size, fit, tile, overlap: as `translate_fitted`.
        keep_size: bring results back to the input's size after `size`.
        side_by_side: write input and result beside each other.
        batch_size: consecutive images of equal size that go through the network at once.
        heatmaps: also write where the generator looks, over the input.
        discriminator_heatmaps: also write where the discriminators look, over the result.
        overwrite: replace files that are there already.
        metadata: "keep" writes what stays true of a translation: EXIF with place and time, resolution, and the
            georeference of a TIFF where the size is kept; "strip" writes pixels alone.
        style_seed: of the styles that are drawn, one for each picture by its file's name, where the method takes a
            style; None: 0.
        reference: path of a picture of the domain translated to, whose style all translations take.
        samples: write a grid of a picture and this many translations of it, with the styles of `style_seed` and of the
            seeds that follow it.
        active: False prints nothing.

    Returns:
        (list of paths written, list of (input path, reason) that failed).

    Raises:
        UserError: no input, an output that would overwrite it, files that are there already, a direction or tiles that
            the network cannot take, heatmaps of networks without attention, styles of a method that takes none, or a
            reference that cannot be read.
    """
    import tensorflow as tf

    input, output = local_path(input, "input"), local_path(output, "output")
    direction = model.resolve_direction(direction)
    fit, size = resolve_fit(model, fit, size, tile)
    if fit == "tile":
        try:
            tiling.tile_starts(1, tile, overlap, model.sizes.multiple)
        except ValueError as error:
            raise UserError(f"--{error}") from error
    if heatmaps or discriminator_heatmaps:
        model.check_heatmaps(discriminator_heatmaps)
        if fit == "tile":
            raise UserError("--heatmaps show the attention within a whole picture: use --fit=pad or --fit=resize")
    check_styles(style_seed, reference, samples, side_by_side)
    targets, pages = plan(input, output, heatmaps, discriminator_heatmaps, overwrite)
    named = _is_named(input, output)
    data = model.run.data
    filter = data.resize_filter or "bicubic"
    seeds = range(style_seed or 0, (style_seed or 0) + (samples or 1))
    style = _reference_style(model, direction, reference, size, filter, style_seed, samples)
    channels = model.channels_of(direction[0])
    progress = Progress(len(targets), "images", active=active)
    written, failed, batch, renamed, warned, sizes = [], [], [], {}, False, {}
    taken = {*targets.values(), *itertools.chain(*(paths.values() for paths in pages.values()))}
    memory = (MemoryError, tf.errors.ResourceExhaustedError)

    def done(text):
        progress.update(len(written) + len(failed), text)

    def fail(path, error):
        reason = error.reason if isinstance(error, images.BadImage) else str(error)
        if isinstance(error, memory):
            reason = "not enough memory: use --fit=tile, a smaller --size or --batch_size"
        failed.append((path, reason))
        progress.note(f"failed: {path}: {reason}")
        done("")

    def write_heatmaps(paths, pixels):
        seen = images.resize(pixels, size or pixels.shape[:2], filter)
        behind = {"generator": seen}
        if discriminator_heatmaps:
            behind |= dict.fromkeys(("global", "local"), model.translate(seen, direction))
        for name, heat in model.heatmaps(seen, direction, discriminator_heatmaps).items():
            page = pictures.overlay(behind[name][None], heat[None])[0]
            shape = pixels.shape[:2] if keep_size else page.shape[:2]
            images.write_image(paths[name], images.resize(page, shape, filter))

    def translated(seed):
        """The batch with the styles of a seed, or with that of the reference."""
        given = {}
        if model.style_size is not None:
            given["style"] = model.styles_of([path.name for path, *_ in batch], direction, style, seed=seed)
        pixels = np.stack([pixels for _, pixels, _ in batch])
        return translate_fitted(
            model, pixels, direction, size, fit, tile, overlap, filter, batch_size, on_tile=done, **given
        )

    def flush():
        try:
            drawn = [translated(None if style is not None else seed) for seed in seeds]
        except memory as error:
            for path, *_ in batch:
                fail(path, error)
            return
        for (path, pixels, alpha), *results in zip(batch, *drawn):
            shape = pixels.shape[:2] if keep_size else results[0].shape[:2]
            pixels, result, *others = (images.resize(x, shape, filter) for x in (pixels, *results))
            alpha = None if alpha is None else images.resize(alpha[..., None], shape, filter)[..., 0]
            about = read_metadata(path) if metadata == "keep" else None
            if about and (side_by_side or samples or shape != sizes[path]):
                about = about.of_other_size()
            if samples:
                titles = ["input", *(f"seed {seed}" for seed in seeds)]
                result, alpha = pictures.grid([pixels, result, *others], titles), None
            if side_by_side:
                both = max(pixels.shape[-1], result.shape[-1])
                result = np.concatenate([images.to_channels(x, both) for x in (pixels, result)], axis=1)
                alpha = None if alpha is None else np.concatenate([alpha, alpha], axis=1)
            target = targets[path]
            if named and target.suffix.lower() not in _TRANSPARENT:
                alpha = None
            if not named and not images.holds(target.suffix, result, alpha):
                target = _as_png(target, taken)
                taken.add(target)
                renamed[targets[path].suffix] = target
            try:
                images.write_image(target, result, alpha, about)
                if pages[path]:
                    write_heatmaps(pages[path], pixels)
            except (ValueError, OSError, *memory) as error:
                fail(path, error)
            else:
                written.append(target)
                done(path.name)

    for path in targets:
        try:
            pixels, alpha = images.read_image(path, keep_alpha=True)
            if alpha is not None:
                # The model has learned from the background, not from what happens to lie behind transparent pixels.
                pixels = images.over(pixels, alpha, data.background)
        except images.BadImage as error:
            fail(path, error)
            continue
        pixels, sizes[path] = images.to_channels(pixels, channels), pixels.shape[:2]
        limit = images.longest_side(targets[path].suffix) if named and keep_size else np.inf
        if max(pixels.shape[0], pixels.shape[1] * (1 + side_by_side)) > limit:
            fail(path, ValueError(f"'{targets[path].suffix}' files hold {limit} pixels a side: write .png or .tif"))
            continue
        megapixels = pixels.shape[0] * pixels.shape[1] / 1e6
        if megapixels > _LARGE and fit != "tile" and not size and not warned:
            warned = True
            progress.note(f"note: {path} has {megapixels:.0f} megapixels; should memory run out, use --fit=tile")
        if batch and (len(batch) == batch_size or not _alike(pixels, batch[0][1])):
            flush()
            batch.clear()
        batch.append((path, pixels, alpha))
    if batch:
        flush()
    progress.close()
    if active:
        for suffix, example in renamed.items():
            print(f"'{suffix}' cannot hold some of these pictures: written as .png, e.g. {example}")
    return written, failed


def check_styles(style_seed=None, reference=None, samples=None, side_by_side=False):
    """Refuses flags about styles that contradict each other, and a reference that is not there.

    Raises:
        UserError: they do, or it is not.
    """
    if reference is not None and style_seed is not None:
        raise UserError("--reference and --style_seed both say what style to take: give one of them")
    if reference is not None and samples:
        raise UserError("--samples are translations with many styles, and --reference gives one: leave one of them out")
    if samples and side_by_side:
        raise UserError("--samples: the grid shows the input too: leave --side_by_side out")
    if reference is not None and not os.path.isfile(local_path(reference, "reference")):
        raise UserError(f"--reference={reference} is not there: give a picture of the domain that is translated to")


def _reference_style(model, direction, reference, size, filter, style_seed, samples):
    """float32 [style_size], the style of a reference; None without one. Raises `UserError`: see `translate_files`."""
    given = {"style_seed": style_seed, "reference": reference, "samples": samples}
    asked = [name for name, value in given.items() if value is not None]
    if model.style_size is None:
        if asked:
            raise UserError(f"--{asked[0]}: {model.name} takes no style, it has one translation for each picture")
        return None
    if reference is None:
        return None
    try:
        pixels = images.read_image(local_path(reference, "reference"), model.background)
        pixels = images.to_channels(pixels, model.channels_of(direction[-1]))
        # Seen at the size of the pictures that are translated.
        pixels = images.resize(pixels, size or pixels.shape[:2], filter)
        return model.styles_of([0], direction, reference=pixels)[0]
    except images.BadImage as error:
        raise UserError(f"--reference={reference} cannot be read: {error.reason}") from error
    except ValueError as error:
        raise UserError(f"--reference={reference}: {error}") from error


def resolve_fit(model, fit=None, size=None, tile=None):
    """How images of any size meet the networks: the rule of --fit and --size, here and in exported files.

    Args:
        model: a `Translator`.
        fit: "pad", "resize", "tile", or None: "resize" where the networks take one size only, else "pad".
        size: (height, width) that was asked for, or None.
        tile: side of a tile.

    Returns:
        (fit, size): images are resized to `size` first and results back; None: they are translated as they are.
        "resize" without a size takes the crop of the training.

    Raises:
        UserError: the networks cannot take that.
    """
    fixed = model.sizes.fixed
    fit = fit or ("resize" if fixed else "pad")
    if fixed and (fit == "pad" or fit == "tile" and (tile, tile) != tuple(fixed)):
        seen = f"--fit=tile --tile={tile}" if fit == "tile" else "--fit=pad"
        raise UserError(f"{seen}: the networks take {model.sizes}: use --fit=resize")
    if fit == "resize":
        run = getattr(model, "run", None)
        size = tuple(size or fixed or (run and run.data.crop) or ())
        if not size:
            raise UserError("--fit=resize: the run does not say what size it was trained on: give --size=N or H,W")
        if not model.sizes.fit(*size):
            near = ",".join(map(str, model.sizes.nearest(size)))
            raise UserError(
                f"--fit=resize brings images to --size={size[0]},{size[1]}, but the networks take {model.sizes}: give "
                f"--size={near}" + ("" if fixed else " or --fit=pad")
            )
    return fit, size


def translate_fitted(
    model,
    pixels,
    direction=None,
    size=None,
    fit=None,
    tile=512,
    overlap=64,
    filter="bicubic",
    batch_size=1,
    on_tile=None,
    style=None,
):
    """Translates images of one size, of whatever size.

    Args:
        model: a `Translator`.
        pixels: uint8 or uint16 [N, H, W, C].
        direction: "a2b" or "b2a"; None: the first of the model's.
        size: (height, width) to resize to first; None: H, W, or with "resize" the crop of the training.
        fit: how the network gets a size it takes: "pad" by reflection and cut back, "resize", or "tile": see
            `tiling.translate_tiled`; None: by method, see `resolve_fit`.
        tile: side of a tile.
        overlap: pixels that neighbouring tiles share.
        filter: name of the filter for every resizing.
        batch_size: images at once; tiles go one by one.
        on_tile: called with a text before every tile.
        style: float32 [N, style_size], where the method takes a style; None: as of `Translator.translate`.

    Returns:
        array [N, *size, C'] of the dtype of `pixels`.
    """
    fit, size = resolve_fit(model, fit, size, tile)
    pixels = np.stack([images.resize(x, size or x.shape[:2], filter) for x in pixels])
    h, w = pixels.shape[1:3]
    multiple = model.sizes.multiple
    if fit != "tile":
        return model.translate(pixels, direction, batch_size=batch_size, **({} if style is None else {"style": style}))

    peak = np.iinfo(pixels.dtype).max
    total = len(pixels) * np.prod([len(tiling.tile_starts(n, tile, overlap, multiple)) for n in (h, w)])
    count = itertools.count(1)

    def function(x, **style):
        if on_tile:
            on_tile(f"tile {next(count)} of {total}")
        y = model.translate(to_range(x.astype(np.float32), model.value_range, peak), direction, **style)
        return np.clip(to_levels(y, model.value_range, peak), 0, peak)

    # All tiles of a picture have one style.
    each = [{}] * len(pixels) if style is None else [{"style": one} for one in style]
    functions = [functools.partial(function, **own) for own in each]
    return np.stack([tiling.translate_tiled(f, x, tile, overlap, multiple) for f, x in zip(functions, pixels)])


def plan(input, output, heatmaps=False, discriminator_heatmaps=False, overwrite=False):
    """Which file goes where, before anything is read.

    Args:
        input: path of a file or folder, or a pattern.
        output: path of a folder or an image file.
        heatmaps: the generator's are written too.
        discriminator_heatmaps: the generator's and the discriminators' are written too.
        overwrite: outputs may be there already.

    Returns:
        (targets, pages): dict of input path → output path, as `pathlib.Path`, with the input's extension; and dict of
        input path → dict of "generator", "global", "local" → path of the heatmap, of those that are written.

    Raises:
        UserError: nothing to translate, an output that is an input, one file for two heatmaps, or outputs that are
            there already.
    """
    input, output = local_path(input, "input"), local_path(output, "output")
    for flag, path in (("input", input), ("output", output)):
        if pathlib.Path(path).suffix.lower() in images.FILMS and not os.path.isdir(path):
            raise UserError(f"--{flag}={path}: films are not read or written: take the frames out, as pictures")
    kind = pathlib.Path(output).suffix.lower()
    if kind in images.OTHER_PICTURES and not os.path.isdir(output):
        raise UserError(f"--output={output}: pictures are not written as {kind}: use {', '.join(images.EXTENSIONS)}")
    inputs, named = images.find_images(input), _is_named(input, output)
    if os.path.isfile(input):
        targets = {inputs[0]: pathlib.Path(output) if named else pathlib.Path(output) / inputs[0].name}
    else:
        if _is_image(output) and not os.path.isdir(output):
            raise UserError(f"--output={output} is one image, but --input={input} is not one file: give a folder")
        root = images.root(input)
        folder = pathlib.Path(output)
        if root.resolve() in folder.resolve().parents:
            # Results of an earlier call, in a sub-folder of the input, are no inputs.
            inputs = [f for f in inputs if folder.resolve() not in f.resolve().parents]
        targets = {f: folder / f.relative_to(root) for f in inputs}
    if os.path.exists(output) and not os.path.isdir(output) and not _is_image(output):
        raise UserError(f"--output={output} is a file: expected a folder, or an image file for one input file")
    if not targets:
        raise UserError(f"--input={input} has no images outside --output={output}")
    pages = _plan_heatmaps(targets, heatmaps, discriminator_heatmaps)
    sources, there = {f.resolve() for f in targets}, []
    for source, target in targets.items():
        possible = [target, *pages[source].values()]
        if not named and target.suffix.lower() not in _ANY:
            possible += [target.with_suffix(".png"), target.with_name(target.name + ".png")]
        for path in possible:
            if path.resolve() in sources:
                raise UserError(f"translating {source} would overwrite {path}: give another --output")
        there += [path for path in possible if os.path.lexists(path)][:1]
    if there and not overwrite:
        raise UserError(
            f"results of {len(there)} of {len(targets)} images are there already, {there[0]} for one: add --overwrite "
            "to replace them, or give another --output"
        )
    return targets, pages


def _plan_heatmaps(targets, heatmaps, discriminators):
    """dict of input path → dict of network → path of its heatmap, for the `targets` of `plan`."""
    suffixes = {"generator": ""} if heatmaps or discriminators else {}
    suffixes |= {"global": "_global", "local": "_local"} if discriminators else {}
    pages, taken = {}, set(targets.values())
    for source, target in targets.items():
        # x.png and x.jpg, or an x_attention.png among the pictures: the extension tells them apart.
        for stem in (target.stem, target.name):
            paths = {name: target.with_name(f"{stem}_attention{suffix}.png") for name, suffix in suffixes.items()}
            if taken.isdisjoint(paths.values()):
                break
        else:
            twice = next(path for path in paths.values() if path in taken)
            raise UserError(f"the heatmap of {source} would be {twice}, which another picture's is: rename one")
        pages[source] = paths
        taken.update(paths.values())
    return pages


def _is_named(input, output):
    """Whether `output` names the one file to write, which is written under that name or not at all."""
    return os.path.isfile(input) and _is_image(output) and not os.path.isdir(output)


def _is_image(path):
    return pathlib.Path(path).suffix.lower() in images.EXTENSIONS


def _as_png(target, taken):
    """The path with .png for its extension, or after it where that is another picture's name."""
    png = target.with_suffix(".png")
    return target.with_name(target.name + ".png") if png in taken else png


def _alike(x, y):
    return x.shape == y.shape and x.dtype == y.dtype
