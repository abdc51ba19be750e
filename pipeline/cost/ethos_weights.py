"""Whether an Ethos-U fetches an operator's weights into the chip before they are needed, and how much that hides.

The decisions of the scheduler of ethos-u-vela 5 (``scheduler.cpp``, weight buffering, as facts): weights that are
read once are fetched ahead if that and reading them on chip takes less than the operator; weights that are read again
for each block of places are, unless that slows the operator. Where one buffer does not hold them or the operator
before leaves too little time, they come in slices of output channels, two buffers in turn.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.cost.ethos_blocks import Block, Geometry
from pipeline.cost.ethos_cascades import Cascade
from pipeline.cost.ethos_cycles import phases, stored_bytes, traffic
from pipeline.cost.ethos_machine import Machine
from pipeline.cost.ethos_plan import Flow, Step
from pipeline.cost.ethos_slices import SPLIT, Estimate, View, buffers_of, estimate, fetch_cycles, slices_of
from pipeline.cost.nouns import WEIGHTED, Work

STARTUP = 1000
"""Cycles that the first operator may wait for its weights."""
STARTUP_SHARE = 1 / 10
"""Of reading weights where they are stored, what the first operator may wait for them instead."""
VISIBLE_SHARE = 1 / 20
"""Of fetching weights, what may stay visible of a fetch that counts as hidden."""
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
class Surroundings:
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
            begins, _first = part < 0 or part != last, not result
            readers = known.readers.get(known.output(index), ())
            movable = begins and bool(view.work.inputs) and known.inside(view.work.inputs[0])
            after = views.get(readers[0]) if readers else None
            place = Surroundings(
                before.slack, spare, room, not result, begins and bool(result), part < 0, movable, after
            )
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


def _staging(machine: Machine, view: View, place: Surroundings) -> Staging | None:
    """How the weights of ``view`` are fetched; ``None`` when they are read where they are stored."""
    outside, sram = machine.external, machine.sram
    near = view.refetch * (view.stored / sram.bytes_per_cycle + sram.read_latency)
    if near >= view.weights:
        return None
    whole, depth = fetch_cycles(outside, sram, view.stored), view.work.channels
    least = whole * min(depth, SPLIT) / depth
    promising = least < view.weights * STARTUP_SHARE or least <= STARTUP
    forced = place.first and view.refetch > 1 and promising
    waiting = max(0.0, whole - place.slack)
    shorter = near + waiting < view.weights
    if place.sliced:
        several = depth // view.tiling[1].ofm[2] > 2
        hidden = place.ahead and least < place.slack and view.refetch > 1
        if not (forced or shorter or several or hidden):
            return None
        slices = slices_of(machine, view, place.slack, place.room, whole)
    else:
        hidden = waiting < whole * VISIBLE_SHARE or waiting / view.repeats < STARTUP
        if view.stored > place.room or not (hidden or forced) or not (shorter or view.run <= view.weights):
            return None
        slices = (depth,)
    buffers = buffers_of(view, slices, place.room) if slices else None
    if buffers is None:
        return None
    slack = place.slack if place.ahead and buffers[0] < place.spare else STARTUP if forced else 0.0
    found = estimate(machine, view, slices, slack, buffers[1] > 0)
    if not _pays(machine, view, place, slices, sum(buffers), found, whole, forced):
        return None
    return Staging(found.last, math.ceil(view.stored * slices[0] / depth), view.stored, buffers)


def _pays(
    machine: Machine,
    view: View,
    place: Surroundings,
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


def _needed_more(place: Surroundings, view: View, size: int) -> bool:
    """Whether the next operator gains more from having its input in the cache than this one from its weights."""
    after = place.after
    if after is None or after.busy or not after.weights or after.ifm <= FUTURE * after.weights:
        return False
    if after.window >= place.room or after.window + view.window + size <= place.spare:
        return False
    return view.busy or after.ifm > view.ifm
