"""Every rule just inside and just outside its limit: which rule answers, with which number."""

import numpy as np
import pytest
from rulecases import BUILT, CASES
from rulemodels import (
    TWICE,
    argmax,
    ints,
    layer,
    lstm,
    padded,
    permuted,
    plain,
    pool,
    prelu,
    product,
    reduced,
    resized,
    scaled,
    transposed,
    zeros,
)
from smallmodels import graph, model, pair, target

from pipeline.graph.view import view
from pipeline.targets.profile import Operator, RuleUse
from pipeline.targets.rules import RULES, placeholders, violations


def judge(rule, limits, text, constants, when=None):
    """What one rule says of the last operator of a model, when it is all that the target demands."""
    return ask(rule, limits, graph(text, **constants).nodes[-1], when)


def ask(rule, limits, seen, when=None):
    strict = target().model_copy(
        update={
            "rules": (),
            "operators": {seen.op: Operator(rules=(RuleUse(rule=rule, limits=limits, when=when),), source="test")},
        }
    )
    return violations(seen, strict)


def test_every_rule_has_a_case():
    assert CASES.keys() | BUILT.keys() == RULES.keys()


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_holds_at_its_limit_and_not_beyond(rule):
    limits, inside, outside, fact = CASES[rule]
    assert judge(rule, limits, *inside) == ()
    (broken,) = judge(rule, limits, *outside)
    assert broken.rule == rule
    assert fact in broken.fact
    assert placeholders(rule) == limits.keys()
    assert "{" not in broken.sentence
    for value in limits.values():
        for number in value if isinstance(value, tuple) else (value,):
            assert (f"{number:,}" if isinstance(number, int) else str(number)) in broken.sentence
    assert str(broken) == f"{broken.sentence}; {broken.fact}"


@pytest.mark.parametrize("rule", BUILT)
def test_a_rule_about_a_built_node(rule):
    inside, outside, fact = BUILT[rule]
    assert ask(rule, {}, inside) == ()
    (broken,) = ask(rule, {}, outside)
    assert (broken.rule, broken.fact) == (rule, fact)


MORE = [
    ("activation_types", {"types": ("int8", "int32")}, ("g (int32[1,4] x) => (int32[1,4] y) { y = Neg (x) }", {}),
        None),
    ("activation_types", {"types": ("int8",)}, plain("y = Gather <axis = 1> (x, i)", other=", int64[2] i"), None),
    ("argmax_depth", {"depth": 127}, argmax("1,4,4,4", axis=3), "it is along axis 3"),
    ("batch_one", {}, lstm("forward", 1), None),
    ("batch_one", {}, lstm("forward", 1, batch=2), "x has batch size 2"),
    ("max_rank", {"rank": 3}, lstm("forward", 1), None),
    ("max_rank", {"rank": 3}, lstm("bidirectional", 2), "y has shape [5, 2, 1, 3]"),
    ("broadcast_per_channel", {}, plain("y = Add (x, x2)", other=", float[1] x2"), None),
    ("broadcast_per_channel", {}, plain("y = Add (x, x2)", other=TWICE), None),
    ("concat_aligned", {"multiple": 32, "channels": 64}, plain("y = Concat <axis = 1> (x, x)", x="1,64,1,1"), None),
    ("large_stride", {"stride": 3}, layer("strides = [3,3], pads = [1,1,1,1], dilations = [2,2]"), None),
    ("large_stride", {"stride": 3}, layer("strides = [4,4], dilations = [2,2]"), "dilations [2, 2]"),
    ("max_dilated_kernel", {"size": 3}, layer(w="2,4,5,5"), None),
    ("max_kernel", {"height": 6, "area": 35}, plain("y = GlobalAveragePool (x)"), "it has kernel [6, 6]"),
    ("max_padding", {"padding": 0}, pool('kernel_shape = [2,2], auto_pad = "SAME_LOWER"'),
        "it has padding [1, 1, 0, 0]"),
    ("pad_zero", {}, padded("reflect"), None),
    ("pad_zero", {}, padded(), None),
    ("pad_zero", {}, plain("y = Pad (x, p, v)", other=", float v", p=ints(0, 0, 1, 1, 0, 0, 1, 1)), "v is computed"),
    ("padded_kernel", {"size": 8}, pool("kernel_shape = [9,9]"), None),
    ("pow_exponent", {"exponents": (2,)}, plain("y = Pow (x, x2)", other=TWICE), "its exponent x2 is computed"),
    ("pow_exponent", {"exponents": (2, 3)}, plain("y = Pow (x, e)", e=np.float32([2] * 5 + [3])), "it has [2.0, 3.0]"),
    ("reduced_elements", {"int8": 36, "uint8": 18, "int16": 9}, reduced(2, 3, op="ReduceMax"), None),
    ("resize_factors_or_point", {"factors": (2,)}, scaled(rows=1.0, columns=1.0), None),
    ("resize_factors_or_point", {"factors": (2,)}, resized(x="1,4,1,1", scales=(1, 1, 3, 5)), None),
    ("half_pixel_factor", {"factor": 2}, resized("nearest", scales=(1, 1, 4, 4)), None),
    ("half_pixel_factor", {"factor": 2}, resized("linear", "align_corners", scales=(1, 1, 4, 4)), None),
    ("resize_modes", {"modes": ("linear",)}, resized("cubic"), "it is cubic half_pixel"),
    ("resize_whole_factor", {"low": 1, "nearest": 4, "linear": 9}, resized("nearest", scales=(1, 1, 5, 1)),
        "to [30, 6]"),
    ("resize_whole_factor", {"low": 1, "nearest": 4, "linear": 4}, resized(scales=(1, 1, 1.5, 1)), "to [9, 6]"),
    ("resize_whole_factor_or_point", {"low": 2, "high": 8}, resized(x="1,4,1,1", scales=(1, 1, 33, 9)), None),
    ("small_or_long", {"size": 32, "long": (64,)}, transposed("strides = [33,1]"), "it has strides [33, 1]"),
    ("small_or_long", {"size": 32, "long": (64,)}, transposed("strides = [64,1]"), None),
    ("transpose_channels_last", {"channels": 9, "multiple": 8}, permuted(0, 3, 1, 2, x="1,9,3,3"), None),
    ("transposed_output", {}, transposed("strides = [2,2], pads = [0,0,1,1]"), None),
    ("transposed_strides", {"stride": 2}, transposed("strides = [3,3]"), "it has strides [3, 3]"),
    ("vector_output", {}, product("1,1,4", "4,3", "a,m,n"), None),
    ("weight_sum", {"sum": 300}, layer(w="2,4,3,3"), None),
    ("weight_types", {"types": ("int8",)}, layer(), None),
    ("width_under_tall_kernel", {"width": 4}, layer(w="2,4,1,3"), None),
    ("clip_limits", {"ranges": ("-1..1", "0..")}, plain("y = Clip (x, l, h)", l=np.float32(-1), h=np.float32(1)), None),
    ("clip_limits", {"ranges": ("-1..1", "0..")}, plain("y = Clip (x, l)", l=np.float32(0)), None),
    ("clip_limits", {"ranges": ("-1..1", "0..")}, plain("y = Clip (x)"), "it clips to None..None"),
    ("clip_limits", {"ranges": ("-1..1", "0..")}, plain("y = Clip (x, l)", other=", float l"),
        "its limit l is computed"),
    ("concat_constant", {}, plain("y = Concat <axis = 1> (x, x, x)"), None),
    ("concat_constant", {}, plain("y = Concat <axis = 1> (x, x, c)", c=np.zeros((1, 1, 6, 6), np.float32)), "3 inputs"),
    ("group_one_or_depthwise", {}, layer("group = 1"), None),
    ("int8_activations", {}, plain("y = Relu (x)"), None),
    ("int8_activations", {}, ("g (int32[1,4] x) => (int32[1,4] y) { y = Neg (x) }", {}), "x is int32"),
    ("max_kernel", {"height": 3, "area": 12}, layer(w="2,4,2,7"), "it has kernel [2, 7]"),
    ("max_kernel", {"height": 3, "area": 12}, plain("y = MaxPool <kernel_shape = [4,1]> (x)"), "it has kernel [4, 1]"),
    ("max_stride", {"stride": 3}, plain("y = MaxPool <kernel_shape = [1,1]> (x)"), None),
    ("prelu_innermost", {}, prelu(1), None),
    ("prelu_innermost", {}, plain("y = PRelu (x, x2)", other=TWICE), "its slope x2 is computed"),
    ("reduce_depth_multiple", {"multiple": 4}, plain("y = ReduceMean (x, a)", x="1,6,6,6", a=ints(2, 3)), None),
    ("reduce_keeps_batch", {}, plain("y = ReduceMax (x)"), "it reduces axes [0, 1, 2, 3]"),
    ("reduce_keeps_batch", {}, plain("y = ReduceMax <noop_with_empty_axes = 1> (x)"), None),
    ("resize_factors", {"factors": (2, 4)}, scaled(rows=4.0, columns=4.0), None),
    ("resize_factors", {"factors": (2, 4)}, scaled(rows=2.0, columns=4.0), "it scales [6, 6] to [12, 24]"),
    ("slice_steps_one", {}, plain("y = Slice (x, a, b)", a=ints(0), b=ints(1)), None),
    ("softmax_size", {"elements": 9}, plain("y = Softmax (x)", x="1,2,4", made="b,c,d"), "has shape [1, 2, 4]"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "limits", "case", "fact"), MORE)
def test_other_sides_of_rules(rule, limits, case, fact):
    found = judge(rule, limits, *case)
    assert [v.rule for v in found] == ([] if fact is None else [rule])
    assert fact is None or fact in found[0].fact


FORMS = [
    ("dense", layer(), layer("group = 4", "4,1,3,3")),
    ("depthwise", layer("group = 4", "4,1,3,3"), layer()),
    ("grouped", layer("group = 2", "2,2,3,3"), layer("group = 4", "4,1,3,3")),
    ("constant", layer(), plain("y = Conv (x, x2)", other=", float[2,4,3,3] x2")),
    ("computed", plain("y = Conv (x, x2)", other=", float[2,4,3,3] x2"), layer()),
]


@pytest.mark.parametrize(("when", "about", "other"), FORMS)
def test_a_rule_can_be_about_one_form(when, about, other):
    (broken,) = judge("max_kernel_size", {"size": 2}, *about, when=when)
    assert broken.sentence.endswith(": the kernel must be at most 2 in each direction")
    assert judge("max_kernel_size", {"size": 2}, *other, when=when) == ()


def test_float_weights_are_summed_as_int8():
    weight = np.zeros((2, 70000), np.float32)
    weight[0, :65536] = 0.25
    for last, fact in ((0.0, None), (0.25, "sum to 8323199")):
        weight[0, 65536] = last
        text, constants = plain("y = Gemm <transB = 1> (x, w)", x="1,70000", made="m,n", w=weight)
        found = judge("weight_sum", {"sum": 8323072}, text, constants)
        assert [v.rule for v in found] == ([] if fact is None else ["weight_sum"])
        assert fact is None or fact in found[0].fact
    shapes = {"Conv": "2,70000,1,1", "ConvTranspose": "70000,2,1,1", "MatMul": "70000,2"}
    for op, shape in shapes.items():
        x = "1,70000" if op == "MatMul" else "1,70000,1,1"
        text, _ = plain(f"y = {op} (x, w)", x=x, made="m,n" if op == "MatMul" else "b,c,m,n")
        constants = {"w": np.ones([int(d) for d in shape.split(",")], np.float32)}
        (broken,) = judge("weight_sum", {"sum": 8323072}, text, constants)
        assert "sum to 8890000" in broken.fact


def test_per_channel_activations_are_refused():
    built = model(
        "g (float[1,2,3,3] x) => (float[1,2,3,3] y) { q = QuantizeLinear (x, s) \n a = DequantizeLinear (q, s)"
        " y = Relu (a) }", s=np.float32([0.5, 0.25]),
    )  # fmt: skip
    (broken,) = [v for v in violations(view(built).nodes[0], target()) if v.rule == "activation_types"]
    assert broken.fact == "x is quantized as per channel"


def test_all_violations_are_told_at_once():
    seen = graph(*layer("group = 2, dilations = [2,1]", "4,2,3,3", "2,4,40,40")[:1], w=zeros("4,2,3,3")).nodes[0]
    found = violations(seen, target())
    assert [v.rule for v in found] == ["batch_one", "max_rank", "group_one_or_depthwise", "square_dilation"]


def test_an_operator_that_is_not_there_is_one_violation():
    (broken,) = violations(graph(*plain("y = HardSwish (x)")[:1]).nodes[0], target())
    assert (broken.rule, str(broken)) == ("operator", "The NPU must have the operator; it has no HardSwish")
    (broken,) = violations(graph(*plain("y = my.Relu (x)")[:1]).nodes[0], target())
    assert broken.fact == "it has no my.Relu"


def test_pairs_are_no_violation():
    text, _ = plain(f"{pair('a', 'x', 0.5)} r = Relu (a) {pair('y', 'r', 0.5)}")
    assert violations(graph(text).nodes[0], target()) == ()
