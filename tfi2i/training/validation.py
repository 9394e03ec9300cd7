"""Evaluation during training, and which step was the best."""

import dataclasses
import math

from tfi2i import metrics
from tfi2i.config import UserError
from tfi2i.data import sources
from tfi2i.metrics import candidates, evaluation, features, held_out, tables
from tfi2i.metrics.pairs import find_pairs
from tfi2i.metrics.protocols import Protocol


class Validation:
    """Measures a model on held-out images as `tfi2i.evaluate` does, on features of EfficientNet-Lite0.

    Args:
        run: `settings.Run`, whose training has `eval_every`.
        directions: those that the model translates.
        best: what `checkpoints.best` says of the run; the best of another metric than the run's has no effect.

    Attributes:
        split: "val", or "test" where there are no val images.
        metric: the value that decides which step is the best, see `metrics.best_metrics`.

    Raises:
        UserError: no or too few held-out images, or no pairs for a metric that needs them to decide.
    """

    def __init__(self, run, directions, best=None):
        training, self._data, self._directions = run.training, run.data, directions
        self.metric = (training.best_metric or metrics.best_metrics(training)[0]).lower()
        protocol = Protocol(metrics.eval_metrics(training), "val", limit=training.eval_images)
        needed = held_out.needed_domains(protocol, directions)
        self.split = "val"
        try:
            self._domains = held_out.open_domains(self._data, "val", needed)
        except sources.MissingSplit:
            self.split = "test"
            try:
                self._domains = held_out.open_domains(self._data, "test", needed)
            except sources.MissingSplit as error:
                raise UserError(f"--eval_every needs held-out images, in val or test: {error}") from error
        of_pairs = metrics.metric_of(self.metric).compared_with == "truth"
        if of_pairs and not find_pairs(self._domains["a"], self._domains["b"]):
            raise UserError(
                f"--best_metric={self.metric} needs pairs, and no two {self.split} images of A and B have one name; "
                "without pairs translations are compared with their inputs, and an unchanged input is best: choose kid"
            )
        counts = {domain: min(len(source), training.eval_images) for domain, source in self._domains.items()}
        try:
            for direction in directions:
                protocol.check_counts(n_real=counts[direction[2]], n_fake=counts[direction[0]])
        except UserError as error:
            raise UserError(
                f"--eval_every={training.eval_every} measures the {self.split} images: {error}; hold more of them out, "
                "or give --eval_every=0"
            ) from error
        network = features.FeatureNetwork() if protocol.of_features else None
        self._protocol = dataclasses.replace(protocol, split=self.split, network=network)
        self._best = best["value"] if best and best["metric"] == self.metric else None

    def measure(self, model):
        """Measures a model.

        Returns:
            (results, value): direction → measured values, and the mean over directions of the metric that decides.
        """
        results, _ = evaluation.evaluate(
            {"model": candidates.of_model(model)},
            self._data,
            self._protocol,
            self._directions,
            active=False,
            domains=self._domains,
            rows=0,
        )
        results = {direction: of_direction["model"] for direction, of_direction in results.items()}
        # PSNR without any error is None.
        values = [measured[tables.key_of(measured, self.metric)] for measured in results.values()]
        value = math.inf if None in values else sum(values) / len(values)
        return results, value

    def is_best(self, value):
        """Whether `value` is better than all before; then it counts from now on."""
        sign = -1 if metrics.columns()[self.metric].higher_is_better else 1
        if self._best is not None and sign * value >= sign * self._best:
            return False
        self._best = value
        return True
