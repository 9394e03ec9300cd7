"""U-GAT-IT's checkpoints: the PyTorch code's `NAME_params_STEP.pt` and the TensorFlow code's `UGATIT.model-STEP.index`.

The first is one dictionary of six states. Its authors published none; those that there are come from others, some of
them generators alone. The matrix behind a full-size map is in the order channel, row, column there, and row, column,
channel here and in TensorFlow. generator_B of the TensorFlow code translates A to B.
"""

import math
import re

from tfi2i.config import UserError
from tfi2i.conversion import DENSE, KERNEL, Place, PublishedModel, agree, convolution, expect_shape, is_state, kernels

# How files of one model at one time of its training are named.
FILE_NAMES = (r".*_params_(?P<epoch>\d+|latest)",)
_GENERATORS = {"genA2B": "generator_a2b", "genB2A": "generator_b2a"}
_DISCRIMINATORS = {
    "disGA": "discriminator_a_global", "disGB": "discriminator_b_global", "disLA": "discriminator_a_local",
    "disLB": "discriminator_b_local",
}  # fmt: skip


def files_of(states):
    """dict of part → state, as dict of the published code's file name → content."""
    return {"tfi2i_params_latest.pt": states}


# === Names ===


def layout(model, tensorflow=False):
    """dict of "genA2B", "genB2A", "disGA", "disGB", "disLA", "disLB" → dict of published name → `Place`.

    Args:
        model: a built `UGATIT`.
        tensorflow: the names of the TensorFlow code instead of the PyTorch code's.

    Raises:
        UserError: the PyTorch code has no such network.
    """
    c = model.config
    if tensorflow:
        parts = {part: _tensorflow_generator(model.networks[name]) for part, name in _GENERATORS.items()}
        judges = {part: _tensorflow_discriminator(model.networks[name]) for part, name in _DISCRIMINATORS.items()}
        return parts | judges
    if c.ugatit_variant != "pytorch" or c.decoder_norm != "adalin" or not (c.cam_generator and c.cam_discriminator):
        raise UserError("only --ugatit_variant=pytorch, with AdaLIN and attention, is the published PyTorch code's")
    networks = model.networks
    parts = {part: generator(networks[name]) for part, name in _GENERATORS.items()}
    return parts | {part: discriminator(networks[name]) for part, name in _DISCRIMINATORS.items()}


def generator(network):
    """dict of published name → `Place` of a `Generator`."""
    places = convolution("conv1x1", network.mixed)
    for name, kernel in zip(("gap", "gmp"), network.cam.kernels):
        places[f"{name}_fc.weight"] = Place(kernel, DENSE)
    first, second, gamma, beta = network.style
    channels, units = network.mixed.filters, first.units
    if network.light:
        places["FC.0.weight"] = Place(first.kernel, DENSE)
    else:
        h, w = (side // 4 for side in network.image_size)
        places["FC.0.weight"] = Place(first.kernel, KERNEL, (units, channels, h, w), (units, channels * h * w))
    for name, layer in (("FC.2", second), ("gamma", gamma), ("beta", beta)):
        places[f"{name}.weight"] = Place(layer.kernel, DENSE)
    for i, conv in zip((1, 5, 9), network.down[::2]):
        places |= convolution(f"DownBlock.{i}", conv)
    for i, block in enumerate(network.encoder, 12):
        places |= convolution(f"DownBlock.{i}.conv_block.1", block.conv_1)
        places |= convolution(f"DownBlock.{i}.conv_block.5", block.conv_2)
    for i, block in enumerate(network.decoder, 1):
        for j, conv, norm in ((1, block.conv_1, block.norm_1), (2, block.conv_2, block.norm_2)):
            places |= convolution(f"UpBlock1_{i}.conv{j}", conv) | _norm(f"UpBlock1_{i}.norm{j}", norm)
    for i, conv, norm in zip((2, 7), network.up[1::3], network.up[2::3]):
        places |= convolution(f"UpBlock2.{i}", conv) | _norm(f"UpBlock2.{i + 1}", norm)
    return places | convolution("UpBlock2.11", network.tail)


def _norm(key, layer):
    names = ("rho",) if layer.adaptive else ("rho", "gamma", "beta")
    return {f"{key}.{n}": Place(v := getattr(layer, n), shape=(1, v.shape[0], 1, 1)) for n in names}


def discriminator(network):
    """dict of published name → `Place` of a `Discriminator`."""
    places = convolution("conv1x1", network.mixed)
    for i, conv in enumerate(network.convs):
        places |= _spectral(f"model.{3 * i + 1}", conv.kernel, conv.spectral)
        places[f"model.{3 * i + 1}.bias"] = Place(conv.bias)
    for name, kernel, spectral in zip(("gap", "gmp"), network.cam.kernels, network.cam.spectral):
        places |= _spectral(f"{name}_fc", kernel, spectral)
    return places | _spectral("conv", network.last.kernel, network.last.spectral)


def _spectral(key, kernel, spectral):
    if len(kernel.shape) == 2:
        places = {f"{key}.weight_orig": Place(kernel, DENSE), f"{key}.weight_v": Place(spectral.v)}
    else:
        h, w, channels, _ = kernel.shape
        v = Place(spectral.v, (1, 2, 0), (channels, h, w), (channels * h * w,))
        places = {f"{key}.weight_orig": Place(kernel, KERNEL), f"{key}.weight_v": v}
    return places | {f"{key}.weight_u": Place(spectral.u)}


def _as_it_is(key, layer, *names):
    return {f"{key}/{n}": Place(v := getattr(layer, n), tuple(range(len(v.shape)))) for n in names}


def _tensorflow_generator(network):
    both = ("kernel", "bias")
    places = _as_it_is("conv_1x1/conv2d", network.mixed, *both) | _as_it_is("G_logit/conv2d", network.tail, *both)
    places |= {"CAM_logit/kernel": Place(network.cam.kernels[0], (0, 1)), "CAM_logit/bias": Place(network.cam.bias)}
    for i, conv, norm in zip(("", "_0", "_1"), network.down[::2], network.down[1::2]):
        places |= _as_it_is(f"conv{i}/conv2d", conv, *both) | _as_it_is(f"ins_norm{i}", norm, "gamma", "beta")
    for i, block in enumerate(network.encoder):
        for j, conv, norm in ((1, block.conv_1, block.norm_1), (2, block.conv_2, block.norm_2)):
            key = f"resblock_{i}/res{j}"
            places |= _as_it_is(f"{key}/conv_0/conv2d", conv, *both)
            places |= _as_it_is(f"{key}/instance_norm", norm, "gamma", "beta")
    for name, layer in zip(("linear_0", "linear_1", "gamma", "beta"), network.style):
        places |= _as_it_is(f"MLP/{name}/dense", layer, *both)
    for i, block in enumerate(network.decoder):
        for j, conv, norm in ((1, block.conv_1, block.norm_1), (2, block.conv_2, block.norm_2)):
            key = f"adaptive_resblock{i}/res{j}"
            places |= _as_it_is(f"{key}/conv_0/conv2d", conv, *both)
            places |= _as_it_is(f"{key}/instance_layer_norm", norm, "rho")
    for i, conv, norm in zip((0, 1), network.up[1::3], network.up[2::3]):
        places |= _as_it_is(f"up_conv_{i}/conv2d", conv, *both)
        places |= _as_it_is(f"layer_ins_norm_{i}", norm, "rho", "gamma", "beta")
    return places


def _tensorflow_discriminator(network):
    # v is not stored: the first power iteration makes it of u.
    def normalised(key, kernel, bias, spectral):
        u = Place(spectral.u, shape=(1, spectral.u.shape[0]))
        axes = tuple(range(len(kernel.shape)))
        return {f"{key}/kernel": Place(kernel, axes), f"{key}/bias": Place(bias), f"{key}/u": u}

    places = _as_it_is("conv_1x1/conv2d", network.mixed, "kernel", "bias")
    places |= normalised("CAM_logit", network.cam.kernels[0], network.cam.bias, network.cam.spectral[0])
    for i, conv in enumerate((*network.convs, network.last)):
        name = {len(network.convs) - 1: "conv_last", len(network.convs): "D_logit"}.get(i, f"conv_{i}")
        places |= normalised(name, conv.kernel, conv.bias, conv.spectral)
    return places


# === What a file is ===


def recognise(files, told):
    """What U-GAT-IT's files are.

    Args:
        files: dict of file name without its extension → content.
        told: dict of what the user said that a file may not: `direction`, "a2b" or "b2a", which way a generator
            translates, and `size`, (height, width) of training's pictures, which a file of full mode does not say
            where they are not square.

    Returns:
        `PublishedModel`, or None when none of the files is U-GAT-IT's.

    Raises:
        UserError: they are, but not of one model that tfi2i has.
    """
    size = told.get("size")
    if any(isinstance(c, dict) and "generator_B/conv/conv2d/kernel" in c for c in files.values()):
        ((name, content),) = files.items()
        return _recognise_tensorflow(name, content, size)
    models = {n: c for n, c in files.items() if isinstance(c, dict) and set(c) & {*_GENERATORS, *_DISCRIMINATORS}}
    if not models:
        return None
    if len(models) > 1:
        raise UserError(f"{', '.join(models)}: several models, give the file of one")
    ((name, content),) = models.items()
    states = {part: content[part] for part in (*_GENERATORS, *_DISCRIMINATORS) if is_state(content.get(part))}
    options, channels_of = {"ugatit_variant": "pytorch"}, {}
    for part, state in states.items():
        generates = part in _GENERATORS
        own, channels = (_generator_options if generates else _discriminator_options)(state, part, size)
        domains = {"genA2B": "ab", "genB2A": "ba"}.get(part, part[-1].lower())
        agree(part, own, channels, domains, options, channels_of)
    directions = tuple(d for part, d in (("genA2B", "a2b"), ("genB2A", "b2a")) if part in states)
    if not directions:
        raise UserError(f"{name}: discriminators alone, nothing that translates")
    if channels_of["a"] != channels_of["b"]:
        options |= {"lambda_identity": 0.0, "lambda_cam": 0.0}
    unknown = ["the weights of its losses"]
    if options["light"]:
        unknown.insert(0, "the size of the pictures that it was trained on")
    step = re.search(r"_params_(\d+)$", name)
    step, size = int(step[1]) if step else None, options.get("image_size")
    return PublishedModel("ugatit", options, channels_of, states, directions, unknown=unknown, step=step, size=size)


_SCOPES = {
    "genA2B": "generator_B", "genB2A": "generator_A", "disGA": "discriminator_A/global",
    "disGB": "discriminator_B/global", "disLA": "discriminator_A/local", "disLB": "discriminator_B/local",
}  # fmt: skip


def _recognise_tensorflow(name, content, size):
    states = {
        part: {k.removeprefix(f"{scope}/"): v for k, v in content.items() if k.startswith(f"{scope}/")}
        for part, scope in _SCOPES.items()
    }
    empty = [part for part, state in states.items() if not state]
    if empty:
        raise UserError(f"{name}: the scopes of {', '.join(empty)} are missing: not U-GAT-IT's TensorFlow code")
    gen = states["genA2B"]
    channels, width = gen["conv/conv2d/kernel"].shape[2:]
    expect_shape(gen, "conv_1/conv2d/kernel", (3, 3, 2 * width, 4 * width), "generator_B")
    options = {
        "ugatit_variant": "tensorflow",
        "generator_width": width,
        "residual_blocks": len({m[1] for k in gen if (m := re.match(r"resblock_(\d+)/", k))}),
    }
    if "MLP/linear_0/dense/kernel" not in gen or "G_logit/conv2d/kernel" not in gen:
        raise UserError(f"{name}: generator_B is not that of U-GAT-IT's TensorFlow code")
    options |= _mode(*gen["MLP/linear_0/dense/kernel"].shape, 4 * width, size, "generator_B")
    for part, flag in (("disGA", "global_layers"), ("disLA", "local_layers")):
        options[flag] = 2 + len([k for k in states[part] if re.fullmatch(r"conv_\d+/kernel", k)])
    if "conv_0/kernel" not in states["disLA"]:
        raise UserError(f"{name}: discriminator_A/local is not that of U-GAT-IT's TensorFlow code")
    options["discriminator_width"] = states["disLA"]["conv_0/kernel"].shape[3]
    made = gen["G_logit/conv2d/kernel"].shape[3]
    unknown = ["whether it was trained with smoothing (0.1 taken off rho), as is the default and is assumed"]
    step = re.search(r"-(\d+)$", name)
    return PublishedModel(
        "ugatit",
        options,
        {"a": channels, "b": made},
        states,
        unknown=[*unknown, "the weights of its losses"],
        step=int(step[1]) if step else None,
        size=options.get("image_size"),
        tensorflow=True,
    )


def _mode(features, units, channels, size, part):
    """Whether a style network is light, and if not the size of the pictures that its dense layer is for."""
    if features == units:
        return {"light": True}
    pixels, rest = divmod(features, channels)
    side = math.isqrt(pixels)
    size = size or (4 * side, 4 * side)
    if rest or (size[0] // 4) * (size[1] // 4) != pixels:
        raise UserError(
            f"{part}: its dense layer is for maps of {pixels} pixels, which is not a quarter of "
            f"{size[0]}x{size[1]} each way: give the --size=H,W that it was trained on"
        )
    return {"light": False, "image_size": tuple(size)}


def _generator_options(state, part, size):
    shapes = kernels(state)
    if "DownBlock.1" not in shapes or "FC.0.weight" not in state:
        raise UserError(f"{part} is not a generator of U-GAT-IT's PyTorch code")
    width, channels = shapes["DownBlock.1"][:2]
    blocks = len({m[1] for k in shapes if (m := re.match(r"DownBlock\.(\d+)\.conv_block", k))})
    expect_shape(state, "DownBlock.9.weight", (4 * width, 2 * width, 3, 3), part)
    units, features = state["FC.0.weight"].shape
    options = {"generator_width": width, "residual_blocks": blocks}
    options |= _mode(features, units, 4 * width, size, part)
    return options, (channels, shapes.get("UpBlock2.11", (0,))[0])


def _discriminator_options(state, part, size):
    shapes = {k: v.shape for k, v in state.items() if re.fullmatch(r"model\.\d+\.weight_orig", k)}
    if "model.1.weight_orig" not in shapes:
        raise UserError(f"{part} is not a discriminator of U-GAT-IT's PyTorch code")
    width, channels = shapes["model.1.weight_orig"][:2]
    n = len(shapes)
    if n > 1:
        shape = (width * 2 ** (n - 1), width * 2 ** (n - 2), 4, 4)
        expect_shape(state, f"model.{3 * n - 2}.weight_orig", shape, part)
    layers = "global_layers" if part[3] == "G" else "local_layers"
    return {"discriminator_width": width, layers: n + 1}, (channels,)
