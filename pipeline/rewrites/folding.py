"""Nodes that compute from constants alone become constants."""

import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnx import helper, numpy_helper

from pipeline.rewrites.equivalence import run
from pipeline.rewrites.nouns import Kind, Replacement
from pipeline.rewrites.reading import Array, constant, dims, source
from pipeline.rewrites.rule import Rule

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
"""Operators that compute another thing each time."""

LARGEST = 1 << 24
"""Elements of the largest constant that folding makes, 64 MB of float32."""


class Folding:
    """Replaces nodes whose inputs are all constant by their results; a ``pipeline.rewrites.nouns.Rewriter``.

    Shape and Size of a tensor with a static shape count as constant. What the model gives out is left alone.
    """

    def find(self, model: ir.Model) -> Iterator[tuple[ir.Node, ...]]:
        """All nodes that compute from constants or from each other, as one place."""
        known: set[ir.Value] = set()
        found = []
        for node in model.graph:
            if _is_fixed(node, known):
                known.update(node.outputs)
                found.append(node)
        if found:
            yield tuple(found)

    def sweep(self, model: ir.Model, wanted: frozenset[str] | None) -> list[Replacement]:
        """Fold the nodes among ``wanted`` that compute from constants or from each other."""
        folded: list[str] = []
        results: list[ir.Value] = []
        for node in list(model.graph):
            if (wanted is None or node.name in wanted) and _is_fixed(node, set()):
                results.extend(_fold(model, node))
                folded.append(str(node.name))
        for value in results:
            if not value.uses():
                del model.graph.initializers[str(value.name)]
        outputs = tuple(str(v.name) for v in results if v.uses())
        return [Replacement(tuple(folded), (), outputs)] if folded else []


def _is_fixed(node: ir.Node, known: set[ir.Value]) -> bool:
    """Whether ``node`` computes, every time the same, from constants and the values ``known``."""
    graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    if node.domain not in ("", "ai.onnx") or node.op_type in RANDOM or any(
        a.type in graphs for a in node.attributes.values()
    ):  # fmt: skip
        return False
    if any(v.is_graph_output() or v.dtype is None or not _is_small(v) for v in node.outputs):
        return False
    if node.op_type in ("Shape", "Size"):
        return _has_static_shape(source(node))
    return all(v is None or v in known or constant(v) is not None for v in node.inputs)


def _has_static_shape(value: ir.Value) -> bool:
    return value.shape is not None and value.shape.is_static()


def _is_small(value: ir.Value) -> bool:
    return _has_static_shape(value) and math.prod(dims(value)) <= LARGEST


def _fold(model: ir.Model, node: ir.Node) -> list[ir.Value]:
    """The initializers that now stand for the outputs of ``node``, which is gone."""
    made = []
    for old, array in zip(node.outputs, _results(model, node), strict=True):
        tensor = ir.tensor(array, name=str(old.name))
        new = ir.Value(name=old.name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        ir.convenience.replace_all_uses_with(old, new)
        model.graph.initializers.add(new)
        made.append(new)
    model.graph.remove(node, safe=True)
    return made


def _results(model: ir.Model, node: ir.Node) -> list[Array]:
    """What ``node`` computes, from ONNX Runtime."""
    if node.op_type in ("Shape", "Size"):
        shape = np.asarray(dims(source(node)), np.int64)
        first, last = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
        return [shape[first:last] if node.op_type == "Shape" else np.asarray(shape.prod())]
    proto = ir.to_proto(node)
    constants = {str(v.name): constant(v) for v in node.inputs if v is not None}
    weights = [numpy_helper.from_array(v, n) for n, v in constants.items() if v is not None]
    outputs = [helper.make_empty_tensor_value_info(str(v.name)) for v in node.outputs]
    opsets = [helper.make_opsetid("", model.graph.opset_imports[""])]
    graph = helper.make_graph([proto], str(node.name), [], outputs, weights)
    return run(helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version), {})


FOLD_CONSTANTS = Rule(
    "fold-constants",
    Kind.EXACT,
    "What computes from constants alone is computed now and kept as a constant.",
    Folding(),
)
