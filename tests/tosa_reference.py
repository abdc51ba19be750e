"""Run by a Python that has ``tosa-tools``: operators of TOSA's reference model, each case a graph of one operator.

``python tosa_reference.py rescale IN.npz OUT.npz``: ``acc`` [R, N], ``multiplier`` [R], ``shift`` [R] (TOSA's, that is
31 - e), ``zero`` [R] and ``rounding`` (the name) to ``0`` [R, N], int8.
``python tosa_reference.py average_pool IN.npz OUT.npz``: for each case n ``x{n}`` int8 [N, H, W, C] and ``window{n}``
(kernel, stride, padding at the top, bottom, left and right, zero point) to ``{n}``.
"""

import sys

import numpy as np
import serializer.tosa_serializer as ts
import tosa_reference_model
from tosa import Op, RoundingMode
from tosa.DType import DType


def run(graph, value, shape):
    """The int8 output of a graph for its one input."""
    outputs, status = tosa_reference_model.run(bytes(graph.serialize()), [value])
    if "VALID" not in str(status):
        raise SystemExit(f"the reference model says {status}")
    return np.frombuffer(outputs[0].tobytes(), np.int8).reshape(shape)


def rescale(acc, multiplier, shift, zero, rounding):
    """One row: int32 [N] to int8 [N]."""
    graph = ts.TosaSerializer(".")
    x = graph.addPlaceholder([len(acc)], DType.INT32, None)
    given = [
        graph.addConst([1], DType.INT32, np.array([multiplier], np.int32)),
        graph.addConst([1], DType.INT8, np.array([shift], np.int8)),
        graph.addConst([1], DType.INT32, np.array([0], np.int32)),
        graph.addConst([1], DType.INT8, np.array([zero], np.int8)),
    ]
    y = graph.addOutput([len(acc)], DType.INT8)
    attribute = ts.TosaSerializerAttribute()
    attribute.RescaleAttribute(True, getattr(RoundingMode.RoundingMode, rounding), False, False, False)
    graph.addOperator(Op.Op().RESCALE, [x.name, *(c.name for c in given)], [y.name], attribute)
    return run(graph, acc.astype(np.int32), (len(acc),))


def average_pool(x, window):
    """One image, padding not counted; input and output have one zero point."""
    kernel, stride, pad, zero = window[:2], window[2:4], window[4:8], window[8]
    graph = ts.TosaSerializer(".")
    source = graph.addPlaceholder(list(x.shape), DType.INT8, None)
    zeros = [graph.addConst([1], DType.INT8, np.array([zero], np.int8)) for _ in range(2)]
    sides = [(x.shape[1 + i] + pad[2 * i] + pad[2 * i + 1] - kernel[i]) // stride[i] + 1 for i in (0, 1)]
    shape = [x.shape[0], *sides, x.shape[3]]
    y = graph.addOutput(shape, DType.INT8)
    attribute = ts.TosaSerializerAttribute()
    attribute.AvgPool2dAttribute(kernel, stride, pad, DType.INT32)
    graph.addOperator(Op.Op().AVG_POOL2D, [source.name, *(z.name for z in zeros)], [y.name], attribute)
    return run(graph, x, shape)


def main(what, source, target):
    """Every case of the input file."""
    given = np.load(source, allow_pickle=False)
    if what == "rescale":
        rows = zip(given["acc"], given["multiplier"], given["shift"], given["zero"], strict=True)
        found = [np.stack([rescale(a, int(m), int(s), int(z), str(given["rounding"])) for a, m, s, z in rows])]
    else:
        cases = range(len(given.files) // 2)
        found = [average_pool(given[f"x{n}"], given[f"window{n}"].tolist()) for n in cases]
    np.savez(target, **{str(n): array for n, array in enumerate(found)})


main(*sys.argv[1:])
