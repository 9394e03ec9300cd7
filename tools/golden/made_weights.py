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


# Channels of the published FCN-8s → of the one of the golden files.
FCN_WIDTHS = {64: 3, 128: 5, 256: 6, 512: 7, 4096: 9}


def fcn_layers():
    """dict of a layer's name → (Caffe's type, arrays), of FCN-8s with `FCN_WIDTHS`."""
    a, b, c, d, e = FCN_WIDTHS.values()
    channels = {"1_1": (3, a), "1_2": (a, a), "2_1": (a, b), "2_2": (b, b), "3_1": (b, c), "3_2": (c, c), "3_3": (c, c)}
    channels |= {"4_1": (c, d)} | {name: (d, d) for name in ("4_2", "4_3", "5_1", "5_2", "5_3")}
    shapes = {f"conv{name}": (n_out, n_in, 3, 3) for name, (n_in, n_out) in channels.items()}
    shapes |= {"fc6_cs": (e, d, 7, 7), "fc7_cs": (e, e, 1, 1), "score_fr": (20, e, 1, 1)}
    shapes |= {"score_pool4": (20, d, 1, 1), "score_pool3": (20, c, 1, 1)}
    raised = {"upscore2": (20, 20, 4, 4), "upscore_pool4": (20, 20, 4, 4), "upscore8": (20, 20, 16, 16)}
    weights = state({f"{name}.weight": shape for name, shape in (shapes | raised).items()})
    biases = state({f"{name}.bias": shape[:1] for name, shape in shapes.items()})
    layers = {name: ("Convolution", [weights[f"{name}.weight"], biases[f"{name}.bias"]]) for name in shapes}
    return layers | {name: ("Deconvolution", [weights[f"{name}.weight"]]) for name in raised}
