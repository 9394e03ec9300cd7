"""Draws the bundled sample `tfi2i/data/emoji` from the OpenMoji SVG files.

    npm pack openmoji@17.0.0 && tar xf openmoji-17.0.0.tgz      # gives the folder package/
    pip install resvg_py==0.5.0
    python tools/make_emoji.py --openmoji=package

Every drawing exists as a colour and as a black-line version that cover each other pixel by pixel.
Domain A is the colour version, domain B the lines. A training drawing goes to one domain only, so
training is unpaired; the drawings of `val` and `test` go to both, so a translation has a truth.
What a training drawing is in the other domain goes to `partnersA` and `partnersB`, for methods that
learn from pairs.

The same input gives the same files: the split depends on hashes of the drawings' names alone.
"""

import hashlib
import io
import json
import pathlib
import re
import shutil
import unicodedata

import numpy as np
import resvg_py
from absl import app, flags, logging
from PIL import Image

_OPENMOJI = flags.DEFINE_string("openmoji", None, "Folder of the npm package openmoji 17.0.0.")
_OUTPUT = flags.DEFINE_string(
    "output",
    str(pathlib.Path(__file__).resolve().parent.parent / "tfi2i" / "data" / "emoji"),
    "Folder to write; its PNG files are replaced.",
)
flags.mark_flag_as_required("openmoji")

VERSION = "17.0.0"
SIZE = 128
SEED = "tfi2i"
VAL, TEST = 64, 176  # pairs

# Unicode's pictorial groups, and OpenMoji's own additions to them. The additions only train, so
# that the reported pairs are emoji everybody knows.
GROUPS = {
    "activities", "animals-nature", "food-drink", "objects", "smileys-emotion", "travel-places",
}  # fmt: skip
EXTRA_SUBGROUPS = GROUPS | {"climate-environment", "gardening", "healthcare"}

# Shares of pixels. `SAME_DRAWING`: hearts in ten colours have one line drawing, which no model can
# tell apart. `SAME_FAMILY`: smileys, moon phases, medals.
MIN_DIFFERENCE = 0.02  # by more than 16 of 255 between colour and lines
SAME_DRAWING = 0.95  # intersection over union of the dark pixels
SAME_FAMILY = 0.5
# A larger family (the smileys, the cats' faces) would fill a good part of `val` or `test`.
MAX_HELD_OUT_FAMILY = 6


def is_pictorial(entry):
    if entry["skintone"]:
        return False
    is_extra = entry["group"].startswith("extras-")
    return entry["subgroups"] in EXTRA_SUBGROUPS if is_extra else entry["group"] in GROUPS


def file_stem(entry):
    """'1F98A-fox': hexcode and annotation in plain ASCII."""
    text = unicodedata.normalize("NFKD", entry["annotation"]).encode("ascii", "ignore").decode()
    return entry["hexcode"] + "-" + re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")


def render(path):
    """uint8 [SIZE, SIZE, 3], the drawing on white."""
    png = resvg_py.svg_to_bytes(svg_string=path.read_text(), width=SIZE, height=SIZE)
    drawing = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    page = Image.new("RGBA", drawing.size, "white")
    page.alpha_composite(drawing)
    return np.asarray(page.convert("RGB"))


def families(overlap):
    """Lists of indices, largest first: groups chained by an overlap of at least SAME_FAMILY."""
    left, found = set(range(len(overlap))), []
    while left:
        family, frontier = [], [min(left)]
        while frontier:
            i = frontier.pop()
            if i in left:
                left.remove(i)
                family.append(i)
                frontier.extend(np.flatnonzero(overlap[i] >= SAME_FAMILY))
        found.append(sorted(family))
    return sorted(found, key=len, reverse=True)


def name_hash(stem):
    return hashlib.sha256(f"{SEED}/{stem}".encode()).hexdigest()


def save(pixels, path):
    """Lossless; as indexed colour where 256 colours suffice, which takes about half the bytes."""
    packed = pixels.astype(np.int32) @ [1 << 16, 1 << 8, 1]
    colours, index = np.unique(packed, return_inverse=True)
    if len(colours) <= 256:
        image = Image.fromarray(index.reshape(packed.shape).astype(np.uint8))
        image.putpalette([c >> shift & 255 for c in colours.tolist() for shift in (16, 8, 0)])
    else:
        image = Image.fromarray(pixels)
    image.save(path, optimize=True)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    source, output = pathlib.Path(_OPENMOJI.value), pathlib.Path(_OUTPUT.value)
    version = json.loads((source / "package.json").read_text())["version"]
    if version != VERSION:
        raise ValueError(f"--openmoji={source} has version {version}, expected {VERSION}")

    entries = json.loads((source / "data" / "openmoji.json").read_text())
    entries = [e for e in entries if is_pictorial(e)]
    colour, line = (
        np.stack([render(source / kind / "svg" / f"{e['hexcode']}.svg") for e in entries])
        for kind in ("color", "black")
    )
    difference = np.abs(colour.astype(np.int16) - line).max(-1)  # [N, H, W]
    # [N, H*W]; no drawing is blank here, but one would have no ink and divide by zero below
    ink = (line[..., 0] < 128).reshape(len(line), -1)
    keep = np.flatnonzero(((difference > 16).mean((1, 2)) >= MIN_DIFFERENCE) & ink.any(1))
    logging.info("%d drawings, %d with lines unlike their colours", len(entries), len(keep))

    dark = ink.astype(np.float32)
    shared, area = dark @ dark.T, dark.sum(1)
    overlap = shared / (area[:, None] + area - shared)
    first = []
    for i in keep:
        if not (overlap[i, first] >= SAME_DRAWING).any():
            first.append(i)
    logging.info("%d after dropping drawings with equal lines", len(first))

    entries, colour, line = [entries[i] for i in first], colour[first], line[first]
    stems = [file_stem(e) for e in entries]
    groups = families(overlap[np.ix_(first, first)])
    groups.sort(key=lambda family: name_hash(stems[family[0]]))
    held_out = {"test": TEST, "val": VAL}  # how many are still wanted
    folders = {f"{split}{domain}": [] for split in ("train", "val", "test") for domain in "AB"}
    trained = 0
    for family in groups:
        may_hold_out = len(family) <= MAX_HELD_OUT_FAMILY and all(entries[i]["group"] in GROUPS for i in family)
        split = next((s for s, n in held_out.items() if n >= len(family) and may_hold_out), None)
        if split:
            held_out[split] -= len(family)
            folders[f"{split}A"] += family
            folders[f"{split}B"] += family
            continue
        # Alternating within a family gives both domains their half of the smileys.
        for i in sorted(family, key=lambda i: name_hash(stems[i])):
            folders["trainA" if trained % 2 == 0 else "trainB"].append(i)
            trained += 1
    folders |= {"partnersA": folders["trainB"], "partnersB": folders["trainA"]}

    for name, members in folders.items():
        folder = output / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for i in members:
            save((colour if name.endswith("A") else line)[i], folder / f"{stems[i]}.png")
        logging.info("%s: %d files", name, len(members))
    shutil.copy(source / "LICENSE.txt", output / "LICENSE.txt")
    total = sum(f.stat().st_size for f in output.rglob("*") if f.is_file())
    logging.info("%.2f MB in %s", total / 1e6, output)


if __name__ == "__main__":
    app.run(main)
