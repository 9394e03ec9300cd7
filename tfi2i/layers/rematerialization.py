"""Blocks whose inner maps are computed again for their gradients, instead of being kept."""

import tensorflow as tf

from tfi2i.layers.scope import StepScope, open_scope, values_of


def remat(block, x, *others, **options):
    """Calls a block. In a `StepScope` with `remat`, only what goes in is kept for its gradients.

    The gradients compute the block a second time. Its state changes once.

    Args:
        block: a built layer. All that it consists of has the dtype policy of the layer that calls this.
        x: float tensor, what it takes first.
        *others: float tensors or None, what it takes beside it.
        **options: keyword arguments that have no gradients, such as `training` and seeds.

    Returns:
        The block's result, one tensor.

    Raises:
        ValueError: its inner maps are to be computed again, and it has layers of several dtypes.

    Source: Chen et al., arXiv 1604.06174, section 4.1.
    """
    if not getattr(open_scope(), "remat", False):
        return block(x, *others, **options)
    given = [other for other in others if other is not None]

    def compute(x, given, values):
        rest = iter(given)
        return computed_with(block, values, x, *(other if other is None else next(rest) for other in others), **options)

    @tf.custom_gradient
    def computed(x, *inputs):
        def gradient(upstream, *_):
            # It waits for `upstream`. Without the sum, TensorFlow and XLA would find that the second computation is the
            # first one, and would keep its maps.
            again = x + tf.cast(0 * tf.reshape(upstream, [-1])[0], x.dtype)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch((again, inputs))
                result, _ = compute(again, inputs[: len(given)], inputs[len(given) :])
            return tape.gradient(result, (again, *inputs), upstream, tf.UnconnectedGradients.ZERO)

        result, state = compute(x, inputs[: len(given)], inputs[len(given) :])
        return (result, *state), gradient

    result, *state = computed(x, *given, *values_of(block))
    for variable, value in zip(block.non_trainable_variables, state):
        variable.assign(value)
    return result


def computed_with(block, values, x, *others, again=False, **options):
    """A block as a function of its variables.

    Args:
        block: a built layer.
        values: list of tensors, the values of `block.variables`.
        x, *others, **options: what the block takes.
        again: whether its gradients compute it again.

    Returns:
        (the block's result, new values of its `non_trainable_variables`).
    """
    with StepScope(list(zip(block.variables, values)), remat=again) as scope:
        result = remat(block, x, *others, **options)
    return result, [scope.get_current_value(v) for v in block.non_trainable_variables]
