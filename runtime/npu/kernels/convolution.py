"""Convolution and the fully connected layer: an int32 accumulator per output, then one requantization per channel."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.npu.contracts import INT32_MAX, Integers, require_int32
from runtime.npu.kernels.operation import Int8, Operation

Wide = NDArray[np.signedinteger[Any]]


def conv2d(operation: Operation, inputs: tuple[Int8, ...]) -> Int8:
    """``clamp(scale(sum of w * (x - z_x) + bias) + z_y)``; padding counts as zero, that is, as ``z_x``.

    Shapes: input [N, C, H, W], weight [O, C/group, kh, kw], output [N, O, Ho, Wo].
    """
    weight = _weight(operation)
    group, (top, left, bottom, right) = operation.integer("group"), operation.integers("pads")
    centred = operation.centred(inputs[0]).astype(weight.dtype)
    padded = np.pad(centred, ((0, 0), (0, 0), (top, bottom), (left, right)))
    batch, channels = padded.shape[:2]
    outputs, per_group, kernel_height, kernel_width = weight.shape
    height, columns = operation.output.shape[2:]
    sums = np.zeros((batch, group, outputs // group, height, columns), weight.dtype)
    by_group = weight.reshape(group, outputs // group, per_group, kernel_height, kernel_width)
    (stride_y, stride_x), (step_y, step_x) = operation.integers("strides"), operation.integers("dilations")
    for i in range(kernel_height):
        for j in range(kernel_width):
            y, x = i * step_y, j * step_x
            rows = slice(y, y + stride_y * (height - 1) + 1, stride_y)
            tap = padded[:, :, rows, x : x + stride_x * (columns - 1) + 1 : stride_x]
            tap = tap.reshape(batch, group, channels // group, height, columns)
            sums += np.einsum("goi,ngihw->ngohw", by_group[..., i, j], tap)
    acc = sums.reshape(batch, outputs, height, columns).astype(np.int64)
    return _finish(operation, acc, (1, outputs, 1, 1))


def fully_connected(operation: Operation, inputs: tuple[Int8, ...]) -> Int8:
    """The same over the last axis: input [..., K], weight [O, K], output [..., O]."""
    weight = _weight(operation)
    centred = operation.centred(inputs[0]).astype(weight.dtype)
    acc = np.einsum("ok,...k->...o", weight, centred).astype(np.int64)
    return _finish(operation, acc, (weight.shape[0],))


def _weight(operation: Operation) -> Wide:
    """The weight, in int32 where no sum of products can leave it, else in int64."""
    weight = operation.constant("weight")
    largest = int(np.abs(weight).reshape(weight.shape[0], -1).sum(axis=1).max()) * 255
    return weight.astype(np.int32) if largest <= INT32_MAX else weight


def _finish(operation: Operation, acc: Integers, shape: tuple[int, ...]) -> Int8:
    require_int32(acc, "the accumulator")
    total = require_int32(acc + operation.constant("bias").reshape(shape), "the accumulator with its bias")
    multiplier, shift = operation.constant("multiplier"), operation.constant("shift")
    return operation.clamped(operation.contract.multiply(total, multiplier.reshape(shape), shift.reshape(shape)))
