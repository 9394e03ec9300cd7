"""Keras' files without Keras: HDF5 files of whole models or weights, .keras archives, and checkpoints' names.

Keras makes objects of what a file names, and of a Lambda layer its code. Here a configuration is only read and
compared (`methods.cyclegan.published_keras`), arrays are looked up by name, and nothing is ever made or run.

Formats: HDF5 of Keras 1 and 2, whole (`model_config`, `model_weights`) or weights alone (`layer_names`); archives
.keras of Keras 2.12 and later (config.json, model.weights.h5); files .weights.h5, which have layers by their classes
and do not say in which order; and object-based checkpoints of TensorFlow, whether of `tf.train.Checkpoint`,
`save_weights` or a SavedModel.
"""

import contextlib
import dataclasses
import io
import json
import re
import zipfile

from tfi2i.config import UserError
from tfi2i.conversion import hdf5

# What functional models call their layers in checkpoints, those of Keras 2 and 3; a Sequential's are inside of one. On
# the way there, attributes of models are followed, but not of optimizers.
_LAYER = r"(?:(?<=/)|^)(?:layer_with_weights-\d+|_operations/\d+)"
_FOLLOWED = r"layer_with_weights-\d+|_operations|_functional|\d+|(?!.*optimizer)[A-Za-z]\w*"
# What classes of layers call their arrays, in the order in which an archive numbers them.
_ARRAYS = {
    "Conv2D": {"kernel": True, "bias": "use_bias"},
    "Conv2DTranspose": {"kernel": True, "bias": "use_bias"},
    "BatchNormalization": {"gamma": "scale", "beta": "center", "moving_mean": True, "moving_variance": True},
    "InstanceNormalization": {"gamma": "scale", "beta": "center"},
    "GroupNormalization": {"gamma": "scale", "beta": "center"},
}


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a file holds.

    Attributes:
        layers: list of (path, dict of an array's name → `Tensor`) of the layers that have arrays, in their order in the
            model; a path is a tuple of names from the outermost model to the layer.
        config: the model's configuration, as JSON says it, or None.
    """

    layers: list
    config: dict | None = None


def is_archive(names):
    """Whether a zip archive with these members is a .keras file."""
    return {"config.json", "model.weights.h5"} <= set(names)


def load(file, name):
    """Reads a file of Keras.

    Args:
        file: a seekable binary file, which must stay open as long as arrays are read from it.
        name: what error messages call it.

    Returns:
        `Saved`.

    Raises:
        UserError: not such a file, damaged, or one that holds anything else.
    """
    with readable(name):
        config = None
        if file.read(len(hdf5.SIGNATURE)) != hdf5.SIGNATURE:
            archive = zipfile.ZipFile(file)
            config = _model(json.loads(_member(archive, "config.json")))
            file = io.BytesIO(_member(archive, "model.weights.h5"))
        weights = hdf5.File(file).root
        if config is not None:
            return Saved(_archived(weights["layers"], config, ()), config)
        if "model_config" in weights.attributes:
            config, weights = _model(json.loads(weights.attributes["model_config"])), weights["model_weights"]
        if "layer_names" in weights.attributes:
            return Saved(_named(weights), config)
        if "layers" in weights:
            return Saved(_classed(weights["layers"], ()))
        parts = [n for n in weights.entries if f"{n}/layers" in weights]
        if not parts:
            raise UserError("it is HDF5, but not of Keras: it names no layers")
        return Saved([layer for n in parts for layer in _classed(weights[f"{n}/layers"], (n,))])


def paths_in_checkpoint(graph):
    """Where the arrays of an object-based checkpoint of TensorFlow are in its functional models.

    A checkpoint names an array after the shortest way to it, which can be an optimizer's.

    Args:
        graph: bytes of the checkpoint's `TrackableObjectGraph`.

    Returns:
        dict of name in the checkpoint → path of the array with "/" between its parts.
    """
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    nodes = trackable_object_graph_pb2.TrackableObjectGraph.FromString(graph).nodes
    paths, seen, reached = {}, {0}, [(0, "")]
    for number, path in reached:
        for child in nodes[number].children:
            inside = f"{path}/{child.local_name}".lstrip("/")
            if re.search(f"{_LAYER}$", path):
                for attribute in nodes[child.node_id].attributes:
                    paths.setdefault(attribute.checkpoint_key, inside)
            if child.node_id not in seen and re.fullmatch(_FOLLOWED, child.local_name):
                seen.add(child.node_id)
                reached.append((child.node_id, inside))
    return paths


def of_checkpoint(arrays):
    """The layers of a checkpoint, in their order.

    Args:
        arrays: dict of name, or path where there is one → `Tensor`.

    Returns:
        `Saved`, or None when no array is of a layer of a functional model.
    """
    layers = {}
    for name, tensor in arrays.items():
        layer, _, array = name.rpartition("/")
        first = re.search(_LAYER, layer)
        if re.search(f"{_LAYER}$", layer):
            path = (layer[: first.start()].rstrip("/").rpartition("/")[2] or first[0], layer)
            layers.setdefault(path, {})[array.removeprefix("_")] = tensor
    order = sorted(layers, key=lambda path: [int(n) for n in re.findall(r"\d+(?=/|$)", path[1])])
    return Saved([(path, layers[path]) for path in order]) if layers else None


def class_of(layer):
    """The class that a layer's configuration names, without the package that it was registered in."""
    return str(layer["class_name"]).rpartition(">")[2]


@contextlib.contextmanager
def readable(name):
    """Turns every error of reading a file's content into a `UserError` that begins with `name`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{name}: {error}")
    except Exception as error:  # of many kinds
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{name} cannot be read as a file of Keras, it is damaged or something else: {reason}")


def _member(archive, name):
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
        raise UserError(f"its {name} is compressed or encrypted, which Keras never does")
    return archive.read(info)


def _model(config):
    """A configuration that is of a model, with layers."""
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict) or "layers" not in config["config"]:
        kind = config.get("class_name") if isinstance(config, dict) else type(config).__name__
        raise UserError(f"its configuration is of {kind}, expected a model of layers (Functional or Sequential)")
    return config


def _named(weights):
    """Layers of a file that names layers, and the arrays of each: "conv2d/kernel:0", in a model "conv2d_3/kernel:0"."""
    layers = []
    for name in weights.attributes["layer_names"]:
        group, own = weights[name], {}
        for weight in group.attributes["weight_names"]:
            path, _, array = weight.rpartition("/")
            arrays = own.setdefault(path, {})
            if array.removesuffix(":0") in arrays:
                raise UserError(f"its layer {name} has {array} twice")
            arrays[array.removesuffix(":0")] = group[weight].tensor()
        layers += [((name, path), arrays) for path, arrays in own.items()]
    return layers


def _archived(group, config, path):
    """Layers of an archive: numbered by their class among those of the same model, in the configuration's order."""
    layers, seen = [], {}
    for layer in config["config"]["layers"]:
        kind, own = class_of(layer), layer["config"]
        place = _snake(kind)
        seen[place] = seen.get(place, -1) + 1
        place += f"_{seen[place]}" * bool(seen[place])
        if "layers" in own:
            layers += _archived(group[f"{place}/layers"], layer, (*path, own["name"]))
            continue
        variables = group[f"{place}/vars"] if f"{place}/vars" in group else None
        if variables is None or not variables.entries:
            continue
        names = [n for n, given in _ARRAYS.get(kind, {}).items() if given is True or own.get(given, True)]
        if len(names) != len(variables.entries):
            raise UserError(f"its layer {own['name']} of the class {kind} has {len(variables.entries)} arrays")
        arrays = {n: variables[str(i)].tensor() for i, n in enumerate(names)}
        layers.append(((*path, own["name"]), arrays))
    return layers


def _classed(group, path):
    """Layers of a .weights.h5 file, which has no order but within a class: as a ResNet generator or a discriminator has
    them, transposed convolutions before the last convolution and a norm behind each."""
    classes = {}
    for name in sorted(group.entries, key=lambda n: int(m.group()) if (m := re.search(r"(?<=_)\d+$", n)) else 0):
        variables = group[f"{name}/vars"]
        if variables.entries:
            arrays = [variables[i].tensor() for i in sorted(variables.entries)]
            classes.setdefault(re.sub(r"_\d+$", "", name), []).append(((*path, name), arrays))
    convs, ups = classes.pop("conv2d", []), classes.pop("conv2d_transpose", [])
    norms = classes.pop(next(iter(classes), None), [])
    if classes or not convs:
        raise UserError("it does not say the order of its layers: save the whole model instead (model.save)")
    order = [*convs[:-1], *ups, convs[-1]]
    bare = len(order) - 1 - len(norms)  # A discriminator's first convolution has no norm.
    layers = []
    for i, (place, arrays) in enumerate(order):
        layers.append((place, dict(zip(("kernel", "bias"), arrays))))
        if norms and bare <= i < len(order) - 1:
            place, arrays = norms[i - bare]
            layers.append((place, dict(zip(_ARRAYS["BatchNormalization"], arrays))))
    return layers


def _snake(name):
    return re.sub(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", name).lower()
