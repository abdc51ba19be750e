"""An a priori estimate of cycles and bytes per instruction: nothing here is fitted to or measured on a device.

Compute, for ``macs_per_cycle = R * C`` of a weight-stationary systolic array of ``R = C = floor(sqrt(macs))``:
a convolution is a GEMM with ``M = Ho * Wo``, ``N = Co``, ``K = kh * kw * Ci`` and takes
``(2R + C + M - 2) * ceil(K/R) * ceil(N/C)`` cycles (closed form of SCALE-Sim 3.0.0, scalesim-project/SCALE-Sim at
1d62b68); with groups, every group is a GEMM of its own, so a depthwise layer uses at most 1/C of the array. All other
instructions take one cycle per C elements of their output, times the window or the reduced elements.
Memory: input, output and constant bytes once each over ``memory_bytes_per_second``.
Time of an instruction: the larger of both.
"""

import math
from dataclasses import dataclass

from runtime.npu.kernels import Operation
from runtime.npu.plain import operations
from runtime.npu.program import Program

PROVENANCE = "estimate, a priori"


@dataclass(frozen=True)
class Row:
    """One instruction's estimate.

    Attributes:
        name: the instruction's name.
        opcode: its opcode.
        macs: multiply-accumulates of the mathematics, without padding of the array.
        cycles: of the array.
        input_bytes, output_bytes, weight_bytes: moved once each.
        ms: the larger of compute and memory time, in milliseconds.
        bound: ``compute`` or ``memory``.
    """

    name: str
    opcode: str
    macs: int
    cycles: int
    input_bytes: int
    output_bytes: int
    weight_bytes: int
    ms: float
    bound: str


@dataclass(frozen=True)
class Timeline:
    """The rows of a program in execution order; ``link_ms`` is for its inputs and outputs over the host link."""

    rows: tuple[Row, ...]
    link_ms: float

    @property
    def macs(self) -> int:
        """Sum over the rows."""
        return sum(row.macs for row in self.rows)

    @property
    def cycles(self) -> int:
        """Sum over the rows."""
        return sum(row.cycles for row in self.rows)

    @property
    def bytes(self) -> int:
        """Input, output and weight bytes, summed over the rows."""
        return sum(row.input_bytes + row.output_bytes + row.weight_bytes for row in self.rows)

    @property
    def ms(self) -> float:
        """Milliseconds of all rows and the link."""
        return sum(row.ms for row in self.rows) + self.link_ms


def estimate(program: Program) -> Timeline:
    """The timeline of a verified program; a figure of ``program.device`` that is missing or 0 costs no time."""
    shapes = {spec.name: spec.shape for spec in program.tensors}
    crossing = sum(math.prod(shapes[name]) for name in (*program.inputs, *program.outputs))
    rows = tuple(_row(operation, program) for operation in operations(program))
    return Timeline(rows, 1e3 * _over(crossing, program.device.get("link_bytes_per_second", 0.0)))


def _row(operation: Operation, program: Program) -> Row:
    item, device = operation.instruction, program.device
    side = max(math.isqrt(int(device.get("macs_per_cycle", 1.0))), 1)
    macs, cycles = _compute(operation, side)
    read = sum(math.prod(spec.shape) for spec in operation.inputs)
    written = math.prod(operation.output.shape)
    weights = sum(array.nbytes for array in item.constants.values())
    compute = 1e3 * _over(cycles, device.get("clock_hz", 0.0))
    memory = 1e3 * _over(read + written + weights, device.get("memory_bytes_per_second", 0.0))
    bound = "compute" if compute >= memory else "memory"
    return Row(item.name, item.opcode, macs, cycles, read, written, weights, max(compute, memory), bound)


def _compute(operation: Operation, side: int) -> tuple[int, int]:
    """Multiply-accumulates and cycles on a ``side`` x ``side`` array."""
    item, elements = operation.instruction, math.prod(operation.output.shape)
    if item.opcode in ("conv2d", "fully_connected"):
        outputs, *rest = item.constants["weight"].shape
        group = operation.integer("group") if item.opcode == "conv2d" else 1
        depth, places = math.prod(rest), elements // outputs
        folds = math.ceil(depth / side) * math.ceil(outputs / group / side) * group
        return elements * depth, (3 * side + places - 2) * folds
    work = elements
    if item.opcode in ("max_pool", "average_pool"):
        work = elements * math.prod(operation.integers("kernel"))
    elif item.opcode == "mean":
        work = math.prod(operation.inputs[0].shape)
    return 0, math.ceil(work / side)


def _over(amount: float, rate: float) -> float:
    return amount / rate if rate > 0 else 0.0
