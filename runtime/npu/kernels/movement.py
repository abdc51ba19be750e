"""Kernels that move values and never change them."""

import numpy as np

from runtime.npu.kernels.operation import Operation, Values


def constant(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """The same values whatever the input."""
    value: Values = operation.instruction.constants["value"].astype(operation.output.dtype)
    return value


def resize_nearest(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """Pick ``rows`` and ``columns`` of [N, C, H, W]."""
    rows, columns = operation.constant("rows"), operation.constant("columns")
    picked: Values = np.take(np.take(inputs[0], rows, axis=2), columns, axis=3)
    return picked


def concat(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """Join along ``axis``."""
    return np.concatenate(inputs, axis=operation.integer("axis"))


def reshape(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """The same values in row-major order under the output's shape."""
    return inputs[0].reshape(operation.output.shape)


def transpose(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """Permute the axes."""
    return np.ascontiguousarray(np.transpose(inputs[0], operation.integers("permutation")))


def slice_axes(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """Along every axis, as many values as the output has, from ``starts`` on, ``steps`` apart."""
    picked, places = inputs[0], zip(operation.integers("starts"), operation.integers("steps"), strict=True)
    for axis, (start, step) in enumerate(places):
        picked = np.take(picked, start + step * np.arange(operation.output.shape[axis]), axis=axis)
    return picked


def pad(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """``pads`` values before and after every axis, all of them ``value``."""
    pads, rank = operation.integers("pads"), inputs[0].ndim
    around = [(pads[i], pads[i + rank]) for i in range(rank)]
    return np.pad(inputs[0], around, constant_values=operation.integer("value"))


def depth_to_space(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """Channels become blocks; ONNX's mode CRD with ``columns_first``, else DCR (TFLite's)."""
    return permuted(inputs[0], *depth_to_space_plan(operation), operation.output.shape)


def space_to_depth(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """Blocks become channels."""
    return permuted(inputs[0], *space_to_depth_plan(operation), operation.output.shape)


Plan = tuple[tuple[int, ...], tuple[int, ...]]
"""A shape to look at the input in, and the order of its axes in the output."""


def permuted(x: Values, shape: tuple[int, ...], order: tuple[int, ...], result: tuple[int, ...]) -> Values:
    """``x`` seen as ``shape``, its axes in ``order``, seen as ``result``."""
    return np.ascontiguousarray(np.transpose(x.reshape(shape), order)).reshape(result)


def depth_to_space_plan(operation: Operation) -> Plan:
    """How ``depth_to_space`` is a transposition."""
    (batch, channels, height, width), block = operation.inputs[0].shape, operation.integer("block")
    if operation.integer("columns_first"):
        return (batch, channels // block**2, block, block, height, width), (0, 1, 4, 2, 5, 3)
    return (batch, block, block, channels // block**2, height, width), (0, 3, 4, 1, 5, 2)


def space_to_depth_plan(operation: Operation) -> Plan:
    """How ``space_to_depth`` is a transposition."""
    (batch, channels, height, width), block = operation.inputs[0].shape, operation.integer("block")
    return (batch, channels, height // block, block, width // block, block), (0, 3, 5, 1, 2, 4)
