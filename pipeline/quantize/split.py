"""Which calibration images are learnt from and which decide."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipeline.quantize.recipe import Recipe
from pipeline.quantize.samples import Sample


@dataclass(frozen=True)
class Split:
    """The calibration images in their parts.

    Attributes:
        every: all of them, for ranges; each iteration reads them again.
        learning: to round and correct with.
        judging: to decide with; others than those, unless there are too few.
        held_out: that decided nothing, for the figure that is told; those of ``judging`` where there are too few.
    """

    every: Callable[[], Iterable[Sample]]
    learning: Sequence[Sample]
    judging: Sequence[Sample]
    held_out: Sequence[Sample]


def split(
    count: int,
    recipe: Recipe,
    every: Callable[[], Iterable[Sample]],
    pick: Callable[[Sequence[int]], Sequence[Sample]],
) -> tuple[Split, tuple[str, ...]]:
    """The images in parts, each spread evenly, up to what ``recipe`` says; and notes.

    Every third image decides; of the others every fourth is held out, the rest is learnt from.

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
        return Split(every, same, same, same), (said,)
    others = [place for place in range(count) if place % 3 != 1]
    apart = set(others[2::4])
    held_out = _evenly(others[2::4], recipe.judging_images)
    learning = _evenly([place for place in others if place not in apart], recipe.learning_images)
    decides = pick(judging)
    if held_out or not recipe.judged:
        return Split(every, pick(learning), decides, pick(held_out) if held_out else decides), ()
    said = f"{count} calibration images are too few to hold any out: the figure told is of those that decided; give 4"
    return Split(every, pick(learning), decides, decides), (said,)


def _evenly(places: Sequence[int], most: int) -> Sequence[int]:
    return places if len(places) <= most else [places[i * len(places) // most] for i in range(most)]
