"""The Coral Edge TPU: tiles of cells that multiply, and parameters that are cached on chip or streamed over the link.

``t = t0(model) + max(0, parameter bytes - cache) / link + command stream / link``. Layers are cached in the order in
which they run, until the cache is full; what is left is streamed at every inference (coral.ai/docs/edgetpu/compiler).
Links and cache: slopes between VGG16 and Inception v4 on the vendor's benchmark page.

``t0``: 16 tiles of 64 cells of 4 multipliers (google-coral/libedgetpu ``beagle_chip_structures.h``; the 4 are
inferred from 4 TOPS at 500 MHz). Taken as places on tiles, output channels on cells, inner products on multipliers,
so ``ceil(M / 16) * ceil(N / 64) * ceil(K / 4)`` cycles; that layout is an assumption, which VGG16 and Inception v4
bear out (t0 of 8.2 and 8.4 ms against 7.6 and 6.0 at peak). ``effective_share``, where fitted, divides these cycles:
it stands for what is not public, such as the bandwidth of the on-chip memories. Other chips with a parameter cache
count as systolic arrays.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from pipeline.cost import systolic
from pipeline.cost.common import bounded, rated_energy
from pipeline.cost.nouns import FREE, Device, Kind, LayerCost, Work

TILES, CELLS, LANES = 16, 64, 4


def cycles(work: Work) -> int:
    """Cycles of ``work`` on the tiles; operators without weights use a multiplier per element and step."""
    places = math.ceil(work.height * work.width / TILES)
    if work.kind in (Kind.CONV, Kind.DEPTHWISE, Kind.FC):
        groups = 1 if work.kind is Kind.DEPTHWISE else work.groups
        inner = work.taps * (1 if work.kind is Kind.DEPTHWISE else math.ceil(work.in_channels / work.groups))
        return groups * places * math.ceil(work.channels / groups / CELLS) * math.ceil(inner / LANES)
    window = work.taps if work.kind is Kind.POOL else work.passes
    return places * math.ceil(work.channels / CELLS) * window


def cost(work: Work, device: Device) -> LayerCost:
    """What ``work`` costs with its parameters in the cache."""
    if device.get("macs_per_cycle") != TILES * CELLS * LANES or device.get("parameter_cache_bytes") is None:
        return systolic.cost(work, device)
    if work.kind is Kind.VIEW:
        return FREE
    moved = {"memory": work.feature_bytes + work.weight_bytes}
    return bounded(work, device, cycles(work) / (device.get("effective_share") or 1.0), moved, "macs_per_cycle")


def costs(works: Sequence[Work], device: Device) -> tuple[LayerCost, ...]:
    """What each of ``works`` costs when all run on the device in this order; the command stream is the partition's."""
    cache = device.get("parameter_cache_bytes")
    if cache is None:
        return tuple(cost(work, device) for work in works)
    pairs = zip(works, streamed(works, cache), strict=True)
    return tuple(_with_stream(cost(work, device), device, count) for work, count in pairs)


def streamed(works: Sequence[Work], cache: float) -> tuple[int, ...]:
    """Bytes of parameters that each of ``works`` fetches over the link each inference; their sum is the overflow."""
    left, result = cache, []
    for work in works:
        result.append(int(max(0.0, work.weight_bytes - max(0.0, left))))
        left -= work.weight_bytes
    return tuple(result)


def _with_stream(cost: LayerCost, device: Device, count: int) -> LayerCost:
    """``cost`` and the time that ``count`` bytes of parameters take over the link, or from DRAM where there is one."""
    if not count:
        return cost
    rate = device.get("dram_bytes_per_second") or device.get("link_bytes_per_second")
    moved = {**cost.bytes, "link": count}
    if rate is None or cost.ms is None:
        return replace(cost, ms=None, bytes=moved, bound="unknown", missing=(*cost.missing, "link_bytes_per_second"))
    ms = cost.ms + 1e3 * count / rate
    return replace(cost, ms=ms, bytes=moved, bound="link", energy_mj=rated_energy(ms, device))
