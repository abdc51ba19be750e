"""The speed that bench prints, and its growth with the graph."""

from smallmodels import target

from pipeline.compile.speed import network, speeds
from pipeline.graph.model import check
from pipeline.graph.view import view


def test_ten_thousand_nodes_are_judged_in_two_seconds_and_linearly():
    small, large = speeds(target(), (1_000, 10_000))
    assert (small.nodes, large.nodes) == (1_000, 10_000)
    assert large.judge_s < 2
    for name in ("open_s", "judge_s"):
        assert getattr(large, name) < 30 * max(getattr(small, name), 0.01)  # ten times the work; its square is 100
    assert large.nodes_per_second == large.nodes / (large.open_s + large.judge_s)


def test_the_network_that_is_measured_is_one():
    graph = view(check(network(25), "test"))
    assert len(graph.nodes) == 25
    assert {n.op for n in graph.nodes} == {"Conv", "Relu", "Sigmoid", "MaxPool", "Add", "Erf"}
