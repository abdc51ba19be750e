"""A graph under construction, and the two forms that a tensor can have in it.

Raw: the integers; int8 ones as uint8, 128 higher, where the builder says so. Centred: float32 of ``q - z``, which is
exact. Each form is made from the other when a lowering asks for it, once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from runtime.npu.kernels import Operation
from runtime.npu.onnx_writer import ELEMENT_TYPES, Graph
from runtime.npu.onnx_writer import Value as Attribute
from runtime.tensors import TensorSpec

Range = tuple[int, int]
"""Smallest and largest centred value that a tensor can take."""


@dataclass
class Value:
    """A tensor in the graph.

    Attributes:
        spec: its type, shape and quantization.
        range: the centred values it can take.
        raw: name of its integers, when they exist.
        centred: name of its centred float32 form, when that exists.
        halves: names of its high and low half, see ``runtime.npu.lowering.wide``, when they exist.
    """

    spec: TensorSpec
    range: Range
    raw: str | None = None
    centred: str | None = None
    halves: tuple[str, str] | None = None

    @property
    def zero(self) -> int:
        """Its zero point."""
        return self.spec.zero_point or 0


@dataclass
class Builder:
    """The graph, and what this host's integer kernels can be trusted with (see ``runtime.npu.lowering.host``).

    Attributes:
        integer_kernels: whether their sums of products are exact.
        unsigned: whether they are sooner on uint8, so that int8 tensors are held 128 higher.
        graph: under construction.
    """

    integer_kernels: bool
    unsigned: bool
    graph: Graph = field(default_factory=Graph)

    def node(self, operator: str, inputs: Sequence[str], domain: str = "", **attributes: Attribute) -> str:
        """Append a node; give the name of its output."""
        return self.graph.node(operator, inputs, None, domain, **attributes)

    def constant(self, array: NDArray[np.generic]) -> str:
        """Add an initializer; give its name."""
        return self.graph.constant(array)

    def single(self, value: float | np.float32) -> str:
        """A float32 scalar."""
        return self.graph.constant(np.array(value, np.float32))

    def held_as(self, dtype: str) -> tuple[str, int]:
        """The type in which raw activations of ``dtype`` are held, and how much higher."""
        return ("uint8", 128) if self.unsigned and dtype == "int8" else (dtype, 0)

    def level(self, value: int, dtype: str) -> str:
        """The integer ``value`` of an activation of ``dtype``, as it is held."""
        held, higher = self.held_as(dtype)
        return self.graph.constant(np.array(value + higher, held))

    def zero(self, spec: TensorSpec) -> str:
        """A tensor's zero point, as it is held."""
        return self.level(spec.zero_point or 0, spec.dtype)

    def cast(self, x: str, dtype: str) -> str:
        """``x`` as another type."""
        return self.graph.node("Cast", [x], to=ELEMENT_TYPES[dtype])

    def raw(self, value: Value) -> str:
        """The integers of ``value``."""
        if value.raw is None:
            held, higher = self.held_as(value.spec.dtype)
            value.raw = self.cast(self._plus(self.centred(value), value.zero + higher), held)
        return value.raw

    def centred(self, value: Value) -> str:
        """The centred float32 form of ``value``."""
        if value.centred is None:
            assert value.raw is not None
            higher = self.held_as(value.spec.dtype)[1]
            value.centred = self._plus(self.cast(value.raw, "float32"), -value.zero - higher)
        return value.centred

    def _plus(self, x: str, offset: int) -> str:
        return self.node("Add", [x, self.single(offset)]) if offset else x


def output_range(operation: Operation, inputs: tuple[Range, ...]) -> Range:
    """Centred values that the output can take."""
    low, high = operation.bounds()
    if operation.instruction.opcode in COPIES:
        return min(low for low, _ in inputs), max(high for _, high in inputs)
    zero = operation.output_zero()
    return low - zero, high - zero


COPIES = frozenset(
    {
        "max_pool", "average_pool", "resize_nearest", "resize_linear", "concat", "reshape", "transpose", "slice",
        "depth_to_space", "space_to_depth", "maximum", "minimum", "reduce_max", "reduce_min",
    }
)  # fmt: skip
"""Opcodes whose output lies between the smallest and the largest input."""
