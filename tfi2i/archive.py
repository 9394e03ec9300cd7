"""A trained model as one archive to hand on."""

import dataclasses
import pathlib
import tempfile
import zipfile

from tfi2i import checkpoints, files, run_directory
from tfi2i.config import UserError, local_path

# Where the pictures and the first weights were on the machine that trained; a method names its own `paths`.
_LOCAL = (
    "data",
    "a",
    "b",
    "ab",
    "tfds_dir",
    "csv",
    "csv_folder",
    "source",
    "target",
    "target_test",
    "init_from",
    "pretrained",
    "more_pictures",
)

_README = """{name}: a {method} model of tfi2i {version}, step {step}.

Licence of the weights:  {weights}
Licence of the pictures: {data}

  pip install tfi2i
  tfi2i translate --run_dir={name} --input=photo.jpg --output=translated.png
  tfi2i export --run_dir={name} --data=FOLDER_OF_PICTURES --output=exported
"""


def pack(run_dir, output, checkpoint=None, weights_license=None, data_license=None, overwrite=False):
    """Writes the networks of a run and what it takes to build them into one .zip.

    Args:
        run_dir: a run directory.
        output: path of the archive.
        checkpoint: its step, or "best"; None: the newest whole one.
        weights_license, data_license: what stands in it about licences, or None: "not stated".
        overwrite: whether to replace a file of that name.

    Returns:
        the path.

    Raises:
        UserError: no run directory, no checkpoint, a file that is there, or cannot be written.
    """
    output = pathlib.Path(local_path(output, "output"))
    if output.suffix != ".zip":
        raise UserError(f"--output={output}: expected the name of a .zip")
    if output.exists() and not overwrite:
        raise UserError(f"--output={output} is there already: give another name, or --overwrite")
    files.check_writable(output, "output")
    model = checkpoints.load(run_dir, checkpoint)
    described = run_directory.description(run_dir)
    licenses = described.get("licenses", {})
    licenses = {
        "weights": weights_license or licenses.get("weights", "not stated"),
        "data": data_license or licenses.get("data", "not stated"),
    }
    more = {"converted": described["converted"]} if "converted" in described else {}
    content = _README.format(
        name=output.stem, method=model.run.method, version=described["tfi2i"], step=model.checkpoint_step, **licenses
    )
    try:
        with tempfile.TemporaryDirectory(prefix=files.PARTIAL, dir=output.resolve().parent) as folder:
            folder = pathlib.Path(folder)
            missing = described["converted"]["missing"] if "converted" in described else ()
            checkpoints.save_networks(folder, model, model.checkpoint_step, missing)
            run_directory.write(folder, _without_paths(model.run), packed=True, licenses=licenses, **more)
            files.write_text(folder / "README.txt", content)
            with files.whole(output) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
                for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                    archive.write(path, f"{output.stem}/{path.relative_to(folder).as_posix()}")
    except OSError as error:
        raise UserError(f"--output={output} cannot be written: {error.strerror or error}") from error
    return output


def _without_paths(run):
    """A `settings.Run` without the places of pictures, weights and a teacher, and without the hours that a machine had.

    The names of bundled and published data stay.
    """
    changed = {}
    for part in ("data", "training", "model"):
        config = getattr(run, part)
        local = {*_LOCAL, *run.model.paths}
        here = [f.name for f in dataclasses.fields(config) if f.name in local]
        gone = {n: None for n in here if getattr(config, n) and not _is_name(getattr(config, n))}
        if "a" in gone:
            gone["holdout"] = None
        if part == "training":
            gone["max_hours"] = None
        changed[part] = dataclasses.replace(config, **gone)
    return dataclasses.replace(run, **changed)


def _is_name(value):
    """Whether a value names data that everyone has."""
    return value in ("emoji", "optdigits") or value.startswith("tfds:")
