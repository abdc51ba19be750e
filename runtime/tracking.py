"""Who is who from frame to frame, crosses a line, is in a zone: ByteTrack and supervision (of the ``video`` extra)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import supervision as sv
from numpy.typing import NDArray
from trackers import ByteTrackTracker

from runtime.adapters.detection import Detections
from runtime.manifest import Line, Zone
from runtime.zones import PATIENCE_S, SETTLED, Happening, ZoneWatch

CONFIDENT = 0.5
"""The score from which a box may begin a track; weaker ones only continue one."""

LOST_FRAMES = round(30 * PATIENCE_S)
"""ByteTrack's patience, which it counts in frames of 1/30 s."""


@dataclass(frozen=True)
class Observation:
    """What a frame adds: ``tracks``, int64 [N], the track of every box, -1 for none; and what tracks did."""

    tracks: NDArray[np.int64]
    happened: tuple[Happening, ...]


class PeopleTracker:
    """Gives detections a track; counts tracks whose lower edge's middle (the feet) crosses a line or is in a zone."""

    def __init__(
        self, lines: Sequence[Line], rate: Fraction, zones: Sequence[Zone] = (), *, steady: bool = True, first: int = 0
    ) -> None:
        """Begin without tracks.

        Args:
            lines: in source pixels.
            rate: frames per second.
            zones: in source pixels.
            first: number of the first track.
            steady: no frame is ever missing, so each is 1 / ``rate`` after the one before; else their times decide.
        """
        self._rate, self._steady = float(rate), steady
        self._first, self._next, self._last = first, first, 0.0
        self._tracker = self._fresh()
        self.lines: Mapping[str, sv.LineZone] = {line.name: _line_zone(line) for line in lines}
        self.zones: Mapping[str, ZoneWatch] = {zone.name: ZoneWatch(zone.name, zone.points) for zone in zones}

    @property
    def seen(self) -> int:
        """How many tracks there were so far."""
        return self._next

    def update(self, found: Detections, time_s: float) -> Observation:
        """Take the next frame's detections.

        After a gap longer than the tracker's patience everybody is somebody new.

        Args:
            found: the boxes.
            time_s: of the frame, in seconds.
        """
        gap, self._last = time_s - self._last, time_s
        if gap > max(PATIENCE_S, 2 / self._rate) and self._next > self._first:
            self._tracker, self._first = self._fresh(), self._next
        boxes, tracks = self._tracked(found, None if self._steady or gap <= 0 else time_s)
        feet = {
            int(track): ((left + right) / 2, bottom)
            for track, (left, _, right, bottom) in zip(tracks, boxes.xyxy.tolist(), strict=True)
            if track >= 0
        }
        happened = [item for name, line in self.lines.items() for item in _crossings(name, line, boxes, tracks)]
        for zone in self.zones.values():
            happened += zone.update(feet, time_s)
        return Observation(tracks, tuple(happened))

    def close(self) -> tuple[Happening, ...]:
        """End every visit, at the end of the source."""
        return tuple(item for zone in self.zones.values() for item in zone.close())

    def counts(self) -> dict[str, dict[str, int]]:
        """Crossings so far, by line: ``in`` and ``out``."""
        return {name: {"in": line.in_count, "out": line.out_count} for name, line in self.lines.items()}

    def _fresh(self) -> ByteTrackTracker:
        return ByteTrackTracker(
            lost_track_buffer=LOST_FRAMES,
            frame_rate=self._rate,
            track_activation_threshold=CONFIDENT,
            high_conf_det_threshold=CONFIDENT,
        )

    def _tracked(self, found: Detections, timestamp: float | None) -> tuple[sv.Detections, NDArray[np.int64]]:
        """The boxes as supervision has them, in the order they came, each with its track."""
        count = len(found.scores)
        boxes = sv.Detections(
            xyxy=found.boxes.astype(np.float64).reshape(count, 4),
            confidence=found.scores,
            class_id=found.labels.astype(int),
            data={"index": np.arange(count)},
        )
        tracked = self._tracker.update(boxes, timestamp=timestamp)
        tracks = np.full(count, -1, np.int64)
        if tracked.tracker_id is not None and len(tracked):
            own = np.asarray(tracked.tracker_id, np.int64)
            tracks[np.asarray(tracked.data["index"], np.int64)] = np.where(own >= 0, own + self._first, -1)
        self._next = max(self._next, int(tracks.max(initial=-1)) + 1)
        boxes.tracker_id = tracks
        return boxes, tracks


def _line_zone(line: Line) -> sv.LineZone:
    return sv.LineZone(
        start=sv.Point(*line.start),
        end=sv.Point(*line.end),
        triggering_anchors=[sv.Position.BOTTOM_CENTER],
        minimum_crossing_threshold=SETTLED,
    )


def _crossings(name: str, line: sv.LineZone, boxes: sv.Detections, tracks: NDArray[np.int64]) -> list[Happening]:
    crossed_in, crossed_out = line.trigger(boxes)
    entered = [Happening("crossing", name, int(track), "in") for track in tracks[crossed_in]]
    return entered + [Happening("crossing", name, int(track), "out") for track in tracks[crossed_out]]
