"""Parts of an output that would share one scale, kept apart: boxes in pixels beside scores in 0..1.

A Concat of both gives the scores the boxes' step, a pixel or two, and nothing is left of them. Where nothing behind the
Concat computes, and it only goes to the model's outputs, the join is made in float, from parts with scales of their
own, by the CPU that gets the outputs anyway. The arithmetic that turns distances into pixels goes with it: it has no
weights, and its result, hundreds of pixels wide, has no room in 8 bits either.
"""

from collections.abc import Iterator, Mapping, Set

from pipeline.graph.view import Graph, Node, Tensor
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
    before = -1
    while before != len(found):  # what two readers share is only free once both are found
        before = len(found)
        found |= {name for node in joins for part in node.activations for name in _before(graph, part, found)}
    return found


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


def _before(graph: Graph, tensor: Tensor, floats: Set[str]) -> Iterator[str]:
    """``tensor`` and what it is made of, as far as that is arithmetic that only makers of ``floats`` read."""
    maker = graph.producer(tensor.name)
    alone = all(out.name in floats for reader in graph.consumers(tensor.name) for out in reader.outputs)
    if maker is None or not alone or graph.is_output(tensor.name) or not _decodes(graph, maker):
        return
    yield tensor.name
    for source in maker.activations:
        yield from _before(graph, source, floats | {t.name for t in maker.outputs})


def _decodes(graph: Graph, node: Node) -> bool:
    """Whether ``node`` is arithmetic with a constant, or only joins, moves and combines what is."""
    if not node.standard or len(node.outputs) != 1:
        return False
    if node.op in ARITHMETIC and len(node.activations) == 1:
        return True
    makers = [graph.producer(t.name) for t in node.activations]
    passing = node.op in ARITHMETIC | MOVES | {"Concat"}
    return passing and bool(makers) and all(m is not None and _decodes(graph, m) for m in makers)
