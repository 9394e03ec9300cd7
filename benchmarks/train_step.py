"""What one training step costs, and how much of the machine's matrix-product speed it reaches.

  python -m benchmarks.train_step --method=cyclegan --size=128 --batch=1 --precision=mixed_bfloat16
  python -m benchmarks.train_step --preset=quickstart --strategy=mirrored --replicas=2 --batch=2

All flags of tfi2i.train are known; images are random, so that the input pipeline has no part in it. Of a method whose
steps differ, all kinds are timed: what is printed is the mean over a training, in epochs of 1000 images. --json prints
the measurement as one line of JSON, for `benchmarks.table`.
"""

import json
import sys
import time

from absl import flags

from tfi2i import command, command_line, machine, settings


def define_flags(values):
    """The flags of tfi2i.train, and the benchmark's own."""
    command_line.define_train_flags(values)
    flags.DEFINE_alias("size", "crop", flag_values=values)
    flags.DEFINE_alias("batch", "batch_size", flag_values=values)
    flags.DEFINE_integer("repeats", 10, "steps to time, of each kind", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "warmup", 2, "steps before that; the first one also traces the graph", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "peak_size", 2048, "side of the matrices whose product is the yardstick", lower_bound=1, flag_values=values
    )
    flags.DEFINE_bool("json", False, "print JSON instead of the table", flag_values=values)


def main(_):
    """Builds the model as training does, times its step, prints the table."""
    chosen = settings.resolve(flags.FLAGS.method, command_line.given_flags(flags.FLAGS))
    machine.import_tensorflow()
    from benchmarks import common

    cost = measure(chosen, flags.FLAGS.repeats, flags.FLAGS.warmup, flags.FLAGS.peak_size)
    if flags.FLAGS.json:
        print(json.dumps(cost))
        return
    print(common.machine())
    print(common.table(rows(cost)))


def measure(chosen, repeats=10, warmup=2, peak_size=2048):
    """Times the training step of `chosen` (`settings.Run`) on random images.

    Returns:
        dict of what `rows` shows.
    """
    import numpy as np
    import tensorflow as tf

    from benchmarks import common
    from tfi2i import flops
    from tfi2i.training import strategies

    t = chosen.training
    strategy, model, shapes = common.trainable(chosen)
    replicas = strategy.num_replicas_in_sync
    precision = strategies.resolve_precision(t.precision)
    train_step = strategies.distributed_step(
        strategy, model, (lambda reason: print(f"without XLA: {reason}", file=sys.stderr)) if t.xla == "auto" else None
    )
    draw = np.random.default_rng(0)
    values = [
        tuple(tf.constant(draw.uniform(*model.value_range, shape), tf.float32) for shape in shapes)
        for _ in range(replicas)
    ]
    batch = tuple(
        strategy.experimental_distribute_values_from_function(
            lambda context, i=i: values[context.replica_id_in_sync_group][i]
        )
        for i in range(len(shapes))
    )
    shares = common.shares(model, t)

    def step(stage):
        losses, _ = train_step(batch, None, stage)
        return losses()  # waits for the device

    def time_steps(stage):
        """(first step in s; median, fastest and processor time in ms; GFLOP) of a stage's steps."""
        start = time.perf_counter()
        step(stage)
        first = time.perf_counter() - start
        for _ in range(warmup - 1):
            step(stage)
        began = time.process_time()
        median, fastest = common.milliseconds(lambda: step(stage), repeats)
        processor = 1e3 * (time.process_time() - began) / repeats
        # The loop over parts hides how often it runs.
        graph = train_step.get_concrete_function(batch, None, stage) if t.accumulate == 1 else None
        return first, median, fastest, processor, flops.count_flops(graph) / 1e9 if graph else float("nan")

    compute = tf.as_dtype(model.dtype_policy.compute_dtype)
    h, w = chosen.data.crop
    size, width = max(1, min(h, w) // 4), max(8, peak_size // 8)

    def peaks():
        return common.matmul_peak(compute, peak_size), common.convolution_peak(compute, shapes[0][0], size, width)

    # Before and after, because the machine may be busy with something else for a while.
    before = peaks()
    firsts, *timed = zip(*map(time_steps, shares))
    median, fastest, processor, gflop = (np.dot(list(shares.values()), values).item() for values in timed)
    memory = machine.peak_memory()
    peak, convolution = map(max, zip(before, peaks()))
    return {
        "method": chosen.method, "size": [h, w], "batch": t.batch_size, "replicas": replicas,
        "precision": precision, "xla": model.xla,
        "ms": median, "fastest_ms": fastest, "processor_ms": processor, "repeats": repeats,
        "first": sum(firsts), "memory": memory, "gflop": gflop,
        "stages": [[stage, share, ms] for (stage, share), ms in zip(shares.items(), timed[0])],
        "peak": peak, "peak_of": f"{compute.name} {peak_size}x{peak_size}",
        "convolution": convolution, "convolution_of": f"{size}x{size}x{width}",
    }  # fmt: skip


def rows(cost):
    """What `measure` found, as rows of (what, value) for `common.table`."""
    speed = 1e3 * cost["gflop"] / cost["ms"]
    h, w = cost["size"]
    of_stages = [
        (f"ms per step {f'of stage {stage}' if stage else 'of no stage'}, {share:.0%} of all", f"{ms:.1f}")
        for stage, share, ms in cost["stages"]
        if share < 1
    ]
    return [
        ("method, size", f"{cost['method']}, {h}x{w}"),
        ("batch, replicas", f"{cost['batch']}, {cost['replicas']}"),
        ("precision, XLA", f"{cost['precision']}, {'on' if cost['xla'] else 'off'}"),
        ("ms per step, median", f"{cost['ms']:.1f}"),
        *of_stages,
        (f"ms per step, fastest of {cost['repeats']}", f"{cost['fastest_ms']:.1f}"),
        ("ms per step, of all processor cores together", f"{cost['processor_ms']:.1f}"),
        ("images/s (per domain)", f"{1e3 * cost['batch'] / cost['ms']:.2f}"),
        ("first step, with tracing, s", f"{cost['first']:.1f}"),
        ("peak memory, GiB", f"{cost['memory']:.2f}"),
        ("GFLOP per step, from the graph", f"{cost['gflop']:.4g}"),
        ("GFLOP/s", f"{speed:.4g}"),
        (f"matrix product {cost['peak_of']}, GFLOP/s", f"{cost['peak']:.4g}"),
        ("share of it", f"{speed / cost['peak']:.0%}"),
        (f"3x3 convolution {cost['convolution_of']}, GFLOP/s", f"{cost['convolution']:.4g}"),
        ("share of it", f"{speed / cost['convolution']:.0%}"),
    ]


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    command.run(main)
