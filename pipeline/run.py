"""The stages in order, and the loop that runs what is stale."""

import errno
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

from pipeline.configfile import LoadedConfig, missing_files
from pipeline.digests import Digests, files_in, sha256
from pipeline.errors import ConfigError, GateMissedError, UserError
from pipeline.freshness import Assessment, Assessor, Stage
from pipeline.progress import Console
from pipeline.provenance import git_commit
from pipeline.summary import RunSummary, StageSummary
from pipeline.workspace import Context, Output, Progress, Record, Result, Workspace

__all__ = ["STAGES", "Options", "Stage", "Tracker", "plan", "run"]

STAGES: tuple[Stage, ...] = (
    Stage(
        "train",
        "pipeline.stages.train",
        sections=("data", "preprocess", "train"),
        libraries=("torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "numpy", "av", "pillow"),
    ),
    Stage(
        "quantize",
        "pipeline.stages.quantize",
        sections=("data", "preprocess", "train.model", "quantize", "export", "target"),
        after=("train",),
        libraries=("torch", "torchvision", "torchmetrics", "onnx", "onnxscript", "onnx-ir", "numpy", "av", "pillow"),
    ),
    Stage(
        "export",
        "pipeline.stages.export",
        sections=("data", "preprocess", "train.model", "export", "target", "name"),
        after=("train", "quantize"),
        libraries=("torch", "torchvision", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy"),
    ),
    Stage(
        "coverage",
        "pipeline.stages.coverage",
        sections=("coverage", "partition", "target"),
        after=("export",),
        libraries=("onnx", "onnx-ir", "numpy"),
    ),
    Stage(
        "partition",
        "pipeline.stages.partition",
        sections=(),
        after=("export", "coverage"),
        libraries=("onnx", "onnx-ir", "numpy"),
    ),
    Stage(
        "package",
        "pipeline.stages.package",
        sections=("name", "target", "data", "preprocess", "train.model", "package"),
        after=("train", "quantize", "export", "coverage", "partition"),
        libraries=(
            "onnx",
            "onnx-ir",
            "onnxruntime",
            "numpy",
            "torchmetrics",
            "supervision",
            "trackers",
            "av",
            "pillow",
        ),
    ),
)


class Tracker(Protocol):
    """Where a run's numbers and files are kept for comparison with other runs."""

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        """Record a number, ``step`` being an epoch."""

    def results(self, summary: RunSummary) -> None:
        """Record the files that the run came to."""

    def close(self, error: BaseException | None) -> None:
        """End the tracked run; ``error`` is what the run failed with."""


@dataclass(frozen=True)
class Options:
    """What a run is asked to do.

    Attributes:
        runs: the folder of all runs.
        profile: the file of the target's profile.
        first: run this stage and all after it, fresh or not.
        last: do not go beyond this stage.
        force: stages to run, fresh or not.
        command: what continues this run after a failure, for the message.
    """

    runs: Path
    profile: Path
    first: str | None = None
    last: str | None = None
    force: tuple[str, ...] = ()
    command: str = "the same command"

    def forced(self, name: str, names: Sequence[str]) -> str | None:
        """Why the stage has to run whatever its state, if it has."""
        if name in self.force:
            return "forced"
        if self.first is not None and names.index(name) >= names.index(self.first):
            return f"forced by --from {self.first}"
        return None


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
    return _Plan(loaded, options, stages, workspace).summary()


def run(
    loaded: LoadedConfig,
    options: Options,
    console: Console,
    *,
    stages: Sequence[Stage] = STAGES,
    track: OpenTracker | None = None,
    tell: Callable[[RunSummary], None] | None = None,
) -> RunSummary:
    """Run every stage that is stale, in order, and write the report.

    ``track`` opens the tracker; it is called before the first stale stage, and not at all when there is none.
    ``tell`` gets what the run came to, also when it fails, once the report is written.

    Raises:
        GateMissedError: a stage's result misses a gate; it is kept, and later stages do not run.
        ConfigError: a file that the configuration names does not exist.
        UserError: a stage failed for a reason that the user can mend, or the runs folder cannot be used.
    """
    _check_files(loaded)
    workspace = Workspace(options.runs / loaded.config.name)
    with _disk_errors(workspace.folder), workspace.open([stage.name for stage in stages]):
        loop = _Loop(_Plan(loaded, options, stages, workspace), console, track, tell)
        with loop:
            for stage in stages:
                loop.visit(stage)
                if stage.name == options.last:
                    break
        return loop.plan.summary()


class _Plan:
    """What has been done about the first stages, and what is to be done about the others."""

    def __init__(self, loaded: LoadedConfig, options: Options, stages: Sequence[Stage], workspace: Workspace) -> None:
        self.loaded = loaded
        self.options = options
        self.workspace = workspace
        self.digests = Digests(workspace.folder / ".digests.json")
        self.commit = git_commit()
        self.done: list[StageSummary] = []
        self._stages = stages
        self._assessor = Assessor(loaded, workspace, self.digests, options.profile)

    def assess(self, stage: Stage) -> Assessment:
        """Whether the stage has to run, now that the earlier ones are done."""
        return self._assessor.assess(stage, self.forced(stage))

    def forced(self, stage: Stage) -> str | None:
        """Why the stage has to run whatever its state, if it has."""
        return self.options.forced(stage.name, [each.name for each in self._stages])

    def summary(self) -> RunSummary:
        """What the run came to so far, with an outlook on the stages that it did not reach."""
        config = self.loaded.config
        return RunSummary(
            name=config.name,
            folder=self.workspace.folder,
            config_file=self.loaded.path,
            config_digest=self.loaded.digest,
            target=config.target,
            git_commit=self.commit,
            stages=(*self.done, *self._outlook()),
        )

    def _outlook(self) -> Iterator[StageSummary]:
        """The stages that are not done, as they would be found."""
        waiting = {stage.name for stage in self.done if not stage.current}
        for stage in self._stages[len(self.done) :]:
            reasons = [f"{name} comes first" for name in stage.after if name in waiting]
            assessment = None if reasons else self.assess(stage)
            if assessment is not None and assessment.fresh and assessment.record is not None:
                yield _fresh(stage.name, assessment.record)
                continue
            waiting.add(stage.name)
            yield StageSummary(stage.name, "stale", "; ".join(reasons) if assessment is None else assessment.why)


class _Loop:
    """One run while it lasts; leaving it writes the report, whatever happened."""

    def __init__(
        self, plan: _Plan, console: Console, track: OpenTracker | None, tell: Callable[[RunSummary], None] | None
    ) -> None:
        self.plan = plan
        self._console = console
        self._track = track
        self._tell = tell
        self._tracker: Tracker | None = None
        self._at_work: tuple[str, float] | None = None

    def visit(self, stage: Stage) -> None:
        """Run the stage if it is stale, and say so; raises ``GateMissedError`` when its result misses a gate."""
        assessment = self.plan.assess(stage)
        if assessment.fresh and assessment.record is not None:
            self.plan.workspace.discard(stage.name)
            self._console.line(f"{stage.name}: fresh")
            summary = _fresh(stage.name, assessment.record)
        else:
            self._console.line(f"{stage.name}: stale because {assessment.why}")
            record = self._work(stage, assessment)
            summary = replace(_fresh(stage.name, record), state="stale", why=assessment.why, ran=True)
            numbers = ", ".join(f"{name} {value:.6g}" for name, value in record.metrics.items())
            self._console.line(f"{stage.name}: done in {record.seconds:.1f} s" + (f": {numbers}" if numbers else ""))
        self.plan.done.append(summary)
        if summary.gates:
            raise GateMissedError("; ".join(summary.gates))

    def _work(self, stage: Stage, assessment: Assessment) -> Record:
        """Run the stage, put its result in place and return its record."""
        workspace = self.plan.workspace
        if self._tracker is None and self._track is not None:
            self._tracker = self._track(self.plan.loaded, self.plan.commit, self._console)
        self._at_work = (stage.name, time.monotonic())
        if self.plan.forced(stage):
            workspace.discard(stage.name)
        context = Context(
            config=self.plan.loaded.config,
            out=workspace.begin(stage.name, assessment.key),
            inputs={name: workspace.stage(name) for name in stage.after},
            progress=_StageProgress(stage.name, self._console, self._tracker),
            provenance={"config_digest": self.plan.loaded.digest, "git_commit": self.plan.commit},
            profile=self.plan.options.profile,
        )
        result = _call(stage, context)
        record = Record(
            key=assessment.key,
            outputs=_outputs(context.out),
            seconds=time.monotonic() - self._at_work[1],
            metrics={name: float(value) for name, value in result.metrics.items()},
            gates=result.gates,
        )
        workspace.finish(stage.name, record)
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
        from pipeline.report import json_report  # noqa: PLC0415 (reports may need what a run with nothing to do does not)

        summary = self.plan.summary()
        json_report.write(summary)
        self.plan.digests.save()
        if self._tracker is not None:
            self._tracker.results(summary)
        if self._tell is not None:
            self._tell(summary)


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
            self._tracker.metric(f"{self._stage}.{name}", float(value), step)


def _fresh(name: str, record: Record) -> StageSummary:
    """The summary of a stage whose result on disk will do."""
    return StageSummary(name, "fresh", "", False, record.seconds, record.metrics, record.gates)


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
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and str(folder) in str(error.filename):
            raise UserError(f"cannot be written: {error.strerror}", where=error.filename) from error
        raise
