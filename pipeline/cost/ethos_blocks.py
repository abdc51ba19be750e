"""The block of output that an Ethos-U works on at a time: the search that its compiler does, over all blocks at once.

A block is legal if its input (twice, in banks of 1 KiB, in granules) and its accumulators (twice, of 32 bits; of 40 for
sums of 16-bit feature maps) fit the shared RAM. Among the legal ones the compiler takes the one that fetches least per
output element; a block whose input covers the whole feature map counts half. Source: ethos-u-vela 5.2.0 (its C++ core,
``ethos_u55.cpp``), as facts; for 16 bits ``architecture_allocator.py`` there.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.cost.ethos_machine import BANK, Machine
from pipeline.cost.nouns import Kind, Work

LARGEST = (32, 64, 128)
"""Height, width and depth of the largest block."""
SUBKERNEL = 8
"""Larger kernels are cut into pieces of at most this side."""
SPLIT = 16
"""Depths below the full one are multiples of this."""
OUTPUT_BANKS = 2


@dataclass(frozen=True)
class Geometry:
    """What the search needs to know of an operator: output and input as height, width, channels, and the window.

    ``element_bytes``: of a feature map's element.
    """

    kind: Kind
    ofm: tuple[int, int, int]
    ifm: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    element_bytes: int = 1

    @property
    def equal_depth(self) -> bool:
        """Whether output channels read only their own input channel."""
        return self.kind not in (Kind.CONV, Kind.FC)

    @property
    def elementwise(self) -> bool:
        """Whether it needs no accumulators but room for two inputs."""
        return self.kind is Kind.ELEMENTWISE

    @property
    def part_kernel(self) -> bool:
        """Whether a convolution walks the kernel before the channels, which pays for few channels."""
        if self.kind is not Kind.CONV:
            return False
        channels, taps = self.ifm[2], self.kernel[0] * self.kernel[1]
        if channels <= 8:
            return True
        part = channels / _up(channels, 8) * (taps / _up(taps, 4))
        return part >= channels / _up(channels, 32)

    @property
    def spans(self) -> tuple[int, int]:
        """Height and width of the dilated kernel."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1


@dataclass(frozen=True)
class Block:
    """The chosen block: height, width and depth of output and of input."""

    ofm: tuple[int, int, int]
    ifm: tuple[int, int, int]


def geometry(work: Work) -> Geometry:
    """What the search needs to know of ``work``; lookups and copies run as 1x1 pools, as Vela has them."""
    kinds = {Kind.LUT: Kind.POOL, Kind.COPY: Kind.POOL, Kind.OTHER: Kind.POOL}
    kind = kinds.get(work.kind, work.kind)
    ofm = (work.height, work.width, work.channels)
    windowed = work.kind in (Kind.CONV, Kind.DEPTHWISE, Kind.POOL)
    channels = math.ceil(work.in_channels / work.groups) if work.kind is Kind.CONV else work.in_channels
    ifm = (work.in_height, work.in_width, channels) if windowed or work.kind is Kind.FC else ofm
    if windowed and work.kind is not Kind.CONV:
        ifm = (work.in_height, work.in_width, work.channels)
    return Geometry(kind, ofm, ifm, work.kernel, work.stride, work.dilation, work.element_bytes)


@lru_cache(maxsize=4096)
def search(machine: Machine, shape: Geometry) -> Block:
    """The block that an Ethos-U ``machine`` takes for ``shape``; the smallest where none is legal."""
    heights, widths, depths = _axes(machine, shape)
    depth, height, width = np.meshgrid(depths, heights, widths, indexing="ij")
    rows, columns, channels = _ifm(machine, shape, height, width, depth)
    accumulated = np.minimum(height, shape.ofm[0]) if _flat(machine, shape) else height
    legal = _legal(machine, shape, accumulated * width, depth, rows * columns, channels)
    price = _price(shape, accumulated, width, depth, rows, columns, channels).astype(np.float32)
    price = np.where(legal, price, np.float32(np.inf)).ravel()
    index = _choose(price, shape, height.ravel(), width.ravel(), rows.ravel(), columns.ravel())
    pick = tuple(int(a.ravel()[index]) for a in (height, width, depth, rows, columns, channels))
    return Block(pick[:3], pick[3:])  # type: ignore[arg-type]


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _flat(machine: Machine, shape: Geometry) -> bool:
    """Whether a block of one row is computed as such on the machines whose micro-block has two."""
    return shape.ofm[0] == 1 and shape.kernel[0] == 1 and machine.block[0] == 2


def _axes(machine: Machine, shape: Geometry) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The heights, widths and depths that are tried."""
    limits = [_up(min(o, m), u) for o, m, u in zip(shape.ofm, LARGEST, machine.block, strict=True)]
    unit = machine.block[2]
    depths: list[int] = []
    depth = max(unit, min(limits[2], SPLIT))
    while True:
        depth = _up(depth, SPLIT) if depth < shape.ofm[2] else depth
        if depths and depth > limits[2]:
            break
        depths.append(depth)
        depth += unit
    heights = np.arange(machine.block[0], limits[0] + 1, machine.block[0])
    widths = np.arange(machine.block[1], limits[1] + 1, machine.block[1])
    return heights, widths, np.array(depths)


Grid = NDArray[np.int64]


def _ifm(machine: Machine, shape: Geometry, height: Grid, width: Grid, depth: Grid) -> tuple[Grid, Grid, Grid]:
    """Height, width and depth of the input that each block needs."""
    sides = []
    for size, axis in ((height, 0), (width, 1)):
        need = (size - 1) * shape.stride[axis] + min(shape.spans[axis], SUBKERNEL)
        sides.append(-(-need // machine.block[axis]) * machine.block[axis])
    if shape.equal_depth:
        return sides[0], sides[1], depth
    channels = _up(min(shape.ifm[2], 16 if shape.part_kernel else 32), 8)
    return sides[0], sides[1], np.full_like(depth, channels)


def _legal(
    machine: Machine, shape: Geometry, area: Grid, depth: Grid, ifm_area: Grid, channels: Grid
) -> NDArray[np.bool_]:
    """Which blocks fit the shared RAM."""
    granule = machine.stage.ifm_granule
    wide = shape.element_bytes > 1 and shape.kind is not Kind.POOL
    inputs = -(-ifm_area * (-(-channels * shape.element_bytes // 8) * 8) // BANK) * 2
    inputs = -(-inputs // granule) * granule
    end = machine.banks - machine.reserved
    if shape.elementwise:
        fits: NDArray[np.bool_] = OUTPUT_BANKS + 2 * inputs <= end
        return fits
    size, granule = (5, machine.stage.wide_granule) if wide else (4, machine.stage.acc_granule)
    sums = -(-area * (-(-depth // 8) * 8) * size // BANK) * 2
    sums = -(-sums // granule) * granule
    legal: NDArray[np.bool_] = OUTPUT_BANKS + inputs <= end - sums
    return legal


def _price(
    shape: Geometry, height: Grid, width: Grid, depth: Grid, rows: Grid, columns: Grid, channels: Grid
) -> NDArray[np.float64]:
    """Elements fetched per element of output."""
    (out_h, out_w, out_c), elements = shape.ofm, math.prod(shape.ofm)
    if shape.elementwise:
        price = elements / (height * width * depth)
    else:
        spans = math.ceil(shape.spans[0] / SUBKERNEL) * math.ceil(shape.spans[1] / SUBKERNEL)
        fetched = rows * columns * shape.ifm[2] * spans * (out_w / width) * (out_h / height)
        if not shape.equal_depth:
            fetched = fetched * -(-out_c // depth)
        weights = np.zeros_like(fetched)
        if shape.kind in (Kind.CONV, Kind.DEPTHWISE):
            weights = weights + math.prod(shape.kernel) * shape.ifm[2] * -(-out_h // height) * -(-out_w // width)
            weights = weights if shape.kind is Kind.DEPTHWISE else weights * (out_c / depth) * depth
        price = (fetched + weights) / elements
    return np.where(math.prod(shape.ifm) < rows * columns * channels * 2, price / 2, price)


def _choose(price: NDArray[np.float32], shape: Geometry, height: Grid, width: Grid, rows: Grid, columns: Grid) -> int:
    """The first cheapest block, or the last small one of equal price that covers most of the input."""
    first = int(np.argmin(price))
    if not np.isfinite(price[first]):
        return 0
    small = np.flatnonzero((price == price[first]) & (height <= 4) & (width <= 4))
    small = small[small > first]
    if not small.size:
        return first
    covered = np.minimum(rows[small], shape.ifm[0]) * np.minimum(columns[small], shape.ifm[1])
    return int(small[np.flatnonzero(covered == covered.max())[-1]])
