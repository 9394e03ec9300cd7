"""Parts of networks whose inner maps are computed again for their gradients, instead of being kept."""

import tensorflow as tf
from keras import ops

from tfi2i.layers.scope import StepScope, open_scope, values_of


def remat(part, x, *others, of=None, **options):
    """Calls a part of a network. In a `StepScope` with `remat`, only what goes in is kept for its gradients.

    The gradients compute the part a second time. Its state changes once.

    Args:
        part: a built layer, or a function that computes with the layers `of`.
        x: float tensor, what it takes first.
        *others: float tensors or None, what it takes beside it.
        of: tuple of built layers; None: the part itself. All have the dtype policy of the layer that calls this.
        **options: keyword arguments that have no gradients, such as `training` and seeds.

    Returns:
        The part's result, one tensor.

    Raises:
        ValueError: its inner maps are to be computed again, and its layers have several dtypes.

    Source: Chen et al., arXiv 1604.06174, section 4.1.
    """
    if not getattr(open_scope(), "remat", False):
        return part(x, *others, **options)
    of = of or (part,)
    given = [other for other in others if other is not None]

    def compute(x, *inputs):
        rest = iter(inputs)
        beside = [other if other is None else next(rest) for other in others]
        return computed_with(part, of, list(rest), x, *beside, **options)

    @tf.custom_gradient
    def computed(*inputs):
        def gradient(upstream, *_):
            # It waits for `upstream`. Without the sum, TensorFlow and XLA would find that the second computation is the
            # first one, and would keep its maps.
            x = inputs[0] + tf.cast(0 * tf.reshape(upstream, [-1])[0], inputs[0].dtype)
            again = (x, *inputs[1:])
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(again)
                result, _ = compute(*again)
            return tape.gradient(result, again, upstream, tf.UnconnectedGradients.ZERO)

        result, state = compute(*inputs)
        return (result, *state), gradient

    result, *state = computed(x, *given, *values_of(of))
    assign_state(of, state)
    return result


def rectified(x, *stack, training=False):
    """ReLU of what layers make of `x` one after the other, such as a convolution and a norm; a part for `remat`.

    Args:
        x: float tensor, what the first layer takes.
        *stack: built layers.
        training: for those that take it.
    """

    def compute(x):
        for layer in stack:
            x = layer(x, training=training)
        return ops.relu(x)

    return remat(compute, x, of=stack)


def computed_with(part, of, values, x, *others, again=False, **options):
    """A part of a network as a function of its variables.

    Args:
        part, of: as of `remat`.
        values: list of tensors, the values of all variables of these layers.
        x, *others, **options: what the part takes.
        again: whether its gradients compute it again.

    Returns:
        (the part's result, new values of all that is not trainable in these layers).
    """
    variables = [v for layer in of for v in layer.variables]
    with StepScope(list(zip(variables, values)), remat=again) as scope:
        result = remat(part, x, *others, of=of, **options)
    return result, [scope.get_current_value(v) for layer in of for v in layer.non_trainable_variables]


def assign_state(of, state):
    """Assigns what `computed_with` returns as second."""
    for variable, value in zip((v for layer in of for v in layer.non_trainable_variables), state):
        variable.assign(value)
