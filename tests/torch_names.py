"""Arrays under PyTorch's names and in its layout, as a network of ours holds them."""

import numpy as np

# What no network of ours holds: positions, which follow from a map's size, and statistics that nothing reads.
_CONSTANTS = ("x_const", "y_const", "running_mean", "running_var", "num_batches_tracked")


def in_our_order(file, prefix, trainable=False):
    """Arrays `prefix/KEY` of a golden file, [(KEY, array)], kernels as Keras lays them out.

    PyTorch and we list layers in the order of the forward pass, and kernel, bias, running mean, running variance
    within a layer. `trainable` leaves the running statistics out.
    """
    named = [(key.removeprefix(prefix + "/"), file[key]) for key in file.files if key.startswith(prefix + "/")]
    skipped = ("num_batches_tracked", "running_mean", "running_var")[: 3 if trainable else 1]
    return [(k, v.transpose(2, 3, 1, 0) if v.ndim == 4 else v) for k, v in named if not k.endswith(skipped)]


def load(network, file, prefix="weights"):
    """Gives `network`, which must be built, the weights of a golden file."""
    arrays = in_our_order(file, prefix)
    assert [v.shape for _, v in arrays] == [tuple(v.shape) for v in network.variables]
    network.set_weights([v for _, v in arrays])


def recorded(places, file, prefix, fallback=None):
    """Arrays that a golden file has for a network: [(variable, the array as the variable holds it, KEY)].

    Args:
        places: dict of KEY → `tfi2i.conversion.Place`, what the method's `published` says of the network.
        file: holds arrays `prefix/KEY`; each must have its place, but for constants of the published code.
        prefix: see `file`.
        fallback: prefix of the arrays that are not under the first.
    """
    stored = {key.removeprefix(f"{prefix}/") for key in file.files if key.startswith(f"{prefix}/")}
    assert all(key.endswith(_CONSTANTS) for key in stored - places.keys())
    arrays = []
    for key, place in places.items():
        path = f"{prefix if key in stored else fallback}/{key}"
        if path in file.files:
            arrays.append((place.variable, place.ours(file[path]), key))
    return arrays


def load_recorded(network, places, file, prefix, fallback=None):
    """Gives every variable of a built network its array of a golden file, see `recorded`."""
    arrays = recorded(places, file, prefix, fallback)
    assert {id(variable) for variable, _, _ in arrays} == {id(v) for v in network.variables}
    for variable, array, _ in arrays:
        variable.assign(array)


def before_norm(key):
    """Whether KEY, of an instance-norm network, is a bias whose true gradient is 0 because a norm follows.

    All biases but those of a generator's last (model.23 with 6 blocks) and a discriminator's first and last layers.
    """
    return key.endswith(".bias") and key not in ("model.23.bias", "model.0.bias", "model.11.bias")


def differences(ours, theirs):
    """Largest absolute difference over two lists of arrays."""
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in zip(ours, theirs, strict=True))


def watch_gradients(model):
    """dict that each step of the model's optimizers fills: id of variable → gradient."""
    gradients = {}
    for optimizer in map(model.optimizer_of, model.roles):

        def apply(grads, variables, apply=optimizer.apply):
            gradients.update({id(v): np.asarray(g) for g, v in zip(grads, variables)})
            return apply(grads, variables)

        optimizer.apply = apply
    return gradients
