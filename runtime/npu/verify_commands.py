"""Follows a schedule's commands and keeps account of what each buffer holds.

A schedule that passes computes what the instructions say, tile by tile: nothing is read before it was written, a slot
is not written while it is read, every tile is computed once and in order, and the outputs are outside at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from runtime.errors import ProgramError
from runtime.npu import layout
from runtime.npu.kernels import Operation
from runtime.npu.needs import Need, Region
from runtime.npu.program import Instruction, Program
from runtime.npu.schedule import NONE, PARAMETERS, WHOLE, Buffer, Command, Schedule
from runtime.npu.tiles import IN_PLACE, channel_axis, tensor_bytes

MAX_COMMANDS = 1 << 16
MAX_STEPS = 1 << 20


def require(condition: bool, what: str, where: str | None = None) -> None:
    """Raise ``ProgramError(what)`` unless ``condition`` holds."""
    if not condition:
        raise ProgramError(what, where=where, fix="compile the program again")


@dataclass
class _Account:
    """What the buffers hold while the commands are followed.

    Attributes:
        tiles: the tiles of each instruction, and what each needs.
        sizes: bytes of each tensor.
        done: for each buffer with a whole tensor, how many of its bytes were written, and in which step last.
        holds: for each slot, what it holds and since which step.
        used: for each slot, the most bytes that were written into it.
        writes: for each buffer, the last step that wrote it; ``reads``: that read it.
        computed: tiles of each instruction that were computed.
        in_place: operand and result that may share their bytes, with their step.
    """

    program: Program
    schedule: Schedule
    operations: Sequence[Operation]
    tiles: list[list[tuple[Region, Need]]]
    sizes: dict[str, int]
    done: dict[int, tuple[int, int]] = field(default_factory=dict)
    holds: dict[int, tuple[object, int]] = field(default_factory=dict)
    used: dict[int, int] = field(default_factory=dict)
    writes: dict[int, int] = field(default_factory=dict)
    reads: dict[int, int] = field(default_factory=dict)
    computed: dict[int, int] = field(default_factory=dict)
    in_place: set[tuple[int, int, int]] = field(default_factory=set)


def follow(
    program: Program, operations: Sequence[Operation], tiles: list[list[tuple[Region, Need]]], sizes: dict[str, int]
) -> set[tuple[int, int]]:
    """Check every command; give the pairs of buffers that may share their bytes, for one is computed in place.

    Args:
        program: with a schedule whose buffers are verified.
        operations: its instructions.
        tiles: of each, with what each tile needs.
        sizes: bytes of each tensor.

    Raises:
        ProgramError: the first rule that is broken; the message names the command.
    """
    if program.schedule is None:
        return set()
    account = _Account(program, program.schedule, operations, tiles, sizes)
    _verify_inputs(account)
    _follow(account)
    _verify_end(account)
    return _in_place(account)


def _verify_inputs(account: _Account) -> None:
    """The program's inputs lie outside of the chip before the first step."""
    outside = len(account.schedule.memories) - 1
    for name in account.program.inputs:
        found = [
            i
            for i, b in enumerate(account.schedule.buffers)
            if (b.name, b.holds, b.memory) == (name, "tensor", outside)
        ]
        require(len(found) == 1, f"{len(found)} buffers outside of the chip hold it, one must", f"input {name!r}")
        index = found[0]
        require(account.schedule.buffers[index].first == 0, "its buffer is not live from step 0", f"input {name!r}")
        account.done[index] = (account.sizes[name], -1)


def _follow(account: _Account) -> None:
    commands = account.schedule.commands
    require(len(commands) <= MAX_COMMANDS, f"it has more than {MAX_COMMANDS} commands")
    step, checks = 0, {"load": _load, "compute": _compute, "store": _store}
    for index, command in enumerate(commands):
        count = len(account.operations)
        require(0 <= command.instruction < count, f"there is no instruction {command.instruction}", f"command {index}")
        item = account.operations[command.instruction].instruction
        where = f"command {index} ({command.kind} of tile {command.tile} of {named(command.instruction, item)})"
        try:
            require(step <= command.step < MAX_STEPS, f"step {command.step} comes after step {step}")
            step = command.step
            whole, tiles = command.tile == WHOLE, len(account.tiles[command.instruction])
            require(0 <= command.tile < tiles or (whole and command.kind != "compute"), f"it has {tiles} tiles")
            checks[command.kind](account, command)
        except ProgramError as error:
            raise ProgramError(error.what, where=where, fix=error.fix) from error


def _buffer(account: _Account, index: int, step: int) -> Buffer:
    require(0 <= index < len(account.schedule.buffers), f"there is no buffer {index}")
    buffer = account.schedule.buffers[index]
    live = buffer.first <= step <= buffer.last
    require(live, f"buffer {index} is live in steps {buffer.first} to {buffer.last}, not in step {step}")
    return buffer


def _write(account: _Account, index: int, step: int) -> None:
    """A slot must not be written in a step that reads it, nor twice in one step."""
    require(account.reads.get(index, -1) < step, f"buffer {index} is written in a step that reads it")
    require(account.writes.get(index, -1) < step, f"buffer {index} is written twice in step {step}")
    account.writes[index] = step


def _complete(account: _Account, index: int, name: str, step: int) -> None:
    """A buffer must hold the whole tensor ``name``, written before ``step``."""
    buffer = _buffer(account, index, step)
    require(
        (buffer.name, buffer.holds) == (name, "tensor"),
        f"buffer {index} holds {buffer.holds} {buffer.name!r}, not {name!r}",
    )
    written, last = account.done.get(index, (0, -1))
    ready = written == account.sizes[name] and last < step
    require(ready, f"it reads {name!r} in buffer {index} before all of it was written")
    account.reads[index] = step


def _put(account: _Account, index: int, name: str, amount: int, step: int) -> None:
    """Write ``amount`` bytes of the tensor ``name`` into a buffer for all of it."""
    buffer = _buffer(account, index, step)
    require(
        (buffer.name, buffer.holds) == (name, "tensor"),
        f"buffer {index} holds {buffer.holds} {buffer.name!r}, not {name!r}",
    )
    size = account.sizes[name]
    require(buffer.bytes == size, f"buffer {index} has {buffer.bytes} bytes, {name!r} has {size}")
    _write(account, index, step)
    written = account.done.get(index, (0, -1))[0] + amount
    require(written <= size, f"it writes {name!r} into buffer {index} more than once")
    account.done[index] = (written, step)


def _slot(account: _Account, index: int, step: int, holds: str, size: int, content: object) -> None:
    """Write a tile into a slot."""
    buffer = _buffer(account, index, step)
    require(buffer.holds == holds, f"buffer {index} holds a {buffer.holds}, not a {holds}")
    require(size <= buffer.bytes, f"it writes {size} bytes into buffer {index}, which has {buffer.bytes}")
    _write(account, index, step)
    account.holds[index] = (content, step)
    account.used[index] = max(account.used.get(index, 0), size)


def _held(account: _Account, index: int, step: int, content: object, what: str) -> None:
    """A slot must hold ``content``, written before ``step``."""
    _buffer(account, index, step)
    found, since = account.holds.get(index, (None, step))
    require(found == content and since < step, f"buffer {index} does not hold {what}")
    account.reads[index] = step


def _load(account: _Account, command: Command) -> None:
    operation, step = account.operations[command.instruction], command.step
    item = operation.instruction
    if command.operand == PARAMETERS:
        require(command.tile != WHOLE, "parameters are loaded by tile")
        span = _span(account, command)
        source = _buffer(account, command.source, step)
        require(
            (source.name, source.holds) == (item.output, "parameters"),
            f"buffer {command.source} does not hold its parameters",
        )
        size = layout.block_bytes(item, span, account.schedule.lanes)
        _slot(account, command.target, step, "parameter tile", size, (PARAMETERS, command.instruction, span))
        return
    require(0 <= command.operand < len(item.inputs), f"there is no input {command.operand}")
    name = item.inputs[command.operand]
    _complete(account, command.source, name, step)
    if command.tile == WHOLE:
        _put(account, command.target, name, account.sizes[name], step)
        return
    part = account.tiles[command.instruction][command.tile][1].inputs[command.operand]
    _slot(account, command.target, step, "tile", tensor_bytes(operation.inputs[command.operand], part), (name, part))


def _compute(account: _Account, command: Command) -> None:
    operation, step = account.operations[command.instruction], command.step
    item, (region, needed) = operation.instruction, account.tiles[command.instruction][command.tile]
    expected = account.computed.get(command.instruction, 0)
    require(command.tile == expected, f"tile {expected} comes next")
    require(command.instruction == 0 or _finished(account, command.instruction - 1), "the one before is not finished")
    account.computed[command.instruction] = expected + 1
    require(len(command.operands) == len(item.inputs), f"it reads {len(command.operands)} of {len(item.inputs)} inputs")
    for index, name, part in zip(command.operands, item.inputs, needed.inputs, strict=True):
        if _buffer(account, index, step).holds == "tensor":
            _complete(account, index, name, step)
        else:
            _held(account, index, step, (name, part), f"the part {part} of {name!r}")
    _verify_its_parameters(account, command)
    target = _buffer(account, command.target, step)
    if target.holds == "tensor":
        _put_in_place(account, command)
        _put(account, command.target, item.output, tensor_bytes(operation.output, region), step)
    else:
        _slot(account, command.target, step, "tile", tensor_bytes(operation.output, region), (item.output, region))


def _verify_its_parameters(account: _Account, command: Command) -> None:
    item = account.operations[command.instruction].instruction
    if layout.immediate(item):
        require(command.parameters == NONE, "its parameters are in the command, not in a buffer")
        return
    buffer = _buffer(account, command.parameters, command.step)
    if buffer.holds == "parameters":
        require(buffer.name == item.output, f"buffer {command.parameters} does not hold its parameters")
        account.reads[command.parameters] = command.step
    else:
        content = (PARAMETERS, command.instruction, _span(account, command))
        _held(account, command.parameters, command.step, content, "its parameters")


def _put_in_place(account: _Account, command: Command) -> None:
    """Note which operands may share their bytes with the result: of an instruction that runs whole."""
    item = account.operations[command.instruction].instruction
    target = account.schedule.buffers[command.target]
    if item.opcode in IN_PLACE and len(account.tiles[command.instruction]) == 1:
        for index in command.operands:
            operand = account.schedule.buffers[index]
            same = (operand.memory, operand.address, operand.bytes) == (target.memory, target.address, target.bytes)
            if same and operand.last == target.first == command.step and index != command.target:
                account.in_place.add((index, command.target, command.step))


def _in_place(account: _Account) -> set[tuple[int, int]]:
    """Pairs of buffers that may share their bytes: none but the command that writes the one reads the other then."""
    readers: dict[tuple[int, int], int] = {}
    for command in account.schedule.commands:
        for index in {command.source, *command.operands}:
            readers[index, command.step] = readers.get((index, command.step), 0) + 1
    alone = [(a, b) for a, b, step in account.in_place if readers[a, step] == 1]
    return {(min(pair), max(pair)) for pair in alone}


def _store(account: _Account, command: Command) -> None:
    operation, step = account.operations[command.instruction], command.step
    name = operation.instruction.output
    if command.tile == WHOLE:
        _complete(account, command.source, name, step)
        _put(account, command.target, name, account.sizes[name], step)
        return
    region = account.tiles[command.instruction][command.tile][0]
    _held(account, command.source, step, (name, region), f"the part {region} of {name!r}")
    _put(account, command.target, name, tensor_bytes(operation.output, region), step)


def _verify_end(account: _Account) -> None:
    for index, operation in enumerate(account.operations):
        require(_finished(account, index), "not all of its tiles are computed", named(index, operation.instruction))
    outside, last = len(account.schedule.memories) - 1, account.schedule.steps - 1
    for name in account.program.outputs:
        whole = [
            i
            for i, b in enumerate(account.schedule.buffers)
            if (b.name, b.holds, b.memory) == (name, "tensor", outside) and b.last >= last
        ]
        ready = len(whole) == 1 and account.done.get(whole[0], (0, 0))[0] == account.sizes[name]
        require(ready, "it is not outside of the chip at the end", f"output {name!r}")
    for index, buffer in enumerate(account.schedule.buffers):
        if buffer.holds in ("tile", "parameter tile"):
            used, where = account.used.get(index, 0), f"buffer {index} ({buffer.holds} {buffer.name!r})"
            require(buffer.bytes == used, f"it has {buffer.bytes} bytes and never holds more than {used}", where)
        elif buffer.holds == "tensor":
            written = account.done.get(index, (0, 0))[0]
            require(written == buffer.bytes, f"{written} of its {buffer.bytes} bytes are written", f"buffer {index}")


def _span(account: _Account, command: Command) -> tuple[int, int]:
    """The output channels of the parameters that a tile needs."""
    operation = account.operations[command.instruction]
    axis = channel_axis(operation)
    return (0, 0) if axis is None else account.tiles[command.instruction][command.tile][0][axis]


def _finished(account: _Account, instruction: int) -> bool:
    return account.computed.get(instruction, 0) == len(account.tiles[instruction])


def named(index: int, instruction: Instruction) -> str:
    """An instruction for messages."""
    return f"instruction {index} ({instruction.opcode} {instruction.name!r})"
