"""Files of Caffe, written with the protocol buffers of Google: for the recorder of FCN-8s and for the tests."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Of caffe.proto: message → field → (number, type, repeated).
_MESSAGES = {
    "BlobShape": {"dim": (1, "int64", True)},
    "BlobProto": {
        "num": (1, "int32", False), "channels": (2, "int32", False), "height": (3, "int32", False),
        "width": (4, "int32", False), "data": (5, "float", True), "shape": (7, ".BlobShape", False),
    },
    "LayerParameter": {"name": (1, "string", False), "type": (2, "string", False), "blobs": (7, ".BlobProto", True)},
    "V1LayerParameter": {"name": (4, "string", False), "blobs": (6, ".BlobProto", True)},
    "NetParameter": {
        "name": (1, "string", False), "layers": (2, ".V1LayerParameter", True), "layer": (100, ".LayerParameter", True),
    },
}  # fmt: skip


def _messages():
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="caffe_for_tests.proto", package="caffe_for_tests", syntax="proto2")
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for name, (number, kind, repeated) in fields.items():
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            field = declared.field.add(name=name, number=number, label=label)
            if kind.startswith("."):
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".caffe_for_tests{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
                field.options.packed = name in ("data", "dim")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe_for_tests.NetParameter"))


def network(layers, old=False):
    """The bytes of a .caffemodel.

    Args:
        layers: dict of layer's name → (type, list of float32 arrays).
        old: as Caffe wrote before 2015: the first generation of layers, shapes of four numbers.
    """
    net = _messages()(name="net")
    for name, (kind, arrays) in layers.items():
        layer = net.layers.add(name=name) if old else net.layer.add(name=name, type=kind)
        for array in arrays:
            blob = layer.blobs.add(data=array.ravel().tolist())
            if old:
                blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - array.ndim) + array.shape
            else:
                blob.shape.dim.extend(array.shape)
    return net.SerializeToString()
