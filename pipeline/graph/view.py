"""A read-only view of an ONNX model: operators and tensors, with quantization as a property of a tensor.

QuantizeLinear/DequantizeLinear pairs and Constant nodes are not operators here: a pair becomes the quantization of
the tensor it stands on, a Constant becomes the tensor's value. So a float model and its quantized form have the same
operators, and rules, partitioner and compiler read both in the same way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
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

    def __post_init__(self) -> None:
        """Index who makes and who reads each tensor."""
        producers = {t.name: node for node in self.nodes for t in node.outputs}
        consumers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(t.name for t in node.activations):
                consumers.setdefault(name, []).append(node)
        object.__setattr__(self, "_producers", producers)
        object.__setattr__(self, "_consumers", {name: tuple(nodes) for name, nodes in consumers.items()})

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
        return any(t.name == tensor for t in self.outputs)


def dequantize(values: NDArray[np.generic], quantization: Quantization) -> NDArray[np.float32]:
    """Real values of the integers ``values``, as float32."""
    scale, zero = quantization.scale, quantization.zero_point.astype(np.int64)
    if quantization.axis is not None:
        along = [1] * values.ndim
        along[quantization.axis] = -1
        scale, zero = scale.reshape(along), zero.reshape(along)
    return ((values.astype(np.int64) - zero) * scale).astype(np.float32)


def view(model: onnx.ModelProto) -> Graph:
    """The view of ``model``; shapes are those the model carries (see ``pipeline.graph.model.load``).

    Raises:
        ModelError: a node lies in a nested graph or the nodes are not in topological order.
    """
    return _Builder(ir.from_proto(model)).build()


class _Builder:
    """Collects tensors by value name while walking the nodes once."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.constants: dict[str, NDArray[np.generic]] = {
            name: value.const_value.numpy()
            for name, value in model.graph.initializers.items()
            if value.const_value is not None
        }
        self.quantized: dict[str, Tensor] = {}  # by the name of the integer value (the carrier)
        self.seen: dict[str, Tensor] = {}  # by the name of the real value

    def build(self) -> Graph:
        graph = self.model.graph
        operators = []
        for index, node in enumerate(graph):
            for value in node.inputs:
                if value is not None:
                    self.tensor(value)
            if node.op_type == "Constant":
                self._constant(node)
            elif node.op_type == "QuantizeLinear":
                self._quantize(node)
            elif node.op_type == "DequantizeLinear":
                self._dequantize(node)
            else:
                operators.append((index, node))
        # Whether a tensor is quantized is only known once its QuantizeLinear was met, hence nodes come second.
        nodes = tuple(self._node(index, node) for index, node in operators)
        inputs = tuple(self.tensor(v) for v in graph.inputs if v.name not in self.constants)
        outputs = tuple(self.tensor(v) for v in graph.outputs)
        names = tuple(str(v.name) for v in graph.outputs)
        return Graph(nodes, inputs, outputs, names, self._opset())

    def _opset(self) -> int:
        return int(self.model.opset_imports.get("", 0))

    def tensor(self, value: ir.Value) -> Tensor:
        name = str(value.name)
        if name not in self.seen:
            shape = None if value.shape is None else tuple(d if isinstance(d, int) else None for d in value.shape)
            constant = self.constants.get(name)
            if constant is not None:
                shape = constant.shape
            dtype = "float32" if value.dtype is None else str(value.dtype.numpy())
            self.seen[name] = Tensor(name, shape, dtype, constant)
        return self.seen[name]

    def _constant(self, node: ir.Node) -> None:
        attribute = node.attributes.get("value")
        if attribute is None:
            value = next(iter(node.attributes.values())).value
            array = np.asarray(value)
        else:
            array = attribute.as_tensor().numpy()
        self.constants[str(node.outputs[0].name)] = array

    def _quantization(self, node: ir.Node, carrier: str, dtype: np.dtype[Any]) -> Quantization:
        scale = self._value(node, 1).astype(np.float32)
        has_zero = len(node.inputs) > 2 and node.inputs[2] is not None
        zero = self._value(node, 2) if has_zero else np.zeros(scale.shape, dtype)
        if scale.size == 1:
            return Quantization(scale.reshape(()), zero.reshape(()), None, carrier)
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
        return Quantization(scale, zero, axis, carrier)

    def _value(self, node: ir.Node, index: int) -> NDArray[np.generic]:
        value = node.inputs[index]
        name = "" if value is None else str(value.name)
        if name not in self.constants:
            raise ModelError(
                f"{node.op_type} takes its scale or zero point from a computed tensor",
                where=node.name or name,
                fix="quantize statically",
            )
        return self.constants[name]

    def _quantize(self, node: ir.Node) -> None:
        tensor = self.tensor(_given(node))
        carrier = str(node.outputs[0].name)
        quantization = self._quantization(node, carrier, np.dtype(np.uint8))
        self.seen[tensor.name] = self.quantized[carrier] = replace(tensor, quantization=quantization)

    def _dequantize(self, node: ir.Node) -> None:
        source = _given(node)
        carrier, real = str(source.name), str(node.outputs[0].name)
        if carrier in self.quantized:
            self.seen[real] = self.quantized[carrier]
            return
        tensor = self.tensor(source)
        quantization = self._quantization(node, carrier, np.dtype(tensor.dtype))
        self.seen[real] = replace(tensor, name=real, dtype="float32", quantization=quantization)

    def _node(self, index: int, node: ir.Node) -> Node:
        inputs = tuple(None if v is None else self.tensor(v) for v in node.inputs)
        outputs = tuple(self.tensor(v) for v in node.outputs)
        attributes = {key: _plain(a) for key, a in node.attributes.items()}
        return Node(node.name or f"{node.op_type}_{index}", node.op_type, node.domain, inputs, outputs, attributes)


def _given(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise ModelError(f"{node.op_type} has no input", where=node.name)
    return value


def _plain(attribute: ir.Attr) -> object:
    return attribute.as_tensor().numpy() if attribute.type == ir.AttributeType.TENSOR else attribute.value
