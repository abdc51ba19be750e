"""What an ONNX model may hold, checked in its bytes before ONNX Runtime sees them.

ONNX Runtime would open files that a model names, unroll functions that call each other, and take the memory that a
shape asks for. Field numbers: onnx/onnx.proto3; wire format: https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from runtime.errors import BundleError
from runtime.limits import LIMITS, Limits
from runtime.operators import OPERATORS

MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR, SPARSE = "model", "graph", "node", "attribute", "tensor", "sparse"
VALUE, TYPE, TENSOR_TYPE, SHAPE, DIMENSION, WRAPPED = "value", "type", "tensor type", "shape", "dimension", "wrapped"

MESSAGES: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        MODEL: {7: GRAPH},
        GRAPH: {1: NODE, 5: TENSOR, 11: VALUE, 12: VALUE, 13: VALUE, 15: SPARSE},
        NODE: {5: ATTRIBUTE},
        ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 14: TYPE, 15: TYPE, 22: SPARSE, 23: SPARSE},
        SPARSE: {1: TENSOR, 2: TENSOR},
        TENSOR: {},
        VALUE: {2: TYPE},
        TYPE: {1: TENSOR_TYPE, 4: WRAPPED, 8: TENSOR_TYPE, 9: WRAPPED},
        WRAPPED: {1: TYPE},
        TENSOR_TYPE: {2: SHAPE},
        SHAPE: {1: DIMENSION},
        DIMENSION: {},
    }
)
"""Which fields of which message lead to another one."""

_DIMS: Mapping[str, int] = MappingProxyType({TENSOR: 1, SPARSE: 3})
"""The field that holds the sizes of a tensor."""

_FUNCTIONS, _OP_TYPE, _DOMAIN, _EXTERNAL_DATA, _DATA_LOCATION = 25, 4, 7, 13, 14
_LARGEST = 1 << 63

Field = tuple[int, memoryview | int]


def screen(model: bytes, where: object, limits: Limits = LIMITS) -> None:
    """Accept only a model that carries all of its numbers, uses known operators, and asks for bounded memory.

    Memory that only shows when the model runs is bounded there (``runtime.delegates.ort``).

    Args:
        model: a serialized ``ModelProto``.
        where: named in errors.
        limits: how many nodes, fields and elements are accepted.

    Raises:
        LimitError: too many fields, nodes, nested graphs, dimensions or elements of a tensor.
        BundleError: a tensor is stored in another file, an operator or a domain is unknown, there are functions, or
            ``model`` is not protobuf.
    """
    fields = nodes = 0
    pending = [(MODEL, memoryview(model), 0)]
    while pending:
        kind, message, depth = pending.pop()
        depth += kind in (GRAPH, WRAPPED)
        limits.hold("model_depth", depth, "has graphs or types too deep inside each other", where)
        nodes += kind == NODE
        limits.hold("model_nodes", nodes, "has too many nodes", where)
        found: list[Field] = []
        for field, value in _fields(message, where):
            fields += 1
            limits.hold("model_fields", fields, "has too many fields", where)
            inner = MESSAGES[kind].get(field)
            if inner is not None and isinstance(value, memoryview) and kind != SHAPE:
                pending.append((inner, value, depth))
            elif field != _DIMS.get(kind) or len(found) <= limits.tensor_rank:
                found.append((field, value))
        _check(kind, found, where, limits)


def _check(kind: str, found: list[Field], where: object, limits: Limits) -> None:
    """Hold the fields of one message against what is accepted; ``found`` lacks those that lead to other messages."""
    if kind == NODE:
        _check_operator(_text(found, _DOMAIN), _text(found, _OP_TYPE), where)
    elif kind in _DIMS:
        if kind == TENSOR and any(f == _EXTERNAL_DATA or (f == _DATA_LOCATION and v != 0) for f, v in found):
            raise BundleError("keeps a tensor in another file", where=where, fix="store it in the model")
        _check_shape(_numbers(found, _DIMS[kind], where, limits), where, limits)
    elif kind == SHAPE:
        sizes = [_dimension(value, where) for field, value in found if field == 1 and isinstance(value, memoryview)]
        _check_shape(sizes, where, limits)
    elif kind == MODEL and any(field == _FUNCTIONS for field, _ in found):
        raise BundleError("has functions of its own", where=where, fix="inline them before packaging")


def _check_operator(domain: str, name: str, where: object) -> None:
    if domain not in OPERATORS:
        known = ", ".join(repr(each) for each in OPERATORS)
        raise BundleError(f"uses operators of domain {domain[:80]!r}, not one of {known}", where=where)
    if name not in OPERATORS[domain]:
        of = f" of domain {domain}" if domain else ""
        raise BundleError(f"uses the operator {name[:80]!r}{of}, which this runtime does not know", where=where)


def _check_shape(sizes: list[int], where: object, limits: Limits) -> None:
    limits.hold("tensor_rank", len(sizes), "has a tensor with too many dimensions", where)
    elements = 1
    for size in sizes:
        if size >= _LARGEST:
            raise BundleError("has a tensor with a negative size", where=where)
        elements *= max(1, size)
    limits.hold("tensor_elements", elements, f"has a tensor of shape {sizes}", where)


def _dimension(message: memoryview, where: object) -> int:
    """The size that a ``TensorShapeProto.Dimension`` has; 1 where it has a name instead."""
    return next((v for field, v in _fields(message, where) if field == 1 and isinstance(v, int)), 1)


def _numbers(found: list[Field], field: int, where: object, limits: Limits) -> list[int]:
    """The integers of a repeated field, packed or not; a few more than the limit of dimensions at most."""
    numbers: list[int] = []
    for name, value in found:
        if name != field:
            continue
        if isinstance(value, int):
            numbers.append(value)
            continue
        position = 0
        while position < len(value) and len(numbers) <= limits.tensor_rank:
            number, position = _varint(value, position, where)
            numbers.append(number)
    return numbers


def _text(found: list[Field], field: int) -> str:
    """The last value of a string field, as protobuf takes it; empty when it is not there."""
    values = [bytes(value[:200]) for name, value in found if name == field and isinstance(value, memoryview)]
    return values[-1].decode("utf-8", "backslashreplace") if values else ""


def _fields(message: memoryview, where: object) -> Iterator[Field]:
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
