"""Quantize the trained network to int8 and measure what that costs on the integer engine that ships."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from pipeline import tasks
from pipeline.config import QuantizeConfig
from pipeline.graph.capture import capture
from pipeline.graph.model import check, save
from pipeline.graph.view import view
from pipeline.quantize import recipe as recipes
from pipeline.quantize import scheme, trials
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.engine import Engine, Real
from pipeline.quantize.recipe import Recipe
from pipeline.quantize.sensitivity import Sensitivity, as_rows, sensitivities, worst
from pipeline.quantize.split import split
from pipeline.quantize.trials import Search
from pipeline.stages.common import ENCODINGS, ERRORS, FLOAT_MODEL, QUANTIZED_MODEL, RECIPE
from pipeline.targets import library
from pipeline.targets.profile import Target
from pipeline.tasks import Task
from pipeline.tasks.inference import infer_onnx, load_weights
from pipeline.workspace import Context, Result
from runtime.adapters.image import normalize
from runtime.tensors import Tensors


def run(context: Context) -> Result:
    """Capture the float model, calibrate it, try what the recipe names, and measure.

    Writes ``float.onnx``, ``quantized.onnx`` (with quantize/dequantize pairs), ``encodings.json`` (ranges and scales),
    ``recipe.yaml`` (what was asked for and what came out) and ``errors.json`` (one row per layer).

    Returns:
        ``float_ap50``, ``float_ap`` of the float ONNX model; ``ap50``, ``ap`` of the int8 model as the integer
        engine of the runtime computes it, whatever the target's coverage; ``worst_sqnr_db`` of the layers.

    Raises:
        ConfigError: the recipe cannot be read or is for another target.
        DataError: the images are unusable.
        ModelError: the network cannot be exported or quantized.
    """
    config = context.config
    task = tasks.load(config)
    target = library.load(context.profile)
    recipe = chosen(config.quantize, target)
    model = float_model(task, context.inputs["train"] / "model.safetensors", config.export.opset)
    save(model, context.out / FLOAT_MODEL)
    found = _search(context, task, model, target, recipe)
    quantized = check(found.state.quantized(), context.out / QUANTIZED_MODEL)
    save(quantized, context.out / QUANTIZED_MODEL)
    found.state.encodings.save(context.out / ENCODINGS)
    engine = Engine(quantized, target)
    images = _pick(task, range(config.quantize.error_images))
    errors = sensitivities(engine, found.state.model, images)
    (context.out / ERRORS).write_text(json.dumps(as_rows(errors), indent=1) + "\n")
    float_scores = task.evaluate(task.detector(infer_onnx(model.SerializeToString(), task)))

    def infer(pixels: NDArray[np.uint8]) -> Tensors:
        return engine.run(normalize(pixels, task.preprocess))

    int8_scores = task.evaluate(task.detector(infer))
    lowest = worst(errors)
    metrics = {
        **{f"float_{name}": value for name, value in float_scores.items()},
        **int8_scores,
        **({} if lowest is None else {"worst_sqnr_db": lowest.sqnr_db}),
    }
    _save_recipe(context.out / RECIPE, recipe, metrics)
    drop = float_scores["ap50"] - int8_scores["ap50"]
    return Result(metrics, _gates(drop, config.quantize.max_ap50_drop, lowest))


def chosen(config: QuantizeConfig, target: Target) -> Recipe:
    """The recipe that the configuration names by file or preset, or says itself; raises ``ConfigError``."""
    if config.recipe is not None:
        return recipes.load(config.recipe, target.name)
    if config.preset is not None:
        return recipes.PRESETS[config.preset]
    return Recipe(range=(config.range,), percentiles=(config.percentile,))


def _search(context: Context, task: Task, model: onnx.ModelProto, target: Target, recipe: Recipe) -> trials.Found:
    """Calibrate and try; every trial is told."""
    context.progress.start(context.config.quantize.calibration_images, "calibrating")
    calibration = calibrate(model, view(model), _calibration(task, context), recipe.needs_histograms)
    parts, _ = split(calibration.images, recipe, lambda: _images(task), lambda places: _pick(task, places))
    wanted = scheme.of(target, recipe.power_of_two)
    search = Search(tell=lambda trial: context.progress.message(str(trial)))
    return trials.run(model, calibration, parts, recipe, target, wanted, search)


def _save_recipe(path: Path, recipe: Recipe, metrics: dict[str, float]) -> None:
    """Write the recipe with its numbers; it names no target, for all that agree in scheme and contract share it."""
    path.write_text(recipes.dump(recipe.model_copy(update={"metrics": metrics})))


def _gates(drop: float, ceiling: float, lowest: Sensitivity | None) -> tuple[str, ...]:
    if drop <= ceiling:
        return ()
    worst_layer = "" if lowest is None else f"; worst layer: {lowest.node} ({lowest.op}), {lowest.sqnr_db:.1f} dB"
    return (f"quantize.max_ap50_drop is {ceiling:.4f}, int8 costs {drop:.4f} of AP50{worst_layer}",)


def float_model(task: Task, weights: Path, opset: int) -> onnx.ModelProto:
    """The task's network with the trained ``weights`` as a float ONNX model."""
    network = load_weights(task.build(), weights)
    example = torch.zeros(1, 3, task.preprocess.height, task.preprocess.width)
    return capture(network, example, task.input_name, task.output_names, opset)


def _images(task: Task) -> Iterator[Real]:
    return (normalize(pixels, task.preprocess) for pixels in task.calibration())


def _calibration(task: Task, context: Context) -> Iterator[Real]:
    for image in _images(task):
        yield image
        context.progress.advance()


def _pick(task: Task, places: Sequence[int]) -> list[Real]:
    """The calibration images at ``places`` of their order, as far as there are any."""
    wanted = set(places)
    return [image for place, image in enumerate(_images(task)) if place in wanted]
