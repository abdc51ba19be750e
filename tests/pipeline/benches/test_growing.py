"""What bench prints of growing graphs: that it is fast, and grows no faster than the graph."""

import pytest
from smallmodels import target

from pipeline.benches.growing import network, speed
from pipeline.checking.check import Demands
from pipeline.cost import hosts
from pipeline.graph.model import check
from pipeline.graph.view import view

HOST = hosts.named("cortex-a53", hosts.folder())


@pytest.mark.parametrize("name", ["coral-edgetpu-pcie", "ethos-u65-256"])  # one NPU partition, and any number
def test_ten_thousand_nodes_are_judged_in_two_seconds_and_everything_is_linear(name):
    small, large = (speed(size, target(name), HOST, Demands(prices=False)) for size in (1_000, 10_000))
    assert (small.nodes, large.nodes) == (1_000, 10_000)
    assert large.open_s + large.judge_s < 2
    for part in ("open_s", "judge_s", "check_s"):
        assert getattr(large, part) < 30 * max(getattr(small, part), 0.01)  # ten times the work; its square is 100
    assert large.nodes_per_second == large.nodes / (large.open_s + large.check_s)


def test_the_network_that_is_measured_is_one():
    graph = view(check(network(25), "test"))
    assert len(graph.nodes) == 25
    assert {n.op for n in graph.nodes} == {"Conv", "Relu", "Sigmoid", "MaxPool", "Add", "Elu"}
