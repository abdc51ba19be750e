"""How close the integer engine's outputs are to the float model's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.quantize.engine import Engine, Real
from pipeline.quantize.samples import Sample

LIMIT_DB = 200.0
"""A tensor without any error has this ratio, so that it is a number in JSON too."""


@dataclass
class Noise:
    """Running sums over images of a tensor and what integers make of it."""

    signal: float = 0.0
    noise: float = 0.0
    dot: float = 0.0
    quantized: float = 0.0
    largest: float = 0.0

    def add(self, real: NDArray[np.floating], integer: NDArray[np.floating]) -> None:
        """Take in one image's values, of any one shape."""
        a, b = real.astype(np.float64).ravel(), integer.astype(np.float64).ravel()
        self.signal += float((a * a).sum())
        self.quantized += float((b * b).sum())
        self.dot += float((a * b).sum())
        self.noise += float(((a - b) ** 2).sum())
        self.largest = max(self.largest, float(np.abs(a - b).max()))

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise, 10 log10(sum x^2 / sum (x - q)^2), in dB, within +-``LIMIT_DB``."""
        return float(decibels(np.array(self.signal), np.array(self.noise)))

    @property
    def cosine(self) -> float:
        """Cosine similarity, 1 is best."""
        norm = np.sqrt(self.signal * self.quantized)
        return float(self.dot / norm if norm else self.noise == 0.0)


def decibels(signal: NDArray[np.floating], noise: NDArray[np.floating]) -> NDArray[np.float64]:
    """The ratios in dB, within +-``LIMIT_DB``; no noise is the upper limit, noise without signal the lower."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 10 * np.log10(np.asarray(signal, np.float64) / noise)
    ratio = np.where(np.asarray(noise) == 0.0, LIMIT_DB, ratio)
    clipped: NDArray[np.float64] = np.clip(ratio, -LIMIT_DB, LIMIT_DB)
    return clipped


@dataclass(frozen=True)
class Score:
    """Outputs on the engine against the float model's.

    Attributes:
        outputs: signal to noise of each, in dB, by name.
        cosines: cosine similarity of each.
        agreement: share of images with the same largest value in the first output; ``None`` unless it is one row.
        images: judged on.
    """

    outputs: Mapping[str, float]
    cosines: Mapping[str, float]
    agreement: float | None
    images: int
    sqnr_db: float = field(init=False)
    """Their mean: the objective."""

    def __post_init__(self) -> None:
        """Average the outputs."""
        object.__setattr__(self, "sqnr_db", float(np.mean(list(self.outputs.values()))))


def score(engine: Engine, images: Iterable[Sample], wanted: Sequence[Mapping[str, Real]]) -> Score:
    """The score of ``engine`` on ``images``, whose float outputs are ``wanted``, by name, one mapping per image."""
    names = engine.graph.output_names
    sums = {name: Noise() for name in names}
    same = []
    for image, real in zip(images, wanted, strict=True):
        found = engine.run(image)
        for name in names:
            sums[name].add(real[name], found[name])
        first = real[names[0]]
        if first.ndim == 2 and first.shape[0] == 1 and first.shape[1] > 1:
            same.append(int(first.argmax()) == int(found[names[0]].argmax()))
    return Score(
        {name: each.sqnr_db for name, each in sums.items()},
        {name: each.cosine for name, each in sums.items()},
        float(np.mean(same)) if same else None,
        len(wanted),
    )
