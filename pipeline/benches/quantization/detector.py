"""The trained detector of a use case, as it is, and with boxes and scores in one tensor, as many exporters write it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline import tasks
from pipeline.benches.quantization.cases import Case, Figure, Outputs, Points, saved
from pipeline.config import RunConfig
from pipeline.errors import ModelError
from pipeline.graph.model import load
from pipeline.stages.common import FLOAT_MODEL
from pipeline.tasks import Sample, Task
from pipeline.tasks.detection.metric import average_precision
from runtime.adapters.image import letterbox, normalize

POOL = 192
"""Training images that calibration draws from."""

DETECTIONS = "detections"
"""The one output of the joined model: [1, 4 + classes, cells], corners in input pixels and scores in 0..1."""

LEAST = 1e-7
"""A score is at least that far from 0 and 1 when its logit is taken."""


def case(name: str, config: RunConfig, runs: Path, folder: Path, *, joined: bool) -> Case:
    """The detector that ``config``'s run has trained, ``joined`` into one output or not.

    Raises:
        ModelError: the use case has not been run.
    """
    path = runs / config.name / "quantize" / FLOAT_MODEL
    if not path.is_file():
        raise ModelError("there is no trained detector", where=path, fix=f"pipeline run the {config.name} config first")
    pooled = config.model_copy(update={"quantize": config.quantize.model_copy(update={"calibration_images": POOL})})
    task = tasks.load(pooled)
    samples = list(task.validation())
    fitted = [letterbox(each.frame, task.preprocess.width, task.preprocess.height)[0] for each in samples]
    float_model = load(path)
    model, split = join(float_model) if joined else (float_model, _as_it_is)
    return Case(
        name,
        "AP50",
        saved(model, folder / f"{name}.onnx"),
        [normalize(pixels, task.preprocess) for pixels in task.calibration()],
        [normalize(pixels, task.preprocess) for pixels in fitted],
        _ap50(task, samples, split),
        config.quantize.calibration_images,
    )


def _as_it_is(outputs: Outputs) -> Outputs:
    return outputs


def _ap50(task: Task, samples: Sequence[Sample], split: Callable[[Outputs], Outputs]) -> Points:
    truth = [(each.boxes, each.labels) for each in samples]

    def points(outputs: Sequence[Outputs]) -> Figure:
        given = iter(outputs)
        detect = task.detector(lambda _: split(next(given)))
        found = [detect(each.frame) for each in samples]
        return lambda places: 100 * average_precision([found[i] for i in places], [truth[i] for i in places])["ap50"]

    return points


def join(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Callable[[Outputs], Outputs]]:
    """``model`` with corners in input pixels and scores in 0..1 in one tensor, and what takes that apart again."""
    sizes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*model.graph.input, *model.graph.output)
    }
    rows, columns = sizes["boxes"][2:]
    stride = sizes[model.graph.input[0].name][3] // columns
    centres = stride * (np.stack(np.meshgrid(np.arange(columns), np.arange(rows)))[None] + 0.5)
    grid = np.concatenate([centres, centres], axis=1).astype(np.float32)
    signs = stride * np.array([-1, -1, 1, 1], np.float32)[None, :, None, None]
    joined = onnx.ModelProto()
    joined.CopyFrom(model)
    joined.graph.initializer.extend([numpy_helper.from_array(signs, "signs"), numpy_helper.from_array(grid, "grid")])
    joined.graph.node.extend(
        [
            helper.make_node("Mul", ["boxes", "signs"], ["distances"], name="distances"),
            helper.make_node("Add", ["distances", "grid"], ["corners"], name="corners"),
            helper.make_node("Sigmoid", ["scores"], ["probabilities"], name="probabilities"),
            helper.make_node("Concat", ["corners", "probabilities"], [DETECTIONS], name=DETECTIONS, axis=1),
        ]
    )
    classes = sizes["scores"][1]
    shape = [1, 4 + classes, rows, columns]
    del joined.graph.output[:]
    joined.graph.output.append(helper.make_tensor_value_info(DETECTIONS, onnx.TensorProto.FLOAT, shape))

    def split(outputs: Outputs) -> Outputs:
        found = outputs[DETECTIONS]
        chances = np.clip(found[:, 4:].astype(np.float64), LEAST, 1 - LEAST)
        return {
            "boxes": (found[:, :4] - grid) / signs,
            "scores": np.log(chances / (1 - chances)).astype(np.float32),
        }

    return joined, split
