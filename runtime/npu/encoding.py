"""The binary file format of programs, in both directions.

File format, version 2, little-endian: magic ``NPUP``, version (uint32), header length (uint32), header (canonical
JSON, ASCII: sorted keys, no spaces), zero padding to a multiple of 16, then every constant, each padded with zeros to a
multiple of 16. A constant's offset in the header counts from the end of the header's padding. One program has exactly
one encoding, so equal programs are equal bytes.

Version 2 has the key ``schedule`` (``runtime.npu.schedule_encoding``); a program without a schedule is written as
version 1, which has not.
"""

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime import strict_json
from runtime.errors import ProgramError
from runtime.npu import schedule_encoding
from runtime.npu.program import Attribute, Instruction, Program
from runtime.npu.rules.call import MAX_ELEMENTS, MAX_RANK, require
from runtime.npu.verify import verify
from runtime.tensors import TensorSpec

MAGIC = b"NPUP"
VERSION = 2
UNSCHEDULED = 1
"""The version of a program without a schedule."""
MAX_HEADER_BYTES = 1 << 24
MAX_DEPTH, MAX_VALUES = 16, 1 << 20
"""Of the header's JSON: lists and objects inside each other, and all values."""
MAX_TOTAL = 1 << 28
"""Elements of all tensors of a program together."""
_PREFIX = struct.Struct("<4sII")
_ALIGNMENT = 16
_DTYPES: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(name).newbyteorder("<") for name in ("int8", "uint8", "int16", "int32", "int64")
}


def dumps(program: Program) -> bytes:
    """The program's one encoding.

    Raises:
        ProgramError: the program breaks a rule of ``runtime.npu.verify``; the message names the instruction.
    """
    verify(program)
    return _encode(program)


def loads(data: bytes) -> Program:
    """Read and verify a program.

    Raises:
        ProgramError: not a program, damaged, written by a newer version, or breaking a rule of
            ``runtime.npu.verify``; the message names the instruction and the reason.
    """
    version, header, blob = _split(data)
    program = _decode(version, header, blob)
    verify(program)
    _bound(program, len(blob))
    require(_encode(program) == data, "the file is not in canonical form", fix="compile the program again")
    return program


def _bound(program: Program, available: int) -> None:
    """What the program would take in memory must be in proportion: constants share no bytes, tensors have an end."""
    constants = sum(array.nbytes for step in program.instructions for array in step.constants.values())
    require(constants <= available, f"constants of {constants} bytes lie in {available}: some share bytes")
    elements = sum(math.prod(spec.shape) for spec in program.tensors)
    require(elements <= MAX_TOTAL, f"tensors of {elements} elements together, more than {MAX_TOTAL}")


def _encode(program: Program) -> bytes:
    blob = bytearray()
    instructions = []
    for instruction in program.instructions:
        constants = {}
        for name in sorted(instruction.constants):
            array = instruction.constants[name]
            dtype = _DTYPES[array.dtype.name]
            constants[name] = {"dtype": array.dtype.name, "shape": list(array.shape), "offset": len(blob)}
            blob += _padded(array.astype(dtype, order="C").tobytes())
        instructions.append(
            {
                "opcode": instruction.opcode,
                "name": instruction.name,
                "inputs": list(instruction.inputs),
                "output": instruction.output,
                "attributes": dict(instruction.attributes),
                "constants": constants,
            }
        )
    header: dict[str, Any] = {
        "target": program.target,
        "contract": program.contract,
        "device": {name: float(value) for name, value in program.device.items()},
        "tensors": [
            {
                "name": t.name,
                "shape": list(t.shape),
                "dtype": t.dtype,
                "scale": _real(t.scale),
                "zero_point": t.zero_point,
            }
            for t in program.tensors
        ],
        "inputs": list(program.inputs),
        "outputs": list(program.outputs),
        "instructions": instructions,
    }
    version = UNSCHEDULED
    if program.schedule is not None:
        header["schedule"], version = schedule_encoding.describe(program.schedule), VERSION
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    prefix = _PREFIX.pack(MAGIC, version, len(text))
    return _padded(prefix + text) + bytes(blob)


def _real(value: float | None) -> float | None:
    return None if value is None else float(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)


def _split(data: bytes) -> tuple[int, dict[str, Any], memoryview]:
    """Check the prefix and parse the header; give the version, the header and the constants' bytes."""
    require(len(data) >= _PREFIX.size and data[:4] == MAGIC, "this is not an NPU program (wrong magic)")
    _, version, length = _PREFIX.unpack_from(data)
    require(
        version <= VERSION,
        f"the program has format version {version}, newer than {VERSION}",
        fix="update the runtime",
    )
    require(version in (UNSCHEDULED, VERSION), f"the program has the unknown format version {version}")
    require(length <= MAX_HEADER_BYTES, f"the header claims {length} bytes, more than {MAX_HEADER_BYTES}")
    end = _PREFIX.size + length
    require(len(data) >= end, f"the file ends inside the header ({len(data)} of {end} bytes)")
    depth, values = strict_json.measure(data[_PREFIX.size : end], depth=MAX_DEPTH, values=MAX_VALUES)
    require(
        depth <= MAX_DEPTH and values <= MAX_VALUES, "the header has too many values, or too deep inside each other"
    )
    try:
        header = json.loads(data[_PREFIX.size : end].decode("ascii"))
    except ValueError as error:
        raise ProgramError(f"the header cannot be read: {type(error).__name__}") from error
    require(isinstance(header, dict), "the header is not an object")
    return version, header, memoryview(data)[end + -end % _ALIGNMENT :]


def _decode(version: int, header: dict[str, Any], blob: memoryview) -> Program:
    kinds: dict[str, type] = {
        "target": str,
        "contract": str,
        "device": dict,
        "tensors": list,
        "inputs": list,
        "outputs": list,
        "instructions": list,
    }
    fields = _fields(header, "header", kinds if version == UNSCHEDULED else {**kinds, "schedule": dict})
    return Program(
        target=fields["target"],
        contract=fields["contract"],
        device={str(name): _number(value, f"device.{name}") for name, value in fields["device"].items()},
        tensors=tuple(_decode_tensor(entry, f"tensor {i}") for i, entry in enumerate(fields["tensors"])),
        inputs=_strings(fields["inputs"], "inputs"),
        outputs=_strings(fields["outputs"], "outputs"),
        instructions=tuple(
            _decode_instruction(entry, f"instruction {i}", blob) for i, entry in enumerate(fields["instructions"])
        ),
        schedule=None if version == UNSCHEDULED else schedule_encoding.read(fields["schedule"]),
    )


def _decode_tensor(entry: object, where: str) -> TensorSpec:
    kinds = {"name": str, "shape": list, "dtype": str, "scale": float, "zero_point": int}
    fields = _fields(entry, where, kinds)
    shape = _integers(fields["shape"], where)
    return TensorSpec(fields["name"], shape, fields["dtype"], fields["scale"], fields["zero_point"])


def _decode_instruction(entry: object, where: str, blob: memoryview) -> Instruction:
    kinds = {"opcode": str, "name": str, "inputs": list, "output": str, "attributes": dict, "constants": dict}
    fields = _fields(entry, where, kinds)
    attributes: dict[str, Attribute] = {}
    for name, value in fields["attributes"].items():
        attributes[name] = value if type(value) is int else _integers(value, f"{where}: attribute {name}")
    constants = {
        name: _decode_constant(value, f"{where}: constant {name}", blob) for name, value in fields["constants"].items()
    }
    inputs = _strings(fields["inputs"], where)
    return Instruction(fields["opcode"], fields["name"], inputs, fields["output"], attributes, constants)


def _decode_constant(entry: object, where: str, blob: memoryview) -> NDArray[np.generic]:
    fields = _fields(entry, where, {"dtype": str, "shape": list, "offset": int})
    require(fields["dtype"] in _DTYPES, f"{fields['dtype']!r} is not a constant's type", where)
    shape, offset, dtype = _integers(fields["shape"], where), fields["offset"], _DTYPES[fields["dtype"]]
    require(len(shape) <= MAX_RANK, f"has {len(shape)} dimensions, more than {MAX_RANK}", where)
    count = 1
    for size in shape:
        require(size > 0, f"shape {shape} has a dimension below 1", where)
        count *= size
        require(count <= MAX_ELEMENTS, f"shape {shape} has more than {MAX_ELEMENTS} elements", where)
    inside = offset >= 0 and offset % _ALIGNMENT == 0 and offset + count * dtype.itemsize <= len(blob)
    require(inside, f"offset {offset} with shape {shape} lies outside the file's {len(blob)} constant bytes", where)
    values: NDArray[np.generic] = np.frombuffer(blob, dtype, count, offset).reshape(shape)
    native: NDArray[np.generic] = values.astype(dtype.newbyteorder("="), copy=False)
    return native


def _fields(entry: object, where: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """``entry`` as a dictionary with exactly the keys of ``kinds``, each of its type."""
    require(isinstance(entry, dict), "is not an object", where)
    assert isinstance(entry, dict)
    unknown, missing = sorted(entry.keys() - kinds.keys()), sorted(kinds.keys() - entry.keys())
    require(not unknown, f"unknown key {unknown[:1]}", where)
    require(not missing, f"missing key {missing[:1]}", where)
    for key, kind in kinds.items():
        require(type(entry[key]) is kind, f"{key} must be of type {kind.__name__}", where)
    return entry


def _strings(values: list[object], where: str) -> tuple[str, ...]:
    names = tuple(value for value in values if isinstance(value, str))
    require(len(names) == len(values), "a tensor name is not a string", where)
    return names


def _integers(values: object, where: str) -> tuple[int, ...]:
    items = values if isinstance(values, list) else [None]
    integers = tuple(value for value in items if type(value) is int)
    require(len(integers) == len(items), "expected integers", where)
    return integers


def _number(value: object, where: str) -> float:
    require(type(value) is float, f"{value!r} is not a number", where)
    assert isinstance(value, float)
    return value
