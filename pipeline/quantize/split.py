"""Which calibration images are learnt from and which decide."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.quantize.images import spread
from pipeline.quantize.recipe import Recipe
from pipeline.quantize.samples import Sample


@dataclass(frozen=True)
class Split:
    """The calibration images in their parts, by their places; those of a part are read when it is first asked for.

    Attributes:
        every: all of them, for ranges; each iteration reads them again.
        pick: those at some places, ascending.
        to_learn: places of ``learning``.
        to_judge: places of ``judging``.
        to_hold_out: places of ``held_out``.
    """

    every: Callable[[], Iterable[Sample]]
    pick: Callable[[Sequence[int]], Sequence[Sample]]
    to_learn: Sequence[int]
    to_judge: Sequence[int]
    to_hold_out: Sequence[int]

    @cached_property
    def judging(self) -> Sequence[Sample]:
        """To decide with; others than those of ``learning``, unless there are too few."""
        return self.pick(self.to_judge)

    @cached_property
    def learning(self) -> Sequence[Sample]:
        """To round and correct with."""
        return self.judging if self.to_learn == self.to_judge else self.pick(self.to_learn)

    @cached_property
    def held_out(self) -> Sequence[Sample]:
        """That decided nothing, for the figure that is told; those of ``judging`` where there are too few."""
        return self.judging if self.to_hold_out == self.to_judge else self.pick(self.to_hold_out)


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
    judging = spread(range(1, count, 3), recipe.judging_images)
    if not judging:
        same = range(count)
        said = "the one calibration image is both learnt from and judged with; give 3 or more"
        return Split(every, pick, same, same, same), (said,)
    others = [place for place in range(count) if place % 3 != 1]
    apart = set(others[2::4])
    held_out = spread(others[2::4], recipe.judging_images)
    learning = spread([place for place in others if place not in apart], recipe.learning_images)
    parts = Split(every, pick, learning, judging, held_out or judging)
    if held_out or not recipe.judged:
        return parts, ()
    said = f"{count} calibration images are too few to hold any out: the figure told is of those that decided; give 4"
    return parts, (said,)
