"""COCO average precision with torchmetrics."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.detection import MeanAveragePrecision

from runtime.adapters.detection import Detections

Truth = tuple[NDArray[np.float32], NDArray[np.int64]]


def average_precision(found: Sequence[Detections], truth: Sequence[Truth]) -> dict[str, float]:
    """``ap50`` (IoU 0.5) and ``ap`` (mean over IoU 0.5 to 0.95), 0..1, as COCO defines them.

    Measures what it is given, in each process by itself: whoever shares images out gathers the detections first.

    Args:
        found: detections per image, boxes in the same pixels as the truth.
        truth: boxes float32 [N, 4] (corners) and labels int64 [N] per image.
    """
    metric = MeanAveragePrecision(box_format="xyxy", iou_type="bbox", sync_on_compute=False)
    metric.warn_on_many_detections = False
    for detections, (boxes, labels) in zip(found, truth, strict=True):
        metric.update(
            [
                {
                    "boxes": torch.from_numpy(detections.boxes),
                    "scores": torch.from_numpy(detections.scores),
                    "labels": torch.from_numpy(detections.labels),
                }
            ],
            [{"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels)}],
        )
    results = metric.compute()
    return {"ap50": float(results["map_50"]), "ap": float(results["map"])}
