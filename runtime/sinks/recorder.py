"""The way of events from a frame to the queue, and over a disk that is full for a while."""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from runtime.errors import UserError
from runtime.events import Event
from runtime.sinks import Sink
from runtime.sinks.courier import Courier, Delivery
from runtime.sinks.queue import EventQueue, QueueError

BACKLOG = 10_000
"""Batches of live events that wait in memory for a full disk; beyond, the oldest are lost and counted."""

RETRY_S = 0.5


@dataclass(frozen=True)
class Batch:
    """The events of one frame of one run.

    Attributes:
        events: in order.
        run: of their source, see ``runtime.events``.
        frame: they belong to.
        once: they come again when the run is played again, as those of a file.
    """

    events: tuple[Event, ...]
    run: str
    frame: int
    once: bool


class Recorder:
    """Takes events, keeps them, and has couriers deliver them."""

    def __init__(self, folder: Path | None, sinks: Sequence[Sink], stop: threading.Event) -> None:
        """Open the queue in ``folder`` (``None``: in memory), then the sinks.

        Args:
            folder: of the queue.
            sinks: to deliver to.
            stop: ends a wait for a full disk.

        Raises:
            UserError: one of them cannot be used.
        """
        self._queue = EventQueue(folder)
        self._durable, self._stop = folder is not None, stop
        self._backlog: deque[Batch] = deque()
        self._turn = threading.RLock()
        self._lost, self._closed = 0, False
        self._couriers: list[Courier] = []
        self.problem: str | None = None
        try:
            for sink in sinks:
                self._couriers.append(Courier(self._queue, sink))
        except UserError:
            self._abandon()
            raise

    def record(self, batch: Batch) -> None:
        """Keep the events of a frame; any thread may call it.

        While the disk is full, a file waits, so that nothing is lost; live events wait in memory, up to ``BACKLOG``.
        """
        with self._turn:
            self._backlog.append(batch)
            self._flush()
            while batch.once and self._backlog and not self._stop.wait(RETRY_S):
                self._flush()
            while len(self._backlog) > BACKLOG:
                self._lost += len(self._backlog.popleft().events)

    def _flush(self) -> None:
        try:
            while self._backlog:
                first = self._backlog[0]
                self._queue.add(first.events, first.run, first.frame, once=first.once)
                self._backlog.popleft()
            self.problem = None
        except QueueError as error:
            self.problem = str(error)

    @property
    def lost(self) -> int:
        """Events that were thrown away, since neither disk nor sink took them for long."""
        return self._lost + self._queue.lost

    @property
    def waiting(self) -> int:
        """Batches that wait in memory for a full disk."""
        return len(self._backlog)

    def deliveries(self) -> list[Delivery]:
        """How every sink is doing."""
        return [courier.status() for courier in self._couriers]

    def sums(self, since: int, step: int) -> list[tuple[str, str, str, int, int, float]]:
        """See ``EventQueue.sums``."""
        return self._queue.sums(since, step)

    def close(self, patience_s: float) -> dict[str, int]:
        """Deliver what waits, for at most ``patience_s`` seconds, and close everything.

        Returns:
            how many events the folder keeps for each sink that did not take them.

        Raises:
            UserError: events were lost: thrown away before, or left over without a folder that keeps them.
        """
        self._flush()
        left = {courier.status().name: courier.close(patience_s) for courier in self._couriers}
        self._couriers, self._closed = [], True
        self._queue.close()
        lost = self.lost + sum(len(batch.events) for batch in self._backlog if not batch.once)
        if lost:
            raise UserError(f"{lost} events were lost ({self.problem or 'a sink did not take them for long'})")
        for sink, count in left.items():
            if count and not self._durable:
                raise UserError(f"{count} events were not delivered", where=sink, fix="keep them with --state FOLDER")
        return {sink: count for sink, count in left.items() if count}

    def _abandon(self, patience_s: float = 0) -> None:
        for courier in self._couriers:
            courier.close(patience_s)
        self._couriers = []
        self._queue.close()

    def __enter__(self) -> Self:
        """Use it in a ``with`` statement."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let go, when an error or an interruption came before ``close``; what waits has a second."""
        if not self._closed:
            self._abandon(1.0)
