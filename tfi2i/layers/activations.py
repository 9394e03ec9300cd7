"""Activations that keep one map for their gradient, where TensorFlow's keep two or more."""

import math

import tensorflow as tf
from keras import ops

from tfi2i.layers.scope import with_gradient


def leaky_relu(x, slope):
    """x where it is positive, elsewhere `slope` x.

    The gradient looks at the sign of the result, which the next layer needs too. TensorFlow's looks at that of `x`, and
    keeps a second map.

    Args:
        x: float tensor of any shape.
        slope: float above 0.

    Returns:
        Tensor of the shape and dtype of `x`.
    """

    @with_gradient
    def activate(x):
        y = tf.nn.leaky_relu(x, slope)
        return y, lambda upstream: tf.raw_ops.LeakyReluGrad(gradients=upstream, features=y, alpha=slope)

    return activate(x)


def gelu(x):
    """x Φ(x) with the distribution function Φ of N(0, 1), computed in float32.

    The gradient keeps `x` alone and computes Φ again. TensorFlow's keeps five maps, in float32.

    Args:
        x: float tensor of any shape.

    Returns:
        Tensor of the shape and dtype of `x`.

    Source: Hendrycks and Gimpel, arXiv 1606.08415, equation 1.
    """

    @with_gradient
    def activate(x):
        def gradient(upstream):
            # No earlier than that: what is computed again would be in memory from the start.
            with tf.control_dependencies([upstream]):
                z = tf.cast(x, tf.float32)
            slope = 0.5 * tf.math.erfc(-math.sqrt(0.5) * z) + z * tf.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
            return tf.cast(tf.cast(upstream, tf.float32) * slope, x.dtype)

        return tf.cast(ops.gelu(tf.cast(x, tf.float32), approximate=False), x.dtype), gradient

    return activate(x)
