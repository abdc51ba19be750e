"""What is odd about a model, its calibration and its quantization, as sentences for who wants it quantized."""

from collections.abc import Sequence

import onnx

from pipeline.graph.view import view
from pipeline.quantize import findings, ptq, trials
from pipeline.quantize import scheme as schemes
from pipeline.quantize.calibrate import Calibration
from pipeline.quantize.engine import Engine
from pipeline.quantize.prepare import Prepared
from pipeline.quantize.recipe import Recipe
from pipeline.quantize.ways import choosings, ways
from pipeline.targets.profile import Target
from pipeline.workspace import Progress
from runtime.npu.contracts import find_contract

MOST = 12
"""Sentences that are said before a search."""


def before(prepared: Prepared, calibration: Calibration, recipe: Recipe, target: Target, progress: Progress) -> None:
    """Say what is odd before a search begins, of the ranges that it begins with.

    Raises:
        ConfigError: an override matches no activation.
        ModelError: the model cannot be quantized.
    """
    scheme, graph = schemes.of(target, recipe.power_of_two), view(prepared.model)
    choosing = choosings(ways(recipe)[0][1], graph)[0]
    first = ptq.quantize(graph, calibration.histograms, scheme, choosing)
    state = trials.State(prepared.model, calibration, choosing, False, first)
    integers = findings.of_integers(view(state.quantized()), find_contract(target.contract))
    said = (*integers, *oddities(prepared.model, calibration, state))
    for sentence in said[:MOST]:
        progress.message(f"before the search: {sentence}")
    if len(said) > MOST:
        progress.message(f"before the search: {len(said) - MOST} more are among the notes at the end")


def oddities(model: onnx.ModelProto, calibration: Calibration, state: trials.State) -> Sequence[str]:
    """What is odd about the weights, the activations and what was made of them."""
    graph = view(model)
    own = findings.of_encodings(view(state.model), state.encodings)
    return (*own, *findings.of_statistics(graph, calibration), *findings.of_weights(graph))


def fallbacks(engine: Engine) -> Sequence[str]:
    """Operators that the engine has no integer form of."""
    return [f"{unit.name} has no integer form here: {unit.reasons[0]}" for unit in engine.units if unit.reasons]
