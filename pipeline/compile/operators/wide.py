"""Unary functions and Softmax of int16 activations, as TensorFlow Lite prepares them.

Sources: tensorflow/tflite-micro at 90b983c, ``logistic_common.cc``, ``tanh.cc``, ``softmax_common.cc``, ``common.h``
(``gen_lut``). Other functions have no int16 kernel there.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.compile.fold import fold, scale
from pipeline.compile.operators.lowering import Lowering, Made
from pipeline.errors import ModelError
from runtime.npu.rules.elementwise import LOOKUP_ENTRIES, WIDE_OUTPUT
from runtime.tensors import TensorSpec

Single = NDArray[np.float32]

WIDE_FUNCTIONS = frozenset({"LeakyRelu", "Sigmoid", "Tanh"})
"""Functions that TensorFlow Lite has a kernel of for int16."""

_STEP = 4096 * 3.0
"""Sigmoid and tanh look up their input in 1/12288."""

_SOFTMAX_STEP = 10.0 / 65535.0
"""Softmax looks up differences of logits from -10 to 0 in 65536 steps."""


def sigmoid(op: Lowering) -> list[Made]:
    """Sigmoid and Tanh into their fixed output, then a requantization where the graph has another one."""
    opcode = op.node.op.lower()
    factor, right_shift = input_factor(op.node.name, scale(op.source), doubles=opcode == "tanh")
    return _fixed(op, opcode, {"factor": factor, "right_shift": right_shift}, {})


def input_factor(where: str, step: float, doubles: bool) -> tuple[int, int]:
    """Factor and right shift that bring an input of scale ``step`` to 1/12288.

    1/4096 is exact, and 1/2048 where the kernel ``doubles``; any other scale gets a factor of 15 bits, cut off.

    Raises:
        ModelError: the scale is above 2.67, so that the factor has more bits.
    """
    exact = {1 / 4096: 3, 1 / 2048: 6} if doubles else {1 / 4096: 3}
    if step in exact:
        return exact[step], 0
    factor, right_shift = step * _STEP, 0
    while factor <= 32767.0 / 2.0 and right_shift <= 30:
        factor, right_shift = factor * 2, right_shift + 1
    if not 1 <= int(factor) < 2**15:
        raise ModelError(f"its input's scale {step:g} is beyond its table", where=where, fix="calibrate it again")
    return int(factor), right_shift


def leaky_relu(op: Lowering) -> list[Made]:
    """LeakyRelu as PReLU with the slope 1: the second factor holds ``alpha`` (``leaky_relu_common.cc``, in float32)."""
    alpha, step = np.float32(op.node.attributes.get("alpha", 0.01)), np.float32(scale(op.output))
    source = np.float32(scale(op.source))
    dtype = op.contract.activations
    slope = TensorSpec(f"{op.node.name} slope", (1,), dtype, 1.0, 0)
    value = np.array([-1 if alpha < 0 else 1], dtype)
    factors = float(source / step), float(np.abs(np.float32(source * alpha) / step))
    made = op.instruction("constant", {}, {"value": value}, clamp=False, inputs=(), output=slope.name)
    constants = fold(op.node, factors, op.contract)
    return [
        Made(made, slope),
        Made(op.instruction("prelu", {}, constants, inputs=(op.source.wire, slope.name))),
    ]


def softmax(op: Lowering) -> list[Made]:
    """Softmax into its fixed output, then a requantization where the graph has another one."""
    rank = len(op.source.dims)
    factor = fold(op.node, (float(np.float64(scale(op.source)) / _SOFTMAX_STEP),), op.contract)
    tables = {"exp": lookup_table(np.exp, -10, 0), "reciprocal": lookup_table(_reciprocal, 0, 1)}
    return _fixed(op, "softmax_tables", {"axis": op.node.int("axis", -1) % rank}, {**factor, **tables})


def lookup_table(function: Callable[[Single], Single], low: float, high: float) -> NDArray[np.int16]:
    """``function`` over [``low``, ``high``] in 1/32768, all in float32: 512 samples and the last one's end.

    Each sample is moved against half of what the line to the next one misses the function by in the middle.
    """
    steps = LOOKUP_ENTRIES - 1
    step, one = np.float32((high - low) / steps), np.float32(2**15)
    at = np.float32(low) + np.arange(steps, dtype=np.float32) * step
    sample, following = _away(function(at) * one), function(np.float32(low) + np.arange(1, steps + 1, dtype=np.float32) * step)
    middle = _away(function(at + step / np.float32(2)) * one)
    line = _away((following * one + sample) / np.float32(2))
    moved = sample - _away((line - middle) / np.float32(2))
    last = _away(function(np.array([high], np.float32)) * one)
    return np.clip(np.concatenate([moved, last]), -(2**15), 2**15 - 1).astype(np.int16)


def _reciprocal(x: Single) -> Single:
    """1 / (1 + x)."""
    value: Single = np.float32(1) / (np.float32(1) + x)
    return value


def _away(x: Single) -> Single:
    """To the nearest integer, ties away from zero."""
    whole = np.trunc(x)
    return whole + np.where(np.abs(x - whole) >= np.float32(0.5), np.sign(x), np.float32(0))


def _fixed(op: Lowering, opcode: str, attributes: dict[str, int], constants: dict[str, NDArray[np.generic]]) -> list[Made]:
    output, (step, zero) = op.spec(op.output), WIDE_OUTPUT
    if (output.scale, output.zero_point) == WIDE_OUTPUT:
        return op.one(opcode, attributes, constants, clamp=False)
    fixed = TensorSpec(f"{output.name} fixed", output.shape, output.dtype, step, zero)
    first = op.instruction(opcode, attributes, constants, clamp=False, output=fixed.name)
    rescale = fold(op.node, (op.contract.ratio((step,), scale(op.output)),), op.contract)
    return [Made(first, fixed), Made(op.instruction("requantize", {}, rescale, inputs=(fixed.name,)))]
