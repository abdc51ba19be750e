"""Whether a floor on what runs on the NPU can be met by any placement."""

from collections.abc import Mapping
from dataclasses import replace

from pipeline.errors import ModelError
from pipeline.placing.exact import exact
from pipeline.placing.problem import CPU, Problem


def require_floor(problem: Problem, weights: Mapping[str, float], floor: float, what: str) -> float:
    """The most that the units on the NPU can weigh together under the problem's demands and limit, at any cost.

    It is a placement problem itself: a unit costs its weight on the CPU and nothing on the NPU, nothing else costs.

    Args:
        problem: the demands and the limit; its costs are not asked.
        weights: what each unit counts, for example its multiply-accumulates; missing ones count 0.
        floor: the least sum.
        what: the unit of the sum, for the message.

    Raises:
        ModelError: no placement is proven to meet the floor; names the heaviest unit that stays on the CPU.
    """
    scale = max((*weights.values(), 1.0))  # costs are kept to 9 decimals
    units = tuple(
        replace(u, cpu_ms=weights.get(u.name, 0.0) / scale, npu_ms=None if u.npu_ms is None else 0.0)
        for u in problem.units
    )
    tensors = tuple(replace(t, to_cpu_ms=0.0, to_npu_ms=0.0) for t in problem.tensors)
    best = exact(replace(problem, units=units, tensors=tensors, launch_ms=0.0))
    most = sum(weights.get(u.name, 0.0) for u in units if best.devices[u.name] != CPU)
    if most >= floor:
        return most
    stays = max((u.name for u in units if best.devices[u.name] == CPU), key=lambda n: weights.get(n, 0.0), default=None)
    raise ModelError(
        f"stays on the CPU, so the NPU gets at most {most:g} {what}; the floor is {floor:g}",
        where=stays,
        fix="lower the floor, or rewrite this operator",
    )
