"""A frame twice, side by side: what the float model finds and what the packaged bundle finds."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from runtime.adapters.detection import Detections

LARGEST_WIDTH = 640
"""Pixels of each half; larger frames are scaled down so that a report of several stays small."""

_GAP, _CAPTION, _QUALITY = 8, 26, 82
_PAPER, _INK = (24, 27, 31), (240, 242, 244)
_FLOAT, _NPU, _TRUTH = (255, 176, 59), (64, 210, 255), (255, 255, 255)


def side_by_side(
    frame: NDArray[np.uint8], float_found: Detections, npu_found: Detections, truth: NDArray[np.float32]
) -> bytes:
    """A JPEG of ``frame`` twice: left the float model's boxes, right the simulated NPU's, each with its score.

    Annotated boxes are drawn as thin white corners in both halves. The same input gives the same bytes.

    Args:
        frame: uint8 [H, W, 3], RGB.
        float_found: the float model's detections, in source pixels.
        npu_found: the packaged bundle's detections on the simulated NPU, in source pixels.
        truth: float32 [N, 4], annotated boxes: left, top, right, bottom in source pixels.
    """
    halves = [
        _half(frame, found, truth, colour, name)
        for found, colour, name in ((float_found, _FLOAT, "float model"), (npu_found, _NPU, "simulated NPU"))
    ]
    width, height = halves[0].size
    canvas = Image.new("RGB", (2 * width + _GAP, height), _PAPER)
    canvas.paste(halves[0], (0, 0))
    canvas.paste(halves[1], (width + _GAP, 0))
    file = io.BytesIO()
    canvas.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _half(
    frame: NDArray[np.uint8], found: Detections, truth: NDArray[np.float32], colour: tuple[int, int, int], name: str
) -> Image.Image:
    picture = Image.fromarray(frame)
    scale = min(1.0, LARGEST_WIDTH / picture.width)
    if scale < 1:
        size = (LARGEST_WIDTH, max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    half = Image.new("RGB", (picture.width, picture.height + _CAPTION), _PAPER)
    half.paste(picture, (0, _CAPTION))
    draw = ImageDraw.Draw(half)
    draw.text((6, 5), f"{name}: {len(found.scores)} found, {len(truth)} annotated", _INK, ImageFont.load_default(14))
    for box in truth:
        _corners(draw, _place(box, scale))
    font = ImageFont.load_default(11)
    for box, score in zip(found.boxes, found.scores, strict=True):
        left, top, right, bottom = _place(box, scale)
        draw.rectangle((left, top, right, bottom), outline=colour, width=2)
        words = f"{score:.2f}"
        across = draw.textlength(words, font) + 4
        base = max(top, _CAPTION + 13)
        draw.rectangle((left, base - 13, left + across, base), fill=colour)
        draw.text((left + 2, base - 13), words, (0, 0, 0), font)
    return half


def _place(box: NDArray[np.float32], scale: float) -> tuple[float, float, float, float]:
    """The box in pixels of the half, its right and lower edge never before the left and upper."""
    left, top, right, bottom = (round(float(v) * scale) for v in box)
    return left, top + _CAPTION, max(left, right), max(top, bottom) + _CAPTION


def _corners(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = box
    across, down = (right - left) / 4, (bottom - top) / 4
    for x, dx in ((left, across), (right, -across)):
        for y, dy in ((top, down), (bottom, -down)):
            draw.line((x, y, x + dx, y), _TRUTH)
            draw.line((x, y, x, y + dy), _TRUTH)
