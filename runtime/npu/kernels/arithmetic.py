"""Element by element: sums, products, extremes, PReLU, requantization and the 256-entry table."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runtime.npu.kernels.operation import Operation, Values
from runtime.npu.requantize import Integers, require_bits, require_int32


def add(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """Scale both inputs to a common step, add, scale to the output (three requantizations); shapes broadcast.

    Under a contract with ``add="float32"`` see ``float_sum``.
    """
    if operation.contract.add == "float32":
        return _float_sum(operation, inputs, 1)
    first, second = _prescaled(operation, inputs)
    return _rescaled(operation, first + second)


def sub(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """As ``add``, with the second input subtracted."""
    if operation.contract.add == "float32":
        return _float_sum(operation, inputs, -1)
    first, second = _prescaled(operation, inputs)
    return _rescaled(operation, first - second)


def mul(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """``clamp(scale((x1 - z1) * (x2 - z2)) + z_y)``; shapes broadcast.

    Under a contract with ``add="float32"`` the zero point is added before the rounding, in float32, as ONNX Runtime's
    QLinearMul does on x86-64 (``mlas/lib/qlmul.cpp``).
    """
    product = operation.centred(inputs[0], 0) * operation.centred(inputs[1], 1)
    if operation.contract.add != "float32":
        return operation.rescaled(product)
    factor = float_factors(operation)[0]
    total = np.rint(product.astype(np.float32) * factor + np.float32(operation.output_zero()))
    clipped: Values = np.clip(total, *operation.bounds()).astype(operation.output.dtype)
    return clipped


def maximum(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """The larger value; all tensors have one scale and zero point; shapes broadcast."""
    larger: Values = np.maximum(inputs[0], inputs[1])
    return larger


def minimum(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """The smaller value."""
    smaller: Values = np.minimum(inputs[0], inputs[1])
    return smaller


def prelu(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """``v = x - z_x``: scaled by the first factor where ``v >= 0``, else ``v * (slope - z_s)`` by the second one.

    Source: ``reference/prelu.h`` of tensorflow/tflite-micro at 90b983c.
    """
    v, slope = operation.centred(inputs[0], 0), operation.centred(inputs[1], 1)
    scaled = np.where(v >= 0, operation.scaled(v, 0), operation.scaled(v * slope, 1))
    return operation.clamped(scaled)


def requantize(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """``clamp(scale(x - z_x) + z_y)``."""
    return operation.rescaled(operation.centred(inputs[0]))


def lookup(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """``table[x - smallest activation]``."""
    table = operation.instruction.constants["table"].astype(operation.output.dtype)
    found: Values = np.take(table, inputs[0].astype(np.int16) - operation.contract.limits[0])
    return found


def _prescaled(operation: Operation, inputs: tuple[Values, ...]) -> tuple[Integers, Integers]:
    left_shift = operation.integer("left_shift")
    first, second = (operation.scaled(operation.centred(inputs[i], i) << left_shift, i) for i in (0, 1))
    return first, second


def _rescaled(operation: Operation, total: Integers) -> Values:
    require_int32(total, "the sum of the scaled inputs")
    return operation.clamped(operation.scaled(total, 2))


def _float_sum(operation: Operation, inputs: tuple[Values, ...], sign: int) -> Values:
    first, second = float_factors(operation)
    zeros = operation.input_zero(0), operation.input_zero(1), operation.output_zero()
    total = float_sum(inputs[0], inputs[1], (first, np.float32(sign) * second), zeros)
    clipped: Values = np.clip(total, *operation.bounds()).astype(operation.output.dtype)
    return clipped


def float_factors(operation: Operation) -> NDArray[np.float32]:
    """The real factors of an instruction under a contract whose factors are float32."""
    shift = operation.constant("shift") - operation.contract.multiplier_bits
    return np.ldexp(operation.constant("multiplier").astype(np.float64), shift).astype(np.float32)


def float_sum(x: Values, y: Values, factors: tuple[np.float32, np.float32], zeros: tuple[int, int, int]) -> Integers:
    """``rint(fma(a, x, fma(b, y, c)))`` with ``c = z - fma(a, z_x, b * z_y)``, all float32; shapes broadcast.

    ``factors`` are a and b, that is ``f32(s_i / s)``; ``zeros`` are z_x, z_y and the output's z. Source: onnxruntime's
    QLinearAdd on x86-64 with AVX2 (``mlas/lib/qladd.h``), against which it is tested; other processors round otherwise.
    """
    a, b = factors
    fixed = np.float32(zeros[2]) - _fused(a, zeros[0], b * np.float32(zeros[1]))
    rounded: Integers = np.rint(_fused(a, x, _fused(b, y, fixed))).astype(np.int64)
    return rounded


def _fused(a: np.float32, x: ArrayLike, c: ArrayLike) -> NDArray[np.float32]:
    """``a * x + c`` rounded to float32: the product is exact in float64."""
    total: NDArray[np.float64] = np.float64(a) * np.asarray(x, np.float64) + np.asarray(c, np.float64)
    return total.astype(np.float32)


def fits(values: Integers, operation: Operation, what: str) -> Integers:
    """``values``, which must fit the contract's accumulator; raises ``ProgramError``."""
    return require_bits(values, max(operation.contract.accumulator_bits, 32), what)
