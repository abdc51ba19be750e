"""Lowered operators on the plain device against tflite-micro and LiteRT's reference kernels: 0 differing bytes."""

import numpy as np
import pytest
from smallmodels import model as onnx_model
from smallmodels import pair, target
from tflite_models import PADDING, Tensor, model, options, run_litert, run_micro

from pipeline.compile.lower import lower
from pipeline.graph.view import view
from runtime.npu.device import Device

MICRO, LITERT = pytest.param(run_micro, id="micro"), pytest.param(run_litert, id="litert")
BOTH = pytest.mark.parametrize("runner", [MICRO, LITERT])
ONLY_MICRO = pytest.mark.parametrize("runner", [MICRO])


class Case:
    """An operator between quantize/dequantize pairs, and the same as a ``.tflite`` operator."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def scale(self, low=0.01, high=0.2):
        power = self.rng.random() < 0.3
        return float(2.0 ** self.rng.integers(-7, -2)) if power else float(np.float32(self.rng.uniform(low, high)))

    def zero(self):
        return int(self.rng.choice([-128, 127, 0, *self.rng.integers(-128, 128, 5)]))

    def image(self, *shape):
        return Tensor(shape or (1, *self.rng.integers(2, 8, 2).tolist(), 4), (self.scale(),), self.zero())

    def values(self, shape):
        array = self.rng.integers(-128, 128, shape).astype(np.int8)
        array.flat[0], array.flat[-1] = -128, 127
        return array


def nchw(shape):
    return (shape[0], shape[-1], *shape[1:-1]) if len(shape) == 4 else shape


def to_nchw(array):
    return np.moveaxis(array, -1, 1) if array.ndim == 4 else array


def floats(shape):
    return f"float[{','.join(str(d) for d in shape)}]"


def ours(body, inputs, output, feeds, layout=True, opset=18, **constants):
    """``body`` computes ``r`` from ``a`` (and ``b``), whose quantizations are those of the TFLite tensors."""
    place = nchw if layout else (lambda shape: shape)
    names = "ab"[: len(inputs)]
    text = ", ".join(f"{floats(place(t.shape))} {n}0" for n, t in zip(names, inputs, strict=True))
    pairs = "".join(pair(n, f"{n}0", t.scales[0], t.zero_point) for n, t in zip(names, inputs, strict=True))
    graph_text = (
        f"g ({text}) => ({floats(place(output.shape))} y) {{ {pairs} \n {body} "
        f"{pair('y', 'r', output.scales[0], output.zero_point)} }}"
    )
    seen = view(onnx_model(graph_text, opset, **constants))
    program = lower(seen, seen.nodes, seen.inputs, seen.outputs, target())
    given = [to_nchw(f) if layout else f for f in feeds]
    values = {wire: np.ascontiguousarray(v) for wire, v in zip(program.inputs, given, strict=True)}
    plain, fast = Device(program, fast=False).run(values), Device(program, threads=1).run(values)
    (found,) = plain.values()
    np.testing.assert_array_equal(found, next(iter(fast.values())))
    return found


def compare(case, body, tensors, operator, chosen, runner, feeds=None, layout=True, extra=(), opset=18, **constants):
    """``tensors`` are the activations; ``extra`` come between them and the output in the TFLite operator."""
    *inputs, output = tensors
    feeds = feeds or [case.values(t.shape) for t in inputs]
    found = ours(body, inputs, output, feeds, layout, opset, **constants)
    content = model(
        operator, [*inputs, *extra, output], list(range(len(inputs))), len(tensors) - 1 + len(extra), chosen
    )
    expected = runner(content, feeds)
    np.testing.assert_array_equal(found, to_nchw(expected) if layout else expected)
    return found.size


def constant(values):
    data = np.asarray(values, np.int32)
    return Tensor(data.shape, (), 0, data, 0, "int32")


EVERY = np.arange(-128, 128).astype(np.int8).reshape(1, 256)


@BOTH
@pytest.mark.parametrize(
    ("op", "operator", "scale", "zero"), [("Sigmoid", "LOGISTIC", 1 / 256, -128), ("Tanh", "TANH", 1 / 128, 0)]
)
def test_fixed_output_tables(runner, op, operator, scale, zero):
    differing = 0
    for seed in range(30):
        case = Case(seed)
        x, y = Tensor((1, 256), (case.scale(0.005, 0.3),), case.zero()), Tensor((1, 256), (scale,), zero)
        found = ours(f"r = {op} (a)", [x], y, [EVERY], layout=False)
        differing += int((found != runner(model(operator, [x, y], [0], 1), [EVERY])).sum())
    # LiteRT's LOGISTIC takes a float32 table; tflite-micro's is the fixed-point kernel that the contract names.
    assert differing <= (0 if runner is run_micro or op == "Tanh" else 8)  # of 15,360


@BOTH
def test_hard_swish(runner):
    for seed in range(30):
        case = Case(seed)
        x = Tensor((1, 256), (case.scale(0.01, 0.1),), case.zero())
        y = Tensor((1, 256), (float(np.float32(x.scales[0] * case.rng.uniform(0.5, 1.5))),), case.zero())
        compare(case, "r = HardSwish (a)", [x, y], "HARD_SWISH", None, runner, [EVERY], layout=False)


@BOTH
def test_leaky_relu(runner):
    for seed in range(30):
        case = Case(seed)
        alpha = float(np.float32(case.rng.uniform(-0.5, 0.9)))
        x, y = (Tensor((1, 256), (case.scale(),), case.zero()) for _ in "xy")
        chosen = options("LeakyReluOptions", alpha=alpha)
        body = f"r = LeakyRelu <alpha = {alpha!r}> (a)"
        compare(case, body, [x, y], "LEAKY_RELU", chosen, runner, [EVERY], layout=False)


@BOTH
def test_prelu(runner):
    for seed in range(30):
        case = Case(seed)
        x, slope = case.image(), case.values((1, 1, 4))
        y, s = case.image(*x.shape), Tensor((1, 1, 4), (case.scale(0.002, 0.01),), case.zero(), slope)
        quantized = pair("s", "s0", s.scales[0], s.zero_point)
        real = ((slope.astype(np.int32) - s.zero_point) * np.float32(s.scales[0])).astype(np.float32)
        body = f"{quantized} \n r = PRelu (a, s)"
        compare(case, body, [x, y], "PRELU", None, runner, extra=[s], s0=np.moveaxis(real, -1, 0))


@BOTH
@pytest.mark.parametrize(("op", "operator"), [("Max", "MAXIMUM"), ("Min", "MINIMUM")])
def test_extremes(runner, op, operator):
    for seed in range(24):
        case = Case(seed)
        x = case.image()
        tensors = [Tensor(x.shape, x.scales, x.zero_point)] * 3
        compare(case, f"r = {op} (a, b)", tensors, operator, options("MaximumMinimumOptions"), runner)


@BOTH
def test_softmax(runner):
    for seed in range(30):
        case = Case(seed)
        rows, classes = case.rng.integers(1, 9), case.rng.integers(2, 40)
        x = Tensor((int(rows), int(classes)), (case.scale(0.005, 0.3),), case.zero())
        y = Tensor(x.shape, (1 / 256,), -128)
        chosen = options("SoftmaxOptions", beta=1.0)
        compare(case, "r = Softmax <axis = -1> (a)", [x, y], "SOFTMAX", chosen, runner, layout=False)


@BOTH
@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric"])
def test_resize_linear(runner, coordinates):
    for seed in range(24):
        case = Case(seed)
        x = case.image()
        rows, columns = case.rng.integers(1, 16, 2).tolist()
        y = Tensor((1, rows, columns, 4), x.scales, x.zero_point)
        chosen = options(
            "ResizeBilinearOptions",
            alignCorners=coordinates == "align_corners",
            halfPixelCenters=coordinates == "half_pixel",
        )
        body = f'r = Resize <mode = "linear", coordinate_transformation_mode = "{coordinates}"> (a, , , sizes)'
        sizes = np.array([1, 4, rows, columns], np.int64)
        extra = [constant([rows, columns])]
        compare(case, body, [x, y], "RESIZE_BILINEAR", chosen, runner, extra=extra, sizes=sizes)


@BOTH
def test_transposed_convolution(runner):
    for seed in range(30):
        case = Case(seed)
        x, outputs, stride = case.image(), int(case.rng.integers(1, 6)), int(case.rng.integers(1, 4))
        kernel = case.rng.integers(1, 4, 2).tolist()
        size = [(x.shape[1 + i] - 1) * stride + kernel[i] for i in (0, 1)]
        y = Tensor((1, *size, outputs), (case.scale(),), case.zero())
        factors = 2.0 ** case.rng.uniform(-11, -4, outputs) if seed % 3 else 2.0 ** case.rng.integers(-10, -4, outputs)
        scales = (factors * y.scales[0] / x.scales[0]).astype(np.float32)
        weight = case.rng.integers(-127, 128, (outputs, *kernel, 4)).astype(np.int8)
        bias = case.rng.integers(-4000, 4000, outputs).astype(np.int32)
        product = (np.float32(x.scales[0]) * scales).astype(np.float32)
        w = Tensor(weight.shape, tuple(scales), 0, weight, 0)
        b = Tensor((outputs,), tuple(product), 0, bias, 0, "int32")
        chosen = options("TransposeConvOptions", padding=PADDING["VALID"], strideH=stride, strideW=stride)
        feed = case.values(x.shape)
        tensors = [constant([1, *size, outputs]), w, x, b, y]
        expected = runner(model("TRANSPOSE_CONV", tensors, [2], 4, chosen), [feed])
        body = f"""w = DequantizeLinear <axis = 1> (wq, ws, wz)
          bias = DequantizeLinear <axis = 0> (bq, bs, bz)
          r = ConvTranspose <strides = [{stride},{stride}]> (a, w, bias)"""
        found = ours(
            body, [x], y, [feed], wq=np.ascontiguousarray(np.transpose(weight, (3, 0, 1, 2))), ws=scales,
            wz=np.zeros(outputs, np.int8), bq=bias, bs=product, bz=np.zeros(outputs, np.int32),
        )  # fmt: skip
        np.testing.assert_array_equal(found, to_nchw(expected), f"case {seed}")


@ONLY_MICRO  # LiteRT takes the product of both scales in float32, which moves 1 output in some thousand
def test_matmul_of_two(runner):
    for seed in range(30):
        case = Case(seed)
        m, k, n = case.rng.integers(1, 12, 3).tolist()
        a, b = (Tensor(shape, (case.scale(),), case.zero()) for shape in ((2, m, k), (2, k, n)))
        factor = 2.0 ** case.rng.uniform(-9, -3) if seed % 3 else 2.0 ** case.rng.integers(-9, -3)
        y = Tensor((2, m, n), (float(np.float32(a.scales[0] * b.scales[0] / factor)),), case.zero())
        chosen = options("BatchMatMulOptions")
        compare(case, "r = MatMul (a, b)", [a, b, y], "BATCH_MATMUL", chosen, runner, layout=False)


@ONLY_MICRO
def test_reduce_sum(runner):  # LiteRT's reference SUM wraps where tflite-micro's saturates
    for seed in range(24):
        case = Case(seed)
        x = case.image()
        axes = [(1,), (2,), (3,), (1, 2), (1, 2, 3)][int(case.rng.integers(5))]
        kept = tuple(1 if i in axes else s for i, s in enumerate(x.shape))
        chosen = options("ReducerOptions", keepDims=True)
        y = Tensor(kept, (float(np.float32(x.scales[0] * case.rng.uniform(1, 20))),), case.zero())
        given = {"axes": np.array(axes, np.int64)}
        body = "r = ReduceSum <keepdims = 1> (a, axes)"
        compare(case, body, [x, y], "SUM", chosen, runner, layout=False, extra=[constant(axes)], **given)


@BOTH
def test_reduce_max(runner):
    for seed in range(24):
        case = Case(seed)
        x = case.image()
        axes = [(1,), (2,), (3,), (1, 2), (1, 2, 3)][int(case.rng.integers(5))]
        kept = tuple(1 if i in axes else s for i, s in enumerate(x.shape))
        chosen = options("ReducerOptions", keepDims=True)
        given = {"axes": np.array(axes, np.int64)}
        same = Tensor(kept, x.scales, x.zero_point)
        body = "r = ReduceMax <keepdims = 1> (a, axes)"
        compare(case, body, [x, same], "REDUCE_MAX", chosen, runner, layout=False, extra=[constant(axes)], **given)


@BOTH
def test_movement(runner):
    for seed in range(30):
        case = Case(seed)
        x = case.image(1, *case.rng.integers(4, 9, 3).tolist())
        pads = case.rng.integers(0, 3, (4, 2)) * [[0], [1], [1], [1]]
        padded = Tensor(tuple((np.array(x.shape) + pads.sum(1)).tolist()), x.scales, x.zero_point)
        widths = np.concatenate([pads[:, 0], pads[:, 1]]).astype(np.int64)
        extra = [constant(pads)]
        compare(case, "r = Pad (a, p)", [x, padded], "PAD", None, runner, layout=False, extra=extra, p=widths)
        begin, step = case.rng.integers(0, 3, 4) * [0, 1, 1, 1], case.rng.integers(1, 3, 4)
        step[0] = 1
        cut = Tensor(
            tuple(len(range(b, s, k)) for b, s, k in zip(begin, x.shape, step, strict=True)), x.scales, x.zero_point
        )
        extra = [constant(begin), constant(x.shape), constant(step)]
        chosen = options("StridedSliceOptions")
        given = {"b": begin.astype(np.int64), "e": np.array(x.shape, np.int64), "k": step.astype(np.int64)}
        given["axes"] = np.arange(4)
        body = "r = Slice (a, b, e, axes, k)"
        compare(case, body, [x, cut], "STRIDED_SLICE", chosen, runner, layout=False, extra=extra, **given)


@BOTH
def test_blocks(runner):
    for seed in range(30):
        case = Case(seed)
        rows, columns = case.rng.integers(1, 5, 2).tolist()
        deep = case.image(1, rows, columns, 8)
        wide = Tensor((1, 2 * rows, 2 * columns, 2), deep.scales, deep.zero_point)
        chosen = options("DepthToSpaceOptions", blockSize=2)
        compare(case, "r = DepthToSpace <blocksize = 2> (a)", [deep, wide], "DEPTH_TO_SPACE", chosen, runner)
        chosen = options("SpaceToDepthOptions", blockSize=2)
        compare(case, "r = SpaceToDepth <blocksize = 2> (a)", [wide, deep], "SPACE_TO_DEPTH", chosen, runner)
