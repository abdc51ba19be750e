"""The simulated NPU: runs a program's instructions in order on int8 tensors."""

from collections.abc import Mapping

import numpy as np

from runtime.errors import ProgramError
from runtime.npu.contracts import find_contract
from runtime.npu.kernels import KERNELS, Int8, Operation
from runtime.npu.program import Program
from runtime.npu.verify import require, verify
from runtime.tensors import Tensors, TensorSpec


def operations(program: Program) -> tuple[Operation, ...]:
    """The program's instructions with the specs of their tensors and the contract.

    Raises:
        ProgramError: the contract is not known.
    """
    contract = find_contract(program.contract)
    specs = {spec.name: spec for spec in program.tensors}
    return tuple(
        Operation(item, tuple(specs[name] for name in item.inputs), specs[item.output], contract)
        for item in program.instructions
    )


def run_plain(operation: Operation, values: Mapping[str, Int8]) -> Int8:
    """One instruction with its plain kernel.

    Raises:
        ProgramError: an accumulator leaves int32; the message names the instruction.
    """
    item = operation.instruction
    try:
        return KERNELS[item.opcode](operation, tuple(values[name] for name in item.inputs))
    except ProgramError as error:
        raise ProgramError(error.what, where=f"instruction {item.opcode} {item.name!r}", fix=error.fix) from error


class Device:
    """A program, ready to run.

    ``fast=False`` runs the plain kernels; ``fast=True`` gives the same bytes sooner.
    """

    def __init__(self, program: Program, fast: bool = True) -> None:
        """Verify and prepare the program.

        Raises:
            ProgramError: the program breaks a rule of ``runtime.npu.verify``.
        """
        verify(program)
        self.program = program
        self._specs: Mapping[str, TensorSpec] = {spec.name: spec for spec in program.tensors}
        self._operations = operations(program)

    def run(self, tensors: Tensors) -> dict[str, Int8]:
        """The program's outputs for int8 ``tensors``, one for each of its inputs.

        Raises:
            ProgramError: a tensor is missing, unknown, or of another shape or type; an accumulator leaves int32.
        """
        values = self._run_plain(self._checked(tensors))
        return {name: values[name] for name in self.program.outputs}

    def trace(self, tensors: Tensors) -> dict[str, Int8]:
        """Every activation tensor, inputs included, from the plain kernels; raises as ``run``."""
        return self._run_plain(self._checked(tensors))

    def _run_plain(self, values: dict[str, Int8]) -> dict[str, Int8]:
        for operation in self._operations:
            values[operation.instruction.output] = run_plain(operation, values)
        return values

    def _checked(self, tensors: Tensors) -> dict[str, Int8]:
        expected = self.program.inputs
        missing = sorted(set(expected) - set(tensors))
        require(not missing, f"input {missing[:1]} is missing")
        unknown = sorted(set(tensors) - set(expected))
        require(not unknown, f"{unknown[:1]} is not an input", fix=f"the inputs are {', '.join(expected)}")
        values: dict[str, Int8] = {}
        for name in expected:
            spec, value = self._specs[name], tensors[name]
            same = value.dtype == np.int8 and value.shape == spec.shape
            require(same, f"got {value.dtype} {value.shape}, expected int8 {spec.shape}", f"input {name!r}")
            values[name] = value.astype(np.int8, copy=False)
        return values
