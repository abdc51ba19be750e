"""A systolic array, in closed form.

Cycles of a matrix product M x N x K on an array of R rows and C columns (SCALE-Sim 3.0.0, scalesim-project/SCALE-Sim
at 1d62b68; ``reference`` formulas equal its "Total Cycles" column exactly, see
``tests/pipeline/cost/test_systolic.py``):

* weight stationary: ``(2R + C + M - 2) * ceil(K/R) * ceil(N/C) - 1``
* input stationary: ``(2R + C + N - 2) * ceil(K/R) * ceil(M/C) - 1``
* output stationary: ``(R + C + K - 2) * ceil(M/R) * ceil(N/C) - 1``

A convolution is the product with ``M = Ho * Wo``, ``N = Co`` and ``K = kh * kw * Ci`` (im2col); every group is one of
its own, so a depthwise layer runs with ``N = 1``. Operators without weights take a cycle per C elements of their
output, times their window or passes: an assumption, the simulator has no such unit. Memory: every byte once over
``memory_bytes_per_second``. Arrays whose shape is not public are taken as square (also an assumption).
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pipeline.cost.common import bounded
from pipeline.cost.nouns import FREE, Device, Kind, LayerCost, Work

Dataflow = Literal["ws", "is", "os"]


def product_cycles(rows: int, columns: int, m: int, n: int, k: int, dataflow: Dataflow = "ws") -> int:
    """Cycles of one matrix product ``m`` x ``n`` x ``k`` on ``rows`` x ``columns`` processing elements."""
    if dataflow == "ws":
        return (2 * rows + columns + m - 2) * math.ceil(k / rows) * math.ceil(n / columns) - 1
    if dataflow == "is":
        return (2 * rows + columns + n - 2) * math.ceil(k / rows) * math.ceil(m / columns) - 1
    return (rows + columns + k - 2) * math.ceil(m / rows) * math.ceil(n / columns) - 1


def shape(device: Device) -> tuple[int, int] | None:
    """Rows and columns of the array; a square of ``macs_per_cycle`` where only that is known; ``None`` without both."""
    rows, columns = device.get("array_rows"), device.get("array_columns")
    if rows is not None and columns is not None:
        return int(rows), int(columns)
    macs = device.get("macs_per_cycle")
    return None if macs is None else (max(1, math.isqrt(int(macs))),) * 2


def cycles(work: Work, rows: int, columns: int) -> int:
    """Cycles of ``work``, weight stationary."""
    if work.kind in (Kind.CONV, Kind.DEPTHWISE, Kind.FC):
        depth = work.taps * math.ceil(work.in_channels / work.groups)
        outputs = math.ceil(work.channels / work.groups)
        return work.groups * product_cycles(rows, columns, work.height * work.width, outputs, depth)
    window = work.taps if work.kind is Kind.POOL else work.passes
    return math.ceil(work.elements * window / columns)


def cost(work: Work, device: Device) -> LayerCost:
    """What ``work`` costs on a systolic array."""
    if work.kind is Kind.VIEW:
        return FREE
    array = shape(device)
    count = None if array is None else float(cycles(work, *array))
    moved: Mapping[str, int] = MappingProxyType({"memory": work.feature_bytes + work.weight_bytes})
    return bounded(work, device, count, moved, "macs_per_cycle")
