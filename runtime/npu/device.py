"""The simulated NPU: runs a program's instructions in order on integer tensors."""

from collections.abc import Mapping

from runtime.npu.fast import PlainStep, Step, prepare
from runtime.npu.kernels import Values
from runtime.npu.plain import operations
from runtime.npu.program import Program
from runtime.npu.verify import require, verify
from runtime.tensors import Tensors, TensorSpec


class Device:
    """A program, ready to run.

    ``fast=False`` runs the plain kernels; ``fast=True`` gives the same bytes sooner.
    """

    def __init__(self, program: Program, fast: bool = True, threads: int = 0) -> None:
        """Verify and prepare the program; ``threads`` is for the fast path, 0 lets onnxruntime choose.

        Raises:
            ProgramError: the program breaks a rule of ``runtime.npu.verify``.
        """
        verify(program)
        self.program = program
        self._specs: Mapping[str, TensorSpec] = {spec.name: spec for spec in program.tensors}
        plain = operations(program)
        self._plain: tuple[Step, ...] = tuple(PlainStep(operation) for operation in plain)
        self._steps = prepare(plain, self._specs, program.outputs, threads) if fast else self._plain

    def run(self, tensors: Tensors) -> dict[str, Values]:
        """The program's outputs for ``tensors``, one for each of its inputs.

        Raises:
            ProgramError: a tensor is missing, unknown, or of another shape or type; an accumulator leaves int32.
        """
        values = self.checked(tensors)
        for step in self._steps:
            step.run(values)
        return {name: values[name] for name in self.program.outputs}

    def trace(self, tensors: Tensors) -> dict[str, Values]:
        """Every activation tensor, inputs included, from the plain kernels; raises as ``run``."""
        values = self.checked(tensors)
        for step in self._plain:
            step.run(values)
        return values

    def checked(self, tensors: Tensors) -> dict[str, Values]:
        """``tensors`` if they are the program's inputs; raises ``ProgramError`` otherwise."""
        expected = self.program.inputs
        missing = sorted(set(expected) - set(tensors))
        require(not missing, f"input {missing[:1]} is missing")
        unknown = sorted(set(tensors) - set(expected))
        require(not unknown, f"{unknown[:1]} is not an input", fix=f"the inputs are {', '.join(expected)}")
        values: dict[str, Values] = {}
        for name in expected:
            spec, value = self._specs[name], tensors[name]
            same = value.dtype == spec.dtype and value.shape == spec.shape
            require(same, f"got {value.dtype} {value.shape}, expected {spec.dtype} {spec.shape}", f"input {name!r}")
            values[name] = value.astype(spec.dtype, copy=False)
        return values
