"""What makes a schedule legal: every address in its memory, no live overlap, and no byte read before it was written.

The last is checked by ``runtime.npu.verify_commands``. Nothing here allocates by a number that the program states.
"""

import itertools
import math
from collections.abc import Sequence

from runtime.errors import ProgramError
from runtime.npu import layout
from runtime.npu.kernels import Operation
from runtime.npu.needs import Need, Region
from runtime.npu.plain import operations as plain_operations
from runtime.npu.program import Program
from runtime.npu.schedule import ALIGNMENT, Estimates, Schedule
from runtime.npu.tiles import channel_axis, need, regions, tensor_bytes
from runtime.npu.verify_commands import MAX_STEPS, follow, named, require

MAX_TILES = 1 << 15
MAX_BUFFERS = 1 << 13
MAX_MEMORIES = 8
MAX_LANES = 1 << 12
MAX_RESERVED = 1 << 30
"""Bytes that all buffers of a memory may reach to: what a machine has to allocate."""


def verify_schedule(program: Program) -> None:
    """Check the schedule, if there is one, of a program whose instructions are verified.

    Raises:
        ProgramError: the first rule that is broken; the message names the memory, buffer, instruction or command.
    """
    schedule = program.schedule
    if schedule is None:
        return
    operations = plain_operations(program)
    _verify_memories(schedule)
    tiles = _verify_cuts(schedule, operations)
    _verify_buffers(schedule)
    sizes = {spec.name: tensor_bytes(spec) for spec in program.tensors}
    _verify_overlaps(schedule, follow(program, operations, tiles, sizes))
    _verify_parameters(schedule, operations)
    if schedule.estimates is not None:
        _verify_estimates(program, schedule.estimates)


def _verify_memories(schedule: Schedule) -> None:
    memories = schedule.memories
    require(2 <= len(memories) <= MAX_MEMORIES, f"it has {len(memories)} memories, 2 to {MAX_MEMORIES} are legal")
    require(len({m.name for m in memories}) == len(memories), "two of its memories have one name")
    for memory in memories:
        require(memory.bytes > 0, f"its size of {memory.bytes} bytes is not above 0", f"memory {memory.name!r}")
    require(1 <= schedule.lanes <= MAX_LANES, f"{schedule.lanes} lanes are outside [1, {MAX_LANES}]")


def _verify_cuts(schedule: Schedule, operations: Sequence[Operation]) -> list[list[tuple[Region, Need]]]:
    """The tiles of every instruction, with what each needs."""
    count = len(operations)
    require(len(schedule.cuts) == count, f"it cuts {len(schedule.cuts)} instructions, the program has {count}")
    require(len(schedule.checksums) == count, f"it has {len(schedule.checksums)} checksums for {count} instructions")
    result, total = [], 0
    for index, (operation, cuts) in enumerate(zip(operations, schedule.cuts, strict=True)):
        where, shape = named(index, operation.instruction), operation.output.shape
        fits = len(cuts) == len(shape) and all(
            len(axis) >= 2 and axis[0] == 0 and axis[-1] == size and all(a < b for a, b in itertools.pairwise(axis))
            for axis, size in zip(cuts, shape, strict=True)
        )
        require(fits, f"its cuts {cuts} do not part an output of shape {shape}", where)
        number = math.prod(len(axis) - 1 for axis in cuts)
        total += number
        require(total <= MAX_TILES, f"with it there are more than {MAX_TILES} tiles", where)
        try:
            result.append([(region, need(operation, region)) for region in regions(cuts)])
        except ProgramError as error:
            raise ProgramError(error.what, where=where, fix="compile the program again") from error
    return result


def _verify_buffers(schedule: Schedule) -> None:
    require(len(schedule.buffers) <= MAX_BUFFERS, f"it has more than {MAX_BUFFERS} buffers")
    for index, buffer in enumerate(schedule.buffers):
        where = f"buffer {index} ({buffer.holds} {buffer.name!r})"
        require(0 <= buffer.memory < len(schedule.memories), f"there is no memory {buffer.memory}", where)
        memory = schedule.memories[buffer.memory]
        require(
            buffer.address >= 0 and buffer.address % ALIGNMENT == 0, f"address {buffer.address} is not legal", where
        )
        require(buffer.bytes > 0, f"its size of {buffer.bytes} bytes is not above 0", where)
        end, room = buffer.address + buffer.bytes, min(memory.bytes, MAX_RESERVED)
        require(end <= room, f"it ends at byte {end} of {memory.name}, which has {room}", where)
        require(
            0 <= buffer.first <= buffer.last < MAX_STEPS, f"steps {buffer.first} to {buffer.last} are not legal", where
        )


def _verify_overlaps(schedule: Schedule, in_place: set[tuple[int, int]]) -> None:
    """No two buffers of a memory share a byte in a step in which both are live."""
    for memory in range(len(schedule.memories)):
        order = sorted(
            (i for i, b in enumerate(schedule.buffers) if b.memory == memory),
            key=lambda i: schedule.buffers[i].address,
        )
        active: list[int] = []
        for index in order:
            buffer = schedule.buffers[index]
            active = [i for i in active if schedule.buffers[i].address + schedule.buffers[i].bytes > buffer.address]
            for other in active:
                against = schedule.buffers[other]
                together = against.first <= buffer.last and buffer.first <= against.last
                legal = not together or (min(index, other), max(index, other)) in in_place
                what = (
                    f"it overlaps buffer {other} ({against.holds} {against.name!r}) in {schedule.memories[memory].name}"
                )
                require(legal, f"{what} while both are live", f"buffer {index} ({buffer.holds} {buffer.name!r})")
            active.append(index)


def _verify_parameters(schedule: Schedule, operations: Sequence[Operation]) -> None:
    """Each instruction's parameters fill their buffer, once, and have the checksum that the compiler found."""
    owners = [b for b in schedule.buffers if b.holds == "parameters"]
    held = {b.name: b for b in owners}
    require(len(held) == len(owners), "two buffers hold the parameters of one instruction")
    for index, operation in enumerate(operations):
        item, axis = operation.instruction, channel_axis(operation)
        cuts = (0, 0) if axis is None else schedule.cuts[index][axis]
        where = named(index, item)
        if layout.immediate(item):
            require(schedule.checksums[index] == 0, "it has a checksum and no parameters in memory", where)
            continue
        size = sum(layout.block_bytes(item, span, schedule.lanes) for span in layout.spans(item, cuts))
        buffer = held.pop(item.output, None)
        fits = buffer is not None and buffer.bytes == size and buffer.first == 0
        require(fits, f"no buffer of {size} bytes holds its parameters from the first step on", where)
        same = layout.checksum(item, cuts, schedule.lanes) == schedule.checksums[index]
        require(same, "its parameters do not have the checksum that they were compiled with", where)
    require(not held, f"no instruction has the parameters of {next(iter(held), None)!r}")


def _verify_estimates(program: Program, estimates: Estimates) -> None:
    """Every instruction belongs to one layer, every crossing to an input or output."""
    names = [layer.name for layer in estimates.layers]
    require(len(set(names)) == len(names), "two of its layers have one name")
    for index, item in enumerate(program.instructions):
        require(item.name in names, "no layer has its name", named(index, item))
    expected = {*program.inputs, *program.outputs}
    require(estimates.crossing_ms.keys() == expected, "its crossings are not those of its inputs and outputs")
    for layer in estimates.layers:
        longest = max(layer.compute_ms, layer.memory_ms)
        fits = layer.ms is None or longest <= layer.ms * (1 + 1e-9)
        require(fits, f"a part of it takes {longest} ms of {layer.ms}", f"layer {layer.name!r}")
