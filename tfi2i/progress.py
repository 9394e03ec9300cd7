"""One status line: a bar on a terminal, plain lines elsewhere."""

import shutil
import sys
import time


class Progress:
    """Shows how far a long piece of work is.

    On a terminal one line is rewritten; elsewhere a line is printed when `text` is new, but at most every
    `every` seconds, and at the end.

    Args:
        total: units of work.
        unit: what they are called, e.g. "steps".
        start: units that were done before.
        active: False prints nothing.
        every: seconds between plain lines.
    """

    def __init__(self, total, unit, start=0, active=True, every=10.0):
        self.total, self.unit, self.start, self.active, self.every = total, unit, start, active, every
        self._terminal = sys.stdout.isatty()
        self._began = time.monotonic()
        self._shown = float("-inf")
        self._text = ""
        self._width = 0

    def update(self, done, text=None):
        """Says that `done` units are done; `text` is shown behind the bar until the next one."""
        if not self.active:
            return
        new = text is not None and text != self._text
        self._text = text if text is not None else self._text
        now = time.monotonic()
        last = done >= self.total
        if now - self._shown < (0.2 if self._terminal else self.every) and not last:
            return
        if not self._terminal and not new and not last:
            return
        self._shown = now
        line = f"{done}/{self.total} {self.unit}"
        if done > self.start and not last:
            left = (now - self._began) / (done - self.start) * (self.total - done)
            line += f", {duration(left)} left"
        if self._text:
            line += f" | {self._text}"
        if self._terminal:
            full = int(20 * done / max(self.total, 1))
            # A line that wraps would not be rewritten but repeated.
            line = f"[{'#' * full}{'.' * (20 - full)}] {line}"[: shutil.get_terminal_size().columns - 1]
            print("\r" + line.ljust(self._width), end="", flush=True)
            self._width = len(line)
        else:
            print(line, flush=True)

    def note(self, message):
        """Prints a line that stays, above the bar."""
        if self.active:
            print(("\r" + message.ljust(self._width)) if self._terminal else message, flush=True)
            self._shown = float("-inf")

    def close(self):
        """Ends the line."""
        if self.active and self._terminal and self._width:
            print(flush=True)


def duration(seconds):
    """45 → '45s', 200 → '3m20s', 8000 → '2h13m'."""
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
