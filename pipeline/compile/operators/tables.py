"""Unary functions as tables of 256 entries, generated at compile time as the contract says.

``float64``: the function of the real value in float64, divided by the output's scale, rounded to the nearest, ties to
even. ``tflite``: TensorFlow Lite's fixed-point kernels for Sigmoid and Tanh (with their fixed outputs), HardSwish and
LeakyRelu, all other functions as ``float64``. Sources: tensorflow/tflite-micro at 90b983c (``logistic.h``, ``tanh.h``,
``hard_swish.h``, ``leaky_relu.h``) and google/gemmlowp at 16e8662.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compile.operators.lowering import Lowering, Made
from pipeline.errors import ModelError
from pipeline.graph.view import Node
from runtime.npu.kernels.softmax import exp_of_negative, reciprocal_of_one_plus, tanh_of_half_logarithm
from runtime.npu.requantize import (
    INT32_MAX,
    Integers,
    divide_half_away,
    multiply_double_rounding,
    multiply_single_rounding,
    quantize_factor,
)

Real = NDArray[np.floating[Any]]

_INT16_MIN, _INT16_MAX = -(2**15), 2**15 - 1


def lookup(op: Lowering) -> list[Made]:
    """A unary function as a table; raises ``ModelError`` where its fixed-point form is not defined."""
    low, high = op.contract.limits
    values = np.arange(low, high + 1, dtype=np.int64)
    generator = FIXED_POINT.get(op.node.op) if op.contract.tables == "tflite" else None
    table = None if generator is None else generator(op, values)
    if table is None:
        source, result = op.spec(op.source), op.spec(op.output)
        real = (values - (source.zero_point or 0)) * float(np.float32(source.scale or 0.0))
        table = np.rint(FUNCTIONS[op.node.op](op.node, real) / (result.scale or 1.0)) + (result.zero_point or 0)
    entries = np.clip(table, low, high).astype(op.contract.activations)
    return op.one("lookup", {}, {"table": entries}, clamp=False)


def _attribute(node: Node, name: str, default: float) -> float:
    return float(node.attributes.get(name, default))  # type: ignore[arg-type]


def _sigmoid(node: Node, x: Real) -> Real:
    value: Real = np.exp(-np.logaddexp(0, -x))
    return value


def _hard_swish(node: Node, x: Real) -> Real:
    value: Real = x * np.clip(x / 6 + 0.5, 0, 1)
    return value


def _hard_sigmoid(node: Node, x: Real) -> Real:
    value: Real = np.clip(_attribute(node, "alpha", 0.2) * x + _attribute(node, "beta", 0.5), 0, 1)
    return value


def _leaky_relu(node: Node, x: Real) -> Real:
    return np.where(x >= 0, x, _attribute(node, "alpha", 0.01) * x)


def _elu(node: Node, x: Real) -> Real:
    return np.where(x >= 0, x, _attribute(node, "alpha", 1.0) * np.expm1(np.minimum(x, 0)))


def _gelu(node: Node, x: Real) -> Real:
    if node.text("approximate", "none") == "tanh":
        return 0.5 * x * (1 + _tanh(node, math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    value: Real = 0.5 * x * (1 + np.array([math.erf(v / math.sqrt(2)) for v in x.tolist()]))
    return value


def _swish(node: Node, x: Real) -> Real:
    return x * _sigmoid(node, _attribute(node, "alpha", 1.0) * x)


def _softplus(node: Node, x: Real) -> Real:
    value: Real = np.logaddexp(0, x)
    return value


def _mish(node: Node, x: Real) -> Real:
    return x * _tanh(node, _softplus(node, x))


def _tanh(node: Node, x: Real) -> Real:
    value: Real = np.tanh(x)
    return value


FUNCTIONS: Mapping[str, Callable[[Node, Real], Real]] = {
    "Elu": _elu,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LeakyRelu": _leaky_relu,
    "Mish": _mish,
    "Sigmoid": _sigmoid,
    "Softplus": _softplus,
    "Swish": _swish,
    "Tanh": _tanh,
}
"""Operator to its function of real values; Swish is also known as SiLU."""


@dataclass(frozen=True)
class _FrontEnd:
    """Input of Sigmoid and Tanh: real values as Q4.27, and where they are beyond its range."""

    scaled: Integers
    below: NDArray[np.bool_]
    above: NDArray[np.bool_]


def _front_end(op: Lowering, values: Integers) -> _FrontEnd:
    """``frexp(s_x * 2**27)`` as factor, without flush; the radius is 15 in units of the input."""
    source = op.spec(op.source)
    fraction, shift = math.frexp(float(source.scale or 0.0) * 2.0**27)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    radius = math.floor(15 * 2.0**27 / 2.0**shift)
    v = values - (source.zero_point or 0)
    inside = np.clip(v, -radius, radius)
    scaled = _scale(op, inside, (2**30, shift + 1) if multiplier == 2**31 else (multiplier, shift))
    return _FrontEnd(scaled, v <= -radius, v >= radius)


def _fixed_sigmoid(op: Lowering, values: Integers) -> Integers | None:
    if not _has_output(op, 1 / 256, 0):
        return None
    front = _front_end(op, values)
    u = front.scaled
    positive = reciprocal_of_one_plus(exp_of_negative(-np.abs(u), 4))
    p = np.select([u > 0, u < 0], [positive, INT32_MAX - positive], 1 << 30)
    level = np.select([front.below, front.above], [0, 255], divide_half_away(p, 23))
    clipped: Integers = np.clip(level, 0, 255)
    return clipped + op.contract.limits[0]


def _fixed_tanh(op: Lowering, values: Integers) -> Integers | None:
    if not _has_output(op, 1 / 128, 128):
        return None
    front = _front_end(op, values)
    u = front.scaled
    positive = tanh_of_half_logarithm(exp_of_negative(-np.abs(u), 5))
    level = divide_half_away(np.sign(u) * positive, 24)
    return np.select([front.below, front.above], [-128, 127], np.clip(level, -128, 127)) + op.contract.limits[0] + 128


def _has_output(op: Lowering, scale: float, zero: int) -> bool:
    """Whether the output has the fixed quantization; ``zero`` counts from the smallest activation."""
    output = op.spec(op.output)
    return output.scale == scale and output.zero_point == op.contract.limits[0] + zero


def _fixed_leaky_relu(op: Lowering, values: Integers) -> Integers:
    source, output = op.spec(op.source), op.spec(op.output)
    alpha, step = np.float32(_attribute(op.node, "alpha", 0.01)), np.float32(output.scale)
    factors = np.float32(source.scale) / step, np.float32(np.float32(source.scale) * alpha) / step
    v = values - (source.zero_point or 0)
    up, down = (_scale(op, v, quantize_factor(abs(float(f)), 31)) for f in factors)
    return np.where(v >= 0, up, int(np.sign(factors[1])) * down) + (output.zero_point or 0)


def _fixed_hard_swish(op: Lowering, values: Integers) -> Integers:
    source, output = op.spec(op.source), op.spec(op.output)
    fine = np.float32(np.float32(source.scale) / np.float32(128))
    out, shift_out = _short_factor(float(np.float32(fine / np.float32(output.scale))))
    relu, shift_relu = _short_factor(float(np.float32(fine / np.float32(3 / 32768))))
    if shift_out > 0:
        raise ModelError(
            f"its output's scale {output.scale:g} is too fine for an input of scale {source.scale:g}",
            where=op.node.name,
            fix="calibrate it with more inputs",
        )
    v = (values - (source.zero_point or 0)) * 128
    product = _high(v, out)
    r = v if shift_relu <= 0 else np.clip(v << (shift_relu - 1), _INT16_MIN, _INT16_MAX)
    r = _high(r, relu)
    if shift_relu > 0:
        r = np.clip(r << 1, _INT16_MIN, _INT16_MAX)
    elif shift_relu < 0:
        r = divide_half_away(r, -shift_relu)
    r = (r + 2**15) >> 1
    mixed = r * product
    truncated = np.sign(mixed) * (np.abs(mixed) >> 15)  # the reference truncates here, on purpose
    return divide_half_away(truncated, -shift_out) + (output.zero_point or 0)


def _scale(op: Lowering, values: Integers, factor: tuple[int, int]) -> Integers:
    """``MultiplyByQuantizedMultiplier`` as the build of the reference has it: 31 bits, one rounding under rule R2."""
    multiply = multiply_single_rounding if op.contract.rule == "r2" else multiply_double_rounding
    return multiply(values, *factor, 31)


def _short_factor(real: float) -> tuple[int, int]:
    """A 16-bit multiplier and the shift."""
    multiplier, shift = quantize_factor(real, 31)
    return (2**15 - 1 if multiplier >= 2**31 - 1 - 2**15 else (multiplier + 2**15) >> 16), shift


def _high(a: Integers, b: int) -> Integers:
    """SRDHM of 16-bit integers."""
    product: Integers = np.minimum((a * b + 2**14) >> 15, _INT16_MAX)
    return product


FIXED_POINT: Mapping[str, Callable[[Lowering, Integers], Integers | None]] = {
    "HardSwish": _fixed_hard_swish,
    "LeakyRelu": _fixed_leaky_relu,
    "Sigmoid": _fixed_sigmoid,
    "Tanh": _fixed_tanh,
}
"""Operator to its fixed-point table, ``None`` where the output is not the fixed one."""
