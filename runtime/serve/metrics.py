"""Numbers in Prometheus' text format, version 0.0.4."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from runtime.serve.facts import Facts, device

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = ("connecting", "up", "down", "ended", "broken")


@dataclass(frozen=True)
class Metric:
    """A metric with its samples: labels and value."""

    name: str
    kind: str
    help: str
    samples: Sequence[tuple[Mapping[str, str], float | None]]


def render(facts: Facts) -> str:
    """Everything, one line per sample."""
    return "".join(_lines(metric) for metric in (*_sources(facts), *_events(facts), *_rest(facts)))


def _lines(metric: Metric) -> str:
    head = f"# HELP npu_run_{metric.name} {metric.help}\n# TYPE npu_run_{metric.name} {metric.kind}\n"
    rows = [f"npu_run_{metric.name}{_labels(at)} {value:.12g}\n" for at, value in metric.samples if value is not None]
    return head + "".join(rows)


def _labels(labels: Mapping[str, str]) -> str:
    """Quoted as the format wants it."""
    quoted = (f'{key}="{_escaped(value)}"' for key, value in labels.items())
    return "{" + ",".join(quoted) + "}" if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _sources(facts: Facts) -> Iterable[Metric]:
    sources = facts.status.sources()

    def each(name: str, kind: str, text: str, values: Sequence[float | None]) -> Metric:
        return Metric(name, kind, text, [({"source": s.name}, v) for s, v in zip(sources, values, strict=True)])

    yield each("frames_total", "counter", "Frames played.", [s.frames for s in sources])
    yield each(
        "frames_dropped_total", "counter", "Live frames that gave way to newer ones.", [s.dropped for s in sources]
    )
    yield each("outages_total", "counter", "Times that a source was lost.", [s.outages for s in sources])
    yield each("source_up", "gauge", "1 while a source gives frames.", [s.state == "up" for s in sources])
    yield each("frames_per_second", "gauge", "Results per second, smoothed.", [s.fps for s in sources])
    latencies = [None if s.latency_ms is None else s.latency_ms / 1e3 for s in sources]
    yield each("latency_seconds", "gauge", "From capture to result, smoothed.", latencies)
    cold = [s.cold_start_s for s in sources]
    yield each("cold_start_seconds", "gauge", "From the start of the process to the first frame's boxes.", cold)
    yield each("tracks_total", "counter", "Tracks seen.", [s.tracks for s in sources])
    crossed = [
        ({"source": s.name, "line": line, "direction": direction}, float(count))
        for s in sources
        for line, counts in s.counts.items()
        for direction, count in counts.items()
    ]
    yield Metric("crossings_total", "counter", "Crossings of a line since the start.", crossed)
    inside = [({"source": s.name, "zone": zone}, float(n)) for s in sources for zone, n in s.occupancy.items()]
    yield Metric("occupancy", "gauge", "Tracks inside a zone now.", inside)
    zones = [({"source": s.name, "zone": zone}, visits) for s in sources for zone, visits in s.visits.items()]
    ended = [(at, float(visits.visits)) for at, visits in zones]
    yield Metric("visits_total", "counter", "Visits of a zone that ended, since the start.", ended)
    stayed = [(at, visits.visits * visits.dwell_s) for at, visits in zones]
    yield Metric("visit_seconds_total", "counter", "Their length.", stayed)


def _events(facts: Facts) -> Iterable[Metric]:
    sinks = facts.recorder.deliveries()
    by_sink = [({"sink": sink.name}, sink) for sink in sinks]
    yield Metric("delivered_total", "counter", "Events delivered.", [(at, sink.delivered) for at, sink in by_sink])
    yield Metric("waiting_events", "gauge", "Events a sink has not got.", [(at, sink.waiting) for at, sink in by_sink])
    yield Metric(
        "sink_up", "gauge", "1 while a sink takes events.", [(at, sink.problem is None) for at, sink in by_sink]
    )
    yield Metric("events_lost_total", "counter", "Events thrown away.", [({}, facts.recorder.lost)])
    yield Metric("healthy", "gauge", "0 when /healthz fails.", [({}, facts.health()["status"] != "failing")])


def _rest(facts: Facts) -> Iterable[Metric]:
    steps = facts.status.steps()
    yield Metric(
        "step_seconds_total", "counter", "Host time of a step.", [({"step": name}, v[1]) for name, v in steps.items()]
    )
    yield Metric(
        "step_frames_total", "counter", "Frames of a step.", [({"step": name}, v[0]) for name, v in steps.items()]
    )
    rows = [
        ({"partition": str(index), "device": str(row["device"])}, row) for index, row in enumerate(facts.partitions)
    ]
    estimated = [(at, _number(row["ms"], 1e-3)) for at, row in rows]
    yield Metric("partition_estimated_seconds", "gauge", "Per inference on the target, estimated.", estimated)
    joules = [(at, _number(row["mj"], 1e-3)) for at, row in rows]
    yield Metric("partition_estimated_joules", "gauge", "Per inference on the target, estimated.", joules)
    if facts.npu is not None:
        yield Metric("npu_jobs_total", "counter", "Partitions that were to run on the NPU.", [({}, facts.npu.jobs)])
        yield Metric("npu_jobs_on_host_total", "counter", "Of them, run by the host.", [({}, facts.npu.on_host)])
        failures = [({"kind": kind}, float(count)) for kind, count in facts.npu.failures.items()]
        yield Metric("npu_failures_total", "counter", "Jobs that failed on the NPU.", failures)
    host = device(facts.state)
    yield Metric("resident_memory_bytes", "gauge", "Of this process.", [({}, _number(host["rss_bytes"]))])
    yield Metric("temperature_celsius", "gauge", "Of this host.", [({}, _number(host["temperature_c"]))])
    manifest = facts.bundle.manifest
    labels = {
        "bundle": manifest.name,
        "target": manifest.target,
        "delegate": facts.delegate,
        "sha256": facts.bundle.sha256,
    }
    yield Metric("info", "gauge", "What is played.", [(labels, 1.0)])


def _number(value: object, factor: float = 1.0) -> float | None:
    return value * factor if isinstance(value, (int, float)) else None
