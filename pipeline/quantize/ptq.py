"""Post-training quantization: from a float graph and its statistics to encodings."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.graph.fusion import fused_outputs
from pipeline.graph.view import Graph, Node, Tensor
from pipeline.quantize.calibrate import activations
from pipeline.quantize.encodings import ActivationEncoding, Encodings, WeightEncoding
from pipeline.quantize.histogram import Histogram
from pipeline.quantize.ranges import CHOICES, Range, affine

SAME_SCALE = frozenset({
    "AveragePool", "Concat", "DepthToSpace", "Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Resize", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators whose inputs and output share one scale and zero point (TFLite int8 contract)."""

FIXED_OUTPUT: Mapping[str, tuple[float, int]] = {
    "Sigmoid": (1 / 256, -128),
    "Softmax": (1 / 256, -128),
    "Tanh": (1 / 128, 0),
}
"""Operators whose output has a fixed scale and zero point (TFLite int8 contract)."""

WEIGHT_AXIS: Mapping[str, int] = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": 1}
"""Operators with a weight as second input, and the axis of its output channels (Gemm: with transB)."""

BIAS_LIMIT = 2**30  # a bias must leave room in the int32 accumulator for the products


def quantize(
    graph: Graph,
    histograms: Mapping[str, Histogram],
    per_channel: Mapping[str, bool],
    choice: str = "mse",
    percentile: float = 99.99,
) -> Encodings:
    """Encodings of every activation and weight of a float ``graph``.

    Args:
        graph: the float model.
        histograms: what its activations took, by name.
        per_channel: for each operator with weights, whether the target takes a scale per channel.
        choice: how a range is chosen, a key of ``pipeline.quantize.ranges.CHOICES``.
        percentile: for that choice.
    """
    skipped = fused_outputs(graph)
    wanted = [t for t in activations(graph) if t.name not in skipped]
    ranges = {t.name: _range(graph, t, histograms[t.name], choice, percentile) for t in wanted}
    shared = _share(graph, ranges)
    encodings = {name: _activation(graph, name, shared[name]) for name in shared}
    weights: dict[str, WeightEncoding] = {}
    for node in graph.nodes:
        if node.op in WEIGHT_AXIS and len(node.inputs) > 1 and node.required(1).constant is not None:
            weight = node.required(1)
            weights[weight.name] = _weight(node, encodings, per_channel.get(node.op, False))
    return Encodings(encodings, weights)


def _range(graph: Graph, tensor: Tensor, histogram: Histogram, choice: str, percentile: float) -> Range:
    # The network's input is what preprocessing makes of 0..255; nothing of it may be clipped.
    is_input = graph.producer(tensor.name) is None
    return CHOICES["minmax" if is_input else choice](histogram, percentile)


def _share(graph: Graph, ranges: Mapping[str, Range]) -> Mapping[str, Range]:
    """``ranges`` with one common range for tensors that must share their scale."""
    leader = {name: name for name in ranges}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for node in graph.nodes:
        if node.op in SAME_SCALE:
            members = [t.name for t in (*node.activations, *node.outputs) if t.name in leader]
            for member in members[1:]:
                leader[find(member)] = find(members[0])
    merged: dict[str, Range] = {}
    for name, (low, high) in ranges.items():
        best = merged.get(find(name), (low, high))
        merged[find(name)] = min(best[0], low), max(best[1], high)
    return {name: merged[find(name)] for name in ranges}


def _activation(graph: Graph, name: str, bounds: Range) -> ActivationEncoding:
    producer = graph.producer(name)
    if producer is not None and producer.op in FIXED_OUTPUT:
        scale, zero = FIXED_OUTPUT[producer.op]
    else:
        scale, zero = affine(*bounds)
    return ActivationEncoding(bounds[0], bounds[1], scale, zero)


def _weight(node: Node, activations: Mapping[str, ActivationEncoding], per_channel: bool) -> WeightEncoding:
    weight = node.required(1)
    values = weight.real.astype(np.float64)
    if not np.isfinite(values).all():
        raise ModelError("the weight holds values that are not finite", where=node.name, fix="check the checkpoint")
    axis = weight_axis(node)
    others = tuple(i for i in range(values.ndim) if i != axis)
    largest = np.abs(values).max(axis=others) if per_channel else np.abs(values).max().reshape(1)
    scales = np.maximum(largest / 127, np.finfo(np.float32).tiny * 2**20)
    scales = np.maximum(scales, _bias_floor(node, activations, scales.shape)).astype(np.float32)
    return WeightEncoding(tuple(float(s) for s in scales), axis if per_channel else None)


def weight_axis(node: Node) -> int:
    """The axis of ``node``'s weight that counts its output channels."""
    return 1 if node.op == "Gemm" and not node.int("transB", 0) else WEIGHT_AXIS[node.op]


def _bias_floor(
    node: Node, activations: Mapping[str, ActivationEncoding], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """The smallest weight scales with which the bias still fits int32: ``|bias| / (s_x * s_w) <= BIAS_LIMIT``."""
    bias = node.input(2)
    if bias is None or bias.constant is None:
        return np.zeros(shape)
    largest = np.abs(bias.real.astype(np.float64)).reshape(-1)
    floor = largest / (activations[node.required(0).name].scale * BIAS_LIMIT)
    return np.broadcast_to(floor if shape[0] > 1 else floor.max(), shape)
