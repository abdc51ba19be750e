"""int16 activations: sums of products by halves of 8 bits in float32, everything else in integers of 64 bits.

``x = 256 * high + low`` with both halves in [-128, 128]: a convolution of each is exact in float32 as one of int8 is,
and float64 holds their sum. Requantization needs no search for a formula then: with one rounding, the product of
accumulator and multiplier is exact in float64 wherever the output is not saturated; two roundings are done in int64.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from runtime.npu.contracts import Contract
from runtime.npu.kernels import Operation
from runtime.npu.lowering.integer import reach
from runtime.npu.lowering.values import Builder, Range, Value
from runtime.npu.requantize import INT32_MAX, Integers
from runtime.npu.steps import MAX_ACCUMULATOR, LongFormula

Products = Callable[[str, NDArray[np.float32], NDArray[np.float32] | None], str]
"""Append the sums of products of a value with a weight, plus a bias, and give their name."""

HALF: Range = (-128, 128)
"""What a half of an int16 value can be."""

EXACT = 2.0**52
"""Below it float64 holds a product of integers, and half of one more."""

ONCE = frozenset({"r2", "r9-half-up", "r9-half-even"})
"""Rules that round once, whatever the size of the accumulator."""

NUDGE = 1 + 2.0**-40
"""Puts ties on the side away from zero and moves nothing else: what it scales are integers below 2**33."""


def halves(builder: Builder, value: Value) -> list[tuple[str, float]]:
    """The two halves of an int16 tensor in float32, each with what it counts for."""
    if value.halves is None:
        x = builder.centred(value)
        raised = builder.node("Add", [x, builder.single(128)])
        high = builder.node("Floor", [builder.node("Mul", [raised, builder.single(1 / 256)])])
        low = builder.node("Sub", [x, builder.node("Mul", [high, builder.single(256)])])
        value.halves = high, low
    return list(zip(value.halves, (256.0, 1.0), strict=True))


def total(
    builder: Builder,
    weight: NDArray[np.generic],
    parts: list[tuple[str, float]],
    pieces: list[slice],
    products: Products,
) -> str:
    """The float64 sums of products of ``parts`` with ``weight``, each times what it counts for.

    Float32 holds every sum over one of ``pieces`` of the input channels, see ``exact_pieces``.
    """
    found: str | None = None
    for name, factor in parts:
        for piece in pieces:
            taken = weight[:, piece].astype(np.float32)
            sums = builder.cast(products(_sliced(builder, name, weight, piece), taken, None), "float64")
            if factor != 1:
                sums = builder.node("Mul", [sums, builder.constant(np.array(factor))])
            found = sums if found is None else builder.node("Add", [found, sums])
    assert found is not None
    return found


def exact_pieces(weight: NDArray[np.generic], range_: Range) -> list[slice] | None:
    """Slices of the input channels over which float32 holds every sum, ``None`` where one channel is too much."""
    low, high = reach(weight, range_)
    count = max(-int(low.min()), int(high.max())) // MAX_ACCUMULATOR + 1
    ends = np.linspace(0, weight.shape[1], min(count, weight.shape[1]) + 1).astype(int).tolist()
    found = [slice(start, end) for start, end in pairwise(ends)]
    for piece in found:
        low, high = reach(weight[:, piece], range_)
        if max(-int(low.min()), int(high.max())) >= MAX_ACCUMULATOR:
            return None
    return found


def _sliced(builder: Builder, name: str, weight: NDArray[np.generic], piece: slice) -> str:
    if piece == slice(0, weight.shape[1]):
        return name
    axis = 1 if weight.ndim == 4 else -1
    return builder.node("Slice", [name, *(builder.constant(np.array([n])) for n in (piece.start, piece.stop, axis))])


def one_rounding(contract: Contract, multiplier: Integers, shift: Integers, largest: Integers) -> LongFormula | None:
    """The formula of a rule that rounds once, per channel: [C], or ``None`` where float64 may lose a bit.

    ``largest`` bounds the size of the accumulators. An output that is not saturated has a product of accumulator and
    multiplier below ``2**(16 + t)``; where float64 holds that, larger ones stay beyond int16.
    """
    if contract.rule not in ONCE:
        return None
    right = contract.multiplier_bits - shift.astype(np.float64)
    product = np.minimum(largest.astype(np.float64) * multiplier, 2.0 ** (16 + right))
    if (product >= EXACT).any():
        return None
    factors = np.ldexp(multiplier.astype(np.float64), shift - contract.multiplier_bits)
    return LongFormula(factors, None, half_up=contract.rule != "r9-half-even")


def rescaled(
    builder: Builder, acc: str, contract: Contract, factor: tuple[int, int], reach_: Range, bounds: Range | None
) -> str | None:
    """``acc``, int64, times a factor by the contract's rule, in float64 and within ``bounds``, if any.

    ``None`` where an accumulator in ``reach_`` may leave the rule's domain, or no exact form is known.
    """
    multiplier, shift = factor
    largest = max(abs(reach_[0]), abs(reach_[1]))
    if contract.rule == "r1":
        if largest << max(shift, 0) > INT32_MAX:
            return None
        product = builder.node("Mul", [acc, _int64(builder, multiplier << max(shift, 0))])
        lifted = builder.cast(builder.node("Add", [product, _int64(builder, (1 << 62) + (1 << 30))]), "uint64")
        moved = builder.node("BitShift", [lifted, builder.constant(np.array(31, np.uint64))], direction="RIGHT")
        high = builder.node("Sub", [builder.cast(moved, "float64"), _double(builder, 2.0**31)])
        scaled = builder.node("Mul", [high, _double(builder, NUDGE * 2.0 ** min(shift, 0))])
        rounded = builder.node("Round", [scaled])
    else:
        formula = one_rounding(contract, *(np.array([n]) for n in (multiplier, shift, largest)))
        if formula is None:
            return None
        scaled = builder.node("Mul", [builder.cast(acc, "float64"), _double(builder, float(formula.first[0]))])
        if formula.half_up:
            rounded = builder.node("Floor", [builder.node("Add", [scaled, _double(builder, 0.5)])])
        else:
            rounded = builder.node("Round", [scaled])
    if bounds is None:
        return rounded
    return builder.node("Clip", [rounded, *(_double(builder, float(bound)) for bound in bounds)])


def add(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> str | None:
    """``add`` and ``sub``: the centred result's name, or ``None``."""
    left, contract, sign = operation.integer("left_shift"), operation.contract, 1
    scaled, ends = [], []
    for index, value in enumerate(inputs):
        lifted = builder.node("Mul", [_integers(builder, value), _int64(builder, 1 << left)])
        reach_ = value.range[0] << left, value.range[1] << left
        name = rescaled(builder, lifted, contract, _factor(operation, index), reach_, None)
        if name is None:
            return None
        scaled.append(name)
        ends.append([int(operation.scaled(end, index)) for end in reach_])
    if operation.instruction.opcode == "sub":
        sign = -1
    corners = [a + sign * b for a in ends[0] for b in ends[1]]
    if max(map(abs, corners)) > INT32_MAX:
        return None
    acc = builder.cast(builder.node("Add" if sign > 0 else "Sub", scaled), "int64")
    made = rescaled(builder, acc, contract, _factor(operation, 2), (min(corners), max(corners)), operation.bounds())
    return None if made is None else builder.cast(made, "float32")


def mul(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> str | None:
    """``mul``: the centred result's name, or ``None``."""
    acc = builder.node("Mul", [_integers(builder, value) for value in inputs])
    corners = [a * b for a in inputs[0].range for b in inputs[1].range]
    reach_ = min(corners), max(corners)
    made = rescaled(builder, acc, operation.contract, _factor(operation, 0), reach_, operation.bounds())
    return None if made is None else builder.cast(made, "float32")


def _factor(operation: Operation, index: int) -> tuple[int, int]:
    return int(operation.constant("multiplier")[index]), int(operation.constant("shift")[index])


def _integers(builder: Builder, value: Value) -> str:
    """A tensor without zero point as int64."""
    return builder.cast(builder.raw(value) if value.raw is not None else builder.centred(value), "int64")


def _int64(builder: Builder, value: int) -> str:
    return builder.constant(np.array(value, np.int64))


def _double(builder: Builder, value: float) -> str:
    return builder.constant(np.array(value, np.float64))
