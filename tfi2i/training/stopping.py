"""How training stops before its end: by Ctrl-C, by SIGTERM, by --max_hours, or because a worker cannot go on."""

import signal
import time

import tensorflow as tf

# EX_TEMPFAIL of sysexits.h: not done, and the same command goes on.
OUT_OF_TIME = 75


class Interrupted(KeyboardInterrupt):
    """Training stopped between two steps, and its checkpoint was written; the same call of `train` goes on.

    Attributes:
        signal: number of the signal, `signal.SIGINT` or `signal.SIGTERM`; None where --max_hours was over.
        step: where the next call of `train` goes on.
        model: the `Translator` as it was saved.
        status: exit status of the command: 128 + `signal`, or `OUT_OF_TIME`.
    """

    def __init__(self, signal, step, model):
        super().__init__(f"stopped at step {step}")
        self.signal, self.step, self.model = signal, step, model
        self.status = 128 + signal if signal else OUT_OF_TIME


class Stop:
    """What asks this process to stop; all workers stop after the same step, see `agreed`.

    The first SIGINT or SIGTERM is remembered, so that the loop stops between two steps; a second one stops at once.

    Args:
        deadline: the `time.monotonic()` after which no further step begins, or None.

    Attributes:
        number: of the signal that came, or None.
        failure: the exception, if any, for which this worker cannot go on.
    """

    FAILURE, TIME = -1, -2
    _NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, deadline=None):
        self.number, self.failure, self._deadline = None, None, deadline
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

    @property
    def reason(self):
        """SIGINT or SIGTERM if it came here, else TIME after the deadline, else None."""
        late = self._deadline is not None and time.monotonic() >= self._deadline
        return self.number or (self.TIME if late else None)

    def tensor(self):
        """What this worker has for `agreed`: float32 [4], 1 for each signal that came, lateness and a failure."""
        reason = self.reason
        kinds = [reason == kind for kind in (*self._NUMBERS, self.TIME)]
        return tf.constant([*map(float, kinds), float(self.failure is not None)])

    @classmethod
    def agreed(cls, sums):
        """FAILURE if any worker had one, or SIGTERM, else SIGINT, else TIME, if it came to any; or None.

        Args:
            sums: the sum of all workers' `tensor`, or None.
        """
        if sums is None:
            return None
        *received, failed = sums.numpy()
        if failed:
            return cls.FAILURE
        return max((kind for kind, count in zip((*cls._NUMBERS, cls.TIME), received) if count), default=None)

    def restore(self):
        """Gives the signals back to whom they went before."""
        for number, handler in self._old.items():
            signal.signal(number, handler)
