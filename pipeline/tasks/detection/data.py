"""The training and validation splits: which images, with which boxes, read one at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.config import CocoData, VideoData
from pipeline.errors import DataError
from pipeline.tasks.detection.coco import AnnotatedImage, Annotations, read_annotations
from pipeline.tasks.detection.video import declared_frames, read_frames

Pixels = NDArray[np.uint8]


class Split(Protocol):
    """Images with boxes, in a fixed order."""

    @property
    def images(self) -> tuple[AnnotatedImage, ...]:
        """What is known about each image."""

    @property
    def seekable(self) -> bool:
        """Whether one image can be read without reading those before it."""

    def frames(self, wanted: Sequence[int]) -> Iterator[Pixels]:
        """The images at positions ``wanted`` (ascending), uint8 [H, W, 3] RGB; raises ``DataError``."""


@dataclass(frozen=True)
class VideoSplit:
    """Annotated frames of one video, by ascending ``frame_index``."""

    video: Path
    images: tuple[AnnotatedImage, ...]
    seekable: bool = False

    def frames(self, wanted: Sequence[int]) -> Iterator[Pixels]:
        """See :class:`Split`; decodes the video from its start."""
        indices = [index for i in wanted if (index := self.images[i].frame_index) is not None]
        for i, frame in zip(wanted, read_frames(self.video, indices), strict=True):
            yield _sized(frame, self.images[i], self.video)


@dataclass(frozen=True)
class FolderSplit:
    """Image files in a folder."""

    folder: Path
    images: tuple[AnnotatedImage, ...]
    seekable: bool = True

    def frames(self, wanted: Sequence[int]) -> Iterator[Pixels]:
        """See :class:`Split`; opens one file per image."""
        for i in wanted:
            path = self.folder / self.images[i].name
            yield _sized(_read_image(path), self.images[i], path)


def load_splits(data: VideoData | CocoData) -> tuple[tuple[str, ...], Split, Split]:
    """Labels, training split and validation split.

    Raises:
        DataError: a file is missing or damaged, the splits overlap, or a split has no boxes.
    """
    labels, train, validation = _video(data) if isinstance(data, VideoData) else _folders(data)
    for split, name, path in (
        (train, "training", data.annotations if isinstance(data, VideoData) else data.train_annotations),
        (
            validation,
            "validation",
            data.annotations if isinstance(data, VideoData) else data.validation_annotations,
        ),
    ):
        if not any(len(image.boxes) for image in split.images):
            raise DataError(
                f"the {name} split has {len(split.images)} images and no boxes", where=path, fix="add boxes"
            )
    return labels, train, validation


def _video(data: VideoData) -> tuple[tuple[str, ...], Split, Split]:
    (train_start, train_end), (start, end) = data.train_frames, data.validation_frames
    for key, (first, last) in (
        ("train_frames", data.train_frames),
        ("validation_frames", data.validation_frames),
    ):
        if not 0 <= first < last:
            raise DataError(f"[{first}, {last}] is not a range of frames", where=f"data.{key}", fix="[0, 600]")
    if max(train_start, start) < min(train_end, end):
        raise DataError(
            f"[{start}, {end}] overlaps data.train_frames [{train_start}, {train_end}]",
            where="data.validation_frames",
            fix="validate on frames that training does not see",
        )
    declared = declared_frames(data.video)
    if declared is not None and max(train_end, end) > declared:
        raise DataError(
            f"the video has {declared} frames, the splits go to frame {max(train_end, end) - 1}",
            where=data.video,
            fix="shorten data.train_frames and data.validation_frames, or give the whole video",
        )
    annotations = read_annotations(data.annotations)
    ordered = _by_frame(annotations, data.annotations)
    _covered(ordered, declared, data)
    splits = [
        VideoSplit(data.video, tuple(image for index, image in ordered if first <= index < last))
        for first, last in (data.train_frames, data.validation_frames)
    ]
    return annotations.labels, splits[0], splits[1]


def _by_frame(annotations: Annotations, path: Path) -> list[tuple[int, AnnotatedImage]]:
    found: dict[int, AnnotatedImage] = {}
    for image in annotations.images:
        if image.frame_index is None:
            raise DataError(f"image {image.name} has no frame_index", where=path, fix="add its 0-based frame")
        if image.frame_index in found:
            raise DataError(f"frame_index {image.frame_index} occurs twice", where=path, fix="list each frame once")
        found[image.frame_index] = image
    return sorted(found.items())


def _covered(ordered: list[tuple[int, AnnotatedImage]], declared: int | None, data: VideoData) -> None:
    """The annotations must not go past the end of the video, nor start before it."""
    if ordered and ordered[0][0] < 0:
        raise DataError(f"frame_index {ordered[0][0]} is negative", where=data.annotations, fix="frames count from 0")
    if declared is not None and ordered and ordered[-1][0] >= declared:
        raise DataError(
            f"the video has {declared} frames, {data.annotations.name} has boxes up to frame {ordered[-1][0]}",
            where=data.video,
            fix="give the video that was annotated",
        )


def _folders(data: CocoData) -> tuple[tuple[str, ...], Split, Split]:
    train, validation = read_annotations(data.train_annotations), read_annotations(data.validation_annotations)
    if train.labels != validation.labels:
        raise DataError(
            f"categories are {', '.join(validation.labels)}; training has {', '.join(train.labels)}",
            where=data.validation_annotations,
            fix="use the same categories in both files",
        )
    splits = FolderSplit(data.train_images, train.images), FolderSplit(data.validation_images, validation.images)
    files = [{(split.folder / image.name).resolve() for image in split.images} for split in splits]
    shared = sorted(files[0] & files[1])
    if shared:
        raise DataError(
            f"{len(shared)} images are also used for training, first {shared[0].name}",
            where=data.validation_annotations,
            fix="validate on images that training does not see",
        )
    for path in sorted(files[0] | files[1]):
        if not _is_file(path):
            raise DataError("the image is annotated but missing", where=path, fix="add the file, or drop its entry")
    return train.labels, *splits


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that no file can have
        return False


def _read_image(path: Path) -> Pixels:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise DataError("the file is not an image", where=path, fix="restore or remove it") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"the image cannot be decoded: {error}", where=path, fix="restore or remove it") from None


def _sized(frame: Pixels, image: AnnotatedImage, path: Path) -> Pixels:
    height, width = frame.shape[:2]
    if (width, height) != (image.width, image.height):
        raise DataError(
            f"{image.name} is {width} x {height} pixels, its annotations say {image.width} x {image.height}",
            where=path,
            fix="use the images that were annotated, at their size",
        )
    return frame
