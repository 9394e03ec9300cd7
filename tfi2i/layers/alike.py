"""Blocks that are alike: one function of their weights, traced once."""

import functools

import tensorflow as tf

from tfi2i.layers.rematerialization import assign_state, computed_with, remat
from tfi2i.layers.scope import StepScope, open_scope, values_of


class TracedOnce(StepScope):
    """A `StepScope` in which `in_turn` traces blocks that are alike once.

    A step of UVCGAN v2 calls its transformer blocks 48 times, and would have the operations of each call, forward and
    backward. They are half of its graph, which costs time before the first step and memory ever after.
    """

    def __init__(self, state_mapping=(), remat=False):
        super().__init__(state_mapping, remat)
        self._functions = {}

    def function_of(self, block):
        """(values of a block's variables, x, *others, training) → (result, new values of what is not trainable)."""
        if id(block) not in self._functions:
            # Without the attribute TensorFlow would put a copy of the function in the place of each call.
            attributes = {"_noinline": True}
            function = functools.partial(computed_with, block, (block,), remat_inside=self.remat)
            self._functions[id(block)] = tf.function(function, autograph=False, experimental_attributes=attributes)
        return self._functions[id(block)]


def in_turn(blocks, x, *others, training):
    """Layers that are alike, one after the other, each with its own weights: x ← block(x, *others).

    In a `TracedOnce` scope they are calls of one `tf.function`, which exists once in TensorFlow's graph too. It has one
    gradient function, which computes the gradients of all variables: for layers whose weights learn.

    Args:
        blocks: list of built layers which differ in their names, weights and initialisers alone. All that they consist
            of has the dtype policy of the layer that calls this.
        x: a tensor, what the first one takes and all of them return.
        *others: tensors or None, what all of them take beside it.
        training: bool, that of the layer that calls this, for those that take it.

    Returns:
        What the last one returns; `x` where there is none.

    Raises:
        ValueError: a block that is traced once, or whose inner maps are computed again, has layers of several dtypes.
    """
    scope = open_scope()
    if not isinstance(scope, TracedOnce):
        for block in blocks:
            x = remat(block, x, *others, training=training)
        return x
    for block in blocks:
        function = scope.function_of(blocks[0])
        # In mixed precision reading casts. Out here TensorFlow sees that several calls of a network need the same.
        x, state = function(values_of([block]), x, *others, training=training)
        assign_state([block], state)
    return x
