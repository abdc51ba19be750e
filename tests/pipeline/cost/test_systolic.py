"""The systolic closed form against SCALE-Sim 3.0.0, whose counts are in ``reference/scalesim.csv``.

The simulator needs an older numpy than this project, so its counts were made apart (``reference/make_scalesim.py`` says
how, and with which versions): 204 random matrix products, each with three dataflows.
"""

import csv
from pathlib import Path

import pytest

from pipeline.cost import edgetpu, systolic
from pipeline.cost.nouns import Device, Kind, Work

ROWS = list(csv.DictReader((Path(__file__).parent / "reference" / "scalesim.csv").open()))
CHIP = Device(
    "chip", "systolic", {"array_rows": 8, "array_columns": 8, "clock_hz": 1e6, "memory_bytes_per_second": 1e6}
)


def test_there_are_enough_products_of_each_dataflow():
    products = {(r["rows"], r["columns"], r["m"], r["n"], r["k"]) for r in ROWS}
    assert len(products) >= 200
    assert {r["dataflow"] for r in ROWS} == {"ws", "os", "is"}
    assert len(ROWS) == 612


def test_every_count_is_that_of_the_simulator():
    wrong = [
        row for row in ROWS
        if systolic.product_cycles(*(int(row[k]) for k in ("rows", "columns", "m", "n", "k")), row["dataflow"])
        != int(row["cycles"])
    ]  # fmt: skip
    assert not wrong


@pytest.mark.parametrize(
    ("size", "cycles"), [((100, 40, 33), 1_313), ((3136, 64, 64), 50_911), ((784, 128, 1152), 478_079)]
)
def test_examples_of_the_reference(size, cycles):
    assert systolic.product_cycles(16, 16, *size) == cycles


def test_a_convolution_is_a_product_and_a_depthwise_one_a_product_per_channel():
    conv = Work("c", "Conv", Kind.CONV, 5, 5, 16, 5, 5, 8, (3, 3))
    assert systolic.cycles(conv, 8, 8) == systolic.product_cycles(8, 8, 25, 16, 72)
    depthwise = Work("d", "Conv", Kind.DEPTHWISE, 5, 5, 16, 5, 5, 16, (3, 3), groups=16)
    assert systolic.cycles(depthwise, 8, 8) == 16 * systolic.product_cycles(8, 8, 25, 1, 9)


def test_the_larger_of_computing_and_moving_is_the_time():
    work = Work("c", "Conv", Kind.CONV, 5, 5, 16, 5, 5, 8, (3, 3), in_bytes=(200,), out_bytes=400, weight_bytes=1216)
    found = systolic.cost(work, CHIP)
    assert found.cycles == systolic.product_cycles(8, 8, 25, 16, 72)
    assert found.ms == pytest.approx(1.816)
    assert found.bound == "memory"
    assert (
        systolic.cost(work, Device("c", "systolic", {**CHIP.figures, "memory_bytes_per_second": 1e9})).bound
        == "compute"
    )


def test_an_array_of_unknown_shape_is_a_square_and_one_of_unknown_size_has_no_time():
    assert systolic.shape(Device("c", "systolic", {"macs_per_cycle": 4096})) == (64, 64)
    found = systolic.cost(Work("r", "Relu", Kind.ELEMENTWISE, 1, 1, 8, 1, 1, 8), Device("c", "systolic", {}))
    assert found.ms is None
    assert found.missing[:2] == ("macs_per_cycle", "clock_hz")


def test_parameters_beyond_the_cache_are_streamed_once_in_order():
    works = [Work(str(i), "Conv", Kind.CONV, 1, 1, 1, 1, 1, 1, weight_bytes=40) for i in range(4)]
    assert edgetpu.streamed(works, 100) == (0, 0, 20, 40)
    assert sum(edgetpu.streamed(works, 100)) == 4 * 40 - 100
    assert edgetpu.streamed(works, 1000) == (0, 0, 0, 0)


def test_streaming_takes_the_link_and_without_one_there_is_no_time():
    works = [Work("a", "Conv", Kind.CONV, 1, 1, 1, 1, 1, 1, weight_bytes=300)]
    chip = {**CHIP.figures, "parameter_cache_bytes": 100}
    alone, streams = edgetpu.cost(works[0], CHIP), {**chip, "link_bytes_per_second": 1e3}
    (found,) = edgetpu.costs(works, Device("c", "systolic", streams))
    assert found.ms == pytest.approx(alone.ms + 200)
    assert (found.bound, found.bytes["link"]) == ("link", 200)
    (unknown,) = edgetpu.costs(works, Device("c", "systolic", chip))
    assert unknown.ms is None
    assert "link_bytes_per_second" in unknown.missing
