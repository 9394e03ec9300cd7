"""How many steps a training takes for a given processor time.

  python -m benchmarks.duration --preset=cyclegan/emoji --minutes=10

All flags of tfi2i.train are known. The command takes the first steps of that training, data included, and writes one
line of JSON: the steps, and the milliseconds of processor time of one step, for each stage of the training if it has
several. Processor time is that of all threads together, so other work on the machine counts little; pinned to one core
(`taskset -c 0`) it is the time that the step takes there when it is alone.
"""

import json
import time

from absl import flags

from tfi2i import command, command_line, machine, settings

_WARMUP = 3  # the first one traces the graph


def define_flags(values):
    """The flags of tfi2i.train, and the benchmark's own."""
    command_line.define_train_flags(values)
    flags.DEFINE_float("minutes", 10, "processor time of all steps together", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("timed_steps", 40, "steps to time, of each stage", lower_bound=1, flag_values=values)


def steps_within(seconds, seconds_of, stage):
    """The number of steps, at least one, that are done within some time.

    Args:
        seconds: the time.
        seconds_of: function of a stage → the seconds of one of its steps.
        stage: function of the step's number 0, 1, … → its stage, see `Translator.stage`.
    """
    spent, steps = seconds_of(stage(0)), 1
    while spent + seconds_of(stage(steps)) <= seconds:
        spent += seconds_of(stage(steps))
        steps += 1
    return steps


def measure(chosen, seconds, timed_steps=40):
    """Counts the steps of `chosen` (`settings.Run`) within `seconds` of processor time.

    Returns:
        dict of `steps` and `milliseconds`, a list: of one step of each stage, in their order.
    """
    from benchmarks import common
    from tfi2i.training import strategies

    t = chosen.training
    strategy, model, _ = common.trainable(chosen)
    sources = chosen.data.open_domains("train")
    model.total_steps, model.steps_per_epoch = t.total_steps(*map(len, sources))
    stream = chosen.data.training_stream(
        *sources, value_range=model.value_range, seed=t.seed, batch_size=t.batch_size, **chosen.model.stream
    )
    batches = iter(strategy.distribute_datasets_from_function(lambda context: stream.dataset(0, context)))
    train_step = strategies.distributed_step(strategy, model)
    measured = {}

    def seconds_of(stage):
        if stage not in measured:
            take(_WARMUP, stage)
            start = time.process_time()
            take(timed_steps, stage)
            measured[stage] = (time.process_time() - start) / timed_steps
        return measured[stage]

    def take(count, stage):
        for _ in range(count):
            losses, _ = train_step(next(batches), None, stage)
        losses()  # waits for the device

    for _ in range(3):  # stages may be parts of the duration
        model.total_steps = steps_within(seconds, seconds_of, model.stage)
    return {"steps": model.total_steps, "milliseconds": [round(1e3 * s, 1) for s in measured.values()]}


def main(_):
    values = flags.FLAGS
    chosen = settings.resolve(values.method, command_line.given_flags(values))
    machine.import_tensorflow()
    print(json.dumps(measure(chosen, 60 * values.minutes, values.timed_steps)))


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    command.run(main)
