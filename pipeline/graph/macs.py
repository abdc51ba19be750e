"""Multiply-accumulates of one operator."""

import math

from pipeline.graph.view import Node


def macs(node: Node) -> int:
    """Multiply-accumulates of one inference of ``node``; 0 for operators that multiply no weights.

    Conv: output elements x input channels per group x kernel elements. Gemm, MatMul: output elements x inner size.
    Raises ``ModelError`` when a shape that it needs is not static.
    """
    if node.op == "Conv":
        return math.prod(node.outputs[0].dims) * math.prod(node.required(1).dims[1:])
    if node.op == "ConvTranspose":
        return math.prod(node.required(0).dims) * math.prod(node.required(1).dims[1:])
    if node.op in ("Gemm", "MatMul"):
        inner = node.required(0).dims[0 if node.op == "Gemm" and node.int("transA", 0) else -1]
        return math.prod(node.outputs[0].dims) * inner
    return 0
