"""The check: a model against a target, from its graph to placement, price and proof."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from pipeline.checking import fallbacks
from pipeline.checking.nouns import Check, Cut, NodeCheck
from pipeline.checking.pins import pins
from pipeline.checking.pricing import Priced, cheapest, host_ms, pieces, price, prices_at, totals, widest
from pipeline.checking.units import JudgedUnit, judged, verdicts
from pipeline.cost.hosts import HostProfile
from pipeline.cost.model import CostModel, Totals
from pipeline.cost.nouns import LayerCost
from pipeline.graph.macs import macs
from pipeline.graph.view import Graph, Node
from pipeline.placing.problem import CPU, NPU, Device, Solution
from pipeline.targets.placement import Judge, by_rules
from pipeline.targets.profile import Target


@dataclass(frozen=True)
class Demands:
    """What the user wants of a placement.

    Attributes:
        place: by an operator's name or a pattern, the device that it must be on.
        max_npu_partitions: overrides the target's own policy.
        objective: the least estimated time, or all that the NPU takes, as toolchains do.
        prices: whether to say what each fallback costs.
    """

    place: Mapping[str, Device] = field(default_factory=lambda: MappingProxyType({}))
    max_npu_partitions: int | None = None
    objective: Literal["latency", "coverage"] = "latency"
    prices: bool = True


@dataclass(frozen=True)
class Placement:
    """A graph on a target, placed.

    Attributes:
        graph: the model.
        units: what is placed as a whole.
        priced: what everything costs.
        solution: the placement that is used.
        best: the cheapest one.
        baseline: what toolchains do.
    """

    graph: Graph
    units: tuple[JudgedUnit, ...]
    priced: Priced
    solution: Solution
    best: Solution
    baseline: Solution


def place(graph: Graph, target: Target, host: HostProfile | None, judge: Judge, demands: Demands) -> Placement:
    """The cheapest placement of ``graph`` on ``target``, with its proof.

    Raises:
        ModelError: a shape is not static, or a demand is impossible.
    """
    units = judged(graph, verdicts(graph, judge))
    wanted = pins(units, demands.place)
    limit = demands.max_npu_partitions or target.partition.max_npu_partitions
    priced = price(graph, units, CostModel(target, host), wanted, limit)
    best, baseline = cheapest(priced), widest(priced)
    return Placement(graph, units, priced, best if demands.objective == "latency" else baseline, best, baseline)


def check(name: str, graph: Graph, target: Target, host: HostProfile | None, demands: Demands | None = None) -> Check:
    """What becomes of ``graph`` on ``target``: where each operator runs and why, what that costs, how good the cut is.

    A float model is costed as its int8 form under the target's scheme.

    Args:
        name: what the model is called.
        graph: its view.
        target: the chip.
        host: the processor beside it, ``None`` when nothing is known of it.
        demands: what the user wants.

    Raises:
        ModelError: a shape is not static, or a demand is impossible.
    """
    demands = demands or Demands()
    found = place(graph, target, host, by_rules(target), demands)
    return describe(name, target, found, prices=demands.prices)


def describe(name: str, target: Target, found: Placement, *, prices: bool) -> Check:
    """``found`` as a check, with the ``prices`` of its fallbacks or without."""
    total = totals(found.priced, found.solution)
    parts = pieces(found.priced, found.solution)
    members = {unit.name: tuple(n.name for n in unit.nodes) for unit in found.units}
    partitions = tuple((device, tuple(n for u in names for n in members[u])) for device, names in parts)
    host = found.priced.model.host
    base = fallbacks.Base(found.graph, found.units, found.priced, found.solution)
    return Check(
        model=name,
        target=target.name,
        host=None if host is None else host.name,
        nodes=_nodes(found),
        cut=_cut(found, total, partitions),
        partitions=partitions,
        refused=frozenset(node.name for unit in found.units if unit.reasons for node in unit.nodes),
        totals=total,
        fallbacks=fallbacks.prices(base) if prices else (),
        fallback_ops=fallbacks.prices_by_op(base) if prices else (),
        notes=_notes(target, found, total),
    )


def _nodes(found: Placement) -> tuple[NodeCheck, ...]:
    """Every operator in the graph's order; a fused clamp is included in the operator before it."""
    checked = {}
    by_hand = {unit.name for unit in found.priced.problem.units if unit.must == CPU}
    prices = prices_at(found.priced, found.solution)
    for unit in found.units:
        device = found.solution.devices[unit.name]
        cost = prices.npu[unit.name] if device == NPU else prices.cpu[unit.name]
        for node in unit.nodes:
            own = cost if node is unit.nodes[0] else LayerCost(0.0, 0.0, bound="nothing", energy_mj=0.0)
            reasons = () if device == NPU else _reasons(unit, node, found, unit.name in by_hand)
            checked[node.name] = NodeCheck(
                node.name, node.op, device, reasons, macs(node), own.ms, own.energy_mj, own.total_bytes, own.bound
            )
    return tuple(checked[node.name] for node in found.graph.nodes)


def _reasons(unit: JudgedUnit, node: Node, found: Placement, by_hand: bool) -> tuple[str, ...]:
    """Why ``node`` of ``unit`` is on the CPU; ``by_hand``: the user placed it there."""
    if node.name in unit.reasons:
        return unit.reasons[node.name]
    if unit.reasons:
        return tuple(f"It is fused with {name}, which is not on the NPU" for name in unit.reasons)
    if by_hand:
        return ("It is placed on the CPU by hand",)
    limit = found.priced.problem.max_npu_partitions
    if found.baseline.devices[unit.name] == CPU and limit is not None:
        return (f"The target takes at most {limit} NPU partition{'s' * (limit > 1)}; it comes after a fallback",)
    return ("The NPU takes it; the whole is faster with it on the CPU",)


def _cut(found: Placement, total: Totals, partitions: Sequence[object]) -> Cut:
    known, solution, best = found.priced.by_cost, found.solution, found.best
    return Cut(
        optimal_ms=best.ms if known else total.ms,
        greedy_ms=found.baseline.ms if known else None,
        cpu_ms=host_ms(found.priced),
        lower_bound_ms=best.lower_bound_ms if known else None,
        gap_percent=best.gap_percent if known else None,
        partitions=len(partitions),
        npu_partitions=solution.npu_partitions,
        crossings=len(solution.crossings),
        by_cost=known,
    )


def _notes(target: Target, found: Placement, total: Totals) -> tuple[str, ...]:
    """What a reader of the numbers must know."""
    notes = []
    if not found.priced.by_cost:
        notes.append(
            "Not every time is known, so the NPU gets all that it takes, and no placement is proven to be the fastest"
        )
    elif found.solution.ms > found.best.ms:
        how = "everything on the CPU" if not found.best.npu_partitions else "the cheapest placement"
        notes.append(f"All that the NPU takes is there, {found.solution.ms:.3f} ms; {how} takes {found.best.ms:.3f} ms")
    elif not found.solution.npu_partitions and found.baseline.npu_partitions:
        notes.append(
            f"Everything is on the CPU, {found.solution.ms:.3f} ms: the NPU would make it slower, "
            f"{found.baseline.ms:.3f} ms as toolchains place it"
        )
    if total.missing:
        notes.append(f"Not public, so not in the numbers: {', '.join(total.missing)}")
    if target.hypothetical:
        notes.append(f"{target.name} is hypothetical: no one sells it")
    if found.priced.model.host is None:
        notes.append("No host is known for the target: name one to know what fallbacks cost")
    return (*notes, *target.notes)
