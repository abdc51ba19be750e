"""The plain kernels under the int16 contract against implementations that we did not write: 0 differing bytes.

TFLite's int16 kernels: int8 weights, int64 biases and accumulators with 16-bit multipliers for sums of products; 31-bit
multipliers and double rounding for everything else.
"""

from dataclasses import replace

import numpy as np
import pytest
from npu_programs import single
from tflite_cases import differing, pads_of, window
from tflite_models import PADDING, Tensor, model, options, run_litert, run_micro

from pipeline.compile.operators.wide import input_factor, lookup_table
from runtime.npu.contracts import find_contract
from runtime.npu.device import Device
from runtime.npu.program import Instruction, Program
from runtime.tensors import TensorSpec

CONTRACT = find_contract("tflite-r8")
LOW, HIGH = CONTRACT.limits
both = pytest.mark.parametrize("runner", [run_micro, run_litert])


def spec(name, shape, scale):
    return TensorSpec(name, tuple(int(s) for s in shape), "int16", float(scale), 0)


def scale(rng, low=1e-4, high=2e-3):
    return float(2.0 ** rng.integers(-13, -8)) if rng.random() < 1 / 3 else float(np.float32(rng.uniform(low, high)))


def clamp(relu=False):
    return {"act_min": 0 if relu else LOW, "act_max": HIGH}


def factors(opcode, real):
    rule = CONTRACT.of(opcode)
    pairs = [rule.quantize_multiplier(float(factor)) for factor in np.atleast_1d(real)]
    return {"multiplier": np.array([m for m, _ in pairs], np.int32), "shift": np.array([e for _, e in pairs], np.int32)}


def program(opcode, inputs, output, attributes=None, constants=None):
    return replace(single(opcode, inputs, output, attributes, constants), contract=CONTRACT.name)


def entry(t, layout=True):
    shape = (t.shape[0], *t.shape[2:], t.shape[1]) if layout and len(t.shape) == 4 else t.shape
    return Tensor(shape, (t.scale,), 0, dtype="int16")


def integers(*values):
    return Tensor((len(values),), (), 0, np.array(values, np.int32), 0, "int32")


def products_case(rng, outputs, x, y):
    """Weight scales and biases: usual, on ties, positive shifts, beyond int32, flushed to zero."""
    factor, bias = 2.0 ** rng.uniform(-18, -8, outputs), rng.integers(-(2**20), 2**20, outputs)
    kind = rng.integers(5)
    if kind == 0:
        factor = 2.0 ** rng.integers(-14, -6, outputs)
    elif kind == 1:
        factor = rng.uniform(0.3, 3, outputs)
    elif kind == 2:
        factor, bias = 2.0 ** rng.uniform(-29, -27, outputs), rng.choice([-1, 1], outputs) * (2**40)
    elif kind == 3:
        factor = 2.0 ** rng.uniform(-40, -28, outputs)
    scales = (factor * y.scale / x.scale).astype(np.float32)
    return scales, bias.astype(np.int64), np.float64(x.scale) * scales.astype(np.float64) / np.float64(y.scale)


@both
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolution(runner, depthwise):
    rng = np.random.default_rng(7)
    for case in range(80):
        channels = int(rng.integers(1, 5))
        kernel, strides = tuple(rng.integers(1, 4, 2).tolist()), tuple([int(rng.integers(1, 3))] * 2)
        dilations = (1, 1) if strides != (1, 1) else tuple([int(rng.integers(1, 3))] * 2)
        mode, shape = rng.choice(["SAME", "VALID"]), (1, channels, *rng.integers(5, 9, 2).tolist())
        pads = pads_of(mode, shape, kernel, strides, dilations)
        outputs = channels * int(rng.integers(1, 3)) if depthwise else int(rng.integers(1, 6))
        weight = rng.integers(-127, 128, (outputs, 1 if depthwise else channels, *kernel)).astype(np.int8)
        x = spec("x", shape, scale(rng))
        y = spec("y", (1, outputs, *window(shape[2:], kernel, strides, pads, dilations)), scale(rng))
        scales, bias, real = products_case(rng, outputs, x, y)
        relu, group = bool(rng.random() < 0.3), channels if depthwise else 1
        attributes = {"strides": strides, "pads": pads, "dilations": dilations, "group": group, **clamp(relu)}
        constants = {"weight": weight, "bias": bias, **factors("conv2d", real)}
        item = program("conv2d", [x], y, attributes, constants)
        data = np.moveaxis(weight[:, 0], 0, -1)[None] if depthwise else np.moveaxis(weight, 1, -1)
        tensors = [
            entry(x),
            Tensor(data.shape, tuple(scales), 0, data, 3 if depthwise else 0),
            Tensor((outputs,), tuple(np.float32(x.scale) * scales), 0, bias, 0, "int64"),
            entry(y),
        ]
        fields = {
            "padding": PADDING[mode], "strideH": strides[0], "strideW": strides[1], "dilationHFactor": dilations[0],
            "dilationWFactor": dilations[1], "fusedActivationFunction": int(relu),
        }  # fmt: skip
        if depthwise:
            chosen = options("DepthwiseConv2DOptions", depthMultiplier=outputs // channels, **fields)
        else:
            chosen = options("Conv2DOptions", **fields)
        content = model("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", tensors, [0], 3, chosen)
        assert differing(item, content, runner, case) == 0, f"case {case}: {item.instructions[0]}"


def test_fully_connected():
    rng = np.random.default_rng(8)
    for case in range(150):
        features, outputs = rng.integers(1, 40, 2).tolist()
        x, y = spec("x", (1, features), scale(rng)), spec("y", (1, outputs), scale(rng))
        scales, bias, real = products_case(rng, 1, x, y)
        weight = rng.integers(-127, 128, (outputs, features)).astype(np.int8)
        constants = {"weight": weight, "bias": np.repeat(bias, outputs), **factors("matmul", np.repeat(real, outputs))}
        item = program("fully_connected", [x], y, clamp(), constants)
        tensors = [
            entry(x),
            Tensor(weight.shape, tuple(scales), 0, weight),
            Tensor((outputs,), (np.float32(x.scale) * scales[0],), 0, constants["bias"], 0, "int64"),
            entry(y),
        ]
        content = model("FULLY_CONNECTED", tensors, [0], 3, options("FullyConnectedOptions"))
        assert differing(item, content, run_micro, case) == 0, f"case {case}"


@both
def test_transposed_convolution(runner):
    rng = np.random.default_rng(16)
    for case in range(80):
        channels, outputs = rng.integers(1, 5, 2).tolist()
        kernel, strides = tuple(rng.integers(1, 4, 2).tolist()), tuple([int(rng.integers(1, 3))] * 2)
        x = spec("x", (1, channels, *rng.integers(2, 7, 2).tolist()), scale(rng))
        size = [(x.shape[2 + i] - 1) * strides[i] + kernel[i] for i in (0, 1)]
        y = spec("y", (1, outputs, *size), scale(rng))
        weight = rng.integers(-127, 128, (outputs, channels, *kernel)).astype(np.int8)
        scales, bias, real = products_case(rng, outputs, x, y)
        attributes = {"strides": strides, "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 1, **clamp()}
        constants = {"weight": weight, "bias": bias, **factors("conv2d", real)}
        item = program("conv_transpose2d", [x], y, attributes, constants)
        data = np.moveaxis(weight, 1, -1)
        tensors = [
            integers(1, *size, outputs),
            Tensor(data.shape, tuple(scales), 0, data, 0),
            entry(x),
            Tensor((outputs,), tuple(np.float32(x.scale) * scales), 0, bias, 0, "int64"),
            entry(y),
        ]
        chosen = options("TransposeConvOptions", padding=PADDING["VALID"], strideH=strides[0], strideW=strides[1])
        content = model("TRANSPOSE_CONV", tensors, [2], 4, chosen)
        assert differing(item, content, runner, case) == 0, f"case {case}: {item.instructions[0]}"


@both
def test_product_of_matrices(runner):
    rng = np.random.default_rng(17)
    for case in range(100):
        m, k, n = rng.integers(1, 9, 3).tolist()
        a, b, y = (spec(name, (1, 2, *s), scale(rng)) for name, s in zip("aby", ((m, k), (k, n), (m, n)), strict=True))
        real = float(rng.choice([2.0**-16, 2.0**-12, 0.3, rng.uniform(1e-5, 1e-3)]))
        y = replace(y, scale=float(np.float32(a.scale * b.scale / real)))
        product = (
            a.scale * b.scale if runner is run_micro else float(np.float32(a.scale * b.scale))
        )  # LiteRT's is float32
        item = program("matmul", [a, b], y, clamp(), factors("matmul", product / y.scale))
        tensors = [entry(t, layout=False) for t in (a, b, y)]
        content = model("BATCH_MATMUL", tensors, [0, 1], 2, options("BatchMatMulOptions"))
        assert differing(item, content, runner, case, layout=False) == 0, f"case {case}"


@both
@pytest.mark.parametrize("opcode", ["add", "sub", "mul"])
def test_two_inputs(runner, opcode):
    rng = np.random.default_rng(9)
    for case in range(100):
        a, b, y = (spec(name, (1, 3, 8, 8), scale(rng)) for name in "aby")
        relu = bool(rng.random() < 0.3)
        attributes, twice = clamp(relu), 2 * max(a.scale, b.scale)
        if opcode == "mul":
            y = replace(y, scale=float(np.float32(a.scale * b.scale * 2.0 ** rng.uniform(5, 16))))
            constants = factors("mul", a.scale * b.scale / y.scale)
        else:
            constants = factors(opcode, [a.scale / twice, b.scale / twice, twice / (2**15 * y.scale)])
            attributes["left_shift"] = 15
        item = program(opcode, [a, b], y, attributes, constants)
        general = {} if opcode == "mul" else {"potScaleInt16": False}
        chosen = options(f"{opcode.title()}Options", fusedActivationFunction=int(relu), **general)
        content = model(opcode.upper(), [entry(t) for t in (a, b, y)], [0, 1], 2, chosen)
        assert differing(item, content, runner, case) == 0, f"case {case}: {a} {b} {y}"


@both
@pytest.mark.parametrize("opcode", ["maximum", "minimum"])
def test_extremes(runner, opcode):
    for case in range(20):
        a, b, y = (spec(name, (1, 3, 5, 5), 0.001) for name in "aby")
        item = program(opcode, [a, b], y)
        content = model(opcode.upper(), [entry(t) for t in (a, b, y)], [0, 1], 2, options("MaximumMinimumOptions"))
        assert differing(item, content, runner, case) == 0


EVERY = np.arange(LOW, HIGH + 1).astype(np.int16).reshape(1, -1)


@both
@pytest.mark.parametrize("kinds", [("int16", "int16"), ("int8", "int16"), ("int16", "int8")])
def test_requantize(runner, kinds):
    rng = np.random.default_rng(10)
    every = EVERY if kinds[0] == "int16" else np.arange(-128, 128).astype(np.int8).reshape(1, -1)
    for case in range(60):
        x, y = (
            replace(
                spec(name, every.shape, scale(rng) if kind == "int16" else 256 * scale(rng)),
                dtype=kind,
                zero_point=int(rng.integers(-128, 128)) if kind == "int8" else 0,
            )
            for name, kind in zip("xy", kinds, strict=True)
        )
        low, high = np.iinfo(kinds[1]).min, np.iinfo(kinds[1]).max
        constants = factors("requantize", np.float64(x.scale) / np.float64(y.scale))
        item = program("requantize", [x], y, {"act_min": int(low), "act_max": int(high)}, constants)
        item = replace(item, contract="tflite-r1/tflite-r8")
        tensors = [Tensor(t.shape, (t.scale,), t.zero_point, dtype=t.dtype) for t in (x, y)]
        content = model("QUANTIZE", tensors, [0], 1, options("QuantizeOptions"))
        ours = Device(item, fast=False).run({"x": every})["y"]
        np.testing.assert_array_equal(ours, runner(content, [every]), f"case {case}: {x} {y}")


def test_relu():  # tflite-micro has no int16 form
    rng = np.random.default_rng(19)
    for case in range(40):
        x, y = (spec(name, EVERY.shape, scale(rng)) for name in "xy")
        factor = float(np.float32(x.scale) / np.float32(y.scale))
        item = program("requantize", [x], y, clamp(relu=True), factors("requantize", factor))
        content = model("RELU", [entry(x), entry(y)], [0], 1)
        ours = Device(item, fast=False).run({"x": EVERY})["y"]
        np.testing.assert_array_equal(ours, run_litert(content, [EVERY]), f"case {case}: {x} {y}")


@both
@pytest.mark.parametrize("opcode", ["max_pool", "average_pool"])
def test_pools(runner, opcode):
    rng = np.random.default_rng(11)
    for case in range(80):
        kernel, strides = tuple(rng.integers(1, 5, 2).tolist()), tuple(rng.integers(1, 4, 2).tolist())
        shape, mode = (1, 3, *rng.integers(5, 9, 2).tolist()), rng.choice(["SAME", "VALID"])
        pads = pads_of(mode, shape, kernel, strides)
        x, y = spec("x", shape, 0.001), spec("y", (1, 3, *window(shape[2:], kernel, strides, pads)), 0.001)
        item = program(opcode, [x], y, {"kernel": kernel, "strides": strides, "pads": pads})
        chosen = options(
            "Pool2DOptions", padding=PADDING[mode], strideH=strides[0], strideW=strides[1], filterHeight=kernel[0],
            filterWidth=kernel[1],
        )  # fmt: skip
        content = model(f"{opcode.upper()}_2D", [entry(x), entry(y)], [0], 1, chosen)
        assert differing(item, content, runner, case) == 0, f"case {case}: {kernel} {strides} {pads}"


REDUCTIONS = [
    ("mean", run_micro), ("mean", run_litert), ("reduce_sum", run_micro), ("reduce_max", run_litert),
    ("reduce_min", run_litert),
]  # fmt: skip
"""tflite-micro has no int16 extremes; LiteRT's int16 sums do not rescale."""


@pytest.mark.parametrize(("opcode", "runner"), REDUCTIONS)
def test_reductions(opcode, runner):
    rng = np.random.default_rng(12)
    for case in range(60):
        x = spec("x", (1, 5, *rng.integers(1, 12, 2).tolist()), scale(rng))
        y = spec("y", (1, 5, 1, 1), x.scale if "_m" in opcode else scale(rng) * (1 if opcode == "mean" else 64))
        scaled = {} if "_m" in opcode else factors(opcode, np.float64(x.scale) / np.float64(y.scale))
        item = program(opcode, [x], y, {"axes": (2, 3)}, scaled)
        name = {"mean": "MEAN", "reduce_sum": "SUM"}.get(opcode, opcode.upper())
        chosen = options("ReducerOptions", keepDims=True)
        content = model(name, [entry(x), integers(1, 2), entry(y)], [0], 2, chosen)
        assert differing(item, content, runner, case) == 0, f"case {case}: {x} {y}"


@both
@pytest.mark.parametrize("opcode", ["sigmoid", "tanh"])
def test_sigmoid_and_tanh(runner, opcode):
    rng = np.random.default_rng(20)
    steps = [1 / 4096, 1 / 2048, 1 / 8192, *(float(np.float32(2.0 ** rng.uniform(-16, -4))) for _ in range(25))]
    for step in steps:
        x, y = spec("x", EVERY.shape, step), spec("y", EVERY.shape, 1 / 32768)
        factor, right_shift = input_factor("x", step, opcode == "tanh")
        item = program(opcode, [x], y, {"factor": factor, "right_shift": right_shift})
        content = model({"sigmoid": "LOGISTIC", "tanh": "TANH"}[opcode], [entry(x), entry(y)], [0], 1)
        ours = Device(item, fast=False).run({"x": EVERY})["y"]
        np.testing.assert_array_equal(ours, runner(content, [EVERY]), f"scale {step}")


@both
def test_softmax(runner):
    rng = np.random.default_rng(21)
    tables = {"exp": lookup_table(np.exp, -10, 0), "reciprocal": lookup_table(lambda x: 1 / (1 + x), 0, 1)}
    for case in range(120):
        depth = int(rng.choice([1, 2, 10, 100, 1001]))
        x = spec("x", (1, depth), float(np.float32(2.0 ** rng.uniform(-14, -6))))
        y = spec("y", x.shape, 1 / 32768)
        constants = {**factors("softmax_tables", np.float64(x.scale) / (10.0 / 65535.0)), **tables}
        item = program("softmax_tables", [x], y, {"axis": 1}, constants)
        content = model("SOFTMAX", [entry(x), entry(y)], [0], 1, options("SoftmaxOptions", beta=1.0))
        assert differing(item, content, runner, case) == 0, f"case {case}: {x}"


@both
def test_leaky_relu(runner):
    rng = np.random.default_rng(22)
    for case in range(40):
        x, y = (spec(name, EVERY.shape, scale(rng)) for name in "xy")
        alpha = np.float32(rng.choice([0.01, 0.1, 0.3, 1.5]))
        slope, real = spec("s", (1,), 1.0), [x.scale / y.scale, x.scale * float(alpha) / y.scale]
        if runner is run_litert:  # whose factors are float32
            real = [np.float32(x.scale) / np.float32(y.scale), np.float32(x.scale) * alpha / np.float32(y.scale)]
        items = (
            Instruction("constant", "slope", (), "s", {}, {"value": np.array([1], np.int16)}),
            Instruction("prelu", "prelu", ("x", "s"), "y", clamp(), factors("prelu", real)),
        )
        item = Program("test", CONTRACT.name, {}, (x, slope, y), ("x",), ("y",), items)
        content = model("LEAKY_RELU", [entry(x), entry(y)], [0], 1, options("LeakyReluOptions", alpha=float(alpha)))
        ours = Device(item, fast=False).run({"x": EVERY})["y"]
        np.testing.assert_array_equal(ours, runner(content, [EVERY]), f"case {case}: {x} {y} {alpha}")


def moved(rng):
    """A program that moves values, and TensorFlow Lite's operator: name, inputs behind the first, options."""
    shape = tuple(rng.integers(2, 6, 4).tolist())
    x, axis = spec("x", shape, 0.001), int(rng.integers(4))
    order = tuple(int(a) for a in rng.permutation(4))
    transposed = spec("y", [shape[a] for a in order], 0.001)
    yield program("transpose", [x], transposed, {"permutation": order}), "TRANSPOSE", [integers(*order)], "Transpose"
    flat = spec("y", (1, int(np.prod(shape))), 0.001)
    yield program("reshape", [x], flat), "RESHAPE", [integers(*flat.shape)], "Reshape"
    pads = tuple(rng.integers(0, 3, 8).tolist())
    padded = spec("y", [pads[i] + s + pads[i + 4] for i, s in enumerate(shape)], 0.001)
    table = Tensor((4, 2), (), 0, np.array([pads[:4], pads[4:]], np.int32).T, 0, "int32")
    yield program("pad", [x], padded, {"pads": pads, "value": 0}), "PAD", [table], "Pad"
    starts = tuple(int(rng.integers(s)) for s in shape)
    sizes = tuple(int(rng.integers(1, s - start + 1)) for s, start in zip(shape, starts, strict=True))
    attributes = {"starts": starts, "steps": (1, 1, 1, 1)}
    yield (
        program("slice", [x], spec("y", sizes, 0.001), attributes),
        "SLICE",
        [integers(*starts), integers(*sizes)],
        "Slice",
    )
    other = spec("z", [s + 1 if i == axis else s for i, s in enumerate(shape)], 0.001)
    joined = spec("y", [2 * s + 1 if i == axis else s for i, s in enumerate(shape)], 0.001)
    fields = {"axis": axis}
    yield program("concat", [x, other], joined, fields), "CONCATENATION", [entry(other, layout=False)], "Concatenation"


@both
def test_movement(runner):
    rng = np.random.default_rng(13)
    for case in range(25):
        for item, name, constants, kind in moved(rng):
            x, *_, y = item.tensors
            fields = {"axis": item.instructions[0].attributes["axis"]} if name == "CONCATENATION" else {}
            tensors = [entry(x, layout=False), *constants, entry(y, layout=False)]
            inputs = list(range(len(item.inputs)))
            content = model(name, tensors, inputs, len(tensors) - 1, options(f"{kind}Options", **fields))
            assert differing(item, content, runner, case, layout=False) == 0, f"case {case}: {item.instructions[0]}"


def test_resizes():
    """Nearest in both peers; bilinear, of which tflite-micro has no int16 form, in LiteRT."""
    rng = np.random.default_rng(14)
    for case in range(40):
        height, width, rows, columns = rng.integers(1, 9, 4).tolist()
        x, y = spec("x", (1, 3, height, width), 0.001), spec("y", (1, 3, rows, columns), 0.001)
        index = [
            np.minimum((np.arange(n) * np.float32(size / np.float32(n))).astype(np.int32), size - 1)
            for n, size in ((rows, height), (columns, width))
        ]
        item = program("resize_nearest", [x], y, {}, {"rows": index[0], "columns": index[1]})
        tensors = [entry(x), integers(rows, columns), entry(y)]
        content = model("RESIZE_NEAREST_NEIGHBOR", tensors, [0], 2, options("ResizeNearestNeighborOptions"))
        for runner in (run_micro, run_litert):
            assert differing(item, content, runner, case) == 0, f"case {case}: {x.shape} to {y.shape}"
        weights = [lines(size, n) for size, n in ((height, rows), (width, columns))]
        names = [f"{along}_{end}" for along in ("rows", "columns") for end in ("low", "high", "weight")]
        item = program("resize_linear", [x], y, {}, dict(zip(names, [*weights[0], *weights[1]], strict=True)))
        chosen = options("ResizeBilinearOptions", halfPixelCenters=True)
        content = model("RESIZE_BILINEAR", tensors, [0], 2, chosen)
        assert differing(item, content, run_litert, case) == 0, f"case {case}: {x.shape} to {y.shape}"


def lines(size, result):
    """The rows between which each output lies and how far, in 1/1024: ``resize_bilinear.h``, half pixel centres."""
    step = (1024 * size + result // 2) // result
    at = np.arange(result) * step + step // 2 - 512
    low = np.maximum(np.trunc(at / 1024).astype(np.int64), 0)
    high = np.minimum(np.trunc((at + 1023) / 1024).astype(np.int64), size - 1)
    return [part.astype(np.int32) for part in (low, high, at - 1024 * low)]
