"""Placements without search: what toolchains do, and everything on the CPU."""

from pipeline.errors import ModelError
from pipeline.placing.evaluate import solution
from pipeline.placing.network import Network, allowed, cost, fewest, network, phases
from pipeline.placing.problem import Problem, Solution


def greedy(problem: Problem) -> Solution:
    """What toolchains do: everything that the NPU takes is on the NPU; of too many partitions the first are kept.

    Where that breaks a demand (a unit that must be on the NPU comes late), the units with a choice join their inputs
    instead. Its lower bound is 0: it proves nothing. Raises ``ModelError`` for impossible demands.
    """
    net = network(problem)
    return solution(problem, net, greedy_labels(net), 0)


def cpu_only(problem: Problem) -> Solution:
    """Everything on the CPU, with a lower bound of 0.

    Raises:
        ModelError: a unit must be on the NPU.
    """
    net = network(problem)
    for name, may in zip(net.names, net.may, strict=True):
        if False not in may:
            raise ModelError("must be on the NPU, so not everything can be on the CPU", where=name)
    return solution(problem, net, [False] * len(net.names), 0)


def greedy_labels(net: Network) -> list[bool]:
    """Where ``greedy`` puts the units of ``net``."""
    labels = [True in may for may in net.may]
    if net.limit is not None:
        labels = keep(net, labels, 0, net.limit)
    return labels if allowed(net, labels) else fewest(net, net.may)


def keep(net: Network, labels: list[bool], start: int, number: int) -> list[bool]:
    """``labels`` with only ``number`` NPU phases, from the one at position ``start``; the rest is on the CPU."""
    first, last = 2 * start + 1, 2 * (start + number) - 1
    return [on and first <= phase <= last for on, phase in zip(labels, phases(net, labels), strict=True)]


def starts(net: Network) -> list[list[bool]]:
    """Allowed placements to begin a search with, cheapest first: greedy, all on the CPU, the fewest partitions."""
    found = [greedy_labels(net), [may == (True,) for may in net.may], fewest(net, net.may)]
    return sorted((labels for labels in found if allowed(net, labels)), key=lambda labels: cost(net, labels))
