"""The methods, one a file; UVCGAN shares that of its successor."""

import importlib

# method: file, class
_CLASSES = {
    "cyclegan": ("cyclegan", "CycleGAN"),
    "unit": ("unit", "UNIT"),
    "ugatit": ("ugatit", "UGATIT"),
    "uvcgan2": ("uvcgan2", "UVCGAN2"),
    "uvcgan": ("uvcgan2", "UVCGAN"),
    "adaptation": ("adaptation", "Adaptation"),
}
_PRETRAINING = {"uvcgan2": ("uvcgan2", "Inpainting"), "uvcgan": ("uvcgan2", "Inpainting")}


def model_class(method, task="translate"):
    """The `Translator` class of a method's name in `config.METHODS`, or of "adaptation"; imports TensorFlow.

    With task "pretrain" the one that teaches a generator of this method to fill in masked patches.
    """
    file, name = (_PRETRAINING if task == "pretrain" else _CLASSES)[method]
    return getattr(importlib.import_module(f"tfi2i.methods.{file}"), name)
