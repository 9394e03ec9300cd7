"""Unpaired image-to-image translation in TensorFlow and Keras 3, from two folders of images to verified files.

Everything public is here; names are imported on first use, so that `import tfi2i` loads no TensorFlow.
"""

import importlib
import sys

from tfi2i.methods import trained_by

if sys.platform == "win32":
    raise ImportError("tfi2i runs on Linux, macOS and WSL2, and this is Python for Windows: install it within WSL2")

__version__ = "0.2.0"

_PUBLIC = {
    **{method.name: method.model_module for method in trained_by("train").values()},
    "load": "tfi2i.checkpoints",
    "train": "tfi2i.training.loop",
    "UserError": "tfi2i.config",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name):
    if name in _PUBLIC:
        if name != "UserError":
            from tfi2i import machine

            machine.check_backend()
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'tfi2i' has no attribute '{name}'")


def __dir__():
    return [*globals(), *__all__]
