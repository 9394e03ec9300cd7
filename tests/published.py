"""Published checkpoints in tests: converting them, and comparing what is written for the official codes with theirs."""

import functools
import pathlib
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from tests.drawing import nothing_drawn
from tfi2i.config import UserError
from tfi2i.conversion import exchange, sources, torch_files

GOLDEN = pathlib.Path(__file__).parent / "golden"
CHECKPOINTS = GOLDEN / "checkpoints"
# Arrays of a norm that the networks here do not have.
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def converted(source, run_dir, log=lambda _: None, **kwargs):
    """The model of `exchange.convert`; whatever the files do not fill would be zeros."""
    with nothing_drawn():
        return exchange.convert(source, run_dir, log=log, **kwargs)


def conversions(tmp_path_factory):
    """For a module's fixture: a function of an archive's name that gives its model and its run, converted once."""

    @functools.cache
    def convert_once(name, **kwargs):
        run = tmp_path_factory.mktemp(name) / "run"
        return converted(CHECKPOINTS / f"{name}.zip", run, **kwargs), run

    return convert_once


def refused(source, tmp_path, message, **kwargs):
    """Converting raises this message, and leaves nothing behind."""
    before = {p for p in tmp_path.rglob("*")}
    with pytest.raises(UserError, match=message):
        converted(source, tmp_path / "run", **kwargs)
    assert {p for p in tmp_path.rglob("*")} == before


def unpacked(archive, folder):
    """The folder of an archive of `CHECKPOINTS`, unpacked into `folder`."""
    with zipfile.ZipFile(CHECKPOINTS / archive) as packed:
        packed.extractall(folder)
    return folder / pathlib.Path(archive).stem


def built(kind, **options):
    """A model with random weights."""
    model = kind(**options)
    model.build((None, None, None, model.channels_a))
    return model


def states(model, module):
    """dict of part → dict of published name → array, of a whole model."""
    return {part: {k: p.theirs() for k, p in places.items()} for part, places in module.layout(model).items()}


def shapes_alone(state):
    """The same tensors, whose numbers may not be read."""

    def unread():
        raise AssertionError("a configuration is told by names and shapes")

    return {k: torch_files.Tensor(tuple(v.shape), "<f4", unread, 0, ()) for k, v in state.items()}


def translated(model, x, direction="a2b"):
    """As `model.translate`, without tracing a graph for one call."""
    return model.generate(tf.constant(x), direction).numpy()


def sparse(x):
    """Every third pixel each way, as golden files hold them."""
    return np.asarray(x)[:, ::3, ::3]


def check_written_is_official(run, archive, module, folder, **told):
    """What is written for the official code has the names, shapes and numbers of its own files."""

    def parts(source):
        files, *_ = sources.read(source, module.FILE_NAMES)
        return module.recognise(files, told).states

    exchange.export(run, folder, log=lambda _: None)
    written, official = parts(folder), parts(CHECKPOINTS / f"{archive}.zip")
    assert written.keys() == official.keys()
    for part, state in official.items():
        kept = written[part]
        lacking = {k for k in state.keys() - kept.keys() if not k.endswith(BUFFERS)}
        assert not lacking and kept.keys() <= state.keys(), part
        for key, array in kept.items():
            np.testing.assert_array_equal(array.numpy(), state[key].numpy(), err_msg=f"{part} {key}")


def check_told_by_names_and_shapes(model, module, files):
    """`recognise` gives a model's configuration back, and `layout` names each of its variables once."""
    published = module.recognise({n: _unread(content) for n, content in files.items()}, {})
    assert published.directions == ("a2b", "b2a")
    assert published.channels == {"a": model.channels_a, "b": model.channels_b}
    layout = module.layout(model)
    named = [id(p.variable) for places in layout.values() for p in places.values()]
    assert sorted(named) == sorted(
        {id(v) for part in (model.networks | model.averages).values() for v in part.variables}
    )
    for part, places in layout.items():
        assert {k for k in published.states[part] if not k.endswith(BUFFERS) or k in places} == set(places), part
    return published


def _unread(content):
    nested = any(isinstance(value, dict) for value in content.values())
    return {d: shapes_alone(state) for d, state in content.items()} if nested else shapes_alone(content)
