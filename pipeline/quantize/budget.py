"""The wall-clock budget of a search, as it is spent and as it is told."""

import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Budget:
    """Seconds after which nothing new is begun, counted from when this was made.

    Attributes:
        seconds: the budget; ``None`` for any time.
        started: on the monotonic clock.
    """

    seconds: float | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def used(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def spent(self) -> bool:
        """Whether nothing new may be begun."""
        return self.seconds is not None and self.used > self.seconds

    def __str__(self) -> str:
        """What is left; nothing where any time may be taken."""
        if self.seconds is None:
            return ""
        return f"{max(0.0, self.seconds - self.used):.0f} s of {self.seconds:g} s left"
