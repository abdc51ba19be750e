"""Overlap changes nothing: every frame's result, in order, from several feeds; and what breaks is told."""

import threading
import time

import numpy as np
import pytest
import tiny

from runtime.bundle import open_bundle
from runtime.errors import BundleError, SourceError
from runtime.session import Session
from runtime.sources import Frame
from runtime.streams.engine import Broken, Engine, Feed, Fixed


@pytest.fixture(scope="module")
def session(tiny_bundle):
    return Session(open_bundle(tiny_bundle))


def feed(frames, policy="wait", error=None, pause=0.0):
    def generate():
        for index, pixels in enumerate(frames):
            time.sleep(pause)
            yield Frame(pixels, float(index))
        if error:
            raise SourceError(error)

    return Feed(generate(), policy)


def play(session, *feeds, stop=None, each=lambda item: None):
    with Engine(Fixed(session), feeds, stop or threading.Event()) as engine:
        items = []
        for item in engine.results():
            items.append(item)
            each(item)
        return items, engine.dropped


def test_several_feeds_give_what_the_session_gives(session):
    clips = [tiny.frames(7), tiny.frames(12)[::-1], tiny.frames(3, 80, 48)]
    items, dropped = play(session, *map(feed, clips))
    for source, clip in enumerate(clips):
        mine = [item for item in items if item.source == source]
        assert [item.frame.time_s for item in mine] == list(range(len(clip)))
        for item, pixels in zip(mine, clip, strict=True):
            expected = session.detect(pixels)
            assert np.array_equal(item.found.boxes, expected.boxes)
            assert np.array_equal(item.found.scores, expected.scores)
            assert set(item.seconds) == {"prepare", "infer", "decode"}
    assert dropped == [0, 0, 0]


def test_a_broken_feed_says_so_after_its_frames_and_others_go_on(session):
    items, _ = play(session, feed(tiny.frames(2), error="cut"), feed(tiny.frames(9)))
    assert [type(item) for item in items if item.source == 0][-1] is Broken
    assert sum(item.source == 0 for item in items) == 3
    assert sum(item.source == 1 for item in items) == 9


def test_a_frame_that_cannot_be_converted_is_told(session):
    def rotten():
        raise SourceError("frame 0 cannot be decoded")

    items, _ = play(session, Feed(iter_of(Frame(rotten, 0.0), Frame(tiny.frames(1)[0], 1.0)), "wait"))
    assert isinstance(items[0], Broken)
    assert items[1].frame.time_s == 1.0


def iter_of(*frames):
    yield from frames


def test_live_frames_give_way_and_files_do_not(session):
    slow = {"each": lambda item: time.sleep(0.02)}
    items, dropped = play(session, feed(tiny.frames(60), "latest", pause=0.001), feed(tiny.frames(20)), **slow)
    live = [item.frame.time_s for item in items if item.source == 0]
    assert live == sorted(live)
    assert live[-1] == 59, "the newest is played"
    assert len(live) + dropped[0] == 60
    assert dropped[0] > 0
    assert dropped[1] == 0
    assert sum(item.source == 1 for item in items) == 20


def test_memory_is_bounded_by_the_queues(session):
    made, played, ahead = [0], [0], []

    def frames():
        for index in range(80):
            made[0] += 1
            ahead.append(made[0] - played[0])
            yield Frame(tiny.frames(1)[0], float(index))

    def count(item):
        played[0] += 1
        time.sleep(0.002)

    play(session, Feed(frames(), "wait"), each=count)
    assert max(ahead) <= 4 + 1 + 2 + 1 + 2 + 2  # two queues more, and a frame in each thread's hands


def test_a_stop_plays_what_was_captured(session):
    stop = threading.Event()
    items, _ = play(session, feed(tiny.frames(500), pause=0.001), stop=stop, each=lambda item: stop.set())
    assert 1 <= len(items) < 30
    assert [item.frame.time_s for item in items] == list(range(len(items)))


def test_a_bug_in_a_thread_shows(session):
    class Bug(Session):
        def step(self, values, index):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        play(Bug(session.bundle), feed(tiny.frames(50)))


def test_an_exception_here_ends_the_threads(session):
    before = threading.active_count()

    def fail(item):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(session, feed(tiny.frames(500)), each=fail)
    assert threading.active_count() == before


def test_steps_overlap(session):
    """While this thread sleeps over a result, the next ones are captured, prepared and inferred."""
    seen = []

    class Spy(Session):
        def step(self, values, index):
            seen.append(time.perf_counter())
            return super().step(values, index)

    ended = []

    def post(item):
        time.sleep(0.03)
        ended.append(time.perf_counter())

    play(Spy(session.bundle), feed(tiny.frames(6)), each=post)
    assert seen[1] < ended[0]
    assert seen[2] < ended[0]


class Changing:
    """Sessions of which the next one takes over when the current one fails."""

    def __init__(self, *sessions):
        self.current, *self.others = sessions
        self.errors = []

    def session(self):
        return self.current

    def failed(self, session, error):
        self.errors.append(str(error))
        if session is self.current and self.others:
            self.current = self.others.pop(0)
        return session is not self.current


class Failing(Session):
    """Runs two frames."""

    count = 0

    def step(self, values, index):
        self.count += 1
        if self.count > 2:
            raise BundleError("does not run any more")
        return super().step(values, index)


def test_another_session_takes_over_within_the_frame(session):
    failing = Failing(session.bundle)
    sessions = Changing(failing, session)
    with Engine(sessions, [feed(tiny.frames(9))], threading.Event()) as engine:
        items = list(engine.results())
    assert [item.frame.time_s for item in items] == list(range(9))
    assert [item.session is failing for item in items] == [True] * 2 + [False] * 7
    assert set(sessions.errors) == {"does not run any more"}


def test_a_session_that_fails_with_no_other_is_an_error(session):
    with pytest.raises(BundleError, match="does not run any more"):
        play(Failing(session.bundle), feed(tiny.frames(9)))


def test_partitions_overlap(split_bundle):
    """While the CPU runs its partition of a frame, the NPU runs its own of the next one."""
    spans = []

    class Slow(Session):
        def step(self, values, index):
            began = time.perf_counter()
            time.sleep(0.02)
            result = super().step(values, index)
            spans.append((index, began, time.perf_counter()))
            return result

    items, _ = play(Slow(open_bundle(split_bundle)), feed(tiny.frames(8)))
    plain = Session(open_bundle(split_bundle))
    for item, pixels in zip(items, tiny.frames(8), strict=True):
        assert np.array_equal(item.found.boxes, plain.detect(pixels).boxes)
    on_cpu = [span for span in spans if span[0] == 1]
    overlapped = [a for a in on_cpu for b in spans if b[0] == 0 and b[1] < a[2] and a[1] < b[2]]
    assert len(overlapped) >= 4


def test_the_session_may_change_between_frames(session, split_bundle):
    other = Session(open_bundle(split_bundle))
    sessions = Changing(session)
    with Engine(sessions, [feed(tiny.frames(40))], threading.Event()) as engine:
        used = []
        for item in engine.results():
            used.append(item.session)
            sessions.current = other
    assert used[0] is session
    assert used[-1] is other
    assert len(used) == 40
