"""Functions of int16 activations by interpolated tables (tensorflow/tflite-micro at 90b983c).

Sigmoid and tanh interpolate one table of the sigmoid (``integer_ops/logistic.h``, ``integer_ops/tanh.h``); softmax the
tables of 513 entries that its instruction carries (``softmax.h``, ``common.h``: ``LUTLookup``).
"""

import numpy as np

from runtime.npu.kernels.operation import Operation, Values
from runtime.npu.kernels.softmax import leading_zeros
from runtime.npu.requantize import Integers, divide_half_up

_ENTRIES = 256
_ONE_ABOVE = (
    4, 8, 12, 14, 15, 16, 17, 19, 20, 21, 22, 25, 27, 28, 29, 30, 31, 33, 34, 35, 37, 39, 40, 41, 43, 44, 45, 46, 49,
    50, 54, 62, 63, 64, 66, 82, 86, 93, 100, 103, 112, 116, 135, 255,
)  # fmt: skip
"""Where the reference's table is one above the nearest integer, as its results show."""


def _sigmoid_table() -> Integers:
    """``sigmoid(i / 24)`` in 1/65536 as the reference has it."""
    table: Integers = np.rint(2**16 / (1 + np.exp(-np.arange(_ENTRIES) / 24))).astype(np.int64)
    table[list(_ONE_ABOVE)] += 1
    return table


_SIGMOID = _sigmoid_table()


def sigmoid(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """``1 / (1 + exp(-x))`` in 1/32768; the factor brings ``x`` to 1/12288, which the table has every 1/24 of."""
    u = _scaled(operation, inputs[0])
    level = _interpolated(np.abs(u), 9, (2**15 - 1) << 10)
    rounded = np.where(u >= 0, level + 2**9, 2**25 - level + 2**9 - 1) >> 10
    return rounded.astype(operation.output.dtype)


def tanh(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """``2 * sigmoid(2 * x) - 1`` in 1/32768; as ``sigmoid`` at half its step."""
    u = _scaled(operation, inputs[0])
    level = _interpolated(np.abs(u), 8, (2**16 - 1) << 8) - 2**23
    rounded = np.where(u >= 0, level + 2**7, -level + 2**7 - 1) >> 8
    return rounded.astype(operation.output.dtype)


def _scaled(operation: Operation, x: Values) -> Integers:
    """``x * factor / 2**right_shift``, rounded half up."""
    return divide_half_up(x.astype(np.int64) * operation.integer("factor"), operation.integer("right_shift"))


def _interpolated(size: Integers, bits: int, end: int) -> Integers:
    """The table at ``size / 2**bits`` times ``2**bits``, ``end`` from its last entry on."""
    index = np.minimum(size >> bits, _ENTRIES - 2)
    low, high = _SIGMOID[index], _SIGMOID[index + 1]
    inside = (low << bits) + (size & ((1 << bits) - 1)) * (high - low)
    return np.where(size >> bits >= _ENTRIES - 1, end, inside)


def softmax_tables(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """Exponentials of the differences to the largest value times the reciprocal of their sum, both by table.

    ``exp`` covers [-10, 0], ``reciprocal`` is ``1 / (1 + x)`` over [0, 1]; both and the output are in 1/32768.
    """
    axis = operation.integer("axis")
    x = np.moveaxis(inputs[0].astype(np.int64), axis, -1)
    diff = operation.scaled(x - x.max(axis=-1, keepdims=True))
    exponential = lookup_513(operation.constant("exp"), np.maximum(diff + 2**15 - 1, -(2**15)))
    total = exponential.sum(axis=-1, keepdims=True)
    headroom = leading_zeros(total)
    reduced = divide_half_up(total << (headroom - 1), 14) - (2**15 + 2**16)
    reciprocal = lookup_513(operation.constant("reciprocal"), np.clip(reduced, -(2**15), 2**15 - 1))
    rounded = np.clip(divide_half_up(exponential * reciprocal, 31 - headroom), 0, 2**15 - 1)
    result: Values = np.ascontiguousarray(np.moveaxis(rounded, -1, axis)).astype(operation.output.dtype)
    return result


def lookup_513(table: Integers, values: Integers) -> Integers:
    """``table`` interpolated at int16 ``values``: between entries 128 apart, rounded half up."""
    index, offset = 256 + (values >> 7), values & 127
    low = table[index]
    found: Integers = low + (((table[index + 1] - low) * offset + 64) >> 7)
    return found
