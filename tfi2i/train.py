"""`python -m tfi2i.train`; to import this gives the function `tfi2i.train`, which a module would hide."""

import sys

import tfi2i

if __name__ == "__main__":
    from tfi2i.commands.train import run

    run()
else:
    sys.modules[__name__] = tfi2i.train
    tfi2i.train.__spec__ = __spec__
