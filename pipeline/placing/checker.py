"""An independent judge of solutions: shares no code with the solvers, and no cleverness."""

from graphlib import CycleError, TopologicalSorter

from pipeline.placing.problem import NPU, Device, Problem, Solution


def faults(
    problem: Problem, solution: Solution, partitions: tuple[tuple[Device, tuple[str, ...]], ...]
) -> tuple[str, ...]:
    """Everything wrong with ``solution`` run as ``partitions``, each a sentence; empty when it is sound.

    Every unit is in one partition, of the device it is placed on and may be on; no partition reads from a later one,
    and the partitions as a whole form no cycle (so each is convex: no path leaves and comes back); there are as many
    NPU partitions as the solution says and no more than the target takes; the tensors that cross are those named; the
    cost is the sum; the bound is below it.
    """
    place = {name: number for number, (_, names) in enumerate(partitions) for name in names}
    found = [*_membership(problem, solution, partitions, place)]
    if found:
        return tuple(found)
    edges = [(t.producer, c) for t in problem.tensors if t.producer is not None for c in t.consumers]
    found += [f"{c} runs before its input {p}" for p, c in edges if place[p] > place[c]]
    waits: dict[int, set[int]] = {number: set() for number in range(len(partitions))}
    for p, c in edges:
        if place[p] != place[c]:
            waits[place[c]].add(place[p])
    try:
        TopologicalSorter(waits).prepare()
    except CycleError:
        found.append("the partitions wait for each other")
    number = sum(device == NPU for device, _ in partitions)
    limit = problem.max_npu_partitions
    if number != solution.npu_partitions:
        found.append(f"there are {number} NPU partitions, not {solution.npu_partitions}")
    if limit is not None and number > limit:
        found.append(f"there are {number} NPU partitions of at most {limit}")
    return (*found, *_costs(problem, solution, number))


def _membership(
    problem: Problem,
    solution: Solution,
    partitions: tuple[tuple[Device, tuple[str, ...]], ...],
    place: dict[str, int],
) -> list[str]:
    found = []
    members = sorted(name for _, names in partitions for name in names)
    if members != sorted(u.name for u in problem.units) or set(solution.devices) != set(members):
        found.append("the partitions are not made of every unit once")
        return found
    for unit in problem.units:
        device = solution.devices[unit.name]
        if partitions[place[unit.name]][0] != device:
            found.append(f"{unit.name} is in a partition of the other device")
        if unit.must not in (None, device):
            found.append(f"{unit.name} must be on the {unit.must}")
        if device == NPU and unit.npu_ms is None:
            found.append(f"{unit.name} cannot run on the NPU")
    return found


def _costs(problem: Problem, solution: Solution, launches: int) -> list[str]:
    found = []
    total = launches * problem.launch_ms
    for unit in problem.units:
        total += (unit.npu_ms or 0.0) if solution.devices[unit.name] == NPU else unit.cpu_ms
    crossings = []
    for tensor in problem.tensors:
        here = tensor.producer is not None and solution.devices[tensor.producer] == NPU
        needed = {solution.devices[c] == NPU for c in tensor.consumers} | ({False} if tensor.is_output else set())
        if (not here) in needed:
            crossings.append(tensor.name)
            total += tensor.to_cpu_ms if here else tensor.to_npu_ms
    if tuple(crossings) != solution.crossings:
        found.append("the tensors that cross are not those named")
    tolerance = 1e-9 * (1 + len(problem.units) + len(problem.tensors)) + 1e-12 * total
    if abs(total - solution.ms) > tolerance:
        found.append(f"it costs {total} ms, not {solution.ms}")
    if solution.lower_bound_ms > solution.ms or solution.optimal != (solution.lower_bound_ms == solution.ms):
        found.append("its bound contradicts its cost")
    return found
