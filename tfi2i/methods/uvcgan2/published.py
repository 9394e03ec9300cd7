"""UVCGAN's checkpoints, v1 and v2: a folder of `net_gen_ab.pth`, `net_avg_gen_ab.pth`, `net_disc_a.pth` and so on.

v2 translates with the averages, `avg_gen_*`. Where only averages or only generators were released, the one stands for
the other. Positions are stored with a generator although they follow from its size; v2's batch norm has statistics,
which it never uses.
"""

import re

import numpy as np

from tfi2i.config import UserError
from tfi2i.conversion import DENSE, KERNEL, Place, PublishedModel, agree, convolution, expect_shape, is_state, kernels

# How files of one model at one time of its training are named.
FILE_NAMES = (r"((?P<epoch>\d+)_)?net_(gen_ab|gen_ba|avg_gen_ab|avg_gen_ba|disc_a|disc_b|encoder)",)
_GENERATORS = {"gen_ab": "generator_a2b", "gen_ba": "generator_b2a"}
_DISCRIMINATORS = {"disc_a": "discriminator_a", "disc_b": "discriminator_b"}
_HEADS = 6


def files_of(states):
    """dict of part → state, as dict of the published code's file name → content."""
    return {f"net_{part}.pth": state for part, state in states.items()}


# === Names ===


def layout(model):
    """dict of "gen_ab", "avg_gen_ab", "disc_a" and so on → dict of published name → `Place`."""
    parts = {}
    for part, name in _GENERATORS.items():
        network = model.networks[name]
        parts[part] = generator(network)
        average = model.averages.get(f"{name}_average")
        if average:
            twin = {id(v): a for v, a in average.pairs}
            parts[f"avg_{part}"] = {
                key: Place(twin[id(p.variable)], p.axes, p.view, p.shape) for key, p in parts[part].items()
            }
    return parts | {part: discriminator(model.networks[name]) for part, name in _DISCRIMINATORS.items()}


def constants(model, part):
    """What the published code stores beside the weights of a part: dict of published name → array."""
    if part.startswith("disc"):
        n = getattr(model.networks[_DISCRIMINATORS[part]].head, "gamma", np.zeros(0)).shape[0]
        running = {"running_mean": np.zeros(n, np.float32), "running_var": np.ones(n, np.float32)}
        return {f"_head.norm.{k}": v for k, v in running.items()} if n else {}
    network = model.networks[_GENERATORS[part.removeprefix("avg_")]]
    h, w = (side >> len(network.down) for side in model.run.data.crop)
    key = "net." + ("modnet" if network.style else "unet") + ".inner_module" * len(network.down) + ".trans_input"
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32), indexing="ij")
    return {f"{key}.x_const": x.reshape(1, -1), f"{key}.y_const": y.reshape(1, -1)}


def _dense(key, layer):
    return {f"{key}.weight": Place(layer.kernel, DENSE), f"{key}.bias": Place(layer.bias)}


def _norm(key, layer):
    return {f"{key}.weight": Place(layer.gamma), f"{key}.bias": Place(layer.beta)}


def _alpha(key, layer):
    return {f"{key}.re_alpha": Place(layer.alpha, (), shape=(1,))}


def generator(network):
    """dict of published name → `Place` of a `Generator`."""
    level = "net." + ("modnet" if network.style else "unet")
    places = convolution("net.layer_input.0", network.head) | convolution("net.layer_output", network.tail)
    for encoder, down, up, decoder in zip(network.encoder, network.down, network.up[::-1], network.decoder[::-1]):
        for j, conv in zip((1, 4), encoder.convs):
            places |= convolution(f"{level}.conv.block.block.{j}", conv)
        places |= convolution(f"{level}.conv.downsample", down) | convolution(f"{level}.deconv.upsample.1", up)
        block = f"{level}.deconv.block"
        for j, conv in enumerate(decoder.convs):
            if network.style:
                places |= convolution(f"{block}.conv_block{j + 1}.conv", conv)
                style = f"{block}.style_block{j + 1}"
                places |= _dense(f"{style}.affine_mod", decoder.styles[j].affine) | _alpha(style, decoder.styles[j])
            else:
                places |= convolution(f"{block}.block.{1 + 3 * j}", conv)
        level += ".inner_module"
    vit = network.bottleneck
    places |= _dense(f"{level}.trans_input.embed.projector", vit.position)
    places |= _dense(f"{level}.trans_input.output", vit.mix) | _dense(f"{level}.trans_output", vit.out)
    if network.style:
        places[f"{level}.extra_tokens"] = Place(vit.token, (0, 1, 2))
    for i, block in enumerate(vit.blocks):
        key = f"{level}.encoder.encoder.{i}"
        places |= _norm(f"{key}.norm1", block.attend_norm) | _norm(f"{key}.norm2", block.ffn_norm)
        places |= _dense(f"{key}.ffn.net.0", block.widen) | _dense(f"{key}.ffn.net.2", block.narrow)
        places[f"{key}.atten.in_proj_weight"] = Place(block.attend.project.kernel, DENSE)
        places[f"{key}.atten.in_proj_bias"] = Place(block.attend.project.bias)
        places |= _dense(f"{key}.atten.out_proj", block.attend.join) | _alpha(key, block)
    return places


def discriminator(network):
    """dict of published name → `Place` of a `Discriminator`."""
    places, body = {}, "_body.model" if network.head else "model"
    last = [] if network.head else [network.last]
    for i, conv in enumerate([*network.trunk, *last]):
        key = f"{body}.{3 * i - 1 if i else 0}"
        if network.spectral:
            h, w, channels, _ = conv.kernel.shape
            weight = f"{key}.parametrizations.weight"
            places[f"{weight}.original"] = Place(conv.kernel, KERNEL)
            places[f"{weight}.0._u"] = Place(conv.spectral.u)
            places[f"{weight}.0._v"] = Place(conv.spectral.v, (1, 2, 0), (channels, h, w), (channels * h * w,))
            places[f"{key}.bias"] = Place(conv.bias)
        else:
            places |= convolution(key, conv)
    if network.head:
        first = 1 if network.head.kind == "bsd" else 0
        places |= {} if first else _norm("_head.norm", network.head)
        places |= convolution(f"_head.net.{first}", network.head.inner)
        places |= convolution(f"_head.net.{first + 2}", network.head.last)
    return places


# === What a file is ===


def recognise(files, told):
    """What UVCGAN's files are.

    Args:
        files: dict of file name without its extension → content.
        told: dict of what the user said that a file may not: `direction`, "a2b" or "b2a", which way a generator
            translates, and `size`, (height, width) of training's pictures.

    Returns:
        `PublishedModel`, or None when none of the files is UVCGAN's.

    Raises:
        UserError: they are, but not of one model that tfi2i has.
    """
    states, options, channels_of, version = {}, {}, {}, None
    for name, state in files.items():
        if not is_state(state):
            continue
        generates, judges = "net.layer_input.0.weight" in state, "_body.model.0.bias" in state
        said = re.search(r"(avg_)?gen_(ab|ba)|disc_(a|b)", name)
        if not generates and not judges and not (said and said[3] and "model.0.weight" in state):
            continue
        if said is None and judges:
            raise UserError(f"{name} is a discriminator, and its name does not say which: call it net_disc_a.pth")
        if name.endswith("encoder") and generates:
            raise UserError(f"{name} is a pre-trained encoder, not a model that translates")
        part = said[0] if said else {"b2a": "gen_ba"}.get(told.get("direction"), "gen_ab")
        if part in states:
            raise UserError(f"{name} is a second {part}: give the folder or file of one model")
        # Positions follow from a map's size; the last layer has two names in v1 and in the v1 that v2 builds.
        state = {k: v for k, v in state.items() if not k.endswith(("trans_input.x_const", "trans_input.y_const"))}
        last = f"model.{3 * sum(k.startswith('model.') and k.endswith('.bias') for k in state) - 1}"
        states[part] = {k.replace("shrink_conv", last): v for k, v in state.items()}
        own, channels = (_generator_options if generates else _discriminator_options)(states[part], part)
        if generates:
            version = "uvcgan2" if own["style"] else "uvcgan"
        domains = part[-2:] if generates else part[-1]
        agree(part, own, channels, domains, options, channels_of)
    if not states:
        return None
    if version is None:
        raise UserError(f"{', '.join(files)}: discriminators alone, nothing that translates")
    facts = []
    averaged = version == "uvcgan2" or any(part.startswith("avg_") for part in states)
    for part in _GENERATORS:
        for have, lack in ((f"avg_{part}", part), (part, f"avg_{part}")):
            if have in states and lack not in states and (averaged or have.startswith("avg_")):
                states[lack] = states[have]
                facts.append(f"{lack} is not there: it starts as {have}")
    if averaged and version == "uvcgan":
        options["ema_momentum"] = 0.9999
    if channels_of["a"] != channels_of["b"]:
        options |= {"lambda_identity": 0.0, "lambda_consistency": 0.0}
    directions = tuple(d for part, d in (("gen_ab", "a2b"), ("gen_ba", "b2a")) if part in states)
    unknown = [
        f"how many heads its attention has: {_HEADS}, as in the published configurations, are assumed",
        "the size of the pictures that it was trained on, and the weights of its losses",
    ]
    if options.get("discriminator_head") == "none" and version == "uvcgan2":
        options["cache_size"] = 0
    return PublishedModel(version, options, channels_of, states, directions, facts=facts, unknown=unknown)


def _generator_options(state, part):
    shapes = kernels(state)
    width, channels = shapes["net.layer_input.0"][:2]
    style = any(k.startswith("net.modnet.") for k in state)
    unet = "net.modnet" if style else "net.unet"
    levels = len([k for k in shapes if k.endswith(".conv.downsample")])
    inner = unet + ".inner_module" * levels
    blocks = len({m[1] for k in state if (m := re.match(re.escape(inner) + r"\.encoder\.encoder\.(\d+)\.", k))})
    widest = width * 2 ** max(levels - 1, 0)
    deepest = unet + ".inner_module" * (levels - 1)
    expect_shape(state, f"{deepest}.conv.block.block.4.weight", (widest, widest, 3, 3), part)
    if f"{inner}.trans_output.weight" not in state or f"{inner}.trans_input.embed.projector.bias" not in state:
        raise UserError(f"{part}: {inner} is no vision transformer, as tfi2i's have")
    vit_width = state[f"{inner}.trans_output.weight"].shape[1]
    expect_shape(state, f"{inner}.trans_input.output.weight", (vit_width, vit_width + widest), part)
    options = {
        "generator_width": width, "generator_levels": levels, "style": style, "norm": "none" if style else "instance",
        "vit_width": vit_width, "vit_heads": _HEADS, "vit_blocks": blocks,
    }  # fmt: skip
    if blocks:
        key = f"{inner}.encoder.encoder.0.ffn.net.0.weight"
        if key not in state:
            raise UserError(f"{part}: {key} is missing: a network that tfi2i does not have")
        options["vit_ffn_width"] = state[key].shape[0]
    return options, (channels, shapes.get("net.layer_output", (0,))[0])


def _discriminator_options(state, part):
    spectral = any("parametrizations" in k for k in state)
    head = "bn" if "_head.norm.weight" in state else "bsd" if "_head.net.1.weight" in state else "none"
    body = "model" if head == "none" else "_body.model"
    suffix = "parametrizations.weight.original" if spectral else "weight"
    shapes = {k: v.shape for k, v in state.items() if re.fullmatch(rf"{body}\.\d+\.{re.escape(suffix)}", k)}
    first = f"{body}.0.{suffix}"
    if first not in shapes:
        raise UserError(f"{part} is not a discriminator of UVCGAN's codes")
    width, channels = shapes[first][:2]
    count = len(shapes) - (2 if head == "none" else 1)
    for i in range(1, count + 1):
        shape = (width * min(2**i, 8), width * min(2 ** (i - 1), 8), 4, 4)
        expect_shape(state, f"{body}.{3 * i - 1}.{suffix}", shape, part)
    return {
        "discriminator_layers": count,
        "discriminator_width": width,
        "discriminator_head": head,
        "spectral_norm": spectral,
    }, (channels,)
