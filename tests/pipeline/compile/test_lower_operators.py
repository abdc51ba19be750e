"""Every operator that lowers: the device against ONNX Runtime running the same quantized model."""

import numpy as np
import pytest
from smallmodels import both, graph, images, model, program, quantized, target

from pipeline.compile.operators import LOWERINGS
from pipeline.compile.support import no_kernel
from pipeline.graph.fusion import clip_range, fused_activation
from pipeline.graph.model import check
from pipeline.graph.view import view
from pipeline.quantize import qdq
from pipeline.targets.placement import NPU, by_kernel, place

RANDOM = np.random.default_rng(7)


def weight(*shape, scale=0.3):
    return (RANDOM.standard_normal(shape) * scale).astype(np.float32)


def unary(body, shape="1,4,9,11", result="", **constants):
    result = result or shape
    return model(f"g (float[{shape}] x) => (float[{result}] y) {{ {body} }}", **constants)


def ints(*values):
    return np.array(values, np.int64)


def floats(*values):
    return np.array(values, np.float32)


def conv(attributes, result, w, b=True, shape="1,4,9,11"):
    bias = weight(w[0]) if b else None
    constants = {"w": weight(*w)} | ({"b": bias} if b else {})
    return unary(f"y = Conv <{attributes}> (x, w{', b' if b else ''})", shape, result, **constants)


def two(op, body=None, shape="1,4,5,6", other=None):
    """An operator of two computed inputs: x scaled by a convolution, and x itself."""
    return model(
        f"g (float[{shape}] x) => (float[{shape}] y) {{ z = Conv (x, w) \n y = {body or f'{op} (x, z)'} }}",
        w=weight(4, 4, 1, 1, scale=0.8),
    )


CASES = {
    "conv": lambda: conv("pads = [1,1,1,1]", "1,6,9,11", (6, 4, 3, 3)),
    "conv without bias": lambda: conv("group = 1", "1,6,7,9", (6, 4, 3, 3), b=False),
    "conv asymmetric pads": lambda: conv("pads = [0,1,2,0]", "1,6,9,10", (6, 4, 3, 3)),
    "conv stride 2": lambda: conv("strides = [2,2], pads = [1,1,1,1]", "1,6,5,6", (6, 4, 3, 3)),
    "conv uneven strides": lambda: conv("strides = [2,3]", "1,6,4,3", (6, 4, 3, 3)),
    "conv dilated": lambda: conv("dilations = [2,3], pads = [2,3,2,3]", "1,6,9,11", (6, 4, 3, 3)),
    "conv same upper": lambda: conv('auto_pad = "SAME_UPPER", strides = [2,2]', "1,6,5,6", (6, 4, 4, 4)),
    "conv same lower": lambda: conv('auto_pad = "SAME_LOWER", strides = [2,2]', "1,6,5,6", (6, 4, 4, 4)),
    "conv valid": lambda: conv('auto_pad = "VALID"', "1,6,6,8", (6, 4, 4, 4)),
    "conv depthwise": lambda: conv("group = 4, pads = [1,1,1,1]", "1,4,9,11", (4, 1, 3, 3)),
    "conv depthwise doubled": lambda: conv("group = 4, pads = [1,1,1,1]", "1,8,9,11", (8, 1, 3, 3)),
    "conv grouped": lambda: conv("group = 2, pads = [1,1,1,1]", "1,6,9,11", (6, 2, 3, 3)),
    "gemm": lambda: unary("y = Gemm (x, w, b)", "1,12", "1,5", w=weight(12, 5), b=weight(5)),
    "gemm transposed": lambda: unary("y = Gemm <transB = 1> (x, w, b)", "3,12", "3,5", w=weight(5, 12), b=weight(5)),
    "gemm row bias": lambda: unary("y = Gemm <transB = 1> (x, w, b)", "3,12", "3,5", w=weight(5, 12), b=weight(1, 5)),
    "gemm one bias": lambda: unary("y = Gemm <transB = 1> (x, w, b)", "3,12", "3,5", w=weight(5, 12), b=weight(1)),
    "matmul": lambda: unary("y = MatMul (x, w)", "2,3,12", "2,3,5", w=weight(12, 5)),
    "add": lambda: two("Add"),
    "add itself": lambda: two("Add", "Add (z, z)"),
    "sub": lambda: two("Sub"),
    "sub the other way": lambda: two("Sub", "Sub (z, x)"),
    "mul": lambda: two("Mul"),
    "mul itself": lambda: two("Mul", "Mul (z, z)"),
    "relu": lambda: unary("y = Relu (x)"),
    "relu6": lambda: unary("y = Clip (x, low, high)", low=np.float32(0), high=np.float32(0.6)),
    "clip -0.5..0.5": lambda: unary("y = Clip (x, low, high)", low=np.float32(-0.5), high=np.float32(0.5)),
    "clip above only": lambda: unary("y = Clip (x, , high)", high=np.float32(0.25)),
    "max pool": lambda: unary(
        "y = MaxPool <kernel_shape = [3,2], strides = [2,2], pads = [1,0,1,1]> (x)", result="1,4,5,6"
    ),
    "max pool same": lambda: unary('y = MaxPool <kernel_shape = [2,2], auto_pad = "SAME_LOWER"> (x)'),
    "average pool": lambda: unary("y = AveragePool <kernel_shape = [2,2], strides = [2,2]> (x)", result="1,4,4,5"),
    "average pool padded": lambda: unary("y = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (x)"),
    "global average pool": lambda: unary("y = GlobalAveragePool (x)", result="1,4,1,1"),
    "reduce mean": lambda: unary("y = ReduceMean <keepdims = 0> (x, axes)", result="1,4", axes=ints(-1, 2)),
    "reduce mean channels": lambda: unary("y = ReduceMean (x, axes)", result="1,1,9,11", axes=ints(1)),
    "concat": lambda: model(
        "g (float[1,4,5,6] x) => (float[1,12,5,6] y) { z = Conv (x, w) \n y = Concat <axis = -3> (x, z, x) }",
        w=weight(4, 4, 1, 1),
    ),
    "resize x2": lambda: unary(
        'y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , s)',
        "1,4,5,6", "1,4,10,12", s=floats(1, 1, 2, 2),
    ),
    "sigmoid": lambda: unary("y = Sigmoid (x)"),
    "tanh": lambda: unary("y = Tanh (x)"),
    "hard swish": lambda: unary("y = HardSwish (x)"),
    "reshape": lambda: unary("y = Reshape (x, s)", result="1,36,11", s=ints(1, -1, 11)),
    "flatten": lambda: unary("y = Flatten (x)", result="1,396"),
    "transpose": lambda: unary("y = Transpose <perm = [0,2,3,1]> (x)", result="1,9,11,4"),
    "transpose reversed": lambda: unary("y = Transpose (x)", result="11,9,4,1"),
    "squeeze": lambda: unary("y = Squeeze (x, a)", result="4,9,11", a=ints(0)),
    "unsqueeze": lambda: unary("y = Unsqueeze (x, a)", result="1,4,9,1,11", a=ints(3)),
    "identity": lambda: unary("y = Identity (x)"),
}  # fmt: skip

EXACT = {
    "max pool", "max pool same", "resize x2", "reshape", "flatten", "transpose", "transpose reversed",
    "squeeze", "unsqueeze", "identity", "sigmoid", "tanh", "hard swish",
}  # fmt: skip
"""Nothing is rounded, or a table is; so no byte may differ."""


@pytest.mark.parametrize("case", CASES)
def test_operator_is_what_onnx_runtime_computes(case):
    floating = CASES[case]()
    shape = [d.dim_value for d in floating.graph.input[0].type.tensor_type.shape.dim]
    lossy, _ = quantized(floating, images(shape, high=1.5))
    pairs = both(lossy)
    differing = sum(int((a != b).sum()) for a, b in pairs)
    total = sum(a.size for a, _ in pairs)
    for expected, found in pairs:
        assert found.dtype == expected.dtype == np.int8
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).max() <= 1
        assert len(np.unique(found)) >= min(8, found.size - 1)  # not saturated away
    # Rounding at ties is all that may differ: rule R1 rounds a factor in [0.25, 0.5) differently in a quarter of cases.
    assert differing <= (0 if case in EXACT else 0.3 * total)


def test_every_operator_that_lowers_has_a_case():
    tested = {n.op for make in CASES.values() for n in view(make()).nodes}
    assert tested == LOWERINGS.keys()


FUSED = {
    "relu": "y = Relu (z)",
    "relu6": "y = Clip (z, low, high)",
    "both": "y = Clip (z, minus, low)",
}


@pytest.mark.parametrize("producer", ["Conv (x, w)", "Add (x, x)", "Mul (x, x)", "Sub (x, x2)"])
@pytest.mark.parametrize("activation", FUSED)
def test_a_clamp_is_part_of_the_operator_before_it(producer, activation):
    first = "x2 = Conv (x, w) \n" if "x2" in producer else ""
    floating = model(
        f"g (float[1,4,5,6] x) => (float[1,4,5,6] y) {{ {first} z = {producer} \n {FUSED[activation]} }}",
        w=weight(4, 4, 1, 1, scale=0.8), low=np.float32(0.1), high=np.float32(0.7), minus=np.float32(-0.6),
    )  # fmt: skip
    lossy, _ = quantized(floating, images((1, 4, 5, 6)))
    assert len(program(lossy).instructions) == 1 + bool(first)
    for expected, found in both(lossy):
        assert np.abs(found.astype(int) - expected).max() <= 1
        # The clamp shows: the same bounds as the float model's, whatever the input.
        assert abs(int(found.max()) - int(expected.max())) <= 1
        assert abs(int(found.min()) - int(expected.min())) <= 1


def test_lower_limit_above_the_upper_one_loses():
    floating = unary("y = Clip (x, low, high)", low=np.float32(0.5), high=np.float32(0.2))
    lossy, _ = quantized(floating, images((1, 4, 9, 11)))
    for expected, found in both(lossy):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("low", "high"), [(3.0, 9.0), (-9.0, -3.0)])
def test_clamp_outside_what_int8_covers_saturates(low, high):
    floating = model(
        "g (float[1,2,3,3] x) => (float[1,2,3,3] y) { z = Clip (x, low, high) \n y = Concat <axis = 1> (z) }",
        low=np.float32(low), high=np.float32(high),
    )  # fmt: skip
    lossy, scales = quantized(floating, images((1, 2, 3, 3)))
    narrow = {n: type(e)(-1.0, 1.0, 2 / 255, 0) if n != "x" else e for n, e in scales.activations.items()}

    lossy = check(qdq.insert(floating, type(scales)(narrow, scales.weights)), "test")
    for expected, found in both(lossy):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize(
    "coordinates", ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]
)
@pytest.mark.parametrize("factor", [2, 3, 0.5, 1.5])
def test_nearest_resize_in_every_mode(coordinates, rounding, factor):
    rows, columns = int(5 * factor), int(6 * factor)
    floating = unary(
        f'y = Resize <mode = "nearest", coordinate_transformation_mode = "{coordinates}",'
        f' nearest_mode = "{rounding}"> (x, , s)',
        "1,2,5,6", f"1,2,{rows},{columns}", s=floats(1, 1, factor, factor),
    )  # fmt: skip
    lossy, _ = quantized(floating, images((1, 2, 5, 6)))
    for expected, found in both(lossy, count=1):
        np.testing.assert_array_equal(found, expected)


def test_resize_to_sizes():
    floating = unary('y = Resize <mode = "nearest"> (x, , , s)', "1,2,5,6", "1,2,7,13", s=ints(1, 2, 7, 13))
    lossy, _ = quantized(floating, images((1, 2, 5, 6)))
    for expected, found in both(lossy):
        np.testing.assert_array_equal(found, expected)


def test_resize_of_named_axes():
    floating = unary('y = Resize <mode = "nearest", axes = [3, 2]> (x, , s)', "1,2,5,6", "1,2,15,12", s=floats(2, 3))
    lossy, _ = quantized(floating, images((1, 2, 5, 6)))
    for expected, found in both(lossy):
        np.testing.assert_array_equal(found, expected)


REFUSED = {
    "takes windows": (
        "y = MaxPool <kernel_shape = [3]> (x)",
        "1,4,9",
        "1,4,7",
        "has two spatial dimensions, this one has kernel [3]",
        {},
    ),
    "ceil mode": (
        "y = MaxPool <kernel_shape = [2,2], strides = [2,2], ceil_mode = 1> (x)",
        "1,4,9,9",
        "1,4,5,5",
        "ceil_mode",
        {},
    ),
    "dilated pool": (
        "y = MaxPool <kernel_shape = [2,2], dilations = [2,2]> (x)",
        "1,4,9,9",
        "1,4,7,7",
        "has no dilation, this one has [2, 2]",
        {},
    ),
    "counted padding": (
        "y = AveragePool <kernel_shape = [2,2], count_include_pad = 1, pads = [1,1,0,0]> (x)",
        "1,4,9,9",
        "1,4,9,9",
        "count_include_pad",
        {},
    ),
    "counted automatic padding": (
        'y = AveragePool <kernel_shape = [2,2], count_include_pad = 1, auto_pad = "SAME_UPPER"> (x)',
        "1,4,9,9",
        "1,4,9,9",
        "count_include_pad",
        {},
    ),
    "two outputs": (
        "y, i = MaxPool <kernel_shape = [2,2]> (x)",
        "1,4,9,9",
        "1,4,8,8",
        "gives one output, this one gives 2",
        {},
    ),
    "conv 1-D": (
        "y = Conv (x, w)",
        "1,4,9",
        "1,6,9",
        "has two spatial dimensions, this one has kernel [1]",
        {"w": weight(6, 4, 1)},
    ),
    "computed weight": (
        "w = Reshape (x, s) \n y = Conv (x, w)",
        "1,4,1,1",
        "1,4,1,1",
        "w is computed",
        {"s": ints(4, 1, 1, 1)},
    ),
    "transposed input": ("y = Gemm <transA = 1> (x, w)", "12,3", "3,5", "transA", {"w": weight(12, 5)}),
    "scaled": ("y = Gemm <alpha = 0.5> (x, w)", "3,12", "3,5", "alpha 0.5", {"w": weight(12, 5)}),
    "scaled bias": ("y = Gemm <beta = 0.5> (x, w, b)", "3,12", "3,5", "beta 0.5", {"w": weight(12, 5), "b": weight(5)}),
    "batched weight": (
        "y = MatMul (x, w)",
        "2,3,12",
        "2,3,5",
        "takes a matrix as weight, this one has 3 dimensions",
        {"w": weight(2, 12, 5)},
    ),
    "constant operand": (
        "y = Add (x, c)",
        "1,4,2,2",
        "1,4,2,2",
        "takes computed tensors only, c is a constant",
        {"c": weight(1)},
    ),
    "linear": (
        'y = Resize <mode = "linear"> (x, , s)',
        "1,2,4,4",
        "1,2,8,8",
        "mode is linear",
        {"s": floats(1, 1, 2, 2)},
    ),
    "crop": (
        'y = Resize <mode = "nearest", coordinate_transformation_mode = "tf_crop_and_resize"> (x, r, s)',
        "1,2,4,4",
        "1,2,8,8",
        "tf_crop_and_resize",
        {"s": floats(1, 1, 2, 2), "r": floats(0, 0, 0, 0, 1, 1, 1, 1)},
    ),
    "channels": (
        'y = Resize <mode = "nearest"> (x, , s)',
        "1,2,4,4",
        "1,4,8,8",
        "resizes the last two of four",
        {"s": floats(1, 2, 2, 2)},
    ),
    "aspect": (
        'y = Resize <mode = "nearest", keep_aspect_ratio_policy = "not_larger", axes = [2,3]> (x, , , s)',
        "1,2,4,4",
        "1,2,8,8",
        "policy is not_larger",
        {"s": ints(8, 9)},
    ),
    "nothing to reduce": (
        "y = ReduceMean <noop_with_empty_axes = 1> (x)",
        "1,2,4,4",
        "1,2,4,4",
        "noop_with_empty_axes",
        {},
    ),
    "scalar": (
        "y = ReduceMean <keepdims = 0> (x)",
        "1,2,4,4",
        "",
        "takes static shapes of 1 to 8 dimensions, y has []",
        {},
    ),
    "unknown operator": ("y = Erf (x)", "1,4", "1,4", "has no kernel for Erf", {}),
    "unknown domain": ("y = my.Relu (x)", "1,4", "1,4", "has no kernel for my.Relu", {}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_kernel_is_said_before_it_is_placed(case):
    body, shape, result, reason, constants = REFUSED[case]
    kind = f"float[{result}]" if result else "float"
    nodes = graph(f"g (float[{shape}] x) => ({kind} y) {{ {body} }}", **constants).nodes
    assert reason in str(no_kernel(nodes[-1]))


def test_dynamic_shape_has_no_kernel():
    (only,) = graph("g (float[1,n] x) => (float[1,n] y) { y = Relu (x) }").nodes
    assert "static shapes of 1 to 8 dimensions, x has [1, '?']" in str(no_kernel(only))


def test_resize_of_opset_10_is_refused():
    (only,) = graph("g (float[1,2,4,4] x) => (float[1,2,8,8] y) { y = Resize (x, s) }", 10, s=floats(1, 1, 2, 2)).nodes
    assert "opset 11 and newer" in str(no_kernel(only))


def test_clip_of_opset_6_has_its_limits_in_attributes():
    text = "g (float[1,2,4,4] x) => (float[1,2,4,4] y) { z = Conv (x, w) \n y = Clip <min = 0.0, max = 6.0> (z) }"

    seen = graph(text, 10, w=weight(2, 2, 1, 1))
    assert clip_range(seen.nodes[1]) == (0.0, 6.0)
    assert fused_activation(seen, seen.nodes[0]) is seen.nodes[1]


def test_an_accumulator_that_could_overflow_falls_back():
    taps = 70_000
    floating = model("g (float[1,70000] x) => (float[1,1] y) { y = MatMul (x, w) }", w=np.ones((taps, 1), np.float32))
    lossy, _ = quantized(floating, images((1, taps), low=0.0))

    reason = str(no_kernel(view(lossy).nodes[0]))
    assert reason == f"the simulated NPU's MatMul has an int32 accumulator, this one may reach {127 * 255 * taps}"
    shorter = model("g (float[1,60000] x) => (float[1,1] y) { y = MatMul (x, w) }", w=np.ones((60_000, 1), np.float32))
    assert no_kernel(view(quantized(shorter, images((1, 60_000), low=0.0))[0]).nodes[0]) is None


def test_every_compiled_model_is_placed_whole_on_the_npu_by_kernel():
    lossy, _ = quantized(CASES["concat"](), images((1, 4, 5, 6)))

    assert {p.device for p in place(view(lossy), by_kernel(no_kernel), None)} == {NPU}
    assert program(lossy).target == target().name
