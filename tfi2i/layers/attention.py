"""Transformer blocks on tokens [N, L, C], of operations that every exported format knows."""

import keras
from keras import ops

from tfi2i.layers.network import Network


class SelfAttention(Network):
    """Multi-head self-attention as torch.nn.MultiheadAttention: softmax(q kᵀ / sqrt(D)) v, D = C / heads.

    The three projections are one dense layer, columns q, k, v in this order. Softmax is float32.

    Args:
        width: C, a multiple of `heads`.
        heads: parts of a token that attend by themselves.
    """

    def __init__(self, width, heads, **kwargs):
        super().__init__(**kwargs)
        self.width, self.heads = width, heads
        named = self.next("dense")
        start = keras.initializers.GlorotUniform(seed=self.layer_seed)
        self.project = keras.layers.Dense(3 * width, kernel_initializer=start, **named)
        self.join = self.dense(width)

    def build(self, input_shape):
        self.project.build(input_shape)
        self.join.build(input_shape)
        self.built = True

    def call(self, x):
        length, size = ops.shape(x)[1], self.width // self.heads
        parts = ops.split(self.project(x), 3, axis=-1)
        q, k, v = (ops.transpose(ops.reshape(part, (-1, length, self.heads, size)), (0, 2, 1, 3)) for part in parts)
        scores = ops.matmul(q * ops.cast(size**-0.5, q.dtype), ops.transpose(k, (0, 1, 3, 2)))
        weights = ops.cast(ops.softmax(ops.cast(scores, "float32"), axis=-1), v.dtype)
        y = ops.transpose(ops.matmul(weights, v), (0, 2, 1, 3))
        return self.join(ops.reshape(y, (-1, length, self.width)))

    def compute_output_shape(self, input_shape):
        return input_shape


class TransformerBlock(Network):
    """x ← x + α attention(LN(x)); x ← x + α FFN(LN(x)), with one learned α that starts at 0 (ReZero).

    FFN is dense, exact GELU, dense. Statistics of the norms and GELU are float32.

    Args:
        width: channels of a token.
        heads: of the attention.
        ffn_width: channels between the two dense layers.

    Source: ReZero: Bachlechner et al., arXiv 2003.04887; the norms and the shared α as in the code of UVCGAN.
    """

    def __init__(self, width, heads, ffn_width, **kwargs):
        super().__init__(**kwargs)
        self.attend_norm = self.layer_norm()
        self.attend = SelfAttention(width, heads, **self.inner("attention", self.seed * 100 + 1))
        self.ffn_norm = self.layer_norm()
        self.widen = self.dense(ffn_width)
        self.narrow = self.dense(width)

    def layer_norm(self):
        return keras.layers.LayerNormalization(epsilon=1e-5, **{**self.next("norm"), "dtype": "float32"})

    def build(self, input_shape):
        for layer in (self.attend_norm, self.attend, self.ffn_norm, self.widen):
            layer.build(input_shape)
        self.narrow.build((*input_shape[:-1], self.widen.units))
        self.alpha = self.add_weight(shape=(), initializer="zeros", name="re_alpha")
        self.built = True

    def call(self, x):
        alpha = ops.convert_to_tensor(self.alpha)
        x = x + alpha * self.attend(self.attend_norm(x))
        y = ops.gelu(ops.cast(self.widen(self.ffn_norm(x)), "float32"), approximate=False)
        return x + alpha * self.narrow(y)

    def compute_output_shape(self, input_shape):
        return input_shape
