"""Overlap: while one frame is post-processed, the next is inferred, another prepared, and more are captured."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from runtime.adapters.detection import Detections, decode
from runtime.adapters.image import Placement, letterbox
from runtime.errors import SourceError, UserError
from runtime.session import Session
from runtime.sources import Frame, Frames
from runtime.streams.lanes import Lanes, Policy
from runtime.tensors import Tensors

CAPTURED, BETWEEN = 4, 2
"""Frames that wait per source before they are prepared, and between any two later steps."""


class Sessions(Protocol):
    """Which session runs the next frame (``runtime.swap.Swap``, or ``Fixed``)."""

    def session(self) -> Session:
        """The session for the next frame; asked once per frame."""

    def failed(self, session: Session, error: UserError) -> bool:
        """Whether a frame that ``session`` failed on is worth another try, with what ``session`` gives then."""


@dataclass(frozen=True)
class Fixed:
    """Always the same session."""

    only: Session

    def session(self) -> Session:
        """That one."""
        return self.only

    def failed(self, session: Session, error: UserError) -> bool:
        """There is no other one to try."""
        return False


@dataclass(frozen=True)
class Feed:
    """A source as the engine plays it: its frames, what to do with those that do not fit, how many to play at most."""

    frames: Frames
    policy: Policy
    limit: int | None = None


@dataclass(frozen=True)
class Found:
    """A frame with what was found in it.

    Attributes:
        source: position of its feed.
        frame: the picture.
        found: the boxes.
        session: what found them.
        seconds: host time of each step: ``prepare``, ``infer``, ``decode``.
    """

    source: int
    frame: Frame
    found: Detections
    session: Session
    seconds: dict[str, float]


@dataclass(frozen=True)
class Broken:
    """A feed that ended with an error; its frames until then came before."""

    source: int
    error: SourceError


@dataclass(frozen=True)
class _Job:
    """A frame between two steps: the tensors so far, and how many partitions have run."""

    source: int
    frame: Frame
    session: Session
    placement: Placement
    values: Tensors
    done: int
    seconds: dict[str, float]


class Engine:
    """Runs every frame of several feeds through a session; each feed's frames stay in order.

    One thread per feed captures, one prepares, one per partition infers, and the caller's own decodes and goes on.
    Queues between them are bounded, so memory is too. Use it in a ``with`` statement, which ends the threads.
    """

    def __init__(self, sessions: Sessions, feeds: Sequence[Feed], stop: threading.Event) -> None:
        """Prepare to play.

        Args:
            sessions: asked before each frame, so that a bundle can be changed between two of them.
            feeds: what to play.
            stop: when it is set no further frame is captured; those that wait are still played.
        """
        self._sessions, self._feeds, self._stop = sessions, tuple(feeds), stop
        self._captured: Lanes[Frame | SourceError] = Lanes([feed.policy for feed in feeds], CAPTURED)
        inferring = len(sessions.session().partitions)
        self._queues: list[Lanes[_Job | Broken]] = [Lanes(["wait"], BETWEEN) for _ in range(inferring + 1)]
        self._threads = ThreadPoolExecutor(len(self._feeds) + inferring + 1, thread_name_prefix="npu-run")
        self._work: list[Future[None]] = []
        self._left = [math.inf if feed.limit is None else feed.limit for feed in feeds]

    @property
    def dropped(self) -> Sequence[int]:
        """Frames of each feed that were thrown away because newer ones had come."""
        return self._captured.dropped

    @property
    def waiting(self) -> int:
        """Frames in all queues."""
        return len(self._captured) + sum(len(queue) for queue in self._queues)

    def results(self) -> Iterator[Found | Broken]:
        """Every frame's result as it is ready, and every feed's error.

        Raises:
            UserError: the bundle cannot be run.
        """
        work: list[Callable[[], None]] = [partial(self._capture, lane) for lane in range(len(self._feeds))]
        work += [self._prepare, *(partial(self._infer, number) for number in range(len(self._queues) - 1))]
        self._work = [self._threads.submit(each) for each in work]
        while (item := self._queues[-1].get()) is not None:
            yield item[1] if isinstance(item[1], Broken) else _decoded(item[1])
        for future in self._work:
            future.result()  # what went wrong there goes wrong here

    def __enter__(self) -> Self:
        """Use it in a ``with`` statement."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End every thread; frames that wait are thrown away."""
        self._stop.set()
        self._captured.close()
        for queue in self._queues:
            queue.close()
        self._threads.shutdown()

    def _capture(self, lane: int) -> None:
        feed = self._feeds[lane]
        try:
            with contextlib.closing(feed.frames) as frames:
                for frame in frames:
                    if self._stop.is_set() or self._left[lane] <= 0 or not self._captured.put(lane, frame):
                        return
        except SourceError as error:
            self._captured.put(lane, error)
        finally:
            self._captured.end(lane)

    def _prepare(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._queues[0].end, 0)
            stack.callback(self._captured.close)
            while (item := self._captured.get()) is not None:
                if self._left[item[0]] <= 0:
                    continue  # captured ahead, or an error behind the last frame that is wanted
                self._left[item[0]] -= 1
                if not self._queues[0].put(0, self._prepared_from(*item)):
                    return

    def _prepared_from(self, source: int, item: Frame | SourceError) -> _Job | Broken:
        if isinstance(item, SourceError):
            return Broken(source, item)
        try:
            return _prepared(source, item, self._sessions.session())
        except SourceError as error:
            return Broken(source, error)

    def _infer(self, number: int) -> None:
        """Run partition ``number`` of every frame; the last thread also those of a longer bundle that took over."""
        before, after = self._queues[number : number + 2]
        until = None if number == len(self._queues) - 2 else number + 1
        with contextlib.ExitStack() as stack:
            stack.callback(after.end, 0)
            stack.callback(before.close)
            while (item := before.get()) is not None:
                job = item[1]
                if not after.put(0, job if isinstance(job, Broken) else self._inferred(job, until)):
                    return

    def _inferred(self, job: _Job, until: int | None) -> _Job:
        """The job after the partitions before ``until``; another session gets a try where there is one."""
        began = time.perf_counter()
        values = job.values
        try:
            for index in range(job.done, len(job.session.partitions))[: None if until is None else until - job.done]:
                values = job.session.step(values, index)
        except UserError as error:
            if not self._sessions.failed(job.session, error):
                raise
            return self._inferred(_prepared(job.source, job.frame, self._sessions.session()), until)
        seconds = job.seconds.get("infer", 0.0) + time.perf_counter() - began
        done = len(job.session.partitions) if until is None else until
        return replace(job, values=values, done=done, seconds={**job.seconds, "infer": seconds})


def _prepared(source: int, frame: Frame, session: Session) -> _Job:
    """A frame at the size that a session takes."""
    began = time.perf_counter()
    pre = session.manifest.preprocess
    pixels, placement = letterbox(frame.pixels, pre.width, pre.height)
    values = session.begin(pixels)
    return _Job(source, frame, session, placement, values, 0, {"prepare": time.perf_counter() - began})


def _decoded(job: _Job) -> Found:
    began = time.perf_counter()
    height, width = job.frame.pixels.shape[:2]
    found = decode(job.session.finish(job.values), job.session.manifest.decoder, job.placement, (width, height))
    seconds = {**job.seconds, "decode": time.perf_counter() - began}
    return Found(job.source, job.frame, found, job.session, seconds)
