"""Frames one after another against frames overlapped: prepared, run through each partition and decoded at once."""

import threading
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pipeline.benches.rows import Row
from pipeline.benches.timing import contest, ratio
from pipeline.errors import ModelError
from pipeline.tasks import Task
from runtime.adapters.detection import Detections
from runtime.bundle import Bundle
from runtime.session import Session
from runtime.sources import Frame, Frames
from runtime.streams.engine import Broken, Engine, Feed, Fixed

FRAMES = 60
"""That each plays in a turn."""

ROUNDS = 3

Pictures = Sequence[NDArray[np.uint8]]


def rows(opened: Bundle, task: Task) -> Iterator[Row]:
    """Frames per second of both, with the same boxes.

    Raises:
        ModelError: a frame's boxes differ.
    """
    pictures = [sample.frame for sample in islice(task.validation(), FRAMES)]
    session = Session(opened)
    expected, found = [session.detect(picture) for picture in pictures], overlapped(session, pictures)
    if len(found) != len(expected) or not all(map(_same, found, expected)):
        raise ModelError("frames overlapped have other boxes than one by one", where=opened.path, fix="report it")
    jobs = {
        "in turn": lambda: [session.detect(picture) for picture in pictures],
        "overlapped": lambda: overlapped(session, pictures),
    }
    times = contest(jobs, ROUNDS)
    rates = [len(pictures) / min(times[name]) for name in jobs]
    how = f"from the picture to its boxes, {len(opened.manifest.partitions)} partitions, all cores, same boxes of "
    how += f"{len(pictures)} frames; {rates[1]:.0f} frames per second against {rates[0]:.0f}"
    yield Row("frames overlapped / one after another", f"{ratio(times, 'in turn', 'overlapped'):.2f}", how)


def overlapped(session: Session, pictures: Pictures) -> list[Detections]:
    """What ``session`` finds in the pictures, played as a source of frames."""

    def frames() -> Frames:
        for index, picture in enumerate(pictures):
            yield Frame(picture, float(index))

    with Engine(Fixed(session), [Feed(frames(), "wait")], threading.Event()) as engine:
        return [item.found for item in engine.results() if not isinstance(item, Broken)]


def _same(found: Detections, expected: Detections) -> bool:
    pairs = ((found.boxes, expected.boxes), (found.scores, expected.scores), (found.labels, expected.labels))
    return all(np.array_equal(a, b) for a, b in pairs)
