"""Which calibration images are learnt from and which decide."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipeline.quantize.engine import Real
from pipeline.quantize.recipe import Recipe


@dataclass(frozen=True)
class Split:
    """The calibration images in their parts.

    Attributes:
        every: all of them; each iteration reads them again.
        learning: to round and correct with.
        judging: to decide with; others than those, unless there are too few.
    """

    every: Callable[[], Iterable[Real]]
    learning: Sequence[Real]
    judging: Sequence[Real]


def split(
    count: int,
    recipe: Recipe,
    every: Callable[[], Iterable[Real]],
    pick: Callable[[Sequence[int]], Sequence[Real]],
) -> tuple[Split, tuple[str, ...]]:
    """Every third image to judge with, the others to learn from, each evenly up to what ``recipe`` says; and notes.

    Args:
        count: how many images there are.
        recipe: how many to take.
        every: all of them, each time anew.
        pick: those at some places, ascending.
    """
    judging = _evenly(range(1, count, 3), recipe.judging_images)
    if not judging:
        same = pick(range(count))
        said = "the one calibration image is both learnt from and judged with; give 3 or more"
        return Split(every, same, same), (said,)
    learning = _evenly([place for place in range(count) if place % 3 != 1], recipe.learning_images)
    return Split(every, pick(learning), pick(judging)), ()


def _evenly(places: Sequence[int], most: int) -> Sequence[int]:
    return places if len(places) <= most else [places[i * len(places) // most] for i in range(most)]
