"""Names of what a rewrite makes: derived from what it replaced, and taken by nothing else."""

from collections.abc import Sequence

import onnx_ir as ir

from pipeline.graph.weighted import WEIGHTED


class Names:
    """The names in use in a graph."""

    def __init__(self, graph: ir.Graph) -> None:
        """Collect those of ``graph``."""
        self.nodes = {str(n.name) for n in graph}
        self.values = {str(v.name) for v in (*graph.inputs, *graph.initializers.values())}
        self.values |= {str(v.name) for n in graph for v in n.outputs}

    def forget(self, value: str) -> None:
        """The tensor ``value`` is no more."""
        self.values.discard(value)

    def node(self, wanted: str) -> str:
        """``wanted`` for a node, with a number where it is taken."""
        return _take(wanted, self.nodes)

    def value(self, wanted: str) -> str:
        """``wanted`` for a tensor, with a number where it is taken."""
        return _take(wanted, self.values)


def name_replacement(
    names: Names,
    old: Sequence[ir.Node],
    new: Sequence[ir.Node],
    outputs: Sequence[ir.Value],
    constants: Sequence[ir.Value],
) -> None:
    """Name the nodes ``new``, their tensors and ``constants``, which replaced the nodes ``old``, in place.

    The old node with weights, or else the last, gives its name: to the only new node, or the only one with weights;
    every other is called ``name/Operator``, and all take over its metadata. The values ``outputs`` keep their names.
    """
    names.nodes -= {str(n.name) for n in old}
    weighted = [n for n in old if n.op_type in WEIGHTED]
    origin = weighted[0] if weighted else old[-1]
    base = str(origin.name)
    heirs = list(new) if len(new) == 1 else [n for n in new if n.op_type in WEIGHTED]
    for node in new:
        inherits = len(heirs) == 1 and node is heirs[0]
        node.name = names.node(base if inherits else f"{base}/{node.op_type}")
        node.metadata_props.update(origin.metadata_props)
        for value in node.outputs:
            if not any(value is o for o in outputs):
                value.name = names.value(str(node.name))
    for value in constants:
        value.name = names.value(str(value.name))


def _take(wanted: str, used: set[str]) -> str:
    name, count = wanted, 1
    while name in used:
        count += 1
        name = f"{wanted}#{count}"
    used.add(name)
    return name
