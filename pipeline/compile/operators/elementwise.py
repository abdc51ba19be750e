"""Sums, products, extremes, clamps, PReLU and Softmax."""

import math

import numpy as np

from pipeline.compile.fold import add_parameters, clamp_bounds, fold, scale
from pipeline.compile.operators.lowering import Lowering, Made
from pipeline.errors import ModelError
from runtime.npu.requantize import quantize_factor
from runtime.npu.rules.elementwise import SOFTMAX_OUTPUT
from runtime.tensors import TensorSpec


def add(op: Lowering) -> list[Made]:
    """Add and Sub."""
    made, (first, second) = op.operands()
    attributes, constants = add_parameters(op.node, (first, second), op.spec(op.output), op.contract)
    inputs = first.name, second.name
    return [*made, Made(op.instruction(op.node.op.lower(), attributes, constants, inputs=inputs))]


def mul(op: Lowering) -> list[Made]:
    """Mul."""
    made, specs = op.operands()
    factor = op.contract.ratio(tuple(s.scale or 0.0 for s in specs), scale(op.output))
    inputs = tuple(s.name for s in specs)
    return [*made, Made(op.instruction("mul", {}, fold(op.node, (factor,), op.contract), inputs=inputs))]


def extreme(op: Lowering) -> list[Made]:
    """Max and Min of two or more tensors, in the output's quantization: one instruction for each pair."""
    made, specs = op.operands(like=op.output)
    opcode = {"Max": "maximum", "Min": "minimum"}[op.node.op]
    left, output = specs[0], op.spec(op.output)
    for index, right in enumerate(specs[1:], 1):
        last = index == len(specs) - 1
        shape = np.broadcast_shapes(left.shape, right.shape)
        name = output.name if last else f"{op.node.name} of {index + 1}"
        between = None if last else TensorSpec(name, shape, output.dtype, output.scale, output.zero_point)
        inputs = left.name, right.name
        made.append(Made(op.instruction(opcode, clamp=False, inputs=inputs, output=name), between))
        left = left if between is None else between
    return made


def clamp(op: Lowering) -> list[Made]:
    """A Relu or Clip on its own; the factor is float32, as TFLite's RELU has it (numerics section 3.1)."""
    factor = float(np.float32(scale(op.source)) / np.float32(scale(op.output)))
    low, high = clamp_bounds(op.node, op.output, op.contract.limits)
    return op.one("requantize", {"act_min": low, "act_max": high}, fold(op.node, (factor,), op.contract), clamp=False)


def requantize(op: Lowering) -> list[Made]:
    """QuantizeLinear of a quantized tensor: to another scale, zero point or type."""
    factor = op.contract.ratio((scale(op.source),), scale(op.output))
    return op.one("requantize", {}, fold(op.node, (factor,), op.contract))


def prelu(op: Lowering) -> list[Made]:
    """PRelu; source of both factors: ``activations.cc`` and ``prelu_common.cc`` of TensorFlow Lite (Micro)."""
    made, (first, slope) = op.operands()
    result = scale(op.output)
    factors = (
        op.contract.ratio((first.scale or 0.0,), result),
        op.contract.ratio((first.scale or 0.0, slope.scale or 0.0), result),
    )
    inputs = first.name, slope.name
    return [*made, Made(op.instruction("prelu", {}, fold(op.node, factors, op.contract), inputs=inputs))]


def softmax(op: Lowering) -> list[Made]:
    """Softmax into its fixed output, then a requantization where the graph has another one.

    Source: ``SoftmaxParams`` preparation of TensorFlow Lite (``PreprocessSoftmaxScaling``, ``CalculateInputRadius``).
    """
    rank = len(op.source.dims)
    factor = min(float(np.float64(scale(op.source)) * 2.0**26), 2.0**31 - 1)
    if factor <= 1:
        raise ModelError(f"its input's scale {scale(op.source):g} is too small", where=op.node.name)
    multiplier, shift = quantize_factor(factor, 31) if factor < 2.0**30 else (_large(factor), 31)
    diff_min = -math.floor(31 * 2.0**26 / 2.0**shift)
    constants = {"multiplier": np.array([multiplier], np.int32), "shift": np.array([shift], np.int32)}
    attributes = {"axis": op.node.int("axis", -1) % rank, "diff_min": diff_min}
    output = op.spec(op.output)
    fixed = TensorSpec(f"{output.name} fixed", output.shape, output.dtype, SOFTMAX_OUTPUT[0], op.contract.limits[0])
    if (output.scale, output.zero_point) == (fixed.scale, fixed.zero_point):
        return op.one("softmax", attributes, constants, clamp=False)
    first = op.instruction("softmax", attributes, constants, clamp=False, output=fixed.name)
    rescale = fold(op.node, (op.contract.ratio((fixed.scale or 0.0,), scale(op.output)),), op.contract)
    return [Made(first, fixed), Made(op.instruction("requantize", {}, rescale, inputs=(fixed.name,)))]


def _large(factor: float) -> int:
    """The multiplier of a factor in [2**30, 2**31)."""
    return math.floor(factor + 0.5)
