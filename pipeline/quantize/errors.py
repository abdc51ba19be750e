"""The per-layer error of quantization: what the integer engine computes against what the float model computes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.graph.view import Graph, Tensor
from pipeline.quantize.calibrate import Tap
from runtime.npu.device import Device
from runtime.npu.encoding import loads
from runtime.tensors import Tensors

LIMIT_DB = 200.0
"""A layer without any error has this ratio, so that it is a number in JSON too."""


@dataclass(frozen=True)
class LayerError:
    """How far an activation is off after all layers up to it ran in integers (cumulative, not isolated).

    Attributes:
        node: the operator that computes it.
        op: its type.
        tensor: the activation.
        sqnr_db: signal to quantization noise, 10 log10(sum x^2 / sum (x - q)^2), in dB, within +-``LIMIT_DB``.
        cosine: cosine similarity, 1 is best.
        largest: largest absolute difference.
        scale: real value of one int8 step, for comparison.
    """

    node: str
    op: str
    tensor: str
    sqnr_db: float
    cosine: float
    largest: float
    scale: float


@dataclass
class _Sums:
    """Running sums over images."""

    signal: float = 0.0
    noise: float = 0.0
    dot: float = 0.0
    quantized: float = 0.0
    largest: float = 0.0

    def add(self, real: NDArray[np.float32], integer: NDArray[np.float32]) -> None:
        a, b = real.astype(np.float64).ravel(), integer.astype(np.float64).ravel()
        self.signal += float((a * a).sum())
        self.quantized += float((b * b).sum())
        self.dot += float((a * b).sum())
        self.noise += float(((a - b) ** 2).sum())
        self.largest = max(self.largest, float(np.abs(a - b).max()))


def layer_errors(
    model: onnx.ModelProto, graph: Graph, program: bytes, images: Iterable[tuple[NDArray[np.float32], Tensors]]
) -> tuple[LayerError, ...]:
    """The errors of every quantized activation that ``program`` computes, in execution order.

    Args:
        model: the float model.
        graph: the quantized model's view; its tensors have the float model's names, outputs end in ``_real``.
        program: the NPU partition in question, compiled.
        images: float inputs [1, 3, H, W], each with the partition's quantized inputs.
    """
    compiled = loads(program)
    device = Device(compiled, fast=False)
    specs = {spec.name: spec for spec in compiled.tensors}
    outputs = dict(zip((t.name for t in graph.outputs), graph.output_names, strict=True))
    layers = [
        (node, tensor)
        for node in graph.nodes
        for tensor in node.outputs
        if tensor.wire in specs and tensor.quantization
    ]
    names = {tensor.name: outputs.get(tensor.name, tensor.name) for _, tensor in layers}
    tap = Tap(model, list(names.values()))
    sums = {tensor.name: _Sums() for _, tensor in layers}
    for image, inputs in images:
        real, integer = tap.read(image), device.trace(inputs)
        for _, tensor in layers:
            values = specs[tensor.wire].dequantize(integer[tensor.wire])
            sums[tensor.name].add(real[names[tensor.name]], values)
    return tuple(
        _error(node.name, node.op, tensor, sums[tensor.name], specs[tensor.wire].scale) for node, tensor in layers
    )


def _error(node: str, op: str, tensor: Tensor, sums: _Sums, scale: float | None) -> LayerError:
    norm = np.sqrt(sums.signal * sums.quantized)
    cosine = float(sums.dot / norm if norm else sums.noise == 0.0)
    return LayerError(node, op, tensor.name, _decibels(sums.signal, sums.noise), cosine, sums.largest, scale or 0.0)


def _decibels(signal: float, noise: float) -> float:
    if noise == 0.0:
        return LIMIT_DB
    return -LIMIT_DB if signal == 0.0 else float(np.clip(10 * np.log10(signal / noise), -LIMIT_DB, LIMIT_DB))


def worst(errors: Sequence[LayerError]) -> LayerError | None:
    """The layer with the lowest signal to noise ratio, ``None`` when there is no layer."""
    return min(errors, key=lambda e: e.sqnr_db, default=None)


def as_rows(errors: Sequence[LayerError]) -> list[Mapping[str, float | str]]:
    """The errors as JSON objects."""
    return [vars(e) for e in errors]
