"""Tiles: the part of each input that a part of an instruction's output needs, and the instruction cut down to it.

A region is a half-open range per axis. Opcodes without an entry in ``runtime.npu.needs.RULES`` run whole.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from runtime.errors import ProgramError
from runtime.npu.kernels import Operation
from runtime.npu.needs import RULES, Constants, Need, Region
from runtime.tensors import TensorSpec

Cuts = tuple[tuple[int, ...], ...]

IN_PLACE = frozenset(
    {"add", "sub", "mul", "maximum", "minimum", "prelu", "requantize", "lookup", "sigmoid", "tanh", "reshape"}
)
"""Opcodes whose output may lie where an input of the same size lies: each byte is read before it is written."""


def whole(shape: Sequence[int]) -> Region:
    """The region that is all of ``shape``."""
    return tuple((0, size) for size in shape)


def elements(region: Region) -> int:
    """How many elements a region has."""
    return math.prod(stop - start for start, stop in region)


def tensor_bytes(spec: TensorSpec, region: Region | None = None) -> int:
    """Bytes of a region of a tensor, or of all of it."""
    return elements(whole(spec.shape) if region is None else region) * np.dtype(spec.dtype).itemsize


def size(region: Region) -> tuple[int, ...]:
    """Its shape."""
    return tuple(stop - start for start, stop in region)


def index(region: Region) -> tuple[slice, ...]:
    """As an index of an array."""
    return tuple(slice(start, stop) for start, stop in region)


def regions(cuts: Cuts) -> list[Region]:
    """The tiles of an output that is cut like this, the last axis fastest."""
    return list(itertools.product(*(tuple(itertools.pairwise(axis)) for axis in cuts)))


def channel_axis(operation: Operation) -> int | None:
    """The axis of the output along which parameters are cut too; ``None`` when they are not."""
    opcode = operation.instruction.opcode
    return 1 if opcode == "conv2d" else len(operation.output.shape) - 1 if opcode == "fully_connected" else None


def can_cut(operation: Operation) -> bool:
    """Whether the instruction can run in tiles at all."""
    return operation.instruction.opcode in RULES


def need(operation: Operation, region: Region) -> Need:
    """What ``region`` of the output needs.

    Raises:
        ProgramError: the instruction cannot be cut there.
    """
    if region == whole(operation.output.shape):
        return Need(tuple(whole(spec.shape) for spec in operation.inputs), {}, {})
    rule = RULES.get(operation.instruction.opcode)
    if rule is None:
        raise ProgramError("it cannot be cut into tiles")
    return rule(operation, region)


def cut(operation: Operation, region: Region, constants: Constants | None = None) -> tuple[Operation, Need]:
    """The instruction as one that computes ``region`` alone, and what it needs; raises as ``need``.

    Args:
        operation: the whole instruction.
        region: of its output.
        constants: those of the tile, as they were read from memory; else they are cut from the instruction's.
    """
    needed, item = need(operation, region), operation.instruction
    own = {**item.constants, **needed.constants, **(constants or {})}
    instruction = replace(item, attributes={**item.attributes, **needed.attributes}, constants=own)
    inputs = tuple(replace(spec, shape=size(part)) for spec, part in zip(operation.inputs, needed.inputs, strict=True))
    return replace(
        operation, instruction=instruction, inputs=inputs, output=replace(operation.output, shape=size(region))
    ), needed
