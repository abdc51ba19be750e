"""A roofline, for chips of which little more is public than their peak.

``max(2 * MACs / (peak * share), bytes / bandwidth)``. ``share`` is the part of the peak that the chip reaches: the
figure ``effective_share`` of its profile where calibration rows give one, else 1, so that the time is a lower bound
and the band says so. Bandwidth: ``dram_bytes_per_second``, else ``memory_bytes_per_second``.
"""

from pipeline.cost.common import RATES, rated_energy, relative_energy
from pipeline.cost.nouns import FREE, Device, Kind, LayerCost, Work


def cost(work: Work, device: Device) -> LayerCost:
    """What ``work`` costs under the roofline."""
    if work.kind is Kind.VIEW:
        return FREE
    memory = "dram" if device.get("dram_bytes_per_second") is not None else "memory"
    moved = {memory: work.feature_bytes * work.passes + work.weight_bytes}
    peak = _peak(device)
    missing = () if device.get(RATES[memory]) is not None else (RATES["dram"],)
    energy = relative_energy(work, moved)
    if peak is None:
        return LayerCost(None, None, moved, "unknown", energy, None, ("tops_int8", *missing))
    times = {"compute": 1e3 * work.macs / (peak * (device.get("effective_share") or 1.0))}
    rate = device.get(RATES[memory])
    if rate is not None:
        times[memory] = 1e3 * moved[memory] / rate
    ms = max(times.values())
    clock = device.get("clock_hz")
    bound = max(times, key=lambda name: times[name])
    cycles = None if clock is None else ms * clock / 1e3
    return LayerCost(ms, cycles, moved, bound, energy, rated_energy(ms, device), missing)


def _peak(device: Device) -> float | None:
    """Multiply-accumulates per second of one inference; the chip's TOPS where its array is not public."""
    macs, clock, tops = device.get("macs_per_cycle"), device.get("clock_hz"), device.get("tops_int8")
    if macs is not None and clock is not None:
        return macs * clock
    return None if tops is None else tops * 1e12 / 2
