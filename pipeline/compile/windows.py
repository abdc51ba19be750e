"""Geometry that ONNX leaves implicit: padding by ``auto_pad``, and the positions that a nearest Resize reads."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.graph.view import Node

Floats = NDArray[np.float32]  # as ONNX Runtime computes positions; in float64 ties would fall otherwise


def pads(node: Node, kernel: Sequence[int]) -> tuple[int, ...]:
    """Padding as (top, left, bottom, right), ``auto_pad`` resolved for the node's static input shape."""
    mode = node.text("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return node.ints("pads", (0, 0, 0, 0))
    if mode == "VALID":
        return (0, 0, 0, 0)
    strides, dilations = node.ints("strides", (1, 1)), node.ints("dilations", (1, 1))
    before, after = [], []
    for size, k, s, d in zip(node.required(0).dims[2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        small = total // 2
        before.append(small if mode == "SAME_UPPER" else total - small)
        after.append(total - before[-1])
    return (*before, *after)


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
