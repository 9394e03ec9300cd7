"""Random draws as pure functions of (seed, step, global sample index, purpose).

There is no generator whose state must be saved or could diverge. Sample i of step k gets the same noise on one replica
or many, in an unbroken run or a resumed one.
"""

import zlib

import keras
import tensorflow as tf
from keras import ops


def sample_seeds(seed, step, indices, purpose):
    """One stateless seed per sample.

    Args:
        seed: int, the run's `--seed`.
        step: scalar integer tensor, the training step.
        indices: integer tensor [N] with static N, position of each sample in the global batch.
        purpose: str, keeps draws for different purposes apart.

    Returns:
        int32 tensor [N, 2].
    """
    base = _step_seed(seed, step, purpose)
    indices = tf.unstack(tf.cast(indices, tf.int32))
    return tf.stack([tf.random.experimental.stateless_fold_in(base, i) for i in indices])


def uniform(seeds, shape=()):
    """Uniform draws in [0, 1), one draw for each seed.

    Args:
        seeds: int32 tensor [N, 2] of `sample_seeds`.
        shape: tuple of ints or integer tensor, the shape of each draw.

    Returns:
        float32 tensor [N, *shape].
    """
    return tf.stack([tf.random.stateless_uniform(shape, s) for s in tf.unstack(seeds)])


def normal(seeds, shape=()):
    """Draws from the normal distribution N(0, 1), one draw for each seed.

    Args:
        seeds: int32 tensor [N, 2] of `sample_seeds`.
        shape: tuple of ints or integer tensor, the shape of each draw.

    Returns:
        float32 tensor [N, *shape].
    """
    return tf.stack([tf.random.stateless_normal(shape, s) for s in tf.unstack(seeds)])


def batch_seeds(seed, step, indices, purpose):
    """Seeds for `batch_draws`, for batches so large that one draw per sample would be the slowest part of a step.

    Args:
        seed, step, indices, purpose: as for `sample_seeds`.

    Returns:
        int32 tensor [N, 3]: two numbers seed the step and are equal in all rows; the third is the sample's position in
        the global batch.
    """
    indices = tf.cast(indices, tf.int32)[:, None]
    base = _step_seed(seed, step, purpose)
    return tf.concat([tf.repeat(base[None], indices.shape[0], axis=0), indices], axis=1)


def batch_draws(draw, seeds, batch_size, shape, index=0):
    """Random numbers for each sample, taken from one draw for the whole global batch.

    Args:
        draw: `tf.random.stateless_uniform` or `tf.random.stateless_normal`.
        seeds: int32 tensor [N, 3] of `batch_seeds`.
        batch_size: int, samples of the global batch.
        shape: tuple of ints, the shape of each sample's draw.
        index: int, keeps several draws for one purpose apart.

    Returns:
        float32 tensor [N, *shape].
    """
    draws = draw([batch_size, *shape], tf.random.experimental.stateless_fold_in(seeds[0, :2], index))
    return draws if seeds.shape[0] == batch_size else tf.gather(draws, seeds[:, 2])


def batch_dropout(x, rate, seeds, batch_size, index=0):
    """Dropout whose masks come from `batch_draws`, of maps that hold the samples of a batch one or several times.

    Args:
        x: tensor [P N, …], P maps of each of N samples, all first maps before all second ones.
        rate: float in [0, 1), the share of values that are set to 0; the others are divided by 1 - rate.
        seeds, batch_size, index: as of `batch_draws`.

    Returns:
        Tensor of the shape of `x`.
    """
    n = seeds.shape[0]
    shape = (x.shape[0] // n, *x.shape[1:])
    draws = batch_draws(tf.random.stateless_uniform, seeds, batch_size, shape, index)
    kept = ops.reshape(ops.moveaxis(draws, 1, 0), x.shape) >= rate
    return ops.where(kept, x / ops.cast(1 - rate, x.dtype), ops.zeros_like(x))


def _step_seed(seed, step, purpose):
    base = tf.constant([seed & 0x7FFFFFFF, zlib.crc32(purpose.encode()) & 0x7FFFFFFF], tf.int32)
    return tf.random.experimental.stateless_fold_in(base, tf.cast(step, tf.int32))


@keras.saving.register_keras_serializable(package="tfi2i")
class Dropout(keras.layers.Layer):
    """Dropout whose mask is a function of the samples' seeds.

    Unlike `keras.layers.Dropout` it has no random state and no `training` argument: seeds switch it on, and without
    them it returns its input.

    Args:
        rate: float in [0, 1), the share of values that are set to 0; the others are divided by 1 - rate.
        index: int, different for every dropout of a model, so that no two of them share a mask.
        **kwargs: those of any Keras layer.

    Call: x [N, …] and seeds, int32 [N, 2] of `sample_seeds` with static N, or [1, 2], one mask for all samples, or
    None → the shape of x.

    Raises:
        ValueError: `rate` is outside [0, 1).
    """

    def __init__(self, rate=0.5, index=0, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate={rate}: expected 0 or more, and less than 1")
        self.rate = rate
        self.index = index

    def call(self, x, seeds=None):
        if seeds is None:
            return x
        return ops.where(self.kept(seeds, tf.shape(x)[1:]), x / ops.cast(1 - self.rate, x.dtype), ops.zeros_like(x))

    def kept(self, seeds, shape):
        """Which values of samples of `shape` are kept: bool, a mask for each of the seeds."""
        seeds = tf.stack([tf.random.experimental.stateless_fold_in(s, self.index) for s in tf.unstack(seeds)])
        return uniform(seeds, shape) >= self.rate

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "index": self.index}
