"""What is wrong with the pictures of a data set, before hours are spent on them: the data's half of `tfi2i.doctor`."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import math

import numpy as np

from tfi2i.config import UserError, as_text
from tfi2i.data import images, sources
from tfi2i.progress import Progress

# Pictures look alike whose thumbnails of this side differ by no more than this in any level of 255.
_THUMBNAIL, _ALIKE = 16, 24
# Fewer training pictures than this are learned by heart.
_FEW = 100
# Domains are very unequal where one has this many times the pictures of the other.
_UNEQUAL = 4
# Aspects differ visibly from this ratio on.
_SQUEEZED = 1.15


@dataclasses.dataclass(frozen=True)
class _Picture:
    """What is known of a picture that can be read: `size` is (height, width), `thumbnail` int16 [side * side * 3]."""

    name: str
    size: tuple
    kind: str
    sha256: str
    thumbnail: np.ndarray

    @property
    def aspect(self):
        return self.size[1] / self.size[0]


@dataclasses.dataclass
class _Domain:
    """What is known of a domain.

    Attributes:
        letter: "A" or "B".
        pictures: dict of split → list of `_Picture`.
        unreadable: list of (name, reason).
        left_out: dict of extension, or "empty" → how many files of its folders are no images.
    """

    letter: str
    pictures: dict
    unreadable: list
    left_out: dict

    @property
    def train(self):
        return self.pictures["train"]

    @property
    def held_out(self):
        return [p for split, pictures in self.pictures.items() if split != "train" for p in pictures]


def examine_data(data, active=True):
    """Reads every picture once and says what is there and what is wrong with it.

    Args:
        data: `config.Data`, what is to be trained on and how it is to be prepared.
        active: False shows no progress.

    Returns:
        (facts, advice): two lists of lines of text; `advice` is empty where there is nothing to do.

    Raises:
        UserError: the data cannot be opened, see `sources.open_domains`.
    """
    opened = {"train": data.open_domains("train")}
    for split in ("val", "test"):
        try:
            opened[split] = data.open_domains(split)
        except sources.MissingSplit:
            pass
    domains = [_look(letter, {s: pair[k] for s, pair in opened.items()}, active) for k, letter in enumerate("AB")]
    facts = [*_table(domains), *_unreadable(domains)]
    advice = [line for domain in domains for line in _advice(domain, data)]
    return facts, advice + _advice_on_both(domains)


def _look(letter, by_split, active):
    """The `_Domain` of a dict of split → `sources.Source`."""
    domain = _Domain(letter, {}, [], _left_out({source.folder for source in by_split.values() if source.folder}))
    progress = Progress(sum(map(len, by_split.values())), f"pictures of {letter} looked at", active=active)
    done = 0
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for split, source in by_split.items():
            domain.pictures[split] = []
            for name, seen in zip(source.names, pool.map(lambda i: _read(source, i), range(len(source)))):  # noqa: B023
                if isinstance(seen, _Picture):
                    domain.pictures[split].append(seen)
                else:
                    domain.unreadable.append((name, seen))
                done += 1
                progress.update(done)
    progress.close()
    return domain


def _read(source, i):
    """A `_Picture`, or the reason why it cannot be read."""
    try:
        encoded = source.encoded(i)
        pixels, alpha = images.read_image(encoded, keep_alpha=True, name=source.names[i])
        pixels, alpha = source.part(pixels, i), alpha if alpha is None else source.part(alpha, i)
    except images.BadImage as bad:
        return bad.reason
    except UserError as error:  # no two equal halves
        return str(error)
    except OSError as error:
        return error.strerror
    kind = "grey" if pixels.shape[-1] == 1 else "RGB"
    kind += " with alpha" if alpha is not None else ""
    kind += ", 16 bits" if pixels.dtype == np.uint16 else ""
    small = images.resize(pixels, (_THUMBNAIL, _THUMBNAIL))
    if alpha is not None:
        small = images.over(small, images.resize(alpha[..., None], (_THUMBNAIL, _THUMBNAIL))[..., 0], source.background)
    if small.dtype == np.uint16:
        small = small // 257
    thumbnail = images.to_channels(small, 3).astype(np.int16).ravel()
    return _Picture(source.names[i], pixels.shape[:2], kind, hashlib.sha256(encoded).hexdigest(), thumbnail)


def _left_out(folders):
    """dict of extension, or "empty" → count of the files of some folders or patterns that are not taken for images."""
    counts = collections.Counter()
    for folder in folders:
        found, others = images.sort_files(folder)
        counts += others
        counts["empty"] += sum(not (path.is_file() and path.stat().st_size) for path in found)
    return {extension or "without extension": n for extension, n in sorted(counts.items()) if n}


def _twice(pictures):
    """List of (picture, an earlier one of the same content)."""
    first, twice = {}, []
    for picture in pictures:
        if picture.sha256 in first:
            twice.append((picture, first[picture.sha256]))
        first.setdefault(picture.sha256, picture)
    return twice


def _leaks(domain):
    """(same, alike): lists of (held-out picture, training picture) of the same content, and that look alike."""
    content = {picture.sha256: picture for picture in domain.train}
    same = [(p, content[p.sha256]) for p in domain.held_out if p.sha256 in content]
    alike = []
    if domain.train:
        thumbnails = np.stack([picture.thumbnail for picture in domain.train])
        for picture in domain.held_out:
            difference = np.abs(thumbnails - picture.thumbnail).max(axis=1)
            if picture.sha256 not in content and difference.min() <= _ALIKE:
                alike.append((picture, domain.train[int(difference.argmin())]))
    return same, alike


# -------------------------------------------------------------------------------------------------------- the report


def _table(domains):
    """Lines of a table with a column for each domain."""
    rows = [("", [domain.letter for domain in domains])]
    for split in domains[0].pictures:
        rows.append((f"{split} pictures", [str(len(domain.pictures[split])) for domain in domains]))
    every = [domain.train + domain.held_out for domain in domains]
    for name, pick in (("smallest", 0), ("median", 0.5), ("largest", 1)):
        rows.append((f"{name}, height x width", [_size_at(pictures, pick) for pictures in every]))
    rows.append(("width / height", [_aspects(pictures) for pictures in every]))
    for kind in sorted({picture.kind for pictures in every for picture in pictures}):
        rows.append((kind, [str(sum(p.kind == kind for p in pictures)) for pictures in every]))
    rows.append(("files left out", [_counts(domain.left_out) for domain in domains]))
    rows.append(("unreadable", [str(len(domain.unreadable)) for domain in domains]))
    rows.append(("twice in one split", [str(sum(len(_twice(p)) for p in d.pictures.values())) for d in domains]))
    if len(domains[0].pictures) > 1:
        leaks = [_leaks(domain) for domain in domains]
        rows.append(("held out and trained on", [str(len(same)) for same, _ in leaks]))
        rows.append(("held out, looks trained on", [str(len(alike)) for _, alike in leaks]))
    widths = [max(len(name) for name, _ in rows)] + [max(len(values[k]) for _, values in rows) for k in range(2)]
    return [
        "  ".join([name.ljust(widths[0]), *(v.ljust(w) for v, w in zip(values, widths[1:]))]).rstrip()
        for name, values in rows
    ]


def _size_at(pictures, fraction):
    """The size, as text, at a fraction of the pictures in the order of their areas."""
    sizes = sorted((picture.size for picture in pictures), key=math.prod)
    return "x".join(map(str, sizes[round(fraction * (len(sizes) - 1))])) if sizes else "-"


def _aspects(pictures):
    values = [picture.aspect for picture in pictures]
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "-"


def _counts(counts):
    return ", ".join(f"{n} {extension}" for extension, n in counts.items()) or "0"


def _unreadable(domains):
    listed = [f"  {d.letter} {name}: {reason}" for d in domains for name, reason in d.unreadable]
    more = [f"  and {len(listed) - 10} more"] if len(listed) > 10 else []
    return ["", "Unreadable:", *listed[:10], *more] if listed else []


def _advice(domain, data):
    """Lines of what to do about one domain."""
    letter, train, advice = domain.letter, domain.train, []
    other = {e: n for e, n in domain.left_out.items() if e in images.OTHER_PICTURES}
    if other:
        advice.append(f"Convert the files left out of {letter} ({_counts(other)}) to .jpg or .png.")
    if domain.unreadable:
        stops = len(domain.unreadable) > data.max_bad_files
        stops = f"training stops at more than --max_bad_files={data.max_bad_files}" if stops else "training skips them"
        advice.append(f"Repair or remove the unreadable files of {letter} ({len(domain.unreadable)}): {stops}.")
    twice = [pair for pictures in domain.pictures.values() for pair in _twice(pictures)]
    if twice:
        x, y = twice[0]
        advice.append(f"Remove copies from {letter} ({len(twice)}): {x.name} is {y.name}, for one.")
    same, alike = _leaks(domain)
    if same:
        x, y = same[0]
        advice.append(
            f"Remove what is both trained on and held out from {letter} ({len(same)}): {x.name} is {y.name}, for one. "
            "Measured on such pictures, a model that learned them by heart seems good."
        )
    if alike:
        x, y = alike[0]
        advice.append(
            f"Look at what is held out of {letter} and looks like a training picture ({len(alike)}): {x.name} and "
            f"{y.name}, for one. Pictures of one scene belong on one side."
        )
    if len(train) < _FEW:
        advice.append(
            f"Find more pictures of {letter}: {len(train)} are soon learned by heart, several hundred are usual."
        )
    if train:
        advice += _advice_on_sizes(letter, train, data)
        if getattr(data, f"channels_{letter.lower()}") == 3 and all(p.kind.startswith("grey") for p in train):
            advice.append(f"Give --channels_{letter.lower()}=1: all pictures of {letter} are grey.")
    return advice


def _advice_on_sizes(letter, train, data):
    """Lines of what to do where the pictures do not suit the resizing and the crop."""
    small = sum(p.size[0] < data.crop[0] or p.size[1] < data.crop[1] for p in train) if data.crop else 0
    what = f"{letter} has pictures smaller than --crop={as_text(data.crop or ())} ({small} of {len(train)})"
    if small and (data.resize_mode == "none" or not data.resize):
        yield f"Remove the small pictures, or give a smaller --crop: {what}, and training refuses them."
    elif small:
        yield f"Give a smaller --crop: {what}, which are enlarged and blurred by that."
    if data.resize_mode == "exact" and data.resize:
        median, wanted = np.median([p.aspect for p in train]), data.resize[1] / data.resize[0]
        if max(median / wanted, wanted / median) > _SQUEEZED:
            yield (
                f"Decide whether {letter} may be squeezed: the median width / height is {median:.2f} and becomes "
                f"{wanted:.2f}; --resize_mode=short_side --resize={min(data.resize)} keeps it and crops."
            )


def _advice_on_both(domains):
    """Lines of what to do about both domains together."""
    advice, counts = [], [len(domain.train) for domain in domains]
    if max(counts) >= _UNEQUAL * min(counts):
        small = domains[counts.index(min(counts))].letter
        advice.append(
            f"Balance the domains: {max(counts)} and {min(counts)} training pictures are very unequal, so each of "
            f"{small} is seen {max(counts) / max(1, min(counts)):.0f} times as often and learned by heart."
        )
    if not all(domain.held_out for domain in domains):
        advice.append(
            "Hold some pictures out, which evaluate and export need: in testA and testB, or by --a and --b, which hold "
            "out a tenth."
        )
    return advice
