"""Reading, resizing and writing single images: numpy arrays [H, W, C] of uint8, or uint16 for 16-bit files."""

import collections
import fnmatch
import glob
import io
import itertools
import logging
import os
import pathlib

import numpy as np
import tifffile
from PIL import Image

from tfi2i import files
from tfi2i.config import UserError
from tfi2i.data import decoding, metadata

EXTENSIONS = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
# Pictures too, but not read or written here.
OTHER_PICTURES = (
    ".arw", ".avif", ".cr2", ".cr3", ".dng", ".exr", ".hdr", ".heic", ".heif", ".ico", ".j2k", ".jp2", ".jxl", ".nef",
    ".orf", ".pfm", ".psd", ".raf", ".raw", ".svg", ".tga",
)  # fmt: skip
FILMS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
# What disk stations and other systems keep of their own in users' folders: thumbnails, deleted files.
_SYSTEM_FOLDERS = (
    "@eadir",
    "@recycle",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "__macosx",
    "system volume information",
)
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
# What the formats themselves can hold, as their encoders have it; pixels.
_JPEG = (".jfif", ".jpe", ".jpeg", ".jpg")
_LONGEST_SIDE = {**dict.fromkeys(_JPEG, 65500), ".webp": 16383}
# The keys of `warn_once`.
_said = set()


class BadImage(UserError):
    """An image that cannot be read, with its `path` and the `reason`."""

    def __init__(self, path, reason):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason


def read_image(source, background=(255, 255, 255), keep_alpha=False, name=None):
    """Reads an image as it is meant to be seen: EXIF orientation applied, palette and CMYK as RGB.

    8-bit pictures with a colour profile come out in sRGB. What of a file is not in the pixels (further frames, pages
    and bands) is logged, once for each kind.

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
        image = decoding.decode(encoded)
    except Exception as error:  # Decoders raise nearly anything on broken input: struct.error, SyntaxError, KeyError …
        extension = os.path.splitext(os.fspath(name))[1].lower()
        advice = f"; convert {extension} files to .jpg or .png" if extension in OTHER_PICTURES else ""
        raise BadImage(name, decoding.one_line(error) + advice) from error
    for kind, remark in image.notes.items():
        warn_once(kind, f"{name} {remark}; this is said once")
    if keep_alpha:
        return image.pixels, image.alpha
    return image.pixels if image.alpha is None else over(image.pixels, image.alpha, background)


def read_pil(image, background=(255, 255, 255)):
    """The pixels of a PIL image, [H, W, 1 or 3] of uint8 or uint16, as `read_image` gives those of its file.

    Args:
        image: `PIL.Image.Image`.
        background: R, G, B (0-255) put behind transparent pixels.

    Raises:
        BadImage: pixels of a mode that is not supported, such as 32 bits or floats.
    """
    try:
        decoded = decoding.of_pil(image)
    except Exception as error:  # as in `read_image`
        raise BadImage("the PIL image", decoding.one_line(error)) from error
    return decoded.pixels if decoded.alpha is None else over(decoded.pixels, decoded.alpha, background)


def image_size(source, name=None):
    """(height, width) as `read_image` would return them, from the file's header alone. Raises `BadImage`."""
    name = name or ("<bytes>" if isinstance(source, bytes) else source)
    try:
        return decoding.image_size(io.BytesIO(source) if isinstance(source, bytes) else source)
    except Exception as error:
        raise BadImage(name, decoding.one_line(error)) from error


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


def write_image(path, pixels, alpha=None, about=None):
    """Writes an image in the format of the path's extension; a file of that name appears only when it is whole.

    Args:
        path: where to; its folder is made.
        pixels: [H, W, C] uint8, or uint16 for PNG, TIFF, PGM (grey) and PPM (colour); C is 1 or 3.
        alpha: None or [H, W] of the same dtype, for PNG, TIFF and (8 bits) WebP.
        about: None or `metadata.Metadata`, of which the format's part is written.

    Raises:
        ValueError: an extension, dtype or transparency that cannot be written.
    """
    path = pathlib.Path(path)
    encoded = encode_image(path.suffix, pixels, alpha, about)
    with files.whole(path) as partial:
        partial.write_bytes(encoded)


def encode_image(extension, pixels, alpha=None, about=None):
    """The bytes of the file that `write_image` would write; `extension` is '.png', '.jpg' and so on."""
    extension, about = extension.lower(), about or metadata.Metadata()
    if extension not in EXTENSIONS:
        raise ValueError(f"cannot write images as '{extension}': use one of {', '.join(EXTENSIONS)}")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"cannot write {pixels.dtype} pixels: expected uint8 or uint16")
    deep, tiff = pixels.dtype == np.uint16, extension in (".tif", ".tiff")
    if extension in (".pgm", ".ppm"):
        return _netpbm(extension, pixels, alpha)
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
            **metadata.for_tifffile(about),
        )
    elif deep:
        import tensorflow as tf

        return metadata.in_png(tf.io.encode_png(pixels).numpy(), about)
    else:
        image, format = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), _format(extension)
        image.save(buffer, format=format, quality=95, **metadata.for_pillow(about, format))
    return buffer.getvalue()


def _format(extension):
    """Pillow's name of the format."""
    return Image.registered_extensions()[extension]


def longest_side(extension):
    """Pixels that a side of a picture in a file of this extension can have; infinite where the format has no limit."""
    return _LONGEST_SIDE.get(extension.lower(), np.inf)


def holds(extension, pixels, alpha=None):
    """Whether files of this extension can hold such an image, as `write_image` takes it."""
    extension = extension.lower()
    if extension in (".png", ".tif", ".tiff"):
        return True
    if extension in (".pgm", ".ppm"):
        return alpha is None and (extension == ".ppm" or pixels.shape[-1] == 1)
    if pixels.dtype == np.uint16 or max(pixels.shape[:2]) > longest_side(extension):
        return False
    return extension == ".webp" or alpha is None and extension in (".bmp", *_JPEG)


def _netpbm(extension, pixels, alpha):
    """A binary PGM of grey, or PPM of colours; both hold 16 bits, which Pillow does not write."""
    grey = pixels.shape[-1] == 1
    if extension == ".pgm" and not grey:
        raise ValueError("'.pgm' files hold grey alone: write .ppm or .png")
    if alpha is not None:
        raise ValueError(f"'{extension}' files hold no transparency: write .png, .tif or .webp, or leave alpha out")
    height, width, _ = pixels.shape
    head = b"%s\n%d %d\n%d\n" % (b"P5" if grey else b"P6", width, height, np.iinfo(pixels.dtype).max)
    return head + pixels.astype(">u2" if pixels.dtype == np.uint16 else np.uint8).tobytes()


def find_images(path):
    """The image files that `path` names, sorted. Pictures of other kinds are counted in a warning, once for each path.

    Args:
        path: a file (taken whatever its extension), a folder (searched with its sub-folders, hidden files left out;
            what links reach twice is searched once) or a glob pattern such as 'photos/**/*.jpg'.

    Raises:
        UserError: nothing there, not readable, or no images in it.
    """
    path = os.fspath(path)
    found, others = sort_files(path)
    left = {extension: count for extension, count in others.items() if extension in OTHER_PICTURES}
    kinds = ", ".join(f"{count} {extension}" for extension, count in sorted(left.items()))
    what = "folder" if os.path.isdir(path) else "pattern"
    if not found:
        raise UserError(
            f"the {what} {path} has no images ({sum(others.values())} other files"
            + (f", {kinds}: convert them to .jpg or .png" if left else "")
            + f"): expected {', '.join(e[1:] for e in EXTENSIONS)}"
        )
    if left:
        warn_once((path, kinds), f"{kinds} left out in the {what} {path}: convert them to .jpg or .png")
    return found


def warn_once(key, message):
    """Logs a warning about files, unless one was logged for `key` before."""
    if key not in _said:
        _said.add(key)
        logging.warning("%s", message)


def sort_files(path):
    """What `find_images` finds, which may be nothing, and what it leaves out.

    Returns:
        (sorted list of the paths of images, `collections.Counter` of the other files by extension, such as ".heic").

    Raises:
        UserError: nothing there, or not readable.
    """
    path = os.fspath(path)
    if os.path.isfile(path):
        return [pathlib.Path(path)], collections.Counter()
    if os.path.isdir(path):
        seen = _walk(path)
    elif glob.has_magic(path):
        seen = _matches(path)
    else:
        raise UserError(f"{path} does not exist: expected an image, a folder or a pattern like 'photos/*.jpg'")
    found, others = [], collections.Counter()
    for file in seen:
        hidden = os.path.basename(file).startswith(".")
        if file.lower().endswith(EXTENSIONS) and not hidden:
            found.append(file)
        else:
            others["hidden" if hidden else os.path.splitext(file)[1].lower()] += 1
    return [pathlib.Path(file) for file in sorted(found)], others


def root(path):
    """The folder that names of images are relative to: `path`, or the part of a pattern before its first wildcard."""
    path = pathlib.Path(path)
    if path.is_dir():
        return path
    return pathlib.Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))


def _walk(folder):
    """Paths of the files below a folder, but in hidden and systems' own folders; what links reach twice comes once."""
    visited = set()
    for inner, subfolders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(inner)
        if real in visited:  # links may lead round in circles
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(s for s in subfolders if not s.startswith(".") and s.lower() not in _SYSTEM_FOLDERS)
        yield from (os.path.join(inner, name) for name in names)


def _matches(pattern):
    """Paths of all files that match a glob pattern; `**` is any number of folders, as `_walk` searches them."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        return [f for f in glob.glob(pattern) if os.path.isfile(f)]
    first = parts.index("**")
    root = os.sep.join(parts[:first]) or (os.sep if pattern.startswith(os.sep) else os.curdir)
    folders = [f for f in sorted(glob.glob(root)) if os.path.isdir(f)]
    matching = (
        f for folder in folders for f in _walk(folder) if _fit(os.path.relpath(f, folder).split(os.sep), parts[first:])
    )
    return list(dict.fromkeys(matching))


def _fit(names, parts):
    """Whether a path, split into names, matches the parts of a pattern."""
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_fit(names[i:], parts[1:] or ["*"]) for i in range(len(names)))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _fit(names[1:], parts[1:])


def _refuse(error):
    raise UserError(f"cannot read the folder {error.filename}: {error.strerror}") from error


def _read_bytes(source, name):
    try:
        encoded = source if isinstance(source, bytes) else pathlib.Path(source).read_bytes()
    except OSError as error:
        raise BadImage(name, decoding.one_line(error.strerror or error)) from error
    if not encoded:
        raise BadImage(name, "the file is empty")
    return encoded


def over(pixels, alpha, background):
    """Transparent pixels over a background.

    Args:
        pixels: [H, W, 1 or 3], uint8 or uint16.
        alpha: [H, W] of the same dtype, 0 for transparent.
        background: R, G, B (0-255).

    Returns:
        array like `pixels`.
    """
    top = np.iinfo(pixels.dtype).max
    if pixels.shape[-1] == 1 and len(set(background)) == 1:
        background = background[:1]
    behind = np.array(background, np.float32) * (top / 255)
    share = alpha[..., None].astype(np.float32) / top
    return np.rint(pixels * share + behind * (1 - share)).astype(pixels.dtype)
