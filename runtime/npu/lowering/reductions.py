"""Windows and axes: maxima as they are, sums in float32 where none can pass 2**23, then a proven formula."""

import math
from collections.abc import Callable

import numpy as np

from runtime.npu.kernels import Operation
from runtime.npu.kernels.pooling import averaged, fold_count
from runtime.npu.lowering import formulas
from runtime.npu.lowering.values import Builder, Value
from runtime.npu.requantize import Integers
from runtime.npu.steps import MAX_ACCUMULATOR, CorrectedFormula, Scaling, fit, scaling


def max_pool(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> Value:
    """On the integers; int16, which onnxruntime does not pool, as float32."""
    value, sequence = inputs[0], len(operation.output.shape) == 3
    raw = value.spec.dtype != "int16"
    kernel, strides, pads = (operation.integers(name) for name in ("kernel", "strides", "pads"))
    name = builder.node(
        "MaxPool",
        [builder.raw(value) if raw else builder.centred(value)],
        kernel_shape=kernel[1:] if sequence else kernel,
        strides=strides[1:] if sequence else strides,
        pads=(pads[1], pads[3]) if sequence else pads,
    )
    return Value(operation.output, value.range, name if raw else None, None if raw else name)


def average_pool(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> Value | None:
    """Windows of one size on images, that is, without padding; ``None`` otherwise."""
    value, shape, kernel = inputs[0], operation.output.shape, operation.integers("kernel")
    if any(operation.integers("pads")) or len(shape) != 4:
        return None
    count, zero, limits = np.array(math.prod(kernel)), value.zero, operation.contract.limits

    def rule(acc: Integers) -> Integers:
        return averaged(operation, acc, np.broadcast_to(count, acc.shape)) - zero

    low, high = (count.reshape(1) * end for end in value.range)
    scaled = Scaling(rule, 1 / count.reshape(1), low, high, (limits[0] - zero, limits[1] - zero))
    ones = np.ones((shape[1], 1, *kernel), np.float32)
    strides = operation.integers("strides")

    def add_up(x: str) -> str:
        return builder.node("Conv", [x, builder.constant(ones)], group=shape[1], strides=strides, kernel_shape=kernel)

    return _scaled_sum(builder, operation, value, scaled, add_up)


def reduce_sum(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> Value | None:
    """``mean`` and ``reduce_sum``; ``None`` where a sum may pass float32 or no formula is proven."""
    value, axes = inputs[0], operation.integers("axes")
    count = math.prod(value.spec.shape[axis] for axis in axes)
    multiplier, shift = int(operation.constant("multiplier")[0]), int(operation.constant("shift")[0])
    if operation.instruction.opcode == "mean" and operation.contract.mean == "folded":
        multiplier, shift = fold_count(multiplier, shift, count)
    zero, (least, most) = operation.output_zero(), operation.contract.limits
    low, high = (np.array([count * end]) for end in value.range)
    scaled = scaling(
        operation.contract, (np.array([multiplier]), np.array([shift])), (low, high), (least - zero, most - zero)
    )

    def add_up(x: str) -> str:
        total = builder.node("ReduceSum", [x, builder.constant(np.array(axes, np.int64))], keepdims=1)
        return builder.node("Reshape", [total, builder.constant(np.array(operation.output.shape))])

    return _scaled_sum(builder, operation, value, scaled, add_up)


def _scaled_sum(
    builder: Builder, operation: Operation, value: Value, scaled: Scaling, add_up: Callable[[str], str]
) -> Value | None:
    if max(-int(scaled.low[0]), int(scaled.high[0])) >= MAX_ACCUMULATOR:
        return None
    formula = fit(scaled, images=False)
    if formula is None or isinstance(formula, CorrectedFormula):
        return None
    acc = add_up(builder.centred(value))
    name = formulas.scale(builder, acc, formula, scaled.bounds, ())
    return Value(operation.output, scaled.bounds, centred=name)


def reduce_max(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> Value:
    """On the integers; int16 as float32."""
    return _reduce_extreme(builder, operation, inputs[0], "ReduceMax")


def reduce_min(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> Value:
    """As ``reduce_max``."""
    return _reduce_extreme(builder, operation, inputs[0], "ReduceMin")


def _reduce_extreme(builder: Builder, operation: Operation, value: Value, operator: str) -> Value:
    raw = value.spec.dtype != "int16"
    x = builder.raw(value) if raw else builder.centred(value)
    name = builder.node(operator, [x], axes=operation.integers("axes"), keepdims=1)
    name = builder.node("Reshape", [name, builder.constant(np.array(operation.output.shape))])
    return Value(operation.output, value.range, name if raw else None, None if raw else name)
