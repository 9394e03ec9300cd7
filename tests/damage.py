"""Damaged files, for tests of readers."""

import numpy as np


def damaged(whole, count):
    """`count` times the bytes `whole`, the same each time: cut off anywhere, or with one to seven bits flipped.

    Half of the flips are in the first and last kilobyte, where files have their structure.
    """
    draw = np.random.default_rng(0)
    for i in range(count):
        found = bytearray(whole)
        if i % 4 == 0:
            del found[draw.integers(len(found)) :]
        else:
            where = draw.integers(len(found), size=draw.integers(1, 8))
            if i % 2:
                end = min(1000, len(found))
                where = where % end - draw.integers(2) * end
            for position in where:
                found[position] ^= 1 << int(draw.integers(8))
        yield bytes(found)
