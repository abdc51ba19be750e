"""Gates with their shortfall; rewrites ranked by what they gain."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from checkednets import grouped_net, host, swish_net, weights
from smallmodels import images, model, quantized, run_onnx, target

from pipeline.checking import whatif
from pipeline.checking.check import Demands, check
from pipeline.checking.gates import Gates, missed
from pipeline.errors import ModelError
from pipeline.graph.view import view
from pipeline.rewrites.nouns import Kind


def judge(name, beside):
    chip = target(name)
    return lambda model: check("net", view(model), chip, beside, Demands(prices=False))


def quiet(_):
    """Hears nothing."""


@pytest.fixture
def report():
    return judge("jetson-xavier-nx-dla", host(conv_macs_per_second=1e8))(swish_net())


def test_a_gate_that_is_kept_says_nothing(report):
    cut, total = report.cut, report.totals
    kept = Gates(report.coverage, total.ms, cut.crossings, cut.partitions, total.crossing_bytes / 1e6, total.energy_mj)
    assert missed(report, kept) == ()
    assert missed(report, Gates()) == ()


@pytest.mark.parametrize(
    ("gate", "share", "says"),
    [
        ("max_ms", 0.5, "too many"),
        ("max_mb", 0.5, "MB over the link"),
        ("max_mj", 0.5, "mJ"),
        ("max_crossings", 0, "max_crossings is 0"),
        ("max_partitions", 0, "max_partitions is 0"),
    ],
)
def test_a_gate_that_is_missed_says_by_how_much(report, gate, share, says):
    value = {
        "max_ms": report.totals.ms,
        "max_mb": report.totals.crossing_bytes / 1e6,
        "max_mj": report.totals.energy_mj,
        "max_crossings": report.cut.crossings,
        "max_partitions": report.cut.partitions,
    }[gate]
    (line,) = missed(report, Gates(**{gate: value * share}))
    assert line.startswith(gate)
    assert says in line
    assert f"{value - value * share:.4g} too many" in line


def test_what_is_not_known_misses_its_gate():
    report = judge("hi3559a-nnie", host())(swish_net())
    assert missed(report, Gates(max_ms=1e9, max_mj=1e9)) == (
        "max_ms is 1e+09, but the ms on hi3559a-nnie are not known",
        "max_mj is 1e+09, but the mJ on hi3559a-nnie are not known",
    )


def test_a_floor_that_no_placement_meets_is_told_from_one_that_costs_time():
    grouped = judge("conv-only", host(conv_macs_per_second=1e6))(grouped_net())
    (line,) = missed(grouped, Gates(min_macs_on_npu=1.0))
    assert "no placement can meet it" in line
    assert "first fallback: Conv#2 (Conv)" in line
    fast = judge("conv-only", host(conv_macs_per_second=1e15, bytes_per_second=1e15))(grouped_net())
    (line,) = missed(fast, Gates(min_macs_on_npu=0.9))
    assert "90.00% short; the NPU takes up to" in line


def test_rewrites_are_ranked_by_time():
    decide = judge("coral-edgetpu-pcie", host(conv_macs_per_second=1e8))
    network = swish_net()
    found = whatif.gains(network, decide(network), decide, quiet)
    assert {"hard-swish-by-relu6", "hard-swish-to-relu6"} <= {g.rule for g in found}
    assert [g.delta_ms for g in found] == sorted((g.delta_ms for g in found), reverse=True)
    best = found[0]
    assert best.delta_ms > 0
    assert best.nodes == ("HardSwish",)
    assert best.delta_macs_on_npu > 0


def test_a_rewrite_that_raises_coverage_and_loses_time_ranks_below_zero():
    """A grouped convolution made dense is all on the NPU, with 32 times the multiply-accumulates."""
    decide = judge("conv-only", host(conv_macs_per_second=8e10, bytes_per_second=1e12))
    network = grouped_net()
    before = decide(network)
    found = {g.rule: g for g in whatif.gains(network, before, decide, quiet)}
    dense = found["grouped-conv-to-dense"]
    assert dense.delta_coverage > 0
    assert dense.delta_macs_on_npu > 0
    assert dense.delta_ms < 0
    below = list(found)[list(found).index(dense.rule) :]
    assert all(found[rule].delta_ms < 0 for rule in below)
    assert dense.rule not in {g.rule for g in whatif.apply_exact(network, before, decide, quiet).gains}


def test_exact_rewrites_that_help_are_applied_and_compute_the_same():
    decide = judge("coral-edgetpu-pcie", host(conv_macs_per_second=1e8))
    network = swish_net()
    before = decide(network)
    result = whatif.apply_exact(network, before, decide, quiet)
    assert result.gains
    assert all(g.kind is Kind.EXACT for g in result.gains)
    assert result.check.totals.ms < before.totals.ms
    assert before.totals.ms - result.check.totals.ms == pytest.approx(sum(g.delta_ms for g in result.gains))
    onnx.checker.check_model(result.model)
    feeds = {"x": images((1, 3, 16, 16), 1)[0]}
    for name, values in run_onnx(network, feeds).items():
        np.testing.assert_allclose(run_onnx(result.model, feeds)[name], values, rtol=1e-4, atol=1e-5)


def squeeze_net():
    """Convolutions with a HardSwish and then a HardSigmoid gate; the target lacks both."""
    return model(
        """
        g (float[1,8,16,16] x) => (float[1,8,16,16] y) {
          a = Conv <pads = [1,1,1,1]> (x, w)
          b = HardSwish (a)
          c = Conv <pads = [1,1,1,1]> (b, w)
          d = HardSigmoid <alpha = 0.16666667> (c)
          e = Mul (b, d)
          y = Conv <pads = [1,1,1,1]> (e, w)
        }
        """,
        w=weights(8, 8),
    )


def test_rewrites_that_need_each_other_are_tried_together():
    decide = judge("coral-edgetpu-pcie", host(conv_macs_per_second=1e8))
    network = squeeze_net()
    before = decide(network)
    found = {g.rule: g for g in whatif.gains(network, before, decide, quiet)}
    both = found["hard-swish-by-relu6+hard-sigmoid-by-relu6"]
    assert both.nodes == ("HardSwish", "HardSigmoid")
    assert both.delta_nodes_on_cpu == len(network.graph.node) - before.nodes_on_npu
    assert both.delta_ms > found["hard-swish-by-relu6"].delta_ms + found["hard-sigmoid-by-relu6"].delta_ms
    result = whatif.apply_exact(network, before, decide, quiet)
    assert result.gains[0] == both
    assert result.check.coverage == 1.0
    feeds = {"x": images((1, 8, 16, 16), 1)[0]}
    np.testing.assert_allclose(run_onnx(result.model, feeds)["y"], run_onnx(network, feeds)["y"], rtol=1e-4, atol=1e-5)


def test_without_times_a_rewrite_helps_by_coverage():
    decide = judge("hi3559a-nnie", host())
    network = grouped_net()
    before = decide(network)
    for gain in whatif.gains(network, before, decide, quiet):
        assert gain.delta_ms is None
    result = whatif.apply_exact(network, before, decide, quiet)
    assert replace(result, gains=()).check.coverage >= before.coverage


def test_a_quantized_model_has_no_rewrites():
    network, _ = quantized(grouped_net(8, 2, 8), images((1, 8, 8, 8)))
    with pytest.raises(ModelError, match="is quantized"):
        whatif.gains(network, judge("conv-only", host())(network), judge("conv-only", host()), quiet)
