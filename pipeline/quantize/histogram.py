"""Streaming statistics of one activation: fixed memory, one pass, independent of order and batch size."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

HALF_BITS = 11
BINS = 2 * 2**HALF_BITS  # over [-limit, limit); a power of two, so that doubling the limit merges whole pairs of bins

EXACT_FROM = -100
"""Limits of 2**-100 and more, up to 2**11, need no float64 for the exact bin of a float32."""

AVERAGING = 0.01
"""Weight of the newest image in the moving averages (TensorFlow's 0.99 decay), corrected for the short start, so that
the first image is not favoured: over few images this is close to their mean."""


def averaging(updates: int) -> float:
    """The weight of the image number ``updates``, from 1, in the moving averages of it and of those before."""
    return AVERAGING / (1 - (1 - AVERAGING) ** updates)


@dataclass
class Histogram:
    """Counts of an activation's values over ``[-limit, limit)``, where ``limit`` is a power of two.

    When a larger value arrives the limit doubles and bins merge in pairs. Because bins are dyadic, the counts are
    exactly those of a single pass with the final limit: neither the order of the images nor their batching matters.

    Attributes:
        low: the smallest value seen.
        high: the largest value seen.
        updates: how many arrays were taken in, an image each.
        average_low: their smallest values, averaged; see ``AVERAGING``.
        average_high: their largest values, averaged.
        exponent: ``limit = 2 ** exponent``; ``None`` until a value other than zero was seen.
        counts: int64 [BINS]; values that are exactly zero are in ``zeros`` as long as there is no limit.
    """

    low: float = np.inf
    high: float = -np.inf
    updates: int = 0
    average_low: float = 0.0
    average_high: float = 0.0
    exponent: int | None = None
    zeros: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    @property
    def largest(self) -> float:
        """The largest magnitude seen."""
        return max(abs(self.low), abs(self.high))

    @property
    def width(self) -> float:
        """The length of the range that holds all that was seen, and 0."""
        return max(self.high, 0.0) - min(self.low, 0.0)

    def update(self, values: NDArray[np.floating]) -> None:
        """Take in ``values`` of any shape; all must be finite."""
        flat = values.reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        self.extremes(low, high)
        self._reach(max(-low, high, 0.0))
        if self.exponent is None:
            self.zeros += flat.size
            return
        # A product with a power of two is exact where it cannot underflow, and so is its floor; then comes the offset.
        kind = flat.dtype.type if EXACT_FROM <= self.exponent <= HALF_BITS else np.float64
        scaled = flat * kind(2.0 ** (HALF_BITS - self.exponent))
        index = np.floor(scaled, out=scaled).astype(np.int64)
        index += BINS // 2
        self.counts += np.bincount(index, minlength=BINS)

    def extremes(self, low: float, high: float) -> None:
        """Take an image's extremes into the extremes and their averages."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.updates += 1
        weight = averaging(self.updates)
        self.average_low += weight * (low - self.average_low)
        self.average_high += weight * (high - self.average_high)

    def _reach(self, magnitude: float) -> None:
        if magnitude == 0.0:
            return
        wanted = int(np.frexp(magnitude)[1])  # magnitude < 2 ** wanted
        if self.exponent is None:
            self.exponent = wanted
            self.counts[BINS // 2] += self.zeros
            self.zeros = 0
        for _ in range(max(0, wanted - self.exponent)):
            self.counts = np.concatenate(
                [np.zeros(BINS // 4, np.int64), self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 4, np.int64)]
            )
        self.exponent = max(wanted, self.exponent)

    def edges(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Lower and upper ends and counts of the bins that hold something; ends lie within what was seen."""
        if self.exponent is None:
            return np.zeros(1), np.zeros(1), np.array([max(self.zeros, 1)])
        width = 2.0**self.exponent / (BINS / 2)
        taken = np.flatnonzero(self.counts)
        lows = (taken - BINS // 2) * width
        return np.maximum(lows, self.low), np.minimum(lows + width, self.high), self.counts[taken]

    def magnitudes(self) -> NDArray[np.int64]:
        """Counts of absolute values in bins of the same width, from 0 up: int64 [BINS / 2]."""
        return self.counts[BINS // 2 :] + self.counts[BINS // 2 - 1 :: -1]

    def occupied(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Centres and counts of the bins that hold something; centres lie within the smallest and largest value."""
        lows, highs, counts = self.edges()
        return (lows + highs) / 2, counts
