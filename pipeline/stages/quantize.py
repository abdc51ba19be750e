"""Quantize the trained network to int8 and measure what that costs on the integer engine that ships."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from pipeline import tasks
from pipeline.compile.bundling import Use, bundle
from pipeline.compile.partitions import cut, onnx_models
from pipeline.compile.support import no_kernel
from pipeline.graph.capture import capture
from pipeline.graph.model import save
from pipeline.graph.view import view
from pipeline.quantize import qdq
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.errors import LayerError, as_rows, layer_errors, worst
from pipeline.quantize.ptq import quantize
from pipeline.stages.common import ENCODINGS, ERRORS, FLOAT_MODEL
from pipeline.targets import library
from pipeline.targets.placement import NPU, by_kernel, place
from pipeline.targets.profile import Target
from pipeline.tasks import Task
from pipeline.tasks.inference import infer_onnx, load_weights
from pipeline.workspace import Context, Result
from runtime.adapters.image import normalize
from runtime.adapters.image import quantize as to_int8
from runtime.bundle import open_bundle
from runtime.session import Session


def run(context: Context) -> Result:
    """Capture the float model, calibrate it, choose scales, and measure.

    Writes ``float.onnx``, ``encodings.json`` (ranges and scales) and ``errors.json`` (one row per layer).

    Returns:
        ``float_ap50``, ``float_ap`` of the float ONNX model; ``ap50``, ``ap`` of the int8 model as the integer
        engine of the runtime computes it, whatever the target's coverage; ``worst_sqnr_db`` of the layers.

    Raises:
        DataError: the images are unusable.
        ModelError: the network cannot be exported or quantized.
    """
    config = context.config
    task = tasks.load(config)
    target = library.load(context.profile)
    model = float_model(task, context.inputs["train"] / "model.safetensors", config.export.opset)
    save(model, context.out / FLOAT_MODEL)
    graph = view(model)
    context.progress.start(config.quantize.calibration_images, "calibrating")
    histograms = calibrate(model, graph, _calibration(task, context))
    encodings = quantize(graph, histograms, target.per_channel(), config.quantize.range, config.quantize.percentile)
    encodings.save(context.out / ENCODINGS)
    engine = _Engine(context.out / "engine.npub", task, qdq.insert(model, encodings), target)
    errors = engine.errors(model, task, config.quantize.error_images)
    (context.out / ERRORS).write_text(json.dumps(as_rows(errors), indent=1) + "\n")
    float_scores = task.evaluate(task.detector(infer_onnx(model.SerializeToString(), task)))
    int8_scores = task.evaluate(task.detector(engine.session.infer))
    engine.path.unlink()
    lowest = worst(errors)
    return Result(
        {
            **{f"float_{name}": value for name, value in float_scores.items()},
            **int8_scores,
            **({} if lowest is None else {"worst_sqnr_db": lowest.sqnr_db}),
        },
        _gates(float_scores["ap50"] - int8_scores["ap50"], config.quantize.max_ap50_drop, lowest),
    )


def _gates(drop: float, ceiling: float, lowest: LayerError | None) -> tuple[str, ...]:
    if drop <= ceiling:
        return ()
    worst_layer = "" if lowest is None else f"; worst layer: {lowest.node} ({lowest.op}), {lowest.sqnr_db:.1f} dB"
    return (f"quantize.max_ap50_drop is {ceiling:.4f}, int8 costs {drop:.4f} of AP50{worst_layer}",)


def float_model(task: Task, weights: Path, opset: int) -> onnx.ModelProto:
    """The task's network with the trained ``weights`` as a float ONNX model."""
    network = load_weights(task.build(), weights)
    example = torch.zeros(1, 3, task.preprocess.height, task.preprocess.width)
    return capture(network, example, task.input_name, task.output_names, opset)


def _calibration(task: Task, context: Context) -> Iterator[NDArray[np.float32]]:
    for pixels in task.calibration():
        yield normalize(pixels, task.preprocess)
        context.progress.advance()


class _Engine:
    """The quantized model on the integer engine: every operator that it has a kernel for, whatever the target."""

    def __init__(self, path: Path, task: Task, model: onnx.ModelProto, target: Target) -> None:
        self.path = path
        self.graph = view(model)
        placed = place(self.graph, by_kernel(no_kernel), max_npu_partitions=None)
        use = Use("quantize", task.labels, task.preprocess, task.decoder(0.5), (), {})
        self.partitions = cut(self.graph, placed)
        bundle(path, use, self.graph, self.partitions, onnx_models(model, self.partitions), target)
        self.bundle = open_bundle(path)
        self.session = Session(self.bundle)

    def errors(self, model: onnx.ModelProto, task: Task, count: int) -> tuple[LayerError, ...]:
        """The per-layer errors of the first partition, which the image enters; later ones would need its outputs."""
        entry = self.bundle.manifest.partitions[0]
        if self.partitions[0].device != NPU or entry.program is None:
            return ()
        spec = self.bundle.manifest.tensor(self.bundle.manifest.inputs[0])
        images = []
        for pixels, _ in zip(task.calibration(), range(count), strict=False):
            images.append((normalize(pixels, task.preprocess), {spec.name: to_int8(pixels, task.preprocess, spec)}))
        return layer_errors(model, self.graph, self.bundle.read(entry.program), images)
