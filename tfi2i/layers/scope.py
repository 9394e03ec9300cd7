"""The scope of a training step, and gradients that are used only there."""

import functools

import keras
import tensorflow as tf


class StepScope(keras.StatelessScope):
    """The scope in which a phase of a training step calls its networks.

    Args:
        state_mapping: list of (variable, its value).
        remat: whether `remat` computes the inner maps of blocks again.
    """

    def __init__(self, state_mapping=(), remat=False):
        super().__init__(state_mapping)
        self.remat = remat


def open_scope():
    """The innermost open `keras.StatelessScope`, or None."""
    # Keras has no other public way to it.
    with keras.StatelessScope(initialize_variables=False) as inner:
        return inner.original_scope


def values_of(block):
    """The values of a block's variables, as the layer that calls it reads them: in mixed precision cast.

    Raises:
        ValueError: the block has layers of several dtypes, so that not all of its variables are to be cast alike.
    """
    if len(dtypes := {layer.compute_dtype for layer in block._flatten_layers()}) > 1:
        raise ValueError(f"{block.name} computes in {' and '.join(sorted(dtypes))}: expected one dtype")
    return [v.value for v in block.variables]


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
