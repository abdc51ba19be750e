"""The price of each fallback: the model as it is against the same model on a target that takes that operator."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from pipeline.checking.nouns import OpPrice, Price
from pipeline.checking.pricing import Priced, cheapest, forced, price, saved, totals, widest
from pipeline.checking.units import JudgedUnit, judged
from pipeline.cost.model import Totals
from pipeline.cost.nouns import Work
from pipeline.cost.work import describe
from pipeline.errors import ModelError
from pipeline.graph.fusion import units
from pipeline.graph.view import Graph, Node
from pipeline.placing.evaluate import placed_at
from pipeline.placing.problem import NPU, Solution

ANEW = 10_000
"""Fallbacks times units up to which everything else is placed anew for each; beyond, everything else stays."""

MOST = 300_000
"""Fallbacks times units up to which each has a price; beyond, those that take the CPU the longest have."""


@dataclass(frozen=True)
class Base:
    """What all prices are told against.

    Attributes:
        graph: the model.
        units: its units.
        priced: what everything costs.
        solution: the placement that is used.
    """

    graph: Graph
    units: tuple[JudgedUnit, ...]
    priced: Priced
    solution: Solution

    @property
    def refused(self) -> tuple[JudgedUnit, ...]:
        """The units that the NPU does not take."""
        return tuple(unit for unit in self.units if unit.reasons)


def prices(base: Base) -> tuple[Price, ...]:
    """What each operator that the NPU does not take costs, dearest first.

    The price is the total of the placement less the total on a target that also takes that operator, which then must
    run on the NPU, everything else being placed anew. So it counts the operator's time on the CPU, its crossings and
    conversions, the fusion it breaks, the launches it makes necessary, and, where the target takes few partitions,
    all that has to stay on the CPU behind it, less the time that the NPU would take. It is negative for an operator
    that is better off on the CPU, and unknown for one that the user's demands or the target's policy keep off the NPU
    even then. Of a fused pair the first operator has the price.
    """
    refused = base.refused
    size = max(1, len(base.units))
    anew = len(refused) * size <= ANEW
    known = {unit.name for unit in sorted(refused, key=lambda u: -(_cpu_ms(base, u)))[: max(1, MOST // size)]}
    compare = _compare(base, anew)
    found = []
    for unit in refused:
        first, *others = [node for node in unit.nodes if node.name in unit.reasons]
        found.append(compare(unit, first) if unit.name in known else Price(first.name, first.op, None, None, None, {}))
        found += [Price(node.name, node.op, 0.0, 0.0, 0.0, {}) for node in others]
    return tuple(sorted(found, key=lambda p: -(p.delta_ms or 0.0)))


def prices_by_op(base: Base) -> tuple[OpPrice, ...]:
    """What it costs that the NPU does not take the operators of one type, all of them together, dearest first.

    The total of the placement less that of the cheapest one on a target that takes every one of them.
    """
    names: dict[str, list[str]] = {}
    for unit in base.refused:
        for node in unit.nodes:
            if node.name in unit.reasons:
                names.setdefault(node.op, []).append(node.name)
    before = totals(base.priced, base.solution)
    found = []
    for op, nodes in names.items():
        other = _lifted(base, nodes)
        after = totals(other, cheapest(other))
        found.append(OpPrice(op, tuple(nodes), saved(before.ms, after.ms), saved(before.energy_mj, after.energy_mj)))
    return tuple(sorted(found, key=lambda p: -(p.delta_ms or 0.0)))


def _compare(base: Base, anew: bool) -> Callable[[JudgedUnit, Node], Price]:
    """What prices one unit.

    With ``anew`` both placements are the cheapest. Otherwise everything else stays where it is, or, on a target that
    takes few partitions, both placements are the widest.
    """
    limited = base.priced.problem.max_npu_partitions is not None
    own = widest(base.priced) if limited and not anew else base.solution
    before = totals(base.priced, own)
    split = _split(base)

    def replaced(taking: Priced) -> Solution:
        if anew:
            return cheapest(taking)
        if limited:
            return widest(taking)
        kept = {u.name: u.must or own.devices.get(u.name, NPU) for u in taking.problem.units}
        return placed_at(taking.problem, kept)

    def compare(unit: JudgedUnit, node: Node) -> Price:
        taking = _lifted(base, list(unit.reasons)) if unit.name in split else base.priced
        taking = forced(taking, split.get(unit.name, unit.name))
        try:
            other = replaced(taking)
        except ModelError:  # with the user's demands and the target's policy it cannot run there
            return Price(node.name, node.op, None, None, None, {})
        return _difference(node, before, totals(taking, other))

    return compare


def _split(base: Base) -> dict[str, str]:
    """By name of an operator or clamp that could be fused and is not, the name of the unit that they would be."""
    whole = {unit.name for unit in base.units if len(unit.nodes) > 1}
    pairs = [unit for unit in units(base.graph) if len(unit) > 1 and unit[0].name not in whole]
    return {node.name: pair[0].name for pair in pairs for node in pair}


def _lifted(base: Base, names: Collection[str]) -> Priced:
    """The problem on a target that takes the operators ``names`` too."""
    reasons = {name: why for unit in base.units for name, why in unit.reasons.items() if name not in names}
    known = {tuple(n.name for n in u.nodes): u.work for u in base.units}

    def work(*nodes: Node) -> Work:
        return known.get(tuple(n.name for n in nodes)) or describe(*nodes)

    merged = judged(base.graph, reasons, work)
    owner = {node.name: unit.name for unit in merged for node in unit.nodes}
    pins = {owner[u.name]: u.must for u in base.priced.problem.units if u.must is not None}
    return price(base.graph, merged, base.priced.model, pins, base.priced.problem.max_npu_partitions)


def _difference(node: Node, before: Totals, after: Totals) -> Price:
    parts = {
        "cpu": saved(before.cpu_ms, after.cpu_ms),
        "npu": saved(before.npu_ms, after.npu_ms),
        "crossings": before.crossing_ms - after.crossing_ms,
        "launches": before.launch_ms - after.launch_ms,
    }
    moved = _moved(before) - _moved(after)
    known = {name: ms for name, ms in parts.items() if ms is not None}
    energy = saved(before.energy_mj, after.energy_mj)
    return Price(node.name, node.op, saved(before.ms, after.ms), moved / 1e6, energy, known)


def _moved(total: Totals) -> int:
    return sum(total.bytes.values()) + total.crossing_bytes


def _cpu_ms(base: Base, unit: JudgedUnit) -> float:
    return base.priced.prices.cpu[unit.name].ms or 0.0
