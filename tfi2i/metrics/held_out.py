"""Held-out images: opened, prepared as evaluation sees them, read ahead, and their features."""

import collections
import concurrent.futures

import numpy as np

from tfi2i.data import pipeline, sources
from tfi2i.metrics.features import cached
from tfi2i.progress import Progress


def open_domains(data, split, needed="ab"):
    """Opens both domains of a split.

    Args:
        data: `config.Data`.
        split: "val" or "test".
        needed: the domains without which nothing can be measured, see `needed_domains`.

    Returns:
        {"a": …, "b": …} of `sources.Source`. A domain that is not needed and has no images in this split is an empty
        source.

    Raises:
        sources.MissingSplit: a domain that is needed has no images in this split.
        UserError: see `sources.open_domains`.
    """
    if set(needed) == set("ab"):
        return dict(zip("ab", sources.open_domains(data, split)))
    domains = {}
    for domain, channels in (("a", data.channels_a), ("b", data.channels_b)):
        try:
            domains[domain] = sources.open_domain(data, domain.upper(), split)
        except sources.MissingSplit:
            if domain in needed:
                raise
            domains[domain] = sources.Source([], [], [], "no images", channels, data.background)
    return domains


def needed_domains(protocol, directions):
    """The domains, a set of "a" and "b", without whose images `directions` cannot be measured by a `Protocol`."""
    inputs, targets = {d[0] for d in directions}, {d[2] for d in directions}
    return inputs | targets if protocol.compares_with("real") or protocol.metrics is None else inputs


def read_image(source, i, data):
    """Image `i` of a `sources.Source` as `pipeline.eval_images` prepares it, in 8 bits; None if it cannot be read."""
    for _, pixels in pipeline.eval_images(source, data, [i]):
        return as_8_bits(pixels)


def as_8_bits(pixels):
    """uint8 or uint16 → uint8."""
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels / 257).astype(np.uint8)


def evenly_spread(positions, limit):
    """All of a list, or `limit` of them, evenly spread, where there are more; a limit of None is none."""
    if not limit or limit >= len(positions):
        return positions
    return [positions[k] for k in np.linspace(0, len(positions) - 1, limit).astype(int)]


def read_ahead(function, items, count):
    """`map` that is up to `count` items ahead, in threads."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        waiting = collections.deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def image_features(source, positions, data, protocol, active=True):
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
        computed = protocol.network.extract(
            lambda k: read_image(source, positions[k], data), len(positions), on_batch=progress.update
        )
        progress.close()
        return computed

    features, read = cached(protocol.network, key, compute, protocol.feature_cache)
    return features, [positions[k] for k in read]
