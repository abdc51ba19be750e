"""From an activation's statistics to the range that int8 shall cover."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.quantize.histogram import Histogram
from pipeline.quantize.scheme import Scheme

Range = tuple[float, float]
Choice = Callable[[Histogram, float, Scheme], Range]

SHRINK = 64
"""Candidates for an end of a range, from all that was seen down to a fifth of it."""

SMOOTH = 1e-6
"""What a quantized distribution has at least where something was seen."""


def minmax(histogram: Histogram, percentile: float, scheme: Scheme) -> Range:
    """Everything that was seen."""
    return histogram.low, histogram.high


def moving_average(histogram: Histogram, percentile: float, scheme: Scheme) -> Range:
    """The images' smallest and largest values, averaged with later images counting slightly more."""
    return histogram.average_low, histogram.average_high


def percentile(histogram: Histogram, percentile: float, scheme: Scheme) -> Range:
    """The central ``percentile`` % of what was seen: at most the same share is cut from both tails, in whole bins."""
    lows, highs, counts = histogram.edges()
    cut = (1 - percentile / 100) / 2 * counts.sum()
    first = int(np.argmax(np.cumsum(counts) > cut))
    last = len(counts) - 1 - int(np.argmax(np.cumsum(counts[::-1]) > cut))
    return float(lows[first]), float(highs[last])


def mse(histogram: Histogram, percentile: float, scheme: Scheme) -> Range:
    """The range with the smallest mean squared error of rounding and clipping together.

    First both ends shrink together, then each end alone around the best: 3 x ``SHRINK`` candidates on the histogram.
    """
    centres, counts = histogram.occupied()
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    shrink = np.linspace(1.0, 0.2, SHRINK)
    best = (low, high)
    for ends in ((True, True),) if scheme.symmetric else ((True, True), (False, True), (True, False)):
        lows = best[0] * (shrink if ends[0] else np.ones_like(shrink))
        highs = best[1] * (shrink if ends[1] else np.ones_like(shrink))
        errors = _squared_errors(centres, counts, lows, highs, scheme)
        pick = int(np.argmin(errors))
        best = float(lows[pick]), float(highs[pick])
    return best


def _squared_errors(
    centres: NDArray[np.float64],
    counts: NDArray[np.int64],
    lows: NDArray[np.float64],
    highs: NDArray[np.float64],
    scheme: Scheme,
) -> NDArray[np.float64]:
    """The summed squared error of each candidate range: [candidates]."""
    pairs = np.array([scheme.activation(low, high) for low, high in zip(lows, highs, strict=True)])
    scale, zero = pairs[:, :1], pairs[:, 1:]
    bottom = -127 if scheme.symmetric else -128
    q = np.clip(np.rint(centres[None, :] / scale) + zero, bottom, 127)
    errors: NDArray[np.float64] = (((q - zero) * scale - centres[None, :]) ** 2) @ counts.astype(np.float64)
    return errors


def entropy(histogram: Histogram, percentile: float, scheme: Scheme) -> Range:
    """The range whose quantized distribution tells most of the one that was seen (least Kullback-Leibler divergence).

    TensorRT's calibration (Migacz, "8-bit Inference with TensorRT", GTC 2017) on magnitudes: for each threshold, the
    bins below it with all that lies beyond added to the last, against the same bins merged into the levels that int8
    has for magnitudes; here on half of ``BINS``, so that there is a threshold to find. The bin at zero counts as the
    next one, for zero is always exact and often most of what was seen. Both ends shrink by the same factor.
    """
    magnitudes = histogram.magnitudes()
    magnitudes[0] = magnitudes[1]
    levels = 128 if scheme.symmetric or histogram.low < 0 < histogram.high else 255
    used = int(np.flatnonzero(magnitudes)[-1]) + 1 if magnitudes.any() else 0
    if used <= levels:
        return minmax(histogram, percentile, scheme)
    thresholds = np.unique(np.linspace(levels, used, SHRINK * 2).astype(int))
    divergences = [_divergence(magnitudes[:used], int(t), levels) for t in thresholds]
    kept = float(thresholds[int(np.argmin(divergences))]) / used
    return histogram.low * kept, histogram.high * kept


def _divergence(magnitudes: NDArray[np.int64], threshold: int, levels: int) -> float:
    """KL(seen || quantized) of keeping the first ``threshold`` bins; what was seen spreads over its level's bins."""
    kept = magnitudes[:threshold].astype(np.float64)
    seen = kept.copy()
    seen[-1] += magnitudes[threshold:].sum()
    level = np.arange(threshold) * levels // threshold
    filled = (seen > 0).astype(np.float64)
    share = np.bincount(level, kept, levels) / np.maximum(np.bincount(level, filled, levels), 1)
    merged = share[level] * filled
    p, q = seen / seen.sum(), merged / max(merged.sum(), 1.0)
    where = p > 0
    return float((p[where] * np.log(p[where] / np.maximum(q[where], SMOOTH))).sum())


CHOICES: Mapping[str, Choice] = {
    "minmax": minmax,
    "moving-average": moving_average,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}
"""The values of ``quantize.range``."""
