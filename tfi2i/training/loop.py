"""The training loop: one function, top to bottom."""

import dataclasses
import fcntl
import json
import logging
import math
import os
import pathlib
import platform
import signal
import time

import keras
import numpy as np
import tensorflow as tf

from tfi2i import __version__, config, machine, optim
from tfi2i.config import UserError
from tfi2i.data import digits, pipeline, sources
from tfi2i.progress import Progress, duration
from tfi2i.training import checkpoints, strategies
from tfi2i.training.judge import Judge
from tfi2i.training.summaries import Summaries

# These may differ when a run is resumed: where it computes, what it writes.
_MAY_CHANGE = {
    "strategy", "replicas", "xla", "save_every", "keep", "log_every", "sample_every",
    "eval_every", "eval_metrics", "eval_images", "best_metric",
    "download", "tfds_dir", "cache_gib", "max_bad_files", "accept_changed_data",
}  # fmt: skip
# A schedule that looks at the duration would have had other rates from the start.
_OPEN_ENDED = ("constant", "step", "halving", "cosine_restarts")
_SAMPLES = 6


class Interrupted(KeyboardInterrupt):
    """Training stopped between two steps, because of Ctrl-C or SIGTERM, and its checkpoint was written.

    Attributes:
        signal: number of the signal, `signal.SIGINT` or `signal.SIGTERM`.
        step: where the next call of `train` goes on.
    """

    def __init__(self, signal, step):
        super().__init__(f"stopped at step {step}")
        self.signal, self.step = signal, step


def train(settings, run_dir):
    """Trains, or resumes, a run.

    Resume, in this order: (1) a new or empty folder starts a run; (2) a folder with config.json must hold the same
    configuration, but for what may change; (3) the newest whole checkpoint is restored, damaged ones are passed over
    with a warning; (4) logs and events after it are cut away; (5) a finished run says so and returns.

    Args:
        settings: `config.Run`.
        run_dir: folder of the run.

    Returns:
        The trained `Translator`.

    Raises:
        UserError: data, configuration or disk do not allow it.
        FloatingPointError: a loss is not finite.
        Interrupted: a `KeyboardInterrupt`; SIGINT or SIGTERM came, to any worker, and all stopped after the same step,
            whose state is saved.
    """
    began = time.monotonic()
    folder = pathlib.Path(run_dir)
    stored = _stored(folder)
    strategy = strategies.make_strategy(settings.training.strategy, settings.training.replicas)
    chief = strategies.is_chief(strategy)
    replicas = strategy.num_replicas_in_sync

    # ----------------------------------------------------------------------------------------------------- Resolve
    precision = settings.training.precision
    if precision == "auto" and stored:
        precision = stored["config"].training.precision
    precision = strategies.resolve_precision(precision)
    xla = strategies.resolve_xla(settings.training.xla)
    settings = dataclasses.replace(settings, training=dataclasses.replace(settings.training, precision=precision))
    if precision == "mixed_float16" and replicas > 1:
        raise UserError(f"--precision=mixed_float16 learns on one replica, here are {replicas}: use mixed_bfloat16")
    batch_size, accumulate = settings.training.batch_size, settings.training.accumulate
    if batch_size % (replicas * accumulate):
        raise UserError(
            f"--batch_size={batch_size} is global and cannot be shared by {replicas} replicas in "
            f"{accumulate} parts each: use a multiple of {replicas * accumulate}"
            + (", or --strategy=one_device" if replicas > 1 else "")
        )

    # -------------------------------------------------------------------------------------------------------- Data
    labelled = isinstance(settings.data, config.Digits)
    if labelled and settings.training.eval_every:
        raise UserError("--eval_every measures translations of pictures: tfi2i.adapt judges its classifier itself")
    source_a, source_b = (digits if labelled else sources).open_domains(settings.data, "train")
    fingerprints = {"a": source_a.fingerprint, "b": source_b.fingerprint}
    total, per_epoch = settings.training.total_steps(len(source_a), len(source_b))
    if stored:
        _compare(stored, settings, fingerprints, folder)
    model_class = checkpoints.model_class(settings.method, settings.training.task)
    stream = (digits if labelled else pipeline).TrainingStream(
        source_a,
        source_b,
        settings.data,
        value_range=model_class.value_range,
        seed=settings.training.seed,
        batch_size=batch_size,
    )
    shape_a, shape_b = ((batch_size // replicas, *s) for s in stream.shapes)

    # ------------------------------------------------------------------------------------------------------- Model
    keras.utils.set_random_seed(settings.training.seed % 2**32)
    t = settings.training
    with strategy.scope():
        model = checkpoints.build(settings, precision)
        _check_size(model, shape_a, shape_b)

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
            )
            return model.published_optimizer(role, rate)

        model.compile(optimizer("generator"), optimizer("discriminator"), xla=xla, accumulate=accumulate)
        model.build_for_training(shape_a, shape_b)
        model.build_optimizers()

        # -------------------------------------------------------------------------------------------------- Resume
        found = checkpoints.newest_good(folder)
        if found:
            checkpoints.restore(found, model)
        elif t.init_from:
            checkpoints.initialise(model, t.init_from)
        elif t.pretrained:
            model.start_from(checkpoints.load(t.pretrained))
    step = int(model.step.numpy())
    # What may still be refused comes before the lock.
    fixed = _fixed_inputs(settings, model_class.value_range) if chief and step < total else None
    judge = Judge(settings, checkpoints.best(folder)) if chief and t.eval_every and step < total else None
    if chief:
        lock = _open_run(folder, settings, fingerprints, stored)
    summaries = Summaries(folder, step, chief)
    environment = _environment(strategy, xla, precision)
    last = _last_environment(folder)
    summaries.event("start", step=step, total_steps=total, steps_per_epoch=per_epoch, **environment)
    if last and {k: last.get(k) for k in environment} != environment:
        changed = ", ".join(f"{k} {last.get(k)} → {v}" for k, v in environment.items() if last.get(k) != v)
        summaries.warn(step, f"resumed elsewhere ({changed}): results need not be bit for bit those of one run")
    logging.info("A: %s; B: %s", source_a.description, source_b.description)
    _say(
        f"{settings.method}: {len(source_a)} + {len(source_b)} images, {total} steps ({per_epoch} an epoch), "
        f"global batch {batch_size} on {replicas} replica(s), {precision}, XLA {'on' if xla else 'off'}"
        + (f", resumed at step {step}" if found else ""),
        chief,
    )
    recipe = settings.model.pretraining if t.task == "pretrain" else settings.model.recipe
    published = recipe["batch_size"]
    if batch_size != published:
        note = f"published results use batch {published}; {batch_size} may need another learning rate (not changed)"
        _say(f"note: {note}", chief)
    if step >= total:
        _say(f"{folder} is finished at step {step}: nothing to do; a longer --steps goes on", chief)
        if chief:
            os.close(lock)
        return model
    if judge and judge.split == "test":
        _say("note: there are no val images, best/ is chosen on the test images: report figures on others", chief)

    # -------------------------------------------------------------------------------------------------------- Loop
    train_step = strategies.distributed_step(strategy, model)
    batches = iter(strategy.distribute_datasets_from_function(lambda context: stream.dataset(step, context)))
    progress = Progress(total, "steps", start=step, active=chief)
    several = strategies.workers(strategy) > 1
    signals, received, stop = _Signals(), None, None
    window, window_start, pending = [], time.monotonic(), []
    saved = step if found else None

    def check():
        """Reads the losses since the last call. That waits for the device: only where something is shown or kept."""
        for losses, at in pending:
            values = losses()
            if not all(math.isfinite(v) for v in values.values()):
                names_a, names_b = stream.names(at - 1)
                good = checkpoints.steps(folder)
                raise FloatingPointError(
                    f"step {at}: "
                    + ", ".join(f"{k} is {v}" for k, v in values.items() if not math.isfinite(v))
                    + f". Batch: A {names_a}, B {names_b}. "
                    + (f"The last checkpoint is step {good[-1]}" if good else "There is no checkpoint yet")
                    + "; nothing was overwritten. Try a lower --learning_rate or --precision=float32 in a new --run_dir"
                )
            window.append(values)
        pending.clear()

    def save():
        _check_weights(model, step)
        checkpoints.save(folder, model, step, t.keep)

    def judged(step):
        results, value = judge.measure(model)
        summaries.evaluation(step, results)
        if judge.is_best(value):
            _check_weights(model, step)
            checkpoints.save_best(folder, model, step, judge.metric, value)
            progress.note(f"step {step}: best {judge.metric} so far, {value:.4g}, kept in best/")

    try:
        while step < total and not stop:
            try:
                heard = received
                losses, received = train_step(next(batches), signals.tensor() if several else None)
            except tf.errors.OpError:
                stream.raise_error()
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
                means = {k: float(np.mean([w[k] for w in window])) for k in window[0]}
                rate = len(window) * batch_size / (time.monotonic() - window_start)
                extra = {"images_per_second": round(rate, 3), "peak_memory_gib": round(machine.peak_memory(), 3)}
                extra |= {"learning_rate": float(model.generator_optimizer.learning_rate)}
                extra |= {"images": step * batch_size, "bad_files": len(stream.bad_files)}
                watched = {k: float(v) for k, v in model.monitored().items()}
                summaries.losses(step, means, watched, **extra)
                progress.update(step, _status(means, rate, extra["peak_memory_gib"]))
                window, window_start = [], time.monotonic()
            else:
                progress.update(step)
            if on_sample and chief:
                summaries.samples(step, model, *fixed)
            if on_save and chief:
                save()
                saved = step
            if on_eval and chief:
                judged(step)
            # Every worker looks at what all had received one step before, so all stop after the same one.
            stop = _Signals.agreed(heard) if several else signals.number
        check()
        if stop and chief and saved != step:
            save()
    except FloatingPointError as error:
        summaries.event("stopped", step=step, reason=str(error))
        raise
    finally:
        progress.close()
        summaries.close()
        signals.restore()
        if chief:
            os.close(lock)
    if stream.bad_files:
        _say(f"{len(stream.bad_files)} files could not be read: {[p for p, _ in stream.bad_files]}", chief)
    if stop:
        _say(f"stopped at step {step}; the same command goes on from there", chief)
        raise Interrupted(stop, step)
    took, memory = duration(time.monotonic() - began), machine.peak_memory()
    _say(f"finished: step {total} after {took}, peak memory {memory:.1f} GiB, in {folder}", chief)
    return model


def _stored(folder):
    """The configuration and data fingerprints of an existing run, or None; refuses a foreign folder."""
    path = folder / "config.json"
    if not path.is_file():
        # A run that was killed in its first moments leaves its lock and a part of a file.
        own = (".lock", "config.json.tmp", "flags.txt.tmp")
        if folder.exists() and (not folder.is_dir() or any(p.name not in own for p in folder.iterdir())):
            raise UserError(f"--run_dir={folder} exists and is not a run directory: give a new or empty folder")
        return None
    stored = json.loads(path.read_text())
    if "converted" in stored:
        raise UserError(
            f"--run_dir={folder} was converted from {stored['converted']['source']} and holds no state of training to "
            f"resume: give a new --run_dir and --init_from={folder}"
        )
    return {"config": checkpoints.read_config(folder), "fingerprints": stored["fingerprints"]}


def _compare(stored, settings, fingerprints, folder):
    """Refuses to resume with another configuration or other files."""
    old, new = (dataclasses.asdict(c) for c in (stored["config"], settings))
    durations = ("steps", "epochs", "images")
    differences = []
    if old["method"] != new["method"]:
        differences.append(f"--method was {old['method']}, is {new['method']}")
    for part in ("model", "data", "training"):
        for name in new[part]:
            before, now = old[part].get(name), new[part][name]
            if before == now or name in _MAY_CHANGE:
                continue
            if (
                name in durations
                and settings.training.lr_schedule in _OPEN_ENDED
                and (now is None or now > (before or 0))
            ):
                continue
            differences.append(f"--{name} was {before}, is {now}")
    if differences:
        raise UserError(
            f"--run_dir={folder} holds a run with another configuration: {'; '.join(differences)}. "
            "Give the same flags to resume, or a new --run_dir"
        )
    if fingerprints != stored["fingerprints"] and not settings.data.accept_changed_data:
        which = " and ".join(d.upper() for d in fingerprints if fingerprints[d] != stored["fingerprints"][d])
        raise UserError(
            f"the training files of domain {which} are not those the run in {folder} started with: put them back, "
            "give a new --run_dir, or --accept_changed_data to go on (not bit for bit)"
        )


def _open_run(folder, settings, fingerprints, stored):
    """Creates the run directory, writes its configuration, and takes its lock."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise UserError(f"--run_dir={folder} cannot be written: {error}")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(f"--run_dir={folder} is in use by another training process")
    # What was accepted once is not accepted for ever.
    kept = dataclasses.replace(settings.data, accept_changed_data=False)
    settings = dataclasses.replace(settings, data=kept)
    description = json.loads(settings.to_json())
    description |= {"fingerprints": fingerprints, "tfi2i": __version__}
    _write(folder / "config.json", json.dumps(description, indent=2) + "\n")
    _write(folder / "flags.txt", config.flags_text(settings.method, config.differing(settings)))
    return lock


def _write(path, text):
    partial = path.with_name(path.name + ".tmp")
    with open(partial, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def _check_weights(model, step):
    """Losses are those before the update: a weight can be lost in a step whose losses were sound."""
    for network in model.networks.values():
        for variable in network.trainable_variables:
            if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
                raise FloatingPointError(
                    f"after step {step} {variable.path} is not finite; this step is not saved, older checkpoints are "
                    "as they were. Try a lower --learning_rate or --precision=float32 in a new --run_dir"
                )


def _check_size(model, shape_a, shape_b):
    for _, h, w, _ in (shape_a, shape_b):
        if model.fixed_size and (h, w) != model.fixed_size:
            size = ",".join(map(str, model.fixed_size))
            seen = "crops of no fixed size" if h is None else f"--crop={h},{w}"
            raise UserError(
                f"{seen}: without --light the generators are built for {size} alone, because a dense layer takes all "
                f"features of that map; give --light, or --crop={size}, or leave --image_size to follow the crop"
            )
        if h is None:
            continue  # decided image by image
        if not model.takes(h, w):
            near = ",".join(map(str, model.nearest_size((h, w))))
            raise UserError(
                f"--crop={h},{w} does not fit --generator={getattr(model.config, 'generator', model.name)}, "
                f"which takes {model.sizes}: give --crop={near}"
            )
        least = model.crop_minimum
        if min(h, w) < least:
            layers = "--global_layers" if hasattr(model.config, "global_layers") else "--discriminator_layers"
            raise UserError(
                f"--crop={h},{w} is too small for the networks, which need {least} pixels a side: make it larger, or "
                f"give fewer {layers}"
            )


def _fixed_inputs(settings, value_range):
    """The same held-out images for every picture of the run; training images when there are no others."""
    if isinstance(settings.data, config.Digits):
        return digits.examples(settings.data, _SAMPLES, value_range)
    for split in ("val", "test", "train"):
        try:
            pair = sources.open_domains(settings.data, split)
        except sources.MissingSplit:
            continue
        batches = []
        for source in pair:
            chosen = np.unique(np.linspace(0, len(source) - 1, _SAMPLES).astype(int))
            shown = [pixels for _, pixels in pipeline.eval_images(source, settings.data, chosen)]
            batches.append([pipeline.scale(p, value_range) for p in shown if p.shape == shown[0].shape])
        n = min(map(len, batches))
        if n:
            return tuple(tf.constant(np.stack(b[:n])) for b in batches)
    raise UserError("none of the images chosen for samples/ can be read")


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
        "threads": machine.cores(),
        "xla": xla,
        "precision": precision,
    }


def _last_environment(folder):
    path = folder / "log.jsonl"
    if not path.is_file():
        return None
    starts = [json.loads(line) for line in path.read_text().splitlines() if '"event": "start"' in line]
    return starts[-1] if starts else None


def _status(losses, rate, memory):
    short = " ".join(f"{k} {v:.3f}" for k, v in losses.items())
    return f"{rate:.1f} img/s, {memory:.1f} GiB, {short}"


def _say(text, chief=True):
    if chief:
        print(text, flush=True)


class _Signals:
    """Remembers SIGINT or SIGTERM as `number`, so that the loop stops between two steps; a second one stops at once."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.number = None
        self._old = {}
        for number in self._NUMBERS:
            try:
                self._old[number] = signal.signal(number, self._handle)
            except ValueError:
                pass  # Not the main thread: signals go to the caller.

    def _handle(self, number, frame):
        if self.number:
            raise KeyboardInterrupt
        self.number = number

    def tensor(self):
        """What came to this worker, for `agreed`: float32 [2], 1 for a signal that came."""
        return tf.constant([float(self.number == n) for n in self._NUMBERS])

    @classmethod
    def agreed(cls, sums):
        """SIGTERM, else SIGINT, if it came to any worker, else None; `sums` is the sum of all `tensor`s, or None."""
        if sums is None:
            return None
        return max((n for n, count in zip(cls._NUMBERS, sums.numpy()) if count), default=None)

    def restore(self):
        for number, handler in self._old.items():
            signal.signal(number, handler)
