"""Tiles: the part of each input that a part of an instruction's output needs, and the instruction cut down to it.

A region is a half-open range per axis. Opcodes without an entry in ``RULES`` run whole.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ProgramError
from runtime.npu.kernels import Operation
from runtime.npu.program import Attribute
from runtime.tensors import TensorSpec

Region = tuple[tuple[int, int], ...]
Cuts = tuple[tuple[int, ...], ...]
Constants = Mapping[str, NDArray[np.generic]]

IN_PLACE = frozenset({"add", "sub", "mul", "maximum", "minimum", "prelu", "requantize", "lookup", "reshape"})
"""Opcodes whose output may lie where an input of the same size lies: each byte is read before it is written."""


@dataclass(frozen=True)
class Need:
    """What a region of an output needs.

    Attributes:
        inputs: the region of each input.
        attributes: those that differ from the instruction's.
        constants: those that differ, cut down.
    """

    inputs: tuple[Region, ...]
    attributes: Mapping[str, Attribute]
    constants: Constants


Rule = Callable[[Operation, Region], Need]


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


def _window(
    span: tuple[int, int], limit: int, stride: int, reach: int, before: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The input's range for an output's range, and the padding that is left before and after it."""
    first, last = span[0] * stride - before, (span[1] - 1) * stride - before + reach
    start, stop = max(first, 0), min(last, limit)
    if start >= stop:
        raise ProgramError("a tile of it would see padding only")
    return (start, stop), (start - first, last - stop)


def _conv2d(operation: Operation, region: Region) -> Need:
    weight = operation.instruction.constants["weight"]
    group, outputs = operation.integer("group"), weight.shape[0]
    (first, last), per = region[1], outputs // group
    if group > 1 and (first % per or last % per):
        raise ProgramError(f"channels {first} to {last} do not end with a group of {per}")
    groups = 1 if group == 1 else (last - first) // per
    channels = (0, weight.shape[1]) if group == 1 else (first // per * weight.shape[1], last // per * weight.shape[1])
    sides, pads = _sides(operation, region, weight.shape[2:], operation.integers("dilations"))
    constants = {name: array[first:last] for name, array in operation.instruction.constants.items()}
    return Need(((region[0], channels, *sides),), {"pads": pads, "group": groups}, constants)


def _sides(
    operation: Operation, region: Region, kernel: Sequence[int], dilations: Sequence[int]
) -> tuple[Region, tuple[int, ...]]:
    """Rows and columns of the input, and the padding around them: top, left, bottom, right; a sequence has no rows."""
    strides, pads, shape = operation.integers("strides"), list(operation.integers("pads")), operation.inputs[0].shape
    spans = []
    for axis in range(4 - len(shape), 2):
        place = axis + len(shape) - 2
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        span, (pads[axis], pads[axis + 2]) = _window(region[place], shape[place], strides[axis], reach, pads[axis])
        spans.append(span)
    return tuple(spans), tuple(pads)


def _pool(operation: Operation, region: Region) -> Need:
    sides, pads = _sides(operation, region, operation.integers("kernel"), (1, 1))
    return Need(((region[0], region[1], *sides),), {"pads": pads}, {})


def _fully_connected(operation: Operation, region: Region) -> Need:
    first, last = region[-1]
    depth = operation.inputs[0].shape[-1]
    constants = {name: array[first:last] for name, array in operation.instruction.constants.items()}
    return Need(((*region[:-1], (0, depth)),), {}, constants)


def _elementwise(operation: Operation, region: Region) -> Need:
    """Broadcasting: an input's axes align with the output's last ones, those of size 1 are taken whole."""
    parts = []
    for spec in operation.inputs:
        tail = region[len(region) - len(spec.shape) :]
        parts.append(tuple((0, 1) if s == 1 else span for s, span in zip(spec.shape, tail, strict=True)))
    return Need(tuple(parts), {}, {})


def _reduction(operation: Operation, region: Region) -> Need:
    shape, axes = operation.inputs[0].shape, operation.integers("axes")
    kept = len(region) == len(shape)
    rest = iter(region)
    spans = []
    for axis, extent in enumerate(shape):
        if axis not in axes or kept:
            span = next(rest)
        spans.append((0, extent) if axis in axes else span)
    return Need((tuple(spans),), {}, {})


def _resize_nearest(operation: Operation, region: Region) -> Need:
    spans, constants = [], {}
    for name, (first, last) in zip(("rows", "columns"), region[2:], strict=True):
        picked = operation.instruction.constants[name][first:last]
        low, high = int(picked.min()), int(picked.max())
        spans.append((low, high + 1))
        constants[name] = (picked - low).astype(picked.dtype)
    return Need(((region[0], region[1], *spans),), {}, constants)


def _concat(operation: Operation, region: Region) -> Need:
    axis, shape = operation.integer("axis"), operation.output.shape
    if region[axis] != (0, shape[axis]):
        raise ProgramError("it cannot be cut along the axis on which it joins")
    parts = tuple((*region[:axis], (0, spec.shape[axis]), *region[axis + 1 :]) for spec in operation.inputs)
    return Need(parts, {}, {})


def _transpose(operation: Operation, region: Region) -> Need:
    order = operation.integers("permutation")
    return Need((tuple(region[order.index(axis)] for axis in range(len(order))),), {}, {})


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "conv2d": _conv2d,
        "fully_connected": _fully_connected,
        "add": _elementwise,
        "sub": _elementwise,
        "mul": _elementwise,
        "maximum": _elementwise,
        "minimum": _elementwise,
        "prelu": _elementwise,
        "requantize": _elementwise,
        "lookup": _elementwise,
        "max_pool": _pool,
        "average_pool": _pool,
        "mean": _reduction,
        "reduce_sum": _reduction,
        "reduce_max": _reduction,
        "reduce_min": _reduction,
        "resize_nearest": _resize_nearest,
        "concat": _concat,
        "transpose": _transpose,
    }
)
"""How each opcode that can run in tiles is cut."""
