"""Convolutions, fully connected layers and products of two activations."""

import numpy as np
from numpy.typing import NDArray

from pipeline.compile.fold import conv_parameters, fold
from pipeline.compile.operators.lowering import Constants, Lowering, Made
from pipeline.compile.windows import pads, rows_and_columns, transposed_pads
from pipeline.errors import ModelError
from runtime.npu.program import Attribute


def conv(op: Lowering) -> list[Made]:
    """Conv, 1-D or 2-D."""
    weight = op.node.required(1)
    kernel = weight.dims[2:]
    integers = _constant(op)
    attributes: dict[str, Attribute] = {
        **_steps(op, len(kernel)),
        "pads": rows_and_columns(pads(op.node, kernel)),
        "group": op.node.int("group", 1),
    }
    return op.one("conv2d", attributes, _parameters(op, _two(integers)))


def conv_transpose(op: Lowering) -> list[Made]:
    """ConvTranspose, 1-D or 2-D; ONNX's weight has input channels first."""
    weight, group = op.node.required(1), op.node.int("group", 1)
    inputs, per_group, *kernel = weight.dims
    grouped = _constant(op).reshape(group, inputs // group, per_group, *kernel)
    swapped = np.ascontiguousarray(np.swapaxes(grouped, 1, 2)).reshape(group * per_group, inputs // group, *kernel)
    attributes: dict[str, Attribute] = {
        **_steps(op, len(kernel)),
        "pads": rows_and_columns(transposed_pads(op.node, kernel)),
        "group": group,
    }
    return op.one("conv_transpose2d", attributes, _parameters(op, _two(swapped)))


def _parameters(op: Lowering, weight: NDArray[np.generic]) -> Constants:
    return conv_parameters(op.node, weight, op.output, op.contract.of("conv2d"))


def _steps(op: Lowering, rank: int) -> dict[str, Attribute]:
    """Strides and dilations of rows and columns."""
    both = {name: op.node.ints(name, (1,) * rank) for name in ("strides", "dilations")}
    return {name: (1,) * (2 - rank) + values for name, values in both.items()}


def _two(weight: NDArray[np.generic]) -> NDArray[np.generic]:
    """A weight with two spatial dimensions; a sequence is an image one row high."""
    return weight[:, :, None] if weight.ndim == 3 else weight


def _constant(op: Lowering) -> NDArray[np.generic]:
    weight = op.node.required(1).constant
    if weight is None:
        raise ModelError("has a computed weight", where=op.node.name)
    return weight


def gemm(op: Lowering) -> list[Made]:
    """Gemm, and MatMul with a constant matrix."""
    values = _constant(op)
    transposed = op.node.op == "Gemm" and op.node.int("transB", 0) == 1
    matrix = values if transposed else np.ascontiguousarray(values.T)
    return op.one("fully_connected", {}, _parameters(op, matrix))


def matmul(op: Lowering) -> list[Made]:
    """MatMul: of a constant matrix as second input a fully connected layer, else of two tensors."""
    second = op.node.required(1)
    if second.constant is not None and second.constant.ndim == 2 and op.source.constant is None:
        return gemm(op)
    made, specs = op.operands()
    factor = op.contract.ratio(tuple(s.scale or 0.0 for s in specs), op.spec(op.output).scale or 1.0)
    inputs = tuple(s.name for s in specs)
    product = op.instruction("matmul", {}, fold(op.node, (factor,), op.contract.of("matmul")), inputs=inputs)
    return [*made, Made(product)]
