"""From the network's outputs to boxes: anchor-free decoding and non-maximum suppression, in numpy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.adapters.image import Placement
from runtime.tensors import Tensors

CANDIDATES = 1000
"""The best-scored boxes that enter the suppression; more only cost time."""


@dataclass(frozen=True)
class Detections:
    """What was found in one frame, best first.

    Attributes:
        boxes: float32 [N, 4]: left, top, right, bottom in source pixels.
        scores: float32 [N] in 0..1.
        labels: int64 [N], indices into the task's labels.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class BoxDecoder:
    """How outputs become boxes.

    Attributes:
        stride: input pixels per output cell.
        score_threshold: boxes below this score (0..1) are dropped.
        iou_threshold: of two boxes of one label that overlap more than this, the better one stays.
        max_detections: the best that are kept per frame.
    """

    stride: int
    score_threshold: float
    iou_threshold: float
    max_detections: int


def decode(outputs: Tensors, decoder: BoxDecoder, placement: Placement, frame_size: tuple[int, int]) -> Detections:
    """Boxes in source pixels from the outputs of the network.

    Args:
        outputs: float32 ``scores`` [1, C, Hs, Ws], logits, and ``boxes`` [1, 4, Hs, Ws]: left, top, right and
            bottom distances from the cell's centre ``((column + 0.5) stride, (row + 0.5) stride)``, in units
            of the stride; negative ones count as 0.
        decoder: stride and thresholds.
        placement: where the frame lies in the network's input.
        frame_size: width and height of the frame, in pixels; boxes are clipped to it, empty ones dropped.
    """
    logits = outputs["scores"][0].astype(np.float64)
    scores = np.exp(-np.logaddexp(0.0, -logits)).astype(np.float32)
    labels, rows, columns = np.nonzero(scores >= np.float32(decoder.score_threshold))
    found = scores[labels, rows, columns]
    best = np.argsort(-found, kind="stable")[:CANDIDATES]
    labels, rows, columns, found = labels[best], rows[best], columns[best], found[best]
    distances = np.maximum(outputs["boxes"][0].astype(np.float64)[:, rows, columns].T, 0.0)
    centres = np.stack([columns + 0.5, rows + 0.5], axis=1)
    corners = np.concatenate([centres - distances[:, :2], centres + distances[:, 2:]], axis=1) * decoder.stride
    boxes = (corners - np.tile([placement.left, placement.top], 2)) / placement.scale
    boxes = np.clip(boxes, 0.0, np.tile(frame_size, 2)).astype(np.float32)
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    boxes, found, labels = boxes[solid], found[solid], labels[solid]
    kept = suppress(boxes, found, labels, decoder.iou_threshold)[: decoder.max_detections]
    return Detections(boxes[kept], found[kept], labels[kept].astype(np.int64))


def suppress(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64], iou_threshold: float
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression per label, as ``torchvision.ops.batched_nms``.

    Args:
        boxes: float32 [N, 4]: left, top, right, bottom.
        scores: float32 [N].
        labels: int64 [N]; boxes of different labels never suppress each other.
        iou_threshold: a box is dropped when it overlaps a better one of its label by more than this.

    Returns:
        Indices of the boxes that stay, best first; equal scores keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        first, order = order[0], order[1:]
        kept.append(int(first))
        overlap = _iou(boxes[first], boxes[order])
        order = order[(overlap <= iou_threshold) | (labels[order] != labels[first])]
    return np.array(kept, np.int64)


def _iou(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of one box [4] with others [N, 4]; 0 for boxes without area."""
    box, others = box.astype(np.float64), others.astype(np.float64)
    corner, opposite = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    overlap = np.prod(np.maximum(opposite - corner, 0.0), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - overlap
    ratio: NDArray[np.float64] = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return ratio
