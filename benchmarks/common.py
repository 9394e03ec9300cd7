"""What the benchmarks share: other commands, the machine's name, tables, clocks, models as they are trained.

TensorFlow is imported where it is needed, so that a benchmark that starts other commands does without.
"""

import collections
import platform
import statistics
import subprocess
import sys
import time

from tfi2i.config import UserError
from tfi2i.machine import cores


def python(module, *arguments):
    """Runs a command of the package in a process of its own. Raises `UserError`: it failed."""
    shown = f"python -m {module} {' '.join(arguments)}"
    print(shown, flush=True)
    code = subprocess.run([sys.executable, "-m", module, *arguments]).returncode
    if code:
        raise UserError(f"{shown} ended with status {code}")


def machine():
    """One line: processor, cores that this process may use, GPUs, TensorFlow's version."""
    import tensorflow as tf

    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    parts = [f"{name}, {cores()} cores"]
    for gpu in tf.config.list_physical_devices("GPU"):
        parts.append(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))
    return ", ".join([*parts, f"TensorFlow {tf.__version__}"])


def table(rows):
    """Rows of equal length as aligned text; the first column to the left, the others to the right."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    aligned = (
        [cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        for row in rows
    )
    return "\n".join("  ".join(row).rstrip() for row in aligned)


def milliseconds(call, repeats):
    """Times `call`, which must return only when its work is done.

    Returns:
        (median, minimum) of `repeats` calls in ms.
    """
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), min(times)


# ---------------------------------------------------------------------------------------------------------------------
# What the machine can do


def matmul_peak(dtype, size=2048, repeats=8):
    """GFLOP/s of products of two `size` × `size` matrices, at the fastest of `repeats` times."""
    import tensorflow as tf

    def prepare(seed):
        a = tf.cast(tf.random.stateless_uniform((size, size), (seed, 1)), dtype)
        return lambda: tf.reduce_sum(tf.matmul(a, a))

    return _fastest(prepare, 2 * size**3, repeats)


def convolution_peak(dtype, batch=1, size=32, channels=256, repeats=8):
    """GFLOP/s of 3×3 convolutions [batch, size, size, channels] → the same, 'SAME' padding, at the fastest time.

    With the defaults, the layer where a CycleGAN generator spends most of its time at 128 px.
    """
    import tensorflow as tf

    def prepare(seed):
        x = tf.cast(tf.random.stateless_uniform((batch, size, size, channels), (seed, 1)), dtype)
        w = tf.cast(tf.random.stateless_uniform((3, 3, channels, channels), (seed, 2)), dtype)
        return lambda: tf.reduce_sum(tf.nn.conv2d(x, w, 1, "SAME"))

    return _fastest(prepare, 2 * batch * size**2 * 9 * channels**2, repeats)


def _fastest(prepare, flops, repeats):
    """GFLOP/s of the function that `prepare` makes of a seed; of one for each core where operations have one core."""
    import tensorflow as tf

    at_once = cores() if tf.config.threading.get_intra_op_parallelism_threads() == 1 else 1
    products = [prepare(seed) for seed in range(at_once)]
    compiled = tf.function(lambda: [product() for product in products])
    call = lambda: [y.numpy() for y in compiled()]  # noqa: E731
    call()
    return at_once * flops / (milliseconds(call, repeats)[1] * 1e6)


# ---------------------------------------------------------------------------------------------------------------------
# What is trained


def trainable(chosen):
    """Builds the model of `chosen` (`settings.Run`) as training does.

    Returns:
        (strategy, model, shapes): the distribution strategy; the compiled `Translator`, built for training; and
        `batch_shapes` of a replica.

    Raises:
        UserError: the replicas cannot share the batch, or the networks do not take the crop.
    """
    from tfi2i import checkpoints
    from tfi2i.training import strategies

    t = chosen.training
    strategy, xla = strategies.of_run(chosen)
    replicas = strategy.num_replicas_in_sync
    if t.batch_size % (replicas * t.accumulate):
        raise UserError(
            f"--batch={t.batch_size} cannot be shared by {replicas} replicas in {t.accumulate} parts each: "
            f"use a multiple of {replicas * t.accumulate}"
        )
    with strategy.scope():
        model = checkpoints.build(chosen, strategies.resolve_precision(t.precision))
        model.check_crop(*chosen.data.crop)
        shapes = batch_shapes(chosen, t.batch_size // replicas)
        model.compile(xla=xla, accumulate=t.accumulate, remat=t.remat)
        model.build_for_training(*shapes)
        model.build_optimizers()
    return strategy, model, shapes


def batch_shapes(chosen, count):
    """The shape [N, H, W, C] of each part of a batch of `count` images of each domain, as `chosen` learns from it."""
    data = chosen.data
    shapes = [(count, *data.crop, c) for c in (data.channels_a, data.channels_b)]
    smoothed = chosen.model.stream.get("smoothed")
    return [*shapes, shapes["ab".index(smoothed)]] if smoothed else shapes


def shares(model, training):
    """What part of a training's steps is of each stage; the model is told how long the training is.

    Args:
        model: a `Translator`.
        training: `config.Training`; its epochs are taken to have 1000 images.

    Returns:
        dict of `Translator.stage` → its share, in the order in which they come up; together they are 1.
    """
    model.total_steps, model.steps_per_epoch = training.total_steps(1000, 1000)
    counts = collections.Counter(map(model.stage, range(model.total_steps)))
    return {stage: count / model.total_steps for stage, count in counts.items()}
