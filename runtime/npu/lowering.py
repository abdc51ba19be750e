"""Lower instructions to onnxruntime operators whose result is the integer result, bit for bit.

Activations are float32 arrays of centred integers ``q - z``, which float32 holds exactly. A convolution of integers
is exact in float32, in any order of summation, while no partial sum can reach 2**23; the weights and the input's range
prove it or the instruction stays with the plain kernel. Requantization follows ``runtime.npu.steps``. On images the
scaling is written as 1x1 depthwise convolutions with a fused Clip, because onnxruntime keeps those in its blocked
layout. What depends on one or two int8 values only, and fits no formula, becomes a table of 256 or 65536 entries.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runtime.errors import ProgramError
from runtime.npu.contracts import Integers
from runtime.npu.kernels import KERNELS, Operation
from runtime.npu.onnx_writer import ELEMENT_TYPES, Graph
from runtime.npu.steps import MAX_ACCUMULATOR, CorrectedFormula, Formula, LongFormula, Scaling, fit, fit_wide

Range = tuple[int, int]

MAGIC = np.float32(1.5 * 2**23)
"""Adding it to a float32 below 2**22 in size rounds that to an integer, ties to even."""

_SUM_ERROR = 1.01 * 2.0**-24
"""Relative rounding error of each product and of their sum."""

_NUDGES = sorted(
    ((i * unit, j * unit) for unit in (2.0**-21, 2.0**-19) for i in range(-8, 9) for j in range(-8, 9)),
    key=lambda pair: (min(pair) <= 0, pair[0] != pair[1]),
)
"""Relative to the real slopes. Outward ones first: they put exact ties on the side away from zero, as the rule does."""


@dataclass(frozen=True)
class Source:
    """An input of an instruction inside the graph: the float32 value's name and its reachable centred range."""

    name: str
    range: Range


Lowering = Callable[[Graph, Operation, tuple[Source, ...]], str | None]


def output_range(operation: Operation, inputs: tuple[Range, ...]) -> Range:
    """Centred values that the output can take."""
    attributes, zero = operation.instruction.attributes, operation.output_zero()
    if "act_min" in attributes:
        return operation.integer("act_min") - zero, operation.integer("act_max") - zero
    if operation.instruction.opcode in _COPIES:
        return min(low for low, _ in inputs), max(high for _, high in inputs)
    return -128 - zero, 127 - zero


def _conv2d(graph: Graph, operation: Operation, inputs: tuple[Source, ...]) -> str | None:
    def convolve(x: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> str:
        return graph.node(
            "Conv",
            [x, graph.constant(weight), *([] if bias is None else [graph.constant(bias)])],
            group=operation.integer("group"),
            strides=operation.integers("strides"),
            pads=operation.integers("pads"),
            dilations=operation.integers("dilations"),
            kernel_shape=weight.shape[2:],
        )

    return _products(graph, operation, inputs[0], convolve)


def _fully_connected(graph: Graph, operation: Operation, inputs: tuple[Source, ...]) -> str | None:
    def multiply(x: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> str:
        product = graph.node("MatMul", [x, graph.constant(weight.T)])
        return product if bias is None else graph.node("Add", [product, graph.constant(bias)])

    return _products(graph, operation, inputs[0], multiply)


Products = Callable[[str, NDArray[np.float32], NDArray[np.float32] | None], str]
"""Append the sums of products of a value with a weight, plus a bias, and give their name."""


def _products(graph: Graph, operation: Operation, source: Source, products: Products) -> str | None:
    """Sums of products with their bias, requantized; ``None`` when nothing is proven exact."""
    weight, bias, rank = operation.constant("weight"), operation.constant("bias"), len(operation.output.shape)
    low, high = _reach(weight, source.range)
    scaling = Scaling(
        operation.contract,
        operation.constant("multiplier"),
        operation.constant("shift"),
        low + bias,
        high + bias,
        _bounds(operation),
    )
    shape = (1, len(weight), 1, 1) if rank == 4 and weight.ndim == 4 else (1,) * (rank - 1) + (len(weight),)
    partial = max(-int((low + np.minimum(bias, 0)).min()), int((high + np.maximum(bias, 0)).max()))
    if partial >= MAX_ACCUMULATOR:
        return _wide_products(graph, operation, source, products, scaling, shape)
    formula = fit(scaling, images=weight.ndim == 4)
    if formula is None:
        return None
    extra = formula.bias if isinstance(formula, CorrectedFormula) else np.float32(0)
    acc = products(source.name, weight.astype(np.float32), bias.astype(np.float32) + extra)
    return _scale(graph, acc, formula, scaling.bounds, shape)


def _wide_products(
    graph: Graph,
    operation: Operation,
    source: Source,
    products: Products,
    scaling: Scaling,
    shape: tuple[int, ...],
) -> str | None:
    """As ``_products`` for sums beyond float32: pieces of the input channels, added up in float64 with the bias."""
    weight, formula = operation.constant("weight"), fit_wide(scaling)
    low, high = _reach(weight, source.range)
    pieces = max(-int(low.min()), int(high.max())) // MAX_ACCUMULATOR + 1
    grouped = operation.instruction.opcode == "conv2d" and operation.integer("group") > 1
    parts = [part for part in np.array_split(np.arange(weight.shape[1]), pieces) if len(part)]
    for part in parts:
        low, high = _reach(weight[:, part], source.range)
        if formula is None or (grouped and pieces > 1) or max(-int(low.min()), int(high.max())) >= MAX_ACCUMULATOR:
            return None
    total = graph.constant(operation.constant("bias").astype(np.float64).reshape(shape))
    for part in parts:
        piece, wanted = source.name, weight[:, part].astype(np.float32)
        if pieces > 1:
            axis = 1 if weight.ndim == 4 else len(shape) - 1
            limits = [graph.constant(np.array([end])) for end in (part[0], part[-1] + 1, axis)]
            piece = graph.node("Slice", [piece, *limits])
        exact = graph.node("Cast", [products(piece, wanted, None)], to=ELEMENT_TYPES["float64"])
        total = graph.node("Add", [exact, total])
    return None if formula is None else _scale_long(graph, total, formula, scaling.bounds, shape)


def _reach(weight: Integers, source: Range) -> tuple[Integers, Integers]:
    """Smallest and largest sum of products per output channel, padding (zero) included."""
    extremes = weight.reshape(len(weight), -1)[..., None] * np.array([min(source[0], 0), max(source[1], 0)])
    return extremes.min(axis=-1).sum(axis=1), extremes.max(axis=-1).sum(axis=1)


def _bounds(operation: Operation) -> Range:
    zero = operation.output_zero()
    return operation.integer("act_min") - zero, operation.integer("act_max") - zero


def _scale(
    graph: Graph,
    acc: str,
    formula: Formula,
    bounds: Range,
    shape: tuple[int, ...],
) -> str:
    """Requantize ``acc``; per-channel constants get ``shape``."""
    if isinstance(formula, CorrectedFormula):
        return _correct(graph, acc, formula, bounds)
    if not isinstance(formula, LongFormula):
        return _round(graph, acc, formula, bounds, shape)
    wide = graph.node("Cast", [acc], to=ELEMENT_TYPES["float64"])
    return _scale_long(graph, wide, formula, bounds, shape)


def _scale_long(graph: Graph, wide: str, formula: LongFormula, bounds: Range, shape: tuple[int, ...]) -> str:
    """See ``LongFormula``; ``wide`` is float64."""
    first = graph.node("Mul", [wide, graph.constant(formula.first.reshape(shape))])
    half = graph.node("Add", [first, graph.constant(np.array(0.5))])
    second = graph.node("Mul", [graph.node("Floor", [half]), graph.constant(formula.second.reshape(shape))])
    narrow = graph.node("Cast", [graph.node("Round", [second])], to=ELEMENT_TYPES["float32"])
    return _clip(graph, narrow, *bounds)


def _round(graph: Graph, acc: str, slope: NDArray[np.float32], bounds: Range, shape: tuple[int, ...]) -> str:
    """``clip(round(slope * acc))``, by way of ``MAGIC``."""
    low, high = MAGIC + np.float32(bounds[0]), MAGIC + np.float32(bounds[1])
    if len(shape) == 4:
        lifted = _clip(graph, _channelwise(graph, acc, slope, MAGIC), low, high)
        return _channelwise(graph, lifted, np.ones_like(slope), -MAGIC)
    product = graph.node("Mul", [acc, graph.constant(slope.reshape(shape))])
    lifted = _clip(graph, graph.node("Add", [product, _scalar(graph, MAGIC)]), low, high)
    return graph.node("Sub", [lifted, _scalar(graph, MAGIC)])


def _correct(graph: Graph, acc: str, formula: CorrectedFormula, bounds: Range) -> str:
    """See ``CorrectedFormula``; ``acc`` has its bias already."""
    shape = (1, len(formula.slope), 1, 1)
    estimate = _round(graph, acc, formula.slope, (bounds[0], bounds[1] - 1), shape)
    rest = graph.node("Add", [_channelwise(graph, estimate, -formula.whole, 0.0), acc])
    distance = graph.node("Add", [_channelwise(graph, estimate, -formula.part, -formula.offset), rest])
    passed = _clip(graph, _channelwise(graph, distance, formula.steepness, 0.5), 0.0, 1.0)
    return graph.node("Add", [estimate, passed])


def _channelwise(graph: Graph, x: str, slope: NDArray[np.float32], offset: ArrayLike) -> str:
    """``slope[c] * x + offset`` (one, or one per channel) on [N, C, H, W], as a 1x1 depthwise convolution."""
    channels = len(slope)
    weight = graph.constant(slope.reshape(channels, 1, 1, 1))
    bias = graph.constant(np.full(channels, offset, np.float32))
    return graph.node("Conv", [x, weight, bias], group=channels, kernel_shape=(1, 1))


def _clip(graph: Graph, x: str, low: float | np.float32, high: float | np.float32) -> str:
    return graph.node("Clip", [x, _scalar(graph, low), _scalar(graph, high)])


def _scalar(graph: Graph, value: float | np.float32) -> str:
    return graph.constant(np.array(value, np.float32))


def _add(graph: Graph, operation: Operation, inputs: tuple[Source, ...]) -> str | None:
    slopes = _fit_sum(operation, inputs)
    shape = operation.output.shape
    same = all(spec.shape == shape for spec in operation.inputs)
    if slopes is None or len(shape) != 4 or not same:
        return _pair_table(graph, operation, inputs)
    channels = shape[1]
    first, second = (np.full(channels, slope, np.float32) for slope in slopes)
    names = [source.name for source in inputs]
    if slopes[0] == slopes[1]:
        return _round(graph, graph.node("Add", names), first, _bounds(operation), shape)
    scaled = [_channelwise(graph, names[0], first, 0.0), _channelwise(graph, names[1], second, 0.0)]
    return _round(graph, graph.node("Add", scaled), np.ones_like(first), _bounds(operation), shape)


def _fit_sum(operation: Operation, inputs: tuple[Source, ...]) -> tuple[np.float32, np.float32] | None:
    """Slopes for which ``round(a1 * x1 + a2 * x2)`` is the instruction on every pair of values, or ``None``.

    They are looked for within 2**-16 of the real factors, first among the pairs that lie close to a tie.
    """
    rows, columns = (np.arange(source.range[0], source.range[1] + 1) for source in inputs)
    want = _grid(operation, rows, columns) - operation.output_zero()
    pairs = np.broadcast_arrays(rows[:, None], columns[None, :])
    low, high = _bounds(operation)
    factor = operation.constant("multiplier") * 2.0 ** (operation.constant("shift") - 31.0)
    scale = factor[2] * 2.0 ** operation.integer("left_shift")
    first = factor[0] * scale
    second = factor[1] * scale * (-1.0 if operation.instruction.opcode == "sub" else 1.0)

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


def _grid(operation: Operation, rows: Integers, columns: Integers) -> Integers:
    """The plain kernel's outputs for every pair of centred values: [rows, columns]."""
    first = (rows + operation.input_zero(0)).astype(np.int8)[:, None]
    second = (columns + operation.input_zero(1)).astype(np.int8)[None, :]
    return KERNELS[operation.instruction.opcode](operation, (first, second)).astype(np.int64)


def _pair_table(graph: Graph, operation: Operation, inputs: tuple[Source, ...]) -> str | None:
    """A two-input instruction as a table over all pairs of centred values."""
    rows, columns = (np.arange(source.range[0], source.range[1] + 1) for source in inputs)
    try:
        table = _grid(operation, rows, columns) - operation.output_zero()
    except ProgramError:  # some pair leaves int32: the plain kernel reports it if it occurs
        return None
    left = graph.node("Sub", [inputs[0].name, _scalar(graph, float(rows[0]))])
    row = graph.node("Mul", [left, _scalar(graph, float(len(columns)))])
    column = graph.node("Sub", [inputs[1].name, _scalar(graph, float(columns[0]))])
    return _gather(graph, table.ravel(), graph.node("Add", [row, column]))


def _table(graph: Graph, operation: Operation, inputs: tuple[Source, ...]) -> str | None:
    """A one-input instruction as a table over all values."""
    low, high = inputs[0].range
    values = (np.arange(low, high + 1) + operation.input_zero()).astype(np.int8)
    try:
        table = KERNELS[operation.instruction.opcode](operation, (values,))
    except ProgramError:  # some value leaves int32: the plain kernel reports it if it occurs
        return None
    index = graph.node("Sub", [inputs[0].name, _scalar(graph, float(low))])
    return _gather(graph, table.astype(np.int64) - operation.output_zero(), index)


def _gather(graph: Graph, table: ArrayLike, index: str) -> str:
    entries = graph.constant(np.asarray(table).astype(np.float32))
    return graph.node("Gather", [entries, graph.node("Cast", [index], to=ELEMENT_TYPES["int32"])], axis=0)


def _max_pool(graph: Graph, operation: Operation, inputs: tuple[Source, ...]) -> str:
    return graph.node(
        "MaxPool",
        [inputs[0].name],
        kernel_shape=operation.integers("kernel"),
        strides=operation.integers("strides"),
        pads=operation.integers("pads"),
    )


def _resize_nearest(graph: Graph, operation: Operation, inputs: tuple[Source, ...]) -> str:
    sizes = operation.inputs[0].shape[2:]
    indices = [operation.constant("rows"), operation.constant("columns")]
    factors = [max(len(index) // size, 1) for index, size in zip(indices, sizes, strict=True)]
    regular = all(
        len(index) == size * factor and bool((index == np.arange(len(index)) // factor).all())
        for index, size, factor in zip(indices, sizes, factors, strict=True)
    )
    if not regular:
        rows = graph.node("Gather", [inputs[0].name, graph.constant(indices[0])], axis=2)
        return graph.node("Gather", [rows, graph.constant(indices[1])], axis=3)
    scales = graph.constant(np.array([1, 1, *factors], np.float32))
    return graph.node(
        "Resize",
        [inputs[0].name, "", scales],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _concat(graph: Graph, operation: Operation, inputs: tuple[Source, ...]) -> str:
    return graph.node("Concat", [source.name for source in inputs], axis=operation.integer("axis"))


def _reshape(graph: Graph, operation: Operation, inputs: tuple[Source, ...]) -> str:
    shape = graph.constant(np.array(operation.output.shape, np.int64))
    return graph.node("Reshape", [inputs[0].name, shape])


def _transpose(graph: Graph, operation: Operation, inputs: tuple[Source, ...]) -> str:
    return graph.node("Transpose", [inputs[0].name], perm=operation.integers("permutation"))


_COPIES = frozenset({"max_pool", "average_pool", "resize_nearest", "concat", "reshape", "transpose"})

LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "conv2d": _conv2d,
        "fully_connected": _fully_connected,
        "add": _add,
        "sub": _add,
        "mul": _pair_table,
        "requantize": _table,
        "lookup": _table,
        "max_pool": _max_pool,
        "resize_nearest": _resize_nearest,
        "concat": _concat,
        "reshape": _reshape,
        "transpose": _transpose,
    }
)
"""How an opcode is lowered; ``None`` from the function, or no entry: the plain kernel runs it."""
