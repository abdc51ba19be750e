"""Branch and bound for graphs too wide for dynamic programming, with minimum cuts as lower bounds."""

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import count as counter

from pipeline.placing.baselines import keep
from pipeline.placing.mincut import Prices, relax
from pipeline.placing.network import Network, allowed, cost, count, fewest, phases

TIGHTENINGS = 24
MOST_WINDOWS = 12
May = tuple[tuple[bool, ...], ...]


class _Best:
    """The cheapest allowed placement so far."""

    def __init__(self, net: Network, labels: list[bool]) -> None:
        self.net, self.labels, self.cost = net, labels, cost(net, labels)

    def offer(self, labels: list[bool]) -> None:
        """Take ``labels``, or what can be repaired or improved of it, when that is cheaper."""
        for candidate in (labels, *_variants(self.net, labels)):
            if allowed(self.net, candidate) and (total := cost(self.net, candidate)) < self.cost:
                self.labels, self.cost = candidate, total


def search(net: Network, start: list[bool], budget: int) -> tuple[list[bool], int]:
    """The cheapest allowed placement found and a lower bound in picoseconds; they meet when it is optimal.

    Best first: of all open sets of placements the one with the smallest bound is split on one unit, until that bound
    reaches the best placement (then it is optimal) or ``budget`` sets have been bounded (then the smallest bound that
    is open is the bound of the whole). The bound of a set is the larger of two (``_bound``).

    Args:
        net: the problem.
        start: an allowed placement.
        budget: how many sets may be bounded; each takes two minimum cuts.
    """
    best = _Best(net, start)
    if all(False in may for may in net.may):
        best.offer([False] * len(net.names))
    prices = _tighten(net, best)
    ticket = counter()
    open_sets: list[tuple[int, int, May, list[bool]]] = []
    _open(net, net.may, prices, best, open_sets, ticket)
    while open_sets and open_sets[0][0] < best.cost:
        bound, _, may, labels = open_sets[0]
        unit = _split(net, may, labels)
        if unit is None or budget <= 0:
            return best.labels, bound
        heappop(open_sets)
        for on_npu in (False, True):
            budget -= 1
            _open(net, (*may[:unit], (on_npu,), *may[unit + 1 :]), prices, best, open_sets, ticket)
    return best.labels, best.cost


def _open(
    net: Network,
    may: May,
    prices: Prices,
    best: _Best,
    open_sets: list[tuple[int, int, May, list[bool]]],
    ticket: Iterator[int],
) -> None:
    """Bound the placements within ``may``, and keep them when one may be cheaper than the best."""
    found = _bound(net, may, prices, best)
    if found is not None and found[0] < best.cost:
        heappush(open_sets, (found[0], next(ticket), may, found[1]))


def _bound(net: Network, may: May, prices: Prices, best: _Best) -> tuple[int, list[bool]] | None:
    """A lower bound for placements within ``may`` with at least one NPU unit, and the labelling it comes from.

    ``None`` when there is no allowed one. Both bounds are minimum cuts:

    1. Without launches, plus the launches of the fewest partitions that ``may`` leaves possible, at least one.
    2. With ``prices`` on paths. Along any path the stretches of NPU units are at most the partitions, so for a
       placement with K partitions the prices charge at most K * sum(prices); what that exceeds K launches by is at
       most (sum(prices) - launch) * limit, which is subtracted (Lagrange relaxation of stretches <= K <= limit).
    """
    least = max(1, count(net, fewest(net, may)))
    if net.limit is not None and least > net.limit:
        return None
    plain, labels = relax(net, may, {})
    bound = plain + net.launch * least
    best.offer(labels)
    if prices and bound < best.cost:
        priced, other = relax(net, may, prices)
        priced -= _excess(net, prices)
        best.offer(other)
        if priced > bound:
            return priced, other
    return bound, labels


def _excess(net: Network, prices: Prices) -> int:
    """What prices may charge beyond the launches; without a limit they must not sum to more than a launch."""
    return max(0, sum(prices.values()) - net.launch) * (net.limit or 0)


def _tighten(net: Network, best: _Best) -> Prices:
    """Prices on paths that make the bound of all placements as large as a fixed number of minimum cuts can.

    Each round charges the path with the most stretches of the last cut's placement, averaged with the paths before
    (the fictitious play of a zero-sum game, Robinson 1951). The sum of the prices is one launch without a limit; with
    one it grows while the cut takes too many partitions and shrinks while it takes no more than allowed, by smaller
    and smaller steps.
    """
    plain, labels = relax(net, net.may, {})
    best.offer(labels)
    total = net.launch
    if net.limit is not None:
        total += (best.cost - plain) // max(1, count(net, labels) - net.limit)
    weights: dict[tuple[int, ...], int] = {}
    chosen: tuple[int, Prices] = (plain, {})
    for rounds in range(1, TIGHTENINGS + 1):
        if path := _critical(net, labels):
            weights[path] = weights.get(path, 0) + rounds
        if not weights or not total:
            break
        scale = sum(weights.values())
        prices = {p: total * w // scale for p, w in weights.items()}
        value, labels = relax(net, net.may, prices)
        best.offer(labels)
        value -= _excess(net, prices)
        if value > chosen[0]:
            chosen = (value, prices)
        if value >= best.cost:
            break
        if net.limit is not None:
            more = count(net, labels) > net.limit
            total = total * (rounds + 3) // (rounds + 1) if more else total * (rounds + 1) // (rounds + 3)
            total = max(total, net.launch)
    return chosen[1]


def _critical(net: Network, labels: Sequence[bool]) -> tuple[int, ...]:
    """A path with as many stretches of NPU units as there are partitions, from end to end; empty without NPU units.

    Of several the one through units that are close in the order, which tends to be the longest.
    """
    found = phases(net, labels)
    ends = [unit for unit, on_npu in enumerate(labels) if on_npu]
    if not ends:
        return ()
    path = [max(ends, key=lambda unit: (found[unit], -unit))]
    while net.before[path[-1]]:
        path.append(max(net.before[path[-1]], key=lambda unit: (found[unit], unit)))
    path.reverse()
    for unit, before in enumerate(net.before):
        if path[-1] in before:
            path.append(unit)
    return tuple(path)


def _split(net: Network, may: May, labels: list[bool]) -> int | None:
    """The unit to split on: a free one in a gap of the critical path, else on the path, else any; ``None`` if none is.

    In the middle of what qualifies, so that both halves differ much.
    """
    path = _critical(net, labels)
    free = [unit for unit in path if len(may[unit]) > 1]
    gaps = [unit for unit in free if not labels[unit]]
    choice = gaps or free or [unit for unit, devices in enumerate(may) if len(devices) > 1]
    return choice[len(choice) // 2] if choice else None


def _variants(net: Network, labels: list[bool]) -> Iterator[list[bool]]:
    """``labels`` with fewer partitions: windows of as many as are allowed, or without one of them."""
    partitions = count(net, labels)
    if net.limit is not None and partitions > net.limit:
        for start in range(min(MOST_WINDOWS, partitions - net.limit + 1)):
            yield keep(net, labels, start, net.limit)
    elif net.launch:
        found = phases(net, labels)
        for number in range(min(MOST_WINDOWS, partitions)):
            yield [on and phase != 2 * number + 1 for on, phase in zip(labels, found, strict=True)]
