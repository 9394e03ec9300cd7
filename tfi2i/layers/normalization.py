"""Normalisation with PyTorch's constants; statistics are always float32."""

import keras
import tensorflow as tf
from keras import ops

# Up to this many samples, one fused batch norm a sample is the fastest exact instance norm on a CPU (README,
# benchmarks); above it, moments over the whole batch.
_FUSED_BATCH = 8


@keras.saving.register_keras_serializable(package="tfi2i")
class InstanceNormalization(keras.layers.Layer):
    """(x - mean) / sqrt(var + epsilon), mean and biased variance per sample and channel over height and width.

    In training on a static batch, each sample goes through TF's fused batch norm, which is the same formula in one
    kernel. At inference it is built of mean, squared difference and rsqrt, which every exported format knows.

    Args:
        epsilon: added to the variance. PyTorch's 1e-5, not Keras' 1e-3.
        center: learn an offset per channel.
        scale: learn a factor per channel.

    Source: Ulyanov et al., arXiv 1607.08022; torch.nn.InstanceNorm2d(affine=False).
    """

    def __init__(self, epsilon=1e-5, center=False, scale=False, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        # Set to False where XLA compiles: it computes the fused kernel's variance as E[x²] - E[x]², less exactly.
        self.fused = True

    def build(self, input_shape):
        channels = input_shape[-1]
        self.gamma = self.add_weight(shape=(channels,), initializer="ones", name="gamma") if self.scale else None
        self.beta = self.add_weight(shape=(channels,), initializer="zeros", name="beta") if self.center else None
        self.built = True

    def call(self, x, training=False):
        n, channels = x.shape[0], x.shape[-1]
        if self.fused and training and n is not None and n <= _FUSED_BATCH:
            gamma = tf.ones([channels]) if self.gamma is None else ops.cast(self.gamma, "float32")
            beta = tf.zeros([channels]) if self.beta is None else ops.cast(self.beta, "float32")
            # tf.split, not slices: the gradient of a slice fills a whole map with zeros, on one thread.
            rows = [
                tf.compat.v1.nn.fused_batch_norm(row, gamma, beta, epsilon=self.epsilon, is_training=True)[0]
                for row in (tf.split(x, n) if n > 1 else [x])
            ]
            return tf.concat(rows, axis=0) if n > 1 else rows[0]
        y = ops.cast(x, "float32")
        mean = ops.mean(y, axis=(1, 2), keepdims=True)
        variance = ops.mean(ops.square(y - mean), axis=(1, 2), keepdims=True)
        y = (y - mean) * ops.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            y = y * ops.cast(self.gamma, "float32")
        if self.beta is not None:
            y = y + ops.cast(self.beta, "float32")
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon, "center": self.center, "scale": self.scale}


@keras.saving.register_keras_serializable(package="tfi2i")
class SampleNormalization(keras.layers.Layer):
    """γ (x - mean) / (std + epsilon) + β, mean and *unbiased* std per sample over height, width and channels.

    The layer norm of the 2018 UNIT and of MUNIT. Not Keras' LayerNormalization: epsilon is added to the standard
    deviation, whose variance is divided by n - 1, and γ starts at U(0, 1).

    Args:
        epsilon: added to the standard deviation.
        seed: seeds γ.
    """

    def __init__(self, epsilon=1e-5, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.seed = seed

    def build(self, input_shape):
        shape = (input_shape[-1],)
        start = keras.initializers.RandomUniform(0.0, 1.0, seed=self.seed)
        self.gamma = self.add_weight(shape=shape, initializer=start, name="gamma")
        self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta")
        self.built = True

    def call(self, x):
        y = ops.cast(x, "float32")
        _, h, w, c = ops.shape(y)
        n = ops.cast(h * w * c, "float32")
        y -= ops.mean(y, axis=(1, 2, 3), keepdims=True)
        variance = ops.mean(ops.square(y), axis=(1, 2, 3), keepdims=True) * (n / (n - 1))
        y *= ops.cast(self.gamma, "float32") / (ops.sqrt(variance) + self.epsilon)
        return ops.cast(y + ops.cast(self.beta, "float32"), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon, "seed": self.seed}


@keras.saving.register_keras_serializable(package="tfi2i")
class BatchNormalization(keras.layers.Layer):
    """Batch norm as torch.nn.BatchNorm2d: the running variance is the unbiased one, gamma starts at N(1, gain).

    Under several replicas each normalises with its own part of the batch; running statistics are their mean.

    Args:
        epsilon: added to the variance.
        momentum: weight of the old running value, 0.9 (PyTorch calls it 0.1).
        gain: standard deviation of gamma's start, as the published initialiser.
        offset: standard deviation of beta's start.
        scale: learn gamma, a factor per channel; beta is always learned.
        seed: seeds gamma and beta.
    """

    def __init__(self, epsilon=1e-5, momentum=0.9, gain=0.02, offset=0.0, scale=True, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.momentum = momentum
        self.gain = gain
        self.offset = offset
        self.scale = scale
        self.seed = seed

    def build(self, input_shape):
        shape = (input_shape[-1],)
        start = keras.initializers.RandomNormal(1.0, self.gain, seed=self.seed)
        self.gamma = self.add_weight(shape=shape, initializer=start, name="gamma") if self.scale else None
        start = keras.initializers.RandomNormal(0.0, self.offset, seed=self.seed + 1)
        self.beta = self.add_weight(shape=shape, initializer=start, name="beta")
        running = {"shape": shape, "trainable": False, "aggregation": "mean", "autocast": False}
        self.moving_mean = self.add_weight(initializer="zeros", name="moving_mean", **running)
        self.moving_variance = self.add_weight(initializer="ones", name="moving_variance", **running)
        self.built = True

    def call(self, x, training=False):
        y = ops.cast(x, "float32")
        if training:
            n, h, w, _ = ops.shape(y)
            count = ops.cast(n * h * w, "float32")
            mean = ops.mean(y, axis=(0, 1, 2))
            variance = ops.mean(ops.square(y - mean), axis=(0, 1, 2))
            keep, take = self.momentum, 1 - self.momentum
            unbiased = variance * count / ops.maximum(count - 1, 1.0)
            self.moving_mean.assign(keep * self.moving_mean + take * mean)
            self.moving_variance.assign(keep * self.moving_variance + take * unbiased)
        else:
            mean, variance = self.moving_mean, self.moving_variance
        factor = ops.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            factor = ops.cast(self.gamma, "float32") * factor
        return ops.cast((y - mean) * factor + ops.cast(self.beta, "float32"), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        names = ("epsilon", "momentum", "gain", "offset", "scale", "seed")
        return {**super().get_config(), **{n: getattr(self, n) for n in names}}
