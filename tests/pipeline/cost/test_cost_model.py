"""Prices of a graph and totals of a placement, on the profiles that this project ships."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cost import devices, hosts
from pipeline.cost.bands import device_band
from pipeline.cost.fitted import FITS
from pipeline.cost.model import CostModel
from pipeline.cost.nouns import Kind, Provenance
from pipeline.cost.validation import networks
from pipeline.cost.validation.silicon import cost_model as model
from pipeline.cost.validation.silicon import whole
from pipeline.cost.work import works
from pipeline.graph.view import view
from pipeline.targets import library

PROFILES = Path(__file__).parents[3] / "configs" / "targets"
TARGETS = library.names(PROFILES)


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_is_priced_and_says_what_it_does_not_know(name):
    cost_model, items = model(name), networks.works_of(networks.mobilenet_v2)
    total = whole(cost_model, items)
    if cost_model.device.model == "unknown":
        assert total.ms is None
        assert "cost_model" in total.missing
    elif total.ms is None:
        assert {"tops_int8", "clock_hz"} & set(total.missing)
    else:
        assert 0 < total.low_ms <= total.ms <= total.high_ms
    assert total.relative_energy >= 0
    assert total.provenance is (Provenance.HELD_OUT if name in FITS else Provenance.A_PRIORI)


@pytest.mark.parametrize("name", TARGETS)
def test_every_host_that_a_target_names_has_a_profile(name):
    host = library.load(library.find(name, PROFILES)).host
    assert host is None or hosts.load(hosts.find(host, hosts.folder())).name == host


def test_a_total_is_the_sum_of_its_parts():
    cost_model, items = model("coral-edgetpu-usb3"), networks.works_of(networks.resnet8)
    prices = cost_model.price_works(items)
    inside, cut = {w.name for w in items[:6]}, items[5].outputs[0]
    total = cost_model.total(prices, inside, 2, ("t0", cut))
    assert total.ms == pytest.approx(total.npu_ms + total.cpu_ms + total.crossing_ms + total.launch_ms)
    assert total.npu_ms == pytest.approx(sum(prices.npu[n].ms for n in inside))
    assert total.cpu_ms == pytest.approx(sum(prices.cpu[w.name].ms for w in items[6:]))
    assert (
        total.crossing_bytes
        == prices.crossings["t0"].bytes + prices.crossings[cut].bytes
        == 32 * 32 * 3 + items[5].out_bytes
    )
    assert total.launch_ms == pytest.approx(2 * prices.launch_ms + prices.inference_ms)
    assert total.known_energy_mj == pytest.approx(2.0 * (total.npu_ms + total.crossing_ms + total.launch_ms))
    assert (total.energy_mj, total.energy_missing) == (None, ("host power_w",))
    assert sum(total.bytes.values()) >= sum(w.weight_bytes for w in items)


def test_energy_is_that_of_whoever_works_and_whose_power_is_known():
    items = networks.works_of(networks.resnet8)
    coral, rockchip = model("coral-edgetpu-usb3"), model("rk3588")
    assert whole(coral, items, inside=False).energy_mj is None  # nothing is known of what the placement uses
    assert whole(rockchip, items).energy_mj is None
    assert whole(rockchip, items).energy_missing == ("power_w",)
    watts = hosts.Rate(value=4.0, confidence="unverified", source="made up")
    for cost_model in (coral, rockchip):
        cost_model.host = cost_model.host.model_copy(update={"power_w": watts})
    all_on_host = whole(coral, items, inside=False)
    assert all_on_host.energy_mj == pytest.approx(4.0 * all_on_host.cpu_ms)
    assert all_on_host.energy_missing == ()
    prices = coral.price_works(items)
    mixed = coral.total(prices, {w.name for w in items[:6]}, 1, ("t0", items[5].outputs[0]))
    npu = mixed.npu_ms + mixed.crossing_ms + mixed.launch_ms
    assert mixed.energy_mj == pytest.approx(2.0 * npu + 4.0 * mixed.cpu_ms)
    assert prices.cpu[items[0].name].energy_mj == pytest.approx(4.0 * prices.cpu[items[0].name].ms)
    module = whole(model("jetson-xavier-nx-dla"), items)
    assert module.energy_mj == pytest.approx(10.0 * module.ms)


def test_energy_that_was_measured_adds_up_over_layers():
    fitted, items = model("jetson-xavier-nx-gpu"), networks.works_of(networks.resnet50)
    total, prices = whole(fitted, items), fitted.price_works(items)
    layers = sum(prices.npu[w.name].energy_mj or 0.0 for w in items)
    ends = total.crossing_ms + total.launch_ms
    assert total.energy_mj == pytest.approx(layers + fitted.fit.static_w * ends)
    assert total.energy_mj > whole(fitted, networks.works_of(networks.resnet8)).energy_mj > 0


def test_a_link_or_a_host_that_is_not_known_is_said():
    items = networks.works_of(networks.resnet8)
    rockchip = model("rk3588")
    total = whole(rockchip, items)
    assert "link_bytes_per_second" in total.missing
    assert rockchip.crossing(100).ms is None
    alone = CostModel(library.load(library.find("rk3588", PROFILES)), None)
    assert alone.on_host(items[0]).missing == ("host",)
    assert whole(alone, items, inside=False).ms is None
    assert whole(alone, items, inside=False).high_ms is None


def test_only_a_fitted_chip_or_a_measured_host_has_a_narrow_band():
    items = networks.works_of(networks.resnet8)
    wide, narrow = whole(model("stm32mp2"), items), whole(model("rk3588"), items)
    assert wide.high_ms / wide.low_ms > 8
    assert narrow.high_ms / narrow.low_ms < 2
    nxp = whole(model("ethos-u65-256"), items, inside=False)
    assert nxp.high_ms / nxp.low_ms == pytest.approx(4)  # some of its host's rates are not verified
    assert device_band("no such model").high > 8


def test_one_node_costs_alone_about_what_it_costs_among_others():
    cost_model, items = model("ethos-u65-256"), networks.works_of(networks.mobilenet_v1_small)
    prices = cost_model.price_works(items)
    middle = items[10]
    assert cost_model.on_npu(middle).ms == pytest.approx(prices.npu[middle.name].ms, rel=0.05)
    unknown = devices.device(library.load(library.find("kirin-970", PROFILES)))
    assert devices.cost(middle, unknown).ms is None


def test_a_mobilenet_is_priced_in_20_ms():
    """Processor time, the best of several, since the machine is shared; blocks are searched once per kind of layer."""
    graph, cost_model = view(networks.mobilenet_v2().model()), model("ethos-u65-256")
    cost_model.price(graph)
    times = []
    for _ in range(10):
        start = time.process_time()
        cost_model.price(graph)
        times.append(time.process_time() - start)
    assert min(times) < 0.020
    prices, names = cost_model.price(graph), {n.name for n in graph.nodes}
    start = time.process_time()
    cost_model.total(prices, names, 1, ("t0",))
    assert time.process_time() - start < 0.005


def test_ten_thousand_operators_are_priced_in_2_s():
    items = networks.works_of(networks.mobilenet_v2)
    chain = []
    for copy in range(10_000 // len(items) + 1):
        before = {"t0": f"{copy - 1}{items[-1].outputs[0]}"} if copy else {"t0": "t0"}
        for work in items:
            given = tuple(before.get(tensor, f"{copy}{tensor}") for tensor in work.inputs)
            made = tuple(f"{copy}{tensor}" for tensor in work.outputs)
            chain.append(replace(work, name=f"{copy}{work.name}", inputs=given, outputs=made))
    cost_model = model("ethos-u65-256")
    start = time.process_time()
    prices = cost_model.price_works(chain)
    assert time.process_time() - start < 2.0
    assert len(prices.npu) >= 10_000


def test_renaming_is_free_everywhere():
    items = networks.works_of(networks.mobilenet_v2)
    view = next(w for w in items if w.kind is Kind.VIEW)
    for name in ("coral-edgetpu-usb3", "ethos-u65-256", "jetson-xavier-nx-dla", "rk3588"):
        cost_model = model(name)
        assert cost_model.on_npu(view).ms == cost_model.on_host(view).ms == 0.0
        assert cost_model.price_works([view]).npu[view.name].total_bytes == 0


def test_a_float_model_costs_what_its_fused_form_does():
    graph = view(networks.mobilenet_v2().model())
    items = works(graph)
    assert len(items) == sum(n.op != "Clip" for n in graph.nodes)
    assert sum(w.macs for w in items) == 300_774_272
    assert {w.kind for w in items} == {Kind.CONV, Kind.DEPTHWISE, Kind.ELEMENTWISE, Kind.POOL, Kind.VIEW, Kind.FC}
    assert all(w.element_bytes == 1 for w in items)
    first = items[0]
    assert (first.height, first.width, first.channels, first.in_channels, first.kernel) == (112, 112, 32, 3, (3, 3))
    assert (first.in_bytes, first.out_bytes, first.weight_bytes) == ((224 * 224 * 3,), 112 * 112 * 32, 27 * 32 + 4 * 32)
    assert replace(first, name="x").taps == 9
