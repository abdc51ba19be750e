"""The linear resize: four neighbours, weighted in fixed point."""

import numpy as np

from runtime.npu.kernels.operation import Operation, Values
from runtime.npu.rules.movement import RESIZE_ONE


def resize_linear(operation: Operation, inputs: tuple[Values, ...]) -> Values:
    """Weights of 10 bits, sums of 20, rounded as the contract divides by a power of two.

    ``rows_low``, ``rows_high`` and ``rows_weight`` say for every output row between which input rows it lies and how
    far, in 1/1024, from the first; columns likewise.
    Source: ``resize_bilinear.h`` of tensorflow/tflite-micro at 90b983c.
    """
    x = inputs[0].astype(np.int64)
    for axis, name in ((2, "rows"), (3, "columns")):
        along = tuple(-1 if i == axis else 1 for i in range(4))
        weight = operation.constant(f"{name}_weight").reshape(along)
        low, high = (np.take(x, operation.constant(f"{name}_{end}"), axis=axis) for end in ("low", "high"))
        x = (RESIZE_ONE - weight) * low + weight * high
    rounded: Values = operation.contract.divide(x, 20)
    return np.clip(rounded, *operation.contract.limits).astype(operation.output.dtype)
