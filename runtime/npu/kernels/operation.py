"""What a kernel knows besides its data, and the two things that most kernels do: read parameters and clamp."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runtime.npu.contracts import Contract
from runtime.npu.program import Instruction
from runtime.npu.requantize import Integers
from runtime.tensors import TensorSpec

Values = NDArray[np.integer[Any]]
"""An activation: integers of the contract's type."""


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

    def centred(self, x: Values, index: int = 0) -> Integers:
        """``x`` minus the zero point of input ``index``."""
        return x.astype(np.int64) - self.input_zero(index)

    def bounds(self) -> tuple[int, int]:
        """Smallest and largest output: the instruction's activation bounds, or those of the type."""
        if "act_min" in self.instruction.attributes:
            return self.integer("act_min"), self.integer("act_max")
        return self.contract.limits

    def clamped(self, scaled: Integers) -> Values:
        """``scaled`` plus the output's zero point, clamped to ``bounds``."""
        clipped: Values = np.clip(scaled + self.output_zero(), *self.bounds()).astype(self.output.dtype)
        return clipped

    def scaled(self, acc: ArrayLike, index: int = 0) -> Integers:
        """``acc`` times factor ``index``, by the contract's rule."""
        return self.contract.multiply(acc, self.constant("multiplier")[index], self.constant("shift")[index])

    def rescaled(self, acc: ArrayLike) -> Values:
        """The output for an accumulator with one factor: requantize, add the zero point, clamp."""
        return self.clamped(self.scaled(acc))


def _zero_point(spec: TensorSpec) -> int:
    if spec.zero_point is None:
        raise TypeError(f"{spec.name} has no zero point")
    return spec.zero_point
