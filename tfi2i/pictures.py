"""Pages of pictures: rows of images under column titles; plots of a few points.

Plots are matplotlib's. Pages are laid out here, because a plotting library resamples pictures, and here every pixel of
a picture stays one pixel, or a square of equal ones. So is the frontier, which stands above such a page.
"""

import contextlib
import itertools
import logging
import math
import pathlib
import warnings

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MARGIN, _TITLE, _MIN_SIDE = 6, 22, 96
# Distinct for colour-blind readers too: Okabe and Ito (2008).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
_MARKERS = "osD^vPX"


def font(points):
    """The letters of pages: matplotlib's DejaVu Sans.

    Pillow's own lack accents, Greek and Cyrillic, which names of files may have. Neither has Chinese or Japanese.
    """
    with _quiet("matplotlib"):
        import matplotlib
    return ImageFont.truetype(pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), points)


def overlay(pixels, heat):
    """Attention over images: half the picture, half its heat from blue (0) over green to red (1).

    Args:
        pixels: uint8 or uint16 [N, H, W, 1 or 3].
        heat: float [N, H, W, 1] from 0 to 1.

    Returns:
        uint8 [N, H, W, 3].
    """
    colour = np.clip(1.5 - np.abs(4 * heat - np.array([3, 2, 1])), 0, 1)
    return np.uint8(127.5 * (pixels / np.iinfo(pixels.dtype).max + colour) + 0.5)


def page(columns, titles, labels=None):
    """Lays out images as a table.

    Args:
        columns: list of uint8 arrays [N, H, W, 1 or 3], one a column; sizes may differ between columns.
        titles: text above each column.
        labels: text under each row, or None.

    Returns:
        uint8 [H', W', 3], white background. Images under 96 pixels are enlarged by a whole factor.
    """
    columns = [np.repeat(c, 3, axis=-1) if c.shape[-1] == 1 else c for c in columns]
    side = min(min(c.shape[1:3]) for c in columns)
    factor = max(1, -(-_MIN_SIDE // side))
    columns = [c.repeat(factor, 1).repeat(factor, 2) for c in columns]
    under = 16 if labels else 0
    height = max(c.shape[1] for c in columns) + _MARGIN + under
    widths = [c.shape[2] + _MARGIN for c in columns]
    rows = max(len(c) for c in columns)
    sheet = Image.new("RGB", (sum(widths) + _MARGIN, _TITLE + rows * height + _MARGIN), "white")
    draw, letters = ImageDraw.Draw(sheet), font(12)
    x = _MARGIN
    for column, title, width in zip(columns, titles, widths):
        draw.text((x + (width - _MARGIN) / 2, _TITLE / 2), title, fill="black", font=letters, anchor="mm")
        for i, picture in enumerate(column):
            y = _TITLE + i * height
            sheet.paste(Image.fromarray(picture), (x, y))
            draw.rectangle((x - 1, y - 1, x + picture.shape[1], y + picture.shape[0]), outline=(220, 220, 220))
        x += width
    for i, label in enumerate(labels or []):
        draw.text((_MARGIN, _TITLE + (i + 1) * height - under - 4), label, fill=(90, 90, 90), font=letters)
    return np.asarray(sheet)


def grid(images, titles):
    """Lays out pictures of one size, each under its title, in as many columns as rows or one more.

    Args:
        images: list of [H, W, 1 or 3] of one size, uint8 or uint16.
        titles: list of texts.

    Returns:
        uint8 [H', W', 3].
    """
    across = math.ceil(math.sqrt(len(images)))
    columns = [np.rint(x / 257).astype(np.uint8) if x.dtype == np.uint16 else x for x in images]
    starts = range(0, len(images), across)
    return stack([page([x[None] for x in columns[i : i + across]], titles[i : i + across]) for i in starts])


def stack(images):
    """Images under each other, with white beside the narrower ones.

    Args:
        images: list of uint8 [H, W, 3].

    Returns:
        uint8 [H', W', 3].
    """
    width = max(image.shape[1] for image in images)
    return np.concatenate([np.pad(i, ((0, 0), (0, width - i.shape[1]), (0, 0)), constant_values=255) for i in images])


def frontier(points, x_label, y_label, y_most):
    """Draws what is reached at which price: a disc for each point, and beside the plot what each one is.

    A line joins the points that no other one beats in both x and y.

    Args:
        points: list of (title, text, x, y, size). x is over 0, on a logarithmic axis, and less is better; more of y is
            better, and None is not drawn; the area of the disc grows with size.
        x_label, y_label: text at the axes.
        y_most: y above it is drawn there.

    Returns:
        uint8 [H, W, 3], the plot in the 420 columns on the left.
    """
    left, top, right, bottom = 52, 24, 400, max(260, 24 + 40 * len(points))
    fine = 3  # drawn larger, as discs of Pillow have jagged edges
    large, small = font(12 * fine), font(11 * fine)
    xs = [x for _, _, x, _, _ in points]
    ys = [min(y, y_most) for _, _, _, y, _ in points if y is not None]
    x_least, x_most = min(xs) / 2, 2 * max(xs)
    y_least = 10 * math.floor(min(ys, default=0) / 10 - 0.5)

    def across(x):
        return fine * (left + (right - left) * math.log(x / x_least) / math.log(x_most / x_least))

    def down(y):
        return fine * (bottom - (bottom - top) * (min(y, y_most) - y_least) / (y_most + 5 - y_least))

    texts = [max(large.getlength(title), small.getlength(text)) for title, text, *_ in points]
    sheet = Image.new("RGB", (fine * 455 + math.ceil(max(texts)), fine * (bottom + 50)), "white")
    draw, thin = ImageDraw.Draw(sheet), {"fill": (220, 220, 220), "width": fine}
    for y in range(math.ceil(y_least / 10) * 10, y_most + 1, 10):
        draw.line((fine * left, down(y), fine * right, down(y)), **thin)
        draw.text((fine * (left - 6), down(y)), f"{y}{'+' * (y == y_most)}", "black", small, "rm")
    decades = range(math.floor(math.log10(x_least)), math.ceil(math.log10(x_most)))
    for x in (step * 10.0**decade for decade in decades for step in (1, 2, 5)):
        if x_least <= x <= x_most:
            draw.line((across(x), fine * top, across(x), fine * bottom), **thin)
            draw.text((across(x), fine * (bottom + 5)), f"{x:g}", "black", small, "mt")
    draw.text((fine * (left + right) / 2, fine * (bottom + 26)), x_label, "black", small, "mt")
    draw.text((fine * 6, fine * 2), y_label, "black", small, "lt")

    best, joined = -math.inf, []
    for x, y in sorted((x, y) for _, _, x, y, _ in points if y is not None):
        if min(y, y_most) > best:
            best = min(y, y_most)
            joined.append((across(x), down(y)))
    draw.line(joined, fill=(160, 160, 160), width=fine)

    def disc(x, y, radius, colour):
        radius *= fine
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, colour, outline="white", width=fine)

    coloured = list(zip(points, itertools.cycle(_COLOURS)))
    most = max(size for *_, size in points)
    for (_, _, x, y, size), colour in sorted(coloured, key=lambda item: -item[0][-1]):
        if y is not None:
            disc(across(x), down(y), max(4, 16 * math.sqrt(size / most)), colour)
    for i, ((title, text, *_), colour) in enumerate(coloured):
        y = fine * (top + 40 * i)
        disc(fine * 432, y + fine * 8, 6, colour)
        draw.text((fine * 445, y), title, "black", large)
        draw.text((fine * 445, y + fine * 17), text, (90, 90, 90), small)
    return np.asarray(sheet.reduce(fine))


def plot(series, x_label, y_label, title="", join=False):
    """Draws points with the spread of their y, a colour for each series.

    Args:
        series: dict of name → list of (x, y, spread or None).
        x_label, y_label: text along the axes.
        title: text above.
        join: draw lines between the points of a series.

    Returns:
        uint8 [360, 480, 3].
    """
    with _quiet("matplotlib"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    # Not by pyplot, which asks for a display and keeps every figure.
    figure = Figure((4.8, 3.6), dpi=100, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.subplots()
    drawn = []
    for (colour, marker), values in zip(itertools.cycle(zip(_COLOURS, _MARKERS)), series.values()):
        x, y, spread = zip(*values)
        line = dict(color=colour, marker=marker, linestyle="-" if join else "none")
        drawn.append(axes.errorbar(x, y, [s or 0 for s in spread], **line))
    axes.set(xlabel=_literal(x_label), ylabel=_literal(y_label))
    axes.set_title(_literal(title), fontsize=10)
    axes.grid(alpha=0.3)
    axes.margins(0.1)
    # Not among the points, which it would hide; about 72 letters fit into a line.
    columns = max(1, 72 // (max(map(len, series)) + 6))
    figure.legend(drawn, [_literal(name) for name in series], loc="outside lower center", ncols=columns, fontsize=8)
    with warnings.catch_warnings(action="ignore"):  # of letters that the font lacks, for which boxes are drawn
        canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _literal(text):
    """Text whose dollar signs are no formulas to matplotlib."""
    return text.replace("$", r"\$")


@contextlib.contextmanager
def _quiet(name):
    """Silences a logger below errors: matplotlib warns while it is imported where the user's home is read-only."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
