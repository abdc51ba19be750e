"""Element by element: add, sub, mul, requantize and the 256-entry table."""

import numpy as np

from runtime.npu.contracts import Integers, require_int32
from runtime.npu.kernels.operation import Int8, Operation


def add(operation: Operation, inputs: tuple[Int8, ...]) -> Int8:
    """Scale both inputs to a common step, add, scale to the output (three requantizations); shapes broadcast."""
    first, second = _prescaled(operation, inputs)
    return _rescaled(operation, first + second)


def sub(operation: Operation, inputs: tuple[Int8, ...]) -> Int8:
    """As ``add``, with the second input subtracted."""
    first, second = _prescaled(operation, inputs)
    return _rescaled(operation, first - second)


def mul(operation: Operation, inputs: tuple[Int8, ...]) -> Int8:
    """``clamp(scale((x1 - z1) * (x2 - z2)) + z_y)``; shapes broadcast."""
    return operation.rescaled(operation.centred(inputs[0], 0) * operation.centred(inputs[1], 1))


def requantize(operation: Operation, inputs: tuple[Int8, ...]) -> Int8:
    """``clamp(scale(x - z_x) + z_y)``."""
    return operation.rescaled(operation.centred(inputs[0]))


def lookup(operation: Operation, inputs: tuple[Int8, ...]) -> Int8:
    """``table[x + 128]``."""
    table = operation.instruction.constants["table"].astype(np.int8)
    return np.take(table, inputs[0].astype(np.int16) + 128)


def _prescaled(operation: Operation, inputs: tuple[Int8, ...]) -> tuple[Integers, Integers]:
    left_shift = operation.integer("left_shift")
    multiplier, shift = operation.constant("multiplier"), operation.constant("shift")
    first, second = (
        operation.contract.multiply(operation.centred(inputs[i], i) << left_shift, multiplier[i], shift[i])
        for i in (0, 1)
    )
    return first, second


def _rescaled(operation: Operation, total: Integers) -> Int8:
    require_int32(total, "the sum of the scaled inputs")
    multiplier, shift = operation.constant("multiplier"), operation.constant("shift")
    return operation.clamped(operation.contract.multiply(total, multiplier[2], shift[2]))
