"""Frames without end: connections that break, clocks that jump."""

import threading
from fractions import Fraction

import numpy as np
import pytest

from runtime.errors import SourceError
from runtime.sources import Frame, Source
from runtime.streams import live
from runtime.streams.live import Link, delay, live_frames

PIXELS = np.zeros((2, 2, 3), np.uint8)


class Clock:
    """A monotonic clock and waits that only pass its time."""

    def __init__(self, monkeypatch):
        self.now, self.waits, self.stopped = 1000.0, [], False
        monkeypatch.setattr(live.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(live.random, "uniform", lambda low, high: 1.0)

    def is_set(self):
        return self.stopped

    def wait(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


def connection(clock, times, error=None, step=0.1):
    def frames():
        for time_s in times:
            clock.now += step
            yield Frame(PIXELS, time_s)
        if error:
            raise SourceError(error)

    return Source("camera", Fraction(10), frames(), "live")


def play(clock, connections, most):
    """Times of at most ``most`` frames, and what was heard."""
    heard, waiting = [], list(connections)

    def connect():
        if not waiting:
            clock.stopped = True
            raise SourceError("gone")
        return waiting.pop(0)

    frames = live_frames(connect, heard.append, clock)
    times = [round(frame.time_s, 3) for frame, _ in zip(frames, range(most), strict=False)]
    return times, heard


def test_time_goes_on_over_an_interruption(monkeypatch):
    clock = Clock(monkeypatch)
    first = connection(clock, [0, 0.1, 0.2], "cannot be decoded")
    times, heard = play(clock, [first, connection(clock, [0, 0.1])], 5)
    assert times == [0.1, 0.2, 0.3, 0.9, 1.0]
    assert heard[:3] == [Link(True), Link(False, "cannot be decoded", 0.5), Link(True)]


def test_a_stream_that_ends_is_an_interruption(monkeypatch):
    clock = Clock(monkeypatch)
    _, heard = play(clock, [connection(clock, [0])], 9)
    assert heard[1] == Link(False, "ended", 0.5)


def test_waits_double_until_a_connection_holds(monkeypatch):
    clock = Clock(monkeypatch)
    broken = [connection(clock, [], "refused") for _ in range(4)]
    steady = connection(clock, [n / 10 for n in range(20)])
    play(clock, [*broken, steady], 99)
    assert clock.waits[:5] == [0.5, 1.0, 2.0, 4.0, 0.5]


def test_waits_have_a_limit_and_differ(monkeypatch):
    waits = {delay(50) for _ in range(20)}
    assert all(24 <= wait <= 36 for wait in waits)
    assert len(waits) > 1


def test_a_jump_of_the_streams_clock_is_not_ours(monkeypatch):
    clock = Clock(monkeypatch)
    times, _ = play(clock, [connection(clock, [0, 0.1, 5000.0, 5000.1, 0.3, 0.4])], 6)
    assert times == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


def test_time_never_goes_back(monkeypatch):
    clock = Clock(monkeypatch)
    times, _ = play(clock, [connection(clock, [0, 0.5, 0.4, 0.6])], 4)
    assert times == sorted(times)


def test_stop_ends_it_at_once():
    stop = threading.Event()
    frames = live_frames(
        lambda: Source("c", Fraction(1), (Frame(PIXELS, n) for n in range(9)), "live"), lambda link: None, stop
    )
    next(frames)
    stop.set()
    assert next(frames, None) is None


def test_every_frame_says_when_it_came(monkeypatch):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(live.time, "time", lambda: 1_700_000_000.5)
    frames = live_frames(lambda: connection(clock, [0]), lambda link: None, clock)
    assert next(frames).captured == 1_700_000_000.5
