"""What a quantized file is worth: on the integer engine of the target where it can take it, else in ONNX Runtime."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort

from pipeline.benches.quantization.cases import Case, Outputs, Real
from pipeline.benches.quantization.contenders import TARGETS, Scheme
from pipeline.benches.quantization.whole import as_compiled
from pipeline.errors import ModelError, UserError, one_line
from pipeline.graph.opening import open_model
from pipeline.quantize.engine import Engine
from pipeline.quantize.score import Noise
from pipeline.targets import library
from pipeline.targets.inheritance import SHIPPED
from runtime.delegates.cpu import LOAD_ERRORS

Where = Literal["engine", "onnxruntime"]

BLOCKS = 12
"""Parts of the inputs, each left out once to see what the metric owes to the choice of inputs. A part is of inputs next
to one another, for frames of a clip and cuts of a photograph are alike."""


@dataclass(frozen=True)
class Judgement:
    """A quantized model, measured.

    Attributes:
        points: the case's metric, 0 to 100.
        replicates: the same with each of ``BLOCKS`` parts of the inputs left out, in order.
        sqnr_db: signal to quantization noise of the outputs against float, in dB, averaged over outputs.
        where: what ran it.
        floats: its operators that have no integers and so ran in float; ``None`` in ONNX Runtime, which does not tell.
        why: why the engine could not take it; empty when it could.
    """

    points: float
    replicates: tuple[float, ...]
    sqnr_db: float
    where: Where
    floats: int | None
    why: str = ""


@dataclass(frozen=True)
class Reference:
    """The float model, measured: its outputs on every input of the case, and its points."""

    outputs: Sequence[Outputs]
    points: float
    replicates: tuple[float, ...]


def reference(case: Case) -> Reference:
    """The float model of ``case`` in ONNX Runtime."""
    outputs = list(_run(case.model, case.inputs))
    return Reference(outputs, *_measured(case, outputs))


def _measured(case: Case, outputs: Sequence[Outputs]) -> tuple[float, tuple[float, ...]]:
    """The metric over all inputs, and over all but each of ``BLOCKS`` parts; no part is empty."""
    figure, places = case.points(outputs), np.arange(len(outputs))
    parts = np.array_split(places, min(BLOCKS, len(outputs)))
    return figure(places.tolist()), tuple(figure(np.delete(places, part).tolist()) for part in parts)


def judge(case: Case, real: Reference, path: Path, scheme: Scheme) -> Judgement:
    """The QDQ file ``path``, made from the model of ``case``, whose float figures are ``real``.

    Raises:
        ModelError: neither the engine nor ONNX Runtime takes the file.
    """
    try:
        engine = Engine(shaped(as_compiled(open_model(path).model)), library.load(SHIPPED / f"{TARGETS[scheme]}.yaml"))
        outputs: Sequence[Outputs] = [engine.run(each) for each in case.inputs]
    except (UserError, onnx.shape_inference.InferenceError) as error:
        try:
            outputs = list(_run(path, case.inputs))
        except LOAD_ERRORS as other:
            raise ModelError(f"neither the engine nor ONNX Runtime takes it: {one_line(other)}", where=path) from error
        return Judgement(*_measured(case, outputs), _sqnr(real.outputs, outputs), "onnxruntime", None, str(error))
    floats = sum(len(unit.nodes) for unit in engine.units if unit.program is None)
    return Judgement(*_measured(case, outputs), _sqnr(real.outputs, outputs), "engine", floats)


def shaped(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with the shapes and types of all its tensors."""
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def _run(path: Path, inputs: Sequence[Real]) -> Iterator[Outputs]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,), names = session.get_inputs(), [o.name for o in session.get_outputs()]
    for each in inputs:
        yield dict(zip(names, session.run(names, {given.name: each}), strict=True))


def _sqnr(real: Sequence[Outputs], found: Sequence[Outputs]) -> float:
    noise = {name: Noise() for name in real[0]}
    for a, b in zip(real, found, strict=True):
        for name, sums in noise.items():
            sums.add(a[name], b[name])
    return float(np.mean([sums.sqnr_db for sums in noise.values()]))
