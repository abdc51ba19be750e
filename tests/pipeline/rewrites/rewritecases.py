"""Where each rule fits, and where it almost does, as ONNX text."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Case:
    """A model of the text ``g (inputs) => (outputs) { body }``; ``after``: its operators once the rule was applied."""

    rule: str
    text: str
    after: str = ""
    constants: dict = field(default_factory=dict)
    opsets: tuple = (13, 18, 23)

    def __str__(self):
        return f"{self.rule}: {self.text[self.text.index('{') :]}"


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def number(value):
    return np.float32(value)


IMAGE = "g (float[1,4,6,6] x) => (float[1,4,6,6] y) "
ROWS = "g (float[2,4] x) => (float[2,3] y) "
BN = {"s": weights(4), "b": weights(4, seed=1), "m": weights(4, seed=2), "v": np.abs(weights(4, seed=3)) + 0.5}
NEW, SWISH = (18, 23), (14, 18, 23)
GELU = {"half": number(0.5), "one": number(1), "root": number(2**0.5)}
GELU_TEXT = IMAGE + "{ a = Div (x, root) e = Erf (a) s = Add (e, one) "

FITS = [
    Case("fold-constants", IMAGE + "{ a = Mul (p, q) b = Add (a, p) y = Add (x, b) }", "Add",
         {"p": weights(4, 1, 1), "q": weights(4, 1, 1, seed=1)}),
    Case("fold-constants", "g (float[2,3,4] x) => (float[2,12] y) { s = Shape (x) b = Gather (s, zero)"
         " i = Constant <value = int64[1] {-1}> () t = Concat <axis = 0> (b, i) y = Reshape (x, t) }", "Reshape",
         {"zero": ints(0)}),
    Case("fold-batch-norm", IMAGE + "{ a = Conv <pads = [1,1,1,1]> (x, w, b) y = BatchNormalization (a, s, b, m, v) }",
         "Conv", {"w": weights(4, 4, 3, 3), **BN}),
    Case("fold-batch-norm", IMAGE + "{ a = Conv (x, w) y = BatchNormalization <epsilon = 0.1> (a, s, b, m, v) }",
         "Conv", {"w": weights(4, 4, 1, 1), **BN}),
    Case("fold-batch-norm", IMAGE + "{ a = ConvTranspose (x, w) y = BatchNormalization (a, s, b, m, v) }",
         "ConvTranspose", {"w": weights(4, 4, 1, 1), **BN}),
    Case("fold-batch-norm", "g (float[2,4] x) => (float[2,4] y) { a = Gemm (x, w, m) y = BatchNormalization"
         " (a, s, b, m, v) }", "Gemm", {"w": weights(4, 4), **BN}),
    Case("batch-norm-to-depthwise-conv", IMAGE + "{ y = BatchNormalization (x, s, b, m, v) }", "Conv", BN),
    Case("batch-norm-to-depthwise-conv", IMAGE + "{ a = Relu (x) y = BatchNormalization (a, s, b, m, v) }",
         "Relu Conv", BN),
    Case("pad-into-conv", "g (float[1,4,6,6] x) => (float[1,4,7,6] y) { a = Pad (x, p) y = Conv (a, w) }", "Conv",
         {"p": ints(0, 0, 1, 2, 0, 0, 2, 0), "w": weights(4, 4, 3, 3)}),
    Case("min-max-to-clip", IMAGE + "{ a = Max (x, low) y = Min (a, high) }", "Clip",
         {"low": number(0), "high": number(6)}),
    Case("min-max-to-clip", IMAGE + "{ a = Min (high, x) y = Max (a, low) }", "Clip",
         {"low": number(-1), "high": np.full((1, 1, 1), 1, np.float32)}),
    Case("min-max-to-clip", IMAGE + "{ a = Relu (x) y = Min (high, a) }", "Clip", {"high": number(6)}),
    Case("fuse-clamps", IMAGE + "{ a = Relu (x) y = Clip (a, low, high) }", "Clip",
         {"low": number(-1), "high": number(2)}),
    Case("fuse-clamps", IMAGE + "{ a = Clip (x, low, high) b = Clip (a, , low2) y = Relu (b) }", "Clip",
         {"low": number(-1), "high": number(2), "low2": number(1)}),
    Case("fuse-hard-swish", IMAGE + "{ a = Add (x, three) b = Clip (a, zero, six) c = Mul (x, b) y = Div (c, six) }",
         "HardSwish", {"three": number(3), "zero": number(0), "six": number(6)}, SWISH),
    Case("fuse-hard-swish", IMAGE + "{ a = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul (a, x) }",
         "HardSwish", {}, SWISH),
    Case("fuse-hard-swish", IMAGE + "{ a = Add (x, three) b = Clip (a, zero, six) y = Div (b, six) }",
         "HardSigmoid", {"three": number(3), "zero": number(0), "six": number(6)}, SWISH),
    Case("matmul-add-to-gemm", ROWS + "{ a = MatMul (x, w) y = Add (a, b) }", "Gemm",
         {"w": weights(4, 3), "b": weights(3)}),
    Case("matmul-add-to-gemm", "g (float[2,4] x, float[4,3] z) => (float[2,3] y) { a = MatMul (x, z) y = Add (b, a) }",
         "Gemm", {"b": weights(2, 1)}),
    Case("reduce-mean-to-global-average-pool", "g (float[2,4,6,6] x) => (float[2,4,1,1] y)"
         " { y = ReduceMean <axes = [2,3]> (x) }", "GlobalAveragePool", {}, (13,)),
    Case("reduce-mean-to-global-average-pool", "g (float[2,4,6,6] x) => (float[2,4] y)"
         " { y = ReduceMean <keepdims = 0> (x, a) }", "GlobalAveragePool Flatten", {"a": ints(-1, 2)}, NEW),
    Case("average-pool-to-global-average-pool", "g (float[1,4,6,5] x) => (float[1,4,1,1] y)"
         " { y = AveragePool <kernel_shape = [6,5], strides = [2,2]> (x) }", "GlobalAveragePool"),
    Case("gemm-to-conv", "g (float[2,4,1,1] x) => (float[2,3] y) { a = Flatten (x) y = Gemm <transB = 1> (a, w, b) }",
         "Conv Flatten", {"w": weights(3, 4), "b": weights(1, 3)}),
    Case("gemm-to-conv", "g (float[2,4,3,2] x) => (float[2,3] y) { a = Reshape (x, s)"
         " y = Gemm <alpha = 0.5, beta = 2.0> (a, w, b) }", "Conv Flatten",
         {"s": ints(2, -1), "w": weights(24, 3), "b": weights(3)}),
    Case("gemm-to-conv", "g (float[2,4,1,1] x) => (float[2,3] y) { a = Squeeze (x, s) y = MatMul (a, w) }",
         "Conv Flatten", {"s": ints(2, 3), "w": weights(4, 3)}),
    Case("gemm-to-conv", "g (float[1,4,2,2] x) => (float[1,3] y) { a = Flatten (x) b = Gemm (a, w)"
         " c = Clip (b, zero) y = Gemm (c, u) }", "Conv Clip Conv Flatten",
         {"w": weights(16, 5), "zero": number(0), "u": weights(5, 3)}),
    Case("matmul-to-conv", ROWS + "{ y = Gemm (x, w, b) }", "Reshape Conv Reshape",
         {"w": weights(4, 3), "b": weights(3)}),
    Case("matmul-to-conv", "g (float[2,5,4] x) => (float[2,5,3] y) { y = MatMul (x, w) }",
         "Transpose Reshape Conv Reshape Transpose", {"w": weights(4, 3)}),
    Case("matmul-to-conv", "g (float[2,5,6,4] x) => (float[2,5,6,3] y) { y = MatMul (x, w) }",
         "Transpose Conv Transpose", {"w": weights(4, 3)}),
    Case("split-average-pool", "g (float[1,4,16,24] x) => (float[1,4,1,1] y) { y = GlobalAveragePool (x) }",
         "AveragePool AveragePool"),
    Case("split-average-pool", "g (float[1,4,128,7] x) => (float[1,4,1,1] y) { y = GlobalAveragePool (x) }",
         "AveragePool AveragePool AveragePool"),
    Case("split-average-pool", "g (float[1,4,40,13] x) => (float[1,4,3,1] y)"
         " { y = AveragePool <kernel_shape = [12,13], strides = [12,1]> (x) }", "AveragePool AveragePool"),
    Case("cascade-max-pool", "g (float[1,4,20,20] x) => (float[1,4,20,20] y)"
         " { y = MaxPool <kernel_shape = [13,5], pads = [6,2,6,2]> (x) }", "MaxPool MaxPool"),
    Case("cascade-max-pool", "g (float[1,4,20,20] x) => (float[1,4,4,4] y)"
         " { y = MaxPool <kernel_shape = [9,9], pads = [0,0,1,1], strides = [4,4]> (x) }", "MaxPool MaxPool"),
    Case("cascade-max-pool", "g (float[1,1,40,40] x) => (float[1,1,15,15] y)"
         " { y = MaxPool <kernel_shape = [26,26]> (x) }", "MaxPool MaxPool MaxPool MaxPool"),
    Case("hard-swish-to-clip", IMAGE + "{ y = HardSwish (x) }", "Mul Add Clip Mul", {}, SWISH),
    Case("hard-swish-by-relu6", IMAGE + "{ y = HardSwish (x) }", "Add Clip Mul Mul", {}, SWISH),
    Case("hard-sigmoid-to-clip", IMAGE + "{ y = HardSigmoid (x) }", "Mul Add Clip"),
    Case("hard-sigmoid-by-relu6", IMAGE + "{ y = HardSigmoid (x) }", "Mul Add Clip Mul"),
    Case("hard-sigmoid-by-relu6", IMAGE + "{ y = HardSigmoid <alpha = 0.16666667> (x) }", "Add Clip Mul"),
    Case("leaky-relu-to-max", IMAGE + "{ y = LeakyRelu <alpha = 0.1> (x) }", "Mul Max"),
    Case("leaky-relu-to-max", IMAGE + "{ y = PRelu (x, s) }", "Mul Max", {"s": np.full((4, 1, 1), 0.3, np.float32)}),
    Case("global-average-pool-to-reduce-mean", "g (float[1,4,6,6] x) => (float[1,4,1,1] y)"
         " { y = GlobalAveragePool (x) }", "ReduceMean"),
    Case("global-average-pool-to-average-pool", "g (float[1,4,6,5] x) => (float[1,4,1,1] y)"
         " { y = GlobalAveragePool (x) }", "AveragePool"),
    Case("average-pool-to-depthwise-conv", "g (float[1,4,6,5] x) => (float[1,4,1,1] y)"
         " { y = GlobalAveragePool (x) }", "Conv"),
    Case("average-pool-to-depthwise-conv", "g (float[1,4,6,6] x) => (float[1,4,3,3] y) { y = AveragePool"
         " <kernel_shape = [3,3], pads = [1,1,1,1], strides = [2,2], count_include_pad = 1> (x) }", "Conv"),
    Case("split-to-slice", "g (float[1,5,6] x) => (float[1,2,6] y, float[1,3,6] z)"
         " { y, z = Split <axis = -2> (x, s) }", "Slice Slice", {"s": ints(2, 3)}),
    Case("split-grouped-conv", "g (float[1,4,6,6] x) => (float[1,6,5,5] y)"
         " { y = Conv <group = 2, pads = [1,1,0,0]> (x, w, b) }", "Slice Conv Slice Conv Concat",
         {"w": weights(6, 2, 3, 3), "b": weights(6)}),
    Case("grouped-conv-to-dense", "g (float[1,4,6,6] x) => (float[1,6,4,4] y) { y = Conv <group = 2> (x, w, b) }",
         "Conv", {"w": weights(6, 2, 3, 3), "b": weights(6)}),
    Case("resize-sizes-to-scales", "g (float[1,4,6,6] x) => (float[1,4,9,18] y)"
         " { y = Resize <mode = \"linear\"> (x, , , s) }", "Resize", {"s": ints(1, 4, 9, 18)}),
    Case("resize-sizes-to-scales", "g (float[1,4,6,6] x) => (float[1,4,12,12] y) { y = Resize <mode = \"nearest\","
         " coordinate_transformation_mode = \"asymmetric\", nearest_mode = \"floor\"> (x, , , s) }", "Resize",
         {"s": ints(1, 4, 12, 12)}),
    Case("depth-to-space-to-reshape", "g (float[2,8,3,4] x) => (float[2,2,6,8] y)"
         " { y = DepthToSpace <blocksize = 2> (x) }", "Reshape Transpose Reshape"),
    Case("depth-to-space-to-reshape", "g (float[2,8,3,4] x) => (float[2,2,6,8] y)"
         " { y = DepthToSpace <blocksize = 2, mode = \"CRD\"> (x) }", "Reshape Transpose Reshape"),
    Case("depth-to-space-to-conv-transpose", "g (float[2,8,3,4] x) => (float[2,2,6,8] y)"
         " { y = DepthToSpace <blocksize = 2> (x) }", "ConvTranspose"),
    Case("depth-to-space-to-conv-transpose", "g (float[2,18,3,4] x) => (float[2,2,9,12] y)"
         " { y = DepthToSpace <blocksize = 3, mode = \"CRD\"> (x) }", "ConvTranspose"),
    Case("space-to-depth-to-conv", "g (float[2,3,6,4] x) => (float[2,12,3,2] y)"
         " { y = SpaceToDepth <blocksize = 2> (x) }", "Conv"),
    Case("gelu-to-tanh", GELU_TEXT + "h = Mul (half, s) y = Mul (x, h) }", "Mul Mul Add Mul Tanh Add Mul Mul", GELU),
    Case("gelu-to-tanh", GELU_TEXT + "h = Mul (x, half) y = Mul (h, s) }", "Mul Mul Add Mul Tanh Add Mul Mul", GELU),
    Case("gelu-to-tanh", GELU_TEXT + "h = Mul (x, s) y = Mul (h, half) }", "Mul Mul Add Mul Tanh Add Mul Mul", GELU),
    Case("gelu-to-tanh", IMAGE + "{ y = Gelu (x) }", "Gelu", {}, (20, 23)),
    Case("hard-swish-to-relu6", IMAGE + "{ y = HardSwish (x) }", "Clip", {}, SWISH),
    Case("silu-to-hard-swish", IMAGE + "{ a = Sigmoid (x) y = Mul (a, x) }", "HardSwish", {}, SWISH),
    Case("gelu-to-sigmoid", GELU_TEXT + "h = Mul (half, s) y = Mul (x, h) }", "Mul Sigmoid Mul", GELU),
    Case("gelu-to-sigmoid", IMAGE + "{ y = Gelu (x) }", "Mul Sigmoid Mul", {}, (20, 23)),
    Case("resize-to-nearest", "g (float[1,4,6,6] x) => (float[1,4,12,18] y)"
         " { y = Resize <mode = \"linear\"> (x, , s) }", "Resize", {"s": np.array([1, 1, 2, 3], np.float32)}),
]  # fmt: skip
"""Models that a rule rewrites."""

MISSES = [
    Case("fold-constants", IMAGE + "{ a = Mul (x, p) y = Add (a, p) }", constants={"p": number(2)}),
    Case("fold-constants", "g (float[N,3,4] x) => (int64[3] y) { s = Shape (x) y = Add (s, s) }"),
    Case("fold-constants", "g (float[4] x) => (float[4] y) { a = RandomNormal <shape = [4]> () y = Add (x, a) }"),
    Case("fold-batch-norm", IMAGE + "{ a = Conv (x, w) n = BatchNormalization (a, s, b, m, v) y = Add (n, a) }",
         constants={"w": weights(4, 4, 1, 1), **BN}),
    Case("fold-batch-norm", "g (float[1,4,6,6] x, float[4,4,1,1] w) => (float[1,4,6,6] y)"
         " { a = Conv (x, w) y = BatchNormalization (a, s, b, m, v) }", constants=BN),
    Case("fold-batch-norm", "g (float[1,4,6,6] x, float[4] bias) => (float[1,4,6,6] y)"
         " { a = Conv (x, w, bias) y = BatchNormalization (a, s, b, m, v) }",
         constants={"w": weights(4, 4, 1, 1), **BN}),
    Case("fold-batch-norm", IMAGE + "{ a = Relu (x) y = BatchNormalization (a, s, b, m, v) }", constants=BN),
    Case("batch-norm-to-depthwise-conv", IMAGE + "{ a = Conv (x, w) y = BatchNormalization (a, s, b, m, v) }",
         constants={"w": weights(4, 4, 1, 1), **BN}),
    Case("batch-norm-to-depthwise-conv", "g (float[2,4] x) => (float[2,4] y)"
         " { y = BatchNormalization (x, s, b, m, v) }", constants=BN),
    Case("pad-into-conv", "g (float[1,4,6,6] x) => (float[1,4,6,6] y) { a = Pad (x, p, one) y = Conv (a, w) }",
         constants={"p": ints(0, 0, 1, 1, 0, 0, 1, 1), "one": number(1), "w": weights(4, 4, 3, 3)}),
    Case("pad-into-conv", "g (float[1,3,6,6] x) => (float[1,4,4,4] y) { a = Pad (x, p) y = Conv (a, w) }",
         constants={"p": ints(0, 1, 0, 0, 0, 0, 0, 0), "w": weights(4, 4, 3, 3)}),
    Case("pad-into-conv", IMAGE + "{ a = Pad <mode = \"reflect\"> (x, p) y = Conv (a, w) }",
         constants={"p": ints(0, 0, 1, 1, 0, 0, 1, 1), "w": weights(4, 4, 3, 3)}),
    Case("min-max-to-clip", IMAGE + "{ a = Max (x, low) y = Min (a, high) }",
         constants={"low": weights(4, 1, 1), "high": number(6)}),
    Case("min-max-to-clip", IMAGE + "{ a = Min (x, high) y = Max (a, low) }",
         constants={"low": number(3), "high": number(2)}),
    Case("min-max-to-clip", "g (float[3] x) => (float[1,3] y) { a = Max (x, low) y = Min (a, high) }",
         constants={"low": number(0), "high": np.array([[6]], np.float32)}),
    Case("min-max-to-clip", IMAGE + "{ a = Relu (x) y = Min (a, high) }", constants={"high": number(-1)}),
    Case("fuse-clamps", IMAGE + "{ a = Clip (x, , high) y = Relu (a) }", constants={"high": number(-1)}),
    Case("fuse-clamps", IMAGE + "{ a = Clip (x, zero, one) y = Clip (a, two, three) }",
         constants={"zero": number(0), "one": number(1), "two": number(2), "three": number(3)}),
    Case("fuse-clamps", "g (float[1,4] x, float high) => (float[1,4] y) { a = Relu (x) y = Clip (a, , high) }"),
    Case("fuse-hard-swish", IMAGE + "{ a = HardSigmoid <alpha = 0.2, beta = 0.5> (x) y = Mul (a, x) }"),
    Case("fuse-hard-swish", IMAGE + "{ a = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul (a, x) }",
         opsets=(13,)),
    Case("matmul-add-to-gemm", "g (float[2,4] x) => (float[1,2,3] y) { a = MatMul (x, w) y = Add (a, b) }",
         constants={"w": weights(4, 3), "b": weights(1, 2, 3)}),
    Case("matmul-add-to-gemm", "g (float[1,4] x) => (float[2,3] y) { a = MatMul (x, w) y = Add (a, b) }",
         constants={"w": weights(4, 3), "b": weights(2, 3)}),
    Case("matmul-add-to-gemm", "g (float[1,2,4] x) => (float[1,2,3] y) { a = MatMul (x, w) y = Add (a, b) }",
         constants={"w": weights(4, 3), "b": weights(3)}),
    Case("reduce-mean-to-global-average-pool", "g (float[2,4,6,6] x) => (float[2,1,6,1] y)"
         " { y = ReduceMean (x, a) }", constants={"a": ints(1, 3)}, opsets=NEW),
    Case("reduce-mean-to-global-average-pool", "g (float[2,4,6] x) => (float[2,1,1] y)"
         " { y = ReduceMean (x, a) }", constants={"a": ints(1, 2)}, opsets=NEW),
    Case("average-pool-to-global-average-pool", "g (float[1,4,6,6] x) => (float[1,4,1,2] y)"
         " { y = AveragePool <kernel_shape = [6,5]> (x) }"),
    Case("average-pool-to-global-average-pool", "g (float[1,4,6,6] x) => (float[1,4,3,3] y)"
         " { y = AveragePool <kernel_shape = [6,6], pads = [1,1,1,1]> (x) }"),
    Case("gemm-to-conv", "g (float[1,4,2,2] x) => (float[4,3] y) { a = Flatten <axis = 2> (x) y = Gemm (a, w) }",
         constants={"w": weights(4, 3)}),
    Case("gemm-to-conv", "g (float[1,4,2,2] x, float[16,3] w) => (float[1,3] y) { a = Flatten (x) y = MatMul (a, w) }"),
    Case("gemm-to-conv", "g (float[2,4,1,1] x) => (float[2,3] y) { a = Flatten (x) y = Gemm (a, w, b) }",
         constants={"w": weights(4, 3), "b": weights(2, 3)}),
    Case("gemm-to-conv", "g (float[2,4,1,1] x) => (float[2,3] y, float[2,4] a) { a = Flatten (x) y = Gemm (a, w) }",
         constants={"w": weights(4, 3)}),
    Case("matmul-to-conv", "g (float[2,4] x, float[4,3] w) => (float[2,3] y) { y = MatMul (x, w) }"),
    Case("matmul-to-conv", "g (float[4,2] x) => (float[2,3] y) { y = Gemm <transA = 1> (x, w) }",
         constants={"w": weights(4, 3)}),
    Case("matmul-to-conv", "g (float[2,4] x) => (float[5,2,3] y) { y = MatMul (x, w) }",
         constants={"w": weights(5, 4, 3)}),
    Case("matmul-to-conv", "g (float[N,4] x) => (float[N,3] y) { y = MatMul (x, w) }", constants={"w": weights(4, 3)}),
    Case("split-average-pool", "g (float[1,4,8,8] x) => (float[1,4,1,1] y) { y = GlobalAveragePool (x) }"),
    Case("split-average-pool", "g (float[1,4,13,13] x) => (float[1,4,1,1] y) { y = GlobalAveragePool (x) }"),
    Case("split-average-pool", "g (float[1,4,16,16] x) => (float[1,4,5,5] y)"
         " { y = AveragePool <kernel_shape = [12,12]> (x) }"),
    Case("cascade-max-pool", "g (float[1,4,9,9] x) => (float[1,4,2,2] y) { y = MaxPool <kernel_shape = [8,8]> (x) }"),
    Case("cascade-max-pool", "g (float[1,4,20,20] x) => (float[1,4,20,20] y)"
         " { y = MaxPool <kernel_shape = [9,9], auto_pad = \"SAME_UPPER\"> (x) }"),
    Case("cascade-max-pool", "g (float[1,4,20,20] x) => (float[1,4,2,2] y)"
         " { y = MaxPool <kernel_shape = [9,9], dilations = [2,2], strides = [3,3]> (x) }"),
    Case("hard-swish-to-clip", IMAGE + "{ a = HardSigmoid (x) y = Mul (a, x) }"),
    Case("hard-swish-to-clip", "g (float16[4] x) => (float16[4] y) { y = HardSwish (x) }", opsets=SWISH),
    Case("hard-swish-by-relu6", "g (float[N] x) => (float[N] y) { y = HardSwish (x) }", opsets=SWISH),
    Case("hard-sigmoid-to-clip", IMAGE + "{ y = Sigmoid (x) }"),
    Case("hard-sigmoid-by-relu6", "g (float16[4] x) => (float16[4] y) { y = HardSigmoid (x) }"),
    Case("leaky-relu-to-max", IMAGE + "{ y = LeakyRelu <alpha = 1.5> (x) }"),
    Case("leaky-relu-to-max", IMAGE + "{ y = PRelu (x, s) }", constants={"s": np.full((4, 1, 1), -0.1, np.float32)}),
    Case("leaky-relu-to-max", "g (float[1,4] x, float[4] s) => (float[1,4] y) { y = PRelu (x, s) }"),
    Case("global-average-pool-to-reduce-mean", "g (float[1,4,6] x) => (float[1,4,1] y) { y = GlobalAveragePool (x) }"),
    Case("global-average-pool-to-average-pool", "g (float[1,4,6,W] x) => (float[1,4,1,1] y)"
         " { y = GlobalAveragePool (x) }"),
    Case("average-pool-to-depthwise-conv", "g (float[1,4,6,6] x) => (float[1,4,3,3] y)"
         " { y = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1], strides = [2,2]> (x) }"),
    Case("average-pool-to-depthwise-conv", "g (float[1,4,6,6] x) => (float[1,4,3,3] y)"
         " { y = AveragePool <kernel_shape = [3,3], strides = [2,2], ceil_mode = 1> (x) }"),
    Case("split-to-slice", "g (float[N,6] x) => (float[A,6] y, float[B,6] z) { y, z = Split (x, s) }",
         constants={"s": ints(2, 3)}),
    Case("split-grouped-conv", "g (float[1,4,6,6] x) => (float[1,8,6,6] y) { y = Conv <group = 4> (x, w) }",
         constants={"w": weights(8, 1, 1, 1)}),
    Case("grouped-conv-to-dense", IMAGE + "{ y = Conv (x, w) }", constants={"w": weights(4, 4, 1, 1)}),
    Case("grouped-conv-to-dense", "g (float[1,4,6,6] x, float[4] b) => (float[1,4,6,6] y)"
         " { y = Conv <group = 2> (x, w, b) }", constants={"w": weights(4, 2, 1, 1)}),
    Case("resize-sizes-to-scales", "g (float[1,4,6,6] x, int64[4] s) => (float[1,4,H,W] y) { y = Resize (x, , , s) }"),
    Case("resize-sizes-to-scales", "g (float[1,4,6,6] x) => (float[1,4,9,9] y) { y = Resize (x, , s) }",
         constants={"s": np.array([1, 1, 1.5, 1.5], np.float32)}),
    Case("depth-to-space-to-reshape", IMAGE + "{ y = SpaceToDepth <blocksize = 1> (x) }"),
    Case("depth-to-space-to-conv-transpose", "g (float[1,8,H,3] x) => (float[1,2,J,6] y)"
         " { y = DepthToSpace <blocksize = 2> (x) }"),
    Case("space-to-depth-to-conv", IMAGE + "{ y = DepthToSpace <blocksize = 1> (x) }"),
    Case("gelu-to-tanh", GELU_TEXT + "h = Mul (half, s) y = Mul (x, h) }", constants={**GELU, "root": number(1.5)}),
    Case("gelu-to-tanh", GELU_TEXT + "h = Mul (half, s) y = Mul (x, h) }",
         constants={**GELU, "half": weights(4, 1, 1)}),
    Case("gelu-to-tanh", IMAGE + "{ y = Gelu <approximate = \"tanh\"> (x) }", opsets=(20, 23)),
    Case("hard-swish-to-relu6", IMAGE + "{ y = HardSigmoid (x) }"),
    Case("silu-to-hard-swish", "g (float[1,4] x, float[1,4] z) => (float[1,4] y) { a = Sigmoid (x) y = Mul (a, z) }"),
    Case("silu-to-hard-swish", IMAGE + "{ a = Sigmoid (x) y = Mul (a, x) }", opsets=(13,)),
    Case("gelu-to-sigmoid", IMAGE + "{ y = Gelu <approximate = \"tanh\"> (x) }", opsets=(20, 23)),
    Case("resize-to-nearest", "g (float[1,4,6,6] x) => (float[1,4,9,9] y) { y = Resize <mode = \"linear\"> (x, , s) }",
         constants={"s": np.array([1, 1, 1.5, 1.5], np.float32)}),
    Case("resize-to-nearest", "g (float[1,4,6,6] x) => (float[1,4,12,12] y) { y = Resize (x, , s) }",
         constants={"s": np.array([1, 1, 2, 2], np.float32)}),
]  # fmt: skip
"""Models that a rule leaves alone, though they look much like those it rewrites."""
