"""Images at the network's size as torch datasets."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from pipeline.tasks.detection.augment import Augment
from pipeline.tasks.detection.data import Split
from pipeline.workspace import Progress
from runtime.adapters.image import Pixels, Placement, Preprocess, letterbox

Key = tuple[int, int]


class Images(Protocol):
    """Letterboxed images by position."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, position: int) -> tuple[Pixels, Placement]:
        """uint8 [H, W, 3] at the network's size, and where the frame lies in it."""


@dataclass(frozen=True)
class FileImages:
    """Images that are opened and letterboxed each time they are asked for."""

    split: Split
    preprocess: Preprocess

    def __len__(self) -> int:
        """How many there are."""
        return len(self.split.images)

    def __getitem__(self, position: int) -> tuple[Pixels, Placement]:
        """See :class:`Images`; raises ``DataError`` for a damaged file."""
        frame = next(iter(self.split.frames([position])))
        return letterbox(frame, self.preprocess.width, self.preprocess.height)


@dataclass(frozen=True)
class CachedImages:
    """Images that were decoded once into a file that is mapped into memory."""

    pixels: NDArray[np.uint8]
    placements: tuple[Placement, ...]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.placements)

    def __getitem__(self, position: int) -> tuple[Pixels, Placement]:
        """See :class:`Images`."""
        return self.pixels[position], self.placements[position]


def open_images(split: Split, preprocess: Preprocess, cache: Path, progress: Progress) -> Images:
    """The images of ``split``; those of a video are decoded, all at once, into the file ``cache``.

    Raises:
        DataError: the video is damaged or too short.
    """
    if split.seekable:
        return FileImages(split, preprocess)
    shape = (len(split.images), preprocess.height, preprocess.width, 3)
    placements = []
    progress.start(len(split.images), "decode frames")
    with cache.open("wb") as file:
        for frame in split.frames(range(len(split.images))):
            pixels, placement = letterbox(frame, preprocess.width, preprocess.height)
            file.write(pixels.tobytes())
            placements.append(placement)
            progress.advance()
    return CachedImages(np.memmap(cache, np.uint8, "r", shape=shape), tuple(placements))


class TrainingBatch(NamedTuple):
    """Images uint8 [N, 3, H, W], boxes float [N, M, 4] in input pixels, labels int64 [N, M] padded with -1."""

    images: Tensor
    boxes: Tensor
    labels: Tensor


class TrainingSet(Dataset[list[Tensor]]):
    """Augmented images, asked for by (epoch, position)."""

    def __init__(self, images: Images, split: Split, augment: Augment) -> None:
        """``images`` are those of ``split``, letterboxed."""
        self._images = images
        self._split = split
        self._augment = augment

    def __len__(self) -> int:
        """How many images an epoch has."""
        return len(self._images)

    def __getitem__(self, key: Key) -> list[Tensor]:
        """Image uint8 [3, H, W], boxes float [N, 4] in input pixels, labels int64 [N]."""
        pixels, placement = self._images[key[1]]
        truth = self._split.images[key[1]]
        offset = np.array([placement.left, placement.top] * 2, np.float32)
        boxes = truth.boxes * np.float32(placement.scale) + offset
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()
        return self._augment(image, torch.from_numpy(boxes), torch.from_numpy(truth.labels), key)


def collate(items: list[list[Tensor]]) -> TrainingBatch:
    """Stack images, pad boxes with zeros and labels with -1."""
    most = max(len(labels) for _, _, labels in items)
    boxes = torch.zeros(len(items), most, 4)
    labels = torch.full((len(items), most), -1, dtype=torch.int64)
    for i, (_, item_boxes, item_labels) in enumerate(items):
        boxes[i, : len(item_boxes)] = item_boxes
        labels[i, : len(item_labels)] = item_labels
    return TrainingBatch(torch.stack([image for image, _, _ in items]), boxes, labels)


class ValidationSet(Dataset[tuple[Tensor, int]]):
    """Images as they are, with their positions."""

    def __init__(self, images: Images) -> None:
        """``images`` are letterboxed."""
        self.images = images

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        """Image uint8 [3, H, W] and its position."""
        pixels, _ = self.images[position]
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous(), position


class EpochSampler(DistributedSampler[Key]):
    """A shuffle that depends on seed and epoch only, shared out over the ranks; yields (epoch, position)."""

    def __iter__(self) -> Iterator[Key]:
        """This rank's share of the epoch that ``set_epoch`` chose."""
        epoch = self.epoch
        return ((epoch, int(position)) for position in super().__iter__())  # type: ignore[call-overload]
