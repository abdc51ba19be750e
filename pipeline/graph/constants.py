"""Constants: what computes them, and values that no device can work with."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator

from pipeline.errors import ModelError

Array = NDArray[Any]

LARGEST = 1 << 24
"""Elements of the largest constant that is computed here, 64 MB of float32; one value repeated takes no memory."""

MOVES = frozenset(
    {
        "Identity",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Transpose",
        "Cast",
        "Concat",
        "Gather",
        "Slice",
        "Expand",
    }
    | {"Add", "Sub", "Mul", "Div", "Mod", "Neg", "Floor", "Ceil", "Sqrt", "Range", "Equal", "Where", "Tile", "Pad"}
)
"""Operators that exporters leave between constants: they compute shapes, and bring weights into form."""

INFINITE_MATTERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "PRelu"})
"""Operators with weights; elsewhere infinity is a mask or a limit that means none."""


def computed(node: ir.Node, inputs: Sequence[Array | None], opset: int) -> Array | None:
    """What ``node`` makes of constants alone; ``None`` when that is not known, or too large."""
    first = inputs[0]
    if node.op_type == "ConstantOfShape" and first is not None:
        given = node.attributes.get("value")
        value = np.zeros(1, np.float32) if given is None else given.as_tensor().numpy()
        return np.broadcast_to(value.reshape(()), tuple(int(d) for d in first))
    if node.op_type in ("Unsqueeze", "Reshape") and first is not None and first.size and not any(first.strides):
        shape = [d for d in node.outputs[0].shape or () if isinstance(d, int)]
        return np.broadcast_to(first.flat[0], shape) if np.prod(shape, dtype=int) == first.size else None
    if node.op_type not in MOVES or len(node.outputs) != 1 or sum(a.size for a in inputs if a is not None) > LARGEST:
        return None
    feeds = {str(v.name): a for v, a in zip(node.inputs, inputs, strict=True) if v is not None and a is not None}
    proto = ir.to_proto(node)
    ends = [onnx.ValueInfoProto(name=name) for name in feeds]
    graph = helper.make_graph([proto], "constant", ends, [onnx.ValueInfoProto(name=proto.output[0])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    result: Array = np.asarray(next(iter(ReferenceEvaluator(model).run(None, feeds))))
    return result


def refuse_nan(name: str, values: Array, readers: Sequence[str], where: object) -> None:
    """Raise ``ModelError`` when a constant holds NaN, or a weight infinity; what it names is the tensor."""
    if values.dtype.kind != "f":
        return
    once = values[tuple(slice(0, 1) if step == 0 else slice(None) for step in values.strides)]
    flat = once.reshape(-1)
    for start in range(0, flat.size, LARGEST):
        part = flat[start : start + LARGEST]
        if np.isfinite(part).all():
            continue
        if np.isnan(part).any():
            raise ModelError(
                f"the constant {name} holds NaN", where=where, fix="the training diverged; export a good epoch"
            )
        if INFINITE_MATTERS.intersection(readers):
            raise ModelError(f"the weight {name} holds infinity", where=where, fix="export it from finite weights")
