"""How many images the training stream delivers a second, decoded first and then from its cache.

  python -m benchmarks.data --preset=quickstart --step_ms=150
  python -m benchmarks.data --data=datasets/horse2zebra --samples=500

--step_ms is what a training step takes on the same machine (benchmarks.train_step); the table then says how many
times the step's need the stream delivers. Training shares the processor with it.
"""

import time

from absl import flags

from tfi2i import command, command_line, machine, settings


def define_flags(values):
    """The flags of tfi2i.train, and the benchmark's own."""
    command_line.define_train_flags(values)
    flags.DEFINE_alias("size", "crop", flag_values=values)
    flags.DEFINE_float(
        "step_ms", None, "ms of one training step, to compare with", lower_bound=1e-3, flag_values=values
    )
    flags.DEFINE_integer("samples", 400, "images of each domain to read per pass", lower_bound=1, flag_values=values)


def main(_):
    """Reads the stream twice, prints the table."""
    chosen = settings.resolve(flags.FLAGS.method, command_line.given_flags(flags.FLAGS))
    machine.import_tensorflow()
    from benchmarks import common

    print(common.machine())
    print(common.table(measure(chosen, flags.FLAGS.samples, flags.FLAGS.step_ms)))


def measure(chosen, samples=400, step_ms=None):
    """Times two passes over the same `samples` images of each domain.

    Args:
        chosen: `settings.Run`.
        samples: images of each domain; rounded up to whole batches.
        step_ms: ms of a training step, or None.

    Returns:
        rows for `common.table`, the first one a heading.

    Raises:
        UserError: the data cannot be read.
    """
    import tensorflow as tf

    from tfi2i.data import pipeline, sources
    from tfi2i.methods import METHODS

    batch_size = chosen.training.batch_size
    source_a, source_b = sources.open_domains(chosen.data, "train")
    stream = pipeline.TrainingStream(
        source_a,
        source_b,
        chosen.data,
        value_range=METHODS[chosen.method].model_class.value_range,
        seed=chosen.training.seed,
        batch_size=batch_size,
    )
    steps = -(-samples // batch_size)
    rows = [["pass", "pairs/s", "ms per batch"] + (["times the step's need"] if step_ms else [])]
    # The operating system may hold the files already: "first" means decoded here, not read from the disk. The second
    # pass takes the same samples, so all of them are in the cache, if the data set fits into --cache_gib.
    for name in ("first: decode, resize, crop", "second: the same samples, cached where they fit"):
        start = time.perf_counter()
        try:
            for _ in stream.dataset().take(steps):
                pass
        except tf.errors.OpError:
            stream.raise_error()
            raise
        seconds = (time.perf_counter() - start) / steps
        rows.append([name, f"{batch_size / seconds:.1f}", f"{1e3 * seconds:.2f}"])
        if step_ms:
            rows[-1].append(f"{step_ms / (1e3 * seconds):.1f}")
    return rows


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    command.run(main)
