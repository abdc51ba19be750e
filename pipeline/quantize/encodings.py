"""Encodings: the scales and zero points of a quantized model as data, and their JSON form in both directions."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.files import read_whole
from pipeline.quantize.scheme import Scheme

SCHEMA = 1
AGAIN = "run with --from quantize"


@dataclass(frozen=True)
class ActivationEncoding:
    """An activation's range and what int8 makes of it: ``real = scale * (q - zero_point)``."""

    low: float
    high: float
    scale: float
    zero_point: int


@dataclass(frozen=True)
class WeightEncoding:
    """A weight's symmetric int8 scales: one, or one per channel along ``axis``; and whose bias goes with it.

    The bias, if there is one, is int32 with the scale ``activation scale * weight scale`` and zero point 0.
    """

    scales: tuple[float, ...]
    axis: int | None


@dataclass(frozen=True)
class Encodings:
    """Every encoding of a model, by tensor name."""

    activations: Mapping[str, ActivationEncoding]
    weights: Mapping[str, WeightEncoding]

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        document = {
            "schema": SCHEMA,
            "activations": {name: asdict(e) for name, e in self.activations.items()},
            "weights": {name: asdict(e) for name, e in self.weights.items()},
        }
        path.write_text(json.dumps(document, indent=1) + "\n")


def require_scheme(encodings: Encodings, scheme: Scheme, where: object) -> None:
    """Raise ``ModelError`` for the first of ``encodings``, read from ``where``, that a target of ``scheme`` lacks."""
    fix = "export encodings for this target, or leave --encodings out"
    for name, activation in encodings.activations.items():
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
        )
    except KeyError as error:
        raise ModelError(f"is not an encodings file: {error} is missing", where=path, fix=AGAIN) from error
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"is not an encodings file: {error}", where=path, fix=AGAIN) from error


def _activation(entry: Mapping[str, Any]) -> ActivationEncoding:
    low, high, zero = float(entry["low"]), float(entry["high"]), int(entry["zero_point"])
    if not (math.isfinite(low) and math.isfinite(high) and -128 <= zero <= 127):
        raise ValueError(f"low {low}, high {high}, zero point {zero} are no int8 range")
    return ActivationEncoding(low, high, _scale(entry["scale"]), zero)


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
