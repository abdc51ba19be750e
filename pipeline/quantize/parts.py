"""What an output joins: parts that are looked at apart, though they leave the model in one tensor.

Boxes in pixels beside scores in 0..1 have ten thousand times the energy: of one ratio for both, nothing would be left
to tell scores from noise. An exporter that joins them changes nothing in what is asked of either.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.graph.view import Graph, Tensor

Places = NDArray[np.bool_]

SAME_ORDER = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that keep their values in order."""


def parts(graph: Graph) -> Mapping[str, Mapping[str, Places]]:
    """Where the values of each part stand in an output, shaped as it, by output and by the part's tensor.

    An output has parts where it is a Concat of several tensors, moved or not; what those are joined from in turn counts
    instead of them. Constants are no part. An output without parts, or of a shape that is not known, is left out.
    """
    found = {}
    for name, tensor in zip(graph.output_names, graph.outputs, strict=True):
        names: list[str] = []
        labels = _labels(graph, tensor, names)
        if labels is not None and len(names) > 1:
            found[name] = {each: np.equal(labels, index) for index, each in enumerate(names)}
    return found


def _labels(graph: Graph, tensor: Tensor, names: list[str]) -> NDArray[np.int64] | None:
    """The place in ``names`` of what each value of ``tensor`` is of, which is added there; -1 for constants."""
    if tensor.constant is not None:
        return np.full(np.shape(tensor.constant), -1, np.int64)
    if tensor.shape is None or None in tensor.shape:
        return None
    node = graph.producer(tensor.name)
    if node is not None and node.standard and node.op == "Concat":
        inputs = [_labels(graph, each, names) for each in node.inputs if each is not None]
        known = [each for each in inputs if each is not None]
        return np.concatenate(known, axis=node.int("axis", 0)) if len(known) == len(inputs) else None
    if node is not None and node.standard and node.op in SAME_ORDER | {"Transpose"}:
        before = _labels(graph, node.required(0), names)
        if before is None:
            return None
        return (
            before.transpose(node.ints("perm", ()) or None) if node.op == "Transpose" else before.reshape(tensor.dims)
        )
    if tensor.name not in names:
        names.append(tensor.name)
    return np.full(tensor.dims, names.index(tensor.name), np.int64)
