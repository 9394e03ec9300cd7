"""`python -m tfi2i.distill`; to import this gives the function `tfi2i.distill`, which a module would hide."""

import sys

import tfi2i

if __name__ == "__main__":
    from tfi2i.commands.distill import run

    run()
else:
    sys.modules[__name__] = tfi2i.distill
    tfi2i.distill.__spec__ = __spec__
