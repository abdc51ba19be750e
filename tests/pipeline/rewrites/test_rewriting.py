"""What holds for every rule: its proof, its names, its limits; and comparing two models."""

import numpy as np
import pytest
import torch
from onnx import helper
from rewritecases import IMAGE, number, weights
from smallmodels import images, model, pair, quantized, raw
from torch import nn
from torchvision.models import mobilenet_v3_small, resnet18

from pipeline.errors import ModelError
from pipeline.graph.capture import capture
from pipeline.graph.model import check
from pipeline.graph.view import view
from pipeline.rewrites.checking import HEAVY, checked
from pipeline.rewrites.equivalence import CENTRE, SPREAD, equivalent, run
from pipeline.rewrites.nouns import Kind
from pipeline.rewrites.patterns import Patterns, single
from pipeline.rewrites.reading import source
from pipeline.rewrites.rule import ROUNDS, Rule
from pipeline.rewrites.table import RULES, candidates, rule

DIVERSE = IMAGE + "{ a = HardSwish (x) y = HardSwish (a) }"


def broken(operator="Relu", becomes="Abs", kind=Kind.EXACT, bound=None):
    """A rule that turns one operator into another."""
    return Rule(
        "broken",
        kind,
        "Wrong.",
        Patterns((single(operator, lambda _: True, lambda op, n: op.op(becomes, source(n))),)),
        bound,
    )


def test_a_rule_that_is_not_exact_is_found_out_at_once():
    with pytest.raises(ModelError) as error:
        broken().apply(raw(IMAGE + "{ y = Relu (x) }"))
    assert str(error.value).startswith("Relu: the rewrite broken changes its result by ")
    assert "more than 1e-05" in str(error.value)
    assert "leave broken out" in str(error.value)


def test_a_close_rule_is_held_to_its_bound():
    sigmoid = raw(IMAGE + "{ y = Sigmoid (x) }")
    with pytest.raises(ModelError, match=r"more than 0\.001"):
        broken("Sigmoid", "HardSigmoid", Kind.CLOSE, 1e-3).apply(sigmoid)
    assert broken("Sigmoid", "HardSigmoid", Kind.CLOSE, 0.5).apply(sigmoid).nodes == ("Sigmoid",)
    assert broken("Sigmoid", "HardSigmoid", Kind.NEEDS_FINE_TUNING).apply(sigmoid).nodes == ("Sigmoid",)


def test_a_rule_without_end_is_stopped():
    with pytest.raises(ModelError, match=f"broken still changes it after {ROUNDS} rounds"):
        broken("Abs", "Abs").apply(raw(IMAGE + "{ y = Abs (x) }"))


def test_only_the_chosen_nodes_change():
    before = model(DIVERSE)
    applied = rule("hard-swish-to-clip").apply(before, ["HardSwish#2"])
    assert [n.op for n in view(applied.model).nodes] == ["HardSwish", "Mul", "Add", "Clip", "Mul"]
    assert applied.replacements[0].before == ("HardSwish#2",)
    assert applied.nodes == ("HardSwish#2/Mul", "HardSwish#2/Add", "HardSwish#2/Clip", "HardSwish#2/Mul#2")


@pytest.mark.parametrize("nodes", [[], ["Conv"], ["HardSwish#3"]])
def test_nodes_that_a_rule_does_not_fit_are_named(nodes):
    with pytest.raises(ModelError, match=f"{nodes[0] if nodes else 'no nodes'}: hard-swish-to-clip does not fit here"):
        rule("hard-swish-to-clip").apply(raw(DIVERSE), nodes)


def test_a_pattern_needs_all_of_its_nodes_to_be_chosen():
    both = raw(IMAGE + "{ a = Max (x, low) y = Min (a, high) }", low=number(0), high=number(6))
    assert [c.nodes for c in candidates(both)] == [("Max", "Min")]
    with pytest.raises(ModelError, match="min-max-to-clip does not fit here"):
        rule("min-max-to-clip").apply(both, ["Min"])


def test_rounds_are_reported_as_one_change():
    large = raw("g (float[1,4,128,7] x) => (float[1,4,1,1] y) { y = GlobalAveragePool (x) }")
    applied = rule("split-average-pool").apply(large)
    (change,) = applied.replacements
    assert change.before == ("GlobalAveragePool",)
    assert "y" in change.outputs
    assert sorted(applied.nodes) == sorted(n.name for n in applied.model.graph.node)


def test_the_metadata_of_the_model_stays():
    before = raw(DIVERSE)
    helper.set_model_props(before, {"author": "me"})
    before.doc_string, before.producer_name, before.graph.doc_string = "about", "hand", "graph"
    for one in RULES:
        after = one.apply(before).model
        assert [(p.key, p.value) for p in after.metadata_props] == [("author", "me")]
        assert (after.doc_string, after.producer_name, after.graph.doc_string) == ("about", "hand", "graph")
        assert after.opset_import == before.opset_import


def test_the_replacement_of_a_weighted_node_keeps_its_name_and_new_weights_take_free_ones():
    text = "g (float[1,4,1,1] x) => (float[1,4] y, float[1,4] z) { a = Flatten (x) [head] y = Gemm (a, w) "
    text += "b = Flatten (x) [head2] z = Gemm (b, w) }"
    before = raw(text, w=weights(4, 4), **{"head.weight": weights(1)})
    before.graph.output.append(helper.make_tensor_value_info("head.weight", 1, [1]))
    applied = rule("gemm-to-conv").apply(before)
    assert applied.nodes == ("head", "head/Flatten", "head2", "head2/Flatten")
    assert {i.name for i in applied.model.graph.initializer} == {"head.weight", "head.weight#2", "head2.weight"}
    assert equivalent(before, applied.model, 0).relative < 1e-6


def test_checking_without_the_weights_finds_what_checking_with_them_does():
    text = "g (float[2,4,6,6] x) => (float[N,M] y) { a = Conv (x, w) b = Reshape (a, s) y = Relu (b) }"
    before = raw(text, w=weights(HEAVY, 4, 1, 1), s=np.array([2, -1]), unused=weights(2))
    helper.set_model_props(before, {"author": "me"})
    light, full = checked(before, "here"), check(before, "here")
    assert [v.name for v in light.graph.input] == ["x"]
    for graph in (light.graph, full.graph):
        graph.value_info.sort(key=lambda v: v.name)
        graph.initializer.sort(key=lambda t: t.name)
    assert light == full
    with pytest.raises(ModelError, match="here: is not valid ONNX"):
        checked(raw("g (float[2,2000] x) => (float[9] y) { y = MatMul (x, w) }", w=weights(1999, 9)), "here")


def test_new_nodes_take_over_the_metadata_of_those_they_replace():
    before = raw(IMAGE + "{ y = HardSwish (x) }")
    before.graph.node[0].metadata_props.add(key="scope", value="head.act")
    after = rule("hard-swish-to-clip").apply(before).model
    assert [n.metadata_props[0].value for n in after.graph.node] == ["head.act"] * 4


def test_a_rewrite_gives_the_same_bytes_each_time():
    before = raw(IMAGE + "{ y = Conv <group = 2> (x, w) }", w=weights(4, 2, 1, 1))
    first, second = (rule("split-grouped-conv").apply(before).model for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_a_weight_that_others_read_survives():
    before = raw(
        "g (float[4,4] x) => (float[4,4] y, float[4,4] z) { y = MatMul (x, w) z = Add (x, w) }", w=weights(4, 4)
    )
    after = rule("matmul-to-conv").apply(before).model
    assert "w" in {i.name for i in after.graph.initializer}
    assert equivalent(before, after, 0).relative < 1e-6


def test_a_weight_that_the_caller_may_replace_is_not_a_constant():
    before = raw("g (float[2,4] x, float[4,3] w) => (float[2,3] y) { y = MatMul (x, w) }", w=weights(4, 3))
    assert candidates(before) == ()


def test_an_inner_result_that_leaves_the_model_is_kept():
    before = raw(
        IMAGE.replace("y)", "y, float[1,4,6,6] a)") + "{ a = Max (x, low) y = Min (a, high) }",
        low=number(0), high=number(6),
    )  # fmt: skip
    assert candidates(before) == ()


def test_other_domains_are_left_alone():
    assert candidates(raw(IMAGE + "{ y = my.HardSwish (x) }")) == ()


def test_a_quantized_model_and_an_unknown_opset_are_refused():
    lossy, _ = quantized(model(IMAGE + "{ y = Relu (x) }"), images((1, 4, 6, 6)))
    for refused, reason in (
        (lossy, "is quantized"),
        (raw(IMAGE + "{" + pair("y", "x", 0.1) + "}"), "is quantized"),
        (raw(IMAGE + "{ y = Relu (x) }", opset=12), "has opset 12; rewrites know 13 to 23"),
        (raw(IMAGE + "{ y = Relu (x) }", opset=24), "has opset 24"),
    ):
        with pytest.raises(ModelError, match=reason):
            candidates(refused)
        with pytest.raises(ModelError, match=reason):
            rule("fold-constants").apply(refused)
    foreign = raw(IMAGE + "{ y = Relu (x) }")
    del foreign.opset_import[0]
    with pytest.raises(ModelError, match="has no standard opset"):
        candidates(foreign)


def test_the_difference_of_two_models_is_the_largest():
    text = "g (float[2,3] x) => (float[2,3] y, float[2,3] z) { y = Mul (x, a) z = Mul (x, b) }"
    before = raw(text, a=number(1), b=number(100))
    after = raw(text, a=number(1.5), b=number(101))
    largest = np.abs(np.random.default_rng(3).normal(CENTRE, SPREAD, (2, 3))).max()
    found = equivalent(before, after, 3)
    assert found.relative == pytest.approx(0.5)
    assert found.absolute == pytest.approx(largest, rel=1e-5)
    assert equivalent(before, before, 3).absolute == 0
    assert equivalent(before, after, 3) == found


def test_what_is_not_a_number_differs_from_what_is():
    good, bad = raw(IMAGE + "{ y = Abs (x) }"), raw(IMAGE + "{ y = Sqrt (x) }")
    assert equivalent(good, bad, 0).absolute == np.inf
    assert equivalent(bad, bad, 0).absolute == 0
    assert equivalent(bad, good, 0).relative == np.inf


def test_models_that_cannot_be_compared_are_named():
    good = raw(IMAGE + "{ y = Abs (x) }")
    with pytest.raises(ModelError, match="has other outputs"):
        equivalent(good, raw("g (float[1,4,6,6] x) => (float[1,4,6,6] z) { z = Abs (x) }"), 0)
    flat = raw("g (float[1,4,6,6] x) => (float[1,4,36] y) { y = Reshape (x, s) }", s=np.array([1, 4, 36]))
    with pytest.raises(ModelError, match=r"y: has shape \(1, 4, 36\), not \(1, 4, 6, 6\)"):
        equivalent(good, flat, 0)
    with pytest.raises(ModelError, match="ONNX Runtime cannot run it"):
        equivalent(good, raw(IMAGE + "{ y = my.Unknown (x) }"), 0)


@pytest.fixture(scope="module", params=[mobilenet_v3_small, resnet18])
def network(request):
    """A captured network with random weights whose activations neither vanish nor explode."""
    torch.manual_seed(0)
    built = request.param().eval()
    for layer in built.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, 0, 1.5 / (layer.weight[0].numel() ** 0.5))
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return capture(built, torch.zeros(1, 3, 64, 64), "image", ["logits"], 18)


def test_all_exact_rules_together_keep_the_results_of_a_network(network):
    after, used = network, set()
    for one in (r for r in RULES if r.kind is Kind.EXACT):
        applied = one.apply(after)
        used |= {one.name} if applied.replacements else set()
        after = applied.model
    assert {"gemm-to-conv", "reduce-mean-to-global-average-pool"} <= used
    ops = {n.op for n in view(after).nodes}
    assert not ops & {"Gemm", "MatMul", "HardSwish", "HardSigmoid"}
    values = run(network, {"image": np.random.default_rng(0).normal(0, 1, (1, 3, 64, 64)).astype(np.float32)})[0]
    assert 1e-3 < np.abs(values).max() < 1e6
    for seed in range(2):
        assert equivalent(network, after, seed).relative <= 1e-4
    names = {n.name for n in view(network).nodes}
    assert all(n.name.split("/")[0] in names for n in view(after).nodes)


def test_a_chain_of_fully_connected_layers_becomes_convolutions():
    layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6), nn.Hardswish(), nn.Linear(6, 5))
    captured = capture(layers, torch.zeros(1, 8, 7, 7), "image", ["logits"], 18)
    assert [c.rule for c in candidates(captured) if c.rule == "gemm-to-conv"] == ["gemm-to-conv"]
    applied = rule("gemm-to-conv").apply(captured)
    assert [n.op for n in view(applied.model).nodes] == ["ReduceMean", "Conv", "HardSwish", "Conv", "Flatten"]
    assert {"2", "4"} <= set(applied.nodes)


class Blocks(nn.Module):
    """What torch's exporter makes of GELU, SiLU, pixel shuffle, a resize and a split."""

    def forward(self, x):
        a = nn.functional.gelu(x) + nn.functional.silu(x)
        b = nn.functional.interpolate(a, scale_factor=2, mode="bilinear")
        c, d = torch.split(nn.functional.pixel_shuffle(b, 2), [1, 1], 1)
        return nn.functional.leaky_relu(c) * d


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_rules_know_what_torch_exports(opset):
    captured = capture(Blocks(), torch.zeros(1, 8, 6, 6), "image", ["result"], opset)
    assert {c.rule for c in candidates(captured)} >= {
        "gelu-to-tanh",
        "gelu-to-sigmoid",
        "silu-to-hard-swish",
        "resize-to-nearest",
        "depth-to-space-to-reshape",
        "depth-to-space-to-conv-transpose",
        "split-to-slice",
        "leaky-relu-to-max",
    }


def test_a_thousand_places_are_found_and_rewritten():
    lines = "\n".join(f"v{i + 1} = HardSwish (v{i})" for i in range(1000))
    long = raw(f"g (float[1,4] v0) => (float[1,4] v1000) {{ {lines} }}")
    found = candidates(long)
    assert len(found) == 3000
    assert len(rule("hard-swish-to-relu6").apply(long).replacements) == 1000
