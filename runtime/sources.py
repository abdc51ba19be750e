"""Where frames come from: videos and cameras (PyAV), images (Pillow), ``.npy`` arrays (nothing extra)."""

import re
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.errors import SourceError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
TEXT = "tty"
"""FFmpeg's format that plays text files as if they were typed on a terminal."""

STILL_RATE = Fraction(1)
"""Frames per second that images and arrays, which carry no time, are given."""


@dataclass(frozen=True)
class Frame:
    """A picture: uint8 [H, W, 3], RGB, and its time in seconds after the first one."""

    pixels: NDArray[np.uint8]
    time_s: float


Frames = Generator[Frame, None, None]


@dataclass(frozen=True)
class Source:
    """Frames, opened and not yet read.

    Attributes:
        name: what the user called it.
        rate: nominal frames per second.
        frames: decoded one by one as they are asked for; raises ``SourceError`` where the source breaks.
    """

    name: str
    rate: Fraction
    frames: Frames


def missing_extra(package: str) -> SourceError:
    """The error for a package of the ``video`` extra that is not installed."""
    fix = "pip install av pillow supervision trackers"
    return SourceError(f"the package {package} is needed and is not installed", fix=fix)


def open_source(text: str) -> Source:
    """Open what ``--source`` names: a camera's number or device, a folder, an image, a ``.npy`` file, or a video.

    Raises:
        SourceError: it does not exist, cannot be read, holds no frame, or needs the ``video`` extra.
    """
    if text.isdigit() or re.fullmatch(r"/dev/video\d+", text):
        return _camera(f"/dev/video{text}" if text.isdigit() else text)
    path = Path(text)
    try:
        path.stat()
    except FileNotFoundError:
        raise SourceError("there is no such file or folder", where=text) from None
    except OSError as error:
        raise SourceError(f"cannot be opened: {error.strerror}", where=text) from error
    if path.is_dir():
        return _images(text, sorted(item for item in path.iterdir() if item.suffix.lower() in IMAGES))
    if path.suffix == ".npub":
        raise SourceError("is a bundle, not a source", where=text, fix="give a video, images or a camera")
    if path.suffix == ".npy":
        return _arrays(text, path)
    if path.suffix.lower() in IMAGES:
        return _images(text, [path])
    return _video(text)


def _arrays(text: str, path: Path) -> Source:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, OverflowError, SyntaxError, TokenError) as error:
        raise SourceError(f"is not an array ({error})", where=text) from error
    if not isinstance(array, np.ndarray):
        raise SourceError("is not one array but a file of several", where=text, fix="give a .npy file")
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3 or array.size == 0:
        fact = f"is {array.dtype} {list(array.shape)}"
        raise SourceError(fact, where=text, fix="give uint8 [H, W, 3] or [frames, H, W, 3], RGB")
    frames = array[None] if array.ndim == 3 else array
    return Source(text, STILL_RATE, (Frame(np.ascontiguousarray(f), float(i)) for i, f in enumerate(frames)))


def _images(text: str, paths: list[Path]) -> Source:
    if not paths:
        raise SourceError("holds no images", where=text, fix=f"known are {', '.join(sorted(IMAGES))}")
    try:
        from PIL import Image  # noqa: PLC0415 - of the video extra
    except ModuleNotFoundError as error:
        raise missing_extra("pillow") from error

    def decode() -> Frames:
        for index, path in enumerate(paths):
            try:
                with Image.open(path) as image:
                    yield Frame(np.asarray(image.convert("RGB")), float(index))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise SourceError(f"frame {index} cannot be decoded ({error})", where=path) from error

    return Source(text, STILL_RATE, decode())


def _camera(device: str) -> Source:
    if not Path(device).exists():
        raise SourceError("there is no such camera", where=device, fix="plug one in, or give a video or images")
    return _video(device, "v4l2")


def _video(text: str, kind: str | None = None) -> Source:
    try:
        import av  # noqa: PLC0415 - of the video extra
    except ModuleNotFoundError as error:
        raise missing_extra("av") from error
    try:
        # absolute, since FFmpeg takes a colon in a relative name for a protocol; tags need not be UTF-8
        container = av.open(str(Path(text).absolute()), format=kind, metadata_errors="replace")
    except av.FFmpegError as error:
        raise SourceError(f"cannot be opened as a video ({error.strerror})", where=text) from error
    if not container.streams.video or container.format.name == TEXT:
        container.close()
        raise SourceError("has no video in it", where=text)
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    rate = Fraction(stream.average_rate or stream.base_rate or 25)
    return Source(text, rate, _decode(text, container, stream, rate))


def _expected(container: "InputContainer", stream: "VideoStream") -> int:
    """Frames that the file says it has; 0 when it does not say, as a camera."""
    if stream.frames:
        return stream.frames
    if container.duration and stream.average_rate and len(container.streams) == 1:
        return int(Fraction(container.duration, 1_000_000) * stream.average_rate)
    return 0


def _decode(text: str, container: "InputContainer", stream: "VideoStream", rate: Fraction) -> Frames:
    """The frames; an error where decoding fails, or where they end 2 % (and two frames) short."""
    import av  # noqa: PLC0415 - of the video extra

    index, first, expected = 0, 0.0, _expected(container, stream)
    with container:
        try:
            for frame in container.decode(stream):
                time = float(index / rate) if frame.time is None else frame.time
                first = time if index == 0 else first
                yield Frame(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), time - first)
                index += 1
        except av.FFmpegError as error:
            raise SourceError(f"frame {index} cannot be decoded ({error.strerror})", where=text) from error
    if index < expected * 0.98 - 2:
        raise SourceError(f"breaks off: frame {index} is missing, of {expected} frames", where=text)
