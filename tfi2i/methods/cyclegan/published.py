"""CycleGAN's checkpoints: `EPOCH_net_G_A.pth`, `…_G_B`, `…_D_A`, `…_D_B` of the authors' PyTorch code.

G_A translates A to B; D_A judges domain B. A released model is one generator alone, `latest_net_G.pth`.
Files from before October 2018 also hold statistics of the instance norms, which that code never used.
"""

import re

from tfi2i.config import UserError
from tfi2i.conversion import PublishedModel, agree, batch_norm, convolution, expect_shape, is_state, kernels
from tfi2i.layers import BatchNormalization
from tfi2i.methods.cyclegan import published_keras

# How files of one model at one time of its training are named: those of PyTorch, and of Keras.
FILE_NAMES = (
    r"(?P<epoch>.+)_net_[GD](_[AB])?",
    r"(?i:G_(A2B|B2A|AB|BA)|gen(erator)?_(G|F|A2B|B2A|AB|BA))([-_.](?P<epoch>\d+))?(\.weights)?",
)
# The part that translates one way, where a file holds no more.
GENERATOR_OF = {"a2b": "G_A", "b2a": "G_B"}
_GENERATORS = {"G_A": "generator_a2b", "G_B": "generator_b2a"}
_DISCRIMINATORS = {"D_A": "discriminator_b", "D_B": "discriminator_a"}
_FILE = r"net_([GD])(?:_([AB]))?$"
# The first convolution of each kind of generator and the sides of its kernel.
_FIRST = {"resnet": ("model.1", (7, 7)), "unet": ("model.model.0", (4, 4))}


def files_of(states):
    """dict of part → state, as dict of the published code's file name → content."""
    return {f"latest_net_{part}.pth": state for part, state in states.items()}


# === Names ===


def layout(model, tensorflow=False):
    """dict of "G_A", "G_B", "D_A", "D_B" → dict of published name → `Place`.

    Args:
        model: a built `CycleGAN`.
        tensorflow: the parts and names of codes in TensorFlow instead, see `published_keras.layout`.

    Raises:
        UserError: the published code has no such network.
    """
    if tensorflow:
        return published_keras.layout(model)
    if model.config.cyclegan_variant != "pytorch":
        raise UserError(f"--cyclegan_variant={model.config.cyclegan_variant} is not in the published code")
    if model.config.upsample != "transposed":
        raise UserError(f"--upsample={model.config.upsample} is not in the published code, which has transposed only")
    generator = unet if model.config.generator.startswith("unet") else resnet
    parts = {part: generator(getattr(model, name)) for part, name in _GENERATORS.items()}
    return parts | {part: discriminator(getattr(model, name)) for part, name in _DISCRIMINATORS.items()}


def _norm(key, layer):
    return batch_norm(key, layer) if isinstance(layer, BatchNormalization) else {}


def resnet(network):
    layers = [(1, network.head, network.head_norm)]
    layers += [(4 + 3 * i, *pair) for i, pair in enumerate(network.down)]
    after = 10 + len(network.blocks)
    layers += [(after + 3 * i, *pair) for i, pair in enumerate(network.up)]
    places = {}
    for i, conv, norm in layers:
        places |= convolution(f"model.{i}", conv) | _norm(f"model.{i + 1}", norm)
    for i, block in enumerate(network.blocks, 10):
        second = 6 if network.dropout_on else 5
        for j, conv, norm in ((1, block.conv_1, block.norm_1), (second, block.conv_2, block.norm_2)):
            key = f"model.{i}.conv_block"
            places |= convolution(f"{key}.{j}", conv) | _norm(f"{key}.{j + 1}", norm)
    return places | convolution(f"model.{after + 7}", network.tail)


def unet(network):
    def level(block, key):
        if block.place == "outermost":
            down, inner, up = 0, 1, 3
        else:
            down, inner, up = 1, 3, 5 if block.place == "middle" else 3
        places = convolution(f"{key}.{down}", block.down) | _norm(f"{key}.{down + 1}", block.down_norm)
        if block.inner:
            places |= level(block.inner, f"{key}.{inner}.model")
        return places | convolution(f"{key}.{up}", block.up) | _norm(f"{key}.{up + 1}", block.up_norm)

    return level(network.outermost, "model.model")


def discriminator(network):
    pixel = network.last.kernel_size == (1, 1)
    key = "net" if pixel else "model"
    places = convolution(f"{key}.0", network.first)
    for i, (conv, norm) in enumerate(network.inner):
        places |= convolution(f"{key}.{2 + 3 * i}", conv) | _norm(f"{key}.{3 + 3 * i}", norm)
    return places | convolution(f"{key}.{2 + 3 * len(network.inner)}", network.last)


# === What a file is ===


def recognise(files, told):
    """What CycleGAN's files are.

    Args:
        files: dict of file name without its extension → content.
        told: dict of what the user said that a file may not: `direction`, "a2b" or "b2a", which way a generator
            translates, and `size`, (height, width) of training's pictures, beside the method's own `told` flags.

    Returns:
        `PublishedModel`, or None when none of the files is CycleGAN's.

    Raises:
        UserError: they are, but not of one model that tfi2i has.
    """
    direction = told.get("direction")
    if paired_parts(files, told.get("method")):
        return None
    return _recognise_pytorch(files, direction) or published_keras.recognise(files, direction)


def paired_parts(files, method=None):
    """The parts of a pix2pix model, which the same code writes, among files: dict of "G", "D" → state; or None.

    CycleGAN's parts have a letter in their names, or are a released ResNet alone. A U-Net without a letter is pix2pix',
    and so is a ResNet beside a discriminator that judges its input and output together.

    Args:
        files: dict of file name without its extension → content.
        method: "cyclegan" or "pix2pix" where the user said which of them it is, else None.
    """
    parts = {}
    for name, state in files.items():
        if is_state(state) and not re.search(r"net_[GD]_[AB]$", name):
            if _reader(state) is generator_options:
                parts["G"] = state
            elif {"model.0.weight", "net.0.weight"} & state.keys():
                parts["D"] = state
    told = "model.model.0.weight" in parts.get("G", ())
    if not told and parts.keys() == {"G", "D"}:
        told = judged_channels(parts["D"]) == sum(generator_options(parts["G"], "G")[1])
    return parts if parts and method != "cyclegan" and (told or method == "pix2pix") else None


def judged_channels(state):
    """Channels that a discriminator's state takes."""
    shapes = kernels(state)
    return shapes.get("model.0", shapes.get("net.0"))[1]


def _recognise_pytorch(files, direction):
    if not any(_reader(state) is generator_options or re.search(_FILE, name) for name, state in files.items()):
        return None  # discriminators look like those of other codes
    parts, described = {}, {}
    for name, state in files.items():
        read = _reader(state)
        if read is None:
            continue
        said = re.search(_FILE, name)
        letter = said.group(2) if said else None
        kind = "G" if read is generator_options else "D"
        if letter is None and kind == "G":
            letter = "B" if direction == "b2a" else "A"
        if letter is None:
            raise UserError(
                f"{name} is a discriminator, and its name does not say which: call it …_net_D_A.pth or leave it out"
            )
        part = f"{kind}_{letter}"
        if part in parts:
            raise UserError(f"{name} is a second {part}: give the folder or file of one model")
        parts[part], described[part] = state, read(state, name)
    if not parts:
        return None
    if not parts.keys() & _GENERATORS:
        raise UserError(f"{', '.join(files)}: discriminators alone, nothing that translates")
    options, channels_of = {}, {}
    for part in sorted(parts, reverse=True):
        own, channels = described[part]
        # What G_A takes is of A, what it makes and D_A judges is of B.
        agree(part, own, channels, {"G_A": "ab", "G_B": "ba", "D_A": "b", "D_B": "a"}[part], options, channels_of)
    if channels_of["a"] != channels_of["b"]:
        options["lambda_identity"] = 0.0
    directions = tuple(d for part, d in (("G_A", "a2b"), ("G_B", "b2a")) if part in parts)
    unknown = ["the size of the pictures that it was trained on, and the weights of its losses"]
    norm = options["norm"]
    if norm == "batch":
        unknown.append("whether its results were made with the stored statistics of the batch norms, as here")
    if options["generator"].startswith("unet"):
        unknown.append("whether it was trained with dropout, which leaves no trace in a U-Net")
    if len(directions) == 1 and not any(re.search(r"net_G_[AB]$", n) for n in files):
        unknown.append(f"which way it translates: A is what it takes, B what it makes, if --direction={directions[0]}")
    return PublishedModel("cyclegan", options, channels_of, parts, directions, unknown=unknown)


def _reader(state):
    if not is_state(state):
        return None
    shapes = kernels(state)
    if any(shapes.get(key, ())[2:] == side for key, side in _FIRST.values()):
        return generator_options
    if shapes.get("model.0", ())[2:] == (4, 4) and shapes["model.0"][1] <= 4 or "net.0" in shapes and "net.2" in shapes:
        return discriminator_options
    return None


def _norm_of(state, inner, name):
    """The norm of a network, `inner` being a convolution that one follows."""
    scaled = any(k.endswith(".weight") and len(v.shape) == 1 for k, v in state.items())
    bias = f"{inner}.bias" in state
    if scaled and bias:
        raise UserError(f"{name}: its norms have learned scales beside the convolutions' biases, as tfi2i's never have")
    return "batch" if scaled else "instance" if bias else "none"


def generator_options(state, name):
    shapes = kernels(state)
    if "model.model.0" in shapes:
        downs = len(shapes) // 2
        if downs not in published_keras.UNETS:
            raise UserError(
                f"{name}: a U-Net that halves {downs} times, expected {' or '.join(map(str, published_keras.UNETS))}"
            )
        width, channels = shapes["model.model.0"][:2]
        key = "model.model.1.model" + ".3.model" * (downs - 2) + ".1.weight"
        expect_shape(state, key, (8 * width, 8 * width, 4, 4), name)
        made = shapes.get("model.model.3", (0, 0))[1]
        norm = _norm_of(state, "model.model.1.model.1", name)
        return {"generator": published_keras.UNETS[downs], "generator_width": width, "norm": norm}, (channels, made)
    blocks = {int(m[1]) for k in shapes if (m := re.match(r"model\.(\d+)\.conv_block\.", k))}
    if "model.10.conv_block.0" in shapes:
        raise UserError(f"{name}: its residual blocks are padded with zeros, which tfi2i's are not")
    width, channels = shapes["model.1"][:2]
    expect_shape(state, "model.10.conv_block.1.weight", (4 * width, 4 * width, 3, 3), name)
    options = {
        "generator_width": width,
        "norm": _norm_of(state, "model.4", name),
        "dropout": "model.10.conv_block.6" in shapes,
    }
    made = shapes.get(f"model.{17 + len(blocks)}", (0,))[0]
    return published_keras.resnet_options(len(blocks)) | options, (channels, made)


def discriminator_options(state, name):
    shapes = kernels(state)
    if "net.0" in shapes:
        width, channels = shapes["net.0"][:2]
        expect_shape(state, "net.2.weight", (2 * width, width, 1, 1), name)
        options = {"discriminator": "pixel", "discriminator_width": width}
        return options | {"norm": _norm_of(state, "net.2", name)}, (channels,)
    width, channels = shapes["model.0"][:2]
    strided = len(shapes) - 2
    for i in range(1, strided + 1):
        shape = (width * min(2**i, 8), width * min(2 ** (i - 1), 8), 4, 4)
        expect_shape(state, f"model.{3 * i - 1}.weight", shape, name)
    options = {"discriminator": "n_layers", "discriminator_layers": strided, "discriminator_width": width}
    return options | {"norm": _norm_of(state, "model.2", name)}, (channels,)
