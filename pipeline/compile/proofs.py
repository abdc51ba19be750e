"""What is proven of a program before it is written: that no input can make an integer leave its width.

From the actual weights and biases and from the range that each tensor can have (a clamp narrows it), so that no run on
a device can overflow. An accumulator of 16 bits saturates by contract; its bound is told, not refused.
"""

import numpy as np

from pipeline.errors import ModelError
from runtime.errors import ProgramError
from runtime.npu.bounds import Bound, bound_of, sums
from runtime.npu.contracts import Contract
from runtime.npu.kernels import Operation
from runtime.npu.program import Program
from runtime.npu.requantize import SHIFT_MAX, SHIFT_MIN, Integers

CHANNELS = "split the layer over its input channels, give it smaller weights, or place it on the CPU"
SCALES = "calibrate again: the scales of its tensors are too far apart"


def prove(program: Program) -> tuple[Bound, ...]:
    """The bounds of all accumulators of a verified program.

    Raises:
        ModelError: a bound, a bias, a multiplier or a shift leaves its range; the message names the node and says what
            to do.
    """
    proven = []
    for operation, found in sums(program):
        if found is not None:
            proven.append(_prove_sums(operation, *found))
        _prove_factors(operation)
    return tuple(proven)


def _prove_sums(operation: Operation, low: Integers, high: Integers) -> Bound:
    item, contract = operation.instruction, operation.contract
    bias = item.constants.get("bias", np.zeros(1, np.int64)).astype(np.int64)
    bits, limit = contract.accumulator_bits, 1 << (contract.accumulator_bits - 1)
    wrong = np.flatnonzero((bias < -limit) | (bias >= limit))
    if wrong.size and bits > 16:
        raise _error(operation, f"the bias of channel {wrong[0]} is {bias[wrong[0]]}", f"int{bits}", CHANNELS)
    least, most = low + np.minimum(bias, 0), high + np.maximum(bias, 0)
    bound = bound_of(operation, low, high)
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
