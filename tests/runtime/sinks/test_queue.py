"""The durable queue: nothing twice, nothing lost, over restarts, kills and full disks."""

import sqlite3
import subprocess
import sys
import textwrap

import pytest
from event_data import event, events

from runtime.errors import UserError
from runtime.sinks import queue as module
from runtime.sinks.queue import EventQueue, QueueError


def take(queue, sink, most=100):
    seq, found = queue.next(sink, most, 0)
    if found:
        queue.delivered(sink, seq, 0)
    return found


def test_every_sink_gets_every_event_in_order_and_once(tmp_path):
    with EventQueue(tmp_path) as queue:
        queue.register("a")
        queue.register("b")
        for one in events(5):
            assert queue.add([one], "run", one.frame, once=False) == 1
        assert take(queue, "a", 2) == events(2)
        assert take(queue, "a") == events(3, 2)
        assert take(queue, "a") == []
        assert queue.waiting("b") == 5
        assert take(queue, "b") == events(5)


def test_an_event_is_what_it_was(tmp_path):
    full = event(1, kind="leave", time=1.7e9, dwell_s=2.5, occupancy=3, direction=None, detail='é, "x"\n')
    with EventQueue(tmp_path) as queue:
        queue.register("a")
        queue.add([full], "run", 1, once=False)
    with EventQueue(tmp_path) as queue:
        assert take(queue, "a") == [full]


def test_a_restart_goes_on_where_the_last_delivery_was_noted(tmp_path):
    with EventQueue(tmp_path) as queue:
        assert queue.register("a") is None
        queue.add(events(4), "run", 3, once=False)
        seq, first = queue.next("a", 2, 0)
        queue.delivered("a", seq, 77)
        queue.next("a", 2, 0)  # given, and never noted
    with EventQueue(tmp_path) as queue:
        assert queue.register("a") == 77
        assert first == events(2)
        assert take(queue, "a") == events(2, 2)


def test_a_file_played_again_adds_nothing(tmp_path):
    with EventQueue(tmp_path) as queue:
        assert [queue.add([one], "run", one.frame, once=True) for one in events(3)] == [1, 1, 1]
    with EventQueue(tmp_path) as queue:
        assert [queue.add([one], "run", one.frame, once=True) for one in events(5)] == [0, 0, 0, 1, 1]
        assert sum(row[4] for row in queue.sums(0, 60)) == 5


def test_the_same_id_is_the_same_event(tmp_path):
    with EventQueue(tmp_path) as queue:
        queue.register("a")
        queue.add(events(2), "run", 0, once=False)
        assert queue.add(events(3), "run", 1, once=False) == 1
        assert len(take(queue, "a")) == 3


def test_a_new_sink_begins_now(tmp_path):
    with EventQueue(tmp_path) as queue:
        queue.add(events(3), "run", 0, once=False)
        queue.register("late")
        queue.add(events(1, 3), "run", 1, once=False)
        assert take(queue, "late") == events(1, 3)


def test_sums_by_minute_and_hour(tmp_path):
    with EventQueue(tmp_path) as queue:
        for minute in (0, 0, 1, 59, 60):
            number = minute * 10 + len(queue.sums(0, 1)) * 1000
            queue.add([event(number, time=60.0 * minute + 5)], "run", number, once=False)
        queue.add([event(9, kind="leave", direction=None, dwell_s=4.0, time=30.0)], "run", 9, once=False)
        hours = [(what, minute, count, seconds) for _, _, what, minute, count, seconds in queue.sums(0, 60)]
        assert hours == [("in", 0, 4, 0.0), ("in", 60, 1, 0.0), ("leave", 0, 1, 4.0)]
        assert {row[3] for row in queue.sums(1, 1)} == {1, 59, 60}


def test_two_processes_do_not_share_a_folder(tmp_path):
    with EventQueue(tmp_path), pytest.raises(UserError, match="is used by another npu-run"):
        EventQueue(tmp_path)
    EventQueue(tmp_path).close()


@pytest.mark.parametrize("content", [b"rubbish" * 1000, None])
def test_a_folder_that_is_none_of_ours(tmp_path, content):
    if content is None:
        db = sqlite3.connect(tmp_path / "events.sqlite")
        db.execute("PRAGMA user_version = 9")
        db.close()
        message = "is of schema 9, this runtime has 1"
    else:
        (tmp_path / "events.sqlite").write_bytes(content)
        message = "cannot be used .file is not a database."
    with pytest.raises(UserError, match=message):
        EventQueue(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        EventQueue(tmp_path / "file" / "state")


def test_what_is_kept_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 10)
    monkeypatch.setattr(module, "MOST", 40)
    monkeypatch.setattr(module, "PRUNED", 5)
    monkeypatch.setattr(module, "MOST_SUMS", 7)
    with EventQueue(tmp_path) as queue:
        queue.register("dead")
        for one in events(100):
            queue.add([event(one.frame, time=60.0 * one.frame)], "run", one.frame, once=False)
        assert queue.waiting("dead") == 40
        assert queue.lost == 60
        assert len(queue.sums(0, 1)) == 7
        take(queue, "dead")
        queue.add(events(5, 100), "run", 104, once=False)
        assert queue._read("SELECT count(*) FROM events", ()) == [(10,)]


FULL = """
    import resource, signal, sys
    from pathlib import Path
    from event_data import events
    from runtime.sinks.queue import EventQueue, QueueError
    queue = EventQueue(Path(sys.argv[1]))
    queue.register("a")
    queue.add(events(3), "run", 2, once=True)
    size = (Path(sys.argv[1]) / "events.sqlite-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
    failed = 0
    for one in events(5, 3):
        try:
            queue.add([one], "run", one.frame, once=True)
        except QueueError as error:
            failed += 1
    assert failed, "the disk was not full"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for one in events(5, 3):
        queue.add([one], "run", one.frame, once=True)
    print(queue.waiting("a"))
"""


def test_a_full_disk_takes_all_or_nothing(tmp_path):
    """A limit on the size of files is what a full disk is to SQLite: a write that fails half way."""
    command = [sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=_paths())
    assert (done.stdout, done.returncode) == ("8\n", 0), done.stderr


KILLED = """
    import sys
    from pathlib import Path
    from event_data import events
    from runtime.sinks.queue import EventQueue
    queue = EventQueue(Path(sys.argv[1]))
    queue.register("a")
    for one in events(100_000):
        queue.add([one], "run", one.frame, once=True)
        print(one.frame, flush=True)
"""


def test_what_was_added_before_a_kill_is_there(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_paths())
    said = [int(process.stdout.readline()) for _ in range(50)]
    process.kill()
    said += [int(line) for line in process.communicate(timeout=20)[0].splitlines()]
    with EventQueue(tmp_path) as queue:
        found = take(queue, "a", 200_000)
        assert found == events(len(found))
        assert len(found) >= len(said)


def _paths():
    return {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin"}


def test_a_closed_disk_is_told(tmp_path):
    queue = EventQueue(tmp_path)
    queue._db.close()
    for call in (lambda: queue.waiting("a"), lambda: queue.add(events(1), "run", 0, once=False)):
        with pytest.raises(QueueError, match="closed database"):
            call()
