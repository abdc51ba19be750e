"""Maximum and average over windows, and the mean over axes."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from runtime.npu.contracts import Integers, require_int32
from runtime.npu.kernels.operation import Int8, Operation


def max_pool(operation: Operation, inputs: tuple[Int8, ...]) -> Int8:
    """The largest value of each window; padding never wins."""
    best = np.full(operation.output.shape, -128, np.int8)
    for tap in _taps(operation, inputs[0], -128):
        best = np.maximum(best, tap.astype(np.int8))
    return best


def average_pool(operation: Operation, inputs: tuple[Int8, ...]) -> Int8:
    """Sum of raw values over the number of taps inside the input, rounded half away from zero."""
    shape = operation.output.shape
    total, count = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for tap in _taps(operation, inputs[0], 0):
        total += tap
    for tap in _taps(operation, np.ones_like(inputs[0]), 0):
        count += tap
    rounded = np.where(total > 0, total + count // 2, total - count // 2)
    return np.clip(np.sign(rounded) * (np.abs(rounded) // count), -128, 127).astype(np.int8)


def mean(operation: Operation, inputs: tuple[Int8, ...]) -> Int8:
    """``clamp(scale(sum(x) - z_x * n) + z_y)`` with 1/n folded into the factor (TFLM ``reduce_common.cc``)."""
    x, axes = inputs[0], operation.integers("axes")
    count = math.prod(x.shape[axis] for axis in axes)
    acc = require_int32(x.sum(axis=axes, dtype=np.int64) - operation.input_zero() * count, "the accumulator")
    multiplier, shift = fold_count(int(operation.constant("multiplier")[0]), int(operation.constant("shift")[0]), count)
    scaled = operation.contract.multiply(acc, multiplier, shift) + operation.output_zero()
    return np.clip(scaled, -128, 127).astype(np.int8).reshape(operation.output.shape)


def fold_count(multiplier: int, shift: int, count: int) -> tuple[int, int]:
    """Multiplier and shift of the factor divided by ``count``."""
    room = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << room) // count, shift - room


def _taps(operation: Operation, x: Int8, fill: int) -> Iterator[Integers]:
    """For every position in the window, the value that each output sees there."""
    (top, left, bottom, right), (height, width) = operation.integers("pads"), operation.output.shape[2:]
    padded: NDArray[np.int64] = np.pad(
        x.astype(np.int64), ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill
    )
    (kernel_height, kernel_width), (stride_y, stride_x) = operation.integers("kernel"), operation.integers("strides")
    for i in range(kernel_height):
        for j in range(kernel_width):
            rows = slice(i, i + stride_y * (height - 1) + 1, stride_y)
            yield padded[:, :, rows, j : j + stride_x * (width - 1) + 1 : stride_x]
