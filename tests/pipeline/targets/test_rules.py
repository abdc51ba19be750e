"""Every rule just inside and just outside its limit: which rule answers, with which number."""

import numpy as np
import pytest
from smallmodels import graph, model, pair, target

from pipeline.graph.view import view
from pipeline.targets.profile import Operator, RuleUse
from pipeline.targets.rules import RULES, placeholders, violations


def ints(*values):
    return np.array(values, np.int64)


def zeros(shape):
    return np.zeros([int(d) for d in shape.split(",")], np.float32)


def layer(attributes="group = 1", w="2,4,3,3", x="1,4,40,40"):
    rank = len(x.split(","))
    made = ",".join(["b", "c", "m", "n", "k"][:rank])
    return f"g (float[{x}] x) => (float[{made}] y) {{ y = Conv <{attributes}> (x, w) }}", {"w": zeros(w)}


def plain(body, x="1,4,6,6", made="b,c,m,n", other="", **constants):
    kind = f"float[{made}]" if made else "float"
    return f"g (float[{x}] x{other}) => ({kind} y) {{ {body} }}", constants


def quantized(scale_type):
    kind = f"s = Constant <value = float {{0.5}}> () \n z = Constant <value = {scale_type} {{3}}> ()"
    return plain(f"{kind} q = QuantizeLinear (x, s, z) \n a = DequantizeLinear (q, s, z) \n y = Relu (a)")


RESIZE = 'y = Resize <mode = "{}"> (x, , s)'


def scaled(mode="nearest", rows=2.0, columns=2.0):
    return plain(RESIZE.format(mode), s=np.float32([1, 1, rows, columns]))


def prelu(*slope):
    return plain("y = PRelu (x, a)", a=np.ones(slope, np.float32))


def normalised(p):
    return plain(f"y = LpNormalization <axis = 1, p = {p}> (x)")


def lstm(direction, count):
    body = f'y = LSTM <hidden_size = 3, direction = "{direction}"> (x, w, r)'
    constants = {"w": np.zeros((count, 12, 4), np.float32), "r": np.zeros((count, 12, 3), np.float32)}
    return f"g (float[5,1,4] x) => (float[5,{count},1,3] y) {{ {body} }}", constants


def sliced(step, axis=2, start=0):
    return plain("y = Slice (x, a, b, c, d)", x="2,4,6,6", a=ints(start), b=ints(4), c=ints(axis), d=ints(step))


TWICE = ", float[1,4,6,6] x2"

CASES = {
    "batch_one": ({}, plain("y = Relu (x)"), plain("y = Relu (x)", x="2,4,6,6"), "batch size 2"),
    "clip_limits": (
        {},
        plain("y = Clip (x, l, h)", l=np.float32(0), h=np.float32(6)),
        plain("y = Clip (x, l, h)", l=np.float32(0), h=np.float32(5.5)),
        "it clips to 0.0..5.5",
    ),
    "concat_axis": (
        {"axis": 1}, plain("y = Concat <axis = -3> (x, x)"), plain("y = Concat <axis = 2> (x, x)"), "along axis 2"
    ),
    "concat_constant": (
        {},
        plain("y = Concat <axis = 1> (x, c)", c=np.zeros((1, 1, 6, 6), np.float32)),
        plain("y = Concat <axis = 1> (x, c)", c=np.eye(6, dtype=np.float32).reshape(1, 1, 6, 6)),
        "c is not all zeros",
    ),
    "constant_operands": ({}, layer(), plain("y = Conv (x, x2)", other=", float[2,4,3,3] x2"), "x2 is computed"),
    "equal_shapes": (
        {}, plain("y = Add (x, x2)", other=TWICE), plain("y = Add (x, x2)", other=", float[1,4,1,1] x2"),
        "[1, 4, 6, 6] and [1, 4, 1, 1]",
    ),
    "euclidean_norm": ({}, normalised(2), normalised(1), "its p is 1"),
    "group_one_or_depthwise": (
        {}, layer("group = 4", "8,1,3,3"), layer("group = 2", "2,2,3,3"), "it has 2 groups and 4 channels"
    ),
    "int8_activations": ({}, quantized("int8"), quantized("uint8"), "x is quantized as uint8"),
    "leading_ones": (
        {}, plain("y = Squeeze (x, a)", x="1,1,4,6", a=ints(0, 1), made="m,n"),
        plain("y = Squeeze (x, a)", x="1,4,1,6", a=ints(2), made="b,m,n"), "it squeezes [1, 4, 1, 6] to [1, 4, 6]",
    ),
    "max_kernel": (
        {"height": 3, "area": 12}, layer(w="2,4,3,4"), layer(w="2,4,4,3"), "it has kernel [4, 3]"
    ),
    "max_rank": ({"rank": 3}, plain("y = Relu (x)"), plain("y = Relu (x)", x="2,4,6,6"), "x has shape [2, 4, 6, 6]"),
    "max_stride": ({"stride": 3}, layer("strides = [3,3]"), layer("strides = [3,4]"), "it has strides [3, 4]"),
    "one_direction": ({}, lstm("forward", 1), lstm("bidirectional", 2), "its direction is bidirectional"),
    "pad_keeps_batch": (
        {}, plain("y = Pad (x, p)", p=ints(0, 0, 1, 1, 0, 0, 1, 1)),
        plain("y = Pad (x, p)", p=ints(1, 0, 0, 0, 0, 0, 0, 0)), "it pads [1, 4, 6, 6] to [2, 4, 6, 6]",
    ),
    "prelu_innermost": ({}, prelu(4, 1, 1), prelu(1, 6, 1), "its slope has shape [1, 6, 1]"),
    "reduce_depth_multiple": (
        {"multiple": 4}, plain("y = ReduceMean (x, a)", a=ints(1)),
        plain("y = ReduceMean (x, a)", x="1,6,6,6", a=ints(-3)), "it reduces 6 channels",
    ),
    "reduce_keeps_batch": (
        {}, plain("y = ReduceMax (x, a)", a=ints(1, 2, 3)), plain("y = ReduceMax (x, a)", a=ints(-4, 2)), "axes [0, 2]"
    ),
    "resize_factors": ({"factors": (2,)}, scaled(), scaled(rows=3.0), "it scales [6, 6] to [18, 12]"),
    "resize_nearest": ({}, scaled(), scaled("linear"), "its mode is linear"),
    "slice_keeps_batch": ({}, sliced(1), sliced(1, axis=0, start=1), "it cuts [2, 4, 6, 6] to [1, 4, 6, 6]"),
    "slice_steps_one": ({}, sliced(1), sliced(2), "it has steps [2]"),
    "softmax_size": (
        {"elements": 16000}, plain("y = Softmax (x)", x="1,16000", made="b,c"),
        plain("y = Softmax (x)", x="1,16001", made="b,c"), "its input has shape [1, 16001]",
    ),
    "split_keeps_batch": (
        {}, plain("y, z = Split <axis = 1, num_outputs = 2> (x)", x="2,4,6,6"),
        plain("y, z = Split <axis = -4, num_outputs = 2> (x)", x="2,4,6,6"), "it splits axis -4",
    ),
    "square_dilation": ({}, layer("dilations = [2,2]"), layer("dilations = [2,1]"), "it has dilations [2, 1]"),
    "static_shapes": ({}, plain("y = Relu (x)"), plain("y = Relu (x)", x="1,4,6,n"), "x has shape (1, 4, 6, None)"),
    "two_spatial_dimensions": (
        {}, layer(), layer("group = 1", "2,4,3", "1,4,40"), "its input has shape [1, 4, 40]"
    ),
}  # fmt: skip


def judge(rule, limits, text, constants):
    """What one rule says of the last operator of a model, when it is all that the target demands."""
    seen = graph(text, **constants).nodes[-1]
    strict = target().model_copy(
        update={
            "rules": (),
            "operators": {seen.op: Operator(rules=(RuleUse(rule=rule, limits=limits),), source="test")},
        }
    )
    return violations(seen, strict)


def test_every_rule_has_a_case():
    assert CASES.keys() == RULES.keys()


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
            assert str(number) in broken.sentence
    assert str(broken) == f"{broken.sentence}; {broken.fact}"


MORE = [
    ("clip_limits", {}, plain("y = Clip (x, l, h)", l=np.float32(-1), h=np.float32(1)), None),
    ("clip_limits", {}, plain("y = Clip (x, l)", l=np.float32(0)), None),
    ("clip_limits", {}, plain("y = Clip (x)"), "it clips to None..None"),
    ("clip_limits", {}, plain("y = Clip (x, l)", other=", float l"), "its limit l is computed"),
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
    ("reduce_keeps_batch", {}, plain("y = ReduceMax (x)"), "it reduces every axis"),
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


def test_per_channel_activations_are_refused():
    built = model(
        "g (float[1,2,3,3] x) => (float[1,2,3,3] y) { q = QuantizeLinear (x, s) \n a = DequantizeLinear (q, s)"
        " y = Relu (a) }", s=np.float32([0.5, 0.25]),
    )  # fmt: skip
    (broken,) = [v for v in violations(view(built).nodes[0], target()) if v.rule == "int8_activations"]
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
