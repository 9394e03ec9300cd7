"""A run directory of a published checkpoint, and a published checkpoint of a run directory."""

import math
import os
import pathlib

from tfi2i import checkpoints, files, run_directory, settings
from tfi2i.config import UserError, local_path
from tfi2i.conversion import as_published, fill, is_state, sources, torch_files
from tfi2i.methods import METHODS

_PUBLISHED = {name: method for name, method in METHODS.items() if method.published}


def convert(source, run_dir, method=None, epoch=None, direction=None, size=None, log=print, **told):
    """Makes a run directory of a published checkpoint.

    Nothing is written until all of it has been read and understood; `run_dir` appears whole.

    Args:
        source: path of a file, folder or zip.
        run_dir: a new or empty folder.
        method: refuse anything else; None: whatever it is.
        epoch: of a folder with several, which.
        direction: "a2b" or "b2a", for a generator whose file does not say.
        size: (height, width) of training's pictures; None: the method's default.
        log: function that is told, in lines of text, what the files are.
        **told: hyper-parameters that a file may not say, such as norm="instance" for UNIT's paper model.

    Returns:
        The `Translator`, as `tfi2i.load` gives it.

    Raises:
        UserError: the source is not a checkpoint that is known, or is damaged; the folder is not empty, or the current.
    """
    source, run_dir = local_path(source, "source"), local_path(run_dir, "run_dir")
    folder = pathlib.Path(run_dir).resolve()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"--run_dir={run_dir} is there already: give a new or empty folder")
    patterns = [pattern for module in _modules() for pattern in module.FILE_NAMES]
    contents, hashes, note = sources.read(source, patterns, epoch)
    told = {k: v for k, v in told.items() if v is not None}
    published = _recognise(contents, source, told, direction=direction, size=size, method=method)
    size = size or published.size
    if method and method != published.method:
        raise UserError(f"--method={method}, but --source={source} is a checkpoint of {published.method}")
    if direction and published.directions != (direction,):
        have = " and ".join(published.directions)
        raise UserError(f"--direction={direction}: --source={source} translates {have}, by its files: leave it out")
    given = published.options | {f"channels_{domain}": published.channels[domain] for domain in "ab"}
    run = settings.resolve(published.method, given | ({"crop": size} if size else {}))
    model = checkpoints.build(run, "float32")
    names = {"tensorflow": True} if published.tensorflow else {}
    layout = METHODS[published.method].published_module.layout(model, **names)
    filled, unused = set(), 0
    for part, state in published.states.items():
        unused += len(fill(layout[part], state, part))
        filled |= {id(place.variable) for place in layout[part].values()}
    kept = model.networks | model.averages
    missing = [n for n, net in kept.items() if not any(id(v) in filled for v in net.variables)]
    lacking = [d for d in model.directions if d not in published.directions]
    for line in _report(source, note, published, given, run, unused, missing, lacking):
        log(line)
    origin = {"source": os.path.basename(os.path.normpath(source)), "sha256": hashes}
    origin |= {"directions": published.directions, "missing": missing}
    try:
        with files.beside(folder) as partial:
            checkpoints.save(partial, model, published.step or 0, keep=1, without=missing)
            run_directory.write(partial, run, converted=origin)
            if folder.exists() and any(p != partial.parent for p in folder.iterdir()):
                raise UserError(f"--run_dir={run_dir} is no longer empty: give a new or empty folder")
            files.swap(partial, folder)
    except OSError as error:
        raise UserError(f"--run_dir={run_dir} cannot be written: {error}") from error
    log(f"written to {run_dir}")
    return checkpoints.load(run_dir)


def export(run_dir, output, checkpoint=None, direction=None, log=print):
    """Writes the networks of a run as the checkpoints of the official PyTorch code, to be used there.

    Where the run has averages of its generators and the official code has none, they are written as its generators.

    Args:
        run_dir: a run directory.
        output: folder for the files; it may not hold any of them yet.
        checkpoint: step of a kept checkpoint; None: the newest.
        direction: "a2b" or "b2a": this generator alone, where the published code has it in a file; None: all.
        log: function that is told what was written.

    Returns:
        list of the paths of the files.

    Raises:
        UserError: the official code has no such network, or the folder cannot be written.
    """
    run_dir, output = local_path(run_dir, "run_dir"), local_path(output, "output")
    model = checkpoints.load(run_dir, checkpoint)
    method = model.run.method
    if method not in _PUBLISHED:
        raise UserError(
            f"--export=pytorch: {run_dir} is a run of {method}, and no PyTorch code reads checkpoints of that method"
        )
    module = METHODS[method].published_module
    layout = module.layout(model)
    origin = run_directory.description(run_dir).get("converted")
    named = {id(place.variable) for places in layout.values() for place in places.values()}
    kept = dict(model.networks)
    for name, average in model.averages.items():
        if any(id(v) in named for v in average.variables):
            kept[name] = average
        else:
            average.replace()
            log(f"{name} is written as {name.removesuffix('_average')}: the official code has no averages")
    networks = {n: net for n, net in kept.items() if not origin or n not in origin["missing"]}
    present = {id(v) for net in networks.values() for v in net.variables}
    for name in [n for n in networks if n.startswith(getattr(module, "LEFT_OUT", ()))]:
        del networks[name]
        log(f"{name} is left out: the published code has none")
    foreign = [n for n, net in networks.items() if any(id(v) not in named for v in net.variables)]
    if foreign:
        raise UserError(f"--export=pytorch: the official code has no such {', '.join(foreign)} as this run's")
    parts = {p: places for p, places in layout.items() if all(id(x.variable) in present for x in places.values())}
    if direction:
        model.resolve_direction(direction)
        alone = getattr(module, "GENERATOR_OF", None)
        if alone is None:
            raise UserError(f"--direction={direction}: a checkpoint of {method} holds both, leave it out")
        parts = {alone[direction]: parts[alone[direction]]}
    extra = getattr(module, "constants", lambda model, part: {})
    states = module.files_of({part: as_published(places) | extra(model, part) for part, places in parts.items()})
    folder = pathlib.Path(output)
    taken = [name for name in states if (folder / name).exists()]
    if taken:
        raise UserError(f"--output={output} has {', '.join(taken)} already: give another folder")
    paths = [folder / name for name in states]
    begun = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, state in zip(paths, states.values()):
            begun.append(path.with_name(f"{path.name}.tmp"))
            torch_files.save(begun[-1], state)
        for partial, path in zip(tuple(begun), paths):
            begun.append(path)
            partial.replace(path)
    except BaseException as error:
        for path in begun:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(f"--output={output} cannot be written: {error}")
        raise
    for path in paths:
        log(f"written {path}")
    return paths


def _modules():
    """The modules that know published checkpoints, in the order of the methods."""
    return list(dict.fromkeys(method.published_module for method in _PUBLISHED.values()))


def _recognise(contents, source, told, **more):
    """The `PublishedModel` of the method that the files are of."""
    given = told | more
    published = next((f for module in _modules() if (f := module.recognise(contents, given))), None)
    if published is None:
        content = next(iter(contents.values()))
        names = list(content)[:4] if isinstance(content, dict) else [type(content).__name__]
        what = "the arrays" if is_state(content) else "something with"
        raise UserError(
            f"--source={source} is no checkpoint that is known: it holds {what} {', '.join(map(str, names))}, …; "
            f"expected generators of the published codes of {', '.join(_PUBLISHED)}, or CycleGAN's of Keras"
        )
    for name, value in told.items():
        if name not in METHODS[published.method].config_class.told:
            owners = " or ".join(n for n, method in _PUBLISHED.items() if name in method.config_class.told)
            raise UserError(f"--{name}={value} is for {owners}, and this is {published.method}: leave it out")
    return published


def _report(source, note, published, given, run, unused, missing, lacking):
    """What is known and what is not, in lines."""
    count = sum(math.prod(t.shape) for state in published.states.values() for t in state.values())
    more = [f"{published.step} steps"] * bool(published.step) + [note] * bool(note)
    yield ", ".join([f"{source}: {published.method}", *published.states, f"{count:,} numbers", *more])
    yield "found: " + " ".join(f"--{n}={v}" for n, v in given.items())
    for fact in published.facts:
        yield f"found: {fact}"
    if unused:
        yield f"left out: {unused} statistics that its norms do not use"
    if missing:
        yield f"not there: {', '.join(missing)}" + ("" if lacking else "; --init_from starts them anew")
    if lacking:
        yield f"translates and exports {published.directions[0]} only; training needs both generators"
    for what in published.unknown:
        yield f"not known: {what}"
    h, w = run.data.crop
    yield f"exported files of a fixed size will be {h}x{w}, unless tfi2i export --size says otherwise"
