"""NVDLA and its relatives, as in NVIDIA's performance sheet.

Source: nvdla/hw at 8e06b1b, perf/NVDLA_OpenSource_Performance.xlsx.

Per layer ``max(MAC cycles / clock, DRAM bytes / bandwidth)``, summed. Multipliers are fed in atoms of 16 channels:
``roundup16(Ci * sx * sy) * Ho * Wo * roundup16(Co) * kh * kw / (sx * sy) / MACs`` for a first layer, whose strided
input is folded into channels; others round ``Ci`` alone. Input and weights that do not both fit the convolution
buffer are read again: the smaller is cut into as many slices as the buffer needs, and the larger moves once for each.
No Winograd. RTL took 2.34 times the sheet's cycles on AlexNet (nvdla/hw#202), so the band of this model is wide.
"""

import math

from pipeline.cost.common import bounded
from pipeline.cost.nouns import FREE, Device, Kind, LayerCost, Work

ATOM = 16
"""Channels that enter and leave the multipliers together."""


def _up(value: int) -> int:
    return math.ceil(value / ATOM) * ATOM


def mac_cycles(work: Work, macs_per_cycle: float) -> float:
    """Cycles of the multipliers; groups share no atom."""
    vertical, horizontal = work.stride
    folded = vertical * horizontal if work.in_channels < ATOM and work.taps >= vertical * horizontal else 1
    into = _up(math.ceil(work.in_channels / work.groups) * folded)
    out = _up(math.ceil(work.channels / work.groups))
    return work.groups * into * work.height * work.width * out * work.taps / folded / macs_per_cycle


def dram_bytes(work: Work, buffer: float) -> int:
    """Bytes that one layer moves, with what must be read again."""
    given, weights = sum(work.in_bytes), work.weight_bytes
    row = max(1, given // max(1, work.in_height))
    slice_in = min(given, row * work.kernel[0])  # the input rows that one row of outputs needs
    slice_w = min(weights, max(1, weights * ATOM // max(ATOM, work.channels)))
    once = given + weights + work.out_bytes
    if given + weights <= buffer:
        return once
    room = max(1.0, buffer - slice_in) if given >= weights else max(1.0, buffer - slice_w)
    if given >= weights:
        return math.ceil(weights / room) * given + weights + work.out_bytes if weights else once
    return math.ceil(given / room) * weights + given + work.out_bytes if given else once


def cost(work: Work, device: Device) -> LayerCost:
    """What ``work`` costs on an NVDLA. Operators without weights are bound by memory alone."""
    if work.kind is Kind.VIEW:
        return FREE
    macs = device.get("macs_per_cycle")
    weighted = work.kind in (Kind.CONV, Kind.DEPTHWISE, Kind.FC)
    count: float | None = 0.0 if not weighted else None if macs is None else mac_cycles(work, macs)
    buffer = device.get("convolution_buffer_bytes")
    moved = dram_bytes(work, math.inf if buffer is None else buffer) if weighted else work.feature_bytes
    return bounded(work, device, count, {"dram": moved}, "macs_per_cycle")
