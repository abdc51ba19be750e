"""How far a weight decoder's encoding shrinks weights: their entropy, which no lossless code of single weights beats.

Ethos-U streams weights compressed (Golomb-Rice codes with palettes, about 1.5 % above the entropy on Gaussian
weights: measured with ethos-u-vela 5.2.0, see ``tests/pipeline/cost``). Random weights compress otherwise than
trained ones, so this is read from the weights at hand, on a sample.
"""

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.graph.view import Tensor

SAMPLE = 4096
"""Weights that are looked at; evenly spaced, the same ones every time."""
CHANNELS = 32
"""Output channels that are looked at."""
OVERHEAD = 1.015
"""Encoded bits over entropy."""


def encoded_density(weight: Tensor, channels_first: bool) -> float:
    """Encoded bytes per int8 weight of ``weight``, 1.0 for one that is no constant; ``channels_first``: one scale each.

    A float weight is looked at as its symmetric int8 form, with one scale per output channel.
    """
    if weight.constant is None or weight.constant.size == 0:
        return 1.0
    values = weight.constant
    if not channels_first or values.ndim < 2:
        flat = values.reshape(1, -1)
        return density(flat[:, :: max(1, flat.size // SAMPLE)])
    some = values[:: max(1, len(values) // CHANNELS)]
    return density(some.reshape(len(some), -1))


def density(rows: NDArray[np.generic]) -> float:
    """Encoded bytes per weight of ``rows`` [output channel, weight], integers or real numbers with a scale per row."""
    flat = np.ravel(rows)
    picked = np.arange(0, flat.size, max(1, flat.size // SAMPLE))
    sample = flat[picked].astype(np.float32)
    if not np.issubdtype(rows.dtype, np.integer):
        limits = np.maximum(rows.max(axis=1), -rows.min(axis=1)).astype(np.float32)
        limit = limits[picked // rows.shape[1]]
        sample = np.rint(sample / np.where(limit > 0, limit, 1.0) * 127)
    counts = np.bincount((np.nan_to_num(sample).clip(-255, 255) + 256).astype(np.int64))
    share = counts[counts > 0] / sample.size
    bits = -float((share * np.log2(share)).sum())
    bias = (share.size - 1) / (
        2 * sample.size * math.log(2)
    )  # a small sample looks more orderly than it is (Miller 1955)
    return min(1.0, (bits + bias) * OVERHEAD / 8)
