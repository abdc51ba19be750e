"""Addresses: blocks of bytes with live ranges are placed so that none overlaps another that is live with it."""

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.npu.schedule import ALIGNMENT


@dataclass(frozen=True)
class Block:
    """Bytes that are live from step ``first`` to ``last``, both included."""

    bytes: int
    first: int
    last: int


def aligned(size: int) -> int:
    """``size`` rounded up to a multiple of the alignment of addresses."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def place(blocks: Sequence[Block]) -> tuple[int, ...]:
    """The address of each block: the largest first, each into the lowest gap (TensorFlow Lite's greedy by size)."""
    order = sorted(range(len(blocks)), key=lambda i: (-blocks[i].bytes, blocks[i].first, i))
    addresses = [0] * len(blocks)
    placed: list[int] = []
    for i in order:
        block, address = blocks[i], 0
        alive = [j for j in placed if blocks[j].first <= block.last and block.first <= blocks[j].last]
        for j in sorted(alive, key=lambda j: addresses[j]):
            if addresses[j] - address >= aligned(block.bytes):
                break
            address = max(address, addresses[j] + aligned(blocks[j].bytes))
        addresses[i] = address
        placed.append(i)
    return tuple(addresses)


def demand(blocks: Sequence[Block], steps: int) -> list[int]:
    """Bytes that are live in each of ``steps`` steps: no placement can do with less than the largest."""
    change = [0] * (steps + 1)
    for block in blocks:
        change[block.first] += aligned(block.bytes)
        change[block.last + 1] -= aligned(block.bytes)
    held, total = [], 0
    for delta in change[:steps]:
        total += delta
        held.append(total)
    return held
