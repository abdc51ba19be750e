"""Recipes: what the quantizer tries, as typed YAML that knows its keys, in both directions; and the presets."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline import yamltree
from pipeline.configerrors import explain
from pipeline.errors import ConfigError

RangeName = Literal["minmax", "moving-average", "percentile", "mse", "entropy"]
Preset = Literal["fast", "balanced", "best"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Override(_Part):
    """Another range for some activations: by choice, or as numbers."""

    tensors: str = Field(min_length=1, description="a regular expression that a whole tensor name must match")
    range: RangeName | tuple[float, float]

    @field_validator("tensors")
    @classmethod
    def _is_an_expression(cls, text: str) -> str:
        try:
            re.compile(text)
        except re.error as error:
            raise ValueError(f"should be a regular expression: {error}") from None
        return text

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if isinstance(self.range, tuple) and not -math.inf < self.range[0] < self.range[1] < math.inf:
            raise ValueError("should have a range from a smaller to a larger number, both finite")
        return self


class Calibrated(_Part):
    """What a saved recipe was used on; written, and read back, but nothing that a run goes by."""

    images: int = Field(ge=1)
    digest: str = Field(description="SHA-256 of the images as the network sees them")


class Recipe(_Part):
    """How a model is quantized. Where several things are named each is tried, and the best on the engine kept."""

    schema_version: Literal[1] = Field(1, alias="schema")
    target: str | None = Field(None, description="the target it is for; any when absent")
    range: tuple[RangeName, ...] = Field(("mse",), min_length=1)
    percentiles: tuple[float, ...] = Field((99.99,), min_length=1, description="of the values kept")
    weight_range: tuple[Literal["max", "mse"], ...] = Field(("max",), min_length=1)
    power_of_two: bool = Field(False, description="scales that a shift multiplies with")
    equalize: tuple[Literal["weights", "activations", "both"], ...] = ()
    absorb_high_bias: bool = True
    rescue: bool = Field(False, description="even channels far beyond the others, with range minmax and nothing tried")
    no_worse_than: Preset | None = Field(None, description="gone through first; the better end of both is kept")
    rounding: Literal["nearest", "compensated"] = "nearest"
    bias_correction: Literal["off", "expected", "fast", "full"] = Field(
        "off", description="expected does without trying what fast tries; full tries fast first"
    )
    learning_images: int = Field(16, ge=1, description="of the calibration images, to round and correct with")
    judging_images: int = Field(16, ge=1, description="of the others, to decide with")
    overrides: tuple[Override, ...] = ()
    calibrated: Calibrated | None = None
    kept: tuple[str, ...] = Field((), description="what was kept when it was saved; a later range replaces an earlier")
    metrics: Mapping[str, float] = Field(default_factory=dict, description="what came out when it was saved")

    @field_validator("percentiles")
    @classmethod
    def _are_percentiles(cls, values: Sequence[float]) -> Sequence[float]:
        if not all(50 < value <= 100 for value in values):
            raise ValueError("should lie above 50 and up to 100")
        return values

    @model_validator(mode="after")
    def _rescues_extremes(self) -> Self:
        if self.rescue and (self.range != ("minmax",) or self.judged or self.overrides):
            raise ValueError("should have rescue only with range minmax, no overrides and nothing else to try")
        return self

    @property
    def needs_histograms(self) -> bool:
        """Whether extremes alone do not do."""
        plain = {"minmax", "moving-average"}
        others = {o.range for o in self.overrides if isinstance(o.range, str)}
        return bool((set(self.range) | others) - plain) or bool(self.equalize) or self.no_worse_than is not None

    @property
    def judged(self) -> bool:
        """Whether anything has to be decided on the engine."""
        choices = (len(self.range), len(self.percentiles), len(self.weight_range))
        recovers = bool(self.equalize) or self.rounding != "nearest" or self.bias_correction in ("fast", "full")
        return recovers or self.no_worse_than is not None or max(choices) > 1


PRESETS: Mapping[Preset, Recipe] = {
    "fast": Recipe(range=("minmax",), rescue=True, bias_correction="expected"),
    "balanced": Recipe(no_worse_than="fast", range=("mse", "percentile"), equalize=("both",), bias_correction="fast"),
    "best": Recipe(
        no_worse_than="balanced",
        range=("minmax", "percentile", "mse", "entropy"),
        percentiles=(99.999, 99.99, 99.9),
        weight_range=("max", "mse"),
        equalize=("weights", "activations", "both"),
        rounding="compensated",
        bias_correction="full",
    ),
}
"""What ``--preset`` names: extremes, and what costs next to nothing, untried; some choices; every pass.

What is tried is kept only if the engine's outputs improve. The first trials of ``balanced`` are what ``fast`` does, and
the first of ``best`` are those of ``balanced``: on the images that decide none is worse than a cheaper one.
"""


def load(path: Path, target: str) -> Recipe:
    """The recipe in ``path``, for ``target``.

    Raises:
        ConfigError: as ``read``, or it is for another target.
    """
    recipe = read(path)
    if recipe.target not in (None, target):
        fix = f"--target {recipe.target}, or take target out of the recipe"
        raise ConfigError(f"is a recipe for {recipe.target}, not for {target}", where=path, fix=fix)
    return recipe


def read(path: Path) -> Recipe:
    """The recipe in ``path``.

    Raises:
        ConfigError: it cannot be read, or says something unknown or impossible; every mistake is told.
    """
    document = yamltree.read(path, "the recipe that pipeline quantize writes beside its model")
    try:
        return Recipe.model_validate(document.values)
    except ValidationError as error:
        *others, last = explain(error, Recipe)
        before = "".join(f"{p.what} ({p.fix}); " if p.fix else f"{p.what}; " for p in others)
        raise ConfigError(before + last.what, where=path, fix=last.fix) from None


def dump(recipe: Recipe) -> str:
    """The recipe as YAML that ``load`` reads back to the same."""
    values: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True, exclude_none=True)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
