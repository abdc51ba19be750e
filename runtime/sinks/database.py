"""Events in a SQLite database (``.sqlite``, ``.db``): one table ``events``, one row each."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from runtime.events import FIELDS, Event
from runtime.sinks import SinkError

TYPES = {
    "frame": "INTEGER",
    "track": "INTEGER",
    "occupancy": "INTEGER",
    "time_s": "REAL",
    "time": "REAL",
    "dwell_s": "REAL",
}
"""Of the columns; the others are text."""

_COLUMNS = ", ".join(f"{name} {TYPES.get(name, 'TEXT')}" for name in FIELDS)
_INSERT = f"INSERT OR IGNORE INTO events VALUES ({', '.join('?' * len(FIELDS))})"


class DatabaseSink:
    """Adds a row per event; an id that is there already is the same event, so each is in it once."""

    def __init__(self, path: Path) -> None:
        """Write to the database at ``path``, which is opened later."""
        self.name = f"sqlite:{path.absolute()}"
        self._path = path
        self._db: sqlite3.Connection | None = None

    def open(self, mark: int | None) -> int:
        """Open the database and make its table, if it has none.

        Raises:
            SinkError: it cannot be written or is no database with such a table.
        """
        self.close()
        try:
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._db.execute(f"CREATE TABLE IF NOT EXISTS events ({_COLUMNS}, PRIMARY KEY (id))")
            found = [row[1] for row in self._db.execute("PRAGMA table_info(events)")]
        except sqlite3.Error as error:
            raise SinkError(f"cannot be written ({error})", where=self._path) from error
        if found != list(FIELDS):
            fact = f"has a table events of {', '.join(found)}"
            raise SinkError(fact, where=self._path, fix="give the name of another file")
        return mark or 0

    def deliver(self, events: Sequence[Event]) -> int:
        """Add events in one transaction.

        Raises:
            SinkError: the disk is full or fails; none was added.
        """
        assert self._db is not None
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(_INSERT, [tuple(event.facts().values()) for event in events])
        except sqlite3.Error as error:
            raise SinkError(f"cannot be written ({error})", where=self._path) from error
        return 0

    def close(self) -> None:
        """Close the database."""
        if self._db is not None:
            self._db.close()
            self._db = None
