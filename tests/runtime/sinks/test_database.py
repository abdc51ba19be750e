"""A database of events: each id once."""

import sqlite3

import pytest
from event_data import event, events

from runtime.events import FIELDS
from runtime.sinks import SinkError
from runtime.sinks.database import DatabaseSink


def rows(path):
    return sqlite3.connect(path).execute("SELECT * FROM events").fetchall()


def test_rows_are_events_and_come_once(tmp_path):
    path = tmp_path / "e.sqlite"
    sink = DatabaseSink(path)
    sink.open(None)
    sink.deliver([event(1, time=5.5), event(2)])
    sink.close()
    sink.open(0)
    sink.deliver([event(2), event(3)])
    sink.close()
    assert rows(path) == [tuple(each.facts().values()) for each in (event(1, time=5.5), event(2), event(3))]
    query = "SELECT direction, count(*) FROM events WHERE name = 'gate' GROUP BY direction"
    assert sqlite3.connect(path).execute(query).fetchall() == [("in", 3)]


def test_types_are_those_of_the_fields(tmp_path):
    sink = DatabaseSink(tmp_path / "e.db")
    sink.open(None)
    sink.deliver(events(1))
    types = sqlite3.connect(tmp_path / "e.db").execute("SELECT typeof(frame), typeof(time_s), typeof(id) FROM events")
    assert types.fetchall() == [("integer", "real", "text")]
    assert len(FIELDS) == 12


@pytest.mark.parametrize("content", ["rubbish", "table"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "e.db"
    if content == "table":
        sqlite3.connect(path).execute("CREATE TABLE events (a, b)")
        message = "has a table events of a, b"
    else:
        path.write_text("rubbish" * 500)
        message = "cannot be written .file is not a database"
    with pytest.raises(SinkError, match=message):
        DatabaseSink(path).open(None)


def test_a_locked_database_is_an_error_that_passes(tmp_path):
    path = tmp_path / "e.db"
    sink = DatabaseSink(path)
    sink.open(None)
    sink._db.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SinkError, match="database is locked"):
        sink.deliver(events(2))
    other.execute("ROLLBACK")
    sink.deliver(events(2))
    assert len(rows(path)) == 2
