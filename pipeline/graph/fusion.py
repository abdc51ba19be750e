"""Which operators a device runs as one: an activation function is part of the operator before it."""

import numpy as np

from pipeline.graph.view import Graph, Node

FUSED_INTO = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul"})
"""Operators that clamp their output for free."""

ACTIVATIONS = frozenset({"Relu", "Clip"})
"""Activation functions that are a clamp."""


def fused_activation(graph: Graph, node: Node) -> Node | None:
    """The clamp that runs as part of ``node``: the only reader of its only output, which nobody else sees."""
    if node.op not in FUSED_INTO:
        return None
    output = node.outputs[0]
    readers = graph.consumers(output.name)
    if len(readers) != 1 or readers[0].op not in ACTIVATIONS or graph.is_output(output.name):
        return None
    return readers[0] if output.quantization is None else None


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
    """Lower and upper limit of a Relu or Clip, ``None`` where it has none; opset 6 attributes included."""
    if node.op == "Relu":
        return 0.0, None
    limits: list[float | None] = []
    for index, key in ((1, "min"), (2, "max")):
        tensor = node.input(index)
        if tensor is not None:
            limits.append(float(np.ravel(tensor.real)[0]))
        else:
            value = node.attributes.get(key)
            limits.append(None if value is None else float(value))  # type: ignore[arg-type]
    return limits[0], limits[1]
