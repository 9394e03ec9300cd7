"""Learning-rate schedules as closed forms of the step, so that a resumed run needs nothing but its step number."""

import fractions
import math

import keras
from keras import ops

from tfi2i.config import LR_SCHEDULES


@keras.saving.register_keras_serializable(package="tfi2i")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """`learning_rate` times a multiplier m of the epoch e = 1, 2, …, N; n epochs are constant, d = N - n decay.

    - linear: m = 1 - max(0, e - n) / (d + 1). The last epoch trains at 1 / (d + 1). CycleGAN's PyTorch code of
      2018-10 to 2020-07 and of 2025.
    - linear_zero_last: m = 1 - max(0, e + 1 - n) / (d + 1). The last epoch has rate 0. The same code before 2018-10
      and from 2020-07 to 2024.
    - linear_later: m = 1 - max(0, e - 1 - n) / (d + 1). The last epoch trains at 2 / (d + 1). DRIT's code.
    - linear_torch7: m = 1 - max(0, e - 1 - n) / d. The authors' first code.
    - linear_steps: as linear but moved every step: m = 1 - max(0, s - s_n) / (s_N - s_n) for step s = 0, 1, ….
    - linear_steps_zero_last: m = 1 - max(0, s + 1 - s_n) / (s_N - s_n). The last step has rate 0. U-GAT-IT's PyTorch
      code.
    - step: m = 0.1 ** floor((e - 1) / lr_step_epochs).
    - halving: m = 0.5 ** floor((s + 1) / lr_halving_steps) for step s = 0, 1, ….
    - cosine: m = (1 + cos(π (e - 1) / N)) / 2.
    - cosine_restarts: m = 1e-5 + (1 - 1e-5) (1 + cos(π s / lr_restart_steps)) / 2 for step s = 0, 1, … of a cycle. As
      the code of UVCGAN, which moves it once in 1024 steps.
    - constant: m = 1.

    Args:
        learning_rate: the rate that m multiplies.
        kind: one of the names above.
        total_steps: steps of the whole run.
        steps_per_epoch: steps of one epoch.
        decay_fraction: d / N, for the linear kinds.
        lr_step_epochs: for `step`.
        lr_halving_steps: for `halving`.
        lr_restart_steps: for `cosine_restarts`.
        updates_per_step: how often a training step updates the weights by the optimizer that has this schedule; a
            fraction, such as 2 / 3, where only some of the steps do.
    """

    def __init__(
        self,
        learning_rate,
        kind,
        total_steps,
        steps_per_epoch=1,
        decay_fraction=0.5,
        lr_step_epochs=50,
        lr_halving_steps=100_000,
        lr_restart_steps=102_400,
        updates_per_step=1,
        name=None,
    ):
        if kind not in LR_SCHEDULES:
            raise ValueError(f"kind='{kind}': expected one of {', '.join(LR_SCHEDULES)}")
        self.learning_rate = learning_rate
        self.kind = kind
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.decay_fraction = decay_fraction
        self.lr_step_epochs = lr_step_epochs
        self.lr_halving_steps = lr_halving_steps
        self.lr_restart_steps = lr_restart_steps
        self.updates_per_step = updates_per_step
        self.name = name

    def multiplier(self, step):
        """m at `step` (0, 1, …, total_steps - 1), a float32 scalar."""
        step = ops.cast(step, "float32")
        epochs = max(1, math.ceil(self.total_steps / self.steps_per_epoch))
        d = round(epochs * self.decay_fraction)
        n = epochs - d
        e = ops.floor(step / self.steps_per_epoch) + 1
        if self.kind == "linear":
            return 1 - ops.maximum(0.0, e - n) / (d + 1)
        if self.kind == "linear_zero_last":
            return ops.maximum(0.0, 1 - ops.maximum(0.0, e + 1 - n) / (d + 1))
        if self.kind == "linear_later":
            return 1 - ops.maximum(0.0, e - 1 - n) / (d + 1)
        if self.kind == "linear_torch7":
            return 1 - ops.maximum(0.0, e - 1 - n) / max(d, 1)
        if self.kind.startswith("linear_steps"):
            decaying = max(1.0, self.total_steps * self.decay_fraction)
            done = step + (1.0 if self.kind.endswith("zero_last") else 0.0)
            return 1 - ops.maximum(0.0, done - (self.total_steps - decaying)) / decaying
        if self.kind == "step":
            return ops.power(0.1, ops.floor((e - 1) / self.lr_step_epochs))
        if self.kind == "halving":
            return ops.power(0.5, ops.floor((step + 1) / self.lr_halving_steps))
        if self.kind == "cosine":
            return (1 + ops.cos(math.pi * (e - 1) / epochs)) / 2
        if self.kind == "cosine_restarts":
            part = ops.mod(step, self.lr_restart_steps) / self.lr_restart_steps
            return 1e-5 + (1 - 1e-5) * (1 + ops.cos(math.pi * part)) / 2
        return ops.ones_like(step)

    def __call__(self, step):
        updates = fractions.Fraction(self.updates_per_step).limit_denominator(10**6)
        return self.learning_rate * self.multiplier(step * updates.denominator // updates.numerator)

    def get_config(self):
        names = ("learning_rate", "kind", "total_steps", "steps_per_epoch", "decay_fraction")
        names += ("lr_step_epochs", "lr_halving_steps", "lr_restart_steps", "updates_per_step", "name")
        return {n: getattr(self, n) for n in names}
