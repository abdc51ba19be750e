"""The cheapest placement as a minimum cut: exact without launch costs and limits, a lower bound with them."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from pipeline.errors import ModelError
from pipeline.placing.evaluate import solution
from pipeline.placing.flow import Arcs, minimum_cut
from pipeline.placing.network import Network, Wire, network
from pipeline.placing.problem import Problem, Solution

Prices = Mapping[tuple[int, ...], int]
"""Picoseconds charged for every stretch of NPU units along a path, by path."""


def mincut(problem: Problem) -> Solution:
    """The cheapest placement of a problem without launch cost and without a limit on partitions.

    Let x = 1 for a unit on the NPU and 0 on the CPU. Every term of the cost is then an arc, or two through a node of
    its own, from the side of the ones (source) to the side of the zeros (sink):

    - a unit: ``cpu`` from the source to it, cut when x = 0; ``npu`` from it to the sink, cut when x = 1; infinite where
      the device is not allowed.
    - a tensor computed on the NPU, p = 1, with a consumer on the CPU: ``to_cpu * p * (1 - min x_c)``. With a node a:
      ``to_cpu`` from p to a, infinite from a to each consumer c. Infinity forces a <= min x_c, and the cheapest such a
      is that minimum, which gives the term.
    - a tensor computed on the CPU, p = 0, with a consumer on the NPU: ``to_npu * (1 - p) * max x_c``. With a node b:
      ``to_npu`` from b to p, infinite from each consumer c to b. Infinity forces b >= max x_c, the cheapest is equal.

    All are nonnegative arcs, so the sum over x, a and b is a cut function, which is submodular; minimizing a submodular
    function over some of its variables (a and b) leaves one that is submodular in the rest, so the cost of labellings
    is submodular and its minimum over x is the minimum cut. Time: that of a maximum flow on units + 2 * tensors nodes.

    Of equally cheap placements it is the one with the fewest units on the NPU.

    Raises:
        ModelError: there is a launch cost or a limit, which are not submodular, or the demands are impossible.
    """
    net = network(problem)
    if net.launch or net.limit is not None:
        raise ModelError("a minimum cut knows neither launch costs nor limits on partitions", fix="use solve")
    value, labels = relax(net, net.may, {})
    return solution(problem, net, labels, value)


def relax(net: Network, may: Sequence[tuple[bool, ...]], prices: Prices) -> tuple[int, list[bool]]:
    """The cheapest labelling when launches are not charged but stretches of NPU units along paths are.

    Args:
        net: the problem; its launch cost and limit are ignored.
        may: the devices allowed per unit.
        prices: what each stretch of NPU units along a path costs. Their number is the first unit of the path
            plus ``(1 - x_u) * x_v`` over its steps u to v, which are arcs from v to u: the sum stays submodular.

    Returns:
        The least cost in picoseconds, and the placement with the fewest NPU units that has it.
    """
    on_npu, on_cpu, steps = list(net.npu), list(net.cpu), Arcs()
    for path, price in prices.items():
        on_npu[path[0]] += price
        for u, v in pairwise(path):
            steps.add(v, u, price)
    _charge_single(net, on_npu)
    fixed = 0
    infinite = 1 + sum(on_npu) + sum(on_cpu) + sum(steps.capacities) + sum(w.to_cpu + w.to_npu for w in net.wires)
    source, sink = len(net.names), len(net.names) + 1
    nodes = sink + 1
    for wire in net.wires:
        nodes = _tensor(wire, steps, nodes, sink, infinite)
    for unit, devices in enumerate(may):
        base = min(on_npu[unit], on_cpu[unit])
        steps.add(source, unit, on_cpu[unit] - base if False in devices else infinite)
        steps.add(unit, sink, on_npu[unit] - base if True in devices else infinite)
        fixed += base
    value, side = minimum_cut(nodes, steps, source, sink)
    labels = [bool(s) for s in side[: len(net.names)]]
    return value + fixed, labels


def _charge_single(net: Network, on_npu: list[int]) -> None:
    """Charge to single units the tensors whose crossing depends on one unit.

    An output of the graph always has the CPU as consumer, so its producer alone decides; so does the only consumer of
    an input.
    """
    for wire in net.wires:
        if wire.producer is not None and wire.is_output:
            on_npu[wire.producer] += wire.to_cpu
        if wire.producer is None and len(wire.consumers) == 1:
            on_npu[wire.consumers[0]] += wire.to_npu


def _tensor(wire: Wire, arcs: Arcs, nodes: int, sink: int, infinite: int) -> int:
    """Add the arcs of a tensor, with new nodes from number ``nodes`` on; returns the number of nodes then."""
    p, consumers = wire.producer, wire.consumers
    if p is not None and len(consumers) == 1:
        arcs.add(p, consumers[0], 0 if wire.is_output else wire.to_cpu)
        arcs.add(consumers[0], p, wire.to_npu)
        return nodes
    if len(consumers) < 2:
        return nodes
    if p is not None and not wire.is_output and wire.to_cpu:
        arcs.add(p, nodes, wire.to_cpu)
        for c in consumers:
            arcs.add(nodes, c, infinite)
        nodes += 1
    if wire.to_npu:
        arcs.add(nodes, sink if p is None else p, wire.to_npu)
        for c in consumers:
            arcs.add(c, nodes, infinite)
        nodes += 1
    return nodes
