"""Which operators a device runs as one: an activation function is part of the operator before it."""

import numpy as np

from pipeline.graph.view import Graph, Node

FUSED_INTO = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul"})
"""Operators that clamp their output for free."""

ACTIVATIONS = frozenset({"Relu", "Clip"})
"""Activation functions that are a clamp."""


def fused_activation(graph: Graph, node: Node) -> Node | None:
    """The clamp that runs as part of ``node``: the only reader of its only output, which nobody else sees."""
    if not node.standard or node.op not in FUSED_INTO:
        return None
    output = node.outputs[0]
    readers = graph.consumers(output.name)
    if len(readers) != 1 or graph.is_output(output.name) or output.quantization is not None:
        return None
    clamp = readers[0]
    known = clamp.standard and clamp.op in ACTIVATIONS and [t.name for t in clamp.activations] == [output.name]
    return clamp if known else None


def fused_outputs(graph: Graph) -> frozenset[str]:
    """Names of the tensors that exist only inside a fused operator, so need no quantization of their own."""
    return frozenset(node.outputs[0].name for node in graph.nodes if fused_activation(graph, node) is not None)


def units(graph: Graph) -> tuple[tuple[Node, ...], ...]:
    """The operators in groups that must run on one device, in topological order: each with its fused clamp."""
    followers = {f.name for f in (fused_activation(graph, n) for n in graph.nodes) if f is not None}
    grouped = []
    for node in graph.nodes:
        if node.name not in followers:
            clamp = fused_activation(graph, node)
            grouped.append((node,) if clamp is None else (node, clamp))
    return tuple(grouped)


def clip_range(node: Node) -> tuple[float | None, float | None]:
    """Lower and upper limit of a Relu or Clip, ``None`` where it has none; opset 6 attributes included.

    Raises ``ModelError`` for a limit that is computed.
    """
    if node.op == "Relu":
        return 0.0, None
    return _limit(node, 1, "min"), _limit(node, 2, "max")


def _limit(node: Node, index: int, key: str) -> float | None:
    """One limit of a Clip, from its input or its attribute; the ends of float32 are no limit."""
    tensor = node.input(index)
    value = node.attributes.get(key) if tensor is None else np.ravel(tensor.real)[0]
    limit = None if value is None else float(value)  # type: ignore[arg-type]
    return None if limit is None or abs(limit) >= np.finfo(np.float32).max else limit
