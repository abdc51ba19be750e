"""Boxes, tracks, lines and zones on a frame, drawn with supervision (of the ``video`` extra)."""

from collections.abc import Mapping, Sequence

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from runtime.manifest import Zone
from runtime.outputs import FrameResult

LOOSE = sv.Color(160, 160, 160)
"""Colour of boxes without a track."""


ZONE = sv.Color(0, 110, 180)
"""Colour of zones."""

MARGIN = 50
"""Pixels from the picture's edge to the middle of a zone's name, at least."""


class Painter:
    """Draws results: boxes in the colour of their track, and every line and zone with its counts."""

    def __init__(
        self, labels: Sequence[str], lines: Mapping[str, sv.LineZone] | None = None, zones: Sequence[Zone] = ()
    ) -> None:
        """Prepare for classes called ``labels``, the lines of a ``PeopleTracker`` and its zones; none for images."""
        self._labels, self._line_zones, self._zones = labels, lines or {}, zones
        lookup = sv.ColorLookup.TRACK
        self._boxes = sv.BoxAnnotator(thickness=2, color_lookup=lookup)
        self._tags = sv.LabelAnnotator(text_scale=0.4, text_padding=3, color_lookup=lookup)
        self._loose = sv.BoxAnnotator(color=LOOSE, thickness=1)
        self._lines = {
            name: sv.LineZoneAnnotator(text_scale=0.5, custom_in_text=f"{name} in", custom_out_text=f"{name} out")
            for name in self._line_zones
        }

    def draw(self, result: FrameResult) -> NDArray[np.uint8]:
        """A copy of the frame with the result on it, uint8 [H, W, 3], RGB."""
        found = result.found
        tracks = np.full(len(found.scores), -1, np.int64) if result.tracks is None else result.tracks
        loose, tracked = (_select(result, tracks, mask) for mask in (tracks < 0, tracks >= 0))
        names = [f"#{t} {self._labels[k]}" for t, k in zip(tracks, found.labels, strict=True) if t >= 0]
        canvas = np.ascontiguousarray(result.frame.pixels[:, :, ::-1])
        canvas = self._loose.annotate(canvas, loose)
        canvas = self._boxes.annotate(canvas, tracked)
        canvas = self._tags.annotate(canvas, tracked, names)
        for zone in self._zones:
            canvas = _zone(canvas, zone, result.occupancy.get(zone.name, 0))
        for name, line in self._line_zones.items():
            canvas = self._lines[name].annotate(canvas, line)
        return np.ascontiguousarray(canvas[:, :, ::-1])


def _zone(canvas: NDArray[np.uint8], zone: Zone, inside: int) -> NDArray[np.uint8]:
    """The outline of a zone with how many are inside, written at its first corner, where it hides nobody in it."""
    corners = np.array(zone.points).round().astype(int)
    canvas = sv.draw_polygon(canvas, corners, ZONE, thickness=2)
    height, width = canvas.shape[:2]
    x, y = (int(np.clip(value, MARGIN, most - MARGIN)) for value, most in zip(corners[0], (width, height), strict=True))
    return sv.draw_text(canvas, f"{zone.name}: {inside}", sv.Point(x, y), sv.Color.WHITE, 0.4, background_color=ZONE)


def _select(result: FrameResult, tracks: NDArray[np.int64], mask: NDArray[np.bool_]) -> sv.Detections:
    """The chosen boxes as supervision has them."""
    found = result.found
    return sv.Detections(
        xyxy=found.boxes[mask].reshape(-1, 4).astype(np.float64),
        confidence=found.scores[mask],
        class_id=found.labels[mask].astype(int),
        tracker_id=tracks[mask],
    )
