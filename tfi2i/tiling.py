"""Translation of images that are too large for memory, in overlapping tiles with smooth weights."""

import numpy as np


def translate_tiled(function, image, tile=512, overlap=64, multiple=1):
    """Applies `function` to overlapping tiles and blends what comes back.

    In an overlap of two tiles the weights are sin² and cos² of the distance to the tiles' edges: they add up to 1
    and are 0 where a tile ends, so there are no seams. Networks with instance norm take their statistics from what
    they see, here a tile, so tiles are not exactly parts of the whole image's translation; larger tiles come closer.

    Memory: `image`, the result in float32, and what `function` needs for one tile.

    Args:
        function: maps one tile [h, w, C] to [h, w, C'], in the scale of `image`'s dtype; floats keep the blend exact.
            It gets an image that fits into one tile as it is; otherwise h and w are multiples of `multiple`.
        image: array [H, W, C].
        tile: side of a tile in pixels.
        overlap: pixels that neighbouring tiles share, at least.
        multiple: sides of tiles and distances between them are multiples of this (a network's total stride).

    Returns:
        array [H, W, C'] of `image`'s dtype, rounded when that is an integer.

    Raises:
        ValueError: `tile` is not a multiple of `multiple`, or the overlap is more than half a tile.
    """
    h, w, _ = image.shape
    rows, columns = (tile_starts(length, tile, overlap, multiple) for length in (h, w))
    if len(rows) == len(columns) == 1:
        return _as(function(image), image.dtype)
    padded_h, padded_w = (-(-length // multiple) * multiple for length in (h, w))
    image = np.pad(image, ((0, padded_h - h), (0, padded_w - w), (0, 0)), mode="reflect")
    weights_y, weights_x = _weights(rows, padded_h, tile, overlap), _weights(columns, padded_w, tile, overlap)
    result = None
    for top, weight_y in zip(rows, weights_y):
        for left, weight_x in zip(columns, weights_x):
            y = function(image[top : top + tile, left : left + tile])
            if result is None:
                result = np.zeros((padded_h, padded_w, y.shape[-1]), np.float32)
            result[top : top + tile, left : left + tile] += y * weight_y[:, None, None] * weight_x[None, :, None]
    return _as(result[:h, :w], image.dtype)


def tile_starts(length, tile, overlap, multiple):
    """Where the tiles begin along a side of `length` pixels, padded to a multiple: [0] when one tile holds it.

    Raises:
        ValueError: as `translate_tiled`.
    """
    if tile < 1 or tile % multiple:
        near = max(-(-tile // multiple), 1) * multiple
        raise ValueError(f"tile={tile}: expected a positive multiple of {multiple}, such as {near}")
    if not 0 <= overlap <= tile // 2:
        raise ValueError(f"overlap={overlap}: expected 0 to {tile // 2}, half of tile={tile}")
    step = (tile - overlap) // multiple * multiple
    if step == 0:
        raise ValueError(f"tile={tile} leaves no room for overlap={overlap}: use tile={tile + multiple} or overlap=0")
    last = -(-length // multiple) * multiple - tile
    return [*range(0, last, step), last] if last > 0 else [0]


def _weights(starts, length, tile, overlap):
    """Per tile, its float32 weights along one axis; over all tiles they add up to 1 at every pixel."""
    side = min(tile, length)
    ramp = np.sin(np.pi / 2 * np.clip((np.arange(side) + 0.5) / max(overlap, 1e-6), 0, 1)) ** 2
    windows = []
    for start in starts:
        window = np.ones(side)
        if start > 0:
            window *= ramp
        if start + side < length:
            window *= ramp[::-1]
        windows.append(window)
    total = np.zeros(length)
    for start, window in zip(starts, windows):
        total[start : start + side] += window
    return [(w / total[s : s + side]).astype(np.float32) for s, w in zip(starts, windows)]


def _as(x, dtype):
    if not np.issubdtype(dtype, np.integer):
        return np.asarray(x, dtype)
    limits = np.iinfo(dtype)
    x = np.rint(x)
    return np.clip(x, limits.min, limits.max, out=x).astype(dtype)
