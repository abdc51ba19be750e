"""Maximum and average over windows, and reductions over axes."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from runtime.npu.kernels.arithmetic import fits
from runtime.npu.kernels.operation import Operation, Values
from runtime.npu.requantize import Integers, divide_half_up


def max_pool(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """The largest value of each window; padding never wins."""
    lowest = operation.contract.limits[0]
    best = np.full(_shape(operation), lowest, np.int64)
    for tap in _taps(operation, inputs[0], lowest):
        best = np.maximum(best, tap)
    return _result(operation, best)


def average_pool(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """The mean of each window's taps inside the input, in the contract's way."""
    total, count = _window_sums(operation, inputs[0]), window_counts(operation)
    return _result(operation, averaged(operation, total - operation.input_zero() * count, count))


def window_counts(operation: Operation) -> Integers:
    """How many of each window's taps lie inside the input: [1, 1, H, W]."""
    return _window_sums(operation, np.ones((1, 1, *operation.inputs[0].shape[2:]), np.int8))


def averaged(operation: Operation, centred: Integers, count: Integers) -> Integers:
    """The output for sums of ``count`` centred values, before it is clamped; the arrays broadcast."""
    way, zero = operation.contract.average_pool, operation.input_zero()
    if way == "raw":
        total = centred + zero * count
        rounded = np.where(total > 0, total + count // 2, total - count // 2)
        return np.sign(rounded) * (np.abs(rounded) // count)
    if way == "reciprocal":
        return _times_reciprocal(centred, count) + zero
    sizes, where = np.unique(count, return_inverse=True)
    factors = np.array([operation.contract.quantize_multiplier(1 / n) for n in sizes.tolist()], np.int64)
    multiplier, shift = (factors[:, i][where].reshape(count.shape) for i in (0, 1))
    return operation.contract.multiply(centred, multiplier, shift) + zero


def _window_sums(operation: Operation, x: Values) -> Integers:
    total = np.zeros((), np.int64)
    for tap in _taps(operation, x, 0):
        total = total + tap
    return total


def _times_reciprocal(total: Integers, count: Integers) -> Integers:
    """TOSA's ``apply_scale_32(total, reciprocal_scale(count))``, single rounding."""
    exponent = np.frexp(np.maximum(count - 1, 0).astype(np.float64))[1].astype(np.int64)  # 32 - clz32(count - 1)
    multiplier = ((2**30 + 1) << exponent) // count
    return divide_half_up(total * multiplier, 30 + exponent)


def mean(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """``clamp(scale((sum(x) - z_x * n) / n) + z_y)``.

    Where the contract says ``folded``, 1/n goes into the integer factor here (tflite-micro ``reduce_common.cc``);
    otherwise the compiler has put it into the real one.
    """
    acc, count = _sum(operation, inputs[0])
    multiplier, shift = int(operation.constant("multiplier")[0]), int(operation.constant("shift")[0])
    if operation.contract.mean == "folded":
        multiplier, shift = fold_count(multiplier, shift, count)
    return _result(operation, operation.contract.multiply(acc, multiplier, shift) + operation.output_zero())


def reduce_sum(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """``clamp(scale(sum(x) - z_x * n) + z_y)``."""
    return _result(operation, operation.scaled(_sum(operation, inputs[0])[0]) + operation.output_zero())


def reduce_max(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """The largest value along ``axes``."""
    return _result(operation, inputs[0].max(axis=operation.integers("axes")).astype(np.int64))


def reduce_min(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """The smallest value along ``axes``."""
    return _result(operation, inputs[0].min(axis=operation.integers("axes")).astype(np.int64))


def fold_count(multiplier: int, shift: int, count: int) -> tuple[int, int]:
    """Multiplier and shift of the factor divided by ``count``."""
    room = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << room) // count, shift - room


def _sum(operation: Operation, x: Values) -> tuple[Integers, int]:
    """The centred sum along ``axes``, and how many values each has."""
    axes = operation.integers("axes")
    count = math.prod(x.shape[axis] for axis in axes)
    acc = x.sum(axis=axes, dtype=np.int64) - operation.input_zero() * count
    return fits(acc, operation, "the accumulator"), count


def _result(operation: Operation, values: Integers) -> Values:
    clipped: Values = np.clip(values, *operation.contract.limits).astype(operation.output.dtype)
    return clipped.reshape(operation.output.shape)


def _shape(operation: Operation) -> tuple[int, ...]:
    """The output's shape as an image; a sequence is one row high."""
    shape = operation.output.shape
    return (*shape[:2], 1, shape[2]) if len(shape) == 3 else shape


def _taps(operation: Operation, x: Values, fill: int) -> Iterator[Integers]:
    """For every position in the window, the value that each output sees there."""
    (top, left, bottom, right), (height, width) = operation.integers("pads"), _shape(operation)[2:]
    image = x[:, :, None, :] if x.ndim == 3 else x
    padded: NDArray[np.int64] = np.pad(
        image.astype(np.int64), ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill
    )
    (kernel_height, kernel_width), (stride_y, stride_x) = operation.integers("kernel"), operation.integers("strides")
    for i in range(kernel_height):
        for j in range(kernel_width):
            rows = slice(i, i + stride_y * (height - 1) + 1, stride_y)
            yield padded[:, :, rows, j : j + stride_x * (width - 1) + 1 : stride_x]
