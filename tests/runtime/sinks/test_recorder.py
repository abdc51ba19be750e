"""From a frame to the sinks: what fails is tried again, what cannot be kept is counted and said."""

import threading
import time

import pytest
from event_data import event, events
from real_parts import wait_for

from runtime.errors import UserError
from runtime.sinks import SinkError, courier, recorder
from runtime.sinks.courier import open_sink
from runtime.sinks.queue import EventQueue, QueueError
from runtime.sinks.recorder import Batch, Recorder


class Memory:
    """A sink that keeps events, and fails as often as it is told."""

    def __init__(self, failures=0, name="memory"):
        self.name, self.failures, self.got, self.opened, self.closed = name, failures, [], [], False

    def open(self, mark):
        self.opened.append(mark)
        return mark or 0

    def deliver(self, given):
        if self.failures:
            self.failures -= 1
            raise SinkError("does not want to")
        self.got += given
        return len(self.got)

    def close(self):
        self.closed = True


def batch(*given, frame=0, once=False):
    return Batch(given, "run", frame, once)


def record(folder, sink, count=3, **options):
    with Recorder(folder, [sink], threading.Event()) as keeper:
        for one in events(count):
            keeper.record(batch(one, frame=one.frame, **options))
        keeper.close(10)


@pytest.mark.parametrize("durable", [True, False])
def test_everything_is_delivered_in_order(tmp_path, durable):
    sink = Memory()
    record(tmp_path if durable else None, sink, 250)
    assert sink.got == events(250)
    assert sink.closed


def test_a_sink_that_fails_is_opened_at_its_mark_and_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(courier, "FIRST_S", 0.01)
    sink = Memory(failures=3)
    record(tmp_path, sink)
    assert sink.got == events(3)
    assert sink.opened == [None, 0, 0, 0]


def test_one_that_fails_does_not_hold_up_another(tmp_path):
    dead, well = Memory(failures=10**9, name="dead"), Memory(name="well")
    with Recorder(tmp_path, [dead, well], threading.Event()) as keeper:
        keeper.record(batch(*events(3)))
        wait_for(lambda: len(well.got) == 3)
        first, second = wait_for(lambda: keeper.deliveries() if keeper.deliveries()[0].problem else None)
        assert (first.waiting, first.problem) == (3, "does not want to")
        assert (second.delivered, second.waiting, second.problem) == (3, 0, None)
        assert keeper.close(0) == {"dead": 3}
    later = Memory(name="dead")
    with Recorder(tmp_path, [later], threading.Event()) as keeper:
        keeper.close(10)
    assert later.got == events(3)


def test_events_that_nobody_keeps_are_an_error(monkeypatch):
    sink = Memory(failures=10**9)
    with Recorder(None, [sink], threading.Event()) as keeper:
        keeper.record(batch(*events(3)))
        with pytest.raises(UserError, match=r"memory: 3 events were not delivered \(keep them with --state FOLDER\)"):
            keeper.close(0.1)


class FullDisk:
    """``EventQueue.add`` that fails while ``full``."""

    def __init__(self, monkeypatch):
        self.full, add = True, EventQueue.add

        def wrapped(queue, *arguments, **options):
            if self.full:
                raise QueueError("disk is full")
            return add(queue, *arguments, **options)

        monkeypatch.setattr(EventQueue, "add", wrapped)


def test_live_events_wait_in_memory_for_a_full_disk(tmp_path, monkeypatch):
    disk, sink = FullDisk(monkeypatch), Memory()
    with Recorder(tmp_path, [sink], threading.Event()) as keeper:
        for one in events(3):
            keeper.record(batch(one, frame=one.frame))
        assert (keeper.waiting, keeper.problem) == (3, "disk is full")
        disk.full = False
        keeper.record(batch(event(3), frame=3))
        assert (keeper.waiting, keeper.problem) == (0, None)
        keeper.close(10)
    assert sink.got == events(4)


def test_live_events_that_wait_too_long_are_counted_and_told(tmp_path, monkeypatch):
    FullDisk(monkeypatch)
    monkeypatch.setattr(recorder, "BACKLOG", 2)
    with Recorder(tmp_path, [], threading.Event()) as keeper:
        for one in events(5):
            keeper.record(batch(one, frame=one.frame))
        assert (keeper.waiting, keeper.lost) == (2, 3)
        with pytest.raises(UserError, match=r"5 events were lost \(disk is full"):
            keeper.close(0)


def test_a_file_waits_for_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "RETRY_S", 0.02)
    disk, sink = FullDisk(monkeypatch), Memory()
    threading.Timer(0.3, lambda: setattr(disk, "full", False)).start()
    began = time.monotonic()
    record(tmp_path, sink, once=True)
    assert time.monotonic() - began >= 0.29
    assert sink.got == events(3)


def test_a_stop_ends_the_wait_and_the_file_may_be_played_again(tmp_path, monkeypatch):
    disk, stop = FullDisk(monkeypatch), threading.Event()
    threading.Timer(0.2, stop.set).start()
    with Recorder(tmp_path, [Memory()], stop) as keeper:
        keeper.record(batch(event(0), once=True))
        keeper.close(0)
    disk.full, sink = False, Memory()
    record(tmp_path, sink, once=True)
    assert sink.got == events(3)


def test_a_sink_that_cannot_be_opened_lets_the_folder_go(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        Recorder(tmp_path, [Memory(), open_sink(str(tmp_path / "none" / "e.csv"), "id")], threading.Event())
    EventQueue(tmp_path).close()


@pytest.mark.parametrize("text", ["e.txt", "kafka://host", "", "folder/"])
def test_sinks_that_are_none(text):
    with pytest.raises(UserError, match=r"is no sink that is known \(give a \.jsonl, \.csv"):
        open_sink(text, "id")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_courier_that_dies_of_a_bug_is_told_and_keeps_what_waits(tmp_path):
    sink = Memory(name="broken")
    sink.deliver = lambda given: given.nonsense
    with Recorder(tmp_path, [sink, other := Memory(name="sound")], threading.Event()) as keeper:
        assert [delivery.dead for delivery in keeper.deliveries()] == [False, False]
        keeper.record(batch(event(0)))
        wait_for(lambda: keeper.deliveries()[0].dead)
        told = keeper.deliveries()[0]
        assert (told.problem, told.waiting) == ("broken: nothing is delivered any more, its thread has died", 1)
        wait_for(lambda: other.got == [event(0)])
        assert keeper.close(0.1) == {"broken": 1}
