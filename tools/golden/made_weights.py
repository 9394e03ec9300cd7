"""Numbers and weights by formula, so that golden files need not hold them; tests make them again."""

import numpy as np


def hashed(stream, shape):
    """float64 from -0.5 to 0.5, see tests/golden/README.md."""
    x = np.arange(np.prod(shape), dtype=np.uint32) + np.uint32(stream * 0x9E3779B1 % 2**32)
    for shift, factor in [(16, 0x85EBCA6B), (13, 0xC2B2AE35)]:
        x = (x ^ x >> np.uint32(shift)) * np.uint32(factor)
    return ((x ^ x >> np.uint32(16)) / 2.0**32 - 0.5).reshape(shape)


def state(shapes):
    """dict of torch name → float32 array; `shapes` maps the names to shapes."""
    made = {}
    for stream, (name, shape) in enumerate(sorted(shapes.items())):
        u = hashed(stream, shape)
        if len(shape) > 1:
            value = (24 / np.prod(shape[1:])) ** 0.5 * u
        else:
            value = {"weight": 1 + 0.5 * u, "running_var": 1 + u}.get(name.rsplit(".", 1)[-1], 0.25 * u)
        made[name] = value.astype(np.float32)
    return made
