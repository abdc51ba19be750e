"""The points of a ladder: accuracy against time, and which of them nothing beats in both."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.quantizing.price import Price


@dataclass(frozen=True)
class Point:
    """One quantization that was judged.

    Attributes:
        rung: of the ladder.
        what: in words.
        layers: operators, and activations in int16, that depart from the scheme.
        sqnr_db: of all outputs, averaged, on the judging images.
        accuracy: of the task; ``None`` where it was not measured.
        price: estimated.
        gain_db: against what it departs from.
        added: what it costs more than that.
        seconds: it took to judge.
        kept: whether the quantization that was kept stands on it.
        front: whether no other point is both faster and more exact.
    """

    rung: str
    what: str
    layers: tuple[str, ...]
    sqnr_db: float
    accuracy: float | None
    price: Price
    gain_db: float
    added: Price
    seconds: float
    kept: bool = False
    front: bool = False

    @property
    def gain_per_ms(self) -> float | None:
        """Decibels gained per millisecond added; ``None`` where none is added, or it is not known."""
        return None if self.added.ms is None or self.added.ms <= 0 else self.gain_db / self.added.ms

    @property
    def worth(self) -> tuple[float, int, float]:
        """What points are ranked by: decibels per millisecond, then fewer crossings, then decibels."""
        free = self.added.ms is not None and self.added.ms <= 0
        rate = math.inf if free else self.gain_per_ms if self.gain_per_ms is not None else 0.0
        return rate, -self.added.crossings, self.gain_db


def marked(points: Sequence[Point]) -> tuple[Point, ...]:
    """``points`` with those marked that are on the Pareto front of milliseconds and decibels.

    A time that is not known counts as longer than any.
    """
    places = [(math.inf if p.price.ms is None else p.price.ms, -p.sqnr_db) for p in points]
    return tuple(
        replace(point, front=not any(_beats(other, own) for other in places[:index] + places[index + 1 :]))
        for index, (point, own) in enumerate(zip(points, places, strict=True))
    )


def _beats(other: tuple[float, float], own: tuple[float, float]) -> bool:
    return other[0] <= own[0] and other[1] <= own[1] and other != own


def as_row(point: Point) -> Mapping[str, Any]:
    """The point as a JSON object."""
    return {
        "rung": point.rung, "what": point.what, "layers": list(point.layers), "sqnr_db": point.sqnr_db,
        "accuracy": point.accuracy, "ms": point.price.ms, "mj": point.price.mj, "crossings": point.price.crossings,
        "gain_db": point.gain_db, "added_ms": point.added.ms, "added_crossings": point.added.crossings,
        "gain_db_per_ms": point.gain_per_ms, "kept": point.kept, "front": point.front, "seconds": point.seconds,
    }  # fmt: skip
