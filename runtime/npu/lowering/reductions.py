"""Windows and axes: maxima as they are, sums in float32 where none can pass 2**23, then a proven formula."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from runtime.npu.kernels import Operation
from runtime.npu.kernels.pooling import averaged, fold_count, window_counts
from runtime.npu.lowering import formulas
from runtime.npu.lowering.values import Builder, Value
from runtime.npu.requantize import Integers
from runtime.npu.steps import MAX_ACCUMULATOR, Formula, LongFormula, Scaling, fit, scaling


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
    """Sums of windows, each scaled by how many of its values lie inside the input.

    Where the contract divides raw sums, they are raw before they are scaled: only so do ties round away from zero.
    """
    value, zero, limits = inputs[0], inputs[0].zero, operation.contract.limits
    inside = window_counts(operation)[0, 0]
    counts, where = np.unique(inside, return_inverse=True)
    raw = zero if operation.contract.average_pool == "raw" else 0

    def rule(acc: Integers) -> Integers:
        return averaged(operation, acc - raw * counts[:, None], counts[:, None]) - zero + raw

    reach = tuple(counts * (end + raw) for end in value.range)
    scaled = Scaling(rule, 1 / counts, reach[0], reach[1], (limits[0] - zero + raw, limits[1] - zero + raw))
    formula = _formula(scaled)
    if formula is None:
        return None
    acc, places = _window_sums(builder, operation, builder.centred(value)), where.reshape(inside.shape)
    if raw:
        acc = builder.node("Add", [acc, builder.constant((raw * counts)[places].astype(np.float32))])
    name = formulas.scale(builder, acc, _placed(formula, places), scaled.bounds, places.shape)
    if raw:
        name = builder.node("Sub", [name, builder.single(raw)])
    if len(operation.output.shape) == 3:
        name = builder.node("Reshape", [name, builder.constant(np.array(operation.output.shape))])
    return Value(operation.output, (limits[0] - zero, limits[1] - zero), centred=name)


def _window_sums(builder: Builder, operation: Operation, x: str) -> str:
    """The sums of an image's windows; a sequence becomes an image one row high."""
    shape, kernel = operation.inputs[0].shape, operation.integers("kernel")
    if len(shape) == 3:
        x = builder.node("Reshape", [x, builder.constant(np.array([*shape[:2], 1, shape[2]]))])
    ones = builder.constant(np.ones((shape[1], 1, *kernel), np.float32))
    strides, pads = operation.integers("strides"), operation.integers("pads")
    return builder.node("Conv", [x, ones], group=shape[1], strides=strides, pads=pads, kernel_shape=kernel)


def _placed(formula: Formula, places: NDArray[np.intp]) -> Formula:
    """A formula of each kind of window as one of each place."""
    if isinstance(formula, LongFormula):
        second = None if formula.second is None else formula.second[places]
        return replace(formula, first=formula.first[places], second=second)
    assert isinstance(formula, np.ndarray)  # the others are for images, and for rules that round twice
    return formula[places]


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
    formula = _formula(scaled)
    if formula is None:
        return None
    total = builder.node("ReduceSum", [builder.centred(value), builder.constant(np.array(axes, np.int64))], keepdims=1)
    acc = builder.node("Reshape", [total, builder.constant(np.array(operation.output.shape))])
    return Value(operation.output, scaled.bounds, centred=formulas.scale(builder, acc, formula, scaled.bounds, ()))


def _formula(scaled: Scaling) -> Formula | None:
    """What is proven for sums that float32 holds, in any layout."""
    fits = max(-int(scaled.low.min()), int(scaled.high.max())) < MAX_ACCUMULATOR
    return fit([scaled], images=False) if fits else None


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
