"""Evaluation during training, and which step was the best."""

import math

from tfi2i.config import METRICS, PIXELS, UserError
from tfi2i.data import sources
from tfi2i.metrics import evaluation, features, report

_HIGHER_IS_BETTER = ("psnr", "mean_psnr", "ssim", "pixel_accuracy", "precision", "recall")


class Judge:
    """Measures a model on held-out images as `tfi2i.evaluate` does, on features of EfficientNet-Lite0.

    Args:
        settings: `config.Run`, whose training has `eval_every`.
        best: what `checkpoints.best` says of the run; an older metric's best is of no account.

    Attributes:
        split: "val", or "test" where there are no val images.
        metric: what decides which step is the best.

    Raises:
        UserError: no or too few held-out images, or no pairs for a metric that needs them to decide.
    """

    def __init__(self, settings, best=None):
        training = settings.training
        self._data, self.metric = settings.data, training.best_metric or training.best_metrics[0]
        self.split = "val"
        try:
            self._sides = sources.open_domains(self._data, "val")
        except sources.MissingSplit:
            self.split = "test"
            try:
                self._sides = sources.open_domains(self._data, "test")
            except sources.MissingSplit as error:
                raise UserError(f"--eval_every needs held-out images, in val or test: {error}") from error
        metrics = tuple(m for m in METRICS if m in training.eval_metrics.split(","))
        network = features.FeatureNetwork() if evaluation.needs_network(metrics) else None
        self._protocol = evaluation.Protocol(metrics, self.split, limit=training.eval_images, network=network)
        if self.metric in PIXELS and not evaluation.find_pairs(*self._sides, self._protocol):
            raise UserError(
                f"--best_metric={self.metric} needs pairs, and no two {self.split} images of A and B have one name; "
                "compared with its input, who changes nothing is best: choose kid"
            )
        counts = [min(len(side), training.eval_images or len(side)) for side in self._sides]
        evaluation.check_counts(self._protocol, *counts)
        self._best = best["value"] if best and best["metric"] == self.metric else None

    def measure(self, model):
        """Measures a model.

        Returns:
            (results, value): direction → measured values, and the mean over directions of the metric that decides.
        """
        method = evaluation.of_model(model)
        results, _ = evaluation.evaluate(
            {"model": method},
            self._data,
            self._protocol,
            method.directions,
            active=False,
            sides=dict(zip("ab", self._sides)),
            rows=0,
        )
        results = {direction: methods["model"] for direction, methods in results.items()}
        # PSNR without any error is None.
        found = [values[report.find(values, self.metric)] for values in results.values()]
        value = math.inf if None in found else sum(found) / len(found)
        return results, value

    def is_best(self, value):
        """Whether `value` is better than all before; then it counts from now on."""
        sign = -1 if self.metric in _HIGHER_IS_BETTER else 1
        if self._best is not None and sign * value >= sign * self._best:
            return False
        self._best = value
        return True
