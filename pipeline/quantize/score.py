"""How close the integer engine's outputs are to the float model's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.quantize.engine import Engine, Real
from pipeline.quantize.parts import parts
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
        parts: signal to noise of each part of the outputs that have some, by output and tensor.
    """

    outputs: Mapping[str, float]
    cosines: Mapping[str, float]
    agreement: float | None
    images: int
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sqnr_db: float = field(init=False)
    """The objective: the mean over the outputs, each part of one counted as an output of its own."""

    def __post_init__(self) -> None:
        """Average the outputs and parts."""
        levels = [list(self.parts[name].values()) if name in self.parts else [db] for name, db in self.outputs.items()]
        object.__setattr__(self, "sqnr_db", float(np.mean([db for each in levels for db in each])))

    @property
    def metrics(self) -> Mapping[str, float]:
        """The objective, that of every output and that of every part, in dB, by ``sqnr_db[.OUTPUT[.PART]]``."""
        outputs = {f"sqnr_db.{name}": db for name, db in self.outputs.items()}
        parts = {f"sqnr_db.{name}.{part}": db for name, each in self.parts.items() for part, db in each.items()}
        return {"sqnr_db": self.sqnr_db, **outputs, **parts}


def score(engine: Engine, images: Iterable[Sample], wanted: Sequence[Mapping[str, Real]]) -> Score:
    """The score of ``engine`` on ``images``, whose float outputs are ``wanted``, by name, one mapping per image."""
    names = engine.graph.output_names
    places = {
        name: {engine.original.get(part, part): where for part, where in each.items()}
        for name, each in parts(engine.graph).items()
    }
    sums = {name: Noise() for name in names}
    apart = {name: {part: Noise() for part in each} for name, each in places.items()}
    same = []
    for image, real in zip(images, wanted, strict=True):
        found = engine.run(image)
        for name in names:
            sums[name].add(real[name], found[name])
            for part, noise in apart.get(name, {}).items():
                where = places[name][part]
                noise.add(real[name][where], found[name][where])
        first = real[names[0]]
        if first.ndim == 2 and first.shape[0] == 1 and first.shape[1] > 1:
            same.append(int(first.argmax()) == int(found[names[0]].argmax()))
    return Score(
        {name: each.sqnr_db for name, each in sums.items()},
        {name: each.cosine for name, each in sums.items()},
        float(np.mean(same)) if same else None,
        len(wanted),
        {name: {part: noise.sqnr_db for part, noise in each.items()} for name, each in apart.items()},
    )
