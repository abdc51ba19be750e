"""What is placed as a whole: operators with the clamp that is fused into them, and what the target says of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.cost.nouns import Work
from pipeline.cost.work import describe
from pipeline.graph.fusion import units
from pipeline.graph.view import Graph, Node
from pipeline.targets.placement import Judge, float_reasons, is_quantized

Reasons = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class JudgedUnit:
    """Operators that run on one device.

    Attributes:
        nodes: the operator, and its fused clamp if it has one.
        reasons: by name of a node, why the NPU does not take it; empty when it takes the unit.
        work: what the unit asks of a device.
        follows: for a clamp that the NPU's limits keep apart from its operator, the name of that operator's unit: where
            both run on the host they are one kernel.
    """

    nodes: tuple[Node, ...]
    reasons: Reasons
    work: Work
    follows: str | None = None

    @property
    def name(self) -> str:
        """The name of its first operator."""
        return self.nodes[0].name

    @property
    def taken(self) -> bool:
        """Whether the NPU takes it."""
        return not self.reasons


def verdicts(graph: Graph, judge: Judge) -> Reasons:
    """Why the NPU does not take each operator of ``graph`` by itself, only those that have a reason."""
    quantized = is_quantized(graph)
    found = {}
    for unit in units(graph):
        floats = float_reasons(unit) if quantized else ()
        found.update({node.name: judge(node) or floats for node in unit})
    return {name: reasons for name, reasons in found.items() if reasons}


def judged(graph: Graph, reasons: Reasons, describe_work: Callable[..., Work] = describe) -> tuple[JudgedUnit, ...]:
    """The units of ``graph`` in its order.

    Where the NPU takes only one of an operator and its clamp, they are apart, unless the graph is quantized with
    nothing between them: then both run where the other must. Raises ``ModelError`` when a shape is not static.
    """
    quantized = is_quantized(graph)
    found = []
    for unit in units(graph):
        refused = {n.name: reasons[n.name] for n in unit if n.name in reasons}
        whole = quantized or len(refused) in (0, len(unit))
        if whole:
            found.append(JudgedUnit(unit, refused, describe_work(*unit)))
            continue
        for node in unit:
            own = {node.name: refused[node.name]} if node.name in refused else {}
            found.append(JudgedUnit((node,), own, describe_work(node), None if node is unit[0] else unit[0].name))
    return tuple(found)
