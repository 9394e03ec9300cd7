"""Activations that keep one map for their gradient in a training step, where TensorFlow's keep more."""

import math

import tensorflow as tf
from keras import ops

from tfi2i.layers.scope import with_gradient


def leaky_relu(x, negative_slope):
    """x where it is positive, elsewhere `negative_slope` x.

    The gradient looks at the sign of the result, which the next layer needs too. TensorFlow's looks at that of `x`, and
    keeps a second map.

    Args:
        x: float tensor of any shape, not a `keras.Input`.
        negative_slope: float, 0 or more.

    Returns:
        Tensor of the shape and dtype of `x`.

    Raises:
        ValueError: `negative_slope` is below 0, so that the result does not tell the sign of `x`.
    """
    if negative_slope < 0:
        raise ValueError(f"negative_slope={negative_slope}: expected 0 or more")

    @with_gradient
    def activate(x):
        y = tf.nn.leaky_relu(x, negative_slope)
        return y, lambda upstream: tf.raw_ops.LeakyReluGrad(gradients=upstream, features=y, alpha=negative_slope)

    return activate(x)


def gelu(x):
    """x Φ(x) with the distribution function Φ of N(0, 1), computed in float32.

    The gradient keeps `x` alone and computes Φ again. TensorFlow's keeps several maps in float32.

    Args:
        x: float tensor of any shape, not a `keras.Input`.

    Returns:
        Tensor of the shape and dtype of `x`.

    Source: Hendrycks and Gimpel, arXiv 1606.08415, equation 1.
    """

    @with_gradient
    def activate(x):
        def gradient(upstream):
            # Wait for `upstream`. Otherwise TensorFlow computes this in the forward pass and keeps it in memory.
            with tf.control_dependencies([upstream]):
                z = tf.cast(x, tf.float32)
            slope = 0.5 * tf.math.erfc(-math.sqrt(0.5) * z) + z * tf.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
            return tf.cast(tf.cast(upstream, tf.float32) * slope, x.dtype)

        return tf.cast(ops.gelu(tf.cast(x, tf.float32), approximate=False), x.dtype), gradient

    return activate(x)
