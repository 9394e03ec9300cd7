"""What the file of a picture says beside its pixels, and what of that stays true of a translation.

Who took it, when, where and with what stays true; so do its resolution and its place on a map where the size is kept.
Orientation, colour profile and thumbnail do not: translations are upright, sRGB, and other pictures.
"""

import dataclasses
import io
import pathlib
import struct
import zlib

import numpy as np
import tifffile
from PIL import ExifTags, Image

# Description, maker, model, software, date, artist, copyright.
_TEXTS = (270, 271, 272, 305, 306, 315, 33432)
# ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams.
_GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737)
_COLOR_SPACE, _SRGB = 0xA001, 1
# Sizes and offsets within the old file, and what only its maker can read.
_UNTRUE = (0xA002, 0xA003, 0xA005, 0x927C)


@dataclasses.dataclass
class Metadata:
    """What can be written again.

    Attributes:
        exif: EXIF block as Pillow writes it, or b"".
        dpi: (horizontal, vertical) pixels per inch, or None.
        texts: dict of TIFF tag → str.
        georeference: list of tifffile's `extratags`.
    """

    exif: bytes = b""
    dpi: tuple | None = None
    texts: dict = dataclasses.field(default_factory=dict)
    georeference: list = dataclasses.field(default_factory=list)

    def of_other_size(self):
        """What of it is true of a picture with another number of pixels."""
        return dataclasses.replace(self, dpi=None, georeference=[])


def read(path):
    """The `Metadata` of a file; what is damaged is left out."""
    encoded = pathlib.Path(path).read_bytes()
    metadata = Metadata()
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            exif, own = image.getexif(), Image.Exif()
            for tag in _TEXTS:
                if isinstance(exif.get(tag), str):
                    own[tag] = metadata.texts[tag] = exif[tag]
            for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                inner = {tag: value for tag, value in exif.get_ifd(ifd).items() if tag not in _UNTRUE}
                if inner:
                    own.get_ifd(ifd).update(inner | ({_COLOR_SPACE: _SRGB} if _COLOR_SPACE in inner else {}))
                    own[ifd] = own.get_ifd(ifd)
            metadata.exif = own.tobytes() if len(own) else b""
            dpi = image.info.get("dpi")
            if dpi and all(np.isfinite(float(d)) and d > 0 for d in dpi):
                metadata.dpi = tuple(float(d) for d in dpi)
    except Exception:  # of many kinds; a picture does not fail for what stands beside it
        pass
    try:
        if encoded[:2] in (b"II", b"MM"):
            with tifffile.TiffFile(io.BytesIO(encoded)) as tiff:
                tags = [tag for tag in tiff.pages[0].tags if tag.code in _GEOREFERENCE]
                metadata.georeference = [(t.code, t.dtype, t.count, t.value, True) for t in tags]
    except Exception:  # as above
        pass
    return metadata


def in_png(encoded, metadata):
    """A PNG with EXIF and resolution after its head, for encoders that write neither."""
    chunks = []
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif.removeprefix(b"Exif\0\0")))
    if metadata.dpi:
        per_metre = [round(d / 0.0254) for d in metadata.dpi]
        chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    head = 8 + 12 + 13
    inner = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return encoded[:head] + inner + encoded[head:]


def for_pillow(metadata, format):
    """Arguments of `PIL.Image.Image.save`."""
    given = {"exif": metadata.exif} if metadata.exif and format in ("JPEG", "PNG", "WEBP") else {}
    return given | ({"dpi": metadata.dpi} if metadata.dpi and format in ("JPEG", "PNG", "BMP") else {})


def for_tifffile(metadata):
    """Arguments of `tifffile.imwrite`."""
    texts = [(tag, "s", 0, text, True) for tag, text in metadata.texts.items() if tag not in (270, 305, 306)]
    given = {"extratags": [*texts, *metadata.georeference]}
    if 270 in metadata.texts:
        given["description"] = metadata.texts[270]
    if metadata.dpi:
        given |= {"resolution": metadata.dpi, "resolutionunit": "INCH"}
    return given
