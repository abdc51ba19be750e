"""Softmax and its exponential in fixed point (gemmlowp ``fixedpoint.h`` at 16e8662; tflite-micro ``softmax.h``).

``Qi.f`` is an int32 with i integer and f = 31 - i fractional bits; every product is SRDHM, whose integer bits add.
"""

import numpy as np
from numpy.typing import NDArray

from runtime.npu.kernels.operation import Operation, Values
from runtime.npu.requantize import INT32_MAX, INT32_MIN, Integers, divide_half_away, doubling_high_multiply

_EXP_FACTORS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
"""``exp(-2**k)`` for k = -2 to 4, Q0.31."""

_DIFF_BITS = 5  # a difference of logits is Q5.26
_SUM_BITS = 12  # a sum of exponentials is Q12.19


def shift_left(x: Integers, exponent: int) -> Integers:
    """``x * 2**exponent``, saturated to int32."""
    shifted: Integers = np.clip(x << exponent, INT32_MIN, INT32_MAX)
    return shifted


def exp_of_negative(a: Integers, integer_bits: int) -> Integers:
    """``exp(a)`` as Q0.31 for ``a <= 0`` in Q``integer_bits``.f."""
    fraction = 31 - integer_bits
    quarter = np.int64(1) << (fraction - 2)
    reduced = (a & (quarter - 1)) - quarter  # in [-1/4, 0)
    x = shift_left(reduced, integer_bits) + (1 << 28)  # around -1/8
    square = doubling_high_multiply(x, x)
    cube, fourth = doubling_high_multiply(square, x), doubling_high_multiply(square, square)
    inner = doubling_high_multiply(divide_half_away(fourth, 2) + cube, 715827883) + square
    result = 1895147668 + doubling_high_multiply(1895147668, x + divide_half_away(inner, 1))
    rest = reduced - a
    for k, factor in enumerate(_EXP_FACTORS, -2):
        if integer_bits > k:
            chosen = (rest >> (fraction + k)) & 1 == 1
            result = np.where(chosen, doubling_high_multiply(result, factor), result)
    return np.where(a == 0, INT32_MAX, result)


def _newton(a: Integers) -> Integers:
    """About ``2 / (1 + a)`` in Q2.29 for ``a`` in [0, 1), Q0.31: three Newton-Raphson steps."""
    half = (a + (INT32_MAX + 1)) >> 1
    x = 1515870810 + doubling_high_multiply(half, -1010580540)
    for _ in range(3):
        x = x + shift_left(doubling_high_multiply(x, (1 << 29) - doubling_high_multiply(half, x)), 2)
    return x


def reciprocal_of_one_plus(a: Integers) -> Integers:
    """``1 / (1 + a)`` in Q0.31 for ``a`` in [0, 1), Q0.31."""
    return shift_left(_newton(a), 1)


def tanh_of_half_logarithm(a: Integers) -> Integers:
    """``(1 - a) / (1 + a)`` in Q0.31 for ``a`` in [0, 1), Q0.31."""
    return shift_left(_newton(a) - (1 << 29), 2)


def softmax(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """Exponentials of the differences to the largest value over their sum; output scale 1/256.

    Differences below the attribute ``diff_min`` give 0. Rescaling differences rounds once, whatever the contract's rule
    (the shift is to the left), so all contracts share this kernel.
    """
    axis = operation.integer("axis")
    x = inputs[0].astype(np.int64)
    exponential = exponentials(operation, x - x.max(axis=axis, keepdims=True))
    reciprocal, shift = reciprocals(divide_half_away(exponential, _SUM_BITS).sum(axis=axis, keepdims=True))
    rounded = divide_half_away(doubling_high_multiply(reciprocal, exponential), shift)
    result: Values = np.clip(rounded, 0, 255) + operation.contract.limits[0]
    return result.astype(operation.output.dtype)


def exponentials(operation: Operation, diff: Integers) -> Integers:
    """``exp`` of differences to the largest value, Q0.31; 0 for those that do not count."""
    counted = diff >= operation.integer("diff_min")
    scaled = doubling_high_multiply(diff << operation.constant("shift")[0], operation.constant("multiplier")[0])
    return np.where(counted, exp_of_negative(np.where(counted, scaled, 0), _DIFF_BITS), 0)


def reciprocals(total: Integers) -> tuple[Integers, Integers]:
    """Of sums of exponentials: ``1 / total``, Q0.31, and by how much a product with it is shifted to the right."""
    headroom = leading_zeros(total)
    reciprocal = reciprocal_of_one_plus((total << headroom) - (INT32_MAX + 1))
    return reciprocal, _SUM_BITS - headroom + 31 - 8


def softmax_by_table(operation: Operation, x: Values, table: Integers) -> Values:
    """As ``softmax``, of 8-bit values, with ``exponential_table(operation)``; all that it rounds is at least 0."""
    axis = operation.integer("axis")
    product: Values = table[np.subtract(x.max(axis=axis, keepdims=True), x, dtype=np.int16)]
    total = ((product + (1 << _SUM_BITS >> 1)) >> _SUM_BITS).sum(axis=axis, keepdims=True)
    reciprocal, shift = reciprocals(total)
    product *= reciprocal
    product += 1 << 30
    product >>= 31
    product += np.int64(1) << (shift - 1)
    product >>= shift
    np.minimum(product, 255, out=product)
    product += operation.contract.limits[0]
    return product.astype(operation.output.dtype)


def exponential_table(operation: Operation) -> Integers:
    """The exponentials of the differences 0, -1 ... -255: [256]."""
    return exponentials(operation, -np.arange(256))


def leading_zeros(values: Integers) -> Integers:
    """Leading zero bits of positive 32-bit integers; exact, as float64 holds them."""
    exponents: NDArray[np.int32] = np.frexp(values.astype(np.float64))[1]
    return 32 - exponents.astype(np.int64)
