"""The NVDLA sheet and the roofline."""

import pytest

from pipeline.cost import nvdla, throughput
from pipeline.cost.nouns import Device, Kind, Work
from pipeline.cost.validation import networks

SHEET = Device(
    "nv", "nvdla",
    {"macs_per_cycle": 2048, "clock_hz": 1e9, "dram_bytes_per_second": 10e9, "convolution_buffer_bytes": 524288},
)  # fmt: skip


def conv(**extra):
    sizes = {"in_bytes": (28 * 28 * 64,), "out_bytes": 28 * 28 * 128, "weight_bytes": 64 * 128 * 9}
    values = {"kernel": (3, 3), "macs": 28 * 28 * 128 * 64 * 9, **sizes, **extra}
    return Work("c", "Conv", Kind.CONV, 28, 28, 128, 28, 28, 64, **values)


def test_the_sheets_total_of_resnet_50():
    """The sheet prints 7.114 ms (2,048 MAC, 1 GHz, 10 GB/s, 512 KB), with fully connected layers in batches of 16."""
    works = networks.works_of(networks.resnet50)
    total = sum(nvdla.cost(w, SHEET).ms / (16 if w.kind is Kind.FC else 1) for w in works)
    print(f"ResNet-50 on the NVDLA sheet: {total:.3f} ms, {total / 7.114 - 1:+.1%}")  # noqa: T201
    assert total == pytest.approx(7.114, rel=0.10)


def test_channels_come_in_atoms_of_sixteen():
    work = conv()
    assert nvdla.mac_cycles(work, 2048) == 64 * 28 * 28 * 128 * 9 / 2048
    odd = Work("c", "Conv", Kind.CONV, 28, 28, 120, 28, 28, 60, (3, 3))
    assert nvdla.mac_cycles(odd, 2048) == nvdla.mac_cycles(work, 2048)


def test_a_strided_first_layer_is_folded_into_channels():
    first = Work("c", "Conv", Kind.CONV, 112, 112, 64, 224, 224, 3, (7, 7), (2, 2))
    assert nvdla.mac_cycles(first, 2048) == 16 * 112 * 112 * 64 * 49 / 4 / 2048


def test_what_does_not_fit_the_buffer_is_read_again():
    work = conv()
    once = nvdla.dram_bytes(work, 1e9)
    assert once == work.feature_bytes + work.weight_bytes
    assert nvdla.dram_bytes(work, 60_000) == once  # the input fits beside a slice of the weights
    assert nvdla.dram_bytes(work, 40_000) == once + work.weight_bytes


def test_operators_without_weights_move_bytes_only():
    work = Work("a", "Add", Kind.ELEMENTWISE, 28, 28, 64, 28, 28, 64, in_bytes=(50_000, 50_000), out_bytes=50_000)
    found = nvdla.cost(work, SHEET)
    assert (found.ms, found.bound) == (pytest.approx(0.015), "dram")


def test_the_roofline_has_two_sides():
    chip = {"tops_int8": 2.0, "dram_bytes_per_second": 1e9}
    work = conv(in_bytes=(10,), out_bytes=10, weight_bytes=10)
    assert throughput.cost(work, Device("t", "throughput", chip)).ms == pytest.approx(work.macs / 1e12 * 1e3)
    half = throughput.cost(work, Device("t", "throughput", {**chip, "effective_share": 0.5}))
    assert half.ms == pytest.approx(2 * work.macs / 1e12 * 1e3)
    slow = throughput.cost(work, Device("t", "throughput", {**chip, "dram_bytes_per_second": 1.0}))
    assert (slow.ms, slow.bound) == (pytest.approx(30_000), "dram")


def test_one_inference_gets_the_array_that_is_known():
    chip = Device("t", "throughput", {"tops_int8": 6.0, "macs_per_cycle": 1024, "clock_hz": 1e9})
    found = throughput.cost(conv(), chip)
    assert found.ms == pytest.approx(conv().macs / 1.024e12 * 1e3)
    assert found.missing == ("dram_bytes_per_second",)


def test_without_a_peak_there_is_no_time():
    found = throughput.cost(conv(), Device("t", "throughput", {}))
    assert found.ms is None
    assert found.missing == ("tops_int8", "dram_bytes_per_second")


def test_a_share_and_a_start_add_to_the_sheet():
    plain, figures = nvdla.cost(conv(), SHEET), dict(SHEET.figures)
    half = nvdla.cost(conv(), Device("nv", "nvdla", {**figures, "effective_share": 0.5, "operator_s": 1e-4}))
    assert half.ms == pytest.approx(2 * plain.ms + 0.1)
    joined = Work("j", "Concat", Kind.COPY, 28, 28, 64, 28, 28, 64, in_bytes=(50_000,), out_bytes=50_000)
    started = Device("nv", "nvdla", {**figures, "operator_s": 1e-4})
    assert nvdla.cost(joined, started).ms == nvdla.cost(joined, SHEET).ms


def test_wider_atoms_cost_narrow_layers_time():
    figures = {**SHEET.figures, "atom_input_channels": 32, "atom_output_channels": 32}
    narrow = Work("c", "Conv", Kind.CONV, 80, 80, 16, 80, 80, 16, (3, 3))
    wide = Device("nv", "nvdla", figures)
    assert nvdla.cost(narrow, wide).cycles == 4 * nvdla.cost(narrow, SHEET).cycles
    assert nvdla.cost(conv(), wide).cycles == nvdla.cost(conv(), SHEET).cycles


def test_a_swish_is_one_operator_where_the_chip_has_it():
    size = {"in_bytes": (6400,), "out_bytes": 6400}
    gate = Work("s", "Sigmoid", Kind.LUT, 10, 10, 64, 10, 10, 64, inputs=("x",), outputs=("g",), **size)
    swish = Work("m", "Mul", Kind.ELEMENTWISE, 10, 10, 64, 10, 10, 64, inputs=("x", "g"), outputs=("y",), **size)
    other = Work("o", "Mul", Kind.ELEMENTWISE, 10, 10, 64, 10, 10, 64, inputs=("z", "g"), outputs=("w",), **size)
    assert nvdla.swishes([gate, swish, other]) == {"m"}
    has = Device("nv", "nvdla", {**SHEET.figures, "operators_per_swish": 1, "operator_s": 1e-4})
    found = nvdla.costs([gate, swish, other], has)
    assert [cost.ms > 0.1 for cost in found] == [True, False, True]
    without = nvdla.costs([gate, swish, other], SHEET)
    assert without[1].ms == without[2].ms > 0


def test_a_depthwise_mode_computes_whole_atoms_of_channels():
    work = Work("dw", "Conv", Kind.DEPTHWISE, 7, 7, 40, 7, 7, 40, (3, 3), groups=40, macs=7 * 7 * 9 * 40)
    assert nvdla.depthwise_cycles(work, 32, 32) == 7 * 7 * 9 * 2  # 40 channels are two atoms of 32
    figures = {"macs_per_cycle": 1024.0, "clock_hz": 1e9, "dram_bytes_per_second": 1e12}
    without = nvdla.cost(work, Device("chip", "nvdla", figures))
    within = nvdla.cost(work, Device("chip", "nvdla", {**figures, "depthwise_macs_per_cycle": 32.0}))
    assert within.cycles < without.cycles
