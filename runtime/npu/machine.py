"""A machine that carries a schedule out to the letter: its memories are bytes, its commands move and compute tiles.

It computes with the plain kernels, one tile at a time, on what lies in its memories at the planned addresses, so that a
wrong plan or a flipped bit shows in the output. It is slow; ``runtime.npu.device`` gives the same bytes sooner.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ProgramError
from runtime.npu import layout
from runtime.npu.kernels import KERNELS, Operation, Values
from runtime.npu.needs import Need, Region
from runtime.npu.plain import operations
from runtime.npu.program import Program
from runtime.npu.schedule import NONE, PARAMETERS, WHOLE, Buffer, Command, Schedule
from runtime.npu.tiles import channel_axis, cut, index, need, regions, size, tensor_bytes
from runtime.tensors import TensorSpec

Bytes = NDArray[np.uint8]


INDICES = tuple((name + end, axis) for name, axis in (("rows", 2), ("columns", 3)) for end in ("", "_low", "_high"))
"""Constants that point into an input, and along which axis."""


@dataclass(frozen=True)
class Flip:
    """A bit that changes on its own.

    Attributes:
        memory: index of the memory.
        address: of the byte.
        bit: 0 to 7.
        step: just before which it happens; after the program's parameters were put into memory.
    """

    memory: int
    address: int
    bit: int
    step: int


class HardwareError(Exception):
    """What the hardware itself notices: a flipped bit in a memory with error detection, an index out of its range."""


class Machine:
    """The memories of a target with a program's parameters in them."""

    def __init__(self, program: Program) -> None:
        """Lay out the parameters of a verified program.

        Raises:
            ProgramError: the program has no schedule.
        """
        if program.schedule is None:
            raise ProgramError("has no schedule to carry out", fix="compile the program again")
        self.program = program
        self._schedule: Schedule = program.schedule
        self._operations = operations(program)
        self._tiles = [regions(cuts) for cuts in self._schedule.cuts]
        self._blocks = [self._offsets(i) for i in range(len(self._operations))]
        self._images = self._parameters()

    def run(self, tensors: Mapping[str, Values], flips: tuple[Flip, ...] = ()) -> dict[str, Values]:
        """The outputs for ``tensors``, one for each input, with ``flips`` on the way.

        Raises:
            ProgramError: an accumulator leaves int32.
            HardwareError: a flipped bit is read from a memory with error detection, or made an index leave its tensor.
        """
        memories = [np.zeros(self._schedule.peak(i), np.uint8) for i in range(len(self._schedule.memories))]
        for buffer, image in self._images:
            _view(memories, buffer)[:] = image
        run = _Run(self._schedule, memories, flips)
        outside = len(memories) - 1
        for name, value in tensors.items():
            run.write(self._buffer(name, outside), np.ascontiguousarray(value).view(np.uint8).reshape(-1))
        for command in self._schedule.commands:
            run.advance(command.step)
            self._carry_out(run, command)
        run.advance(self._schedule.steps)
        specs = {spec.name: spec for spec in self.program.tensors}
        return {
            name: run.read(self._buffer(name, outside)).view(specs[name].dtype).reshape(specs[name].shape).copy()
            for name in self.program.outputs
        }

    def _buffer(self, name: str, memory: int) -> Buffer:
        found = (b for b in self._schedule.buffers if (b.name, b.holds, b.memory) == (name, "tensor", memory))
        return next(found)

    def _offsets(self, instruction: int) -> dict[tuple[int, int], tuple[int, int]]:
        """Where the parameters of each span of output channels lie in their buffer: start and size."""
        item, found, start = self._operations[instruction].instruction, {}, 0
        for span in layout.spans(item, self._channels(instruction)):
            length = layout.block_bytes(item, span, self._schedule.lanes)
            found[span] = (start, length)
            start += length
        return found

    def _channels(self, instruction: int) -> tuple[int, ...]:
        axis = channel_axis(self._operations[instruction])
        return (0, 0) if axis is None else self._schedule.cuts[instruction][axis]

    def _span(self, command: Command) -> tuple[int, int]:
        axis = channel_axis(self._operations[command.instruction])
        return (0, 0) if axis is None else self._tiles[command.instruction][command.tile][axis]

    def _parameters(self) -> list[tuple[Buffer, Bytes]]:
        held = {b.name: b for b in self._schedule.buffers if b.holds == "parameters"}
        images = []
        for i, operation in enumerate(self._operations):
            item = operation.instruction
            if item.output in held:
                parts = [layout.pack(item, span, self._schedule.lanes) for span in self._blocks[i]]
                images.append((held[item.output], np.frombuffer(b"".join(parts), np.uint8)))
        return images

    def _carry_out(self, run: "_Run", command: Command) -> None:
        operation = self._operations[command.instruction]
        if command.kind == "compute":
            self._compute(run, command, operation)
            return
        source, target = (self._schedule.buffers[i] for i in (command.source, command.target))
        if command.tile == WHOLE:
            run.write(target, run.read(source))
        elif command.kind == "load" and command.operand == PARAMETERS:
            start, length = self._blocks[command.instruction][self._span(command)]
            run.write(target, run.read(source)[start : start + length])
        elif command.kind == "load":
            region = self._tiles[command.instruction][command.tile]
            part = need(operation, region).inputs[command.operand]
            run.write(target, _piece(run.read(source), operation.inputs[command.operand], part))
        else:
            region = self._tiles[command.instruction][command.tile]
            run.put(target, operation.output, region, run.read(source))

    def _compute(self, run: "_Run", command: Command, operation: Operation) -> None:
        region = self._tiles[command.instruction][command.tile]
        constants = None
        if command.parameters != NONE:
            buffer, span = self._schedule.buffers[command.parameters], self._span(command)
            start, length = self._blocks[command.instruction][span]
            start = start if buffer.holds == "parameters" else 0
            block = run.read(buffer)[start : start + length]
            constants = layout.unpack(operation.instruction, span, self._schedule.lanes, block)
        piece, needed = _piece_of(operation, region, constants)
        inputs = []
        for i, spec, part in zip(command.operands, operation.inputs, needed.inputs, strict=True):
            buffer = self._schedule.buffers[i]
            if buffer.holds == "tensor":
                data = _piece(run.read(buffer), spec, part)
            else:
                data = run.read(buffer)[: tensor_bytes(spec, part)].copy()
            inputs.append(data.view(spec.dtype).reshape(size(part)))
        item = operation.instruction
        try:
            result = KERNELS[item.opcode](piece, tuple(inputs))
        except ProgramError as error:
            raise ProgramError(error.what, where=f"instruction {item.opcode} {item.name!r}", fix=error.fix) from error
        data = np.ascontiguousarray(result).view(np.uint8).reshape(-1)
        target = self._schedule.buffers[command.target]
        if target.holds == "tensor":
            run.put(target, operation.output, region, data)
        else:
            run.write(target, data)


def _piece_of(operation: Operation, region: Region, constants: layout.Constants | None) -> tuple[Operation, Need]:
    """The instruction cut down to ``region``, with the constants that its memory holds."""
    item = operation.instruction
    if constants is None or item.opcode in layout.WEIGHTED:
        return cut(operation, region, constants)
    for name, axis in INDICES:
        indices = constants.get(name)
        limit = operation.inputs[0].shape[axis] if indices is not None else 0
        if indices is not None and not all(0 <= int(i) < limit for i in indices):
            raise HardwareError(f"{item.opcode} {item.name!r} reads outside of its input")
    own = replace(operation, instruction=replace(item, constants={**item.constants, **constants}))
    return cut(own, region)


class _Run:
    """The memories during one inference; with error detection they remember what was written."""

    def __init__(self, schedule: Schedule, memories: list[Bytes], flips: tuple[Flip, ...]) -> None:
        self._schedule, self._memories = schedule, memories
        self._flips = sorted(flips, key=lambda flip: flip.step)
        self._shadows: dict[int, Bytes] = {}

    def advance(self, step: int) -> None:
        """Let happen what happens before ``step``."""
        while self._flips and self._flips[0].step <= step:
            flip = self._flips.pop(0)
            memory = self._memories[flip.memory]
            if self._schedule.memories[flip.memory].ecc and flip.memory not in self._shadows:
                self._shadows[flip.memory] = memory.copy()
            if flip.address < len(memory):
                memory[flip.address] ^= 1 << flip.bit

    def read(self, buffer: Buffer) -> Bytes:
        """The bytes of a buffer."""
        data, shadow = _view(self._memories, buffer), self._shadows.get(buffer.memory)
        if shadow is not None:
            wrong = np.flatnonzero(data != shadow[buffer.address : buffer.address + buffer.bytes])
            if wrong.size:
                name = self._schedule.memories[buffer.memory].name
                raise HardwareError(f"byte {buffer.address + int(wrong[0])} of {name} changed on its own")
        return data

    def write(self, buffer: Buffer, data: Bytes) -> None:
        """Put ``data`` at the start of a buffer."""
        for memories in self._targets(buffer):
            _view(memories, buffer)[: len(data)] = data

    def put(self, buffer: Buffer, spec: TensorSpec, region: Region, data: Bytes) -> None:
        """Put a region of the tensor that a buffer holds; ``data`` starts with it."""
        piece = data[: tensor_bytes(spec, region)].view(spec.dtype).reshape(size(region))
        for memories in self._targets(buffer):
            _view(memories, buffer).view(spec.dtype).reshape(spec.shape)[index(region)] = piece

    def _targets(self, buffer: Buffer) -> list[list[Bytes]]:
        shadow = self._shadows.get(buffer.memory)
        if shadow is None:
            return [self._memories]
        shadows = list(self._memories)
        shadows[buffer.memory] = shadow
        return [self._memories, shadows]


def _view(memories: list[Bytes], buffer: Buffer) -> Bytes:
    return memories[buffer.memory][buffer.address : buffer.address + buffer.bytes]


def _piece(data: Bytes, spec: TensorSpec, region: Region) -> Bytes:
    """A region of the tensor in ``data``, contiguous and flat."""
    piece = data.view(spec.dtype).reshape(spec.shape)[index(region)]
    return np.ascontiguousarray(piece).view(np.uint8).reshape(-1)
