"""Normalisation layers with PyTorch's constants, on maps [N, H, W, C].

In mixed precision they compute in float32, with float32 factors and offsets, and round their result alone, as PyTorch
and Keras do.
"""

import math

import keras
import tensorflow as tf
from keras import ops

# On a CPU, one fused batch norm for each sample is the fastest exact instance norm up to this many samples; with more,
# moments over the whole batch are faster (benchmarks.train_step).
_LARGEST_FUSED_BATCH = 8


@keras.saving.register_keras_serializable(package="tfi2i")
class InstanceNormalization(keras.layers.Layer):
    """(x - mean) / sqrt(var + epsilon), mean and biased variance per sample and channel over height and width.

    In training on a small batch of static size, each sample goes through TensorFlow's fused batch norm, which is the
    same formula in one operation. At inference the formula consists of mean, squared difference and rsqrt, which every
    export format has.

    Args:
        epsilon: float, added to the variance. The default is PyTorch's; Keras' norms have 1e-3.
        center: bool, whether an offset for each channel is learned.
        scale: bool, whether a factor for each channel is learned.
        gamma_initializer: where that factor starts.
        **kwargs: those of any Keras layer.

    Call: [N, H, W, C] → the same shape.

    Source: Ulyanov et al., arXiv 1607.08022; torch.nn.InstanceNorm2d(affine=False).
    """

    def __init__(self, epsilon=1e-5, center=False, scale=False, gamma_initializer="ones", **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        self.gamma_initializer = keras.initializers.get(gamma_initializer)
        self.input_spec = keras.InputSpec(ndim=4)
        # A model that XLA compiles sets this to False: XLA computes the fused operation's variance as E[x²] - E[x]²,
        # which is less exact.
        self.fused = True

    def build(self, input_shape):
        per_channel = {"shape": (input_shape[-1],), "autocast": False}
        start = self.gamma_initializer
        self.gamma = self.add_weight(initializer=start, name="gamma", **per_channel) if self.scale else None
        self.beta = self.add_weight(initializer="zeros", name="beta", **per_channel) if self.center else None
        self.built = True

    def call(self, x, training=False):
        n, channels = x.shape[0], x.shape[-1]
        small = n is not None and n <= _LARGEST_FUSED_BATCH
        # The fused operation does not exist for float64.
        if self.fused and training and small and self.compute_dtype != "float64":
            gamma = tf.ones([channels]) if self.gamma is None else ops.cast(self.gamma, "float32")
            beta = tf.zeros([channels]) if self.beta is None else ops.cast(self.beta, "float32")
            # tf.split, not slices: the gradient of a slice fills a whole map with zeros, on one thread.
            samples = [
                tf.compat.v1.nn.fused_batch_norm(sample, gamma, beta, epsilon=self.epsilon, is_training=True)[0]
                for sample in (tf.split(x, n) if n > 1 else [x])
            ]
            return tf.concat(samples, axis=0) if n > 1 else samples[0]
        y = ops.cast(x, "float32")
        mean = ops.mean(y, axis=(1, 2), keepdims=True)
        variance = ops.mean(ops.square(y - mean), axis=(1, 2), keepdims=True)
        factor = ops.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            factor = ops.cast(self.gamma, "float32") * factor
        y = (y - mean) * factor
        return ops.cast(y if self.beta is None else y + ops.cast(self.beta, "float32"), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        own = {"epsilon": self.epsilon, "center": self.center, "scale": self.scale}
        own["gamma_initializer"] = keras.initializers.serialize(self.gamma_initializer)
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="tfi2i")
class SampleNormalization(keras.layers.Layer):
    """γ (x - mean) / (std + epsilon) + β, mean and *unbiased* std per sample over height, width and channels.

    This is the layer norm in the code of UNIT (2018) and MUNIT. It differs from `keras.layers.LayerNormalization`:
    epsilon is added to the standard deviation, the variance is divided by n - 1, and γ starts at U(0, 1).

    Args:
        epsilon: float, added to the standard deviation.
        seed: int, seeds γ.
        **kwargs: those of any Keras layer.

    Call: [N, H, W, C] → the same shape.

    Source: Huang et al., MUNIT, arXiv 1804.04732, and its code.
    """

    def __init__(self, epsilon=1e-5, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.seed = seed
        self.input_spec = keras.InputSpec(ndim=4)

    def build(self, input_shape):
        per_channel = {"shape": (input_shape[-1],), "autocast": False}
        uniform = keras.initializers.RandomUniform(0.0, 1.0, seed=self.seed)
        self.gamma = self.add_weight(initializer=uniform, name="gamma", **per_channel)
        self.beta = self.add_weight(initializer="zeros", name="beta", **per_channel)
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
    """Batch norm as torch.nn.BatchNorm2d: the moving variance averages unbiased variances.

    With several replicas, each normalises by the statistics of its own part of the batch; the moving statistics are
    the mean over the replicas.

    Args:
        epsilon: float, added to the variance.
        momentum: float in [0, 1], weight of the old moving value. PyTorch's `momentum` is 1 minus this one.
        gain: float, gamma starts at N(1, gain²).
        offset: float, beta starts at N(0, offset²); None: there is no beta, no offset for each channel.
        scale: bool, whether gamma, a factor for each channel, is learned.
        seed: int, seeds gamma and beta.
        per_image: bool, whether inference normalises each image by its own statistics, which is what training computes
            of a batch of one, instead of the moving ones.
        **kwargs: those of any Keras layer.

    Call: [N, H, W, C] → the same shape.

    Source: Ioffe and Szegedy, arXiv 1502.03167; torch.nn.BatchNorm2d.
    """

    def __init__(
        self, epsilon=1e-5, momentum=0.9, gain=0.02, offset=0.0, scale=True, seed=0, per_image=False, **kwargs
    ):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.momentum = momentum
        self.gain = gain
        self.offset = offset
        self.scale = scale
        self.seed = seed
        self.per_image = per_image
        self.input_spec = keras.InputSpec(ndim=4)

    def build(self, input_shape):
        per_channel = {"shape": (input_shape[-1],), "autocast": False}
        around_1 = keras.initializers.RandomNormal(1.0, self.gain, seed=self.seed)
        self.gamma = self.add_weight(initializer=around_1, name="gamma", **per_channel) if self.scale else None
        self.beta = None
        if self.offset is not None:
            around_0 = keras.initializers.RandomNormal(0.0, self.offset, seed=self.seed + 1)
            self.beta = self.add_weight(initializer=around_0, name="beta", **per_channel)
        moving = {**per_channel, "dtype": "float32", "trainable": False, "aggregation": "mean"}
        self.moving_mean = self.add_weight(initializer="zeros", name="moving_mean", **moving)
        self.moving_variance = self.add_weight(initializer="ones", name="moving_variance", **moving)
        self.built = True

    def call(self, x, training=False):
        y = ops.cast(x, "float32")
        if training:
            n, h, w, _ = ops.shape(y)
            count = ops.cast(n * h * w, "float32")
            mean = ops.mean(y, axis=(0, 1, 2))
            variance = ops.mean(ops.square(y - mean), axis=(0, 1, 2))
            unbiased = variance * count / ops.maximum(count - 1, 1.0)
            old, new = self.momentum, 1 - self.momentum
            self.moving_mean.assign(old * self.moving_mean + new * mean)
            self.moving_variance.assign(old * self.moving_variance + new * unbiased)
        elif self.per_image:
            mean = ops.mean(y, axis=(1, 2), keepdims=True)
            variance = ops.mean(ops.square(y - mean), axis=(1, 2), keepdims=True)
        else:
            mean, variance = self.moving_mean, self.moving_variance
        factor = ops.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            factor = ops.cast(self.gamma, "float32") * factor
        y = (y - mean) * factor
        return ops.cast(y if self.beta is None else y + ops.cast(self.beta, "float32"), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        names = ("epsilon", "momentum", "gain", "offset", "scale", "seed", "per_image")
        return {**super().get_config(), **{n: getattr(self, n) for n in names}}


@keras.saving.register_keras_serializable(package="tfi2i")
class UnitInterval(keras.constraints.Constraint):
    """A constraint that clips a weight to [0, 1] after each update."""

    def __call__(self, w):
        return ops.clip(w, 0.0, 1.0)


@keras.saving.register_keras_serializable(package="tfi2i")
class LayerInstanceNormalization(keras.layers.Layer):
    """LIN and AdaLIN: (ρ · instance norm + (1 - ρ) · layer norm) · gamma + beta, ρ in [0, 1] learned for each channel.

    Instance norm (ρ = 1) gives all channels the same mean and variance; layer norm (ρ = 0) keeps their differences.

    Args:
        kind: "lin" as above, or one norm without ρ: "in", instance norm; "ln", layer norm over height, width and
            channels; "gn", group norm in gcd(32, C / 2) groups of channels, or in one group if C is odd.
        adaptive: bool. True: gamma and beta are inputs (AdaLIN, AdaIN). False: they are learned here.
        rho: float in [0, 1], the start of ρ.
        smoothing: float, subtracted from ρ before its use; the difference is clipped to [0, 1]. The published
            TensorFlow code has 0.1.
        unbiased: bool, whether sums of squares are divided by n - 1 instead of n, as in torch.var.
        epsilon: float, added to the variances.
        **kwargs: those of any Keras layer.

    Call: x [N, H, W, C]; gamma and beta [N, C] if adaptive, else None → the shape of x.

    Raises:
        ValueError: `kind` is none of these, or gamma and beta are not given exactly when the layer is adaptive.

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
        self.input_spec = keras.InputSpec(ndim=4)

    def build(self, x_shape, gamma_shape=None, beta_shape=None):
        channels = x_shape[-1]
        per_channel = {"shape": (channels,), "autocast": False}
        self.rho = None
        if self.kind == "lin":
            constant = keras.initializers.Constant(self.rho_start)
            self.rho = self.add_weight(initializer=constant, constraint=UnitInterval(), name="rho", **per_channel)
        if not self.adaptive:
            self.gamma = self.add_weight(initializer="ones", name="gamma", **per_channel)
            self.beta = self.add_weight(initializer="zeros", name="beta", **per_channel)
        # Groups of one channel would be instance norm.
        self.groups = math.gcd(32, channels // 2) if self.kind == "gn" and channels % 2 == 0 else 1
        self.built = True

    def effective_rho(self):
        """ρ after smoothing and clipping: float32 [C], or None if `kind` is not "lin"."""
        if self.rho is None:
            return None
        rho = ops.cast(self.rho, "float32")
        return ops.clip(rho - self.smoothing, 0.0, 1.0) if self.smoothing else rho

    def call(self, x, gamma=None, beta=None):
        if (gamma is not None, beta is not None) != (self.adaptive, self.adaptive):
            raise ValueError(f"adaptive={self.adaptive}: expected {'gamma and beta' if self.adaptive else 'x alone'}")
        if not self.adaptive:
            gamma, beta = self.gamma, self.beta
        gamma, beta = (ops.cast(v, "float32")[..., None, None, :] for v in (gamma, beta))
        _, height, width, channels = ops.shape(x)
        pixels = ops.cast(height * width, "float32")
        y = ops.cast(x, "float32")
        mean = ops.mean(y, axis=(1, 2), keepdims=True)
        y = y - mean
        variance = ops.mean(ops.square(y), axis=(1, 2), keepdims=True)
        instance_factor = ops.rsqrt(variance * self._correction(pixels) + self.epsilon)
        if self.kind == "in":
            return ops.cast(y * (instance_factor * gamma) + beta, self.compute_dtype)
        # The variance over a group of channels: the mean of their variances plus the variance of their means.
        by_group, by_channel = (-1, 1, self.groups, channels // self.groups), (-1, 1, 1, channels)
        means, variances = ops.reshape(mean, by_group), ops.reshape(variance, by_group)
        offset = means - ops.mean(means, axis=-1, keepdims=True)
        variances = ops.mean(variances + ops.square(offset), axis=-1, keepdims=True)
        factor = ops.rsqrt(variances * self._correction(pixels * (channels // self.groups)) + self.epsilon)
        offset = ops.reshape(offset * factor, by_channel)
        if self.groups > 1:  # With one group, the factor broadcasts over all channels.
            factor = ops.reshape(ops.ones_like(means) * factor, by_channel)
        rho = self.effective_rho()
        if rho is not None:
            offset, factor = (1 - rho) * offset, rho * instance_factor + (1 - rho) * factor
        return ops.cast(y * (factor * gamma) + (offset * gamma + beta), self.compute_dtype)

    def _correction(self, count):
        return count / ops.maximum(count - 1.0, 1.0) if self.unbiased else 1.0

    def compute_output_shape(self, x_shape, gamma_shape=None, beta_shape=None):
        return x_shape

    def get_config(self):
        names = ("kind", "adaptive", "smoothing", "unbiased", "epsilon")
        return {**super().get_config(), "rho": self.rho_start, **{n: getattr(self, n) for n in names}}
