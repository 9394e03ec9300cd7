"""How a test says which of its parameters `make test` leaves out."""

import pytest


def thorough(*values, **named):
    """`pytest.param` of values that are left to `make test-all`."""
    return pytest.param(*values, marks=pytest.mark.thorough, **named)
