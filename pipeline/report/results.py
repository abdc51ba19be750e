"""What the stages left on disk, read for the reports; what cannot be read becomes one sentence, never a traceback."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.summary import RunSummary
from pipeline.workspace import DamagedRecordError, Record, read_record
from runtime.zones import Visits

T = TypeVar("T")


@dataclass(frozen=True)
class Absent:
    """Why there is nothing to show, in one sentence."""

    why: str


class _Row(BaseModel):
    """A JSON object of a stage's file; keys that the reports do not show are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Epoch(_Row):
    """One line of ``train/history.json``; ``epoch`` counts from 0, ``ap50`` and ``ap`` are 0..1."""

    epoch: int
    loss: float
    ap50: float
    ap: float


class LayerError(_Row):
    """One row of ``quantize/errors.json``, see ``pipeline.quantize.sensitivity.Sensitivity``."""

    node: str
    op: str
    tensor: str
    sqnr_db: float
    cosine: float
    largest: float
    scale: float


class Node(_Row):
    """An operator of ``coverage/coverage.json``, see ``pipeline.targets.placement.Placed``; keeps all keys."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    op: str
    device: Literal["npu", "cpu"]
    reasons: tuple[str, ...] = ()
    macs: int = 0


class _Coverage(_Row):
    nodes: tuple[Node, ...]


class Crossing(_Row):
    """A tensor that enters or leaves a partition."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class Partition(_Row):
    """A partition of ``partition/plan.json``, in execution order."""

    device: Literal["npu", "cpu"]
    inputs: tuple[Crossing, ...]
    outputs: tuple[Crossing, ...]
    nodes: tuple[str, ...]


class _Plan(_Row):
    partitions: tuple[Partition, ...]


class Price(_Row):
    """What the fallbacks of one type cost together, see ``pipeline.checking.nouns.OpPrice``."""

    op: str
    nodes: tuple[str, ...]
    delta_ms: float | None


class Totals(_Row):
    """What the placement is estimated to cost, see ``pipeline.cost.model.Totals``."""

    latency_ms: float | None
    latency_low_ms: float | None
    latency_high_ms: float | None
    energy_mj: float | None
    crossing_bytes: int
    macs: int
    macs_on_npu: int
    nodes: int
    nodes_on_npu: int
    provenance: str


class Cut(_Row):
    """How good the placement is, see ``pipeline.checking.nouns.Cut``."""

    optimal_ms: float | None
    greedy_ms: float | None
    cpu_ms: float | None
    lower_bound_ms: float | None
    gap_percent: float | None


class Check(_Row):
    """``partition/check.json``: the placement with its estimated cost, see ``pipeline.checking.document``."""

    host: str | None
    totals: Totals
    partition: Cut
    fallback_ops: tuple[Price, ...] = ()
    notes: tuple[str, ...] = ()


class LayerRow(_Row):
    """What the cost model says of one layer, see ``runtime.npu.timeline.Row``."""

    name: str
    opcodes: tuple[str, ...]
    tiles: int
    ms: float | None
    macs: int
    utilization: float | None
    bytes: Mapping[str, int]
    energy_mj: float | None
    bound: str


class _Memory(_Row):
    name: str
    bytes: int
    used: int
    assumed: bool
    spilled: tuple[str, ...] = ()


class _Estimates(_Row):
    ms: float | None
    provenance: str
    launch_ms: float
    crossing_ms: float
    unknown: tuple[str, ...]


class ProgramProfile(_Row):
    """A program of ``package/profile.json``, which is what ``npu-run profile --json`` prints."""

    program: str
    estimates: _Estimates | None
    memories: tuple[_Memory, ...]
    layers: tuple[LayerRow, ...]


class _Profile(_Row):
    programs: tuple[ProgramProfile, ...]


class TraceEvent(_Row):
    """A complete event of ``package/trace.json``: ``cat`` is the engine, ``ts`` and ``dur`` are microseconds."""

    name: str
    ph: str
    cat: str = ""
    ts: float = 0.0
    dur: float = 0.0


class _Trace(_Row):
    events: tuple[TraceEvent, ...] = Field(alias="traceEvents")


class Demo(_Row):
    """``package/demo/summary.json``: what playing the packaged bundle found, see ``runtime.app.Summary``."""

    frames: int
    boxes: Mapping[str, int] = {}
    tracks: int | None = None
    counts: Mapping[str, Mapping[str, int]] = {}
    zones: Mapping[str, Visits] = {}


def history(summary: RunSummary) -> tuple[Epoch, ...] | Absent:
    """The epochs of training."""
    return _read(summary, "train", "history.json", TypeAdapter(tuple[Epoch, ...]))


def errors(summary: RunSummary) -> tuple[LayerError, ...] | Absent:
    """The error of each quantized activation, in execution order."""
    return _read(summary, "quantize", "errors.json", TypeAdapter(tuple[LayerError, ...]))


def coverage(summary: RunSummary) -> tuple[Node, ...] | Absent:
    """Where each operator runs, in the graph's order."""
    found = _read(summary, "coverage", "coverage.json", TypeAdapter(_Coverage))
    return found if isinstance(found, Absent) else found.nodes


def plan(summary: RunSummary) -> tuple[Partition, ...] | Absent:
    """The partitions in execution order."""
    found = _read(summary, "partition", "plan.json", TypeAdapter(_Plan))
    return found if isinstance(found, Absent) else found.partitions


def check(summary: RunSummary) -> Check | Absent:
    """What the placement is estimated to cost."""
    return _read(summary, "partition", "check.json", TypeAdapter(Check))


def profile(summary: RunSummary) -> tuple[ProgramProfile, ...] | Absent:
    """What each layer of each program is estimated to cost."""
    found = _read(summary, "package", "profile.json", TypeAdapter(_Profile))
    return found if isinstance(found, Absent) else found.programs


def trace(summary: RunSummary) -> tuple[TraceEvent, ...] | Absent:
    """When each command of the NPU's programs is busy, by start."""
    found = _read(summary, "package", "trace.json", TypeAdapter(_Trace))
    return found if isinstance(found, Absent) else tuple(event for event in found.events if event.ph == "X")


def demo(summary: RunSummary) -> Demo | Absent:
    """What the demo found."""
    return _read(summary, "package", "demo/summary.json", TypeAdapter(Demo))


def samples(summary: RunSummary) -> tuple[tuple[str, bytes], ...] | Absent:
    """The sample pictures by name, JPEG."""
    folder = folder_of(summary, "package")
    if isinstance(folder, Absent):
        return folder
    try:
        found = tuple((path.stem, path.read_bytes()) for path in sorted((folder / "samples").glob("*.jpg")))
    except OSError as error:
        return Absent(f"{folder / 'samples'} cannot be read: {error.strerror}.")
    damaged = next((name for name, data in found if not data.startswith(b"\xff\xd8")), None)
    if damaged is not None:
        return Absent(f"{folder / 'samples' / damaged}.jpg is damaged: it is not a JPEG picture.")
    return found or Absent("The package stage kept no sample frames.")


def record(summary: RunSummary, stage: str) -> Record | None:
    """The stage's record, ``None`` when the stage is not up to date or its record cannot be read."""
    folder = summary.current(stage)
    try:
        return None if folder is None else read_record(folder)
    except DamagedRecordError:
        return None


def folder_of(summary: RunSummary, stage: str) -> Path | Absent:
    """The stage's folder, or why its files are not to be shown."""
    folder = summary.current(stage)
    if folder is not None:
        return folder
    found = next((each for each in summary.stages if each.name == stage), None)
    if found is None:
        return Absent(f"This run has no {stage} stage.")
    verb = "failed" if found.state == "failed" else "is not up to date"
    return Absent(f"The {stage} stage {verb}: {found.why or 'it was not reached'}.")


def _read(summary: RunSummary, stage: str, name: str, kind: TypeAdapter[T]) -> T | Absent:
    folder = folder_of(summary, stage)
    if isinstance(folder, Absent):
        return folder
    path = folder / name
    try:
        return kind.validate_json(path.read_bytes())
    except FileNotFoundError:
        return Absent(f"The {stage} stage wrote no {name}.")
    except OSError as error:
        return Absent(f"{path} cannot be read: {error.strerror}.")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return Absent(f"{path} is damaged: {f'{where}: ' if where else ''}{first['msg']}.")
