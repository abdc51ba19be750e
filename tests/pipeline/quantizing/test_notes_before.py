"""What is said before a search is of the ranges that it begins with."""

import numpy as np
import pytest
from smallmodels import images, model, target

from pipeline.errors import ConfigError
from pipeline.graph.view import view
from pipeline.quantize import ptq
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.prepare import Prepared
from pipeline.quantize.recipe import PRESETS, Override
from pipeline.quantizing import notes
from pipeline.workspace import Quiet

FLOATING = model(
    "g (float[1,3,6,6] x) => (float[1,4,6,6] y) { y = Conv (x, w) }",
    w=np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype(np.float32),
)


def said(recipe, monkeypatch):
    """How the ranges that something is said of are chosen."""
    chosen, quantize = [], ptq.quantize

    def watched(graph, histograms, scheme, choosing):
        chosen.append(choosing)
        return quantize(graph, histograms, scheme, choosing)

    monkeypatch.setattr(ptq, "quantize", watched)
    taken = calibrate(FLOATING, view(FLOATING), images((1, 3, 6, 6)))
    notes.before(Prepared(FLOATING, {"x": (1, 3, 6, 6)}, ()), taken, recipe, target("kirin-970"), Quiet())
    return chosen


@pytest.mark.parametrize(("preset", "first"), [("fast", "minmax"), ("balanced", "minmax"), ("best", "minmax")])
def test_it_is_of_what_the_first_way_begins_with_and_its_overrides(preset, first, monkeypatch):
    recipe = PRESETS[preset].model_copy(update={"overrides": (Override(tensors="x", range=(-4.0, 4.0)),)})
    (choosing,) = said(recipe, monkeypatch)
    assert (choosing.choice, choosing.by_tensor) == (first, {"x": (-4.0, 4.0)})


def test_an_override_of_nothing_is_told_before_the_search(monkeypatch):
    recipe = PRESETS["balanced"].model_copy(update={"overrides": (Override(tensors="none", range="mse"),)})
    with pytest.raises(ConfigError, match="no activation is called none"):
        said(recipe, monkeypatch)
