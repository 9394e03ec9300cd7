"""Rotation and colour jitter, as masked-image pre-training augments; every draw is an argument."""

import numpy as np


def rotate(pixels, degrees):
    """Turns an image about its centre, counter-clockwise: nearest pixels, zero outside.

    Args:
        pixels: array [H, W, C].
        degrees: the angle.
    """
    h, w = pixels.shape[:2]
    angle = np.deg2rad(degrees)
    y, x = np.mgrid[:h, :w] - np.array([(h - 1) / 2, (w - 1) / 2])[:, None, None]
    rows = np.rint(np.cos(angle) * y + np.sin(angle) * x + (h - 1) / 2).astype(int)
    columns = np.rint(np.cos(angle) * x - np.sin(angle) * y + (w - 1) / 2).astype(int)
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    turned = pixels[rows.clip(0, h - 1), columns.clip(0, w - 1)]
    return np.where(inside[..., None], turned, np.zeros_like(turned))


def jitter(x, strength, draws):
    """Changes brightness, contrast, saturation and hue, in a random order; a grey image has no saturation and hue.

    Args:
        x: float32 [H, W, C] in [0, 1].
        strength: factors are from 1 - strength to 1 + strength, the hue moves by up to strength turns.
        draws: 5 numbers in [0, 1): one for each change, and one for their order.

    Returns:
        float32 [H, W, C] in [0, 1].
    """
    amount = strength * (2 * np.asarray(draws[:4]) - 1)
    changes = [_brightness, _contrast, _saturation, _hue]
    left, order = list(range(4)), int(draws[4] * 24)
    while left:
        order, i = divmod(order, len(left))
        kind = left.pop(i)
        if kind < 2 or x.shape[-1] == 3:
            x = changes[kind](x, np.float32(amount[kind])).clip(0, 1)
    return x


def _brightness(x, amount):
    return x * (1 + amount)


def _contrast(x, amount):
    return _blend(x, _grey(x).mean(), amount)


def _saturation(x, amount):
    return _blend(x, _grey(x), amount)


def _blend(x, other, amount):
    return x + amount * (x - other)


def _grey(x):
    return x @ np.float32([[0.299], [0.587], [0.114]]) if x.shape[-1] == 3 else x


def _hue(x, amount):
    """Turns the hue of HSV by `amount` of a whole turn."""
    high, low = x.max(-1), x.min(-1)
    spread = np.where(high > low, high - low, 1)
    r, g, b = np.moveaxis(x, -1, 0)
    sector = np.where(high == r, (g - b) / spread, np.where(high == g, 2 + (b - r) / spread, 4 + (r - g) / spread))
    # Each channel falls from `high` to `low` and back as the hue moves by 4 of its 6 sectors.
    distance = (np.float32([5, 3, 1]) + (sector + 6 * amount)[..., None]) % 6
    return high[..., None] - (high - low)[..., None] * np.minimum(distance, 4 - distance).clip(0, 1)
