"""Measured silicon: each row of the calibration table that the model has an answer to, with its error.

``a priori`` rows saw no measurement; ``fitted`` rows were fitted to. Where more rows than constants were measured, each
is predicted again by constants that were fitted to the others; the model's form was chosen while looking at them all.
The DRAM bandwidth of the i.MX 93 (7.46 GB/s) is unverified.
"""

import csv
import itertools
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.checking.check import Demands, check
from pipeline.cost.bands import Band
from pipeline.cost.fitted import FITS
from pipeline.cost.hosts import find, folder, load
from pipeline.cost.model import CostModel
from pipeline.cost.nouns import Provenance
from pipeline.cost.validation import networks
from pipeline.cost.validation.fitting import energy, fit, left_out
from pipeline.cost.validation.silicon import NETWORKS, answer, answers, cost_model, rows, table, whole
from pipeline.cost.validation.vela import spearman
from pipeline.graph.view import view
from pipeline.targets import library

NPU = [row for row in rows(table()) if not row.on_host]
BY_TARGET = {
    name: list(group) for name, group in itertools.groupby(sorted(NPU, key=lambda r: r.target), lambda r: r.target)
}
SEVERAL = ["coral-edgetpu-usb3", "coral-edgetpu-pcie", "rk3588"]


@pytest.fixture(scope="module")
def found():
    return list(answers(table()))


def test_every_row_lies_in_its_band(found):
    for one in found:
        row = one.row
        said = f"{one.ms:9.3f} ms here ({one.error:+.1%}, {one.provenance})"
        print(f"{row.target:21s} {row.engine:21s} {row.model:35s} {row.ms:9.3f} ms, {said}")  # noqa: T201
        assert one.low_ms <= row.ms <= one.high_ms
        assert (one.provenance is Provenance.A_PRIORI) == (row.target not in FITS and not row.on_host)
    assert len(found) == 24


def test_the_mean_error_of_every_chip_is_below_15_percent(found):
    for name, group in itertools.groupby(sorted(found, key=lambda a: a.row.target), lambda a: a.row.target):
        errors = [abs(one.error) for one in group]
        assert statistics.mean(errors) <= 0.15, name


@pytest.mark.parametrize("name", SEVERAL)
def test_networks_come_in_the_measured_order(name, found):
    mine = [one for one in found if one.row.target == name]
    assert spearman([one.ms for one in mine], [one.row.ms for one in mine]) >= 0.95


@pytest.mark.parametrize("name", sorted(set(FITS) & set(BY_TARGET) - {"coral-edgetpu-usb2"}))
def test_constants_are_those_that_the_rows_give(name):
    again = fit(BY_TARGET[name], FITS[name])
    assert again.times == pytest.approx(FITS[name].times, rel=0.01)


@pytest.mark.parametrize("name", SEVERAL)
def test_a_row_that_is_left_out_is_predicted(name):
    """Less than 15 % off on average, and within the band that predictions are given."""
    errors = left_out(BY_TARGET[name], FITS[name])
    said = ", ".join(f"{row.model} {error:+.1%}" for row, error in zip(BY_TARGET[name], errors, strict=True))
    print(f"{name}, each left out: {said}")  # noqa: T201
    assert statistics.mean(map(abs, errors)) <= 0.15
    band = FITS[name].band
    assert all(band.low <= 1 / (1 + error) <= band.high for error in errors)


def test_a_fit_finds_constants_from_elsewhere():
    """From constants that are off by half, it comes back to the same ones."""
    start = FITS["rk3588"]
    off = replace(start, share=start.share / 2, operator_ms=start.operator_ms * 2, band=Band(1, 1))
    assert fit(BY_TARGET["rk3588"], off).constants == pytest.approx(start.constants, rel=0.01)
    exact = fit(BY_TARGET["snapdragon-855"], FITS["snapdragon-855"])
    (row,) = BY_TARGET["snapdragon-855"]
    assert answer(row, cost_model(row.target, exact)).error == pytest.approx(0, abs=1e-3)


def test_the_energy_of_both_ways_to_run_resnet_50_on_a_xavier():
    """35.5 mJ on the GPU alone, 17.6 with both DLA beside it: static power and a price per unit, both positive."""
    relative = whole(cost_model("jetson-xavier-nx-gpu"), NETWORKS["ResNet-50"]()).relative_energy
    with table().open(newline="") as file:
        board = [r for r in csv.DictReader(file) if "MaxQ" in r["source"]]
    engines = ("gpu+2xdla_int8_maxq", "gpu_b1_int8_maxq")
    watts, rates = (
        [next(float(r["value"]) for r in board if r["link_or_engine"] == e and kind in r["metric"]) for e in engines]
        for kind in ("wall_power", "throughput")
    )
    static, unit = energy(watts, rates, relative)
    fitted = FITS["jetson-xavier-nx-gpu"]
    assert (static, unit) == pytest.approx((fitted.static_w, fitted.unit_mj), rel=0.01)
    assert min(static, unit) > 0
    both, alone = (static * 1e3 / rate + unit * relative for rate in rates)
    assert (both, alone) == pytest.approx((17.6, 35.5), abs=0.1)


def test_deeplab_on_an_imx_8m_plus_belongs_on_its_cpu():
    """586 ms on the NPU, 447 ms on four Cortex-A53: everything is placed there, at what was measured."""
    graph = view(networks.deeplab_v3().model())
    target = library.load(Path(__file__).parent / "imx8mp-npu.yaml")
    host = load(find(target.host, folder()))
    items = NETWORKS["DeepLabV3"]()
    assert whole(CostModel(target, host), items).npu_ms == pytest.approx(586, rel=0.03)
    found = check("deeplab.onnx", graph, target, host, Demands())
    assert found.totals.ms == pytest.approx(447, rel=0.05)
    assert {node.device for node in found.nodes} == {"cpu"}
    assert found.totals.npu_ms == 0


def test_no_target_has_more_than_three_fitted_constants():
    for made in FITS.values():
        assert 1 <= len(made.constants) <= 3


def test_every_shipped_host_says_where_its_rates_come_from():
    for path in sorted(folder().glob("*.yaml")):
        profile = load(path)
        assert all(rate.source for rate in profile.figures.values())
        fitted = {name for name, rate in profile.figures.items() if rate.confidence == "fitted"}
        assert fitted <= {"conv_macs_per_second", "depthwise_macs_per_second", "overhead_s"}
        assert bool(fitted) == (profile.name in ("cortex-a53", "cortex-a55"))
