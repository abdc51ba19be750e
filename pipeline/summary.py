"""What a run came to: the facts that every report is written from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

State = Literal["fresh", "stale", "failed"]


@dataclass(frozen=True)
class StageSummary:
    """What a run found and did about one stage.

    Attributes:
        name: the stage.
        state: as the run found it, ``fresh`` or ``stale``; ``failed`` when it ran and failed.
        why: the reasons for ``stale``, the error for ``failed``, nothing for ``fresh``.
        ran: whether this run ran it to its end.
        seconds: how long the result on disk took to make, or the failed try took.
        metrics: the numbers of the result on disk, when it is up to date.
        gates: a sentence for each gate that this result misses.
    """

    name: str
    state: State
    why: str
    ran: bool = False
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    gates: tuple[str, ...] = ()

    @property
    def current(self) -> bool:
        """Whether the files on disk are what the configuration asks for."""
        return self.state == "fresh" or self.ran


@dataclass(frozen=True)
class RunSummary:
    """What a run came to.

    Attributes:
        name: the use case.
        folder: where its results are, ``runs/<name>``.
        config_file: the configuration's path as the user gave it.
        config_digest: SHA-256 of its settings.
        target: the target's name.
        git_commit: the commit of the pipeline that ran.
        stages: all stages in order, also those that this run did not reach.
    """

    name: str
    folder: Path
    config_file: Path
    config_digest: str
    target: str
    git_commit: str
    stages: tuple[StageSummary, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """All numbers that are up to date, as ``stage.metric``."""
        return {f"{stage.name}.{name}": value for stage in self.stages for name, value in stage.metrics.items()}

    @property
    def gates(self) -> tuple[str, ...]:
        """A sentence for each missed gate."""
        return tuple(gate for stage in self.stages for gate in stage.gates)

    def current(self, name: str) -> Path | None:
        """The folder of the stage ``name`` when its files are up to date."""
        return next((self.folder / name for stage in self.stages if stage.name == name and stage.current), None)
