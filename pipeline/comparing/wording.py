"""What rows say in words and figures, the same in the terminal and on the page."""

from pipeline.comparing.nouns import Kind, Row, Worth
from pipeline.report.formats import count, percent, plain

UNKNOWN = "unknown"


def worth(row: Row) -> str:
    """The answer of one row: whether the device is worth it."""
    match row.worth:
        case None:
            return "the host alone"
        case Worth.UNKNOWN:
            if not row.npu_partitions:
                return "unknown: its operators are not public"
            return "unknown: its speed is not public" if row.time is None else "unknown: no host to compare with"
        case Worth.NO:
            return "no: the CPU alone is faster" if row.npu_partitions else "no: all is placed on the CPU"
        case Worth.UNCERTAIN:
            return f"perhaps: {known(row.speedup)}x its CPU, bands overlap"
    return f"yes: {known(row.speedup)}x its CPU"


def unit(row: Row) -> str:
    """The name of a row, marked where no such chip exists."""
    return f"{row.name} (hypothetical)" if row.hypothetical else row.name


def band(row: Row) -> str:
    """The limits of the time."""
    return "" if row.time is None else f"{known(row.time.low_ms)}-{known(row.time.high_ms)}"


def known(number: float | None) -> str:
    """A number with three significant digits, or that it is not known."""
    if number is None:
        return UNKNOWN
    return count(number) if number >= 100 else plain(number, 3)


def energy(row: Row) -> str:
    """Millijoules; more than those that are known, where a power is missing."""
    if row.energy_mj is None and row.known_energy_mj:
        return f">{known(row.known_energy_mj)}"
    return known(row.energy_mj)


def per_watt(row: Row) -> str:
    """Inferences per joule; less than those of the energy that is known, where a power is missing."""
    if row.energy_mj is None and row.known_energy_mj:
        return f"<{known(1e3 / row.known_energy_mj)}"
    return known(row.fps_per_watt)


def partitions(row: Row) -> str:
    """How many partitions, and how many of them on the device."""
    return f"{row.partitions} ({row.npu_partitions})"


def coverage(row: Row) -> str:
    """The part of the MACs that is on the NPU or GPU; nothing for a host alone."""
    return "" if row.kind is Kind.CPU else percent(row.coverage)


def accuracy(row: Row) -> str:
    """AP50 of int8; nothing for a host alone, which nobody asked."""
    if row.kind is Kind.CPU:
        return ""
    return UNKNOWN if row.accuracy is None else percent(row.accuracy.ap50, 2)
