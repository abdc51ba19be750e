"""Where a run keeps its files, and what a stage is given and gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.config import RunConfig


class Progress(Protocol):
    """What a stage tells while it works; a terminal, a log and MLflow listen."""

    def start(self, total: int, what: str) -> None:
        """Begin counting to ``total``; a second ``start`` replaces the first."""

    def advance(self, n: int = 1) -> None:
        """Count ``n`` more."""

    def message(self, text: str) -> None:
        """Say one line."""

    def metric(self, name: str, value: float, step: int) -> None:
        """Record ``name`` at ``step`` (an epoch, from 0)."""


class Quiet:
    """A ``Progress`` that says nothing; for tests and for library use."""

    def start(self, total: int, what: str) -> None:
        """Say nothing."""

    def advance(self, n: int = 1) -> None:
        """Say nothing."""

    def message(self, text: str) -> None:
        """Say nothing."""

    def metric(self, name: str, value: float, step: int) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Context:
    """What a stage is given.

    Attributes:
        config: the whole configuration; a stage reads only the sections that ``run.STAGES`` names for it.
        out: an existing folder to write into, empty unless an earlier try with the same key was killed.
        inputs: the folder of each earlier stage that this one is ``after``, by name; read only.
        progress: where to tell how far the work is.
    """

    config: RunConfig
    out: Path
    inputs: Mapping[str, Path]
    progress: Progress = field(default_factory=Quiet)


@dataclass(frozen=True)
class Result:
    """What a stage gives back besides the files in ``Context.out``.

    Attributes:
        metrics: numbers by name, without the stage's prefix.
        gates: a sentence for each gate of the configuration that was missed; empty when none was.
    """

    metrics: Mapping[str, float]
    gates: tuple[str, ...] = ()
