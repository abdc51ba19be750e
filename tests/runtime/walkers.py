"""People who walk over a line, with the truth known: a clip of bright figures, and a network that finds just those.

The network has the shape of ``tiny``; its weights are written by hand: the first convolution measures brightness, the
scores are high where it is, every box has the figures' size.
"""

from unittest.mock import patch

import numpy as np
import tiny

from runtime.adapters.detection import BoxDecoder
from runtime.manifest import Line, Zone

WIDTH, HEIGHT, RATE = 192, 128, 10
PERSON = (16, 32)
"""Width and height of a figure, in source pixels."""

LINE = Line("gate", (0.0, 72.0), (192.0, 72.0))
ZONE = Zone("hall", ((0.0, 76.0), (192.0, 76.0), (192.0, 128.0), (0.0, 128.0)))
STEPS = 30
"""Frames in which a figure walks from one end to the other."""

PAUSE = 15
"""Frames without anybody, in which the tracker forgets the figures before."""


def weights(name):
    """Weight int8 and bias int32 of a convolution, as ``tiny.weights``."""
    _, _, outputs, inputs, size, _, _ = tiny.CONVS[name]
    weight, bias = np.zeros((outputs, inputs, size, size), np.int8), np.zeros(outputs, np.int32)
    unit = tiny.SPECS["c"].scale * tiny.WEIGHT_SCALE
    if name == "conv_a":
        weight[0] = 20
    if name == "scores":
        weight[0, 0], bias[0] = 120, round(-3.3 / unit)
    if name == "boxes":
        bias[:] = [round(side / unit) for side in (0.5, 1.0, 0.5, 1.0)]
    return weight, bias


def write(path, parts=tiny.whole, **changes):
    """The bundle, with one line and one zone."""
    places = {"lines": (LINE,), "zones": (ZONE,), "name": "walkers", "decoder": BoxDecoder(2, 0.5, 0.1, 20)}
    with patch.object(tiny, "weights", weights):
        return tiny.write(path, parts, **{**places, **changes})


def clip(pairs):
    """Frames uint8 [N, HEIGHT, WIDTH, 3]: ``pairs`` times one figure walks down (out) and another up (in).

    A pair takes ``STEPS + PAUSE`` frames; the line is crossed once each way, and the zone is entered and left.
    """
    length = STEPS + PAUSE
    frames = np.full((pairs * length, HEIGHT, WIDTH, 3), 20, np.uint8)
    for index in range(len(frames)):
        step = index % length
        if step < STEPS:
            down, up = 4 + 3 * step, 4 + 3 * (STEPS - 1 - step)
            for left, top in ((40, down), (136, up)):
                frames[index, top : top + PERSON[1], left : left + PERSON[0]] = 250
    return frames
