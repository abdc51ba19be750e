"""Bringing models of any origin into the one form that the view reads, without changing what they compute."""

from collections.abc import Mapping

import onnx
from onnx import inliner

from pipeline.graph.protos import constants, nested, ordered, reads, value_bytes

QDQ_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
"""Where QuantizeLinear and DequantizeLinear mean the same; ONNX Runtime's own take 16 bits before opset 21."""

QOPERATORS = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QGemm"}
)
"""Operators that compute on integers themselves; ONNX Runtime's others all begin with QLinear."""


def inline(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with its local functions written out."""
    return inliner.inline_local_functions(model) if model.functions else model


def sort(model: onnx.ModelProto, where: object) -> tuple[str, ...]:
    """Order the nodes of ``model`` in place where they are not, and say so; raises ``ModelError`` for a cycle."""
    graph = model.graph
    known = {i.name for i in graph.input} | {i.name for i in graph.initializer}
    known |= {s.values.name for s in graph.sparse_initializer}
    before = set(known)
    for node in graph.node:
        if not before.issuperset(reads(node)):
            break
        before.update(node.output)
    else:
        return ()
    nodes = ordered(graph.node, known, where)
    del graph.node[:]
    graph.node.extend(nodes)
    return ("nodes stood before what they read; they were sorted",)


def merge_pairs(model: onnx.ModelProto) -> None:
    """Let the readers of a tensor share one QuantizeLinear where each has its own, all with the same numbers.

    ONNX Runtime's quantizer writes such pairs with ``DedicatedQDQPair``.
    """
    known = constants(model.graph)
    outputs = {o.name for o in model.graph.output}
    first: dict[tuple[object, ...], str] = {}
    renamed: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        key = _key(node, known) if node.op_type == "QuantizeLinear" and node.domain in QDQ_DOMAINS else None
        if key is None or key not in first or node.output[0] in outputs:
            kept.append(node)
            if key is not None:
                first.setdefault(key, node.output[0])
        else:
            renamed[node.output[0]] = first[key]
    if renamed:
        del model.graph.node[:]
        model.graph.node.extend(kept)
        _rename(model.graph, renamed)


def _key(node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]) -> tuple[object, ...] | None:
    """What makes two QuantizeLinear equal; ``None`` when their numbers are computed."""
    numbers = [name for name in node.input[1:] if name]
    if any(name not in known for name in numbers):
        return None
    attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
    return (node.input[0], node.domain, *(value_bytes(known[name]) for name in numbers), *attributes)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in names:
                node.input[index] = names[name]
        for inner in nested(node):
            _rename(inner, names)


def qoperators(model: onnx.ModelProto) -> tuple[str, ...]:
    """What to tell of a model whose operators compute on integers themselves (ONNX Runtime's QOperator format)."""
    found = sorted({n.op_type for n in model.graph.node if n.op_type in QOPERATORS or n.op_type.startswith("QLinear")})
    if not found:
        return ()
    return (
        f"{', '.join(found)}: operators in QOperator form, which no target's compiler reads, so they are fallbacks; "
        "quantize with quant_format=QuantFormat.QDQ",
    )
