"""The figures that the README shows, measured again: the packaged bundle against its peers, in one run.

Host times are those of this machine and this run; read the ratios. The NPU is simulated, so none is a device's time.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort

from pipeline import tasks
from pipeline.benches import overlap
from pipeline.benches.rows import Row
from pipeline.benches.timing import ROUNDS, contest, ratio
from pipeline.config import RunConfig
from pipeline.errors import ModelError
from pipeline.stages.common import MODEL
from pipeline.tasks import Pixels, Task
from pipeline.workspace import Progress
from runtime.adapters.image import letterbox, normalize, prepare
from runtime.bundle import Bundle, open_bundle
from runtime.session import Session
from runtime.tensors import Tensors

BLOCK = 20
"""Frames that one contender runs before the next one's turn; threads that wait by spinning disturb only its first."""

OPEN = "import pathlib, sys, runtime.app, runtime.bundle; runtime.bundle.open_bundle(pathlib.Path(sys.argv[1]))"
"""What a process does that imports the runtime and opens the bundle it is given."""


def bench(config: RunConfig, folder: Path, progress: Progress) -> tuple[Row, ...]:
    """All figures of the use case whose results lie in ``folder``.

    Raises:
        ModelError: the use case has not been run to its end.
        BundleError: its bundle cannot be opened.
    """
    path = folder / "package" / f"{config.name}.npub"
    model = folder / "export" / MODEL
    if not path.is_file() or not model.is_file():
        raise ModelError(
            "there is no bundle to measure", where=folder, fix=f"pipeline run the {config.name} config first"
        )
    opened, task = open_bundle(path), tasks.load(config)
    return (
        *_accuracy(folder / "report.json"),
        *_bytes(opened, task, progress),
        *_speed(opened, task, model),
        *overlap.rows(opened, task),
        *_startup(path, opened),
    )


def _accuracy(report: Path) -> Iterator[Row]:
    """What the last run measured, from its report."""
    try:
        metrics = json.loads(report.read_bytes())["metrics"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"is not a report: {error}", where=report, fix="run the pipeline again") from error
    how = "of the last run, COCO metric on the validation frames"
    for what, name in (("AP50, float", "train.ap50"), ("AP50, simulated NPU", "package.ap50")):
        if metrics.get(name) is not None:
            yield Row(what, f"{metrics[name]:.4f}", how)


def _bytes(opened: Bundle, task: Task, progress: Progress) -> Iterator[Row]:
    """The simulated NPU's outputs against those of the plain kernels on every validation frame."""
    progress.start(0, "comparing with the plain kernels")
    fast, plain = Session(opened), Session(opened, "plain")
    compared = differing = frames = 0
    for inputs in _inputs(opened, task):
        expected = plain.run(inputs)
        for name, found in fast.run(inputs).items():
            compared += found.nbytes
            differing += int((found.view(np.uint8) != expected[name].view(np.uint8)).sum())
        frames += 1
        progress.advance()
    yield Row(
        "differing bytes", str(differing), f"simulated NPU against plain kernels, {compared} bytes, {frames} frames"
    )


def _inputs(opened: Bundle, task: Task) -> Iterator[Tensors]:
    manifest = opened.manifest
    spec = manifest.tensor(manifest.inputs[0])
    for pixels in _pixels(task):
        yield {spec.name: prepare(pixels, manifest.preprocess, spec)}


def _pixels(task: Task) -> Iterator[Pixels]:
    for sample in task.validation():
        yield letterbox(sample.frame, task.preprocess.width, task.preprocess.height)[0]


def _speed(opened: Bundle, task: Task, model: Path) -> Iterator[Row]:
    """Host time per frame of the simulated NPU and of ONNX Runtime's int8 session, both on all cores."""
    inputs = [each for each, _ in zip(_inputs(opened, task), range(BLOCK), strict=False)]
    images = [normalize(each, task.preprocess) for each, _ in zip(_pixels(task), range(BLOCK), strict=False)]
    npu = Session(opened)
    peer = ort.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    times = contest(
        {
            "npu": partial(_each, npu.run, inputs),
            "ort": partial(_each, partial(peer.run, None), [{task.input_name: image} for image in images]),
        }
    )
    milliseconds = {name: 1000 * statistics.median(values) / len(inputs) for name, values in times.items()}
    how = f"host time, all cores, median of {ROUNDS} blocks of {len(inputs)} frames in turn"
    yield Row("simulated NPU, ms per frame", f"{milliseconds['npu']:.2f}", how)
    yield Row("ONNX Runtime int8 (QDQ), ms per frame", f"{milliseconds['ort']:.2f}", how)
    yield Row("ratio", f"{ratio(times, 'npu', 'ort'):.2f}", "simulated NPU / ONNX Runtime int8, median of pairs")


def _each(run: Callable[[Tensors], object], inputs: Sequence[Tensors]) -> None:
    for tensors in inputs:
        run(tensors)


def _startup(path: Path, opened: Bundle) -> Iterator[Row]:
    how = "fastest of 5 processes"
    yield Row("runtime import and bundle open, s", _fastest([sys.executable, "-c", OPEN, str(path)]), how)
    yield Row("pipeline --help, s", _fastest([sys.executable, "-m", "pipeline", "--help"]), how)
    yield Row("bundle, bytes", str(opened.size), "size of the file")


def _fastest(command: Sequence[str]) -> str:
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return f"{min(seconds):.2f}"
