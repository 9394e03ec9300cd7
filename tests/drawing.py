"""Networks without random weights, which take most of the time of making large ones."""

import contextlib

import keras
import pytest


@contextlib.contextmanager
def nothing_drawn():
    """While open, weights that would be drawn are zeros: enough where they are replaced, or only their shapes count.

    Also a decorator of tests.
    """

    def zeros(self, shape, dtype=None):
        return keras.ops.zeros(shape, dtype)

    kinds = ("RandomNormal", "TruncatedNormal", "RandomUniform", "VarianceScaling", "Orthogonal")
    with pytest.MonkeyPatch.context() as patch:
        for kind in kinds:
            patch.setattr(getattr(keras.initializers, kind), "__call__", zeros)
        yield
