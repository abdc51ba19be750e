"""What int16 feature maps cost: twice the bytes, and on an Ethos-U twice the cycles of the multipliers."""

import numpy as np
import pytest
from smallmodels import graph, pair, target

from pipeline.cost import devices
from pipeline.cost.ethos_blocks import geometry, search
from pipeline.cost.ethos_cycles import mac_cycles
from pipeline.cost.ethos_machine import machine
from pipeline.cost.nouns import Device
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
    assert mac_cycles(chip, wide, search(chip, wide)) == 2 * mac_cycles(chip, narrow, search(chip, narrow))
    before, after = (devices.cost(convolution(kind), device) for kind in ("int8", "int16"))
    assert 1.5 < after.ms / before.ms < 2.5
    assert sum(after.bytes.values()) > 1.5 * sum(before.bytes.values())
