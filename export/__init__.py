"""Trained translators as verified files: a SavedModel for TF Serving, LiteRT for phones and browsers.

    from tfi2i.export import export
    report = export(tfi2i.load("runs/quickstart"), "exported", direction="a2b", size=(64, 64))

Names are imported on first use, so that `--help` loads no TensorFlow.
"""

import importlib

# Formats, and the least PSNR in dB against the Keras model that each one is held to.
FLOORS = {"saved_model": 70.0, "float32": 70.0, "float16": 50.0, "dynamic": 40.0, "int8": 35.0}

_PUBLIC = {
    "FloorError": "exporter",
    "export": "exporter",
    "convert": "litert",
    "quantize": "litert",
    "with_uint8_pixels": "litert",
    "write_saved_model": "saved_model",
}
__all__ = sorted(["FLOORS", *_PUBLIC])


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tfi2i.export' has no attribute '{name}'")
    from tfi2i import machine

    machine.import_tensorflow()
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__():
    return [*globals(), *__all__]
