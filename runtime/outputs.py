"""Where results go: events as JSON lines, and an annotated video."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from runtime.adapters.detection import Detections
from runtime.errors import UserError
from runtime.sources import Frame, missing_extra

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

Counts = Mapping[str, Mapping[str, int]]

ENCODERS = ("libx264", "mpeg4")
"""H.264 where FFmpeg has it, else MPEG-4 part 2."""


@dataclass(frozen=True)
class FrameResult:
    """One frame and what was found in it.

    Attributes:
        index: 0 for the first frame.
        frame: the picture and its time.
        found: the boxes.
        tracks: int64 [N], the track of every box, -1 for none; ``None`` when nothing is tracked.
        counts: crossings so far, by line.
        occupancy: tracks inside now, by zone.
        source: what the frame is from.
    """

    index: int
    frame: Frame
    found: Detections
    tracks: NDArray[np.int64] | None
    counts: Counts
    occupancy: Mapping[str, int] = field(default_factory=dict)
    source: str = ""

    def event(self, labels: Sequence[str], *, named: bool = False) -> dict[str, object]:
        """The frame as one line of ``--events``; boxes as x, y, width, height in source pixels.

        Args:
            labels: of the classes.
            named: say the source, since there are several.
        """
        detections = []
        for index, (left, top, right, bottom) in enumerate(self.found.boxes.tolist()):
            track = -1 if self.tracks is None else int(self.tracks[index])
            detections.append(
                {
                    "box": [round(value, 2) for value in (left, top, right - left, bottom - top)],
                    "score": round(float(self.found.scores[index]), 4),
                    "label": labels[self.found.labels[index]],
                    "track": None if track < 0 else track,
                }
            )
        time = round(self.frame.time_s, 6)
        facts = {"frame": self.index, "time_s": time, "detections": detections, "counts": self.counts}
        return {"source": self.source, **facts} if named else facts


class EventLog:
    """Events as JSON lines; every line is whole on disk before the next frame begins."""

    def __init__(self, path: Path, labels: Sequence[str], *, named: bool = False, patient: bool = False) -> None:
        """Create or empty the file at ``path``.

        Args:
            path: of the file.
            labels: of the classes.
            named: say the source in every line, since there are several.
            patient: leave out lines while the disk is full, and go on when there is room; ``lost`` counts them.

        Raises:
            UserError: it cannot be written.
        """
        self._path, self._labels, self._named, self._patient = path, labels, named, patient
        self._size = self.lost = 0
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror}", where=path) from error

    def write(self, result: FrameResult) -> None:
        """Append one frame.

        Raises:
            UserError: the file cannot be written any more.
        """
        event = result.event(self._labels, named=self._named)
        line = memoryview((json.dumps(event, ensure_ascii=False) + "\n").encode())
        size = len(line)
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            if not self._patient:
                raise UserError(f"cannot be written: {error.strerror}", where=self._path) from error
            self.lost += 1
            self._file.truncate(self._size)  # the part of the line that was written
            self._file.seek(self._size)
            return
        self._size += size

    def __enter__(self) -> Self:
        """Use it in a ``with`` statement."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file; what was written stays."""
        self._file.close()


class VideoFile:
    """An mp4 (H.264, yuv420p) that takes its name when it is finished; what was encoded before an error is kept."""

    def __init__(self, path: Path, rate: Fraction, size: tuple[int, int]) -> None:
        """Open a temporary file beside ``path``.

        Args:
            path: of the finished file; ``.mp4``.
            rate: frames per second.
            size: width and height of the frames, in pixels; odd sizes lose a column or row.

        Raises:
            UserError: ``path`` is not ``.mp4``, cannot be written, or there is no encoder.
            SourceError: PyAV is not installed.
        """
        if path.suffix.lower() != ".mp4":
            raise UserError("an annotated video is an mp4 file", where=path, fix=f"name it {path.stem}.mp4")
        if path.is_dir():
            raise UserError("cannot be written: it is a folder", where=path, fix="give another name")
        try:
            import av  # noqa: PLC0415 - of the video extra
        except ModuleNotFoundError as error:
            raise missing_extra("av") from error
        self._path, self._size = path, size
        self._temporary = path.with_name(f".{path.name}.partial")
        self._frames = 0
        encoder = _encoder(path)
        try:
            self._temporary.open("wb").close()  # FFmpeg would open it with its first packet, many frames later
            self._container = av.open(str(self._temporary.absolute()), "w", format="mp4")
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"cannot be written: {error.strerror}", where=path) from error
        self._stream = _stream(self._container, encoder, rate, size)

    def write(self, pixels: NDArray[np.uint8]) -> None:
        """Append a frame, uint8 [H, W, 3], RGB.

        Raises:
            UserError: the frame has another size than the first, or the file cannot be written any more.
        """
        import av  # noqa: PLC0415 - of the video extra

        size = (pixels.shape[1], pixels.shape[0])
        if size != self._size:
            fact = f"frame {self._frames} is {size[0]}x{size[1]}, the video is {self._size[0]}x{self._size[1]}"
            raise UserError(fact, where=self._path, fix="annotate frames of one size")
        even = np.ascontiguousarray(pixels[: self._stream.height, : self._stream.width])
        try:
            self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"cannot be written: {error.strerror}", where=self._path) from error
        self._frames += 1

    def __enter__(self) -> Self:
        """Use it in a ``with`` statement."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Finish the file and give it its name; throw it away when it holds no frame.

        Raises:
            UserError: the file cannot be written.
        """
        import av  # noqa: PLC0415 - of the video extra

        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            if self._frames:
                self._temporary.replace(self._path)
        except (av.FFmpegError, OSError) as failure:
            raise UserError(f"cannot be written: {failure.strerror}", where=self._path) from failure
        finally:
            self._temporary.unlink(missing_ok=True)


def _encoder(path: Path) -> str:
    """The first of ``ENCODERS`` that FFmpeg has."""
    import av  # noqa: PLC0415 - of the video extra

    for encoder in ENCODERS:
        try:
            av.codec.Codec(encoder, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        return encoder
    raise UserError(f"FFmpeg has no encoder of {', '.join(ENCODERS)}", where=path, fix="reinstall av")


def _stream(container: "OutputContainer", encoder: str, rate: Fraction, size: tuple[int, int]) -> "VideoStream":
    stream: VideoStream = container.add_stream(encoder, rate=rate)  # type: ignore[assignment]
    stream.width, stream.height = (max(2, side - side % 2) for side in size)
    stream.pix_fmt = "yuv420p"
    stream.options = {"preset": "veryfast"} if encoder == "libx264" else {"qscale": "4"}
    return stream
