"""What the accumulators of a program can reach, from its actual weights and biases and from the range of each tensor.

A clamp narrows a range; so no input can make an accumulator leave its bound.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.npu.kernels import Operation
from runtime.npu.plain import operations
from runtime.npu.program import Program
from runtime.npu.requantize import Integers

Range = tuple[int, int]

COPIES = frozenset(
    {"concat", "reshape", "transpose", "max_pool", "resize_nearest", "slice", "reduce_max", "reduce_min"}
)
"""Opcodes whose output has no other values than their inputs."""


@dataclass(frozen=True)
class Bound:
    """What the accumulator of an instruction can reach.

    Attributes:
        name: the graph node.
        low, high: over all channels and all partial sums, the bias included.
        bits: of the contract's accumulator.
    """

    name: str
    low: int
    high: int
    bits: int

    @property
    def spare_bits(self) -> int:
        """Bits of the accumulator that no input can use; below 0 it can overflow."""
        return self.bits - 1 - max(self.high.bit_length(), (-1 - self.low).bit_length())


def bounds(program: Program) -> tuple[Bound, ...]:
    """The bounds of all accumulators of a verified program."""
    return tuple(bound_of(operation, *found) for operation, found in sums(program) if found is not None)


def sums(program: Program) -> Iterator[tuple[Operation, tuple[Integers, Integers] | None]]:
    """Each instruction with the least and the largest sum of each of its channels, ``None`` where it sums nothing.

    Over all partial sums, without the bias: [channels] each.
    """
    ranges = {spec.name: _limits(spec.dtype) for spec in program.tensors}
    for operation in operations(program):
        item = operation.instruction
        yield operation, _sums_of(operation, [ranges[name] for name in item.inputs])
        ranges[item.output] = _output_range(operation, ranges)


def bound_of(operation: Operation, low: Integers, high: Integers) -> Bound:
    """The bound of an instruction whose channels sum up to between ``low`` and ``high``, its bias added."""
    bias = operation.instruction.constants.get("bias", np.zeros(1, np.int64)).astype(np.int64)
    least, most = low + np.minimum(bias, 0), high + np.maximum(bias, 0)
    bits = operation.contract.accumulator_bits
    return Bound(operation.instruction.name, int(least.min()), int(most.max()), bits)


def _limits(dtype: str) -> Range:
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def _output_range(operation: Operation, ranges: Mapping[str, Range]) -> Range:
    """The values that the output can have."""
    item = operation.instruction
    if "act_min" in item.attributes:
        return operation.integer("act_min"), operation.integer("act_max")
    if item.opcode in COPIES:
        return min(ranges[n][0] for n in item.inputs), max(ranges[n][1] for n in item.inputs)
    if item.opcode == "lookup":
        table = item.constants["table"].astype(np.int64)
        return int(table.min()), int(table.max())
    return ranges[item.output]


def _sums_of(operation: Operation, inputs: Sequence[Range]) -> tuple[Integers, Integers] | None:
    """The least and the largest sum of each channel without bias, over all partial sums; ``None`` without a sum."""
    item = operation.instruction
    centred = [(low - operation.input_zero(i), high - operation.input_zero(i)) for i, (low, high) in enumerate(inputs)]
    if "weight" in item.constants:
        (low, high), rows = centred[0], item.constants["weight"].astype(np.int64)
        rows = rows.reshape(rows.shape[0], -1)
        least, most = np.minimum(rows * low, rows * high), np.maximum(rows * low, rows * high)
        return np.minimum(least, 0).sum(1), np.maximum(most, 0).sum(1)
    if item.opcode == "matmul":
        products = [a * b for a in centred[0] for b in centred[1]]
        return _repeated(min(products), max(products), operation.inputs[0].shape[-1])
    if item.opcode in ("mean", "reduce_sum"):
        count = math.prod(operation.inputs[0].shape[axis] for axis in operation.integers("axes"))
        return _repeated(*centred[0], count)
    return None


def _repeated(low: int, high: int, count: int) -> tuple[Integers, Integers]:
    return np.array([min(low, 0) * count]), np.array([max(high, 0) * count])
