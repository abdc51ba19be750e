"""Run by a Python that has ``tosa-tools``: RESCALE of int32 accumulators to int8 by TOSA's reference model.

``python tosa_rescale.py IN.npz OUT.npy``; the input has ``acc`` [R, N], ``multiplier`` [R], ``shift`` [R] (TOSA's, that
is 31 - e), ``zero`` [R] and ``rounding`` (the name). Each row is a graph of one operator.
"""

import sys

import numpy as np
import serializer.tosa_serializer as ts
import tosa_reference_model
from tosa import Op, RoundingMode
from tosa.DType import DType


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
    outputs, status = tosa_reference_model.run(bytes(graph.serialize()), [acc.astype(np.int32)])
    if "VALID" not in str(status):
        raise SystemExit(f"the reference model says {status}")
    return np.frombuffer(outputs[0].tobytes(), np.int8)


def main():
    """Every row of the input file."""
    given = np.load(sys.argv[1], allow_pickle=False)
    rows = zip(given["acc"], given["multiplier"], given["shift"], given["zero"], strict=True)
    np.save(sys.argv[2], np.stack([rescale(a, int(m), int(s), int(z), str(given["rounding"])) for a, m, s, z in rows]))


main()
