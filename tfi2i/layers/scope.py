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
    """The values of all variables of some layers, as the layer that calls these reads them: in mixed precision cast.

    Raises:
        ValueError: not all of them are to be cast alike, because the layers have several dtypes.
    """
    for layer in layers:
        if len(dtypes := {inner.compute_dtype for inner in layer._flatten_layers()}) > 1:
            raise ValueError(f"{layer.name} computes in {' and '.join(sorted(dtypes))}: expected one dtype")
    return [v.value for layer in layers for v in layer.variables]


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
