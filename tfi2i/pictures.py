"""Pages of pictures: rows of images under column titles; plots of a few points.

Plots are matplotlib's. Pages are laid out here, because a plotting library resamples pictures, and here every pixel of
a picture stays one pixel, or a square of equal ones.
"""

import contextlib
import itertools
import logging
import warnings

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MARGIN, _TITLE, _MIN_SIDE = 6, 22, 96
# Distinct for colour-blind readers too: Okabe and Ito (2008).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKERS = "osD^vPX"


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
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    x = _MARGIN
    for column, title, width in zip(columns, titles, widths):
        draw.text((x + (width - _MARGIN) / 2, _TITLE / 2), title, fill="black", font=font, anchor="mm")
        for i, picture in enumerate(column):
            y = _TITLE + i * height
            sheet.paste(Image.fromarray(picture), (x, y))
            draw.rectangle((x - 1, y - 1, x + picture.shape[1], y + picture.shape[0]), outline=(220, 220, 220))
        x += width
    for i, label in enumerate(labels or []):
        draw.text((_MARGIN, _TITLE + (i + 1) * height - under - 4), label, fill=(90, 90, 90), font=font)
    return np.asarray(sheet)


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
