"""Fallback closure: does the onnxruntime that runs the fallbacks have a kernel for each of them?"""

import re
from collections.abc import Iterable, Mapping

import onnx
import onnxruntime

from pipeline.compile.extract import Pieces
from pipeline.compile.partitions import Partition, onnx_model, partition
from pipeline.errors import ModelError
from pipeline.graph.nouns import Graph, Node, Tensor
from pipeline.graph.peer import refusal
from pipeline.targets.placement import CPU


def without_kernel(model: onnx.ModelProto, graph: Graph, names: Iterable[str]) -> Mapping[str, str]:
    """Of the operators ``names`` those that ONNX Runtime's CPU provider cannot run, each with the reason.

    The judge is a session on a model of the operator alone; operators that differ in nothing that chooses a kernel
    (type, attributes, element types, ranks, which inputs are constant) are asked once.

    Args:
        model: as opened (``pipeline.graph.opening``).
        graph: its view.
        names: of operators of the graph.
    """
    wanted = set(names)
    cutter = Pieces(model)
    known: dict[object, str | None] = {}
    found: dict[str, str] = {}
    for node in graph.nodes:
        if node.name in wanted:
            key = _signature(node)
            if key not in known:
                known[key] = _refusal(cutter, graph, node)
            cause = known[key]
            if cause is not None:
                found[node.name] = f"ONNX Runtime {onnxruntime.__version__} cannot run {node.op}: {cause}"
    return found


def require_kernels(model: onnx.ModelProto, graph: Graph, partitions: Iterable[Partition]) -> None:
    """Raise ``ModelError`` when the CPU partitions hold an operator that ONNX Runtime has no kernel for."""
    missing = without_kernel(model, graph, [n.name for p in partitions if p.device == CPU for n in p.nodes])
    if missing:
        name, fact = next(iter(missing.items()))
        more = f"; and {len(missing) - 1} more operators" if len(missing) > 1 else ""
        raise ModelError(f"is a fallback that cannot run: {fact}{more}", where=name, fix="replace the operator")


def _refusal(cutter: Pieces, graph: Graph, node: Node) -> str | None:
    try:
        model = onnx_model(cutter, partition(graph, (node,), CPU))
    except ModelError as error:
        return error.what
    cause = refusal(model.SerializeToString())
    return None if cause is None else re.sub(r" node with name '[^']*'", "", cause)


def _signature(node: Node) -> object:
    """What chooses the kernel of ``node``."""
    attributes = tuple(sorted((key, str(value)) for key, value in node.attributes.items()))
    inputs = tuple(_form(t) for t in node.inputs)
    nested = node.name if node.op in ("If", "Loop", "Scan") else ""
    return node.domain, node.op, nested, attributes, inputs, tuple(_form(t) for t in node.outputs)


def _form(tensor: Tensor | None) -> object:
    if tensor is None:
        return None
    quantization = tensor.quantization
    kind = tensor.dtype if quantization is None else (quantization.dtype, quantization.axis)
    return kind, None if tensor.shape is None else len(tensor.shape), tensor.constant is not None
