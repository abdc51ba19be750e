"""Timelines as a trace for chrome://tracing and Perfetto.

Format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU, JSON object with complete
events (``ph`` X, ``ts`` and ``dur`` in microseconds) and metadata events (``ph`` M). A process is a program, a thread
an engine.
"""

from collections.abc import Sequence

from runtime.npu.timeline import ENGINES, Timeline


def trace(timelines: Sequence[tuple[str, Timeline]]) -> dict[str, object]:
    """The trace of programs, by name, that run one after the other; what the host does between them is left out."""
    events: list[dict[str, object]] = []
    begin = 0.0
    for process, (name, timeline) in enumerate(timelines, 1):
        events.append(_metadata(process, 0, "process_name", f"{name} ({timeline.provenance} estimate)"))
        for thread, engine in enumerate(ENGINES, 1):
            events.append(_metadata(process, thread, "thread_name", engine))
            events.append(
                {"name": "thread_sort_index", "ph": "M", "pid": process, "tid": thread, "args": {"sort_index": thread}}
            )
        for event in timeline.events:
            events.append(
                {
                    "name": event.layer,
                    "cat": event.engine,
                    "ph": "X",
                    "ts": 1e3 * (begin + event.start_ms),
                    "dur": 1e3 * (event.end_ms - event.start_ms),
                    "pid": process,
                    "tid": 1 + ENGINES.index(event.engine),
                    "args": {"what": event.what, "bytes": event.bytes, "stall_us": 1e3 * event.stall_ms},
                }
            )
        begin += timeline.ms or 0.0
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _metadata(process: int, thread: int, kind: str, name: str) -> dict[str, object]:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}
