"""CycleGANs of Keras: LynnHo/CycleGAN-Tensorflow-2, the example of keras.io, and the tutorial of TensorFlow.

The first two have the same ResNet generators and discriminators, with the norms of tensorflow-addons; the tutorial has
a U-Net with a norm of its own. Networks, or their files, are named G_A2B, gen_G, generator_g and the like. Weights
alone do not say how a layer pads; a whole model does, and is compared with ours step by step.
"""

import itertools
import re

from tfi2i.config import UserError
from tfi2i.conversion import Place, PublishedModel, agree, expect_shape, is_state
from tfi2i.conversion.keras_files import Saved, class_of, of_checkpoint, readable

# How often a U-Net halves its map → --generator.
UNETS = {7: "unet_128", 8: "unet_256"}
_NAMES = {
    "G_A2B": r"G_A2B|G_AB|gen(erator)?_(G|A2B|AB)", "G_B2A": r"G_B2A|G_BA|gen(erator)?_(F|B2A|BA)",
    "D_A": r"D_A|disc(riminator)?_[AX]", "D_B": r"D_B|disc(riminator)?_[BY]",
}  # fmt: skip
_DOMAINS = {"G_A2B": "ab", "G_B2A": "ba", "D_A": "a", "D_B": "b"}
_OURS = {
    "G_A2B": "generator_a2b", "G_B2A": "generator_b2a", "D_A": "discriminator_a", "D_B": "discriminator_b",
}  # fmt: skip
_ARRAYS = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
# What the tutorial's norm calls gamma and beta, and its epsilon; that of Keras and of tensorflow-addons.
_TUTORIAL, _TUTORIAL_EPSILON, _EPSILON = {"scale": "gamma", "offset": "beta"}, 1e-5, 1e-3
_PAD = "reflection"


# === Names ===


def layout(model):
    """dict of "G_A2B", "G_B2A", "D_A", "D_B" → dict of "layer_with_weights-N/NAME" → `Place`.

    As checkpoints of functional models have it, N from 0 in the order of the layers; through Sequentials, too.
    """
    parts = {}
    for part, name in _OURS.items():
        arrays = {
            f"layer_with_weights-{i}/{n}": getattr(layer, n, None)
            for i, layer in enumerate(_layers(model.networks[name])) for n in _ARRAYS
        }  # fmt: skip
        parts[part] = {k: Place(v, tuple(range(len(v.shape)))) for k, v in arrays.items() if v is not None}
    return parts


def _layers(network):
    """The convolutions and norms of a network, in the published codes' order."""
    if hasattr(network, "blocks"):
        blocks = [pair for b in network.blocks for pair in ((b.conv_1, b.norm_1), (b.conv_2, b.norm_2))]
        pairs = [(network.head, network.head_norm), *network.down, *blocks, *network.up, (network.tail,)]
    elif hasattr(network, "outermost"):
        levels = [network.outermost]
        while levels[-1].inner:
            levels.append(levels[-1].inner)
        pairs = [(level.down, level.down_norm) for level in levels] + [(v.up, v.up_norm) for v in levels[::-1]]
    else:
        pairs = [(network.first,), *network.inner, (network.last,)]
    return [layer for pair in pairs for layer in pair if layer and layer.weights]


# === What a file is ===


def resnet_options(blocks):
    """The flags of a ResNet generator with so many residual blocks."""
    usual = {6: "resnet_6blocks", 9: "resnet_9blocks"}
    return {"generator": usual[blocks]} if blocks in usual else {"generator": usual[9], "residual_blocks": blocks}


def recognise(files, direction=None):
    """What files of Keras are.

    Args:
        files: dict of file name without its extension → content.
        direction: which way a generator translates whose name does not say so; None: "a2b".

    Returns:
        `PublishedModel`, or None when none of the files is of functional models of Keras.

    Raises:
        UserError: they are, but not of one CycleGAN that tfi2i has.
    """
    read, unknown = {}, []
    for file, content in files.items():
        saved = content if isinstance(content, Saved) else of_checkpoint(content) if is_state(content) else None
        if saved and not saved.layers:
            raise UserError(f"{file} holds no weights")
        for name, chain in _networks(saved, file).items() if saved else ():
            part = _part(name)
            if part is None:
                part, way = ("G_B2A", "b2a") if direction == "b2a" else ("G_A2B", "a2b")
                unknown.append(f"which way it translates: A is what it takes, B what it makes, if --direction={way}")
            if part in read:
                raise UserError(f"{name} is a second {part}: give the file of one, or call them G_A2B and G_B2A")
            read[part] = (name, chain, saved.config)
    if not read:
        return None
    if not read.keys() & {"G_A2B", "G_B2A"}:
        raise UserError(f"{', '.join(files)}: discriminators alone, nothing that translates")
    states, options, channels_of, facts, sizes, assumed = {}, {"cyclegan_variant": "tensorflow"}, {}, [], set(), []
    for part in (p for p in _NAMES if p in read):  # generators first
        name, chain, config = read[part]
        if part.startswith("G"):
            own, channels = _generator_options(chain, name)
            size, foreign = _compared(config, own, chain, name) if config else (None, [])
            sizes.add(size)
            assumed += [] if config else [name]
            unknown += [f"what layers of the class {c} do: what its name says, is assumed" for c in foreign]
        else:
            own, channels = _discriminator_options(chain, name)
            if options["generator"].startswith("unet") or own["norm"] != options["norm"]:
                facts.append(f"{name} has other layers than discriminators here, and is left out")
                continue
        agree(part, own, channels, _DOMAINS[part], options, channels_of)
        states[part] = {
            f"layer_with_weights-{i}/{_TUTORIAL.get(n, n)}": array
            for i, arrays in enumerate(chain) for n, array in arrays.items()
        }  # fmt: skip
    if channels_of["a"] != channels_of["b"]:
        options["lambda_identity"] = 0.0
    size = sizes.pop() if len(sizes) == 1 else None
    if assumed:
        named = " and ".join(assumed)
        unknown.append(f"how the layers of {named} pad, and the epsilon of the norms: as published, is assumed")
    if options["norm"] == "batch":
        unknown.append("whether its results were made with the stored statistics of the batch norms, as here")
    trained = "" if size else "the size of the pictures that it was trained on, and "
    unknown.append(f"{trained}the weights of its losses")
    directions = tuple(d for part, d in (("G_A2B", "a2b"), ("G_B2A", "b2a")) if part in states)
    return PublishedModel(
        "cyclegan", options, channels_of, states, directions, facts=facts, unknown=unknown, size=size, tensorflow=True
    )


def _part(name):
    return next((part for part, pattern in _NAMES.items() if re.fullmatch(rf"({pattern})([-_.].*)?", name, re.I)), None)


def _networks(saved, file):
    """dict of name → list of the arrays of each layer, of the networks in a file; a single one has the file's name."""
    tops = {}
    for path, arrays in saved.layers:
        tops.setdefault(path[0], []).append(arrays)
    # A layer has one set of arrays, a Sequential of the tutorial two.
    if any(len(chain) > 3 for chain in tops.values()):
        return tops
    return {file: [arrays for chain in tops.values() for arrays in chain]} if tops else {}


def _convolutions(chain, name):
    """dict of "kernel 0" and so on → array of the convolutions of a network, their shapes, and what norm it has."""
    convolutions = [arrays["kernel"] for arrays in chain if "kernel" in arrays]
    if len(convolutions) < 3 or any(len(array.shape) != 4 for array in convolutions):
        raise UserError(f"{name} is no CycleGAN that tfi2i has: it does not consist of convolutions")
    names = {n for arrays in chain for n in arrays}
    norm = "batch" if "moving_mean" in names else "instance" if names & {"gamma", "scale"} else "none"
    return {f"kernel {i}": array for i, array in enumerate(convolutions)}, [array.shape for array in convolutions], norm


def _generator_options(chain, name):
    kernels, shapes, norm = _convolutions(chain, name)
    kh, kw, channels, width = shapes[0]
    options = {"generator": None, "generator_width": width, "norm": norm}
    if norm != "none":
        tutorial = any("scale" in arrays for arrays in chain)
        options["norm_epsilon"] = _TUTORIAL_EPSILON if tutorial else _EPSILON
    if (kh, kw) == (7, 7):
        blocks, odd = divmod(len(shapes) - 6, 2)
        if odd or blocks < 1:
            raise UserError(f"{name}: {len(shapes)} convolutions, expected 6 and two for each residual block")
        expect_shape(kernels, "kernel 3", (3, 3, 4 * width, 4 * width), name)
        return options | resnet_options(blocks), (channels, shapes[-1][3])
    if (kh, kw) == (4, 4):
        downs = len(shapes) / 2
        if downs not in UNETS:
            raise UserError(f"{name}: {len(shapes)} convolutions, expected 14 or 16, for a U-Net of 7 or 8 halvings")
        expect_shape(kernels, f"kernel {downs:.0f}", (4, 4, 8 * width, 8 * width), name)
        return options | {"generator": UNETS[downs], "dropout": True}, (channels, shapes[-1][2])
    raise UserError(f"{name} begins with a convolution of {kh}x{kw} pixels, expected 7x7 (ResNet) or 4x4 (U-Net)")


def _discriminator_options(chain, name):
    kernels, shapes, norm = _convolutions(chain, name)
    channels, width = shapes[0][2:]
    strided = len(shapes) - 2
    for i in range(1, strided + 1):
        shape = (4, 4, width * min(2 ** (i - 1), 8), width * min(2**i, 8))
        expect_shape(kernels, f"kernel {i}", shape, name)
    options = {"discriminator": "n_layers", "discriminator_layers": strided, "discriminator_width": width}
    return options | {"norm": norm}, (channels,)


# === Whole models ===


def _compared(config, options, chain, name):
    """Compares a generator's configuration with what ours computes.

    Args:
        config: of the model.
        options: what its arrays say; "norm_epsilon" is set.
        chain: dict of name → array of each layer.
        name: what errors call it.

    Returns:
        (size, foreign): (height, width) of the pictures that it was made for, or None where it does not say or ours
        does not take it; names of classes that are neither Keras' nor tensorflow-addons'.

    Raises:
        UserError: another step, or steps connected otherwise.
    """
    computed = _Steps()
    with readable(name):
        computed.walk(config["config"], ())
    kind, normed = options["generator"], options["norm"] != "none"
    downs = {v: k for k, v in UNETS.items()}.get(kind)
    blocks = (sum("kernel" in arrays for arrays in chain) - 6) // 2
    expected = _unet(downs, normed) if downs else _resnet(blocks, normed)
    for i, (theirs, ours) in enumerate(itertools.zip_longest(computed.steps, expected)):
        # Older files do not say how much a layer of someone's own pads.
        if theirs != ours and not (theirs and ours and theirs == (_PAD, *ours[1:]) and ours[0].startswith(_PAD)):
            raise UserError(f"{name}: its step {i} is {_said(theirs)}, where tfi2i's {kind} has {_said(ours)}")
    channels = [arrays["gamma"].shape for arrays in chain if "gamma" in arrays]
    for groups, shape in zip(computed.groups, channels):
        if groups not in (-1, *shape):
            raise UserError(f"{name}: a norm takes {shape[0]} channels in {groups} groups, and tfi2i's each by itself")
    if len(computed.epsilons) > 1:
        raise UserError(f"{name}: its norms have different epsilons, {sorted(computed.epsilons)}")
    if computed.epsilons:
        options["norm_epsilon"] = computed.epsilons.pop()
    size = tuple(computed.picture[1:3]) if len(computed.picture) == 4 else ()
    multiple = 2**downs if downs else 4
    fits = size and all(isinstance(s, int) and s > 4 and s % multiple == 0 for s in size)
    return size if fits else None, sorted(computed.foreign)


def _said(step):
    if step is None:
        return "missing"
    text, *inputs = step
    return f"'{text}' of step {' and '.join(map(str, inputs))}" if inputs else f"'{text}' of the input"


def _resnet(blocks, normed):
    """A ResNet generator as (what, the steps it is of, …); without steps: of the input."""
    steps, norm = [], ("norm",) * normed
    inner = (f"{_PAD} 1", "Conv2D 3, stride 1, valid", *norm)
    _append(steps, f"{_PAD} 3", "Conv2D 7, stride 1, valid", *norm, "relu")
    for _ in range(2):
        _append(steps, "Conv2D 3, stride 2, same", *norm, "relu")
    for _ in range(blocks):
        start = len(steps) - 1
        _append(steps, *inner, "relu", *inner)
        steps.append(("add", start, len(steps) - 1))
    for _ in range(2):
        _append(steps, "Conv2DTranspose 3, stride 2, same", *norm, "relu")
    _append(steps, f"{_PAD} 3", "Conv2D 7, stride 1, valid, bias", "tanh")
    return steps


def _unet(downs, normed):
    """The tutorial's U-Net in the same form."""
    steps, norm, skips = [], ("norm",) * normed, []
    for i in range(downs):
        _append(steps, "Conv2D 4, stride 2, same", *(norm if i else ()), "leaky relu 0.3")
        skips.append(len(steps) - 1)
    for skip in skips[-2::-1]:
        _append(steps, "Conv2DTranspose 4, stride 2, same", *norm, "relu")
        steps.append(("concatenate", len(steps) - 1, skip))
    _append(steps, "Conv2DTranspose 4, stride 2, same, bias", "tanh")
    return steps


def _append(steps, *texts):
    for text in texts:
        steps.append((text, len(steps) - 1) if steps else (text,))


class _Steps:
    """What a configuration computes, as a list of the form of `_resnet`.

    Attributes:
        steps: that list.
        epsilons: of the norms.
        groups: of channels that each norm has; -1: as many as channels.
        foreign: names of someone's own classes that are taken for what their names say.
        picture: shape of the input, as far as it is said.
    """

    def __init__(self):
        self.steps, self.epsilons, self.groups, self.foreign, self.picture = [], set(), [], set(), ()

    def walk(self, model, fed):
        """Adds the steps of a model's layers; its input is `fed`, a step in a tuple, and so is what is returned."""
        made, last = {}, fed
        if sum(class_of(layer) == "InputLayer" for layer in model["layers"]) > 1:
            raise UserError("it has several inputs")
        for layer in model["layers"]:
            kind, own, nodes = class_of(layer), layer["config"], layer.get("inbound_nodes", [])
            if len(nodes) > 1:
                raise UserError(f"its layer {own['name']} is used {len(nodes)} times")
            inputs = sum((made[n] for n in _inbound(nodes)), ()) if nodes else last
            if kind == "InputLayer":
                last = fed
                self.picture = self.picture or own.get("batch_input_shape") or own.get("batch_shape") or ()
            elif "layers" in own:
                last = self.walk(own, inputs)
            elif kind in ("Dropout", "Identity"):
                last = inputs
            else:
                addons = "Addons>" in f"{layer['class_name']} {layer.get('registered_name')}"
                if "pad" in kind.lower() and kind != "ZeroPadding2D" or kind == "InstanceNormalization" and not addons:
                    self.foreign.add(kind)
                last = self.layer(kind, own, nodes, inputs)
            made[own["name"]] = last
        outputs = [made[name] for name in _inbound(model.get("output_layers", []))]
        if outputs and outputs != [last]:
            raise UserError("it gives something else than what its last layer makes")
        return last

    def layer(self, kind, own, nodes, inputs):
        """Adds the steps of one layer."""
        for text in self.texts(kind, own, nodes):
            self.steps.append((text, *(sorted(inputs) if text == "add" else inputs)))
            inputs = (len(self.steps) - 1,)
        return inputs

    def texts(self, kind, own, nodes):
        """What a layer does, in the words of `_resnet`."""
        if kind == "Lambda" or "Lambda" in str(own.get("activation")):
            raise UserError(f"its layer {own['name']} is a Lambda: code in the file, which is not run")
        if kind == "TFOpLambda":
            function, arguments = own["function"].rpartition(".")[2].strip("_"), _arguments(nodes)
            return [self.function(function, {"mode": "CONSTANT"} | arguments)]
        if kind in ("Conv2D", "Conv2DTranspose"):
            usual = {"data_format": "channels_last", "dilation_rate": 1, "groups": 1, "output_padding": None}
            odd = [f"{n} {own[n]}" for n, v in usual.items() if n in own and _once(own[n]) != v]
            text = [f"{kind} {_once(own['kernel_size'])}", f"stride {_once(own['strides'])}", own["padding"]]
            text = ", ".join([*text, *["bias"] * own["use_bias"], *odd])
            return [text, *[own["activation"]] * (own["activation"] != "linear")]
        if kind in ("InstanceNormalization", "BatchNormalization", "GroupNormalization"):
            if _once(own.get("axis", -1)) not in (-1, 3):
                return [f"norm of axis {own['axis']}"]
            self.epsilons.add(own.get("epsilon", _TUTORIAL_EPSILON))
            self.groups.append(own["groups"] if kind == "GroupNormalization" else -1)
            return ["norm"]
        if "reflect" in kind.lower():
            return [self.function("pad", {"mode": "REFLECT"} | own)]
        if "pad" in kind.lower() and "mode" in own:
            return [self.function("pad", own)]
        if kind == "ReLU" and not (own.get("max_value") or own.get("negative_slope") or own.get("threshold")):
            return ["relu"]
        if kind == "LeakyReLU":
            return [f"leaky relu {own.get('alpha', own.get('negative_slope')):.6g}"]
        if kind == "Activation":
            return [own["activation"]]
        if kind == "Concatenate":
            return ["concatenate" if own["axis"] in (-1, 3) else f"concatenate on axis {own['axis']}"]
        return ["add" if kind == "Add" else kind]

    def function(self, function, own):
        """The same for a function of TensorFlow, or a layer that does one: `own` are its arguments."""
        if function == "pad":
            amounts = own.get("paddings", own.get("padding"))
            if str(own["mode"]).upper() != "REFLECT":
                return f"padding, {own['mode']}"
            sides = {n for n in re.findall(r"\d+", str(amounts)) if n != "0"}
            return f"{_PAD} {sides.pop()}" if len(sides) == 1 else _PAD if amounts is None else f"{_PAD} {amounts}"
        if function == "leaky_relu":
            return f"leaky relu {own.get('alpha', 0.2):.6g}"
        return function


def _inbound(node):
    """Names of the layers that a layer is called with, as Keras 2 ([name, 0, 0, {}]) and 3 (keras_history) write it."""
    if isinstance(node, list) and len(node) > 2 and isinstance(node[0], str):
        return [node[0], *_inbound(node[3:])]
    if isinstance(node, dict):
        history = node.get("keras_history")
        return [history[0]] if history else _inbound(list(node.values()))
    return [name for inner in node for name in _inbound(inner)] if isinstance(node, list) else []


def _arguments(nodes):
    """What a function is called with beside its input."""
    return next((x for x in nodes[0] if isinstance(x, dict)), {}) if nodes else {}


def _once(value):
    """3 of [3, 3]."""
    return value[0] if isinstance(value, list) and len(set(map(str, value))) == 1 else value
