"""Operators that have no kernel: said before they are placed, with the reason."""

from dataclasses import replace

import numpy as np
import pytest
from smallmodels import graph, images, model, quantized
from test_lower_operators import floats, ints, weight

from pipeline.compile.support import no_kernel
from pipeline.graph.fusion import clip_range, fused_activation
from pipeline.graph.view import view

REFUSED = {
    "three dimensions of a pool": (
        "y = MaxPool <kernel_shape = [3,1,1]> (x)",
        "1,4,9,2,2",
        "1,4,7,2,2",
        "has one or two spatial dimensions, this one has kernel [3, 1, 1]",
        {},
    ),
    "three dimensions of a convolution": (
        "y = Conv (x, w)",
        "1,4,9,2,2",
        "1,6,9,2,2",
        "has one or two spatial dimensions, this one has kernel [1, 1, 1]",
        {"w": weight(6, 4, 1, 1, 1)},
    ),
    "counted and rounded up": (
        "y = AveragePool <kernel_shape = [2,2], strides = [2,2], count_include_pad = 1, ceil_mode = 1> (x)",
        "1,4,9,9",
        "1,4,5,5",
        "counts padding or rounds sizes up, this one does both",
        {},
    ),
    "cubic": (
        'y = Resize <mode = "cubic"> (x, , s)',
        "1,2,4,4",
        "1,2,8,8",
        "mode is cubic",
        {"s": floats(1, 1, 2, 2)},
    ),
    "linear and symmetric": (
        'y = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel_symmetric"> (x, , s)',
        "1,2,4,4",
        "1,2,8,8",
        "does not know the coordinates half_pixel_symmetric with mode linear",
        {"s": floats(1, 1, 2, 2)},
    ),
    "linear at another scale": (
        'y = Resize <mode = "linear"> (x, , s)',
        "1,2,5,5",
        "1,2,8,8",
        "mixes linearly where the scale is the ratio of the sizes",
        {"s": floats(1, 1, 1.7, 1.7)},
    ),
    "antialias": (
        'y = Resize <mode = "linear", antialias = 1> (x, , s)',
        "1,2,8,8",
        "1,2,4,4",
        "has no antialias",
        {"s": floats(1, 1, 0.5, 0.5)},
    ),
    "reflected padding": (
        'y = Pad <mode = "reflect"> (x, p)',
        "1,2,4,4",
        "1,2,6,4",
        "pads with a constant, this one's mode is reflect",
        {"p": ints(0, 0, 1, 0, 0, 0, 1, 0)},
    ),
    "cropping padding": ("y = Pad (x, p)", "1,2,4,4", "1,2,3,4", "adds values", {"p": ints(0, 0, -1, 0, 0, 0, 0, 0)}),
    "matrices": (
        "z = ReduceMax <keepdims = 0> (x, a) \n y = MatMul (x, z)",
        "2,3,3",
        "2,3",
        "takes matrices in equal batches",
        {"a": ints(0, 1)},
    ),
    "dilated pool": (
        "y = MaxPool <kernel_shape = [2,2], dilations = [2,2]> (x)",
        "1,4,9,9",
        "1,4,7,7",
        "has no dilation, this one has [2, 2]",
        {},
    ),
    "two outputs": (
        "y, i = MaxPool <kernel_shape = [2,2]> (x)",
        "1,4,9,9",
        "1,4,8,8",
        "gives one output, this one gives 2",
        {},
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


def test_integer_operand_has_no_kernel():
    text = "g (float[1,4] x) => (int64[1,4] y) { a = Cast <to = 7> (x) \n y = Add (a, c) }"
    reason = str(no_kernel(graph(text, c=ints(1)).nodes[1]))
    assert "takes constants of real numbers or with one scale, c is neither" in reason


def test_an_operator_of_constants_has_no_kernel():
    (node,) = graph("g (float[1] x) => (float[1] y) { y = Add (x, c) }", c=floats(1)).nodes
    constant = node.required(1)
    assert "takes a computed input, c is a constant" in str(no_kernel(replace(node, inputs=(constant, constant))))


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
    said = f"the simulated NPU's MatMul has an int32 accumulator, this one may reach {127 * 255 * taps}; sum fewer"
    assert reason.startswith(said)
    shorter = model("g (float[1,60000] x) => (float[1,1] y) { y = MatMul (x, w) }", w=np.ones((60_000, 1), np.float32))
    assert no_kernel(view(quantized(shorter, images((1, 60_000), low=0.0))[0]).nodes[0]) is None
