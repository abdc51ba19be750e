"""What a region of an instruction's output needs, opcode by opcode: of each input, and of attributes and constants.

A region is a half-open range per axis.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ProgramError
from runtime.npu.kernels import Operation
from runtime.npu.program import Attribute

Region = tuple[tuple[int, int], ...]
Constants = Mapping[str, NDArray[np.generic]]


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


def _softmax(operation: Operation, region: Region) -> Need:
    axis = operation.integer("axis")
    if region[axis] != (0, operation.output.shape[axis]):
        raise ProgramError("it cannot be cut along the axis of its sums")
    return Need((region,), {}, {})


def _matmul(operation: Operation, region: Region) -> Need:
    *batch, rows, columns = region
    first, second = (len(spec.shape) for spec in operation.inputs)
    depth = (0, operation.inputs[0].shape[-1])
    return Need(((*batch[: first - 2], rows, depth), (*batch[: second - 2], depth, columns)), {}, {})


def _conv_transpose2d(operation: Operation, region: Region) -> Need:
    """Rows and columns: those whose windows reach the region; what they spread beyond it is cut off."""
    _whole_channels(operation, region)
    kernel = operation.instruction.constants["weight"].shape[2:]
    strides, dilations, pads = (operation.integers(name) for name in ("strides", "dilations", "pads"))
    shape, spans, cut = operation.inputs[0].shape, [], [0, 0, 0, 0]
    for axis in range(4 - len(shape), 2):
        place, stride, reach = axis + len(shape) - 2, strides[axis], (kernel[axis] - 1) * dilations[axis]
        first, last = (end + pads[axis] for end in region[place])
        start = max(min(-(-(first - reach) // stride), first // stride), 0)
        stop = min((last - 1) // stride + 1, shape[place])
        if start >= stop:
            raise ProgramError("a tile of it would see nothing of its input")
        spans.append((start, stop))
        cut[axis] = first - start * stride
        cut[axis + 2] = max((stop - 1 - start) * stride + reach + 1 - cut[axis] - (last - first), 0)
    return Need(((region[0], (0, shape[1]), *spans),), {"pads": tuple(cut)}, {})


def _whole_channels(operation: Operation, region: Region) -> None:
    if region[1] != (0, operation.output.shape[1]):
        raise ProgramError("it cannot be cut along its channels")


def _resize_linear(operation: Operation, region: Region) -> Need:
    spans, constants = [], {}
    for name, (first, last) in zip(("rows", "columns"), region[2:], strict=True):
        low, high = (operation.instruction.constants[f"{name}_{end}"][first:last] for end in ("low", "high"))
        start, stop = min(int(low.min()), int(high.min())), max(int(low.max()), int(high.max())) + 1
        spans.append((start, stop))
        constants[f"{name}_low"], constants[f"{name}_high"] = (
            (values - start).astype(values.dtype) for values in (low, high)
        )
        constants[f"{name}_weight"] = operation.instruction.constants[f"{name}_weight"][first:last]
    return Need(((region[0], region[1], *spans),), {}, constants)


def _slice(operation: Operation, region: Region) -> Need:
    places = zip(operation.integers("starts"), operation.integers("steps"), region, strict=True)
    spans, starts = [], []
    for start, step, (first, last) in places:
        ends = start + step * first, start + step * (last - 1)
        spans.append((min(ends), max(ends) + 1))
        starts.append(ends[0] - min(ends))
    return Need((tuple(spans),), {"starts": tuple(starts)}, {})


def _pad(operation: Operation, region: Region) -> Need:
    shape, pads = operation.inputs[0].shape, operation.integers("pads")
    spans, before, behind = [], [], []
    for axis, (size, (first, last)) in enumerate(zip(shape, region, strict=True)):
        start, stop = max(first - pads[axis], 0), min(last - pads[axis], size)
        if start >= stop:
            raise ProgramError("a tile of it would be padding only")
        spans.append((start, stop))
        before.append(start + pads[axis] - first)
        behind.append(last - stop - pads[axis])
    return Need((tuple(spans),), {"pads": (*before, *behind)}, {})


def _depth_to_space(operation: Operation, region: Region) -> Need:
    _whole_channels(operation, region)
    block = operation.integer("block")
    if any(end % block for span in region[2:] for end in span):
        raise ProgramError(f"it cannot be cut inside of a block of {block}")
    spans = ((first // block, last // block) for first, last in region[2:])
    return Need(((region[0], (0, operation.inputs[0].shape[1]), *spans),), {}, {})


def _space_to_depth(operation: Operation, region: Region) -> Need:
    _whole_channels(operation, region)
    block = operation.integer("block")
    spans = ((first * block, last * block) for first, last in region[2:])
    return Need(((region[0], (0, operation.inputs[0].shape[1]), *spans),), {}, {})


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "conv2d": _conv2d,
        "conv_transpose2d": _conv_transpose2d,
        "fully_connected": _fully_connected,
        "matmul": _matmul,
        "add": _elementwise,
        "sub": _elementwise,
        "mul": _elementwise,
        "maximum": _elementwise,
        "minimum": _elementwise,
        "prelu": _elementwise,
        "requantize": _elementwise,
        "lookup": _elementwise,
        "sigmoid": _elementwise,
        "tanh": _elementwise,
        "softmax": _softmax,
        "softmax_tables": _softmax,
        "max_pool": _pool,
        "average_pool": _pool,
        "mean": _reduction,
        "reduce_sum": _reduction,
        "reduce_max": _reduction,
        "reduce_min": _reduction,
        "resize_nearest": _resize_nearest,
        "resize_linear": _resize_linear,
        "concat": _concat,
        "transpose": _transpose,
        "slice": _slice,
        "pad": _pad,
        "depth_to_space": _depth_to_space,
        "space_to_depth": _space_to_depth,
    }
)
"""How each opcode that can run in tiles is cut."""
