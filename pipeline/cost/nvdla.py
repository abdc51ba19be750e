"""NVDLA and its relatives, as in NVIDIA's performance sheet.

Source: nvdla/hw at 8e06b1b, perf/NVDLA_OpenSource_Performance.xlsx.

Per layer ``max(MAC cycles / clock / share, DRAM bytes / bandwidth) + operator``, summed. Multipliers are fed in atoms
of channels, 16 in the sheet: ``up(Ci * sx * sy) * Ho * Wo * up(Co) * kh * kw / (sx * sy) / MACs`` for a first layer,
whose strided input is folded into channels; others round ``Ci`` alone. Input and weights that do not both fit the
convolution buffer are read again: the smaller is cut into as many slices as the buffer needs, and the larger moves
once for each. No Winograd.

The sheet has no depthwise mode: every channel is a group that fills an atom by itself. A chip that has one computes
``depthwise_macs_per_cycle``, in whole atoms of channels.

``effective_share`` is the part of the sheet's speed that a chip reaches (RTL took 2.34 times the sheet's cycles on
AlexNet, nvdla/hw#202), ``operator_s`` what starting a layer takes; a layer of either kind is none in the sheet.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from pipeline.cost.common import bounded, rated_energy
from pipeline.cost.nouns import FREE, WEIGHTED, Device, Kind, LayerCost, Work

ATOM = 16
"""Channels that enter and leave the multipliers together, in the sheet."""


def mac_cycles(work: Work, macs_per_cycle: float, into: int = ATOM, out: int = ATOM) -> float:
    """Cycles of the multipliers, fed ``into`` channels and giving ``out`` at a time; groups share no atom."""
    vertical, horizontal = work.stride
    given = math.ceil(work.in_channels / work.groups)
    folded = vertical * horizontal if work.in_channels < ATOM and work.taps >= vertical * horizontal else 1
    made = math.ceil(math.ceil(work.channels / work.groups) / out) * out
    fed = math.ceil(given * folded / into) * into
    return work.groups * fed * work.height * work.width * made * work.taps / folded / macs_per_cycle


def depthwise_cycles(work: Work, macs_per_cycle: float, atom: int = ATOM) -> float:
    """Cycles of a depthwise mode, whose channels are computed ``atom`` at a time."""
    channels = math.ceil(work.channels / atom) * atom
    return work.height * work.width * channels * work.taps / macs_per_cycle


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
    macs, weighted = device.get("macs_per_cycle"), work.kind in WEIGHTED
    count: float | None = 0.0
    if weighted:
        into, out = (int(device.get(f"atom_{side}_channels") or ATOM) for side in ("input", "output"))
        share = device.get("effective_share") or 1.0
        own = device.get("depthwise_macs_per_cycle") if work.kind is Kind.DEPTHWISE else None
        if own is not None:
            count = depthwise_cycles(work, own, into) / share
        else:
            count = None if macs is None else mac_cycles(work, macs, into, out) / share
    buffer = device.get("convolution_buffer_bytes")
    moved = dram_bytes(work, math.inf if buffer is None else buffer) if weighted else work.feature_bytes
    found = bounded(work, device, count, {"dram": moved}, "macs_per_cycle")
    start = device.get("operator_s")
    if start is None or found.ms is None or work.op == "Concat":
        return found
    ms = found.ms + 1e3 * start
    return replace(found, ms=ms, energy_mj=rated_energy(ms, device))


def costs(works: Sequence[Work], device: Device) -> tuple[LayerCost, ...]:
    """What each of ``works`` costs when all run on the device; a Mul that makes a Sigmoid a Swish joins it."""
    joins = swishes(works) if device.get("operators_per_swish") == 1 else frozenset()
    return tuple(FREE if work.name in joins else cost(work, device) for work in works)


def swishes(works: Sequence[Work]) -> frozenset[str]:
    """Names of the Mul operators that multiply something with its own Sigmoid."""
    before = {tensor: work for work in works for tensor in work.outputs if work.op in ("Sigmoid", "HardSigmoid")}
    found = set()
    for work in works:
        gates = [before[t] for t in work.inputs if t in before] if work.op == "Mul" else []
        if any(set(gate.inputs) & set(work.inputs) for gate in gates):
            found.add(work.name)
    return frozenset(found)
