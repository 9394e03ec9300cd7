"""Makes a run directory of a published checkpoint, and a published checkpoint of a run directory.

  python -m tfi2i.convert --source=horse2zebra.pth --run_dir=runs/horse2zebra
  python -m tfi2i.convert --source=checkpoints/maps_cyclegan --run_dir=runs/maps
  python -m tfi2i.convert --export=pytorch --run_dir=runs/mine --output=checkpoints/mine

--source is a file, a folder or a zip of the official PyTorch codes: CycleGAN's *_net_G[_A|_B].pth with or without
discriminators, UNIT's gen_*.pt and dis_*.pt of 2018 and *_gen_*.pkl and *_dis_*.pkl of 2017, U-GAT-IT's *_params_*.pt,
UVCGAN's net_*.pth of v1 and v2; or of codes in TensorFlow: UGATIT.model-*.index beside its .data file, CycleGANs of
Keras as .h5, .keras, the .index of a checkpoint or the folder of a SavedModel. PyTorch is not needed, and nothing in a
file is executed. The run directory translates and exports, and --init_from trains on from it; one that has a single
generator translates and exports that direction only.
"""

import importlib
import json
import math
import os
import pathlib

from absl import flags

from tfi2i import __version__, command, config, folders
from tfi2i.config import UserError

# Method → module of `tfi2i.conversion`.
_METHODS = {"cyclegan": "cyclegan", "unit": "unit", "ugatit": "ugatit", "uvcgan2": "uvcgan2", "uvcgan": "uvcgan2"}


def define_flags():
    """Declares the flags of this command."""
    flags.DEFINE_string("source", None, "published checkpoint: a file, a folder, or a zip of a folder")
    flags.DEFINE_string("run_dir", None, "run directory to make, or with --export to read", required=True)
    flags.DEFINE_enum("method", None, list(_METHODS), "refuse a source that is of another method [what it is]")
    flags.DEFINE_string("epoch", None, "of a folder with several, which: latest, 200, … [latest, or the last]")
    flags.DEFINE_enum(
        "direction",
        None,
        ("a2b", "b2a"),
        "which way a generator translates whose file name does not say [a2b]; with --export: which one [both]",
    )
    flags.DEFINE_enum("norm", None, ("none", "instance"), "UNIT's paper model: what its file cannot always say")
    flags.DEFINE_string("size", None, "size of the pictures that it was trained on: N or H,W [the method's own]")
    flags.DEFINE_enum("export", None, ("pytorch",), "write --run_dir as the official code's checkpoints to --output")
    flags.DEFINE_string("checkpoint", None, "with --export: step of a kept checkpoint, or best [the newest]")
    flags.DEFINE_string("output", None, "with --export: folder for the files")


def convert(source, run_dir, method=None, epoch=None, direction=None, norm=None, size=None, log=print):
    """Makes a run directory of a published checkpoint.

    Nothing is written until all of it has been read and understood; `run_dir` appears whole.

    Args:
        source: path of a file, folder or zip.
        run_dir: a new or empty folder.
        method: refuse anything else; None: whatever it is.
        epoch: of a folder with several, which.
        direction: "a2b" or "b2a", for a generator whose file does not say.
        norm: "none" or "instance", for a file of UNIT's paper model that does not say.
        size: (height, width) of training's pictures; None: the method's default.
        log: function that is told, in lines of text, what was found.

    Returns:
        The `Translator`, as `tfi2i.load` gives it.

    Raises:
        UserError: the source is not a checkpoint that is known, or is damaged; the folder is not empty, or the current.
    """
    from tfi2i.conversion import fill, sources
    from tfi2i.training import checkpoints

    folder = pathlib.Path(run_dir).resolve()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"--run_dir={run_dir} is there already: give a new or empty folder")
    if folder == pathlib.Path.cwd():
        raise UserError(f"--run_dir={run_dir} is the folder that you are in, which cannot be replaced: give a new one")
    files, hashes, note = sources.read(source, epoch)
    found = _recognise(files, source, direction, norm, size)
    size = size or found.size
    if method and method != found.method:
        raise UserError(f"--method={method}, but --source={source} is a checkpoint of {found.method}")
    if direction and found.directions != (direction,):
        have = " and ".join(found.directions)
        raise UserError(f"--direction={direction}: --source={source} translates {have}, by its files: leave it out")
    given = found.options | {"channels_a": found.channels[0], "channels_b": found.channels[1]}
    settings = config.resolve(found.method, given | ({"crop": size} if size else {}))
    model = checkpoints.build(settings, "float32")
    names = {"tensorflow": True} if found.tensorflow else {}
    layout = _module(found.method).layout(model, **names)
    filled, unused = set(), 0
    for part, state in found.states.items():
        unused += len(fill(layout[part], state, part))
        filled |= {id(place.variable) for place in layout[part].values()}
    missing = [n for n, net in model.networks.items() if not any(id(v) in filled for v in net.variables)]
    for line in _report(source, note, found, given, settings, unused, missing):
        log(line)
    origin = {"source": os.path.basename(os.path.normpath(source)), "sha256": hashes}
    origin |= {"directions": found.directions, "missing": missing}
    description = json.loads(settings.to_json()) | {"tfi2i": __version__, "converted": origin}
    try:
        with folders.beside(folder) as partial:
            checkpoints.save(partial, model, found.step or 0, keep=1, without=missing)
            (partial / "config.json").write_text(json.dumps(description, indent=2) + "\n")
            (partial / "flags.txt").write_text(config.flags_text(found.method, config.differing(settings)))
            partial.replace(folder)  # refused by the system where files have appeared in it
    except OSError as error:
        raise UserError(f"--run_dir={run_dir} cannot be written: {error}") from error
    log(f"written to {run_dir}")
    return checkpoints.load(run_dir)


def export(run_dir, output, checkpoint=None, direction=None, log=print):
    """Writes the networks of a run as the checkpoints of the official PyTorch code, to be used there.

    Args:
        run_dir: a run directory.
        output: folder for the files; it may not hold any of them yet.
        checkpoint: step of a kept checkpoint; None: the newest.
        direction: "a2b" or "b2a": this generator of CycleGAN alone; None: all networks.
        log: function that is told what was written.

    Returns:
        list of the paths of the files.

    Raises:
        UserError: the official code has no such network, or the folder cannot be written.
    """
    from tfi2i.conversion import as_published, torch_files
    from tfi2i.training import checkpoints

    model = checkpoints.load(run_dir, checkpoint)
    method = model.run.method
    if method not in _METHODS:
        raise UserError(f"--export=pytorch: {run_dir} is a run of {method}, which is not offered")
    module = _module(method)
    layout = module.layout(model)
    origin = checkpoints.origin_of(run_dir)
    networks = {n: net for n, net in model.networks.items() if not origin or n not in origin["missing"]}
    present = {id(v) for net in networks.values() for v in net.variables}
    named = {id(place.variable) for places in layout.values() for place in places.values()}
    foreign = [n for n, net in networks.items() if any(id(v) not in named for v in net.variables)]
    if foreign:
        raise UserError(f"--export=pytorch: the official code has no such {', '.join(foreign)} as this run's")
    parts = {p: places for p, places in layout.items() if all(id(x.variable) in present for x in places.values())}
    if direction:
        model.check_direction(direction)
        wanted = {"a2b": "G_A", "b2a": "G_B"} if method == "cyclegan" else None
        if wanted is None:
            raise UserError(f"--direction={direction}: a checkpoint of {method} holds both, leave it out")
        parts = {wanted[direction]: parts[wanted[direction]]}
    extra = getattr(module, "constants", lambda model, part: {})
    files = module.files_of({part: as_published(places) | extra(model, part) for part, places in parts.items()})
    folder = pathlib.Path(output)
    taken = [name for name in files if (folder / name).exists()]
    if taken:
        raise UserError(f"--output={output} has {', '.join(taken)} already: give another folder")
    paths = [folder / name for name in files]
    begun = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, state in zip(paths, files.values()):
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


def _module(method):
    return importlib.import_module(f"tfi2i.conversion.{_METHODS[method]}")


def _recognise(files, source, direction, norm, size):
    from tfi2i.conversion import cyclegan, cyclegan_keras, is_state, ugatit, unit, uvcgan2

    found = uvcgan2.recognise(files, direction) or cyclegan.recognise(files, direction)
    found = found or cyclegan_keras.recognise(files, direction)
    found = found or unit.recognise(files, norm) or ugatit.recognise(files, size)
    if found is None:
        content = next(iter(files.values()))
        names = list(content)[:4] if isinstance(content, dict) else [type(content).__name__]
        what = "the arrays" if is_state(content) else "something with"
        raise UserError(
            f"--source={source} is no checkpoint that is known: it holds {what} {', '.join(map(str, names))}, …; "
            "expected generators of the official codes of CycleGAN, UNIT, U-GAT-IT or UVCGAN, or CycleGAN's of Keras"
        )
    if norm and found.method != "unit":
        raise UserError(f"--norm={norm} is for UNIT's paper model, and this is {found.method}")
    return found


def _report(source, note, found, given, settings, unused, missing):
    """What is known and what is not, in lines."""
    count = sum(math.prod(t.shape) for state in found.states.values() for t in state.values())
    more = [f"{found.step} steps"] * bool(found.step) + [note] * bool(note)
    yield ", ".join([f"{source}: {found.method}", *found.states, f"{count:,} numbers", *more])
    yield "found: " + " ".join(f"--{n}={v}" for n, v in given.items())
    for fact in found.facts:
        yield f"found: {fact}"
    if unused:
        yield f"left out: {unused} statistics that its norms do not use"
    if missing:
        yield f"not there: {', '.join(missing)}" + (
            "; --init_from starts them anew" if len(found.directions) == 2 else ""
        )
    if len(found.directions) == 1:
        yield f"translates and exports {found.directions[0]} only; training needs both generators"
    for what in found.unknown:
        yield f"not known: {what}"
    h, w = settings.data.crop
    yield f"exported files of a fixed size will be {h}x{w}, unless tfi2i.export --size says otherwise"


def main(_):
    values = flags.FLAGS
    for name in ("checkpoint", "output") if not values.export else ("source", "method", "epoch", "norm", "size"):
        if values[name].value is not None:
            raise UserError(f"--{name} goes {'without' if values.export else 'with'} --export")
    if not values.export and not values.source:
        raise UserError("give --source=FILE, or --export=pytorch --output=FOLDER")
    if values.export and not values.output:
        raise UserError("--export=pytorch needs --output=FOLDER")
    size = config.size_flag(values.size)
    command.import_tensorflow()
    if values.export:
        export(values.run_dir, values.output, values.checkpoint, values.direction)
    else:
        names = ("source", "run_dir", "method", "epoch", "direction", "norm")
        convert(size=size, **{n: values[n].value for n in names})


def run():
    """Console entry point."""
    define_flags()
    command.run(main)


if __name__ == "__main__":
    run()
