"""The durable queue: events in SQLite until every sink has them, and the sums that outlive them.

==============  =======================================================================================
``events``      every event that some sink still needs, and the newest others; ``seq`` is their order
``sinks``       for each sink the ``seq`` of the last event delivered, and its mark (``runtime.sinks.Sink``)
``runs``        for each file the last frame whose events are in; they are not taken twice
``minutes``     crossings, visits and their seconds by source, name and minute
==============  =======================================================================================

Every change is one transaction. New events are flushed to the disk, so neither a killed process nor a lost power
supply loses one; what was delivered is not, so after a lost power supply the last events may be delivered again, which
a file and a database undo by mark and id.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runtime.errors import UserError
from runtime.events import FIELDS, Event

SCHEMA = 1
"""Of the database; kept as its ``user_version``."""

KEPT = 10_000
"""Newest events that are kept though every sink has them."""

MOST, MOST_IN_MEMORY = 1_000_000, 50_000
"""Events that are kept for a sink that does not take them, 300 bytes each; beyond, the oldest are lost and counted."""

PRUNED = 1_000
"""Events between two times that what nobody needs is forgotten."""

MOST_SUMS = 1_000_000
"""Rows of sums that are kept; by number, since the host's clock may jump."""

_TABLES = f"""
CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, {", ".join(FIELDS)}, UNIQUE (id));
CREATE TABLE sinks (name TEXT PRIMARY KEY, seq INTEGER NOT NULL, mark INTEGER);
CREATE TABLE runs (run TEXT PRIMARY KEY, frame INTEGER NOT NULL);
CREATE TABLE minutes (source TEXT, name TEXT, what TEXT, minute INTEGER, count INTEGER NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (source, name, what, minute)) WITHOUT ROWID;
CREATE INDEX minutes_in_order ON minutes (minute);
PRAGMA user_version = {SCHEMA};
"""


class QueueError(UserError):
    """The disk is full or fails."""


class EventQueue:
    """Events on their way to sinks; used by several threads, by one process."""

    def __init__(self, folder: Path | None) -> None:
        """Open or create the queue in ``folder``; in memory, for this process only, when it is ``None``.

        Raises:
            UserError: the folder cannot be used, is used by another process, or holds something else.
        """
        self.path = ":memory:" if folder is None else folder / "events.sqlite"
        self._changed = threading.Condition()
        self._most = MOST_IN_MEMORY if folder is None else MOST
        self.lost = self._added = 0
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
            self._prepare()
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror}", where=folder) from error
        except sqlite3.Error as error:
            if "locked" in str(error):
                fix = "give each its own --state"
                raise UserError("is used by another npu-run", where=folder, fix=fix) from error
            raise UserError(f"cannot be used ({error})", where=self.path, fix="move it away to begin anew") from error

    def _prepare(self) -> None:
        """Take the database for this process alone, and make its tables if it has none."""
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA):
            raise UserError(f"is of schema {version}, this runtime has {SCHEMA}", where=self.path, fix="move it away")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA wal_autocheckpoint = 200")
        self._db.executescript(f"BEGIN IMMEDIATE; {_TABLES if version == 0 else ''} COMMIT;")

    @contextlib.contextmanager
    def _transaction(self, *, flush: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction, flushed to the disk or not; what waits is woken after it."""
        with self._changed:
            try:
                self._db.execute(f"PRAGMA synchronous = {'FULL' if flush else 'NORMAL'}")
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                with contextlib.suppress(sqlite3.Error):  # there may be no transaction any more
                    self._db.execute("ROLLBACK")
                raise QueueError(f"cannot be written ({error})", where=self.path) from error
            self._changed.notify_all()

    def add(self, events: Sequence[Event], run: str, frame: int, *, once: bool) -> int:
        """Take the events of a frame, all or none.

        Args:
            events: in order.
            run: of the source, see ``runtime.events``.
            frame: the frame they belong to.
            once: frames that were taken before, in this or an earlier process, are left out.

        Returns:
            how many were new.

        Raises:
            QueueError: nothing was taken, since the disk is full or fails.
        """
        with self._transaction(flush=True) as db:
            if once:
                row = db.execute("SELECT frame FROM runs WHERE run = ?", (run,)).fetchone()
                if row is not None and row[0] >= frame:
                    return 0
                db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?)", (run, frame))
            new = sum(self._insert(db, event) for event in events)
            self._added += new
            if self._added >= PRUNED:
                self._added = 0
                self._prune(db)
            return new

    def _insert(self, db: sqlite3.Connection, event: Event) -> int:
        columns, holes = ", ".join(FIELDS), ", ".join("?" * len(FIELDS))
        facts = event.facts()
        values = [facts[name] for name in FIELDS]
        new = db.execute(f"INSERT OR IGNORE INTO events ({columns}) VALUES ({holes})", values).rowcount
        if new and event.name is not None:
            what = event.direction or event.kind
            minute = int((event.time_s if event.time is None else event.time) // 60)
            db.execute(
                "INSERT INTO minutes VALUES (?, ?, ?, ?, 1, ?) ON CONFLICT DO UPDATE "
                "SET count = count + 1, seconds = seconds + excluded.seconds",
                (event.source, event.name, what, minute, event.dwell_s or 0.0),
            )
        return new

    def register(self, sink: str) -> int | None:
        """Begin to keep events for a sink, from now on; its mark, ``None`` when it is a new one.

        Raises:
            QueueError: the disk is full or fails.
        """
        with self._transaction() as db:
            row = db.execute("SELECT mark FROM sinks WHERE name = ?", (sink,)).fetchone()
            if row is None:
                db.execute("INSERT INTO sinks SELECT ?, coalesce(max(seq), 0), NULL FROM events", (sink,))
            return None if row is None else row[0]

    def next(self, sink: str, most: int, timeout_s: float) -> tuple[int, list[Event]]:
        """Up to ``most`` events that a sink has not got, and the ``seq`` of the last; waits for one, if there is none.

        Returns:
            nothing (0 and an empty list) after ``timeout_s`` seconds.

        Raises:
            QueueError: the disk fails.
        """
        query = (
            f"SELECT seq, {', '.join(FIELDS)} FROM events "
            "WHERE seq > (SELECT seq FROM sinks WHERE name = ?) ORDER BY seq LIMIT ?"
        )
        with self._changed:
            rows = self._read(query, (sink, most))
            if not rows:
                self._changed.wait(timeout_s)
                rows = self._read(query, (sink, most))
        return (rows[-1][0], [Event(*row[1:]) for row in rows]) if rows else (0, [])

    def set_mark(self, sink: str, mark: int) -> None:
        """Keep where a sink begins.

        Raises:
            QueueError: the disk is full or fails.
        """
        with self._transaction() as db:
            db.execute("UPDATE sinks SET mark = ? WHERE name = ?", (mark, sink))

    def delivered(self, sink: str, seq: int, mark: int) -> None:
        """A sink has all events up to ``seq``; ``mark`` is its own position.

        Raises:
            QueueError: the disk is full or fails; it counts as not delivered.
        """
        with self._transaction() as db:
            db.execute("UPDATE sinks SET seq = ?, mark = ? WHERE name = ?", (seq, mark, sink))

    def _prune(self, db: sqlite3.Connection) -> None:
        """Forget what nobody needs, and, above ``MOST``, the oldest of what somebody does."""
        last = db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
        needed = db.execute("SELECT coalesce(min(seq), ?) FROM sinks", (last,)).fetchone()[0]
        self.lost += max(0, last - self._most - needed)
        db.execute("UPDATE sinks SET seq = max(seq, ?)", (last - self._most,))
        db.execute("DELETE FROM events WHERE seq <= ?", (max(min(needed, last - KEPT), last - self._most),))
        oldest = "SELECT minute FROM minutes ORDER BY minute DESC LIMIT 1 OFFSET ?"
        db.execute(f"DELETE FROM minutes WHERE minute <= ({oldest})", (MOST_SUMS,))

    def waiting(self, sink: str) -> int:
        """Events that a sink has not got."""
        query = "SELECT count(*) FROM events WHERE seq > (SELECT seq FROM sinks WHERE name = ?)"
        return int(self._read(query, (sink,))[0][0])

    def wake(self) -> None:
        """Let every thread that waits for events look again."""
        with self._changed:
            self._changed.notify_all()

    def _read(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._changed:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise QueueError(f"cannot be read ({error})", where=self.path) from error

    def sums(self, since: int, step: int) -> list[tuple[str, str, str, int, int, float]]:
        """Sums: source, name, what (``in``, ``out``, ``enter``, ``leave``), first minute, count, seconds.

        Args:
            since: the first minute, since 1970 for live sources and since the beginning for files.
            step: minutes that are added up.
        """
        query = (
            "SELECT source, name, what, minute / ? * ?, sum(count), sum(seconds) FROM minutes WHERE minute >= ? "
            "GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
        )
        return self._read(query, (step, step, since))

    def close(self) -> None:
        """Close the database; no other thread uses it any more."""
        with self._changed:
            self._db.close()

    def __enter__(self) -> Self:
        """Use it in a ``with`` statement."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""
        self.close()
