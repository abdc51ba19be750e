"""Convolutions, the fully connected layer and the product of matrices: an accumulator per output, then requantized."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.npu.kernels.arithmetic import fits
from runtime.npu.kernels.operation import Operation, Values
from runtime.npu.requantize import INT32_MAX, Integers

Wide = NDArray[np.signedinteger[Any]]

Tap = Callable[[int, int], Wide]
"""What every output sees at a row and column of the kernel."""

INT16 = (-(2**15), 2**15 - 1)


def conv2d(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """``clamp(scale(sum of w * (x - z_x) + bias) + z_y)``; padding counts as zero, that is, as ``z_x``.

    Shapes: input [N, C, H, W], weight [O, C/group, kh, kw], output [N, O, Ho, Wo]; or [N, C, L] and [N, O, Lo] with
    kh = 1.
    """
    weight, (top, left, bottom, right) = _weight(operation), operation.integers("pads")
    centred = _image(operation.centred(inputs[0])).astype(weight.dtype)
    padded = np.pad(centred, ((0, 0), (0, 0), (top, bottom), (left, right)))
    height, columns = _size(operation)
    (stride_y, stride_x), (step_y, step_x) = operation.integers("strides"), operation.integers("dilations")

    def tap(i: int, j: int) -> Wide:
        y, x = i * step_y, j * step_x
        rows = slice(y, y + stride_y * (height - 1) + 1, stride_y)
        return padded[:, :, rows, x : x + stride_x * (columns - 1) + 1 : stride_x]

    group, (batch, channels) = operation.integer("group"), padded.shape[:2]
    outputs, per_group, kernel_height, kernel_width = weight.shape
    by_group = weight.reshape(group, outputs // group, per_group, kernel_height, kernel_width)
    if operation.contract.accumulator_bits == 16:
        return _finish_saturated(operation, by_group, tap, (batch, group, channels // group, height, columns))
    sums = np.zeros((batch, group, outputs // group, height, columns), weight.dtype)
    for i in range(kernel_height):
        for j in range(kernel_width):
            grouped = tap(i, j).reshape(batch, group, channels // group, height, columns)
            sums += np.einsum("goi,ngihw->ngohw", by_group[..., i, j], grouped)
    return _finish(operation, sums.reshape(batch, outputs, height, columns).astype(np.int64))


def conv_transpose2d(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """The same with every input value spread over a window of the output: ``y[s * i + d * k - pad] += w[k] * x[i]``.

    Shapes as ``conv2d``; the weight is output channels first.
    """
    weight, group = _weight(operation), operation.integer("group")
    x = _image(operation.centred(inputs[0])).astype(weight.dtype)
    (batch, channels, height, width), (outputs, per_group, *kernel) = x.shape, weight.shape
    strides, dilations = operation.integers("strides"), operation.integers("dilations")
    grown = [(x.shape[2 + i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 for i in (0, 1)]
    pads, result = operation.integers("pads"), _size(operation)
    room = [max(grown[i], pads[i] + result[i]) for i in (0, 1)]
    sums = np.zeros((batch, outputs, *room), weight.dtype)
    by_group = weight.reshape(group, outputs // group, per_group, *kernel)
    grouped = x.reshape(batch, group, channels // group, height, width)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            part = np.einsum("goi,ngihw->ngohw", by_group[..., i, j], grouped)
            y, z = i * dilations[0], j * dilations[1]
            rows = slice(y, y + strides[0] * (height - 1) + 1, strides[0])
            columns = slice(z, z + strides[1] * (width - 1) + 1, strides[1])
            sums[:, :, rows, columns] += part.reshape(batch, outputs, height, width)
    cropped = sums[:, :, pads[0] : pads[0] + result[0], pads[1] : pads[1] + result[1]]
    return _finish(operation, cropped.astype(np.int64))


def fully_connected(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """The same over the last axis: input [..., K], weight [O, K], output [..., O]."""
    weight = _weight(operation)
    centred = operation.centred(inputs[0]).astype(weight.dtype)
    if operation.contract.accumulator_bits == 16:
        rows = centred.reshape(-1, centred.shape[-1])
        by_group = weight[None, :, :, None, None]
        return _finish_saturated(
            operation, by_group, lambda i, j: rows[:, :, None, None], (len(rows), 1, rows.shape[1], 1, 1)
        )
    acc = np.einsum("ok,...k->...o", weight, centred).astype(np.int64)
    return _finish(operation, acc)


def matmul(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """``clamp(scale(sum over k of (a - z_a) * (b - z_b)) + z_y)`` of two activations; batches broadcast."""
    acc = np.matmul(operation.centred(inputs[0], 0), operation.centred(inputs[1], 1))
    return operation.rescaled(fits(acc, operation, "the accumulator"))


def _image(x: Integers) -> Integers:
    """[N, C, H, W]; a sequence [N, C, L] becomes one row high."""
    return x[:, :, None, :] if x.ndim == 3 else x


def _size(operation: Operation) -> tuple[int, int]:
    """Rows and columns of the output."""
    shape = operation.output.shape
    return (1, shape[2]) if len(shape) == 3 else (shape[2], shape[3])


def _weight(operation: Operation) -> Wide:
    """The weight, in int32 where no sum of products can leave it, else in int64."""
    weight = operation.constant("weight")
    low, high = operation.contract.limits
    largest = int(np.abs(weight).reshape(weight.shape[0], -1).sum(axis=1).max()) * (high - low)
    return weight.astype(np.int32) if largest <= INT32_MAX else weight


def _finish(operation: Operation, acc: Integers) -> Values:
    """Bias, requantization per channel, zero point and clamp, in the output's shape.

    ``acc`` is [N, O, H, W], or [..., O] of a fully connected layer.
    """
    shape = _along(operation, acc.ndim)
    fits(acc, operation, "the accumulator")
    total = fits(acc + operation.constant("bias").reshape(shape), operation, "the accumulator with its bias")
    return _scaled(operation, total, shape)


def _along(operation: Operation, rank: int) -> tuple[int, ...]:
    channels = operation.instruction.constants["bias"].size
    if operation.instruction.opcode == "fully_connected":
        return (channels,)
    return (1, channels, *[1] * (rank - 2))


def _scaled(operation: Operation, total: Integers, shape: tuple[int, ...]) -> Values:
    multiplier, shift = operation.constant("multiplier"), operation.constant("shift")
    scaled = operation.contract.multiply(total, multiplier.reshape(shape), shift.reshape(shape))
    return operation.clamped(scaled).reshape(operation.output.shape)


def _finish_saturated(operation: Operation, by_group: Wide, tap: Tap, shape: tuple[int, ...]) -> Values:
    """As ``_finish`` with an accumulator that saturates to int16 after the bias and after every product.

    ``by_group`` is [group, outputs, inputs, kh, kw]; ``tap(i, j)`` gives what each output sees at that place of the
    kernel; ``shape`` is (batch, group, inputs, rows, columns).
    """
    group, outputs, inputs, height, width = by_group.shape
    bias = operation.constant("bias").reshape(1, group, outputs, 1, 1)
    acc = np.broadcast_to(np.clip(bias, *INT16), (shape[0], group, outputs, *shape[3:]))
    for channel in range(inputs):
        for i in range(height):
            for j in range(width):
                seen = tap(i, j).reshape(shape)[:, :, None, channel]
                acc = np.clip(acc + by_group[None, :, :, channel, i, j, None, None] * seen, *INT16)
    flat = acc.reshape(shape[0], group * outputs, *shape[3:]).astype(np.int64)
    return _scaled(operation, flat, (1, group * outputs, 1, 1))
