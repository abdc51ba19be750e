"""From an activation's statistics to the range that int8 shall cover."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.quantize.histogram import Histogram

Range = tuple[float, float]
MIN_RANGE = 1e-4  # narrower ranges give scales that no multiplier can express (numerics: MinimumRealRange of ORT-QNN)


def minmax(histogram: Histogram, percentile: float) -> Range:
    """Everything that was seen."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram, percentile: float) -> Range:
    """The central ``percentile`` % of what was seen: at most the same share is cut from both tails, in whole bins."""
    lows, highs, counts = histogram.edges()
    cut = (1 - percentile / 100) / 2 * counts.sum()
    first = int(np.argmax(np.cumsum(counts) > cut))
    last = len(counts) - 1 - int(np.argmax(np.cumsum(counts[::-1]) > cut))
    return float(lows[first]), float(highs[last])


def mse(histogram: Histogram, percentile: float) -> Range:
    """The range with the smallest mean squared error of rounding and clipping together.

    First both ends shrink together, then each end alone around the best: 3 x 64 candidates on the histogram.
    """
    centres, counts = histogram.occupied()
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    shrink = np.linspace(1.0, 0.2, 64)
    best = (low, high)
    for ends in ((True, True), (False, True), (True, False)):
        lows = best[0] * (shrink if ends[0] else np.ones_like(shrink))
        highs = best[1] * (shrink if ends[1] else np.ones_like(shrink))
        errors = [_error(centres, counts, lo, hi) for lo, hi in zip(lows, highs, strict=True)]
        pick = int(np.argmin(errors))
        best = float(lows[pick]), float(highs[pick])
    return best


def _error(centres: NDArray[np.float64], counts: NDArray[np.int64], low: float, high: float) -> float:
    scale, zero = affine(low, high)
    q = np.clip(np.rint(centres / scale) + zero, -128, 127)
    return float((counts * ((q - zero) * scale - centres) ** 2).sum())


def affine(low: float, high: float) -> tuple[float, int]:
    """Scale (a float32 value) and zero point of asymmetric int8 that covers ``low`` to ``high``; 0 is exact.

    Formula: TFLite's int8 contract, ``real = scale * (q - zero_point)`` with q in [-128, 127].
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < MIN_RANGE:
        high = low + MIN_RANGE
    scale = float(np.float32((high - low) / 255))
    return scale, int(np.clip(np.rint(-128 - low / scale), -128, 127))


CHOICES: Mapping[str, Callable[[Histogram, float], Range]] = {"minmax": minmax, "percentile": percentile, "mse": mse}
"""The values of ``quantize.range``."""
