"""Whether a training step is being computed, and gradients that are ours there."""

import functools

import keras
import tensorflow as tf


def open_scope():
    """The `keras.StatelessScope` in which a layer is called, or None. Every phase of a training step opens one."""
    # Keras has no other public way to it.
    with keras.StatelessScope(initialize_variables=False) as inner:
        return inner.original_scope


def with_gradient(function):
    """`tf.custom_gradient` within a training step; elsewhere the result alone, whose gradient is TensorFlow's.

    A function with a gradient of its own leaves operations in its graph that do nothing but hold the gradient, also in
    SavedModels, which only translate.

    Args:
        function: function of tensors → (tensor, gradient), as `tf.custom_gradient` takes it.

    Returns:
        Function of tensors → tensor.
    """

    @functools.wraps(function)
    def computed(*tensors):
        return tf.custom_gradient(function)(*tensors) if open_scope() else function(*tensors)[0]

    return computed
