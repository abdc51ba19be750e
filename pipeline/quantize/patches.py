"""What each output of a layer with weights is computed from, as rows of a matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pipeline.compile.windows import pads
from pipeline.graph.view import Node

Values = NDArray[np.float64]

MOST_ROWS = 8192
"""Positions that are looked at over all images, evenly; memory stays the same for any number of images."""


@dataclass(frozen=True)
class Geometry:
    """How a Conv, Gemm or MatMul reads its input.

    Attributes:
        groups: of channels that are computed apart.
        kernel, strides, dilations: of a convolution, else empty.
        padding: top, left, bottom, right.
    """

    groups: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()


def geometry(node: Node) -> Geometry:
    """The geometry of ``node``, a Conv with two spatial dimensions, a Gemm or a MatMul."""
    if node.op != "Conv":
        return Geometry()
    kernel = node.required(1).dims[2:]
    return Geometry(
        node.int("group", 1), kernel, node.ints("strides", (1, 1)), node.ints("dilations", (1, 1)), pads(node, kernel)
    )


def rows(geometry: Geometry, inputs: Sequence[NDArray[np.floating]]) -> Values:
    """The inputs of evenly chosen outputs: float64 [groups, rows, values], values in a weight row's order.

    Args:
        geometry: how the layer reads.
        inputs: one array per image, [1, C, H, W] of a convolution, else [..., K].
    """
    share = max(1, MOST_ROWS // len(inputs))
    found = [_of_image(geometry, values, share) for values in inputs]
    return np.concatenate(found, axis=1)


def _of_image(geometry: Geometry, values: NDArray[np.floating], share: int) -> Values:
    if not geometry.kernel:
        flat = values.reshape(-1, values.shape[-1])
        return flat[_even(len(flat), share)].astype(np.float64)[None]
    top, left, bottom, right = geometry.padding
    padded = np.pad(values[0], ((0, 0), (top, bottom), (left, right)))
    spans = [(k - 1) * d + 1 for k, d in zip(geometry.kernel, geometry.dilations, strict=True)]
    windows = sliding_window_view(padded, spans, axis=(1, 2))
    strided = windows[:, :: geometry.strides[0], :: geometry.strides[1]]
    taps = strided[..., :: geometry.dilations[0], :: geometry.dilations[1]]
    channels, height, width = taps.shape[:3]
    places = _even(height * width, share)
    chosen = taps[:, places // width, places % width].astype(np.float64)
    grouped = chosen.reshape(geometry.groups, channels // geometry.groups, len(places), -1)
    return grouped.transpose(0, 2, 1, 3).reshape(geometry.groups, len(places), -1)


def _even(count: int, share: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, count - 1, min(count, share)).astype(np.intp))
