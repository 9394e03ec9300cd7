"""Features of VGG16 and VGG19 (Simonyan, Zisserman, arXiv 1409.1556) that losses compare pictures by."""

import keras
from keras import ops

from tfi2i import layers
from tfi2i.config import UserError
from tfi2i.levels import to_levels

# Convolutions in each block.
_BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
# Of the levels 0 to 255 that the networks were trained on: blue, green, red.
_MEAN = (103.939, 116.779, 123.680)


class PerceptualFeatures(layers.Network):
    """A VGG network up to one of its convolutions: [N, H, W, 3] → float32 [N, h, w, C]; nothing in it learns.

    Args:
        architecture: "vgg16" or "vgg19".
        layer: Keras' name of the last convolution, as "block4_conv4", which papers call conv4_4.
        activation: whether the features are taken behind that convolution's ReLU (relu4_4) or before it (conv4_4).
        pools: how many blocks, from the first, a max-pool follows; with all of Keras' pools, 5. Each halves the map.
        normalized: instance-normalise the features, which takes a picture's overall colour and contrast away.
        value_range: (low, high) of the pictures, in order red, green, blue.

    Raises:
        ValueError: an architecture or a layer that is not there.
    """

    def __init__(
        self, architecture, layer, activation=True, pools=5, normalized=False, value_range=(-1.0, 1.0), **kwargs
    ):
        super().__init__(**kwargs)
        if architecture not in _BLOCKS:
            raise ValueError(f"architecture='{architecture}': expected one of {', '.join(_BLOCKS)}")
        self.architecture, self.activation, self.value_range = architecture, activation, value_range
        counts = _BLOCKS[architecture]
        names = [f"block{b}_conv{i}" for b, count in enumerate(counts, 1) for i in range(1, count + 1)]
        if layer not in names:
            raise ValueError(f"layer='{layer}': expected one of {', '.join(names)}")
        self.conv_names = names[: names.index(layer) + 1]
        self.convs = [self.conv(64 * 2 ** min(int(name[5]) - 1, 3), 3, pad=1) for name in self.conv_names]
        self.pool = keras.layers.MaxPooling2D(2, **self.next_layer("pool"))
        self.pooled = {f"block{b}_conv{count}" for b, count in enumerate(counts[:pools], 1)} - {layer}
        self.norm = layers.InstanceNormalization(**self.next_layer("norm")) if normalized else None
        self.stack = self.convs
        self.trainable = False
        self.prepared = False  # whether the weights are VGG's

    def check_side(self, side, given):
        """Raises `UserError`: pictures of so many pixels a side have no features; 0 stands for their own size.

        `given` is the flag that says so.
        """
        least = 2 ** len(self.pooled.intersection(self.conv_names))
        if 0 < side < least:
            raise UserError(
                f"{given}={side}: features of {self.architecture.upper()} need pictures of {least} pixels a side: "
                f"give {given}={least} or more, or 0 for the pictures' own size"
            )

    def call(self, x):
        x = ops.flip(to_levels(ops.cast(x, "float32"), self.value_range), axis=-1)
        x = x - ops.convert_to_tensor(_MEAN, dtype="float32")
        for name, conv in zip(self.conv_names, self.convs):
            x = conv(x)
            if self.activation or conv is not self.convs[-1]:
                x = ops.relu(x)
            if name in self.pooled:
                x = self.pool(x)
        return ops.cast(self.norm(x) if self.norm else x, "float32")

    def build_from_config(self, config):
        # A model that Keras reads from a file brings the weights along.
        super().build_from_config(config)
        self.prepared = self.built

    def prepare(self, path, given, wanted_by, without):
        """Creates the weights and takes them from Keras' network, unless that is done.

        Args:
            path: file of the weights of `keras.applications.VGG16(include_top=False)`, or VGG19 (.h5); None: Keras
                downloads them.
            given, wanted_by, without: of the method, for the error: the flag that names the file, the flag that asks
                for the weights, and the flag with its value that does without them.

        Raises:
            UserError: the file is not there or holds something else, or the weights cannot be downloaded.
        """
        if self.prepared:
            return
        name = self.architecture.upper()
        try:
            vgg = getattr(keras.applications, name)(include_top=False, weights=path or "imagenet")
        except Exception as error:
            raise UserError(
                f"{wanted_by} needs the weights of {name}: "
                + (f"{given}={path} cannot be read" if path else "Keras could not download them")
                + f" ({str(error).splitlines()[0]}). Give {given}=FILE, Keras' "
                f"{self.architecture}_weights_tf_dim_ordering_tf_kernels_notop.h5, or {without}"
            )
        if not self.built:
            self.build((None, None, None, 3))
        for name, conv in zip(self.conv_names, self.convs):
            conv.set_weights(vgg.get_layer(name).get_weights())
        self.prepared = True


def domain_invariant_features(**kwargs):
    """The features of the domain-invariant perceptual loss: [N, H, W, 3] in [-1, 1] → [N, H/8, W/8, 512].

    Huang et al., arXiv 1804.04732, appendix: instance-normalised relu5_3 of VGG16. The network of the released code has
    no pool between conv4_3 and conv5_1, so features of Keras' VGG16 are others.

    Args:
        **kwargs: of every Keras layer.
    """
    return PerceptualFeatures("vgg16", "block5_conv3", pools=3, normalized=True, **kwargs)


def domain_invariant_loss(features, x, y):
    """Mean squared difference of two pictures' features, float32 scalar; `features` of `domain_invariant_features`."""
    return ops.mean(ops.square(features(x) - features(y)))
