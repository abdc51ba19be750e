"""Just enough of the protobuf wire format to see whether an ONNX model points at files outside itself.

ONNX Runtime would open such files relative to the current folder. Field numbers: onnx/onnx.proto3; wire format:
https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from runtime.errors import BundleError

TENSOR, SPARSE, GRAPH, NODE, ATTRIBUTE, FUNCTION, MODEL = (
    "tensor",
    "sparse",
    "graph",
    "node",
    "attribute",
    "function",
    "model",
)

MESSAGES: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        MODEL: {7: GRAPH, 25: FUNCTION},
        GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
        FUNCTION: {7: NODE, 11: ATTRIBUTE},
        NODE: {5: ATTRIBUTE},
        ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
        SPARSE: {1: TENSOR, 2: TENSOR},
        TENSOR: {},
    }
)
"""Which fields of which message lead to a tensor."""

EXTERNAL_DATA, DATA_LOCATION = 13, 14


def refuse_external_data(model: bytes, where: object) -> None:
    """Accept only a model that carries all of its numbers.

    Args:
        model: a serialized ``ModelProto``.
        where: named in errors.

    Raises:
        BundleError: a tensor is stored in another file, or ``model`` is not protobuf.
    """
    pending = [(MODEL, memoryview(model))]
    while pending:
        kind, message = pending.pop()
        for field, value in _fields(message, where):
            if kind == TENSOR and (field == EXTERNAL_DATA or (field == DATA_LOCATION and value != 0)):
                raise BundleError("keeps a tensor in another file", where=where, fix="store it in the model")
            inner = MESSAGES[kind].get(field)
            if inner is not None and isinstance(value, memoryview):
                pending.append((inner, value))


def _fields(message: memoryview, where: object) -> Iterator[tuple[int, memoryview | int]]:
    """Field number and value of every field: bytes for length-delimited ones, else a number (0 for fixed ones)."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position, where)
        field, wire = tag >> 3, tag & 7
        value: memoryview | int = 0
        if wire == 0:
            value, position = _varint(message, position, where)
        elif wire == 2:
            length, position = _varint(message, position, where)
            value = message[position : position + length]
            position += length
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        else:
            raise BundleError("is not an ONNX model", where=where)
        if position > len(message):
            raise BundleError("is not an ONNX model, or is truncated", where=where)
        yield field, value


def _varint(message: memoryview, position: int, where: object) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise BundleError("is not an ONNX model, or is truncated", where=where)
