"""Where images come from: folders, the bundled sample, TFDS, or the rows of a CSV file, as two lists A and B."""

import csv
import dataclasses
import hashlib
import io
import itertools
import mmap
import os
import pathlib
import re
import tempfile
import unicodedata

import numpy as np

from tfi2i.config import IMAGES, UserError, local_path
from tfi2i.data import images
from tfi2i.metrics.pairs import find_pairs, without_side

SAMPLE = pathlib.Path(__file__).parent / "emoji"
_SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_PATH_COLUMNS = ("path", "file", "filename", "image", "image_id")


class MissingSplit(UserError):
    """The data has no images for validation or test, which a caller may do without."""


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """The images of one domain and split, readable in any order and from any thread.

    Attributes:
        names: unique names, in a fixed order.
        items: per image a path, or a tuple (start, stop), a range of `store`.
        sizes: per image the bytes of its file.
        description: one line for the log.
        channels: 1 or 3, what `read` returns.
        background: R, G, B (0-255) behind transparent pixels.
        store: the encoded images, where they are not files.
        half: where each picture shows both domains side by side, which half is this one's: 0 left, 1 right; else None.
        halved: how many pictures, from the first one on, `half` cuts; None: all.
        named: whether images of one name in two domains belong together; names of TFDS are numbers.
        folder: the folder or pattern that was searched for them, or None where they are listed elsewhere.
    """

    names: list
    items: list
    sizes: list
    description: str
    channels: int = 3
    background: tuple = (255, 255, 255)
    store: mmap.mmap | None = None
    half: int | None = None
    halved: int | None = None
    named: bool = True
    folder: str | None = None

    def __len__(self):
        return len(self.names)

    def read(self, i):
        """Image `i` as [H, W, channels], uint8 or uint16. Raises `images.BadImage`."""
        pixels = images.read_image(self._item(i), self.background, name=self.names[i])
        return images.to_channels(self.part(pixels, i), self.channels)

    def part(self, pixels, i):
        """What of the picture of image `i`, [H, W, …], is this domain's: all of it, or a half, see `half`."""
        if not self._is_half(i):
            return pixels
        width = self._width_of_half(i, pixels.shape[1])
        return pixels[:, self.half * width : (self.half + 1) * width]

    def image_size(self, i):
        """(height, width) of image `i` from its header. Raises `images.BadImage`; `UserError`: no two equal halves."""
        height, width = images.image_size(self._item(i), name=self.names[i])
        return height, self._width_of_half(i, width) if self._is_half(i) else width

    def _is_half(self, i):
        return self.half is not None and (self.halved is None or i < self.halved)

    def _width_of_half(self, i, width):
        if width % 2:
            raise UserError(
                f"{self.names[i]} is {width} pixels wide, an odd number, so it does not show two pictures of one size "
                "side by side: bring it to an even width, or remove it"
            )
        return width // 2

    def chosen(self, positions):
        """The source of the images at these positions alone."""
        names, items, sizes = ([values[i] for i in positions] for values in (self.names, self.items, self.sizes))
        return dataclasses.replace(self, names=names, items=items, sizes=sizes)

    @property
    def fingerprint(self):
        """SHA-256, in hexadecimal digits, of the names and file sizes in order."""
        lines = (f"{name}\t{size}\n" for name, size in zip(self.names, self.sizes))
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()

    def encoded(self, i):
        """The bytes of the file of image `i`. Raises `OSError`."""
        item = self._item(i)
        return item if isinstance(item, bytes) else pathlib.Path(item).read_bytes()

    def content_hash(self, positions):
        """SHA-256, in hexadecimal digits, of the files' bytes of some images, in order; of a missing one, its name."""
        total = hashlib.sha256()
        for i in positions:
            try:
                encoded = self.encoded(i)
            except OSError:
                encoded = self.names[i].encode(errors="surrogateescape")
            total.update(hashlib.sha256(encoded).digest())
        if self.half is not None:
            total.update(bytes([self.half]))
        return total.hexdigest()

    def _item(self, i):
        item = self.items[i]
        return self.store[item[0] : item[1]] if isinstance(item, tuple) else item


def open_domains(data, split="train", paired=False):
    """Opens domains A and B of one split.

    Args:
        data: `config.Data`.
        split: 'train', 'val' or 'test'.
        paired: leave out what has no partner, so that image i of A belongs to image i of B.

    Returns:
        The pair of `Source` A and B, exchanged where `data.swap_domains` says so.

    Raises:
        MissingSplit: one domain or both have nothing for 'val' or 'test'.
        UserError: folder missing, unreadable or without images, one domain missing or with a single training image,
            TFDS data not prepared, a rule that is wrong or matches nothing, or pictures without a partner.
    """
    pair = _open(data, split, "AB")
    if paired:
        pair = _partners(*pair, data)
    for letter, source in zip("AB", pair):
        if split == "train" and len(source) < 2:
            rest, hint = "", ""
            if data.holdout:
                rest, hint = f" beside those that --holdout={data.holdout} keeps", ", or give --holdout=0"
            raise UserError(
                f"domain {letter} has only one image ({source.names[0]}){rest}: at least 2 are needed to learn "
                f"from{hint}"
            )
    return pair


def _partners(a, b, data):
    """Two domains without the pictures that have no partner in the other one, in one order."""
    if a.half is not None:
        return a, b
    pairs = find_pairs(a, b)
    if not pairs:
        why = "" if a.named and b.named else ": images of TFDS have numbers for names"
        raise UserError(
            f"this method learns from pairs, and none of the {len(a)} pictures of A ({a.names[0]}, …) has the name of "
            f"one of the {len(b)} of B ({b.names[0]}, …){why}. Give partners one name, or give pictures that show both "
            "side by side, see --ab"
        )
    of_a, of_b = (set(positions) for positions in zip(*pairs))
    alone = [f"A {name}" for i, name in enumerate(a.names) if i not in of_a]
    alone += [f"B {name}" for i, name in enumerate(b.names) if i not in of_b]
    if alone:
        listed = ", ".join(alone[:10]) + (f", and {len(alone) - 10} more" if len(alone) > 10 else "")
        if len(alone) > data.max_bad_files:
            raise UserError(
                f"{len(alone)} pictures have no partner of their name in the other domain, more than "
                f"--max_bad_files={data.max_bad_files}: {listed}. Rename or remove them, or raise the limit"
            )
        images.warn_once(listed, f"{len(alone)} pictures without a partner are left out: {listed}")
    return a.chosen([i for i, _ in pairs]), b.chosen([j for _, j in pairs])


def open_domain(data, letter, split):
    """Opens domain 'A' or 'B' alone: of the other one nothing is needed but names, to split --a and --b.

    The rest as `open_domains`.
    """
    return _open(data, split, letter)[0]


def held_out(data):
    """The paths of the images that --holdout keeps for the test, those of A first; none for other forms of data."""
    letters = "BA" if data.swap_domains else "AB"
    given = [letter for letter in letters if data.ab or getattr(data, letter.lower())]
    if not given:
        return []
    try:
        paths = [os.path.abspath(path) for source in _open_own(data, "test", given) for path in source.items]
        return [*dict.fromkeys(paths)]
    except MissingSplit:
        return []


def check_found(data):
    """Refuses what a run was trained on where it is not on this machine.

    Args:
        data: `config.Data` of a run, not of the command line.

    Raises:
        UserError: the run names no images, or they are not there.
    """
    named = [n for n in IMAGES if getattr(data, n)]
    if not named:
        raise UserError("the run says nothing of its images: give --data=FOLDER with testA and testB")
    paths = {n: getattr(data, n) for n in named if n != "tfds" and getattr(data, n) != "emoji"}
    missing = [f"--{n}={path}" for n, path in paths.items() if not os.path.exists(images.root(path))]
    if missing:
        fix = "--a=FOLDER and --b=FOLDER" if data.a else "--data=FOLDER"
        raise UserError(f"trained on {' and '.join(missing)}, not found here: give {fix}")


def check_named(**paths):
    """Refuses flags that name folders which are not there, before a model is loaded to look at them.

    Args:
        **paths: name of a flag → its value, or None.

    Raises:
        UserError: one names nothing that is there, or a URL.
    """
    for flag, path in paths.items():
        if path and path != "emoji" and not os.path.exists(images.root(local_path(path, flag))):
            raise UserError(f"--{flag}={path} does not exist: expected a folder of pictures")


def has_layout(folder):
    """Whether a folder has one of the layouts of --data, or is the sample; else its images are of one domain."""
    if folder == "emoji" or not os.path.isdir(folder):
        return True  # what is wrong is said where it is opened
    folder = pathlib.Path(folder)
    return _has_domains(folder) or any(_folder_of_both(folder, _subfolders(folder), split) for split in _SPLITS)


def _has_domains(folder):
    """Whether a folder holds trainA, testB and the like."""
    subfolders = _subfolders(folder)
    return any(_domain_folders(folder, subfolders, split, letter) for split in _SPLITS for letter in "AB")


def open_folder(folder):
    """All images of a folder and its sub-folders as one domain of 3 channels. Raises `UserError`: no such folder."""
    if not os.path.isdir(folder):
        seen = "is a file" if os.path.exists(folder) else "does not exist"
        raise UserError(f"{folder} {seen}: expected a folder of images, not a pattern or a single image")
    paths = images.find_images(folder)
    return _file_source([p.relative_to(folder).as_posix() for p in paths], paths, str(folder))


def joined(source, more):
    """`source`, followed by the images of a source of files, which are whole where the first ones are halves."""
    return dataclasses.replace(
        source,
        halved=len(source),
        names=source.names + [f"more/{name}" for name in more.names],
        items=source.items + more.items,
        sizes=source.sizes + more.sizes,
        description=f"{source.description} and {more.description}",
    )


def _open(data, split, letters):
    """The sources of the domains `letters`, "A", "B" or "AB", after `data.swap_domains`."""
    stored = letters.translate(str.maketrans("AB", "BA")) if data.swap_domains else letters
    if data.tfds:
        domains = _open_tfds(data, split, stored)
    elif data.csv:
        domains = _open_csv(data, split, stored)
    elif data.data:
        domains = _open_folders(data, split, stored)
    elif data.a or data.b or data.ab:
        domains = _open_own(data, split, stored)
    else:
        raise UserError(
            "nothing to read: give --a=FOLDER and --b=FOLDER, --data=FOLDER, --data=emoji, --ab=FOLDER, --tfds=NAME or "
            "--csv=FILE"
        )
    channels = {"A": data.channels_a, "B": data.channels_b}
    return tuple(
        dataclasses.replace(source, channels=channels[letter], background=data.background)
        for letter, source in zip(letters, domains)
    )


# ---------------------------------------------------------------------------------------------- folders


def _open_folders(data, split, letters):
    root = SAMPLE if data.data == "emoji" else pathlib.Path(data.data)
    if not root.is_dir():
        seen = "is a file" if root.exists() else "does not exist"
        raise UserError(f"--data={data.data} {seen}: expected a folder with trainA and trainB, or 'emoji'")
    subfolders = _subfolders(root)
    both = None if _has_domains(root) else _folder_of_both(root, subfolders, split)
    if both:
        return _halves(root, both, letters)
    candidates = {letter: _domain_folders(root, subfolders, split, letter) for letter in letters}
    holds = f"it holds {', '.join(subfolders) or 'no folders'}"
    known = any(s.lower() in sum(_SPLITS.values(), ()) for s in subfolders)
    known = known or all(_domain_folders(root, subfolders, "train", letter) for letter in "AB")
    if len(subfolders) == 2 and not known:
        holds += f"; two folders of any names are given as --a={root / subfolders[0]} --b={root / subfolders[1]}"
    if split != "train" and not any(candidates.values()):
        names = ", ".join(f"{split}{letter}" for letter in letters)
        raise MissingSplit(f"--data={data.data} has no {split} images ({names}): {holds}")
    domains = []
    for letter, folders in candidates.items():
        if not folders:
            kind = UserError if split == "train" else MissingSplit
            raise kind(
                f"--data={data.data} has no folder for domain {letter}: expected {split}{letter}, {split}_{letter} or "
                f"{split}/{letter}; {holds}"
            )
        if len(folders) > 1:
            both = " and ".join(str(f.relative_to(root)) for f in folders)
            raise UserError(f"--data={data.data}: {both} both look like {split}{letter}: rename or remove one")
        try:
            paths = _find_images(folders[0])
        except UserError as error:
            if split == "train":
                raise
            raise MissingSplit(str(error)) from error  # an empty folder is as good as none
        names = [p.relative_to(root).as_posix() for p in paths]
        if data.paired and split == "train" and root == SAMPLE:
            # What the other domain's training pictures are in this one, under the same names.
            paths = paths + _find_images(root / f"partners{letter}")
            names = [p.name for p in paths]
        domains.append(_file_source(names, paths, str(folders[0]), str(folders[0])))
    return domains


def _folder_of_both(root, subfolders, split):
    """The folder of a split that itself holds pictures, of both domains side by side as pix2pix has them; or None."""
    found = [root / s for s in subfolders if s.lower() in _SPLITS[split]]
    held = [f for f in found if any(e.name.lower().endswith(images.EXTENSIONS) for e in os.scandir(f))]
    if len(held) > 1:
        raise UserError(f"--data={root}: {' and '.join(f.name for f in held)} are both for {split}: rename one")
    return held[0] if held else None


def _halves(root, folder, letters):
    """The sources of the domains `letters`, whose pictures are the halves of those of one folder."""
    paths = _find_images(folder)
    names = [p.relative_to(root).as_posix() for p in paths]
    return [_half_source(letter, names, paths, str(folder)) for letter in letters]


def _half_source(letter, names, paths, folder):
    half = "AB".index(letter)
    source = _file_source(names, paths, f"{folder}, their {('left', 'right')[half]} halves", folder)
    return dataclasses.replace(source, half=half)


def _find_images(path):
    """`images.find_images` but for empty files and links to nothing, which are said."""
    found = images.find_images(path)
    paths = [p for p in found if p.is_file() and p.stat().st_size]
    if len(paths) < len(found):
        first = min({*found} - {*paths})
        what = f"{len(found) - len(paths)} left out in {path}, empty or a link to nothing: {first}"
        if not paths:
            raise UserError(f"{path} has no images: {what}")
        images.warn_once(what, f"{what}, for one")
    return paths


def _subfolders(root):
    try:
        return sorted(e.name for e in os.scandir(root) if e.is_dir())
    except OSError as error:
        raise UserError(f"cannot read the folder {root}: {error.strerror}") from error


def _domain_folders(root, subfolders, split, letter):
    """The folders that are called trainA, train_A, TRAIN-a, train/A or train/HORSE_A, for split train and letter A."""
    splits = "|".join(_SPLITS[split])
    flat = re.compile(rf"({splits})[-_ ]?{letter}", re.IGNORECASE)
    nested = re.compile(rf"(.+[-_ ])?{letter}", re.IGNORECASE)
    matching = [root / s for s in subfolders if flat.fullmatch(s)]
    for outer in subfolders:
        if outer.lower() in _SPLITS[split]:
            matching += [root / outer / s for s in _subfolders(root / outer) if nested.fullmatch(s)]
    return matching


# ---------------------------------------------------------------------------------- a folder for each domain


def _open_own(data, split, letters):
    given = {"A": data.a or data.ab, "B": data.b or data.ab}
    flags = {letter: f"--{'ab' if data.ab else letter.lower()}={path}" for letter, path in given.items()}
    for letter in letters:
        if not given[letter] and split == "train":
            raise UserError(
                f"there are no images of domain {letter}: give --a=FOLDER and --b=FOLDER, one for each domain"
            )
        if not given[letter]:
            raise MissingSplit(
                f"{data.a or data.b} has images of one domain, and those of {letter} are needed too; "
                "--metrics=l1,il2 of tfi2i evaluate needs none"
            )
    found = {letter: _own_images(flags[letter], path) for letter, path in given.items() if path}
    of_a, of_b = ({os.path.realpath(path) for path in found.get(letter, {}).values()} for letter in "AB")
    if of_a & of_b and not data.ab:
        twice = min(of_a & of_b)
        raise UserError(f"--a={data.a} and --b={data.b} both hold {twice}: give two folders that share no pictures")
    held_out = split_by_name([[*names] for names in found.values()], data.holdout)
    domains = []
    for letter in letters:
        chosen = {n: path for n, path in found[letter].items() if (split == "test") == (_key(n) in held_out)}
        flag = flags[letter]
        if split == "val":
            raise MissingSplit(f"{flag} has no val images: those that --holdout keeps are the test images")
        if not chosen and split == "test":
            raise MissingSplit(f"{flag} has no test images: --holdout={data.holdout} keeps none")
        if not chosen:
            raise UserError(f"{flag}: --holdout={data.holdout} leaves no image to learn from: lower it")
        if data.ab:
            domains.append(_half_source(letter, [*chosen], [*chosen.values()], data.ab))
        else:
            domains.append(_file_source([*chosen], [*chosen.values()], given[letter], given[letter]))
    return domains


def _own_images(flag, path):
    """dict of name below the folder → path, of the images that a flag such as --a=PATH names."""
    if os.path.isfile(path):
        raise UserError(f"{flag} is a file: expected a folder of pictures, or a pattern in quotes")
    root = images.root(path)
    if not os.path.exists(root):
        raise UserError(f"{flag} does not exist: expected a folder of pictures, or a pattern in quotes")
    if os.path.isdir(path):
        if _has_domains(pathlib.Path(path)):
            raise UserError(f"{flag} holds folders such as trainA and trainB: give --data={path}")
        splits = [s for s in _subfolders(root) if s.lower() in sum(_SPLITS.values(), ())]
        if splits and flag.startswith("--ab="):
            raise UserError(f"{flag} holds the folders {', '.join(splits)}: give --data={path}, which keeps them apart")
        if splits:
            raise UserError(
                f"{flag} holds the folders {', '.join(splits)}, and --holdout would mix them: give one of them "
                f"({flag}/{splits[0]}), or arrange all as --data wants it: {splits[0]}/A, {splits[0]}/B"
            )
    return {p.relative_to(root).as_posix(): p for p in _find_images(path)}


def _key(name):
    """What decides on which side of the split an image falls: images that may be a pair have one key.

    Letters with accents have two spellings, and a name may end in its domain, see `tfi2i.metrics.pairs`.
    """
    return without_side(os.path.splitext(unicodedata.normalize("NFC", name))[0])


def split_by_name(domains, share):
    """Which images are held out, by a hash of their names alone: no other image changes its side when some are added.

    The exception are domains of a few images: where `share` is between 0 and 1, the image with the least hash is held
    out and the one with the greatest is not.

    Args:
        domains: list of lists of names; images of equal names fall on one side.
        share: about which part is held out, 0 to 1.

    Returns:
        set of the `_key`s of the images that are held out.
    """
    held_out, kept = set(), set()
    for names in domains:
        place = {key: _place(key) for key in map(_key, names)}
        chosen = {key for key in place if place[key] < share}
        if 0 < share < 1:
            chosen |= {min(place, key=place.get)}
            kept |= {max(place, key=place.get)}
        held_out |= chosen
    return held_out - kept


def _place(key):
    """A number from 0 to 1 that is drawn by a name."""
    return int.from_bytes(hashlib.sha256(key.encode(errors="surrogateescape")).digest()[:8], "big") / 2**64


def _file_source(names, paths, where, folder=None):
    sizes = [p.stat().st_size if p.is_file() else -1 for p in paths]
    return Source(names, paths, sizes, f"{len(names)} images in {where}", folder=folder)


# --------------------------------------------------------------------------- one labelled set: rules


def _rule(text, columns, label_name=lambda column, value: None):
    """Turns 'Male', '!Male', 'label=3' or 'label=cat|dog' into a function of one row's attributes.

    A bare name is true for 1, true and yes; CelebA's -1 is false.

    Args:
        text: the rule, from --domain_a or --domain_b.
        columns: names of the attributes there are.
        label_name: (column, value) → the name of a numbered label, or None.
    """
    column, equals, wanted = text.removeprefix("!").partition("=")
    negated, wanted = text.startswith("!"), wanted.split("|")
    if column not in columns:
        raise UserError(f"the rule '{text}' names '{column}', which is not there: expected one of {', '.join(columns)}")

    def holds(row):
        value = row[column]
        if equals:
            return (str(value) in wanted or label_name(column, value) in wanted) != negated
        return (str(value).strip().lower() in ("1", "1.0", "true", "yes")) != negated

    return holds


def _apply_rules(data, letters, rows, columns, label_name=lambda column, value: None):
    """The positions of the rows of each of the domains `letters`."""
    flags = [f"domain_{letter.lower()}" for letter in letters]
    texts = [getattr(data, flag) for flag in flags]
    rules = [_rule(text, columns, label_name) for text in texts]
    chosen = [[i for i, row in enumerate(rows) if holds(row)] for holds in rules]
    for flag, text, positions in zip(flags, texts, chosen):
        if not positions:
            column = text.removeprefix("!").partition("=")[0]
            seen = sorted({str(label_name(column, row[column]) or row[column]) for row in rows})
            raise UserError(
                f"--{flag}='{text}' matches none of {len(rows)} images: values of {column} are {', '.join(seen[:20])}"
            )
    return chosen


# ------------------------------------------------------------------------------------------------- CSV


def _open_csv(data, split, letters):
    path = pathlib.Path(data.csv)
    header, rows = _read_csv(path)
    if len(header) < 2 or not rows:
        raise UserError(f"--csv={path}: expected a header, a path column and at least one attribute, and rows")
    if header[0].lower().endswith(images.EXTENSIONS):
        raise UserError(
            f"--csv={path}: the first line, {','.join(header)[:60]}, names an image: put a header above it, such as "
            f"{','.join(['path', 'label', 'a', 'b', 'c', 'd'][: len(header)])}"
        )
    short = next((n for n, row in enumerate(rows, 1) if None in row or None in row.values()), None)
    if short:
        raise UserError(f"--csv={path}: row {short} does not have the header's {len(header)} columns")
    path_column = next((c for c in header if c.lower() in _PATH_COLUMNS), header[0])
    if "split" in header:
        rows = [row for row in rows if row["split"].strip().lower() in _SPLITS[split]]
    elif split != "train":
        rows = []
    if not rows:
        kind = UserError if split == "train" else MissingSplit
        raise kind(f"--csv={path} has no rows for {split}: expected them marked in a column 'split'")
    folder = pathlib.Path(data.csv_folder) if data.csv_folder else path.parent
    attributes = [c for c in header if c not in (path_column, "split")]
    return [
        _csv_source(path, folder, [rows[i][path_column] for i in chosen])
        for chosen in _apply_rules(data, letters, rows, attributes)
    ]


def _read_csv(path):
    """The header and the rows, as dicts, of a table with a line for each image.

    Columns are separated by commas, semicolons or tabs, whichever the header has most of. A first line that is a number
    is CelebA's count of images: then columns are separated by spaces, and the header leaves out the path column.
    """
    try:
        encoded = path.read_bytes()
        if encoded.startswith(b"PK"):
            raise UserError(f"--csv={path} is a spreadsheet, not a text: save it as CSV")
        utf_16 = encoded.startswith((b"\xff\xfe", b"\xfe\xff"))  # as Excel's "Unicode text"
        text = encoded.decode("utf-16" if utf_16 else "utf-8-sig")
        first, _, rest = text.partition("\n")
        if first.strip().isdigit():
            header, *table = [line.split() for line in rest.split("\n") if line.strip()] or [[]]
            if table and len(table[0]) > len(header):
                header = ["path", *header]
            return header, [dict(itertools.zip_longest(header, values)) for values in table]
        separator = max(",;\t", key=first.count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        return reader.fieldnames or [], list(reader)
    except FileNotFoundError:
        raise UserError(f"--csv={path} does not exist: expected a table with a line for each picture") from None
    except UnicodeDecodeError as error:
        raise UserError(f"--csv={path} is not UTF-8 ({error.reason}): save it as CSV in UTF-8") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"cannot read --csv={path}: {error}") from error


def _csv_source(path, folder, names):
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise UserError(f"--csv={path} lists {twice} twice in one domain: every image needs one row")
    source = _file_source(names, [folder / n for n in names], f"{folder} listed in {path}")
    if max(source.sizes) < 0:
        raise UserError(
            f"none of the files in --csv={path} exists, {source.items[0]} for one: "
            "give the folder that the paths are relative to as --csv_folder"
        )
    return source


# ------------------------------------------------------------------------------------------------ TFDS


def _open_tfds(data, split, letters):
    import tensorflow_datasets as tfds

    builder = prepared_builder(tfds, data)
    feature, key = _image_feature(tfds, builder)
    available = builder.info.splits
    if data.domain_a:
        name = next((n for n in _SPLITS[split] if n in available), None)
        names = dict.fromkeys(letters, name)
    else:
        pattern = rf"({'|'.join(_SPLITS[split])})_?"
        names = {
            letter: next((n for n in available if re.fullmatch(pattern + letter, n, re.IGNORECASE)), None)
            for letter in letters
        }
    wanted = split if data.domain_a else " and ".join(f"{split}{letter}" for letter in letters)
    if not all(names.values()):
        kind = UserError if split == "train" else MissingSplit
        hint = "" if data.domain_a else "; split one labelled set with --domain_a and --domain_b"
        raise kind(f"--tfds={data.tfds} has no split {wanted}: it has {', '.join(available)}{hint}")
    where = f"TFDS {builder.info.full_name}"
    if not data.domain_a:
        spools = [_spool(tfds, builder, name, key) for name in names.values()]
        chosen = [range(len(ids)) for ids, *_ in spools]
    else:
        ids, spans, store, rows = _spool(tfds, builder, name, key)
        spools = [(ids, spans, store, rows)] * len(letters)
        label_name = _label_names(tfds, feature)
        chosen = _apply_rules(data, letters, rows, list(rows[0]) if rows else [], label_name)
    return [
        Source(
            names=[ids[i] for i in positions],
            items=[spans[i] for i in positions],
            sizes=[spans[i][1] - spans[i][0] for i in positions],
            description=f"{len(positions)} images in {where}, split {name}",
            store=store,
            named=False,
        )
        for (ids, spans, store, _), positions, name in zip(spools, chosen, names.values())
    ]


def prepared_builder(tfds, data):
    """The builder of data that is already on disk, or is downloaded now where `data.download` allows it."""
    command = f"add --download, or run: tfds build {data.tfds}"
    try:
        # A namespace ('huggingface:x') is looked up on the network.
        if tfds.core.naming.parse_builder_name_kwargs(data.tfds)[0].namespace and not data.download:
            raise UserError(f"--tfds={data.tfds} would be looked up on the network: {command}")
        builder = tfds.builder(data.tfds, data_dir=data.tfds_dir)
    except UserError:
        raise
    except Exception as error:  # unknown names and versions come as several types, with long texts
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"--tfds={data.tfds} cannot be opened: {first}") from error
    if not builder.is_prepared():
        if not data.download:
            raise UserError(
                f"--tfds={data.tfds} is not prepared in {builder.data_path}: {command} "
                "(or name the folder that has it as --tfds_dir)"
            )
        builder.download_and_prepare()
    return builder


def _image_feature(tfds, builder):
    features = builder.info.features
    named = {k: f for k, f in features.items() if isinstance(f, tfds.features.Image)}
    if not named:
        raise UserError(f"TFDS {builder.info.full_name} has no image feature: it has {', '.join(features)}")
    return features, "image" if "image" in named else next(iter(named))


def _spool(tfds, builder, split, key):
    """Copies one split's encoded images into one temporary file, so that any of them can be read at any time.

    Exact, as the images stay encoded. The limit is the temporary folder's free space: as much as the split's size.

    Returns:
        names, (start, stop) per image, the mapped file, and per image a dict of its other features, flattened to
        names like 'attributes/Eyeglasses'.
    """
    decoders = {key: tfds.decode.SkipDecoding()}
    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
        examples = builder.as_data_source(split, decoders=decoders)
    else:
        # The id names an example by its shard and position there.
        config = tfds.ReadConfig(add_tfds_id=True)
        examples = tfds.as_numpy(builder.as_dataset(split=split, decoders=decoders, read_config=config))
    names, spans, rows = [], [], []
    with tempfile.TemporaryFile(prefix="tfi2i-") as file:
        for i, example in enumerate(examples):
            encoded = _bytes(example.pop(key))
            name = _bytes(example.pop("tfds_id", b"")).decode() or f"{split}/{i}"
            names.append(name)
            spans.append((file.tell(), file.tell() + len(encoded)))
            rows.append(dict(_flatten(example)))
            file.write(encoded)
        file.flush()
        if not names:
            raise UserError(f"TFDS {builder.info.full_name} has no images in split {split}")
        store = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return names, spans, store, rows


def _bytes(value):
    return value if isinstance(value, bytes) else np.asarray(value).item()


def _flatten(example, prefix=""):
    for name, value in example.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}/")
        elif np.ndim(value) == 0:
            value = np.asarray(value).item()
            yield prefix + name, value.decode(errors="replace") if isinstance(value, bytes) else value


def _label_names(tfds, features):
    def name(column, value):
        feature = features
        for part in column.split("/"):
            feature = feature[part]
        return feature.int2str(value) if isinstance(feature, tfds.features.ClassLabel) else None

    return name
