"""How each operator becomes an instruction with folded integer parameters; ``LOWERINGS`` is the table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.compile.fold import add_parameters, clamp_bounds, conv_parameters, fold, scale, spec
from pipeline.compile.windows import nearest_indices, pads
from pipeline.errors import ModelError
from pipeline.graph.view import Node, Tensor
from runtime.npu.contracts import Contract
from runtime.npu.program import Attribute, Instruction


@dataclass(frozen=True)
class Lowering:
    """What a lowering function may use.

    Attributes:
        node: the operator.
        output: the tensor it writes: that of its fused clamp when it has one.
        contract: the integer arithmetic to fold for.
        bounds: ``act_min`` and ``act_max`` of that clamp, or the whole int8 range.
    """

    node: Node
    output: Tensor
    contract: Contract
    bounds: tuple[int, int] = (-128, 127)

    def instruction(
        self,
        opcode: str,
        attributes: Mapping[str, Attribute] | None = None,
        constants: Mapping[str, NDArray[np.generic]] | None = None,
        clamp: bool = True,
    ) -> Instruction:
        """An instruction from the node's activations to its output; clamped unless the opcode has no clamp."""
        bounds = {"act_min": self.bounds[0], "act_max": self.bounds[1]} if clamp else {}
        inputs = tuple(t.wire for t in self.node.activations)
        return Instruction(
            opcode, self.node.name, inputs, self.output.wire, {**(attributes or {}), **bounds}, constants or {}
        )


def _conv(op: Lowering) -> Instruction:
    weight = op.node.required(1)
    attributes: dict[str, Attribute] = {
        "strides": op.node.ints("strides", (1, 1)),
        "pads": pads(op.node, weight.dims[2:]),
        "dilations": op.node.ints("dilations", (1, 1)),
        "group": op.node.int("group", 1),
    }
    return op.instruction(
        "conv2d", attributes, conv_parameters(op.node, weight.constant, op.output, weight.quantization, op.contract)
    )


def _gemm(op: Lowering) -> Instruction:
    weight = op.node.required(1)
    values = weight.constant
    if values is None:
        raise ModelError("has a computed weight", where=op.node.name)
    transposed = op.node.op == "Gemm" and op.node.int("transB", 0) == 1
    matrix = values if transposed else np.ascontiguousarray(values.T)
    return op.instruction(
        "fully_connected", {}, conv_parameters(op.node, matrix, op.output, weight.quantization, op.contract)
    )


def _add(op: Lowering) -> Instruction:
    first, second = op.node.activations
    return op.instruction(op.node.op.lower(), *add_parameters(op.node, first, second, op.output, op.contract))


def _mul(op: Lowering) -> Instruction:
    first, second = op.node.activations
    return op.instruction("mul", {}, fold(op.node, (scale(first) * scale(second) / scale(op.output),), op.contract))


def _clamp(op: Lowering) -> Instruction:
    """A Relu or Clip on its own; the factor is float32, as TFLite's RELU has it (numerics section 3.1)."""
    factor = float(np.float32(scale(op.node.required(0))) / np.float32(scale(op.output)))
    low, high = clamp_bounds(op.node, op.output)
    return op.instruction(
        "requantize", {"act_min": low, "act_max": high}, fold(op.node, (factor,), op.contract), clamp=False
    )


def _max_pool(op: Lowering) -> Instruction:
    return op.instruction("max_pool", _window(op.node), clamp=False)


def _average_pool(op: Lowering) -> Instruction:
    return op.instruction("average_pool", _window(op.node), clamp=False)


def _window(node: Node) -> Mapping[str, Attribute]:
    kernel = node.ints("kernel_shape", ())
    return {"kernel": kernel, "strides": node.ints("strides", (1, 1)), "pads": pads(node, kernel)}


def _mean(op: Lowering) -> Instruction:
    source = op.node.required(0)
    rank = len(source.dims)
    axes = tuple(range(2, rank))
    if op.node.op == "ReduceMean":
        given = op.node.input(1)
        axes = op.node.ints("axes", ()) if given is None else tuple(int(a) for a in np.ravel(given.real))
        axes = tuple(sorted({a % rank for a in axes})) or tuple(range(rank))
    return op.instruction(
        "mean", {"axes": axes}, fold(op.node, (scale(source) / scale(op.output),), op.contract), clamp=False
    )


def _lookup(op: Lowering) -> Instruction:
    source, result = spec(op.node.required(0)), spec(op.output)
    real = source.dequantize(np.arange(-128, 128)).astype(np.float64)
    quantized = np.rint(TABLES[op.node.op](real) / scale(op.output)) + (result.zero_point or 0)
    return op.instruction("lookup", {}, {"table": np.clip(quantized, -128, 127).astype(np.int8)}, clamp=False)


def _resize(op: Lowering) -> Instruction:
    rows, columns = nearest_indices(op.node, 2), nearest_indices(op.node, 3)
    return op.instruction("resize_nearest", {}, {"rows": rows, "columns": columns}, clamp=False)


def _concat(op: Lowering) -> Instruction:
    return op.instruction("concat", {"axis": op.node.int("axis", 0) % len(op.output.dims)}, clamp=False)


def _reshape(op: Lowering) -> Instruction:
    return op.instruction("reshape", clamp=False)


def _transpose(op: Lowering) -> Instruction:
    rank = len(op.output.dims)
    return op.instruction("transpose", {"permutation": op.node.ints("perm", tuple(reversed(range(rank))))}, clamp=False)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -x))


def _hard_swish(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * np.clip(x / 6 + 0.5, 0, 1)


TABLES: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "Sigmoid": _sigmoid,
    "Tanh": np.tanh,
    "HardSwish": _hard_swish,
}
"""Unary functions that run as a 256-entry table, generated in float64 and rounded to the nearest, ties to even."""

LOWERINGS: Mapping[str, Callable[[Lowering], Instruction]] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "Clip": _clamp,
    "Concat": _concat,
    "Conv": _conv,
    "Flatten": _reshape,
    "Gemm": _gemm,
    "GlobalAveragePool": _mean,
    "HardSwish": _lookup,
    "Identity": _reshape,
    "MatMul": _gemm,
    "MaxPool": _max_pool,
    "Mul": _mul,
    "ReduceMean": _mean,
    "Relu": _clamp,
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": _lookup,
    "Squeeze": _reshape,
    "Sub": _add,
    "Tanh": _lookup,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
"""ONNX operator to the function that lowers it."""
