"""Checking a model that rules read or have rewritten, without moving its weights about."""

import onnx
from google.protobuf.message import Message
from onnx import helper

from pipeline.graph.model import check

HEAVY = 1024
"""Elements from which on a float32 constant is kept out of ONNX's checker and shape inference, which ask its shape."""


def checked(model: onnx.ModelProto, where: object) -> onnx.ModelProto:
    """A copy of ``model`` with shapes and names, as ``pipeline.graph.model.check`` makes it, in a fraction of the time.

    Raises:
        ModelError: the checker or the shape inference refuses the model.
    """
    known = {v.name for v in model.graph.input}
    heavy = {t.name: t for t in model.graph.initializer if _is_heavy(t) and t.name not in known}
    light = onnx.ModelProto()
    _copy(model, light, "graph")
    _copy(model.graph, light.graph, "initializer")
    light.graph.initializer.extend(t for t in model.graph.initializer if t.name not in heavy)
    light.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in heavy.values())
    result = check(light, where)
    del result.graph.input[len(model.graph.input) :]
    result.graph.initializer.extend(heavy.values())
    return result


def _is_heavy(tensor: onnx.TensorProto) -> bool:
    size = 1
    for dimension in tensor.dims:
        size *= dimension
    return tensor.data_type == onnx.TensorProto.FLOAT and size > HEAVY


def _copy(source: Message, target: Message, but: str) -> None:
    """Every field of ``source`` into the empty ``target``, except ``but``."""
    for field, value in source.ListFields():
        if field.name == but:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        else:
            setattr(target, field.name, value)
