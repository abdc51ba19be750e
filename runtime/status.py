"""How a running npu-run is doing: numbers that its threads write and the live page, metrics and health read."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runtime.outputs import Counts
from runtime.zones import Visits

State = Literal["connecting", "up", "down", "ended", "broken"]

SMOOTH = 0.1
"""Weight of the newest frame in rates and latencies."""


@dataclass
class SourceStatus:
    """One source.

    Attributes:
        name: as on the command line, without passwords.
        kind: ``video``, ``images`` or ``live``.
        state: ``down`` is tried again, ``broken`` is not.
        problem: why it is down or broken.
        since: when it came to this state, seconds since 1970.
        frames, dropped, outages: so far.
        cold_start_s: how old the process was, in seconds, when the first frame's boxes were known.
        fps: results per second, smoothed.
        latency_ms: from capture to result, live sources, smoothed.
        boxes: in the newest frame.
        tracks: so far.
        counts: crossings so far, by line.
        occupancy: inside now, by zone.
        visits: so far, by zone.
    """

    name: str
    kind: str
    state: State = "connecting"
    problem: str | None = None
    since: float = field(default_factory=time.time)
    frames: int = 0
    dropped: int = 0
    outages: int = 0
    cold_start_s: float | None = None
    fps: float = 0.0
    latency_ms: float | None = None
    boxes: int = 0
    tracks: int = 0
    counts: Counts = field(default_factory=dict)
    occupancy: Mapping[str, int] = field(default_factory=dict)
    visits: Mapping[str, Visits] = field(default_factory=dict)


def age() -> float | None:
    """Seconds since this process was started, the interpreter's own start included, to 10 ms; ``None`` but on Linux.

    Field 22 of ``/proc/self/stat``: the start in clock ticks after boot (man 5 proc).
    """
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return None


class Status:
    """All sources, and how long each step takes; every method may be called by any thread."""

    def __init__(self, sources: Sequence[tuple[str, str]]) -> None:
        """Begin with sources of these names and kinds."""
        self._lock = threading.Lock()
        self._sources = [SourceStatus(name, kind) for name, kind in sources]
        self._last: list[float | None] = [None] * len(self._sources)
        self._steps: dict[str, tuple[int, float]] = {}
        self.started = time.time()

    def change(self, source: int, change: Callable[[SourceStatus], None]) -> None:
        """Let ``change`` write into a source's status."""
        with self._lock:
            change(self._sources[source])

    def enter(self, source: int, state: State, problem: str | None = None) -> bool:
        """A source is in this state now; whether it was in another one before."""
        with self._lock:
            status = self._sources[source]
            changed = status.state != state
            if changed:
                status.since = time.time()
                status.outages += state == "down"
            status.state, status.problem = state, problem
            return changed

    def played(self, source: int, latency_s: float | None, seconds: Mapping[str, float]) -> None:
        """One more frame of a source has its result; ``seconds`` by step."""
        now = time.monotonic()
        with self._lock:
            status, last = self._sources[source], self._last[source]
            self._last[source] = now
            status.frames += 1
            if last is not None and now > last:
                rate = 1 / (now - last)
                status.fps = rate if status.fps == 0 else 1 / ((1 - SMOOTH) / status.fps + SMOOTH / rate)
            if latency_s is not None:
                before = status.latency_ms if status.latency_ms is not None else 1e3 * latency_s
                status.latency_ms = (1 - SMOOTH) * before + SMOOTH * 1e3 * latency_s
            for step, value in seconds.items():
                count, total = self._steps.get(step, (0, 0.0))
                self._steps[step] = (count + 1, total + value)

    def sources(self) -> list[SourceStatus]:
        """A copy of every source's status."""
        with self._lock:
            return [SourceStatus(**vars(status)) for status in self._sources]

    def steps(self) -> dict[str, tuple[int, float]]:
        """Frames and seconds so far, by step."""
        with self._lock:
            return dict(self._steps)
