"""A schedule: where a program's bytes lie, in which tiles its instructions run, and the commands of its four engines.

Time is counted in steps. In one step the four engines (DMA in, MAC, vector, DMA out) work at once on different tiles:
while tile i is computed, tile i + 1 is loaded and tile i - 1 stored, so every tile slot exists twice (double
buffering). A buffer is live from the first to the last step that touches it, both included; buffers of one memory that
are live in the same step do not overlap, except a result that is computed in place of its dying operand.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["load", "compute", "store"]
Holds = Literal["tensor", "tile", "parameters", "parameter tile"]

WHOLE = -1
"""The tile of a command that moves a whole tensor."""
PARAMETERS = -1
"""The operand of a load that brings an instruction's parameters."""
NONE = -1
"""No buffer: a compute command whose few parameters are in the command itself."""
ALIGNMENT = 16
"""Bytes that every address is a multiple of."""
IMMEDIATE_BYTES = 64
"""An instruction with at most so many bytes of constants carries them in its commands."""


@dataclass(frozen=True)
class Memory:
    """A memory of the target.

    Attributes:
        name: ``sram`` on the chip, ``cache`` for parameters that stay on the chip, ``dram`` outside of it.
        bytes: its size.
        assumed: whether the size is this project's assumption, for none is public.
        ecc: whether the memory notices flipped bits.
    """

    name: str
    bytes: int
    assumed: bool = False
    ecc: bool = False


@dataclass(frozen=True)
class Buffer:
    """Bytes of a memory that hold one thing while they are live.

    Attributes:
        name: the tensor, or the tensor that the instruction writes whose tiles or parameters it holds.
        holds: a whole ``tensor``, a ``tile`` of one, all ``parameters`` of an instruction, or a ``parameter tile``.
        memory: index of its memory.
        address: first byte.
        bytes: how many.
        first: first step that touches it.
        last: last step that touches it.
    """

    name: str
    holds: Holds
    memory: int
    address: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Command:
    """What one engine does in one step.

    Attributes:
        kind: ``load`` (DMA in), ``compute`` (MAC or vector, by the opcode) or ``store`` (DMA out).
        step: when.
        instruction: for which instruction; a load's is one that reads what is loaded, a store's wrote it.
        tile: which tile of it, or ``WHOLE``.
        operand: of a load: which input, or ``PARAMETERS``.
        source: of a load or store: the buffer that it reads.
        target: the buffer that it writes.
        operands: of a compute command: the buffer of each input.
        parameters: of a compute command: the buffer of its parameters, or ``NONE``.
    """

    kind: Kind
    step: int
    instruction: int
    tile: int
    operand: int = 0
    source: int = NONE
    target: int = NONE
    operands: tuple[int, ...] = ()
    parameters: int = NONE


@dataclass(frozen=True)
class LayerEstimate:
    """What the cost model says of one layer: the instructions that were compiled from one graph node.

    Attributes:
        name: of the node, and of its instructions.
        macs: multiply-accumulates of the mathematics.
        cycles: of the NPU's clock; ``None`` when a figure for them is not public.
        ms: milliseconds, likewise.
        compute_ms: of them, how long the MAC or vector engine is busy.
        memory_ms: of them, how long the slowest memory is busy.
        bytes: moved, by memory, with the bursts, re-reads and compression that the cost model counts.
        bound: what limits it.
        energy_mj: millijoules; ``None`` when the power is not public.
        missing: figures that are not public and would have counted.
    """

    name: str
    macs: int
    cycles: float | None
    ms: float | None
    compute_ms: float
    memory_ms: float
    bytes: Mapping[str, int]
    bound: str
    energy_mj: float | None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimates:
    """What the cost model says of a program.

    Attributes:
        provenance: ``a priori``, ``fitted`` or ``held out``.
        layers: in execution order.
        crossing_ms: for each input and output, milliseconds over the border; ``None`` when the link is not public.
        launch_ms: to start the program; ``None`` when not public.
        energy_mj: of all of it, launch and border included; ``None`` when a power is not public.
    """

    provenance: str
    layers: tuple[LayerEstimate, ...]
    crossing_ms: Mapping[str, float | None]
    launch_ms: float | None
    energy_mj: float | None = None


@dataclass(frozen=True)
class Schedule:
    """The schedule of a program.

    Attributes:
        memories: of the target; the last is outside of the chip and holds the program's inputs and outputs.
        lanes: output channels that weights are interleaved by, see ``runtime.npu.layout``.
        cuts: for each instruction, for each axis of its output, where it is cut: 0, ..., the size. Its tiles are the
            product of the pieces, the last axis fastest.
        buffers: in no particular order.
        commands: by step.
        checksums: CRC-32 of each instruction's parameters as they lie in memory; 0 without.
        estimates: what the cost model says, ``None`` when nobody asked it.
    """

    memories: tuple[Memory, ...]
    lanes: int
    cuts: tuple[tuple[tuple[int, ...], ...], ...]
    buffers: tuple[Buffer, ...]
    commands: tuple[Command, ...]
    checksums: tuple[int, ...]
    estimates: Estimates | None = field(default=None)

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return 1 + max((command.step for command in self.commands), default=-1)

    def peak(self, memory: int) -> int:
        """Bytes of ``memory`` that the plan reaches to: the highest end of a buffer."""
        return max((b.address + b.bytes for b in self.buffers if b.memory == memory), default=0)

    def spilled(self) -> tuple[str, ...]:
        """Tensors that lie outside of the chip for want of room, inputs and outputs among them."""
        inside = {b.name for b in self.buffers if b.holds == "tensor" and b.memory == 0}
        found = {b.name: None for b in self.buffers if b.holds == "tensor" and b.memory == len(self.memories) - 1}
        return tuple(name for name in found if name not in inside)

    def unstaged(self) -> tuple[int, ...]:
        """Instructions that compute on bytes outside of the chip, for not even their tiles have room on it."""
        outside = {i for i, b in enumerate(self.buffers) if b.memory == len(self.memories) - 1}
        computing = [c for c in self.commands if c.kind == "compute"]
        return tuple(sorted({c.instruction for c in computing if outside & {*c.operands, c.parameters, c.target}}))
