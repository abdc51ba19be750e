"""Whether an Ethos-U fetches an operator's weights into the chip before they are needed, and how much that hides.

The decisions of the scheduler of ethos-u-vela 5 (``scheduler.cpp``, weight buffering, as facts): weights that are
read once are fetched ahead if that and reading them on chip takes less than the operator; weights that are read again
for each block of places are, unless that slows the operator. Where one buffer does not hold them or the operator
before leaves too little time, they come in slices of output channels, two buffers in turn.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.cost.ethos_blocks import Block, Geometry
from pipeline.cost.ethos_cascades import Cascade
from pipeline.cost.ethos_cycles import phases, stored_bytes, traffic
from pipeline.cost.ethos_machine import Machine, Memory
from pipeline.cost.ethos_plan import Flow, Step
from pipeline.cost.nouns import WEIGHTED, Work

SPLIT = 16
"""Output channels that slices are multiples of."""
STARTUP = 1000
"""Cycles that the first operator may wait for its weights."""
LEAST_USE = 0.3
"""Of a block's channels, what a slice in the middle must fill."""
FUTURE = 2.0
"""How much longer the next operator must read its input than its weights for the cache to be left to it."""


@dataclass(frozen=True)
class Staging:
    """How an operator's weights come.

    Attributes:
        slack: cycles of its last slice, in which the next operator's weights can be fetched.
        first, whole: bytes that are fetched before it starts, and in all; 0 when it reads them where they are stored.
        buffers: bytes on chip of the first buffer and the second.
    """

    slack: float
    first: int = 0
    whole: int = 0
    buffers: tuple[int, int] = (0, 0)

    @property
    def ahead(self) -> bool:
        """Whether anything is fetched."""
        return self.whole > 0


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
class Place:
    """What surrounds an operator when its weights are decided on.

    Attributes:
        slack: cycles of the operator before in which weights can be fetched.
        spare: bytes of the cache that the operator before leaves.
        room: bytes of the cache that the weights may take.
        first: whether no operator runs before.
        ahead: whether weights may be fetched before the operator starts.
        sliced: whether slices of channels are possible, which they are not in a cascade.
        movable: whether its input could lie on chip instead.
        after: the operator that reads the output.
    """

    slack: float
    spare: float
    room: float
    first: bool
    ahead: bool
    sliced: bool
    movable: bool
    after: View | None


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


def stagings(
    machine: Machine, known: Flow, drafts: Sequence[Step], found: Sequence[Cascade],
    tilings: Mapping[int, tuple[Geometry, Block]],
) -> Mapping[int, Staging]:  # fmt: skip
    """How the weights of each operator that runs come, by its index."""
    views = {i: _view(machine, known.works[i], drafts[i], tilings[i]) for i in known.order}
    limit = math.inf if machine.cache is None else machine.cache
    group = {i: n for n, cascade in enumerate(found) for i in cascade.rows}
    held = [float(cascade.buffers) for cascade in found]
    result: dict[int, Staging] = {}
    before, spare, last = Staging(0.0), limit, -1
    for index in known.order:
        view, part = views[index], group.get(index, -1)
        room = limit if part < 0 else limit - held[part]
        staging = Staging(view.run / view.repeats)
        if view.work.kind in WEIGHTED:
            begins = part < 0 or part != last
            readers = known.readers.get(known.output(index), ())
            movable = begins and bool(view.work.inputs) and known.inside(view.work.inputs[0])
            after = views.get(readers[0]) if readers else None
            place = Place(before.slack, spare, room, not result, begins and bool(result), part < 0, movable, after)
            staging = _staging(machine, view, place) or staging
        if part >= 0:
            held[part] += sum(staging.buffers)
        result[index], before, last = staging, staging, part
        spare = room - (staging.buffers[1] or staging.buffers[0])
    return result


def _view(machine: Machine, work: Work, step: Step, tiling: tuple[Geometry, Block]) -> View:
    moved = traffic(machine, tiling, step.reads, step.write)
    outside, stored = machine.external, stored_bytes(machine, work)
    bias = outside if stored else None
    run = sum(phases(machine, work, tiling, step.reads, step.write, bias))
    repeats = work.height / step.rows if step.rows else 1.0
    weights = moved.refetch * (stored / outside.bytes_per_cycle + outside.read_latency) if stored else 0.0
    memory = step.reads[0].memory
    ifm = moved.wanted / memory.bytes_per_cycle + memory.read_latency
    window = int(sum(work.in_bytes[:1]) / repeats)
    return View(work, tiling, step, run, weights, ifm, moved.wanted, window, moved.refetch, repeats, stored)


def _staging(machine: Machine, view: View, place: Place) -> Staging | None:
    """How the weights of ``view`` are fetched; ``None`` when they are read where they are stored."""
    outside, sram = machine.external, machine.sram
    near = view.refetch * (view.stored / sram.bytes_per_cycle + sram.read_latency)
    if near >= view.weights:
        return None
    whole, depth = fetch_cycles(outside, sram, view.stored), view.work.channels
    least = whole * min(depth, SPLIT) / depth
    promising = least < view.weights / 10 or least <= STARTUP
    forced = place.first and view.refetch > 1 and promising
    waiting = max(0.0, whole - place.slack)
    shorter = near + waiting < view.weights
    if place.sliced:
        several = depth // view.tiling[1].ofm[2] > 2
        hidden = place.ahead and least < place.slack and view.refetch > 1
        if not (forced or shorter or several or hidden):
            return None
        slices = _slices(machine, view, place, whole)
    else:
        hidden = waiting < whole / 20 or waiting / view.repeats < STARTUP
        if view.stored > place.room or not (hidden or forced) or not (shorter or view.run <= view.weights):
            return None
        slices = (depth,)
    buffers = _buffers(view, slices, place.room) if slices else None
    if buffers is None:
        return None
    slack = place.slack if place.ahead and buffers[0] < place.spare else STARTUP if forced else 0.0
    found = _estimate(machine, view, slices, slack, buffers[1] > 0)
    if not _pays(machine, view, place, slices, sum(buffers), found, whole, forced):
        return None
    return Staging(found.last, math.ceil(view.stored * slices[0] / depth), view.stored, buffers)


def _slices(machine: Machine, view: View, place: Place, whole: float) -> tuple[int, ...]:
    """Output channels whose weights are fetched at a time; none when the block would be used badly."""
    depth, block, half = view.work.channels, view.tiling[1].ofm[2], place.room / 2
    least, hidden = min(SPLIT / depth, 1.0), min(place.slack / whole, 1.0)
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


def _buffers(view: View, slices: Sequence[int], room: float) -> tuple[int, int] | None:
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


def _estimate(machine: Machine, view: View, slices: Sequence[int], slack: float, double: bool) -> Estimate:
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


def _pays(
    machine: Machine,
    view: View,
    place: Place,
    slices: Sequence[int],
    size: int,
    found: Estimate,
    whole: float,
    forced: bool,
) -> bool:
    """Whether fetching weights makes the operator no slower, and takes no room that a feature map needs more."""
    near, ifm = machine.sram, found.ifm
    if place.movable:
        both = view.window + size <= place.room
        input_near = max(view.run, view.weights, view.wanted / near.bytes_per_cycle + near.read_latency)
        slower = max(found.run + found.waiting, found.weights, ifm)
        if not both and view.window < place.spare and input_near < min(slower, ifm):
            return False
        if _needed_more(place, view, size):
            return False
        ifm = view.wanted / near.bytes_per_cycle + near.read_latency if both else ifm
    old = max(view.run, view.weights, ifm)
    new = max(found.run + found.waiting, found.weights, ifm)
    if view.run > view.weights:  # an operator that computes longest is not slowed by a short wait
        alone = new == found.run + found.waiting
        new -= found.waiting if found.waiting / len(slices) < STARTUP else 0.0
        new -= len(slices) * STARTUP / 2 if len(slices) > 1 and alone and forced else 0.0
    return old >= new and (view.refetch > 1 or whole + found.weights <= old)


def _needed_more(place: Place, view: View, size: int) -> bool:
    """Whether the next operator gains more from having its input in the cache than this one from its weights."""
    after = place.after
    if after is None or after.busy or not after.weights or after.ifm <= FUTURE * after.weights:
        return False
    if after.window >= place.room or after.window + view.window + size <= place.spare:
        return False
    return view.busy or after.ifm > view.ifm
