"""Methods side by side: a static page with a row for each input and a column for each method, and the table."""

import contextlib
import html
import json
import pathlib
import re

import numpy as np

from tfi2i import folders, pictures
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


def columns_of(examples):
    """What a gallery shows: a dict of title → images, one for each example; an image that is not there is None."""
    columns = {"input": [e["input"] for e in examples], "truth": [e["truth"] for e in examples]}
    for name in examples[0]["results"]:
        columns[report.NAMES.get(name, name)] = [e["results"][name] for e in examples]
    return {title: c for title, c in columns.items() if any(image is not None for image in c)}


def write(folder, title, results, examples, protocol, reports):
    """Writes FOLDER/index.html with the pictures that it shows, and FOLDER/DIRECTION.png with all of a direction.

    Args:
        folder: path; appears when all is written. One that an earlier call has written is replaced.
        title: of the page.
        results, examples: as `evaluation.evaluate` returns them.
        protocol: the `Protocol`.
        reports: dict of file name → what to write into it as JSON.

    Raises:
        UserError: the folder is there and holds something else.
    """
    with replaced(folder, "--output") as partial:
        parts = [f"<pre>{html.escape(report.table(results, protocol))}</pre>"]
        _write_directions(partial, parts, results, examples)
        for name, content in reports.items():
            (partial / name).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
        (partial / "index.html").write_text(page(title, "\n".join(parts)), encoding="utf-8")


def _write_directions(partial, parts, results, examples):
    for direction, shown in examples.items():
        if not shown:
            continue
        columns = columns_of(shown)
        x, y = direction[0].upper(), direction[2].upper()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        rows = []
        for i, example in enumerate(shown):
            cells = [_cell(partial, direction, i, j, c[i]) for j, c in enumerate(columns.values())]
            name = html.escape(f"{example['rank']} {pathlib.PurePosixPath(example['name']).stem}".strip())
            rows.append(f"<tr><th>{name}</th>{''.join(cells)}</tr>")
        parts.append(f"<h2>{x} to {y}</h2>\n<table><thead><tr><th></th>{head}</tr></thead>\n<tbody>")
        parts += [*rows, "</tbody></table>"]
        images.write_image(partial / f"{direction}.png", sheet(shown))
        plot = report.trade_off(results, direction)
        if plot is not None:
            images.write_image(partial / f"{direction}_plot.png", plot)
            parts.append(f'<p><img src="{direction}_plot.png" alt="realism against faithfulness"></p>')


def sheet(examples):
    """One picture of a direction: a row for each example, a column for each method, uint8 [H, W, 3]."""
    columns = columns_of(examples)
    side = min(256, max(max(r.shape[:2]) for e in examples for r in e["results"].values()))
    blank = np.full((side, side, 3), 255, np.uint8)
    cells = [np.stack([blank if i is None else report.thumbnail(i, side) for i in c]) for c in columns.values()]
    labels = [f"{e['rank']} {pathlib.PurePosixPath(e['name']).stem[:36]}".strip() for e in examples]
    return pictures.page(cells, list(columns), labels)


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
    foreign = folders.foreign(folder, _OWN)
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
    with folders.beside(folder) as partial:
        yield partial
        check(folder, flag)
        folders.swap(partial, folder)


def _cell(folder, direction, row, column, image):
    if image is None:
        return "<td></td>"
    path = pathlib.PurePosixPath("images", direction, f"{row:03d}_{column}.png")
    images.write_image(folder / path, image)
    return f'<td><img src="{path}" alt="" loading="lazy"></td>'
