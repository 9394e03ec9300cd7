"""What a run writes for people to look at: log lines, TensorBoard events, pictures, warnings."""

import json
import logging
import pathlib

import numpy as np
import tensorflow as tf

from tfi2i import files, pictures
from tfi2i.data import images


class Summaries:
    """Writes RUN/log.jsonl, RUN/train/ (TensorBoard) and RUN/samples/; nothing when `active` is False.

    Args:
        run_dir: the run directory.
        step: the step the run continues from; later lines and events, of an interrupted run, are cut away.
        advice: the model's, see `Alarms`.
        active: False on workers that are not the chief.
    """

    def __init__(self, run_dir, step, advice=None, active=True):
        self.active = active
        self.folder = pathlib.Path(run_dir)
        self._alarms = Alarms(advice)
        if active:
            cut_log(self.folder / "log.jsonl", step)
            cut_events(self.folder / "train", step)
            self._writer = tf.summary.create_file_writer(str(self.folder / "train"))

    def event(self, kind, **values):
        """Appends one line {"event": kind, …} to log.jsonl."""
        if self.active:
            with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps({"event": kind, **values}) + "\n")

    def losses(self, step, values, watched, **extra):
        """Logs one interval: mean losses, what the model has `monitored`, rates and memory."""
        if not self.active:
            return
        rounded = {k: float(f"{v:.6g}") for k, v in (values | watched).items()}
        self.event("step", step=step, **rounded, **extra)
        for group, scalars in (("loss", values), ("watched", watched), ("run", extra)):
            self._scalars(step, group, scalars)
        for message in self._alarms.losses(values):
            self.warn(step, message)

    def evaluation(self, step, results):
        """Logs what `evaluation.evaluate` measured of the model: {"a2b": values, "b2a": values}."""
        if not self.active:
            return
        self.event("eval", step=step, **results)
        for direction, values in results.items():
            measured = {name: value for name, value in values.items() if value is not None}
            self._scalars(step, f"eval_{direction}", measured)

    def samples(self, step, model, a, b):
        """Writes samples/STEP.png: what the model's `pictures` shows for the fixed inputs.

        Args:
            step: names the file.
            model: a `Translator`.
            a: float32 [N, H, W, C] of domain A in the model's range.
            b: the same of domain B.
        """
        if not self.active:
            return
        shown = model.pictures(a, b)
        pixels = [model.to_pixels(x).numpy() for x in shown.values()]
        path = self.folder / "samples" / f"{step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        page = pictures.page(pixels, list(shown))
        images.write_image(path, page)
        with self._events(step):
            tf.summary.image("samples", page[None])
        for title in {"A to B", "B to A"} & set(shown):
            for message in self._alarms.pictures(shown[title[0]].numpy(), shown[title].numpy(), title):
                self.warn(step, message)

    def warn(self, step, message):
        """Prints and logs a warning."""
        logging.warning("step %d: %s", step, message)
        self.event("warning", step=step, message=message)

    def _scalars(self, step, group, values):
        with self._events(step):
            for name, value in values.items():
                tf.summary.scalar(f"{group}/{name}", np.float32(value))

    def _events(self, step):
        """Where TensorBoard's events of a step go.

        Steps and values are numpy's numbers, because TensorFlow keeps each different number of Python that it makes a
        tensor of, with the tensor, until the process ends (TensorFlow 2.21).
        """
        return self._writer.as_default(np.int64(step))

    def close(self):
        """Flushes the TensorBoard events."""
        if self.active:
            self._writer.close()


class Alarms:
    """Notices, once each, the failures that users of these methods report most.

    Args:
        advice: dict of "silent discriminator", "unchanged", "blank", "inverted" → what a user of the method can try.
    """

    # A least-squares or cross-entropy loss this small over a whole interval leaves nothing for the generator to learn.
    SILENT = 0.01

    def __init__(self, advice=None):
        self._advice = advice or {}
        self._seen = set()
        self._quiet = {}

    def losses(self, values):
        """Messages about mean losses of an interval."""
        found = []
        for name, value in values.items():
            if name.startswith("discriminator"):
                self._quiet[name] = self._quiet.get(name, 0) + 1 if 0 <= value < self.SILENT else 0
                if self._quiet[name] >= 3:
                    found += self._once(
                        name,
                        "silent discriminator",
                        f"{name} has been below {self.SILENT} for three intervals: it tells real from translated "
                        "without effort and the generator learns little",
                    )
        return found

    def pictures(self, source, result, direction):
        """Messages about translated test images, float [N, H, W, C] arrays in the same range."""
        if source.shape[-1] != result.shape[-1]:
            return []
        spread = source.std() + 1e-6
        difference = np.abs(source - result).mean()
        if difference < 0.01 * spread:
            return self._once(
                f"equal {direction}",
                "unchanged",
                f"{direction} returns its input (mean difference {difference:.4f})",
            )
        low, high = source.min(), source.max()
        if min(np.abs(result - limit).max() for limit in (low, high)) < 0.01 * (high - low):
            return self._once(
                f"blank {direction}",
                "blank",
                f"{direction} is blank for every input: the generator's last activation is saturated and learns no "
                "more",
            )
        x, y = source - source.mean((1, 2), keepdims=True), result - result.mean((1, 2), keepdims=True)
        correlation = (x * y).sum() / (np.sqrt((x**2).sum() * (y**2).sum()) + 1e-6)
        if correlation < -0.3:
            return self._once(
                f"inverted {direction}",
                "inverted",
                f"{direction} inverts colours (correlation {correlation:.2f} with its input)",
            )
        return []

    def _once(self, key, alarm, message):
        if key in self._seen:
            return []
        self._seen.add(key)
        return [f"{message}: {self._advice[alarm]}" if alarm in self._advice else message]


def cut_log(path, step):
    """Removes the lines of log.jsonl that speak of steps after `step`, and a torn last line."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line).get("step", 0) <= step:
                kept.append(line + "\n")
        except ValueError:
            continue
    files.write_text(path, "".join(kept))


def cut_events(folder, step):
    """Removes TensorBoard events of steps after `step`."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        kept = []
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                if tf.compat.v1.Event.FromString(record).step <= step:
                    kept.append(record)
        except tf.errors.DataLossError:
            pass  # The end of the file was lost with the interrupted run; what came before is kept.
        partial = path.with_name("cut-" + path.name)
        with tf.io.TFRecordWriter(str(partial)) as writer:
            for record in kept:
                writer.write(record)
        partial.rename(path)
