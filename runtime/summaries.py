"""What ``npu-run`` prints at its end, in lines for people; ``--json`` prints the same facts for scripts."""

from runtime.delegates.choice import summarize
from runtime.delegates.failover import Health
from runtime.extras import install
from runtime.player import Summary
from runtime.replay import Replay
from runtime.session import Session


def summary_lines(summary: Summary) -> list[str]:
    """What playing a source gave."""
    boxes = ", ".join(f"{count} {label}" for label, count in summary.boxes.items())
    untracked = "images are not tracked" if summary.kind == "images" else "not tracked"
    tracks = untracked if summary.tracks is None else f"{summary.tracks} tracks"
    lines = [
        f"{summary.source}: {summary.frames} frames in {summary.seconds:.1f} s ({summary.fps:.1f} per second)",
        f"boxes: {boxes}; {tracks}",
    ]
    if summary.cold_start_s is not None:
        lines.append(
            f"cold start: {summary.cold_start_s:.2f} s from the start of the process to the first frame's boxes"
        )
    lines += [f"line {name}: {count['in']} in, {count['out']} out" for name, count in summary.counts.items()]
    lines += [
        f"zone {name}: {zone.visits} visits of {zone.dwell_s:.1f} s, {zone.per_hour:.0f} per hour, {zone.most} at most"
        for name, zone in summary.zones.items()
    ]
    if summary.dropped:
        lines.append(f"{summary.dropped} frames gave way to newer ones")
    if summary.tracks is None and summary.kind != "images":
        lines.append(f"tracking and counting need: {install('video')}")
    if summary.delegate in ("npu", "plain"):
        lines.append(f"times are of this host: {summary.target} is simulated")
    else:
        lines.append(f"ran in ONNX Runtime on this host, not in the arithmetic of {summary.target}")
    return lines


def health_lines(health: Health | None) -> list[str]:
    """What a drill came to; nothing without one."""
    if health is None:
        return []
    failures = ", ".join(f"{count} {kind}" for kind, count in health.failures.items()) or "none"
    line = (
        f"device: {health.jobs - health.on_host} of {health.jobs} jobs, the host computed {health.on_host}; "
        f"failures: {failures}; came back {health.recoveries} times; {health.throttled} jobs throttled"
    )
    return [line, *(f"a bit flipped unnoticed: {flip}" for flip in health.flips)]


def selftest_lines(session: Session, result: Replay) -> list[str]:
    """How near every golden tensor came, and the verdict."""
    fact = f"{result.differing} of {result.bytes} bytes differ, over {result.vectors} golden vectors"
    verdict = "passed" if result.passed else "FAILED"
    rows = list(summarize(session.placement))
    rows += [
        f"partition {c.partition}, {c.tensor}: {c.differing} of {c.bytes} bytes differ, at most {c.worst:.3g}, "
        f"{c.mean:.3g} on average; {'fine' if c.passed else 'NOT fine'}, asked is {c.rule}"
        for c in result.crossings
        if c.differing
    ]
    return [*rows, f"{session.bundle.path}: self-test {verdict}: {fact}"]
