"""Random draws as pure functions of (seed, step, global sample index, purpose): nothing to save, nothing to diverge.

One replica or many, unbroken or resumed, sample i of step k gets the same noise.
"""

import zlib

import keras
import tensorflow as tf
from keras import ops


def sample_seeds(seed, step, indices, purpose):
    """One stateless seed per sample.

    Args:
        seed: int, the run's `--seed`.
        step: scalar integer tensor.
        indices: int tensor [N], position of each sample in the global batch.
        purpose: str, keeps draws for different ends apart.

    Returns:
        int32 tensor [N, 2].
    """
    base = _step_seed(seed, step, purpose)
    indices = tf.unstack(tf.cast(indices, tf.int32))
    return tf.stack([tf.random.experimental.stateless_fold_in(base, i) for i in indices])


def uniform(seeds, shape=()):
    """Uniform draws in [0, 1), one of `shape` per seed.

    Args:
        seeds: int32 tensor [N, 2] of `sample_seeds`.
        shape: shape of each draw.

    Returns:
        float32 tensor [N, *shape].
    """
    return tf.stack([tf.random.stateless_uniform(shape, s) for s in tf.unstack(seeds)])


def normal(seeds, shape=()):
    """Draws of N(0, 1), one of `shape` per seed.

    Args:
        seeds: int32 tensor [N, 2] of `sample_seeds`.
        shape: shape of each draw.

    Returns:
        float32 tensor [N, *shape].
    """
    return tf.stack([tf.random.stateless_normal(shape, s) for s in tf.unstack(seeds)])


def batch_seeds(seed, step, indices, purpose):
    """As `sample_seeds`, for batches so large that one draw per sample would be the slowest part of a step.

    Args:
        seed, step, indices, purpose: as for `sample_seeds`.

    Returns:
        int32 tensor [N, 3]: the step's seed, the same in each row, and the sample's position in the global batch.
    """
    indices = tf.cast(indices, tf.int32)[:, None]
    base = _step_seed(seed, step, purpose)
    return tf.concat([tf.repeat(base[None], indices.shape[0], axis=0), indices], axis=1)


def batch_draws(draw, seeds, batch_size, shape, index=0):
    """Random numbers for each sample: drawn for the whole global batch at once, of which these samples are rows.

    Args:
        draw: `tf.random.stateless_uniform` or `tf.random.stateless_normal`.
        seeds: int32 tensor [N, 3] of `batch_seeds`.
        batch_size: static size of the global batch.
        shape: shape of each draw.
        index: keeps draws of one purpose apart.

    Returns:
        float32 tensor [N, *shape].
    """
    draws = draw([batch_size, *shape], tf.random.experimental.stateless_fold_in(seeds[0, :2], index))
    return draws if seeds.shape[0] == batch_size else tf.gather(draws, seeds[:, 2])


def _step_seed(seed, step, purpose):
    base = tf.constant([seed & 0x7FFFFFFF, zlib.crc32(purpose.encode()) & 0x7FFFFFFF], tf.int32)
    return tf.random.experimental.stateless_fold_in(base, tf.cast(step, tf.int32))


@keras.saving.register_keras_serializable(package="tfi2i")
class Dropout(keras.layers.Layer):
    """Dropout whose mask is drawn from the samples' seeds; without seeds it passes its input on.

    Args:
        rate: part of the values set to zero; the rest is divided by 1 - rate.
        index: number of this layer in its model, so that no two layers share a mask.
    """

    def __init__(self, rate=0.5, index=0, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.index = index

    def call(self, x, seeds=None):
        if seeds is None:
            return x
        seeds = tf.stack([tf.random.experimental.stateless_fold_in(s, self.index) for s in tf.unstack(seeds)])
        kept = uniform(seeds, tf.shape(x)[1:]) >= self.rate
        return ops.where(kept, x / ops.cast(1 - self.rate, x.dtype), ops.zeros_like(x))

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "index": self.index}
