"""The Arm Ethos-U55 and U65, after the estimator in Arm's own compiler.

Per operator the largest of the NPU's cycles and each memory's, where fetching weights into the chip hides behind the
operator before (cost-model: Vela, sections on weight buffering). The network is the sum over its operators.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.cost.common import rated_energy, relative_energy
from pipeline.cost.ethos_blocks import Block, Geometry
from pipeline.cost.ethos_cycles import Traffic, blocks_of, operator_cycles, stored_bytes, traffic
from pipeline.cost.ethos_machine import NEEDED, Machine, machine
from pipeline.cost.ethos_plan import Step, alone, brought_on_chip, cascades_of, flow, steps
from pipeline.cost.ethos_slices import fetch_cycles
from pipeline.cost.ethos_weights import Staging, stagings
from pipeline.cost.nouns import FREE, WEIGHTED, Device, Kind, LayerCost, Work


@dataclass(frozen=True)
class Cycles:
    """Cycles of one operator, of the NPU and of each memory, and bytes per memory."""

    npu: float
    sram: float
    external: float
    sram_bytes: int
    external_bytes: int

    @property
    def total(self) -> float:
        """The largest, which is the operator's time."""
        return max(self.npu, self.sram, self.external)

    @property
    def bound(self) -> str:
        """What is largest."""
        return "compute" if self.npu >= self.total else "sram" if self.sram >= self.total else "dram"


NOTHING = Cycles(0.0, 0.0, 0.0, 0, 0)


def costs(works: Sequence[Work], device: Device) -> tuple[LayerCost, ...]:
    """What each of ``works`` costs when all run on the NPU in this order."""
    chip = machine(device)
    if chip is None:
        return tuple(_unknown(device) for _ in works)
    known = flow(works)
    cascades = cascades_of(chip, known)
    drafts = steps(chip, known, cascades, frozenset())
    tilings = {i: blocks_of(chip, works[i], drafts[i].rows) for i in known.order}
    staged = stagings(chip, known, drafts, cascades, tilings)
    buffers = {i: (sum(s.buffers), s.buffers[0]) for i, s in staged.items()}
    near = brought_on_chip(chip, known, drafts, cascades, buffers, tilings)
    final, slack, result = steps(chip, known, cascades, near), 0.0, []
    for index, work in enumerate(works):
        if index not in staged:  # renaming is free, and whoever writes the inputs of a Concat writes them in place
            result.append(FREE if work.kind is Kind.VIEW else _layer(work, device, NOTHING))
            continue
        cycles = count(chip, work, final[index], staged[index], slack, tilings[index])
        result.append(_layer(work, device, cycles))
        slack = staged[index].slack
    return tuple(result)


def cost(work: Work, device: Device) -> LayerCost:
    """What ``work`` costs in the middle of others: feature maps on chip where they fit, weights fetched ahead."""
    chip = machine(device)
    if work.kind is Kind.VIEW:
        return FREE
    if chip is None:
        return _unknown(device)
    if work.op == "Concat":
        return _layer(work, device, NOTHING)
    whole = stored_bytes(chip, work)
    tiling = blocks_of(chip, work, None)
    return _layer(work, device, count(chip, work, alone(chip, work), Staging(0.0, 0, whole), math.inf, tiling))


def count(
    chip: Machine, work: Work, step: Step, staging: Staging, slack: float, tiling: tuple[Geometry, Block]
) -> Cycles:
    """Cycles of ``work`` in its blocks, whose weights come as ``staging`` says.

    ``slack``: how many the operator before leaves. A grouped convolution is one per group, of the group's size.
    """
    if work.kind is Kind.CONV and work.groups > 1:
        one = replace(
            work, groups=1, channels=work.channels // work.groups, in_channels=work.in_channels // work.groups
        )
        part = replace(staging, first=staging.first // work.groups, whole=staging.whole // work.groups)
        return _times(count(chip, one, step, part, slack, blocks_of(chip, one, step.rows)), work.groups)
    moved = traffic(chip, tiling, step.reads, step.write)
    if work.kind not in WEIGHTED:
        npu = operator_cycles(chip, work, tiling, step.reads, step.write, None)
        return _times(_sum(chip, step, npu, moved, 0, 0), work.passes)
    weights = stored_bytes(chip, work)
    source = chip.sram if staging.ahead else chip.external
    npu = operator_cycles(chip, work, tiling, step.reads, step.write, source)
    if not staging.ahead:
        return _sum(chip, step, npu, moved, 0, weights * moved.refetch)
    first = fetch_cycles(chip.external, chip.sram, staging.first)
    whole = fetch_cycles(chip.external, chip.sram, staging.whole)
    npu = max(whole - slack + staging.slack, npu + max(first - slack, 0.0))
    return _sum(chip, step, npu, moved, weights * moved.refetch, 0)


def _sum(chip: Machine, step: Step, npu: float, moved: Traffic, sram: int, external: int) -> Cycles:
    """Cycles of the memories from the bytes of feature maps and, given as they are, of weights."""
    for place, size in zip((*step.reads, step.write), (*moved.reads, moved.writes), strict=True):
        if place.memory is chip.sram:
            sram += size
        else:
            external += size
    return Cycles(npu, sram / chip.sram.bytes_per_cycle, external / chip.external.bytes_per_cycle, sram, external)


def _times(cycles: Cycles, factor: int) -> Cycles:
    return Cycles(
        cycles.npu * factor, cycles.sram * factor, cycles.external * factor,
        cycles.sram_bytes * factor, cycles.external_bytes * factor,
    )  # fmt: skip


def _layer(work: Work, device: Device, cycles: Cycles) -> LayerCost:
    moved = {"sram": cycles.sram_bytes, "dram": cycles.external_bytes}
    ms = 1e3 * cycles.total / device.figures["clock_hz"]
    missing = device.absent("dram_bytes_per_second")
    energy = relative_energy(work, moved)
    return LayerCost(ms, cycles.total, moved, cycles.bound, energy, rated_energy(ms, device), missing)


def _unknown(device: Device) -> LayerCost:
    return LayerCost(None, None, missing=device.absent(*NEEDED) or ("ofm_block_height",))
