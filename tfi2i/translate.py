"""`python -m tfi2i.translate`; to import this gives the function `tfi2i.translate`, which a module would hide."""

import sys

import tfi2i

if __name__ == "__main__":
    from tfi2i.commands.translate import run

    run()
else:
    sys.modules[__name__] = tfi2i.translate
    tfi2i.translate.__spec__ = __spec__
