"""Zones: geometry against OpenCV's, visits against a story written by hand."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.zones import ZoneWatch, inside

SQUARE = ((10.0, 10.0), (20.0, 10.0), (20.0, 20.0), (10.0, 20.0))
corner = st.tuples(st.integers(0, 40), st.integers(0, 40))


@settings(max_examples=150, deadline=None)
@given(st.lists(corner, min_size=3, max_size=8, unique=True), st.lists(corner, min_size=1, max_size=30))
def test_inside_is_what_opencv_says_off_the_border(corners, points):
    xs, ys = (np.array([point[axis] for point in points], np.float64) for axis in (0, 1))
    found = inside([(float(x), float(y)) for x, y in corners], xs, ys)
    polygon = np.array(corners, np.int32)
    for (x, y), answer in zip(points, found, strict=True):
        expected = cv2.pointPolygonTest(polygon, (float(x), float(y)), False)
        if expected != 0:
            assert answer == (expected > 0)


def test_zones_that_share_an_edge_count_nobody_twice():
    left = ((0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0))
    right = ((10.0, 0.0), (20.0, 0.0), (20.0, 10.0), (10.0, 10.0))
    xs, ys = np.full(9, 10.0), np.arange(9.0)
    assert (inside(left, xs, ys).astype(int) + inside(right, xs, ys) == 1).all()


def test_nobody_is_inside_of_nothing():
    assert inside(SQUARE, np.array([]), np.array([])).shape == (0,)


def story(watch, steps):
    """Kind, track, occupancy and dwell of all that happens; ``steps`` are time and the tracks' x."""
    found = []
    for time_s, xs in steps:
        feet = {track: (x, 15.0) for track, x in xs.items()}
        found += watch.update(feet, time_s)
    return [(item.kind, item.track, item.occupancy, item.dwell_s) for item in found]


def test_a_visit_from_its_first_frame_to_its_last_inside():
    steps = [(0.0, {1: 5}), (0.1, {1: 11}), (0.2, {1: 12}), (0.9, {1: 19}), (1.0, {1: 25}), (1.1, {1: 30})]
    entered, left = story(ZoneWatch("z", SQUARE), steps)
    assert entered == ("enter", 1, 1, None)
    assert left == ("leave", 1, 0, pytest.approx(0.8))


def test_a_step_over_the_border_and_back_is_no_visit_and_no_leave():
    outside = [(n / 10, {1: 11 if n == 3 else 5}) for n in range(8)]
    assert story(ZoneWatch("z", SQUARE), outside) == []
    within = [(n / 10, {1: 5 if n == 3 else 11}) for n in range(8)]
    assert [kind for kind, *_ in story(ZoneWatch("z", SQUARE), within)] == ["enter"]


def test_who_vanishes_inside_leaves_when_the_tracker_has_forgotten_it():
    steps = [(0.0, {1: 11}), (0.1, {1: 11}), (0.8, {}), (1.0, {2: 12}), (1.2, {2: 12})]
    assert story(ZoneWatch("z", SQUARE), steps) == [
        ("enter", 1, 1, None),
        ("leave", 1, 0, pytest.approx(0.1)),
        ("enter", 2, 1, None),
    ]


def test_slow_sources_lose_nobody():
    assert [kind for kind, *_ in story(ZoneWatch("z", SQUARE), [(5.0 * n, {1: 12}) for n in range(4)])] == ["enter"]


def test_the_end_ends_every_visit():
    watch = ZoneWatch("z", SQUARE)
    story(watch, [(n / 10, {1: 11, 2: 12, 3: 90}) for n in range(5)])
    assert watch.occupancy == 2
    assert [(item.track, item.dwell_s) for item in watch.close()] == [(1, pytest.approx(0.4)), (2, pytest.approx(0.4))]
    assert watch.occupancy == 0


def test_memory_is_that_of_the_last_second():
    watch = ZoneWatch("z", SQUARE)
    story(watch, [(n / 10, {n: 11, n + 1: 11}) for n in range(2000)])
    assert len(watch._visitors) < 30
