"""Export the quantized network as an ONNX file with quantize/dequantize pairs, checked against torch."""

import json
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime as ort
import torch

from pipeline import tasks
from pipeline.graph.capture import load_weights
from pipeline.graph.model import check, load, save
from pipeline.quantize import encodings, qdq
from pipeline.stages.common import ENCODINGS, FLOAT_MODEL, MODEL
from pipeline.tasks import Task
from pipeline.workspace import Context, Result
from runtime.adapters.image import letterbox, normalize


def run(context: Context) -> Result:
    """Insert the quantize/dequantize pairs, add metadata, check, and compare the float model with torch.

    Writes ``model.onnx``.

    Returns:
        ``torch_difference``: the largest absolute difference between torch's outputs and those of the float ONNX model
        on the first validation frame; ``operators``; ``bytes`` of the file.

    Raises:
        ModelError: the result is not valid ONNX.
    """
    task = tasks.load(context.config)
    floating = load(context.inputs["quantize"] / FLOAT_MODEL)
    scales = encodings.load(context.inputs["quantize"] / ENCODINGS)
    operators = len(floating.graph.node)
    model = check(qdq.insert(floating, scales), context.out / MODEL)
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
    network = load_weights(task.build(), context.inputs["train"] / "model.safetensors").eval()
    pixels, _ = letterbox(next(iter(task.validation())).frame, task.preprocess.width, task.preprocess.height)
    image = normalize(pixels, task.preprocess)
    with torch.no_grad():
        outputs = network(torch.from_numpy(image))
    expected = [outputs[name] for name in task.output_names] if isinstance(outputs, dict) else outputs
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(list(task.output_names), {task.input_name: image})
    return max(float(np.abs(e.numpy() - f).max()) for e, f in zip(expected, found, strict=True))
