"""A method as small as it can be that has one of everything, written as methods are: see `model`.

The table of methods has no line for it; tests put `ROWS` there. "one_way_toy" translates A to B alone.
"""

import pathlib
import sys

from tfi2i.methods import Method

ROWS = {
    "toy": Method("tests.toy", "Toy", published=False),
    "one_way_toy": Method("tests.toy", "OneWayToy", published=False),
}
_ROOT = pathlib.Path(__file__).parents[2]


def command(name):
    """How to start a command such as "tfi2i.train" in a process whose table of methods has `ROWS` too."""
    program = (
        f"import sys; sys.path.insert(0, {str(_ROOT)!r})\n"
        "from tests.toy import ROWS; from tfi2i.methods import METHODS; METHODS |= ROWS\n"
        f"import runpy; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    )
    return [sys.executable, "-c", program]
