"""What the view makes of float and quantized models."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from smallmodels import graph, images, model, pair, quantized, raw, target

from pipeline.errors import ModelError
from pipeline.graph.model import name_nodes
from pipeline.graph.view import view
from pipeline.targets.rules import violations

ONE = "g (float[1,2,3,3] x) => (float[1,2,3,3] y)"
EYE = np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1)


def test_a_float_model_and_its_quantized_form_have_the_same_operators():
    floating = model(
        ONE + "{ a = Conv (x, w, b) \n r = Relu (a) \n y = MaxPool <kernel_shape = [1,1]> (r) }",
        w=EYE,
        b=EYE[0, :, 0, 0],
    )
    lossy, scales = quantized(floating, images((1, 2, 3, 3)))
    before, after = view(floating), view(lossy)
    assert [(n.name, n.op) for n in before.nodes] == [(n.name, n.op) for n in after.nodes]
    assert before.output_names == after.output_names == ("y",)
    assert [t.wire for t in after.inputs] == ["x_quantized"]
    assert [(t.name, t.wire) for t in after.outputs] == [("y_real", "y_quantized")]
    conv, relu, _ = after.nodes
    assert conv.outputs[0].quantization is None  # inside the fused operator
    assert float(relu.outputs[0].quantization.scale) == scales.activations["r"].scale
    assert conv.inputs[1].constant.dtype == np.int8
    assert conv.inputs[1].quantization.axis == 0
    np.testing.assert_allclose(conv.inputs[1].real, EYE, atol=0.005)
    assert conv.inputs[2].constant.dtype == np.int32
    assert conv.inputs[0].dtype == "float32"
    assert conv.inputs[0].shape == (1, 2, 3, 3)


@pytest.mark.parametrize(
    ("form", "dtype", "value"),
    [
        ("value = float[2] {1.5, -2}", "float32", [1.5, -2]),
        ("value_float = 2.5", "float32", 2.5),
        ("value_floats = [0.1, 0.2]", "float32", np.float32([0.1, 0.2])),
        ("value_int = 3", "int64", 3),
        ("value_ints = [3, 4]", "int64", [3, 4]),
    ],
)
def test_a_constant_node_is_a_constant_of_its_type(form, dtype, value):
    kind = "float" if dtype == "float32" else "int64"
    only = graph(f"g ({kind}[2] x) => ({kind}[2] y) {{ c = Constant <{form}> () \n y = Add (x, c) }}").nodes[0]
    assert only.op == "Add"
    assert only.inputs[1].constant.dtype == only.inputs[1].dtype == dtype
    np.testing.assert_array_equal(only.inputs[1].real, value)


def test_an_omitted_input_is_none_and_an_omitted_output_is_not_there():
    text = "g (float[1,4] x) => (float[1,4] y) { y, = Dropout (x) }".replace("y, =", "y =")
    built = model(text)
    built.graph.node[0].output.append("")
    assert [t.name for t in view(built).nodes[0].outputs] == ["y"]
    clip = graph("g (float[1,4] x, float h) => (float[1,4] y) { y = Clip (x, , h) }").nodes[0]
    assert clip.input(1) is None
    assert clip.input(7) is None
    assert [t.name for t in clip.activations] == ["x", "h"]
    with pytest.raises(ModelError, match="Clip: Clip has no input 1"):
        clip.required(1)


def test_operators_that_reach_no_output_are_left_out():
    seen = graph("g (float[1,4] x) => (float[1,4] y) { d = Erf (x) \n y = Relu (x) \n e = Exp (d) }")
    assert [n.op for n in seen.nodes] == ["Relu"]


def test_producers_and_consumers():
    seen = graph(ONE + "{ a = Relu (x) \n b = Add (a, a) \n y = Add (b, a) }")
    relu, double, last = seen.nodes
    assert seen.producer("x") is None
    assert seen.producer("a") is relu
    assert seen.consumers("a") == (double, last)
    assert seen.predecessors(last) == (double, relu)
    assert seen.is_output("y")
    assert not seen.is_output("b")


def test_integers_as_inputs_and_outputs_are_the_quantized_tensors():
    built = model(
        "g (int8[1,4] q) => (int8[1,4] r_q) { x = DequantizeLinear (q, s, z) \n r = Relu (x)"
        " r_q = QuantizeLinear (r, s, z) }", s=np.float32(0.5), z=np.int8(3),
    )  # fmt: skip
    seen = view(built)
    assert [n.op for n in seen.nodes] == ["Relu"]
    assert [t.wire for t in seen.inputs] == ["q"]
    assert [t.wire for t in seen.outputs] == ["r_q"]
    assert seen.inputs[0] == seen.nodes[0].inputs[0]


def test_a_weight_quantized_in_the_graph_is_integers():
    built = model(
        ONE + "{ v_q = QuantizeLinear <axis = 0> (w, s, z) \n v = DequantizeLinear <axis = 0> (v_q, s, z)"
        " y = Conv (x, v) }", w=EYE * 3, s=np.float32([0.5, 0.25]), z=np.int8([0, 0]),
    )  # fmt: skip
    weight = view(built).nodes[0].inputs[1]
    assert weight.constant.dtype == np.int8
    np.testing.assert_array_equal(weight.constant.reshape(2, 2), [[6, 0], [0, 12]])
    np.testing.assert_array_equal(weight.real, EYE * 3)


def test_operators_on_integers_keep_their_quantize_and_dequantize():
    text = (
        ONE + "{ q = QuantizeLinear (x, s, z) \n r = MaxPool <kernel_shape = [1,1]> (q)"
        " y = DequantizeLinear (r, s, z) }"
    )
    seen = graph(text, s=np.float32(0.5), z=np.int8(3))
    assert [n.op for n in seen.nodes] == ["QuantizeLinear", "MaxPool", "DequantizeLinear"]
    assert [n.op for n in seen.predecessors(seen.nodes[2])] == ["MaxPool"]
    assert seen.nodes[1].inputs[0].dtype == "int8"


def test_quantization_without_a_zero_point_is_that_of_the_type():
    built = model(
        ONE + "{ a_q = QuantizeLinear (x, s) \n a = DequantizeLinear (a_q, s) \n y = Relu (a) }", s=np.float32(0.5)
    )
    quantization = view(built).nodes[0].inputs[0].quantization
    assert (quantization.dtype, int(quantization.zero_point), quantization.per_channel) == ("uint8", 0, False)


OTHERWISE = "q = QuantizeLinear (x, s, z) \n a = DequantizeLinear (q, t, z) \n y = Relu (a)"
COMPUTED = """m = ReduceMax <keepdims = 0> (x) \n q = QuantizeLinear (x, m, z) \n a = DequantizeLinear (q, m, z)
  y = Relu (a)"""
REQUANTIZED = f"{pair('a', 'x', 0.5)} {pair('b', 'a', 0.25)} y = Relu (b)"
KEPT = {
    "two scales": (f"{pair('a', 'x', 0.5)} {pair('b', 'x', 0.25)} y = Add (a, b)", "Quant Quant Add", "a_q b_q"),
    "some readers": (f"{pair('a', 'x', 0.5)} y = Add (a, x)", "Quant Add", "a_q x"),
    "an output of the model": (f"y = Relu (x) {pair('a', 'y', 0.5)} u = Neg (a)", "Relu Quant Neg", "a_q"),
    "other on both halves": (OTHERWISE, "Quant Dequant Relu", "a"),
    "computed scale": (COMPUTED, "ReduceMax Quant Dequant Relu", "a"),
    "from one scale to another": (REQUANTIZED, "Quant Relu", "b_q"),
}
"""What stays an operator where quantization is no property of a tensor, and the wires that the last one reads."""


@pytest.mark.parametrize("case", KEPT)
def test_quantization_that_is_no_property_of_a_tensor_stays_an_operator(case):
    body, ops, wires = KEPT[case]
    ends = ONE.replace("y)", "y, float[1,2,3,3] u)") if "u = Neg" in body else ONE
    seen = view(raw(ends + f"{{ {body} }}", s=np.float32(0.5), t=np.float32(0.25), z=np.int8(0)))
    assert [n.op.removesuffix("izeLinear") for n in seen.nodes] == ops.split()
    assert [t.wire for t in seen.nodes[-1].activations] == wires.split()
    for node in seen.nodes:
        quantized = [t.quantization for t in node.outputs if t.quantization is not None]
        assert [str(q.dtype) for q in quantized] == ["int8"] * (node.op == "QuantizeLinear" and wires != "a")


def test_a_requantization_is_what_its_rule_is_about():
    seen = graph(ONE + f"{{ {REQUANTIZED} }}")
    assert violations(seen.nodes[0], target()) == ()
    seen = graph(ONE + f"{{ {KEPT['some readers'][0]} }}")
    assert [v.rule for v in violations(seen.nodes[0], target())] == ["requantizes"]


def test_readers_with_a_dequantization_each_read_one_tensor():
    """As PyTorch's PT2E export writes it: one QuantizeLinear, a DequantizeLinear for each reader."""
    body = """q = QuantizeLinear (x, s, z) \n a = DequantizeLinear (q, s, z) \n b = DequantizeLinear (q, s, z)
      r = Relu (a) \n y = Add (r, b)"""
    seen = graph(ONE + f"{{ {body} }}", s=np.float32(0.5), z=np.int8(0))
    assert [n.op for n in seen.nodes] == ["Relu", "Add"]
    assert seen.nodes[0].inputs[0] is seen.nodes[1].inputs[1]
    assert seen.nodes[0].inputs[0].wire == "q"


def test_a_weight_read_as_it_is_and_quantized_is_two_constants():
    body = "v_q = QuantizeLinear (w, s, z) \n v = DequantizeLinear (v_q, s, z) \n a = Conv (x, v) \n y = Conv (a, w)"
    first, second = graph(ONE + f"{{ {body} }}", w=EYE * 3, s=np.float32(0.5), z=np.int8(0)).nodes
    assert (first.inputs[1].constant.dtype, second.inputs[1].constant.dtype) == (np.int8, np.float32)
    np.testing.assert_array_equal(first.inputs[1].real, second.inputs[1].real)


def test_a_scale_of_zero_is_refused():
    with pytest.raises(ModelError, match=r"has a scale of 0.0 \(scales must be above 0\)"):
        view(raw(ONE + f"{{ {pair('a', 'x', 0)} y = Relu (a) }}"))


@pytest.mark.parametrize(
    ("axis", "scales", "says"),
    [
        (4, 3, r"quantizes along axis 4 of 4 dimensions \(axis must lie from -4 to 3\)"),
        (-5, 3, "quantizes along axis -5 of 4 dimensions"),
        (0, 3, "has 3 scales for the 2 elements of axis 0"),
    ],
)
def test_scales_that_fit_no_axis_are_refused(axis, scales, says):
    body = f"v = DequantizeLinear <axis = {axis}> (w, s, z) \n y = Conv (x, v)"
    given = {"w": EYE.astype(np.int8), "s": np.ones(scales, np.float32), "z": np.zeros(scales, np.int8)}
    with pytest.raises(ModelError, match=says):
        view(raw(ONE + f"{{ {body} }}", **given))


def test_blocks_stay_an_operator():
    built = raw(
        "g (float[2,4] x) => (float[2,4] y) { v = DequantizeLinear <axis = 1, block_size = 2> (w, s)"
        " y = Add (x, v) }",
        21, w=np.ones((2, 4), np.int8), s=np.ones((2, 2), np.float32),
    )  # fmt: skip
    assert [n.op for n in view(built).nodes] == ["DequantizeLinear", "Add"]


@pytest.mark.parametrize("kind", ["int4", "uint4", "int16", "uint16"])
def test_other_integers_are_read(kind):
    low = 0 if kind.startswith("u") else -8
    built = raw(ONE + "{ v = DequantizeLinear (w, s, z) \n y = Conv (x, v) }", 21, s=np.float32(0.5))
    types = {
        "int4": TensorProto.INT4,
        "uint4": TensorProto.UINT4,
        "int16": TensorProto.INT16,
        "uint16": TensorProto.UINT16,
    }
    values = [low, low + 15, low + 1, low + 2]
    built.graph.initializer.append(helper.make_tensor("w", types[kind], [2, 2, 1, 1], values))
    built.graph.initializer.append(helper.make_tensor("z", types[kind], [], [low + 1]))
    weight = view(built).nodes[0].inputs[1]
    assert weight.quantization.dtype == kind
    np.testing.assert_array_equal(weight.real.ravel(), (np.array(values) - (low + 1)) * np.float32(0.5))


def test_a_constant_is_quantized_to_four_bits_as_onnx_does():
    built = raw(ONE + "{ q = QuantizeLinear (w, s, z) \n v = DequantizeLinear (q, s, z) \n y = Conv (x, v) }", 21,
        s=np.float32(0.5), w=np.float32([-9, 9, 1.25, 0.75]).reshape(2, 2, 1, 1))  # fmt: skip
    built.graph.initializer.append(helper.make_tensor("z", TensorProto.INT4, [], [1]))
    weight = view(built).nodes[0].inputs[1]
    np.testing.assert_array_equal(weight.constant.ravel().astype(int), [-8, 7, 3, 3])


def conditional():
    """An If whose branches read a weight and an activation of the graph around it."""

    def branch(op, name):
        node = helper.make_node(op, ["a", "w"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, 1, [1, 2, 3, 3])])

    built = raw(ONE + "{ a = Relu (x) \n m = ReduceSum <keepdims = 0> (x) \n c = Greater (m, zero) \n y = Neg (a) }",
        w=np.ones((1, 2, 1, 1), np.float32), zero=np.float32(0))  # fmt: skip
    choose = helper.make_node(
        "If", ["c"], ["i"], name="choose", then_branch=branch("Add", "t"), else_branch=branch("Mul", "e")
    )
    built.graph.node.insert(3, choose)
    built.graph.node[4].input[0] = "i"
    return built


def test_control_flow_is_one_operator_that_reads_what_its_branches_read():
    seen = view(model_of(conditional()))
    assert [n.op for n in seen.nodes] == ["Relu", "ReduceSum", "Greater", "If", "Neg"]
    choose = seen.nodes[3]
    assert [t.name for t in choose.inputs] == ["c", "a", "w"]
    assert [t.name for t in choose.activations] == ["c", "a"]
    assert choose.attributes == {}
    assert seen.consumers("a") == (choose,)
    (broken,) = violations(choose, target())
    assert broken.fact == "it has no If: control flow runs on the CPU, whatever its branches hold"


def test_what_computes_from_constants_and_shapes_alone_is_a_constant():
    body = """
      s = Shape (x) \n two = Constant <value_ints = [2]> () \n zero = Constant <value_ints = [0]> ()
      b = Gather (s, zero) \n r = Constant <value_ints = [-1]> () \n t = Concat <axis = 0> (b, r)
      k = ConstantOfShape <value = float[1] {0.5}> (four)
      f = Reshape (x, t) \n g = Mul (f, k) \n y = Reshape (g, s)"""
    seen = graph(ONE + f"{{ {body} }}", four=np.int64([1, 18]))
    assert [n.op for n in seen.nodes] == ["Reshape", "Mul", "Reshape"]
    assert [list(n.inputs[1].constant.ravel()[:4]) for n in seen.nodes] == [[1, -1], [0.5] * 4, [1, 2, 3, 3]]
    assert seen.nodes[1].inputs[1].shape == (1, 18)


def test_operators_out_of_order_are_refused():
    built = raw("g (float[2] x) => (float[2] y) { a = Relu (x) \n y = Exp (a) }")
    first, second = built.graph.node[0], built.graph.node[1]
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in (second, first)]
    del built.graph.node[:]
    built.graph.node.extend(nodes)
    with pytest.raises(ModelError, match="reads a before it is computed"):
        view(built)


def test_a_sparse_constant_is_refused():
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([1]), "v"), numpy_helper.from_array(np.int64([0]), "i"), [2]
    )
    built = raw("g (float[2] x) => (float[2] y) { y = Add (x, c) }")
    built.graph.node.insert(0, helper.make_node("Constant", [], ["c"], name="thin", sparse_value=sparse))
    with pytest.raises(ModelError, match="g: holds what cannot be read: Sparse tensors are not supported"):
        view(built)


def test_a_constant_of_text_is_refused():
    built = raw("g (float[2] x) => (float[2] y) { y = Relu (x) }")
    built.graph.node.insert(0, helper.make_node("Constant", [], ["c"], name="words", value_string="a"))
    built.graph.node.append(helper.make_node("StringNormalizer", ["c"], ["t"]))
    built.graph.output.append(helper.make_tensor_value_info("t", 8, [1]))
    with pytest.raises(ModelError, match="words: is a value_string"):
        view(built)


def test_facts_that_are_not_there_are_named():
    seen = graph("g (float[1,n] x) => (float[1,n] y) { y = Relu (x) }")
    with pytest.raises(ModelError, match=r"x: has no static shape: \(1, None\)"):
        _ = seen.inputs[0].dims
    with pytest.raises(ModelError, match="x: is not a constant"):
        _ = seen.inputs[0].real


def test_names_are_unique_and_kept():
    built = raw(ONE + "{ a = Relu (x) \n b = Relu (a) \n c = Relu (b) \n y = Relu (c) }")
    for node, name in zip(built.graph.node, ["r", "r", "r#2", ""], strict=True):
        node.name = name
    assert [n.name for n in view(model_of(built)).nodes] == ["r", "r#3", "r#2", "Relu"]


def model_of(built):
    from pipeline.graph.model import check  # noqa: PLC0415

    return check(built, "test")


def test_nodes_from_torch_are_named_after_their_modules():
    built = raw(ONE + "{ a = Conv (x, stem.weight) \n b = Relu (a) \n y = Relu (b) }".replace("stem.weight", "w"))
    built.graph.node[0].input[1] = "stem.0.weight"
    built.graph.initializer.append(numpy_helper.from_array(EYE, "stem.0.weight"))
    scopes = built.graph.node[1].metadata_props.add()
    scopes.key, scopes.value = "pkg.torch.onnx.name_scopes", "['', 'stem', 'stem.2', 'relu6']"
    built.graph.node[2].name = "node_relu"
    name_nodes(built)
    assert [n.name for n in built.graph.node] == ["stem.0", "stem.2", "node_relu"]
