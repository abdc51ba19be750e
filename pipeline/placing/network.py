"""A problem as integers: units by index in execution order, costs in picoseconds, and the phases of a placement."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from pipeline.errors import ModelError
from pipeline.placing.problem import CPU, NPU, Problem, Unit, picoseconds

Labels = Sequence[bool]
"""Per unit, in a network's order: whether it is on the NPU."""


@dataclass(frozen=True)
class Wire:
    """A tensor between units by index, costs in picoseconds; ``producer`` is ``None`` for an input of the graph."""

    producer: int | None
    consumers: tuple[int, ...]
    is_output: bool
    to_cpu: int
    to_npu: int


@dataclass(frozen=True)
class Network:
    """The integers that solvers compute with.

    Attributes:
        names: of the units, in an execution order; every other attribute uses their positions.
        cpu: picoseconds of each unit on the CPU.
        npu: picoseconds of each unit on the NPU, 0 where it cannot run there.
        may: per unit the devices it may be on: ``(False,)``, ``(True,)`` or both, ``True`` is the NPU.
        wires: the tensors, in the problem's order.
        before: per unit the units it reads from.
        launch: picoseconds of each NPU partition.
        limit: how many NPU partitions there may be, ``None`` for any number.
    """

    names: tuple[str, ...]
    cpu: tuple[int, ...]
    npu: tuple[int, ...]
    may: tuple[tuple[bool, ...], ...]
    wires: tuple[Wire, ...]
    before: tuple[tuple[int, ...], ...]
    launch: int
    limit: int | None


def network(problem: Problem) -> Network:
    """``problem`` as integers.

    Raises:
        ModelError: the tensors form a cycle, a unit must be on the NPU but cannot, or the demands need more NPU
            partitions than the target takes; names the unit.
    """
    units = {u.name: u for u in problem.units}
    order = _order(problem)
    index = {name: i for i, name in enumerate(order)}
    wires = tuple(
        Wire(
            None if t.producer is None else index[t.producer],
            tuple(sorted({index[c] for c in t.consumers})),
            t.is_output,
            picoseconds(t.to_cpu_ms),
            picoseconds(t.to_npu_ms),
        )
        for t in problem.tensors
    )
    before: list[set[int]] = [set() for _ in order]
    for wire in wires:
        for c in wire.consumers:
            if wire.producer is not None:
                before[c].add(wire.producer)
    net = Network(
        tuple(order),
        tuple(picoseconds(units[n].cpu_ms) for n in order),
        tuple(picoseconds(units[n].npu_ms or 0.0) for n in order),
        tuple(_may(units[n]) for n in order),
        wires,
        tuple(tuple(sorted(b)) for b in before),
        picoseconds(problem.launch_ms),
        problem.max_npu_partitions,
    )
    _require_feasible(net)
    return net


def phases(net: Network, labels: Labels) -> list[int]:
    """The smallest phase per unit that never runs before its inputs: even phases are the CPU's, odd ones the NPU's.

    A unit on the same device as its latest input joins that phase, otherwise it opens the next one. Units of one
    phase never wait for a later phase, so the partitions, one per phase, run in sequence without a cycle.
    """
    found: list[int] = []
    for before, on_npu in zip(net.before, labels, strict=True):
        phase = max((found[b] for b in before), default=0)
        found.append(phase + (phase + on_npu) % 2)
    return found


def count(net: Network, labels: Labels) -> int:
    """How many NPU partitions the placement needs: its number of odd phases."""
    return (max(phases(net, labels), default=0) + 1) // 2


def crosses(wire: Wire, labels: Labels) -> bool:
    """Whether the tensor is needed on the device that does not have it."""
    here = wire.producer is not None and labels[wire.producer]
    return (wire.is_output and here) or any(labels[c] != here for c in wire.consumers)


def cost(net: Network, labels: Labels) -> int:
    """Picoseconds of the placement: its units, its crossings and its launches."""
    total = sum(n if on else c for n, c, on in zip(net.npu, net.cpu, labels, strict=True))
    for wire in net.wires:
        if crosses(wire, labels):
            total += wire.to_cpu if wire.producer is not None and labels[wire.producer] else wire.to_npu
    return total + net.launch * count(net, labels)


def allowed(net: Network, labels: Labels) -> bool:
    """Whether every unit is where it may be and there are not too many partitions."""
    placed = all(on in may for may, on in zip(net.may, labels, strict=True))
    return placed and (net.limit is None or count(net, labels) <= net.limit)


def fewest(net: Network, may: Sequence[tuple[bool, ...]]) -> list[bool]:
    """The placement within ``may`` with the smallest phases.

    A unit with a choice joins the phase of its latest input, whichever device that is. By induction over the order no
    placement within ``may`` gives any unit a smaller phase, so none has fewer NPU partitions.
    """
    found: list[int] = []
    for before, devices in zip(net.before, may, strict=True):
        phase = max((found[b] for b in before), default=0)
        found.append(phase if phase % 2 in devices else phase + 1)
    return [phase % 2 == 1 for phase in found]


def _may(unit: Unit) -> tuple[bool, ...]:
    """The devices that ``unit`` may be on."""
    if unit.must == NPU and unit.npu_ms is None:
        raise ModelError("must be on the NPU, which cannot run it", where=unit.name, fix="place it on the CPU")
    on_cpu = () if unit.must == NPU else (False,)
    on_npu = () if unit.must == CPU or unit.npu_ms is None else (True,)
    return (*on_cpu, *on_npu)


def _require_feasible(net: Network) -> None:
    if net.limit is None:
        return
    labels = fewest(net, net.may)
    late = [i for i, phase in enumerate(phases(net, labels)) if labels[i] and (phase + 1) // 2 > net.limit]
    if late:
        unit = next(i for i in late if net.may[i] == (True,))
        what = f"must be on the NPU, which needs partition {net.limit + 1} of at most {net.limit}"
        fix = "it comes after units that must be on the CPU; place it there too"
        raise ModelError(what, where=net.names[unit], fix=fix)


def _order(problem: Problem) -> list[str]:
    """An execution order: of the units that are ready, always the first of the problem."""
    rank = {u.name: i for i, u in enumerate(problem.units)}
    after: dict[str, set[str]] = {name: set() for name in rank}
    for tensor in problem.tensors:
        if tensor.producer is not None:
            after[tensor.producer].update(tensor.consumers)
    waits = dict.fromkeys(rank, 0)
    for consumers in after.values():
        for name in consumers:
            waits[name] += 1
    ready = [rank[name] for name, n in waits.items() if n == 0]
    heapify(ready)
    order: list[str] = []
    while ready:
        name = problem.units[heappop(ready)].name
        order.append(name)
        for consumer in after[name]:
            waits[consumer] -= 1
            if waits[consumer] == 0:
                heappush(ready, rank[consumer])
    if len(order) < len(rank):
        stuck = min((n for n in rank if n not in set(order)), key=rank.__getitem__)
        raise ModelError("depends on itself, through the tensors between units", where=stuck)
    return order
