"""An NPU-friendly, anchor-free detector: convolution, depthwise convolution, ReLU6, Add and nearest Resize.

Blocks are those of MobileNetV2 (https://arxiv.org/abs/1801.04381), the dense outputs those of FCOS
(https://arxiv.org/abs/1904.01355) at one stride, with one top-down step (https://arxiv.org/abs/1612.03144).
Batch normalisation folds into the convolutions on export.
"""

import math

import torch
from torch import Tensor, nn

STRIDE = 8
PRIOR = 0.01
"""Score of every cell before training, so that the many empty cells do not swamp the first steps."""

TYPICAL_DISTANCE = 1.5
"""Distance from a cell to a side of its box before training, in strides."""


def person_detector(labels: int, width: float = 1.0, expand: int = 4, depth: int = 3) -> nn.Module:
    """A small detector, about 145 thousand parameters as it is.

    Args:
        labels: number of classes.
        width: multiplies all channel counts, which are then rounded up to multiples of 8.
        expand: how much wider a block is inside.
        depth: blocks at stride 16; one less at stride 8.

    Raises:
        ValueError: ``width``, ``expand`` or ``depth`` is not positive.
    """
    if min(width, expand, depth) <= 0:
        raise ValueError(f"width = {width}, expand = {expand}, depth = {depth} must be positive")
    stem, low, middle, high, head = (max(8, 8 * math.ceil(c * width / 8)) for c in (16, 24, 40, 64, 48))
    fine = nn.Sequential(
        conv(3, stem, stride=2),
        InvertedResidual(stem, low, stride=2, expand=1),
        InvertedResidual(low, middle, stride=2, expand=expand),
        *(InvertedResidual(middle, middle, stride=1, expand=expand) for _ in range(depth - 1)),
    )
    coarse = nn.Sequential(
        InvertedResidual(middle, high, stride=2, expand=expand),
        *(InvertedResidual(high, high, stride=1, expand=expand) for _ in range(depth - 1)),
    )
    return Detector(TwoStages(fine, coarse), (middle, high), head, labels)


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU6; pads so that stride 1 keeps the size."""
    return nn.Sequential(
        *linear(inputs, outputs, size, stride, groups),
        nn.ReLU6(inplace=True),
    )


def linear(inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution and batch normalisation without an activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class InvertedResidual(nn.Module):
    """Widen with 1x1, filter depthwise with 3x3, narrow with 1x1 without activation; add the input if it fits."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        """``expand`` = 1 leaves out the widening convolution."""
        super().__init__()
        hidden = inputs * expand
        self.body = nn.Sequential(
            *([conv(inputs, hidden, size=1)] if expand > 1 else []),
            conv(hidden, hidden, stride=stride, groups=hidden),
            linear(hidden, outputs),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)]."""
        result: Tensor = self.body(features)
        return features + result if self.shortcut else result


class TwoStages(nn.Module):
    """A backbone as two pieces in sequence."""

    def __init__(self, fine: nn.Module, coarse: nn.Module) -> None:
        """``fine`` goes from the image to stride 8, ``coarse`` from there to stride 16."""
        super().__init__()
        self.fine = fine
        self.coarse = coarse

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [N, 3, H, W] to features at strides 8 and 16."""
        fine = self.fine(images)
        return fine, self.coarse(fine)


class Detector(nn.Module):
    """Any backbone with features at strides 8 and 16, a top-down step and a dense head at stride 8."""

    def __init__(self, backbone: nn.Module, channels: tuple[int, int], head: int, labels: int) -> None:
        """Features have ``channels`` at strides 8 and 16; the head has ``head`` channels."""
        super().__init__()
        self.backbone = backbone
        self.lateral = linear(channels[0], head)
        self.top = linear(channels[1], head)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.head = nn.Sequential(
            conv(head, head, groups=head),
            conv(head, head, size=1),
            conv(head, head, groups=head),
            conv(head, 2 * head, size=1),
        )
        self.scores = nn.Conv2d(2 * head, labels, 1)
        self.boxes = nn.Conv2d(2 * head, 4, 1)
        self._initialise()

    def _initialise(self) -> None:
        for output, bias in (
            (self.scores, -math.log((1 - PRIOR) / PRIOR)),
            (self.boxes, TYPICAL_DISTANCE),
        ):
            nn.init.normal_(output.weight, std=0.01)
            nn.init.constant_(output.bias, bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images to scores and boxes.

        Args:
            images: float32 [N, 3, H, W]; H and W are multiples of 16.

        Returns:
            Scores [N, labels, H / 8, W / 8], logits; boxes [N, 4, H / 8, W / 8]: left, top, right and bottom
            distances from the cell's centre, in units of the stride, not clipped.
        """
        fine, coarse = self.backbone(images)
        features = self.head(self.lateral(fine) + self.up(self.top(coarse)))
        return self.scores(features), self.boxes(features)


def count_parameters(network: nn.Module) -> int:
    """Trainable numbers in ``network``."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def example_input(width: int, height: int) -> Tensor:
    """A black image, float32 [1, 3, height, width]."""
    return torch.zeros(1, 3, height, width)
