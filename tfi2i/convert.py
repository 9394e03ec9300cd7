"""`python -m tfi2i.convert`; to import this gives the function `tfi2i.convert`, which a module would hide."""

import sys

import tfi2i

if __name__ == "__main__":
    from tfi2i.commands.convert import run

    run()
else:
    sys.modules[__name__] = tfi2i.convert
    tfi2i.convert.__spec__ = __spec__
