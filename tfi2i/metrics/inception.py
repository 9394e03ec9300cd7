"""Inception V3 in the two forms that published figures stand on: that of 2015, of FID and KID, and torchvision's.

The network of 2015 (Szegedy et al., arXiv 1512.00567, as TensorFlow's frozen graph of 2015-12-05 has it) is not the one
of later libraries: its average pools do not count the padding, its last block pools by maximum, its head has 1008 ways,
and its pixels are (x - 128) / 128. torchvision's counts the padding, pools by average and has 1000 ways.
"""

import keras

from tfi2i.config import UserError
from tfi2i.conversion import batch_norm, convolution, expect_shape, fill, torch_files

SIZE = 299
_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")


class Inception:
    """Builds the network.

    Args:
        torchvision: torchvision's form instead of that of 2015.

    Attributes:
        model: `keras.Model`, float32 [N, 299, 299, 3] in levels from 0 to 255 → the pooled features [N, 2048], then
            five maps of decreasing size, which those are made of.
        graph_names: name of a convolution with its norm → where the frozen graph of 2015 has it. The names are those
            that torchvision and pytorch-fid give them.
    """

    def __init__(self, torchvision=False):
        self._torchvision = torchvision
        self.graph_names = {}
        pixels = keras.Input((SIZE, SIZE, 3))
        # torchvision's network turns ImageNet's normalisation back into x / 127.5 - 1 when its weights are loaded.
        x = keras.layers.Rescaling(1 / (127.5 if torchvision else 128), -1.0)(pixels)
        x = self._stem(x, 0, 32, 3, strides=2, padding="valid")
        x = self._stem(x, 1, 32, 3, padding="valid")
        x = self._stem(x, 2, 64, 3)
        x = first = _max_pool(x)
        x = self._stem(x, 3, 80, 1)
        x = self._stem(x, 4, 192, 3, padding="valid")
        x = second = _max_pool(x)
        for block, pooled in zip(("5b", "5c", "5d"), (32, 64, 64)):
            x = self._block_a(x, block, pooled)
        third = x
        x = self._block_b(x, "6a")
        for block, width in zip(("6b", "6c", "6d", "6e"), (128, 160, 160, 192)):
            x = self._block_c(x, block, width)
        fourth = x
        x = self._block_d(x, "7a")
        x = self._block_e(x, "7b")
        x = self._block_e(x, "7c", by_maximum=not torchvision)
        features = keras.layers.GlobalAveragePooling2D()(x)
        self.model = keras.Model(pixels, [features, first, second, third, fourth, x])
        self.model.trainable = False

    def load(self, path):
        """Takes the weights of a file: a state dictionary of PyTorch or, of 2015, the frozen graph (.pb).

        Raises:
            UserError: the file cannot be read or holds another network.
        """
        try:
            if str(path).endswith(".pb"):
                state = self._read_graph(path)
                self._fill(state, path)
            else:
                with open(path, "rb") as file:
                    self._fill(torch_files.load(file, str(path)), path)
        except OSError as error:
            raise UserError(f"--network_weights={path} cannot be read: {error.strerror}") from error

    def places(self):
        """dict of the published names of all arrays → `conversion.Place`."""
        places = {}
        for name in self.graph_names:
            places |= convolution(f"{name}.conv", self.model.get_layer(f"{name}.conv"))
            places |= batch_norm(f"{name}.bn", self.model.get_layer(f"{name}.bn"))
        return places

    def _fill(self, state, path):
        part = f"--network_weights={path}"
        if not isinstance(state, dict):
            raise UserError(f"{part} holds no dictionary of weights")
        # The head tells the two forms apart: all other arrays have the same names and shapes.
        expect_shape(state, "fc.weight", (1000 if self._torchvision else 1008, 2048), part)
        fill(self.places(), {k: v for k, v in state.items() if not k.startswith(("fc.", "AuxLogits."))}, part)

    def _read_graph(self, path):
        import tensorflow as tf
        from google.protobuf.message import DecodeError

        if self._torchvision:
            raise UserError(f"--network_weights={path}: torchvision's weights are a .pth file")
        graph = tf.compat.v1.GraphDef()
        try:
            with open(path, "rb") as file:
                graph.ParseFromString(file.read())
        except DecodeError as error:
            raise UserError(f"--network_weights={path} is not a frozen graph: {error}") from error
        constants = {n.name: n.attr["value"].tensor for n in graph.node if n.op == "Const"}
        parts = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
        state = {}
        for name, place in self.graph_names.items():
            names = {f"{name}.conv.weight": f"{place}/conv2d_params"}
            names |= {f"{name}.bn.{theirs}": f"{place}/batchnorm/{ours}" for theirs, ours in parts.items()}
            for key, constant in (names | {"fc.weight": "softmax/weights"}).items():
                if constant not in constants:
                    raise UserError(f"--network_weights={path} is not the graph of 2015-12-05: it has no {constant}")
                array = tf.make_ndarray(constants[constant])
                axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim]
                state[key] = torch_files.from_array(array.transpose(axes))
        return state

    # ---------------------------------------------------------------------------------------------------- the network

    def _conv(self, x, name, graph_name, filters, kernel, strides=1, padding="same"):
        self.graph_names[name] = graph_name
        conv = keras.layers.Conv2D(filters, kernel, strides, padding, use_bias=False, name=f"{name}.conv")
        norm = keras.layers.BatchNormalization(epsilon=1e-3, name=f"{name}.bn")
        return keras.layers.ReLU()(norm(conv(x)))

    def _stem(self, x, i, *args, **kwargs):
        return self._conv(x, _STEM[i], f"conv_{i}" if i else "conv", *args, **kwargs)

    def _chain(self, x, block, branch, tower, *steps):
        """Convolutions (filters, kernel) one after the other; the last may have (…, strides) and then pads nothing."""
        number = _BLOCKS.index(block)
        place = "/".join(p for p in (f"mixed_{number}" if number else "mixed", tower, "conv") if p)
        for i, (filters, kernel, *strides) in enumerate(steps):
            name = f"Mixed_{block}.{branch}" + (f"_{i + 1}" if len(steps) > 1 else "")
            extra = {"strides": strides[0], "padding": "valid"} if strides else {}
            x = self._conv(x, name, f"{place}_{i}" if i else place, filters, kernel, **extra)
        return x

    def _average(self, x):
        if self._torchvision:
            return keras.layers.AveragePooling2D(3, 1)(keras.layers.ZeroPadding2D(1)(x))
        return keras.layers.AveragePooling2D(3, 1, "same")(x)

    def _block_a(self, x, block, pooled):
        return keras.layers.Concatenate()(
            [
                self._chain(x, block, "branch1x1", "", (64, 1)),
                self._chain(x, block, "branch5x5", "tower", (48, 1), (64, 5)),
                self._chain(x, block, "branch3x3dbl", "tower_1", (64, 1), (96, 3), (96, 3)),
                self._chain(self._average(x), block, "branch_pool", "tower_2", (pooled, 1)),
            ]
        )

    def _block_b(self, x, block):
        return keras.layers.Concatenate()(
            [
                self._chain(x, block, "branch3x3", "", (384, 3, 2)),
                self._chain(x, block, "branch3x3dbl", "tower", (64, 1), (96, 3), (96, 3, 2)),
                _max_pool(x),
            ]
        )

    def _block_c(self, x, block, width):
        row, column = (width, (1, 7)), (width, (7, 1))
        return keras.layers.Concatenate()(
            [
                self._chain(x, block, "branch1x1", "", (192, 1)),
                self._chain(x, block, "branch7x7", "tower", (width, 1), row, (192, (7, 1))),
                self._chain(x, block, "branch7x7dbl", "tower_1", (width, 1), column, row, column, (192, (1, 7))),
                self._chain(self._average(x), block, "branch_pool", "tower_2", (192, 1)),
            ]
        )

    def _block_d(self, x, block):
        return keras.layers.Concatenate()(
            [
                self._chain(x, block, "branch3x3", "tower", (192, 1), (320, 3, 2)),
                self._chain(x, block, "branch7x7x3", "tower_1", (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)),
                _max_pool(x),
            ]
        )

    def _block_e(self, x, block, by_maximum=False):
        number = _BLOCKS.index(block)

        def fork(x, name, tower):
            """1x3 and 3x1 beside each other."""
            place = f"mixed_{number}/{tower}/mixed/conv"
            row = self._conv(x, f"Mixed_{block}.{name}a", place, 384, (1, 3))
            column = self._conv(x, f"Mixed_{block}.{name}b", f"{place}_1", 384, (3, 1))
            return [row, column]

        def narrow(name, graph_name, x, filters, kernel):
            return self._conv(x, f"Mixed_{block}.{name}", f"mixed_{number}/{graph_name}", filters, kernel)

        single = narrow("branch3x3_1", "tower/conv", x, 384, 1)
        double = narrow("branch3x3dbl_1", "tower_1/conv", x, 448, 1)
        double = narrow("branch3x3dbl_2", "tower_1/conv_1", double, 384, 3)
        pooled = keras.layers.MaxPooling2D(3, 1, "same")(x) if by_maximum else self._average(x)
        return keras.layers.Concatenate()(
            [
                self._chain(x, block, "branch1x1", "", (320, 1)),
                *fork(single, "branch3x3_2", "tower"),
                *fork(double, "branch3x3dbl_3", "tower_1"),
                self._chain(pooled, block, "branch_pool", "tower_2", (192, 1)),
            ]
        )


def _max_pool(x):
    return keras.layers.MaxPooling2D(3, 2)(x)
