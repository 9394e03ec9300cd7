"""AGGAN's checkpoints: `AGGAN-EPOCH.index` beside `AGGAN-EPOCH.data-…` of the authors' TensorFlow 1 code.

All six networks are in one. `Model/g_A` translates A to B, `Model/g_A_ae` is the attention network of A, `Model/d_A`
judges A. The code of June 2018, in which the generators saw masked images and most norms were left out, had other
networks; these are refused.
"""

import re

from tfi2i.config import UserError
from tfi2i.conversion import Place, PublishedModel, expect_shape, is_state

# A checkpoint of TensorFlow is one model: there is nothing to choose by name.
FILE_NAMES = ()
_NETWORKS = {
    "g_A": "generator_a2b", "g_B": "generator_b2a", "g_A_ae": "attention_a", "g_B_ae": "attention_b",
    "d_A": "discriminator_a", "d_B": "discriminator_b",
}  # fmt: skip
# The code makes norms behind these convolutions too, and uses them nowhere.
UNUSED = {"g_A": "c6", "g_B": "c6", "g_A_ae": "c6", "g_B_ae": "c6", "d_A": "c5", "d_B": "c5"}


def layout(model, tensorflow=False):
    """dict of "g_A", "g_B", "g_A_ae", "g_B_ae", "d_A", "d_B" → dict of published name → `Place`.

    Args:
        model: a built `AGGAN`.
        tensorflow: whether the names of code in TensorFlow are asked for; there are no others.

    Raises:
        UserError: others are asked for.
    """
    if not tensorflow:
        raise UserError("--export=pytorch: the published code is for TensorFlow 1: there is none for PyTorch")
    return {part: _places(model.networks[name]) for part, name in _NETWORKS.items()}


def _places(network):
    """dict of published name → `Place` of one network."""
    scopes = {}
    if hasattr(network, "block"):  # attention
        scopes |= _numbered(network.down, 1) | _block("r1", network.block) | _numbered(network.mix, 4)
        scopes |= {"c6": (network.last,)}
    elif hasattr(network, "blocks"):
        scopes |= _numbered([(network.head, network.head_norm), *network.down], 1)
        for i, block in enumerate(network.blocks, 1):
            scopes |= _block(f"r{i}", block)
        scopes |= _numbered(network.up, 4) | {"c6": (network.tail,)}
    else:
        scopes |= _numbered(network.inner, 1) | {"c5": (network.last,)}
    transposed = {conv for conv, _ in getattr(network, "up", [])}
    places = {}
    for scope, (conv, *norms) in scopes.items():
        kind = "Conv2d_transpose" if conv in transposed else "Conv"
        places[f"{scope}/{kind}/weights"] = Place(conv.kernel, (0, 1, 2, 3))
        places[f"{scope}/{kind}/biases"] = Place(conv.bias)
        for norm in norms:
            places[f"{scope}/instance_norm/scale"] = Place(norm.gamma)
            places[f"{scope}/instance_norm/offset"] = Place(norm.beta)
    return places


def _numbered(pairs, first):
    return {f"c{i}": pair for i, pair in enumerate(pairs, first)}


def _block(scope, block):
    return {f"{scope}/c1": (block.conv_1, block.norm_1), f"{scope}/c2": (block.conv_2, block.norm_2)}


def recognise(files, told):
    """What AGGAN's files are.

    Args:
        files: dict of file name without its extension → content.
        told: what the user said that a file may not: nothing is needed.

    Returns:
        `PublishedModel`, or None when none of the files is AGGAN's.

    Raises:
        UserError: they are, but of networks that tfi2i does not have.
    """
    ours = {n: c for n, c in files.items() if is_state(c) and any(k.startswith("Model/g_A_ae/") for k in c)}
    if not ours:
        return None
    ((name, content),) = ours.items()
    if any("/Conv_1/" in k for k in content) or "Model/g_A_ae/r1/c1/instance_norm/scale" not in content:
        raise UserError(
            f"{name} is of AGGAN's code as it was in June 2018, whose generators take masked images and have norms in "
            "two layers only: networks that tfi2i does not have. Files of its code of November 2018 and later are read"
        )
    states = {}
    for part, unused in UNUSED.items():
        scope = f"Model/{part}/"
        state = {k.removeprefix(scope): v for k, v in content.items() if k.startswith(scope)}
        states[part] = {k: v for k, v in state.items() if not k.startswith(f"{unused}/instance_norm/")}
        if not state:
            raise UserError(f"{name}: the arrays {scope}… are missing: not a whole model of AGGAN's code")
    generator, attention, judge = states["g_A"], states["g_A_ae"], states["d_A"]
    first = "c1/Conv/weights"
    for part, state in (("g_A", generator), ("d_A", judge)):
        if first not in state or len(state[first].shape) != 4:
            raise UserError(f"{name}: {part} has no convolution {first}: a network that tfi2i does not have")
    channels, width = generator[first].shape[2:]
    expect_shape(generator, "c3/Conv/weights", (3, 3, 2 * width, 4 * width), "g_A")
    expect_shape(attention, "c4/Conv/weights", (1, 1, 2 * width, 2 * width), "g_A_ae")
    judge_width = judge[first].shape[3]
    expect_shape(judge, "c4/Conv/weights", (4, 4, 4 * judge_width, 8 * judge_width), "d_A")
    options = {
        "generator_width": width,
        "residual_blocks": len({m[1] for k in generator if (m := re.match(r"r(\d+)/", k))}),
        "discriminator_width": judge_width,
    }
    epochs = re.search(r"-(\d+)$", name)
    facts = [f"{epochs[1]} epochs of training"] if epochs else []
    return PublishedModel(
        "aggan",
        options,
        {"a": channels, "b": channels},
        states,
        facts=facts,
        unknown=[
            "which domain is which; in the released model of horses and zebras, A are the zebras",
            "the size of the pictures that it was trained on; the code's 256x256 is assumed",
        ],
        tensorflow=True,
    )
