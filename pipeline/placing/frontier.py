"""The cheapest placement by dynamic programming over the frontier: exact with launch costs and limits."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipeline.placing.network import Network

Key = tuple[int, ...]
"""Per tensor on the frontier: twice the phase of its producer, plus 1 when nothing is left to pay for its crossing."""

Trail = tuple[bool, "Trail"] | None
"""The devices of the units so far, last first."""


WIDEST = 4096
"""States that one unit may have: those of about six tensors alive at once."""


class State(NamedTuple):
    """A placement of the first units, reduced to what the rest of the problem can notice.

    Attributes:
        paid: picoseconds so far, launches included.
        partitions: NPU partitions so far.
        key: the frontier.
        trail: how it was reached.
    """

    paid: int
    partitions: int
    key: Key
    trail: Trail


class Step(NamedTuple):
    """One unit of the order, and what it does to the frontier.

    Attributes:
        unit: its index.
        opens: how many inputs of the graph join the frontier before it.
        reads: positions it reads, with the costs to the CPU and to the NPU.
        keeps: positions that are still read later.
        writes: tensors it makes: whether they are read later, whether the graph gives them, and the two costs.
        rest: picoseconds that the units after it cost at least.
        fresh: whether a unit after it reads from no unit.
    """

    unit: int
    opens: int
    reads: tuple[tuple[int, int, int], ...]
    keeps: tuple[int, ...]
    writes: tuple[tuple[bool, bool, int, int], ...]
    rest: int
    fresh: bool


def cheapest(net: Network, ceiling: int, budget: int) -> list[bool] | None:
    """The cheapest allowed placement, ``None`` when that takes too many states.

    Units are placed in order. The rest of the problem notices of the placement so far only, for each tensor with
    consumers to come, the phase of its producer (its device and its earliest partition) and whether its crossing is
    paid for, and the number of partitions; of states equal in that the cheapest is kept. States that can never become
    better than another one are dropped (``_Front``).

    A chain has one tensor on its frontier, so at most one state per device survives without a limit, and one per phase
    with a limit k: time O(n) and O(n * k). In general the time is the sum of the states, at most
    units * (4 * (limit + 1)) ** width, where width is the largest number of tensors that are alive at once.

    Args:
        net: the problem.
        ceiling: what some allowed placement costs, in picoseconds; states that cannot reach it are dropped.
        budget: how many states may be made in all; of one unit there may be ``WIDEST``.
    """
    phased = bool(net.launch) or net.limit is not None
    states = [State(0, 0, (), None)]
    for step in _steps(net):
        grown: dict[tuple[Key, int], State] = {}
        for state in states:
            for on_npu in net.may[step.unit]:
                new = _grow(net, step, state, on_npu, phased)
                if new is None or new.paid + step.rest > ceiling:
                    continue
                same = grown.get((new.key, new.partitions))
                if same is None or new.paid < same.paid:
                    grown[new.key, new.partitions] = new
        budget -= len(grown)
        if budget < 0 or len(grown) > WIDEST:
            return None
        states = _undominated(net, step, list(grown.values())) if phased else list(grown.values())
    return _labels(min(states, key=lambda s: (s.paid, s.partitions)))


def _grow(net: Network, step: Step, state: State, on_npu: bool, phased: bool) -> State | None:
    """``state`` with one more unit; ``None`` when that is one partition too many."""
    codes = [*state.key, *[0] * step.opens]
    phase = max((codes[slot] >> 1 for slot, *_ in step.reads), default=0)
    phase = phase + (phase + on_npu) % 2 if phased else int(on_npu)
    partitions = max(state.partitions, (phase + 1) // 2) if phased else 0
    if net.limit is not None and partitions > net.limit:
        return None
    paid = state.paid + (net.npu if on_npu else net.cpu)[step.unit] + net.launch * (partitions - state.partitions)
    for slot, to_cpu, to_npu in step.reads:
        code = codes[slot]
        if (code >> 1) % 2 != on_npu and not code & 1:
            paid += to_npu if on_npu else to_cpu
            codes[slot] = code | 1
    key = [codes[slot] for slot in step.keeps]
    for is_read, is_output, to_cpu, to_npu in step.writes:
        paid += to_cpu if on_npu and is_output else 0
        settled = not (to_cpu if on_npu else to_npu) or (on_npu and is_output)
        if is_read:
            key.append(2 * phase + settled)
    return State(paid, partitions, tuple(key), (on_npu, state.trail))


def _undominated(net: Network, step: Step, states: list[State]) -> list[State]:
    """The states that no other one with the same devices and crossings on the frontier is surely as good as."""
    groups: dict[Key, _Front] = {}
    for state in sorted(states, key=lambda s: (s.paid, s.partitions, s.key)):
        front = groups.setdefault(tuple([code & 3 for code in state.key]), _Front(len(state.key)))
        if not front.beats(net, step, state):
            front.add(state)
    return [state for front in groups.values() for state in front.states]


class _Front:
    """States with the same devices and crossings on the frontier, none surely as good as another; as arrays."""

    def __init__(self, width: int) -> None:
        self.states: list[State] = []
        self.keys = np.empty((4, width), np.int64)
        self.paid = np.empty((4, 2), np.int64)

    def add(self, state: State) -> None:
        """Keep ``state``."""
        count = len(self.states)
        if count == len(self.keys):
            self.keys, self.paid = np.repeat(self.keys, 2, axis=0), np.repeat(self.paid, 2, axis=0)
        self.keys[count], self.paid[count] = state.key, (state.paid, state.partitions)
        self.states.append(state)

    def beats(self, net: Network, step: Step, other: State) -> bool:
        """Whether for one of the states every way to go on from ``other`` is possible and costs no more in all.

        Let d be by how many partitions the frontier of the state is later than that of ``other`` at most (it may be
        negative). Phases are maxima over inputs, so with the same devices for the rest every unit of the rest that
        depends on the frontier is at most d partitions later from the state; units that depend on nothing so far are
        not earlier, hence d >= 0 if there are any. If the rest reaches partition s from ``other``, it reaches at most
        s + d from the state; then ``other`` pays max(0, s - P') more launches and the state at most max(0, s + d - P),
        where P and P' are their partitions so far. The difference is largest at s = P': max(0, P' + d - P). Under a
        limit, d must not be positive, or the rest may be too late from the state alone.
        """
        count = len(self.states)
        if not count:
            return False
        paid, partitions = self.paid[:count].T
        if other.key:
            later = ((self.keys[:count] - np.array(other.key)) >> 2).max(axis=1)
        else:
            later = np.full(count, -other.partitions)
        if step.fresh:
            later = np.maximum(later, 0)
        good = paid + net.launch * np.maximum(0, other.partitions + later - partitions) <= other.paid
        if net.limit is not None:
            good &= later <= 0
        return bool(good.any())


def _steps(net: Network) -> Iterator[Step]:
    """The steps in order."""
    last = [max(w.consumers, default=-1) for w in net.wires]
    reads: list[list[int]] = [[] for _ in net.names]
    writes: list[list[int]] = [[] for _ in net.names]
    for number, wire in enumerate(net.wires):
        for c in wire.consumers:
            reads[c].append(number)
        if wire.producer is not None and (wire.consumers or wire.is_output):
            writes[wire.producer].append(number)
    rest = sum(_least(net, u) for u in range(len(net.names)))
    newest = max((u for u, b in enumerate(net.before) if not b), default=-1)
    frontier: list[int] = []
    for unit in range(len(net.names)):
        opened = [n for n in reads[unit] if net.wires[n].producer is None and n not in frontier]
        frontier = [*frontier, *opened]
        place = {number: slot for slot, number in enumerate(frontier)}
        keeps = tuple(slot for slot, number in enumerate(frontier) if last[number] > unit)
        rest -= _least(net, unit)
        taken = tuple((place[n], net.wires[n].to_cpu, net.wires[n].to_npu) for n in reads[unit])
        given = tuple(
            (last[n] > unit, net.wires[n].is_output, net.wires[n].to_cpu, net.wires[n].to_npu) for n in writes[unit]
        )
        yield Step(unit, len(opened), taken, keeps, given, rest, newest > unit)
        frontier = [frontier[slot] for slot in keeps] + [n for n in writes[unit] if last[n] > unit]


def _least(net: Network, unit: int) -> int:
    return min(net.npu[unit] if on else net.cpu[unit] for on in net.may[unit])


def _labels(state: State) -> list[bool]:
    found: list[bool] = []
    trail = state.trail
    while trail is not None:
        on_npu, trail = trail
        found.append(on_npu)
    return found[::-1]
