"""Why a layer loses, and what to try next: what its target has, and what has not been tried."""

from collections.abc import Set
from dataclasses import dataclass

from pipeline.quantize.recipe import Recipe
from pipeline.quantize.sensitivity import Sensitivity

CLIPS = 0.01
"""Share of values beyond an end of the range from which on the range is to blame."""

UNLIKE_DB = 3.0
"""What the worst channel has less than the layer where channels of unlike size are to blame."""

UPSTREAM_DB = 6.0
"""What a layer has more alone than after all before it where these are to blame."""


@dataclass(frozen=True)
class Means:
    """What there is against a layer's loss.

    Attributes:
        target: its name.
        wide: activations that are int8 and could be int16 without leaving the NPU, by name.
        coarse: operators whose weights have one scale by a rule of their NPU, by name.
        recipe: what was tried.
        climbed: whether the mixed-precision ladder was climbed too, which tries all that a recipe can name.
    """

    target: str
    wide: Set[str]
    coarse: Set[str]
    recipe: Recipe
    climbed: bool


def advice(row: Sensitivity, means: Means) -> tuple[str, str]:
    """Why a layer loses, as far as its numbers tell, and what to try next."""
    if row.device == "cpu" and row.reasons:
        return row.reasons[0], f"see what the target can run instead: pipeline check --target {means.target} --what-if"
    if row.low == row.high == 0.0:
        return "it never fires: all its values are 0", "calibrate with images that it reacts to"
    if row.saturated > CLIPS:
        share = f"{row.saturated:.1%} of its values lie beyond an end of its range"
        return share, f"a wider range for {row.tensor}: overrides in the recipe, range minmax"
    if row.channels and row.channels[0][1] < row.sqnr_db - UNLIKE_DB:
        worst = ", ".join(f"{c} ({level:.1f} dB)" for c, level in row.channels)
        why = f"its range is shared by channels of unlike size; worst are {worst}"
        equalized = bool(means.recipe.equalize) or means.climbed
        return why, _finer(row, means) if equalized else "equalize: [both] in the recipe, or --preset balanced"
    if row.dtype == "float32" or row.alone_db > row.sqnr_db + UPSTREAM_DB:
        return "the noise comes from the layers before it", "look at the first layer that diverges"
    levels = 65536 if row.dtype == "int16" else 256
    rounded = means.recipe.rounding == "compensated" or means.climbed
    fix = _finer(row, means) if rounded else "rounding: compensated in the recipe, or --preset best"
    return f"rounding to {levels} levels spreads over all its channels", fix


def _finer(row: Sensitivity, means: Means) -> str:
    """What is left above int8 with one scale for all."""
    climb = "a higher --min-sqnr" if means.climbed else "--min-sqnr DB --ladder"
    if row.tensor in means.wide:
        return f"int16 activations, which {means.target} has: {climb}"
    if row.node in means.coarse:
        return f"a weight scale per channel, which the NPU of {means.target} does not take, the host does: {climb}"
    if means.climbed:
        return f"the ladder tried what {means.target} has for it: train with rounding, quantize.mode: qat"
    return f"real numbers on the host, for {means.target} has nothing finer here: {climb}"
