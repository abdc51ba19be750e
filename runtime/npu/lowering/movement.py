"""What moves values, in whichever form they are; and the linear resize, in float64."""

from collections.abc import Callable

import numpy as np

from runtime.npu.kernels import Operation
from runtime.npu.kernels.movement import depth_to_space_plan, space_to_depth_plan
from runtime.npu.lowering import formulas
from runtime.npu.lowering.values import Builder, Value
from runtime.npu.rules.movement import RESIZE_ONE
from runtime.npu.steps import Scaling, find_steps, fit_long

Move = Callable[[Builder, Operation, list[str]], str]


def moved(move: Move) -> Callable[[Builder, Operation, tuple[Value, ...]], Value]:
    """The lowering of an opcode that only moves values: on the integers where any input has them."""

    def lower(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> Value:
        raw = any(value.raw is not None for value in inputs)
        names = [builder.raw(value) if raw else builder.centred(value) for value in inputs]
        name = move(builder, operation, names)
        range_ = min(value.range[0] for value in inputs), max(value.range[1] for value in inputs)
        return Value(operation.output, range_, name if raw else None, None if raw else name)

    return lower


def resize_nearest(builder: Builder, operation: Operation, names: list[str]) -> str:
    """Resize where every value is repeated as often, else two Gathers."""
    sizes = operation.inputs[0].shape[2:]
    indices = [operation.constant("rows"), operation.constant("columns")]
    factors = [max(len(index) // size, 1) for index, size in zip(indices, sizes, strict=True)]
    regular = all(
        len(index) == size * factor and bool((index == np.arange(len(index)) // factor).all())
        for index, size, factor in zip(indices, sizes, factors, strict=True)
    )
    if not regular or operation.contract.activations == "int16":
        rows = builder.node("Gather", [names[0], builder.constant(indices[0])], axis=2)
        return builder.node("Gather", [rows, builder.constant(indices[1])], axis=3)
    scales = builder.constant(np.array([1, 1, *factors], np.float32))
    return builder.node(
        "Resize",
        [names[0], "", scales],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def concat(builder: Builder, operation: Operation, names: list[str]) -> str:
    """Concat."""
    return builder.node("Concat", names, axis=operation.integer("axis"))


def reshape(builder: Builder, operation: Operation, names: list[str]) -> str:
    """Reshape."""
    return _reshaped(builder, names[0], operation.output.shape)


def transpose(builder: Builder, operation: Operation, names: list[str]) -> str:
    """Transpose."""
    return builder.node("Transpose", [names[0]], perm=operation.integers("permutation"))


def slice_axes(builder: Builder, operation: Operation, names: list[str]) -> str:
    """Slice; an end before the first value is written as the smallest number, as ONNX counts -1 from the end."""
    starts, steps, counts = operation.integers("starts"), operation.integers("steps"), operation.output.shape
    ends = [start + step * count for start, step, count in zip(starts, steps, counts, strict=True)]
    limits = [starts, [end if end >= 0 else -(2**31) for end in ends], range(len(starts)), steps]
    return builder.node("Slice", [names[0], *(builder.constant(np.array(limit, np.int64)) for limit in limits)])


def pad(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> Value:
    """Pad with the value in the form at hand; int16, which onnxruntime does not pad, as float32."""
    value, fill = inputs[0], operation.integer("value")
    raw = value.spec.dtype != "int16" and value.raw is not None
    filler = builder.level(fill, value.spec.dtype) if raw else builder.single(fill - value.zero)
    pads = builder.constant(np.array(operation.integers("pads"), np.int64))
    name = builder.node("Pad", [builder.raw(value) if raw else builder.centred(value), pads, filler])
    low, high = value.range
    range_ = min(low, fill - value.zero), max(high, fill - value.zero)
    return Value(operation.output, range_, name if raw else None, None if raw else name)


def depth_to_space(builder: Builder, operation: Operation, names: list[str]) -> str:
    """Reshape, Transpose, Reshape."""
    return _permuted(builder, names[0], depth_to_space_plan(operation), operation)


def space_to_depth(builder: Builder, operation: Operation, names: list[str]) -> str:
    """Reshape, Transpose, Reshape."""
    return _permuted(builder, names[0], space_to_depth_plan(operation), operation)


def resize_linear(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> Value | None:
    """Two products of matrices in float64, which holds the sums, then the contract's division by 2**20."""
    value, shape = inputs[0], operation.inputs[0].shape
    zero, limits = value.zero, operation.contract.limits
    reach = (np.array([limits[0] << 20]), np.array([limits[1] << 20]))
    scaled = Scaling(lambda acc: operation.contract.divide(acc, 20), np.array([2.0**-20]), *reach, limits)
    formula = fit_long(scaled, find_steps(scaled))
    if formula is None:
        return None
    rows, columns = (_weights(operation, name, shape[axis]) for name, axis in (("rows", 2), ("columns", 3)))
    real = builder.node("Add", [builder.centred(value), builder.single(zero)]) if zero else builder.centred(value)
    tall = builder.node("MatMul", [builder.constant(rows), builder.cast(real, "float64")])
    acc = builder.node("MatMul", [tall, builder.constant(np.ascontiguousarray(columns.T))])
    whole = formulas.scale_long(builder, acc, formula, limits, ())
    centred = builder.node("Sub", [whole, builder.single(zero)])
    return Value(operation.output, value.range, centred=centred)


def _weights(operation: Operation, name: str, size: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """The interpolation along one axis as a matrix [output, input], in 1/1024."""
    low, high, weight = (operation.constant(f"{name}_{end}") for end in ("low", "high", "weight"))
    matrix = np.zeros((len(low), size))
    np.add.at(matrix, (np.arange(len(low)), low), RESIZE_ONE - weight)
    np.add.at(matrix, (np.arange(len(low)), high), weight)
    return matrix


def _permuted(builder: Builder, name: str, plan: tuple[tuple[int, ...], tuple[int, ...]], operation: Operation) -> str:
    seen = _reshaped(builder, name, plan[0])
    return _reshaped(builder, builder.node("Transpose", [seen], perm=plan[1]), operation.output.shape)


def _reshaped(builder: Builder, name: str, shape: tuple[int, ...]) -> str:
    return builder.node("Reshape", [name, builder.constant(np.array(shape, np.int64))])
