"""The simulated NPU's host time and memory against ONNX Runtime's int8 session and TFLite's reference kernels.

Ratios of one run: contenders with the same threads, in turn. The NPU is simulated, so none is a device's time. What it
computes is compared first: a byte that differs from the plain kernels, or from TFLite's where the contract is theirs,
ends the benchmark.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.benches import peers, throughput
from pipeline.benches.rows import Row
from pipeline.benches.subjects import Subject, subjects
from pipeline.benches.timing import contest, ratio, repeated
from pipeline.compile.tflite import tflite, weight_scales
from pipeline.errors import ModelError
from pipeline.targets.profile import Target
from pipeline.workspace import Progress
from runtime.npu.contracts import find_contract
from runtime.npu.device import Device
from runtime.npu.encoding import dumps
from runtime.tensors import Tensors

THREADS = (1, 2)
RUNS = 8
"""Inferences of a contender before the next one's turn."""

MEMORY = """
import sys, pathlib
import numpy as np
def kib(field):
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith(field)))
def twice(start):
    first = start()
    peak, before = kib("VmHWM"), kib("VmRSS")
    second = start()
    print(peak, kib("VmRSS") - before)
"""
"""Peak memory of this process with one session that has run, and what a second session adds, in KiB."""

NPU_CHILD = f"""{MEMORY}
from runtime.npu.device import Device
from runtime.npu.encoding import loads
program = loads(pathlib.Path(sys.argv[1]).read_bytes())
specs = {{t.name: t for t in program.tensors}}
def start():
    device = Device(program, threads=1)
    device.run({{n: np.zeros(specs[n].shape, specs[n].dtype) for n in program.inputs}})
    return device
twice(start)
"""
PEER_CHILD = f"""{MEMORY}
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
def start():
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    session.run(None, {{i.name: np.zeros(i.shape, np.float32) for i in session.get_inputs()}})
    return session
twice(start)
"""


def rows(target: Target, exported: Path | None, picture: Path, progress: Progress) -> Iterator[Row]:
    """Host times, bits, peak memory and throughput.

    Args:
        target: whose contract the programs have.
        exported: a quantized model of float inputs that is wholly on the NPU, as the export stage leaves it.
        picture: where the plot of throughputs is written, an SVG.
        progress: is told what happens.

    Raises:
        ModelError: a byte differs, or an operator has no kernel.
    """
    progress.start(0, "measuring the simulated NPU")
    measured: list[Subject] = []
    for each in subjects(target, exported):  # the last one is MobileNetV2-224 again, with other scales
        for threads in THREADS:
            yield against_ort(each, threads)
            progress.advance()
        yield from against_tflite(each)
        if sys.platform == "linux":
            yield memory(each)
        measured.append(each)
    yield from throughput.rows(measured[:-1], target, picture, progress)


def against_ort(subject: Subject, threads: int) -> Row:
    """Host time by that of a QDQ session, after a comparison with the plain kernels."""
    device, inputs = subject.device(threads), subject.integers()
    same = compared(f"{subject.name}, plain kernels", device.run(inputs), Device(subject.program, False).run(inputs))
    peer, real = subject.session(threads)
    times = contest(
        {"npu": repeated(partial(device.run, inputs), RUNS), "ort": repeated(partial(peer.run, None, real), RUNS)}
    )
    npu, ort_ms = (1000 * min(times[key]) / RUNS for key in ("npu", "ort"))
    how = f"host time, {threads} thread{'s' * (threads > 1)}, median of pairs; fastest {npu:.2f} ms against "
    how += f"{ort_ms:.2f} ms; {same} differ from the plain kernels'"
    return Row(f"{subject.name}: simulated NPU / ONNX Runtime int8", f"{ratio(times, 'npu', 'ort'):.2f}", how)


def against_tflite(subject: Subject) -> Iterator[Row]:
    """How many times as long TFLite's reference kernels take, after a comparison of all outputs."""
    program = subject.program
    content = _tflite_file(subject)
    if isinstance(content, str):
        yield Row(f"{subject.name}: TFLite / simulated NPU", "-", content)
        return
    both = {
        "LiteRT's reference kernels": peers.litert(content),
        "tflite-micro": peers.micro(content, len(program.outputs)),
    }
    device, inputs = subject.device(1), subject.integers()
    feeds = [np.ascontiguousarray(channels_last(inputs[name])) for name in program.inputs]
    ours = {name: channels_last(value) for name, value in device.run(inputs).items()}
    for peer, run in both.items():
        same = compared(f"{subject.name}, {peer}", ours, dict(zip(program.outputs, run(feeds), strict=True)))
        times = contest({"npu": repeated(partial(device.run, inputs), RUNS), "peer": partial(run, feeds)}, 3)
        npu, other = 1000 * min(times["npu"]) / RUNS, 1000 * min(times["peer"])
        how = f"host time, 1 thread, median of pairs; fastest {other:.0f} ms against {npu:.2f} ms; {same} differ"
        yield Row(f"{subject.name}: {peer} / simulated NPU", f"{ratio(times, 'peer', 'npu') * RUNS:.0f}", how)


def _tflite_file(subject: Subject) -> bytes | str:
    """The equivalent ``.tflite`` file, or why there is none."""
    contract = find_contract(subject.program.contract)
    if (contract.rule, contract.tables) != ("r1", "tflite"):
        return f"the contract {contract.name} is not TFLite's"
    if not peers.installed():
        return "needs: pip install tflite-micro ai-edge-litert"
    try:
        return tflite(subject.program, weight_scales(subject.graph))
    except ModelError as error:
        return str(error)


def channels_last(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """An image [N, C, H, W] as TFLite has it; any other array as it is."""
    return np.moveaxis(array, 1, -1) if array.ndim == 4 else array


def compared(what: str, found: Tensors, expected: Tensors) -> str:
    """``0 of N bytes``; raises ``ModelError`` where one differs."""
    differing = sum(int((_bytes(found[name]) != _bytes(value)).sum()) for name, value in expected.items())
    total = sum(value.nbytes for value in expected.values())
    if differing:
        raise ModelError(f"{differing} of {total} bytes differ", where=what, fix="report it: they are proven equal")
    return f"0 of {total:,} bytes"


def _bytes(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def memory(subject: Subject) -> Row:
    """Peak resident memory of a process that opens the model and runs it once; includes Python and the libraries.

    Streams that are played together share one session; a second one of the same model shares nothing but these.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "a.npup", Path(folder) / "a.onnx"
        paths[0].write_bytes(dumps(subject.program))
        paths[1].write_bytes(subject.model.SerializeToString())
        npu, peer = (_megabytes(child, path) for child, path in zip((NPU_CHILD, PEER_CHILD), paths, strict=True))
    how = f"peak of a process, {npu[0]:.0f} MB against {peer[0]:.0f} MB; a second session in it adds "
    how += f"{npu[1]:.0f} MB against {peer[1]:.0f} MB"
    return Row(f"{subject.name}: memory, simulated NPU / ONNX Runtime int8", f"{npu[0] / peer[0]:.2f}", how)


def _megabytes(child: str, path: Path) -> list[float]:
    done = subprocess.run([sys.executable, "-c", child, str(path)], check=True, capture_output=True, text=True)
    return [int(kib) / 1024 for kib in done.stdout.split()]
