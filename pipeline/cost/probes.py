"""Small int8 networks, each a chain of one operator, whose time tells how fast a host runs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.graph.model import check
from pipeline.graph.view import view
from pipeline.quantize import ptq, qdq
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.scheme import Scheme

OPSET = 17
SHORT, LONG = 1, 5
"""Operators in the two chains of a probe, whose difference leaves out what happens at a network's ends."""


@dataclass(frozen=True)
class Probe:
    """An operator that maps a tensor to one of the same shape, or an image to ``out`` channels at half its size.

    Attributes:
        op: ONNX operator.
        shape: of the tensor.
        kernel: side of the window; 0 without one.
        group: of a convolution.
        out: channels of a strided convolution; its copies stand side by side, each behind it a global pool.

    Pools stand between two convolutions, as in networks, since runtimes lay out feature maps as those want them.
    """

    op: str
    shape: tuple[int, ...]
    kernel: int = 0
    group: int = 1
    out: int = 0


PROBES: Mapping[str, tuple[Probe, ...]] = MappingProxyType(
    {
        "overhead_s": (Probe("Conv", (1, 8, 1, 1), 1),),
        "conv_macs_per_second": (Probe("Conv", (1, 64, 56, 56), 3), Probe("Conv", (1, 256, 14, 14), 3)),
        "image_macs_per_second": (Probe("Conv", (1, 3, 224, 224), 3, out=32),),
        "pointwise_macs_per_second": (
            Probe("Conv", (1, 48, 112, 112), 1), Probe("Conv", (1, 128, 28, 28), 1), Probe("Conv", (1, 512, 7, 7), 1),
        ),
        "depthwise_macs_per_second": (
            Probe("Conv", (1, 32, 112, 112), 3, 32), Probe("Conv", (1, 192, 28, 28), 3, 192),
            Probe("Conv", (1, 512, 14, 14), 3, 512),
        ),
        "fc_macs_per_second": (Probe("MatMul", (1, 1024)),),
        "pool_steps_per_second": (Probe("MaxPool", (1, 64, 56, 56), 3),),
        "elementwise_elements_per_second": (Probe("Add", (1, 64, 112, 112)),),
        "table_elements_per_second": (Probe("Sigmoid", (1, 64, 112, 112)),),
        "softmax_elements_per_second": (Probe("Softmax", (1, 200, 1000)),),
    }
)  # fmt: skip
"""What each rate of a host is measured with; large and small maps where a class has both."""


def chain(probe: Probe, count: int) -> onnx.ModelProto:
    """``count`` of the probe's operator one after another, as int8 with pairs that runtimes fuse."""
    return quantized(real(probe, count))


def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """The int8 form of ``model`` with ranges of one random image; activations are uint8, as kernels for x86 want."""
    graph = view(model)
    image = np.random.default_rng(0).uniform(-1, 6, graph.inputs[0].dims).astype(np.float32)
    scheme = Scheme({"Conv": True, "Gemm": False, "MatMul": False})
    seen = calibrate(model, graph, [image], histograms=False).histograms
    encodings = ptq.quantize(graph, seen, scheme, ptq.Choosing("minmax"))
    return _unsigned(qdq.insert(model, encodings))


def copies(elements: int, count: int) -> onnx.ModelProto:
    """``count`` sign changes one after another of ``elements`` real numbers, which do nothing but move bytes."""
    nodes = [helper.make_node("Neg", [f"t{i}"], [f"t{i + 1}"], f"t{i + 1}") for i in range(count)]
    return _model(nodes, {"t0": (elements,)}, {f"t{count}": (elements,)}, [])


def _unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with uint8 in place of int8 activations."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.value_info[:]  # their types change
    held = {i.name: i for i in result.graph.initializer}
    made = {n.output[0] for n in result.graph.node if n.op_type == "QuantizeLinear"}
    for node in result.graph.node:
        if node.op_type == "QuantizeLinear" or (node.op_type == "DequantizeLinear" and node.input[0] in made):
            zero = held[node.input[2]]
            if zero.data_type == TensorProto.INT8:
                shifted = numpy_helper.to_array(zero).astype(np.int16) + 128
                zero.CopyFrom(numpy_helper.from_array(shifted.astype(np.uint8), zero.name))
    return result


def real(probe: Probe, count: int) -> onnx.ModelProto:
    """``count`` of the probe's operator as a float model."""
    random, held = np.random.default_rng(0), []
    nodes: list[onnx.NodeProto] = []
    channels, out = probe.shape[1], probe.out or probe.shape[1]
    weight = {"Conv": (out, channels // probe.group, probe.kernel, probe.kernel), "MatMul": (channels, channels)}
    ends: dict[str, tuple[int, ...]] = {f"t{count}": probe.shape}
    if probe.op == "MaxPool":
        weights = np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1)
        held.append(numpy_helper.from_array(weights, "we"))
        nodes.append(helper.make_node("Conv", ["image", "we"], ["t0"], "t0"))
    for i in range(count):
        given, made = ["t0" if probe.out else f"t{i}"], f"t{i + 1}"
        if probe.op in weight:
            shape = weight[probe.op]
            values = random.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
            held.append(numpy_helper.from_array(values, f"w{i}"))
            given.append(f"w{i}")
        given += ["t0"] if probe.op == "Add" else []
        node = helper.make_node(probe.op, given, [made], made)
        for key, value in _settings(probe).items():
            node.attribute.append(helper.make_attribute(key, value))
        nodes.append(node)
        if probe.out:
            nodes.append(helper.make_node("GlobalAveragePool", [made], [f"g{i}"], f"g{i}"))
    if probe.op == "MaxPool":
        nodes.append(helper.make_node("Conv", [f"t{count}", "we"], ["end"], "end"))
        return _model(nodes, {"image": probe.shape}, {"end": probe.shape}, held)
    if probe.out:
        ends = {f"g{i}": (1, out, 1, 1) for i in range(count)}
    return _model(nodes, {"t0": probe.shape}, ends, held)


def _settings(probe: Probe) -> Mapping[str, int | list[int]]:
    """The attributes of the probe's operator."""
    settings: dict[str, int | list[int]] = {}
    if probe.kernel:
        settings = {"kernel_shape": [probe.kernel] * 2, "pads": [probe.kernel // 2] * 4}
    if probe.op == "Conv":
        settings |= {"group": probe.group, "strides": [2, 2] if probe.out else [1, 1]}
    return settings


def _model(
    nodes: list[onnx.NodeProto], given: Mapping[str, tuple[int, ...]], made: Mapping[str, tuple[int, ...]],
    held: list[onnx.TensorProto],
) -> onnx.ModelProto:  # fmt: skip
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in side.items()]
        for side in (given, made)
    )
    graph = helper.make_graph(nodes, "probe", inputs, outputs, held)
    return check(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8), "probe")
