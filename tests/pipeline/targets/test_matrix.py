"""One typical form of each ONNX operator on every chip with a public table, against the reference's matrix.

Cells: Y taken without limits, C taken within limits, N not taken; f to be folded or rewritten, 16 in fp16 only, G on
the GPU shaders, cpu inside the vendor's runtime, ? not public: these four are fallbacks.
"""

import numpy as np
import pytest
from smallmodels import graph, target

from pipeline.targets.rules import violations

COLUMNS = {
    "ETPU": "coral-edgetpu-usb3",
    "DLA": "jetson-xavier-nx-dla",
    "HVX": "snapdragon-845",
    "NNIE": "hi3559a-nnie",
    "ASC": "ascend-310",
    "U55": "ethos-u55-256",
    "U65": "ethos-u65-512",
    "RK": "rk3588",
    "STM": "stm32mp2",
    "HYP": "conv-only",
}
TAKEN = {"Y", "C"}
PROMISED = {"ETPU", "DLA", "U55", "U65", "RK", "STM", "HYP"}
"""Columns where C means that the profile has a rule for the operator."""

UNRULED = {("ETPU", "Flatten"), ("ETPU", "Transpose"), ("DLA", "Transpose")}
"""C without a rule: the limit is not public."""

PROFILES = {chip: target(name) for chip, name in COLUMNS.items()}


def ints(*values):
    return np.array(values, np.int64)


def real(*shape):
    return np.ones(shape, np.float32)


def of(body, x="1,4,4,4", made="float[b,c,m,n] y", other="", **constants):
    return f"g (float[{x}] x{other}) => ({made}) {{ {body} }}", constants


def conv(attributes="group = 1", *weight, op="Conv", **more):
    return of(f"y = {op} <{attributes}> (x, w)", w=real(*(weight or (8, 4, 3, 3))), **more)


def unary(op, attributes=""):
    return of(f"y = {op} {attributes} (x)")


def binary(op):
    return of(f"y = {op} (x, x2)", other=", float[1,4,4,4] x2")


def resize(mode):
    how = f'mode = "{mode}", coordinate_transformation_mode = "half_pixel", nearest_mode = "round_prefer_floor"'
    return of(f"y = Resize <{how}> (x, , s)", s=np.float32([1, 1, 2, 2]))


def reduction(op):
    return of(f"y = {op} (x, a)", a=ints(2, 3))


WINDOW = "<kernel_shape = [2,2], strides = [2,2]>"
NORM = dict.fromkeys("abcd", real(4))
VECTOR = {"x": "1,4", "made": "float[m,n] y"}
FORMS = {
    "Conv (group 1)": conv(),
    "Conv (depthwise)": conv("group = 4", 4, 1, 3, 3),
    "Conv (other groups)": conv("group = 2", 8, 2, 3, 3),
    "Conv dilated": conv("dilations = [2,2], pads = [2,2,2,2]"),
    "Conv dilated depthwise": conv("group = 4, dilations = [2,2], pads = [2,2,2,2]", 4, 1, 3, 3),
    "ConvTranspose": conv("strides = [2,2]", 4, 8, 3, 3, op="ConvTranspose"),
    "Gemm": of("y = Gemm (x, w)", w=real(4, 3), **VECTOR),
    "MatMul const": of("y = MatMul (x, w)", w=real(4, 3), **VECTOR),
    "MatMul (2 activations)": of("y = MatMul (x, x2)", "1,4,4", "float[b,m,n] y", ", float[1,4,4] x2"),
    "Relu": unary("Relu"),
    "Clip(0,6)": of("y = Clip (x, l, h)", l=np.float32(0), h=np.float32(6)),
    "LeakyRelu": unary("LeakyRelu"),
    "PRelu": of("y = PRelu (x, s)", s=real(4, 1, 1)),
    "Sigmoid": unary("Sigmoid"),
    "Tanh": unary("Tanh"),
    "HardSwish": unary("HardSwish"),
    "HardSigmoid": unary("HardSigmoid", "<alpha = 0.16666667>"),
    "Elu": unary("Elu"),
    "Gelu": unary("Gelu"),
    "Exp": unary("Exp"),
    "Log": unary("Log"),
    "Sqrt": unary("Sqrt"),
    "Softmax": of("y = Softmax <axis = 1> (x)", **VECTOR),
    "MaxPool": unary("MaxPool", WINDOW),
    "AveragePool": unary("AveragePool", WINDOW),
    "GlobalAveragePool": unary("GlobalAveragePool"),
    "ReduceMean": reduction("ReduceMean"),
    "ReduceMax": reduction("ReduceMax"),
    **{op: binary(op) for op in ("Add", "Mul", "Sub", "Div", "Max", "Min")},
    "Pow": of("y = Pow (x, e)", e=np.float32(2)),
    "Concat": of("y = Concat <axis = 1> (x, x2)", other=", float[1,4,4,4] x2"),
    "Split": of("y, z = Split <axis = 1, num_outputs = 2> (x)"),
    "Slice": of("y = Slice (x, a, b, c, d)", a=ints(0), b=ints(2), c=ints(2), d=ints(1)),
    "Pad": of("y = Pad (x, p)", p=ints(0, 0, 1, 1, 0, 0, 1, 1)),
    "Reshape": of("y = Reshape (x, s)", s=ints(1, 8, 2, 4)),
    "Flatten": of("y = Flatten (x)", made="float[m,n] y"),
    "Transpose": unary("Transpose", "<perm = [0,2,3,1]>"),
    "Resize nearest": resize("nearest"),
    "Resize linear": resize("linear"),
    "DepthToSpace": unary("DepthToSpace", "<blocksize = 2>"),
    "SpaceToDepth": unary("SpaceToDepth", "<blocksize = 2>"),
    "Gather": of("y = Gather <axis = 1> (x, i)", i=ints(0, 1)),
    "ArgMax": of("y = ArgMax <axis = 1> (x)", made="int64[b,c,m,n] y"),
    "TopK": of("y, i = TopK (x, k)", made="float[b,c,m,n] y, int64[b,c,m,n] i", k=ints(2)),
    "LayerNormalization": of("y = LayerNormalization (x, s)", s=real(4)),
    "BatchNormalization": of("y = BatchNormalization (x, a, b, c, d)", **NORM),
    "LSTM": of("y = LSTM <hidden_size = 3> (x, w, r)", "5,1,4", "float[s,d,b,h] y", w=real(1, 12, 4), r=real(1, 12, 3)),
    "Where": of("y = Where (c, x, x2)", other=", bool[1,4,4,4] c, float[1,4,4,4] x2"),
    "Cast": of("y = Cast <to = 1> (x)"),
    "NonMaxSuppression": of("y = NonMaxSuppression (x, s)", "1,4,4", "int64[m,n] y", ", float[1,2,4] s"),
}

MATRIX = """
Conv (group 1)         | C   | C | C | C | C | C   | C   | C   | C | C
Conv (depthwise)       | C   | C | C | ? | ? | C   | C   | C   | C | C
Conv (other groups)    | N   | C | N | ? | N | C   | C   | C   | C | N
Conv dilated           | C   | C | N | ? | C | C   | C   | C   | C | C
Conv dilated depthwise | C   | C | C | ? | ? | C   | C   | C   | C | C
ConvTranspose          | C   | C | C | ? | N | C   | C   | C   | C | N
Gemm                   | C   | C | Y | C | Y | C   | C   | C   | Y | N
MatMul const           | C   | C | Y | C | Y | C   | C   | C   | Y | N
MatMul (2 activations) | N   | N | N | N | Y | C   | C   | C   | G | N
Relu                   | Y   | Y | Y | Y | Y | Y   | Y   | Y   | Y | Y
Clip(0,6)              | Y   | Y | Y | ? | N | Y   | Y   | Y   | Y | Y
LeakyRelu              | N   | ? | N | ? | N | Y   | Y   | Y   | Y | N
PRelu                  | C   | C | N | ? | N | Y   | Y   | C   | Y | N
Sigmoid                | Y   | Y | Y | Y | N | Y   | Y   | Y   | Y | N
Tanh                   | Y   | Y | Y | Y | N | Y   | Y   | Y   | Y | N
HardSwish              | N   | N | Y | N | N | Y   | Y   | Y   | ? | N
HardSigmoid            | N   | N | N | N | N | f   | f   | Y   | Y | N
Elu                    | N   | N | N | N | N | C   | C   | Y   | Y | N
Gelu                   | N   | N | N | N | N | C   | C   | f   | Y | N
Exp                    | N   | N | N | N | Y | Y   | Y   | cpu | G | N
Log                    | N   | N | N | N | Y | C   | C   | cpu | Y | N
Sqrt                   | N   | N | N | N | Y | N   | N   | cpu | G | N
Softmax                | C   | N | Y | ? | N | C   | C   | C   | G | N
MaxPool                | C   | C | Y | C | C | C   | C   | C   | Y | C
AveragePool            | C   | C | C | C | C | C   | C   | C   | Y | C
GlobalAveragePool      | C   | f | C | C | Y | C   | C   | C   | Y | C
ReduceMean             | C   | f | Y | N | N | C   | C   | cpu | G | N
ReduceMax              | C   | N | N | N | N | C   | C   | cpu | G | N
Add                    | Y   | C | Y | C | Y | Y   | Y   | Y   | Y | C
Mul                    | Y   | C | Y | C | Y | Y   | Y   | Y   | G | N
Sub                    | Y   | C | Y | C | Y | Y   | Y   | Y   | Y | N
Div                    | N   | N | N | N | Y | N   | N   | 16  | G | N
Max                    | Y   | C | Y | C | N | C   | C   | Y   | G | N
Min                    | Y   | C | Y | N | N | C   | C   | Y   | G | N
Pow                    | N   | N | N | N | N | N   | N   | C   | G | N
Concat                 | C   | C | Y | Y | N | Y   | Y   | Y   | Y | C
Split                  | C   | f | Y | Y | N | C   | C   | Y   | Y | N
Slice                  | C   | C | Y | ? | N | C   | C   | C   | Y | N
Pad                    | C   | N | C | ? | N | C   | C   | C   | Y | N
Reshape                | C   | Y | Y | Y | Y | Y   | Y   | Y   | Y | N
Flatten                | C   | N | Y | Y | Y | Y   | Y   | f   | Y | N
Transpose              | C   | C | Y | ? | Y | C   | C   | C   | Y | N
Resize nearest         | C   | C | Y | C | N | C   | C   | C   | G | C
Resize linear          | C   | C | C | C | N | C   | C   | C   | G | N
DepthToSpace           | N   | f | Y | ? | N | N   | N   | cpu | Y | N
SpaceToDepth           | Y   | f | Y | C | N | N   | N   | cpu | Y | N
Gather                 | N   | f | N | N | N | N   | N   | C   | G | N
ArgMax                 | N   | N | Y | N | N | C   | C   | cpu | G | N
TopK                   | N   | N | N | N | N | N   | N   | cpu | ? | N
LayerNormalization     | N   | N | N | N | N | N   | N   | 16  | G | N
BatchNormalization     | N   | Y | N | Y | Y | f   | f   | Y   | G | N
LSTM                   | C   | f | N | N | N | C   | C   | 16  | Y | N
Where                  | N   | f | N | N | N | N   | N   | Y   | G | N
Cast                   | N   | N | N | N | Y | N   | N   | cpu | G | N
NonMaxSuppression      | N   | N | N | N | N | N   | N   | N   | N | N
"""


def rows():
    for line in MATRIX.strip().splitlines():
        name, *cells = (cell.strip() for cell in line.split("|"))
        yield name, dict(zip(COLUMNS, cells, strict=True))


MISFITS = {
    ("Conv (other groups)", "ETPU"): "group_one_or_depthwise",
    ("Conv (other groups)", "HVX"): "group_one_or_depthwise",
    ("Conv (other groups)", "NNIE"): "group_one",
    ("Conv (other groups)", "ASC"): "group_one",
    ("Conv (other groups)", "HYP"): "group_one_or_depthwise",
    ("Conv (depthwise)", "NNIE"): "group_one",
    ("Conv (depthwise)", "ASC"): "group_one",
    ("Conv dilated", "HVX"): "max_dilation",
    ("Conv dilated", "NNIE"): "max_dilation",
    ("Conv dilated depthwise", "NNIE"): "group_one",
    ("Conv dilated depthwise", "ASC"): "group_one",
    **{("MatMul (2 activations)", chip): "constant_operands" for chip in ("ETPU", "DLA", "HVX", "NNIE", "STM")},
    ("Resize linear", "HYP"): "resize_nearest",
}
"""Which rule answers where the chip has the operator, but not in this form; elsewhere it has no such operator."""


def test_every_form_is_in_the_matrix():
    assert [name for name, _ in rows()] == list(FORMS)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_taken_where_the_matrix_says(name):
    text, constants = FORMS[name]
    seen = graph(text, opset=20, **constants).nodes[0]
    for chip, cell in dict(rows())[name].items():
        profile = PROFILES[chip]
        rules = [v.rule for v in violations(seen, profile)]
        if cell not in TAKEN:
            assert MISFITS.get((name, chip), "operator") in rules, (chip, cell, rules)
        else:
            assert rules == [], (chip, cell)
            assert profile.operators[seen.op].rules or cell == "Y" or chip not in PROMISED or (chip, seen.op) in UNRULED
