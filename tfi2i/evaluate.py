"""`python -m tfi2i.evaluate`; to import this gives the function `tfi2i.evaluate`, which a module would hide."""

import sys

import tfi2i

if __name__ == "__main__":
    from tfi2i.commands.evaluate import run

    run()
else:
    sys.modules[__name__] = tfi2i.evaluate
    tfi2i.evaluate.__spec__ = __spec__
