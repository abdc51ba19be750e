"""Weights of an Ethos-U operator in slices of output channels: how many, in which buffers, and what that takes.

As the scheduler of ethos-u-vela 5 (``scheduler.cpp``, as facts) cuts them: the first slice is what the operator before
hides, the others what the first one hides, in whole blocks.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.cost.ethos_blocks import Block, Geometry
from pipeline.cost.ethos_cycles import phases
from pipeline.cost.ethos_machine import Machine, Memory
from pipeline.cost.ethos_plan import Step
from pipeline.cost.nouns import Work

SPLIT = 16
"""Output channels that slices are multiples of."""
LEAST_USE = 0.3
"""Of a block's channels, what a slice in the middle must fill."""


@dataclass(frozen=True)
class View:
    """An operator as the decision sees it, its feature maps and weights in external memory.

    Attributes:
        work, tiling, step: the operator, its blocks, where it reads and writes.
        run, weights, ifm: cycles of computing, of reading its weights and its input, as often as it does.
        wanted, window: bytes that it reads of its input, and of that at a time.
        refetch: how often it reads its weights.
        repeats: how often it starts, in a cascade; 1 outside.
        stored: bytes of its weights.
    """

    work: Work
    tiling: tuple[Geometry, Block]
    step: Step
    run: float
    weights: float
    ifm: float
    wanted: int
    window: int
    refetch: int
    repeats: float
    stored: int

    @property
    def busy(self) -> bool:
        """Whether computing takes longest."""
        return self.run > max(self.weights, self.ifm)


@dataclass(frozen=True)
class Estimate:
    """Cycles of an operator with its weights in slices: of all, of waiting, of the last slice, of reading weights."""

    run: float
    waiting: float
    last: float
    weights: float
    ifm: float


def fetch_cycles(source: Memory, target: Memory, size: float) -> float:
    """Cycles to copy ``size`` bytes between memories."""
    onto = size / target.bytes_per_cycle + source.write_latency
    return max(size / source.bytes_per_cycle + source.read_latency, onto)


def slices_of(machine: Machine, view: View, slack: float, room: float, whole: float) -> tuple[int, ...]:
    """Output channels whose weights are fetched at a time; none when the block would be used badly.

    Args:
        machine: the NPU.
        view: the operator.
        slack: cycles of the operator before in which weights can be fetched.
        room: bytes of the cache that the weights may take.
        whole: cycles to fetch them all.
    """
    depth, block, half = view.work.channels, view.tiling[1].ofm[2], room / 2
    least, hidden = min(SPLIT / depth, 1.0), min(slack / whole, 1.0)
    ratio = 1.0 if 1.0 - math.floor(hidden / least) * least < least / 2 else hidden
    if view.run > view.weights and 0.5 < ratio < 1.0:
        ratio = min(1.0, max(0.5, -(-int(depth * 0.5) // SPLIT) * SPLIT / depth))
    ratio = min(max(ratio, least), half / view.stored, 1.0)
    if ratio >= 1.0:
        return (depth,)
    first = max(int(depth * ratio) // SPLIT * SPLIT, SPLIT)
    if first >= depth:
        return (depth,)
    cycles = _slice_cycles(machine, view, first, True, False)
    rest = -(-max(int(depth * cycles / whole), SPLIT) // block) * block
    if rest * view.stored / depth > half:
        rest = int(half / view.stored * depth)
    while True:
        unit = block if rest > block else SPLIT
        rest = max(rest // unit * unit, SPLIT)
        if max(first, min(rest, depth - first)) * view.stored / depth <= half or (first, rest) == (SPLIT, SPLIT):
            break
        if rest > first:
            rest = -(-(rest // 2) // SPLIT) * SPLIT
        else:
            first = -(-(first // 2) // SPLIT) * SPLIT
    starts = [0, *range(first, depth, rest), depth]
    if len(starts) > 3 and rest / (-(-rest // block) * block) < LEAST_USE:
        return ()
    return tuple(b - a for a, b in itertools.pairwise(starts))


def buffers_of(view: View, slices: Sequence[int], room: float) -> tuple[int, int] | None:
    """Bytes of the one or two buffers for ``slices``; ``None`` when not even one fits."""
    sizes = [math.ceil(view.stored * part / view.work.channels) for part in slices]
    pair = max(sizes[::2]), max(sizes[1::2], default=0)
    if len(sizes) > 1 and sum(pair) <= room:
        return pair
    return (max(sizes), 0) if max(sizes) <= room else None


def _slice_cycles(machine: Machine, view: View, depth: int, first: bool, last: bool) -> float:
    """Cycles of ``depth`` output channels, the first of which wait for input, the last for output to be written."""
    shape, block = view.tiling
    if view.step.rows:
        shape = replace(shape, ofm=(min(view.step.rows, shape.ofm[0]), *shape.ofm[1:]))
    shape = replace(shape, ofm=(*shape.ofm[:2], depth))
    ifm, core, ofm = phases(machine, view.work, (shape, block), view.step.reads, view.step.write, machine.sram)
    return core + (ifm if first else 0) + (ofm if last else 0)


def estimate(machine: Machine, view: View, slices: Sequence[int], slack: float, double: bool) -> Estimate:
    """What the operator takes with its weights in ``slices``; ``slack``: cycles that hide the first one."""
    run = waiting = cycles = 0.0
    end, depth = len(slices) - 1, view.work.channels
    for number, part in enumerate(slices):
        cycles = _slice_cycles(machine, view, part, number == 0, number == end)
        size = view.stored * part / depth
        waiting += max(0.0, fetch_cycles(machine.external, machine.sram, size) - slack)
        slack = cycles if double else 0.0
        run += cycles
    near, block = machine.sram, view.tiling[1].ofm[2]
    weights = view.refetch * (view.stored / near.bytes_per_cycle + len(slices) * near.read_latency)
    again = sum(-(-part // block) for part in slices) / -(-depth // block)
    return Estimate(run * view.repeats, waiting, cycles, weights, view.ifm * again)
