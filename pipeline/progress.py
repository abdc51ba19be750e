"""What a run says: results on standard output, everything else on standard error, bars when that is a terminal."""

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from pipeline.workspace import Progress
from runtime.text import printable

if TYPE_CHECKING:
    import rich.progress

_PAUSE_SECONDS = 10.0


class Console(Progress, AbstractContextManager["Console"], Protocol):
    """A ``Progress`` that the run itself speaks through."""

    def line(self, text: str) -> None:
        """Say a line that is part of the result."""


class _Speaker:
    """What both consoles share."""

    def __init__(self, results: TextIO) -> None:
        self._results = results

    def line(self, text: str) -> None:
        """Say a line that is part of the result, at once."""
        self._results.write(f"{text}\n")
        self._results.flush()

    def metric(self, name: str, value: float, step: int) -> None:
        """Say nothing; whoever measures says a line."""

    def __enter__(self) -> Self:
        """Begin to listen."""
        return self


class PlainConsole(_Speaker):
    """Lines for logs: one at the start of a count, then one every ten seconds."""

    def __init__(self, results: TextIO, messages: TextIO) -> None:
        """``results`` gets the lines of the result, ``messages`` everything else."""
        super().__init__(results)
        self._messages = messages
        self._what, self._total, self._done, self._said = "", 0, 0, 0.0

    def start(self, total: int, what: str) -> None:
        """Begin counting to ``total``."""
        self._what, self._total, self._done = what, total, 0
        self._said = time.monotonic()

    def advance(self, n: int = 1) -> None:
        """Count ``n`` more; say so when ten seconds have passed."""
        self._done += n
        if time.monotonic() - self._said >= _PAUSE_SECONDS:
            self._said = time.monotonic()
            of = f"/{self._total}" if self._total else ""  # 0: nobody knows how many there are
            self.message(f"{self._what} {self._done}{of}")

    def message(self, text: str) -> None:
        """Say one line, at once."""
        self._messages.write(f"  {printable(text)}\n")
        self._messages.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left open."""


class BarConsole(_Speaker):
    """A progress bar on a terminal's standard error."""

    def __init__(self, results: TextIO) -> None:
        """``results`` gets the lines of the result."""
        super().__init__(results)
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None

    def start(self, total: int, what: str) -> None:
        """Begin counting to ``total``."""
        bar = self._open()
        if self._task is not None:
            bar.remove_task(self._task)
        self._task = bar.add_task(what, total=total)

    def advance(self, n: int = 1) -> None:
        """Count ``n`` more."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, n)

    def message(self, text: str) -> None:
        """Say one line above the bar."""
        self._open().console.print(f"  {printable(text)}", markup=False, highlight=False)

    def line(self, text: str) -> None:
        """Say a line that is part of the result, in the place of the bar."""
        self._close()
        super().line(text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        self._close()

    def _open(self) -> "rich.progress.Progress":
        import rich.console  # noqa: PLC0415 (only when there is something to draw)
        import rich.progress  # noqa: PLC0415

        if self._bar is None:
            self._bar = rich.progress.Progress(
                console=rich.console.Console(file=sys.stderr), transient=True, redirect_stdout=False
            )
            self._bar.start()
        return self._bar

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._task = None, None


def console(results: TextIO) -> Console:
    """Bars when standard error is a terminal, otherwise plain lines; ``results`` gets the lines of the result."""
    return BarConsole(results) if sys.stderr.isatty() else PlainConsole(results, sys.stderr)
