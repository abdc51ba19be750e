"""Encodings: the scales and zero points of a quantized model as data, and their JSON form in both directions."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import ModelError

SCHEMA = 1


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


def load(path: Path) -> Encodings:
    """The encodings in ``path``; raises ``ModelError`` when it is not such a file or of another schema."""
    try:
        document = json.loads(path.read_text())
        if document["schema"] != SCHEMA:
            raise ModelError(f"has schema {document['schema']}, this version reads {SCHEMA}", where=path)
        return Encodings(
            {name: ActivationEncoding(**e) for name, e in document["activations"].items()},
            {name: WeightEncoding(tuple(e["scales"]), e["axis"]) for name, e in document["weights"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"is not an encodings file: {error}", where=path) from error
