"""Encoded images → pixels as their files mean them: what is colour, what is transparency, which way is up.

8 bits go through Pillow, but for TIFF with more bands than it knows. Pillow opens 16-bit colour as 8 bits, so 16-bit
PNG goes through `tf.io` (TensorFlow is imported only then), 16-bit TIFF through tifffile, and PGM and PPM of 16 bits
are read here. Metadata that cannot be read is no reason to refuse the pixels beside it.
"""

import dataclasses
import io

import numpy as np
import tifffile
from PIL import Image, ImageCms, UnidentifiedImageError

# Pillow refuses more than 179 megapixels, against strangers' pictures that unpack to more than there is memory. Here
# users name their own, and --fit=tile is for large ones.
Image.MAX_IMAGE_PIXELS = None
ORIENTATION = 0x0112  # the tag of EXIF and TIFF
_PNG_HEADER = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TIFF_HEADERS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SRGB = ImageCms.createProfile("sRGB")


@dataclasses.dataclass
class Decoded:
    """An image.

    Attributes:
        pixels: [H, W, 1 or 3], uint8 or uint16 as in the file; 8-bit colours are sRGB. Not multiplied by `alpha`.
        alpha: [H, W] of the same dtype, 0 for transparent; None for an image without transparency.
        orientation: as EXIF numbers it, 1 for upright: how `pixels` have to be turned.
        notes: dict of kind of remark → the end of a sentence about what of the file is not in the pixels.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    orientation: int
    notes: dict


def decode(encoded):
    """Decodes the bytes of a file to a `Decoded` that is upright.

    Raises:
        Exception: of nearly any type, for what is no image, broken, truncated, or of a kind that is not supported.
    """
    if encoded.startswith(_PNG_HEADER):
        image = _png(encoded)
    elif encoded.startswith(_TIFF_HEADERS):
        image = _tiff(encoded)
    elif encoded[:2] in (b"P5", b"P6"):
        image = _netpbm(encoded)
    else:
        image = _pillow(encoded)
    return _turned(image)


def of_pil(image):
    """Decodes an opened `PIL.Image.Image`, as `decode` its file; raises as that."""
    return _turned(_opened(image))


def _turned(image):
    """A `Decoded` made upright."""
    image.pixels = _upright(image.pixels, image.orientation)
    if image.alpha is not None:
        image.alpha = _upright(image.alpha, image.orientation)
    image.orientation = 1
    return image


def image_size(file):
    """(height, width) as `decode` would give them, from the header alone of a path or a binary stream."""
    with open(file, "rb") if not hasattr(file, "read") else file as stream:
        tiff = stream.read(4) in _TIFF_HEADERS
        stream.seek(0)
        if tiff:
            with tifffile.TiffFile(stream) as opened:
                page = opened.pages[0]
                height, width, turned = page.imagelength, page.imagewidth, _tiff_orientation(page) >= 5
        else:
            with Image.open(stream) as image:
                (width, height), turned = image.size, _orientation(image) >= 5
    return (width, height) if turned else (height, width)


def one_line(error):
    """What a decoder's exception says, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of an unknown format"
    return " ".join(str(error).split()) or type(error).__name__


def _upright(pixels, orientation):
    turns = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}.get(orientation, 0)
    pixels = np.rot90(pixels, turns)
    return np.ascontiguousarray(pixels[:, ::-1] if orientation in (2, 4, 5, 7) else pixels)


def _orientation(image):
    """EXIF orientation of an opened Pillow image, 1 to 8; 1 where there is none, or junk."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # of many kinds; whatever stands in the block, the pixels can be read
        return 1
    return value if value in range(1, 9) else 1


# ------------------------------------------------------------------------------------- 8 bits, by Pillow


def _pillow(encoded):
    with Image.open(io.BytesIO(encoded)) as image:
        return _opened(image)


def _opened(image):
    count = getattr(image, "n_frames", 1)
    what = "pages" if image.format == "TIFF" else "frames"
    notes = {f"{image.format} {what}": f"holds {count} {what}, of which the first is read"} if count > 1 else {}
    image.load()  # turns a TIFF by itself and takes the tag away
    orientation = _orientation(image)
    if image.mode.startswith("I;16"):
        return Decoded(np.asarray(image).astype(np.uint16)[..., None], None, orientation, notes)  # native byte order
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode '{image.mode}' are not supported: expected 8 or 16 bits per channel")
    transparent = "transparency" in image.info or image.mode in ("LA", "La", "RGBA", "RGBa", "PA")
    grey = image.mode in ("LA", "La") or image.mode in ("1", "L") and not transparent
    profile = None if grey else image.info.get("icc_profile")
    if not (profile and image.mode == "CMYK"):
        image = image.convert(("L" if grey else "RGB") + "A" * transparent)
    if profile:
        image = _in_srgb(image, profile)
    pixels = np.asarray(image)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if transparent:
        return Decoded(pixels[..., :-1], pixels[..., -1], orientation, notes)
    return Decoded(pixels, None, orientation, notes)


def _in_srgb(image, profile):
    """An RGB, RGBA or CMYK image of a colour profile as RGB or RGBA in sRGB, as its viewers show it."""
    plain = image.convert("RGB") if image.mode == "CMYK" else image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in (source.profile.profile_description or "").lower():
            return plain
        space = source.profile.xcolor_space.strip()
        if space != image.mode.removesuffix("A"):
            return plain
        return ImageCms.profileToProfile(image, source, _SRGB, outputMode=plain.mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return plain  # a damaged profile: as before, the pixels are taken for sRGB


# --------------------------------------------------------------------------------------------------- PNG


def _png(encoded):
    if encoded[24:25] == b"\x10":
        return _png_of_16_bits(encoded)
    try:
        return _pillow(encoded)
    except Exception:  # texts, profiles or EXIF may be damaged, or larger than Pillow takes, and the pixels sound
        return _pillow(_pixel_chunks(encoded))


def _png_of_16_bits(encoded):
    import tensorflow as tf

    kinds = [kind for kind, _, _ in _chunks(encoded)]
    orientation, notes = 1, {}
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            orientation = _orientation(image)
    except Exception:  # as above
        pass
    if b"iCCP" in kinds:
        notes["16-bit profile"] = "has a colour profile, which is not applied to 16 bits: it is read as sRGB"
    transparent_colour = b"tRNS" in kinds
    try:
        # With 0, TensorFlow takes the channels of the file, and would leave a transparent colour out.
        pixels = tf.io.decode_png(_pixel_chunks(encoded), channels=4 * transparent_colour, dtype=tf.uint16).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError("image file is broken or truncated") from error
    grey = encoded[25] in (0, 4)
    if transparent_colour and grey:
        pixels = pixels[..., [0, 3]]
    if pixels.shape[-1] in (2, 4):
        return Decoded(pixels[..., :-1], pixels[..., -1], orientation, notes)
    return Decoded(pixels, None, orientation, notes)


def _chunks(encoded):
    """(kind, start, stop) of the chunks of a PNG, whole chunks with length and checksum."""
    start = len(_PNG_HEADER)
    while start + 12 <= len(encoded):
        stop = start + 12 + int.from_bytes(encoded[start : start + 4], "big")
        yield encoded[start + 4 : start + 8], start, stop
        start = stop


def _pixel_chunks(encoded):
    """The PNG without the chunks that its pixels do not need."""
    return _PNG_HEADER + b"".join(encoded[i:j] for kind, i, j in _chunks(encoded) if kind in _PNG_PIXELS)


# -------------------------------------------------------------------------------------------------- TIFF


def _tiff(encoded):
    with tifffile.TiffFile(io.BytesIO(encoded)) as tiff:
        page = tiff.pages[0]
        deep = page.dtype == np.uint16
        if not deep and page.dtype not in (np.uint8, np.bool_):
            raise ValueError(f"TIFF of {page.dtype} pixels is not supported: expected uint8 or uint16")
        kinds = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.RGB)
        unspecified = [kind for kind in page.extrasamples if kind == tifffile.EXTRASAMPLE.UNSPECIFIED]
        if not deep and (not unspecified or page.photometric not in kinds):
            return _pillow(encoded)  # which knows LZW, JPEG, palettes and CMYK
        if page.photometric not in kinds or page.imagedepth != 1:
            raise ValueError(
                f"TIFF of kind {page.photometric.name} in {page.bitspersample} bits is not supported: expected grey or "
                "RGB"
            )
        pixels = _tiff_samples(page)
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            pixels = np.iinfo(pixels.dtype).max - pixels
        orientation, notes = _tiff_orientation(page), {}
        if len(tiff.pages) > 1:
            notes["TIFF pages"] = f"holds {len(tiff.pages)} pages, of which the first is read"
        if 34675 in page.tags and deep:
            notes["16-bit profile"] = "has a colour profile, which is not applied to 16 bits: it is read as sRGB"
        pixels, alpha = _colours_of_bands(pixels, page.extrasamples, notes)
    return Decoded(pixels, alpha, orientation, notes)


def _tiff_orientation(page):
    tag = page.tags.get(ORIENTATION)
    return tag.value if tag and tag.value in range(1, 9) else 1


def _tiff_samples(page):
    """All samples of a page, [H, W, bands]."""
    try:
        pixels = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise ValueError(
            f"{page.bitspersample}-bit TIFF compressed with {page.compression.name} needs another package: pip install "
            "imagecodecs, or save it with deflate or without compression"
        ) from error
    if page.samplesperpixel == 1:
        pixels = pixels[..., None]
    elif page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim != 3:
        raise ValueError(f"TIFF of shape {pixels.shape} is not supported: expected rows, columns and bands")
    return pixels


def _colours_of_bands(samples, extra, notes):
    """What of a page's samples is colour, and what transparency.

    A band is transparency only where the file says so, and premultiplied only where it says that. Of further bands,
    near infrared for one, the file does not say how to show them: the first three are shown, or the first one.

    Args:
        samples: [H, W, bands], uint8 or uint16.
        extra: kinds of the last bands, those beyond what the photometric kind needs; `tifffile.EXTRASAMPLE`.
        notes: gets a remark on bands that are left out.

    Returns:
        (pixels [H, W, 1 or 3], alpha [H, W] or None).
    """
    bands, alpha, first = samples.shape[-1], None, samples.shape[-1] - len(extra)
    transparent = [first + i for i, kind in enumerate(extra) if kind != tifffile.EXTRASAMPLE.UNSPECIFIED]
    shown = [i for i in range(bands) if i not in transparent]
    shown = shown[:3] if len(shown) >= 3 else shown[:1]
    if bands > len(shown) + len(transparent[:1]):
        used = "the first three bands are" if len(shown) == 3 else "the first band is"
        notes[f"{bands} bands"] = f"has {bands} bands: {used} read (tfi2i 0.1 took the last of 4 for transparency)"
    pixels = samples[..., shown]
    if transparent:
        alpha = samples[..., transparent[0]]
        if extra[transparent[0] - first] == tifffile.EXTRASAMPLE.ASSOCALPHA:
            peak = np.iinfo(samples.dtype).max
            share = np.maximum(alpha, 1)[..., None].astype(np.float64) / peak
            pixels = np.rint(np.minimum(pixels / share, peak)).astype(samples.dtype)
    return pixels, alpha


# --------------------------------------------------------------------------------------------- PGM and PPM


def _netpbm(encoded):
    """Binary PGM and PPM; those of up to 8 bits by Pillow, which knows 16 bits of neither colour nor depth."""
    fields, at = [], 2
    while len(fields) < 3:
        while encoded[at : at + 1].isspace() or encoded[at : at + 1] == b"#":
            at = encoded.index(b"\n", at) if encoded[at : at + 1] == b"#" else at + 1
        start = at
        while encoded[at : at + 1].isdigit():
            at += 1
        fields.append(int(encoded[start:at]))
    width, height, peak = fields
    if not 255 < peak < 65536:
        return _pillow(encoded)
    channels = 1 if encoded[:2] == b"P5" else 3
    values = np.frombuffer(encoded, ">u2", height * width * channels, at + 1).reshape(height, width, channels)
    if peak < 65535:
        values = np.rint(np.minimum(values, peak) * (65535 / peak))
    return Decoded(values.astype(np.uint16), None, 1, {})
