"""Adam as torch.optim.Adam computes it."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tfi2i")
class Adam(keras.optimizers.Optimizer):
    """w -= lr m̂ / (sqrt(v̂) + epsilon), with bias-corrected m̂ = m / (1 - β1ᵗ) and v̂ = v / (1 - β2ᵗ).

    Keras' own Adam adds epsilon to the *uncorrected* sqrt(v); at t = 1 its 1e-7 acts like 3e-6. TF's fused kernel has
    that form too, so it is called with epsilon sqrt(1 - β2ᵗ), which makes both equal.

    Args:
        learning_rate: float, schedule, or callable.
        beta_1: decay of the mean of gradients.
        beta_2: decay of the mean of squared gradients.
        epsilon: PyTorch's 1e-8.
        coupled_weight_decay: this times the weight is added to its gradient, as torch.optim.Adam's `weight_decay`
            (L2). Keras' `weight_decay` shrinks weights beside the step, which is another algorithm (AdamW).
        decay_kernels_only: leave biases and the parameters of norms out of it.
        **kwargs: for `keras.optimizers.Optimizer`. What clips gradients sees their sum over all replicas.

    Source: Kingma and Ba, arXiv 1412.6980, algorithm 1.
    """

    def __init__(
        self,
        learning_rate=1e-3,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        coupled_weight_decay=0.0,
        decay_kernels_only=False,
        name="adam",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.coupled_weight_decay = coupled_weight_decay
        self.decay_kernels_only = decay_kernels_only

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._decayed = [v.name == "kernel" or not self.decay_kernels_only for v in variables]
        self._momentums, self._velocities = self.add_optimizer_variables(variables, ["momentum", "velocity"])

    def _clip_gradients(self, grads):
        return grads  # Keras clips here, each replica's part by itself; it is done below, after the sum

    def _all_reduce_sum_gradients(self, grads_and_vars):
        summed = self._sum_gradients(grads_and_vars)
        return list(zip(super()._clip_gradients([g for g, _ in summed]), [v for _, v in summed]))

    def _sum_gradients(self, grads_and_vars):
        # On one replica there is nothing to add up, and Keras' way through `all_reduce` costs: TensorFlow keeps what
        # its custom gradient closes over, the whole traced step, until the process ends (TensorFlow 2.21, Keras 3.15).
        context = tf.distribute.get_replica_context()
        if context and context.num_replicas_in_sync == 1:
            return list(grads_and_vars)
        return super()._all_reduce_sum_gradients(grads_and_vars)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        # Computed once for all variables. Beside each of the hundreds of updates these operations would be a sixth of
        # the graph of a UVCGAN v2 step, which takes time to trace and to optimise.
        dtypes = {keras.backend.standardize_dtype(v.dtype) for v in trainable_variables}
        factors = {dtype: self._factors(dtype, learning_rate) for dtype in sorted(dtypes)}
        super()._backend_update_step(grads, trainable_variables, factors)

    def _factors(self, dtype, learning_rate):
        update = tf.cast(self.update_number(), dtype)
        beta_1, beta_2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
        beta_2_power = tf.pow(beta_2, update)
        return {
            "lr": tf.cast(learning_rate, dtype),
            "beta1": beta_1,
            "beta2": beta_2,
            "beta1_power": tf.pow(beta_1, update),
            "beta2_power": beta_2_power,
            "epsilon": tf.cast(self.kernel_epsilon(beta_2_power), dtype),
        }

    def update_step(self, gradient, variable, factors):
        index = self._get_variable_index(variable)
        gradient = tf.cast(gradient, variable.dtype)
        if self.coupled_weight_decay and self._decayed[index]:
            # TensorFlow computes what it can: without waiting, the products of all weights would exist during the whole
            # step.
            with tf.control_dependencies([gradient]):
                gradient += self.coupled_weight_decay * tf.convert_to_tensor(variable)
        m, v = self._momentums[index], self._velocities[index]
        factors = factors[keras.backend.standardize_dtype(variable.dtype)]
        tf.raw_ops.ResourceApplyAdam(var=_handle(variable), m=_handle(m), v=_handle(v), grad=gradient, **factors)

    def update_number(self):
        """t of the update that is computed now: 1, 2, …"""
        return self.iterations + 1

    def kernel_epsilon(self, beta_2_power):
        """What the fused kernel adds to the uncorrected sqrt(v)."""
        return self.epsilon * tf.sqrt(1 - beta_2_power)

    def get_config(self):
        names = ("beta_1", "beta_2", "epsilon", "coupled_weight_decay", "decay_kernels_only")
        return {**super().get_config(), **{n: getattr(self, n) for n in names}}


@keras.saving.register_keras_serializable(package="tfi2i")
class UncorrectedAdam(Adam):
    """Adam as Torch7 and TensorFlow 1 compute it: epsilon is added to the sqrt(v) that is not bias-corrected."""

    def kernel_epsilon(self, beta_2_power):
        return self.epsilon


@keras.saving.register_keras_serializable(package="tfi2i")
class AlternatingAdam(UncorrectedAdam):
    """One of two Adams that take turns and count each other's updates: t = 1, 3, 5, … or t = 2, 4, 6, ….

    Both together compute what one `tf.train.AdamOptimizer` of TensorFlow 1 does whose `minimize` was called for several
    lists of weights: all share its powers of β, so that the bias correction fades earlier than with counters of their
    own.

    Args:
        learning_rate: float, schedule, or callable.
        turn: 1 for the one that begins, 2 for the other.
        **kwargs: those of `Adam`.
    """

    def __init__(self, learning_rate=1e-3, turn=1, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.turn = turn

    def update_number(self):
        return 2 * self.iterations + self.turn

    def get_config(self):
        return {**super().get_config(), "turn": self.turn}


def _handle(variable):
    """The resource of this replica's copy; Keras passes its own variables or TF's."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
