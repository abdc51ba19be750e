"""Reading a graph while matching: constants, shapes, attributes."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]


class Builder(Protocol):
    """The part of ``onnxscript.rewriter.RewriterContext`` that replacements use."""

    def op(self, op_type: str, /, *args: ir.Value | None, **attributes: object) -> ir.Value:
        """A new node's output; attributes by name."""

    def initializer(self, tensor: ir.TensorProtocol, name: str | None = None) -> ir.Value:
        """A new constant."""


def constant(value: ir.Value | None) -> Array | None:
    """The value of a constant; ``None`` for a computed tensor, and for an input of the model that has a default."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy())


def scalar(value: ir.Value | None) -> float | None:
    """The value of a constant with one element, else ``None``."""
    found = constant(value)
    return float(found.item()) if found is not None and found.size == 1 else None


def is_close(value: ir.Value | None, expected: float) -> bool:
    """Whether ``value`` is a constant with one element near ``expected`` (to 0.01 %)."""
    found = scalar(value)
    return found is not None and abs(found - expected) <= 1e-4 * abs(expected)


def dims(value: ir.Value | None) -> tuple[int, ...]:
    """The static shape of ``value``; empty when it is not known, or a scalar."""
    if value is None or value.shape is None or not all(isinstance(d, int) for d in value.shape):
        return ()
    return tuple(int(d) for d in value.shape.numpy())


def given(node: ir.Node, index: int) -> ir.Value | None:
    """The input of ``node`` at ``index``, ``None`` where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def source(node: ir.Node) -> ir.Value:
    """The first input of ``node``, of an operator that always has one."""
    value = node.inputs[0]
    assert value is not None
    return value


def maker(value: ir.Value) -> ir.Node:
    """The node that computes ``value``, an output that a pattern matched."""
    node = value.producer()
    assert node is not None
    return node


def ints(node: ir.Node, name: str, default: Sequence[int]) -> tuple[int, ...]:
    """An integer-list attribute, or ``default``."""
    return tuple(node.attributes.get_ints(name) or default)


def opset(node: ir.Node) -> int:
    """The version of the standard operator set that ``node`` is written in."""
    graph = node.graph
    return 0 if graph is None else graph.opset_imports.get("", graph.opset_imports.get("ai.onnx", 0))


def window(node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Kernel, strides and pads of a two-dimensional pooling node (pads: top, left, bottom, right)."""
    return ints(node, "kernel_shape", ()), ints(node, "strides", (1, 1)), ints(node, "pads", (0, 0, 0, 0))


def is_plain_window(node: ir.Node) -> bool:
    """Whether a pooling or convolution pads as its ``pads`` say, rounds down, and skips no elements."""
    return (
        node.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and node.attributes.get_int("ceil_mode", 0) == 0
        and set(ints(node, "dilations", (1,))) == {1}
    )


def floats(op: Builder, values: object, name: str) -> ir.Value:
    """A new float32 constant; the driver makes ``name`` unique."""
    return op.initializer(ir.tensor(np.ascontiguousarray(values, np.float32)), name)


def integers(op: Builder, values: Sequence[int], name: str) -> ir.Value:
    """A new one-dimensional int64 constant; the driver makes ``name`` unique."""
    return op.initializer(ir.tensor(np.asarray(values, np.int64)), name)
