"""Kernels that move values and never change them."""

import numpy as np

from runtime.npu.kernels.operation import Int8, Operation


def resize_nearest(operation: Operation, inputs: tuple[Int8, ...]) -> Int8:
    """Pick ``rows`` and ``columns`` of [N, C, H, W]."""
    rows, columns = operation.constant("rows"), operation.constant("columns")
    return np.take(np.take(inputs[0], rows, axis=2), columns, axis=3)


def concat(operation: Operation, inputs: tuple[Int8, ...]) -> Int8:
    """Join along ``axis``."""
    return np.concatenate(inputs, axis=operation.integer("axis"))


def reshape(operation: Operation, inputs: tuple[Int8, ...]) -> Int8:
    """The same values in row-major order under the output's shape."""
    return inputs[0].reshape(operation.output.shape)


def transpose(operation: Operation, inputs: tuple[Int8, ...]) -> Int8:
    """Permute the axes."""
    return np.ascontiguousarray(np.transpose(inputs[0], operation.integers("permutation")))
