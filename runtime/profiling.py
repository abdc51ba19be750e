"""``npu-run profile``: what each layer of a bundle's programs costs on the target, as a table, as JSON, as a trace."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from runtime.bundle import Bundle
from runtime.npu.bounds import bounds
from runtime.npu.encoding import loads
from runtime.npu.program import Program
from runtime.npu.timeline import Timeline, timeline
from runtime.npu.trace import trace

UNKNOWN = "-"
"""Stands for what the target's public figures do not tell."""


@dataclass(frozen=True)
class Profile:
    """A program of a bundle by its file's name, with its timeline; ``None`` when it carries no estimates."""

    name: str
    program: Program
    timeline: Timeline | None


def profiles(bundle: Bundle) -> tuple[Profile, ...]:
    """Every program of ``bundle`` in execution order.

    Raises:
        ProgramError: a program is malformed.
    """
    names = [entry.program for entry in bundle.manifest.partitions if entry.program is not None]
    programs = [(name, loads(bundle.read(name))) for name in names]
    return tuple(Profile(name, program, timeline(program)) for name, program in programs)


def facts(bundle: Bundle) -> dict[str, object]:
    """The profile for scripts; ``null`` for what is not known."""
    return {
        "bundle": bundle.manifest.name,
        "target": bundle.manifest.target,
        "programs": [_program_facts(profile) for profile in profiles(bundle)],
    }


def _program_facts(profile: Profile) -> dict[str, object]:
    return {
        "program": profile.name,
        "estimates": None if profile.timeline is None else totals(profile.timeline),
        "memories": _memory_facts(profile.program),
        "accumulators": [{**asdict(bound), "spare_bits": bound.spare_bits} for bound in bounds(profile.program)],
        "layers": [] if profile.timeline is None else [asdict(row) for row in profile.timeline.rows],
    }


def totals(line: Timeline) -> dict[str, object]:
    """What a whole program costs: the sums of its layers, its launch, and its tensors that cross the border."""
    return {
        "provenance": line.provenance,
        "ms": line.ms,
        "cycles": line.cycles,
        "macs": line.macs,
        "bytes": line.bytes,
        "energy_mj": line.energy_mj,
        "launch_ms": line.launch_ms,
        "crossing_ms": line.crossing_ms,
        "unknown": list(line.missing),
    }


def _memory_facts(program: Program) -> list[dict[str, object]]:
    """Of each memory: its size, whether that is assumed, and what the plan uses of it."""
    schedule = program.schedule
    if schedule is None:
        return []
    spilled = list(schedule.spilled())
    unstaged = [program.instructions[i].name for i in schedule.unstaged()]
    return [
        {
            **asdict(memory),
            "used": schedule.peak(i),
            "spilled": spilled if i == 0 else [],
            "unstaged": unstaged if i == 0 else [],
        }
        for i, memory in enumerate(schedule.memories)
    ]


def document(bundle: Bundle) -> dict[str, object]:
    """The trace of all programs that carry estimates, see ``runtime.npu.trace``."""
    return trace([(p.name, p.timeline) for p in profiles(bundle) if p.timeline is not None])


def lines(bundle: Bundle) -> list[str]:
    """The profile for people: a table for each program."""
    found = profiles(bundle)
    text = [f"{bundle.manifest.name} on {bundle.manifest.target}: estimated per inference, nothing here is measured"]
    for profile in found:
        text += ["", *_program_lines(profile)]
    return text if found else [*text, "no partition runs on the NPU"]


def _program_lines(profile: Profile) -> list[str]:
    line = profile.timeline
    if line is None:
        return [f"{profile.name}: carries no estimates; package it again for a profile"]
    head = ("layer", "operators", "tiles", "ms", "MACs", "use %", "bytes", "mJ", "bound by")
    rows = [
        (
            row.name, "+".join(row.opcodes), str(row.tiles), _number(row.ms, 4), str(row.macs),
            _number(None if row.utilization is None else 100 * row.utilization, 1),
            str(sum(row.bytes.values())), _number(row.energy_mj, 5), row.bound,
        )
        for row in line.rows
    ]  # fmt: skip
    total = (
        "total", "", str(sum(row.tiles for row in line.rows)), _number(line.ms, 4), str(line.macs), "",
        str(sum(line.bytes.values())), _number(line.energy_mj, 5), "",
    )  # fmt: skip
    border = f"of the total {line.launch_ms:.4f} ms are the launch and {line.crossing_ms:.4f} ms the border"
    text = [f"{profile.name} ({line.provenance}; {border})", *_table([head, *rows, total]), *_plan(profile.program)]
    text += _accumulators(profile.program)
    return [*text, f"not public, so not counted: {', '.join(line.missing)}"] if line.missing else text


def _plan(program: Program) -> list[str]:
    schedule = program.schedule
    if schedule is None:
        return []
    parts = [
        f"{m.name} {schedule.peak(i)} of {m.bytes} bytes{' (assumed)' if m.assumed else ''}"
        for i, m in enumerate(schedule.memories)
    ]
    spilled = schedule.spilled()
    outside = f"; for want of room {len(spilled)} tensors lie outside of the chip" if spilled else ""
    unstaged = len(schedule.unstaged())
    far = f"; {unstaged} instructions have no room for tiles and compute outside of it" if unstaged else ""
    return [f"memory: {', '.join(parts)}{outside}{far}"]


def _accumulators(program: Program) -> list[str]:
    """The accumulator with least room, by the static bound."""
    found = bounds(program)
    if not found:
        return []
    least = min(found, key=lambda bound: bound.spare_bits)
    room = "may saturate" if least.spare_bits < 0 else f"{least.spare_bits} of {least.bits} bits are never used"
    return [f"accumulators: whatever the input, {room} in {least.name}, which has the least room"]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns: the first two and the last to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = {0, 1, len(widths) - 1}
    return [
        "  ".join(
            f"{cell:<{width}}" if i in left else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _number(value: float | None, digits: int) -> str:
    return UNKNOWN if value is None else f"{value:.{digits}f}"
