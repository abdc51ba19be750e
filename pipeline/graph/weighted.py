"""Operators with weights: which they are, and where their output channels lie."""

from pipeline.graph.nouns import Node

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators with a weight as second input."""


def channel_axis(node: Node) -> int | None:
    """The axis of ``node``'s weight that counts its output channels; ``None`` when there is no such axis."""
    rank = len(node.required(1).dims)
    if node.op == "Conv":
        return 0
    if node.op == "ConvTranspose":
        return 1 if node.int("group", 1) == 1 else None
    if node.op == "Gemm":
        return 0 if node.int("transB", 0) else 1
    return 1 if rank == 2 else None
