"""What a placement costs: the one definition that every solver is measured by."""

from collections.abc import Mapping

from pipeline.errors import ModelError
from pipeline.placing.network import Labels, Network, allowed, cost, count, crosses, network, phases
from pipeline.placing.problem import CPU, NPU, PICOSECONDS_PER_MS, Device, Problem, Solution


def evaluate(problem: Problem, devices: Mapping[str, Device]) -> float:
    """Milliseconds of ``devices``: units on their devices, one copy of each tensor that crosses, and the launches.

    The number of launches is the number of NPU partitions, which are as few as an order without cycles allows. Each
    cost counts in whole picoseconds, so sums are exact.

    Raises:
        ModelError: a unit has no device, or one it may not have, or there are more partitions than the target takes.
    """
    net, labels = _labels(problem, devices)
    return cost(net, labels) / PICOSECONDS_PER_MS


def placed_at(problem: Problem, devices: Mapping[str, Device]) -> Solution:
    """``devices`` as a solution, with a lower bound of 0; raises as ``evaluate`` does."""
    net, labels = _labels(problem, devices)
    return solution(problem, net, labels, 0)


def npu_partitions(problem: Problem, devices: Mapping[str, Device]) -> int:
    """How many NPU partitions ``devices`` needs at least: the most NPU stretches that any path has.

    A path with k stretches of NPU units, parted by CPU units, needs k partitions that run one after another. The
    phases need no more: an NPU unit of phase 2k - 1 is at the end of such a path. Raises ``ModelError`` as
    ``evaluate`` does.
    """
    return count(*_labels(problem, devices))


def partitions(problem: Problem, devices: Mapping[str, Device]) -> tuple[tuple[Device, tuple[str, ...]], ...]:
    """The partitions in execution order, each with its device and its units in that order; raises as ``evaluate``."""
    net, labels = _labels(problem, devices)
    by_phase: dict[int, list[str]] = {}
    for name, phase in zip(net.names, phases(net, labels), strict=True):
        by_phase.setdefault(phase, []).append(name)
    return tuple((NPU if phase % 2 else CPU, tuple(by_phase[phase])) for phase in sorted(by_phase))


def solution(problem: Problem, net: Network, labels: Labels, lower_bound: int) -> Solution:
    """``labels`` with its cost and what crosses; ``lower_bound`` in picoseconds."""
    total = cost(net, labels)
    place = dict(zip(net.names, labels, strict=True))
    return Solution(
        devices={u.name: NPU if place[u.name] else CPU for u in problem.units},
        ms=total / PICOSECONDS_PER_MS,
        lower_bound_ms=lower_bound / PICOSECONDS_PER_MS,
        optimal=total == lower_bound,
        npu_partitions=count(net, labels),
        crossings=tuple(t.name for t, w in zip(problem.tensors, net.wires, strict=True) if crosses(w, labels)),
    )


def _labels(problem: Problem, devices: Mapping[str, Device]) -> tuple[Network, list[bool]]:
    net = network(problem)
    for name, may in zip(net.names, net.may, strict=True):
        device = devices.get(name)
        if device not in (CPU, NPU):
            raise ModelError(f"is placed on {device}, which is no device", where=name, fix=f"{CPU} or {NPU}")
        if (device == NPU) not in may:
            raise ModelError(f"is placed on the {device.upper()}, where it may not be", where=name)
    labels = [devices[name] == NPU for name in net.names]
    if not allowed(net, labels):
        raise ModelError(f"the placement needs {count(net, labels)} NPU partitions; the target takes {net.limit}")
    return net, labels
