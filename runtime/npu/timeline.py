"""When each command of a program runs, from what the cost model says of its layers: an estimate, never a measurement.

The compiler asks the cost model (``pipeline.cost``) and writes its answer into the program; nothing is estimated a
second time here. A program takes its launch, its inputs over the border, its layers one after the other, and its
outputs over the border, so the timeline ends when the cost model's total says. Within the window of a layer each engine
works through its commands in order, evenly spread: a compute command is busy for its share of the layer's computing
time, a DMA command for its share, by bytes, of the layer's memory time; what is left of the window is its stall. A
command's bytes are those that the program moves; a layer's are the cost model's, with bursts, re-reads and compression.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from runtime.npu import layout
from runtime.npu.kernels import Operation
from runtime.npu.plain import operations
from runtime.npu.program import Program
from runtime.npu.schedule import PARAMETERS, WHOLE, Command, Estimates, LayerEstimate, Schedule
from runtime.npu.tiles import channel_axis, elements, need, regions, tensor_bytes

Engine = Literal["MAC", "vector", "DMA in", "DMA out"]

ENGINES: tuple[Engine, ...] = ("DMA in", "MAC", "vector", "DMA out")
MAC_OPCODES = layout.WEIGHTED | {"conv_transpose2d", "matmul"}
"""Opcodes that run on the MAC array; all others run on the vector engine."""


@dataclass(frozen=True)
class Event:
    """One command on its engine.

    Attributes:
        command: its index in the schedule; ``None`` for a crossing that no command of its own makes.
        engine: which of the four.
        layer: the layer that it belongs to; the tensor, of a crossing.
        what: ``load``, ``compute`` or ``store``, and of what.
        start_ms, end_ms: while it is busy.
        stall_ms: after that, until the next one of its layer may start: what the layer's bound makes it wait.
        bytes: that it moves; 0 for computing.
    """

    command: int | None
    engine: Engine
    layer: str
    what: str
    start_ms: float
    end_ms: float
    stall_ms: float
    bytes: int


@dataclass(frozen=True)
class Row:
    """One layer.

    Attributes:
        name: the graph node.
        opcodes: of its instructions.
        macs: multiply-accumulates of the mathematics.
        cycles, ms, bytes, energy_mj, bound, missing: as in ``LayerEstimate``.
        start_ms: where its window begins; ``None`` when a time before it is not known.
        utilization: MACs over what the array could do in that time, 0..1; ``None`` when it is not known.
        moved_bytes: what its load and store commands move.
        tiles: of all its instructions.
    """

    name: str
    opcodes: tuple[str, ...]
    macs: int
    cycles: float | None
    ms: float | None
    start_ms: float | None
    utilization: float | None
    bytes: Mapping[str, int]
    moved_bytes: int
    energy_mj: float | None
    bound: str
    tiles: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Timeline:
    """A program's rows and events.

    Attributes:
        rows: its layers in execution order.
        events: in order of start; empty when a layer's time is not known.
        launch_ms: to start it, 0 when that is not public.
        crossing_ms: of its inputs and outputs over the border, 0 where the link is not public.
        energy_mj: of all of it, launch and border included; ``None`` when a power is not public.
        provenance: of the estimate.
        missing: figures of the target that are not public and would have counted.
    """

    rows: tuple[Row, ...]
    events: tuple[Event, ...]
    launch_ms: float
    crossing_ms: float
    energy_mj: float | None
    provenance: str
    missing: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Sum over the rows."""
        return sum(row.macs for row in self.rows)

    @property
    def cycles(self) -> float | None:
        """Sum over the rows; ``None`` when one is not known."""
        return _sum([row.cycles for row in self.rows])

    @property
    def bytes(self) -> dict[str, int]:
        """By memory, summed over the rows."""
        total: dict[str, int] = {}
        for memory, count in itertools.chain.from_iterable(row.bytes.items() for row in self.rows):
            total[memory] = total.get(memory, 0) + count
        return total

    @property
    def ms(self) -> float | None:
        """Launch, crossings and all rows; ``None`` when one is not known."""
        rows = _sum([row.ms for row in self.rows])
        return None if rows is None else self.launch_ms + self.crossing_ms + rows


def timeline(program: Program) -> Timeline | None:
    """The timeline of a verified program, ``None`` when it carries no estimates."""
    schedule = program.schedule
    if schedule is None or schedule.estimates is None:
        return None
    builder = _Builder(program, schedule, schedule.estimates)
    rows = builder.rows()
    missing = dict.fromkeys(name for row in rows for name in row.missing)
    crossings = schedule.estimates.crossing_ms
    missing |= dict.fromkeys(["link_bytes_per_second"] if None in crossings.values() else [])
    missing |= dict.fromkeys(["launch_s"] if schedule.estimates.launch_ms is None else [])
    events = sorted(builder.events, key=lambda e: (e.start_ms, ENGINES.index(e.engine)))
    return Timeline(
        rows,
        tuple(events) if builder.known else (),
        schedule.estimates.launch_ms or 0.0,
        sum(ms or 0.0 for ms in crossings.values()),
        schedule.estimates.energy_mj,
        schedule.estimates.provenance,
        tuple(missing),
    )


@dataclass
class _Builder:
    """Lays windows out one after the other; ``known`` while no time was missing."""

    program: Program
    schedule: Schedule
    estimates: Estimates
    events: list[Event] = field(default_factory=list)
    known: bool = True
    now: float = 0.0

    def __post_init__(self) -> None:
        self.operations = operations(self.program)
        self.tiles = [regions(cuts) for cuts in self.schedule.cuts]
        self.of_layer: dict[str, list[tuple[int, Command]]] = {}
        self.crossing: dict[str, tuple[int, Command]] = {}
        for index, command in enumerate(self.schedule.commands):
            item = self.operations[command.instruction].instruction
            if command.kind != "compute" and command.tile == WHOLE:
                name = item.inputs[command.operand] if command.kind == "load" else item.output
                self.crossing[name] = (index, command)
            else:
                self.of_layer.setdefault(item.name, []).append((index, command))

    def rows(self) -> tuple[Row, ...]:
        """All layers; fills ``events`` on the way."""
        self.now = self.estimates.launch_ms or 0.0
        for name in self.program.inputs:
            self._cross(name, "DMA in", "load")
        rows = tuple(self._row(layer) for layer in self.estimates.layers)
        for name in self.program.outputs:
            self._cross(name, "DMA out", "store")
        return rows

    def _cross(self, name: str, engine: Engine, kind: str) -> None:
        """A tensor over the border, by the command that moves all of it, if there is one."""
        spent = self.estimates.crossing_ms[name] or 0.0
        size = next(tensor_bytes(spec) for spec in self.program.tensors if spec.name == name)
        command = self.crossing.get(name, (None, None))[0]
        self.events.append(Event(command, engine, name, f"{kind} {name}", self.now, self.now + spent, 0.0, size))
        self.now += spent

    def _row(self, layer: LayerEstimate) -> Row:
        commands = self.of_layer.get(layer.name, [])
        used = sorted({c.instruction for _, c in commands})
        moved = {index: self._bytes(command) for index, command in commands}
        start = self.now if self.known else None
        if layer.ms is None:
            self.known = False
        else:
            self._window(layer, commands, moved)
            self.now += layer.ms
        return Row(
            name=layer.name,
            opcodes=tuple(dict.fromkeys(self.operations[i].instruction.opcode for i in used)),
            macs=layer.macs,
            cycles=layer.cycles,
            ms=layer.ms,
            start_ms=start,
            utilization=self._utilization(layer),
            bytes=layer.bytes,
            moved_bytes=sum(moved.values()),
            energy_mj=layer.energy_mj,
            bound=layer.bound,
            tiles=sum(len(self.tiles[i]) for i in used),
            missing=layer.missing,
        )

    def _utilization(self, layer: LayerEstimate) -> float | None:
        peak = self.program.device.get("macs_per_cycle", 0.0) * self.program.device.get("clock_hz", 0.0)
        return layer.macs / (peak * layer.ms / 1e3) if peak > 0 and layer.ms else None

    def _window(self, layer: LayerEstimate, commands: Sequence[tuple[int, Command]], moved: Mapping[int, int]) -> None:
        """Spread each engine's commands over the layer's window."""
        total = sum(moved.values()) or 1
        work = {index: self._work(command) for index, command in commands if command.kind == "compute"}
        whole = sum(work.values()) or 1
        for engine in ENGINES:
            own = [(i, c) for i, c in commands if self._engine(c) == engine]
            shares = [work[i] / whole if c.kind == "compute" else moved[i] / total for i, c in own]
            sum_of_shares, at = sum(shares), self.now
            for (index, command), share in zip(own, shares, strict=True):
                slot = (layer.ms or 0.0) * (share / sum_of_shares if sum_of_shares else 0.0)
                busy = min(slot, share * (layer.compute_ms if command.kind == "compute" else layer.memory_ms))
                what = f"{command.kind} {self._what(command)}"
                self.events.append(Event(index, engine, layer.name, what, at, at + busy, slot - busy, moved[index]))
                at += slot

    def _engine(self, command: Command) -> Engine:
        if command.kind == "compute":
            opcode = self.operations[command.instruction].instruction.opcode
            return "MAC" if opcode in MAC_OPCODES else "vector"
        return "DMA in" if command.kind == "load" else "DMA out"

    def _what(self, command: Command) -> str:
        item = self.operations[command.instruction].instruction
        if command.kind == "load":
            name = "parameters" if command.operand == PARAMETERS else item.inputs[command.operand]
        else:
            name = item.opcode if command.kind == "compute" else item.output
        return f"{name}, tile {command.tile + 1} of {len(self.tiles[command.instruction])}"

    def _work(self, command: Command) -> int:
        """What a tile's share of the layer's computing is measured by: its elements, times the products of each."""
        operation, region = self.operations[command.instruction], self.tiles[command.instruction][command.tile]
        return elements(region) * _products(operation)

    def _bytes(self, command: Command) -> int:
        """What a load or store moves."""
        if command.kind == "compute":
            return 0
        operation, region = self.operations[command.instruction], self.tiles[command.instruction][command.tile]
        if command.kind == "store":
            return tensor_bytes(operation.output, region)
        if command.operand == PARAMETERS:
            axis = channel_axis(operation)
            span = (0, 0) if axis is None else region[axis]
            return layout.block_bytes(operation.instruction, span, self.schedule.lanes)
        return tensor_bytes(operation.inputs[command.operand], need(operation, region).inputs[command.operand])


def _products(operation: Operation) -> int:
    weight = operation.instruction.constants.get("weight")
    return 1 if weight is None else max(1, weight.size // len(weight))


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
