"""Gates: floors and ceilings on what a model costs on a target, and by how much it misses them."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.checking.nouns import Check


@dataclass(frozen=True)
class Gates:
    """What a model must keep; ``None`` asks nothing.

    Attributes:
        min_macs_on_npu: fraction of the MACs that must run on the NPU.
        max_ms: milliseconds of one inference.
        max_crossings: tensors that go from one device to the other.
        max_partitions: on both devices.
        max_mb: megabytes (10^6 bytes) over the link.
        max_mj: millijoules of one inference.
    """

    min_macs_on_npu: float | None = None
    max_ms: float | None = None
    max_crossings: int | None = None
    max_partitions: int | None = None
    max_mb: float | None = None
    max_mj: float | None = None


def missed(check: Check, gates: Gates) -> tuple[str, ...]:
    """A sentence for each gate that ``check`` misses, with the shortfall; what is not known misses its gate."""
    ceilings = (
        ("max_ms", gates.max_ms, check.totals.ms, "ms"),
        ("max_crossings", gates.max_crossings, check.cut.crossings, "crossings"),
        ("max_partitions", gates.max_partitions, check.cut.partitions, "partitions"),
        ("max_mb", gates.max_mb, check.totals.crossing_bytes / 1e6, "MB over the link"),
        ("max_mj", gates.max_mj, check.totals.energy_mj, "mJ"),
    )
    found = [*_floor(check, gates.min_macs_on_npu)]
    for name, limit, value, unit in ceilings:
        if limit is None:
            continue
        if value is None:
            found.append(f"{name} is {limit:g}, but the {unit} on {check.target} are not known")
        elif value > limit:
            found.append(f"{name} is {limit:g}, {check.target} takes {value:.4g} {unit}: {value - limit:.4g} too many")
    return tuple(found)


def _floor(check: Check, floor: float | None) -> Iterator[str]:
    if floor is None or check.coverage >= floor:
        return
    said = f"min_macs_on_npu is {floor:.2%}, {check.coverage:.2%} of the MACs are on {check.target}"
    possible = check.macs_taken / check.macs if check.macs else check.coverage
    if possible < floor:
        first = next((node for node in check.nodes if node.name in check.refused), None)
        because = "" if first is None else f"; first fallback: {first.name} ({first.op}): {first.reasons[0]}"
        yield f"{said}; no placement can meet it, since the NPU takes {possible:.2%} at most{because}"
    else:
        short = f"{floor - check.coverage:.2%} short"
        yield f"{said}: {short}; the NPU takes up to {possible:.2%}, slower or in more partitions"
