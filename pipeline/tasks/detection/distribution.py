"""The person detector with an awkward head: each distance is the mean of a distribution over whole strides.

That is the head of Generalized Focal Loss (https://arxiv.org/abs/2006.04388) and of YOLOv8. A GPU takes it as it comes;
an NPU meets Reshape, Transpose and a Softmax over channels right before the outputs.
"""

from typing import cast

import torch
from torch import Tensor, nn

from pipeline.tasks.detection.model import TYPICAL_DISTANCE, Detector, person_detector

SIDES = 4
"""Left, top, right, bottom."""


def distribution_detector(labels: int, bins: int = 16) -> nn.Module:
    """``person_detector`` whose boxes come from distributions.

    Args:
        labels: number of classes.
        bins: how many whole distances, 0 to ``bins`` - 1 strides, a side's distribution has.

    Raises:
        ValueError: there are less than 2 bins.
    """
    if bins < 2:
        raise ValueError(f"bins = {bins} must be at least 2")
    network = cast(Detector, person_detector(labels))
    network.add_module("boxes", DistributionHead(network.boxes.in_channels, bins))
    return network


class DistributionHead(nn.Module):
    """Features to distances: a distribution per side and cell by convolution and Softmax, then its mean."""

    steps: Tensor

    def __init__(self, inputs: int, bins: int) -> None:
        """Features have ``inputs`` channels; before training the means lie near ``TYPICAL_DISTANCE``."""
        super().__init__()
        self.bins = bins
        self.logits = nn.Conv2d(inputs, SIDES * bins, 1)
        distances = torch.arange(bins, dtype=torch.float32)
        self.register_buffer("steps", distances.reshape(1, bins, 1, 1))
        nn.init.normal_(self.logits.weight, std=0.01)
        with torch.no_grad():
            cast(Tensor, self.logits.bias).copy_((-2 * (distances - TYPICAL_DISTANCE).abs()).repeat(SIDES))

    def forward(self, features: Tensor) -> Tensor:
        """[N, inputs, H, W] to distances [N, 4, H, W] in strides, from 0 to bins - 1."""
        count, _, rows, columns = features.shape
        logits = self.logits(features).reshape(count, SIDES, self.bins, rows * columns)
        shares = logits.transpose(1, 2).softmax(dim=1)
        return nn.functional.conv2d(shares, self.steps).reshape(count, SIDES, rows, columns)
