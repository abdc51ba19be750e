"""Sums of products: as integers where that is proven (``runtime.npu.lowering.integer``), else in floating point.

A convolution of integers is exact in float32, in any order of summation, while no partial sum can reach 2**23; the
weights and the input's range prove it. Beyond that, pieces of the input channels are added up in float64.
"""

import numpy as np
from numpy.typing import NDArray

from runtime.npu.kernels import Operation
from runtime.npu.lowering import formulas, integer
from runtime.npu.lowering.values import Builder, Range, Value
from runtime.npu.lowering.wide import HALF, Products, exact_pieces, halves, one_rounding, total
from runtime.npu.steps import MAX_ACCUMULATOR, CorrectedFormula, Parts, find_steps, fit, fit_long, fit_wide

Shape = tuple[int, ...]

INT16_LIMIT = 2**15 - 1


def conv2d(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> str | None:
    """The centred result's name; ``None`` when it must run with its plain kernel."""

    def convolve(x: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> str:
        return builder.node(
            "Conv",
            [x, builder.constant(weight), *([] if bias is None else [builder.constant(bias)])],
            group=operation.integer("group"),
            strides=operation.integers("strides"),
            pads=operation.integers("pads"),
            dilations=operation.integers("dilations"),
            kernel_shape=weight.shape[2:],
        )

    return _floating(builder, operation, inputs[0], convolve)


def conv_transpose2d(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> str | None:
    """As ``conv2d``; onnxruntime's weight has input channels first."""
    group, strides = operation.integer("group"), operation.integers("strides")
    pads, dilations = operation.integers("pads"), operation.integers("dilations")

    def spread(x: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> str:
        outputs, per_group, *kernel = weight.shape
        grouped = weight.reshape(group, outputs // group, per_group, *kernel)
        swapped = np.ascontiguousarray(np.swapaxes(grouped, 1, 2)).reshape(group * per_group, outputs // group, *kernel)
        size, wanted = _rows_and_columns(operation.inputs[0].shape), _rows_and_columns(operation.output.shape)
        cut = [pads[i] + pads[i + 2] for i in (0, 1)]
        least = [(size[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - cut[i] for i in (0, 1)]
        return builder.node(
            "ConvTranspose",
            [x, builder.constant(swapped), *([] if bias is None else [builder.constant(bias)])],
            group=group,
            strides=strides,
            pads=pads,
            dilations=dilations,
            output_padding=tuple(wanted[i] - least[i] for i in (0, 1)),
            kernel_shape=tuple(kernel),
        )

    return _floating(builder, operation, inputs[0], spread)


def fully_connected(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> str | None:
    """As ``conv2d``."""

    def multiply(x: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> str:
        product = builder.node("MatMul", [x, builder.constant(weight.T)])
        return product if bias is None else builder.node("Add", [product, builder.constant(bias)])

    return _floating(builder, operation, inputs[0], multiply)


def raw_products(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> str | None:
    """``conv2d`` and ``fully_connected`` as integers: the raw result's name, or ``None``."""
    if not saturates(operation, inputs[0].range):
        return integer.products(builder, operation, inputs[0])
    return None


def raw_matmul(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> str | None:
    """``matmul`` as integers: the raw result's name, or ``None``."""
    return integer.product_of_two(builder, operation, inputs, operation.inputs[0].shape[-1])


def matmul(builder: Builder, operation: Operation, inputs: tuple[Value, ...]) -> str | None:
    """In float64, which is exact: the centred result's name, or ``None``."""
    scaled = integer.two_scaling(operation, inputs, operation.inputs[0].shape[-1])
    if operation.contract.activations == "int16":
        factor = operation.constant("multiplier"), operation.constant("shift")
        largest = np.maximum(np.abs(scaled.low), np.abs(scaled.high))
        formula = one_rounding(operation.contract, *factor, largest)
    else:
        formula = fit_long(scaled, find_steps(scaled)) if scaled.defined else None
    if formula is None:
        return None
    wide = [builder.cast(builder.centred(value), "float64") for value in inputs]
    shape = (1,) * len(operation.output.shape)
    return formulas.scale_long(builder, builder.node("MatMul", wide), formula, scaled.bounds, shape)


def saturates(operation: Operation, source: Range) -> bool:
    """Whether a 16-bit accumulator may saturate on some input."""
    if operation.contract.accumulator_bits != 16:
        return False
    weight, bias = operation.constant("weight"), operation.constant("bias")
    largest = np.abs(weight).reshape(len(weight), -1).sum(axis=1) * max(-source[0], source[1]) + np.abs(bias)
    return bool(largest.max() > INT16_LIMIT)


def _floating(builder: Builder, operation: Operation, source: Value, products: Products) -> str | None:
    """Sums of products with their bias, requantized; ``None`` when nothing is proven exact."""
    if saturates(operation, source.range):
        return None
    bias, sequence = operation.constant("bias"), _is_sequence(operation)
    weight, shape = operation.instruction.constants["weight"], _along(operation)
    low, high = integer.reach(weight, source.range)
    scalings = integer.products_scaling(operation, source.range)
    partial = max(-int((low + np.minimum(bias, 0)).min()), int((high + np.maximum(bias, 0)).max()))
    if source.spec.dtype == "int16" or partial >= MAX_ACCUMULATOR:
        made = _wide(builder, operation, source, products, scalings)
    else:
        x = _lifted(builder, operation, builder.centred(source)) if sequence else builder.centred(source)
        formula = fit(scalings, images=weight.ndim == 4)
        if formula is None:
            return None
        extra = formula.bias if isinstance(formula, CorrectedFormula) else np.float32(0)
        acc = products(x, weight.astype(np.float32), bias.astype(np.float32) + extra)
        made = formulas.scale(builder, acc, formula, scalings[0].bounds, shape)
    if made is None or not sequence:
        return made
    return builder.node("Reshape", [made, builder.constant(np.array(operation.output.shape))])


def _rows_and_columns(shape: Shape) -> Shape:
    """Of an image, or of a sequence, which is one row high."""
    return shape[2:] if len(shape) == 4 else (1, shape[2])


def _is_sequence(operation: Operation) -> bool:
    return operation.instruction.constants["weight"].ndim == 4 and len(operation.inputs[0].shape) == 3


def _lifted(builder: Builder, operation: Operation, x: str) -> str:
    """A sequence as an image one row high."""
    batch, channels, length = operation.inputs[0].shape
    return builder.node("Reshape", [x, builder.constant(np.array([batch, channels, 1, length]))])


def _along(operation: Operation) -> Shape:
    """The shape of per-channel constants."""
    channels = len(operation.instruction.constants["weight"])
    if operation.instruction.constants["weight"].ndim == 4:
        return 1, channels, 1, 1
    return (1,) * (len(operation.output.shape) - 1) + (channels,)


def _wide(builder: Builder, operation: Operation, source: Value, products: Products, scalings: Parts) -> str | None:
    """As ``_floating`` for sums beyond float32, which are added up in float64 with the bias."""
    weight, shape = operation.instruction.constants["weight"], _along(operation)
    if source.spec.dtype == "int16":
        largest = np.concatenate([np.maximum(np.abs(part.low), np.abs(part.high)) for part in scalings])
        factor = operation.constant("multiplier"), operation.constant("shift")
        formula, range_ = one_rounding(operation.contract, *factor, largest), HALF
    else:
        formula, range_ = fit_wide(scalings), source.range
    pieces = exact_pieces(weight, range_)
    grouped = weight.ndim == 4 and operation.integer("group") > 1
    if formula is None or pieces is None or (grouped and len(pieces) > 1):
        return None
    parts = halves(builder, source) if source.spec.dtype == "int16" else [(builder.centred(source), 1.0)]
    if _is_sequence(operation):
        parts = [(_lifted(builder, operation, name), factor) for name, factor in parts]
    bias = builder.constant(operation.constant("bias").astype(np.float64).reshape(shape))
    acc = builder.node("Add", [total(builder, weight, parts, pieces, products), bias])
    return formulas.scale_long(builder, acc, formula, scalings[0].bounds, shape)
