"""How much replicas exchange in a step, and what that costs on links of several speeds: computed, not measured.

  python -m benchmarks.scaling
  python -m benchmarks.scaling --rows=cyclegan,ugatit_light --size=128 --step_ms=100

Traces one step of each method on one replica and adds up what several would exchange: the gradients, the state that
they average, and the samples that image pools and feature caches gather. Of a method whose steps differ, all kinds are
traced: the result is the mean over a training. The time is that of a ring, in which each of n replicas sends
2 (n - 1) / n of the bytes over a link at its nominal speed while nothing is computed. The efficiency is that of
replicas which each do what one did before, in --step_ms.
"""

from unittest import mock

from absl import flags

from benchmarks import common
from benchmarks.table import ROWS, check_rows, flags_of
from tfi2i import command, command_line, machine, settings

# Name → (replicas, GB/s of a link each way, nominal).
LINKS = {
    "8 GPUs, NVLink 4": (8, 450.0),
    "8 GPUs, PCIe 4 x16": (8, 32.0),
    "4 hosts, 100 Gbit/s": (4, 12.5),
    "4 hosts, 25 Gbit/s": (4, 3.125),
    "4 hosts, 10 Gbit/s": (4, 1.25),
    "4 hosts, 1 Gbit/s": (4, 0.125),
}


def define_flags(values):
    """Declares the flags of this command."""
    flags.DEFINE_list("rows", list(ROWS), f"which of {', '.join(ROWS)}", flag_values=values)
    flags.DEFINE_integer("size", 256, "side of the images, one of each domain a replica", flag_values=values)
    flags.DEFINE_float("step_ms", 200.0, "ms of a step on one replica", lower_bound=1e-3, flag_values=values)


def main(_):
    """Traces the rows one after the other, prints the table in Markdown."""
    values = flags.FLAGS
    check_rows(values.rows)
    machine.import_tensorflow()
    print(f"| {values.size} px, {values.step_ms:g} ms a step | MB of gradients | {' | '.join(LINKS)} |", flush=True)
    print("|---" * (2 + len(LINKS)) + "|")
    for row in values.rows:
        gradients, samples = exchanged(run_of(row, values.size))
        cells = [row, f"{gradients / 1e6:.0f}"]
        for replicas, speed in LINKS.values():
            ms = ring_ms(gradients + replicas * samples, replicas, speed)
            cells.append(f"{ms:.3g} ms, {values.step_ms / (values.step_ms + ms):.0%}")
        print(f"| {' | '.join(cells)} |", flush=True)


def run_of(row, size):
    """The `settings.Run` of a row of `benchmarks.table` for images of this side."""
    values = flags.FlagValues()
    command_line.define_train_flags(values)
    values(["scaling", *flags_of(row, size), f"--crop={size}"])
    return settings.resolve(values.method, command_line.given_flags(values))


def ring_ms(count, replicas, speed):
    """How long a ring of `replicas` takes to add up `count` bytes, at `speed` in GB/s."""
    return 2 * (replicas - 1) / replicas * count / (1e6 * speed)


def exchanged(run):
    """What each replica exchanges in a step, the mean over a training in epochs of 1000 images, in bytes.

    Args:
        run: `settings.Run`.

    Returns:
        (gradients, samples): the gradients of all phases and the state that is averaged after each; what is gathered of
        each replica's samples, which counts once for each replica, because all get all.
    """
    import tensorflow as tf

    from tfi2i import checkpoints
    from tfi2i.methods import memory, perceptual

    model = checkpoints.build(run, "float32")
    shapes = common.batch_shapes(run, 1)
    model.compile()
    # Frozen weights are not exchanged: their values need not be downloaded.
    with mock.patch.object(perceptual.PerceptualFeatures, "prepare", lambda net, *_: net.build((None, None, None, 3))):
        model.build_for_training(*shapes)
    gradients = samples = share = 0

    def size(x):
        return x.shape.num_elements() * x.dtype.size

    def apply(found, _):
        state = [tf.convert_to_tensor(v.value) for v in model.non_trainable_variables if v.aggregation == "mean"]
        nonlocal gradients
        gradients += share * sum(map(size, [*found, *state]))

    def gather(x, _):
        nonlocal samples
        samples += share * size(x)
        return x

    for role in model.roles:  # nothing is applied, so that no slots take memory
        model.optimizer_of(role).apply = apply
    with mock.patch.object(memory, "gather_global", gather):
        for stage, share in common.shares(model, run.training).items():
            step = tf.function(lambda *batch, stage=stage: model.train_step(batch, stage), autograph=False)
            step.get_concrete_function(*(tf.TensorSpec(shape) for shape in shapes))
    return gradients, samples


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    command.run(main)
