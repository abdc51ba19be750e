"""Who is who from frame to frame, and who crossed a line: ByteTrack and supervision, of the ``video`` extra."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import supervision as sv
from numpy.typing import NDArray
from trackers import ByteTrackTracker

from runtime.adapters.detection import Detections
from runtime.manifest import Line

CONFIDENT = 0.5
"""The score from which a box may begin a track; weaker ones only continue one."""

SETTLED = 2
"""Frames on the other side of a line before a crossing counts."""


class PeopleTracker:
    """Gives detections a track, and counts tracks whose lower edge's middle (the feet) crosses a line."""

    def __init__(self, lines: Sequence[Line], rate: Fraction) -> None:
        """Begin without tracks; ``lines`` in source pixels, ``rate`` in frames per second."""
        self._tracker = ByteTrackTracker(
            frame_rate=float(rate), track_activation_threshold=CONFIDENT, high_conf_det_threshold=CONFIDENT
        )
        self.zones: Mapping[str, sv.LineZone] = {line.name: _zone(line) for line in lines}

    def update(self, found: Detections) -> NDArray[np.int64]:
        """The track of every detection of the next frame, int64 [N]; -1 while it has none."""
        count = len(found.scores)
        boxes = sv.Detections(
            xyxy=found.boxes.astype(np.float64).reshape(count, 4),
            confidence=found.scores,
            class_id=found.labels.astype(int),
            data={"index": np.arange(count)},
        )
        tracked = self._tracker.update(boxes)
        tracks = np.full(count, -1, np.int64)
        if tracked.tracker_id is not None and len(tracked):
            tracks[np.asarray(tracked.data["index"], np.int64)] = tracked.tracker_id
        boxes.tracker_id = tracks
        for zone in self.zones.values():
            zone.trigger(boxes)
        return tracks

    def counts(self) -> dict[str, dict[str, int]]:
        """Crossings so far, by line: ``in`` and ``out``."""
        return {name: {"in": zone.in_count, "out": zone.out_count} for name, zone in self.zones.items()}


def _zone(line: Line) -> sv.LineZone:
    return sv.LineZone(
        start=sv.Point(*line.start),
        end=sv.Point(*line.end),
        triggering_anchors=[sv.Position.BOTTOM_CENTER],
        minimum_crossing_threshold=SETTLED,
    )
