"""Run single instructions with their plain kernels."""

from collections.abc import Mapping

from runtime.errors import ProgramError
from runtime.npu.contracts import find_contract
from runtime.npu.kernels import KERNELS, Operation, Values
from runtime.npu.program import Program


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
