"""What int16 feature maps cost: twice the bytes, and on an Ethos-U twice the cycles of the multipliers."""

import math

import numpy as np
import pytest
from smallmodels import graph, pair, target

from pipeline.cost import devices
from pipeline.cost.ethos_blocks import geometry, search
from pipeline.cost.ethos_cycles import mac_cycles
from pipeline.cost.ethos_machine import machine
from pipeline.cost.nouns import Device, Kind, Work
from pipeline.cost.work import works


def convolution(kind):
    """The work of a convolution between two feature maps of this type."""

    def quantized(name, real):
        return pair(name, real, 0.01).replace("value = int8 {0}", f"value = {kind} {{0}}")

    seen = graph(
        f"g (float[1,32,24,24] a) => (float[1,64,24,24] y) {{ {quantized('x', 'a')}"
        f" r = Conv <pads = [1,1,1,1]> (x, w) {quantized('y', 'r')} }}",
        21,
        w=np.ones((64, 32, 3, 3), np.float32),
    )
    (work,) = works(seen)
    return work


def test_int16_moves_twice_the_bytes():
    narrow, wide = convolution("int8"), convolution("int16")
    assert (narrow.element_bytes, wide.element_bytes) == (1, 2)
    assert (narrow.in_bytes, narrow.out_bytes) == ((32 * 24 * 24,), 64 * 24 * 24)
    assert (wide.in_bytes, wide.out_bytes) == ((2 * 32 * 24 * 24,), 2 * 64 * 24 * 24)
    assert (wide.macs, wide.weight_bytes) == (narrow.macs, narrow.weight_bytes)


@pytest.mark.parametrize("name", ["ethos-u55-256", "ethos-u65-256"])
def test_int16_takes_an_ethos_u_twice_the_multiplier_cycles(name):
    figures = {k: f.value for k, f in target(name).figures.items() if f.value is not None}
    device = Device(name, "ethos-u", figures)
    chip = machine(device)
    narrow, wide = (geometry(convolution(kind)) for kind in ("int8", "int16"))
    block = search(chip, narrow)
    assert mac_cycles(chip, wide, block) == 2 * mac_cycles(chip, narrow, block)
    smaller = search(chip, wide)  # accumulators of 40 bits and inputs of twice the bytes leave room for less
    assert math.prod(smaller.ofm) < math.prod(block.ofm)
    before, after = (devices.cost(convolution(kind), device) for kind in ("int8", "int16"))
    assert 1.5 < after.ms / before.ms < 2.5
    assert sum(after.bytes.values()) > 1.5 * sum(before.bytes.values())


def single(op, kind, shape, channels, kernel=(1, 1)):
    """An operator of int16 between feature maps of ``shape`` and ``channels``."""
    height, width, before = shape
    groups = before if kind is Kind.DEPTHWISE else 1
    taps, elements = math.prod(kernel), height * width
    weights = 0 if kind is Kind.ELEMENTWISE else taps * before * channels // groups
    reads = 2 if op == "Add" else 1
    return Work(
        "n", op, kind, height, width, channels, height, width, before, kernel, groups=groups, element_bytes=2,
        in_bytes=(2 * elements * before,) * reads, out_bytes=2 * elements * channels, weight_bytes=weights,
        macs=weights * elements,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("work", "cycles"),
    [
        (single("Conv", Kind.CONV, (18, 24, 160), 64), 55568),
        (single("Conv", Kind.CONV, (18, 24, 64), 256), 105488),
        (single("Conv", Kind.CONV, (36, 48, 40), 160), 197586),
        (single("Conv", Kind.CONV, (36, 48, 160), 40), 118728),
        (single("Conv", Kind.DEPTHWISE, (18, 24, 256), 256, (3, 3)), 84880),
        (single("Conv", Kind.DEPTHWISE, (36, 48, 48), 48, (3, 3)), 64144),
        (single("Add", Kind.ELEMENTWISE, (36, 48, 40), 40), 62208),
        (single("QuantizeLinear", Kind.ELEMENTWISE, (36, 48, 40), 40), 37152),
    ],
    ids=lambda given: f"{given.op}-{given.in_channels}-{given.channels}" if isinstance(given, Work) else str(given),
)
def test_int16_costs_what_vela_counts(work, cycles):
    """Cycles of ethos-u-vela 5.2.0 for these operators within a detector, ethos-u55-256, High_End_Embedded."""
    figures = {k: f.value for k, f in target("ethos-u55-256").figures.items() if f.value is not None}
    found = devices.cost(work, Device("ethos-u55-256", "ethos-u", figures))
    assert found.cycles == pytest.approx(cycles, rel=0.15)
