"""Export the quantized network as an ONNX file that says what it is, its float form checked against torch."""

import json
from collections.abc import Mapping

import numpy as np
import onnx

from pipeline import tasks
from pipeline.errors import ModelError
from pipeline.graph.model import load, save
from pipeline.stages.common import FLOAT_MODEL, MODEL, QUANTIZED_MODEL
from pipeline.tasks import Task
from pipeline.tasks.inference import infer_onnx, infer_torch, load_weights
from pipeline.workspace import Context, Result
from runtime.adapters.image import letterbox

PARITY = 1e-3
"""Largest difference from torch's outputs, of the largest output or of 1; two float32 libraries stay far below it."""


def run(context: Context) -> Result:
    """Add metadata to the quantized model, and compare the float model with torch.

    Writes ``model.onnx``.

    Returns:
        ``torch_difference``: the largest absolute difference between torch's outputs and those of the float ONNX model
        on the first validation frame; ``operators``; ``bytes`` of the file.

    Raises:
        ModelError: a model cannot be read, or the float one differs from torch by more than ``PARITY``.
    """
    task = tasks.load(context.config)
    floating = load(context.inputs["quantize"] / FLOAT_MODEL)
    operators = len(floating.graph.node)
    model = load(context.inputs["quantize"] / QUANTIZED_MODEL)
    onnx.helper.set_model_props(model, _metadata(task, context))
    save(model, context.out / MODEL)
    return Result(
        {
            "torch_difference": _difference(task, context, floating),
            "operators": float(operators),
            "bytes": float((context.out / MODEL).stat().st_size),
        }
    )


def _metadata(task: Task, context: Context) -> dict[str, str]:
    """What the file says about itself besides the graph."""
    pre = task.preprocess
    preprocessing: Mapping[str, object] = {
        "width": pre.width,
        "height": pre.height,
        "channels": "RGB",
        "fit": "letterbox",
        "mean": pre.mean,
        "std": pre.std,
    }
    return {
        "name": context.config.name,
        "labels": json.dumps(task.labels),
        "preprocessing": json.dumps(preprocessing),
        "target": context.config.target,
        **{f"provenance.{key}": value for key, value in context.provenance.items()},
    }


def _difference(task: Task, context: Context, model: onnx.ModelProto) -> float:
    network = load_weights(task.build(), context.inputs["train"] / "model.safetensors")
    pixels, _ = letterbox(next(iter(task.validation())).frame, task.preprocess.width, task.preprocess.height)
    expected = infer_torch(network, task)(pixels)
    found = infer_onnx(model.SerializeToString(), task)(pixels)
    difference = max(float(np.abs(np.subtract(expected[n], found[n])).max()) for n in task.output_names)
    largest = max(float(np.abs(values).max()) for values in expected.values())
    if not difference <= PARITY * max(1.0, largest):
        raise ModelError(
            f"its outputs differ from torch's by up to {difference:g}, where the largest is {largest:g}",
            where=context.config.name,
            fix="the network computes something else when exported: look for randomness or branches on data",
        )
    return difference
