"""Parts of an output that would share one scale, kept apart: boxes in pixels beside scores in 0..1.

A Concat of both gives the scores the boxes' step, a pixel or two, and nothing is left of them. Where nothing behind the
Concat computes, and it only goes to the model's outputs, the join is made in float, from parts with scales of their
own, by the CPU that gets the outputs anyway. The arithmetic that turns distances into pixels goes with it: it has no
weights, and its result, hundreds of pixels wide, has no room in 8 bits either.
"""

from collections.abc import Mapping, Sequence, Set

from pipeline.graph.view import Graph, Node
from pipeline.quantize.histogram import Histogram

FAR = 8.0
"""Times by which ranges may differ before sharing one scale costs three of the eight bits."""

MOVES = frozenset({
    "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators that compute nothing."""

ARITHMETIC = frozenset({"Add", "Div", "Mul", "Sub"})


def apart(graph: Graph, seen: Mapping[str, Histogram]) -> Set[str]:
    """The tensors of ``graph`` that stay in float so that unlike parts of an output keep their scales, by name.

    Args:
        graph: the float model.
        seen: what its activations took, by name; parts are unlike when their largest differ by ``FAR`` or more.
    """
    found: set[str] = set()
    joins: list[Node] = []
    for node in graph.nodes:
        if node.op != "Concat" or not node.standard:
            continue
        sizes = [seen[t.name].largest for t in node.activations if t.name in seen]
        alive = [size for size in sizes if size > 0]
        behind = _behind(graph, node) if alive and max(alive) >= FAR * min(alive) else None
        if behind is not None:
            found |= behind
            joins.append(node)
    return found | _before(graph, joins, found)


def _behind(graph: Graph, node: Node) -> set[str] | None:
    """What ``node`` gives and all that is made of it, when that is only moved to the model's outputs."""
    names: set[str] = set()
    for tensor in node.outputs:
        names.add(tensor.name)
        for reader in graph.consumers(tensor.name):
            moved = _behind(graph, reader) if reader.standard and reader.op in MOVES else None
            if moved is None:
                return None
            names |= moved
    return names


def _before(graph: Graph, joins: Sequence[Node], behind: Set[str]) -> set[str]:
    """What ``joins`` join and what that is made of, as far as it is arithmetic that only makers of floats read.

    The nodes are in topological order, so backwards all readers of a tensor are known to be in float or not.
    """
    decoding, found = _decoding(graph), set[str]()
    reached = {tensor.name for node in joins for tensor in node.activations}
    for node in reversed(graph.nodes):
        name = node.outputs[0].name if node.outputs else ""
        if name not in decoding or name not in reached or graph.is_output(name):
            continue
        if all(out.name in behind or out.name in found for reader in graph.consumers(name) for out in reader.outputs):
            found.add(name)
            reached |= {source.name for source in node.activations}
    return found


def _decoding(graph: Graph) -> Set[str]:
    """What is made by arithmetic with a constant, or by only joining, moving and combining what is, by name."""
    found: set[str] = set()
    for node in graph.nodes:  # in topological order: the makers of what it reads are known
        if not node.standard or len(node.outputs) != 1:
            continue
        names = [tensor.name for tensor in node.activations]
        starts = node.op in ARITHMETIC and len(names) == 1
        passes = node.op in ARITHMETIC | MOVES | {"Concat"} and bool(names) and found.issuperset(names)
        if starts or passes:
            found.add(node.outputs[0].name)
    return found
