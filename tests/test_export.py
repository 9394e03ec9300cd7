"""Exported files: what they compute, how they are judged, what is left when they fail."""

import base64
import hashlib
import io
import itertools
import json
import math
import pathlib
import re
import struct
import subprocess
import sys
import types
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image, ImageColor, ImageOps
from tensorflow.core.protobuf import config_pb2
from tfi2i.export import (
    FLOORS,
    FloorError,
    export,
    exporter,
    image_bytes,
    litert,
    quantization,
    ranges,
    reporting,
    saved_model,
    serving,
    verify,
)
from tfi2i.export import __main__ as export_command
from tfi2i.export.__main__ import parse_floors
from tfi2i.export.graph import Graph

import tfi2i
from tests.marks import thorough
from tests.own_flags import call
from tfi2i import checkpoints, layers, pictures, run_directory, settings, translation
from tfi2i.config import Data, UserError
from tfi2i.data import images, sources
from tfi2i.methods.cyclegan import config
from tfi2i.methods.sizes import Sizes, cut, pad, padded
from tfi2i.methods.translator import Translator

SIZE = (32, 36)
KINDS = ("float32", "float16", "dynamic", "int8", "int8_full", "int16x8", "gpu")
# Random weights are far harder to quantize than trained ones.
EASY = {"float16": 40.0, "gpu": 40.0} | dict.fromkeys(("dynamic", "int8", "int8_full", "int16x8"), 15.0)


def tiny(**hyperparameters):
    small = {"generator": "resnet_6blocks", "generator_width": 4, "discriminator_width": 4}
    model = tfi2i.CycleGAN(**small | {"init_gain": 0.1} | hyperparameters)
    model.build((None, None, None, model.channels_a))
    return model


class Convolutions(Translator):
    """Two convolutions translate each way: soon exported, and enough where the network does not matter.

    Args:
        sizes: `Sizes` that it says it takes.
        **kwargs: of `Translator`.
    """

    config_class = config.CycleGAN

    def __init__(self, sizes=Sizes(multiple=4, minimum=8), **kwargs):
        super().__init__(**kwargs)
        self.sizes = sizes
        self.generator_a2b, self.generator_b2a = (self.convolutions(seed) for seed in (1, 2))
        self.build((None, None, None, 3))

    def convolutions(self, seed):
        shared = {"kernel_size": 3, "pad": 1, "pad_mode": "reflect", "dtype": self.dtype_policy}
        start = keras.initializers.RandomNormal(stddev=0.2, seed=seed)
        inner = layers.Conv2D(4, activation="relu", kernel_initializer=start, **shared)
        return keras.Sequential([inner, layers.Conv2D(3, activation="tanh", kernel_initializer=start, **shared)])

    @property
    def networks(self):
        return {"generator_a2b": self.generator_a2b, "generator_b2a": self.generator_b2a}

    @property
    def generators(self):
        return {"a2b": self.generator_a2b, "b2a": self.generator_b2a}


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def simple():
    return Convolutions()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """The folder of an export in all formats, and its report."""
    folder = tmp_path_factory.mktemp("export") / "out"
    few = {"calibration_images": 3, "verification_images": 3}
    data = Data(data="emoji")
    report = export(model, folder, formats=tuple(FLOORS), size=SIZE, data=data, floors=EASY, log=lambda _: None, **few)
    return folder, report


@pytest.fixture(scope="module")
def session(exported):
    """Function of a signature's name and its input, which runs it as servers do: no shape is compared before."""
    with tf.Graph().as_default():
        session = tf.compat.v1.Session()
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(exported[0] / "1"))

    def run(name, value):
        signature = loaded.signature_def[name]
        ends = {"feed": signature.inputs.values(), "fetch": signature.outputs.values()}
        options = config_pb2.CallableOptions(**{end: [tensor.name for tensor in ends[end]] for end in ends})
        return session._make_callable_from_options(options)(value)

    yield run
    session.close()


@pytest.fixture(scope="module")
def served(exported):
    return tf.saved_model.load(str(exported[0] / "1"))


def picture(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def encoded(pixels, form="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------ scores


def test_score_pools_squared_errors():
    score = verify.Score()
    zeros = np.zeros((1, 2, 2, 3), np.float32)
    score.add("one", zeros, zeros + np.float32(1))
    score.add("three", zeros, zeros + np.float32(3))
    # Mean squared error (1 + 9) / 2 = 5, where the mean of the images' decibels would say 43.4.
    assert score.psnr == pytest.approx(10 * np.log10(65025 / 5))
    summary = score.summary()
    assert summary["worst"] == {"psnr": pytest.approx(10 * np.log10(65025 / 9)), "image": "three"}
    assert summary["off_by_more_than_one_level"] == 0.5
    assert not summary["exact"]


def test_score_rounds_the_reference_for_uint8_only():
    reference = np.array([9.4, 9.6, -3.0, 300.0], np.float32).reshape(1, 2, 2, 1)
    rounded = np.array([9, 10, 0, 255], np.uint8).reshape(1, 2, 2, 1)
    score = verify.Score()
    score.add("x", reference, rounded)
    assert score.summary()["exact"] and score.summary()["psnr"] is None
    score.add("y", reference[:, :1], rounded[:, :1].astype(np.float32))
    assert score.psnr == pytest.approx(10 * np.log10(65025 / (2 * 0.16 / 6)), rel=1e-5)


def test_nan_is_below_every_floor():
    score = verify.Score()
    score.add("x", np.zeros((1, 1, 1, 1), np.float32), np.full((1, 1, 1, 1), np.nan, np.float32))
    assert len(verify.floor_faults("float32", score, None, (-1000.0, -1000.0))) == 2
    assert score.summary()["off_by_more_than_one_level"] == 1
    json.dumps(score.summary(), allow_nan=False)


def test_nan_stays_the_worst_image():
    score = verify.Score()
    zero = np.zeros((1, 1, 1, 1), np.float32)
    for name, level in (("good", 1), ("broken", np.nan), ("bad", 100), ("broken too", np.nan)):
        score.add(name, zero, zero + np.float32(level))
    assert score.images == 4
    assert score.summary()["worst"] == {"psnr": None, "image": "broken"}


def test_floor_above_what_rounding_leaves_is_asked_before_rounding():
    good, rounded = verify.Score(), verify.Score()
    zero = np.zeros((1, 10, 10, 1), np.float32)
    good.add("x", zero, zero + np.float32(0.01))
    flipped = zero.astype(np.uint8)
    flipped[0, 0, 0, 0] = 1  # 1 % of the values one level off: 68 dB
    rounded.add("x", zero, flipped)
    assert verify.floor_faults("float32", rounded, good, (70.0, 60.0)) == []
    assert "before rounding" in verify.floor_faults("float32", good, rounded, (70.0, 60.0))[0]
    assert "the floor is 70 dB" in verify.floor_faults("float32", rounded, None, (70.0, 60.0))[0]


def test_the_worst_image_has_a_floor_of_its_own():
    score, zero = verify.Score(), np.zeros((1, 1, 1, 1), np.float32)
    for i in range(99):
        score.add(f"good {i}", zero, zero)
    score.add("bad", zero, zero + np.float32(10))  # 28.1 dB alone, 48.1 dB among a hundred
    assert verify.floor_faults("int8", score, None, (48.0, 28.0)) == []
    (fault,) = verify.floor_faults("int8", score, None, (48.0, 29.0))
    assert fault == "int8: 28.1 dB in the worst image, bad, the floor is 29 dB"
    (fault,) = verify.floor_faults("int8", score, None, (49.0, 28.0))
    assert fault == "int8: 48.1 dB, the floor is 49 dB"


def test_an_image_that_rounding_alone_changes_everywhere_is_no_fault():
    """A grey of 101.5 on one side and of 101.4999 on the other: 48.1 dB once both are rounded, in that image."""
    before, rounded = verify.Score(), verify.Score()
    for i in range(99):
        even = np.full((1, 2, 2, 1), 7, np.float32)
        before.add(f"even {i}", even, even)
        rounded.add(f"even {i}", even, even.astype(np.uint8))
    flat = np.full((1, 2, 2, 1), 101.5, np.float32)
    before.add("flat", flat, flat - np.float32(1e-4))
    rounded.add("flat", flat, np.full(flat.shape, 101, np.uint8))
    assert rounded.worst_psnr == pytest.approx(48.13, abs=0.01)
    assert verify.floor_faults("float32", rounded, before, (70.0, 60.0)) == []
    rounded.add("off by two", flat, np.full(flat.shape, 104, np.uint8))  # 42.1 dB: more than rounding explains
    assert "in the worst image, off by two" in verify.floor_faults("float32", rounded, before, (70.0, 60.0))[0]


@pytest.mark.parametrize(
    "texts, floors",
    [
        ([], {}),
        (["30"], dict.fromkeys(FLOORS, (30.0, 20.0))),
        (["int8:35", "dynamic:38.5"], {"int8": (35.0, 25.0), "dynamic": (38.5, 28.5)}),
        (["50/45", "int8:20"], {**dict.fromkeys(FLOORS, (50.0, 45.0)), "int8": (20.0, 10.0)}),
        (["float32:400", "int8:35/30"], {"float32": (400.0, 60.0), "int8": (35.0, 30.0)}),
    ],
)
def test_min_psnr(texts, floors):
    assert parse_floors(texts) == FLOORS | floors


@pytest.mark.parametrize(
    "text, message",
    [
        *((text, "--min_psnr=") for text in ("int9:3", "int8:x", "x", "int8:", "35/", "/25")),
        ("int8:35/30/25", "the floor .* of int8: expected decibels, or a pair"),
        (
            "int8:25/35",
            "the floors of int8, 25 dB for all images pooled and 35 dB for the worst image: expected",
        ),
        ("int8:nan", "the floors of int8, nan dB"),
    ],
)
def test_min_psnr_errors(text, message):
    with pytest.raises(UserError, match=message):
        parse_floors([text])


# ------------------------------------------------------------------- other forms of our operations


@pytest.mark.parametrize(
    "layer, shape",
    [
        (layers.Conv2D(3, 3, pad=1, pad_mode="reflect"), (1, 5, 7, 2)),
        (layers.Conv2D(3, 7, pad=3, pad_mode="reflect"), (1, 4, 6, 2)),
        (layers.Conv2D(3, 3, strides=2, pad=1), (1, 6, 8, 2)),
        (layers.Conv2DTranspose(3, 3, pad=1, output_pad=1), (1, 4, 5, 2)),
        (layers.Conv2DTranspose(3, 4, pad=1, use_bias=False), (1, 4, 5, 2)),
        (layers.Conv2DTranspose(3, 5, strides=3, pad=1, activation="relu"), (1, 4, 5, 2)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_delegated_forms_compute_the_same(layer, shape):
    x = tf.random.stateless_normal(shape, (0, 1))
    layer.build(shape)
    if getattr(layer, "bias", None) is not None:
        layer.bias.assign(np.linspace(-1, 1, layer.filters))
    usual = layer(x)
    call = type(layer).call
    with litert._delegated_forms():
        assert type(layer).call is not call
        np.testing.assert_allclose(layer(x), usual, atol=1e-5)
    assert type(layer).call is call


# ---------------------------------------------------------------------------------- the files


def test_all_formats_pass(exported):
    folder, report = exported
    assert report == json.loads((folder / "report.json").read_text())
    assert report["passed"] and report["images"] == 3 and report["split"] == "test"
    assert set(report["formats"]) == set(FLOORS)
    assert report["formats"]["float32"]["before_rounding"]["psnr"] > 90
    assert report["formats"]["saved_model"]["psnr"] is None or (report["formats"]["saved_model"]["psnr"] > 70)
    with Image.open(folder / "report.png") as page:
        assert page.size[0] > 10 * SIZE[1]
    assert not list(folder.parent.glob("out.*"))


@pytest.mark.parametrize("kind", KINDS)
def test_litert_files_have_the_parts_and_conversions_that_they_need(exported, kind):
    result = exported[1]["formats"][kind]
    norms = 1 + 2 + 2 * 6 + 2  # behind every convolution but the last
    assert result["operations"]["RSQRT"] == norms and result["operations"]["CONV_2D"] == norms + 1
    # XNNPACK has no RSQRT of 8 bits, which therefore stands between two parts, and hardly anything of 16 bits.
    assert result["delegate_partitions"] == {"int8_full": norms + 1, "int16x8": 0}.get(kind, 1)
    unknown = {"MIRROR_PAD", "TRANSPOSE_CONV", "CAST", "DEPTH_TO_SPACE", "SQUARED_DIFFERENCE", "REPEAT"}
    assert not unknown & set(result["operations"])
    # Of the pixels, at one end where the other one becomes floats. In int8 besides, before convolutions of the 6
    # blocks, whose maps are a quarter as high as the image, but not those that lose most. No QUANTIZE leads from uint8
    # to int16, so two do.
    found = result["operations"].get("QUANTIZE", 0)
    if kind == "int8":
        assert 1 < found <= 2 * 6 + 1
    else:
        assert found == {"int8_full": 2, "int16x8": 4, "gpu": 0}.get(kind, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_both_numbers_of_an_operation_are_given(exported, kind):
    """One is for readers from before there were more than 127."""
    codes = Graph((exported[0] / f"{kind}.tflite").read_bytes()).model.operatorCodes
    assert all(code.deprecatedBuiltinCode == min(code.builtinCode, 127) for code in codes)


@pytest.mark.thorough
def test_openvino_computes_the_same(exported, served):
    openvino = pytest.importorskip("openvino")
    images = np.stack([picture(*SIZE, seed=seed) for seed in range(3)])
    core, exact = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}

    def run(path):
        compiled = core.compile_model(openvino.convert_model(path), "CPU", exact)
        return lambda pixels: next(iter(compiled(pixels).values()))

    expected = served.signatures["serving_default"](images=tf.constant(images))["images"].numpy().astype(int)
    assert np.abs(run(exported[0] / "1")(images) - expected).max() <= 1
    for kind in ("float32", "float16", "dynamic", "int8"):
        ours, theirs = verify.LiteRT(exported[0] / f"{kind}.tflite"), run(exported[0] / f"{kind}.tflite")
        score = verify.Score()
        for pixels in images[:, None]:
            score.add(kind, ours(pixels).astype(np.float32), theirs(pixels))
        assert score.psnr > (50 if kind == "float32" else EASY.get(kind)), kind


def test_quantized_files_are_smaller(exported):
    sizes = {kind: r["bytes"] for kind, r in exported[1]["formats"].items()}
    assert sizes["dynamic"] < sizes["float16"] < sizes["float32"]
    assert sizes["int8"] < sizes["float16"]


def test_memory_of_a_file_is_measured_while_this_process_is_large(exported):
    large = np.ones(500 << 17)  # 500 MiB, all written
    files = [exported[0] / "float32.tflite", exported[0] / "report.json"]
    used, of_no_model = (verify.alone(file, 1)["peak_memory_mib"] for file in files)
    assert large.nbytes == 500 << 20 and 1 < used < 100 and of_no_model is None


def test_files_are_compared_by_processor_time(monkeypatch):
    """What other programs take is in the time that passes alone."""
    now = np.zeros(2)  # seconds that passed, and of the processor
    clocks = types.SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[1])
    monkeypatch.setattr(verify, "time", clocks)
    others = itertools.cycle([0.0, 3.0, 0.5])

    def file(computes):
        return lambda x: np.add(now, [computes + next(others), computes], out=now)

    found = verify.latencies({"float32": file(0.2), "int8": file(0.1)}, np.zeros((1, 1, 3)), seconds=6.0)
    assert found["float32"]["processor_ms"] == pytest.approx(200) and found["int8"]["processor_ms"] == pytest.approx(
        100
    )
    assert found["int8"]["latency_ms"] > 100


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_model_runs_files_of_one_part_whole(exported, kind):
    found = exported[1]["formats"][kind]["compiled_model"]
    assert found.keys() == {"latency_ms", "processor_ms", "processor_ratio", "fully_accelerated"}
    assert found["fully_accelerated"] is (kind not in ("int8_full", "int16x8")) and 0 < found["latency_ms"]


def test_compiled_model_gives_what_the_interpreter_gives(exported):
    program = (
        "import sys, numpy as np; from tfi2i.export import verify; image = np.load(sys.argv[1])[None]\n"
        "interpreter, compiled = (form(sys.argv[2], 1)(image) for form in (verify.LiteRT, verify.Compiled))\n"
        "assert interpreter.dtype == compiled.dtype == np.uint8 and interpreter.std() > 5\n"
        "np.testing.assert_array_equal(interpreter, compiled)"
    )
    np.save(exported[0].parent / "image.npy", picture(*SIZE))
    command = [sys.executable, "-c", program, exported[0].parent / "image.npy", exported[0] / "int8.tflite"]
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


def test_what_compiled_model_cannot_run_is_skipped_with_the_reason(exported, monkeypatch, capsys):
    def refuse(*_):
        raise RuntimeError("Failed to compile\n└ a long story")

    monkeypatch.setattr(verify, "Compiled", refuse)
    verify._measure(exported[0] / "int8.tflite", "1", "0")
    memory, found = map(json.loads, capsys.readouterr().out.splitlines())
    assert "peak_memory_mib" in memory and found == {"compiled_model": {"skipped": "Failed to compile"}}
    ended = verify.alone(exported[0] / "report.json", 1)["compiled_model"]
    assert ended == {"skipped": "the process that ran the file ended with status 1"}


@pytest.mark.parametrize(
    "hyperparameters, direction, size",
    [
        ({"norm": "batch", "channels_a": 1, "lambda_identity": 0.0}, "a2b", (33, 30)),
        thorough({"generator": "unet_128", "generator_width": 2}, "a2b", (128, 128)),
        thorough({"upsample": "resize_conv"}, "b2a", (32, 32)),
        thorough({"cyclegan_variant": "tensorflow"}, "a2b", (32, 36)),
    ],
    ids=["batch norm, grey, odd size", "unet", "resize_conv", "tensorflow"],
)
def test_other_networks_convert(hyperparameters, direction, size):
    model = tiny(**hyperparameters)
    channels = model.channels_a if direction == "a2b" else model.channels_b
    file = litert.convert(model, direction, size)
    image = picture(*size, channels)[None]
    output = verify.LiteRT(file)(image)
    assert output.dtype == np.float32
    truth = model.translate(model.to_float(tf.constant(image)).numpy(), direction)
    np.testing.assert_allclose(output, (truth + 1) * 127.5, atol=0.05)
    rounded = verify.LiteRT(litert.with_pixels(file, "uint8"))(image)
    np.testing.assert_array_equal(rounded, np.rint(np.clip(output, 0, 255)))


def test_sidecar_hashes_every_file(exported):
    folder, _ = exported
    sidecar = json.loads((folder / "model.json").read_text())
    written = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    about = {"README.md", "model.json", "report.json", "report.png"}
    about |= {"1/model.json", "1/report.json", "1/report.png", "models.config", "batching.config", "monitoring.config"}
    assert set(sidecar["sha256"]) == written - about
    for name in ("model.json", "report.json", "report.png"):
        assert (folder / "1" / name).read_bytes() == (folder / name).read_bytes()
    for name, digest in sidecar["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert sidecar["direction"] == "a2b" and sidecar["value_range"] == [-1.0, 1.0]
    assert sidecar["litert"]["input"]["shape"] == [1, *SIZE, 3]
    ends = sidecar["litert"]["files"]
    assert ends.keys() == {f"{kind}.tflite" for kind in KINDS}
    levels = {"dtype": "uint8", "quantization": {"scale": 1.0, "zero_point": 0}}
    floats = {"dtype": "float32", "quantization": None}
    for kind in KINDS:
        assert ends[f"{kind}.tflite"] == dict.fromkeys(("input", "output"), floats if kind == "gpu" else levels)
    assert str(folder.parent) not in (folder / "model.json").read_text()


# ------------------------------------------------------------------------------- the SavedModel


@pytest.mark.parametrize("size", [(32, 32), (31, 45), (8, 9)])
def test_serving_default_equals_translate_at_any_size(served, model, size):
    batch = np.stack([picture(*size, seed=0), picture(*size, seed=1)])
    output = served.signatures["serving_default"](images=tf.constant(batch))
    assert set(output) == {"images"} and output["images"].dtype == tf.uint8
    truth = np.concatenate([model.translate(x[None]) for x in batch])
    assert np.abs(output["images"].numpy().astype(int) - truth).max() <= 1


def test_small_weights_are_constants_of_the_graph(simple, tmp_path, monkeypatch):
    """Of kernels of 108 numbers and biases of 4 and 3, the biases; with averages, the averages' values."""
    monkeypatch.setattr(saved_model, "_CONSTANT", 107)
    averaged = Convolutions(ema_momentum=0.5)
    for i, average in enumerate(averaged.averages["generator_a2b_average"].averages):
        average.assign(np.random.default_rng(i).normal(0, 0.2, average.shape))
    for name, model in (("plain", simple), ("averaged", averaged)):
        saved_model.write_saved_model(model, tmp_path / name, "a2b")
        served = tf.saved_model.load(str(tmp_path / name))
        for signature in served.signatures.values():
            assert [math.prod(v.shape) for v in signature.variables] == [108, 108]
        x = picture(9, 14)[None]
        output = served.signatures["serving_default"](images=tf.constant(x))["images"].numpy()
        assert np.abs(output.astype(int) - model.translate(x)).max() <= 1
    assert np.abs(simple.translate(x).astype(int) - averaged.translate(x)).max() > 10


def test_image_bytes_of_mixed_sizes(served, model):
    # The networks see 32 x 32, 12 x 24, 16 x 8, and 12 x 24 once more.
    pictures = [picture(32, 32), picture(9, 21), picture(16, 8, seed=2), picture(12, 24), picture(11, 22)]
    files = tf.constant([encoded(p) for p in pictures])
    output = served.signatures["image_bytes"](image_bytes=files)
    assert set(output) == {"image_bytes", "errors"} and not any(output["errors"].numpy())
    for pixels, png in zip(pictures, output["image_bytes"].numpy()):
        with Image.open(io.BytesIO(png)) as image:
            assert image.format == "PNG"
            result = np.asarray(image)
        assert np.abs(result.astype(int) - model.translate(pixels)).max() <= 1


def test_image_bytes_keeps_16_bits(served, model):
    pixels = np.random.default_rng(0).integers(0, 65536, (16, 16, 3), np.uint16)
    files = tf.constant([tf.io.encode_png(pixels).numpy()])
    (png,) = served.signatures["image_bytes"](image_bytes=files)["image_bytes"].numpy()
    result = images.read_image(png)
    assert result.dtype == np.uint16
    assert np.abs(result.astype(int) - model.translate(pixels)).max() <= 32


def with_orientation(orientation, endian=">"):
    exif = Image.Exif()
    exif.endian = endian
    exif[0x0112] = orientation
    return exif.tobytes()


def chunk(kind, data):
    """Of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_bits(bits, colour_type, *chunks):
    """A PNG with every value of `bits` bits in a row."""
    levels = np.arange(2**bits)[:, None] >> np.arange(bits - 1, -1, -1) & 1
    row = b"\0" + np.packbits(levels.astype(np.uint8).reshape(-1)).tobytes()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**bits, 1, bits, colour_type, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *chunks, chunk(b"IDAT", zlib.compress(row)), chunk(b"IEND", b"")])


def palette(bits):
    return chunk(b"PLTE", picture(1, 2**bits).tobytes())


def turned_late(height, width):
    """A PNG of noise with its orientation, 6, behind the pixels."""
    contents = encoded(picture(height, width))
    return contents[:-12] + chunk(b"eXIf", with_orientation(6).removeprefix(b"Exif\0\0")) + contents[-12:]


SMOOTH = np.linspace(0, 255, 12 * 20 * 3).reshape(12, 20, 3).astype(np.uint8)
ENCODED = {
    "rgb": encoded(picture(5, 7)),
    "grey": encoded(picture(5, 7, 1)[..., 0]),
    "transparent": encoded(picture(5, 7, 4)),
    "grey and transparent": encoded(picture(5, 7, 2)),
    "palette": encoded(np.asarray(picture(5, 7, 1)[..., 0] // 128)),
    "16 bits": tf.io.encode_png(picture(5, 7).astype(np.uint16) * 250).numpy(),
    "16 bits, transparent": tf.io.encode_png(picture(5, 7, 4).astype(np.uint16) * 250).numpy(),
    "jpeg": encoded(SMOOTH, "JPEG", quality=95),
    "bmp": encoded(picture(5, 7), "BMP"),
    "bmp of 32 bits": encoded(picture(5, 7, 4), "BMP"),
    **{f"jpeg turned {i}": encoded(SMOOTH, "JPEG", exif=with_orientation(i)) for i in range(1, 9)},
    "jpeg turned, little endian": encoded(SMOOTH, "JPEG", exif=with_orientation(6, "<")),
    **{f"png turned {i}": encoded(SMOOTH, exif=with_orientation(i)) for i in (1, 6, 7)},
    "png turned, at the end": turned_late(12, 20),
    "png turned, behind the first MiB": turned_late(600, 700),
    "png turned, behind the second MiB": turned_late(900, 901),
    **{f"grey of {bits} bits": png_of_bits(bits, 0) for bits in (1, 2, 4, 8)},
    "grey of 1 bit, black is transparent": png_of_bits(1, 0, chunk(b"tRNS", b"\0\0")),
    **{f"palette of {bits} bits": png_of_bits(bits, 3, palette(bits)) for bits in (1, 2, 4, 8)},
    "palette of 4 bits, transparent": png_of_bits(4, 3, palette(4), chunk(b"tRNS", bytes(range(0, 256, 16)))),
}


@pytest.mark.parametrize("channels", [1, 3])
def test_decode_reads_as_read_image(channels):
    decode = tf.function(
        lambda contents: image_bytes.decode(contents, channels, (10, 200, 30)),
        input_signature=[tf.TensorSpec([], tf.string)],
    )
    for what, contents in ENCODED.items():
        pixels, deep = decode(tf.constant(contents))
        truth = images.to_channels(images.read_image(contents, (10, 200, 30)), channels)
        assert bool(deep) == (truth.dtype == np.uint16), what
        truth = truth / (257 if truth.dtype == np.uint16 else 1)
        assert pixels.shape == truth.shape, what
        # Where transparency meets grey, `read_image` may mix before or after taking the luma.
        assert np.abs(pixels - truth).max() <= (1 if "transparent" in what else 0.01), what


def test_decode_of_few_greys_is_by_the_standard():
    """A grey of b bits is worth value · 255 / (2^b − 1), and the one in tRNS is transparent."""
    for bits in (1, 2, 4):
        greys = np.arange(2**bits) * 255 // (2**bits - 1)
        pixels, _ = image_bytes.decode(tf.constant(png_of_bits(bits, 0)), 1)
        np.testing.assert_array_equal(pixels[0, :, 0], greys)
        # Pillow knows this of 1 bit only.
        pixels, _ = image_bytes.decode(tf.constant(png_of_bits(bits, 0, chunk(b"tRNS", b"\0\1"))), 1, (7, 7, 7))
        np.testing.assert_array_equal(pixels[0, :, 0], np.where(np.arange(2**bits) == 1, 7, greys))


def broken_files():
    """dict of kind → a file that TensorFlow cannot decode, or would decode to another picture."""
    good, files = encoded(picture(12, 20)), {}
    for mode in ("P", "L", "1"):
        buffer = io.BytesIO()
        Image.fromarray(picture(8, 8)).convert(mode).save(buffer, "BMP")
        files[f"BMP of {mode}"] = buffer.getvalue()
    files |= {"nothing": b"", "text": b"hello", "half a PNG": good[: len(good) // 2], "magic alone": b"\x89PNG"}
    files["half a JPEG header"] = encoded(SMOOTH, "JPEG")[:30]
    files["flipped bits"] = good[:60] + bytes(255 - byte for byte in good[60:])
    return files | {"WebP": encoded(picture(8, 8), "WEBP")}


def test_broken_files_have_a_sentence_and_leave_the_others_alone(served):
    serve, good = served.signatures["image_bytes"], [encoded(picture(12, 20)), encoded(SMOOTH, "JPEG")]
    alone = [serve(image_bytes=tf.constant([file]))["image_bytes"].numpy()[0] for file in good]
    broken = list(broken_files().values())
    output = serve(image_bytes=tf.constant([good[0], *broken, good[1]]))
    first, *empty, last = output["image_bytes"].numpy()
    for png, before in zip((first, last), alone):
        assert np.abs(images.read_image(png).astype(int) - images.read_image(before)).max() <= 1
    assert not any(empty)
    assert output["errors"].numpy().tolist() == [b"", *[image_bytes.UNREADABLE.encode()] * len(broken), b""]
    output = serve(image_bytes=tf.constant(broken[:1]))
    assert output["image_bytes"].numpy().tolist() == [b""] and output["errors"].numpy()[0]


def test_a_picture_with_a_long_side_is_refused_before_it_is_decoded(simple, tmp_path):
    saved_model.write_saved_model(simple, tmp_path / "1", "a2b", max_side=20)
    serve = tf.saved_model.load(str(tmp_path / "1")).signatures["image_bytes"]
    fine = [encoded(picture(20, 8)), encoded(picture(8, 20), "JPEG"), encoded(picture(5, 5), "BMP")]
    large = [encoded(picture(21, 9), form) for form in ("PNG", "JPEG", "BMP", "GIF")]
    # 12 GiB of pixels by its header.
    bomb = encoded(picture(1, 1)).replace(struct.pack(">II", 1, 1), struct.pack(">II", 1, 2**32 - 1))
    upside_down = struct.pack("<ii", 9, 21), struct.pack("<ii", 9, -21)
    large += [bomb, large[2].replace(*upside_down)]
    output = serve(image_bytes=tf.constant([*large, *fine]))
    assert [images.read_image(png).shape[:2] for png in output["image_bytes"].numpy()[6:]] == [(20, 8), (8, 20), (5, 5)]
    sentence = "larger than 20 pixels a side: its height is {}, its width is {}"
    heights = [21, 21, 21, 21, 2**31 - 1, 21]
    said = [sentence.format(h, 1 if h > 21 else 9).encode() for h in heights]
    assert output["errors"].numpy().tolist() == [*said, b"", b"", b""]


def test_translations_of_any_size_say_how_many_channels_they_have():
    translate = tf.function(lambda x: padded(lambda y: y, x, Sizes(multiple=4, minimum=8)))
    assert translate.get_concrete_function(tf.TensorSpec((None, None, None, 3))).output_shapes[-1] == 3


def test_pictures_of_one_prepared_size_share_batches(monkeypatch):
    """Of 7 pictures, the 5 that are 8 x 12 once padded go through the network as 2, 2 and 1, the others as 2."""
    monkeypatch.setattr(image_bytes, "_PIXELS_AT_ONCE", 2 * 8 * 12)
    sizes, seen = Sizes(multiple=4, minimum=8), []

    def network(x):
        tf.py_function(lambda x: seen.append(tuple(x.shape)), [x], [])
        return x

    fit = image_bytes.Fit(lambda x: pad(x, sizes), network, lambda y, shape: cut(y, shape, sizes))
    shapes = [(8, 12), (8, 8), (5, 12), (8, 12), (8, 9), (7, 11), (6, 8)]
    pictures = [picture(*shape, seed=i) for i, shape in enumerate(shapes)]
    files = tf.constant([*map(encoded, pictures), "broken"])
    translate = tf.function(lambda files: image_bytes.translate(files, fit, (-1, 1), 3))
    translated, errors = translate(files)
    assert sorted(seen) == [(1, 8, 12, 3), (2, 8, 8, 3), (2, 8, 12, 3), (2, 8, 12, 3)]
    for pixels, png in zip(pictures, translated.numpy()):
        np.testing.assert_array_equal(images.read_image(png), pixels)
    assert [bool(error) for error in errors.numpy()] == [False] * 7 + [True]


@pytest.mark.parametrize(
    "signature, inputs, message",
    [
        ("image_bytes", np.array(b"x"), r"expected a list of 1 or more encoded pictures.*its shape is\W+\["),
        ("image_bytes", np.array([], bytes), r"expected a list of 1 or more encoded pictures.*its shape is\W+\[0\]"),
        ("image_bytes", np.array([[b"x"]]), r"expected a list of 1 or more encoded pictures.*its shape is\W+\[1 1\]"),
        ("serving_default", np.zeros((4, 4, 3)), r"expected uint8 \[N, H, W, 3\].*its shape is\W+\[4 4 3\]"),
        ("serving_default", np.zeros((0, 4, 4, 3)), r"expected uint8 \[N, H, W, 3\].*its shape is\W+\[0 4 4 3\]"),
        ("serving_default", np.zeros((1, 4, 4, 1)), r"Shape of tensor .* is not compatible with expected shape \[\?,"),
    ],
)
def test_inputs_of_other_shapes_are_one_error(exported, session, signature, inputs, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?s){message}"):
        session(signature, inputs if inputs.dtype.kind == "S" else inputs.astype(np.uint8))


def test_fit_resize_brings_every_image_to_the_size(simple, tmp_path):
    saved_model.write_saved_model(simple, tmp_path / "1", "b2a", "resize", (16, 16))
    serve = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    image = picture(16, 16)
    output = serve(images=tf.constant(image[None]))["images"].numpy()[0]
    assert np.abs(output.astype(int) - simple.translate(image, "b2a")).max() <= 1
    large = image.repeat(2, 0).repeat(3, 1)
    assert serve(images=tf.constant(large[None]))["images"].shape == (1, 32, 48, 3)


class Unchanged(Convolutions):
    """Its translation is the input, so that only the size rule is left to see."""

    @property
    def generators(self):
        return dict.fromkeys(super().generators, lambda x, training=False: x)


def test_fit_resize_is_the_rule_of_translate():
    model = Unchanged()
    pixels = images.read_image(sources.SAMPLE / "testA" / "1F308-rainbow.png")[:100]
    for filter in images.FILTERS:
        resized = saved_model.any_size(model, "a2b", "resize", (32, 48), filter)
        output = model.to_pixels(resized(model.to_float(tf.constant(pixels[None])))).numpy()[0]
        arguments = {"size": (32, 48), "fit": "resize", "filter": filter}
        expected = translation.translate_fitted(model, pixels[None], **arguments)[0]
        expected = images.resize(expected, pixels.shape[:2], filter)
        # Pillow rounds and clips to whole levels after each of its passes.
        assert np.abs(output.astype(int) - expected).mean() < 1, filter  # another filter: 5 and more


class OneSize(Convolutions):
    """Refuses every other size than 16,20."""

    def __init__(self):
        super().__init__(sizes=Sizes(fixed=(16, 20)))

    @property
    def generators(self):
        def only(generator):
            def call(x, training=False):
                assert tuple(x.shape[1:3]) == (16, 20)
                return generator(x, training=training)

            return call

        return {direction: only(g) for direction, g in super().generators.items()}


def test_networks_of_one_size(tmp_path):
    model = OneSize()
    image = picture(30, 11)
    translated = model.translate(image)
    assert translated.shape == image.shape
    report = quick(model, tmp_path / "out", formats=("saved_model", "float32"), size=None)
    assert report["size"] == [16, 20]
    sidecar = json.loads((tmp_path / "out" / "model.json").read_text())
    assert sidecar["saved_model"]["fit"] == "resize"
    assert sidecar["litert"]["input"]["shape"] == [1, 16, 20, 3]
    serve = tf.saved_model.load(str(tmp_path / "out" / "1")).signatures["serving_default"]
    output = serve(images=tf.constant(image[None]))["images"].numpy()[0]
    assert np.abs(output.astype(int) - translated).max() <= 1
    with pytest.raises(UserError, match="--size=16,16, but the networks take 16,20 only"):
        quick(model, tmp_path / "other")
    with pytest.raises(UserError, match="--fit=pad: the networks take 16,20 only"):
        quick(model, tmp_path / "other", size=None, fit="pad")


def test_warmup_requests_run(exported, served):
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = exported[0] / "1" / "assets.extra" / "tf_serving_warmup_requests"
    signatures = []
    for record in tf.data.TFRecordDataset(str(path)):
        request = logs.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
        signatures.append(request.model_spec.signature_name)
        served.signatures[signatures[-1]](**inputs)
    assert signatures == ["serving_default", "image_bytes"]


# -------------------------------------------------------------------------------- what is said about the files

EIGHT = ["saved_model", *KINDS]


def said(kinds, channels=3, licenses=None, ends="uint8", files=None, style=None, **results):
    """README.md of an export of these kinds with made-up figures.

    `results` are added to those of a kind; `files` replace the ends of some in model.json; `style` is the ends' of a
    method that takes eight numbers.
    """
    figures = {"psnr": 45.67, "exact": False, "worst": {"psnr": 36.0, "image": "x"}, "off_by_more_than_one_level": 0.05}
    figures |= {"floor": 35.0, "worst_floor": 25.0, "bytes": 2**20, "latency_ms": 2.0, "processor_ratio": 0.5}
    figures |= {"faults": [], "notes": []}
    formats = {kind: figures | results.get(kind, {}) for kind in kinds}
    facts = {"images": 9, "split": "test", "threads": 2, "passed": True, "model_version": 3}
    facts |= {"macs": 680_300_000, "parameters": 1_900_000, "size": [16, 20]}
    report = {"direction": "a2b", "method": "cyclegan", "formats": formats, **facts}
    shape = {"shape": [1, 16, 20, channels]}
    end = {"dtype": ends, "quantization": None if ends == "float32" else {"scale": 0.5, "zero_point": 0}}
    own = {"style": style} if style else {}
    files = {reporting.file_name(kind): {"input": end, "output": end} | own for kind in kinds} | (files or {})
    sidecar = {"litert": {"input": shape, "output": shape, "files": files}, "licenses": licenses, "checkpoint_step": 7}
    sidecar |= {"versions": {"tensorflow": "2.21.0"}, "saved_model": {"serving_default": {}}, "web": None}
    if style:
        sidecar["litert"]["style"] = {"shape": [1, 8]}
        sidecar["saved_model"]["serving_default"]["style"] = {"shape": [None, 8]}
    return reporting.readme(report, sidecar)


def code(readme, language):
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL)


def test_every_format_says_what_it_is_for():
    assert list(reporting.USES) == EIGHT and FLOORS.keys() <= reporting.USES.keys()
    for kinds in (EIGHT, ["int8"], ["saved_model"], ["int16x8", "gpu"]):
        readme = said(kinds)
        for kind in EIGHT:
            row = f"| `{reporting.file_name(kind, 3)}` | {reporting.USES[kind]} | 1.00 | 45.7 | 36.0 | 2.0 |"
            assert (row in readme) == (kind in kinds)
        litert, served = kinds != ["saved_model"], "saved_model" in kinds
        shown = {language: len(code(readme, language)) for language in ("kotlin", "swift", "python", "bash")}
        assert shown == {"kotlin": litert, "swift": litert, "python": litert + served, "bash": 2 * served}
        assert ("The Kotlin and Swift above" in readme) == litert
        assert "\n\n\n" not in readme


def test_examples_fit_the_ends_of_the_files():
    ints, floats, grey = said(["int8"]), said(["dynamic"], ends="float32"), said(["int8"], channels=1)
    for language, of_ints, of_floats in (
        ("kotlin", "writeInt8(pixels)", "writeFloat(pixels)"),
        ("swift", "translated: [UInt8] =", "translated: [Float] ="),
        ("python", "np.uint8).reshape([1, 16, 20, 3])", "np.float32).reshape([1, 16, 20, 3])"),
    ):
        for readme, here, file in ((ints, of_ints, "int8"), (floats, of_floats, "dynamic")):
            (block,) = code(readme, language)
            assert here in block and file in block and (of_ints in block) != (of_floats in block)
    assert not code(ints, "js") and "for code of your own there, add `gpu`" in ints
    (block,) = code(floats, "js")
    assert "new Tensor(pixels, [1, 16, 20, 3])" in block and "/dynamic.tflite" in block
    assert "The Kotlin, Swift and JavaScript above" in floats
    assert "16 * 20 * 1: the grey of each pixel" in grey and "ImageOps.fit(picture, (20, 16))" in grey
    floats = {"dtype": "float32", "quantization": None}
    (block,) = code(said(["int8", "gpu"], files={"gpu.tflite": {"input": floats, "output": floats}}), "js")
    assert "/gpu.tflite" in block


def test_examples_of_int8_pixels_take_128_off():
    readme = said(["int8"], ends="int8")
    for language, taken_off, added in (
        ("kotlin", "(200 - 128).toByte()", "translated[i] + 128"),
        ("swift", "UInt8(bitPattern: Int8(200 - 128))", "UInt8(Int(Int8(bitPattern: $0)) + 128)"),
        ("python", "(pixels - 128.0).astype(np.int8)", "(translated + 128.0).astype(np.uint8)"),
    ):
        (block,) = code(readme, language)
        assert taken_off in block and added in block
        (block,) = code(said(["int8"]), language)
        assert "128" not in block


def test_examples_of_int16_levels_take_whole_levels_and_scale_what_comes_out():
    readme = said(["int16x8"], ends="int16")
    for language, taken, scaled in (
        ("kotlin", "input.asShortBuffer().put(pixels)", "(0.5 * output.getShort(2 * it))"),
        ("swift", "pixels is a [Int16] of levels", "(0.5 * Double($0))"),
        ("python", "np.asarray(picture, np.int16)", "translated = 0.5 * translated"),
    ):
        (block,) = code(readme, language)
        assert taken in block and scaled in block and "128" not in block


def test_examples_give_the_style():
    floats = {"dtype": "float32", "quantization": None}
    readme = said(["saved_model", "int8", "gpu"], style=floats, ends="float32")
    plain = said(["saved_model", "int8", "gpu"], ends="float32")
    for language, given in (
        ("kotlin", "inputs[1].writeFloat(style)"),
        ("swift", "try inputs[1].write(style)"),
        ("python", "translate(images=pixels, style=style.astype(np.float32))"),
        ("python", "style=tf.random.normal((1, 8))"),
        ("js", "model.run([input, new Tensor(style, [1, 8])])"),
        ("bash", '"style": [0, 0, 0, 0, 0, 0, 0, 0]}'),
    ):
        assert given in "".join(code(readme, language)), language
        assert "style" not in "".join(code(plain, language))
    assert "8 numbers from N(0, 1)" in readme and "reference_bytes" in readme and "\n\n\n" not in readme
    assert "style" not in plain.lower()
    integers = {"dtype": "int16", "quantization": {"scale": 0.25, "zero_point": 0}}
    readme = said(["int16x8"], style=integers, ends="int16")
    assert "8 numbers from N(0, 1), as round(number / 0.25) + 0" in readme
    assert "runForMultipleInputsOutputs(arrayOf(input, style), mapOf(0 to output))" in readme
    assert "try interpreter.copy(style.withUnsafeBufferPointer { Data(buffer: $0) }, toInputAt: 1)" in readme
    assert "style = np.rint(style / 0.25) + 0" in readme


def test_readme_repeats_licences_and_what_compiled_model_said():
    found = {"latency_ms": 2.0, "processor_ratio": 0.9, "fully_accelerated": True}
    skipped = {"compiled_model": {"skipped": "no such kernel"}}
    licenses = {"weights": "CC-BY-4.0", "data": "my own photos"}
    readme = said(["float32", "int8"], licenses=licenses, float32={"compiled_model": found}, int8=skipped)
    assert "- Weights: CC-BY-4.0\n- Data that the model learned from: my own photos\n" in readme
    assert "is_fully_accelerated()` is true on the CPU for float32.\n" in readme
    assert "`CompiledModel` was not measured for int8: no such kernel.\n" in readme
    assert "Nobody stated" in said(["int8"])


@pytest.fixture(scope="module")
def calibrated(simple):
    """A float file of 16 x 20 pixels, the equalised one, and its values."""
    file = litert.convert(simple, "a2b", (16, 20))
    images = [picture(16, 20, seed=i)[None].astype(np.float32) for i in range(2)]
    return file, *quantization.calibrate(file, images, images)


@pytest.mark.parametrize("io", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_python_of_the_readme_runs(calibrated, kind, io, tmp_path, monkeypatch):
    float32, equalised, values = calibrated
    graph = float32 if kind == "float32" else quantization.quantize(equalised, kind, values)
    file = litert.with_pixels(graph, exporter.ends(kind, io))
    (tmp_path / f"{kind}.tflite").write_bytes(file)
    images.write_image(tmp_path / "photo.png", picture(40, 50))
    (block,) = code(said([kind], files={f"{kind}.tflite": verify.LiteRT(file).ends()}), "python")
    monkeypatch.chdir(tmp_path)
    exec(block.replace("photo.jpg", "photo.png"), {})
    with Image.open("photo.png") as photo:
        assert photo.size == (50, 40)
        pixels = np.asarray(ImageOps.fit(photo, (20, 16)))
    expected = np.rint(np.clip(verify.LiteRT(file)(pixels[None])[0], 0, 255))
    np.testing.assert_array_equal(images.read_image("translated.png"), expected)
    truth = np.clip(verify.LiteRT(float32)(pixels[None])[0], 0, 255)
    assert np.abs(expected - truth).mean() < 5


def test_python_of_the_readme_calls_the_saved_model(exported, model, tmp_path, monkeypatch):
    (block,) = (b for b in code((exported[0] / "README.md").read_text(), "python") if "saved_model" in b)
    images.write_image(tmp_path / "photo.png", picture(9, 21))
    (tmp_path / "1").symlink_to(exported[0] / "1")
    monkeypatch.chdir(tmp_path)
    exec(block.replace("photo.jpg", "photo.png"), {})
    difference = images.read_image("translated.png").astype(int) - model.translate(picture(9, 21))
    assert np.abs(difference).max() <= 1


def test_curl_of_the_readme_asks_for_what_the_saved_model_gives(exported, served, tmp_path):
    start, ask = code((exported[0] / "README.md").read_text(), "bash")
    assert start.startswith("docker run ") and f" tensorflow/serving:{tf.__version__} " in start
    for name in re.findall(r"/models/translator/(\S+)", start):
        assert (exported[0] / name).is_file()
    photo = encoded(picture(9, 21), "JPEG")
    (tmp_path / "photo.jpg").write_bytes(photo)
    curl = tmp_path / "curl"
    answer = '{"predictions": [{"image_bytes": {"b64": "SGVsbG8="}, "errors": ""}]}'
    curl.write_text(f"#!/bin/sh\necho \"$@\" > asked.txt\necho '{answer}'\n")
    curl.chmod(0o755)
    path = f"{tmp_path}:{pathlib.Path(sys.executable).parent}:/usr/bin:/bin"
    subprocess.run(["bash", "-ec", ask], cwd=tmp_path, env={"PATH": path}, check=True)
    assert (tmp_path / "asked.txt").read_text().split()[:2] == ["--data", "@request.json"]
    assert (tmp_path / "translated.png").read_bytes() == b"Hello"
    request = json.loads((tmp_path / "request.json").read_text())
    # TF Serving's row form: an instance of a signature with one input is that input, and b64 stands for bytes.
    (instance,) = request["instances"]
    signature = served.signatures[request["signature_name"]]
    assert list(signature.structured_input_signature[1]) == ["image_bytes"] and list(instance) == ["b64"]
    output = signature(image_bytes=tf.constant([base64.b64decode(instance["b64"])]))
    assert base64.b64decode(instance["b64"]) == photo and set(output) == {"image_bytes", "errors"}
    assert images.read_image(output["image_bytes"].numpy()[0]).shape == (9, 21, 3)


def test_the_pages_explain_the_columns_and_the_formats_as_the_report_does():
    page = " ".join((pathlib.Path(__file__).parent.parent / "docs/explanation/verified.md").read_text().split())
    for text in (*reporting.COLUMNS.values(), *(reporting.USES[kind] for kind in FLOORS)):
        assert text in page


def test_frontier_shows_size_time_and_closeness():
    points = [("a", "", 10.0, 100.0, 4.0), ("b", "", 2.0, 50.0, 1.0), ("c", "", 5.0, None, 1.0)]
    plot = pictures.frontier(points, "ms", "dB", 80)[:, :420].astype(int)
    colours = [np.array(ImageColor.getrgb(colour)) for colour in pictures._COLOURS[:3]]
    large, small, none = (np.argwhere(np.abs(plot - colour).sum(-1) < 8) for colour in colours)
    assert len(large) / len(small) == pytest.approx(4, rel=0.2) and not len(none)
    # Higher is closer, and further left is faster; what is above the top is drawn at the top.
    (y_large, x_large), (y_small, x_small) = (found.mean(0) for found in (large, small))
    assert y_large < y_small and x_small < x_large
    capped = [("a", "", 10.0, 80.0, 4.0), *points[1:]]
    np.testing.assert_array_equal(pictures.frontier(capped, "ms", "dB", 80)[:, :420], plot)


# --------------------------------------------------------------------------------------- failures


def quick(model, folder, **arguments):
    few = {"formats": ("float32",), "size": (16, 16), "verification_images": 2}
    quiet = {"data": Data(data="emoji"), "log": lambda _: None}
    return export(model, folder, **few | quiet | arguments)


def test_a_wrong_file_is_found_and_kept_apart(simple, tmp_path, monkeypatch):
    right = litert.convert
    monkeypatch.setattr(litert, "convert", lambda m, direction, *rest: right(m, "b2a", *rest))
    with pytest.raises(FloorError, match="float32.*the floor is 70 dB.*out.failed") as error:
        quick(simple, tmp_path / "out")
    assert error.value.report["formats"]["float32"]["faults"]
    assert [p.name for p in tmp_path.iterdir()] == ["out.failed"]
    report = json.loads((tmp_path / "out.failed" / "report.json").read_text())
    assert report["passed"] is False
    assert (tmp_path / "out.failed" / "report.png").is_file()
    readme = (tmp_path / "out.failed" / "README.md").read_text()
    assert "**Do not use" in readme and "- float32: " in readme


@pytest.fixture
def without_work(monkeypatch):
    """Exports write and measure nothing; the list's last element says whether that is good enough."""
    passed = [True]

    def report(*_):
        return {"passed": passed[-1], "formats": {"float32": {"faults": [], "notes": []}} if not passed[-1] else {}}

    monkeypatch.setattr(exporter._Export, "write", lambda *_: {})
    monkeypatch.setattr(exporter._Export, "write_for_servers", lambda *_: None)
    monkeypatch.setattr(exporter._Export, "sidecar", lambda *_: {"sha256": {}, "versions": {"tfi2i": "0.2.0"}})
    monkeypatch.setattr(exporter._Export, "verify", report)
    monkeypatch.setattr(reporting, "table", str)
    monkeypatch.setattr(reporting, "readme", lambda *_: "")
    return passed


def content(folder):
    """dict of path within a folder → text of the file."""
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def in_one_word(monkeypatch, without_work):
    """Exports write one word to every file, and measure nothing; the list's last element is the word."""
    word = ["first"]

    def write(export, folder, formats):
        for name in (reporting.file_name(kind, export.version) for kind in formats):
            path = folder / name
            (path / "saved_model.pb" if name.isdecimal() else path).parent.mkdir(exist_ok=True)
            (path / "saved_model.pb" if name.isdecimal() else path).write_text(word[-1])
        return {}

    def for_servers(export, folder, report):
        (folder / str(export.version) / "report.json").write_text(word[-1])
        (folder / "models.config").write_text(word[-1])

    monkeypatch.setattr(exporter._Export, "write", write)
    monkeypatch.setattr(exporter._Export, "write_for_servers", for_servers)
    monkeypatch.setattr(reporting, "readme", lambda *_: word[-1])
    return word


@pytest.mark.parametrize("fixed", [False, True])
def test_a_version_appears_beside_the_others(simple, tmp_path, in_one_word, monkeypatch, fixed):
    """As in a folder of a user, and in a volume that is mounted and cannot be renamed."""
    out = tmp_path / "out"
    if fixed:
        out.mkdir()
        monkeypatch.setattr(pathlib.Path, "is_mount", lambda path: path == out)
        monkeypatch.setattr("os.path.ismount", lambda path: pathlib.Path(path) == out)
    quick(simple, out, formats=("saved_model", "float32"))
    first = content(out)
    assert first["1/saved_model.pb"] == first["float32.tflite"] == first["README.md"] == "first"
    assert list(tmp_path.iterdir()) == [out]
    in_one_word.append("second")
    quick(simple, out, formats=("saved_model",))
    second = {"2/saved_model.pb": "second", "2/report.json": "second"}
    assert content(out) == first | second
    quick(simple, out, formats=("saved_model",), model_version=7)
    seventh = {"7/saved_model.pb": "second", "7/report.json": "second"}
    assert content(out) == first | second | seventh
    with pytest.raises(UserError, match="has a version 7 already: leave --model_version out for the next one"):
        quick(simple, out, formats=("saved_model",), model_version=7)
    in_one_word.append("third")
    quick(simple, out, formats=("saved_model",), model_version=7, overwrite=True)
    now = content(out)
    assert {path: now[path] for path in first if path.startswith("1/")} | second == {
        path: text for path, text in now.items() if path[0] in "12"
    }
    assert now["7/saved_model.pb"] == now["README.md"] == now["models.config"] == "third"
    assert "float32.tflite" not in now and not [p for p in out.iterdir() if p.name.startswith(".")]
    quick(simple, out, formats=("saved_model",))
    assert (out / "8").is_dir()


def test_a_failed_version_leaves_the_others_alone(simple, tmp_path, in_one_word, without_work):
    quick(simple, tmp_path / "out", formats=("saved_model",))
    first = content(tmp_path / "out")
    without_work.append(False)
    with pytest.raises(FloorError):
        quick(simple, tmp_path / "out", formats=("saved_model",))
    assert content(tmp_path / "out") == first and (tmp_path / "out.failed" / "2" / "saved_model.pb").is_file()


@pytest.mark.parametrize(
    "latency, batch, wait, queued",
    [(20.0, 32, 10000, 16), (100.0, 8, 50000, 12), (5000.0, 8, 50000, 4), (0.5, 32, 1000, 625)],
)
def test_batching_fits_the_latency(latency, batch, wait, queued):
    """A batch of about a second, half a picture's time to wait for others, and 10 s of batches in the queue."""
    text = serving.configs("translator", latency, cores=4)["batching.config"]
    values = dict(re.findall(r"^(\w+) \{ value: (\d+) \}$", text, re.MULTILINE))
    assert {name: int(value) for name, value in values.items()} == {
        "max_batch_size": batch,
        "batch_timeout_micros": wait,
        "num_batch_threads": 4,
        "max_enqueued_batches": queued,
    }


def test_the_models_file_is_what_its_proto_reads(exported):
    config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2").ModelServerConfig()
    text_format.Parse((exported[0] / "models.config").read_text(), config)
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("translator", "/models/translator")
    assert model.model_version_policy.latest.num_versions == 2


def test_folders_of_others_are_left_alone(simple, tmp_path, without_work):
    out, failed = tmp_path / "out", tmp_path / "out.failed"
    for name in ("out.old", "out.tmp", "out.failed.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("keep")
    quick(simple, out)
    quick(simple, out, overwrite=True)
    own = ["README.md", "model.json", "report.json"]
    assert sorted(p.name for p in out.iterdir()) == own
    out.rename(failed)  # a good export
    for _ in range(2):
        with pytest.raises(UserError, match="out.failed, where an export goes that fails, holds something else"):
            quick(simple, out)
        (failed / "report.json").write_text('{"passed": false}')
        (failed / "thesis.txt").write_text("keep")
    (failed / "thesis.txt").unlink()
    without_work.append(False)
    for _ in range(2):
        with pytest.raises(FloorError):
            quick(simple, out)
    assert sorted(p.name for p in failed.iterdir()) == own
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.failed", "out.failed.old", "out.old", "out.tmp"]
    assert all((tmp_path / name / "mine.txt").is_file() for name in ("out.old", "out.tmp", "out.failed.old"))


def test_what_appears_meanwhile_is_left_alone(simple, tmp_path, without_work, monkeypatch):
    def disturb(report):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("keep")

    monkeypatch.setattr(reporting, "table", disturb)
    with pytest.raises(UserError, match="out is not empty"):
        quick(simple, tmp_path / "out")
    assert [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("*"))] == ["out", "out/thesis.txt"]


def test_a_folder_that_cannot_be_renamed_is_one_error(simple, tmp_path, without_work, monkeypatch):
    def refuse(self, target):
        raise OSError(13, "Permission denied", str(target))

    monkeypatch.setattr(pathlib.Path, "rename", refuse)
    with pytest.raises(UserError, match="out cannot be written: .*Permission denied"):
        quick(simple, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_int8_without_a_convolution_inside_is_said_to_be_dynamic(simple, tmp_path):
    lines = []
    few = {"formats": ("dynamic", "int8"), "io": "float32", "floors": EASY, "calibration_images": 2}
    notes = quick(simple, tmp_path / "out", log=lines.append, **few)["formats"]["int8"]["notes"]
    (note,) = (line for line in lines if "same as dynamic" in line)
    assert note in notes and note.startswith("int8 is the same as dynamic: ")
    assert f"- {note}.\n" in (tmp_path / "out" / "README.md").read_text()
    dynamic, int8 = ((tmp_path / "out" / f"{kind}.tflite").read_bytes() for kind in ("dynamic", "int8"))
    assert dynamic == int8


@pytest.mark.parametrize("value, total, passed", [(65504.0, 1e6, True), (65505.0, 0.0, False)])
def test_a_gpu_file_with_values_beyond_16_bit_floats_is_refused(simple, tmp_path, monkeypatch, value, total, passed):
    found = {"value": value, "tensor": "block_1/add", "sum": total}
    monkeypatch.setattr(quantization, "largest", lambda *_: found)
    arguments = {"formats": ("gpu",), "calibration_images": 2, "floors": EASY}
    if not passed:
        with pytest.raises(FloorError, match="gpu: block_1/add reaches 65505 on the calibration .* end at 65504"):
            quick(simple, tmp_path / "out", **arguments)
        return
    result = quick(simple, tmp_path / "out", **arguments)["formats"]["gpu"]
    assert result["largest"] == found
    assert [note for note in result["notes"] if note.startswith("gpu may add up to 1e+06 where it takes means, ")]


def test_images_that_cannot_be_read_and_bars(simple, tmp_path, capsys):
    data = Data(data=str(tmp_path / "data"))
    for split in ("test", "train"):
        (tmp_path / "data" / f"{split}A").mkdir(parents=True)
        for i in range(3):
            (tmp_path / "data" / f"{split}A" / f"{i}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of the 2 verification images can be read"):
        quick(simple, tmp_path / "out", data=data)
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    for split, i in (("test", 2), ("train", 0), ("train", 2)):
        images.write_image(tmp_path / "data" / f"{split}A" / f"{i}.png", picture(16, 16, seed=i))
    arguments = {"formats": ("int8",), "floors": EASY, "verification_images": None, "log": print}
    assert quick(simple, tmp_path / "out", data=data, **arguments)["images"] == 1
    lines = capsys.readouterr().out.splitlines()
    left_out = [line for line in lines if line.startswith("left out: ")]
    assert len(left_out) == 3 and all(line.endswith("not an image, or of an unknown format") for line in left_out)
    assert {"3/3 calibration images", "3/3 verification images"} <= {*lines}


def test_all_calibration_images_count(simple):
    file = litert.convert(simple, "a2b", (16, 16))
    # The last two have the brightest pixels.
    pixels = [np.float32(picture(16, 16, seed=i)[None] // (2 if i < 10 else 1)) for i in range(12)]
    equalised, values = quantization.calibrate(file, iter(pixels), iter(pixels))
    assert quantization.calibrate(file, pixels)[0] == equalised != quantization.calibrate(file, pixels[:10])[0]
    few = ranges.observe(equalised, pixels[:10])
    ranges.count(equalised, pixels[:10], few)
    assert quantization.quantize(equalised, "int8_full", values) != quantization.quantize(equalised, "int8_full", few)


def test_missing_serving_api_is_said(simple, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    said = []
    quick(simple, tmp_path / "out", formats=("saved_model",), log=said.append)
    assert "no warm-up requests for TF Serving: they need 'pip install tfi2i[serving]'" in said
    assert not (tmp_path / "out" / "1" / "assets.extra").exists()
    assert capsys.readouterr().out == ""  # bars are for who prints


def test_encoded_images_are_judged_as_closely_as_two_roundings_allow():
    def faults(change):
        def files(image_bytes):
            first, broken, last = image_bytes.numpy()
            changed = [encoded(change(images.read_image(png).astype(int)).astype(np.uint8)) for png in (first, last)]
            return {"image_bytes": tf.constant([changed[0], b"", changed[1]]), "errors": tf.constant(errors)}

        serve = {"serving_default": lambda images: {"images": images}, "image_bytes": files}
        loaded = types.SimpleNamespace(signatures=serve)
        return verify.saved_model_faults(loaded, np.float32, picture(64, 48), encoded)

    errors = ["", "broken", ""]
    one_flipped = np.zeros((64, 48, 3), int)
    one_flipped[0, 0, 0] = 1
    flip = lambda x: x ^ one_flipped[: x.shape[0], : x.shape[1]]  # noqa: E731
    assert faults(lambda x: x) == faults(flip) == []
    differ = [f"image_bytes and serving_default differ on {shape}" for shape in ((64, 48, 3), (61, 47, 3))]
    assert faults(lambda x: x ^ 1) == faults(lambda x: x[::-1]) == faults(lambda x: x[1:]) == differ
    errors = ["", "", ""]
    assert "on a broken file between two good ones gives the errors [b'', b'', b'']" in faults(lambda x: x)[0]


def test_only_the_domain_translated_from_is_needed(simple, tmp_path):
    for i in range(2):
        images.write_image(tmp_path / "data" / "testB" / f"{i}.png", picture(16, 16, seed=i))
    arguments = {"data": Data(data=str(tmp_path / "data")), "io": "float32"}
    report = quick(simple, tmp_path / "out", direction="b2a", **arguments)
    assert (report["split"], report["images"]) == ("test", 2)
    with pytest.raises(UserError, match="no folder for domain A: expected trainA"):
        quick(simple, tmp_path / "other", direction="a2b", **arguments)


def test_any_folder_of_pictures_calibrates_and_verifies(simple, tmp_path):
    for i in range(6):
        images.write_image(tmp_path / "photos" / f"{i}.png", picture(16, 16, seed=i))
    own = Data(data="emoji", background=(1, 2, 3), swap_domains=True)
    data = exporter.pictures(own, str(tmp_path / "photos"), "b2a")
    # SHA-256 of "0", "1", "3" and "4" begin with less than 80, of 256, and those of "2" and "5" with more.
    assert sources.open_domain(data, "B", "train").names == ["2.png", "5.png"]
    assert sources.open_domain(data, "B", "test").names == ["0.png", "1.png", "3.png", "4.png"]
    assert data.background == (1, 2, 3) and data.b == str(tmp_path / "photos") and not data.a
    report = quick(simple, tmp_path / "out", direction="b2a", verification_images=None, data=data)
    assert (report["split"], report["images"]) == ("test", 4)
    assert exporter.pictures(own, "emoji", "a2b") == own
    (tmp_path / "photos" / "testA").mkdir()
    assert exporter.pictures(own, str(tmp_path / "photos"), "a2b").data == str(tmp_path / "photos")


def test_a_run_without_pictures_of_its_own_says_why_it_needs_some(simple, tmp_path, monkeypatch):
    for data, message in (
        (Data(), "an export compares its files with the model on pictures, .* any pictures to translate"),
        (Data(data="/nowhere"), "trained on --data=/nowhere, not found here: give --data=FOLDER"),
    ):
        monkeypatch.setattr(simple, "run", types.SimpleNamespace(data=data, check_translates=list), raising=False)
        with pytest.raises(UserError, match=message):
            quick(simple, tmp_path / "out", data=None)


def test_float_pixels_and_overwriting(simple, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="is not empty, and is no export"):
        quick(simple, out)
    own = {"sha256": {}, "versions": {"tfi2i": "0.1.0"}}
    for sidecar in (None, "", "[]", '{"format": "graph-model", "weightsManifest": []}'):  # of TensorFlow.js, the last
        if sidecar is not None:
            (out / "model.json").write_text(sidecar)
        with pytest.raises(UserError, match="is no export"):
            quick(simple, out, overwrite=True)
    (out / "model.json").write_text(json.dumps(own))
    (out / "1" / "variables").mkdir(parents=True)
    (out / "int8.tflite").write_text("")
    with pytest.raises(UserError, match="holds an export: add --overwrite .* or add a version"):
        quick(simple, out)
    report = quick(simple, out, overwrite=True, io="float32")
    assert sorted(p.name for p in out.iterdir()) == [
        "1", "README.md", "float32.tflite", "mine.txt", "model.json", "report.json", "report.png",
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert "before_rounding" not in report["formats"]["float32"]
    assert report["formats"]["float32"]["psnr"] > 90
    file = verify.LiteRT(out / "float32.tflite")
    assert file.input["dtype"] == file.output["dtype"] == np.float32


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"direction": "a2c"}, "direction='a2c': expected one of a2b, b2a"),
        ({"formats": ("onnx",)}, "--formats=onnx: expected some of saved_model, float32"),
        ({"size": (4, 16)}, "--size=4,16: expected at least 8"),
        ({"size": None}, "give --size"),
        ({"max_side": 15}, "--max_side=15: expected at least 16, the longer side of --size"),
        ({"model_version": 0}, "--model_version=0: expected 1 or more"),
        ({"norm_bits": 4}, "--norm_bits=4: expected 8 or 16"),
        ({"norm_bits": 16}, "--norm_bits=16 is about int8_full, which --formats does not have"),
        ({"io": "UINT8"}, "--io=UINT8: expected uint8, int8 or float32"),
        ({"floors": {"int9": 30}}, "a floor for 'int9': the formats are saved_model, float32"),
        ({"floors": {"int8": "30"}}, "the floor '30' of int8: expected decibels, or a pair"),
        ({"size": (30, 32), "fit": "resize"}, "at least 8: give --size=32,32 or --fit=pad"),
        ({"data": None}, "give --data"),
        ({"data": Data(data="/nowhere")}, "--data=/nowhere does not exist"),
    ],
)
def test_errors_leave_nothing(simple, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        quick(simple, tmp_path / "out", **arguments)
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written(simple, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output=.*out cannot be written: .*file"):
        quick(simple, tmp_path / "file" / "out")


def test_low_precision_models_are_refused(tmp_path):
    with pytest.raises(UserError, match="computes in bfloat16: load it with tfi2i.load"):
        quick(Convolutions(dtype="mixed_bfloat16"), tmp_path / "out")


def test_help_imports_no_tensorflow():
    program = "import sys, tfi2i.export.__main__; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_command_claims_closeness_and_no_quality(monkeypatch, capsys):
    model = types.SimpleNamespace(checkpoint_step=3500)
    monkeypatch.setattr("tfi2i.load", lambda *_, **__: model, raising=False)
    monkeypatch.setattr("tfi2i.export.exporter.export", lambda *_, **__: None)
    exported = (
        "exported step 3500 to out: close to the model (see README.md there); how good the model is, tfi2i evaluate "
        "says\n"
    )
    note = "note: the best step by kid is 2000, which --checkpoint=best exports\n"
    for best, checkpoint, said in ((2000, [], exported + note), (3500, [], exported), (2000, ["best"], exported)):
        monkeypatch.setattr(checkpoints, "best", lambda _, step=best: {"step": step, "metric": "kid"})
        given = [f"--checkpoint={name}" for name in checkpoint]
        call(export_command, "--run_dir=run", "--output=out", "--direction=a2b", *given)
        assert capsys.readouterr().out == said


def test_command_names_the_directions_of_a_run(tmp_path):
    run_directory.write(tmp_path / "run", settings.resolve("cyclegan", {"data": "emoji"}))
    with pytest.raises(UserError, match="--direction=a2c: expected one of a2b, b2a$"):
        call(export_command, f"--run_dir={tmp_path / 'run'}", f"--output={tmp_path / 'out'}", "--direction=a2c")


def test_command_exits_with_1_below_the_floor(tmp_path):
    given = {"data": "emoji", "crop": (16, 16), "steps": 1, "generator": "resnet_6blocks"}
    chosen = settings.resolve("cyclegan", given | {"generator_width": 4, "discriminator_width": 4})
    run = tmp_path / "run"
    checkpoints.save(run, checkpoints.build(chosen), 7, keep=1)
    (run / "config.json").write_text(chosen.to_json())
    command = [
        sys.executable, "-m", "tfi2i.export", f"--run_dir={run}", f"--output={tmp_path / 'out'}",
        "--formats=float32", "--verification_images=2", "--min_psnr=float32:400",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "the floor is 400 dB" in errors[0]
    assert "Traceback" not in done.stderr and "FAILED" in done.stdout
    assert not (tmp_path / "out").exists()
    sidecar = json.loads((pathlib.Path(f"{tmp_path}/out.failed") / "model.json").read_text())
    assert sidecar["checkpoint_step"] == 7 and sidecar["litert"]["input"]["shape"] == [1, 16, 16, 3]
