"""Requantization as a step function of the accumulator, and floating-point formulas proven equal to it.

A contract's rule is monotone, so between the output's bounds it is fixed by at most 255 accumulators per channel: the
smallest one that reaches each level. A formula that is monotone too is the same function exactly when it agrees on both
sides of every one of these steps; that is what this module checks, over the accumulators that the weights and the
input's range can reach.

Product formula (float32): ``rint(f32(acc) * a)``, what onnxruntime's integer kernels compute; checked by evaluating
that very product. It is rule R4 itself, and nearly always rule R2. For R1 it exists when the factor is one over an even
integer, not close below a power of two.

Short formula (float32): ``round(a * acc)``, rounding by adding and subtracting 1.5 * 2**23. It is accepted only with
a margin above the rounding error of the product, so it holds with and without fused multiply-add, on any host.

Corrected formula (float32): an estimate ``k`` that is right or one too small, plus one where the accumulator has passed
``T(k) = period * k + offset``, which must separate both sides of the step to ``k + 1``. The comparison subtracts the
whole part of the period first, which is exact, so it resolves single accumulators. It exists for most factors when the
output is on one side of its zero point (after a ReLU).

Signed formula (float32), for one factor: a rule that rounds twice is ahead of its factor by part of an accumulator on
both sides of zero; ``round(a * (acc + clip(acc, -d, d)))`` is ahead by ``d``. Checked by evaluating these operations.

Long formula (float64): the rule's one or two roundings one after the other; checked by evaluating the same operations.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from runtime.npu.contracts import Contract
from runtime.npu.requantize import INT32_MAX, Integers

MAX_ACCUMULATOR = 2**23
"""Float32 holds integers up to 2**24; half of that leaves room for the corrected formula's bias."""

_SLOPES = (2.0**-20, 2.0**-21, 2.0**-19, 2.0**-18, 0.0, -(2.0**-20))
_SHARES = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8)
_NUDGES = (0.0, 2.0**-24, -(2.0**-24), 2.0**-23, -(2.0**-23))
_MARGIN = 2.0**-23
_NUDGE = 1 + 2.0**-40


@dataclass(frozen=True)
class Scaling:
    """Per-channel requantization, without zero point.

    Attributes:
        rule: accumulators [C, K] to scaled integers, monotone along K.
        factors: about what it multiplies with: [C].
        low: [C], smallest reachable accumulator.
        high: [C], largest reachable accumulator.
        bounds: smallest and largest output, relative to the output's zero point.
        right: [C], exponents (0 or below) of the shift to the right that follows a first rounding; ``None`` for a rule
            that rounds once.
        defined: whether the rule is defined on every reachable accumulator.
    """

    rule: Callable[[Integers], Integers]
    factors: NDArray[np.float64]
    low: Integers
    high: Integers
    bounds: tuple[int, int]
    right: Integers | None = None
    defined: bool = True

    def levels(self) -> Integers:
        """The outputs above the smallest: [K]."""
        return np.arange(self.bounds[0] + 1, self.bounds[1] + 1, dtype=np.int64)


def scaling(
    contract: Contract,
    factor: tuple[Integers, Integers],
    reach: tuple[Integers, Integers],
    bounds: tuple[int, int],
) -> Scaling:
    """The contract's rule with ``factor`` (multipliers and shifts, [C]) over accumulators in ``reach`` (each [C])."""
    multiplier, shift = factor
    double = contract.rule in ("r1", "r3")
    largest = np.maximum(np.abs(reach[0]), np.abs(reach[1])).astype(np.float64)
    defined = largest * (2.0 ** np.maximum(shift, 0) if double else 1.0) <= INT32_MAX

    def rule(acc: Integers) -> Integers:
        return contract.multiply(acc, multiplier[:, None], shift[:, None])

    factors = np.ldexp(multiplier.astype(np.float64), shift - contract.multiplier_bits)
    return Scaling(rule, factors, *reach, bounds, np.minimum(shift, 0) if double else None, bool(defined.all()))


def find_steps(scaled: Scaling) -> Integers:
    """The smallest accumulator in [low, high] that reaches each level, ``high + 1`` where none does: [C, K]."""
    levels, factor = scaled.levels()[None, :], scaled.factors[:, None]
    low, high = scaled.low[:, None], scaled.high[:, None] + 1
    with np.errstate(divide="ignore"):
        guess = np.where(factor > 0, (levels - 0.5) / factor, np.where(levels > 0, np.inf, -np.inf))
    centre = np.clip(guess, low, high).astype(np.int64)
    below, above = np.maximum(centre - 4, low), np.minimum(centre + 4, high)

    def reaches(acc: Integers) -> NDArray[np.bool_]:
        reached: NDArray[np.bool_] = scaled.rule(acc) >= levels
        return reached

    top = np.broadcast_to(high, above.shape)
    sure_below = (below == low) | ~reaches(np.minimum(below, high - 1))
    sure_above = (above == top) | reaches(np.minimum(above, high - 1))
    below, above = np.where(sure_below, below, low), np.where(sure_above, above, top)
    while (below < above).any():
        middle = (below + above) >> 1
        found = reaches(np.minimum(middle, high - 1)) & (middle < top)
        stop = found | (middle >= top)
        below, above = np.where(stop, below, middle + 1), np.where(stop, middle, above)
    return below


def fit_short(scaled: Scaling, steps: Integers) -> NDArray[np.float32] | None:
    """Slopes ``a`` [C] for which ``round(a * acc)`` is the rule, or ``None`` where some channel has none."""
    before, at, before_counts, at_counts = _sides(scaled, steps)
    ties = scaled.levels()[None, :] - 0.5
    slopes = np.zeros(len(scaled.low), np.float32)
    open_channels = np.ones(len(slopes), bool)
    for nudge in _SLOPES:
        slope = (scaled.factors * (1 + nudge)).astype(np.float32)
        upper, lower = slope.astype(np.float64)[:, None] * at, slope.astype(np.float64)[:, None] * before
        good = (upper - ties > np.abs(upper) * _MARGIN) | ~at_counts
        good &= (ties - lower > np.abs(lower) * _MARGIN) | ~before_counts
        chosen = open_channels & good.all(axis=1)
        slopes[chosen] = slope[chosen]
        open_channels &= ~chosen
        if not open_channels.any():
            return slopes
    return None


@dataclass(frozen=True)
class CorrectedFormula:
    """``k + clip(steepness * (acc' - T(k)) + 0.5, 0, 1)`` with ``acc' = acc + bias``; every array is [C].

    Attributes:
        bias: integers, about minus half a period.
        slope: ``k = clip(round(slope * acc'), low, high - 1)`` for output bounds low and high.
        whole, part: ``period = whole + part``; ``whole`` is an integer.
        offset: of ``T``, in units of ``acc'``.
        steepness: a power of two above the reciprocal of the distance between ``T`` and its nearest accumulator.
    """

    bias: NDArray[np.float32]
    slope: NDArray[np.float32]
    whole: NDArray[np.float32]
    part: NDArray[np.float32]
    offset: NDArray[np.float32]
    steepness: NDArray[np.float32]


def fit_corrected(scaled: Scaling, steps: Integers) -> CorrectedFormula | None:
    """The corrected formula, or ``None`` where it is not proven for some channel."""
    factors, levels = scaled.factors, scaled.levels()[None, :]
    if not levels.size or (factors < 2.0**-13).any() or (factors > 0.25).any():
        return None
    period = 1 / factors
    bias, whole = -np.rint(period / 2), np.rint(period)
    slope, part = factors.astype(np.float32), (period - whole).astype(np.float32)
    before, at, before_counts, at_counts = _sides(scaled, steps)
    lower, upper = before + bias[:, None], at + bias[:, None]
    line = whole[:, None] * (levels - 1) + part.astype(np.float64)[:, None] * (levels - 1)
    left = np.where(before_counts, lower - line, -np.inf).max(axis=1)
    right = np.where(at_counts, upper - line, np.inf).min(axis=1)
    left, right = np.where(np.isinf(left), right - 1, left), np.where(np.isinf(right), left + 1, right)
    offset = np.nan_to_num((left + right) / 2).astype(np.float32)
    distance = np.nan_to_num(np.minimum(right - offset, offset - left), nan=1.0)
    rounding = (np.abs(scaled.bounds).max() + 8) * 2.0**-22  # next to a step, all terms are below 255 / 2 + 4
    estimate = slope.astype(np.float64)[:, None]
    near = (estimate * upper > levels - 1.25) | ~at_counts
    near &= (estimate * lower < levels - 0.75) | ~before_counts
    if not near.all() or (distance < 2 * rounding).any():
        return None
    steepness = 2.0 ** np.ceil(np.log2(1 / distance))
    single = (array.astype(np.float32) for array in (bias, slope, whole, part, offset, steepness))
    return CorrectedFormula(*single)


@dataclass(frozen=True)
class SignedFormula:
    """In float32: ``round(slope * (acc + clip(acc, -ahead, ahead)))``; ``round`` takes ties to even."""

    slope: np.float32
    ahead: np.float32

    def evaluate(self, acc: Integers) -> NDArray[np.float32]:
        """The outputs for accumulators of any shape."""
        single = acc.astype(np.float32)
        rounded: NDArray[np.float32] = np.rint((single + np.clip(single, -self.ahead, self.ahead)) * self.slope)
        return rounded


def fit_signed(scaled: Scaling, steps: Integers) -> SignedFormula | None:
    """The signed formula, or ``None`` where none is proven or there is more than one channel."""
    if len(scaled.low) != 1 or scaled.right is None or scaled.factors[0] <= 0:
        return None
    before, at, before_counts, at_counts = (side[0] for side in _sides(scaled, steps))
    levels, factor = scaled.levels(), float(scaled.factors[0])
    ties, above = (levels - 0.5) / factor, levels > 0
    ends = np.where(above, ties - at, at - ties), np.where(above, ties - before, before - ties)
    first = above & at_counts & (at != 0), ~above & before_counts & (before != 0)
    last = ~above & at_counts & (at != 0), above & before_counts & (before != 0)
    low = max(end[chosen].max(initial=0.0) for end, chosen in zip(ends, first, strict=True))
    high = min(end[chosen].min(initial=1.0) for end, chosen in zip(ends, last, strict=True))
    for share, nudge in itertools.product(_SHARES, _NUDGES):
        formula = SignedFormula(np.float32(factor * (1 + nudge)), np.float32(low + share * (high - low)))
        good = (formula.evaluate(at) >= levels) | ~at_counts
        good &= (formula.evaluate(before) < levels) | ~before_counts
        if good.all():
            return formula
    return None


@dataclass(frozen=True)
class LongFormula:
    """In float64, every array [C]: ``near(acc * first)``, or with ``second`` ``round(near(acc * first) * second)``;
    ``near(x)`` is ``floor(x + 0.5)`` where ``half_up``, else ``round(x)``, which takes ties to even and is sooner.
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64] | None = None
    half_up: bool = False

    def evaluate(self, acc: Integers) -> NDArray[np.float64]:
        """The outputs for accumulators [C, K]."""
        value: NDArray[np.float64] = acc * self.first[:, None]
        near: NDArray[np.float64] = np.floor(value + 0.5) if self.half_up else np.rint(value)
        return near if self.second is None else np.rint(near * self.second[:, None])


def fit_long(scaled: Scaling, steps: Integers) -> LongFormula | None:
    """The long formula, or ``None`` where none is the rule for some channel."""
    return _fit_long([(scaled, steps)])


def _fit_long(both: Sequence[tuple[Scaling, Integers]]) -> LongFormula | None:
    for formulas in zip(*(_long_formulas(part) for part, _ in both), strict=True):
        if all(_is_rule(formula, *each) for formula, each in zip(formulas, both, strict=True)):
            second = [formula.second for formula in formulas if formula.second is not None]
            first = np.concatenate([formula.first for formula in formulas])
            return LongFormula(first, np.concatenate(second) if second else None, formulas[0].half_up)
    return None


def _long_formulas(scaled: Scaling) -> list[LongFormula]:
    """What may be the rule, the soonest first."""
    factors, found = scaled.factors, []
    if scaled.right is not None:
        twice = np.ldexp(factors, -scaled.right), np.ldexp(_NUDGE, scaled.right)
        found += [LongFormula(*twice), LongFormula(*twice, half_up=True)]
    return [*found, LongFormula(factors), LongFormula(factors * _NUDGE), LongFormula(factors, half_up=True)]


def _is_rule(formula: LongFormula, scaled: Scaling, steps: Integers) -> bool:
    before, at, before_counts, at_counts = _sides(scaled, steps)
    levels = scaled.levels()[None, :]
    good = (formula.evaluate(at) >= levels) | ~at_counts
    good &= (formula.evaluate(before) < levels) | ~before_counts
    return bool(good.all())


def fit_product(scaled: Scaling, steps: Integers) -> NDArray[np.float32] | None:
    """Slopes ``a`` [C] for which ``rint(f32(acc) * a)`` is the rule, or ``None`` where some channel has none.

    Both sides of a step to level k bound the slope by ``(k - 1/2) / acc``; besides the factor itself, numbers
    between the tightest bounds are tried.
    """
    before, at, before_counts, at_counts = _sides(scaled, steps)
    levels = scaled.levels()[None, :]
    least, most = _slope_bounds(scaled, steps)
    middle = np.where(np.isfinite(most), (least + most) / 2, np.maximum(least, scaled.factors))
    slopes, waiting = np.zeros(len(at), np.float32), np.ones(len(at), bool)
    for candidate in (scaled.factors, middle, least, most, scaled.factors * (1 + 2.0**-22)):
        slope = np.where(np.isfinite(candidate), candidate, 0).astype(np.float32)
        good = (_product(at, slope) >= levels) | ~at_counts
        good &= (_product(before, slope) < levels) | ~before_counts
        chosen = waiting & good.all(axis=1)
        slopes[chosen] = slope[chosen]
        waiting &= ~chosen
        if not waiting.any():
            return slopes
    return None


def _slope_bounds(scaled: Scaling, steps: Integers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The smallest and largest slope that keep every step in place, were the product exact: each [C]."""
    before, at, before_counts, at_counts = _sides(scaled, steps)
    ties = np.broadcast_to(scaled.levels()[None, :] - 0.5, at.shape)

    def bound(acc: Integers, counts: NDArray[np.bool_], otherwise: float) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(counts, ties / acc, otherwise)

    lower = [bound(at, at_counts & (at > 0), 0.0), bound(before, before_counts & (before < 0), 0.0)]
    upper = [bound(before, before_counts & (before > 0), np.inf), bound(at, at_counts & (at < 0), np.inf)]
    return np.max(np.hstack(lower), axis=1, initial=0.0), np.min(np.hstack(upper), axis=1, initial=np.inf)


def _product(acc: Integers, slope: NDArray[np.float32]) -> NDArray[np.float32]:
    value: NDArray[np.float32] = np.rint(acc.astype(np.float32) * slope[:, None])
    return value


Formula = NDArray[np.float32] | SignedFormula | CorrectedFormula | LongFormula
"""Short (its slopes), signed, corrected or long."""


Parts = Sequence[Scaling]
"""Some channels each: all at once, with 255 steps in 64 bits several times, would take much memory."""

T = TypeVar("T")


def fit(parts: Parts, images: bool) -> Formula | None:
    """The cheapest formula that is proven, or ``None``; the corrected one is only for ``images`` [N, C, H, W]."""
    if not all(part.defined for part in parts):
        return None
    both = [(part, find_steps(part)) for part in parts]
    short = _each(fit_short, both)
    if short is not None:
        return np.concatenate(short)
    signed = _each(fit_signed, both) if len(both) == 1 else None
    if signed is not None:
        return signed[0]
    corrected = _each(fit_corrected, both) if images else None
    if corrected is not None:
        columns = zip(*(vars(formula).values() for formula in corrected), strict=True)
        return CorrectedFormula(*map(np.concatenate, columns))
    return _fit_long(both)


def fit_wide(parts: Parts) -> LongFormula | None:
    """The long formula for accumulators that float32 does not hold, or ``None``."""
    return _fit_long([(part, find_steps(part)) for part in parts]) if all(part.defined for part in parts) else None


def fit_slopes(parts: Parts) -> NDArray[np.float32] | None:
    """``fit_product`` for all parts, or ``None``."""
    slopes = _each(fit_product, ((part, find_steps(part)) for part in parts))
    return None if slopes is None else np.concatenate(slopes)


def _each(fitter: Callable[[Scaling, Integers], T | None], both: Iterable[tuple[Scaling, Integers]]) -> list[T] | None:
    """What ``fitter`` finds for every part, or ``None`` where it finds none for one."""
    found: list[T] = []
    for part, steps in both:
        one = fitter(part, steps)
        if one is None:
            return None
        found.append(one)
    return found


def _sides(scaled: Scaling, steps: Integers) -> tuple[Integers, Integers, NDArray[np.bool_], NDArray[np.bool_]]:
    """The reachable accumulators just before and at each step, and whether each of them exists."""
    low, high = scaled.low[:, None], scaled.high[:, None]
    before = np.minimum(steps - 1, high)
    return before, steps, before >= low, steps <= high
