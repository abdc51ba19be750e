"""Networks for stage tests: what a user's own factory may look like."""

import torch
from torch import nn


class Tiny(nn.Module):
    """Stride 8, a few channels, with ``activation`` in the middle."""

    def __init__(self, labels, activation):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, 2, 1, groups=8))
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 1), activation)
        self.scores, self.boxes = nn.Conv2d(8, labels, 1), nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU())

    def forward(self, images):
        features = self.stem(images)
        features = features + self.middle(features)
        return {"scores": self.scores(features), "boxes": self.boxes(features)}


def tied(labels):
    """A layer that is used twice, by two names."""
    net = plain(labels)
    net.again = net.middle
    return net


def plain(labels):
    torch.manual_seed(0)
    return Tiny(labels, nn.ReLU())


def swish(labels):
    torch.manual_seed(0)
    return Tiny(labels, nn.Hardswish())


def erf(labels):
    """With an activation that ONNX spells out in operators of which one cannot be trained with rounding."""
    torch.manual_seed(0)
    return Tiny(labels, nn.GELU())
