"""Pages of pictures: rows of images under column titles; plots of a few points."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MARGIN, _TITLE, _MIN_SIDE = 6, 22, 96
# Distinct for colour-blind readers too: Okabe and Ito (2008).
_COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (0, 0, 0))


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
        title: text above, on the right.
        join: draw lines between the points of a series, which is named above; else the name is at the points.

    Returns:
        uint8 [360, 480, 3].
    """
    width, height, left, right, top, bottom = 480, 360, 64, 16, 30, 44
    points = [p for values in series.values() for p in values]
    x_ticks = _ticks([p[0] for p in points])
    y_ticks = _ticks([p[1] + sign * (p[2] or 0) for p in points for sign in (-1, 1)])
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)

    def at(x, y):
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return left + across * (width - left - right), height - bottom - up * (height - top - bottom)

    for tick in x_ticks:
        x, y = at(tick, y_ticks[0])
        draw.line((x, top, x, y), fill=(230, 230, 230))
        draw.text((x, y + 5), f"{tick:g}", fill="black", font=font, anchor="mt")
    for tick in y_ticks:
        x, y = at(x_ticks[0], tick)
        draw.line((x, y, width - right, y), fill=(230, 230, 230))
        draw.text((x - 5, y), f"{tick:g}", fill="black", font=font, anchor="rm")
    draw.rectangle((left, top, width - right, height - bottom), outline="black")
    draw.text(((left + width - right) / 2, height - 6), x_label, fill="black", font=font, anchor="mb")
    draw.text((6, 8), y_label, fill="black", font=font, anchor="lt")
    draw.text((width - right, 8), title, fill="black", font=font, anchor="rt")
    for i, (name, values) in enumerate(series.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        where = [at(x, y) for x, y, _ in values]
        if join:
            draw.line(where, fill=colour, width=2)
            draw.text((width / 2 + 60 * i, 8), name, fill=colour, font=font, anchor="lt")
        for (x, y), (value, mean, spread) in zip(where, values):
            if spread:
                draw.line((*at(value, mean - spread), *at(value, mean + spread)), fill=colour)
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
            if not join:
                # On the side that has room.
                side = ("rb", -7) if x > width * 0.6 else ("lb", 7)
                draw.text((x + side[1], y - 3), name, fill=colour, font=font, anchor=side[0])
    return np.asarray(sheet)


def _ticks(values):
    """Four to nine round numbers, equally spaced, from at most the least value to at least the largest."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first, last = np.floor(low / step), np.ceil(high / step)
    return [float(k * step) for k in np.arange(first, last + 1)]
