"""Ranges and integers of quantized LiteRT files."""

import functools

import keras
import numpy as np
import pytest
from ai_edge_litert import interpreter
from tfi2i.export import litert, quantization, ranges, verify
from tfi2i.export.graph import Graph

from tests.test_equalise import converted, results
from tests.test_export import EASY, Convolutions, picture, quick
from tfi2i import layers
from tfi2i.config import UserError

INTEGERS = ("int8_full", "int16x8")


def observed(file, image):
    values = ranges.observe(file, [image])
    ranges.count(file, [image], values)
    return values


@pytest.fixture(scope="module")
def calibrated():
    """A float file of 16 x 16 pixels, the equalised one, and its values."""
    file = litert.convert(Convolutions(), "a2b", (16, 16))
    images = [picture(16, 16, seed=i)[None].astype(np.float32) for i in range(2)]
    return file, *quantization.calibrate(file, images, images)


def test_depthwise_convolutions_stay_float_where_scales_come_with_the_map():
    """XNNPACK has none, and would run a file with one in parts."""
    layer = keras.layers.DepthwiseConv2D(3, padding="same")
    file = converted(lambda x: layer(x), channels=4)
    layers_of = Graph(quantization.quantize(file, "dynamic"))
    (depthwise,) = [o for o in layers_of.operators if layers_of.operation(o) == "DEPTHWISE_CONV_2D"]
    assert layers_of.is_float(depthwise.inputs[1])


# --------------------------------------------------------------------------------------------------------------- ranges


def test_one_far_outlier_is_clipped_in_8_bits_and_has_headroom_in_16():
    """Millions of values from 0 to 1, and a single 2: steps twice as large for all cost more than the one.

    In 16 bits another image or style may go a quarter beyond it.
    """
    file = converted(keras.ops.abs, channels=1)
    histogram = np.zeros(ranges._BINS, np.int64)
    histogram[: ranges._BINS // 2], histogram[-1] = 1_000_000, 1
    zero, two = np.zeros(1), np.full(1, 2.0)
    graph = Graph(file)
    ends = [graph.name(t) for t in (*graph.inputs, *graph.outputs)]
    values = dict.fromkeys(ends, ranges.Values(zero, two, zero, zero, histogram.sum(), histogram))
    for low, high in ranges.limits(file, values, 8).values():
        assert low == 0 and 0.95 < high < 1.1
    assert set(ranges.limits(file, values, 16).values()) == {(0.0, 2.5)}


def test_what_saturates_a_tanh_costs_nothing():
    file = converted(lambda x: keras.ops.tanh(3 * x), channels=1, size=(100, 100))
    image = np.linspace(-10, 10, 10000, dtype=np.float32).reshape(1, 100, 100, 1)
    graph = Graph(file)
    before = graph.name(graph.producer[graph.outputs[0]].inputs[0])
    low, high = ranges.limits(file, observed(file, image), 8)[before]
    # tanh(6) is 1 to within a hundred-thousandth; 8 bits have steps of a hundredth.
    assert -30 <= low < 0 < high <= 30 and high - low < 20
    assert ranges.limits(file, observed(file, image), 16)[before] == pytest.approx((-37.5, 37.5))


def test_what_a_relu_takes_to_0_costs_nothing():
    """Behind 2 x + (-1, 3) and a ReLU, nothing below -3 counts: the range of 2 x, from -20 to 20, begins there."""
    offset = np.float32([-1, 3])
    file = converted(lambda x: keras.ops.relu(2 * x + offset), channels=2, size=(100, 100))
    image = np.linspace(-10, 10, 20000, dtype=np.float32).reshape(1, 100, 100, 2)
    graph = Graph(file)
    before = graph.name(graph.producer[graph.outputs[0]].inputs[0])
    low, high = ranges.limits(file, observed(file, image), 8)[before]
    assert -3.1 < low < -2.9 and high > 19


def test_a_map_less_its_mean_keeps_its_levels():
    """Values from -3 to 5 of mean 1 become -4 to 4: with one range, -4 to 5, all levels stay a whole number apart."""
    file = converted(lambda x: x - keras.ops.mean(x, (1, 2), keepdims=True), channels=1)
    image = np.linspace(-3, 5, 64, dtype=np.float32).reshape(1, 8, 8, 1)
    graph = Graph(file)
    found = ranges.limits(file, observed(file, image), 16)
    ends = [found[graph.name(t)] for t in (*graph.inputs, *graph.outputs)]
    assert ends == [pytest.approx((-4 * 1.25, 5 * 1.25))] * 2


def test_a_convolution_whose_relu_is_closed_runs_in_integers():
    """Its results are always 0. A scale near 0 beside that of the products was refused by XNNPACK."""
    first, last = keras.layers.Conv2D(8, 1), keras.layers.Conv2D(3, 1)
    for layer, channels in ((first, 3), (last, 8)):
        layer.build((1, 8, 8, channels))
    first.bias.assign(np.full(8, -1e6))
    file = converted(lambda x: last(keras.ops.relu(first(x))))
    image = np.float32(picture(8, 8)[None])
    for bits in (8, 16):
        assert (0.0, 1.0) in ranges.limits(file, observed(file, image), bits).values()
    run = interpreter.Interpreter(model_content=quantization.quantize(file, "int8_full", observed(file, image)))
    run.allocate_tensors()


def test_moved_tensors_share_a_range():
    file = converted(lambda x: keras.ops.concatenate([x, keras.ops.abs(x)], 1), channels=1)
    image = np.linspace(-2, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1)
    found = ranges.limits(file, observed(file, image), 16)
    assert len(found) == 3 and set(found.values()) == {(-2.5, 2.5)}


# ------------------------------------------------------------------------------------------------------------- integers


def test_an_operation_without_integers_is_refused_by_name():
    file = converted(keras.ops.exp)
    for kind, bits in (("int8_full", 8), ("int16x8", 16)):
        with pytest.raises(UserError, match=f"--formats={kind}: .* need EXP, which there is no {bits}-bit form of"):
            quantization.check(file, kind)
    for kind in ("dynamic", "int8", "gpu", "float16"):
        quantization.check(file, kind)


class Quarter(Convolutions):
    """A convolution on a map of a quarter of the image's height, between others."""

    def convolutions(self, seed):
        convolution = functools.partial(layers.Conv2D, 4, 3, pad=1, pad_mode="reflect")
        before = [convolution(strides=2), convolution(strides=2)]
        return keras.Sequential([*before, convolution(), layers.Enlarge(4), layers.Conv2D(3, 1)])


def test_a_mirrored_image_has_the_same_convolutions_inside(calibrated):
    """Of 30 rows, mirrored to 32, a map of 8 is a quarter."""
    model = Quarter()
    for size in ((32, 32), (30, 32)):
        file = litert.convert(model, "a2b", size)
        (name,) = quantization.inner_convolutions(file)
        graph = Graph(file)
        assert [graph.shape(t)[1:3] for t in graph.producer if graph.name(t) == name] == [(8, 8)]
    assert not quantization.inner_convolutions(calibrated[0])  # both at the image's size


@pytest.mark.parametrize("operation", ["CONV_2D", "FULLY_CONNECTED"])
@pytest.mark.parametrize("large, spared", [(1000, ["float"]), (1, [])])
def test_a_layer_that_8_bits_hurt_stays_in_float(large, spared, operation):
    """It takes x + 1000 and x - 1000, and gives their mean, x, of which steps of 8 bits leave little."""
    shapes = [(1, 1, 3, 2), (1, 1, 2, 1), (5, 5, 1, 32), (1, 1, 32, 3)]
    chain = [keras.layers.Conv2D(shape[-1], shape[0]) for shape in shapes]
    if operation == "FULLY_CONNECTED":
        chain[1] = keras.layers.Dense(1)
    for layer, shape in zip(chain, shapes):
        layer.build((1, 8, 8, shape[2]))
        layer.kernel.assign(np.full(layer.kernel.shape, 1 / np.prod(shape[:3])))
    chain[0].bias.assign([large, -large])
    chain[2].kernel.assign(np.pad(np.ones((1, 1, 1, 32)), ((2, 2), (2, 2), (0, 0), (0, 0))))
    file = converted(keras.Sequential(chain))
    images = [np.random.default_rng(i).normal(size=(1, 8, 8, 3)).astype(np.float32) * 50 for i in range(2)]
    values = ranges.observe(file, images)
    found = quantization.spared_layers(file, values, images, static=False)
    graph = Graph(file)
    second = [o for o in graph.operators if graph.operation(o) in ("CONV_2D", "FULLY_CONNECTED")][1]
    assert graph.operation(second) == operation
    assert found == dict.fromkeys([graph.name(second.outputs[0])] * len(spared), "float")
    exact = results(file, images)
    errors = [
        np.sqrt(np.mean((results(quantization.quantize(file, "dynamic", spared=s), images) - exact) ** 2))
        for s in ({}, found)
    ]
    assert errors[0] > 3 * errors[1] if spared else errors[0] == errors[1]


@pytest.mark.parametrize("layer", [keras.layers.Conv2D(1, 1, use_bias=False), keras.layers.Dense(1, use_bias=False)])
def test_a_layer_is_judged_by_8_bits_of_its_weights_too(layer):
    """In steps of 127 / 127, weights of 127 and 0.4 are 127 and 0. The first input is 0, so all of 0.4 x is lost."""
    layer.build((1, 8, 8, 2))
    layer.kernel.assign(np.reshape([127, 0.4], layer.kernel.shape))
    file = converted(layer, channels=2)
    x = np.stack([np.zeros((8, 8)), np.arange(64).reshape(8, 8)], -1)[None].astype(np.float32)
    (name,) = quantization._multiplications(Graph(file))
    error = quantization._error([results(file, [x])], quantization._with_one_dynamic(file, name), [x])
    assert error == pytest.approx(0.16 * np.mean(np.arange(64) ** 2), rel=1e-5)


def test_multiplications_are_counted():
    """A 3 x 3 convolution of 2 channels to 16 at 8 x 8, a dense layer of 16 to 3 at each place, which cost as 16 do."""
    chain = [keras.layers.Conv2D(16, 3, padding="same"), keras.layers.Dense(3)]
    graph = Graph(converted(keras.Sequential(chain), channels=2))
    assert [*quantization._multiplications(graph).values()] == [64 * 9 * 2 * 16, 64 * 16 * 16]


def test_a_convolution_of_fixed_scales_is_judged_by_its_own_input():
    """Its weights are 0, so levels of its input change nothing; the sum beside it reads the same map as it is."""
    first, zero = keras.layers.Conv2D(3, 1), keras.layers.Conv2D(3, 1, kernel_initializer="zeros")

    def network(x):
        y = first(x)
        return y + zero(y)

    file = converted(network)
    image = picture(8, 8)[None].astype(np.float32)
    graph = Graph(file)
    limits = {graph.name(t): (0.0, 100.0) for t in (*graph.inputs, *graph.producer)}
    for operator in (o for o in graph.operators if graph.operation(o) == "CONV_2D"):
        rounded = quantization._rounded(file, graph.name(operator.outputs[0]), limits)
        same = np.array_equal(results(rounded, [image]), results(file, [image]))
        assert same == (graph.constant(operator.inputs[1]) == 0).all()


def test_a_convolution_that_fixed_scales_hurt_is_dynamic():
    file = litert.convert(Quarter(), "a2b", (32, 32))
    images = [picture(32, 32, seed=i)[None].astype(np.float32) for i in range(2)]
    file, values = quantization.calibrate(file, images, images)
    (name,) = quantization.inner_convolutions(file)
    assert "QUANTIZE" in litert.operations(quantization.quantize(file, "int8", values))
    spared = {name: "dynamic"}
    assert not quantization.inner_convolutions(file, spared)
    assert quantization.quantize(file, "int8", values, spared=spared) == quantization.quantize(file, "dynamic")
    # As if its values reached a thousand times as far.
    values[name].low[0] -= 1000.0 * np.ptp([values[name].low.min(), values[name].high.max()])
    assert quantization.spared_layers(file, values, images)[name] == "dynamic"


def test_an_export_says_what_it_spares(tmp_path, monkeypatch):
    def first_and_inner(file, *_, **__):
        graph = Graph(file)
        first = next(graph.name(o.outputs[0]) for o in graph.operators if graph.operation(o) == "CONV_2D")
        return {first: "float", quantization.inner_convolutions(file)[0]: "dynamic"}

    monkeypatch.setattr(quantization, "spared_layers", first_and_inner)
    arguments = {"formats": ("dynamic", "int8"), "size": (32, 32), "floors": EASY, "calibration_images": 2}
    files = quick(Quarter(), tmp_path / "out", **arguments)["formats"]
    for kind in ("dynamic", "int8"):
        begin = f"{kind} computes 1 of 4 convolutions and dense layers in float, "
        assert any(note.startswith(begin) for note in files[kind]["notes"])
    assert any(note.startswith("int8 is the same as dynamic: ") for note in files["int8"]["notes"])
    assert files["dynamic"]["tensors"]["float16"] == 1  # its weights


@pytest.mark.parametrize("kind, norm_bits", [("int8_full", 8), ("int8_full", 16), ("int16x8", 8)])
def test_files_of_integers_have_no_float_tensor(calibrated, kind, norm_bits):
    file = quantization.quantize(calibrated[1], kind, calibrated[2], norm_bits)
    types = set(litert.tensor_types(file))
    assert types <= {"int8", "int16", "int32", "int64"} and {"int8", "int32"} <= types
    io = "int8" if kind == "int8_full" else "int16"
    operations = litert.operations(litert.with_pixels(file, io))
    assert "DEQUANTIZE" not in operations
    assert norm_bits == 16 or "QUANTIZE" not in operations


def test_norms_of_16_bits_have_ranges_of_16_bits():
    """x - mean(x) is inside the norm; convolutions write x and read what the norm writes, in 8 bits."""
    first, last = keras.layers.Conv2D(3, 1), keras.layers.Conv2D(3, 1)

    def network(x):
        y = first(x)
        y -= keras.ops.mean(y, (1, 2), keepdims=True)
        return last(y * keras.ops.mean(y * y, (1, 2), keepdims=True))

    file = converted(network)
    graph = Graph(file)
    inside = quantization._inside_norms(file, {})
    kinds = [graph.operation(graph.producer[t]) for t in graph.producer if graph.name(t) in inside]
    assert sorted(kinds) == ["MEAN", "MEAN", "MUL", "SUB"]  # and not the last product


@pytest.mark.parametrize("kind", ["float32", "dynamic", "int8", "int8_full", "int16x8", "gpu"])
def test_all_types_of_pixels_give_the_same_levels(calibrated, kind):
    float32, equalised, values = calibrated
    file = float32 if kind == "float32" else quantization.quantize(equalised, kind, values)
    image = picture(16, 16, seed=5)[None]
    floats, levels, less_128 = (
        verify.LiteRT(litert.with_pixels(file, io))(image) for io in ("float32", "uint8", "int8")
    )
    np.testing.assert_array_equal(levels, less_128)
    # A level between two integers may go either way.
    difference = np.abs(np.clip(floats, 0, 255) - levels)
    assert difference.max() <= 0.51, difference.max()


@pytest.mark.parametrize("kind", INTEGERS)
def test_the_zeros_that_refuse_other_sizes_change_no_level(calibrated, kind, monkeypatch):
    """16 x 16 x 3 values: each level three times."""
    guarded = quantization.quantize(calibrated[1], kind, calibrated[2])
    monkeypatch.setattr(quantization, "_with_one_size", lambda file: file)
    free = quantization.quantize(calibrated[1], kind, calibrated[2])
    assert litert.operations(guarded)["ADD"] == litert.operations(free)["ADD"] + 1
    levels = np.arange(768).astype(np.uint8).reshape(1, 16, 16, 3)
    one, other = (verify.LiteRT(litert.with_pixels(file, "uint8"))(levels) for file in (guarded, free))
    np.testing.assert_array_equal(one, other)


def test_white_and_black_stay_so_where_the_tanh_saturates():
    model = Convolutions()
    last = model.generator_a2b.layers[-1]
    last.kernel.assign(0.05 * last.kernel)
    last.bias.assign([20.0, -20.0, 0.0])
    file = litert.convert(model, "a2b", (16, 16))
    images = [picture(16, 16)[None].astype(np.float32)]
    equalised, values = quantization.calibrate(file, images, images)
    full = quantization.quantize(equalised, "int8_full", values)
    result = verify.LiteRT(litert.with_pixels(full, "uint8"))(picture(16, 16)[None])
    assert (result[..., 0] == 255).all() and (result[..., 1] == 0).all()


@pytest.mark.parametrize("pad_mode, folded", [("reflect", True), ("zeros", False)])
def test_the_mapping_of_pixels_is_folded_only_where_no_zeros_are_padded(pad_mode, folded):
    """Padded zeros are the middle of [-1, 1], which no constant of the convolution can make of black pixels."""
    layer = layers.Conv2D(2, 3, pad=1, pad_mode=pad_mode)
    layer.build((1, 8, 8, 3))
    column, row = np.full((1, 8, 1, 1), 1 / 127.5, np.float32), np.full((1, 1, 8, 1), -1, np.float32)
    file = converted(lambda x: keras.ops.tanh(layer(x * column + row)))
    graph = Graph(file)
    quantization._fold_mapping(graph)
    kinds = [graph.operation(o) for o in graph.operators]
    assert ("MUL" not in kinds) == folded
    image = picture(8, 8)[None].astype(np.float32)
    np.testing.assert_allclose(results(graph.to_bytes(), [image]), results(file, [image]), atol=1e-5)


def test_short_sums_are_means_of_at_most_16_values():
    file = converted(lambda x: x - keras.ops.mean(x, (1, 2), keepdims=True), size=(24, 20))
    short = quantization._with_short_sums(file)
    graph = Graph(short)
    pools = [o for o in graph.operators if graph.operation(o) == "AVERAGE_POOL_2D"]
    windows = [o.builtinOptions.filterHeight * o.builtinOptions.filterWidth for o in pools]
    assert windows and "MEAN" not in litert.operations(short)
    # 24 = 4 · 3 · 2 and 20 = 4 · 5.
    assert max(windows) <= 16 and np.prod(windows) == 24 * 20
    image = np.random.default_rng(0).normal(size=(1, 24, 20, 3)).astype(np.float32)
    np.testing.assert_allclose(results(short, [image]), results(file, [image]), atol=1e-6)


@pytest.mark.parametrize("weight, added", [(1e-7, 1), (0.1, 0)])
def test_a_bias_beyond_32_bits_is_added_alone(weight, added):
    """A step is 1e-7 / 127 times 3 / 32767, about 1e-13, of which 1 is more than 2^31."""
    layer = keras.layers.Conv2D(2, 1)
    layer.build((1, 8, 8, 3))
    layer.kernel.assign(np.full((1, 1, 3, 2), weight))
    layer.bias.assign([1.0, -1.0])
    file = converted(layer)
    image = np.linspace(-3, 3, 8 * 8 * 3, dtype=np.float32).reshape(1, 8, 8, 3)
    new, values = quantization._without_large_biases(file, ranges.observe(file, [image]))
    assert litert.operations(new).get("ADD", 0) == added
    np.testing.assert_allclose(results(new, [image]), results(file, [image]), rtol=1e-6)
    for name, seen in ranges.observe(new, [image]).items():
        np.testing.assert_allclose(values[name].high, seen.high, atol=1e-6)


def test_what_16_bit_floats_have_to_hold_is_known():
    """Two channels up to 100 and 300 are doubled; means are taken of 16 pixels a step, and then of both channels."""
    file = converted(lambda x: 2 * x - keras.ops.mean(2 * x, (1, 2, 3), keepdims=True), channels=2)
    image = np.zeros((1, 8, 8, 2), np.float32)
    image[0, 0, 0], image[0, 1, 1] = (100, 300), (-50, -20)
    found = quantization.largest(file, ranges.observe(file, [image]))
    assert 590 < found["value"] <= 600 and found["sum"] == 16 * 600
    outer = converted(lambda x: x - keras.ops.mean(x, -1, keepdims=True), channels=2)
    assert quantization.largest(outer, ranges.observe(outer, [image]))["sum"] == 2 * 200


def test_an_operation_that_no_gpu_takes_is_refused_by_name():
    with pytest.raises(UserError, match="--formats=gpu: .* need ROUND, which LiteRT's GPU accelerator does not take"):
        quantization.check(converted(keras.ops.round), "gpu")


@pytest.mark.parametrize("kind", ["float32", "float16", "dynamic", "int8", "int8_full", "int16x8", "gpu"])
def test_another_size_cannot_be_allocated(calibrated, kind):
    float32, equalised, values = calibrated
    file = float32 if kind in ("float32", "float16") else equalised
    file = file if kind == "float32" else quantization.quantize(file, kind, values)
    for height, width in ((32, 16), (16, 32), (32, 32), (12, 16)):
        run = interpreter.Interpreter(model_content=litert.with_pixels(file, "uint8"))
        run.resize_tensor_input(run.get_input_details()[0]["index"], (1, height, width, 3))
        with pytest.raises((RuntimeError, ValueError)):
            run.allocate_tensors()


@pytest.mark.parametrize("kind", ["float32", "dynamic", "int8", "int8_full", "int16x8", "gpu"])
def test_two_images_at_once_are_translated_as_each_alone(calibrated, kind):
    float32, equalised, values = calibrated
    file = litert.with_pixels(float32 if kind == "float32" else quantization.quantize(equalised, kind, values), "uint8")
    both = np.stack([picture(16, 16, seed=i) for i in (7, 8)])
    run = interpreter.Interpreter(model_content=file)
    (source,), (result,) = run.get_input_details(), run.get_output_details()
    run.resize_tensor_input(source["index"], both.shape)
    run.allocate_tensors()
    run.set_tensor(source["index"], both)
    run.invoke()
    alone = np.concatenate([verify.LiteRT(file)(x[None]) for x in both])
    np.testing.assert_array_equal(run.get_tensor(result["index"]), alone)
