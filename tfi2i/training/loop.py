"""The training loop: one function, top to bottom."""

import collections
import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import pathlib
import platform
import shlex
import time

import keras
import numpy as np
import tensorflow as tf

from tfi2i import __version__, checkpoints, command_line, files, machine, optim, run_directory, settings
from tfi2i.config import UserError, as_text, local_path
from tfi2i.methods import METHODS
from tfi2i.progress import Progress, duration
from tfi2i.training import advice, price, strategies
from tfi2i.training.stopping import Interrupted, Stop
from tfi2i.training.summaries import Summaries
from tfi2i.training.validation import Validation

# These may differ when a run is resumed: where it computes, what it writes.
_MAY_CHANGE = {
    "strategy", "replicas", "xla", "remat", "max_hours", "save_every", "keep", "log_every", "sample_every",
    "eval_every", "eval_metrics", "eval_images", "best_metric",
    "download", "tfds_dir", "cache_gib", "max_bad_files", "accept_changed_data",
}  # fmt: skip
# These too: fingerprints say whether the files there are the same.
_PATHS = {"data", "a", "b", "ab", "csv", "csv_folder", "more_pictures"}
# A schedule that looks at the duration would have had other rates from the start.
_OPEN_ENDED = ("constant", "step", "halving", "cosine_restarts")
_SAMPLES = 6
_DRY_STEPS = 3  # of a dry run, of each stage: one that traces and two that are timed


@strategies.lost_worker_in_words()
def train(run, run_dir, dry_run=False, prepare=None, learned_from=None):
    """Trains, or resumes, a run.

    Resume, in this order: (1) a new or empty folder starts a run; (2) a folder with config.json must hold the same
    configuration, but for what may change; (3) the newest whole checkpoint is restored, damaged ones are passed over
    with a warning; (4) logs and events after it are cut away; (5) a finished run says so and returns.

    Args:
        run: `settings.Run`.
        run_dir: folder of the run.
        dry_run: take a few steps of each stage only, say what the run costs, and write nothing.
        prepare: function of the model, called before it is compiled: what it needs beside its configuration to learn.
        learned_from: dict of name → fingerprint of what it learns from beside the pictures; it may not change either.

    Returns:
        The trained `Translator`.

    Raises:
        UserError: data, configuration or disk do not allow it, or another worker is gone.
        FloatingPointError: a loss is not finite.
        Interrupted: a `KeyboardInterrupt`; SIGINT or SIGTERM came, to any worker, or --max_hours are over, and all
            stopped after the same step, whose state is saved.
    """
    began = time.monotonic()
    folder = pathlib.Path(local_path(run_dir, "run_dir"))
    strategy, xla = strategies.of_run(run)
    chief = strategies.is_chief(strategy)
    writes = chief and not dry_run
    replicas = strategy.num_replicas_in_sync
    with strategies.together(strategy):
        # ------------------------------------------------------------------------------------------------- Resolve
        stored = _stored(folder)
        if stored and not run.data.named:
            again = shlex.join([f"--flagfile={folder / 'flags.txt'}", f"--run_dir={folder}"])
            raise UserError(
                f"--run_dir={folder} holds a run, and no pictures are given; this goes on with it: "
                f"tfi2i {METHODS[stored['run'].method].command} {again}"
            )
        start = run.training.init_from or run.training.pretrained
        if start and not stored:
            run_directory.read(start)  # a mistyped one need not wait for the model
        precision = run.training.precision
        if precision == "auto" and stored:
            precision = stored["run"].training.precision
        precision = strategies.resolve_precision(precision)
        run = dataclasses.replace(run, training=dataclasses.replace(run.training, precision=precision))
        t = run.training
        if precision == "mixed_float16" and replicas > 1:
            raise UserError(f"--precision=mixed_float16 learns on one replica, here are {replicas}: use mixed_bfloat16")
        batch_size, accumulate = t.batch_size, t.accumulate
        if batch_size % (replicas * accumulate):
            raise UserError(
                f"--batch_size={batch_size} is global and cannot be shared by {replicas} replicas in "
                f"{accumulate} parts each: use a multiple of {replicas * accumulate}"
                + (", or --strategy=one_device" if replicas > 1 else "")
            )

        # ---------------------------------------------------------------------------------------------------- Data
        source_a, source_b = run.data.open_domains("train")
        fingerprints = {"a": source_a.fingerprint, "b": source_b.fingerprint} | (learned_from or {})
        total, per_epoch = t.total_steps(len(source_a), len(source_b))
        if stored:
            _compare(stored, run, folder)
            _compare_files(stored, run, fingerprints, folder)
        held_out = run.data.held_out()
        value_range = METHODS[run.method].of_task(t.task).model_class.value_range
        stream = run.data.training_stream(
            source_a, source_b, value_range=value_range, seed=t.seed, batch_size=batch_size, **run.model.stream
        )
        shapes = [(batch_size // replicas, *shape) for shape in stream.shapes]
    found = checkpoints.newest_good(folder)
    # Before the model is built, which takes seconds where it is large.
    paired = getattr(run.data, "paired", False)
    counted = f"{len(source_a)} pairs" if paired else f"{len(source_a)} + {len(source_b)} images"
    _say(
        f"{run.method}: {counted}, {total} steps ({per_epoch} an epoch), "
        f"global batch {batch_size}, on {machine.devices()}"
        + (f" ({replicas} replicas)" if replicas > 1 else "")
        + f", {strategies.arithmetic(precision, xla)}"
        + (f", resumed at step {int(found.name)}" if found else ""),
        chief,
    )

    # ------------------------------------------------------------------------------------------------------- Model
    keras.utils.set_random_seed(t.seed % 2**32)
    with strategy.scope():
        model = checkpoints.build(run, precision)
        model.total_steps, model.steps_per_epoch = total, per_epoch
        if prepare:
            prepare(model)
        for _, height, width, _ in shapes:
            model.check_crop(height, width)

        def optimizer(role):
            # Each its own schedule object; the rate is a closed form of the optimizer's step.
            rate = optim.Schedule(
                model.learning_rate(role),
                t.lr_schedule,
                total,
                per_epoch,
                t.decay_fraction,
                t.lr_step_epochs,
                t.lr_halving_steps,
                t.lr_restart_steps,
                model.updates_per_step(role),
            )
            return model.published_optimizer(role, rate)

        optimizers = {f"{role}_optimizer": optimizer(role) for role in model.roles}
        model.compile(xla=xla, accumulate=accumulate, remat=t.remat, **optimizers)
        model.build_for_training(*shapes)
        model.build_optimizers()

        # -------------------------------------------------------------------------------------------------- Resume
        if found:
            checkpoints.restore(found, model)
        elif t.init_from:
            checkpoints.initialise(model, t.init_from)
        elif t.pretrained:
            model.start_from(checkpoints.load(t.pretrained))
    step = int(model.step.numpy())
    lock = None
    with strategies.together(strategy):
        # What may still be refused comes before the lock.
        of_networks = {f"network {name}": _fingerprint(network) for name, network in model.frozen.items()}
        if stored:  # of version 0.1, without any of these
            known = {n: f for n, f in of_networks.items() if n in stored["fingerprints"]}
            _compare_files(stored, run, known, folder)
        fingerprints |= of_networks
        fixed = run.data.examples(_SAMPLES, value_range) if chief and step < total else None
        validation = None
        if chief and t.eval_every and step < total:
            validation = Validation(run, model.directions, checkpoints.best(folder))
        if dry_run:
            run_directory.check_lock(folder)
        if writes:
            lock = run_directory.lock(folder)
            # A change of the data that was accepted now is not accepted for later resumes.
            kept = dataclasses.replace(run, data=dataclasses.replace(run.data, accept_changed_data=False))
            with _written(folder):
                run_directory.write(folder, kept, fingerprints=fingerprints)
                if held_out:
                    files.write_text(folder / "held_out.txt", "".join(f"{path}\n" for path in held_out))
                summaries = Summaries(folder, step, model.advice)
        else:
            summaries = Summaries(folder, step, active=False)
    environment = _environment(strategy, xla, precision)
    last = _last_environment(folder)
    summaries.event("start", step=step, total_steps=total, steps_per_epoch=per_epoch, **environment)
    if last and {k: last.get(k) for k in environment} != environment:
        changed = ", ".join(f"{k} {last.get(k)} → {v}" for k, v in environment.items() if last.get(k) != v)
        summaries.warn(step, f"resumed elsewhere ({changed}): results need not be bit for bit those of one run")
    logging.info("A: %s; B: %s", source_a.description, source_b.description)
    if held_out and writes:
        _say(f"{len(held_out)} pictures are held out for the test: {folder / 'held_out.txt'} names them", chief)
    if step >= total:
        _say(advice.finished(t, folder, step, t.lr_schedule in _OPEN_ENDED), chief)
        if writes:
            os.close(lock)
        return model
    on_disk, enough = price.of_disk(model, t, total, folder)
    if dry_run:
        _say(command_line.every_flag(run), chief)
    for line in [*stream.crops, *advice.before(run, folder, model, validation)]:
        _say(line, chief)
    if not enough:
        _say(f"warning: {on_disk}", chief)

    # -------------------------------------------------------------------------------------------------------- Loop
    several = strategies.workers(strategy) > 1

    def without_xla(reason):
        summaries.warn(step + 1, f"the first step fails with XLA, and is taken without it: {reason}")
        summaries.event("environment", step=step + 1, xla=False)

    forgiving = t.xla == "auto" and not several
    train_step = strategies.distributed_step(strategy, model, without_xla if forgiving else None)
    batches = iter(strategy.distribute_datasets_from_function(lambda context: stream.dataset(step, context)))
    stages = collections.Counter(map(model.stage, range(step, total)))
    dry = [stage for stage in stages for _ in range(_DRY_STEPS)]
    begun, end = step, step + len(dry) if dry_run else total
    progress = Progress(end, "steps", start=step, active=writes)
    meter = price.Meter(stages, (_DRY_STEPS - 1) * len(stages), math.inf) if dry_run else price.Meter(stages)
    deadline = began + 3600 * t.max_hours if t.max_hours and not dry_run else None
    stopping, received, stop = Stop(deadline), None, None
    window, window_start, pending = [], time.monotonic(), []
    saved = step if found else None

    def check():
        """Reads the losses since the last call. That waits for the device: only where something is shown or kept."""
        for losses, at in pending:
            values = losses()
            if not all(math.isfinite(v) for v in values.values()):
                named = zip(("A", "B", "smoothed"), stream.names(at - 1))
                good = run_directory.steps(folder)
                raise FloatingPointError(
                    f"step {at}: "
                    + ", ".join(f"{k} is {v}" for k, v in values.items() if not math.isfinite(v))
                    + f". Batch: {', '.join(f'{part} {names}' for part, names in named)}. "
                    + (f"The last checkpoint is step {good[-1]}" if good else "There is no checkpoint yet")
                    + "; nothing was overwritten. Try a lower --learning_rate or --precision=float32 in a new --run_dir"
                )
            window.append(values)
        pending.clear()

    def save():
        _check_weights(model, step)
        checkpoints.save(folder, model, step, t.keep)

    def evaluate():
        results, value = validation.measure(model)
        summaries.evaluation(step, results)
        if validation.is_best(value):
            _check_weights(model, step)
            checkpoints.save_best(folder, model, step, validation.metric, value)
            progress.note(f"step {step}: best {validation.metric} so far, {value:.4g}, kept in best/")
        else:
            progress.note(f"step {step}: {validation.metric} {value:.4g}, an earlier step stays in best/")

    def say_price():
        left = total - (begun if dry_run else step)
        lines = [price.of_time(meter.seconds, left, t.eval_every, meter.complete), on_disk]
        if price.is_long(meter.seconds, left) and not tf.config.list_physical_devices("GPU"):
            lines += price.cheaper(run, folder, model, meter.seconds, per_epoch)
        for line in lines:
            _say(line, chief) if dry_run else progress.note(line)

    try:
        while step < end and not stop:
            stage = dry[step - begun] if dry_run else model.stage(step)
            try:
                heard = received
                losses, received = train_step(next(batches), stopping.tensor() if several else None, stage)
            except tf.errors.OpError as error:
                stream.raise_error()
                if isinstance(error, tf.errors.ResourceExhaustedError):
                    raise UserError(advice.too_large(run, step + 1, replicas)) from error
                raise
            step += 1
            pending.append((losses, step))
            on_log = step % t.log_every == 0 or step == total
            on_sample = step % t.sample_every == 0 or step == total or step == 1
            on_save = step % t.save_every == 0 or step == total
            on_eval = t.eval_every and (step % t.eval_every == 0 or step == total)
            if on_log or on_sample or on_save or on_eval:
                check()
            if on_log:
                names = dict.fromkeys(name for losses in window for name in losses)
                means = {k: float(np.mean([losses[k] for losses in window if k in losses])) for k in names}
                rate = len(window) * batch_size / (time.monotonic() - window_start)
                extra = {"images_per_second": round(rate, 3), "peak_memory_gib": round(machine.peak_memory(), 3)}
                extra |= {"learning_rate": float(model.optimizer_of(model.roles[0]).learning_rate)}
                extra |= {"images": step * batch_size, "bad_files": len(stream.bad_files)}
                watched = {k: float(v) for k, v in model.monitored().items()}
                progress.update(step, _status(means, rate, extra["peak_memory_gib"]))
                window, window_start = [], time.monotonic()
            else:
                progress.update(step)
            if writes and not stopping.failure:
                try:
                    with _written(folder):
                        if on_log:
                            summaries.losses(step, means, watched, **extra)
                        if on_sample:
                            summaries.samples(step, model, *fixed)
                        if on_save:
                            save()
                            saved = step
                        if on_eval:
                            evaluate()
                except (UserError, FloatingPointError) as error:
                    if not several:
                        raise
                    stopping.failure = error  # the other workers are in the next step already, and hear of it there
            # Every worker looks at what all had received one step before, so all stop after the same one.
            stop = Stop.agreed(heard) if several else stopping.reason
            if meter.seconds is None:
                check()
                meter.read(stage)
                if meter.seconds and (dry_run or step < total):
                    say_price()
        check()
        if stopping.failure:
            raise stopping.failure
        if stop == Stop.FAILURE:
            raise UserError(strategies.ELSEWHERE)
        if stop and writes and saved != step:
            save()
    except FloatingPointError as error:
        summaries.event("stopped", step=step, reason=str(error))
        raise
    finally:
        progress.close()
        summaries.close()
        stopping.restore()
        if lock is not None:
            os.close(lock)
    if stream.bad_files:
        _say(f"could not be read, and others were taken: {', '.join(path for path, _ in stream.bad_files)}", chief)
    if dry_run:
        if stop:
            raise KeyboardInterrupt
        _say(f"dry run: peak memory {machine.peak_memory():.1f} GiB, nothing was written", chief)
        return model
    if stop and not (stop == Stop.TIME and step == total):
        after = f" after --max_hours={t.max_hours:g}" if stop == Stop.TIME else ""
        _say(f"stopped at step {step}{after}; the same command goes on from there", chief)
        raise Interrupted(None if stop == Stop.TIME else stop, step, model)
    took, memory = duration(time.monotonic() - began), machine.peak_memory()
    _say(f"finished: step {total} after {took}, peak memory {memory:.1f} GiB, in {folder}", chief)
    return model


def _stored(folder):
    """`run` and `fingerprints` of an existing run, or None; refuses a foreign folder."""
    if not run_directory.config_path(folder).is_file():
        if not run_directory.is_new(folder):
            raise UserError(f"--run_dir={folder} exists and is not a run directory: give a new or empty folder")
        return None
    described = run_directory.description(folder)
    if described.get("packed"):
        raise UserError(
            f"--run_dir={folder} was packed without the state of training, and cannot be resumed: give a new --run_dir "
            f"and --init_from={folder}"
        )
    if "converted" in described:
        raise UserError(
            f"--run_dir={folder} was converted from {described['converted']['source']} and holds no state of training "
            f"to resume: give a new --run_dir and --init_from={folder}"
        )
    return {"run": run_directory.read(folder), "fingerprints": described["fingerprints"]}


def _compare(stored, run, folder):
    """Refuses to resume with another configuration."""
    old, new = (dataclasses.asdict(r) for r in (stored["run"], run))
    differences = []
    if old["method"] != new["method"]:
        differences.append(f"--method was {old['method']}, is {new['method']}")
    for part in ("model", "data", "training"):
        for name in new[part]:
            before, now = old[part].get(name), new[part][name]
            if before == now or name in _MAY_CHANGE | _PATHS | {*run.model.of_translation, *run.model.paths}:
                continue
            if (
                name in settings.DURATIONS
                and run.training.lr_schedule in _OPEN_ENDED
                and run.model.open_ended
                and (now is None or now > (before or 0))
            ):
                continue
            differences.append(f"--{name} was {as_text(before)}, is {as_text(now)}")
    if differences:
        raise UserError(
            f"--run_dir={folder} holds a run with another configuration: {'; '.join(differences)}. "
            "Give the same flags to resume, or a new --run_dir"
        )


def _compare_files(stored, run, fingerprints, folder):
    """Refuses to resume with other files, or networks that were made from other files."""
    changed = [name for name in fingerprints if fingerprints[name] != stored["fingerprints"].get(name)]
    if not changed or run.data.accept_changed_data:
        return
    of_pictures = [name.upper() for name in changed if name in "ab"]
    part, paths = ("data", _PATHS) if of_pictures else ("model", run.model.paths)
    old, new = (dataclasses.asdict(getattr(r, part)) for r in (stored["run"], run))
    started = [f"--{n}={v}" for n, v in old.items() if n in paths and v and v != new[n]]
    started = f" ({' '.join(started)})" if started else ""
    otherwise = "give a new --run_dir, or --accept_changed_data to go on (not bit for bit)"
    if of_pictures:
        raise UserError(
            f"the training files of domain {' and '.join(of_pictures)} are not those the run in {folder} started with"
            f"{started}: put them back, {otherwise}"
        )
    raise UserError(
        f"the {changed[0]} is not the one that the run in {folder} started with{started}: put it back, {otherwise}"
    )


def _fingerprint(network):
    """A hash of a network's weights."""
    hashed = hashlib.sha256()
    for variable in network.variables:
        hashed.update(keras.ops.convert_to_numpy(variable).tobytes())
    return hashed.hexdigest()


@contextlib.contextmanager
def _written(folder):
    """Says what cannot be written, to a full disk for one, and what is left."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        left = run_directory.steps(folder)
        raise UserError(
            f"--run_dir={folder} cannot be written: {files.reason(error)}; "
            + (f"the last good checkpoint is step {left[-1]}" if left else "there is no checkpoint yet")
        ) from error


def _check_weights(model, step):
    """Losses are those before the update: a weight can be lost in a step whose losses were sound."""
    for network in model.networks.values():
        for variable in network.trainable_variables:
            if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
                raise FloatingPointError(
                    f"after step {step} {variable.path} is not finite; this step is not saved, older checkpoints are "
                    "as they were. Try a lower --learning_rate or --precision=float32 in a new --run_dir"
                )


def _environment(strategy, xla, precision):
    devices = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU")
    return {
        "tfi2i": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "devices": f"{len(devices)} {devices[0].device_type}",
        "replicas": strategy.num_replicas_in_sync,
        "threads": strategies.threads(),
        "xla": xla,
        "precision": precision,
    }


def _last_environment(folder):
    path = folder / "log.jsonl"
    if not path.is_file():
        return None
    starts = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if '"event": "start"' in line]
    return starts[-1] if starts else None


def _status(losses, rate, memory):
    short = " ".join(f"{k} {v:.3f}" for k, v in losses.items())
    return f"{rate:.1f} img/s, {memory:.1f} GiB, {short}"


def _say(text, chief=True):
    if chief:
        print(text, flush=True)
