"""Cameras and network streams: frames without end, over every interruption."""

import contextlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from runtime.errors import SourceError
from runtime.sources import Frames, Source

FIRST_S, MOST_S = 0.5, 30.0
"""Seconds before the first and at most before any later attempt since the last frame; each is twice the one before,
give or take 20 %."""

DRIFT_S = 2.0
"""When a stream's own clock and ours part by more, the stream's has jumped and ours decides."""


@dataclass(frozen=True)
class Link:
    """What happened to a connection: it is ``up``, or it is not, for ``problem``, and is tried again in ``retry_s``."""

    up: bool
    problem: str | None = None
    retry_s: float = 0.0


def delay(attempt: int) -> float:
    """Seconds before attempt ``attempt`` (from 0) to connect again."""
    return min(MOST_S, FIRST_S * 2.0 ** min(attempt, 16)) * random.uniform(0.8, 1.2)


def live_frames(connect: Callable[[], Source], listen: Callable[[Link], None], stop: threading.Event) -> Frames:
    """Frames of whatever ``connect`` opens, again and again until ``stop`` is set.

    Their ``time_s`` goes on over interruptions, never backwards: it is the stream's own between two of them, placed
    by the monotonic clock, so neither a jump of the host's clock nor one of the stream's changes a duration.

    Args:
        connect: opens the source; a ``SourceError`` is an interruption like any other.
        listen: told of every connection and interruption.
        stop: no frame comes after it is set; a wait for the next attempt ends.
    """
    began, last, attempt = time.monotonic(), 0.0, 0
    while not stop.is_set():
        connected = False
        try:
            offset = 0.0
            with contextlib.closing(connect().frames) as frames:
                for frame in frames:
                    now = time.monotonic()
                    if not connected:
                        connected = True
                        listen(Link(True))
                        offset = now - began
                    elif abs(offset + frame.time_s - (now - began)) > DRIFT_S:
                        offset = now - began - frame.time_s
                    last = max(last, offset + frame.time_s)
                    yield frame.at(last, time.time())
                    if stop.is_set():
                        return
            problem = "ended"
        except SourceError as error:
            problem = error.what
        attempt = 0 if connected else attempt
        retry = delay(attempt)
        attempt += 1
        listen(Link(False, problem, retry))
        stop.wait(retry)
