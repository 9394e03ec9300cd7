"""Image-to-image translation in TensorFlow and Keras 3, from two folders of images to verified files.

Everything public is here; names are imported on first use, so that `import tfi2i` loads no TensorFlow.
"""

import importlib
import sys
import typing

from tfi2i.methods import trained_by

if sys.platform == "win32":
    raise ImportError("tfi2i runs on Linux, macOS and WSL2, and this is Python for Windows: install it within WSL2")

__version__ = "0.2.0"

if typing.TYPE_CHECKING:  # what editors see; a test compares it with the names below
    from tfi2i import export
    from tfi2i.api import convert, distill, evaluate, train, translate
    from tfi2i.checkpoints import load
    from tfi2i.config import UserError
    from tfi2i.methods.aggan.model import AGGAN
    from tfi2i.methods.bigan.model import BiGAN
    from tfi2i.methods.cartoongan.model import CartoonGAN
    from tfi2i.methods.cogan.model import CoGAN
    from tfi2i.methods.cyclegan.model import CycleGAN
    from tfi2i.methods.drit.model import DRIT
    from tfi2i.methods.munit.model import MUNIT
    from tfi2i.methods.pix2pix.model import Pix2Pix
    from tfi2i.methods.simgan.model import SimGAN
    from tfi2i.methods.ugatit.model import UGATIT
    from tfi2i.methods.unit.model import UNIT
    from tfi2i.methods.uvcgan2.model import UVCGAN, UVCGAN2

_MODELS = {method.name: method.model_module for method in trained_by("train").values()}
_PUBLIC = {
    **_MODELS,
    **dict.fromkeys(("convert", "distill", "evaluate", "train", "translate"), "tfi2i.api"),
    "export": "tfi2i.export",
    "load": "tfi2i.checkpoints",
    "UserError": "tfi2i.config",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tfi2i' has no attribute '{name}'")
    if name in _MODELS or name == "load":
        from tfi2i import machine

        machine.import_tensorflow()
    module = importlib.import_module(_PUBLIC[name])
    return module if name == "export" else getattr(module, name)


def __dir__():
    return [*globals(), *__all__]
