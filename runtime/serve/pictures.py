"""The newest annotated picture of every source, as JPEG, made only when somebody looks."""

import io
import threading
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from runtime.outputs import FrameResult

QUALITY = 80
WIDEST = 1280
"""Pixels; wider pictures are made smaller by a whole factor."""

Draw = Callable[[FrameResult], NDArray[np.uint8]]


class Pictures:
    """Newest results by source; every viewer waits for a newer one than it has."""

    def __init__(self, draws: Mapping[str, Draw]) -> None:
        """Begin without a picture; ``draws`` by source."""
        self._draws = draws
        self._changed = threading.Condition()
        self._results: dict[str, FrameResult] = {}
        self._made: dict[str, tuple[int, bytes]] = {}
        self._closed = False

    @property
    def names(self) -> list[str]:
        """The sources that have pictures."""
        return list(self._draws)

    def show(self, result: FrameResult) -> None:
        """Take a newer result; a source's results come in order."""
        with self._changed:
            self._results[result.source] = result
            self._changed.notify_all()

    def newest(self, source: str, after: int, timeout_s: float) -> tuple[int, bytes] | None:
        """Index and JPEG of a frame after ``after``; ``None`` when none comes within ``timeout_s`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._index(source) > after, timeout_s)
            if self._closed or self._index(source) <= after:
                return None
            result = self._results[source]
            made = self._made.get(source)
        if made is None or made[0] != result.index:
            made = (result.index, encode(self._draws[source](result)))
            with self._changed:
                self._made[source] = made
        return made

    def _index(self, source: str) -> int:
        return self._results[source].index if source in self._results else -1

    def close(self) -> None:
        """Let every viewer go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """A picture, uint8 [H, W, 3], RGB, as JPEG, at most ``WIDEST`` pixels wide."""
    from PIL import Image  # noqa: PLC0415 - of the video extra

    image = Image.fromarray(pixels)
    if image.width > WIDEST:
        image = image.reduce(-(-image.width // WIDEST))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
