"""CartoonGAN's released generators: `STYLE_net_G_float.pth` of the authors' PyTorch code for tests.

The same arrays are also passed on as a folder of `.npy` files, one for each. All released styles (Hayao, Hosoda,
Paprika, Shinkai) are generators alone; no discriminator was released. Channels are in order blue, green, red there.

The PyTorch code adds 1e-9 to the variance in its norms. The released models were trained with 1e-5, and give the
published pictures with that alone.
"""

import dataclasses
import re

import numpy as np

from tfi2i.config import UserError
from tfi2i.conversion import KERNEL, Place, PublishedModel, convolution, expect_shape, is_state, kernels

# How the files of several styles in one folder are told apart.
FILE_NAMES = (r"(?P<epoch>\w+)_net_G_float",)
GENERATOR_OF = {"a2b": "G", "b2a": "G"}
# The published code trains nothing.
LEFT_OUT = ("discriminator",)
_BLOCKS = 8


@dataclasses.dataclass(frozen=True)
class _Reversed(Place):
    """A `Place` whose colours are in the opposite order there.

    Args:
        axis: of the variable, the one of the colours.
    """

    axis: int = 0

    def ours(self, theirs):
        return np.flip(super().ours(theirs), self.axis)

    def theirs(self):
        return np.flip(super().theirs(), self.axes[self.axis])


def files_of(states):
    """dict of part → state, as dict of the published code's file name → content."""
    return {"CartoonGAN_net_G_float.pth": state for state in states.values()}


def layout(model):
    """dict of "G" → dict of published name → `Place`, of a built `CartoonGAN`.

    Raises:
        UserError: the published code has no such network.
    """
    generator = model.generator
    if len(generator.blocks) != _BLOCKS:
        raise UserError(
            f"--residual_blocks={len(generator.blocks)} is not in the published code, which has {_BLOCKS} blocks"
        )
    places = _pair("01", (generator.head, generator.head_norm))
    for i, (resize, conv, norm) in enumerate(generator.down, 2):
        places |= convolution(f"conv{i:02}_1", resize) | convolution(f"conv{i:02}_2", conv) | _norm(f"in{i:02}_1", norm)
    for i, block in enumerate(generator.blocks, 4):
        places |= _pair(f"{i:02}", (block.conv_1, block.norm_1), (block.conv_2, block.norm_2))
    for i, (resize, conv, norm) in enumerate(generator.up, 1):
        places |= convolution(f"deconv{i:02}_1", resize) | convolution(f"deconv{i:02}_2", conv)
        places |= _norm(f"in{i + 11}_1", norm)
    places["conv01_1.weight"] = _Reversed(generator.head.kernel, KERNEL, axis=2)
    places["deconv03_1.weight"] = _Reversed(generator.tail.kernel, KERNEL, axis=3)
    places["deconv03_1.bias"] = _Reversed(generator.tail.bias)
    return {"G": places}


def _pair(number, *pairs):
    places = {}
    for i, (conv, norm) in enumerate(pairs, 1):
        places |= convolution(f"conv{number}_{i}", conv) | _norm(f"in{number}_{i}", norm)
    return places


def _norm(key, layer):
    return {f"{key}.scale": Place(layer.gamma), f"{key}.shift": Place(layer.beta)}


def recognise(files, told):
    """What CartoonGAN's files are.

    Args:
        files: dict of file name without its extension → content.
        told: `direction`, "a2b" or "b2a", which way it translates.

    Returns:
        `PublishedModel`, or None when none of the files is CartoonGAN's.

    Raises:
        UserError: they are, but of a network that tfi2i does not have.
    """
    ours = {n: c for n, c in files.items() if is_state(c) and {"conv01_1.weight", "deconv03_1.weight"} <= c.keys()}
    if not ours:
        return None
    ((name, state),) = ours.items()
    blocks = {key[4:6] for key in kernels(state) if re.fullmatch(r"conv\d\d_2", key)} - {"02", "03"}
    if len(blocks) != _BLOCKS:
        raise UserError(f"{name} has {len(blocks)} residual blocks, expected {_BLOCKS}: not of the published code")
    if len(state["conv01_1.weight"].shape) != 4:
        raise UserError(f"{name}: conv01_1.weight is {state['conv01_1.weight'].shape}, which is no convolution")
    width = state["conv01_1.weight"].shape[0]
    expect_shape(state, "conv01_1.weight", (width, 3, 7, 7), name)
    expect_shape(state, "deconv03_1.weight", (3, width, 7, 7), name)
    expect_shape(state, "conv03_2.weight", (4 * width, 4 * width, 3, 3), name)
    direction = told.get("direction") or "a2b"
    options = {"generator_width": width, "direction": direction}
    unknown = [f"which way it translates: A are taken for photos, B for cartoons, with --direction={direction}"]
    unknown.append("who may use it: no licence of the released weights is stated")
    return PublishedModel("cartoongan", options, {"a": 3, "b": 3}, {"G": state}, (direction,), unknown=unknown)
