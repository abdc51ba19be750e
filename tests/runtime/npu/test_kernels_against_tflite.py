"""The plain kernels against implementations that we did not write: 0 differing bytes."""

import numpy as np
import pytest
from npu_programs import clamp, scaling, single, spec, sum_scaling
from tflite_cases import differing, pads_of, window
from tflite_models import PADDING, Tensor, model, options, run_litert, run_micro

from runtime.npu.device import Device

POWERS = (2.0**-7, 2.0**-5, 2.0**-3, 0.25, 0.5, 1.0, 2.0)
ZEROS = (-128, 127, 0, -3, 17)


def zero_point(rng):
    return int(rng.choice(ZEROS)) if rng.random() < 0.6 else int(rng.integers(-128, 128))


def scale(rng, low=0.004, high=0.3):
    """A float32 scale; a power of two in a third of the cases, for exact ties."""
    return float(rng.choice(POWERS[:4])) if rng.random() < 1 / 3 else float(np.float32(rng.uniform(low, high)))


def conv_case(rng, depthwise):
    channels = int(rng.integers(1, 5))
    kernel, strides = tuple(rng.integers(1, 4, 2).tolist()), tuple([int(rng.integers(1, 3))] * 2)
    dilations = (1, 1) if strides != (1, 1) else tuple([int(rng.integers(1, 3))] * 2)
    mode, shape = rng.choice(["SAME", "VALID"]), (1, channels, *rng.integers(5, 9, 2).tolist())
    pads = pads_of(mode, shape, kernel, strides, dilations)
    outputs = channels * int(rng.integers(1, 3)) if depthwise else int(rng.integers(1, 6))
    per_group = 1 if depthwise else channels
    weight = rng.integers(-127, 128, (outputs, per_group, *kernel)).astype(np.int8)
    factor = 2.0 ** rng.uniform(-11, -5, outputs)  # of the accumulator to the output
    kind = rng.integers(6)
    bias = rng.integers(-4000, 4000, outputs)
    if kind == 0:  # exact ties
        factor = 2.0 ** rng.integers(-9, -3, outputs)
    elif kind == 1:  # double rounding is most visible
        factor = rng.uniform(0.25, 0.5, outputs)
    elif kind == 2:  # positive shifts, saturation at both ends
        factor = rng.uniform(1, 9, outputs)
    elif kind == 3:  # bias near the limit of int32
        factor, bias = 2.0 ** rng.uniform(-25, -23, outputs), rng.choice([-1, 1], outputs) * (2**31 - 2**22)
    elif kind == 4:  # flushed to zero for some channels
        factor = 2.0 ** rng.uniform(-40, -28, outputs)
    x, y = spec("x", shape, scale(rng), zero_point(rng)), scale(rng)
    scales = (np.float64(factor) * y / x.scale).astype(np.float32)
    low, high = sorted(rng.integers(-128, 128, 2)) if rng.random() < 0.2 else (-128, 127)
    size = window(shape[2:], kernel, strides, pads, dilations)
    out = spec("y", (1, outputs, *size), y, zero_point(rng))
    relu = bool(rng.random() < 0.3)
    low, high = (max(-128, out.zero_point), 127) if relu else (-128, 127)
    real = np.float64(x.scale) * scales.astype(np.float64) / np.float64(y)
    attributes = {
        "strides": strides,
        "pads": pads,
        "dilations": dilations,
        "group": channels if depthwise else 1,
        **clamp(low, high),
    }
    constants = {"weight": weight, "bias": bias.astype(np.int32), **scaling(real)}
    item = single("conv2d", [x], out, attributes, constants)
    kernel_data = np.moveaxis(weight, 1, -1) if not depthwise else np.moveaxis(weight[:, 0], 0, -1)[None]
    nhwc = [(1, *t.shape[2:], t.shape[1]) for t in (x, out)]
    tensors = [
        Tensor(nhwc[0], (x.scale,), x.zero_point),
        Tensor(kernel_data.shape, tuple(scales), 0, kernel_data, 3 if depthwise else 0),
        Tensor((outputs,), tuple(np.float32(x.scale) * scales), 0, bias.astype(np.int32), 0, "int32"),
        Tensor(nhwc[1], (y,), out.zero_point),
    ]
    fields = {
        "padding": PADDING[mode],
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
        "fusedActivationFunction": 1 if relu else 0,
    }
    if depthwise:
        chosen = options("DepthwiseConv2DOptions", depthMultiplier=outputs // channels, **fields)
        return item, model("DEPTHWISE_CONV_2D", tensors, [0], 3, chosen)
    return item, model("CONV_2D", tensors, [0], 3, options("Conv2DOptions", **fields))


@pytest.mark.parametrize("runner", [run_micro, run_litert])
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolution(runner, depthwise):
    rng = np.random.default_rng(7)
    for case in range(150):
        item, content = conv_case(rng, depthwise)
        assert differing(item, content, runner, case) == 0, f"case {case}: {item.instructions[0]}"


def test_fully_connected():  # LiteRT's reference kernel rounds in float64 (rule R6), so only tflite-micro counts
    rng = np.random.default_rng(8)
    for case in range(200):
        features, outputs = rng.integers(1, 40, 2).tolist()
        x = spec("x", (1, features), scale(rng), zero_point(rng))
        y = spec("y", (1, outputs), scale(rng), zero_point(rng))
        factor = float(rng.choice([2.0**-9, 2.0**-5, 0.3, 3.0, rng.uniform(0.001, 0.02)]))
        weight_scale = np.float32(factor * y.scale / x.scale)
        # the product is taken in float64; a float32 product differs in 104 of 120,000 outputs at power-of-two factors
        real = np.float64(x.scale) * np.float64(weight_scale) / np.float64(y.scale)
        weight = rng.integers(-127, 128, (outputs, features)).astype(np.int8)
        bias = rng.integers(-3000, 3000, outputs).astype(np.int32)
        constants = {"weight": weight, "bias": bias, **scaling(np.full(outputs, real))}
        item = single("fully_connected", [x], y, clamp(), constants)
        tensors = [
            Tensor(x.shape, (x.scale,), x.zero_point),
            Tensor(weight.shape, (weight_scale,), 0, weight),
            Tensor((outputs,), (np.float32(x.scale) * weight_scale,), 0, bias, 0, "int32"),
            Tensor(y.shape, (y.scale,), y.zero_point),
        ]
        content = model("FULLY_CONNECTED", tensors, [0], 3, options("FullyConnectedOptions"))
        assert differing(item, content, run_micro, case) == 0, f"case {case}: factor {factor}"


@pytest.mark.parametrize("runner", [run_micro, run_litert])
@pytest.mark.parametrize("opcode", ["add", "sub", "mul"])
def test_two_inputs(runner, opcode):
    rng = np.random.default_rng(9)
    for case in range(150):
        shape = (1, 3, 8, 8)
        a, b, y = (spec(name, shape, scale(rng, 0.02, 0.1), zero_point(rng)) for name in "aby")
        low, high = (max(-128, y.zero_point), 127) if rng.random() < 0.3 else (-128, 127)
        attributes = clamp(low, high)
        if opcode == "mul":
            constants = scaling(np.float64(a.scale) * b.scale / y.scale)
        else:
            constants = sum_scaling(a.scale, b.scale, y.scale)
            attributes["left_shift"] = 20
        item = single(opcode, [a, b], y, attributes, constants)
        tensors = [Tensor((1, 8, 8, 3), (t.scale,), t.zero_point) for t in (a, b, y)]
        chosen = options(f"{opcode.title()}Options", fusedActivationFunction=int(low != -128 or y.zero_point == -128))
        content = model(opcode.upper(), tensors, [0, 1], 2, chosen)
        assert differing(item, content, runner, case) == 0, f"case {case}: {a} {b} {y}"


@pytest.mark.parametrize("runner", [run_micro, run_litert])
def test_requantize(runner):
    rng = np.random.default_rng(10)
    every = np.arange(-128, 128).astype(np.int8).reshape(1, 256)
    for case in range(250):
        x, y = (spec(name, (1, 256), scale(rng), zero_point(rng)) for name in "xy")
        item = single("requantize", [x], y, clamp(), scaling(np.float64(x.scale) / np.float64(y.scale)))
        tensors = [Tensor(t.shape, (t.scale,), t.zero_point) for t in (x, y)]
        content = model("QUANTIZE", tensors, [0], 1, options("QuantizeOptions"))
        ours = Device(item, fast=False).run({"x": every})["y"]
        np.testing.assert_array_equal(ours, runner(content, [every]), f"case {case}: {x} {y}")


@pytest.mark.parametrize("runner", [run_micro, run_litert])
@pytest.mark.parametrize("opcode", ["max_pool", "average_pool"])
def test_pools(runner, opcode):
    rng = np.random.default_rng(11)
    for case in range(150):
        kernel, strides = tuple(rng.integers(1, 5, 2).tolist()), tuple(rng.integers(1, 4, 2).tolist())
        shape, mode = (1, 3, *rng.integers(5, 9, 2).tolist()), rng.choice(["SAME", "VALID"])
        pads = pads_of(mode, shape, kernel, strides)
        x = spec("x", shape, 0.1, zero_point(rng))
        y = spec("y", (1, 3, *window(shape[2:], kernel, strides, pads)), 0.1, x.zero_point)
        item = single(opcode, [x], y, {"kernel": kernel, "strides": strides, "pads": pads})
        tensors = [Tensor((1, *t.shape[2:], 3), (t.scale,), t.zero_point) for t in (x, y)]
        chosen = options(
            "Pool2DOptions",
            padding=PADDING[mode],
            strideH=strides[0],
            strideW=strides[1],
            filterHeight=kernel[0],
            filterWidth=kernel[1],
        )
        content = model(f"{opcode.upper()}_2D", tensors, [0], 1, chosen)
        assert differing(item, content, runner, case) == 0, f"case {case}: {kernel} {strides} {pads}"


@pytest.mark.parametrize("runner", [run_micro, run_litert])
def test_mean(runner):
    rng = np.random.default_rng(12)
    for case in range(150):
        shape = (1, 5, *rng.integers(1, 12, 2).tolist())
        x, keep = spec("x", shape, scale(rng), zero_point(rng)), bool(rng.random() < 0.5)
        y = spec("y", (1, 5, 1, 1) if keep else (1, 5), scale(rng), zero_point(rng))
        item = single("mean", [x], y, {"axes": (2, 3)}, scaling(np.float64(x.scale) / np.float64(y.scale)))
        axes = np.array([1, 2], np.int32)
        tensors = [
            Tensor((1, *shape[2:], 5), (x.scale,), x.zero_point),
            Tensor((2,), (), 0, axes, 0, "int32"),
            Tensor((1, 1, 1, 5) if keep else (1, 5), (y.scale,), y.zero_point),
        ]
        content = model("MEAN", tensors, [0], 2, options("ReducerOptions", keepDims=keep))
        assert differing(item, content, runner, case) == 0, f"case {case}: {x} {y}"


@pytest.mark.parametrize("runner", [run_micro, run_litert])
def test_movement(runner):
    rng = np.random.default_rng(13)
    for case in range(40):
        shape = tuple(rng.integers(1, 6, 4).tolist())
        x = spec("x", shape, 0.1, 3)
        order = tuple(int(axis) for axis in rng.permutation(4))
        y = spec("y", [shape[axis] for axis in order], 0.1, 3)
        item = single("transpose", [x], y, {"permutation": order})
        source, target = (Tensor(t.shape, (0.1,), 3) for t in (x, y))
        constant = Tensor((4,), (), 0, np.array(order, np.int32), 0, "int32")
        content = model("TRANSPOSE", [source, constant, target], [0], 2, options("TransposeOptions"))
        assert differing(item, content, runner, case, layout=False) == 0
        flat = spec("y", (1, int(np.prod(shape))), 0.1, 3)
        item = single("reshape", [x], flat)
        constant = Tensor((2,), (), 0, np.array(flat.shape, np.int32), 0, "int32")
        target = Tensor(flat.shape, (0.1,), 3)
        chosen = options("ReshapeOptions", newShape=list(flat.shape))
        content = model("RESHAPE", [source, constant, target], [0], 2, chosen)
        assert differing(item, content, runner, case, layout=False) == 0
        axis = int(rng.integers(4))
        other = spec("z", [s + 1 if i == axis else s for i, s in enumerate(shape)], 0.1, 3)
        joined = spec("y", [2 * s + 1 if i == axis else s for i, s in enumerate(shape)], 0.1, 3)
        item = single("concat", [x, other], joined, {"axis": axis})
        tensors = [Tensor(t.shape, (0.1,), 3) for t in (x, other, joined)]
        content = model("CONCATENATION", tensors, [0, 1], 2, options("ConcatenationOptions", axis=axis))
        assert differing(item, content, runner, case, layout=False) == 0


@pytest.mark.parametrize("runner", [run_micro, run_litert])
def test_resize_nearest(runner):
    rng = np.random.default_rng(14)
    for case in range(40):
        height, width, rows, columns = rng.integers(1, 9, 4).tolist()
        x, y = spec("x", (1, 3, height, width), 0.1, 3), spec("y", (1, 3, rows, columns), 0.1, 3)
        index = [
            np.minimum((np.arange(n) * np.float32(size / np.float32(n))).astype(np.int32), size - 1)
            for n, size in ((rows, height), (columns, width))
        ]
        item = single("resize_nearest", [x], y, {}, {"rows": index[0], "columns": index[1]})
        tensors = [
            Tensor((1, height, width, 3), (0.1,), 3),
            Tensor((2,), (), 0, np.array([rows, columns], np.int32), 0, "int32"),
            Tensor((1, rows, columns, 3), (0.1,), 3),
        ]
        content = model("RESIZE_NEAREST_NEIGHBOR", tensors, [0], 2, options("ResizeNearestNeighborOptions"))
        assert differing(item, content, runner, case) == 0, f"case {case}: {x.shape} to {y.shape}"
