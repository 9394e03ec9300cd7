"""How far a long piece of work is: tqdm's bar on a terminal, plain lines elsewhere."""

import shutil
import sys
import time

from tqdm import tqdm


class Progress:
    """Shows how far a long piece of work is.

    On a terminal that is a bar; elsewhere a line for the first unit, then one every `every` seconds, and one at the
    end.

    Args:
        total: units of work.
        unit: what they are called, e.g. "steps".
        start: units that were done before.
        active: False prints nothing.
        every: seconds between plain lines.
    """

    def __init__(self, total, unit, start=0, active=True, every=10.0):
        self.total, self.unit, self.active, self.every = total, unit, active, every
        self._shown, self._first, self._text = float("-inf"), None, ""
        self._bar = None
        if active and sys.stdout.isatty():
            tail = "{n_fmt}/{total_fmt} " + unit + " [{elapsed}<{remaining}]{postfix}"
            shape = "{percentage:3.0f}%|{bar:20}| " + tail
            # tqdm's own look at the terminal hides the bar where that says that it has no rows, as in some containers.
            size = {"ncols": _width(), "nrows": 2}
            self._bar = tqdm(total=total, initial=start, file=sys.stdout, bar_format=shape, **size)

    def update(self, done, text=None):
        """Says that `done` units are done; `text` is shown behind the bar until the next one."""
        if not self.active:
            return
        self._text = text if text is not None else self._text
        if self._bar is not None:
            self._bar.ncols = _width()
            self._bar.set_postfix_str(self._text, refresh=False)
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        # The first unit takes longer than the others: graphs are traced, files opened.
        self._first = self._first or (done, now)
        last = done >= self.total
        if now - self._shown < self.every and not last:
            return
        self._shown = now
        line = f"{done}/{self.total} {self.unit}"
        if done > self._first[0] and not last:
            left = (now - self._first[1]) / (done - self._first[0]) * (self.total - done)
            line += f", {duration(left)} left"
        print(f"{line} | {self._text}" if self._text else line, flush=True)

    def note(self, message):
        """Prints a line that stays, above the bar."""
        if not self.active:
            return
        if self._bar is not None:
            self._bar.write(message, file=sys.stdout)
        else:
            print(message, flush=True)

    def close(self):
        """Ends the line."""
        if self._bar is not None:
            self._bar.close()


def _width():
    return shutil.get_terminal_size().columns - 1


def duration(seconds):
    """45 → '45s', 200 → '3m20s', 8000 → '2h13m', 100000 → '1d03h'."""
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    if seconds < 86400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    return f"{seconds // 86400}d{seconds % 86400 // 3600:02d}h"
