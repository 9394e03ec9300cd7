"""Blurs the edges of pictures. CartoonGAN's discriminator learns to reject such pictures.

Chen, Lai, Liu, CVPR 2018, section 3.2.1: edges by Canny's detector, dilated, and a Gaussian in these regions. The paper
gives no numbers; these are the ones of its re-implementations, with the arithmetic of OpenCV, pixel by pixel.
"""

import functools

import numpy as np
import tensorflow as tf

# Weights of red, green and blue in a grey picture, in parts of 2¹⁵, and the tangent of 22.5° in such parts.
_GREY, _TANGENT = (9798, 19235, 3735), 13573
# Of |dx| + |dy| by Sobel's 3×3: what belongs to an edge beside a strong pixel, and what is strong.
_WEAK, _STRONG = 100, 200
_DILATED = 5
# What OpenCV takes for 5 pixels where no width of the Gaussian is given.
_GAUSSIAN = (0.0625, 0.25, 0.375, 0.25, 0.0625)


def smooth_edges(pixels):
    """Blurs the edges of pictures: [N, H, W, C] → the same shape and dtype, C 1 or 3 (red, green, blue).

    Args:
        pixels: tensor or array of uint8 or uint16, at least 3 pixels a side.
    """
    with tf.device("CPU"):  # many small operations, and a loop
        return _smooth_edges(tf.convert_to_tensor(pixels))


@functools.partial(tf.function, reduce_retracing=True, autograph=False)
def _smooth_edges(pixels):
    levels = tf.cast(pixels, tf.int32)
    edges = find_edges(levels // 257 if pixels.dtype == tf.uint16 else levels)
    near = tf.nn.max_pool2d(tf.cast(edges, tf.float32), _DILATED, 1, "SAME") > 0
    # Multiples of 2⁻⁸ of 16 bits: exact in float32, so that nothing is rounded before the fraction is cut off.
    blurred, line = tf.cast(levels, tf.float32), np.array(_GAUSSIAN, np.float32)
    for axis in (1, 2):
        around = [[2, 2] if i == axis else [0, 0] for i in range(4)]
        padded = tf.pad(blurred, around, "REFLECT")
        length = tf.shape(blurred)[axis]
        blurred = tf.add_n([w * tf.gather(padded, tf.range(i, i + length), axis=axis) for i, w in enumerate(line)])
    return tf.cast(tf.where(near, tf.cast(blurred, tf.int32), levels), pixels.dtype)


def find_edges(levels):
    """Canny's edges with thresholds of 100 and 200: int32 [N, H, W, C] of 0 to 255 → bool [N, H, W, 1]."""
    grey = levels
    if levels.shape[-1] == 3:
        grey = (tf.reduce_sum(levels * _GREY, axis=-1, keepdims=True) + 2**14) // 2**15
    at = _neighbours(_repeat_border(grey))
    dx = at(-1, 1) + 2 * at(0, 1) + at(1, 1) - at(-1, -1) - 2 * at(0, -1) - at(1, -1)
    dy = at(1, -1) + 2 * at(1, 0) + at(1, 1) - at(-1, -1) - 2 * at(-1, 0) - at(-1, 1)
    size = tf.abs(dx) + tf.abs(dy)
    # Largest across the edge, in the direction of the gradient to the nearest 45°.
    of = _neighbours(tf.pad(size, [[0, 0], [1, 1], [1, 1], [0, 0]]))
    flat = tf.abs(dx) * _TANGENT
    steep = flat + tf.abs(dx) * 2**16  # tan 67.5° = tan 22.5° + 2
    rise = tf.abs(dy) * 2**15
    across = (size > of(0, -1)) & (size >= of(0, 1))
    along = (size > of(-1, 0)) & (size >= of(1, 0))
    falling = (size > of(-1, -1)) & (size > of(1, 1))
    rising = (size > of(-1, 1)) & (size > of(1, -1))
    diagonal = tf.where((dx < 0) != (dy < 0), rising, falling)
    largest = tf.where(rise < flat, across, tf.where(rise > steep, along, diagonal)) & (size > _WEAK)

    def grow(edges, _):
        near = tf.nn.max_pool2d(tf.cast(edges, tf.float32), 3, 1, "SAME") > 0
        grown = near & largest
        return grown, tf.reduce_any(grown != edges)

    # An edge is every weak line that touches a strong pixel.
    edges, _ = tf.while_loop(lambda _, grew: grew, grow, (largest & (size > _STRONG), tf.constant(True)))
    return edges


def _repeat_border(x):
    return tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")


def _neighbours(padded):
    """Function of (rows, columns): a map that was padded by one pixel, moved so that this neighbour is in place."""
    h, w = tf.shape(padded)[1] - 2, tf.shape(padded)[2] - 2
    return lambda row, column: padded[:, 1 + row : 1 + row + h, 1 + column : 1 + column + w]
