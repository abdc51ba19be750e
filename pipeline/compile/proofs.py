"""What is proven of a program before it is written: that no input can make an integer leave its width.

From the actual weights and biases and from the range that each tensor can have (a clamp narrows it), so that no run on
a device can overflow. An accumulator of 16 bits saturates by contract; its bound is told, not refused.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from runtime.errors import ProgramError
from runtime.npu.contracts import Contract
from runtime.npu.kernels import Operation
from runtime.npu.plain import operations
from runtime.npu.program import Program
from runtime.npu.requantize import SHIFT_MAX, SHIFT_MIN

Integers = NDArray[np.int64]
Range = tuple[int, int]

CHANNELS = "split the layer over its input channels, give it smaller weights, or place it on the CPU"
SCALES = "calibrate again: the scales of its tensors are too far apart"

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


def prove(program: Program) -> tuple[Bound, ...]:
    """The bounds of all accumulators of a verified program.

    Raises:
        ModelError: a bound, a bias, a multiplier or a shift leaves its range; the message names the node and says what
            to do.
    """
    ranges = {spec.name: _limits(spec.dtype) for spec in program.tensors}
    bounds = []
    for operation in operations(program):
        item = operation.instruction
        sums = _sums(operation, [ranges[name] for name in item.inputs])
        if sums is not None:
            bounds.append(_prove_sums(operation, *sums))
        _prove_factors(operation)
        ranges[item.output] = _output_range(operation, ranges)
    return tuple(bounds)


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


def _sums(operation: Operation, inputs: Sequence[Range]) -> tuple[Integers, Integers] | None:
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


def _prove_sums(operation: Operation, low: Integers, high: Integers) -> Bound:
    item, contract = operation.instruction, operation.contract
    bias = item.constants.get("bias", np.zeros(1, np.int64)).astype(np.int64)
    bits, limit = contract.accumulator_bits, 1 << (contract.accumulator_bits - 1)
    wrong = np.flatnonzero((bias < -limit) | (bias >= limit))
    if wrong.size and bits > 16:
        raise _error(operation, f"the bias of channel {wrong[0]} is {bias[wrong[0]]}", f"int{bits}", CHANNELS)
    least, most = low + np.minimum(bias, 0), high + np.maximum(bias, 0)
    bound = Bound(item.name, int(least.min()), int(most.max()), bits)
    if bound.spare_bits < 0 and bits > 16:
        worst = np.maximum(most, -1 - least)
        channel = int(np.argmax(worst))
        reached = int(most[channel]) if most[channel] >= -1 - least[channel] else int(least[channel])
        raise _error(operation, f"the accumulator of channel {channel} may reach {reached}", f"int{bits}", CHANNELS)
    if bits > 16 and "weight" in item.constants:
        _prove_scaled(operation, low + bias, high + bias)
    return bound


def _prove_scaled(operation: Operation, low: Integers, high: Integers) -> None:
    """The contract's multiplication must take both ends of what the accumulator can be, channel by channel."""
    factors = (operation.constant("multiplier"), operation.constant("shift"))
    try:
        for ends in (low, high):
            operation.contract.multiply(ends, *factors)
    except ProgramError as error:
        raise ModelError(f"requantizes {error.what}", where=operation.instruction.name, fix=SCALES) from error


def _prove_factors(operation: Operation) -> None:
    item = operation.instruction
    if "multiplier" not in item.constants:
        return
    multiplier, shift = operation.constant("multiplier"), operation.constant("shift")
    bits = _multiplier_bits(operation.contract, item.opcode)
    used = multiplier != 0
    wrong = np.flatnonzero(used & ((multiplier < 1 << (bits - 1)) | (multiplier >= 1 << bits)))
    if wrong.size:
        legal = f"[2**{bits - 1}, 2**{bits})"
        raise _error(operation, f"multiplier {wrong[0]} is {multiplier.ravel()[wrong[0]]}", legal, SCALES)
    wrong = np.flatnonzero(used & ((shift < SHIFT_MIN) | (shift > SHIFT_MAX)))
    if wrong.size:
        raise _error(operation, f"shift {wrong[0]} is {shift.ravel()[wrong[0]]}", f"[{SHIFT_MIN}, {SHIFT_MAX}]", SCALES)


def _multiplier_bits(contract: Contract, opcode: str) -> int:
    return 31 if opcode == "softmax" else contract.multiplier_bits


def _error(operation: Operation, fact: str, legal: str, fix: str) -> ModelError:
    return ModelError(f"{fact}, {operation.contract.name} has {legal}", where=operation.instruction.name, fix=fix)
