"""The simulated NPU's host time and memory against ONNX Runtime's int8 session of the same model.

Ratios of one run, one thread and two: the NPU against a QDQ session with the same threads, in turn. The NPU is
simulated, so none is a device's time. MobileNetV2-224 has random weights and ranges of random images: what its scales
are moves no instruction. It is there twice, with weight scales aligned to the contract's rounding and without.
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
import torchvision
from numpy.typing import NDArray

from pipeline.benches.bundle import contest
from pipeline.benches.rows import Row
from pipeline.compile.lower import lower
from pipeline.graph.capture import capture
from pipeline.graph.model import check, load
from pipeline.graph.view import view
from pipeline.quantize import qdq, scheme
from pipeline.quantize.aligned import align
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.ptq import Choosing, quantize
from pipeline.targets.profile import Target
from pipeline.workspace import Progress
from runtime.npu.contracts import find_contract
from runtime.npu.device import Device
from runtime.npu.encoding import dumps
from runtime.npu.program import Program

THREADS = (1, 2)
RUNS = 8
"""Inferences of a contender before the next one's turn."""

NPU_CHILD = """
import sys, pathlib, numpy as np
from runtime.npu.device import Device
from runtime.npu.encoding import loads
program = loads(pathlib.Path(sys.argv[1]).read_bytes())
device = Device(program, threads=1)
specs = {t.name: t for t in program.tensors}
device.run({n: np.zeros(specs[n].shape, specs[n].dtype) for n in program.inputs})
print(next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM")))
"""
PEER_CHILD = """
import sys, numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {i.name: np.zeros(i.shape, np.float32) for i in session.get_inputs()})
print(next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM")))
"""


def rows(target: Target, exported: Path | None, progress: Progress) -> Iterator[Row]:
    """Host times and peak memory.

    Args:
        target: whose contract the programs have.
        exported: a quantized model of float inputs that is wholly on the NPU, as the export stage leaves it.
        progress: is told what happens.
    """
    progress.start(0, "measuring the simulated NPU")
    plain, aligned = mobilenet(target)
    models = {"MobileNetV2-224, aligned": aligned, "MobileNetV2-224": plain}
    if exported is not None and exported.is_file():
        models = {"detector": load(exported), **models}
    for name, model in models.items():
        program = whole_program(model, target)
        for threads in THREADS:
            yield _ratio(name, model, program, threads)
            progress.advance()
        if sys.platform == "linux":
            yield _memory(name, model, program)


def whole_program(model: onnx.ModelProto, target: Target) -> Program:
    """The quantized ``model`` as one program; raises ``ModelError`` when an operator has no kernel."""
    graph = view(model)
    return lower(graph, graph.nodes, graph.inputs, graph.outputs, target)


def mobilenet(target: Target) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """MobileNetV2-224, quantized without and with aligned weight scales."""
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2(weights=None).train()
    with torch.no_grad():
        network(torch.randn(4, 3, 224, 224))  # batch statistics as a trained network's, near its activations
    floating = capture(network.eval(), torch.zeros(1, 3, 224, 224), "image", ("scores",), 18)
    graph, rng = view(floating), np.random.default_rng(0)
    image: NDArray[np.float32] = rng.uniform(-1, 1, (1, 3, 224, 224)).astype(np.float32)
    scales = quantize(
        graph,
        calibrate(floating, graph, [image]).histograms,
        replace(scheme.of(target), contract=None),
        Choosing("minmax"),
    )
    both = (scales, align(graph, scales, find_contract(target.contract)))
    plain, aligned = (check(qdq.insert(floating, each), "MobileNetV2-224") for each in both)
    return plain, aligned


def _ratio(name: str, model: onnx.ModelProto, program: Program, threads: int) -> Row:
    device, rng = Device(program, threads=threads), np.random.default_rng(0)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    peer = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    specs = {t.name: t for t in program.tensors}
    low, high = find_contract(program.contract).limits
    integers = {n: rng.integers(low, high + 1, specs[n].shape).astype(specs[n].dtype) for n in program.inputs}
    real = {i.name: rng.uniform(-1, 1, i.shape).astype(np.float32) for i in peer.get_inputs()}
    times = contest(
        {"npu": partial(_repeat, partial(device.run, integers)), "ort": partial(_repeat, partial(peer.run, None, real))}
    )
    ratio = statistics.median(a / b for a, b in zip(times["npu"], times["ort"], strict=True))
    npu, ort_ms = (1000 * min(times[key]) / RUNS for key in ("npu", "ort"))
    fastest = f"fastest {npu:.2f} ms against {ort_ms:.2f} ms"
    how = f"host time, {threads} thread{'s' * (threads > 1)}, median of pairs; {fastest}"
    return Row(f"{name}: simulated NPU / ONNX Runtime int8", f"{ratio:.2f}", how)


def _repeat(job: Callable[[], object]) -> None:
    for _ in range(RUNS):
        job()


def _memory(name: str, model: onnx.ModelProto, program: Program) -> Row:
    """Peak resident memory of a process that opens the model and runs it once; includes Python and the libraries."""
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "a.npup", Path(folder) / "a.onnx"
        paths[0].write_bytes(dumps(program))
        paths[1].write_bytes(model.SerializeToString())
        npu, peer = (_peak(child, path) for child, path in zip((NPU_CHILD, PEER_CHILD), paths, strict=True))
    how = f"peak of a process, {npu:.0f} MB against {peer:.0f} MB"
    return Row(f"{name}: memory, simulated NPU / ONNX Runtime int8", f"{npu / peer:.2f}", how)


def _peak(child: str, path: Path) -> float:
    done = subprocess.run([sys.executable, "-c", child, str(path)], check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024
