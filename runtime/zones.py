"""Who is in a zone, since when, and for how long: plain geometry and bookkeeping, on tracks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SETTLED = 2
"""Frames in a row on the other side, of a line or of a zone's border, before it counts."""

PATIENCE_S = 1.0
"""A track that was not seen for so long is gone; the tracker forgets it then."""

Direction = Literal["in", "out"]


@dataclass(frozen=True)
class Happening:
    """Something that a track did.

    Attributes:
        kind: ``crossing`` of a line, ``enter`` or ``leave`` of a zone.
        name: of the line or zone.
        track: who did it.
        direction: of a crossing.
        dwell_s: of a leave: seconds from the first to the last frame inside.
        occupancy: of an enter or leave: how many are inside after it.
    """

    kind: Literal["crossing", "enter", "leave"]
    name: str
    track: int
    direction: Direction | None = None
    dwell_s: float | None = None
    occupancy: int | None = None


@dataclass(frozen=True)
class Visits:
    """What became of a zone since the source's first frame.

    Attributes:
        visits: that ended.
        dwell_s: their mean length in seconds; 0 when there was none.
        most: the most inside at a time.
        per_hour: visits that ended, per hour of the source's time.
    """

    visits: int
    dwell_s: float
    most: int
    per_hour: float


def inside(
    points: Sequence[tuple[float, float]], xs: NDArray[np.float64], ys: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether points lie in a polygon, by the even-odd rule; bool [N].

    A point on a left or upper edge is inside, on a right or lower edge outside, so zones that share an edge never
    count anyone twice.

    Args:
        points: corners in order, three or more; the last is joined to the first.
        xs: of the points, float64 [N].
        ys: of the points, float64 [N].
    """
    result = np.zeros(len(xs), bool)
    for (x1, y1), (x2, y2) in zip(points, (*points[1:], points[0]), strict=True):
        if y1 != y2:
            crosses = (y1 <= ys) != (y2 <= ys)
            result ^= crosses & (xs < (x2 - x1) * ((ys - y1) / (y2 - y1)) + x1)
    return result


@dataclass
class _Visitor:
    """A track near a zone; ``since`` is ``None`` while it is outside; ``streak`` counts frames on the other side."""

    seen: float
    since: float | None = None
    last_inside: float = 0.0
    streak: int = 0
    first: float = 0.0


@dataclass
class ZoneWatch:
    """Visits of one zone; what it keeps is bounded by the tracks of the last second."""

    name: str
    points: Sequence[tuple[float, float]]
    _visitors: dict[int, _Visitor] = field(default_factory=dict)

    @property
    def occupancy(self) -> int:
        """Tracks inside now."""
        return sum(visitor.since is not None for visitor in self._visitors.values())

    def update(self, feet: Mapping[int, tuple[float, float]], time_s: float) -> list[Happening]:
        """What the next frame changes.

        Args:
            feet: x and y of every track's lower edge's middle, in source pixels.
            time_s: of the frame, in seconds.
        """
        xs, ys = (np.array([foot[axis] for foot in feet.values()], np.float64) for axis in (0, 1))
        happened = [self._leave(track) for track in self._gone(feet, time_s)]
        for track, within in zip(feet, inside(self.points, xs, ys), strict=True):
            change = self._see(track, bool(within), time_s)
            if change is not None:
                happened.append(change)
        return [item for item in happened if item is not None]

    def close(self) -> list[Happening]:
        """End every visit, when nothing more will be seen of it."""
        ended = [self._leave(track) for track in list(self._visitors)]
        return [item for item in ended if item is not None]

    def _gone(self, feet: Mapping[int, object], time_s: float) -> list[int]:
        """Tracks that were not seen for long."""
        gone = (track for track, visitor in self._visitors.items() if time_s - visitor.seen > PATIENCE_S)
        return [track for track in gone if track not in feet]

    def _see(self, track: int, within: bool, time_s: float) -> Happening | None:
        visitor = self._visitors.setdefault(track, _Visitor(time_s))
        visitor.seen = time_s
        if within and visitor.streak == 0:
            visitor.first = time_s
        if within:
            visitor.last_inside = time_s
        if within == (visitor.since is not None):
            visitor.streak = 0
            return None
        visitor.streak += 1
        if visitor.streak < SETTLED:
            return None
        visitor.streak = 0
        if not within:
            return self._leave(track)
        visitor.since = visitor.first
        return Happening("enter", self.name, track, occupancy=self.occupancy)

    def _leave(self, track: int) -> Happening | None:
        """Forget a track; its visit, if it had one, ends."""
        visitor = self._visitors.pop(track)
        if visitor.since is None:
            return None
        dwell = visitor.last_inside - visitor.since
        return Happening("leave", self.name, track, dwell_s=dwell, occupancy=self.occupancy)
