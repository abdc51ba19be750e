"""The cheapest placement, with a certificate: which algorithm solves which problem."""

from pipeline.placing.baselines import starts
from pipeline.placing.branch import search
from pipeline.placing.evaluate import solution
from pipeline.placing.frontier import cheapest
from pipeline.placing.mincut import relax
from pipeline.placing.network import Network, allowed, cost, network
from pipeline.placing.problem import Problem, Solution

STATES = 1_000_000
"""States that dynamic programming may make: seconds on one core."""
SETS = 100
"""Sets of placements that branch and bound may bound: twice as many minimum cuts, 10 s on 1,000 units."""


def exact(problem: Problem, states: int = STATES, sets: int = SETS) -> Solution:
    """The cheapest allowed placement, or the best one found with a lower bound that holds.

    1. A minimum cut (mincut.py) is the optimum when nothing is charged per partition and it keeps the limit.
    2. Otherwise dynamic programming over the frontier (frontier.py), which takes linear time on chains and on the
       narrow graphs that most networks are.
    3. On graphs too wide for that, branch and bound with minimum cuts (branch.py). Only when its budget runs out too
       is the solution not proven: ``optimal`` is false, ``lower_bound_ms`` and ``gap_percent`` say how far it may be.

    Deterministic: the same problem gives the same placement.

    Args:
        problem: what to place.
        states: the budget of dynamic programming.
        sets: the budget of branch and bound.

    Raises:
        ModelError: the demands are impossible; names the unit.
    """
    net = network(problem)
    labels, bound = _solve(net, states, sets)
    return solution(problem, net, labels, bound)


def _solve(net: Network, states: int, sets: int) -> tuple[list[bool], int]:
    value, labels = relax(net, net.may, {})
    if allowed(net, labels) and cost(net, labels) == value:
        return labels, value
    known = starts(net)
    if allowed(net, labels):
        known = sorted((*known, labels), key=lambda found: cost(net, found))
    found = cheapest(net, cost(net, known[0]), states)
    if found is not None:
        return found, cost(net, found)
    return search(net, known[0], sets)
