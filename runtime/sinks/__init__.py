"""Where events go: a durable queue, and from it to files, databases and brokers."""

from collections.abc import Sequence
from typing import Protocol

from runtime.errors import UserError
from runtime.events import Event


class SinkError(UserError):
    """A sink cannot take events now; they stay in the queue and are tried again."""


class Sink(Protocol):
    """Where events are delivered.

    A mark is a whole number that the queue keeps with the position of the last event delivered, in one transaction.
    """

    name: str

    def open(self, mark: int | None) -> int:
        """Get ready; anything delivered after ``mark`` is undone. ``None`` when nothing was ever delivered.

        Returns:
            the mark of what is there.

        Raises:
            SinkError: it cannot be reached or written.
        """

    def deliver(self, events: Sequence[Event]) -> int:
        """Deliver events in order and return the new mark; only then they count as delivered.

        Raises:
            SinkError: not all of them were; the same ones are given again.
        """

    def close(self) -> None:
        """Let go of it."""
