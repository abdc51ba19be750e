"""Requantization as a step function of the accumulator, and floating-point formulas proven equal to it.

A contract's ``multiply`` is monotone, so between the output's bounds it is fixed by at most 255 accumulators per
channel: the smallest one that reaches each level. A formula that is monotone too is the same function exactly when it
agrees on both sides of every one of these steps; that is what this module checks, over the accumulators that the
weights and the input's range can reach.

Short formula (float32): ``round(a * acc)``, rounding by adding and subtracting 1.5 * 2**23. It is accepted only with
a margin above the rounding error of the product, so it holds with and without fused multiply-add, on any host.
It always exists when ``2**(31 - e) / m`` is an even integer, not a power of two, of about 30 to 4000.

Corrected formula (float32): an estimate ``k`` that is right or one too small, plus one where the accumulator has passed
``T(k) = period * k + offset``, which must separate both sides of the step to ``k + 1``. The comparison subtracts the
whole part of the period first, which is exact, so it resolves single accumulators. It exists for most factors when the
output is on one side of its zero point (after a ReLU).

Long formula (float64): ``round(floor(acc * A + 0.5) * B)``, the two roundings of the reference one after the other;
checked by evaluating the very same operations.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.npu.contracts import INT32_MAX, Contract, Integers

MAX_ACCUMULATOR = 2**23
"""Float32 holds integers up to 2**24; half of that leaves room for the corrected formula's bias."""

_SLOPES = (2.0**-20, 2.0**-21, 2.0**-19, 2.0**-18, 0.0, -(2.0**-20))
_MARGIN = 2.0**-23
_NUDGE = 1 + 2.0**-40


@dataclass(frozen=True)
class Scaling:
    """Per-channel requantization, without zero point.

    Attributes:
        contract: the integer rule.
        multiplier: [C].
        shift: [C].
        low: [C], smallest reachable accumulator.
        high: [C], largest reachable accumulator.
        bounds: smallest and largest output, relative to the output's zero point.
    """

    contract: Contract
    multiplier: Integers
    shift: Integers
    low: Integers
    high: Integers
    bounds: tuple[int, int]

    def in_domain(self) -> bool:
        """Whether every reachable accumulator, also times ``2**shift``, fits int32."""
        largest = np.maximum(np.abs(self.low), np.abs(self.high))
        scaled = largest.astype(np.float64) * 2.0 ** np.maximum(self.shift, 0)
        return bool((scaled <= INT32_MAX).all())

    def levels(self) -> Integers:
        """The outputs above the smallest: [K]."""
        return np.arange(self.bounds[0] + 1, self.bounds[1] + 1, dtype=np.int64)

    def factors(self) -> NDArray[np.float64]:
        """The real factors: [C]."""
        return self.multiplier * 2.0 ** (self.shift.astype(np.float64) - 31)


def find_steps(scaling: Scaling) -> Integers:
    """The smallest accumulator in [low, high] that reaches each level, ``high + 1`` where none does: [C, K]."""
    levels, factor = scaling.levels()[None, :], scaling.factors()[:, None]
    low, high = scaling.low[:, None], scaling.high[:, None] + 1
    with np.errstate(divide="ignore"):
        guess = np.where(factor > 0, (levels - 0.5) / factor, np.where(levels > 0, np.inf, -np.inf))
    centre = np.clip(guess, low, high).astype(np.int64)
    below, above = np.maximum(centre - 4, low), np.minimum(centre + 4, high)
    multiplier, shift = scaling.multiplier[:, None], scaling.shift[:, None]

    def reaches(acc: Integers) -> NDArray[np.bool_]:
        reached: NDArray[np.bool_] = scaling.contract.multiply(acc, multiplier, shift) >= levels
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


def fit_short(scaling: Scaling, steps: Integers) -> NDArray[np.float32] | None:
    """Slopes ``a`` [C] for which ``round(a * acc)`` is the rule, or ``None`` where some channel has none."""
    before, at, before_counts, at_counts = _sides(scaling, steps)
    ties = scaling.levels()[None, :] - 0.5
    slopes = np.zeros(len(scaling.low), np.float32)
    open_channels = np.ones(len(slopes), bool)
    for nudge in _SLOPES:
        slope = (scaling.factors() * (1 + nudge)).astype(np.float32)
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


def fit_corrected(scaling: Scaling, steps: Integers) -> CorrectedFormula | None:
    """The corrected formula, or ``None`` where it is not proven for some channel."""
    factors, levels = scaling.factors(), scaling.levels()[None, :]
    if not levels.size or (factors < 2.0**-13).any() or (factors > 0.25).any():
        return None
    period = 1 / factors
    bias, whole = -np.rint(period / 2), np.rint(period)
    slope, part = factors.astype(np.float32), (period - whole).astype(np.float32)
    before, at, before_counts, at_counts = _sides(scaling, steps)
    lower, upper = before + bias[:, None], at + bias[:, None]
    line = whole[:, None] * (levels - 1) + part.astype(np.float64)[:, None] * (levels - 1)
    left = np.where(before_counts, lower - line, -np.inf).max(axis=1)
    right = np.where(at_counts, upper - line, np.inf).min(axis=1)
    left, right = np.where(np.isinf(left), right - 1, left), np.where(np.isinf(right), left + 1, right)
    offset = np.nan_to_num((left + right) / 2).astype(np.float32)
    distance = np.nan_to_num(np.minimum(right - offset, offset - left), nan=1.0)
    rounding = (np.abs(scaling.bounds).max() + 8) * 2.0**-22  # next to a step, all terms are below 255 / 2 + 4
    estimate = slope.astype(np.float64)[:, None]
    near = (estimate * upper > levels - 1.25) | ~at_counts
    near &= (estimate * lower < levels - 0.75) | ~before_counts
    if not near.all() or (distance < 2 * rounding).any():
        return None
    steepness = 2.0 ** np.ceil(np.log2(1 / distance))
    single = (array.astype(np.float32) for array in (bias, slope, whole, part, offset, steepness))
    return CorrectedFormula(*single)


@dataclass(frozen=True)
class LongFormula:
    """``round(floor(acc * first + 0.5) * second)`` in float64, both [C]."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]


def fit_long(scaling: Scaling, steps: Integers) -> LongFormula | None:
    """The long formula, or ``None`` where it is not the rule for some channel."""
    shift = scaling.shift.astype(np.float64)
    first = scaling.multiplier * 2.0 ** (np.maximum(shift, 0) - 31)
    second = 2.0 ** np.minimum(shift, 0) * _NUDGE
    before, at, before_counts, at_counts = _sides(scaling, steps)

    def evaluate(acc: Integers) -> NDArray[np.float64]:
        value: NDArray[np.float64] = np.rint(np.floor(acc * first[:, None] + 0.5) * second[:, None])
        return value

    levels = scaling.levels()[None, :]
    good = ((evaluate(at) >= levels) | ~at_counts) & ((evaluate(before) < levels) | ~before_counts)
    return LongFormula(first, second) if good.all() else None


Formula = NDArray[np.float32] | CorrectedFormula | LongFormula
"""Short (its slopes), corrected or long."""


def fit(scaling: Scaling, images: bool) -> Formula | None:
    """The cheapest formula that is proven, or ``None``; the corrected one is only for ``images`` [N, C, H, W]."""
    if not scaling.in_domain():
        return None
    steps = find_steps(scaling)
    short = fit_short(scaling, steps)
    if short is not None:
        return short
    corrected = fit_corrected(scaling, steps) if images else None
    return fit_long(scaling, steps) if corrected is None else corrected


def fit_wide(scaling: Scaling) -> LongFormula | None:
    """The long formula for accumulators that float32 does not hold, or ``None``."""
    return fit_long(scaling, find_steps(scaling)) if scaling.in_domain() else None


def _sides(scaling: Scaling, steps: Integers) -> tuple[Integers, Integers, NDArray[np.bool_], NDArray[np.bool_]]:
    """The reachable accumulators just before and at each step, and whether each of them exists."""
    low, high = scaling.low[:, None], scaling.high[:, None]
    before = np.minimum(steps - 1, high)
    return before, steps, before >= low, steps <= high
