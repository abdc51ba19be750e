"""Tracks follow people, lines count them once in each direction."""

from fractions import Fraction

import numpy as np

from runtime.adapters.detection import Detections
from runtime.manifest import Line
from runtime.tracking import PeopleTracker

LINE = Line("gate", (0.0, 100.0), (400.0, 100.0))


def people(*corners, scores=None):
    boxes = np.array([[x, y, x + 20, y + 50] for x, y in corners], np.float32).reshape(-1, 4)
    scores = np.full(len(boxes), 0.9) if scores is None else np.array(scores)
    return Detections(boxes, scores.astype(np.float32), np.zeros(len(boxes), np.int64))


def walk(tracker, steps):
    return [tracker.update(people(*step), n / 10).tracks.tolist() for n, step in enumerate(steps)]


def test_two_people_keep_their_tracks_in_any_order():
    tracker = PeopleTracker((LINE,), Fraction(10))
    steps = [[(100 + 3 * i, 10), (300 - 3 * i, 200)] for i in range(10)]
    steps[6] = steps[6][::-1]
    tracks = walk(tracker, steps)
    first, second = tracks[5]
    assert first != second
    assert min(first, second) >= 0
    assert tracks[6] == [second, first]
    assert tracks[9] == [first, second]


def test_feet_over_the_line_count_once_each_way():
    """The line goes to the right of the picture: its right side is below, so going up is in."""
    tracker = PeopleTracker((LINE,), Fraction(10))
    down = [[(100, 10 + 6 * i)] for i in range(16)]
    walk(tracker, down)
    after_down = tracker.counts()
    walk(tracker, down[::-1])
    after_both = tracker.counts()
    assert after_down == {"gate": {"in": 0, "out": 1}}
    assert after_both == {"gate": {"in": 1, "out": 1}}


def test_a_line_has_an_end():
    tracker = PeopleTracker((Line("short", (0.0, 100.0), (50.0, 100.0)),), Fraction(10))
    walk(tracker, [[(100, 10 + 6 * i)] for i in range(16)])
    assert tracker.counts() == {"short": {"in": 0, "out": 0}}


def test_nobody_is_nobody():
    tracker = PeopleTracker((LINE,), Fraction(10))
    assert walk(tracker, [[], [(100, 10)], []]) == [[], [-1], []]


def test_a_weak_box_continues_a_track_but_begins_none():
    tracker = PeopleTracker((), Fraction(10))
    walk(tracker, [[(100, 10)]] * 3)
    tracks = tracker.update(people((100, 10), (300, 10), scores=[0.35, 0.35]), 0.3).tracks.tolist()
    assert tracks[0] >= 0
    assert tracks[1] == -1
    assert tracker.counts() == {}
