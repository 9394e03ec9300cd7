"""Opens what `--source` names: a file, a folder of files, or a zip of such a folder; picks one model's files.

PyTorch's files, Keras' .h5 and .keras, checkpoints of TensorFlow by their .index file, alone or in a folder, and a
folder of NumPy's .npy, each of which is one array of one model.
"""

import functools
import glob
import hashlib
import io
import math
import os
import pathlib
import re
import zipfile

import numpy as np

from tfi2i import run_directory
from tfi2i.config import UserError
from tfi2i.conversion import hdf5, keras_files, torch_files, without_module

_EXTENSIONS = (".pth", ".pt", ".pkl", ".h5", ".hdf5", ".keras")
# What object-based checkpoints of TensorFlow hold beside arrays, and put behind the names of these.
_GRAPH, _VALUE = "_CHECKPOINTABLE_OBJECT_GRAPH", "/.ATTRIBUTES/VARIABLE_VALUE"
# Deflate cannot pack weights like this; nothing larger belongs in an archive of weights.
_MOST_PACKED, _LARGEST = 200, 16 * 2**30


def read(source, names, epoch=None):
    """Reads the files of one model.

    Args:
        source: path of a file, folder or zip.
        names: patterns of how published codes name the files of one model at one time of its training, without
            extension, which the group `epoch` of a match is.
        epoch: of a folder that holds several times of a training, or several models, which; None: "latest", or else
            the last time.

    Returns:
        (files, hashes, note). `files` maps names without extension to contents, see `torch_files.load`, `hashes` names
        to SHA-256, `note` says what was chosen, or is "".

    Raises:
        UserError: nothing there, nothing that belongs to a model, several models, damaged or hostile.
    """
    from tfi2i.checkpoints import sha256

    path = pathlib.Path(source)
    if not path.exists():
        raise UserError(f"--source={source} does not exist")
    if run_directory.config_path(path).is_file():
        raise UserError(
            f"--source={source} is a run directory already: translate, evaluate and export take it as --run_dir, and "
            "training as --init_from"
        )
    if arrays := sorted(path.glob("*.npy")) if path.is_dir() else []:
        content = {file.stem: _array(file) for file in arrays}
        return {path.name: content}, {file.name: sha256(file) for file in arrays}, f"{len(arrays)} arrays"
    index = path if path.suffix == ".index" and path.is_file() else _last_index(path, epoch)
    if index:
        data = sorted(index.parent.glob(f"{glob.escape(index.stem)}.data-*"))
        hashes = {p.name: sha256(p) for p in (index, *data) if p.is_file()}
        name = path.name if index.stem == "variables" else index.stem
        return {name: _tensorflow(str(index.with_suffix("")))}, hashes, index.stem
    try:
        available = _available(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--source={source} cannot be read: {error}")
    if path.is_file() and list(available) == [path.name]:
        chosen, note = available, ""
        if epoch:
            raise UserError(f"--epoch={epoch} is for a folder: --source={source} is one file")
    else:
        chosen, note = _choose(available, names, source, epoch)
    files, hashes = {}, {}
    for name, open_file in sorted(chosen.items()):
        file = open_file()
        hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        files[pathlib.PurePosixPath(name).stem] = _load(file, name)
    return files, hashes, note


def _load(file, name):
    """A file's content, by what it begins with."""
    start = file.read(4)
    file.seek(0)
    if start == hdf5.SIGNATURE[:4] or start == b"PK\x03\x04" and _is_keras(file):
        return keras_files.load(file, name)
    return without_module(torch_files.load(file, name))


def _is_keras(file):
    try:
        return keras_files.is_archive(zipfile.ZipFile(file).namelist())
    except Exception:  # of many kinds; whoever reads it says what is wrong
        return False
    finally:
        file.seek(0)


def _array(path):
    """The `Tensor` of a .npy file."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as an array of NumPy: {error}")
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise UserError(f"{path} cannot be read as an array of NumPy: expected numbers of a floating-point type")
    return torch_files.from_array(array)


def _last_index(path, epoch):
    """Of a folder with checkpoints of TensorFlow, the .index file of the step `epoch` or of the last."""
    if (path / "saved_model.pb").is_file() and not epoch:
        index = path / "variables" / "variables.index"
        if not index.is_file():
            raise UserError(f"--source={path} is a SavedModel without {index}: give the folder with all that is in it")
        return index
    indices = [p for p in path.glob("*.index") if p.is_file()] if path.is_dir() else []
    if len(indices) < 2 and not epoch:
        return indices[0] if indices else None
    if not indices:
        return None
    steps = {m[1]: p for p in indices if (m := re.search(r"[-.](\d+)$", p.stem))}
    order = sorted(steps, key=int)
    if not order or epoch is not None and epoch not in steps:
        raise UserError(f"--source={path} has checkpoints of TensorFlow of the steps {', '.join(order) or 'none'}")
    return steps[epoch or order[-1]]


def _tensorflow(prefix):
    """The arrays of a checkpoint of TensorFlow by name, without the optimizer's."""
    import tensorflow as tf

    def reading(function, *arguments):
        try:
            return function(*arguments)
        except Exception as error:  # of many kinds
            raise UserError(f"{prefix}.index cannot be read as a checkpoint: {str(error).splitlines()[0]}")

    reader = reading(tf.train.load_checkpoint, prefix)
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    paths, content = {}, {}
    if _GRAPH in shapes:
        paths = reading(lambda: keras_files.paths_in_checkpoint(reader.get_tensor(_GRAPH)))
    for name, shape in shapes.items():
        if types[name] == tf.float32 and not re.search(r"(/Adam(_\d+)?|^beta\d_power(_\d+)?)$", name):
            read = functools.partial(lambda n: reading(reader.get_tensor, n).tobytes(), name)
            strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
            name = paths.get(name, name.removesuffix(_VALUE))
            content[name] = torch_files.Tensor(tuple(shape), "<f4", read, 0, tuple(strides))
    return content


def _available(path):
    """dict of name → function that opens it."""
    if path.is_dir():
        return {p.name: lambda p=p: open(p, "rb") for p in path.iterdir() if p.suffix in _EXTENSIONS and p.is_file()}
    if not zipfile.is_zipfile(path):
        return {path.name: lambda: open(path, "rb")}
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    if keras_files.is_archive(archive.namelist()):
        return {path.name: lambda: open(path, "rb")}
    if any(m.filename.endswith("/data.pkl") and m.filename.count("/") == 1 for m in members):
        return {path.name: lambda: open(path, "rb")}
    if any(m.filename.endswith(".index") for m in members):
        raise UserError(f"{path} holds a checkpoint of TensorFlow: unpack it, and give the folder that it is in")
    for m in members:
        parts = pathlib.PurePosixPath(m.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts:
            raise UserError(f"{path} is refused: its member '{m.filename}' points outside of the archive")
    folders = {}
    for m in members:
        if os.path.splitext(m.filename)[1] in _EXTENSIONS:
            folder, _, name = m.filename.rpartition("/")
            folders.setdefault(folder, {})[name] = lambda m=m: _member(archive, m, path)
    if not folders:
        return {}
    # A folder of earlier epochs may stand in the model's own.
    least = min(folder.count("/") if folder else -1 for folder in folders)
    top = [f for f in folders if (f.count("/") if f else -1) == least]
    if len(top) > 1:
        raise UserError(f"{path} holds several folders with checkpoints ({', '.join(sorted(top)[:4])}): unpack one")
    return folders[top[0]]


def _member(archive, info, path):
    if info.file_size > _LARGEST or info.file_size > _MOST_PACKED * (info.compress_size + 1000):
        raise UserError(
            f"{path} is refused: its member '{info.filename}' unpacks {info.compress_size} to {info.file_size} bytes"
        )
    try:
        return io.BytesIO(archive.read(info))
    except Exception as error:
        raise UserError(f"{path}: its member '{info.filename}' cannot be read: {error}")


def _choose(available, names, source, epoch):
    times = {}
    for name in available:
        for pattern in names:
            match = re.fullmatch(pattern, pathlib.PurePosixPath(name).stem)
            if match:
                times.setdefault(match["epoch"] or "latest", []).append(name)
                break
    if not times and len(available) == 1 and not epoch:
        return available, ""
    if not times:
        seen = f"it has {', '.join(sorted(available)[:5])}" if available else f"it has no {', '.join(_EXTENSIONS)}"
        raise UserError(
            f"--source={source} holds nothing named as checkpoints are ({seen}): expected files like "
            "latest_net_G_A.pth, gen_00500000.pt, net_gen_ab.pth or G_A2B.h5; or give one file"
        )
    order = sorted(times, key=lambda t: (t == "latest", t.isdigit(), int(re.sub(r"\D", "", t) or 0)))
    if epoch is not None and epoch not in times:
        raise UserError(f"--epoch={epoch}: --source={source} has {', '.join(order)}")
    if epoch is None and len(times) > 1 and not any(t == "latest" or re.search(r"\d", t) for t in times):
        # Names that are no times tell models apart, as CartoonGAN's styles.
        raise UserError(f"--source={source} holds several models: give one of --epoch={', '.join(sorted(times))}")
    chosen = epoch or order[-1]
    others = [t for t in order if t != chosen]
    note = f"epoch {chosen}" + (f", --epoch takes another ({', '.join(others[-6:])})" if others else "")
    return {name: available[name] for name in times[chosen]}, note if others or epoch else ""
