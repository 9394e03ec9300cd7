"""Normalisation with PyTorch's constants; statistics are always float32."""

import math

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


@keras.saving.register_keras_serializable(package="tfi2i")
class UnitInterval(keras.constraints.Constraint):
    """Clips a weight to [0, 1] after each update."""

    def __call__(self, w):
        return ops.clip(w, 0.0, 1.0)


@keras.saving.register_keras_serializable(package="tfi2i")
class LayerInstanceNormalization(keras.layers.Layer):
    """(ρ · instance norm + (1 - ρ) · layer norm) · gamma + beta, ρ in [0, 1] learned per channel: LIN and AdaLIN.

    ρ = 1 keeps each channel's own contrast (texture), ρ = 0 what channels have against each other (shape).

    Args:
        kind: "lin", or without ρ: "in", "ln" over height, width and channels, or "gn" in up to 32 groups of channels.
        adaptive: gamma and beta come with the call (AdaLIN, AdaIN) instead of being learned here.
        rho: where ρ starts.
        smoothing: subtracted from ρ before use, and clipped; the TensorFlow code's 0.1.
        unbiased: variances over n - 1 values, as torch.var.
        epsilon: added to the variances.

    Call: x [N, H, W, C] and, when adaptive, gamma and beta [N, C].

    Source: U-GAT-IT, arXiv 1907.10830, equation 2; group norm: Wu and He, arXiv 1803.08494.
    """

    def __init__(self, kind="lin", adaptive=False, rho=0.0, smoothing=0.0, unbiased=False, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        if kind not in ("lin", "in", "ln", "gn"):
            raise ValueError(f"kind='{kind}': expected lin, in, ln or gn")
        self.kind = kind
        self.adaptive = adaptive
        self.rho_start = rho
        self.smoothing = smoothing
        self.unbiased = unbiased
        self.epsilon = epsilon

    def build(self, input_shape):
        channels = input_shape[-1]
        shared = {"shape": (channels,), "autocast": False}
        self.rho = None
        if self.kind == "lin":
            start = keras.initializers.Constant(self.rho_start)
            self.rho = self.add_weight(initializer=start, constraint=UnitInterval(), name="rho", **shared)
        if not self.adaptive:
            self.gamma = self.add_weight(initializer="ones", name="gamma", **shared)
            self.beta = self.add_weight(initializer="zeros", name="beta", **shared)
        # Groups of one channel would be instance norm.
        self.groups = math.gcd(32, channels // 2) if self.kind == "gn" and channels % 2 == 0 else 1
        self.built = True

    def effective_rho(self):
        """ρ as it is used, float32 [C], or None for kinds without it."""
        if self.rho is None:
            return None
        rho = ops.convert_to_tensor(self.rho)
        return ops.clip(rho - self.smoothing, 0.0, 1.0) if self.smoothing else rho

    def call(self, x, gamma=None, beta=None):
        if not self.adaptive:
            gamma, beta = self.gamma, self.beta
        gamma, beta = (ops.cast(v, "float32")[..., None, None, :] for v in (gamma, beta))
        _, height, width, channels = ops.shape(x)
        pixels = ops.cast(height * width, "float32")
        y = ops.cast(x, "float32")
        mean = ops.mean(y, axis=(1, 2), keepdims=True)
        y = y - mean
        variance = ops.mean(ops.square(y), axis=(1, 2), keepdims=True)
        own = ops.rsqrt(variance * self._correction(pixels) + self.epsilon)
        if self.kind == "in":
            return ops.cast(y * (own * gamma) + beta, self.compute_dtype)
        # Over several channels: the mean of their variances and the variance of their means.
        grouped, whole = (-1, self.groups, channels // self.groups), (-1, 1, 1, channels)
        means, variances = ops.reshape(mean, grouped), ops.reshape(variance, grouped)
        offset = means - ops.mean(means, axis=-1, keepdims=True)
        variances = ops.mean(variances + ops.square(offset), axis=-1, keepdims=True)
        joint = ops.rsqrt(variances * self._correction(pixels * (channels // self.groups)) + self.epsilon)
        offset, joint = ops.reshape(offset * joint, whole), ops.reshape(ops.ones_like(offset) * joint, whole)
        rho = self.effective_rho()
        if rho is not None:
            offset, joint = (1 - rho) * offset, rho * own + (1 - rho) * joint
        return ops.cast(y * (joint * gamma) + (offset * gamma + beta), self.compute_dtype)

    def _correction(self, count):
        return count / ops.maximum(count - 1.0, 1.0) if self.unbiased else 1.0

    def compute_output_shape(self, input_shape, *_):
        return input_shape

    def get_config(self):
        names = ("kind", "adaptive", "smoothing", "unbiased", "epsilon")
        return {**super().get_config(), "rho": self.rho_start, **{n: getattr(self, n) for n in names}}
