"""The nouns of a graph: tensors with their quantization, operators, and the graph that joins them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError


@dataclass(frozen=True)
class Quantization:
    """How a tensor is quantized: ``real = scale * (q - zero_point)``.

    Attributes:
        scale: float32, 0-d per tensor or 1-d per channel.
        zero_point: of the integer type, the same shape as ``scale``.
        axis: the channel axis of a per-channel quantization, else ``None``.
        carrier: name of the ONNX value that holds the integers.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.generic]
    axis: int | None
    carrier: str

    @property
    def dtype(self) -> str:
        """The integer type, as numpy names it."""
        return str(self.zero_point.dtype)

    @property
    def per_channel(self) -> bool:
        """Whether there is one scale per channel."""
        return self.axis is not None

    def along(self, rank: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scale and zero point shaped to broadcast with a tensor of ``rank`` dimensions."""
        zero = self.zero_point.astype(np.int64)
        if self.axis is None:
            return self.scale, zero
        shape = [1] * rank
        shape[self.axis] = -1
        return self.scale.reshape(shape), zero.reshape(shape)

    def same(self, other: "Quantization") -> bool:
        """Whether ``other`` gives every integer the same meaning."""
        equal = np.array_equal(self.scale, other.scale) and np.array_equal(self.zero_point, other.zero_point)
        return equal and self.axis == other.axis and self.dtype == other.dtype


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph.

    Attributes:
        name: the ONNX value's name.
        shape: its dimensions, ``None`` for one that is not known; ``None`` in all when the rank is not known.
        dtype: numpy name of the real type, ``float32`` for a quantized tensor.
        constant: its value when it is one; the integers when it is quantized.
        quantization: how it is quantized, if it is.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str
    constant: NDArray[np.generic] | None = None
    quantization: Quantization | None = None

    @property
    def wire(self) -> str:
        """The name of the ONNX value that crosses between devices: the integers of a quantized tensor, else itself."""
        return self.name if self.quantization is None else self.quantization.carrier

    @property
    def real(self) -> NDArray[np.generic]:
        """The constant's real value; raises ``ModelError`` when the tensor is not constant."""
        if self.constant is None:
            raise ModelError("is not a constant", where=self.name)
        if self.quantization is None:
            return self.constant
        return dequantize(self.constant, self.quantization)

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape with every dimension known; raises ``ModelError`` otherwise."""
        if self.shape is None or any(d is None for d in self.shape):
            raise ModelError(f"has no static shape: {self.shape}", where=self.name, fix="export with fixed input sizes")
        return tuple(d for d in self.shape if d is not None)


@dataclass(frozen=True)
class Node:
    """An operator.

    Attributes:
        name: unique in the graph.
        op: ONNX operator type.
        domain: ONNX domain, ``""`` for the standard one.
        inputs: its input tensors in order, ``None`` for an omitted optional one.
        outputs: its output tensors in order.
        attributes: plain Python and numpy values by name.
    """

    name: str
    op: str
    domain: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    attributes: Mapping[str, object] = field(default_factory=dict)

    @property
    def standard(self) -> bool:
        """Whether the operator is one of ONNX's own."""
        return self.domain in ("", "ai.onnx")

    @property
    def activations(self) -> tuple[Tensor, ...]:
        """The inputs that are computed at run time."""
        return tuple(t for t in self.inputs if t is not None and t.constant is None)

    def input(self, index: int) -> Tensor | None:
        """The input at ``index``, or ``None`` when it is omitted."""
        return self.inputs[index] if index < len(self.inputs) else None

    def required(self, index: int) -> Tensor:
        """The input at ``index``; raises ``ModelError`` when it is omitted."""
        tensor = self.input(index)
        if tensor is None:
            raise ModelError(f"{self.op} has no input {index}", where=self.name)
        return tensor

    def ints(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """An integer-list attribute, or ``default``."""
        value = self.attributes.get(name, default)
        return tuple(int(v) for v in value)  # type: ignore[attr-defined]

    def int(self, name: str, default: int) -> int:
        """An integer attribute, or ``default``."""
        return int(self.attributes.get(name, default))  # type: ignore[call-overload, no-any-return]

    def text(self, name: str, default: str) -> str:
        """A string attribute, or ``default``."""
        return str(self.attributes.get(name, default))


@dataclass(frozen=True)
class Graph:
    """A model's operators in topological order.

    Attributes:
        nodes: the operators.
        inputs: the model's inputs.
        outputs: the tensors that leave the model; a quantized one is named before its quantize/dequantize pair.
        output_names: what the model calls its outputs, in the same order.
        opset: version of the standard operator set.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    output_names: tuple[str, ...]
    opset: int
    _producers: Mapping[str, Node] = field(init=False, repr=False)
    _consumers: Mapping[str, tuple[Node, ...]] = field(init=False, repr=False)
    _ends: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Index who makes and who reads each tensor."""
        producers = {t.name: node for node in self.nodes for t in node.outputs}
        consumers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(t.name for t in node.activations):
                consumers.setdefault(name, []).append(node)
        object.__setattr__(self, "_producers", producers)
        object.__setattr__(self, "_consumers", {name: tuple(nodes) for name, nodes in consumers.items()})
        object.__setattr__(self, "_ends", frozenset(t.name for t in self.outputs))

    def producer(self, tensor: str) -> Node | None:
        """The node that computes ``tensor``; ``None`` for an input of the graph."""
        return self._producers.get(tensor)

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """The nodes that read ``tensor``."""
        return self._consumers.get(tensor, ())

    def predecessors(self, node: Node) -> tuple[Node, ...]:
        """The nodes whose outputs ``node`` reads."""
        found = (self.producer(t.name) for t in node.activations)
        return tuple(p for p in found if p is not None)

    def is_output(self, tensor: str) -> bool:
        """Whether ``tensor`` leaves the graph."""
        return tensor in self._ends


def dequantize(values: NDArray[np.generic], quantization: Quantization) -> NDArray[np.float32]:
    """Real values of the integers ``values``, as float32."""
    scale, zero = quantization.along(values.ndim)
    return ((values.astype(np.int64) - zero) * scale).astype(np.float32)
