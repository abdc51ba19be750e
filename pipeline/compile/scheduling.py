"""The schedule of a program on a target: tiles, commands, addresses, and what has to lie outside for want of room."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from pipeline.compile.allocate import Block, demand, place
from pipeline.compile.commands import SRAM, Draft, Places, draft
from pipeline.compile.memories import Layout
from runtime.npu import layout as parameters
from runtime.npu.kernels import Operation
from runtime.npu.plain import operations
from runtime.npu.program import Program
from runtime.npu.schedule import Buffer, Estimates, Schedule
from runtime.npu.tiles import channel_axis

SHARE = 2
"""At most this part of the memory on the chip is for the tiles of one instruction; tensors that stay get the rest."""


def schedule(program: Program, chip: Layout, estimates: Estimates | None = None) -> Program:
    """``program`` with a schedule for ``chip``. The same input gives the same schedule.

    All tensors stay on the chip at first; while more is live than fits, the tensor that is largest and live longest at
    the fullest step goes outside, and whoever reads or writes it does so in tiles. What has no room even for tiles is
    used where it lies, outside (``Schedule.unstaged``).
    """
    steps, cached, size = operations(program), _cached(program, chip), chip.memories[SRAM].bytes
    spilled, budget = set[str](), int(size / SHARE)
    while True:
        made = draft(program, steps, Places(len(chip.memories) - 1, chip.cache, chip.lanes, budget, spilled, cached))
        addresses, full = _fit(made, size)
        if full is None:
            return replace(program, schedule=_schedule(made, chip, addresses, estimates))
        victim = _victim(made, full, spilled)
        if victim is None:
            budget //= 2
        else:
            spilled.add(victim)


def _cached(program: Program, chip: Layout) -> frozenset[int]:
    """Instructions whose parameters stay on the chip: in their order, until one does not fit."""
    if chip.cache is None:
        return frozenset()
    left, found = chip.memories[chip.cache].bytes, set()
    for index, item in enumerate(program.instructions):
        if parameters.immediate(item):
            continue
        outputs = len(item.constants["weight"]) if item.opcode in parameters.WEIGHTED else 0
        left -= parameters.block_bytes(item, (0, outputs), chip.lanes)
        if left < 0:
            break
        found.add(index)
    return frozenset(found)


def _fit(made: Draft, size: int) -> tuple[dict[int, int], int | None]:
    """Addresses of all buffers, by index; and the step in which the chip's memory is too full, or ``None``."""
    addresses: dict[int, int] = {}
    for memory in sorted({room.memory for room in made.rooms}):
        members, blocks = made.live(memory)
        if memory == SRAM:
            held = demand(blocks, 1 + max(block.last for block in blocks))
            if max(held) > size:
                return {}, held.index(max(held))
        found = place(blocks)
        if memory == SRAM:
            over = [block for block, at in zip(blocks, found, strict=True) if at + block.bytes > size]
            if over:
                return {}, _middle(over[0], blocks)
        addresses |= {i: at for group, at in zip(members, found, strict=True) for i in group}
    return addresses, None


def _middle(block: Block, blocks: Sequence[Block]) -> int:
    """The fullest step in which ``block`` is live."""
    held = demand(blocks, 1 + max(each.last for each in blocks))
    return max(range(block.first, block.last + 1), key=lambda step: (held[step], -step))


def _victim(made: Draft, step: int, spilled: Collection[str]) -> str | None:
    """The tensor that goes outside to make room in ``step``; ``None`` when only tiles are left."""
    rooms = [r for r in made.rooms if r.memory == SRAM and r.holds == "tensor" and r.first <= step <= r.last]
    rooms = [room for room in rooms if room.name not in spilled]
    return max(rooms, key=lambda r: (r.bytes * (r.last - r.first + 1), r.name)).name if rooms else None


def _schedule(made: Draft, chip: Layout, addresses: dict[int, int], estimates: Estimates | None) -> Schedule:
    buffers = tuple(
        Buffer(r.name, r.holds, r.memory, addresses[i], r.bytes, r.first, r.last) for i, r in enumerate(made.rooms)
    )
    sums = tuple(_checksum(op, cuts, chip.lanes) for op, cuts in zip(made.operations, made.cuts, strict=True))
    return Schedule(chip.memories, chip.lanes, tuple(made.cuts), buffers, tuple(made.commands), sums, estimates)


def _checksum(operation: Operation, cuts: tuple[tuple[int, ...], ...], lanes: int) -> int:
    item, axis = operation.instruction, channel_axis(operation)
    if parameters.immediate(item):
        return 0
    return parameters.checksum(item, (0, 0) if axis is None else cuts[axis], lanes)
