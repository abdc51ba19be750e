"""From instructions to commands: what is loaded, computed and stored in which step, and which bytes are live when."""

from collections.abc import Collection
from dataclasses import dataclass, field

from pipeline.compile.allocate import Block
from pipeline.compile.tiling import OUTPUT, Tiling, choose
from runtime.npu import layout
from runtime.npu.kernels import Operation
from runtime.npu.program import Program
from runtime.npu.schedule import NONE, PARAMETERS, WHOLE, Command, Holds
from runtime.npu.tiles import IN_PLACE, Cuts, channel_axis, need, regions, tensor_bytes

SRAM = 0
BLOCKS = OUTPUT - 1
"""Stands for the parameters among what has slots."""


@dataclass
class Room:
    """A buffer without an address yet; ``first`` and ``last`` grow with every step that touches it."""

    name: str
    holds: Holds
    memory: int
    bytes: int
    first: int
    last: int

    def touch(self, *steps: int) -> None:
        """It is used in ``steps``."""
        self.first, self.last = min(self.first, *steps), max(self.last, *steps)


@dataclass(frozen=True)
class Places:
    """Where things go: the memories' indices, what stays outside, which instructions' parameters stay on the chip."""

    outside: int
    cache: int | None
    lanes: int
    budget: int
    spilled: Collection[str]
    cached: Collection[int]


@dataclass
class Draft:
    """Commands and buffers of a program, before addresses."""

    program: Program
    operations: tuple[Operation, ...]
    places: Places
    rooms: list[Room] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    cuts: list[Cuts] = field(default_factory=list)
    inside: dict[str, int] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)
    ready: dict[int, int] = field(default_factory=dict)
    in_place: dict[int, int] = field(default_factory=dict)
    step: int = -1
    """The last step in which something is computed."""

    def room(self, name: str, holds: Holds, memory: int, size: int, step: int) -> int:
        """A new buffer; its index."""
        self.rooms.append(Room(name, holds, memory, size, step, step))
        return len(self.rooms) - 1

    def touch(self, step: int, *rooms: int) -> None:
        """The buffers are used in ``step``."""
        for room in rooms:
            if room != NONE:
                self.rooms[room].touch(step)

    def live(self, memory: int) -> tuple[list[list[int]], list[Block]]:
        """The blocks of a memory, each with the buffers that share it because they are computed in place."""
        groups: dict[int, list[int]] = {}
        for index, room in enumerate(self.rooms):
            if room.memory == memory:
                groups.setdefault(self._root(index), []).append(index)
        members = list(groups.values())
        spans = [[self.rooms[i] for i in group] for group in members]
        return members, [Block(s[0].bytes, min(r.first for r in s), max(r.last for r in s)) for s in spans]

    def _root(self, room: int) -> int:
        while room in self.in_place:
            room = self.in_place[room]
        return room


def draft(program: Program, operations: tuple[Operation, ...], places: Places) -> Draft:
    """All commands of ``program``."""
    made = Draft(program, operations, places)
    sizes = {spec.name: tensor_bytes(spec) for spec in program.tensors}
    for name in program.inputs:
        made.outside[name] = made.room(name, "tensor", places.outside, sizes[name], 0)
        made.ready[made.outside[name]] = -1
    for index in range(len(operations)):
        _Instruction(made, index).emit()
    for name in program.outputs:
        made.touch(_end(made), made.outside[name])
    for room in made.rooms:
        if room.holds == "parameters":
            room.touch(0, _end(made))
    _find_in_place(made)
    made.commands.sort(key=lambda c: (c.step, ("load", "compute", "store").index(c.kind), c.instruction, c.tile))
    return made


def _end(made: Draft) -> int:
    return max((c.step for c in made.commands), default=0)


def _find_in_place(made: Draft) -> None:
    """Results that may lie where an operand of the same size lies that nobody else reads then or later."""
    taken: set[int] = set()
    stored = {(command.source, command.step) for command in made.commands if command.kind == "store"}
    for command in made.commands:
        if command.kind != "compute" or made.operations[command.instruction].instruction.opcode not in IN_PLACE:
            continue
        result = made.rooms[command.target]
        for operand in command.operands:
            room = made.rooms[operand]
            same = room.memory == result.memory == SRAM and room.holds == result.holds == "tensor"
            dies = room.bytes == result.bytes and room.last == result.first == command.step
            free = operand not in taken and (operand, command.step) not in stored
            if same and dies and free:
                made.in_place[command.target] = operand
                taken.add(operand)
                break


class _Instruction:
    """Emits the commands of one instruction."""

    def __init__(self, made: Draft, index: int) -> None:
        self.made, self.index, self.operation = made, index, made.operations[index]
        item, places = self.operation.instruction, made.places
        self.spills = item.output in places.spilled
        immediate = layout.immediate(item)
        self.fetches = not immediate and index not in places.cached
        for name in item.inputs:
            self._bring(name)
        streamed = {j for j, name in enumerate(item.inputs) if name not in made.inside}
        streamed |= {OUTPUT} if self.spills else set()
        self.tiling: Tiling = choose(self.operation, streamed, self.fetches, places.lanes, places.budget)
        self.slots: dict[tuple[int, int], int] = {}
        self.tiles = [(region, need(self.operation, region)) for region in regions(self.tiling.cuts)]
        self.parameters = NONE if immediate else self._parameters()
        made.cuts.append(self.tiling.cuts)

    def _bring(self, name: str) -> None:
        """Load an input of the program into the chip when it is first read, unless it stays outside."""
        made = self.made
        if name in made.inside or name in made.places.spilled or name not in made.program.inputs:
            return
        source = made.outside[name]
        step = max(made.step, made.ready[source] + 1, 0)
        target = made.room(name, "tensor", SRAM, made.rooms[source].bytes, step)
        operand = self.operation.instruction.inputs.index(name)
        made.commands.append(Command("load", step, self.index, WHOLE, operand, source, target))
        made.touch(step, source)
        made.inside[name], made.ready[target] = target, step

    def _parameters(self) -> int:
        """The buffer with all parameters of the instruction."""
        made, item, lanes = self.made, self.operation.instruction, self.made.places.lanes
        blocks = layout.spans(item, self._channels())
        size = sum(layout.block_bytes(item, span, lanes) for span in blocks)
        cached = self.index in made.places.cached and made.places.cache is not None
        memory = made.places.cache if cached and made.places.cache is not None else made.places.outside
        return made.room(item.output, "parameters", memory, size, 0)

    def _channels(self) -> tuple[int, ...]:
        axis = channel_axis(self.operation)
        return (0, 0) if axis is None else self.tiling.cuts[axis]

    def emit(self) -> None:
        """All tiles, then the whole result to the outside where the program gives it away."""
        loaded = (0, 0)
        for tile, (region, _) in enumerate(self.tiles):
            axis = channel_axis(self.operation)
            span = (0, 0) if axis is None else region[axis]
            fetch = self.fetches and not self.tiling.direct_parameters and (tile == 0 or span != loaded)
            self._tile(tile, span if fetch else None)
            loaded = span
        self._finish()

    def _tile(self, tile: int, span: tuple[int, int] | None) -> None:
        """Load what is streamed one step before it is computed; store the result one step after, if it goes outside."""
        made, item = self.made, self.operation.instruction
        moves = [j for j in range(len(item.inputs)) if self._streams(j)]
        compute = made.step + 1
        sources = [self._home(name) for name in item.inputs]
        compute = max([compute, *(made.ready[s] + 1 for s in sources)])
        if moves or span is not None:
            load = max([compute - 1, 0, *(made.ready[sources[j]] + 1 for j in moves)])
            compute = max(compute, load + 1)
            for j in moves:
                slot = self._slot(j, tile, load)
                self._load(tile, j, load, sources[j], slot)
            if span is not None:
                number = self._channels().index(span[0])
                slot = self._slot(BLOCKS, number, load)
                self._load(tile, PARAMETERS, load, self.parameters, slot)
                self.held = slot
        operands = tuple(self.slots[j, tile % 2] if self._streams(j) else source for j, source in enumerate(sources))
        parameters = self.held if self.fetches and not self.tiling.direct_parameters else self.parameters
        target = self._target(tile, compute)
        made.touch(compute, *operands, parameters, target)
        made.commands.append(
            Command("compute", compute, self.index, tile, target=target, operands=operands, parameters=parameters)
        )
        made.step = compute
        if self.spills and OUTPUT not in self.tiling.direct:
            self._store(tile, target, compute + 1)

    def _streams(self, operand: int) -> bool:
        name = self.operation.instruction.inputs[operand]
        return name not in self.made.inside and operand not in self.tiling.direct

    def _home(self, name: str) -> int:
        return self.made.inside[name] if name in self.made.inside else self.made.outside[name]

    def _largest(self, role: int, turn: int) -> int:
        """Bytes of the largest tile of an input, of the output, or of the parameters, among every other one."""
        if role == BLOCKS:
            item, lanes = self.operation.instruction, self.made.places.lanes
            spans = layout.spans(item, self._channels())[turn::2]
            return max(layout.block_bytes(item, span, lanes) for span in spans)
        some = self.tiles[turn::2]
        if role == OUTPUT:
            return max(tensor_bytes(self.operation.output, region) for region, _ in some)
        return max(tensor_bytes(self.operation.inputs[role], needed.inputs[role]) for _, needed in some)

    def _slot(self, role: int, number: int, step: int) -> int:
        """The slot for tile ``number``: there are two, which take turns."""
        key = (role, number % 2)
        if key not in self.slots:
            holds: Holds = "parameter tile" if role == BLOCKS else "tile"
            name, size = self.operation.instruction.output, self._largest(role, number % 2)
            self.slots[key] = self.made.room(name, holds, SRAM, size, step)
        return self.slots[key]

    def _load(self, tile: int, operand: int, step: int, source: int, slot: int) -> None:
        self.made.commands.append(Command("load", step, self.index, tile, operand, source, slot))
        self.made.touch(step, source, slot)

    def _target(self, tile: int, step: int) -> int:
        """The buffer into which a tile is computed."""
        made, name = self.made, self.operation.instruction.output
        size = tensor_bytes(self.operation.output)
        if (self.spills or name in made.program.outputs) and name not in made.outside:
            made.outside[name] = made.room(name, "tensor", made.places.outside, size, step)
        if self.spills:
            if OUTPUT in self.tiling.direct:
                return made.outside[name]
            return self._slot(OUTPUT, tile, step)
        if name not in made.inside:
            made.inside[name] = made.room(name, "tensor", SRAM, size, step)
        return made.inside[name]

    def _store(self, tile: int, source: int, step: int) -> None:
        made = self.made
        target = made.outside[self.operation.instruction.output]
        made.commands.append(Command("store", step, self.index, tile, source=source, target=target))
        made.touch(step, source, target)
        made.ready[target] = step

    def _finish(self) -> None:
        made, name = self.made, self.operation.instruction.output
        if not self.spills:
            made.ready[made.inside[name]] = made.step
            if name in made.program.outputs:
                self._store(WHOLE, made.inside[name], made.step + 1)
        elif OUTPUT in self.tiling.direct:
            made.ready[made.outside[name]] = made.step
