"""Trained translators as verified files: a SavedModel for TF Serving, LiteRT for phones and browsers.

    from tfi2i.export import export
    report = export(tfi2i.load("runs/quickstart"), "exported", direction="a2b", size=(64, 64))

Names are imported on first use, so that `--help` loads no TensorFlow.
"""

import importlib

from tfi2i.config import UserError

# Formats, and the least PSNR in dB against the Keras model that each one is held to: of all images pooled, and of the
# worst one. What quantization does to single images differs by about 10 dB from what it does to all.
FLOORS = {
    "saved_model": (70.0, 60.0),
    "float32": (70.0, 60.0),
    "float16": (60.0, 50.0),
    "dynamic": (40.0, 30.0),
    "int8": (35.0, 25.0),
    "int8_full": (30.0, 20.0),
    "int16x8": (40.0, 30.0),
    "gpu": (60.0, 50.0),
}
# "web" is a page around two of these files.
FORMATS = (*FLOORS, "web")
# What an export of a method that draws pairs from noise is called, beside "a2b" and "b2a".
SAMPLE = "sample"
# Those that an export has where none are named. The others are for special hardware.
USUAL = ("saved_model", "float32", "float16", "dynamic", "int8")

_PUBLIC = {
    "FloorError": "exporter",
    "export": "exporter",
    "convert": "litert",
    "calibrate": "quantization",
    "quantize": "quantization",
    "with_pixels": "litert",
    "write_saved_model": "saved_model",
}
__all__ = sorted(["FLOORS", "FORMATS", *_PUBLIC])


def resolve_floors(given):
    """The floors of all formats where some are given.

    Args:
        given: dict of format → least PSNR in dB: a pair (of all images pooled, of the worst image), or the first of
            them alone. The worst image's is then the format's in `FLOORS`, or 10 dB less than the pooled one if that
            is lower.

    Returns:
        dict of format → (pooled, worst image) in dB.

    Raises:
        UserError: a format that does not exist, or no such floor.
    """
    floors = dict(FLOORS)
    for kind, floor in given.items():
        if kind not in FLOORS:
            raise UserError(f"a floor for {kind!r}: the formats are {', '.join(FLOORS)}")
        try:
            pooled, worst = floor if isinstance(floor, (tuple, list)) else (floor, min(FLOORS[kind][1], floor - 10))
            floors[kind] = float(pooled), float(worst)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"the floor {floor!r} of {kind}: expected decibels, or a pair of them, for all images pooled and for "
                "the worst image"
            ) from error
        if not worst <= pooled:
            raise UserError(
                f"the floors of {kind}, {pooled:g} dB for all images pooled and {worst:g} dB for the worst image: "
                "expected the second to be at most the first, because the worst image is never above all pooled"
            )
    return floors


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tfi2i.export' has no attribute '{name}'")
    from tfi2i import machine

    machine.import_tensorflow()
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__():
    return [*globals(), *__all__]
