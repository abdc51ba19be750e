"""What the page, the metrics and the health check say, as plain data."""

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.bundle import Bundle, PartitionEntry
from runtime.delegates.failover import Health
from runtime.npu.encoding import loads
from runtime.npu.timeline import timeline
from runtime.sinks.recorder import Recorder
from runtime.status import Status

STALE_S = 30.0
"""A live source without a frame for so long makes the whole unhealthy, when no other one works."""

LEAST_FREE = 50 << 20
"""Bytes on the disk of ``--state``; below, health is degraded."""


@dataclass(frozen=True)
class Facts:
    """Everything that is served is read from here.

    Attributes:
        bundle: what is played now.
        partitions: of the bundle, as ``partitions`` describes them.
        delegate: what runs its NPU partitions.
        status: of the sources.
        recorder: of the events.
        state: folder of the queue; ``None`` when it is in memory.
        npu: what became of the NPU's jobs; ``None`` where nobody watches over them.
    """

    bundle: Bundle
    partitions: Sequence[Mapping[str, object]]
    delegate: str
    status: Status
    recorder: Recorder
    state: Path | None
    npu: Health | None = None

    def everything(self) -> dict[str, object]:
        """One JSON object for the page: bundle, partitions, sources, steps, sinks, device, health."""
        manifest = self.bundle.manifest
        return {
            "bundle": {
                "name": manifest.name,
                "version": manifest.version,
                "target": manifest.target,
                "delegate": self.delegate,
                "sha256": self.bundle.sha256,
            },
            "uptime_s": time.time() - self.status.started,
            "partitions": self.partitions,
            "sources": [asdict(source) for source in self.status.sources()],
            "steps": {
                name: {"frames": count, "ms": 1e3 * seconds / count}
                for name, (count, seconds) in self.status.steps().items()
            },
            "sinks": [asdict(delivery) for delivery in self.recorder.deliveries()],
            "events": {"lost": self.recorder.lost, "waiting": self.recorder.waiting, "problem": self.recorder.problem},
            "device": device(self.state),
            "npu": None if self.npu is None else asdict(self.npu),
            "health": self.health(),
        }

    def health(self) -> dict[str, object]:
        """``ok``, ``degraded`` with reasons, or ``failing``: no source gives frames, or only a restart helps a sink."""
        sources = self.status.sources()
        reasons = [f"{s.name}: {s.problem or s.state}" for s in sources if s.state in ("down", "broken")]
        sinks = self.recorder.deliveries()
        reasons += [sink.problem for sink in sinks if sink.problem]
        reasons += [text for text in (self.recorder.problem,) if text]
        if self.state is not None and shutil.disk_usage(self.state).free < LEAST_FREE:
            reasons.append(f"{self.state}: less than {LEAST_FREE >> 20} MB are free")
        dark = [s for s in sources if s.state in ("down", "broken") and time.time() - s.since > STALE_S]
        failing = (bool(sources) and len(dark) == len(sources)) or any(sink.dead for sink in sinks)
        return {"status": "failing" if failing else "degraded" if reasons else "ok", "reasons": reasons}

    def counts(self, minutes: int, step: int) -> list[dict[str, object]]:
        """Sums of ``step`` minutes each over the last ``minutes``; a file's over its own time, from its beginning."""
        since = int(time.time() // 60) - minutes
        live = {source.name for source in self.status.sources() if source.kind == "live"}
        names = ("source", "name", "what", "minute", "count", "seconds")
        rows = self.recorder.sums(0, step)
        return [dict(zip(names, row, strict=True)) for row in rows if row[0] not in live or row[3] >= since]


def partitions(bundle: Bundle) -> list[dict[str, object]]:
    """Each partition's device, operators, and what it is estimated to take on the target; ``None`` where unknown."""
    return [_partition(bundle, entry) for entry in bundle.manifest.partitions]


def _partition(bundle: Bundle, entry: PartitionEntry) -> dict[str, object]:
    facts: dict[str, object] = {"device": entry.device, "operators": len(entry.nodes), "ms": None, "mj": None}
    if entry.program is None:
        return {**facts, "provenance": "not simulated: it runs on this host's CPU"}
    line = timeline(loads(bundle.read(entry.program)))
    if line is None:
        return {**facts, "provenance": "its program carries no estimates"}
    return {**facts, "ms": line.ms, "mj": line.energy_mj, "provenance": line.provenance}


def device(state: Path | None) -> dict[str, object]:
    """This host: memory of the process, load, temperature, free disk; ``None`` where it does not say."""
    return {
        "rss_bytes": _first(_rss),
        "load": _first(lambda: os.getloadavg()[0]),
        "cpus": os.cpu_count(),
        "temperature_c": _first(_temperature),
        "free_bytes": None if state is None else _first(lambda: shutil.disk_usage(state).free),
        "threads": _first(lambda: float(len(list(Path("/proc/self/task").iterdir())))),
    }


def _rss() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))


def _temperature() -> float:
    return int(Path("/sys/class/thermal/thermal_zone0/temp").read_text()) / 1000


def _first(read: Callable[[], float]) -> float | None:
    try:
        return read()
    except (OSError, ValueError):
        return None
