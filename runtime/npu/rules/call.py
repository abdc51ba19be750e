"""An instruction as a rule sees it, and the checks that several rules share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ProgramError
from runtime.npu.contracts import Contract
from runtime.npu.program import Instruction
from runtime.npu.requantize import SHIFT_MAX, SHIFT_MIN
from runtime.tensors import TensorSpec

Shape = tuple[int, ...]

MAX_ELEMENTS = 1 << 26
MAX_RANK = 8
MAX_WINDOW = 1 << 12


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
    contract: Contract

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

    def bias(self, channels: int) -> None:
        """Constant ``bias``: one int32 per channel; int64 where accumulators are wider."""
        wide = self.contract.accumulator_bits > 32 and self.instruction.constants["bias"].dtype == np.int64
        self.constant("bias", "int64" if wide else "int32", (channels,))

    def scaling(self, count: int, shift_max: int = SHIFT_MAX) -> None:
        """Constants ``multiplier`` and ``shift`` of ``count`` elements, normalised and in range."""
        bits = self.contract.multiplier_bits
        multiplier = self.constant("multiplier", "int64" if bits > 31 else "int32", (count,)).astype(np.int64)
        shift = self.constant("shift", "int32", (count,)).astype(np.int64)
        normal = (multiplier >= 2 ** (bits - 1)) & (multiplier < 2**bits) & (shift >= SHIFT_MIN) & (shift <= shift_max)
        bad = ~(normal | ((multiplier == 0) & (shift == 0)))
        if bad.any():
            i = int(np.argmax(bad))
            raise ProgramError(
                f"factor {i} has multiplier {multiplier[i]}, shift {shift[i]}; legal are 0, 0 and "
                f"[2**{bits - 1}, 2**{bits} - 1], [{SHIFT_MIN}, {shift_max}]"
            )

    def clamp(self) -> None:
        """Attributes ``act_min`` <= ``act_max`` inside the activations' type."""
        low, high = (self.integer(name, *self.contract.limits) for name in ("act_min", "act_max"))
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

    def axes(self) -> Shape:
        """Attribute ``axes``: distinct axes of the first input, ascending, at least one."""
        shape, axes = self.inputs[0].shape, self.instruction.attributes["axes"]
        require(isinstance(axes, tuple) and len(axes) > 0, "axes must be a list of integers")
        assert isinstance(axes, tuple)
        require(axes == tuple(sorted({a for a in axes if 0 <= a < len(shape)})), f"axes {axes} do not fit {shape}")
        return axes

    def broadcast(self) -> Shape:
        """The shape to which both inputs broadcast."""
        try:
            return np.broadcast_shapes(self.inputs[0].shape, self.inputs[1].shape)
        except ValueError as error:
            raise ProgramError(f"{self.inputs[0].shape} and {self.inputs[1].shape} do not broadcast") from error


@dataclass(frozen=True)
class Opcode:
    """What an opcode takes: number of inputs (``None``: one or more), exact attributes and constants, its rule.

    The rule gives the output's shape and raises ``ProgramError`` with the reason.
    """

    inputs: int | None
    attributes: frozenset[str]
    constants: frozenset[str]
    rule: Callable[[Call], Shape]


def opcode(inputs: int | None, attributes: str, constants: str, rule: Callable[[Call], Shape]) -> Opcode:
    """An ``Opcode`` with its names in one string each."""
    return Opcode(inputs, frozenset(attributes.split()), frozenset(constants.split()), rule)


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
