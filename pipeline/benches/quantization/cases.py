"""What is quantized: models with their images and the metric that counts for them."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.files import write_atomically
from pipeline.quantize.prepare import prepare

Real = NDArray[np.float32]
Outputs = Mapping[str, Real]
Figure = Callable[[Sequence[int]], float]
"""From places of inputs to the metric over these, in points, 0 to 100."""

Points = Callable[[Sequence[Outputs]], Figure]
"""From a model's outputs, one mapping per input to measure with, to its figure."""


@dataclass(frozen=True)
class Case:
    """A model that every contender quantizes.

    Attributes:
        name: in tables and for ``--only``.
        metric: what ``points`` are.
        model: the float ONNX file, batch norms folded.
        pool: inputs to draw calibration images from, none of them in ``inputs``.
        inputs: to measure with.
        points: the metric.
        images: calibration images of one draw.
    """

    name: str
    metric: str
    model: Path
    pool: Sequence[Real]
    inputs: Sequence[Real]
    points: Points
    images: int = 64

    def draw(self, seed: int, folder: Path, images: int | None = None) -> Path:
        """Write a draw of ``images`` (those of the case unless given) into ``folder``; with replacement beyond all."""
        folder.mkdir(parents=True, exist_ok=True)
        count = images or self.images
        generator = np.random.default_rng(seed)
        for place, index in enumerate(generator.choice(len(self.pool), count, replace=count > len(self.pool))):
            np.save(folder / f"{place:05}.npy", self.pool[int(index)])
        return folder


def saved(model: onnx.ModelProto, path: Path) -> Path:
    """Write ``model`` to ``path`` as it is quantized: fixed in size, constants and batch norms folded.

    Another process may be reading ``path``: it is never there in another form, and not replaced by the same.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-quant-") as folder:
        plain = Path(folder) / path.name
        plain.write_bytes(model.SerializeToString(deterministic=True))
        made = prepare(plain).model.SerializeToString(deterministic=True)
    if not path.is_file() or path.read_bytes() != made:
        write_atomically(path, made)
    return path


def accuracy(labels: Sequence[int]) -> Points:
    """Top-1 accuracy of the first output against ``labels``."""

    def points(outputs: Sequence[Outputs]) -> Figure:
        hits = np.array([found == label for found, label in zip(_top(outputs), labels, strict=True)])
        return lambda places: 100 * float(np.mean(hits[list(places)]))

    return points


def _top(outputs: Sequence[Outputs]) -> Iterator[int]:
    return (int(next(iter(each.values())).argmax()) for each in outputs)


def agreement(reference: Sequence[Outputs]) -> Points:
    """Share of inputs on which the first output's largest value is the one of ``reference``, the float model's."""
    return accuracy(list(_top(reference)))
