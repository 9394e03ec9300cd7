"""Moving averages of weights."""

import keras
import tensorflow as tf
from keras import ops


class Average(keras.layers.Layer):
    """A network with weights of its own: average ← momentum average + (1 - momentum) online, of *all* variables.

    Calling it runs the network on the averages; `update` moves them, once a step after the optimizer's. Keras' own
    average, part of its optimizers, leaves variables out that no gradient reaches.

    Args:
        network: the layer whose variables are averaged. It is not part of this one.
        momentum: weight of the old average.
    """

    def __init__(self, network, momentum, **kwargs):
        super().__init__(trainable=False, dtype="float32", **kwargs)
        # A closure, where Keras looks for no sublayer.
        self._of = lambda: network
        self.momentum = momentum

    def build(self, input_shape):
        network = self._of()
        if not network.built:
            network.build(input_shape)
        # Every replica averages equal weights to equal averages: to broadcast them would cost as much as to share the
        # gradients.
        self.averages = [
            self.add_weight(
                shape=v.shape, dtype="float32", initializer=_equal_to(v), trainable=False, autocast=False,
                name=v.path.split("/", 1)[-1].replace("/", "_"), aggregation="none",
            )
            for v in network.variables
        ]  # fmt: skip
        self.built = True

    def call(self, x, **options):
        values = [(v, ops.convert_to_tensor(a)) for v, a in zip(self._of().variables, self.averages)]
        with keras.StatelessScope(state_mapping=values):
            return self._of()(x, **options)

    def update(self):
        """One step of the average towards the network's variables of now."""
        for average, online in zip(self.averages, self._of().variables):
            value = tf.convert_to_tensor(average.value)
            average.assign(value + (1 - self.momentum) * (tf.convert_to_tensor(online.value) - value))

    def restart(self):
        """Makes the average equal to the network."""
        for average, online in zip(self.averages, self._of().variables):
            average.assign(online)

    def compute_output_shape(self, input_shape):
        return self._of().compute_output_shape(input_shape)


def _equal_to(variable):
    return lambda shape, dtype=None: ops.convert_to_tensor(variable)
