"""Random changes to training images, each a function of seed, epoch and position only."""

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from pipeline.config import AugmentConfig
from runtime.adapters.image import PAD

SMALLEST = 2.0
"""Boxes with a side below this, in input pixels, are dropped after the changes."""


class Augment:
    """Flip, zoom, shift and recolour an image together with its boxes."""

    def __init__(self, config: AugmentConfig, seed: int) -> None:
        """Compose the transforms that ``config`` does not turn off."""
        self._seed = seed
        self._transforms = v2.Compose(_transforms(config))

    def __call__(self, image: Tensor, boxes: Tensor, labels: Tensor, key: tuple[int, int]) -> list[Tensor]:
        """Change one image.

        Args:
            image: uint8 [3, H, W].
            boxes: float [N, 4], corners in pixels.
            labels: int64 [N].
            key: epoch and position of the image; the same key gives the same result in any process.

        Returns:
            Image, boxes and labels of the same types; boxes that left the image are gone.
        """
        height, width = image.shape[-2:]
        wrapped = {
            "image": tv_tensors.Image(image),
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
            "labels": labels,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mixed(self._seed, *key))
            changed = self._transforms(wrapped)
        return [changed[name].as_subclass(Tensor) for name in ("image", "boxes", "labels")]


def mixed(*numbers: int) -> int:
    """One 64-bit seed from several numbers, the same everywhere."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _transforms(config: AugmentConfig) -> list[v2.Transform]:
    chosen: list[v2.Transform] = []
    if config.flip:
        chosen.append(v2.RandomHorizontalFlip(config.flip))
    if config.scale or config.shift:
        chosen.append(
            v2.RandomAffine(
                degrees=0,
                translate=(config.shift, config.shift),
                scale=(1 - config.scale, 1 + config.scale),
                interpolation=v2.InterpolationMode.BILINEAR,
                fill=PAD,
            )
        )
    if config.colour:
        chosen.append(v2.ColorJitter(config.colour, config.colour, config.colour))
    return [*chosen, v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(min_size=SMALLEST)]
