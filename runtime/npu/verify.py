"""What makes a program legal: the checks between instructions; rules of single opcodes are in ``runtime.npu.rules``.

A program that passes cannot make a kernel read outside its arrays or allocate without bound. What stays a matter of
the data, and is checked while running, is that an accumulator fits the contract's.
"""

import math
from collections.abc import Mapping

from runtime.errors import ProgramError
from runtime.npu.contracts import Contract, find_contract
from runtime.npu.program import Instruction, Program
from runtime.npu.rules import OPCODES
from runtime.npu.rules.call import MAX_ELEMENTS, MAX_RANK, Call, require
from runtime.npu.verify_schedule import verify_schedule
from runtime.tensors import TensorSpec

__all__ = ["MAX_ELEMENTS", "MAX_RANK", "OPCODES", "require", "verify"]


def verify(program: Program) -> None:
    """Check everything that can be known before running.

    Raises:
        ProgramError: the first rule that is broken; the message names the instruction or tensor, and the reason.
    """
    contract = find_contract(program.contract)
    for name, value in program.device.items():
        require(math.isfinite(value) and value >= 0, f"{value} is not a legal figure", f"device.{name}")
    specs: dict[str, TensorSpec] = {}
    for spec in program.tensors:
        require(spec.name not in specs, "declared twice", f"tensor {spec.name!r}")
        _verify_tensor(spec, contract)
        specs[spec.name] = spec
    written = _verify_names(program.inputs, specs, "inputs")
    for index, instruction in enumerate(program.instructions):
        where = f"instruction {index} ({instruction.opcode} {instruction.name!r})"
        try:
            _verify_instruction(instruction, specs, written, contract)
        except ProgramError as error:
            raise ProgramError(error.what, where=where, fix=error.fix) from error
        written.add(instruction.output)
    _verify_names(program.outputs, specs, "outputs")
    for name in program.outputs:
        require(name in written, "no instruction writes it", f"output {name!r}")
    for name in specs:
        require(name in written, "no instruction writes it", f"tensor {name!r}")
    verify_schedule(program)


def _verify_tensor(spec: TensorSpec, whole: Contract) -> None:
    where, contract = f"tensor {spec.name!r}", whole.by_type(spec.dtype)
    if contract is None:
        raise ProgramError(f"type {spec.dtype!r} is not {' or '.join(whole.types)}", where=where)
    low, high = contract.limits
    scale, zero_point = spec.scale, spec.zero_point
    require(scale is not None and math.isfinite(scale) and scale > 0, f"scale {scale} is not above 0", where)
    inside = zero_point is not None and low <= zero_point <= high
    require(inside, f"zero point {zero_point} is not {contract.activations}", where)
    require(zero_point == 0 or not contract.symmetric, f"zero point {zero_point}, the contract is symmetric", where)
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


def _verify_instruction(
    instruction: Instruction, specs: Mapping[str, TensorSpec], written: set[str], contract: Contract
) -> None:
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
    inputs, output = tuple(specs[name] for name in instruction.inputs), specs[instruction.output]
    if instruction.opcode != "requantize":
        for spec in inputs:
            require(spec.dtype == output.dtype, f"{spec.name!r} is {spec.dtype}, {output.name!r} is {output.dtype}")
    call = Call(instruction, inputs, output, (contract.by_type(output.dtype) or contract).of(instruction.opcode))
    shape = opcode.rule(call)
    have_shape = call.output.shape
    require(shape == have_shape, f"its output has shape {shape}, but {call.output.name!r} declares {have_shape}")
