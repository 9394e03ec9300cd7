"""Moving averages of weights."""

import keras
import tensorflow as tf
from keras import ops


class Average(keras.layers.Layer):
    """Averages of a network's variables: average ← momentum average + (1 - momentum) variable.

    They begin as the variables are when this layer is built. Running statistics are averaged as weights are, so that
    they belong to the averaged weights. Counters and the unit vectors of spectral norm, variables of
    `aggregation="only_first_replica"`, have no average, because it would mean nothing: `AveragedScope` reads those of
    the network.

    Calling it runs the network on the averages. Keras' own average, part of its optimizers, leaves out what no gradient
    reaches.

    Args:
        network: the layer whose variables are averaged. It is not part of this one.
        momentum: weight of the old average.
        warm_up: whether the weight is at most (1 + step) / (10 + step), with which an average is of the last ninth of a
            young training, about.
    """

    def __init__(self, network, momentum, warm_up=False, **kwargs):
        super().__init__(trainable=False, dtype="float32", **kwargs)
        # A closure, where Keras looks for no sublayer.
        self._of = lambda: network
        self.momentum, self.warm_up = momentum, warm_up

    def build(self, input_shape=None):
        # Every replica averages equal weights to equal averages: to broadcast them would cost as much as to share the
        # gradients.
        self.averages = [
            self.add_weight(
                shape=v.shape, dtype="float32", initializer=_equal_to(v), trainable=False, autocast=False,
                name=v.path.split("/", 1)[-1].replace("/", "_"), aggregation="none",
            )
            for v in self._averaged()
        ]  # fmt: skip
        self.built = True

    def call(self, x, **options):
        with AveragedScope([self]):
            return self._of()(x, **options)

    def compute_output_shape(self, input_shape):
        return self._of().compute_output_shape(input_shape)

    @property
    def pairs(self):
        """list of (variable of the network, its average)."""
        return list(zip(self._averaged(), self.averages))

    def _averaged(self):
        return [v for v in self._of().variables if v.aggregation != "only_first_replica"]

    def update(self, step=None):
        """One step of the averages towards the network's variables of now.

        Args:
            step: int scalar, the steps before this one; needed with `warm_up`.
        """
        momentum = self.momentum
        if self.warm_up:
            step = ops.cast(step, "float32")
            momentum = ops.minimum(momentum, (1 + step) / (10 + step))
        rate = tf.cast(1 - momentum, tf.float32)
        for variable, average in self.pairs:
            difference = tf.convert_to_tensor(variable.value) - tf.convert_to_tensor(average.value)
            # In place, on the TensorFlow variable: Keras' `assign_add` would make a copy, and would keep to a
            # `StatelessScope`, in which this must not be called.
            average.value.assign_add(rate * difference)

    def restart(self):
        """Makes the averages equal to the network's variables."""
        for variable, average in self.pairs:
            average.assign(variable)

    def replace(self):
        """Makes the network's variables equal to their averages."""
        for variable, average in self.pairs:
            variable.assign(average)


class AveragedScope(keras.StatelessScope):
    """While open, networks compute with averages of their variables; what they assign meanwhile is lost.

    An average is read where its variable is: a graph that is traced in here holds those that it needs and no other. If
    a scope around this one has a value for the average, or for a variable without one, that is read.

    Args:
        averages: list of `Average`.
    """

    def __init__(self, averages):
        super().__init__()
        self._average_of = {id(v): a for average in averages for v, a in average.pairs}

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        average = self._average_of.get(id(variable), variable)
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(average)
        if value is None and average is not variable:
            value = average.value
        return value


def _equal_to(variable):
    return lambda shape, dtype=None: ops.convert_to_tensor(variable)
