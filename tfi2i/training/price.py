"""What a run costs, said before it is paid: seconds a step, until when, how much of the disk; and what is cheaper."""

import math
import shutil
import statistics
import time

from tfi2i import checkpoints, command_line, presets, run_directory, settings
from tfi2i.methods import METHODS
from tfi2i.progress import duration

_DAY, _NIGHT = 24 * 3600, 12 * 3600


class Meter:
    """Measures the seconds of a step, and leaves out those steps that trace a graph first.

    Args:
        stages: dict of stage (`Translator.stage`) → how many of the steps to come are of it.
        steps: how many steps are timed, at least two of each stage that comes up.
        limit: the seconds after which fewer steps suffice, but still two of each.

    Attributes:
        seconds: None, or the mean of the steps to come, of those stages that have come up.
        complete: whether these are all stages.
    """

    def __init__(self, stages, steps=20, limit=10.0):
        self._stages, self._steps, self._limit = stages, steps, limit
        self._times, self._last = {}, None
        self.seconds = None

    @property
    def complete(self):
        return self._times.keys() >= self._stages.keys()

    def read(self, stage):
        """Reads the clock after a step of that stage, which the device must have finished."""
        before, self._last = self._last, time.monotonic()
        if stage not in self._times:
            self._times[stage] = []  # this step traced its graph
            return
        self._times[stage].append(self._last - before)
        of_stages = self._times.values()
        enough = sum(map(len, of_stages)) >= self._steps or sum(map(sum, of_stages)) >= self._limit
        if enough and min(map(len, of_stages)) >= 2:
            costs = [(self._stages[s], statistics.mean(times)) for s, times in self._times.items()]
            self.seconds = sum(count * cost for count, cost in costs) / sum(count for count, _ in costs)


def of_time(seconds, left, evaluations=False, complete=True):
    """ "0.5 s a step: 120 steps take 1m00s, until Thu 26 Nov 2026 06:00".

    Args:
        seconds: of one step.
        left: how many steps are left.
        evaluations: whether there are evaluations, which take further time.
        complete: whether all kinds of steps are timed.
    """
    end = time.strftime("%a %d %b %Y %H:%M", time.localtime(time.time() + seconds * left))
    more = "; evaluations take further time" if evaluations else ""
    if not complete:
        more += "; later steps, of another kind that is not timed yet, may take longer or shorter"
    return f"{seconds:.2g} s a step: {left} steps take {duration(seconds * left)}, until {end}{more}"


def of_disk(model, training, total, run_dir):
    """What the checkpoints take, and whether the disk has it.

    Args:
        model: a compiled `Translator`, built for training.
        training: `config.Training`.
        total: the duration in steps.
        run_dir: the run directory, which need not exist.

    Returns:
        (text, enough): a line to print, and whether there is enough space.
    """
    networks, state = checkpoints.sizes(model)
    count = min(training.keep, math.ceil(total / training.save_every))
    best = networks if training.eval_every else 0
    existing = run_directory.nearest_folder(run_dir)
    free = shutil.disk_usage(existing).free
    have = sum(p.stat().st_size for p in run_dir.glob("checkpoints/*/*")) if run_dir.is_dir() else 0
    enough = count * state + best <= free + have
    what = f"{count} of {_size(state)}" + (f", and best/ of {_size(best)}" if best else "")
    text = f"checkpoints will take {_size(count * state + best)} ({what}); {_size(free)} are free in {existing}"
    advice = "" if enough else f": that is too little; give a smaller --keep than {training.keep}, or another --run_dir"
    return text + advice, enough


def cheaper(run, run_dir, model, seconds, per_epoch):
    """Commands for a machine on which a run would take days.

    Args:
        run: `settings.Run`.
        run_dir: its run directory.
        model: its `Translator`.
        seconds: of one step here.
        per_epoch: steps of an epoch.

    Returns:
        Lines to print.
    """
    given, ways = settings.differing(run), []
    crop = getattr(run.data, "crop", None)
    half = [side // 2 // model.sizes.multiple * model.sizes.multiple for side in crop or (0, 0)]
    if min(half) >= max(model.sizes.minimum, model.sizes.crop_minimum):
        smaller = {n: v for n, v in given.items() if n not in type(run.model).follows} | {"crop": _short(half)}
        if run.data.resize:
            factor = max(h / c for h, c in zip(half, crop))
            smaller["resize"] = _short([max(h, round(side * factor)) for h, side in zip(half, run.data.resize)])
        ways += ["pictures of half the side, about four times faster:", _command(run, smaller, f"{run_dir}-small")]
    small = f"{run.method}/own_small"
    if small in presets.names():
        # The preset says what becomes of the pictures, not which they are, nor which way they are translated, nor where
        # files are.
        kept = (*settings.field_names(type(run.data)), "direction", *run.model.paths)
        mine = {n: given[n] for n in kept if n in given and n not in run.model.recipe}
        if _is_smaller(settings.resolve(run.method, command_line.of_preset(small) | mine), run):
            ways += [f"small networks and pictures (tfi2i presets {small}):"]
            ways += [_command(run, {"preset": small} | mine, f"{run_dir}-own_small")]
    night = float(f"{_NIGHT / seconds:.1g}")
    length = {"steps": int(night), "epochs": night / per_epoch, "images": int(night * run.training.batch_size)}
    short = {n: v for n, v in given.items() if n not in (*settings.DURATIONS, "pretrained", "init_from")}
    name = next(n for n in settings.DURATIONS if getattr(run.training, n) is not None)
    short |= {"init_from": run.training.init_from or "TRAINED", name: float(f"{length[name]:.3g}")}
    if name != "epochs":
        short[name] = int(short[name])
    origin = (
        ", where TRAINED is a finished run, or a published model from tfi2i convert"
        if METHODS[run.method].published
        else ", where TRAINED is a finished run"
    )
    ways += [
        f"one night, from a model that has learned before{'' if run.training.init_from else origin}:",
        _command(run, short, f"{run_dir}-short"),
        "the same command on a machine with an NVIDIA GPU, after pip install 'tfi2i[gpu]'",
    ]
    return ["this takes more than a day on a CPU. Cheaper are:", *(f"  {line}" for line in ways)]


def _is_smaller(small, run):
    """Whether a preset's run is cheaper than another one: smaller pictures, or other networks for as large ones."""
    if not run.data.crop:
        return True
    sizes = [math.prod(r.data.crop) for r in (small, run)]
    return sizes[0] < sizes[1] or sizes[0] == sizes[1] and small.model != run.model


def is_long(seconds, left):
    """Whether `left` steps take more than a day."""
    return seconds * left > _DAY


def _short(size):
    """A size as it is given on a command line: one number for a square."""
    return size[0] if size[0] == size[1] else tuple(size)


def _command(run, given, run_dir):
    return "  " + command_line.command(run.method, given, run_dir)


def _size(count):
    """Bytes in words."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.1f} MiB"
