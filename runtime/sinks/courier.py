"""One thread per sink that takes events from the queue to it, and tries again what failed."""

import threading
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import UserError
from runtime.sinks import Sink, SinkError
from runtime.sinks.broker import PORTS, BrokerSink
from runtime.sinks.database import DatabaseSink
from runtime.sinks.files import CSV_HEAD, LineSink, csv_line, json_line
from runtime.sinks.queue import EventQueue, QueueError

BATCH = 100
FIRST_S, MOST_S = 0.2, 30.0
"""Seconds before the first and at most before any later attempt; each is twice the one before."""


def open_sink(text: str, client_id: str) -> Sink:
    """What ``--sink`` names: a ``.jsonl``, ``.csv``, ``.sqlite`` or ``.db`` file, or ``mqtt[s]://HOST[:PORT][/PREFIX]``.

    Raises:
        UserError: it is nothing of these, or paho-mqtt is missing.
    """
    if text.partition("://")[0] in PORTS:
        return BrokerSink(text, client_id)
    path = Path(text)
    kind = path.suffix.lower()
    if kind == ".jsonl":
        return LineSink(path, json_line)
    if kind == ".csv":
        return LineSink(path, csv_line, CSV_HEAD)
    if kind in (".sqlite", ".db"):
        return DatabaseSink(path)
    fix = "give a .jsonl, .csv, .sqlite or .db file, or mqtt://HOST:PORT/PREFIX"
    raise UserError("is no sink that is known", where=text, fix=fix)


@dataclass(frozen=True)
class Delivery:
    """How a sink is doing.

    Attributes:
        name: of the sink.
        delivered: events, by this process.
        waiting: events that it has not got.
        problem: why it fails, if it does; it is tried again.
        dead: nothing tries again: the thread that delivers has ended by an error of ours; only a restart helps.
    """

    name: str
    delivered: int
    waiting: int
    problem: str | None
    dead: bool = False


class Courier:
    """Delivers to one sink until it is closed."""

    def __init__(self, queue: EventQueue, sink: Sink) -> None:
        """Open the sink and begin.

        Raises:
            SinkError: a file cannot be written; a broker may be away.
        """
        self._queue, self._sink = queue, sink
        self._count = 0
        self._problem: str | None = None
        self._stop = threading.Event()
        queue.set_mark(sink.name, sink.open(queue.register(sink.name)))
        self._thread = threading.Thread(target=self._work, name=f"sink {sink.name}", daemon=True)
        self._thread.start()

    def status(self) -> Delivery:
        """How the sink is doing."""
        name, dead = self._sink.name, not (self._thread.is_alive() or self._stop.is_set())
        problem = f"{name}: nothing is delivered any more, its thread has died" if dead else self._problem
        return Delivery(name, self._count, self._queue.waiting(name), problem, dead)

    def close(self, patience_s: float) -> int:
        """Deliver what waits, for at most ``patience_s`` seconds, and let go; how many events were left over."""
        waited = threading.Event()
        while patience_s > 0 and self._queue.waiting(self._sink.name) and self._thread.is_alive():
            waited.wait(0.02)
            patience_s -= 0.02
        self._stop.set()
        self._queue.wake()
        self._thread.join()
        self._sink.close()
        return self._queue.waiting(self._sink.name)

    def _work(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                self._step(reopen=failures > 0)
                failures, self._problem = 0, None
            except (SinkError, QueueError) as error:
                self._problem = str(error)
                self._stop.wait(min(MOST_S, FIRST_S * 2.0 ** min(failures, 16)))
                failures += 1

    def _step(self, *, reopen: bool) -> None:
        if reopen:
            self._queue.set_mark(self._sink.name, self._sink.open(self._queue.register(self._sink.name)))
        seq, events = self._queue.next(self._sink.name, BATCH, 1.0)
        if events:
            self._queue.delivered(self._sink.name, seq, self._sink.deliver(events))
            self._count += len(events)
