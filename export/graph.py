"""A LiteRT file as a graph that can be read and changed."""

import collections
import copy

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

_DTYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT64: np.int64,
    schema.TensorType.BOOL: np.bool_,
}


class Graph:
    """The one subgraph of a LiteRT file. Tensors are known by their index; `to_bytes` renumbers them.

    Args:
        file: bytes.
    """

    def __init__(self, file):
        self.model = flatbuffer_utils.read_model_from_bytearray(bytearray(file))
        self.subgraph = self.model.subgraphs[0]
        self.tensors, self.operators = self.subgraph.tensors, self.subgraph.operators
        self.inputs, self.outputs = self.subgraph.inputs, self.subgraph.outputs
        self.producer, self.consumers = {}, collections.defaultdict(list)
        for operator in self.operators:
            self.producer |= dict.fromkeys(operator.outputs, operator)
            for tensor in operator.inputs:
                self.consumers[tensor].append(operator)

    def operation(self, operator):
        """Name of its operation, such as "CONV_2D"."""
        return flatbuffer_utils.opcode_to_name(self.model, operator.opcodeIndex)

    def name(self, tensor):
        return self.tensors[tensor].name.decode()

    def shape(self, tensor):
        return tuple(int(n) for n in self.tensors[tensor].shape)

    def is_float(self, tensor):
        return self.tensors[tensor].type == schema.TensorType.FLOAT32

    def constant(self, tensor):
        """Its values, or None where they are computed."""
        data = self.model.buffers[self.tensors[tensor].buffer].data
        if data is None or len(data) == 0:
            return None
        dtype = _DTYPES[self.tensors[tensor].type]
        return np.frombuffer(bytes(bytearray(data)), dtype).reshape(self.shape(tensor))

    def set_input(self, operator, position, values):
        """Gives an operator a constant of its own as that input."""
        inputs = [*operator.inputs, *[-1] * (position + 1 - len(operator.inputs))]
        old = inputs[position]
        if old >= 0 and len(self.consumers[old]) == 1 and self.constant(old) is not None:
            tensor = self.tensors[old]
        else:
            tensor = schema.TensorT()
            tensor.name = f"{self.name(operator.outputs[0])}/constant {len(self.tensors)}".encode()
            inputs[position] = len(self.tensors)
            self.consumers[inputs[position]].append(operator)
            operator.inputs = inputs
            self.tensors.append(tensor)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        tensor.buffer = len(self.model.buffers) - 1
        tensor.type = next(t for t, dtype in _DTYPES.items() if dtype == values.dtype)
        tensor.shape, tensor.hasRank = list(values.shape), True

    def add_tensor(self, like, name):
        """A new tensor of the shape and type of `like`, which is computed; returns its index."""
        tensor = schema.TensorT()
        tensor.name = f"{self.name(like)}/{name}".encode()
        tensor.type, tensor.shape = self.tensors[like].type, self.tensors[like].shape
        tensor.shapeSignature, tensor.hasRank = self.tensors[like].shapeSignature, True
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add_pixels(self, like, type, name):
        """A new tensor of levels: float32, uint8 from 0, or int8 from -128; returns its index."""
        tensor = schema.TensorT()
        tensor.name, tensor.type = name.encode(), type
        tensor.shape, tensor.hasRank = self.tensors[like].shape, True
        if type != schema.TensorType.FLOAT32:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [1.0]
            tensor.quantization.zeroPoint = [-128 if type == schema.TensorType.INT8 else 0]
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def insert_before(self, operator, operation, inputs, output, window=None):
        """A new operator, such as a "SUB", with the default options; of a pooling, with this window and stride."""
        position = next(i for i, o in enumerate(self.operators) if o is operator)
        return self.insert(position, operation, inputs, output, window)

    def insert(self, position, operation, inputs, output, window=None):
        """A new operator that comes as number `position`."""
        builtin = getattr(schema.BuiltinOperator, operation)
        codes = [i for i, code in enumerate(self.model.operatorCodes) if code.builtinCode == builtin]
        new = schema.OperatorT()
        new.opcodeIndex = codes[0] if codes else self._add_opcode(builtin)
        options = {
            "ADD": "AddOptions",
            "SUB": "SubOptions",
            "MUL": "MulOptions",
            "MAXIMUM": "MaximumMinimumOptions",
            "STRIDED_SLICE": "StridedSliceOptions",
            "QUANTIZE": "QuantizeOptions",
            "DEQUANTIZE": "DequantizeOptions",
            "AVERAGE_POOL_2D": "Pool2DOptions",
        }[operation]
        new.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        new.builtinOptions = getattr(schema, f"{options}T")()
        if window:
            new.builtinOptions.padding = schema.Padding.VALID
            new.builtinOptions.filterHeight, new.builtinOptions.filterWidth = window
            new.builtinOptions.strideH, new.builtinOptions.strideW = window
        new.inputs, new.outputs = list(inputs), [output]
        self.operators.insert(position, new)
        return new

    def _add_opcode(self, builtin):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = 2
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def replace_input(self, operator, position, tensor):
        operator.inputs = [tensor if i == position else old for i, old in enumerate(operator.inputs)]

    def exchange_input(self, operator, before, after):
        """Lets an operator read one tensor wherever it reads another one."""
        operator.inputs = [after if tensor == before else tensor for tensor in operator.inputs]

    def remove_unread(self):
        """Removes the operators whose results nothing needs."""
        for operator in [*self.operators][::-1]:
            needed = {t for o in self.operators for t in o.inputs} | {*self.outputs}
            if needed.isdisjoint(operator.outputs):
                self.operators.remove(operator)

    def unshare(self):
        """Gives each constant a buffer of its own: the converter stores equal ones once."""
        seen = set()
        for tensor in self.tensors:
            if tensor.buffer in seen and self.model.buffers[tensor.buffer].data is not None:
                self.model.buffers.append(copy.copy(self.model.buffers[tensor.buffer]))
                tensor.buffer = len(self.model.buffers) - 1
            seen.add(tensor.buffer)

    def to_bytes(self):
        """The file, without tensors that no operator reads or writes."""
        for code in self.model.operatorCodes:
            # The quantizer leaves this 0, which is ADD, and OpenVINO reads it first. Up to 126 both fields are equal.
            code.deprecatedBuiltinCode = min(code.builtinCode, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
        ends = [*self.inputs, *self.outputs]
        used = sorted({t for o in self.operators for t in (*o.inputs, *o.outputs) if t >= 0} | {*ends})
        new = {old: i for i, old in enumerate(used)} | {-1: -1}
        for part in (self.subgraph, *self.operators):
            part.inputs, part.outputs = [new[t] for t in part.inputs], [new[t] for t in part.outputs]
        for signature in self.model.signatureDefs:
            for end in (*signature.inputs, *signature.outputs):
                end.tensorIndex = new[end.tensorIndex]
        self.subgraph.tensors = [self.tensors[t] for t in used]
        kept = {t.buffer for t in self.subgraph.tensors} | {m.buffer for m in self.model.metadata or ()}
        for i, buffer in enumerate(self.model.buffers):
            buffer.data = buffer.data if i in kept else None
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))
