"""Frames of a video file, streamed with PyAV."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from pipeline.errors import DataError

Pixels = NDArray[np.uint8]

TEXT = "tty"
"""FFmpeg's format that plays text files as if they were typed on a terminal."""


def read_frames(path: Path, wanted: Sequence[int]) -> Iterator[Pixels]:
    """The frames with the 0-based indices ``wanted`` (ascending), uint8 [H, W, 3] RGB, one at a time.

    Raises:
        DataError: the video is missing, cannot be decoded, or ends before the last wanted frame.
    """
    if not wanted:
        return
    with _open(path) as container:
        remaining = iter(wanted)
        target = next(remaining)
        count = 0
        try:
            for index, frame in enumerate(container.decode(video=0)):
                count = index + 1
                if index == target:
                    yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                    following = next(remaining, None)
                    if following is None:
                        return
                    target = following
        except av.FFmpegError as error:
            raise DataError(
                f"after {count} frames the video cannot be decoded: {error.strerror}",
                where=path,
                fix="restore the video",
            ) from None
    raise DataError(
        f"the video ends after {count} frames, its boxes are used up to frame {wanted[-1]}",
        where=path,
        fix="give the whole video, or shorten data.train_frames and data.validation_frames",
    )


def declared_frames(path: Path) -> int | None:
    """The number of frames that the container declares, or ``None`` when it does not say.

    Raises:
        DataError: the video is missing or cannot be opened.
    """
    with _open(path) as container:
        return container.streams.video[0].frames or None


def _open(path: Path) -> InputContainer:
    try:
        container = av.open(str(path), metadata_errors="replace")  # tags need not be UTF-8
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"the video cannot be opened: {error.strerror}", where=path, fix="give a video file") from None
    if not container.streams.video or container.format.name == TEXT:
        container.close()
        raise DataError("the file has no video stream", where=path, fix="give a video file")
    container.streams.video[0].thread_type = "AUTO"
    return container
