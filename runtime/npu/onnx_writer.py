"""Write a small ONNX model as protobuf bytes, without the ``onnx`` package (the device side does not have it).

Field numbers are those of ``onnx.proto`` (IR version 9, opset 17); only what the fast path needs is here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

IR_VERSION = 9
OPSET = 17

ELEMENT_TYPES: Mapping[str, int] = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "float64": 11,
    "uint64": 13,
}
"""``TensorProto.DataType`` by numpy name."""

MICROSOFT = "com.microsoft"

Value = int | str | tuple[int, ...]


@dataclass(frozen=True)
class Port:
    """A model input or output: name, numpy type name, shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass
class Graph:
    """A graph under construction; names are unique within it."""

    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    _nodes: list[bytes] = field(default_factory=list)
    _constants: list[tuple[bytes, memoryview]] = field(default_factory=list)
    _names: int = 0

    def fresh(self) -> str:
        """A name that no other value has."""
        self._names += 1
        return f"v{self._names}"

    def node(
        self, operator: str, inputs: Sequence[str], output: str | None = None, domain: str = "", **attributes: Value
    ) -> str:
        """Append a node of ``domain``, by default ONNX's own; give its output's name (a fresh one unless given)."""
        name = output or self.fresh()
        body = b"".join(_text(1, item) for item in inputs) + _text(2, name) + _text(4, operator)
        body += b"".join(_message(5, _attribute(key, value)) for key, value in attributes.items())
        self._nodes.append(body + (_text(7, domain) if domain else b""))
        return name

    def constant(self, array: NDArray[np.generic]) -> str:
        """Add an initializer; give its name."""
        name = self.fresh()
        dims = b"".join(_number(1, size) for size in array.shape)
        little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        element = _number(2, ELEMENT_TYPES[array.dtype.name])
        head = dims + element + _text(8, name) + _head(9, little.nbytes)
        self._constants.append((_head(5, len(head) + little.nbytes) + head, little.reshape(-1).view(np.uint8).data))
        return name

    def model(self) -> bytes:
        """The ``ModelProto``; every constant is copied once."""
        graph = [
            *(_message(1, node) for node in self._nodes),
            _text(2, "program"),
            *(part for constant in self._constants for part in constant),
            *(_message(11, _port(port)) for port in self.inputs),
            *(_message(12, _port(port)) for port in self.outputs),
        ]
        sets = (_text(1, "") + _number(2, OPSET), _text(1, MICROSOFT) + _number(2, 1))
        head = _number(1, IR_VERSION) + _head(7, sum(map(len, graph)))
        return b"".join([head, *graph, *(_message(8, each) for each in sets)])


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(tag: int, value: int) -> bytes:
    return _varint(tag << 3) + _varint(value)


def _head(tag: int, size: int) -> bytes:
    """What stands before ``size`` bytes."""
    return _varint(tag << 3 | 2) + _varint(size)


def _bytes(tag: int, value: bytes) -> bytes:
    return _head(tag, len(value)) + value


_message = _bytes


def _text(tag: int, value: str) -> bytes:
    return _bytes(tag, value.encode())


def _attribute(name: str, value: Value) -> bytes:
    if isinstance(value, str):
        return _text(1, name) + _bytes(4, value.encode()) + _number(20, 3)
    if isinstance(value, int):
        return _text(1, name) + _number(3, value) + _number(20, 2)
    return _text(1, name) + b"".join(_number(8, item) for item in value) + _number(20, 7)


def _port(port: Port) -> bytes:
    shape = b"".join(_message(1, _number(1, size)) for size in port.shape)
    tensor = _number(1, ELEMENT_TYPES[port.dtype]) + _message(2, shape)
    return _text(1, port.name) + _message(2, _message(1, tensor))
