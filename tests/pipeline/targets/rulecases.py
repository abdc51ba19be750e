"""For every rule a model just inside and one just outside its limit."""

import numpy as np
from rulemodels import (
    TWICE,
    argmax,
    ints,
    large_weight,
    layer,
    lstm,
    normalised,
    one,
    padded,
    peepholes,
    permuted,
    plain,
    pool,
    prelu,
    product,
    quantized,
    reduced,
    resized,
    scaled,
    sliced,
    transposed,
    two,
    weighted,
)

from pipeline.graph.nouns import Node, Quantization, Tensor

PLAIN = Tensor("x", (1, 4), "float32")
QUANTIZED = Tensor("x", (1, 4), "float32", None, Quantization(np.float32(0.5), np.int8(0), None, "x_q"))
SCALE = Tensor("s", (), "float32", np.float32(0.5))


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
