"""Rotation and colour jitter by hand."""

import numpy as np
import pytest

from tfi2i.data import augment

MIDDLE = [0.5, 0.5, 0.5, 0.5, 0.0]  # draws that change nothing


def picture(h=5, w=5, c=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, c)).astype(np.uint8)


def test_quarter_turns():
    x = picture()
    np.testing.assert_array_equal(augment.rotate(x, 0), x)
    np.testing.assert_array_equal(augment.rotate(x, 90), np.rot90(x))
    np.testing.assert_array_equal(augment.rotate(x, -90), np.rot90(x, -1))
    np.testing.assert_array_equal(
        augment.rotate(x.astype(np.uint16) * 257, 180), np.rot90(x, 2).astype(np.uint16) * 257
    )


def test_outside_is_black():
    turned = augment.rotate(np.full((9, 9, 1), 200, np.uint8), 45)[..., 0]
    assert turned[0, 0] == turned[8, 8] == turned[0, 8] == 0 and turned[4].min() == 200
    assert set(np.unique(turned)) == {0, 200}


@pytest.mark.parametrize("order", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("c", [1, 3])
def test_no_change_in_the_middle(order, c):
    x = (picture(c=c) / 255).astype(np.float32)
    y = augment.jitter(x, 0.2, [*MIDDLE[:4], order])
    np.testing.assert_allclose(y, x, atol=1e-6)
    assert y.dtype == np.float32


def change(x, kind, draw, strength):
    draws = list(MIDDLE)
    draws[kind] = draw
    return augment.jitter(np.float32(x), strength, draws)


def test_each_change_by_hand():
    x = np.float32([[[0.2, 0.4, 0.6], [0.4, 0.4, 0.4]]])
    np.testing.assert_allclose(change(x, 0, 0.75, 0.4), x * 1.2, rtol=1e-6)
    grey = 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.6
    mean = (grey + 0.4) / 2
    np.testing.assert_allclose(change(x, 1, 0.25, 0.4), mean + 0.8 * (x - mean), rtol=1e-6)
    saturated = x.copy()
    saturated[0, 0] = grey + 1.2 * (x[0, 0] - grey)
    np.testing.assert_allclose(change(x, 2, 0.75, 0.4), saturated, rtol=1e-6)
    # A third of a turn moves red to green to blue; a sixth makes blue-ish 0.2, 0.4, 0.6 magenta-ish.
    np.testing.assert_allclose(change(x, 3, 5 / 6, 0.5)[0], [[0.6, 0.2, 0.4], [0.4] * 3], atol=1e-6)
    np.testing.assert_allclose(change(x, 3, 2 / 3, 0.5)[0], [[0.4, 0.2, 0.6], [0.4] * 3], atol=1e-6)


def test_values_stay_in_range():
    x = (picture(seed=3) / 255).astype(np.float32)
    for seed in range(20):
        y = augment.jitter(x, 0.5, np.random.default_rng(seed).random(5))
        assert y.min() >= 0 and y.max() <= 1
