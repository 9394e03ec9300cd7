"""Folders that appear whole: written beside, under a name that nobody chose, and renamed."""

import contextlib
import pathlib
import tempfile


@contextlib.contextmanager
def beside(folder):
    """A new empty folder beside `folder`; at the end it goes, unless it was moved away, as by `swap`.

    Raises:
        OSError: it cannot be made.
    """
    folder = pathlib.Path(folder).resolve()  # a link stays, and "." has a name and a parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".tfi2i-{folder.name}-", dir=folder.parent) as place:
        # Not the temporary folder itself, which only its owner may read.
        partial = pathlib.Path(place, "new")
        partial.mkdir()
        yield partial


def foreign(folder, own):
    """The first entry within a folder whose path there the pattern `own` does not match, or None."""
    entries = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))
    return next((e for e in entries if not own.fullmatch(e)), None)


def swap(partial, folder):
    """Gives the folder of `beside` its name; a folder that had it before is deleted with all it holds.

    Raises:
        OSError: it cannot be renamed; what was there before is there still.
    """
    folder, old = pathlib.Path(folder).resolve(), partial.with_name("old")
    if folder.exists():
        folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
