"""What a run is asked to do, and what has to be done about each stage."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.configfile import LoadedConfig, narrow
from pipeline.digests import Digests
from pipeline.freshness import Assessment, Assessor, Profiles, Stage
from pipeline.provenance import git_commit
from pipeline.summary import RunSummary, StageSummary
from pipeline.workspace import Context, Progress, Record, Workspace


@dataclass(frozen=True)
class Options:
    """What a run is asked to do.

    Attributes:
        runs: the folder of all runs.
        profile: the file of the target's profile.
        host: the file of its host's profile, ``None`` when nothing is known of the host.
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
    host: Path | None = None

    def forced(self, name: str, names: Sequence[str]) -> str | None:
        """Why the stage has to run whatever its state, if it has."""
        if name in self.force:
            return "forced"
        if self.first is not None and names.index(name) >= names.index(self.first):
            return f"forced by --from {self.first}"
        return None


class Plan:
    """What has been done about the first stages, and what is to be done about the others."""

    def __init__(self, loaded: LoadedConfig, options: Options, stages: Sequence[Stage], workspace: Workspace) -> None:
        """``stages`` in order; ``options`` may force some."""
        self.loaded = loaded
        self.options = options
        self.workspace = workspace
        self.digests = Digests(workspace.folder / ".digests.json")
        self.commit = git_commit()
        self.done: list[StageSummary] = []
        self._stages = stages
        profiles = Profiles(options.profile, options.host)
        self._assessor = Assessor(loaded, workspace, self.digests, profiles, stages)

    def assess(self, stage: Stage) -> Assessment:
        """Whether the stage has to run, now that the earlier ones are done."""
        return self._assessor.assess(stage, self.forced(stage))

    def forced(self, stage: Stage) -> str | None:
        """Why the stage has to run whatever its state, if it has."""
        return self.options.forced(stage.name, [each.name for each in self._stages])

    def context(self, stage: Stage, out: Path, progress: Progress) -> Context:
        """What the stage is given; of the configuration only what its key holds."""
        return Context(
            config=narrow(self.loaded.config, stage.under(self.loaded.settings).sections),
            out=out,
            inputs={name: self.workspace.stage(name) for name in stage.after},
            progress=progress,
            profile=self.options.profile,
            host=self.options.host,
            provenance={"config_digest": self.loaded.digest, "git_commit": self.commit},
        )

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
                yield fresh(stage.name, assessment.record)
                continue
            waiting.add(stage.name)
            yield StageSummary(stage.name, "stale", "; ".join(reasons) if assessment is None else assessment.why)


def fresh(name: str, record: Record) -> StageSummary:
    """The summary of a stage whose result on disk will do."""
    return StageSummary(name, "fresh", "", False, record.seconds, record.metrics, record.gates)
