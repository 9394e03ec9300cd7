"""Layers of tensorflow-addons 0.23 under their registered names, so that models saved with it load in Keras 3.

  import tfi2i.layers.addons
  model = keras.models.load_model("generator.h5")

They compute what that package computed; tests compare them with values recorded from it. For new models use the layers
of `tfi2i.layers`: their spectral norm keeps the raw kernel, and their instance norm has PyTorch's epsilon.
"""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="Addons")
class GroupNormalization(keras.layers.Layer):
    """gamma (x - mean) / sqrt(var + epsilon) + beta, mean and biased variance per sample and group of channels.

    Statistics are float32 in mixed precision too; tensorflow-addons rounded them to 16 bits.

    Args:
        groups: int, number of groups, a divisor of the number of channels; -1 makes each channel a group.
        axis: int, the axis of the channels: -1, or 1 and more.
        epsilon: float, added to the variance.
        center: bool, whether beta, an offset for each channel, is learned.
        scale: bool, whether gamma, a factor for each channel, is learned.
        beta_initializer, gamma_initializer: name or `keras.initializers.Initializer`.
        beta_regularizer, gamma_regularizer: name, `keras.regularizers.Regularizer` or None.
        beta_constraint, gamma_constraint: name, `keras.constraints.Constraint` or None.
        **kwargs: those of any Keras layer.

    Call: [N, …] of rank 2 or more → the same shape.

    Raises:
        ValueError: `axis` is 0 or below -1; when the layer is built: `groups` does not divide the number of channels.

    Source: Wu and He, arXiv 1803.08494; `tfa.layers.GroupNormalization`.
    """

    def __init__(
        self,
        groups=32,
        axis=-1,
        epsilon=1e-3,
        center=True,
        scale=True,
        beta_initializer="zeros",
        gamma_initializer="ones",
        beta_regularizer=None,
        gamma_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if axis != -1 and axis < 1:
            # For these, tensorflow-addons takes its statistics over the wrong axes.
            raise ValueError(f"axis={axis}: expected -1, or 1 and more")
        self.supports_masking = True
        self.groups = groups
        self.axis = axis
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        self.beta_initializer = keras.initializers.get(beta_initializer)
        self.gamma_initializer = keras.initializers.get(gamma_initializer)
        self.beta_regularizer = keras.regularizers.get(beta_regularizer)
        self.gamma_regularizer = keras.regularizers.get(gamma_regularizer)
        self.beta_constraint = keras.constraints.get(beta_constraint)
        self.gamma_constraint = keras.constraints.get(gamma_constraint)

    def build(self, input_shape):
        channels = input_shape[self.axis]
        self.group_count = channels if self.groups == -1 else self.groups
        if channels % self.group_count:
            raise ValueError(f"groups={self.groups}: expected a divisor of the {channels} channels, or -1")
        self.gamma = self.beta = None
        if self.scale:
            self.gamma = self.add_weight(
                shape=(channels,),
                initializer=self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
                autocast=False,
                name="gamma",
            )
        if self.center:
            self.beta = self.add_weight(
                shape=(channels,),
                initializer=self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
                autocast=False,
                name="beta",
            )
        self.built = True

    def call(self, x):
        axis = self.axis % len(x.shape)
        shape, groups = list(ops.shape(x)), [self.group_count, x.shape[axis] // self.group_count]
        grouped = [1] * axis + groups + [1] * (len(shape) - axis - 1)
        y = ops.reshape(ops.cast(x, "float32"), [*shape[:axis], *groups, *shape[axis + 1 :]])
        averaged = [i for i in range(1, len(grouped)) if i != axis]
        mean = ops.mean(y, axis=averaged, keepdims=True)
        variance = ops.mean(ops.square(y - mean), axis=averaged, keepdims=True)
        y = (y - mean) * ops.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            y = y * ops.reshape(ops.cast(self.gamma, "float32"), grouped)
        if self.beta is not None:
            y = y + ops.reshape(ops.cast(self.beta, "float32"), grouped)
        return ops.cast(ops.reshape(y, shape), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = {n: getattr(self, n) for n in ("groups", "axis", "epsilon", "center", "scale")}
        for weight in ("beta", "gamma"):
            for kind in ("initializer", "regularizer", "constraint"):
                name = f"{weight}_{kind}"
                config[name] = getattr(keras, f"{kind}s").serialize(getattr(self, name))
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="Addons")
class InstanceNormalization(GroupNormalization):
    """`GroupNormalization` in which each channel is a group.

    Args:
        **kwargs: as for `GroupNormalization`. `groups`, which saved models contain, has no effect.

    Source: Ulyanov et al., arXiv 1607.08022; `tfa.layers.InstanceNormalization`.
    """

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "groups": -1})


@keras.saving.register_keras_serializable(package="Addons")
class SpectralNormalization(keras.layers.SpectralNormalization):
    """Wraps a layer; each call in training first overwrites its kernel by kernel / σ, σ its largest singular value.

    This is `keras.layers.SpectralNormalization` under another registered name. No gradient passes through σ.

    Args:
        layer: a `keras.layers.Layer` with a `kernel` or `embeddings`.
        power_iterations: int, number of power iterations by which each call in training improves the estimate of σ.
        **kwargs: those of any Keras layer.

    Call: the input of `layer` → its output.

    Source: Miyato et al., arXiv 1802.05957; `tfa.layers.SpectralNormalization`.
    """
