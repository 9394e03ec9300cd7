"""Transformer blocks on tokens [N, L, C], made of operations that every export format has."""

import keras
from keras import ops

from tfi2i.layers.activations import gelu
from tfi2i.layers.network import Network


@keras.saving.register_keras_serializable(package="tfi2i")
class SelfAttention(Network):
    """Multi-head self-attention as torch.nn.MultiheadAttention: softmax(q kᵀ / sqrt(D)) v, D = C / heads.

    One dense layer projects to queries q, keys k and values v; its output columns are in this order. The softmax is
    computed in float32.

    Args:
        width: int, channels C of a token, a multiple of `heads`.
        heads: int, number of attention heads.
        **kwargs: `seed`, `init` and `init_gain` of `tfi2i.layers.Network`, and those of any Keras layer.

    Call: [N, L, C] → [N, L, C] for any number of tokens L.

    Raises:
        ValueError: `width` is not a multiple of `heads`.
    """

    def __init__(self, width, heads, **kwargs):
        super().__init__(**kwargs)
        if width % heads:
            raise ValueError(f"width={width}: expected a multiple of heads={heads}")
        self.width, self.heads = width, heads
        named = self.next_layer("dense")
        initializer = keras.initializers.GlorotUniform(seed=self.layer_seed)
        self.project = keras.layers.Dense(3 * width, kernel_initializer=initializer, **named)
        self.join = self.dense(width)

    def build(self, input_shape):
        self.project.build(input_shape)
        self.join.build(input_shape)
        self.built = True

    def call(self, x):
        length = ops.shape(x)[1]
        return ops.reshape(self.attend_rows(ops.reshape(x, (-1, self.width)), length), (-1, length, self.width))

    def attend_rows(self, x, length):
        """`call` on tokens that are the rows of one matrix, `length` of each image: [N L, C] → [N L, C].

        A method and no layer's call: `TransformerBlock`, of the same dtype, has its tokens in this form already.
        """
        size = self.width // self.heads
        parts = ops.split(self.project(x), 3, axis=-1)
        q, k, v = (ops.transpose(ops.reshape(part, (-1, length, self.heads, size)), (0, 2, 1, 3)) for part in parts)
        scores = ops.matmul(q * ops.cast(size**-0.5, q.dtype), ops.transpose(k, (0, 1, 3, 2)))
        weights = ops.cast(ops.softmax(ops.cast(scores, "float32"), axis=-1), v.dtype)
        y = ops.transpose(ops.matmul(weights, v), (0, 2, 1, 3))
        return self.join(ops.reshape(y, (-1, self.width)))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        names = ("width", "heads", "seed", "init", "init_gain")
        return {**super().get_config(), **{n: getattr(self, n) for n in names}}


@keras.saving.register_keras_serializable(package="tfi2i")
class TransformerBlock(Network):
    """x ← x + α attention(LN(x)); x ← x + α FFN(LN(x)), with one learned α that starts at 0 (ReZero).

    The feed-forward network FFN is dense, exact GELU, dense. In mixed precision the layer norms LN and GELU compute in
    float32; their results are rounded, as those of all layers are.

    Args:
        width: int, channels C of a token, a multiple of `heads`.
        heads: int, number of attention heads.
        ffn_width: int, channels between the two dense layers.
        **kwargs: `seed`, `init` and `init_gain` of `tfi2i.layers.Network`, and those of any Keras layer.

    Call: [N, L, C] → [N, L, C] for any number of tokens L.

    Raises:
        ValueError: `width` is not a multiple of `heads`.

    Source: ReZero: Bachlechner et al., arXiv 2003.04887; the norms and the shared α as in the code of UVCGAN.
    """

    def __init__(self, width, heads, ffn_width, **kwargs):
        super().__init__(**kwargs)
        self.width, self.heads, self.ffn_width = width, heads, ffn_width
        self.attend_norm = self.layer_norm()
        self.attend = SelfAttention(width, heads, **self.next_network("attention"))
        self.ffn_norm = self.layer_norm()
        self.widen = self.dense(ffn_width)
        self.narrow = self.dense(width)

    def layer_norm(self):
        return keras.layers.LayerNormalization(epsilon=1e-5, **self.next_layer("norm"))

    def build(self, input_shape):
        for layer in (self.attend_norm, self.attend, self.ffn_norm, self.widen):
            layer.build(input_shape)
        self.narrow.build((*input_shape[:-1], self.ffn_width))
        self.alpha = self.add_weight(shape=(), initializer="zeros", name="re_alpha")
        self.built = True

    def call(self, x):
        alpha, length = ops.convert_to_tensor(self.alpha), ops.shape(x)[1]
        # Tokens are the rows of one matrix. On three axes of unknown length, a dense layer needs 12 operations for the
        # shapes alone.
        x = ops.reshape(x, (-1, self.width))
        x = x + alpha * self.attend.attend_rows(self.attend_norm(x), length)
        y = gelu(self.widen(self.ffn_norm(x)))
        return ops.reshape(x + alpha * self.narrow(y), (-1, length, self.width))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        names = ("width", "heads", "ffn_width", "seed", "init", "init_gain")
        return {**super().get_config(), **{n: getattr(self, n) for n in names}}
