"""What a lowering function may use, and what it gives."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.compile.fold import spec
from pipeline.errors import ModelError
from pipeline.graph.view import Node, Tensor, quantize
from runtime.npu.contracts import Contract
from runtime.npu.program import Attribute, Instruction
from runtime.tensors import TensorSpec

Constants = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Made:
    """An instruction, and its output's spec where that is no tensor of the graph."""

    instruction: Instruction
    tensor: TensorSpec | None = None


@dataclass(frozen=True)
class Lowering:
    """What a lowering function may use.

    Attributes:
        node: the operator.
        output: the tensor it writes: that of its fused clamp when it has one.
        contract: the integer arithmetic to fold for, that of the output's type.
        bounds: ``act_min`` and ``act_max`` of that clamp, or the whole range of the activations.
    """

    node: Node
    output: Tensor
    contract: Contract
    bounds: tuple[int, int]

    @property
    def source(self) -> Tensor:
        """The first input."""
        return self.node.required(0)

    def spec(self, tensor: Tensor) -> TensorSpec:
        """The tensor as a program declares it; raises ``ModelError`` as ``fold.spec``."""
        return spec(tensor, self.contract)

    def instruction(
        self,
        opcode: str,
        attributes: Mapping[str, Attribute] | None = None,
        constants: Constants | None = None,
        clamp: bool = True,
        inputs: tuple[str, ...] | None = None,
        output: str | None = None,
    ) -> Instruction:
        """An instruction, by default from the node's activations to its output; clamped unless it has no clamp."""
        bounds = {"act_min": self.bounds[0], "act_max": self.bounds[1]} if clamp else {}
        names = tuple(t.wire for t in self.node.activations) if inputs is None else inputs
        return Instruction(
            opcode, self.node.name, names, output or self.output.wire, {**(attributes or {}), **bounds}, constants or {}
        )

    def one(
        self,
        opcode: str,
        attributes: Mapping[str, Attribute] | None = None,
        constants: Constants | None = None,
        clamp: bool = True,
    ) -> list[Made]:
        """One instruction, as ``instruction``."""
        return [Made(self.instruction(opcode, attributes, constants, clamp))]

    def operands(self, like: Tensor | None = None) -> tuple[list[Made], list[TensorSpec]]:
        """Every input as a tensor of the program, constants written by instructions of their own.

        A quantized constant keeps its integers. A float one is quantized here: to the scale and zero point of ``like``,
        or symmetrically to its largest value.

        Raises:
            ModelError: a constant is quantized in a form that activations do not have.
        """
        made, specs = [], []
        for index, tensor in enumerate(self.node.inputs):
            if tensor is None:
                continue
            if tensor.constant is None:
                specs.append(self.spec(tensor))
                continue
            values, found = self._constant(tensor, f"{self.node.name} input {index}", like)
            instruction = Instruction("constant", self.node.name, (), found.name, {}, {"value": values})
            made.append(Made(instruction, found))
            specs.append(found)
        return made, specs

    def _constant(self, tensor: Tensor, name: str, like: Tensor | None) -> tuple[NDArray[np.generic], TensorSpec]:
        dtype, values = self.contract.activations, np.atleast_1d(tensor.real)
        quantization = tensor.quantization
        if quantization is not None and like is None:
            found = replace(self.spec(replace(tensor, constant=None)), name=name, shape=values.shape)
            return np.atleast_1d(self._integers(tensor)), found
        if like is not None and like.quantization is not None:
            integers = quantize(values, like.quantization)
            return integers, replace(self.spec(like), name=name, shape=values.shape)
        largest = float(np.abs(values).max(initial=0.0)) or 1.0
        low, high = self.contract.limits
        zero, scale = 0 if low < 0 else (low + high + 1) // 2, float(np.float32(largest / (high if low < 0 else 127)))
        rounded = np.clip(np.rint(values.astype(np.float64) / scale) + zero, low, high).astype(dtype)
        return rounded, TensorSpec(name, values.shape, dtype, scale, zero)

    def _integers(self, tensor: Tensor) -> NDArray[np.generic]:
        if tensor.constant is None or str(tensor.constant.dtype) != self.contract.activations:
            raise ModelError(f"has a constant that is not {self.contract.activations}", where=self.node.name)
        return tensor.constant
