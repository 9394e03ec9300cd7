"""DRIT's checkpoints: `EPOCH.pth`, one dictionary of the states of five discriminators, encoders and the generator.

Encoders and generator hold both domains. The states of the optimizers, which the code keeps beside them, stay behind.
"""

import re

from tfi2i.config import UserError
from tfi2i.conversion import DENSE, KERNEL, Place, PublishedModel, agree, convolution, expect_shape, is_state, kernels

# How files of one model at one time of its training are named.
FILE_NAMES = (r"(?P<epoch>\d{5})", r".*DRIT_(?P<epoch>\d+)")
# torch's transposed 1×1 convolution (in, out, 1, 1) is a convolution here.
_ONE_BY_ONE = (2, 3, 0, 1)
_GENERATOR = ("enc_c", "enc_a", "gen")
_DISCRIMINATORS = {"disA": "a", "disA2": "a2", "disB": "b", "disB2": "b2"}
_DOMAINS = {"A": "a", "B": "b"}


def files_of(states):
    """dict of part → state, as dict of the published code's file name → content."""
    return {"00000.pth": states}


# === Names ===


def layout(model):
    """dict of part, as the keys of a file → dict of published name → `Place`, in torch's order."""
    networks, concat = model.networks, model.config.drit_variant == "concat"
    content = _block("conv_share.0", networks["content_encoder_shared"])
    style, made = {}, _block("dec_share.0", networks["decoder_shared"]) if concat else {}
    for theirs, d in _DOMAINS.items():
        content |= _content_encoder(f"conv{theirs}", networks[f"content_encoder_{d}"])
        style |= (_style_encoder_concat if concat else _style_encoder)(theirs, networks[f"style_encoder_{d}"])
        made |= (_decoder_concat if concat else _decoder)(theirs, networks[f"decoder_{d}"])
    for theirs, d in _DOMAINS.items() if not concat else ():
        for i, dense in zip((0, 2, 4), networks[f"decoder_{d}"].mlp):
            made |= _dense(f"mlp{theirs}.{i}", dense)
    parts = {part: _discriminator(networks[f"discriminator_{d}"]) for part, d in _DISCRIMINATORS.items()}
    judge = networks["content_discriminator"]
    parts["disContent"] = {
        k: v for i, conv in enumerate(judge.inner) for k, v in convolution(f"model.{i}.model.1", conv).items()
    } | convolution(f"model.{len(judge.inner)}", judge.last)
    return parts | {"enc_c": content, "enc_a": style, "gen": made}


def _block(key, block):
    return convolution(f"{key}.model.1", block.conv_1) | convolution(f"{key}.model.5", block.conv_2)


def _content_encoder(key, network):
    places = {}
    for i, conv in enumerate((network.head, *network.down)):
        places |= convolution(f"{key}.{i}.model.1", conv)
    for i, block in enumerate(network.blocks, 3):
        places |= _block(f"{key}.{i}", block)
    return places


def _style_encoder_concat(domain, network):
    places = {}
    for name, dense in (("fc", network.mean), ("fcVar", network.log_variance)):
        places |= _dense(f"{name}_{domain}.0", dense)
    places |= convolution(f"conv_{domain}.1", network.head)
    for i, block in enumerate(network.blocks, 2):
        key = f"conv_{domain}.{i}"
        places |= convolution(f"{key}.conv.2", block.conv_1) | convolution(f"{key}.conv.4.1", block.conv_2)
        places |= convolution(f"{key}.shortcut.1", block.shortcut)
    return places


def _style_encoder(domain, network):
    places = {}
    for i, conv in enumerate((*network.convs, network.last)):
        places |= convolution(f"model_{domain.lower()}.{3 * i + 1}", conv)
    return places


def _dense(key, layer):
    return {f"{key}.weight": Place(layer.kernel, DENSE), f"{key}.bias": Place(layer.bias)}


def _up(key, conv, norm):
    places = convolution(f"{key}.0", conv, KERNEL)
    for theirs, variable in (("weight", norm.gamma), ("bias", norm.beta)):
        places[f"{key}.1.{theirs}"] = Place(variable, shape=(variable.shape[0], 1, 1))
    return places


def _decoder_concat(domain, network):
    places = {}
    for i, block in enumerate(network.blocks):
        places |= _block(f"dec{domain}1.{i}", block)
    for i, conv, norm in zip((2, 3), network.ups, network.norms):
        places |= _up(f"dec{domain}{i}.0.model", conv, norm)
    return places | convolution(f"dec{domain}4.0", network.tail, _ONE_BY_ONE)


def _decoder(domain, network):
    places = {}
    for i, block in enumerate(network.blocks, 1):
        key = f"dec{domain}{i}"
        for j, conv in enumerate(block.convs, 1):
            places |= convolution(f"{key}.conv{j}.0.1", conv)
        for j, (first, second) in enumerate(block.mixes, 1):
            places |= convolution(f"{key}.blk{j}.0", first) | convolution(f"{key}.blk{j}.2", second)
    for i, conv, norm in zip((0, 1), network.ups, network.norms):
        places |= _up(f"dec{domain}5.{i}.model", conv, norm)
    return places | convolution(f"dec{domain}5.2", network.tail, _ONE_BY_ONE)


def _discriminator(network):
    places, single = {}, len(network.last) == 1
    for s, last in enumerate(network.last):
        key = "model" if single else f"Diss.{s}"
        convs = network.inner[s * network.layer_count : (s + 1) * network.layer_count]
        for i, conv in enumerate(convs):
            places |= convolution(f"{key}.{i}.model.1", conv)
        places |= convolution(f"{key}.{len(convs)}", last)
    return places


# === What a file is ===


def recognise(files, told):
    """What a file of DRIT is.

    Args:
        files: dict of file name without its extension → content.
        told: dict of what the user said that a file may not: nothing here.

    Returns:
        `PublishedModel`, or None when none of the files is DRIT's.

    Raises:
        UserError: it is, but no model that tfi2i has.
    """
    found = {name: content for name, content in files.items() if _is_drit(content)}
    if not found:
        return None
    if len(files) > 1:
        raise UserError(f"{', '.join(files)}: DRIT keeps a model in one file: give that alone")
    (content,) = found.values()
    states = {part: content[part] for part in (*_DISCRIMINATORS, "disContent", *_GENERATOR) if part in content}
    for part, state in states.items():
        if not is_state(state):
            raise UserError(f"{part} is no dictionary of named arrays, as DRIT's files have there")
        if any(key.endswith("weight_orig") for key in state):
            raise UserError(f"{part} has spectral norm (--dis_spectral_norm), which tfi2i's DRIT does not have")
    options, channels = _generator_options(states)
    for part, d in _DISCRIMINATORS.items():
        if part in states:
            own, judged = _discriminator_options(states[part], part)
            agree(part, own, (judged,), d[0], options, channels)
    if "disContent" in states:
        layers = _count(states["disContent"], r"model\.(\d+)\.model\.1\.weight")
        options["content_discriminator_layers"] = layers - 1
    facts = [f"epoch {content['ep']}, counted from 0"] if isinstance(content.get("ep"), int) else []
    step = content.get("total_it")
    unknown = ["the size of the pictures that it was trained on, and the weights of its losses"]
    return PublishedModel(
        "drit", options, channels, states, facts=facts, unknown=unknown, step=step if isinstance(step, int) else None
    )


def _is_drit(content):
    return (
        isinstance(content, dict)
        and all(part in content for part in _GENERATOR)
        and is_state(content["enc_c"])
        and "conv_share.0.model.1.weight" in content["enc_c"]
    )


def _count(names, pattern):
    return len({m[1] for name in names if (m := re.fullmatch(pattern, name))})


def _generator_options(states):
    """(flags, channels of both domains) of encoders and generator."""
    content, style, made = (states[part] for part in _GENERATOR)
    shapes = kernels(content)
    width, channels_a = shapes.get("convA.0.model.1", (0, 0))[:2]
    channels_b = shapes.get("convB.0.model.1", (0, 0))[1]
    for key in ("conv_share.0.model.1.weight", "convA.5.model.5.weight", "convB.5.model.5.weight"):
        expect_shape(content, key, (4 * width, 4 * width, 3, 3), "enc_c")
    channels = {"a": channels_a, "b": channels_b}
    options = {"generator_width": width}
    if "dec_share.0.model.1.weight" in made:
        size = style["fc_A.0.bias"].shape[0] if "fc_A.0.bias" in style else 0
        options |= {"drit_variant": "concat", "style_size": size}
        inner = 4 * width + size
        expect_shape(style, "fc_A.0.weight", (size, 4 * width), "enc_a")
        expect_shape(made, "decA1.0.model.1.weight", (inner, inner, 3, 3), "gen")
    else:
        hidden, size = made["mlpA.0.weight"].shape if "mlpA.0.weight" in made else (0, 0)
        options |= {"drit_variant": "feature_wise", "style_size": size, "mlp_width": hidden}
        expect_shape(style, "model_a.16.weight", (size, 4 * width, 1, 1), "enc_a")
        expect_shape(made, "decA1.blk1.0.weight", (8 * width, 8 * width, 1, 1), "gen")
    return options, channels


def _discriminator_options(state, part):
    """(flags of a discriminator, channels of its images)."""
    shapes = kernels(state)
    scales = _count(state, r"Diss\.(\d+)\.\d+\.weight") or 1
    first, kernel = ("Diss.0", 4) if scales > 1 else ("model", 3)
    layers = _count(state, rf"{re.escape(first)}\.(\d+)\.model\.1\.weight")
    width, channels = shapes.get(f"{first}.0.model.1", (0, 0))[:2]
    if layers > 1:
        shape = (width * 2 ** (layers - 1), width * 2 ** (layers - 2), kernel, kernel)
        expect_shape(state, f"{first}.{layers - 1}.model.1.weight", shape, part)
    own = {"discriminator_layers": layers, "discriminator_scales": scales, "discriminator_width": width}
    return own, channels
