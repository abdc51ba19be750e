"""Rules of the opcodes that move values, and of the linear resize, which mixes neighbours."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from runtime.npu.rules.call import MAX_ELEMENTS, MAX_WINDOW, Call, Opcode, Shape, opcode, require

RESIZE_ONE = 1 << 10
"""One, as a linear resize's weights have it (TFLite ``resize_bilinear.h``)."""


def _constant(call: Call) -> Shape:
    value = call.instruction.constants["value"]
    require(value.dtype.name == call.contract.activations, f"value is {value.dtype}, not {call.contract.activations}")
    return value.shape


def _resize_nearest(call: Call) -> Shape:
    batch, channels, height, width = call.rank(4)
    rows, columns = call.constant("rows", "int32", (None,)), call.constant("columns", "int32", (None,))
    for name, index, size in (("rows", rows, height), ("columns", columns, width)):
        _inside(name, index.astype(np.int64), size)
    call.same_quantization()
    return (batch, channels, len(rows), len(columns))


def _resize_linear(call: Call) -> Shape:
    batch, channels, *sizes = call.rank(4)
    call.same_quantization()
    result = []
    for name, size in zip(("rows", "columns"), sizes, strict=True):
        low = call.constant(f"{name}_low", "int32", (None,)).astype(np.int64)
        high = call.constant(f"{name}_high", "int32", (len(low),)).astype(np.int64)
        weight = call.constant(f"{name}_weight", "int32", (len(low),)).astype(np.int64)
        _inside(f"{name}_low", low, size)
        _inside(f"{name}_high", high, size)
        legal = bool(((weight >= -RESIZE_ONE) & (weight <= RESIZE_ONE)).all())
        require(legal, f"{name}_weight is outside [-{RESIZE_ONE}, {RESIZE_ONE}]")
        result.append(len(low))
    return (batch, channels, *result)


def _inside(name: str, index: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]", size: int) -> None:
    require(bool(((index >= 0) & (index < size)).all()), f"{name} points outside the input's {size}")


def _concat(call: Call) -> Shape:
    first = call.inputs[0].shape
    axis = call.integer("axis", 0, len(first) - 1)
    for spec in call.inputs:
        fits = len(spec.shape) == len(first) and all(
            a == b for i, (a, b) in enumerate(zip(spec.shape, first, strict=True)) if i != axis
        )
        require(fits, f"{spec.name} of shape {spec.shape} does not join {first} on axis {axis}")
    call.same_quantization()
    return (*first[:axis], sum(spec.shape[axis] for spec in call.inputs), *first[axis + 1 :])


def _reshape(call: Call) -> Shape:
    call.same_quantization()
    source, result = call.inputs[0].shape, call.output.shape
    require(math.prod(source) == math.prod(result), f"{source} and {result} have different numbers of elements")
    return result


def _transpose(call: Call) -> Shape:
    shape = call.inputs[0].shape
    order = call.integers("permutation", len(shape), 0, len(shape) - 1)
    require(len(set(order)) == len(order), f"permutation {order} repeats an axis")
    call.same_quantization()
    return tuple(shape[axis] for axis in order)


def _slice(call: Call) -> Shape:
    shape, result = call.inputs[0].shape, call.output.shape
    starts = call.integers("starts", len(shape), 0, MAX_ELEMENTS)
    steps = call.integers("steps", len(shape), -MAX_ELEMENTS, MAX_ELEMENTS)
    require(len(result) == len(shape), f"{shape} and {result} have different numbers of dimensions")
    for start, step, count, size in zip(starts, steps, result, shape, strict=True):
        last = start + step * (count - 1)
        require(step != 0 and start < size and 0 <= last < size, f"{start} to {last} by {step} leaves [0, {size - 1}]")
    call.same_quantization()
    return result


def _pad(call: Call) -> Shape:
    shape = call.inputs[0].shape
    pads = call.integers("pads", 2 * len(shape), 0, MAX_WINDOW)
    call.integer("value", *call.contract.limits)
    call.same_quantization()
    result = tuple(pads[i] + size + pads[i + len(shape)] for i, size in enumerate(shape))
    require(math.prod(result) <= MAX_ELEMENTS, f"its result {result} has more than {MAX_ELEMENTS} elements")
    return result


def _depth_to_space(call: Call) -> Shape:
    batch, channels, height, width = call.rank(4)
    block = call.integer("block", 1, MAX_WINDOW)
    call.integer("columns_first", 0, 1)
    require(channels % block**2 == 0, f"{channels} channels do not divide into blocks of {block} x {block}")
    call.same_quantization()
    return (batch, channels // block**2, height * block, width * block)


def _space_to_depth(call: Call) -> Shape:
    batch, channels, height, width = call.rank(4)
    block = call.integer("block", 1, MAX_WINDOW)
    require(height % block == 0 and width % block == 0, f"{height} x {width} does not divide into blocks of {block}")
    call.same_quantization()
    return (batch, channels * block**2, height // block, width // block)


_LINEAR = "rows_low rows_high rows_weight columns_low columns_high columns_weight"

OPCODES: Mapping[str, Opcode] = MappingProxyType(
    {
        "constant": opcode(0, "", "value", _constant),
        "resize_nearest": opcode(1, "", "rows columns", _resize_nearest),
        "resize_linear": opcode(1, "", _LINEAR, _resize_linear),
        "concat": opcode(None, "axis", "", _concat),
        "reshape": opcode(1, "", "", _reshape),
        "transpose": opcode(1, "permutation", "", _transpose),
        "slice": opcode(1, "starts steps", "", _slice),
        "pad": opcode(1, "pads value", "", _pad),
        "depth_to_space": opcode(1, "block columns_first", "", _depth_to_space),
        "space_to_depth": opcode(1, "block", "", _space_to_depth),
    }
)
