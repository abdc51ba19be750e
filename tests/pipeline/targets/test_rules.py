"""Every rule just inside and just outside its limit: which rule answers, with which number."""

import numpy as np
import pytest
from smallmodels import graph, model, pair, target

from pipeline.graph.nouns import Node, Quantization, Tensor
from pipeline.graph.view import view
from pipeline.targets.profile import Operator, RuleUse
from pipeline.targets.rules import RULES, placeholders, violations


def ints(*values):
    return np.array(values, np.int64)


def zeros(shape):
    return np.zeros([int(d) for d in shape.split(",")], np.float32)


TWICE = ", float[1,4,6,6] x2"


def layer(attributes="group = 1", w="2,4,3,3", x="1,4,40,40"):
    rank = len(x.split(","))
    made = ",".join(["b", "c", "m", "n", "k"][:rank])
    return f"g (float[{x}] x) => (float[{made}] y) {{ y = Conv <{attributes}> (x, w) }}", {"w": zeros(w)}


def plain(body, x="1,4,6,6", made="b,c,m,n", other="", **constants):
    kind = f"float[{made}]" if made else "float"
    return f"g (float[{x}] x{other}) => ({kind} y) {{ {body} }}", constants


def quantized(scale_type, zero=3):
    kind = f"s = Constant <value = float {{0.5}}> () \n z = Constant <value = {scale_type} {{{zero}}}> ()"
    return plain(f"{kind} q = QuantizeLinear (x, s, z) \n a = DequantizeLinear (q, s, z) \n y = Relu (a)")


def weighted(kind="int8", scales=(0.5,), bias=None):
    """A Conv whose weight (and bias) is quantized as ``kind`` with ``scales``."""
    s, axis = np.float32(scales if len(scales) > 1 else scales[0]), "<axis = 0>" if len(scales) > 1 else ""
    constants = {"wq": np.ones((2, 4, 3, 3), kind), "s": s, "z": np.zeros(s.shape, kind)}
    if bias is None:
        return plain(f"w = DequantizeLinear {axis} (wq, s, z) \n y = Conv (x, w)", **constants)
    constants |= {"bq": np.ones(2, bias), "bz": np.zeros(s.shape, bias)}
    body = f"w = DequantizeLinear {axis} (wq, s, z) \n b = DequantizeLinear (bq, s, bz) \n y = Conv (x, w, b)"
    return plain(body, **constants)


def two(op, second):
    """``op`` of x and x2, quantized with scale 0.5 and ``second``; the result with 0.5."""
    body = f"{pair('a', 'x', 0.5)} {pair('b', 'x2', second)} r = {op} (a, b) {pair('y', 'r', 0.5)}"
    return plain(body, other=TWICE)


def one(op, second):
    """``op`` of x quantized with scale 0.5, its result with ``second``."""
    return plain(f"{pair('a', 'x', 0.5)} r = {op} (a) {pair('y', 'r', second)}")


def pool(attributes, op="MaxPool", x="1,4,40,40"):
    return plain(f"y = {op} <{attributes}> (x)", x=x)


def transposed(attributes="group = 1", w="4,2,3,3", x="1,4,6,6"):
    return plain(f"y = ConvTranspose <{attributes}> (x, w)", x=x, w=zeros(w))


def product(x, w, made="m,n"):
    return plain("y = MatMul (x, w)", x=x, made=made, w=zeros(w))


def reduced(*axes, x="1,4,6,6", op="ReduceMean"):
    return plain(f"y = {op} (x, a)", x=x, a=ints(*axes))


def padded(mode="constant", value=None, x="1,4,6,6"):
    more = {} if value is None else {"v": np.float32(value)}
    return plain(
        f'y = Pad <mode = "{mode}"> (x, p{", v" if more else ""})', x=x, p=ints(0, 0, 1, 1, 0, 0, 1, 1), **more
    )


def permuted(*order, x):
    return plain(f"y = Transpose <perm = {list(order)}> (x)", x=x)


def resized(mode="linear", coordinates="half_pixel", rounding="round_prefer_floor", scales=(1, 1, 2, 2), x="1,4,6,6"):
    how = f'mode = "{mode}", coordinate_transformation_mode = "{coordinates}", nearest_mode = "{rounding}"'
    return plain(f"y = Resize <{how}> (x, , s)", x=x, s=np.float32(scales))


def argmax(x, axis=1):
    return f"g (float[{x}] x) => (int64[b,c,m,n] y) {{ y = ArgMax <axis = {axis}> (x) }}", {}


def large_weight(value):
    """A Gemm with 70,000 inputs; its first output sums to 127 x 65,536 (and ``value`` more), as int8."""
    weight = np.zeros((2, 70000), np.int8)
    weight[0, :65536] = 127
    weight[0, 65536] = value
    body = "w = DequantizeLinear (wq, s, z) \n y = Gemm <transB = 1> (x, w)"
    return plain(body, x="1,70000", made="m,n", wq=weight, s=np.float32(0.5), z=np.int8(0))


RESIZE = 'y = Resize <mode = "{}"> (x, , s)'


def scaled(mode="nearest", rows=2.0, columns=2.0):
    return plain(RESIZE.format(mode), s=np.float32([1, 1, rows, columns]))


def prelu(*slope):
    return plain("y = PRelu (x, a)", a=np.ones(slope, np.float32))


def normalised(p):
    return plain(f"y = LpNormalization <axis = 1, p = {p}> (x)")


def lstm(direction, count, batch=1):
    body = f'y = LSTM <hidden_size = 3, direction = "{direction}"> (x, w, r)'
    constants = {"w": np.zeros((count, 12, 4), np.float32), "r": np.zeros((count, 12, 3), np.float32)}
    return f"g (float[5,{batch},4] x) => (float[5,{count},{batch},3] y) {{ {body} }}", constants


def peepholes():
    body = "y = LSTM <hidden_size = 3> (x, w, r, , , , , p)"
    constants = {"w": np.zeros((1, 12, 4), np.float32), "r": np.zeros((1, 12, 3), np.float32)}
    constants["p"] = np.zeros((1, 9), np.float32)
    return f"g (float[5,1,4] x) => (float[5,1,1,3] y) {{ {body} }}", constants


PLAIN = Tensor("x", (1, 4), "float32")
QUANTIZED = Tensor("x", (1, 4), "float32", None, Quantization(np.float32(0.5), np.int8(0), None, "x_q"))
SCALE = Tensor("s", (), "float32", np.float32(0.5))


def sliced(step, axis=2, start=0):
    return plain("y = Slice (x, a, b, c, d)", x="2,4,6,6", a=ints(start), b=ints(4), c=ints(axis), d=ints(step))


CASES = {
    "batch_one": ({}, plain("y = Relu (x)"), plain("y = Relu (x)", x="2,4,6,6"), "batch size 2"),
    "clip_limits": (
        {"ranges": ("0..6", "-1..1", "0..")},
        plain("y = Clip (x, l, h)", l=np.float32(0), h=np.float32(6)),
        plain("y = Clip (x, l, h)", l=np.float32(0), h=np.float32(5.5)),
        "it clips to 0.0..5.5",
    ),
    "axis_one_of": (
        {"axes": (1,)}, plain("y = Concat <axis = -3> (x, x)"), plain("y = Concat <axis = 2> (x, x)"), "along axis 2"
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
    "activation_types": ({"types": ("int8", "uint8")}, quantized("uint8"), quantized("int16"),
        "x is quantized as int16"),
    "argmax_depth": (
        {"depth": 127}, argmax("1,127,2,2"), argmax("1,128,2,2"),
        "it is over 128",
    ),
    "average_buffer": (
        {"size": 32768},  # 7 * 7 * 32 + 40 * (31 * 24 + 7) = 31,608; with stride 25 it is 32,848
        pool("kernel_shape = [7,7], strides = [24,1]", "AveragePool"),
        pool("kernel_shape = [7,7], strides = [25,1]", "AveragePool"), "it takes 32848",
    ),
    "average_counts_padding": (
        {}, pool("kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = 1", "AveragePool"),
        pool("kernel_shape = [3,3], pads = [0,0,0,1]", "AveragePool"), "count_include_pad is 0",
    ),
    "bias_types": ({"types": ("int32",)}, weighted(bias="int32"), weighted(bias="int8"), "b is quantized as int8"),
    "broadcast_per_channel": (
        {}, plain("y = Add (x, x2)", other=", float[1,4,1,1] x2"), plain("y = Add (x, x2)",
        other=", float[1,4,1,6] x2"),
        "x2 has shape [1, 4, 1, 6]",
    ),
    "concat_aligned": (
        {"multiple": 32, "channels": 4096}, plain("y = Concat <axis = 1> (x, x)", x="1,2048,1,1"),
        plain("y = Concat <axis = 1> (x, x)", x="1,2049,1,1"), "it joins 4098 channels",
    ),
    "depth_multiplier": (
        {"multiplier": 1}, layer("group = 4", "4,1,3,3"), layer("group = 4", "8,1,3,3"), "it has 2 output channels"
    ),
    "dilation_needs_kernel_one": (
        {}, layer("dilations = [2,2]", "2,4,1,1"), layer("dilations = [2,2]", "2,4,1,2"), "kernel [1, 2]"
    ),
    "dilation_needs_stride_one": (
        {}, layer("dilations = [2,2], strides = [1,1]"), layer("dilations = [2,2], strides = [2,2]"), "strides [2, 2]"
    ),
    "elu_alpha_one": ({}, plain("y = Elu (x)"), plain("y = Elu <alpha = 1.5> (x)"), "it has alpha 1.5"),
    "exact_dimensions": ({"dimensions": 4}, plain("y = Relu (x)"), plain("y = Relu (x)", x="1,4,6", made="b,c,m"),
        "[1, 4, 6]"),
    "explicit_padding": (
        {}, pool("kernel_shape = [3,3], pads = [1,1,1,1]"), pool('kernel_shape = [3,3], auto_pad = "SAME_UPPER"'),
        "SAME_UPPER"
    ),
    "gather_index_rank": (
        {"rank": 1}, plain("y = Gather <axis = 1> (x, i)", i=ints(0, 1)),
        plain("y = Gather <axis = 1> (x, i)", made="a,b,c,d,e", i=ints(0, 1).reshape(1, 2)), "it has 2",
    ),
    "group_one": ({}, layer("group = 1"), layer("group = 2", "2,2,3,3"), "it has 2 groups"),
    "half_pixel_factor": ({"factor": 2}, resized(), resized(scales=(1, 1, 4, 4)), "it scales [6, 6] to [24, 24]"),
    "kernel_width": ({"width": 3}, layer(w="2,4,5,3"), layer(w="2,4,3,5"), "it has kernel [3, 5]"),
    "large_stride": (
        {"stride": 3}, layer("strides = [4,4]"), layer("strides = [4,4], pads = [0,0,1,1]"), "padding [0, 0, 1, 1]"
    ),
    "linear_resize_size": (
        {"size": 65}, resized(x="1,4,5,5", scales=(1, 1, 13, 13)), resized(x="1,4,6,6", scales=(1, 1, 11, 11)),
        "it makes [66, 66]",
    ),
    "lrn_window": (
        {"sizes": (3, 5, 7, 9)}, plain("y = LRN <size = 9> (x)"), plain("y = LRN <size = 11> (x)"), "it has 11"
    ),
    "max_batch": ({"batch": 2}, plain("y = Relu (x)", x="2,4,6,6"), plain("y = Relu (x)", x="3,4,6,6"), "batch size 3"),
    "max_columns": ({"columns": 8}, product("1,4", "4,8"), product("1,4", "4,9"), "it has 9"),
    "max_dilated_kernel": (
        {"size": 5}, layer("dilations = [2,2]", "2,4,3,3"), layer("dilations = [3,2]", "2,4,3,3"), "dilations [3, 2]"
    ),
    "max_dilation": ({"dilation": 2}, layer("dilations = [2,1]"), layer("dilations = [2,3]"),
        "it has dilations [2, 3]"),
    "max_dimension": ({"size": 6}, plain("y = Relu (x)"), plain("y = Relu (x)", x="1,7,6,6"),
        "x has shape [1, 7, 6, 6]"),
    "max_dimensions": (
        {"dimensions": 4}, plain("y = Relu (x)"), plain("y = Relu (x)", x="1,1,4,6,6", made="a,b,c,d,e"),
        "[1, 1, 4, 6, 6]"
    ),
    "max_groups": ({"groups": 2}, layer("group = 2", "2,2,3,3"), layer("group = 4", "4,1,3,3"), "it has 4 groups"),
    "max_inner_size": ({"size": 8}, product("1,8", "8,2"), product("1,9", "9,2"), "it sums over 9"),
    "max_input_width": ({"width": 40}, layer(), layer(x="1,4,40,41"), "it is 41 wide"),
    "max_kernel_size": ({"size": 4}, layer(w="2,4,3,4"), layer(w="2,4,5,3"), "it has kernel [5, 3]"),
    "max_map": (
        {"size": 7}, plain("y = GlobalAveragePool (x)", x="1,4,7,7"), plain("y = GlobalAveragePool (x)", x="1,4,7,8"),
        "[1, 4, 7, 8]",
    ),
    "max_map_area": (
        {"area": 49}, plain("y = GlobalAveragePool (x)", x="1,4,7,7"), plain("y = GlobalAveragePool (x)", x="1,4,5,10"),
        "its map is 5 x 10",
    ),
    "max_output_channels": ({"channels": 2}, layer(w="2,4,3,3"), layer(w="3,4,3,3"), "it has 3 output channels"),
    "max_padding": (
        {"padding": 1}, layer("pads = [1,1,1,1]"), layer('auto_pad = "SAME_UPPER"', "2,4,5,5"),
        "it has padding [2, 2, 2, 2]"
    ),
    "max_tensor_bytes": (
        {"bytes": 145}, plain("y = Relu (x)"), plain("y = Relu (x)", x="1,5,5,6"), "x has 150 bytes"
    ),
    "min_inputs": (
        {"inputs": 2}, plain("y = Concat <axis = 1> (x, x)"), plain("y = Concat <axis = 1> (x)"), "it has 1"
    ),
    "no_ceil_mode": (
        {}, pool("kernel_shape = [3,3], ceil_mode = 0"), pool("kernel_shape = [3,3], ceil_mode = 1"),
        "its ceil_mode is 1"
    ),
    "no_peepholes": ({}, lstm("forward", 1), peepholes(), "it has peepholes"),
    "pad_modes": ({"modes": ("constant", "reflect")}, padded("reflect"), padded("edge"), "its mode is edge"),
    "pad_reflection": (
        {"size": 6, "width": 5}, padded("reflect", x="1,6,6,5"), padded("reflect", x="1,6,6,6"), "[1, 6, 6, 6]"
    ),
    "pad_zero": ({}, padded(value=0), padded(value=1.5), "it pads with 1.5"),
    "padded_kernel": (
        {"size": 8}, pool("kernel_shape = [8,8], pads = [1,1,1,1]"), pool("kernel_shape = [9,8], pads = [0,0,0,1]"),
        "kernel [9, 8]",
    ),
    "padding_below_kernel": (
        {}, layer("pads = [2,2,2,2]"), layer("pads = [0,0,3,0]"), "padding [0, 0, 3, 0] and kernel [3, 3]"
    ),
    "per_tensor_weights": ({}, weighted(), weighted(scales=(0.5, 0.25)), "w has one scale per channel"),
    "pool_buffer": (
        {"size": 2048, "lanes": 16},  # 2,048 / (8,192 / 16) = 4
        pool("kernel_shape = [3,3]", x="1,1,4,8192"), pool("kernel_shape = [4,4]", x="1,1,4,8192"), "the bound is 4",
    ),
    "pow_exponent": (
        {"exponents": (0, 1, 2, 3, 0.5, -0.5)}, plain("y = Pow (x, e)", e=np.float32(-0.5)),
        plain("y = Pow (x, e)", e=np.float32(4)), "it has [4.0]",
    ),
    "reduced_axis_size": ({"size": 7}, reduced(2, 3), reduced(2, x="1,4,7,6"), "it reduces sizes [7]"),
    "reduced_depth": ({}, reduced(1, x="1,4,6,1"), reduced(1), "its input has shape [1, 4, 6, 6]"),
    "reduced_elements": (
        {"int8": 36, "uint8": 18, "int16": 9}, reduced(2, 3), reduced(2, 3, x="1,4,6,7"), "it averages 42 as int8"
    ),
    "resize_by_scales": (
        {}, scaled(), plain("y = Resize (x, , , s)", s=ints(1, 4, 12, 12)), "it is given sizes"
    ),
    "resize_factors_or_point": ({"factors": (2, 4)}, scaled(rows=4, columns=4), scaled(rows=3, columns=3),
        "to [18, 18]"),
    "resize_modes": (
        {"modes": ("nearest asymmetric floor", "linear half_pixel")}, resized("nearest", "asymmetric", "floor"),
        resized("nearest", "asymmetric", "ceil"), "it is nearest asymmetric ceil",
    ),
    "resize_spatial_only": ({}, scaled(), resized("nearest", scales=(1, 2, 2, 2)), "it scales [6, 6] to [12, 12]"),
    "resize_whole_factor": (
        {"low": 1, "nearest": 32, "linear": 4}, resized(scales=(1, 1, 4, 1)), resized(scales=(1, 1, 5, 1)), "to [30, 6]"
    ),
    "resize_whole_factor_or_point": (
        {"low": 2, "high": 8}, resized(scales=(1, 1, 8, 2)), resized(scales=(1, 1, 8, 1)), "to [48, 6]"
    ),
    "shared_input_scale": ({}, two("Add", 0.5), two("Add", 0.25), "x and x2 are quantized differently"),
    "shared_scale": ({}, one("Relu", 0.5), one("Relu", 0.25), "x and r are quantized differently"),
    "slice_steps_forward": ({}, sliced(2), sliced(-1, start=5), "it has steps [-1]"),
    "small_or_long": (
        {"size": 32, "long": (64, 96)}, transposed(w="4,2,64,1"), transposed(w="4,2,33,1"), "it has kernel [33, 1]"
    ),
    "softmax_rows": (
        {"rows": 13}, plain("y = Softmax <axis = 1> (x)", x="2,4,3,4"), plain("y = Softmax <axis = 1> (x)",
        x="1,4,1,13"),
        "it has 13",
    ),
    "standard_hard_sigmoid": (
        {}, plain("y = HardSigmoid <alpha = 0.16666667> (x)"), plain("y = HardSigmoid (x)"), "alpha 0.2 and beta 0.5"
    ),
    "static_but_batch": (
        {}, plain("y = Relu (x)", x="n,4,6,6"), plain("y = Relu (x)", x="1,n,6,6"), "x has shape (1, None, 6, 6)"
    ),
    "stride_one_of": ({"strides": (1, 2, 4)}, transposed("strides = [4,2]"), transposed("strides = [3,3]"),
        "strides [3, 3]"),
    "stride_within_kernels": (
        {"times": 2}, pool("kernel_shape = [2,2], strides = [4,4]"), pool("kernel_shape = [2,2], strides = [4,5]"),
        "[4, 5]"
    ),
    "symmetric_activations": ({}, quantized("int8", 0), quantized("int8", 3), "x has zero point 3"),
    "transpose_channels_first": (
        {"size": 8192}, permuted(0, 3, 1, 2, x="1,4,64,127"), permuted(0, 3, 1, 2, x="1,4,64,128"), "[1, 4, 64, 128]"
    ),
    "transpose_channels_last": (
        {"channels": 8192, "multiple": 8}, permuted(0, 2, 3, 1, x="1,8191,2,4"), permuted(0, 2, 3, 1, x="1,4,3,3"),
        "3, 3]"
    ),
    "transpose_height_width": (
        {"multiple": 16, "area": 4096}, permuted(0, 1, 3, 2, x="1,4,16,255"), permuted(0, 1, 3, 2, x="1,4,16,256"),
        "256]"
    ),
    "transposed_output": (
        {}, transposed("strides = [2,2]"), transposed("strides = [2,2], pads = [1,1,1,1]"),
        "[1, 2, 11, 11] of [1, 4, 6, 6]"
    ),
    "transposed_strides": (
        {"stride": 2}, transposed("strides = [2,1]", x="1,4,1,6"), transposed("strides = [2,1]"),
        "it has strides [2, 1]"
    ),
    "vector_output": ({}, product("1,4", "4,3"), product("2,4", "4,3"), "its output has shape [2, 3]"),
    "weight_sum": ({"sum": 8323072}, large_weight(0), large_weight(1), "those of w sum to 8323073"),
    "weight_types": ({"types": ("int8", "uint8")}, weighted("uint8"), weighted("int16"), "w is quantized as int16"),
    "width_under_tall_kernel": (
        {"width": 41}, layer(), layer(x="1,4,40,41"), "it is 41 wide and the kernel is [3, 3]"
    ),
}  # fmt: skip

BUILT = {
    "requantizes": (
        Node("q", "QuantizeLinear", "", (QUANTIZED, SCALE), (QUANTIZED,)),
        Node("q", "QuantizeLinear", "", (PLAIN, SCALE), (QUANTIZED,)), "x is float32",
    ),
}  # fmt: skip
"""Nodes that no small model gives: inside and outside."""


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
