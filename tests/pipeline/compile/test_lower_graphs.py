"""Whole quantized graphs on the device: against a second implementation in Python integers, and foreign models."""

import math
from fractions import Fraction

import numpy as np
import pytest
from smallmodels import both, images, model, pair, program, quantized, run_onnx, whole
from smallmodels import target as profile

from pipeline.compile.lower import lower
from pipeline.compile.support import no_kernel
from pipeline.errors import ModelError
from pipeline.graph.fusion import clip_range, fused_activation
from pipeline.graph.view import view
from runtime.npu.device import Device

NET = """g (float[1,3,8,7] x) => (float[1,5,4,4] y) {
  a = Conv <strides = [2,2], pads = [1,1,1,1]> (x, w1, b1)
  r = Clip (a, zero, six)
  d = Conv <pads = [1,1,1,1], group = 5> (r, w2, b2)
  e = Clip (d, zero, six)
  p = Conv (e, w3, b3)
  s = Add (r, p)
  y = Conv <pads = [0,0,0,0]> (s, w4)
}"""


def net(seed=3):
    generator = np.random.default_rng(seed)

    def normal(*shape):
        return generator.standard_normal(shape).astype(np.float32)

    return model(
        NET, w1=normal(5, 3, 3, 3), b1=normal(5), w2=normal(5, 1, 3, 3), b2=normal(5), w3=normal(5, 5, 1, 1) / 2,
        b3=normal(5), w4=normal(5, 5, 1, 1), zero=np.float32(0), six=np.float32(6),
    )  # fmt: skip


# The second implementation: numerics sections 3, 4.1, 4.2 (R1), 6.1 and 6.3, in Python integers and exact fractions.


def half_away(value):
    """An exact number rounded to the nearest integer, ties away from zero."""
    magnitude = math.floor(abs(value) + Fraction(1, 2))
    return magnitude if value >= 0 else -magnitude


def multiplier(factor):
    mantissa, exponent = math.frexp(factor)
    scaled = half_away(Fraction(mantissa) * 2**31)
    return (scaled // 2, exponent + 1) if scaled == 2**31 else (scaled, exponent)


def requantize(value, factor):
    """R1: two roundings. The high half of the doubled product rounds half up, the division by a power half away."""
    m, e = multiplier(factor)
    high = math.floor(Fraction(value * 2 ** max(e, 0) * m, 2**31) + Fraction(1, 2))
    return half_away(Fraction(high, 2 ** max(-e, 0)))


def clamp(value, low, high):
    return max(low, min(high, value))


def facts(tensor):
    return float(tensor.quantization.scale), int(tensor.quantization.zero_point)


def convolve(node, x, result, low, high):
    (sx, zx), (sy, zy) = facts(node.inputs[0]), facts(result)
    weight, bias = node.inputs[1], node.input(2)
    scales = np.broadcast_to(weight.quantization.scale, len(weight.constant)).tolist()
    (stride, _), (top, left, *_) = node.ints("strides", (1, 1)), node.ints("pads", (0,) * 4)
    group, (height, width) = node.int("group", 1), x.shape[2:]
    outputs, per_group, rows, columns = weight.constant.shape
    made = np.zeros(result.shape, np.int8)
    for o, i, j in np.ndindex(*result.shape[1:]):
        acc = 0 if bias is None else int(bias.constant[o])
        first = o // (outputs // group) * per_group
        for c, ky, kx in np.ndindex(per_group, rows, columns):
            yy, xx = i * stride + ky - top, j * stride + kx - left
            if 0 <= yy < height and 0 <= xx < width:
                acc += int(weight.constant[o, c, ky, kx]) * (int(x[0, first + c, yy, xx]) - zx)
        made[0, o, i, j] = clamp(requantize(acc, sx * float(np.float32(scales[o])) / sy) + zy, low, high)
    return made


def add(node, x1, x2, result, low, high):
    (s1, z1), (s2, z2), (sy, zy) = facts(node.inputs[0]), facts(node.inputs[1]), facts(result)
    widest = 2 * max(s1, s2)
    made = np.zeros(result.shape, np.int8)
    for at in np.ndindex(*result.shape):
        a = requantize((int(x1[at]) - z1) * 2**20, s1 / widest)
        b = requantize((int(x2[at]) - z2) * 2**20, s2 / widest)
        made[at] = clamp(requantize(a + b, widest / (2**20 * sy)) + zy, low, high)
    return made


def second_implementation(graph, x):
    values = {graph.inputs[0].name: x}
    skipped = set()
    for node in graph.nodes:
        if node.name in skipped:
            continue
        result, low, high = node.outputs[0], -128, 127
        fused = fused_activation(graph, node)
        if fused is not None:
            skipped.add(fused.name)
            result = fused.outputs[0]
            scale, zero = facts(result)
            bottom, top = clip_range(fused)
            low = max(low, zero + half_away(Fraction(float(np.float32(bottom) / np.float32(scale)))))
            high = min(high, zero + half_away(Fraction(float(np.float32(top) / np.float32(scale)))))
        operands = [values[t.name] for t in node.activations]
        values[result.name] = {"Conv": convolve, "Add": add}[node.op](node, *operands, result, low, high)
    return values


@pytest.mark.parametrize("seed", [3, 4])
def test_a_network_gives_the_bytes_of_a_second_implementation(seed):
    lossy, _ = quantized(net(seed), images((1, 3, 8, 7)))
    graph, partition = whole(lossy)
    device = Device(lower(graph, partition.nodes, partition.inputs, partition.outputs, profile()))
    x = np.random.default_rng(seed).integers(-128, 128, (1, 3, 8, 7)).astype(np.int8)
    found = device.run({graph.inputs[0].wire: x})
    expected = second_implementation(graph, x)[graph.outputs[0].name]
    np.testing.assert_array_equal(found[graph.outputs[0].wire], expected)
    assert len(np.unique(expected)) > 30


def test_a_network_is_close_to_its_float_model():
    lossy, _ = quantized(net(), images((1, 3, 8, 7), count=8))
    signal = noise = 0.0
    for image in images((1, 3, 8, 7), count=4, seed=9):
        exact, coarse = run_onnx(net(), {"x": image})["y"], run_onnx(lossy, {"x": image})["y"]
        signal, noise = signal + float((exact**2).sum()), noise + float(((exact - coarse) ** 2).sum())
    assert 10 * math.log10(signal / noise) > 25


# Foreign quantized models: an operator that cannot scale, between tensors whose scales differ.

FOREIGN = {
    "MaxPool <kernel_shape = [2,2]> (a)": ("1,3,5,6", 1),
    'Resize <mode = "nearest"> (a, , s)': ("1,3,12,14", 1),
    "Reshape (a, shape)": ("1,3,42", 1),
    "Flatten (a)": ("1,126", 1),
    "Transpose <perm = [0,3,2,1]> (a)": ("1,7,6,3", 1),
    "Squeeze (a, zero)": ("3,6,7", 1),
    "Unsqueeze (a, zero)": ("1,1,3,6,7", 1),
    "Concat <axis = 1> (a, b)": ("1,6,6,7", 2),
    "Concat <axis = 1> (a, a)": ("1,6,6,7", 1),
    "AveragePool <kernel_shape = [2,2]> (a)": ("1,3,5,6", 1),
}
"""Operator: shape of its result, and how many requantizations it takes."""


@pytest.mark.parametrize("scale", [0.011, 0.017, 0.05])
@pytest.mark.parametrize("operator", FOREIGN)
def test_unequal_scales_are_requantized(operator, scale):
    shape, count = FOREIGN[operator]
    inputs = "float[1,3,6,7] x" + (", float[1,3,6,7] x2" if "b)" in operator else "")
    second = pair("b", "x2", 0.03, -20) if "x2" in inputs else ""
    lossy = model(
        f"g ({inputs}) => (float[{shape}] y) {{ {pair('a', 'x', 0.017, 3)} {second} r = {operator}"
        f" {pair('y', 'r', scale, -7)} }}",
        shape=np.array([1, 3, -1], np.int64), zero=np.array([0], np.int64), s=np.array([1, 1, 2, 2], np.float32),
    )  # fmt: skip
    assert [i.opcode for i in program(lossy).instructions].count("requantize") == count
    for expected, found in both(lossy):
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_equal_scales_need_no_requantization():
    text = f"g (float[1,4] x) => (float[4,1] y) {{ {pair('a', 'x', 0.5)} r = Transpose (a) {pair('y', 'r', 0.5)} }}"
    assert [i.opcode for i in program(model(text)).instructions] == ["transpose"]


def test_a_concat_of_sigmoid_and_convolution_rescales_the_sigmoid():
    floating = model(
        "g (float[1,2,4,4] x) => (float[1,4,4,4] y) { a = Conv (x, w)"
        " b = Sigmoid (x) y = Concat <axis = 1> (a, b) }",
        w=np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1) * 5,
    )  # fmt: skip
    lossy, scales = quantized(floating, images((1, 2, 4, 4)))
    assert scales.activations["b"].scale == 1 / 256
    assert scales.activations["a"] == scales.activations["y"]
    assert [i.opcode for i in program(lossy).instructions].count("requantize") == 1
    for expected, found in both(lossy):
        assert np.abs(found.astype(int) - expected).max() <= 1


BAD = {
    "uint8 activation": (
        "a_s = Constant <value = float {0.5}> () \n a_z = Constant <value = uint8 {3}> ()"
        "a_q = QuantizeLinear (x, a_s, a_z) \n a = DequantizeLinear (a_q, a_s, a_z) \n"
        f"r = Relu (a) {pair('y', 'r', 0.5)}",
        "Relu takes int8 with one scale, x is uint8",
    ),
    "float weight": (f"{pair('a', 'x', 0.5)} r = Conv (a, w) {pair('y', 'r', 0.5)}", "int8 weight, w is float32"),
    "asymmetric weight": (
        f"{pair('a', 'x', 0.5)} v = DequantizeLinear (wq, s, one) \n r = Conv (a, v) {pair('y', 'r', 0.5)}",
        "symmetric weight, v has a zero point",
    ),
    "scales of input channels": (
        f"{pair('a', 'x', 0.5)} v = DequantizeLinear <axis = 1> (wq, ss) \n r = Conv (a, v) {pair('y', 'r', 0.5)}",
        "one scale per output channel (axis 0), v has them along 1",
    ),
    "float bias": (
        f"{pair('a', 'x', 0.5)} v = DequantizeLinear (wq, s) \n r = Conv (a, v, f) {pair('y', 'r', 0.5)}",
        "int32 bias, f is float32",
    ),
}


def bad(body):
    return model(
        f"g (float[1,2,3,3] x) => (float[1,2,3,3] y) {{ {body} }}",
        w=np.ones((2, 2, 1, 1), np.float32), wq=np.ones((2, 2, 1, 1), np.int8), s=np.float32(0.5), one=np.int8(1),
        ss=np.array([0.5, 0.25], np.float32), f=np.ones(2, np.float32), b=np.ones(2, np.int32),
    )  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_foreign_integers_that_no_kernel_takes_fall_back(case):
    body, reason = BAD[case]
    lossy = bad(body)
    (node,) = view(lossy).nodes
    assert reason in str(no_kernel(node))
    with pytest.raises(ModelError, match=r"cannot be compiled|must be int8"):
        program(lossy)


def test_a_bias_on_another_scale_is_named():
    body = (
        f"{pair('a', 'x', 0.5)} v = DequantizeLinear (wq, s) \n c = DequantizeLinear (b, s)"
        f" r = Conv (a, v, c) {pair('y', 'r', 0.5)}"
    )
    with pytest.raises(ModelError, match="bias does not have the scale input x weight"):
        program(bad(body))


def test_an_unquantized_tensor_is_named():
    with pytest.raises(ModelError, match="must be int8 with one scale"):
        program(bad("y = Relu (x)"))


def test_a_sum_into_too_fine_a_scale_is_named():
    body = f"{pair('a', 'x', 1)} r = Sub (a, a) {pair('y', 'r', 0.0000001)}"
    with pytest.raises(ModelError, match="adds scales 1 and 1 into 1e-07"):
        program(bad(body))


def test_a_factor_beyond_the_contract_is_named():
    body = f"{pair('a', 'x', 1000000)} r = Mul (a, a) {pair('y', 'r', 0.001)}"
    with pytest.raises(ModelError, match="needs shift"):
        program(bad(body))
