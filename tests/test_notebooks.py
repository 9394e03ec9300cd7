"""The notebooks run, from the first cell to the last; what trains for minutes there takes two steps here."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "docs" / "notebooks"
# Text in the notebook → text here. A notebook must contain each.
SHORTER = {
    "quickstart.ipynb": {
        "STEPS = 3500": "STEPS = 2",
        'preset="quickstart",': 'preset="quickstart", crop=32, generator_width=4,',
        "verification_images=40": "verification_images=2, floors=dict.fromkeys(['float32', 'int8'], 0)",
        "limit=40": "limit=2",
    },
    "checkpoint_to_phone.ipynb": {
        "steps=200": "steps=2, crop=32, generator_width=4",
        "size=64": "size=32",
        "resize((64, 64))": "resize((32, 32))",
        "verification_images=20": "verification_images=2, floors={'int8': 0}",
    },
}


def code(notebook):
    """The code of a notebook as one script; the last expression of a cell, which a notebook shows, is evaluated."""
    cells = json.loads((FOLDER / notebook).read_text(encoding="utf-8"))["cells"]
    script = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    for there, here in SHORTER[notebook].items():
        assert there in script, there
        script = script.replace(there, here)
    return script


def test_every_notebook_is_run():
    assert {path.name for path in FOLDER.glob("*.ipynb")} == set(SHORTER)


@pytest.mark.docs
@pytest.mark.parametrize("notebook", SHORTER)
def test_it_runs(notebook, tmp_path):
    environment = os.environ | {"HOME": str(tmp_path)}
    command = [sys.executable, "-c", code(notebook)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "exported" / "int8.tflite").is_file() and (tmp_path / "exported" / "report.png").is_file()
