"""What is odd about a model, its statistics and what was made of them, each a sentence for people."""

from collections.abc import Sequence

import onnx

from pipeline.graph.view import view
from pipeline.quantize import findings
from pipeline.quantize.calibrate import Calibration
from pipeline.quantize.engine import Engine
from pipeline.quantize.trials import State


def oddities(model: onnx.ModelProto, calibration: Calibration, state: State) -> Sequence[str]:
    """Of the weights of the float ``model``, of what its activations took, and of the ``state`` made of it."""
    graph = view(model)
    own = findings.of_encodings(view(state.model), state.encodings)
    return (*findings.of_weights(graph), *own, *findings.of_statistics(graph, calibration))


def fallbacks(engine: Engine) -> Sequence[str]:
    """Operators that ``engine`` has no integer form of."""
    return [f"{unit.name} has no integer form here: {unit.reasons[0]}" for unit in engine.units if unit.reasons]
