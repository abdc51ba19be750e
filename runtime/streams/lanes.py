"""Bounded queues between threads, with a stated policy for what does not fit."""

import threading
from collections import deque
from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

Policy = Literal["wait", "latest"]
"""``wait``: whoever puts waits for room, nothing is lost. ``latest``: the oldest is thrown away and counted."""

T = TypeVar("T")


class Lanes(Generic[T]):
    """Several bounded queues that one thread empties in turn, so that no source waits for a faster one.

    A lane ends when its producer says so; the whole ends when every lane has ended and is empty.
    """

    def __init__(self, policies: Sequence[Policy], size: int) -> None:
        """One lane per policy, each of ``size`` items; a ``latest`` lane holds one, the newest."""
        self._policies = tuple(policies)
        self._sizes = [1 if policy == "latest" else size for policy in policies]
        self._items: list[deque[T]] = [deque() for _ in policies]
        self._open = [True] * len(policies)
        self._changed = threading.Condition()
        self._turn, self._closed = 0, False
        self.dropped = [0] * len(policies)

    def put(self, lane: int, item: T) -> bool:
        """Append an item; ``False`` when nobody will take it any more."""
        with self._changed:
            items = self._items[lane]
            if self._policies[lane] == "latest":
                while len(items) >= self._sizes[lane]:
                    items.popleft()
                    self.dropped[lane] += 1
            self._changed.wait_for(lambda: self._closed or len(items) < self._sizes[lane])
            if self._closed:
                return False
            items.append(item)
            self._changed.notify_all()
            return True

    def get(self) -> tuple[int, T] | None:
        """The next item with its lane, from the lanes in turn; ``None`` when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or any(self._items) or not any(self._open))
            count = len(self._items)
            for lane in ((self._turn + step) % count for step in range(count)):
                if self._items[lane] and not self._closed:
                    self._turn = lane + 1
                    self._changed.notify_all()
                    return lane, self._items[lane].popleft()
            return None

    def end(self, lane: int) -> None:
        """Nothing more will be put into ``lane``; what is in it will still be taken."""
        with self._changed:
            self._open[lane] = False
            self._changed.notify_all()

    def close(self) -> None:
        """Throw everything away and let every thread go on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        """Items that wait, in all lanes."""
        with self._changed:
            return sum(map(len, self._items))
