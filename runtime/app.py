"""Play a bundle on a source: frames in; events, an annotated video and a summary out."""

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.bundle import Bundle
from runtime.delegates.failover import Health, Supervisor
from runtime.errors import SourceError, UserError
from runtime.outputs import Counts, EventLog, FrameResult, VideoFile
from runtime.session import Session
from runtime.sources import Frame, Source, missing_extra, open_source

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
        health: what became of the device's jobs; ``None`` when no fault was injected.
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
    health: Health | None = None


def play(
    bundle: Bundle,
    source: str,
    *,
    events: Path | None = None,
    annotate: Path | None = None,
    delegate: str = "npu",
    strict: bool = False,
    supervisor: Supervisor | None = None,
    started: Callable[[Session], None] = lambda session: None,
    limit: int | None = None,
    listen: Callable[[FrameResult], None] = lambda result: None,
) -> Summary:
    """Run a bundle on every frame of a source.

    Objects are tracked and counted when the ``video`` extra is installed. Outputs are opened only once the first
    frame was decoded; when the source breaks later, what was written until then stays.

    Args:
        bundle: opened and verified.
        source: as ``--source``: a video, a folder of images, an image, a ``.npy`` file, or a camera's number.
        events: file for one JSON line per frame.
        annotate: mp4 file for the frames with boxes, tracks and lines on them.
        delegate: a word of ``runtime.delegates.choice``.
        strict: refuse when an operator falls back to the CPU.
        supervisor: of a simulated device that may fail.
        started: called once, when the bundle is loaded.
        limit: stop after so many frames.
        listen: called after every frame.

    Raises:
        SourceError: the source cannot be opened, has no frame, or breaks; or an extra is missing for it.
        UserError: an output cannot be written, or would replace the source or the bundle; or the bundle cannot
            be run.
    """
    session = Session(bundle, delegate, strict=strict, supervisor=supervisor)
    started(session)
    opened = open_source(source)
    _spare_inputs(bundle, Path(source), events, annotate)
    tracker = _tracker(bundle, opened)
    tally = _Tally(bundle, opened.name, delegate)
    with contextlib.ExitStack() as stack:
        stack.callback(opened.frames.close)
        first = next(opened.frames, None)
        if first is None:
            raise SourceError("has no frame", where=source)
        sinks = _sinks(stack, bundle, opened, tracker, first, events, annotate)
        tally.start()
        frames = itertools.islice(itertools.chain([first], opened.frames), limit)
        for index, frame in enumerate(frames):
            result = _analyse(session, tracker, index, frame)
            for sink in (*sinks, tally.add, listen):
                sink(result)
    return replace(tally.summary(), health=None if supervisor is None else supervisor.health())


def _spare_inputs(bundle: Bundle, source: Path, events: Path | None, annotate: Path | None) -> None:
    inputs = [bundle.path, source, *(source.iterdir() if source.is_dir() else ())]
    for output in (events, annotate):
        if output is not None and any(_same(output, each) for each in inputs):
            raise UserError("is read, so it cannot be written", where=output, fix="give another name")
    if events is not None and annotate is not None and events.absolute() == annotate.absolute():
        raise UserError("cannot hold both events and video", where=events, fix="give another name to one of them")


def _same(output: Path, read: Path) -> bool:
    """Whether both are one file, by whatever name; what does not exist yet is another one."""
    try:
        return output.samefile(read)
    except OSError:
        return False


def _tracker(bundle: Bundle, opened: Source) -> "PeopleTracker | None":
    """A tracker, or ``None`` when the ``video`` extra is not installed; the summary says so."""
    try:
        from runtime.tracking import PeopleTracker  # noqa: PLC0415 - of the video extra
    except ModuleNotFoundError:
        return None
    return PeopleTracker(bundle.manifest.lines, opened.rate)


def _analyse(session: Session, tracker: "PeopleTracker | None", index: int, frame: Frame) -> FrameResult:
    found = session.detect(frame.pixels)
    if tracker is None:
        return FrameResult(index, frame, found, None, {})
    tracks = tracker.update(found)
    return FrameResult(index, frame, found, tracks, tracker.counts())


def _sinks(
    stack: contextlib.ExitStack,
    bundle: Bundle,
    opened: Source,
    tracker: "PeopleTracker | None",
    first: Frame,
    events: Path | None,
    annotate: Path | None,
) -> list[Callable[[FrameResult], None]]:
    """What takes every result; files are closed by ``stack``."""
    labels = bundle.manifest.labels
    sinks: list[Callable[[FrameResult], None]] = []
    if annotate is not None:
        if tracker is None:
            raise missing_extra(" and ".join(TRACKING))
        from runtime.drawing import Painter  # noqa: PLC0415 - of the video extra

        painter = Painter(labels, tracker.zones)
        size = (first.pixels.shape[1], first.pixels.shape[0])
        video = stack.enter_context(VideoFile(annotate, opened.rate, size))
        sinks.append(lambda result: video.write(painter.draw(result)))
    if events is not None:
        sinks.append(stack.enter_context(EventLog(events, labels)).write)
    return sinks


class _Tally:
    """Adds results up to a ``Summary``."""

    def __init__(self, bundle: Bundle, source: str, delegate: str) -> None:
        self._bundle, self._source, self._delegate = bundle, source, delegate
        self._boxes = Counter(dict.fromkeys(bundle.manifest.labels, 0))
        self._tracks: set[int] | None = None
        self._counts: Counts = {}
        self._frames, self._began = 0, 0.0

    def start(self) -> None:
        """Begin to measure time."""
        self._began = time.perf_counter()

    def add(self, result: FrameResult) -> None:
        """Take one more result."""
        self._frames += 1
        self._boxes.update(self._bundle.manifest.labels[label] for label in result.found.labels)
        self._counts = result.counts
        if result.tracks is not None:
            self._tracks = (self._tracks or set()) | {int(track) for track in result.tracks if track >= 0}

    def summary(self) -> Summary:
        """What was added so far."""
        seconds = time.perf_counter() - self._began
        return Summary(
            bundle=self._bundle.manifest.name,
            target=self._bundle.manifest.target,
            delegate=self._delegate,
            source=self._source,
            frames=self._frames,
            seconds=seconds,
            fps=self._frames / seconds,
            boxes=dict(self._boxes),
            tracks=None if self._tracks is None else len(self._tracks),
            counts=self._counts,
        )
