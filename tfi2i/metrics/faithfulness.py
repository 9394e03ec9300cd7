"""How close a translation is to a known truth, pixel by pixel: for data with pairs. Pure numpy.

All functions compare two uint8 arrays of equal shape [..., H, W, C] and return float64 [...]: one number per image, a
scalar for a single one. Sums run over the h·w·c values of an image.
"""

import numpy as np

SSIM_WINDOW = 11


def l1(x, y):
    """Mean absolute difference Σ|x - y| / (h·w·c), in levels: 0 (equal) to 255."""
    return np.abs(_difference(x, y)).mean((-3, -2, -1))


def squared_error(x, y):
    """Mean squared difference Σ(x - y)² / (h·w·c), in squared levels: 0 to 65025."""
    return np.square(_difference(x, y)).mean((-3, -2, -1), dtype=np.float64)


def l2(x, y):
    """Length of the difference (Σ(x - y)²)^½ / 255: 0 (equal) to (h·w·c)^½."""
    values = np.prod(np.shape(x)[-3:])
    return np.sqrt(squared_error(x, y) * values) / 255


def psnr(x, y):
    """Peak signal-to-noise ratio 10 log₁₀(255² / mean squared difference), in decibels; infinite for equal images.

    For many images use `decibels(np.mean(squared_error(x, y)))`: a mean of decibels flatters.
    """
    return decibels(squared_error(x, y))


def decibels(squared_error):
    """A mean squared difference in squared levels as a peak signal-to-noise ratio, peak 255."""
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255.0**2 / np.asarray(squared_error, np.float64))


def pixel_accuracy(x, y, within=16):
    """Share of pixels, 0 to 1, where every channel is right: max over c of |x - y| ≤ `within` levels.

    The measure of Liu et al. (UNIT, arXiv 1703.00848, section 4), whose threshold is 16.
    """
    return (np.abs(_difference(x, y)).max(-1) <= within).mean((-2, -1))


def channel_accuracy(x, y, within=16):
    """Share of values, 0 to 1, that are right, each channel of a pixel for itself: |x - y| ≤ `within` levels."""
    return (np.abs(_difference(x, y)) <= within).mean((-3, -2, -1))


def ssim(x, y):
    """Structural similarity, at most 1: Wang et al. (IEEE TIP 13(4), 2004), of each channel, then averaged.

    Gaussian window of 11 pixels and deviation 1.5, wholly within the image; K₁ = 0.01, K₂ = 0.03, range 255.

    Raises:
        ValueError: images smaller than the window.
    """
    _difference(x, y)  # for its checks
    x, y = (np.asarray(image, np.float64) for image in (x, y))
    if min(x.shape[-3:-1]) < SSIM_WINDOW:
        raise ValueError(f"images of shape {x.shape}: SSIM needs {SSIM_WINDOW} pixels a side")
    mean_x, mean_y = _windows(x), _windows(y)
    variance_x, variance_y = _windows(x * x) - mean_x**2, _windows(y * y) - mean_y**2
    covariance = _windows(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    brightness = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (brightness * structure).mean((-3, -2, -1))


def _windows(x):
    """Weighted means over all windows: [..., H, W, C] → [..., H - 10, W - 10, C]."""
    weights = np.exp(-np.square(np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2) / (2 * 1.5**2))
    weights /= weights.sum()
    height, width = (side - SSIM_WINDOW + 1 for side in x.shape[-3:-1])
    x = sum(w * x[..., i : i + height, :, :] for i, w in enumerate(weights))
    return sum(w * x[..., i : i + width, :] for i, w in enumerate(weights))


def _difference(x, y):
    x, y = np.asarray(x), np.asarray(y)
    if x.dtype != np.uint8 or y.dtype != np.uint8:
        raise ValueError(f"images of dtype {x.dtype} and {y.dtype}: expected uint8 (16 bits: divide by 257, round)")
    if x.shape != y.shape or x.ndim < 3:
        raise ValueError(f"images of shape {x.shape} and {y.shape}: expected two equal shapes [..., H, W, C]")
    return x.astype(np.int32) - y
