"""The scope of a training step, and gradients that are used only there."""

import functools

import keras
import tensorflow as tf


class StepScope(keras.StatelessScope):
    """The scope in which a phase of a training step calls its networks.

    Args:
        state_mapping: list of (variable, its value).
        remat: whether `remat` computes the inner maps of parts of networks again.
    """

    def __init__(self, state_mapping=(), remat=False):
        super().__init__(state_mapping)
        self.remat = remat


def open_scope():
    """The innermost open `keras.StatelessScope`, or None."""
    # Keras has no other public way to it.
    with keras.StatelessScope(initialize_variables=False) as inner:
        return inner.original_scope


def values_of(layers):
    """The values of all variables of some layers, as the layer that calls these reads them, in the open scope.

    In mixed precision weights are cast; state, which is not trainable, is not.

    Raises:
        ValueError: not all weights are to be cast alike, because the layers have several dtypes.
    """
    inner = [layer for outer in layers for layer in outer._flatten_layers()]
    if len(dtypes := {layer.compute_dtype for layer in inner}) > 1:
        names, found = " and ".join(layer.name for layer in layers), " and ".join(sorted(dtypes))
        raise ValueError(f"{names} computes in {found}: expected one dtype")
    scope = open_scope()
    return [v.value if v.trainable else scope.get_current_value(v) for layer in layers for v in layer.variables]


def with_gradient(function):
    """Gives a function its own gradient in a `StepScope`; elsewhere TensorFlow differentiates it.

    `tf.custom_gradient` adds operations that only hold the gradient. A graph that only translates does not need them.

    Args:
        function: function of tensors → (tensor, gradient), as `tf.custom_gradient` takes it.

    Returns:
        Function of tensors → tensor.
    """

    @functools.wraps(function)
    def computed(*tensors):
        return tf.custom_gradient(function)(*tensors) if isinstance(open_scope(), StepScope) else function(*tensors)[0]

    return computed
