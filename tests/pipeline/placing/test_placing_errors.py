"""Problems without a meaning or an answer, and placements and solutions that are wrong: each with its own sentence."""

import math
from dataclasses import replace

import pytest

from pipeline.errors import ModelError
from pipeline.placing.baselines import cpu_only, greedy
from pipeline.placing.checker import faults
from pipeline.placing.evaluate import evaluate, npu_partitions, partitions
from pipeline.placing.exact import exact
from pipeline.placing.mincut import mincut
from pipeline.placing.problem import Crossing, Problem, Unit


def line(*units, **settings):
    """A chain of ``(cpu_ms, npu_ms, must)`` with crossings of 1 ms, from an input to an output of the graph."""
    made = tuple(Unit(f"u{i}", *u) for i, u in enumerate(units))
    last = len(made) - 1
    tensors = [Crossing("in", None, ("u0",), False, 1.0, 1.0)]
    tensors += [
        Crossing(f"t{i}", f"u{i}", () if i == last else (f"u{i + 1}",), i == last, 1.0, 1.0) for i in range(last + 1)
    ]
    return Problem(made, tuple(tensors), **settings)


FORCED_APART = line((1, 1, "npu"), (1, None), (1, 1, "npu"), max_npu_partitions=1)


def test_a_chip_that_is_slower_than_its_cpu_gets_nothing():
    problem = line((3.0, 2.0), (3.0, 2.0), launch_ms=0.5)
    found = exact(problem)
    assert set(found.devices.values()) == {"cpu"}
    assert (found.ms, found.npu_partitions, found.crossings, found.optimal) == (6.0, 0, (), True)
    assert greedy(problem).ms == 6.5


def test_one_copy_of_a_tensor_serves_all_its_consumers():
    units = (Unit("a", 1, 9), *(Unit(f"b{i}", 9, 1) for i in range(5)))
    shared = Crossing("t", "a", tuple(f"b{i}" for i in range(5)), False, 100, 2)
    found = exact(Problem(units, (shared,)))
    assert (found.ms, found.crossings) == (8, ("t",))


def test_nothing_to_place_costs_nothing():
    found = exact(Problem(()))
    assert (found.ms, found.optimal, dict(found.devices)) == (0, True, {})


def test_no_partition_at_all_is_a_limit_too():
    assert set(exact(line((9, 1), max_npu_partitions=0)).devices.values()) == {"cpu"}


def test_the_sequence_of_partitions_is_that_of_the_phases():
    problem = line((1, 1), (1, None), (1, 1))
    devices = {"u0": "npu", "u1": "cpu", "u2": "npu"}
    assert partitions(problem, devices) == (("npu", ("u0",)), ("cpu", ("u1",)), ("npu", ("u2",)))
    assert npu_partitions(problem, devices) == 2
    assert evaluate(problem, devices) == 7


def test_greedy_keeps_the_first_partitions():
    found = greedy(line((9, 1), (1, None), (9, 1), max_npu_partitions=1))
    assert found.devices == {"u0": "npu", "u1": "cpu", "u2": "cpu"}


def test_greedy_gives_way_to_a_demand_that_comes_late():
    found = greedy(line((9, 1), (1, None), (9, 1, "npu"), max_npu_partitions=1))
    assert found.devices == {"u0": "cpu", "u1": "cpu", "u2": "npu"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: line((1, None, "npu")), r"^u0: must be on the NPU, which cannot run it"),
        (lambda: FORCED_APART, r"^u2: must be on the NPU, which needs partition 2 of at most 1"),
        (lambda: line((1, 1, "npu"), max_npu_partitions=0), r"^u0: .* partition 1 of at most 0"),
        (lambda: line((math.nan, 1)), r"^u0: cpu_ms is nan ms"),
        (lambda: line((1, -1.0)), r"^u0: npu_ms is -1.0 ms"),
        (lambda: line((1, 1), launch_ms=math.inf), r"^launch_ms is inf ms"),
        (lambda: line((1e8, 1)), r"all costs together are 1e\+08 ms; they must stay below 1e\+08 ms"),
        (lambda: line((1, 1), max_npu_partitions=-1), r"^max_npu_partitions is -1"),
        (lambda: Problem((Unit("a", 1, 1), Unit("a", 1, 1))), r"^a: is the name of more than one unit"),
        (lambda: Problem((), (Crossing("t", None, (), True, 0, 0),) * 2), r"^t: is the name of more than one tensor"),
        (lambda: Problem((), (Crossing("t", "ghost", (), True, 0, 0),)), r"^t: is said to touch ghost"),
        (lambda: Problem((), (Crossing("t", None, ("ghost",), True, 0, 0),)), r"^t: is said to touch ghost"),
        (
            lambda: Problem(
                (Unit("a", 1, 1), Unit("b", 1, 1)),
                (Crossing("s", "a", ("b",), False, 0, 0), Crossing("t", "b", ("a",), False, 0, 0)),
            ),
            r"^a: depends on itself",
        ),
    ],
)
@pytest.mark.parametrize("solver", [exact, greedy])
def test_impossible_problems_name_what_is_to_blame(make, message, solver):
    with pytest.raises(ModelError, match=message):
        solver(make())


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ({"u0": "npu"}, r"^u1: is placed on None, which is no device"),
        ({"u0": "npu", "u1": "gpu"}, r"^u1: is placed on gpu, which is no device"),
        ({"u0": "npu", "u1": "npu", "u2": "npu"}, r"^u1: is placed on the NPU, where it may not be"),
        ({"u0": "npu", "u1": "cpu", "u2": "npu"}, r"^the placement needs 2 NPU partitions; the target takes 1"),
    ],
)
def test_wrong_placements_are_refused(devices, message):
    with pytest.raises(ModelError, match=message):
        evaluate(line((1, 1), (1, None), (1, 1), max_npu_partitions=1), devices)


def test_the_minimum_cut_refuses_what_it_cannot_know():
    for problem in (line((1, 1), launch_ms=1.0), line((1, 1), max_npu_partitions=1)):
        with pytest.raises(ModelError, match="neither launch costs nor limits"):
            mincut(problem)


def test_all_on_the_cpu_is_refused_when_the_npu_is_demanded():
    with pytest.raises(ModelError, match=r"^u0: must be on the NPU, so not everything can be on the CPU"):
        cpu_only(line((1, 1, "npu")))


GOOD = line((9, 1), (1, None), (9, 1), launch_ms=0.5)


def _worse(**changes):
    return replace(exact(GOOD), **changes)


@pytest.mark.parametrize(
    ("solution", "sequence", "fault"),
    [
        ({}, [("npu", "u0"), ("cpu", "u1")], "the partitions are not made of every unit once"),
        ({}, [("npu", "u0"), ("npu", "u1"), ("npu", "u2")], "u1 is in a partition of the other device"),
        ({}, [("npu", "u2"), ("cpu", "u1"), ("npu", "u0")], "u1 runs before its input u0"),
        ({}, [("npu", "u0", "u2"), ("cpu", "u1")], "the partitions wait for each other"),
        ({}, [("npu", "u0", "u2"), ("cpu", "u1")], "there are 1 NPU partitions, not 2"),
        ({"crossings": ()}, None, "the tensors that cross are not those named"),
        ({"ms": 7.0}, None, "it costs 8.0 ms, not 7.0"),
        ({"optimal": False}, None, "its bound contradicts its cost"),
        ({"lower_bound_ms": 9.0}, None, "its bound contradicts its cost"),
    ],
)
def test_the_checker_finds_what_is_wrong(solution, sequence, fault):
    pieces = partitions(GOOD, exact(GOOD).devices)
    if sequence is not None:
        pieces = tuple((device, tuple(names)) for device, *names in sequence)
    assert not faults(GOOD, exact(GOOD), partitions(GOOD, exact(GOOD).devices))
    assert fault in faults(GOOD, _worse(**solution), pieces)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"max_npu_partitions": 1}, "there are 2 NPU partitions of at most 1"),
        ({"max_npu_partitions": 0}, "there are 2 NPU partitions of at most 0"),
        ({"units": (replace(GOOD.units[0], must="cpu"), *GOOD.units[1:])}, "u0 must be on the cpu"),
        ({"units": (replace(GOOD.units[0], npu_ms=None), *GOOD.units[1:])}, "u0 cannot run on the NPU"),
    ],
)
def test_the_checker_knows_what_is_allowed(change, fault):
    found = exact(GOOD)
    assert fault in faults(replace(GOOD, **change), found, partitions(GOOD, found.devices))


def test_the_gap_is_none_when_proven_and_unbounded_without_a_bound():
    assert exact(GOOD).gap_percent == 0
    assert _worse(optimal=False, lower_bound_ms=4.0).gap_percent == 100
    assert greedy(GOOD).gap_percent == math.inf
