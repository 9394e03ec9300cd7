"""PyTorch's files without PyTorch: reads both container formats, writes the newer one.

A file of `torch.save` is a pickle beside raw numbers. Python's own unpickler calls whatever a pickle names, so it is
not used here: the few instructions that tensors, dictionaries and plain values need are carried out one by one, and
anything else is refused by its name. Nothing that stands in a file is ever called or extracted.

Formats: a zip archive with `data.pkl` and one uncompressed member for each storage (PyTorch since 1.6); before that a
stream of five pickles (magic number, version, machine, object, keys of the storages) and the storages behind them.
"""

import contextlib
import dataclasses
import io
import math
import pickletools
import struct
import zipfile

import numpy as np

from tfi2i.config import UserError

_MAGIC = 0x1950A86A20F9469CFC6C
_STREAM_VERSION = 1001
_MAX_INSTRUCTIONS = 5_000_000
_DTYPES = {
    "Float": "<f4", "Double": "<f8", "Half": "<f2", "BFloat16": "bfloat16", "Long": "<i8", "Int": "<i4",
    "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?",
}  # fmt: skip
_STORAGES = {f"{module} {name}Storage": dtype for module in ("torch", "torch.cuda") for name, dtype in _DTYPES.items()}
_CALLS = {
    "collections OrderedDict", "torch Size", "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a file; its numbers are read when they are asked for.

    Attributes:
        shape: tuple of ints.
        dtype: numpy's name of the type, or "bfloat16".
    """

    shape: tuple
    dtype: str
    _read: object = dataclasses.field(repr=False)
    _offset: int = dataclasses.field(repr=False)
    _strides: tuple = dataclasses.field(repr=False)

    def numpy(self):
        """The numbers, an array of `shape`; bfloat16 as float32.

        Raises:
            UserError: the file is damaged where they stand.
        """
        numbers = np.frombuffer(self._read(), "<u2" if self.dtype == "bfloat16" else self.dtype)
        strides = [s * numbers.itemsize for s in self._strides]
        array = np.ndarray(self.shape, numbers.dtype, numbers, self._offset * numbers.itemsize, strides)
        return (array.astype("<u4") << 16).view("<f4") if self.dtype == "bfloat16" else array


def from_array(array):
    """A `Tensor` of an array of numpy, for arrays that come from elsewhere."""
    array = np.ascontiguousarray(array)
    strides = tuple(s // array.itemsize for s in array.strides)
    return Tensor(array.shape, array.dtype.str, array.tobytes, 0, strides)


def load(file, name):
    """Reads a file of `torch.save`.

    Args:
        file: a seekable binary file, which must stay open as long as tensors are read from it.
        name: what error messages call it.

    Returns:
        What was saved: dicts (for ordered ones too), lists, tuples, strings, numbers, bools, None and `Tensor`s.

    Raises:
        UserError: not such a file, damaged, or one that holds anything else.
    """
    with _readable(name):
        start = file.read(512)
        file.seek(0)
        if start[:4] == b"PK\x03\x04":
            return _load_zip(file, name)
        if start[257:262] == b"ustar":
            raise UserError(
                f"{name} is in the tar format of PyTorch before 0.2, which is not read here: "
                "load it and save it again with a later PyTorch"
            )
        if start[:1] != b"\x80":
            raise UserError(f"{name} is not a file of torch.save")
        return _load_stream(file, name)


@contextlib.contextmanager
def _readable(name):
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{name} cannot be read as a PyTorch file, it is damaged or something else: {reason}")


def _load_zip(file, name):
    archive = zipfile.ZipFile(file)
    members = {info.filename: info for info in archive.infolist()}
    roots = [n.removesuffix("data.pkl") for n in members if n.endswith("/data.pkl") and n.count("/") == 1]
    if len(roots) != 1:
        raise UserError(f"{name} is a zip archive, but not one of torch.save: it has no data.pkl")
    root = roots[0]
    if f"{root}constants.pkl" in members or any(n.startswith(f"{root}code/") for n in members):
        raise UserError(f"{name} is a TorchScript program: expected the weights alone (a state_dict)")

    def member(n):
        info = members.get(f"{root}{n}")
        if info is None:
            raise ValueError(f"it has no {n}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise ValueError(f"{n} is compressed or encrypted, which torch.save never does")
        return info

    def read(info):
        with _readable(name):
            return archive.read(info)

    if f"{root}byteorder" in members and read(member("byteorder")) != b"little":
        raise UserError(f"{name} holds big-endian numbers, which are not read here")

    def storage(key, dtype, count):
        info = member(f"data/{key}")
        if info.file_size != count * _itemsize(dtype):
            raise ValueError(f"storage {key} has {info.file_size} bytes, not {count} numbers of {dtype}")
        return lambda: read(info)

    return _Machine(name, storage).run(io.BytesIO(read(member("data.pkl"))))


def _load_stream(file, name):
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    plain = _Machine(name, None)
    if plain.run(file) != _MAGIC:
        raise UserError(f"{name} is a pickle, but not one of torch.save")
    if plain.run(file) != _STREAM_VERSION:
        raise UserError(f"{name} is of an unknown version of PyTorch's stream format")
    if plain.run(file).get("little_endian") is not True:
        raise UserError(f"{name} holds big-endian numbers, which are not read here")
    wanted, positions = {}, {}

    def storage(key, dtype, count):
        if wanted.setdefault(key, (dtype, count)) != (dtype, count):
            raise ValueError(f"storage {key} is described in two ways")

        def read():
            with _readable(name):
                file.seek(positions[key])
                return file.read(count * _itemsize(dtype))

        return read

    result = _Machine(name, storage).run(file)
    for key in plain.run(file):
        dtype, count = wanted[key]
        if struct.unpack("<q", file.read(8)) != (count,):
            raise ValueError(f"storage {key} has another length than its description")
        positions[key] = file.tell()
        if file.seek(count * _itemsize(dtype), io.SEEK_CUR) > size:
            raise ValueError("it ends too early")
    if set(positions) != set(wanted):
        raise ValueError("storages are missing")
    return result


def _itemsize(dtype):
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


@dataclasses.dataclass(frozen=True)
class _Name:
    """What a pickle names: a storage type, or something in `_CALLS`. Not the thing itself."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    read: object
    dtype: str
    start: int
    count: int


class _Machine:
    """Carries out a pickle's instructions; `storage` is (key, dtype, count) → function that reads its bytes."""

    def __init__(self, name, storage):
        self.name, self.storage = name, storage

    def run(self, file):
        """The object of the pickle that starts at the file's position, which is moved behind it."""
        self.stack, self.memo, self.marks = [], {}, []
        for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
            if count > _MAX_INSTRUCTIONS:
                raise ValueError("its pickle is absurdly long")
            name = instruction.name
            if name == "STOP":
                return self.stack.pop()
            if name in _LITERALS:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in ("BINPUT", "LONG_BINPUT"):
                self.memo[argument] = self.stack[-1]
            elif name == "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[argument])
            elif name not in ("PROTO", "FRAME"):
                method = getattr(self, f"do_{name.lower()}", None)
                if method is None:
                    raise UserError(f"{self.name} holds more than tensors and plain values: pickle instruction {name}")
                method(argument)
        raise ValueError("its pickle has no end")

    def since_mark(self):
        position = self.marks.pop()
        taken = self.stack[position:]
        del self.stack[position:]
        return taken

    def do_mark(self, _):
        self.marks.append(len(self.stack))

    def do_tuple(self, _):
        self.stack.append(tuple(self.since_mark()))

    def do_tuple1(self, _):
        self.stack[-1:] = [(self.stack[-1],)]

    def do_tuple2(self, _):
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def do_tuple3(self, _):
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def do_append(self, _):
        self.extend([self.stack.pop()])

    def do_appends(self, _):
        self.extend(self.since_mark())

    def extend(self, values):
        _expect(self.stack[-1], list).extend(values)

    def do_setitem(self, _):
        key, value = self.stack[-2:]
        del self.stack[-2:]
        self.update([(key, value)])

    def do_setitems(self, _):
        values = self.since_mark()
        self.update(zip(values[::2], values[1::2], strict=True))

    def update(self, pairs):
        _expect(self.stack[-1], dict).update({_expect(k, (str, int)): v for k, v in pairs})

    def do_global(self, argument):
        known = _CALLS | _STORAGES.keys()
        if argument not in known:
            raise UserError(
                f"{self.name} is refused: loading it with PyTorch would import and could run "
                f"'{argument.replace(' ', '.')}'. Only tensors, dictionaries and plain values are read: expected the "
                "weights alone (a state_dict)"
            )
        self.stack.append(_Name(argument))

    def do_stack_global(self, _):
        module, name = (_expect(x, str) for x in self.stack[-2:])
        del self.stack[-2:]
        self.do_global(f"{module} {name}")

    def do_build(self, _):
        # The attributes of an ordered dictionary: versions of the layers, of no use here.
        self.stack.pop()
        _expect(self.stack[-1], dict)

    def do_binpersid(self, _):
        kind, storage, key, _, count, *view = _expect(self.stack.pop(), tuple)
        dtype = _STORAGES[_expect(storage, _Name).name]
        if kind != "storage" or self.storage is None:
            raise ValueError("it refers to something that is no storage")
        count, start, length = _number(count), 0, _number(count)
        read = self.storage(_expect(key, str), dtype, count)
        if view and view[0] is not None:
            start, length = (_number(x) for x in view[0][1:])
            if start + length > count:
                raise ValueError(f"a view of storage {key} reaches beyond its end")
        self.stack.append(_Storage(read, dtype, start, length))

    def do_reduce(self, _):
        arguments = _expect(self.stack.pop(), tuple)
        name = _expect(self.stack.pop(), _Name).name.split()[1]
        if name == "OrderedDict":
            pairs = _expect(arguments[0], (list, tuple)) if arguments else ()
            self.stack.append({_expect(k, (str, int)): v for k, v in pairs})
        elif name == "Size":
            self.stack.append(tuple(_number(n) for n in _expect(arguments[0], (list, tuple))))
        elif name == "_rebuild_parameter":
            self.stack.append(_expect(arguments[0], Tensor))
        elif name.startswith("_rebuild_tensor"):
            self.stack.append(_tensor(*arguments[:4]))
        else:
            raise ValueError(f"it calls the type {name}")


_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
}  # fmt: skip
_CONSTANTS = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list, "EMPTY_DICT": dict,
}  # fmt: skip


def _expect(value, kind):
    if not isinstance(value, kind):
        raise ValueError(f"it has a {type(value).__name__} in a place where none belongs")
    return value


def _number(value):
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError("a size in it is not a number, negative or absurd")
    return value


def _tensor(storage, offset, shape, strides):
    _expect(storage, _Storage)
    shape, strides = (tuple(_number(n) for n in _expect(x, (list, tuple))) for x in (shape, strides))
    offset = _number(offset)
    if len(shape) != len(strides) or len(shape) > 16:
        raise ValueError("a tensor's shape and strides do not go together")
    # An expanded tensor repeats numbers without end; weights are never saved so.
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides))
    if math.prod(shape) > storage.count or (0 not in shape and last >= storage.count):
        raise ValueError("a tensor reaches beyond its storage")
    return Tensor(shape, storage.dtype, storage.read, storage.start + offset, strides)


# ---------------------------------------------------------------------------------------------------------------------


def save(path, state):
    """Writes what `torch.load(path, weights_only=True)` reads as a state dictionary, in PyTorch's zip format.

    Args:
        path: path of a file, or a binary file. The same state gives the same bytes.
        state: dict of name → array (float32 or int64) or another such dict.
    """
    arrays = []
    pickle = b"\x80\x02" + _pickled(state, arrays) + b"."
    with zipfile.ZipFile(path, "w") as archive:

        def write(name, content):
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)

        write("data.pkl", pickle)
        write("byteorder", b"little")
        for i, array in enumerate(arrays):
            write(f"data/{i}", array.tobytes())
        write("version", b"3\n")


def _pickled(state, arrays):
    parts = []
    for name, value in state.items():
        key = name.encode()
        parts.append(b"X" + struct.pack("<I", len(key)) + key)
        if isinstance(value, dict):
            parts.append(_pickled(value, arrays))
            continue
        array = np.asarray(value)
        kind = {"float32": b"Float", "int64": b"Long"}[array.dtype.name]
        array = array.astype(array.dtype.newbyteorder("<")).reshape(array.shape, order="C")
        strides = [s // array.itemsize for s in np.ascontiguousarray(array).strides] if array.ndim else []
        number = str(len(arrays)).encode()
        storage = b"(X\x07\0\0\0storagectorch\n" + kind + b"Storage\n"
        storage += b"X" + struct.pack("<I", len(number)) + number + b"X\x03\0\0\0cpu" + _int(array.size) + b"tQ"
        view = storage + _int(0) + _ints(array.shape) + _ints(strides)
        parts.append(b"ctorch._utils\n_rebuild_tensor_v2\n(" + view + b"\x89" + _EMPTY + b"tR")
        arrays.append(array)
    return _EMPTY + b"(" + b"".join(parts) + b"u"


_EMPTY = b"ccollections\nOrderedDict\n)R"


def _int(n):
    return b"J" + struct.pack("<i", n)


def _ints(numbers):
    return b"(" + b"".join(map(_int, numbers)) + b"t"
