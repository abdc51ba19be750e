"""From a frame to the network's input: letterbox, normalise, quantize, with the same bits on every machine.

The resize is a separable triangle filter that widens when it shrinks (what Pillow calls ``BILINEAR``), in
integers: coefficients with the sum 2**14, rows first with two fractional bits kept, then columns. All partial
sums stay below 2**24, so float32 matrix products are exact, in any order, with or without fused multiply-add.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from runtime.errors import SourceError
from runtime.tensors import TensorSpec

Pixels = NDArray[np.uint8]
Integers = NDArray[np.int8] | NDArray[np.int16]
QUANTIZED = ("int8", "int16")
"""What a quantized network's input may be."""

PAD = 114
"""Grey value around a letterboxed frame."""

COEFFICIENT_BITS = 14
FRACTION_BITS = 2
_TILE = 8
"""Outputs of the filter that one matrix product computes: more waste arithmetic on zeros, fewer waste calls."""


@dataclass(frozen=True)
class Preprocess:
    """How a frame becomes the network's input.

    Attributes:
        width: of the network's input, in pixels.
        height: of the network's input, in pixels.
        mean: per channel (RGB), subtracted after scaling pixels to 0..1.
        std: per channel (RGB), divided by after that.
    """

    width: int
    height: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Placement:
    """Where a frame lies in the network's input, in pixels: ``network = source * scale + (left, top)``."""

    scale: float
    left: int
    top: int


@dataclass(frozen=True)
class _Tile:
    """A run of outputs and the run of inputs they read: ``coefficients`` is float32 [outputs, inputs].

    Between columns that hold ``channels`` values each, it is float32 [inputs, outputs], each coefficient once for
    every channel on the diagonal of a block, so that no copy has to part the channels.
    """

    outputs: slice
    inputs: slice
    coefficients: NDArray[np.float32]


def coefficients(source: int, size: int) -> NDArray[np.int64]:
    """The triangle filter from ``source`` samples to ``size``: int64 [size, source], rows sum to 2**14.

    The weight of input i for output x is ``max(0, 1 - |(i + 1/2) - (x + 1/2) source / size| / support)``,
    ``support = max(1, source / size)``, as in Pillow's ``ImagingResample``; here in whole numbers (times
    ``2 max(source, size)``). The running sum is rounded, not each coefficient, so no row drifts.
    """
    centres = (2 * np.arange(size, dtype=np.int64) + 1)[:, None] * source
    positions = (2 * np.arange(source, dtype=np.int64) + 1)[None, :] * size
    sums = np.cumsum(np.maximum(0, 2 * max(source, size) - np.abs(positions - centres)), axis=1)
    totals = sums[:, -1:]
    rounded: NDArray[np.int64] = ((sums << (COEFFICIENT_BITS + 1)) + totals) // (2 * totals)
    return np.diff(rounded, axis=1, prepend=0)


@lru_cache(maxsize=16)
def _tiles(source: int, size: int, channels: int = 0) -> tuple[_Tile, ...]:
    """The non-zero band of :func:`coefficients`, cut into tiles of ``_TILE`` outputs; of columns with ``channels``."""
    matrix = coefficients(source, size)
    tiles = []
    for start in range(0, size, _TILE):
        rows = matrix[start : start + _TILE]
        used = np.flatnonzero(rows.any(axis=0))
        first, end = int(used[0]), int(used[-1]) + 1
        block = np.ascontiguousarray(rows[:, first:end], np.float32)
        if channels:
            block = np.ascontiguousarray(np.kron(block, np.eye(channels, dtype=np.float32)).T)
        each = channels or 1
        outputs = slice(start * each, (start + len(rows)) * each)
        tiles.append(_Tile(outputs, slice(first * each, end * each), block))
    return tuple(tiles)


def resize(frame: Pixels, width: int, height: int) -> Pixels:
    """uint8 [H, W, 3] as uint8 [height, width, 3]; within 1 of Pillow's ``resize(..., BILINEAR)``."""
    rows, columns = frame.shape[:2]
    if (columns, rows) == (width, height):
        return frame
    planes = frame.reshape(rows, columns * 3).astype(np.float32)
    lines = np.empty((height, columns * 3), np.float32)
    for tile in _tiles(rows, height):
        np.matmul(tile.coefficients, planes[tile.inputs], out=lines[tile.outputs])
    _round_shift(lines, COEFFICIENT_BITS - FRACTION_BITS)
    result = np.empty((height, width * 3), np.float32)
    for tile in _tiles(columns, width, 3):
        np.matmul(lines[:, tile.inputs], tile.coefficients, out=result[:, tile.outputs])
    _round_shift(result, COEFFICIENT_BITS + FRACTION_BITS)
    return result.astype(np.uint8).reshape(height, width, 3)


def _round_shift(values: NDArray[np.float32], bits: int) -> None:
    """``(values + half) >> bits`` in place, for whole non-negative float32 below 2**24; exact."""
    values += np.float32(1 << (bits - 1))
    values *= np.float32(2.0**-bits)
    np.floor(values, out=values)


def letterbox(frame: Pixels, width: int, height: int) -> tuple[Pixels, Placement]:
    """Fit a frame into the network's input, centred, its aspect kept, padded with grey.

    Args:
        frame: uint8 [H, W, 3], RGB.
        width: of the result, in pixels.
        height: of the result, in pixels.

    Returns:
        uint8 [height, width, 3] and where the frame lies in it.

    Raises:
        SourceError: the frame is not uint8 [H, W, 3], or is empty.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.size == 0:
        raise SourceError(
            f"a frame is {frame.dtype} {list(frame.shape)}",
            fix="give uint8 [height, width, 3], RGB, not empty",
        )
    rows, columns = frame.shape[:2]
    scale = min(width / columns, height / rows)
    inner_width = min(width, max(1, round(columns * scale)))
    inner_height = min(height, max(1, round(rows * scale)))
    resized = resize(np.ascontiguousarray(frame), inner_width, inner_height)
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    if (inner_width, inner_height) == (width, height):
        return resized, Placement(scale, left, top)
    canvas = np.full((height, width, 3), PAD, np.uint8)
    canvas[top : top + inner_height, left : left + inner_width] = resized
    return canvas, Placement(scale, left, top)


@lru_cache(maxsize=16)
def _real_table(pre: Preprocess) -> NDArray[np.float32]:
    """The real value of every pixel value, float32 [3, 256], computed in float64 and rounded once."""
    values = np.arange(256, dtype=np.float64) / 255.0
    mean, std = np.array(pre.mean)[:, None], np.array(pre.std)[:, None]
    real: NDArray[np.float32] = ((values[None, :] - mean) / std).astype(np.float32)
    return real


@lru_cache(maxsize=16)
def _integer_table(pre: Preprocess, spec: TensorSpec) -> Integers:
    """The integer of every pixel value, [3, 256], as ONNX ``QuantizeLinear`` has it."""
    if spec.scale is None or spec.zero_point is None or spec.dtype not in QUANTIZED:
        kinds = " or ".join(QUANTIZED)
        raise SourceError(f"tensor {spec.name} is not quantized to {kinds}", fix="use normalize for a float input")
    steps = np.rint(_real_table(pre) / np.float32(spec.scale)) + np.float32(spec.zero_point)
    limits = np.iinfo(spec.dtype)
    table: Integers = np.clip(steps, limits.min, limits.max).astype(spec.dtype)
    return table


def normalize(pixels: Pixels, pre: Preprocess) -> NDArray[np.float32]:
    """Pixels uint8 [H, W, 3] as the float input, float32 [1, 3, H, W]: ``(u / 255 - mean) / std``."""
    table = _real_table(pre)
    return np.stack([table[c][pixels[:, :, c]] for c in range(3)])[None]


def prepare(pixels: Pixels, pre: Preprocess, spec: TensorSpec) -> Integers | NDArray[np.float32]:
    """Pixels uint8 [H, W, 3] as the input ``spec`` wants them: quantized when it has a scale, else normalized."""
    return normalize(pixels, pre) if spec.scale is None else quantize(pixels, pre, spec)


def quantize(pixels: Pixels, pre: Preprocess, spec: TensorSpec) -> Integers:
    """Pixels uint8 [H, W, 3] as the quantized network's input, int8 or int16 [1, 3, H, W].

    Equal to ONNX ``QuantizeLinear`` of :func:`normalize` (round half to even, add the zero point, saturate),
    through one table of 256 entries per channel.

    Raises:
        SourceError: ``spec`` is not an int8 or int16 tensor with a scale and a zero point.
    """
    table = _integer_table(pre, spec)
    return np.stack([table[c][pixels[:, :, c]] for c in range(3)])[None]
