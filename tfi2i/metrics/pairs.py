"""Pairs: which images of two domains show the same thing. Their names tell."""

import os
import pathlib
import re
import unicodedata

from tfi2i.config import UserError
from tfi2i.data import images


def find_pairs(source, target):
    """The pairs of two `sources.Source`, as positions (i, j), in the order of `source`; see `match_names`.

    Images of TFDS are never pairs: their names are numbers.
    """
    if not (len(source) and len(target) and source.named and target.named):
        return []
    return match_names(source.names, target.names)


def match_names(names_a, names_b):
    """Positions (i, j) of images of the same name, in the order of `names_a`.

    Not compared: the folder that holds all of a domain, an image's extension, and, for images without a partner of
    exactly their name, a final _A or _B.

    Args:
        names_a, names_b: lists of paths, one of each image, none empty.

    Raises:
        UserError: two images of a domain have the name of one of the other.
    """
    stems_a, stems_b = _stems(names_a), _stems(names_b)
    exact = _join(stems_a, stems_b, names_a, names_b)
    for i, j in exact:
        del stems_a[i], stems_b[j]
    rest_a, rest_b = ({i: without_side(stem) for i, stem in stems.items()} for stems in (stems_a, stems_b))
    return sorted(exact + _join(rest_a, rest_b, names_a, names_b))


def without_side(stem):
    """A name without the _A or _B at its end that says the domain: 'street_A', 'street-B' and 'street B' → 'street'."""
    return re.sub(r"[-_ ][AB]$", "", stem)


def _stems(names):
    """dict of position → path below the folder that holds all, without an image's extension.

    Letters with accents have two spellings; macOS writes the one and Linux the other. Here they are the same.
    """
    paths = [pathlib.PurePosixPath(unicodedata.normalize("NFC", name)) for name in names]
    root = os.path.commonpath([path.parent for path in paths])
    paths = [path.relative_to(root) for path in paths]
    return {i: str(p.with_suffix("") if p.suffix.lower() in images.EXTENSIONS else p) for i, p in enumerate(paths)}


def _join(stems_a, stems_b, names_a, names_b):
    """The pairs of positions whose stems are equal."""
    positions = [{}, {}]
    for of_domain, stems in zip(positions, (stems_a, stems_b)):
        for i, stem in stems.items():
            of_domain.setdefault(stem, []).append(i)
    common = [stem for stem in positions[0] if stem in positions[1]]
    for stem in common:
        for of_domain, names in zip(positions, (names_a, names_b)):
            if len(of_domain[stem]) > 1:
                first, second = (names[i] for i in of_domain[stem][:2])
                raise UserError(
                    f"{first} and {second} are both called '{stem}' where pairs are sought: rename one, or measure "
                    "with --nopairs"
                )
    return [(positions[0][stem][0], positions[1][stem][0]) for stem in common]
