"""Parts of networks whose inner maps are computed again for their gradients, instead of being kept."""

import keras
import tensorflow as tf
from keras import ops

from tfi2i.layers.scope import StepScope, open_scope, values_of


def remat(part, x, *others, training, of=None, **options):
    """Calls a part of a network. In a `StepScope` with `remat`, only what goes in is kept for its gradients.

    The gradients compute the part a second time. Its state changes once.

    Args:
        part: a built layer, or a function of the same arguments that computes with the layers `of`.
        x: float tensor, what it takes first.
        *others: float tensors or None, what it takes beside it.
        training: bool, that of the layer that calls this. The second computation is outside of that layer and could not
            inherit it.
        of: tuple of built layers, all whose variables the part reads; None: the part itself. All have the dtype policy
            of the layer that calls this.
        **options: keyword arguments that have no gradients, such as seeds.

    Returns:
        The part's result, one tensor.

    Raises:
        ValueError: a function without `of`; or, where its inner maps are to be computed again, it reads other
            variables, gives several tensors, or its layers have several dtypes.

    Source: Chen et al., arXiv 1604.06174, section 4.1.
    """
    if of is None and not isinstance(part, keras.layers.Layer):
        raise ValueError("a part that is a function: expected the layers `of` it")
    options["training"] = training
    if not getattr(open_scope(), "remat", False):
        return part(x, *others, **options)
    of = of or (part,)
    there = [other for other in others if other is not None]

    def compute(x, *inputs):
        inputs = iter(inputs)
        beside = [None if other is None else next(inputs) for other in others]
        result, state = computed_with(part, of, list(inputs), x, *beside, **options)
        if not tf.is_tensor(result):
            raise ValueError(f"a part gives {type(result).__name__}: expected one tensor")
        return result, state

    @tf.custom_gradient
    def computed(*inputs):
        def gradient(upstream, *_):
            # The second computation waits for `upstream`. Without the sum, TensorFlow and XLA would find that it is the
            # first one, and would keep the maps of that.
            x = inputs[0] + tf.cast(0 * tf.reshape(upstream, [-1])[0], inputs[0].dtype)
            second = (x, *inputs[1:])
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(second)
                result, _ = compute(*second)
            return tape.gradient(result, second, upstream, tf.UnconnectedGradients.ZERO)

        result, state = compute(*inputs)
        return (result, *state), gradient

    result, *state = computed(x, *there, *values_of(of))
    assign_state(of, state)
    return result


def rectified(x, *stack, training):
    """ReLU of what layers make of `x` one after the other, such as a convolution and a norm, by `remat`.

    Args:
        x: float tensor, what the first layer takes.
        *stack: built layers; each takes what the one before it gives.
        training: as of `remat`.
    """

    def compute(x, training):
        for layer in stack:
            x = layer(x, training=training)
        return ops.relu(x)

    return remat(compute, x, training=training, of=stack)


def computed_with(part, of, values, x, *others, remat_inside=False, **options):
    """A part of a network as a function of its variables.

    Args:
        part, of: as of `remat`.
        values: list of tensors, the values of all variables of these layers.
        x, *others, **options: what the part takes.
        remat_inside: whether its gradients compute it again.

    Returns:
        (the part's result, new values of all that is not trainable in these layers).
    """
    variables = [v for layer in of for v in layer.variables]
    with _PartScope(list(zip(variables, values)), remat_inside) as scope:
        result = remat(part, x, *others, of=of, **options)
    return result, [scope.get_current_value(v) for layer in of for v in layer.non_trainable_variables]


def assign_state(of, state):
    """Assigns what `computed_with` returns as second."""
    for variable, value in zip((v for layer in of for v in layer.non_trainable_variables), state):
        variable.assign(value)


class _PartScope(StepScope):
    """The scope of a part, which may read nothing but what it was given."""

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        if value is None:
            raise ValueError(f"a part reads {variable.path}, which none of the layers `of` it has")
        return value
