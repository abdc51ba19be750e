"""Appending a proven floating-point formula (``runtime.npu.steps``) to a graph.

On images the scaling is written as 1x1 depthwise convolutions with a fused Clip, because onnxruntime keeps those in its
blocked layout.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runtime.npu.lowering.values import Builder, Range
from runtime.npu.steps import CorrectedFormula, Formula, LongFormula, SignedFormula

MAGIC = np.float32(1.5 * 2**23)
"""Adding it to a float32 below 2**22 in size rounds that to an integer, ties to even."""

Shape = tuple[int, ...]


def scale(builder: Builder, acc: str, formula: Formula, bounds: Range, shape: Shape) -> str:
    """Requantize ``acc``, float32; per-channel constants get ``shape``. A corrected formula's bias is in ``acc``."""
    if isinstance(formula, CorrectedFormula):
        return _correct(builder, acc, formula, bounds)
    if isinstance(formula, SignedFormula):
        ahead = builder.node("Add", [acc, clip(builder, acc, -formula.ahead, formula.ahead)])
        scaled = builder.node("Mul", [ahead, builder.single(formula.slope)])
        return clip(builder, builder.node("Round", [scaled]), *bounds)
    if not isinstance(formula, LongFormula):
        return round_scaled(builder, acc, formula, bounds, shape)
    return scale_long(builder, builder.cast(acc, "float64"), formula, bounds, shape)


def scale_long(builder: Builder, wide: str, formula: LongFormula, bounds: Range, shape: Shape) -> str:
    """See ``LongFormula``; ``wide`` is float64, the result float32."""

    value = builder.node("Mul", [wide, builder.constant(formula.first.reshape(shape))])
    if formula.half_up:
        rounded = builder.node("Floor", [builder.node("Add", [value, builder.constant(np.array(0.5))])])
    else:
        rounded = builder.node("Round", [value])
    if formula.second is not None:
        product = builder.node("Mul", [rounded, builder.constant(formula.second.reshape(shape))])
        rounded = builder.node("Round", [product])
    return clip(builder, builder.cast(rounded, "float32"), *bounds)


def round_scaled(builder: Builder, acc: str, slope: NDArray[np.float32], bounds: Range, shape: Shape) -> str:
    """``clip(round(slope * acc))``, by way of ``MAGIC``."""
    low, high = MAGIC + np.float32(bounds[0]), MAGIC + np.float32(bounds[1])
    if len(shape) == 4:
        lifted = clip(builder, channelwise(builder, acc, slope, MAGIC), low, high)
        return channelwise(builder, lifted, np.ones_like(slope), -MAGIC)
    product = builder.node("Mul", [acc, builder.constant(slope.reshape(shape))])
    lifted = clip(builder, builder.node("Add", [product, builder.single(MAGIC)]), low, high)
    return builder.node("Sub", [lifted, builder.single(MAGIC)])


def _correct(builder: Builder, acc: str, formula: CorrectedFormula, bounds: Range) -> str:
    """See ``CorrectedFormula``; ``acc`` has its bias already."""
    shape = (1, len(formula.slope), 1, 1)
    estimate = round_scaled(builder, acc, formula.slope, (bounds[0], bounds[1] - 1), shape)
    rest = builder.node("Add", [channelwise(builder, estimate, -formula.whole, 0.0), acc])
    distance = builder.node("Add", [channelwise(builder, estimate, -formula.part, -formula.offset), rest])
    passed = clip(builder, channelwise(builder, distance, formula.steepness, 0.5), 0.0, 1.0)
    return builder.node("Add", [estimate, passed])


def channelwise(builder: Builder, x: str, slope: NDArray[np.float32], offset: ArrayLike) -> str:
    """``slope[c] * x + offset`` (one, or one per channel) on [N, C, H, W], as a 1x1 depthwise convolution."""
    channels = len(slope)
    weight = builder.constant(slope.reshape(channels, 1, 1, 1))
    bias = builder.constant(np.full(channels, offset, np.float32))
    return builder.node("Conv", [x, weight, bias], group=channels, kernel_shape=(1, 1))


def clip(builder: Builder, x: str, low: float | np.float32, high: float | np.float32) -> str:
    """``x`` within float32 limits."""
    return builder.node("Clip", [x, builder.single(low), builder.single(high)])
