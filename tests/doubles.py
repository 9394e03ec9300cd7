"""A TensorFlow function in float64, which says how far float32 may be from the truth."""

import tensorflow as tf

FLOAT, DOUBLE = tf.float32.as_datatype_enum, tf.float64.as_datatype_enum


def in_doubles(function, *inputs):
    """The graph of a function with float64 in the place of every float32.

    Layers cast to float32 by name, so a dtype policy of float64 would not reach all of them.

    Args:
        function: Python function of nests of tensors that reads no variable and draws no random numbers.
        *inputs: what its graph is traced with.

    Returns:
        function of the same nests → the nest that `function` returns, floats as float64.
    """
    traced = tf.function(function).get_concrete_function(*inputs)
    graph = traced.graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    for value in (value for node in nodes for value in node.attr.values()):
        if value.type == FLOAT:
            value.type = DOUBLE
        if value.list.type:
            value.list.type[:] = [DOUBLE if kind == FLOAT else kind for kind in value.list.type]
        if value.tensor.dtype == FLOAT:
            value.tensor.CopyFrom(tf.make_tensor_proto(tf.make_ndarray(value.tensor), tf.float64))
    for signature in (f.signature for f in graph.library.function):
        for argument in (*signature.input_arg, *signature.output_arg):
            if argument.type == FLOAT:
                argument.type = DOUBLE
    feeds, fetches = [x.name for x in traced.inputs], [x.name for x in traced.outputs]

    @tf.function(autograph=False)
    def compute(*tensors):
        return tf.graph_util.import_graph_def(graph, dict(zip(feeds, tensors)), fetches, name="")

    def precise(*inputs):
        given = [*tf.nest.flatten(inputs, expand_composites=True), *traced.captured_inputs]
        results = compute(*(tf.cast(x, tf.float64) if x.dtype == tf.float32 else x for x in given))
        return tf.nest.pack_sequence_as(traced.structured_outputs, results)

    return precise
