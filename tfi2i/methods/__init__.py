"""The methods, one a file."""

import importlib

_CLASSES = {"cyclegan": "CycleGAN", "unit": "UNIT", "ugatit": "UGATIT", "adaptation": "Adaptation"}


def model_class(method):
    """The `Translator` class of a method's name in `config.METHODS`, or of "adaptation"; imports TensorFlow."""
    return getattr(importlib.import_module(f"tfi2i.methods.{method}"), _CLASSES[method])
