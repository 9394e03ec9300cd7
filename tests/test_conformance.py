"""Every method in the situations that it can get wrong by itself, and the toy in all of them.

What a method must provide is in its own tests, `tests/methods/test_NAME.py`:

- TINY, hyper-parameters of a model that is quickly traced, and SIDE, the side of the square images that it learns from;
- SAMPLEWISE, where TINY does not leave every sample of a batch to itself: hyper-parameters that do. Only then are parts
  of a batch, on replicas or one after the other, equal to the whole;
- WITHOUT_DRAWS, where a phase of TINY draws random numbers, which are others under XLA: hyper-parameters without;
- LITERT, where a kind of file loses more than in other methods, and why: its own floors, see `LITERT` below.

The loop, `fit`, processes and replicas know no method: the toy runs through them here, and the methods in
`make test-all`.
"""

import contextlib
import functools
import gc
import importlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import typing

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import interpreter
from tensorflow.python.framework.func_graph import FuncGraph
from tfi2i.export import litert, saved_model, verify

import tfi2i
from tests import doubles, marks
from tfi2i import checkpoints, export, settings
from tfi2i.data import images, pipeline, sources
from tfi2i.layers import convolution, rematerialization
from tfi2i.methods import METHODS, trained_by
from tfi2i.metrics import faithfulness
from tfi2i.training import loop, strategies

pytestmark = pytest.mark.usefixtures("toy")

TRAINED = trained_by("train")
# Methods in one folder share their code: the first goes through the situations, all take their steps.
FIRST = [*{row.package: name for name, row in reversed(TRAINED.items())}.values()][::-1]
# A method that learns one direction has a flag that chooses it.
BOTH_WAYS = [m for m in FIRST if "direction" not in settings.field_names(METHODS[m].config_class)]
# Files of a method that translates by a search draw pairs; its own tests look at them.
EXPORTED = [m for m in FIRST if METHODS[m].model_class.latent_size is None]
takes_steps = pytest.mark.parametrize("method", ["toy", *TRAINED])
every_method = pytest.mark.parametrize("method", ["toy", *FIRST])


def thorough(*values):
    """Parameters of a test that are left to `make test-all`."""
    return [marks.thorough(*(v if isinstance(v, tuple) else (v,))) for v in values]


def ways(methods):
    """Parametrizes a test by the directions of the toy and of `methods`."""
    back = thorough(*((m, "b2a") for m in methods if m in BOTH_WAYS))
    return pytest.mark.parametrize(
        "method, direction", [("toy", "a2b"), ("toy", "b2a"), *((m, "a2b") for m in methods), *back]
    )


# To compile a step takes half a minute and more.
compiled = pytest.mark.parametrize("method", [FIRST[0], *thorough("toy", "one_way_toy", *FIRST[1:])])
shared_machinery = pytest.mark.parametrize("method", ["one_way_toy", *thorough("toy", *FIRST)])
STEPS = 3
as_numpy = keras.ops.convert_to_numpy


class Learned(typing.NamedTuple):
    """A trained model, the losses of each step, and the gradients of the first, by path of the weight's momentum."""

    model: keras.Model
    losses: list
    gradients: dict


def described(method):
    """What `tests/methods/test_NAME.py` says of a method: see above."""
    return importlib.import_module(f"tests.methods.test_{method.removeprefix('one_way_')}")


def hyperparameters(method, *without):
    """The hyper-parameters that the method has for "SAMPLEWISE" or "WITHOUT_DRAWS", or both; {} where it needs none."""
    return {name: value for kind in without for name, value in getattr(described(method), kind, {}).items()}


def build(method, **kwargs):
    keras.utils.set_random_seed(0)
    return METHODS[method].model_class(**{**described(method).TINY, **kwargs})


def ready(method, shape, compiled=None, **kwargs):
    """A model that can take its first step with batches of `shape`."""
    model = build(method, **kwargs)
    model.compile(**compiled or {})
    model.build_for_training(shape, shape)
    model.build_optimizers()
    return model


def batches(method, count=STEPS, batch_size=2, seed=0):
    side = described(method).SIDE
    low, high = METHODS[method].model_class.value_range
    draw = np.random.default_rng(seed)
    return [
        tuple(draw.uniform(low, high, (batch_size, side, side, 3)).astype("float32") for _ in "ab")
        for _ in range(count)
    ]


def learn(method, data, strategy=None, compiled=None, traced=True, **kwargs):
    """Trains a new model on `data` by `model.take_step`.

    That is the loop's one traced step or, without `traced`, operations that run one by one: these compute the same, and
    a step of them costs a tenth of what it costs to trace one.
    """
    strategy = strategy or tf.distribute.OneDeviceStrategy("/cpu:0")
    size, *rest = data[0][0].shape
    with strategy.scope():
        model = ready(method, (size // strategy.num_replicas_in_sync, *rest), compiled, **kwargs)
    step = strategies.distributed_step(strategy, model) if traced else None

    def take_step(batch):
        def part(context):
            n = size // strategy.num_replicas_in_sync
            i = context.replica_id_in_sync_group * n
            return tuple(tf.constant(x[i : i + n]) for x in batch)

        parts = strategy.experimental_distribute_values_from_function(part)
        if traced:
            losses = step(parts)[0]()
            model.traced_step = step.get_concrete_function(parts)
            return losses
        losses = strategy.run(model.train_step, args=(parts,))
        return {n: float(strategy.reduce(tf.distribute.ReduceOp.MEAN, v, axis=None)) for n, v in losses.items()}

    model.take_step = take_step
    losses = [take_step(data[0])]
    gradients = first_gradients(model)
    return Learned(model, losses + [take_step(batch) for batch in data[1:]], gradients)


def first_gradients(model):
    """After one step Adam's momentum is (1 - beta_1) times the gradient."""
    return {n: v / 0.5 for n, v in state(model).items() if n.endswith("_momentum")}


def eager_step(model, batch):
    """One step of operations that run one by one, those of `tf.function`s too; returns its losses."""
    tf.config.run_functions_eagerly(True)
    try:
        losses = model.train_step(tuple(map(tf.constant, batch)))
    finally:
        tf.config.run_functions_eagerly(False)
    return {name: float(value) for name, value in losses.items()}


@functools.lru_cache(maxsize=4)  # of one method, whose tests come together: models take memory
def plain(method, *without):
    """The run that others are compared with: one device, float32, no XLA; traced where it is the first of its folder.

    A test may use its model, but leaves it as it was: see `rewound`.
    """
    own = hyperparameters(method, *without)
    if without and not own:
        return plain(method)
    traced = method not in TRAINED or method in FIRST and not without
    return learn(method, batches(method, 2 if without else STEPS), traced=traced, **own)


@contextlib.contextmanager
def rewound(model, folder):
    """Puts a model back to where it is now, by a checkpoint in `folder`."""
    checkpoints.save(folder, model, STEPS, keep=1)
    yield
    checkpoints.restore(checkpoints.find(folder), model)


def assert_same_step(one, other):
    """Equal losses and gradients of the first step, about 1e-5 relative; GANs amplify rounding in later ones."""
    count = min(len(one.losses), len(other.losses))
    assert_close_losses(one.losses[:1], other.losses[:1], rtol=1e-5)
    assert_close_losses(one.losses[:count], other.losses[:count], rtol=5e-3)
    assert one.gradients.keys() == other.gradients.keys() and one.gradients
    for role in ("generator", "discriminator"):
        names = [n for n in one.gradients if f"{role}_adam" in n]
        x, y = (np.concatenate([run.gradients[n].ravel() for n in names]) for run in (one, other))
        # Two ways to write the same norm differ by 1.1e-5 here: rounding, amplified by 4x4 maps.
        assert np.linalg.norm(x - y) <= 2e-5 * np.linalg.norm(x), role


def state(model):
    """Every variable of the model and its optimizers, by path."""
    optimizers = [v for role in model.roles for v in model.optimizer_of(role).variables]
    return {f"{i} {v.path}": as_numpy(v) for i, v in enumerate(model.variables + optimizers)}


def assert_equal_state(x, y):
    assert x.keys() == y.keys()
    for name in x:
        np.testing.assert_array_equal(x[name], y[name], err_msg=name)


def assert_close_losses(x, y, **tolerance):
    for before, after in zip(x, y, strict=True):
        assert before.keys() == after.keys()
        for name in before:
            np.testing.assert_allclose(before[name], after[name], err_msg=name, **tolerance)


def configured(method, **training):
    side = described(method).SIDE
    given = {"data": "emoji", "resize": (side + 2,) * 2, "crop": (side,) * 2, "batch_size": 2, "precision": "float32"}
    given |= {"save_every": 2, "sample_every": 1000, "log_every": 1}
    return settings.resolve(method, {**described(method).TINY, **given, **training})


# ---------------------------------------------------------------------------------- what each method can get wrong


@takes_steps
def test_steps_move_every_weight(method):
    model, losses, _ = plain(method)
    fresh = build(method)
    fresh.build((None, None, None, 3))
    assert all(np.isfinite(v) for step in losses for v in step.values())
    momenta = {n.rpartition("/")[2]: v for n, v in state(model).items() if n.endswith("_momentum")}
    for name, network in model.networks.items():
        for new, old in zip(network.trainable_variables, fresh.networks[name].trainable_variables, strict=True):
            if new.path.endswith("kernel"):
                assert np.abs(as_numpy(new) - as_numpy(old)).max() > 0, new.path
            # Behind factors that start at 0, a step can be too small for the digits of a factor of 1.
            if "bias" not in new.path:
                assert np.any(momenta[f"{new.path.replace('/', '_')}_momentum"]), new.path


@takes_steps
def test_a_restored_model_takes_the_same_step_again(method, tmp_path):
    """Whatever a step reads is in the checkpoint, or a function of what is."""
    model, _, _ = plain(method)
    (batch,) = batches(method, 1, seed=1)
    before = state(model)
    with rewound(model, tmp_path):
        losses = model.take_step(batch)
        after = state(model)
    assert_equal_state(before, state(model))
    with rewound(model, tmp_path):
        assert model.take_step(batch) == losses
        assert_equal_state(after, state(model))


@every_method
def test_two_replicas_equal_one(method):
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    two = learn(method, batches(method, 1), strategy, traced=False, **hyperparameters(method, "SAMPLEWISE"))
    assert_same_step(plain(method, "SAMPLEWISE"), two)
    model = two.model
    for variable in [*model.variables, *(v for role in model.roles for v in model.optimizer_of(role).variables)]:
        copies = [v.numpy() for v in variable.value.values]
        np.testing.assert_array_equal(copies[0], copies[1], err_msg=variable.path)
    # Without a broadcast at each step, copies stay equal only where every replica computes the same from all samples.
    alone = [v for v in model.non_trainable_variables if v.aggregation == "none"]
    allowed = ("pool_a/images", "pool_b/images", "/features", "_average/")
    assert all(any(part in v.path for part in allowed) for v in alone), [v.path for v in alone]


@compiled
def test_xla_equals_plain(method, monkeypatch):
    """XLA's losses and gradients of every phase equal those of the same graph without XLA, both in float64.

    In float32 rounding decides some gradients. In U-GAT-IT's tiny network one input of a ReLU is nearer to 0 than its
    rounding error, in DRIT's a norm subtracts the mean of a map that deviates from it by 2e-6.
    """
    phases, function = [], tf.function

    def compared(pure=None, **how):
        if getattr(pure, "__name__", None) != "pure":  # those of Keras
            return function(pure, **how)

        def computed(*inputs):
            assert how["jit_compile"]
            with monkeypatch.context() as patch:
                patch.setattr(tf, "function", function)
                precise = doubles.in_doubles(pure, *inputs)
                plainly, compiled = precise(*inputs), function(precise, jit_compile=True)(*inputs)
                found = function(pure, **how)(*inputs)
            for value, expected in zip(*map(tf.nest.flatten, (compiled[:2], plainly[:2]))):
                np.testing.assert_allclose(value, expected, rtol=0, atol=1e-9 * max(1.0, np.abs(expected).max()))
            assert_close_losses([plainly[0]], [found[0]], rtol=1e-5)
            phases.append(pure)
            return found

        return computed

    (batch,) = batches(method, 1)
    model = ready(method, batch[0].shape, {"xla": True}, **hyperparameters(method, "WITHOUT_DRAWS"))
    with monkeypatch.context() as patch:
        patch.setattr(tf, "function", compared)
        model.train_step(tuple(map(tf.constant, batch)))
    assert len(phases) >= len(model.roles)


@pytest.mark.parametrize(
    "method, precision",
    [(FIRST[0], "mixed_bfloat16")]
    + thorough((FIRST[0], "float32"), (FIRST[0], "mixed_float16"))
    + thorough(*itertools.product(FIRST[1:], ("float32", "mixed_bfloat16", "mixed_float16"))),
)
def test_every_phase_is_lowered_for_gpus(method, precision, monkeypatch):
    """XLA makes a program for GPUs of every phase, which needs no GPU; it would name an operation that has none."""
    programs, function = [], tf.function

    def lowered(pure=None, **how):
        if getattr(pure, "__name__", None) != "pure":  # those of Keras
            return function(pure, **how)

        def computed(*inputs):
            lower = function(pure, jit_compile=True).experimental_get_compiler_ir(*inputs)
            programs.append(lower(stage="hlo", platform_name="GPU"))
            return pure(*inputs)

        return computed

    (batch,) = batches(method, 1)
    model = ready(method, batch[0].shape, {"xla": True}, dtype=precision)
    monkeypatch.setattr(tf, "function", lowered)
    eager_step(model, batch)
    assert len(programs) >= len(model.roles)
    for program in programs:
        assert "convolution" in program
        assert not re.search(r"custom-call|infeed|outfeed|send\(|recv\(", program)  # nothing asks the host


@pytest.mark.parametrize("method", ["toy", *FIRST])
def test_a_step_asks_no_host(method):
    """No part of a traced step is computed in Python or printed, which a GPU would wait for."""
    model, _, _ = plain(method)
    graph = model.traced_step.graph
    kinds = {node.op for node in graph.as_graph_def().node}
    kinds |= {node.op for f in graph.as_graph_def().library.function for node in f.node_def}
    assert "Conv2D" in kinds
    assert not kinds & {"PyFunc", "PyFuncStateless", "EagerPyFunc", "PrintV2", "StringFormat"}


@every_method
def test_a_step_transposes_floats_alone(method):
    """Without Grappler, as on CPUs, TensorFlow prints an error line: oneDNN has no transposition of integers."""
    graph = plain(method)[0].traced_step.graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    others = [n.name for n in nodes if n.op == "Transpose" and not tf.as_dtype(n.attr["T"].type).is_floating]
    assert not others


def test_a_phase_waits_for_all_updates_of_the_one_before():
    """TensorFlow begins whatever can begin, and memory would hold the maps of two phases."""
    model = plain("toy")[0]

    @functools.cache
    def updates_before(op):
        parents = {*op.control_inputs, *(x.op for x in op.inputs)}
        own = {parent.name for parent in parents if parent.type == "ResourceApplyAdam"}
        return own.union(*map(updates_before, parents))

    operations = model.traced_step.graph.get_operations()  # parents come first, so that the recursion is flat
    counts = {op.name: len(updates_before(op)) for op in operations}
    convolutions = [op.name for op in operations if op.type == "Conv2D"]
    assert {counts[name] for name in convolutions} == {0, len(model.weights_of("generator"))}


@pytest.mark.parametrize("method", ["toy", FIRST[0], *thorough(*FIRST[1:])])  # two replicas ask the same of losses
def test_accumulated_parts_equal_the_whole_batch(method):
    (batch,) = batches(method, 1)
    model = ready(method, batch[0].shape, {"accumulate": 2}, **hyperparameters(method, "SAMPLEWISE"))
    losses = [eager_step(model, batch)]
    assert_same_step(plain(method, "SAMPLEWISE"), Learned(model, losses, first_gradients(model)))


@pytest.mark.parametrize("method", ["uvcgan2", *thorough(*(m for m in FIRST if m != "uvcgan2"))])
def test_maps_that_are_computed_again_change_no_step(method, monkeypatch):
    calls, compute = [], rematerialization.computed_with
    monkeypatch.setattr(rematerialization, "computed_with", lambda *x, **y: calls.append(x) or compute(*x, **y))
    (batch,) = batches(method, 1)
    model = ready(method, batch[0].shape, {"remat": True})
    losses = [eager_step(model, batch)]
    assert calls
    assert_same_step(plain(method), Learned(model, losses, first_gradients(model)))


@pytest.mark.parametrize(
    "method, precision",
    [*((m, "mixed_bfloat16") for m in ["toy", *FIRST]), ("toy", "mixed_float16"), (FIRST[0], "mixed_float16")]
    + thorough(*((m, "mixed_float16") for m in FIRST[1:])),
)
def test_mixed_precision(method, precision):
    (batch,) = batches(method, 1)
    model = ready(method, batch[0].shape, dtype=precision)
    losses = [eager_step(model, batch)]
    assert all(v.dtype == "float32" for v in model.trainable_variables)
    assert_close_losses(losses, plain(method).losses[:1], rtol=0.05, atol=0.02)
    scaled = isinstance(model.generator_optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == "mixed_float16")


@every_method
def test_keras_file_round_trip(method, tmp_path):
    """A step is a function of the configuration and of the state; that of a loaded toy is taken, see below."""
    model, _, _ = plain(method)
    ((x, _),) = batches(method, 1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    assert_equal_state(state(model), state(loaded))
    np.testing.assert_array_equal(model(x), loaded(x))
    model.save_weights(tmp_path / "model.weights.h5")
    for v in loaded.variables:
        v.assign(keras.ops.zeros_like(v))
    loaded.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(model(x), loaded(x))


@ways(FIRST)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (17, 30)])
def test_any_size_any_pixels(method, direction, size):
    model, _, _ = plain(method)
    draw = np.random.default_rng(0)
    for dtype in ("uint8", "uint16"):
        pixels = draw.integers(0, np.iinfo(dtype).max, (2, *size, 3), dtype)
        result = model.translate(pixels, direction)
        assert result.shape == pixels.shape and result.dtype == pixels.dtype
        np.testing.assert_array_equal(model.translate(pixels[0], direction), result[0])
    low, high = model.value_range
    x = np.full((*size, 3), high, "float32")
    assert model.translate(x, direction).dtype == np.float32
    with pytest.raises(ValueError, match="range"):
        model.translate(x * 3 + 1, direction)
    with pytest.raises(ValueError, match="expected"):
        model.translate(x[..., :2], direction)


def drawings(method, count, split="train"):
    """uint8 [count, side, side, 3], of domain A."""
    data = configured(method, steps=1).data
    source = sources.open_domains(data, split)[0]
    return np.stack([pixels for _, pixels in pipeline.eval_images(source, data, range(count))])


@ways(EXPORTED)
def test_saved_model_translates_pixels(method, direction, tmp_path, monkeypatch):
    monkeypatch.setattr(saved_model, "_CONSTANT", 100)  # so that these small kernels are variables, as larger ones are
    model, _, _ = plain(method)
    export.write_saved_model(model, tmp_path, direction)
    signatures = tf.saved_model.load(str(tmp_path)).signatures
    pixels, files, translated = drawings(method, 2, "test"), [], []
    given = styles(model, 2)
    for x in (pixels, np.ascontiguousarray(pixels[:, 1:, :-3])):
        result = signatures["serving_default"](images=tf.constant(x), **as_tensors(given))["images"].numpy()
        assert result.dtype == np.uint8
        translated.append(model.translate(x, direction, **given).astype(int))
        difference = np.abs(result - translated[-1])
        assert difference.max() <= 1 and difference.mean() < 0.01
        files += [images.encode_image(".png", picture) for picture in x]
    given = {name: np.concatenate([x, x, x[:1]]) for name, x in given.items()}
    result = signatures["image_bytes"](image_bytes=tf.constant([*files, "broken"]), **as_tensors(given))
    for png, expected in zip(result["image_bytes"].numpy(), [*translated[0], *translated[1]]):
        assert np.abs(images.read_image(png) - expected).max() <= 1
    assert ("reference_bytes" in signatures) == bool(given)
    if given:
        reference = images.resize(drawings(method, 1, "test")[0], (20, 24))
        names = {"image_bytes": files, "reference_bytes": [images.encode_image(".png", reference)] * 4}
        result = signatures["reference_bytes"](**as_tensors(names))["image_bytes"].numpy()
        expected = model.translate(pixels, direction, reference=reference)
        assert np.abs(images.read_image(result[1]) - expected[1].astype(int)).max() <= 1


def styles(model, count):
    """What `model.translate` takes for the styles of some images: {} where the method takes none."""
    return {} if model.style_size is None else {"style": model.draw_styles(1, range(count))}


def as_tensors(given):
    return {name: tf.constant(x) for name, x in given.items()}


@functools.cache
def calibrated_file(method, direction):
    """A float32 file, and what `export.quantize` makes all others of."""
    side, model = described(method).SIDE, plain(method).model
    file = export.convert(model, direction, (side, side))
    inputs = [*drawings(method, 4)[:, None].astype(np.float32)]
    if given := styles(model, 4):
        inputs = [*zip(inputs, given["style"][:, None])]
    return file, *export.calibrate(file, inputs, inputs)


@functools.cache
def litert_file(method, kind, direction="a2b"):
    float32, equalised, values = calibrated_file(method, direction)
    return float32 if kind == "float32" else export.quantize(equalised, kind, values)


# What every other kind is made of, and the kind whose every operation is in integers: see `export/quantization.py`.
BOTH_ENDS = ("float32", "int8_full")
# Least PSNR after rounding. Weights after three steps are far harder to quantize than trained ones.
LITERT = {"float32": 55, "float16": 45, "dynamic": 30, "int8": 22, "int8_full": 15, "int16x8": 22, "gpu": 45}


@pytest.mark.parametrize(
    "method, kind, direction",
    [*((m, kind, "a2b") for m in ["toy", *EXPORTED] for kind in BOTH_ENDS), ("toy", "float32", "b2a")]
    + [*((m, kind, "a2b") for m in ("toy", EXPORTED[0]) for kind in LITERT if kind not in BOTH_ENDS)]
    + thorough(*((m, kind, "a2b") for m in EXPORTED[1:] for kind in LITERT if kind not in BOTH_ENDS))
    + thorough(*((m, "float32", "b2a") for m in EXPORTED if m in BOTH_WAYS)),
)
def test_litert_translates_pixels(method, kind, direction):
    model, _, _ = plain(method)
    file = litert_file(method, kind, direction)
    if kind in ("float16", "dynamic", "int8", "gpu"):  # scales of each tensor weigh more than these small networks
        assert len(file) < len(litert_file(method, "float32", direction))
    runner = verify.LiteRT(export.with_pixels(file, "uint8"))
    for end in (runner.input, runner.output):
        assert end["dtype"] == np.uint8 and end["quantization"] == (1.0, 0)
    pixels, given = drawings(method, 3, "test"), styles(model, 3)
    result = np.concatenate([runner(*(x[i : i + 1] for x in (pixels, *given.values()))) for i in range(3)])
    error = faithfulness.squared_error(result, model.translate(pixels, direction, **given)).mean()
    floors = LITERT | getattr(described(method), "LITERT", {})
    assert faithfulness.decibels(error) >= floors[kind], faithfulness.decibels(error)


@pytest.mark.parametrize(
    "method, kind",
    [*((m, "int8_full") for m in ["toy", *EXPORTED]), ("toy", "int16x8"), (EXPORTED[0], "int16x8")]
    + thorough(*((m, "int16x8") for m in EXPORTED[1:])),
)
def test_integer_files_have_no_float_tensor(method, kind):
    file = export.with_pixels(litert_file(method, kind), "int8" if kind == "int8_full" else "int16")
    types = set(litert.tensor_types(file))
    assert all(np.issubdtype(end["dtype"], np.integer) for end in verify.LiteRT(file).ends().values())
    assert types <= {"bool", "int8", "int16", "int32", "int64"} and "int8" in types
    assert "DEQUANTIZE" not in litert.operations(file)


def resized(file, shape):
    """An interpreter of a file that takes images of another shape, and as many styles."""
    run = interpreter.Interpreter(model_content=file)
    source, *style = run.get_input_details()
    run.resize_tensor_input(source["index"], shape)
    for end in style:
        run.resize_tensor_input(end["index"], (shape[0], *end["shape"][1:]))
    run.allocate_tensors()
    return run


@pytest.mark.parametrize("kind", [k if k in BOTH_ENDS else marks.thorough(k) for k in LITERT])
@pytest.mark.parametrize("method", ["toy", *EXPORTED])
def test_litert_takes_more_images_and_no_other_size(method, kind):
    file, side = export.with_pixels(litert_file(method, kind), "uint8"), described(method).SIDE
    for shape in ((2 * side, side), (side, 2 * side), (2 * side, 2 * side)):
        with pytest.raises((RuntimeError, ValueError)):
            resized(file, (1, *shape, 3))
    both = [drawings(method, 2, "test"), *styles(plain(method).model, 2).values()]
    run = resized(file, both[0].shape)
    (result,) = run.get_output_details()
    for end, x in zip(run.get_input_details(), both, strict=True):
        run.set_tensor(end["index"], x)
    run.invoke()
    alone = np.concatenate([verify.LiteRT(file)(*(x[i : i + 1] for x in both)) for i in range(2)])
    if "int" not in kind:  # in few steps of a fixed size, outputs of networks that have hardly learned may be one grey
        assert not np.array_equal(*alone)
    np.testing.assert_array_equal(run.get_tensor(result["index"]), alone)


# ----------------------------------------------------------------------------------------------- what all methods share


@shared_machinery
def test_stopped_and_resumed_is_an_unbroken_run(method, tmp_path):
    """On two replicas; on one, see the loss scale's test."""
    more = {"strategy": "mirrored", "replicas": 2}
    whole = loop.train(configured(method, steps=4, **more), tmp_path / "whole")
    # An interrupted run: what an unbroken one had on disk after step 2, and logs that went further.
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "whole", broken)
    shutil.rmtree(broken / "checkpoints" / "00000004")
    again = loop.train(configured(method, steps=4, **more), broken)
    assert_equal_state(state(whole), state(again))
    lines = [json.loads(line) for line in (broken / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "step"] == [1, 2, 3, 4]

    loaded = tfi2i.load(broken)
    assert loaded.checkpoint_step == 4
    kept = loaded.networks | loaded.averages
    for name, part in (again.networks | again.averages).items():
        for x, y in zip(part.variables, kept[name].variables, strict=True):
            np.testing.assert_array_equal(as_numpy(x), as_numpy(y), err_msg=x.path)


@shared_machinery
def test_float16_resumes_with_its_loss_scale(method, tmp_path, monkeypatch):
    usual = keras.optimizers.LossScaleOptimizer

    class Growing(usual):
        """Doubles its scale after three steps without overflow; the step of the interruption is the second of them."""

        def __init__(self, inner_optimizer, **kwargs):
            super().__init__(inner_optimizer, initial_scale=64.0, dynamic_growth_steps=3, **kwargs)

    monkeypatch.setattr(keras.optimizers, "LossScaleOptimizer", Growing)
    chosen = configured(method, steps=4, precision="mixed_float16")
    whole = loop.train(chosen, tmp_path / "whole")
    assert float(whole.generator_optimizer.dynamic_scale.numpy()) == 128
    shutil.rmtree(tmp_path / "whole" / "checkpoints" / "00000004")
    assert_equal_state(state(whole), state(loop.train(chosen, tmp_path / "whole")))


@shared_machinery
def test_two_replicas_equal_one_when_traced(method):
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    two = learn(method, batches(method), strategy, **hyperparameters(method, "SAMPLEWISE"))
    assert_same_step(plain(method, "SAMPLEWISE"), two)


@shared_machinery
def test_xla_on_two_replicas_equals_xla_on_one(method):
    """Not what is computed without XLA: `test_xla_equals_plain` says how far float32 takes those two apart."""
    own = hyperparameters(method, "SAMPLEWISE", "WITHOUT_DRAWS")
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    one, two = (learn(method, batches(method, 1), on, {"xla": True}, **own) for on in (None, strategy))
    assert_same_step(one, two)


@shared_machinery
def test_accumulated_parts_equal_the_whole_batch_when_traced(method):
    own = hyperparameters(method, "SAMPLEWISE")
    parts = learn(method, batches(method, 1), compiled={"accumulate": 2}, **own)
    assert_same_step(plain(method, "SAMPLEWISE"), parts)


@pytest.mark.parametrize("compiled", [{}, *thorough({"xla": True}, {"remat": True, "accumulate": 2})])
def test_gradients_of_kernels_from_patches_change_no_step(compiled, monkeypatch):
    wide = {"generator_width": 64, "residual_blocks": 1, "pool_size": 0}  # layers of 64 and 128 channels
    fast = learn(FIRST[0], batches(FIRST[0], 1), compiled=compiled, **wide)
    monkeypatch.setattr(convolution, "_PATCHES", 0)
    assert_same_step(learn(FIRST[0], batches(FIRST[0], 1), compiled=compiled, **wide), fast)


@pytest.mark.parametrize("method", thorough(*FIRST))
def test_maps_that_are_computed_again_change_no_step_when_traced(method):
    again = learn(method, batches(method, 1), compiled={"remat": True})
    assert_same_step(plain(method), again)


@shared_machinery
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_when_traced(method, precision):
    mixed = learn(method, batches(method, 1), dtype=precision)
    assert_close_losses(mixed.losses, plain(method).losses[:1], rtol=0.05, atol=0.02)


@shared_machinery
def test_fit_learns_as_the_loop_does(method, tmp_path):
    data = batches(method)
    model = build(method)
    model.compile()
    stack = [np.stack(x) for x in zip(*data)]
    dataset = tf.data.Dataset.from_tensor_slices(tuple(stack))
    saved = keras.callbacks.ModelCheckpoint(str(tmp_path / "w{epoch}.weights.h5"), save_weights_only=True)
    history = model.fit(dataset, epochs=1, verbose=0, callbacks=[saved, keras.callbacks.TerminateOnNaN()])
    assert int(model.step.numpy()) == STEPS
    losses = plain(method).losses
    for name in losses[0]:
        mean = np.mean([step[name] for step in losses])
        np.testing.assert_allclose(history.history[name][-1], mean, rtol=1e-3)
    assert (tmp_path / "w1.weights.h5").is_file()


@shared_machinery
def test_fit_on_two_replicas(method):
    with tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]).scope():
        model = build(method, **hyperparameters(method, "SAMPLEWISE"))
        model.compile()
    a, b = (np.concatenate(x) for x in zip(*batches(method)))
    model.fit(tf.data.Dataset.from_tensor_slices((a, b)).batch(2, drop_remainder=True), verbose=0)
    assert int(model.step.numpy()) == STEPS


def test_a_model_that_is_dropped_leaves_no_traced_step():
    def graphs():
        gc.collect()
        return [o for o in gc.get_objects() if isinstance(o, FuncGraph)]

    before = graphs()  # of other tests; some may go meanwhile
    learn("toy", batches("toy", 1))
    assert [new.name for new in graphs() if not any(new is old for old in before)] == []


@shared_machinery
def test_a_loaded_keras_file_predicts_and_learns_as_the_saved_model(method, tmp_path):
    model, _, _ = plain(method)
    batch, x = batches(method, 1, seed=1)[0], batches(method, 1)[0][0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    step = strategies.distributed_step(tf.distribute.OneDeviceStrategy("/cpu:0"), loaded)
    losses, _ = step(tuple(map(tf.constant, batch)))
    with rewound(model, tmp_path):
        assert model.take_step(batch) == losses()


WORKER = """
    import json, sys
    from tests import test_conformance as t, toy
    from tfi2i.config import UserError
    from tfi2i.methods import METHODS
    from tfi2i.training import loop
    run_dir, method, steps = sys.argv[1:]
    METHODS |= toy.ROWS
    def full_disk(*_):
        raise OSError(28, "No space left on device")
    if run_dir.endswith("full_disk"):
        loop.checkpoints.save = full_disk
    own = t.hyperparameters(method, "SAMPLEWISE")
    configured = t.configured(method, steps=int(steps), lr_schedule="constant", strategy="multi_worker", **own)
    try:
        model = loop.train(configured, run_dir)
    except loop.Interrupted as stop:
        print("STOPPED", stop.step)
        sys.exit(128 + stop.signal)
    except UserError as error:
        print("REFUSED", error)
        sys.exit(1)
    print("SUM", json.dumps({k: float(abs(v.astype("float64")).sum()) for k, v in t.state(model).items()}))
"""


def two_workers(run_dir, method, steps, errors, of_second=None):
    """Starts two processes that train together, the second in `of_second`; they write to the files errors/0 and /1."""
    errors.mkdir(exist_ok=True)
    ports = []
    sockets = [socket.socket() for _ in range(2)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
        ports.append(f"127.0.0.1:{s.getsockname()[1]}")
    for s in sockets:
        s.close()
    workers = []
    for index in range(2):
        cluster = {"cluster": {"worker": ports}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(cluster)}
        folder = of_second if index and of_second else run_dir
        command = [sys.executable, "-c", textwrap.dedent(WORKER), str(folder), method, str(steps)]
        with open(errors / str(index), "w") as file:
            workers.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=file, text=True))
    return workers


def ended(workers, code, tmp_path):
    """What two workers printed, who must end with `code`."""
    results = [w.communicate(timeout=300)[0] for w in workers]
    seen = [(tmp_path / "errors" / str(i)).read_text()[-3000:] for i in range(2)]
    assert [w.returncode for w in workers] == [code] * 2, seen
    return results


@pytest.mark.thorough
def test_what_one_process_is_refused_ends_both(tmp_path):
    later = tmp_path / "later"
    later.mkdir()
    (later / "config.json").write_text('{"format": 1000}')
    workers = two_workers(tmp_path / "run", "one_way_toy", 1000000, tmp_path / "errors", of_second=later)
    elsewhere, refused = ended(workers, 1, tmp_path)
    assert f"REFUSED {strategies.ELSEWHERE}" in elsewhere and "REFUSED" in refused and str(later) in refused

    # Within the loop, where only the chief writes.
    workers = two_workers(tmp_path / "full_disk", "one_way_toy", 1000000, tmp_path / "errors")
    refused, elsewhere = ended(workers, 1, tmp_path)
    assert f"REFUSED {strategies.ELSEWHERE}" in elsewhere and "No space left" in refused.split("REFUSED")[1]


@pytest.mark.thorough
def test_a_worker_whose_other_is_killed_says_so(tmp_path):
    left, killed = two_workers(tmp_path / "run", "one_way_toy", 1000000, tmp_path / "errors")
    for line in left.stdout:
        if "/1000000 steps" in line:
            break
    killed.kill()
    killed.communicate()
    out, _ = left.communicate(timeout=300)
    assert left.returncode == 1 and "REFUSED another worker has ended" in out


@shared_machinery
def test_two_processes_train_in_step_and_go_on_until_a_signal_to_one_of_them(method, tmp_path):
    results = ended(two_workers(tmp_path / "run", method, 2, tmp_path / "errors"), 0, tmp_path)
    first, second = (json.loads(out.split("SUM ")[1].splitlines()[0]) for out in results)
    assert first == second

    again = two_workers(tmp_path / "run", method, 1000000, tmp_path / "errors")
    for line in again[0].stdout:  # of the chief; plain lines appear as steps are done
        if "/1000000 steps" in line:
            break
    again[0 if method == "cyclegan" else 1].send_signal(signal.SIGTERM)  # to the chief, or to the other
    stopped = [int(out.split("STOPPED ")[1]) for out in ended(again, 128 + signal.SIGTERM, tmp_path)]
    assert stopped == [checkpoints.steps(tmp_path / "run")[-1]] * 2 and stopped[0] > 2

    # One process that takes the same batches.
    own = hyperparameters(method, "SAMPLEWISE")
    loop.train(configured(method, steps=3, lr_schedule="constant", **own), tmp_path / "alone")
    totals = {name.partition(" ")[2]: total for name, total in first.items()}
    kernels = [v for v in tfi2i.load(tmp_path / "alone", 2).variables if v.path.endswith("kernel")]
    for v in kernels:
        np.testing.assert_allclose(totals[v.path], np.abs(as_numpy(v).astype("float64")).sum(), rtol=1e-3)
    assert kernels
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("run", "alone")]
    steps = [[line for line in map(json.loads, log) if line["event"] == "step"] for log in logs]
    assert [line["step"] for line in steps[0]] == list(range(1, stopped[0] + 1))
    for i, tolerance in ((0, 1e-5), (2, 5e-3)):
        for name in model_losses(steps[1][i]):
            np.testing.assert_allclose(steps[0][i][name], steps[1][i][name], rtol=tolerance, err_msg=name)


def model_losses(line):
    return [n for n in line if n.split("_")[0] in ("gan", "cycle", "identity", "discriminator")]
