"""MUNIT's checkpoints: `gen_STEP.pt` and `dis_STEP.pt`, each a dictionary of two states, "a" and "b".

Files from before PyTorch 0.4 also hold statistics of the content encoders' norms, which nothing reads; all files hold
such statistics of the decoders' AdaIN.
"""

import re

import numpy as np

from tfi2i.config import UserError
from tfi2i.conversion import DENSE, Place, PublishedModel, convolution, expect_shape, is_state, kernels
from tfi2i.methods.unit.published import discriminator_2018, discriminator_options, residual_blocks

# How files of one model at one time of its training are named.
FILE_NAMES = (r"(.*_)?(gen|dis)_(?P<epoch>\d+)",)


def files_of(states):
    """dict of part → state, as dict of the published code's file name → content."""
    kinds = dict.fromkeys(part[:3] for part in states)
    return {f"{kind}_{0:08d}.pt": {d: states[f"{kind}_{d}"] for d in "ab"} for kind in kinds}


# === Names ===


def layout(model):
    """dict of part, "gen_a", "gen_b", "dis_a" or "dis_b" → dict of published name → `Place`, in torch's order."""
    networks = model.networks
    parts = {
        f"gen_{d}": _generator(*(networks[f"{kind}_{d}"] for kind in ("style_encoder", "content_encoder", "decoder")))
        for d in "ab"
    }
    return parts | {f"dis_{d}": discriminator_2018(networks[f"discriminator_{d}"]) for d in "ab"}


def _generator(style, content, decoder):
    places = {}
    for i, conv in enumerate(style.convs):
        places |= convolution(f"enc_style.model.{i}.conv", conv)
    places |= convolution("enc_style.model.6", style.last)
    for i, conv in enumerate(content.convs):
        places |= convolution(f"enc_content.model.{i}.conv", conv)
    places |= residual_blocks("enc_content.model.3", content.blocks) | residual_blocks("dec.model.0", decoder.blocks)
    for i, conv, norm in zip((2, 4), decoder.convs, decoder.norms):
        places |= {f"dec.model.{i}.norm.{n}": Place(getattr(norm, n)) for n in ("gamma", "beta")}
        places |= convolution(f"dec.model.{i}.conv", conv)
    places |= convolution("dec.model.5.conv", decoder.tail)
    for i, layer in enumerate(decoder.mlp):
        places |= {f"mlp.model.{i}.fc.weight": Place(layer.kernel, DENSE), f"mlp.model.{i}.fc.bias": Place(layer.bias)}
    return places


def constants(model, part):
    """The statistics of AdaIN, which the official code keeps and never reads."""
    if not part.startswith("gen"):
        return {}
    blocks = model.networks[f"decoder_{part[-1]}"].blocks
    names = [f"dec.model.0.model.{i}.model.{j}.norm.running" for i in range(len(blocks)) for j in (0, 1)]
    size = 4 * model.config.generator_width
    still = {"mean": np.zeros(size, np.float32), "var": np.ones(size, np.float32)}
    return {f"{name}_{kind}": value for name in names for kind, value in still.items()}


# === What a file is ===


def is_generator(content):
    """Whether a file's content is the generators of a MUNIT."""
    return (
        isinstance(content, dict)
        and set(content) == {"a", "b"}
        and all(is_state(state) and "enc_style.model.0.conv.weight" in state for state in content.values())
    )


def recognise(files, told):
    """What MUNIT's files are.

    Args:
        files: dict of file name without its extension → content.
        told: dict of what the user said that a file may not: nothing here.

    Returns:
        `PublishedModel`, or None when none of the files has a generator of MUNIT.

    Raises:
        UserError: one has, but they are not of one model that tfi2i has.
    """
    if not any(map(is_generator, files.values())):
        return None
    states, options, channels = {}, {}, {}
    for name, content in files.items():
        kind = "gen" if is_generator(content) else "dis"
        if kind == "dis" and not _is_discriminator(content):
            raise UserError(f"{name} is no part of a MUNIT, as the other files are: give the files of one model")
        if f"{kind}_a" in states:
            raise UserError(f"{name} is a second {kind}: give the folder or file of one model")
        states |= {f"{kind}_{d}": content[d] for d in "ab"}
    for part, state in states.items():
        if part.startswith("gen"):
            own, channels[part[-1]] = _generator_options(state, part)
        else:
            own = discriminator_options(state, part)
        for flag, value in own.items():
            if options.setdefault(flag, value) != value:
                raise UserError(f"{part} has --{flag}={value}, {part[:-1]}a {options[flag]}: not of one model")
    steps = {int(m[1]) for name in files if (m := re.search(r"_(\d{8})$", name))}
    unknown = ["the size of the pictures that it was trained on, and the weights of its losses"]
    step = steps.pop() if len(steps) == 1 else None
    return PublishedModel("munit", options, channels, states, unknown=unknown, step=step)


def _is_discriminator(content):
    return (
        isinstance(content, dict)
        and set(content) == {"a", "b"}
        and all(is_state(state) and "cnns.0.0.conv.weight" in state for state in content.values())
    )


def _generator_options(state, part):
    """(flags of a generator's state, channels of its images)."""
    shapes = kernels(state)
    width, channels = shapes["enc_style.model.0.conv"][:2]
    for key, shape in (
        ("enc_content.model.0.conv.weight", (width, channels, 7, 7)),
        ("enc_content.model.3.model.3.model.1.conv.weight", (4 * width, 4 * width, 3, 3)),
        ("dec.model.0.model.3.model.1.conv.weight", (4 * width, 4 * width, 3, 3)),
    ):
        expect_shape(state, key, shape, part)
    style_size = shapes.get("enc_style.model.6", (0,))[0]
    hidden = state["mlp.model.0.fc.weight"].shape[0] if "mlp.model.0.fc.weight" in state else 0
    expect_shape(state, "mlp.model.0.fc.weight", (hidden, style_size), part)
    return {"generator_width": width, "style_size": style_size, "mlp_width": hidden}, channels
