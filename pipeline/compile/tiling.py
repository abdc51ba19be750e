"""Into which tiles an instruction is cut so that what it streams fits the slots on the chip."""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from runtime.errors import ProgramError
from runtime.npu import layout
from runtime.npu.kernels import Operation
from runtime.npu.tiles import Cuts, can_cut, channel_axis, need, regions, tensor_bytes

MOST = 256
"""Tiles of one instruction, at most: with more, commands would be most of a program."""

OUTPUT = -1
"""Stands for the output among the operands that are streamed."""


@dataclass(frozen=True)
class Tiling:
    """How an instruction is cut, and which of what it was to stream has no slot but is used where it lies."""

    cuts: Cuts
    direct: frozenset[int] = frozenset()
    direct_parameters: bool = False


def choose(operation: Operation, streamed: Collection[int], parameters: bool, lanes: int, budget: int) -> Tiling:
    """The coarsest tiling whose slots, two of each, fit ``budget`` bytes.

    Args:
        operation: the instruction.
        streamed: the inputs that come from outside, and ``OUTPUT`` if that goes there.
        parameters: whether its parameters come from outside.
        lanes: output channels side by side; tiles of channels are multiples of them where possible.
        budget: half of it at most goes to parameters.
    """
    cuts: Cuts = tuple((0, size) for size in operation.output.shape)
    direct_parameters = False
    if parameters:
        found = _channels(operation, cuts, lanes, budget // 2)
        direct_parameters = found is None
        cuts = found or cuts
    if not streamed:
        return Tiling(cuts, direct_parameters=direct_parameters)
    for candidate in _candidates(operation, cuts):
        if _slots(operation, candidate, streamed) <= budget // 2:
            return Tiling(candidate, direct_parameters=direct_parameters)
    return Tiling(cuts, frozenset(streamed), direct_parameters)


def _channels(operation: Operation, cuts: Cuts, lanes: int, room: int) -> Cuts | None:
    """``cuts`` with the output channels cut so that two parameter tiles, or all at once, fit ``room``."""
    item, axis = operation.instruction, channel_axis(operation)
    total = 0 if axis is None else operation.output.shape[axis]
    if layout.block_bytes(item, (0, total), lanes) <= room:
        return cuts
    if axis is None:
        return None
    group = operation.integer("group") if item.opcode == "conv2d" else 1
    least = total // group if group > 1 else 1
    for unit in (max(1, lanes // least) * least, least):
        count = -(-total // unit)
        while count >= 1:
            step = count * unit
            if 2 * layout.block_bytes(item, (0, min(step, total)), lanes) <= room:
                return _with(cuts, axis, step)
            count //= 2
    return None


def _candidates(operation: Operation, cuts: Cuts) -> Iterator[Cuts]:
    """Coarse to fine: along rows where there are some, then along the longest other axes that can be cut."""
    yield cuts
    if not can_cut(operation):
        return
    shape, channels = operation.output.shape, channel_axis(operation)
    axes = [axis for axis in range(len(shape)) if axis != channels and shape[axis] > 1]
    axes.sort(key=lambda axis: (not (len(shape) == 4 and axis == 2), -shape[axis], axis))
    for axis in axes:
        step, finest = shape[axis], cuts
        while step > 1:
            step = -(-step // 2)
            tried = _with(cuts, axis, step)
            if math.prod(len(each) - 1 for each in tried) > MOST:
                return
            if _legal(operation, tried):
                yield tried
                finest = tried
        cuts = finest


def _with(cuts: Cuts, axis: int, step: int) -> Cuts:
    """``cuts`` with ``axis`` cut after every ``step``."""
    size = cuts[axis][-1]
    return (*cuts[:axis], (*range(0, size, step), size), *cuts[axis + 1 :])


def _legal(operation: Operation, cuts: Cuts) -> bool:
    try:
        for region in regions(cuts):
            need(operation, region)
    except ProgramError:
        return False
    return True


def _slots(operation: Operation, cuts: Cuts, streamed: Collection[int]) -> int:
    """Bytes of the slots for all that is streamed: two of each, one when there is one tile."""
    tiles = regions(cuts)
    largest = dict.fromkeys(streamed, 0)
    for region in tiles:
        inputs = need(operation, region).inputs
        for operand in largest:
            own = operand == OUTPUT
            spec, part = (operation.output, region) if own else (operation.inputs[operand], inputs[operand])
            largest[operand] = max(largest[operand], tensor_bytes(spec, part))
    return min(2, len(tiles)) * sum(largest.values())
