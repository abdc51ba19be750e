"""Requantization rules: from an accumulator and a folded factor to a scaled integer, bit for bit.

A factor is a pair ``(m, e)`` that stands for ``m * 2**(e - bits)`` with ``2**(bits - 1) <= m < 2**bits``, or (0, 0).
How many bits a multiplier has is part of the contract: 31 in TensorFlow Lite, 15 with int16 activations, 24 where the
factor is a float32 (its significand, so that the pair is that very number), 53 for float64, 1 for a power of two.

Every function takes an int64 accumulator, multiplier and shift that broadcast, and the width ``bits``; it gives the
scaled integer without zero point and clamp, and is monotone in the accumulator. Sources, read at the commits named:
tensorflow/tflite-micro 90b983c (``common.cc``, ``quantization_util.cc``), arm/tosa-specification cd5acdd
(``apply_scale_32``, ``apply_scale_16``), microsoft/onnxruntime (``mlas/lib/quantize.cpp``), google-ai-edge/LiteRT
(``reference/integer_ops/fully_connected.h``), espressif/esp-dl 12c0616 (power-of-two scales).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runtime.errors import ProgramError

Integers = NDArray[np.int64]

INT32_MIN = -(2**31)
INT32_MAX = 2**31 - 1
SHIFT_MIN = -31
SHIFT_MAX = 30


def require_int32(values: Integers, what: str) -> Integers:
    """Give ``values`` back; a value outside int32 is an error, never a wrap.

    Raises:
        ProgramError: some value does not fit int32; the message names ``what`` and the value.
    """
    return require_bits(values, 32, what)


def require_bits(values: Integers, bits: int, what: str) -> Integers:
    """As ``require_int32`` for a signed integer of ``bits`` bits."""
    if values.size:
        low, high = int(values.min()), int(values.max())
        limit = 1 << (bits - 1)
        if low < -limit or high >= limit:
            raise ProgramError(f"{what} leaves int{bits} ({low if low < -limit else high})")
    return values


def quantize_factor(real: float, bits: int) -> tuple[int, int]:
    """Multiplier and shift of ``real``: ``m * 2**(e - bits)``, ``m`` rounded half away from zero.

    Zero, and factors below ``2**-32``, give ``(0, 0)``. With 31 bits this is TFLite's ``QuantizeMultiplier`` (double
    rounding build). With 15 bits the 31-bit multiplier is rounded once more, as TFLite's int16 kernels do.

    Raises:
        ProgramError: the factor is negative, not finite, so large that the shift leaves [-31, 30], or, with 1 bit, no
            power of two.
    """
    if not math.isfinite(real) or real < 0:
        raise ProgramError(f"a requantization factor must be finite and not negative, got {real!r}")
    if real == 0:
        return 0, 0
    fraction, exponent = math.frexp(real)
    if bits == 1 and fraction != 0.5:
        raise ProgramError(
            f"the requantization factor {real!r} is no power of two", fix="quantize with power-of-two scales"
        )
    width = 31 if bits == 15 else bits
    multiplier = math.floor(fraction * 2**width + 0.5) if width < 53 else int(fraction * 2**width)
    if multiplier == 2**width:
        multiplier, exponent = 2 ** (width - 1), exponent + 1
    if exponent < SHIFT_MIN:
        return 0, 0
    if exponent > SHIFT_MAX:
        raise ProgramError(f"a requantization factor of {real!r} needs shift {exponent}, beyond {SHIFT_MAX}")
    if bits == 15:
        multiplier = min((multiplier + 2**15) >> 16, 2**15 - 1)
    return multiplier, exponent


def doubling_high_multiply(a: ArrayLike, b: ArrayLike) -> Integers:
    """SRDHM: the high 32 bits of ``2 * a * b``, rounded half up, saturated to int32."""
    product: Integers = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    rounded: Integers = np.minimum((product + 2**30) >> 31, INT32_MAX)
    return rounded


def divide_half_away(x: ArrayLike, exponent: ArrayLike) -> Integers:
    """RDBPOT: ``x / 2**exponent`` rounded half away from zero."""
    values, shift = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    mask = (np.int64(1) << shift) - 1
    threshold = (mask >> 1) + (values < 0)
    return (values >> shift) + ((values & mask) > threshold)


def divide_half_up(x: ArrayLike, exponent: ArrayLike) -> Integers:
    """``x / 2**exponent`` rounded to the nearest, ties to above."""
    values, shift = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    half = (np.int64(1) << shift) >> 1
    rounded: Integers = (values + half) >> shift
    return rounded


def divide_half_even(x: ArrayLike, exponent: ArrayLike) -> Integers:
    """``x / 2**exponent`` rounded to the nearest, ties to even."""
    values, shift = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    floor, rest, half = values >> shift, values & ((np.int64(1) << shift) - 1), (np.int64(1) << shift) >> 1
    up = (rest > half) | ((rest == half) & (shift > 0) & (floor & 1 == 1))
    rounded: Integers = floor + up
    return rounded


def multiply_double_rounding(acc: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, bits: int = 31) -> Integers:
    """R1: two roundings, the second half away from zero (gemmlowp's SRDHM and RDBPOT).

    Raises:
        ProgramError: ``acc * 2**shift`` leaves int32 for a positive shift (the reference would overflow there).
    """
    exponent = np.asarray(shift, np.int64)
    shifted = require_int32(np.asarray(acc, np.int64) << np.maximum(exponent, 0), "accumulator times 2**shift")
    return divide_half_away(doubling_high_multiply(shifted, multiplier), np.maximum(-exponent, 0))


def multiply_single_rounding(acc: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, bits: int) -> Integers:
    """R2, and R8 with 15 bits: ``(acc * m + 2**(t - 1)) >> t`` with ``t = bits - e``, which rounds half up.

    Raises:
        ProgramError: the factor's shift leaves ``t`` below 1.
    """
    exponent = bits - np.asarray(shift, np.int64)
    if exponent.size and int(exponent.min()) < 1:
        raise ProgramError(f"a shift of {bits - int(exponent.min())} leaves nothing to round", fix="check the scales")
    return divide_half_up(np.asarray(acc, np.int64) * np.asarray(multiplier, np.int64), exponent)


def multiply_tosa_double(acc: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, bits: int = 31) -> Integers:
    """R3: TOSA's DOUBLE_ROUND, ``(acc * m + round) >> t`` where ``round`` is nudged by 2**30 beyond a shift of 31.

    Raises:
        ProgramError: ``t = 31 - e`` is outside TOSA's [2, 62].
    """
    values, exponent = np.asarray(acc, np.int64), bits - np.asarray(shift, np.int64)
    if exponent.size and not 2 <= int(exponent.min()) <= int(exponent.max()) <= 62:
        raise ProgramError("a requantization factor's shift is outside TOSA's [2, 62]", fix="check the scales")
    rounding = np.int64(1) << (exponent - 1)
    rounding = rounding + np.where(exponent > 31, np.where(values >= 0, 2**30, -(2**30)), 0)
    scaled: Integers = (values * np.asarray(multiplier, np.int64) + rounding) >> exponent
    return scaled


def multiply_float32(acc: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, bits: int = 24) -> Integers:
    """R4: ``rint(f32(acc) * f32(factor))``, one float32 product, ties to even."""
    factor = np.ldexp(np.asarray(multiplier, np.float64), np.asarray(shift, np.int64) - bits).astype(np.float32)
    rounded: Integers = np.rint(np.asarray(acc, np.int64).astype(np.float32) * factor).astype(np.int64)
    return rounded


def multiply_float64(acc: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, bits: int = 53) -> Integers:
    """R6: ``f64(acc) * f64(factor)`` rounded half away from zero (C's ``round``)."""
    factor = np.ldexp(np.asarray(multiplier, np.float64), np.asarray(shift, np.int64) - bits)
    scaled = np.asarray(acc, np.int64).astype(np.float64) * factor
    whole = np.trunc(scaled)
    away = np.abs(scaled - whole) >= 0.5
    return (whole + np.where(away, np.copysign(1.0, scaled), 0.0)).astype(np.int64)


def multiply_power_half_up(acc: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, bits: int = 1) -> Integers:
    """R9 with ROUND_HALF_UP: a shift by ``1 - e`` (to the left when that is negative)."""
    return _shifted(acc, multiplier, shift, divide_half_up)


def multiply_power_half_even(acc: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, bits: int = 1) -> Integers:
    """R9 with ROUND_HALF_EVEN."""
    return _shifted(acc, multiplier, shift, divide_half_even)


def _shifted(
    acc: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, divide: Callable[[ArrayLike, ArrayLike], Integers]
) -> Integers:
    right = 1 - np.asarray(shift, np.int64)
    values = np.asarray(acc, np.int64) * np.asarray(multiplier, np.int64)  # 1, or 0 for a factor flushed to zero
    return divide(values << np.maximum(-right, 0), np.maximum(right, 0))


@dataclass(frozen=True)
class Rule:
    """A requantization rule.

    Attributes:
        title: one line for reports.
        multiply: see the module.
        divide: the same rounding for a division by a power of two: (value, exponent) -> integer.
        widths: legal widths of its multiplier, in bits.
        float32_products: whether real factors are products and quotients in float32, else in float64.
    """

    title: str
    multiply: Callable[[ArrayLike, ArrayLike, ArrayLike, int], Integers]
    divide: Callable[[ArrayLike, ArrayLike], Integers]
    widths: tuple[int, ...]
    float32_products: bool = False


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "r1": Rule("double rounding, half away from zero", multiply_double_rounding, divide_half_away, (31,)),
        "r2": Rule("single rounding, half up", multiply_single_rounding, divide_half_up, (31, 15)),
        "r3": Rule("TOSA double rounding", multiply_tosa_double, divide_half_away, (31,)),
        "r4": Rule("float32 product, half to even", multiply_float32, divide_half_even, (24,), True),
        "r6": Rule("float64 product, half away from zero", multiply_float64, divide_half_away, (53,)),
        "r9-half-up": Rule("power of two, half up", multiply_power_half_up, divide_half_up, (1,)),
        "r9-half-even": Rule("power of two, half to even", multiply_power_half_even, divide_half_even, (1,)),
    }
)
"""Every rule by its id in ``reference/numerics`` terms: R1 double, R2 single (R8 with a 15-bit multiplier), R3 TOSA,
R4 float32, R6 float64, R9 power of two."""
