"""Encodings: the scales and zero points of a quantized model as data, and their JSON form in both directions."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.files import read_whole
from pipeline.graph.fusion import fused_activation
from pipeline.graph.view import Graph, Node
from pipeline.quantize.scheme import Scheme

SCHEMA = 1
AGAIN = "run with --from quantize"


@dataclass(frozen=True)
class ActivationEncoding:
    """An activation's range and what integers of ``dtype`` make of it: ``real = scale * (q - zero_point)``."""

    low: float
    high: float
    scale: float
    zero_point: int
    dtype: str = "int8"


@dataclass(frozen=True)
class WeightEncoding:
    """A weight's symmetric int8 scales: one, or one per channel along ``axis``; and whose bias goes with it.

    The bias, if there is one, is int32 with the scale ``activation scale * weight scale`` and zero point 0.
    """

    scales: tuple[float, ...]
    axis: int | None


@dataclass(frozen=True)
class Encodings:
    """Every encoding of a model, by tensor name.

    Attributes:
        activations: of what operators give, and of the model's input.
        weights: of constant weights.
        converted: of activations that an operator of the other type reads: how it reads them.
    """

    activations: Mapping[str, ActivationEncoding]
    weights: Mapping[str, WeightEncoding]
    converted: Mapping[str, ActivationEncoding] = field(default_factory=dict)

    def read(self, name: str, dtype: str | None) -> ActivationEncoding | None:
        """How an operator that computes in ``dtype`` reads the activation ``name``; ``None`` for a real number."""
        own = self.activations.get(name)
        return own if own is None or dtype in (None, own.dtype) else self.converted.get(name, own)

    def text(self) -> str:
        """They as JSON, which ``load`` reads."""
        document = {
            "schema": SCHEMA,
            "activations": {name: asdict(e) for name, e in self.activations.items()},
            "weights": {name: asdict(e) for name, e in self.weights.items()},
            "converted": {name: asdict(e) for name, e in self.converted.items()},
        }
        return json.dumps(document, indent=1) + "\n"

    def save(self, path: Path) -> None:
        """Write them as JSON; raises ``OSError``."""
        path.write_text(self.text())


def computed_in(graph: Graph, node: Node, activations: Mapping[str, ActivationEncoding]) -> str | None:
    """The type that ``node`` computes in: that of its output, its fused clamp's if it has one; else its input's."""
    clamp = fused_activation(graph, node)
    last = node if clamp is None else clamp
    for tensor in (*last.outputs, *node.activations):
        if tensor.name in activations:
            return activations[tensor.name].dtype
    return None


def require_scheme(encodings: Encodings, scheme: Scheme, where: object) -> None:
    """Raise ``ModelError`` for the first of ``encodings``, read from ``where``, that a target of ``scheme`` lacks."""
    fix = "export encodings for this target, or leave --encodings out"
    for name, activation in encodings.activations.items():
        if activation.dtype not in scheme.types:
            what = f"{name} is {activation.dtype}; the target computes with {' and '.join(scheme.types)}"
            raise ModelError(what, where=where, fix=fix)
        if scheme.symmetric and activation.zero_point != 0:
            what = f"{name} has zero point {activation.zero_point}; the target's activations are symmetric"
            raise ModelError(what, where=where, fix=fix)
        if scheme.power_of_two and activation.scale != scheme.scale(activation.scale):
            raise ModelError(f"{name} has scale {activation.scale:g}, no power of two", where=where, fix=fix)
    for name, weight in encodings.weights.items():
        if weight.axis is not None and not any(scheme.per_channel.values()):
            what = f"{name} has a scale per channel; the target takes one per tensor"
            raise ModelError(what, where=where, fix=fix)


def load(path: Path) -> Encodings:
    """The encodings in ``path``; raises ``ModelError`` when it is not such a file or of another schema."""
    try:
        document = json.loads(read_whole(path))
        schema = document["schema"]
        if schema != SCHEMA:
            raise ModelError(f"has schema {schema}, this version reads {SCHEMA}", where=path, fix=AGAIN)
        return Encodings(
            {name: _activation(e) for name, e in dict(document["activations"]).items()},
            {name: _weight(e) for name, e in dict(document["weights"]).items()},
            {name: _activation(e) for name, e in dict(document.get("converted", {})).items()},
        )
    except KeyError as error:
        raise ModelError(f"is not an encodings file: {error} is missing", where=path, fix=AGAIN) from error
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"is not an encodings file: {error}", where=path, fix=AGAIN) from error


def _activation(entry: Mapping[str, Any]) -> ActivationEncoding:
    low, high, zero = float(entry["low"]), float(entry["high"]), int(entry["zero_point"])
    dtype = str(entry.get("dtype", "int8"))
    zeros = {"int8": range(-128, 128), "int16": range(1)}.get(dtype, range(0))
    if not (math.isfinite(low) and math.isfinite(high) and zero in zeros):
        raise ValueError(f"low {low}, high {high}, zero point {zero} are no {dtype} range")
    return ActivationEncoding(low, high, _scale(entry["scale"]), zero, dtype)


def _weight(entry: Mapping[str, Any]) -> WeightEncoding:
    axis = entry["axis"]
    if not entry["scales"] or (axis is None and len(entry["scales"]) != 1):
        raise ValueError(f"{len(entry['scales'])} scales for axis {axis}")
    return WeightEncoding(tuple(_scale(s) for s in entry["scales"]), None if axis is None else int(axis))


def _scale(value: float) -> float:
    scale = float(value)
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale {scale} is not above 0")
    return scale
