"""Small models of one operator that rules judge."""

import numpy as np
from smallmodels import pair


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


def sliced(step, axis=2, start=0):
    return plain("y = Slice (x, a, b, c, d)", x="2,4,6,6", a=ints(start), b=ints(4), c=ints(axis), d=ints(step))
