"""One source, frame after frame: who is who, what they did, and the sums."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle, Manifest
from runtime.outputs import Counts, FrameResult
from runtime.sources import missing_extra
from runtime.status import SourceStatus, age
from runtime.streams.engine import Found
from runtime.streams.opening import Opened
from runtime.zones import Happening, Visits

if TYPE_CHECKING:
    from runtime.tracking import PeopleTracker

TRACKING = ("supervision", "trackers")
"""Packages of the ``video`` extra that tracking, counting and drawing need."""


@dataclass(frozen=True)
class Summary:
    """What playing a source gave.

    Attributes:
        bundle: name of the use case.
        target: the NPU that is simulated.
        delegate: what ran the NPU partitions, as it was asked for.
        source: what was played.
        frames: frames played.
        seconds: host time from the first frame to the last; the NPU is simulated, so this is not a device's time.
        fps: frames per second of host time.
        boxes: boxes found, by label.
        tracks: different tracks seen; ``None`` when nothing was tracked.
        counts: crossings by line: ``in`` and ``out``.
        kind: ``video``, ``images`` or ``live``; images are not tracked.
        dropped: frames of a live source that gave way to newer ones.
        zones: visits by zone.
        cold_start_s: how old the process was, in seconds, when the first frame's boxes were known; ``None`` where the
            system does not say.
    """

    bundle: str
    target: str
    delegate: str
    source: str
    frames: int
    seconds: float
    fps: float
    boxes: Mapping[str, int]
    tracks: int | None
    counts: Counts
    kind: str = "video"
    dropped: int = 0
    zones: Mapping[str, Visits] = field(default_factory=dict)
    cold_start_s: float | None = None


class Player:
    """Follows one source."""

    def __init__(self, bundle: Bundle, opened: Opened, delegate: str) -> None:
        """Begin before the first frame."""
        self.name, self._kind = opened.name, opened.kind
        self._bundle, self._delegate = bundle, delegate
        self.tracker = _tracker(bundle.manifest, opened)
        self.happened: tuple[Happening, ...] = ()
        self.frames, self._began, self._dropped = 0, time.perf_counter(), 0
        self._boxes = Counter(dict.fromkeys(bundle.manifest.labels, 0))
        self._visits: dict[str, list[float]] = {zone.name: [0, 0.0, 0] for zone in bundle.manifest.zones}
        self._opened = opened
        self._cold_start_s: float | None = None
        self._last: FrameResult | None = None

    @property
    def manifest(self) -> Manifest:
        """Of the bundle that found the newest frame's boxes."""
        return self._bundle.manifest

    @property
    def time_s(self) -> float:
        """Of the newest frame, in seconds after the first."""
        return 0.0 if self._last is None else self._last.frame.time_s

    def start(self) -> None:
        """Begin to measure time."""
        self._began = time.perf_counter()

    def take(self, item: Found) -> FrameResult:
        """The next frame's result; ``happened`` is then what its tracks did."""
        if self.frames == 0:
            self._cold_start_s = age()
        ended = self._adopt(item.session.bundle)
        index, tracker, found = self.frames, self.tracker, item.found
        self.frames += 1
        self._boxes.update(self._bundle.manifest.labels[label] for label in found.labels)
        if tracker is None:
            self._last = FrameResult(index, item.frame, found, None, {}, source=self.name)
            return self._last
        observed = tracker.update(found, item.frame.time_s)
        self._count((*ended, *observed.happened))
        occupancy = {name: zone.occupancy for name, zone in tracker.zones.items()}
        self._last = FrameResult(
            index, item.frame, found, observed.tracks, tracker.counts(), occupancy, source=self.name
        )
        return self._last

    def _adopt(self, bundle: Bundle) -> tuple[Happening, ...]:
        """Go on with another bundle's lines and zones, where they are others: every visit ends, counts begin anew."""
        before, self._bundle = self._bundle.manifest, bundle
        after, tracker = bundle.manifest, self.tracker
        if tracker is None or (before.lines, before.zones) == (after.lines, after.zones):
            return ()
        for zone in after.zones:
            self._visits.setdefault(zone.name, [0, 0.0, 0])
        self.tracker = _tracker(after, self._opened, tracker.seen)
        return tracker.close()

    def close(self) -> FrameResult | None:
        """End every visit: ``happened`` is then who left; the last result, ``None`` when there was no frame."""
        self._count(() if self.tracker is None else self.tracker.close())
        return self._last

    def _count(self, items: tuple[Happening, ...]) -> None:
        self.happened = items
        for item in items:
            if item.dwell_s is not None:
                self._visits[item.name][0] += 1
                self._visits[item.name][1] += item.dwell_s
            if item.kind == "enter":
                self._visits[item.name][2] = max(self._visits[item.name][2], item.occupancy or 0)

    def describe(self, status: SourceStatus, result: FrameResult, dropped: int) -> None:
        """Write the newest result into a status."""
        self._dropped = status.dropped = dropped
        status.boxes, status.counts, status.occupancy = len(result.found.scores), result.counts, result.occupancy
        status.cold_start_s = self._cold_start_s
        status.tracks = 0 if self.tracker is None else self.tracker.seen
        status.visits = {} if self.tracker is None else self._zones()
        if status.state == "connecting":
            status.state = "up"

    def _zones(self) -> dict[str, Visits]:
        hours = self.time_s / 3600
        return {
            name: Visits(int(count), total / count if count else 0.0, int(most), count / hours if hours else 0.0)
            for name, (count, total, most) in self._visits.items()
        }

    def summary(self) -> Summary:
        """What was played so far."""
        seconds = time.perf_counter() - self._began
        return Summary(
            bundle=self._bundle.manifest.name,
            target=self._bundle.manifest.target,
            delegate=self._delegate,
            source=self.name,
            frames=self.frames,
            seconds=seconds,
            fps=self.frames / seconds,
            boxes=dict(self._boxes),
            tracks=None if self.tracker is None else self.tracker.seen,
            counts={} if self.tracker is None else self.tracker.counts(),
            kind=self._kind,
            dropped=self._dropped,
            zones={} if self.tracker is None else self._zones(),
            cold_start_s=self._cold_start_s,
        )


def _tracker(manifest: Manifest, opened: Opened, first: int = 0) -> "PeopleTracker | None":
    """A tracker; ``None`` for images, and when the ``video`` extra is not installed; the summary says so."""
    if opened.kind == "images":
        return None
    try:
        from runtime.tracking import PeopleTracker  # noqa: PLC0415 - of the video extra
    except ModuleNotFoundError:
        return None
    return PeopleTracker(manifest.lines, opened.rate, manifest.zones, steady=opened.kind != "live", first=first)


def painter(player: Player) -> Callable[[FrameResult], NDArray[np.uint8]]:
    """What draws a player's results, uint8 [H, W, 3], RGB; it follows a change of the bundle.

    Raises:
        SourceError: the ``video`` extra is not installed.
    """
    try:
        from runtime.drawing import Painter  # noqa: PLC0415 - of the video extra
    except ModuleNotFoundError as error:
        raise missing_extra(" and ".join(TRACKING)) from error

    def made() -> "tuple[PeopleTracker | None, Painter]":
        tracker, manifest = player.tracker, player.manifest
        if tracker is None:
            return tracker, Painter(manifest.labels)
        return tracker, Painter(manifest.labels, tracker.lines, manifest.zones)

    current = [made()]

    def draw(result: FrameResult) -> NDArray[np.uint8]:
        if current[0][0] is not player.tracker:
            current[0] = made()
        return current[0][1].draw(result)

    return draw
