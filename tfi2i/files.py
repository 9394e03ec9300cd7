"""Files and folders that appear whole: written under a name that nobody chose, and renamed."""

import contextlib
import errno
import os
import pathlib
import re
import secrets
import tempfile

from tfi2i.config import UserError

# How every file and folder that is not finished yet is called. Short, as names may have 255 bytes and be all used up.
PARTIAL = ".tfi2i-"


@contextlib.contextmanager
def whole(path):
    """A path to write a file to, which takes the place of `path` at the end, or goes where writing fails.

    The folder is made. The file is on the disk when this returns.

    Raises:
        OSError: it cannot be written; what was there before is there still.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}.tmp")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def reason(error):
    """The first line of what an exception of Python or TensorFlow says, without the name of TensorFlow's operation."""
    return re.sub(r"^\{\{.*?\}\}\s*", "", str(error) or type(error).__name__).splitlines()[0]


def user_cache(name):
    """The folder of that name in tfi2i's part of the user's cache folder; it need not be there."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tfi2i" / name


def check_writable(path, flag):
    """Looks whether a file or folder of that path could be made, before there is anything to write.

    Raises:
        UserError: its folder, or the nearest one that is there, may not be written or is a file.
    """
    folder = pathlib.Path(path).resolve().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        seen = "may not be written" if folder.is_dir() else "is a file"
        raise UserError(f"--{flag}={path} cannot be written: {folder} {seen}; give another --{flag}")


def write_text(path, text):
    """Writes a file of UTF-8 text that is whole or not there, see `whole`."""
    with whole(path) as partial:
        # Paths within need not be UTF-8 themselves.
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")


@contextlib.contextmanager
def beside(folder):
    """A new empty folder to write into, near `folder`; at the end it goes, unless `swap` gave it that name.

    It is made beside `folder`; or within it where that is there, empty, and cannot be replaced: a mount point, a folder
    in one that may not be written, the current folder.

    Raises:
        OSError: it cannot be made, or `folder` holds something and cannot be replaced.
    """
    folder = pathlib.Path(folder).resolve()  # a link stays, and "." has a name and a parent
    if is_fixed(folder) and any(folder.iterdir()):
        raise OSError(errno.EBUSY, "it is not empty, and cannot be replaced where it is")
    place = folder if is_fixed(folder) else folder.parent
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=place) as outer:
        # Not the temporary folder itself, which only its owner may read.
        partial = pathlib.Path(outer, "new")
        partial.mkdir()
        yield partial


def is_fixed(folder):
    """Whether a folder is there and cannot be renamed or replaced, only filled."""
    folder = pathlib.Path(folder).resolve()
    if not folder.is_dir():
        return False
    return os.path.ismount(folder) or folder == pathlib.Path.cwd() or not os.access(folder.parent, os.W_OK | os.X_OK)


def foreign(folder, own):
    """The first entry within a folder whose path there the pattern `own` does not match, or None."""
    entries = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))
    return next((e for e in entries if not own.fullmatch(e)), None)


def swap(partial, folder):
    """Gives the folder of `beside` its name; a folder that had it before is deleted with all it holds.

    Raises:
        OSError: it cannot be renamed; what was there before is there still.
    """
    folder, old = pathlib.Path(folder).resolve(), partial.with_name(f"{partial.name}.old")
    if partial.parent.parent == folder:  # made within
        entries = sorted(partial.iterdir())
        try:
            for entry in entries:
                entry.rename(folder / entry.name)
        except OSError:
            for entry in entries:
                if not entry.exists():
                    (folder / entry.name).rename(entry)
            raise
        return
    if folder.exists():
        folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
