"""Reading and writing torch.save's files: whole ones, damaged ones, and ones made to do harm."""

import io
import os
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest

from tests.damage import damaged
from tfi2i.config import UserError
from tfi2i.conversion import torch_files

CHECKPOINTS = pathlib.Path(__file__).parent / "golden" / "checkpoints"
STATE = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "counter": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "inner": {"bias": np.array([0.5, -1.5], np.float32)},
}


def saved(state=STATE):
    file = io.BytesIO()
    torch_files.save(file, state)
    return file.getvalue()


def member(archive, name):
    """A torch file out of one of the golden archives."""
    with zipfile.ZipFile(CHECKPOINTS / archive) as packed:
        return packed.read(f"{pathlib.Path(archive).stem}/{name}")


def load(content, name="file.pth"):
    return torch_files.load(io.BytesIO(content), name)


def arrays(content):
    """Every tensor of a loaded file, read; the depth of what is looked at is bounded."""
    if isinstance(content, torch_files.Tensor):
        return content.numpy()
    return {k: arrays(v) for k, v in content.items()} if isinstance(content, dict) else content


def zipped(members, **kwargs):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **kwargs) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def stream(body, storages=()):
    """The older format around a pickle; `storages`: (key, numbers as bytes, count)."""
    parts = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    parts += [body, pickle.dumps([key for key, *_ in storages], 2)]
    return b"".join([*parts, *[struct.pack("<q", count) + data for _, data, count in storages]])


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def reference(key="0", count=2, kind="torch\nFloatStorage"):
    return b"(" + text("storage") + b"c" + kind.encode() + b"\n" + text(key) + text("cpu") + pickled(count) + b"tQ"


def pickled(value):
    """The instructions of a plain value alone."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(storage=None, offset=0, shape=(2,), strides=(1,), call="_rebuild_tensor"):
    view = (storage or reference()) + pickled(offset) + pickled(shape) + pickled(strides)
    return b"ctorch._utils\n" + call.encode() + b"\n(" + view + b"tR"


def test_what_is_written_is_read_back():
    content = load(saved())
    assert list(content) == list(STATE) and content["conv.weight"].shape == (2, 3, 2, 2)
    for name in ("conv.weight", "transposed", "counter", "empty"):
        found = content[name].numpy()
        assert found.dtype == STATE[name].dtype
        np.testing.assert_array_equal(found, STATE[name])
    np.testing.assert_array_equal(content["inner"]["bias"].numpy(), [0.5, -1.5])
    assert saved() == saved()


def test_a_stream_written_by_hand():
    """Old tensors, strings of Python 2, views, and types that weights come in."""
    numbers = np.array([1, 2, 3, 4, 5, 6], "<f4").tobytes()
    short = b"U\x01w" + tensor(reference("9", 6), 1, (2, 2), (1, 2))
    half = text("h") + tensor(reference("8", 2, "torch.cuda\nHalfStorage"), call="_rebuild_tensor")
    brain = text("b") + tensor(reference("7", 2, "torch\nBFloat16Storage"))
    # With attributes, as a state_dict has: {"_metadata": {}}.
    body = b"\x80\x02ccollections\nOrderedDict\n)R(" + short + half + brain + b"u}U\x09_metadata}sb."
    storages = [
        ("7", np.array([0x3F80, 0xC000], "<u2").tobytes(), 2),  # 1 and -2
        ("8", np.array([0.5, 8], "<f2").tobytes(), 2),
        ("9", numbers, 6),
    ]
    content = load(stream(body, storages))
    np.testing.assert_array_equal(content["w"].numpy(), [[2, 4], [3, 5]])
    np.testing.assert_array_equal(content["h"].numpy(), [0.5, 8])
    np.testing.assert_array_equal(content["b"].numpy(), [1, -2])


@pytest.mark.parametrize(
    "archive, name",
    [
        ("cyclegan_released.zip", "latest_net_G.pth"),
        ("cyclegan_dropout.zip", "20_net_G_B.pth"),
        ("cyclegan_batch.zip", "latest_net_D_A.pth"),
    ],
)
def test_files_of_torch_itself(archive, name):
    content = load(member(archive, name))
    first = next(iter(content.values())).numpy()
    assert first.shape[0] == 1 and np.isfinite(first).all() and first.any()
    np.testing.assert_array_equal(first * 256, np.round(first * 256))  # as tools/golden makes them


SMALL_FILES = {
    "zip": lambda: saved(),
    "stream": lambda: stream(
        b"\x80\x02}(" + text("a") + tensor() + text("b") + tensor(reference("1")) + b"u.",
        [("0", bytes(8), 2), ("1", bytes(8), 2)],
    ),
    "torch's zip": lambda: member("cyclegan_batch.zip", "latest_net_D_A.pth"),
    "torch's stream": lambda: member("unit_2018.zip", "dis_00000300.pt"),
}


@pytest.mark.parametrize("kind", SMALL_FILES)
def test_damaged_files_load_or_are_refused(kind):
    """Any truncation and any flipped bits: never another error than `UserError`."""
    whole = SMALL_FILES[kind]()
    arrays(load(whole))
    refused = 0
    for file in damaged(whole, 400):
        try:
            arrays(load(file))
        except UserError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
@pytest.mark.parametrize("kind", SMALL_FILES)
def test_truncated_files_are_refused(kind, cut):
    with pytest.raises(UserError, match="file.pth"):
        arrays(load(SMALL_FILES[kind]()[:cut]))


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("container", ["zip", "stream", "pickle"])
def test_no_code_is_run(container, protocol, tmp_path):
    body = pickle.dumps({"weight": Harm(tmp_path / "harm")}, protocol)
    content = {
        "zip": zipped({"archive/data.pkl": body, "archive/version": b"3"}),
        "stream": stream(body),
        "pickle": body,
    }[container]
    with pytest.raises(UserError, match="would import and could run 'posix.system'"):
        load(content)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "name",
    ["builtins eval", "torch.storage _load_from_bytes", "torch.nn.modules.conv Conv2d", "numpy.core.multiarray scalar"],
)
def test_anything_else_is_refused_by_its_name(name):
    body = b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n" + pickled("1") + b"\x85R."
    with pytest.raises(UserError, match=f"'{name.replace(' ', '.')}'. Only tensors"):
        load(stream(body))


HOSTILE = {
    "instance": b"(ios\nsystem\n.",
    "object": b"(" + b"cos\nsystem\n" + b"o.",
    "called type": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "called string": b"\x80\x02" + pickled("x") + b")R.",
    "attributes of a tensor": b"\x80\x02" + tensor() + b"}b.",
    "attributes of a type": b"\x80\x02ctorch\nSize\n}b.",
    "extension": b"\x80\x02\x82\x01.",
    "memory of the unpickler": b"\x80\x02Nr\xff\xff\xff\xff0.",
    "huge string": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b".",
    "unhashable key": b"\x80\x02}]Ns.",
    "deep key": b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
    "no end": b"\x80\x02N",
    "nothing on the stack": b"\x80\x02.",
    "no mark": b"\x80\x02t.",
    "huge shape": b"\x80\x02" + tensor(shape=(2**40, 2**40)) + b".",
    "negative shape": b"\x80\x02" + tensor(shape=(-1,)) + b".",
    "negative offset": b"\x80\x02" + tensor(offset=-1) + b".",
    "shape of text": b"\x80\x02" + tensor(shape=("2",)) + b".",
    "beyond the storage": b"\x80\x02" + tensor(offset=1) + b".",
    "strides beyond the storage": b"\x80\x02" + tensor(strides=(2,)) + b".",
    "expanded": b"\x80\x02" + tensor(shape=(1000, 1000), strides=(0, 0)) + b".",
    "storage of another length": b"\x80\x02" + tensor(reference(count=3), shape=(3,)) + b".",
    "huge storage": b"\x80\x02" + tensor(reference(count=2**61), shape=(1,)) + b".",
    "storage that is not there": b"\x80\x02" + tensor(reference("../../etc/passwd")) + b".",
    "storage without a name": b"\x80\x02" + tensor(b"(" + text("storage") + b"ctorch\nFloatStorage\nNNNtQ") + b".",
}


@pytest.mark.parametrize("container", ["zip", "stream"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles_are_refused(kind, container):
    body = HOSTILE[kind]
    if container == "zip":
        content = zipped({"archive/data.pkl": body, "archive/data/0": bytes(8)})
    else:
        content = stream(body, [("0", bytes(8), 2)])
    with pytest.raises(UserError, match="file.pth"):
        arrays(load(content))


def test_endless_repetition_costs_nothing():
    """A list of ten lists of ten lists …, which is small in the file and huge when walked."""
    body = b"\x80\x02]q\x00"
    for i in range(40):
        body += b"](" + b"h%c" % i * 10 + b"eq%c" % (i + 1)
    assert isinstance(load(stream(body + b".")), list)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is not a file of torch.save"),
        (b"\x89PNG\r\n\x1a\n", "is not a file of torch.save"),
        (pickle.dumps({"a": 1}, 2), "is a pickle, but not one of torch.save"),
        (zipped({"a/b.txt": b""}), "is a zip archive, but not one of torch.save"),
        (zipped({"a/data.pkl": b"", "a/constants.pkl": b""}), "is a TorchScript program"),
        (zipped({"a/data.pkl": b"\x80\x02N.", "a/byteorder": b"big"}), "big-endian"),
        (zipped({"a/data.pkl": b"\x80\x02" + b"N0" * 9 + b"N."}, compression=zipfile.ZIP_DEFLATED), "is compressed"),
        (bytes(257) + b"ustar" + bytes(300), "tar format of PyTorch before"),
    ],
)
def test_foreign_files(content, message):
    with pytest.raises(UserError, match=f"file.pth .*{message}"):
        load(content)
