"""What the detector learns: which cells see an object, and how far its sides are."""

import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

CENTRAL = 0.25
"""Half the size of a box's central region, as a fraction of the box."""

SMALLEST_DISTANCE = 0.1
"""Shorter distances, in strides, count as this: a box without area would have no gradient."""

BOX_WEIGHT = 1.0
"""Weight of the box loss against the score loss."""


def detection_loss(scores: Tensor, distances: Tensor, boxes: Tensor, labels: Tensor, stride: int) -> Tensor:
    """Focal loss on all cells plus generalized-IoU loss on the cells that see an object, per such cell.

    Args:
        scores: logits, float [N, C, Hs, Ws].
        distances: left, top, right, bottom from each cell's centre in strides, float [N, 4, Hs, Ws].
        boxes: the truth, float [N, M, 4]: left, top, right, bottom in input pixels, padded to M per image.
        labels: int64 [N, M]; -1 marks padding.
        stride: input pixels per cell.

    Returns:
        A scalar. Sources: focal loss https://arxiv.org/abs/1708.02002, GIoU https://arxiv.org/abs/1902.09630.
    """
    rows, columns = scores.shape[2:]
    centres = cell_centres(rows, columns, scores.device)
    owner = assign(centres, boxes / stride, labels)
    logits = scores.float().flatten(2).transpose(1, 2)
    taken = owner >= 0
    image, cell = torch.nonzero(taken, as_tuple=True)
    chosen = owner[image, cell]
    wanted = torch.zeros_like(logits)
    wanted[image, cell, labels[image, chosen]] = 1.0
    positives = taken.sum().clamp(min=1)
    score_loss = sigmoid_focal_loss(logits, wanted, reduction="sum") / positives
    found = _corners(distances.float().flatten(2).transpose(1, 2)[image, cell], centres[cell])
    box_loss = generalized_box_iou_loss(found, boxes[image, chosen] / stride, reduction="sum") / positives
    total: Tensor = score_loss + BOX_WEIGHT * box_loss
    return total


def cell_centres(rows: int, columns: int, device: torch.device) -> Tensor:
    """Centres of the cells in strides, float [rows * columns, 2] (x, y), row by row."""
    y, x = torch.meshgrid(
        torch.arange(rows, device=device) + 0.5, torch.arange(columns, device=device) + 0.5, indexing="ij"
    )
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def assign(centres: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """For each cell the box it is to report, or -1.

    A cell answers for a box when its centre lies in the box's central region: ``CENTRAL`` of the size to each
    side of the middle, but at least half a cell, so that no box goes without. The smallest box wins.

    Args:
        centres: float [K, 2], in strides.
        boxes: float [N, M, 4], corners in strides.
        labels: int64 [N, M]; -1 marks padding.

    Returns:
        int64 [N, K], indices into M.
    """
    if boxes.shape[1] == 0:
        return torch.full((len(boxes), len(centres)), -1, dtype=torch.int64, device=boxes.device)
    size = boxes[..., 2:] - boxes[..., :2]
    middle = (boxes[..., 2:] + boxes[..., :2]) / 2
    reach = (size * CENTRAL).clamp(min=0.5)
    inside = ((centres[None, :, None] - middle[:, None]).abs() <= reach[:, None]).all(dim=-1)
    inside &= (labels >= 0)[:, None]
    area = size.prod(dim=-1)[:, None].expand(inside.shape).masked_fill(~inside, torch.inf)
    smallest, owner = area.min(dim=-1)
    return owner.masked_fill(torch.isinf(smallest), -1)


def _corners(distances: Tensor, centres: Tensor) -> Tensor:
    """Corners [K, 4] from distances [K, 4], clipped from below; the gradient passes as if they were not."""
    clipped = distances + (distances.clamp(min=SMALLEST_DISTANCE) - distances).detach()
    return torch.cat([centres - clipped[:, :2], centres + clipped[:, 2:]], dim=1)
