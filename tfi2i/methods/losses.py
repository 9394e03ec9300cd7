"""Losses that several methods share."""

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


def l1(x, y):
    """Mean absolute difference."""
    return ops.mean(ops.abs(x - y))
