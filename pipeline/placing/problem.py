"""The placement problem and its solution, as data."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.errors import ModelError

NPU: Final = "npu"
CPU: Final = "cpu"
Device = Literal["npu", "cpu"]
PICOSECONDS_PER_MS = 10**9
LONGEST_MS = 1e8
"""All costs of a problem together must stay below this (a day), so that sums of them fit 64-bit integers."""


def picoseconds(ms: float) -> int:
    """Milliseconds on the grid that every solver computes on, exactly, in whole picoseconds."""
    return round(ms * PICOSECONDS_PER_MS)


@dataclass(frozen=True)
class Unit:
    """What is placed as a whole: an operator, or several that are fused.

    Attributes:
        name: unique within the problem.
        cpu_ms: time on the CPU.
        npu_ms: time on the NPU, ``None`` when the NPU cannot run it.
        must: the device that the user demands, ``None`` to let the solver choose.
    """

    name: str
    cpu_ms: float
    npu_ms: float | None
    must: Device | None = None


@dataclass(frozen=True)
class Crossing:
    """A tensor, and what it costs to bring it to the other device.

    A tensor has one producer, so it crosses in one direction at most, and one copy serves every consumer there.

    Attributes:
        name: unique within the problem.
        producer: the unit that computes it, ``None`` for an input of the graph (which lies on the CPU's side).
        consumers: the units that read it.
        is_output: the graph gives it, so it ends on the CPU's side as well.
        to_cpu_ms: paid once when the NPU computes it and the CPU needs it.
        to_npu_ms: paid once when the CPU has it and the NPU needs it.
    """

    name: str
    producer: str | None
    consumers: tuple[str, ...]
    is_output: bool
    to_cpu_ms: float
    to_npu_ms: float


@dataclass(frozen=True)
class Problem:
    """Units, the tensors between them, and what the target's partitions cost.

    Attributes:
        units: in any order; the tensors between them must form no cycle.
        tensors: every value that units exchange, take from or give to the graph.
        launch_ms: what each NPU partition costs on top of its units.
        max_npu_partitions: how many the target takes, ``None`` for any number. A path that goes NPU, CPU, NPU is what
            makes a second one necessary (``evaluate.npu_partitions``): 1 is what toolchains mean that end the NPU's
            part at the first operator that it does not take.

    Raises:
        ModelError: a name is used twice or is unknown, or a number is negative, infinite, NaN or too large.
    """

    units: tuple[Unit, ...]
    tensors: tuple[Crossing, ...] = ()
    launch_ms: float = 0.0
    max_npu_partitions: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no solver could give a meaning to."""
        _unique("unit", (u.name for u in self.units))
        _unique("tensor", (t.name for t in self.tensors))
        known = {u.name for u in self.units}
        for tensor in self.tensors:
            for name in (tensor.producer, *tensor.consumers):
                if name is not None and name not in known:
                    raise ModelError(f"is said to touch {name}, which is not a unit", where=tensor.name)
        numbers = list(_numbers(self))
        for where, what, ms in numbers:
            if not (math.isfinite(ms) and ms >= 0):
                raise ModelError(f"{what} is {ms} ms; a cost must be a number from 0 up", where=where)
        if (total := sum(ms for *_, ms in numbers)) > LONGEST_MS:
            raise ModelError(f"all costs together are {total:g} ms; they must stay below {LONGEST_MS:g} ms")
        if self.max_npu_partitions is not None and self.max_npu_partitions < 0:
            raise ModelError(f"max_npu_partitions is {self.max_npu_partitions}; it must be 0 or more")


@dataclass(frozen=True)
class Solution:
    """A placement and how good it is.

    Attributes:
        devices: the device of each unit.
        ms: what the placement costs, as ``evaluate`` says.
        lower_bound_ms: no allowed placement costs less.
        optimal: whether ``ms`` equals the bound, so that nothing cheaper exists.
        npu_partitions: how many.
        crossings: names of the tensors that cross, in the problem's order.
    """

    devices: Mapping[str, Device]
    ms: float
    lower_bound_ms: float
    optimal: bool
    npu_partitions: int
    crossings: tuple[str, ...]

    @property
    def gap_percent(self) -> float:
        """By how much the placement may be above the optimum, in percent of the lower bound (0 when proven)."""
        if self.optimal:
            return 0.0
        return 100 * (self.ms / self.lower_bound_ms - 1) if self.lower_bound_ms > 0 else math.inf


def _numbers(problem: Problem) -> Iterable[tuple[str | None, str, float]]:
    """Every cost with where it is from."""
    for unit in problem.units:
        yield unit.name, "cpu_ms", unit.cpu_ms
        if unit.npu_ms is not None:
            yield unit.name, "npu_ms", unit.npu_ms
    for tensor in problem.tensors:
        yield tensor.name, "to_cpu_ms", tensor.to_cpu_ms
        yield tensor.name, "to_npu_ms", tensor.to_npu_ms
    yield None, "launch_ms", problem.launch_ms


def _unique(kind: str, names: Iterable[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ModelError(f"is the name of more than one {kind}", where=twice[0], fix="give each its own name")
