"""Integer contracts: how a target turns an int32 accumulator into an int8 output, bit for bit.

One contract exists now, ``tflite-r1``: the double rounding of the TensorFlow Lite reference kernels (gemmlowp's
``SaturatingRoundingDoublingHighMul`` followed by ``RoundingDivideByPOT``; tensorflow/tflite-micro at 90b983c,
``kernels/internal/common.cc`` and ``quantization_util.cc``). All arithmetic is int64 on numpy arrays.
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


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Multiplier and shift ``(m, e)`` with ``real ~ m * 2**(e - 31)`` and ``2**30 <= m < 2**31``.

    Zero, and factors below ``2**-32``, give ``(0, 0)``. Source: TFLite ``QuantizeMultiplier`` (double rounding build).

    Raises:
        ProgramError: the factor is negative, not finite, or so large that the shift leaves [-31, 30].
    """
    if not math.isfinite(real) or real < 0:
        raise ProgramError(f"a requantization factor must be finite and not negative, got {real!r}")
    if real == 0:
        return 0, 0
    fraction, exponent = math.frexp(real)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, exponent = 2**30, exponent + 1
    if exponent < SHIFT_MIN:
        return 0, 0
    if exponent > SHIFT_MAX:
        raise ProgramError(f"a requantization factor of {real!r} needs shift {exponent}, beyond {SHIFT_MAX}")
    return multiplier, exponent


def require_int32(values: Integers, what: str) -> Integers:
    """Give ``values`` back; a value outside int32 is an error, never a wrap.

    Raises:
        ProgramError: some value does not fit int32; the message names ``what`` and the value.
    """
    if values.size:
        low, high = int(values.min()), int(values.max())
        if low < INT32_MIN or high > INT32_MAX:
            raise ProgramError(f"{what} leaves int32 ({low if low < INT32_MIN else high})")
    return values


def doubling_high_multiply(a: ArrayLike, b: ArrayLike) -> Integers:
    """SRDHM: the high 32 bits of ``2 * a * b``, rounded half up, saturated to int32."""
    product: Integers = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    rounded: Integers = np.minimum((product + 2**30) >> 31, INT32_MAX)
    return rounded


def rounding_divide_by_power(x: ArrayLike, exponent: ArrayLike) -> Integers:
    """RDBPOT: ``x / 2**exponent`` rounded half away from zero."""
    values, shift = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    mask = (np.int64(1) << shift) - 1
    threshold = (mask >> 1) + (values < 0)
    return (values >> shift) + ((values & mask) > threshold)


def multiply_double_rounding(acc: ArrayLike, multiplier: ArrayLike, shift: ArrayLike) -> Integers:
    """MBQM of rule R1: ``acc * multiplier * 2**(shift - 31)`` with two roundings; the arguments broadcast.

    Raises:
        ProgramError: ``acc * 2**shift`` leaves int32 for a positive shift (the reference would overflow there).
    """
    exponent = np.asarray(shift, np.int64)
    shifted = require_int32(np.asarray(acc, np.int64) << np.maximum(exponent, 0), "accumulator times 2**shift")
    return rounding_divide_by_power(doubling_high_multiply(shifted, multiplier), np.maximum(-exponent, 0))


@dataclass(frozen=True)
class Contract:
    """The integer arithmetic of a target.

    Attributes:
        name: what a program and a target profile call it.
        add_shift: bits by which ADD and SUB shift their inputs left before they rescale them.
        quantize_multiplier: real factor (float64) -> (multiplier, shift).
        multiply: (accumulator, multiplier, shift) -> scaled integer, without zero point and clamp; it must be
            monotone in the accumulator (the fast path relies on it).
    """

    name: str
    add_shift: int
    quantize_multiplier: Callable[[float], tuple[int, int]]
    multiply: Callable[[ArrayLike, ArrayLike, ArrayLike], Integers]


# tflite-r1: TensorFlow Lite's reference kernels: double rounding, half away from zero.
CONTRACTS: Mapping[str, Contract] = MappingProxyType(
    {
        "tflite-r1": Contract(
            "tflite-r1",
            20,
            quantize_multiplier,
            multiply_double_rounding,
        )
    }
)


def find_contract(name: str) -> Contract:
    """The contract called ``name``.

    Raises:
        ProgramError: no such contract; the message lists the known ones.
    """
    contract = CONTRACTS.get(name)
    if contract is None:
        raise ProgramError(f"{name!r} is not an integer contract", fix=f"known: {', '.join(sorted(CONTRACTS))}")
    return contract
