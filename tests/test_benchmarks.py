"""Counted operations equal a count by hand; the programs run at a tiny size. Nothing here looks at a clock."""

import dataclasses
import functools
import importlib
import json
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from absl.flags import FlagValues

from benchmarks import common, duration, gpu_file, methods, scaling, students, table, tables
from tests.own_flags import call, own_flags
from tfi2i import checkpoints, command_line, config, flops, presets, run_directory, settings
from tfi2i.data import images


def count(function, *shapes):
    return flops.count_flops(tf.function(function).get_concrete_function(*[tf.zeros(s) for s in shapes]))


def test_matrix_product():
    assert count(tf.matmul, (3, 5), (5, 7)) == 2 * 3 * 5 * 7
    assert count(functools.partial(tf.matmul, transpose_a=True), (5, 3), (5, 7)) == 2 * 3 * 5 * 7
    assert count(tf.matmul, (2, 3, 5), (2, 5, 7)) == 2 * 2 * 3 * 5 * 7
    assert count(functools.partial(tf.einsum, "nhd,nwd->nhw"), (2, 3, 5), (2, 7, 5)) == 2 * 2 * 3 * 5 * 7


def test_convolutions():
    # 6x6 positions of a 3x3 kernel over 8x8, from 3 to 4 channels
    assert count(lambda x, w: tf.nn.conv2d(x, w, 1, "VALID"), (2, 8, 8, 3), (3, 3, 3, 4)) == 2 * 2 * 36 * 4 * 27
    assert count(lambda x, w: tf.nn.depthwise_conv2d(x, w, [1] * 4, "VALID"), (1, 8, 8, 3), (3, 3, 3, 2)) == (
        2 * 36 * 6 * 9
    )
    # Transposed, 4x4 to 8x8: each of the 16 pixels and 4 channels meets 3x3x3 kernel values once.
    assert (
        count(lambda x, w: tf.nn.conv2d_transpose(x, w, (1, 8, 8, 3), 2, "SAME"), (1, 4, 4, 4), (3, 3, 3, 4))
        == 2 * 16 * 4 * 27
    )


def net(x, w, v):
    """A convolution and a matrix product."""
    y = tf.nn.relu(tf.nn.conv2d(x, w, 2, "SAME"))  # [1, 8, 8, 3] → [1, 4, 4, 4]
    return tf.matmul(tf.reshape(y, (1, 64)), v)


NET = ((1, 8, 8, 3), (3, 3, 3, 4), (64, 2))
CONVOLUTION, PRODUCT = 2 * 16 * 4 * 27, 2 * 64 * 2
FORWARD = CONVOLUTION + PRODUCT


def test_gradients_with_respect_to_weights_and_input():
    def learn(*sources):
        def gradients(x, w, v):
            with tf.GradientTape() as tape:
                watched = [(x, w, v)[i] for i in sources]
                tape.watch(watched)
                loss = tf.reduce_sum(net(x, w, v) ** 2)
            return tape.gradient(loss, watched)

        return count(gradients, *NET)

    assert learn(0, 1, 2) == 3 * FORWARD
    assert learn(1, 2) == FORWARD + CONVOLUTION + 2 * PRODUCT
    assert learn(2) == FORWARD + PRODUCT


def test_nested_and_compiled_functions_count_each_call():
    inner = tf.function(net, jit_compile=True)
    middle = tf.function(lambda *a: inner(*a) + inner(*a))
    assert count(lambda *a: middle(*a) * 2 + net(*a), *NET) == 3 * FORWARD


def test_of_two_branches_the_dearer_counts():
    def branches(x, w, v):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: net(x, w, v), lambda: tf.zeros((1, 2)))

    assert count(branches, *NET) == FORWARD


def test_what_cannot_be_counted_is_an_error():
    with pytest.raises(ValueError, match="unknown number of times"):
        count(lambda x: tf.while_loop(lambda y: tf.reduce_sum(y) < 1, lambda y: [y @ y], [x]), (2, 2))
    unknown = tf.function(tf.matmul).get_concrete_function(tf.TensorSpec((None, 5)), tf.TensorSpec((5, 7)))
    with pytest.raises(ValueError, match="known shapes"):
        flops.count_flops(unknown)


def test_generator_equals_its_layers():
    run = settings.resolve("cyclegan", {"generator": "resnet_6blocks", "generator_width": 4})
    model = checkpoints.build(run, "float32")
    layers = [
        (16 * 16, 7 * 7 * 3, 4), (8 * 8, 9 * 4, 8), (4 * 4, 9 * 8, 16), *[(4 * 4, 9 * 16, 16)] * 12,
        (4 * 4, 9 * 16, 8), (8 * 8, 9 * 8, 4), (16 * 16, 7 * 7 * 4, 3),
    ]  # fmt: skip
    by_hand = sum(2 * pixels * kernel * filters for pixels, kernel, filters in layers)
    assert count(lambda x: model.generator_a2b(x), (1, 16, 16, 3)) == by_hand


def test_table_aligns():
    assert common.table([("a", "1"), ("long", 10.5)]) == "a        1\nlong  10.5"


# Programs


@pytest.fixture
def run(capsys):
    """Runs a benchmark by its command line; returns what it prints, in lines."""

    def run(program, *arguments):
        call(importlib.import_module(f"benchmarks.{program}"), *arguments)
        return capsys.readouterr().out.splitlines()

    return run


PROGRAMS = [
    p.stem for p in pathlib.Path(common.__file__).parent.glob("*.py") if "def define_flags(" in p.read_text("utf-8")
]


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_flags_are_declared_without_a_clash(program):
    values = FlagValues()
    importlib.import_module(f"benchmarks.{program}").define_flags(values)
    assert len(values) > 0


TINY = ("--generator=resnet_6blocks", "--generator_width=2", "--discriminator_width=2", "--discriminator_layers=1")


@pytest.mark.thorough
def test_train_step(run):
    flags_ = ("--size=16", "--batch=2", "--precision=float32", "--repeats=1", "--warmup=1", "--peak_size=16")
    lines = run("train_step", *TINY, *flags_)
    assert "TensorFlow" in lines[0]
    one = {line.rsplit("  ", 1)[0].strip(): line.rsplit("  ", 1)[-1].strip() for line in lines[1:]}
    assert (one["method, size"], one["batch, replicas"]) == ("cyclegan, 16x16", "2, 1")
    assert {"ms per step, median", "images/s (per domain)", "peak memory, GiB", "share of it"} <= set(one)
    assert float(one["GFLOP per step, from the graph"]) > 0
    with pytest.raises(config.UserError, match="--batch=1 cannot be shared by 2 replicas"):
        run("train_step", *TINY, "--size=16", "--strategy=mirrored", "--replicas=2")
    with pytest.raises(config.UserError, match="multiples of 4"):
        run("train_step", *TINY, "--size=18")


@pytest.mark.parametrize("threads, products", [(0, [0]), (1, [0, 1])])
def test_the_yardstick_is_computed_on_all_cores(threads, products, monkeypatch):
    """An operation has all cores, or, with one thread for each, as many are computed at once as there are cores."""
    monkeypatch.setattr(common, "cores", lambda: 2)
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: threads)
    prepared = []

    def prepare(seed):
        prepared.append(seed)
        return lambda: tf.constant(1.0)

    assert common._fastest(prepare, 1.0, 1) > 0 and prepared == products


def test_data(run):
    lines = run("data", "--data=emoji", "--size=16", "--batch_size=2", "--samples=3", "--step_ms=1000")
    assert lines[1].split("  ")[-1].strip() == "times the step's need"
    assert [line.split(":")[0] for line in lines[2:]] == ["first", "second"]


@pytest.mark.thorough
def test_inference(run):
    lines = run("inference", *TINY, "--size=16", "--seconds=0", "--formats=saved_model,float32,dynamic")
    names = ["Keras model.translate", "saved_model", "LiteRT float32", "LiteRT dynamic"]
    assert [line.split("  ")[0] for line in lines[2:]] == names
    with pytest.raises(config.UserError, match="--formats=onnx"):
        run("inference", *TINY, "--size=16", "--formats=onnx")
    tiny = ("--generator_width=4", "--mlp_width=16", "--style_size=3", "--discriminator_width=4")
    lines = run("inference", "--method=munit", *tiny, "--size=16", "--seconds=0", "--formats=saved_model,float32,int8")
    assert [line.split("  ")[0] for line in lines[-4:]] == [*names[:3], "LiteRT int8"]


def test_features(run):
    lines = run("features", "--size=16", "--images=3", "--batch=2", "--repeats=1")
    assert lines[1].startswith("efficientnet_lite0, 3 JPEG files, 16 px")
    names = ["network alone", "with resizing, of arrays", "with reading and decoding too"]
    assert [line.split("  ")[0] for line in lines[2:]] == names
    with pytest.raises(config.UserError, match="--network=vgg: expected one of efficientnet_lite0"):
        run("features", "--network=vgg")


@pytest.fixture
def inverter(tmp_path):
    """Path of a LiteRT file that turns 8x12 pixels into 255 minus themselves."""
    module = tf.Module()
    module.invert = tf.function(lambda images: {"images": 255 - images})
    spec = tf.TensorSpec((1, 8, 12, 3), tf.float32, name="images")
    signatures = {"translate": module.invert.get_concrete_function(spec)}
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures)
    file = tmp_path / "file.tflite"
    file.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert())
    return file


def gpu_that(compute, log="Selected adapter: Toy, arch=toy\n", status=0):
    """A stand-in for `subprocess.run` of a GPU whose float32 results are `compute(inputs)`, and float16 one more."""

    def run(program, **_):
        *_, folder, precision = program
        outputs = compute(np.load(f"{folder}/inputs.npy")) + (precision == "float16")
        np.save(f"{folder}/outputs.npy", outputs.astype(np.float32))
        return subprocess.CompletedProcess(program, status, "", log)

    return run


def test_a_file_on_a_gpu(run, inverter, monkeypatch):
    monkeypatch.setattr(gpu_file.subprocess, "run", gpu_that(lambda x: 255 - x))
    exact, off = run("gpu_file", f"--file={inverter}", "--count=2")
    assert exact == "float32: equal to the CPU on 2 pictures, on Toy"
    # Every value is one level off: 10 log10(255²) = 48.13 dB.
    assert off.startswith("float16: 48.1 dB to the CPU on 2 pictures, 48.1 dB on the worst (")
    monkeypatch.setattr(gpu_file.subprocess, "run", gpu_that(lambda x: x * np.nan))
    assert "not a number on the worst" in run("gpu_file", f"--file={inverter}", "--count=2")[0]


def test_a_file_that_a_gpu_refuses(run, inverter, monkeypatch):
    log = (
        "I0000 environment.cc:532] Selected adapter: Toy, arch=toy, vendor=us\nERROR: Following operations are not "
        "supported by GPU delegate:\nCAST: no\nMIRROR_PAD: only reflective\n2 operations will run on the GPU, and\n"
    )
    assert gpu_file.told(log) == ("Toy", ["CAST: no", "MIRROR_PAD: only reflective"])
    monkeypatch.setattr(gpu_file.subprocess, "run", gpu_that(lambda x: x, log, status=1))
    lines = run("gpu_file", f"--file={inverter}", "--count=2")
    assert lines == ["Toy does not take all of file.tflite:", "CAST: no", "MIRROR_PAD: only reflective"]
    monkeypatch.setattr(gpu_file.subprocess, "run", gpu_that(lambda x: x, status=-11))
    with pytest.raises(config.UserError, match="LiteRT failed on Toy with status -11"):
        run("gpu_file", f"--file={inverter}", "--count=2")
    monkeypatch.setattr(gpu_file.subprocess, "run", gpu_that(lambda x: x, "no adapters found", status=1))
    with pytest.raises(config.UserError, match="LiteRT finds no GPU: install a Vulkan driver"):
        run("gpu_file", f"--file={inverter}", "--count=2")
    with pytest.raises(config.UserError, match="--file=nowhere is no file"):
        run("gpu_file", "--file=nowhere")


def test_the_table_of_methods_has_means_and_extremes():
    def values(kid, l1):
        return {"kid_net": kid, "kid_net_std": 0.1, "l1": l1, "l1_std": 5.0, "pixel_accuracy": 0.5}

    runs = [
        {d: {"model": values(0.01 * k, 3.0), "match_moments": values(0.1, 8.0), "do_nothing": values(0.1, 9.0)}
         for d in methods.DIRECTIONS}
        for k in (1, 4)
    ]  # fmt: skip
    head, _, row, *baselines = methods.table({"CycleGAN": runs}).splitlines()
    assert head.count("|") == row.count("|") == 9
    assert row.startswith("| CycleGAN | 2 | 2.50 (1.00 to 4.00) | 3.00 | 50.0 % | 2.50")
    assert [b.split(" | ")[3] for b in baselines] == ["8.00", "9.00"]
    one_way = {"pix2pix": [{"a2b": run["a2b"]} for run in runs], "CycleGAN": runs}
    _, _, row, _, *baselines = methods.table(one_way).splitlines()
    assert row.startswith("| pix2pix | 2 | 2.50 (1.00 to 4.00)") and row.endswith("| – | – | – |")
    assert [b.split(" | ")[3] for b in baselines] == ["8.00", "9.00"]


def test_what_replicas_exchange():
    given = {"generator": "resnet_6blocks", "generator_width": 2, "discriminator_width": 2, "discriminator_layers": 1}
    run = settings.resolve("cyclegan", {**given, "crop": (16, 16), "norm": "batch"})
    model = checkpoints.build(run, "float32")
    weights = 4 * (model.count_params() - 1)  # the step's number stays where it is
    averages = 4 * sum(v.shape.num_elements() for v in model.non_trainable_variables if "moving" in v.path)
    # All networks learn once a step. Running statistics are averaged after both phases. Each pool gathers an image.
    assert scaling.exchanged(run) == (weights + averages, 2 * 16 * 16 * 3 * 4)
    assert averages


def test_a_ring_of_two_sends_everything_once():
    assert scaling.ring_ms(1e9, 2, 1.0) == 1000
    assert scaling.ring_ms(1e9, 4, 10.0) == pytest.approx(150)


@pytest.fixture
def measure(monkeypatch):
    """Stands for the processes of `benchmarks.table`: ours takes 100 ms, theirs 150, then 250; compiling fails."""
    lines = []

    def measured(line):
        lines.append(line)
        if "--compile" in line:
            return {"error": "no compiler"}
        cost = {"ms": 100.0, "first": 3.0, "memory": 1.5}
        if "benchmarks.train_step" in line:
            return cost | {"gflop": 20.0, "peak": 400.0}
        return cost | {"ms": 150.0 if len(lines) < 4 else 250.0, "memory": 2.0}

    monkeypatch.setattr(table, "measured", measured)
    return lines


def test_the_table_of_costs_pairs_ours_with_the_official_code(run, measure, tmp_path):
    (tmp_path / "checkouts" / "cyclegan").mkdir(parents=True)
    arguments = ["--rows=cyclegan,pix2pix", "--sizes=128", "--batches=4", "--precisions=float32", "--rounds=2"]
    arguments += [f"--output={tmp_path}/table.jsonl"]
    arguments += [f"--official={tmp_path}/checkouts", "--official_python=torch_python"]
    head, _, ours, other, *failed = run("table", *arguments)
    assert head.count("|") == ours.count("|") == other.count("|") == 16
    # 20 GFLOP in 0.1 s are half of 400 GFLOP/s; theirs takes 1.5 and 2.5 times as long.
    cells = "cyclegan | 128 | 4 | float32 | 0.1 | 40 | 50% | 3.0 | 1.50 | 0.2 | 2.00 (1.50 to 2.50) | 2.00 | – | – | –"
    assert ours == f"| {cells} |"
    assert other.endswith("| – | – | – | – | – | – |")
    assert failed == ["cyclegan 128 4 float32 official, compiled: no compiler"] * 2
    assert [line[0] == "torch_python" for line in measure] == [False, True, True, False] * 2
    assert "--generator=unet_128" in measure[3] and not any("unet" in word for word in measure[0])
    assert run("table", *arguments)[2] == ours
    assert len(measure) == 10 and all("--compile" in line for line in measure[8:])  # what failed is tried again


def test_the_official_code_is_asked_only_for_what_it_can_run(run, measure, tmp_path):
    for row in ("cyclegan", "simgan"):
        (tmp_path / "checkouts" / row).mkdir(parents=True)
    arguments = ["--sizes=128", "--batches=1", "--rows=cyclegan,simgan", "--precisions=float32,mixed_float16"]
    arguments += [f"--official={tmp_path}/checkouts", "--official_python=torch_python", "--nocompiled"]
    run("table", *arguments, f"--output={tmp_path}/table.jsonl")
    assert len(measure) == 5  # four of ours
    (theirs,) = [line for line in measure if line[0] == "torch_python"]
    assert {"--method=cyclegan", "--precision=float32"} <= {*theirs}


def test_the_table_of_costs_refuses_what_it_cannot_measure(run, tmp_path):
    for argument, message in (
        ("--rows=pix3pix", "--rows=pix3pix: pix3pix is none of cyclegan, "),
        ("--official=checkouts", "--official and --official_python belong together"),
    ):
        with pytest.raises(config.UserError, match=message):
            run("table", argument, f"--output={tmp_path}/table.jsonl")


def test_a_measurement_that_fails_says_why():
    failed = table.measured([sys.executable, "-c", "raise SystemExit('error: out of memory')"])
    assert failed == {"error": "error: out of memory"}
    assert table.measured([sys.executable, "-c", "print('first'); print('{\"ms\": 1}')"]) == {"ms": 1}


def test_the_table_and_the_figure_of_students(monkeypatch):
    student = {"name": "0.05 of the work", "macs": 31_703_040, "parameters": 107_692, "l1": 7.0234, "kid": 2.391}
    student |= {"kid_std": 0.296, "file_l1": 7.111, "time": 0.03412}
    teacher = {"name": "teacher", "macs": 680_300_000, "parameters": 1_900_000, "l1": 7.71, "kid": 2.77}
    teacher |= {"kid_std": 0.3, "file_l1": None, "time": 1.0}
    rows = [student, teacher]
    head, _, *lines = students.table(rows).splitlines()
    assert {line.count("|") for line in (head, *lines)} == {8}
    assert lines == [
        "| 0.05 of the work | 31.7 | 107,692 | 7.02 | 2.39 ± 0.30 | 7.11 | 0.034 |",
        "| teacher | 680.3 | 1,900,000 | 7.71 | 2.77 ± 0.30 |  | 1 |",
    ]
    from matplotlib import pyplot

    drawn = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    shown = students.figure(
        rows, {"input": [np.zeros((16, 16, 3), np.uint8)], "teacher": [np.zeros((16, 16, 1), np.uint8)]}
    )
    assert shown.ndim == 3 and shown.shape[0] > 300 and shown.shape[1] >= 900
    for axis in drawn[0].axes:
        assert [label.get_text() for label in axis.get_xticklabels(which="both")] == ["31.7", "680.3"]


def test_the_l1_of_a_file_by_hand(tmp_path):
    """Levels 10 and 20 of B are halved; those of A with the same names are 200 and 250: (195 + 240) / 2."""
    for domain, levels in (("testA", {"x": 200, "y": 250, "alone": 0}), ("testB", {"x": 10, "y": 20})):
        (tmp_path / domain).mkdir()
        for name, level in levels.items():
            images.write_image(tmp_path / domain / f"{name}.png", np.full((8, 8, 3), level, np.uint8))
    data = config.Data(data=str(tmp_path), resize=(4, 4), crop=(4, 4))
    assert students.l1_of_file(lambda x: x // 2, data, "b2a") == 217.5


def test_files_that_are_timed_take_turns():
    called = []
    files = {name: lambda x, name=name: called.append((name, x.shape)) for name in "ab"}
    times = students.processor_times(files, np.zeros((8, 9, 3), np.uint8), repeats=2)
    assert called == [("a", (1, 8, 9, 3)), ("b", (1, 8, 9, 3))] * 3 and list(times) == ["a", "b"]


def test_steps_within_a_time():
    # 2 s until step 3, then 5 s: 2 + 2 + 2 + 5 + 5 = 16.
    seconds, stage = {"first": 2, "second": 5}.get, lambda step: "first" if step < 3 else "second"
    assert [duration.steps_within(time, seconds, stage) for time in (0, 4, 5, 15.9, 16)] == [1, 2, 2, 4, 5]


def test_the_duration_of_a_training(run):
    (line,) = run("duration", *TINY, "--data=emoji", "--crop=16", "--minutes=0.01", "--timed_steps=1")
    measured = json.loads(line)
    (milliseconds,) = measured["milliseconds"]
    fewest, most = (max(1, 600 / (milliseconds + rounding)) for rounding in (0.05, -0.05))
    # Sums of many steps are rounded too.
    assert fewest - 1.01 <= measured["steps"] <= most + 0.01


def test_the_duration_is_that_of_all_that_training_reads(monkeypatch):
    class Asked(Exception):
        pass

    def ask(data, *sources, **how):
        raise Asked(how["smoothed"])

    model = types.SimpleNamespace(value_range=(-1, 1))
    monkeypatch.setattr(common, "trainable", lambda chosen: (None, model, None))
    monkeypatch.setattr(config.Data, "training_stream", ask)
    chosen = settings.resolve("cartoongan", {"data": "emoji", "direction": "b2a"})
    with pytest.raises(Asked, match="a"):
        duration.measure(chosen, 1)


def test_a_batch_has_all_parts_that_a_method_learns_from():
    given = {"crop": (8, 4), "channels_b": 1}
    a, b = (2, 8, 4, 3), (2, 8, 4, 1)
    assert common.batch_shapes(settings.resolve("cyclegan", given), 2) == [a, b]
    smoothed = settings.resolve("cartoongan", {"crop": (8, 4), "direction": "b2a"})
    assert common.batch_shapes(smoothed, 2) == [a, a, a]


def test_each_stage_has_its_share_of_a_training():
    # 2 epochs of 250 batches of 4: the first 100 steps are others than the 400 after them.
    training = settings.resolve("cyclegan", {"epochs": 2.0, "batch_size": 4}).training
    model = types.SimpleNamespace(stage=lambda step: "first" if step < 0.2 * model.total_steps else None)
    assert common.shares(model, training) == {"first": 0.2, None: 0.8}
    assert (model.total_steps, model.steps_per_epoch) == (500, 250)


@pytest.mark.parametrize("name", tables.TABLES)
def test_rows_of_a_table_can_be_trained(name):
    table = tables.TABLES[name]
    parts = [part for row in table.rows for part in row.parts]
    assert len(set(parts)) == len(parts)
    for row in table.rows:
        for flags in row.parts.values():
            given = presets.expand([*flags, *tables.PREPARATION, "--run_dir=-"])
            with own_flags() as mine:
                command_line.define_train_flags(mine)
                command_line.define_run_flags(mine)
                mine(["train", *given])
                chosen = settings.resolve(mine.method, command_line.given_flags(mine))
            assert chosen.data.crop == (64, 64) and chosen.data.resize_filter == "bicubic"
        for direction, figures in row.paper.items():
            assert len(figures) == len(table.headings[direction])


def values_of(l1, kid):
    return {"l1": l1, "l1_std": 5.0, "kid_net": kid, "kid_net_std": 0.002}


TABLE = tables.Table(
    ("l1", "kid"),
    {"a2b": ("paper",), "b2a": ("paper",)},
    "Elsewhere.",
    (
        tables.Row("CycleGAN", "--preset=quickstart", {"a2b": ("0.5",)}),
        tables.Row("pix2pix", "--preset=pix2pix/emoji"),
        tables.Row("U-GAT-IT light", "--preset=ugatit/emoji"),
    ),
)


def test_a_papers_table_has_means_over_seeds():
    def of_seed(*values):
        return {d: {"model": v, "do_nothing": values_of(9.0, 0.08)} for d, v in zip(tables.DIRECTIONS, values)}

    one = of_seed(values_of(3.0, 0.01), values_of(4.0, 0.02))
    seeds = [of_seed(values_of(value, 0.01)) for value in (1.0, 3.0)]
    text = tables.markdown(TABLE, {"CycleGAN": [one], "pix2pix": seeds}, {"CycleGAN": "7", "pix2pix": "8 + 9"})
    there, back = text.split("\n\n")[:2]
    head, _, cyclegan, pix2pix, nothing = there.splitlines()
    assert head == "| A to B | seeds | steps | L1 (of 255) | KID ×100, net | paper |"
    # Of one seed L1 has no spread: that over pictures is another thing. Of 1 and 3 the deviation is √2.
    assert cyclegan == "| CycleGAN | 1 | 7 | 3.00 | 1.00 ± 0.20 | 0.5 |"
    assert pix2pix == "| pix2pix | 2 | 8 + 9 | 2.00 ± 1.41 | 1.00 ± 0.00 | – |"
    assert nothing == "| do nothing |  |  | 9.00 | 8.00 ± 0.20 |  |"
    assert [line.split(" | ")[0] for line in back.splitlines()[2:]] == ["| CycleGAN", "| do nothing"]
    assert text.endswith("\n\nElsewhere.\n")


def test_the_pictures_of_a_table():
    red, grey = np.full((64, 64, 3), (255, 0, 0), np.uint8), np.full((64, 64, 1), 7, np.uint8)
    page = tables.sheet({"a2b": {"input": [red, red], "UNIT": [grey, red]}, "b2a": {"input": [grey]}})
    # Two lines of pictures; the block of a2b has two columns, that of b2a one, of 70 pixels each.
    assert page.shape[0] == 28 + 2 * 70
    left = page.shape[1] - 3 * 70 - 24
    assert (page[98:162, left : left + 64] == 7).all() and (page[98:162, left + 70 : left + 134] == (255, 0, 0)).all()
    assert (page[28:92, left + 164 : left + 228] == 7).all() and (page[98:162, left + 164 : left + 228] == 255).all()


PICTURES = tables.pictures


@pytest.fixture
def started(monkeypatch):
    """What a table starts, as (module, arguments): trainings of 2 steps that only leave a checkpoint, and measures."""
    started = []

    def python(module, *arguments):
        started.append((module, arguments))
        given = dict(argument.lstrip("-").split("=") for argument in arguments if "=" in argument)
        run = pathlib.Path(given.get("run_dir", "-"))
        if module == "tfi2i.train":
            run_directory.checkpoint_folder(run, 2).mkdir(parents=True)
        elif "study" not in given:
            directions = [d for d in tables.DIRECTIONS if d in run.name] or tables.DIRECTIONS
            figures = {"directions": {d: {"model": values_of(3.0, 0.01)} for d in directions}}
            (run / "metrics.json").write_text(json.dumps(figures))

    def timed(program, **_):
        started.append((program[2], tuple(program[3:])))
        # Keras says on standard output what it downloads.
        return subprocess.CompletedProcess(program, 0, 'Downloading data\n{"steps": 2, "milliseconds": [5.0]}\n')

    monkeypatch.setattr(tables, "python", python)
    monkeypatch.setattr(tables.subprocess, "run", timed)
    monkeypatch.setattr(tables, "pin", lambda: None)
    monkeypatch.setattr(tables, "pictures", lambda *_: np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setitem(tables.TABLES, "ugatit", dataclasses.replace(TABLE, rows=TABLE.rows[:2], study=True))
    return started


def test_a_table_goes_on_where_it_was_broken_off(run, started, tmp_path):
    asked = ("--table=ugatit", f"--output={tmp_path}")
    with pytest.raises(config.UserError, match="has no row that is trained to its end"):
        run("tables", *asked, "--measure_only")
    run("tables", *asked, "--rows=CycleGAN")
    assert [module for module, _ in started] == ["benchmarks.duration", "tfi2i.train", "tfi2i.evaluate"]
    assert "--minutes=10.0" in started[0][1] and "--steps=2" in started[1][1]
    started.clear()
    lines = run("tables", *asked)
    # A method of one direction has half of the time for each.
    for i, direction in ((0, "a2b"), (2, "b2a")):
        (timed, given), (trained, _) = started[i : i + 2]
        assert (timed, trained) == ("benchmarks.duration", "tfi2i.train")
        assert {"--minutes=5.0", f"--direction={direction}"} < set(given)
    assert [module for module, _ in started[4:]] == ["tfi2i.evaluate"] * 3
    assert sum(argument.startswith("--run_dir=") for argument in started[-1][1]) == 3  # of the study
    assert [line.split(" | ")[2] for line in lines if line.startswith("| pix2pix")] == ["2 + 2", "2 + 2"]
    with pytest.raises(config.UserError, match="has runs of minutes 10.0, asked for is 5.0: give another --output"):
        run("tables", *asked, "--minutes=5")


def test_a_row_of_another_table_is_not_taken_for_this_ones(run, started, tmp_path, monkeypatch):
    asked = ("--table=ugatit", f"--output={tmp_path}", "--rows=CycleGAN")
    run("tables", *asked)
    row = tables.Row("CycleGAN", "--preset=quickstart --lambda_identity=0")
    monkeypatch.setitem(tables.TABLES, "ugatit", dataclasses.replace(TABLE, rows=(row,)))
    for more in ([], ["--measure_only"]):
        with pytest.raises(
            config.UserError, match="has a run of CycleGAN with other flags .*--lambda_identity=0.*: give"
        ):
            run("tables", *asked, *more)
    # Earlier versions did not keep the flags.
    kept = json.loads((tmp_path / "steps.json").read_text())
    del kept["steps"]["cyclegan"]["flags"]
    (tmp_path / "steps.json").write_text(json.dumps(kept))
    started.clear()
    run("tables", *asked)
    assert not started


def test_a_table_of_other_pictures(run, started, tmp_path):
    lines = run("tables", "--table=ugatit", f"--output={tmp_path}", "--a=a", "--b=b")
    assert lines[0] == "pix2pix: left out, it learns from pairs, which --a and --b are not"
    assert {f"--a={os.path.abspath('a')}", f"--b={os.path.abspath('b')}"} < set(started[1][1])
    assert {"--metrics=kid", "--nopairs"} < set(started[2][1])


def test_flags_of_a_table(run, tmp_path):
    asked = ("--table=cyclegan", f"--output={tmp_path}")
    with pytest.raises(config.UserError, match="--rows=UNIT: 'UNIT' is none of CycleGAN, cycle alone"):
        run("tables", *asked, "--rows=UNIT")
    with pytest.raises(config.UserError, match="--a and --b go together"):
        run("tables", *asked, "--a=photos")
    with pytest.raises(config.UserError, match="no row is left, because all of them learn from pairs"):
        run("tables", *asked, "--a=photos", "--b=paintings", "--rows=pix2pix (paired)")
    for seeds, message in (
        ("x", "expected integers"),
        ("0,0", "several different ones"),
        ("0,00", "several different"),
    ):
        with pytest.raises(config.UserError, match=f"--seeds={seeds}: .*{message}"):
            run("tables", *asked, f"--seeds={seeds}")


@pytest.mark.thorough
def test_a_table_is_trained(run, started, monkeypatch, tmp_path):
    def python(module, *arguments):
        call(importlib.import_module(module.replace("tfi2i.", "tfi2i.commands.")), *presets.expand(arguments))

    small = "--generator_width=2 --discriminator_width=2 --discriminator_layers=1 --precision=float32"
    rows = (
        tables.Row("CycleGAN", f"--preset=quickstart {small}"),
        tables.Row("pix2pix", f"--preset=pix2pix/emoji --generator=resnet_6blocks {small}"),
    )
    monkeypatch.setattr(tables, "python", python)
    monkeypatch.setattr(tables, "pictures", PICTURES)
    monkeypatch.setitem(tables.TABLES, "ugatit", dataclasses.replace(TABLE, metrics=("l1",), rows=rows, study=True))
    monkeypatch.setattr(tables, "PREPARATION", ("--resize=16", "--crop=16"))
    monkeypatch.setattr(tables, "SIDE", 16)
    run("tables", "--table=ugatit", f"--output={tmp_path}")
    assert (tmp_path / "pictures.png").is_file() and (tmp_path / "study" / "index.html").is_file()
