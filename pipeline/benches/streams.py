"""``npu-run`` on the use case's video against the loop that one would write by hand around ONNX Runtime.

The loop does the same work with the same model, frame after frame: PyAV decodes, OpenCV resizes, ONNX Runtime infers
the exported model, boxes are decoded, suppressed, and tracked. ``npu-run`` overlaps these steps. Host times: the NPU is
simulated, so none is a device's time.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import onnxruntime as ort

from pipeline.benches.rows import Row
from pipeline.config import CocoData, RunConfig
from pipeline.errors import ModelError
from pipeline.stages.common import MODEL
from pipeline.workspace import Progress
from runtime.adapters.detection import decode
from runtime.adapters.image import PAD, Pixels, Placement, normalize
from runtime.app import Options, play_all
from runtime.bundle import Bundle, open_bundle
from runtime.session import Session
from runtime.streams.engine import Fixed
from runtime.tracking import PeopleTracker

FRAMES = 400
"""Frames that a contender plays before the next one's turn."""

ROUNDS = 5
"""Turns of each contender; the processors have other work in between, so only pairs are compared."""

STARTS = 5
"""Processes that are started to find the fastest cold start."""


def rows(config: RunConfig, folder: Path, progress: Progress) -> Iterator[Row]:
    """Frames per second and cold starts; nothing for a use case without a video.

    Raises:
        ModelError: the use case has not been run to its end, or its video cannot be played or is too short.
        BundleError: its bundle cannot be opened.
    """
    path, model = folder / "package" / f"{config.name}.npub", folder / "export" / MODEL
    if isinstance(config.data, CocoData):
        return
    if not path.is_file() or not model.is_file():
        fix = f"pipeline run the {config.name} config first"
        raise ModelError("there is no bundle to measure", where=folder, fix=fix)
    progress.start(0, "playing the video")
    opened, video = open_bundle(path), config.data.video
    plays = {name: partial(played, Session(opened, name), video) for name in ("cpu", "npu")}
    yield from _speeds({"loop": partial(looped, opened, model.read_bytes(), video), **plays}, progress)
    for delegate in ("cpu", "npu"):
        yield _cold_start(path, video, delegate)
        progress.advance()


def _speeds(contenders: dict[str, Callable[[], float]], progress: Progress) -> Iterator[Row]:
    """Frames per second of each contender, and its ratio to the loop in the same round."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, contender in contenders.items():
            found[name].append(contender())
            progress.advance()
    how = f"median of {ROUNDS} turns of {FRAMES} frames, first to last; decoded, inferred, tracked"
    yield Row("ONNX Runtime in a plain loop, frames per second", f"{statistics.median(found['loop']):.1f}", how)
    for name in contenders:
        if name != "loop":
            ratio = statistics.median(own / loop for own, loop in zip(found[name], found["loop"], strict=True))
            yield Row(f"npu-run --delegate {name}, frames per second", f"{statistics.median(found[name]):.1f}", how)
            yield Row(f"npu-run --delegate {name} / plain loop", f"{ratio:.2f}", "median of the turns' ratios")


def played(session: Session, video: Path, frames: int = FRAMES) -> float:
    """Frames per second of ``npu-run``'s own way, between the first frame's result and the last one's."""
    times: list[float] = []
    options = Options(limit=frames)
    play_all(Fixed(session), (str(video),), options, listen=lambda result: times.append(time.perf_counter()))
    return _rate(times, video)


def looped(opened: Bundle, model: bytes, video: Path, frames: int = FRAMES) -> float:
    """Frames per second of the loop: one step after the other, each by the library that people use for it."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    manifest, name, times = opened.manifest, session.get_inputs()[0].name, []
    names = [output.name for output in session.get_outputs()]
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        tracker = PeopleTracker(manifest.lines, Fraction(stream.average_rate or 25), manifest.zones)
        for frame, _ in zip(container.decode(stream), range(frames), strict=False):
            pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
            image, placement = fitted(pixels, manifest.preprocess.width, manifest.preprocess.height)
            found = session.run(names, {name: normalize(image, manifest.preprocess)})
            outputs = dict(zip(names, found, strict=True))
            boxes = decode(outputs, manifest.decoder, placement, (pixels.shape[1], pixels.shape[0]))
            tracker.update(boxes, frame.time)
            times.append(time.perf_counter())
    return _rate(times, video)


def _rate(times: Sequence[float], video: Path) -> float:
    """Frames per second between the first of ``times`` and the last; raises ``ModelError`` for fewer than two."""
    if len(times) < 2:
        raise ModelError(f"gave {len(times)} frames; a rate needs two", where=video)
    return (len(times) - 1) / (times[-1] - times[0])


def fitted(frame: Pixels, width: int, height: int) -> tuple[Pixels, Placement]:
    """As ``runtime.adapters.image.letterbox``, resized by OpenCV."""
    rows, columns = frame.shape[:2]
    scale = min(width / columns, height / rows)
    size = (round(columns * scale), round(rows * scale))
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    canvas = np.full((height, width, 3), PAD, np.uint8)
    canvas[top : top + size[1], left : left + size[0]] = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return canvas, Placement(scale, left, top)


def _cold_start(path: Path, video: Path, delegate: str) -> Row:
    """From the start of a process to the first frame's boxes, as ``npu-run`` itself says."""
    words = [sys.executable, "-m", "runtime", path, "--source", video, "--limit", "1", "--json", "--delegate", delegate]
    seconds = []
    for _ in range(STARTS):
        done = subprocess.run([str(word) for word in words], check=False, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise ModelError(f"npu-run does not play {video}: {last}", where=path)
        seconds.append(json.loads(done.stdout)["cold_start_s"])
    how = f"from a process's start to the first frame's boxes, tracked; fastest of {STARTS}"
    known = [each for each in seconds if each is not None]
    return Row(f"npu-run --delegate {delegate}, cold start, s", f"{min(known):.2f}" if known else "not known", how)
