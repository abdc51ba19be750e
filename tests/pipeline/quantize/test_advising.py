"""The advice that a layer gets: its target's means, and only what has not been tried."""

from dataclasses import replace

import pytest

from pipeline.quantize.advising import Means, advice
from pipeline.quantize.recipe import PRESETS, Recipe
from pipeline.quantize.sensitivity import Sensitivity

ROW = Sensitivity(
    "Conv_1", "Conv", "t", "npu", (), 30.0, 32.0, 0.999, 0.1, 0.05, "int8", 0.0, -1.0, 1.0, ((0, 29.0), (1, 31.0))
)
FAST, BEST = PRESETS["fast"], PRESETS["best"]
UNLIKE = replace(ROW, channels=((4, 20.0),))


def means(recipe=FAST, wide=(), coarse=(), climbed=False):
    return Means("chip", frozenset(wide), frozenset(coarse), recipe, climbed)


@pytest.mark.parametrize(
    ("row", "given", "why", "fix"),
    [
        (ROW, means(), "rounding to 256 levels", "rounding: compensated in the recipe, or --preset best"),
        (ROW, means(BEST, wide=["t"]), "rounding to 256", "int16 activations, which chip has: --min-sqnr DB --ladder"),
        (ROW, means(BEST, coarse=["Conv_1"]), "rounding to 256", "a weight scale per channel, which the NPU of chip"),
        (ROW, means(BEST), "rounding to 256", "real numbers on the host, for chip has nothing finer here"),
        (ROW, means(climbed=True, wide=["t"]), "rounding to 256", "int16 activations, which chip has: a higher"),
        (ROW, means(climbed=True), "rounding to 256", "the ladder tried what chip has for it: train with rounding"),
        (replace(ROW, dtype="int16"), means(BEST), "rounding to 65536 levels", "real numbers on the host"),
        (replace(ROW, dtype="float32"), means(BEST), "from the layers before it", "the first layer that diverges"),
        (UNLIKE, means(), "channels of unlike size; worst are 4 (20.0 dB)", "equalize: [both] in the recipe, or"),
        (UNLIKE, means(PRESETS["balanced"], wide=["t"]), "unlike size", "int16 activations, which chip has"),
        (UNLIKE, means(climbed=True), "unlike size", "the ladder tried what chip has"),
        (replace(ROW, saturated=0.2), means(BEST), "20.0% of its values lie beyond", "a wider range for t: overrides"),
        (replace(ROW, alone_db=50.0), means(), "from the layers before it", "the first layer that diverges"),
        (replace(ROW, device="cpu", reasons=("no kernel",)), means(), "no kernel", "pipeline check --target chip"),
    ],
)  # fmt: skip
def test_advice_names_the_next_thing_that_there_is(row, given, why, fix):
    found = advice(row, given)
    assert why in found[0]
    assert fix in found[1]


def test_no_preset_is_advised_that_lacks_what_it_is_named_for():
    assert PRESETS["best"].rounding == "compensated"
    assert "both" in PRESETS["balanced"].equalize
    assert Recipe(equalize=("both",), rounding="compensated").judged
