"""Checks of small networks, held against every placement there is."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from checkednets import LACKING, TARGETS, grouped_net, host, swish_net
from smallmodels import model, target

from pipeline.checking.check import Demands, check, place
from pipeline.checking.nouns import Check
from pipeline.cost.nouns import FREE
from pipeline.errors import ModelError
from pipeline.graph.fusion import units as fused_units
from pipeline.graph.view import view
from pipeline.placing.evaluate import npu_partitions
from pipeline.targets.placement import by_rules
from pipeline.targets.rules import violations


def every_placement(found):
    """The cheapest total of all placements that are allowed, by the cost model's own sum over what is placed."""
    units, model, prices = found.units, found.priced.model, found.priced.prices
    makers = {t.wire: u.name for u in units for n in u.nodes for t in n.outputs}
    inputs = {t.wire for t in found.graph.inputs}
    outputs = {t.wire for t in found.graph.outputs}
    inside = {t.wire for u in units for n in u.nodes[:-1] for t in n.outputs}
    names = {u.name for u in units}
    apart = [(u[0].name, u[1].name) for u in fused_units(found.graph) if len(u) > 1 and u[1].name in names]
    best = None
    for bits in product((False, True), repeat=len(units)):
        on_npu = {u.name for u, bit in zip(units, bits, strict=True) if bit}
        if any(u.reasons and u.name in on_npu for u in units):
            continue
        devices = {u.name: "npu" if u.name in on_npu else "cpu" for u in units}
        crossing = set()
        for unit in units:
            for wire in {t.wire for n in unit.nodes for t in n.activations} - inside:
                here = wire not in inputs and makers[wire] in on_npu
                if here != (unit.name in on_npu):
                    crossing.add(wire)
        crossing |= {wire for wire in outputs if makers.get(wire) in on_npu}
        try:
            partitions = npu_partitions(found.priced.problem, devices)
        except ModelError:  # more partitions than the target takes
            continue
        free = {clamp: FREE for operator, clamp in apart if operator not in on_npu}
        total = model.total(replace(prices, cpu={**prices.cpu, **free}), on_npu, partitions, crossing).ms
        best = total if best is None else min(best, total)
    return best


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("net", [swish_net, grouped_net])
@pytest.mark.parametrize("rate", [1e8, 1e9, 1e11])
def test_no_placement_is_cheaper_than_the_one_that_is_used(name, net, rate):
    graph, chip = view(net()), target(name)
    beside = host(conv_macs_per_second=rate, depthwise_macs_per_second=rate)
    found = place(graph, chip, beside, by_rules(chip), Demands())
    report = check("net", graph, chip, beside)
    assert report.cut.optimal_ms == pytest.approx(every_placement(found), abs=1e-8)
    assert report.cut.optimal_ms == pytest.approx(report.totals.ms, abs=1e-8)
    assert report.cut.gap_percent == 0
    assert report.cut.lower_bound_ms <= report.cut.optimal_ms <= report.cut.greedy_ms + 1e-9
    assert report.cut.optimal_ms <= report.cut.cpu_ms + 1e-9


@pytest.mark.parametrize("name", TARGETS)
def test_every_operator_is_told_once_with_device_and_reason(name):
    graph, chip = view(swish_net()), target(name)
    report = check("net", graph, chip, host())
    assert [n.name for n in report.nodes] == [n.name for n in graph.nodes]
    assert sorted(n for _, names in report.partitions for n in names) == sorted(n.name for n in graph.nodes)
    for node, told in zip(graph.nodes, report.nodes, strict=True):
        broken = [str(v) for v in violations(node, chip)]
        if broken:
            assert (told.device, list(told.reasons)) == ("cpu", broken)
        assert bool(told.reasons) == (told.device == "cpu")
    assert report.refused == {n.name for n in graph.nodes if violations(n, chip)}
    assert sum(n.ms for n in report.nodes) == pytest.approx(report.totals.npu_ms + report.totals.cpu_ms)


def taking(chip, op):
    """``chip`` as if it had the operator ``op``, with no rules."""
    some = next(iter(chip.operators.values()))
    absent = {name: why for name, why in chip.absent.items() if name != op}
    return chip.model_copy(
        update={"operators": {**chip.operators, op: some.model_copy(update={"rules": ()})}, "absent": absent}
    )


@pytest.mark.parametrize("name", LACKING)
@pytest.mark.parametrize("rate", [1e8, 1e11])
def test_the_price_of_a_fallback_is_that_of_a_target_which_takes_it(name, rate):
    graph, chip, beside = view(swish_net()), target(name), host(conv_macs_per_second=rate)
    report = check("net", graph, chip, beside)
    assert report.fallbacks
    for price in report.fallbacks:
        if len([n for n in graph.nodes if n.op == price.op]) > 1 or not report.refused & {price.node}:
            continue
        other = check("net", graph, taking(chip, price.op), beside, Demands(place={price.node: "npu"}))
        assert price.delta_ms == pytest.approx(report.totals.ms - other.totals.ms, abs=1e-8)
        assert sum(price.parts.values()) == pytest.approx(price.delta_ms)
        moved = [sum(r.totals.bytes.values()) + r.totals.crossing_bytes for r in (report, other)]
        assert price.delta_mb == pytest.approx((moved[0] - moved[1]) / 1e6)


def test_all_fallbacks_of_a_type_have_one_price():
    graph, chip, beside = view(swish_net()), target("coral-edgetpu-pcie"), host(conv_macs_per_second=1e8)
    report = check("net", graph, chip, beside)
    (price,) = [p for p in report.fallback_ops if p.op == "HardSwish"]
    other = check("net", graph, taking(chip, "HardSwish"), beside)
    assert price.delta_ms == pytest.approx(report.totals.ms - other.totals.ms, abs=1e-8)
    assert price.delta_ms > 0


def test_a_clamp_that_the_npu_does_not_fuse_leaves_the_convolution_there():
    chip = target("coral-edgetpu-pcie")
    report = check("net", view(swish_net()), chip, host(), Demands(place={"Conv#2": "npu"}, max_npu_partitions=3))
    devices = {n.name: n.device for n in report.nodes}
    assert devices["Conv#2"] == "npu"
    assert devices["Clip"] == "cpu"


def test_a_clamp_apart_from_its_convolution_costs_the_host_nothing():
    graph, beside = view(swish_net()), host()
    together, apart = (check("net", graph, target(name), beside) for name in ("snapdragon-855", "sapeon-x220"))
    assert apart.cut.cpu_ms == pytest.approx(together.cut.cpu_ms)
    on_host = check("net", graph, target("sapeon-x220"), beside, Demands(place={"Conv#2": "cpu"}))
    on_npu = check("net", graph, target("sapeon-x220"), beside, Demands(place={"Conv#2": "npu"}))
    clamps = [next(n for n in report.nodes if n.op == "Clip") for report in (on_host, on_npu)]
    assert [clamp.device for clamp in clamps] == ["cpu", "cpu"]
    assert clamps[0].ms == 0 < clamps[1].ms


def test_a_fast_host_gets_everything():
    report = check("net", view(swish_net()), target("coral-edgetpu-usb2"), host(**dict.fromkeys(FAST, 1e15)))
    assert report.nodes_on_npu == 0
    assert report.cut.npu_partitions == 0
    assert report.totals.ms == report.cut.cpu_ms < report.cut.greedy_ms
    assert any("the NPU would make it slower" in note for note in report.notes)


FAST = ("conv_macs_per_second", "depthwise_macs_per_second", "fc_macs_per_second", "bytes_per_second")


def test_without_times_the_npu_gets_all_that_it_takes():
    chip = target("hi3559a-nnie")
    graph = view(swish_net())
    report = check("net", graph, chip, host())
    assert report.totals.ms is None
    assert (report.cut.greedy_ms, report.cut.lower_bound_ms, report.cut.gap_percent) == (None, None, None)
    assert {n.name for n in report.nodes if n.device == "npu"} == {
        n.name for n in graph.nodes if not violations(n, chip)
    }
    assert any("no placement is proven" in note for note in report.notes)


def test_without_a_host_what_the_npu_takes_has_a_time_all_the_same():
    graph = view(
        model(
            "g (float[1,3,8,8] x) => (float[1,4,8,8] y) { y = Conv <pads = [1,1,1,1]> (x, w) }",
            w=np.ones((4, 3, 3, 3), np.float32),
        )
    )
    report = check("net", graph, target("ethos-u55-256"), None)
    assert report.totals.ms > 0
    assert report.host is None
    assert any("No host is known" in note for note in report.notes)


def test_a_fit_per_inference_is_paid_only_with_the_npu():
    chip = target("coral-edgetpu-usb3")
    quick = check("net", view(grouped_net()), chip, host(conv_macs_per_second=1e7))
    assert quick.cut.npu_partitions
    assert "launch_s" not in quick.totals.missing  # what an inference was fitted to has the launch in it
    slow = check("net", view(grouped_net()), chip, host(conv_macs_per_second=1e7))
    assert slow.cut.npu_partitions == 1
    assert slow.totals.launch_ms > 1.0
    assert slow.cut.optimal_ms == pytest.approx(slow.totals.ms)
    fast = check("net", view(grouped_net()), chip, host(**dict.fromkeys(FAST, 1e13)))
    assert fast.totals.launch_ms == 0


def test_demands_are_kept():
    graph, chip = view(swish_net()), target("ethos-u65-256")
    report = check("net", graph, chip, host(), Demands(place={"Conv*": "cpu", "Conv": "npu"}))
    devices = {n.name: n.device for n in report.nodes}
    assert devices["Conv"] == "npu"
    assert [devices[n] for n in ("Conv#2", "Conv#3")] == ["cpu", "cpu"]
    by_hand = next(n for n in report.nodes if n.name == "Conv#3")
    assert by_hand.reasons == ("It is placed on the CPU by hand",)


def test_what_the_policy_leaves_on_the_cpu_says_so():
    chip = target("coral-edgetpu-pcie")
    report = check("net", view(swish_net()), chip, host(conv_macs_per_second=1e7), Demands(max_npu_partitions=1))
    left = [n for n in report.nodes if n.device == "cpu" and n.name not in report.refused]
    assert left
    assert all("at most 1 NPU partition" in n.reasons[0] or "faster with it on the CPU" in n.reasons[0] for n in left)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"HardSwish": "npu"}, r"HardSwish.*does not take it.*it has no HardSwish"),
        ({"Conx": "npu"}, "did you mean Conv"),
        ({"nothing*": "cpu"}, "no operator of the model"),
        ({"Conv": "gpu"}, "which is no device"),
    ],
)
def test_impossible_demands_are_told(wanted, says):
    with pytest.raises(ModelError, match=says):
        check("net", view(swish_net()), target("coral-edgetpu-pcie"), host(), Demands(place=wanted))


def test_fused_operators_go_together():
    graph = view(
        model(
            "g (float[1,3,8,8] x) => (float[1,4,8,8] y) { a = Conv <pads = [1,1,1,1]> (x, w) y = Relu (a) }",
            w=np.ones((4, 3, 3, 3), np.float32),
        )
    )
    with pytest.raises(ModelError, match="fused and wanted on two devices"):
        check("net", graph, target("rk3588"), host(), Demands(place={"Conv": "npu", "Relu": "cpu"}))


def test_coverage_of_a_model_without_macs_counts_operators():
    graph = view(model("g (float[1,4,8,8] x) => (float[1,4,8,8] y) { a = Relu (x) y = Elu (a) }"))
    report = check("net", graph, target("coral-edgetpu-pcie"), host(), Demands(place={"Relu": "npu"}))
    assert report.macs == 0
    assert report.coverage == 0.5
    assert replace(report, nodes=()).coverage == 1.0
    assert isinstance(report, Check)


def test_many_fallbacks_are_priced_where_everything_else_stays(monkeypatch):
    monkeypatch.setattr("pipeline.checking.fallbacks.ANEW", 0)
    graph, chip, beside = view(swish_net()), target("ethos-u65-256"), host()
    report = check("net", graph, chip, beside)
    pinned = {n.name: n.device for n in report.nodes}
    assert report.fallbacks
    for price in report.fallbacks:
        other = check("net", graph, taking(chip, price.op), beside, Demands(place={**pinned, price.node: "npu"}))
        assert price.delta_ms == pytest.approx(report.totals.ms - other.totals.ms, abs=1e-8)


def test_too_many_fallbacks_leave_the_cheap_ones_without_a_price(monkeypatch):
    monkeypatch.setattr("pipeline.checking.fallbacks.MOST", 1)
    report = check("net", view(swish_net()), target("coral-edgetpu-pcie"), host())
    assert sum(p.delta_ms is not None for p in report.fallbacks) == 1
    assert len(report.fallbacks) == len(report.refused)
