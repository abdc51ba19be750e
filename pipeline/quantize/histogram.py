"""Streaming statistics of one activation: fixed memory, one pass, independent of order and batch size."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BINS = 4096  # over [-limit, limit); a power of two, so that doubling the limit merges whole pairs of bins


@dataclass
class Histogram:
    """Counts of an activation's values over ``[-limit, limit)``, where ``limit`` is a power of two.

    When a larger value arrives the limit doubles and bins merge in pairs. Because bins are dyadic, the counts are
    exactly those of a single pass with the final limit: neither the order of the images nor their batching matters.

    Attributes:
        low: the smallest value seen.
        high: the largest value seen.
        exponent: ``limit = 2 ** exponent``; ``None`` until a value other than zero was seen.
        counts: int64 [BINS]; values that are exactly zero are in ``zeros`` as long as there is no limit.
    """

    low: float = np.inf
    high: float = -np.inf
    exponent: int | None = None
    zeros: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def update(self, values: NDArray[np.floating]) -> None:
        """Take in ``values`` of any shape; all must be finite."""
        flat = values.reshape(-1).astype(np.float64)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._reach(max(-low, high, 0.0))
        if self.exponent is None:
            self.zeros += flat.size
            return
        index = np.floor(flat * (BINS / 2) * 2.0**-self.exponent).astype(np.int64) + BINS // 2
        self.counts += np.bincount(index, minlength=BINS)

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

    def occupied(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Centres and counts of the bins that hold something; centres lie within the smallest and largest value."""
        lows, highs, counts = self.edges()
        return (lows + highs) / 2, counts
