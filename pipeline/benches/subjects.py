"""What the NPU's speed is measured on: the use case's detector and MobileNetV2-224, each in its quantized form.

MobileNetV2-224 has random weights and ranges of random images: what its scales are moves no instruction. It is there
twice, with weight scales aligned to the contract's rounding, as ``pipeline quantize`` makes them, and without.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
import torchvision
from numpy.typing import NDArray
from onnx import numpy_helper

from pipeline.compile.lower import lower
from pipeline.graph.capture import capture
from pipeline.graph.model import check, load
from pipeline.graph.view import Graph, view
from pipeline.quantize import qdq, scheme
from pipeline.quantize.aligned import align
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.ptq import Choosing, quantize
from pipeline.targets.profile import Target
from runtime.npu.contracts import find_contract
from runtime.npu.device import Device
from runtime.npu.program import Program
from runtime.tensors import Tensors


@dataclass(frozen=True)
class Subject:
    """A model in both its forms.

    Attributes:
        name: what the rows call it.
        model: QDQ, of float inputs; every operator is on the NPU.
        graph: the model's view.
        program: what the NPU runs.
    """

    name: str
    model: onnx.ModelProto
    graph: Graph
    program: Program

    def integers(self) -> Tensors:
        """Random inputs of the program, the same ones every time."""
        specs, rng = {spec.name: spec for spec in self.program.tensors}, np.random.default_rng(0)
        low, high = find_contract(self.program.contract).limits
        return {
            name: rng.integers(low, high + 1, specs[name].shape).astype(specs[name].dtype)
            for name in self.program.inputs
        }

    def device(self, threads: int) -> Device:
        """The simulated NPU with the program."""
        return Device(self.program, threads=threads)

    def session(self, threads: int) -> tuple[ort.InferenceSession, dict[str, NDArray[np.float32]]]:
        """ONNX Runtime's session of the model, and random inputs for it."""
        options, rng = ort.SessionOptions(), np.random.default_rng(0)
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(self.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session, {i.name: rng.uniform(-1, 1, i.shape).astype(np.float32) for i in session.get_inputs()}


def subjects(target: Target, exported: Path | None) -> Iterator[Subject]:
    """The detector, where ``exported`` is a file as the export stage leaves it, and MobileNetV2-224.

    Raises:
        ModelError: an operator has no kernel on ``target``.
    """
    if exported is not None and exported.is_file():
        yield subject("detector", load(exported), target)
    plain, aligned = mobilenet(target)
    yield subject("MobileNetV2-224", aligned, target)
    yield subject("MobileNetV2-224, unaligned", plain, target)


def subject(name: str, model: onnx.ModelProto, target: Target) -> Subject:
    """The quantized ``model`` with its program; raises ``ModelError`` when an operator has no kernel."""
    graph = view(model)
    return Subject(name, model, graph, lower(graph, graph.nodes, graph.inputs, graph.outputs, target))


def batched(model: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """``model``, which takes one image, taking ``size`` of them at a time.

    Raises:
        ModelError: an operator does not take as many.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.value_info[:]
    for port in (*made.graph.input, *made.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = size
    shapes = {node.input[1] for node in made.graph.node if node.op_type == "Reshape"}
    for constant in made.graph.initializer:
        if constant.name in shapes:
            shape = numpy_helper.to_array(constant).copy()
            shape[0] *= size
            constant.CopyFrom(numpy_helper.from_array(shape, constant.name))
    return check(made, f"{size} images at a time")


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
