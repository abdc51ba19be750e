"""Unary functions and Softmax of int16 activations, as TensorFlow Lite prepares them.

Sources: tensorflow/tflite-micro at 90b983c, ``logistic_common.cc``, ``tanh.cc``, ``softmax_common.cc``, ``common.h``
(``gen_lut``). Other functions have no int16 kernel there.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.compile.fold import fold, scale
from pipeline.compile.operators.lowering import Constants, Lowering, Made
from pipeline.errors import ModelError
from pipeline.graph.view import Node
from runtime.npu.program import Attribute
from runtime.npu.rules.elementwise import LOOKUP_ENTRIES, WIDE_OUTPUT
from runtime.tensors import TensorSpec

Single = NDArray[np.float32]

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
    """LeakyRelu as PReLU with the slope 1: the second factor holds ``alpha``, which is above 0.

    Both factors are float64, as tflite-micro's results have them; LiteRT's are float32.
    """
    source, result = scale(op.source), scale(op.output)
    slope = TensorSpec(f"{op.node.name} slope", (1,), op.contract.activations, 1.0, 0)
    value = {"value": np.ones(1, op.contract.activations)}
    first = op.instruction("constant", {}, value, clamp=False, inputs=(), output=slope.name)
    constants = fold(op.node, (source / result, source * leak(op.node) / result), op.contract)
    return [Made(first, slope), Made(op.instruction("prelu", {}, constants, inputs=(op.source.wire, slope.name)))]


def leak(node: Node) -> float:
    """The slope of a LeakyRelu below 0, as float32 has it."""
    return float(np.float32(node.attributes.get("alpha", 0.01)))  # type: ignore[arg-type]


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
    step, one, two = np.float32((high - low) / steps), np.float32(2**15), np.float32(2)
    ends = np.float32(low) + np.arange(steps + 1, dtype=np.float32) * step
    sample, following = _away(function(ends[:-1]) * one), function(ends[1:]) * one
    middle = _away(function(ends[:-1] + step / two) * one)
    moved = sample - _away((_away((following + sample) / two) - middle) / two)
    last = _away(function(np.array([high], np.float32)) * one)
    table: NDArray[np.int16] = np.clip(np.concatenate([moved, last]), -(2**15), 2**15 - 1).astype(np.int16)
    return table


def _reciprocal(x: Single) -> Single:
    """1 / (1 + x)."""
    value: Single = np.float32(1) / (np.float32(1) + x)
    return value


def _away(x: Single) -> Single:
    """To the nearest integer, ties away from zero."""
    whole = np.trunc(x)
    return whole + np.where(np.abs(x - whole) >= np.float32(0.5), np.sign(x), np.float32(0))


def _fixed(op: Lowering, opcode: str, attributes: Mapping[str, Attribute], constants: Constants) -> list[Made]:
    output, (step, zero) = op.spec(op.output), WIDE_OUTPUT
    if (output.scale, output.zero_point) == WIDE_OUTPUT:
        return op.one(opcode, attributes, constants, clamp=False)
    fixed = TensorSpec(f"{output.name} fixed", output.shape, output.dtype, step, zero)
    first = op.instruction(opcode, attributes, constants, clamp=False, output=fixed.name)
    rescale = fold(op.node, (op.contract.ratio((step,), scale(op.output)),), op.contract)
    return [Made(first, fixed), Made(op.instruction("requantize", {}, rescale, inputs=(fixed.name,)))]


FUNCTIONS: Mapping[str, Callable[[Lowering], list[Made]]] = {
    "LeakyRelu": leaky_relu,
    "Sigmoid": sigmoid,
    "Tanh": sigmoid,
}
"""Operator to its lowering; TensorFlow Lite has no other function of int16."""
