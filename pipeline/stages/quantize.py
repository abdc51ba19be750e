"""Quantize the trained network to int8 and measure what that costs on the integer engine that ships."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from typing import cast

import onnx
import torch

from pipeline import tasks
from pipeline.checking.check import Demands
from pipeline.config import QuantizeConfig
from pipeline.cost import hosts
from pipeline.errors import DivergedError
from pipeline.graph.capture import capture
from pipeline.graph.model import check, save
from pipeline.graph.view import view
from pipeline.quantize import recipe as recipes
from pipeline.quantize import scheme as schemes
from pipeline.quantize import trials
from pipeline.quantize.budget import Budget
from pipeline.quantize.calibrate import Calibration
from pipeline.quantize.calibrated import calibrated
from pipeline.quantize.differentiable import QuantizedNetwork, require_trainable
from pipeline.quantize.engine import Engine, Real
from pipeline.quantize.images import Watched
from pipeline.quantize.journal import Journal, key_of
from pipeline.quantize.prepare import refuse_broken
from pipeline.quantize.recipe import Recipe
from pipeline.quantize.scheme import Scheme
from pipeline.quantize.sensitivity import Sensitivity, as_rows, sensitivities, worst
from pipeline.quantize.split import Split, split
from pipeline.quantize.trials import Search, Trial
from pipeline.quantizing import ladder as ladders
from pipeline.quantizing.ladder import Ground, Ladder, climb
from pipeline.quantizing.notes import fallbacks, oddities
from pipeline.quantizing.price import pricer
from pipeline.stages.common import (
    ENCODINGS,
    ERRORS,
    FLOAT_MODEL,
    JOURNAL,
    LADDER,
    QUANTIZED_MODEL,
    RECIPE,
    TRAINED,
    TRAINED_JOURNAL,
)
from pipeline.targets import library
from pipeline.targets.profile import Target
from pipeline.tasks import Infer, Pixels, Task
from pipeline.tasks.inference import infer_onnx, load_weights
from pipeline.training.finetune import Kept, finetune
from pipeline.workspace import Context, Progress, Result
from runtime.adapters.detection import Detections
from runtime.adapters.image import normalize
from runtime.npu.contracts import find_contract
from runtime.tensors import Tensors


def ahead(context: Context) -> None:
    """Refuse before anything is trained what would be refused after it.

    Raises:
        ConfigError: the recipe cannot be read or is for another target.
        ModelError: the network cannot be exported, or with ``quantize.mode: qat`` not be trained with rounding.
        TargetError: the target's contract does not compute with the activations that it quantizes models to.
    """
    config, target = context.config, library.load(context.profile)
    schemes.of(target, chosen(config.quantize, target).power_of_two)
    if config.quantize.mode == "qat":
        task = tasks.load(config)
        require_trainable(view(exported(task, task.build(), config.export.opset)))


def run(context: Context) -> Result:
    """Capture the float model, calibrate it, try what the recipe names, and measure.

    Writes ``float.onnx``, ``quantized.onnx`` (with quantize/dequantize pairs), ``encodings.json`` (ranges and scales),
    ``recipe.yaml`` (what was asked for, with which images, and what came out) and ``errors.json`` (one row per layer).
    With ``quantize.ladder`` also ``ladder.json``, every quantization that was judged with its estimated cost.
    Until everything is tried, ``trials.jsonl`` has what was measured, so that a search that was killed or that its
    budget stopped goes on; and ``trained.trials.jsonl`` what was measured of weights trained with rounding.

    Returns:
        ``float_ap50``, ``float_ap`` of the float ONNX model; ``ap50``, ``ap`` of the int8 model as the integer
        engine of the runtime computes it, whatever the target's coverage; ``worst_sqnr_db`` of the layers; with a
        budget ``untried``, the trials that it left out; with ``quantize.mode: qat`` ``qat_kept``, 1 where the weights
        are those that were trained with rounding.

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
    if config.quantize.mode == "qat":
        require_trainable(view(model))
    save(model, context.out / FLOAT_MODEL)
    float_scores = _evaluated(task, infer_onnx(model.SerializeToString(), task), context.progress, "float")
    measured = _Measured(task, target, context.progress)
    searched = _search(context, task, model, Wanted(target, recipe, float_scores["ap50"], measured))
    state = searched.state
    quantized = check(state.quantized(), context.out / QUANTIZED_MODEL)
    save(quantized, context.out / QUANTIZED_MODEL)
    state.encodings.save(context.out / ENCODINGS)
    engine, images = Engine(quantized, target), _pick(task, range(config.quantize.error_images))
    for note in (*searched.notes, *fallbacks(engine)):
        context.progress.message(note)
    errors = sensitivities(engine, state.real, images, context.progress)
    (context.out / ERRORS).write_text(json.dumps(as_rows(errors), indent=1) + "\n")
    int8_scores = measured.of(state.quantized())
    lowest = worst(errors)
    metrics = {
        **{f"float_{name}": value for name, value in float_scores.items()},
        **int8_scores,
        **({} if lowest is None else {"worst_sqnr_db": lowest.sqnr_db}),
    }
    _save_recipe(context.out / RECIPE, recipe, {**searched.used, "metrics": metrics})
    _clear(context.out, journals=not searched.numbers.get("untried"))
    drop = float_scores["ap50"] - int8_scores["ap50"]
    return Result({**metrics, **searched.numbers}, _gates(drop, config.quantize.max_ap50_drop, lowest))


def _clear(out: Path, *, journals: bool) -> None:
    """Remove what only a stage that was killed goes on with, and the ``journals`` of a search that is over."""
    rmtree(out / TRAINED, ignore_errors=True)
    for journal in (JOURNAL, TRAINED_JOURNAL) if journals else ():
        (out / journal).unlink(missing_ok=True)


@dataclass(frozen=True)
class Wanted:
    """What the search goes by: target and recipe, and what the float model reaches."""

    target: Target
    recipe: Recipe
    float_ap50: float
    measured: "_Measured"


@dataclass(frozen=True)
class _Searched:
    """What a search came to.

    Attributes:
        state: what was kept.
        used: what a saved recipe tells of it.
        numbers: what the stage tells of it beside accuracies.
        notes: what was left out, and what looks odd, each a sentence.
    """

    state: trials.State
    used: Mapping[str, object]
    numbers: Mapping[str, float]
    notes: Sequence[str]


class _Measured:
    """AP of quantized models on the integer engine, each measured once."""

    def __init__(self, task: Task, target: Target, progress: Progress) -> None:
        self._task, self._target, self._progress = task, target, progress
        self._known: dict[str, Mapping[str, float]] = {}

    def of(self, model: onnx.ModelProto) -> Mapping[str, float]:
        """``ap50`` and ``ap`` of ``model`` on the validation frames."""
        name = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
        if name not in self._known:
            infer = _on_engine(Engine(model, self._target), self._task)
            self._known[name] = _evaluated(self._task, infer, self._progress, "int8")
        return self._known[name]


def _on_engine(engine: Engine, task: Task) -> Infer:
    def infer(pixels: Pixels) -> Tensors:
        return engine.run(normalize(pixels, task.preprocess))

    return infer


def _evaluated(task: Task, infer: Infer, progress: Progress, what: str) -> Mapping[str, float]:
    """AP of ``infer`` on the validation frames, which are counted."""
    progress.start(0, f"measuring {what}, validation frames")
    detect = task.detector(infer)

    def counting(frame: Pixels) -> Detections:
        found = detect(frame)
        progress.advance()
        return found

    return task.evaluate(counting)


def chosen(config: QuantizeConfig, target: Target) -> Recipe:
    """The recipe that the configuration names by file or preset, or says itself; raises ``ConfigError``."""
    if config.recipe is not None:
        return recipes.load(config.recipe, target.name)
    if config.preset is not None:
        return recipes.PRESETS[config.preset]
    return Recipe(range=(config.range,), percentiles=(config.percentile,))


def _search(context: Context, task: Task, model: onnx.ModelProto, wanted: Wanted) -> _Searched:
    """Calibrate and try, and climb the ladder where that is wanted; every trial is told and kept in the journal."""
    section, progress, recipe = context.config.quantize, context.progress, wanted.recipe
    watched = Watched(_images(task), "data", channels=1)
    histograms = recipe.needs_histograms or section.ladder
    calibration, seen = calibrated(model, watched, section.calibration_images, histograms, progress)
    parts, notes = split(calibration.images, recipe, lambda: _images(task), lambda places: _pick(task, places))
    journal = _journal(context, JOURNAL, key_of(model, seen.digest, recipe, wanted.target))
    search = Search(journal, Budget(section.budget), progress)
    scheme = schemes.of(wanted.target, recipe.power_of_two)
    found = trials.run(model, calibration, parts, recipe, wanted.target, scheme, search)
    numbers: dict[str, float] = {}
    if section.mode == "qat":
        trained = _trained(context, found, wanted)
        numbers["qat_kept"] = float(trained is not found)
        if trained is not found:  # other weights: only its layers can be climbed, against its own float form
            found, model = trained, trained.state.model
            wanted = replace(wanted, recipe=recipes.PRESETS["best"])
            key = key_of(found.state.quantized(), seen.digest, wanted.recipe, wanted.target)
            search = replace(search, journal=_journal(context, TRAINED_JOURNAL, key))
    ladder = _climbed(context, (model, calibration, parts, scheme), wanted, search, found) if section.ladder else None
    untried = (*found.untried, *(() if ladder is None else ladder.untried))
    left_out = search.left_out(found.trials, untried, "a larger quantize.budget tries them")
    if section.budget is not None:
        numbers["untried"] = float(len(untried))
    used = {"calibrated": seen, "kept": ladders.kept(found.path, ladder)}
    state = found.state if ladder is None else ladder.state
    return _Searched(state, used, numbers, (*notes, *left_out, *oddities(model, calibration, state)))


def _journal(context: Context, name: str, key: str) -> Journal:
    """The journal ``name`` of the search ``key``; says what it knows."""
    journal = Journal(context.out / name, key)
    if len(journal):
        trials_before = f"{len(journal)} trial{'s that were' if len(journal) > 1 else ' that was'}"
        context.progress.message(f"goes on after {trials_before} measured before")
    return journal


def _trained(context: Context, found: trials.Found, wanted: Wanted) -> trials.Found:
    """``found`` trained with rounding, if the integer engine's AP50 gains by it; else ``found`` itself.

    A training that was killed goes on after its last whole epoch.
    """
    state, start = found.state, time.monotonic()
    config, progress, qat = context.config, context.progress, context.config.quantize.qat
    what = f"qat, {qat.epochs} epoch{'s' * (qat.epochs > 1)}"
    settings = config.train.model_copy(update={"epochs": qat.epochs, "learning_rate": qat.learning_rate})
    network = QuantizedNetwork(state.model, state.encodings, find_contract(wanted.target.contract))
    task = tasks.load(config.model_copy(update={"train": settings}))
    cache = context.out / "cache"
    key = key_of(state.quantized(), settings.model_dump_json(), wanted.recipe, wanted.target)
    try:
        learner = task.learner(cache, progress, network)
        finetune(learner, settings, progress, what, Kept(context.out / TRAINED / "last.ckpt", key))
        model = cast("QuantizedNetwork", learner.averaged).written()
    except DivergedError as error:
        progress.message(f"{what}: diverged, so what was found without it is kept: {error}")
        progress.trial(what, {"diverged": 1.0, "kept": 0.0})
        return found
    finally:
        rmtree(cache, ignore_errors=True)
    made = replace(state, model=model, exact=None)
    before, after = (wanted.measured.of(each.quantized()) for each in (state, made))
    kept = after["ap50"] > before["ap50"]
    said = f"AP50 {after['ap50']:.4f}, {before['ap50']:.4f} without it"
    progress.message(f"{what}: {said}, {'kept' if kept else 'rolled back'}")
    progress.trial(what, {**after, **{f"ptq_{name}": value for name, value in before.items()}, "kept": float(kept)})
    trial = Trial(what, None, kept, time.monotonic() - start)
    if not kept:
        return found
    return replace(found, state=made, trials=(*found.trials, trial), path=(*found.path, trial), score=None)


def _climbed(
    context: Context,
    of: tuple[onnx.ModelProto, Calibration, Split, Scheme],
    wanted: Wanted,
    search: Search,
    found: trials.Found,
) -> Ladder:
    """The mixed-precision ladder above what the recipe gave, until AP50 is near enough to the float model's."""
    model, calibration, parts, scheme = of
    section, partition = context.config.quantize, context.config.partition
    host = None if context.host is None else hosts.load(context.host)
    demands = Demands(partition.place, partition.max_npu_partitions, partition.objective, prices=False)
    ground = Ground(
        model, calibration, parts, wanted.recipe, wanted.target, scheme, search, pricer(wanted.target, host, demands),
        measure=lambda made: wanted.measured.of(made)["ap50"],
        enough=lambda _, ap50: ap50 is not None and wanted.float_ap50 - ap50 <= section.max_ap50_drop,
    )  # fmt: skip
    ladder = climb(ground, found)
    facts = {**ladders.document(ladder), "max_ap50_drop": section.max_ap50_drop, "float_ap50": wanted.float_ap50}
    (context.out / LADDER).write_text(json.dumps(facts, indent=1) + "\n")
    return ladder


def _save_recipe(path: Path, recipe: Recipe, came: Mapping[str, object]) -> None:
    """Write the recipe with what came of it; it names no target, for all that agree in scheme and contract share it."""
    path.write_text(recipes.dump(recipe.model_copy(update=dict(came))))


def _gates(drop: float, ceiling: float, lowest: Sensitivity | None) -> tuple[str, ...]:
    if drop <= ceiling:
        return ()
    worst_layer = "" if lowest is None else f"; worst layer: {lowest.node} ({lowest.op}), {lowest.sqnr_db:.1f} dB"
    return (f"quantize.max_ap50_drop is {ceiling:.4f}, int8 costs {drop:.4f} of AP50{worst_layer}",)


def float_model(task: Task, weights: Path, opset: int) -> onnx.ModelProto:
    """The task's network with the trained ``weights`` as a float ONNX model; raises ``ModelError``."""
    model = exported(task, load_weights(task.build(), weights), opset)
    refuse_broken(model)
    return model


def exported(task: Task, network: torch.nn.Module, opset: int) -> onnx.ModelProto:
    """The task's ``network`` as a float ONNX model; raises ``ModelError``."""
    example = torch.zeros(1, 3, task.preprocess.height, task.preprocess.width)
    return capture(network, example, task.input_name, task.output_names, opset)


def _images(task: Task) -> Iterator[Real]:
    return (normalize(pixels, task.preprocess) for pixels in task.calibration())


def _pick(task: Task, places: Sequence[int]) -> list[Real]:
    """The calibration images at ``places`` of their order, as far as there are any."""
    wanted = set(places)
    return [image for place, image in enumerate(_images(task)) if place in wanted]
