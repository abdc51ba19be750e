"""Measures this machine as a host: times small int8 models of ONNX Runtime, one per class of operator."""

import platform
import time
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.cost.hosts import HostProfile, Rate

REPEATS = 7
"""Timings of each model; the fastest counts, as the least disturbed."""
OPSET = 17


def measure_host(name: str = "this-machine", threads: int = 1) -> HostProfile:
    """The rates of the machine that this runs on, with ``threads`` threads. Takes about a second.

    Each rate is from one operator that is large enough for it alone to count, the overhead of an empty one taken off;
    the overhead is that of a chain of operators on a handful of numbers.
    """
    overhead = _overhead(threads)

    def rate(work: float, model: onnx.ModelProto) -> float:
        return work / max(_seconds(model, threads) - overhead, 1e-9)

    size, channels = 28, 128
    places = size * size * channels
    found = {
        "conv_macs_per_second": rate(places * channels * 9, _convolution(size, channels, 1)),
        "depthwise_macs_per_second": rate(places * 9, _convolution(size, channels, channels)),
        "fc_macs_per_second": rate(1024 * 1024, _product(1024)),
        "table_elements_per_second": rate(1 << 20, _unary("Sigmoid", 1 << 20)),
        "bytes_per_second": rate(2 * 4 * (1 << 22), _unary("Neg", 1 << 22)),
        "overhead_s": overhead,
    }
    source = f"onnxruntime {onnxruntime.__version__}, {threads} threads, {platform.machine()}"
    rates = {key: Rate(value=value, confidence="measured", source=source) for key, value in found.items()}
    title = f"{platform.processor() or platform.machine()}, {threads} threads"
    return HostProfile(name=name, title=title, threads=threads, figures=rates)


def _seconds(model: onnx.ModelProto, threads: int) -> float:
    """The fastest of a few runs of ``model``, in seconds."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    feed = {given.name: np.ones(given.shape, np.int8 if "int8" in given.type else np.float32)}
    session.run(None, feed)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - start)
    return min(times)


def _overhead(threads: int) -> float:
    """Seconds per operator that computes next to nothing."""
    count = 64
    nodes = [helper.make_node("Neg" if i % 2 else "Sin", [f"t{i}"], [f"t{i + 1}"]) for i in range(count)]
    model = _model(nodes, [1], [1], (), "t0", f"t{count}", TensorProto.FLOAT)
    return _seconds(model, threads) / count


def _convolution(size: int, channels: int, groups: int) -> onnx.ModelProto:
    """An int8 3x3 convolution of ``channels`` maps of ``size`` x ``size`` in QDQ form, which the runtime fuses."""
    weight = np.ones((channels, channels // groups, 3, 3), np.int8)
    shape = [1, channels, size, size]
    node = helper.make_node("Conv", ["x", "wf"], ["y"], pads=[1, 1, 1, 1], group=groups)
    return _quantized(node, weight, shape, shape)


def _product(size: int) -> onnx.ModelProto:
    """An int8 vector times a ``size`` x ``size`` matrix in QDQ form."""
    return _quantized(
        helper.make_node("MatMul", ["x", "wf"], ["y"]), np.ones((size, size), np.int8), [1, size], [1, size]
    )


def _quantized(
    node: onnx.NodeProto, weight: NDArray[np.int8], given: Sequence[int], out: Sequence[int]
) -> onnx.ModelProto:
    """``node`` between a DequantizeLinear of int8 ``x8`` and a QuantizeLinear to int8 ``y8``."""
    constants = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(np.array(0.05, np.float32), "s"),
        numpy_helper.from_array(np.array(0, np.int8), "z"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["x8", "s", "z"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"]),
        node,
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["y8"]),
    ]
    return _model(nodes, given, out, constants, "x8", "y8", TensorProto.INT8)


def _unary(op: str, elements: int) -> onnx.ModelProto:
    return _model([helper.make_node(op, ["x"], ["y"])], [elements], [elements], (), "x", "y", TensorProto.FLOAT)


def _model(
    nodes: Sequence[onnx.NodeProto], given: Sequence[int], out: Sequence[int], constants: Sequence[onnx.TensorProto],
    source: str, target: str, kind: int,
) -> onnx.ModelProto:  # fmt: skip
    inputs = [helper.make_tensor_value_info(source, kind, list(given))]
    outputs = [helper.make_tensor_value_info(target, kind, list(out))]
    graph = helper.make_graph(list(nodes), "probe", inputs, outputs, list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
