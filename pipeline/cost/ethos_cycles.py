"""Cycles and bytes of one operator on an Ethos-U, as Arm's own estimator counts them.

The formulas are those of ethos-u-vela 5.2.0 (its C++ core: ``ethos_u55_performance.cpp``), which differ from 3.10's
in four places, found by comparing with its ``--enable-debug-db`` output: blocks are counted in fractions of
micro-blocks; a command waits for the *difference* of reading and writing a block; the first read and the last write
are added; pooling in 8 bits takes 4 times the cycles. An estimate of an estimator: Arm calls its own figures "just an
estimate". With 16-bit feature maps the multipliers take twice the cycles (3.10's formulas: blocks of half the depth, or
twice the steps) and the bus twice the bytes. Of a detector of 35 operators in int16 on an U55-256 that is 3.2 % less
than Vela counts, of one whose second half is in int16 2.2 % more; a conversion between the types costs 12 % more.
"""

import math
from dataclasses import dataclass, replace

from pipeline.cost.ethos_blocks import SUBKERNEL, Block, Geometry, geometry, search
from pipeline.cost.ethos_machine import Machine, Memory
from pipeline.cost.nouns import WEIGHTED, Activation, Kind, Work

SCALE_BYTES = 10
"""Bias, scale and shift of one output channel."""
PADDING_BYTES = 0.35
"""What the encoder spends on a weight that only pads (between 0.23 and 0.48 on Vela 5.2.0)."""


@dataclass(frozen=True)
class Place:
    """Where a feature map lies: its memory, and whether row by row (NHWC) or in bricks of 16 channels (NHCWB16)."""

    memory: Memory
    linear: bool


@dataclass(frozen=True)
class Traffic:
    """Bytes on the buses of one operator, bursts that are not filled included.

    Attributes:
        reads, writes: of each input, and of the output.
        refetch: how often the weights are read.
        wanted: bytes of the first input that are asked for.
    """

    reads: tuple[int, ...]
    writes: int
    refetch: int
    wanted: int


def up(value: int, step: int) -> int:
    """``value`` rounded up to a multiple of ``step``."""
    return -(-value // step) * step


def encoded_bytes(work: Work, shape: Geometry) -> int:
    """Bytes of the compressed weights, scales apart: entropy, padding to whole sub-blocks, rounded to 16."""
    if work.kind not in WEIGHTED:
        return 0
    taps, out = work.taps, work.channels
    depth = 1 if work.kind is Kind.DEPTHWISE else shape.ifm[2]
    whole = taps * depth * out
    if work.kind is Kind.DEPTHWISE:
        padded = up(taps, 4) * up(out, 8)
    elif shape.part_kernel:
        padded = up(taps, 4) * up(depth, 8) * up(out, 8)
    else:
        padded = taps * up(depth, 32) * up(out, 8)
    return up(math.ceil(whole * work.density + (padded - whole) * PADDING_BYTES), 16)


def transfer(machine: Machine, place: Place, read: bool, block: tuple[int, int, int], shape: Geometry) -> float:
    """How many bytes the bus moves per element wanted: its own, by full bursts over the bytes that lie together."""
    _, width, depth = shape.ifm if read else shape.ofm
    _, bw, bd = block
    if not place.linear:
        whole = 16 * width == bd
        together = bd * bw if whole else 16 * bw * (1 if read else machine.cores)
    elif read:
        together = bd * bw if depth == bd else bd
    else:
        together = bd * bw if bd <= 16 and depth == bd else min(64, 16 * machine.cores, bd)
    size = shape.element_bytes
    return size * place.memory.burst / min(place.memory.burst, together * size)


def read_cycles(machine: Machine, shape: Geometry, block: Block, place: Place) -> int:
    """Cycles until the first block of input is there."""
    wanted = math.prod(min(a, b) for a, b in zip(shape.ifm, block.ifm, strict=True))
    moved = int(wanted * transfer(machine, place, True, block.ifm, shape))
    return int(moved / place.memory.bytes_per_cycle) + int(place.memory.read_latency)


def write_cycles(machine: Machine, shape: Geometry, block: Block, place: Place) -> int:
    """Cycles until the last block of output is written."""
    wanted = math.prod(min(a, b) for a, b in zip(shape.ofm, block.ofm, strict=True))
    moved = int(wanted * transfer(machine, place, False, block.ofm, shape))
    return int(moved / place.memory.bytes_per_cycle) + int(place.memory.write_latency)


def output_rate(machine: Machine, work: Work) -> float:
    """Cycles per element in the output stage."""
    names = {"Mul": 0, "Div": 0, "Add": 1, "Sub": 1, "MaxPool": 2, "GlobalMaxPool": 2}
    rate = machine.stage.output[names.get(work.op, 3)]
    if work.kind is Kind.LUT:
        return max(rate, machine.stage.table)
    return max(rate, machine.stage.clamp) if work.activation is Activation.CLAMP else rate


def mac_cycles(machine: Machine, shape: Geometry, block: Block) -> int:
    """Cycles of the multipliers for one block."""
    unit = _unit(machine, shape)
    high, wide, deep = (-(-min(o, b) // u) for o, b, u in zip(shape.ofm, block.ofm, unit, strict=True))
    area, decoder = high * wide, 32 * unit[2] // 8
    depth_block = min(shape.ifm[2], block.ifm[2])
    total = 0
    limit = 1 if shape.kind is Kind.FC else SUBKERNEL
    for y in range(0, shape.kernel[0], limit):
        for x in range(0, shape.kernel[1], limit):
            taps = min(limit, shape.kernel[0] - y) * min(limit, shape.kernel[1] - x)
            steps, times = taps, 1
            if shape.kind is Kind.POOL:
                steps, cycles = 1, max(4, taps) * area * deep * (4 if machine.block[2] == 8 else 1)
            else:
                if shape.kind is Kind.DEPTHWISE or shape.part_kernel:
                    steps = -(-taps // 4)
                times = -(-depth_block // 8) if shape.part_kernel else 1
                cycles = max(decoder, 4 * area) * steps * deep * times
            total += cycles + _bubble(machine, area, deep, steps) * times
    if shape.kind in (Kind.CONV, Kind.FC):
        total *= -(-shape.ifm[2] // depth_block)
    return total * shape.element_bytes // machine.cores


def _bubble(machine: Machine, area: int, deep: int, steps: int) -> int:
    """Cycles that a block of a single column of micro-blocks waits for its own sums."""
    delay = 3 if machine.block[2] == 4 else 2
    if area > 1:
        return 0
    return delay * steps if deep == 1 else delay * (steps - 1) * deep


def _unit(machine: Machine, shape: Geometry) -> tuple[int, int, int]:
    """The micro-block; a row of four for rows of even width on machines whose micro-block has two rows."""
    flat = shape.kind in (Kind.CONV, Kind.FC) and shape.ofm[0] == 1 and shape.ofm[1] % 2 == 0 and shape.kernel[0] == 1
    return (1, 4, machine.block[2]) if flat and machine.block[0] == 2 else machine.block


def blocks_of(machine: Machine, work: Work, rows: int | None) -> tuple[Geometry, Block]:
    """The geometry of ``work`` and its block; ``rows``: of output at a time, in a cascade."""
    shape = geometry(work)
    if rows is None or rows >= shape.ofm[0]:
        return shape, search(machine, shape)
    need = min(shape.ifm[0], (rows - 1) * shape.stride[0] + shape.spans[0])
    return shape, search(machine, replace(shape, ofm=(rows, *shape.ofm[1:]), ifm=(need, *shape.ifm[1:])))


def stored_bytes(machine: Machine, work: Work) -> int:
    """Bytes of the weights as they are stored, encoded and with their scales; 0 for an operator without."""
    if work.kind not in WEIGHTED:
        return 0
    return encoded_bytes(work, geometry(work)) + SCALE_BYTES * work.channels


def operator_cycles(
    machine: Machine, work: Work, tiling: tuple[Geometry, Block], reads: tuple[Place, ...], write: Place,
    bias: Memory | None,
) -> float:  # fmt: skip
    """Cycles of ``work`` with its blocks in a pipeline of multipliers and output stage; ``bias``: where scales lie."""
    ifm, core, ofm = phases(machine, work, tiling, reads, write, bias)
    return ifm + core + ofm


def phases(
    machine: Machine, work: Work, tiling: tuple[Geometry, Block], reads: tuple[Place, ...], write: Place,
    bias: Memory | None,
) -> tuple[int, int, int]:  # fmt: skip
    """Cycles until the first block is read, of the pipeline, and until the last block is written."""
    shape, block = tiling
    ifm = max((read_cycles(machine, shape, block, place) for place in reads), default=0)
    ofm = write_cycles(machine, shape, block, write)
    rate = output_rate(machine, work)
    if shape.elementwise:
        elements = math.prod(shape.ofm[:2]) * (shape.ofm[2] if write.linear else up(shape.ofm[2], 16))
        command = (max(ifm, ofm) / math.prod(block.ofm) + rate) / 4
        return 0, math.ceil(max(command, rate) * elements), 0
    unit = _unit(machine, shape)
    counts = [-(-o // u) for o, u in zip(shape.ofm, unit, strict=True)]
    inside = [-(-min(o, b) // u) for o, b, u in zip(shape.ofm, block.ofm, unit, strict=True)]
    blocks = math.prod(counts) / math.prod(inside)
    size = math.prod(min(o, b) for o, b in zip(shape.ofm, block.ofm, strict=True))
    out: float = math.ceil(rate * size)
    if bias is not None:
        out = max(out, SCALE_BYTES * min(shape.ofm[2], block.ofm[2]) * bias.read_latency / 256)
    macs = mac_cycles(machine, shape, block)
    command = ((abs(ifm - ofm) if blocks > 1 else 0) + macs + out) / 4
    macs_block, out_block = max(macs, command), max(out, command)
    slow, fast = max(macs_block, out_block), min(macs_block, out_block)
    return ifm, int(slow * blocks + fast), ofm


def traffic(machine: Machine, tiling: tuple[Geometry, Block], reads: tuple[Place, ...], write: Place) -> Traffic:
    """Bytes of feature maps that an operator moves, and how often its weights are read."""
    shape, block = tiling
    ofm_bytes = math.prod(shape.ofm[:2]) * (shape.ofm[2] if write.linear else up(shape.ofm[2], 16))
    written = int(ofm_bytes * transfer(machine, write, False, block.ofm, shape))
    blocks = [-(-o // min(o, b)) for o, b in zip(shape.ofm, block.ofm, strict=True)]
    count = math.prod(blocks[:2] if shape.equal_depth else blocks)
    pieces = math.prod(-(-k // (1 if shape.kind is Kind.FC else SUBKERNEL)) for k in shape.kernel)
    area = math.prod(min(a, b) for a, b in zip(shape.ifm[:2], block.ifm[:2], strict=True))
    moved, first = [], 0
    for place in reads:
        depth = shape.ifm[2] if place.linear else up(shape.ifm[2], 16)
        wanted = math.prod(shape.ofm[:2]) * depth if shape.elementwise else area * depth * pieces * count
        first = first or wanted * shape.element_bytes
        moved.append(int(wanted * transfer(machine, place, True, block.ifm, shape)))
    return Traffic(tuple(moved), written, blocks[0] * blocks[1], first)
