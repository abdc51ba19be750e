"""The Arm Ethos-U55 and U65 as machines: micro-blocks, shared RAM, output stage and memories.

Constants of the configurations: ethos-u-vela 3.10 (nxp-imx/ethos-u-vela at a6f6566), ``architecture_features.py``;
the same in 5.2.0. Cycles per element of the output stage: index 0 is a Mul, 1 an Add or Sub, 2 a maximum pool, 3 all
else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from pipeline.cost.nouns import Device

BANK = 1024
"""Bytes of one bank of the shared RAM."""
NEEDED = ("clock_hz", "ofm_block_height", "ofm_block_width", "ofm_block_depth", "shram_bytes", "sram_bytes_per_second")
"""Figures without which there is no estimate."""


@dataclass(frozen=True)
class Memory:
    """One memory as the NPU sees it: bytes per cycle, bytes of a full burst, cycles until the first byte."""

    name: str
    bytes_per_cycle: float
    burst: int = 1
    read_latency: float = 0.0
    write_latency: float = 0.0


@dataclass(frozen=True)
class Stage:
    """The granularity and the speed of one size of micro-block.

    Attributes:
        ifm_granule, acc_granule, wide_granule: banks that inputs, 32-bit and 40-bit accumulators are handed out in.
        output: cycles per element of a Mul, an Add, a maximum pool, anything else.
        table, clamp: cycles per element of a lookup and of a clamp.
    """

    ifm_granule: int
    acc_granule: int
    wide_granule: int
    output: tuple[float, float, float, float]
    table: float
    clamp: float


STAGES: Mapping[tuple[int, int, int], Stage] = MappingProxyType(
    {
        (1, 1, 4): Stage(2, 4, 4, (3.0, 6.0, 1.0, 2.0), 1.0, 1.0),
        (1, 1, 8): Stage(2, 4, 8, (1.5, 3.0, 0.5, 1.0), 1.0, 1.0),
        (1, 2, 8): Stage(4, 8, 12, (0.75, 1.5, 0.25, 0.5), 1.0, 0.5),
        (2, 2, 8): Stage(8, 16, 20, (0.375, 0.75, 0.125, 0.25), 1.0, 0.25),
    }
)
"""By height, width and depth of the micro-block: U55-32, U55-64, U55-128, and U55-256 with U65."""


@dataclass(frozen=True)
class Machine:
    """An Ethos-U with its memories.

    Attributes:
        block: height, width and depth of the output micro-block.
        cores: 2 for U65-512.
        banks: of the shared RAM.
        stage: granules and output stage of this size.
        sram: on-chip memory of feature maps and staged weights.
        external: DRAM or flash, where the weights come from.
        cache: bytes of ``sram`` when feature maps are only staged there; ``None`` when they live there.
    """

    block: tuple[int, int, int]
    cores: int
    banks: int
    stage: Stage
    sram: Memory
    external: Memory
    cache: int | None

    @property
    def reserved(self) -> int:
        """Banks at the end that no block may use: those of the lookup tables, on all but the smallest."""
        return 2 if self.banks > 16 else 0


def machine(device: Device) -> Machine | None:
    """The machine in ``device``, ``None`` when a figure in ``NEEDED`` is missing or no Ethos-U has its micro-block."""
    if device.absent(*NEEDED):
        return None
    figure = device.figures
    block = tuple(int(figure[f"ofm_block_{side}"]) for side in ("height", "width", "depth"))
    stage = STAGES.get((block[0], block[1], block[2]))
    if stage is None:
        return None
    clock, cores = figure["clock_hz"], int(figure.get("cores", 1))
    if cores > 1:
        halves = tuple(value / cores for value in stage.output)
        output = (halves[0], halves[1], halves[2], halves[3])
        stage = replace(stage, output=output, table=stage.table / cores, clamp=stage.clamp / cores)
    latency = figure.get("sram_latency_cycles", 0.0)
    sram_rate = figure["sram_bytes_per_second"] / clock
    sram = Memory("sram", sram_rate, int(figure.get("sram_burst_bytes", 1)), latency, latency)
    external = Memory(
        "dram", figure.get("dram_bytes_per_second", figure["sram_bytes_per_second"]) / clock,
        int(figure.get("dram_burst_bytes", 1)),
        figure.get("dram_read_latency_cycles", 0.0), figure.get("dram_write_latency_cycles", 0.0),
    )  # fmt: skip
    cache = figure.get("sram_bytes")
    sides = (block[0], block[1], block[2])
    banks = int(figure["shram_bytes"]) // BANK
    return Machine(sides, cores, banks, stage, sram, external, None if cache is None else int(cache))
