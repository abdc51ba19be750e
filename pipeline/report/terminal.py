"""The terminal's summary of a run: plain text in stable columns."""

from collections.abc import Iterator

from pipeline.report import results
from pipeline.report.formats import count, milliseconds, percent, plural, points, seconds, size
from pipeline.report.headline import accuracies, float_ap50, verdict
from pipeline.report.results import Absent
from pipeline.summary import RunSummary

MOST_FALLBACKS = 5
"""Fallbacks that are named; of the others only the number is told."""

_LONGEST_WHY = 100


def text(summary: RunSummary) -> str:
    """The summary, without a newline at its end: stages, key numbers, gates, fallbacks, and where the files lie."""
    parts = (_stages(summary), _numbers(summary), _gates(summary), _fallbacks(summary), _files(summary))
    blocks = ["\n".join(lines) for lines in map(list, parts) if lines]
    return "\n\n".join([f"{summary.name} on {summary.target}", *blocks])


def _stages(summary: RunSummary) -> Iterator[str]:
    yield f"{'stage':<11}{'state':<8}{'time':>13}  why"
    for stage in summary.stages:
        state = "ran" if stage.ran else stage.state
        spent = seconds(stage.seconds) if stage.seconds else "-"
        why = stage.why.partition("\n")[0]
        why = why if len(why) <= _LONGEST_WHY else f"{why[: _LONGEST_WHY - 3]}..."
        yield f"{stage.name:<11}{state:<8}{spent:>13}  {why}".rstrip()


def _numbers(summary: RunSummary) -> Iterator[str]:
    """A line for every key number that there is."""
    m = summary.metrics
    base = float_ap50(m)
    for form in accuracies(m):
        if form.ap50 is not None:
            change = "" if base is None else f"  {points(form.ap50 - base):>14}"
            yield f"{'AP50':<19}{percent(form.ap50):>13}  {form.form:<12}{change}".rstrip()
    if "coverage.macs_on_npu" in m:
        operators = f"{count(m.get('coverage.nodes_on_npu'))} of {count(m.get('coverage.nodes'))} operators"
        yield f"{'MACs on the NPU':<19}{percent(m['coverage.macs_on_npu']):>13}  {operators}"
    if "partition.partitions" in m:
        crossings = plural(round(m.get("partition.crossings", 0.0)), "crossing")
        rest = f"{count(m.get('partition.npu_partitions'))} on the NPU, {crossings}"
        yield f"{'partitions':<19}{count(m['partition.partitions']):>13}  {rest}"
    if "partition.ms" in m:
        band = f"{milliseconds(m.get('partition.low_ms'))} to {milliseconds(m.get('partition.high_ms'))}, estimated"
        yield f"{'latency':<19}{milliseconds(m['partition.ms']):>13}  {band}"
    if "package.bundle_bytes" in m:
        yield f"{'bundle':<19}{size(m['package.bundle_bytes']):>13}"
    if "package.differing_bytes" in m:
        rest = f"of {count(m.get('package.golden_bytes'))} golden bytes"
        yield f"{'differing bytes':<19}{count(m['package.differing_bytes']):>13}  {rest}"
    if "package.frames" in m:
        visitors = f"in {count(m.get('package.in'))}, out {count(m.get('package.out'))}"
        rest = f"{count(m.get('package.tracks'))} tracks, {visitors}"
        yield f"{'frames played':<19}{count(m['package.frames']):>13}  {rest}"


def _gates(summary: RunSummary) -> Iterator[str]:
    found = verdict(summary)
    yield found.sentence
    yield from (f"  {reason}" for reason in found.reasons)


def _fallbacks(summary: RunSummary) -> Iterator[str]:
    nodes = results.coverage(summary)
    if isinstance(nodes, Absent):
        return
    fallbacks = [node for node in nodes if node.device == "cpu"]
    if not fallbacks:
        yield "no fallbacks: the NPU takes every operator"
        return
    yield f"{plural(len(fallbacks), 'fallback')} on the CPU:"
    for node in fallbacks[:MOST_FALLBACKS]:
        yield f"  {node.name} ({node.op}): {'; '.join(node.reasons)}"
    if len(fallbacks) > MOST_FALLBACKS:
        yield f"  and {len(fallbacks) - MOST_FALLBACKS} more, see the report"


def _files(summary: RunSummary) -> Iterator[str]:
    yield f"{'report':<8}{summary.folder / 'report.html'}"
    package = summary.current("package")
    if package is not None and (package / f"{summary.name}.npub").exists():
        yield f"{'bundle':<8}{package / f'{summary.name}.npub'}"
