"""Reading, resizing and writing single images: numpy arrays [H, W, C] of uint8, or uint16 for 16-bit files.

8 bits go through Pillow. Pillow opens 16-bit colour as 8 bits, so 16-bit PNG goes through `tf.io` (TensorFlow is
imported only then) and 16-bit TIFF through tifffile.
"""

import glob
import io
import os
import pathlib

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from tfi2i.config import UserError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
# Pillow refuses more than 179 megapixels, against strangers' pictures that unpack to more than there is memory. Here
# users name their own, and --fit=tile is for large ones.
Image.MAX_IMAGE_PIXELS = None
_ORIENTATION = 0x0112  # the tag of EXIF and TIFF
_PNG_HEADER = b"\x89PNG\r\n\x1a\n"
_TIFF_HEADERS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class BadImage(ValueError):
    """An image that cannot be read, with its `path` and the `reason`."""

    def __init__(self, path, reason):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason


def read_image(source, background=(255, 255, 255), keep_alpha=False, name=None):
    """Reads an image as it is meant to be seen: EXIF orientation applied, palette and CMYK as RGB.

    Of an animated GIF or a many-page TIFF the first image is read.

    Args:
        source: a path, or the bytes of a file.
        background: R, G, B (0-255) put behind transparent pixels.
        keep_alpha: return the transparency instead of applying it.
        name: what errors call an image given as bytes.

    Returns:
        `pixels` [H, W, C], C 1 (grey) or 3, uint8 or uint16 as in the file. With `keep_alpha` the pair `pixels, alpha`,
        where `alpha` is [H, W] of the same dtype, or None for an opaque image.

    Raises:
        BadImage: missing, empty, broken, truncated, or of a kind that is not supported (float pixels, say).
    """
    name = name or ("<bytes>" if isinstance(source, bytes) else source)
    encoded = _read_bytes(source, name)
    try:
        if encoded.startswith(_PNG_HEADER) and encoded[24:25] == b"\x10":
            pixels, orientation = _decode_png16(encoded)
        elif encoded.startswith(_TIFF_HEADERS):
            pixels, orientation = _decode_tiff(encoded)
        else:
            pixels, orientation = _decode_pillow(encoded)
    except Exception as error:  # Decoders raise nearly anything on broken input: struct.error, SyntaxError, KeyError …
        raise BadImage(name, _one_line(error)) from error
    pixels = _orient(pixels, orientation)
    alpha = None
    if pixels.shape[-1] in (2, 4):
        pixels, alpha = pixels[..., :-1], pixels[..., -1]
    if keep_alpha:
        return np.ascontiguousarray(pixels), alpha
    return np.ascontiguousarray(pixels if alpha is None else _composite(pixels, alpha, background))


def image_size(source, name=None):
    """(height, width) as `read_image` would return them, from the file's header alone. Raises `BadImage`."""
    name = name or ("<bytes>" if isinstance(source, bytes) else source)
    encoded = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(encoded) as image:
            width, height = image.size
            turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) >= 5
    except Exception as error:
        raise BadImage(name, _one_line(error)) from error
    return (width, height) if turned else (height, width)


def to_channels(pixels, channels):
    """[H, W, 1 or 3] → [H, W, `channels`]: grey is repeated, colour becomes ITU-R 601 luma exactly as Pillow's 'L'."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    luma = pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((luma + 0x8000) >> 16).astype(pixels.dtype)[..., None]


def resize(pixels, size, filter="bicubic"):
    """Resizes [H, W, C] to `size` = (height, width) with Pillow's antialiased filters.

    uint8 is Pillow's own result, which rounds and clips between its two passes; uint16 is filtered in float32 per
    channel, then rounded and clipped.
    """
    height, width = size
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.dtype == np.uint8:
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return np.asarray(image.resize((width, height), FILTERS[filter])).reshape(height, width, -1)
    return np.clip(np.rint(resize_float(pixels, size, filter)), 0, 65535).astype(np.uint16)


def resize_float(pixels, size, filter="bicubic"):
    """Resizes [H, W, C] in float32, channel by channel, with Pillow's antialiased filters; not rounded, not clipped."""
    height, width = size
    resized = np.empty((height, width, pixels.shape[-1]), np.float32)
    for channel, plane in enumerate(np.moveaxis(pixels, -1, 0)):
        resized[..., channel] = Image.fromarray(plane.astype(np.float32)).resize((width, height), FILTERS[filter])
    return resized


def write_image(path, pixels, alpha=None):
    """Writes an image in the format of the path's extension; a file of that name appears only when it is whole.

    Args:
        path: where to; its folder is made.
        pixels: [H, W, C] uint8, or uint16 for PNG and TIFF; C is 1 or 3.
        alpha: None or [H, W] of the same dtype, for PNG, TIFF and (8 bits) WebP.

    Raises:
        ValueError: an extension, dtype or transparency that cannot be written.
    """
    path = pathlib.Path(path)
    encoded = encode_image(path.suffix, pixels, alpha)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(encoded)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def encode_image(extension, pixels, alpha=None):
    """The bytes of the file that `write_image` would write; `extension` is '.png', '.jpg' and so on."""
    extension = extension.lower()
    if extension not in EXTENSIONS:
        raise ValueError(f"cannot write images as '{extension}': use one of {', '.join(EXTENSIONS)}")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"cannot write {pixels.dtype} pixels: expected uint8 or uint16")
    deep, tiff = pixels.dtype == np.uint16, extension in (".tif", ".tiff")
    if deep and extension != ".png" and not tiff:
        raise ValueError(f"'{extension}' files hold 8 bits per channel, these pixels have 16: write .png or .tif")
    if alpha is not None:
        if extension not in (".png", ".tif", ".tiff", ".webp"):
            raise ValueError(f"'{extension}' files hold no transparency: write .png, .tif or .webp, or leave alpha out")
        pixels = np.concatenate([pixels, alpha[..., None].astype(pixels.dtype)], axis=-1)
    buffer = io.BytesIO()
    if tiff:
        grey = pixels.shape[-1] < 3
        tifffile.imwrite(
            buffer,
            pixels[..., 0] if pixels.shape[-1] == 1 else pixels,
            photometric="minisblack" if grey else "rgb",
            planarconfig=None if pixels.shape[-1] == 1 else "contig",
            extrasamples=None if alpha is None else ["unassalpha"],
            compression="zlib",
            metadata=None,
        )
    elif deep:
        import tensorflow as tf

        return tf.io.encode_png(pixels).numpy()
    else:
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        image.save(buffer, format=Image.registered_extensions()[extension], quality=95)
    return buffer.getvalue()


def find_images(path):
    """The image files that `path` names, sorted.

    Args:
        path: a file (taken whatever its extension), a folder (searched with its sub-folders, hidden files left out;
            what links reach twice is searched once) or a glob pattern such as 'photos/**/*.jpg'.

    Raises:
        UserError: nothing there, not readable, or no images in it.
    """
    path = os.fspath(path)
    if os.path.isfile(path):
        return [pathlib.Path(path)]
    if os.path.isdir(path):
        found, visited = [], set()
        for folder, subfolders, files in os.walk(path, onerror=_refuse, followlinks=True):
            real = os.path.realpath(folder)
            if real in visited:  # links may lead round in circles
                subfolders.clear()
                continue
            visited.add(real)
            subfolders[:] = sorted(s for s in subfolders if not s.startswith("."))
            found += [os.path.join(folder, f) for f in files]
        where = f"folder {path}"
    elif glob.has_magic(path):
        found = [f for f in glob.glob(path, recursive=True) if os.path.isfile(f)]
        where = f"pattern {path}"
    else:
        raise UserError(f"{path} does not exist: expected an image, a folder or a pattern like 'photos/*.jpg'")
    images = [f for f in found if f.lower().endswith(EXTENSIONS) and not os.path.basename(f).startswith(".")]
    if not images:
        raise UserError(
            f"the {where} has no images ({len(found)} other files): expected {', '.join(e[1:] for e in EXTENSIONS)}"
        )
    return [pathlib.Path(f) for f in sorted(images)]


def _refuse(error):
    raise UserError(f"cannot read the folder {error.filename}: {error.strerror}") from error


def _read_bytes(source, name):
    try:
        encoded = source if isinstance(source, bytes) else pathlib.Path(source).read_bytes()
    except OSError as error:
        raise BadImage(name, _one_line(error.strerror or error)) from error
    if not encoded:
        raise BadImage(name, "the file is empty")
    return encoded


def _one_line(error):
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of an unknown format"
    return " ".join(str(error).split()) or type(error).__name__


def _decode_pillow(encoded):
    with Image.open(io.BytesIO(encoded)) as image:
        image.load()  # turns a TIFF by itself and takes the tag away
        orientation = image.getexif().get(_ORIENTATION, 1)
        if image.mode in ("LA", "La"):
            image = image.convert("LA")
        elif "transparency" in image.info or image.mode in ("RGBA", "RGBa", "PA"):
            image = image.convert("RGBA")
        elif image.mode in ("1", "L"):
            image = image.convert("L")
        elif image.mode in ("I", "F"):
            raise ValueError(f"pixels of mode '{image.mode}' are not supported: expected 8 or 16 bits per channel")
        elif not image.mode.startswith("I;16"):
            image = image.convert("RGB")
        pixels = np.asarray(image)
    if pixels.dtype.itemsize == 2:
        pixels = pixels.astype(np.uint16)  # native byte order
    return pixels.reshape(*pixels.shape[:2], -1), orientation


def _decode_png16(encoded):
    import tensorflow as tf

    with Image.open(io.BytesIO(encoded)) as image:
        orientation = image.getexif().get(_ORIENTATION, 1)
    try:
        return tf.io.decode_png(encoded, dtype=tf.uint16).numpy(), orientation
    except tf.errors.InvalidArgumentError as error:
        raise ValueError("image file is broken or truncated") from error


def _decode_tiff(encoded):
    with tifffile.TiffFile(io.BytesIO(encoded)) as tiff:
        page = tiff.pages[0]
        if page.dtype != np.uint16:
            if page.dtype in (np.uint8, np.bool_):
                return _decode_pillow(encoded)  # which knows LZW, JPEG, palettes and CMYK
            raise ValueError(f"TIFF of {page.dtype} pixels is not supported: expected uint8 or uint16")
        kinds = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.RGB)
        if page.photometric not in kinds or page.imagedepth != 1:
            raise ValueError(f"16-bit TIFF of kind {page.photometric.name} is not supported: expected grey, RGB, RGBA")
        try:
            pixels = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise ValueError(
                f"16-bit TIFF compressed with {page.compression.name} needs another package: pip install imagecodecs, "
                "or save it with deflate or without compression"
            ) from error
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        elif page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            pixels = np.moveaxis(pixels, 0, -1)
        if pixels.ndim != 3 or pixels.shape[-1] > 4:
            raise ValueError(f"TIFF of shape {pixels.shape} is not supported: expected 1 to 4 channels")
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            pixels = 65535 - pixels
        tag = page.tags.get(_ORIENTATION)
        return pixels, int(tag.value) if tag else 1


def _orient(pixels, orientation):
    turns = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}.get(orientation, 0)
    pixels = np.rot90(pixels, turns)
    return pixels[:, ::-1] if orientation in (2, 4, 5, 7) else pixels


def _composite(pixels, alpha, background):
    top = np.iinfo(pixels.dtype).max
    if pixels.shape[-1] == 1 and len(set(background)) == 1:
        background = background[:1]
    behind = np.array(background, np.float32) * (top / 255)
    share = alpha[..., None].astype(np.float32) / top
    return np.rint(pixels * share + behind * (1 - share)).astype(pixels.dtype)
