"""Unpaired image-to-image translation in TensorFlow and Keras 3, from two folders of images to verified files.

Everything public is here; names are imported on first use, so that `import tfi2i` loads no TensorFlow.
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "CycleGAN": "tfi2i.methods.cyclegan",
    "UNIT": "tfi2i.methods.unit",
    "UGATIT": "tfi2i.methods.ugatit",
    "UVCGAN": "tfi2i.methods.uvcgan2",
    "UVCGAN2": "tfi2i.methods.uvcgan2",
    "load": "tfi2i.training.checkpoints",
    "train": "tfi2i.training.loop",
    "UserError": "tfi2i.config",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'tfi2i' has no attribute '{name}'")


def __dir__():
    return [*globals(), *__all__]
