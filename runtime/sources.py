"""Where frames come from: videos, cameras and network streams (PyAV), images (Pillow), ``.npy`` (nothing extra)."""

import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tokenize import TokenError
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from runtime.errors import SourceError
from runtime.extras import install

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Kind = Literal["video", "images", "live"]

IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
TEXT = "tty"
"""FFmpeg's format that plays text files as if they were typed on a terminal."""

STILL_RATE = Fraction(1)
"""Frames per second that images and arrays, which carry no time, are given."""


STREAMS = ("rtsp", "rtsps", "rtmp", "http", "https")
"""Schemes of the network streams that are played."""

NETWORK = "rtsp,rtsps,rtmp,rtp,udp,tcp,tls,http,https,httpproxy,crypto"
"""FFmpeg's protocols that a stream may lead to; local files are not among them."""

TIMEOUT_S = 5.0
"""A stream that cannot be opened, or gives nothing, for so long is broken."""

PROBED: Mapping[str, str] = MappingProxyType({"probesize": "100000", "analyzeduration": "500000", "fpsprobesize": "0"})
"""Bytes, microseconds and frames of a stream that FFmpeg looks at before it begins; its own defaults take seconds."""


class Frame:
    """A picture and when it was taken.

    Attributes:
        time_s: seconds after the first frame of its source, never less than the frame before.
        captured: when a live frame arrived, in seconds since 1970 (UTC) by the host's clock; ``None`` for a file.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8] | Callable[[], NDArray[np.uint8]],
        time_s: float,
        captured: float | None = None,
    ) -> None:
        """Keep ``pixels``, uint8 [H, W, 3], RGB, or what converts them once they are asked for."""
        self._pixels = pixels
        self.time_s, self.captured = time_s, captured

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The picture: uint8 [H, W, 3], RGB; converted by the first thread that asks.

        Raises:
            SourceError: it cannot be converted.
        """
        if callable(self._pixels):
            self._pixels = self._pixels()
        return self._pixels

    def at(self, time_s: float, captured: float) -> "Frame":
        """The same picture at another time, not converted yet when this one is not."""
        return Frame(self._pixels, time_s, captured)


Frames = Generator[Frame, None, None]


@dataclass(frozen=True)
class Source:
    """Frames, opened and not yet read.

    Attributes:
        name: what the user called it; without the password of a stream's address.
        rate: nominal frames per second.
        frames: decoded one by one as they are asked for; raises ``SourceError`` where the source breaks.
        kind: ``video`` has an end and is tracked, ``images`` have nothing to do with each other, ``live`` has no end.
    """

    name: str
    rate: Fraction
    frames: Frames
    kind: Kind = "video"


def is_live(text: str) -> bool:
    """Whether ``--source`` names a camera or a network stream, so something without an end."""
    return _device(text) is not None or urlsplit(text).scheme in STREAMS


def public_name(text: str) -> str:
    """``--source`` as it may be shown: an address without user and password."""
    parts = urlsplit(text)
    if parts.scheme not in STREAMS or parts.hostname is None:
        return text
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _device(text: str) -> str | None:
    """The device file of a camera, by its number or name."""
    if text.isdigit() or re.fullmatch(r"/dev/video\d+", text):
        return f"/dev/video{text}" if text.isdigit() else text
    return None


def missing_extra(package: str) -> SourceError:
    """The error for a package of the ``video`` extra that is not installed."""
    return SourceError(f"the package {package} is needed and is not installed", fix=install("video"))


def open_source(text: str) -> Source:
    """Open what ``--source`` names: a camera, a stream's address, a folder, an image, a ``.npy`` file, or a video.

    Raises:
        SourceError: it does not exist, cannot be read, holds no frame, or needs the ``video`` extra.
    """
    device = _device(text)
    if device is not None:
        return _camera(device)
    if is_live(text):
        return _stream(text)
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
        from PIL import Image, ImageOps  # noqa: PLC0415 - of the video extra
    except ModuleNotFoundError as error:
        raise missing_extra("pillow") from error

    def decode() -> Frames:
        for index, path in enumerate(paths):
            try:
                with Image.open(path) as image:
                    upright = ImageOps.exif_transpose(image)  # as the camera was held
                    yield Frame(np.asarray(upright.convert("RGB")), float(index))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise SourceError(f"frame {index} cannot be decoded ({error})", where=path) from error

    return Source(text, STILL_RATE, decode(), "images")


def _camera(device: str) -> Source:
    if not Path(device).exists():
        raise SourceError("there is no such camera", where=device, fix="plug one in, or give a video or images")
    return _open(device, device, "live", format="v4l2")


def _stream(text: str) -> Source:
    options = {"protocol_whitelist": NETWORK, **PROBED}
    if text.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"
    return _open(text, public_name(text), "live", options=options)


def _video(text: str) -> Source:
    # absolute, since FFmpeg takes a colon in a relative name for a protocol
    return _open(str(Path(text).absolute()), text, "video")


def _open(
    address: str, name: str, kind: Kind, *, format: str | None = None, options: dict[str, str] | None = None
) -> Source:
    """Open ``address`` with FFmpeg."""
    try:
        import av  # noqa: PLC0415 - of the video extra
    except ModuleNotFoundError as error:
        raise missing_extra("av") from error
    try:
        # tags need not be UTF-8
        timeout = (TIMEOUT_S, TIMEOUT_S) if kind == "live" else None
        container = av.open(address, format=format, options=options, metadata_errors="replace", timeout=timeout)
    except (av.FFmpegError, OSError) as error:
        raise SourceError(f"cannot be opened as a video ({error.strerror})", where=name) from error
    if not container.streams.video or container.format.name == TEXT:
        container.close()
        raise SourceError("has no video in it", where=name)
    stream = container.streams.video[0]
    if kind == "live":
        stream.codec_context.thread_count = 1  # frame threads hold pictures back
    else:
        stream.thread_type = "AUTO"
    rate = Fraction(stream.average_rate or stream.base_rate or 25)
    return Source(name, rate, _decode(name, container, stream, rate, kind), kind)


def _expected(container: "InputContainer", stream: "VideoStream") -> int:
    """Frames that the file says it has; 0 when it does not say, as a camera."""
    if stream.frames:
        return stream.frames
    if container.duration and stream.average_rate and len(container.streams) == 1:
        return int(Fraction(container.duration, 1_000_000) * stream.average_rate)
    return 0


def _decode(text: str, container: "InputContainer", stream: "VideoStream", rate: Fraction, kind: Kind) -> Frames:
    """The frames; an error where decoding fails, or where a file's end 2 % (and two frames) short."""
    import av  # noqa: PLC0415 - of the video extra

    index, first, expected = 0, 0.0, 0 if kind == "live" else _expected(container, stream)
    with container:
        try:
            for frame in container.decode(stream):
                time = float(index / rate) if frame.time is None else frame.time
                first = time if index == 0 else first
                yield Frame(_conversion(text, index, frame), time - first)
                index += 1
        except (av.FFmpegError, OSError) as error:
            raise SourceError(f"frame {index} cannot be decoded ({error.strerror})", where=text) from error
    if index < expected * 0.98 - 2:
        raise SourceError(f"breaks off: frame {index} is missing, of {expected} frames", where=text)


def _conversion(text: str, index: int, frame: "VideoFrame") -> Callable[[], NDArray[np.uint8]]:
    """What converts a decoded frame to RGB, once somebody looks at it."""
    import av  # noqa: PLC0415 - of the video extra

    def convert() -> NDArray[np.uint8]:
        try:
            return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
        except av.FFmpegError as error:
            raise SourceError(f"frame {index} cannot be decoded ({error.strerror})", where=text) from error

    return convert
