"""The Arm Ethos-U55 and U65, after the estimator in Arm's own compiler.

Per operator the largest of the NPU's cycles and each memory's, where fetching weights into the chip hides behind the
operator before (cost-model: Vela, sections on weight buffering). The network is the sum over its operators.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.cost.common import rated_energy, relative_energy
from pipeline.cost.ethos_cycles import SCALE_BYTES, Traffic, blocks_of, encoded_bytes, operator_cycles, traffic
from pipeline.cost.ethos_machine import NEEDED, Machine, Memory, machine
from pipeline.cost.ethos_plan import Step, alone, plan
from pipeline.cost.nouns import FREE, Device, Kind, LayerCost, Work

WEIGHTED = (Kind.CONV, Kind.DEPTHWISE, Kind.FC)
SLICE = 16
"""Output channels of the smallest piece of weights that is fetched ahead."""


@dataclass(frozen=True)
class Cycles:
    """Cycles of one operator: of the NPU, of each memory; bytes per memory; and how long it lets others fetch ahead."""

    npu: float
    sram: float
    external: float
    sram_bytes: int
    external_bytes: int
    slack: float

    @property
    def total(self) -> float:
        """The largest, which is the operator's time."""
        return max(self.npu, self.sram, self.external)

    @property
    def bound(self) -> str:
        """What is largest."""
        return "compute" if self.npu >= self.total else "sram" if self.sram >= self.total else "dram"


def costs(works: Sequence[Work], device: Device) -> tuple[LayerCost, ...]:
    """What each of ``works`` costs when all run on the NPU in this order."""
    chip = machine(device)
    if chip is None:
        return tuple(_unknown(device) for _ in works)
    result, slack = [], 0.0
    for work, step in zip(works, plan(chip, works), strict=True):
        if work.kind is Kind.VIEW:
            result.append(FREE)
            continue
        cycles = count(chip, work, step, slack)
        slack = cycles.slack
        result.append(_layer(work, device, cycles))
    return tuple(result)


def cost(work: Work, device: Device) -> LayerCost:
    """What ``work`` costs in the middle of others: feature maps on chip where they fit, weights fetched ahead."""
    chip = machine(device)
    if work.kind is Kind.VIEW:
        return FREE
    if chip is None:
        return _unknown(device)
    return _layer(work, device, count(chip, work, alone(chip, work), math.inf))


def count(chip: Machine, work: Work, step: Step, slack: float) -> Cycles:
    """Cycles of ``work``; ``slack``: how many the operator before leaves for fetching weights ahead."""
    if work.kind is Kind.CONV and work.groups > 1:
        one = replace(
            work, groups=1, channels=work.channels // work.groups, in_channels=work.in_channels // work.groups
        )
        return _times(count(chip, one, step, slack), work.groups)
    if work.op == "Concat":
        return Cycles(0.0, 0.0, 0.0, 0, 0, slack)  # whoever writes its inputs writes them in place
    if work.kind not in WEIGHTED:
        return _times(_direct(chip, work, step), work.passes)
    return _weighted(chip, work, step, slack)


def _direct(chip: Machine, work: Work, step: Step) -> Cycles:
    """Weights read from where they are stored, as often as they are needed."""
    weighted = work.kind in WEIGHTED
    tiling = blocks_of(chip, work, step.rows)
    moved = traffic(chip, tiling, step.reads, step.write)
    npu = operator_cycles(chip, work, tiling, step.reads, step.write, chip.external if weighted else None)
    weights = encoded_bytes(work, tiling[0]) + SCALE_BYTES * work.channels if weighted else 0
    return _sum(chip, step, npu, moved, 0, weights * moved.refetch, npu)


def _weighted(chip: Machine, work: Work, step: Step, slack: float) -> Cycles:
    """Weights fetched into the chip first, as far as possible while the operator before runs.

    Those that are needed only once and cannot all be fetched ahead are read where they are stored, if that is faster.
    """
    tiling = blocks_of(chip, work, step.rows)
    moved = traffic(chip, tiling, step.reads, step.write)
    encoded = encoded_bytes(work, tiling[0])
    whole = _fetch(chip.external, chip.sram, encoded + SCALE_BYTES * work.channels)
    npu = operator_cycles(chip, work, tiling, step.reads, step.write, chip.sram)
    tail, late = npu, 0
    if whole > slack:
        piece = min(1.0, SLICE / work.channels)
        first = _fetch(chip.external, chip.sram, int(encoded * piece))
        tail = npu * max(piece, 1 - slack / whole) if slack else npu
        late = encoded - int(encoded * min(1.0, max(piece, slack / whole))) if slack else encoded
        npu = max(whole - slack + tail, npu + max(first - slack, 0)) if piece < 1 else npu + whole - slack
    scales = SCALE_BYTES * work.channels * moved.refetch
    staged = _sum(chip, step, npu, moved, encoded * moved.refetch + late, late + scales, tail)
    if whole <= slack or moved.refetch > 1:
        return staged
    direct = _direct(chip, work, step)
    return direct if direct.total <= staged.total else staged


def _fetch(source: Memory, target: Memory, size: int) -> float:
    """Cycles to copy ``size`` bytes between memories."""
    return max(size / source.bytes_per_cycle + source.read_latency, size / target.bytes_per_cycle)


def _sum(chip: Machine, step: Step, npu: float, moved: Traffic, sram: int, external: int, slack: float) -> Cycles:
    """Cycles of the memories from the bytes of feature maps and, given as they are, of weights."""
    for place, size in zip((*step.reads, step.write), (*moved.reads, moved.writes), strict=True):
        if place.memory is chip.sram:
            sram += size
        else:
            external += size
    return Cycles(
        npu, sram / chip.sram.bytes_per_cycle, external / chip.external.bytes_per_cycle, sram, external, slack
    )


def _times(cycles: Cycles, factor: int) -> Cycles:
    return Cycles(
        cycles.npu * factor, cycles.sram * factor, cycles.external * factor,
        cycles.sram_bytes * factor, cycles.external_bytes * factor, cycles.slack * factor,
    )  # fmt: skip


def _layer(work: Work, device: Device, cycles: Cycles) -> LayerCost:
    moved = {"sram": cycles.sram_bytes, "dram": cycles.external_bytes}
    ms = 1e3 * cycles.total / device.figures["clock_hz"]
    missing = device.absent("dram_bytes_per_second")
    energy = relative_energy(work, moved)
    return LayerCost(ms, cycles.total, moved, cycles.bound, energy, rated_energy(ms, device), missing)


def _unknown(device: Device) -> LayerCost:
    return LayerCost(None, None, missing=device.absent(*NEEDED) or ("ofm_block_height",))
