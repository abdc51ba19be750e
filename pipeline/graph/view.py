"""A read-only view of an ONNX model: operators and tensors, with quantization as a property of a tensor.

QuantizeLinear/DequantizeLinear pairs and Constant nodes are not operators here: a pair becomes the quantization of
the tensor it stands on, a Constant becomes the tensor's value. So a float model and its quantized form have the same
operators, and rules, partitioner and compiler read both in the same way.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.graph.nouns import Graph, Node, Quantization, Tensor, dequantize

__all__ = ["Graph", "Node", "Quantization", "Tensor", "dequantize", "view"]

Array = NDArray[np.generic]


def view(model: onnx.ModelProto) -> Graph:
    """The view of ``model``; shapes are those the model carries (see ``pipeline.graph.model.load``).

    Operators whose results reach no output of the model are left out. A QuantizeLinear or DequantizeLinear that is
    no half of a pair on a tensor (something reads or writes its integers as such) stays an operator.

    Raises:
        ModelError: an operator holds a nested graph, the operators are not in topological order, or a tensor is
            quantized in a way that is no property of it: twice, with computed or impossible parameters, differently
            on the two halves of a pair, or only for some of its readers.
    """
    try:
        read = ir.from_proto(model)
    except ir.serde.SerdeError as error:
        cause = " ".join(str(_root(error)).split())
        raise ModelError(f"holds what cannot be read: {cause}", where=model.graph.name or "model") from error
    return _Builder(read).build()


def _root(error: BaseException) -> BaseException:
    """The first cause of ``error``."""
    return error if error.__cause__ is None else _root(error.__cause__)


class _Builder:
    """Collects tensors by value name while walking the nodes once."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
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
            for index, value in enumerate(node.inputs):
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
        opset = self.model.opset_imports.get("", self.model.opset_imports.get("ai.onnx", 0))
        return Graph(nodes, inputs, outputs, names, int(opset))

    def _ordered(self) -> Iterator[tuple[int, ir.Node]]:
        """The nodes with their position, after a look at what they read."""
        known = self.inputs | self.constants.keys()
        for index, node in enumerate(self.nodes):
            where = node.name or f"{node.op_type}_{index}"
            if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
                raise ModelError(f"{node.op_type} holds a nested graph", where=where, fix="export without control flow")
            missing = [str(v.name) for v in node.inputs if v is not None and v.name not in known]
            if missing:
                raise ModelError(f"reads {missing[0]} before it is computed", where=where, fix="sort the nodes")
            known |= {str(v.name) for v in node.outputs}
            yield index, node

    def tensor(self, value: ir.Value) -> Tensor:
        name = str(value.name)
        if name not in self.seen:
            shape = None if value.shape is None else tuple(d if isinstance(d, int) else None for d in value.shape)
            constant = self.constants.get(name)
            if constant is not None:
                shape = constant.shape
            dtype = "float32" if value.dtype is None else str(value.dtype.numpy())
            self.seen[name] = Tensor(name, shape, dtype if constant is None else str(constant.dtype), constant)
        return self.seen[name]

    def _end(self, value: ir.Value) -> Tensor:
        """An input or output of the model; the quantized tensor where it is the integers of one."""
        return self.quantized.get(str(value.name)) or self.tensor(value)

    def _absorb(self, node: ir.Node) -> bool:
        """Take ``node`` into the tensors if it is no operator here."""
        if node.op_type == "Constant":
            self.constants[str(node.outputs[0].name)] = _constant(node)
            return True
        if node.op_type == "QuantizeLinear" and self._is_pair(str(node.outputs[0].name)):
            self._quantize(node)
            return True
        if node.op_type == "DequantizeLinear":
            carrier = str(_given(node).name)
            entering = carrier in self.inputs and self._is_pair(carrier)
            if carrier in self.quantized or carrier in self.constants or entering:
                self._dequantize(node)
                return True
        return False

    def _is_pair(self, carrier: str) -> bool:
        """Whether the integers ``carrier`` are only read to be dequantized."""
        return all(n.op_type == "DequantizeLinear" and i == 0 for n, i in self.readers.get(carrier, ()))

    def _quantize(self, node: ir.Node) -> None:
        tensor = self.tensor(_given(node))
        carrier = str(node.outputs[0].name)
        quantization = self._quantization(node, carrier)
        if tensor.quantization is not None:
            raise ModelError("is quantized twice", where=tensor.name, fix="quantize each tensor once")
        others = [n for n, _ in self.readers[tensor.name] if n is not node]
        if tensor.constant is None and (others or tensor.name in self.outputs):
            raise ModelError(
                "is read both as it is and quantized", where=tensor.name, fix="let every reader take the quantized one"
            )
        constant = None if tensor.constant is None else quantize(tensor.constant, quantization)
        self.quantized[carrier] = replace(tensor, constant=constant, quantization=quantization)
        if constant is None:
            self.seen[tensor.name] = self.quantized[carrier]

    def _dequantize(self, node: ir.Node) -> None:
        source = _given(node)
        carrier, real = str(source.name), str(node.outputs[0].name)
        quantization = self._quantization(node, carrier)
        known = self.quantized.get(carrier)
        if known is None:
            known = replace(self.tensor(source), name=real, dtype="float32", quantization=quantization)
            if known.constant is None:
                self.quantized[carrier] = known
        elif known.quantization is None or not known.quantization.same(quantization):
            raise ModelError("is dequantized otherwise than it was quantized", where=known.name, fix="requantize it")
        self.seen[real] = known

    def _quantization(self, node: ir.Node, carrier: str) -> Quantization:
        scale = self._parameter(node, 1).astype(np.float32)
        has_zero = len(node.inputs) > 2 and node.inputs[2] is not None
        zero = self._parameter(node, 2) if has_zero else np.zeros(scale.shape, self._integers(node))
        where = node.name or carrier
        blocked = "block_size" in node.attributes and node.attributes["block_size"].as_int() != 0
        if scale.ndim > 1 or blocked or scale.shape != zero.shape:
            raise ModelError("is quantized in blocks", where=where, fix="quantize per tensor or per channel")
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise ModelError(f"has a scale of {float(scale.min())}", where=where, fix="scales must be above 0")
        if scale.size == 1:
            return Quantization(scale.reshape(()), zero.reshape(()), None, carrier)
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
        rank = len(_given(node).shape or scale.shape)
        return Quantization(scale, zero, axis % rank, carrier)

    def _integers(self, node: ir.Node) -> np.dtype[Any]:
        """The integer type of a quantization without a zero point."""
        value = node.outputs[0] if node.op_type == "QuantizeLinear" else _given(node)
        if str(value.name) in self.constants:
            return self.constants[str(value.name)].dtype
        stated = node.attributes["output_dtype"].as_int() if "output_dtype" in node.attributes else 0
        kind = ir.DataType(stated) if stated else value.dtype
        return np.dtype(np.uint8) if kind is None else np.dtype(kind.numpy())

    def _parameter(self, node: ir.Node, index: int) -> Array:
        value = node.inputs[index]
        name = "" if value is None else str(value.name)
        if name not in self.constants:
            raise ModelError(
                f"{node.op_type} takes its scale or zero point from a computed tensor",
                where=node.name or name,
                fix="quantize statically",
            )
        return self.constants[name]

    def _node(self, index: int, node: ir.Node) -> Node:
        inputs = tuple(None if v is None else self.tensor(v) for v in node.inputs)
        outputs = tuple(self.tensor(v) for v in node.outputs if v.name)
        attributes = {key: _plain(a) for key, a in node.attributes.items()}
        return Node(node.name or f"{node.op_type}_{index}", node.op_type, node.domain, inputs, outputs, attributes)


def quantize(values: Array, quantization: Quantization) -> Array:
    """The integers of real ``values``, as ONNX's QuantizeLinear rounds: to the nearest, ties to even."""
    scale, zero = quantization.along(values.ndim)
    limits = np.iinfo(quantization.dtype)
    rounded = np.rint(values.astype(np.float32) / scale).astype(np.float64) + zero
    result: Array = np.clip(rounded, limits.min, limits.max).astype(quantization.zero_point.dtype)
    return result


def _live(graph: ir.Graph) -> list[ir.Node]:
    """The nodes that an output of ``graph`` depends on, in its order."""
    wanted: set[int] = set()
    waiting = [v.producer() for v in graph.outputs]
    while waiting:
        node = waiting.pop()
        if node is not None and id(node) not in wanted:
            wanted.add(id(node))
            waiting.extend(v.producer() for v in node.inputs if v is not None)
    return [node for node in graph if id(node) in wanted]


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
