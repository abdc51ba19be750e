"""From what ``--source`` names to a feed for the engine, with the policy that fits its kind."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

from runtime.sources import Frames, Kind, Source, is_live, open_source, public_name
from runtime.streams.engine import Feed
from runtime.streams.live import Link, live_frames

LIVE_RATE = Fraction(10)
"""Frames per second of a live source until it says its own."""


@dataclass(frozen=True)
class Opened:
    """A source that is ready to be played.

    Attributes:
        name: how it is called in events: as the user did, without passwords; numbered when it is there twice.
        text: as the user gave it.
        kind: ``video``, ``images`` or ``live``.
        rate: nominal frames per second.
        feed: its frames; those of a live source give way to newer ones, no other is lost.
    """

    name: str
    text: str
    kind: Kind
    rate: Fraction
    feed: Feed


def open_all(
    texts: Sequence[str], limit: int | None, listen: Callable[[int, Link], None], stop: threading.Event
) -> list[Opened]:
    """Open every source; a network stream is connected later, and a camera that is there now may go and come back.

    Args:
        texts: as ``--source``.
        limit: play so many frames of each; ``None``: all.
        listen: told of connections and interruptions of a live source, by its position.
        stop: ends waiting for a live source.

    Raises:
        SourceError: a file or camera is not there or cannot be read, or an extra is missing.
    """
    names = [public_name(text) for text in texts]
    opened = []
    for index, text in enumerate(texts):
        before = names[:index].count(names[index])
        name = f"{names[index]} ({before + 1})" if before else names[index]
        source = _live(text, partial(listen, index), stop) if is_live(text) else open_source(text)
        feed = Feed(source.frames, "latest" if source.kind == "live" else "wait", limit)
        opened.append(Opened(name, text, source.kind, source.rate, feed))
    return opened


def _live(text: str, listen: Callable[[Link], None], stop: threading.Event) -> Source:
    """A source that is opened again whenever it breaks; a camera must be there at first."""
    waiting: list[Source] = []
    if not public_name(text).partition("://")[1]:
        waiting.append(open_source(text))

    def connect() -> Source:
        return waiting.pop() if waiting else open_source(text)

    frames: Frames = live_frames(connect, listen, stop)
    first = waiting[0] if waiting else Source(public_name(text), LIVE_RATE, frames, "live")
    return replace(first, frames=frames)
