"""What all device models share: the larger of computing and moving, and energy in units that only compare."""

from collections.abc import Mapping

from pipeline.cost.nouns import Device, Kind, LayerCost, Work

MAC_UNIT = 0.3
"""One int8 multiply-accumulate, in pJ at 45 nm (Horowitz, ISSCC 2014: 0.2 multiply + 0.1 add into 32 bits)."""
OPERATION_UNIT = 0.1
"""One addition or comparison of the output stage, from the same table."""
BYTE_UNITS: Mapping[str, float] = {"sram": 1.25, "memory": 1.25, "dram": 160.0, "flash": 160.0, "link": 160.0}
"""One byte of a memory, in pJ at 45 nm (same table: 8 KB SRAM and DRAM reads of 32 bits). The link counts as DRAM."""

RATES: Mapping[str, str] = {
    "sram": "sram_bytes_per_second",
    "memory": "memory_bytes_per_second",
    "dram": "dram_bytes_per_second",
    "link": "link_bytes_per_second",
}
"""The figure that says how fast each memory is."""


def relative_energy(work: Work, moved: Mapping[str, int]) -> float:
    """Energy of ``work`` in arbitrary units: counts times the 45 nm constants above. Only ratios mean something."""
    walked = 0 if work.kind is Kind.VIEW else work.elements * work.passes
    if work.kind is Kind.POOL:
        walked *= work.taps
    return work.macs * MAC_UNIT + walked * OPERATION_UNIT + sum(BYTE_UNITS[m] * n for m, n in moved.items())


def rated_energy(ms: float | None, device: Device) -> float | None:
    """Millijoules as rated power times time, ``None`` where either is unknown."""
    power = device.get("power_w")
    return None if ms is None or power is None else ms * power


def bounded(
    work: Work, device: Device, cycles: float | None, moved: Mapping[str, int], compute_figure: str
) -> LayerCost:
    """The cost of ``work`` as the larger of ``cycles`` of the clock and of moving ``moved`` bytes per memory.

    A memory whose bandwidth is not public costs no time and is named in ``missing``; without a clock or ``cycles``
    (which need ``compute_figure``) there is no time at all.
    """
    clock = device.get("clock_hz")
    missing = list(device.absent("clock_hz"))
    if cycles is None:
        missing.insert(0, compute_figure)
    times = {"compute": 1e3 * cycles / clock} if cycles is not None and clock is not None else {}
    for memory, count in moved.items():
        rate = device.get(RATES[memory])
        if rate is None and count:
            missing.append(RATES[memory])
        elif rate is not None:
            times[memory] = 1e3 * count / rate
    ms = max(times.values()) if "compute" in times else None
    bound = "unknown" if ms is None else max(times, key=lambda name: times[name])
    return LayerCost(
        ms, cycles, dict(moved), bound, relative_energy(work, moved), rated_energy(ms, device), tuple(missing)
    )
