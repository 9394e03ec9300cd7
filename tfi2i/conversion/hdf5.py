"""HDF5 files as Keras writes them, without the HDF5 library, which a damaged file can crash.

Read is what h5py writes unless it is asked for more: superblock 0, groups as symbol tables, object headers of version
1, attributes that are strings, and arrays of floating-point numbers that lie in one piece. Everything else is refused
by its name: compressed or scattered arrays, arrays in other files, links that are not to a place in the file.

Source: HDF5 File Format Specification, version 3.0.
"""

import io
import math
import struct

from tfi2i.conversion.torch_files import Tensor

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Messages of object headers.
_SPACE, _TYPE, _FILES, _LAYOUT, _FILTERS, _ATTRIBUTE, _CONTINUED, _TABLE = 1, 3, 7, 8, 11, 12, 16, 17
_NEWER = {2: "group", 6: "group", 21: "list of attributes"}
_MOST_NODES = 10_000
# Bytes → bits of the exponent and of the mantissa, bias.
_FLOATS = {2: (5, 10, 15), 4: (8, 23, 127), 8: (11, 52, 1023)}


class File:
    """A file; `root` is its outermost group.

    Args:
        file: a seekable binary file, which must stay open as long as arrays are read from it.

    Raises:
        ValueError: not such a file, damaged, or one of what is not read here; so does all that follows.
    """

    def __init__(self, file):
        self._file, self.size = file, file.seek(0, io.SEEK_END)
        if self.bytes(0, 8) != SIGNATURE:
            raise ValueError("it does not begin as HDF5")
        version, offsets, lengths = self.bytes(8, 1)[0], *self.bytes(13, 2)
        if (version, offsets, lengths) != (0, 8, 8) or self.numbers("<Q", 24) != (0,):
            raise ValueError(f"it is HDF5 with a superblock of version {version}, expected 0, which Keras writes")
        if self.numbers("<Q", 40)[0] > self.size:
            raise ValueError("its end is missing")
        self.root = Object(self, *self.numbers("<Q", 64))

    def bytes(self, offset, count):
        """`count` bytes from `offset`."""
        if offset + count > self.size:
            raise ValueError(f"it ends before byte {offset + count}")
        self._file.seek(offset)
        return self._file.read(count)

    def numbers(self, form, offset):
        """What `struct` reads from `offset`."""
        return struct.unpack(form, self.bytes(offset, struct.calcsize(form)))


class Object:
    """A group or an array of a file.

    Attributes:
        attributes: dict of name → string, or list of strings; those of other types are left out.
    """

    def __init__(self, file, offset):
        self._file = file
        messages = _messages(file, offset)
        for kind, _ in messages:
            if kind in _NEWER:
                raise ValueError(f"it has a {_NEWER[kind]} of a newer form of HDF5 than Keras writes")
        self._messages = dict(reversed(messages))
        self.attributes = {}
        for kind, content in messages:
            if kind == _ATTRIBUTE:
                name, value = _attribute(file, content)
                if value is not None:
                    self.attributes[name] = value
        self._entries = None

    @property
    def is_group(self):
        return _TABLE in self._messages

    @property
    def entries(self):
        """dict of name → where it is in the file, of a group's members in the order of their names."""
        if self._entries is None:
            self._entries = _entries(self._file, *struct.unpack("<2Q", self._messages[_TABLE][:16]))
        return self._entries

    def __contains__(self, path):
        member = self
        for name in path.split("/"):
            if not member.is_group or name not in member.entries:
                return False
            member = member[name]
        return True

    def __getitem__(self, path):
        member = self
        for name in path.split("/"):
            if not member.is_group or name not in member.entries:
                raise ValueError(f"it has no {path}")
            entry = member.entries[name]
            if entry is None:
                raise ValueError(f"{path} is a link to somewhere else, which Keras never writes")
            member = Object(member._file, entry)
        return member

    def tensor(self):
        """The array, as a `Tensor`."""
        if not {_SPACE, _TYPE, _LAYOUT} <= self._messages.keys():
            raise ValueError("a group, or something without numbers, stands where an array is expected")
        if self._messages.keys() & {_FILTERS, _FILES}:
            raise ValueError("an array is compressed, or in another file, which Keras never does")
        shape, dtype = _shape(self._messages[_SPACE]), _float(self._messages[_TYPE])
        layout = self._messages[_LAYOUT]
        if layout[:2] != b"\x03\x01":
            raise ValueError("an array does not lie in one piece, which Keras' do")
        offset, size = struct.unpack("<2Q", layout[2:18])
        if size != math.prod(shape) * int(dtype[2:]):
            raise ValueError(f"an array of the shape {shape} has {size} bytes")
        file = self._file
        file.bytes(offset if size else 0, size)
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        return Tensor(shape, dtype, lambda: file.bytes(offset, size), 0, strides)


def _messages(file, offset):
    """(kind, content) of every message in an object's header."""
    version, _, count, _, size = file.numbers("<BBHII", offset)
    if version != 1:
        raise ValueError("it has an object of a newer form of HDF5 than Keras writes, or none where one should be")
    messages, blocks = [], [(offset + 16, size)]
    for start, length in blocks:
        block, at = file.bytes(start, length), 0
        if sum(length for _, length in blocks) > file.size:
            raise ValueError("an object's header is knotted")
        while at + 8 <= length and len(messages) < count:
            kind, size, flags = struct.unpack_from("<HHB", block, at)
            content = block[at + 8 : at + 8 + size]
            if len(content) != size or flags & 2:
                raise ValueError("an object's header is cut or shared")
            if kind == _CONTINUED:
                blocks.append(struct.unpack("<2Q", content[:16]))
            messages.append((kind, content))
            at += 8 + size
    return messages


def _entries(file, tree, heap):
    """dict of name → offset of the object's header, or None for a link."""
    if file.bytes(heap, 5) != b"HEAP\0":
        raise ValueError("a group has no names")
    size, _, start = file.numbers("<3Q", heap + 8)
    names = file.bytes(start, size)
    entries, seen, nodes = {}, set(), [(tree, None)]
    for offset, expected in nodes:
        if offset in seen or len(seen) > _MOST_NODES:
            raise ValueError("a group is knotted")
        seen.add(offset)
        if expected == -1:
            signature, version, _, count = file.numbers("<4sBBH", offset)
            if signature != b"SNOD" or version != 1:
                raise ValueError("a group is damaged")
            for i in range(count):
                name, header, cache = file.numbers("<QQI", offset + 8 + 40 * i)
                end = names.index(b"\0", name)
                entries[names[name:end].decode()] = None if cache == 2 else header
            continue
        signature, kind, level, count = file.numbers("<4sBBH", offset)
        if signature != b"TREE" or kind != 0 or expected not in (None, level):
            raise ValueError("a group is damaged")
        children = file.numbers(f"<{2 * count}Q", offset + 32)[::2] if count else ()
        nodes += [(child, level - 1) for child in children]
    return entries


def _attribute(file, content):
    """(name, string or list of strings, or None for another type) of an attribute message."""
    version, flags, *sizes = struct.unpack_from("<BBHHH", content)
    if version not in (1, 2, 3) or version > 1 and flags:
        raise ValueError(f"an attribute is of version {version}, or shared")
    at, parts = 9 if version == 3 else 8, []
    for size in sizes:
        parts.append(content[at : at + size])
        at += -(-size // 8) * 8 if version == 1 else size
    name, kind, space = parts
    shape, data = _shape(space), content[at:]
    text = _strings(file, kind, math.prod(shape), data)
    return name.rstrip(b"\0").decode(), text[0] if text and not shape else text


def _strings(file, kind, count, data):
    """Strings of a fixed length, or each in a heap; None for another type."""
    number, flags, _, size = struct.unpack_from("<BBHI", kind)
    if number & 15 == 3:
        if not size or size * count > len(data):
            raise ValueError("an attribute is cut")
        return [data[size * i : size * (i + 1)].rstrip(b"\0").decode() for i in range(count)]
    if number & 15 == 9 and flags & 15 == 1:
        if 16 * count > len(data):
            raise ValueError("an attribute is cut")
        return [_from_heap(file, *struct.unpack_from("<IQI", data, 16 * i)).decode() for i in range(count)]
    return [] if count == 0 else None


def _from_heap(file, length, heap, index):
    signature, version, size = file.numbers("<4sB3xQ", heap)
    if signature != b"GCOL" or version != 1:
        raise ValueError("a string is not where it should be")
    block, at = file.bytes(heap, size), 16
    while at + 16 <= size:
        number, stored = struct.unpack_from("<H6xQ", block, at)
        if number == index and length <= stored and at + 16 + length <= size:
            return block[at + 16 : at + 16 + length]
        at += 16 + -(-stored // 8) * 8
    raise ValueError("a string is not where it should be")


def _shape(content):
    version, rank, flags = content[:3]
    start = {1: 8, 2: 4}.get(version)
    if start is None or rank > 32 or version == 2 and content[3] > 1:
        raise ValueError("a shape is of another form than Keras writes")
    return struct.unpack_from(f"<{rank}Q", content, start)


def _float(content):
    """numpy's name of a type of floating-point numbers."""
    kind, order, _, size = struct.unpack_from("<BBHI", content)
    if kind & 15 != 1 or size not in _FLOATS or order & 64:
        raise ValueError("an array is not of floating-point numbers")
    first, bits, at, exponent, start, mantissa, bias = struct.unpack_from("<HHBBBBI", content, 8)
    if (first, bits, at, start) != (0, 8 * size, mantissa, 0) or (exponent, mantissa, bias) != _FLOATS[size]:
        raise ValueError("an array is of an unusual kind of floating-point numbers")
    return f"{'>' if order & 1 else '<'}f{size}"
