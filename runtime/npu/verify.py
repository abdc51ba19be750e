"""What makes a program legal: one rule function per opcode, in ``OPCODES``, and the checks between instructions.

A program that passes cannot make a kernel read outside its arrays or allocate without bound. What stays a matter of
the data, and is checked while running, is that an accumulator fits int32.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ProgramError
from runtime.npu.contracts import SHIFT_MAX, SHIFT_MIN, find_contract
from runtime.npu.program import Instruction, Program
from runtime.npu.verify_schedule import verify_schedule
from runtime.tensors import TensorSpec

Shape = tuple[int, ...]

MAX_ELEMENTS = 1 << 26
MAX_RANK = 8
MAX_WINDOW = 1 << 12
MAX_INPUT_SHIFT = 22


def require(condition: bool, what: str, where: str | None = None, fix: str | None = None) -> None:
    """Raise ``ProgramError(what)`` unless ``condition`` holds."""
    if not condition:
        raise ProgramError(what, where=where, fix=fix)


@dataclass(frozen=True)
class Call:
    """An instruction with the specs of its tensors, as the rules below see it."""

    instruction: Instruction
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec

    def integer(self, name: str, low: int, high: int) -> int:
        """Attribute ``name``, an integer in [low, high]."""
        value = self.instruction.attributes[name]
        require(type(value) is int, f"{name} must be an integer")
        assert isinstance(value, int)
        require(low <= value <= high, f"{name} = {value} is outside [{low}, {high}]")
        return value

    def integers(self, name: str, count: int, low: int, high: int) -> Shape:
        """Attribute ``name``, ``count`` integers in [low, high]."""
        value = self.instruction.attributes[name]
        require(isinstance(value, tuple) and len(value) == count, f"{name} must be {count} integers")
        assert isinstance(value, tuple)
        require(
            all(type(item) is int and low <= item <= high for item in value),
            f"{name} = {value} is outside [{low}, {high}]",
        )
        return value

    def constant(self, name: str, dtype: str, shape: tuple[int | None, ...]) -> NDArray[np.generic]:
        """Constant ``name`` of this type and shape; ``None`` stands for any size."""
        array = self.instruction.constants[name]
        fits = len(array.shape) == len(shape) and all(
            want in (None, have) for have, want in zip(array.shape, shape, strict=True)
        )
        require(fits, f"{name} has shape {list(array.shape)}, expected {[s or '?' for s in shape]}")
        require(array.dtype.name == dtype, f"{name} is {array.dtype.name}, expected {dtype}")
        return array

    def scaling(self, count: int, shift_max: int = SHIFT_MAX) -> None:
        """Constants ``multiplier`` and ``shift`` of ``count`` elements, normalised and in range."""
        multiplier = self.constant("multiplier", "int32", (count,)).astype(np.int64)
        shift = self.constant("shift", "int32", (count,)).astype(np.int64)
        normal = (multiplier >= 2**30) & (shift >= SHIFT_MIN) & (shift <= shift_max)
        bad = ~(normal | ((multiplier == 0) & (shift == 0)))
        if bad.any():
            i = int(np.argmax(bad))
            raise ProgramError(
                f"factor {i} has multiplier {multiplier[i]}, shift {shift[i]}; legal are 0, 0 and "
                f"[2**30, 2**31 - 1], [{SHIFT_MIN}, {shift_max}]"
            )

    def clamp(self) -> None:
        """Attributes ``act_min`` <= ``act_max`` inside int8."""
        low, high = self.integer("act_min", -128, 127), self.integer("act_max", -128, 127)
        require(low <= high, f"act_min {low} is above act_max {high}")

    def same_quantization(self) -> None:
        """Every input has the output's scale and zero point."""
        for spec in self.inputs:
            same = spec.scale == self.output.scale and spec.zero_point == self.output.zero_point
            require(same, f"{spec.name} and {self.output.name} must have the same scale and zero point")

    def rank(self, rank: int) -> Shape:
        """The first input's shape, which must have ``rank`` dimensions."""
        shape = self.inputs[0].shape
        require(len(shape) == rank, f"{self.inputs[0].name} has shape {list(shape)}, expected {rank} dimensions")
        return shape


def window_output(size: Shape, kernel: Shape, strides: Shape, pads: Shape) -> Shape:
    """Rows and columns that a window of ``kernel`` (dilation included) visits; pads are top, left, bottom, right.

    ``size`` is (channels, height, width).
    """
    channels, height, width = size
    padded = (height + pads[0] + pads[2], width + pads[1] + pads[3])
    elements = channels * padded[0] * padded[1]
    require(elements <= MAX_ELEMENTS, f"the padded input {padded} has more than {MAX_ELEMENTS} elements")
    require(padded[0] >= kernel[0] and padded[1] >= kernel[1], f"window {kernel} exceeds the padded input {padded}")
    return tuple((padded[i] - kernel[i]) // strides[i] + 1 for i in (0, 1))


def _conv2d(call: Call) -> Shape:
    batch, channels, height, width = call.rank(4)
    group = call.integer("group", 1, channels)
    weight = call.constant("weight", "int8", (None, None, None, None))
    outputs, per_group, *kernel = weight.shape
    require(channels == per_group * group, f"weight takes {per_group} x {group} channels, the input has {channels}")
    require(outputs % group == 0, f"{outputs} output channels do not divide into {group} groups")
    call.constant("bias", "int32", (outputs,))
    call.scaling(outputs)
    call.clamp()
    strides, dilations = call.integers("strides", 2, 1, MAX_WINDOW), call.integers("dilations", 2, 1, MAX_WINDOW)
    reach = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
    pads = call.integers("pads", 4, 0, MAX_WINDOW)
    return (batch, outputs, *window_output((channels, height, width), reach, strides, pads))


def _fully_connected(call: Call) -> Shape:
    shape = call.inputs[0].shape
    weight = call.constant("weight", "int8", (None, shape[-1]))
    call.constant("bias", "int32", (weight.shape[0],))
    call.scaling(weight.shape[0])
    call.clamp()
    return (*shape[:-1], weight.shape[0])


def _broadcast(call: Call) -> Shape:
    try:
        return np.broadcast_shapes(call.inputs[0].shape, call.inputs[1].shape)
    except ValueError as error:
        raise ProgramError(f"{call.inputs[0].shape} and {call.inputs[1].shape} do not broadcast") from error


def _add(call: Call) -> Shape:
    call.integer("left_shift", 0, MAX_INPUT_SHIFT)
    call.scaling(3, shift_max=0)
    call.clamp()
    return _broadcast(call)


def _mul(call: Call) -> Shape:
    call.scaling(1)
    call.clamp()
    return _broadcast(call)


def _requantize(call: Call) -> Shape:
    call.scaling(1)
    call.clamp()
    return call.inputs[0].shape


def _lookup(call: Call) -> Shape:
    call.constant("table", "int8", (256,))
    return call.inputs[0].shape


def _pool(call: Call) -> Shape:
    batch, channels, height, width = call.rank(4)
    kernel = call.integers("kernel", 2, 1, MAX_WINDOW)
    pads = call.integers("pads", 4, 0, MAX_WINDOW)
    require(all(pads[i] < kernel[i % 2] for i in range(4)), f"pads {pads} reach past the kernel {kernel}")
    call.same_quantization()
    strides = call.integers("strides", 2, 1, MAX_WINDOW)
    return (batch, channels, *window_output((channels, height, width), kernel, strides, pads))


def _mean(call: Call) -> Shape:
    shape, axes = call.inputs[0].shape, call.instruction.attributes["axes"]
    require(isinstance(axes, tuple) and len(axes) > 0, "axes must be a list of integers")
    assert isinstance(axes, tuple)
    require(axes == tuple(sorted({a for a in axes if 0 <= a < len(shape)})), f"axes {axes} do not fit {shape}")
    call.scaling(1)
    dropped = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return dropped if call.output.shape == dropped else kept


def _resize_nearest(call: Call) -> Shape:
    batch, channels, height, width = call.rank(4)
    rows, columns = call.constant("rows", "int32", (None,)), call.constant("columns", "int32", (None,))
    for name, index, size in (("rows", rows, height), ("columns", columns, width)):
        inside = bool(np.all((index >= np.int32(0)) & (index < np.int32(size))))
        require(inside, f"{name} points outside the input's {size}")
    call.same_quantization()
    return (batch, channels, len(rows), len(columns))


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


@dataclass(frozen=True)
class Opcode:
    """What an opcode takes: number of inputs (``None``: one or more), exact attributes and constants, its rule.

    The rule gives the output's shape and raises ``ProgramError`` with the reason.
    """

    inputs: int | None
    attributes: frozenset[str]
    constants: frozenset[str]
    rule: Callable[[Call], Shape]


def _opcode(inputs: int | None, attributes: str, constants: str, rule: Callable[[Call], Shape]) -> Opcode:
    return Opcode(inputs, frozenset(attributes.split()), frozenset(constants.split()), rule)


OPCODES: Mapping[str, Opcode] = MappingProxyType(
    {
        "conv2d": _opcode(1, "strides pads dilations group act_min act_max", "weight bias multiplier shift", _conv2d),
        "fully_connected": _opcode(1, "act_min act_max", "weight bias multiplier shift", _fully_connected),
        "add": _opcode(2, "left_shift act_min act_max", "multiplier shift", _add),
        "sub": _opcode(2, "left_shift act_min act_max", "multiplier shift", _add),
        "mul": _opcode(2, "act_min act_max", "multiplier shift", _mul),
        "requantize": _opcode(1, "act_min act_max", "multiplier shift", _requantize),
        "lookup": _opcode(1, "", "table", _lookup),
        "max_pool": _opcode(1, "kernel strides pads", "", _pool),
        "average_pool": _opcode(1, "kernel strides pads", "", _pool),
        "mean": _opcode(1, "axes", "multiplier shift", _mean),
        "resize_nearest": _opcode(1, "", "rows columns", _resize_nearest),
        "concat": _opcode(None, "axis", "", _concat),
        "reshape": _opcode(1, "", "", _reshape),
        "transpose": _opcode(1, "permutation", "", _transpose),
    }
)


def verify(program: Program) -> None:
    """Check everything that can be known before running.

    Raises:
        ProgramError: the first rule that is broken; the message names the instruction or tensor, and the reason.
    """
    find_contract(program.contract)
    for name, value in program.device.items():
        require(math.isfinite(value) and value >= 0, f"{value} is not a legal figure", f"device.{name}")
    specs: dict[str, TensorSpec] = {}
    for spec in program.tensors:
        require(spec.name not in specs, "declared twice", f"tensor {spec.name!r}")
        _verify_tensor(spec)
        specs[spec.name] = spec
    written = _verify_names(program.inputs, specs, "inputs")
    for index, instruction in enumerate(program.instructions):
        where = f"instruction {index} ({instruction.opcode} {instruction.name!r})"
        try:
            _verify_instruction(instruction, specs, written)
        except ProgramError as error:
            raise ProgramError(error.what, where=where, fix=error.fix) from error
        written.add(instruction.output)
    _verify_names(program.outputs, specs, "outputs")
    for name in program.outputs:
        require(name in written, "no instruction writes it", f"output {name!r}")
    for name in specs:
        require(name in written, "no instruction writes it", f"tensor {name!r}")
    verify_schedule(program)


def _verify_tensor(spec: TensorSpec) -> None:
    where = f"tensor {spec.name!r}"
    require(spec.dtype == "int8", f"type {spec.dtype!r} is not int8", where)
    scale, zero_point = spec.scale, spec.zero_point
    require(scale is not None and math.isfinite(scale) and scale > 0, f"scale {scale} is not above 0", where)
    require(zero_point is not None and -128 <= zero_point <= 127, f"zero point {zero_point} is not int8", where)
    require(1 <= len(spec.shape) <= MAX_RANK, f"{len(spec.shape)} dimensions; 1 to {MAX_RANK} are legal", where)
    require(all(size > 0 for size in spec.shape), f"shape {spec.shape} has a dimension below 1", where)
    elements = math.prod(spec.shape)
    require(elements <= MAX_ELEMENTS, f"shape {spec.shape} has more than {MAX_ELEMENTS} elements", where)


def _verify_names(names: tuple[str, ...], specs: Mapping[str, TensorSpec], what: str) -> set[str]:
    require(len(names) > 0, "a program needs at least one", what)
    require(len(set(names)) == len(names), "a name occurs twice", what)
    for name in names:
        require(name in specs, f"{name!r} is not a declared tensor", what)
    return set(names)


def _verify_instruction(instruction: Instruction, specs: Mapping[str, TensorSpec], written: set[str]) -> None:
    opcode = OPCODES.get(instruction.opcode)
    if opcode is None:
        raise ProgramError("unknown opcode", fix=f"known: {', '.join(OPCODES)}")
    count = len(instruction.inputs)
    require(count > 0 if opcode.inputs is None else count == opcode.inputs, f"it cannot take {count} inputs")
    for what, have, want in (
        ("attribute", instruction.attributes.keys(), opcode.attributes),
        ("constant", instruction.constants.keys(), opcode.constants),
    ):
        require(not have - want, f"unknown {what} {sorted(have - want)[:1]}")
        require(not want - have, f"missing {what} {sorted(want - have)[:1]}")
    for name in instruction.inputs:
        require(name in written, f"input {name!r} is used before it is written")
    require(instruction.output in specs, f"output {instruction.output!r} is not a declared tensor")
    require(instruction.output not in written, f"output {instruction.output!r} is written twice")
    call = Call(instruction, tuple(specs[name] for name in instruction.inputs), specs[instruction.output])
    shape = opcode.rule(call)
    have_shape = call.output.shape
    require(shape == have_shape, f"its output has shape {shape}, but {call.output.name!r} declares {have_shape}")
