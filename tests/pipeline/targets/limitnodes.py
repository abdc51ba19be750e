"""Nodes for tests of limits, made of the nouns directly: shapes may be huge, weights are one value repeated."""

import math
from dataclasses import replace

import numpy as np

from pipeline.graph.nouns import Node, Quantization, Tensor

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "int64", "int4")


def tensor(name, *shape, dtype="float32"):
    return Tensor(name, tuple(shape), dtype)


def weight(name, *shape, value=0.0, dtype=np.float32):
    return Tensor(name, tuple(shape), str(np.dtype(dtype)), np.broadcast_to(dtype(value), shape))


def fixed(name, *values, dtype=np.int64):
    return Tensor(name, (len(values),), str(np.dtype(dtype)), np.array(values, dtype))


def quantized(given, dtype="int8", scale=0.5, zero=0, axis=None):
    """``given`` with one scale, or with one scale for each index along ``axis``."""
    count = () if axis is None else (given.shape[axis],)
    constant = None if given.constant is None else given.constant.astype(dtype if dtype in np.sctypeDict else "int8")
    kind = dtype if dtype in np.sctypeDict else "int8"
    numbers = Quantization(np.full(count, scale, np.float32), np.full(count, zero, kind), axis, f"{given.name}_q")
    made = replace(given, constant=constant, quantization=numbers)
    return made if kind == dtype else replace(made, quantization=_Four(*vars(numbers).values()))


class _Four(Quantization):
    """Stands for a type of four bits, which numpy has not."""

    @property
    def dtype(self):
        return "int4"


def all_quantized(node, dtype="int8", zero=0):
    """``node`` with every activation quantized alike."""

    def one(given):
        return given if given is None or given.constant is not None else quantized(given, dtype, zero=zero)

    return replace(node, inputs=tuple(map(one, node.inputs)), outputs=tuple(map(one, node.outputs)))


def window(op, when=None, x=(1, 8, 16, 16), k=(3, 3), s=(1, 1), p=(0, 0, 0, 0), d=(1, 1), m=8, group=None, **more):
    """A convolution or pool, its input enlarged until the kernel fits; the output follows ONNX's formulas."""
    spans = [(a - 1) * b + 1 for a, b in zip(k, d, strict=True)]
    sizes = [max(n, span) for n, span in zip(x[2:], spans, strict=True)]
    channels = x[1]
    if group is None:
        group = {"depthwise": channels, "grouped": 2}.get(when, 1)
    m = channels if when == "depthwise" else m
    pads = list(zip(p[:2], p[2:], strict=True))
    if op == "ConvTranspose":
        made = [(n - 1) * b + c - sum(e) for n, b, c, e in zip(sizes, s, spans, pads, strict=True)]
        w = weight("w", channels, m // group, *k)
    else:
        made = [(n + sum(e) - c) // b + 1 for n, b, c, e in zip(sizes, s, spans, pads, strict=True)]
        w = weight("w", m, channels // group, *k)
    attributes = {"strides": s, "pads": p, "dilations": d, **more}
    source = tensor("x", x[0], channels, *sizes)
    if op.startswith("Conv"):
        result = tensor("y", x[0], m, *made)
        return Node("n", op, "", (source, w), (result,), {**attributes, "group": group})
    if op.startswith("Global"):
        return Node("n", op, "", (source,), (tensor("y", x[0], channels, 1, 1),), more)
    attributes |= {"kernel_shape": k} | ({"count_include_pad": 1} if op == "AveragePool" else {})
    return Node("n", op, "", (source,), (tensor("y", x[0], channels, *made),), {**attributes, **more})


def product(op, when=None, rows=1, inner=8, columns=8, **more):
    """A Gemm or MatMul."""
    second = tensor("w", inner, columns) if when == "computed" else weight("w", inner, columns)
    made = tensor("y", rows, columns)
    return Node("n", op, "", (tensor("x", rows, inner), second), (made,), more)


def same(op, *shape, **attributes):
    """An operator whose output has the shape of its input."""
    return Node("n", op, "", (tensor("x", *shape),), (tensor("y", *shape),), attributes)


def joined(first=(1, 8, 4, 4), second=(1, 8, 4, 4), axis=1, constant=None, count=2):
    tensors = [tensor("a", *first), *(tensor(f"b{i}", *second) for i in range(count - 1))]
    if constant is not None:
        tensors[1] = weight("b", *second, value=constant)
    shape = list(first)
    shape[axis] = sum(t.shape[axis] for t in tensors)
    return Node("n", "Concat", "", tuple(tensors), (tensor("y", *shape),), {"axis": axis})


def two(op, first=(1, 8, 4, 4), second=(1, 8, 4, 4)):
    return Node("n", op, "", (tensor("a", *first), tensor("b", *second)), (tensor("y", *first),))


def reduction(op, axes=(2, 3), shape=(1, 8, 4, 4)):
    made = [1 if i in axes else d for i, d in enumerate(shape)]
    return Node("n", op, "", (tensor("x", *shape), fixed("a", *axes)), (tensor("y", *made),))


def moved(op, source, result, *parameters, **attributes):
    return Node("n", op, "", (tensor("x", *source), *parameters), (tensor("y", *result),), attributes)


def cut(axis=2, step=1, start=0, source=(1, 8, 4, 4)):
    length = len(range(source[axis])[start::step])
    result = [length if i == axis else d for i, d in enumerate(source)]
    parameters = [fixed(n, v) for n, v in (("start", start), ("end", 99), ("axis", axis), ("step", step))]
    return moved("Slice", source, result, *parameters)


def padded(mode="constant", shape=(1, 8, 4, 4), value=0.0, batch=0):
    result = (shape[0] + batch, shape[1], shape[2] + 2, shape[3] + 2)
    pads = fixed("p", batch, 0, 1, 1, 0, 0, 1, 1)
    return moved("Pad", shape, result, pads, weight("v", 1, value=value), mode=mode)


def resized(by=(2, 2), mode="nearest", source=(1, 8, 4, 4), channels=1, sizes=False, **attributes):
    """A Resize whose mode is spelled as in the profiles: mode, coordinates, rounding."""
    mode, *rest = mode.split()
    rounding = next((w for w in rest if w in ("floor", "ceil", "round_prefer_ceil")), "round_prefer_floor")
    coordinates = next((w for w in rest if w != rounding and not w.startswith("round")), None)
    result = (source[0], source[1] * channels, *(round(n * f) for n, f in zip(source[2:], by, strict=True)))
    how = {"mode": mode, "nearest_mode": rounding, **attributes}
    how |= {"coordinate_transformation_mode": coordinates} if coordinates else {}
    scale = fixed("s", 1, channels, *by, dtype=np.float32)
    given = (None, None, fixed("z", *result)) if sizes else (None, scale)
    return moved("Resize", source, result, *given, **how)


def recurrent(op="LSTM", direction="forward", peepholes=False):
    count = 2 if direction == "bidirectional" else 1
    parameters = [weight("w", count, 12, 4), weight("r", count, 12, 3)]
    parameters += [None, None, None, None, weight("p", count, 9)] if peepholes else []
    return Node(
        "n", op, "", (tensor("x", 5, 1, 4), *parameters), (tensor("y", 5, count, 1, 3),), {"direction": direction}
    )


def argmax(depth):
    source, result = tensor("x", 1, depth, 4, 4), tensor("y", 1, 1, 4, 4, dtype="int64")
    return Node("n", "ArgMax", "", (source,), (result,), {"axis": 1})


MAP = (1, 8, 4, 4)
BASES = {
    "Conv": window,
    "ConvTranspose": window,
    "MaxPool": window,
    "AveragePool": window,
    "GlobalAveragePool": lambda op, when: window(op, x=(1, 8, 4, 4)),
    "GlobalMaxPool": lambda op, when: window(op, x=(1, 8, 4, 4)),
    "Gemm": product,
    "MatMul": product,
    **dict.fromkeys(("Add", "Sub", "Mul", "Max", "Min", "Div"), lambda op, when: two(op)),
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum"), lambda op, when: reduction(op)),
    "ArgMax": lambda op, when: argmax(8),
    "BatchNormalization": lambda op, when: moved(op, MAP, MAP, *(weight(n, 8) for n in "smbv")),
    "Clip": lambda op, when: moved(op, MAP, MAP, weight("low", value=0), weight("high", value=6)),
    "Concat": lambda op, when: joined(),
    "Expand": lambda op, when: moved(op, (1, 8, 1, 1), MAP, fixed("s", *MAP)),
    "Flatten": lambda op, when: moved(op, MAP, (1, 128)),
    "Gather": lambda op, when: moved(op, MAP, (1, 2, 4, 4), fixed("i", 0, 1), axis=1),
    "GRU": lambda op, when: recurrent(op),
    "LSTM": lambda op, when: recurrent(op),
    "HardSigmoid": lambda op, when: same(op, *MAP, alpha=1 / 6, beta=0.5),
    "LRN": lambda op, when: same(op, *MAP, size=5),
    "PRelu": lambda op, when: moved(op, MAP, MAP, weight("s", 8, 1, 1)),
    "Pad": lambda op, when: padded(),
    "Pow": lambda op, when: moved(op, MAP, MAP, weight("e", value=2)),
    "QuantizeLinear": lambda op, when: Node(
        "n", op, "", (quantized(tensor("x", *MAP)), weight("s")), (quantized(tensor("y", *MAP), scale=0.25),)
    ),
    "Reshape": lambda op, when: moved(op, MAP, (1, 8, 2, 8), fixed("s", 1, 8, 2, 8)),
    "Resize": lambda op, when: resized(mode="nearest half_pixel round_prefer_floor"),
    "Slice": lambda op, when: cut(),
    "Softmax": lambda op, when: same(op, 1, 8, axis=1),
    "Split": lambda op, when: split(MAP, 1),
    "Squeeze": lambda op, when: moved(op, (1, 1, 8), (1, 8), fixed("a", 0)),
    "Tile": lambda op, when: moved(op, (1, 8, 1, 1), MAP, fixed("r", 1, 1, 4, 4)),
    "Transpose": lambda op, when: moved(op, (1, 8, 16, 16), (1, 16, 16, 8), perm=(0, 2, 3, 1)),
    "Unsqueeze": lambda op, when: moved(op, (1, 8, 4), (*MAP[:3], 1), fixed("a", 3)),
}


def base(op, when=None):
    """An ordinary ``op`` in the form ``when``."""
    return BASES[op](op, when) if op in BASES else same(op, *MAP)


def shaped(node, *shape):
    """``node`` with all its activations in another shape, whatever that means for it."""

    def one(given):
        return given if given is None or given.constant is not None else replace(given, shape=shape)

    return replace(node, inputs=tuple(map(one, node.inputs)), outputs=tuple(map(one, node.outputs)))


def operand(node, index, made):
    """``node`` with the input ``index`` replaced."""
    inputs = [*node.inputs, *[None] * (index + 1 - len(node.inputs))]
    inputs[index] = made
    return replace(node, inputs=tuple(inputs))


def computed(node):
    """``node`` with its second operand computed at run time."""
    index = next(i for i, t in enumerate(node.inputs) if i and t is not None)
    return operand(node, index, replace(node.inputs[index], constant=None))


def other(types):
    """An integer type that is not among ``types``."""
    return next(kind for kind in INTEGERS if kind not in types)


def last_output(node, scale):
    made = all_quantized(node)
    return replace(made, outputs=(quantized(node.outputs[0], scale=scale),))


def second_input(node, scale):
    return operand(all_quantized(node), 1, quantized(node.inputs[1], scale=scale))


def summed(op, when, total):
    """A Gemm, MatMul or convolution whose absolute int8 weights sum to ``total`` for its only output."""
    inner = total // 127 + 2
    values = np.zeros(inner, np.int8)
    values[: total // 127] = 127
    values[total // 127] = total % 127
    shape = {"Conv": (1, inner, 1, 1), "ConvTranspose": (inner, 1, 1, 1)}.get(op, (inner, 1))
    w = replace(quantized(weight("w", *shape)), constant=values.reshape(shape))
    if op in ("Gemm", "MatMul"):
        return operand(product(op, when, inner=inner, columns=1), 1, w)
    return operand(window(op, when, x=(1, inner, 4, 4), k=(1, 1), m=1, group=1), 1, w)


def axes_of(op, axis):
    """``op`` along ``axis``, of a tensor with at least as many dimensions."""
    shape = MAP if axis < len(MAP) else (*MAP, 2)
    if op == "Concat":
        return joined(shape, shape, axis)
    return split(shape, axis) if op == "Split" else same(op, *shape, axis=axis)


def split(shape, axis):
    half = tuple(d // 2 if i == axis else d for i, d in enumerate(shape))
    sizes = fixed("s", half[axis], shape[axis] - half[axis])
    return Node(
        "n", "Split", "", (tensor("x", *shape), sizes), (tensor("y", *half), tensor("z", *half)), {"axis": axis}
    )


def clip(text):
    low, high = text.split("..")
    limits = [weight(n, value=float(v)) if v else None for n, v in (("low", low), ("high", high))]
    return moved("Clip", MAP, MAP, *limits)


def kernel_of(op, when, size, across=3):
    """Kernels ``size`` high; ``across`` wide."""
    return window(op, when, k=(size, across), x=(1, 8, max(16, size), 16), s=(1, 1))


def even(stride):
    """A kernel that no rule about kernels and strides refuses: at least half the stride where that is large."""
    return (min(7 + stride // 10, 8) if stride <= 17 else math.ceil(stride / 2),) * 2


def box(most):
    """Channels, height and width of the largest tensor of at most ``most`` elements whose dimensions are ordinary."""
    sizes = ((c, h, most // (c * h)) for c in range(64, 512) for h in range(4000, 4100))
    return max((s for s in sizes if s[2] <= 8192), key=math.prod)


def tall_map(op, height):
    return window(op, x=(1, 8, height, 4), k=(1, 1))


def lanes(op, limits, k):
    """A pool for which 2,048 / (width / (16 s) s) is 4: its width is 8,192 when the numbers are those."""
    width = int(limits["size"] * limits["lanes"] / 4)
    if op.startswith("Global"):
        height = k
        return Node("n", op, "", (tensor("x", 1, 8, height, 100 if k == 3 else width),), (tensor("y", 1, 8, 1, 1),))
    return window(op, k=(k, k), x=(1, 8, 16, width))


def line(node):
    source = node.inputs[0]
    return operand(node, 0, replace(source, shape=source.shape[:3]))
