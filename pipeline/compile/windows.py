"""Geometry that ONNX leaves implicit: padding by ``auto_pad``, and the positions that a nearest Resize reads."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.graph.view import Node

Floats = NDArray[np.float32]  # as ONNX Runtime computes positions; in float64 ties would fall otherwise


def pads(node: Node, kernel: Sequence[int]) -> tuple[int, ...]:
    """Padding before every spatial axis, then behind, ``auto_pad`` resolved for the node's static input shape."""
    mode, rank = node.text("auto_pad", "NOTSET"), len(kernel)
    if mode in ("NOTSET", ""):
        return node.ints("pads", (0,) * (2 * rank))
    if mode == "VALID":
        return (0,) * (2 * rank)
    strides, dilations = node.ints("strides", (1,) * rank), node.ints("dilations", (1,) * rank)
    before, after = [], []
    for size, k, s, d in zip(node.required(0).dims[2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        small = total // 2
        before.append(small if mode == "SAME_UPPER" else total - small)
        after.append(total - before[-1])
    return (*before, *after)


def pool_pads(node: Node, kernel: Sequence[int]) -> tuple[int, ...]:
    """As ``pads``, with as much more behind as ``ceil_mode`` makes the last window reach over."""
    given, rank = pads(node, kernel), len(kernel)
    if not node.int("ceil_mode", 0):
        return given
    strides = node.ints("strides", (1,) * rank)
    sizes, results = node.required(0).dims[2:], node.outputs[0].dims[2:]
    after = [max(given[i + rank], (results[i] - 1) * strides[i] + kernel[i] - sizes[i] - given[i]) for i in range(rank)]
    return (*given[:rank], *after)


def transposed_pads(node: Node, kernel: Sequence[int]) -> tuple[int, ...]:
    """What a ConvTranspose cuts off its result; where it states a size, what leaves that (ONNX, ConvTranspose)."""
    rank, mode = len(kernel), node.text("auto_pad", "NOTSET")
    if mode in ("NOTSET", "", "VALID") and "output_shape" not in node.attributes:
        return node.ints("pads", (0,) * (2 * rank)) if mode != "VALID" else (0,) * (2 * rank)
    strides, dilations = node.ints("strides", (1,) * rank), node.ints("dilations", (1,) * rank)
    more = node.ints("output_padding", (0,) * rank)
    before, after = [], []
    for i, (size, result) in enumerate(zip(node.required(0).dims[2:], node.outputs[0].dims[2:], strict=True)):
        total = max(strides[i] * (size - 1) + more[i] + (kernel[i] - 1) * dilations[i] + 1 - result, 0)
        small = total // 2
        before.append(small if mode == "SAME_UPPER" else total - small)
        after.append(total - before[-1])
    return (*before, *after)


def rows_and_columns(around: Sequence[int]) -> tuple[int, ...]:
    """Padding as (top, left, bottom, right); a sequence is an image one row high."""
    return (0, around[0], 0, around[1]) if len(around) == 2 else tuple(around)


def _half_pixel(index: Floats, scale: float, source: int, result: int) -> Floats:
    return (index + np.float32(0.5)) / np.float32(scale) - np.float32(0.5)


def _pytorch_half_pixel(index: Floats, scale: float, source: int, result: int) -> Floats:
    return _half_pixel(index, scale, source, result) if result > 1 else index * 0


def _half_pixel_symmetric(index: Floats, scale: float, source: int, result: int) -> Floats:
    adjustment = np.float32(result) / (np.float32(scale) * np.float32(source))
    offset = np.float32(source / 2) * (np.float32(1) - adjustment)
    return offset + (index + np.float32(0.5)) / np.float32(scale) - np.float32(0.5)


def _asymmetric(index: Floats, scale: float, source: int, result: int) -> Floats:
    return index / np.float32(scale)


def _align_corners(index: Floats, scale: float, source: int, result: int) -> Floats:
    return index * np.float32(source - 1) / np.float32(max(result - 1, 1))


COORDINATES: Mapping[str, Callable[[Floats, float, int, int], Floats]] = {
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
}
"""ONNX's coordinate transformations: (output index, scale, input size, output size) to input position."""

ROUNDINGS: Mapping[str, Callable[[Floats], Floats]] = {
    "ceil": np.ceil,
    "floor": np.floor,
    "round_prefer_ceil": lambda position: np.floor(position + np.float32(0.5)),
    "round_prefer_floor": lambda position: np.ceil(position - np.float32(0.5)),
}
"""ONNX's nearest modes."""


def nearest_indices(node: Node, axis: int) -> NDArray[np.int32]:
    """The input index of every output index of a nearest Resize along ``axis``, as ONNX defines it.

    The scale is the one that the node gives; where it gives sizes it is their ratio.
    """
    source, result = node.required(0).dims[axis], node.outputs[0].dims[axis]
    transform = COORDINATES[node.text("coordinate_transformation_mode", "half_pixel")]
    position = transform(np.arange(result, dtype=np.float32), _scale(node, axis), source, result)
    rounded = ROUNDINGS[node.text("nearest_mode", "round_prefer_floor")](position)
    return np.clip(rounded, 0, source - 1).astype(np.int32)


def _scale(node: Node, axis: int) -> float:
    source, result = node.required(0).dims, node.outputs[0].dims
    given = node.input(2)
    scales = [] if given is None else [float(s) for s in np.ravel(given.real)]
    axes = [a % len(source) for a in node.ints("axes", tuple(range(len(source))))]
    return scales[axes.index(axis)] if scales and axis in axes else result[axis] / source[axis]


def linear_weights(node: Node, axis: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """For every output index of a linear Resize: the lower and upper input index, and the place between in 1/1024.

    Formula: TFLite's ``resize_bilinear.h`` in 10-bit fixed point, with its three kinds of coordinates.
    """
    source, result = node.required(0).dims[axis], node.outputs[0].dims[axis]
    mode = node.text("coordinate_transformation_mode", "half_pixel")
    one = 1 << 10
    if mode == "align_corners" and result > 1:
        step = (one * (source - 1) + (result - 1) // 2) // (result - 1)
    else:
        step = (one * source + result // 2) // result
    place = np.arange(result, dtype=np.int64) * step
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and result > 1):
        place += step // 2 - one // 2
    low = np.maximum(_towards_zero(place, one), 0)
    high = np.minimum(_towards_zero(place + one - 1, one), source - 1)
    low = np.minimum(low, source - 1)
    return low.astype(np.int32), high.astype(np.int32), (place - one * low).astype(np.int32)


def natural_scale(node: Node, axis: int) -> bool:
    """Whether the scale of a Resize along ``axis`` is the ratio of its sizes."""
    source, result = node.required(0).dims[axis], node.outputs[0].dims[axis]
    return abs(_scale(node, axis) * source - result) < 1e-3


def _towards_zero(value: NDArray[np.int64], divisor: int) -> NDArray[np.int64]:
    quotient: NDArray[np.int64] = np.sign(value) * (np.abs(value) // divisor)
    return quotient
