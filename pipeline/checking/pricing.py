"""From judged units to a placement problem and back: what everything costs, the cheapest placement, and its totals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.checking.kernels import with_conversions
from pipeline.checking.units import JudgedUnit
from pipeline.cost.model import CostModel, Prices, Totals
from pipeline.cost.nouns import FREE
from pipeline.cost.work import tensor_bytes
from pipeline.graph.view import Graph, Tensor
from pipeline.placing.baselines import cpu_only, greedy
from pipeline.placing.evaluate import partitions
from pipeline.placing.exact import exact
from pipeline.placing.problem import CPU, NPU, Crossing, Device, Problem, Solution, Unit


@dataclass(frozen=True)
class Priced:
    """A graph with everything in it priced.

    Attributes:
        model: the cost model that priced it.
        prices: of its units on both devices, and of its tensors.
        problem: what is to be placed; with zeros for times that are not known.
        by_cost: whether every time that decides is known.
        follows: by name of a clamp's unit, the unit of the operator that the host runs it with, at no cost.
    """

    model: CostModel
    prices: Prices
    problem: Problem
    by_cost: bool
    follows: Mapping[str, str]


def price(
    graph: Graph, units: Sequence[JudgedUnit], model: CostModel, pins: Mapping[str, Device], limit: int | None
) -> Priced:
    """Everything that placing ``units`` of ``graph`` can cost.

    Args:
        graph: the model.
        units: its units with what the target says of them.
        model: of the target and its host.
        pins: by name of a unit, the device that the user demands.
        limit: how many NPU partitions there may be, ``None`` for any number.
    """
    tensors = _tensors(graph, units)
    prices = model.price_works([unit.work for unit in units])
    cpu = {u.name: with_conversions(prices.cpu[u.name], u.work, model.host) for u in units}
    crossings = {t.wire: model.crossing(tensor_bytes(t)) for t, *_ in tensors}
    prices = replace(prices, cpu=cpu, crossings=crossings)
    known = all(cpu[u.name].ms is not None and (not u.taken or prices.npu[u.name].ms is not None) for u in units)
    known = known and all(crossing.ms is not None for crossing in crossings.values())
    follows = {u.name: u.follows for u in units if u.follows is not None}
    problem = Problem(
        tuple(_unit(u, prices, pins.get(u.name), known) for u in units),
        tuple(_crossing(t, made, read, graph, prices, known, follows) for t, made, read in tensors),
        (prices.launch_ms or 0.0) if known else 0.0,
        limit,
    )
    return Priced(model, prices, problem, known, follows)


def forced(priced: Priced, name: str) -> Priced:
    """``priced`` on a target that takes the unit ``name``, which must be on its NPU."""
    ms = priced.prices.npu[name].ms if priced.by_cost else 0.0
    known = ms is not None
    units = tuple(
        replace(unit, npu_ms=ms or 0.0, must=NPU) if unit.name == name else unit for unit in priced.problem.units
    )
    return replace(priced, problem=replace(priced.problem, units=units), by_cost=priced.by_cost and known)


def cheapest(priced: Priced) -> Solution:
    """The cheapest placement with its bound, the cost per inference of using the NPU at all included.

    Without times it is the widest: everything that the NPU takes is there. Raises ``ModelError`` for impossible pins.
    """
    if not priced.by_cost:
        return greedy(priced.problem)
    best, fixed = exact(priced.problem), priced.prices.inference_ms
    if not best.npu_partitions:
        return best
    with_npu = _more(best, fixed)
    if any(unit.must == NPU for unit in priced.problem.units):
        return with_npu
    host = cpu_only(priced.problem)
    bound = min(with_npu.lower_bound_ms, host.ms)
    chosen = host if host.ms <= with_npu.ms else with_npu
    return replace(chosen, lower_bound_ms=bound, optimal=chosen.ms == bound)


def widest(priced: Priced) -> Solution:
    """What toolchains do: everything that the NPU takes is there; of too many partitions the first are kept."""
    found = greedy(priced.problem)
    return _more(found, priced.prices.inference_ms) if found.npu_partitions and priced.by_cost else found


def host_ms(priced: Priced) -> float | None:
    """Milliseconds of everything on the host, pins aside; ``None`` when one is not known."""
    times = [cost.ms for cost in _settled(priced, dict.fromkeys(priced.prices.cpu, CPU)).cpu.values()]
    return None if any(ms is None for ms in times) else sum(ms for ms in times if ms is not None)


def totals(priced: Priced, solution: Solution) -> Totals:
    """What ``solution`` costs."""
    on_npu = {name for name, device in solution.devices.items() if device == NPU}
    return priced.model.total(prices_at(priced, solution), on_npu, solution.npu_partitions, solution.crossings)


def prices_at(priced: Priced, solution: Solution) -> Prices:
    """The prices of ``priced`` where ``solution`` places its units: a clamp beside its operator on the host is free."""
    return _settled(priced, solution.devices)


def _settled(priced: Priced, devices: Mapping[str, Device]) -> Prices:
    free = {clamp: FREE for clamp, operator in priced.follows.items() if devices[operator] == CPU}
    return replace(priced.prices, cpu={**priced.prices.cpu, **free})


def saved(before: float | None, after: float | None) -> float | None:
    """How much less ``after`` is than ``before``, ``None`` when one is not known."""
    return None if before is None or after is None else before - after


def pieces(priced: Priced, solution: Solution) -> tuple[tuple[Device, tuple[str, ...]], ...]:
    """The partitions of ``solution`` in execution order, each with its device and its units."""
    return partitions(priced.problem, solution.devices)


def _more(solution: Solution, ms: float) -> Solution:
    return replace(solution, ms=solution.ms + ms, lower_bound_ms=solution.lower_bound_ms + ms)


def _tensors(graph: Graph, units: Sequence[JudgedUnit]) -> list[tuple[Tensor, str | None, tuple[str, ...]]]:
    """Every tensor that can cross: the unit that makes it, ``None`` for an input, and the other units that read it."""
    unit_of = {node.name: unit.name for unit in units for node in unit.nodes}
    found: list[tuple[Tensor, str | None, tuple[str, ...]]] = []
    made = [(t, None) for t in graph.inputs] + [(t, unit_of[n.name]) for n in graph.nodes for t in n.outputs]
    for tensor, maker in made:
        readers = dict.fromkeys(unit_of[n.name] for n in graph.consumers(tensor.name))
        outside = tuple(name for name in readers if name != maker)
        if outside or (maker is not None and graph.is_output(tensor.name)):
            found.append((tensor, maker, outside))
    return found


def _unit(unit: JudgedUnit, prices: Prices, must: Device | None, known: bool) -> Unit:
    npu_ms = prices.npu[unit.name].ms if known else 0.0
    cpu_ms = prices.cpu[unit.name].ms if known and unit.follows is None else 0.0
    return Unit(unit.name, cpu_ms or 0.0, npu_ms if unit.taken else None, must)


def _crossing(
    tensor: Tensor,
    maker: str | None,
    readers: tuple[str, ...],
    graph: Graph,
    prices: Prices,
    known: bool,
    follows: Mapping[str, str],
) -> Crossing:
    """What ``tensor`` costs to cross; to the host with the clamp that must then run there as a kernel of its own."""
    ms = (prices.crossings[tensor.wire].ms or 0.0) if known else 0.0
    clamp_ms = sum(prices.cpu[r].ms or 0.0 for r in readers if known and maker is not None and follows.get(r) == maker)
    return Crossing(tensor.wire, maker, readers, graph.is_output(tensor.name), ms + clamp_ms, ms)
