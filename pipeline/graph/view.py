"""A read-only view of an ONNX model: operators and tensors, with quantization as a property of a tensor.

QuantizeLinear/DequantizeLinear pairs, Constant nodes and what computes from constants alone are not operators here: a
pair becomes the quantization of the tensor it stands on, a constant becomes the tensor's value. So a float model and
its quantized form have the same operators, and rules, partitioner and compiler read both in the same way.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.graph.constants import computed
from pipeline.graph.nouns import Graph, Node, Quantization, Tensor, dequantize
from pipeline.graph.tidy import QDQ_DOMAINS

__all__ = ["Graph", "Node", "Quantization", "Tensor", "dequantize", "view"]

Array = NDArray[np.generic]

DTYPES: Mapping[ir.DataType, str] = MappingProxyType(
    {kind: str(kind.numpy()) for kind in ir.DataType if kind != ir.DataType.UNDEFINED}
)
"""What numpy calls ONNX's element types."""

GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def view(model: onnx.ModelProto, folder: Path | None = None) -> Graph:
    """The view of ``model``; shapes are those the model carries (see ``pipeline.graph.opening.open_model``).

    Operators whose results reach no output of the model are left out. A QuantizeLinear or DequantizeLinear stays an
    operator where it is no property of a tensor: something reads or writes its integers as such, its numbers are
    computed or for blocks, or the tensor is also read as it is or quantized in another way; then what it makes is a
    quantized tensor of its own. A node with a nested graph (If, Loop, Scan) is one operator, which reads all that its
    graphs take from around it, after its own inputs.

    Args:
        model: its nodes in topological order.
        folder: where weights lie that the model keeps in other files.

    Raises:
        ModelError: the model holds what cannot be read, its operators are not in topological order, or a scale is not
            a number above 0.
    """
    try:
        read = ir.from_proto(model)
    except ir.serde.SerdeError as error:
        cause = " ".join(str(_root(error)).split())
        raise ModelError(f"holds what cannot be read: {cause}", where=model.graph.name or "model") from error
    if folder is not None:
        ir.external_data.set_base_dir(read.graph, str(folder.resolve()))
    return _Builder(read).build()


def _root(error: BaseException) -> BaseException:
    """The first cause of ``error``."""
    return error if error.__cause__ is None else _root(error.__cause__)


class _Builder:
    """Collects tensors by value name while walking the nodes once."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.opset = int(model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0)))
        self.nodes = _live(model.graph)
        self.inputs = {str(v.name) for v in model.graph.inputs}
        self.outputs = {str(v.name) for v in model.graph.outputs}
        self.constants: dict[str, Array] = {
            name: value.const_value.numpy()
            for name, value in model.graph.initializers.items()
            if value.const_value is not None
        }
        self.readers: dict[str, list[tuple[ir.Node, int]]] = {}
        for node in self.nodes:
            for index, value in enumerate(_reads(node)):
                if value is not None:
                    self.readers.setdefault(str(value.name), []).append((node, index))
        self.quantized: dict[str, Tensor] = {}  # by the name of the integer value (the carrier)
        self.seen: dict[str, Tensor] = {}  # by the name of the real value

    def build(self) -> Graph:
        graph = self.model.graph
        operators = [(index, node) for index, node in self._ordered() if not self._absorb(node)]
        # Whether a tensor is quantized is only known once its QuantizeLinear was met, hence nodes come second.
        nodes = tuple(self._node(index, node) for index, node in operators)
        inputs = tuple(self._end(v) for v in graph.inputs if v.name not in self.constants)
        outputs = tuple(self._end(v) for v in graph.outputs)
        names = tuple(str(v.name) for v in graph.outputs)
        return Graph(nodes, inputs, outputs, names, self.opset)

    def _ordered(self) -> Iterator[tuple[int, ir.Node]]:
        """The nodes with their position, after a look at what they read."""
        known = self.inputs | self.constants.keys()
        for index, node in enumerate(self.nodes):
            missing = next((str(v.name) for v in _reads(node) if v is not None and v.name not in known), None)
            if missing is not None:
                where = node.name or f"{node.op_type}_{index}"
                raise ModelError(f"reads {missing} before it is computed", where=where, fix="sort the nodes")
            known |= {str(v.name) for v in node.outputs}
            yield index, node

    def tensor(self, value: ir.Value) -> Tensor:
        name = str(value.name)
        if name not in self.seen:
            shape = None if value.shape is None else tuple(d if isinstance(d, int) else None for d in value.shape)
            constant = self.constants.get(name)
            if constant is not None:
                shape = constant.shape
            dtype = "float32" if value.dtype is None else DTYPES[value.dtype]
            self.seen[name] = Tensor(name, shape, dtype if constant is None else str(constant.dtype), constant)
        return self.seen[name]

    def _end(self, value: ir.Value) -> Tensor:
        """An input or output of the model; the quantized tensor where it is the integers of one."""
        return self.quantized.get(str(value.name)) or self.tensor(value)

    def _absorb(self, node: ir.Node) -> bool:
        """Take ``node`` into the tensors if it is no operator here."""
        if node.op_type == "Constant" and node.domain in QDQ_DOMAINS:
            self.constants[str(node.outputs[0].name)] = _constant(node)
            return True
        if node.op_type == "QuantizeLinear" and node.domain in QDQ_DOMAINS:
            return self._quantize(node)
        if node.op_type == "DequantizeLinear" and node.domain in QDQ_DOMAINS:
            return self._dequantize(node)
        return node.domain in ("", "ai.onnx") and self._fold(node)

    def _fold(self, node: ir.Node) -> bool:
        """Take the value of ``node`` when it computes from constants alone; the shape of a tensor is one."""
        if node.op_type == "Shape" and not node.attributes:
            shape = self.tensor(_given(node)).shape
            if shape is None or any(d is None for d in shape) or _given(node).name in self.constants:
                return False
            self.constants[str(node.outputs[0].name)] = np.array(shape, np.int64)
            return True
        names = [None if v is None else str(v.name) for v in _reads(node)]
        if not names or any(n is not None and n not in self.constants for n in names):
            return False
        value = computed(node, [None if n is None else self.constants[n] for n in names], self.opset)
        if value is None:
            return False
        self.constants[str(node.outputs[0].name)] = value
        return True

    def _is_pair(self, carrier: str, quantization: Quantization) -> bool:
        """Whether the integers ``carrier`` are only read to be dequantized, all with the same numbers."""
        for node, index in self.readers.get(carrier, ()):
            if node.op_type != "DequantizeLinear" or node.domain not in QDQ_DOMAINS or index != 0:
                return False
            other = self._quantization(node, carrier)
            if other is None or not other.same(quantization):
                return False
        return True

    def _quantize(self, node: ir.Node) -> bool:
        source, carrier = self.tensor(_given(node)), str(node.outputs[0].name)
        quantization = self._quantization(node, carrier)
        if quantization is None or not self._is_pair(carrier, quantization):
            return False
        if source.constant is not None:
            if source.quantization is not None or not np.isfinite(source.constant).all():
                return False
            constant = quantize(source.constant, quantization)
            self.quantized[carrier] = replace(source, constant=constant, quantization=quantization)
            return True
        alone = len(self.readers[str(_given(node).name)]) == 1 and source.name not in self.outputs
        if source.quantization is None and alone:
            self.quantized[carrier] = self.seen[source.name] = replace(source, quantization=quantization)
            return True
        # The tensor is also something else, so its quantized form is another tensor, which this node makes.
        made = Tensor(carrier, source.shape, "float32", None, quantization)
        self.quantized[carrier] = self.seen[carrier] = made
        return False

    def _dequantize(self, node: ir.Node) -> bool:
        source = _given(node)
        carrier, real = str(source.name), str(node.outputs[0].name)
        known = self.quantized.get(carrier)
        if known is not None:
            self.seen[real] = known
            return True
        quantization = self._quantization(node, carrier)
        constant = carrier in self.constants
        if quantization is None or not (constant or (carrier in self.inputs and self._is_pair(carrier, quantization))):
            return False
        made = replace(self.tensor(source), name=real, dtype="float32", quantization=quantization)
        if not constant:
            self.quantized[carrier] = made
        self.seen[real] = made
        return True

    def _quantization(self, node: ir.Node, carrier: str) -> Quantization | None:
        """What ``node`` says; ``None`` when it is computed, for blocks, or to another type than integers."""
        given, zero = self._parameter(node, 1), self._parameter(node, 2)
        if given is None or (zero is None and len(node.inputs) > 2 and node.inputs[2] is not None):
            return None
        scale: NDArray[np.float32] = given.astype(np.float32)
        zero = np.zeros(scale.shape, self._integers(node)) if zero is None else zero
        where = node.name or carrier
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise ModelError(f"has a scale of {float(scale.min())}", where=where, fix="scales must be above 0")
        blocked = "block_size" in node.attributes and node.attributes["block_size"].as_int() != 0
        if scale.ndim > 1 or blocked or scale.size != zero.size or "int" not in str(zero.dtype):
            return None
        if scale.size == 1:
            return Quantization(scale.reshape(()), zero.reshape(()), None, carrier)
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
        return Quantization(scale, zero, _channel_axis(axis, _given(node).shape, scale.size, where), carrier)

    def _integers(self, node: ir.Node) -> np.dtype[Any]:
        """The integer type of a quantization without a zero point."""
        value = node.outputs[0] if node.op_type == "QuantizeLinear" else _given(node)
        if str(value.name) in self.constants:
            return self.constants[str(value.name)].dtype
        stated = node.attributes["output_dtype"].as_int() if "output_dtype" in node.attributes else 0
        kind = ir.DataType(stated) if stated else value.dtype
        return np.dtype(np.uint8) if kind is None else np.dtype(kind.numpy())

    def _parameter(self, node: ir.Node, index: int) -> Array | None:
        """The constant that is the input ``index`` of ``node``; ``None`` when it is computed or not there."""
        value = node.inputs[index] if index < len(node.inputs) else None
        return None if value is None else self.constants.get(str(value.name))

    def _node(self, index: int, node: ir.Node) -> Node:
        inputs = tuple(None if v is None else self.tensor(v) for v in _reads(node))
        outputs = tuple(self.tensor(v) for v in node.outputs if v.name)
        attributes = {key: _plain(a) for key, a in node.attributes.items() if a.type not in GRAPHS}
        return Node(node.name or f"{node.op_type}_{index}", node.op_type, node.domain, inputs, outputs, attributes)


def quantize(values: Array, quantization: Quantization) -> Array:
    """The integers of real ``values``, as ONNX's QuantizeLinear rounds: to the nearest, ties to even."""
    scale, zero = quantization.along(values.ndim)
    bits, signed = int("".join(c for c in quantization.dtype if c.isdigit())), quantization.dtype.startswith("i")
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    rounded = np.rint(values.astype(np.float32) / scale).astype(np.float64) + zero
    result: Array = np.clip(rounded, low, high).astype(quantization.zero_point.dtype)
    return result


def _channel_axis(axis: int, shape: ir.Shape | None, scales: int, where: str) -> int:
    """The axis from 0 that ``scales`` scales go along; raises ``ModelError`` when ``shape`` has no such axis."""
    if shape is None:
        return axis % scales
    if not -len(shape) <= axis < len(shape):
        fix = f"axis must lie from {-len(shape)} to {len(shape) - 1}"
        raise ModelError(f"quantizes along axis {axis} of {len(shape)} dimensions", where=where, fix=fix)
    size = shape[axis]
    if isinstance(size, int) and size != scales:
        fix = "give one scale per element of the axis"
        raise ModelError(f"has {scales} scales for the {size} elements of axis {axis}", where=where, fix=fix)
    return axis % len(shape)


def _live(graph: ir.Graph) -> list[ir.Node]:
    """The nodes that an output of ``graph`` depends on, in its order."""
    wanted: set[int] = set()
    waiting = [v.producer() for v in graph.outputs]
    while waiting:
        node = waiting.pop()
        if node is not None and id(node) not in wanted:
            wanted.add(id(node))
            waiting.extend(v.producer() for v in _reads(node) if v is not None)
    return [node for node in graph if id(node) in wanted]


def _reads(node: ir.Node) -> Sequence[ir.Value | None]:
    """The inputs of ``node``, then what graphs nested in it take from around it."""
    if not any(a.type in GRAPHS for a in node.attributes.values()):
        return node.inputs
    inner = [n for a in node.attributes.values() if a.type in GRAPHS for n in _inner(a)]
    made = {id(v) for n in inner for v in n.outputs}
    graphs = [g for n in (node, *inner) for a in n.attributes.values() if a.type in GRAPHS for g in _graphs(a)]
    made |= {id(v) for g in graphs for v in (*g.inputs, *g.initializers.values())}
    taken = [v for n in inner for v in n.inputs if v is not None] + [v for g in graphs for v in g.outputs]
    captured = {id(v): v for v in taken if id(v) not in made}
    own = {id(v) for v in node.inputs}
    return (*node.inputs, *(v for key, v in captured.items() if key not in own))


def _graphs(attribute: ir.Attr) -> Sequence[ir.Graph]:
    return [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else attribute.as_graphs()


def _inner(attribute: ir.Attr) -> Iterator[ir.Node]:
    """Every node of the graphs in ``attribute``, those nested deeper included."""
    for graph in _graphs(attribute):
        yield from ir.traversal.RecursiveGraphIterator(graph)


def _constant(node: ir.Node) -> Array:
    """The value of a Constant in any of its forms."""
    (attribute,) = node.attributes.values()
    if attribute.type == ir.AttributeType.TENSOR:
        value: Array = attribute.as_tensor().numpy()
        return value
    dtypes = {
        ir.AttributeType.FLOAT: np.float32,
        ir.AttributeType.FLOATS: np.float32,
        ir.AttributeType.INT: np.int64,
        ir.AttributeType.INTS: np.int64,
    }
    if attribute.type not in dtypes:
        raise ModelError(f"is a {attribute.name}", where=node.name or node.outputs[0].name, fix="use a dense tensor")
    return np.asarray(attribute.value, dtypes[attribute.type])


def _given(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise ModelError(f"{node.op_type} has no input", where=node.name)
    return value


def _plain(attribute: ir.Attr) -> object:
    return attribute.as_tensor().numpy() if attribute.type == ir.AttributeType.TENSOR else attribute.value
