"""What a kernel knows besides its data, and the two things that most kernels do: read parameters and clamp."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runtime.npu.contracts import Contract, Integers
from runtime.npu.program import Instruction
from runtime.tensors import TensorSpec

Int8 = NDArray[np.int8]


@dataclass(frozen=True)
class Operation:
    """A verified instruction with the specs of its tensors and the program's contract.

    Attributes:
        instruction: opcode, attributes and constants.
        inputs: specs of the tensors it reads, in order.
        output: spec of the tensor it writes.
        contract: the arithmetic of its requantization.
    """

    instruction: Instruction
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    contract: Contract

    def integer(self, name: str) -> int:
        """An integer attribute."""
        value = self.instruction.attributes[name]
        if not isinstance(value, int):
            raise TypeError(f"{name} is not an integer")
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        """An attribute that is a tuple of integers."""
        value = self.instruction.attributes[name]
        if not isinstance(value, tuple):
            raise TypeError(f"{name} is not a tuple of integers")
        return value

    def constant(self, name: str) -> Integers:
        """A constant, widened to int64."""
        return self.instruction.constants[name].astype(np.int64)

    def input_zero(self, index: int = 0) -> int:
        """Zero point of an input."""
        return _zero_point(self.inputs[index])

    def output_zero(self) -> int:
        """Zero point of the output."""
        return _zero_point(self.output)

    def centred(self, x: Int8, index: int = 0) -> Integers:
        """``x`` minus the zero point of input ``index``."""
        return x.astype(np.int64) - self.input_zero(index)

    def clamped(self, scaled: Integers) -> Int8:
        """``scaled`` plus the output's zero point, clamped to the instruction's activation bounds."""
        low, high = self.integer("act_min"), self.integer("act_max")
        return np.clip(scaled + self.output_zero(), low, high).astype(np.int8)

    def rescaled(self, acc: ArrayLike) -> Int8:
        """The output for an accumulator with one factor: requantize, add the zero point, clamp."""
        multiplier, shift = self.constant("multiplier")[0], self.constant("shift")[0]
        return self.clamped(self.contract.multiply(acc, multiplier, shift))


def _zero_point(spec: TensorSpec) -> int:
    if spec.zero_point is None:
        raise TypeError(f"{spec.name} has no zero point")
    return spec.zero_point
