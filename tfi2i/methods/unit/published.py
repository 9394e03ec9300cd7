"""UNIT's checkpoints: the model of 2018, `gen_STEP.pt`, `dis_STEP.pt`, and the paper's, `NAME_gen_STEP.pkl`, `…_dis_…`.

A file of 2018 is a dictionary of two states, "a" and "b". The paper's model is one state for both domains. Files from
before PyTorch 0.4 also hold statistics of the instance norms. In the paper's model they are the only trace of whether
its resampling convolutions are normed.
"""

import re

from tfi2i.config import UserError
from tfi2i.conversion import Place, PublishedModel, convolution, expect_shape, is_state, kernels

# torch's 1×1 transposed convolution (in, out, 1, 1) is a convolution here.
_ONE_BY_ONE = (2, 3, 0, 1)
# How files of one model at one time of its training are named.
FILE_NAMES = (r"(.*_)?(gen|dis)_(?P<epoch>\d+)",)
_SCALES = {"1": 0, "2": 1, "4": 2}


def files_of(states):
    """dict of part → state, as dict of the published code's file name → content."""
    if "gen" in states:
        return {f"unit_{part}_{0:08d}.pkl": state for part, state in states.items()}
    kinds = dict.fromkeys(part[:3] for part in states)
    return {f"{kind}_{0:08d}.pt": {d: states[f"{kind}_{d}"] for d in "ab"} for kind in kinds}


# === Names ===


def layout(model):
    """dict of part → dict of published name → `Place`; the parts are "gen" and "dis", in 2018 with "_a" and "_b"."""
    if model.config.unit_variant == "paper":
        return {"gen": _paper_generators(model), "dis": _paper_discriminators(model)}
    networks = model.networks
    parts = {f"gen_{d}": _generator_2018(networks[f"encoder_{d}"], networks[f"decoder_{d}"]) for d in "ab"}
    return parts | {f"dis_{d}": discriminator_2018(networks[f"discriminator_{d}"]) for d in "ab"}


def _paper_generators(model):
    networks, places = model.networks, {}

    def blocks(key, stack, first):
        made = {}
        for i, block in enumerate(stack, first):
            made |= convolution(f"{key}.{i}.model.0", block.conv_1) | convolution(f"{key}.{i}.model.3", block.conv_2)
        return made

    for d in "ab":
        encoder, key = networks[f"encoder_{d}"], f"encode_{d.upper()}"
        for i, conv in enumerate((encoder.head, *encoder.down)):
            places |= convolution(f"{key}.{i}.model.0", conv)
        places |= blocks(key, encoder.blocks.stack, 3)
    for name in ("encoder_shared", "decoder_shared"):
        if name in networks:
            places |= blocks(f"{name[:3]}_shared", networks[name].stack, 0)
    for d in "ab":
        decoder, key = networks[f"decoder_{d}"], f"decode_{d.upper()}"
        own = len(decoder.blocks.stack)
        places |= blocks(key, decoder.blocks.stack, 0)
        for i, conv in enumerate(decoder.up, own):
            places |= convolution(f"{key}.{i}.model.0", conv)
        places |= convolution(f"{key}.{own + 2}", decoder.tail, _ONE_BY_ONE)
    return places


def _paper_discriminators(model):
    def stack(key, network):
        places = {}
        for i, conv in enumerate(network.inner):
            places |= convolution(f"{key}.{i}.model.0", conv)
        return places | (convolution(f"{key}.{len(network.inner)}", network.last) if network.last else {})

    places = {}
    for name, network in model.networks.items():
        if name.startswith("discriminator"):
            letter = {"a": "A", "b": "B", "shared": "S"}[name.removeprefix("discriminator_")]
            if model.config.discriminator == "multiscale":
                for number, scale in zip(_SCALES, network.scales):
                    places |= stack(f"model_{number}_{letter}", scale)
            else:
                places |= stack(f"model_{letter}", network)
    return places


def _generator_2018(encoder, decoder):
    places = {}
    for i, conv in enumerate(encoder.convs):
        places |= convolution(f"enc.model.{i}.conv", conv)
    places |= residual_blocks("enc.model.3", encoder.blocks) | residual_blocks("dec.model.0", decoder.blocks)
    for i, conv, norm in zip((2, 4), decoder.convs, decoder.norms):
        places |= {f"dec.model.{i}.norm.{n}": Place(getattr(norm, n)) for n in ("gamma", "beta")}
        places |= convolution(f"dec.model.{i}.conv", conv)
    return places | convolution("dec.model.5.conv", decoder.tail)


def residual_blocks(key, blocks):
    """dict of published name → `Place`, of residual blocks of 2018, which MUNIT has too."""
    places = {}
    for i, block in enumerate(blocks):
        for j, conv in enumerate((block.conv_1, block.conv_2)):
            places |= convolution(f"{key}.model.{i}.model.{j}.conv", conv)
    return places


def discriminator_2018(network):
    """dict of published name → `Place`, of a discriminator of 2018, which is MUNIT's too."""
    places = {}
    for s, last in enumerate(network.last):
        convs = network.inner[s * network.layer_count : (s + 1) * network.layer_count]
        for i, conv in enumerate(convs):
            places |= convolution(f"cnns.{s}.{i}.conv", conv)
        places |= convolution(f"cnns.{s}.{len(convs)}", last)
    return places


# === What a file is ===


def recognise(files, told):
    """What UNIT's files are.

    Args:
        files: dict of file name without its extension → content.
        told: dict of what the user said that a file may not: `direction`, "a2b" or "b2a", which way a generator
            translates, and `size`, (height, width) of training's pictures, and `norm`, "none" or
            "instance", of the paper's model.

    Returns:
        `PublishedModel`, or None when none of the files is UNIT's.

    Raises:
        UserError: they are, but not of one model that tfi2i has.
    """
    norm, states, kinds = told.get("norm"), {}, set()
    for name, content in files.items():
        for part, state in _parts(content, name).items():
            if part in states:
                raise UserError(f"{name} is a second {part}: give the folder or file of one model")
            states[part] = state
            kinds.add("2018" if "_" in part else "paper")
    if not states:
        return None
    if len(kinds) > 1:
        raise UserError(f"{', '.join(files)}: files of both UNIT models")
    if not any(part.startswith("gen") for part in states):
        raise UserError(f"{', '.join(files)}: discriminators alone, nothing that translates")
    model = (_recognise_2018 if kinds == {"2018"} else _recognise_paper)(states, norm)
    steps = {int(m[1]) for name in files if (m := re.search(r"_(\d{8})$", name))}
    model.step = steps.pop() if len(steps) == 1 else None
    model.unknown.append("the size of the pictures that it was trained on, and the weights of its losses")
    return model


def _parts(content, name):
    if isinstance(content, dict) and set(content) == {"a", "b"} and all(map(is_state, content.values())):
        for first, kind in (("enc.model.0.conv.weight", "gen"), ("cnns.0.0.conv.weight", "dis")):
            if all(first in state for state in content.values()):
                return {f"{kind}_{d}": content[d] for d in "ab"}
    if is_state(content):
        if "encode_A.0.model.0.weight" in content:
            return {"gen": content}
        if any(re.match(r"model_(\d_)?[ABS]\.0\.model\.0\.weight$", k) for k in content):
            return {"dis": content}
    return {}


def _recognise_paper(states, norm):
    gen, options = states["gen"], {"unit_variant": "paper"}
    shapes = kernels(gen)
    width, channels_a = shapes["encode_A.0.model.0"][:2]
    channels_b = shapes.get("encode_B.0.model.0", (0, 0))[1]
    shared, decoded = (_count(shapes, rf"{part}_shared\.(\d+)\.") for part in ("enc", "dec"))
    own = _count(shapes, r"encode_A\.(\d+)\.model\.3$")
    if own + shared != 4 or decoded != shared:
        raise UserError(
            f"gen: {own} residual blocks of its own and {shared} shared in the encoders, {decoded} shared in the "
            "decoders, expected 4 in all and as many shared in both"
        )
    block = f"encode_A.{3 if own else 2}.model.{3 if own else 0}.weight"
    expect_shape(gen, block, (4 * width, (4 if own else 2) * width, 3, 3), "gen")
    options |= {"generator_width": width, "shared_blocks": shared}
    facts, unknown = [], ["whether it was trained with dropout in its residual blocks, which leaves no trace"]
    statistics = [k for k in gen if k.endswith("running_mean")]
    if statistics:
        seen = "instance" if any(re.match(r"encode_A\.1\.", k) for k in statistics) else "none"
        if norm not in (None, seen):
            raise UserError(f"--norm={norm}, but the file has statistics that say --norm={seen}: leave it out")
        norm = seen
        facts.append(f"norm of the resampling convolutions: {norm}, as the stored statistics say")
    elif norm is None:
        norm = "none"
        unknown.append(
            "whether its resampling convolutions are normed: --norm=none, as in the face and street models, is "
            "assumed; if pictures look wrong, --norm=instance, as in the animal models"
        )
    options["norm"] = norm
    if "dis" in states:
        options |= _judges_paper(kernels(states["dis"]), states["dis"])
    return PublishedModel("unit", options, {"a": channels_a, "b": channels_b}, states, facts=facts, unknown=unknown)


def _count(names, pattern):
    return len({m[1] for name in names if (m := re.match(pattern, name))})


def _judges_paper(shapes, state):
    scales = _count(shapes, r"model_(\d)_A\.")
    if scales:
        kind, first, count = "multiscale", "model_1_A", _count(shapes, r"model_1_A\.(\d+)\.model")
        if scales != 3:
            raise UserError(f"dis: {scales} scales, expected 3")
        last = f"model_1_A.{count - 1}"
    elif any(name.startswith("model_S") for name in shapes):
        kind, first, own = "shared", "model_A", _count(shapes, r"model_A\.(\d+)\.model")
        if own != 2:
            raise UserError(f"dis: {own} layers of each domain's own before the shared ones, expected 2")
        count = own + _count(shapes, r"model_S\.(\d+)\.model")
        last = f"model_S.{count - 3}"
    else:
        kind, first, count = "stack", "model_A", _count(shapes, r"model_A\.(\d+)\.model")
        last = f"model_A.{count - 1}"
    width = shapes[f"{first}.0.model.0"][0]
    if count > 1:
        shape = (width * 2 ** (count - 1), width * 2 ** (count - 2), 3, 3)
        expect_shape(state, f"{last}.model.0.weight", shape, "dis")
    return {"discriminator": kind, "discriminator_layers": count, "discriminator_width": width}


def _recognise_2018(states, norm):
    if norm:
        raise UserError(f"--norm={norm} is for the paper's model: that of 2018 has instance norms")
    options, channels = {"unit_variant": "2018"}, {}
    for d in "ab":
        state = states[f"gen_{d}"]
        shapes = kernels(state)
        width, channels[d] = shapes["enc.model.0.conv"][:2]
        expect_shape(state, "enc.model.3.model.3.model.1.conv.weight", (4 * width, 4 * width, 3, 3), f"gen_{d}")
        if options.setdefault("generator_width", width) != width:
            raise UserError(f"gen_b is {width} channels wide, gen_a {options['generator_width']}: not of one model")
        if f"dis_{d}" in states:
            for flag, value in discriminator_options(states[f"dis_{d}"], f"dis_{d}").items():
                if options.setdefault(flag, value) != value:
                    raise UserError(f"dis_b has --{flag}={value}, dis_a {options[flag]}: not of one model")
    return PublishedModel("unit", options, channels, states)


def discriminator_options(state, part):
    """The flags of a discriminator of 2018, by its state; `part` is what errors call it."""
    shapes = kernels(state)
    layers, width = _count(shapes, r"cnns\.0\.(\d+)\.conv$"), shapes["cnns.0.0.conv"][0]
    if layers > 1:
        shape = (width * 2 ** (layers - 1), width * 2 ** (layers - 2), 4, 4)
        expect_shape(state, f"cnns.0.{layers - 1}.conv.weight", shape, part)
    scales = _count(shapes, r"cnns\.(\d+)\.")
    return {"discriminator_layers": layers, "discriminator_scales": scales, "discriminator_width": width}
