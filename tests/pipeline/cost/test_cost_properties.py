"""What must hold for every operator: more of a resource never costs time, more to do never saves it.

The multipliers of a systolic array are left out: a larger array takes longer to fill, so a small product may lose time,
in SCALE-Sim too.
"""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ethos import U65

from pipeline.cost import devices, edgetpu
from pipeline.cost.common import relative_energy
from pipeline.cost.nouns import Device, Kind, Work
from pipeline.cost.validation import networks
from pipeline.cost.validation.silicon import cost_model

CHIPS = {
    "systolic": {"macs_per_cycle": 256, "clock_hz": 5e8, "memory_bytes_per_second": 4e9},
    "nvdla": {"macs_per_cycle": 256, "clock_hz": 5e8, "dram_bytes_per_second": 4e9, "convolution_buffer_bytes": 65536},
    "throughput": {"tops_int8": 2.0, "dram_bytes_per_second": 4e9},
    "ethos-u": U65,
}
MODELS = {name: cost_model(name) for name in ("coral-edgetpu-usb3", "ethos-u65-256", "jetson-xavier-nx-dla")}
ITEMS = networks.works_of(networks.resnet8)
RESOURCES = [
    ("systolic", "memory_bytes_per_second"), ("systolic", "clock_hz"),
    ("nvdla", "macs_per_cycle"), ("nvdla", "dram_bytes_per_second"), ("nvdla", "convolution_buffer_bytes"),
    ("nvdla", "clock_hz"), ("throughput", "tops_int8"), ("throughput", "dram_bytes_per_second"),
    ("ethos-u", "dram_bytes_per_second"), ("ethos-u", "sram_bytes_per_second"), ("ethos-u", "sram_bytes"),
]  # fmt: skip


@st.composite
def convolutions(draw):
    height, stride = draw(st.integers(1, 64)), draw(st.integers(1, 2))
    inputs, outputs = draw(st.integers(1, 128)), draw(st.integers(1, 128))
    kernel = draw(st.sampled_from([1, 3, 5]))
    kind = draw(st.sampled_from([Kind.CONV, Kind.DEPTHWISE]))
    inputs, groups = (outputs, outputs) if kind is Kind.DEPTHWISE and outputs > 1 else (inputs, 1)
    kind = kind if groups > 1 else Kind.CONV
    given_size = height * stride
    taps = kernel * kernel * inputs // groups
    return Work(
        "c", "Conv", kind, height, height, outputs, given_size, given_size, inputs, (kernel, kernel), (stride, stride),
        groups=groups, in_bytes=(given_size**2 * inputs,), out_bytes=height**2 * outputs, weight_bytes=taps * outputs,
        macs=height**2 * outputs * taps, inputs=("a",), outputs=("b",),
    )  # fmt: skip


@pytest.mark.parametrize(("model", "figure"), RESOURCES)
@given(work=convolutions(), factor=st.floats(1.0, 16.0))
@settings(max_examples=40, deadline=None)
def test_more_of_a_resource_never_costs_time(model, figure, work, factor):
    more = {**CHIPS[model], figure: CHIPS[model][figure] * factor}
    before = devices.cost(work, Device("a", model, CHIPS[model])).ms
    assert devices.cost(work, Device("b", model, more)).ms <= before * (1 + 1e-9)


@pytest.mark.parametrize("model", CHIPS)
@given(work=convolutions())
@settings(max_examples=40, deadline=None)
def test_wider_numbers_never_cost_less(model, work):
    """int16 moves twice the bytes of int8."""
    wide = replace(
        work, element_bytes=2, in_bytes=tuple(2 * n for n in work.in_bytes), out_bytes=2 * work.out_bytes,
        weight_bytes=2 * work.weight_bytes,
    )  # fmt: skip
    chip = Device("a", model, CHIPS[model])
    assert devices.cost(wide, chip).ms >= devices.cost(work, chip).ms


@given(count=st.integers(0, 10**8), more=st.integers(0, 10**8), partitions=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_more_bytes_and_more_partitions_never_cost_less(count, more, partitions):
    for name in ("coral-edgetpu-usb3", "ethos-u65-256", "jetson-xavier-nx-dla"):
        model = MODELS[name]
        assert model.crossing(count).ms <= model.crossing(count + more).ms
        prices = model.price_works(ITEMS)
        names, ends = {w.name for w in ITEMS}, ("t0",)
        few = model.total(prices, names, partitions, ends)
        many = model.total(prices, names, partitions + 1, ends)
        both = model.total(prices, names, partitions, ("t0", ITEMS[3].outputs[0]))
        assert few.ms <= min(many.ms, both.ms)


@given(sizes=st.lists(st.integers(1, 4_000_000), min_size=1, max_size=6), factor=st.floats(1.0, 8.0))
@settings(max_examples=40, deadline=None)
def test_a_wider_link_or_a_larger_cache_never_costs_a_network_time(sizes, factor):
    works = [
        Work(
            str(i),
            "Conv",
            Kind.CONV,
            8,
            8,
            64,
            8,
            8,
            64,
            weight_bytes=n,
            macs=64 * n,
            inputs=(f"t{i}",),
            outputs=(f"t{i + 1}",),
        )
        for i, n in enumerate(sizes)
    ]
    chip = {"macs_per_cycle": 4096, "clock_hz": 5e8, "parameter_cache_bytes": 1e6, "link_bytes_per_second": 1e8}
    before = sum(c.ms for c in edgetpu.costs(works, Device("a", "systolic", chip)))
    for figure in ("parameter_cache_bytes", "link_bytes_per_second"):
        more = Device("b", "systolic", {**chip, figure: chip[figure] * factor})
        assert sum(c.ms for c in edgetpu.costs(works, more)) <= before * (1 + 1e-9)


@pytest.mark.parametrize("model", CHIPS)
@given(work=convolutions())
@settings(max_examples=40, deadline=None)
def test_every_cost_is_whole_and_not_negative(model, work):
    found = devices.cost(work, Device("a", model, CHIPS[model]))
    assert found.ms > 0
    assert all(count >= 0 for count in found.bytes.values())
    assert found.relative_energy > 0
    assert found.missing == ()


@given(st.lists(st.integers(0, 1000), max_size=12), st.integers(0, 3000), st.integers(0, 3000))
def test_a_larger_cache_never_streams_more(sizes, cache, extra):
    works = [Work(str(i), "Conv", Kind.CONV, 1, 1, 1, 1, 1, 1, weight_bytes=n) for i, n in enumerate(sizes)]
    total = sum(edgetpu.streamed(works, cache))
    assert total == max(0, sum(sizes) - cache)
    assert sum(edgetpu.streamed(works, cache + extra)) <= total


@given(work=convolutions(), count=st.integers(0, 10**6))
def test_energy_adds_up_and_dram_costs_more_than_sram(work, count):
    nothing = relative_energy(work, {})
    assert relative_energy(work, {"dram": count}) == pytest.approx(nothing + 160 * count)
    assert relative_energy(work, {"sram": count}) <= relative_energy(work, {"dram": count})
