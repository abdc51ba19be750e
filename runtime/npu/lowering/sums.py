"""Two inputs, element by element: float32 sums where that is proven, and tables over all pairs of values."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runtime.errors import ProgramError
from runtime.npu.kernels import Operation
from runtime.npu.lowering import formulas, integer, wide
from runtime.npu.lowering.values import Builder, Value
from runtime.npu.steps import MAX_ACCUMULATOR, fit

_SUM_ERROR = 1.01 * 2.0**-24
"""Relative rounding error of each product and of their sum."""

_NUDGES = sorted(
    ((i * unit, j * unit) for unit in (2.0**-21, 2.0**-19) for i in range(-8, 9) for j in range(-8, 9)),
    key=lambda pair: (min(pair) <= 0, pair[0] != pair[1]),
)
"""Relative to the real slopes. Outward ones first: they put exact ties on the side away from zero, as R1 does."""


def add(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> str | None:
    """``add`` and ``sub``: the centred result's name, or ``None``."""
    if operation.contract.activations == "int16":
        return wide.add(builder, operation, inputs)
    slopes = fit_slopes(operation, inputs)
    shape, names = operation.output.shape, [builder.centred(value) for value in inputs]
    same = all(spec.shape == shape for spec in operation.inputs)
    if slopes is None or len(shape) != 4 or not same:
        return pair_table(builder, operation, inputs)
    zero, (low, high) = operation.output_zero(), operation.bounds()
    channels, bounds = shape[1], (low - zero, high - zero)
    first, second = (np.full(channels, slope, np.float32) for slope in slopes)
    if slopes[0] == slopes[1]:
        return formulas.round_scaled(builder, builder.node("Add", names), first, bounds, shape)
    scaled = [formulas.channelwise(builder, n, s, 0.0) for n, s in zip(names, (first, second), strict=True)]
    return formulas.round_scaled(builder, builder.node("Add", scaled), np.ones_like(first), bounds, shape)


def fit_slopes(operation: Operation, inputs: tuple[Value, ...]) -> tuple[np.float32, np.float32] | None:
    """Slopes for which ``round(a1 * x1 + a2 * x2)`` is the instruction on every pair of values, or ``None``.

    They are looked for within 2**-16 of the real factors, first among the pairs that lie close to a tie.
    """
    rows, columns = (np.arange(value.range[0], value.range[1] + 1) for value in inputs)
    try:
        want = integer.grid(operation, rows, columns) - operation.output_zero()
    except ProgramError:  # some pair leaves int32: the plain kernel reports it if it occurs
        return None
    pairs = np.broadcast_arrays(rows[:, None], columns[None, :])
    low, high = (bound - operation.output_zero() for bound in operation.bounds())
    first, second = integer.sum_factors(operation)

    def proven(a: np.float32, b: np.float32, chosen: NDArray[np.bool_]) -> bool:
        left, right = float(a) * pairs[0][chosen], float(b) * pairs[1][chosen]
        total, level = left + right, want[chosen]
        error = (np.abs(left) + np.abs(right) + np.abs(total)) * _SUM_ERROR
        above = (total - level + 0.5 > error) | (level == low)
        return bool((above & ((level + 0.5 - total > error) | (level == high))).all())

    distance = np.abs(first * pairs[0] + second * pairs[1] - want)
    near, every = distance > 0.5 - 2.0**-8, np.ones(want.shape, bool)
    for i, j in _NUDGES:
        slopes = np.float32(first * (1 + i)), np.float32(second * (1 + j))
        if proven(*slopes, near) and proven(*slopes, every):
            return slopes
    return None


def mul(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> str | None:
    """The product, exact in float32, and a proven formula; else a table: the centred result's name, or ``None``."""
    scaled = integer.two_scaling(operation, inputs, 1)
    fits = max(-int(scaled.low[0]), int(scaled.high[0])) < MAX_ACCUMULATOR
    formula = fit([scaled], images=False) if fits and operation.contract.add != "float32" else None
    if formula is None or operation.contract.activations == "int16":
        return pair_table(builder, operation, inputs)
    acc = builder.node("Mul", [builder.centred(value) for value in inputs])
    return formulas.scale(builder, acc, formula, scaled.bounds, ())


def pair_table(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> str | None:
    """A two-input instruction as a table over all pairs of centred values: the centred result's name, or ``None``."""
    if operation.contract.activations == "int16":
        return wide.mul(builder, operation, inputs) if operation.instruction.opcode == "mul" else None
    rows, columns = (np.arange(value.range[0], value.range[1] + 1) for value in inputs)
    try:
        table = integer.grid(operation, rows, columns) - operation.output_zero()
    except ProgramError:  # some pair leaves int32: the plain kernel reports it if it occurs
        return None
    left = builder.node("Sub", [builder.centred(inputs[0]), builder.single(float(rows[0]))])
    row = builder.node("Mul", [left, builder.single(float(len(columns)))])
    column = builder.node("Sub", [builder.centred(inputs[1]), builder.single(float(columns[0]))])
    return _gather(builder, table.ravel(), builder.node("Add", [row, column]))


def _gather(builder: Builder, table: ArrayLike, index: str) -> str:
    entries = builder.constant(np.asarray(table).astype(np.float32))
    return builder.node("Gather", [entries, builder.cast(index, "int32")], axis=0)
