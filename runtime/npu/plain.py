"""Run single instructions with their plain kernels."""

from collections.abc import Mapping

from runtime.errors import ProgramError
from runtime.npu.contracts import Contract, find_contract
from runtime.npu.kernels import KERNELS, Operation, Values
from runtime.npu.program import Instruction, Program
from runtime.tensors import TensorSpec


def operations(program: Program) -> tuple[Operation, ...]:
    """The program's instructions with the specs of their tensors, and for each the contract it is requantized by.

    Raises:
        ProgramError: the contract is not known.
    """
    contract = find_contract(program.contract)
    specs = {spec.name: spec for spec in program.tensors}
    return tuple(
        Operation(item, tuple(specs[name] for name in item.inputs), specs[item.output], _of(item, specs, contract))
        for item in program.instructions
    )


def _of(item: Instruction, specs: Mapping[str, TensorSpec], contract: Contract) -> Contract:
    """The contract of the output's type, which a verified program has."""
    return (contract.by_type(specs[item.output].dtype) or contract).of(item.opcode)


def run_plain(operation: Operation, values: Mapping[str, Values]) -> Values:
    """One instruction with its plain kernel, on the tensors it reads.

    Raises:
        ProgramError: an accumulator leaves int32; the message names the instruction.
    """
    item = operation.instruction
    try:
        return KERNELS[item.opcode](operation, tuple(values[name] for name in item.inputs))
    except ProgramError as error:
        raise ProgramError(error.what, where=f"instruction {item.opcode} {item.name!r}", fix=error.fix) from error
