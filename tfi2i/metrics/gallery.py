"""Candidates side by side: a static page with a row for each input and a column for each candidate, and the table."""

import contextlib
import html
import json
import pathlib
import re

from tfi2i import files
from tfi2i.config import UserError
from tfi2i.data import images
from tfi2i.metrics import report

# In the head of every page: says that the folder is this command's to replace.
GENERATOR = '<meta name="generator" content="tfi2i">'
# All that galleries and studies consist of.
_OWN = re.compile(r"index\.html|metrics\.json|(a2b|b2a)(_plot)?\.png|images(/(a2b|b2a))?|images/((a2b|b2a)/)?\w+\.png")
_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222; }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: 4px; text-align: center; font-weight: normal; vertical-align: bottom; }
thead th { position: sticky; top: 0; background: white; font-weight: bold; }
tbody th { text-align: right; color: #666; max-width: 14em; overflow-wrap: anywhere; }
td img { width: 160px; image-rendering: pixelated; display: block; }
"""


def write(folder, title, results, examples, protocol, figures):
    """Writes FOLDER/index.html with the pictures that it shows, and FOLDER/DIRECTION.png with all of a direction.

    Args:
        folder: path; appears when all is written. One that an earlier call has written is replaced.
        title: of the page.
        results, examples: as `evaluation.evaluate` returns them.
        protocol: the `Protocol`.
        figures: dict that is written to FOLDER/metrics.json.

    Raises:
        UserError: the folder is there and holds something else.
    """
    with replaced(folder, "--output") as partial:
        parts = [f"<pre>{html.escape(report.table(results, protocol))}</pre>"]
        for direction, shown in examples.items():
            if shown:
                parts += _write_direction(partial, results, direction, shown)
        files.write_text(partial / "metrics.json", json.dumps(figures, indent=2, allow_nan=False) + "\n")
        files.write_text(partial / "index.html", page(title, "\n".join(parts)))


def _write_direction(partial, results, direction, examples):
    """Writes the pictures of a direction; returns the parts of the page that show them."""
    of_page = {"input": [e["input"] for e in examples], "truth": [e["truth"] for e in examples]}
    for name in examples[0]["results"]:
        of_page[report.NAMES.get(name, name)] = [e["results"][name] for e in examples]
    of_page = report.present_columns(of_page)
    images.write_image(partial / f"{direction}.png", report.page(of_page, [report.label(e) for e in examples]))
    head = "".join(f"<th>{html.escape(title)}</th>" for title in of_page)
    parts = [f"<h2>{report.in_words(direction)}</h2>\n<table><thead><tr><th></th>{head}</tr></thead>\n<tbody>"]
    for i, example in enumerate(examples):
        cells = [_cell(partial, direction, i, j, shown[i]) for j, shown in enumerate(of_page.values())]
        name = f"{example['rank']} {pathlib.PurePosixPath(example['name']).stem}".strip()
        parts.append(f"<tr><th>{html.escape(name)}</th>{''.join(cells)}</tr>")
    parts.append("</tbody></table>")
    plot = report.trade_off(results, direction)
    if plot is not None:
        images.write_image(partial / f"{direction}_plot.png", plot)
        parts.append(f'<p><img src="{direction}_plot.png" alt="realism against faithfulness"></p>')
    return parts


def page(title, body):
    """An HTML page that needs nothing from elsewhere."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{GENERATOR}\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def check(folder, flag):
    """Raises `UserError`: `folder`, given by `flag`, is there and holds anything else than a page of this command."""
    folder = pathlib.Path(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    index = folder / "index.html"
    if not (index.is_file() and GENERATOR.encode() in index.read_bytes()):
        raise UserError(f"{flag}={folder} exists and is no page of this command: give another folder")
    foreign = files.foreign(folder, _OWN)
    if foreign:
        raise UserError(
            f"{flag}={folder} is replaced as a whole, and {foreign} in it is not of this command: move it away, or "
            "give another folder"
        )


@contextlib.contextmanager
def replaced(folder, flag):
    """A new empty folder to write into, which takes the place of `folder` at the end, or goes where writing fails.

    Raises:
        UserError: see `check`.
    """
    check(folder, flag)
    with files.beside(folder) as partial:
        yield partial
        check(folder, flag)
        files.swap(partial, folder)


def _cell(folder, direction, row, column, image):
    if image is None:
        return "<td></td>"
    path = pathlib.PurePosixPath("images", direction, f"{row:03d}_{column}.png")
    images.write_image(folder / path, image)
    return f'<td><img src="{path}" alt="" loading="lazy"></td>'
