"""Every solver against brute force over all placements, which is written here and shares nothing with them."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ModelError
from pipeline.placing.baselines import cpu_only, greedy, starts
from pipeline.placing.branch import search
from pipeline.placing.checker import faults
from pipeline.placing.evaluate import evaluate, npu_partitions, partitions
from pipeline.placing.exact import exact
from pipeline.placing.frontier import cheapest
from pipeline.placing.mincut import mincut
from pipeline.placing.network import cost, network
from pipeline.placing.problem import Crossing, Problem, Unit

GRID = 8  # all costs are multiples of 1/8 ms, so that sums of them are exact and ties are frequent


def brute_force(problem):
    """The least milliseconds over all allowed placements, ``None`` without one; by trying all 2**n at once."""
    names = [u.name for u in problem.units]
    n = len(names)
    on = {name: (np.arange(2**n) >> i & 1).astype(bool) for i, name in enumerate(names)}
    total = np.zeros(2**n)
    good = np.ones(2**n, bool)
    for u in problem.units:
        total += np.where(on[u.name], u.npu_ms or 0, u.cpu_ms)
        good &= ~on[u.name] if u.npu_ms is None or u.must == "cpu" else True
        good &= on[u.name] if u.must == "npu" else True
    for t in problem.tensors:
        here = on[t.producer] if t.producer else np.zeros(2**n, bool)
        any_npu = np.any([on[c] for c in t.consumers], axis=0) if t.consumers else np.zeros(2**n, bool)
        any_cpu = np.any([~on[c] for c in t.consumers], axis=0) if t.consumers else np.zeros(2**n, bool)
        total += t.to_cpu_ms * (here & (any_cpu | t.is_output)) + t.to_npu_ms * (~here & any_npu)
    stretches = longest_alternation(problem, on)
    good &= stretches <= (len(names) if problem.max_npu_partitions is None else problem.max_npu_partitions)
    total += stretches * problem.launch_ms
    return total[good].min() if good.any() else None


def longest_alternation(problem, on):
    """Per placement the most NPU stretches that any path of the graph has, as the definition says it."""
    edges = [(t.producer, c) for t in problem.tensors if t.producer for c in t.consumers]
    best = {}
    for u in problem.units:  # the random problems list units in topological order
        own = on[u.name].astype(int)
        for p, c in edges:
            if c == u.name:
                own = np.maximum(own, best[p] + (on[c] & ~on[p]))
        best[u.name] = own
    return np.max(list(best.values()), axis=0)


def random_problem(rng, size, launch, limit, musts):
    """A random DAG: shared tensors, several outputs of a unit, inputs read by many, outputs that are also read."""

    def ms(top):
        return float(rng.integers(0, top * GRID + 1)) / GRID

    units = tuple(
        Unit(
            f"u{i}",
            ms(4),
            None if rng.random() < 0.25 else ms(3),
            None if rng.random() >= musts else str(rng.choice(["npu", "cpu"])),
        )
        for i in range(size)
    )
    reach = int(rng.integers(1, size + 1))
    tensors = []
    for i in range(-2, size):
        for k in range(int(rng.integers(1, 3))):
            later = [j for j in range(max(0, i + 1), min(size, max(0, i) + 1 + reach)) if rng.random() < 0.4]
            top = int(rng.integers(0, 4))
            tensors.append(
                Crossing(
                    f"t{i}.{k}",
                    None if i < 0 else f"u{i}",
                    tuple(f"u{j}" for j in later),
                    bool(rng.random() < 0.2 or not later),
                    ms(top),
                    ms(top),
                )
            )
    return Problem(units, tuple(tensors), launch, limit)


@st.composite
def problems(draw, most=12, launches=(0.0, 0.5, 2.0), limits=(None, None, 1, 1, 2, 3), musts=None):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return random_problem(
        rng,
        draw(st.integers(1, most)),
        draw(st.sampled_from(launches)),
        draw(st.sampled_from(limits)),
        draw(st.sampled_from([0.0, 0.1, 0.3])) if musts is None else musts,
    )


def check(examples):
    quiet = [HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=quiet)


def feasible(problem):
    """The solution, or ``None`` after checking that brute force found no placement and a unit of it is to blame."""
    if brute_force(problem) is not None:
        return exact(problem)
    with pytest.raises(ModelError, match="must be on the NPU") as caught:
        exact(problem)
    assert caught.value.where in {u.name for u in problem.units}
    return None


@check(1500)
@given(problems())
def test_exact_is_what_brute_force_finds(problem):
    found = feasible(problem)
    if found is not None:
        assert found.ms == brute_force(problem) == found.lower_bound_ms
        assert found.optimal
        assert found.gap_percent == 0
        assert evaluate(problem, found.devices) == found.ms
        assert npu_partitions(problem, found.devices) == found.npu_partitions
        assert not faults(problem, found, partitions(problem, found.devices))


@check(700)
@given(problems())
def test_dynamic_programming_alone_is_what_brute_force_finds(problem):
    if brute_force(problem) is not None:
        net = network(problem)
        labels = cheapest(net, cost(net, starts(net)[0]), 10**6)
        assert cost(net, labels) / 1e9 == brute_force(problem)


@check(700)
@given(problems())
def test_branch_and_bound_alone_is_what_brute_force_finds(problem):
    if brute_force(problem) is not None and (problem.launch_ms or problem.max_npu_partitions is not None):
        net = network(problem)
        labels, bound = search(net, starts(net)[0], 10**4)
        assert cost(net, labels) == bound
        assert bound / 1e9 == brute_force(problem)


@check(400)
@given(problems(launches=(0.0,), limits=(None,), musts=0.0))
def test_minimum_cut_alone_is_what_brute_force_finds(problem):
    found = mincut(problem)
    assert found.ms == brute_force(problem)
    assert found.optimal


@check(400)
@given(problems(), st.integers(0, 6))
def test_without_budget_the_bound_still_holds(problem, sets):
    best = brute_force(problem)
    if best is not None:
        found = exact(problem, states=0, sets=sets)
        assert found.lower_bound_ms <= best <= found.ms
        assert found.optimal == (found.lower_bound_ms == found.ms)
        assert found.gap_percent >= 0
        assert not faults(problem, found, partitions(problem, found.devices))


@check(400)
@given(problems())
def test_exact_is_never_above_greedy_nor_the_cpu(problem):
    found = feasible(problem)
    if found is not None:
        kept = greedy(problem)
        assert found.ms <= kept.ms
        assert not kept.optimal or kept.ms == 0
        assert not faults(problem, kept, partitions(problem, kept.devices))
        if all(u.must != "npu" for u in problem.units):
            alone = cpu_only(problem)
            assert found.ms <= alone.ms
            assert (alone.npu_partitions, alone.crossings) == (0, ())


@check(250)
@given(problems(), st.data())
def test_dearer_crossings_and_launches_never_lower_the_optimum(problem, data):
    found = feasible(problem)
    if found is not None:
        factor = data.draw(st.sampled_from([1, 1.5, 3]))
        extra = data.draw(st.sampled_from([0, 0.125, 1]))
        tensors = tuple(
            Crossing(t.name, t.producer, t.consumers, t.is_output, t.to_cpu_ms * factor, t.to_npu_ms * factor + extra)
            for t in problem.tensors
        )
        dearer = Problem(problem.units, tensors, problem.launch_ms + extra, problem.max_npu_partitions)
        assert exact(dearer).ms >= found.ms
        looser = Problem(problem.units, problem.tensors, problem.launch_ms)
        assert exact(looser).ms <= found.ms


@check(150)
@given(problems())
def test_the_answer_does_not_depend_on_when_it_is_asked(problem):
    found = feasible(problem)
    if found is not None:
        assert exact(problem) == found
        assert exact(problem, states=0) == exact(problem, states=0)


@check(150)
@given(problems(limits=(None,)), st.integers(0, 2**32 - 1))
def test_the_order_in_which_units_are_listed_changes_nothing(problem, seed):
    found = feasible(problem)
    if found is not None:
        rng = np.random.default_rng(seed)
        units = tuple(problem.units[i] for i in rng.permutation(len(problem.units)))
        tensors = tuple(problem.tensors[i] for i in rng.permutation(len(problem.tensors)))
        assert exact(Problem(units, tensors, problem.launch_ms)).ms == found.ms


def test_costs_that_are_no_round_numbers_are_exact_to_the_picosecond():
    rng = np.random.default_rng(7)
    for _ in range(100):
        problem = random_problem(rng, 9, 0.0, None, 0.1)
        if brute_force(problem) is None:
            continue
        units = tuple(
            Unit(u.name, u.cpu_ms * rng.random(), None if u.npu_ms is None else u.npu_ms * rng.random() * 1e4, u.must)
            for u in problem.units
        )
        uneven = Problem(units, problem.tensors, float(rng.random()), int(rng.integers(1, 4)))
        if brute_force(uneven) is None:
            continue
        found = exact(uneven)
        assert found.ms == pytest.approx(brute_force(uneven), abs=1e-7)
        assert exact(uneven, states=0, sets=10**4).ms == found.ms
