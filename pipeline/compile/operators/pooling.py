"""Windows and reductions."""

import math
from collections.abc import Mapping

import numpy as np

from pipeline.compile.fold import fold, scale
from pipeline.compile.operators.lowering import Lowering, Made
from pipeline.compile.windows import pool_pads, rows_and_columns
from runtime.npu.program import Attribute
from runtime.tensors import TensorSpec


def max_pool(op: Lowering) -> list[Made]:
    """MaxPool."""
    return op.one("max_pool", _window(op), clamp=False)


def average_pool(op: Lowering) -> list[Made]:
    """AveragePool; where padding is counted, the input is padded first."""
    window = _window(op)
    pads = window["pads"]
    if not (op.node.int("count_include_pad", 0) and isinstance(pads, tuple) and any(pads)):
        return op.one("average_pool", window, clamp=False)
    source = op.spec(op.source)
    top, left, bottom, right = pads
    rank = len(source.shape)
    around = (0, 0, top, left, 0, 0, bottom, right) if rank == 4 else (0, 0, left, 0, 0, right)
    shape = tuple(around[i] + size + around[i + rank] for i, size in enumerate(source.shape))
    name = f"{op.node.name} padded"
    padded = TensorSpec(name, shape, source.dtype, source.scale, source.zero_point)
    first = op.instruction("pad", {"pads": around, "value": source.zero_point or 0}, clamp=False, output=name)
    second = op.instruction("average_pool", {**window, "pads": (0, 0, 0, 0)}, clamp=False, inputs=(name,))
    return [Made(first, padded), Made(second)]


def _window(op: Lowering) -> Mapping[str, Attribute]:
    kernel = op.node.ints("kernel_shape", ())
    flat = (1,) * (2 - len(kernel))
    return {
        "kernel": flat + kernel,
        "strides": flat + op.node.ints("strides", (1,) * len(kernel)),
        "pads": rows_and_columns(pool_pads(op.node, kernel)),
    }


def reduce(op: Lowering) -> list[Made]:
    """ReduceMean, ReduceSum, GlobalAveragePool: the factor holds 1/n where the contract does not fold it itself."""
    axes, result = _axes(op), scale(op.output)
    opcode = "reduce_sum" if op.node.op == "ReduceSum" else "mean"
    if opcode == "mean" and op.contract.mean == "scaled":
        count = math.prod(op.source.dims[axis] for axis in axes)
        single = op.contract.arithmetic.float32_products
        result = float(np.float32(result) * np.float32(count)) if single else result * count
    factor = op.contract.ratio((scale(op.source),), result)
    return op.one(opcode, {"axes": axes}, fold(op.node, (factor,), op.contract), clamp=False)


def reduce_extreme(op: Lowering) -> list[Made]:
    """ReduceMax, ReduceMin, GlobalMaxPool."""
    opcode = "reduce_min" if op.node.op == "ReduceMin" else "reduce_max"
    return op.one(opcode, {"axes": _axes(op)}, clamp=False)


def _axes(op: Lowering) -> tuple[int, ...]:
    rank = len(op.source.dims)
    if op.node.op.startswith("Global"):
        return tuple(range(2, rank))
    given = op.node.input(1)
    axes = op.node.ints("axes", ()) if given is None else tuple(int(a) for a in np.ravel(given.real))
    return tuple(sorted({a % rank for a in axes})) or tuple(range(rank))
