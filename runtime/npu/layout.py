"""How an instruction's parameters lie in memory, in both directions.

Every section starts at a multiple of 16 bytes; integers are little-endian. An instruction with weights has one block
per tile of its output channels, one after the other, so that one burst brings all that a tile needs: the weight of its
channels [o, i, ...] as ``[o / L, ..., i, L]`` with L ``lanes`` interleaved output channels (fewer when the tile has
fewer; channels that fill the last group up are 0), then bias, multiplier and shift. All others have one block with
their constants in the order of their names.
"""

import itertools
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from runtime.npu.program import Instruction
from runtime.npu.schedule import ALIGNMENT, IMMEDIATE_BYTES

Constants = Mapping[str, NDArray[np.generic]]
WEIGHTED = frozenset({"conv2d", "fully_connected"})


def immediate(instruction: Instruction) -> bool:
    """Whether its constants are so few that its commands carry them."""
    return sum(array.nbytes for array in instruction.constants.values()) <= IMMEDIATE_BYTES


def spans(instruction: Instruction, cuts: tuple[int, ...]) -> list[tuple[int, int]]:
    """The output channels of each block; of an instruction without weights there is one block with all."""
    return list(itertools.pairwise(cuts)) if instruction.opcode in WEIGHTED else [(0, 0)]


def block_bytes(instruction: Instruction, span: tuple[int, int], lanes: int) -> int:
    """Size of the block of output channels ``span``."""
    return sum(_up(_stored(instruction, name, span, lanes)) for name in _order(instruction))


def pack(instruction: Instruction, span: tuple[int, int], lanes: int) -> bytes:
    """The block of output channels ``span``."""
    parts = []
    for name in _order(instruction):
        array = instruction.constants[name]
        if instruction.opcode in WEIGHTED:
            array = array[slice(*span)]
            array = _interleaved(array, lanes) if name == "weight" else array
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        parts.append(data + bytes(-len(data) % ALIGNMENT))
    return b"".join(parts)


def unpack(instruction: Instruction, span: tuple[int, int], lanes: int, block: NDArray[np.uint8]) -> Constants:
    """The constants in ``block``, as ``pack`` wrote them: of the channels ``span`` alone."""
    found, offset = {}, 0
    for name in _order(instruction):
        array = instruction.constants[name]
        length = _stored(instruction, name, span, lanes)
        raw = block[offset : offset + length].view(array.dtype.newbyteorder("<"))
        weighted = instruction.opcode in WEIGHTED
        shape = (span[1] - span[0], *array.shape[1:]) if weighted else array.shape
        values = _straight(raw, shape, lanes) if weighted and name == "weight" else raw.reshape(shape)
        found[name] = values.astype(array.dtype)
        offset += _up(length)
    return found


def checksum(instruction: Instruction, cuts: tuple[int, ...], lanes: int) -> int:
    """CRC-32 of all blocks."""
    value = 0
    for span in spans(instruction, cuts):
        value = zlib.crc32(pack(instruction, span, lanes), value)
    return value


def _order(instruction: Instruction) -> tuple[str, ...]:
    if instruction.opcode not in WEIGHTED:
        return tuple(sorted(instruction.constants))
    return ("weight", *sorted(instruction.constants.keys() - {"weight"}))


def _stored(instruction: Instruction, name: str, span: tuple[int, int], lanes: int) -> int:
    """Bytes of one section without what fills it up to a multiple of 16."""
    array = instruction.constants[name]
    if instruction.opcode not in WEIGHTED:
        return array.nbytes
    count = span[1] - span[0]
    if name == "weight":
        group = min(lanes, count)
        count = -(-count // group) * group
    return array.nbytes // len(array) * count


def _interleaved(weight: NDArray[np.generic], lanes: int) -> NDArray[np.generic]:
    """[o, i, ...] as [o / L, ..., i, L]."""
    count, depth, *kernel = weight.shape
    group = min(lanes, count)
    padded = np.zeros((-(-count // group) * group, depth, *kernel), weight.dtype)
    padded[:count] = weight
    split = padded.reshape(-1, group, depth, *kernel)
    return np.ascontiguousarray(np.moveaxis(split, (1, 2), (-1, -2)))


def _straight(raw: NDArray[np.generic], shape: tuple[int, ...], lanes: int) -> NDArray[np.generic]:
    """The way back to [o, i, ...]."""
    count, depth, *kernel = shape
    group = min(lanes, count)
    split = np.moveaxis(raw.reshape(-1, *kernel, depth, group), (-1, -2), (1, 2))
    return split.reshape(-1, depth, *kernel)[:count]


def _up(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
