"""The stages in order, and the loop that runs what is stale."""

import errno
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

from pipeline import companion
from pipeline.configfile import LoadedConfig, missing_files
from pipeline.digests import files_in, sha256
from pipeline.errors import ConfigError, GateMissedError, UserError
from pipeline.freshness import Assessment, Bound, Stage
from pipeline.planning import Options, Plan, fresh
from pipeline.progress import Console
from pipeline.summary import RunSummary, StageSummary
from pipeline.workspace import Context, Output, Progress, Record, Result, Workspace

__all__ = ["STAGES", "Options", "Stage", "Tracker", "plan", "run", "work"]

_DECODING = ("package.iou_threshold", "package.max_detections")
"""A bundle says how it is decoded, also the one that the quantize stage makes to measure with."""

_ARITHMETIC = ("target.quantization", "target.contract")
"""Of the target, what its integers depend on; targets that agree in this share what is measured before coverage."""

_PLACEMENT = (
    "target", "host", "partition.host", "partition.objective", "partition.place", "partition.max_npu_partitions",
)  # fmt: skip
"""What decides where a model runs and what that costs."""

_TASK = ("torch", "torchvision", "torchmetrics", "pycocotools", "timm", "safetensors", "numpy", "av", "pillow")
_GRAPH = ("onnx", "onnx-ir", "numpy")

STAGES: tuple[Stage, ...] = (
    Stage(
        "train",
        "pipeline.stages.train",
        sections=("data", "preprocess", "train"),
        libraries=(*_TASK, "pytorch-lightning"),
        together=True,
        resumes=True,
    ),
    Stage(
        "quantize",
        "pipeline.stages.quantize",
        sections=("data", "preprocess", "train.model", "quantize", "export.opset", *_ARITHMETIC, *_DECODING),
        after=("train",),
        libraries=(*_TASK, "pytorch-lightning", "onnx", "onnx-ir", "onnxscript", "onnxruntime"),
        resumes=True,
        switches=(("quantize.ladder", True, _PLACEMENT), ("quantize.mode", "qat", ("train",))),
        bound=Bound("quantize.budget", "untried"),
        ahead=True,
    ),
    Stage(
        "export",
        "pipeline.stages.export",
        sections=("name", "target", "data", "preprocess", "train.model", "export"),
        after=("train", "quantize"),
        libraries=(*_TASK, "onnx", "onnx-ir", "onnxscript", "onnxruntime"),
    ),
    Stage(
        "coverage",
        "pipeline.stages.coverage",
        sections=("coverage", "partition.max_npu_partitions", "target"),
        after=("export",),
        libraries=_GRAPH,
    ),
    Stage(
        "partition",
        "pipeline.stages.partition",
        sections=("name", "target", "host", "partition", "coverage.min_macs_on_npu"),
        after=("export",),
        libraries=_GRAPH,
    ),
    Stage(
        "package",
        "pipeline.stages.package",
        sections=("name", "target", "host", "data", "preprocess", "train.model", "package"),
        after=("quantize", "export", "partition"),
        libraries=(*_TASK, "onnx", "onnx-ir", "onnxruntime", "supervision", "trackers"),
        packs=("runtime",),
    ),
)

_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)
"""What the system says where the user has put something else, or forbids to write."""


class Tracker(Protocol):
    """Where a run's numbers and files are kept for comparison with other runs."""

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        """Record a number, ``step`` being an epoch."""

    def trial(self, what: str, numbers: Mapping[str, float]) -> None:
        """Record something that was tried, as a run inside this one."""

    def results(self, summary: RunSummary) -> None:
        """Record the files that the run came to."""

    def close(self, error: BaseException | None) -> None:
        """End the tracked run; ``error`` is what the run failed with."""


class OpenTracker(Protocol):
    """How ``run`` opens a tracker."""

    def __call__(self, loaded: LoadedConfig, commit: str, console: Progress) -> Tracker:
        """A tracker for one run; raises ``TrackingError`` when it cannot be used."""


def plan(loaded: LoadedConfig, options: Options, stages: Sequence[Stage] = STAGES) -> RunSummary:
    """What ``run`` would do; changes nothing on disk.

    Raises:
        ConfigError: a file that the configuration names does not exist.
        UserError: such a file cannot be read.
    """
    _check_files(loaded)
    workspace = Workspace(options.runs / loaded.config.name)
    return Plan(loaded, options, stages, workspace).summary()


def run(
    loaded: LoadedConfig,
    options: Options,
    console: Console,
    *,
    stages: Sequence[Stage] = STAGES,
    track: OpenTracker | None = None,
    tell: Callable[[RunSummary], None] | None = None,
    then: Callable[[Plan], None] | None = None,
) -> RunSummary:
    """Run every stage that is stale, in order, and write the report.

    ``track`` opens the tracker; it is called before the first stale stage, and not at all when there is none.
    ``tell`` gets what the run came to, also when it fails, once the report is written.
    ``then`` goes on from the last stage while the runs folder is still held.
    In a process that ``torchrun`` started beside the first, only the stages that all processes share run.

    Raises:
        GateMissedError: a stage's result misses a gate; it is kept, and later stages do not run.
        ConfigError: a file that the configuration names does not exist.
        UserError: a stage failed for a reason that the user can mend, or the runs folder cannot be used.
    """
    _check_files(loaded)
    workspace = Workspace(options.runs / loaded.config.name)
    if companion.is_one():
        companion.follow(Plan(loaded, options, stages, workspace), stages, _call)
        return Plan(loaded, options, stages, workspace).summary()
    with _disk_errors(workspace.folder), workspace.open([stage.name for stage in stages]):
        loop = _Loop(Plan(loaded, options, stages, workspace), console, track, tell)
        wanted = stages[: _place(stages, options.last)]
        with loop:
            for place, stage in enumerate(wanted, 1):
                loop.visit(stage, wanted[place:])
            if then is not None:
                then(loop.plan)
        return loop.plan.summary()


def _place(stages: Sequence[Stage], last: str | None) -> int:
    """How many stages there are up to ``last``, which may be none of them."""
    return next((place for place, stage in enumerate(stages, 1) if stage.name == last), len(stages))


class _Loop:
    """One run while it lasts; leaving it writes the report, whatever happened."""

    def __init__(
        self, plan: Plan, console: Console, track: OpenTracker | None, tell: Callable[[RunSummary], None] | None
    ) -> None:
        self.plan = plan
        self._console = console
        self._track = track
        self._tell = tell
        self._tracker: Tracker | None = None
        self._at_work: tuple[str, float] | None = None

    def visit(self, stage: Stage, later: Sequence[Stage]) -> None:
        """Run the stage if it is stale, and say so; the first that runs has those that are ``later`` look ahead.

        Raises:
            GateMissedError: its result misses a gate.
        """
        assessment = self.plan.assess(stage)
        if assessment.fresh and assessment.record is not None:
            self.plan.workspace.discard(stage.name)
            self._console.line(f"{stage.name}: fresh")
            summary = fresh(stage.name, assessment.record)
        else:
            self._console.line(f"{stage.name}: stale because {assessment.brief}")
            if not any(each.ran for each in self.plan.done):
                self._look_ahead(later)
            record = self._work(stage, assessment)
            summary = replace(fresh(stage.name, record), state="stale", why=assessment.why, ran=True)
            numbers = ", ".join(f"{name} {value:.6g}" for name, value in record.metrics.items())
            self._console.line(f"{stage.name}: done in {record.seconds:.1f} s" + (f": {numbers}" if numbers else ""))
        self.plan.done.append(summary)
        if summary.gates:
            raise GateMissedError("; ".join(summary.gates))

    def _look_ahead(self, later: Sequence[Stage]) -> None:
        for stage in later:
            if stage.ahead:
                context = self.plan.context(stage, self.plan.workspace.partial(stage.name), self._console)
                with redirect_stdout(sys.stderr):
                    importlib.import_module(stage.module).ahead(context)

    def _work(self, stage: Stage, assessment: Assessment) -> Record:
        """Run the stage, track it, and return its record."""
        if self._tracker is None and self._track is not None:
            self._tracker = self._track(self.plan.loaded, self.plan.commit, self._console)
        self._at_work = (stage.name, time.monotonic())
        record = work(self.plan, stage, assessment, _StageProgress(stage.name, self._console, self._tracker))
        self._at_work = None
        if self._tracker is not None:
            for name, value in record.metrics.items():
                self._tracker.metric(f"{stage.name}.{name}", value)
        return record

    def __enter__(self) -> None:
        """Nothing is opened before a stage has to run."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Note the stage that failed, write the report, and close the tracker."""
        if self._at_work is not None:
            name, started = self._at_work
            self.plan.done.append(StageSummary(name, "failed", _reason(error), seconds=time.monotonic() - started))
            self._console.message(f"{name} did not end; earlier results are intact, continue with: {self._command}")
        try:
            with suppress(OSError, UserError) if error is not None else nullcontext():
                self._report()
        finally:
            if self._tracker is not None:
                self._tracker.close(error)

    @property
    def _command(self) -> str:
        return self.plan.options.command

    def _report(self) -> None:
        from pipeline.report import writer  # noqa: PLC0415 (reports may need what a run with nothing to do does not)

        summary = self.plan.summary()
        writer.write(summary)
        self.plan.digests.save()
        if self._tracker is not None:
            self._tracker.results(summary)
        if self._tell is not None:
            self._tell(summary)


def work(plan: Plan, stage: Stage, assessment: Assessment, progress: Progress) -> Record:
    """Run the stage, put its result in place and return its record.

    Raises:
        UserError: the stage failed for a reason that the user can mend.
    """
    started = time.monotonic()
    forced = plan.forced(stage) is not None
    if forced:
        plan.workspace.discard(stage.name)
    bound = None if forced or stage.bound is None else stage.bound.setting
    out = plan.workspace.begin(stage.name, assessment.key, stage.resumes, bound)
    result = _call(stage, plan.context(stage, out, progress))
    record = Record(
        key=assessment.key,
        outputs=_outputs(out),
        seconds=time.monotonic() - started,
        metrics={name: float(value) for name, value in result.metrics.items()},
        gates=result.gates,
    )
    plan.workspace.finish(stage.name, record)
    return record


def _call(stage: Stage, context: Context) -> Result:
    """Import the stage and run it; what libraries print goes to standard error.

    Raises:
        KeyboardInterrupt: also where a library answered Ctrl-C with ``SystemExit``, as Lightning does.
    """
    try:
        with redirect_stdout(sys.stderr):
            result: Result = importlib.import_module(stage.module).run(context)
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    return result


class _StageProgress:
    """The console as one stage sees it; its numbers go to the tracker under the stage's name."""

    def __init__(self, stage: str, console: Progress, tracker: Tracker | None) -> None:
        self._stage = stage
        self._console = console
        self._tracker = tracker

    def start(self, total: int, what: str) -> None:
        """Begin counting to ``total``."""
        self._console.start(total, f"{self._stage}: {what}")

    def advance(self, n: int = 1) -> None:
        """Count ``n`` more."""
        self._console.advance(n)

    def message(self, text: str) -> None:
        """Say one line."""
        self._console.message(f"{self._stage}: {text}")

    def metric(self, name: str, value: float, step: int) -> None:
        """Record ``name`` at ``step``."""
        self._console.metric(name, value, step)
        if self._tracker is not None:
            self._tracker.metric(f"{self._stage}.epoch.{name}", float(value), step)

    def trial(self, what: str, numbers: Mapping[str, float]) -> None:
        """Record a trial under the stage's name."""
        self._console.trial(what, numbers)
        if self._tracker is not None:
            self._tracker.trial(f"{self._stage}: {what}", numbers)


def _reason(error: BaseException | None) -> str:
    if error is None or isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def _outputs(folder: Path) -> dict[str, Output]:
    """Digest and size of every file in ``folder``."""
    return {path.relative_to(folder).as_posix(): Output(sha256(path), path.stat().st_size) for path in files_in(folder)}


def _check_files(loaded: LoadedConfig) -> None:
    missing = missing_files(loaded)
    if missing:
        raise ConfigError("\n".join(missing))


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Tell a full disk and a folder that cannot be written as what they are."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                "no space is left on the disk", where=folder, fix="free some and run again; earlier results are intact"
            ) from error
        if error.errno in _UNWRITABLE and str(folder) in str(error.filename):
            where = error.filename2 or error.filename  # of a file that was to be renamed, its new name
            raise UserError(f"cannot be written: {error.strerror}", where=where) from error
        raise
