"""Edge-smoothed pictures: figures of OpenCV, and what it does at borders."""

import numpy as np
import tensorflow as tf

from tfi2i.data.edges import find_edges, smooth_edges


def rectangle():
    """A picture whose smoothing by OpenCV 5.0 is known: rows 16 to 47, columns 20 to 43 on grey, blue first."""
    bgr = np.full((64, 64, 3), 200, np.uint8)
    bgr[16:48, 20:44] = (40, 90, 160)
    return bgr[..., ::-1]


def test_a_rectangle_by_opencv():
    rgb = rectangle()
    edges = find_edges(tf.constant(rgb[None].astype("int32"))).numpy()[0, ..., 0]
    assert edges.sum() == 108
    assert (tf.nn.max_pool2d(edges[None, ..., None].astype("float32"), 5, 1, "SAME").numpy() > 0).sum() == 556
    smooth = smooth_edges(rgb[None]).numpy()[0]
    assert smooth.dtype == np.uint8 and (smooth != rgb).any(-1).sum() == 448 and smooth.sum() == 2_219_052
    expected = [(200, 200, 200), (190, 193, 197), (150, 165, 187), (90, 124, 172), (50, 96, 162), (40, 90, 160)]
    np.testing.assert_array_equal(smooth[32, 17:23, ::-1], expected)


def test_flat_pictures_and_faint_edges_stay():
    flat = np.full((1, 8, 9, 1), 77, np.uint8)
    np.testing.assert_array_equal(smooth_edges(flat), flat)
    faint = flat.copy()
    faint[:, :, 4:] += 25  # |dx| is 100, which is not more than the threshold
    np.testing.assert_array_equal(smooth_edges(faint), faint)
    faint[:, :, 4:] += 1  # more than that, but nothing strong is near
    np.testing.assert_array_equal(smooth_edges(faint), faint)


def test_weak_lines_belong_to_a_strong_pixel_however_far():
    # The step across column 8 is weak (30 levels) in all rows but the last ones, where it is strong.
    levels = np.zeros((1, 40, 16, 1), np.int32)
    levels[:, :, 8:] = 30
    weak = find_edges(tf.constant(levels)).numpy()
    assert not weak.any()
    levels[:, 36:, 8:] = 90
    edges = find_edges(tf.constant(levels)).numpy()[0, ..., 0]
    assert edges[:35].sum(1).tolist() == [1] * 35


def test_pictures_of_a_batch_do_not_see_each_other_and_16_bits_stay_16():
    one, other = rectangle(), rectangle().transpose(1, 0, 2)[::-1]
    both = smooth_edges(np.stack([one, other])).numpy()
    np.testing.assert_array_equal(both[0], smooth_edges(one[None]).numpy()[0])
    np.testing.assert_array_equal(both[1], smooth_edges(other[None]).numpy()[0])
    deep = smooth_edges(one[None].astype("uint16") * 257).numpy()[0]
    assert deep.dtype == np.uint16
    np.testing.assert_array_equal(deep // 257, both[0])
