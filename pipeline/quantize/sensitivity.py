"""Which layers lose what: each alone and with all before it, on the integer engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.progress import counted
from pipeline.quantize.calibrate import channel_axis
from pipeline.quantize.engine import Engine, Real
from pipeline.quantize.samples import Sample
from pipeline.quantize.score import Noise, decibels
from pipeline.quantize.walk import Step, walk
from pipeline.workspace import Progress, Quiet
from runtime.tensors import TensorSpec

WORST_CHANNELS = 3
DIVERGES_DB = 20.0
"""A layer has diverged where less than this is left of the signal: noise of a tenth of its size."""


@dataclass(frozen=True)
class Sensitivity:
    """What integers do to one layer's output.

    Attributes:
        node: the operator that computes it.
        op: its type.
        tensor: the activation, as the float model calls it.
        device: ``npu`` when it ran in integers, ``cpu`` when ONNX Runtime ran it.
        reasons: why it has no integer form.
        sqnr_db: signal to noise after all layers up to it ran in integers, in dB, within +-200.
        alone_db: the same when only it does, from the float model's inputs.
        cosine: cosine similarity of the first kind, 1 is best.
        largest: largest absolute difference.
        scale: real value of one int8 step; 0 when it is not quantized.
        dtype: of its values on the device: ``int8``, ``int16``, ``float32`` where it is not quantized.
        saturated: share of values that lie more than half a step beyond an end of the range.
        low, high: what the float model computed.
        channels: the channels that lose most, with their signal to noise.
    """

    node: str
    op: str
    tensor: str
    device: str
    reasons: tuple[str, ...]
    sqnr_db: float
    alone_db: float
    cosine: float
    largest: float
    scale: float
    dtype: str
    saturated: float
    low: float
    high: float
    channels: tuple[tuple[int, float], ...]


def sensitivities(
    engine: Engine, model: onnx.ModelProto, images: Sequence[Sample], progress: Progress | None = None
) -> tuple[Sensitivity, ...]:
    """One row for each output of each unit of ``engine``, in execution order.

    Args:
        engine: the quantized model.
        model: the float model that it was made from.
        images: float inputs; all are held at once.
        progress: counts the units.
    """
    rows = []
    told = progress or Quiet()
    told.start(len(engine.units), "looking at each layer")
    for step in counted(walk(engine, model, images), told):
        isolated = step.alone(len(images))
        rows += [_row(step, wire, name, isolated) for wire, name in step.outputs()]
    return tuple(rows)


def _row(step: Step, wire: str, name: str, isolated: Sequence[Mapping[str, NDArray[np.generic]]]) -> Sensitivity:
    spec = step.engine.specs[wire]
    together, apart = Noise(), Noise()
    ends, values = 0, 0
    per_channel: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    tensor = next(t for t in step.unit.piece.outputs if t.wire == wire)
    axis = channel_axis(tensor)
    low, high = np.inf, -np.inf
    for reals, result in zip(step.reals, step.results(), strict=True):
        real, found = reals[name], step.engine.real(wire, result)
        together.add(real, found)
        low, high = min(low, float(real.min())), max(high, float(real.max()))
        ends += _beyond(real, spec)
        values += real.size
        if axis is not None:
            per_channel.append(_by_channel(real, found, axis))
    for reals, result in zip(step.reals, isolated, strict=False):
        apart.add(reals[name], step.engine.real(wire, result))
    return Sensitivity(
        step.unit.nodes[0].name, step.unit.nodes[0].op, name, step.unit.device, step.unit.reasons,
        together.sqnr_db, apart.sqnr_db, together.cosine, together.largest, spec.scale or 0.0,
        spec.dtype, ends / max(values, 1), low, high, _worst(per_channel),
    )  # fmt: skip


def _beyond(real: Real, spec: TensorSpec) -> int:
    """How many of the values ``real`` the integers of ``spec`` cannot reach within half a step."""
    if spec.scale is None or spec.zero_point is None:
        return 0
    limits = np.iinfo(spec.dtype)
    low, high = (spec.scale * (end + half - spec.zero_point) for end, half in ((limits.min, -0.5), (limits.max, 0.5)))
    return int(np.count_nonzero((real < low) | (real > high)))


def _by_channel(real: Real, found: Real, axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Signal and noise of each channel of one image: [C] each."""
    others = tuple(a for a in range(real.ndim) if a != axis)
    exact = real.astype(np.float64)
    return (exact**2).sum(axis=others), ((exact - found) ** 2).sum(axis=others)


def _worst(parts: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> tuple[tuple[int, float], ...]:
    if not parts:
        return ()
    signal, noise = (np.sum([part[i] for part in parts], axis=0) for i in (0, 1))
    levels = decibels(signal, noise)
    order = np.argsort(-noise, kind="stable")[:WORST_CHANNELS]
    return tuple((int(c), float(levels[c])) for c in order if noise[c] > 0)


def first_divergence(rows: Sequence[Sensitivity]) -> Sensitivity | None:
    """The first layer, in execution order, whose output is noisier than ``DIVERGES_DB``; ``None`` without one."""
    return next((row for row in rows if row.sqnr_db < DIVERGES_DB), None)


def worst(rows: Sequence[Sensitivity]) -> Sensitivity | None:
    """The layer whose output is noisiest after all before it; ``None`` when there is none."""
    return min(rows, key=lambda row: row.sqnr_db, default=None)


def as_rows(rows: Sequence[Sensitivity]) -> list[Mapping[str, object]]:
    """The rows as JSON objects."""
    return [vars(row) for row in rows]


def culprit(rows: Sequence[Sensitivity]) -> Sensitivity | None:
    """The layer that loses most on its own; ``None`` when there is none."""
    return min(rows, key=lambda row: row.alone_db, default=None)
