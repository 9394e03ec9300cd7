"""The scope of a training step, and gradients that are used only there."""

import functools

import keras
import tensorflow as tf


class StepScope(keras.StatelessScope):
    """The scope in which a phase of a training step calls its networks."""


def open_scope():
    """The innermost open `keras.StatelessScope`, or None."""
    # Keras has no other public way to it.
    with keras.StatelessScope(initialize_variables=False) as inner:
        return inner.original_scope


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
