"""Losses that several methods share."""

import tensorflow as tf
from keras import ops


def adversarial_loss(logits, real, kind):
    """How far `logits` are from what the discriminator should say (`real` True or False); mean over all elements.

    Args:
        logits: tensor of any shape.
        real: the answer wanted.
        kind: lsgan: (D - t)², t = 1 or 0. vanilla: cross-entropy with logits. wgan-gp: -D for real, D for fake.

    Returns:
        float32 scalar.
    """
    if kind == "lsgan":
        return ops.mean(ops.square(logits - (1.0 if real else 0.0)))
    if kind == "vanilla":
        return ops.mean(ops.softplus(-logits if real else logits))
    return -ops.mean(logits) if real else ops.mean(logits)


def cross_entropy(logits, labels):
    """Mean over samples of -log softmax(logits)[label]; logits [N, K], `labels` int [N], or one int for all."""
    labels = ops.broadcast_to(labels, (logits.shape[0],))
    return ops.mean(ops.sparse_categorical_crossentropy(labels, logits, from_logits=True))


def l1(x, y):
    """Mean absolute difference."""
    return ops.mean(ops.abs(x - y))


def gradient_penalty(critic, x, center=1.0):
    """mean over samples of (‖∇ₓ critic(x)‖₂ - center)².

    Args:
        critic: callable [N, H, W, C] → any map with N on axis 0.
        x: float32 [N, H, W, C], where the gradient is taken.
        center: the norm that costs nothing: 1 in WGAN-GP (Gulrajani et al., arXiv 1704.00028, equation 3).

    Returns:
        float32 scalar.
    """
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ops.sum(critic(x))
    gradient = ops.reshape(tape.gradient(y, x), (x.shape[0], -1))
    # The tiny summand, inside as in the published code, keeps the square root differentiable at 0.
    norm = ops.sqrt(ops.sum(ops.square(gradient + 1e-16), axis=1))
    return ops.mean(ops.square(norm - center))
