"""Candidates side by side: a static page with a row for each input and a column for each candidate, and the table."""

import contextlib
import json
import pathlib
import re

import jinja2
import markupsafe

from tfi2i import files
from tfi2i.config import UserError
from tfi2i.data import images
from tfi2i.metrics import TABLE_FORMS, report, tables

# In the head of every page: says that the folder is this command's to replace.
GENERATOR = '<meta name="generator" content="tfi2i">'
# All that galleries and studies consist of.
_OWN = re.compile(
    r"index\.html|metrics\.(json|md|csv|tex)|(a2b|b2a)(_plot)?\.png|images(/(a2b|b2a))?|images/((a2b|b2a)/)?\w+\.png"
)


def write(folder, title, results, examples, protocol, figures, form=None):
    """Writes FOLDER/index.html with the pictures that it shows, and FOLDER/DIRECTION.png with all of a direction.

    Args:
        folder: path; appears when all is written. One that an earlier call has written is replaced.
        title: of the page.
        results: as `evaluation.evaluate` returns them or, of several seeds, `tables.over_seeds`.
        examples: as `evaluation.evaluate` returns them.
        protocol: the `Protocol`.
        figures: dict that is written to FOLDER/metrics.json.
        form: a key of `TABLE_FORMS`: also writes the table in that form, to FOLDER/metrics.EXTENSION.

    Raises:
        UserError: the folder is there and holds something else.
    """
    with replaced(folder, "--output") as partial:
        shown = [_write_direction(partial, results, d, e, protocol) for d, e in examples.items() if e]
        files.write_text(partial / "metrics.json", json.dumps(figures, indent=2, allow_nan=False) + "\n")
        if form:
            text = tables.table(results, protocol, form) + "\n"
            files.write_text((partial / "metrics").with_suffix(TABLE_FORMS[form]), text)
        text = page("gallery.html", title=title, table=tables.table(results, protocol), directions=shown)
        files.write_text(partial / "index.html", text)


def _write_direction(partial, results, direction, examples, protocol):
    """Writes the pictures of a direction; returns what gallery.html shows of it."""
    of_page = {"input": [e["input"] for e in examples], "truth": [e["truth"] for e in examples]}
    for name in examples[0]["results"]:
        of_page[tables.NAMES.get(name, name)] = [e["results"][name] for e in examples]
    of_page = report.present_columns(of_page)
    images.write_image(partial / f"{direction}.png", report.page(of_page, [report.label(e) for e in examples]))
    rows = []
    for i, example in enumerate(examples):
        pictures = [_write_picture(partial, direction, i, j, shown[i]) for j, shown in enumerate(of_page.values())]
        title = f"{example['rank']} {pathlib.PurePosixPath(example['name']).stem}".strip()
        rows.append({"title": title, "pictures": pictures})
    plot, name = report.trade_off(results, direction, protocol), None
    if plot is not None:
        name = f"{direction}_plot.png"
        images.write_image(partial / name, plot)
    return {"title": tables.in_words(direction), "columns": list(of_page), "rows": rows, "plot": name}


def page(template, **values):
    """An HTML page that needs nothing from elsewhere.

    Args:
        template: name of a file in templates/, which extends page.html.
        **values: what it shows; texts are escaped.

    Returns:
        str.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(template).render(generator=markupsafe.Markup(GENERATOR), **values)


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


def _write_picture(folder, direction, row, column, image):
    """Writes a picture of the table; returns its path within the folder, or None where there is no image."""
    if image is None:
        return None
    path = pathlib.PurePosixPath("images", direction, f"{row:03d}_{column}.png")
    images.write_image(folder / path, image)
    return str(path)
